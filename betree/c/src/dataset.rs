//! Datasets: ordered maps of keys to values.

use crate::boundary::{
    bound, buffer, bytes, call, find, given, illegal, make, maybe_out, out_bytes, tell, text,
};
use crate::bytes::ByteSlice;
use crate::database::Database;
use crate::error::Failure;
use crate::iterator::{Entries, Names};
use crate::metrics::of_tree;
use crate::preference::{MigratedCount, StoragePref};
use engine::{DatasetConfiguration, Result};
use std::ffi::{c_char, c_int, c_void};
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

/// An open dataset; all handles of one name are the same dataset. Freed with `betree_close_ds`.
#[derive(Debug)]
pub struct Dataset(pub engine::Dataset, NamesTold);

/// The names that a caller may still have a pointer to: more than one after renames.
type NamesTold = Mutex<Vec<Box<[u8]>>>;

impl From<engine::Dataset> for Dataset {
    fn from(dataset: engine::Dataset) -> Self {
        Self(dataset, NamesTold::default())
    }
}

/// Where a range of keys starts and ends.
type KeyRange<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The range of keys from `low` on, up to `high` and without it.
pub fn range_of<'a>(
    low: *const c_void,
    low_len: usize,
    high: *const c_void,
    high_len: usize,
) -> Result<KeyRange<'a>> {
    let low = bound("low_key", low, low_len)?.map_or(Bound::Unbounded, Bound::Included);
    let high = bound("high_key", high, high_len)?.map_or(Bound::Unbounded, Bound::Excluded);
    Ok((low, high))
}

/// Makes the dataset `name`, whose data prefers `storage_pref`. 0, or -1 on error: BETREE_ERROR_ALREADY_EXISTS. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_create_ds(
    db: Option<&Database>,
    name: *const c_void,
    len: usize,
    storage_pref: StoragePref,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (db, name, preference) = (given("db", db)?, bytes("name", name, len)?, storage_pref.get()?);
        let created: Result<engine::Dataset> = db.0.create_custom_dataset(name, preference);
        created.map(drop)
    })
}

/// Makes the dataset `name` with a configuration of its own: JSON as in the field default_dataset of the configuration. 0, or
/// -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_create_ds_with(
    db: Option<&Database>,
    name: *const c_void,
    len: usize,
    json: *const c_void,
    json_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (db, name, json) = (given("db", db)?, bytes("name", name, len)?, text("json", json, json_len)?);
        let configuration: DatasetConfiguration =
            serde_json::from_str(json).map_err(|error| illegal("json", error.to_string()))?;
        db.0.create_dataset_with(name, &configuration).map(drop)
    })
}

/// Opens the dataset `name`. What it prefers was stored when it was made; `storage_pref` has no effect. NULL on error:
/// BETREE_ERROR_NOT_FOUND. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_open_ds(
    db: Option<&Database>,
    name: *const c_void,
    len: usize,
    storage_pref: StoragePref,
    err: *mut *mut Failure,
) -> Option<Box<Dataset>> {
    make(err, || {
        storage_pref.get()?;
        given("db", db)?.0.open_dataset(bytes("name", name, len)?).map(Dataset::from)
    })
}

/// Opens the dataset `name`, or makes it with a preference. NULL on error. Thread-safe: of several who do so at once, one makes it.
#[unsafe(no_mangle)]
pub extern "C" fn betree_open_or_create_ds(
    db: Option<&Database>,
    name: *const c_void,
    len: usize,
    storage_pref: StoragePref,
    err: *mut *mut Failure,
) -> Option<Box<Dataset>> {
    make(err, || {
        let (db, name) = (given("db", db)?, bytes("name", name, len)?);
        db.0.open_or_create_custom_dataset(name, storage_pref.get()?).map(Dataset::from)
    })
}

/// Frees a handle of a dataset, which goes on. `db` says nothing and may be NULL or closed. NULL is none. 0. No other thread may use `ds`
/// then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_close_ds(
    db: *const Database,
    ds: Option<Box<Dataset>>,
    err: *mut *mut Failure,
) -> c_int {
    let _ = db;
    call(err, || {
        drop(ds);
        Ok(())
    })
}

/// The name: the new one after a rename. `*len` bytes (unless `len` is NULL) and a zero byte, which live as long as the handle,
/// whatever happens to the dataset. NULL when `ds` is NULL. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_name(ds: Option<&Dataset>, len: *mut usize) -> *const c_char {
    tell(std::ptr::null(), || {
        let Some(ds) = ds else { return std::ptr::null() };
        let mut name = ds.0.name();
        if let Ok(len) = maybe_out("len", len) {
            len.set(name.len());
        }
        name.push(0);
        let mut told = ds.1.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = told.iter().find(|told| ***told == *name) {
            return same.as_ptr().cast();
        }
        let name = name.into_boxed_slice();
        // The bytes stay where they are when the list grows.
        let start = name.as_ptr().cast();
        told.push(name);
        start
    })
}

/// Puts the value of `key` into `value`, which is then freed with betree_free_byte_slice. 0; 1 when there is none; -1 on error.
/// Thread-safe: sees every write that returned before, from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_get(
    ds: Option<&Dataset>,
    key: *const c_void,
    len: usize,
    value: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let (ds, key, value) = (given("ds", ds)?, bytes("key", key, len)?, out_bytes("value", value)?);
        Ok(ds.0.get(key)?.map(|found| value.set(found.into())))
    })
}

