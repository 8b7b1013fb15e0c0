//! The pool: tiers of top-level vdevs, block I/O, and the error latch.

use super::alternatives::{Alternatives, WrongCopy};
use super::assembly::{self, Assembly, OpenReport};
use super::format::{Features, MemberState, SEGMENT_BLOCKS_MAX, TopologyEntry, VdevKind, VdevState};
use super::geometry::Geometry;
use super::group::{Group, Labels};
use super::healing::Healing;
use super::member::{Member, Standing};
use super::metrics::VdevMetrics;
use super::spares;
use super::superblocks::Superblocks;
use super::topology::{self, VdevDevices};
use super::{PoolError, StoragePoolConfiguration};
use crate::base::extent::Extent;
use crate::base::ids::{Generation, Uuid, VdevId};
use crate::base::planted::{Bug, planted};
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use crate::base::units::BLOCK_BYTES_U64;
use crate::vdev::{BlockDevice, VdevError};
use std::ops::Range;
use std::sync::Arc;

/// A top-level vdev: what extents point to.
#[derive(Debug, Clone)]
pub struct TopLevelVdev {
    /// Stable id.
    pub id: VdevId,
    /// Tier, 0…3.
    pub tier: u8,
    /// Length in 4 KiB blocks, [`Pool::reserved_ranges`] included.
    pub blocks: u64,
    pub(super) group: Arc<Group>,
}

impl TopLevelVdev {
    /// A vdev of one device.
    #[must_use]
    pub fn leaf(id: VdevId, tier: u8, blocks: u64, device: Arc<dyn BlockDevice>) -> Self {
        Self { blocks, ..Self::group(id, tier, VdevKind::Leaf, vec![device]) }
    }

    /// A vdev of `kind` over `devices`, all of which hold everything; as long as the shortest of them allows. They are served
    /// one after the other.
    #[must_use]
    pub fn group(id: VdevId, tier: u8, kind: VdevKind, devices: Vec<Arc<dyn BlockDevice>>) -> Self {
        Self::of_devices(id, tier, kind, devices, 0)
    }

    /// As [`TopLevelVdev::group`], served by at most `threads` threads beside the caller.
    pub(super) fn of_devices(
        id: VdevId,
        tier: u8,
        kind: VdevKind,
        devices: Vec<Arc<dyn BlockDevice>>,
        threads: usize,
    ) -> Self {
        let shortest = devices.iter().map(|device| device.len() / BLOCK_BYTES_U64).min().unwrap_or_default();
        let member = |device: Arc<dyn BlockDevice>| {
            let blocks = device.len() / BLOCK_BYTES_U64;
            let standing = Standing { blocks, ..Standing::default() };
            Member::new(device.name().to_owned(), Some(device), MemberState::Online, standing)
        };
        let labels = Labels { leaf_blocks: shortest, ..Labels::default() };
        let group = Group::new(kind, devices.into_iter().map(member).collect(), labels, threads);
        Self { id, tier, blocks: group.geometry().vdev_blocks(shortest), group: Arc::new(group) }
    }

    /// Members that may be lost before data are. One in memory is not counted: it is lost with the process.
    #[must_use]
    pub fn redundancy(&self) -> usize {
        let members = self.group.members();
        let volatile = match self.is_volatile() {
            true => 0,
            false => members.iter().filter(|member| member.is_volatile()).count(),
        };
        (members.len() - self.group.needed()).saturating_sub(volatile)
    }

    /// Whether every member holds everything, as far as is known.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.group.members().iter().all(|member| member.state() == MemberState::Online)
    }

    /// What it is called in messages: its device, or its kind and its devices.
    #[must_use]
    pub fn name(&self) -> String {
        match self.group.members() {
            [only] => only.name(),
            members => {
                let names: Vec<String> = members.iter().map(|member| member.name()).collect();
                format!("{} of {}", self.group.kind(), names.join(", "))
            }
        }
    }

    /// Whether its contents vanish with the process.
    #[must_use]
    pub fn is_volatile(&self) -> bool {
        self.group.is_volatile()
    }

    /// How its blocks lie on its leaves.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.group.geometry()
    }
}

