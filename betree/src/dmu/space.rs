//! Accounts of free and used blocks, and the reserve.

use super::allocator::Privilege;
use crate::base::ids::VdevId;

/// Blocks of one vdev. What is missing to `total` was allocated since the last checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VdevSpace {
    /// The vdev.
    pub id: VdevId,
    /// Its tier, 0…3.
    pub tier: u8,
    /// Blocks that can ever be handed out: all but labels, table and bitmaps.
    pub total: u64,
    /// Blocks that can be handed out now.
    pub free: u64,
    /// Blocks that the last checkpoint has.
    pub used: u64,
    /// Blocks that a checkpoint freed and that cannot be handed out yet.
    pub pending: u64,
}

/// Blocks of one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TierSpace {
    /// As in [`VdevSpace`].
    pub total: u64,
    /// As in [`VdevSpace`].
    pub free: u64,
    /// As in [`VdevSpace`].
    pub used: u64,
    /// As in [`VdevSpace`].
    pub pending: u64,
    /// Blocks of `free` that only checkpoints and, to a half, deletes may use.
    pub reserve: u64,
}

impl TierSpace {
    pub(super) fn add(&mut self, vdev: &VdevSpace) {
        self.total += vdev.total;
        self.free += vdev.free;
        self.used += vdev.used;
        self.pending += vdev.pending;
    }
}

/// Share of a tier that is kept for deletes and checkpoints. ZFS keeps 1/32 as well (slop space); below it a
/// copy-on-write store cannot even delete.
const RESERVE_PERCENT: u64 = 3;
/// Least reserve in blocks.
const RESERVE_BLOCKS_MIN: u64 = 16;

/// Reserve of a tier of `total` blocks for which the layers above ask at least `wanted` blocks.
pub(super) fn reserve(total: u64, wanted: u64) -> u64 {
    (total * RESERVE_PERCENT).div_ceil(100).max(RESERVE_BLOCKS_MIN).max(wanted)
}

impl Privilege {
    /// Free blocks of a tier that a request must leave.
    pub(super) fn floor(self, reserve: u64) -> u64 {
        match self {
            Self::User => reserve,
            Self::Delete => reserve / 2,
            Self::System => 0,
        }
    }
}
