//! The unit itself: placement, allocation, extent I/O.

use super::DmuError;
use super::allocator::{Allocator, Privilege, Stream};
use super::cache::Cache;
use super::copies::Copies;
use super::evacuation::Evacuation;
use super::format::{Root, TABLE_ROOT};
use super::inspection::SegmentCounts;
use super::layout::VdevGeometry;
use super::lifetime::Lifetimes;
use super::moved::Moved;
use super::pieces::{PieceName, Pieces};
use super::queue::{IoQueue, PendingJob};
use super::sequence::{Part, geometry_of};
use super::space::{Reserve, TierSpace};
use super::table::SeenGenerations;
use super::write_batch::WriteBatch;
use super::write_behind::WriteBehind;
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::{Extent, total_blocks};
use crate::base::ids::{Generation, Uuid, VdevId};
use crate::base::preference::{StoragePreference, TIER_COUNT, TIER_NAMES};
use crate::base::sync::{Mutex, RwLock};
use crate::base::units::BLOCK_BYTES_U64;
use crate::pool::{Pool, SingleRead, TopLevelVdev, WrongCopy};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// How data is placed, and how much memory and how many threads serve it.
#[derive(Debug, Clone)]
pub struct DmuOptions {
    /// For each storage class, the tiers to try in order.
    pub alloc_strategy: [Vec<u8>; TIER_COUNT],
    /// Class of what has no preference.
    pub default_class: u8,
    /// Tier of the intent log; `None`: the fastest durable one.
    pub log_tier: Option<u8>,
    /// Budget of the cache, in bytes.
    pub cache_bytes: usize,
    /// Threads for background writes, and as many for prefetch; 0: in the caller.
    pub threads: usize,
    /// Whether all copies of what is read are compared with what is right, for [`Dmu::take_wrong_copies`].
    pub compare_copies: bool,
}

impl Default for DmuOptions {
    fn default() -> Self {
        Self {
            alloc_strategy: [vec![0], vec![1], vec![2], vec![3]],
            default_class: 0,
            log_tier: None,
            cache_bytes: 64 << 20,
            threads: 0,
            compare_copies: false,
        }
    }
}

/// Handle on the data-management unit of a pool; clones share it.
#[derive(Debug, Clone)]
pub struct Dmu {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Arc<Pool>,
    uuid: Uuid,
    /// Absent in a unit that only reads.
    allocator: Option<Allocator>,
    lifetimes: Lifetimes,
    cache: Cache,
    pieces: Pieces,
    writes: IoQueue,
    behind: Arc<WriteBehind>,
    reads: IoQueue,
    /// Apart from the reads: nobody waits behind a scrub.
    scrubs: IoQueue,
    /// Which tiers are asked; another when a vdev leaves.
    placement: RwLock<Arc<Placement>>,
    strategy: Strategy,
    default_class: u8,
    /// Where the extents of vdevs are that left.
    moved: Moved,
    /// The vdev that is to leave.
    evacuation: Mutex<Option<Evacuation>>,
    copies: Option<Copies>,
    /// The first free that went wrong.
    defect: OnceLock<DmuError>,
    /// Copies that are not what was right, when they are compared.
    wrong_copies: Option<Mutex<BTreeSet<WrongCopy>>>,
}

/// What the configuration wants of placement.
#[derive(Debug)]
struct Strategy {
    alloc: [Vec<u8>; TIER_COUNT],
    log_tier: Option<u8>,
}

/// Which tiers are asked for what.
#[derive(Debug)]
pub(super) struct Placement {
    /// For each class, the tiers with persistent vdevs to try in order.
    durable: [Vec<u8>; TIER_COUNT],
    /// For each class, the memory tiers that it prefers to the first of those.
    memory: [Vec<u8>; TIER_COUNT],
    /// Tiers with persistent vdevs: those that are as redundant as any, fastest first, then the others; that of the log
    /// apart.
    metadata: Vec<u8>,
    log: Vec<u8>,
    /// For each class, whether every block is written on its own, and memory holds no copies.
    plain: [bool; TIER_COUNT],
}

