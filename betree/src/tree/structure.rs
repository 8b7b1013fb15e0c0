//! Splits and joins of nodes, and the height of the tree.

use super::claim::Gate;
use super::compact::range_deletes;
use super::node::{NodeBody, NodeCell, Slot};
use super::tree::{Path, keepers};
use super::{Job, Tree, TreeError};
use std::sync::Arc;

/// A slot made of two, and the child nodes that it no longer has.
type JoinedSlot = (Slot, Vec<Arc<NodeCell>>);

/// What a join leaves to do.
enum Joined {
    Nothing,
    /// The slot at this lower bound may be due for more.
    Slot(Vec<u8>),
    /// The node at this lower bound has one slot left.
    Node(Vec<u8>),
    /// The root has one slot left.
    Root,
}

impl Tree {
    /// Holds the pivots of the node of `level` that holds `key` alone; `None` when the tree is lower than that.
    pub(super) fn exclude_node(&self, level: u8, key: &[u8]) -> Result<Option<Gate<'_>>, TreeError> {
        loop {
            let Some(low) = self.node_low(level, key)? else {
                return Ok(None);
            };
            let gate = self.claims.exclude((level, low.clone()));
            // The node may have split while the gate was waited for.
            if self.node_low(level, key)?.as_ref() == Some(&low) {
                return Ok(Some(gate));
            }
        }
    }

    /// Holds the pivots of the node of `level` that begins at `low` alone; `None` when there is none. So it is when a slot above
    /// was dropped, which asks nobody below: there is one empty node then, for whoever is looked for.
    fn exclude_node_at(&self, level: u8, low: &[u8]) -> Result<Option<Gate<'_>>, TreeError> {
        let is_there = || Ok::<_, TreeError>(self.node_low(level, low)?.as_deref() == Some(low));
        if !is_there()? {
            return Ok(None);
        }
        let gate = self.claims.exclude((level, low.to_vec()));
        Ok(if is_there()? { Some(gate) } else { None })
    }

    fn node_low(&self, level: u8, key: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        let version = self.version.load_full();
        Ok(self.locate(&version.root, level, key)?.map(|path| path.node_low().to_vec()))
    }

    /// Splits the node of `level` at `low` in two halves when it has more slots than the fan-out. The runs of its slot
    /// in the parent that cross the new pivot are rewritten in the same version.
    pub(super) fn split_node(&self, level: u8, low: &[u8]) -> Result<(), TreeError> {
        if self.version.load().root.level() == level {
            return self.split_root(level);
        }
        let Some(_claim) = self.claims.claim((level + 1, low.to_vec())) else {
            return Ok(());
        };
        let Some(_parent_gate) = self.exclude_node(level + 1, low)? else {
            return Ok(());
        };
        let Some(_gate) = self.exclude_node(level, low)? else {
            return Ok(());
        };
        let version = self.version.load_full();
        let Some(path) = self.locate(&version.root, level, low)?.filter(|path| self.crowded(path, low))
        else {
            return Ok(());
        };
        let middle = path.body().slots.len() / 2;
        let pivot = path.body().pivots[middle - 1].clone();
        let Some(above) = self.locate(&version.root, level + 1, low)? else {
            return Ok(());
        };
        let slot = Arc::clone(above.slot());
        let crossing = slot.runs.iter().any(|run| run.crosses(&pivot));
        let generation = self.edit.lock().generation;
        let mut effects = super::compact::Effects::default();
        let mut parts = Vec::new();
        if crossing {
            let empty = Arc::new(Slot::new(Vec::new(), 0, None));
            let target = NodeBody {
                level: level + 1,
                pivots: vec![pivot.clone()],
                slots: vec![Arc::clone(&empty), empty],
            };
            let ranges = range_deletes(&slot.runs)?;
            (parts, effects) = self.merge_into_slots(&slot.runs, &target, low, ranges, generation)?;
        } else {
            for side in [false, true] {
                let of_side = |run: &&Arc<crate::run::Run>| (*run.low() >= *pivot) == side;
                parts.push(slot.runs.iter().filter(of_side).cloned().collect());
            }
        }

        let edit = self.edit.lock();
        let version = self.version.load_full();
        let (Some(path), Some(above)) =
            (self.locate(&version.root, level, low)?, self.locate(&version.root, level + 1, low)?)
        else {
            return Ok(());
        };
        if !Arc::ptr_eq(above.slot(), &slot) && !same_runs(above.slot(), &slot) {
            return Ok(());
        }
        let body = path.body();
        // Slots are split and merged only behind the node's gate, which is held; but the whole tree may be another one.
        if body.pivots.get(middle - 1) != Some(&pivot) {
            return Ok(());
        }
        if effects.are_late(edit.generation) {
            self.jobs.push(self.id, Job::SplitNode { level, low: low.to_vec() });
            return Ok(());
        }
        let (left, right) = halves(body, middle);
        for run in parts.iter().flatten().filter(|run| run.birth().0 == 0) {
            self.deaths.born(run.space(), edit.generation);
        }
        self.apply_written(&effects, edit.generation);
        if crossing {
            let heirs = keepers(parts.iter().flatten());
            self.retire_runs(&slot.runs, effects.dropped, heirs, edit.generation);
        }
        if let Some(step) = path.steps.last() {
            step.cell.die(&self.deaths, edit.generation);
        }
        let mut parts = parts.into_iter();
        let mut new_slot = |body: NodeBody| {
            Arc::new(Slot::new(parts.next().unwrap_or_default(), 0, Some(NodeCell::fresh(&self.dmu, body))))
        };
        let slots = vec![new_slot(left), new_slot(right)];
        let parent = above.body().with_slots(above.index(), slots, vec![pivot]);
        let crowded = parent.slots.len() > self.options.fanout;
        let parent_low = above.node_low().to_vec();
        self.publish(&edit, &above, parent, None);
        drop(edit);
        if crowded {
            self.jobs.push(self.id, Job::SplitNode { level: level + 1, low: parent_low });
        }
        Ok(())
    }

    fn crowded(&self, path: &Path, low: &[u8]) -> bool {
        path.node_low() == low
            && path.body().slots.len() > self.options.fanout
            && path.body().slots.len() >= 2
    }

    /// Puts a new root above the old one, which is split in two. The new root's buffers are empty, so nothing crosses.
    fn split_root(&self, level: u8) -> Result<(), TreeError> {
        let Some(_gate) = self.exclude_node(level, &[])? else {
            return Ok(());
        };
        let edit = self.edit.lock();
        let version = self.version.load_full();
        let Some(path) = self.locate(&version.root, level, &[])? else {
            return Ok(());
        };
        if version.root.level() != level || !self.crowded(&path, &[]) {
            return Ok(());
        }
        let body = path.body();
        let middle = body.slots.len() / 2;
        let pivot = body.pivots[middle - 1].clone();
        let (left, right) = halves(body, middle);
        version.root.die(&self.deaths, edit.generation);
        let slot = |body| Arc::new(Slot::new(Vec::new(), 0, Some(NodeCell::fresh(&self.dmu, body))));
        let root = NodeBody { level: level + 1, pivots: vec![pivot], slots: vec![slot(left), slot(right)] };
        self.publish_root(NodeCell::fresh(&self.dmu, root), None);
        Ok(())
    }

    /// Joins the slot of `level` at `low` with its right neighbour (the last slot: with its left one) when both are
    /// small; a node left with one slot is joined with its own neighbour, and a root with one slot gives way to its
    /// child. Nothing is read or written.
    pub(super) fn join_slots(&self, level: u8, low: &[u8]) -> Result<(), TreeError> {
        match self.join_behind_gates(level, low)? {
            Joined::Nothing => Ok(()),
            Joined::Slot(low) => self.queue_slot(level, &low),
            Joined::Node(low) => {
                self.jobs.push(self.id, Job::JoinSlots { level: level + 1, low });
                Ok(())
            }
            Joined::Root => self.lower_root(),
        }
    }

    /// As [`Tree::join_slots`]; what is left to do takes gates of its own, so these are given back first.
    fn join_behind_gates(&self, level: u8, low: &[u8]) -> Result<Joined, TreeError> {
        let Some(_gate) = self.exclude_node(level, low)? else {
            return Ok(Joined::Nothing);
        };
        let version = self.version.load_full();
        let Some(path) = self.locate(&version.root, level, low)?.filter(|path| path.slot_low() == low) else {
            return Ok(Joined::Nothing);
        };
        let count = path.body().slots.len();
        if count == 1 {
            let is_root = version.root.level() == level;
            return Ok(if is_root { Joined::Root } else { Joined::Node(path.node_low().to_vec()) });
        }
        let left = if path.index() + 1 < count { path.index() } else { path.index() - 1 };
        let place = |index: usize| {
            let low = path.body().slot_low(index).unwrap_or(path.node_low());
            (level, low.to_vec())
        };
        let (Some(_left), Some(_right)) =
            (self.claims.claim(place(left)), self.claims.claim(place(left + 1)))
        else {
            return Ok(Joined::Nothing);
        };
        let (left_low, right_low) = (place(left).1, place(left + 1).1);
        // A merge in a child may be waiting to change the child's pivots: its gate must not lose its meaning.
        let mut gates = Vec::new();
        for low in [&left_low, &right_low].into_iter().filter(|_| level > 1) {
            let Some(gate) = self.exclude_node_at(level - 1, low)? else {
                return Ok(Joined::Nothing);
            };
            gates.push(gate);
        }
        let edit = self.edit.lock();
        let version = self.version.load_full();
        let Some(path) =
            self.locate(&version.root, level, &left_low)?.filter(|path| path.slot_low() == left_low)
        else {
            return Ok(Joined::Nothing);
        };
        let body = path.body();
        let index = path.index();
        let Some((a, b)) = body.slots.get(index).zip(body.slots.get(index + 1)) else {
            return Ok(Joined::Nothing);
        };
        let Some((joined, dead)) = self.joined(a, b, &body.pivots[index])? else {
            return Ok(Joined::Nothing);
        };
        for cell in dead {
            cell.die(&self.deaths, edit.generation);
        }
        let mut new = NodeBody { level, pivots: body.pivots.clone(), slots: body.slots.clone() };
        new.slots.splice(index..=index + 1, [Arc::new(joined)]);
        new.pivots.remove(index);
        let alone = new.slots.len() == 1;
        let node_low = path.node_low().to_vec();
        let is_root = path.steps.len() == 1;
        self.publish(&edit, &path, new, None);
        drop(edit);
        Ok(match (alone, is_root) {
            (true, true) => Joined::Root,
            (true, false) => Joined::Node(node_low),
            (false, _) => Joined::Slot(left_low),
        })
    }

    /// `a` and `b` as one slot; `None` when together they are too large.
    fn joined(&self, a: &Slot, b: &Slot, pivot: &[u8]) -> Result<Option<JoinedSlot>, TreeError> {
        let runs = |slot: &Slot, base: bool| {
            let deltas = slot.runs.len() - slot.base;
            if base { slot.runs[deltas..].to_vec() } else { slot.runs[..deltas].to_vec() }
        };
        let (Some(left), Some(right)) = (&a.child, &b.child) else {
            let total = a.base_bytes + a.delta_bytes + b.base_bytes + b.delta_bytes;
            let base = a.base + b.base;
            if total > self.options.leaf_bytes / 2 || base > 64 {
                return Ok(None);
            }
            let all = [runs(a, false), runs(b, false), runs(a, true), runs(b, true)].concat();
            return Ok(Some((Slot::new(all, base, None), Vec::new())));
        };
        let (left_body, right_body) = (left.load(&self.dmu)?, right.load(&self.dmu)?);
        if left_body.slots.len() + right_body.slots.len() > self.options.fanout.max(4) * 3 / 4 {
            return Ok(None);
        }
        let mut pivots = left_body.pivots.clone();
        pivots.push(pivot.into());
        pivots.extend(right_body.pivots.iter().cloned());
        let slots = left_body.slots.iter().chain(&right_body.slots).cloned().collect();
        let child = NodeCell::fresh(&self.dmu, NodeBody { level: left_body.level, pivots, slots });
        let all = [a.runs.clone(), b.runs.clone()].concat();
        Ok(Some((Slot::new(all, 0, Some(child)), vec![Arc::clone(left), Arc::clone(right)])))
    }

    /// Replaces roots of one slot with an empty buffer by their child.
    fn lower_root(&self) -> Result<(), TreeError> {
        loop {
            let level = self.version.load().root.level();
            if level == 1 {
                return Ok(());
            }
            let Some(_gate) = self.exclude_node(level, &[])? else {
                continue;
            };
            let edit = self.edit.lock();
            let version = self.version.load_full();
            let body = version.root.load(&self.dmu)?;
            let slot = &body.slots[0];
            if body.level != level || body.slots.len() > 1 {
                return Ok(());
            }
            match &slot.child {
                Some(child) if slot.runs.is_empty() => {
                    version.root.die(&self.deaths, edit.generation);
                    self.publish_root(Arc::clone(child), None);
                }
                _ => {
                    drop(edit);
                    self.jobs.push(self.id, Job::FlushSlot { level, low: Vec::new() });
                    return Ok(());
                }
            }
        }
    }
}

