//! What is wrong with a stream, or keeps it from being received.

use crate::database::error::ErrorKind;
use std::io;
use std::sync::Arc;
use thiserror::Error;

/// What is wrong with a stream, or keeps it from being received. No dataset has changed then.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The bytes are something else.
    #[error("this is no stream of a snapshot: it starts with other bytes")]
    Foreign,
    /// A newer program wrote it.
    #[error("the stream has format version {version}, this program reads up to {known}")]
    Newer {
        /// Of the stream.
        version: u16,
        /// The newest one that is understood.
        known: u16,
    },
    /// The bytes are not those that were sent.
    #[error("the stream is damaged at byte {at}: {reason}")]
    Damaged {
        /// Byte of the stream where the damaged part starts.
        at: u64,
        /// What is wrong.
        reason: String,
    },
    /// It ends early.
    #[error("the stream ends at byte {at}, before its end")]
    Truncated {
        /// Bytes that there are.
        at: u64,
    },
    /// Reading it failed.
    #[error("reading the stream: {0}")]
    Read(#[source] Arc<io::Error>),
    /// Writing it failed.
    #[error("writing the stream: {0}")]
    Write(#[source] Arc<io::Error>),
    /// The dataset does not have the snapshot that the changes start from.
    #[error(
        "dataset {dataset:?} lacks the snapshot that the stream starts from, {base:?} with guid {guid}; {newest}"
    )]
    NoBase {
        /// Name of the dataset, escaped.
        dataset: String,
        /// Name of the snapshot where it was sent, escaped.
        base: String,
        /// Its guid.
        guid: String,
        /// What there is instead.
        newest: String,
    },
    /// The dataset is not what it was in the snapshot that the changes start from.
    #[error("dataset {dataset:?} has changed since its snapshot {base:?}: {by}")]
    Changed {
        /// Name of the dataset, escaped.
        dataset: String,
        /// Name of the snapshot, escaped.
        base: String,
        /// What is there now.
        by: String,
    },
    /// A stream does not go on where an earlier one ended, or a token is none.
    #[error("the stream cannot be resumed: {reason}")]
    NotResumed {
        /// Why.
        reason: String,
    },
}

impl StreamError {
    /// What the error means to the caller.
    pub(in crate::database) fn kind(&self) -> ErrorKind {
        match self {
            Self::Foreign | Self::NotResumed { .. } => ErrorKind::InvalidArgument,
            Self::Newer { .. } => ErrorKind::Unsupported,
            Self::Damaged { .. } | Self::Truncated { .. } => ErrorKind::Corrupt,
            Self::Read(_) | Self::Write(_) => ErrorKind::Io,
            Self::NoBase { .. } => ErrorKind::NotFound,
            Self::Changed { .. } => ErrorKind::Busy,
        }
    }
}
