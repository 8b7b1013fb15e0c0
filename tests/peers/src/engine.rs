//! What a workload needs of an engine.

use crate::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

/// What both engines are told alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Keys that the largest data set holds.
    pub keys: u64,
    /// Memory for caching, in bytes.
    pub cache_bytes: u64,
    /// Whether reads go past the page cache of the system.
    pub direct: bool,
}

/// An engine with one open database.
pub trait Engine: Sized + Sync {
    /// Opens the database in `folder`, which exists, and creates it when there is none.
    ///
    /// # Errors
    /// The engine's own.
    fn open(folder: &Path, settings: &Settings) -> Result<Self, Error>;

    /// Writes an entry; a crash may lose it.
    ///
    /// # Errors
    /// The engine's own.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error>;

    /// Writes an entry and makes it durable.
    ///
    /// # Errors
    /// The engine's own.
    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<(), Error>;

    /// Looks a key up and shows what stands there to `read`.
    ///
    /// # Errors
    /// The engine's own.
    fn get<T>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> T) -> Result<T, Error>;

    /// Shows the entries from `from` on, in order, to `each` until it breaks off.
    ///
    /// # Errors
    /// The engine's own, and those of `each`.
    fn scan(
        &self,
        from: &[u8],
        each: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error>;

    /// Makes all that was written durable.
    ///
    /// # Errors
    /// The engine's own.
    fn sync(&self) -> Result<(), Error>;

    /// Bytes in use, for an engine whose files are allocated ahead.
    fn used_bytes(&self) -> Option<u64>;

    /// Closes the database.
    ///
    /// # Errors
    /// The engine's own.
    fn close(self) -> Result<(), Error>;
}
