//! What a vdev says when some of its members are not asked: to find out which of them is wrong.

use super::format::VdevKind;
use super::geometry::{Column, Stripe};
use super::group::Group;
use super::member::Member;
use super::parity;
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use std::ops::Range;

/// A block that one member does not hold as it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WrongCopy {
    /// The member's device.
    pub device: String,
    /// Byte offset on it.
    pub offset: u64,
}

/// What the members of a vdev hold of some data blocks, whoever of them is right: read once, to be looked at in many ways.
/// A block that does not read is missing alone; what is beside it is not.
#[derive(Debug)]
pub enum Alternatives {
    /// The blocks of each member.
    Copies(Vec<Vec<Option<AlignedBuffer>>>),
    /// The stripes that the blocks are in.
    Stripes(Vec<HeldStripe>),
}

/// A stripe as its members hold it.
#[derive(Debug)]
pub struct HeldStripe {
    stripe: Stripe,
    /// Which of its data blocks are meant.
    part: Range<u32>,
    /// The leaf of each column.
    leaves: Vec<usize>,
    /// The blocks of each column.
    held: Vec<Vec<Option<AlignedBuffer>>>,
}

impl Alternatives {
    /// Puts into `out` what there is without the members `excluded`; for each block whether that is enough.
    pub fn without(&self, excluded: &[usize], out: &mut [u8]) -> Vec<bool> {
        let mut blocks = out.chunks_exact_mut(BLOCK_BYTES);
        match self {
            Self::Copies(copies) => {
                let others = |(leaf, copy)| (!excluded.contains(&leaf)).then_some(copy);
                let asked: Vec<&Vec<Option<AlignedBuffer>>> =
                    copies.iter().enumerate().filter_map(others).collect();
                let give = |(at, out): (usize, &mut [u8])| {
                    let held = asked.iter().find_map(|copy| copy.get(at)?.as_deref());
                    held.inspect(|held| out.copy_from_slice(held)).is_some()
                };
                blocks.enumerate().map(give).collect()
            }
            Self::Stripes(stripes) => {
                let mut given = Vec::new();
                for stripe in stripes {
                    let part = stripe.part.clone().zip(&mut blocks);
                    given.extend(part.map(|(block, out)| stripe.give(block, excluded, out)));
                }
                given.extend(blocks.map(|_| false));
                given
            }
        }
    }
}

impl HeldStripe {
    /// Puts data block `block` into `out`, as it is held or made from its row; whether that was possible.
    fn give(&self, block: u32, excluded: &[usize], out: &mut [u8]) -> bool {
        let (column, row) = self.stripe.place_of(block);
        let of_row = self.stripe.columns_in(row);
        let cell = |index: usize| match excluded.contains(&self.leaves[index]) {
            true => None,
            false => self.held[index][row as usize].as_deref(),
        };
        let wanted = self.stripe.parity() + column;
        if let Some(held) = cell(wanted) {
            out.copy_from_slice(held);
            return true;
        }
        let missing: Vec<usize> = (0..of_row).filter(|index| cell(*index).is_none()).collect();
        let present: Vec<&[u8]> = (0..of_row).map(|index| cell(index).unwrap_or_default()).collect();
        let mut made = vec![vec![0; BLOCK_BYTES]; missing.len()];
        let mut outs: Vec<&mut [u8]> = made.iter_mut().map(Vec::as_mut_slice).collect();
        if !parity::rebuild(&present, self.stripe.parity(), &missing, &mut outs) {
            return false;
        }
        let Some(at) = missing.iter().position(|index| *index == wanted) else { return false };
        out.copy_from_slice(&made[at]);
        true
    }
}

impl Group {
    /// Sets of members without which everything can be read; none without redundancy. Of a mirror, those that leave one.
    pub fn exclusions(&self) -> Vec<Vec<usize>> {
        let all = 0..self.members().len();
        let alone = |one: usize| vec![one];
        match self.kind() {
            VdevKind::Leaf => Vec::new(),
            VdevKind::Mirror => {
                all.clone().map(|only| all.clone().filter(|other| *other != only).collect()).collect()
            }
            VdevKind::Parity1 => all.map(alone).collect(),
            VdevKind::Parity2 => {
                let pairs = all.clone().flat_map(|one| (one + 1..all.end).map(move |two| vec![one, two]));
                all.clone().map(alone).chain(pairs).collect()
            }
        }
    }

    /// What the members hold of `blocks` data blocks of `extent` from `from` on, and of what these can be made from.
    pub fn alternatives(&self, extent: &Extent, from: u64, blocks: usize) -> Alternatives {
        // Who lacks something may well have this: the reader's checksum decides.
        let hold = |column: &Column| match self.members()[column.leaf].state().is_written() {
            true => self.blocks_of(column),
            false => (0..column.blocks).map(|_| None).collect(),
        };
        if self.geometry().is_plain() {
            let copy = |leaf: usize| Column { leaf, block: extent.block + from, blocks: blocks as u32 };
            return Alternatives::Copies((0..self.members().len()).map(|leaf| hold(&copy(leaf))).collect());
        }
        let stripes = self.geometry().stripes(extent, from..from + blocks as u64).map(|(stripe, part)| {
            let columns = stripe.columns();
            let held = columns.iter().map(hold).collect();
            HeldStripe { leaves: columns.iter().map(|column| column.leaf).collect(), stripe, part, held }
        });
        Alternatives::Stripes(stripes.collect())
    }

