//! A device that can be pulled: how a process dies without its machine.

use betree::vdev::{BlockDevice, Operation, SimDevice, SimDisk, VdevError};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A simulated disk in use by one process; when that is killed, nothing of it reaches the disk any more.
#[derive(Debug)]
pub struct Plug {
    device: SimDevice,
    pulled: Arc<AtomicBool>,
}

impl Plug {
    /// The device of `disk` until `pulled` is set.
    #[must_use]
    pub fn device(disk: &SimDisk, pulled: &Arc<AtomicBool>) -> Arc<dyn BlockDevice> {
        Arc::new(Self { device: disk.device(), pulled: Arc::clone(pulled) })
    }

    fn check(&self, operation: Operation, offset: u64) -> Result<(), VdevError> {
        if !self.pulled.load(Ordering::Acquire) {
            return Ok(());
        }
        let (device, source) = (self.device.name().to_owned(), io::Error::other("the process is dead"));
        Err(VdevError::Io { device, operation, offset, source })
    }
}

impl BlockDevice for Plug {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn len(&self) -> u64 {
        self.device.len()
    }

    fn is_volatile(&self) -> bool {
        self.device.is_volatile()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
        self.check(Operation::Read, offset)?;
        self.device.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
        self.check(Operation::Write, offset)?;
        self.device.write_at(buf, offset)
    }

    fn flush(&self) -> Result<(), VdevError> {
        self.check(Operation::Flush, 0)?;
        self.device.flush()
    }

    fn discard(&self, offset: u64, bytes: u64) {
        if !self.pulled.load(Ordering::Acquire) {
            self.device.discard(offset, bytes);
        }
    }
}
