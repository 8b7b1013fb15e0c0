//! The allocation state of one checkpoint as a checker sees it: read from its table root, compared with what is reached.

use super::bitmap::Bitmap;
use super::format::{self, Entry, Identity, Root, RootVdev, SLOT_COUNT, SlotRef};
use super::layout::{Layout, VdevGeometry};
use super::segment::Source;
use super::table::{self, SeenGenerations};
use crate::base::buffer::AlignedBuffer;
use crate::base::codec::DecodeError;
use crate::base::extent::Extent;
use crate::base::ids::{Generation, Uuid, VdevId};
use crate::base::units::BLOCK_BYTES;
use crate::pool::Pool;

/// What is wrong with the allocation state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The device does not read it.
    Unreadable,
    /// The bytes are not those that were written.
    Checksum,
    /// The bytes are not of the format.
    Decode,
    /// The bytes are not what the writer would have written for what they say.
    Canonical,
    /// Sound bytes of another place, pool or checkpoint.
    Identity,
    /// A generation that cannot be.
    Generation,
    /// The table describes another device.
    Geometry,
    /// A block that is never handed out is marked free.
    Reserved,
    /// A block that is reached is marked free.
    Unallocated,
    /// A block that nothing reaches is marked taken.
    Leak,
    /// A recorded count differs from the bitmap.
    Count,
    /// One member does not hold what the others give.
    Copy,
}

/// One thing that is wrong with the allocation state.
#[derive(Debug, Clone)]
pub(crate) struct Flaw {
    pub(crate) fault: Fault,
    pub(crate) vdev: VdevId,
    /// First block.
    pub(crate) block: u64,
    /// For a leak and what is unallocated: how many.
    pub(crate) blocks: u64,
    pub(crate) expected: String,
    pub(crate) found: String,
}

type Report<'a> = &'a mut dyn FnMut(Flaw);

fn flaw(fault: Fault, (vdev, block): (VdevId, u64), expected: impl ToString, found: impl ToString) -> Flaw {
    Flaw { fault, vdev, block, blocks: 1, expected: expected.to_string(), found: found.to_string() }
}

fn of_decode(error: &DecodeError) -> Fault {
    if error.field == "checksum" { Fault::Checksum } else { Fault::Decode }
}

/// What the table of a checkpoint says. Parts that could not be read are left out.
#[derive(Debug)]
pub(crate) struct AllocationState {
    pool: Uuid,
    generation: Generation,
    vdevs: Vec<VdevState>,
    /// What all slots of the pages mention; of the newest checkpoint's table only.
    seen: SeenGenerations,
}

#[derive(Debug)]
struct VdevState {
    layout: Layout,
    /// Entries of each page; `None` where it could not be read.
    pages: Vec<Option<Vec<Entry>>>,
}

/// Corrected counts of a segment, for repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentCounts {
    pub(crate) vdev: VdevId,
    pub(crate) segment: u32,
    pub(crate) free: u32,
    pub(crate) free_in_both: u32,
    pub(crate) longest: u32,
}

/// What is expected of a table.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    /// The checkpoint.
    pub(crate) generation: Generation,
    /// The checkpoint before it.
    pub(crate) parent: Generation,
    /// The durable vdevs as the newest superblock describes them.
    pub(crate) vdevs: &'a [VdevGeometry],
    /// Whether it is the table of the newest superblock: a device may have been shorter before.
    pub(crate) newest: bool,
}