/// What a pool may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Devices are locked against every other opener.
    ReadWrite,
    /// Devices are shared with other readers and no byte of them changes.
    ReadOnly,
}

/// How a pool is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenOptions {
    pub access: Access,
    /// Go on without members that are missing, as long as the others hold everything.
    pub degraded: bool,
    /// Threads of each vdev with several members.
    pub threads: usize,
}

impl OpenOptions {
    pub fn of(configuration: &StoragePoolConfiguration, access: Access) -> Self {
        Self { access, degraded: configuration.degraded, threads: configuration.threads() }
    }
}

/// How a pool is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateOptions {
    /// Length of a segment in blocks, a power of two from 8 to 262,144 (1 GiB, the default). Fixed for the life of the
    /// pool.
    pub segment_blocks: u32,
    /// Also take devices that are not empty: whatever is on them is lost.
    pub force: bool,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self { segment_blocks: SEGMENT_BLOCKS_MAX, force: false }
    }
}

const WRITABLE: u8 = 0;
const POISONED: u8 = 1;
const READ_ONLY: u8 = 2;
const CLOSED: u8 = 3;

/// What goes with a vdev, by position.
#[derive(Debug)]
struct Io {
    reserved: Vec<Range<u64>>,
    /// Whether a write completed since the last flush began. True at first: what an earlier process wrote may still
    /// be in a cache.
    dirty: AtomicBool,
    /// Held while flushing: who finds the vdev clean must know that the flush that cleaned it has succeeded.
    flushing: Mutex<()>,
    /// Whether it left the pool: nothing that happens to it concerns anybody but who still reads from it.
    has_left: AtomicBool,
}

/// Tiers of vdevs. All methods take `&self` and may be called from any thread.
#[derive(Debug)]
pub struct Pool {
    vdevs: Vec<TopLevelVdev>,
    io: Vec<Io>,
    /// Position of each vdev by its id; `u32::MAX` for ids that are not in use.
    positions: Vec<u32>,
    /// How blocks lay on vdevs that left before the pool was opened.
    former: Vec<(VdevId, Geometry)>,
    /// One of the constants above. Leaves `WRITABLE` once and for all.
    state: AtomicU8,
    /// The first write or flush that failed; set before `state`.
    poison: Mutex<Option<Arc<PoolError>>>,
    superblocks: Mutex<Superblocks>,
    /// Held while spares are put into places.
    pub(super) sparing: Mutex<()>,
    identity: Identity,
    /// Of the topology that labels name, and the highest generation seen; what is written while superblocks are, and by others.
    topology_hash: AtomicU64,
    highest_seen: AtomicU64,
    /// Requests that scrubs made.
    scrub_requests: AtomicU64,
}

/// What every block of a label area starts with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub uuid: Uuid,
    pub features: Features,
}

impl Pool {
    pub(super) fn from_assembly(mut assembly: Assembly, access: Access) -> Self {
        let vdevs = std::mem::take(&mut assembly.vdevs);
        let io = std::mem::take(&mut assembly.reserved).into_iter().map(|reserved| Io {
            reserved,
            dirty: AtomicBool::new(true),
            flushing: Mutex::new(()),
            has_left: AtomicBool::new(false),
        });
        let ids = vdevs.iter().map(|vdev| vdev.id.0 as usize + 1).max().unwrap_or(0);
        let mut positions = vec![u32::MAX; ids];
        for (position, vdev) in vdevs.iter().enumerate() {
            positions[vdev.id.0 as usize] = position as u32;
        }
        let state = match access {
            Access::ReadWrite => WRITABLE,
            Access::ReadOnly => READ_ONLY,
        };
        let is_former = |entry: &&TopologyEntry| entry.state == VdevState::Indirect;
        let former = assembly.topology.entries.iter().filter(is_former);
        let of_former = |entry: &TopologyEntry| match entry.leaf_count {
            0 => Geometry::PLAIN,
            leaves => Geometry::of(entry.kind, leaves),
        };
        let former = former.map(|entry| (entry.id, of_former(entry))).collect();
        Self {
            identity: Identity { uuid: assembly.uuid, features: assembly.features },
            topology_hash: AtomicU64::new(assembly.topology.hash()),
            highest_seen: AtomicU64::new(assembly.highest_seen.0),
            vdevs,
            io: io.collect(),
            positions,
            former,
            state: AtomicU8::new(state),
            poison: Mutex::new(None),
            superblocks: Mutex::new(Superblocks::new(assembly)),
            sparing: Mutex::new(()),
            scrub_requests: AtomicU64::new(0),
        }
    }

