//! Words that every layer shares. Nothing here does I/O.
//!
//! * [`units`]: the 4 KiB block and human-readable sizes.
//! * [`ids`]: newtypes for the numbers that must not be mixed up.
//! * [`extent`]: a contiguous run of blocks on one vdev.
//! * [`preference`]: tiers and the storage preference that a write carries.
//! * [`buffer`]: 4 KiB-aligned memory for direct I/O, recycled in huge-page slabs.
//! * [`codec`]: checked little-endian reading and writing of bytes.
//! * [`checksum`] and [`compression`].
//! * `fuzzing`, with the feature of that name: what a fuzz target is.
//! * [`sync`]: locks, atomics and threads, which a scheduler of tests may take over.
//! * [`planted`]: switches for deliberate bugs with which the test rig is tested.

pub mod buffer;
pub mod checksum;
pub mod codec;
pub mod compression;
#[cfg(feature = "shuttle")]
#[cfg(test)]
pub mod exploration;
pub mod extent;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod ids;
pub mod planted;
pub mod preference;
pub mod sync;
pub mod units;
