//! Atomic batches, also across datasets.

use crate::boundary::{bytes, call, given, illegal, make, release};
use crate::database::Database;
use crate::dataset::{Dataset, range_of};
use crate::error::Failure;
use crate::iterator::enter;
use crate::preference::StoragePref;
use engine::{Durability, Result};
use std::ffi::{c_int, c_void};
use std::sync::Mutex;

/// What a commit waits for.
#[expect(non_camel_case_types, reason = "the names are those of C")]
#[derive(Debug)]
#[repr(C)]
#[expect(dead_code, reason = "C programs use them; they come in as numbers")]
pub enum DurabilityKind {
    /// Nothing: a crash may lose the newest commits, never an earlier one before a later one.
    BETREE_BUFFERED = 0,
    /// The intent log on its device: the commit, and every one before it, survives a crash.
    BETREE_SYNC = 1,
}

/// The durability of that number.
pub fn durability_of(number: u32) -> Result<Durability> {
    match number {
        0 => Ok(Durability::Buffered),
        1 => Ok(Durability::Sync),
        other => Err(illegal("durability", format!("{other} is none"))),
    }
}

/// Writes that are seen, and survive a crash, all or not at all. Nothing happens before `betree_batch_commit`. Freed with
/// `betree_free_batch`.
#[derive(Debug)]
pub struct Batch {
    database: engine::Database,
    writes: Mutex<engine::Batch>,
}

impl Batch {
    /// Lets `change` add to the writes, or leaves them as they are.
    fn change(&self, change: impl FnOnce(engine::Batch) -> engine::Batch) -> Result<()> {
        let mut writes = enter(&self.writes)?;
        let before = std::mem::replace(&mut *writes, self.database.batch());
        *writes = change(before);
        Ok(())
    }
}

/// An empty batch. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_batch_new(db: Option<&Database>, err: *mut *mut Failure) -> Option<Box<Batch>> {
    make(err, || {
        let database = given("db", db)?.0.clone();
        Ok(Batch { writes: Mutex::new(database.batch()), database })
    })
}

/// Adds: set the value of `key`. 0, or -1 on error; what only the database can judge (lengths, a dataset of another database),
/// the commit reports. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_batch_insert(
    batch: Option<&Batch>,
    ds: Option<&Dataset>,
    key: *const c_void,
    key_len: usize,
    data: *const c_void,
    data_len: usize,
    storage_pref: StoragePref,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (batch, ds, preference) = (given("batch", batch)?, given("ds", ds)?, storage_pref.get()?);
        let (key, data) = (bytes("key", key, key_len)?, bytes("data", data, data_len)?);
        batch.change(|writes| writes.insert_with_pref(&ds.0, key, data, preference))
    })
}

/// Adds: write `data` at byte `offset` of the value of `key`. As betree_batch_insert. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_batch_upsert(
    batch: Option<&Batch>,
    ds: Option<&Dataset>,
    key: *const c_void,
    key_len: usize,
    data: *const c_void,
    data_len: usize,
    offset: u32,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (batch, ds) = (given("batch", batch)?, given("ds", ds)?);
        let (key, data) = (bytes("key", key, key_len)?, bytes("data", data, data_len)?);
        batch.change(|writes| writes.upsert(&ds.0, key, data, offset))
    })
}

/// Adds: delete `key`. As betree_batch_insert. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_batch_delete(
    batch: Option<&Batch>,
    ds: Option<&Dataset>,
    key: *const c_void,
    key_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (batch, ds, key) = (given("batch", batch)?, given("ds", ds)?, bytes("key", key, key_len)?);
        batch.change(|writes| writes.delete(&ds.0, key))
    })
}

/// Adds: delete every key of a range, as in betree_dataset_range_delete. As betree_batch_insert. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_batch_range_delete(
    batch: Option<&Batch>,
    ds: Option<&Dataset>,
    low_key: *const c_void,
    low_key_len: usize,
    high_key: *const c_void,
    high_key_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (batch, ds) = (given("batch", batch)?, given("ds", ds)?);
        let range = range_of(low_key, low_key_len, high_key, high_key_len)?;
        batch.change(|writes| writes.range_delete::<_, &[u8]>(&ds.0, range))
    })
}

/// Commits all writes at one instant; `durability` is one of betree_durability_t. The batch is empty then, also on error but for a
/// `durability` that is none, and may be filled again. 0, or -1 on error: nothing was changed; only where the sync itself failed,
/// the writes are visible and may be lost in a crash. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_batch_commit(
    batch: Option<&Batch>,
    durability: u32,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (batch, durability) = (given("batch", batch)?, durability_of(durability)?);
        let writes = std::mem::replace(&mut *enter(&batch.writes)?, batch.database.batch());
        writes.commit(durability)
    })
}

/// Frees a batch, and what was not committed with it; NULL is none. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_free_batch(batch: Option<Box<Batch>>) {
    release(batch);
}
