//! Objects: bytes of any length, read and written at any offset.

use crate::boundary::{
    buffer, bytes, call, find, given, illegal, make, maybe_out, out, out_bytes, release, taken, value,
};
use crate::bytes::ByteSlice;
use crate::condition::number_of;
use crate::error::Failure;
use crate::iterator::{Entries, enter};
use crate::preference::{MigratedCount, StoragePref};
use crate::snapshot::nanoseconds;
use crate::store::Store;
use engine::{
    Error, Migrated, ObjectHandle, ObjectInfo, ObjectView, PreferredAccessType, Result, StoragePreference,
};
use std::ffi::{c_int, c_void};
use std::sync::Mutex;

/// An open object: of a store, which can be written to and goes on under another name after a rename; or of a snapshot of a store,
/// where everything that writes reports BETREE_ERROR_READ_ONLY. When an object of a store was deleted or replaced, its handles
/// report BETREE_ERROR_NOT_FOUND. Freed with `betree_object_close` or `betree_object_delete`.
#[derive(Debug)]
pub struct Object {
    source: Source,
    /// Where what is written through this handle goes.
    preference: StoragePreference,
}

#[derive(Debug)]
enum Source {
    Handle(ObjectHandle),
    View(ObjectView),
}

impl From<ObjectView> for Object {
    fn from(view: ObjectView) -> Self {
        Self { source: Source::View(view), preference: StoragePreference::NONE }
    }
}

impl Object {
    fn new(handle: ObjectHandle, preference: StoragePreference) -> Self {
        Self { source: Source::Handle(handle), preference }
    }

    fn writable(&self) -> Result<&ObjectHandle> {
        match &self.source {
            Source::Handle(handle) => Ok(handle),
            Source::View(_) => Err(Error::ReadOnly),
        }
    }

    fn info(&self) -> Result<ObjectInfo> {
        match &self.source {
            Source::Handle(handle) => handle.info(),
            Source::View(view) => Ok(view.info()),
        }
    }
}

/// What a store knows of an object.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ObjectDetails {
    /// Length in bytes, holes included.
    pub size: u64,
    /// When its bytes were changed last, in nanoseconds since 1970.
    pub mtime_ns: u64,
    /// When it was created, in nanoseconds since 1970.
    pub created_ns: u64,
    /// Which state of its bytes it is in: another number after each write, and never one that any object of the store had before.
    pub version: u64,
    /// Its number in the store, which no other object ever had.
    pub id: u64,
    /// Where it is written, unless a write says otherwise.
    pub preference: StoragePref,
}

impl From<&ObjectInfo> for ObjectDetails {
    fn from(info: &ObjectInfo) -> Self {
        Self {
            size: info.size,
            mtime_ns: nanoseconds(info.mtime),
            created_ns: nanoseconds(info.created),
            version: number_of(info.version),
            id: info.id,
            preference: info.preference.into(),
        }
    }
}

/// Makes the empty object `key`, which prefers `storage_pref`. NULL on error: BETREE_ERROR_ALREADY_EXISTS. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_create(
    os: Option<&Store>,
    key: *const c_void,
    key_len: usize,
    storage_pref: StoragePref,
    err: *mut *mut Failure,
) -> Option<Box<Object>> {
    make(err, || {
        let (os, key, preference) = (given("os", os)?, bytes("key", key, key_len)?, storage_pref.get()?);
        // The object has the preference; a handle with one of its own would stay there when the object is moved.
        Ok(Object::new(os.0.create_object_with_pref(key, preference)?, StoragePreference::NONE))
    })
}

/// What tiers are good at, as their configuration says.
#[expect(non_camel_case_types, reason = "the names are those of C")]
#[derive(Debug)]
#[repr(C)]
#[expect(dead_code, reason = "C programs use them; they come in as numbers")]
pub enum AccessKind {
    /// Nothing was said.
    BETREE_ACCESS_UNKNOWN = 0,
    /// Reading at random offsets.
    BETREE_ACCESS_RANDOM_READ = 1,
    /// Writing at random offsets.
    BETREE_ACCESS_RANDOM_WRITE = 2,
    /// Both.
    BETREE_ACCESS_RANDOM_READ_WRITE = 3,
    /// Writing from start to end.
    BETREE_ACCESS_SEQUENTIAL_WRITE = 4,
    /// Reading from start to end.
    BETREE_ACCESS_SEQUENTIAL_READ = 5,
    /// Both.
    BETREE_ACCESS_SEQUENTIAL_READ_WRITE = 6,
}

