//! The intent log: what was promised since the last checkpoint.
//!
//! Every batch is one record. Records are bytes of one stream per *epoch* (one read-write open of the pool); the
//! stream is cut into frames, and frames fill extents:
//!
//! ```text
//!   records   [len|batch][len|batch  ][len|ba│tch ][len|batch]          a byte stream; lsn = position in it
//!   frames    ┌header│payload──────────pad┐┌header│payload─────────┐     whole 4 KiB blocks, written once
//!   extents   ├── frame ──┼─ frame ─┼─ fr ─┤├─ frame ─┼── …               filled to the end exactly, one vdev each
//!                                    names ──▲
//! ```
//!
//! An append copies into the open frame. A full frame goes to a background writer; [`Log::sync`] seals the open frame,
//! writes it, flushes, and returns all callers that the flush covers (group commit after DeWitt et al., *Implementation
//! Techniques for Main Memory Database Systems*, SIGMOD 1984, section 5; the caller who finds no leader leads, in its
//! own thread, as in the write groups of LevelDB and RocksDB).
//!
//! # Invariants
//! * **L1** No block is written twice in the life of its extent: a torn write can only hurt records that nobody was
//!   promised.
//! * **L2** A frame is valid only with the pool, the epoch, its own place, its position in the stream and the checksum
//!   of the frame before. Frames of earlier epochs and copies elsewhere are never taken.
//! * **L3** Every frame names the extent after its own, which is allocated before the frame is made: allocation never
//!   happens in the middle of a record, and running out of space leaves the log as it was.
//! * **L4** `durable_lsn` is raised only after the devices with the large values that records before it name, and then
//!   the log's, were flushed. It is in every later frame: a bad frame below it is damage, above it is the tail.
//! * **L5** After the first failed write or flush nothing more is appended or acknowledged. Nothing is retried.
//! * **L6** An extent is given back only when every frame in it was written, so that no late write hits a new owner.
//!
//! # Locks
//! One mutex over the state (`Shared::state`), never held during device I/O by [`Log::sync`], [`Log::cut`],
//! [`Log::release_before`] and the background writer; without background writer [`Log::append`] writes under it. Below
//! it only the allocator's locks are taken. At most one thread *leads* (writes, flushes, or releases) beside the
//! background writer.
//!
//! # What it does not do
//! It knows neither what a record says nor when to checkpoint. It does not order appends against memtables: the commit
//! lock above does. Damage that takes all evidence with it cannot be told from the tail: of the very last synced frames,
//! which no later frame vouches for, and of every frame of an extent at once, which alone named the extent after it;
//! unless the superblock holds a newer `durable_lsn` (see [`LogHead::durable_lsn`]).

mod error;
mod format;
mod frames;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod inspection;
mod replay;
mod writer;

#[cfg(feature = "shuttle")]
#[cfg(test)]
mod shuttle_tests;
#[cfg(test)]
mod tests;

pub use error::LogError;
pub use format::LogHead;
pub(crate) use inspection::{LogReading, read_log};
pub use replay::{CutReason, ReplayEnd, Verdict, extents_from, records_before, replay};
pub use writer::{Log, LogOptions, RECORD_BYTES_MAX};
