//! A short workload, recorded so that it can be run again and again with other faults.

use super::layout::Layout;
use super::machine::Machine;
use super::model::{Change, Operation, State, Value};
use super::workload::Workload;
use super::{Failure, number_from_environment};
use betree::vdev::SimRng;

/// The operations of a workload, with what their database is configured by.
#[derive(Debug)]
pub struct Recipe {
    /// Devices.
    pub layout: Layout,
    /// Seed of everything.
    pub seed: u64,
    /// Seed of the configuration.
    pub shape: u64,
    /// In order.
    pub operations: Vec<Operation>,
    /// Writes and flushes of a run without faults.
    pub requests: u64,
}

impl Recipe {
    /// `count` workloads on all layouts in turn, or as many as `BETREE_FAULT_WORKLOADS` says, from `BETREE_SEED` or 1 on.
    ///
    /// # Errors
    /// One of them does not run without faults.
    pub fn several(count: u64) -> Result<Vec<Self>, Failure> {
        let first = number_from_environment("BETREE_SEED").unwrap_or(1);
        let count = number_from_environment("BETREE_FAULT_WORKLOADS").unwrap_or(count);
        println!("{count} workloads from BETREE_SEED={first}");
        let seeds = first..first.saturating_add(count);
        seeds.map(|seed| Self::record(Layout::ALL[(seed % 4) as usize], seed)).collect()
    }

    /// The workload of `seed`: 10 to 25 operations, among them a checkpoint, a large value, a reopening, and a few that
    /// fill memtables. Found out by running it once without faults.
    ///
    /// # Errors
    /// It does not run.
    pub fn record(layout: Layout, seed: u64) -> Result<Self, Failure> {
        let mut rng = SimRng::new(seed);
        let shape = rng.next_u64();
        let mut workload = Workload::new(layout, rng.next_u64());
        let count = 10 + rng.index(14);
        let mut recipe = Self::run(layout, seed, shape, count, |number, state| {
            if number == 0 {
                workload.next(state)
            } else if number == count / 4 {
                Operation::Checkpoint
            } else if number == count / 2 || number == count / 3 {
                put(layout, state, &mut rng, 20 << 10)
            } else if number == count / 2 + 1 {
                Operation::Sync
            } else if number == count * 5 / 8 {
                Operation::Reopen
            } else if number == count * 3 / 4 {
                Operation::Settle
            } else if number % 3 == 0 {
                put(layout, state, &mut rng, 7 << 10)
            } else {
                workload.next(state)
            }
        })?;
        if !seed.is_multiple_of(3) {
            recipe.operations.push(Operation::Sync);
        }
        Ok(recipe)
    }

    /// The workload of `seed`: 10 to 60 operations, none of them chosen; every fourth one receives snapshots, too.
    ///
    /// # Errors
    /// It does not run without faults.
    pub fn random(layout: Layout, seed: u64) -> Result<Self, Failure> {
        let mut rng = SimRng::new(seed);
        let shape = rng.next_u64();
        let mut workload = Workload::new(layout, rng.next_u64());
        if seed % 4 == 3 {
            workload = workload.receiving();
        }
        Self::run(layout, seed, shape, 10 + rng.index(51), |_, state| workload.next(state))
    }

    /// Runs `count` operations that `next` chooses by number and state.
    fn run(
        layout: Layout,
        seed: u64,
        shape: u64,
        count: usize,
        mut next: impl FnMut(usize, &State) -> Operation,
    ) -> Result<Self, Failure> {
        let mut machine = Machine::create(layout, shape)?;
        let mut operations = Vec::new();
        for number in 0..count {
            let operation = next(number, machine.timeline().newest());
            // Whether a process that is killed leaves what it did depends on more than the operation.
            let operation = if matches!(operation, Operation::Kill) { Operation::Sync } else { operation };
            machine.run(&operation)?;
            operations.push(operation);
        }
        let requests = machine.clock().operations();
        machine.clock().crash();
        Ok(Self { layout, seed, shape, operations, requests })
    }
}

/// Sets a key of some dataset to a value of `bytes` bytes that do not compress.
fn put(layout: Layout, state: &State, rng: &mut SimRng, bytes: usize) -> Operation {
    let Some(dataset) = state.datasets.keys().next().cloned() else {
        return Operation::Create(b"alpha".to_vec());
    };
    let key = format!("key{:03}", rng.below(150)).into_bytes();
    let mut value = Vec::with_capacity(bytes);
    while value.len() < bytes {
        value.extend(rng.next_u64().to_le_bytes());
    }
    let preference = layout.large_preference();
    Operation::Write { dataset, change: Change::Put { key, value: Value::new(&value), preference } }
}
