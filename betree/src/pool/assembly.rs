//! Fitting devices together: which configured device is which member of the pool, and which generation to open.

use super::format::{
    AREA_BLOCKS, DEVICE_BLOCKS_MIN, End, Features, RETIRED_MAX, RING_SLOTS, SEGMENT_BLOCKS_MAX,
    SEGMENT_BLOCKS_MIN, Superblock, TOPOLOGY_MAX, Topology, TopologyEntry, VDEV_IDS_MAX, VdevKind, VdevState,
    is_segment_length,
};
use super::label::{self, LeafScan, SlotDump};
use super::pool::TopLevelVdev;
use super::topology::VdevDevices;
use super::{Access, CreateOptions, PoolError};
use crate::base::ids::{Generation, Uuid, VdevId};
use crate::base::preference::TIER_COUNT;
use crate::base::units::BLOCK_BYTES_U64;
use crate::vdev::BlockDevice;
use rustix::rand::{GetRandomFlags, getrandom};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// What to do when the first commit may have been cut short: that cannot be told from damage.
const INTERRUPTED: &str = "; if creating the pool was interrupted, create it again by force";

/// A root that can be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its generation.
    pub generation: Generation,
    /// What [`super::Pool::commit`] was given for it.
    pub payload: Vec<u8>,
}

/// An area that lacks the chosen superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleArea {
    /// Name of the device.
    pub device: String,
    /// Which end.
    pub end: End,
    /// The newest valid generation there; `None` when nothing is valid.
    pub newest: Option<Generation>,
}

/// A device that is longer than recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrownDevice {
    /// Name of the device.
    pub device: String,
    /// Its top-level vdev.
    pub vdev: VdevId,
    /// Recorded length in blocks.
    pub recorded_blocks: u64,
    /// Present length in blocks.
    pub blocks: u64,
}

/// What opening found, and why it chose what it chose.
#[derive(Debug, Clone)]
pub struct OpenReport {
    /// The highest generation that is valid on any device.
    pub chosen: Generation,
    /// The highest generation that any superblock or label names.
    pub highest_seen: Generation,
    /// Roots to try, newest first: the chosen one, and the one before when nothing newer can have been durable.
    pub candidates: Vec<Candidate>,
    /// Whether something newer than `chosen` is known or must be suspected to have been durable: a higher generation
    /// is named somewhere, or a ring slot is damaged at both ends of every device, which no crash does.
    pub rolled_back: bool,
    /// Slots that are damaged, unreadable or of somebody else.
    pub bad_slots: Vec<SlotDump>,
    /// Areas that lack the chosen superblock; normal after a crash in the middle of a commit.
    pub stale: Vec<StaleArea>,
    /// Devices that are longer than recorded; the new length is recorded by the next commit.
    pub grown: Vec<GrownDevice>,
}

impl OpenReport {
    /// Tells the log what an operator should know.
    pub(super) fn log(&self) {
        for slot in &self.bad_slots {
            log::warn!("{slot}");
        }
        for grown in &self.grown {
            log::info!("{} grew from {} to {} blocks", grown.device, grown.recorded_blocks, grown.blocks);
        }
        if self.rolled_back {
            log::warn!(
                "opened at generation {}, but something newer was written (highest seen: {}): its superblocks are lost",
                self.chosen,
                self.highest_seen
            );
        }
    }
}

/// A leaf that holds superblocks.
#[derive(Debug)]
pub(super) struct Leaf {
    /// Position of its top-level vdev in the pool.
    pub position: usize,
    pub device: Arc<dyn BlockDevice>,
    pub uuid: Uuid,
    pub vdev: VdevId,
    pub tier: u8,
    pub kind: VdevKind,
    pub leaf: u8,
    pub leaf_count: u8,
    /// Recorded length, which says where the back area is.
    pub blocks: u64,
    /// Length that the next commit records.
    pub next_blocks: u64,
    /// Lengths before.
    pub retired: Vec<u64>,
}

