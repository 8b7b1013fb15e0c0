//! The pool: tiers of top-level vdevs, block I/O, and the error latch.

use super::assembly::{self, Assembly, OpenReport};
use super::format::SEGMENT_BLOCKS_MAX;
use super::metrics::{Counters, VdevMetrics};
use super::superblocks::Superblocks;
use super::topology::{self, VdevDevices};
use super::{PoolError, StoragePoolConfiguration};
use crate::base::ids::{Uuid, VdevId};
use crate::base::planted::{Bug, planted};
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, AtomicU8, Ordering};
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
    /// Where its blocks are. Reading past the pool is harmless; a write or flush past it escapes the error latch.
    pub device: Arc<dyn BlockDevice>,
}

/// What a pool may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Devices are locked against every other opener.
    ReadWrite,
    /// Devices are shared with other readers and no byte of them changes.
    ReadOnly,
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
    counters: Counters,
    /// Whether a write completed since the last flush began. True at first: what an earlier process wrote may still
    /// be in a cache.
    dirty: AtomicBool,
    /// Held while flushing: who finds the vdev clean must know that the flush that cleaned it has succeeded.
    flushing: Mutex<()>,
}

/// Tiers of vdevs. All methods take `&self` and may be called from any thread.
#[derive(Debug)]
pub struct Pool {
    vdevs: Vec<TopLevelVdev>,
    io: Vec<Io>,
    /// Position of each vdev by its id; `u32::MAX` for ids that are not in use.
    positions: Vec<u32>,
    /// One of the constants above. Leaves `WRITABLE` once and for all.
    state: AtomicU8,
    /// The first write or flush that failed; set before `state`.
    poison: Mutex<Option<Arc<PoolError>>>,
    superblocks: Mutex<Superblocks>,
}

