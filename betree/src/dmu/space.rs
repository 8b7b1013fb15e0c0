//! Accounts of free and used blocks, and the reserve.

use super::allocator::Privilege;
use crate::base::ids::VdevId;

/// Blocks of one vdev; of a striped one, how many of them long extents fill with data. What is missing to `total` was allocated since the last checkpoint.
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
    /// Blocks of `free` that user data may not take.
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

/// Share of a tier that user data may not take. ZFS keeps 1/32 as well (slop space); below it a copy-on-write store
/// cannot even delete.
const RESERVE_PERCENT: u64 = 3;
/// Least reserve in blocks.
const RESERVE_BLOCKS_MIN: u64 = 16;

/// Free blocks of a tier that requests leave, by privilege: what those above them will need. System requests leave
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserve {
    /// Left by merges.
    pub merge: u64,
    /// Left by deletes; at least `merge`.
    pub delete: u64,
    /// Left by user data; at least `delete`.
    pub user: u64,
}

impl Reserve {
    /// The reserve of a tier of `total` blocks of which nothing more is known; a block of data takes at most `granule`.
    pub(super) fn of_tier(total: u64, granule: u64) -> Self {
        let user = (total * RESERVE_PERCENT).div_ceil(100).max(RESERVE_BLOCKS_MIN * granule);
        Self { merge: user / 4, delete: user / 2, user }
    }

    /// The reserve of a tier of `total` blocks for which the layers above ask for this one, in blocks of data that take at
    /// most `granule`: never more than a quarter of the tier (a striped one: half), nor less for users than
    /// [`Reserve::of_tier`].
    pub(super) fn within(self, total: u64, granule: u64) -> Self {
        let least = Self::of_tier(total, granule);
        let most = total / 4 * granule.min(2);
        let user = (self.user * granule).max(least.user).min(most.max(least.user));
        let delete = (self.delete * granule).min(user);
        Self { merge: (self.merge * granule).min(delete), delete, user }
    }

    /// Blocks that a request leaves.
    pub(super) fn left_by(&self, privilege: Privilege) -> u64 {
        match privilege {
            Privilege::User => self.user,
            Privilege::Delete => self.delete,
            Privilege::Merge => self.merge,
            Privilege::System => 0,
        }
    }
}
