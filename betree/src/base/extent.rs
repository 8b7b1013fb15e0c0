//! A contiguous run of blocks on one vdev.

use super::codec::{DecodeError, Decoder, Encoder};
use super::ids::VdevId;
use std::fmt;

/// `blocks` blocks of 4 KiB from block `block` of vdev `vdev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extent {
    /// The top-level vdev.
    pub vdev: VdevId,
    /// First block, in 4 KiB blocks from the start of the vdev.
    pub block: u64,
    /// Length in 4 KiB blocks; never 0 in a stored extent.
    pub blocks: u32,
}

impl Extent {
    /// Encoded length in bytes.
    pub const ENCODED_BYTES: usize = 16;

    /// The block after the last one.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.block + u64::from(self.blocks)
    }

    /// Whether both share a block.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.vdev == other.vdev && self.block < other.end() && other.block < self.end()
    }

    /// Appends vdev (u32), blocks (u32), block (u64).
    pub fn encode(&self, out: &mut Encoder) {
        out.u32(self.vdev.0);
        out.u32(self.blocks);
        out.u64(self.block);
    }

    /// Reads what [`Extent::encode`] wrote.
    ///
    /// # Errors
    /// When bytes are missing, the length is 0 or the end overflows.
    pub fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let vdev = VdevId(input.u32("extent vdev")?);
        let blocks = input.u32("extent length")?;
        let block = input.u64("extent block")?;
        if blocks == 0 || block > (1 << 52) {
            return Err(input.invalid("extent"));
        }
        Ok(Self { vdev, block, blocks })
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vdev {} blocks {}+{}", self.vdev, self.block, self.blocks)
    }
}

/// Total length of `extents` in blocks.
#[must_use]
pub fn total_blocks(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| u64::from(extent.blocks)).sum()
}
