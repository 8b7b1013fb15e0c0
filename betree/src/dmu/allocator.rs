//! Allocation of extents: tiers, their reserve, and the vdevs that share their load.
//!
//! ```text
//!  allocate ─► tier: reserve checked ─► vdev in turn ─► segment of the stream ─► bitmap
//!  commit   ─► bits set and cleared ─► bitmap slots ─► table pages ─► table root (to the caller)
//! ```
//!
//! Invariants, upheld in release builds:
//!
//! * **A1** A block that is handed out is free in the last durable checkpoint, in the one before it, and in memory.
//! * **A2** A release of a block that is free, or that a checkpoint has to which the pool may fall back, is an error, and
//!   so is setting a set or clearing a clear bit of a checkpoint.
//! * **A3** Writing the allocation state allocates nothing: slots and pages have fixed places, the root's extent is
//!   allocated by the caller beforehand ([`Allocator::table_root_bytes_max`]).
//! * **A4** No slot or page that the last durable checkpoint or the one before refers to is overwritten.
//! * **A5** A request fails for lack of space only when its tiers have fewer blocks left than it may take: never because
//!   the free blocks are scattered. On a striped vdev a block of data may take as much as the granule when they are.
//!
//! Requests, accounts and the reserve of the layers above count blocks of data; bitmaps, extents and the accounts in here
//! count the blocks that these take, parity included.
//!
//! Locks, outermost first: the checkpoint being written; one vdev's segments. The turn of a stream is taken alone. Nothing
//! here flushes a device, knows when an extent dies, or keeps readers in mind: the caller releases an extent when all of
//! that is settled.

use super::DmuError;
use super::commit::Commit;
use super::format::{IndirectVdev, Root, TABLE_ROOT};
use super::inspection::SegmentCounts;
use super::layout::VdevGeometry;
use super::packing::Packing;
use super::segments::{Segments, share};
use super::space::{Reserve, TierSpace, VdevSpace};
use super::table::SeenGenerations;
use crate::base::extent::Extent;
use crate::base::ids::{Generation, Uuid, VdevId};
use crate::base::preference::TIER_COUNT;
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use crate::pool::{Geometry, Pool};
use std::collections::HashMap;
use std::sync::Arc;

/// Lifetimes that are kept in different segments, so that what dies together lies together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Node headers, the root tree, allocation table roots: die at the next checkpoints.
    Header,
    /// The intent log.
    Log,
    /// Runs of the buffers: die at the next flush.
    Delta,
    /// Base runs of the leaves.
    Base,
    /// Large values.
    Value,
}

/// Number of streams.
pub(super) const STREAM_COUNT: usize = 5;

impl Stream {
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// How deep into the reserve a request may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// User data: not at all.
    User,
    /// Point deletes: what merges may need stays.
    Delete,
    /// Flushes of buffers and merges, which give back more than they take, but later: what checkpoints need stays.
    Merge,
    /// Flushes of memtables, checkpoints, log, open, close: all of it.
    System,
}

/// Blocks that a stream takes from the emptiest vdev of a tier before the next one's turn: 1 MiB, so that neighbours in
/// a stream are neighbours on a device, and a few streams still keep all devices busy. Fuller vdevs get shorter turns.
const TURN_BLOCKS: u64 = 256;

/// Rounds in which a request that has its blocks reserved may find them taken by others. It cannot starve while the
/// accounts are right; the bound turns a defect into an error.
const ROUNDS_MAX: u32 = 100_000;

/// Hands out and takes back blocks of all vdevs of a pool. All methods may be called from any thread.
#[derive(Debug)]
pub struct Allocator {
    pub(super) pool: Arc<Pool>,
    pub(super) uuid: Uuid,
    pub(super) vdevs: Vec<Vdev>,
    by_id: HashMap<VdevId, usize>,
    tiers: [Tier; TIER_COUNT],
    /// The vdevs that left, as the last checkpoint has them.
    pub(super) indirect: Mutex<Vec<IndirectVdev>>,
    pub(super) commit: Mutex<Commit>,
    seen: SeenGenerations,
}

#[derive(Debug)]
pub(super) struct Vdev {
    tier: usize,
    segments: Mutex<Segments>,
    pub(super) geometry: Geometry,
    /// Free blocks when the lock was last given back: for choosing a vdev without taking its lock.
    free: AtomicU64,
    /// Whether it left the pool: what it holds is kept only as long as somebody of this process does.
    pub(super) has_left: AtomicBool,
}

