//! The batches of a seed, and the state after any number of them.

use crate::rig::{Change, Operation, State, Value};
use betree::StoragePreference;
use betree::vdev::SimRng;

/// Datasets that batches write to; the first also holds the counter.
pub const DATASETS: [&[u8]; 2] = [b"left", b"right"];
/// Key of the number of batches.
pub const COUNTER: &[u8] = b"# batches";
/// Number of different keys in a dataset.
const KEYS: u64 = 1200;

/// The state after some batches of one seed.
#[derive(Debug, Clone)]
pub struct Numbers {
    seed: u64,
    count: u64,
    state: State,
}

impl Numbers {
    /// The state before the first batch.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = State::default();
        for name in DATASETS {
            state.apply(&Operation::Create(name.to_vec()));
        }
        Self { seed, count: 0, state }
    }

    /// Batches done.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The state after them.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Does batches until `count` are done.
    pub fn advance(&mut self, count: u64) {
        while self.count < count {
            self.count += 1;
            let changes = batch(self.seed, self.count);
            self.state.apply(&Operation::Batch { changes, sync: false });
        }
    }
}

/// The changes of batch `number`, counted from 1, with their datasets.
#[must_use]
pub fn batch(seed: u64, number: u64) -> Vec<(Vec<u8>, Change)> {
    let mut rng = SimRng::new(seed.wrapping_mul(0x9E37_79B9).wrapping_add(number));
    let count = 1 + rng.below(5);
    let mut changes: Vec<_> = (0..count)
        .map(|_| {
            let dataset = DATASETS[rng.index(2)].to_vec();
            (dataset, change(number, &mut rng))
        })
        .collect();
    let (key, value) = (COUNTER.to_vec(), Value::new(&number.to_be_bytes()));
    let counter = Change::Put { key, value, preference: StoragePreference::NONE };
    changes.push((DATASETS[0].to_vec(), counter));
    changes
}

fn key(number: u64) -> Vec<u8> {
    format!("key {number:06}").into_bytes()
}

fn change(number: u64, rng: &mut SimRng) -> Change {
    // Neighbours are hot for a while, as time goes on others.
    let place = if rng.chance(1, 2) { rng.below(KEYS) } else { (number / 4 + rng.below(30)) % KEYS };
    match rng.below(100) {
        0..70 => {
            let (length, preference) = match rng.below(100) {
                0..60 => (10 + rng.below(200), StoragePreference::NONE),
                60..95 => (200 + rng.below(4000), StoragePreference::NONE),
                // Values of their own extents; in pools of two tiers on the second one.
                _ => ((40 << 10) + rng.below(60 << 10), StoragePreference::FAST),
            };
            let mut bytes = format!("batch {number}: ").into_bytes();
            let fill = rng.next_u64() as u8;
            bytes.resize(length as usize, fill);
            Change::Put { key: key(place), value: Value::new(&bytes), preference }
        }
        70..82 => Change::Delete { key: key(place) },
        82..96 => {
            Change::Upsert { key: key(place), offset: rng.below(80) as u32, bytes: vec![number as u8; 12] }
        }
        _ => Change::RangeDelete { low: key(place), high: key(place + 1 + rng.below(60)) },
    }
}