/// A pool put together, before any byte is written.
#[derive(Debug)]
pub(super) struct Assembly {
    pub uuid: Uuid,
    pub features: Features,
    pub segment_blocks: u32,
    /// In the order of the configuration.
    pub vdevs: Vec<TopLevelVdev>,
    /// Per vdev.
    pub reserved: Vec<Vec<Range<u64>>>,
    pub leaves: Vec<Leaf>,
    /// As the next commit records it.
    pub topology: Topology,
    pub highest_seen: Generation,
    /// Superblocks of the candidates, newest first; empty for a new pool.
    pub candidates: Vec<Superblock>,
    /// Leaf, block and generation of every valid superblock.
    pub found: Vec<(usize, u64, Generation)>,
}

impl Assembly {
    /// A pool without labels.
    pub fn unlabelled(vdevs: Vec<TopLevelVdev>) -> Self {
        Self {
            uuid: Uuid::default(),
            features: Features::default(),
            segment_blocks: SEGMENT_BLOCKS_MAX,
            reserved: vec![Vec::new(); vdevs.len()],
            vdevs,
            leaves: Vec::new(),
            topology: Topology { entries: Vec::new(), next_vdev: 0 },
            highest_seen: Generation(0),
            candidates: Vec::new(),
            found: Vec::new(),
        }
    }
}

/// A configured leaf with what is on it.
struct Found<'a> {
    position: usize,
    tier: u8,
    kind: VdevKind,
    leaf_count: usize,
    device: &'a Arc<dyn BlockDevice>,
    scan: LeafScan,
}

impl Found<'_> {
    fn name(&self) -> String {
        self.device.name().to_owned()
    }

    fn blocks(&self) -> u64 {
        self.device.len() / BLOCK_BYTES_U64
    }
}

/// A durable member: a found device with its newest superblock.
struct MemberDevice<'a> {
    found: &'a Found<'a>,
    newest: &'a Superblock,
}

/// Sixteen random bytes.
///
/// # Errors
/// The operating system has none.
pub(crate) fn random_uuid() -> Result<Uuid, PoolError> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(length) => filled += length,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(PoolError::NoRandomBytes(Arc::new(error.into()))),
        }
    }
    Ok(Uuid(bytes))
}

/// Checks what the configuration alone can get wrong.
fn check_configuration(members: &[VdevDevices]) -> Result<(), PoolError> {
    if members.is_empty() {
        return Err(PoolError::NoVdevs);
    }
    if members.len() > TOPOLOGY_MAX {
        return Err(PoolError::TooManyVdevs { count: members.len(), limit: TOPOLOGY_MAX });
    }
    let mut devices: Vec<&Arc<dyn BlockDevice>> = Vec::new();
    for member in members {
        if usize::from(member.tier) >= TIER_COUNT {
            return Err(PoolError::UnknownTier { tier: usize::from(member.tier) });
        }
        let vdev = match member.kind {
            VdevKind::Leaf => None,
            VdevKind::Mirror => Some("mirror"),
            VdevKind::Parity1 => Some("parity1"),
            VdevKind::Parity2 => Some("parity2"),
        };
        if let Some(vdev) = vdev {
            return Err(PoolError::Unsupported { vdev });
        }
        assert!(member.leaves.len() == 1, "a leaf vdev has one leaf");
        for device in member.leaves.iter().filter_map(|leaf| leaf.device.as_ref()) {
            if let Some(other) = devices.iter().find(|other| Arc::ptr_eq(other, device)) {
                let (device, other) = (device.name().to_owned(), other.name().to_owned());
                return Err(PoolError::DuplicateDevice { device, other });
            }
            devices.push(device);
        }
    }
    Ok(())
}

/// Block ranges of a leaf that the allocator must never hand out, ascending.
fn reserved_ranges(leaf: &Leaf) -> Vec<Range<u64>> {
    let mut ranges = vec![End::Front.area(leaf.blocks)];
    let lengths = leaf.retired.iter().copied().chain([leaf.blocks, leaf.next_blocks]);
    ranges.extend(lengths.collect::<BTreeSet<u64>>().into_iter().map(|blocks| End::Back.area(blocks)));
    ranges
}

