//! Verification: walks a tree and checks every invariant.

use super::drops::{Dropped, Drops, large_values};
use super::format::{KEY_BYTES_MAX, NodeRef};
use super::node::{NodeCell, Slot};
use super::value::LargeValue;
use super::{Tree, TreeError};
use crate::base::extent::Extent;
use crate::base::ids::Generation;
use crate::run::{EntryCursor, EntryRef, Kind, ReadMode, Run, RunCursor, key_hash};
use std::collections::HashSet;
use std::sync::Arc;

/// What a walk found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Every extent that the tree refers to.
    pub extents: Vec<Extent>,
    /// Nodes visited.
    pub nodes: u64,
    /// Runs visited.
    pub runs: u64,
    /// Messages in runs.
    pub messages: u64,
    /// Large values named.
    pub large_values: u64,
    /// What trees that share with the one being walked refer to.
    known: HashSet<Extent>,
    /// How many of `extents` are in `known`, or of trees that share nothing.
    walked: usize,
}

fn broken(what: String) -> TreeError {
    TreeError::Invariant(what)
}

impl Verified {
    /// What follows shares nothing with what was walked.
    pub fn start_family(&mut self) {
        self.known.clear();
        self.walked = self.extents.len();
    }

    /// The next tree may share with those walked since [`Verified::start_family`]: what is known is not looked at again.
    pub fn end_tree(&mut self) {
        self.known.extend(&self.extents[self.walked..]);
        self.walked = self.extents.len();
    }

    fn is_known(&self, extents: &[Extent]) -> bool {
        extents.first().is_some_and(|extent| self.known.contains(extent))
    }

    /// Walks the tree below `root`, whose generation is at most `generation`, and reads every block of every run.
    ///
    /// # Errors
    /// [`TreeError::Invariant`] names the first invariant that does not hold; device errors and damage.
    pub fn walk(
        &mut self,
        tree: &Tree,
        root: &Arc<NodeCell>,
        generation: Generation,
    ) -> Result<(), TreeError> {
        self.node(tree, root, generation, &[], None, None)
    }

    /// As [`Verified::walk`], for a tree on disk.
    ///
    /// # Errors
    /// As [`Verified::walk`].
    pub fn walk_stored(
        &mut self,
        tree: &Tree,
        root: &NodeRef,
        generation: Generation,
    ) -> Result<(), TreeError> {
        self.walk(tree, &NodeCell::on_disk(&tree.dmu, root.clone()), generation)
    }

    /// Adds what pending drops refer to.
    ///
    /// # Errors
    /// As [`Verified::walk`].
    pub fn drops(&mut self, tree: &Tree, drops: &Drops, generation: Generation) -> Result<(), TreeError> {
        for (drop, dropped) in drops.iter() {
            match dropped {
                Dropped::Node(cell) => self.subtree(tree, cell, drop.floor, generation)?,
                Dropped::Run(run) => self.dropped_run(run, drop.floor, generation)?,
            }
        }
        Ok(())
    }

    fn subtree(
        &mut self,
        tree: &Tree,
        cell: &Arc<NodeCell>,
        floor: Generation,
        generation: Generation,
    ) -> Result<(), TreeError> {
        // What is as old as that belongs to a snapshot.
        if cell.is_born_by(floor) || self.knows(cell) {
            return Ok(());
        }
        let body = cell.load(&tree.dmu)?;
        self.node_extents(cell, generation)?;
        for slot in &body.slots {
            for run in &slot.runs {
                self.dropped_run(run, floor, generation)?;
            }
            if let Some(child) = &slot.child {
                self.subtree(tree, child, floor, generation)?;
            }
        }
        Ok(())
    }

    fn dropped_run(
        &mut self,
        run: &Arc<Run>,
        floor: Generation,
        generation: Generation,
    ) -> Result<(), TreeError> {
        if run.birth() <= floor { Ok(()) } else { self.run(run, floor, generation, &[], None) }
    }

