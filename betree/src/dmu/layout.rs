//! Where segments, bitmap slots and table areas lie on a vdev.
//!
//! ```text
//!  0          label                    segment 0            segment 1                      last segment
//!  ├──────────┬────────────┬──────────┬───────────────────┬──────────┬──────────── … ─────┬──────┬────────┤
//!  │ reserved │ table area │ 3 slots  │ blocks to give    │ 3 slots  │ blocks to give     │ …    │reserved│
//! ```
//!
//! Everything follows from five numbers and two lists, all in the table root: nothing is searched on the device. The slots
//! of a segment are the first blocks of it that are neither reserved nor table area; a segment that has no room for them
//! (the short tail of a device) gives no blocks. Growth appends segments and never moves slots.

use super::bitmap::Bitmap;
use super::format::{Area, PAGE_ENTRIES, SLOT_COUNT, VDEV_BLOCKS_MAX, is_segment_length, slot_blocks};
use crate::base::extent::Extent;
use crate::base::ids::VdevId;
use crate::base::preference::TIER_COUNT;
use crate::base::units::BLOCK_BYTES;
use crate::pool::Geometry;
use std::ops::Range;

/// Segments of one vdev; at 1 GiB each 4 PiB. Bounds the memory that a length from a device can ask for.
const SEGMENTS_MAX: u64 = 1 << 22;

/// What the allocator is told about a vdev that it may allocate from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VdevGeometry {
    /// Stable id.
    pub id: VdevId,
    /// Tier, 0…3.
    pub tier: u8,
    /// Length in 4 KiB blocks.
    pub blocks: u64,
    /// Block ranges that are never handed out: the label areas.
    pub reserved: Vec<Range<u64>>,
    /// How blocks lie on its leaves.
    pub geometry: Geometry,
}

/// The fixed places of one vdev.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) id: VdevId,
    pub(super) tier: u8,
    pub(super) blocks: u64,
    pub(super) geometry: Geometry,
    pub(super) segment_blocks: u32,
    /// As given: ascending, disjoint.
    pub(super) reserved: Vec<Range<u64>>,
    pub(super) areas: Vec<Area>,
    /// Reserved ranges and table areas: ascending, disjoint, merged.
    blocked: Vec<Range<u64>>,
}

/// Sorts and merges; ranges beyond `blocks` are cut.
fn normalise(mut ranges: Vec<Range<u64>>, blocks: u64) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut out: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let range = range.start..range.end.min(blocks);
        match out.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

/// Pages for `segments` segments.
fn pages_for(segments: u32) -> u32 {
    segments.div_ceil(PAGE_ENTRIES as u32)
}

