//! The copy-on-write Bε-tree of runs.
//!
//! ```text
//!  version = active memtable ─ frozen memtables ─ root          (swapped as a whole)
//!
//!  node (level L):  pivots     p1        p2
//!                 ┌─────────┬─────────┬─────────┐
//!                 │ slot 0  │ slot 1  │ slot 2  │   slot = runs, newest first, and a child (none at level 1)
//!                 └────┬────┴────┬────┴────┬────┘
//! ```
//!
//! The classic Bε-tree (Bender et al., ;login: 40(5), 2015) keeps messages in a node and rewrites the node at each
//! flush. Here a node is a small header over immutable sorted runs: a flush writes one new run per slot below, and
//! headers are written only by a checkpoint. A leaf is a slot of level 1: base runs below newer delta runs.
//!
//! Invariants:
//!
//! * **T1** A run belongs to one slot and lies inside its bounds; it is never shared or clipped.
//! * **T2** No message of a key lies above a newer one: memtables above the root's slots above their children's; within
//!   a slot newest first.
//! * **T3** All versions of a key in runs of one age are in one run.
//! * **T4** Nodes and runs do not change. An edit builds new nodes along the path and publishes a new root; what it
//!   replaces dies in the edit's generation and is freed when nobody holds it.
//! * **T5** Who uses a run holds the version, or the node, that it came from.
//! * **T6** Everything in the immutable parts of a version is at most as new as the sequence number that is visible after
//!   the version was taken.
//! * **T7** A large-value pointer is in one run of the live tree; the merge that drops it kills the value's extents.
//! * **T8** Relocation is a merge and no message: keys and sequence numbers stay, and a copy whose value is not there any
//!   more is given back.
//!
//! Lock order: commit lock (of the database) → flush of a memtable → claim on a slot → gates, upper level first → edit
//! lock → a node's own lock. Readers take none of them.
//!
//! Where to look: a read is in `get` and `range`; a flush in `flush`; a leaf merge in `merge`; splits and joins in
//! `structure`; what messages mean together in `compact` and `resolve`, or do to a
//! part of a value in `part`; a read that waits for no device in `part_request`; how entries move to another tier in `relocate`; what a checkpoint writes in `store`.

mod action;
mod claim;
mod compact;
mod diff;
mod drops;
mod error;
mod flush;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod get;
mod inspection;
mod job;
mod memtable;
mod memtable_deletes;
mod memtable_filter;
mod memtable_index;
mod merge;
mod neighbours;
mod node;
mod options;
mod output;
mod part;
mod part_request;
mod range;
mod relocate;
mod resolve;
mod scrubbing;
#[cfg(feature = "shuttle")]
#[cfg(test)]
mod shuttle_tests;
mod stats;
mod steps;
mod store;
mod structure;
#[expect(clippy::module_inception, reason = "the tree is what this module is about")]
mod tree;
mod value;
mod verify;
mod version;

pub use action::{Action, DefaultMessageAction, MessageAction};
pub use diff::{Diff, Differing, Written};
pub use drops::{Dropping, Drops};
pub use error::TreeError;
pub use format::NodeRef;
pub(crate) use format::{NodeImage, SlotImage};
pub(crate) use inspection::{DropImage, DroppedImage, Versions, decode_drops, encode_drops};
pub use job::{Held, Job, JobQueue, Taken};
pub use memtable::Memtable;
pub use options::{MergePolicy, TreeOptions};
pub use part::{PartRead, ValuePart};
pub use part_request::{Begun, PartRequest};
pub use range::{Preferred, Range, View};
pub use relocate::{Migrated, Relocation};
pub use scrubbing::{Births, Found, NodeName, Place, Subject};
pub use stats::TreeStats;
pub use tree::{Captured, Tree, TreeParts};
pub use value::{Caching, LargeValue, Value};
pub use verify::Verified;
