//! Writing the allocation state of a checkpoint.
//!
//! Order: bits in memory, then bitmap slots, then table pages, all into slots that no openable checkpoint refers to; the
//! caller writes the root, flushes, and writes the superblock. Until it says [`Allocator::committed`], everything can be
//! taken back, and a crash finds the checkpoint before with all that it needs.

use super::DmuError;
use super::allocator::Allocator;
use super::format::{Entry, INDIRECT_BYTES, IndirectVdev, Root, SlotRef};
use crate::base::extent::Extent;
use crate::base::ids::{Generation, VdevId};
use crate::base::sync::atomic::Ordering;
use std::collections::BTreeMap;

/// The last durable checkpoint, and the one being written.
#[derive(Debug)]
pub(super) struct Commit {
    durable: Generation,
    pending: Option<Pending>,
}

impl Commit {
    pub(super) fn new(durable: Generation) -> Self {
        Self { durable, pending: None }
    }
}

/// A checkpoint that is not durable yet.
#[derive(Debug)]
struct Pending {
    generation: Generation,
    set: Vec<Extent>,
    clear: Vec<Extent>,
    /// Per vdev: changed segments with their new entries.
    entries: Vec<BTreeMap<u32, Entry>>,
    /// Per vdev: changed pages.
    pages: Vec<Vec<(u32, SlotRef)>>,
    departures: Departures,
}

/// What a checkpoint says of vdevs that left.
#[derive(Debug, Clone, Default)]
pub(super) struct Departures {
    /// Those that left, ascending by id.
    pub indirect: Vec<IndirectVdev>,
    /// The one among them that leaves with this checkpoint.
    pub leaving: Option<VdevId>,
}

