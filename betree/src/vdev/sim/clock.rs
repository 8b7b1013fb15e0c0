//! The order of writes and flushes over all disks, and the moment at which the process dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// Numbers the writes and flushes of all disks that were made with it, from 1 on; clones share it.
///
/// Reads are not numbered: a crash before a read leaves what a crash after it leaves.
#[derive(Debug, Clone)]
pub struct SimClock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    seed: AtomicU64,
    operations: AtomicU64,
    stop_after: AtomicU64,
    dead: AtomicBool,
}

/// What becomes of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tick {
    /// It takes place, with this number.
    Runs(u64),
    /// The process dies while it is under way.
    Dies(u64),
    /// The process was dead before.
    Dead,
}

impl SimClock {
    /// A clock at 0 that does not stop. `seed` determines what the disks made with it choose themselves.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            seed: AtomicU64::new(seed),
            operations: AtomicU64::new(0),
            stop_after: AtomicU64::new(u64::MAX),
            dead: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Number of the last write or flush that took place.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.inner.operations.load(SeqCst).min(self.inner.stop_after.load(SeqCst))
    }

    /// Lets the process die after operation number `operation`: the next write or flush fails, though a write may have
    /// landed in part, and from then on everything fails, reads as well.
    pub fn set_stop_after(&self, operation: u64) {
        self.inner.stop_after.store(operation, SeqCst);
    }

    /// Lets the process die now, with no operation under way.
    pub fn crash(&self) {
        self.inner.dead.store(true, SeqCst);
    }

    /// Whether the process is dead.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.inner.dead.load(SeqCst)
    }

    /// Numbers a write or flush.
    pub(super) fn tick(&self) -> Tick {
        if self.is_crashed() {
            return Tick::Dead;
        }
        let number = self.inner.operations.fetch_add(1, SeqCst) + 1;
        if number <= self.inner.stop_after.load(SeqCst) {
            Tick::Runs(number)
        } else if self.inner.dead.swap(true, SeqCst) {
            Tick::Dead
        } else {
            Tick::Dies(number)
        }
    }

    /// A seed of its own for the next disk.
    pub(super) fn next_seed(&self) -> u64 {
        self.inner.seed.fetch_add(0x5851_F42D_4C95_7F2D, SeqCst)
    }
}
