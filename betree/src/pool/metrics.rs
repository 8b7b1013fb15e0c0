//! Counters of the members of top-level vdevs.

use super::format::{ErrorCounts, MemberState};
use crate::base::ids::VdevId;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts I/O; on cache lines of its own, so that vdevs do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counters {
    reads: Count,
    writes: Count,
    flushes: Count,
    wrong: AtomicU64,
    repaired: AtomicU64,
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

    fn metrics(&self) -> RequestMetrics {
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

    /// Counts `blocks` blocks that were not what was written there.
    pub fn wrong(&self, blocks: u64) {
        self.wrong.fetch_add(blocks, Ordering::Relaxed);
    }

    /// Counts `blocks` blocks that were written anew.
    pub fn repaired(&self, blocks: u64) {
        self.repaired.fetch_add(blocks, Ordering::Relaxed);
    }

    /// What went wrong since the pool was opened.
    pub fn errors(&self) -> ErrorCounts {
        let errors = |count: &Count| count.errors.load(Ordering::Relaxed);
        ErrorCounts {
            read: errors(&self.reads),
            write: errors(&self.writes) + errors(&self.flushes),
            checksum: self.wrong.load(Ordering::Relaxed),
            repaired: self.repaired.load(Ordering::Relaxed),
        }
    }

    /// What a member did, which is called `device` and is in `state`.
    pub fn of_member(&self, device: String, state: MemberState) -> MemberMetrics {
        let errors = self.errors();
        MemberMetrics {
            device,
            state,
            reads: self.reads.metrics(),
            writes: self.writes.metrics(),
            flushes: self.flushes.metrics(),
            wrong_blocks: errors.checksum,
            repaired_blocks: errors.repaired,
        }
    }
}

impl VdevMetrics {
    /// What `members` did together, as a vdev that is called `device`.
    pub(super) fn sum(
        id: VdevId,
        tier: u8,
        device: String,
        blocks: u64,
        members: Vec<MemberMetrics>,
    ) -> Self {
        let sum = |of: fn(&MemberMetrics) -> RequestMetrics| {
            members.iter().map(of).fold(RequestMetrics::default(), |sum, one| RequestMetrics {
                requests: sum.requests + one.requests,
                bytes: sum.bytes + one.bytes,
                errors: sum.errors + one.errors,
            })
        };
        let (reads, writes, flushes) =
            (sum(|member| member.reads), sum(|member| member.writes), sum(|member| member.flushes));
        Self { id, tier, device, blocks, reads, writes, flushes, members }
    }
}

/// What a member of a top-level vdev did since the pool was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberMetrics {
    /// Name of its device.
    pub device: String,
    /// Its state.
    pub state: MemberState,
    /// Reads.
    pub reads: RequestMetrics,
    /// Writes, superblocks and labels included.
    pub writes: RequestMetrics,
    /// Flushes that reached it.
    pub flushes: RequestMetrics,
    /// Blocks of 4 KiB that were not what was written there.
    pub wrong_blocks: u64,
    /// Blocks of 4 KiB that were written anew.
    pub repaired_blocks: u64,
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
    /// Flushes that reached a device.
    pub flushes: RequestMetrics,
    /// Each of its members; what is above is their sum.
    pub members: Vec<MemberMetrics>,
}
