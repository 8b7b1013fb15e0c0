//! A file of fio in a database, whatever it is there.

use crate::keys::Keys;
use crate::object::Object;
use betree::{Result, StoragePreference};

/// A file of fio. Bytes below its size that were never written read as zeros, as those of a file do.
#[derive(Debug)]
pub enum Target {
    /// An object.
    Object(Box<Object>),
    /// Keys of a dataset.
    Keys(Keys),
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
