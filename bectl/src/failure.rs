//! How a command fails, and the exit code that says so.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | any other failure |
//! | 2 | the command line is wrong |
//! | 3 | pool, dataset, store, snapshot, hold, key or object not found |
//! | 4 | bytes on a device, or of a stream, are not what was written |
//! | 5 | no space |
//! | 6 | the pool is in use |
//! | 7 | redundancy is lost, or a device is not there |
//! | 8 | refused: it exists already, is needed by others, has changed since, is not as expected, or was not confirmed |
//! | 130 | interrupted; the database is consistent |
//!
//! `check` has codes of its own, those of file system checkers: 0 clean, 1 leaked space and nothing else, 2 damage,
//! 3 cannot run.

use betree::pool::PoolError;
use betree::{ErrorKind, StreamError};
use std::borrow::Cow;
use thiserror::Error;

/// A failure that arises in this program rather than in the library.
#[derive(Debug, Error)]
pub enum Failure {
    /// An argument that clap alone cannot judge.
    #[error("{0}")]
    Usage(String),
    /// Something that was named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// What was asked for would destroy something, and nobody confirmed it.
    #[error("{0}")]
    Refused(String),
    /// A check found something.
    #[error("{message}")]
    Found {
        /// Whether it is leaked space and nothing else.
        only_leaks: bool,
        /// How much.
        message: String,
    },
    /// A check could not be made.
    #[error("the check cannot run: {0}")]
    CannotRun(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Whoever read our output has gone; nothing is wrong.
    #[error("the reader of the output has gone")]
    OutputClosed,
}

/// Exit code of an error, and its name in JSON.
pub fn exit_code(error: &anyhow::Error) -> (u8, &'static str) {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return match failure {
                Failure::Usage(_) => (2, "USAGE"),
                Failure::NotFound(_) => (3, "NOT_FOUND"),
                Failure::Refused(_) => (8, "REFUSED"),
                Failure::Found { only_leaks: true, .. } => (1, "LEAKS"),
                Failure::Found { only_leaks: false, .. } => (2, "DAMAGED"),
                Failure::CannotRun(_) => (3, "CANNOT_RUN"),
                Failure::Interrupted => (130, "INTERRUPTED"),
                Failure::OutputClosed => (0, "OUTPUT_CLOSED"),
            };
        }
        if let Some(error) = cause.downcast_ref::<betree::Error>() {
            // Not the pool, but a snapshot that somebody needs, or a dataset that was written to.
            let refused = matches!(error, betree::Error::Busy { .. })
                || matches!(error, betree::Error::Stream(error) if matches!(error, StreamError::Changed { .. }));
            if refused {
                return (8, "REFUSED");
            }
            match error {
                betree::Error::Pool(PoolError::Indispensable { .. }) => return (8, "REFUSED"),
                betree::Error::Pool(PoolError::MemberGone { .. }) => return (7, "DEGRADED"),
                _ => {}
            }
            return of_kind(error.kind());
        }
    }
    (1, "OTHER")
}

fn of_kind(kind: ErrorKind) -> (u8, &'static str) {
    match kind {
        ErrorKind::NotFound => (3, "NOT_FOUND"),
        ErrorKind::Corrupt => (4, "CORRUPT"),
        ErrorKind::OutOfSpace => (5, "NO_SPACE"),
        ErrorKind::Busy => (6, "BUSY"),
        ErrorKind::Degraded => (7, "DEGRADED"),
        ErrorKind::AlreadyExists => (8, "ALREADY_EXISTS"),
        ErrorKind::ConditionFailed => (8, "CONDITION_FAILED"),
        ErrorKind::InvalidArgument => (1, "INVALID_ARGUMENT"),
        ErrorKind::TooLarge => (1, "TOO_LARGE"),
        ErrorKind::Io => (1, "IO"),
        ErrorKind::ReadOnly => (1, "READ_ONLY"),
        ErrorKind::Closed => (1, "CLOSED"),
        ErrorKind::Unsupported => (1, "UNSUPPORTED"),
        _ => (1, "OTHER"),
    }
}

/// The messages of an error and its causes, each said once: many messages contain that of their cause.
pub fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = cause.to_string();
        if text.is_empty() {
            text = part;
        } else if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
    }
    text
}

/// A name or key as it stands in a message.
pub fn quoted(name: &[u8]) -> Cow<'static, str> {
    Cow::Owned(format!("\"{}\"", crate::text::escaped(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn causes_are_found_below_context_and_said_once() {
        let inner = betree::Error::NotFound { what: "dataset", name: "x".into() };
        let error = anyhow::Error::from(inner).context("line 3");
        assert_eq!(exit_code(&error), (3, "NOT_FOUND"));
        assert_eq!(message(&error), "line 3: dataset \"x\" does not exist");
        let error = Err::<(), _>(Failure::Interrupted).context("after 3 entries").unwrap_err();
        assert_eq!(exit_code(&error).0, 130);
        assert_eq!(exit_code(&anyhow::anyhow!("no")), (1, "OTHER"));
        let twice = anyhow::anyhow!("b").context("a: b");
        assert_eq!(message(&twice), "a: b");
    }
}