#[derive(Debug, Default)]
struct Tier {
    /// Indexes of its vdevs.
    vdevs: Vec<usize>,
    /// How blocks lie on its vdevs, each way once.
    geometries: Vec<Geometry>,
    /// Blocks, parity included, of those that are not closed; so are `free` and `reserve`.
    total: AtomicU64,
    /// Data blocks that long extents could hold.
    data: AtomicU64,
    /// Free blocks of its vdevs less those that requests under way will take.
    free: AtomicI64,
    reserve: Mutex<Reserve>,
    turns: [Mutex<Turn>; STREAM_COUNT],
}

/// Whose turn it is.
#[derive(Debug, Default)]
struct Turn {
    index: usize,
    left: u64,
}

impl Tier {
    /// Data blocks that a request may have, when it asks for long extents.
    fn available(&self, privilege: Privilege) -> u64 {
        let free = self.free.load(Ordering::SeqCst).max(0) as u64;
        self.data_share(free.saturating_sub(self.reserve.lock().left_by(privilege)))
    }

    /// How many of `taken` blocks hold data in long extents.
    fn data_share(&self, taken: u64) -> u64 {
        share(taken, self.data(), self.total())
    }

    fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    fn data(&self) -> u64 {
        self.data.load(Ordering::Relaxed)
    }

    /// The most that a block of data takes.
    fn granule(&self) -> u64 {
        self.geometries.iter().map(|geometry| u64::from(geometry.granule())).max().unwrap_or(1)
    }

    /// The most that `data` blocks take in one extent.
    fn takes(&self, stream: Stream, data: u32) -> u32 {
        let takes = |geometry: &Geometry| Packing::new(*geometry, stream).takes(data);
        self.geometries.iter().map(takes).max().unwrap_or(data)
    }

    /// Sets `blocks` aside for a request, if it may have them.
    fn set_aside(&self, blocks: u64, privilege: Privilege) -> bool {
        let floor = self.reserve.lock().left_by(privilege).min(i64::MAX as u64) as i64;
        let blocks = blocks.min(i64::MAX as u64) as i64;
        let left = |free: i64| free.checked_sub(blocks).filter(|left| *left >= floor);
        self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok()
    }
}

/// Blocks that are set aside for one request; what is not taken of them goes back.
struct Allowance<'a> {
    tier: &'a Tier,
    privilege: Privilege,
    left: u64,
}

impl Allowance<'_> {
    /// Sets more aside, so that there are `blocks`; whether that is allowed.
    fn cover(&mut self, blocks: u32) -> bool {
        let more = u64::from(blocks).saturating_sub(self.left);
        if more > 0 && !self.tier.set_aside(more, self.privilege) {
            return false;
        }
        self.left += more;
        true
    }
}

impl Drop for Allowance<'_> {
    fn drop(&mut self) {
        self.tier.free.fetch_add(self.left as i64, Ordering::SeqCst);
    }
}

/// The table root in `root` of checkpoint `generation`.
fn decode_root(
    root: &[u8],
    uuid: Uuid,
    vdevs: &[VdevGeometry],
    generation: Generation,
) -> Result<Root, DmuError> {
    let what = TABLE_ROOT;
    let root = Root::decode(root).map_err(|source| DmuError::Decode { what, source })?;
    if root.pool != uuid || root.generation != generation {
        let reason = format!(
            "generation {generation} of pool {uuid} expected, generation {} of pool {} found",
            root.generation, root.pool
        );
        return Err(DmuError::Corrupt { what, device: String::from("unknown"), block: 0, reason });
    }
    if let Some(lost) = root.vdevs.iter().find(|known| vdevs.iter().all(|vdev| vdev.id != known.id)) {
        return Err(DmuError::Geometry { vdev: lost.id, reason: "the pool does not have it any more" });
    }
    Ok(root)
}

impl Allocator {
    /// An allocator for a new pool: everything free, nothing read or written. `vdevs` are those whose blocks persistent
    /// pointers may name; `segment_blocks` is a power of two from 8 to 262,144 (1 GiB).
    ///
    /// # Errors
    /// [`DmuError::Geometry`] for a vdev that is too small or described wrongly.
    pub fn create(
        pool: Arc<Pool>,
        uuid: Uuid,
        vdevs: &[VdevGeometry],
        segment_blocks: u32,
    ) -> Result<Self, DmuError> {
        let root = Root {
            pool: uuid,
            generation: Generation(0),
            parent: Generation(0),
            vdevs: Vec::new(),
            indirect: Vec::new(),
        };
        Self::with_root(pool, uuid, vdevs, segment_blocks, root, None)
    }

