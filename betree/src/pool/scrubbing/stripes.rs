//! The columns of a stripe and their parity: compared, mended, filled.
//!
//! A block that one member does not read is missing alone: the other rows of its column are not, and a row is made from what is
//! there of it.

use super::{Image, Judge, Purpose, Remedies, Scrubbed, Verdict, Window, bytes_of, expected};
use crate::base::units::BLOCK_BYTES;
use crate::pool::format::MemberState;
use crate::pool::geometry::{Column, Stripe};
use crate::pool::group::Group;
use crate::pool::parity;
use std::ops::Range;

/// A stripe of the window, as its members hold it.
struct Held {
    stripe: Stripe,
    columns: Vec<Column>,
    /// What its columns hold.
    bytes: Vec<Vec<u8>>,
    /// Blocks of each column that could not be read, or whose member is no source.
    missing: Vec<Vec<bool>>,
    /// Where its data are in the window.
    place: Range<usize>,
}

impl Held {
    /// Where the bytes of the column at `index` of [`Stripe::columns`] are in the data of the stripe; `None` for parity.
    fn data_of(&self, index: usize) -> Option<Range<usize>> {
        let first = self.stripe.first_of(index.checked_sub(self.stripe.parity())?) as usize;
        Some(bytes_of(first..first + self.columns[index].blocks as usize))
    }

    /// Puts what the data are when none of `leaves` is asked into `data`; for each block whether that is known.
    fn data_without(&self, leaves: &[usize], data: &mut [u8]) -> Vec<bool> {
        let mut given = vec![true; self.stripe.data as usize];
        for index in self.stripe.parity()..self.columns.len() {
            if let Some(place) = self.data_of(index) {
                data[place].copy_from_slice(&self.bytes[index]);
            }
        }
        let missing_in = |row: u32| -> Vec<usize> {
            let is_missing = |index: &usize| {
                self.missing[*index][row as usize] || leaves.contains(&self.columns[*index].leaf)
            };
            (0..self.stripe.columns_in(row)).filter(is_missing).collect()
        };
        let (mut row, rows) = (0, self.stripe.rows());
        while row < rows {
            let missing = missing_in(row);
            let is_same = |next: &u32| {
                self.stripe.columns_in(*next) == self.stripe.columns_in(row) && missing_in(*next) == missing
            };
            let end = (row + 1..rows).find(|next| !is_same(next)).unwrap_or(rows);
            self.make(&missing, row as usize..end as usize, data, &mut given);
            row = end;
        }
        given
    }

    /// Makes the blocks of `rows` in the data columns among `missing` from the others, which are all there.
    fn make(&self, missing: &[usize], rows: Range<usize>, data: &mut [u8], given: &mut [bool]) {
        let parity = self.stripe.parity();
        if missing.iter().all(|index| *index < parity) {
            return;
        }
        let bytes = bytes_of(rows.clone());
        let columns = &self.bytes[..self.stripe.columns_in(rows.start as u32)];
        let columns: Vec<&[u8]> = columns.iter().map(|column| &column[bytes.clone()]).collect();
        let mut made = vec![vec![0; bytes.len()]; missing.len()];
        let mut outs: Vec<&mut [u8]> = made.iter_mut().map(Vec::as_mut_slice).collect();
        let enough = parity::rebuild(&columns, parity, missing, &mut outs);
        for (index, made) in missing.iter().zip(&made) {
            let Some(place) = self.data_of(*index) else { continue };
            let start = place.start + bytes.start;
            data[start..start + bytes.len()].copy_from_slice(made);
            given[start / BLOCK_BYTES..(start + bytes.len()) / BLOCK_BYTES].fill(enough);
        }
    }

    /// The data blocks of the stripe that no source gave.
    fn missing_data(&self) -> impl Iterator<Item = usize> {
        let is_missing = |block: &u32| {
            let (column, row) = self.stripe.place_of(*block);
            self.missing[self.stripe.parity() + column][row as usize]
        };
        (0..self.stripe.data).filter(is_missing).map(|block| block as usize)
    }

    /// The parity of `data`.
    fn parities(&self, data: &[u8]) -> Vec<Vec<u8>> {
        let columns: Vec<&[u8]> =
            (0..self.columns.len()).filter_map(|index| Some(&data[self.data_of(index)?])).collect();
        let mut parities = vec![vec![0; self.stripe.rows() as usize * BLOCK_BYTES]; self.stripe.parity()];
        let mut outs: Vec<&mut [u8]> = parities.iter_mut().map(Vec::as_mut_slice).collect();
        parity::encode(&columns, &mut outs);
        parities
    }

