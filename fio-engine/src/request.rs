//! A request of fio: what to do, where, and with which buffer.

use crate::target::Target;
use betree::{Error, Result};
use std::ffi::c_void;
use std::sync::Arc;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum Operation {
    /// Fills the buffer.
    Read = 0,
    /// Writes the buffer.
    Write = 1,
    /// Makes the bytes read as zeros, and gives their space back.
    Trim = 2,
    /// Makes what was written before durable.
    Sync = 3,
}

impl Operation {
    /// The operation that has `number`.
    ///
    /// # Errors
    /// There is none.
    pub fn of(number: u32) -> Result<Self> {
        let all = [Self::Read, Self::Write, Self::Trim, Self::Sync];
        let found = all.into_iter().find(|operation| *operation as u32 == number);
        found.ok_or_else(|| Error::InvalidArgument { what: "operation", reason: format!("{number} is none") })
    }
}

/// Memory of fio that belongs to a request until that was handed back.
#[derive(Debug)]
pub struct Buffer {
    start: *mut u8,
    length: usize,
}

// SAFETY: fio leaves the buffer of a request alone until the request was handed back, so that whoever has the request has it alone.
unsafe impl Send for Buffer {}

impl Buffer {
    /// `length` bytes from `start` on; NULL is none of them, whatever the length.
    ///
    /// # Safety
    /// Unless `start` is NULL, there are `length` bytes, which nobody else touches as long as the buffer is used.
    pub unsafe fn new(start: *mut c_void, length: usize) -> Self {
        Self { start: start.cast(), length: if start.is_null() { 0 } else { length } }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: not NULL; whoever made the buffer promised the rest.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }

    /// The bytes, to be written to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        if self.length == 0 {
            return &mut [];
        }
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.length) }
    }
}

/// A request.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub operation: Operation,
    /// The file.
    pub target: Arc<Target>,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// Where they are, or go.
    pub buffer: Buffer,
}
