//! A database on simulated disks with its model in lockstep.

use super::Failure;
use super::layout::Layout;
use super::model::{
    Arrival, COUNTS, Change, Count, Operation, State, Value, dataset_fingerprint, entry_fingerprint,
    fingerprint_of, snapshot_name,
};
use super::stores;
use super::timeline::Timeline;
use betree::base::ids::VdevId;
use betree::pool::PoolError;
use betree::vdev::{SimClock, SimDisk};
use betree::{
    Batch, Database, DatabaseConfiguration, Dataset, DatasetView, Durability, Entries, Error, ErrorKind,
    EvacuationState, LeafVdev, ReceiveOptions, SendOptions, Snapshot, StoragePoolConfiguration,
    StoragePreference, StreamError, StreamKind, TierConfiguration,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use xxhash_rust::xxh3::xxh3_64;

/// A database in use, the disks below it and the timeline beside it.
#[derive(Debug)]
pub struct Machine {
    layout: Layout,
    /// Seed of the configuration.
    shape: u64,
    clock: SimClock,
    disks: Vec<SimDisk>,
    pulled: Arc<AtomicBool>,
    database: Option<Database>,
    timeline: Timeline,
    /// Operations that found no room.
    refused: u64,
}

/// A view of the dataset `name`, whatever its action.
///
/// # Errors
/// There is none.
pub fn view(database: &Database, name: &[u8]) -> Result<DatasetView, Error> {
    if name == COUNTS {
        return Ok(database.open_custom_dataset::<Count>(name, StoragePreference::NONE)?.view());
    }
    Ok(database.open_dataset(name)?.view())
}

/// Reads everything: the fingerprint of the state that the database holds.
///
/// # Errors
/// A read fails, or a scan is not in order.
pub fn scan(database: &Database) -> Result<u64, Failure> {
    let failed = |error: Error| Failure::new(error).within("scan");
    let mut fingerprint = 0_u64;
    for name in database.datasets().map_err(failed)? {
        let dataset = view(database, &name).map_err(failed)?;
        fingerprint = fingerprint.wrapping_add(scan_one(&name, dataset.range::<&[u8]>(..))?);
        for snapshot in snapshots(database, &name).map_err(failed)? {
            let name = snapshot_name(&name, &snapshot.name());
            fingerprint = fingerprint.wrapping_add(scan_one(&name, snapshot.range::<&[u8]>(..))?);
        }
    }
    for (name, entries) in stores::read_all(database)? {
        fingerprint = fingerprint.wrapping_add(fingerprint_of(&name, &entries));
    }
    Ok(fingerprint)
}

fn scan_one(name: &[u8], entries: Entries) -> Result<u64, Failure> {
    let (mut sum, mut count) = (0_u64, 0);
    let mut last: Option<Vec<u8>> = None;
    for entry in entries {
        let (key, value) = entry.map_err(|error| Failure::new(error).within("scan"))?;
        if last.as_ref().is_some_and(|last| last.as_slice() >= &key[..]) {
            return Err(Failure::new(format!("scan: key {} is out of order", key.escape_ascii())));
        }
        last = Some(key.to_vec());
        sum = sum.wrapping_add(entry_fingerprint(&key, xxh3_64(&value)));
        count += 1;
    }
    Ok(dataset_fingerprint(name, sum, count))
}

/// All snapshots of the dataset `name`, open.
fn snapshots(database: &Database, name: &[u8]) -> Result<Vec<Snapshot>, Error> {
    fn all<M>(dataset: &Dataset<M>) -> Result<Vec<Snapshot>, Error> {
        dataset.snapshots()?.iter().map(|info| dataset.open_snapshot(&info.name)).collect()
    }
    if name == COUNTS {
        return all(&database.open_custom_dataset::<Count>(name, StoragePreference::NONE)?);
    }
    all(&database.open_dataset(name)?)
}

/// Reads everything into a model.
pub(crate) fn contents(database: &Database) -> Result<State, Failure> {
    let failed = |error: Error| Failure::new(error).within("scan");
    let mut state = State::default();
    for name in database.datasets().map_err(failed)? {
        let dataset = view(database, &name).map_err(failed)?;
        let read = |all: Entries| -> Result<BTreeMap<Vec<u8>, Value>, Failure> {
            let plain = |entry: Result<(betree::Value, betree::Value), Error>| {
                entry.map(|(key, value)| (key.to_vec(), Value::new(&value))).map_err(failed)
            };
            all.map(plain).collect()
        };
        for snapshot in snapshots(database, &name).map_err(failed)? {
            let entries = (snapshot.name(), Arc::new(read(snapshot.range::<&[u8]>(..))?));
            state.snapshots.entry(name.clone()).or_default().push(entries);
        }
        state.datasets.insert(name, read(dataset.range::<&[u8]>(..))?);
    }
    state.stores = stores::contents(database)?;
    Ok(state)
}

impl Machine {
    /// A new database on fresh disks that keep their history.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(layout: Layout, seed: u64) -> Result<Self, Failure> {
        Self::create_with(layout, seed, true)
    }

    /// As [`Machine::create`]; with `poison`, what is freed is filled with garbage.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create_with(layout: Layout, seed: u64, poison: bool) -> Result<Self, Failure> {
        let clock = SimClock::new(seed);
        let disks = layout.disks(&clock);
        disks.iter().for_each(SimDisk::keep_history);
        disks.iter().filter(|_| poison).for_each(SimDisk::poison_discards);
        let pulled = Arc::new(AtomicBool::new(false));
        let configuration = layout.configuration(&disks, &pulled, seed);
        let database = Database::create_with(configuration, false)
            .map_err(|error| Failure::new(error).within("create"))?;
        let mut timeline = Timeline::new(Arc::default());
        timeline.acknowledge(clock.operations());
        let database = Some(database);
        Ok(Self { layout, shape: seed, clock, disks, pulled, database, timeline, refused: 0 })
    }

    /// The database that `disks` hold, whose states are `timeline` so far.
    ///
    /// # Errors
    /// It does not open.
    pub fn open(
        layout: Layout,
        shape: u64,
        clock: SimClock,
        disks: Vec<SimDisk>,
        timeline: Timeline,
    ) -> Result<Self, Error> {
        let pulled = Arc::new(AtomicBool::new(false));
        let database = Some(open(layout, &disks, &pulled, shape)?);
        Ok(Self { layout, shape, clock, disks, pulled, database, timeline, refused: 0 })
    }

    /// Its devices' layout.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Seed of its configuration.
    #[must_use]
    pub fn shape(&self) -> u64 {
        self.shape
    }

    /// The clock of its disks.
    #[must_use]
    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// Its disks.
    #[must_use]
    pub fn disks(&self) -> &[SimDisk] {
        &self.disks
    }

    /// The states so far.
    #[must_use]
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Starts over with the timeline, at `state`, which is durable now.
    pub fn restart_timeline(&mut self, state: Arc<State>) {
        self.timeline = Timeline::new(state);
    }

    /// How many operations found no room.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The database.
    ///
    /// # Errors
    /// It was killed.
    pub fn database(&self) -> Result<&Database, Failure> {
        self.database.as_ref().ok_or_else(|| Failure::new("there is no database"))
    }

    /// Does `operation` to the database and the model.
    ///
    /// # Errors
    /// Anything but a lack of room, which must leave the database as it was.
    pub fn run(&mut self, operation: &Operation) -> Result<(), Failure> {
        match self.attempt(operation) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::OutOfSpace || self.has_no_tier(operation, &error) => {
                self.refused += 1;
                Ok(())
            }
            Err(error) => Err(Failure::new(error).within(format!("{operation:?}"))),
        }
    }

    /// Whether `error` says that `operation` moves something to a tier whose only vdev left.
    fn has_no_tier(&self, operation: &Operation, error: &Error) -> bool {
        let has_left = |database: &Database| !database.departed_vdevs().is_empty();
        matches!(operation, Operation::Migrate { .. })
            && error.kind() == ErrorKind::InvalidArgument
            && self.database.as_ref().is_some_and(has_left)
    }

    /// Does `operation` to the database, and to the model when the database did it.
    ///
    /// # Errors
    /// What the database reports.
    pub fn attempt(&mut self, operation: &Operation) -> Result<(), Error> {
        let begun = self.clock.operations();
        match operation {
            Operation::Reopen => {
                if let Some(database) = self.database.take() {
                    database.close()?;
                }
                self.timeline.acknowledge(self.clock.operations());
                self.start()?;
                return Ok(());
            }
            Operation::Kill => {
                self.kill();
                self.start()?;
                let found = match self.database.as_ref().map(scan) {
                    Some(Ok(found)) => found,
                    // What cannot be read now is reported by the comparison that follows every run.
                    _ => return Ok(()),
                };
                let steps = self.timeline.steps();
                let legal = self.timeline.legal(begun);
                if let Some(step) = legal.rev().find(|step| steps[*step].fingerprint == found) {
                    let state = Arc::clone(&steps[step].state);
                    self.timeline.push(begun, Operation::Kill, state);
                    self.timeline.acknowledge(self.clock.operations());
                    return Ok(());
                }
                let newest = self.timeline.newest();
                let differences = self.database.as_ref().and_then(|database| contents(database).ok());
                let differences = differences.map(|found| newest.differences(&found)).unwrap_or_default();
                return Err(Error::Corrupt {
                    what: "state after a killed process",
                    reason: differences.join("; "),
                });
            }
            _ => {}
        }
        let mut state = State::clone(self.timeline.newest());
        state.apply(operation);
        // Before it runs: a crash inside of it may leave what it does.
        self.timeline.push(begun, operation.clone(), Arc::new(state));
        let Some(database) = &self.database else { return Err(Error::Closed) };
        let done = perform(database, operation);
        match done {
            Ok(durable) => {
                if durable {
                    self.timeline.acknowledge(self.clock.operations());
                }
                Ok(())
            }
            Err(error) => {
                // After a device failed it may be in the log or not.
                if matches!(error, Error::OutOfSpace { .. }) {
                    self.timeline.take_back();
                }
                Err(error)
            }
        }
    }

    fn start(&mut self) -> Result<(), Error> {
        self.pulled = Arc::new(AtomicBool::new(false));
        self.database = Some(open(self.layout, &self.disks, &self.pulled, self.shape)?);
        self.timeline.acknowledge(self.clock.operations());
        Ok(())
    }

    /// The first vdev leaves the pool, if the others have room for what it holds; whether it did.
    ///
    /// # Errors
    /// Anything but a lack of room.
    pub fn evacuate(&mut self) -> Result<bool, Failure> {
        let database = self.database()?;
        match database.evacuate(VdevId(0), "rig", |_| true) {
            Ok(status) if status.state == EvacuationState::Finished => {
                self.timeline.acknowledge(self.clock.operations());
                Ok(true)
            }
            Ok(status) => Err(Failure::new(format!("{status:?}")).within("evacuate")),
            Err(error) if error.kind() == ErrorKind::OutOfSpace => {
                self.refused += 1;
                Ok(false)
            }
            Err(error) => Err(Failure::new(error).within("evacuate")),
        }
    }

    /// The process dies; the disks see nothing of it any more.
    pub fn kill(&mut self) {
        self.pulled.store(true, Ordering::Release);
        self.database = None;
        for disk in self.disks.iter().filter(|disk| betree::vdev::BlockDevice::is_volatile(&disk.device())) {
            // Its memory is gone with it.
            disk.overwrite(0, &vec![0; disk.len() as usize]);
        }
    }
}

