//! The simulated disk: below every layer in tests, where it crashes, tears, loses and fails as real devices do.
//!
//! ```text
//!   SimDevice (BlockDevice)          the program under test
//!       │ read, write, flush
//!   SimDisk ─────────────── SimClock numbers the writes and flushes of all disks, and stops them at one number
//!       │   faults: armed, fired, counted
//!       ├─ visible image    what reads see: every completed write, in order
//!       ├─ durable image    what the last completed flush made durable
//!       └─ pending writes   completed (or in flight at the crash) since then
//!                 │ crash_image(rng): durable image + any subset of the pending writes, torn, in any order
//!                 ▼
//!           another SimDisk, to open after the crash
//! ```
//!
//! Images share their 4 KiB pages, so an image costs what it changes. A workload is run once with
//! [`SimDisk::keep_history`], and [`SimDisk::crash_image_at`] then makes the disks that a crash after any of its
//! operations could have left, without running it again. A crash inside of the recovery from a crash is the same
//! thing once more, on the image.
//!
//! The rules of what a crash may leave are those of a disk with a volatile cache and atomic sectors of 512 bytes; the
//! faults, and putting them over sound data so that they can be lifted, follow TigerBeetle (`testing/storage.zig`); the
//! states after a failed flush follow Rebello et al., "Can Applications Recover from fsync Failures?" (ATC 2020).
//!
//! # Invariants
//!
//! S1. A crash image has, in every sector, its durable bytes or those of one of the pending writes to it.
//! S2. Disks are independent: a flush of one says nothing about another.
//! S3. A write that was under way when the clock stopped may have landed; operations after it have not happened.
//! S4. Everything is a function of the operations and of the seeds given to [`SimClock::new`] and [`SimRng::new`].
//! S5. A fault that was armed but did not happen is not counted by [`SimDisk::fired`].
//!
//! # Locks
//! One per disk; the clock is made of atomics.
//!
//! # What it does not do
//! It does not know time, so nothing is slow or hangs; transfers are never short; the length is fixed.

mod clock;
mod crash;
mod disk;
mod fault;
mod image;
mod rng;

pub use clock::SimClock;
pub use disk::{LoggedOperation, SimDevice, SimDisk, SimSnapshot};
pub use fault::{Fault, FaultKind, FlushFailure};
pub use rng::SimRng;
