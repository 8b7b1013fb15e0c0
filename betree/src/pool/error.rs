//! Errors of the storage pool.

use crate::base::ids::VdevId;
use crate::vdev::VdevError;
use std::sync::Arc;
use thiserror::Error;

/// What went wrong in the pool.
#[derive(Debug, Error, Clone)]
pub enum PoolError {
    /// A device reported an error.
    #[error(transparent)]
    Vdev(Arc<VdevError>),
    /// A pointer names a vdev that the pool does not have.
    #[error("vdev {0} is not part of the pool")]
    UnknownVdev(VdevId),
    /// An earlier write or flush failed: the pool takes no more writes until it is opened anew.
    #[error("the pool takes no more writes after an earlier failure: {0}")]
    Poisoned(Arc<PoolError>),
}

impl From<VdevError> for PoolError {
    fn from(error: VdevError) -> Self {
        Self::Vdev(Arc::new(error))
    }
}
