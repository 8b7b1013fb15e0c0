//! A filter over the keys of a memtable: most reads look for keys that are not in it, and a walk down the index costs
//! several cache misses where the filter costs one.

use std::sync::atomic::{AtomicU64, Ordering};

/// Words of a filter, 512 KiB: two bits in one word for each of the some 300,000 keys of a full memtable let two in a
/// hundred absent keys pass.
const WORDS: usize = 1 << 16;

/// Marks of keys. One writer at a time adds, readers look beside it.
#[derive(Debug)]
pub(super) struct Filter {
    words: Box<[AtomicU64]>,
}

impl Filter {
    /// Bytes that a filter takes.
    pub const BYTES: usize = WORDS * size_of::<u64>();

    pub fn new() -> Self {
        Self { words: std::iter::repeat_with(AtomicU64::default).take(WORDS).collect() }
    }

    #[inline]
    fn mark(hash: u64) -> u64 {
        1 << (hash & 63) | 1 << (hash >> 6 & 63)
    }

    #[inline]
    fn word(&self, hash: u64) -> &AtomicU64 {
        &self.words[(hash >> 48) as usize % WORDS]
    }

    /// Adds a key by its hash.
    #[inline]
    pub fn add(&self, hash: u64) {
        let word = self.word(hash);
        // Stored, not or-ed: there is one writer, and its insert is published by the sequence number that becomes visible
        // afterwards.
        word.store(word.load(Ordering::Relaxed) | Self::mark(hash), Ordering::Relaxed);
    }

    /// Whether a key with this hash may have been added.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        let mark = Self::mark(hash);
        self.word(hash).load(Ordering::Relaxed) & mark == mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::key_hash;

    #[test]
    fn what_was_added_is_found_and_most_else_is_not() {
        let filter = Filter::new();
        let hash = |number: u64| key_hash(&number.to_be_bytes());
        (0..300_000).for_each(|number| filter.add(hash(number)));
        assert!((0..300_000).all(|number| filter.may_contain(hash(number))));
        let passed = (300_000..400_000).filter(|number| filter.may_contain(hash(*number))).count();
        assert!(passed < 5_000, "{passed} of 100,000 absent keys pass");
    }
}
