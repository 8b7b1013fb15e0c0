//! Devices that fail, bytes that change, and space that is lost: what a power cut alone does not bring.

use super::explore::Explorer;
use super::layout::Layout;
use super::machine::{Machine, contents, view};
use super::model::{Change, Operation, State, Value};
use super::timeline::Step;
use super::workload::Workload;
use super::{Failure, number_from_environment};
use betree::pool::{SlotContent, dump_device};
use betree::vdev::{BlockDevice, Fault, FlushFailure, LoggedOperation, SimClock, SimDisk, SimRng};
use betree::{AccessMode, Database, Error, ErrorKind, StoragePreference};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// What befalls a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfortune {
    /// A device fails a write or a flush, or its host is full. Nothing is acknowledged any more after an error, and
    /// what was before survives the crash that follows.
    Failure,
    /// Bytes change while the pool is closed: reads are right or errors, nothing is formatted, nothing older is shown
    /// without a report.
    Damage,
    /// The pool is filled until it refuses, then emptied: all of its space is there again, before and after it is opened
    /// anew.
    FullPool,
}

/// How often what is tried.
#[derive(Debug, Clone, Copy)]
pub struct Misfortunes {
    /// What.
    pub kind: Misfortune,
    /// Devices.
    pub layout: Layout,
    /// Seed of the first workload; the next ones count up.
    pub seed: u64,
    /// Workloads.
    pub rounds: u64,
}

/// What was tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Suffered {
    /// Workloads.
    pub rounds: u64,
    /// Errors that were reported.
    pub errors: u64,
    /// Milliseconds.
    pub elapsed_ms: u64,
}

impl fmt::Display for Suffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed_ms as f64 / 1000.0;
        write!(f, "{} rounds with {} errors in {seconds:.1} s", self.rounds, self.errors)
    }
}

impl Misfortunes {
    /// `rounds` workloads on `layout`, or what `BETREE_MISFORTUNES` (for each layout) and `BETREE_SEED` say.
    #[must_use]
    pub fn new(kind: Misfortune, layout: Layout, rounds: u64) -> Self {
        Self {
            kind,
            layout,
            seed: number_from_environment("BETREE_SEED").unwrap_or(1),
            rounds: number_from_environment("BETREE_MISFORTUNES").unwrap_or(rounds),
        }
    }

    /// Runs them.
    ///
    /// # Errors
    /// The first that does not end as it must.
    pub fn run(&self) -> Result<Suffered, Failure> {
        let started = Instant::now();
        let mut suffered = Suffered::default();
        for seed in self.seed..self.seed + self.rounds {
            let errors = match self.kind {
                Misfortune::Failure => fail(self.layout, seed),
                Misfortune::Damage => damage(self.layout, seed),
                Misfortune::FullPool => fill(self.layout, seed),
            };
            suffered.errors += errors.map_err(|failure| {
                failure.within(format!("{:?} on {:?}, BETREE_SEED={seed}", self.kind, self.layout))
            })?;
            suffered.rounds += 1;
        }
        suffered.elapsed_ms = started.elapsed().as_millis() as u64;
        Ok(suffered)
    }
}

/// More writes and flushes than any one operation makes.
const OPERATION_WRITES_MAX: u64 = 20_000;

fn durable(disks: &[SimDisk]) -> Vec<&SimDisk> {
    disks.iter().filter(|disk| !disk.device().is_volatile()).collect()
}

fn some_fault(rng: &mut SimRng) -> Fault {
    let sticky = rng.chance(1, 2);
    match rng.below(5) {
        0 | 1 => Fault::WriteError { nth: 1 + rng.below(12), sticky },
        2 => Fault::OutOfSpace { nth: 1 + rng.below(12) },
        _ => {
            let after =
                [FlushFailure::DropDirty, FlushFailure::KeepVisible, FlushFailure::Revert][rng.index(3)];
            Fault::FlushError { nth: 1 + rng.below(3), sticky, after }
        }
    }
}

