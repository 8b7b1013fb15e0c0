//! The handle of an object.

use super::chunk;
use super::chunks::Chunks;
use super::cursor::ObjectCursor;
use super::edit::{check_end, touch};
use super::format::{CHUNK_BYTES, ObjectRecord, chunk_key, custom_key};
use super::info::ObjectInfo;
use super::last_record::LastRecord;
use super::metadata::MetadataEntries;
use super::read_ahead::ReadAhead;
use super::reader::Reader;
use super::snapshot::ObjectView;
use super::state::ObjectState;
use super::store::{
    METADATA_KEY_BYTES_MAX, OBJECT_WRITE_BYTES_MAX, ObjectStore, check_metadata, check_object_name,
};
use crate::base::planted::{Bug, planted};
use crate::base::preference::StoragePreference;
use crate::database::{BegunRead, Durability, PairWrite, ReadQueue, Result, Side, check_length};
use crate::tree::{DefaultMessageAction, Value};
use std::ops::Range;
use std::sync::Arc;

/// An open object. Cloning is cheap; all handles of an object are the same object, also after it was renamed. When it was
/// deleted or replaced, all that can be done with it reports [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
///
/// Of two writes that overlap, the one that is committed later wins, whole; the size is that of the one that reaches farther.
#[derive(Clone)]
pub struct ObjectHandle {
    store: ObjectStore,
    pub(super) state: Arc<ObjectState>,
    pub(super) ahead: ReadAhead,
    pub(super) last: LastRecord,
}

impl std::fmt::Debug for ObjectHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ObjectHandle").field(&self.state.name().escape_ascii().to_string()).finish()
    }
}

/// How often a reader looks again for an object whose name is being changed.
const LOOKS_MAX: usize = 3;

impl ObjectHandle {
    pub(super) fn new(store: &ObjectStore, state: Arc<ObjectState>) -> Self {
        Self { store: store.clone(), state, ahead: ReadAhead::default(), last: LastRecord::default() }
    }

