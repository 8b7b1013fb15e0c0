//! Where the blocks of a top-level vdev lie on its leaves.
//!
//! # Blocks of a vdev
//!
//! A leaf or a mirror is *plain*: block `b` of the vdev is block `b` of every leaf. Parity is *striped*: with `n` leaves,
//! block `b` of the vdev is block `b / n` of leaf `b mod n`, and an extent takes blocks for its parity, too. What an extent of
//! `t` taken blocks can hold is its *capacity*, and everything else follows from where it starts and how many blocks it takes:
//! a reader of one extent needs to know nothing of its neighbours.
//!
//! # Stripes
//!
//! An extent is a sequence of stripes of [`STRIPE_BLOCKS`] data blocks; the last one may have fewer. A stripe of `d` data
//! blocks has `⌈d / (n − p)⌉` rows of up to `n` blocks, each with `p` parity blocks, so that its width follows from its
//! length: a stripe of one block is a copy (or two) of it. Data lie column by column: neighbours in an extent are
//! neighbours on a leaf, and a small read asks one leaf. Where parity stands among the columns changes from stripe to stripe.
//!
//! ```text
//!   n = 4, p = 1, d = 8: three rows, the last one short       position   0   1   2   3
//!   parity over each row; data in columns                               P0  d0  d3  d6
//!                                                                       P1  d1  d4  d7
//!                                                                       P2  d2  d5
//! ```
//!
//! What is taken is a multiple of `p + 1`, as in RAID-Z (OpenZFS): no hole can be too small for one block with its parity.
//! A stripe belongs to one extent, is written whole, and never again while anything refers to it. So there is no
//! read-modify-write and no write hole.

use super::format::VdevKind;
use crate::base::extent::Extent;
use std::ops::Range;

/// Data blocks of a full stripe: 256 KiB. Writes to striped vdevs start at multiples of this within their extent.
pub const STRIPE_BLOCKS: u32 = 64;

/// How a top-level vdev spreads its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Leaves that blocks take turns on; 1 when every leaf holds all of them.
    columns: u8,
    /// Parity blocks per row.
    parity: u8,
}

impl Geometry {
    /// Every leaf holds every block.
    pub const PLAIN: Self = Self { columns: 1, parity: 0 };

    /// The geometry of a vdev of `kind` with `leaves` leaves.
    #[must_use]
    pub const fn of(kind: VdevKind, leaves: u8) -> Self {
        let parity = match kind {
            VdevKind::Leaf | VdevKind::Mirror => return Self::PLAIN,
            VdevKind::Parity1 => 1,
            VdevKind::Parity2 => 2,
        };
        Self { columns: leaves, parity }
    }

    /// Whether every leaf holds every block.
    #[must_use]
    pub const fn is_plain(self) -> bool {
        self.parity == 0
    }

    /// Parity blocks per row.
    #[must_use]
    pub const fn parity(self) -> u8 {
        self.parity
    }

    /// What is taken is a multiple of this many blocks.
    #[must_use]
    pub const fn granule(self) -> u32 {
        self.parity as u32 + 1
    }

    /// Leaves that blocks take turns on.
    #[must_use]
    pub const fn columns(self) -> u8 {
        self.columns
    }

    const fn data_columns(self) -> u32 {
        (self.columns - self.parity) as u32
    }

    /// Blocks of a vdev whose shortest leaf has `leaf_blocks`.
    #[must_use]
    pub const fn vdev_blocks(self, leaf_blocks: u64) -> u64 {
        leaf_blocks * self.columns as u64
    }

    const fn stripe_taken(self, data: u32) -> u32 {
        let cells = data + self.parity as u32 * data.div_ceil(self.data_columns());
        cells.next_multiple_of(self.granule())
    }

    /// How far behind the start of its extent data block `from` is said to be, by those who name blocks: within what the
    /// extent takes, and the same whether the extent was joined with one before it or not.
    #[must_use]
    pub const fn place(self, from: u64) -> u64 {
        if self.is_plain() {
            return from;
        }
        let stripe = STRIPE_BLOCKS as u64;
        from / stripe * self.stripe_taken(STRIPE_BLOCKS) as u64 + from % stripe
    }

