//! Immutable sorted runs of messages.

mod entry;

pub use entry::{EntryCursor, EntryRef, Kind, RangeDelete};
