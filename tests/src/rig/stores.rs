//! Object stores: what is done to them, the model of it, and the reading of all they hold.

use super::Failure;
use super::machine::{elsewhere, take};
use super::model::{Entries, Operation, State, Value, snapshot_name};
use betree::vdev::SimRng;
use betree::{
    CHUNK_BYTES, Database, Durability, Error, ObjectBatch, ObjectHandle, ObjectStore, ReceiveOptions,
    SendOptions, StoreView,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is done to one object.
#[derive(Debug, Clone)]
pub enum ObjectChange {
    /// Makes an object of these bytes.
    Put(Vec<u8>, Value),
    /// Writes bytes at an offset of an object that is there.
    Write(Vec<u8>, u64, Value),
    /// Deletes an object that is there.
    Delete(Vec<u8>),
    /// Renames an object that is there, also over another one.
    Rename(Vec<u8>, Vec<u8>),
    /// Sets custom metadata of an object that is there: name, key, value.
    SetMetadata(Vec<u8>, Vec<u8>, Vec<u8>),
    /// Copies an object that is there; in no batch.
    Copy(Vec<u8>, Vec<u8>),
    /// Appends to an object that is there; in no batch.
    Append(Vec<u8>, Value),
    /// Gives an object that is there another size; in no batch.
    Truncate(Vec<u8>, u64),
    /// Makes a hole: name, offset, length; in no batch.
    Punch(Vec<u8>, u64, u64),
}

/// One step of a workload on a store.
#[derive(Debug, Clone)]
pub enum StoreOperation {
    /// Creates a store.
    Create(Vec<u8>),
    /// Destroys one.
    Destroy(Vec<u8>),
    /// Renames one.
    Rename(Vec<u8>, Vec<u8>),
    /// Changes one object: the store, the change.
    Change(Vec<u8>, ObjectChange),
    /// Changes several, all or none: the store, the changes, whether the commit waits until it is durable.
    Batch(Vec<u8>, Vec<ObjectChange>, bool),
    /// Makes a snapshot: store, name.
    Snapshot(Vec<u8>, Vec<u8>),
    /// Deletes one.
    DeleteSnapshot(Vec<u8>, Vec<u8>),
    /// Goes back to one.
    Rollback(Vec<u8>, Vec<u8>),
    /// Receives a snapshot that was made elsewhere.
    Receive(StoreArrival),
}

/// A snapshot that was made in another pool and is received.
#[derive(Debug, Clone)]
pub struct StoreArrival {
    /// The store that it is received into.
    pub store: Vec<u8>,
    /// The snapshot of it that the changes start from; later ones are lost. Without one it is sent whole, as a new store.
    pub base: Option<Vec<u8>>,
    /// The name of the snapshot.
    pub name: Vec<u8>,
    /// What was done in the other pool.
    pub changes: Vec<ObjectChange>,
    /// Whether the stream is there to its end.
    pub is_whole: bool,
}

/// An object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    value: Value,
    metadata: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The objects of a store, by name.
pub type Objects = BTreeMap<Vec<u8>, Object>;

/// A store.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Store {
    objects: Objects,
    /// Oldest first.
    snapshots: Vec<(Vec<u8>, Arc<Objects>)>,
}

/// The name of a store in fingerprints and messages.
fn store_name(name: &[u8]) -> Vec<u8> {
    [b"store ", name].concat()
}

/// Objects and metadata as entries of a dataset.
fn flat(objects: &Objects) -> Entries {
    let mut entries = Entries::new();
    for (name, object) in objects {
        entries.insert(name.clone(), object.value.clone());
        for (key, value) in &object.metadata {
            entries.insert([&name[..], b"\0\0", key].concat(), Value::new(value));
        }
    }
    entries
}

impl Store {
    /// Everything that can be read, by name.
    pub(super) fn readable(&self, name: &[u8]) -> Vec<(Vec<u8>, Entries)> {
        let name = store_name(name);
        let snapshots =
            self.snapshots.iter().map(|(snapshot, objects)| (snapshot_name(&name, snapshot), flat(objects)));
        std::iter::once((name.clone(), flat(&self.objects))).chain(snapshots).collect()
    }

