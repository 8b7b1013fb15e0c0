//! Changes of several objects of a store at one instant.

use crate::batch::durability_of;
use crate::boundary::{bytes, call, given, make, release};
use crate::condition::{ConditionOf, condition_at};
use crate::error::Failure;
use crate::iterator::enter;
use crate::preference::StoragePref;
use crate::store::Store;
use engine::Result;
use std::ffi::{c_int, c_void};
use std::sync::Mutex;

/// Changes of objects that are seen, and survive a crash, all or not at all; made in the order in which they were added, each on
/// what those before it left. Nothing happens before `betree_object_batch_commit`. Freed with `betree_free_object_batch`.
#[derive(Debug)]
pub struct ObjectBatch {
    store: engine::ObjectStore,
    changes: Mutex<engine::ObjectBatch>,
}

impl ObjectBatch {
    /// Lets `change` add to the changes.
    fn change(&self, change: impl FnOnce(engine::ObjectBatch) -> engine::ObjectBatch) -> Result<()> {
        let mut changes = enter(&self.changes)?;
        let before = std::mem::replace(&mut *changes, self.store.batch());
        *changes = change(before);
        Ok(())
    }
}

/// An empty batch. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_batch_new(
    os: Option<&Store>,
    err: *mut *mut Failure,
) -> Option<Box<ObjectBatch>> {
    make(err, || {
        let store = given("os", os)?.0.clone();
        Ok(ObjectBatch { changes: Mutex::new(store.batch()), store })
    })
}

/// Adds: fail the whole batch unless `condition` holds of the object `key`, as the changes before leave it. 0, or -1 on error; what
/// only the store can judge (lengths, what is there), the commit reports. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_batch_require(
    batch: Option<&ObjectBatch>,
    key: *const c_void,
    key_len: usize,
    condition: *const ConditionOf,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (batch, key) = (given("batch", batch)?, bytes("key", key, key_len)?);
        let condition = condition_at(condition)?;
        batch.change(|changes| changes.require(key, condition))
    })
}

/// Adds: make `data` the object `key`, in place of one that has that name. As betree_object_batch_require. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_batch_put(
    batch: Option<&ObjectBatch>,
    key: *const c_void,
    key_len: usize,
    data: *const c_void,
    data_len: usize,
    storage_pref: StoragePref,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (batch, preference) = (given("batch", batch)?, storage_pref.get()?);
        let (key, data) = (bytes("key", key, key_len)?, bytes("data", data, data_len)?);
        batch.change(|changes| changes.put_with_pref(key, data, preference))
    })
}

/// Adds: write `data` at byte `offset` of the object `key`, which must be there. As betree_object_batch_require. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_batch_write_at(
    batch: Option<&ObjectBatch>,
    key: *const c_void,
    key_len: usize,
    data: *const c_void,
    data_len: usize,
    offset: u64,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let batch = given("batch", batch)?;
        let (key, data) = (bytes("key", key, key_len)?, bytes("data", data, data_len)?);
        batch.change(|changes| changes.write_at(key, data, offset))
    })
}

/// Adds: delete the object `key`, which must be there. As betree_object_batch_require. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_batch_delete(
    batch: Option<&ObjectBatch>,
    key: *const c_void,
    key_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (batch, key) = (given("batch", batch)?, bytes("key", key, key_len)?);
        batch.change(|changes| changes.delete(key))
    })
}

/// Adds: give the object `key`, which must be there, another name, in place of one that has it. As betree_object_batch_require.
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_batch_rename(
    batch: Option<&ObjectBatch>,
    key: *const c_void,
    key_len: usize,
    new_key: *const c_void,
    new_key_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let batch = given("batch", batch)?;
        let (key, new_key) = (bytes("key", key, key_len)?, bytes("new_key", new_key, new_key_len)?);
        batch.change(|changes| changes.rename(key, new_key))
    })
}

/// Adds: set the custom metadata `name` of the object `key`, which must be there. As betree_object_batch_require. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_batch_set_metadata(
    batch: Option<&ObjectBatch>,
    key: *const c_void,
    key_len: usize,
    name: *const c_void,
    name_len: usize,
    value: *const c_void,
    value_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (batch, key) = (given("batch", batch)?, bytes("key", key, key_len)?);
        let (name, value) = (bytes("name", name, name_len)?, bytes("value", value, value_len)?);
        batch.change(|changes| changes.set_metadata(key, name, value))
    })
}

/// Adds: delete the custom metadata `name` of the object `key`, which must be there. As betree_object_batch_require. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_batch_delete_metadata(
    batch: Option<&ObjectBatch>,
    key: *const c_void,
    key_len: usize,
    name: *const c_void,
    name_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (batch, key, name) =
            (given("batch", batch)?, bytes("key", key, key_len)?, bytes("name", name, name_len)?);
        batch.change(|changes| changes.delete_metadata(key, name))
    })
}

/// Commits all changes at one instant; `durability` is one of betree_durability_t. The batch is empty then, also on error but for a
/// `durability` that is none, and may be filled again. 0, or -1 on error: nothing was changed; only where the sync itself failed,
/// the changes are visible and may be lost in a crash. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_batch_commit(
    batch: Option<&ObjectBatch>,
    durability: u32,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (batch, durability) = (given("batch", batch)?, durability_of(durability)?);
        let changes = std::mem::replace(&mut *enter(&batch.changes)?, batch.store.batch());
        changes.commit(durability)
    })
}

/// Frees a batch, and what was not committed with it; NULL is none. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_free_object_batch(batch: Option<Box<ObjectBatch>>) {
    release(batch);
}
