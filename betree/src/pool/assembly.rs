//! Fitting devices together: which configured device is which member of the pool, and which generation to open.

use super::format::{
    AREA_BLOCKS, DEVICE_BLOCKS_MIN, End, Features, LEAVES_MAX, LENGTHS_MAX, MemberState, RETIRED_MAX,
    RING_SLOTS, SEGMENT_BLOCKS_MAX, SEGMENT_BLOCKS_MIN, Superblock, TOPOLOGY_MAX, Topology, TopologyEntry,
    VDEV_IDS_MAX, VdevKind, VdevState, is_segment_length,
};
use super::geometry::Geometry;
use super::group::{Group, Labels, needed};
use super::label::{self, LeafScan, SlotDump, SlotUse};
use super::member::{Member, Standing, now};
use super::pool::{OpenOptions, TopLevelVdev};
use super::roll::{Found, MemberDevice, Roll, Verdict};
use super::topology::{LeafDevice, VdevDevices};
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

/// What to do when a member is missing and the others are enough.
const DEGRADED: &str =
    "; the other members hold everything: set \"degraded\": true to go on without it, and replace it soon";
/// What to say when they are not.
const TOO_FEW: &str = "; the members that are left do not hold everything";

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
#[derive(Debug, Clone)]
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
    /// The highest generation that any device names, also one that is not trusted: it is not used again.
    pub highest_used: Generation,
    /// Superblocks of the candidates, newest first; empty for a new pool.
    pub candidates: Vec<Superblock>,
    /// Leaf, block and generation of every valid superblock.
    pub found: Vec<(usize, u64, Generation)>,
    /// Leaf, block and use of every slot that is torn, or rotten.
    pub torn: Vec<(usize, u64, SlotUse)>,
    /// Vdevs that are added to a pool: their label areas hold whatever was there before.
    pub added: BTreeSet<VdevId>,
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
            highest_used: Generation(0),
            candidates: Vec::new(),
            found: Vec::new(),
            torn: Vec::new(),
            added: BTreeSet::new(),
        }
    }
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
pub(super) fn check_configuration(members: &[VdevDevices]) -> Result<(), PoolError> {
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
        let count = member.leaves.len();
        if count > LEAVES_MAX {
            return Err(PoolError::TooManyLeaves { kind: member.kind, count, limit: LEAVES_MAX });
        }
        let is_memory = |device: &&Arc<dyn BlockDevice>| device.is_volatile();
        let memory = member.leaves.iter().filter_map(|leaf| leaf.device.as_ref()).filter(is_memory).count();
        let limit = count - needed(member.kind, count);
        if memory > limit && memory < count {
            return Err(PoolError::TooMuchMemory { kind: member.kind, memory, limit });
        }
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

/// Block ranges of a vdev that the allocator must never hand out, ascending; none of memory.
pub(super) fn reserved_ranges(geometry: Geometry, labels: &Labels) -> Vec<Range<u64>> {
    let columns = u64::from(geometry.columns());
    let of_leaf = |range: Range<u64>| {
        range.start.min(labels.leaf_blocks) * columns..range.end.min(labels.leaf_blocks) * columns
    };
    let mut ranges: Vec<Range<u64>> = Vec::new();
    if !labels.exist {
        return ranges;
    }
    for range in [End::Front.area(labels.leaf_blocks)]
        .into_iter()
        .chain(labels.lengths.iter().map(|blocks| End::Back.area(*blocks)))
    {
        let range = of_leaf(range);
        match ranges.last_mut() {
            Some(last) if last.end > range.start => last.end = last.end.max(range.end),
            _ => ranges.push(range),
        }
    }
    ranges.retain(|range| !range.is_empty());
    ranges
}

/// Of `lengths`, those whose back areas reach below `leaf_blocks`. That is always one of them, also when only memory is so short:
/// a device that takes the place of another may have any length from it on, and its back area must be free.
fn lengths_below(lengths: impl IntoIterator<Item = u64>, leaf_blocks: u64) -> Vec<u64> {
    let shortest = Some(leaf_blocks).filter(|blocks| *blocks >= DEVICE_BLOCKS_MIN);
    let all: BTreeSet<u64> = lengths.into_iter().chain(shortest).collect();
    all.into_iter().filter(|blocks| End::Back.area(*blocks).start < leaf_blocks).collect()
}

/// Checks that a pool can be made of these devices, as far as they exist.
pub(super) fn check_creatable(members: &[VdevDevices], options: &CreateOptions) -> Result<(), PoolError> {
    check_configuration(members)?;
    if !is_segment_length(options.segment_blocks) {
        let (min, max) = (SEGMENT_BLOCKS_MIN, SEGMENT_BLOCKS_MAX);
        return Err(PoolError::SegmentLength { blocks: options.segment_blocks, min, max });
    }
    check_empty(members, options.force)
}

/// Checks that these devices, as far as they exist, are long enough, and empty unless `force`.
pub(super) fn check_empty(members: &[VdevDevices], force: bool) -> Result<(), PoolError> {
    for device in members.iter().flat_map(|member| &member.leaves).filter_map(|leaf| leaf.device.as_ref()) {
        let blocks = device.len() / BLOCK_BYTES_U64;
        if blocks < DEVICE_BLOCKS_MIN {
            let device = device.name().to_owned();
            return Err(PoolError::TooSmall { device, blocks, minimum: DEVICE_BLOCKS_MIN });
        }
        if device.is_volatile() || force {
            continue;
        }
        if let Some(found) = label::scan(&**device).in_the_way() {
            return Err(PoolError::NotEmpty { device: device.name().to_owned(), found });
        }
    }
    Ok(())
}

/// Puts a new pool together. Nothing is written.
pub(super) fn compose(
    members: &[VdevDevices],
    options: &CreateOptions,
    threads: usize,
) -> Result<Assembly, PoolError> {
    check_creatable(members, options)?;
    let (mut vdevs, mut reserved, mut leaves, mut entries) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (position, member) in members.iter().enumerate() {
        let new = new_vdev(position, VdevId(position as u32), member, threads)?;
        entries.push(new.entry);
        vdevs.push(new.vdev);
        reserved.push(new.reserved);
        leaves.extend(new.leaves);
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
        highest_used: Generation(0),
        candidates: Vec::new(),
        found: Vec::new(),
        torn: Vec::new(),
        added: BTreeSet::new(),
    })
}