/// Checks that a pool can be made of these devices, as far as they exist.
pub(super) fn check_creatable(members: &[VdevDevices], options: &CreateOptions) -> Result<(), PoolError> {
    check_configuration(members)?;
    if !is_segment_length(options.segment_blocks) {
        let (min, max) = (SEGMENT_BLOCKS_MIN, SEGMENT_BLOCKS_MAX);
        return Err(PoolError::SegmentLength { blocks: options.segment_blocks, min, max });
    }
    for device in members.iter().flat_map(|member| &member.leaves).filter_map(|leaf| leaf.device.as_ref()) {
        let blocks = device.len() / BLOCK_BYTES_U64;
        if blocks < DEVICE_BLOCKS_MIN {
            let device = device.name().to_owned();
            return Err(PoolError::TooSmall { device, blocks, minimum: DEVICE_BLOCKS_MIN });
        }
        if device.is_volatile() || options.force {
            continue;
        }
        if let Some(found) = label::scan(&**device).in_the_way() {
            return Err(PoolError::NotEmpty { device: device.name().to_owned(), found });
        }
    }
    Ok(())
}

/// Puts a new pool together. Nothing is written.
pub(super) fn compose(members: &[VdevDevices], options: &CreateOptions) -> Result<Assembly, PoolError> {
    check_creatable(members, options)?;
    let (mut vdevs, mut reserved, mut leaves, mut entries) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (position, member) in members.iter().enumerate() {
        let id = VdevId(position as u32);
        let leaf = &member.leaves[0];
        let Some(device) = &leaf.device else {
            return Err(PoolError::NotFound { devices: vec![leaf.name.clone()] });
        };
        let blocks = device.len() / BLOCK_BYTES_U64;
        let state = if device.is_volatile() { VdevState::Volatile } else { VdevState::Durable };
        entries.push(TopologyEntry { id, tier: member.tier, kind: member.kind, leaf_count: 1, state });
        vdevs.push(TopLevelVdev { id, tier: member.tier, blocks, device: Arc::clone(device) });
        if device.is_volatile() {
            reserved.push(Vec::new());
            continue;
        }
        let leaf = Leaf {
            position,
            device: Arc::clone(device),
            uuid: random_uuid()?,
            vdev: id,
            tier: member.tier,
            kind: member.kind,
            leaf: 0,
            leaf_count: 1,
            blocks,
            next_blocks: blocks,
            retired: Vec::new(),
        };
        reserved.push(reserved_ranges(&leaf));
        leaves.push(leaf);
    }
    let next_vdev = entries.len() as u32;
    Ok(Assembly {
        uuid: random_uuid()?,
        features: Features::default(),
        segment_blocks: options.segment_blocks,
        vdevs,
        reserved,
        leaves,
        topology: Topology { entries, next_vdev },
        highest_seen: Generation(0),
        candidates: Vec::new(),
        found: Vec::new(),
    })
}

