//! Finding out what is right when a reader found what it read wrong, and repairing the members that held something else.
//!
//! Only the reader can tell: it has a checksum. So each guess at who is wrong is shown to it, the likely ones first, and
//! nothing is written anywhere before one was right. What is repaired then is what the reader has verified, and no more: the
//! rest of a stripe may be wrong as well.
//!
//! Guesses are made row by row of a stripe, since that is how parity is: a row whose parity agrees with its data is left
//! alone, which keeps the guesses few however long the read is.

use super::format::MemberState;
use super::geometry::{Column, Stripe};
use super::group::{Group, StripePart};
use super::parity;
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::units::BLOCK_BYTES;
use crate::vdev::Operation;

/// What was found wrong besides what was read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Healing {
    /// Blocks that were wrong on one member and are right again.
    pub repaired: u64,
    /// Blocks that are wrong on one member and could not be written.
    pub unrepaired: u64,
}

impl Healing {
    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { repaired: self.repaired + other.repaired, unrepaired: self.unrepaired + other.unrepaired }
    }
}

/// Guesses that are made for one read.
const GUESSES_MAX: usize = 4096;

/// What a reader says to a guess.
struct Reader<'a> {
    is_right: &'a mut dyn FnMut(&[u8]) -> bool,
    guesses: usize,
}

impl Reader<'_> {
    fn takes(&mut self, buf: &[u8]) -> bool {
        self.guesses += 1;
        (self.is_right)(buf)
    }

    fn is_tired(&self) -> bool {
        self.guesses >= GUESSES_MAX
    }
}

/// A row of a stripe.
struct Row {
    /// Leaf and block on it, for each column.
    cells: Vec<(usize, u64)>,
    parity: usize,
    /// What each column has; `None` where that could not be read.
    held: Vec<Option<AlignedBuffer>>,
    /// For the data that the reader wants: column, and which block of the read it is.
    wanted: Vec<(usize, usize)>,
    /// Whether parity and data agree, as far as that can be said.
    agrees: bool,
}

impl Row {
    /// The columns that are missing or in `wrong`, and each of them made from the others; `None` when these are not enough.
    fn make(&self, wrong: &[usize]) -> Option<(Vec<usize>, Vec<AlignedBuffer>)> {
        let missing: Vec<usize> = (0..self.held.len())
            .filter(|index| self.held[*index].is_none() || wrong.contains(index))
            .collect();
        let given: Vec<&[u8]> = self.held.iter().map(|held| held.as_deref().unwrap_or_default()).collect();
        let mut made: Vec<AlignedBuffer> =
            missing.iter().map(|_| AlignedBuffer::zeroed(BLOCK_BYTES)).collect();
        let mut outs: Vec<&mut [u8]> = made.iter_mut().map(|made| &mut made[..]).collect();
        parity::rebuild(&given, self.parity, &missing, &mut outs).then_some((missing, made))
    }

    /// The whole row, with the columns in `wrong` made from the others.
    fn cells<'a>(&'a self, made: &'a (Vec<usize>, Vec<AlignedBuffer>)) -> Vec<&'a [u8]> {
        let (missing, made) = made;
        let cell = |index: usize| match missing.iter().position(|missing| *missing == index) {
            Some(at) => &made[at][..],
            None => self.held[index].as_deref().unwrap_or_default(),
        };
        (0..self.held.len()).map(cell).collect()
    }

    /// Whether a parity block that is left over agrees with the data.
    fn check(&mut self) {
        let spare = (0..self.parity).rev().find(|index| self.held[*index].is_some());
        let missing = self.held.iter().filter(|held| held.is_none()).count();
        self.agrees = missing < self.parity
            && spare.is_some_and(|spare| {
                self.make(&[spare])
                    .is_some_and(|made| self.held[spare].as_deref() == Some(self.cells(&made)[spare]))
            });
    }

    /// Puts the wanted data into `buf`, with the columns in `wrong` made from the others.
    fn guess(&self, wrong: &[usize], buf: &mut [u8]) -> bool {
        let Some(made) = self.make(wrong) else { return false };
        let cells = self.cells(&made);
        for (column, at) in &self.wanted {
            buf[at * BLOCK_BYTES..][..BLOCK_BYTES].copy_from_slice(cells[*column]);
        }
        true
    }

    /// Sets of columns that may be wrong: first those single ones without which all agrees, then none, one, two.
    fn suspects(&self) -> Vec<Vec<usize>> {
        let there: Vec<usize> = (0..self.held.len()).filter(|index| self.held[*index].is_some()).collect();
        let spare = self.parity.saturating_sub(self.held.len() - there.len());
        let mut sets = sets(&there, spare);
        if spare > 1 {
            sets.sort_by_key(|wrong| wrong.len() != 1 || !self.agrees_without(wrong[0]));
        }
        sets
    }