    /// About how many bytes it takes on the devices; holes take none.
    pub(super) fn live_bytes(&self) -> usize {
        let of = |object: &Object| object.value.bytes().iter().filter(|byte| **byte != 0).count();
        self.objects.values().map(of).sum()
    }

    fn allows(&self, change: &ObjectChange) -> bool {
        match change {
            ObjectChange::Put(..) => true,
            ObjectChange::Write(name, ..)
            | ObjectChange::Delete(name)
            | ObjectChange::Rename(name, _)
            | ObjectChange::SetMetadata(name, ..)
            | ObjectChange::Copy(name, _)
            | ObjectChange::Append(name, _)
            | ObjectChange::Truncate(name, _)
            | ObjectChange::Punch(name, ..) => self.objects.contains_key(name),
        }
    }

    fn apply(&mut self, change: &ObjectChange) {
        match change {
            ObjectChange::Put(name, value) => {
                let object = Object { value: value.clone(), metadata: BTreeMap::new() };
                self.objects.insert(name.clone(), object);
            }
            ObjectChange::Write(name, offset, value) => self.edit(name, |bytes| {
                let end = *offset as usize + value.bytes().len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*offset as usize..end].copy_from_slice(value.bytes());
            }),
            ObjectChange::Append(name, value) => {
                self.edit(name, |bytes| bytes.extend_from_slice(value.bytes()));
            }
            ObjectChange::Truncate(name, size) => self.edit(name, |bytes| bytes.resize(*size as usize, 0)),
            ObjectChange::Punch(name, offset, length) => self.edit(name, |bytes| {
                let end = bytes.len().min((offset + length) as usize);
                if let Some(hole) = bytes.get_mut(*offset as usize..end) {
                    hole.fill(0);
                }
            }),
            ObjectChange::Delete(name) => drop(self.objects.remove(name)),
            ObjectChange::Rename(from, to) => {
                if let Some(object) = self.objects.remove(from) {
                    self.objects.insert(to.clone(), object);
                }
            }
            ObjectChange::Copy(from, to) => {
                if let Some(object) = self.objects.get(from).cloned() {
                    self.objects.insert(to.clone(), object);
                }
            }
            ObjectChange::SetMetadata(name, key, value) => {
                if let Some(object) = self.objects.get_mut(name) {
                    object.metadata.insert(key.clone(), value.clone());
                }
            }
        }
    }

    fn edit(&mut self, name: &[u8], edit: impl FnOnce(&mut Vec<u8>)) {
        if let Some(object) = self.objects.get_mut(name) {
            let mut bytes = object.value.bytes().to_vec();
            edit(&mut bytes);
            object.value = Value::new(&bytes);
        }
    }

    /// Holds the objects of `other`, with the snapshots that it has.
    pub(super) fn take_head_of(&mut self, other: &Self) {
        self.objects.clone_from(&other.objects);
    }

    /// What it was in `base`, without what came later; a new one without.
    fn back_to(&self, base: &[u8]) -> Option<Self> {
        let snapshots = self.snapshots[..=self.position(base)?].to_vec();
        let objects = snapshots.last().map_or_else(Objects::new, |(_, objects)| Objects::clone(objects));
        Some(Self { objects, snapshots })
    }

    fn position(&self, snapshot: &[u8]) -> Option<usize> {
        self.snapshots.iter().position(|(name, _)| name == snapshot)
    }
}

