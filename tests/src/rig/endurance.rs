//! Workloads on redundant pools some of whose devices fail or lie: nobody must notice, but for what is counted.

use super::layout::Layout;
use super::machine::{Machine, scan};
use super::model::Operation;
use super::workload::Workload;
use super::{Failure, number_from_environment};
use betree::vdev::{Fault, FaultKind, SimDisk, SimRng};

/// What befalls the devices of one vdev, of which there are as many as it can do without, or fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ill {
    /// A device takes no more writes from some moment on.
    Death,
    /// A device reads nothing any more from some moment on.
    Blindness,
    /// Writes to a device are acknowledged and go nowhere.
    Forgetting,
    /// Writes to a device go elsewhere on it.
    Straying,
    /// Every block of a device has a bit flipped while the pool is closed; labels are left alone.
    Rot,
}

impl Ill {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Death, Self::Blindness, Self::Forgetting, Self::Straying, Self::Rot];

    fn kind(self) -> FaultKind {
        match self {
            Self::Death => FaultKind::WriteError,
            Self::Blindness => FaultKind::ReadError,
            Self::Forgetting => FaultKind::DroppedWrite,
            Self::Straying => FaultKind::MisdirectedWrite,
            Self::Rot => FaultKind::BitFlip,
        }
    }
}

/// How often what is tried.
#[derive(Debug, Clone, Copy)]
pub struct Endurance {
    /// What.
    pub ill: Ill,
    /// Devices.
    pub layout: Layout,
    /// Seed of the first workload; the next ones count up.
    pub seed: u64,
    /// Workloads.
    pub rounds: u64,
}

/// Blocks of a label area.
const LABEL_BLOCKS: u64 = 16;
/// Operations of a workload.
const OPERATIONS: u64 = 70;

impl Endurance {
    /// `rounds` workloads on `layout`, or what `BETREE_MISFORTUNES` (for each layout) and `BETREE_SEED` say.
    #[must_use]
    pub fn new(ill: Ill, layout: Layout, rounds: u64) -> Self {
        Self {
            ill,
            layout,
            seed: number_from_environment("BETREE_SEED").unwrap_or(1),
            rounds: number_from_environment("BETREE_MISFORTUNES").unwrap_or(rounds),
        }
    }

    /// Runs them. How many devices were ill.
    ///
    /// # Errors
    /// The first that is not as if nothing had happened; an ill that never befell a device.
    pub fn run(&self) -> Result<u64, Failure> {
        let mut fired = 0;
        for seed in self.seed..self.seed + self.rounds {
            fired += self.one(seed).map_err(|failure| {
                failure.within(format!("{:?} on {:?}, BETREE_SEED={seed}", self.ill, self.layout))
            })?;
        }
        if fired == 0 && self.rounds > 1 {
            return Err(Failure::new(format!("{:?} never happened", self.ill)));
        }
        Ok(fired)
    }

    fn one(&self, seed: u64) -> Result<u64, Failure> {
        let mut rng = SimRng::new(seed);
        let mut machine = Machine::create(self.layout, rng.next_u64())?;
        let mut workload = Workload::new(self.layout, rng.next_u64());
        let ill = some_of_one_vdev(self.layout, &mut rng);
        let begins = rng.below(OPERATIONS);
        for number in 0..OPERATIONS {
            if number == begins && self.ill != Ill::Rot {
                for disk in &ill {
                    self.arm(&machine.disks()[*disk], &mut rng);
                }
            }
            let operation = match number {
                20 | 50 => Operation::Checkpoint,
                _ => workload.next(machine.timeline().newest()),
            };
            // A device that reads nothing is as good as none: the pool opens without it only when it is told to.
            let closes = matches!(operation, Operation::Reopen | Operation::Kill);
            if closes && number >= begins && self.ill == Ill::Blindness {
                continue;
            }
            let within = |failure: Failure| failure.within(format!("operation {number}, {operation:.120?}"));
            machine.run(&operation).map_err(within)?;
            if number % 6 == 5 {
                look(&machine).map_err(within)?;
            }
        }
        machine.run(&Operation::Sync)?;
        look(&machine)?;
        if self.ill == Ill::Rot {
            machine.run(&Operation::Reopen)?;
            for disk in &ill {
                rot(&machine.disks()[*disk], &mut rng);
            }
            look(&machine)?;
            machine.database()?.verify().map_err(|error| Failure::new(error).within("verify"))?;
        }
        // Once with the devices as they are, once with all of them well: what they missed they lack still.
        for well in [false, true] {
            if well || self.ill == Ill::Blindness {
                machine.disks().iter().for_each(SimDisk::clear_faults);
            }
            machine.run(&Operation::Reopen)?;
            look(&machine)?;
            for _ in 0..5 {
                machine.run(&workload.next(machine.timeline().newest()))?;
            }
            machine.run(&Operation::Sync)?;
            look(&machine)?;
        }
        let fired = match self.ill {
            Ill::Rot => ill.len() as u64,
            _ => {
                let disks = ill.iter().map(|disk| &machine.disks()[*disk]);
                disks.map(|disk| u64::from(disk.fired(self.ill.kind()) > 0)).sum()
            }
        };
        machine.clock().crash();
        Ok(fired)
    }

    fn arm(&self, disk: &SimDisk, rng: &mut SimRng) {
        match self.ill {
            Ill::Death => disk.arm(Fault::WriteError { nth: 1 + rng.below(40), sticky: true }),
            Ill::Blindness => disk.arm(Fault::ReadError { nth: 1 + rng.below(40), sticky: true }),
            Ill::Forgetting => {
                for _ in 0..1 + rng.below(20) {
                    disk.arm(Fault::DroppedWrite { nth: 1 + rng.below(80) });
                }
            }
            Ill::Straying => {
                for _ in 0..1 + rng.below(4) {
                    let block = LABEL_BLOCKS + rng.below(disk.len() / 4096 - 3 * LABEL_BLOCKS);
                    disk.arm(Fault::MisdirectedWrite { nth: 1 + rng.below(80), block });
                }
            }
            Ill::Rot => {}
        }
    }
}

/// Some devices of one vdev that it can do without.
pub(super) fn some_of_one_vdev(layout: Layout, rng: &mut SimRng) -> Vec<usize> {
    let companions = layout.companions();
    let (group, redundancy) = &companions[rng.index(companions.len())];
    let mut disks: Vec<usize> = group.clone().collect();
    rng.shuffle(&mut disks);
    disks.truncate(1 + rng.index((*redundancy).max(1)));
    disks
}

/// Flips a bit of every block of `disk` but those of its labels.
fn rot(disk: &SimDisk, rng: &mut SimRng) {
    for block in LABEL_BLOCKS..disk.len() / 4096 - LABEL_BLOCKS {
        disk.flip_bit(block * 4096 + rng.below(4096), rng.below(8) as u8);
    }
}

/// Reads everything from the devices: it is the newest state.
fn look(machine: &Machine) -> Result<(), Failure> {
    let database = machine.database()?;
    database.drop_cache();
    match scan(database)? == machine.timeline().newest().fingerprint() {
        true => Ok(()),
        false => Err(Failure::new("other contents are read than were written")),
    }
}
