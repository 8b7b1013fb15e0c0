//! Copies in memory of extents that would like to be on a memory tier.
//!
//! A persistent pointer never names a memory vdev: what prefers one is written to a durable tier, and a copy goes into
//! memory, found through a map that vanishes with the process. Copies are a help, never a need: where there is no room
//! there is no copy.

use super::DmuError;
use super::allocator::{Allocator, Privilege, Stream};
use super::layout::VdevGeometry;
use crate::base::extent::Extent;
use crate::base::ids::{Uuid, VdevId};
use crate::base::sync::RwLock;
use crate::base::units::BLOCK_BYTES;
use crate::pool::Pool;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Segments of the bookkeeping of memory vdevs: 64 MiB each, kept in memory only.
const SEGMENT_BLOCKS: u32 = 1 << 14;

#[derive(Debug, Clone)]
struct Copy {
    /// Length in blocks of the durable extent that is copied.
    blocks: u32,
    /// As many blocks in memory.
    memory: Vec<Extent>,
}

/// Where the copies are.
#[derive(Debug)]
pub(super) struct Copies {
    pool: Arc<Pool>,
    allocator: Allocator,
    map: RwLock<BTreeMap<(VdevId, u64), Copy>>,
}

impl Copies {
    /// Copies on the memory vdevs `geometries`.
    pub fn new(pool: Arc<Pool>, geometries: &[VdevGeometry]) -> Result<Self, DmuError> {
        let allocator = Allocator::create(Arc::clone(&pool), Uuid([0xff; 16]), geometries, SEGMENT_BLOCKS)?;
        Ok(Self { pool, allocator, map: RwLock::default() })
    }

    /// Gives the durable `extents` copies on `tiers`, where there is room.
    pub fn add(&self, tiers: &[u8], extents: &[Extent]) {
        for extent in extents {
            match self.allocator.allocate(Stream::Base, tiers, extent.blocks, Privilege::User) {
                Ok(memory) => {
                    let copy = Copy { blocks: extent.blocks, memory };
                    self.map.write().insert((extent.vdev, extent.block), copy);
                }
                Err(error) => log::trace!("no copy in memory: {error}"),
            }
        }
    }

    /// The copies of blocks of `extent` are no longer of use.
    pub fn remove(&self, extent: &Extent) {
        let mut map = self.map.write();
        let touched: Vec<(VdevId, u64)> = map
            .range((extent.vdev, 0)..(extent.vdev, extent.end()))
            .rev()
            .take_while(|((_, block), copy)| block + u64::from(copy.blocks) > extent.block)
            .map(|(key, _)| *key)
            .collect();
        for key in touched {
            let Some(mut copy) = map.remove(&key) else { continue };
            // The unused tail of a run goes; what lies before it stays.
            let kept = extent.block.saturating_sub(key.1) as u32;
            let dropped = split_off(&mut copy.memory, kept);
            let released = self.allocator.release(&dropped);
            if let Err(error) = released {
                log::error!("copies in memory: {error}");
            }
            if kept > 0 {
                map.insert(key, Copy { blocks: kept, memory: copy.memory });
            }
        }
    }

    /// Writes `bytes` to the copy of the blocks from `block` of `vdev`, where there is one.
    pub fn write(&self, vdev: VdevId, block: u64, bytes: &[u8]) -> Result<(), DmuError> {
        for (extent, range) in self.find(vdev, block, bytes.len()) {
            self.pool.write(extent.vdev, extent.block, &bytes[range])?;
        }
        Ok(())
    }

    /// Reads the blocks from `block` of `vdev` out of their copy; whether there is one of all of them.
    pub fn read(&self, vdev: VdevId, block: u64, buf: &mut [u8]) -> bool {
        let parts = self.find(vdev, block, buf.len());
        let whole = parts.iter().map(|(_, range)| range.len()).sum::<usize>() == buf.len();
        whole
            && parts
                .into_iter()
                .all(|(extent, range)| self.pool.read(extent.vdev, extent.block, &mut buf[range]).is_ok())
    }

    /// The parts in memory of `length` bytes from `block` of `vdev`, and which bytes they hold.
    fn find(&self, vdev: VdevId, block: u64, length: usize) -> Vec<(Extent, std::ops::Range<usize>)> {
        let map = self.map.read();
        let end = block + (length / BLOCK_BYTES) as u64;
        let mut parts = Vec::new();
        for ((_, start), copy) in map.range((vdev, 0)..(vdev, end)).rev() {
            if start + u64::from(copy.blocks) <= block {
                break;
            }
            let mut at = *start;
            for piece in &copy.memory {
                let (from, to) = (at.max(block), (at + u64::from(piece.blocks)).min(end));
                if from < to {
                    let extent = Extent {
                        vdev: piece.vdev,
                        block: piece.block + (from - at),
                        blocks: (to - from) as u32,
                    };
                    let bytes = (from - block) as usize * BLOCK_BYTES..(to - block) as usize * BLOCK_BYTES;
                    parts.push((extent, bytes));
                }
                at += u64::from(piece.blocks);
            }
        }
        parts
    }

    /// Blocks free and in all on memory tier `tier`.
    pub fn space(&self, tier: u8) -> (u64, u64) {
        let space = self.allocator.tier_space()[usize::from(tier)];
        (space.free, space.total)
    }
}

/// Cuts `extents` after `blocks` blocks and returns the rest.
fn split_off(extents: &mut Vec<Extent>, blocks: u32) -> Vec<Extent> {
    let mut left = blocks;
    let mut rest = Vec::new();
    let mut kept = Vec::new();
    for extent in extents.drain(..) {
        let keep = extent.blocks.min(left);
        left -= keep;
        if keep > 0 {
            kept.push(Extent { blocks: keep, ..extent });
        }
        if keep < extent.blocks {
            rest.push(Extent {
                block: extent.block + u64::from(keep),
                blocks: extent.blocks - keep,
                ..extent
            });
        }
    }
    *extents = kept;
    rest
}
