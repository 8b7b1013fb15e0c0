//! A bit per block, scanned a word at a time.
//!
//! A set bit means "taken" in every bitmap of the allocator. Bits of the last word behind the length are 0 and are never
//! looked at.

use std::ops::Range;

const WORD_BITS: u32 = 64;

/// Bits of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bitmap {
    words: Vec<u64>,
    bits: u32,
}

/// The words that `range` touches, each with the mask of its bits inside.
fn masks(range: Range<u32>) -> impl Iterator<Item = (usize, u64)> {
    let Range { mut start, end } = range;
    std::iter::from_fn(move || {
        if start >= end {
            return None;
        }
        let (word, shift) = (start / WORD_BITS, start % WORD_BITS);
        let count = (WORD_BITS - shift).min(end - start);
        start += count;
        let ones = if count == WORD_BITS { u64::MAX } else { (1 << count) - 1 };
        Some((word as usize, ones << shift))
    })
}

impl Bitmap {
    /// `bits` clear bits.
    pub(super) fn new(bits: u32) -> Self {
        Self { words: vec![0; bits.div_ceil(WORD_BITS) as usize], bits }
    }

    /// Bytes of `bits` bits on a device.
    pub(super) const fn bytes_for(bits: u32) -> usize {
        bits.div_ceil(WORD_BITS) as usize * 8
    }

    /// Reads little-endian words; `None` when the length is wrong or a bit behind the last one is set.
    pub(super) fn from_bytes(bytes: &[u8], bits: u32) -> Option<Self> {
        let (chunks, rest) = bytes.as_chunks::<8>();
        let words: Vec<u64> = chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
        let tail = bits % WORD_BITS;
        let tail_is_clear = tail == 0 || words.last().is_some_and(|word| word >> tail == 0);
        (bytes.len() == Self::bytes_for(bits) && rest.is_empty() && tail_is_clear)
            .then_some(Self { words, bits })
    }

    /// Writes little-endian words to the start of `out`, which has room for [`Bitmap::bytes_for`] bytes.
    pub(super) fn write_to(&self, out: &mut [u8]) {
        for (word, chunk) in self.words.iter().zip(out.chunks_exact_mut(8)) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
    }

    pub(super) fn bits(&self) -> u32 {
        self.bits
    }

    pub(super) fn set(&mut self, range: Range<u32>) {
        for (word, mask) in masks(range) {
            self.words[word] |= mask;
        }
    }

    pub(super) fn clear(&mut self, range: Range<u32>) {
        for (word, mask) in masks(range) {
            self.words[word] &= !mask;
        }
    }

    pub(super) fn all_set(&self, range: Range<u32>) -> bool {
        masks(range).all(|(word, mask)| self.words[word] & mask == mask)
    }

    pub(super) fn any_set(&self, range: Range<u32>) -> bool {
        masks(range).any(|(word, mask)| self.words[word] & mask != 0)
    }

