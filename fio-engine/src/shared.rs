//! A database that jobs share, and the files of fio in it.

use crate::keys::Keys;
use crate::object::Object;
use crate::target::Target;
use betree::{
    Database, Dataset, DatasetConfiguration, Error, ErrorKind, ObjectStore, Result, StoragePreference,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Name of the object store, and of the dataset.
pub const NAME: &str = "fio";

/// What files of fio are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub enum Interface {
    /// Objects of a store.
    Object = 0,
    /// Keys of a dataset.
    Kv = 1,
}

impl Interface {
    /// The interface that has `number`.
    ///
    /// # Errors
    /// There is none.
    pub fn of(number: u32) -> Result<Self> {
        let found = [Self::Object, Self::Kv].into_iter().find(|interface| *interface as u32 == number);
        found.ok_or_else(|| Error::InvalidArgument { what: "interface", reason: format!("{number} is none") })
    }
}

/// How a file is made, where there is none.
#[derive(Debug, Clone, Copy)]
pub struct Making {
    /// As what.
    pub interface: Interface,
    /// Where an object prefers to be.
    pub preference: StoragePreference,
    /// Bytes of a block, of a file that is keys.
    pub block_bytes: u64,
}

/// Files by what they are and by name.
type Files = HashMap<(Interface, Vec<u8>), Arc<Target>>;

/// An open database.
#[derive(Debug)]
pub struct Shared {
    database: Database,
    files: Mutex<Files>,
}

