//! Snapshots of datasets, and datasets made of them.

use crate::boundary::{array, bytes, call, find, given, make, out, out_bytes, release};
use crate::bytes::ByteSlice;
use crate::database::Database;
use crate::dataset::{Dataset, range_of};
use crate::error::Failure;
use crate::iterator::{Differences, Entries, Names};
use crate::store::Store;
use engine::{Error, Result, SnapshotInfo};
use std::ffi::{c_char, c_int, c_void};
use std::time::{SystemTime, UNIX_EPOCH};

/// An open snapshot of a dataset. It reads what it read when it was opened, also after it was deleted. Freed with
/// `betree_close_snapshot`.
#[derive(Debug)]
pub struct Snapshot(pub engine::Snapshot);

/// Nanoseconds since 1970.
pub fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Makes the snapshot `name` of the dataset: durable, with everything that was written before this call. `db` says nothing and may
/// be NULL. 0, or -1 on error: BETREE_ERROR_ALREADY_EXISTS. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_create_snapshot(
    db: *const Database,
    ds: Option<&Dataset>,
    name: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> c_int {
    let _ = db;
    call(err, || given("ds", ds)?.0.create_snapshot(bytes("name", name, len)?).map(drop))
}

/// Makes a snapshot `name` of each of the `count` datasets and the `store_count` object stores, all of one instant. An array of none
/// may be NULL. 0, or -1 on error: there is none of them then. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_create_snapshots(
    db: Option<&Database>,
    datasets: *const Option<&Dataset>,
    count: usize,
    stores: *const Option<&Store>,
    store_count: usize,
    name: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (db, name) = (given("db", db)?, bytes("name", name, len)?);
        let datasets = array("datasets", datasets, count)?;
        let datasets: Result<Vec<_>> = datasets.iter().map(|ds| Ok(&given("dataset", *ds)?.0)).collect();
        let stores = array("stores", stores, store_count)?;
        let stores: Result<Vec<_>> = stores.iter().map(|os| Ok(&given("store", *os)?.0)).collect();
        db.0.create_snapshots(&datasets?, &stores?, name).map(drop)
    })
}

/// Deletes the snapshot `name`; who has it open still reads it. `db` says nothing and may be NULL. 0, or -1 on error:
/// BETREE_ERROR_BUSY names its clones or holds. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_delete_snapshot(
    db: *const Database,
    ds: Option<&Dataset>,
    name: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> c_int {
    let _ = db;
    call(err, || given("ds", ds)?.0.delete_snapshot(bytes("name", name, len)?))
}

/// Opens the snapshot `name`. NULL on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_open_snapshot(
    ds: Option<&Dataset>,
    name: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Snapshot>> {
    make(err, || given("ds", ds)?.0.open_snapshot(bytes("name", name, len)?).map(Snapshot))
}

/// Frees a handle of a snapshot, which stays; NULL is none. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_close_snapshot(ss: Option<Box<Snapshot>>) {
    release(ss);
}

/// As betree_dataset_get, of the state that the snapshot is. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_snapshot_get(
    ss: Option<&Snapshot>,
    key: *const c_void,
    len: usize,
    value: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let (ss, key, value) = (given("ss", ss)?, bytes("key", key, len)?, out_bytes("value", value)?);
        Ok(ss.0.get(key)?.map(|found| value.set(found.into())))
    })
}

/// As betree_dataset_range, of the state that the snapshot is. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_snapshot_range(
    ss: Option<&Snapshot>,
    low_key: *const c_void,
    low_key_len: usize,
    high_key: *const c_void,
    high_key_len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Entries>> {
    make(err, || {
        let range = range_of(low_key, low_key_len, high_key, high_key_len)?;
        Ok(given("ss", ss)?.0.range::<&[u8]>(range).into())
    })
}

/// As betree_dataset_prefix, of the state that the snapshot is. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_snapshot_prefix(
    ss: Option<&Snapshot>,
    prefix: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Entries>> {
    make(err, || Ok(given("ss", ss)?.0.prefix(bytes("prefix", prefix, len)?).into()))
}

/// What there is to say about a snapshot. Bytes are those of whole blocks on the devices.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct SnapshotDetails {
    /// When it was made, in nanoseconds since 1970; to the second.
    pub created_ns: u64,
    /// The checkpoint that it is.
    pub generation: u64,
    /// Bytes that it reads from.
    pub referenced: u64,
    /// Bytes that nothing else has: what deleting it would free.
    pub unique: u64,
    /// Bytes that were written since the snapshot before and are in it.
    pub written: u64,
    /// Tags that hold it.
    pub holds: u64,
    /// Datasets that were cloned from it.
    pub clones: u64,
    /// Whether changes to it were received in part.
    pub is_receiving: bool,
    /// What names it in every pool that it was sent to: text that ends with a zero byte.
    pub guid: [c_char; 40],
}

