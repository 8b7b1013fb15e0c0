//! Errors of devices.

use std::io;
use thiserror::Error;

/// What a device was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Opening or creating.
    Open,
    /// Taking the exclusive lock.
    Lock,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Flushing.
    Flush,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Lock => "lock",
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
        })
    }
}

/// What went wrong on a device.
#[derive(Debug, Error)]
pub enum VdevError {
    /// The operating system (or the simulation) reported an error.
    #[error("{operation} of {device} at byte {offset} failed: {source}")]
    Io {
        /// Name of the device.
        device: String,
        /// What was tried.
        operation: Operation,
        /// Byte offset; 0 where none applies.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// A request reaches beyond the end or is not made of whole blocks.
    #[error(
        "{operation} of {device}: bytes {offset}+{length} are outside of its {device_bytes} bytes or not whole blocks"
    )]
    OutOfBounds {
        /// Name of the device.
        device: String,
        /// What was tried.
        operation: Operation,
        /// Byte offset.
        offset: u64,
        /// Length in bytes.
        length: u64,
        /// Length of the device in bytes.
        device_bytes: u64,
    },
    /// Another process, or another pool of this process, has the device open.
    #[error("{device} is in use{}", holder.map_or(String::new(), |pid| format!(" by process {pid}")))]
    InUse {
        /// Name of the device.
        device: String,
        /// Process id of the holder, where known.
        holder: Option<u32>,
    },
    /// The file system refuses direct I/O.
    #[error(
        "{device} is on a file system without direct I/O (O_DIRECT); set \"direct\": false for buffered I/O"
    )]
    NoDirectIo {
        /// Name of the device.
        device: String,
    },
    /// A file that was to be created exists and has bytes.
    #[error("{device} exists and has {bytes} bytes; nothing was changed")]
    NotEmpty {
        /// Name of the device.
        device: String,
        /// Bytes that it has.
        bytes: u64,
    },
    /// The path is neither a regular file nor a block device, or has no size.
    #[error("{device} cannot be a vdev: {reason}")]
    Unsuitable {
        /// Name of the device.
        device: String,
        /// Why.
        reason: String,
    },
}

impl VdevError {
    /// The device that the error names.
    #[must_use]
    pub fn device(&self) -> &str {
        match self {
            Self::Io { device, .. }
            | Self::OutOfBounds { device, .. }
            | Self::InUse { device, .. }
            | Self::NoDirectIo { device }
            | Self::NotEmpty { device, .. }
            | Self::Unsuitable { device, .. } => device,
        }
    }

    /// Whether the cause is a full host file system, or a quota of it.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

/// Checks that a request lies inside the device and is made of whole blocks.
///
/// # Errors
/// [`VdevError::OutOfBounds`] otherwise.
pub(super) fn check_bounds(
    device: &str,
    operation: Operation,
    offset: u64,
    length: usize,
    device_bytes: u64,
) -> Result<(), VdevError> {
    let block = crate::base::units::BLOCK_BYTES_U64;
    let length = length as u64;
    let inside = offset.checked_add(length).is_some_and(|end| end <= device_bytes);
    if inside && offset.is_multiple_of(block) && length.is_multiple_of(block) {
        return Ok(());
    }
    Err(VdevError::OutOfBounds { device: device.to_owned(), operation, offset, length, device_bytes })
}
