//! Extents as one sequence of data blocks: where a byte of it lies, how much fits, where it may be cut.
//!
//! An extent counts the blocks that it takes, parity included; who reads and writes through extents counts those that hold
//! data. On a leaf or a mirror both are the same.

use super::{Dmu, DmuError};
use crate::base::extent::Extent;
use crate::base::ids::VdevId;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::pool::{Geometry, Pool, STRIPE_BLOCKS};
use std::ops::Range;

/// Data blocks of an extent.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub extent: Extent,
    pub geometry: Geometry,
    /// The first of them in the extent.
    pub from: u64,
    /// Which of the bytes that were asked for they are.
    pub range: Range<usize>,
}

impl Part {
    /// A name for its first block within the vdev.
    pub fn block(&self) -> u64 {
        self.extent.block + self.geometry.place(self.from)
    }

    /// The same, cut where stripes end.
    pub fn stripes(&self) -> impl Iterator<Item = Self> {
        let stripe = u64::from(STRIPE_BLOCKS);
        let mut left = self.clone();
        std::iter::from_fn(move || {
            if left.range.is_empty() {
                return None;
            }
            let blocks = match left.geometry.is_plain() {
                true => u64::MAX,
                false => stripe - left.from % stripe,
            };
            let bytes = usize::try_from(blocks).unwrap_or(usize::MAX).saturating_mul(BLOCK_BYTES);
            let end = left.range.start + bytes.min(left.range.len());
            let part = Self { range: left.range.start..end, ..left.clone() };
            left.from += (part.range.len() / BLOCK_BYTES) as u64;
            left.range.start = end;
            Some(part)
        })
    }
}

/// The geometry of a vdev, also of one that left; plain, when the pool never had it.
pub(super) fn geometry_of(pool: &Pool, vdev: VdevId) -> Geometry {
    pool.geometry(vdev).unwrap_or(Geometry::PLAIN)
}

fn capacity(pool: &Pool, extent: &Extent) -> u64 {
    geometry_of(pool, extent.vdev).capacity(u64::from(extent.blocks))
}

/// The parts of `len` bytes from `offset` of the concatenation of `extents`.
pub(super) fn parts(pool: &Pool, extents: &[Extent], offset: u64, len: usize) -> Result<Vec<Part>, DmuError> {
    let mut out = Vec::with_capacity(1);
    let (mut skip, mut done) = (offset / BLOCK_BYTES_U64, 0);
    let aligned = offset.is_multiple_of(BLOCK_BYTES_U64) && len.is_multiple_of(BLOCK_BYTES);
    for extent in extents {
        if done == len || !aligned {
            break;
        }
        let geometry = geometry_of(pool, extent.vdev);
        let blocks = geometry.capacity(u64::from(extent.blocks));
        if skip >= blocks {
            skip -= blocks;
            continue;
        }
        let take =
            usize::try_from(blocks - skip).unwrap_or(usize::MAX).saturating_mul(BLOCK_BYTES).min(len - done);
        out.push(Part { extent: *extent, geometry, from: skip, range: done..done + take });
        skip = 0;
        done += take;
    }
    if done == len && aligned {
        return Ok(out);
    }
    let (device, block) = match extents.first() {
        Some(first) => (vdev_name(pool, first.vdev), first.block),
        None => (String::from("none"), 0),
    };
    Err(DmuError::Corrupt {
        what: "range of an extent",
        device,
        block,
        reason: format!("bytes {offset}+{len} are not whole blocks inside the extents"),
    })
}

/// What a vdev is called in messages: with its devices.
pub(super) fn vdev_name(pool: &Pool, vdev: VdevId) -> String {
    match pool.vdev(vdev) {
        Ok(found) => found.name(),
        Err(_) => format!("vdev {vdev}"),
    }
}

/// Where writing up to `end` (in data blocks) must stop for now: what is written to a stripe is written at once. The start of
/// the stripe that `end` lies in, or `end`.
pub(super) fn whole_stripes(pool: &Pool, extents: &[Extent], end: u64) -> u64 {
    let mut start = 0;
    for extent in extents {
        let geometry = geometry_of(pool, extent.vdev);
        let blocks = geometry.capacity(u64::from(extent.blocks));
        if end <= start + blocks {
            let within = end - start;
            let cut = !geometry.is_plain() && within < blocks;
            return if cut { end - within % u64::from(STRIPE_BLOCKS) } else { end };
        }
        start += blocks;
    }
    end
}

impl Dmu {
    /// Blocks of data that `extents` can hold.
    #[must_use]
    pub fn data_blocks(&self, extents: &[Extent]) -> u64 {
        extents.iter().map(|extent| capacity(self.pool(), extent)).sum()
    }

    /// Whether `extents` take what `blocks` blocks of data need, and no more.
    #[must_use]
    pub fn fits(&self, extents: &[Extent], blocks: u64) -> bool {
        let Some((last, before)) = extents.split_last() else { return blocks == 0 };
        let held = self.data_blocks(before);
        let geometry = geometry_of(self.pool(), last.vdev);
        held < blocks && geometry.taken(blocks - held) == u64::from(last.blocks)
    }

    /// Appends `extent` to the sequence: to the last one, when that goes on in it.
    pub fn join(&self, extents: &mut Vec<Extent>, extent: Extent) {
        if let Some(last) = extents.last_mut()
            && self.joins(last, &extent)
            && let Some(blocks) = last.blocks.checked_add(extent.blocks)
        {
            last.blocks = blocks;
            return;
        }
        extents.push(extent);
    }

