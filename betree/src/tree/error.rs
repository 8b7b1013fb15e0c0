//! Errors of the tree.

use crate::base::codec::DecodeError;
use crate::dmu::DmuError;
use thiserror::Error;

/// What went wrong in a tree.
#[derive(Debug, Error, Clone)]
pub enum TreeError {
    /// The data-management unit reported an error.
    #[error(transparent)]
    Dmu(#[from] DmuError),
    /// A node header on disk is not what was written.
    #[error("node header of level {level} at {at} is damaged: {reason}")]
    Node {
        /// Level as its parent names it.
        level: u8,
        /// Its first extent.
        at: String,
        /// What is wrong.
        reason: String,
    },
    /// A message does not decode.
    #[error("large-value pointer does not decode: {0}")]
    Pointer(#[from] DecodeError),
    /// A large value on disk is not what was written.
    #[error("large value at {at} is damaged: {reason}")]
    Value {
        /// Its first extent.
        at: String,
        /// What is wrong.
        reason: String,
    },
    /// The key has upserts, and the dataset's message action is not registered in this process.
    #[error("the message action {name:?} of this dataset is not registered in this process")]
    ActionMissing {
        /// Stored name of the action.
        name: String,
    },
    /// The dataset's message action panicked.
    #[error("the message action {name:?} of this dataset panicked")]
    ActionPanicked {
        /// Stored name of the action.
        name: String,
    },
    /// An invariant does not hold; found by verify.
    #[error("invariant violated: {0}")]
    Invariant(String),
}

impl TreeError {
    /// Whether it is a lack of space.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Dmu(DmuError::OutOfSpace { .. }))
    }
}
