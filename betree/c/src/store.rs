//! Object stores.

use crate::boundary::{bytes, call, find, given, make, maybe_out, out, out_bytes, release};
use crate::bytes::ByteSlice;
use crate::condition::{ConditionOf, condition_at};
use crate::database::Database;
use crate::dataset::range_of;
use crate::error::Failure;
use crate::iterator::Names;
use crate::listing::{ListSettings, Objects, Page, options_at};
use crate::object::ObjectDetails;
use crate::preference::StoragePref;
use crate::snapshot::{SnapshotDetails, snapshot_named};
use engine::{Error, Result};
use std::ffi::{c_int, c_void};

/// An open object store; all handles of one name are the same store. Freed with `betree_close_object_store`.
#[derive(Debug)]
pub struct Store(pub engine::ObjectStore);

fn open_or_create(db: &engine::Database, name: &[u8], pref: StoragePref) -> Result<engine::ObjectStore> {
    let preference = pref.get()?;
    loop {
        match db.open_object_store(name) {
            Err(Error::NotFound { .. }) => {}
            opened => return opened,
        }
        match db.create_object_store_with_pref(name, preference) {
            // Another thread was faster.
            Err(Error::AlreadyExists { .. }) => {}
            created => return created,
        }
    }
}

/// Opens the object store `name`, or makes it, with objects that prefer `storage_pref`. NULL on error. Thread-safe: of several who
/// do so at once, one makes it.
#[unsafe(no_mangle)]
pub extern "C" fn betree_create_object_store(
    db: Option<&Database>,
    name: *const c_void,
    name_len: usize,
    storage_pref: StoragePref,
    err: *mut *mut Failure,
) -> Option<Box<Store>> {
    make(err, || {
        let (db, name) = (given("db", db)?, bytes("name", name, name_len)?);
        open_or_create(&db.0, name, storage_pref).map(Store)
    })
}

/// Makes the object store `name`. NULL on error: BETREE_ERROR_ALREADY_EXISTS. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_create_new_object_store(
    db: Option<&Database>,
    name: *const c_void,
    name_len: usize,
    storage_pref: StoragePref,
    err: *mut *mut Failure,
) -> Option<Box<Store>> {
    make(err, || {
        let (db, name) = (given("db", db)?, bytes("name", name, name_len)?);
        db.0.create_object_store_with_pref(name, storage_pref.get()?).map(Store)
    })
}

/// Opens the object store `name`. NULL on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_open_object_store(
    db: Option<&Database>,
    name: *const c_void,
    name_len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Store>> {
    make(err, || given("db", db)?.0.open_object_store(bytes("name", name, name_len)?).map(Store))
}

/// Frees a handle of an object store, which goes on; NULL is none. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_close_object_store(os: Option<Box<Store>>) {
    release(os);
}

/// Puts the name into `name`: the new one after a rename. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_name(
    os: Option<&Store>,
    name: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let name = out_bytes("name", name)?;
        name.set(given("os", os)?.0.name().into());
        Ok(())
    })
}

/// Makes `data` the object `key`, in place of one that has that name: whole or not at all, whatever the length. `condition` may be
/// NULL, as may `info`, which says what the object is then. 0, or -1 on error: nothing was changed. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_put(
    os: Option<&Store>,
    key: *const c_void,
    key_len: usize,
    data: *const c_void,
    data_len: usize,
    storage_pref: StoragePref,
    condition: *const ConditionOf,
    info: *mut ObjectDetails,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (os, info, preference) = (given("os", os)?, maybe_out("info", info)?, storage_pref.get()?);
        let (key, data) = (bytes("key", key, key_len)?, bytes("data", data, data_len)?);
        info.set((&os.0.put_with(key, data, preference, condition_at(condition)?)?).into());
        Ok(())
    })
}

/// Puts all bytes of the object `key` into `data`, which is then freed with betree_free_byte_slice. 0; 1 when there is none; -1 on
/// error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_get(
    os: Option<&Store>,
    key: *const c_void,
    key_len: usize,
    data: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let (os, key, data) = (given("os", os)?, bytes("key", key, key_len)?, out_bytes("data", data)?);
        Ok(os.0.get(key)?.map(|found| data.set(found.into())))
    })
}

/// Puts what there is to say about the object `key` into `info`. 0; 1 when there is none; -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_info(
    os: Option<&Store>,
    key: *const c_void,
    key_len: usize,
    info: *mut ObjectDetails,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let (os, key, info) = (given("os", os)?, bytes("key", key, key_len)?, out("info", info)?);
        Ok(os.0.read_object_info(key)?.map(|found| info.set((&found).into())))
    })
}

/// Deletes the object `key`; `condition` may be NULL. 0, or -1 on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_delete(
    os: Option<&Store>,
    key: *const c_void,
    key_len: usize,
    condition: *const ConditionOf,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (os, key) = (given("os", os)?, bytes("key", key, key_len)?);
        os.0.delete_object_if(key, condition_at(condition)?)
    })
}

/// Gives the object `key` another name, in place of one that has it; `condition`, which may be NULL, is of that one. 0, or -1 on
/// error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_rename(
    os: Option<&Store>,
    key: *const c_void,
    key_len: usize,
    new_key: *const c_void,
    new_key_len: usize,
    condition: *const ConditionOf,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let os = given("os", os)?;
        let (key, new_key) = (bytes("key", key, key_len)?, bytes("new_key", new_key, new_key_len)?);
        os.0.rename_object_if(key, new_key, condition_at(condition)?)
    })
}

