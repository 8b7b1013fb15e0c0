//! What changed from one state of a tree to another, looking only at what the two do not share.
//!
//! Both trees are descended side by side. Where they have the same node, all below it is the same. A key can differ only if
//! a run that one has and the other has not says something about it: such runs are merged, without those that both have,
//! and where the newest message of a key in them is the same on both sides, so is its value, because a sequence number is
//! given once. Only the keys that are left are read in both states. A range delete names no keys: what it covers is looked up
//! in the other state. Memtables are runs that have no place in the tree: they are merged over all keys, beside the trees.

use super::TreeError;
use super::memtable::MemtableCursor;
use super::node::NodeCell;
use super::range::{Range, View};
use super::value::Value;
use crate::base::extent::Extent;
use crate::base::ids::Generation;
use crate::run::{EntryCursor, RangeDelete, ReadMode, Run, RunCursor};
use std::collections::HashSet;
use std::sync::Arc;

/// Iterator over the keys whose values differ, in order, each with its value in the later state.
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
    Key(Vec<u8>),
    None,
}

impl Candidate {
    fn of(key: Option<Vec<u8>>) -> Self {
        key.map_or(Self::None, Self::Key)
    }

    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Key(key) => Some(key),
            Self::Unknown | Self::None => None,
        }
    }
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
        for (side, runs) in all.iter().enumerate() {
            for run in runs {
                let touches = run.reference().overlaps(&low, high.as_deref());
                if !touches || known[1 - side].contains(&identity(run)) {
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
        Ok((!sources.is_empty()).then_some(Self { sources, high }))
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
        Ok(Self { sources, high: None })
    }

    /// The next key whose values may differ.
    fn next(&mut self) -> Result<Option<Vec<u8>>, TreeError> {
        loop {
            let smallest = self.sources.iter().filter_map(Source::key).min();
            let Some(key) = smallest.filter(|key| self.high.as_deref().is_none_or(|high| *key < high)) else {
                return Ok(None);
            };
            let key = key.to_vec();
            let (mut newest, mut covered) = ([None; 2], false);
            for source in &mut self.sources {
                match source {
                    Source::Run { cursor, side } => {
                        while let Some(entry) = cursor.entry().filter(|entry| entry.key == key) {
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
                return Ok(Some(key));
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
    fn next_in_trees(&mut self) -> Result<Option<Vec<u8>>, TreeError> {
        loop {
            if let Some(segment) = &mut self.segment {
                if let Some(key) = segment.next()? {
                    return Ok(Some(key));
                }
                self.segment = None;
            }
            match self.waiting.pop() {
                Some(pair) => self.advance(pair)?,
                None => return Ok(None),
            }
        }
    }

    fn step(&mut self) -> Result<Option<(Value, Option<Value>)>, TreeError> {
        loop {
            if matches!(self.candidates[0], Candidate::Unknown) {
                self.candidates[0] = Candidate::of(self.next_in_trees()?);
            }
            if matches!(self.candidates[1], Candidate::Unknown) {
                self.candidates[1] = Candidate::of(self.memory.next()?);
            }
            let smallest = self.candidates.iter().filter_map(Candidate::key).min();
            let Some(key) = smallest.map(<[u8]>::to_vec) else { return Ok(None) };
            for candidate in &mut self.candidates {
                if candidate.key() == Some(key.as_slice()) {
                    *candidate = Candidate::Unknown;
                }
            }
            let (before, after) = (self.before.get(&key)?, self.after.get(&key)?);
            if before != after {
                return Ok(Some((Value::from(key), after)));
            }
        }
    }
}

impl Iterator for Diff {
    type Item = Result<(Value, Option<Value>), TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.step().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}
