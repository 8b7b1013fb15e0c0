//! The model: what the datasets hold, and what each operation makes of it.

use betree::{MessageAction, StoragePreference};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Name of the dataset with counters: applying its messages twice shows, which that of others does not.
pub const COUNTS: &[u8] = b"counts";

/// The message action of [`COUNTS`]: a message is a number of 8 bytes that is added to the value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count;

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

impl MessageAction for Count {
    const NAME: &'static str = "rig.count";

    fn apply(&self, _key: &[u8], message: &[u8], value: &mut Option<Vec<u8>>) {
        let sum = value.as_deref().map_or(0, number).wrapping_add(number(message));
        *value = Some(sum.to_le_bytes().to_vec());
    }

    fn merge(&self, _key: &[u8], upper: &[u8], lower: &[u8]) -> Option<Vec<u8>> {
        Some(number(upper).wrapping_add(number(lower)).to_le_bytes().to_vec())
    }
}

/// A value with its fingerprint.
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    bytes: Arc<[u8]>,
    fingerprint: u64,
}

impl Value {
    /// The value of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), fingerprint: xxh3_64(bytes) }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = &self.bytes[..self.bytes.len().min(12)];
        write!(f, "{} bytes {}", self.bytes.len(), head.escape_ascii())
    }
}

/// What is done to one dataset.
#[derive(Debug, Clone)]
pub enum Change {
    /// Sets a value.
    Put {
        /// Of this key.
        key: Vec<u8>,
        /// To this.
        value: Value,
        /// On this tier.
        preference: StoragePreference,
    },
    /// Deletes a key.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
    /// Overwrites bytes of a value.
    Upsert {
        /// Of this key.
        key: Vec<u8>,
        /// From this byte on.
        offset: u32,
        /// With these.
        bytes: Vec<u8>,
    },
    /// Adds to a counter; in the dataset [`COUNTS`] only.
    Add {
        /// The key.
        key: Vec<u8>,
        /// What is added.
        amount: u64,
    },
    /// Deletes all keys from `low` to before `high`.
    RangeDelete {
        /// First key.
        low: Vec<u8>,
        /// The key after the last.
        high: Vec<u8>,
    },
}

/// One step of a workload.
#[derive(Debug, Clone)]
pub enum Operation {
    /// One change.
    Write {
        /// Name of the dataset.
        dataset: Vec<u8>,
        /// The change.
        change: Change,
    },
    /// Several changes, all or none.
    Batch {
        /// Each with its dataset.
        changes: Vec<(Vec<u8>, Change)>,
        /// Whether the commit waits until it is durable.
        sync: bool,
    },
    /// Makes everything durable.
    Sync,
    /// Writes a checkpoint.
    Checkpoint,
    /// Does what the background would do.
    Settle,
    /// Creates a dataset.
    Create(Vec<u8>),
    /// Renames one.
    Rename(Vec<u8>, Vec<u8>),
    /// Destroys one.
    Destroy(Vec<u8>),
    /// Closes and opens the database.
    Reopen,
    /// The process dies, the machine does not; then opens the database.
    Kill,
}

/// All datasets.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct State {
    /// By name.
    pub datasets: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Value>>,
}

/// Fingerprint of an entry.
#[must_use]
pub fn entry_fingerprint(key: &[u8], value: u64) -> u64 {
    (xxh3_64(key) ^ value.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Fingerprint of a dataset, from the sum over its entries.
#[must_use]
pub fn dataset_fingerprint(name: &[u8], entries: u64, count: u64) -> u64 {
    (xxh3_64(name).wrapping_add(entries) ^ count.rotate_left(48)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

impl State {
    /// A number that is equal for equal states.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let of_dataset = |(name, entries): (&Vec<u8>, &BTreeMap<Vec<u8>, Value>)| {
            let sum = entries
                .iter()
                .map(|(key, value)| entry_fingerprint(key, value.fingerprint))
                .fold(0, u64::wrapping_add);
            dataset_fingerprint(name, sum, entries.len() as u64)
        };
        self.datasets.iter().map(of_dataset).fold(0, u64::wrapping_add)
    }

    /// Does `operation`, whose dataset exists.
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Write { dataset, change } => self.change(dataset, change),
            Operation::Batch { changes, .. } => {
                changes.iter().for_each(|(dataset, change)| self.change(dataset, change));
            }
            Operation::Create(name) => {
                self.datasets.insert(name.clone(), BTreeMap::new());
            }
            Operation::Rename(from, to) => {
                if let Some(entries) = self.datasets.remove(from) {
                    self.datasets.insert(to.clone(), entries);
                }
            }
            Operation::Destroy(name) => {
                self.datasets.remove(name);
            }
            Operation::Sync
            | Operation::Checkpoint
            | Operation::Settle
            | Operation::Reopen
            | Operation::Kill => {}
        }
    }

    fn change(&mut self, dataset: &[u8], change: &Change) {
        let Some(entries) = self.datasets.get_mut(dataset) else { return };
        match change {
            Change::Put { key, value, .. } => {
                entries.insert(key.clone(), value.clone());
            }
            Change::Delete { key } => {
                entries.remove(key);
            }
            Change::Upsert { key, offset, bytes } => {
                let mut value = entries.get(key).map_or_else(Vec::new, |value| value.bytes.to_vec());
                let end = *offset as usize + bytes.len();
                value.resize(value.len().max(end), 0);
                value[*offset as usize..end].copy_from_slice(bytes);
                entries.insert(key.clone(), Value::new(&value));
            }
            Change::Add { key, amount } => {
                let before = entries.get(key).map_or(0, |value| number(value.bytes()));
                entries.insert(key.clone(), Value::new(&before.wrapping_add(*amount).to_le_bytes()));
            }
            Change::RangeDelete { low, high } => {
                entries.retain(|key, _| key < low || key >= high);
            }
        }
    }

    /// The first things in which `found` differs from this state, for people.
    #[must_use]
    pub fn differences(&self, found: &Self) -> Vec<String> {
        let mut out = Vec::new();
        let names: std::collections::BTreeSet<_> =
            self.datasets.keys().chain(found.datasets.keys()).collect();
        for name in names {
            let shown = name.escape_ascii();
            let (left, right) = match (self.datasets.get(name), found.datasets.get(name)) {
                (Some(left), Some(right)) => (left, right),
                (Some(left), None) => {
                    out.push(format!("dataset {shown} with {} entries is missing", left.len()));
                    continue;
                }
                (None, right) => {
                    let entries = right.map_or(0, BTreeMap::len);
                    out.push(format!("dataset {shown} with {entries} entries is too many"));
                    continue;
                }
            };
            let keys: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
            for key in keys {
                let (wanted, found) = (left.get(key), right.get(key));
                if wanted != found {
                    let key = key[..key.len().min(16)].escape_ascii();
                    out.push(format!("{shown}/{key}: {wanted:?} expected, {found:?} found"));
                }
            }
        }
        out
    }
}
