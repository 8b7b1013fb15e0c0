//! Loops over the faults of a whole run: each request in turn, until the run ends without meeting the fault.

use super::machine::{Machine, contents, scan, view};
use super::model::{Change, Operation, State, Value};
use super::recipe::Recipe;
use super::timeline::Step;
use super::trial::{self, Class, Counts, Ending, Trial};
use super::{Failure, Layout};
use betree::base::units::BLOCK_BYTES_U64;
use betree::vdev::{BlockDevice, Fault, FaultKind, LoggedOperation, SimClock, SimDisk};
use betree::{AccessMode, Database, DatabaseConfiguration, ErrorKind, StoragePreference};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Blocks of the label area at each end of a device, as docs/format.md says.
const AREA_BLOCKS: u64 = 16;

/// Most requests of one disk: above it a loop does not end by itself.
const REQUESTS_MAX: u64 = 20_000;

/// Puts `fault(n)` on each disk in turn for n = `first`, `first + step`, …, and runs `recipe` with it, until it does not
/// happen any more.
///
/// # Errors
/// The first thing that is not as it must be, with the disk and n.
pub fn each_request(
    recipe: &Recipe,
    class: Class,
    endings: &[Ending],
    counts: &mut Counts,
    fault: impl Fn(u64) -> Fault,
) -> Result<(), Failure> {
    for disk in 0..recipe.layout.disks(&SimClock::new(0)).len() {
        until_quiet(|n| {
            let arm = |disks: &[SimDisk]| disks[disk].arm(fault(n));
            Trial::run(recipe, class, &arm, endings, counts).map_err(|failure| {
                failure.within(format!(
                    "BETREE_SEED={} ({:?}), disk {disk}, {:?}",
                    recipe.seed,
                    recipe.layout,
                    fault(n)
                ))
            })
        })?;
    }
    Ok(())
}

/// As [`each_request`], in the opening after a crash: `recipe` is run once without faults, and crashed at `crashes`
/// moments.
///
/// # Errors
/// As [`each_request`].
pub fn each_request_of_recovery(
    recipe: &Recipe,
    crashes: u64,
    class: Class,
    counts: &mut Counts,
    fault: impl Fn(u64) -> Fault,
) -> Result<(), Failure> {
    let machine = recorded(recipe)?;
    let end = machine.clock().operations();
    for crash in 0..crashes {
        // Spread over the run; the last one is its end.
        let operation = end - crash * end * 2 / (3 * crashes);
        for disk in 0..machine.disks().len() {
            until_quiet(|n| {
                let arm = |disks: &[SimDisk]| disks[disk].arm(fault(n));
                Trial::recover(&machine, operation, class, &arm, &[Ending::Kill, Ending::Crash], counts)
                    .map_err(|failure| {
                        failure.within(format!(
                            "BETREE_SEED={} ({:?}), crash after {operation}, disk {disk}, {:?}",
                            recipe.seed,
                            recipe.layout,
                            fault(n)
                        ))
                    })
            })?;
        }
    }
    Ok(())
}

/// The machine that `recipe` ran on without faults, with its history.
///
/// # Errors
/// It does not run.
pub fn recorded(recipe: &Recipe) -> Result<Machine, Failure> {
    let mut machine = Machine::create(recipe.layout, recipe.shape)?;
    for operation in &recipe.operations {
        machine.run(operation)?;
    }
    machine.clock().crash();
    Ok(machine)
}

fn until_quiet(mut run: impl FnMut(u64) -> Result<bool, Failure>) -> Result<(), Failure> {
    let fires = |n| if n > REQUESTS_MAX { Err(Failure::new("the run does not end")) } else { run(n) };
    (1..).map(fires).find(|fired| !matches!(fired, Ok(true))).map_or(Ok(()), |last| last.map(|_| ()))
}

/// Runs `recipe` after ballast of `bytes` bytes has been put into the pool.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn with_ballast(recipe: &Recipe, bytes: usize, counts: &mut Counts) -> Result<(), Failure> {
    let key = b"weight".to_vec();
    let change = Change::Put { key, value: Value::new(&vec![7; bytes]), preference: StoragePreference::NONE };
    let dataset = b"ballast".to_vec();
    let ballast = [Operation::Create(dataset.clone()), Operation::Write { dataset, change }];
    let operations = ballast.into_iter().chain(recipe.operations.iter().cloned()).collect();
    let full = Recipe { operations, ..*recipe };
    Trial::run(&full, Class::PoolFull, &|_| (), &Ending::ALL, counts).map(|_| ()).map_err(|failure| {
        failure.within(format!("BETREE_SEED={} ({:?}), {bytes} bytes of ballast", recipe.seed, recipe.layout))
    })
}