    /// The data block that [`Geometry::place`] puts at `place`.
    #[must_use]
    pub const fn data_block(self, place: u64) -> u64 {
        if self.is_plain() {
            return place;
        }
        let taken = self.stripe_taken(STRIPE_BLOCKS) as u64;
        place / taken * STRIPE_BLOCKS as u64 + place % taken
    }

    /// Blocks that an extent takes to hold `data` blocks.
    #[must_use]
    pub const fn taken(self, data: u64) -> u64 {
        if self.is_plain() {
            return data;
        }
        let full = data / STRIPE_BLOCKS as u64 * self.stripe_taken(STRIPE_BLOCKS) as u64;
        full + self.stripe_taken((data % STRIPE_BLOCKS as u64) as u32) as u64
    }

    /// Data blocks that an extent of `taken` blocks can hold; the largest `d` whose [`Geometry::taken`] is no more.
    #[must_use]
    pub fn capacity(self, taken: u64) -> u64 {
        if self.is_plain() {
            return taken;
        }
        let full = u64::from(self.stripe_taken(STRIPE_BLOCKS));
        let left = taken % full;
        let tail = (1..STRIPE_BLOCKS).rev().find(|data| u64::from(self.stripe_taken(*data)) <= left);
        taken / full * u64::from(STRIPE_BLOCKS) + u64::from(tail.unwrap_or(0))
    }

    /// Whether an extent of `taken` blocks and one right behind it are one extent with both contents.
    #[must_use]
    pub const fn joins(self, taken: u64) -> bool {
        self.is_plain() || taken.is_multiple_of(self.stripe_taken(STRIPE_BLOCKS) as u64)
    }

    /// The stripes of `extent` that have some of the data blocks `range`, and which of their own these are.
    pub(super) fn stripes(
        self,
        extent: &Extent,
        range: Range<u64>,
    ) -> impl Iterator<Item = (Stripe, Range<u32>)> {
        let capacity = self.capacity(u64::from(extent.blocks));
        let (length, taken) = (u64::from(STRIPE_BLOCKS), u64::from(self.stripe_taken(STRIPE_BLOCKS)));
        let (first, end) = (range.start / length, range.end.min(capacity).div_ceil(length));
        let block = extent.block;
        (first..end).map(move |index| {
            let start = index * length;
            let data = (capacity - start).min(length);
            let stripe = Stripe { geometry: self, block: block + index * taken, data: data as u32 };
            let wanted = range.start.max(start) - start..range.end.min(start + data) - start;
            (stripe, wanted.start as u32..wanted.end as u32)
        })
    }

    /// The stripes of one block each that `extent` is cut into, those of `range`: what is written block by block.
    pub(super) fn singles(self, extent: &Extent, range: Range<u64>) -> impl Iterator<Item = Stripe> {
        let block = extent.block;
        range.map(move |index| Stripe {
            geometry: self,
            block: block + index * u64::from(self.granule()),
            data: 1,
        })
    }
}

/// One stripe of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stripe {
    geometry: Geometry,
    /// First block of the vdev.
    block: u64,
    /// Data blocks, at least 1.
    pub data: u32,
}

/// The blocks of a stripe on one leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub leaf: usize,
    /// First block on the leaf.
    pub block: u64,
    pub blocks: u32,
}

impl Stripe {
    pub fn rows(&self) -> u32 {
        self.data.div_ceil(self.geometry.data_columns())
    }

    /// Columns that hold data.
    pub fn width(&self) -> usize {
        self.data.min(self.geometry.data_columns()) as usize
    }

    pub fn parity(&self) -> usize {
        usize::from(self.geometry.parity)
    }

    /// Positions that have a block in the last row.
    fn long(&self) -> u32 {
        let columns = self.geometry.data_columns();
        let last = self.data - (self.rows() - 1) * columns;
        last + u32::from(self.geometry.parity)
    }