/// Opens what `disks` hold: with all of them, or without the first vdev when it left, whether its labels are still there, zero, or
/// half of them.
fn open(layout: Layout, disks: &[SimDisk], pulled: &Arc<AtomicBool>, shape: u64) -> Result<Database, Error> {
    match Database::open_with(layout.configuration(disks, pulled, shape)) {
        Err(Error::Pool(
            PoolError::Removed { .. } | PoolError::BlankDevice { .. } | PoolError::NotAPool { .. },
        )) => Database::open_with(layout.configuration_behind(1, disks, pulled, shape)),
        opened => opened,
    }
}

/// Does `operation`; whether it says that everything up to it is durable.
pub(super) fn perform(database: &Database, operation: &Operation) -> Result<bool, Error> {
    match operation {
        Operation::Write { dataset: name, change } => {
            if name == COUNTS {
                write(&database.open_custom_dataset::<Count>(name, StoragePreference::NONE)?, change)?;
            } else if let Change::Upsert { key, offset, bytes } = change {
                database.open_dataset(name)?.upsert(key, bytes, *offset)?;
            } else {
                write(&database.open_dataset(name)?, change)?;
            }
            Ok(false)
        }
        Operation::Batch { changes, sync } => {
            let mut batch = database.batch();
            for (name, change) in changes {
                batch = add(batch, database, name, change)?;
            }
            batch.commit(if *sync { Durability::Sync } else { Durability::Buffered })?;
            Ok(*sync)
        }
        Operation::Sync => database.sync().map(|()| true),
        Operation::Checkpoint => database.checkpoint().map(|()| true),
        Operation::Settle => database.settle().map(|()| false),
        Operation::Migrate { dataset: name, low, high, preference } => {
            if name == COUNTS {
                let dataset = database.open_custom_dataset::<Count>(name, StoragePreference::NONE)?;
                dataset.migrate_range(low.as_slice()..high.as_slice(), *preference)?;
            } else {
                database.open_dataset(name)?.migrate_range(low.as_slice()..high.as_slice(), *preference)?;
            }
            Ok(false)
        }
        Operation::Create(name) if name == COUNTS => {
            database.create_custom_dataset::<Count>(name, StoragePreference::NONE).map(|_| false)
        }
        Operation::Create(name) => database.create_dataset(name).map(|_| false),
        Operation::Rename(from, to) => match database.rename_dataset(from, to) {
            Err(error) if error.kind() == ErrorKind::Busy && abort(database)? > 0 => {
                database.rename_dataset(from, to).map(|()| false)
            }
            done => done.map(|()| false),
        },
        Operation::Destroy(name) => match database.destroy_dataset(name) {
            Err(error) if error.kind() == ErrorKind::Busy && abort(database)? > 0 => {
                database.destroy_dataset(name).map(|()| false)
            }
            done => done.map(|()| false),
        },
        Operation::Snapshot(..)
        | Operation::DeleteSnapshot(..)
        | Operation::Rollback(..)
        | Operation::Clone(..)
        | Operation::Promote(_) => {
            // What was received in part may be in the way; the model knows nothing of it.
            match perform_on_snapshots(database, operation) {
                Err(error) if error.kind() == ErrorKind::Busy && abort(database)? > 0 => {
                    perform_on_snapshots(database, operation).map(|()| true)
                }
                done => done.map(|()| true),
            }
        }
        Operation::Store(operation) => match stores::perform(database, operation) {
            Err(error) if error.kind() == ErrorKind::Busy && abort(database)? > 0 => {
                stores::perform(database, operation)
            }
            done => done,
        },
        Operation::Receive(arrival) => receive(database, arrival),
        Operation::Abort => abort(database).map(|_| false),
        Operation::Reopen | Operation::Kill => Ok(false),
    }
}

