//! What dies in one tree: freed, or kept for the snapshots that still have it.
//!
//! An extent that leaves the live tree is freed when it was born after the newest snapshot. Otherwise a snapshot reaches
//! it: it stays allocated, and the tree's checkpoint takes it from here into a dead list on disk. Which list that is, and
//! whether the snapshot is still there by then, is for the layer that knows snapshots.

use super::OwnedExtents;
use crate::base::extent::{Extent, total_blocks};
use crate::base::ids::Generation;
use crate::base::planted::{Bug, planted};
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;

/// An extent that a tree refers to no longer, and a snapshot may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Death {
    /// The first checkpoint that contains the extent.
    pub birth: Generation,
    /// The first checkpoint whose tree is without it.
    pub death: Generation,
    /// The checkpoint that lists it.
    pub listed: Generation,
    /// Where it is.
    pub extent: Extent,
}

/// Births and deaths of one tree.
#[derive(Debug, Default)]
pub struct Deaths {
    /// Generation of the newest snapshot that shares extents with the tree; 0 without one.
    newest: AtomicU64,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    kept: Vec<Death>,
    /// Blocks that the tree refers to as of the checkpoint before.
    blocks: u64,
    /// What each generation since then adds.
    changes: BTreeMap<Generation, i64>,
}

impl Deaths {
    /// The newest snapshot, whose extents are kept; 0 without one.
    #[must_use]
    pub fn newest(&self) -> Generation {
        Generation(self.newest.load(Ordering::Acquire))
    }

    /// Sets the newest snapshot: at the capture of the tree that it is made of, or when the one that was is gone.
    pub fn set_newest(&self, newest: Generation) {
        self.newest.store(newest.0, Ordering::Release);
    }

    /// Sets how many blocks the tree refers to, whatever it did before.
    pub fn set_blocks(&self, blocks: u64) {
        let mut books = self.books.lock();
        books.blocks = blocks;
        books.changes.clear();
    }

    /// The tree refers to `space` from `generation` on.
    pub fn born(&self, space: &OwnedExtents, generation: Generation) {
        space.install(generation);
        self.count(generation, total_blocks(space.extents()) as i64);
    }

    /// Counts `blocks` that the tree refers to from `generation` on, or does no longer.
    pub fn count(&self, generation: Generation, blocks: i64) {
        *self.books.lock().changes.entry(generation).or_default() += blocks;
    }

    /// The tree refers to `space` no longer, from `generation` on.
    pub fn died(&self, space: &OwnedExtents, generation: Generation) {
        self.died_in(space, generation, generation, true);
    }

    /// As [`Deaths::died`], for what left the tree in `death` already, whole, and is found now. It is `counted` unless the
    /// blocks of the tree were set since.
    pub fn died_in(&self, space: &OwnedExtents, death: Generation, generation: Generation, counted: bool) {
        let birth = space.birth();
        let blocks = if counted { total_blocks(space.extents()) as i64 } else { 0 };
        let newest = self.newest();
        if birth > newest || (birth == newest && planted(Bug::FreeBornAtSnapshot)) {
            space.kill(generation);
            self.count(generation, -blocks);
            return;
        }
        space.keep_dead(generation);
        let mut books = self.books.lock();
        let death = |extent: &Extent| Death { birth, death, listed: generation, extent: *extent };
        books.kept.extend(space.extents().iter().map(death));
        *books.changes.entry(generation).or_default() -= blocks;
    }

    /// Takes what checkpoint `generation` lists.
    #[must_use]
    pub fn take(&self, generation: Generation) -> Vec<Death> {
        let mut books = self.books.lock();
        let (taken, later) =
            std::mem::take(&mut books.kept).into_iter().partition(|d| d.listed <= generation);
        books.kept = later;
        taken
    }

    /// Puts back what [`Deaths::take`] took and could not be listed.
    pub fn put_back(&self, deaths: Vec<Death>) {
        self.books.lock().kept.extend(deaths);
    }

    /// Whether something waits to be listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.books.lock().kept.is_empty()
    }

    /// How many blocks the tree refers to in checkpoint `generation`, which is stored.
    #[must_use]
    pub fn blocks(&self, generation: Generation) -> u64 {
        let mut books = self.books.lock();
        let later = books.changes.split_off(&generation.next());
        let change: i64 = std::mem::replace(&mut books.changes, later).into_values().sum();
        books.blocks = books.blocks.saturating_add_signed(change);
        books.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::VdevId;
    use crate::base::preference::StoragePreference;
    use crate::dmu::{Dmu, Privilege, Stream};
    use crate::pool::{Pool, TopLevelVdev};
    use crate::vdev::MemoryDevice;
    use std::sync::Arc;

    #[test]
    fn what_a_snapshot_has_is_kept_and_what_it_has_not_is_freed() {
        let device = Arc::new(MemoryDevice::new(64 << 20));
        let vdev = TopLevelVdev::leaf(VdevId(1), 0, 16_384, device);
        let dmu = Dmu::over(Arc::new(Pool::from_vdevs(vec![vdev])), 0);
        let deaths = Deaths::default();
        let space = || {
            let extents = dmu.allocate(Stream::Base, StoragePreference::NONE, 4, Privilege::System).unwrap();
            OwnedExtents::unborn(&dmu, extents)
        };
        let free = || dmu.available_blocks(0, Privilege::System);
        let before = free();
        let (old, young) = (space(), space());
        deaths.born(&old, Generation(1));
        deaths.set_newest(Generation(1));
        deaths.born(&young, Generation(2));
        assert_eq!((deaths.blocks(Generation(1)), deaths.blocks(Generation(2))), (4, 8));
        let extent = old.extents()[0];
        deaths.died(&old, Generation(2));
        deaths.died(&young, Generation(2));
        drop((old, young));
        assert_eq!(before - free(), 4);
        assert!(!deaths.is_empty() && deaths.take(Generation(1)).is_empty());
        let (birth, death) = (Generation(1), Generation(2));
        assert_eq!(deaths.take(Generation(2)), [Death { birth, death, listed: death, extent }]);
        assert_eq!((deaths.is_empty(), deaths.blocks(Generation(2))), (true, 0));
    }
}
