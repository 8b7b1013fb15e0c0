//! Random operations that make sense on a state.

use super::layout::Layout;
use super::model::{Arrival, COUNTS, Change, Operation, State, Value};
use super::stores::StoreWorkload;
use betree::StoragePreference;
use betree::vdev::SimRng;

/// A source of operations.
#[derive(Debug)]
pub struct Workload {
    rng: SimRng,
    layout: Layout,
    /// Number of different keys.
    keys: u64,
    /// Counts values and snapshots, so that no two are alike.
    written: u64,
    stores: Option<StoreWorkload>,
    /// Whether snapshots of another pool are received, too.
    receives: bool,
}

/// Snapshots that there are at one time, at the most.
const SNAPSHOTS_MAX: usize = 3;

/// Names that datasets may have.
const NAMES: [&[u8]; 5] = [b"alpha", b"beta", b"gamma", b"\xff\x00delta", COUNTS];

impl Workload {
    /// Operations that depend on `seed` alone.
    #[must_use]
    pub fn new(layout: Layout, seed: u64) -> Self {
        let mut rng = SimRng::new(seed);
        let keys = [6, 40, 150][rng.index(3)];
        Self { rng, layout, keys, written: 0, stores: StoreWorkload::new(seed), receives: false }
    }

    /// With snapshots that are received from another pool.
    #[must_use]
    pub fn receiving(self) -> Self {
        Self { receives: true, stores: self.stores.map(StoreWorkload::receiving), ..self }
    }

    /// The next operation on `state`.
    pub fn next(&mut self, state: &State) -> Operation {
        if let Some(operation) = self.stores.as_mut().and_then(|stores| stores.next(state)) {
            return operation;
        }
        let present = state.datasets.len();
        if present == 0 {
            return Operation::Create(self.absent_name(state).unwrap_or_else(|| NAMES[0].to_vec()));
        }
        let live: usize = state
            .datasets
            .values()
            .flat_map(|entries| entries.values())
            .map(|value| value.bytes().len())
            .sum();
        if live > self.layout.live_bytes() {
            return match self.rng.below(3) {
                0 if present > 1 => self.destroy(state),
                _ => Operation::Write { dataset: self.name(state), change: self.range_delete() },
            };
        }
        if self.receives && self.rng.chance(1, 12) {
            return self.receive(state);
        }
        match self.rng.below(100) {
            0..64 => {
                let dataset = self.name(state);
                let change = self.change(&dataset);
                Operation::Write { dataset, change }
            }
            64..76 => {
                let count = 1 + self.rng.below(8);
                let mut change = |_| {
                    let name = self.name(state);
                    let change = self.change(&name);
                    (name, change)
                };
                let changes = (0..count).map(&mut change).collect();
                Operation::Batch { changes, sync: self.rng.chance(1, 4) }
            }
            76..82 => Operation::Sync,
            82..88 => self.snapshot_operation(state),
            88..91 => Operation::Checkpoint,
            91 => Operation::Settle,
            99 => self.migrate(state),
            92..94 => match self.absent_name(state) {
                Some(name) => Operation::Create(name),
                None => self.destroy(state),
            },
            94..96 => match (self.name(state), self.absent_name(state)) {
                // The action goes by the name.
                (from, Some(to)) if from != COUNTS && to != COUNTS => Operation::Rename(from, to),
                _ => Operation::Sync,
            },
            96 if present > 1 => self.destroy(state),
            97 => Operation::Reopen,
            98 => Operation::Kill,
            _ => Operation::Sync,
        }
    }

    fn migrate(&mut self, state: &State) -> Operation {
        let dataset = self.name(state);
        let (a, b) = (self.key(), self.key());
        let destinations = self.layout.destinations();
        let preference = destinations[self.rng.index(destinations.len())];
        Operation::Migrate { dataset, low: a.clone().min(b.clone()), high: a.max(b), preference }
    }

    fn destroy(&mut self, state: &State) -> Operation {
        let wanted = Operation::Destroy(self.name(state));
        let free = || state.free_dataset().map_or(Operation::Sync, Operation::Destroy);
        if state.allows(&wanted) { wanted } else { free() }
    }

    /// Something with snapshots; a sync where it makes no sense.
    fn snapshot_operation(&mut self, state: &State) -> Operation {
        let dataset = self.name(state);
        let all = state.snapshots.get(&dataset).map_or(&[][..], Vec::as_slice);
        let some = |rng: &mut SimRng| (!all.is_empty()).then(|| all[rng.index(all.len())].0.clone());
        let in_all: usize = state.snapshots.values().map(Vec::len).sum();
        let operation = match (self.rng.below(10), some(&mut self.rng)) {
            (0..5, _) if in_all < SNAPSHOTS_MAX => {
                self.written += 1;
                Operation::Snapshot(dataset, format!("s{}", self.written).into_bytes())
            }
            (5, Some(snapshot)) => Operation::Rollback(dataset, snapshot),
            (6, Some(snapshot)) if dataset != COUNTS => match self.absent_name(state) {
                Some(name) if name != COUNTS => Operation::Clone(dataset, snapshot, name),
                _ => Operation::DeleteSnapshot(dataset, snapshot),
            },
            (7, _) if state.origins.contains_key(&dataset) => Operation::Promote(dataset),
            (_, Some(snapshot)) => Operation::DeleteSnapshot(dataset, snapshot),
            _ => Operation::Sync,
        };
        if state.allows(&operation) { operation } else { Operation::Sync }
    }

