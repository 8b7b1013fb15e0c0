//! Scrubbing: every copy of what extents hold is looked at, window by window.
//!
//! ```text
//!   extent    ├──────────── window ───────────┤
//!   units     │ unit │ unit │ unit │ un┊it │ unit …      the unit that does not end in the window begins the next one
//!                                  ├──────────── window ─ …
//! ```
//!
//! A window is read once for each copy; its units are judged by their checksums. Windows follow each other so that each unit
//! lies wholly in one of them. On a striped vdev they are made of whole stripes, and the parity of a stripe is compared when
//! the last unit that it has a part of is known to be right.

use super::allocator::Allocator;
use super::format::{decode_page, decode_slot, stored_checksum};
use super::queue::PendingJob;
use super::{Dmu, DmuError, StoredExtents};
use crate::base::buffer::AlignedBuffer;
use crate::base::checksum::crc;
use crate::base::extent::{Extent, total_blocks};
use crate::base::ids::VdevId;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::pool::{Geometry, Judge, Pool, PoolError, Purpose, STRIPE_BLOCKS, Scrubbed, Window};
use std::ops::Range;

#[cfg(test)]
mod tests;

/// Data blocks of a window, as a rule: 1 MiB, so that a request is a long one.
const WINDOW_BLOCKS: u64 = 256;

/// Bytes with a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksummed {
    /// First byte, in the concatenation of the extents.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Their crc32c.
    pub checksum: u32,
}

/// Extents, and how to tell what they hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubTask {
    /// The extents.
    pub extents: Vec<Extent>,
    /// Ascending, apart.
    pub units: Vec<Checksummed>,
    /// Only these units are looked at: the extents have others, which are not known yet.
    pub is_partial: bool,
}

/// A member of a vdev that is to be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The vdev.
    pub vdev: VdevId,
    /// Its number in the vdev.
    pub member: usize,
}

/// What is right nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Which of the units of the task.
    pub unit: usize,
    /// The vdev.
    pub vdev: VdevId,
    /// The devices of the vdev.
    pub device: String,
    /// The block of the extent, in blocks of the vdev, at which the extent starts.
    pub block: u64,
}

/// What scrubbing a task came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubOutcome {
    /// What is right nowhere.
    pub damage: Vec<Damage>,
    /// Units that were judged.
    pub units: u64,
    /// Blocks that were wrong on one member and are right again.
    pub repaired: u64,
    /// Blocks that are wrong on one member and could not be written.
    pub unrepaired: u64,
    /// Blocks that the member to be filled got.
    pub filled: u64,
}

impl ScrubOutcome {
    fn add(&mut self, scrubbed: &Scrubbed) {
        self.repaired += scrubbed.repaired;
        self.unrepaired += scrubbed.unrepaired;
        self.filled += scrubbed.filled;
    }
}

/// How a part of an extent is judged.
pub(super) enum Judgement {
    Checksum(u32),
    /// A unit that lies in several extents and is known to be this here.
    Bytes(Vec<u8>),
}

impl Judgement {
    /// Whether `bytes` are what they must be.
    pub fn is_right(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Checksum(checksum) => crc(bytes) == *checksum,
            Self::Bytes(right) => bytes == right,
        }
    }
}

/// A unit, or what of it is in one extent.
struct Part {
    /// Bytes of the extent's data.
    range: Range<u64>,
    unit: usize,
    judgement: Judgement,
}

/// Judges the units of a window by what their parts say.
struct UnitJudge<'a> {
    dmu: &'a Dmu,
    extent: &'a Extent,
    /// First byte of the window in the extent's data.
    start: u64,
    parts: &'a [Part],
    /// Where the parts are in the window.
    units: &'a [Range<usize>],
}

