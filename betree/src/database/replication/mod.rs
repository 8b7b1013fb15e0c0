//! Sending snapshots as streams of bytes, and making snapshots of such streams.
//!
//! ```text
//!   Snapshot ─ diff to the one before ─▶ sender ─▶ header, frames, digest ─▶ reader ─▶ receiver ─▶ staging
//!                                                                                                 │ the digest is right
//!                                                              dataset, with the snapshot on it ◀─┘ one checkpoint
//! ```
//!
//! A *stream* holds one snapshot of one dataset or object store, or of several that were made at one instant: whole, or what has to
//! be done to the snapshot before to make this one of it. It has a *section* for each dataset, and two that follow each other for
//! an object store, which is two datasets. It says nothing of blocks, nodes or tiers, so that any pool takes it.
//! A snapshot has the same *guid* in every pool that it came to: changes are taken only by a dataset whose newest snapshot
//! has the guid that they start from.
//!
//! What is received goes into a *staging*: a dataset that nobody can open, empty or a clone of the snapshot that the changes
//! start from. Its record says how far the stream was read, so that receiving goes on there after any interruption. When
//! the stream is there to its end and its digest is right, the staging gets the snapshot, and then one checkpoint lets it
//! take the place of the dataset (`snapshots/takeover.rs`) or gives it its name.
//!
//! # Rooms
//!
//! | file | subject |
//! |---|---|
//! | `error` | what is wrong with a stream, or keeps it from being received |
//! | `format` | the stream, the state of a staging |
//! | `token` | where a stream goes on, as text |
//! | `sender` | from snapshots to bytes |
//! | `reader` | from bytes to frames that are what was sent |
//! | `staging` | datasets that are not there yet |
//! | `receiver` | from frames to datasets |
//!
//! # Invariants
//!
//! * **W1 All or nothing.** A dataset changes when its stream is there to the end, every frame follows on the one before, and
//!   the digest is right; and then all datasets of the stream do, with their snapshots, in one checkpoint.
//! * **W2 The right base.** Changes are applied to the very snapshot that they start from: its guid is that in the stream.
//! * **W3 Nothing is lost unasked.** What was written to a dataset since the snapshot that changes start from is lost only
//!   with `force`.
//! * **W4 No step back.** What a staging says was read has been applied; applying more of the same stream again is harmless.
//!
//! # What it does not do
//!
//! It does not move bytes over a network, does not encrypt, and does not say who sent them.

mod error;
pub(super) mod format;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod reader;
mod receiver;
mod sender;
mod staging;
mod token;

pub use error::StreamError;
pub(crate) use format::Receiving;
pub use receiver::{ReceiveOptions, ReceiveReport, Received, StreamInfo, StreamKind, StreamPart};
pub(crate) use receiver::{StoreCare, StoreTurn, TakeOver};
pub(crate) use sender::SendSection;
pub use sender::{SendOptions, SendReport};
pub(super) use staging::Receives;
pub use staging::Unfinished;
pub use token::ResumeToken;