/// Drops both writes of each superblock on each disk in turn.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn each_lost_superblock(recipe: &Recipe, counts: &mut Counts) -> Result<(), Failure> {
    let machine = recorded(recipe)?;
    for (index, disk) in machine.disks().iter().enumerate() {
        if disk.device().is_volatile() {
            continue;
        }
        let durable = machine.disks().iter().filter(|disk| !disk.device().is_volatile()).count();
        let class = if durable == 1 { Class::LostRoot } else { Class::Lying };
        for (front, back) in superblock_writes(disk) {
            let arm = |disks: &[SimDisk]| {
                disks[index].arm(Fault::DroppedWrite { nth: front });
                disks[index].arm(Fault::DroppedWrite { nth: back });
            };
            Trial::run(recipe, class, &arm, &Ending::ALL, counts).map_err(|failure| {
                failure.within(format!(
                    "BETREE_SEED={} ({:?}), disk {index}, without its writes {front} and {back}",
                    recipe.seed, recipe.layout
                ))
            })?;
        }
    }
    Ok(())
}

/// The writes of each superblock to the front and to the back of `disk`, counted from 1.
fn superblock_writes(disk: &SimDisk) -> Vec<(u64, u64)> {
    let writes = (1..).zip(disk.log().into_iter().filter_map(|operation| match operation {
        LoggedOperation::Write { offset, bytes, .. } => Some((offset, bytes)),
        LoggedOperation::Flush { .. } => None,
    }));
    let area = AREA_BLOCKS * BLOCK_BYTES_U64;
    let mut pairs = Vec::new();
    let mut front = None;
    // The label areas are cleared in larger writes.
    for (number, (offset, bytes)) in writes {
        if bytes == BLOCK_BYTES_U64 && offset < area {
            front = Some(number);
        } else if bytes == BLOCK_BYTES_U64 && offset >= disk.len() - area {
            pairs.extend(front.take().map(|front| (front, number)));
        }
    }
    pairs
}

/// A pool that is looked at again and again, each time with something wrong.
#[derive(Debug)]
pub struct Specimen {
    layout: Layout,
    shape: u64,
    disks: Vec<SimDisk>,
    /// The states up to the newest.
    steps: Vec<Step>,
    /// The first step that may be found without a report: one from which on all is in the log.
    unreported: usize,
    /// The first step that may be found at all.
    first: usize,
}

/// How a specimen is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading.
    ReadOnly,
    /// For writing, which writes what was replayed.
    ReadWrite,
    /// As one that would be created if it were not there; then every key is read by itself, too.
    OrCreate,
}

impl Specimen {
    /// What `recipe` leaves after a checkpoint; and after two syncs that follow it, `with_log`.
    ///
    /// # Errors
    /// It does not run.
    pub fn new(recipe: &Recipe, with_log: bool) -> Result<Self, Failure> {
        let mut machine = Machine::create(recipe.layout, recipe.shape)?;
        for operation in &recipe.operations {
            machine.run(operation)?;
        }
        machine.run(&Operation::Checkpoint)?;
        let newest = |machine: &Machine| machine.timeline().steps().len() - 1;
        let mut unreported = newest(&machine);
        if with_log {
            for round in 0..2_u8 {
                unreported = newest(&machine);
                let Some(dataset) = machine.timeline().newest().datasets.keys().next().cloned() else {
                    return Err(Failure::new("the recipe leaves no dataset"));
                };
                let batch = (0..6_u8).map(|number| {
                    let (key, value) = (vec![b'l', round, number], Value::new(&[round + 1; 700]));
                    (dataset.clone(), Change::Put { key, value, preference: StoragePreference::NONE })
                });
                machine.run(&Operation::Batch { changes: batch.collect(), sync: false })?;
                let (key, value) = (vec![b'L', round], Value::new(&vec![round + 1; 18 << 10]));
                let change = Change::Put { key, value, preference: recipe.layout.large_preference() };
                machine.run(&Operation::Write { dataset, change })?;
                machine.run(&Operation::Sync)?;
            }
        }
        Ok(Self::of(&machine, 0, unreported))
    }

    /// What is on the disks of `machine`, which ends. Its steps from `first` on may be found, from `unreported` on without
    /// a report.
    #[must_use]
    pub fn of(machine: &Machine, first: usize, unreported: usize) -> Self {
        machine.clock().crash();
        let clock = SimClock::new(machine.shape());
        let landed = |disk: &SimDisk| disk.crash_image_where(u64::MAX, &clock, |_, _| true);
        Self {
            layout: machine.layout(),
            shape: machine.shape(),
            disks: machine.disks().iter().map(landed).collect(),
            steps: machine.timeline().steps().to_vec(),
            unreported,
            first,
        }
    }

    /// Its disks.
    #[must_use]
    pub fn disks(&self) -> &[SimDisk] {
        &self.disks
    }

    /// Opens a copy with `fault` on disk `disk`, reads and verifies everything.
    ///
    /// # Errors
    /// Something else than the right bytes or an error; a panic, too.
    pub fn look(
        &self,
        disk: usize,
        fault: Fault,
        access: Access,
        counts: &mut Counts,
    ) -> Result<(), Failure> {
        let quiet = self.look_with(|disks| disks[disk].arm(fault), access, counts);
        let quiet = quiet.map_err(|failure| failure.within(format!("disk {disk}, {fault:?}")))?;
        counts.quiet += u64::from(quiet);
        Ok(())
    }

