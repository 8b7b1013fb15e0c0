//! Snapshots of object stores, and stores made of them.

use crate::boundary::{bytes, find, given, make, out, out_bytes, release};
use crate::bytes::ByteSlice;
use crate::database::Database;
use crate::dataset::range_of;
use crate::error::Failure;
use crate::listing::{ListSettings, Objects, Page, options_at};
use crate::object::{Object, ObjectDetails};
use crate::store::Store;
use engine::Error;
use std::ffi::{c_int, c_void};

/// An open snapshot of an object store. Freed with `betree_close_store_snapshot`.
#[derive(Debug)]
pub struct StoreSnapshot(pub(crate) engine::StoreSnapshot);

/// Opens the snapshot `name`. NULL on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_open_snapshot(
    os: Option<&Store>,
    name: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> Option<Box<StoreSnapshot>> {
    make(err, || given("os", os)?.0.open_snapshot(bytes("name", name, len)?).map(StoreSnapshot))
}

/// Frees a handle of a snapshot, which stays; NULL is none. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_close_store_snapshot(ss: Option<Box<StoreSnapshot>>) {
    release(ss);
}

/// As betree_store_get, of the state that the snapshot is. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_snapshot_get(
    ss: Option<&StoreSnapshot>,
    key: *const c_void,
    key_len: usize,
    data: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let (ss, key, data) = (given("ss", ss)?, bytes("key", key, key_len)?, out_bytes("data", data)?);
        Ok(ss.0.get(key)?.map(|found| data.set(found.into())))
    })
}

/// As betree_store_info, of the state that the snapshot is. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_snapshot_object_info(
    ss: Option<&StoreSnapshot>,
    key: *const c_void,
    key_len: usize,
    info: *mut ObjectDetails,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let (ss, key, info) = (given("ss", ss)?, bytes("key", key, key_len)?, out("info", info)?);
        Ok(ss.0.read_object_info(key)?.map(|found| info.set((&found).into())))
    })
}

/// Opens the object `key` as it was then, for reading. NULL on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_snapshot_open_object(
    ss: Option<&StoreSnapshot>,
    key: *const c_void,
    key_len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Object>> {
    make(err, || {
        let (ss, key) = (given("ss", ss)?, bytes("key", key, key_len)?);
        let opened = ss.0.open_object(key)?;
        let missing = || Error::NotFound { what: "object", name: key.escape_ascii().to_string() };
        opened.map(Object::from).ok_or_else(missing)
    })
}

/// As betree_store_list, of the state that the snapshot is. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_snapshot_list(
    ss: Option<&StoreSnapshot>,
    low_key: *const c_void,
    low_key_len: usize,
    high_key: *const c_void,
    high_key_len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Objects>> {
    make(err, || {
        let range = range_of(low_key, low_key_len, high_key, high_key_len)?;
        Ok(given("ss", ss)?.0.list_objects::<&[u8]>(range).into())
    })
}

/// As betree_store_list_page, of the state that the snapshot is. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_snapshot_list_page(
    ss: Option<&StoreSnapshot>,
    options: *const ListSettings,
    err: *mut *mut Failure,
) -> Option<Box<Page>> {
    make(err, || Ok(given("ss", ss)?.0.list_page(&options_at(options)?)?.into()))
}

/// Makes the object store `name` of a snapshot: writable, and sharing its space until it is overwritten. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_clone_store_snapshot(
    db: Option<&Database>,
    ss: Option<&StoreSnapshot>,
    name: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Store>> {
    make(err, || {
        let (db, ss, name) = (given("db", db)?, given("ss", ss)?, bytes("name", name, len)?);
        db.0.clone_store_snapshot(&ss.0, name).map(Store)
    })
}