impl Placement {
    /// On all vdevs of `pool` but `closed`.
    fn new(pool: &Pool, strategy: &Strategy, closed: &[VdevId]) -> Self {
        let persistent = persistent_tiers(pool, closed);
        let durable = strategy.alloc.clone().map(|tiers| {
            let mut list: Vec<u8> = tiers.into_iter().filter(|tier| persistent.contains(tier)).collect();
            if list.is_empty() {
                list.extend(persistent.first());
            }
            list
        });
        let memory = strategy.alloc.clone().map(|tiers| {
            tiers.into_iter().take_while(|tier| !persistent.contains(tier)).collect::<Vec<u8>>()
        });
        let metadata = by_redundancy(pool, &persistent, closed);
        let mut log = metadata.clone();
        log.sort_by_key(|tier| Some(*tier) != strategy.log_tier);
        if let (Some(first), Some(safe)) = (log.first(), metadata.first())
            && redundancy(pool, *first, closed) < redundancy(pool, *safe, closed)
        {
            let name = |tier: &u8| TIER_NAMES[usize::from(*tier) % TIER_COUNT];
            log::warn!(
                "the log is on tier {}, as configured, which is less redundant than tier {}: what was synced since the \
                 last checkpoint is lost with it",
                name(first),
                name(safe)
            );
        }
        let is_plain = |tier: &u8| is_plain(pool, *tier, closed);
        let plain =
            std::array::from_fn(|class| memory[class].is_empty() && durable[class].iter().all(is_plain));
        Self { durable, memory, metadata, log, plain }
    }

    /// Whether what is written for `class` is written block by block, and nowhere else.
    pub fn is_plain(&self, class: usize) -> bool {
        self.plain[class]
    }
}

/// The vdevs whose blocks persistent pointers may name, but `closed`: all but memory, unless there is nothing but memory.
fn persistent<'p>(pool: &'p Pool, closed: &[VdevId]) -> impl Iterator<Item = &'p TopLevelVdev> {
    let volatile_pool = pool.is_volatile();
    pool.vdevs()
        .iter()
        .filter(move |vdev| (volatile_pool || !vdev.is_volatile()) && !closed.contains(&vdev.id))
}

fn persistent_tiers(pool: &Pool, closed: &[VdevId]) -> Vec<u8> {
    let has_one = |tier: &u8| persistent(pool, closed).any(|vdev| vdev.tier == *tier);
    (0..TIER_COUNT as u8).filter(has_one).collect()
}

/// Whether every block of `tier` is written on its own.
fn is_plain(pool: &Pool, tier: u8, closed: &[VdevId]) -> bool {
    persistent(pool, closed).filter(|vdev| vdev.tier == tier).all(|vdev| vdev.geometry().is_plain())
}

/// Members of a vdev of `tier` that may be lost before data are.
fn redundancy(pool: &Pool, tier: u8, closed: &[VdevId]) -> usize {
    let of_tier = persistent(pool, closed).filter(|vdev| vdev.tier == tier);
    of_tier.map(|vdev| vdev.redundancy()).min().unwrap_or(0)
}

/// `tiers` in the order in which what everything hangs on goes to them: a checkpoint is lost with its headers, and what was
/// synced since with the log, so these are no less redundant than anything else.
fn by_redundancy(pool: &Pool, tiers: &[u8], closed: &[VdevId]) -> Vec<u8> {
    let most = tiers.iter().map(|tier| redundancy(pool, *tier, closed)).max().unwrap_or(0);
    let mut out = tiers.to_vec();
    out.sort_by_key(|tier| redundancy(pool, *tier, closed) < most);
    out
}

/// The vdevs that are persistent, or those that are not.
fn geometries(pool: &Pool, persistent: bool) -> Result<Vec<VdevGeometry>, DmuError> {
    let volatile_pool = pool.is_volatile();
    let mut geometries = Vec::new();
    for vdev in pool.vdevs() {
        if (volatile_pool || !vdev.is_volatile()) == persistent {
            let reserved = pool.reserved_ranges(vdev.id)?.to_vec();
            geometries.push(VdevGeometry {
                id: vdev.id,
                tier: vdev.tier,
                blocks: vdev.blocks,
                reserved,
                geometry: vdev.geometry(),
            });
        }
    }
    Ok(geometries)
}

