//! Merge: the deltas of a leaf and its base become a new base, and the leaf splits when it is too large; the runs of a
//! buffer become one.

use super::compact::{Compactor, Effects, Folding, range_deletes};
use super::flush::{merge_cursor, unconsumed};
use super::node::{NodeBody, Slot};
use super::output::{LeafOutputs, NewLeaf, OutputOptions};
use super::relocate::{Migrated, Relocation};
use super::tree::{is_patched, keepers};
use super::{Job, Tree, TreeError};
use crate::base::ids::Generation;
use crate::dmu::{Privilege, Stream};
use crate::run::{EntryCursor, Run};
use std::sync::Arc;

impl Tree {
    /// Merges the leaf at `low`; splits it above its maximum. Returns what `relocation` moved; `None` when nothing was
    /// done, because others work there or a checkpoint came between.
    ///
    /// # Errors
    /// Out of space, device errors; the leaf then stays as it is. Merged for space, it is merged although there was no
    /// room to fold all patches.
    pub(super) fn merge_leaf(
        &self,
        low: &[u8],
        folding: Folding,
        relocation: Option<&Relocation>,
    ) -> Result<Option<Migrated>, TreeError> {
        let Some(_claim) = self.claims.claim((1, low.to_vec())) else {
            return Ok(None);
        };
        let version = self.version.load_full();
        let Some(path) = self.locate(&version.root, 1, low)?.filter(|path| path.slot_low() == low) else {
            return Ok(None);
        };
        let slot = Arc::clone(path.slot());
        if slot.runs.is_empty() {
            return Ok(Some(Migrated::default()));
        }
        let generation = self.edit.lock().generation;
        // What has patches to fold does not stay as it is.
        let folds = folding == Folding::ForSpace && slot.runs.iter().any(|run| is_patched(run));
        let as_they_are = if relocation.is_some() || folds { None } else { self.leaves_by_reference(&slot) };
        let (leaves, effects, by_reference) = match as_they_are {
            Some(leaves) => (leaves, Default::default(), true),
            None => {
                let (leaves, effects) = self.write_leaves(&slot, generation, folding, relocation)?;
                (leaves, effects, false)
            }
        };
        // The pivots change: nothing may flush into the node until the new ones are published.
        let splits = leaves.len() > 1;
        let _gate = if splits { self.exclude_node(1, low)? } else { None };
        let divided = if splits { self.divide_newer(&slot, low, &leaves)? } else { None };

        let edit = self.edit.lock();
        let version = self.version.load_full();
        let Some(path) = self.locate(&version.root, 1, low)? else {
            return Ok(None);
        };
        let Some(newer) = unconsumed(path.slot(), &slot.runs) else {
            return Ok(None);
        };
        let late = |effects: &Effects| effects.are_late(edit.generation);
        if late(&effects) || divided.as_ref().is_some_and(|(_, _, effects)| late(effects)) {
            self.jobs.push(self.id, Job::MergeLeaf { low: low.to_vec() });
            return Ok(None);
        }
        let moved = effects.moved;
        let mut pivots = Vec::new();
        let mut slots = Vec::new();
        let mut divided_runs = divided.map(|(_, parts, effects)| {
            self.apply_written(&effects, edit.generation);
            let heirs = keepers(parts.iter().flatten());
            self.retire_runs(&newer, effects.dropped, heirs, edit.generation);
            parts.into_iter()
        });
        let heirs = keepers(leaves.iter().flat_map(|leaf| &leaf.runs));
        for leaf in leaves {
            for run in leaf.runs.iter().filter(|run| run.birth().0 == 0) {
                self.deaths.born(run.space(), edit.generation);
            }
            let deltas = match &mut divided_runs {
                Some(parts) => parts.next().unwrap_or_default(),
                None => newer.clone(),
            };
            for run in deltas.iter().filter(|run| run.birth().0 == 0) {
                self.deaths.born(run.space(), edit.generation);
            }
            pivots.extend(leaf.low);
            let base = leaf.runs.len();
            let runs = deltas.into_iter().chain(leaf.runs).collect();
            slots.push(Arc::new(Slot::new(runs, base, None)));
        }
        self.apply_written(&effects, edit.generation);
        let unfolded = effects.unfolded.filter(|_| folding == Folding::ForSpace);
        if !by_reference {
            self.retire_runs(&slot.runs, effects.dropped, heirs, edit.generation);
        }
        let bytes: u64 = slots.iter().map(|slot| slot.base_bytes + slot.delta_bytes).sum();
        let body = path.body().with_slots(path.index(), slots, pivots);
        let crowded = body.slots.len() > self.options.fanout;
        let several = body.slots.len() > 1 || path.steps.len() > 1;
        let node_low = path.node_low().to_vec();
        self.publish(&edit, &path, body, None);
        drop(edit);
        if crowded {
            self.jobs.push(self.id, Job::SplitNode { level: 1, low: node_low });
        } else if several && bytes < self.options.leaf_bytes / 4 {
            self.jobs.push(self.id, Job::JoinSlots { level: 1, low: low.to_vec() });
        }
        self.queue_slot(1, low)?;
        unfolded.map_or(Ok(Some(moved)), |error| Err(error.into()))
    }

