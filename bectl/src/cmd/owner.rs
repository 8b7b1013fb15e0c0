//! What has snapshots: a dataset, or an object store.

use betree::{Database, Dataset, ErrorKind, ObjectStore, SnapshotInfo};

/// A dataset or an object store.
#[derive(Debug)]
pub enum Owner {
    Dataset(Dataset),
    Store(ObjectStore),
}

impl Owner {
    /// Opens the dataset of this name, else the object store; only the store with `store`.
    ///
    /// # Errors
    /// There is neither; what reading needs.
    pub fn open(database: &Database, name: &[u8], store: bool) -> betree::Result<Self> {
        if store {
            return database.open_object_store(name).map(Self::Store);
        }
        match database.open_dataset(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => match database.open_object_store(name) {
                Err(other) if other.kind() == ErrorKind::NotFound => Err(error),
                opened => opened.map(Self::Store),
            },
            opened => opened.map(Self::Dataset),
        }
    }

    /// What it is called in a message.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Dataset(_) => "dataset",
            Self::Store(_) => "object store",
        }
    }

    /// Its name.
    pub fn name(&self) -> Vec<u8> {
        match self {
            Self::Dataset(dataset) => dataset.name(),
            Self::Store(store) => store.name(),
        }
    }

    /// Its snapshots, oldest first.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn snapshots(&self) -> betree::Result<Vec<SnapshotInfo>> {
        match self {
            Self::Dataset(dataset) => dataset.snapshots(),
            Self::Store(store) => store.snapshots(),
        }
    }

    /// As [`Dataset::delete_snapshot`].
    ///
    /// # Errors
    /// As there.
    pub fn delete_snapshot(&self, name: &[u8]) -> betree::Result<()> {
        match self {
            Self::Dataset(dataset) => dataset.delete_snapshot(name),
            Self::Store(store) => store.delete_snapshot(name),
        }
    }

    /// As [`Dataset::rename_snapshot`].
    ///
    /// # Errors
    /// As there.
    pub fn rename_snapshot(&self, name: &[u8], new_name: &[u8]) -> betree::Result<()> {
        match self {
            Self::Dataset(dataset) => dataset.rename_snapshot(name, new_name),
            Self::Store(store) => store.rename_snapshot(name, new_name),
        }
    }

    /// As [`Dataset::hold_snapshot`].
    ///
    /// # Errors
    /// As there.
    pub fn hold_snapshot(&self, name: &[u8], tag: &[u8]) -> betree::Result<()> {
        match self {
            Self::Dataset(dataset) => dataset.hold_snapshot(name, tag),
            Self::Store(store) => store.hold_snapshot(name, tag),
        }
    }

    /// As [`Dataset::release_snapshot`].
    ///
    /// # Errors
    /// As there.
    pub fn release_snapshot(&self, name: &[u8], tag: &[u8]) -> betree::Result<()> {
        match self {
            Self::Dataset(dataset) => dataset.release_snapshot(name, tag),
            Self::Store(store) => store.release_snapshot(name, tag),
        }
    }

    /// As [`Dataset::rollback`].
    ///
    /// # Errors
    /// As there.
    pub fn rollback(&self, name: &[u8], force: bool) -> betree::Result<()> {
        match self {
            Self::Dataset(dataset) => dataset.rollback(name, force),
            Self::Store(store) => store.rollback(name, force),
        }
    }

    /// As [`Dataset::promote`].
    ///
    /// # Errors
    /// As there.
    pub fn promote(&self) -> betree::Result<()> {
        match self {
            Self::Dataset(dataset) => dataset.promote(),
            Self::Store(store) => store.promote(),
        }
    }
}