    fn knows(&self, cell: &NodeCell) -> bool {
        cell.reference().is_some_and(|reference| self.is_known(reference.extents.extents()))
    }

    fn node_extents(&mut self, cell: &NodeCell, generation: Generation) -> Result<(), TreeError> {
        self.nodes += 1;
        if let Some(reference) = cell.reference() {
            if reference.birth > generation {
                return Err(broken(format!("node born in {} is reached by {generation}", reference.birth)));
            }
            self.extents.extend(reference.extents.all());
        }
        Ok(())
    }

    fn node(
        &mut self,
        tree: &Tree,
        cell: &Arc<NodeCell>,
        generation: Generation,
        low: &[u8],
        high: Option<&[u8]>,
        above: Option<&Above<'_>>,
    ) -> Result<(), TreeError> {
        if self.knows(cell) {
            return Ok(());
        }
        let body = cell.load(&tree.dmu)?;
        self.node_extents(cell, generation)?;
        if body.level != cell.level() || body.slots.len() != body.pivots.len() + 1 {
            return Err(broken(format!("a node of level {} has {} slots", body.level, body.slots.len())));
        }
        let sorted = body.pivots.windows(2).all(|pair| pair[0] < pair[1]);
        let inside =
            body.pivots.iter().all(|pivot| **pivot > *low && high.is_none_or(|high| **pivot < *high));
        if !sorted || !inside {
            return Err(broken(format!(
                "pivots of a node of level {} are not in order or in bounds",
                body.level
            )));
        }
        for (index, slot) in body.slots.iter().enumerate() {
            let low = body.slot_low(index).unwrap_or(low);
            let high = body.slot_high(index).or(high);
            for run in &slot.runs {
                self.run(run, Generation(0), generation, low, high)?;
            }
            let path = Above { slot, above };
            match &slot.child {
                Some(child) if body.level > 1 && child.level() + 1 == body.level => {
                    self.node(tree, child, generation, low, high, Some(&path))?;
                }
                None if body.level == 1 => path.check_order(low, high)?,
                _ => {
                    return Err(broken(format!(
                        "a slot of level {} has a child of the wrong level",
                        body.level
                    )));
                }
            }
        }
        Ok(())
    }

    fn run(
        &mut self,
        run: &Arc<Run>,
        floor: Generation,
        generation: Generation,
        low: &[u8],
        high: Option<&[u8]>,
    ) -> Result<(), TreeError> {
        if self.is_known(run.space().extents()) {
            return Ok(());
        }
        self.runs += 1;
        let name =
            || format!("run at {}", run.space().extents().first().map_or(String::new(), Extent::to_string));
        if run.birth() > generation || run.birth().0 == 0 {
            return Err(broken(format!("{} is born in {}, reached by {generation}", name(), run.birth())));
        }
        if !run.lies_in(low, high) {
            return Err(broken(format!("{} reaches beyond its slot", name())));
        }
        self.extents.extend_from_slice(run.space().extents());
        let mut cursor = RunCursor::new(Arc::clone(run), ReadMode::Merge);
        cursor.seek(&[])?;
        let mut before: Option<(Vec<u8>, u64)> = None;
        let (mut entries, mut deletes, mut upsert_bytes) = (0, 0, 0);
        while let Some(entry) = cursor.entry() {
            check_entry(run, &entry, before.as_ref())
                .map_err(|what| broken(format!("{}: {what}", name())))?;
            entries += 1;
            deletes += u64::from(entry.kind == Kind::Delete);
            upsert_bytes += if entry.kind == Kind::Upsert { entry.payload.len() as u64 } else { 0 };
            before = Some((entry.key.to_vec(), entry.sequence));
            cursor.next()?;
        }
        let stated = run.reference();
        if (entries, deletes, upsert_bytes) != (stated.entries, stated.deletes, stated.upsert_bytes) {
            return Err(broken(format!(
                "{} holds {entries} entries, {deletes} of them deletes, and upserts of {upsert_bytes} bytes: not what it \
                 says",
                name()
            )));
        }
        for range in run.range_deletes()?.list() {
            if *range.start < *low || range.sequence > run.reference().max_sequence {
                return Err(broken(format!("{} has a range delete beyond its bounds", name())));
            }
        }
        self.messages += entries;
        let values = large_values(run)?;
        let large_bytes: u64 = values.iter().map(LargeValue::stored_bytes).sum();
        if large_bytes != run.reference().large_bytes {
            return Err(broken(format!(
                "{} names large values of {large_bytes} bytes: not what it says",
                name()
            )));
        }
        for value in values {
            if value.birth > generation {
                return Err(broken(format!("{} names a large value born in {}", name(), value.birth)));
            }
            if value.birth > floor && !self.is_known(&value.extents) {
                self.large_values += 1;
                self.extents.extend(value.extents);
            }
        }
        Ok(())
    }
}

