//! The storage pool: tiers of vdevs, redundancy, labels and superblocks, block I/O, the error latch.
//!
//! ```text
//!    StoragePoolConfiguration ── topology ──▶ devices, locked
//!                         │                      │ label (what every slot holds)
//!                         └── spares ──▶ who took whose place
//!                                                ▼
//!            addition ─▶ assembly: which device is which member, which generation
//!                           roll: which members of a vdev hold what they should
//!                                                │
//!       commit, rewrite ── superblocks ──────── Pool ──── read, write, recover by extent; flush
//!       who is lost ────── membership            │
//!                                              group: a vdev ── geometry, shares, parity, healing, workers
//!                                                │
//!                                             member ── BlockDevice
//! ```
//!
//! Extents count *taken* blocks of a top-level vdev, parity included; what they hold is counted in data blocks from their
//! start ([`Geometry`]). The label areas at both ends of each leaf ([`Pool::reserved_ranges`]) are in the numbering of the vdev
//! and belong to this module. The bytes are in [`mod@format`].
//!
//! # Invariants
//!
//! P1. **Lock, then look, then write.** Every device is locked before the first is read, and all are checked before a
//!     byte of any is written.
//! P2. **Nothing is made over data.** Create takes a device only when both label areas were read and are zero; whatever
//!     cannot be understood is an error, never "no pool here". Only `force` overrides this.
//! P3. **One generation is always whole.** Front areas of all leaves, flush, back areas, flush. At every instant each
//!     online leaf has a valid superblock of the last durable generation and of the one before it: slots take turns. One that
//!     a crash tore is made unreadable before the next one is written over it, which may be torn in the other sectors.
//! P4. **Depth 1.** Open offers the highest valid generation, and the one before only when nothing newer can have been
//!     durable; blocks that the newer one freed may have been reused.
//! P5. **Loud.** A generation that is known or suspected to be lost is in the [`OpenReport`] and in the log. No crash
//!     looks like a loss.
//! P6. **Generations go up.** A new one is above all that any superblock or label names, valid root or not.
//! P7. **One failure too many is final.** A member whose write or flush fails is given up while the others hold everything;
//!     the first failure that they cannot bear poisons the pool for writing. A full host file system fails an extent write
//!     only, as nothing refers to the extent yet; when it hits a superblock it is a failure like others.
//! P8. **Members agree.** Same pool, each member once, tier and layout as recorded, none shorter, no two roots of one
//!     generation, nobody who went on without the others. A single leaf that is behind by more than the commit which a crash
//!     cut short is refused.
//! P9. **Memory is nobody.** A memory vdev has an id and nothing else: no label, no vote, and it may come and go with
//!     the configuration. A leg that is memory starts empty and makes up for no device. Ids are never used twice.
//! P10. **A device that grew** is used at once, and its new length is recorded by the next commit; a mirror or parity grows when
//!     all its leaves have, and a label says so before an extent is there. The old back area stays as it is for ever: until
//!     that commit is durable it is needed, and afterwards 64 KiB are not worth a rule.
//! P11. **Recorded before acknowledged.** That a member is lost is in a label on all that are left, flushed, before the write
//!     or flush returns in which it was lost, and on opening before anything else is written. The label goes into the slot
//!     that the newest one is not in.
//! P12. **Late is not current.** A member that missed something is written and not read, but where a reader's checksum decides,
//!     until somebody says that it has been made good ([`Pool::resilvered`]). Its superblocks choose nothing.
//! P13. **Reading repairs nothing.** Bytes come to a device only from a writer, or from a reader who found them right by a
//!     checksum ([`Pool::recover`]); what nobody verified may be wrong, and what cannot be read now may be right.
//! P14. **A stripe is written once,** whole, with its parity: there is nothing to read before, and no hole to tear.
//! P15. **Who joins is whole first.** The leaves of a new vdev have the first commit that knows them, at both ends and flushed,
//!     before any other leaf gets it: nobody ever names a vdev that is not there.
//!
//! P16. **Gone is gone.** A vdev that left is in the list of vdevs, as such, from one commit on; its labels are made zero when
//!     nothing that may be opened names it as a member, and who is configured with it before that is told so.
//!
//! # Locks
//!
//! The superblock state (held over a commit) → the flush turn of one vdev → the labels of one vdev → its writes (shared by
//! writers) → who of it may be lost → a member's standing → the first failure. Reads take none of them.
//!
//! # What it does not do
//!
//! No allocation, no checksums of extents, no retries. It does not flush before a commit what the root refers to; the
//! caller does. It does not know what a member that was away lacks but by generation: who walks the extents resilvers.
//! Of a vdev that left it knows the id and the geometry, so that its extents can be measured, and nothing of where their
//! contents are.

mod addition;
mod alternatives;
mod assembly;
mod configuration;
mod error;
pub mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod geometry;
mod group;
mod healing;
mod inspection;
mod label;
mod member;
mod membership;
mod metrics;
mod parity;
#[expect(clippy::module_inception, reason = "the pool is what this module is about")]
mod pool;
mod removal;
mod roll;
mod scrubbing;
mod shares;
mod single_read;
mod singles;
mod spares;
mod superblocks;
#[cfg(test)]
mod tests;
mod topology;
mod workers;

pub use alternatives::{Alternatives, WrongCopy};
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
pub use format::{ErrorCounts, MemberState, VdevKind};
pub use geometry::{Geometry, STRIPE_BLOCKS};
pub use healing::Healing;
pub(crate) use inspection::{Members, can_restore};
pub use label::{SlotContent, SlotDump, SlotUse, dump_device};
pub use membership::{MemberLife, MemberStatus, VdevHealth, VdevStatus};
pub use metrics::{MemberMetrics, RequestMetrics, VdevMetrics};
pub use pool::{Access, CreateOptions, Pool, TopLevelVdev};
pub use scrubbing::{Judge, Lacking, Purpose, Scrubbed, Window};
pub use single_read::SingleRead;
pub use spares::SpareUse;
