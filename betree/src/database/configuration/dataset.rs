//! What a dataset is created with: the shape of its tree and where its data goes.

use super::{check, check_blocks, check_compression, check_size, optional_compression};
use crate::base::compression::Compression;
use crate::base::preference::StoragePreference;
use crate::pool::{ConfigurationError, bytes};
use crate::tree::MergePolicy;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Smallest and largest data block; the largest bounds what a point read fetches.
const BLOCK_SIZES: (u64, u64) = (4 << 10, 1 << 20);
/// Largest leaf, 1 GiB: a leaf is merged in one go.
const LEAF_SIZE_MAX: u64 = 1 << 30;
/// Largest buffer of a slot, 64 GiB.
const BUFFER_SIZE_MAX: u64 = 64 << 30;
/// Shortest and longest value that may be the first to get blocks of its own: shorter ones would waste most of a block.
const LARGE_VALUE_SIZES: (u64, u64) = (2 << 10, 1 << 20);
/// Slots of a node.
const FANOUTS: (usize, usize) = (4, 1024);
/// Runs of a slot: a node header holds a reference to each, a point read looks at the filter of each.
const RUNS: (usize, usize) = (1, 64);

/// What a dataset is created with. Sizes are bytes before compression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatasetConfiguration {
    /// When runs are merged.
    pub merge_policy: MergePolicy,
    /// Slots of a node before it splits: the ε of the tree. More: fewer levels, smaller flushes per slot.
    pub fanout: usize,
    /// Largest leaf. A merge reads and writes a whole leaf: larger ones mean fewer, longer merges.
    #[serde(deserialize_with = "bytes")]
    pub leaf_size: u64,
    /// Data block, a multiple of 4 KiB: what a point read fetches. Small ones suit random reads beyond the cache, large
    /// ones compress better.
    #[serde(deserialize_with = "bytes")]
    pub block_size: usize,
    /// Values of at least this many bytes lie in blocks of their own, and only pointers to them travel down the tree: they are written
    /// once, however often the tree merges. They are not compressed, and a value whose length is no multiple of 4 KiB leaves the
    /// rest of its last block empty.
    #[serde(deserialize_with = "bytes")]
    pub large_value_size: usize,
    /// A slot's buffer is flushed at this size.
    #[serde(deserialize_with = "bytes")]
    pub buffer_size: u64,
    /// A slot's buffer is flushed at this many overlapping runs.
    pub runs_per_buffer: usize,
    /// A leaf is merged at this many overlapping deltas.
    pub deltas_per_leaf: usize,
    /// Compression; `None`: the database's.
    #[serde(deserialize_with = "optional_compression")]
    pub compression: Option<Compression>,
    /// Where its data goes when a write does not say. JSON: 0…3, a name such as `"FAST"`, or null for no preference.
    #[serde(serialize_with = "write_preference", deserialize_with = "read_preference")]
    pub storage_preference: StoragePreference,
}

impl Default for DatasetConfiguration {
    fn default() -> Self {
        Self {
            merge_policy: MergePolicy::LazyLeveled,
            fanout: 64,
            leaf_size: 4 << 20,
            block_size: 4 << 10,
            large_value_size: 16 << 10,
            buffer_size: 32 << 20,
            runs_per_buffer: 8,
            deltas_per_leaf: 8,
            compression: None,
            storage_preference: StoragePreference::NONE,
        }
    }
}

impl DatasetConfiguration {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`ConfigurationError::Invalid`] with the first field that is wrong.
    pub fn validate(&self) -> Result<(), ConfigurationError> {
        self.validate_at("")
    }

    pub(super) fn validate_at(&self, prefix: &str) -> Result<(), ConfigurationError> {
        let at = |field: &str| format!("{prefix}{field}");
        for (field, count, (least, most)) in [
            ("fanout", self.fanout, FANOUTS),
            ("runs_per_buffer", self.runs_per_buffer, RUNS),
            ("deltas_per_leaf", self.deltas_per_leaf, RUNS),
        ] {
            check(
                (least..=most).contains(&count),
                || at(field),
                || format!("{count} is not from {least} to {most}"),
            )?;
        }
        let block = self.block_size as u64;
        check_size(&at("block_size"), block, BLOCK_SIZES.0, BLOCK_SIZES.1)?;
        check_blocks(&at("block_size"), block)?;
        let large = self.large_value_size as u64;
        check_size(&at("large_value_size"), large, LARGE_VALUE_SIZES.0, LARGE_VALUE_SIZES.1)?;
        // A leaf and a buffer hold at least one block.
        check_size(&at("leaf_size"), self.leaf_size, block, LEAF_SIZE_MAX)?;
        check_size(&at("buffer_size"), self.buffer_size, block, BUFFER_SIZE_MAX)?;
        match self.compression {
            Some(compression) => check_compression(compression, &at("compression")),
            None => Ok(()),
        }
    }
}

fn write_preference<S: Serializer>(preference: &StoragePreference, serializer: S) -> Result<S::Ok, S::Error> {
    preference.class().serialize(serializer)
}

fn read_preference<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StoragePreference, D::Error> {
    deserializer.deserialize_any(PreferenceVisitor)
}

struct PreferenceVisitor;

impl Visitor<'_> for PreferenceVisitor {
    type Value = StoragePreference;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0…3, \"FASTEST\", \"FAST\", \"SLOW\", \"SLOWEST\", \"NONE\" or null")
    }

    fn visit_unit<E: Error>(self) -> Result<StoragePreference, E> {
        Ok(StoragePreference::NONE)
    }

    fn visit_u64<E: Error>(self, class: u64) -> Result<StoragePreference, E> {
        let preference = u8::try_from(class).ok().and_then(StoragePreference::from_u8);
        preference.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(class), &self))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<StoragePreference, E> {
        let all = [0, 1, 2, 3, StoragePreference::NONE.as_u8()];
        let mut all = all.into_iter().filter_map(StoragePreference::from_u8);
        let named = all.find(|preference| preference.to_string().eq_ignore_ascii_case(name));
        named.ok_or_else(|| E::invalid_value(Unexpected::Str(name), &self))
    }
}
