//! Read views: one consistent state, in memory.

use super::catalog::DatasetState;
use super::database::Handle;
use super::dataset::{Dataset, bounds, prefix_bounds};
use super::error::{Error, Result};
use crate::tree::{Range, Value, View};
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
        self.view.get(key.as_ref()).map_err(|error| Error::of_tree(&self.state.name.read(), error))
    }

    /// The entries of `range` in the order of their keys; as [`Dataset::range`].
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Entries {
        match bounds(&range) {
            Ok((low, high)) => self.entries(low, high),
            Err(_) => self.entries(Vec::new(), Some(Vec::new())),
        }
    }

    /// The entries whose keys start with `prefix`.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Entries {
        let (low, high) = prefix_bounds(prefix.as_ref());
        self.entries(low, high)
    }

    fn entries(&self, low: Vec<u8>, high: Option<Vec<u8>>) -> Entries {
        Entries { state: Arc::clone(&self.state), range: self.view.range(low, high) }
    }
}

/// Iterator over keys and values; after an error it ends.
#[derive(Debug)]
pub struct Entries {
    state: Arc<DatasetState>,
    range: Range,
}

impl Iterator for Entries {
    type Item = Result<(Value, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.range.next()?;
        Some(next.map_err(|error| Error::of_tree(&self.state.name.read(), error)))
    }
}

impl DoubleEndedIterator for Entries {
    fn next_back(&mut self) -> Option<Self::Item> {
        let next = self.range.next_back()?;
        Some(next.map_err(|error| Error::of_tree(&self.state.name.read(), error)))
    }
}

/// One consistent state of all datasets.
#[derive(Debug, Clone)]
pub struct DatabaseView {
    handle: Arc<Handle>,
    views: HashMap<Vec<u8>, DatasetView>,
}

impl DatabaseView {
    pub(super) fn new(handle: Arc<Handle>) -> Self {
        let core = handle.core();
        // No batch is half applied and no memtable changes place while the commit lock is held.
        let commit = core.commit.lock();
        let mut views = HashMap::new();
        for state in core.catalog.read().named() {
            let view = DatasetView::new(Arc::clone(state), state.tree.view());
            views.insert(state.name.read().clone(), view);
        }
        drop(commit);
        Self { handle, views }
    }

    /// The state of `dataset`.
    ///
    /// # Errors
    /// Not found when the dataset did not exist then.
    pub fn dataset<M>(&self, dataset: &Dataset<M>) -> Result<DatasetView> {
        self.dataset_named(dataset.name())
    }

    /// The state of the dataset that had this name.
    ///
    /// # Errors
    /// Not found when there was none.
    pub fn dataset_named(&self, name: impl AsRef<[u8]>) -> Result<DatasetView> {
        self.handle.core().check_open()?;
        let name = name.as_ref();
        let found = self.views.get(name).cloned();
        found.ok_or_else(|| Error::NotFound { what: "dataset", name: name.escape_ascii().to_string() })
    }
}
