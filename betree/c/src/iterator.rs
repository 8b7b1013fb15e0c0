//! Iterators over names, entries and differences. They own what they read, so that everything else may be freed before them.

use crate::boundary::{find, given, illegal, out, out_bytes, release};
use crate::bytes::ByteSlice;
use crate::error::Failure;
use engine::{Difference, MetadataEntries, Result, Value};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard};

/// The lock of an iterator or a batch. One that panicked under way is at no place that it could go on from.
pub fn enter<T>(place: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    place.lock().map_err(|_| illegal("handle", "an earlier call on it failed on a bug of the library"))
}

/// Iterator over names, in order; of the time when it was made. Freed with `betree_free_name_iter`.
#[derive(Debug)]
pub struct Names(Mutex<VecDeque<Vec<u8>>>);

impl Names {
    pub fn new(names: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self(Mutex::new(names.into_iter().collect()))
    }
}

/// Puts the next name into `name`, which is then freed with betree_free_byte_slice. 0; 1 at the end, then and forever; -1 on
/// error. Thread-safe: each name goes to one caller.
#[unsafe(no_mangle)]
pub extern "C" fn betree_name_iter_next(
    name_iter: Option<&Names>,
    name: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let name = out_bytes("name", name)?;
        let next = enter(&given("name_iter", name_iter)?.0)?.pop_front();
        Ok(next.map(|next| name.set(next.into())))
    })
}

/// Frees an iterator over names; NULL is none. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_free_name_iter(name_iter: Option<Box<Names>>) {
    release(name_iter);
}

/// What entries are of.
#[derive(Debug)]
enum Source {
    Dataset(engine::Entries),
    Metadata(MetadataEntries),
    /// The end, or an error, was told.
    Done,
}

/// Iterator over keys and values, in the order of the keys, from one consistent state; after an error it is at its end. Freed
/// with `betree_free_range_iter`.
#[derive(Debug)]
pub struct Entries(Mutex<Source>);

impl From<engine::Entries> for Entries {
    fn from(entries: engine::Entries) -> Self {
        Self(Mutex::new(Source::Dataset(entries)))
    }
}

impl From<MetadataEntries> for Entries {
    fn from(entries: MetadataEntries) -> Self {
        Self(Mutex::new(Source::Metadata(entries)))
    }
}

fn of_metadata(entry: Result<(Vec<u8>, Value)>) -> Result<(ByteSlice, ByteSlice)> {
    entry.map(|(key, value)| (key.into(), value.into()))
}

fn of_dataset(entry: Result<(Value, Value)>) -> Result<(ByteSlice, ByteSlice)> {
    entry.map(|(key, value)| (key.into(), value.into()))
}

impl Entries {
    fn next(&self, is_back: bool) -> Result<Option<(ByteSlice, ByteSlice)>> {
        let mut source = enter(&self.0)?;
        let next = match &mut *source {
            Source::Dataset(entries) if is_back => entries.next_back().map(of_dataset),
            Source::Dataset(entries) => entries.next().map(of_dataset),
            Source::Metadata(entries) if is_back => entries.next_back().map(of_metadata),
            Source::Metadata(entries) => entries.next().map(of_metadata),
            Source::Done => None,
        };
        if !matches!(next, Some(Ok(_))) {
            *source = Source::Done;
        }
        next.transpose()
    }
}

fn put_entry(
    iterator: Option<&Entries>,
    is_back: bool,
    key: *mut ByteSlice,
    value: *mut ByteSlice,
) -> Result<Option<()>> {
    let (key, value) = (out_bytes("key", key)?, out_bytes("value", value)?);
    let next = given("range_iter", iterator)?.next(is_back)?;
    Ok(next.map(|(next_key, next_value)| {
        key.set(next_key);
        value.set(next_value);
    }))
}

/// Puts the next key and its value into `key` and `value`, which are then freed with betree_free_byte_slice. 0; 1 at the end,
/// then and forever; -1 on error. Thread-safe: each entry goes to one caller.
#[unsafe(no_mangle)]
pub extern "C" fn betree_range_iter_next(
    range_iter: Option<&Entries>,
    key: *mut ByteSlice,
    value: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || put_entry(range_iter, false, key, value))
}

/// As betree_range_iter_next, from the other end: both may be mixed, and meet in between. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_range_iter_next_back(
    range_iter: Option<&Entries>,
    key: *mut ByteSlice,
    value: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || put_entry(range_iter, true, key, value))
}

/// Frees an iterator over entries; NULL is none. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_free_range_iter(range_iter: Option<Box<Entries>>) {
    release(range_iter);
}

/// Iterator over what changed between two states of a dataset, in the order of the keys; after an error it is at its end. Freed
/// with `betree_free_diff_iter`.
#[derive(Debug)]
pub struct Differences(Mutex<Option<engine::Differences>>);

impl From<engine::Differences> for Differences {
    fn from(differences: engine::Differences) -> Self {
        Self(Mutex::new(Some(differences)))
    }
}

/// Puts the next key that changed into `key`, and its value in the later state into `value`; or, when the later state does not
/// have the key, true into `is_deleted` and no bytes into `value`. Both slices are then freed with betree_free_byte_slice. 0; 1
/// at the end, then and forever; -1 on error. Thread-safe: each change goes to one caller.
#[unsafe(no_mangle)]
pub extern "C" fn betree_diff_iter_next(
    diff_iter: Option<&Differences>,
    key: *mut ByteSlice,
    value: *mut ByteSlice,
    is_deleted: *mut bool,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let (key, value) = (out_bytes("key", key)?, out_bytes("value", value)?);
        let is_deleted = out("is_deleted", is_deleted)?;
        let mut source = enter(&given("diff_iter", diff_iter)?.0)?;
        let next = source.as_mut().and_then(Iterator::next);
        if !matches!(next, Some(Ok(_))) {
            *source = None;
        }
        Ok(next.transpose()?.map(|next| {
            let (changed, now) = match next {
                Difference::Put { key, value, .. } => (key, Some(value)),
                Difference::Delete { key } => (key, None),
            };
            is_deleted.set(now.is_none());
            key.set(changed.into());
            value.set(now.map_or_else(|| Vec::new().into(), ByteSlice::from));
        }))
    })
}

/// Frees an iterator over differences; NULL is none. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_free_diff_iter(diff_iter: Option<Box<Differences>>) {
    release(diff_iter);
}
