//! Which states a crash may leave.

use super::model::{Operation, State};
use std::sync::Arc;

/// The state after an operation.
#[derive(Debug, Clone)]
pub struct Step {
    /// Number of the clock's last write or flush before the operation began.
    pub begun: u64,
    /// What the datasets hold.
    pub state: Arc<State>,
    /// Of the state.
    pub fingerprint: u64,
    /// The operation; none for the first state.
    pub operation: Option<Operation>,
}

/// The states that a workload went through, in order.
#[derive(Debug)]
pub struct Timeline {
    steps: Vec<Step>,
    /// From which number of the clock on which step is durable; both ascend.
    durable: Vec<(u64, usize)>,
}

impl Timeline {
    /// A timeline that starts with `state`, durable from the start.
    #[must_use]
    pub fn new(state: Arc<State>) -> Self {
        let step = Step { begun: 0, fingerprint: state.fingerprint(), state, operation: None };
        Self { steps: vec![step], durable: vec![(0, 0)] }
    }

    /// The steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The newest state.
    #[must_use]
    pub fn newest(&self) -> &Arc<State> {
        &self.steps[self.steps.len() - 1].state
    }

    /// Adds the state that an operation leads to which began after write or flush number `begun`.
    pub fn push(&mut self, begun: u64, operation: Operation, state: Arc<State>) {
        let fingerprint = state.fingerprint();
        self.steps.push(Step { begun, state, fingerprint, operation: Some(operation) });
    }

    /// The operation added last changed nothing.
    pub fn take_back(&mut self) {
        self.steps.pop();
    }

    /// The newest step is durable, as was acknowledged when the clock stood at `now`.
    pub fn acknowledge(&mut self, now: u64) {
        self.durable.push((now, self.steps.len() - 1));
    }

    /// What was acknowledged: from which number of the clock on which step is durable, in order.
    #[must_use]
    pub fn acknowledged(&self) -> &[(u64, usize)] {
        &self.durable
    }

    /// The first and the last step that a crash may leave when number `operation` was complete and the next one under
    /// way.
    #[must_use]
    pub fn legal(&self, operation: u64) -> std::ops::RangeInclusive<usize> {
        let acknowledged = self.durable.partition_point(|(clock, _)| *clock <= operation);
        let first = self.durable[..acknowledged].last().map_or(0, |(_, step)| *step);
        let begun = self.steps.partition_point(|step| step.begun <= operation);
        first..=begun.saturating_sub(1).max(first)
    }
}
