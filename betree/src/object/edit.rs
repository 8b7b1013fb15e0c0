//! Changes of names, all at one instant.
//!
//! Who edits holds the stripes of all names that are named, and alone the locks of the objects that have them. Nothing is
//! written before all of it is known.

use super::chunk;
use super::format::{ObjectRecord, custom_key, name_key};
use super::info::{ObjectInfo, now};
use super::state::{ObjectState, not_found};
use super::store::ObjectStore;
use crate::base::planted::{Bug, planted};
use crate::base::preference::StoragePreference;
use crate::database::{Durability, Error, ErrorKind, PairWrite, Result, Side};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A set of changes that is being made.
pub(super) struct Edit<'a> {
    store: &'a ObjectStore,
    names: BTreeMap<Vec<u8>, Named>,
    writes: Vec<PairWrite<'a>>,
    gone: Vec<Arc<ObjectState>>,
}

/// What a name means.
struct Named {
    before: Option<ObjectRecord>,
    now: Option<Live>,
}

#[derive(Clone)]
struct Live {
    record: ObjectRecord,
    /// `None` for an object that is made by this edit.
    state: Option<Arc<ObjectState>>,
}

impl ObjectStore {
    /// Lets `build` change what `names` mean, and commits that. The gate is held.
    pub(super) fn edit<'a, R>(
        &'a self,
        names: &[&[u8]],
        durability: Durability,
        build: impl FnOnce(&mut Edit<'a>) -> Result<R>,
    ) -> Result<R> {
        self.pair.check_accepts()?;
        let _stripes = self.state.lock_names(names.iter().copied());
        let mut edit = Edit { store: self, names: BTreeMap::new(), writes: Vec::new(), gone: Vec::new() };
        let mut states = Vec::new();
        for name in names {
            if edit.names.contains_key(*name) {
                continue;
            }
            let state = self.state.open(&self.pair, name)?;
            states.extend(state.clone().map(|state| (state.id, name.to_vec(), state)));
            edit.names.insert(name.to_vec(), Named { before: None, now: None });
        }
        states.sort_unstable_by_key(|(id, _, _)| *id);
        let _locks: Vec<_> = states.iter().map(|(_, _, state)| state.lock.write()).collect();
        for (_, name, state) in &states {
            // As of now: whoever was writing is done.
            let record = state.record()?;
            let named =
                Named { before: Some(record), now: Some(Live { record, state: Some(Arc::clone(state)) }) };
            edit.names.insert(name.clone(), named);
        }
        let built = build(&mut edit)?;
        edit.commit(durability)?;
        Ok(built)
    }
}

impl<'a> Edit<'a> {
    fn named(&mut self, name: &[u8]) -> &mut Named {
        self.names.entry(name.to_vec()).or_insert(Named { before: None, now: None })
    }

    /// The record of the object that has this name now.
    pub fn record(&self, name: &[u8]) -> Option<&ObjectRecord> {
        self.names.get(name)?.now.as_ref().map(|live| &live.record)
    }

    /// The open object that has this name now.
    pub fn state(&self, name: &[u8]) -> Option<&Arc<ObjectState>> {
        self.names.get(name)?.now.as_ref()?.state.as_ref()
    }

    fn ticket(&self) -> Result<u64> {
        self.store.state.ticket(&self.store.pair)
    }

    /// Adds a write.
    pub fn push(&mut self, write: PairWrite<'a>) {
        self.writes.push(write);
    }

    /// Makes an empty object `name` in place of what has that name.
    pub fn create(&mut self, name: &[u8], preference: StoragePreference) -> Result<ObjectRecord> {
        let ticket = self.ticket()?;
        let time = now();
        let record = ObjectRecord {
            id: ticket,
            size: 0,
            modified: time,
            created: time,
            version: ticket,
            preference,
            has_metadata: false,
        };
        self.place(name, record);
        Ok(record)
    }

    /// As [`Edit::create`], and opens it.
    pub fn create_open(&mut self, name: &[u8], preference: StoragePreference) -> Result<Arc<ObjectState>> {
        let record = self.create(name, preference)?;
        // Others may write to it as soon as this is committed, so the commit leaves its state alone.
        Ok(self.store.state.open_new(record, name))
    }

    /// Makes `bytes` the object `name`, in place of what has that name.
    pub fn put(&mut self, name: &[u8], bytes: &'a [u8], preference: StoragePreference) -> Result<ObjectInfo> {
        let record = ObjectRecord { size: bytes.len() as u64, ..self.create(name, preference)? };
        chunk::write(record.id, bytes, 0, Some(0), preference, &mut self.writes);
        self.change(name, |now| *now = record)?;
        Ok(ObjectInfo::from(&record))
    }

