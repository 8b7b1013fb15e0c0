//! Relocation: the entries of a range of keys move to another tier.
//!
//! It is no message. Large values that lie elsewhere are copied; then their leaf is merged, as any other merge does it,
//! with pointers to the copies in place of those to the values, and with what else is in the range going into the run of
//! the other tier. Keys and sequence numbers stay. A copy whose value was dropped or folded meanwhile is given back, and
//! what is replaced leaves the tree as everything does that a merge drops. So each moment is one of the tree before or after
//! an ordinary merge, to a crash as to a reader.

use super::compact::Folding;
use super::flush::merge_cursor;
use super::memtable::MemtableCursor;
use super::tree::Path;
use super::value::{Caching, LargeValue};
use super::{Tree, TreeError};
use crate::base::extent::Extent;
use crate::base::ids::Generation;
use crate::base::preference::StoragePreference;
use crate::dmu::{Dmu, OwnedExtents, Privilege};
use crate::run::{EntryCursor, EntryRef, Kind, Run};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Bytes of values that are copied before the leaf is merged: what is written a second time when a checkpoint comes between,
/// and the space that a move takes beside what it moves.
const COPY_BYTES_MAX: u64 = 64 << 20;

/// How often a leaf is tried again at once when it was split meanwhile, or a checkpoint was faster.
const ATTEMPTS_MAX: usize = 16;

/// What was moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Keys with a value that lay elsewhere.
    pub entries: u64,
    /// Bytes of these values.
    pub bytes: u64,
}

/// A copy of a large value.
#[derive(Debug)]
pub(super) struct Copied {
    pub pointer: LargeValue,
    pub space: Arc<OwnedExtents>,
}

/// A range of keys, and where it is to be.
#[derive(Debug)]
pub struct Relocation {
    low: Vec<u8>,
    high: Option<Vec<u8>>,
    preference: StoragePreference,
    class: u8,
    /// By the first extent and the birth of the value.
    copies: HashMap<(Extent, Generation), Copied>,
    /// First extents of the values that were moved. Where they lie may be as good as any other place: in memory are only
    /// copies, and a tier may be full by now.
    moved: HashSet<Extent>,
}

impl Relocation {
    /// The keys from `low` to `high` (exclusive; `None`: the end) in `tree` go where `preference` says.
    #[must_use]
    pub fn new(tree: &Tree, low: Vec<u8>, high: Option<Vec<u8>>, preference: StoragePreference) -> Self {
        let class = tree.dmu.class_of(preference.or(tree.options.preference));
        Self { low, high, preference, class, copies: HashMap::new(), moved: HashSet::new() }
    }

    /// Where the entries want to be afterwards.
    pub(super) fn preference(&self) -> StoragePreference {
        self.preference
    }

    /// The class that this comes to.
    #[must_use]
    pub fn class(&self) -> u8 {
        self.class
    }

    pub(super) fn covers(&self, key: &[u8]) -> bool {
        *self.low <= *key && self.high.as_deref().is_none_or(|high| key < high)
    }

    /// Whether keys from `low` on are in the range.
    #[must_use]
    pub fn reaches(&self, low: &[u8]) -> bool {
        self.high.as_deref().is_none_or(|high| low < high)
    }

    /// The copy of `value`, if one was made.
    pub(super) fn copy_of(&self, value: &LargeValue) -> Option<&Copied> {
        self.copies.get(&(*value.extents.first()?, value.birth))
    }

    /// Whether `value` lies where it is to be.
    pub(super) fn is_home(&self, value: &LargeValue, dmu: &Dmu) -> bool {
        let was_moved = value.extents.first().is_some_and(|first| self.moved.contains(first));
        was_moved || dmu.is_home(&value.extents, self.class)
    }

    /// Whether a message is in a run of another tier than it is to be.
    pub(super) fn displaces(&self, entry: &EntryRef<'_>, dmu: &Dmu, usual: StoragePreference) -> bool {
        dmu.class_of(entry.preference.or(usual)) != self.class
    }
}

/// What of a leaf lies elsewhere.
#[derive(Debug, Default)]
struct Displaced {
    values: Vec<LargeValue>,
    /// Bytes of messages.
    bytes: u64,
    /// A run of the right class was written elsewhere, for want of space.
    runs: bool,
}