    /// The position of the first parity column; every parity column has a block in each row. Scattered (D. Knuth's
    /// multiplicative hash), since the starts of stripes have a period that may be that of the leaves.
    fn turn(&self) -> u32 {
        let scattered = (self.block as u32).wrapping_mul(0x9e37_79b1) >> 16;
        scattered % self.long()
    }

    fn at(&self, position: u32) -> Column {
        let (block, columns) = (self.block + u64::from(position), u64::from(self.geometry.columns));
        let blocks = self.rows() - u32::from(position >= self.long());
        Column { leaf: (block % columns) as usize, block: block / columns, blocks }
    }

    /// The parity columns, then the data columns in order.
    pub fn columns(&self) -> Vec<Column> {
        let parity = |index: u32| (self.turn() + index) % self.long();
        let parities: Vec<u32> = (0..self.parity() as u32).map(parity).collect();
        let data = (0..(self.width() + self.parity()) as u32).filter(|position| !parities.contains(position));
        parities.iter().copied().chain(data).map(|position| self.at(position)).collect()
    }

    /// The first data block of data column `index`.
    pub fn first_of(&self, index: usize) -> u32 {
        let columns = self.geometry.data_columns();
        let (short, more) = (self.data / columns, self.data % columns);
        index as u32 * short + (index as u32).min(more)
    }

    /// Blocks of the column at `index` of [`Stripe::columns`].
    pub fn blocks_of(&self, index: usize) -> u32 {
        match index.checked_sub(self.parity()) {
            None => self.rows(),
            Some(data) => self.first_of(data + 1) - self.first_of(data),
        }
    }

    /// How many of [`Stripe::columns`], which are the first ones, have a block in `row`.
    pub fn columns_in(&self, row: u32) -> usize {
        let columns = self.geometry.data_columns();
        let data = if row + 1 < self.rows() { columns } else { self.data - row * columns };
        self.parity() + data as usize
    }

    /// Data column and row of data block `block`.
    pub fn place_of(&self, block: u32) -> (usize, u32) {
        let column = (0..self.width()).rev().find(|column| self.first_of(*column) <= block).unwrap_or(0);
        (column, block - self.first_of(column))
    }

