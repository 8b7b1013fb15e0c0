//! Read views: one consistent state, in memory.

use super::catalog::DatasetState;
use super::database::Handle;
use super::dataset::{Dataset, bounds, prefix_bounds};
use super::error::{Error, Result};
use super::format::Role;
use crate::base::ids::DatasetId;
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::dmu::PendingJob;
use crate::tree::{Begun, PartRead, Range, TreeError, Value, View};
use std::collections::HashMap;
use std::ops::RangeBounds;
use std::sync::Arc;

/// One consistent state of a dataset: `Send + 'static`, cheap to clone. What it sees is kept as long as it lives.
#[derive(Debug, Clone)]
pub struct DatasetView {
    state: Arc<DatasetState>,
    view: View,
}

impl DatasetView {
    pub(super) fn new(state: Arc<DatasetState>, view: View) -> Self {
        Self { state, view }
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.view.get(key.as_ref()).map_err(|error| self.state.error(error))
    }

    /// Reads a part of the value of `key`; as [`Dataset::get_part`].
    ///
    /// # Errors
    /// As [`DatasetView::get`]; what is in `buffer` then says nothing.
    pub fn get_part(
        &self,
        key: impl AsRef<[u8]>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<Option<PartRead>> {
        self.view.get_part(key.as_ref(), offset, buffer).map_err(|error| self.state.error(error))
    }

    /// Starts to read `length` bytes from byte `offset` of the value of `key`.
    pub(crate) fn get_part_in_background(&self, key: Vec<u8>, offset: u64, length: usize) -> PendingPart {
        let (view, dmu) = (self.view.clone(), self.view.tree.dmu());
        let read = move || {
            let mut bytes = vec![0; length];
            let read = view.get_part(&key, offset, &mut bytes);
            Ok(read.map(|read| {
                read.map(|read| {
                    bytes.truncate(read.filled);
                    bytes
                })
            }))
        };
        PendingPart { state: Arc::clone(&self.state), part: dmu.read_in_background(length, read) }
    }

    /// Starts to bring `length` bytes from byte `offset` of the value of `key` into the cache.
    pub(crate) fn read_ahead(&self, key: Vec<u8>, offset: u64, length: usize) -> PendingReadAhead {
        let (view, dmu) = (self.view.clone(), self.view.tree.dmu());
        let wanted = Arc::new(AtomicBool::new(true));
        let is_wanted = Arc::clone(&wanted);
        let read = move || match is_wanted.load(Ordering::Relaxed) {
            true => Ok(view.read_ahead(&key, offset, length)),
            false => Ok(Ok(false)),
        };
        PendingReadAhead { job: Some(dmu.read_in_background(length, read)), wanted }
    }

    /// Begins a read as [`DatasetView::get_part`], and waits for no device. Without `requests`, what is not in memory is for somebody
    /// who waits.
    pub(super) fn begin_part(
        &self,
        key: &[u8],
        offset: u64,
        buffer: &mut [u8],
        requests: bool,
    ) -> Result<Begun> {
        let begun = self.view.clone().begin_part(key, offset, buffer, requests);
        begun.map_err(|error| self.state.error(error))
    }

    pub(super) fn state(&self) -> &Arc<DatasetState> {
        &self.state
    }

    /// The newest sequence number that the view sees: two views of a dataset with one number have the same entries, as long
    /// as no other state takes the place of the dataset's.
    pub(crate) fn visible(&self) -> u64 {
        self.view.visible
    }

    /// Bytes that the cache holds at most.
    pub(crate) fn cache_bytes_max(&self) -> usize {
        self.view.tree.dmu().cache().bytes_max()
    }

    /// The entries of `range` in the order of their keys; as [`Dataset::range`].
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Entries {
        let (low, high) = bounds(&range);
        self.entries(low, high)
    }

    /// The entries whose keys start with `prefix`.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Entries {
        let (low, high) = prefix_bounds(prefix.as_ref());
        self.entries(low, high)
    }

    fn entries(&self, low: Vec<u8>, high: Option<Vec<u8>>) -> Entries {
        Entries { state: Arc::clone(&self.state), range: self.view.range(low, high), refused: None }
    }

    /// Entries that are nothing but `error`.
    pub(super) fn refused(&self, error: Error) -> Entries {
        Entries { refused: Some(error), ..self.entries(Vec::new(), Some(Vec::new())) }
    }
}

