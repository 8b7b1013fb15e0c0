//! The cache: one budget for everything in memory that can be read again.
//!
//! ```text
//!   owner (a run's blocks, its meta section, a node header)          the cache
//!   ┌──────────────────────────────┐   Charge: bytes, while    ┌───────────────────────────────┐
//!   │ slot 0: ●──► frame ──────────┼──── the frame lives ─────►│ used ≤ bytes_max              │
//!   │ slot 1: ○                    │                           │ small queue │ main queue │ ghosts
//!   │ slot 2: ●──► frame           │◄── take_reference/evict ──│ (weak owner, slot)            │
//!   └──────────────────────────────┘                           └───────────────────────────────┘
//! ```
//!
//! The owner points to its frames itself, so a hit is no look-up here and takes no lock: it marks the frame as used, and
//! that is all. The cache knows weak owners and slot numbers, and empties slots when the budget is exceeded, in the order
//! of S3-FIFO (Yang et al., SOSP 2023): new frames wait in a small queue of a tenth of the budget; who is used there
//! moves to the main queue, a clock; who is not leaves, so that a scan passes through without moving anything else; who
//! comes back soon after it left (a ghost) goes to the main queue at once.
//!
//! 1. `used` is what live [`Charge`]s add up to: frames that a reader still holds count until it lets go.
//! 2. Room is made before a frame is charged, so `used` exceeds the budget only by frames that are pinned or being read.
//! 3. Lock order: the queues' lock comes before any lock of an owner. An owner never calls the cache from
//!    [`Evictable`]'s methods, except by dropping charges, which takes no lock. No owner is dropped under the lock, for
//!    who knows what else it owns.

use crate::base::sync::Mutex;
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Something with slots that can be emptied at any time.
pub trait Evictable: Send + Sync {
    /// Empties `slot`, and whether it is empty now: somebody may use what is in it in a way that does not allow it.
    fn evict(&self, slot: u32) -> bool;

    /// Takes back one use of what is in `slot`; false when it was not used since (or is empty).
    fn take_reference(&self, slot: u32) -> bool;
}

/// Where a new frame starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// On probation: leaves first unless it is used again.
    Probation,
    /// Among the frames that have proved themselves: it takes the place of such a one.
    Proven,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStatistics {
    /// Bytes of frames now.
    pub bytes: u64,
    /// The budget.
    pub bytes_max: u64,
    /// Reads that found their frame.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Frames that came in.
    pub inserts: u64,
    /// Frames that were put out to keep the budget.
    pub evictions: u64,
}

/// Uses that a frame can save up: one that was used this often survives as many passes of the clock.
const FREQUENCY_MAX: u8 = 3;

/// How often something in the cache was used lately. Racing updates may get lost, which costs nothing but accuracy.
#[derive(Debug, Default)]
pub struct Heat(AtomicU8);

impl Heat {
    /// Notes a use.
    #[inline]
    pub fn touch(&self) {
        let frequency = self.0.load(Ordering::Relaxed);
        if frequency < FREQUENCY_MAX {
            self.0.store(frequency + 1, Ordering::Relaxed);
        }
    }

    /// Takes one use back; false when there was none.
    pub fn take(&self) -> bool {
        let frequency = self.0.load(Ordering::Relaxed);
        if frequency > 0 {
            self.0.store(frequency - 1, Ordering::Relaxed);
        }
        frequency > 0
    }
}

/// Handle on the cache; clones share it.
#[derive(Debug, Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    used: AtomicUsize,
    bytes_max: AtomicUsize,
    /// Of `used`, what no eviction gives back before it is written.
    dirty: AtomicUsize,
    /// Charges that live.
    frames: AtomicUsize,
    queues: Mutex<Queues>,
    counters: Box<[Counters]>,
}

/// Hits and misses of the threads that share a stripe; a line of its own, since every read writes to it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
}

const STRIPES: usize = 64;

struct Item {
    owner: Weak<dyn Evictable>,
    slot: u32,
    bytes: u32,
    identity: u64,
}

