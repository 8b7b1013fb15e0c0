//! What a database reports: the public error of this crate, and what it means to the caller.

use super::ConfigurationError;
use super::replication::StreamError;
use crate::base::preference::TIER_NAMES;
use crate::dmu::DmuError;
use crate::log::LogError;
use crate::pool::PoolError;
use crate::tree::TreeError;
use crate::vdev::VdevError;
use std::sync::Arc;
use thiserror::Error;

/// Result with the error of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error means to the caller, independent of where it arose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The dataset, pool or device does not exist.
    NotFound,
    /// It exists already.
    AlreadyExists,
    /// An argument or a configuration is not legal.
    InvalidArgument,
    /// A key, value or batch is larger than its limit.
    TooLarge,
    /// No room is left where the data may go.
    OutOfSpace,
    /// Bytes on a device are not what was written.
    Corrupt,
    /// A device reported an error.
    Io,
    /// Another opener, or something that depends on it, is in the way.
    Busy,
    /// Redundancy is lost and opening was not allowed to go on without.
    Degraded,
    /// Opened for reading only, or closed for writing after a failure.
    ReadOnly,
    /// The database was closed.
    Closed,
    /// The object is not the one that a write was meant for.
    ConditionFailed,
    /// Not supported here: a kind of vdev, a message action, a newer format.
    Unsupported,
}

/// What went wrong. Clones share their cause.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum Error {
    /// Something that was named does not exist.
    #[error("{what} {name:?} does not exist")]
    NotFound {
        /// `dataset`, `pool`, …
        what: &'static str,
        /// Its name, escaped.
        name: String,
    },
    /// Something that was to be created exists.
    #[error("{what} {name:?} already exists")]
    AlreadyExists {
        /// `dataset`, …
        what: &'static str,
        /// Its name, escaped.
        name: String,
    },
    /// An argument is not legal.
    #[error("{what}: {reason}")]
    InvalidArgument {
        /// The argument.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// An argument is larger than its limit.
    #[error("{what} of {length} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// `key`, `value`, `batch`, …
        what: &'static str,
        /// Its length in bytes.
        length: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The write does not fit; nothing was changed.
    #[error("out of space on tier {}: {wanted} bytes wanted, {free} free", TIER_NAMES[usize::from(*tier) % 4])]
    OutOfSpace {
        /// The tier that was asked first.
        tier: u8,
        /// Bytes wanted, with what writing them takes along.
        wanted: u64,
        /// Bytes that this kind of write may still use.
        free: u64,
    },
    /// Others need it.
    #[error("{what} {name:?} is needed by {by}")]
    Busy {
        /// `snapshot`, …
        what: &'static str,
        /// Its name, escaped.
        name: String,
        /// Who needs it.
        by: String,
    },
    /// A write was for another state than the one found; nothing was changed.
    #[error("{what} {name:?} is of version {found}, not {wanted}")]
    ConditionFailed {
        /// `object`, …
        what: &'static str,
        /// Its name, escaped.
        name: String,
        /// The version that was wanted.
        wanted: String,
        /// The version found, or `none`.
        found: String,
    },
    /// The configuration is not legal.
    #[error(transparent)]
    Configuration(#[from] Arc<ConfigurationError>),
    /// The pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The data-management unit.
    #[error(transparent)]
    Dmu(DmuError),
    /// The intent log.
    #[error("intent log: {0}")]
    Log(#[source] Arc<LogError>),
    /// The tree of a dataset.
    #[error("dataset {dataset:?}: {source}")]
    Tree {
        /// Its name, escaped.
        dataset: String,
        /// The cause.
        source: TreeError,
    },
    /// A stream of snapshots, or what it is for.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The database was opened for reading only.
    #[error("the database is open for reading only")]
    ReadOnly,
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
    /// The dataset has another message action than the one it is opened with.
    #[error("dataset {dataset:?} uses the message action {stored:?}, not {wanted:?}")]
    WrongAction {
        /// Its name, escaped.
        dataset: String,
        /// Stored with the dataset.
        stored: String,
        /// That of the caller.
        wanted: String,
    },
    /// Earlier work in the background failed; the database takes no more writes until it is opened anew.
    #[error("the database takes no more writes after an earlier failure: {0}")]
    Failed(#[source] Arc<Error>),
    /// Bytes of the database's own records are not what was written.
    #[error("{what} is damaged: {reason}")]
    Corrupt {
        /// The record.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// What the error means to the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            Self::InvalidArgument { .. } | Self::Configuration(_) | Self::WrongAction { .. } => {
                ErrorKind::InvalidArgument
            }
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::ConditionFailed { .. } => ErrorKind::ConditionFailed,
            Self::OutOfSpace { .. } => ErrorKind::OutOfSpace,
            Self::Pool(error) => pool_kind(error),
            Self::Dmu(error) => dmu_kind(error),
            Self::Log(error) => log_kind(error),
            Self::Tree { source, .. } => tree_kind(source),
            Self::Stream(error) => error.kind(),
            Self::ReadOnly => ErrorKind::ReadOnly,
            Self::Closed => ErrorKind::Closed,
            // The first failure says what is wrong; that it was earlier does not change what it means.
            Self::Failed(first) => first.kind(),
            Self::Corrupt { .. } => ErrorKind::Corrupt,
        }
    }
}

impl Error {
    /// Whether data found no place, in the pool or on its host: nothing was installed, and it may pass. A log or a
    /// superblock that the host had no room for is another matter: what they cover is unknown then.
    pub(crate) fn is_lack_of_space(&self) -> bool {
        let of_data = matches!(self, Self::OutOfSpace { .. } | Self::Dmu(_) | Self::Tree { .. });
        of_data && self.kind() == ErrorKind::OutOfSpace
    }
}

impl From<DmuError> for Error {
    fn from(error: DmuError) -> Self {
        match error {
            DmuError::OutOfSpace { tier, wanted, free } => {
                let block = crate::base::units::BLOCK_BYTES_U64;
                Self::OutOfSpace { tier, wanted: wanted * block, free: free * block }
            }
            error => Self::Dmu(error),
        }
    }
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        Self::Log(Arc::new(error))
    }
}

