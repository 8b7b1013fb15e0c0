//! The meta section of a run in memory: index, filter, range deletes, and the cells of resident blocks.

use super::block::{Block, HINT_ALIGNMENT};
use super::format::{BlockRecord, decode_meta, filter_contains, filter_offset};
use super::range_deletes::RangeDeleteSet;
use crate::base::buffer::{AlignedBuffer, prefetch};
use crate::base::codec::DecodeError;
use crate::dmu::{Cache, Charge, Evictable, Heat};
use arc_swap::{ArcSwapOption, Guard};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What points to a block while it is resident.
#[derive(Default)]
struct Cell {
    block: ArcSwapOption<Block>,
    /// [`Block::hint`] of the block: the way to its frame that does not wait for the way to the block. It may be stale,
    /// which costs nothing but a prefetch in vain.
    hint: AtomicUsize,
}

impl Cell {
    /// Drops the cell. A pointer of arc-swap that is dropped looks for readers at every thread that there was, and of a
    /// thousand cells few point to anything: the others have nothing to give back, and nobody can be reading them.
    fn forget_if_empty(self) {
        if self.block.load().is_none() {
            std::mem::forget(self);
        }
    }
}

/// A checked meta section.
///
/// Each block has a cell that points to it while it is in the cache, so that a hit costs no hash look-up and writes to
/// no line that another reader wants. The cells live and die with the meta section: it is used at least as often as any
/// of its blocks.
pub(super) struct Meta {
    /// Per block the first eight bytes of its separator behind the common prefix, as a number with the same order.
    heads: Box<[u64]>,
    cells: Box<[Cell]>,
    bytes: AlignedBuffer,
    filter: Range<usize>,
    prefix: Range<usize>,
    separators: usize,
    records: Vec<BlockRecord>,
    range_deletes: Arc<RangeDeleteSet>,
    pub heat: Heat,
    footprint: usize,
    _charge: Charge,
}

impl std::fmt::Debug for Meta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meta").field("blocks", &self.records.len()).finish_non_exhaustive()
    }
}

/// The number whose order is that of the first eight bytes of `suffix`.
#[inline]
pub(super) fn long_head(suffix: &[u8]) -> u64 {
    if let Some(first) = suffix.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let mut padded = [0; 8];
    padded[..suffix.len()].copy_from_slice(suffix);
    u64::from_be_bytes(padded)
}

enum Relative<'k> {
    Before,
    Behind(&'k [u8]),
    After,
}

