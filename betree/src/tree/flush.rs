//! Flush: messages move one level down. A memtable into the slots of the root; a slot's runs into the slots of its
//! child.

use super::compact::{Compactor, Effects, range_deletes};
use super::drops::Dropping;
use super::node::{NodeBody, Slot};
use super::output::{OutputOptions, SlotOutputs};
use super::tree::{Edit, Path, keepers};
use super::value::LargeValue;
use super::version::Table;
use super::{Job, Tree, TreeError};
use crate::base::ids::Generation;
use crate::dmu::{Privilege, Stream};
use crate::run::{EntryCursor, MergeCursor, RangeDelete, ReadMode, Run, RunCursor, without_covered};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Runs of one slot.
type Runs = Vec<Arc<Run>>;

/// What a flush puts into one slot of the node below.
#[derive(Debug, Default)]
struct Arrival {
    /// Newest first.
    runs: Vec<Arc<Run>>,
    /// A range delete covers the slot: what is there is dropped unread.
    drop_rest: bool,
}

impl Tree {
    /// Flushes the oldest frozen memtable into the root; returns whether there was one that may be flushed now. With
    /// `wait`, waits for a flush that is going on.
    ///
    /// # Errors
    /// Out of space, device errors; the table then stays where it is.
    pub fn flush_table(&self, wait: bool) -> Result<bool, TreeError> {
        let guard = if wait { Some(self.flushing.lock()) } else { self.flushing.try_lock() };
        let Some(_flushing) = guard else {
            return Ok(false);
        };
        let (gate, root) = loop {
            let level = self.version.load().root.level();
            let gate = self.claims.share((level, Vec::new()));
            let version = self.version.load_full();
            if version.root.level() == level {
                break (gate, version);
            }
        };
        let Some(table) = root.frozen.last() else {
            return Ok(false);
        };
        let generation = self.edit.lock().generation;
        if table.frozen_in() > generation {
            return Ok(false);
        }
        let body = root.root.load(&self.dmu)?;
        let action = self.folding_action();
        let ranges = without_covered(table.memtable.range_deletes(u64::MAX));
        let options = self.arrival_options(&body, table.memtable.bytes() as u64, Privilege::System, None);
        let mut compactor = Compactor::new(
            &self.dmu,
            &self.options,
            action.as_ref(),
            Privilege::System,
            None,
            generation,
            ranges.clone(),
        );
        let mut outputs = SlotOutputs::new(options, &[], &body.pivots, ranges.clone());
        table.memtable.for_each(None, None, &mut |entry| {
            compactor.push(entry, &mut outputs)?;
            Ok::<_, TreeError>(ControlFlow::Continue(()))
        })?;
        let effects = compactor.finish(&mut outputs)?;
        let runs = outputs.finish()?;
        let heirs = keepers(runs.iter().flatten());
        let arrivals = arrivals(runs, &ranges, &[], None, &body);

        let mut edit = self.edit.lock();
        let version = self.version.load_full();
        let Some(oldest) = version.frozen.last().filter(|oldest| Arc::ptr_eq(oldest, table)) else {
            return Ok(false);
        };
        let Some(path) = self.locate(&version.root, version.root.level(), &[])? else {
            unreachable!("the root has the root's level");
        };
        if effects.are_late(edit.generation) {
            return Ok(true);
        }
        let body = self.arrive(&mut edit, path.body(), arrivals);
        self.apply_written(&effects, edit.generation);
        self.kill_values(effects.dropped, oldest.keeper(), edit.generation);
        heirs.into_iter().for_each(|heir| oldest.keeper().follow(heir));
        let frozen = version.frozen[..version.frozen.len() - 1].to_vec();
        self.publish(&edit, &path, body, Some(frozen));
        drop(edit);
        drop(gate);
        self.queue_node(&[])?;
        Ok(true)
    }