fn fail(layout: Layout, seed: u64) -> Result<u64, Failure> {
    let mut rng = SimRng::new(seed);
    let mut machine = Machine::create(layout, rng.next_u64())?;
    let mut workload = Workload::new(layout, rng.next_u64());
    let operations = 10 + rng.below(50);
    let armed_at = rng.below(operations);
    let mut errors = 0;
    for number in 0..operations {
        if number == armed_at {
            let disks = durable(machine.disks());
            disks[rng.index(disks.len())].arm(some_fault(&mut rng));
        }
        let operation = workload.next(machine.timeline().newest());
        // A database that goes on for ever is stopped, before it takes all memory for the history of its disks.
        machine.clock().set_stop_after(machine.clock().operations() + OPERATION_WRITES_MAX);
        let attempted = machine.attempt(&operation);
        if machine.clock().is_crashed() {
            return Err(Failure::new(format!("{operation:.80?} writes without end")));
        }
        let Err(error) = attempted else { continue };
        // Refused for want of room: nothing has changed. Everything else stops the database.
        if matches!(error, Error::OutOfSpace { .. }) {
            continue;
        }
        errors += 1;
        let Ok(database) = machine.database() else { break };
        if let (Ok(()), written) = (database.checkpoint(), &operation) {
            let what = format!("a checkpoint succeeds after {written:.80?} failed: {error}");
            return Err(Failure::new(what));
        }
        break;
    }
    let now = machine.clock().operations();
    machine.clock().crash();
    for disk in machine.disks() {
        disk.clear_faults();
    }
    let mut explorer = Explorer::new(rng.next_u64(), 2);
    for _ in 0..3 {
        explorer.crash(&machine, now, 1).map_err(|failure| failure.within(format!("{errors} errors")))?;
    }
    Ok(errors)
}

/// What is changed on a disk that nobody uses.
fn change_bytes(disks: &[&SimDisk], used: &[Vec<u64>], rng: &mut SimRng) -> String {
    if rng.chance(1, 8) {
        // Every superblock.
        for disk in disks {
            for slot in dump_device(&disk.device()) {
                if matches!(slot.content, SlotContent::Superblock(_)) {
                    disk.flip_bit(slot.block * 4096 + rng.below(4096), rng.below(8) as u8);
                }
            }
        }
        return String::from("every superblock changed");
    }
    let mut what = Vec::new();
    for _ in 0..1 + rng.below(6) {
        let index = rng.index(disks.len());
        let (disk, blocks) = (disks[index], &used[index]);
        let block = blocks[rng.index(blocks.len())];
        let other = blocks[rng.index(blocks.len())];
        let bytes = |block: u64| disk.bytes()[block as usize * 4096..][..4096].to_vec();
        match rng.below(6) {
            0 => disk.overwrite(block * 4096, &[0; 4096]),
            1 => disk.overwrite(block * 4096, &bytes(other)),
            2 => {
                let (one, two) = (bytes(block), bytes(other));
                disk.overwrite(block * 4096, &two);
                disk.overwrite(other * 4096, &one);
            }
            _ => disk.flip_bit(block * 4096 + rng.below(4096), rng.below(8) as u8),
        }
        what.push(format!("{} block {block} ({other})", disk.name()));
    }
    what.join(", ")
}

fn damage(layout: Layout, seed: u64) -> Result<u64, Failure> {
    let mut rng = SimRng::new(seed);
    let mut machine = Machine::create(layout, rng.next_u64())?;
    let mut workload = Workload::new(layout, rng.next_u64());
    machine.run(&Operation::Create(b"always".to_vec()))?;
    let mut legal_from = 0;
    for number in 0..60 {
        let operation = match number {
            30 | 45 => Operation::Checkpoint,
            59 => Operation::Sync,
            _ => workload.next(machine.timeline().newest()),
        };
        if matches!(operation, Operation::Destroy(ref name) if name == b"always") {
            continue;
        }
        machine.run(&operation)?;
        if number == 30 {
            legal_from = machine.timeline().steps().len() - 1;
        }
    }
    if rng.chance(1, 2) {
        machine.run(&Operation::Reopen)?;
    }
    machine.clock().crash();
    let clock = SimClock::new(rng.next_u64());
    let image = |disk: &SimDisk| disk.crash_image_where(u64::MAX, &clock, |_, _| true);
    let disks: Vec<SimDisk> = machine.disks().iter().map(image).collect();
    let used: Vec<Vec<u64>> = durable(machine.disks()).into_iter().map(written_blocks).collect();
    let what = change_bytes(&durable(&disks), &used, &mut rng);
    let configuration = betree::DatabaseConfiguration {
        access_mode: AccessMode::OpenOrCreate,
        ..layout.configuration(&disks, &Arc::new(AtomicBool::new(false)), machine.shape())
    };
    // An error is a right answer. That a pool is no pool is not.
    let database = match Database::build(configuration) {
        Ok(database) => database,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Failure::new(error).within(format!("{what}: the pool is not found")));
        }
        Err(_) => return Ok(1),
    };
    let steps = &machine.timeline().steps()[legal_from..];
    let result = compare(&database, steps).map_err(|failure| failure.within(&what));
    // Nothing that is wrong is repaired or written again here.
    clock.crash();
    result
}

