//! Counters of one top-level vdev.

use crate::base::ids::VdevId;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts I/O; on cache lines of its own, so that vdevs do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counters {
    reads: Count,
    writes: Count,
    flushes: Count,
}

/// One kind of request.
#[derive(Debug, Default)]
pub(super) struct Count {
    requests: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

impl Count {
    /// Counts one request of `bytes` bytes.
    pub fn add(&self, bytes: usize, succeeded: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if succeeded {
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        } else {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn snapshot(&self) -> RequestMetrics {
        RequestMetrics {
            requests: self.requests.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }
}

impl Counters {
    pub fn reads(&self) -> &Count {
        &self.reads
    }

    pub fn writes(&self) -> &Count {
        &self.writes
    }

    pub fn flushes(&self) -> &Count {
        &self.flushes
    }

    pub fn snapshot(&self, id: VdevId, tier: u8, device: &str, blocks: u64) -> VdevMetrics {
        VdevMetrics {
            id,
            tier,
            device: device.to_owned(),
            blocks,
            reads: self.reads.snapshot(),
            writes: self.writes.snapshot(),
            flushes: self.flushes.snapshot(),
        }
    }
}

/// Requests of one kind since the pool was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestMetrics {
    /// All requests, failed ones included.
    pub requests: u64,
    /// Bytes of those that succeeded.
    pub bytes: u64,
    /// Those that failed.
    pub errors: u64,
}

/// What a top-level vdev did since the pool was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VdevMetrics {
    /// The vdev.
    pub id: VdevId,
    /// Its tier.
    pub tier: u8,
    /// Name of its device.
    pub device: String,
    /// Length in blocks of 4 KiB.
    pub blocks: u64,
    /// Reads.
    pub reads: RequestMetrics,
    /// Writes, superblocks included.
    pub writes: RequestMetrics,
    /// Flushes that reached the device.
    pub flushes: RequestMetrics,
}
