//! The handle of a dataset.

use super::Durability;
use super::catalog::DatasetState;
use super::commit::Write;
use super::database::Handle;
use super::error::{Error, Result};
use super::limits::{KEY_BYTES_MAX, MESSAGE_BYTES_MAX, VALUE_BYTES_MAX, check_length};
use super::view::{DatasetView, Entries};
use crate::base::preference::StoragePreference;
use crate::run::Kind;
use crate::tree::{Action, DefaultMessageAction, MessageAction, TreeStats, Value};
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// An ordered map of keys to values, with the message action `M`. Cloning is cheap; all clones are the same dataset.
pub struct Dataset<M = DefaultMessageAction> {
    handle: Arc<Handle>,
    state: Arc<DatasetState>,
    action: PhantomData<fn() -> M>,
}

impl<M> Clone for Dataset<M> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle), state: Arc::clone(&self.state), action: PhantomData }
    }
}

impl<M> std::fmt::Debug for Dataset<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Dataset").field(&self.state.display_name()).finish()
    }
}

/// The action of this stored name, when it comes with this crate.
pub(super) fn known_action(name: &str) -> Option<Action> {
    (name == DefaultMessageAction::NAME).then(|| Action::new(DefaultMessageAction))
}

/// Inclusive start and exclusive end of a range of keys. The successor of a key is the key and a zero byte.
pub(super) fn bounds<K: AsRef<[u8]>>(range: &impl RangeBounds<K>) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
    let after = |key: &K| [key.as_ref(), &[0]].concat();
    let start = match range.start_bound() {
        Bound::Included(key) => key.as_ref().to_vec(),
        Bound::Excluded(key) => after(key),
        Bound::Unbounded => Vec::new(),
    };
    let end = match range.end_bound() {
        Bound::Included(key) => Some(after(key)),
        Bound::Excluded(key) => Some(key.as_ref().to_vec()),
        Bound::Unbounded => None,
    };
    for bound in std::iter::once(&start).chain(&end) {
        check_length("range bound", bound.len(), KEY_BYTES_MAX + 1)?;
    }
    Ok((start, end))
}

/// Bounds of the keys that start with `prefix`.
pub(super) fn prefix_bounds(prefix: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return (prefix.to_vec(), Some(end));
        }
    }
    (prefix.to_vec(), None)
}

pub(super) fn check_upsert(length: usize, offset: u32) -> Result<()> {
    check_length("message", length, MESSAGE_BYTES_MAX)?;
    check_length("value", length + offset as usize, VALUE_BYTES_MAX)
}

impl<M> Dataset<M> {
    pub(super) fn new(handle: Arc<Handle>, state: Arc<DatasetState>) -> Self {
        Self { handle, state, action: PhantomData }
    }

    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    pub(super) fn state(&self) -> &Arc<DatasetState> {
        &self.state
    }

    fn check(&self) -> Result<()> {
        self.handle.core().check_open()?;
        if self.state.is_destroyed() {
            return Err(Error::NotFound { what: "dataset", name: self.state.display_name() });
        }
        Ok(())
    }

    fn of(&self, source: crate::tree::TreeError) -> Error {
        Error::of_tree(&self.state.name.read(), source)
    }

