//! Databases.

use crate::boundary::{BETREE_FAILED, BETREE_OK, bytes, call, given, make, maybe_out, out, out_bytes, tell};
use crate::bytes::ByteSlice;
use crate::configuration::Configuration;
use crate::error::Failure;
use crate::iterator::Names;
use crate::metrics::of_database;
use engine::{AccessMode, Result};
use std::ffi::{CStr, c_char, c_int, c_void};

/// A database. Freed by closing it: `betree_close_db` or `betree_database_close`. What was opened of it may be freed before or
/// after that; used after that, it reports BETREE_ERROR_CLOSED. The devices stay locked until all of it is freed.
#[derive(Debug)]
pub struct Database(pub engine::Database);

/// Version of the library, as text that ends with a zero byte. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_version() -> *const c_char {
    tell(c"".as_ptr(), || {
        const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
        CStr::from_bytes_with_nul(VERSION.as_bytes()).unwrap_or_default().as_ptr()
    })
}

fn build(cfg: Option<&Configuration>, mode: Option<AccessMode>) -> Result<Database> {
    let mut configuration = given("cfg", cfg)?.get();
    configuration.access_mode = mode.unwrap_or(configuration.access_mode);
    engine::Database::build(configuration).map(Database)
}

/// Opens or creates the database as the access mode of the configuration says. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_build_db(
    cfg: Option<&Configuration>,
    err: *mut *mut Failure,
) -> Option<Box<Database>> {
    make(err, || build(cfg, None))
}

/// Opens the database that there is on the devices. NULL on error: BETREE_ERROR_NOT_FOUND without one. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_open_db(
    cfg: Option<&Configuration>,
    err: *mut *mut Failure,
) -> Option<Box<Database>> {
    make(err, || build(cfg, Some(AccessMode::OpenIfExists)))
}

/// Makes a new database. WHAT IS ON THE DEVICES IS LOST; betree_database_create asks first. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_create_db(
    cfg: Option<&Configuration>,
    err: *mut *mut Failure,
) -> Option<Box<Database>> {
    make(err, || build(cfg, Some(AccessMode::AlwaysCreateNew)))
}

/// Opens the database that there is on the devices, or makes a new one where there is none and the devices are empty. NULL on
/// error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_open_or_create_db(
    cfg: Option<&Configuration>,
    err: *mut *mut Failure,
) -> Option<Box<Database>> {
    make(err, || build(cfg, Some(AccessMode::OpenOrCreate)))
}

/// Makes a new database. Without `force`, devices that are not provably empty are refused (BETREE_ERROR_ALREADY_EXISTS); with it,
/// what is on them is lost. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_create(
    cfg: Option<&Configuration>,
    force: bool,
    err: *mut *mut Failure,
) -> Option<Box<Database>> {
    make(err, || engine::Database::create_with(given("cfg", cfg)?.get(), force).map(Database))
}

/// Opens the database for reading: no byte of any device changes, and other readers may do the same. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_open_read_only(
    cfg: Option<&Configuration>,
    err: *mut *mut Failure,
) -> Option<Box<Database>> {
    make(err, || engine::Database::open_read_only(given("cfg", cfg)?.get()).map(Database))
}

/// Makes everything durable that returned before. 0, or -1 on error: what was written since the last sync may be lost in a crash,
/// and the database takes no more writes. Thread-safe; many callers share one flush.
#[unsafe(no_mangle)]
pub extern "C" fn betree_sync_db(db: Option<&Database>, err: *mut *mut Failure) -> c_int {
    call(err, || given("db", db)?.0.sync())
}

/// Writes a checkpoint, closes the database and frees the handle, also on error. 0, or -1 on error: what was synced is safe, what
/// was written since may be lost. NULL is none. No other thread may use `db` then; other handles of it report
/// BETREE_ERROR_CLOSED.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_close(db: Option<Box<Database>>, err: *mut *mut Failure) -> c_int {
    call(err, || db.map_or(Ok(()), |db| db.0.close()))
}

/// As betree_database_close, for who only wants to know whether it worked. 0 also of NULL, which is no database; -1 on error.
/// No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_close_db(db: Option<Box<Database>>) -> c_int {
    tell(BETREE_FAILED, || {
        let Some(db) = db else { return BETREE_OK };
        match db.0.close() {
            Ok(()) => BETREE_OK,
            Err(error) => {
                log::error!("closing the database: {error}");
                BETREE_FAILED
            }
        }
    })
}

/// Writes the trees and empties the log; happens by itself too. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_checkpoint(db: Option<&Database>, err: *mut *mut Failure) -> c_int {
    call(err, || given("db", db)?.0.checkpoint())
}

/// Waits until no background work is left. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_settle(db: Option<&Database>, err: *mut *mut Failure) -> c_int {
    call(err, || given("db", db)?.0.settle())
}