    /// The name, as bytes: the new one after a rename.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        self.state.name().to_vec()
    }

    /// Its number in the store, which no other object ever had.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.state.id
    }

    /// The store that it is in.
    #[must_use]
    pub fn store(&self) -> &ObjectStore {
        &self.store
    }

    /// One state of the store, and what it knows of this object.
    fn look(&self) -> Result<(Reader, ObjectRecord)> {
        for _ in 0..LOOKS_MAX {
            self.state.check()?;
            let (reader, moment) = self.store.now()?;
            if let Some(record) = self.last.get(moment) {
                return Ok((reader, record));
            }
            let record = reader.record(&self.state.name())?;
            if let Some(record) = record.filter(|record| record.id == self.state.id) {
                self.last.set(moment, record);
                return Ok((reader, record));
            }
            // Somebody is renaming or deleting it: then we know it with this lock.
            drop(self.state.lock.read());
        }
        self.state.check()?;
        Err(self.state.not_found())
    }

    /// One consistent state of the object in memory, without any I/O but for its record; `Send + 'static`.
    ///
    /// # Errors
    /// As [`ObjectHandle::info`].
    pub fn view(&self) -> Result<ObjectView> {
        let (reader, record) = self.look()?;
        Ok(ObjectView::new(reader, self.name(), record))
    }

    /// What there is to say about the object.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) after it was deleted; device errors and damage.
    pub fn info(&self) -> Result<ObjectInfo> {
        Ok(ObjectInfo::from(&self.look()?.1))
    }

    /// Length in bytes, holes included.
    ///
    /// # Errors
    /// As [`ObjectHandle::info`].
    pub fn size(&self) -> Result<u64> {
        Ok(self.look()?.1.size)
    }

    /// Reads from `offset` (bytes) on into `buffer`, of one state of the object. Returns how many bytes there are: as many as
    /// the buffer holds, but at the end of the object. What was never written reads as zeros.
    ///
    /// # Errors
    /// As [`ObjectHandle::info`]; the buffer may have been written to.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let (reader, record) = self.look()?;
        reader.read_in_stream(&record, buffer, offset, &self.ahead)
    }

    /// Begins in `queue` to read from `offset` (bytes) on into `buffer`, as [`ReadQueue::begin`] does with `tag`: says, now or when it
    /// arrives, how many bytes the object has there (`filled`) and its size (`value_length`). Reads that go on where the last one ended are
    /// given back, because [`ObjectHandle::read_at`] reads ahead of them, and so are those of several chunks of
    /// [`CHUNK_BYTES`](crate::CHUNK_BYTES) bytes, and of what has patches.
    ///
    /// # Errors
    /// As [`ObjectHandle::read_at`].
    pub fn begin_read_at(
        &self,
        queue: &mut ReadQueue,
        buffer: &mut [u8],
        offset: u64,
        tag: u64,
    ) -> Result<BegunRead> {
        let (reader, record) = self.look()?;
        reader.begin(&record, queue, buffer, offset, tag, &self.ahead)
    }

    /// All bytes.
    ///
    /// # Errors
    /// As [`ObjectHandle::info`]; an object that does not fit into memory.
    pub fn read_all(&self) -> Result<Vec<u8>> {
        let (reader, record) = self.look()?;
        self.store.state.neighbours.follow(&reader, &record);
        reader.read_all(&record)
    }

    /// The chunks that are there, from the first to the last.
    ///
    /// # Errors
    /// As [`ObjectHandle::info`].
    pub fn read_all_chunks(&self) -> Result<Chunks> {
        self.read_chunk_range(0..u64::MAX)
    }

    /// The chunks that are there, of the numbers in `chunks`; a chunk has [`CHUNK_BYTES`](crate::CHUNK_BYTES) bytes.
    ///
    /// # Errors
    /// As [`ObjectHandle::info`].
    pub fn read_chunk_range(&self, chunks: Range<u64>) -> Result<Chunks> {
        let (reader, record) = self.look()?;
        Ok(reader.chunks_of(&record, chunks.start, chunks.end))
    }

    /// Writes `bytes` at `offset` (bytes); the object grows as needed, and what is left out reads as zeros. Returns how many
    /// bytes were written: all. Up to [`OBJECT_WRITE_BYTES_MAX`] bytes are seen, and survive a crash, all or not at all; more
    /// are written in pieces of that length, one after the other.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) after it was deleted; too large; out of space, an earlier failure:
    /// nothing was changed, or of a longer write the first pieces.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize> {
        self.write_at_with_pref(bytes, offset, StoragePreference::NONE)
    }

    /// As [`ObjectHandle::write_at`], on the tier that `preference` names.
    ///
    /// # Errors
    /// As [`ObjectHandle::write_at`].
    pub fn write_at_with_pref(
        &self,
        bytes: &[u8],
        offset: u64,
        preference: StoragePreference,
    ) -> Result<usize> {
        check_end(offset, bytes.len())?;
        self.store.pair.check_accepts()?;
        self.state.check()?;
        let _gate = self.store.state.gate.read();
        let (mut at, mut left) = (offset, bytes);
        while !left.is_empty() {
            // A piece ends where a chunk ends, so that chunks stay whole.
            let whole = OBJECT_WRITE_BYTES_MAX - (at % CHUNK_BYTES) as usize;
            let (piece, rest) = left.split_at(whole.min(left.len()));
            self.write_piece(piece, at, preference)?;
            at += piece.len() as u64;
            left = rest;
        }
        Ok(bytes.len())
    }

    fn write_piece(&self, bytes: &[u8], offset: u64, preference: StoragePreference) -> Result<()> {
        let end = offset + bytes.len() as u64;
        let state = &self.state;
        {
            let _shared = state.lock.read();
            state.check()?;
            let whole = offset.is_multiple_of(CHUNK_BYTES) && end.is_multiple_of(CHUNK_BYTES);
            if whole || end <= state.record()?.size {
                return self.commit_write(bytes, offset, None, preference);
            }
        }
        // A part of a chunk that makes the object longer takes the place of the chunk when it covers what there is.
        let _alone = state.lock.write();
        state.check()?;
        self.commit_write(bytes, offset, Some(state.record()?.size), preference)
    }

    /// The lock of the object is held; alone, when `size` is known.
    fn commit_write(
        &self,
        bytes: &[u8],
        offset: u64,
        size: Option<u64>,
        preference: StoragePreference,
    ) -> Result<()> {
        let end = offset + bytes.len() as u64;
        let preference = preference.or(self.state.record()?.preference);
        let mut writes = Vec::with_capacity(bytes.len() / CHUNK_BYTES as usize + 3);
        chunk::write(self.state.id, bytes, offset, size, preference, &mut writes);
        self.commit_with_record(writes, move |record| record.size = record.size.max(end))
    }

    /// Commits `writes` and `change` of the record, which is written to with that.
    fn commit_with_record<'a>(
        &'a self,
        mut writes: Vec<PairWrite<'a>>,
        change: impl Fn(&mut ObjectRecord) + 'a,
    ) -> Result<()> {
        let version = self.store.state.ticket(&self.store.pair)?;
        writes.push(self.state.write_record(move |record| {
            touch(record, version);
            change(record);
        }));
        self.store.pair.commit(&writes, Durability::Buffered)
    }

    /// Writes `bytes` behind the end; returns where that was. Of several who append at once, each writes behind the others.
    ///
    /// # Errors
    /// As [`ObjectHandle::write_at`].
    pub fn append(&self, bytes: &[u8]) -> Result<u64> {
        self.store.pair.check_accepts()?;
        let _gate = self.store.state.gate.read();
        let _alone = self.state.lock.write();
        self.state.check()?;
        let start = self.state.record()?.size;
        check_end(start, bytes.len())?;
        let (mut at, mut left) = (start, bytes);
        while !left.is_empty() {
            let whole = OBJECT_WRITE_BYTES_MAX - (at % CHUNK_BYTES) as usize;
            let (piece, rest) = left.split_at(whole.min(left.len()));
            self.commit_write(piece, at, Some(at), StoragePreference::NONE)?;
            at += piece.len() as u64;
            left = rest;
        }
        Ok(start)
    }

    /// Makes the object `size` bytes long: what is behind is gone, what is added reads as zeros. The cost does not depend on
    /// how much that is.
    ///
    /// # Errors
    /// As [`ObjectHandle::write_at`].
    pub fn truncate(&self, size: u64) -> Result<()> {
        check_end(size, 0)?;
        self.store.pair.check_accepts()?;
        let _gate = self.store.state.gate.read();
        let _alone = self.state.lock.write();
        self.state.check()?;
        let before = self.state.record()?;
        let mut writes = Vec::new();
        let kept = if size < before.size { self.part_of_chunk(size)? } else { None };
        if size < before.size {
            let chunks = chunk::chunk_count(size)..chunk::chunk_count(before.size);
            chunk::remove(before.id, chunks, &mut writes);
        }
        if let Some(value) = kept {
            let (side, key) = (Side::Chunks, chunk_key(before.id, size / CHUNK_BYTES));
            writes.push(PairWrite::PutValue { side, key, value, preference: before.preference });
        }
        self.commit_with_record(writes, move |record| record.size = size)
    }

    /// What is left of the chunk that `size` is in, when it has more than that.
    fn part_of_chunk(&self, size: u64) -> Result<Option<Value>> {
        let left = (size % CHUNK_BYTES) as usize;
        if left == 0 || planted(Bug::TruncateKeepsTail) {
            return Ok(None);
        }
        let value = self.store.pair.chunks.get(chunk_key(self.state.id, size / CHUNK_BYTES))?;
        Ok(value.filter(|value| value.len() > left).map(|value| Value::from(&value[..left])))
    }

    /// Makes `length` bytes from `offset` on read as zeros, and gives back the space of the chunks inside. The size stays.
    ///
    /// # Errors
    /// As [`ObjectHandle::write_at`].
    pub fn punch_hole(&self, offset: u64, length: u64) -> Result<()> {
        self.store.pair.check_accepts()?;
        let _gate = self.store.state.gate.read();
        let _alone = self.state.lock.write();
        self.state.check()?;
        let before = self.state.record()?;
        let (id, preference) = (before.id, before.preference);
        let end = offset.saturating_add(length).min(before.size);
        if end <= offset {
            return Ok(());
        }
        let mut writes = Vec::new();
        // What is behind the end of the object is a hole as it is.
        let whole_end = if end == before.size { chunk::chunk_count(end) } else { end / CHUNK_BYTES };
        let whole = offset.div_ceil(CHUNK_BYTES)..whole_end;
        let mut edges = Vec::with_capacity(2);
        if !offset.is_multiple_of(CHUNK_BYTES) {
            let start = offset - offset % CHUNK_BYTES;
            edges.push((offset / CHUNK_BYTES, offset - start, end.min(start + CHUNK_BYTES) - start));
        }
        let last = end / CHUNK_BYTES;
        if end < before.size
            && !end.is_multiple_of(CHUNK_BYTES)
            && edges.iter().all(|(chunk, _, _)| *chunk != last)
        {
            edges.push((last, 0, end % CHUNK_BYTES));
        }
        for (chunk, from, to) in edges {
            let key = chunk_key(id, chunk);
            let Some(value) = self.store.pair.chunks.get(&key)? else { continue };
            let (from, to) = (from as usize, (to as usize).min(value.len()));
            let side = Side::Chunks;
            match to == value.len() {
                _ if from >= to => {}
                true if from == 0 => writes.push(PairWrite::Delete { side, key }),
                true => writes.push(PairWrite::PutValue {
                    side,
                    key,
                    value: Value::from(&value[..from]),
                    preference,
                }),
                false => {
                    let message = DefaultMessageAction::upsert_msg(from as u32, &vec![0; to - from]);
                    writes.push(PairWrite::Upsert { side, key, message, preference });
                }
            }
        }
        if whole.start < whole.end {
            chunk::remove(id, whole, &mut writes);
        }
        self.commit_with_record(writes, |_| {})
    }

    /// Where the object is written from now on, unless a write says otherwise; what is there stays where it is.
    ///
    /// # Errors
    /// As [`ObjectHandle::write_at`].
    pub fn set_storage_preference(&self, preference: StoragePreference) -> Result<()> {
        self.change_record(Vec::new(), move |record| record.preference = preference)
    }

    /// Commits `writes` and `change` of the record, which are no write to the bytes of the object.
    fn change_record<'a>(
        &'a self,
        mut writes: Vec<PairWrite<'a>>,
        change: impl Fn(&mut ObjectRecord) + 'a,
    ) -> Result<()> {
        self.store.pair.check_accepts()?;
        let _gate = self.store.state.gate.read();
        let _shared = self.state.lock.read();
        self.state.check()?;
        writes.push(self.state.write_record(change));
        self.store.pair.commit(&writes, Durability::Buffered)
    }

    /// Sets the custom metadata `key`. The version of the object stays: that is of its bytes.
    ///
    /// # Errors
    /// As [`ObjectHandle::write_at`]; a key or value that is too long.
    pub fn set_metadata(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let (key, value) = (key.as_ref(), value.as_ref());
        check_metadata(key, value)?;
        let (side, key) = (Side::Metadata, custom_key(self.state.id, key));
        let write =
            PairWrite::PutValue { side, key, value: value.into(), preference: StoragePreference::NONE };
        self.change_record(vec![write], |record| record.has_metadata = true)
    }

    /// The custom metadata `key`; `None` when there is none.
    ///
    /// # Errors
    /// As [`ObjectHandle::info`].
    pub fn get_metadata(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let (reader, record) = self.look()?;
        reader.metadata_of(&record, key.as_ref())
    }

    /// Deletes the custom metadata `key`, whether there is any or not.
    ///
    /// # Errors
    /// As [`ObjectHandle::write_at`].
    pub fn delete_metadata(&self, key: impl AsRef<[u8]>) -> Result<()> {
        check_length("key of custom metadata", key.as_ref().len(), METADATA_KEY_BYTES_MAX)?;
        let (side, key) = (Side::Metadata, custom_key(self.state.id, key.as_ref()));
        self.change_record(vec![PairWrite::Delete { side, key }], |_| {})
    }

    /// All custom metadata, in the order of the keys, of one state.
    ///
    /// # Errors
    /// As [`ObjectHandle::info`].
    pub fn iter_metadata(&self) -> Result<MetadataEntries> {
        let (reader, record) = self.look()?;
        Ok(reader.all_metadata_of(&record))
    }

    /// Gives the object the name `new_name`, in place of one that has it. All its handles go on.
    ///
    /// # Errors
    /// As [`ObjectStore::rename_object`].
    pub fn rename(&self, new_name: impl AsRef<[u8]>) -> Result<()> {
        let new_name = new_name.as_ref();
        check_object_name(new_name)?;
        self.edit_named(Some(new_name), |edit, name| edit.rename(name, new_name))
    }

    /// Deletes the object.
    ///
    /// # Errors
    /// As [`ObjectStore::delete_object`].
    pub fn delete(&self) -> Result<()> {
        self.edit_named(None, |edit, name| {
            edit.remove(name);
            Ok(())
        })
    }

    /// Edits the object under the name that it has then.
    fn edit_named(
        &self,
        other: Option<&[u8]>,
        build: impl Fn(&mut super::edit::Edit<'_>, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let _gate = self.store.state.gate.read();
        loop {
            self.store.pair.check_accepts()?;
            self.state.check()?;
            let name = self.state.name();
            let names: Vec<&[u8]> = std::iter::once(&*name).chain(other).collect();
            let done = self.store.edit(&names, Durability::Buffered, |edit| {
                if edit.state(&name).is_none_or(|state| state.id != self.state.id) {
                    // It has another name by now.
                    return Ok(false);
                }
                build(edit, &name)?;
                Ok(true)
            })?;
            if done {
                return Ok(());
            }
        }
    }

    /// The object as a stream, from its first byte.
    #[must_use]
    pub fn cursor(&self) -> ObjectCursor {
        self.cursor_with_pref(StoragePreference::NONE)
    }

    /// As [`ObjectHandle::cursor`]; what is written goes to the tier that `preference` names.
    #[must_use]
    pub fn cursor_with_pref(&self, preference: StoragePreference) -> ObjectCursor {
        ObjectCursor::of_handle(self.clone(), preference)
    }

    /// Closes this handle; dropping it does the same.
    pub fn close(self) {}

    /// When the object was written to last; see [`ObjectHandle::info`] for more.
    ///
    /// # Errors
    /// As [`ObjectHandle::info`].
    pub fn mtime(&self) -> Result<std::time::SystemTime> {
        Ok(self.info()?.mtime)
    }
}
