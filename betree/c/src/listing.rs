//! Lists of objects: iterators and pages.

use crate::boundary::{bytes, call, find, given, optional, out, out_bytes, release};
use crate::bytes::ByteSlice;
use crate::error::Failure;
use crate::iterator::enter;
use crate::object::ObjectDetails;
use engine::{ObjectPage, Result};
use std::ffi::{c_int, c_void};
use std::sync::Mutex;

/// Iterator over objects, in the order of their names, from one consistent state; after an error it is at its end. Freed with
/// `betree_free_object_iter`.
#[derive(Debug)]
pub struct Objects(Mutex<Option<engine::Objects>>);

impl From<engine::Objects> for Objects {
    fn from(objects: engine::Objects) -> Self {
        Self(Mutex::new(Some(objects)))
    }
}

fn next_object(
    iterator: Option<&Objects>,
    is_back: bool,
    name: *mut ByteSlice,
    info: *mut ObjectDetails,
) -> Result<Option<()>> {
    let (name, info) = (out_bytes("name", name)?, out("info", info)?);
    let mut source = enter(&given("object_iter", iterator)?.0)?;
    let next = source.as_mut().and_then(|objects| if is_back { objects.next_back() } else { objects.next() });
    if !matches!(next, Some(Ok(_))) {
        *source = None;
    }
    Ok(next.transpose()?.map(|(next_name, next_info)| {
        name.set(next_name.into());
        info.set((&next_info).into());
    }))
}

/// Puts the name of the next object into `name`, which is then freed with betree_free_byte_slice, and what is known of it into
/// `info`. 0; 1 at the end, then and forever; -1 on error. Thread-safe: each object goes to one caller.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_iter_next(
    object_iter: Option<&Objects>,
    name: *mut ByteSlice,
    info: *mut ObjectDetails,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || next_object(object_iter, false, name, info))
}

/// As betree_object_iter_next, from the other end. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_object_iter_next_back(
    object_iter: Option<&Objects>,
    name: *mut ByteSlice,
    info: *mut ObjectDetails,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || next_object(object_iter, true, name, info))
}

/// Frees an iterator over objects; NULL is none. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_free_object_iter(object_iter: Option<Box<Objects>>) {
    release(object_iter);
}

/// Which objects a page lists. All zeros: the first 1000.
#[derive(Debug)]
#[repr(C)]
pub struct ListSettings {
    /// Only names that start with this.
    prefix: *const c_void,
    /// Bytes of the prefix.
    prefix_len: usize,
    /// What names with this behind the prefix start with, up to and with it, is listed once instead of them.
    delimiter: *const c_void,
    /// Bytes of the delimiter.
    delimiter_len: usize,
    /// Only names behind this one.
    start_after: *const c_void,
    /// Bytes of that name.
    start_after_len: usize,
    /// betree_page_token of the page before; NULL for the first page.
    token: *const c_void,
    /// Bytes of the token.
    token_len: usize,
    /// Objects and prefixes on the page, at the most; 0 for 1000.
    limit: usize,
}

/// What the settings at `settings` say; NULL is all zeros.
pub fn options_at(settings: *const ListSettings) -> Result<engine::ListOptions> {
    let Some(settings) = optional("options", settings)? else { return Ok(engine::ListOptions::default()) };
    let token = bytes("token", settings.token, settings.token_len)?;
    Ok(engine::ListOptions {
        prefix: bytes("prefix", settings.prefix, settings.prefix_len)?.to_vec(),
        delimiter: bytes("delimiter", settings.delimiter, settings.delimiter_len)?.to_vec(),
        start_after: bytes("start_after", settings.start_after, settings.start_after_len)?.to_vec(),
        token: (!settings.token.is_null()).then(|| token.to_vec()),
        limit: settings.limit,
    })
}

/// A part of a list of objects. Freed with `betree_free_page`.
#[derive(Debug)]
pub struct Page(Mutex<Unread>);

#[derive(Debug)]
struct Unread {
    page: ObjectPage,
    objects_read: usize,
    prefixes_read: usize,
}

impl From<ObjectPage> for Page {
    fn from(page: ObjectPage) -> Self {
        Self(Mutex::new(Unread { page, objects_read: 0, prefixes_read: 0 }))
    }
}

/// Puts the next object of the page into `name`, which is then freed with betree_free_byte_slice, and `info`. 0; 1 when there are no
/// more; -1 on error. Thread-safe: each object goes to one caller.
#[unsafe(no_mangle)]
pub extern "C" fn betree_page_next_object(
    page: Option<&Page>,
    name: *mut ByteSlice,
    info: *mut ObjectDetails,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let (name, info) = (out_bytes("name", name)?, out("info", info)?);
        let mut unread = enter(&given("page", page)?.0)?;
        let Some((next_name, next_info)) = unread.page.objects.get(unread.objects_read) else {
            return Ok(None);
        };
        name.set(next_name.clone().into());
        info.set(next_info.into());
        unread.objects_read += 1;
        Ok(Some(()))
    })
}

/// Puts the next prefix of the page, what names with a delimiter start with, into `prefix`, which is then freed with
/// betree_free_byte_slice. 0; 1 when there are no more; -1 on error. Thread-safe: each prefix goes to one caller.
#[unsafe(no_mangle)]
pub extern "C" fn betree_page_next_prefix(
    page: Option<&Page>,
    prefix: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let prefix = out_bytes("prefix", prefix)?;
        let mut unread = enter(&given("page", page)?.0)?;
        let Some(next) = unread.page.prefixes.get(unread.prefixes_read) else { return Ok(None) };
        prefix.set(next.clone().into());
        unread.prefixes_read += 1;
        Ok(Some(()))
    })
}

/// Puts what the next page starts with into `token`, which is then freed with betree_free_byte_slice. 0; 1 when this is the last
/// page; -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_page_token(
    page: Option<&Page>,
    token: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let token = out_bytes("token", token)?;
        let unread = enter(&given("page", page)?.0)?;
        Ok(unread.page.token.clone().map(|next| token.set(next.into())))
    })
}

/// Puts how many objects and prefixes the page has into `objects` and `prefixes`. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_page_count(
    page: Option<&Page>,
    objects: *mut usize,
    prefixes: *mut usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (objects, prefixes) = (out("objects", objects)?, out("prefixes", prefixes)?);
        let unread = enter(&given("page", page)?.0)?;
        objects.set(unread.page.objects.len());
        prefixes.set(unread.page.prefixes.len());
        Ok(())
    })
}

/// Frees a page; NULL is none. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_free_page(page: Option<Box<Page>>) {
    release(page);
}
