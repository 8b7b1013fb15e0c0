//! betree through its public interface: one file as its only vdev, no compression, the given cache.

use crate::engine::{Engine, Settings};
use crate::error::Error;
use crate::keys::ENTRY_BYTES;
use betree::{
    AccessMode, Database, DatabaseConfiguration, Dataset, FileLeaf, LeafVdev, StoragePoolConfiguration,
    TierConfiguration,
};
use std::ops::ControlFlow;
use std::path::Path;

/// Size of the pool's file, as a multiple of what its entries hold: room for the old and the new of every merge.
const POOL_SHARE: u64 = 4;

/// What the pool has at least, in bytes: the log and the reserve do not shrink with the data.
const POOL_BYTES_MIN: u64 = 1 << 30;

/// Name of the dataset.
const DATASET: &str = "entries";

/// An open betree database with one dataset.
pub struct Betree {
    database: Database,
    dataset: Dataset,
}

impl Engine for Betree {
    fn open(folder: &Path, settings: &Settings) -> Result<Self, Error> {
        let file = folder.join("pool.img");
        let file_bytes = POOL_BYTES_MIN + settings.keys * ENTRY_BYTES * POOL_SHARE;
        let leaf = FileLeaf { size: Some(file_bytes), direct: settings.direct, ..FileLeaf::new(file) };
        let tier = TierConfiguration::new(vec![LeafVdev::File(leaf).into()]);
        let database = Database::build(DatabaseConfiguration {
            storage: StoragePoolConfiguration { tiers: vec![tier], ..Default::default() },
            cache_size: usize::try_from(settings.cache_bytes)
                .map_err(|_| Error::Arguments("the cache exceeds the address space".into()))?,
            access_mode: AccessMode::OpenOrCreate,
            // The peers make nothing durable by themselves either.
            sync_interval_ms: None,
            ..Default::default()
        })?;
        let dataset = database.open_or_create_dataset(DATASET)?;
        Ok(Self { database, dataset })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        Ok(self.dataset.insert(key, value)?)
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.dataset.insert(key, value)?;
        Ok(self.database.sync()?)
    }

    fn get<T>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> T) -> Result<T, Error> {
        Ok(read(self.dataset.get(key)?.as_deref()))
    }

    fn scan(
        &self,
        from: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        for entry in self.dataset.range(from..) {
            let (key, value) = entry?;
            if each(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Error> {
        Ok(self.database.sync()?)
    }

    fn used_bytes(&self) -> Option<u64> {
        Some(self.database.free_space_tier().iter().map(|tier| tier.total - tier.free).sum())
    }

    fn close(self) -> Result<(), Error> {
        drop(self.dataset);
        Ok(self.database.close()?)
    }
}
