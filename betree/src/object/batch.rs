//! Changes of several objects of a store at one instant.

use super::condition::Condition;
use super::edit::check_end;
use super::format::custom_key;
use super::state::not_found;
use super::store::{ObjectStore, check_metadata, check_object_name};
use crate::base::preference::StoragePreference;
use crate::database::{Durability, Error, PairWrite, Result, Side};

/// Changes that are seen, and survive a crash, all or not at all. They are made in the order in which they are named, each on
/// what those before it left. Nothing happens before [`ObjectBatch::commit`]. All together are limited as a
/// [`Batch`](crate::Batch) is.
#[derive(Debug)]
#[must_use = "a batch does nothing until it is committed"]
pub struct ObjectBatch {
    store: ObjectStore,
    changes: Vec<Change>,
    /// The first thing that was wrong, reported by `commit`.
    error: Option<Error>,
}

#[derive(Debug)]
enum Change {
    Check { name: Vec<u8>, condition: Condition },
    Put { name: Vec<u8>, bytes: Vec<u8>, preference: StoragePreference },
    Write { name: Vec<u8>, bytes: Vec<u8>, offset: u64 },
    Delete { name: Vec<u8> },
    Rename { name: Vec<u8>, new_name: Vec<u8> },
    SetMetadata { name: Vec<u8>, key: Vec<u8>, value: Vec<u8> },
    DeleteMetadata { name: Vec<u8>, key: Vec<u8> },
}

impl ObjectBatch {
    pub(super) fn new(store: ObjectStore) -> Self {
        Self { store, changes: Vec::new(), error: None }
    }

    fn push(mut self, checked: Result<()>, change: Change) -> Self {
        match checked {
            Ok(()) => self.changes.push(change),
            Err(error) => self.error = self.error.or(Some(error)),
        }
        self
    }

    /// Fails the whole batch unless `condition` holds of the object `name`, as the changes before leave it.
    pub fn require(self, name: impl AsRef<[u8]>, condition: Condition) -> Self {
        let name = name.as_ref().to_vec();
        self.push(check_object_name(&name), Change::Check { name, condition })
    }

    /// Makes `bytes` the object `name`; see [`ObjectStore::put`].
    pub fn put(self, name: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Self {
        self.put_with_pref(name, bytes, StoragePreference::NONE)
    }

    /// As [`ObjectBatch::put`], on the tier that `preference` names.
    pub fn put_with_pref(
        self,
        name: impl AsRef<[u8]>,
        bytes: impl AsRef<[u8]>,
        preference: StoragePreference,
    ) -> Self {
        let (name, bytes) = (name.as_ref().to_vec(), bytes.as_ref().to_vec());
        self.push(check_object_name(&name), Change::Put { name, bytes, preference })
    }

    /// Writes `bytes` at `offset` (bytes) of the object `name`, which must be there.
    pub fn write_at(self, name: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>, offset: u64) -> Self {
        let (name, bytes) = (name.as_ref().to_vec(), bytes.as_ref().to_vec());
        let checked = check_object_name(&name).and(check_end(offset, bytes.len()).map(|_| ()));
        self.push(checked, Change::Write { name, bytes, offset })
    }

    /// Deletes the object `name`, which must be there.
    pub fn delete(self, name: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref().to_vec();
        self.push(check_object_name(&name), Change::Delete { name })
    }

    /// Gives the object `name`, which must be there, the name `new_name`, in place of one that has it.
    pub fn rename(self, name: impl AsRef<[u8]>, new_name: impl AsRef<[u8]>) -> Self {
        let (name, new_name) = (name.as_ref().to_vec(), new_name.as_ref().to_vec());
        let checked = check_object_name(&name).and(check_object_name(&new_name));
        self.push(checked, Change::Rename { name, new_name })
    }

    /// Sets the custom metadata `key` of the object `name`, which must be there.
    pub fn set_metadata(
        self,
        name: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Self {
        let (name, key, value) = (name.as_ref().to_vec(), key.as_ref().to_vec(), value.as_ref().to_vec());
        let checked = check_object_name(&name).and(check_metadata(&key, &value));
        self.push(checked, Change::SetMetadata { name, key, value })
    }

    /// Deletes the custom metadata `key` of the object `name`, which must be there.
    pub fn delete_metadata(self, name: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        let (name, key) = (name.as_ref().to_vec(), key.as_ref().to_vec());
        let checked = check_object_name(&name).and(check_metadata(&key, &[]));
        self.push(checked, Change::DeleteMetadata { name, key })
    }

    /// Number of changes and requirements so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Commits all changes at one instant.
    ///
    /// # Errors
    /// What was wrong with one of them; an object that is not there; a requirement that does not hold; out of space: nothing
    /// was changed. With [`Durability::Sync`], a device error in the sync itself: the batch is visible, but may be lost in a
    /// crash.
    pub fn commit(self, durability: Durability) -> Result<()> {
        let Self { store, changes, error } = self;
        if let Some(error) = error {
            return Err(error);
        }
        let mut names: Vec<&[u8]> = Vec::with_capacity(changes.len());
        for change in &changes {
            match change {
                Change::Rename { name, new_name } => names.extend([&name[..], &new_name[..]]),
                Change::Check { name, .. }
                | Change::Put { name, .. }
                | Change::Write { name, .. }
                | Change::Delete { name }
                | Change::SetMetadata { name, .. }
                | Change::DeleteMetadata { name, .. } => names.push(name),
            }
        }
        let _gate = store.state.gate.read();
        commit(&store, &changes, &names, durability)
    }
}

fn commit<'a>(
    store: &'a ObjectStore,
    changes: &'a [Change],
    names: &[&[u8]],
    durability: Durability,
) -> Result<()> {
    store.edit(names, durability, |edit| {
        for change in changes {
            match change {
                Change::Check { name, condition } => condition.check(name, edit.record(name))?,
                Change::Put { name, bytes, preference } => {
                    edit.put(name, bytes, *preference)?;
                }
                Change::Write { name, bytes, offset } => edit.write(name, bytes, *offset)?,
                Change::Delete { name } => {
                    if !edit.remove(name) {
                        return Err(not_found(name));
                    }
                }
                Change::Rename { name, new_name } => edit.rename(name, new_name)?,
                Change::SetMetadata { name, key, value } => {
                    let id = edit.record(name).ok_or_else(|| not_found(name))?.id;
                    let (side, key) = (Side::Metadata, custom_key(id, key));
                    let preference = StoragePreference::NONE;
                    edit.push(PairWrite::Put { side, key, value, preference });
                    edit.change(name, |record| record.has_metadata = true)?;
                }
                Change::DeleteMetadata { name, key } => {
                    let id = edit.record(name).ok_or_else(|| not_found(name))?.id;
                    edit.push(PairWrite::Delete { side: Side::Metadata, key: custom_key(id, key) });
                }
            }
        }
        Ok(())
    })
}
