//! All short sequences of a small set of operations, each crashed in every way.
//!
//! Within the time from one flush to the next every earlier moment leaves only states that the last moment leaves too,
//! and what was acknowledged then is fewer: so each sequence is crashed right before each flush of its last operation, and
//! at its end. What the operations before the last one leave is looked at in the sequence that ends with them.

use super::explore::Explorer;
use super::layout::Layout;
use super::machine::Machine;
use super::model::{Arrival, COUNTS, Change, Operation, State, Value};
use super::stores::{ObjectChange, StoreArrival, StoreOperation};
use super::{Failure, number_from_environment};
use betree::StoragePreference;
use betree::vdev::{LoggedOperation, SimClock, SimRng};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Instant;

/// How much is tried.
#[derive(Debug, Clone, Copy)]
pub struct Exhaustive {
    /// Devices.
    pub layout: Layout,
    /// Order of the sequences, and their configurations.
    pub seed: u64,
    /// States after which no further sequence is begun.
    pub states: u64,
    /// Operations of the longest sequences.
    pub length: usize,
    /// Up to how many sectors that may be lost one by one all cases are tried.
    pub sectors: usize,
    /// Cases of a moment that are tried at the most: nothing, everything, each part alone, all but each, and chosen ones.
    pub cases: u64,
}

/// What was tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried {
    /// Sequences.
    pub sequences: u64,
    /// Sequences that there are.
    pub of: u64,
    /// Cases that were left out to keep within [`Exhaustive::cases`].
    pub left_out: u64,
    /// Moments that were looked at by single sectors.
    pub by_sector: u64,
    /// The same where too many sectors were pending: by blocks of 4 KiB.
    pub by_block: u64,
    /// By whole writes.
    pub by_write: u64,
    /// Moments with more writes than that, of which some states were chosen.
    pub sampled: u64,
    /// States.
    pub states: u64,
    /// Milliseconds.
    pub elapsed_ms: u64,
}

/// States chosen where there are too many.
const SAMPLES: u64 = 64;
/// Of so many states one is recovered, written to and crashed again, inside of the recovery too.
const GO_ON_EVERY: u64 = 64;

/// A place in a pending write: disk, write, sector.
type Sector = (usize, usize, usize);

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} states of {} of {} sequences; moments by sector {}, by block {}, by write {}, sampled {}; {} cases left out; \
             {:.1} s",
            self.states,
            self.sequences,
            self.of,
            self.by_sector,
            self.by_block,
            self.by_write,
            self.sampled,
            self.left_out,
            self.elapsed_ms as f64 / 1000.0
        )
    }
}

/// The part, lost as a whole, that a sector belongs to.
type PartOf = fn(Sector) -> Sector;

impl Exhaustive {
    /// Sequences of three on `layout` until there are `states` states, or what `BETREE_EXHAUSTIVE_STATES` (for each
    /// layout), `BETREE_EXHAUSTIVE_SECTORS`, `BETREE_EXHAUSTIVE_CASES` and `BETREE_SEED` say.
    #[must_use]
    pub fn new(layout: Layout, states: u64) -> Self {
        Self {
            layout,
            seed: number_from_environment("BETREE_SEED").unwrap_or(1),
            states: number_from_environment("BETREE_EXHAUSTIVE_STATES").unwrap_or(states),
            length: 3,
            sectors: number_from_environment("BETREE_EXHAUSTIVE_SECTORS").unwrap_or(12) as usize,
            cases: number_from_environment("BETREE_EXHAUSTIVE_CASES").unwrap_or(64),
        }
    }

    /// Runs sequences, in an order that the seed gives, until there are enough states or no more sequences.
    ///
    /// # Errors
    /// The first state that is not as it must be.
    pub fn run(&self) -> Result<Tried, Failure> {
        let started = Instant::now();
        let mut sequences = self.sequences();
        SimRng::new(self.seed).shuffle(&mut sequences);
        let mut tried = Tried { of: sequences.len() as u64, ..Tried::default() };
        for sequence in &sequences {
            if tried.states >= self.states {
                break;
            }
            let within = |failure: Failure| {
                let sequence: Vec<String> =
                    sequence.iter().map(|operation| format!("{operation:.80?}")).collect();
                failure.within(format!(
                    "{:?}, BETREE_SEED={}, {}",
                    self.layout,
                    self.seed,
                    sequence.join("; ")
                ))
            };
            self.one(sequence, &mut tried).map_err(within)?;
            tried.sequences += 1;
        }
        tried.elapsed_ms = started.elapsed().as_millis() as u64;
        Ok(tried)
    }

