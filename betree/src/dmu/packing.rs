//! How data blocks are packed into the blocks that they take.

use super::allocator::Stream;
use crate::pool::Geometry;

/// What an extent of a stream takes on a vdev, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packing {
    geometry: Geometry,
    /// Each block is a stripe of its own: blocks of the log are written one by one.
    single: bool,
}

impl Packing {
    pub const fn new(geometry: Geometry, stream: Stream) -> Self {
        Self { geometry, single: matches!(stream, Stream::Log) }
    }

    /// Blocks that `data` blocks take.
    pub const fn takes(self, data: u32) -> u32 {
        let taken = match self.single {
            true => data as u64 * self.geometry.granule() as u64,
            false => self.geometry.taken(data as u64),
        };
        if taken > u32::MAX as u64 { u32::MAX } else { taken as u32 }
    }

    /// Data blocks that `taken` blocks hold.
    pub fn holds(self, taken: u32) -> u32 {
        match self.single {
            true => taken / self.geometry.granule(),
            false => self.geometry.capacity(u64::from(taken)) as u32,
        }
    }

    /// Whether one extent behind another takes as much as both apart.
    pub const fn is_plain(self) -> bool {
        self.geometry.is_plain()
    }
}
