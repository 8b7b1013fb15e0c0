//! Blocks that are stripes of their own, member by member.
//!
//! A stripe of one data block is that block and a copy of it for each parity block. So a row of such stripes is, on a
//! striped vdev, a row of blocks of which always `p + 1` neighbours are equal; those of one leaf follow each other on it, and
//! one request per leaf reads them all.

use super::geometry::Geometry;
use super::group::Group;
use super::member::Member;
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::units::BLOCK_BYTES;
use std::ops::Range;
use std::sync::Arc;

/// What one member holds of a row of blocks.
struct Held {
    /// The first block.
    first: u64,
    bytes: AlignedBuffer,
    readable: Vec<bool>,
}

/// A row of blocks.
struct Row {
    blocks: Range<u64>,
    /// Leaves that the blocks take turns on.
    columns: u64,
    /// Neighbours that are equal.
    copies: u64,
}

impl Row {
    fn new(geometry: Geometry, extent: &Extent, from: u64, count: usize) -> Self {
        let copies = u64::from(geometry.granule());
        let first = extent.block + from * copies;
        let blocks = first..first + count as u64 * copies;
        Self { blocks, columns: u64::from(geometry.columns()), copies }
    }

    /// The first block on leaf `leaf`, its block there, and how many there are.
    fn of_leaf(&self, leaf: usize) -> Option<(u64, u64, usize)> {
        let ahead = (leaf as u64 + self.columns - self.blocks.start % self.columns) % self.columns;
        let first = self.blocks.start + ahead;
        let more = self.blocks.end.checked_sub(first + 1)? / self.columns;
        Some((first, first / self.columns, more as usize + 1))
    }

    fn leaf_of(&self, block: u64) -> usize {
        (block % self.columns) as usize
    }

    /// The blocks that hold data block `index` of the row.
    fn places_of(&self, index: usize) -> Range<u64> {
        let first = self.blocks.start + index as u64 * self.copies;
        first..first + self.copies
    }
}

impl Held {
    fn read(member: &Member, row: &Row, leaf: usize) -> Option<Self> {
        let (first, block, count) = row.of_leaf(leaf)?;
        let mut bytes = AlignedBuffer::zeroed(count * BLOCK_BYTES);
        let mut readable = vec![true; count];
        if member.read(block, &mut bytes).is_err() {
            // A bad sector must not spoil what stands beside it.
            for (at, place) in bytes.chunks_exact_mut(BLOCK_BYTES).enumerate() {
                readable[at] = member.read(block + at as u64, place).is_ok();
            }
        }
        Some(Self { first, bytes, readable })
    }

    fn at(&self, row: &Row, block: u64) -> Option<&[u8]> {
        let at = ((block - self.first) / row.columns) as usize;
        self.readable[at].then(|| &self.bytes[at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES])
    }
}

impl Group {
    /// Which of `count` blocks that are stripes of their own have copies that differ, or that do not read. What takes no
    /// writes is not asked.
    pub fn differing_singles(&self, extent: &Extent, from: u64, count: usize) -> Vec<bool> {
        let mut differs = vec![false; count];
        if self.geometry().is_plain() {
            self.compare_copies(extent.block + from, &mut differs);
            return differs;
        }
        let row = Row::new(self.geometry(), extent, from, count);
        let hold = |(leaf, member): (usize, &Arc<Member>)| {
            if member.state().is_written() { Held::read(member, &row, leaf) } else { None }
        };
        let held: Vec<Option<Held>> = self.members().iter().enumerate().map(hold).collect();
        for (index, differs) in differs.iter_mut().enumerate() {
            let copies = row.places_of(index).filter_map(|at| {
                let held = held[row.leaf_of(at)].as_ref()?;
                Some(held.at(&row, at))
            });
            let copies: Vec<Option<&[u8]>> = copies.collect();
            *differs = copies.iter().any(|copy| copy.is_none() || *copy != copies[0]);
        }
        differs
    }

    /// Which blocks from `block` on differ between members that hold all of them.
    fn compare_copies(&self, block: u64, differs: &mut [bool]) {
        if self.members().len() == 1 {
            return;
        }
        let row = Row { blocks: block..block + differs.len() as u64, columns: 1, copies: 1 };
        let mut first: Option<Held> = None;
        for member in self.members().iter().filter(|member| member.state().is_written()) {
            let Some(held) = Held::read(member, &row, 0) else { continue };
            for (at, differs) in differs.iter_mut().enumerate() {
                let at = block + at as u64;
                let copy = held.at(&row, at);
                *differs |= copy.is_none() || first.as_ref().is_some_and(|first| first.at(&row, at) != copy);
            }
            first.get_or_insert(held);
        }
    }
}