impl Tree {
    /// Whether a memtable holds a message for a key of the range.
    ///
    /// # Errors
    /// None today.
    pub fn is_in_memory(&self, relocation: &Relocation) -> Result<bool, TreeError> {
        for table in self.version.load_full().tables() {
            let mut cursor = MemtableCursor::new(Arc::clone(&table.memtable), u64::MAX);
            cursor.seek(&relocation.low)?;
            if cursor.entry().is_some_and(|entry| relocation.covers(entry.key)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Pushes the messages for the range that are in buffers down to their leaves, and returns how many bytes lie
    /// elsewhere. The workers are held back.
    ///
    /// # Errors
    /// Out of space, device errors.
    pub fn gather(&self, relocation: &Relocation) -> Result<u64, TreeError> {
        let (mut low, mut bytes) = (Some(relocation.low.clone()), 0);
        while let Some(from) = low.filter(|from| *from == relocation.low || relocation.covers(from)) {
            for level in (2..=self.version.load().root.level()).rev() {
                // A checkpoint that comes between leaves the buffer to another attempt.
                for _ in 0..ATTEMPTS_MAX {
                    self.empty_buffer(level, &from)?;
                    let path = self.locate(&self.version.load_full().root, level, &from)?;
                    if path.is_none_or(|path| path.slot().runs.is_empty()) {
                        break;
                    }
                }
            }
            let version = self.version.load_full();
            let Some(path) = self.locate(&version.root, 1, &from)? else { break };
            let displaced = self.displaced(&path, relocation)?;
            bytes += displaced.bytes + displaced.values.iter().map(LargeValue::stored_bytes).sum::<u64>();
            low = path.slot_high().map(<[u8]>::to_vec);
        }
        Ok(bytes)
    }

    /// What of the leaf at the end of `path` lies elsewhere.
    fn displaced(&self, path: &Path, relocation: &Relocation) -> Result<Displaced, TreeError> {
        let slot = path.slot();
        let mut found = Displaced::default();
        let class = |run: &Run| self.dmu.class_of(run.reference().preference);
        let astray = |run: &Arc<Run>| {
            class(run) == relocation.class && !self.dmu.is_home(run.space().extents(), relocation.class)
        };
        let in_range = |run: &Arc<Run>| run.reference().overlaps(&relocation.low, relocation.high.as_deref());
        found.runs = slot.runs.iter().any(|run| in_range(run) && astray(run));
        let mut cursor = merge_cursor(&slot.runs);
        cursor.seek(&relocation.low)?;
        let (mut key, mut settled) = (None::<Vec<u8>>, false);
        while let Some(entry) = cursor.entry().filter(|entry| relocation.covers(entry.key)) {
            if key.as_deref() != Some(entry.key) {
                key = Some(entry.key.to_vec());
                settled = false;
            }
            if !settled {
                settled = entry.kind != Kind::Upsert;
                if relocation.displaces(&entry, &self.dmu, self.options.preference) {
                    found.bytes += (entry.key.len() + entry.payload.len()) as u64;
                }
                if entry.kind == Kind::PutLarge {
                    let value = LargeValue::decode(entry.payload)?;
                    if !relocation.is_home(&value, &self.dmu) {
                        found.values.push(value);
                    }
                }
            }
            cursor.next()?;
        }
        Ok(found)
    }

    /// Moves what the leaf at `from` has of the range, or a part of it. Returns what was moved, and whether there is more.
    ///
    /// # Errors
    /// Out of space, device errors, damage of a value; what was moved by earlier calls stays where it is.
    pub fn relocate_leaf(
        &self,
        from: &[u8],
        relocation: &mut Relocation,
    ) -> Result<(Migrated, bool), TreeError> {
        relocation.copies.clear();
        let mut more = false;
        {
            // The version holds the values until they are copied.
            let version = self.version.load_full();
            let Some(path) = self.locate(&version.root, 1, from)? else {
                return Ok((Migrated::default(), false));
            };
            let displaced = self.displaced(&path, relocation)?;
            if displaced.values.is_empty() && displaced.bytes == 0 && !displaced.runs {
                return Ok((Migrated::default(), false));
            }
            let mut bytes = 0;
            for value in displaced.values {
                if bytes >= COPY_BYTES_MAX {
                    more = true;
                    break;
                }
                bytes += value.stored_bytes();
                let Some(first) = value.extents.first().copied() else { continue };
                let copied = self.copy(&value, relocation)?;
                relocation.copies.insert((first, value.birth), copied);
            }
        }
        // No worker takes the leaf away, and none puts another run above it.
        let _held = self.jobs.hold();
        for _attempt in 0..ATTEMPTS_MAX {
            let version = self.version.load_full();
            let Some(path) = self.locate(&version.root, 1, from)? else { break };
            let merged = self.merge_leaf(path.slot_low(), Folding::WhenItPays, Some(relocation))?;
            if let Some(moved) = merged {
                let copies = std::mem::take(&mut relocation.copies);
                let places = copies.values().filter_map(|copied| copied.pointer.extents.first().copied());
                relocation.moved.extend(places);
                return Ok((moved, more));
            }
        }
        Ok((Migrated::default(), true))
    }

    fn copy(&self, value: &LargeValue, relocation: &Relocation) -> Result<Copied, TreeError> {
        let bytes = value.read(&self.dmu, Caching::Pass)?;
        let preference = relocation.preference.or(self.options.preference);
        let pointer = LargeValue::write(&self.dmu, &bytes, preference, Privilege::User)?;
        let space = Arc::new(OwnedExtents::unborn(&self.dmu, pointer.extents.clone()));
        Ok(Copied { pointer, space })
    }
}