    /// Makes `record`, whose chunks are there or come with this edit, the object `name`, in place of what has that name.
    pub fn place(&mut self, name: &[u8], record: ObjectRecord) {
        self.remove(name);
        self.named(name).now = Some(Live { record, state: None });
    }

    /// Removes the object `name`; whether there was one.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let Some(live) = self.named(name).now.take() else { return false };
        let id = live.record.id;
        if !planted(Bug::DeleteForgetsChunks) {
            chunk::remove(id, 0..chunk::chunk_count(live.record.size), &mut self.writes);
        }
        if live.record.has_metadata {
            let (start, end) = (custom_key(id, b""), Some(custom_key(id + 1, b"")));
            self.writes.push(PairWrite::RangeDelete { side: Side::Metadata, start, end });
        }
        self.gone.extend(live.state);
        true
    }

    /// Gives the object `from` the name `to`, in place of what has that name.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        if self.record(from).is_none() {
            return Err(not_found(from));
        }
        if from == to {
            return Ok(());
        }
        self.remove(to);
        let live = self.named(from).now.take();
        self.named(to).now = live;
        Ok(())
    }

    /// Writes `bytes` at `offset` of the object `name`; none of them change nothing, wherever that is.
    pub fn write(&mut self, name: &[u8], bytes: &'a [u8], offset: u64) -> Result<()> {
        if bytes.is_empty() {
            return self.record(name).map(|_| ()).ok_or_else(|| not_found(name));
        }
        let version = self.ticket()?;
        let Some(live) = self.named(name).now.as_mut() else { return Err(not_found(name)) };
        let record = &mut live.record;
        let (id, size, preference) = (record.id, record.size, record.preference);
        touch(record, version);
        record.size = size.max(offset + bytes.len() as u64);
        chunk::write(id, bytes, offset, Some(size), preference, &mut self.writes);
        Ok(())
    }

    /// Changes the record of the object `name`.
    pub fn change(&mut self, name: &[u8], change: impl FnOnce(&mut ObjectRecord)) -> Result<()> {
        let Some(live) = self.named(name).now.as_mut() else { return Err(not_found(name)) };
        change(&mut live.record);
        Ok(())
    }

    fn commit(mut self, durability: Durability) -> Result<()> {
        for (name, named) in &self.names {
            let now = named.now.as_ref().map(|live| live.record);
            if now == named.before {
                continue;
            }
            let (side, key) = (Side::Metadata, name_key(name));
            self.writes.push(match now {
                Some(record) => PairWrite::PutOwned { side, key, value: record.encode() },
                None => PairWrite::Delete { side, key },
            });
        }
        let pair = &self.store.pair;
        if planted(Bug::RenameInTwoBatches) {
            let (deletes, rest): (Vec<_>, Vec<_>) = self.writes.into_iter().partition(is_delete);
            pair.commit(&deletes, Durability::Buffered)?;
            self.writes = rest;
        }
        match pair.commit(&self.writes, durability) {
            // On a full pool, a delete of a range finds room where that of a key does not.
            Err(error) if error.kind() == ErrorKind::OutOfSpace && self.writes.iter().all(is_delete) => {
                let writes: Vec<_> = self.writes.into_iter().map(as_range_delete).collect();
                pair.commit(&writes, durability)?;
            }
            committed => committed?,
        }
        for state in self.gone {
            state.set_gone();
        }
        for (name, named) in self.names {
            let Some(Live { record, state: Some(state) }) = named.now else { continue };
            state.set_name(&name);
            state.set_record(record);
        }
        Ok(())
    }
}

/// Notes in `record` that its object was written to.
pub(super) fn touch(record: &mut ObjectRecord, version: u64) {
    record.version = version;
    record.modified = record.modified.max(now());
}

fn is_delete(write: &PairWrite<'_>) -> bool {
    matches!(write, PairWrite::Delete { .. } | PairWrite::RangeDelete { .. })
}

fn as_range_delete(write: PairWrite<'_>) -> PairWrite<'_> {
    match write {
        PairWrite::Delete { side, key } => {
            let end = Some([&key[..], &[0]].concat());
            PairWrite::RangeDelete { side, start: key, end }
        }
        other => other,
    }
}

/// Checks that bytes up to `end` fit into an object.
pub(super) fn check_end(offset: u64, length: usize) -> Result<u64> {
    let limit = super::store::OBJECT_BYTES_MAX;
    let end = offset.checked_add(length as u64).filter(|end| *end <= limit);
    end.ok_or(Error::TooLarge { what: "object", length: offset.saturating_add(length as u64), limit })
}
