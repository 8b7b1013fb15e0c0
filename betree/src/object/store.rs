//! The handle of an object store.

use super::batch::ObjectBatch;
use super::chunk;
use super::condition::Condition;
use super::edit::check_end;
use super::format::{CHUNK_BYTES, ObjectRecord, chunk_key, custom_key, key_chunk};
use super::handle::ObjectHandle;
use super::info::{ObjectInfo, now};
use super::last_record::StoreMoment;
use super::listing::{ListOptions, ObjectPage, Objects, name_bounds, page};
use super::reader::Reader;
use super::snapshot::{StoreSnapshot, StoreView};
use super::staging::Staging;
use super::state::{StoreState, not_found};
use crate::base::preference::StoragePreference;
use crate::database::{
    Database, Durability, Error, Pair, PairChange, PairWrite, Result, Side, SnapshotInfo, check_length,
    prefix_bounds,
};
use crate::pool::PreferredAccessType;

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest name of an object, in bytes.
pub const OBJECT_NAME_BYTES_MAX: usize = 4 << 10;
/// Longest key of custom metadata, in bytes.
pub const METADATA_KEY_BYTES_MAX: usize = 4 << 10;
/// Longest value of custom metadata, in bytes.
pub const METADATA_VALUE_BYTES_MAX: usize = 64 << 10;
/// Largest object, in bytes.
pub const OBJECT_BYTES_MAX: u64 = i64::MAX as u64;
/// Most bytes that one write changes at one instant; a longer one is several of these.
pub const OBJECT_WRITE_BYTES_MAX: usize = 16 << 20;

/// A store of objects. Cloning is cheap; all clones are the same store.
#[derive(Clone)]
pub struct ObjectStore {
    pub(super) database: Database,
    pub(super) pair: Pair,
    pub(super) state: Arc<StoreState>,
}

impl std::fmt::Debug for ObjectStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ObjectStore").field(&self.pair.name().escape_ascii().to_string()).finish()
    }
}

pub(super) fn check_object_name(name: &[u8]) -> Result<()> {
    check_length("object name", name.len(), OBJECT_NAME_BYTES_MAX)?;
    if name.is_empty() {
        return Err(Error::InvalidArgument { what: "object name", reason: String::from("it is empty") });
    }
    Ok(())
}

impl Database {
    /// Creates the object store `name`. A store may have the name of a dataset.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists).
    pub fn create_object_store(&self, name: impl AsRef<[u8]>) -> Result<ObjectStore> {
        self.create_object_store_with_pref(name, StoragePreference::NONE)
    }

    /// Creates the object store `name`, whose objects prefer `preference`.
    ///
    /// # Errors
    /// As [`Database::create_object_store`].
    pub fn create_object_store_with_pref(
        &self,
        name: impl AsRef<[u8]>,
        preference: StoragePreference,
    ) -> Result<ObjectStore> {
        let pair = self.create_pair(name.as_ref(), preference)?;
        ObjectStore::new(self, pair)
    }

