//! Atomic batches, also across datasets.

use super::Durability;
use super::catalog::DatasetState;
use super::commit::Write;
use super::database::Handle;
use super::dataset::{Dataset, check_message, stored_bounds};
use super::error::{Error, Result};
use super::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX, check_length};
use crate::base::preference::StoragePreference;
use crate::run::Kind;
use crate::tree::DefaultMessageAction;
use std::ops::RangeBounds;
use std::sync::Arc;

/// Writes that are seen, and survive a crash, all or not at all. Nothing happens before [`Batch::commit`].
#[derive(Debug)]
#[must_use = "a batch does nothing until it is committed"]
pub struct Batch {
    handle: Arc<Handle>,
    writes: Vec<Owned>,
    /// The first thing that was wrong, reported by `commit`.
    error: Option<Error>,
}

#[derive(Debug)]
enum Owned {
    Message {
        dataset: Arc<DatasetState>,
        kind: Kind,
        preference: StoragePreference,
        key: Vec<u8>,
        payload: Vec<u8>,
    },
    RangeDelete {
        dataset: Arc<DatasetState>,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
    },
}

impl Batch {
    pub(super) fn new(handle: Arc<Handle>) -> Self {
        Self { handle, writes: Vec::new(), error: None }
    }

    /// Sets the value of `key` in `dataset`.
    pub fn insert<M>(self, dataset: &Dataset<M>, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.insert_with_pref(dataset, key, value, StoragePreference::NONE)
    }

    /// As [`Batch::insert`], on the tier that `preference` names.
    pub fn insert_with_pref<M>(
        self,
        dataset: &Dataset<M>,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        preference: StoragePreference,
    ) -> Self {
        let checked = check_length("value", value.as_ref().len(), VALUE_BYTES_MAX);
        self.message(dataset, Kind::Put, preference, key.as_ref(), value.as_ref(), checked)
    }

    /// Deletes `key` from `dataset`.
    pub fn delete<M>(self, dataset: &Dataset<M>, key: impl AsRef<[u8]>) -> Self {
        self.message(dataset, Kind::Delete, StoragePreference::NONE, key.as_ref(), &[], Ok(()))
    }

    /// Writes `bytes` at `offset` (bytes) of the value of `key` in `dataset`; see [`Dataset::upsert`].
    pub fn upsert(
        self,
        dataset: &Dataset<DefaultMessageAction>,
        key: impl AsRef<[u8]>,
        bytes: impl AsRef<[u8]>,
        offset: u32,
    ) -> Self {
        let message = DefaultMessageAction::upsert_msg(offset, bytes.as_ref());
        let checked = super::dataset::check_upsert(bytes.as_ref().len(), offset);
        self.message(dataset, Kind::Upsert, StoragePreference::NONE, key.as_ref(), &message, checked)
    }

    /// Adds a message of the dataset's action for `key`.
    pub fn insert_msg<M>(
        self,
        dataset: &Dataset<M>,
        key: impl AsRef<[u8]>,
        message: impl AsRef<[u8]>,
    ) -> Self {
        let checked = check_message(dataset.state(), message.as_ref());
        self.message(dataset, Kind::Upsert, StoragePreference::NONE, key.as_ref(), message.as_ref(), checked)
    }

    /// Deletes every key of `dataset` in `range`.
    pub fn range_delete<M, K: AsRef<[u8]>>(
        mut self,
        dataset: &Dataset<M>,
        range: impl RangeBounds<K>,
    ) -> Self {
        let checked = dataset.check_of(&self.handle, "batch");
        match checked.and_then(|()| stored_bounds(&range)) {
            Ok((start, end)) if end.as_ref().is_none_or(|end| start < *end) => {
                self.writes.push(Owned::RangeDelete { dataset: Arc::clone(dataset.state()), start, end });
            }
            Ok(_) => {}
            Err(error) => self.error = self.error.or(Some(error)),
        }
        self
    }

    fn message<M>(
        mut self,
        dataset: &Dataset<M>,
        kind: Kind,
        preference: StoragePreference,
        key: &[u8],
        payload: &[u8],
        checked: Result<()>,
    ) -> Self {
        let checked = checked
            .and_then(|()| check_length("key", key.len(), KEY_BYTES_MAX))
            .and_then(|()| dataset.check_of(&self.handle, "batch"));
        match checked {
            Ok(()) => self.writes.push(Owned::Message {
                dataset: Arc::clone(dataset.state()),
                kind,
                preference,
                key: key.to_vec(),
                payload: payload.to_vec(),
            }),
            Err(error) => self.error = self.error.or(Some(error)),
        }
        self
    }

    /// Number of writes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there are no writes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Commits all writes at one instant.
    ///
    /// # Errors
    /// What was wrong with a write, out of space: nothing was changed. With [`Durability::Sync`], a device error in the
    /// sync itself: the batch is visible, but may be lost in a crash.
    pub fn commit(self, durability: Durability) -> Result<()> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let writes: Vec<Write<'_>> = self
            .writes
            .iter()
            .map(|write| match write {
                Owned::Message { dataset, kind, preference, key, payload } => {
                    Write::Message { dataset, kind: *kind, preference: *preference, key, payload }
                }
                Owned::RangeDelete { dataset, start, end } => {
                    Write::RangeDelete { dataset, start, end: end.as_deref() }
                }
            })
            .collect();
        self.handle.core().write(&writes, durability)
    }
}