    /// A pool over vdevs that are already open, without labels: nothing of it is found again.
    #[must_use]
    pub fn from_vdevs(vdevs: Vec<TopLevelVdev>) -> Self {
        Self::from_assembly(Assembly::unlabelled(vdevs), Access::ReadWrite)
    }

    /// Makes a pool: locks all devices, creates files that do not exist, and clears the label areas. The pool has no
    /// root, so that open does not find it, until the first commit (generation 1); files that were created are removed again when
    /// it is dropped before.
    ///
    /// # Errors
    /// [`PoolError::NotEmpty`] for a device that is not provably empty, unless forced, [`PoolError::TooSmall`],
    /// [`PoolError::NoSize`] and what the configuration or a device has to say. No byte of
    /// any device was changed then, but for a failed write.
    pub fn create(
        configuration: &StoragePoolConfiguration,
        options: &CreateOptions,
    ) -> Result<Self, PoolError> {
        let mut members = topology::open_devices(configuration, Access::ReadWrite)?;
        Self::create_with(configuration, &mut members, options)
    }

    /// Opens the pool that the devices of `configuration` hold; the report says which generation, and why. The order of
    /// vdevs within a tier does not matter.
    ///
    /// Before anything is written, [`Pool::rewrite_chosen`] settles on one of the report's candidates.
    ///
    /// # Errors
    /// [`PoolError::NotFound`] only when every durable device is absent or provably empty; all other errors name the
    /// device that is in the way. Nothing was written.
    pub fn open(
        configuration: &StoragePoolConfiguration,
        access: Access,
    ) -> Result<(Self, OpenReport), PoolError> {
        let members = spares::open_devices(configuration, access)?;
        Self::open_on(&members, OpenOptions::of(configuration, access))
    }

    /// [`Pool::open`] for reading and writing; [`Pool::create`] when that finds nothing, under the same locks. The
    /// report is `None` for a new pool.
    ///
    /// # Errors
    /// As those of both, but for [`PoolError::NotFound`].
    pub fn open_or_create(
        configuration: &StoragePoolConfiguration,
        options: &CreateOptions,
    ) -> Result<(Self, Option<OpenReport>), PoolError> {
        let mut members = spares::open_devices(configuration, Access::ReadWrite)?;
        match Self::open_on(&members, OpenOptions::of(configuration, Access::ReadWrite)) {
            Ok((pool, report)) => Ok((pool, Some(report))),
            Err(PoolError::NotFound { .. }) => {
                let options = CreateOptions { force: false, ..*options };
                Ok((Self::create_with(configuration, &mut members, &options)?, None))
            }
            Err(error) => Err(error),
        }
    }

    fn create_with(
        configuration: &StoragePoolConfiguration,
        members: &mut [VdevDevices],
        options: &CreateOptions,
    ) -> Result<Self, PoolError> {
        // A refusal must not leave new files behind.
        assembly::check_creatable(members, options)?;
        let made = topology::create_missing(configuration, members)?;
        let pool = Self::create_on(members, options, configuration.threads())?;
        pool.superblocks().lock().hold(made);
        Ok(pool)
    }

    pub(super) fn create_on(
        members: &[VdevDevices],
        options: &CreateOptions,
        threads: usize,
    ) -> Result<Self, PoolError> {
        let pool = Self::from_assembly(assembly::compose(members, options, threads)?, Access::ReadWrite);
        pool.clear_labels()?;
        Ok(pool)
    }

    pub(super) fn open_on(
        members: &[VdevDevices],
        options: OpenOptions,
    ) -> Result<(Self, OpenReport), PoolError> {
        let (assembly, report) = assembly::assemble(members, options)?;
        report.log();
        Ok((Self::from_assembly(assembly, options.access), report))
    }

