//! Crashes of a machine, and what must hold after each.

use super::machine::{Machine, contents, scan, view};
use super::timeline::{Step, Timeline};
use super::workload::Workload;
use super::{Failure, State};
use betree::Database;
use betree::pool::format::VdevState;
use betree::pool::{SlotContent, dump_device};
use betree::vdev::{BlockDevice, SimClock, SimDisk, SimRng};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
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
    /// States looked at besides, in which the newest superblock was lost.
    pub rotten: u64,
    /// Crashes of each state that are looked at.
    pub branches: u64,
    /// Disks that died before the crash and are back, with what they had.
    pub stale: usize,
    /// The rotten superblock stays until checkpoints have overwritten it: until then a loss is reported or not.
    after_rot: bool,
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
        Self {
            rng: SimRng::new(seed),
            states: 0,
            lost: 0,
            in_recovery: 0,
            rotten: 0,
            branches,
            stale: 0,
            after_rot: false,
        }
    }

    /// Crashes `machine` after number `operation` of its clock, opens what is left and compares; then goes on from there
    /// and, while `depth` lasts, crashes that.
    ///
    /// # Errors
    /// What is not as it must be.
    pub fn crash(&mut self, machine: &Machine, operation: u64, depth: u32) -> Result<(), Failure> {
        let context = format!("crash after operation {operation}, depth {depth}");
        let visit = self.visit(machine, operation).map_err(|failure| failure.within(&context))?;
        self.go_on(visit, depth).map_err(|failure| failure.within(&context))
    }

    /// As [`Explorer::crash`], where the newest superblock has rotten everywhere in the meantime. Nothing where there is
    /// none to fall back to.
    ///
    /// # Errors
    /// What is not as it must be.
    pub fn rot(&mut self, machine: &Machine, operation: u64, depth: u32) -> Result<(), Failure> {
        let context = format!("newest superblock rotten after operation {operation}, depth {depth}");
        let (clock, disks) = self.after_crash(machine, operation);
        let Some(is_told) = rot_newest_superblock(&disks, &mut self.rng) else { return Ok(()) };
        self.rotten += 1;
        // The log of the older checkpoint leads up to a state before the crash, but not beyond that of its opening.
        let legal = 0..=*machine.timeline().legal(operation).end();
        self.after_rot = !is_told;
        let visit =
            self.open(machine, clock, disks, legal, true).map_err(|failure| failure.within(&context))?;
        self.after_rot = true;
        let gone_on = self.go_on(visit, depth).map_err(|failure| failure.within(&context));
        self.after_rot = false;
        gone_on
    }

    /// Writes on after a recovery and, while `depth` lasts, crashes that.
    ///
    /// # Errors
    /// What is not as it must be.
    pub(super) fn go_on(&mut self, mut visit: Visit, depth: u32) -> Result<(), Failure> {
        if depth == 0 {
            visit.machine.clock().crash();
            return Ok(());
        }
        let mut workload = Workload::new(visit.machine.layout(), self.rng.next_u64());
        let goes_on = |visit: &mut Visit, workload: &mut Workload| {
            for _ in 0..3 {
                let next = workload.next(visit.machine.timeline().newest());
                visit.machine.run(&next)?;
            }
            visit.machine.run(&super::Operation::Sync)
        };
        goes_on(&mut visit, &mut workload).map_err(|failure| failure.within("writing on"))?;
        let end = visit.machine.clock().operations();
        // What still waits is not written when the machine goes.
        visit.machine.clock().crash();
        self.crash(&visit.machine, end, depth - 1)?;
        for branch in 1..self.branches {
            let limit = if branch % 2 == 1 { visit.recovered } else { end };
            let operation = self.rng.below(limit + 1);
            self.in_recovery += u64::from(operation < visit.recovered);
            self.crash(&visit.machine, operation, depth - 1)?;
        }
        Ok(())
    }

    /// Opens what a crash after number `operation` leaves, and compares it with what is legal.
    ///
    /// # Errors
    /// What is not as it must be.
    pub fn visit(&mut self, machine: &Machine, operation: u64) -> Result<Visit, Failure> {
        let (clock, disks) = self.after_crash(machine, operation);
        self.look(machine, clock, disks, operation)
    }

    /// Opens `disks`, which a crash of `machine` after number `operation` left, and compares them with what is legal.
    ///
    /// # Errors
    /// What is not as it must be.
    pub fn look(
        &mut self,
        machine: &Machine,
        clock: SimClock,
        disks: Vec<SimDisk>,
        operation: u64,
    ) -> Result<Visit, Failure> {
        self.states += 1;
        self.open(machine, clock, disks, machine.timeline().legal(operation), false)
    }

    fn after_crash(&mut self, machine: &Machine, operation: u64) -> (SimClock, Vec<SimDisk>) {
        let clock = SimClock::new(self.rng.next_u64());
        let image = |disk: &SimDisk| disk.crash_image_at(operation, &mut self.rng, &clock);
        let disks = machine.disks().iter().map(image).collect();
        (clock, disks)
    }

    fn open(
        &mut self,
        machine: &Machine,
        clock: SimClock,
        disks: Vec<SimDisk>,
        legal: RangeInclusive<usize>,
        rolled_back: bool,
    ) -> Result<Visit, Failure> {
        disks.iter().for_each(SimDisk::keep_history);
        if !rolled_back && !self.after_rot && !some_generation_is_whole(&disks, self.stale) {
            return Err(Failure::new("no superblock is whole at both ends of every disk"));
        }
        let (layout, shape) = (machine.layout(), machine.shape());
        let mut opened = Machine::open(layout, shape, clock, disks, Timeline::new(Arc::default()))
            .map_err(|error| Failure::new(error).within("open"))?;
        let recovered = opened.clock().operations();
        let database = opened.database()?;
        if let Some(report) = database.open_report()
            && report.rolled_back != rolled_back
            && !self.after_rot
        {
            let what = if rolled_back { "a loss is not reported" } else { "a crash looks like a loss" };
            return Err(Failure::new(format!("{what}: {report:?}")));
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
            let dataset = view(database, name).map_err(failed)?;
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

/// The superblocks of a generation.
#[derive(Default)]
struct Copies<'a> {
    /// Each with its disk and block.
    places: Vec<(&'a SimDisk, u64)>,
    /// How many there are when all are there: two on each disk of a vdev that is in its list of vdevs.
    whole: usize,
}

/// The superblocks on `disks`, by generation.
fn superblocks(disks: &[SimDisk]) -> BTreeMap<u64, Copies<'_>> {
    let mut generations: BTreeMap<u64, Copies<'_>> = BTreeMap::new();
    for disk in disks.iter().filter(|disk| !disk.device().is_volatile()) {
        for slot in dump_device(&disk.device()) {
            if let SlotContent::Superblock(superblock) = &slot.content {
                let copies = generations.entry(superblock.generation.0).or_default();
                copies.places.push((disk, slot.block));
                let entries = superblock.topology.entries.iter();
                let durable = entries.filter(|entry| entry.state == VdevState::Durable);
                copies.whole = 2 * durable.map(|entry| usize::from(entry.leaf_count)).sum::<usize>();
            }
        }
    }
    generations
}

/// Whether one damaged area more would leave a root: superblocks take turns, so that one is always left alone. `stale` disks
/// need not have it.
fn some_generation_is_whole(disks: &[SimDisk], stale: usize) -> bool {
    superblocks(disks).values().any(|copies| copies.places.len() + 2 * stale >= copies.whole)
}

/// Changes one byte in every copy of the newest superblock. `None`, and nothing changed, when it is not everywhere, or
/// the one before is not. Whether the loss is told: not when a vdev left with it, which then looks like one that it did not reach.
fn rot_newest_superblock(disks: &[SimDisk], rng: &mut SimRng) -> Option<bool> {
    let generations = superblocks(disks);
    let mut newest = generations.values().rev();
    let (newest, before) = (newest.next()?, newest.next()?);
    if [newest, before].iter().any(|copies| copies.places.len() < copies.whole) {
        return None;
    }
    for (disk, block) in &newest.places {
        disk.flip_bit(block * 4096 + rng.below(4096), rng.below(8) as u8);
    }
    Some(newest.whole == before.whole)
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
