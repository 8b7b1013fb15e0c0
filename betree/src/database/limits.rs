//! Limits that callers meet, and sizes that follow from the size of the pool.

use super::error::{Error, Result};
use super::{DatabaseConfiguration, DatasetConfiguration};
use crate::base::units::{BLOCK_BYTES_U64, blocks_for};
use crate::dmu::Reserve;
use crate::tree::TreeOptions;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// Longest message of an upsert, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Largest batch: keys, values, messages and 32 bytes for each write, in bytes.
pub const BATCH_BYTES_MAX: u64 = 256 << 20;

/// Checks the length of an argument.
pub(crate) fn check_length(what: &'static str, length: usize, limit: usize) -> Result<()> {
    if length <= limit {
        return Ok(());
    }
    Err(Error::TooLarge { what, length: length as u64, limit: limit as u64 })
}

/// Slots of a node, as a rule.
const SLOTS_MAX: usize = 64;

/// Sizes of a database on a pool of a given size: the configured ones, scaled down on a small pool so that memtables,
/// leaves and log are a small share of it.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    /// Bytes at which a memtable is frozen.
    pub memtable_bytes: usize,
    /// Bytes of all memtables at which writers wait.
    pub memtables_bytes_max: usize,
    /// Bytes of log at which a checkpoint starts.
    pub checkpoint_log_bytes: u64,
    /// Length of a log extent, in blocks.
    pub log_extent_blocks: u32,
    /// Blocks that checkpoints need beside headers and the flushes of memtables, until they give some back.
    pub checkpoint_blocks: u64,
    /// Bytes of headers that no checkpoint has written at which one starts.
    pub dirty_bytes_max: usize,
    /// Bytes of durable storage.
    capacity: u64,
}

impl Scale {
    pub fn new(configuration: &DatabaseConfiguration, capacity: u64) -> Self {
        let memtable = (configuration.memtable_size as u64).min(capacity / 64).max(4 << 10);
        let log = configuration.checkpoint_log_bytes.unwrap_or(memtable * 8);
        let extent = (capacity / 256).clamp(64 << 10, 4 << 20) / BLOCK_BYTES_U64;
        Self {
            memtable_bytes: memtable as usize,
            memtables_bytes_max: memtable as usize * 4,
            checkpoint_log_bytes: log.min(capacity / 16).max(128 << 10),
            log_extent_blocks: extent as u32,
            checkpoint_blocks: 0,
            dirty_bytes_max: (capacity / 64).clamp(64 << 10, 32 << 20) as usize,
            capacity,
        }
    }

    /// Shape of a dataset's tree.
    pub fn tree_options(
        &self,
        database: &DatabaseConfiguration,
        dataset: &DatasetConfiguration,
    ) -> TreeOptions {
        let leaf = dataset.leaf_size.min(self.capacity / 128).max(dataset.block_size as u64);
        TreeOptions {
            policy: dataset.merge_policy,
            fanout: dataset.fanout,
            leaf_bytes: leaf,
            buffer_bytes: dataset.buffer_size.min(self.capacity / 32).max(leaf),
            runs_per_buffer: dataset.runs_per_buffer,
            deltas_per_leaf: dataset.deltas_per_leaf,
            block_bytes: dataset.block_size,
            compression: dataset.compression.unwrap_or(database.compression),
            preference: dataset.storage_preference,
            large_value_bytes: dataset.large_value_size,
            ..TreeOptions::default()
        }
    }

    /// Dead blocks that wait for a checkpoint at which one starts.
    pub fn deferred_blocks_max(&self) -> u64 {
        (self.capacity / BLOCK_BYTES_U64 / 16).max(64)
    }

    /// Dead blocks that are worth two checkpoints when space runs short.
    pub fn deferred_blocks_least(&self) -> u64 {
        (self.capacity / BLOCK_BYTES_U64 / 1024).clamp(2, 64)
    }

    /// Bytes of large values named by one memtable at which it is frozen: garbage that its own size does not show.
    pub fn large_bytes_max(&self) -> u64 {
        (self.capacity / 32).clamp(1 << 20, 256 << 20)
    }

    /// What must stay free for memtables of `bytes` bytes, `tables` in number, headers of `dirty` bytes that wait for
    /// a checkpoint, and maps of `maps` blocks, which two checkpoints may write anew while a scrub looks at what they were.
    ///
    /// Whatever happens, all memtables can be flushed and a checkpoint be written; above that a merge of a leaf, or the
    /// flush of a run of a buffer into many, can give space back; above that deletes have some room before the first of
    /// these.
    pub fn reserve(&self, bytes: usize, tables: usize, dirty: usize, maps: u64) -> Reserve {
        // The last block of a run is its own, in each slot that it is split for.
        let runs = (tables * SLOTS_MAX).min(bytes / 64);
        let flushes = blocks_for(bytes as u64 * 5 / 4) + runs as u64;
        let merge = self.checkpoint_blocks + 3 * maps + blocks_for(dirty as u64) + flushes;
        let leaf_or_run = self.merge_bytes().max(self.memtable_bytes as u64 * 5 / 4);
        let delete = merge + blocks_for(leaf_or_run) + SLOTS_MAX as u64;
        let user = delete + self.capacity / BLOCK_BYTES_U64 / 128;
        Reserve { merge, delete, user }
    }

    /// Bytes that one merge may need at once, beyond what its inputs give back later.
    pub fn merge_bytes(&self) -> u64 {
        (self.capacity / 128).clamp(16 << 10, 8 << 20)
    }
}