    /// For each row, whether all its data are known.
    fn sound_rows(&self, verdict: &Verdict) -> Vec<bool> {
        let mut sound = vec![true; self.stripe.rows() as usize];
        if !verdict.keeps(&self.place) {
            return sound;
        }
        for block in 0..self.stripe.data {
            let start = self.place.start + block as usize * BLOCK_BYTES;
            if verdict.keeps(&(start..start + BLOCK_BYTES)) {
                sound[self.stripe.place_of(block).1 as usize] = false;
            }
        }
        sound
    }
}

impl Group {
    pub(super) fn compare_stripes(
        &self,
        window: &Window<'_>,
        buf: &mut [u8],
        purpose: Purpose,
        judge: &mut dyn Judge,
        scrubbed: &mut Scrubbed,
    ) -> Remedies {
        let stripes = self.hold_stripes(window, buf.len() / BLOCK_BYTES, purpose);
        scrubbed.requests += self.sources(purpose).count() as u64;
        for held in &stripes {
            held.data_without(&[], &mut buf[held.place.clone()]);
        }
        buf[..window.known.len()].copy_from_slice(window.known);
        let mut suspicion = Suspicion::new(&stripes);
        for (index, unit) in window.units.iter().enumerate() {
            if !judge.is_right(index, &buf[unit.clone()])
                && !suspicion.mend(unit, buf, &mut |bytes| judge.is_right(index, bytes))
                && !judge.find(index, &mut buf[unit.clone()])
            {
                scrubbed.damaged.push(index);
            }
        }
        let verdict = Verdict::new(window, &scrubbed.damaged);
        for held in &stripes {
            // Made from what was perhaps wrong, it may be anything.
            held.missing_data().for_each(|block| verdict.pad(held.place.start / BLOCK_BYTES + block, buf));
        }
        let mut remedies = Remedies::default();
        for held in &stripes {
            let is_settled = held.place.start < window.settled as usize * BLOCK_BYTES;
            self.compare_stripe(held, buf, purpose, is_settled, &verdict, &mut remedies);
        }
        remedies
    }

    fn compare_stripe(
        &self,
        held: &Held,
        buf: &[u8],
        purpose: Purpose,
        is_settled: bool,
        verdict: &Verdict,
        remedies: &mut Remedies,
    ) {
        let sound = held.sound_rows(verdict);
        let parities = if is_settled { held.parities(&buf[held.place.clone()]) } else { Vec::new() };
        for (index, column) in held.columns.iter().enumerate() {
            let is_filled = purpose == Purpose::Fill(column.leaf);
            if (is_filled && !is_settled)
                || (!is_filled && self.members()[column.leaf].state() != MemberState::Online)
            {
                continue;
            }
            for (row, is_sound) in sound.iter().copied().enumerate().take(column.blocks as usize) {
                let at = bytes_of(row..row + 1);
                let block = column.block + row as u64;
                let (own, is_missing) = (&held.bytes[index][at.clone()], held.missing[index][row]);
                let Some(data) = held.data_of(index) else {
                    if is_settled && is_sound && (is_missing || parities[index][at.clone()] != *own) {
                        remedies.add(column.leaf, block, &parities[index][at]);
                    }
                    continue;
                };
                let start = held.place.start + data.start + at.start;
                let place = start..start + BLOCK_BYTES;
                let right = &buf[place.clone()];
                if is_filled {
                    self.refill(column.leaf, block, (right, start), verdict, remedies);
                } else if !is_missing {
                    if let Some(expected) = expected(right, own, start, &verdict.kept) {
                        remedies.add(column.leaf, block, &expected);
                    }
                } else if !verdict.keeps(&place) && (is_sound || verdict.is_sure_of(&place)) {
                    // What was made from something wrong is not written.
                    remedies.add(column.leaf, block, right);
                }
            }
        }
    }