#[derive(Default)]
struct Queues {
    small: VecDeque<Item>,
    main: VecDeque<Item>,
    small_bytes: usize,
    /// Identities that left the small queue lately, one per place; 0 is none.
    ghosts: Box<[u32]>,
    inserts: u64,
    evictions: u64,
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (small, main) = (self.small.len(), self.main.len());
        f.debug_struct("Queues").field("small", &small).field("main", &main).finish_non_exhaustive()
    }
}

/// Bytes of a frame that count for the budget, until it is dropped.
#[derive(Debug)]
pub struct Charge {
    cache: Arc<Inner>,
    bytes: usize,
    dirty: bool,
}

impl Charge {
    /// Bytes charged.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// It will not be written to a device any more: no longer dirty, and counted as before.
    pub fn abandon(&mut self) {
        if std::mem::take(&mut self.dirty) {
            self.cache.dirty.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.abandon();
        self.cache.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.cache.frames.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cache {
    /// An empty cache that holds at most `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let ghosts = (bytes_max >> 14).next_power_of_two().clamp(1 << 10, 1 << 20);
        let queues = Queues { ghosts: vec![0; ghosts].into(), ..Queues::default() };
        Self {
            inner: Arc::new(Inner {
                used: AtomicUsize::new(0),
                dirty: AtomicUsize::new(0),
                bytes_max: AtomicUsize::new(bytes_max),
                frames: AtomicUsize::new(0),
                queues: Mutex::new(queues),
                counters: (0..STRIPES).map(|_| Counters::default()).collect(),
            }),
        }
    }

    /// The budget in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.inner.bytes_max.load(Ordering::Relaxed)
    }

    /// Changes the budget; a smaller one takes effect at once.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        self.inner.bytes_max.store(bytes_max, Ordering::Relaxed);
        self.make_room();
    }

    /// Bytes until the budget is reached.
    #[must_use]
    pub fn room(&self) -> usize {
        self.bytes_max().saturating_sub(self.bytes())
    }

    /// Bytes of all frames that live.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.inner.used.load(Ordering::Relaxed)
    }

    /// Counts `bytes` (the footprint of a frame) until the charge is dropped, and puts others out to make room.
    #[must_use]
    pub fn charge(&self, bytes: usize) -> Charge {
        self.take(bytes, false)
    }

    /// As [`Cache::charge`] for something that is not on a device yet.
    #[must_use]
    pub fn charge_dirty(&self, bytes: usize) -> Charge {
        self.inner.dirty.fetch_add(bytes, Ordering::Relaxed);
        self.take(bytes, true)
    }

    fn take(&self, bytes: usize, dirty: bool) -> Charge {
        self.inner.used.fetch_add(bytes, Ordering::Relaxed);
        self.inner.frames.fetch_add(1, Ordering::Relaxed);
        self.make_room();
        Charge { cache: Arc::clone(&self.inner), bytes, dirty }
    }

    /// Bytes of all dirty charges that live.
    #[must_use]
    pub fn dirty_bytes(&self) -> usize {
        self.inner.dirty.load(Ordering::Relaxed)
    }

    /// Makes the cache responsible for emptying `slot` of `owner`, which has just been filled with a charged frame of
    /// `bytes` bytes. `identity` names the contents, so that they are recognised when they come back.
    pub fn insert(
        &self,
        owner: Weak<dyn Evictable>,
        slot: u32,
        bytes: usize,
        identity: u64,
        admission: Admission,
    ) {
        let mut queues = self.inner.queues.lock();
        queues.inserts += 1;
        let item = Item { owner, slot, bytes: u32::try_from(bytes).unwrap_or(u32::MAX), identity };
        let (place, mark) = queues.ghost(identity);
        if admission == Admission::Proven || queues.ghosts[place] == mark {
            queues.ghosts[place] = 0;
            queues.main.push_back(item);
        } else {
            queues.small_bytes += item.bytes as usize;
            queues.small.push_back(item);
        }
        // Frames whose owner died leave their items behind, which only a pass over the queues would find.
        let items = queues.small.len() + queues.main.len();
        if items > 2 * self.inner.frames.load(Ordering::Relaxed) + 1024 {
            queues.sweep();
        }
        drop(queues);
        self.make_room();
    }

    /// Counts a read that found its frame.
    #[inline]
    pub fn record_hit(&self) {
        bump(&self.inner.counters[stripe()].hits);
    }

    /// Counts a read that did not find its frame.
    pub fn record_miss(&self) {
        bump(&self.inner.counters[stripe()].misses);
    }

    /// Empties all slots.
    pub fn clear(&self) {
        let (small, main) = {
            let mut queues = self.inner.queues.lock();
            queues.small_bytes = 0;
            (std::mem::take(&mut queues.small), std::mem::take(&mut queues.main))
        };
        for item in small.iter().chain(&main) {
            let Some(owner) = item.owner.upgrade() else { continue };
            if !owner.evict(item.slot) {
                let (owner, identity) = (Weak::clone(&item.owner), item.identity);
                self.insert(owner, item.slot, item.bytes as usize, identity, Admission::Proven);
            }
        }
    }

    /// The counters now.
    #[must_use]
    pub fn statistics(&self) -> CacheStatistics {
        let sum = |counter: fn(&Counters) -> &AtomicU64| {
            self.inner.counters.iter().map(|stripe| counter(stripe).load(Ordering::Relaxed)).sum()
        };
        let (inserts, evictions) = {
            let queues = self.inner.queues.lock();
            (queues.inserts, queues.evictions)
        };
        CacheStatistics {
            bytes: self.bytes() as u64,
            bytes_max: self.bytes_max() as u64,
            hits: sum(|stripe| &stripe.hits),
            misses: sum(|stripe| &stripe.misses),
            inserts,
            evictions,
        }
    }

    fn is_over(&self) -> bool {
        self.bytes() > self.bytes_max()
    }

    fn make_room(&self) {
        if !self.is_over() {
            return;
        }
        // Owners that were looked at; this may hold the last reference to one.
        let mut owners = Vec::new();
        let mut queues = self.inner.queues.lock();
        // Every item may be looked at once per use that it has saved up; then once without regard to uses.
        let items = queues.small.len() + queues.main.len();
        let mut turns = 5 * items;
        while turns > 0 && self.is_over() && queues.step(self.bytes_max() / 10, turns <= items, &mut owners) {
            turns -= 1;
        }
        drop(queues);
    }
}

