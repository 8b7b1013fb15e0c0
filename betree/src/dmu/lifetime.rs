//! When an extent may be used again: births, deaths, deferral by generation, pins by readers.
//!
//! An extent is *unborn* after allocation, *alive* once a version of a tree refers to it, *dead* when the live tree
//! does so no longer. Births and deaths are events of a generation: the bitmap of generation g is the one before it,
//! plus the births of g, minus the deaths of g. What dies in g is used again only when g+1 is durable, because g−1
//! stays openable until then, and only when nobody in this process holds it: holding is owning an `Arc` of the
//! [`OwnedExtents`]. Something born and dead in one generation was never reached by a checkpoint and is free at once,
//! unless the intent log may name it.

use super::{Dmu, DmuError};
use crate::base::extent::{Extent, total_blocks};
use crate::base::ids::{Generation, VdevId};
use crate::base::planted::{Bug, planted};
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Births and deaths that wait for the checkpoint of their generation, and extents that wait for reuse.
#[derive(Debug, Default)]
pub(super) struct Lifetimes {
    /// The newest durable generation.
    durable: AtomicU64,
    /// The durable generation before it. What died up to then was cleared by a checkpoint to which nothing falls back
    /// any more; what died later may have been cleared by the newest one only, when a checkpoint between failed.
    before: AtomicU64,
    /// Dead blocks that may not be used again yet.
    deferred_blocks: AtomicU64,
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    events: BTreeMap<Generation, Events>,
    deferred: BTreeMap<Generation, Vec<Extent>>,
}

#[derive(Debug, Default)]
struct Events {
    born: Vec<Extent>,
    dead: Vec<Extent>,
}

/// What a checkpoint changes in the bitmaps.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub born: Vec<Extent>,
    pub dead: Vec<Extent>,
}

impl Changes {
    /// What `events` come to, of the extents that are meant.
    fn net<'e>(events: impl Iterator<Item = &'e Events>, is_meant: impl Fn(&Extent) -> bool) -> Self {
        let (mut born, mut dead) = (Vec::new(), Vec::new());
        for event in events {
            born.extend(event.born.iter().filter(|extent| is_meant(extent)));
            dead.extend(event.dead.iter().filter(|extent| is_meant(extent)));
        }
        // Much of it comes in order.
        born.sort();
        dead.sort();
        let (mut born, mut dead) = (born.into_iter().peekable(), dead.into_iter().peekable());
        let mut changes = Self::default();
        while let Some(extent) = born.peek().into_iter().chain(dead.peek()).min().copied() {
            let mut count = 0;
            while born.next_if_eq(&extent).is_some() {
                count += 1;
            }
            while dead.next_if_eq(&extent).is_some() {
                count -= 1;
            }
            match count {
                0 => {}
                1 => changes.born.push(extent),
                -1 => changes.dead.push(extent),
                _ => unreachable!("{extent} was born or died twice in one generation"),
            }
        }
        changes
    }
}

impl Lifetimes {
    pub fn durable(&self) -> Generation {
        Generation(self.durable.load(Ordering::Acquire))
    }

    pub fn deferred_blocks(&self) -> u64 {
        self.deferred_blocks.load(Ordering::Relaxed)
    }

    fn born(&self, generation: Generation, extents: &[Extent]) {
        self.lists.lock().events.entry(generation).or_default().born.extend_from_slice(extents);
    }

    fn died(&self, generation: Generation, extents: &[Extent]) {
        self.lists.lock().events.entry(generation).or_default().dead.extend_from_slice(extents);
    }

    /// Whether extents that died in `death` may be used again now; if not, they are kept until they may.
    fn defer(&self, death: Generation, extents: &[Extent]) -> bool {
        let mut lists = self.lists.lock();
        if self.before.load(Ordering::Acquire) >= death.0 || planted(Bug::ReuseFreedAtOnce) {
            return false;
        }
        self.deferred_blocks.fetch_add(total_blocks(extents), Ordering::Relaxed);
        lists.deferred.entry(death).or_default().extend_from_slice(extents);
        true
    }

    /// The net changes of `generation` (and of generations before it whose checkpoint failed).
    pub fn take_changes(&self, generation: Generation) -> Changes {
        let mut lists = self.lists.lock();
        let later = lists.events.split_off(&generation.next());
        let events = std::mem::replace(&mut lists.events, later);
        drop(lists);
        Changes::net(events.values(), |_| true)
    }

    /// As [`Lifetimes::take_changes`], of the extents of one vdev, without taking them.
    pub fn changes_on(&self, vdev: VdevId, generation: Generation) -> Changes {
        let lists = self.lists.lock();
        let events = lists.events.range(..=generation).map(|(_, events)| events);
        Changes::net(events, |extent| extent.vdev == vdev)
    }
    /// Puts back what [`Lifetimes::take_changes`] took, after a checkpoint that failed before its superblock.
    pub fn restore_changes(&self, generation: Generation, changes: Changes) {
        let mut lists = self.lists.lock();
        let events = lists.events.entry(generation).or_default();
        events.born.extend(changes.born);
        events.dead.extend(changes.dead);
    }

