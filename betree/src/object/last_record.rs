//! The record that a handle read last: as long as nothing was written anywhere, it need not be looked for again.

use super::format::ObjectRecord;
use crate::base::sync::Mutex;

/// What names a state of a store: the newest write that it has of the whole database, and how often another state took the
/// place of the store's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoreMoment {
    pub visible: u64,
    pub turns: u64,
}

/// The record that was found at some moment.
#[derive(Debug, Default)]
pub(super) struct LastRecord {
    found: Mutex<Option<(StoreMoment, ObjectRecord)>>,
}

/// Handles do not share it: what two threads write to is in the way of both.
impl Clone for LastRecord {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl LastRecord {
    /// The record at `moment`, when that is the moment of the last one.
    pub fn get(&self, moment: StoreMoment) -> Option<ObjectRecord> {
        let (found_at, record) = (*self.found.try_lock()?)?;
        (found_at == moment).then_some(record)
    }

    /// `record` was found at `moment`.
    pub fn set(&self, moment: StoreMoment, record: ObjectRecord) {
        if let Some(mut found) = self.found.try_lock() {
            *found = Some((moment, record));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::database::{Database, DatabaseConfiguration, ErrorKind};
    use crate::object::ObjectStore;
    use crate::pool::{LeafVdev, StoragePoolConfiguration, TierConfiguration};

    fn store() -> ObjectStore {
        let storage = StoragePoolConfiguration {
            tiers: vec![TierConfiguration::new(vec![LeafVdev::memory(16 << 20).into()])],
            ..StoragePoolConfiguration::default()
        };
        let configuration =
            DatabaseConfiguration { storage, segment_size: 1 << 19, ..DatabaseConfiguration::default() };
        Database::create_with(configuration, false).unwrap().create_object_store("s").unwrap()
    }

    #[test]
    fn what_changed_elsewhere_is_looked_for_again() {
        let store = store();
        store.put("o", "first").unwrap();
        let (one, other) =
            (store.open_object("o").unwrap().unwrap(), store.open_object("o").unwrap().unwrap());
        let found = || one.last.get(store.now().unwrap().1).map(|record| record.size);
        assert_eq!((found(), one.size().unwrap(), found()), (None, 5, Some(5)));
        other.write_at(b"longer", 3).unwrap();
        assert_eq!((found(), one.size().unwrap(), found()), (None, 9, Some(9)));
        // Anything that is written may have been the object.
        store.put("p", "another").unwrap();
        assert_eq!((found(), one.size().unwrap(), found()), (None, 9, Some(9)));
        store.create_snapshot("now").unwrap();
        other.truncate(2).unwrap();
        assert_eq!(one.size().unwrap(), 2);
        store.rollback("now", true).unwrap();
        assert_eq!((found(), one.size().unwrap()), (None, 9));
        store.rename_object("o", "q").unwrap();
        assert_eq!((found(), one.size().unwrap(), found()), (None, 9, Some(9)));
        store.put("q", "in its place").unwrap();
        assert_eq!(one.size().unwrap_err().kind(), ErrorKind::NotFound);
    }
}