    /// All sequences that make sense.
    fn sequences(&self) -> Vec<Vec<Operation>> {
        let mut start = State::default();
        first(self.layout).iter().for_each(|operation| start.apply(operation));
        let mut all = Vec::new();
        let mut last = vec![(Vec::new(), start)];
        for _ in 0..self.length {
            let mut longer = Vec::new();
            for (sequence, state) in &last {
                for operation in alphabet(self.layout).into_iter().filter(|next| state.allows(next)) {
                    let mut state = State::clone(state);
                    state.apply(&operation);
                    let sequence: Vec<Operation> = sequence.iter().cloned().chain([operation]).collect();
                    all.push(sequence.clone());
                    longer.push((sequence, state));
                }
            }
            last = longer;
        }
        all
    }

    fn one(&self, sequence: &[Operation], tried: &mut Tried) -> Result<(), Failure> {
        let shape = self.seed.wrapping_add(tried.sequences);
        let mut machine = Machine::create_with(self.layout, shape, false)?;
        for operation in first(self.layout).iter().chain(&sequence[..sequence.len() - 1]) {
            machine.run(operation)?;
        }
        let start = machine.clock().operations();
        sequence.last().map_or(Ok(()), |operation| machine.run(operation))?;
        let end = machine.clock().operations();
        // What still waits is not written when the machine goes.
        machine.clock().crash();
        let mut moments = vec![end];
        for disk in machine.disks() {
            for operation in disk.log() {
                if let LoggedOperation::Flush { number } = operation
                    && number > start
                {
                    moments.push(number - 1);
                }
            }
        }
        moments.sort_unstable();
        moments.dedup();
        let mut explorer = Explorer::new(shape, 2);
        for moment in moments {
            self.moment(&machine, moment, &mut explorer, tried)
                .map_err(|failure| failure.within(format!("crash after operation {moment}")))?;
        }
        tried.states += explorer.states;
        Ok(())
    }

    fn moment(
        &self,
        machine: &Machine,
        moment: u64,
        explorer: &mut Explorer,
        tried: &mut Tried,
    ) -> Result<(), Failure> {
        let mut sectors: Vec<Sector> = Vec::new();
        for (disk, pending) in machine.disks().iter().enumerate() {
            let of_disk = pending.pending_sectors_at(moment);
            sectors.extend(of_disk.into_iter().map(|(write, sector)| (disk, write, sector)));
        }
        let by: [(&mut u64, PartOf); 3] = [
            (&mut tried.by_sector, |sector| sector),
            (&mut tried.by_block, |(disk, write, sector)| (disk, write, sector / 8)),
            (&mut tried.by_write, |(disk, write, _)| (disk, write, 0)),
        ];
        for (count, part_of) in by {
            let mut parts: Vec<Sector> = sectors.iter().copied().map(part_of).collect();
            parts.dedup();
            if parts.len() > self.sectors {
                continue;
            }
            *count += 1;
            let numbers: HashMap<Sector, usize> =
                parts.iter().enumerate().map(|(number, part)| (*part, number)).collect();
            let cases = self.choose(parts.len() as u32, &mut explorer.rng);
            tried.left_out += (1 << parts.len()) - cases.len() as u64;
            for case in cases {
                let landed = |sector: Sector| {
                    numbers.get(&part_of(sector)).is_some_and(|number| case & (1 << number) != 0)
                };
                self.case(machine, moment, explorer, landed)
                    .map_err(|failure| failure.within(format!("case {case:#b} of {parts:?}")))?;
            }
            return Ok(());
        }
        tried.sampled += 1;
        for _ in 0..SAMPLES {
            explorer.crash(machine, moment, 0)?;
        }
        Ok(())
    }

    /// Which of the cases of `parts` parts are tried.
    fn choose(&self, parts: u32, rng: &mut SimRng) -> BTreeSet<u64> {
        let all = 1_u64 << parts;
        if all <= self.cases {
            return (0..all).collect();
        }
        let mut cases: BTreeSet<u64> =
            (0..parts).flat_map(|part| [1 << part, all - 1 - (1 << part)]).collect();
        cases.extend([0, all - 1]);
        while (cases.len() as u64) < self.cases {
            cases.insert(rng.below(all));
        }
        cases
    }

