//! The handle of a dataset.

use super::Durability;
use super::catalog::DatasetState;
use super::commit::Write;
use super::database::Handle;
use super::error::{Error, Result};
use super::limits::{KEY_BYTES_MAX, MESSAGE_BYTES_MAX, VALUE_BYTES_MAX, check_length};
use super::snapshots::{Change, Differences, SNAPSHOT_NAME_BYTES_MAX, Snapshot, SnapshotInfo};
use super::view::{DatasetView, Entries};
use crate::base::preference::StoragePreference;
use crate::run::Kind;
use crate::tree::{Action, DefaultMessageAction, MessageAction, Migrated, PartRead, TreeStats, Value};
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
pub(crate) fn known_action(name: &str) -> Option<Action> {
    (name == DefaultMessageAction::NAME).then(|| Action::new(DefaultMessageAction))
}

/// Inclusive start and exclusive end of a range of keys. The successor of a key is the key and a zero byte.
/// A bound that is longer than any key is still a place between keys.
pub(super) fn bounds<K: AsRef<[u8]>>(range: &impl RangeBounds<K>) -> (Vec<u8>, Option<Vec<u8>>) {
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
    (start, end)
}

/// [`bounds`] of a range that is written down: no longer than those of the longest key.
pub(super) fn stored_bounds<K: AsRef<[u8]>>(
    range: &impl RangeBounds<K>,
) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
    let (start, end) = bounds(range);
    for bound in std::iter::once(&start).chain(&end) {
        check_length("range bound", bound.len(), KEY_BYTES_MAX + 1)?;
    }
    Ok((start, end))
}

