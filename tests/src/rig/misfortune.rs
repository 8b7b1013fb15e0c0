//! Devices that fail, bytes that change, and space that is lost: what a power cut alone does not bring.

use super::faults::{Access, Specimen};
use super::layout::Layout;
use super::machine::Machine;
use super::model::{Change, Operation, Value};
use super::recipe::Recipe;
use super::trial::{Class, Counts, Ending, Trial};
use super::workload::Workload;
use super::{Failure, number_from_environment};
use betree::StoragePreference;
use betree::pool::{SlotContent, dump_device};
use betree::vdev::{BlockDevice, Fault, FaultKind, FlushFailure, LoggedOperation, SimDisk, SimRng};
use std::collections::BTreeSet;

/// What befalls a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfortune {
    /// A device fails a write or a flush somewhere, or its host is full: a [`Trial`] of a random workload.
    Failure,
    /// Bytes change while the pool is closed, in several places at once: a [`Specimen`] of a random workload.
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
    /// The first that does not end as it must; of many, a fault that never happened.
    pub fn run(&self) -> Result<Counts, Failure> {
        let mut counts = Counts::default();
        for seed in self.seed..self.seed + self.rounds {
            let ended = match self.kind {
                Misfortune::Failure => fail(self.layout, seed, &mut counts),
                Misfortune::Damage => damage(self.layout, seed, &mut counts),
                Misfortune::FullPool => fill(self.layout, seed, &mut counts),
            };
            ended.map_err(|failure| {
                failure.within(format!("{:?} on {:?}, BETREE_SEED={seed}", self.kind, self.layout))
            })?;
        }
        if self.kind == Misfortune::Failure && self.rounds >= MANY {
            counts.demand(&[FaultKind::WriteError, FaultKind::OutOfSpace, FaultKind::FlushError])?;
        }
        Ok(counts)
    }
}

/// Of so many workloads, each kind of fault meets one.
const MANY: u64 = 100;

fn durable(disks: &[SimDisk]) -> Vec<&SimDisk> {
    disks.iter().filter(|disk| !disk.device().is_volatile()).collect()
}

/// A fault that happens somewhere in a run of so many writes and flushes, and what may be expected then.
fn some_fault(rng: &mut SimRng, requests: u64) -> (Class, Fault) {
    let (sticky, nth) = (rng.chance(1, 2), 1 + rng.below(requests));
    match rng.below(5) {
        0 | 1 => (Class::Failing, Fault::WriteError { nth, sticky }),
        2 => (Class::HostFull, Fault::OutOfSpace { nth }),
        _ => {
            let after =
                [FlushFailure::DropDirty, FlushFailure::KeepVisible, FlushFailure::Revert][rng.index(3)];
            // There are fewer flushes than writes.
            (Class::Failing, Fault::FlushError { nth: nth.div_ceil(4), sticky, after })
        }
    }
}

fn fail(layout: Layout, seed: u64, counts: &mut Counts) -> Result<(), Failure> {
    let mut rng = SimRng::new(seed);
    let recipe = Recipe::random(layout, rng.next_u64())?;
    let (class, fault) = some_fault(&mut rng, recipe.requests);
    let disk = rng.index(16);
    let arm = |disks: &[SimDisk]| {
        let disks = durable(disks);
        disks[disk % disks.len()].arm(fault);
    };
    let fired = Trial::run(&recipe, class, &arm, &Ending::ALL, counts);
    fired.map(|_| ()).map_err(|failure| failure.within(format!("{fault:?}")))
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

fn damage(layout: Layout, seed: u64, counts: &mut Counts) -> Result<(), Failure> {
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
    let used: Vec<Vec<u64>> = durable(machine.disks()).into_iter().map(written_blocks).collect();
    let specimen = Specimen::of(&machine, legal_from, legal_from);
    let mut what = String::new();
    let damage = |disks: &[SimDisk]| what = change_bytes(&durable(disks), &used, &mut rng);
    let looked = specimen.look_with(damage, Access::OrCreate, counts);
    looked.map(|_| ()).map_err(|failure| failure.within(what))
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

fn fill(layout: Layout, seed: u64, counts: &mut Counts) -> Result<(), Failure> {
    let mut rng = SimRng::new(seed);
    let mut machine = Machine::create(layout, rng.next_u64())?;
    let name = b"full".to_vec();
    // Every block is accounted for once nothing is under way. What the log names, and was born and died between two
    // checkpoints, is in none and waits for the second one.
    let empty = |machine: &mut Machine| -> Result<(), Failure> {
        while let Some(dataset) = machine.timeline().newest().free_dataset() {
            machine.run(&Operation::Destroy(dataset))?;
        }
        for round in 0..3 {
            machine.run(&Operation::Settle)?;
            machine.run(&Operation::Checkpoint)?;
            if round > 0 {
                account(machine).map_err(|failure| failure.within(format!("round {round}")))?;
            }
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
    counts.errors += refused;
    Ok(())
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
    // What parity takes is left out, and each account rounded.
    let rounded = if machine.layout().is_striped() { 6 * metrics.vdevs.len() as u64 } else { 0 };
    if (known + metrics.log_blocks).abs_diff(total) > rounded {
        let log = metrics.log_blocks;
        return Err(Failure::new(format!(
            "{known} blocks and {log} of the log are not {total}: {:?}",
            tiers().collect::<Vec<_>>()
        )));
    }
    database.verify().map(|_| ()).map_err(|error| Failure::new(error).within("verify"))
}
