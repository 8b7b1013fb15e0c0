//! Errors of configurations.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ConfigurationError {
    /// The file cannot be read or written.
    #[error("configuration {}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// A document is not JSON, or does not fit.
    #[error("{}: {}{message}", position(file.as_ref(), *line, *column), prefix(path))]
    Document {
        /// The file; `None` when the text was handed in.
        file: Option<PathBuf>,
        /// Line of the end of what is wrong, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// The field, such as `storage.tiers[0].top_level_vdevs[1].path`; empty for the document as a whole.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// A setting has a value that cannot be, or that cannot be written as JSON.
    #[error("{}{message}", prefix(path))]
    Invalid {
        /// The field; empty for the configuration as a whole.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// An environment variable does not fit.
    #[error("environment variable {variable}: {}{message}", prefix(path))]
    Variable {
        /// Its name as it was given.
        variable: String,
        /// The field that it leads to.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// A word of a zfs-like description does not fit.
    #[error("word {position} ({token:?}): {message}")]
    Token {
        /// Which word, from 1.
        position: usize,
        /// The word.
        token: String,
        /// What is wrong.
        message: String,
    },
}

impl ConfigurationError {
    /// The field that is wrong, such as `storage.tiers[0].top_level_vdevs[1].path`; `None` where none is known.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Document { path, .. } | Self::Invalid { path, .. } | Self::Variable { path, .. } => {
                (!path.is_empty()).then_some(path)
            }
            Self::File { .. } | Self::Token { .. } => None,
        }
    }
}

fn position(file: Option<&PathBuf>, line: usize, column: usize) -> String {
    match file {
        Some(file) => format!("{}:{line}:{column}", file.display()),
        None => format!("line {line} column {column}"),
    }
}

fn prefix(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}
