//! A device in memory over another one, which is only read: for trying out what would be written.

use super::error::check_bounds;
use super::{BlockDevice, Operation, VdevError};
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;

/// What was written, before what is on the device below. Takes memory for each block written, and gives it back with
/// itself.
pub(crate) struct OverlayDevice {
    below: Arc<dyn BlockDevice>,
    written: RwLock<HashMap<u64, Box<[u8; BLOCK_BYTES]>>>,
}

impl OverlayDevice {
    /// A device that reads as `below` until it is written.
    #[must_use]
    pub(crate) fn new(below: Arc<dyn BlockDevice>) -> Self {
        Self { below, written: RwLock::default() }
    }
}

// By hand: the derived one would print every byte.
impl std::fmt::Debug for OverlayDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OverlayDevice").field("below", &self.below).finish_non_exhaustive()
    }
}

impl BlockDevice for OverlayDevice {
    fn name(&self) -> &str {
        self.below.name()
    }

    fn len(&self) -> u64 {
        self.below.len()
    }

    fn is_volatile(&self) -> bool {
        self.below.is_volatile()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
        check_bounds(self.name(), Operation::Read, offset, buf.len(), self.len())?;
        let written = self.written.read();
        let first = offset / BLOCK_BYTES_U64;
        // What was written can be read, whatever is below.
        if !(first..first + buf.len() as u64 / BLOCK_BYTES_U64).all(|block| written.contains_key(&block)) {
            self.below.read_at(buf, offset)?;
        }
        for (page, block) in buf.chunks_exact_mut(BLOCK_BYTES).zip(first..) {
            if let Some(bytes) = written.get(&block) {
                page.copy_from_slice(&bytes[..]);
            }
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
        check_bounds(self.name(), Operation::Write, offset, buf.len(), self.len())?;
        let mut written = self.written.write();
        for (page, block) in buf.chunks_exact(BLOCK_BYTES).zip(offset / BLOCK_BYTES_U64..) {
            let bytes = written.entry(block).or_insert_with(|| Box::new([0; BLOCK_BYTES]));
            bytes.copy_from_slice(page);
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
    use crate::vdev::MemoryDevice;

    #[test]
    fn what_is_written_is_read_and_the_device_below_stays_as_it_is() {
        let below: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(8 * BLOCK_BYTES_U64));
        below.write_at(&[7; 8 * BLOCK_BYTES], 0).unwrap();
        let device = OverlayDevice::new(Arc::clone(&below));
        device.write_at(&[1; 2 * BLOCK_BYTES], 3 * BLOCK_BYTES_U64).unwrap();
        device.flush().unwrap();
        let read = |device: &dyn BlockDevice, block: u64, blocks: usize| {
            let mut bytes = vec![0; blocks * BLOCK_BYTES];
            device.read_at(&mut bytes, block * BLOCK_BYTES_U64).unwrap();
            bytes.chunks(BLOCK_BYTES).map(|page| page[0]).collect::<Vec<u8>>()
        };
        assert_eq!(read(&device, 0, 8), [7, 7, 7, 1, 1, 7, 7, 7]);
        assert_eq!(read(&device, 3, 2), [1, 1]);
        assert_eq!(read(&*below, 0, 8), [7; 8]);
        assert!(device.write_at(&[1; BLOCK_BYTES], 8 * BLOCK_BYTES_U64).is_err());
        assert!(device.read_at(&mut [1; 100], 0).is_err());
    }
}