impl Shared {
    /// Files of fio in `database`.
    pub fn new(database: Database) -> Self {
        Self { database, files: Mutex::default() }
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The object store, which is made when there is none.
    pub fn store(&self) -> Result<ObjectStore> {
        self.database.open_or_create_object_store(NAME)
    }

    /// The dataset, which is made when there is none.
    pub fn dataset(&self) -> Result<Dataset> {
        match self.database.open_dataset(NAME) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let default = self.database.configuration().default_dataset.clone();
                // What fio writes and reads are whole blocks.
                let configuration = DatasetConfiguration { large_value_size: 4 << 10, ..default };
                self.database.create_dataset_with(NAME, &configuration)?;
                self.database.open_dataset(NAME)
            }
            opened => opened,
        }
    }

    /// The file `name`; `None` when there is none.
    ///
    /// # Errors
    /// Those of the database; a file of keys with blocks of another length.
    pub fn find(&self, name: &[u8], making: &Making) -> Result<Option<Arc<Target>>> {
        self.look(name, making, false)
    }

    /// The file `name`, which is made when there is none.
    ///
    /// # Errors
    /// As [`Shared::find`].
    pub fn find_or_make(&self, name: &[u8], making: &Making) -> Result<Arc<Target>> {
        let missing = || Error::NotFound { what: "file", name: name.escape_ascii().to_string() };
        self.look(name, making, true)?.ok_or_else(missing)
    }

    fn look(&self, name: &[u8], making: &Making, make: bool) -> Result<Option<Arc<Target>>> {
        let mut files = self.files.lock();
        let key = (making.interface, name.to_vec());
        let found = match files.get(&key) {
            Some(target) => Arc::clone(target),
            None => {
                let found = match making.interface {
                    Interface::Object => {
                        self.object(name, making, make)?.map(|object| Target::Object(Box::new(object)))
                    }
                    Interface::Kv => self.keys(name, making, make)?.map(Target::Keys),
                };
                let Some(target) = found.map(Arc::new) else { return Ok(None) };
                Arc::clone(files.entry(key).or_insert(target))
            }
        };
        if let Target::Keys(keys) = &*found
            && keys.block_bytes() != making.block_bytes
        {
            let reason = format!("the file has blocks of {} bytes", keys.block_bytes());
            return Err(Error::InvalidArgument { what: "kv-block", reason });
        }
        Ok(Some(found))
    }

    fn object(&self, name: &[u8], making: &Making, make: bool) -> Result<Option<Object>> {
        let store = self.store()?;
        let handle = if make {
            Some(store.open_or_create_object_with_pref(name, making.preference)?)
        } else {
            store.open_object(name)?
        };
        Ok(handle.map(Object))
    }

    fn keys(&self, name: &[u8], making: &Making, make: bool) -> Result<Option<Keys>> {
        let dataset = self.dataset()?;
        match Keys::open(&self.database, &dataset, name)? {
            None if make => Keys::create(&self.database, &dataset, name, making.block_bytes).map(Some),
            found => Ok(found),
        }
    }

    /// Removes the file `name`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](betree::ErrorKind::NotFound).
    pub fn remove(&self, name: &[u8], making: &Making) -> Result<()> {
        let target = self.find(name, making)?;
        let mut files = self.files.lock();
        files.remove(&(making.interface, name.to_vec()));
        match target.as_deref() {
            Some(Target::Object(object)) => object.0.delete(),
            Some(Target::Keys(keys)) => keys.remove(),
            None => Err(Error::NotFound { what: "file", name: name.escape_ascii().to_string() }),
        }
    }

    /// Closes the database.
    ///
    /// # Errors
    /// Those of closing; none when it was closed before.
    pub fn close(&self) -> Result<()> {
        self.files.lock().clear();
        match self.database.clone().close() {
            Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
            closed => closed,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use betree::{DatabaseConfiguration, LeafVdev, StoragePoolConfiguration, TierConfiguration};

    /// A small database in memory.
    pub fn database() -> Database {
        let tiers = vec![TierConfiguration::new(vec![LeafVdev::memory(64 << 20).into()])];
        let storage = StoragePoolConfiguration { tiers, ..StoragePoolConfiguration::default() };
        let configuration =
            DatabaseConfiguration { storage, segment_size: 1 << 20, ..DatabaseConfiguration::default() };
        Database::create_with(configuration, false).unwrap()
    }

    pub fn making(interface: Interface) -> Making {
        Making { interface, preference: StoragePreference::NONE, block_bytes: 4096 }
    }

    #[test]
    fn blocks_of_keys_are_written_once_beside_the_tree() {
        let shared = Shared::new(database());
        let file = shared.find_or_make(b"a", &making(Interface::Kv)).unwrap();
        file.write(&[1; 40_960], 0, StoragePreference::NONE).unwrap();
        shared.database().checkpoint().unwrap();
        assert_eq!(shared.dataset().unwrap().stats().unwrap().large_bytes, 40_960);
    }

    #[test]
    fn files_are_found_by_name_whatever_they_are() {
        let shared = Shared::new(database());
        for interface in [Interface::Object, Interface::Kv] {
            let making = making(interface);
            assert!(shared.find(b"a", &making).unwrap().is_none());
            let file = shared.find_or_make(b"a", &making).unwrap();
            file.extend(10_000).unwrap();
            file.write(b"bytes", 5000, StoragePreference::NONE).unwrap();
            let again = shared.find(b"a", &making).unwrap().unwrap();
            assert!(Arc::ptr_eq(&file, &again));
            let mut read = [1; 8];
            assert_eq!((again.read(&mut read, 4999).unwrap(), &read), (8, b"\0bytes\0\0"));
            again.trim(5001, 2).unwrap();
            assert_eq!((again.read(&mut read, 4999).unwrap(), &read), (8, b"\0b\0\0es\0\0"));
            assert_eq!((again.read(&mut read, 9995).unwrap(), again.size().unwrap()), (5, 10_000));
            shared.remove(b"a", &making).unwrap();
            assert!(shared.find(b"a", &making).unwrap().is_none());
            assert_eq!(shared.remove(b"a", &making).unwrap_err().kind(), ErrorKind::NotFound);
        }
        let making = making(Interface::Kv);
        shared.find_or_make(b"b", &making).unwrap();
        assert!(shared.find(b"b", &Making { block_bytes: 8192, ..making }).is_err());
        shared.close().unwrap();
        shared.close().unwrap();
    }
}