/// Gives back what was received in part; returns of how many streams.
pub(super) fn abort(database: &Database) -> Result<usize, Error> {
    let unfinished = database.unfinished_receives()?;
    for one in &unfinished {
        match one.names.first() {
            Some((StreamKind::ObjectStore, name)) => database.abort_store_receive(name)?,
            Some((_, name)) => database.abort_receive(name)?,
            None => {}
        }
    }
    Ok(unfinished.len())
}

/// Sends what is to arrive from a pool of its own, whose snapshot before came from here.
fn receive(database: &Database, arrival: &Arrival) -> Result<bool, Error> {
    let Arrival { dataset: name, base, name: snapshot, changes, is_whole } = arrival;
    let elsewhere = elsewhere()?;
    let mut stream = Vec::new();
    let from = match base {
        Some(base) => {
            let base = database.open_dataset(name)?.open_snapshot(base)?;
            base.send(None, &SendOptions::default(), &mut stream)?;
            elsewhere.receive(name, &ReceiveOptions::default(), &mut &stream[..])?;
            Some(elsewhere.open_dataset(name)?.open_snapshot(base.name())?)
        }
        None => None,
    };
    let there = elsewhere.open_or_create_dataset(name)?;
    for change in changes {
        match change {
            Change::Upsert { key, offset, bytes } => there.upsert(key, bytes, *offset)?,
            change => write(&there, change)?,
        }
    }
    stream.clear();
    there.create_snapshot(snapshot)?.send(from.as_ref(), &SendOptions::default(), &mut stream)?;
    take(database, name, stream, base.is_some(), *is_whole, changes.len())
}

