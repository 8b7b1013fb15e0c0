//! Snapshots, clones, and what keeps their space.
//!
//! ```text
//!   root tree:   snapshot record (dataset, generation) ─► root of a tree, shared with the head
//!                name (dataset, name) ─► generation
//!                dead list of snapshot P = reached by P, not by what follows it
//!                  └ sub-list per interval of birth ─► tail, parts ─► chunks in extents of their own
//!                condemned: sub-lists of deleted snapshots, being freed
//!
//!      dataset   P ───────── S ───────── N ───────── head
//!      lists      └ list(P) ┘ └ list(S) ┘ └ list(N) ┘
//! ```
//!
//! A snapshot is a checkpoint with a name: its record points to the root that the checkpoint wrote, and from the capture on,
//! what dies and was born up to it stays allocated and is listed. Making one costs the same whatever the dataset holds.
//! Deleting one frees the sub-lists of the list behind it that were born after the snapshot before, joins the rest to the list
//! before, and looks at nothing else.
//!
//! A clone is a dataset whose record points to the root of a snapshot, its *origin*. What it drops of that goes into a list
//! of its own, which is thrown away with it, or becomes the list of the snapshot when the clone is promoted.
//!
//! # Rooms
//!
//! | file | subject |
//! |---|---|
//! | `format` | keys, records and chunks |
//! | `lineage` | in what order the snapshots of a dataset stand, and what it was cloned from |
//! | `edits` | changes of the root tree that belong to one checkpoint |
//! | `dead_lists` | listing, joining, freeing |
//! | `change` | what callers want, from the check to the durable checkpoint |
//! | `handle` | an open snapshot; what the list of snapshots says |
//! | `diff` | what changed from one snapshot to another, or to the head |
//! | `takeover` | a staging of what is received becomes a dataset |
//! | `retention` | which snapshots stay when old ones are thinned out |
//!
//! # Invariants
//!
//! * **S1 Exact lists.** The list of P is exactly what P reaches and its successor (the next snapshot, or the head with what it
//!   has pending) does not, each extent once.
//! * **S2 Intervals.** A sub-list holds births of one interval: no snapshot of the dataset or of its ancestors lies inside.
//!   Snapshots only come behind all births listed, and leave, so that this stays true without a sub-list being read.
//! * **S3 One checkpoint.** A change is all in one checkpoint or not there. What it frees is freed by later ones, a step in
//!   each, from lists that say exactly what is left.
//!   The log says behind it that it is durable, so that an older checkpoint is not opened with what builds on it.
//! * **S4 Readers.** What snapshots gave back is used again only when everybody is gone who took a state of before: each
//!   version of a tree holds its *era*, and what is freed is hung on the eras of then.
//! * **S5 Who frees.** An extent is freed by the dataset in whose order its last snapshot stands: a clone never frees what was
//!   born up to its origin, and a head that went back to a snapshot never what was born up to that.
//!
//! # What it does not do
//!
//! It does not send and receive (`replication`): that reads snapshots, and writes datasets that take their places here.

mod change;
mod dead_lists;
mod diff;
mod edits;
pub(super) mod format;
mod handle;
mod lineage;
mod retention;
mod takeover;

pub(super) use change::{Change, Identity, Plan};
pub(super) use dead_lists::{listed_chunks, listed_extents};
pub use diff::{Difference, Differences};
pub(super) use edits::RootEdits;
pub(super) use format::SNAPSHOT_NAME_BYTES_MAX;
pub use handle::{Snapshot, SnapshotInfo};
pub(super) use handle::{Snapshots, snapshot_generations, snapshot_records};
pub(super) use lineage::Lineage;
pub(crate) use lineage::Origin;
pub use retention::{KeepReason, Retention};
pub(super) use takeover::{Place, Staging, Takeover};
