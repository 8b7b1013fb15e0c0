//! Where C meets Rust: results, panics, and the pointers that callers pass.
//!
//! What no program can check is what callers promise at the top of the header: a pointer that is not NULL points to what the
//! function says, of the length that goes with it, as long as the call lasts; a handle is of the kind that it is passed as, and
//! was not freed. The functions here are safe to call with what came from C just now, and with nothing else.

use crate::bytes::ByteSlice;
use crate::error::Failure;
use engine::{Error, Result};
use std::any::Any;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Done.
pub const BETREE_OK: c_int = 0;
/// Nothing is wrong, and there is nothing: no such key or object, the end of an iterator. No error is stored.
pub const BETREE_NONE: c_int = 1;
/// It failed, and `*err` says why.
pub const BETREE_FAILED: c_int = -1;

/// Runs `body`; what goes wrong in it, panics included, is stored in `err` unless that is NULL.
fn run<T>(err: *mut *mut Failure, body: impl FnOnce() -> Result<T>) -> Option<T> {
    // What a panic leaves behind is behind locks that do not know of it, or is dropped here.
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(error)) => Failure::from(error),
        Err(panic) => Failure::of_panic(&*panic),
    };
    if !err.is_null() && err.is_aligned() {
        // SAFETY: the caller passes NULL or a place for a pointer. What is there is overwritten unread.
        unsafe { err.write(Box::into_raw(Box::new(failure))) };
    }
    None
}

/// 0, or -1 with an error.
pub fn call(err: *mut *mut Failure, body: impl FnOnce() -> Result<()>) -> c_int {
    run(err, body).map_or(BETREE_FAILED, |()| BETREE_OK)
}

/// 0, or 1 when `body` found nothing, or -1 with an error.
pub fn find(err: *mut *mut Failure, body: impl FnOnce() -> Result<Option<()>>) -> c_int {
    run(err, body).map_or(BETREE_FAILED, |found| found.map_or(BETREE_NONE, |()| BETREE_OK))
}

/// A new handle, or NULL with an error.
pub fn make<T>(err: *mut *mut Failure, body: impl FnOnce() -> Result<T>) -> Option<Box<T>> {
    run(err, body).map(Box::new)
}

/// What `body` says, or `otherwise` with an error.
pub fn value<T>(err: *mut *mut Failure, otherwise: T, body: impl FnOnce() -> Result<T>) -> T {
    run(err, body).unwrap_or(otherwise)
}

/// What `body` says, where there is nowhere to say what went wrong.
pub fn tell<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    run(std::ptr::null_mut(), || Ok(body())).unwrap_or(otherwise)
}

/// Frees a handle; NULL is none.
pub fn release<T>(handle: Option<Box<T>>) {
    tell((), || drop(handle));
}

/// What a panic said.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| String::from("no message"))
}

/// An argument that is not legal.
pub fn illegal(what: &'static str, reason: impl Into<String>) -> Error {
    Error::InvalidArgument { what, reason: reason.into() }
}

/// The handle that was passed as `what`.
pub fn given<'a, T: ?Sized>(what: &'static str, handle: Option<&'a T>) -> Result<&'a T> {
    handle.ok_or_else(|| illegal(what, "it is NULL"))
}

/// The handle that was passed as `what` and is to be freed.
pub fn taken<T>(what: &'static str, handle: Option<Box<T>>) -> Result<Box<T>> {
    handle.ok_or_else(|| illegal(what, "it is NULL"))
}

fn check_array<T>(what: &'static str, start: *const T, length: usize) -> Result<bool> {
    let bytes = length.checked_mul(size_of::<T>().max(1));
    if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(illegal(what, format!("a length of {length} is more than memory has")));
    }
    if start.is_null() && length > 0 {
        return Err(illegal(what, format!("it is NULL, with a length of {length}")));
    }
    if !start.is_aligned() {
        return Err(illegal(what, "it is not aligned"));
    }
    Ok(length > 0)
}

/// `length` elements from `start` on; NULL is none of them.
pub fn array<'a, T>(what: &'static str, start: *const T, length: usize) -> Result<&'a [T]> {
    if !check_array(what, start, length)? {
        return Ok(&[]);
    }
    // SAFETY: not NULL, aligned, of a legal length; the caller has that many elements there, which stay as they are as
    // long as the call lasts.
    Ok(unsafe { std::slice::from_raw_parts(start, length) })
}

/// `length` bytes from `start` on; NULL is none of them.
pub fn bytes<'a>(what: &'static str, start: *const c_void, length: usize) -> Result<&'a [u8]> {
    array(what, start.cast(), length)
}

/// As [`bytes`]; NULL is no bound at all, rather than an empty one.
pub fn bound<'a>(what: &'static str, start: *const c_void, length: usize) -> Result<Option<&'a [u8]>> {
    let bytes = bytes(what, start, length)?;
    Ok((!start.is_null()).then_some(bytes))
}