    /// Moves the runs of the slot of `level` at `low`, the `runs_max` oldest of them, into its child. Runs that lie inside
    /// one slot of the child and overlap nothing else that moves are moved by reference.
    ///
    /// # Errors
    /// Out of space, device errors; the runs then stay where they are.
    pub(super) fn flush_slot(&self, level: u8, low: &[u8], runs_max: usize) -> Result<(), TreeError> {
        let Some(_claim) = self.claims.claim((level, low.to_vec())) else {
            return Ok(());
        };
        let version = self.version.load_full();
        let Some(path) = self.locate(&version.root, level, low)?.filter(|path| path.slot_low() == low) else {
            return Ok(());
        };
        let (slot, high) = (Arc::clone(path.slot()), path.slot_high().map(<[u8]>::to_vec));
        let oldest = &slot.runs[slot.runs.len().saturating_sub(runs_max)..];
        let Some(child) = slot.child.as_ref().filter(|_| !oldest.is_empty()) else {
            return Ok(());
        };
        let child_level = child.level();
        let gate = self.claims.share((child_level, low.to_vec()));
        let version = self.version.load_full();
        let Some(below) = self.locate(&version.root, child_level, low)? else {
            return Ok(());
        };
        let target = Arc::clone(below.body());
        let (moved, merged) = split_trivial(oldest, &target);
        let ranges = range_deletes(&merged)?;
        let generation = self.edit.lock().generation;
        let (runs, effects) = self.merge_into_slots(&merged, &target, low, ranges.clone(), generation)?;
        let heirs = keepers(runs.iter().flatten());
        let mut arrivals = arrivals(runs, &ranges, low, high.as_deref(), &target);
        for (index, run) in moved {
            arrivals[index].runs.push(run);
        }

        let mut edit = self.edit.lock();
        let version = self.version.load_full();
        let Some(above) = self.locate(&version.root, level, low)? else {
            return Ok(());
        };
        let Some(newer) = unconsumed(above.slot(), oldest) else {
            return Ok(());
        };
        let Some(below) = self.locate(&version.root, child_level, low)? else {
            return Ok(());
        };
        if effects.are_late(edit.generation) {
            self.jobs.push(self.id, Job::FlushSlot { level, low: low.to_vec() });
            return Ok(());
        }
        let body = self.arrive(&mut edit, below.body(), arrivals);
        self.apply_written(&effects, edit.generation);
        self.retire_runs(&merged, effects.dropped, heirs, edit.generation);
        self.publish_below(&edit, &below, above.steps.len() - 1, newer, body);
        drop(edit);
        drop(gate);
        self.queue_node_at(child_level, low)?;
        Ok(())
    }

    /// Options for runs that arrive in the slots of `target`.
    pub(super) fn arrival_options<'a>(
        &'a self,
        target: &NodeBody,
        total_bytes: u64,
        privilege: Privilege,
        replaced: Option<&'a [Arc<Run>]>,
    ) -> OutputOptions<'a> {
        OutputOptions {
            dmu: &self.dmu,
            tree: &self.options,
            stream: Stream::Delta,
            privilege,
            expected_bytes: total_bytes / target.slots.len() as u64 + (16 << 10),
            run_bytes_max: self.options.leaf_bytes,
            replaced,
        }
    }

    /// Merges `runs` into new runs, one list for each slot of `target`.
    pub(super) fn merge_into_slots(
        &self,
        runs: &[Arc<Run>],
        target: &NodeBody,
        low: &[u8],
        ranges: Vec<RangeDelete>,
        generation: Generation,
    ) -> Result<(Vec<Runs>, Effects), TreeError> {
        let total = runs.iter().map(|run| run.stored_bytes()).sum();
        let action = self.folding_action();
        let options = self.arrival_options(target, total, Privilege::Merge, Some(runs));
        let mut compactor = Compactor::new(
            &self.dmu,
            &self.options,
            action.as_ref(),
            Privilege::Merge,
            None,
            generation,
            ranges.clone(),
        );
        let mut outputs = SlotOutputs::new(options, low, &target.pivots, ranges);
        let mut cursor = merge_cursor(runs);
        cursor.seek(&[])?;
        while let Some(entry) = cursor.entry() {
            compactor.push(entry, &mut outputs)?;
            cursor.next()?;
        }
        let effects = compactor.finish(&mut outputs)?;
        Ok((outputs.finish()?, effects))
    }

    /// `body` with what arrived in front of its slots; the runs are born, dropped slots become pending drops.
    fn arrive(&self, edit: &mut Edit, body: &NodeBody, arrivals: Vec<Arrival>) -> NodeBody {
        assert_eq!(body.slots.len(), arrivals.len(), "the gate holds the pivots still");
        let generation = edit.generation;
        let mut slots = body.slots.clone();
        for (slot, arrival) in slots.iter_mut().zip(arrivals) {
            // Runs that only moved are born already.
            for run in arrival.runs.iter().filter(|run| run.birth().0 == 0) {
                self.deaths.born(run.space(), generation);
            }
            if arrival.drop_rest && !(slot.runs.is_empty() && slot.child.is_none()) {
                edit.drops.add_slot(slot, Dropping::now(generation), &self.deaths, generation);
                let child = NodeBody::empty(&self.dmu, body.level).slots[0].child.clone();
                *slot = Arc::new(Slot::new(arrival.runs, 0, child));
            } else if !arrival.runs.is_empty() {
                *slot = Arc::new(slot.with_newer(&arrival.runs));
            }
        }
        if !edit.drops.is_empty() {
            self.jobs.push(self.id, Job::ResolveDrops);
        }
        NodeBody { level: body.level, pivots: body.pivots.clone(), slots }
    }

    /// Records the births of large values that folding wrote.
    pub(super) fn apply_written(&self, effects: &Effects, generation: Generation) {
        for space in &effects.written {
            self.deaths.born(space, generation);
        }
    }

    /// Publishes `body` at the end of `path` and, in the same version, `runs` as the runs of the slot at `depth` above.
    fn publish_below(&self, edit: &Edit, path: &Path, depth: usize, runs: Vec<Arc<Run>>, body: NodeBody) {
        let mut child = super::node::NodeCell::fresh(&self.dmu, body);
        for (at, step) in path.steps.iter().enumerate().rev() {
            step.cell.die(&self.deaths, edit.generation);
            if at + 1 == path.steps.len() {
                continue;
            }
            let old = &step.body.slots[step.index];
            let slot = match at == depth {
                true => Slot::new(runs.clone(), 0, Some(child)),
                false => old.with_child(child),
            };
            child = super::node::NodeCell::fresh(
                &self.dmu,
                step.body.with_slots(step.index, vec![Arc::new(slot)], Vec::new()),
            );
        }
        self.publish_root(child, None);
    }

    /// Queues what the slots of the node at `level` and `low` are due for.
    pub(super) fn queue_node_at(&self, level: u8, low: &[u8]) -> Result<(), TreeError> {
        let version = self.version.load_full();
        if let Some(path) = self.locate(&version.root, level, low)? {
            let body = path.body();
            for index in 0..body.slots.len() {
                let low = body.slot_low(index).unwrap_or(path.node_low());
                self.queue_due(body, index, low);
            }
            if body.slots.len() > self.options.fanout {
                self.jobs.push(self.id, Job::SplitNode { level, low: path.node_low().to_vec() });
            }
        }
        Ok(())
    }

    fn queue_node(&self, low: &[u8]) -> Result<(), TreeError> {
        let level = self.version.load().root.level();
        self.queue_node_at(level, low)
    }
}

