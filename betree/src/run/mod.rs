//! Immutable sorted runs of messages.
//!
//! ```text
//!   RunWriter ──► extents:  │ block │ block │ … │ block │ meta: filter, index, range deletes │
//!                             ▲                              ▲
//!   RunRef (in a node header) ┼──────────────────────────────┘ place, length, checksum
//!                             └ index: place, length, checksum, separator of each block
//!
//!   Run  ── meta ──► cells ──► resident blocks          MergeCursor
//!    └ get: filter, index, cell, block                   ├ RunCursor (resident blocks, else windows read ahead)
//!                                                        └ any other EntryCursor
//! ```
//!
//! 1. Entries are ordered by key ascending, then sequence number descending; a key's versions may span blocks.
//! 2. Nothing is decoded before its checksum was compared, and nothing is used before it was checked in full, for a
//!    checksum may be right by chance or by intent. What was checked once is read by plain indexing.
//! 3. A run never changes after [`RunWriter::end`]; its reference changes only in its birth.
//! 4. The cells of a run's blocks live in its meta section; when the cache puts that out, the blocks go with it.
//! 5. A reader holds what it reads by reference count: eviction and the death of a run never pull anything away.
//!
//! Locks: none here but the cache's, which is taken with nothing else held.
//!
//! A run does not know who refers to it, when its extents die, what a value means, or which versions a reader may see.

mod block;
mod bounds;
mod cursor;
mod entry;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod inspection;
mod merge;
mod meta;
mod range_deletes;
#[expect(clippy::module_inception, reason = "the run is what this module is about")]
mod run;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod writer;

pub use cursor::{ReadMode, RunCursor};
pub use entry::{EntryCursor, EntryRef, Kind, RangeDelete};
pub use format::{KEY_BYTES_MAX, PAYLOAD_BYTES_MAX, RunRef};
pub(crate) use inspection::{BlockEntries, RunFault, RunFlaw, RunReader};
pub use merge::MergeCursor;
pub use range_deletes::{RangeDeleteSet, without_covered};
pub use run::{Run, Search, key_hash};
pub use writer::{HeatOfBlocks, PendingRun, RunOptions, RunWriter};