    /// The name, as bytes.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        self.state.name.read().clone()
    }

    /// The value of `key`; sees every write that returned before, from any thread.
    ///
    /// # Errors
    /// Device errors, damage, a dataset that was destroyed meanwhile.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.check()?;
        self.state.tree.get(key.as_ref()).map_err(|error| self.of(error))
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// Sets the value of `key`. Keys up to [`KEY_BYTES_MAX`](crate::KEY_BYTES_MAX), values up to
    /// [`VALUE_BYTES_MAX`](crate::VALUE_BYTES_MAX) bytes; both may be empty.
    ///
    /// # Errors
    /// Too large, out of space, an earlier failure: nothing was changed.
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.insert_with_pref(key, value, StoragePreference::NONE)
    }

    /// As [`Dataset::insert`], on the tier that `preference` names.
    ///
    /// # Errors
    /// As [`Dataset::insert`].
    pub fn insert_with_pref(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        preference: StoragePreference,
    ) -> Result<()> {
        check_length("value", value.as_ref().len(), VALUE_BYTES_MAX)?;
        self.message(Kind::Put, preference, key.as_ref(), value.as_ref())
    }

    /// Deletes `key`, whether it exists or not.
    ///
    /// # Errors
    /// As [`Dataset::insert`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.message(Kind::Delete, StoragePreference::NONE, key.as_ref(), &[])
    }

    /// Deletes every key in `range` with one message, whatever its size.
    ///
    /// # Errors
    /// As [`Dataset::insert`]; works on a full pool.
    pub fn range_delete<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        let (start, end) = bounds(&range)?;
        if end.as_ref().is_some_and(|end| *end <= start) {
            return Ok(());
        }
        let write = Write::RangeDelete { dataset: &self.state, start: &start, end: end.as_deref() };
        self.handle.core().write(&[write], Durability::Buffered)
    }

    /// Adds a message of the dataset's action for `key`, without reading.
    ///
    /// # Errors
    /// As [`Dataset::insert`].
    pub fn insert_msg(&self, key: impl AsRef<[u8]>, message: impl AsRef<[u8]>) -> Result<()> {
        self.insert_msg_with_pref(key, message, StoragePreference::NONE)
    }

    /// As [`Dataset::insert_msg`], on the tier that `preference` names.
    ///
    /// # Errors
    /// As [`Dataset::insert`].
    pub fn insert_msg_with_pref(
        &self,
        key: impl AsRef<[u8]>,
        message: impl AsRef<[u8]>,
        preference: StoragePreference,
    ) -> Result<()> {
        let message = message.as_ref();
        check_length("message", message.len(), MESSAGE_BYTES_MAX)?;
        if self.state.tree.action_name() == DefaultMessageAction::NAME
            && !DefaultMessageAction::is_valid(message)
        {
            let reason = String::from("not a list of steps of the default action");
            return Err(Error::InvalidArgument { what: "message", reason });
        }
        self.message(Kind::Upsert, preference, key.as_ref(), message)
    }

    fn message(&self, kind: Kind, preference: StoragePreference, key: &[u8], payload: &[u8]) -> Result<()> {
        check_length("key", key.len(), KEY_BYTES_MAX)?;
        let write = Write::Message { dataset: &self.state, kind, preference, key, payload };
        self.handle.core().write(&[write], Durability::Buffered)
    }

    /// One consistent state of the dataset in memory, without any I/O.
    #[must_use]
    pub fn view(&self) -> DatasetView {
        DatasetView::new(Arc::clone(&self.state), self.state.tree.view())
    }

    /// The entries of `range` in the order of their keys, from one consistent state; `.rev()` goes backwards.
    ///
    /// A bound that is too long, or a range that ends before it starts, is an empty range.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Entries {
        self.view().range(range)
    }

    /// The entries whose keys start with `prefix`.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Entries {
        self.view().prefix(prefix)
    }

    /// The entry with the smallest key.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    pub fn first_key_value(&self) -> Result<Option<(Value, Value)>> {
        self.check()?;
        self.range::<&[u8]>(..).next().transpose()
    }

    /// The entry with the largest key.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    pub fn last_key_value(&self) -> Result<Option<(Value, Value)>> {
        self.check()?;
        self.range::<&[u8]>(..).next_back().transpose()
    }

    /// Makes everything that returned before durable, in all datasets.
    ///
    /// # Errors
    /// Device errors: what was written since the last sync may be lost in a crash.
    pub fn sync(&self) -> Result<()> {
        self.handle.core().sync()
    }

    /// Shape and size of the tree.
    ///
    /// # Errors
    /// Device errors while node headers are read.
    pub fn stats(&self) -> Result<TreeStats> {
        self.check()?;
        self.state.tree.stats().map_err(|error| self.of(error))
    }

    /// The tree as JSON: nodes, slots and runs, without keys' values.
    ///
    /// # Errors
    /// As [`Dataset::stats`].
    pub fn tree_dump(&self) -> Result<serde_json::Value> {
        self.check()?;
        self.state.tree.dump().map_err(|error| self.of(error))
    }
}

impl Dataset<DefaultMessageAction> {
    /// Writes `bytes` at `offset` (bytes) of the value of `key` without reading it; the value grows with zeros as needed.
    ///
    /// # Errors
    /// As [`Dataset::insert`].
    pub fn upsert(&self, key: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>, offset: u32) -> Result<()> {
        self.upsert_with_pref(key, bytes, offset, StoragePreference::NONE)
    }

    /// As [`Dataset::upsert`], on the tier that `preference` names.
    ///
    /// # Errors
    /// As [`Dataset::insert`].
    pub fn upsert_with_pref(
        &self,
        key: impl AsRef<[u8]>,
        bytes: impl AsRef<[u8]>,
        offset: u32,
        preference: StoragePreference,
    ) -> Result<()> {
        check_upsert(bytes.as_ref().len(), offset)?;
        let message = DefaultMessageAction::upsert_msg(offset, bytes.as_ref());
        self.message(Kind::Upsert, preference, key.as_ref(), &message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_exact() {
        let of = |range: (Bound<&str>, Bound<&str>)| bounds::<&str>(&range).unwrap();
        assert_eq!(of((Bound::Included("a"), Bound::Excluded("b"))), (b"a".to_vec(), Some(b"b".to_vec())));
        assert_eq!(
            of((Bound::Excluded("a"), Bound::Included("b"))),
            (b"a\0".to_vec(), Some(b"b\0".to_vec()))
        );
        assert_eq!(of((Bound::Unbounded, Bound::Unbounded)), (vec![], None));
        assert_eq!(prefix_bounds(b"ab"), (b"ab".to_vec(), Some(b"ac".to_vec())));
        assert_eq!(prefix_bounds(b"a\xff\xff"), (b"a\xff\xff".to_vec(), Some(b"b".to_vec())));
        assert_eq!(prefix_bounds(b"\xff"), (b"\xff".to_vec(), None));
        assert_eq!(prefix_bounds(b""), (vec![], None));
    }
}