impl Pool {
    fn from_assembly(mut assembly: Assembly, access: Access) -> Self {
        let vdevs = std::mem::take(&mut assembly.vdevs);
        let io = std::mem::take(&mut assembly.reserved).into_iter().map(|reserved| Io {
            reserved,
            counters: Counters::default(),
            dirty: AtomicBool::new(true),
            flushing: Mutex::new(()),
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
        Self {
            vdevs,
            io: io.collect(),
            positions,
            state: AtomicU8::new(state),
            poison: Mutex::new(None),
            superblocks: Mutex::new(Superblocks::new(assembly)),
        }
    }

    /// A pool over vdevs that are already open, without labels: nothing of it is found again.
    #[must_use]
    pub fn from_vdevs(vdevs: Vec<TopLevelVdev>) -> Self {
        Self::from_assembly(Assembly::unlabelled(vdevs), Access::ReadWrite)
    }

    /// Makes a pool: locks all devices, creates files that do not exist, and clears the label areas. The pool has no
    /// root, so that open does not find it, until the first commit (generation 1).
    ///
    /// # Errors
    /// [`PoolError::NotEmpty`] for a device that is not provably empty, unless forced, [`PoolError::TooSmall`],
    /// [`PoolError::Unsupported`], [`PoolError::NoSize`] and what the configuration or a device has to say. No byte of
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
        Self::open_on(&topology::open_devices(configuration, access)?, access)
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
        let mut members = topology::open_devices(configuration, Access::ReadWrite)?;
        match Self::open_on(&members, Access::ReadWrite) {
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
        topology::create_missing(configuration, members)?;
        Self::create_on(members, options)
    }

    pub(super) fn create_on(members: &[VdevDevices], options: &CreateOptions) -> Result<Self, PoolError> {
        let pool = Self::from_assembly(assembly::compose(members, options)?, Access::ReadWrite);
        pool.clear_labels()?;
        Ok(pool)
    }

    pub(super) fn open_on(members: &[VdevDevices], access: Access) -> Result<(Self, OpenReport), PoolError> {
        let (assembly, report) = assembly::assemble(members, access)?;
        report.log();
        Ok((Self::from_assembly(assembly, access), report))
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

    fn position(&self, id: VdevId) -> Result<usize, PoolError> {
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
        self.superblocks.lock().pool()
    }

    /// Length of a segment in blocks, fixed at create.
    #[must_use]
    pub fn segment_blocks(&self) -> u32 {
        self.superblocks.lock().segment_blocks()
    }

    /// Whether every vdev is volatile: nothing survives the process.
    #[must_use]
    pub fn is_volatile(&self) -> bool {
        self.vdevs.iter().all(|vdev| vdev.device.is_volatile())
    }

    /// Reads whole blocks from `block` of `vdev` into `buf`.
    ///
    /// # Errors
    /// [`PoolError::Vdev`], [`PoolError::UnknownVdev`].
    pub fn read(&self, vdev: VdevId, block: u64, buf: &mut [u8]) -> Result<(), PoolError> {
        let position = self.position(vdev)?;
        let result = self.vdevs[position].device.read_at(buf, block.saturating_mul(BLOCK_BYTES_U64));
        self.io[position].counters.reads().add(buf.len(), result.is_ok());
        Ok(result?)
    }

    /// Writes whole blocks at `block` of `vdev`. Completion is not durability.
    ///
    /// # Errors
    /// [`PoolError::Vdev`]: the pool is then poisoned, except when the host file system is full.
    /// [`PoolError::Poisoned`] after an earlier failure, [`PoolError::ReadOnly`], [`PoolError::Closed`].
    pub fn write(&self, vdev: VdevId, block: u64, buf: &[u8]) -> Result<(), PoolError> {
        self.check_writable()?;
        let position = self.position(vdev)?;
        match self.write_counted(position, &self.vdevs[position].device, block, buf) {
            Ok(()) => Ok(()),
            Err(error) if error.is_out_of_space() => Err(error.into()),
            Err(_) if planted(Bug::SwallowWriteError) => Ok(()),
            Err(error) => Err(self.poison(error)),
        }
    }

    /// Writes to a label area: any failure poisons the pool, a full host file system too.
    pub(super) fn write_label(
        &self,
        position: usize,
        leaf: &Arc<dyn BlockDevice>,
        block: u64,
        buf: &[u8],
    ) -> Result<(), PoolError> {
        self.check_writable()?;
        self.write_counted(position, leaf, block, buf).map_err(|error| self.poison(error))
    }

    fn write_counted(
        &self,
        position: usize,
        device: &Arc<dyn BlockDevice>,
        block: u64,
        buf: &[u8],
    ) -> Result<(), VdevError> {
        let io = &self.io[position];
        let result = device.write_at(buf, block.saturating_mul(BLOCK_BYTES_U64));
        io.counters.writes().add(buf.len(), result.is_ok());
        // After the write, also when it failed in part: a flush that began before does not cover it.
        io.dirty.store(true, Ordering::Release);
        result
    }

    /// Nothing refers to `blocks` blocks from `block` of `vdev` on any more: a hint to its device.
    pub fn discard(&self, vdev: VdevId, block: u64, blocks: u64) {
        if self.check_writable().is_ok()
            && let Ok(vdev) = self.vdev(vdev)
        {
            vdev.device
                .discard(block.saturating_mul(BLOCK_BYTES_U64), blocks.saturating_mul(BLOCK_BYTES_U64));
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
        if !io.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let result = self.vdevs[position].device.flush();
        io.counters.flushes().add(0, result.is_ok());
        if planted(Bug::IgnoreFlushError) {
            return Ok(());
        }
        result.map_err(|error| self.poison(error))
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

    fn poison(&self, error: VdevError) -> PoolError {
        log::error!("{error}; the pool takes no more writes");
        let error = PoolError::from(error);
        self.poison.lock().get_or_insert_with(|| Arc::new(error.clone()));
        self.state.store(POISONED, Ordering::Release);
        error
    }

    /// Flushes everything; afterwards the pool takes no more writes. The devices stay locked until the pool is dropped.
    ///
    /// # Errors
    /// As [`Pool::flush_all`]; a pool that is open for reading only just closes.
    pub fn close(&self) -> Result<(), PoolError> {
        let flushed = match self.flush_all() {
            Err(PoolError::ReadOnly | PoolError::Closed) => Ok(()),
            result => result,
        };
        // A poisoned pool stays poisoned: whoever comes late is told why.
        for state in [WRITABLE, READ_ONLY] {
            if self.state.compare_exchange(state, CLOSED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                break;
            }
        }
        flushed
    }

    /// What each vdev did since the pool was opened, in the order of the configuration.
    #[must_use]
    pub fn metrics(&self) -> Vec<VdevMetrics> {
        let metrics = |(vdev, io): (&TopLevelVdev, &Io)| {
            io.counters.snapshot(vdev.id, vdev.tier, vdev.device.name(), vdev.blocks)
        };
        self.vdevs.iter().zip(&self.io).map(metrics).collect()
    }

    pub(super) fn superblocks(&self) -> &Mutex<Superblocks> {
        &self.superblocks
    }
}