impl Layout {
    /// The layout of a vdev as a table root describes it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(
        geometry: &VdevGeometry,
        segment_blocks: u32,
        areas: Vec<Area>,
    ) -> Result<Self, &'static str> {
        if usize::from(geometry.tier) >= TIER_COUNT {
            return Err("no such tier");
        }
        if !is_segment_length(segment_blocks) {
            return Err("the segment length is not a power of two between 8 and 262,144 blocks");
        }
        if geometry.blocks > VDEV_BLOCKS_MAX
            || geometry.blocks.div_ceil(u64::from(segment_blocks)) > SEGMENTS_MAX
        {
            return Err("more segments than the allocator can handle");
        }
        let reserved = normalise(geometry.reserved.clone(), geometry.blocks);
        let mut blocked = reserved.clone();
        let granule = geometry.geometry.granule();
        blocked.extend(areas.iter().map(|area| area.range(granule)));
        let length = |ranges: &[Range<u64>]| ranges.iter().map(|range| range.end - range.start).sum::<u64>();
        let apart = length(&blocked);
        let blocked = normalise(blocked, geometry.blocks);
        if length(&blocked) != apart {
            return Err("a table area overlaps something or lies outside of the device");
        }
        let (id, tier, blocks) = (geometry.id, geometry.tier, geometry.blocks);
        let geometry = geometry.geometry;
        let layout = Self { id, tier, blocks, geometry, segment_blocks, reserved, areas, blocked };
        let capacity: u64 = layout.areas.iter().map(|area| u64::from(area.pages)).sum();
        if capacity < u64::from(layout.page_count()) {
            return Err("the table areas are too small");
        }
        Ok(layout)
    }

    /// The layout of a vdev that is new to the pool: its table area comes right behind the front label.
    ///
    /// # Errors
    /// Why the vdev cannot be used.
    pub(super) fn create(geometry: &VdevGeometry, segment_blocks: u32) -> Result<Self, &'static str> {
        Self::extend(geometry, segment_blocks, Vec::new(), 0)
    }

    /// The layout of a vdev that had `areas` and `old_segments` segments, with an area in the first new segments where
    /// more pages are needed. Half as many pages again are added for growth.
    ///
    /// # Errors
    /// Why the vdev cannot be used.
    pub(super) fn extend(
        geometry: &VdevGeometry,
        segment_blocks: u32,
        mut areas: Vec<Area>,
        old_segments: u32,
    ) -> Result<Self, &'static str> {
        if !is_segment_length(segment_blocks) {
            return Self::new(geometry, segment_blocks, areas);
        }
        let segments = geometry.blocks.div_ceil(u64::from(segment_blocks)).min(SEGMENTS_MAX) as u32;
        let capacity: u32 = areas.iter().map(|area| area.pages).sum();
        let missing = pages_for(segments).saturating_sub(capacity);
        if missing > 0 {
            let pages = missing + missing / 2;
            let mut blocked = geometry.reserved.clone();
            let granule = geometry.geometry.granule();
            blocked.extend(areas.iter().map(|area| area.range(granule)));
            let blocked = normalise(blocked, geometry.blocks);
            let wanted = u64::from(pages) * u64::from(SLOT_COUNT) * u64::from(granule);
            let from = u64::from(old_segments) * u64::from(segment_blocks);
            let block = first_fit(&blocked, from, wanted, geometry.blocks)
                .ok_or("the device is too small for its allocation table")?;
            areas.push(Area { block, pages });
        }
        let layout = Self::new(geometry, segment_blocks, areas)?;
        if (0..layout.segment_count()).all(|number| layout.usable(number) == 0) {
            return Err("the device is too small: no block is left to allocate");
        }
        Ok(layout)
    }

    pub(super) fn segment_count(&self) -> u32 {
        self.blocks.div_ceil(u64::from(self.segment_blocks)) as u32
    }

    pub(super) fn page_count(&self) -> u32 {
        pages_for(self.segment_count())
    }

    /// Data blocks of one bitmap slot.
    pub(super) fn slot_data_blocks(&self) -> u32 {
        slot_blocks(self.segment_blocks)
    }

    /// Blocks that one bitmap slot takes.
    pub(super) fn slot_blocks(&self) -> u32 {
        self.geometry.taken(u64::from(self.slot_data_blocks())) as u32
    }

    /// Blocks of segment `number`; the last one may be short.
    pub(super) fn segment(&self, number: u32) -> Range<u64> {
        let start = u64::from(number) * u64::from(self.segment_blocks);
        start..(start + u64::from(self.segment_blocks)).min(self.blocks)
    }

    /// The ranges of `blocked` that touch `range`.
    fn blocked_in(&self, range: Range<u64>) -> impl Iterator<Item = &Range<u64>> {
        let first = self.blocked.partition_point(|blocked| blocked.end <= range.start);
        self.blocked[first..].iter().take_while(move |blocked| blocked.start < range.end)
    }

    /// The three bitmap slots of segment `number`; `None` when it has no room for them.
    pub(super) fn slots(&self, number: u32) -> Option<Range<u64>> {
        let Range { start, end } = self.segment(number);
        let wanted = u64::from(self.slot_blocks()) * u64::from(SLOT_COUNT);
        let block = first_fit(&self.blocked, start, wanted, end)?;
        Some(block..block + wanted)
    }

    /// The extent of `bytes` bytes that have their fixed place at `block`.
    pub(super) fn fixed(&self, block: u64, bytes: usize) -> Extent {
        let blocks = self.geometry.taken((bytes / BLOCK_BYTES) as u64) as u32;
        Extent { vdev: self.id, block, blocks }
    }

    /// First block of slot `slot` of segment `number`.
    pub(super) fn slot_block(&self, number: u32, slot: u8) -> Option<u64> {
        Some(self.slots(number)?.start + u64::from(slot) * u64::from(self.slot_blocks()))
    }

    /// Block of slot `slot` of table page `page`.
    pub(super) fn page_block(&self, page: u32, slot: u8) -> Option<u64> {
        let mut left = page;
        for area in &self.areas {
            if left < area.pages {
                let slots = u64::from(left) * u64::from(SLOT_COUNT) + u64::from(slot);
                return Some(area.block + slots * u64::from(self.geometry.granule()));
            }
            left -= area.pages;
        }
        None
    }

    /// The ranges of segment `number` that can be handed out. On a striped vdev they start and end at multiples of what extents
    /// take, and so does all that is handed out of them: no hole is ever too small for a block with its parity.
    fn open_ranges(&self, number: u32) -> Vec<Range<u64>> {
        let segment = self.segment(number);
        let Some(slots) = self.slots(number) else { return Vec::new() };
        let mut closed: Vec<Range<u64>> = self.blocked_in(segment.clone()).cloned().collect();
        closed.push(slots);
        closed.sort_unstable_by_key(|range| range.start);
        closed.push(segment.end..segment.end);
        let granule = u64::from(self.geometry.granule());
        let mut start = segment.start;
        let mut open = Vec::with_capacity(closed.len());
        for range in closed {
            let whole = start.next_multiple_of(granule)..range.start.min(segment.end) / granule * granule;
            if whole.start < whole.end {
                open.push(whole);
            }
            start = start.max(range.end);
        }
        open
    }

    /// Blocks of segment `number` that can be handed out.
    pub(super) fn usable(&self, number: u32) -> u32 {
        self.open_ranges(number).iter().map(|range| (range.end - range.start) as u32).sum()
    }

    /// The bits of segment `number` that are always set.
    pub(super) fn reserved_bits(&self, number: u32) -> Bitmap {
        let mut bits = Bitmap::new(self.segment_blocks);
        bits.set(0..self.segment_blocks);
        let start = self.segment(number).start;
        for range in self.open_ranges(number) {
            bits.clear((range.start - start) as u32..(range.end - start) as u32);
        }
        bits
    }

    /// Segment and bits of `extent`; `None` when it is empty or not wholly inside the blocks of one segment that can be
    /// handed out.
    pub(super) fn locate(&self, extent: &Extent) -> Option<(u32, Range<u32>)> {
        let end = extent.block.checked_add(u64::from(extent.blocks))?;
        if extent.blocks == 0 || end > self.blocks {
            return None;
        }
        let number = (extent.block / u64::from(self.segment_blocks)) as u32;
        let segment = self.segment(number);
        let slots = self.slots(number)?;
        let free_of_slots = end <= slots.start || slots.end <= extent.block;
        let granule = self.geometry.granule();
        let whole = extent.block.is_multiple_of(u64::from(granule)) && extent.blocks.is_multiple_of(granule);
        let inside = end <= segment.end && free_of_slots && whole;
        if !inside || self.blocked_in(extent.block..end).next().is_some() {
            return None;
        }
        let start = (extent.block - segment.start) as u32;
        Some((number, start..start + extent.blocks))
    }
}

