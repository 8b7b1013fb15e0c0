//! Devices of blocks: a file or block device, memory, memory over another one, and the simulated disk of the tests.
//!
//! ```text
//!            pool: labels, tiers, redundancy, error latch
//!                             │
//!             BlockDevice { read_at, write_at, flush, len }      whole 4 KiB blocks
//!            ┌────────────────┼──────────────────┬──────────────────────────┐
//!        FileDevice      MemoryDevice       OverlayDevice         SimDevice ── SimDisk ── SimClock
//!     one fd, one lock     volatile      tries out what would   drops, tears, reorders, fails
//!                                        be written to another
//! ```
//!
//! # Invariants
//!
//! V1. **Lock before bytes.** A file or block device is locked before its first byte is read, and the lock lives as
//!     long as the device. A second opener gets [`VdevError::InUse`], also inside one process.
//! V2. **All or an error.** A read or write moves every byte or fails; short transfers are continued, interrupted ones
//!     repeated, a transfer of nothing is an error.
//! V3. **Completion is not durability.** Only a flush that returned without error makes the writes durable that had
//!     completed before it began. Direct I/O changes nothing about that.
//! V4. **A failed flush stays failed.** The operating system reports a lost page once, to one flush of one descriptor.
//!     So there is one descriptor for the lifetime, flushes take turns, and after a failure every later flush fails.
//! V5. **No silent mode.** Direct I/O that the file system refuses is an error, and so is a file that cannot be
//!     preallocated; nothing falls back on its own.
//! V6. **Nothing is formatted by accident.** Creating refuses a file that has bytes, and removes what it could not
//!     finish.
//!
//! `ReadRing` reads files past [`BlockDevice::read_at`], many at once by one thread; V2 then is for who takes what arrived.
//!
//! # Locks
//! Each device has at most one lock of its own and calls nothing above it while holding it.
//!
//! # What it does not do
//! No retries but after an interruption, no redundancy, no checksums, no queue, no growth: the length is that at the
//! time of opening.

mod device;
mod error;
mod file;
mod memory;
mod overlay;
mod ring;
#[cfg(feature = "shuttle")]
#[cfg(test)]
mod scheduled;
mod sim;

pub use device::BlockDevice;
pub use error::{Operation, VdevError};
pub use file::FileDevice;
pub(crate) use file::NewFile;
pub use memory::MemoryDevice;
pub(crate) use overlay::OverlayDevice;
pub(crate) use ring::{Arrived, ReadRing};
#[cfg(feature = "shuttle")]
#[cfg(test)]
pub(crate) use scheduled::ScheduledDevice;
pub use sim::{
    Fault, FaultKind, FlushFailure, LoggedOperation, SimClock, SimDevice, SimDisk, SimRng, SimSnapshot,
};
