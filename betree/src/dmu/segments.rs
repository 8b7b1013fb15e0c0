//! All segments of one vdev: which to allocate from, what is in memory, what a checkpoint writes.
//!
//! Segments are kept in classes by the binary logarithm of their longest free run, an upper bound until a search proves
//! it wrong (the classes are those of a buddy allocator; OpenZFS chooses metaslabs by a similar weight). A stream takes
//! the segment with the longest run that no other stream works in, fills it next-fit, and moves on when a request no
//! longer fits. So choosing costs a few set operations, and a failed search is never repeated for the same length.

use super::DmuError;
use super::allocator::{STREAM_COUNT, Stream};
use super::bitmap::Bitmap;
use super::format::{Entry, RootVdev, SlotRef};
use super::inspection::SegmentCounts;
use super::layout::{Layout, VdevGeometry};
use super::packing::Packing;
use super::segment::{Loaded, Segment, Source, add, remove, touches};
use super::space::VdevSpace;
use super::table::{self, SeenGenerations};
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::ids::{Generation, Uuid, VdevId};
use crate::base::planted::{Bug, planted};
use crate::base::units::BLOCK_BYTES;
use crate::pool::{Geometry, Pool};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Classes 0 (nothing free) … 19 (262,144 blocks in a row).
const CLASS_COUNT: usize = 20;

/// Bitmaps of segments kept in memory per vdev before idle ones are dropped after a checkpoint. At 64 KiB each this is
/// 64 MiB per vdev; only a segment that nothing touched for a whole checkpoint is dropped, so that a busy pool may keep
/// more. The tests drop what they can, so that reading again is tried as well.
const LOADED_SEGMENTS_MAX: usize = if cfg!(test) { 2 } else { 1024 };

/// What to write to a fixed place.
pub(super) type Write = (Extent, AlignedBuffer);

/// The segments of one vdev, behind one lock.
#[derive(Debug)]
pub(super) struct Segments {
    layout: Layout,
    pool: Arc<Pool>,
    uuid: Uuid,
    /// The last durable checkpoint.
    generation: Generation,
    segments: Vec<Segment>,
    classes: [BTreeSet<u32>; CLASS_COUNT],
    cursors: [Option<u32>; STREAM_COUNT],
    pages: Vec<SlotRef>,
    /// Loaded segments.
    loaded: BTreeSet<u32>,
    /// Segments that the last checkpoint changed and that are not loaded: what it cleared is still counted as dead.
    unsettled: BTreeSet<u32>,
    total: u64,
    free: u64,
    used: u64,
    dead: u64,
    /// Nothing is handed out: the vdev is to leave, or has left.
    closed: bool,
}

/// `blocks` times `part` of `whole`, rounded down.
pub(super) fn share(blocks: u64, part: u64, whole: u64) -> u64 {
    if part == whole {
        return blocks;
    }
    (u128::from(blocks) * u128::from(part) / u128::from(whole.max(1))) as u64
}

fn class_of(longest: u32) -> usize {
    (u32::BITS - longest.leading_zeros()) as usize
}

impl Segments {
    /// A vdev that nothing was ever allocated from.
    ///
    /// # Errors
    /// [`DmuError::Geometry`].
    pub(super) fn create(
        pool: Arc<Pool>,
        uuid: Uuid,
        geometry: &VdevGeometry,
        segment_blocks: u32,
        generation: Generation,
    ) -> Result<Self, DmuError> {
        let layout = Layout::create(geometry, segment_blocks)
            .map_err(|reason| DmuError::Geometry { vdev: geometry.id, reason })?;
        let entries = vec![Entry::default(); layout.segment_count() as usize];
        Ok(Self::new(pool, uuid, layout, generation, entries, Vec::new()))
    }