impl AllocationState {
    /// Reads the table whose root is `bytes`; `None` when the root is not one.
    pub(crate) fn read(
        pool: &Pool,
        bytes: &[u8],
        expected: &Expected<'_>,
        report: Report<'_>,
    ) -> Option<Self> {
        let nowhere = (VdevId(0), 0);
        let root = match Root::decode(bytes) {
            Ok(root) => root,
            Err(error) => {
                report(flaw(of_decode(&error), nowhere, "an allocation table root", error));
                return None;
            }
        };
        if root.encode() != bytes {
            report(flaw(Fault::Canonical, nowhere, "the table root as it is written", "other bytes"));
        }
        let names = (root.pool, root.generation);
        if names != (pool.uuid(), expected.generation) {
            let of = |(pool, generation)| format!("table of pool {pool}, generation {generation}");
            report(flaw(Fault::Identity, nowhere, of((pool.uuid(), expected.generation)), of(names)));
            return None;
        }
        if root.parent != expected.parent {
            let wanted = format!("a table that follows generation {}", expected.parent);
            report(flaw(Fault::Generation, nowhere, wanted, root.parent));
        }
        let known = |id: VdevId| root.vdevs.iter().any(|vdev| vdev.id == id);
        let has_left = |id: VdevId| root.indirect.iter().any(|gone| gone.id == id);
        let is_missing = |vdev: &&VdevGeometry| expected.newest && !known(vdev.id) && !has_left(vdev.id);
        for missing in expected.vdevs.iter().filter(is_missing) {
            report(flaw(Fault::Geometry, (missing.id, 0), "a table of the vdev", "none"));
        }
        let (pool_uuid, generation) = names;
        let mut state =
            Self { pool: pool_uuid, generation, vdevs: Vec::new(), seen: SeenGenerations::default() };
        for vdev in root.vdevs {
            if let Some(layout) = layout_of(pool, &vdev, expected, report) {
                if expected.newest {
                    state.note_pages(pool, &layout, vdev.pages.len() as u32);
                }
                let pages = state.read_pages(pool, &layout, &vdev, report);
                state.vdevs.push(VdevState { layout, pages });
            }
        }
        Some(state)
    }

    /// Notes what the slots of all pages mention, as an opening does.
    fn note_pages(&mut self, pool: &Pool, layout: &Layout, pages: u32) {
        let source = Source { pool, uuid: self.pool, layout };
        let mut bytes = AlignedBuffer::zeroed(BLOCK_BYTES);
        for (page, slot) in (0..pages).flat_map(|page| (0..SLOT_COUNT as u8).map(move |slot| (page, slot))) {
            // What does not read mentions nothing; a slot that is in use is reported where it is read.
            if let Some(block) = layout.page_block(page, slot)
                && pool.read(&layout.fixed(block, bytes.len()), 0, &mut bytes).is_ok()
            {
                table::note(source, page, &bytes, &mut self.seen);
            }
        }
    }

    /// The newest generations that the table's pages mention.
    pub(crate) fn seen_generations(&self) -> SeenGenerations {
        self.seen
    }

    fn read_pages(
        &self,
        pool: &Pool,
        layout: &Layout,
        vdev: &RootVdev,
        report: Report<'_>,
    ) -> Vec<Option<Vec<Entry>>> {
        let mut pages = Vec::new();
        for (page, wanted) in (0..).zip(&vdev.pages) {
            pages.push(self.read_page(pool, layout, page, wanted, report));
        }
        let entries = || pages.iter().flatten().flatten();
        if pages.iter().all(Option::is_some) && entries().count() == layout.segment_count() as usize {
            let free: u64 = (0..)
                .zip(entries())
                .map(|(number, entry)| {
                    u64::from(if entry.is_virgin() { layout.usable(number) } else { entry.free })
                })
                .sum();
            if free != vdev.free {
                let expected = format!("{} free blocks, as the table root says", vdev.free);
                report(flaw(Fault::Count, (layout.id, 0), expected, format!("{free} in its pages")));
            }
        }
        pages
    }

