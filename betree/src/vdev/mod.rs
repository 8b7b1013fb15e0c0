//! Devices of blocks: file or block device, memory, and the simulated device of the tests.

mod device;
mod error;
mod memory;

pub use device::BlockDevice;
pub use error::{Operation, VdevError};
pub use memory::MemoryDevice;
