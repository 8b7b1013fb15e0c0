//! The memtable of a dataset: the newest messages, in memory, in order.
//!
//! Messages are only added: a newer message for a key is another entry, and a view with an older sequence number finds what
//! it found before. One writer at a time adds (the log orders writes anyway; a second one would wait, not break
//! anything) and any number of readers look. A frozen memtable is one that nobody adds to any more.
//!
//! Locks: point messages and range deletes have one reader-writer lock each, none is held between two calls, and none while
//! the other is taken. A visitor runs under the read lock: it must not call into the same memtable, because a second read
//! lock may wait behind a writer that waits for the first.

use super::memtable_deletes::RangeDeletes;
use super::memtable_filter::Filter;
use super::memtable_index::{Index, Place, Target};
use crate::base::preference::StoragePreference;
use crate::base::sync::RwLock;
use crate::base::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::dmu::DmuError;
use crate::run::{EntryCursor, EntryRef, Kind, RangeDelete, key_hash};
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

/// Messages at which a memtable gets a filter: the walk down a smaller index is short, and many datasets may have one.
const ENTRIES_BEFORE_FILTER: u64 = 4096;

/// Messages of one dataset in order of key, newest first within a key.
#[derive(Debug)]
pub struct Memtable {
    index: RwLock<Index>,
    range_deletes: RwLock<RangeDeletes>,
    /// Of all keys with messages; made when it pays.
    filter: OnceLock<Filter>,
    entries: AtomicU64,
    range_delete_count: AtomicUsize,
    index_bytes: AtomicUsize,
    range_delete_bytes: AtomicUsize,
    large_bytes: AtomicU64,
    sequence_min: AtomicU64,
    sequence_max: AtomicU64,
}

impl Default for Memtable {
    fn default() -> Self {
        Self::new()
    }
}

impl Memtable {
    /// An empty memtable; it takes memory from the first message on.
    #[must_use]
    pub fn new() -> Self {
        Self {
            index: RwLock::new(Index::new()),
            range_deletes: RwLock::new(RangeDeletes::default()),
            filter: OnceLock::new(),
            entries: AtomicU64::new(0),
            range_delete_count: AtomicUsize::new(0),
            index_bytes: AtomicUsize::new(0),
            range_delete_bytes: AtomicUsize::new(0),
            large_bytes: AtomicU64::new(0),
            sequence_min: AtomicU64::new(u64::MAX),
            sequence_max: AtomicU64::new(0),
        }
    }

    /// Adds a message. Returns `false`, having done nothing, when its key has a message with its sequence already.
    ///
    /// # Panics
    /// When the key has 1 MiB or the payload 4 GiB: the layer above refuses far smaller ones.
    pub fn insert(&self, entry: EntryRef<'_>) -> bool {
        self.insert_large(entry, 0)
    }

    /// Adds a message that names `large_bytes` bytes of large values, or lets as many be freed. Returns as
    /// [`Memtable::insert`].
    ///
    /// # Panics
    /// As [`Memtable::insert`].
    pub fn insert_large(&self, entry: EntryRef<'_>, large_bytes: u64) -> bool {
        let mut index = self.index.write();
        if !index.insert(entry) {
            return false;
        }
        self.count_sequence(entry.sequence);
        if large_bytes > 0 {
            self.large_bytes.fetch_add(large_bytes, Ordering::Relaxed);
        }
        let entries = self.entries.load(Ordering::Relaxed) + 1;
        match self.filter.get() {
            Some(filter) => filter.add(key_hash(entry.key)),
            None if entries == ENTRIES_BEFORE_FILTER => self.make_filter(&index),
            None => {}
        }
        let filter_bytes = if self.filter.get().is_some() { Filter::BYTES } else { 0 };
        self.index_bytes.store(index.footprint() + filter_bytes, Ordering::Relaxed);
        // Stored, not added: the lock excludes other writers, and a locked addition costs more than all of this.
        // Release, so that who sees the count sees the sequences.
        self.entries.store(entries, Ordering::Release);
        true
    }