    /// The data columns that have some of the data blocks `part`, in order, each with its blocks on the leaf.
    pub fn wanted<'a>(
        &'a self,
        columns: &'a [Column],
        part: &'a Range<u32>,
    ) -> impl Iterator<Item = (&'a Column, Range<u64>)> {
        columns[self.parity()..].iter().enumerate().filter_map(|(index, column)| {
            let first = self.first_of(index);
            let wanted = first.max(part.start)..(first + column.blocks).min(part.end);
            let at = |block: u32| column.block + u64::from(block - first);
            (!wanted.is_empty()).then(|| (column, at(wanted.start)..at(wanted.end)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::VdevId;
    use std::collections::{BTreeMap, BTreeSet};

    fn geometries() -> Vec<Geometry> {
        let of = |parity, columns| Geometry { columns, parity };
        (3..=16).map(|columns| of(1, columns)).chain((4..=16).map(|columns| of(2, columns))).collect()
    }

    fn stripes(geometry: Geometry, block: u64, taken: u64) -> Vec<Stripe> {
        let extent = Extent { vdev: VdevId(0), block, blocks: taken as u32 };
        geometry.stripes(&extent, 0..geometry.capacity(taken)).map(|(stripe, _)| stripe).collect()
    }

    #[test]
    fn what_is_taken_holds_what_was_asked_for_and_no_hole_is_too_small() {
        for geometry in geometries() {
            let granule = u64::from(geometry.granule());
            let mut before = 0;
            for data in 1..300 {
                let taken = geometry.taken(data);
                assert!(taken.is_multiple_of(granule) && taken >= before && geometry.capacity(taken) >= data);
                assert!(geometry.capacity(taken - granule) < data, "{geometry:?} {data}");
                before = taken;
            }
            assert_eq!((geometry.capacity(0), geometry.capacity(granule)), (0, 1));
            assert_eq!((geometry.taken(1), geometry.taken(0)), (granule, 0));
        }
        assert_eq!((Geometry::PLAIN.taken(7), Geometry::PLAIN.capacity(7)), (7, 7));
    }

    #[test]
    fn every_block_has_one_place_and_a_row_has_each_leaf_once() {
        for geometry in geometries() {
            let columns = u64::from(geometry.columns);
            for block in [0, 1, 7, columns, 1000] {
                for data in (1..=64).chain([65, 100, 128, 200]) {
                    let taken = geometry.taken(data);
                    let mut cells = BTreeSet::new();
                    for stripe in stripes(geometry, block, taken) {
                        let all = stripe.columns();
                        assert_eq!(all.len(), stripe.parity() + stripe.width());
                        let leaves: BTreeSet<usize> = all.iter().map(|column| column.leaf).collect();
                        assert_eq!(leaves.len(), all.len(), "one column a leaf");
                        assert!(all[..stripe.parity()].iter().all(|parity| parity.blocks == stripe.rows()));
                        let mut next = 0;
                        for (index, column) in all[stripe.parity()..].iter().enumerate() {
                            assert_eq!(stripe.first_of(index), next);
                            next += column.blocks;
                        }
                        assert_eq!(next, stripe.data);
                        for column in all {
                            for at in column.block..column.block + u64::from(column.blocks) {
                                let raw = at * columns + column.leaf as u64;
                                assert!(
                                    (block..block + taken).contains(&raw),
                                    "{geometry:?} {block}+{taken}"
                                );
                                assert!(cells.insert(raw), "twice");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn blocks_are_named_the_same_in_joined_extents() {
        for geometry in geometries() {
            let first = geometry.taken(128);
            for from in 0..300 {
                let place = geometry.place(from);
                assert!(geometry.data_block(place) == from && place < geometry.taken(from + 1));
                assert_eq!(first + place, geometry.place(128 + from));
            }
        }
        assert_eq!((Geometry::PLAIN.place(77), Geometry::PLAIN.data_block(77)), (77, 77));
    }

    /// An extent of whole stripes and one behind it hold the same as one extent.
    #[test]
    fn extents_join_behind_whole_stripes() {
        for geometry in geometries() {
            let first = geometry.taken(128);
            assert!(geometry.joins(first) && geometry.joins(0) && !geometry.joins(geometry.taken(100)));
            let behind = geometry.taken(10);
            let apart = [stripes(geometry, 9, first), stripes(geometry, 9 + first, behind)].concat();
            assert_eq!(apart, stripes(geometry, 9, first + behind));
        }
    }

    #[test]
    fn parity_takes_turns() {
        for geometry in geometries() {
            let mut count: BTreeMap<usize, u32> = BTreeMap::new();
            for stripe in stripes(geometry, 0, geometry.taken(64 * 240)) {
                for column in &stripe.columns()[..stripe.parity()] {
                    *count.entry(column.leaf).or_default() += 1;
                }
            }
            // Where starts of stripes all fall on one leaf and rows are not all full, those behind the last row have none.
            let (columns, most) = (u32::from(geometry.columns), *count.values().max().unwrap());
            let full = stripes(geometry, 0, geometry.taken(64))[0].long();
            let mean = 240 * u32::from(geometry.parity) / columns;
            assert!(count.len() as u32 >= full && most <= 2 * mean.max(240 / full), "{geometry:?} {count:?}");
        }
    }

    #[test]
    fn a_range_names_its_part_of_each_stripe() {
        let geometry = Geometry { columns: 4, parity: 1 };
        let extent = Extent { vdev: VdevId(0), block: 30, blocks: geometry.taken(150) as u32 };
        let parts = |range: Range<u64>| -> Vec<(u32, Range<u32>)> {
            geometry.stripes(&extent, range).map(|(stripe, part)| (stripe.data, part)).collect()
        };
        assert_eq!(parts(10..12), [(64, 10..12)]);
        assert_eq!(parts(60..130), [(64, 60..64), (64, 0..64), (22, 0..2)]);
        assert_eq!(parts(0..0), []);
    }
}