    /// Merges the runs of a buffer into one.
    ///
    /// # Errors
    /// Out of space, device errors; the buffer then stays as it is.
    pub(super) fn merge_buffer(&self, level: u8, low: &[u8]) -> Result<(), TreeError> {
        let Some(_claim) = self.claims.claim((level, low.to_vec())) else {
            return Ok(());
        };
        let version = self.version.load_full();
        let Some(path) = self.locate(&version.root, level, low)?.filter(|path| path.slot_low() == low) else {
            return Ok(());
        };
        let slot = Arc::clone(path.slot());
        if slot.runs.len() < 2 || level < 2 {
            return Ok(());
        }
        let high = path.slot_high().map(<[u8]>::to_vec);
        let generation = self.edit.lock().generation;
        let whole = NodeBody { level, pivots: Vec::new(), slots: vec![Arc::clone(&slot)] };
        let ranges = range_deletes(&slot.runs)?;
        let (runs, effects) = self.merge_into_slots(&slot.runs, &whole, low, ranges, generation)?;
        let edit = self.edit.lock();
        let version = self.version.load_full();
        let Some(path) =
            self.locate(&version.root, level, low)?.filter(|path| path.slot_high() == high.as_deref())
        else {
            return Ok(());
        };
        let Some(mut all) = unconsumed(path.slot(), &slot.runs) else {
            return Ok(());
        };
        if effects.are_late(edit.generation) {
            self.jobs.push(self.id, Job::MergeBuffer { level, low: low.to_vec() });
            return Ok(());
        }
        let heirs = keepers(runs.iter().flatten());
        for run in runs.into_iter().flatten() {
            self.deaths.born(run.space(), edit.generation);
            all.push(run);
        }
        self.apply_written(&effects, edit.generation);
        self.retire_runs(&slot.runs, effects.dropped, heirs, edit.generation);
        let merged = Arc::new(Slot::new(all, 0, path.slot().child.clone()));
        let body = path.body().with_slots(path.index(), vec![merged], Vec::new());
        self.publish(&edit, &path, body, None);
        Ok(())
    }

    /// New leaves that are made of the slot's runs as they are: possible when no two overlap, as in an appending load.
    fn leaves_by_reference(&self, slot: &Slot) -> Option<Vec<NewLeaf>> {
        let mut runs: Vec<&Arc<Run>> = slot.runs.iter().collect();
        runs.sort_by(|a, b| a.low().cmp(b.low()));
        let disjoint = runs.windows(2).all(|pair| pair[0].ends_before(pair[1].low()));
        let clean = runs.iter().all(|run| run.reference().range_deletes == 0 && run.reference().deletes == 0);
        let large_enough = runs.iter().map(|run| run.stored_bytes()).sum::<u64>()
            >= runs.len() as u64 * (self.options.leaf_bytes / 8);
        if !disjoint || !clean || !large_enough {
            return None;
        }
        let mut leaves: Vec<NewLeaf> = Vec::new();
        let mut bytes = 0;
        for run in runs {
            let fits = bytes + run.stored_bytes() <= self.options.leaf_bytes + self.options.leaf_bytes / 4;
            match leaves.last_mut() {
                Some(leaf) if fits => leaf.runs.push(Arc::clone(run)),
                last => {
                    let low = last.is_some().then(|| run.low().into());
                    leaves.push(NewLeaf { low, runs: vec![Arc::clone(run)] });
                    bytes = 0;
                }
            }
            bytes += run.stored_bytes();
        }
        Some(leaves)
    }

