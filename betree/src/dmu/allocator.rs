//! Allocation of extents (a bump allocator until the segment bitmaps are in).

use super::DmuError;
use crate::base::extent::Extent;
use crate::pool::Pool;
use parking_lot::Mutex;

/// Lifetimes that are kept in different segments, so that what dies together lies together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Node headers, the root tree, allocation table roots: die at the next checkpoints.
    Header,
    /// The intent log.
    Log,
    /// Runs of the buffers: die at the next flush.
    Delta,
    /// Base runs of the leaves.
    Base,
    /// Large values.
    Value,
}

/// How deep into the reserve a request may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// User data: not at all.
    User,
    /// Point deletes: half of it.
    Delete,
    /// Checkpoints, log, merges, open, close: all of it.
    System,
}

#[derive(Debug)]
pub struct Allocator {
    next: Mutex<Vec<u64>>,
}

impl Allocator {
    pub fn new(pool: &Pool) -> Self {
        Self { next: Mutex::new(vec![64; pool.vdevs().len()]) }
    }

    pub fn allocate(&self, pool: &Pool, tiers: &[u8], blocks: u32) -> Result<Vec<Extent>, DmuError> {
        let mut next = self.next.lock();
        for tier in tiers {
            for (index, vdev) in pool.vdevs().iter().enumerate().filter(|(_, vdev)| vdev.tier == *tier) {
                if next[index] + u64::from(blocks) <= vdev.blocks {
                    let extent = Extent { vdev: vdev.id, block: next[index], blocks };
                    next[index] = extent.end();
                    return Ok(vec![extent]);
                }
            }
        }
        Err(DmuError::OutOfSpace {
            tier: tiers.first().copied().unwrap_or(0),
            wanted: u64::from(blocks),
            free: 0,
        })
    }
}
