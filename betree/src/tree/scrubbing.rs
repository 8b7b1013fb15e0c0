//! What of a tree a scrub looks at, once each, and in steps.
//!
//! The walk goes down from the root in the order of keys: a node's header, then, slot by slot, its runs with the large
//! values that they name, and the child. What is not younger than a floor is not gone into: it reaches nothing that is.
//! So the trees of a dataset, each with the one before it as its floor, are visited without remembering what was seen.
//!
//! A step ends behind a leaf. The tree may change before the next one: what is not visited then still lies at or behind
//! the key where the step ended, or in the buffers above it. Buffers of nodes that are the same as then were visited;
//! those of others are visited again, and nothing is missed.

use super::drops::{Dropped, Dropping, Drops};
use super::format::NodeRef;
use super::node::NodeCell;
use super::value::{CHECKSUM_CHUNK_BYTES, LargeValue};
use super::{Tree, TreeError};
use crate::base::extent::Extent;
use crate::base::ids::Generation;
use crate::dmu::{Checksummed, Dmu, ScrubTask, StoredExtents};
use crate::run::{EntryCursor, Kind, ReadMode, Run, RunCursor};
use std::sync::Arc;

/// Blocks of large values that are looked at together, about.
const VALUE_BLOCKS: u64 = 1024;

/// Which extents are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Births {
    /// Not those born up to here.
    pub floor: Generation,
    /// Nor those born later than this.
    pub ceiling: Generation,
}

impl Births {
    fn has(self, birth: Generation) -> bool {
        self.floor < birth && birth <= self.ceiling
    }
}

/// A stored node, among all that there ever were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeName {
    birth: Generation,
    extent: Extent,
}

/// Where a step ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Leaves below it are done.
    pub key: Vec<u8>,
    /// The nodes above it.
    pub path: Vec<NodeName>,
}

/// What something is, for those who are told that it is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// In a word or two.
    pub what: &'static str,
    /// The lowest key that it may concern.
    pub low: Vec<u8>,
    /// The key before which it ends; `None`: it may concern all from `low` on.
    pub high: Option<Vec<u8>>,
    /// Large values: the number of the first unit, and the key, of each.
    pub keys: Vec<(usize, Vec<u8>)>,
}

impl Subject {
    fn new(what: &'static str, low: &[u8], high: Option<&[u8]>) -> Self {
        Self { what, low: low.to_vec(), high: high.map(<[u8]>::to_vec), keys: Vec::new() }
    }

    /// Something that is not of one tree.
    #[must_use]
    pub fn of(what: &'static str) -> Self {
        Self::new(what, &[], None)
    }

    /// The key of the value that unit `unit` belongs to.
    #[must_use]
    pub fn key_of(&self, unit: usize) -> Option<&[u8]> {
        let at = self.keys.partition_point(|(first, _)| *first <= unit);
        self.keys[..at].last().map(|(_, key)| &key[..])
    }
}

/// What a walk met.
#[derive(Debug)]
pub enum Found {
    /// Something to look at; before the walk goes on, when `now`, because it reads that next.
    Task {
        /// The extents and checksums.
        task: ScrubTask,
        /// What they are.
        subject: Subject,
        /// Whether it must be sound before the walk goes on.
        now: bool,
    },
    /// Something below which nothing could be visited.
    Unreadable {
        /// What it is.
        subject: Subject,
        /// Why.
        error: TreeError,
    },
}

type Visit<'a> = &'a mut dyn FnMut(Found);

impl Tree {
    /// One step of a walk over the tree below `root`, which the caller holds with the version that it is of: from `from` on
    /// until about `blocks` blocks were named. Returns where it ended; `None` at the end of the tree.
    pub fn scrub(
        &self,
        root: &Arc<NodeCell>,
        births: Births,
        from: &Place,
        blocks: u64,
        visit: Visit<'_>,
    ) -> Option<Place> {
        let mut walk = Walk { dmu: &self.dmu, births, from, left: blocks, visit, path: Vec::new() };
        let key = walk.node(root, &[], None)?;
        Some(Place { key, path: walk.path })
    }
}

impl Drops {
    /// Visits what waits to be freed; `births_of` says which part of it is looked at.
    pub fn scrub(&self, dmu: &Dmu, births_of: &dyn Fn(Dropping) -> Births, visit: Visit<'_>) {
        for (drop, dropped) in self.iter() {
            let from = Place::default();
            let births = births_of(drop);
            let mut walk = Walk { dmu, births, from: &from, left: u64::MAX, visit, path: Vec::new() };
            match dropped {
                Dropped::Node(cell) => drop_none(walk.node(cell, &[], None)),
                Dropped::Run(run) => walk.run(run, &[], None),
            }
        }
    }
}

/// A walk without a bound ends at the end.
fn drop_none(ended: Option<Vec<u8>>) {
    debug_assert!(ended.is_none());
}

struct Walk<'a> {
    dmu: &'a Dmu,
    births: Births,
    from: &'a Place,
    /// Blocks that may still be named.
    left: u64,
    visit: Visit<'a>,
    /// Nodes above the end of the step.
    path: Vec<NodeName>,
}

