//! What runs and memtables hold: messages for keys, range deletes, and the cursor over either.

use crate::base::preference::StoragePreference;
use crate::dmu::DmuError;

/// What a message does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The key has this value.
    Put = 0,
    /// The key has no value.
    Delete = 1,
    /// The dataset's `MessageAction` changes the value; the payload is its message.
    Upsert = 2,
    /// The key has a value in extents of its own; the payload is an encoded large-value pointer.
    PutLarge = 3,
}

impl Kind {
    /// Reads a stored number.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Put),
            1 => Some(Self::Delete),
            2 => Some(Self::Upsert),
            3 => Some(Self::PutLarge),
            _ => None,
        }
    }
}

/// One message, borrowed from where it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// The key; may be empty.
    pub key: &'a [u8],
    /// Database-wide sequence number; unique per key.
    pub sequence: u64,
    /// What the message does.
    pub kind: Kind,
    /// Where the writer wants it.
    pub preference: StoragePreference,
    /// Value, upsert message or encoded pointer; empty for a delete.
    pub payload: &'a [u8],
}

/// A message that deletes every key in `start..end` that was written before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeDelete {
    /// First key.
    pub start: Box<[u8]>,
    /// The key after the last one; `None`: no upper bound.
    pub end: Option<Box<[u8]>>,
    /// Database-wide sequence number.
    pub sequence: u64,
}

impl RangeDelete {
    /// Whether `key` is in the range.
    #[must_use]
    pub fn covers(&self, key: &[u8]) -> bool {
        *self.start <= *key && self.end.as_deref().is_none_or(|end| key < end)
    }
}

/// A position in a sorted sequence of messages: ascending by key, and newest (highest sequence) first within a key.
///
/// A new cursor is not positioned: [`EntryCursor::entry`] is `None` until a seek.
pub trait EntryCursor: Send {
    /// Moves to the first entry whose key is at least `key`.
    ///
    /// # Errors
    /// Device errors and damage; the position is then none.
    fn seek(&mut self, key: &[u8]) -> Result<(), DmuError>;

    /// Moves to the last entry whose key is less than `key`; `None`: to the last entry.
    ///
    /// # Errors
    /// As [`EntryCursor::seek`].
    fn seek_before(&mut self, key: Option<&[u8]>) -> Result<(), DmuError>;

    /// Moves to the following entry; stays at none when there is none.
    ///
    /// # Errors
    /// As [`EntryCursor::seek`].
    fn next(&mut self) -> Result<(), DmuError>;

    /// Moves to the entry before; the exact reverse of [`EntryCursor::next`].
    ///
    /// # Errors
    /// As [`EntryCursor::seek`].
    fn prev(&mut self) -> Result<(), DmuError>;

    /// The entry at the position.
    fn entry(&self) -> Option<EntryRef<'_>>;
}