impl Dmu {
    /// The unit of a pool that was just created: everything free.
    ///
    /// # Errors
    /// A vdev that is too small.
    pub fn create(pool: Arc<Pool>, options: DmuOptions) -> Result<Self, DmuError> {
        let uuid = pool.uuid();
        let vdevs = geometries(&pool, true)?;
        let allocator = Allocator::create(Arc::clone(&pool), uuid, &vdevs, pool.segment_blocks())?;
        Self::with(pool, options, Some(allocator))
    }

    /// The unit as of checkpoint `generation`, whose table root is `root`.
    ///
    /// # Errors
    /// Damage, device errors, a vdev that is missing or shorter than it was.
    pub fn open(
        pool: Arc<Pool>,
        options: DmuOptions,
        root: &[u8],
        generation: Generation,
    ) -> Result<Self, DmuError> {
        let uuid = pool.uuid();
        let vdevs = geometries(&pool, true)?;
        let segment_blocks = pool.segment_blocks();
        let allocator = Allocator::open(Arc::clone(&pool), uuid, &vdevs, segment_blocks, root, generation)?;
        let dmu = Self::with(pool, options, Some(allocator))?;
        dmu.lifetimes().set_durable(generation);
        let indirect = dmu.allocator().indirect.lock().clone();
        dmu.load_maps(&indirect)?;
        Ok(dmu)
    }

    /// As [`Dmu::open`], with the recorded counts of some segments corrected: the next checkpoint writes these.
    ///
    /// # Errors
    /// As [`Dmu::open`].
    pub(crate) fn open_amended(
        pool: Arc<Pool>,
        options: DmuOptions,
        root: &[u8],
        generation: Generation,
        counts: &[SegmentCounts],
    ) -> Result<Self, DmuError> {
        let vdevs = geometries(&pool, true)?;
        let allocator = Allocator::open_amended(Arc::clone(&pool), &vdevs, root, generation, counts)?;
        let dmu = Self::with(pool, options, Some(allocator))?;
        dmu.lifetimes().set_durable(generation);
        let indirect = dmu.allocator().indirect.lock().clone();
        dmu.load_maps(&indirect)?;
        Ok(dmu)
    }

    /// For a unit that only reads: extents of vdevs that left are where the table root `root` says.
    ///
    /// # Errors
    /// Damage, device errors.
    pub fn follow_moved(&self, root: &[u8]) -> Result<(), DmuError> {
        let root = Root::decode(root).map_err(|source| DmuError::Decode { what: TABLE_ROOT, source })?;
        self.load_maps(&root.indirect)
    }

    /// The geometry of the vdevs that persistent pointers may name.
    ///
    /// # Errors
    /// None today.
    pub(crate) fn persistent_geometries(pool: &Pool) -> Result<Vec<VdevGeometry>, DmuError> {
        geometries(pool, true)
    }

    /// A unit that only reads: what opening needs before it has the allocation table.
    ///
    /// # Errors
    /// A vdev that is described wrongly.
    pub fn reader(pool: Arc<Pool>, options: DmuOptions) -> Result<Self, DmuError> {
        Self::with(pool, DmuOptions { cache_bytes: 0, threads: 0, ..options }, None)
    }

