//! What can be read: a dataset, an object store, or a snapshot of one.

use crate::args::SnapshotName;
use crate::failure::{Failure, quoted};
use betree::{Database, Dataset, Entries, ErrorKind, Snapshot, StoreView, Value};
use std::ops::Bound;

/// A dataset or a snapshot, open for reading.
#[derive(Debug)]
pub enum Readable {
    Dataset(Dataset),
    Snapshot(Snapshot),
}

impl Readable {
    /// Opens the dataset of this name, else the snapshot.
    ///
    /// # Errors
    /// There is neither; what reading needs.
    pub fn open(database: &Database, name: &[u8]) -> anyhow::Result<Self> {
        let error = match database.open_dataset(name) {
            Ok(dataset) => return Ok(Self::Dataset(dataset)),
            Err(error) => error,
        };
        match SnapshotName::parse(name) {
            Some(full) if error.kind() == ErrorKind::NotFound => {
                Ok(Self::Snapshot(database.open_dataset(&full.dataset)?.open_snapshot(&full.name)?))
            }
            _ => Err(error.into()),
        }
    }

    /// What it is called in a message.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Dataset(_) => "dataset",
            Self::Snapshot(_) => "snapshot",
        }
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    pub fn get(&self, key: &[u8]) -> betree::Result<Option<Value>> {
        match self {
            Self::Dataset(dataset) => dataset.get(key),
            Self::Snapshot(snapshot) => snapshot.get(key),
        }
    }

    /// The entries between two keys.
    pub fn range(&self, bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>)) -> Entries {
        match self {
            Self::Dataset(dataset) => dataset.range::<Vec<u8>>(bounds),
            Self::Snapshot(snapshot) => snapshot.range::<Vec<u8>>(bounds),
        }
    }

    /// The entries whose keys start with `prefix`.
    pub fn prefix(&self, prefix: &[u8]) -> Entries {
        match self {
            Self::Dataset(dataset) => dataset.prefix(prefix),
            Self::Snapshot(snapshot) => snapshot.prefix(prefix),
        }
    }
}

/// Refuses a name for a dataset that is that of a snapshot: whoever writes to it means the snapshot, which can only be read.
///
/// # Errors
/// [`Failure::Refused`]; what reading needs.
pub fn check_no_snapshot(database: &Database, name: &[u8]) -> anyhow::Result<()> {
    match Readable::open(database, name) {
        Ok(Readable::Snapshot(_)) => {
            Err(Failure::Refused(format!("{} is a snapshot, which is never written to", quoted(name))).into())
        }
        Ok(Readable::Dataset(_)) => Ok(()),
        // Of a dataset that this program cannot read, whoever opens it says so.
        Err(error) => match error.downcast_ref::<betree::Error>().map(betree::Error::kind) {
            Some(ErrorKind::NotFound | ErrorKind::InvalidArgument) => Ok(()),
            _ => Err(error),
        },
    }
}

/// One state of the object store of this name, else of the snapshot.
///
/// # Errors
/// There is neither; what reading needs.
pub fn open_store_view(database: &Database, name: &[u8]) -> anyhow::Result<StoreView> {
    let error = match database.open_object_store(name) {
        Ok(store) => return Ok(store.view()?),
        Err(error) => error,
    };
    match SnapshotName::parse(name) {
        Some(full) if error.kind() == ErrorKind::NotFound => {
            Ok(database.open_object_store(&full.dataset)?.open_snapshot(&full.name)?.view()?)
        }
        _ => Err(error.into()),
    }
}

/// As [`check_no_snapshot`], of a name for an object store.
///
/// # Errors
/// As there.
pub fn check_no_store_snapshot(database: &Database, name: &[u8]) -> anyhow::Result<()> {
    let Some(full) = SnapshotName::parse(name) else { return Ok(()) };
    let snapshot = match database.open_object_store(name) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            database.open_object_store(&full.dataset).and_then(|store| store.open_snapshot(&full.name))
        }
        Err(error) => Err(error),
    };
    match snapshot {
        Ok(_) => {
            Err(Failure::Refused(format!("{} is a snapshot, which is never written to", quoted(name))).into())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}