/// A pool of its own in memory.
pub(super) fn elsewhere() -> Result<Database, Error> {
    let tier = TierConfiguration::new(vec![LeafVdev::memory(16 << 20).into()]);
    Database::create_with(
        DatabaseConfiguration {
            storage: StoragePoolConfiguration { tiers: vec![tier], ..StoragePoolConfiguration::default() },
            background_threads: Some(0),
            segment_size: 1 << 19,
            memtable_size: 64 << 10,
            cache_size: 1 << 20,
            ..DatabaseConfiguration::default()
        },
        false,
    )
}

/// Receives `stream`, or what an interruption leaves of it: where that is, `number` says.
pub(super) fn take(
    database: &Database,
    name: &[u8],
    mut stream: Vec<u8>,
    force: bool,
    is_whole: bool,
    number: usize,
) -> Result<bool, Error> {
    if !is_whole {
        // Without its end, without that of the last section, or in the middle of its entries.
        let cut = [48, 84, 1 + stream.len() / 3][number % 3];
        stream.truncate(stream.len() - cut);
    }
    match database.receive(name, &ReceiveOptions { force }, &mut &stream[..]) {
        Ok(_) if is_whole => Ok(true),
        Ok(_) => Err(Error::Corrupt { what: "stream", reason: String::from("it ends early, and was taken") }),
        Err(Error::Stream(StreamError::Truncated { .. })) if !is_whole => Ok(false),
        Err(error) => {
            if error.kind() == ErrorKind::OutOfSpace {
                abort(database)?;
            }
            Err(error)
        }
    }
}

