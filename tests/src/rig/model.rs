//! The model: what the datasets hold, and what each operation makes of it.

use super::stores::{self, Store, StoreOperation};
use betree::{MessageAction, StoragePreference};
use std::borrow::Cow;
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
    /// Moves the keys of a range to another tier.
    Migrate {
        /// Name of the dataset.
        dataset: Vec<u8>,
        /// First key.
        low: Vec<u8>,
        /// The key behind the last one.
        high: Vec<u8>,
        /// Where to.
        preference: StoragePreference,
    },
    /// Creates a dataset.
    Create(Vec<u8>),
    /// Renames one.
    Rename(Vec<u8>, Vec<u8>),
    /// Destroys one.
    Destroy(Vec<u8>),
    /// Makes a snapshot of a dataset: dataset, name.
    Snapshot(Vec<u8>, Vec<u8>),
    /// Deletes one.
    DeleteSnapshot(Vec<u8>, Vec<u8>),
    /// Makes the dataset what it was in this snapshot; later ones are deleted.
    Rollback(Vec<u8>, Vec<u8>),
    /// Makes a dataset of a snapshot: dataset, snapshot, name.
    Clone(Vec<u8>, Vec<u8>, Vec<u8>),
    /// Makes a clone the owner of the snapshots that it goes back to.
    Promote(Vec<u8>),
    /// Something with an object store.
    Store(StoreOperation),
    /// Receives a snapshot that was made elsewhere.
    Receive(Arrival),
    /// Gives back what was received in part.
    Abort,
    /// Closes and opens the database.
    Reopen,
    /// The process dies, the machine does not; then opens the database.
    Kill,
}

/// A snapshot that was made in another pool and is received.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The dataset that it is received into.
    pub dataset: Vec<u8>,
    /// The snapshot of it that the changes start from; later ones are lost. Without one it is sent whole, as a new dataset.
    pub base: Option<Vec<u8>>,
    /// The name of the snapshot.
    pub name: Vec<u8>,
    /// What was done in the other pool.
    pub changes: Vec<Change>,
    /// Whether the stream is there to its end.
    pub is_whole: bool,
}

/// The name of a snapshot and what it holds.
pub type Taken = (Vec<u8>, Arc<Entries>);

/// What a dataset or a snapshot holds.
pub type Entries = BTreeMap<Vec<u8>, Value>;

/// All datasets.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct State {
    /// By name.
    pub datasets: BTreeMap<Vec<u8>, Entries>,
    /// The snapshots of those that have some, oldest first. No two of all have one name.
    pub snapshots: BTreeMap<Vec<u8>, Vec<Taken>>,
    /// Of the clones, the name of the snapshot.
    pub origins: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Object stores, by name.
    pub stores: BTreeMap<Vec<u8>, Store>,
}

/// The name of a snapshot in fingerprints and messages.
#[must_use]
pub fn snapshot_name(dataset: &[u8], snapshot: &[u8]) -> Vec<u8> {
    [dataset, b"@", snapshot].concat()
}

pub(super) fn fingerprint_of(name: &[u8], entries: &Entries) -> u64 {
    let sum = entries
        .iter()
        .map(|(key, value)| entry_fingerprint(key, value.fingerprint))
        .fold(0, u64::wrapping_add);
    dataset_fingerprint(name, sum, entries.len() as u64)
}

/// Fingerprint of an entry.
#[must_use]
pub fn entry_fingerprint(key: &[u8], value: u64) -> u64 {
    mixed(xxh3_64(key) ^ value.rotate_left(32))
}

/// Spreads every bit over all others. Fingerprints are added up: with a factor alone, an entry would add the same in whatever
/// dataset it is.
fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ number >> 29).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    number ^ number >> 32
}

/// Fingerprint of a dataset, from the sum over its entries.
#[must_use]
pub fn dataset_fingerprint(name: &[u8], entries: u64, count: u64) -> u64 {
    mixed(xxh3_64(name).wrapping_add(mixed(entries)) ^ count.rotate_left(48))
}