    fn case(
        &self,
        machine: &Machine,
        moment: u64,
        explorer: &mut Explorer,
        landed: impl Fn(Sector) -> bool,
    ) -> Result<(), Failure> {
        let clock = SimClock::new(explorer.rng.next_u64());
        let image = |(disk, pending): (usize, &betree::vdev::SimDisk)| {
            pending.crash_image_where(moment, &clock, |write, sector| landed((disk, write, sector)))
        };
        let disks = machine.disks().iter().enumerate().map(image).collect();
        let visit = explorer.look(machine, clock, disks, moment)?;
        let depth = u32::from(explorer.states.is_multiple_of(GO_ON_EVERY));
        explorer.go_on(visit, depth)
    }
}

fn put(dataset: &str, key: &str, value: &[u8], preference: StoragePreference) -> Operation {
    let change = Change::Put { key: key.into(), value: Value::new(value), preference };
    Operation::Write { dataset: dataset.into(), change }
}

fn large(byte: u8) -> Vec<u8> {
    (0..17_000_u32).map(|at| (at / 7) as u8 ^ byte).collect()
}

/// What every sequence finds.
fn first(layout: Layout) -> Vec<Operation> {
    let none = StoragePreference::NONE;
    vec![
        Operation::Create(b"alpha".to_vec()),
        Operation::Create(b"beta".to_vec()),
        Operation::Create(COUNTS.to_vec()),
        put("alpha", "k0", b"first", none),
        put("alpha", "k1", &large(1), layout.large_preference()),
        put("beta", "k0", b"second", none),
        Operation::Write { dataset: COUNTS.to_vec(), change: Change::Add { key: b"c".to_vec(), amount: 1 } },
        Operation::Checkpoint,
        put("alpha", "k4", b"third", none),
        Operation::Sync,
    ]
}

/// What comes from another pool: changes of `alpha` since its snapshot, there to their end or not, or a new store.
fn arrivals() -> [Operation; 3] {
    let changes = || {
        let put = Change::Put {
            key: b"k5".into(),
            value: Value::new(b"elsewhere"),
            preference: StoragePreference::NONE,
        };
        vec![put, Change::Delete { key: b"k0".to_vec() }]
    };
    let arrival = |name: &[u8], is_whole| {
        let (dataset, base, name) = (b"alpha".to_vec(), Some(b"s".to_vec()), name.to_vec());
        Operation::Receive(Arrival { dataset, base, name, changes: changes(), is_whole })
    };
    let object = ObjectChange::Put(b"object".to_vec(), Value::new(&large(3)));
    let store = StoreArrival {
        store: b"photos".to_vec(),
        base: None,
        name: b"o".to_vec(),
        changes: vec![object],
        is_whole: true,
    };
    [arrival(b"r", true), arrival(b"cut", false), Operation::Store(StoreOperation::Receive(store))]
}

/// The operations that sequences are made of.
fn alphabet(layout: Layout) -> Vec<Operation> {
    let none = StoragePreference::NONE;
    let write = |change| Operation::Write { dataset: b"alpha".to_vec(), change };
    let batch = |sync, byte: u8| {
        let changes = [b"alpha".to_vec(), b"beta".to_vec()].map(|name| {
            let value = Value::new(&[byte; 300]);
            (name, Change::Put { key: b"k3".to_vec(), value, preference: none })
        });
        let add = (COUNTS.to_vec(), Change::Add { key: b"c".to_vec(), amount: 10 });
        Operation::Batch { changes: changes.into_iter().chain([add]).collect(), sync }
    };
    vec![
        put("alpha", "k2", b"small", none),
        put("alpha", "k2", &large(2), layout.large_preference()),
        put("alpha", "k0", b"another", none),
        write(Change::Delete { key: b"k0".to_vec() }),
        write(Change::RangeDelete { low: b"k1".to_vec(), high: b"k3".to_vec() }),
        write(Change::Upsert { key: b"k0".to_vec(), offset: 2, bytes: b"XY".to_vec() }),
        Operation::Write {
            dataset: COUNTS.to_vec(),
            change: Change::Add { key: b"c".to_vec(), amount: 100 },
        },
        batch(false, b'b'),
        batch(true, b's'),
        Operation::Sync,
        Operation::Checkpoint,
        Operation::Create(b"gamma".to_vec()),
        Operation::Destroy(b"beta".to_vec()),
        Operation::Rename(b"beta".to_vec(), b"delta".to_vec()),
        Operation::Snapshot(b"alpha".to_vec(), b"s".to_vec()),
        Operation::DeleteSnapshot(b"alpha".to_vec(), b"s".to_vec()),
        Operation::Rollback(b"alpha".to_vec(), b"s".to_vec()),
        Operation::Reopen,
    ]
    .into_iter()
    .chain(arrivals())
    .collect()
}