    fn read_page(
        &self,
        pool: &Pool,
        layout: &Layout,
        page: u32,
        wanted: &SlotRef,
        report: Report<'_>,
    ) -> Option<Vec<Entry>> {
        let segments = table::segments_of(page, layout.segment_count());
        if wanted.generation.0 == 0 {
            return Some(vec![Entry::default(); segments.len()]);
        }
        let block = layout.page_block(page, wanted.slot)?;
        let at = (layout.id, block);
        let source = Source { pool, uuid: self.pool, layout };
        let mut is_right = |bytes: &[u8]| {
            format::decode_page(bytes)
                .is_ok_and(|(identity, _)| self.is_of(&identity, layout.id, page, wanted, bytes))
        };
        let bytes = match source.fixed(block, BLOCK_BYTES, &mut is_right) {
            Ok(bytes) => bytes,
            Err(error) => {
                report(flaw(Fault::Unreadable, at, "an allocation table page", error));
                return None;
            }
        };
        let (identity, mut entries) = match format::decode_page(&bytes) {
            Ok(decoded) => decoded,
            Err(error) => {
                report(flaw(of_decode(&error), at, "an allocation table page", error));
                return None;
            }
        };
        if !self.is_of(&identity, layout.id, page, wanted, &bytes) {
            let expected = format!("page {page} of generation {}", wanted.generation);
            report(flaw(Fault::Identity, at, expected, describe("page", &identity)));
            return None;
        }
        if format::encode_page(&identity, &entries).0[..] != bytes[..] {
            report(flaw(Fault::Canonical, at, "the page as it is written", "other bytes"));
        }
        report_copies(pool, &layout.fixed(block, BLOCK_BYTES), &bytes, report);
        if wanted.generation > self.generation {
            let expected = format!("a page of at most generation {}", self.generation);
            report(flaw(Fault::Generation, at, expected, wanted.generation));
        }
        for (number, entry) in (segments.start..).zip(&mut entries) {
            if entry.is_virgin() {
                continue;
            }
            let is_segment = segments.contains(&number) && layout.slots(number).is_some();
            if !is_segment {
                report(flaw(Fault::Decode, at, "entries of segments", format!("one of segment {number}")));
                *entry = Entry::default();
            } else if entry.current.generation > wanted.generation {
                let expected = format!("bitmaps of at most generation {}", wanted.generation);
                report(flaw(Fault::Generation, at, expected, entry.current.generation));
            } else if entry.free > layout.usable(number) {
                let expected = format!("at most {} free blocks", layout.usable(number));
                report(flaw(Fault::Count, at, expected, entry.free));
            }
        }
        entries.truncate(segments.len());
        Some(entries)
    }

    fn is_of(&self, identity: &Identity, vdev: VdevId, number: u32, wanted: &SlotRef, bytes: &[u8]) -> bool {
        (identity.pool, identity.vdev, identity.number, identity.generation)
            == (self.pool, vdev, number, wanted.generation)
            && format::stored_checksum(bytes) == wanted.checksum
    }

    /// Where slot `slot` of the bitmap of segment `segment` is, for tests that damage it.
    #[cfg(test)]
    pub(crate) fn bitmap_slot(&self, vdev: VdevId, segment: u32, slot: u8) -> Option<Extent> {
        let vdev = self.vdevs.iter().find(|known| known.layout.id == vdev)?;
        let (block, blocks) = (vdev.layout.slot_block(segment, slot)?, vdev.layout.slot_blocks());
        Some(Extent { vdev: vdev.layout.id, block, blocks })
    }

    /// Whether `extent` lies wholly inside of blocks of one segment that can be handed out.
    pub(crate) fn can_hold(&self, extent: &Extent) -> bool {
        let vdev = self.vdevs.iter().find(|vdev| vdev.layout.id == extent.vdev);
        vdev.is_some_and(|vdev| vdev.layout.locate(extent).is_some())
    }

