//! Background I/O: a queue of jobs on a few threads.
//!
//! ```text
//!   WriteBatch ── JobGroup ──┐ submit: waits while too many bytes are queued
//!                            ├──────▶ IoQueue ──▶ threads, started when first needed
//!   reads ahead ─ PendingJob ┘ finish, wait: the first error, the result
//! ```
//!
//! A job holds its memory until it is done, so the bytes of queued and running jobs together are bounded. Jobs begin in
//! the order of their submission and end in any order. A job must neither submit to its own queue nor wait for another
//! job of it: with every thread doing that, none would be left to go on.
//!
//! With no threads, jobs run inside of `submit`: the same program is then deterministic, as simulation needs it.

use super::DmuError;
use crate::base::sync::thread::{self, JoinHandle};
use crate::base::sync::{Condvar, Mutex, MutexGuard};
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Bytes of queued and running jobs beyond which submitting waits: enough for every thread to have a large write under
/// way and the next one at hand.
const QUEUED_BYTES_MAX: usize = 8 << 20;

/// Jobs that run on threads of their own. All methods take `&self` and may be called from any thread.
///
/// Dropping it runs what is queued, and joins the threads.
pub struct IoQueue {
    threads: usize,
    bytes_max: usize,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A job was queued, or the queue is closing.
    work: Condvar,
    /// Bytes were given back, or a submitter has got its turn.
    room: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Of queued and running jobs.
    bytes: usize,
    /// Submitters get room in the order in which they came, or small jobs could keep a large one out for ever.
    next_turn: u64,
    turn: u64,
    /// Threads that wait for work.
    idle: usize,
    workers: Vec<JoinHandle<()>>,
    closing: bool,
}

struct Job {
    run: Box<dyn FnOnce() + Send>,
    bytes: usize,
}

impl IoQueue {
    /// A queue for `threads` threads and at most 8 MiB of jobs; with 0 threads jobs run in the caller's.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self::with_bound(threads, QUEUED_BYTES_MAX)
    }

    /// A queue for at most `bytes_max` bytes of jobs; a larger job is admitted alone.
    #[must_use]
    pub fn with_bound(threads: usize, bytes_max: usize) -> Self {
        Self { threads, bytes_max, shared: Arc::default() }
    }

    /// Queues `job`, which holds `bytes` bytes of memory; waits while that exceeds the bound.
    ///
    /// A panic of the job is logged and goes no further; [`JobGroup`] and [`PendingJob`] make an error of it.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static, bytes: usize) {
        if self.threads == 0 {
            run(job);
            return;
        }
        let mut state = self.shared.state.lock();
        self.admit(&mut state, bytes);
        if state.idle <= state.jobs.len() && state.workers.len() < self.threads {
            match self.start_worker() {
                Ok(worker) => state.workers.push(worker),
                Err(error) => {
                    log::warn!("a thread for background I/O could not be started: {error}");
                    if state.workers.is_empty() {
                        MutexGuard::unlocked(&mut state, || run(job));
                        self.shared.give_back(&mut state, bytes);
                        return;
                    }
                }
            }
        }
        state.jobs.push_back(Job { run: Box::new(job), bytes });
        self.shared.work.notify_one();
    }

    /// Waits for its turn and for room, and takes `bytes`.
    fn admit(&self, state: &mut MutexGuard<'_, State>, bytes: usize) {
        let turn = state.next_turn;
        state.next_turn += 1;
        let full = |state: &State| state.bytes > 0 && state.bytes.saturating_add(bytes) > self.bytes_max;
        while state.turn != turn || full(state) {
            self.shared.room.wait(state);
        }
        state.turn += 1;
        state.bytes += bytes;
        if state.turn != state.next_turn {
            self.shared.room.notify_all();
        }
    }

    fn start_worker(&self) -> std::io::Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        thread::Builder::new().name(String::from("betree-io")).spawn(move || shared.work())
    }
}