    /// Makes the filter of all that is there; readers use it from the moment it is complete.
    #[cold]
    fn make_filter(&self, index: &Index) {
        let filter = Filter::new();
        let mut place = index.locate(Target { key: &[], sequence: u64::MAX }, false);
        while let Some(entry) = index.entry(place) {
            filter.add(key_hash(entry.key));
            place = index.next(place);
        }
        self.filter.get_or_init(|| filter);
    }

    /// Whether there may be a message for a key with this [`key_hash`]. Says nothing about range deletes.
    #[inline]
    #[must_use]
    pub fn may_contain(&self, hash: u64) -> bool {
        self.filter.get().map_or_else(|| self.entries() > 0, |filter| filter.may_contain(hash))
    }

    /// Adds a range delete; one whose end is not after its start covers nothing and is left out.
    pub fn range_delete(&self, range: RangeDelete) {
        if range.end.as_deref().is_some_and(|end| end <= &*range.start) {
            return;
        }
        let sequence = range.sequence;
        let mut deletes = self.range_deletes.write();
        deletes.insert(range);
        self.count_sequence(sequence);
        self.range_delete_bytes.store(deletes.footprint(), Ordering::Relaxed);
        // Release, so that who sees the count and takes the lock sees the range delete.
        self.range_delete_count.fetch_add(1, Ordering::Release);
    }

    fn count_sequence(&self, sequence: u64) {
        if sequence < self.sequence_min.load(Ordering::Relaxed) {
            self.sequence_min.fetch_min(sequence, Ordering::Relaxed);
        }
        if sequence > self.sequence_max.load(Ordering::Relaxed) {
            self.sequence_max.fetch_max(sequence, Ordering::Relaxed);
        }
    }