    /// Opens a copy after `damage` was done to its disks, reads and verifies everything. Whether no armed fault happened.
    ///
    /// # Errors
    /// As [`Specimen::look`].
    pub fn look_with(
        &self,
        damage: impl FnOnce(&[SimDisk]),
        access: Access,
        counts: &mut Counts,
    ) -> Result<bool, Failure> {
        let clock = SimClock::new(self.shape);
        let disks: Vec<SimDisk> = self.disks.iter().map(|disk| trial::copy(disk, &clock)).collect();
        damage(&disks);
        let mut seen = *counts;
        let looked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.open(&disks, access, &mut seen)));
        seen.trials += 1;
        seen.note(&disks);
        *counts = seen;
        clock.crash();
        let result = looked.unwrap_or_else(|_| Err(Failure::new("a panic")));
        result.map_err(|failure| failure.within(format!("{:?}, opened {access:?}", self.layout)))?;
        Ok(disks.iter().all(|disk| FaultKind::ALL.iter().all(|kind| disk.fired(*kind) == 0)))
    }

    fn open(&self, disks: &[SimDisk], access: Access, counts: &mut Counts) -> Result<(), Failure> {
        let configuration = self.layout.configuration(disks, &Arc::default(), self.shape);
        let opened = match access {
            Access::ReadOnly => Database::open_read_only(configuration),
            Access::ReadWrite => Database::open_with(configuration),
            Access::OrCreate => Database::build(DatabaseConfiguration {
                access_mode: AccessMode::OpenOrCreate,
                ..configuration
            }),
        };
        let database = match opened {
            Ok(database) => database,
            // An error is a right answer. That a pool is no pool is not.
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(Failure::new(error)),
            Err(_) => {
                counts.refused += 1;
                return Ok(());
            }
        };
        counts.opened += 1;
        let reported = database.open_report().is_some_and(|report| report.rolled_back);
        let steps = &self.steps[if reported { self.first } else { self.unreported }..];
        let scanned = scan(&database);
        match &scanned {
            Ok(found) if steps.last().is_some_and(|newest| newest.fingerprint == *found) => {}
            Ok(found) if steps.iter().any(|step| step.fingerprint == *found) => {
                // The last frame of the log, or the value that it names, looks as if the power had failed before its
                // flush.
                let count = if reported { &mut counts.reported } else { &mut counts.untold };
                *count += 1;
            }
            Ok(_) => return Err(Failure::new("wrong bytes").within(differences(&database, steps))),
            Err(_) => {}
        }
        if scanned.is_err() || access == Access::OrCreate {
            counts.read_errors += compare(&database, steps)?;
        }
        counts.errors += u64::from(database.verify().is_err());
        Ok(())
    }
}

/// Demands that everything which can be read is as in one of `steps`; returns how many reads were errors.
fn compare(database: &Database, steps: &[Step]) -> Result<u64, Failure> {
    let Ok(names) = database.datasets() else { return Ok(1) };
    let keys: BTreeSet<&Vec<u8>> = steps
        .iter()
        .flat_map(|step| step.state.datasets.values().flat_map(|entries| entries.keys()))
        .collect();
    let mut errors = 0;
    let mut found = Vec::new();
    for name in &names {
        let view = view(database, name).map_err(Failure::new)?;
        for key in &keys {
            match view.get(key) {
                Ok(value) => found.push((name, *key, value)),
                Err(_) => errors += 1,
            }
        }
        // A scan ends at its first error; before that, it must not leave anything out.
        let mut scanned = Vec::new();
        let whole =
            view.range::<&[u8]>(..).try_for_each(|entry| entry.map(|(key, _)| scanned.push(key.to_vec())));
        errors += u64::from(whole.is_err());
        let end = scanned.last().cloned();
        for (_, key, value) in found.iter().filter(|(of, _, _)| of == &name) {
            let passed = whole.is_ok() || end.as_ref().is_some_and(|end| *key <= end);
            if passed && value.is_some() != scanned.contains(key) {
                let key = key.escape_ascii();
                return Err(Failure::new(format!("get and scan disagree about {key}")));
            }
        }
    }
    let agrees = |state: &State| {
        state.datasets.len() == names.len()
            && found.iter().all(|(name, key, value)| {
                let wanted = state.datasets.get(*name).map(|entries| entries.get(*key).map(Value::bytes));
                wanted.is_some_and(|wanted| wanted == value.as_deref())
            })
    };
    if steps.iter().rev().any(|step| agrees(&step.state)) {
        return Ok(errors);
    }
    let what = format!("what is read ({errors} errors) is no state of the workload");
    Err(Failure::new(differences(database, steps)).within(what))
}

/// How what is read differs from the newest of `steps`.
fn differences(database: &Database, steps: &[Step]) -> String {
    let (Ok(found), Some(newest)) = (contents(database), steps.last()) else { return String::new() };
    newest.state.differences(&found).into_iter().take(4).collect::<Vec<_>>().join("; ")
}
