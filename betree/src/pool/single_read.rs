//! Reads that are one request to one file: whoever has a better way to make it than to wait for it may do so.

use super::member::Member;
use super::pool::Pool;
use crate::base::extent::Extent;
use crate::base::units::BLOCK_BYTES_U64;
use crate::vdev::BlockDevice;
use std::sync::Arc;

/// A read that is one request to one file; as long as it lives, its member has it to do.
#[derive(Debug)]
pub struct SingleRead {
    member: Arc<Member>,
    /// The device to be asked, which has a file.
    pub device: Arc<dyn BlockDevice>,
    /// From which byte on.
    pub offset: u64,
    /// How many bytes.
    pub bytes: usize,
}

impl SingleRead {
    /// It was made, and everything came.
    pub fn succeeded(&self) {
        self.member.count_read(self.bytes);
    }
}

impl Drop for SingleRead {
    fn drop(&mut self) {
        self.member.end_read();
    }
}

impl Pool {
    /// How [`Pool::read_noting`] would read `bytes` bytes from data block `from` of `extent`, when by one request to one file; `None` when
    /// otherwise, or not at all.
    #[must_use]
    pub fn single_read(&self, extent: &Extent, from: u64, bytes: usize) -> Option<SingleRead> {
        let block = extent.block.checked_add(from)?;
        let group = &self.vdevs()[self.position(extent.vdev).ok()?].group;
        let member = &group.members()[group.only_reader(block, bytes)?];
        let device = member.device()?;
        let offset = block.checked_mul(BLOCK_BYTES_U64)?;
        let end = offset.checked_add(bytes as u64)?;
        if device.file().is_none() || end > device.len() {
            return None;
        }
        member.begin_read(block, bytes);
        Some(SingleRead { member: Arc::clone(member), device, offset, bytes })
    }
}