/// The first block from `from` where `wanted` blocks below `end` touch none of `blocked` (ascending, disjoint).
fn first_fit(blocked: &[Range<u64>], from: u64, wanted: u64, end: u64) -> Option<u64> {
    let mut start = from;
    let first = blocked.partition_point(|range| range.end <= from);
    for range in &blocked[first..] {
        if start.checked_add(wanted)? <= range.start {
            break;
        }
        start = start.max(range.end);
    }
    (start.checked_add(wanted)? <= end).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::format::VdevKind;

    fn geometry(blocks: u64, reserved: Vec<Range<u64>>) -> VdevGeometry {
        VdevGeometry { id: VdevId(0), tier: 1, blocks, reserved, geometry: Geometry::PLAIN }
    }

    fn striped() -> [Geometry; 4] {
        [(VdevKind::Parity1, 3), (VdevKind::Parity1, 5), (VdevKind::Parity2, 4), (VdevKind::Parity2, 6)]
            .map(|(kind, leaves)| Geometry::of(kind, leaves))
    }

    #[test]
    fn everything_has_one_place() {
        for (blocks, segment_blocks) in [
            (64, 64),
            (200, 64),
            (1000, 8),
            (1003, 32),
            (70_001, 64),
            (3 << 18, 1 << 18),
            (1_000_000, 1 << 16),
        ] {
            for kind in striped().into_iter().chain([Geometry::PLAIN]) {
                let geometry =
                    VdevGeometry { geometry: kind, ..geometry(blocks, vec![0..16, blocks - 16..blocks]) };
                let Ok(layout) = Layout::create(&geometry, segment_blocks) else {
                    assert!(segment_blocks == 8 && !kind.is_plain());
                    continue;
                };
                let granule = u64::from(kind.granule());
                let mut owners = vec![0u8; blocks as usize];
                let mut own = |range: Range<u64>| {
                    owners[range.start as usize..range.end as usize].iter_mut().for_each(|owner| *owner += 1);
                };
                layout.reserved.iter().cloned().for_each(&mut own);
                layout.areas.iter().map(|area| area.range(kind.granule())).for_each(&mut own);
                for number in 0..layout.segment_count() {
                    layout.slots(number).into_iter().for_each(&mut own);
                }
                assert!(owners.iter().all(|owner| *owner <= 1), "{blocks}/{segment_blocks}");
                let mut usable = 0;
                for number in 0..layout.segment_count() {
                    let bits = layout.reserved_bits(number);
                    assert_eq!(bits.count_clear(), layout.usable(number));
                    usable += u64::from(layout.usable(number));
                    let start = layout.segment(number).start;
                    for bit in 0..segment_blocks {
                        let block = start + u64::from(bit);
                        let taken = bits.any_set(bit..bit + 1);
                        let dead = layout.slots(number).is_none();
                        let owned = dead || block >= blocks || owners[block as usize] != 0;
                        assert!(taken || !owned);
                        assert!(owned || !taken || !kind.is_plain());
                        let extent = Extent { vdev: VdevId(0), block, blocks: granule as u32 };
                        let place = (number, bit..bit + granule as u32);
                        let expected = (!taken && block.is_multiple_of(granule)).then_some(place);
                        assert_eq!(layout.locate(&extent), expected, "block {block}");
                    }
                }
                assert!(usable > 0);
                for page in 0..layout.page_count() {
                    for slot in 0..3 {
                        let block = layout.page_block(page, slot).unwrap();
                        assert!(layout.areas.iter().any(|area| area.range(kind.granule()).contains(&block)));
                    }
                }
                let straddling = Extent { vdev: VdevId(0), block: u64::from(segment_blocks) - 1, blocks: 2 };
                assert_eq!(layout.locate(&straddling), None);
                assert_eq!(layout.locate(&Extent { vdev: VdevId(0), block: u64::MAX, blocks: 2 }), None);
                assert_eq!(layout.locate(&Extent { vdev: VdevId(0), block: blocks / 2, blocks: 0 }), None);
            }
        }
    }

    #[test]
    fn growth_keeps_slots_and_adds_pages() {
        for (old_blocks, new_blocks) in [(200u64, 300u64), (190, 70_000), (5376, 5377), (200, 10_000_000)] {
            let old =
                Layout::create(&geometry(old_blocks, vec![0..16, old_blocks - 16..old_blocks]), 64).unwrap();
            let grown =
                geometry(new_blocks, vec![0..16, old_blocks - 16..old_blocks, new_blocks - 16..new_blocks]);
            let Ok(new) = Layout::extend(&grown, 64, old.areas.clone(), old.segment_count()) else {
                assert_eq!(new_blocks, 5377);
                continue;
            };
            assert!(new.areas.starts_with(&old.areas));
            assert!(new.page_block(new.page_count() - 1, 2).is_some());
            for number in 0..old.segment_count() {
                assert!(old.slots(number).is_none() || old.slots(number) == new.slots(number));
            }
        }
    }

    #[test]
    fn hopeless_devices_are_refused() {
        assert!(Layout::create(&geometry(0, vec![]), 64).is_err());
        assert!(Layout::create(&geometry(6, vec![]), 64).is_err());
        assert!(Layout::create(&geometry(7, vec![]), 64).is_ok());
        assert!(Layout::create(&geometry(1000, vec![0..500, 500..1000]), 64).is_err());
        assert!(Layout::create(&geometry(1000, vec![]), 63).is_err());
        assert!(Layout::create(&geometry(u64::MAX, vec![]), 64).is_err());
        assert!(Layout::create(&VdevGeometry { tier: 4, ..geometry(1000, vec![]) }, 64).is_err());
        let overlap = vec![Area { block: 10, pages: 9 }];
        assert!(Layout::new(&geometry(1000, vec![0..16, 20..21]), 64, overlap).is_err());
    }
}
