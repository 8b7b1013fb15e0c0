//! Contents of a disk as pages that images share.

use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use std::sync::Arc;

/// What a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
pub(super) const SECTORS_PER_PAGE: usize = BLOCK_BYTES / SECTOR_BYTES;

/// Every sector of a page, as bits.
pub(super) const WHOLE_PAGE: u8 = u8::MAX;

/// Pages that are copied together when a shared image changes: a compromise between the length of the list of chunks,
/// copied with every image, and the work of the first change to each chunk.
const CHUNK_PAGES: usize = 32;

pub(super) type Page = [u8; BLOCK_BYTES];

/// A page and what was there before it; none is zeros.
#[derive(Clone, Default)]
struct Slot {
    now: Option<Arc<Page>>,
    before: Option<Arc<Page>>,
}

type Chunk = [Slot; CHUNK_PAGES];

/// The bytes of a disk. Clones share what neither of them changes.
#[derive(Clone)]
pub(super) struct Image {
    chunks: Vec<Option<Arc<Chunk>>>,
    blocks: u64,
}

/// The first bytes of `bytes` as a page, filled up with zeros.
pub(super) fn page_of(bytes: &[u8]) -> Arc<Page> {
    let mut page = [0; BLOCK_BYTES];
    let length = bytes.len().min(BLOCK_BYTES);
    page[..length].copy_from_slice(&bytes[..length]);
    Arc::new(page)
}

impl Image {
    /// `blocks` blocks of zeros.
    pub(super) fn empty(blocks: u64) -> Self {
        Self { chunks: vec![None; blocks.div_ceil(CHUNK_PAGES as u64) as usize], blocks }
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    fn slot(&self, block: u64) -> Option<&Slot> {
        let block = block as usize;
        self.chunks[block / CHUNK_PAGES].as_ref().map(|chunk| &chunk[block % CHUNK_PAGES])
    }

    fn slot_mut(&mut self, block: u64) -> &mut Slot {
        let block = block as usize;
        let chunk = self.chunks[block / CHUNK_PAGES].get_or_insert_with(Arc::default);
        &mut Arc::make_mut(chunk)[block % CHUNK_PAGES]
    }

    /// Copies `block` to `out`.
    pub(super) fn read(&self, block: u64, out: &mut [u8]) {
        copy_page(self.slot(block).and_then(|slot| slot.now.as_deref()), out);
    }

    /// Copies what was in `block` before its last write to `out`.
    pub(super) fn read_before(&self, block: u64, out: &mut [u8]) {
        copy_page(self.slot(block).and_then(|slot| slot.before.as_deref()), out);
    }

    /// Writes those sectors of `page` to `block` whose bits are set.
    pub(super) fn write(&mut self, block: u64, page: &Arc<Page>, sectors: u8) {
        if sectors == 0 {
            return;
        }
        let slot = self.slot_mut(block);
        let page = if sectors == WHOLE_PAGE {
            Arc::clone(page)
        } else {
            let mut merged = slot.now.as_deref().copied().unwrap_or([0; BLOCK_BYTES]);
            for sector in (0..SECTORS_PER_PAGE).filter(|sector| sectors & (1 << sector) != 0) {
                let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                merged[range.clone()].copy_from_slice(&page[range]);
            }
            Arc::new(merged)
        };
        slot.before = slot.now.replace(page);
    }

    /// Changes bytes of `block` in place.
    pub(super) fn edit(&mut self, block: u64, change: impl FnOnce(&mut Page)) {
        let page = self.slot_mut(block).now.get_or_insert_with(|| Arc::new([0; BLOCK_BYTES]));
        change(Arc::make_mut(page));
    }

    /// All bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; (self.blocks * BLOCK_BYTES_U64) as usize];
        for (block, out) in (0..).zip(bytes.chunks_exact_mut(BLOCK_BYTES)) {
            if let Some(page) = self.slot(block).and_then(|slot| slot.now.as_deref()) {
                out.copy_from_slice(page);
            }
        }
        bytes
    }
}

fn copy_page(page: Option<&Page>, out: &mut [u8]) {
    match page {
        Some(page) => out.copy_from_slice(page),
        None => out.fill(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_do_not_see_each_others_changes() {
        let mut first = Image::empty(100);
        first.write(40, &page_of(&[1; 4096]), WHOLE_PAGE);
        let mut second = first.clone();
        second.write(40, &page_of(&[2; 4096]), 0b1000_0001);
        second.edit(99, |page| page[7] = 9);
        assert!(first.bytes()[40 * 4096..41 * 4096].iter().all(|byte| *byte == 1));
        assert_eq!(first.bytes()[99 * 4096 + 7], 0);
        let mut page = [0; 4096];
        second.read(40, &mut page);
        assert!(page[..512].iter().chain(&page[7 * 512..]).all(|byte| *byte == 2));
        assert!(page[512..7 * 512].iter().all(|byte| *byte == 1));
        second.read_before(40, &mut page);
        assert!(page.iter().all(|byte| *byte == 1));
        first.read_before(40, &mut page);
        assert!(page.iter().all(|byte| *byte == 0));
    }
}
