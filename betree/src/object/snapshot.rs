//! States of a store that stay: in memory, and durable.

use super::chunks::Chunks;
use super::cursor::ObjectCursor;
use super::format::ObjectRecord;
use super::info::ObjectInfo;
use super::listing::{ListOptions, ObjectPage, Objects, name_bounds, page};
use super::metadata::MetadataEntries;
use super::read_ahead::ReadAhead;
use super::reader::Reader;
use crate::database::{Result, Snapshot, prefix_bounds};
use crate::tree::Value;
use std::ops::{Bound, Range, RangeBounds};
use std::time::SystemTime;

/// One consistent state of a store: `Send + 'static`, cheap to clone. What it sees is kept as long as it lives.
#[derive(Debug, Clone)]
pub struct StoreView {
    reader: Reader,
}

impl StoreView {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader }
    }

    /// Opens the object `name` for reading; `None` when there is none.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn open_object(&self, name: impl AsRef<[u8]>) -> Result<Option<ObjectView>> {
        let name = name.as_ref();
        let record = self.reader.record(name)?;
        Ok(record.map(|record| ObjectView::new(self.reader.clone(), name.to_vec(), record)))
    }

    /// The bytes of the object `name`; `None` when there is none.
    ///
    /// # Errors
    /// Device errors and damage; an object that does not fit into memory.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let record = self.reader.record(name.as_ref())?;
        record.map(|record| self.reader.read_all(&record)).transpose()
    }

    /// What there is to say about the object `name`; `None` when there is none.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn read_object_info(&self, name: impl AsRef<[u8]>) -> Result<Option<ObjectInfo>> {
        Ok(self.reader.record(name.as_ref())?.as_ref().map(ObjectInfo::from))
    }

    /// The objects whose names are in `range`, in the order of the names; `.rev()` goes backwards.
    pub fn list_objects<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Objects {
        Objects::new(self.reader.metadata.range(name_bounds(&range)))
    }

    /// The objects whose names start with `prefix`.
    pub fn list_prefix(&self, prefix: impl AsRef<[u8]>) -> Objects {
        let (low, high) = prefix_bounds(prefix.as_ref());
        let high = high.map_or(Bound::Unbounded, Bound::Excluded);
        self.list_objects((Bound::Included(low), high))
    }

    /// One page of a list of objects.
    ///
    /// # Errors
    /// A token that is none; device errors and damage.
    pub fn list_page(&self, options: &ListOptions) -> Result<ObjectPage> {
        page(&self.reader.metadata, options)
    }
}

/// An object in a state that stays.
#[derive(Debug, Clone)]
pub struct ObjectView {
    reader: Reader,
    name: Vec<u8>,
    record: ObjectRecord,
    ahead: ReadAhead,
}

impl ObjectView {
    pub(super) fn new(reader: Reader, name: Vec<u8>, record: ObjectRecord) -> Self {
        Self { reader, name, record, ahead: ReadAhead::default() }
    }

    /// The name that it had, as bytes.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        self.name.clone()
    }

    /// What there is to say about it.
    #[must_use]
    pub fn info(&self) -> ObjectInfo {
        ObjectInfo::from(&self.record)
    }

    /// Length in bytes, holes included.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.record.size
    }

    /// Reads from `offset` (bytes) on into `buffer`; as [`ObjectHandle::read_at`](crate::ObjectHandle::read_at).
    ///
    /// # Errors
    /// Device errors and damage; the buffer may have been written to.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.reader.read_in_stream(&self.record, buffer, offset, &self.ahead)
    }

    /// All bytes.
    ///
    /// # Errors
    /// Device errors and damage; an object that does not fit into memory.
    pub fn read_all(&self) -> Result<Vec<u8>> {
        self.reader.read_all(&self.record)
    }

    /// The chunks that are there, from the first to the last.
    pub fn read_all_chunks(&self) -> Chunks {
        self.read_chunk_range(0..u64::MAX)
    }

    /// The chunks that are there, of the numbers in `chunks`; a chunk has [`CHUNK_BYTES`](crate::CHUNK_BYTES) bytes.
    pub fn read_chunk_range(&self, chunks: Range<u64>) -> Chunks {
        self.reader.chunks_of(&self.record, chunks.start, chunks.end)
    }

    /// The custom metadata `key`; `None` when there is none.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn get_metadata(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.reader.metadata_of(&self.record, key.as_ref())
    }

    /// All custom metadata, in the order of the keys.
    pub fn iter_metadata(&self) -> MetadataEntries {
        self.reader.all_metadata_of(&self.record)
    }

    /// The object as a stream, from its first byte. Writing to it is an error.
    #[must_use]
    pub fn cursor(&self) -> ObjectCursor {
        ObjectCursor::of_view(self.clone())
    }
}

/// A snapshot of a store, open for reading. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct StoreSnapshot {
    metadata: Snapshot,
    chunks: Snapshot,
}

impl StoreSnapshot {
    pub(super) fn new(metadata: Snapshot, chunks: Snapshot) -> Self {
        Self { metadata, chunks }
    }

    pub(super) fn datasets(&self) -> (&Snapshot, &Snapshot) {
        (&self.metadata, &self.chunks)
    }

    /// The name, without that of the store.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        self.metadata.name()
    }

    /// The name of the store that it is of.
    #[must_use]
    pub fn store_name(&self) -> Vec<u8> {
        self.metadata.dataset_name()
    }

    /// What names the snapshot in every pool that it was sent to: the guid of the metadata, as text.
    #[must_use]
    pub fn guid(&self) -> String {
        self.metadata.guid()
    }

    /// When it was made, to the second.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        self.metadata.created()
    }

    /// The checkpoint that it is.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.metadata.generation()
    }

    /// What it holds, as a view: one that was taken outlives the snapshot, and the database.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn view(&self) -> Result<StoreView> {
        Ok(StoreView::new(Reader { metadata: self.metadata.view()?, chunks: self.chunks.view()? }))
    }

    /// Opens the object `name` for reading; `None` when there is none.
    ///
    /// # Errors
    /// Device errors and damage; a database that was closed.
    pub fn open_object(&self, name: impl AsRef<[u8]>) -> Result<Option<ObjectView>> {
        self.view()?.open_object(name)
    }

    /// The bytes of the object `name`; `None` when there is none.
    ///
    /// # Errors
    /// As [`StoreSnapshot::open_object`]; an object that does not fit into memory.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.view()?.get(name)
    }

    /// What there is to say about the object `name`; `None` when there is none.
    ///
    /// # Errors
    /// As [`StoreSnapshot::open_object`].
    pub fn read_object_info(&self, name: impl AsRef<[u8]>) -> Result<Option<ObjectInfo>> {
        self.view()?.read_object_info(name)
    }

    /// The objects whose names are in `range`, in the order of the names; `.rev()` goes backwards. The only entry of a closed
    /// database is the error that says so.
    pub fn list_objects<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Objects {
        Objects::new(self.metadata.range(name_bounds(&range)))
    }

    /// The objects whose names start with `prefix`.
    pub fn list_prefix(&self, prefix: impl AsRef<[u8]>) -> Objects {
        let (low, high) = prefix_bounds(prefix.as_ref());
        let high = high.map_or(Bound::Unbounded, Bound::Excluded);
        self.list_objects((Bound::Included(low), high))
    }

    /// One page of a list of objects.
    ///
    /// # Errors
    /// A token that is none; device errors and damage; a database that was closed.
    pub fn list_page(&self, options: &ListOptions) -> Result<ObjectPage> {
        self.view()?.list_page(options)
    }
}