impl Meta {
    /// Checks the meta section in `range` of `bytes`, which starts at byte `data_end` of its run.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(
        bytes: AlignedBuffer,
        range: Range<usize>,
        data_end: u64,
        cache: &Cache,
    ) -> Result<Self, DecodeError> {
        let layout = decode_meta(&bytes[range.clone()], data_end)?;
        let shift = |part: Range<usize>| part.start + range.start..part.end + range.start;
        let separators = layout.separators.start + range.start;
        let mut start = separators;
        let heads: Box<[u64]> = layout
            .records
            .iter()
            .map(|record| {
                let end = separators + record.separator_end as usize;
                let head = long_head(&bytes[start..end]);
                start = end;
                head
            })
            .collect();
        let cells: Box<[_]> = layout.records.iter().map(|_| Cell::default()).collect();
        let range_deletes = RangeDeleteSet::new(layout.range_deletes);
        let per_block = size_of::<BlockRecord>() + size_of::<u64>() + size_of::<Cell>();
        let footprint = bytes.capacity() + cells.len() * per_block + range_deletes.footprint();
        Ok(Self {
            heads,
            cells,
            filter: shift(layout.filter),
            prefix: shift(layout.prefix),
            separators,
            records: layout.records,
            range_deletes: Arc::new(range_deletes),
            heat: Heat::default(),
            footprint,
            _charge: cache.charge(footprint),
            bytes,
        })
    }

    /// Bytes of memory, without the blocks.
    pub fn footprint(&self) -> usize {
        self.footprint
    }

    pub fn blocks(&self) -> usize {
        self.records.len()
    }

    pub fn record(&self, block: usize) -> &BlockRecord {
        &self.records[block]
    }

    pub fn range_deletes(&self) -> &Arc<RangeDeleteSet> {
        &self.range_deletes
    }

    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        filter_contains(&self.bytes[self.filter.clone()], hash)
    }

    /// Asks the processor for the line of the filter that `hash` falls on.
    #[inline]
    pub fn prefetch_filter(&self, hash: u64) {
        let filter = &self.bytes[self.filter.clone()];
        prefetch(filter.as_ptr() as usize + filter_offset(filter.len(), hash), 1);
    }

    /// Asks the processor for what a search in the block reads first, when it is resident.
    #[inline]
    pub fn prefetch(&self, block: usize) {
        let hint = self.cells[block].hint.load(Ordering::Relaxed);
        prefetch(hint / HINT_ALIGNMENT * HINT_ALIGNMENT, hint % HINT_ALIGNMENT);
    }

    /// The block when it is resident.
    #[inline]
    pub fn resident(&self, block: usize) -> Guard<Option<Arc<Block>>> {
        self.cells[block].block.load()
    }

    /// Makes `new` resident before anybody else knows this meta section, so that there are no readers to look for.
    pub fn place(&mut self, block: usize, new: Arc<Block>) {
        let cell = Cell { hint: AtomicUsize::new(new.hint()), block: ArcSwapOption::new(Some(new)) };
        std::mem::replace(&mut self.cells[block], cell).forget_if_empty();
    }

    /// Makes `new` resident, unless another thread was faster: then returns the other one.
    pub fn install(&self, block: usize, new: &Arc<Block>) -> Option<Arc<Block>> {
        let none: Option<Arc<Block>> = None;
        let cell = &self.cells[block];
        cell.hint.store(new.hint(), Ordering::Relaxed);
        let before = cell.block.compare_and_swap(&none, Some(Arc::clone(new)));
        Guard::into_inner(before)
    }

    fn relative<'k>(&self, key: &'k [u8]) -> Relative<'k> {
        let prefix = &self.bytes[self.prefix.clone()];
        match key.strip_prefix(prefix) {
            Some(suffix) => Relative::Behind(suffix),
            None if key < prefix => Relative::Before,
            None => Relative::After,
        }
    }

    fn separator(&self, block: usize) -> &[u8] {
        let start = if block == 0 { 0 } else { self.records[block - 1].separator_end as usize };
        let end = self.records[block].separator_end as usize;
        &self.bytes[self.separators + start..self.separators + end]
    }

    /// Number of blocks whose separator is less than `suffix`, or equal when `or_equal`.
    #[inline]
    fn count_below(&self, suffix: &[u8], head: u64, or_equal: bool) -> usize {
        let mut low = self.heads.partition_point(|other| *other < head);
        if self.heads.get(low) != Some(&head) {
            return low;
        }
        let mut size = self.heads[low..].partition_point(|other| *other == head);
        while size > 0 {
            let half = size / 2;
            let order = self.separator(low + half).cmp(suffix);
            if order.is_lt() || (or_equal && order.is_eq()) {
                low += half + 1;
                size -= half + 1;
            } else {
                size = half;
            }
        }
        low
    }

    /// The block in which the entries with keys of at least `key` start, or at whose end they start; there is at least
    /// one block.
    #[inline]
    pub fn find(&self, key: &[u8]) -> usize {
        let suffix = match self.relative(key) {
            Relative::Behind(suffix) => suffix,
            Relative::Before => return 0,
            Relative::After => return self.records.len() - 1,
        };
        let head = long_head(suffix);
        let block = self.count_below(suffix, head, true).saturating_sub(1);
        if self.heads[block] == head && self.records[block].continued && self.separator(block) == suffix {
            let first = self.count_below(suffix, head, false);
            return if self.records[first].continued { first.saturating_sub(1) } else { first };
        }
        block
    }

    /// The block in which the last entry with a key less than `key` lies, or before whose start it lies; there is at
    /// least one block.
    pub fn find_before(&self, key: &[u8]) -> usize {
        match self.relative(key) {
            Relative::Behind(suffix) => self.count_below(suffix, long_head(suffix), false).saturating_sub(1),
            Relative::Before => 0,
            Relative::After => self.records.len() - 1,
        }
    }
}

impl Drop for Meta {
    fn drop(&mut self) {
        std::mem::take(&mut self.cells).into_iter().for_each(Cell::forget_if_empty);
    }
}

impl Evictable for Meta {
    fn evict(&self, slot: u32) -> bool {
        if let Some(cell) = self.cells.get(slot as usize) {
            cell.block.store(None);
            cell.hint.store(0, Ordering::Relaxed);
        }
        true
    }

    fn take_reference(&self, slot: u32) -> bool {
        let cell = self.cells.get(slot as usize);
        cell.is_some_and(|cell| cell.block.load().as_ref().is_some_and(|block| block.heat.take()))
    }
}