impl Queues {
    /// Looks at one item: puts it out or moves it on. False when there is none. With `force` uses do not count. Hands its
    /// reference to the owner over in `owners`.
    fn step(&mut self, small_bytes_max: usize, force: bool, owners: &mut Vec<Arc<dyn Evictable>>) -> bool {
        let from_small = self.small_bytes > small_bytes_max || self.main.is_empty();
        if from_small && let Some(item) = self.small.pop_front() {
            self.small_bytes -= item.bytes as usize;
            let Some(owner) = item.owner.upgrade() else { return true };
            if !force && owner.take_reference(item.slot) {
                self.main.push_back(item);
                owners.push(owner);
                return true;
            }
            if owner.evict(item.slot) {
                let (place, mark) = self.ghost(item.identity);
                self.ghosts[place] = mark;
                self.evictions += 1;
            } else {
                self.main.push_back(item);
            }
            owners.push(owner);
        } else if let Some(item) = self.main.pop_front() {
            let Some(owner) = item.owner.upgrade() else { return true };
            if !force && owner.take_reference(item.slot) {
                self.main.push_back(item);
                owners.push(owner);
                return true;
            }
            if owner.evict(item.slot) {
                self.evictions += 1;
            } else {
                self.main.push_back(item);
            }
            owners.push(owner);
        } else {
            return false;
        }
        true
    }

    /// Place and mark of an identity among the ghosts.
    fn ghost(&self, identity: u64) -> (usize, u32) {
        let mixed = identity.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed >> 32) as usize & (self.ghosts.len() - 1), mixed as u32 | 1)
    }

    fn sweep(&mut self) {
        self.small.retain(|item| item.owner.strong_count() > 0);
        self.main.retain(|item| item.owner.strong_count() > 0);
        self.small_bytes = self.small.iter().map(|item| item.bytes as usize).sum();
    }
}