/// Reads the part of the value of `key` from byte `offset` that fits into the `buf_len` bytes of `buf`. Puts how many bytes that
/// are into `n_read` and the length of the whole value into `value_len`, both of which may be NULL. 0; 1 when there is no value;
/// -1 on error: what is in `buf` then says nothing. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_get_part(
    ds: Option<&Dataset>,
    key: *const c_void,
    len: usize,
    offset: u64,
    buf: *mut c_void,
    buf_len: usize,
    n_read: *mut usize,
    value_len: *mut u64,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let (ds, key, buf) = (given("ds", ds)?, bytes("key", key, len)?, buffer("buf", buf, buf_len)?);
        let (n_read, value_len) = (maybe_out("n_read", n_read)?, maybe_out("value_len", value_len)?);
        Ok(ds.0.get_part(key, offset, buf)?.map(|part| {
            n_read.set(part.filled);
            value_len.set(part.value_length);
        }))
    })
}

/// Sets the value of `key`. 0, or -1 on error: nothing was changed. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_insert(
    ds: Option<&Dataset>,
    key: *const c_void,
    key_len: usize,
    data: *const c_void,
    data_len: usize,
    storage_pref: StoragePref,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (ds, key, data) = (given("ds", ds)?, bytes("key", key, key_len)?, bytes("data", data, data_len)?);
        ds.0.insert_with_pref(key, data, storage_pref.get()?)
    })
}

/// Writes `data` at byte `offset` of the value of `key` without reading it; the value grows with zeros as needed. 0, or -1 on
/// error: nothing was changed. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_upsert(
    ds: Option<&Dataset>,
    key: *const c_void,
    key_len: usize,
    data: *const c_void,
    data_len: usize,
    offset: u32,
    storage_pref: StoragePref,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (ds, key, data) = (given("ds", ds)?, bytes("key", key, key_len)?, bytes("data", data, data_len)?);
        ds.0.upsert_with_pref(key, data, offset, storage_pref.get()?)
    })
}

/// Deletes `key`, whether it exists or not. 0, or -1 on error: nothing was changed. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_delete(
    ds: Option<&Dataset>,
    key: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || given("ds", ds)?.0.delete(bytes("key", key, len)?))
}

/// Deletes every key from `low_key` on (NULL: from the first), up to `high_key` (NULL: to the last) and without that: one message,
/// however many there are. 0, or -1 on error: nothing was changed. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_range_delete(
    ds: Option<&Dataset>,
    low_key: *const c_void,
    low_key_len: usize,
    high_key: *const c_void,
    high_key_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let range = range_of(low_key, low_key_len, high_key, high_key_len)?;
        given("ds", ds)?.0.range_delete::<&[u8]>(range)
    })
}

/// The entries from `low_key` on (NULL: from the first), up to `high_key` (NULL: to the last) and without that, from one
/// consistent state. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_range(
    ds: Option<&Dataset>,
    low_key: *const c_void,
    low_key_len: usize,
    high_key: *const c_void,
    high_key_len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Entries>> {
    make(err, || {
        let range = range_of(low_key, low_key_len, high_key, high_key_len)?;
        Ok(given("ds", ds)?.0.range::<&[u8]>(range).into())
    })
}

/// The entries whose keys start with `prefix`, from one consistent state. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_prefix(
    ds: Option<&Dataset>,
    prefix: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Entries>> {
    make(err, || Ok(given("ds", ds)?.0.prefix(bytes("prefix", prefix, len)?).into()))
}

/// Moves what is from `low_key` on (NULL: from the first), up to `high_key` (NULL: to the last) and without that, to the tier that
/// `storage_pref` names; says how much that was in `moved`, which may be NULL. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_migrate(
    ds: Option<&Dataset>,
    low_key: *const c_void,
    low_key_len: usize,
    high_key: *const c_void,
    high_key_len: usize,
    storage_pref: StoragePref,
    moved: *mut MigratedCount,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let range = range_of(low_key, low_key_len, high_key, high_key_len)?;
        let moved = maybe_out("moved", moved)?;
        moved.set(given("ds", ds)?.0.migrate_range::<&[u8]>(range, storage_pref.get()?)?.into());
        Ok(())
    })
}

/// Puts shape and size of the tree into `json`, an object. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_stats(
    ds: Option<&Dataset>,
    json: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let json = out_bytes("json", json)?;
        json.set(of_tree(&given("ds", ds)?.0.stats()?).to_string().into());
        Ok(())
    })
}

/// Puts the names of the dataset and of the snapshot that this one was cloned from into `dataset` and `snapshot`. 0; 1 when it is
/// no clone; -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_origin(
    ds: Option<&Dataset>,
    dataset: *mut ByteSlice,
    snapshot: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let (dataset, snapshot) = (out_bytes("dataset", dataset)?, out_bytes("snapshot", snapshot)?);
        Ok(given("ds", ds)?.0.origin()?.map(|(of, at)| {
            dataset.set(of.into());
            snapshot.set(at.into());
        }))
    })
}

/// Makes a clone the owner of the snapshots up to the one that it was cloned from; the dataset that had them becomes a clone of
/// this one. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_promote(ds: Option<&Dataset>, err: *mut *mut Failure) -> c_int {
    call(err, || given("ds", ds)?.0.promote())
}

/// The names of all snapshots of the dataset, oldest first. `db` says nothing and may be NULL. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_iter_snapshots(
    db: *const Database,
    ds: Option<&Dataset>,
    err: *mut *mut Failure,
) -> Option<Box<Names>> {
    let _ = db;
    make(err, || Ok(Names::new(given("ds", ds)?.0.snapshots()?.into_iter().map(|info| info.name))))
}