/// Puts an existing pool together. Nothing is written.
pub(super) fn assemble(members: &[VdevDevices], access: Access) -> Result<(Assembly, OpenReport), PoolError> {
    check_configuration(members)?;
    let read_only = access == Access::ReadOnly;
    let mut absent = Vec::new();
    let mut found = Vec::new();
    for (position, member) in members.iter().enumerate() {
        for leaf in &member.leaves {
            match &leaf.device {
                None => absent.push(leaf.name.clone()),
                Some(device) if device.is_volatile() => {}
                Some(device) => found.push(Found {
                    position,
                    tier: member.tier,
                    kind: member.kind,
                    leaf_count: member.leaves.len(),
                    device,
                    scan: label::scan(&**device),
                }),
            }
        }
    }
    let (blank, written): (Vec<&Found<'_>>, Vec<&Found<'_>>) =
        found.iter().partition(|found| found.scan.is_blank);
    if written.is_empty() {
        absent.extend(blank.iter().map(|found| found.name()));
        if absent.is_empty() {
            absent.push("a configuration of memory vdevs".to_owned());
        }
        return Err(PoolError::NotFound { devices: absent });
    }
    let devices = written.into_iter().map(identify).collect::<Result<Vec<_>, PoolError>>()?;
    check_same_pool(&devices)?;
    let Some(chosen) = devices.iter().map(|device| device.newest).max_by_key(|newest| newest.generation)
    else {
        unreachable!("there is at least one device");
    };
    check_members(&devices, chosen, &absent, &blank)?;
    check_generations(&devices, chosen)?;
    check_features(&devices, chosen, read_only)?;

    let highest_seen =
        devices.iter().map(|device| device.found.scan.highest_seen()).max().unwrap_or_default();
    let lost =
        (0..RING_SLOTS as u8).any(|slot| devices.iter().all(|device| device.found.scan.lost_both(slot)));
    let rolled_back = lost || highest_seen > chosen.generation;
    let mut candidates = vec![chosen.clone()];
    if !rolled_back && chosen.previous.0 > 0 {
        let all = || devices.iter().flat_map(|device| device.found.scan.superblocks());
        let previous = all().find(|(_, superblock)| superblock.generation == chosen.previous);
        candidates.extend(previous.map(|(_, superblock)| superblock.clone()));
    }

    let (leaves, grown) = place(&devices, read_only);
    let topology = place_volatile(members, &chosen.topology)?;
    let mut vdevs = Vec::new();
    let mut reserved = Vec::new();
    for (position, member) in members.iter().enumerate() {
        let Some(device) = member.leaves.iter().find_map(|leaf| leaf.device.as_ref()) else {
            unreachable!("an absent leaf is a missing device");
        };
        let (id, blocks, ranges) = match leaves.iter().find(|leaf| leaf.position == position) {
            Some(leaf) => (leaf.vdev, leaf.next_blocks, reserved_ranges(leaf)),
            None => {
                let Some(id) = topology.volatile.get(&position) else {
                    unreachable!("a vdev that is not durable is volatile");
                };
                (*id, device.len() / BLOCK_BYTES_U64, Vec::new())
            }
        };
        vdevs.push(TopLevelVdev { id, tier: member.tier, blocks, device: Arc::clone(device) });
        reserved.push(ranges);
    }
    let report = OpenReport {
        chosen: chosen.generation,
        highest_seen,
        candidates: candidates
            .iter()
            .map(|superblock| Candidate {
                generation: superblock.generation,
                payload: superblock.payload.clone(),
            })
            .collect(),
        rolled_back,
        bad_slots: devices.iter().flat_map(|device| device.found.scan.bad().cloned()).collect(),
        stale: stale_areas(&devices, chosen.generation),
        grown,
    };
    let found = devices
        .iter()
        .enumerate()
        .flat_map(|(leaf, device)| {
            device.found.scan.superblocks().map(move |(slot, found)| (leaf, slot.block, found.generation))
        })
        .collect();
    let assembly = Assembly {
        uuid: chosen.pool,
        features: chosen.features,
        segment_blocks: chosen.segment_blocks,
        vdevs,
        reserved,
        leaves,
        topology: topology.topology,
        highest_seen,
        candidates,
        found,
    };
    Ok((assembly, report))
}

/// The newest superblock of a device that is not blank.
fn identify<'a>(found: &'a Found<'a>) -> Result<MemberDevice<'a>, PoolError> {
    let device = found.name();
    if let Some((version, features)) = found.scan.newer() {
        return Err(PoolError::NewerFormat { device, version, features, readable: false });
    }
    if let (Some(_), Some(newest)) = (found.scan.identity, found.scan.newest()) {
        return Ok(MemberDevice { found, newest });
    }
    if let Some(error) = found.scan.read_error() {
        return Err(PoolError::Vdev(error));
    }
    if !found.scan.has_our_magic() {
        return Err(PoolError::NotAPool { device });
    }
    let reason = if found.scan.newest().is_some() {
        "they belong to several pools or devices".to_owned()
    } else {
        let first = found.scan.bad().find(|slot| slot.content.is_of_this_format());
        let what = first.map_or_else(
            || "none is left".to_owned(),
            |slot| format!("{} of the {} area: {}", slot.slot, slot.end, slot.content),
        );
        format!("{what}{}", if found.scan.bad().count() == 1 { INTERRUPTED } else { "" })
    };
    Err(PoolError::Damaged { device, reason })
}