impl Drop for IoQueue {
    fn drop(&mut self) {
        let workers = {
            let mut state = self.shared.state.lock();
            state.closing = true;
            std::mem::take(&mut state.workers)
        };
        self.shared.work.notify_all();
        for worker in workers {
            // The last owner of the queue may be a job of it; its thread ends by itself.
            if worker.thread().id() != thread::current().id() && worker.join().is_err() {
                log::error!("a thread for background I/O panicked");
            }
        }
    }
}

impl std::fmt::Debug for IoQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IoQueue")
            .field("threads", &self.threads)
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// What a thread does until the queue closes.
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            match state.jobs.pop_front() {
                Some(job) => {
                    MutexGuard::unlocked(&mut state, || run(job.run));
                    self.give_back(&mut state, job.bytes);
                }
                None if state.closing => return,
                None => {
                    state.idle += 1;
                    self.work.wait(&mut state);
                    state.idle -= 1;
                }
            }
        }
    }

    fn give_back(&self, state: &mut State, bytes: usize) {
        state.bytes -= bytes;
        if state.turn != state.next_turn {
            self.room.notify_all();
        }
    }
}

/// Runs a job, and keeps its panic from its thread.
fn run(job: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(job)) {
        log::error!("a background I/O job panicked: {}", message_of(&*payload));
    }
}

/// Runs a job with a result; a panic is one, too. What the job owned is gone when this returns.
pub(super) fn outcome<T>(job: impl FnOnce() -> Result<T, DmuError>) -> Result<T, DmuError> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|payload| {
        let message = message_of(&*payload).to_owned();
        log::error!("a background I/O job panicked: {message}");
        Err(DmuError::Panicked { message })
    })
}

fn message_of(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no message",
    }
}

/// Jobs with one result. After the first error the group runs no more of them.
///
/// Dropping it waits for its jobs, too: what they write to may be given to someone else afterwards.
#[derive(Debug, Default)]
pub struct JobGroup {
    shared: Arc<GroupShared>,
}

#[derive(Debug, Default)]
struct GroupShared {
    state: Mutex<GroupState>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct GroupState {
    outstanding: usize,
    first_error: Option<DmuError>,
}

impl JobGroup {
    /// A group without jobs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues `job`, which holds `bytes` bytes of memory; waits while the queue is full. After an error of the group the
    /// job is dropped instead.
    pub fn submit(
        &self,
        queue: &IoQueue,
        bytes: usize,
        job: impl FnOnce() -> Result<(), DmuError> + Send + 'static,
    ) {
        {
            let mut state = self.shared.state.lock();
            if state.first_error.is_some() {
                return;
            }
            state.outstanding += 1;
        }
        let shared = Arc::clone(&self.shared);
        queue.submit(
            move || {
                let failed = shared.state.lock().first_error.is_some();
                let result = outcome(move || if failed { Ok(()) } else { job() });
                let mut state = shared.state.lock();
                state.outstanding -= 1;
                if let Err(error) = result {
                    state.first_error.get_or_insert(error);
                }
                if state.outstanding == 0 {
                    shared.done.notify_all();
                }
            },
            bytes,
        );
    }

    /// Whether a job has failed, so that the group will.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.shared.state.lock().first_error.is_some()
    }

    /// Waits for all jobs of the group.
    ///
    /// # Errors
    /// The first error among them in time; [`DmuError::Panicked`] for a job that panicked.
    pub fn finish(self) -> Result<(), DmuError> {
        match self.wait().first_error.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn wait(&self) -> MutexGuard<'_, GroupState> {
        let mut state = self.shared.state.lock();
        while state.outstanding > 0 {
            self.shared.done.wait(&mut state);
        }
        state
    }
}

impl Drop for JobGroup {
    fn drop(&mut self) {
        drop(self.wait());
    }
}

/// A job whose result is waited for. Dropping it leaves the job to end on its own.
pub struct PendingJob<T> {
    shared: Arc<PendingShared<T>>,
}

struct PendingShared<T> {
    result: Mutex<Option<Result<T, DmuError>>>,
    done: Condvar,
}