/// A vdev that no pool has yet.
pub(super) struct NewVdev {
    pub entry: TopologyEntry,
    pub vdev: TopLevelVdev,
    pub reserved: Vec<Range<u64>>,
    pub leaves: Vec<Leaf>,
}

/// Makes a vdev of devices that hold nothing. Nothing is written.
pub(super) fn new_vdev(
    position: usize,
    id: VdevId,
    member: &VdevDevices,
    threads: usize,
) -> Result<NewVdev, PoolError> {
    let (mut of_group, mut leaves) = (Vec::new(), Vec::new());
    let leaf_count = member.leaves.len() as u8;
    let mut leaf_blocks = u64::MAX;
    for (index, leaf) in member.leaves.iter().enumerate() {
        let Some(device) = &leaf.device else {
            return Err(PoolError::NotFound { devices: vec![leaf.name.clone()] });
        };
        let blocks = device.len() / BLOCK_BYTES_U64;
        leaf_blocks = leaf_blocks.min(blocks);
        let uuid = if device.is_volatile() { Uuid::default() } else { random_uuid()? };
        let standing = Standing { uuid, since: now(), blocks, ..Standing::default() };
        let name = device.name().to_owned();
        of_group.push(Member::new(name, Some(Arc::clone(device)), MemberState::Online, standing));
        if !device.is_volatile() {
            leaves.push(Leaf {
                position,
                device: Arc::clone(device),
                uuid,
                vdev: id,
                tier: member.tier,
                kind: member.kind,
                leaf: index as u8,
                leaf_count,
                blocks,
                next_blocks: blocks,
                retired: Vec::new(),
            });
        }
    }
    let state = if leaves.is_empty() { VdevState::Volatile } else { VdevState::Durable };
    let labels = match leaves.is_empty() {
        true => Labels { leaf_blocks, ..Labels::default() },
        false => {
            let lengths = lengths_below(leaves.iter().map(|leaf| leaf.blocks), leaf_blocks);
            Labels { exist: true, number: 0, leaf_blocks, lengths }
        }
    };
    let geometry = Geometry::of(member.kind, leaf_count);
    Ok(NewVdev {
        entry: TopologyEntry { id, tier: member.tier, kind: member.kind, leaf_count, state },
        reserved: reserved_ranges(geometry, &labels),
        vdev: TopLevelVdev {
            id,
            tier: member.tier,
            blocks: geometry.vdev_blocks(leaf_blocks),
            group: Arc::new(Group::new(member.kind, of_group, labels, threads)),
        },
        leaves,
    })
}