    /// Bytes of memory allocated: whole chunks and nodes, not only what is used of them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.index_bytes.load(Ordering::Relaxed) + self.range_delete_bytes.load(Ordering::Relaxed)
    }

    /// Sum of what [`Memtable::insert_large`] was told.
    #[must_use]
    pub fn large_bytes(&self) -> u64 {
        self.large_bytes.load(Ordering::Relaxed)
    }

    /// Number of messages without the range deletes.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Acquire)
    }

    /// Number of range deletes.
    #[must_use]
    pub fn range_delete_count(&self) -> usize {
        self.range_delete_count.load(Ordering::Acquire)
    }

    /// Whether there is neither a message nor a range delete.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries() == 0 && self.range_delete_count() == 0
    }

    /// The smallest sequence of all messages and range deletes; `None` when there are none.
    #[must_use]
    pub fn min_sequence(&self) -> Option<u64> {
        (!self.is_empty()).then(|| self.sequence_min.load(Ordering::Relaxed))
    }

    /// The largest sequence of all messages and range deletes; `None` when there are none.
    #[must_use]
    pub fn max_sequence(&self) -> Option<u64> {
        (!self.is_empty()).then(|| self.sequence_max.load(Ordering::Relaxed))
    }

    /// Shows the messages of `key` up to `max_sequence` to `visit`, newest first, until it breaks. Range deletes are not
    /// applied. `visit` must not call into this memtable.
    pub fn get(
        &self,
        key: &[u8],
        max_sequence: u64,
        visit: &mut impl FnMut(EntryRef<'_>) -> ControlFlow<()>,
    ) {
        let index = self.index.read();
        let mut place = index.locate(Target { key, sequence: max_sequence }, false);
        while let Some(entry) = index.entry(place)
            && entry.key == key
            && visit(entry).is_continue()
        {
            place = index.next(place);
        }
    }

    /// The newest sequence, at most `max_sequence`, of a range delete that covers `key`. One atomic load when the memtable
    /// has no range deletes.
    #[must_use]
    pub fn covering_range_delete(&self, key: &[u8], max_sequence: u64) -> Option<u64> {
        if self.range_delete_count() == 0 {
            return None;
        }
        self.range_deletes.read().covering(key, max_sequence)
    }

    /// Whether there are range deletes.
    #[must_use]
    pub fn has_range_deletes(&self) -> bool {
        self.range_delete_count() > 0
    }

    /// Copies of the range deletes up to `max_sequence`, by start, and newest first where starts are equal.
    #[must_use]
    pub fn range_deletes(&self, max_sequence: u64) -> Vec<RangeDelete> {
        if self.range_delete_count() == 0 {
            return Vec::new();
        }
        self.range_deletes.read().sorted(max_sequence)
    }

    /// Shows all messages with keys from `from` (`None`: the first) to before `to` (`None`: to the end) to `visit` in
    /// order, until it breaks. The read lock is held throughout: this is for frozen memtables, a writer would wait.
    /// `visit` must not call into this memtable.
    ///
    /// # Errors
    /// The first error of `visit`, at once.
    pub fn for_each<E>(
        &self,
        from: Option<&[u8]>,
        to: Option<&[u8]>,
        visit: &mut impl FnMut(EntryRef<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        if let (Some(from), Some(to)) = (from, to)
            && to <= from
        {
            return Ok(());
        }
        let index = self.index.read();
        let start_of = |key| index.locate(Target { key, sequence: u64::MAX }, false);
        let mut place = from.map_or_else(|| index.first(), start_of);
        let end = to.map_or_else(|| index.end(), start_of);
        while place != end
            && let Some(entry) = index.entry(place)
        {
            if visit(entry)?.is_break() {
                break;
            }
            place = index.next(place);
        }
        Ok(())
    }
}

/// Entries that the first load of a cursor copies; later loads in the same direction double it.
const BATCH_FIRST: usize = 8;
/// Entries that a load copies at most.
const BATCH_LAST: usize = 64;
/// A load that has copied so many bytes ends.
const BATCH_BYTES: usize = 128 << 10;
/// Entries that a load looks at before it lets go of the lock, although all were too new.
const LOOK_MAX: usize = 4096;
/// Versions of one key that are too new and are stepped over one by one before the cursor searches for the end of them.
const STEP_MAX: usize = 8;

#[derive(Debug, Clone, Copy)]
struct Copied {
    start: usize,
    key_len: usize,
    payload_len: usize,
    sequence: u64,
    kind: Kind,
    preference: StoragePreference,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// Where a load starts, relative to the key and sequence that the cursor remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    At,
    After,
    Before,
    AtOrBefore,
    End,
}

/// A cursor over a memtable that shows messages up to a sequence number; those that are added behind its back have larger ones
/// and stay hidden. It copies a few entries at a time and holds no lock between calls.
#[derive(Debug)]
pub struct MemtableCursor {
    table: Arc<Memtable>,
    max_sequence: u64,
    /// Copied entries in order; the position is `copied[at]`, none when `at` is past the last.
    copied: Vec<Copied>,
    at: usize,
    bytes: Vec<u8>,
    batch: usize,
    direction: Direction,
    /// The entry from which the next load goes on.
    key: Vec<u8>,
    sequence: u64,
}

impl MemtableCursor {
    /// A cursor that is not positioned and shows no message newer than `max_sequence`.
    #[must_use]
    pub fn new(table: Arc<Memtable>, max_sequence: u64) -> Self {
        Self {
            table,
            max_sequence,
            copied: Vec::new(),
            at: 0,
            bytes: Vec::new(),
            batch: BATCH_FIRST,
            direction: Direction::Forward,
            key: Vec::new(),
            sequence: 0,
        }
    }

    fn start(&mut self, key: &[u8], direction: Direction) {
        self.key.clear();
        self.key.extend_from_slice(key);
        self.sequence = u64::MAX;
        self.batch = BATCH_FIRST;
        self.direction = direction;
    }

    /// Goes on from the copied entry `number` in `direction`.
    fn go_on(&mut self, number: usize, direction: Direction) {
        let entry = self.copied[number];
        self.key.clear();
        self.key.extend_from_slice(&self.bytes[entry.start..entry.start + entry.key_len]);
        self.sequence = entry.sequence;
        self.batch = if direction == self.direction { (2 * self.batch).min(BATCH_LAST) } else { BATCH_FIRST };
        self.direction = direction;
        match direction {
            Direction::Forward => self.load(From::After),
            Direction::Backward => self.load(From::Before),
        }
    }

    /// Replaces the copied entries by those from `from` on, in order of the keys, and moves to the one nearest to `from`.
    fn load(&mut self, mut from: From) {
        self.copied.clear();
        self.bytes.clear();
        while self.copied.is_empty() && self.load_some(from) {
            from = if self.direction == Direction::Forward { From::At } else { From::AtOrBefore };
        }
        if self.direction == Direction::Backward {
            self.copied.reverse();
        }
        self.at = if self.direction == Direction::Backward { self.copied.len().saturating_sub(1) } else { 0 };
    }

    /// One turn under the read lock. Returns whether there may be more; the cursor then
    /// remembers the entry to go on with.
    fn load_some(&mut self, from: From) -> bool {
        let index = self.table.index.read();
        let target = Target { key: &self.key, sequence: self.sequence };
        let mut place = match from {
            From::At => index.locate(target, false),
            From::After => index.locate(target, true),
            From::Before => index.previous(index.locate(target, false)),
            From::AtOrBefore => index.previous(index.locate(target, true)),
            From::End => index.previous(index.end()),
        };
        let step = |place: Place| match self.direction {
            Direction::Forward => index.next(place),
            Direction::Backward => index.previous(place),
        };
        let mut too_new = 0;
        for _ in 0..LOOK_MAX {
            let Some(entry) = index.entry(place) else { return false };
            if entry.sequence <= self.max_sequence {
                too_new = 0;
                let start = self.bytes.len();
                self.bytes.extend_from_slice(entry.key);
                self.bytes.extend_from_slice(entry.payload);
                self.copied.push(Copied {
                    start,
                    key_len: entry.key.len(),
                    payload_len: entry.payload.len(),
                    sequence: entry.sequence,
                    kind: entry.kind,
                    preference: entry.preference,
                });
                if self.copied.len() >= self.batch || self.bytes.len() >= BATCH_BYTES {
                    return true;
                }
            } else {
                too_new += 1;
                if too_new >= STEP_MAX {
                    too_new = 0;
                    // The newest messages of a key come first: everything visible of it is behind them.
                    let key = entry.key;
                    place = match self.direction {
                        Direction::Forward => {
                            index.locate(Target { key, sequence: self.max_sequence }, false)
                        }
                        Direction::Backward => {
                            index.previous(index.locate(Target { key, sequence: u64::MAX }, false))
                        }
                    };
                    continue;
                }
            }
            place = step(place);
        }
        // Long enough under the lock; with nothing copied yet, the next turn goes on at this entry.
        let Some(entry) = index.entry(place) else { return false };
        self.sequence = entry.sequence;
        self.key.clear();
        self.key.extend_from_slice(entry.key);
        true
    }
}

impl EntryCursor for MemtableCursor {
    fn seek(&mut self, key: &[u8]) -> Result<(), DmuError> {
        self.start(key, Direction::Forward);
        self.load(From::At);
        Ok(())
    }

    fn seek_before(&mut self, key: Option<&[u8]>) -> Result<(), DmuError> {
        self.start(key.unwrap_or_default(), Direction::Backward);
        self.load(if key.is_some() { From::Before } else { From::End });
        Ok(())
    }

    fn next(&mut self) -> Result<(), DmuError> {
        if self.at + 1 < self.copied.len() {
            self.at += 1;
        } else if self.at < self.copied.len() {
            self.go_on(self.at, Direction::Forward);
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<(), DmuError> {
        if self.at > 0 && self.at < self.copied.len() {
            self.at -= 1;
        } else if self.at < self.copied.len() {
            self.go_on(0, Direction::Backward);
        }
        Ok(())
    }

    fn entry(&self) -> Option<EntryRef<'_>> {
        let entry = self.copied.get(self.at)?;
        let (key, rest) = self.bytes[entry.start..].split_at(entry.key_len);
        Some(EntryRef {
            key,
            sequence: entry.sequence,
            kind: entry.kind,
            preference: entry.preference,
            payload: &rest[..entry.payload_len],
        })
    }
}

#[cfg(test)]
#[path = "memtable_tests.rs"]
mod tests;