impl Allocator {
    /// The last durable checkpoint.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.commit.lock().durable
    }

    /// Length of the next table root in bytes; it does not depend on what is allocated.
    #[must_use]
    pub fn table_root_bytes_max(&self) -> usize {
        self.table_root_bytes_with(None)
    }

    /// The same, of a checkpoint with which `leaving` leaves.
    pub(super) fn table_root_bytes_with(&self, leaving: Option<VdevId>) -> usize {
        let no_pages = vec![Vec::new(); self.vdevs.len()];
        let indirect = self.indirect.lock().clone();
        let departures = Departures { indirect, leaving };
        let more = if leaving.is_some() { INDIRECT_BYTES } else { 0 };
        self.root(Generation(1), Generation(0), &no_pages, &departures).encoded_bytes() + more
    }

    /// Whether `vdev` left, or does with the checkpoint of `departures`.
    fn is_gone(&self, vdev: usize, departures: &Departures) -> bool {
        let leaves = || Some(self.with(vdev, |segments| segments.id())) == departures.leaving;
        self.vdevs[vdev].has_left.load(Ordering::Acquire) || (departures.leaving.is_some() && leaves())
    }

    fn root(
        &self,
        generation: Generation,
        parent: Generation,
        pages: &[Vec<(u32, SlotRef)>],
        departures: &Departures,
    ) -> Root {
        let vdevs = (0..self.vdevs.len())
            .filter(|vdev| !self.is_gone(*vdev, departures))
            .map(|vdev| self.with(vdev, |segments| segments.root_vdev(&pages[vdev])))
            .collect();
        Root { pool: self.uuid, generation, parent, vdevs, indirect: departures.indirect.clone() }
    }

    /// Writes the allocation state of checkpoint `generation`: that of the last one with the bits of `set` set and those of
    /// `clear` cleared. Returns the bytes of the table root, which the caller writes before it flushes all devices and
    /// writes the superblock. [`Allocator::committed`] or [`Allocator::aborted`] must follow.
    ///
    /// Extents in `set` are allocated and new to the checkpoint; those in `clear` are in the last one. Cleared blocks stay
    /// taken until the caller releases them, which it may when the checkpoint *after* `generation` is durable.
    ///
    /// Blocks may be allocated and released meanwhile.
    ///
    /// # Errors
    /// [`DmuError::Allocation`] names the first extent that is not as it should be. Device errors; [`DmuError::Corrupt`].
    /// Everything is as before then, and neither of the two calls must follow.
    ///
    /// # Panics
    /// When a checkpoint is already being written, or `generation` is not above the last one.
    pub fn commit(
        &self,
        generation: Generation,
        set: &[Extent],
        clear: &[Extent],
    ) -> Result<Vec<u8>, DmuError> {
        let indirect = self.indirect.lock().clone();
        self.commit_with(generation, set, clear, Departures { indirect, leaving: None })
    }

    /// As [`Allocator::commit`], of a checkpoint that says this of vdevs that left.
    pub(super) fn commit_with(
        &self,
        generation: Generation,
        set: &[Extent],
        clear: &[Extent],
        departures: Departures,
    ) -> Result<Vec<u8>, DmuError> {
        let mut commit = self.commit.lock();
        assert!(commit.pending.is_none(), "one checkpoint is written at a time");
        assert!(generation > commit.durable, "generations grow");
        let mut pending = Pending {
            generation,
            set: Vec::with_capacity(set.len()),
            clear: Vec::with_capacity(clear.len()),
            entries: vec![BTreeMap::new(); self.vdevs.len()],
            pages: vec![Vec::new(); self.vdevs.len()],
            departures,
        };
        match self.write(&mut pending, commit.durable, set, clear) {
            Ok(root) => {
                commit.pending = Some(pending);
                Ok(root)
            }
            Err(error) => {
                self.undo(&pending);
                Err(error)
            }
        }
    }

    fn write(
        &self,
        pending: &mut Pending,
        durable: Generation,
        set: &[Extent],
        clear: &[Extent],
    ) -> Result<Vec<u8>, DmuError> {
        let mut changed: Vec<std::collections::BTreeSet<u32>> = (0..self.vdevs.len())
            .map(|vdev| self.with(vdev, |segments| segments.outdated().collect()))
            .collect();
        // In this order an extent that is in both lists is an error.
        for extent in clear {
            let vdev = self.vdev_of(extent)?;
            changed[vdev].insert(self.with(vdev, |segments| segments.clear_persistent(extent))?);
            pending.clear.push(*extent);
        }
        for extent in set {
            let vdev = self.vdev_of(extent)?;
            changed[vdev].insert(self.with(vdev, |segments| segments.set_persistent(extent))?);
            pending.set.push(*extent);
        }
        let generation = pending.generation;
        for (vdev, numbers) in changed.into_iter().enumerate() {
            // Of a vdev that left, the next checkpoint says nothing.
            if self.is_gone(vdev, &pending.departures) {
                continue;
            }
            for number in numbers {
                // The device is written without the lock: requests go on meanwhile.
                let ((place, bytes), entry) =
                    self.with(vdev, |segments| segments.segment_image(number, generation))?;
                self.pool.write(&place, 0, &bytes)?;
                pending.entries[vdev].insert(number, entry);
            }
            let images = self.with(vdev, |segments| segments.page_images(&pending.entries[vdev], generation));
            for (page, (place, bytes), reference) in images {
                self.pool.write(&place, 0, &bytes)?;
                pending.pages[vdev].push((page, reference));
            }
        }
        Ok(self.root(generation, durable, &pending.pages, &pending.departures).encode())
    }

    /// Whether a write to `extent` changes a checkpoint that the pool may be opened at. Looked at before every write in
    /// builds with assertions; all but the checkpoint's own table root are written before they are born.
    pub(super) fn is_reached(&self, extent: &Extent) -> Result<bool, DmuError> {
        let vdev = self.vdev_of(extent)?;
        if !self.with(vdev, |segments| segments.is_reached(extent)) {
            return Ok(false);
        }
        let commit = self.commit.lock();
        let newborn = |pending: &Pending| pending.set.iter().any(|born| born.overlaps(extent));
        Ok(!commit.pending.as_ref().is_some_and(newborn))
    }

    fn undo(&self, pending: &Pending) {
        for extent in &pending.set {
            if let Ok(vdev) = self.vdev_of(extent) {
                self.with(vdev, |segments| segments.undo_set(extent));
            }
        }
        for extent in &pending.clear {
            if let Ok(vdev) = self.vdev_of(extent) {
                self.with(vdev, |segments| segments.undo_clear(extent));
            }
        }
    }

    /// The checkpoint that [`Allocator::commit`] wrote is durable.
    ///
    /// # Panics
    /// When no checkpoint of this generation is being written.
    pub fn committed(&self, generation: Generation) {
        let mut commit = self.commit.lock();
        let pending = commit.pending.take();
        assert!(
            pending.as_ref().is_some_and(|pending| pending.generation == generation),
            "the checkpoint was written"
        );
        if let Some(pending) = pending {
            for vdev in 0..self.vdevs.len() {
                if self.is_gone(vdev, &pending.departures) {
                    self.vdevs[vdev].has_left.store(true, Ordering::Release);
                }
                let (entries, pages) = (&pending.entries[vdev], &pending.pages[vdev]);
                self.with(vdev, |segments| segments.committed(generation, entries, pages));
            }
            *self.indirect.lock() = pending.departures.indirect;
        }
        commit.durable = generation;
    }

    /// The checkpoint that [`Allocator::commit`] wrote will not become durable: it is forgotten. Returns what it would
    /// have set and cleared; nothing when there is none.
    pub fn aborted(&self) -> Option<(Vec<Extent>, Vec<Extent>)> {
        let pending = self.commit.lock().pending.take()?;
        self.undo(&pending);
        Some((pending.set, pending.clear))
    }
}
