//! Many workloads, each crashed many times.

use super::endurance::some_of_one_vdev;
use super::explore::Explorer;
use super::layout::Layout;
use super::machine::Machine;
use super::workload::Workload;
use super::{Failure, number_from_environment};
use betree::vdev::{Fault, LoggedOperation, SimRng};
use std::fmt;
use std::time::Instant;

/// Of so many workloads one receives snapshots of another pool.
const RECEIVES_EVERY: u64 = 4;

/// How much is tried.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// Devices.
    pub layout: Layout,
    /// Seed of the first workload; the next ones count up.
    pub seed: u64,
    /// States after which no further workload is begun.
    pub states: u64,
    /// Operations of a workload.
    pub operations: u64,
    /// Crashes of a workload.
    pub crashes: u64,
    /// Crashes of each state after a crash.
    pub branches: u64,
    /// Crashes after the first.
    pub depth: u32,
    /// Whether devices that the pool can do without die in each workload, and are back after the crash.
    pub deaths: bool,
    /// Whether the first vdev leaves the pool on the way.
    pub departures: bool,
}

/// What was tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Workloads.
    pub workloads: u64,
    /// Their operations.
    pub operations: u64,
    /// Operations that found no room.
    pub refused: u64,
    /// Vdevs that left.
    pub departures: u64,
    /// Writes and flushes of their disks.
    pub writes: u64,
    /// States after crashes.
    pub states: u64,
    /// Of those, states in which operations were lost that had begun.
    pub lost: u64,
    /// Of those, states that a crash within a recovery left.
    pub in_recovery: u64,
    /// States besides, in which the newest superblock was lost.
    pub rotten: u64,
    /// Milliseconds.
    pub elapsed_ms: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} states ({} with lost operations, {} from crashes within a recovery) and {} rotten superblocks of {} \
             workloads with {} operations ({} refused), {} vdevs that left, and {} writes and flushes in {:.1} s: {} states/s",
            self.states,
            self.lost,
            self.in_recovery,
            self.rotten,
            self.workloads,
            self.operations,
            self.refused,
            self.departures,
            self.writes,
            self.elapsed_ms as f64 / 1000.0,
            self.states * 1000 / self.elapsed_ms.max(1)
        )
    }
}

impl Campaign {
    /// A campaign on `layout` with `states` states, or what `BETREE_CRASH_STATES` (for each layout) and `BETREE_SEED`
    /// say.
    #[must_use]
    pub fn new(layout: Layout, states: u64) -> Self {
        Self {
            layout,
            seed: number_from_environment("BETREE_SEED").unwrap_or(1),
            states: number_from_environment("BETREE_CRASH_STATES").unwrap_or(states),
            operations: 160,
            crashes: 150,
            branches: 4,
            depth: 1,
            deaths: false,
            departures: false,
        }
    }

    /// The same, with devices that die and come back stale.
    #[must_use]
    pub fn with_deaths(self) -> Self {
        Self { deaths: true, ..self }
    }

    /// The same, with a vdev that leaves; half of the crashes are while it does.
    #[must_use]
    pub fn with_departures(self) -> Self {
        Self { departures: true, ..self }
    }

    /// Runs workloads until there are enough states.
    ///
    /// # Errors
    /// The first state that is not as it must be.
    pub fn run(&self) -> Result<Tally, Failure> {
        let started = Instant::now();
        let mut tally = Tally::default();
        while tally.states < self.states {
            let seed = self.seed + tally.workloads;
            self.one(seed, &mut tally)
                .map_err(|failure| failure.within(format!("{:?}, BETREE_SEED={seed}", self.layout)))?;
            tally.workloads += 1;
        }
        tally.elapsed_ms = started.elapsed().as_millis() as u64;
        Ok(tally)
    }

    /// Runs one workload and crashes it.
    fn one(&self, seed: u64, tally: &mut Tally) -> Result<(), Failure> {
        let mut choice = SimRng::new(seed);
        let mut machine = Machine::create(self.layout, choice.next_u64())?;
        let mut workload = Workload::new(self.layout, choice.next_u64());
        if seed % RECEIVES_EVERY == RECEIVES_EVERY - 1 {
            workload = workload.receiving();
        }
        let created = machine.clock().operations();
        let operations = self.operations / 2 + choice.below(self.operations);
        let dying = if self.deaths { some_of_one_vdev(self.layout, &mut choice) } else { Vec::new() };
        let death = choice.below(operations);
        let departure = self.departures.then(|| operations / 2 + choice.below(operations / 2));
        let mut leaving = created..created;
        for number in 0..operations {
            if Some(number) == departure {
                let begun = machine.clock().operations();
                if machine.evacuate()? {
                    leaving = begun..machine.clock().operations();
                }
            }
            if number == death {
                for disk in &dying {
                    let nth = 1 + choice.below(20);
                    machine.disks()[*disk].arm(Fault::WriteError { nth, sticky: true });
                }
            }
            let operation = workload.next(machine.timeline().newest());
            machine.run(&operation).map_err(|failure| failure.within(format!("operation {number}")))?;
            if std::env::var_os("BETREE_VERIFY_EACH").is_some() {
                machine.database()?.verify().map_err(|error| {
                    Failure::new(error).within(format!("verify after operation {number}, {operation:?}"))
                })?;
            }
        }
        let end = machine.clock().operations();
        // The last things written wait for a flush that does not come.
        machine.clock().crash();
        let mut explorer = Explorer::new(choice.next_u64(), self.branches);
        explorer.stale = dying.len();
        let interesting = moments(&machine, created);
        for crash in 0..self.crashes {
            let operation = match crash % 3 {
                _ if crash % 2 == 0 && !leaving.is_empty() => {
                    leaving.start + explorer.rng.below(leaving.end - leaving.start)
                }
                0 if !interesting.is_empty() => interesting[explorer.rng.index(interesting.len())],
                _ => created + explorer.rng.below(end + 1 - created),
            };
            explorer.crash(&machine, operation, self.depth)?;
            if crash % 16 == 0 {
                explorer.rot(&machine, operation, self.depth.min(1))?;
            }
        }
        tally.operations += operations;
        tally.departures += u64::from(!leaving.is_empty());
        tally.refused += machine.refused();
        tally.writes += end;
        tally.states += explorer.states;
        tally.lost += explorer.lost;
        tally.in_recovery += explorer.in_recovery;
        tally.rotten += explorer.rotten;
        Ok(())
    }
}

/// The moments right before flushes: most writes are pending then.
fn moments(machine: &Machine, from: u64) -> Vec<u64> {
    let mut moments = Vec::new();
    for disk in machine.disks() {
        for operation in disk.log() {
            if let LoggedOperation::Flush { number } = operation
                && number > from
            {
                moments.push(number - 1);
            }
        }
    }
    moments.sort_unstable();
    moments.dedup();
    moments
}