    /// All top-level vdevs, in the order of the configuration.
    #[must_use]
    pub fn vdevs(&self) -> &[TopLevelVdev] {
        &self.vdevs
    }

    /// The vdev with this id.
    ///
    /// # Errors
    /// [`PoolError::UnknownVdev`].
    pub fn vdev(&self, id: VdevId) -> Result<&TopLevelVdev, PoolError> {
        Ok(&self.vdevs[self.position(id)?])
    }

    /// How blocks lie on a vdev, or lay on one that left the pool.
    ///
    /// # Errors
    /// [`PoolError::UnknownVdev`].
    pub fn geometry(&self, id: VdevId) -> Result<Geometry, PoolError> {
        match self.vdev(id) {
            Ok(vdev) => Ok(vdev.geometry()),
            Err(error) => {
                let former = self.former.iter().find(|(former, _)| *former == id);
                former.map(|(_, geometry)| *geometry).ok_or(error)
            }
        }
    }

    pub(super) fn has_left(&self, position: usize) -> bool {
        self.io[position].has_left.load(Ordering::Acquire)
    }

    pub(super) fn set_left(&self, position: usize, topology_hash: u64) {
        self.io[position].has_left.store(true, Ordering::Release);
        self.topology_hash.store(topology_hash, Ordering::Release);
    }

    /// The vdevs that did not leave the pool since it was opened.
    pub fn present(&self) -> impl Iterator<Item = &TopLevelVdev> {
        self.vdevs
            .iter()
            .zip(&self.io)
            .filter(|(_, io)| !io.has_left.load(Ordering::Acquire))
            .map(|(vdev, _)| vdev)
    }

    pub(super) fn position(&self, id: VdevId) -> Result<usize, PoolError> {
        match self.positions.get(id.0 as usize) {
            Some(position) if *position != u32::MAX => Ok(*position as usize),
            _ => Err(PoolError::UnknownVdev(id)),
        }
    }

    /// Block ranges of a vdev that the allocator must never hand out, ascending: the label areas at both ends of its
    /// leaves, and those from before it grew. Empty for a memory vdev.
    ///
    /// # Errors
    /// [`PoolError::UnknownVdev`].
    pub fn reserved_ranges(&self, vdev: VdevId) -> Result<&[Range<u64>], PoolError> {
        Ok(&self.io[self.position(vdev)?].reserved)
    }

    /// The name of the pool.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.identity.uuid
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    pub(super) fn topology_hash(&self) -> u64 {
        self.topology_hash.load(Ordering::Acquire)
    }

    pub(super) fn highest_seen(&self) -> Generation {
        Generation(self.highest_seen.load(Ordering::Acquire))
    }

    /// The pool continues from `committed`, which every member holds that is online.
    pub(super) fn set_committed(&self, committed: Generation, highest_seen: Generation) {
        self.highest_seen.store(highest_seen.0, Ordering::Release);
        self.vdevs.iter().for_each(|vdev| vdev.group.set_open_generation(committed.next()));
    }

    /// Length of a segment in blocks, fixed at create.
    #[must_use]
    pub fn segment_blocks(&self) -> u32 {
        self.superblocks.lock().segment_blocks()
    }

    /// Whether every vdev is volatile: nothing survives the process.
    #[must_use]
    pub fn is_volatile(&self) -> bool {
        self.vdevs.iter().all(TopLevelVdev::is_volatile)
    }

    /// Reads the data blocks of `extent` from `from` on into `buf`, whole blocks. What one member cannot give comes from the
    /// others; whether it is what was written there, only a checksum tells: see [`Pool::recover`].
    ///
    /// # Errors
    /// [`PoolError::Vdev`], [`PoolError::UnknownVdev`].
    pub fn read(&self, extent: &Extent, from: u64, buf: &mut [u8]) -> Result<(), PoolError> {
        self.read_noting(extent, from, buf).map(drop)
    }