/// A part of a value on its way into the cache. When it is dropped, nothing of it is under way any more: a job holds the
/// devices, and may not outlive what everybody knows of.
#[derive(Debug)]
pub(crate) struct PendingReadAhead {
    job: Option<PendingJob<Result<bool, TreeError>>>,
    wanted: Arc<AtomicBool>,
}

impl PendingReadAhead {
    /// Waits until it is there, or cannot be: who needs what failed reads it again, and fails. Whether a device was asked.
    pub fn wait(mut self) -> bool {
        self.finish()
    }

    /// Nobody wants it: what has not begun need not begin.
    pub fn cancel(&self) {
        self.wanted.store(false, Ordering::Relaxed);
    }

    /// Whether nothing of it is under way.
    pub fn is_done(&self) -> bool {
        self.job.as_ref().is_none_or(PendingJob::is_done)
    }

    fn finish(&mut self) -> bool {
        match self.job.take().map(PendingJob::wait) {
            None => false,
            Some(Ok(Ok(was_read))) => was_read,
            Some(Ok(Err(error))) => {
                log::debug!("what was read ahead is not there: {error}");
                true
            }
            Some(Err(error)) => {
                log::debug!("what was read ahead is not there: {error}");
                true
            }
        }
    }
}

impl Drop for PendingReadAhead {
    fn drop(&mut self) {
        self.cancel();
        self.finish();
    }
}

/// A part of a value that is being read.
pub(crate) struct PendingPart {
    state: Arc<DatasetState>,
    part: PendingJob<Result<Option<Vec<u8>>, TreeError>>,
}

impl PendingPart {
    /// Waits for it.
    pub fn wait(self) -> Result<Option<Vec<u8>>> {
        self.part.wait()?.map_err(|error| self.state.error(error))
    }
}

/// Iterator over keys and values; after an error it ends.
#[derive(Debug)]
pub struct Entries {
    state: Arc<DatasetState>,
    range: Range,
    /// Why there is nothing to read; told once.
    refused: Option<Error>,
}

impl Entries {
    #[cold]
    fn refuse(&mut self) -> Option<Result<(Value, Value)>> {
        self.refused.take().map(Err)
    }
}

impl Iterator for Entries {
    type Item = Result<(Value, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(next) = self.range.next() else { return self.refuse() };
        Some(next.map_err(|error| self.state.error(error)))
    }
}

impl DoubleEndedIterator for Entries {
    fn next_back(&mut self) -> Option<Self::Item> {
        let Some(next) = self.range.next_back() else { return self.refuse() };
        Some(next.map_err(|error| self.state.error(error)))
    }
}

/// One consistent state of all datasets.
#[derive(Debug, Clone)]
pub struct DatabaseView {
    handle: Arc<Handle>,
    views: HashMap<DatasetId, DatasetView>,
    /// As they were then: datasets may have other names by now.
    names: HashMap<Vec<u8>, DatasetId>,
}

impl DatabaseView {
    pub(super) fn new(handle: Arc<Handle>) -> Self {
        let core = handle.core();
        // No batch is half applied and no memtable changes place while the commit lock is held.
        let commit = core.commit.lock();
        let (mut views, mut names) = (HashMap::new(), HashMap::new());
        for state in core.catalog.read().named() {
            let view = DatasetView::new(Arc::clone(state), state.tree.view());
            views.insert(state.id, view);
            if state.role == Role::Dataset {
                names.insert(state.name.read().clone(), state.id);
            }
        }
        drop(commit);
        Self { handle, views, names }
    }

    /// The state of `dataset`, whatever its name was then.
    ///
    /// # Errors
    /// Not found when the dataset did not exist then; a dataset of another database.
    pub fn dataset<M>(&self, dataset: &Dataset<M>) -> Result<DatasetView> {
        dataset.check_of(&self.handle, "view")?;
        self.find(Some(dataset.state().id), &dataset.name())
    }

    /// The state of the dataset that had this name.
    ///
    /// # Errors
    /// Not found when there was none.
    pub fn dataset_named(&self, name: impl AsRef<[u8]>) -> Result<DatasetView> {
        let name = name.as_ref();
        self.find(self.names.get(name).copied(), name)
    }

    fn find(&self, id: Option<DatasetId>, name: &[u8]) -> Result<DatasetView> {
        self.handle.core().check_open()?;
        let found = id.and_then(|id| self.views.get(&id)).cloned();
        found.ok_or_else(|| Error::NotFound { what: "dataset", name: name.escape_ascii().to_string() })
    }
}