    /// The vdev as a table root describes it, or longer.
    ///
    /// # Errors
    /// Device errors; [`DmuError::Corrupt`]; [`DmuError::Geometry`] when `geometry` does not fit what the root says.
    pub(super) fn open(
        pool: Arc<Pool>,
        uuid: Uuid,
        geometry: &VdevGeometry,
        root: &RootVdev,
        generation: Generation,
        amended: Option<&[SegmentCounts]>,
    ) -> Result<(Self, SeenGenerations), DmuError> {
        let refuse = |reason| DmuError::Geometry { vdev: geometry.id, reason };
        let old_geometry = VdevGeometry {
            id: root.id,
            tier: geometry.tier,
            blocks: root.blocks,
            reserved: root.reserved.clone(),
            geometry: geometry.geometry,
        };
        let old = Layout::new(&old_geometry, root.segment_blocks, root.areas.clone()).map_err(refuse)?;
        if geometry.blocks < root.blocks {
            return Err(refuse("the device is shorter than its allocation table says"));
        }
        if root.pages.len() != old.page_count() as usize {
            return Err(refuse("the number of table pages does not fit the length of the device"));
        }
        let source = Source { pool: &pool, uuid, layout: &old };
        let (mut entries, seen) = table::read(source, &root.pages, generation)?;
        let own = || amended.into_iter().flatten().filter(|counts| counts.vdev == root.id);
        for counts in own() {
            if let Some(entry) = entries.get_mut(counts.segment as usize) {
                (entry.free, entry.free_in_both) = (counts.free, counts.free_in_both);
                entry.longest = counts.longest;
            }
        }
        let mut segments = Self::new(pool, uuid, old, generation, entries, root.pages.clone());
        let free = segments.total - segments.used;
        for counts in own() {
            if (counts.segment as usize) < segments.segments.len() {
                segments.load(counts.segment)?;
                segments.segments[counts.segment as usize].is_outdated = true;
            }
        }
        if free != root.free && amended.is_none() {
            let reason = format!("{free} free blocks in the table, {} in its root", root.free);
            return Err(segments.source().corrupt("allocation table", 0, reason));
        }
        segments.grow(geometry)?;
        Ok((segments, seen))
    }

    fn new(
        pool: Arc<Pool>,
        uuid: Uuid,
        layout: Layout,
        generation: Generation,
        entries: Vec<Entry>,
        mut pages: Vec<SlotRef>,
    ) -> Self {
        pages.resize(layout.page_count() as usize, SlotRef::default());
        let mut out = Self {
            layout,
            pool,
            uuid,
            generation,
            segments: Vec::new(),
            classes: std::array::from_fn(|_| BTreeSet::new()),
            cursors: [None; STREAM_COUNT],
            pages,
            loaded: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            total: 0,
            free: 0,
            used: 0,
            dead: 0,
            closed: false,
        };
        for entry in entries {
            out.append(entry);
        }
        out
    }

    /// Adds the segment behind the last one.
    fn append(&mut self, entry: Entry) {
        let number = self.segments.len() as u32;
        let usable = self.layout.usable(number);
        let segment = Segment::new(entry, usable, self.generation);
        let clear = if entry.is_virgin() { usable } else { entry.free };
        self.total += u64::from(usable);
        self.free += u64::from(segment.free);
        self.used += u64::from(usable - clear);
        self.dead += u64::from(clear - segment.free);
        if clear != segment.free {
            self.unsettled.insert(number);
        }
        self.classes[class_of(segment.longest)].insert(number);
        self.segments.push(segment);
    }

    /// Takes over a longer device or other reserved ranges.
    fn grow(&mut self, geometry: &VdevGeometry) -> Result<(), DmuError> {
        let refuse = |reason| DmuError::Geometry { vdev: geometry.id, reason };
        let count = self.layout.segment_count();
        let segment_blocks = self.layout.segment_blocks;
        let new = match Layout::extend(geometry, segment_blocks, self.layout.areas.clone(), count) {
            Ok(layout) => layout,
            Err(reason) => {
                log::warn!("vdev {}: cannot use its new length: {reason}", geometry.id);
                let same = VdevGeometry { blocks: self.layout.blocks, ..geometry.clone() };
                Layout::new(&same, segment_blocks, self.layout.areas.clone()).map_err(refuse)?
            }
        };
        if new.blocks == self.layout.blocks && new.reserved == self.layout.reserved {
            return Ok(());
        }
        let old = self.layout.clone();
        for number in 0..count {
            if old.segment(number) == new.segment(number) && old.usable(number) == new.usable(number) {
                let (bits, new_bits) = (old.reserved_bits(number), new.reserved_bits(number));
                if bits == new_bits {
                    continue;
                }
            }
            self.reshape(number, &old, &new)?;
        }
        self.layout = new;
        self.pages.resize(self.layout.page_count() as usize, SlotRef::default());
        for _ in count..self.layout.segment_count() {
            self.append(Entry::default());
        }
        Ok(())
    }