/// Drops all cached blocks; the next reads go to the devices. 0, or -1 when `db` is NULL. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_drop_cache(db: Option<&Database>, err: *mut *mut Failure) -> c_int {
    call(err, || {
        given("db", db)?.0.drop_cache();
        Ok(())
    })
}

/// Space of one tier.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct StorageInfo {
    /// Bytes that a write may still use.
    pub free: u64,
    /// Bytes in all; 0 of a tier without devices.
    pub total: u64,
}

/// Puts the space of the four tiers, the fastest first, into the four elements of `tiers`. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_space(
    db: Option<&Database>,
    tiers: *mut [StorageInfo; 4],
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let tiers = out("tiers", tiers)?;
        let space = given("db", db)?.0.free_space_tier();
        tiers.set(space.map(|tier| StorageInfo { free: tier.free, total: tier.total }));
        Ok(())
    })
}

/// Puts what the database counts into `json`, an object: requests of each vdev, blocks of each tier, the cache, memtables, the
/// log. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_metrics(
    db: Option<&Database>,
    json: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let json = out_bytes("json", json)?;
        json.set(of_database(&given("db", db)?.0.metrics()).to_string().into());
        Ok(())
    })
}

/// Puts the configuration that the database was built with into `json`. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_configuration(
    db: Option<&Database>,
    json: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let json = out_bytes("json", json)?;
        json.set(given("db", db)?.0.configuration().to_json_string()?.into());
        Ok(())
    })
}

/// What a verification found to be in order.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct VerifyReport {
    /// The generation that was verified.
    pub generation: u64,
    /// Datasets, those being destroyed and those of object stores included.
    pub datasets: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Node headers.
    pub nodes: u64,
    /// Runs, each read whole.
    pub runs: u64,
    /// Messages in them.
    pub messages: u64,
    /// Large values that they name; these are not read.
    pub large_values: u64,
    /// Blocks of 4 KiB that all of that occupies.
    pub blocks: u64,
    /// Objects in object stores, those being made included.
    pub objects: u64,
}

/// Checks every invariant of the database and puts what was looked at into `report`, which may be NULL. 0, or -1 on error:
/// BETREE_ERROR_CORRUPT names the first thing that is not in order. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_verify(
    db: Option<&Database>,
    report: *mut VerifyReport,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let report = maybe_out("report", report)?;
        let found = given("db", db)?.0.verify()?;
        report.set(VerifyReport {
            generation: found.generation,
            datasets: found.datasets,
            snapshots: found.snapshots,
            nodes: found.nodes,
            runs: found.runs,
            messages: found.messages,
            large_values: found.large_values,
            blocks: found.blocks,
            objects: found.objects,
        });
        Ok(())
    })
}

/// The names of all datasets. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_iter_datasets(db: Option<&Database>, err: *mut *mut Failure) -> Option<Box<Names>> {
    make(err, || Ok(Names::new(given("db", db)?.0.datasets()?)))
}

/// The names of all object stores. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_iter_object_stores(
    db: Option<&Database>,
    err: *mut *mut Failure,
) -> Option<Box<Names>> {
    make(err, || Ok(Names::new(given("db", db)?.0.object_stores()?)))
}

/// Gives the dataset `name` another name. 0, or -1 on error: BETREE_ERROR_ALREADY_EXISTS when that is taken. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_rename_dataset(
    db: Option<&Database>,
    name: *const c_void,
    name_len: usize,
    new_name: *const c_void,
    new_name_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (name, new_name) = (bytes("name", name, name_len)?, bytes("new_name", new_name, new_name_len)?);
        given("db", db)?.0.rename_dataset(name, new_name)
    })
}

/// Destroys the dataset `name` and its snapshots. 0, or -1 on error: BETREE_ERROR_BUSY when somebody holds a snapshot of it or has
/// cloned one. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_destroy_dataset(
    db: Option<&Database>,
    name: *const c_void,
    name_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || given("db", db)?.0.destroy_dataset(bytes("name", name, name_len)?))
}

/// Gives the object store `name` another name. 0, or -1 on error: BETREE_ERROR_ALREADY_EXISTS when that is taken. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_rename_object_store(
    db: Option<&Database>,
    name: *const c_void,
    name_len: usize,
    new_name: *const c_void,
    new_name_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (name, new_name) = (bytes("name", name, name_len)?, bytes("new_name", new_name, new_name_len)?);
        given("db", db)?.0.rename_object_store(name, new_name)
    })
}

/// Destroys the object store `name` and its snapshots. 0, or -1 on error: BETREE_ERROR_BUSY when somebody holds a snapshot of it or
/// has cloned one. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_database_destroy_object_store(
    db: Option<&Database>,
    name: *const c_void,
    name_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || given("db", db)?.0.destroy_object_store(bytes("name", name, name_len)?))
}
