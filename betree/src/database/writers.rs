//! Who is writing extents that nothing names yet: to wait until all that began before an instant are done.

use crate::base::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::base::sync::{Mutex, thread};
use std::time::Duration;

/// Counts writers in two turns: those that began before the last one, and those since (as a grace period of read-copy-update,
/// P. McKenney).
#[derive(Debug, Default)]
pub(super) struct Writers {
    turn: AtomicUsize,
    counts: [AtomicU64; 2],
    /// One waits at a time.
    waiting: Mutex<()>,
}

/// A writer, until it is dropped.
#[must_use]
pub(super) struct Writer<'a> {
    count: &'a AtomicU64,
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Writers {
    /// Somebody begins to write.
    pub fn enter(&self) -> Writer<'_> {
        loop {
            let turn = self.turn.load(Ordering::SeqCst);
            let writer = Writer { count: &self.counts[turn % 2] };
            writer.count.fetch_add(1, Ordering::SeqCst);
            // Who waits may have taken the turn, and seen nobody.
            if self.turn.load(Ordering::SeqCst) == turn {
                return writer;
            }
        }
    }

    /// Waits until everybody is done who has begun.
    pub fn wait(&self) {
        let _one = self.waiting.lock();
        let turn = self.turn.fetch_add(1, Ordering::SeqCst);
        while self.counts[turn % 2].load(Ordering::SeqCst) > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn only_those_who_began_before_are_waited_for() {
        let writers = Writers::default();
        writers.wait();
        let (early, waited) = (writers.enter(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                writers.wait();
                waited.store(true, Ordering::SeqCst);
            });
            while writers.turn.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            let late = writers.enter();
            assert!(!waited.load(Ordering::SeqCst));
            drop(early);
            while !waited.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            drop(late);
        });
        assert!(writers.counts.iter().all(|count| count.load(Ordering::SeqCst) == 0));
    }
}