/// As betree_object_create, on the fastest tier that is configured for `access`, one of betree_access_t; without a preference when
/// there is none. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_create_with_access(
    os: Option<&Store>,
    key: *const c_void,
    key_len: usize,
    access: u32,
    err: *mut *mut Failure,
) -> Option<Box<Object>> {
    make(err, || {
        let (os, key) = (given("os", os)?, bytes("key", key, key_len)?);
        let access = match access {
            0 => PreferredAccessType::Unknown,
            1 => PreferredAccessType::RandomRead,
            2 => PreferredAccessType::RandomWrite,
            3 => PreferredAccessType::RandomReadWrite,
            4 => PreferredAccessType::SequentialWrite,
            5 => PreferredAccessType::SequentialRead,
            6 => PreferredAccessType::SequentialReadWrite,
            other => return Err(illegal("access", format!("{other} is none"))),
        };
        Ok(Object::new(os.0.create_object_with_access_type(key, access)?, StoragePreference::NONE))
    })
}

/// Opens the object `key`. What is written through this handle prefers `storage_pref`, or, with STORAGE_PREF_NONE, what the
/// object prefers. NULL on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_open(
    os: Option<&Store>,
    key: *const c_void,
    key_len: usize,
    storage_pref: StoragePref,
    err: *mut *mut Failure,
) -> Option<Box<Object>> {
    make(err, || {
        let (os, key, preference) = (given("os", os)?, bytes("key", key, key_len)?, storage_pref.get()?);
        let opened = os.0.open_object(key)?;
        let missing = || Error::NotFound { what: "object", name: key.escape_ascii().to_string() };
        Ok(Object::new(opened.ok_or_else(missing)?, preference))
    })
}

/// Opens the object `key`, or makes it; what is written through the handle prefers `storage_pref`. NULL on error. Thread-safe: of
/// several who do so at once, one makes it.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_open_or_create(
    os: Option<&Store>,
    key: *const c_void,
    key_len: usize,
    storage_pref: StoragePref,
    err: *mut *mut Failure,
) -> Option<Box<Object>> {
    make(err, || {
        let (os, key, preference) = (given("os", os)?, bytes("key", key, key_len)?, storage_pref.get()?);
        Ok(Object::new(os.0.open_or_create_object_with_pref(key, preference)?, preference))
    })
}

/// Makes the empty object `key` in place of one that has that name. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_replace(
    os: Option<&Store>,
    key: *const c_void,
    key_len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Object>> {
    make(err, || {
        let (os, key) = (given("os", os)?, bytes("key", key, key_len)?);
        Ok(Object::new(os.0.replace_object(key)?, StoragePreference::NONE))
    })
}

/// Frees a handle of an object, which stays; NULL is none. 0. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_close(obj: Option<Box<Object>>, err: *mut *mut Failure) -> c_int {
    call(err, || {
        drop(obj);
        Ok(())
    })
}

/// Deletes the object and frees the handle, also on error. 0, or -1 on error. No other thread may use `obj` then; other handles
/// of the object report BETREE_ERROR_NOT_FOUND.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_delete(obj: Option<Box<Object>>, err: *mut *mut Failure) -> c_int {
    call(err, || taken("obj", obj)?.writable()?.delete())
}

/// Puts the name into `name`: the new one after a rename. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_name(
    obj: Option<&Object>,
    name: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let name = out_bytes("name", name)?;
        let of = match &given("obj", obj)?.source {
            Source::Handle(handle) => handle.name(),
            Source::View(view) => view.name(),
        };
        name.set(of.into());
        Ok(())
    })
}

/// Puts what there is to say about the object into `info`. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_info(
    obj: Option<&Object>,
    info: *mut ObjectDetails,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let info = out("info", info)?;
        info.set((&given("obj", obj)?.info()?).into());
        Ok(())
    })
}

/// Length of the object in bytes, holes included, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_size(obj: Option<&Object>, err: *mut *mut Failure) -> i64 {
    value(err, -1, || signed(given("obj", obj)?.info()?.size))
}

fn signed(size: u64) -> Result<i64> {
    i64::try_from(size).map_err(|_| Error::Corrupt { what: "object", reason: format!("a size of {size}") })
}

