//! Pools in files and small databases on them, for the tests of what callers meet.

use betree::{
    AccessMode, Database, DatabaseConfiguration, Dataset, DatasetConfiguration, DatasetView, LeafVdev,
    StoragePoolConfiguration, TierConfiguration, Value, Vdev,
};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder for pool files that goes with the test.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file of `mib` MiB, created with the pool; its space is not reserved.
    pub fn file(&self, name: &str, mib: u64) -> Vdev {
        let mut tier =
            TierConfiguration::parse_zfs_like([format!("{}:{mib}MiB", self.path(name).display())]).unwrap();
        if let Vdev::Leaf(LeafVdev::File(file)) = &mut tier.top_level_vdevs[0] {
            file.sparse = true;
        }
        tier.top_level_vdevs.remove(0)
    }

    /// A database on one file of `mib` MiB, made for many flushes, splits and merges of little data.
    pub fn one(&self, mib: u64) -> DatabaseConfiguration {
        small([vec![self.file("pool.img", mib)]])
    }

    /// Every file and its bytes.
    pub fn bytes(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap_or_default())).collect()
    }
}

/// An existing file, as it is.
pub fn existing(path: &Path) -> Vdev {
    LeafVdev::file(path).into()
}

/// Tiers of these vdevs.
pub fn storage(tiers: impl IntoIterator<Item = Vec<Vdev>>) -> StoragePoolConfiguration {
    StoragePoolConfiguration {
        tiers: tiers.into_iter().map(TierConfiguration::new).collect(),
        ..StoragePoolConfiguration::default()
    }
}

/// A dataset whose nodes are small enough for a deep tree of few entries.
pub fn tiny_dataset() -> DatasetConfiguration {
    DatasetConfiguration {
        fanout: 4,
        leaf_size: 16 << 10,
        block_size: 4 << 10,
        buffer_size: 16 << 10,
        runs_per_buffer: 3,
        deltas_per_leaf: 3,
        ..DatasetConfiguration::default()
    }
}

/// Small memtables, small nodes, and work that is done in the callers.
pub fn small(tiers: impl IntoIterator<Item = Vec<Vdev>>) -> DatabaseConfiguration {
    DatabaseConfiguration {
        storage: storage(tiers),
        access_mode: AccessMode::OpenOrCreate,
        memtable_size: 16 << 10,
        segment_size: 1 << 20,
        cache_size: 1 << 20,
        background_threads: Some(0),
        default_dataset: tiny_dataset(),
        ..DatabaseConfiguration::default()
    }
}

pub type Contents = Vec<(Vec<u8>, Vec<u8>)>;

fn plain((key, value): (Value, Value)) -> (Vec<u8>, Vec<u8>) {
    (key.to_vec(), value.to_vec())
}

/// Everything in a dataset, in order.
pub fn contents<M>(dataset: &Dataset<M>) -> betree::Result<Contents> {
    dataset.range::<&[u8]>(..).map(|entry| entry.map(plain)).collect()
}

/// Everything in a view, in order.
pub fn seen(view: &DatasetView) -> betree::Result<Contents> {
    view.range::<&[u8]>(..).map(|entry| entry.map(plain)).collect()
}

/// Writes what is in memory down to the leaves.
pub fn settle(db: &Database) {
    db.checkpoint().unwrap();
    db.settle().unwrap();
    db.checkpoint().unwrap();
    db.verify().unwrap();
}