/// Whether `operation` can be done to `stores`.
pub(super) fn allows(stores: &BTreeMap<Vec<u8>, Store>, operation: &StoreOperation) -> bool {
    match operation {
        StoreOperation::Create(name) => !stores.contains_key(name),
        StoreOperation::Destroy(name) => stores.contains_key(name),
        StoreOperation::Rename(from, to) => stores.contains_key(from) && !stores.contains_key(to),
        StoreOperation::Change(name, change) => stores.get(name).is_some_and(|store| store.allows(change)),
        StoreOperation::Batch(name, changes, _) => stores.get(name).is_some_and(|store| {
            let mut store = store.clone();
            changes.iter().all(|change| {
                let allowed = store.allows(change);
                store.apply(change);
                allowed
            })
        }),
        StoreOperation::Snapshot(name, snapshot) => {
            stores.get(name).is_some_and(|store| store.position(snapshot).is_none())
        }
        StoreOperation::DeleteSnapshot(name, snapshot) | StoreOperation::Rollback(name, snapshot) => {
            stores.get(name).is_some_and(|store| store.position(snapshot).is_some())
        }
        StoreOperation::Receive(StoreArrival { store, base, changes, .. }) => {
            let then = match base {
                None => (!stores.contains_key(store)).then(Store::default),
                Some(base) => stores.get(store).and_then(|store| store.back_to(base)),
            };
            then.is_some_and(|mut then| {
                changes.iter().all(|change| {
                    let allowed = then.allows(change);
                    then.apply(change);
                    allowed
                })
            })
        }
    }
}

/// Does `operation` to the model.
pub(super) fn apply(stores: &mut BTreeMap<Vec<u8>, Store>, operation: &StoreOperation) {
    match operation {
        StoreOperation::Create(name) => drop(stores.insert(name.clone(), Store::default())),
        StoreOperation::Destroy(name) => drop(stores.remove(name)),
        StoreOperation::Rename(from, to) => {
            if let Some(store) = stores.remove(from) {
                stores.insert(to.clone(), store);
            }
        }
        StoreOperation::Change(name, change) => {
            if let Some(store) = stores.get_mut(name) {
                store.apply(change);
            }
        }
        StoreOperation::Batch(name, changes, _) => {
            if let Some(store) = stores.get_mut(name) {
                changes.iter().for_each(|change| store.apply(change));
            }
        }
        StoreOperation::Snapshot(name, snapshot) => {
            if let Some(store) = stores.get_mut(name) {
                store.snapshots.push((snapshot.clone(), Arc::new(store.objects.clone())));
            }
        }
        StoreOperation::DeleteSnapshot(name, snapshot) => {
            if let Some(store) = stores.get_mut(name) {
                store.snapshots.retain(|(other, _)| other != snapshot);
            }
        }
        StoreOperation::Rollback(name, snapshot) => {
            if let Some(store) = stores.get_mut(name)
                && let Some(at) = store.position(snapshot)
            {
                store.snapshots.truncate(at + 1);
                store.objects = Objects::clone(&store.snapshots[at].1);
            }
        }
        StoreOperation::Receive(arrival) if !arrival.is_whole => {}
        StoreOperation::Receive(arrival) => {
            let StoreArrival { store: name, base, name: snapshot, changes, is_whole: _ } = arrival;
            let back = |base: &Vec<u8>| stores.get(name).and_then(|store| store.back_to(base));
            let mut store = base.as_ref().and_then(back).unwrap_or_default();
            changes.iter().for_each(|change| store.apply(change));
            store.snapshots.push((snapshot.clone(), Arc::new(store.objects.clone())));
            stores.insert(name.clone(), store);
        }
    }
}

fn open(store: &ObjectStore, name: &[u8]) -> Result<ObjectHandle, Error> {
    let missing = || Error::NotFound { what: "object", name: name.escape_ascii().to_string() };
    store.open_object(name)?.ok_or_else(missing)
}

/// Does `operation` to the database; whether it says that everything up to it is durable.
pub(super) fn perform(database: &Database, operation: &StoreOperation) -> Result<bool, Error> {
    match operation {
        StoreOperation::Create(name) => database.create_object_store(name).map(|_| false),
        StoreOperation::Destroy(name) => database.destroy_object_store(name).map(|()| false),
        StoreOperation::Rename(from, to) => database.rename_object_store(from, to).map(|()| false),
        StoreOperation::Change(name, change) => {
            change_one(&database.open_object_store(name)?, change).map(|()| false)
        }
        StoreOperation::Batch(name, changes, sync) => {
            let batch = database.open_object_store(name)?.batch();
            let durability = if *sync { Durability::Sync } else { Durability::Buffered };
            changes.iter().fold(batch, add).commit(durability).map(|()| *sync)
        }
        StoreOperation::Snapshot(name, snapshot) => {
            database.open_object_store(name)?.create_snapshot(snapshot).map(|_| true)
        }
        StoreOperation::DeleteSnapshot(name, snapshot) => {
            database.open_object_store(name)?.delete_snapshot(snapshot).map(|()| true)
        }
        StoreOperation::Rollback(name, snapshot) => {
            database.open_object_store(name)?.rollback(snapshot, true).map(|()| true)
        }
        StoreOperation::Receive(arrival) => receive(database, arrival),
    }
}

