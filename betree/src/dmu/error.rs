//! Errors of the data-management unit.

use crate::base::codec::DecodeError;
use crate::base::extent::Extent;
use crate::base::ids::VdevId;
use crate::base::preference::TIER_NAMES;
use crate::pool::PoolError;
use thiserror::Error;

/// What went wrong in the data-management unit.
#[derive(Debug, Error, Clone)]
pub enum DmuError {
    /// The pool reported an error.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// No tier that may hold the data has room.
    #[error("out of space on tier {}: {wanted} blocks of 4 KiB wanted, {free} free", TIER_NAMES[usize::from(*tier) % 4])]
    OutOfSpace {
        /// The first tier of the fallback list.
        tier: u8,
        /// Blocks wanted.
        wanted: u64,
        /// Blocks that this kind of request could have had.
        free: u64,
    },
    /// Bytes on a device are not what was written.
    #[error("{what} on device {device} at block {block} is damaged: {reason}")]
    Corrupt {
        /// What was read.
        what: &'static str,
        /// Name of the device.
        device: String,
        /// First block.
        block: u64,
        /// What is wrong.
        reason: String,
    },
    /// An extent was to be allocated that is in use, or freed that is free: a defect or damage, never ignored.
    #[error("{what}: {extent}")]
    Allocation {
        /// What was tried.
        what: &'static str,
        /// The extent.
        extent: Extent,
    },
    /// A vdev is not what the allocation table says, or cannot hold one.
    #[error("vdev {vdev} cannot be used: {reason}")]
    Geometry {
        /// The vdev.
        vdev: VdevId,
        /// Why.
        reason: &'static str,
    },
    /// Bytes do not decode.
    #[error("{what} does not decode: {source}")]
    Decode {
        /// What was decoded.
        what: &'static str,
        /// Where and why.
        source: DecodeError,
    },
    /// A background job panicked: a defect of this program.
    #[error("background I/O panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
}

impl DmuError {
    /// Whether it is a lack of space: of a tier, or of the file system that a device is a file of.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::OutOfSpace { .. } => true,
            Self::Pool(PoolError::Vdev(error)) => error.is_out_of_space(),
            _ => false,
        }
    }
}
