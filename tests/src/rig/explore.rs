//! Crashes of a machine, and what must hold after each.

use super::machine::{Machine, contents, scan};
use super::timeline::{Step, Timeline};
use super::workload::Workload;
use super::{Failure, State};
use betree::Database;
use betree::vdev::{SimClock, SimDisk, SimRng};
use std::sync::Arc;

/// Looks at states after crashes.
#[derive(Debug)]
pub struct Explorer {
    /// Choices of everything that is not in the workload.
    pub rng: SimRng,
    /// States looked at.
    pub states: u64,
    /// States in which operations were lost that had begun.
    pub lost: u64,
    /// States that a crash within a recovery left.
    pub in_recovery: u64,
    /// Crashes of each state that are looked at.
    pub branches: u64,
}

/// What one crash left, opened.
#[derive(Debug)]
pub struct Visit {
    /// The machine that goes on from there.
    pub machine: Machine,
    /// Number of the last write or flush of the recovery.
    pub recovered: u64,
}

impl Explorer {
    /// Looks with choices that depend on `seed`.
    #[must_use]
    pub fn new(seed: u64, branches: u64) -> Self {
        Self { rng: SimRng::new(seed), states: 0, lost: 0, in_recovery: 0, branches }
    }

    /// Crashes `machine` after number `operation` of its clock, opens what is left and compares; then goes on from there
    /// and, while `depth` lasts, crashes that.
    ///
    /// # Errors
    /// What is not as it must be.
    pub fn crash(&mut self, machine: &Machine, operation: u64, depth: u32) -> Result<(), Failure> {
        let context = format!("crash after operation {operation}, depth {depth}");
        let mut visit = self.visit(machine, operation).map_err(|failure| failure.within(&context))?;
        if depth == 0 {
            visit.machine.clock().crash();
            return Ok(());
        }
        let mut workload = Workload::new(machine.layout(), self.rng.next_u64());
        let goes_on = |visit: &mut Visit, workload: &mut Workload| {
            for _ in 0..3 {
                let next = workload.next(visit.machine.timeline().newest());
                visit.machine.run(&next)?;
            }
            visit.machine.run(&super::Operation::Sync)
        };
        goes_on(&mut visit, &mut workload)
            .map_err(|failure| failure.within("writing on").within(&context))?;
        let end = visit.machine.clock().operations();
        // What still waits is not written when the machine goes.
        visit.machine.clock().crash();
        let within = |failure: Failure| failure.within(&context);
        self.crash(&visit.machine, end, depth - 1).map_err(within)?;
        for branch in 1..self.branches {
            let limit = if branch % 2 == 1 { visit.recovered } else { end };
            let operation = self.rng.below(limit + 1);
            self.in_recovery += u64::from(operation < visit.recovered);
            self.crash(&visit.machine, operation, depth - 1).map_err(within)?;
        }
        Ok(())
    }

    /// Opens what a crash after number `operation` leaves, and compares it with what is legal.
    ///
    /// # Errors
    /// What is not as it must be.
    pub fn visit(&mut self, machine: &Machine, operation: u64) -> Result<Visit, Failure> {
        self.states += 1;
        let clock = SimClock::new(self.rng.next_u64());
        let disks: Vec<SimDisk> = machine
            .disks()
            .iter()
            .map(|disk| disk.crash_image_at(operation, &mut self.rng, &clock))
            .collect();
        disks.iter().for_each(SimDisk::keep_history);
        let (layout, shape) = (machine.layout(), machine.shape());
        let legal = machine.timeline().legal(operation);
        let mut opened = Machine::open(layout, shape, clock, disks, Timeline::new(Arc::default()))
            .map_err(|error| Failure::new(error).within("open"))?;
        let recovered = opened.clock().operations();
        let database = opened.database()?;
        if let Some(report) = database.open_report()
            && report.rolled_back
        {
            return Err(Failure::new(format!("a crash looks like a loss: {report:?}")));
        }
        let found = scan(database)?;
        let steps = machine.timeline().steps();
        let Some(index) = legal.clone().rev().find(|step| steps[*step].fingerprint == found) else {
            return Err(not_legal(database, &steps[legal.clone()], steps.len() - legal.start()));
        };
        self.lost += u64::from(index < *legal.end());
        let state = Arc::clone(&steps[index].state);
        self.read_some(database, &state)?;
        database.verify().map_err(|error| Failure::new(error).within("verify"))?;
        opened.restart_timeline(state);
        Ok(Visit { machine: opened, recovered })
    }

    /// Single reads of keys that are there and of keys that are not.
    fn read_some(&mut self, database: &Database, state: &State) -> Result<(), Failure> {
        for (name, entries) in &state.datasets {
            let failed = |error: betree::Error| Failure::new(error).within("get");
            let dataset = database.open_dataset(name).map_err(failed)?;
            let known = (!entries.is_empty())
                .then(|| entries.keys().nth(self.rng.index(entries.len())))
                .flatten()
                .cloned();
            let unknown = format!("key{:03}", self.rng.below(150)).into_bytes();
            for key in known.into_iter().chain([unknown]) {
                let found = dataset.get(&key).map_err(failed)?;
                if found.as_deref() != entries.get(&key).map(|value| value.bytes()) {
                    let (key, wanted) = (key.escape_ascii(), entries.contains_key(&key));
                    let found = found.map(|value| value.len());
                    return Err(Failure::new(format!(
                        "get of {key} finds {found:?} bytes; there is a value: {wanted}"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Says what is wrong with a state that is none of `legal`.
fn not_legal(database: &Database, legal: &[Step], steps_left: usize) -> Failure {
    let found = match contents(database) {
        Ok(found) => found,
        Err(failure) => return failure,
    };
    let nearest = legal
        .iter()
        .enumerate()
        .map(|(index, step)| (step.state.differences(&found), index, step))
        .min_by_key(|(differences, _, _)| differences.len());
    let Some((differences, index, step)) = nearest else {
        return Failure::new("no state is legal");
    };
    let shown = &differences[..differences.len().min(5)];
    let tail: Vec<String> =
        legal.iter().rev().take(6).map(|step| format!("{:.160?}", step.operation)).collect();
    Failure::new(format!(
        "not a legal state; {} are ({} steps follow the first). Nearest: number {index} of them, after {:.200?}, with \
         {} differences: {}. Last operations: {}",
        legal.len(),
        steps_left,
        step.operation,
        differences.len(),
        shown.join("; "),
        tail.join(" <- ")
    ))
}