    fn write_leaves(
        &self,
        slot: &Slot,
        generation: Generation,
        folding: Folding,
        relocation: Option<&Relocation>,
    ) -> Result<(Vec<NewLeaf>, Effects), TreeError> {
        let total = slot.base_bytes + slot.delta_bytes;
        let pieces = total.div_ceil(self.options.leaf_bytes).max(1);
        // What fits into a leaf stays one. Cut by what is not compressed yet, it would be joined and merged for ever.
        let piece = if pieces == 1 { self.options.leaf_bytes } else { total / pieces + total / pieces / 16 };
        let options = OutputOptions {
            dmu: &self.dmu,
            tree: &self.options,
            stream: Stream::Base,
            privilege: Privilege::Merge,
            expected_bytes: piece.min(total),
            run_bytes_max: piece,
            replaced: Some(&slot.runs),
        };
        let action = self.folding_action();
        let ranges = range_deletes(&slot.runs)?;
        let mut compactor = Compactor::new(
            &self.dmu,
            &self.options,
            action.as_ref(),
            Privilege::Merge,
            Some(folding),
            generation,
            ranges,
        );
        compactor.relocate(relocation);
        let mut outputs = LeafOutputs::new(options);
        let mut cursor = merge_cursor(&slot.runs);
        cursor.seek(&[])?;
        while let Some(entry) = cursor.entry() {
            compactor.push(entry, &mut outputs)?;
            cursor.next()?;
        }
        let effects = compactor.finish(&mut outputs)?;
        Ok((outputs.finish()?, effects))
    }

    /// The runs that arrived in the slot at `low` since `slot` was read, divided at the bounds of `leaves` where one
    /// crosses a bound; the gate of the node is held exclusively, so that no more arrive. `None` when nothing arrived.
    #[expect(clippy::type_complexity, reason = "used by one caller, in place")]
    fn divide_newer(
        &self,
        slot: &Slot,
        low: &[u8],
        leaves: &[NewLeaf],
    ) -> Result<Option<(Vec<Arc<Run>>, Vec<Vec<Arc<Run>>>, Effects)>, TreeError> {
        let version = self.version.load_full();
        let Some(path) = self.locate(&version.root, 1, low)? else {
            return Ok(None);
        };
        let Some(newer) = unconsumed(path.slot(), &slot.runs).filter(|newer| !newer.is_empty()) else {
            return Ok(None);
        };
        let pivots: Vec<Box<[u8]>> = leaves.iter().filter_map(|leaf| leaf.low.clone()).collect();
        let empty = Arc::new(Slot::new(Vec::new(), 0, None));
        let target = NodeBody { level: 1, slots: vec![empty; pivots.len() + 1], pivots };
        let generation = self.edit.lock().generation;
        let ranges = range_deletes(&newer)?;
        let (parts, effects) = self.merge_into_slots(&newer, &target, low, ranges, generation)?;
        Ok(Some((newer, parts, effects)))
    }

    /// Queues what the slot of `level` at `low` is due for.
    pub(super) fn queue_slot(&self, level: u8, low: &[u8]) -> Result<(), TreeError> {
        let version = self.version.load_full();
        if let Some(path) = self.locate(&version.root, level, low)? {
            self.queue_due(path.body(), path.index(), path.slot_low());
        }
        Ok(())
    }
}
