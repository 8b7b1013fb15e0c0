//! Moving objects between tiers.

use super::chunk::chunk_count;
use super::format::{CHUNK_BYTES, chunk_key};
use super::handle::ObjectHandle;
use crate::base::preference::StoragePreference;
use crate::database::Result;
use crate::tree::Migrated;
use std::ops::Range;

impl ObjectHandle {
    /// Moves the object to the tier that `preference` names, and prefers that for what is written to it from now on.
    /// Says how much was moved; as [`Dataset::migrate_range`](crate::Dataset::migrate_range). Its version stays.
    ///
    /// # Errors
    /// As [`Dataset::migrate_range`](crate::Dataset::migrate_range), and then it prefers what it did before;
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) after it was deleted.
    pub fn migrate(&self, preference: StoragePreference) -> Result<Migrated> {
        let before = self.info()?.preference;
        // First: what is written meanwhile goes there by itself.
        self.set_storage_preference(preference)?;
        let moved = self.migrate_once(preference);
        if moved.is_err()
            && let Err(error) = self.set_storage_preference(before)
        {
            log::warn!("an object that was not moved prefers {preference} all the same: {error}");
        }
        moved
    }

    /// Moves what the object holds now to the tier that `preference` names; what is written to it later goes where it did
    /// before.
    ///
    /// # Errors
    /// As [`ObjectHandle::migrate`].
    pub fn migrate_once(&self, preference: StoragePreference) -> Result<Migrated> {
        self.migrate_chunks(0..u64::MAX, preference)
    }

    /// As [`ObjectHandle::migrate_once`], of the chunks of [`CHUNK_BYTES`] that hold the `length` bytes from `offset` on.
    ///
    /// # Errors
    /// As [`ObjectHandle::migrate`].
    pub fn migrate_range(&self, offset: u64, length: u64, preference: StoragePreference) -> Result<Migrated> {
        self.migrate_chunks(offset / CHUNK_BYTES..chunk_count(offset.saturating_add(length)), preference)
    }

    /// As [`ObjectHandle::migrate`], to the next faster tier that has devices; an object that prefers the fastest one is
    /// moved there.
    ///
    /// # Errors
    /// As [`ObjectHandle::migrate`].
    pub fn migrate_up(&self) -> Result<Migrated> {
        let class = self.class()?;
        let faster = (0..class).rev().find(|class| self.has_tier(*class));
        self.migrate(preference(faster.unwrap_or(class)))
    }

    /// As [`ObjectHandle::migrate`], to the next slower tier that has devices; an object that prefers the slowest one is
    /// moved there.
    ///
    /// # Errors
    /// As [`ObjectHandle::migrate`].
    pub fn migrate_down(&self) -> Result<Migrated> {
        let class = self.class()?;
        let slower = (class + 1..=u8::MAX).take(4).find(|class| self.has_tier(*class));
        self.migrate(preference(slower.unwrap_or(class)))
    }

    /// The class that the object is written to.
    fn class(&self) -> Result<u8> {
        let store = self.store();
        let preference = self.info()?.preference.or(store.storage_preference());
        Ok(preference.class().unwrap_or(store.database().configuration().default_storage_class))
    }

    fn has_tier(&self, class: u8) -> bool {
        let tiers = &self.store().database().configuration().storage.tiers;
        tiers.get(usize::from(class)).is_some_and(|tier| !tier.top_level_vdevs.is_empty())
    }

    fn migrate_chunks(&self, chunks: Range<u64>, preference: StoragePreference) -> Result<Migrated> {
        self.store().pair.check_accepts()?;
        let _gate = self.store().state.gate.read();
        let _shared = self.state.lock.read();
        self.state.check()?;
        let all = chunk_count(self.state.record()?.size);
        let (first, end) = (chunks.start.min(all), chunks.end.min(all));
        let (low, high) = (chunk_key(self.id(), first), chunk_key(self.id(), end.max(first)));
        self.store().pair.chunks.migrate_range(low..high, preference)
    }
}

fn preference(class: u8) -> StoragePreference {
    StoragePreference::new(class).unwrap_or_default()
}
