//! The allocation table of one vdev on the device: pages of segment entries, three slots each.

use super::DmuError;
use super::format::{self, Area, Entry, Identity, PAGE_ENTRIES, SLOT_COUNT, SlotRef};
use super::segment::Source;
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::ids::Generation;
use crate::base::units::BLOCK_BYTES;
use std::ops::Range;

/// Pages per read at open: 768 KiB.
const READ_PAGES: u32 = 64;

/// The newest generations that pages on the devices mention; more than the opened one after an unfinished checkpoint or
/// a fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SeenGenerations {
    /// The highest generation that wrote anything: a new one must be above.
    pub written: Generation,
    /// The highest generation that was durable when something was written: an opened one below it is a rollback.
    pub durable: Generation,
}

impl SeenGenerations {
    pub(super) fn add(&mut self, other: Self) {
        self.written = self.written.max(other.written);
        self.durable = self.durable.max(other.durable);
    }
}

/// Segments that page `page` describes.
pub(super) fn segments_of(page: u32, segment_count: u32) -> Range<u32> {
    let start = page * PAGE_ENTRIES as u32;
    start..(start + PAGE_ENTRIES as u32).min(segment_count)
}

/// The page that describes `segment`.
pub(super) fn page_of(segment: u32) -> u32 {
    segment / PAGE_ENTRIES as u32
}

/// The slot that the next version of a page goes to: not its newest one, and not the one before, which the checkpoint
/// before may refer to.
pub(super) fn next_slot(page: &SlotRef) -> u8 {
    if page.generation.0 == 0 { 0 } else { (page.slot + 1) % SLOT_COUNT as u8 }
}

/// The bytes of `page` with `entries`, and the reference to them.
pub(super) fn page_image(
    source: Source<'_>,
    page: u32,
    old: &SlotRef,
    entries: &[Entry],
    (generation, base): (Generation, Generation),
) -> (AlignedBuffer, SlotRef) {
    let identity = Identity { pool: source.uuid, vdev: source.layout.id, number: page, generation, base };
    let (bytes, checksum) = format::encode_page(&identity, entries);
    (bytes, SlotRef { slot: next_slot(old), checksum, generation })
}

/// Reads the entries of all segments that `pages` describe, as of checkpoint `generation`.
///
/// # Errors
/// Device errors; [`DmuError::Corrupt`] when a page is not the one that the root names or its entries cannot be true.
pub(super) fn read(
    source: Source<'_>,
    pages: &[SlotRef],
    generation: Generation,
) -> Result<(Vec<Entry>, SeenGenerations), DmuError> {
    let mut entries = Vec::with_capacity(source.layout.segment_count() as usize);
    let mut seen = SeenGenerations::default();
    let mut first = 0;
    for Area { block, pages: capacity } in &source.layout.areas {
        let count = (*capacity).min(pages.len() as u32 - first);
        for chunk in (0..count).step_by(READ_PAGES as usize) {
            let length = READ_PAGES.min(count - chunk);
            let mut bytes = AlignedBuffer::recycled((length * SLOT_COUNT) as usize * BLOCK_BYTES);
            let granule = source.layout.geometry.granule();
            let start = block + u64::from(chunk * SLOT_COUNT) * u64::from(granule);
            let row = Extent { vdev: source.layout.id, block: start, blocks: length * SLOT_COUNT * granule };
            let read = source.pool.read_singles(&row, 0, &mut bytes);
            // What a member does not give is to be repaired, page by page.
            let clean = matches!(read, Ok(true));
            if let Err(error) = read {
                // Without redundancy, a page that does not read is an error at once; with it, it is looked for below.
                if source.pool.exclusions(source.layout.id)?.is_empty() {
                    return Err(error.into());
                }
                for (slot, place) in (0..).zip(bytes.chunks_exact_mut(BLOCK_BYTES)) {
                    if source.pool.read_singles(&row, slot, place).is_err() {
                        place.fill(0);
                    }
                }
            }
            for (index, slots) in bytes.chunks_exact(SLOT_COUNT as usize * BLOCK_BYTES).enumerate() {
                let page = first + chunk + index as u32;
                let at = start + index as u64 * u64::from(SLOT_COUNT * granule);
                note(source, page, slots, &mut seen);
                let wanted = &pages[page as usize];
                entries.extend(decode(source, page, at, wanted, (slots, clean), generation)?);
            }
        }
        first += count;
    }
    Ok((entries, seen))
}

/// Notes the generations of whatever valid versions of `page` there are.
pub(super) fn note(source: Source<'_>, page: u32, slots: &[u8], seen: &mut SeenGenerations) {
    for slot in slots.chunks_exact(BLOCK_BYTES) {
        if let Ok((identity, _)) = format::decode_page(slot)
            && (identity.pool, identity.vdev, identity.number) == (source.uuid, source.layout.id, page)
        {
            seen.add(SeenGenerations { written: identity.generation, durable: identity.base });
        }
    }
}

/// The entries of `page`, whose three slots start at block `at`, and whether every member gave its part of them.
fn decode(
    source: Source<'_>,
    page: u32,
    at: u64,
    wanted: &SlotRef,
    (slots, clean): (&[u8], bool),
    generation: Generation,
) -> Result<Vec<Entry>, DmuError> {
    let segments = segments_of(page, source.layout.segment_count());
    if wanted.generation.0 == 0 {
        return Ok(vec![Entry::default(); segments.len()]);
    }
    let block = at + u64::from(u32::from(wanted.slot) * source.layout.geometry.granule());
    let corrupt = |reason: String| source.corrupt("allocation table page", block, reason);
    let start = usize::from(wanted.slot) * BLOCK_BYTES;
    let is_wanted = |identity: &Identity, bytes: &[u8]| {
        (identity.pool, identity.vdev, identity.number, identity.generation)
            == (source.uuid, source.layout.id, page, wanted.generation)
            && format::stored_checksum(bytes) == wanted.checksum
    };
    let is_right =
        |bytes: &[u8]| format::decode_page(bytes).is_ok_and(|(identity, _)| is_wanted(&identity, bytes));
    let read;
    let mut bytes = &slots[start..start + BLOCK_BYTES];
    if !clean || !is_right(bytes) {
        read = source.fixed(block, BLOCK_BYTES, &mut |bytes| is_right(bytes))?;
        bytes = &read[..];
    }
    let (identity, mut entries) = format::decode_page(bytes).map_err(|error| corrupt(error.to_string()))?;
    if !is_wanted(&identity, bytes) {
        return Err(corrupt(format!(
            "page {page} of generation {} expected, page {} of vdev {} of generation {} found: a write was lost or \
             went astray",
            wanted.generation, identity.number, identity.vdev, identity.generation
        )));
    }
    for (index, entry) in entries.iter().enumerate() {
        let number = segments.start + index as u32;
        let room = if segments.contains(&number) { source.layout.usable(number) } else { 0 };
        let legal = entry.is_virgin()
            || (entry.current.generation <= generation.min(wanted.generation)
                && entry.free <= room
                && source.layout.slots(number).is_some());
        if !legal {
            return Err(corrupt(format!("the entry of segment {number} cannot be true")));
        }
    }
    entries.truncate(segments.len());
    Ok(entries)
}
