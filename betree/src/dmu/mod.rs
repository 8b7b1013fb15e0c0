//! Data management: from extents that someone wants to blocks of devices, and when these may be used again.
//!
//! ```text
//!    trees, log, database:  allocate · write · read · kill · hold            cache: frames of runs
//!             │                                                                 │ pointers go from
//!   ┌─────────▼───────────────────────────── Dmu ────────────────────────────┐  │ the run to its frames
//!   │ placement      class → tiers, durable ones; headers and log: fastest   │◄─┘
//!   │ OwnedExtents   unborn → alive → dead → deferred → free                 │
//!   │ Allocator      tier, reserve ─► vdev in turn ─► segment ─► bitmap       │
//!   │ IoQueue        background writes, prefetch        Copies: memory tiers │
//!   │ WriteBehind    short values, many in one request                       │
//!   └─────────┬──────────────────────────────────────────────────────────────┘
//!             ▼ blocks by (vdev id, number)
//!            pool
//! ```
//!
//! An [`OwnedExtents`] is the space of one run, node header, table root or large value: one owner, one life. A checkpoint
//! asks for the births and deaths of its generation and writes them into the bitmaps; nothing else changes a bitmap.
//!
//! # Invariants
//!
//! * **D1 One owner.** Every allocated block belongs to exactly one extent, and every extent to one owner. What is
//!   reached and what is allocated are the same set; verification compares the two.
//! * **D2 No reuse while it can be seen.** What dies in generation g is handed out again only when g + 1 is durable
//!   *and* nobody in this process holds it. What no checkpoint ever reached is free at once, unless the log may name it.
//! * **D3 Bits are events.** The bitmap of g is that of the checkpoint before, plus the births of g, minus the deaths of
//!   g. Allocations of running merges, of the log and of later generations are not in it; replay marks those of the log.
//! * **D4 Depth 1.** After open, free is what is free in g *and* in g − 1. Nothing that either of them refers to is
//!   overwritten: neither an extent, nor a bitmap slot, nor a table page.
//! * **D5 Writing the allocation state allocates nothing.** Slots and pages have fixed places; the extent of the table
//!   root is allocated, like any other, before the bitmaps are written.
//! * **D6 A double free is an error in release builds**, and the first one stops all writing: on such a ground nothing
//!   more is built.
//! * **D7 Scattered space is space.** A request is refused only when fewer blocks are free than it may take; it then
//!   gets several extents, and a list of them when they are many.
//! * **D8 The reserve.** User data never takes the last 3 % of a tier (or what the layers above ask for, when that is
//!   more); deletes leave of it what merges need, merges what flushes and checkpoints need. So a full pool can be emptied.
//! * **D9 Memory holds copies.** No persistent pointer names a memory vdev while the pool has any other. A copy that is
//!   missing costs time and nothing else.
//! * **D10 One budget.** Blocks, indexes and filters share the cache; what a reader still holds counts until it lets go.
//! * **D11 Kept dead.** What dies and was born at or before the newest snapshot of its tree stays allocated, and is handed to
//!   the checkpoint of its death exactly once.
//! * **D12 Stripes.** On a striped vdev a stripe is written once, whole. Extents are joined and cut only where stripes end, or
//!   before anything was written to the stripe.
//! * **D13 The others are asked.** Who finds a checksum wrong lets all members of the vdev be asked before it reports damage;
//!   what is right goes over what was wrong, and never what is not known to be right over anything.
//! * **D14 No weaker than the data.** Headers, root tree and log lie on no tier that is less redundant than another, unless
//!   the configuration says so or there is no room.
//! * **D15 Led on.** An extent of a vdev that left is where the map says: who reads it reads its places, whole and in order, who
//!   frees it frees these. No line of a map leads to a vdev that left, and no map lies on one.
//! * **D16 All or nothing.** A vdev leaves with a checkpoint that has a verified copy of every block that it would otherwise
//!   have there.
//! * **D17 Behind.** What was taken by [`Dmu::write_behind`] is read from memory until it is on its device, and is there before
//!   [`Dmu::finish_behind`] returns. Blocks that its writer gave up are used again after that, and no sooner.
//!
//! The invariants of the allocator alone are A1 to A5 in `allocator.rs`.
//!
//! # Locks
//!
//! The vdev that is to leave → the maps of those that left, births and deaths, one vdev's segments; what is written behind →
//! placement, the maps of those that left, one vdev's segments; the checkpoint being written → one vdev's segments; births and
//! deaths (a leaf: nothing is taken under it); the queues of the cache → a lock of the frame's owner, or of a part of the map of pieces. Reads take none but the map of memory copies, where there
//! are memory vdevs, and the lock of what is written behind, while there is something.
//!
//! # What it does not do
//!
//! It flushes no device on its own, and does not know what an extent holds: checksums and compression belong to those who
//! write (the run, the node, the value), because only their pointers can guard against writes that never landed. It decides
//! nothing about when to checkpoint. It does not know datasets or snapshots: a tree's [`Deaths`] only know up to which birth
//! a death is not a free, and keep what died so for the lists that the database writes.

mod allocator;
mod bitmap;
mod cache;
mod commit;
mod copies;
mod dead_list;
#[expect(clippy::module_inception, reason = "the unit is what this module is about")]
mod dmu;
mod error;
mod evacuation;
mod extent_list;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod healing;
mod inspection;
mod layout;
mod lifetime;
mod moved;
mod packing;
mod pieces;
mod queue;
mod scrubbing;
mod segment;
mod segments;
mod sequence;
#[cfg(feature = "shuttle")]
#[cfg(test)]
mod shuttle_tests;
mod space;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod write_batch;
mod write_behind;

pub use allocator::{Allocator, Privilege, Stream};
pub use cache::{Admission, Cache, CacheStatistics, Charge, Evictable, Heat};
pub use dead_list::{Death, Deaths};
pub use dmu::{Dmu, DmuOptions};
pub use error::DmuError;
pub use extent_list::StoredExtents;
pub use format::{SEGMENT_BLOCKS_MAX, SEGMENT_BLOCKS_MIN, TABLE_ROOT};
pub use healing::Reading;
pub(crate) use inspection::{AllocationState, Expected, Fault, Flaw, SegmentCounts};
pub use layout::VdevGeometry;
pub use lifetime::{Keeper, OwnedExtents};
pub use moved::{DepartedVdev, Hold};
pub use pieces::{Piece, PieceName, Pieces};
pub use queue::{IoQueue, JobGroup, PendingJob};
pub use scrubbing::{Checksummed, Damage, ScrubOutcome, ScrubTask, Target};
pub use space::{Reserve, TierSpace, VdevSpace};
pub use table::SeenGenerations;
pub use write_batch::WriteBatch;
