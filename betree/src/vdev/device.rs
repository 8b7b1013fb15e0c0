//! The seam under every leaf vdev.

use super::VdevError;
use crate::base::buffer::AlignedBuffer;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

/// A device of bytes that is read and written in whole 4 KiB blocks.
///
/// The file or block device, memory and the simulated device implement it. Nothing above this trait knows which one
/// it talks to, so that faults and crashes can be put below every layer.
pub trait BlockDevice: Send + Sync + std::fmt::Debug {
    /// A name for messages: the path, or `memory`.
    fn name(&self) -> &str;

    /// Length in bytes; a multiple of 4096.
    fn len(&self) -> u64;

    /// Whether the device has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the contents vanish with the process (memory).
    fn is_volatile(&self) -> bool {
        false
    }

    /// The open file behind it, when bytes are where the device has them, for who asks the operating system otherwise.
    fn file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Fills `buf` from byte `offset`. Both `offset` and the length of `buf` are multiples of 4096; `buf` is
    /// 4 KiB-aligned in memory when the device is opened for direct I/O.
    ///
    /// # Errors
    /// [`VdevError`] with device, operation and offset; `buf` is then unspecified.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError>;

    /// Writes all of `buf` at byte `offset`; alignment as in [`BlockDevice::read_at`]. Completion is not durability.
    ///
    /// # Errors
    /// [`VdevError`]; any part of the range may then hold old or new bytes.
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError>;

    /// As [`BlockDevice::read_at`], into `bufs` one after the other; the length of each is a multiple of 4096.
    ///
    /// # Errors
    /// [`VdevError`] with device, operation and offset; `bufs` are then unspecified.
    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<(), VdevError> {
        let mut all = AlignedBuffer::recycled(bufs.iter().map(|buf| buf.len()).sum());
        self.read_at(&mut all, offset)?;
        let mut rest = &all[..];
        for buf in bufs {
            let (now, later) = rest.split_at(buf.len());
            buf.copy_from_slice(now);
            rest = later;
        }
        Ok(())
    }

    /// As [`BlockDevice::write_at`], of `bufs` one after the other; the length of each is a multiple of 4096.
    ///
    /// # Errors
    /// [`VdevError`]; any part of the range may then hold old or new bytes.
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<(), VdevError> {
        let mut all = AlignedBuffer::recycled(bufs.iter().map(|buf| buf.len()).sum());
        let mut rest = &mut all[..];
        for buf in bufs {
            let (now, later) = rest.split_at_mut(buf.len());
            now.copy_from_slice(buf);
            rest = later;
        }
        self.write_at(&all, offset)
    }

    /// Makes every write that completed before durable. Never retried by the layers above.
    ///
    /// # Errors
    /// [`VdevError`]; any write since the last successful flush may then be lost.
    fn flush(&self) -> Result<(), VdevError>;

    /// Nothing refers to these bytes any more; until they are written again they may read as anything. A hint: a device
    /// that has no use for it does nothing. The simulated disk fills them with garbage, so that whoever still reads them
    /// is noticed.
    fn discard(&self, _offset: u64, _bytes: u64) {}
}
