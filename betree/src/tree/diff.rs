//! What changed from one state of a tree to another, looking only at what the two do not share.
//!
//! Both trees are descended side by side. Where they have the same node, all below it is the same. A key can differ only if
//! a run that one has and the other has not says something about it: such runs are merged, without those that both have,
//! and where the newest message of a key in them is the same on both sides, so is its value, because a sequence number is
//! given once. Only the keys that are left are read in both states; what the later one has is mostly known by then, as nothing that
//! both have is newer. A range delete names no keys: what it covers is looked up
//! in the other state. Memtables are runs that have no place in the tree: they are merged over all keys, beside the trees.

use super::TreeError;
use super::memtable::MemtableCursor;
use super::node::NodeCell;
use super::range::{Range, View};
use super::resolve::Resolver;
use super::value::{LargeValue, Value};
use crate::base::extent::Extent;
use crate::base::ids::Generation;
use crate::base::preference::StoragePreference;
use crate::run::{EntryCursor, EntryRef, Kind, RangeDelete, ReadMode, Run, RunCursor};
use std::collections::HashSet;
use std::sync::Arc;

/// A key whose values differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    /// The key.
    pub key: Value,
    /// Whether it has a value in the earlier state.
    pub was_there: bool,
    /// Its value in the later state, and where that was asked to go.
    pub after: Option<(Value, StoragePreference)>,
}

/// Iterator over the keys whose values differ, in order.
pub struct Diff {
    before: View,
    after: View,
    /// Parts of the key space still to be looked at, the first one last.
    waiting: Vec<Pair>,
    segment: Option<Segment>,
    /// What the memtables say, over all keys.
    memory: Segment,
    /// The next keys of the trees and of the memtables that may differ, once they were looked for.
    candidates: [Candidate; 2],
    done: bool,
}

enum Candidate {
    Unknown,
    Key(Found),
    None,
}

impl Candidate {
    fn of(found: Option<Found>) -> Self {
        found.map_or(Self::None, Self::Key)
    }

    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Key(found) => Some(&found.key),
            Self::Unknown | Self::None => None,
        }
    }
}

/// A key whose values may differ.
struct Found {
    key: Vec<u8>,
    /// What makes the value of the later state, when that is known without looking there.
    newest: Option<Message>,
}

/// The newest message of a key in the later state.
struct Message {
    sequence: u64,
    kind: Kind,
    preference: StoragePreference,
    payload: Vec<u8>,
}

impl std::fmt::Debug for Diff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Diff").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

/// What one tree has for a part of the key space.
#[derive(Clone)]
struct Half {
    /// `None` below level 1.
    cell: Option<Arc<NodeCell>>,
    /// Runs of the slots above.
    runs: Vec<Arc<Run>>,
}

struct Pair {
    halves: [Half; 2],
    low: Vec<u8>,
    high: Option<Vec<u8>>,
}

impl Half {
    fn level(&self) -> u8 {
        self.cell.as_ref().map_or(0, |cell| cell.level())
    }
}

fn same(a: &NodeCell, b: &NodeCell) -> bool {
    a.reference().is_some_and(|reference| Some(reference) == b.reference())
}

/// What tells a run from all others.
fn identity(run: &Run) -> (Generation, Option<Extent>) {
    (run.birth(), run.space().extents().first().copied())
}

/// Part of the key space where the two have the same nodes, below runs that they do not share.
struct Segment {
    sources: Vec<Source>,
    high: Option<Vec<u8>>,
    /// A message of the later state that is newer than this one hides all that is not looked at; `None` when range deletes may
    /// hide it, too.
    hides: Option<u64>,
    /// What is newer than this the later state does not see.
    visible: u64,
}

enum Source {
    /// A run, or a memtable, that only one of them has.
    Run { cursor: Box<dyn EntryCursor>, side: usize },
    /// What one of them has under a range delete of the other.
    Covered { range: Box<Range>, next: Option<Value> },
}

impl Source {
    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Run { cursor, .. } => cursor.entry().map(|entry| entry.key),
            Self::Covered { next, .. } => next.as_deref(),
        }
    }

    /// What `other` has under `delete` from `low` to `high`; `None` when there is nothing between them.
    fn covered(
        other: &View,
        delete: &RangeDelete,
        low: &[u8],
        high: Option<&[u8]>,
    ) -> Result<Option<Self>, TreeError> {
        let start = delete.start.as_ref().max(low).to_vec();
        let end = match (delete.end.as_deref(), high) {
            (Some(end), Some(high)) => Some(end.min(high)),
            (end, high) => end.or(high),
        };
        if end.is_some_and(|end| start.as_slice() >= end) {
            return Ok(None);
        }
        let mut range = Box::new(other.range(start, end.map(<[u8]>::to_vec)));
        let next = range.next().transpose()?.map(|(key, _)| key);
        Ok(Some(Self::Covered { range, next }))
    }
}