impl<T: Send + 'static> PendingJob<T> {
    /// Queues `job`, whose result takes `bytes` bytes of memory; waits while the queue is full.
    pub fn start(
        queue: &IoQueue,
        bytes: usize,
        job: impl FnOnce() -> Result<T, DmuError> + Send + 'static,
    ) -> Self {
        let pending = Self::with_result(None);
        let shared = Arc::clone(&pending.shared);
        queue.submit(
            move || {
                let result = outcome(job);
                *shared.result.lock() = Some(result);
                shared.done.notify_all();
            },
            bytes,
        );
        pending
    }

    /// A job that needs no running: its result is known.
    #[must_use]
    pub fn ready(result: Result<T, DmuError>) -> Self {
        Self::with_result(Some(result))
    }

    fn with_result(result: Option<Result<T, DmuError>>) -> Self {
        Self { shared: Arc::new(PendingShared { result: Mutex::new(result), done: Condvar::new() }) }
    }

    /// Whether the result is there.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.shared.result.lock().is_some()
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// That of the job; [`DmuError::Panicked`] when it panicked.
    pub fn wait(self) -> Result<T, DmuError> {
        let mut result = self.shared.result.lock();
        loop {
            match result.take() {
                Some(result) => return result,
                None => self.shared.done.wait(&mut result),
            }
        }
    }
}

