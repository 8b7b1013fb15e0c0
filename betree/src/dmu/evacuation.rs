//! Evacuation: what a vdev holds is copied to others, so that it can leave.
//!
//! ```text
//!   closed     nothing more is allocated on it; readers go on reading from it
//!   copying    extent after extent: read, verified, written to others; nothing durable changes
//!   switch     one checkpoint: copies are born, the map has the extents, the bitmaps of the vdev are gone
//! ```
//!
//! The layer above visits what is reached and says when to switch. Whether everything is copied, the bitmaps say: a switch
//! does not happen as long as a block of the vdev is taken that belongs to no extent that was copied.

use super::format::chunk_entry_bytes;
use super::lifetime::Changes;
use super::moved::{CHUNK_BLOCKS, Line};
use super::queue::PendingJob;
use super::scrubbing::Judgement;
use super::sequence::geometry_of;
use super::{Damage, Dmu, DmuError, Privilege, ScrubOutcome, ScrubTask, Stream};
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::ids::{Generation, VdevId};
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64, blocks_for};
use crate::pool::{Pool, PoolError};
use std::collections::BTreeMap;
use std::ops::Range;

/// A vdev that is to leave.
#[derive(Debug)]
pub(super) struct Evacuation {
    vdev: VdevId,
    /// By the extent as pointers name it.
    copies: BTreeMap<Extent, Copied>,
    /// Bytes that these take in the map.
    map_bytes: u64,
    /// Whether the next checkpoint switches, if it can.
    wants_switch: bool,
    /// The checkpoint that does.
    ready: Option<Generation>,
    /// Blocks that the last one that was to switch would have lost.
    left: Option<u64>,
}

/// An extent that was copied.
#[derive(Debug, Clone)]
struct Copied {
    /// Put together they hold what it holds.
    places: Vec<Extent>,
    /// Those of them that were allocated for it.
    fresh: Vec<Extent>,
}

/// A vdev leaves with a checkpoint.
#[derive(Debug)]
pub(super) struct Switch {
    pub vdev: VdevId,
    /// Where its extents are.
    pub lines: BTreeMap<u64, Line>,
    /// Extents of vdevs that left before, of which something was on it: their places from now on.
    pub changed: BTreeMap<Extent, Vec<Extent>>,
    /// What the checkpoint has for the first time.
    pub born: Vec<Extent>,
    /// Copies of what is not reached any more.
    pub unused: Vec<Extent>,
}

impl Evacuation {
    pub fn vdev(&self) -> VdevId {
        self.vdev
    }

    /// The most blocks of data that the map of what was copied takes.
    pub fn map_blocks(&self, pool: &Pool) -> u64 {
        if self.copies.is_empty() {
            return 0;
        }
        // Chunks end in blocks of their own, and have an entry in the directory.
        let chunks = pool.vdev(self.vdev).map_or(0, |vdev| vdev.blocks.div_ceil(CHUNK_BLOCKS));
        blocks_for(self.map_bytes) + 2 * chunks
    }
}

/// The data blocks of an extent that are to be copied, and where the others are.
struct Errand {
    /// Its places as they are now; `None` for those that are to be found, with the data blocks of the extent that they hold.
    places: Vec<(Option<Extent>, Range<u64>)>,
}

impl Dmu {
    /// Nothing more is allocated on `vdev`. What its data take must be free elsewhere.
    ///
    /// # Errors
    /// [`PoolError::NotRemovable`], [`PoolError::UnknownVdev`]; [`DmuError::OutOfSpace`]: nothing has changed then.
    pub fn close_vdev(&self, vdev: VdevId) -> Result<(), DmuError> {
        self.pool().check_removable(vdev)?;
        if self.has_left(vdev) {
            return Err(PoolError::UnknownVdev(vdev).into());
        }
        {
            let mut evacuation = self.evacuation().lock();
            if let Some(other) = &*evacuation {
                let vdev = other.vdev;
                return Err(DmuError::Geometry { vdev, reason: "it is being evacuated" });
            }
            let (copies, map_bytes) = (BTreeMap::new(), 0);
            *evacuation =
                Some(Evacuation { vdev, copies, map_bytes, wants_switch: false, ready: None, left: None });
        }
        let (used, tier) = (self.used_blocks(vdev), self.pool().vdev(vdev)?.tier);
        let closed = self.allocator().set_closed(vdev, true).and_then(|()| {
            self.place_anew();
            let free: u64 = self
                .tiers_from(tier)
                .iter()
                .map(|tier| self.allocator().available(*tier, Privilege::User))
                .sum();
            match used > free {
                true => Err(DmuError::OutOfSpace { tier, wanted: used, free }),
                false => Ok(()),
            }
        });
        if closed.is_err() {
            self.open_vdev(vdev);
        }
        closed
    }