/// Configured leaves without a member of the pool: vdev position, name, and why.
type Unused = Vec<(usize, String, String)>;

/// Puts an existing pool together. Nothing is written.
pub(super) fn assemble(
    members: &[VdevDevices],
    options: OpenOptions,
) -> Result<(Assembly, OpenReport), PoolError> {
    check_configuration(members)?;
    let read_only = options.access == Access::ReadOnly;
    let mut unused: Unused = Vec::new();
    let mut found = Vec::new();
    for (position, member) in members.iter().enumerate() {
        for leaf in &member.leaves {
            match &leaf.device {
                None => {
                    let why = format!("{} does not exist or is an empty file", leaf.name);
                    unused.push((position, leaf.name.clone(), why));
                }
                Some(device) if device.is_volatile() => {}
                Some(device) => found.push(Found {
                    position,
                    tier: member.tier,
                    kind: member.kind,
                    leaf_count: member.leaves.len(),
                    device: Arc::clone(device),
                    scan: label::scan(&**device),
                }),
            }
        }
    }
    let (blank, written): (Vec<&Found>, Vec<&Found>) = found.iter().partition(|found| found.scan.is_blank);
    if written.is_empty() {
        let mut devices: Vec<String> = unused.into_iter().map(|(_, name, _)| name).collect();
        devices.extend(blank.iter().map(|found| found.name()));
        if devices.is_empty() {
            devices.push("a configuration of memory vdevs".to_owned());
        }
        return Err(PoolError::NotFound { devices });
    }
    let mut devices = Vec::new();
    let mut damaged = None;
    for found in written {
        match identify(found) {
            Ok(device) => devices.push(device),
            // Whether the pool can do without it is seen below.
            Err(error) if options.degraded && found.kind != VdevKind::Leaf && may_be_missing(&error) => {
                log::warn!("{error}; the pool is opened without it");
                unused.push((found.position, found.name(), error.to_string()));
            }
            Err(error @ PoolError::Damaged { .. }) if damaged.is_none() => damaged = Some(error),
            Err(error) => return Err(damaged.unwrap_or(error)),
        }
    }
    if let Some(error) = damaged {
        return Err(half_gone(error, &devices));
    }
    if devices.is_empty() {
        let devices = unused.into_iter().map(|(_, name, _)| name).collect();
        return Err(PoolError::NotFound { devices });
    }
    check_same_pool(&devices)?;
    let ids: BTreeSet<VdevId> = devices.iter().map(|device| device.newest.vdev).collect();
    let rolls = ids.into_iter().map(|id| Roll::call(id, &devices)).collect::<Result<Vec<_>, PoolError>>()?;
    let newest = rolls.iter().flat_map(Roll::trusted).map(|device| device.newest);
    let Some(chosen) = newest.max_by_key(|newest| newest.generation) else {
        return Err(nobody(&devices));
    };
    check_members(&devices, chosen)?;
    for found in &blank {
        unused.push((found.position, found.name(), format!("{} is empty", found.name())));
    }
    let called = call_all(members, &rolls, chosen, &unused, options.degraded)?;
    let online = |(roll, verdicts): &(&Roll<'_>, Vec<Verdict>)| {
        let leaves = roll.devices.iter().zip(verdicts);
        let online = leaves.filter(|(_, verdict)| verdict.state == MemberState::Online);
        online.filter_map(|(device, _)| device.map(|device| device.newest.device)).collect::<Vec<Uuid>>()
    };
    let online: BTreeSet<Uuid> = called.iter().flat_map(online).collect();
    let trusted: Vec<&MemberDevice<'_>> =
        devices.iter().filter(|device| online.contains(&device.newest.device)).collect();
    check_generations(&trusted, chosen)?;
    check_features(&devices, chosen, read_only)?;

    let seen = |devices: &mut dyn Iterator<Item = &MemberDevice<'_>>| {
        devices.map(|device| device.found.scan.highest_seen()).max().unwrap_or_default()
    };
    let highest_trusted = seen(&mut trusted.iter().copied());
    // What only a late member names is no loss, and not used again.
    let highest_used = seen(&mut devices.iter());
    let lost =
        (0..RING_SLOTS as u8).any(|slot| trusted.iter().all(|device| device.found.scan.lost_both(slot)));
    let rolled_back = lost || highest_trusted > chosen.generation;
    let mut candidates = vec![chosen.clone()];
    if !rolled_back && chosen.previous.0 > 0 {
        let all = || trusted.iter().flat_map(|device| device.found.scan.superblocks());
        let previous = all().find(|(_, superblock)| superblock.generation == chosen.previous);
        candidates.extend(previous.map(|(_, superblock)| superblock.clone()));
    }

    let topology = place_volatile(members, &chosen.topology)?;
    let places = place_rolls(members, &called, chosen)?;
    let (mut vdevs, mut reserved, mut leaves, mut grown) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (position, member) in members.iter().enumerate() {
        let vdev = match (places.get(&position), topology.volatile.get(&position)) {
            (Some(place), _) => {
                let mut of_vdev =
                    place_leaves(called[*place].0, &called[*place].1, position, read_only, &mut grown);
                let vdev =
                    durable_vdev(member, &called[*place], &mut of_vdev, &unused, position, chosen, options)?;
                leaves.extend(of_vdev);
                vdev
            }
            (None, Some(id)) => volatile_vdev(*id, member, options.threads),
            // Nothing but leaves that are not used.
            (None, None) => continue,
        };
        let labels = vdev.group.labels().clone();
        reserved.push(reserved_ranges(vdev.geometry(), &labels));
        vdevs.push(vdev);
    }
    let positions: BTreeMap<VdevId, usize> =
        vdevs.iter().enumerate().map(|(at, vdev)| (vdev.id, at)).collect();
    for leaf in &mut leaves {
        leaf.position = positions.get(&leaf.vdev).copied().unwrap_or(leaf.position);
    }
    let report = OpenReport {
        chosen: chosen.generation,
        highest_seen: highest_trusted,
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
    let leaf_of =
        |device: &MemberDevice<'_>| leaves.iter().position(|leaf| leaf.uuid == device.newest.device);
    let of_leaves: Vec<(usize, &LeafScan)> =
        devices.iter().filter_map(|device| leaf_of(device).map(|leaf| (leaf, &device.found.scan))).collect();
    let found = of_leaves.iter().flat_map(|(leaf, scan)| {
        scan.superblocks().map(|(slot, found)| (*leaf, slot.block, found.generation))
    });
    let torn =
        of_leaves.iter().flat_map(|(leaf, scan)| scan.torn().map(|slot| (*leaf, slot.block, slot.slot)));
    let (found, torn) = (found.collect(), torn.collect());
    let assembly = Assembly {
        uuid: chosen.pool,
        features: chosen.features,
        segment_blocks: chosen.segment_blocks,
        vdevs,
        reserved,
        leaves,
        topology: topology.topology,
        highest_seen: highest_trusted,
        highest_used,
        candidates,
        found,
        torn,
        added: BTreeSet::new(),
    };
    Ok((assembly, report))
}