fn perform_on_snapshots(database: &Database, operation: &Operation) -> Result<(), Error> {
    let name = match operation {
        Operation::Snapshot(dataset, _)
        | Operation::DeleteSnapshot(dataset, _)
        | Operation::Rollback(dataset, _)
        | Operation::Clone(dataset, ..)
        | Operation::Promote(dataset) => dataset,
        _ => return Ok(()),
    };
    if name == COUNTS {
        let dataset = database.open_custom_dataset::<Count>(name, StoragePreference::NONE)?;
        return perform_on_dataset(&dataset, operation);
    }
    let dataset = database.open_dataset(name)?;
    if let Operation::Clone(_, snapshot, name) = operation {
        return database.clone_snapshot(&dataset.open_snapshot(snapshot)?, name).map(|_| ());
    }
    perform_on_dataset(&dataset, operation)
}

fn perform_on_dataset<M>(dataset: &Dataset<M>, operation: &Operation) -> Result<(), Error> {
    match operation {
        Operation::Snapshot(_, name) => dataset.create_snapshot(name).map(|_| ()),
        Operation::DeleteSnapshot(_, name) => dataset.delete_snapshot(name),
        Operation::Rollback(_, name) => dataset.rollback(name, true),
        Operation::Promote(_) => dataset.promote(),
        _ => Ok(()),
    }
}

/// One change that is not an upsert of the default action.
fn write<M>(dataset: &Dataset<M>, change: &Change) -> Result<(), Error> {
    match change {
        Change::Put { key, value, preference } => dataset.insert_with_pref(key, value.bytes(), *preference),
        Change::Delete { key } => dataset.delete(key),
        Change::Upsert { .. } => Ok(()),
        Change::Add { key, amount } => dataset.insert_msg(key, amount.to_le_bytes()),
        Change::RangeDelete { low, high } => dataset.range_delete(low.as_slice()..high.as_slice()),
    }
}

/// Adds one change to a batch.
///
/// # Errors
/// The dataset cannot be opened.
pub(crate) fn add(batch: Batch, database: &Database, name: &[u8], change: &Change) -> Result<Batch, Error> {
    if name == COUNTS {
        let dataset = database.open_custom_dataset::<Count>(name, StoragePreference::NONE)?;
        return Ok(add_to(batch, &dataset, change));
    }
    let dataset = database.open_dataset(name)?;
    Ok(match change {
        Change::Upsert { key, offset, bytes } => batch.upsert(&dataset, key, bytes, *offset),
        _ => add_to(batch, &dataset, change),
    })
}

fn add_to<M>(batch: Batch, dataset: &Dataset<M>, change: &Change) -> Batch {
    match change {
        Change::Put { key, value, preference } => {
            batch.insert_with_pref(dataset, key, value.bytes(), *preference)
        }
        Change::Delete { key } => batch.delete(dataset, key),
        Change::Upsert { .. } => batch,
        Change::Add { key, amount } => batch.insert_msg(dataset, key, amount.to_le_bytes()),
        Change::RangeDelete { low, high } => batch.range_delete(dataset, low.as_slice()..high.as_slice()),
    }
}
