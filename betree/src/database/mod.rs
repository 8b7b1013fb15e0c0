//! The database: datasets on trees, one log, checkpoints.
//!
//! ```text
//!   Database ─ Dataset ─ Batch ─ DatabaseView          handles; the last one closes the database
//!        │
//!   ┌────▼──────────────────────── Core ─────────────────────────────┐
//!   │ admission    is there room, until it is in the leaves?         │
//!   │ pacing       are the flushes keeping up?                       │
//!   │ commit lock  sequence numbers → log record → memtables → visible
//!   │ catalog      name ─ id ─ tree                                  │
//!   │ checkpoint   cut → flush → headers → root tree → bitmaps → superblock
//!   │ workers      flush, merge, split, free; checkpoint; sync       │
//!   └───┬───────────────────┬──────────────────────┬─────────────────┘
//!    trees, one per        the log              root tree: dataset id → record, pending drops
//!    dataset
//! ```
//!
//! A *write* reserves its space, is delayed when flushes fall behind, and then under the commit lock gets its sequence
//! numbers, is appended to the log and put into memtables; one number, `visible`, tells readers how far they may look. A
//! *sync* flushes the log and writes no tree. A *checkpoint* fixes a cut under the same lock and writes what is at or below
//! it, while writers go on above it. *Opening* loads the newest checkpoint, replays the log behind its cut, and writes a
//! checkpoint before it takes the first write.
//!
//! Two datasets of one name may be a *pair*: created, renamed, destroyed, captured and rolled back at one instant, and listed
//! by nobody but the layer above, whose object stores they are.
//!
//! # Invariants
//!
//! * **B1 One order.** A batch is one log record and one range of sequence numbers. Log order, order in the memtables and
//!   order of visibility are the same; creating, renaming and destroying datasets stand in it too.
//! * **B2 All or nothing.** A memtable is never frozen inside of a batch, `visible` never stands inside of one, and a
//!   record is replayed whole or not at all.
//! * **B3 The cut.** Checkpoint g holds exactly the messages up to its cut, of every dataset; the superblock names the cut,
//!   and replay applies exactly what is above it. Nothing is applied twice, which matters for upserts.
//! * **B4 Data before pointers.** A large value is on its device before the log says that its record is durable, and
//!   everything that a superblock reaches is flushed before the superblock is written.
//! * **B5 Refused before changed.** What can fail for want of space fails before the log record is appended. Behind that
//!   nothing fails but devices, and what fails there latches.
//! * **B6 The first failure stays.** After a failed write, flush, checkpoint or worker nothing is acknowledged any more
//!   until the database is opened anew. Only a lack of space is not such a failure: it changes nothing and may pass.
//! * **B7 Generations and epochs only go up.** A new generation is above all that any superblock, label or allocation table
//!   names; the epoch of a log is the generation that was open when it was started.
//! * **B8 Replay is followed by a checkpoint.** Nothing is appended to a new log while the old one is needed; its extents
//!   are kept until no superblock that may be chosen starts there.
//! * **B9 Readers change nothing.** A database that is open for reading replays the log into memory and writes no byte.
//! * **B10 A destroyed dataset** loses its name at once and its space in bounded steps, each in the same checkpoint as the
//!   change of the list that it is on. Who holds a view still reads it.
//! * **B11 Nothing after the last cut.** Closing refuses writes first, under the commit lock, and then cuts.
//!
//! # Locks
//!
//! Checkpointer → commit → the lineage of a dataset (its snapshots) → catalog → the locks of a tree (see [`crate::tree`]) →
//! those of the log → those of data management. One lineage at a time, but that a checkpoint may read others under one. Readers take the catalog's lock to open a dataset, and none to read. Destroying a dataset takes the
//! checkpointer's lock, because a checkpoint that is being written still contains it.
//!
//! # What it does not do
//!
//! No policies of migration. No transactions that read: a batch writes blindly,
//! and two writers of one key need an agreement of their own.

mod admission;
mod batch;
mod catalog;
mod checkpoint;
mod commit;
mod configuration;
mod core;
#[expect(clippy::module_inception, reason = "the database is what this module is about")]
mod database;
mod dataset;
mod devices;
mod durability;
mod error;
mod evacuation;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod large;
mod limits;
mod metrics;
mod naming;
mod pacing;
mod pair;
mod read_queue;
mod record;
mod recovery;
mod relocation;
mod replication;
mod scrub;
#[cfg(feature = "shuttle")]
#[cfg(test)]
mod shuttle_tests;
mod snapshots;
mod verify;
mod view;
mod worker;
mod writers;

pub use crate::pool::ConfigurationError;
pub use batch::Batch;
pub use configuration::{
    AccessMode, DatabaseConfiguration, DatasetConfiguration, LfuConfig, LfuMode, MetricsConfiguration,
    MigrationConfig, MigrationPolicies, RlConfig,
};
pub use database::{Database, StorageInfo};
pub use dataset::Dataset;
pub(crate) use dataset::{known_action, prefix_bounds};
pub use durability::Durability;
pub use error::{Error, ErrorKind, Result};
#[cfg(test)]
pub(crate) use evacuation::testing as evacuation_testing;
pub(crate) use evacuation::{EVACUATIONS, EvacuationRecord, evacuation_key};
pub use evacuation::{EvacuationState, EvacuationStatus};
pub(crate) use format::{
    DATASETS, DROPS, DatasetRecord, NAME_BYTES_MAX, Role, RootRecord, dataset_key, drops_key, key_dataset,
};
pub(crate) use limits::check_length;
pub use limits::{BATCH_BYTES_MAX, KEY_BYTES_MAX, MESSAGE_BYTES_MAX, VALUE_BYTES_MAX};
pub use metrics::Metrics;
pub(crate) use pair::{Pair, PairChange, PairWrite, Side};
pub use read_queue::{ArrivedRead, BegunRead, ReadQueue};
pub(crate) use record::{Operation, RecordReader};
pub(crate) use recovery::{Amends, Opening, dmu_options};
#[cfg(test)]
pub(crate) use replication::Receiving;
pub use replication::{
    ReceiveOptions, ReceiveReport, Received, ResumeToken, SendOptions, SendReport, StreamError, StreamInfo,
    StreamKind, StreamPart, Unfinished,
};
pub(crate) use replication::{SendSection, StoreCare, StoreTurn, TakeOver};
pub use scrub::{ResilverStatus, ScrubFinding, ScrubState, ScrubStatus};
pub(crate) use scrub::{SCRUBS, ScrubRecord, scrub_key};
#[cfg(test)]
pub(crate) use snapshots::Origin;
pub(crate) use snapshots::format::{
    CHUNKS, CONDEMNED, ChunkRecord, DEAD_LISTS, DeadEntry, SNAPSHOT_NAMES, SNAPSHOTS, SnapshotRecord,
    SubList, decode_chunk, key_chunk, key_dead_list, key_snapshot,
};
#[cfg(test)]
pub(crate) use snapshots::format::{Part as ListPart, chunk_key, dead_list_key, snapshot_name_key};
pub use snapshots::{Difference, Differences, KeepReason, Retention, Snapshot, SnapshotInfo};
pub use verify::VerifyReport;
pub(crate) use view::PendingReadAhead;
pub use view::{DatabaseView, DatasetView, Entries};
