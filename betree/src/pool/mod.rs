//! The storage pool: tiers of vdevs, labels and superblocks, block I/O, the error latch.
//!
//! ```text
//!    StoragePoolConfiguration ── topology ──▶ devices, locked
//!                                                │ label (what every slot holds)
//!                                                ▼
//!                        assembly: which device is which member, which generation
//!                                                │
//!          commit, rewrite ── superblocks ──── Pool ──── read, write, flush by (vdev id, block)
//!                                                │
//!                                  BlockDevice of each top-level vdev
//! ```
//!
//! Blocks of a top-level vdev are those of its leaf, from 0. The label areas at both ends
//! ([`Pool::reserved_ranges`]) are in the same numbering and belong to this module. The bytes are in [`mod@format`].
//!
//! # Invariants
//!
//! P1. **Lock, then look, then write.** Every device is locked before the first is read, and all are checked before a
//!     byte of any is written.
//! P2. **Nothing is made over data.** Create takes a device only when both label areas were read and are zero; whatever
//!     cannot be understood is an error, never "no pool here". Only `force` overrides this.
//! P3. **One generation is always whole.** Front areas of all leaves, flush, back areas, flush. At every instant each
//!     leaf has a valid superblock of the last durable generation and of the one before it: slots take turns.
//! P4. **Depth 1.** Open offers the highest valid generation, and the one before only when nothing newer can have been
//!     durable; blocks that the newer one freed may have been reused.
//! P5. **Loud.** A generation that is known or suspected to be lost is in the [`OpenReport`] and in the log. No crash
//!     looks like a loss.
//! P6. **Generations go up.** A new one is above all that any superblock or label names, valid root or not.
//! P7. **One failure is final.** The first write or flush that fails poisons the pool for writing. A full host file
//!     system fails an extent write only, as nothing refers to the extent yet; it poisons when it hits a superblock.
//! P8. **Members agree.** Same pool, each member once, tier and layout as recorded, none shorter, none behind by more
//!     than the commit that a crash cut short, no two roots of one generation.
//! P9. **Memory is nobody.** A memory vdev has an id and nothing else: no label, no vote, and it may come and go with
//!     the configuration. Ids are never used twice.
//! P10. **A device that grew** is used at once, and its new length is recorded by the next commit. The old back area
//!     stays as it is for ever: until that commit is durable it is needed, and afterwards 64 KiB are not worth a rule.
//!
//! # Locks
//!
//! The superblock state (held over a commit) → the flush turn of one vdev → the first failure. Reads and writes take
//! none of them.
//!
//! # What it does not do
//!
//! No allocation, no checksums of extents, no retries. It does not flush before a commit what the root refers to; the
//! caller does. Mirrors, parity and evacuated vdevs are refused for now, although the format has their fields.

mod assembly;
mod configuration;
mod error;
pub mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod inspection;
mod label;
mod metrics;
#[expect(clippy::module_inception, reason = "the pool is what this module is about")]
mod pool;
mod superblocks;
#[cfg(test)]
mod tests;
mod topology;

pub(crate) use assembly::random_uuid;
pub use assembly::{Candidate, GrownDevice, OpenReport, StaleArea};
#[cfg(test)]
pub(crate) use configuration::tests::any_tier;
pub(crate) use configuration::{Bytes, FieldOf, Object, bytes, object};
pub use configuration::{
    ConfigurationError, DeviceHandle, FileLeaf, LeafVdev, PreferredAccessType, StorageKind,
    StoragePoolConfiguration, TierConfiguration, VDEVS_PER_TIER_MAX, Vdev,
};
pub use error::PoolError;
pub(crate) use inspection::{Members, can_restore};
pub use label::{SlotContent, SlotDump, SlotUse, dump_device};
pub use metrics::{RequestMetrics, VdevMetrics};
pub use pool::{Access, CreateOptions, Pool, TopLevelVdev};
