//! Which of the writes since the last flush survive a crash.

use super::image::{Image, Page, SECTOR_BYTES, SECTORS_PER_PAGE, WHOLE_PAGE};
use super::rng::SimRng;
use std::sync::Arc;

/// A write as the disk received it.
#[derive(Clone)]
pub(super) struct Write {
    /// Its number on the clock.
    pub(super) number: u64,
    pub(super) block: u64,
    /// Each page with the sectors of it that were written.
    pub(super) pages: Vec<(Arc<Page>, u8)>,
    /// Left by a discard.
    pub(super) is_garbage: bool,
}

impl Write {
    pub(super) fn sectors(&self) -> usize {
        self.pages.len() * SECTORS_PER_PAGE
    }

    pub(super) fn blocks(&self) -> std::ops::Range<u64> {
        self.block..self.block + self.pages.len() as u64
    }

    pub(super) fn covers(&self, block: u64) -> bool {
        self.blocks().contains(&block)
    }

    /// The sectors of page `at` that it writes and that differ from `before`, or all that it writes.
    pub(super) fn changed_sectors(&self, at: usize, before: &Page, all: bool) -> impl Iterator<Item = usize> {
        let (page, written) = &self.pages[at];
        let changed = |sector: &usize| {
            let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
            written & (1 << sector) != 0 && (all || page[range.clone()] != before[range])
        };
        (0..SECTORS_PER_PAGE).filter(changed).collect::<Vec<_>>().into_iter()
    }

    /// Writes all of it to `image`.
    pub(super) fn land(&self, image: &mut Image) {
        for (block, (page, sectors)) in (self.block..).zip(&self.pages) {
            image.write(block, page, *sectors);
        }
    }

    /// Writes those of its sectors to `image` that `landed` (counted from its start) names.
    pub(super) fn land_where(&self, image: &mut Image, mut landed: impl FnMut(usize) -> bool) {
        for (index, (page, sectors)) in self.pages.iter().enumerate() {
            let mut survivors = 0;
            for sector in 0..SECTORS_PER_PAGE {
                survivors |= u8::from(landed(index * SECTORS_PER_PAGE + sector)) << sector;
            }
            image.write(self.block + index as u64, page, sectors & survivors);
        }
    }

    fn land_torn(&self, image: &mut Image, rng: &mut SimRng) {
        let cut = rng.index(self.sectors() + 1);
        match rng.below(4) {
            0 => self.land_where(image, |sector| sector < cut),
            1 => self.land_where(image, |sector| sector >= cut),
            2 => self.land_where(image, |sector| sector != cut),
            _ => self.land_where(image, |_| rng.chance(1, 2)),
        }
    }
}

/// Which sectors of `page` a failed write got to, as bits.
pub(super) fn some_sectors(rng: &mut SimRng) -> u8 {
    match rng.below(3) {
        0 => 0,
        1 => WHOLE_PAGE,
        _ => rng.next_u64() as u8,
    }
}

/// Makes `image`, the durable one, a legal image after a crash with `pending` writes.
///
/// Every legal image can come out. The plain ones (nothing, everything, a prefix, all but one, one only) are those that
/// a missing flush shows in, and would be rare among choices made for each sector.
pub(super) fn land_some(pending: &[&Write], image: &mut Image, rng: &mut SimRng) {
    let chosen = rng.index(pending.len());
    match rng.below(9) {
        0 => {}
        1 => pending.iter().for_each(|write| write.land(image)),
        2 => {
            pending[..chosen].iter().for_each(|write| write.land(image));
            if let Some(write) = pending.get(chosen) {
                write.land_torn(image, rng);
            }
        }
        3 => {
            let but_one = pending.iter().enumerate().filter(|(index, _)| *index != chosen);
            but_one.for_each(|(_, write)| write.land(image));
        }
        4 => pending.iter().skip(chosen).take(1).for_each(|write| write.land(image)),
        5 => {
            let of_eight = 1 + rng.below(7);
            for write in pending {
                if rng.chance(of_eight, 8) {
                    write.land(image);
                }
            }
        }
        6 => {
            for write in in_any_order(pending, rng) {
                if rng.chance(1, 2) {
                    write.land(image);
                }
            }
        }
        7 => {
            for write in in_any_order(pending, rng) {
                match rng.below(3) {
                    0 => {}
                    1 => write.land(image),
                    _ => write.land_torn(image, rng),
                }
            }
        }
        _ => {
            for write in in_any_order(pending, rng) {
                write.land_where(image, |_| rng.chance(1, 2));
            }
        }
    }
}

fn in_any_order<'a>(pending: &[&'a Write], rng: &mut SimRng) -> Vec<&'a Write> {
    let mut order = pending.to_vec();
    rng.shuffle(&mut order);
    order
}