/// Refuses devices of another pool and devices that are there twice.
fn check_same_pool(devices: &[MemberDevice<'_>]) -> Result<(), PoolError> {
    let mut pools: BTreeMap<Uuid, usize> = BTreeMap::new();
    for device in devices {
        *pools.entry(device.newest.pool).or_default() += 1;
    }
    // The pool that most devices belong to is the one meant; the first device decides between equals.
    let most = pools.values().copied().max().unwrap_or_default();
    let Some(expected) = devices.iter().find(|device| pools.get(&device.newest.pool) == Some(&most)) else {
        return Ok(());
    };
    for (index, device) in devices.iter().enumerate() {
        if device.newest.pool != expected.newest.pool {
            return Err(PoolError::ForeignDevice {
                device: device.found.name(),
                pool: device.newest.pool,
                other: expected.found.name(),
                expected: expected.newest.pool,
            });
        }
        let place = |of: &MemberDevice<'_>| (of.newest.vdev, of.newest.leaf);
        let twin = devices[..index]
            .iter()
            .find(|other| other.newest.device == device.newest.device || place(other) == place(device));
        if let Some(other) = twin {
            return Err(PoolError::DuplicateDevice {
                device: device.found.name(),
                other: other.found.name(),
            });
        }
    }
    Ok(())
}

/// Compares the devices with the topology of the chosen superblock and with the configuration.
fn check_members(
    devices: &[MemberDevice<'_>],
    chosen: &Superblock,
    absent: &[String],
    blank: &[&Found<'_>],
) -> Result<(), PoolError> {
    for MemberDevice { found, newest } in devices {
        let device = found.name();
        let entry = chosen.topology.entry(newest.vdev).filter(|entry| {
            (entry.tier, entry.kind, entry.leaf_count, entry.state)
                == (newest.tier, newest.kind, newest.leaf_count, VdevState::Durable)
        });
        if entry.is_none() {
            return Err(PoolError::NotAMember { device, vdev: newest.vdev, pool: newest.pool });
        }
        if (newest.kind, usize::from(newest.leaf_count)) != (found.kind, found.leaf_count) {
            let layout = |kind, leaves| format!("{kind} of {leaves} device(s)");
            return Err(PoolError::LayoutMismatch {
                device,
                recorded: layout(newest.kind, usize::from(newest.leaf_count)),
                configured: layout(found.kind, found.leaf_count),
            });
        }
        if newest.tier != found.tier {
            return Err(PoolError::TierMismatch { device, recorded: newest.tier, configured: found.tier });
        }
        if newest.device_blocks > found.blocks() {
            return Err(PoolError::Shorter {
                device,
                blocks: found.blocks(),
                recorded: newest.device_blocks,
            });
        }
    }
    for entry in &chosen.topology.entries {
        match entry.state {
            VdevState::Volatile => continue,
            VdevState::Indirect => return Err(PoolError::Unsupported { vdev: "indirect" }),
            VdevState::Durable => {}
        }
        for leaf in 0..entry.leaf_count {
            if devices.iter().all(|device| (device.newest.vdev, device.newest.leaf) != (entry.id, leaf)) {
                let gone = absent.first().map(|name| format!("{name} does not exist or is an empty file"));
                let hint = if chosen.previous.0 == 0 { INTERRUPTED } else { "" };
                let empty = || blank.first().map(|found| format!("{} is empty{hint}", found.name()));
                return Err(PoolError::MissingDevice {
                    vdev: entry.id,
                    leaf,
                    tier: entry.tier,
                    instead: gone.or_else(empty),
                });
            }
        }
    }
    match (devices.first(), blank.first().map(|found| found.name()).or_else(|| absent.first().cloned())) {
        (Some(member), Some(device)) => Err(PoolError::BlankDevice { device, pool: member.newest.pool }),
        _ => Ok(()),
    }
}

/// Refuses devices that lack a durable generation or hold another root of the same one.
fn check_generations(devices: &[MemberDevice<'_>], chosen: &Superblock) -> Result<(), PoolError> {
    for MemberDevice { found, newest } in devices {
        // Generation g is written only after g−1 was flushed on every leaf.
        if newest.generation < chosen.previous {
            let device = found.name();
            return Err(PoolError::Stale { device, newest: newest.generation, chosen: chosen.generation });
        }
    }
    let mut roots: BTreeMap<Generation, (&Superblock, String)> = BTreeMap::new();
    for device in devices {
        for (slot, superblock) in device.found.scan.superblocks() {
            if superblock.generation < chosen.previous {
                continue;
            }
            let (first, other) =
                roots.entry(superblock.generation).or_insert_with(|| (superblock, slot.device.clone()));
            let root =
                |of: &Superblock| (of.previous, of.slot, of.segment_blocks, of.topology.clone(), of.features);
            if first.payload != superblock.payload || root(first) != root(superblock) {
                return Err(PoolError::Diverged {
                    device: slot.device.clone(),
                    other: other.clone(),
                    generation: superblock.generation,
                });
            }
        }
    }
    Ok(())
}

fn check_features(
    devices: &[MemberDevice<'_>],
    chosen: &Superblock,
    read_only: bool,
) -> Result<(), PoolError> {
    let features = chosen.features.unknown_ro_compat();
    if features == 0 || read_only {
        return Ok(());
    }
    let holder = devices.iter().find(|device| device.newest.generation == chosen.generation);
    let device = holder.map_or_else(String::new, |device| device.found.name());
    Err(PoolError::NewerFormat { device, version: 1, features, readable: true })
}

/// The durable leaves, and which of them grew.
fn place(devices: &[MemberDevice<'_>], read_only: bool) -> (Vec<Leaf>, Vec<GrownDevice>) {
    let mut grown = Vec::new();
    let mut leaves = Vec::new();
    for MemberDevice { found, newest } in devices {
        let (recorded_blocks, blocks) = (newest.device_blocks, found.blocks());
        let mut next_blocks = recorded_blocks;
        // The new back area must not touch the old one, which is needed until the new length is durable.
        if blocks >= recorded_blocks + AREA_BLOCKS && !read_only {
            if newest.retired.len() < RETIRED_MAX {
                next_blocks = blocks;
                grown.push(GrownDevice { device: found.name(), vdev: newest.vdev, recorded_blocks, blocks });
            } else {
                log::warn!(
                    "{} grew once more than {RETIRED_MAX} times: the new blocks are not used",
                    found.name()
                );
            }
        }
        leaves.push(Leaf {
            position: found.position,
            device: Arc::clone(found.device),
            uuid: newest.device,
            vdev: newest.vdev,
            tier: newest.tier,
            kind: newest.kind,
            leaf: newest.leaf,
            leaf_count: newest.leaf_count,
            blocks: recorded_blocks,
            next_blocks,
            retired: newest.retired.clone(),
        });
    }
    (leaves, grown)
}

/// The topology that the next commit records, and the id of each volatile vdev by its position.
struct VolatilePlaces {
    topology: Topology,
    volatile: BTreeMap<usize, VdevId>,
}

/// Gives the volatile vdevs their ids: in each tier, the recorded ones in order, then new ones. Nothing durable refers
/// to a volatile vdev, so that they may come and go with the configuration; their ids are not used again.
fn place_volatile(members: &[VdevDevices], recorded: &Topology) -> Result<VolatilePlaces, PoolError> {
    let (mut free, mut entries): (Vec<TopologyEntry>, Vec<TopologyEntry>) =
        recorded.entries.iter().copied().partition(|entry| entry.state == VdevState::Volatile);
    let mut next_vdev = recorded.next_vdev;
    let mut volatile = BTreeMap::new();
    for (position, member) in members.iter().enumerate() {
        let Some(device) = member.leaves.iter().find_map(|leaf| leaf.device.as_ref()) else { continue };
        if !device.is_volatile() {
            continue;
        }
        let (tier, kind) = (member.tier, member.kind);
        let entry = match free.iter().position(|entry| (entry.tier, entry.kind) == (tier, kind)) {
            Some(at) => free.remove(at),
            None => {
                let id = VdevId(next_vdev);
                next_vdev += 1;
                TopologyEntry { id, tier, kind, leaf_count: 1, state: VdevState::Volatile }
            }
        };
        volatile.insert(position, entry.id);
        entries.push(entry);
    }
    if next_vdev > VDEV_IDS_MAX || entries.len() > TOPOLOGY_MAX {
        return Err(PoolError::TooManyVdevs { count: entries.len(), limit: TOPOLOGY_MAX });
    }
    entries.sort_by_key(|entry| entry.id);
    Ok(VolatilePlaces { topology: Topology { entries, next_vdev }, volatile })
}

fn stale_areas(devices: &[MemberDevice<'_>], chosen: Generation) -> Vec<StaleArea> {
    let mut stale = Vec::new();
    for device in devices {
        for end in End::BOTH {
            let here = device.found.scan.superblocks().filter(|(slot, _)| slot.end == end);
            let newest = here.map(|(_, superblock)| superblock.generation).max();
            if newest != Some(chosen) {
                stale.push(StaleArea { device: device.found.name(), end, newest });
            }
        }
    }
    stale
}