    /// Changes the reserved blocks of segment `number`. Blocks that are no longer reserved can be handed out after the
    /// next checkpoint: until then the device may still be opened with its old length.
    fn reshape(&mut self, number: u32, old: &Layout, new: &Layout) -> Result<(), DmuError> {
        let refuse = |reason| DmuError::Geometry { vdev: new.id, reason };
        let (usable, bits) = (new.usable(number), new.segment_blocks);
        self.total += u64::from(usable);
        self.total -= u64::from(old.usable(number));
        if self.segments[number as usize].entry.is_virgin() {
            let class = class_of(self.segments[number as usize].longest);
            self.classes[class].remove(&number);
            let segment = &mut self.segments[number as usize];
            self.free += u64::from(usable);
            self.free -= u64::from(segment.free);
            (segment.free, segment.longest) = (usable, usable);
            self.classes[class_of(usable)].insert(number);
            return Ok(());
        }
        if old.slots(number) != new.slots(number) {
            return Err(refuse("a reserved range covers bitmaps"));
        }
        self.load(number)?;
        let (mut opened, mut closed) = (old.reserved_bits(number), new.reserved_bits(number));
        opened.subtract(&new.reserved_bits(number));
        closed.subtract(&old.reserved_bits(number));
        let segment = &mut self.segments[number as usize];
        let Some(loaded) = segment.loaded.as_deref_mut() else { return Ok(()) };
        if closed.set_runs().any(|run| loaded.busy.any_set(run)) {
            return Err(refuse("a reserved range covers blocks in use"));
        }
        loaded.busy.add(&closed);
        loaded.persistent.add(&closed);
        loaded.persistent.subtract(&opened);
        for run in opened.set_runs() {
            for set in [&mut loaded.opened, &mut loaded.dead, &mut loaded.orphans] {
                add(set, bits, run.clone());
            }
        }
        segment.is_outdated = true;
        self.dead += u64::from(opened.count_set());
        self.refresh(number);
        Ok(())
    }