impl Judge for UnitJudge<'_> {
    fn is_right(&mut self, unit: usize, bytes: &[u8]) -> bool {
        self.parts[unit].judgement.is_right(bytes)
    }

    fn find(&mut self, unit: usize, out: &mut [u8]) -> bool {
        match &self.parts[unit].judgement {
            Judgement::Bytes(right) => {
                out.copy_from_slice(right);
                true
            }
            Judgement::Checksum(checksum) => {
                let range =
                    self.start + self.units[unit].start as u64..self.start + self.units[unit].end as u64;
                self.dmu.find(self.extent, range, out, &mut |bytes| crc(bytes) == *checksum)
            }
        }
    }
}

/// Judges what has a fixed place, and its checksum in itself.
struct FixedJudge<'a> {
    dmu: &'a Dmu,
    extent: &'a Extent,
    is_right: &'a dyn Fn(&[u8]) -> bool,
}

impl Judge for FixedJudge<'_> {
    fn is_right(&mut self, _unit: usize, bytes: &[u8]) -> bool {
        (self.is_right)(bytes)
    }

    fn find(&mut self, _unit: usize, out: &mut [u8]) -> bool {
        let range = 0..out.len() as u64;
        self.dmu.find(self.extent, range, out, &mut |bytes| (self.is_right)(bytes))
    }
}

impl ScrubTask {
    /// Extents that one checksum covers up to byte `length`.
    #[must_use]
    pub fn of(extents: Vec<Extent>, length: u64, checksum: u32) -> Self {
        Self { extents, units: vec![Checksummed { offset: 0, length, checksum }], is_partial: false }
    }

    /// The blocks that list `stored`, and those that list these.
    #[must_use]
    pub fn of_lists(stored: &StoredExtents) -> Vec<Self> {
        let list = |(extents, length, checksum)| Self::of(extents, length, checksum);
        stored.lists().into_iter().map(list).collect()
    }

    /// Blocks that the extents take.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        total_blocks(&self.extents)
    }

    /// Adds the extents and units of `other` behind these.
    pub fn append(&mut self, other: Self, dmu: &Dmu) {
        let base = dmu.data_blocks(&self.extents) * BLOCK_BYTES_U64;
        self.extents.extend(other.extents);
        self.units
            .extend(other.units.into_iter().map(|unit| Checksummed { offset: unit.offset + base, ..unit }));
    }
}

fn geometry(pool: &Pool, extent: &Extent) -> Result<Geometry, PoolError> {
    pool.geometry(extent.vdev)
}

/// Data blocks that `extent` holds.
fn capacity(pool: &Pool, extent: &Extent) -> Result<u64, PoolError> {
    Ok(geometry(pool, extent)?.capacity(u64::from(extent.blocks)))
}

impl Dmu {
    /// Starts to look at every copy of what `task` names, in the background. With `target`, only what lies on its vdev is
    /// looked at, and that member gets its part. The caller holds the extents until it is done.
    #[must_use]
    pub fn scrub_in_background(&self, task: ScrubTask, target: Option<Target>) -> PendingJob<ScrubOutcome> {
        let dmu = self.clone();
        PendingJob::start(self.scrubs(), 0, move || dmu.scrub(&task, target))
    }