    fn read_bitmap(
        &self,
        pool: &Pool,
        layout: &Layout,
        number: u32,
        wanted: &SlotRef,
        report: Report<'_>,
    ) -> Option<Bitmap> {
        let block = layout.slot_block(number, wanted.slot)?;
        let at = (layout.id, block);
        let source = Source { pool, uuid: self.pool, layout };
        let length = layout.slot_data_blocks() as usize * BLOCK_BYTES;
        let mut is_right = |bytes: &[u8]| {
            format::decode_slot(bytes, layout.segment_blocks)
                .is_ok_and(|(identity, _)| self.is_of(&identity, layout.id, number, wanted, bytes))
        };
        let bytes = match source.fixed(block, length, &mut is_right) {
            Ok(bytes) => bytes,
            Err(error) => {
                report(flaw(Fault::Unreadable, at, "a segment bitmap", error));
                return None;
            }
        };
        let (identity, bitmap) = match format::decode_slot(&bytes, layout.segment_blocks) {
            Ok(decoded) => decoded,
            Err(error) => {
                report(flaw(of_decode(&error), at, "a segment bitmap", error));
                return None;
            }
        };
        if !self.is_of(&identity, layout.id, number, wanted, &bytes) {
            let expected = format!("bitmap of segment {number}, generation {}", wanted.generation);
            report(flaw(Fault::Identity, at, expected, describe("bitmap of segment", &identity)));
            return None;
        }
        if format::encode_slot(&identity, &bitmap).0[..] != bytes[..] {
            report(flaw(Fault::Canonical, at, "the bitmap as it is written", "other bytes"));
        }
        report_copies(pool, &layout.fixed(block, length), &bytes, report);
        Some(bitmap)
    }

    /// Compares every bitmap with `reached` (sorted by vdev and block, all [`AllocationState::can_hold`] them) and with
    /// what the table records of it. Returns the counts of the segments whose record is wrong.
    pub(crate) fn compare(&self, pool: &Pool, reached: &[Extent], report: Report<'_>) -> Vec<SegmentCounts> {
        let mut wrong = Vec::new();
        for vdev in &self.vdevs {
            let layout = &vdev.layout;
            for (page, entries) in (0..).zip(&vdev.pages) {
                let Some(entries) = entries else { continue };
                let segments = table::segments_of(page, layout.segment_count());
                for (number, entry) in segments.zip(entries) {
                    wrong.extend(self.compare_segment(pool, layout, number, entry, reached, report));
                }
            }
        }
        wrong
    }

    fn compare_segment(
        &self,
        pool: &Pool,
        layout: &Layout,
        number: u32,
        entry: &Entry,
        reached: &[Extent],
        report: Report<'_>,
    ) -> Option<SegmentCounts> {
        let reserved = layout.reserved_bits(number);
        let stored = if entry.is_virgin() {
            reserved.clone()
        } else {
            self.read_bitmap(pool, layout, number, &entry.current, report)?
        };
        let segment = layout.segment(number);
        let mut ranges = |fault, bits: &Bitmap, expected: &str, found: &str| {
            for run in bits.set_runs() {
                let blocks = u64::from(run.end - run.start);
                let at = (layout.id, segment.start + u64::from(run.start));
                report(Flaw { blocks, ..flaw(fault, at, expected, format!("{blocks} blocks {found}")) });
            }
        };
        let mut open = reserved.clone();
        open.subtract(&stored);
        ranges(Fault::Reserved, &open, "blocks that are never handed out", "marked free");
        let mut wanted = Bitmap::new(layout.segment_blocks);
        let first = reached.partition_point(|e| (e.vdev, e.end()) <= (layout.id, segment.start));
        for extent in reached[first..].iter().take_while(|e| e.vdev == layout.id && e.block < segment.end) {
            if let Some((_, bits)) = layout.locate(extent) {
                wanted.set(bits);
            }
        }
        let mut lost = wanted.clone();
        lost.subtract(&stored);
        ranges(Fault::Unallocated, &lost, "blocks that are reached marked taken", "marked free");
        let mut leaked = stored.clone();
        leaked.subtract(&wanted);
        leaked.subtract(&reserved);
        ranges(Fault::Leak, &leaked, "an owner of every block that is taken", "of nobody");
        if entry.is_virgin() {
            return None;
        }
        self.compare_counts(pool, layout, number, entry, &stored, report)
    }

