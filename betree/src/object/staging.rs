//! Objects too large for one batch: their chunks are written under an id that no record names and that is marked as being
//! made, and one batch at the end gives it a name and takes the mark away.

use super::format::staged_key;
use super::state::remove_writes;
use super::store::{OBJECT_WRITE_BYTES_MAX, ObjectStore};
use crate::database::{Durability, PairWrite, Result, Side};

/// Bytes of an entry beside those of its caller: number and kind, and the key of a chunk.
const ENTRY_BYTES: usize = 64;

/// The writes of an object that is being made; dropped, it leaves nothing.
pub(super) struct Staging<'a> {
    store: &'a ObjectStore,
    pub id: u64,
    writes: Vec<PairWrite<'a>>,
    bytes: usize,
    marked: bool,
}

impl<'a> Staging<'a> {
    pub fn new(store: &'a ObjectStore) -> Result<Self> {
        let id = store.state.ticket(&store.pair)?;
        Ok(Self { store, id, writes: Vec::new(), bytes: 0, marked: false })
    }

    /// Adds a write of about `bytes` bytes, without what each entry takes.
    pub fn push(&mut self, write: PairWrite<'a>, bytes: usize) -> Result<()> {
        let bytes = bytes + ENTRY_BYTES;
        if self.bytes > 0 && self.bytes + bytes > OBJECT_WRITE_BYTES_MAX {
            self.flush()?;
        }
        self.bytes += bytes;
        self.writes.push(write);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.marked {
            let (side, key) = (Side::Metadata, staged_key(self.id));
            self.writes.insert(0, PairWrite::PutOwned { side, key, value: Vec::new() });
        }
        self.store.pair.commit(&self.writes, Durability::Buffered)?;
        self.marked = true;
        self.writes.clear();
        self.bytes = 0;
        Ok(())
    }

    /// The writes that are left, for the batch that gives the object its name.
    pub fn take(&mut self) -> Vec<PairWrite<'a>> {
        let mut writes = std::mem::take(&mut self.writes);
        if self.marked {
            writes.push(PairWrite::Delete { side: Side::Metadata, key: staged_key(self.id) });
        }
        writes
    }

    /// The object has its name.
    pub fn done(mut self) {
        self.marked = false;
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        if self.marked
            && let Err(error) = self.store.pair.commit(&remove_writes(self.id), Durability::Buffered)
        {
            // The mark stays, and whoever opens the store next removes it.
            log::warn!("what was written of an object that is not made stays: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::chunk_key;
    use super::*;
    use crate::base::preference::StoragePreference;
    use crate::database::{Database, DatabaseConfiguration};
    use crate::pool::{LeafVdev, StoragePoolConfiguration, TierConfiguration};

    fn database() -> Database {
        let storage = StoragePoolConfiguration {
            tiers: vec![TierConfiguration::new(vec![LeafVdev::memory(16 << 20).into()])],
            ..StoragePoolConfiguration::default()
        };
        let configuration =
            DatabaseConfiguration { storage, segment_size: 1 << 19, ..DatabaseConfiguration::default() };
        Database::create_with(configuration, false).unwrap()
    }

    fn staged(store: &ObjectStore) -> Staging<'_> {
        let mut staging = Staging::new(store).unwrap();
        let (side, key) = (Side::Chunks, chunk_key(staging.id, 0));
        let write = PairWrite::Put { side, key, value: b"bytes", preference: StoragePreference::NONE };
        staging.push(write, 5).unwrap();
        staging.flush().unwrap();
        staging
    }

    #[test]
    fn what_is_not_made_leaves_nothing() {
        let database = database();
        let store = database.create_object_store("s").unwrap();
        drop(staged(&store));
        assert_eq!(database.verify().unwrap().objects, 0);
    }

    /// What a process that ends leaves is marked, so that it is no orphan, and gone when the store is written to next.
    #[test]
    fn what_was_being_made_is_removed_before_the_next_object_is() {
        let database = database();
        let store = database.create_object_store("s").unwrap();
        std::mem::forget(staged(&store));
        assert_eq!(database.verify().unwrap().objects, 1);
        assert_eq!(store.list_objects::<&[u8]>(..).count(), 0);
        // A clone knows nothing of this process's objects, as the next process does.
        let snapshot = store.create_snapshot("now").unwrap();
        let copy = database.clone_store_snapshot(&snapshot, "copy").unwrap();
        assert_eq!(database.verify().unwrap().objects, 2);
        copy.put("o", "x").unwrap();
        assert_eq!(database.verify().unwrap().objects, 2);
        assert_eq!(copy.pair.chunks.range::<&[u8]>(..).count(), 1);
        // Going back to a state in which something was being made is no different.
        store.rollback("now", true).unwrap();
        store.put("o", "x").unwrap();
        assert_eq!(store.pair.chunks.range::<&[u8]>(..).count(), 1);
        assert_eq!(database.verify().unwrap().objects, 2);
    }
}