    /// A unit over vdevs without labels, for the tests of the layers above.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn over(pool: Arc<Pool>, cache_bytes: usize) -> Self {
        Self::over_with_threads(pool, cache_bytes, 0)
    }

    /// The same, with threads that write, and as many that read.
    #[cfg(any(test, feature = "fuzzing"))]
    #[expect(clippy::unwrap_used, reason = "only tests and fuzz targets call it")]
    pub(crate) fn over_with_threads(pool: Arc<Pool>, cache_bytes: usize, threads: usize) -> Self {
        let uuid = Uuid([7; 16]);
        let vdevs = geometries(&pool, true).unwrap();
        let allocator = Allocator::create(Arc::clone(&pool), uuid, &vdevs, 1 << 10).unwrap();
        Self::with(pool, DmuOptions { cache_bytes, threads, ..DmuOptions::default() }, Some(allocator))
            .unwrap()
    }

    pub(super) fn with(
        pool: Arc<Pool>,
        options: DmuOptions,
        allocator: Option<Allocator>,
    ) -> Result<Self, DmuError> {
        let strategy = Strategy { alloc: options.alloc_strategy, log_tier: options.log_tier };
        let placement = Placement::new(&pool, &strategy, &[]);
        let volatile = geometries(&pool, false)?;
        let copies = match volatile.is_empty() || allocator.is_none() {
            true => None,
            false => Some(Copies::new(Arc::clone(&pool), &volatile)?),
        };
        let cache = Cache::new(options.cache_bytes);
        let capacity = allocator
            .as_ref()
            .map_or(0, |allocator| allocator.tier_space().iter().map(|space| space.total).sum());
        Ok(Self {
            inner: Arc::new(Inner {
                uuid: pool.uuid(),
                pool,
                allocator,
                lifetimes: Lifetimes::default(),
                pieces: Pieces::new(&cache),
                cache,
                writes: IoQueue::new(options.threads),
                behind: Arc::new(WriteBehind::new(capacity)),
                reads: IoQueue::new(options.threads),
                scrubs: IoQueue::new(options.threads),
                placement: RwLock::new(Arc::new(placement)),
                strategy,
                default_class: options.default_class,
                moved: Moved::default(),
                evacuation: Mutex::default(),
                copies,
                defect: OnceLock::new(),
                wrong_copies: options.compare_copies.then(Mutex::default),
            }),
        })
    }

    /// The pool below.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    /// The name of the pool.
    #[must_use]
    pub fn pool_uuid(&self) -> Uuid {
        self.inner.uuid
    }

    /// The cache of blocks, filters and indexes.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    pub(super) fn lifetimes(&self) -> &Lifetimes {
        &self.inner.lifetimes
    }

    /// The allocator.
    ///
    /// # Panics
    /// On a unit that only reads.
    pub(super) fn allocator(&self) -> &Allocator {
        match &self.inner.allocator {
            Some(allocator) => allocator,
            None => unreachable!("a unit that only reads allocates nothing"),
        }
    }

    pub(super) fn placement(&self) -> Arc<Placement> {
        Arc::clone(&self.inner.placement.read())
    }

    /// Looks anew which tiers are asked.
    pub(super) fn place_anew(&self) {
        let mut closed = self.moved().vdevs();
        closed.extend(self.evacuation().lock().as_ref().map(Evacuation::vdev));
        let placement = Placement::new(self.pool(), &self.inner.strategy, &closed);
        *self.inner.placement.write() = Arc::new(placement);
    }

    /// The persistent tiers, with `first` in front.
    pub(super) fn tiers_from(&self, first: u8) -> Vec<u8> {
        let mut tiers = self.placement().metadata.clone();
        tiers.sort_by_key(|tier| *tier != first);
        tiers
    }

    pub(super) fn moved(&self) -> &Moved {
        &self.inner.moved
    }

    pub(super) fn evacuation(&self) -> &Mutex<Option<Evacuation>> {
        &self.inner.evacuation
    }

    /// The storage class of a preference.
    #[must_use]
    pub fn class_of(&self, preference: StoragePreference) -> u8 {
        preference.class().unwrap_or(self.inner.default_class)
    }

    /// The tier that class `class` is written to first.
    #[must_use]
    pub fn first_tier(&self, class: u8) -> u8 {
        self.placement().durable[usize::from(class)].first().copied().unwrap_or(class)
    }

    /// Whether tier `tier` has devices.
    #[must_use]
    pub fn has_tier(&self, tier: u8) -> bool {
        let placement = self.placement();
        let volatile = self.inner.pool.vdevs().iter().any(|vdev| vdev.tier == tier && vdev.is_volatile());
        placement.metadata.contains(&tier) || volatile
    }

    /// Whether `extents` lie where `class` is written to first. What would like to be in memory never does: who moves it
    /// there gives it a copy.
    #[must_use]
    pub fn is_home(&self, extents: &[Extent], class: u8) -> bool {
        let tier = self.first_tier(class);
        let on_tier = |extent: &Extent| self.inner.pool.vdev(extent.vdev).is_ok_and(|vdev| vdev.tier == tier);
        let is_there = |extent: &Extent| match self.places_of_moved(extent) {
            Some(places) => places.iter().all(on_tier),
            None => on_tier(extent),
        };
        self.placement().memory[usize::from(class)].is_empty() && extents.iter().all(is_there)
    }

    /// Blocks that requests may still take of the tier that `class` is written to first.
    #[must_use]
    pub fn first_tier_blocks(&self, class: u8, privilege: Privilege) -> u64 {
        self.allocator().available(self.first_tier(class), privilege)
    }

    /// Whether all tiers of `class` are tiers of `outer`, too.
    #[must_use]
    pub fn is_inside(&self, class: u8, outer: u8) -> bool {
        let placement = self.placement();
        let tiers = |class: u8| &placement.durable[usize::from(class)];
        tiers(class).iter().all(|tier| tiers(outer).contains(tier))
    }

    /// Blocks that writes of `class` may still take.
    #[must_use]
    pub fn available_blocks(&self, class: u8, privilege: Privilege) -> u64 {
        let placement = self.placement();
        let tiers = &placement.durable[usize::from(class)];
        tiers.iter().map(|tier| self.allocator().available(*tier, privilege)).sum()
    }

    /// How many of [`Dmu::available_blocks`] are enough for `blocks` blocks of data, however scattered they are: apart, blocks
    /// with their parity take more than together.
    #[must_use]
    pub fn scattered_blocks(&self, class: u8, blocks: u64) -> u64 {
        let placement = self.placement();
        let tiers = &placement.durable[usize::from(class)];
        tiers.iter().map(|tier| self.allocator().scattered(*tier, blocks)).max().unwrap_or(blocks)
    }

    /// How many of the blocks that `extents` take hold data in long extents: what the accounts of space count.
    #[must_use]
    pub fn data_share(&self, extents: &[Extent]) -> u64 {
        self.allocator().data_share(total_blocks(extents))
    }

    /// Blocks of data that all persistent tiers can hold.
    #[must_use]
    pub fn capacity_blocks(&self) -> u64 {
        self.allocator().tier_space().iter().map(|space| space.total).sum()
    }

    /// Space of each tier; for a memory tier that of its copies.
    #[must_use]
    pub fn space(&self) -> [TierSpace; TIER_COUNT] {
        let mut space = self.allocator().tier_space();
        if let Some(copies) = &self.inner.copies {
            let placement = self.placement();
            for tier in (0..TIER_COUNT as u8).filter(|tier| !placement.metadata.contains(tier)) {
                let (free, total) = copies.space(tier);
                let tier = &mut space[usize::from(tier)];
                (tier.free, tier.total, tier.used) = (free, total, total - free);
            }
        }
        space
    }

    /// Allocates room for `blocks` blocks of data: one extent where contiguous space is left, else several in order. Headers and the log
    /// go to the fastest durable tier that is as redundant as any; everything else where its class says. Flushes, merges and checkpoints may fall
    /// back to any durable tier, rather than fail.
    ///
    /// # Errors
    /// [`DmuError::OutOfSpace`]; nothing is allocated then.
    pub fn allocate(
        &self,
        stream: Stream,
        preference: StoragePreference,
        blocks: u32,
        privilege: Privilege,
    ) -> Result<Vec<Extent>, DmuError> {
        let (inner, placement) = (&*self.inner, self.placement());
        let class = usize::from(self.class_of(preference));
        let tiers = match stream {
            Stream::Header => &placement.metadata,
            Stream::Log => &placement.log,
            _ => &placement.durable[class],
        };
        let extents = match self.allocator().allocate(stream, tiers, blocks, privilege) {
            Err(DmuError::OutOfSpace { .. })
                if privilege == Privilege::System && tiers != &placement.metadata =>
            {
                self.allocator().allocate(stream, &placement.metadata, blocks, privilege)?
            }
            allocated => allocated?,
        };
        if let Some(copies) = &inner.copies
            && !matches!(stream, Stream::Header | Stream::Log)
            && !placement.memory[class].is_empty()
        {
            copies.add(&placement.memory[class], &extents);
        }
        Ok(extents)
    }

    /// Gives back extents that no version reaches any more, or ever reached.
    pub fn release(&self, extents: &[Extent]) {
        if let Some(copies) = &self.inner.copies {
            extents.iter().for_each(|extent| copies.remove(extent));
        }
        // A double free is a defect or damage: the blocks stay taken, and no more is written on such a ground.
        let released = extents.iter().try_for_each(|extent| match self.release_moved(extent) {
            Some(places) => self.allocator().release(&places),
            None => self.allocator().release(&[*extent]),
        });
        if let Err(error) = released {
            log::error!("{error}; no more is written");
            self.inner.defect.get_or_init(|| error);
        }
    }

    /// The generations that the allocation table mentions, as found at open.
    #[must_use]
    pub fn seen_generations(&self) -> SeenGenerations {
        self.allocator().seen_generations()
    }

    /// Sets the reserve of every tier that may hold headers, log or deletes; see [`Allocator::set_reserve`].
    pub fn set_reserve(&self, reserve: Reserve) {
        for tier in &self.placement().metadata {
            self.allocator().set_reserve(*tier, reserve);
        }
    }

    /// The vdevs that persistent pointers may name.
    #[must_use]
    pub fn persistent_vdevs(&self) -> Vec<VdevId> {
        self.allocator().vdev_space().iter().map(|space| space.id).collect()
    }

    /// Visits what the newest checkpoint has allocated on `vdev`, in order; labels, table and bitmaps left out.
    ///
    /// # Errors
    /// Device errors and damage of bitmaps.
    pub fn for_each_allocated(&self, vdev: VdevId, visit: impl FnMut(Extent)) -> Result<(), DmuError> {
        self.allocator().for_each_set(vdev, visit)
    }

    /// Marks `extent` allocated, as replay finds it; whether it was free.
    ///
    /// # Errors
    /// An extent that is not inside its vdev; device errors.
    pub fn mark_busy(&self, extent: Extent) -> Result<bool, DmuError> {
        self.allocator().mark_busy(extent)
    }

    /// Reads `len` bytes from byte `offset` of the concatenation of `extents`; both multiples of 4096.
    ///
    /// # Errors
    /// Device errors; [`DmuError::Corrupt`] when the range is not inside the extents.
    pub fn read(&self, extents: &[Extent], offset: u64, len: usize) -> Result<AlignedBuffer, DmuError> {
        // Before any memory is asked for: the length may come from a device.
        let parts = self.parts(extents, offset, len)?;
        let mut buffer = AlignedBuffer::recycled(len);
        self.read_parts(&parts, &mut buffer)?;
        Ok(buffer)
    }

    /// How [`Dmu::read`] would read `len` bytes from byte `offset` of `extents`, when by one request to one file. Who makes that
    /// verifies what came, as after [`Dmu::read_doubtful`] with [`Reading::Clean`](super::Reading::Clean).
    #[must_use]
    pub fn single_read(&self, extents: &[Extent], offset: u64, len: usize) -> Option<SingleRead> {
        if self.inner.copies.is_some() || self.inner.wrong_copies.is_some() {
            return None;
        }
        let parts = self.parts(extents, offset, len).ok()?;
        let [part] = &parts[..] else { return None };
        if self.inner.behind.has(part) {
            return None;
        }
        self.inner.pool.single_read(&part.extent, part.from, len)
    }

    pub(super) fn copies(&self) -> Option<&Copies> {
        self.inner.copies.as_ref()
    }

    /// Reads `parts`; whether every member that was asked gave its part.
    pub(super) fn read_parts(&self, parts: &[Part], out: &mut [u8]) -> Result<bool, DmuError> {
        let mut clean = true;
        for part in parts {
            let place = &mut out[part.range.clone()];
            if self.inner.behind.read(part, place) {
                continue;
            }
            if !self.inner.copies.as_ref().is_some_and(|copies| copies.read(part, place)) {
                clean &= self.inner.pool.read_noting(&part.extent, part.from, place)?;
            }
        }
        Ok(clean)
    }

    /// Compares all copies of `parts` with what is `right`, of which the bytes `verified` are known to be, when this unit does
    /// that.
    pub(super) fn note_wrong_copies(
        &self,
        parts: &[Part],
        right: &[u8],
        verified: &Range<usize>,
    ) -> Result<(), DmuError> {
        let Some(noted) = &self.inner.wrong_copies else { return Ok(()) };
        for part in parts {
            let Range { start, end } = part.range;
            let sure = verified.start.clamp(start, end) - start..verified.end.clamp(start, end) - start;
            let wrong = self.inner.pool.wrong_copies(&part.extent, part.from, &right[start..end], &sure)?;
            noted.lock().extend(wrong);
        }
        Ok(())
    }

    /// Takes the copies that were found not to be what is right, by a unit that compares them.
    #[must_use]
    pub fn take_wrong_copies(&self) -> BTreeSet<WrongCopy> {
        self.inner.wrong_copies.as_ref().map(|noted| std::mem::take(&mut *noted.lock())).unwrap_or_default()
    }

    /// For who read `right` from byte `offset` of `extents` and found its bytes `verified` so: compares the copies, when this unit does that.
    ///
    /// # Errors
    /// [`DmuError::Corrupt`] when the range is not inside the extents.
    #[inline]
    pub fn found_right(
        &self,
        extents: &[Extent],
        offset: u64,
        right: &[u8],
        verified: Range<usize>,
    ) -> Result<(), DmuError> {
        match &self.inner.wrong_copies {
            None => Ok(()),
            Some(_) => {
                let parts = self.parts(extents, offset, right.len())?;
                self.note_wrong_copies(&parts, right, &verified)
            }
        }
    }

    /// The pieces of extents that are in the cache.
    #[must_use]
    pub fn pieces(&self) -> &Pieces {
        &self.inner.pieces
    }

    /// What the piece from byte `offset` of `extents` is called, which were born in `birth`; `None` when it is not inside.
    #[must_use]
    pub fn piece_name(&self, extents: &[Extent], offset: u64, birth: Generation) -> Option<PieceName> {
        // As its pointer says, wherever it is: nothing in the cache is lost when it moves.
        let mut skip = offset / BLOCK_BYTES_U64;
        for Extent { vdev, block, blocks } in extents {
            let geometry = geometry_of(self.pool(), *vdev);
            let capacity = geometry.capacity(u64::from(*blocks));
            if skip < capacity {
                return Some(PieceName { vdev: *vdev, block: block + geometry.place(skip), birth });
            }
            skip -= capacity;
        }
        None
    }

    /// Writes `bytes` (whole blocks) at byte `offset` of the concatenation of `extents`, and returns when the device
    /// has taken them (not flushed). On a striped vdev whole stripes, from where one starts; what is left of the last one is
    /// filled up and takes nothing more. [`WriteBatch`] sees to that.
    ///
    /// # Errors
    /// Device errors.
    pub fn write(&self, extents: &[Extent], offset: u64, bytes: &[u8]) -> Result<(), DmuError> {
        if let Some(defect) = self.inner.defect.get() {
            return Err(defect.clone());
        }
        if cfg!(debug_assertions) {
            self.check_unreached(extents)?;
        }
        for part in self.parts(extents, offset, bytes.len())? {
            let bytes = &bytes[part.range.clone()];
            self.inner.pool.write(&part.extent, part.from, bytes)?;
            if let Some(copies) = &self.inner.copies {
                copies.write(&part, bytes)?;
            }
        }
        Ok(())
    }

    /// Writes whole blocks to `extent` from the one at `from` on, each as a stripe of its own, so that more can follow.
    ///
    /// # Errors
    /// Device errors.
    pub fn write_singles(&self, extent: &Extent, from: u32, bytes: &[u8]) -> Result<(), DmuError> {
        if let Some(defect) = self.inner.defect.get() {
            return Err(defect.clone());
        }
        if cfg!(debug_assertions) {
            self.check_unreached(&[*extent])?;
        }
        Ok(self.inner.pool.write_singles(extent, u64::from(from), bytes)?)
    }

    /// Fails when a checkpoint that the pool may be opened at has a block of `extents`.
    fn check_unreached(&self, extents: &[Extent]) -> Result<(), DmuError> {
        for extent in extents {
            if self.allocator().is_reached(extent)? {
                let what = "a write over an extent that a checkpoint has";
                return Err(DmuError::Allocation { what, extent: *extent });
            }
        }
        Ok(())
    }

    /// Makes completed writes to `vdevs` durable.
    ///
    /// # Errors
    /// Device errors.
    pub fn flush(&self, vdevs: &[VdevId]) -> Result<(), DmuError> {
        for vdev in vdevs {
            self.inner.pool.flush(*vdev)?;
        }
        Ok(())
    }

    /// Starts a job that reads, holds `bytes` bytes of memory, and goes on in the background. It must not start another
    /// one.
    #[must_use]
    pub fn read_in_background<T: Send + 'static>(
        &self,
        bytes: usize,
        job: impl FnOnce() -> Result<T, DmuError> + Send + 'static,
    ) -> PendingJob<T> {
        PendingJob::start(&self.inner.reads, bytes, job)
    }

    pub(super) fn scrubs(&self) -> &IoQueue {
        &self.inner.scrubs
    }

    /// Starts a group of writes that go on in the background until [`WriteBatch::finish`].
    #[must_use]
    pub fn write_batch(&self) -> WriteBatch {
        WriteBatch::new(self.clone())
    }

    pub(super) fn behind(&self) -> &Arc<WriteBehind> {
        &self.inner.behind
    }

    pub(super) fn writes(&self) -> &IoQueue {
        &self.inner.writes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::TopLevelVdev;
    use crate::pool::format::VdevKind;
    use crate::vdev::{BlockDevice, MemoryDevice, SimClock, SimDisk};

    fn disks(count: usize) -> Vec<Arc<dyn BlockDevice>> {
        let clock = SimClock::new(1);
        (0..count).map(|_| Arc::new(SimDisk::new("disk", 16 << 20, &clock).device()) as Arc<_>).collect()
    }

    fn unit(vdevs: Vec<TopLevelVdev>, log_tier: Option<u8>) -> Dmu {
        let pool = Arc::new(Pool::from_vdevs(vdevs));
        let options = DmuOptions {
            alloc_strategy: std::array::from_fn(|_| vec![0, 1, 2]),
            log_tier,
            ..DmuOptions::default()
        };
        let vdevs = geometries(&pool, true).unwrap();
        let allocator = Allocator::create(Arc::clone(&pool), Uuid([7; 16]), &vdevs, 1 << 10).unwrap();
        Dmu::with(pool, options, Some(allocator)).unwrap()
    }

    fn tier_of(dmu: &Dmu, stream: Stream) -> u8 {
        let extents = dmu.allocate(stream, StoragePreference::NONE, 1, Privilege::System).unwrap();
        dmu.pool().vdev(extents[0].vdev).unwrap().tier
    }

    /// Rule 10: what everything hangs on is lost no earlier than anything else.
    #[test]
    fn the_log_is_as_redundant_as_the_data() {
        let group = |id, tier, kind, count| TopLevelVdev::group(VdevId(id), tier, kind, disks(count));
        let with_memory = || {
            let mut legs = disks(1);
            legs.push(Arc::new(MemoryDevice::new(16 << 20)));
            TopLevelVdev::group(VdevId(1), 0, VdevKind::Mirror, legs)
        };
        let streams =
            |dmu: &Dmu| [Stream::Log, Stream::Header, Stream::Value].map(|stream| tier_of(dmu, stream));
        let single = || group(1, 0, VdevKind::Leaf, 1);
        let mirror = || group(2, 1, VdevKind::Mirror, 2);
        let parity = || group(3, 2, VdevKind::Parity2, 4);
        assert_eq!(streams(&unit(vec![single()], None)), [0, 0, 0]);
        assert_eq!(streams(&unit(vec![single(), mirror()], None)), [1, 1, 0]);
        assert_eq!(streams(&unit(vec![single(), mirror(), parity()], None)), [2, 2, 0]);
        // A leg in memory is lost with the process.
        assert_eq!(streams(&unit(vec![with_memory(), mirror()], None)), [1, 1, 0]);
        // Two vdevs of a tier: the weaker one counts.
        let weak = vec![group(1, 0, VdevKind::Mirror, 3), group(4, 0, VdevKind::Leaf, 1), mirror()];
        assert_eq!(streams(&unit(weak, None))[..2], [1, 1]);
        // As configured, loudly.
        assert_eq!(streams(&unit(vec![single(), mirror()], Some(0))), [0, 1, 0]);
    }
}