    fn compare_counts(
        &self,
        pool: &Pool,
        layout: &Layout,
        number: u32,
        entry: &Entry,
        stored: &Bitmap,
        report: Report<'_>,
    ) -> Option<SegmentCounts> {
        let mut free_in_both = entry.free_in_both;
        if entry.current.generation == self.generation {
            let previous = match entry.previous.generation {
                Generation(0) => Some(layout.reserved_bits(number)),
                // The slot before may have been used by a checkpoint that was given up.
                _ => self.read_bitmap(pool, layout, number, &entry.previous, &mut |_| ()),
            };
            if let Some(mut both) = previous {
                both.add(stored);
                free_in_both = both.count_clear();
            }
        }
        let counts = SegmentCounts {
            vdev: layout.id,
            segment: number,
            free: stored.count_clear(),
            free_in_both,
            longest: stored.longest_clear_run(),
        };
        let recorded = SegmentCounts {
            free: entry.free,
            free_in_both: entry.free_in_both,
            longest: entry.longest,
            ..counts
        };
        if counts == recorded {
            return None;
        }
        let of = |counts: &SegmentCounts| {
            let SegmentCounts { free, free_in_both, longest, .. } = counts;
            format!("{free} free, {free_in_both} free in both, {longest} in a row")
        };
        let at = (layout.id, layout.segment(number).start);
        report(flaw(Fault::Count, at, of(&recorded), of(&counts)));
        Some(counts)
    }
}

/// Reports which copies of a fixed place are not what was found right.
fn report_copies(pool: &Pool, place: &Extent, right: &[u8], report: Report<'_>) {
    for wrong in pool.wrong_copies(place, 0, right, &(0..right.len())).unwrap_or_default() {
        let at = (place.vdev, place.block);
        let found = format!("other bytes on {} at byte {}", wrong.device, wrong.offset);
        report(flaw(Fault::Copy, at, "the same on all members", found));
    }
}

fn describe(what: &str, identity: &Identity) -> String {
    let Identity { vdev, number, generation, .. } = identity;
    format!("{what} {number} of vdev {vdev}, generation {generation}, or another version of it")
}

fn layout_of(pool: &Pool, vdev: &RootVdev, expected: &Expected<'_>, report: Report<'_>) -> Option<Layout> {
    let at = (vdev.id, 0);
    let Some(known) = expected.vdevs.iter().find(|known| known.id == vdev.id) else {
        report(flaw(Fault::Geometry, at, "a durable vdev of the pool", format!("vdev {}", vdev.id)));
        return None;
    };
    let geometry = VdevGeometry {
        id: vdev.id,
        tier: vdev.tier,
        blocks: vdev.blocks,
        reserved: vdev.reserved.clone(),
        geometry: known.geometry,
    };
    let layout = match Layout::new(&geometry, vdev.segment_blocks, vdev.areas.clone()) {
        Ok(layout) => layout,
        Err(reason) => {
            report(flaw(Fault::Geometry, at, "a layout that is possible", reason));
            return None;
        }
    };
    if vdev.pages.len() != layout.page_count() as usize {
        report(flaw(Fault::Geometry, at, format!("{} table pages", layout.page_count()), vdev.pages.len()));
        return None;
    }
    let covers = |range: &std::ops::Range<u64>| {
        vdev.reserved.iter().any(|own| own.start <= range.start && range.end <= own.end)
    };
    let same_length = if expected.newest { vdev.blocks == known.blocks } else { vdev.blocks <= known.blocks };
    // Label areas beyond the length that the device had then are not the table's business.
    let reserved = known.reserved.iter().filter(|range| range.end <= vdev.blocks).all(covers);
    let same = (vdev.tier, vdev.segment_blocks) == (known.tier, pool.segment_blocks());
    if !same_length || !same {
        let of = |tier, blocks, segment| format!("tier {tier}, {blocks} blocks in segments of {segment}");
        let expected = of(known.tier, known.blocks, pool.segment_blocks());
        report(flaw(Fault::Geometry, at, expected, of(vdev.tier, vdev.blocks, vdev.segment_blocks)));
    }
    if !reserved {
        report(flaw(Fault::Reserved, at, "label areas that are reserved", "some that are not"));
    }
    Some(layout)
}