    /// Opens the object store `name`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    pub fn open_object_store(&self, name: impl AsRef<[u8]>) -> Result<ObjectStore> {
        let pair = self.open_pair(name.as_ref())?;
        ObjectStore::new(self, pair)
    }

    /// Opens the object store `name`, or creates it.
    ///
    /// # Errors
    /// Out of space, device errors.
    pub fn open_or_create_object_store(&self, name: impl AsRef<[u8]>) -> Result<ObjectStore> {
        let name = name.as_ref();
        loop {
            match self.open_object_store(name) {
                Err(Error::NotFound { .. }) => {}
                opened => return opened,
            }
            match self.create_object_store(name) {
                // Another thread was faster.
                Err(Error::AlreadyExists { .. }) => {}
                created => return created,
            }
        }
    }

    /// Names of all object stores, in order.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn object_stores(&self) -> Result<Vec<Vec<u8>>> {
        self.pairs()
    }

    /// Gives the object store `name` the name `new_name`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound);
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) when `new_name` is taken.
    pub fn rename_object_store(&self, name: impl AsRef<[u8]>, new_name: impl AsRef<[u8]>) -> Result<()> {
        self.rename_pair(name.as_ref(), new_name.as_ref())
    }

    /// Destroys the object store `name` and its snapshots; their space is given back in the background. Views and handles of
    /// snapshots that were taken before still read them. Works on a full pool.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound); [`ErrorKind::Busy`](crate::ErrorKind::Busy) when somebody holds a
    /// snapshot of it or has cloned one.
    pub fn destroy_object_store(&self, name: impl AsRef<[u8]>) -> Result<()> {
        self.destroy_pair(name.as_ref())
    }

    /// Makes the object store `name` of `snapshot`: writable, and sharing its space until it is overwritten. Durable when
    /// this returns.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists);
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when the snapshot was deleted; out of space.
    pub fn clone_store_snapshot(
        &self,
        snapshot: &StoreSnapshot,
        name: impl AsRef<[u8]>,
    ) -> Result<ObjectStore> {
        let (metadata, chunks) = snapshot.datasets();
        let pair = self.clone_pair(metadata, chunks, name.as_ref())?;
        ObjectStore::new(self, pair)
    }
}

impl ObjectStore {
    fn new(database: &Database, pair: Pair) -> Result<Self> {
        let state = pair.companion(StoreState::new)?;
        Ok(Self { database: database.clone(), pair, state })
    }