    /// Records that `generation` is durable; returns what may be used again.
    pub fn set_durable(&self, generation: Generation) -> Vec<Extent> {
        let mut lists = self.lists.lock();
        let before = Generation(self.durable.swap(generation.0, Ordering::AcqRel));
        self.before.store(before.0, Ordering::Release);
        let later = lists.deferred.split_off(&before.next());
        let free: Vec<Extent> =
            std::mem::replace(&mut lists.deferred, later).into_values().flatten().collect();
        self.deferred_blocks.fetch_sub(total_blocks(&free), Ordering::Relaxed);
        free
    }
}

/// Extents with one owner: a run, a node header, a large value.
///
/// Dropping the last `Arc` gives the extents back when the rules above allow it; an alive owner that is dropped (the
/// process closes, a clean header leaves memory) keeps them allocated.
#[derive(Debug)]
pub struct OwnedExtents {
    dmu: Dmu,
    extents: Vec<Extent>,
    birth: AtomicU64,
    death: AtomicU64,
    /// Named by log records: never used again within its generation.
    logged: AtomicBool,
    /// No longer in the live tree, and in a snapshot: whoever holds that gives the extents back.
    kept_dead: AtomicBool,
    keeper: Arc<Keeper>,
}

/// What readers of a run or memtable may look at besides it: large values that died when it was consumed, and, in turn,
/// what readers of the runs may look at to which it passed on its other values, because those may die later.
#[derive(Debug, Default)]
pub struct Keeper {
    kept: Mutex<Vec<Arc<OwnedExtents>>>,
    heirs: Mutex<Vec<Arc<Keeper>>>,
}

impl Keeper {
    /// Keeps `extents` from being used again as long as this one is held.
    pub fn keep(&self, extents: Arc<OwnedExtents>) {
        self.kept.lock().push(extents);
    }

    /// Keeps, now and later, what `heir` keeps.
    pub fn follow(&self, heir: Arc<Self>) {
        self.heirs.lock().push(heir);
    }
}

impl Drop for Keeper {
    /// Without recursion: a view that is held for long has a long line of heirs behind it.
    fn drop(&mut self) {
        let mut line = std::mem::take(self.heirs.get_mut());
        while let Some(heir) = line.pop() {
            if let Some(mut heir) = Arc::into_inner(heir) {
                line.append(heir.heirs.get_mut());
            }
        }
    }
}

impl OwnedExtents {
    fn with(dmu: &Dmu, extents: Vec<Extent>, birth: Generation, logged: bool) -> Self {
        Self {
            dmu: dmu.clone(),
            extents,
            birth: AtomicU64::new(birth.0),
            death: AtomicU64::new(0),
            logged: AtomicBool::new(logged),
            kept_dead: AtomicBool::new(false),
            keeper: Arc::default(),
        }
    }

    /// Freshly allocated extents that no version refers to yet.
    #[must_use]
    pub fn unborn(dmu: &Dmu, extents: Vec<Extent>) -> Self {
        Self::with(dmu, extents, Generation(0), false)
    }

    /// Extents that a durable version refers to, born in `birth`.
    #[must_use]
    pub fn from_disk(dmu: &Dmu, extents: Vec<Extent>, birth: Generation) -> Self {
        Self::with(dmu, extents, birth, false)
    }

    /// The extents of a large value, about to be killed; `birth` as its pointer says.
    #[must_use]
    pub fn of_value(dmu: &Dmu, extents: Vec<Extent>, birth: Generation) -> Self {
        Self::with(dmu, extents, birth, true)
    }

    /// Extents that no checkpoint from `death` on has: these know of it.
    #[must_use]
    pub(super) fn dead(dmu: &Dmu, extents: Vec<Extent>, death: Generation) -> Self {
        let owned = Self::with(dmu, extents, death, true);
        owned.death.store(death.0, Ordering::Release);
        owned
    }

    /// The extents.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The generation whose checkpoint is the first to contain them; 0 while unborn.
    #[must_use]
    pub fn birth(&self) -> Generation {
        Generation(self.birth.load(Ordering::Acquire))
    }

    /// A version of `generation` refers to the extents from now on.
    pub fn install(&self, generation: Generation) {
        let before = self.birth.swap(generation.0, Ordering::AcqRel);
        assert_eq!(before, 0, "extents are born once");
        self.dmu.lifetimes().born(generation, &self.extents);
    }

    /// The live tree refers to the extents no longer, from `generation` on.
    pub fn kill(&self, generation: Generation) {
        assert!(self.birth().0 != 0, "only what was born dies");
        let before = self.death.swap(generation.0, Ordering::AcqRel);
        assert_eq!(before, 0, "extents die once");
        self.dmu.lifetimes().died(generation, &self.extents);
    }

