//! Views: one consistent state, in memory.

use crate::boundary::{bytes, find, given, make, out_bytes, release};
use crate::bytes::ByteSlice;
use crate::database::Database;
use crate::dataset::{Dataset, range_of};
use crate::error::Failure;
use crate::iterator::Entries;
use std::ffi::{c_int, c_void};

/// One consistent state of a dataset, in memory. It keeps the space of what it sees. Freed with `betree_free_view`.
#[derive(Debug)]
pub struct View(engine::DatasetView);

/// One consistent state of all datasets, in memory. Freed with `betree_free_database_view`.
#[derive(Debug)]
pub struct DatabaseView(engine::DatabaseView);

/// The state of the dataset now. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_view(ds: Option<&Dataset>, err: *mut *mut Failure) -> Option<Box<View>> {
    make(err, || {
        let ds = given("ds", ds)?;
        let view = ds.0.view();
        // A view of a dataset that is gone is empty; an empty range reads nothing and says so.
        ds.0.range(&b""[..]..&b""[..]).next().transpose()?;
        Ok(View(view))
    })
}

/// The state of all datasets now. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_view(
    db: Option<&Database>,
    err: *mut *mut Failure,
) -> Option<Box<DatabaseView>> {
    make(err, || Ok(DatabaseView(given("db", db)?.0.view())))
}

/// The state of the dataset that had the name `name` then. NULL on error: BETREE_ERROR_NOT_FOUND when there was none. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_view_dataset(
    view: Option<&DatabaseView>,
    name: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> Option<Box<View>> {
    make(err, || given("view", view)?.0.dataset_named(bytes("name", name, len)?).map(View))
}

/// Frees a view of all datasets; NULL is none. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_free_database_view(view: Option<Box<DatabaseView>>) {
    release(view);
}

/// As betree_dataset_get, of the state that the view is of. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_view_get(
    view: Option<&View>,
    key: *const c_void,
    len: usize,
    value: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let (view, key, value) = (given("view", view)?, bytes("key", key, len)?, out_bytes("value", value)?);
        Ok(view.0.get(key)?.map(|found| value.set(found.into())))
    })
}

/// As betree_dataset_range, of the state that the view is of. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_view_range(
    view: Option<&View>,
    low_key: *const c_void,
    low_key_len: usize,
    high_key: *const c_void,
    high_key_len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Entries>> {
    make(err, || {
        let range = range_of(low_key, low_key_len, high_key, high_key_len)?;
        Ok(given("view", view)?.0.range::<&[u8]>(range).into())
    })
}

/// As betree_dataset_prefix, of the state that the view is of. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_view_prefix(
    view: Option<&View>,
    prefix: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Entries>> {
    make(err, || Ok(given("view", view)?.0.prefix(bytes("prefix", prefix, len)?).into()))
}

/// Frees a view; NULL is none. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_free_view(view: Option<Box<View>>) {
    release(view);
}