    /// Looks at every copy of what `task` names; see [`Dmu::scrub_in_background`].
    ///
    /// # Errors
    /// The member to be filled failed. Whatever else is wrong is in the outcome.
    pub fn scrub(&self, task: &ScrubTask, target: Option<Target>) -> Result<ScrubOutcome, DmuError> {
        let mut outcome = ScrubOutcome { units: task.units.len() as u64, ..ScrubOutcome::default() };
        let is_wanted = |extent: &Extent| target.is_none_or(|target| target.vdev == extent.vdev);
        let is_known = |extent: &Extent| self.pool().vdev(extent.vdev).is_ok();
        let (extents, places) = match self.places_of(task) {
            Ok((extents, places)) if extents.iter().all(is_known) => (extents, places),
            Ok(_) | Err(DmuError::Pool(PoolError::UnknownVdev(_))) => {
                (0..task.units.len()).for_each(|unit| self.damaged(&mut outcome, unit, task.extents.first()));
                return Ok(outcome);
            }
            Err(error) => return Err(error),
        };
        if !extents.iter().any(is_wanted) {
            return Ok(ScrubOutcome::default());
        }
        let mut parts: Vec<Vec<Part>> = Vec::new();
        parts.resize_with(extents.len(), Vec::new);
        let mut foreign: Vec<Vec<Range<u64>>> = vec![Vec::new(); extents.len()];
        for (index, unit) in task.units.iter().enumerate() {
            let end = unit.offset.saturating_add(unit.length);
            let touched: Vec<usize> = (0..places.len())
                .filter(|at| places[*at].start < end && unit.offset < places[*at].end)
                .collect();
            let inside = places.last().is_some_and(|last| end <= last.end);
            let Some(first) = touched.first().copied().filter(|_| inside) else {
                self.damaged(&mut outcome, index, extents.first());
                continue;
            };
            let of = |at: usize| {
                let place = &places[at];
                unit.offset.max(place.start) - place.start..end.min(place.end) - place.start
            };
            if touched.len() == 1 {
                let judgement = Judgement::Checksum(unit.checksum);
                parts[first].push(Part { range: of(first), unit: index, judgement });
                continue;
            }
            if !touched.iter().any(|at| is_wanted(&extents[*at])) {
                continue;
            }
            // It lies in several extents: what each has of it follows from the whole.
            let whole = self.whole_unit(&task.extents, unit)?;
            let mut from = 0;
            for at in touched {
                let range = of(at);
                let length = (range.end - range.start) as usize;
                match &whole {
                    Some(bytes) => {
                        let judgement = Judgement::Bytes(bytes[from..from + length].to_vec());
                        parts[at].push(Part { range, unit: index, judgement });
                    }
                    None => foreign[at].push(range),
                }
                from += length;
            }
            if whole.is_none() {
                self.damaged(&mut outcome, index, extents.get(first));
            }
        }
        for ((extent, parts), foreign) in extents.iter().zip(&parts).zip(&foreign) {
            if is_wanted(extent) {
                self.scrub_extent(extent, parts, foreign, task.is_partial, target, &mut outcome)?;
            }
        }
        Ok(outcome)
    }

    fn damaged(&self, outcome: &mut ScrubOutcome, unit: usize, extent: Option<&Extent>) {
        let Some(extent) = extent else { return };
        let name = self.pool().vdev(extent.vdev).map(|vdev| vdev.name());
        let device = name.unwrap_or_else(|_| format!("vdev {}", extent.vdev));
        outcome.damage.push(Damage { unit, vdev: extent.vdev, device, block: extent.block });
    }

    /// Where the extents of `task` are, neighbours on plain vdevs as one, and which bytes of the task each has.
    fn places_of(&self, task: &ScrubTask) -> Result<(Vec<Extent>, Vec<Range<u64>>), DmuError> {
        let (mut extents, mut places): (Vec<Extent>, Vec<Range<u64>>) = (Vec::new(), Vec::new());
        let mut base = 0;
        for extent in &task.extents {
            let mut left = capacity(self.pool(), extent)?;
            for place in self.places_of_moved(extent).unwrap_or_else(|| vec![*extent]) {
                let blocks = capacity(self.pool(), &place)?.min(left);
                left -= blocks;
                let end = base + blocks * BLOCK_BYTES_U64;
                let plain = geometry(self.pool(), &place)?.is_plain();
                match (extents.last_mut(), places.last_mut()) {
                    (Some(last), Some(range))
                        if plain
                            && last.vdev == place.vdev
                            && last.end() == place.block
                            && last.blocks.checked_add(place.blocks).is_some() =>
                    {
                        last.blocks += place.blocks;
                        range.end = end;
                    }
                    _ => {
                        extents.push(place);
                        places.push(base..end);
                    }
                }
                base = end;
            }
        }
        Ok((extents, places))
    }

