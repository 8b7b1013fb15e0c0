//! Iterator over the chunks of an object that are there.

use super::format::{CHUNK_BYTES, key_chunk};
use crate::database::{Entries, Error, Result};
use crate::tree::Value;
use std::ops::Range;

/// The bytes of an object that were written, chunk by chunk: where in the object they are, and the bytes. What is between them
/// reads as zeros. After an error it ends.
#[derive(Debug)]
pub struct Chunks {
    entries: Entries,
    size: u64,
}

impl Chunks {
    pub(super) fn new(entries: Entries, size: u64) -> Self {
        Self { entries, size }
    }

    fn item(&self, key: &[u8], value: Value) -> Result<(Range<u64>, Value)> {
        let damaged = |reason| Error::Corrupt { what: "chunk", reason: String::from(reason) };
        let (_, chunk) = key_chunk(key).ok_or_else(|| damaged("its key is cut short"))?;
        let start = chunk.checked_mul(CHUNK_BYTES).ok_or_else(|| damaged("it is behind all bytes"))?;
        let end = start.saturating_add(value.len() as u64);
        if end > self.size || value.len() as u64 > CHUNK_BYTES {
            return Err(damaged("it is longer than its object"));
        }
        Ok((start..end, value))
    }
}

impl Iterator for Chunks {
    type Item = Result<(Range<u64>, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.entries.next()?;
        Some(next.and_then(|(key, value)| self.item(&key, value)))
    }
}

impl DoubleEndedIterator for Chunks {
    fn next_back(&mut self) -> Option<Self::Item> {
        let next = self.entries.next_back()?;
        Some(next.and_then(|(key, value)| self.item(&key, value)))
    }
}