impl Segment {
    /// `None` when nothing can differ here.
    fn new(pair: Pair, views: [&View; 2]) -> Result<Option<Self>, TreeError> {
        let Pair { halves, low, high } = pair;
        let all = halves.map(|half| half.runs);
        let known =
            [0, 1].map(|side: usize| all[side].iter().map(|run| identity(run)).collect::<HashSet<_>>());
        let mut sources = Vec::new();
        let mut hides = views[1].version.tables().all(|table| table.memtable.is_empty()).then_some(0);
        for (side, runs) in all.iter().enumerate() {
            for run in runs {
                let reference = run.reference();
                if !reference.overlaps(&low, high.as_deref()) {
                    continue;
                }
                if side == 1 && reference.range_deletes > 0 {
                    hides = None;
                }
                if known[1 - side].contains(&identity(run)) {
                    if side == 1 {
                        hides = hides.map(|newest| newest.max(reference.max_sequence));
                    }
                    continue;
                }
                let mut cursor = Box::new(RunCursor::new(Arc::clone(run), ReadMode::Scan));
                cursor.seek(&low)?;
                sources.push(Source::Run { cursor, side });
                if run.reference().range_deletes == 0 {
                    continue;
                }
                for delete in run.range_deletes()?.list() {
                    sources.extend(Source::covered(views[1 - side], delete, &low, high.as_deref())?);
                }
            }
        }
        let visible = views[1].visible;
        Ok((!sources.is_empty()).then_some(Self { sources, high, hides, visible }))
    }

    /// What the memtables of the two say from `low` on.
    fn of_memtables(views: [&View; 2], low: &[u8]) -> Result<Self, TreeError> {
        let mut sources = Vec::new();
        for (side, view) in views.into_iter().enumerate() {
            for table in view.version.tables().filter(|table| !table.memtable.is_empty()) {
                let mut cursor = Box::new(MemtableCursor::new(Arc::clone(&table.memtable), view.visible));
                cursor.seek(low)?;
                sources.push(Source::Run { cursor, side });
                for delete in table.memtable.range_deletes(view.visible) {
                    sources.extend(Source::covered(views[1 - side], &delete, low, None)?);
                }
            }
        }
        Ok(Self { sources, high: None, hides: None, visible: 0 })
    }

    /// The next key whose values may differ.
    fn next(&mut self) -> Result<Option<Found>, TreeError> {
        loop {
            let smallest = self.sources.iter().filter_map(Source::key).min();
            let Some(key) = smallest.filter(|key| self.high.as_deref().is_none_or(|high| *key < high)) else {
                return Ok(None);
            };
            let key = key.to_vec();
            let (mut newest, mut covered) = ([None; 2], false);
            let mut message: Option<Message> = None;
            for source in &mut self.sources {
                match source {
                    Source::Run { cursor, side } => {
                        while let Some(entry) = cursor.entry().filter(|entry| entry.key == key) {
                            if *side == 1 && newest[1] < Some(entry.sequence) {
                                let is_known =
                                    |hides: &u64| entry.sequence > *hides && entry.sequence <= self.visible;
                                message = self.hides.filter(is_known).map(|_| Message {
                                    sequence: entry.sequence,
                                    kind: entry.kind,
                                    preference: entry.preference,
                                    payload: entry.payload.to_vec(),
                                });
                            }
                            newest[*side] = newest[*side].max(Some(entry.sequence));
                            cursor.next()?;
                        }
                    }
                    Source::Covered { range, next } => {
                        if next.as_deref() == Some(key.as_slice()) {
                            covered = true;
                            *next = range.next().transpose()?.map(|(key, _)| key);
                        }
                    }
                }
            }
            if covered || newest[0] != newest[1] {
                // An upsert says half of it.
                let newest = message.filter(|message| message.kind != Kind::Upsert);
                return Ok(Some(Found { key, newest }));
            }
        }
    }
}

