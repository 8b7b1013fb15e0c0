//! A volatile device in memory.

use super::error::check_bounds;
use super::{BlockDevice, Operation, VdevError};
use crate::base::units::BLOCK_BYTES_U64;
use parking_lot::RwLock;
use std::io::{IoSlice, IoSliceMut};

/// Bytes behind one lock.
const STRIPE_BYTES: u64 = 1 << 20;

/// A device whose bytes live in memory and vanish with it.
pub struct MemoryDevice {
    len: u64,
    stripes: Vec<RwLock<Vec<u8>>>,
}

impl MemoryDevice {
    /// A device of `bytes` zero bytes, rounded down to whole blocks. Memory is taken as it is written.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let len = bytes / BLOCK_BYTES_U64 * BLOCK_BYTES_U64;
        let stripes = (0..len.div_ceil(STRIPE_BYTES)).map(|_| RwLock::new(Vec::new())).collect();
        Self { len, stripes }
    }
}

// By hand: the derived one would print every byte.
impl std::fmt::Debug for MemoryDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryDevice").field("len", &self.len).finish_non_exhaustive()
    }
}

/// The parts of `length` bytes from `offset`: stripe, offset within it, range of the caller's buffer.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let within = at % STRIPE_BYTES;
        let take = ((STRIPE_BYTES - within) as usize).min(length - done);
        let part = ((at / STRIPE_BYTES) as usize, within as usize, done..done + take);
        done += take;
        Some(part)
    })
}

impl BlockDevice for MemoryDevice {
    fn name(&self) -> &str {
        "memory"
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn is_volatile(&self) -> bool {
        true
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
        check_bounds(self.name(), Operation::Read, offset, buf.len(), self.len)?;
        for (stripe, within, range) in parts(offset, buf.len()) {
            let bytes = self.stripes[stripe].read();
            let length = range.len();
            let out = &mut buf[range];
            if bytes.is_empty() {
                out.fill(0);
            } else {
                out.copy_from_slice(&bytes[within..within + length]);
            }
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
        check_bounds(self.name(), Operation::Write, offset, buf.len(), self.len)?;
        for (stripe, within, range) in parts(offset, buf.len()) {
            let mut bytes = self.stripes[stripe].write();
            if bytes.is_empty() {
                let stripe_bytes = STRIPE_BYTES.min(self.len - stripe as u64 * STRIPE_BYTES);
                // Not `resize`, which would touch every page of it.
                *bytes = vec![0; stripe_bytes as usize];
            }
            bytes[within..within + range.len()].copy_from_slice(&buf[range]);
        }
        Ok(())
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], mut offset: u64) -> Result<(), VdevError> {
        for buf in bufs {
            self.read_at(buf, offset)?;
            offset += buf.len() as u64;
        }
        Ok(())
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], mut offset: u64) -> Result<(), VdevError> {
        for buf in bufs {
            self.write_at(buf, offset)?;
            offset += buf.len() as u64;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), VdevError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_return_what_was_written_across_stripes() {
        let device = MemoryDevice::new(3 * STRIPE_BYTES + 8192);
        let data: Vec<u8> = (0..2 * STRIPE_BYTES).map(|i| (i % 251) as u8).collect();
        device.write_at(&data, STRIPE_BYTES - 4096).unwrap();
        let mut back = vec![1; data.len() + 8192];
        device.read_at(&mut back, STRIPE_BYTES - 8192).unwrap();
        assert!(back[..4096].iter().all(|byte| *byte == 0));
        assert_eq!(&back[4096..4096 + data.len()], &data[..]);
        let (one, two) = back[..3 * 4096].split_at_mut(8192);
        device.read_vectored_at(&mut [IoSliceMut::new(one), IoSliceMut::new(two)], STRIPE_BYTES).unwrap();
        assert!(back[..3 * 4096] == data[4096..4 * 4096]);
        let (one, two) = data[..3 * 4096].split_at(4096);
        device.write_vectored_at(&[IoSlice::new(two), IoSlice::new(one)], 0).unwrap();
        device.read_at(&mut back[..3 * 4096], 0).unwrap();
        assert!(back[..8192] == data[4096..3 * 4096] && back[8192..3 * 4096] == data[..4096]);
        assert!(device.read_at(&mut back[..4096], device.len()).is_err());
        assert!(device.write_at(&back[..100], 0).is_err());
        assert!(device.read_at(&mut back[..4096], u64::MAX - 4095).is_err());
    }
}
