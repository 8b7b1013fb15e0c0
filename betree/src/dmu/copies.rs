//! Copies in memory of extents that would like to be on a memory tier.
//!
//! A persistent pointer never names a memory vdev: what prefers one is written to a durable tier, and a copy goes into
//! memory, found through a map that vanishes with the process. Copies are a help, never a need: where there is no room
//! there is no copy.

use super::DmuError;
use super::allocator::{Allocator, Privilege, Stream};
use super::layout::VdevGeometry;
use super::sequence::{Part, geometry_of};
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::ids::{Uuid, VdevId};
use crate::base::sync::RwLock;
use crate::base::units::BLOCK_BYTES;
use crate::pool::{Geometry, Pool};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Segments of the bookkeeping of memory vdevs: 64 MiB each, kept in memory only.
const SEGMENT_BLOCKS: u32 = 1 << 14;

#[derive(Debug, Clone)]
struct Copy {
    /// Length in blocks of the durable extent that is copied.
    blocks: u32,
    geometry: Geometry,
    /// As many blocks in memory as it can hold data.
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
    /// Copies on the memory vdevs `geometries`. Striped ones are left out: copies are cut anywhere.
    pub fn new(pool: Arc<Pool>, geometries: &[VdevGeometry]) -> Result<Self, DmuError> {
        let (plain, striped): (Vec<_>, Vec<_>) =
            geometries.iter().cloned().partition(|vdev| vdev.geometry.is_plain());
        for vdev in striped {
            log::warn!("vdev {}: memory with parity is not used for copies", vdev.id);
        }
        let allocator = Allocator::create(Arc::clone(&pool), Uuid([0xff; 16]), &plain, SEGMENT_BLOCKS)?;
        Ok(Self { pool, allocator, map: RwLock::default() })
    }

    /// Gives the durable `extents` copies on `tiers`, where there is room.
    pub fn add(&self, tiers: &[u8], extents: &[Extent]) {
        for extent in extents {
            let geometry = geometry_of(&self.pool, extent.vdev);
            let data = geometry.capacity(u64::from(extent.blocks)) as u32;
            match self.allocator.allocate(Stream::Base, tiers, data, Privilege::User) {
                Ok(memory) => {
                    let copy = Copy { blocks: extent.blocks, geometry, memory };
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
            let data = copy.geometry.capacity(u64::from(kept)) as u32;
            let dropped = split_off(&mut copy.memory, data);
            let released = self.allocator.release(&dropped);
            if let Err(error) = released {
                log::error!("copies in memory: {error}");
            }
            if kept > 0 {
                map.insert(key, Copy { blocks: kept, ..copy });
            }
        }
    }

    /// Writes `bytes` to the copy of `part`, where there is one.
    pub fn write(&self, part: &Part, bytes: &[u8]) -> Result<(), DmuError> {
        for (extent, range) in find(&self.map.read(), part) {
            self.pool.write(&extent, 0, &bytes[range])?;
        }
        Ok(())
    }

    /// Reads `part` out of its copy; whether there is one of all of it.
    pub fn read(&self, part: &Part, buf: &mut [u8]) -> bool {
        let parts = find(&self.map.read(), part);
        let whole = parts.iter().map(|(_, range)| range.len()).sum::<usize>() == buf.len();
        whole
            && parts.iter().all(|(extent, range)| self.pool.read(extent, 0, &mut buf[range.clone()]).is_ok())
    }

    /// Writes the bytes `verified` of `right` over what the copy of `part` has there, where there is one; all of a block of it
    /// that does not read.
    pub fn patch(&self, part: &Part, right: &[u8], verified: &Range<usize>) {
        // Alone: no copy must go, and its place be another's, before it is written.
        let map = self.map.write();
        for (extent, range) in find(&map, part) {
            for (block, at) in (0..).zip(range.step_by(BLOCK_BYTES)) {
                let right = &right[at..at + BLOCK_BYTES];
                let sure = verified.start.clamp(at, at + BLOCK_BYTES) - at
                    ..verified.end.clamp(at, at + BLOCK_BYTES) - at;
                let mut held = AlignedBuffer::zeroed(BLOCK_BYTES);
                match self.pool.read(&extent, block, &mut held) {
                    Ok(()) if held[sure.clone()] == right[sure.clone()] => continue,
                    Ok(()) => held[sure.clone()].copy_from_slice(&right[sure]),
                    Err(_) => held.copy_from_slice(right),
                }
                if let Err(error) = self.pool.write(&extent, block, &held) {
                    log::error!("a wrong copy in memory stays: {error}");
                }
            }
        }
    }

    /// Blocks free and in all on memory tier `tier`.
    pub fn space(&self, tier: u8) -> (u64, u64) {
        let space = self.allocator.tier_space()[usize::from(tier)];
        (space.free, space.total)
    }
}

/// The places in memory of `part`, and which of its bytes they hold.
fn find(map: &BTreeMap<(VdevId, u64), Copy>, part: &Part) -> Vec<(Extent, Range<usize>)> {
    let mut places = Vec::new();
    for stripe in part.stripes() {
        let vdev = stripe.extent.vdev;
        let block = stripe.block();
        let end = block + (stripe.range.len() / BLOCK_BYTES) as u64;
        let ahead = stripe.range.start - part.range.start;
        for ((_, start), copy) in map.range((vdev, 0)..(vdev, end)).rev() {
            if start + u64::from(copy.blocks) <= block {
                break;
            }
            // In data blocks of the copy from here on.
            let first = copy.geometry.data_block(block.saturating_sub(*start));
            let skipped = start.saturating_sub(block);
            let wanted = first..first + (end - block - skipped);
            let mut at = 0;
            for piece in &copy.memory {
                let (from, to) = (at.max(wanted.start), (at + u64::from(piece.blocks)).min(wanted.end));
                if from < to {
                    let extent = Extent {
                        vdev: piece.vdev,
                        block: piece.block + (from - at),
                        blocks: (to - from) as u32,
                    };
                    let byte = |data: u64| ahead + (skipped + data - wanted.start) as usize * BLOCK_BYTES;
                    places.push((extent, byte(from)..byte(to)));
                }
                at += u64::from(piece.blocks);
            }
        }
    }
    places
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