    /// The allocator as of checkpoint `generation`, whose table root is `root` (zeros may follow it). Reads the table
    /// pages and no bitmap, unless a vdev has grown. A vdev longer than before gets more segments; one that the root does
    /// not know is new and gets segments of `segment_blocks`.
    ///
    /// Until the next checkpoint is durable, blocks of the one before `generation` are not handed out either.
    ///
    /// # Errors
    /// [`DmuError::Decode`] when `root` is damaged or of another version, [`DmuError::Corrupt`] when a page is, or is not
    /// the one that the root names; [`DmuError::Geometry`] when a vdev is missing or shorter than it was; device errors.
    pub fn open(
        pool: Arc<Pool>,
        uuid: Uuid,
        vdevs: &[VdevGeometry],
        segment_blocks: u32,
        root: &[u8],
        generation: Generation,
    ) -> Result<Self, DmuError> {
        let root = decode_root(root, uuid, vdevs, generation)?;
        Self::with_root(pool, uuid, vdevs, segment_blocks, root, None)
    }

    /// As [`Allocator::open`] of the whole pool, with the recorded counts of some segments corrected; the next
    /// checkpoint writes these segments.
    ///
    /// # Errors
    /// As [`Allocator::open`].
    pub(super) fn open_amended(
        pool: Arc<Pool>,
        vdevs: &[VdevGeometry],
        root: &[u8],
        generation: Generation,
        counts: &[SegmentCounts],
    ) -> Result<Self, DmuError> {
        let (uuid, segment_blocks) = (pool.uuid(), pool.segment_blocks());
        let root = decode_root(root, uuid, vdevs, generation)?;
        Self::with_root(pool, uuid, vdevs, segment_blocks, root, Some(counts))
    }

    fn with_root(
        pool: Arc<Pool>,
        uuid: Uuid,
        geometries: &[VdevGeometry],
        segment_blocks: u32,
        root: Root,
        amended: Option<&[SegmentCounts]>,
    ) -> Result<Self, DmuError> {
        let has_left = |id: VdevId| root.indirect.iter().any(|gone| gone.id == id);
        let mut geometries: Vec<&VdevGeometry> =
            geometries.iter().filter(|geometry| !has_left(geometry.id)).collect();
        geometries.sort_by_key(|geometry| geometry.id);
        let mut seen = SeenGenerations { written: root.generation, durable: root.generation };
        let mut tiers: [Tier; TIER_COUNT] = Default::default();
        let (mut vdevs, mut by_id) = (Vec::new(), HashMap::new());
        for (index, geometry) in geometries.into_iter().enumerate() {
            let segments = match root.vdevs.iter().find(|known| known.id == geometry.id) {
                Some(known) => {
                    let pool = Arc::clone(&pool);
                    let (segments, pages) =
                        Segments::open(pool, uuid, geometry, known, root.generation, amended)?;
                    seen.add(pages);
                    segments
                }
                None => Segments::create(Arc::clone(&pool), uuid, geometry, segment_blocks, root.generation)?,
            };
            if by_id.insert(geometry.id, index).is_some() {
                return Err(DmuError::Geometry { vdev: geometry.id, reason: "it is listed twice" });
            }
            let free = segments.free();
            let tier = &mut tiers[usize::from(geometry.tier)];
            tier.vdevs.push(index);
            *tier.total.get_mut() += segments.total();
            *tier.data.get_mut() += geometry.geometry.capacity(segments.total());
            if !tier.geometries.contains(&geometry.geometry) {
                tier.geometries.push(geometry.geometry);
            }
            *tier.free.get_mut() += free as i64;
            vdevs.push(Vdev {
                tier: usize::from(geometry.tier),
                geometry: segments.geometry(),
                segments: Mutex::new(segments),
                free: AtomicU64::new(free),
                has_left: AtomicBool::new(false),
            });
        }
        for tier in &mut tiers {
            *tier.reserve.get_mut() = Reserve::of_tier(tier.total(), tier.granule());
        }
        let commit = Mutex::new(Commit::new(root.generation));
        Ok(Self { pool, uuid, vdevs, by_id, tiers, indirect: Mutex::new(root.indirect), commit, seen })
    }