/// Sends what is to arrive from a pool of its own, whose snapshot before came from here.
fn receive(database: &Database, arrival: &StoreArrival) -> Result<bool, Error> {
    let StoreArrival { store: name, base, name: snapshot, changes, is_whole } = arrival;
    let elsewhere = elsewhere()?;
    let mut stream = Vec::new();
    let from = match base {
        Some(base) => {
            let base = database.open_object_store(name)?.open_snapshot(base)?;
            base.send(None, &SendOptions::default(), &mut stream)?;
            elsewhere.receive(name, &ReceiveOptions::default(), &mut &stream[..])?;
            Some(elsewhere.open_object_store(name)?.open_snapshot(base.name())?)
        }
        None => None,
    };
    let there = elsewhere.open_or_create_object_store(name)?;
    changes.iter().try_for_each(|change| change_one(&there, change))?;
    stream.clear();
    there.create_snapshot(snapshot)?.send(from.as_ref(), &SendOptions::default(), &mut stream)?;
    take(database, name, stream, base.is_some(), *is_whole, changes.len())
}

fn change_one(store: &ObjectStore, change: &ObjectChange) -> Result<(), Error> {
    match change {
        ObjectChange::Put(name, value) => store.put(name, value.bytes()).map(|_| ()),
        ObjectChange::Write(name, offset, value) => {
            open(store, name)?.write_at(value.bytes(), *offset).map(|_| ())
        }
        ObjectChange::Append(name, value) => open(store, name)?.append(value.bytes()).map(|_| ()),
        ObjectChange::Truncate(name, size) => open(store, name)?.truncate(*size),
        ObjectChange::Punch(name, offset, length) => open(store, name)?.punch_hole(*offset, *length),
        ObjectChange::Delete(name) => store.delete_object(name),
        ObjectChange::Rename(from, to) => store.rename_object(from, to),
        ObjectChange::Copy(from, to) => store.copy_object(from, to).map(|_| ()),
        ObjectChange::SetMetadata(name, key, value) => open(store, name)?.set_metadata(key, value),
    }
}

fn add(batch: ObjectBatch, change: &ObjectChange) -> ObjectBatch {
    match change {
        ObjectChange::Put(name, value) => batch.put(name, value.bytes()),
        ObjectChange::Write(name, offset, value) => batch.write_at(name, value.bytes(), *offset),
        ObjectChange::Delete(name) => batch.delete(name),
        ObjectChange::Rename(from, to) => batch.rename(from, to),
        ObjectChange::SetMetadata(name, key, value) => batch.set_metadata(name, key, value),
        ObjectChange::Copy(..)
        | ObjectChange::Append(..)
        | ObjectChange::Truncate(..)
        | ObjectChange::Punch(..) => batch,
    }
}

/// All entries of all stores, by name, as [`Store::readable`] has them.
///
/// # Errors
/// A read fails.
pub(super) fn read_all(database: &Database) -> Result<Vec<(Vec<u8>, Entries)>, Failure> {
    let failed = |error: Error| Failure::new(error).within("scan of object stores");
    let mut all = Vec::new();
    for name in database.object_stores().map_err(failed)? {
        let store = database.open_object_store(&name).map_err(failed)?;
        let name = store_name(&name);
        all.push((name.clone(), flat(&read(&store.view().map_err(failed)?).map_err(failed)?)));
        for info in store.snapshots().map_err(failed)? {
            let view =
                store.open_snapshot(&info.name).and_then(|snapshot| snapshot.view()).map_err(failed)?;
            all.push((snapshot_name(&name, &info.name), flat(&read(&view).map_err(failed)?)));
        }
    }
    Ok(all)
}

