//! A file of fio in a database, whatever it is there.

use crate::keys::Keys;
use crate::object::Object;
use betree::{BegunRead, ReadQueue, Result, StoragePreference};

/// A file of fio. Bytes below its size that were never written read as zeros, as those of a file do.
#[derive(Debug)]
pub enum Target {
    /// An object.
    Object(Box<Object>),
    /// Keys of a dataset.
    Keys(Keys),
}

/// What became of a read that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It was read: so many bytes.
    Read(usize),
    /// It is under way, and will be so many bytes, zeros where less arrives; `None`: as many as arrive.
    UnderWay(Option<usize>),
    /// Somebody has to wait for it.
    Waits,
}

impl Target {
    /// Its length, in bytes.
    pub fn size(&self) -> Result<u64> {
        match self {
            Self::Object(object) => object.size(),
            Self::Keys(keys) => Ok(keys.size()),
        }
    }

    /// Makes it at least `size` bytes long.
    pub fn extend(&self, size: u64) -> Result<()> {
        match self {
            Self::Object(object) => object.extend(size),
            Self::Keys(keys) => keys.extend(size),
        }
    }

    /// Reads into `buffer` from byte `offset` on; returns how many bytes the file has there.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        match self {
            Self::Object(object) => object.read(buffer, offset),
            Self::Keys(keys) => keys.read(buffer, offset),
        }
    }

    /// Begins to read into `buffer`, as [`Target::read`], and waits for no device; what is under way arrives in `queue` with `tag`.
    pub fn begin(&self, queue: &mut ReadQueue, buffer: &mut [u8], offset: u64, tag: u64) -> Result<Begun> {
        match self {
            Self::Object(object) => Ok(match object.begin(queue, buffer, offset, tag)? {
                BegunRead::Read(read) => Begun::Read(read.map_or(0, |read| read.filled)),
                BegunRead::UnderWay => Begun::UnderWay(None),
                BegunRead::Waits => Begun::Waits,
            }),
            Self::Keys(keys) => keys.begin(queue, buffer, offset, tag),
        }
    }

    /// Writes `bytes` at byte `offset`.
    pub fn write(&self, bytes: &[u8], offset: u64, preference: StoragePreference) -> Result<()> {
        match self {
            Self::Object(object) => object.write(bytes, offset, preference),
            Self::Keys(keys) => keys.write(bytes, offset, preference),
        }
    }

    /// Makes `length` bytes from byte `offset` on read as zeros.
    pub fn trim(&self, offset: u64, length: u64) -> Result<()> {
        match self {
            Self::Object(object) => object.trim(offset, length),
            Self::Keys(keys) => keys.trim(offset, length),
        }
    }
}