    /// The bytes of a unit that lies in several extents, from whatever copies are right.
    pub(super) fn whole_unit(
        &self,
        extents: &[Extent],
        unit: &Checksummed,
    ) -> Result<Option<Vec<u8>>, DmuError> {
        let start = unit.offset / BLOCK_BYTES_U64 * BLOCK_BYTES_U64;
        let skip = (unit.offset - start) as usize;
        let length = (skip + unit.length as usize).next_multiple_of(BLOCK_BYTES);
        let range = skip..skip + unit.length as usize;
        let mut is_right = |bytes: &[u8]| crc(&bytes[range.clone()]) == unit.checksum;
        match self.read_checked(extents, start, length, range.clone(), &mut is_right) {
            Ok((bytes, true)) => Ok(Some(bytes[range].to_vec())),
            Ok(_) => Ok(None),
            Err(error) => {
                log::debug!("a unit in several extents: {error}");
                Ok(None)
            }
        }
    }

    fn scrub_extent(
        &self,
        extent: &Extent,
        parts: &[Part],
        foreign: &[Range<u64>],
        is_partial: bool,
        target: Option<Target>,
        outcome: &mut ScrubOutcome,
    ) -> Result<(), DmuError> {
        let geometry = geometry(self.pool(), extent)?;
        let blocks = geometry.capacity(u64::from(extent.blocks));
        let align = if geometry.is_plain() { 1 } else { u64::from(STRIPE_BLOCKS) };
        let purpose = target.map_or(Purpose::Check, |target| Purpose::Fill(target.member));
        // What is right nowhere stays as it is.
        let mut damaged: Vec<Range<u64>> = foreign.to_vec();
        let (mut from, mut next, mut known) = (0, 0, Vec::new());
        while from < blocks {
            if is_partial {
                let Some(part) = parts.get(next) else { break };
                let start = part.range.start / BLOCK_BYTES_U64 / align * align;
                if start > from {
                    from = start;
                    known.clear();
                }
            }
            let ends = |end: u64| {
                parts[next..].iter().take_while(move |part| part.range.end <= end * BLOCK_BYTES_U64)
            };
            let mut end = (from + WINDOW_BLOCKS).min(blocks);
            let mut last = next + ends(end).count();
            let begins = |last: usize, end: u64| {
                parts.get(last).filter(|part| part.range.start < end * BLOCK_BYTES_U64)
            };
            if let Some(long) = begins(last, end).filter(|_| last == next) {
                end = long.range.end.div_ceil(BLOCK_BYTES_U64).next_multiple_of(align).min(blocks);
                last = next + ends(end).count();
            }
            let postponed = begins(last, end).map(|part| part.range.start);
            let settled = postponed.map_or(end, |start| start / BLOCK_BYTES_U64 / align * align);
            let start = from * BLOCK_BYTES_U64;
            let length = (end - from) as usize * BLOCK_BYTES;
            let local = |range: &Range<u64>| {
                let clip = |at: u64| (at.saturating_sub(start) as usize).min(length);
                clip(range.start)..clip(range.end)
            };
            let window_parts = &parts[next..last];
            let units: Vec<Range<usize>> = window_parts.iter().map(|part| local(&part.range)).collect();
            let mut kept: Vec<Range<usize>> =
                damaged.iter().map(local).filter(|range| !range.is_empty()).collect();
            kept.extend(postponed.map(|at| local(&(at..end * BLOCK_BYTES_U64))));
            if is_partial {
                kept = complement(&units, length);
            }
            kept.sort_unstable_by_key(|range| range.start);
            let window = Window {
                extent: *extent,
                from,
                known: &known,
                units: &units,
                foreign: &kept,
                settled: if is_partial { 0 } else { settled.saturating_sub(from) },
            };
            let mut buffer = AlignedBuffer::recycled(length);
            let mut judge = UnitJudge { dmu: self, extent, start, parts: window_parts, units: &units };
            let scrubbed = self.pool().scrub(&window, &mut buffer, purpose, &mut judge)?;
            outcome.add(&scrubbed);
            for index in &scrubbed.damaged {
                let part = &window_parts[*index];
                damaged.push(part.range.clone());
                self.damaged(outcome, part.unit, Some(extent));
            }
            let done = parts[..last].last().map_or(start, |part| part.range.end.max(start));
            let shared = settled.max(from) * BLOCK_BYTES_U64;
            known = match postponed {
                Some(_) if done > shared => {
                    buffer[(shared - start) as usize..(done - start) as usize].to_vec()
                }
                _ => Vec::new(),
            };
            damaged.retain(|range| range.end > shared);
            next = last;
            from = settled.max(from);
        }
        Ok(())
    }