/// Length in bytes of the object `key` of the store, or -1 on error: BETREE_ERROR_NOT_FOUND. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_get_size(
    os: Option<&Store>,
    key: *const c_void,
    key_len: usize,
    err: *mut *mut Failure,
) -> i64 {
    value(err, -1, || {
        let (os, key) = (given("os", os)?, bytes("key", key, key_len)?);
        let info = os.0.read_object_info(key)?;
        let missing = || Error::NotFound { what: "object", name: key.escape_ascii().to_string() };
        signed(info.ok_or_else(missing)?.size)
    })
}

/// Reads up to `buf_len` bytes from `offset` on into `buf`, of one state of the object, and puts how many there were into
/// `n_read`: fewer only at the end of the object. What was never written reads as zeros. 0, or -1 on error: what is in `buf` then
/// says nothing, and `n_read` is as it was. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_read_at(
    obj: Option<&Object>,
    buf: *mut c_void,
    buf_len: usize,
    offset: u64,
    n_read: *mut usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (obj, buf, n_read) = (given("obj", obj)?, buffer("buf", buf, buf_len)?, out("n_read", n_read)?);
        n_read.set(match &obj.source {
            Source::Handle(handle) => handle.read_at(buf, offset),
            Source::View(view) => view.read_at(buf, offset),
        }?);
        Ok(())
    })
}

/// Writes `buf_len` bytes at `offset`; the object grows as needed. `n_written` may be NULL and says `buf_len`. Up to 16 MiB are
/// seen, and survive a crash, all or not at all. 0, or -1 on error: nothing was written, or of a longer write the first pieces of
/// 16 MiB. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_write_at(
    obj: Option<&Object>,
    buf: *const c_void,
    buf_len: usize,
    offset: u64,
    n_written: *mut usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (obj, buf) = (given("obj", obj)?, bytes("buf", buf, buf_len)?);
        let n_written = maybe_out("n_written", n_written)?;
        n_written.set(obj.writable()?.write_at_with_pref(buf, offset, obj.preference)?);
        Ok(())
    })
}

/// Writes `buf_len` bytes behind the end, on the tier that the object prefers, not the handle; puts where that was into `offset`,
/// which may be NULL. 0, or -1 on error. Thread-safe: of several who append at once, each writes behind the others.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_append(
    obj: Option<&Object>,
    buf: *const c_void,
    buf_len: usize,
    offset: *mut u64,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (obj, buf, offset) =
            (given("obj", obj)?, bytes("buf", buf, buf_len)?, maybe_out("offset", offset)?);
        offset.set(obj.writable()?.append(buf)?);
        Ok(())
    })
}

/// Makes the object `size` bytes long: what is behind is gone, what is added reads as zeros. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_truncate(obj: Option<&Object>, size: u64, err: *mut *mut Failure) -> c_int {
    call(err, || given("obj", obj)?.writable()?.truncate(size))
}

/// Makes `length` bytes from `offset` on read as zeros, and gives back their space; the size stays. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_punch_hole(
    obj: Option<&Object>,
    offset: u64,
    length: u64,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || given("obj", obj)?.writable()?.punch_hole(offset, length))
}

/// Gives the object another name, in place of one that has it. All its handles go on. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_rename(
    obj: Option<&Object>,
    new_key: *const c_void,
    new_key_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || given("obj", obj)?.writable()?.rename(bytes("new_key", new_key, new_key_len)?))
}

/// Sets where the object is written from now on, by handles without a preference; what is there stays where it is. 0, or -1 on
/// error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_set_preference(
    obj: Option<&Object>,
    storage_pref: StoragePref,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || given("obj", obj)?.writable()?.set_storage_preference(storage_pref.get()?))
}

fn migrate(
    obj: Option<&Object>,
    moved: *mut MigratedCount,
    migrate: impl FnOnce(&ObjectHandle) -> Result<Migrated>,
) -> Result<()> {
    let moved = maybe_out("moved", moved)?;
    moved.set(migrate(given("obj", obj)?.writable()?)?.into());
    Ok(())
}

/// Moves the object to the tier that `storage_pref` names, which it prefers from now on; says how much was moved in `moved`, which
/// may be NULL. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_migrate(
    obj: Option<&Object>,
    storage_pref: StoragePref,
    moved: *mut MigratedCount,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || migrate(obj, moved, |object| object.migrate(storage_pref.get()?)))
}