    /// As [`OwnedExtents::kill`], but a snapshot has the extents: they stay allocated.
    pub fn keep_dead(&self, generation: Generation) {
        assert!(self.birth().0 != 0, "only what was born dies");
        let before = self.death.swap(generation.0, Ordering::AcqRel);
        assert_eq!(before, 0, "extents die once");
        self.kept_dead.store(true, Ordering::Release);
    }

    /// What readers of the owner may look at besides it.
    #[must_use]
    pub fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }
}

impl Drop for OwnedExtents {
    fn drop(&mut self) {
        let (birth, death) = (*self.birth.get_mut(), *self.death.get_mut());
        let unborn = birth == 0;
        if !unborn && (death == 0 || *self.kept_dead.get_mut()) {
            return;
        }
        let never_reached = birth == death && !*self.logged.get_mut();
        if (unborn || never_reached) && planted(Bug::LeakAborted) {
            return;
        }
        if unborn {
            return self.dmu.release_unborn(&self.extents);
        }
        if !never_reached && self.dmu.lifetimes().defer(Generation(death), &self.extents) {
            return;
        }
        self.dmu.release(&self.extents);
    }
}

impl Dmu {
    /// Records the birth of a large value in `generation`; under the commit lock, with its sequence number.
    pub fn value_born(&self, extents: &[Extent], generation: Generation) {
        self.lifetimes().born(generation, extents);
    }

    /// The newest durable generation.
    #[must_use]
    pub fn durable_generation(&self) -> Generation {
        self.lifetimes().durable()
    }

    /// Blocks that are dead but may not be used again before the next checkpoints: how many of them hold data in long extents.
    #[must_use]
    pub fn deferred_blocks(&self) -> u64 {
        self.allocator().data_share(self.lifetimes().deferred_blocks())
    }

    /// Writes the bitmaps and the allocation table of `generation` and returns the bytes of the table root. Nothing is
    /// flushed.
    ///
    /// # Errors
    /// Device errors and allocation errors; the changes are then kept for the next generation.
    pub fn write_bitmaps(&self, generation: Generation) -> Result<Vec<u8>, DmuError> {
        let changes = self.lifetimes().take_changes(generation);
        if self.has_departures() {
            return self.write_bitmaps_and_maps(generation, changes);
        }
        match self.allocator().commit(generation, &changes.born, &changes.dead) {
            Ok(root) => Ok(root),
            Err(error) => {
                self.lifetimes().restore_changes(generation, changes);
                Err(error)
            }
        }
    }

    /// Takes back [`Dmu::write_bitmaps`] of a checkpoint whose superblock was not written: the changes are kept for the
    /// next generation.
    pub fn abort_bitmaps(&self, generation: Generation) {
        if self.abort_maps(generation) {
            return;
        }
        if let Some((born, dead)) = self.allocator().aborted() {
            self.lifetimes().restore_changes(generation, Changes { born, dead });
        }
    }

    /// Records that the superblock of `generation` is durable, and frees what it allows to be used again.
    pub fn set_durable(&self, generation: Generation) {
        self.allocator().committed(generation);
        let free = self.lifetimes().set_durable(generation);
        self.take_over_maps(generation);
        self.release(&free);
    }

    /// The longest that the table root of `generation` may be, in bytes.
    #[must_use]
    pub fn table_root_bytes_max(&self, generation: Generation) -> usize {
        self.allocator().table_root_bytes_with(self.leaving(generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::VdevId;
    use crate::base::preference::StoragePreference;
    use crate::base::units::BLOCK_BYTES;
    use crate::dmu::{Privilege, Stream};
    use crate::pool::{Pool, TopLevelVdev};
    use crate::vdev::MemoryDevice;

    /// A checkpoint that runs out of space before its bitmaps leaves its deaths to the next one.
    #[test]
    fn deaths_of_a_failed_checkpoint_wait_for_the_one_after_the_next() {
        let device = Arc::new(MemoryDevice::new(64 << 20));
        let vdev = TopLevelVdev::leaf(VdevId(1), 0, 16_384, device);
        let dmu = Dmu::over(Arc::new(Pool::from_vdevs(vec![vdev])), 0);
        let take = || dmu.allocate(Stream::Base, StoragePreference::NONE, 4, Privilege::System).unwrap();
        let checkpoint = |generation| {
            dmu.write_bitmaps(Generation(generation)).unwrap();
            dmu.set_durable(Generation(generation));
        };
        for later_drop in [false, true] {
            let first = dmu.durable_generation().0 + 1;
            let dying = OwnedExtents::unborn(&dmu, take());
            dying.install(Generation(first));
            checkpoint(first);
            dying.kill(Generation(first + 1));
            let mut dying = Some(dying);
            if !later_drop {
                dying = None;
            }
            checkpoint(first + 2);
            drop(dying);
            assert_eq!(dmu.deferred_blocks(), 4);
            dmu.write(&take(), 0, &[0; BLOCK_BYTES]).unwrap();
            checkpoint(first + 3);
            assert_eq!(dmu.deferred_blocks(), 0);
            dmu.write(&take(), 0, &[0; BLOCK_BYTES]).unwrap();
        }
    }
}
