//! A device during whose requests the scheduler of tests may let others go on.

use super::{BlockDevice, VdevError};
use crate::base::sync::thread::yield_now;
use shuttle::rand::{Rng, thread_rng};
use std::sync::Arc;

/// Longest request, in turns of others.
const TURNS_MAX: u32 = 12;

/// Any device, whose requests take a while.
#[derive(Debug)]
pub(crate) struct ScheduledDevice(pub Arc<dyn BlockDevice>);

fn around<T>(request: impl FnOnce() -> T) -> T {
    let turns = || (0..thread_rng().gen_range(1..TURNS_MAX)).for_each(|_| yield_now());
    turns();
    let result = request();
    turns();
    result
}

impl BlockDevice for ScheduledDevice {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
        around(|| self.0.read_at(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
        around(|| self.0.write_at(buf, offset))
    }

    fn flush(&self) -> Result<(), VdevError> {
        around(|| self.0.flush())
    }
}
