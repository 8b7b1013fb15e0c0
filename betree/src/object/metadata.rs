//! Iterator over the custom metadata of an object.

use super::format::key_custom;
use crate::database::{Entries, Error, Result};
use crate::tree::Value;

/// Keys and values of custom metadata, in the order of the keys. After an error it ends.
#[derive(Debug)]
pub struct MetadataEntries {
    entries: Entries,
}

impl MetadataEntries {
    pub(super) fn new(entries: Entries) -> Self {
        Self { entries }
    }
}

fn item(entry: Result<(Value, Value)>) -> Result<(Vec<u8>, Value)> {
    let (key, value) = entry?;
    let damaged = || Error::Corrupt { what: "custom metadata", reason: String::from("a key is cut short") };
    let (_, key) = key_custom(&key).ok_or_else(damaged)?;
    Ok((key.to_vec(), value))
}

impl Iterator for MetadataEntries {
    type Item = Result<(Vec<u8>, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entries.next().map(item)
    }
}

impl DoubleEndedIterator for MetadataEntries {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.entries.next_back().map(item)
    }
}