impl<T> std::fmt::Debug for PendingJob<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingJob").field("done", &self.shared.result.lock().is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc;

    fn failure(block: u64) -> DmuError {
        DmuError::Corrupt { what: "test", device: String::from("none"), block, reason: String::new() }
    }

    fn started(queue: &IoQueue) -> usize {
        queue.shared.state.lock().workers.len()
    }

    #[test]
    fn every_job_runs_and_results_come_back() {
        for threads in [0, 1, 3] {
            let queue = IoQueue::new(threads);
            let (group, ran) = (JobGroup::new(), Arc::new(AtomicUsize::new(0)));
            let reads: Vec<PendingJob<usize>> =
                (0..100).map(|i| PendingJob::start(&queue, 4096, move || Ok(i * i))).collect();
            for _ in 0..1000 {
                let ran = Arc::clone(&ran);
                group.submit(&queue, 1 << 20, move || {
                    ran.fetch_add(1, SeqCst);
                    Ok(())
                });
            }
            assert!(group.finish().is_ok());
            assert_eq!((ran.load(SeqCst), Arc::strong_count(&ran)), (1000, 1), "nothing is held on to");
            for (i, read) in reads.into_iter().enumerate() {
                assert_eq!(read.wait().unwrap(), i * i);
            }
            assert_eq!(PendingJob::ready(Ok(7)).wait().unwrap(), 7);
            assert!(started(&queue) <= threads);
        }
    }

    #[test]
    fn threads_start_when_they_are_needed() {
        let queue = IoQueue::new(2);
        assert_eq!(started(&queue), 0);
        let (go, gate) = mpsc::channel::<()>();
        let first = PendingJob::start(&queue, 1, move || gate.recv().map_err(|_| failure(0)));
        assert_eq!(started(&queue), 1);
        let second = PendingJob::start(&queue, 1, || Ok(()));
        assert_eq!(started(&queue), 2, "the first one is busy");
        second.wait().unwrap();
        go.send(()).unwrap();
        first.wait().unwrap();
        PendingJob::start(&queue, 1, || Ok(())).wait().unwrap();
        assert_eq!(started(&queue), 2);
    }

    #[test]
    fn without_threads_jobs_run_at_once_and_in_order() {
        let queue = IoQueue::new(0);
        let (group, order) = (JobGroup::new(), Arc::new(Mutex::new(Vec::new())));
        for i in 0..10 {
            let seen = Arc::clone(&order);
            group.submit(&queue, usize::MAX, move || {
                seen.lock().push(i);
                if i == 5 { Err(failure(i)) } else { Ok(()) }
            });
            assert_eq!(order.lock().last(), Some(&i.min(5)), "none after the failure");
        }
        assert!(group.has_failed());
        assert!(matches!(group.finish(), Err(DmuError::Corrupt { block: 5, .. })));
        assert_eq!(started(&queue), 0);
    }

    #[test]
    fn the_first_error_is_kept_and_others_still_end() {
        let queue = IoQueue::new(2);
        let (group, other) = (JobGroup::new(), JobGroup::new());
        let (go, gate) = mpsc::channel::<()>();
        // The slow job fails after the fast one.
        group.submit(&queue, 1, move || {
            gate.recv().ok();
            Err(failure(1))
        });
        group.submit(&queue, 1, move || Err(failure(2)));
        other.submit(&queue, 1, || Ok(()));
        assert!(other.finish().is_ok());
        assert!(group.has_failed());
        go.send(()).unwrap();
        assert!(matches!(group.finish(), Err(DmuError::Corrupt { block: 2, .. })));
    }

    #[test]
    fn a_panic_is_an_error_and_the_thread_lives() {
        for threads in [0, 1] {
            let queue = IoQueue::new(threads);
            let group = JobGroup::new();
            group.submit(&queue, 1, || panic!("planted {}", 1));
            let read = PendingJob::<u8>::start(&queue, 1, || panic!("planted 2"));
            queue.submit(|| panic!("planted 3"), 1);
            let message = |error: DmuError| match error {
                DmuError::Panicked { message } => message,
                error => panic!("{error}"),
            };
            assert_eq!(message(group.finish().unwrap_err()), "planted 1");
            assert_eq!(message(read.wait().unwrap_err()), "planted 2");
            assert_eq!(PendingJob::start(&queue, 1, || Ok(3)).wait().unwrap(), 3);
        }
    }

    #[test]
    fn submitting_waits_for_room() {
        const BOUND: usize = 8;
        let queue = IoQueue::with_bound(2, BOUND);
        let submitted = AtomicUsize::new(0);
        let finished = Arc::new(AtomicUsize::new(0));
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        std::thread::scope(|scope| {
            let submitters: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..100 {
                            let (gate, finished) = (Arc::clone(&gate), Arc::clone(&finished));
                            let job = move || {
                                gate.lock().recv().ok();
                                finished.fetch_add(1, SeqCst);
                            };
                            queue.submit(job, 1);
                            submitted.fetch_add(1, SeqCst);
                        }
                    })
                })
                .collect();
            for released in 0..400 {
                // Whatever the threads have done so far, at most this many can have got in.
                assert!(submitted.load(SeqCst) <= released + BOUND);
                go.send(()).unwrap();
            }
            submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
        });
        drop(queue);
        assert_eq!(finished.load(SeqCst), 400);
    }

    #[test]
    fn a_job_beyond_the_bound_is_admitted_alone() {
        let queue = IoQueue::with_bound(2, 10);
        let group = JobGroup::new();
        for _ in 0..20 {
            group.submit(&queue, 3, || Ok(()));
            group.submit(&queue, usize::MAX, || Ok(()));
        }
        group.finish().unwrap();
    }

    #[test]
    fn dropping_runs_what_is_queued() {
        let ran = Arc::new(AtomicUsize::new(0));
        let queue = IoQueue::new(1);
        for _ in 0..100 {
            let ran = Arc::clone(&ran);
            queue.submit(
                move || {
                    ran.fetch_add(1, SeqCst);
                },
                1,
            );
        }
        drop(queue);
        assert_eq!(ran.load(SeqCst), 100);
    }

    #[test]
    fn dropping_a_group_waits_for_its_jobs() {
        let queue = IoQueue::new(1);
        let ran = Arc::new(AtomicUsize::new(0));
        for round in 1..=100 {
            let group = JobGroup::new();
            for _ in 0..2 {
                let ran = Arc::clone(&ran);
                group.submit(&queue, 1, move || {
                    ran.fetch_add(1, SeqCst);
                    Ok(())
                });
            }
            drop(group);
            assert_eq!(ran.load(SeqCst), 2 * round);
        }
    }

    #[test]
    fn a_job_may_be_the_last_owner_of_the_queue() {
        let queue = Arc::new(IoQueue::new(2));
        let (go, gate) = mpsc::channel::<()>();
        let (done, ended) = mpsc::channel();
        let mine = Arc::clone(&queue);
        queue.submit(
            move || {
                gate.recv().ok();
                drop(mine);
                done.send(()).unwrap();
            },
            1,
        );
        drop(queue);
        go.send(()).unwrap();
        ended.recv().unwrap();
    }
}