    /// Whether `extent` lies behind `last` so that both are one extent with the contents of both.
    #[must_use]
    pub fn joins(&self, last: &Extent, extent: &Extent) -> bool {
        last.vdev == extent.vdev
            && last.end() == extent.block
            && geometry_of(self.pool(), last.vdev).joins(u64::from(last.blocks))
    }

    /// Cuts `extents` off behind `used` blocks of data and returns the rest. Of the stripe in which they end nothing may have
    /// been written yet.
    pub fn cut(&self, extents: &mut Vec<Extent>, used: u64) -> Vec<Extent> {
        let mut left = used;
        for index in 0..extents.len() {
            let extent = extents[index];
            let geometry = geometry_of(self.pool(), extent.vdev);
            let blocks = geometry.capacity(u64::from(extent.blocks));
            if blocks > left {
                let kept = geometry.taken(left).min(u64::from(extent.blocks)) as u32;
                let mut tail = extents.split_off(index);
                if kept > 0 {
                    extents.push(Extent { blocks: kept, ..extent });
                    tail[0].block += u64::from(kept);
                    tail[0].blocks -= kept;
                }
                tail.retain(|extent| extent.blocks > 0);
                return tail;
            }
            left -= blocks;
        }
        Vec::new()
    }

    /// The vdev and block at byte `offset` of `extents`; the first block, when that is outside.
    #[must_use]
    pub fn block_at(&self, extents: &[Extent], offset: u64) -> Option<(VdevId, u64)> {
        let mut skip = offset / BLOCK_BYTES_U64;
        for extent in extents {
            let geometry = geometry_of(self.pool(), extent.vdev);
            let blocks = geometry.capacity(u64::from(extent.blocks));
            if skip < blocks {
                return Some((extent.vdev, extent.block + geometry.place(skip)));
            }
            skip -= blocks;
        }
        extents.first().map(|extent| (extent.vdev, extent.block))
    }

    /// The vdev of byte `offset` of `extents` as messages call it, and the block.
    #[must_use]
    pub fn named_block_at(&self, extents: &[Extent], offset: u64) -> (String, u64) {
        match self.block_at(extents, offset) {
            Some((vdev, block)) => (vdev_name(self.pool(), vdev), block),
            None => (String::from("none"), 0),
        }
    }

    /// Where `extents` are, for messages: the first of them and its vdev with its devices.
    #[must_use]
    pub fn place_of(&self, extents: &[Extent]) -> String {
        match extents.first() {
            Some(first) => format!("{} ({first})", vdev_name(self.pool(), first.vdev)),
            None => String::from("nowhere"),
        }
    }

    /// Blocks that `extent` holds when each is a stripe of its own.
    #[must_use]
    pub fn single_blocks(&self, extent: &Extent) -> u32 {
        extent.blocks / geometry_of(self.pool(), extent.vdev).granule()
    }

    /// The block of the vdev where the block at `from` of such an extent starts.
    #[must_use]
    pub fn single_block(&self, extent: &Extent, from: u32) -> u64 {
        let granule = geometry_of(self.pool(), extent.vdev).granule();
        extent.block.saturating_add(u64::from(from) * u64::from(granule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::preference::StoragePreference;
    use crate::dmu::testing::layouts;
    use crate::dmu::{Privilege, Stream};

    #[test]
    fn adjacent_extents_join_and_the_tail_is_cut() {
        let (_, dmu) = layouts(1 << 10).swap_remove(0);
        let at = |block, blocks| Extent { vdev: VdevId(1), block, blocks };
        let mut extents = Vec::new();
        [at(0, 4), at(4, 4), at(9, 2), at(20, 5)].into_iter().for_each(|e| dmu.join(&mut extents, e));
        assert_eq!(extents, [at(0, 8), at(9, 2), at(20, 5)]);
        assert!(dmu.fits(&extents, 15) && !dmu.fits(&extents, 14) && !dmu.fits(&extents, 16));
        let mut all = extents.clone();
        assert_eq!(dmu.cut(&mut all, 15), []);
        assert_eq!(dmu.cut(&mut all, 9), [at(10, 1), at(20, 5)]);
        assert_eq!(dmu.cut(&mut all, 8), [at(9, 1)]);
        assert_eq!(dmu.cut(&mut all, 0), [at(0, 8)]);
        assert!(all.is_empty());
    }

    #[test]
    fn what_is_cut_off_leaves_a_sequence_that_fits() {
        for (name, dmu) in layouts(1 << 13) {
            let free = dmu.available_blocks(0, Privilege::System);
            for wanted in [1, 2, 3, 63, 64, 65, 130, 300] {
                let take = |blocks| {
                    dmu.allocate(Stream::Base, StoragePreference::NONE, blocks, Privilege::System).unwrap()
                };
                assert!(dmu.fits(&take(wanted), u64::from(wanted)), "{name}: {wanted}");
                for used in [1, 2, 5, 63, 64, 65, 127, 128, 129, 256, 299, 300] {
                    let mut extents = Vec::new();
                    for extent in [take(128), take(128), take(44)].concat() {
                        dmu.join(&mut extents, extent);
                    }
                    assert!(dmu.data_blocks(&extents) >= 300);
                    let tail = dmu.cut(&mut extents, used);
                    assert!(dmu.fits(&extents, used), "{name}: {used} of {extents:?}");
                    dmu.release(&tail);
                    dmu.release(&extents);
                }
            }
            let names = parts(dmu.pool(), &[], 0, 4096).unwrap_err().to_string();
            assert!(names.contains("none") && free > dmu.available_blocks(0, Privilege::System));
        }
    }
}