/// The error for a device whose labels are damaged: when the pool is complete without it and has had vdevs removed, these were
/// being made zero.
fn half_gone(error: PoolError, devices: &[MemberDevice<'_>]) -> PoolError {
    let newest = devices.iter().map(|device| device.newest).max_by_key(|newest| newest.generation);
    let (PoolError::Damaged { device, .. }, Some(newest)) = (&error, newest) else { return error };
    let entries = &newest.topology.entries;
    let has_departed = entries.iter().any(|entry| entry.state == VdevState::Indirect);
    let of = |entry: &TopologyEntry| match entry.state {
        VdevState::Durable => usize::from(entry.leaf_count),
        VdevState::Volatile | VdevState::Indirect => 0,
    };
    let stays = |vdev| entries.iter().any(|entry| entry.id == vdev && entry.state == VdevState::Durable);
    let found = devices.iter().filter(|device| stays(device.newest.vdev)).count();
    match has_departed && found >= entries.iter().map(of).sum() {
        true => PoolError::Removed { device: device.clone(), vdev: None, pool: newest.pool },
        false => error,
    }
}

/// Whether a device with this error may be one of those that a vdev goes on without.
fn may_be_missing(error: &PoolError) -> bool {
    matches!(error, PoolError::Damaged { .. } | PoolError::NotAPool { .. } | PoolError::Vdev(_))
}

/// The error for devices of which each is known to lack something.
fn nobody(devices: &[MemberDevice<'_>]) -> PoolError {
    let behind = devices.iter().map(|device| device.found.name()).collect();
    let vdev = devices.first().map_or(VdevId(0), |device| device.newest.vdev);
    PoolError::Insufficient { vdev, online: 0, needed: 1, behind }
}

/// What the members of each durable vdev are good for, when that is enough.
fn call_all<'a>(
    members: &[VdevDevices],
    rolls: &'a [Roll<'a>],
    chosen: &Superblock,
    unused: &Unused,
    degraded: bool,
) -> Result<Vec<(&'a Roll<'a>, Vec<Verdict>)>, PoolError> {
    let mut called = Vec::new();
    let mut missing_count = 0;
    for entry in &chosen.topology.entries {
        match entry.state {
            VdevState::Volatile => continue,
            // Whoever holds something of it is refused.
            VdevState::Indirect => continue,
            VdevState::Durable => {}
        }
        let interrupted = if chosen.previous.0 == 0 { INTERRUPTED } else { "" };
        let instead = || unused.first().map(|(_, _, why)| format!("{why}{interrupted}"));
        let missing = |leaf: usize, remedy: &'static str| PoolError::MissingDevice {
            vdev: entry.id,
            leaf: leaf as u8,
            tier: entry.tier,
            instead: instead(),
            remedy: if entry.kind == VdevKind::Leaf { "" } else { remedy },
        };
        let Some(roll) = rolls.iter().find(|roll| roll.vdev == entry.id) else {
            return Err(missing(0, TOO_FEW));
        };
        let is_memory = |leaf: &LeafDevice| leaf.device.as_ref().is_some_and(|device| device.is_volatile());
        let has_memory =
            |device: &&MemberDevice<'_>| members[device.found.position].leaves.iter().any(is_memory);
        let verdicts = roll.judge(chosen, roll.devices.iter().flatten().any(has_memory));
        let needed = needed(entry.kind, verdicts.len());
        let online = verdicts.iter().filter(|verdict| verdict.state == MemberState::Online).count();
        let absent = verdicts.iter().position(|verdict| verdict.state == MemberState::Missing);
        if online < needed {
            let stale =
                roll.devices.iter().flatten().find(|device| device.newest.generation < chosen.previous);
            return Err(match (stale, absent) {
                (Some(device), _) => PoolError::Stale {
                    device: device.found.name(),
                    newest: device.newest.generation,
                    chosen: chosen.generation,
                },
                (None, Some(leaf)) => missing(leaf, TOO_FEW),
                (None, None) => {
                    let behind = roll.devices.iter().flatten().zip(&verdicts);
                    let behind = behind.filter(|(_, verdict)| verdict.state != MemberState::Online);
                    let behind = behind.map(|(device, _)| device.found.name()).collect();
                    PoolError::Insufficient { vdev: entry.id, online, needed, behind }
                }
            });
        }
        if let Some(leaf) = absent
            && !degraded
        {
            return Err(missing(leaf, DEGRADED));
        }
        let is_gone = |(device, verdict): &(&Option<_>, &Verdict)| device.is_none() && !verdict.is_volatile;
        missing_count += roll.devices.iter().zip(&verdicts).filter(is_gone).count();
        called.push((roll, verdicts));
    }
    let pool = chosen.pool;
    match unused.get(missing_count) {
        Some((_, device, _)) => Err(PoolError::BlankDevice { device: device.clone(), pool }),
        None => Ok(called),
    }
}

