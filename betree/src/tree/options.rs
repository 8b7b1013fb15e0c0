//! Shape of a tree.

use crate::base::compression::Compression;
use crate::base::preference::StoragePreference;

/// How many runs a buffer may hold before they are merged (Dayan and Idreos, Dostoevsky, SIGMOD 2018).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub enum MergePolicy {
    /// Many runs in buffers and leaves: cheapest writes.
    Tiered,
    /// Many runs in the buffers, few in the leaves.
    #[default]
    LazyLeveled,
    /// One run in each buffer and leaf: cheapest reads.
    Leveled,
}

/// Shape of one tree; all sizes in bytes of stored data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeOptions {
    /// When runs are merged.
    pub policy: MergePolicy,
    /// Slots of a node before it splits: the ε of the tree. More: fewer levels, smaller flushes per slot.
    pub fanout: usize,
    /// Largest leaf. A leaf merge reads and writes a whole leaf, so larger means fewer, longer pauses of one worker.
    pub leaf_bytes: u64,
    /// A slot's buffer is flushed at this size: about fan-out × leaf × delta ratio ÷ deltas, or the run count decides
    /// instead of the ratio.
    pub buffer_bytes: u64,
    /// A slot's buffer is flushed at this many overlapping runs; a point read looks at the filter of each.
    pub runs_per_buffer: usize,
    /// A leaf is merged at this many overlapping deltas.
    pub deltas_per_leaf: usize,
    /// A leaf is merged when its deltas reach this share of its base, in percent: the leaf's share of write
    /// amplification is 1 + 100 / ratio.
    pub delta_ratio_percent: u64,
    /// Uncompressed size of a data block: what a point read fetches.
    pub block_bytes: usize,
    /// Compression of data blocks.
    pub compression: Compression,
    /// Where the tree's data goes when a write does not say.
    pub preference: StoragePreference,
    /// Values of at least this many bytes get extents of their own.
    pub large_value_bytes: usize,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self {
            policy: MergePolicy::LazyLeveled,
            fanout: 64,
            leaf_bytes: 4 << 20,
            buffer_bytes: 32 << 20,
            runs_per_buffer: 8,
            deltas_per_leaf: 8,
            delta_ratio_percent: 50,
            block_bytes: 16 << 10,
            compression: Compression::None,
            preference: StoragePreference::NONE,
            large_value_bytes: 16 << 10,
        }
    }
}