/// Makes the object `new_key` with bytes, preference and custom metadata of the object `key`, in place of one that has that name:
/// whole or not at all. `condition`, which may be NULL, is of that one; `info` may be NULL. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_copy(
    os: Option<&Store>,
    key: *const c_void,
    key_len: usize,
    new_key: *const c_void,
    new_key_len: usize,
    condition: *const ConditionOf,
    info: *mut ObjectDetails,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (os, info) = (given("os", os)?, maybe_out("info", info)?);
        let (key, new_key) = (bytes("key", key, key_len)?, bytes("new_key", new_key, new_key_len)?);
        info.set((&os.0.copy_object_if(key, new_key, condition_at(condition)?)?).into());
        Ok(())
    })
}

/// The objects from the name `low_key` on (NULL: from the first), up to `high_key` (NULL: to the last) and without that. NULL on
/// error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_list(
    os: Option<&Store>,
    low_key: *const c_void,
    low_key_len: usize,
    high_key: *const c_void,
    high_key_len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Objects>> {
    make(err, || {
        let range = range_of(low_key, low_key_len, high_key, high_key_len)?;
        Ok(given("os", os)?.0.list_objects::<&[u8]>(range).into())
    })
}

/// The objects whose names start with `prefix`. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_list_prefix(
    os: Option<&Store>,
    prefix: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Objects>> {
    make(err, || Ok(given("os", os)?.0.list_prefix(bytes("prefix", prefix, len)?).into()))
}

/// One page of a list of objects; `options` may be NULL. NULL on error. Thread-safe: each page is of one state, of its own time.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_list_page(
    os: Option<&Store>,
    options: *const ListSettings,
    err: *mut *mut Failure,
) -> Option<Box<Page>> {
    make(err, || Ok(given("os", os)?.0.list_page(&options_at(options)?)?.into()))
}

/// The names of all snapshots of the store, oldest first. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_iter_store_snapshots(
    os: Option<&Store>,
    err: *mut *mut Failure,
) -> Option<Box<Names>> {
    make(err, || Ok(Names::new(given("os", os)?.0.snapshots()?.into_iter().map(|info| info.name))))
}

/// Puts what there is to say about the snapshot `name` into `info`. 0, or -1 on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_snapshot_info(
    os: Option<&Store>,
    name: *const c_void,
    len: usize,
    info: *mut SnapshotDetails,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (os, name, info) = (given("os", os)?, bytes("name", name, len)?, out("info", info)?);
        info.set((&snapshot_named(os.0.snapshots()?, name)?).into());
        Ok(())
    })
}

/// Makes the snapshot `name` of the store: durable, with everything that was written before this call. 0, or -1 on error:
/// BETREE_ERROR_ALREADY_EXISTS. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_create_snapshot(
    os: Option<&Store>,
    name: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || given("os", os)?.0.create_snapshot(bytes("name", name, len)?).map(drop))
}

/// Deletes the snapshot `name`; who has it open still reads it. 0, or -1 on error: BETREE_ERROR_BUSY names its clones or holds.
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_delete_snapshot(
    os: Option<&Store>,
    name: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || given("os", os)?.0.delete_snapshot(bytes("name", name, len)?))
}

/// Gives the snapshot `name` another name. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_rename_snapshot(
    os: Option<&Store>,
    name: *const c_void,
    len: usize,
    new_name: *const c_void,
    new_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (name, new_name) = (bytes("name", name, len)?, bytes("new_name", new_name, new_len)?);
        given("os", os)?.0.rename_snapshot(name, new_name)
    })
}

/// Keeps the snapshot `name` from being deleted until `tag` is released. 0, or -1 on error: BETREE_ERROR_ALREADY_EXISTS for a tag
/// that holds it already. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_hold_snapshot(
    os: Option<&Store>,
    name: *const c_void,
    len: usize,
    tag: *const c_void,
    tag_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (name, tag) = (bytes("name", name, len)?, bytes("tag", tag, tag_len)?);
        given("os", os)?.0.hold_snapshot(name, tag)
    })
}

/// Takes a hold back. 0, or -1 on error: BETREE_ERROR_NOT_FOUND for the snapshot or the tag. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_release_snapshot(
    os: Option<&Store>,
    name: *const c_void,
    len: usize,
    tag: *const c_void,
    tag_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (name, tag) = (bytes("name", name, len)?, bytes("tag", tag, tag_len)?);
        given("os", os)?.0.release_snapshot(name, tag)
    })
}

/// Makes the store what it was in the snapshot `name`: everything since is lost. With `force`, later snapshots are deleted; without,
/// they are in the way (BETREE_ERROR_BUSY). 0, or -1 on error. Thread-safe: waits for writes in progress.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_rollback(
    os: Option<&Store>,
    name: *const c_void,
    len: usize,
    force: bool,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || given("os", os)?.0.rollback(bytes("name", name, len)?, force))
}

/// Makes a clone the owner of the snapshots up to the one that it was cloned from. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_promote(os: Option<&Store>, err: *mut *mut Failure) -> c_int {
    call(err, || given("os", os)?.0.promote())
}

/// Puts the names of the store and of the snapshot that this one was cloned from into `store` and `snapshot`. 0; 1 when it is no
/// clone; -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_origin(
    os: Option<&Store>,
    store: *mut ByteSlice,
    snapshot: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let (store, snapshot) = (out_bytes("store", store)?, out_bytes("snapshot", snapshot)?);
        Ok(given("os", os)?.0.origin()?.map(|(of, at)| {
            store.set(of.into());
            snapshot.set(at.into());
        }))
    })
}