    /// Whether parity agrees with the data when column `wrong` is made from the others.
    fn agrees_without(&self, wrong: usize) -> bool {
        let Some(made) = self.make(&[wrong]) else { return false };
        let cells = self.cells(&made);
        let (parities, data) = cells.split_at(self.parity);
        let mut made: Vec<AlignedBuffer> =
            parities.iter().map(|_| AlignedBuffer::zeroed(BLOCK_BYTES)).collect();
        let mut outs: Vec<&mut [u8]> = made.iter_mut().map(|made| &mut made[..]).collect();
        parity::encode(data, &mut outs);
        parities.iter().zip(&made).all(|(parity, made)| parity[..] == made[..])
    }
}

/// All subsets of `of` with at most `most` (0, 1 or 2) entries, small ones first.
fn sets(of: &[usize], most: usize) -> Vec<Vec<usize>> {
    let mut sets = vec![Vec::new()];
    sets.extend(of.iter().map(|one| vec![*one]));
    for (at, one) in of.iter().enumerate() {
        sets.extend(of[at + 1..].iter().map(|two| vec![*one, *two]));
    }
    sets.retain(|set| set.len() <= most);
    sets
}

impl Group {
    /// Reads again what [`Group::read`] gave and whose reader found it wrong: tries what members hold, or give together, until
    /// `is_right`, and writes that over what was wrong. `None` when nothing that the members hold is right.
    pub fn recover(
        &self,
        extent: &Extent,
        from: u64,
        buf: &mut [u8],
        is_right: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Option<Healing> {
        if self.geometry().is_plain() {
            return self.recover_copies(extent.block + from, buf, is_right);
        }
        let parts = self.parts(extent, from, buf.len(), Operation::Read).ok()?;
        self.recover_parts(&parts, buf, is_right)
    }

    /// As [`Group::recover`], where every data block is a stripe of its own.
    pub fn recover_singles(
        &self,
        extent: &Extent,
        from: u64,
        buf: &mut [u8],
        is_right: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Option<Healing> {
        if self.geometry().is_plain() {
            return self.recover_copies(extent.block + from, buf, is_right);
        }
        let parts = self.singles(extent, from, buf.len(), Operation::Read).ok()?;
        self.recover_parts(&parts, buf, is_right)
    }

    fn recover_parts(
        &self,
        parts: &[StripePart],
        buf: &mut [u8],
        is_right: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Option<Healing> {
        let mut rows = Vec::new();
        let mut first = 0;
        for (stripe, part) in parts {
            let columns = stripe.columns();
            let (mut held, _) = self.read_blocks(&columns);
            for row in 0..stripe.rows() {
                let wanted = |block: &u32| stripe.place_of(*block).1 == row;
                let at = |block: u32| {
                    (stripe.parity() + stripe.place_of(block).0, first + (block - part.start) as usize)
                };
                let wanted: Vec<(usize, usize)> = part.clone().filter(wanted).map(at).collect();
                if !wanted.is_empty() {
                    rows.push(row_of(stripe, &columns, &mut held, row, wanted));
                }
            }
            first += part.len();
        }
        let mut reader = Reader { is_right, guesses: 0 };
        let mut leaves: Vec<usize> =
            rows.iter().flat_map(|row| row.cells.iter().map(|cell| cell.0)).collect();
        leaves.sort_unstable();
        leaves.dedup();
        // The same leaves in every row: what they hold is old, or not theirs.
        let found = sets(&leaves, self.geometry().parity() as usize).into_iter().any(|leaves| {
            let wrong = |row: &Row| -> Vec<usize> {
                (0..row.cells.len()).filter(|index| leaves.contains(&row.cells[*index].0)).collect()
            };
            rows.iter().all(|row| row.guess(&wrong(row), buf)) && reader.takes(buf)
        });
        let found = found || {
            let enough = rows.iter().all(|row| row.guess(&[], buf));
            let doubtful: Vec<&Row> = rows.iter().filter(|row| !row.agrees).collect();
            enough && try_rows(&doubtful, buf, &mut reader)
        };
        found.then(|| self.rewrite(&rows, buf))
    }

    /// Writes the data blocks of `buf` that members hold otherwise.
    fn rewrite(&self, rows: &[Row], buf: &[u8]) -> Healing {
        let mut healing = Healing::default();
        for row in rows {
            for (column, at) in &row.wanted {
                let right = &buf[at * BLOCK_BYTES..][..BLOCK_BYTES];
                if row.held[*column].as_deref() != Some(right) {
                    let (leaf, block) = row.cells[*column];
                    healing = healing.with(self.heal(leaf, block, right));
                }
            }
        }
        healing
    }

    /// Counts a wrong block and writes it anew. What a member lacks because it was away is not wrong.
    fn heal(&self, index: usize, block: u64, right: &[u8]) -> Healing {
        let member = &self.members()[index];
        if member.state() != MemberState::Online {
            return Healing::default();
        }
        member.counters.wrong(1);
        match self.repair(index, block, right) {
            true => Healing { repaired: 1, unrepaired: 0 },
            false => Healing { repaired: 0, unrepaired: 1 },
        }
    }

    fn recover_copies(
        &self,
        block: u64,
        buf: &mut [u8],
        is_right: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Option<Healing> {
        let count = buf.len() / BLOCK_BYTES;
        // For each member its blocks, with `None` where one cannot be read.
        let mut copies: Vec<(usize, Vec<Option<AlignedBuffer>>)> = Vec::new();
        for (index, member) in self.members().iter().enumerate() {
            // Who lacks something may well have this: the reader's checksum decides.
            if member.state().is_written() {
                let column = Column { leaf: index, block, blocks: count as u32 };
                copies.push((index, self.blocks_of(&column)));
            }
        }
        let mut reader = Reader { is_right, guesses: 0 };
        let whole = copies.iter().any(|(_, copy)| {
            let complete = copy.iter().zip(buf.chunks_exact_mut(BLOCK_BYTES)).all(|(held, bytes)| {
                held.as_ref().is_some_and(|held| {
                    bytes.copy_from_slice(held);
                    true
                })
            });
            complete && reader.takes(buf)
        });
        if !whole && !mix(&copies, buf, &mut reader) {
            return None;
        }
        let mut healing = Healing::default();
        for (index, copy) in &copies {
            for (at, (right, held)) in (block..).zip(buf.chunks_exact(BLOCK_BYTES).zip(copy)) {
                if held.as_deref() != Some(right) {
                    healing = healing.with(self.heal(*index, at, right));
                }
            }
        }
        Some(healing)
    }

    /// The blocks of a copy, one by one where they cannot be read together.
    pub(super) fn blocks_of(&self, column: &Column) -> Vec<Option<AlignedBuffer>> {
        let member = &self.members()[column.leaf];
        let mut bytes = AlignedBuffer::recycled(column.blocks as usize * BLOCK_BYTES);
        if member.read(column.block, &mut bytes).is_ok() {
            return bytes
                .chunks_exact(BLOCK_BYTES)
                .map(|block| Some(AlignedBuffer::copy_of(block)))
                .collect();
        }
        let one = |block: u64| {
            let mut bytes = AlignedBuffer::recycled(BLOCK_BYTES);
            (column.blocks > 1 && member.read(block, &mut bytes).is_ok()).then_some(bytes)
        };
        (column.block..column.block + u64::from(column.blocks)).map(one).collect()
    }
}

fn row_of(
    stripe: &Stripe,
    columns: &[Column],
    held: &mut [Vec<Option<AlignedBuffer>>],
    row: u32,
    wanted: Vec<(usize, usize)>,
) -> Row {
    let count = stripe.columns_in(row);
    let cells = columns[..count].iter().map(|column| (column.leaf, column.block + u64::from(row)));
    let held = held[..count].iter_mut().map(|column| column[row as usize].take());
    let mut row =
        Row { cells: cells.collect(), parity: stripe.parity(), held: held.collect(), wanted, agrees: false };
    row.check();
    row
}

/// Tries every set of columns that may be wrong in each of `rows`; whether one was right, which `buf` then has.
fn try_rows(rows: &[&Row], buf: &mut [u8], reader: &mut Reader<'_>) -> bool {
    let Some((row, rest)) = rows.split_first() else { return reader.takes(buf) };
    for wrong in row.suspects() {
        if reader.is_tired() {
            return false;
        }
        if row.guess(&wrong, buf) && try_rows(rest, buf, reader) {
            return true;
        }
    }
    false
}

/// Looks for what is right block by block when no copy is right as a whole.
fn mix(copies: &[(usize, Vec<Option<AlignedBuffer>>)], buf: &mut [u8], reader: &mut Reader<'_>) -> bool {
    // For each block what the copies have of it, each version once.
    let mut choices: Vec<Vec<&[u8]>> = Vec::new();
    for at in 0..buf.len() / BLOCK_BYTES {
        let mut versions: Vec<&[u8]> = Vec::new();
        for held in copies.iter().filter_map(|(_, copy)| copy[at].as_deref()) {
            if !versions.contains(&held) {
                versions.push(held);
            }
        }
        choices.push(versions);
    }
    let sets = choices.iter().try_fold(1_usize, |sets, versions| sets.checked_mul(versions.len()));
    for set in 0..sets.unwrap_or(usize::MAX).min(GUESSES_MAX) {
        let mut set = set;
        for (versions, bytes) in choices.iter().zip(buf.chunks_exact_mut(BLOCK_BYTES)) {
            bytes.copy_from_slice(versions[set % versions.len()]);
            set /= versions.len();
        }
        if reader.takes(buf) {
            return true;
        }
    }
    false
}