fn halves(body: &NodeBody, middle: usize) -> (NodeBody, NodeBody) {
    let left = NodeBody {
        level: body.level,
        pivots: body.pivots[..middle - 1].to_vec(),
        slots: body.slots[..middle].to_vec(),
    };
    let right = NodeBody {
        level: body.level,
        pivots: body.pivots[middle..].to_vec(),
        slots: body.slots[middle..].to_vec(),
    };
    (left, right)
}

fn same_runs(a: &Slot, b: &Slot) -> bool {
    a.runs.len() == b.runs.len() && a.runs.iter().zip(&b.runs).all(|(a, b)| Arc::ptr_eq(a, b))
}

#[cfg(test)]
impl Tree {
    /// Does `work` while a join of the first slots of `level` waits for the first of the nodes below them; whether the join came to
    /// an end afterwards.
    pub fn beside_a_join(self: &Arc<Self>, level: u8, work: impl FnOnce()) -> bool {
        assert!(level > 1 && self.version.load().root.level() >= level);
        let gate = self.exclude_node_at(level - 1, &[]).unwrap().unwrap();
        let tree = Arc::clone(self);
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(tree.join_slots(level, &[])));
        while !self.claims.is_claimed(&(level, Vec::new())) {
            std::thread::yield_now();
        }
        work();
        drop(gate);
        // So that it fails rather than hangs.
        ended.recv_timeout(std::time::Duration::from_secs(60)).is_ok_and(|joined| joined.is_ok())
    }
}