impl From<ConfigurationError> for Error {
    fn from(error: ConfigurationError) -> Self {
        Self::Configuration(Arc::new(error))
    }
}

impl Error {
    /// An error of a dataset's tree.
    pub(crate) fn of_tree(dataset: &[u8], source: TreeError) -> Self {
        match source {
            TreeError::Dmu(error @ DmuError::OutOfSpace { .. }) => error.into(),
            source => Self::Tree { dataset: dataset.escape_ascii().to_string(), source },
        }
    }
}

fn tree_kind(error: &TreeError) -> ErrorKind {
    match error {
        TreeError::Dmu(error) => dmu_kind(error),
        TreeError::Node { .. }
        | TreeError::Pointer(_)
        | TreeError::Value { .. }
        | TreeError::Invariant(_) => ErrorKind::Corrupt,
        TreeError::ActionMissing { .. } | TreeError::ActionPanicked { .. } => ErrorKind::Unsupported,
    }
}

fn dmu_kind(error: &DmuError) -> ErrorKind {
    match error {
        DmuError::Pool(error) => pool_kind(error),
        DmuError::OutOfSpace { .. } => ErrorKind::OutOfSpace,
        _ => ErrorKind::Corrupt,
    }
}

fn log_kind(error: &LogError) -> ErrorKind {
    match error {
        LogError::Dmu(error) => dmu_kind(error),
        LogError::Poisoned(first) => log_kind(first),
        LogError::TooLarge { .. } => ErrorKind::TooLarge,
        LogError::Damaged { .. } | LogError::Corrupt { .. } => ErrorKind::Corrupt,
        LogError::Thread(_) => ErrorKind::Io,
    }
}

fn pool_kind(error: &PoolError) -> ErrorKind {
    match error {
        PoolError::Vdev(error) => vdev_kind(error),
        PoolError::Poisoned(first) => pool_kind(first),
        PoolError::ReadOnly => ErrorKind::ReadOnly,
        PoolError::Closed => ErrorKind::Closed,
        PoolError::NotFound { .. } => ErrorKind::NotFound,
        PoolError::NotEmpty { .. } => ErrorKind::AlreadyExists,
        PoolError::NewerFormat { .. } => ErrorKind::Unsupported,
        PoolError::NoRandomBytes(_) => ErrorKind::Io,
        PoolError::MissingDevice { .. } | PoolError::Insufficient { .. } => ErrorKind::Degraded,
        PoolError::Indispensable { .. } | PoolError::MemberGone { .. } => ErrorKind::Busy,
        PoolError::UnknownVdev(_)
        | PoolError::UsedUp { .. }
        | PoolError::Damaged { .. }
        | PoolError::Stale { .. }
        | PoolError::Diverged { .. } => ErrorKind::Corrupt,
        _ => ErrorKind::InvalidArgument,
    }
}

fn vdev_kind(error: &VdevError) -> ErrorKind {
    match error {
        VdevError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        VdevError::Io { .. } if error.is_out_of_space() => ErrorKind::OutOfSpace,
        VdevError::Io { .. } => ErrorKind::Io,
        VdevError::OutOfBounds { .. } => ErrorKind::Corrupt,
        VdevError::InUse { .. } => ErrorKind::Busy,
        VdevError::NotEmpty { .. } => ErrorKind::AlreadyExists,
        VdevError::NoDirectIo { .. } | VdevError::Unsuitable { .. } => ErrorKind::InvalidArgument,
    }
}