/// Adds one, without the cost of an atomic addition: only a stripe shared by more than [`STRIPES`] threads loses counts.
#[inline]
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// The stripe of this thread.
#[inline]
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    STRIPE.with(|stripe| {
        if stripe.get() == usize::MAX {
            stripe.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        stripe.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    /// An owner of frames of 100 bytes.
    struct Owner {
        slots: Vec<Mutex<Option<Charge>>>,
        used: Vec<AtomicBool>,
    }

    impl Evictable for Owner {
        fn evict(&self, slot: u32) -> bool {
            *self.slots[slot as usize].lock() = None;
            true
        }

        fn take_reference(&self, slot: u32) -> bool {
            self.used[slot as usize].swap(false, Ordering::Relaxed)
        }
    }

    impl Owner {
        fn new(slots: usize) -> Arc<Self> {
            Arc::new(Self {
                slots: (0..slots).map(|_| Mutex::new(None)).collect(),
                used: (0..slots).map(|_| AtomicBool::new(false)).collect(),
            })
        }

        /// Whether it was a hit.
        fn read(self: &Arc<Self>, cache: &Cache, slot: usize) -> bool {
            if self.slots[slot].lock().is_some() {
                self.used[slot].store(true, Ordering::Relaxed);
                return true;
            }
            let charge = cache.charge(100);
            *self.slots[slot].lock() = Some(charge);
            let owner: Arc<dyn Evictable> = Arc::clone(self) as Arc<dyn Evictable>;
            cache.insert(Arc::downgrade(&owner), slot as u32, 100, slot as u64, Admission::Probation);
            false
        }
    }

    #[test]
    fn the_budget_holds_and_a_scan_leaves_the_hot_set_alone() {
        let cache = Cache::new(10_000);
        let owner = Owner::new(10_000);
        for slot in (0..50).chain(0..50).chain(0..50) {
            owner.read(&cache, slot);
        }
        for slot in 100..10_000 {
            owner.read(&cache, slot);
            assert!(cache.bytes() <= 10_000);
        }
        assert!((0..50).all(|slot| owner.read(&cache, slot)));
        assert_eq!(cache.bytes(), 10_000);
        cache.set_bytes_max(1000);
        assert!(cache.bytes() <= 1000);
        cache.clear();
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn what_comes_back_soon_is_kept() {
        let cache = Cache::new(10_000);
        let owner = Owner::new(1000);
        // Twice as much as fits on probation, in turn, beside a full main queue that nobody uses.
        for slot in 500..600 {
            owner.read(&cache, slot);
            owner.read(&cache, slot);
        }
        let hits = (0..40)
            .filter(|round| (0..20).filter(|slot| owner.read(&cache, *slot)).count() == 20 && *round > 0);
        assert!(hits.count() > 30);
    }

    #[test]
    fn dead_owners_leave_nothing_behind() {
        let cache = Cache::new(1 << 20);
        for _ in 0..5000 {
            Owner::new(1).read(&cache, 0);
        }
        assert_eq!(cache.bytes(), 0);
        let queues = cache.inner.queues.lock();
        assert!(queues.small.len() < 1100);
        assert!(queues.small_bytes < 120_000);
    }

    #[test]
    fn pinned_frames_count_and_do_not_hang_the_clock() {
        let cache = Cache::new(500);
        let pinned: Vec<Charge> = (0..10).map(|_| cache.charge(100)).collect();
        let owner = Owner::new(10);
        for slot in 0..10 {
            owner.read(&cache, slot);
        }
        assert_eq!(cache.bytes(), 1000);
        drop(pinned);
        assert!(cache.bytes() <= 500);
    }

    #[test]
    fn many_threads_keep_the_accounts() {
        let cache = Cache::new(20_000);
        let owner = Owner::new(500);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (cache, owner) = (&cache, &owner);
                scope.spawn(move || {
                    for i in 0..5000 {
                        owner.read(cache, (i * 7 + thread * 31) % 500);
                        cache.record_hit();
                    }
                });
            }
        });
        let live = owner.slots.iter().filter(|slot| slot.lock().is_some()).count();
        assert_eq!(cache.bytes(), live * 100);
        // Threads may share a stripe and lose counts.
        assert!((1..=20_000).contains(&cache.statistics().hits));
    }
}