/// The messages of `runs` in order.
pub(super) fn merge_cursor(runs: &[Arc<Run>]) -> MergeCursor {
    let cursors = runs
        .iter()
        .map(|run| Box::new(RunCursor::new(Arc::clone(run), ReadMode::Merge)) as Box<dyn EntryCursor>)
        .collect();
    MergeCursor::new(cursors)
}

/// The runs of `slot` that came after `consumed`, which are its oldest; `None` when they are not there any more.
pub(super) fn unconsumed(slot: &Slot, consumed: &[Arc<Run>]) -> Option<Vec<Arc<Run>>> {
    let newer = slot.runs.len().checked_sub(consumed.len())?;
    let same = slot.runs[newer..].iter().zip(consumed).all(|(now, then)| Arc::ptr_eq(now, then));
    same.then(|| slot.runs[..newer].to_vec())
}

/// Runs that may move by reference, with the slot of `target` that they go to, and the others.
fn split_trivial(runs: &[Arc<Run>], target: &NodeBody) -> (Vec<(usize, Arc<Run>)>, Runs) {
    let (mut moved, mut merged) = (Vec::new(), Vec::new());
    for run in runs {
        let index = target.slot_index(run.low());
        let high = target.slot_high(index);
        let inside = high.is_none_or(|high| run.ends_before(high)) && run.reference().range_deletes == 0;
        let alone = runs.iter().filter(|other| !Arc::ptr_eq(other, run)).all(|other| !other.overlaps(run));
        // Small runs are better merged with their neighbours than carried around.
        if inside && alone && run.stored_bytes() >= 256 << 10 {
            moved.push((index, Arc::clone(run)));
        } else {
            merged.push(Arc::clone(run));
        }
    }
    (moved, merged)
}

/// Joins the runs for each slot with whether a range delete covers it whole.
fn arrivals(
    runs: Vec<Runs>,
    ranges: &[RangeDelete],
    low: &[u8],
    high: Option<&[u8]>,
    target: &NodeBody,
) -> Vec<Arrival> {
    let mut arrivals = Vec::with_capacity(runs.len());
    for (index, runs) in runs.into_iter().enumerate() {
        let low = target.slot_low(index).unwrap_or(low);
        let high = target.slot_high(index).or(high);
        let drop_rest = ranges.iter().any(|range| {
            *range.start <= *low
                && match (range.end.as_deref(), high) {
                    (None, _) => true,
                    (Some(end), Some(high)) => end >= high,
                    (Some(_), None) => false,
                }
        });
        arrivals.push(Arrival { runs, drop_rest });
    }
    arrivals
}

impl Table {
    /// The large values that the table's messages name.
    ///
    /// # Errors
    /// A pointer that does not decode.
    pub fn large_values(&self) -> Result<Vec<LargeValue>, TreeError> {
        let mut values = Vec::new();
        self.memtable.for_each(None, None, &mut |entry| {
            if entry.kind == crate::run::Kind::PutLarge {
                values.push(LargeValue::decode(entry.payload)?);
            }
            Ok::<_, TreeError>(ControlFlow::Continue(()))
        })?;
        Ok(values)
    }
}