    /// As [`Pool::read`]; whether every member that was asked gave its part. When not, who has verified what was read hands
    /// it to [`Pool::recover`], which repairs what could not be read.
    ///
    /// # Errors
    /// As [`Pool::read`].
    pub fn read_noting(&self, extent: &Extent, from: u64, buf: &mut [u8]) -> Result<bool, PoolError> {
        Ok(self.vdevs[self.position(extent.vdev)?].group.read(extent, from, buf)?)
    }

    /// As [`Pool::read_noting`], from an extent that [`Pool::write_singles`] wrote: its data block `i` is the extent of
    /// [`Geometry::granule`] blocks at `i` times as many.
    ///
    /// # Errors
    /// As [`Pool::read`].
    pub fn read_singles(&self, extent: &Extent, from: u64, buf: &mut [u8]) -> Result<bool, PoolError> {
        Ok(self.vdevs[self.position(extent.vdev)?].group.read_singles(extent, from, buf)?)
    }

    /// For who read data blocks and found them wrong: tries what other members hold, or give together, until `is_right`.
    /// Then `buf` has it, and members that held something else are repaired. `None` when nothing is right; `buf` is then
    /// unspecified.
    ///
    /// # Errors
    /// [`PoolError::UnknownVdev`].
    pub fn recover(
        &self,
        extent: &Extent,
        from: u64,
        buf: &mut [u8],
        is_right: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Option<Healing>, PoolError> {
        self.recover_by(extent.vdev, |group| group.recover(extent, from, buf, is_right))
    }

    /// [`Pool::recover`] for [`Pool::read_singles`].
    ///
    /// # Errors
    /// [`PoolError::UnknownVdev`].
    pub fn recover_singles(
        &self,
        extent: &Extent,
        from: u64,
        buf: &mut [u8],
        is_right: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Option<Healing>, PoolError> {
        self.recover_by(extent.vdev, |group| group.recover_singles(extent, from, buf, is_right))
    }

    /// Which of `count` data blocks of an extent that [`Pool::write_singles`] wrote have copies that differ, or that do not read.
    ///
    /// # Errors
    /// [`PoolError::UnknownVdev`].
    pub fn differing_singles(
        &self,
        extent: &Extent,
        from: u64,
        count: usize,
    ) -> Result<Vec<bool>, PoolError> {
        Ok(self.vdev(extent.vdev)?.group.differing_singles(extent, from, count))
    }

    /// Sets of members of a vdev without which its data can be read.
    ///
    /// # Errors
    /// [`PoolError::UnknownVdev`].
    pub fn exclusions(&self, vdev: VdevId) -> Result<Vec<Vec<usize>>, PoolError> {
        Ok(self.vdev(vdev)?.group.exclusions())
    }

    /// What the members of a vdev hold of `blocks` data blocks of `extent` from `from` on. It may be wrong.
    ///
    /// # Errors
    /// [`PoolError::UnknownVdev`].
    pub fn alternatives(&self, extent: &Extent, from: u64, blocks: usize) -> Result<Alternatives, PoolError> {
        Ok(self.vdev(extent.vdev)?.group.alternatives(extent, from, blocks))
    }

    /// The copies of data blocks of `extent` from `from` on that are not `right`, of which the bytes `verified` are known to be.
    ///
    /// # Errors
    /// [`PoolError::UnknownVdev`].
    pub fn wrong_copies(
        &self,
        extent: &Extent,
        from: u64,
        right: &[u8],
        verified: &Range<usize>,
    ) -> Result<Vec<WrongCopy>, PoolError> {
        Ok(self.vdev(extent.vdev)?.group.wrong_copies(extent, from, right, verified))
    }

    /// Repairs the bytes `verified` of data block `from` of `extent`, which `right` has, and nothing else in it.
    ///
    /// # Errors
    /// [`PoolError::UnknownVdev`].
    pub fn patch(
        &self,
        extent: &Extent,
        from: u64,
        right: &[u8],
        verified: &Range<usize>,
    ) -> Result<(), PoolError> {
        let position = self.position(extent.vdev)?;
        self.vdevs[position].group.patch(extent, from, right, verified);
        self.io[position].dirty.store(true, Ordering::Release);
        Ok(())
    }

    fn recover_by(
        &self,
        vdev: VdevId,
        recover: impl FnOnce(&Group) -> Option<Healing>,
    ) -> Result<Option<Healing>, PoolError> {
        let position = self.position(vdev)?;
        let healing = recover(&self.vdevs[position].group);
        if healing.is_some_and(|healing| healing.repaired > 0) {
            self.io[position].dirty.store(true, Ordering::Release);
        }
        Ok(healing)
    }

    /// Writes whole blocks to the data blocks of `extent` from `from` on. On a striped vdev that is a multiple of
    /// [`STRIPE_BLOCKS`](super::STRIPE_BLOCKS), and the stripe in which `buf` ends is filled with zeros: nothing more can be
    /// written to it. Completion is not durability.
    ///
    /// # Errors
    /// [`PoolError::Vdev`]: the pool is then poisoned, except when the host file system is full.
    /// [`PoolError::Poisoned`] after an earlier failure, [`PoolError::ReadOnly`], [`PoolError::Closed`].
    pub fn write(&self, extent: &Extent, from: u64, buf: &[u8]) -> Result<(), PoolError> {
        self.write_by(extent.vdev, |group| group.write(extent, from, buf))
    }

    /// Writes whole blocks to the data blocks of `extent` from `from` on, where every block can be written and read by itself:
    /// on a striped vdev each is a stripe of its own, so that the extent holds one for [`Geometry::granule`] blocks. One
    /// request for each member, as in [`Pool::write`].
    ///
    /// # Errors
    /// As [`Pool::write`].
    pub fn write_singles(&self, extent: &Extent, from: u64, buf: &[u8]) -> Result<(), PoolError> {
        self.write_by(extent.vdev, |group| group.write_singles(extent, from, buf))
    }

    fn write_by(
        &self,
        vdev: VdevId,
        write: impl FnOnce(&Group) -> Result<(), VdevError>,
    ) -> Result<(), PoolError> {
        self.check_writable()?;
        let position = self.position(vdev)?;
        let result = write(&self.vdevs[position].group);
        // After the write, also when it failed in part: a flush that began before does not cover it.
        self.io[position].dirty.store(true, Ordering::Release);
        match result {
            Ok(()) => self.record_losses(position),
            Err(error) if error.is_out_of_space() => Err(error.into()),
            Err(_) if planted(Bug::SwallowWriteError) => Ok(()),
            Err(error) => Err(self.poison(error)),
        }
    }

    /// Makes durable which members were lost. Nothing that was written without them is acknowledged before.
    pub(super) fn record_losses(&self, position: usize) -> Result<(), PoolError> {
        match self.vdevs[position].group.is_unrecorded() && !self.has_left(position) {
            false => Ok(()),
            true => self.write_membership(position),
        }
    }

    /// Something was written to a member beside the ordinary way: the next flush covers it.
    pub(super) fn note_written(&self, position: usize) {
        self.io[position].dirty.store(true, Ordering::Release);
    }

    /// Writes to a label area of a member: a failure that the vdev cannot bear poisons the pool, a full host file system
    /// too.
    pub(super) fn write_label(
        &self,
        position: usize,
        member: usize,
        block: u64,
        buf: &[u8],
    ) -> Result<(), PoolError> {
        self.check_writable()?;
        let group = &self.vdevs[position].group;
        let result = group.members()[member].write(block, buf);
        self.io[position].dirty.store(true, Ordering::Release);
        match result {
            Ok(()) => Ok(()),
            Err(error) if group.lose(member, &error) => self.record_losses(position),
            Err(error) => Err(self.poison(error)),
        }
    }

    /// Nothing refers to `blocks` blocks from `block` of `vdev` on any more: a hint to its device.
    pub fn discard(&self, vdev: VdevId, block: u64, blocks: u64) {
        if self.check_writable().is_ok()
            && let Ok(vdev) = self.vdev(vdev)
        {
            vdev.group.discard(block, blocks);
        }
    }

    /// Makes all completed writes to `vdev` durable; nothing when there are none since the last flush.
    ///
    /// # Errors
    /// As [`Pool::write`]; a failed flush is never retried.
    pub fn flush(&self, vdev: VdevId) -> Result<(), PoolError> {
        self.flush_position(self.position(vdev)?)
    }

    /// Makes all completed writes to all vdevs durable.
    ///
    /// # Errors
    /// As [`Pool::flush`], of the first vdev that failed.
    pub fn flush_all(&self) -> Result<(), PoolError> {
        (0..self.vdevs.len()).try_for_each(|position| self.flush_position(position))
    }

    pub(super) fn flush_position(&self, position: usize) -> Result<(), PoolError> {
        let io = &self.io[position];
        let _turn = io.flushing.lock();
        self.check_writable()?;
        if io.has_left.load(Ordering::Acquire) {
            return Ok(());
        }
        if !io.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let result = self.vdevs[position].group.flush();
        if planted(Bug::IgnoreFlushError) {
            return Ok(());
        }
        result.map_err(|error| self.poison(error))?;
        self.record_losses(position)
    }

    /// [`Pool::flush`], also when nothing is known to have been written.
    pub(super) fn flush_anew(&self, position: usize) -> Result<(), PoolError> {
        self.io[position].dirty.store(true, Ordering::Release);
        self.flush_position(position)
    }

    /// Fails when the pool takes no writes.
    ///
    /// # Errors
    /// [`PoolError::Poisoned`] with the first failure, [`PoolError::ReadOnly`], [`PoolError::Closed`].
    pub fn check_writable(&self) -> Result<(), PoolError> {
        match self.state.load(Ordering::Acquire) {
            WRITABLE => Ok(()),
            READ_ONLY => Err(PoolError::ReadOnly),
            POISONED => Err(self.first_failure().map_or(PoolError::Closed, PoolError::Poisoned)),
            _ => Err(PoolError::Closed),
        }
    }

    /// The write or flush that poisoned the pool.
    #[must_use]
    pub fn first_failure(&self) -> Option<Arc<PoolError>> {
        self.poison.lock().clone()
    }

    pub(super) fn poison(&self, error: VdevError) -> PoolError {
        log::error!("{error}; the pool takes no more writes");
        let error = PoolError::from(error);
        self.poison.lock().get_or_insert_with(|| Arc::new(error.clone()));
        self.state.store(POISONED, Ordering::Release);
        self.vdevs.iter().for_each(|vdev| vdev.group.set_repairs(false));
        error
    }

    /// Flushes everything; afterwards the pool takes no more writes. The devices stay locked until the pool is dropped.
    ///
    /// # Errors
    /// As [`Pool::flush_all`]; a pool that is open for reading only just closes.
    pub fn close(&self) -> Result<(), PoolError> {
        let settled = self.superblocks.lock().is_settled();
        let counted = if settled && self.check_writable().is_ok() { self.record_counts() } else { Ok(()) };
        let flushed = match counted.and_then(|()| self.flush_all()) {
            Err(PoolError::ReadOnly | PoolError::Closed) => Ok(()),
            result => result,
        };
        // A poisoned pool stays poisoned: whoever comes late is told why.
        for state in [WRITABLE, READ_ONLY] {
            if self.state.compare_exchange(state, CLOSED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                break;
            }
        }
        self.vdevs.iter().for_each(|vdev| vdev.group.set_repairs(false));
        flushed
    }

    /// What each vdev did since the pool was opened, in the order of the configuration.
    #[must_use]
    pub fn metrics(&self) -> Vec<VdevMetrics> {
        let metrics = |vdev: &TopLevelVdev| {
            let of_member = |member: &Arc<Member>| member.counters.of_member(member.name(), member.state());
            let members = vdev.group.members().iter().map(of_member).collect();
            VdevMetrics::sum(vdev.id, vdev.tier, vdev.name(), vdev.blocks, members)
        };
        self.present().map(metrics).collect()
    }

    pub(super) fn scrub_requests(&self) -> &AtomicU64 {
        &self.scrub_requests
    }

    pub(super) fn superblocks(&self) -> &Mutex<Superblocks> {
        &self.superblocks
    }
}