    /// The copies of data blocks of `extent` from `from` on that are not `right`, of which the bytes `verified` are known to be.
    /// Parity is looked at where they are a whole stripe.
    pub fn wrong_copies(
        &self,
        extent: &Extent,
        from: u64,
        right: &[u8],
        verified: &Range<usize>,
    ) -> Vec<WrongCopy> {
        let mut wrong = Vec::new();
        if self.geometry().is_plain() {
            for member in self.members() {
                compare(member, extent.block + from, right, verified, &mut wrong);
            }
            return wrong;
        }
        let range = from..from + (right.len() / BLOCK_BYTES) as u64;
        let mut at = 0;
        for (stripe, part) in self.geometry().stripes(extent, range) {
            let now = &right[at..at + part.len() * BLOCK_BYTES];
            let verified = within(verified, at, now.len());
            at += now.len();
            let columns = stripe.columns();
            let mut of_column = 0;
            for (column, wanted) in stripe.wanted(&columns, &part) {
                let bytes = (wanted.end - wanted.start) as usize * BLOCK_BYTES;
                let right = &now[of_column..of_column + bytes];
                let verified = within(&verified, of_column, bytes);
                compare(&self.members()[column.leaf], wanted.start, right, &verified, &mut wrong);
                of_column += bytes;
            }
            if part == (0..stripe.data) && verified == (0..now.len()) {
                self.compare_parity(&stripe, &columns, now, &mut wrong);
            }
        }
        wrong
    }

    fn compare_parity(&self, stripe: &Stripe, columns: &[Column], right: &[u8], wrong: &mut Vec<WrongCopy>) {
        let (parities, data) = columns.split_at(stripe.parity());
        let mut rest = right;
        let mut slices: Vec<&[u8]> = Vec::with_capacity(data.len());
        for column in data {
            let (now, later) = rest.split_at(column.blocks as usize * BLOCK_BYTES);
            slices.push(now);
            rest = later;
        }
        let mut sums = vec![vec![0; stripe.rows() as usize * BLOCK_BYTES]; parities.len()];
        let mut outs: Vec<&mut [u8]> = sums.iter_mut().map(Vec::as_mut_slice).collect();
        parity::encode(&slices, &mut outs);
        for (column, right) in parities.iter().zip(&sums) {
            compare(&self.members()[column.leaf], column.block, right, &(0..right.len()), wrong);
        }
    }

    /// Repairs the bytes `verified` of data block `from` of `extent`, which `right` has. What else is in the block stays on each
    /// member as it is: it is somebody else's, and may be right there and wrong in `right`.
    pub fn patch(&self, extent: &Extent, from: u64, right: &[u8], verified: &Range<usize>) {
        // Two who mend parts of one block must not undo each other.
        let _patching = self.patching.lock();
        let mut places: Vec<(usize, u64)> = Vec::new();
        if self.geometry().is_plain() {
            places.extend((0..self.members().len()).map(|index| (index, extent.block + from)));
        } else {
            for (stripe, part) in self.geometry().stripes(extent, from..from + 1) {
                let columns = stripe.columns();
                places.extend(stripe.wanted(&columns, &part).map(|(column, at)| (column.leaf, at.start)));
            }
        }
        for (index, block) in places {
            let member = &self.members()[index];
            let mut held = AlignedBuffer::zeroed(BLOCK_BYTES);
            if member.state().is_written()
                && member.read(block, &mut held).is_ok()
                && held[verified.clone()] != right[verified.clone()]
            {
                held[verified.clone()].copy_from_slice(&right[verified.clone()]);
                self.repair(index, block, &held);
            }
        }
    }
}

/// The part of `range` in the `length` bytes from `at` on, counted from there.
fn within(range: &Range<usize>, at: usize, length: usize) -> Range<usize> {
    range.start.saturating_sub(at).min(length)..range.end.saturating_sub(at).min(length)
}

/// Compares what `member` holds from `block` on with the bytes `verified` of `right`.
fn compare(member: &Member, block: u64, right: &[u8], verified: &Range<usize>, wrong: &mut Vec<WrongCopy>) {
    if !member.state().is_written() || verified.is_empty() {
        return;
    }
    let mut held = AlignedBuffer::zeroed(right.len());
    let readable = member.read(block, &mut held).is_ok();
    for start in (0..right.len()).step_by(BLOCK_BYTES) {
        let bytes = verified.start.max(start)..verified.end.min(start + BLOCK_BYTES);
        if !bytes.is_empty() && (!readable || held[bytes.clone()] != right[bytes]) {
            let offset = block * BLOCK_BYTES_U64 + start as u64;
            wrong.push(WrongCopy { device: member.name(), offset });
        }
    }
}
