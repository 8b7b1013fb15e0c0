//! Errors of the intent log.

use crate::dmu::DmuError;
use std::io;
use std::sync::Arc;
use thiserror::Error;

/// What went wrong in the intent log.
#[derive(Debug, Error, Clone)]
pub enum LogError {
    /// The data-management unit reported an error.
    #[error(transparent)]
    Dmu(#[from] DmuError),
    /// An earlier write or flush of the log failed: it takes and acknowledges nothing more until the pool is reopened.
    #[error("the intent log takes no more records after an earlier failure: {0}")]
    Poisoned(Arc<LogError>),
    /// A record is longer than the limit; nothing was appended.
    #[error("a log record of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Its length in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A part of the log that had been flushed cannot be read back.
    #[error(
        "the intent log on device {device} is damaged at block {block}: position {lsn} was durable up to {durable_lsn}"
    )]
    Damaged {
        /// Name of the device.
        device: String,
        /// Block of the vdev where a frame should start.
        block: u64,
        /// Position in the stream of the first byte that is lost.
        lsn: u64,
        /// Position up to which the log had been flushed.
        durable_lsn: u64,
    },
    /// Frames with good checksums hold what no log writes.
    #[error(
        "the intent log on device {device} holds an illegal record at position {lsn} (frame at block {block}): {reason}"
    )]
    Corrupt {
        /// Name of the device.
        device: String,
        /// Block of the frame.
        block: u64,
        /// Position in the stream.
        lsn: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The thread of the background writer could not be started.
    #[error("the thread of the intent log could not be started: {0}")]
    Thread(Arc<io::Error>),
}
