//! Reads that are one request to one file: whoever has a better way to make it than to wait for it may do so.

use super::group::Group;
use super::pool::Pool;
use crate::base::extent::Extent;
use crate::base::ids::VdevId;
use crate::base::units::BLOCK_BYTES_U64;
use crate::vdev::BlockDevice;
use std::sync::Arc;

/// A read that is one request to one file.
#[derive(Debug)]
pub struct SingleRead {
    vdev: VdevId,
    member: usize,
    /// The device to be asked, which has a file.
    pub device: Arc<dyn BlockDevice>,
    /// From which byte on.
    pub offset: u64,
    /// How many bytes.
    pub bytes: usize,
}

impl Group {
    /// The member that would be asked for `bytes` bytes from block `block` on, and its device, when that alone does.
    fn single_reader(&self, block: u64, bytes: usize) -> Option<(usize, Arc<dyn BlockDevice>)> {
        let index = self.only_reader(block, bytes)?;
        let device = self.members()[index].device()?;
        let end = block.checked_mul(BLOCK_BYTES_U64)?.checked_add(bytes as u64)?;
        (device.file().is_some() && end <= device.len()).then_some((index, device))
    }
}

impl Pool {
    /// How [`Pool::read_noting`] would read `bytes` bytes from data block `from` of `extent`, when by one request to one file; `None` when
    /// otherwise, or not at all.
    #[must_use]
    pub fn single_read(&self, extent: &Extent, from: u64, bytes: usize) -> Option<SingleRead> {
        let block = extent.block.checked_add(from)?;
        let group = &self.vdevs()[self.position(extent.vdev).ok()?].group;
        let (member, device) = group.single_reader(block, bytes)?;
        Some(SingleRead { vdev: extent.vdev, member, device, offset: block * BLOCK_BYTES_U64, bytes })
    }

    /// Counts `read` as made.
    pub fn count_read(&self, read: &SingleRead, succeeded: bool) {
        if let Ok(position) = self.position(read.vdev) {
            self.vdevs()[position].group.members()[read.member].count_read(read.bytes, succeeded);
        }
    }
}