/// As betree_object_migrate, to the next faster tier that has devices. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_migrate_up(
    obj: Option<&Object>,
    moved: *mut MigratedCount,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || migrate(obj, moved, ObjectHandle::migrate_up))
}

/// As betree_object_migrate, to the next slower tier that has devices. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_migrate_down(
    obj: Option<&Object>,
    moved: *mut MigratedCount,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || migrate(obj, moved, ObjectHandle::migrate_down))
}

/// Moves the chunks of 128 KiB that hold the `length` bytes from `offset` on (UINT64_MAX: to the end) to the tier that
/// `storage_pref` names; what the object prefers stays. As betree_object_migrate. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_migrate_range(
    obj: Option<&Object>,
    offset: u64,
    length: u64,
    storage_pref: StoragePref,
    moved: *mut MigratedCount,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || migrate(obj, moved, |object| object.migrate_range(offset, length, storage_pref.get()?)))
}

/// Sets the custom metadata `name`. The version of the object stays. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_set_metadata(
    obj: Option<&Object>,
    name: *const c_void,
    name_len: usize,
    value: *const c_void,
    value_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (name, value) = (bytes("name", name, name_len)?, bytes("value", value, value_len)?);
        given("obj", obj)?.writable()?.set_metadata(name, value)
    })
}

/// Puts the custom metadata `name` into `value`, which is then freed with betree_free_byte_slice. 0; 1 when there is none; -1 on
/// error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_get_metadata(
    obj: Option<&Object>,
    name: *const c_void,
    name_len: usize,
    value: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let (obj, name, value) =
            (given("obj", obj)?, bytes("name", name, name_len)?, out_bytes("value", value)?);
        let found = match &obj.source {
            Source::Handle(handle) => handle.get_metadata(name),
            Source::View(view) => view.get_metadata(name),
        }?;
        Ok(found.map(|found| value.set(found.into())))
    })
}

/// Deletes the custom metadata `name`, whether there is any or not. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_delete_metadata(
    obj: Option<&Object>,
    name: *const c_void,
    name_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || given("obj", obj)?.writable()?.delete_metadata(bytes("name", name, name_len)?))
}

/// All custom metadata, in the order of the names, of one state. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_iter_metadata(
    obj: Option<&Object>,
    err: *mut *mut Failure,
) -> Option<Box<Entries>> {
    make(err, || {
        Ok(match &given("obj", obj)?.source {
            Source::Handle(handle) => handle.iter_metadata()?,
            Source::View(view) => view.iter_metadata(),
        }
        .into())
    })
}

/// Iterator over the bytes of an object that were written, from one state; after an error it is at its end. Freed with
/// `betree_free_chunk_iter`.
#[derive(Debug)]
pub struct Chunks(Mutex<Option<engine::Chunks>>);

/// The chunks of 128 KiB that are there, of the numbers from `first` up to `end` and without that (UINT64_MAX: all). NULL on error.
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_chunks(
    obj: Option<&Object>,
    first: u64,
    end: u64,
    err: *mut *mut Failure,
) -> Option<Box<Chunks>> {
    make(err, || {
        let chunks = match &given("obj", obj)?.source {
            Source::Handle(handle) => handle.read_chunk_range(first..end)?,
            Source::View(view) => view.read_chunk_range(first..end),
        };
        Ok(Chunks(Mutex::new(Some(chunks))))
    })
}

/// Puts the bytes of the next chunk that is there into `chunk`, which is then freed with betree_free_byte_slice, and where in the
/// object they are into `offset`; what is between chunks reads as zeros. 0; 1 at the end, then and forever; -1 on error.
/// Thread-safe: each chunk goes to one caller.
#[unsafe(no_mangle)]
pub extern "C" fn betree_chunk_iter_next(
    chunk_iter: Option<&Chunks>,
    offset: *mut u64,
    chunk: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let (offset, chunk) = (out("offset", offset)?, out_bytes("chunk", chunk)?);
        let mut source = enter(&given("chunk_iter", chunk_iter)?.0)?;
        let next = source.as_mut().and_then(Iterator::next);
        if !matches!(next, Some(Ok(_))) {
            *source = None;
        }
        Ok(next.transpose()?.map(|(place, bytes)| {
            offset.set(place.start);
            chunk.set(bytes.into());
        }))
    })
}

/// Frees an iterator over chunks; NULL is none. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_free_chunk_iter(chunk_iter: Option<Box<Chunks>>) {
    release(chunk_iter);
}