    /// The name, as bytes.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        self.pair.name()
    }

    /// When the store was created, to the second.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.pair.created())
    }

    /// Where objects are written that have no preference of their own.
    #[must_use]
    pub fn storage_preference(&self) -> StoragePreference {
        self.pair.preference()
    }

    /// The database that the store is in.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// One state of the store.
    pub(super) fn reader(&self) -> Result<Reader> {
        Ok(self.now()?.0)
    }

    /// As [`ObjectStore::reader`], and which one it is.
    pub(super) fn now(&self) -> Result<(Reader, StoreMoment)> {
        loop {
            let turns = self.state.turns();
            if turns % 2 == 1 {
                // Somebody goes back to a snapshot.
                drop(self.state.gate.read());
                continue;
            }
            let (metadata, chunks) = self.pair.views()?;
            if self.state.turns() == turns {
                let visible = metadata.visible();
                return Ok((Reader { metadata, chunks }, StoreMoment { visible, turns }));
            }
        }
    }

    /// One consistent state of the store in memory, without any I/O; `Send + 'static`. What it sees is kept as long as it
    /// lives.
    ///
    /// # Errors
    /// A database that was closed, a store that was destroyed.
    pub fn view(&self) -> Result<StoreView> {
        Ok(StoreView::new(self.reader()?))
    }

    /// Opens the object `name`; `None` when there is none.
    ///
    /// # Errors
    /// Device errors, damage, a store that was destroyed.
    pub fn open_object(&self, name: impl AsRef<[u8]>) -> Result<Option<ObjectHandle>> {
        self.pair.check()?;
        // While the store goes back to a snapshot, nobody knows which objects there are.
        let _gate = self.state.gate.read();
        let state = self.state.open(&self.pair, name.as_ref())?;
        Ok(state.map(|state| ObjectHandle::new(self, state)))
    }

    /// Creates the empty object `name`.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists); a name that is empty or longer than
    /// [`OBJECT_NAME_BYTES_MAX`]; out of space.
    pub fn create_object(&self, name: impl AsRef<[u8]>) -> Result<ObjectHandle> {
        self.create_object_with_pref(name, StoragePreference::NONE)
    }

    /// As [`ObjectStore::create_object`]; what is written to it goes to the tier that `preference` names.
    ///
    /// # Errors
    /// As [`ObjectStore::create_object`].
    pub fn create_object_with_pref(
        &self,
        name: impl AsRef<[u8]>,
        preference: StoragePreference,
    ) -> Result<ObjectHandle> {
        self.make(name.as_ref(), preference, Condition::Absent)
    }

    /// As [`ObjectStore::create_object`], on the fastest tier that is configured for `access`; without a preference when there
    /// is none.
    ///
    /// # Errors
    /// As [`ObjectStore::create_object`].
    pub fn create_object_with_access_type(
        &self,
        name: impl AsRef<[u8]>,
        access: PreferredAccessType,
    ) -> Result<ObjectHandle> {
        let tiers = &self.database.configuration().storage.tiers;
        let tier = tiers.iter().position(|tier| tier.preferred_access_type == access);
        let preference = tier.and_then(|tier| StoragePreference::new(u8::try_from(tier).ok()?));
        self.create_object_with_pref(name, preference.unwrap_or_default())
    }

    /// Creates the empty object `name` in place of one that has that name, whose handles then report
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    ///
    /// # Errors
    /// As [`ObjectStore::create_object`], but that it may exist.
    pub fn replace_object(&self, name: impl AsRef<[u8]>) -> Result<ObjectHandle> {
        self.make(name.as_ref(), StoragePreference::NONE, Condition::Any)
    }

    fn make(&self, name: &[u8], preference: StoragePreference, condition: Condition) -> Result<ObjectHandle> {
        check_object_name(name)?;
        let _gate = self.state.gate.read();
        let state = self.edit(&[name], Durability::Buffered, |edit| {
            condition.check(name, edit.record(name))?;
            edit.create_open(name, preference)
        })?;
        Ok(ObjectHandle::new(self, state))
    }

    /// Opens the object `name`, or creates it: of several who do so at once, one creates it.
    ///
    /// # Errors
    /// As [`ObjectStore::create_object`], but that it may exist.
    pub fn open_or_create_object(&self, name: impl AsRef<[u8]>) -> Result<ObjectHandle> {
        self.open_or_create_object_with_pref(name, StoragePreference::NONE)
    }

    /// As [`ObjectStore::open_or_create_object`]; an object that is created prefers `preference`.
    ///
    /// # Errors
    /// As [`ObjectStore::open_or_create_object`].
    pub fn open_or_create_object_with_pref(
        &self,
        name: impl AsRef<[u8]>,
        preference: StoragePreference,
    ) -> Result<ObjectHandle> {
        let name = name.as_ref();
        check_object_name(name)?;
        if let Some(object) = self.open_object(name)? {
            return Ok(object);
        }
        let _gate = self.state.gate.read();
        let state = self.edit(&[name], Durability::Buffered, |edit| match edit.state(name) {
            Some(state) => Ok(Arc::clone(state)),
            None => edit.create_open(name, preference),
        })?;
        Ok(ObjectHandle::new(self, state))
    }

    /// Makes `bytes` the object `name`, in place of one that has that name: its custom metadata is gone, and its handles
    /// report [`ErrorKind::NotFound`](crate::ErrorKind::NotFound). Whole or not at all, whatever the length.
    ///
    /// # Errors
    /// As [`ObjectStore::create_object`], but that it may exist: nothing was changed.
    pub fn put(&self, name: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Result<ObjectInfo> {
        self.put_with(name, bytes, StoragePreference::NONE, Condition::Any)
    }

    /// As [`ObjectStore::put`], if `condition` holds.
    ///
    /// # Errors
    /// As [`ObjectStore::put`]; what [`Condition`] says.
    pub fn put_if(
        &self,
        name: impl AsRef<[u8]>,
        bytes: impl AsRef<[u8]>,
        condition: Condition,
    ) -> Result<ObjectInfo> {
        self.put_with(name, bytes, StoragePreference::NONE, condition)
    }

    /// As [`ObjectStore::put_if`], on the tier that `preference` names.
    ///
    /// # Errors
    /// As [`ObjectStore::put_if`].
    pub fn put_with(
        &self,
        name: impl AsRef<[u8]>,
        bytes: impl AsRef<[u8]>,
        preference: StoragePreference,
        condition: Condition,
    ) -> Result<ObjectInfo> {
        let (name, bytes) = (name.as_ref(), bytes.as_ref());
        check_object_name(name)?;
        check_end(0, bytes.len())?;
        self.pair.check_accepts()?;
        let _gate = self.state.gate.read();
        if bytes.len() <= OBJECT_WRITE_BYTES_MAX {
            return self.edit(&[name], Durability::Buffered, |edit| {
                condition.check(name, edit.record(name))?;
                edit.put(name, bytes, preference)
            });
        }
        let mut staging = Staging::new(self)?;
        for (chunk, value) in (0..).zip(bytes.chunks(CHUNK_BYTES as usize)) {
            let (side, key) = (Side::Chunks, chunk_key(staging.id, chunk));
            staging.push(PairWrite::Put { side, key, value, preference }, value.len())?;
        }
        let record = new_record(staging.id, bytes.len() as u64, preference);
        self.name_staged(staging, name, record, condition)
    }

    fn name_staged<'a>(
        &'a self,
        mut staging: Staging<'a>,
        name: &[u8],
        record: ObjectRecord,
        condition: Condition,
    ) -> Result<ObjectInfo> {
        self.edit(&[name], Durability::Buffered, |edit| {
            condition.check(name, edit.record(name))?;
            staging.take().into_iter().for_each(|write| edit.push(write));
            edit.place(name, record);
            Ok(())
        })?;
        staging.done();
        Ok(ObjectInfo::from(&record))
    }

    /// The bytes of the object `name`; `None` when there is none.
    ///
    /// # Errors
    /// Device errors and damage; an object that does not fit into memory.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let reader = self.reader()?;
        let record = reader.record(name.as_ref())?;
        let read = |record| {
            self.state.neighbours.follow(&reader, &record);
            reader.read_all(&record)
        };
        record.map(read).transpose()
    }

    /// What there is to say about the object `name`; `None` when there is none.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn read_object_info(&self, name: impl AsRef<[u8]>) -> Result<Option<ObjectInfo>> {
        let record = super::state::read_record(&self.pair, name.as_ref())?;
        Ok(record.as_ref().map(ObjectInfo::from))
    }

    /// Deletes the object `name`; the cost does not depend on its size. Works on a full pool.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound); device errors.
    pub fn delete_object(&self, name: impl AsRef<[u8]>) -> Result<()> {
        self.delete_object_if(name, Condition::Present)
    }

    /// As [`ObjectStore::delete_object`], if `condition` holds.
    ///
    /// # Errors
    /// As [`ObjectStore::delete_object`]; what [`Condition`] says.
    pub fn delete_object_if(&self, name: impl AsRef<[u8]>, condition: Condition) -> Result<()> {
        let name = name.as_ref();
        let _gate = self.state.gate.read();
        self.edit(&[name], Durability::Buffered, |edit| {
            condition.check(name, edit.record(name))?;
            if edit.remove(name) { Ok(()) } else { Err(not_found(name)) }
        })
    }

    /// Gives the object `name` the name `new_name`, in place of one that has it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound); a name that is not legal; out of space.
    pub fn rename_object(&self, name: impl AsRef<[u8]>, new_name: impl AsRef<[u8]>) -> Result<()> {
        self.rename_object_if(name, new_name, Condition::Any)
    }

    /// As [`ObjectStore::rename_object`], if `condition` holds of the object that has the name `new_name`.
    ///
    /// # Errors
    /// As [`ObjectStore::rename_object`]; what [`Condition`] says.
    pub fn rename_object_if(
        &self,
        name: impl AsRef<[u8]>,
        new_name: impl AsRef<[u8]>,
        condition: Condition,
    ) -> Result<()> {
        let (name, new_name) = (name.as_ref(), new_name.as_ref());
        check_object_name(new_name)?;
        let _gate = self.state.gate.read();
        self.edit(&[name, new_name], Durability::Buffered, |edit| {
            condition.check(new_name, edit.record(new_name))?;
            edit.rename(name, new_name)
        })
    }

    /// Makes the object `new_name` with the bytes, the preference and the custom metadata that the object `name` has now, in
    /// place of one that has that name. Whole or not at all, whatever the size.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound); a name that is not legal; out of space: nothing was changed.
    pub fn copy_object(&self, name: impl AsRef<[u8]>, new_name: impl AsRef<[u8]>) -> Result<ObjectInfo> {
        self.copy_object_if(name, new_name, Condition::Any)
    }

    /// As [`ObjectStore::copy_object`], if `condition` holds of the object that has the name `new_name`.
    ///
    /// # Errors
    /// As [`ObjectStore::copy_object`]; what [`Condition`] says.
    pub fn copy_object_if(
        &self,
        name: impl AsRef<[u8]>,
        new_name: impl AsRef<[u8]>,
        condition: Condition,
    ) -> Result<ObjectInfo> {
        let (name, new_name) = (name.as_ref(), new_name.as_ref());
        check_object_name(new_name)?;
        self.pair.check_accepts()?;
        let _gate = self.state.gate.read();
        let reader = self.reader()?;
        let source = reader.record(name)?.ok_or_else(|| not_found(name))?;
        condition.check(new_name, reader.record(new_name)?.as_ref())?;
        let preference = source.preference;
        let mut staging = Staging::new(self)?;
        let (low, high) = (chunk_key(source.id, 0), chunk_key(source.id, chunk::chunk_count(source.size)));
        for entry in reader.chunks.range(low..high) {
            let (key, value) = entry?;
            let damaged = || Error::Corrupt { what: "chunk", reason: String::from("its key is cut short") };
            let (_, chunk) = key_chunk(&key).ok_or_else(damaged)?;
            let (side, key, bytes) = (Side::Chunks, chunk_key(staging.id, chunk), value.len());
            staging.push(PairWrite::PutValue { side, key, value, preference }, bytes)?;
        }
        if source.has_metadata {
            for entry in reader.all_metadata_of(&source) {
                let (key, value) = entry?;
                let bytes = key.len() + value.len();
                let (side, key) = (Side::Metadata, custom_key(staging.id, &key));
                let preference = StoragePreference::NONE;
                staging.push(PairWrite::PutValue { side, key, value, preference }, bytes)?;
            }
        }
        let record = ObjectRecord {
            has_metadata: source.has_metadata,
            ..new_record(staging.id, source.size, preference)
        };
        self.name_staged(staging, new_name, record, condition)
    }

    /// Starts a batch: changes of several objects at one instant.
    pub fn batch(&self) -> ObjectBatch {
        ObjectBatch::new(self.clone())
    }

    /// The objects whose names are in `range`, in the order of the names; `.rev()` goes backwards. The only entry of a store
    /// that was destroyed is the error that says so.
    pub fn list_objects<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Objects {
        let (low, high) = name_bounds(&range);
        Objects::new(self.pair.metadata.range((low, high)))
    }

    /// The objects whose names start with `prefix`.
    pub fn list_prefix(&self, prefix: impl AsRef<[u8]>) -> Objects {
        let (low, high) = prefix_bounds(prefix.as_ref());
        let high = high.map_or(Bound::Unbounded, Bound::Excluded);
        self.list_objects((Bound::Included(low), high))
    }

    /// All objects.
    pub fn iter_objects(&self) -> Objects {
        self.list_objects::<&[u8]>(..)
    }

    /// One page of a list of objects. Each page is of one state, of its own time.
    ///
    /// # Errors
    /// A token that is none; device errors and damage.
    pub fn list_page(&self, options: &ListOptions) -> Result<ObjectPage> {
        self.pair.check()?;
        page(&self.pair.metadata.view(), options)
    }

    /// Makes the snapshot `name`: durable, with everything that was written before this call. The cost is that of a
    /// checkpoint, whatever the store holds.
    ///
    /// # Errors
    /// As [`Dataset::create_snapshot`](crate::Dataset::create_snapshot).
    pub fn create_snapshot(&self, name: impl AsRef<[u8]>) -> Result<StoreSnapshot> {
        self.pair.create_snapshot(name.as_ref())?;
        self.open_snapshot(name)
    }

    /// Opens the snapshot `name`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound); device errors and damage.
    pub fn open_snapshot(&self, name: impl AsRef<[u8]>) -> Result<StoreSnapshot> {
        let (metadata, chunks) = self.pair.open_snapshot(name.as_ref())?;
        Ok(StoreSnapshot::new(metadata, chunks))
    }

    /// All snapshots, oldest first.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let chunks = self.pair.chunks.snapshots()?;
        let mut all = self.pair.metadata.snapshots()?;
        for info in &mut all {
            if let Some(chunks) = chunks.iter().find(|chunks| chunks.name == info.name) {
                info.referenced += chunks.referenced;
                info.unique += chunks.unique;
                info.written += chunks.written;
            }
        }
        Ok(all)
    }

    /// Deletes the snapshot `name`; as [`Dataset::delete_snapshot`](crate::Dataset::delete_snapshot).
    ///
    /// # Errors
    /// As [`Dataset::delete_snapshot`](crate::Dataset::delete_snapshot).
    pub fn delete_snapshot(&self, name: impl AsRef<[u8]>) -> Result<()> {
        self.pair.change(PairChange::Delete(name.as_ref()))
    }

    /// Gives the snapshot `name` the name `new_name`.
    ///
    /// # Errors
    /// As [`Dataset::rename_snapshot`](crate::Dataset::rename_snapshot).
    pub fn rename_snapshot(&self, name: impl AsRef<[u8]>, new_name: impl AsRef<[u8]>) -> Result<()> {
        self.pair.change(PairChange::Rename(name.as_ref(), new_name.as_ref()))
    }

    /// Keeps the snapshot `name` from being deleted until `tag` is released.
    ///
    /// # Errors
    /// As [`Dataset::hold_snapshot`](crate::Dataset::hold_snapshot).
    pub fn hold_snapshot(&self, name: impl AsRef<[u8]>, tag: impl AsRef<[u8]>) -> Result<()> {
        self.pair.change(PairChange::Hold(name.as_ref(), tag.as_ref()))
    }

    /// Takes a hold back.
    ///
    /// # Errors
    /// As [`Dataset::release_snapshot`](crate::Dataset::release_snapshot).
    pub fn release_snapshot(&self, name: impl AsRef<[u8]>, tag: impl AsRef<[u8]>) -> Result<()> {
        self.pair.change(PairChange::Release(name.as_ref(), tag.as_ref()))
    }

    /// Makes the store what it was in the snapshot `name`; as [`Dataset::rollback`](crate::Dataset::rollback). Waits for
    /// writes in progress. A handle goes on with the object that it is of when that is there under the same name; otherwise
    /// it reports [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    ///
    /// # Errors
    /// As [`Dataset::rollback`](crate::Dataset::rollback).
    pub fn rollback(&self, name: impl AsRef<[u8]>, force: bool) -> Result<()> {
        self.pair.check_accepts()?;
        self.state.go_back(&self.pair, name.as_ref(), force)
    }

    /// Makes a store that was cloned the owner of the snapshots up to the one that it was cloned from; as
    /// [`Dataset::promote`](crate::Dataset::promote).
    ///
    /// # Errors
    /// As [`Dataset::promote`](crate::Dataset::promote).
    pub fn promote(&self) -> Result<()> {
        self.pair.change(PairChange::Promote)
    }

    /// The names of the store and of the snapshot that this one was cloned from.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn origin(&self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.pair.metadata.origin()
    }

    /// Makes everything that returned before durable, in the whole database.
    ///
    /// # Errors
    /// Device errors: what was written since the last sync may be lost in a crash.
    pub fn sync(&self) -> Result<()> {
        self.database.sync()
    }
}

/// The record of an object that is made now, without custom metadata.
fn new_record(id: u64, size: u64, preference: StoragePreference) -> ObjectRecord {
    let time = now();
    ObjectRecord { id, size, modified: time, created: time, version: id, preference, has_metadata: false }
}

/// Checks a key and a value of custom metadata.
pub(super) fn check_metadata(key: &[u8], value: &[u8]) -> Result<()> {
    check_length("key of custom metadata", key.len(), METADATA_KEY_BYTES_MAX)?;
    check_length("value of custom metadata", value.len(), METADATA_VALUE_BYTES_MAX)
}
