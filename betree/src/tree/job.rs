//! Work that waits for a background worker: a queue, not a walk over the trees.

use crate::base::ids::DatasetId;
use crate::base::sync::{Condvar, Mutex};
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

/// A piece of work on one tree, most urgent first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Job {
    /// Write the oldest frozen memtable into the slots of the root.
    FlushTable,
    /// Split a node with too many slots.
    SplitNode {
        /// Level of the node.
        level: u8,
        /// Its lower bound.
        low: Vec<u8>,
    },
    /// Move the runs of a slot into the slots of its child.
    FlushSlot {
        /// Level of the node that the slot belongs to.
        level: u8,
        /// The slot's lower bound.
        low: Vec<u8>,
    },
    /// Merge the deltas of a leaf into a new base.
    MergeLeaf {
        /// The leaf's lower bound.
        low: Vec<u8>,
    },
    /// Merge the runs of a buffer into one.
    MergeBuffer {
        /// Level of the node that the slot belongs to.
        level: u8,
        /// The slot's lower bound.
        low: Vec<u8>,
    },
    /// Join a small slot with a neighbour.
    JoinSlots {
        /// Level of the node that the slot belongs to.
        level: u8,
        /// The slot's lower bound.
        low: Vec<u8>,
    },
    /// Free what was dropped whole.
    ResolveDrops,
    /// Look for work that an earlier process left undone.
    Survey,
}

#[derive(Debug, Default)]
struct State {
    /// Ordered by urgency, then by the order of arrival.
    waiting: BTreeSet<(u8, u64, DatasetId, Job)>,
    known: HashSet<(DatasetId, Job)>,
    arrivals: u64,
    /// Jobs that were taken and are not finished.
    taken: usize,
    /// Who holds the workers back.
    holders: usize,
    closed: bool,
}

/// A job in somebody's hands, until this is dropped: also by an error or a panic, or who waits for the job would wait for
/// ever.
#[derive(Debug)]
#[must_use]
pub struct Taken<'a> {
    queue: &'a JobQueue,
    /// The tree to work on.
    pub tree: DatasetId,
    /// The work.
    pub job: Job,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.queue.state.lock().taken -= 1;
        self.queue.changed.notify_all();
    }
}

/// Keeps workers from taking jobs; see [`JobQueue::hold`].
#[derive(Debug)]
#[must_use]
pub struct Held<'a> {
    queue: &'a JobQueue,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.queue.state.lock().holders -= 1;
        self.queue.changed.notify_all();
    }
}

/// The queue of jobs of all trees.
#[derive(Debug, Default)]
pub struct JobQueue {
    state: Mutex<State>,
    changed: Condvar,
}

fn urgency(job: &Job) -> u8 {
    match job {
        Job::FlushTable => 0,
        Job::SplitNode { .. } => 1,
        Job::FlushSlot { .. } => 2,
        Job::MergeLeaf { .. } => 3,
        Job::MergeBuffer { .. } => 4,
        Job::JoinSlots { .. } => 5,
        Job::ResolveDrops => 6,
        Job::Survey => 7,
    }
}

impl JobQueue {
    /// Adds `job` unless it waits already.
    pub fn push(&self, tree: DatasetId, job: Job) {
        let mut state = self.state.lock();
        if state.closed || !state.known.insert((tree, job.clone())) {
            return;
        }
        state.arrivals += 1;
        let arrival = state.arrivals;
        state.waiting.insert((urgency(&job), arrival, tree, job));
        drop(state);
        self.changed.notify_one();
    }

    /// Takes the most urgent job, if any, also while the workers are held back.
    pub fn try_pop(&self) -> Option<Taken<'_>> {
        self.take(&mut self.state.lock())
    }

    fn take(&self, state: &mut State) -> Option<Taken<'_>> {
        let (_, _, tree, job) = state.waiting.pop_first()?;
        let entry = (tree, job);
        state.known.remove(&entry);
        state.taken += 1;
        let (tree, job) = entry;
        Some(Taken { queue: self, tree, job })
    }

    /// For a worker: takes the most urgent job, waiting up to `patience` for one. `None` after that, and once the queue
    /// is closed.
    pub fn pop(&self, patience: Duration) -> Option<Taken<'_>> {
        let mut state = self.state.lock();
        if (state.waiting.is_empty() || state.holders > 0) && !state.closed {
            self.changed.wait_for(&mut state, patience);
        }
        if state.closed || state.holders > 0 { None } else { self.take(&mut state) }
    }

    /// Holds the workers back until the guard is dropped, once they are through with what they have in hand.
    pub fn hold(&self) -> Held<'_> {
        let mut state = self.state.lock();
        state.holders += 1;
        while state.taken > 0 {
            self.changed.wait(&mut state);
        }
        Held { queue: self }
    }

    /// Whether nothing waits and nothing is being done.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.waiting.is_empty() && state.taken == 0
    }

    /// Number of waiting jobs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Wakes every waiting worker for good and drops what waits.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting.clear();
        state.known.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// Whether the queue was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(taken: &Taken<'_>) -> (DatasetId, Job) {
        (taken.tree, taken.job.clone())
    }

    /// Who holds the workers back waits for jobs that are in hand.
    #[test]
    fn a_job_that_panics_is_in_nobodys_hands() {
        let queue = JobQueue::default();
        queue.push(DatasetId(1), Job::FlushTable);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let taken = queue.try_pop();
            panic!("{taken:?}");
        }));
        assert!(panicked.is_err() && queue.is_idle());
        drop(queue.hold());
    }

    #[test]
    fn urgent_jobs_come_first_and_once() {
        let queue = JobQueue::default();
        let leaf = |low: u8| Job::MergeLeaf { low: vec![low] };
        queue.push(DatasetId(1), leaf(9));
        queue.push(DatasetId(1), leaf(2));
        queue.push(DatasetId(1), leaf(9));
        queue.push(DatasetId(2), Job::FlushTable);
        let order: Vec<_> = std::iter::from_fn(|| queue.try_pop()).collect();
        assert_eq!(
            order.iter().map(entry).collect::<Vec<_>>(),
            [(DatasetId(2), Job::FlushTable), (DatasetId(1), leaf(9)), (DatasetId(1), leaf(2))]
        );
        assert!(!queue.is_idle());
        drop(order);
        assert!(queue.is_idle());
        queue.push(DatasetId(1), leaf(9));
        assert_eq!(queue.len(), 1);
        let held = queue.hold();
        assert!(queue.pop(Duration::ZERO).is_none());
        assert_eq!(queue.try_pop().as_ref().map(entry), Some((DatasetId(1), leaf(9))));
        queue.push(DatasetId(1), leaf(9));
        drop(held);
        assert_eq!(queue.pop(Duration::from_secs(60)).as_ref().map(entry), Some((DatasetId(1), leaf(9))));
        queue.close();
        queue.push(DatasetId(1), leaf(9));
        assert!(queue.pop(Duration::from_secs(60)).is_none());
    }
}