impl Diff {
    /// What changed from `before` to `after`, states of trees in one pool.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn new(before: View, after: View) -> Result<Self, TreeError> {
        Self::starting_at(before, after, Vec::new())
    }

    /// As [`Diff::new`], for the keys from `low` on.
    ///
    /// # Errors
    /// As [`Diff::new`].
    pub fn starting_at(before: View, after: View, low: Vec<u8>) -> Result<Self, TreeError> {
        let half = |view: &View| Half { cell: Some(Arc::clone(&view.version.root)), runs: Vec::new() };
        let halves = [half(&before), half(&after)];
        let memory = Segment::of_memtables([&before, &after], &low)?;
        let waiting = vec![Pair { halves, low, high: None }];
        let candidates = [Candidate::Unknown, Candidate::Unknown];
        Ok(Self { before, after, waiting, segment: None, memory, candidates, done: false })
    }

    /// Looks at the next part of the key space.
    fn advance(&mut self, pair: Pair) -> Result<(), TreeError> {
        let [a, b] = &pair.halves;
        let shared = match (&a.cell, &b.cell) {
            (Some(a), Some(b)) => same(a, b),
            (None, None) => true,
            _ => false,
        };
        if shared {
            self.segment = Segment::new(pair, [&self.before, &self.after])?;
            return Ok(());
        }
        let side = usize::from(b.level() > a.level());
        let view = if side == 0 { &self.before } else { &self.after };
        let Some(cell) = &pair.halves[side].cell else { return Ok(()) };
        let body = cell.load(&view.tree.dmu)?;
        let first = body.slot_index(&pair.low);
        let last = body.slot_index_before(pair.high.as_deref()).max(first);
        for index in (first..=last).rev() {
            let slot = &body.slots[index];
            let low = body.slot_low(index).filter(|low| *low > pair.low.as_slice()).map(<[u8]>::to_vec);
            let high = match (body.slot_high(index), pair.high.as_deref()) {
                (Some(slot), Some(high)) => Some(slot.min(high)),
                (slot, high) => slot.or(high),
            };
            let mut halves = pair.halves.clone();
            halves[side].cell.clone_from(&slot.child);
            halves[side].runs.extend(slot.runs.iter().cloned());
            let (low, high) = (low.unwrap_or_else(|| pair.low.clone()), high.map(<[u8]>::to_vec));
            self.waiting.push(Pair { halves, low, high });
        }
        Ok(())
    }

    /// The next key of the trees whose values may differ.
    fn next_in_trees(&mut self) -> Result<Option<Found>, TreeError> {
        loop {
            if let Some(segment) = &mut self.segment {
                if let Some(found) = segment.next()? {
                    return Ok(Some(found));
                }
                self.segment = None;
            }
            match self.waiting.pop() {
                Some(pair) => self.advance(pair)?,
                None => return Ok(None),
            }
        }
    }

    /// The next key whose values may differ.
    fn next_found(&mut self) -> Result<Option<Found>, TreeError> {
        if matches!(self.candidates[0], Candidate::Unknown) {
            self.candidates[0] = Candidate::of(self.next_in_trees()?);
        }
        if matches!(self.candidates[1], Candidate::Unknown) {
            self.candidates[1] = Candidate::of(self.memory.next()?);
        }
        let smallest = self.candidates.iter().filter_map(Candidate::key).min();
        let Some(key) = smallest.map(<[u8]>::to_vec) else { return Ok(None) };
        let mut found = Found { key, newest: None };
        for candidate in &mut self.candidates {
            if candidate.key() != Some(found.key.as_slice()) {
                continue;
            }
            if let Candidate::Key(Found { newest, .. }) = std::mem::replace(candidate, Candidate::Unknown) {
                found.newest = found.newest.or(newest);
            }
        }
        Ok(Some(found))
    }

    /// The value of what was found in the later state, and where that was asked to go.
    fn after(&self, found: &Found) -> Result<Option<(Value, StoragePreference)>, TreeError> {
        let Some(Message { sequence, kind, preference, payload }) = &found.newest else {
            return self.after.get_preferred(&found.key);
        };
        let (key, sequence, kind, preference) = (&found.key[..], *sequence, *kind, *preference);
        let mut resolver = Resolver::new();
        // All older ones are hidden.
        let _done = resolver.push(EntryRef { key, sequence, kind, preference, payload });
        let tree = &self.after.tree;
        let value = resolver.finish(key, &tree.dmu, None, tree.action_name(), LargeValue::caching)?;
        Ok(value.map(|value| (value, preference)))
    }

    fn step(&mut self) -> Result<Option<Differing>, TreeError> {
        while let Some(found) = self.next_found()? {
            let (before, after) = (self.before.get(&found.key)?, self.after(&found)?);
            if before.as_ref() != after.as_ref().map(|(value, _)| value) {
                return Ok(Some(Differing {
                    key: Value::from(found.key),
                    was_there: before.is_some(),
                    after,
                }));
            }
        }
        Ok(None)
    }

    /// What the later state has of the next key that was written since: its value, with where that was asked to go, or nothing.
    /// It may be what it was: the earlier state is not read for it.
    pub fn next_written(&mut self) -> Option<Result<Written, TreeError>> {
        if self.done {
            return None;
        }
        let next = self.next_found().and_then(|found| {
            let written = |found: Found| Ok((Value::from(found.key.as_slice()), self.after(&found)?));
            found.map(written).transpose()
        });
        let next = next.transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

/// A key, and its value with where that was asked to go, unless it has none.
pub type Written = (Value, Option<(Value, StoragePreference)>);

impl Iterator for Diff {
    type Item = Result<Differing, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.step().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}