    /// Something with what comes from another pool; a sync where it makes no sense.
    fn receive(&mut self, state: &State) -> Operation {
        let is_whole = self.rng.chance(3, 4);
        if !is_whole && self.rng.chance(1, 3) {
            return Operation::Abort;
        }
        let all: Vec<(Vec<u8>, Vec<u8>)> = state
            .snapshots
            .iter()
            .filter(|(dataset, _)| *dataset != COUNTS)
            .flat_map(|(dataset, all)| all.iter().map(|(name, _)| (dataset.clone(), name.clone())))
            .collect();
        let is_full = all.len() >= SNAPSHOTS_MAX;
        let base = (!all.is_empty() && (is_full || self.rng.chance(2, 3)))
            .then(|| all[self.rng.index(all.len())].clone());
        self.written += 1;
        let name = format!("r{}", self.written).into_bytes();
        let count = 1 + self.rng.below(12);
        let (dataset, base) = match (base, self.absent_name(state)) {
            (Some((dataset, base)), _) => (dataset, Some(base)),
            (None, Some(absent)) if absent != COUNTS => (absent, None),
            _ => return Operation::Sync,
        };
        let changes = (0..count).map(|_| self.change(&dataset)).collect();
        let operation = Operation::Receive(Arrival { dataset, base, name, changes, is_whole });
        if state.allows(&operation) { operation } else { Operation::Sync }
    }

    fn name(&mut self, state: &State) -> Vec<u8> {
        let index = self.rng.index(state.datasets.len());
        state.datasets.keys().nth(index).cloned().unwrap_or_default()
    }

    fn absent_name(&mut self, state: &State) -> Option<Vec<u8>> {
        let absent: Vec<&[u8]> =
            NAMES.into_iter().filter(|name| !state.datasets.contains_key(*name)).collect();
        (!absent.is_empty()).then(|| absent[self.rng.index(absent.len())].to_vec())
    }

    fn key(&mut self) -> Vec<u8> {
        let number = self.rng.below(self.keys);
        match number {
            0 => Vec::new(),
            // A few that are longer than what indexes and filters keep of a key.
            number if number % 16 == 5 => {
                let mut key = format!("key{:03}", number).into_bytes();
                key.resize(40 + (number as usize * 37) % 700, b'.');
                key
            }
            number => format!("key{number:03}").into_bytes(),
        }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        self.written += 1;
        let mut bytes = format!("{:016x}", self.rng.next_u64()).into_bytes();
        let head = format!("v{}:", self.written).into_bytes();
        bytes.splice(0..0, head);
        // Half of the values compress, half do not.
        if self.rng.chance(1, 2) {
            bytes.resize(length, b'x');
        } else {
            while bytes.len() < length {
                bytes.extend(self.rng.next_u64().to_le_bytes());
            }
            bytes.truncate(length);
        }
        bytes
    }

    fn change(&mut self, dataset: &[u8]) -> Change {
        let key = self.key();
        match self.rng.below(100) {
            0..60 => {
                let length = match self.rng.below(100) {
                    0..4 => 0,
                    4..50 => 8 + self.rng.below(100),
                    50..85 => 100 + self.rng.below(2000),
                    85..95 => 2000 + self.rng.below(12_000),
                    _ => (16 << 10) + self.rng.below(50 << 10),
                };
                let large = length >= 16 << 10;
                let preference = if large { self.layout.large_preference() } else { StoragePreference::NONE };
                Change::Put { key, value: Value::new(&self.bytes(length as usize)), preference }
            }
            60..78 => Change::Delete { key },
            78..95 if dataset == COUNTS => Change::Add { key, amount: 1 + self.rng.below(1000) },
            78..95 => {
                // Some are patches of large values, or make one.
                let (length, offset) = match self.rng.below(8) {
                    0..2 => (self.rng.below(3000) as usize, self.rng.below(40_000) as u32),
                    _ => (self.rng.below(60) as usize, self.rng.below(300) as u32),
                };
                Change::Upsert { key, offset, bytes: self.bytes(length) }
            }
            _ => self.range_delete(),
        }
    }

    fn range_delete(&mut self) -> Change {
        let (mut low, mut high) = (self.key(), self.key());
        if low > high {
            std::mem::swap(&mut low, &mut high);
        }
        Change::RangeDelete { low, high }
    }
}