    /// Blocks that the last checkpoint has on `vdev`, in long extents.
    #[must_use]
    pub fn used_blocks(&self, vdev: VdevId) -> u64 {
        let spaces = self.allocator().vdev_space();
        spaces.into_iter().find(|space| space.id == vdev).map_or(0, |space| space.used)
    }

    /// The vdev that is to leave stays: its copies are given back, and it takes new extents again. Not once it left. Not while a
    /// checkpoint is being written, which may have the copies.
    pub fn open_vdev(&self, vdev: VdevId) {
        let evacuation = {
            let mut evacuation = self.evacuation().lock();
            evacuation.take_if(|evacuation| evacuation.vdev == vdev)
        };
        let Some(evacuation) = evacuation else { return };
        if let Err(error) = self.allocator().set_closed(vdev, false) {
            log::error!("vdev {vdev} stays closed: {error}");
        }
        self.place_anew();
        evacuation.copies.values().for_each(|copied| self.release(&copied.fresh));
    }

    /// Whether `vdev` bears more failures than one of those that get what is on it.
    #[must_use]
    pub fn is_weaker_without(&self, vdev: VdevId) -> bool {
        let redundancy = self.pool().vdev(vdev).map_or(0, |vdev| vdev.redundancy());
        let mut others = self.pool().present().filter(|other| other.id != vdev && !other.is_volatile());
        others.any(|other| other.redundancy() < redundancy)
    }

    /// Starts to copy what `task` names of what is on the vdev that is to leave, in the background. The caller holds the
    /// extents until it is done.
    #[must_use]
    pub fn evacuate_in_background(&self, task: ScrubTask) -> PendingJob<ScrubOutcome> {
        let dmu = self.clone();
        PendingJob::start(self.scrubs(), 0, move || dmu.evacuate(&task))
    }

    /// Copies what `task` names of what is on the vdev that is to leave. What is right nowhere is in the outcome, and not copied.
    ///
    /// # Errors
    /// [`DmuError::OutOfSpace`]; device errors of those who get the copies.
    pub fn evacuate(&self, task: &ScrubTask) -> Result<ScrubOutcome, DmuError> {
        if task.is_partial {
            return self.scrub(task, None);
        }
        let mut outcome = ScrubOutcome::default();
        let mut is_mended = false;
        let mut start = 0;
        for extent in &task.extents {
            let end = start + self.data_blocks(&[*extent]) * BLOCK_BYTES_U64;
            let bytes = start..end;
            start = end;
            let Some(errand) = self.errand(extent) else { continue };
            let mut read = self.read_verified(task, extent, &bytes)?;
            if read.is_err() && !is_mended {
                // Unit by unit more can be found than for all of an extent at once.
                let mended = self.scrub(task, None)?;
                outcome.repaired += mended.repaired;
                outcome.unrepaired += mended.unrepaired;
                is_mended = true;
                read = self.read_verified(task, extent, &bytes)?;
            }
            match read {
                Ok(bytes) => {
                    outcome.units += 1;
                    outcome.filled += self.copy(extent, &errand, &bytes)?;
                }
                Err(unit) => {
                    let (device, block) = self.named_block_at(&[*extent], 0);
                    outcome.damage.push(Damage { unit, vdev: extent.vdev, device, block });
                }
            }
        }
        Ok(outcome)
    }

    /// What is to be copied of `extent`; `None` when nothing is.
    fn errand(&self, extent: &Extent) -> Option<Errand> {
        let evacuation = self.evacuation().lock();
        let evacuation = evacuation.as_ref()?;
        let vdev = evacuation.vdev;
        if evacuation.copies.contains_key(extent) {
            return None;
        }
        let blocks = geometry_of(self.pool(), extent.vdev).capacity(u64::from(extent.blocks));
        if extent.vdev == vdev {
            return Some(Errand { places: vec![(None, 0..blocks)] });
        }
        let places = self.places_of_moved(extent)?;
        let mut at = 0;
        let mut errand = Errand { places: Vec::with_capacity(places.len()) };
        for place in &places {
            let end = (at + self.data_blocks(&[*place])).min(blocks);
            errand.places.push(((place.vdev != vdev).then_some(*place), at..end));
            at = end;
        }
        places.iter().any(|place| place.vdev == vdev).then_some(errand)
    }