    fn source(&self) -> Source<'_> {
        Source { pool: &self.pool, uuid: self.uuid, layout: &self.layout }
    }

    pub(super) fn id(&self) -> VdevId {
        self.layout.id
    }

    pub(super) fn page_count(&self) -> u32 {
        self.layout.page_count()
    }

    pub(super) fn segment_count(&self) -> u32 {
        self.layout.segment_count()
    }

    /// Place, bytes and checksum of table page `page`; `None` when it was never written.
    pub(super) fn page_place(&self, page: u32) -> Option<(Extent, usize, u32)> {
        let named = self.pages.get(page as usize).filter(|named| named.generation.0 != 0)?;
        let block = self.layout.page_block(page, named.slot)?;
        Some((self.layout.fixed(block, BLOCK_BYTES), BLOCK_BYTES, named.checksum))
    }

    /// Place, bytes and checksum of the newest bitmap of segment `number`, or of the one before (`index` 1); `None` when there
    /// is none.
    pub(super) fn bitmap_place(&self, number: u32, index: usize) -> Option<(Extent, usize, u32)> {
        let entry = &self.segments.get(number as usize)?.entry;
        let named = [entry.current, entry.previous].get(index).copied()?;
        let block = self.layout.slot_block(number, named.slot).filter(|_| named.generation.0 != 0)?;
        let bytes = self.layout.slot_data_blocks() as usize * BLOCK_BYTES;
        Some((self.layout.fixed(block, bytes), bytes, named.checksum))
    }

    /// Blocks that can be handed out now.
    pub(super) fn free(&self) -> u64 {
        if self.closed { 0 } else { self.free }
    }

    /// Blocks that are not reserved.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Whether anything may be handed out from now on.
    pub(super) fn set_closed(&mut self, closed: bool) {
        self.closed = closed;
    }

    /// The accounts.
    pub(super) fn space(&self) -> VdevSpace {
        let data = |blocks| self.data_share(blocks);
        VdevSpace {
            id: self.layout.id,
            tier: self.layout.tier,
            total: data(if self.closed { self.used + self.dead } else { self.total }),
            free: data(self.free()),
            used: data(self.used),
            pending: data(self.dead),
        }
    }

    /// How many of `taken` blocks hold data in long extents.
    fn data_share(&self, taken: u64) -> u64 {
        share(taken, self.layout.geometry.capacity(self.total), self.total)
    }

    /// How its blocks lie on its leaves.
    pub(super) fn geometry(&self) -> Geometry {
        self.layout.geometry
    }

    /// Counts the free blocks of a loaded segment anew.
    fn refresh(&mut self, number: u32) {
        let segment = &mut self.segments[number as usize];
        let Some(loaded) = segment.loaded.as_deref() else { return };
        let (free, longest) = (loaded.busy.count_clear(), loaded.busy.longest_clear_run());
        self.free = self.free - u64::from(segment.free) + u64::from(free);
        segment.free = free;
        self.set_longest(number, longest);
    }

    fn set_longest(&mut self, number: u32, longest: u32) {
        let segment = &mut self.segments[number as usize];
        let (old, new) = (class_of(segment.longest), class_of(longest));
        segment.longest = longest;
        if old != new {
            self.classes[old].remove(&number);
            self.classes[new].insert(number);
        }
    }

    /// Reads the bitmaps of segment `number` unless they are in memory.
    fn load(&mut self, number: u32) -> Result<(), DmuError> {
        let segment = &self.segments[number as usize];
        if segment.loaded.is_some() {
            return Ok(());
        }
        let (loaded, more) = segment.read(self.source(), number, self.generation)?;
        self.unsettled.remove(&number);
        self.loaded.insert(number);
        self.dead -= u64::from(more);
        self.segments[number as usize].loaded = Some(Box::new(loaded));
        self.refresh(number);
        Ok(())
    }

    fn loaded(&mut self, number: u32) -> Result<&mut Loaded, DmuError> {
        self.load(number)?;
        let generation = self.generation;
        match self.segments[number as usize].loaded.as_deref_mut() {
            Some(loaded) => {
                loaded.touched = generation;
                Ok(loaded)
            }
            None => unreachable!("the segment was just loaded"),
        }
    }

    fn extent(&self, number: u32, bits: Range<u32>) -> Extent {
        Extent {
            vdev: self.layout.id,
            block: self.layout.segment(number).start + u64::from(bits.start),
            blocks: bits.end - bits.start,
        }
    }

    /// The segment from which `stream` takes `wanted` contiguous blocks: the one it works in, else the one with the
    /// longest run that no other stream works in, else any.
    fn choose(&self, stream: Stream, wanted: u32) -> Option<u32> {
        let own = self.cursors[stream.index()];
        let fits = |number: &u32| self.segments[*number as usize].longest >= wanted;
        own.filter(fits).or_else(|| {
            let candidates = || {
                self.classes[class_of(wanted).min(CLASS_COUNT)..].iter().rev().flatten().copied().filter(fits)
            };
            let is_foreign = |number: &u32| self.cursors.contains(&Some(*number));
            candidates().find(|number| !is_foreign(number)).or_else(|| candidates().next())
        })
    }

    /// Marks free blocks as taken.
    fn occupy(&mut self, number: u32, bits: Range<u32>) -> Result<Extent, DmuError> {
        let count = bits.end - bits.start;
        let loaded = self.loaded(number)?;
        assert!(!loaded.busy.any_set(bits.clone()), "a search found free blocks");
        loaded.busy.set(bits.clone());
        loaded.next = bits.end;
        let segment = &mut self.segments[number as usize];
        segment.free -= count;
        self.free -= u64::from(count);
        let longest = segment.longest.min(segment.free);
        self.set_longest(number, longest);
        Ok(self.extent(number, bits))
    }

    /// Takes `wanted` contiguous blocks; `None` when there are none.
    ///
    /// # Errors
    /// Device errors; [`DmuError::Corrupt`]. Nothing is taken then.
    pub(super) fn take(&mut self, stream: Stream, wanted: u32) -> Result<Option<Extent>, DmuError> {
        if self.closed {
            return Ok(None);
        }
        while let Some(number) = self.choose(stream, wanted) {
            match self.loaded(number)?.find(wanted) {
                Ok(start) => {
                    self.cursors[stream.index()] = Some(number);
                    return Ok(Some(self.occupy(number, start..start + wanted)?));
                }
                Err(longest) => self.set_longest(number, longest),
            }
        }
        Ok(None)
    }

    /// No run of free blocks is longer.
    pub(super) fn longest(&self) -> u32 {
        if self.closed {
            return 0;
        }
        let top = self.classes.iter().rev().find(|class| !class.is_empty());
        let longest = |number: &u32| self.segments[*number as usize].longest;
        top.and_then(|class| class.iter().map(longest).max()).unwrap_or(0)
    }

    /// Takes room for at most `wanted` blocks, by `packing`: up to `runs_max` of the longest runs of one segment. Returns for how
    /// many; 0 when the longest run was shorter than thought.
    ///
    /// # Errors
    /// As [`Segments::take`]; what is in `out` stays taken.
    pub(super) fn take_longest(
        &mut self,
        wanted: u32,
        packing: Packing,
        runs_max: usize,
        out: &mut Vec<Extent>,
    ) -> Result<u32, DmuError> {
        if self.closed {
            return Ok(0);
        }
        let top = self.classes.iter().skip(1).rev().find(|class| !class.is_empty());
        let longest = |number: &u32| self.segments[*number as usize].longest;
        let Some(number) = top.and_then(|class| class.iter().copied().max_by_key(longest)) else {
            return Ok(0);
        };
        let believed = self.segments[number as usize].longest;
        let busy = &self.loaded(number)?.busy;
        let actual = busy.longest_clear_run();
        if actual < believed {
            self.set_longest(number, actual);
            return Ok(0);
        }
        let holds = packing.holds(actual);
        let runs: Vec<Range<u32>> = busy
            .clear_runs()
            .filter(|run| run.end - run.start == actual)
            .take(((wanted / holds.max(1) + 1) as usize).min(runs_max))
            .collect();
        let mut left = wanted;
        for run in runs {
            let (end, held) = match holds >= left {
                true => (run.end.min(run.start + packing.takes(left)), left),
                false => (run.end, holds),
            };
            if held > 0 {
                out.push(self.occupy(number, run.start..end)?);
                left -= held;
            }
        }
        Ok(wanted - left)
    }

    /// Segment and bits of `extent`.
    fn locate(&self, extent: &Extent) -> Result<(u32, Range<u32>), DmuError> {
        let outside = "an extent outside of the blocks that are ever handed out";
        self.layout.locate(extent).ok_or(DmuError::Allocation { what: outside, extent: *extent })
    }

    /// Gives blocks back.
    ///
    /// # Errors
    /// [`DmuError::Allocation`] when a block is free already or a checkpoint that the pool may be opened at has it; then
    /// nothing of `extent` is given back. Device errors; [`DmuError::Corrupt`].
    pub(super) fn release(&mut self, extent: &Extent) -> Result<(), DmuError> {
        let (number, bits) = self.locate(extent)?;
        let refuse = |what| Err(DmuError::Allocation { what, extent: *extent });
        let loaded = self.loaded(number)?;
        if !loaded.busy.all_set(bits.clone()) {
            return refuse("release of an extent that is free");
        }
        if loaded.persistent.any_set(bits.clone()) || touches(loaded.clearing.as_ref(), bits.clone()) {
            return refuse("release of an extent that the last checkpoint has");
        }
        let fallback =
            touches(loaded.held.as_ref(), bits.clone()) || touches(loaded.orphans.as_ref(), bits.clone());
        if fallback && !planted(Bug::ReuseFreedAtOnce) {
            return refuse("release of an extent that the checkpoint before the last one has");
        }
        loaded.busy.clear(bits.clone());
        let dead = remove(&mut loaded.dead, bits.clone());
        let run = loaded.busy.clear_run_around(bits.clone());
        let segment = &mut self.segments[number as usize];
        segment.free += bits.end - bits.start;
        let longest = segment.longest.max(run.end - run.start);
        self.free += u64::from(bits.end - bits.start);
        self.dead -= u64::from(dead);
        self.set_longest(number, longest);
        // Before anybody else can take it: the lock is still held.
        self.discard(extent);
        Ok(())
    }

    fn discard(&self, extent: &Extent) {
        self.pool.discard(extent.vdev, extent.block, u64::from(extent.blocks));
    }

    /// Whether a checkpoint that the pool may be opened at has a block of `extent`; the births of the one being written
    /// count as well. What is not loaded was not handed out.
    pub(super) fn is_reached(&self, extent: &Extent) -> bool {
        let Some((number, bits)) = self.layout.locate(extent) else { return false };
        let Some(loaded) = self.segments[number as usize].loaded.as_deref() else { return true };
        loaded.persistent.any_set(bits.clone())
            || [&loaded.clearing, &loaded.held].iter().any(|set| touches(set.as_ref(), bits.clone()))
    }

    /// Marks blocks as taken that a log record names. `false` when they were already.
    ///
    /// # Errors
    /// [`DmuError::Allocation`] when only some of the blocks are taken. Device errors; [`DmuError::Corrupt`].
    pub(super) fn mark_busy(&mut self, extent: &Extent) -> Result<bool, DmuError> {
        let (number, bits) = self.locate(extent)?;
        let loaded = self.loaded(number)?;
        let count = bits.end - bits.start;
        let busy = loaded.busy.count_set_in(bits.clone());
        let orphans = loaded.orphans.as_ref().map_or(0, |orphans| orphans.count_set_in(bits.clone()));
        if busy - orphans == count {
            return Ok(false);
        }
        if busy != orphans {
            let what = "an extent to be marked that is in use in part";
            return Err(DmuError::Allocation { what, extent: *extent });
        }
        // From here on the caller answers for blocks that would have come free by themselves.
        for set in [&mut loaded.orphans, &mut loaded.held] {
            remove(set, bits.clone());
        }
        let dead = remove(&mut loaded.dead, bits.clone());
        loaded.busy.set(bits);
        let segment = &mut self.segments[number as usize];
        segment.free -= count - orphans;
        let longest = segment.longest.min(segment.free);
        self.free -= u64::from(count - orphans);
        self.dead -= u64::from(dead);
        self.set_longest(number, longest);
        Ok(true)
    }

    /// Whether the last checkpoint has all blocks of `extent` (or the one being written, while one is).
    ///
    /// # Errors
    /// [`DmuError::Allocation`] for blocks that are never handed out. Device errors; [`DmuError::Corrupt`].
    pub(super) fn is_persistent(&mut self, extent: &Extent) -> Result<bool, DmuError> {
        let (number, bits) = self.locate(extent)?;
        Ok(self.loaded(number)?.persistent.all_set(bits))
    }

    /// The runs of segment `number` that the last checkpoint has, reserved blocks left out; `None` behind the last segment.
    ///
    /// # Errors
    /// Device errors; [`DmuError::Corrupt`].
    pub(super) fn persistent_runs(&self, number: u32) -> Result<Option<Vec<Extent>>, DmuError> {
        let Some(segment) = self.segments.get(number as usize) else { return Ok(None) };
        let mut bits = match &segment.loaded {
            Some(loaded) => loaded.persistent.clone(),
            None => self.source().current(number, &segment.entry)?,
        };
        bits.subtract(&self.layout.reserved_bits(number));
        Ok(Some(bits.set_runs().map(|run| self.extent(number, run)).collect()))
    }

    /// Sets the bits of `extent` for the checkpoint being written. Returns its segment.
    ///
    /// # Errors
    /// [`DmuError::Allocation`] when it is not allocated or in the last checkpoint already; nothing has changed then.
    /// Device errors; [`DmuError::Corrupt`].
    pub(super) fn set_persistent(&mut self, extent: &Extent) -> Result<u32, DmuError> {
        let (number, bits) = self.locate(extent)?;
        let refuse = |what| Err(DmuError::Allocation { what, extent: *extent });
        let loaded = self.loaded(number)?;
        if !loaded.busy.all_set(bits.clone()) {
            return refuse("a checkpoint reaches an extent that is not allocated");
        }
        if loaded.persistent.any_set(bits.clone()) {
            return refuse("a checkpoint allocates an extent that the one before has");
        }
        if [&loaded.clearing, &loaded.held, &loaded.dead]
            .iter()
            .any(|set| touches(set.as_ref(), bits.clone()))
        {
            return refuse("a checkpoint reaches an extent that was freed");
        }
        loaded.persistent.set(bits.clone());
        self.used += u64::from(bits.end - bits.start);
        Ok(number)
    }

    /// Clears the bits of `extent` for the checkpoint being written. Returns its segment.
    ///
    /// # Errors
    /// [`DmuError::Allocation`] when it is not in the last checkpoint; nothing has changed then. Device errors;
    /// [`DmuError::Corrupt`].
    pub(super) fn clear_persistent(&mut self, extent: &Extent) -> Result<u32, DmuError> {
        let (number, bits) = self.locate(extent)?;
        let loaded = self.loaded(number)?;
        if !loaded.persistent.all_set(bits.clone()) {
            let what = "a checkpoint frees an extent that the one before does not have";
            return Err(DmuError::Allocation { what, extent: *extent });
        }
        loaded.persistent.clear(bits.clone());
        let length = loaded.persistent.bits();
        add(&mut loaded.clearing, length, bits.clone());
        self.used -= u64::from(bits.end - bits.start) + u64::from(planted(Bug::DriftByOne));
        Ok(number)
    }

    /// Takes back [`Segments::set_persistent`].
    pub(super) fn undo_set(&mut self, extent: &Extent) {
        let Some((number, bits)) = self.layout.locate(extent) else { return };
        if let Some(loaded) = self.segments[number as usize].loaded.as_deref_mut() {
            self.used -= u64::from(bits.end - bits.start);
            loaded.persistent.clear(bits);
        }
    }

    /// Takes back [`Segments::clear_persistent`].
    pub(super) fn undo_clear(&mut self, extent: &Extent) {
        let Some((number, bits)) = self.layout.locate(extent) else { return };
        if let Some(loaded) = self.segments[number as usize].loaded.as_deref_mut() {
            self.used += u64::from(bits.end - bits.start);
            loaded.persistent.set(bits.clone());
            remove(&mut loaded.clearing, bits);
        }
    }

    /// Segments that the next checkpoint must write though no extent in them changes.
    pub(super) fn outdated(&self) -> impl Iterator<Item = u32> {
        let is_outdated = |number: &u32| self.segments[*number as usize].is_outdated;
        self.loaded.iter().copied().filter(is_outdated)
    }

    /// The next bitmap slot of segment `number` for checkpoint `generation`, and the entry that goes with it.
    ///
    /// # Errors
    /// Device errors; [`DmuError::Corrupt`].
    pub(super) fn segment_image(
        &mut self,
        number: u32,
        generation: Generation,
    ) -> Result<(Write, Entry), DmuError> {
        self.load(number)?;
        let segment = &self.segments[number as usize];
        let base = self.generation;
        let (Some(loaded), Some(slots)) = (segment.loaded.as_deref(), self.layout.slots(number)) else {
            unreachable!("a segment without slots has no blocks to change");
        };
        let (bytes, entry) =
            loaded.image(&segment.entry, self.uuid, &self.layout, number, (generation, base));
        let block = slots.start + u64::from(entry.current.slot) * u64::from(self.layout.slot_blocks());
        Ok(((self.layout.fixed(block, bytes.len()), bytes), entry))
    }

    /// The next slots of the table pages that hold the segments of `changed`.
    pub(super) fn page_images(
        &self,
        changed: &BTreeMap<u32, Entry>,
        generation: Generation,
    ) -> Vec<(u32, Write, SlotRef)> {
        let numbers: BTreeSet<u32> = changed.keys().map(|number| table::page_of(*number)).collect();
        let image = |page: u32| {
            let segments = table::segments_of(page, self.segments.len() as u32);
            let entries: Vec<Entry> = segments
                .map(|number| changed.get(&number).copied().unwrap_or(self.segments[number as usize].entry))
                .collect();
            let old = &self.pages[page as usize];
            let at = (generation, self.generation);
            let (bytes, reference) = table::page_image(self.source(), page, old, &entries, at);
            let Some(block) = self.layout.page_block(page, reference.slot) else {
                unreachable!("the layout has an area for every page");
            };
            (page, (self.layout.fixed(block, bytes.len()), bytes), reference)
        };
        numbers.into_iter().map(image).collect()
    }

    /// What the root of the next checkpoint says of this vdev.
    pub(super) fn root_vdev(&self, pages: &[(u32, SlotRef)]) -> RootVdev {
        let mut out = RootVdev {
            id: self.layout.id,
            tier: self.layout.tier,
            blocks: self.layout.blocks,
            free: self.total - self.used,
            segment_blocks: self.layout.segment_blocks,
            reserved: self.layout.reserved.clone(),
            areas: self.layout.areas.clone(),
            pages: self.pages.clone(),
        };
        for (page, reference) in pages {
            out.pages[*page as usize] = *reference;
        }
        out
    }

    /// Checkpoint `generation`, which changed `entries` and `pages`, is durable: what the one before the last one held
    /// is no longer held, and what nobody owns comes free.
    pub(super) fn committed(
        &mut self,
        generation: Generation,
        entries: &BTreeMap<u32, Entry>,
        pages: &[(u32, SlotRef)],
    ) {
        let before = std::mem::replace(&mut self.generation, generation);
        for (number, entry) in entries {
            self.segments[*number as usize].entry = *entry;
            self.segments[*number as usize].is_outdated = false;
        }
        for (page, reference) in pages {
            self.pages[*page as usize] = *reference;
        }
        for number in std::mem::take(&mut self.unsettled) {
            let segment = &mut self.segments[number as usize];
            let more = segment.entry.free - segment.free;
            segment.free = segment.entry.free;
            self.free += u64::from(more);
            self.dead -= u64::from(more);
            let longest = segment.entry.longest;
            self.set_longest(number, longest);
        }
        for number in self.loaded.clone() {
            self.settle(number);
        }
        self.drop_idle(before);
    }

    /// Moves the sets of a loaded segment one checkpoint on.
    fn settle(&mut self, number: u32) {
        let Some(loaded) = self.segments[number as usize].loaded.as_deref_mut() else { return };
        loaded.opened = None;
        let cleared = loaded.clearing.take();
        if let Some(cleared) = &cleared {
            let bits = cleared.bits();
            let dead = loaded.dead.get_or_insert_with(|| Bitmap::new(bits));
            let before = dead.count_set();
            dead.add(cleared);
            self.dead += u64::from(dead.count_set() - before);
        }
        let orphans = loaded.orphans.take();
        if let Some(orphans) = &orphans {
            loaded.busy.subtract(orphans);
            if let Some(dead) = &mut loaded.dead {
                dead.subtract(orphans);
            }
            self.dead -= u64::from(orphans.count_set());
        }
        let not_empty = |set: Option<Bitmap>| set.filter(|bits| !bits.is_clear());
        loaded.held = cleared;
        loaded.dead = not_empty(loaded.dead.take());
        if let Some(orphans) = orphans {
            self.refresh(number);
            orphans.set_runs().for_each(|run| self.discard(&self.extent(number, run)));
        }
    }

    /// Drops bitmaps that nothing touched since checkpoint `before` when too many are in memory.
    fn drop_idle(&mut self, before: Generation) {
        if self.loaded.len() <= LOADED_SEGMENTS_MAX {
            return;
        }
        let idle = |number: &u32| {
            let segment = &self.segments[*number as usize];
            let unchanged = segment.entry.current.generation < self.generation && !segment.is_outdated;
            unchanged && segment.loaded.as_deref().is_some_and(|l| l.touched < before && l.is_idle())
        };
        let numbers: Vec<u32> = self.loaded.iter().copied().filter(idle).collect();
        for number in numbers {
            self.segments[number as usize].loaded = None;
            self.loaded.remove(&number);
        }
    }
}