impl State {
    /// A number that is equal for equal states.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.readable().iter().map(|(name, entries)| fingerprint_of(name, entries)).fold(0, u64::wrapping_add)
    }

    /// Everything that can be read, by name.
    fn readable(&self) -> BTreeMap<Vec<u8>, Cow<'_, Entries>> {
        let heads = self.datasets.iter().map(|(name, entries)| (name.clone(), Cow::Borrowed(entries)));
        let snapshots = self.snapshots.iter().flat_map(|(dataset, all)| {
            all.iter().map(move |(name, entries)| (snapshot_name(dataset, name), Cow::Borrowed(&**entries)))
        });
        let stores = self.stores.iter().flat_map(|(name, store)| store.readable(name));
        let stores = stores.map(|(name, entries)| (name, Cow::Owned(entries)));
        heads.chain(snapshots).chain(stores).collect()
    }

    /// The place of a snapshot among those of its dataset.
    fn position(&self, dataset: &[u8], snapshot: &[u8]) -> Option<usize> {
        self.snapshots.get(dataset)?.iter().position(|(name, _)| name == snapshot)
    }

    /// Whether a clone was made of one of `snapshots`.
    fn is_cloned(&self, snapshots: &[Taken]) -> bool {
        snapshots.iter().any(|(name, _)| self.origins.values().any(|origin| origin == name))
    }

    /// A dataset that can be destroyed; `None` when there is no dataset.
    #[must_use]
    pub fn free_dataset(&self) -> Option<Vec<u8>> {
        self.datasets.keys().find(|name| self.allows(&Operation::Destroy(name.to_vec()))).cloned()
    }

    /// Whether `operation` can be done: what it names is there, what it makes is not, and nothing is in its way.
    #[must_use]
    pub fn allows(&self, operation: &Operation) -> bool {
        let known = |name: &Vec<u8>| self.datasets.contains_key(name);
        let all = |name: &Vec<u8>| self.snapshots.get(name).map_or(&[][..], Vec::as_slice);
        match operation {
            Operation::Write { dataset, .. } | Operation::Migrate { dataset, .. } => known(dataset),
            Operation::Batch { changes, .. } => changes.iter().all(|(dataset, _)| known(dataset)),
            Operation::Create(name) => !known(name),
            Operation::Rename(from, to) => known(from) && !known(to),
            Operation::Destroy(name) => known(name) && !self.is_cloned(all(name)),
            Operation::Snapshot(dataset, name) => known(dataset) && self.position(dataset, name).is_none(),
            Operation::DeleteSnapshot(dataset, name) => {
                self.position(dataset, name).is_some_and(|at| !self.is_cloned(&all(dataset)[at..=at]))
            }
            Operation::Rollback(dataset, name) => {
                self.position(dataset, name).is_some_and(|at| !self.is_cloned(&all(dataset)[at + 1..]))
            }
            Operation::Clone(dataset, snapshot, name) => {
                self.position(dataset, snapshot).is_some() && !known(name)
            }
            Operation::Promote(name) => self.origins.contains_key(name),
            Operation::Store(operation) => stores::allows(&self.stores, operation),
            Operation::Receive(Arrival { dataset, base: Some(base), .. }) => {
                self.position(dataset, base).is_some_and(|at| !self.is_cloned(&all(dataset)[at + 1..]))
            }
            Operation::Receive(Arrival { dataset, .. }) => !known(dataset),
            Operation::Abort
            | Operation::Sync
            | Operation::Checkpoint
            | Operation::Settle
            | Operation::Reopen
            | Operation::Kill => true,
        }
    }

    /// This state with what the datasets and stores that are in both hold in `after`; snapshots are those of this one.
    #[must_use]
    pub fn with_heads_of(&self, after: &Self) -> Self {
        let mut mixed = self.clone();
        for (name, entries) in &mut mixed.datasets {
            if let Some(then) = after.datasets.get(name) {
                entries.clone_from(then);
            }
        }
        for (name, store) in &mut mixed.stores {
            if let Some(then) = after.stores.get(name) {
                store.take_head_of(then);
            }
        }
        mixed
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
                if let Some(snapshots) = self.snapshots.remove(from) {
                    self.snapshots.insert(to.clone(), snapshots);
                }
                if let Some(origin) = self.origins.remove(from) {
                    self.origins.insert(to.clone(), origin);
                }
            }
            Operation::Destroy(name) => {
                self.datasets.remove(name);
                self.snapshots.remove(name);
                self.origins.remove(name);
            }
            Operation::Snapshot(dataset, name) => {
                if let Some(entries) = self.datasets.get(dataset) {
                    let snapshot = (name.clone(), Arc::new(entries.clone()));
                    self.snapshots.entry(dataset.clone()).or_default().push(snapshot);
                }
            }
            Operation::DeleteSnapshot(dataset, name) => {
                if let Some(all) = self.snapshots.get_mut(dataset) {
                    all.retain(|(other, _)| other != name);
                }
                self.snapshots.retain(|_, all| !all.is_empty());
            }
            Operation::Rollback(dataset, name) => {
                if let (Some(at), Some(all)) = (self.position(dataset, name), self.snapshots.get_mut(dataset))
                {
                    all.truncate(at + 1);
                    self.datasets.insert(dataset.clone(), Entries::clone(&all[at].1));
                }
            }
            Operation::Clone(dataset, snapshot, name) => {
                if let (Some(at), Some(all)) = (self.position(dataset, snapshot), self.snapshots.get(dataset))
                {
                    self.datasets.insert(name.clone(), Entries::clone(&all[at].1));
                    self.origins.insert(name.clone(), snapshot.clone());
                }
            }
            Operation::Promote(name) => self.promote(name),
            Operation::Store(operation) => stores::apply(&mut self.stores, operation),
            Operation::Receive(arrival) if arrival.is_whole => self.receive(arrival),
            Operation::Receive(_)
            | Operation::Abort
            | Operation::Migrate { .. }
            | Operation::Sync
            | Operation::Checkpoint
            | Operation::Settle
            | Operation::Reopen
            | Operation::Kill => {}
        }
    }

    fn receive(&mut self, arrival: &Arrival) {
        let Arrival { dataset, base, name, changes, .. } = arrival;
        let at = base.as_ref().and_then(|base| self.position(dataset, base));
        let held = match (at, self.snapshots.get_mut(dataset)) {
            (Some(at), Some(all)) => {
                all.truncate(at + 1);
                Entries::clone(&all[at].1)
            }
            _ => Entries::new(),
        };
        self.datasets.insert(dataset.clone(), held);
        changes.iter().for_each(|change| self.change(dataset, change));
        let entries = self.datasets.get(dataset).cloned().unwrap_or_default();
        self.snapshots.entry(dataset.clone()).or_default().push((name.clone(), Arc::new(entries)));
    }

    fn promote(&mut self, name: &[u8]) {
        let Some(origin) = self.origins.get(name).cloned() else { return };
        let names: Vec<Vec<u8>> = self.snapshots.keys().cloned().collect();
        let Some(from) = names.into_iter().find(|from| self.position(from, &origin).is_some()) else {
            return;
        };
        let (Some(at), Some(all)) = (self.position(&from, &origin), self.snapshots.get_mut(&from)) else {
            return;
        };
        let mut moved: Vec<_> = all.drain(..=at).collect();
        moved.append(&mut self.snapshots.remove(name).unwrap_or_default());
        self.snapshots.insert(name.to_vec(), moved);
        self.snapshots.retain(|_, all| !all.is_empty());
        match self.origins.insert(from, origin) {
            Some(above) => drop(self.origins.insert(name.to_vec(), above)),
            None => drop(self.origins.remove(name)),
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
        let (these, those) = (self.readable(), found.readable());
        let names: std::collections::BTreeSet<_> = these.keys().chain(those.keys()).collect();
        for name in names {
            let shown = name.escape_ascii();
            let (left, right) = match (these.get(name), those.get(name)) {
                (Some(left), Some(right)) => (left, right),
                (Some(left), None) => {
                    out.push(format!("dataset {shown} with {} entries is missing", left.len()));
                    continue;
                }
                (None, right) => {
                    let entries = right.map_or(0, |right| right.len());
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