fn read(view: &StoreView) -> Result<Objects, Error> {
    let mut objects = Objects::new();
    for object in view.list_objects::<&[u8]>(..) {
        let (name, _) = object?;
        let missing = || Error::NotFound { what: "object", name: name.escape_ascii().to_string() };
        let object = view.open_object(&name)?.ok_or_else(missing)?;
        let metadata = object.iter_metadata().map(|entry| entry.map(|(key, value)| (key, value.to_vec())));
        let metadata = metadata.collect::<Result<_, _>>()?;
        let bytes = object.read_all()?;
        // Chunks end where the object ends, and are what a read gives.
        for chunk in object.read_all_chunks() {
            let (range, chunk) = chunk?;
            if bytes.get(range.start as usize..range.end as usize) != Some(&chunk[..]) {
                let reason = format!("{}: not what a read gives", name.escape_ascii());
                return Err(Error::Corrupt { what: "chunk", reason });
            }
        }
        let value = Value::new(&bytes);
        objects.insert(name, Object { value, metadata });
    }
    Ok(objects)
}

/// Reads everything into a model.
pub(super) fn contents(database: &Database) -> Result<BTreeMap<Vec<u8>, Store>, Failure> {
    let failed = |error: Error| Failure::new(error).within("scan of object stores");
    let mut stores = BTreeMap::new();
    for name in database.object_stores().map_err(failed)? {
        let store = database.open_object_store(&name).map_err(failed)?;
        let objects = read(&store.view().map_err(failed)?).map_err(failed)?;
        let mut snapshots = Vec::new();
        for info in store.snapshots().map_err(failed)? {
            let view =
                store.open_snapshot(&info.name).and_then(|snapshot| snapshot.view()).map_err(failed)?;
            snapshots.push((info.name, Arc::new(read(&view).map_err(failed)?)));
        }
        stores.insert(name, Store { objects, snapshots });
    }
    Ok(stores)
}

const STORES: [&[u8]; 2] = [b"photos", b"alpha"];
const NAMES: [&[u8]; 5] = [b"a", b"a/b", b"a/c", b"b\xff", b"cat.jpg"];

/// A source of operations on stores.
#[derive(Debug)]
pub(super) struct StoreWorkload {
    rng: SimRng,
    written: u64,
    /// Chooses what comes from other pools, when something does.
    arrivals: Option<SimRng>,
}

impl StoreWorkload {
    /// Operations that depend on `seed` alone; `None` for the half of the workloads that have none: among them, by the choice
    /// of the constant, those that found something before there were stores.
    pub fn new(seed: u64) -> Option<Self> {
        let mut rng = SimRng::new(seed ^ 0x000B_1ECF);
        rng.chance(1, 2).then_some(Self { rng, written: 0, arrivals: None })
    }

    /// With snapshots that are received from another pool.
    pub fn receiving(self) -> Self {
        let arrivals = Some(SimRng::new(self.rng.clone().next_u64()));
        Self { arrivals, ..self }
    }

    /// The next operation on `state`; `None` when it is the turn of something else.
    pub fn next(&mut self, state: &State) -> Option<Operation> {
        if !self.rng.chance(1, 2) {
            return None;
        }
        if let Some(arrival) = self.arrival(state) {
            return Some(Operation::Store(StoreOperation::Receive(arrival)));
        }
        let operation = self.operation(state);
        allows(&state.stores, &operation).then_some(Operation::Store(operation))
    }

