//! Threads that serve the members of a vdev beside the caller.
//!
//! A request to several members takes as long as the slowest of them, not as long as all of them one after the other. The
//! caller hands out all parts but one, does that one itself and waits, so that parts may borrow what it has. Threads are
//! started when they are first needed, and a part never waits for another one. Without threads parts are done in order by the
//! caller: the same program is then deterministic, as simulation needs it. So they are where the caller is a thread of a pool of
//! rayon, one of the program's: while it waits, that would take other work of the program, on top of whatever locks are held here.

use rayon_core::{ThreadPool, ThreadPoolBuilder, current_thread_index};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

/// Threads of one vdev.
#[derive(Debug, Default)]
pub(super) struct Workers {
    threads: usize,
    /// `None` inside when they could not be started.
    pool: OnceLock<Option<ThreadPool>>,
}

impl Workers {
    /// At most `threads` threads; 0: parts are done by the caller, in order.
    pub fn new(threads: usize) -> Self {
        Self { threads, pool: OnceLock::new() }
    }

    /// Whether parts are done at the same time.
    pub fn is_parallel(&self) -> bool {
        self.threads > 0
    }

    /// Does `work` on each of `parts`, on one of them in this thread; what it gave, in order. `None` where it panicked beside
    /// others.
    pub fn each<S: Send, T: Send>(&self, parts: Vec<S>, work: impl Fn(S) -> T + Sync) -> Vec<Option<T>> {
        let is_shared = parts.len() > 1 && self.is_parallel() && current_thread_index().is_none();
        let Some(pool) = is_shared.then(|| self.pool()).flatten() else {
            return parts.into_iter().map(|part| Some(work(part))).collect();
        };
        let guarded = |part| catch_unwind(AssertUnwindSafe(|| work(part))).ok();
        let mut given: Vec<Option<T>> = parts.iter().map(|_| None).collect();
        pool.in_place_scope(|scope| {
            let mut places = parts.into_iter().zip(&mut given);
            let own = places.next();
            for (part, place) in places {
                let guarded = &guarded;
                scope.spawn(move |_| *place = guarded(part));
            }
            if let Some((part, place)) = own {
                *place = guarded(part);
            }
        });
        given
    }

    fn pool(&self) -> Option<&ThreadPool> {
        let start = || {
            let builder = ThreadPoolBuilder::new().num_threads(self.threads);
            let pool = builder.thread_name(|index| format!("betree-member-{index}")).build();
            pool.inspect_err(|error| log::warn!("no threads for the members of a vdev: {error}")).ok()
        };
        self.pool.get_or_init(start).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Barrier, Mutex};
    use std::thread;

    #[test]
    fn parts_are_done_in_order_by_the_caller_or_all_at_once() {
        let caller = thread::current().id();
        for threads in [0, 1, 3] {
            let workers = Workers::new(threads);
            for count in [0, 1, 2, 5] {
                let given = workers.each(Vec::from_iter(0..count), |index| (index, thread::current().id()));
                let given: Vec<_> = given.into_iter().map(Option::unwrap).collect();
                assert!(given.iter().map(|(index, _)| *index).eq(0..count));
                let here = given.iter().filter(|(_, thread)| *thread == caller).count();
                assert_eq!(here, if threads == 0 { count } else { count.min(1) });
            }
        }
        // Each waits for all the others.
        let workers = Workers::new(3);
        for _ in 0..20 {
            let barrier = Barrier::new(4);
            let given = workers.each(vec![(); 4], |()| barrier.wait().is_leader());
            assert_eq!(given.into_iter().map(Option::unwrap).filter(|leads| *leads).count(), 1);
        }
    }

    #[test]
    fn a_part_that_panics_gives_nothing() {
        let workers = Workers::new(2);
        for wrong in 0..3 {
            let given = workers.each(vec![0, 1, 2], |index| {
                assert!(index != wrong, "as it should");
                index
            });
            assert!(given.iter().zip(0..3).all(|(given, index)| *given == (index != wrong).then_some(index)));
        }
        assert_eq!(workers.each(vec![7], |index| index), [Some(7)]);
    }

    /// A lock that a caller holds while its parts are done must not be asked for by other work on its stack.
    #[test]
    fn a_thread_of_a_pool_does_no_other_work_of_the_program_while_it_waits() {
        let (workers, lock) = (Workers::new(2), Mutex::new(()));
        let program = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        program.scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|_| {
                    let _held = lock.try_lock().unwrap();
                    let given = workers.each(vec![1, 2, 3], |part| part);
                    assert_eq!(given, [Some(1), Some(2), Some(3)]);
                });
            }
        });
    }
}