    /// Reads the stripes of `window`, with one request for each member.
    fn hold_stripes(&self, window: &Window<'_>, blocks: usize, purpose: Purpose) -> Vec<Held> {
        let range = window.from..window.from + blocks as u64;
        let stripes: Vec<(Stripe, Vec<Column>)> = self
            .geometry()
            .stripes(&window.extent, range)
            .map(|(stripe, _)| {
                let columns = stripe.columns();
                (stripe, columns)
            })
            .collect();
        let mut images: Vec<Option<Image>> = Vec::new();
        images.resize_with(self.members().len(), || None);
        for (leaf, member) in self.sources(purpose) {
            let own = || stripes.iter().flat_map(|(_, columns)| columns).filter(|column| column.leaf == leaf);
            let start = own().map(|column| column.block).min();
            let end = own().map(|column| column.block + u64::from(column.blocks)).max();
            if let (Some(start), Some(end)) = (start, end) {
                images[leaf] = Some(Image::read(member, leaf, start, (end - start) as usize));
            }
        }
        let mut from = 0;
        let mut held = Vec::with_capacity(stripes.len());
        for (stripe, columns) in stripes {
            let (mut bytes, mut missing) = (Vec::new(), Vec::new());
            for column in &columns {
                let blocks = column.blocks as usize;
                match &images[column.leaf] {
                    Some(image) => {
                        let start = (column.block - image.block) as usize;
                        bytes.push(image.bytes[bytes_of(start..start + blocks)].to_vec());
                        missing.push(image.unread[start..start + blocks].to_vec());
                    }
                    None => {
                        bytes.push(vec![0; blocks * BLOCK_BYTES]);
                        missing.push(vec![true; blocks]);
                    }
                }
            }
            let place = from..from + stripe.data as usize * BLOCK_BYTES;
            from = place.end;
            held.push(Held { stripe, columns, bytes, missing, place });
        }
        held
    }
}

/// The data of a stripe without some leaves, and which blocks of it are known.
type Made = (Vec<u8>, Vec<bool>);

/// Finds what is right when one leaf is left out, or two: who was wrong last is suspected first.
struct Suspicion<'a> {
    stripes: &'a [Held],
    sets: Vec<Vec<usize>>,
    last: usize,
    /// What the stripes are without the last one.
    made: Vec<Option<Made>>,
}

impl<'a> Suspicion<'a> {
    fn new(stripes: &'a [Held]) -> Self {
        let sets = leaf_sets(stripes);
        Self { stripes, sets, last: 0, made: stripes.iter().map(|_| None).collect() }
    }

    /// Puts `unit` into `buf` as it is without one of the sets, if it is right then.
    fn mend(&mut self, unit: &Range<usize>, buf: &mut [u8], is_right: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let mut bytes = vec![0; unit.len()];
        let last = self.last;
        let order = std::iter::once(last).chain((0..self.sets.len()).filter(|set| *set != last));
        for set in order.take(self.sets.len()) {
            if set != self.last {
                self.last = set;
                self.made.fill_with(|| None);
            }
            let mut is_known = true;
            for (at, held) in self.stripes.iter().enumerate() {
                let place = held.place.start.max(unit.start)..held.place.end.min(unit.end);
                if place.is_empty() {
                    continue;
                }
                let (data, given) = self.made[at].get_or_insert_with(|| {
                    let mut data = vec![0; held.place.len()];
                    let given = held.data_without(&self.sets[set], &mut data);
                    (data, given)
                });
                let own = place.start - held.place.start..place.end - held.place.start;
                let blocks = own.start / BLOCK_BYTES..own.end.div_ceil(BLOCK_BYTES);
                is_known &= given[blocks].iter().all(|given| *given);
                bytes[place.start - unit.start..place.end - unit.start].copy_from_slice(&data[own]);
            }
            if is_known && is_right(&bytes) {
                buf[unit.clone()].copy_from_slice(&bytes);
                return true;
            }
        }
        false
    }
}

/// Sets of leaves that may be wrong together.
fn leaf_sets(stripes: &[Held]) -> Vec<Vec<usize>> {
    let mut leaves: Vec<usize> =
        stripes.iter().flat_map(|held| &held.columns).map(|column| column.leaf).collect();
    leaves.sort_unstable();
    leaves.dedup();
    let mut sets: Vec<Vec<usize>> = leaves.iter().map(|leaf| vec![*leaf]).collect();
    if stripes.first().is_some_and(|held| held.stripe.parity() > 1) {
        for (at, one) in leaves.iter().enumerate() {
            sets.extend(leaves[at + 1..].iter().map(|two| vec![*one, *two]));
        }
    }
    sets
}