impl From<&SnapshotInfo> for SnapshotDetails {
    fn from(info: &SnapshotInfo) -> Self {
        let mut guid = [0; 40];
        // The last byte stays zero.
        for (place, byte) in guid.iter_mut().take(39).zip(info.guid.bytes()) {
            *place = byte as c_char;
        }
        Self {
            created_ns: nanoseconds(info.created),
            generation: info.generation,
            referenced: info.referenced,
            unique: info.unique,
            written: info.written,
            holds: info.holds.len() as u64,
            clones: info.clones.len() as u64,
            is_receiving: info.receiving,
            guid,
        }
    }
}

/// The snapshot `name` among `all`.
pub fn snapshot_named(all: Vec<SnapshotInfo>, name: &[u8]) -> Result<SnapshotInfo> {
    let found = all.into_iter().find(|info| info.name == name);
    found.ok_or_else(|| Error::NotFound { what: "snapshot", name: name.escape_ascii().to_string() })
}

/// Puts what there is to say about the snapshot `name` into `info`. 0, or -1 on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_snapshot_info(
    ds: Option<&Dataset>,
    name: *const c_void,
    len: usize,
    info: *mut SnapshotDetails,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (ds, name, info) = (given("ds", ds)?, bytes("name", name, len)?, out("info", info)?);
        info.set((&snapshot_named(ds.0.snapshots()?, name)?).into());
        Ok(())
    })
}

/// The tags that hold the snapshot `name`. NULL on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_iter_holds(
    ds: Option<&Dataset>,
    name: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Names>> {
    make(err, || {
        let (ds, name) = (given("ds", ds)?, bytes("name", name, len)?);
        Ok(Names::new(snapshot_named(ds.0.snapshots()?, name)?.holds))
    })
}

/// The names of the datasets that were cloned from the snapshot `name`. NULL on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_iter_clones(
    ds: Option<&Dataset>,
    name: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Names>> {
    make(err, || {
        let (ds, name) = (given("ds", ds)?, bytes("name", name, len)?);
        Ok(Names::new(snapshot_named(ds.0.snapshots()?, name)?.clones))
    })
}

/// Gives the snapshot `name` another name. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_rename_snapshot(
    ds: Option<&Dataset>,
    name: *const c_void,
    len: usize,
    new_name: *const c_void,
    new_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (name, new_name) = (bytes("name", name, len)?, bytes("new_name", new_name, new_len)?);
        given("ds", ds)?.0.rename_snapshot(name, new_name)
    })
}

/// Keeps the snapshot `name` from being deleted until `tag` is released. 0, or -1 on error: BETREE_ERROR_ALREADY_EXISTS for a tag
/// that holds it already. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_hold_snapshot(
    ds: Option<&Dataset>,
    name: *const c_void,
    len: usize,
    tag: *const c_void,
    tag_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (name, tag) = (bytes("name", name, len)?, bytes("tag", tag, tag_len)?);
        given("ds", ds)?.0.hold_snapshot(name, tag)
    })
}

/// Takes a hold back. 0, or -1 on error: BETREE_ERROR_NOT_FOUND for the snapshot or the tag. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_release_snapshot(
    ds: Option<&Dataset>,
    name: *const c_void,
    len: usize,
    tag: *const c_void,
    tag_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (name, tag) = (bytes("name", name, len)?, bytes("tag", tag, tag_len)?);
        given("ds", ds)?.0.release_snapshot(name, tag)
    })
}

/// Makes the dataset what it was in the snapshot `name`: everything since is lost. With `force`, later snapshots are deleted;
/// without, they are in the way (BETREE_ERROR_BUSY). 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_rollback_snapshot(
    ds: Option<&Dataset>,
    name: *const c_void,
    len: usize,
    force: bool,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || given("ds", ds)?.0.rollback(bytes("name", name, len)?, force))
}

/// Makes the dataset `name` of a snapshot: writable, and sharing its space until it is overwritten. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_clone_snapshot(
    db: Option<&Database>,
    ss: Option<&Snapshot>,
    name: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Dataset>> {
    make(err, || {
        let (db, ss, name) = (given("db", db)?, given("ss", ss)?, bytes("name", name, len)?);
        db.0.clone_snapshot(&ss.0, name).map(Dataset::from)
    })
}

/// What has to be done to make the state of `later` of that of `ss`; reads only what the two do not share. NULL on error.
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_snapshot_diff(
    ss: Option<&Snapshot>,
    later: Option<&Snapshot>,
    err: *mut *mut Failure,
) -> Option<Box<Differences>> {
    make(err, || Ok(given("ss", ss)?.0.diff(&given("later", later)?.0)?.into()))
}

/// What has to be done to make of the snapshot what the dataset holds now. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_dataset_changes_since(
    ds: Option<&Dataset>,
    ss: Option<&Snapshot>,
    err: *mut *mut Failure,
) -> Option<Box<Differences>> {
    make(err, || Ok(given("ds", ds)?.0.changes_since(&given("ss", ss)?.0)?.into()))
}
