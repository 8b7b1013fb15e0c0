//! Limits that callers meet, and sizes that follow from the size of the pool.

use super::error::{Error, Result};
use super::{DatabaseConfiguration, DatasetConfiguration};
use crate::base::units::BLOCK_BYTES_U64;
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
pub(super) fn check_length(what: &'static str, length: usize, limit: usize) -> Result<()> {
    if length <= limit {
        return Ok(());
    }
    Err(Error::TooLarge { what, length: length as u64, limit: limit as u64 })
}

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
    /// Blocks that are kept for deletes, merges and checkpoints, without the flushes of memtables.
    pub reserve_blocks: u64,
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
            reserve_blocks: 0,
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
            ..TreeOptions::default()
        }
    }

    /// Dead blocks that wait for a checkpoint at which one starts.
    pub fn deferred_blocks_max(&self) -> u64 {
        (self.capacity / BLOCK_BYTES_U64 / 16).max(64)
    }

    /// Bytes of large values named by one memtable at which it is frozen: garbage that its own size does not show.
    pub fn large_bytes_max(&self) -> u64 {
        (self.capacity / 32).clamp(1 << 20, 256 << 20)
    }

    /// Bytes that one merge may need at once, beyond what its inputs give back later.
    pub fn merge_bytes(&self) -> u64 {
        (self.capacity / 128).clamp(16 << 10, 8 << 20)
    }
}
