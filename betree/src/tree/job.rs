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

    /// Takes the most urgent job, if any, also while the workers are held back. [`JobQueue::finish`] ends it.
    pub fn try_pop(&self) -> Option<(DatasetId, Job)> {
        Self::take(&mut self.state.lock())
    }

    fn take(state: &mut State) -> Option<(DatasetId, Job)> {
        let (_, _, tree, job) = state.waiting.pop_first()?;
        let entry = (tree, job);
        state.known.remove(&entry);
        state.taken += 1;
        Some(entry)
    }

    /// For a worker: takes the most urgent job, waiting up to `patience` for one. `None` after that, and once the queue
    /// is closed. [`JobQueue::finish`] ends it.
    pub fn pop(&self, patience: Duration) -> Option<(DatasetId, Job)> {
        let mut state = self.state.lock();
        if (state.waiting.is_empty() || state.holders > 0) && !state.closed {
            self.changed.wait_for(&mut state, patience);
        }
        if state.closed || state.holders > 0 { None } else { Self::take(&mut state) }
    }

    /// A job that was taken is done, or given up.
    pub fn finish(&self) {
        self.state.lock().taken -= 1;
        self.changed.notify_all();
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
            order,
            [(DatasetId(2), Job::FlushTable), (DatasetId(1), leaf(9)), (DatasetId(1), leaf(2))]
        );
        assert!(!queue.is_idle());
        order.iter().for_each(|_| queue.finish());
        assert!(queue.is_idle());
        queue.push(DatasetId(1), leaf(9));
        assert_eq!(queue.len(), 1);
        let held = queue.hold();
        assert_eq!(queue.pop(Duration::ZERO), None);
        assert_eq!(queue.try_pop(), Some((DatasetId(1), leaf(9))));
        queue.push(DatasetId(1), leaf(9));
        queue.finish();
        drop(held);
        assert_eq!(queue.pop(Duration::from_secs(60)), Some((DatasetId(1), leaf(9))));
        queue.close();
        queue.push(DatasetId(1), leaf(9));
        assert_eq!(queue.pop(Duration::from_secs(60)), None);
    }
}