fn check_entry(run: &Arc<Run>, entry: &EntryRef<'_>, before: Option<&(Vec<u8>, u64)>) -> Result<(), String> {
    let key = entry.key;
    if key.len() > KEY_BYTES_MAX || !run.spans(key) {
        return Err(String::from("a key is outside of the run's bounds"));
    }
    if entry.sequence > run.reference().max_sequence || entry.sequence < run.reference().min_sequence {
        return Err(format!("sequence {} is outside of the run's bounds", entry.sequence));
    }
    if let Some((last, sequence)) = before {
        let ascending = **last < *key || (**last == *key && *sequence > entry.sequence);
        if !ascending {
            return Err(String::from("entries are not in order"));
        }
    }
    match run.may_contain(key_hash(key)) {
        Ok(true) => Ok(()),
        Ok(false) => Err(String::from("the filter denies a key that the run holds")),
        Err(error) => Err(error.to_string()),
    }
}

/// The slots from a leaf up to the root.
struct Above<'a> {
    slot: &'a Slot,
    above: Option<&'a Above<'a>>,
}

impl Above<'_> {
    /// No message of a key lies above a newer one: what flush and merge rely on.
    fn check_order(&self, low: &[u8], high: Option<&[u8]>) -> Result<(), TreeError> {
        let mut levels = vec![self.slot];
        let mut above = self.above;
        while let Some(path) = above {
            levels.push(path.slot);
            above = path.above;
        }
        // Newest first, as a point read meets them.
        let in_slot = |run: &&Arc<Run>| run.reference().keys.is_some() && run.reference().overlaps(low, high);
        let runs: Vec<&Arc<Run>> = levels.iter().rev().flat_map(|slot| &slot.runs).filter(in_slot).collect();
        // Nearly always the bounds alone show it, and nothing is read twice, nor again for each snapshot.
        let in_order = |(index, upper): (usize, &&Arc<Run>)| {
            runs[index + 1..].iter().all(|lower| {
                upper.reference().min_sequence > lower.reference().max_sequence || !upper.overlaps(lower)
            })
        };
        if runs.iter().enumerate().all(in_order) {
            return Ok(());
        }
        let mut cursors = Vec::new();
        for run in runs {
            let mut cursor = RunCursor::new(Arc::clone(run), ReadMode::Merge);
            cursor.seek(low)?;
            cursors.push(cursor);
        }
        loop {
            let smallest = cursors.iter().filter_map(|cursor| cursor.entry()).map(|entry| entry.key).min();
            let Some(key) = smallest.filter(|key| high.is_none_or(|high| *key < high)).map(<[u8]>::to_vec)
            else {
                return Ok(());
            };
            let mut newest = u64::MAX;
            for cursor in &mut cursors {
                while let Some(entry) = cursor.entry().filter(|entry| entry.key == key) {
                    if entry.sequence >= newest {
                        let key = key.escape_ascii();
                        return Err(broken(format!("a newer message of key {key} lies below an older one")));
                    }
                    newest = entry.sequence;
                    cursor.next()?;
                }
            }
        }
    }
}