    /// Reads all data of `extent`, which are the bytes `range` of those of `task`, when everything that `task` knows of them is
    /// right; else the first unit that is not.
    fn read_verified(
        &self,
        task: &ScrubTask,
        extent: &Extent,
        range: &Range<u64>,
    ) -> Result<Result<AlignedBuffer, usize>, DmuError> {
        let mut units = Vec::new();
        for (index, unit) in task.units.iter().enumerate() {
            let end = unit.offset.saturating_add(unit.length);
            if end <= range.start || range.end <= unit.offset {
                continue;
            }
            let own = unit.offset.max(range.start)..end.min(range.end);
            let local = (own.start - range.start) as usize..(own.end - range.start) as usize;
            if own == (unit.offset..end) {
                units.push((index, local, Judgement::Checksum(unit.checksum)));
                continue;
            }
            // It lies in several extents. What is read of this one may come from another member than what was right as a whole.
            let Some(whole) = self.whole_unit(&task.extents, unit)? else { return Ok(Err(index)) };
            let part = (own.start - unit.offset) as usize..(own.end - unit.offset) as usize;
            units.push((index, local, Judgement::Bytes(whole[part].to_vec())));
        }
        let mut wrong = units.first().map_or(0, |(index, ..)| *index);
        let mut is_right = |bytes: &[u8]| {
            let found = units.iter().find(|(_, local, judgement)| !judgement.is_right(&bytes[local.clone()]));
            wrong = found.map_or(wrong, |(index, ..)| *index);
            found.is_none()
        };
        let length = (range.end - range.start) as usize;
        // What is wrong there needs no mending: it leaves.
        match self.read_checked(&[*extent], 0, length, 0..0, &mut is_right) {
            Ok((bytes, true)) => Ok(Ok(bytes)),
            Ok((_, false)) => Ok(Err(wrong)),
            Err(DmuError::Pool(PoolError::Vdev(error))) => {
                log::warn!("{extent}: {error}");
                Ok(Err(wrong))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes `bytes`, the data of `extent`, to other vdevs, as far as `errand` says. How many blocks.
    fn copy(&self, extent: &Extent, errand: &Errand, bytes: &[u8]) -> Result<u64, DmuError> {
        let tier = self.pool().vdev(self.evacuating()?)?.tier;
        let tiers = self.tiers_from(tier);
        let (mut copied, mut blocks) = (Copied { places: Vec::new(), fresh: Vec::new() }, 0);
        let mut write = || -> Result<(), DmuError> {
            for (index, (place, range)) in errand.places.iter().enumerate() {
                if let Some(place) = place {
                    copied.places.push(*place);
                    continue;
                }
                let is_last = index + 1 == errand.places.len();
                let mut from = range.start;
                while from < range.end {
                    let (fresh, count) = self.place_of_copy(&tiers, range.end - from, is_last)?;
                    copied.places.extend_from_slice(&fresh);
                    copied.fresh.extend_from_slice(&fresh);
                    let at = |block: u64| block as usize * BLOCK_BYTES;
                    self.write(&fresh, 0, &bytes[at(from)..at(from + count)])?;
                    from += count;
                    blocks += count;
                }
            }
            Ok(())
        };
        let written = write();
        let unused = {
            let mut evacuation = self.evacuation().lock();
            match evacuation.as_mut() {
                Some(evacuation) if written.is_ok() && !evacuation.copies.contains_key(extent) => {
                    evacuation.map_bytes += chunk_entry_bytes(copied.places.len());
                    evacuation.copies.insert(*extent, copied);
                    Vec::new()
                }
                // It was given up meanwhile, or somebody else was faster.
                _ => copied.fresh,
            }
        };
        self.release(&unused);
        written.map(|()| blocks)
    }

    /// Extents for `blocks` data blocks of a copy, or for the first of them, and how many. What is read goes from one place to the
    /// next by what each can hold: only the last place of all may hold more than is written to it, as on parity many lengths do.
    fn place_of_copy(
        &self,
        tiers: &[u8],
        blocks: u64,
        is_last: bool,
    ) -> Result<(Vec<Extent>, u64), DmuError> {
        let mut count = blocks;
        loop {
            let fresh = self.allocator().allocate(Stream::Base, tiers, count as u32, Privilege::User)?;
            // A block alone is exact everywhere.
            if is_last || count == 1 || self.data_blocks(&fresh) == count {
                return Ok((fresh, count));
            }
            self.release(&fresh);
            count -= 1;
        }
    }

    /// The vdev that is to leave.
    fn evacuating(&self) -> Result<VdevId, DmuError> {
        let evacuation = self.evacuation().lock();
        evacuation.as_ref().map(Evacuation::vdev).ok_or_else(|| PoolError::Closed.into())
    }

    /// The next checkpoint switches, when everything was copied.
    pub fn want_switch(&self) {
        if let Some(evacuation) = self.evacuation().lock().as_mut() {
            evacuation.wants_switch = true;
        }
    }

    /// Blocks that the last checkpoint that was to switch would have lost, so that it did not.
    #[must_use]
    pub fn left_on_vdev(&self) -> Option<u64> {
        self.evacuation().lock().as_ref().and_then(|evacuation| evacuation.left)
    }

    /// Decides whether the vdev that is to leave does so with checkpoint `generation`, of which everything is known but the
    /// allocation table. It stays when its bitmaps cannot be read.
    pub fn prepare_departure(&self, generation: Generation) {
        let mut evacuation = self.evacuation().lock();
        let Some(evacuation) = evacuation.as_mut() else { return };
        if !std::mem::take(&mut evacuation.wants_switch) {
            return;
        }
        let left = self.count_left(evacuation, generation).unwrap_or_else(|error| {
            log::warn!("vdev {} does not leave: {error}", evacuation.vdev);
            u64::MAX
        });
        evacuation.left = Some(left);
        evacuation.ready = (left == 0).then_some(generation);
    }

    fn count_left(&self, evacuation: &Evacuation, generation: Generation) -> Result<u64, DmuError> {
        let vdev = evacuation.vdev;
        let Changes { born, dead } = self.lifetimes().changes_on(vdev, generation);
        let mut covered: Vec<Range<u64>> = dead.iter().map(range_of).collect();
        for extent in evacuation.copies.keys() {
            match extent.vdev == vdev {
                true => covered.push(range_of(extent)),
                false => {
                    let places = self.places_of_moved(extent).unwrap_or_default();
                    covered.extend(places.iter().filter(|place| place.vdev == vdev).map(range_of));
                }
            }
        }
        // Maps are written anew elsewhere.
        covered.extend(self.map_extents().iter().filter(|extent| extent.vdev == vdev).map(range_of));
        covered.sort_unstable_by_key(|range| range.start);
        let mut left = 0;
        let mut count = |extent: &Extent| left += uncovered(&range_of(extent), &covered);
        self.for_each_allocated(vdev, |extent| count(&extent))?;
        born.iter().for_each(&mut count);
        Ok(left)
    }

    /// The vdev that leaves with checkpoint `generation`.
    pub(super) fn leaving(&self, generation: Generation) -> Option<VdevId> {
        let evacuation = self.evacuation().lock();
        let evacuation = evacuation.as_ref().filter(|evacuation| evacuation.ready == Some(generation));
        evacuation.map(Evacuation::vdev)
    }

    /// What a vdev leaves with in checkpoint `generation`, which changes `original`; `dead` are extents of vdevs that left before.
    pub(super) fn switch(
        &self,
        generation: Generation,
        original: &Changes,
        dead: &[Extent],
    ) -> Result<Option<Switch>, DmuError> {
        let evacuation = self.evacuation().lock();
        let Some(evacuation) = evacuation.as_ref().filter(|one| one.ready == Some(generation)) else {
            return Ok(None);
        };
        let vdev = evacuation.vdev;
        let (lines, changed) = (BTreeMap::new(), BTreeMap::new());
        let mut switch = Switch { vdev, lines, changed, born: Vec::new(), unused: Vec::new() };
        for (extent, copied) in &evacuation.copies {
            let is_here = extent.vdev == vdev;
            let dies = |dead: &[Extent]| dead.binary_search(extent).is_ok();
            let lives = match is_here {
                true => !dies(&original.dead) && self.allocator().is_persistent(*extent)?,
                false => !dies(dead) && self.is_moved_and_alive(extent),
            };
            if !lives {
                switch.unused.extend_from_slice(&copied.fresh);
                continue;
            }
            switch.born.extend_from_slice(&copied.fresh);
            let places = copied.places.clone();
            if is_here {
                switch.lines.insert(extent.block, Line { blocks: extent.blocks, places, is_dead: false });
            } else {
                switch.changed.insert(*extent, places);
            }
        }
        Ok(Some(switch))
    }

    /// The vdev of `generation` left: there is nothing more to do with it.
    pub(super) fn end_evacuation(&self, vdev: VdevId) {
        self.evacuation().lock().take_if(|evacuation| evacuation.vdev == vdev);
    }
}

fn range_of(extent: &Extent) -> Range<u64> {
    extent.block..extent.end()
}

/// How many of `blocks` are in none of `covered`, which are in order.
fn uncovered(blocks: &Range<u64>, covered: &[Range<u64>]) -> u64 {
    let first = covered.partition_point(|range| range.end <= blocks.start);
    let (mut at, mut left) = (blocks.start, 0);
    for range in covered[first..].iter().take_while(|range| range.start < blocks.end) {
        left += range.start.saturating_sub(at);
        at = at.max(range.end);
    }
    left + blocks.end.saturating_sub(at)
}

#[cfg(test)]
mod tests;