    fn operation(&mut self, state: &State) -> StoreOperation {
        let name = STORES[self.rng.index(2)].to_vec();
        let Some(store) = state.stores.get(&name) else { return StoreOperation::Create(name) };
        if store.live_bytes() > 100 << 10 {
            let largest = store.objects.iter().max_by_key(|(_, object)| object.value.bytes().len());
            let largest = largest.map_or_else(Vec::new, |(name, _)| name.clone());
            return StoreOperation::Change(name, ObjectChange::Delete(largest));
        }
        let snapshot = store.snapshots.first().map(|(name, _)| name.clone());
        match (self.rng.below(100), snapshot) {
            (0..70, _) => StoreOperation::Change(name, self.change(false)),
            (70..86, _) => {
                let changes = (0..1 + self.rng.below(4)).map(|_| self.change(true)).collect();
                StoreOperation::Batch(name, changes, self.rng.chance(1, 4))
            }
            (86..90, None) => {
                self.written += 1;
                StoreOperation::Snapshot(name, format!("os{}", self.written).into_bytes())
            }
            (86..90, Some(snapshot)) => StoreOperation::DeleteSnapshot(name, snapshot),
            (90..93, Some(snapshot)) => StoreOperation::Rollback(name, snapshot),
            (93..95, _) => StoreOperation::Rename(name, STORES[self.rng.index(2)].to_vec()),
            (95, _) => StoreOperation::Destroy(name),
            _ => StoreOperation::Change(name, self.change(false)),
        }
    }

    /// Something from another pool, now and then.
    fn arrival(&mut self, state: &State) -> Option<StoreArrival> {
        let mut rng = self.arrivals.take()?;
        let chosen = rng.chance(1, 10);
        let arrival = chosen.then(|| {
            let store = STORES[rng.index(2)].to_vec();
            let found = state.stores.get(&store);
            // Without a snapshot there is nothing that the changes could start from.
            let base = match found.map(|found| found.snapshots.last()) {
                Some(newest) => Some(newest?.0.clone()),
                None => None,
            };
            self.written += 1;
            let name = format!("or{}", self.written).into_bytes();
            let mut then =
                found.zip(base.as_ref()).and_then(|(found, base)| found.back_to(base)).unwrap_or_default();
            let mut changes = Vec::new();
            for _ in 0..1 + rng.below(6) {
                let change = self.change(false);
                if then.allows(&change) {
                    then.apply(&change);
                    changes.push(change);
                }
            }
            let is_small = then.live_bytes() <= 100 << 10;
            is_small.then(|| StoreArrival { store, base, name, changes, is_whole: rng.chance(3, 4) })
        });
        self.arrivals = Some(rng);
        arrival.flatten()
    }

    fn change(&mut self, in_batch: bool) -> ObjectChange {
        let name = NAMES[self.rng.index(NAMES.len())].to_vec();
        let other = NAMES[self.rng.index(NAMES.len())].to_vec();
        match self.rng.below(if in_batch { 60 } else { 100 }) {
            0..24 => ObjectChange::Put(name, self.value()),
            24..40 => ObjectChange::Write(name, self.offset(), self.value()),
            40..46 => ObjectChange::Delete(name),
            46..54 => ObjectChange::Rename(name, other),
            54..60 => ObjectChange::SetMetadata(name, b"key".to_vec(), self.value().bytes()[..8].to_vec()),
            60..68 => ObjectChange::Copy(name, other),
            68..76 => ObjectChange::Append(name, self.value()),
            76..84 => ObjectChange::Truncate(name, self.offset()),
            84..90 => ObjectChange::Punch(name, self.offset(), 1 + self.rng.below(2 * CHUNK_BYTES)),
            _ => ObjectChange::Write(name, self.offset(), self.value()),
        }
    }

    /// Places around the ends of chunks.
    fn offset(&mut self) -> u64 {
        let chunk = self.rng.below(3) * CHUNK_BYTES;
        match self.rng.below(3) {
            0 => chunk,
            1 => chunk.saturating_sub(self.rng.below(2000)),
            _ => chunk + self.rng.below(5000),
        }
    }

    fn value(&mut self) -> Value {
        self.written += 1;
        let length = match self.rng.below(20) {
            0..12 => 16 + self.rng.below(600),
            12..18 => 16 + self.rng.below(6000),
            _ => 16 + self.rng.below(30_000),
        };
        let mut bytes = format!("o{:08}:", self.written).into_bytes();
        while bytes.len() < length as usize {
            bytes.extend(self.rng.next_u64().to_le_bytes().map(|byte| byte | 1));
        }
        bytes.truncate(length as usize);
        Value::new(&bytes)
    }
}
