//! What can go wrong in a comparison.

use std::path::PathBuf;

/// Why a comparison ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line does not make sense.
    #[error("{0}; try --help")]
    Arguments(String),
    /// betree failed.
    #[error("betree failed")]
    Betree(#[from] betree::Error),
    /// RocksDB failed; it says why in words only.
    #[cfg(feature = "rocksdb")]
    #[error("RocksDB failed: {0}")]
    RocksDb(String),
    /// An engine gave an answer that is not what was written.
    #[error("wrong answer: {0}")]
    Wrong(Wrong),
    /// A file of the comparison itself could not be used.
    #[error("{path}", path = .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The process of one workload did not end well.
    #[error("{workload} on {engine} failed ({status})")]
    Child {
        /// Name of the engine.
        engine: &'static str,
        /// Name of the workload.
        workload: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// The process of one workload, or the file of results, is not readable as JSON.
    #[error("unreadable results")]
    Results(#[from] serde_json::Error),
    /// A thread of a workload panicked.
    #[error("a thread of the workload panicked")]
    Thread,
}

/// How an answer was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// A key that was written is not there.
    #[error("key number {index} is missing")]
    Missing {
        /// Number of the key.
        index: u64,
    },
    /// A key that was never written is there.
    #[error("key number {index} is there but was never written")]
    Unexpected {
        /// Number of the key.
        index: u64,
    },
    /// The value is no value of this key, or one that was overwritten before, or not yet written.
    #[error("key number {index} has a value that it should not have now")]
    Value {
        /// Number of the key.
        index: u64,
    },
    /// A scan returned a key that is none of ours.
    #[error("entry {position} of a scan has a foreign key")]
    ForeignKey {
        /// Position in the scan, from 0.
        position: u64,
    },
    /// A scan did not ascend, or did not start at its start.
    #[error("entry {position} of a scan is out of order")]
    Order {
        /// Position in the scan, from 0.
        position: u64,
    },
    /// A full scan returned too few or too many entries.
    #[error("a scan returned {found} entries instead of {expected}")]
    Count {
        /// Entries returned.
        found: u64,
        /// Entries written.
        expected: u64,
    },
}

impl From<Wrong> for Error {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}