    /// The generations that table pages mention, as found at open. The next checkpoint must be above
    /// [`SeenGenerations::written`]; when [`SeenGenerations::durable`] is above the generation that was opened, the pool
    /// has gone back in time.
    #[must_use]
    pub fn seen_generations(&self) -> SeenGenerations {
        self.seen
    }

    /// Sets the reserve of `tier`, in data blocks, as far as it is within bounds: user data leaves 3 % or more, and up to a
    /// quarter. On a striped tier each block of it counts for the most that it may take.
    pub fn set_reserve(&self, tier: u8, reserve: Reserve) {
        if let Some(tier) = self.tiers.get(usize::from(tier)) {
            *tier.reserve.lock() = reserve.within(tier.total(), tier.granule());
        }
    }

    /// Runs `work` on the segments of a vdev. Returns by how many blocks the free space grew as well.
    fn locked<T>(&self, vdev: usize, work: impl FnOnce(&mut Segments) -> T) -> (T, i64) {
        let vdev = &self.vdevs[vdev];
        let mut segments = vdev.segments.lock();
        let before = segments.free();
        let out = work(&mut segments);
        let after = segments.free();
        vdev.free.store(after, Ordering::Relaxed);
        (out, after as i64 - before as i64)
    }

    /// Runs `work` on the segments of a vdev and keeps the account of its tier.
    pub(super) fn with<T>(&self, vdev: usize, work: impl FnOnce(&mut Segments) -> T) -> T {
        let (out, delta) = self.locked(vdev, work);
        self.tiers[self.vdevs[vdev].tier].free.fetch_add(delta, Ordering::SeqCst);
        out
    }

    /// As [`Allocator::with`], where `work` says how many blocks it took of those that were set aside.
    fn with_set_aside<T>(
        &self,
        vdev: usize,
        allowance: &mut Allowance<'_>,
        work: impl FnOnce(&mut Segments) -> (T, u64),
    ) -> T {
        let ((out, taken), delta) = self.locked(vdev, work);
        allowance.left -= taken;
        let more = delta + taken as i64;
        if more != 0 {
            allowance.tier.free.fetch_add(more, Ordering::SeqCst);
        }
        out
    }

    /// Index of the vdev of `extent`.
    pub(super) fn vdev_of(&self, extent: &Extent) -> Result<usize, DmuError> {
        let what = "an extent on a vdev that the allocator does not have";
        self.by_id.get(&extent.vdev).copied().ok_or(DmuError::Allocation { what, extent: *extent })
    }

    /// Takes room for `blocks` blocks of data from the first of `tiers` that may give it: one extent where a vdev of the tier
    /// has a run that long, else as few as possible, longest first. All or nothing; 0 blocks are no extents.
    ///
    /// # Errors
    /// [`DmuError::OutOfSpace`] naming the first tier; device errors and [`DmuError::Corrupt`] from a bitmap that had to
    /// be read. Nothing is taken then.
    pub fn allocate(
        &self,
        stream: Stream,
        tiers: &[u8],
        blocks: u32,
        privilege: Privilege,
    ) -> Result<Vec<Extent>, DmuError> {
        if blocks == 0 {
            return Ok(Vec::new());
        }
        for tier in tiers.iter().filter_map(|tier| self.tiers.get(usize::from(*tier))) {
            let mut allowance = Allowance { tier, privilege, left: 0 };
            if allowance.cover(tier.takes(stream, blocks)) {
                let mut out = Vec::with_capacity(1);
                let result = self.allocate_in(&mut allowance, stream, blocks, &mut out);
                drop(allowance);
                if !matches!(result, Ok(true)) {
                    self.release(&out)?;
                }
                if result? {
                    return Ok(out);
                }
            }
        }
        let tier = tiers.first().copied().unwrap_or(0);
        let free = self.tiers.get(usize::from(tier)).map_or(0, |tier| tier.available(privilege));
        Err(DmuError::OutOfSpace { tier, wanted: u64::from(blocks), free })
    }

