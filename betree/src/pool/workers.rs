//! Threads that serve the members of a vdev beside the caller.
//!
//! A request to several members takes as long as the slowest of them, not as long as all of them one after the other. The
//! caller hands out all parts but one, does that one itself and waits. Threads are started when they are first needed, and
//! a part never waits for another one. Without threads parts are done in order by the caller: the same program is then
//! deterministic, as simulation needs it.

use crate::base::sync::thread::{Builder, JoinHandle};
use crate::base::sync::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Part of a request.
pub(super) type Part<T> = Box<dyn FnOnce() -> T + Send>;

type Job = Box<dyn FnOnce() + Send>;

/// Threads of one vdev; dropping it joins them.
#[derive(Default)]
pub(super) struct Workers {
    threads_max: usize,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A job was queued, or there will be none any more.
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Threads that wait for work.
    idle: usize,
    threads: Vec<JoinHandle<()>>,
    closing: bool,
}

/// What parts gave, and how many are not done.
struct Results<T> {
    state: Mutex<(Vec<Option<T>>, usize)>,
    done: Condvar,
}

impl Workers {
    /// At most `threads_max` threads; 0: parts are done by the caller, in order.
    pub fn new(threads_max: usize) -> Self {
        Self { threads_max, shared: Arc::default() }
    }

    /// Whether parts are done at the same time.
    pub fn is_parallel(&self) -> bool {
        self.threads_max > 0
    }

    /// Does `parts` and, in this thread, `own`; what they gave, in order. `None` where a part panicked.
    pub fn run<T: Send + 'static>(
        &self,
        parts: Vec<Part<T>>,
        own: impl FnOnce() -> T,
    ) -> (Vec<Option<T>>, T) {
        if !self.is_parallel() || parts.is_empty() {
            let given = parts.into_iter().map(|part| Some(part())).collect();
            return (given, own());
        }
        let count = parts.len();
        let results = Arc::new(Results {
            state: Mutex::new(((0..count).map(|_| None).collect(), count)),
            done: Condvar::new(),
        });
        for (index, part) in parts.into_iter().enumerate() {
            let results = Arc::clone(&results);
            self.submit(Box::new(move || {
                let given = catch_unwind(AssertUnwindSafe(part)).ok();
                let mut state = results.state.lock();
                state.0[index] = given;
                state.1 -= 1;
                if state.1 == 0 {
                    results.done.notify_all();
                }
            }));
        }
        let own = own();
        let mut state = results.state.lock();
        while state.1 > 0 {
            results.done.wait(&mut state);
        }
        (std::mem::take(&mut state.0), own)
    }

    fn submit(&self, job: Job) {
        let mut state = self.shared.state.lock();
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() || state.threads.len() >= self.threads_max {
            drop(state);
            self.shared.work.notify_one();
            return;
        }
        let shared = Arc::clone(&self.shared);
        match Builder::new().name("betree-member".to_owned()).spawn(move || shared.serve()) {
            Ok(thread) => state.threads.push(thread),
            Err(error) if state.threads.is_empty() => {
                log::warn!("no thread for the members of a vdev: {error}");
                let jobs = std::mem::take(&mut state.jobs);
                drop(state);
                jobs.into_iter().for_each(|job| job());
            }
            // Those that there are get to it.
            Err(_) => {
                self.shared.work.notify_one();
            }
        }
    }
}

impl Shared {
    fn serve(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.state.lock();
            } else if state.closing {
                return;
            } else {
                state.idle += 1;
                self.work.wait(&mut state);
                state.idle -= 1;
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let threads = {
            let mut state = self.shared.state.lock();
            state.closing = true;
            std::mem::take(&mut state.threads)
        };
        self.shared.work.notify_all();
        for thread in threads {
            // A job that panics does not end its thread.
            let _ended = thread.join();
        }
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("threads_max", &self.threads_max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn parts_are_done_in_order_by_the_caller_or_all_at_once() {
        let caller = std::thread::current().id();
        let parts = |count: usize| -> Vec<Part<(usize, std::thread::ThreadId)>> {
            (0..count)
                .map(|index| Box::new(move || (index, std::thread::current().id())) as Part<_>)
                .collect()
        };
        for threads in [0, 1, 3] {
            let workers = Workers::new(threads);
            for count in [0, 1, 5] {
                let (given, own) = workers.run(parts(count), || (count, caller));
                let given: Vec<_> = given.into_iter().map(Option::unwrap).collect();
                assert_eq!(
                    given.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
                    Vec::from_iter(0..count)
                );
                assert!(given.iter().all(|(_, thread)| (*thread == caller) == (threads == 0)));
                assert_eq!(own.0, count);
            }
        }
        // Each waits for all the others.
        let workers = Workers::new(3);
        for _ in 0..20 {
            let barrier = Arc::new(Barrier::new(4));
            let part = |_| {
                let barrier = Arc::clone(&barrier);
                Box::new(move || barrier.wait().is_leader()) as Part<bool>
            };
            let (given, own) = workers.run((0..3).map(part).collect(), || barrier.wait().is_leader());
            let leaders = given.into_iter().map(Option::unwrap).chain([own]).filter(|leads| *leads);
            assert_eq!(leaders.count(), 1);
        }
    }

    #[test]
    fn a_part_that_panics_gives_nothing() {
        let workers = Workers::new(2);
        let parts: Vec<Part<u8>> = vec![Box::new(|| panic!("as it should")), Box::new(|| 7)];
        assert_eq!(workers.run(parts, || 8), (vec![None, Some(7)], 8));
        assert_eq!(workers.run(vec![Box::new(|| 1_u8) as Part<u8>], || 2), (vec![Some(1)], 2));
    }
}