/// Bounds of the keys that start with `prefix`.
pub(crate) fn prefix_bounds(prefix: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
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

pub(super) fn check_snapshot_word(what: &'static str, word: &[u8]) -> Result<()> {
    check_length(what, word.len(), SNAPSHOT_NAME_BYTES_MAX)?;
    if word.is_empty() {
        return Err(Error::InvalidArgument { what, reason: String::from("it is empty") });
    }
    Ok(())
}

/// The last `@` of `dataset@name` ends the name of the dataset, which may have some of its own.
pub(super) fn check_snapshot_name(name: &[u8]) -> Result<()> {
    check_snapshot_word("name", name)?;
    if name.contains(&b'@') {
        let reason = String::from("the name of a snapshot has no @");
        return Err(Error::InvalidArgument { what: "name", reason });
    }
    Ok(())
}

/// Makes a snapshot `name` of each of `datasets` at one instant.
pub(super) fn create_snapshots(
    handle: &Arc<Handle>,
    datasets: &[Arc<DatasetState>],
    name: &[u8],
) -> Result<()> {
    check_snapshot_name(name)?;
    let core = handle.core();
    core.check_writable()?;
    core.admit_metadata()?;
    core.change(&[Change::Create { datasets, name, identities: None }])
}

/// Checks a message that a caller made: one that the default action cannot read to its end would swallow those that it is
/// merged with.
pub(super) fn check_message(dataset: &DatasetState, message: &[u8]) -> Result<()> {
    check_length("message", message.len(), MESSAGE_BYTES_MAX)?;
    if dataset.tree.action_name() == DefaultMessageAction::NAME && !DefaultMessageAction::is_valid(message) {
        let reason = String::from("not a list of steps of the default action");
        return Err(Error::InvalidArgument { what: "message", reason });
    }
    Ok(())
}

impl<M> Dataset<M> {
    pub(super) fn new(handle: Arc<Handle>, state: Arc<DatasetState>) -> Self {
        Self { handle, state, action: PhantomData }
    }

    /// Fails when the dataset is not of the database `handle`, to which a `what` belongs.
    pub(super) fn check_of(&self, handle: &Arc<Handle>, what: &str) -> Result<()> {
        if Arc::ptr_eq(&self.handle, handle) {
            return Ok(());
        }
        let reason = format!("it belongs to another database than the {what}");
        Err(Error::InvalidArgument { what: "dataset", reason })
    }

    pub(super) fn state(&self) -> &Arc<DatasetState> {
        &self.state
    }

    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    pub(super) fn check(&self) -> Result<()> {
        self.handle.core().check_open()?;
        if self.state.is_destroyed() {
            return Err(self.state.not_found());
        }
        Ok(())
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
        let value = self.state.tree.get(key.as_ref()).map_err(|error| self.state.error(error))?;
        if value.is_none() {
            // It may have been destroyed in between, and its tree emptied.
            self.check()?;
        }
        Ok(value)
    }

    /// Reads the part of the value from byte `offset` that fits into `buffer`: says how much that is, and how long the whole
    /// value is. Of a large value only the pieces of 16 KiB around the part are read, also below upserts of the default action.
    ///
    /// # Errors
    /// As [`Dataset::get`]; what is in `buffer` then says nothing.
    pub fn get_part(
        &self,
        key: impl AsRef<[u8]>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<Option<PartRead>> {
        self.check()?;
        let read = self.state.tree.get_part(key.as_ref(), offset, buffer);
        let read = read.map_err(|error| self.state.error(error))?;
        if read.is_none() {
            self.check()?;
        }
        Ok(read)
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get_part(key, 0, &mut [])?.is_some())
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
        let (start, end) = stored_bounds(&range)?;
        if end.as_ref().is_some_and(|end| *end <= start) {
            self.check()?;
            return self.handle.core().check_accepts();
        }
        let write = Write::RangeDelete { dataset: &self.state, start: &start, end: end.as_deref() };
        self.handle.core().write(&[write], Durability::Buffered)
    }

    /// Moves the value of `key` to the tier that `preference` names; as [`Dataset::migrate_range`].
    ///
    /// # Errors
    /// As [`Dataset::migrate_range`].
    pub fn migrate(&self, key: impl AsRef<[u8]>, preference: StoragePreference) -> Result<Migrated> {
        let key = key.as_ref();
        self.migrate_range(key..=key, preference)
    }

    /// Moves what is in `range` now to the tier that `preference` names, and says how much that was. What lies there
    /// already stays where it is. It stays on that tier when it is merged, and until it is written with another preference.
    /// Reads and writes go on meanwhile and see no difference; snapshots keep what they refer to where it was. It is durable
    /// with the next checkpoint: a crash before that leaves it where it was.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) when the pool has no devices on that tier;
    /// [`ErrorKind::OutOfSpace`](crate::ErrorKind::OutOfSpace) when there is no room for all of it there: nothing was moved.
    /// When others take the room meanwhile, when a device fails or a value is damaged, what was moved before stays moved.
    pub fn migrate_range<K: AsRef<[u8]>>(
        &self,
        range: impl RangeBounds<K>,
        preference: StoragePreference,
    ) -> Result<Migrated> {
        self.check()?;
        let (low, high) = bounds(&range);
        if high.as_ref().is_some_and(|high| *high <= low) {
            self.handle.core().check_accepts()?;
            return Ok(Migrated::default());
        }
        self.handle.core().migrate(&self.state, low, high, preference)
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
        check_message(&self.state, message)?;
        self.message(Kind::Upsert, preference, key.as_ref(), message)
    }

    fn message(&self, kind: Kind, preference: StoragePreference, key: &[u8], payload: &[u8]) -> Result<()> {
        check_length("key", key.len(), KEY_BYTES_MAX)?;
        let write = Write::Message { dataset: &self.state, kind, preference, key, payload };
        self.handle.core().write(&[write], Durability::Buffered)
    }

    /// One consistent state of the dataset in memory, without any I/O. Views and iterators may outlive the database: they
    /// read what they saw, and keep its devices open and locked.
    #[must_use]
    pub fn view(&self) -> DatasetView {
        DatasetView::new(Arc::clone(&self.state), self.state.tree.view())
    }

    /// Makes the snapshot `name`: durable, with everything that was written before this call. The cost is that of a
    /// checkpoint, whatever the dataset holds; writers go on meanwhile. A name has 1 to 1024 bytes, and no `@` among them.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists); out of space, device errors: there is no snapshot then.
    pub fn create_snapshot(&self, name: impl AsRef<[u8]>) -> Result<Snapshot> {
        let name = name.as_ref();
        create_snapshots(&self.handle, std::slice::from_ref(&self.state), name)?;
        Snapshot::open(&self.handle, &self.state, name)
    }

    /// Opens the snapshot `name`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound); device errors and damage.
    pub fn open_snapshot(&self, name: impl AsRef<[u8]>) -> Result<Snapshot> {
        self.check()?;
        Snapshot::open(&self.handle, &self.state, name.as_ref())
    }

    /// All snapshots, oldest first.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        self.check()?;
        self.handle.core().snapshots_of(&self.state)
    }

    /// Deletes the snapshot `name`. The name is gone when this returns; what only it had is given back in steps, by later
    /// checkpoints, also after a crash. Who has it open still reads it. Works on a full pool.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound); [`ErrorKind::Busy`](crate::ErrorKind::Busy) names its clones or
    /// holds; device errors.
    pub fn delete_snapshot(&self, name: impl AsRef<[u8]>) -> Result<()> {
        self.change_snapshots(Change::Delete { dataset: &self.state, name: name.as_ref() })
    }

    /// What has to be done to make of `snapshot` what the dataset holds now, which stays so for the iterator. Reads only what
    /// the two do not share. The snapshot may be of another dataset.
    ///
    /// # Errors
    /// A snapshot of another database; a database that was closed, a dataset that was destroyed; device errors and damage.
    pub fn changes_since(&self, snapshot: &Snapshot) -> Result<Differences> {
        snapshot.check_of(&self.handle)?;
        let view = self.state.tree.view();
        self.check()?;
        snapshot.diff_to(view)
    }

    /// Gives the snapshot `name` the name `new_name`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound);
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists).
    pub fn rename_snapshot(&self, name: impl AsRef<[u8]>, new_name: impl AsRef<[u8]>) -> Result<()> {
        let (from, to) = (name.as_ref(), new_name.as_ref());
        check_snapshot_name(to)?;
        self.change_snapshots(Change::Rename { dataset: &self.state, from, to })
    }

    /// Keeps the snapshot `name` from being deleted until `tag` is released.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound);
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) for a tag that holds it already.
    pub fn hold_snapshot(&self, name: impl AsRef<[u8]>, tag: impl AsRef<[u8]>) -> Result<()> {
        let (name, tag) = (name.as_ref(), tag.as_ref());
        check_snapshot_word("tag", tag)?;
        self.change_snapshots(Change::Hold { dataset: &self.state, name, tag })
    }

    /// Takes a hold back.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for the snapshot or the tag.
    pub fn release_snapshot(&self, name: impl AsRef<[u8]>, tag: impl AsRef<[u8]>) -> Result<()> {
        let (name, tag) = (name.as_ref(), tag.as_ref());
        self.change_snapshots(Change::Release { dataset: &self.state, name, tag })
    }

    /// Makes the dataset what it was in the snapshot `name`: everything since is gone when this returns, writes in progress
    /// included. With `force` later snapshots are deleted; without, they are in the way. Views that were taken before still
    /// read what they saw.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound); [`ErrorKind::Busy`](crate::ErrorKind::Busy) names a later
    /// snapshot, or what needs one: nothing changed. A checkpoint that fails after that leaves the database closed for
    /// writing, and the dataset as it was when it is opened next.
    pub fn rollback(&self, name: impl AsRef<[u8]>, force: bool) -> Result<()> {
        // What this needs is free, or becomes so here, where failing changes nothing.
        self.handle.core().check_accepts()?;
        self.handle.core().checkpoint(true)?;
        self.handle.core().admit_metadata()?;
        self.change_snapshots(Change::Rollback {
            dataset: &self.state,
            name: name.as_ref(),
            force,
            keep: None,
        })
    }

    /// Makes a clone the owner of the snapshots up to the one that it was cloned from; the dataset that had them becomes a
    /// clone of this one. What either holds stays the same.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) when this is no clone;
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) when both have a snapshot of one name.
    pub fn promote(&self) -> Result<()> {
        self.change_snapshots(Change::Promote { dataset: &self.state })
    }

    /// The names of the dataset and of the snapshot that this one was cloned from.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn origin(&self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.check()?;
        self.handle.core().origin_names(&self.state)
    }

    fn change_snapshots(&self, change: Change<'_>) -> Result<()> {
        self.check()?;
        self.handle.core().change(&[change])
    }

    /// A view, and whether it is one of a dataset that exists: destroying marks it before its tree is emptied, so that a
    /// view of the empty tree is always found out.
    fn checked_view(&self) -> (DatasetView, Result<()>) {
        let view = self.view();
        let checked = self.check();
        (view, checked)
    }

    /// The entries of `range` in the order of their keys, from one consistent state; `.rev()` goes backwards.
    ///
    /// A range that ends before it starts is empty. The only entry of a closed database, or of a dataset that was
    /// destroyed, is the error that says so.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Entries {
        match self.checked_view() {
            (view, Ok(())) => view.range(range),
            (view, Err(error)) => view.refused(error),
        }
    }

    /// The entries whose keys start with `prefix`.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Entries {
        match self.checked_view() {
            (view, Ok(())) => view.prefix(prefix),
            (view, Err(error)) => view.refused(error),
        }
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
        self.state.tree.stats().map_err(|error| self.state.error(error))
    }

    /// The tree as JSON: nodes, slots and runs, without keys' values.
    ///
    /// # Errors
    /// As [`Dataset::stats`].
    pub fn tree_dump(&self) -> Result<serde_json::Value> {
        self.check()?;
        self.state.tree.dump().map_err(|error| self.state.error(error))
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
        let of = |range: (Bound<&str>, Bound<&str>)| bounds::<&str>(&range);
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