    /// Takes what is set aside, and more where it comes in pieces that take more; `false` when it may not have that, or it
    /// cannot be found. A block of data never takes more than the tier's granule: a request for which that is free is never
    /// refused.
    fn allocate_in(
        &self,
        allowance: &mut Allowance<'_>,
        stream: Stream,
        blocks: u32,
        out: &mut Vec<Extent>,
    ) -> Result<bool, DmuError> {
        let tier = allowance.tier;
        let first = self.turn(tier, stream, blocks);
        let in_turn = || (0..tier.vdevs.len()).map(|step| tier.vdevs[(first + step) % tier.vdevs.len()]);
        let packing = |vdev: usize| Packing::new(self.vdevs[vdev].geometry, stream);
        let mut left = blocks;
        for _ in 0..ROUNDS_MAX {
            let mut refused = false;
            for vdev in in_turn() {
                let wanted = packing(vdev).takes(left);
                if !allowance.cover(wanted) {
                    refused = true;
                    continue;
                }
                let taken = self.with_set_aside(vdev, allowance, |segments| {
                    let taken = segments.take(stream, wanted);
                    let count = if matches!(taken, Ok(Some(_))) { u64::from(wanted) } else { 0 };
                    (taken, count)
                })?;
                if let Some(extent) = taken {
                    out.push(extent);
                    return Ok(true);
                }
            }
            // No run is that long: take the longest there are, until the rest fits one again.
            loop {
                let longest = |vdev: &usize| self.locked(*vdev, |segments| segments.longest()).0;
                let holds = |vdev: usize| (vdev, packing(vdev).holds(longest(&vdev)));
                let Some((vdev, length)) = in_turn().map(holds).max_by_key(|(_, length)| *length) else {
                    return Ok(false);
                };
                if length >= left && refused {
                    return Ok(false);
                }
                if length >= left {
                    break;
                }
                if length == 0 {
                    std::thread::yield_now();
                    break;
                }
                // Pieces of a striped vdev take more than the whole: as many at once as there is room for, or one after the
                // other, as long as that is there.
                let with = |runs: u32| {
                    let pieces = packing(vdev).takes(length).saturating_mul(runs);
                    pieces.saturating_add(tier.takes(stream, left - length * runs))
                };
                let all = left / length;
                let runs_max = if packing(vdev).is_plain() {
                    if !allowance.cover(left) {
                        return Ok(false);
                    }
                    usize::MAX
                } else if allowance.cover(with(all)) {
                    all as usize
                } else if allowance.cover(with(1)) {
                    1
                } else {
                    return Ok(false);
                };
                left -= self.with_set_aside(vdev, allowance, |segments| {
                    let before = out.len();
                    // What was set aside is for pieces of this length: a longer one that came free meanwhile goes alone.
                    let is_longer = packing(vdev).holds(segments.longest()) > length;
                    let runs_max = if is_longer && !packing(vdev).is_plain() { 1 } else { runs_max };
                    let taken = segments.take_longest(left, packing(vdev), runs_max, out);
                    (taken, crate::base::extent::total_blocks(&out[before..]))
                })?;
                if left == 0 {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The vdev (index within the tier) from which `stream` takes its next `blocks` blocks.
    fn turn(&self, tier: &Tier, stream: Stream, blocks: u32) -> usize {
        if tier.vdevs.len() < 2 {
            return 0;
        }
        let free = |index: usize| self.vdevs[tier.vdevs[index]].free.load(Ordering::Relaxed);
        let mut turn = tier.turns[stream.index()].lock();
        for _ in 0..tier.vdevs.len() {
            if turn.left > 0 {
                break;
            }
            let most = (0..tier.vdevs.len()).map(free).max().unwrap_or(0).max(1);
            turn.index = (turn.index + 1) % tier.vdevs.len();
            turn.left = free(turn.index) * TURN_BLOCKS / most;
        }
        turn.left = turn.left.saturating_sub(u64::from(blocks));
        turn.index
    }

    /// Gives `extents` back: they can be handed out again at once. The caller has made sure that no checkpoint to which
    /// the pool may fall back, no log record and no reader holds them.
    ///
    /// # Errors
    /// [`DmuError::Allocation`] for the first extent that has a free block, or one that the last durable checkpoint or the
    /// one before has: it and those behind it are not given back. Device errors; [`DmuError::Corrupt`].
    pub fn release(&self, extents: &[Extent]) -> Result<(), DmuError> {
        for extent in extents {
            self.with(self.vdev_of(extent)?, |segments| segments.release(extent))?;
        }
        Ok(())
    }

    /// Marks as taken, during replay, an extent of the log or one that a log record names; it belongs to the caller from
    /// then on. `false` when it was taken already.
    ///
    /// # Errors
    /// [`DmuError::Allocation`] when only some of its blocks are taken, or it is outside of what is handed out. Device
    /// errors; [`DmuError::Corrupt`].
    pub fn mark_busy(&self, extent: Extent) -> Result<bool, DmuError> {
        self.with(self.vdev_of(&extent)?, |segments| segments.mark_busy(&extent))
    }

    /// Whether the last checkpoint has every block of `extent`.
    ///
    /// # Errors
    /// [`DmuError::Allocation`] when it is outside of what is handed out. Device errors; [`DmuError::Corrupt`].
    pub fn is_persistent(&self, extent: Extent) -> Result<bool, DmuError> {
        self.with(self.vdev_of(&extent)?, |segments| segments.is_persistent(&extent))
    }

    /// Calls `visit` for every run of blocks on `vdev` that the last checkpoint has, in ascending order; labels, table and
    /// bitmaps are left out. Bitmaps that are not in memory are read and not kept.
    ///
    /// # Errors
    /// Device errors; [`DmuError::Corrupt`]; [`DmuError::Pool`] for a vdev that the allocator does not have.
    pub fn for_each_set(&self, vdev: VdevId, mut visit: impl FnMut(Extent)) -> Result<(), DmuError> {
        let unknown = || DmuError::Pool(crate::pool::PoolError::UnknownVdev(vdev));
        let index = self.by_id.get(&vdev).copied().ok_or_else(unknown)?;
        for number in 0.. {
            let Some(runs) = self.with(index, |segments| segments.persistent_runs(number))? else { break };
            runs.into_iter().for_each(&mut visit);
        }
        Ok(())
    }

    /// Whether anything is handed out of `vdev` from now on.
    ///
    /// # Errors
    /// A vdev that the allocator does not have, or that left.
    pub(super) fn set_closed(&self, vdev: VdevId, closed: bool) -> Result<(), DmuError> {
        let unknown = || DmuError::Pool(crate::pool::PoolError::UnknownVdev(vdev));
        let index = self.by_id.get(&vdev).copied().ok_or_else(unknown)?;
        if self.vdevs[index].has_left.load(Ordering::Acquire) {
            return Err(unknown());
        }
        let total = self.with(index, |segments| {
            segments.set_closed(closed);
            segments.total()
        });
        let (tier, geometry) = (&self.tiers[self.vdevs[index].tier], self.vdevs[index].geometry);
        let change = |number: &AtomicU64, by: u64| match closed {
            true => number.fetch_sub(by, Ordering::Relaxed),
            false => number.fetch_add(by, Ordering::Relaxed),
        };
        change(&tier.total, total);
        change(&tier.data, geometry.capacity(total));
        // Until the layers above say what they need.
        *tier.reserve.lock() = Reserve::of_tier(tier.total(), tier.granule());
        Ok(())
    }

    /// Accounts of the vdevs, ascending by id.
    #[must_use]
    pub fn vdev_space(&self) -> Vec<VdevSpace> {
        let present = self.vdevs.iter().filter(|vdev| !vdev.has_left.load(Ordering::Acquire));
        present.map(|vdev| vdev.segments.lock().space()).collect()
    }

    /// Accounts of the tiers.
    #[must_use]
    pub fn tier_space(&self) -> [TierSpace; TIER_COUNT] {
        let mut out = [TierSpace::default(); TIER_COUNT];
        for vdev in self.vdev_space() {
            out[usize::from(vdev.tier)].add(&vdev);
        }
        for (space, tier) in out.iter_mut().zip(&self.tiers) {
            space.reserve = if tier.total() == 0 { 0 } else { tier.data_share(tier.reserve.lock().user) };
        }
        out
    }

    /// How many of `taken` blocks, of whatever vdevs, hold data in long extents.
    #[must_use]
    pub fn data_share(&self, taken: u64) -> u64 {
        let sum = |of: fn(&Tier) -> u64| self.tiers.iter().map(of).sum();
        share(taken, sum(Tier::data), sum(Tier::total))
    }

    /// How many data blocks of [`Allocator::available`] are enough for `data` of them, however scattered they are.
    #[must_use]
    pub fn scattered(&self, tier: u8, data: u64) -> u64 {
        let Some(tier) = self.tiers.get(usize::from(tier)) else { return data };
        let taken = data.saturating_mul(tier.granule());
        // What is available is rounded down.
        tier.data_share(taken).saturating_add(u64::from(tier.data() < tier.total()))
    }

    /// Data blocks that a request with `privilege` may have on `tier` now.
    #[must_use]
    pub fn available(&self, tier: u8, privilege: Privilege) -> u64 {
        self.tiers.get(usize::from(tier)).map_or(0, |tier| tier.available(privilege))
    }
}

#[cfg(test)]
mod tests;