    /// Looks at every copy of the bitmaps and of the pages of the allocation table, as the newest checkpoint and the one before
    /// name them. `visit` is told what came of each, by name, and says whether to go on. A checkpoint waits for one of them at
    /// most.
    ///
    /// # Errors
    /// As [`Dmu::scrub`].
    pub fn scrub_allocation(
        &self,
        target: Option<Target>,
        visit: &mut dyn FnMut(&'static str, ScrubOutcome) -> bool,
    ) -> Result<bool, DmuError> {
        let allocator = self.allocator();
        for vdev in 0..allocator.vdevs.len() {
            let id = allocator.with(vdev, |segments| segments.space().id);
            if target.is_some_and(|target| target.vdev != id) || self.has_left(id) {
                continue;
            }
            let pages = allocator.with(vdev, |segments| segments.page_count());
            let segments = allocator.with(vdev, |segments| segments.segment_count());
            let numbers =
                (0..pages).map(|page| (true, page)).chain((0..segments).map(|number| (false, number)));
            for (is_page, number) in numbers {
                for index in 0..2 {
                    let Some(outcome) =
                        self.scrub_fixed(allocator, vdev, (is_page, number), index, target)?
                    else {
                        continue;
                    };
                    if !visit(if is_page { "allocation table page" } else { "segment bitmap" }, outcome) {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn scrub_fixed(
        &self,
        allocator: &Allocator,
        vdev: usize,
        (is_page, number): (bool, u32),
        index: usize,
        target: Option<Target>,
    ) -> Result<Option<ScrubOutcome>, DmuError> {
        // With the lock held, no checkpoint begins to write bitmaps: what is named now keeps its place.
        let _commit = allocator.commit.lock();
        let place = allocator.with(vdev, |segments| match is_page {
            true => segments.page_place(number).filter(|_| index == 0),
            false => segments.bitmap_place(number, index),
        });
        let Some((extent, length, checksum)) = place else { return Ok(None) };
        let segment_blocks = self.pool().segment_blocks();
        let mut buffer = AlignedBuffer::zeroed(capacity(self.pool(), &extent)? as usize * BLOCK_BYTES);
        let unit = 0..length;
        let settled = (buffer.len() / BLOCK_BYTES) as u64;
        let window =
            Window { extent, from: 0, known: &[], units: std::slice::from_ref(&unit), foreign: &[], settled };
        let purpose = target.map_or(Purpose::Check, |target| Purpose::Fill(target.member));
        let is_right = |bytes: &[u8]| {
            let sound = match is_page {
                true => decode_page(bytes).is_ok(),
                false => decode_slot(bytes, segment_blocks).is_ok(),
            };
            sound && stored_checksum(bytes) == checksum
        };
        let mut judge = FixedJudge { dmu: self, extent: &extent, is_right: &is_right };
        let scrubbed = self.pool().scrub(&window, &mut buffer, purpose, &mut judge)?;
        let mut outcome = ScrubOutcome { units: 1, ..ScrubOutcome::default() };
        outcome.add(&scrubbed);
        if !scrubbed.damaged.is_empty() {
            self.damaged(&mut outcome, 0, Some(&extent));
        }
        Ok(Some(outcome))
    }
}

/// What of the bytes 0 to `length` is in none of `ranges`.
fn complement(ranges: &[Range<usize>], length: usize) -> Vec<Range<usize>> {
    let ends = ranges.iter().map(|range| range.end);
    let starts = ranges.iter().map(|range| range.start).chain([length]);
    std::iter::once(0)
        .chain(ends)
        .zip(starts)
        .map(|(from, to)| from..to)
        .filter(|range| !range.is_empty())
        .collect()
}