    pub(super) fn count_set(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    pub(super) fn count_set_in(&self, range: Range<u32>) -> u32 {
        masks(range).map(|(word, mask)| (self.words[word] & mask).count_ones()).sum()
    }

    pub(super) fn count_clear(&self) -> u32 {
        self.bits - self.count_set()
    }

    pub(super) fn is_clear(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether every bit of `other` (of the same length) is set here.
    pub(super) fn contains(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).all(|(own, other)| other & !own == 0)
    }

    /// Sets every bit that is set in `other`.
    pub(super) fn add(&mut self, other: &Self) {
        for (own, other) in self.words.iter_mut().zip(&other.words) {
            *own |= other;
        }
    }

    /// Clears every bit that is set in `other`.
    pub(super) fn subtract(&mut self, other: &Self) {
        for (own, other) in self.words.iter_mut().zip(&other.words) {
            *own &= !other;
        }
    }

    /// The first bit in `from..to` whose word, xored with `flip`, has it set.
    fn next(&self, from: u32, to: u32, flip: u64) -> Option<u32> {
        if from >= to {
            return None;
        }
        let mut index = from / WORD_BITS;
        let mut word = (self.words[index as usize] ^ flip) & (u64::MAX << (from % WORD_BITS));
        loop {
            if word != 0 {
                let bit = index * WORD_BITS + word.trailing_zeros();
                return (bit < to).then_some(bit);
            }
            index += 1;
            if index * WORD_BITS >= to {
                return None;
            }
            word = self.words[index as usize] ^ flip;
        }
    }

    /// The first set bit in `from..to`.
    pub(super) fn next_set(&self, from: u32, to: u32) -> Option<u32> {
        self.next(from, to, 0)
    }

    /// The first clear bit in `from..to`.
    pub(super) fn next_clear(&self, from: u32, to: u32) -> Option<u32> {
        self.next(from, to, u64::MAX)
    }

    /// The run of clear bits around the clear bits `range`.
    pub(super) fn clear_run_around(&self, range: Range<u32>) -> Range<u32> {
        let end = self.next_set(range.end, self.bits).unwrap_or(self.bits);
        let mut start = range.start;
        while start > 0 {
            let (index, below) = ((start - 1) / WORD_BITS, (start - 1) % WORD_BITS + 1);
            let word = self.words[index as usize] << (WORD_BITS - below);
            if word != 0 {
                start -= word.leading_zeros();
                break;
            }
            start -= below;
        }
        start..end
    }

    /// The start of the first run of at least `wanted` clear bits inside `from..to`, or else the longest run there.
    pub(super) fn find_clear_run(&self, from: u32, to: u32, wanted: u32) -> Result<u32, u32> {
        let (mut position, mut longest) = (from, 0);
        while let Some(start) = self.next_clear(position, to) {
            let limit = to.min(start.saturating_add(wanted));
            let end = self.next_set(start, limit).unwrap_or(limit);
            if end - start >= wanted {
                return Ok(start);
            }
            longest = longest.max(end - start);
            position = end;
        }
        Err(longest)
    }

    /// Runs of clear bits, in order.
    pub(super) fn clear_runs(&self) -> impl Iterator<Item = Range<u32>> {
        let mut position = 0;
        std::iter::from_fn(move || {
            let start = self.next_clear(position, self.bits)?;
            position = self.next_set(start, self.bits).unwrap_or(self.bits);
            Some(start..position)
        })
    }

    /// Runs of set bits, in order.
    pub(super) fn set_runs(&self) -> impl Iterator<Item = Range<u32>> {
        let mut position = 0;
        std::iter::from_fn(move || {
            let start = self.next_set(position, self.bits)?;
            position = self.next_clear(start, self.bits).unwrap_or(self.bits);
            Some(start..position)
        })
    }

    /// Length of the longest run of clear bits; 0 when there is none.
    pub(super) fn longest_clear_run(&self) -> u32 {
        self.clear_runs().map(|run| run.end - run.start).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_vector_of_bools(
            bits in prop::sample::select(vec![8u32, 16, 64, 128, 200, 512]),
            ops in prop::collection::vec((any::<bool>(), 0u32..512, 0u32..200), 0..40),
            probe in (0u32..512, 0u32..512, 1u32..100),
        ) {
            let mut map = Bitmap::new(bits);
            let mut model = vec![false; bits as usize];
            for (set, start, length) in ops {
                let start = start % bits;
                let end = (start + length).min(bits);
                model[start as usize..end as usize].fill(set);
                if set { map.set(start..end) } else { map.clear(start..end) }
            }
            let count = model.iter().filter(|bit| **bit).count() as u32;
            prop_assert_eq!((map.count_set(), map.count_clear()), (count, bits - count));
            let (a, b) = (probe.0 % bits, probe.1 % (bits + 1));
            let (from, to) = (a.min(b), a.max(b));
            let part = &model[from as usize..to as usize];
            prop_assert_eq!(map.all_set(from..to), part.iter().all(|bit| *bit));
            prop_assert_eq!(map.any_set(from..to), part.iter().any(|bit| *bit));
            prop_assert_eq!(map.count_set_in(from..to), part.iter().filter(|bit| **bit).count() as u32);
            let position = |value| part.iter().position(|bit| *bit == value).map(|at| at as u32 + from);
            prop_assert_eq!(map.next_set(from, to), position(true));
            prop_assert_eq!(map.next_clear(from, to), position(false));
            let (mut best, mut run, mut found) = (0, 0, None);
            for (at, bit) in part.iter().enumerate() {
                run = if *bit { 0 } else { run + 1 };
                best = best.max(run);
                if run >= probe.2 && found.is_none() {
                    found = Some(from + at as u32 + 1 - run);
                }
            }
            prop_assert_eq!(map.find_clear_run(from, to, probe.2), found.ok_or(best));
            if !model[from as usize % bits as usize] {
                let at = (from % bits) as usize;
                let start = model[..at].iter().rposition(|bit| *bit).map_or(0, |set| set + 1) as u32;
                let end = model[at..].iter().position(|bit| *bit).map_or(bits, |set| (at + set) as u32);
                prop_assert_eq!(map.clear_run_around(at as u32..at as u32 + 1), start..end);
            }
            let mut rebuilt = Bitmap::new(bits);
            for run in map.set_runs() {
                rebuilt.set(run);
            }
            prop_assert_eq!(&rebuilt, &map);
            prop_assert_eq!(map.clear_runs().map(|run| run.end - run.start).sum::<u32>(), bits - count);
            let mut bytes = vec![0xff; Bitmap::bytes_for(bits)];
            map.write_to(&mut bytes);
            prop_assert_eq!(Bitmap::from_bytes(&bytes, bits), Some(map));
        }
    }

    #[test]
    fn bytes_of_a_wrong_shape_are_refused() {
        assert!(Bitmap::from_bytes(&[0; 8], 128).is_none());
        assert!(Bitmap::from_bytes(&[0; 9], 64).is_none());
        assert!(Bitmap::from_bytes(&[0, 1, 0, 0, 0, 0, 0, 0], 8).is_none());
        assert!(Bitmap::from_bytes(&[0xff, 0, 0, 0, 0, 0, 0, 0], 8).is_some());
    }
}
