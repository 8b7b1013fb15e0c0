//! A file of fio as an object.

use betree::{BegunRead, ObjectHandle, ReadQueue, Result, StoragePreference};

/// An object of the store.
#[derive(Debug)]
pub struct Object(pub ObjectHandle);

impl Object {
    /// Its length, in bytes.
    pub fn size(&self) -> Result<u64> {
        self.0.size()
    }

    /// Makes it at least `size` bytes long.
    pub fn extend(&self, size: u64) -> Result<()> {
        if self.0.size()? < size { self.0.truncate(size) } else { Ok(()) }
    }

    /// Reads into `buffer` from byte `offset` on; returns how many bytes there are.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.0.read_at(buffer, offset)
    }

    /// Begins to read into `buffer` from byte `offset` on.
    pub fn begin(
        &self,
        queue: &mut ReadQueue,
        buffer: &mut [u8],
        offset: u64,
        tag: u64,
    ) -> Result<BegunRead> {
        self.0.begin_read_at(queue, buffer, offset, tag)
    }

    /// Writes `bytes` at byte `offset`.
    pub fn write(&self, bytes: &[u8], offset: u64, preference: StoragePreference) -> Result<()> {
        self.0.write_at_with_pref(bytes, offset, preference).map(|_| ())
    }

    /// Makes `length` bytes from byte `offset` on read as zeros.
    pub fn trim(&self, offset: u64, length: u64) -> Result<()> {
        self.0.punch_hole(offset, length)
    }
}