/// Which of `called` each position of the configuration is: of those with the same tier and layout, the one that most of its
/// members are configured in.
fn place_rolls(
    members: &[VdevDevices],
    called: &[(&Roll<'_>, Vec<Verdict>)],
    chosen: &Superblock,
) -> Result<BTreeMap<usize, usize>, PoolError> {
    let mut places = BTreeMap::new();
    for (index, (roll, _)) in called.iter().enumerate() {
        let Some(entry) = chosen.topology.entry(roll.vdev) else { continue };
        let fits = |position: &usize| {
            let member = &members[*position];
            let memory = |device: &Arc<dyn BlockDevice>| device.is_volatile();
            !places.contains_key(position)
                && (member.tier, member.kind, member.leaves.len())
                    == (entry.tier, entry.kind, usize::from(entry.leaf_count))
                && !member.leaves.iter().all(|leaf| leaf.device.as_ref().is_some_and(memory))
        };
        let here = |position: usize| {
            roll.devices.iter().flatten().filter(|device| device.found.position == position).count()
        };
        // Of equals the first.
        let best = (0..members.len()).filter(fits).rev().max_by_key(|position| here(*position));
        let Some(position) = best else {
            let Some(device) = roll.devices.iter().flatten().next() else { continue };
            return Err(PoolError::LayoutMismatch {
                device: device.found.name(),
                recorded: format!("{} of its own, vdev {}", entry.kind, entry.id),
                configured: format!("{} with members of other vdevs", entry.kind),
            });
        };
        places.insert(position, index);
    }
    Ok(places)
}

/// The leaves of a vdev that are there, and which of them grew.
fn place_leaves(
    roll: &Roll<'_>,
    verdicts: &[Verdict],
    position: usize,
    read_only: bool,
    grown: &mut Vec<GrownDevice>,
) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    for (device, verdict) in roll.devices.iter().zip(verdicts) {
        let Some(MemberDevice { found, newest, .. }) = device else { continue };
        let (recorded_blocks, blocks) = (newest.device_blocks, found.blocks());
        let mut next_blocks = recorded_blocks;
        // The new back area must not touch the old one, which is needed until the new length is durable.
        if blocks >= recorded_blocks + AREA_BLOCKS && !read_only && verdict.state.is_written() {
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
            position,
            device: Arc::clone(&found.device),
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
    leaves
}

/// A durable vdev with its members, `leaves` of which are there.
fn durable_vdev(
    member: &VdevDevices,
    (roll, verdicts): &(&Roll<'_>, Vec<Verdict>),
    leaves: &mut [Leaf],
    unused: &Unused,
    position: usize,
    chosen: &Superblock,
    options: OpenOptions,
) -> Result<TopLevelVdev, PoolError> {
    let configured_memory = member.leaves.iter().filter_map(|leaf| leaf.device.clone());
    let mut memory = configured_memory.filter(|device| device.is_volatile());
    let mut names = unused.iter().filter(|(at, ..)| *at == position).map(|(_, name, why)| (name, why));
    let (mut of_group, mut shortest) = (Vec::new(), u64::MAX);
    for (leaf, verdict) in verdicts.iter().enumerate() {
        let standing = verdict.standing.clone();
        let (name, device, standing) = match (roll.devices[leaf], verdict.is_volatile) {
            (Some(device), _) => (device.found.name(), Some(Arc::clone(&device.found.device)), standing),
            (None, true) => {
                let Some(device) = memory.next() else {
                    return Err(PoolError::LayoutMismatch {
                        device: format!("leaf {leaf} of vdev {}", roll.vdev),
                        recorded: format!("{} with a leaf of memory", member.kind),
                        configured: format!("{} without", member.kind),
                    });
                };
                let blocks = device.len() / BLOCK_BYTES_U64;
                shortest = shortest.min(blocks);
                (device.name().to_owned(), Some(device), Standing { blocks, ..standing })
            }
            (None, false) => {
                let (name, reason) = names.next().map_or_else(
                    || (format!("leaf {leaf} of vdev {}", roll.vdev), None),
                    |(name, why)| (name.clone(), Some(why.clone())),
                );
                (name, None, Standing { reason, ..standing })
            }
        };
        if verdict.state != MemberState::Online && !verdict.is_volatile {
            let reason = standing.reason.as_deref().unwrap_or("its label says so");
            log::warn!("{name} is {}: {reason}", verdict.state);
        }
        of_group.push(Member::new(name, device, verdict.state, standing));
    }
    let labels = next_labels(roll, verdicts, leaves, shortest, options.access == Access::ReadOnly);
    for leaf in leaves.iter() {
        let blocks = leaf.device.len() / BLOCK_BYTES_U64;
        if blocks < labels.leaf_blocks {
            let (device, recorded) = (leaf.device.name().to_owned(), labels.leaf_blocks);
            return Err(PoolError::Shorter { device, blocks, recorded });
        }
    }
    if shortest < labels.leaf_blocks {
        let (blocks, recorded) = (shortest, labels.leaf_blocks);
        return Err(PoolError::Shorter { device: "memory".to_owned(), blocks, recorded });
    }
    let geometry = Geometry::of(member.kind, verdicts.len() as u8);
    let blocks = geometry.vdev_blocks(labels.leaf_blocks);
    let is_changed = is_unrecorded(roll, verdicts, &labels);
    let group = Group::new(member.kind, of_group, labels, options.threads);
    group.set_open_generation(Generation(chosen.previous.0 + 1));
    // Nothing is repaired before it is settled which root the pool continues from.
    group.set_repairs(false);
    if is_changed {
        group.change();
    }
    Ok(TopLevelVdev { id: roll.vdev, tier: member.tier, blocks, group: Arc::new(group) })
}

/// What the next label of a vdev says of its lengths. A vdev grows when all its leaves have grown; `memory` is the length of the
/// shortest of its leaves that are memory.
fn next_labels(
    roll: &Roll<'_>,
    verdicts: &[Verdict],
    leaves: &[Leaf],
    memory: u64,
    read_only: bool,
) -> Labels {
    let of_leaf = |leaf: &Leaf| -> Vec<u64> {
        leaf.retired.iter().copied().chain([leaf.blocks, leaf.next_blocks]).collect()
    };
    let is_single = verdicts.len() == 1;
    let recorded = roll.label.as_ref().filter(|_| !is_single);
    let shortest = |of: fn(&Leaf) -> u64| leaves.iter().map(of).min().unwrap_or_default().min(memory);
    let (number, mut leaf_blocks) = match recorded {
        Some(label) => (roll.next_number(), label.leaf_blocks),
        None => (roll.next_number(), shortest(|leaf| leaf.blocks)),
    };
    let lengths = |leaf_blocks: u64| {
        let of_label = recorded.map(|label| label.lengths.clone()).unwrap_or_default();
        lengths_below(of_label.into_iter().chain(leaves.iter().flat_map(of_leaf)), leaf_blocks)
    };
    let complete = verdicts.iter().all(|verdict| verdict.state.is_written());
    let longer = shortest(|leaf| leaf.next_blocks);
    if longer > leaf_blocks && complete && !read_only && lengths(longer).len() <= LENGTHS_MAX {
        leaf_blocks = longer;
    }
    Labels { exist: true, number, leaf_blocks, lengths: lengths(leaf_blocks) }
}

/// Whether the newest label of a vdev says something else than is known by now, or is not on every member that is used: one that
/// is left alone later has no other word for what it holds than its own.
fn is_unrecorded(roll: &Roll<'_>, verdicts: &[Verdict], labels: &Labels) -> bool {
    let Some(label) = &roll.label else {
        return verdicts.iter().any(|verdict| verdict.state != MemberState::Online && !verdict.is_volatile);
    };
    let members = label.members.iter().zip(verdicts);
    let is_changed = members.into_iter().any(|(recorded, verdict)| {
        !verdict.is_volatile
            && (recorded.state, recorded.missed_from) != (verdict.state, verdict.standing.missed_from)
    });
    let is_behind = |(device, verdict): (&Option<&MemberDevice<'_>>, &Verdict)| {
        verdict.state.is_written()
            && device.is_some_and(|device| device.label.is_none_or(|own| own.number != label.number))
    };
    let is_single = verdicts.len() == 1;
    is_changed
        || roll.devices.iter().zip(verdicts).any(is_behind)
        || roll.is_split
        || (!is_single && (label.leaf_blocks, &label.lengths) != (labels.leaf_blocks, &labels.lengths))
}

/// A vdev of nothing but memory.
fn volatile_vdev(id: VdevId, member: &VdevDevices, threads: usize) -> TopLevelVdev {
    let devices: Vec<Arc<dyn BlockDevice>> =
        member.leaves.iter().filter_map(|leaf| leaf.device.clone()).collect();
    TopLevelVdev::of_devices(id, member.tier, member.kind, devices, threads)
}

/// The newest superblock of a device that is not blank.
fn identify(found: &Found) -> Result<MemberDevice<'_>, PoolError> {
    let device = found.name();
    if let Some((version, features)) = found.scan.newer() {
        return Err(PoolError::NewerFormat { device, version, features, readable: false });
    }
    if let (Some(_), Some(newest)) = (found.scan.identity, found.scan.newest()) {
        return Ok(MemberDevice { found, newest, label: found.scan.label() });
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
        let twin = devices[..index].iter().find(|other| other.newest.device == device.newest.device);
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
fn check_members(devices: &[MemberDevice<'_>], chosen: &Superblock) -> Result<(), PoolError> {
    for MemberDevice { found, newest, .. } in devices {
        let device = found.name();
        let entry = chosen.topology.entry(newest.vdev).filter(|entry| {
            (entry.tier, entry.kind, entry.leaf_count, entry.state)
                == (newest.tier, newest.kind, newest.leaf_count, VdevState::Durable)
        });
        if let Some(former) = chosen.topology.entry(newest.vdev)
            && former.state == VdevState::Indirect
        {
            let vdev = Some(newest.vdev);
            return Err(PoolError::Removed { device, vdev, pool: newest.pool });
        }
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
    Ok(())
}

/// Refuses devices that hold another root of the same generation than the others.
fn check_generations(devices: &[&MemberDevice<'_>], chosen: &Superblock) -> Result<(), PoolError> {
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
        if !member.leaves.iter().all(|leaf| leaf.device.as_ref().is_some_and(|device| device.is_volatile())) {
            continue;
        }
        let (tier, kind) = (member.tier, member.kind);
        let same = |entry: &TopologyEntry| {
            (entry.tier, entry.kind, usize::from(entry.leaf_count)) == (tier, kind, member.leaves.len())
        };
        let entry = match free.iter().position(same) {
            Some(at) => free.remove(at),
            None => {
                let id = VdevId(next_vdev);
                next_vdev += 1;
                TopologyEntry {
                    id,
                    tier,
                    kind,
                    leaf_count: member.leaves.len() as u8,
                    state: VdevState::Volatile,
                }
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
