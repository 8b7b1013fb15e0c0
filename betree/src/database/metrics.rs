//! What a database counts.

use super::core::Core;
use crate::base::preference::TIER_COUNT;
use crate::base::units::BLOCK_BYTES_U64;
use crate::dmu::{CacheStatistics, TierSpace};
use crate::pool::VdevMetrics;

/// Counters and gauges of a database at one moment.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Requests, bytes and errors of each vdev since the pool was opened.
    pub vdevs: Vec<VdevMetrics>,
    /// Space of each tier, in blocks of 4 KiB.
    pub tiers: [TierSpace; TIER_COUNT],
    /// Hits, misses and size of the cache.
    pub cache: CacheStatistics,
    /// Bytes of node headers in memory that wait for a checkpoint; part of the bytes of the cache.
    pub dirty_header_bytes: u64,
    /// Bytes in all memtables.
    pub memtable_bytes: u64,
    /// Bytes in memtables that wait to be flushed.
    pub frozen_bytes: u64,
    /// Flushes, merges and other work that waits.
    pub waiting_jobs: u64,
    /// Bytes that are dead and wait for checkpoints before they may be used again.
    pub pending_free_bytes: u64,
    /// Bytes of intent log on the devices since the newest checkpoint.
    pub log_bytes: u64,
    /// Blocks of the extents of the intent log, also of those not yet written to.
    pub log_blocks: u64,
    /// The newest durable checkpoint.
    pub durable_generation: u64,
}

impl Core {
    pub fn metrics(&self) -> Metrics {
        let (all, frozen) = self.measure_memtables();
        Metrics {
            vdevs: self.pool.metrics(),
            tiers: self.dmu.space(),
            cache: self.dmu.cache().statistics(),
            dirty_header_bytes: self.dmu.cache().dirty_bytes() as u64,
            memtable_bytes: all as u64,
            frozen_bytes: frozen as u64,
            log_blocks: self.log.get().map_or(0, |log| self.dmu.data_share(&log.extents())),
            waiting_jobs: self.jobs.len() as u64,
            pending_free_bytes: self.dmu.deferred_blocks() * BLOCK_BYTES_U64,
            // A database that is open for reading only has no log of its own.
            log_bytes: self.log_bytes().unwrap_or(0),
            durable_generation: self.dmu.durable_generation().0,
        }
    }
}
