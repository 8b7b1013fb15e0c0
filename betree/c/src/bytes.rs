//! Bytes that go out.

use crate::boundary::tell;
use engine::Value;
use std::ffi::c_char;

/// What owns the bytes of a slice.
#[derive(Debug)]
pub enum SliceOwner {
    /// A value of a dataset, shared with caches and others.
    Value(Value),
    /// Bytes of its own.
    Bytes(Vec<u8>),
}

/// Bytes that the library made: `len` of them at `ptr`, which is never NULL but in an empty slice that was freed. They may hold
/// anything, zero bytes included, and do not end with one. Owned by whoever got them; freed with `betree_free_byte_slice`.
/// They do not change, and do not depend on any other handle.
#[derive(Debug)]
#[repr(C)]
pub struct ByteSlice {
    /// The first byte.
    ptr: *const c_char,
    /// Number of bytes.
    len: usize,
    /// What owns them.
    arc: *const SliceOwner,
}

impl ByteSlice {
    /// No bytes.
    pub const EMPTY: Self = Self { ptr: std::ptr::null(), len: 0, arc: std::ptr::null() };

    fn of(owner: SliceOwner) -> Self {
        let owner = Box::new(owner);
        let bytes: &[u8] = match &*owner {
            SliceOwner::Value(value) => value,
            SliceOwner::Bytes(bytes) => bytes,
        };
        // The bytes stay where they are: the owner is on the heap and never touched again.
        let (ptr, len) = (bytes.as_ptr().cast(), bytes.len());
        Self { ptr, len, arc: Box::into_raw(owner) }
    }
}

impl From<Value> for ByteSlice {
    fn from(value: Value) -> Self {
        Self::of(SliceOwner::Value(value))
    }
}

impl From<Vec<u8>> for ByteSlice {
    fn from(bytes: Vec<u8>) -> Self {
        Self::of(SliceOwner::Bytes(bytes))
    }
}

impl From<String> for ByteSlice {
    fn from(text: String) -> Self {
        Self::from(text.into_bytes())
    }
}

/// Frees the bytes of a slice and makes it empty, so that freeing it again does nothing. NULL is none. Copies of a slice are one
/// slice: only one of them may be freed. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_free_byte_slice(x: *mut ByteSlice) {
    tell((), || {
        if x.is_null() || !x.is_aligned() {
            return;
        }
        // SAFETY: not NULL, aligned; the caller has a slice there.
        let slice = unsafe { x.replace(ByteSlice::EMPTY) };
        if !slice.arc.is_null() {
            // SAFETY: `ByteSlice::of` made it of a box; it is freed once, for it was taken out of the slice.
            drop(unsafe { Box::from_raw(slice.arc.cast_mut()) });
        }
    });
}