/// `length` bytes from `start` on, to be written to.
pub fn buffer<'a>(what: &'static str, start: *mut c_void, length: usize) -> Result<&'a mut [u8]> {
    let start: *mut u8 = start.cast();
    if !check_array(what, start, length)? {
        return Ok(&mut []);
    }
    // SAFETY: not NULL, of a legal length; the caller has that many bytes there, which nobody else touches as long as the
    // call lasts. What is in them is never looked at.
    Ok(unsafe { std::slice::from_raw_parts_mut(start, length) })
}

/// Text that ends with a zero byte.
pub fn word<'a>(what: &'static str, start: *const c_char) -> Result<&'a CStr> {
    if start.is_null() {
        return Err(illegal(what, "it is NULL"));
    }
    // SAFETY: not NULL; the caller has a zero byte at its end.
    Ok(unsafe { CStr::from_ptr(start) })
}

/// UTF-8 of `length` bytes.
pub fn text<'a>(what: &'static str, start: *const c_void, length: usize) -> Result<&'a str> {
    std::str::from_utf8(bytes(what, start, length)?).map_err(|error| illegal(what, error.to_string()))
}

/// A place for a result.
#[derive(Debug)]
pub struct Out<T>(*mut T);

/// The place that was passed as `what`.
pub fn out<T>(what: &'static str, place: *mut T) -> Result<Out<T>> {
    if place.is_null() {
        return Err(illegal(what, "it is NULL"));
    }
    maybe_out(what, place)
}

/// A place for bytes, empty until it is set: who frees them after an error frees nothing.
///
/// # Errors
/// As [`out`].
pub fn out_bytes(what: &'static str, place: *mut ByteSlice) -> Result<Out<ByteSlice>> {
    let out = out(what, place)?;
    // SAFETY: not NULL, aligned; the caller has a place there.
    unsafe { place.write(ByteSlice::EMPTY) };
    Ok(out)
}

/// The place that was passed as `what`; what is put at NULL is not wanted.
pub fn maybe_out<T>(what: &'static str, place: *mut T) -> Result<Out<T>> {
    if place.is_aligned() { Ok(Out(place)) } else { Err(illegal(what, "it is not aligned")) }
}

impl<T> Out<T> {
    /// Puts `value` there.
    pub fn set(&self, value: T) {
        if !self.0.is_null() {
            // SAFETY: not NULL, aligned; the caller has a place for one value there. What is there is overwritten unread.
            unsafe { self.0.write(value) };
        }
    }
}

/// What is at `start`; NULL is nothing.
pub fn optional<'a, T>(what: &'static str, start: *const T) -> Result<Option<&'a T>> {
    Ok(array(what, start, usize::from(!start.is_null()))?.first())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use std::ptr::{dangling, null, null_mut};

    fn kind_of(body: impl FnOnce() -> Result<()>) -> Option<ErrorKind> {
        let mut err = null_mut();
        let failed = call(&mut err, body) == BETREE_FAILED;
        assert_eq!(failed, !err.is_null());
        // SAFETY: `call` has just made it.
        failed.then(|| unsafe { Box::from_raw(err) }.kind())
    }

    #[test]
    fn a_panic_is_an_error() {
        assert_eq!(kind_of(|| panic!("on purpose")), Some(ErrorKind::BETREE_ERROR_PANIC));
        assert_eq!(call(null_mut(), || panic!("on purpose")), BETREE_FAILED);
        assert_eq!(find(null_mut(), || panic!("on purpose")), BETREE_FAILED);
        assert!(make::<u8>(null_mut(), || panic!("on purpose")).is_none());
        assert_eq!(value(null_mut(), 7, || panic!("on purpose")), 7);
        assert_eq!(tell(7, || panic!("on purpose")), 7);
        assert_eq!(kind_of(|| Ok(())), None);
    }

    #[test]
    fn dropping_a_handle_that_panics_is_survived() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("on purpose");
            }
        }
        release(Some(Box::new(Bomb)));
    }

    #[test]
    fn arrays_that_cannot_be_are_errors() {
        assert_eq!(bytes("key", null(), 0).unwrap(), b"");
        assert_eq!(bytes("key", dangling(), 0).unwrap(), b"");
        assert!(bytes("key", null(), 1).is_err());
        assert!(bytes("key", dangling(), usize::MAX).is_err());
        assert!(bytes("key", dangling(), isize::MAX as usize + 1).is_err());
        assert!(buffer("buffer", null_mut(), 1).is_err());
        assert!(array::<u64>("list", dangling(), usize::MAX / 8).is_err());
        assert!(array::<u64>("list", std::ptr::without_provenance(1), 1).is_err());
        assert_eq!(bound("high", null(), 0).unwrap(), None);
        assert_eq!(bound("high", dangling(), 0).unwrap(), Some(&b""[..]));
        assert!(out::<u64>("place", null_mut()).is_err());
        assert!(maybe_out::<u64>("place", std::ptr::without_provenance_mut(1)).is_err());
        maybe_out::<u64>("place", null_mut()).unwrap().set(1);
        assert!(given::<u8>("handle", None).is_err());
        assert!(word("path", null()).is_err());
        assert!(text("name", b"\xff".as_ptr().cast(), 1).is_err());
    }
}