fn written_blocks(disk: &SimDisk) -> Vec<u64> {
    let mut blocks = BTreeSet::new();
    for operation in disk.log() {
        if let LoggedOperation::Write { offset, bytes, .. } = operation {
            blocks.extend(offset / 4096..(offset + bytes) / 4096);
        }
    }
    blocks.into_iter().collect()
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
    let newest = &steps[steps.len() - 1].state;
    let differences = contents(database).map(|found| newest.differences(&found)).unwrap_or_default();
    let shown = differences.iter().take(4).cloned().collect::<Vec<_>>().join("; ");
    Err(Failure::new(format!("what is read ({errors} errors) is no state of the workload: {shown}")))
}

fn fill(layout: Layout, seed: u64) -> Result<u64, Failure> {
    let mut rng = SimRng::new(seed);
    let mut machine = Machine::create(layout, rng.next_u64())?;
    let name = b"full".to_vec();
    // Every block is accounted for once nothing is under way, in each round.
    let empty = |machine: &mut Machine| -> Result<(), Failure> {
        for dataset in machine.timeline().newest().datasets.keys().cloned().collect::<Vec<_>>() {
            machine.run(&Operation::Destroy(dataset))?;
        }
        for round in 0..3 {
            machine.run(&Operation::Settle)?;
            machine.run(&Operation::Checkpoint)?;
            account(machine).map_err(|failure| failure.within(format!("round {round}")))?;
        }
        Ok(())
    };
    empty(&mut machine).map_err(|failure| failure.within("an empty pool"))?;
    machine.run(&Operation::Create(name.clone()))?;
    let mut refused = 0;
    for number in 0..400 {
        let bytes = vec![number as u8; 1000 + rng.below(60_000) as usize];
        let preference = if rng.chance(1, 2) { layout.large_preference() } else { StoragePreference::NONE };
        let key = format!("{:04}", rng.below(2000)).into_bytes();
        let change = Change::Put { key, value: Value::new(&bytes), preference };
        let was = machine.refused();
        let write = Operation::Write { dataset: name.clone(), change: change.clone() };
        let batch = Operation::Batch {
            changes: vec![(name.clone(), change.clone()), (name.clone(), change)],
            sync: false,
        };
        machine.run(if rng.chance(1, 3) { &batch } else { &write })?;
        refused += machine.refused() - was;
        if refused >= 12 {
            break;
        }
    }
    empty(&mut machine).map_err(|failure| failure.within("emptied"))?;
    machine.run(&Operation::Reopen)?;
    empty(&mut machine).map_err(|failure| failure.within("opened anew"))?;
    machine.clock().crash();
    Ok(refused)
}

/// Demands that every block is free, in the checkpoint, dead and waiting for the next one, or of the log; and that the
/// checkpoint has none that it does not reach.
fn account(machine: &Machine) -> Result<(), Failure> {
    let database = machine.database()?;
    let metrics = database.metrics();
    // Memory holds copies only, and what of them is kept is its own affair.
    let volatile = usize::from(machine.layout() == Layout::MemoryOverDurable);
    let tiers = || metrics.tiers.iter().skip(volatile);
    let total: u64 = tiers().map(|tier| tier.total).sum();
    let known: u64 = tiers().map(|tier| tier.free + tier.used + tier.pending).sum();
    if known + metrics.log_blocks != total {
        let log = metrics.log_blocks;
        return Err(Failure::new(format!(
            "{known} blocks and {log} of the log are not {total}: {:?}",
            tiers().collect::<Vec<_>>()
        )));
    }
    database.verify().map(|_| ()).map_err(|error| Failure::new(error).within("verify"))
}