impl Walk<'_> {
    /// Visits a node and what is below it; where the step ends, when it does.
    fn node(&mut self, cell: &Arc<NodeCell>, low: &[u8], high: Option<&[u8]>) -> Option<Vec<u8>> {
        if cell.is_born_by(self.births.floor) {
            return None;
        }
        let reference = cell.reference();
        let name = reference.as_ref().and_then(name_of);
        let was_visited = name.is_some_and(|name| self.from.path.contains(&name));
        if let Some(reference) = reference.filter(|one| self.births.has(one.birth) && !was_visited) {
            self.header(&reference, low, high);
        }
        let body = match cell.load(self.dmu) {
            Ok(body) => body,
            Err(error) => {
                let subject = Subject::new("node", low, high);
                (self.visit)(Found::Unreadable { subject, error });
                return None;
            }
        };
        for (index, slot) in body.slots.iter().enumerate() {
            let slot_low = body.slot_low(index).unwrap_or(low);
            let slot_high = body.slot_high(index).or(high);
            if slot_high.is_some_and(|high| *high <= *self.from.key) {
                continue;
            }
            let has_begun = *slot_low < *self.from.key;
            if !(has_begun && was_visited) {
                slot.runs.iter().for_each(|run| self.run(run, slot_low, slot_high));
            }
            let end = match &slot.child {
                Some(child) => self.node(child, slot_low, slot_high),
                None => slot_high.filter(|_| self.left == 0).map(<[u8]>::to_vec),
            };
            if let Some(end) = end {
                if high.is_none_or(|high| *end < *high) {
                    self.path.extend(name);
                }
                return Some(end);
            }
        }
        None
    }

    fn header(&mut self, reference: &NodeRef, low: &[u8], high: Option<&[u8]>) {
        self.lists(&reference.extents, low, high);
        let extents = reference.extents.extents().to_vec();
        let task = ScrubTask::of(extents, u64::from(reference.length), reference.checksum);
        self.found(task, Subject::new("node", low, high), true);
    }

    fn lists(&mut self, stored: &StoredExtents, low: &[u8], high: Option<&[u8]>) {
        for task in ScrubTask::of_lists(stored) {
            self.found(task, Subject::new("extent list", low, high), false);
        }
    }

    fn found(&mut self, task: ScrubTask, subject: Subject, now: bool) {
        self.left = self.left.saturating_sub(task.blocks());
        (self.visit)(Found::Task { task, subject, now });
    }

    fn run(&mut self, run: &Arc<Run>, low: &[u8], high: Option<&[u8]>) {
        if run.birth() <= self.births.floor {
            return;
        }
        let has_values = run.reference().large_bytes > 0;
        if self.births.has(run.birth()) {
            let stored = &run.reference().extents;
            self.lists(stored, low, high);
            let extents = stored.extents().to_vec();
            let units = run.checksummed().or_else(|_| {
                // Perhaps only the copy that was read is wrong.
                let units = vec![run.checksummed_meta()];
                let task = ScrubTask { extents: extents.clone(), units, is_partial: true };
                let subject = Subject::new("meta section of a run", low, high);
                (self.visit)(Found::Task { task, subject, now: true });
                run.checksummed()
            });
            match units {
                Ok(units) => {
                    let task = ScrubTask { extents, units, is_partial: false };
                    self.found(task, Subject::new("run", low, high), has_values);
                }
                Err(error) => self.unreadable("run", low, high, error.into()),
            }
        }
        if has_values && let Err(error) = self.values(run) {
            self.unreadable("run that names large values", low, high, error);
        }
    }

    fn unreadable(&mut self, what: &'static str, low: &[u8], high: Option<&[u8]>, error: TreeError) {
        (self.visit)(Found::Unreadable { subject: Subject::new(what, low, high), error });
    }

    /// Visits the large values that `run` names; on an error those before it.
    fn values(&mut self, run: &Arc<Run>) -> Result<(), TreeError> {
        let (mut task, mut subject) = (ScrubTask::default(), Subject::new("large value", &[], None));
        let result = self.collect_values(run, &mut task, &mut subject);
        if !task.extents.is_empty() {
            self.found(task, subject, false);
        }
        result
    }

    fn collect_values(
        &mut self,
        run: &Arc<Run>,
        task: &mut ScrubTask,
        subject: &mut Subject,
    ) -> Result<(), TreeError> {
        let mut cursor = RunCursor::new(Arc::clone(run), ReadMode::Merge);
        cursor.seek(&[])?;
        while let Some(entry) = cursor.entry() {
            if entry.kind == Kind::PutLarge {
                let value = LargeValue::decode(entry.payload)?;
                if self.births.has(value.birth) {
                    subject.keys.push((task.units.len(), entry.key.to_vec()));
                    task.append(task_of(&value), self.dmu);
                }
            }
            if task.blocks() >= VALUE_BLOCKS {
                let next = Subject::new("large value", &[], None);
                self.found(std::mem::take(task), std::mem::replace(subject, next), false);
            }
            cursor.next()?;
        }
        Ok(())
    }
}

fn name_of(reference: &NodeRef) -> Option<NodeName> {
    let extent = reference.extents.extents().first()?;
    Some(NodeName { birth: reference.birth, extent: *extent })
}

fn task_of(value: &LargeValue) -> ScrubTask {
    let length = u64::from(value.length);
    let unit = |(index, checksum): (usize, &u32)| {
        let offset = (index * CHECKSUM_CHUNK_BYTES) as u64;
        let length = (length - offset).min(CHECKSUM_CHUNK_BYTES as u64);
        Checksummed { offset, length, checksum: *checksum }
    };
    let units = value.checksums.iter().enumerate().map(unit).collect();
    ScrubTask { extents: value.extents.clone(), units, is_partial: false }
}
