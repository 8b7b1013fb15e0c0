//! What was dropped whole and waits to be freed: subtrees under a range delete, the tree of a destroyed dataset.
//!
//! A drop costs one entry; a background job resolves it in steps of one node or run. The list is part of every
//! checkpoint, and a step changes the list and the allocation in one generation: after a crash the job goes on where
//! the checkpoint stands.

use super::TreeError;
use super::format::NodeRef;
use super::node::{NodeCell, Slot};
use super::value::LargeValue;
use crate::base::codec::{DecodeError, Decoder, Encoder};
use crate::base::ids::Generation;
use crate::dmu::{Deaths, Dmu, DmuError, OwnedExtents};
use crate::run::{EntryCursor, Kind, ReadMode, Run, RunCursor};
use std::sync::Arc;

/// Something that is no longer part of a tree, and still allocated.
#[derive(Debug, Clone)]
pub enum Dropped {
    /// A stored node and all that it reaches.
    Node(Arc<NodeCell>),
    /// A run and the large values that it names.
    Run(Arc<Run>),
}

/// When something was dropped, and what of it stays alive elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropping {
    /// The first checkpoint whose tree is without it.
    pub death: Generation,
    /// What was born up to here belongs to a snapshot that the tree went back to, or was made of: it does not die. 0: all
    /// dies.
    pub floor: Generation,
}

impl Dropping {
    /// Something that dies whole, in `generation`.
    #[must_use]
    pub fn now(generation: Generation) -> Self {
        Self { death: generation, floor: Generation(0) }
    }

    /// Whether the tree still counts it among its blocks: not when it was set to those of a snapshot.
    pub(super) fn is_counted(self) -> bool {
        self.floor.0 == 0
    }
}

/// Dropped things of one tree, last in, first out, so that the list stays short.
#[derive(Debug, Clone, Default)]
pub struct Drops {
    entries: Vec<(Dropping, Dropped)>,
}

impl Drops {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes over a slot that the tree refers to no longer. `generation` is the one that is being made.
    pub fn add_slot(&mut self, slot: &Slot, drop: Dropping, deaths: &Deaths, generation: Generation) {
        for run in &slot.runs {
            self.add_run(run, drop, deaths, generation);
        }
        if let Some(child) = &slot.child {
            self.add_node(child, drop, deaths, generation);
        }
    }

    /// Takes over a node that the tree refers to no longer.
    pub fn add_node(
        &mut self,
        cell: &Arc<NodeCell>,
        drop: Dropping,
        deaths: &Deaths,
        generation: Generation,
    ) {
        if cell.is_born_by(drop.floor) {
            return;
        }
        // A node that is only in memory is not worth an entry, and has no pointer that one could store.
        match cell.die_in_memory(generation) {
            Some(body) => {
                body.slots.iter().for_each(|slot| self.add_slot(slot, drop, deaths, generation));
            }
            None => self.entries.push((drop, Dropped::Node(Arc::clone(cell)))),
        }
    }

    fn add_run(&mut self, run: &Arc<Run>, drop: Dropping, deaths: &Deaths, generation: Generation) {
        if run.birth() <= drop.floor {
            return;
        }
        if run.reference().large_bytes == 0 {
            deaths.died_in(run.space(), drop.death, generation, drop.is_counted());
        } else {
            self.entries.push((drop, Dropped::Run(Arc::clone(run))));
        }
    }

    /// What was dropped after `snapshot` and is in it does not die: the tree goes back to it. The rest of it was dropped in
    /// `death` at the latest.
    pub fn go_back_to(&mut self, snapshot: Generation, death: Generation) {
        for (drop, _) in self.entries.iter_mut().filter(|(drop, _)| drop.death > snapshot) {
            drop.floor = drop.floor.max(snapshot);
            drop.death = drop.death.min(death);
        }
    }

    /// The entry to resolve next.
    #[must_use]
    pub fn last(&self) -> Option<Dropped> {
        self.entries.last().map(|(_, dropped)| dropped.clone())
    }

    /// Finishes the step that `Step::prepare` prepared for `dropped`. Entries may have come since, and none may have
    /// been resolved: steps take turns.
    pub fn apply(
        &mut self,
        dropped: &Dropped,
        step: Step,
        dmu: &Dmu,
        deaths: &Deaths,
        generation: Generation,
    ) {
        let same = |other: &Dropped| match (other, dropped) {
            (Dropped::Node(a), Dropped::Node(b)) => Arc::ptr_eq(a, b),
            (Dropped::Run(a), Dropped::Run(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let Some(at) = self.entries.iter().rposition(|(_, other)| same(other)) else {
            unreachable!("only this step resolves entries");
        };
        let (drop, dropped) = self.entries.remove(at);
        match (dropped, step) {
            // The floor may have risen since.
            (Dropped::Node(cell), Step::Node(_)) if cell.is_born_by(drop.floor) => {}
            (Dropped::Run(run), Step::Run(_)) if run.birth() <= drop.floor => {}
            (Dropped::Node(cell), Step::Node(slots)) => {
                cell.die_in(deaths, drop, generation);
                slots.iter().for_each(|slot| self.add_slot(slot, drop, deaths, generation));
            }
            (Dropped::Run(run), Step::Run(values)) => {
                for value in values.into_iter().filter(|value| value.birth > drop.floor) {
                    let space = Arc::new(OwnedExtents::of_value(dmu, value.extents, value.birth));
                    deaths.died_in(&space, drop.death, generation, drop.is_counted());
                    run.space().keeper().keep(space);
                }
                deaths.died_in(run.space(), drop.death, generation, drop.is_counted());
            }
            _ => unreachable!("steps are applied to the entry that they were prepared for"),
        }
    }

    /// Appends the list in chunks, each with its own bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<Vec<u8>> {
        self.entries.chunks(64).map(encode_chunk).collect()
    }

    /// Adds a chunk that [`Drops::encode`] wrote.
    ///
    /// # Errors
    /// Bytes that are not a chunk; device errors while reading spilled extent lists.
    pub fn decode_chunk(&mut self, bytes: &[u8], dmu: &Dmu) -> Result<(), DmuError> {
        let plain = |source| DmuError::Decode { what: "pending drops", source };
        let mut input = Decoder::new(bytes);
        while input.remaining() > 0 {
            let (drop, kind) = decode_drop(&mut input).map_err(plain)?;
            let dropped = match kind {
                NODE => Dropped::Node(NodeCell::on_disk(dmu, NodeRef::decode(&mut input, dmu)?)),
                _ => {
                    let reference = input.bytes(1 << 20, "run pointer").map_err(plain)?;
                    Dropped::Run(Run::from_reference(dmu, reference)?)
                }
            };
            self.entries.push((drop, dropped));
        }
        Ok(())
    }

    /// All entries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Dropping, &Dropped)> {
        self.entries.iter().map(|(drop, dropped)| (*drop, dropped))
    }
}

pub(super) const NODE: u8 = 0;
pub(super) const RUN: u8 = 1;
/// Added to the kind of an entry with a floor.
const WITH_FLOOR: u8 = 2;

/// Generation, kind and, where there is one, floor of an entry.
pub(super) fn encode_drop(drop: Dropping, kind: u8, out: &mut Encoder) {
    out.u64(drop.death.0);
    if drop.floor.0 == 0 {
        out.u8(kind);
    } else {
        out.u8(kind + WITH_FLOOR);
        out.u64(drop.floor.0);
    }
}

/// Reads what [`encode_drop`] wrote.
pub(super) fn decode_drop(input: &mut Decoder<'_>) -> Result<(Dropping, u8), DecodeError> {
    let death = input.generation("drop generation")?;
    let kind = input.u8("drop kind")?;
    if kind > RUN + WITH_FLOOR {
        return Err(input.invalid("drop kind"));
    }
    if kind < WITH_FLOOR {
        return Ok((Dropping::now(death), kind));
    }
    let floor = input.generation("drop floor")?;
    if floor.0 == 0 {
        return Err(input.invalid("drop floor"));
    }
    Ok((Dropping { death, floor }, kind - WITH_FLOOR))
}

fn encode_chunk(entries: &[(Dropping, Dropped)]) -> Vec<u8> {
    let mut out = Encoder::new();
    for (drop, dropped) in entries {
        match dropped {
            Dropped::Node(cell) => {
                let Some(reference) = cell.reference() else {
                    unreachable!("only stored nodes become entries");
                };
                encode_drop(*drop, NODE, &mut out);
                reference.encode(&mut out);
            }
            Dropped::Run(run) => {
                let mut reference = Encoder::new();
                run.encode_reference(&mut reference);
                encode_drop(*drop, RUN, &mut out);
                out.bytes(reference.as_slice());
            }
        }
    }
    out.finish()
}

/// One step of resolving, read from disk and not yet applied.
#[derive(Debug)]
pub enum Step {
    /// The slots of a node.
    Node(Vec<Arc<Slot>>),
    /// The large values of a run.
    Run(Vec<LargeValue>),
}

impl Step {
    /// Reads what the step of `dropped` needs.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn prepare(dropped: &Dropped, dmu: &Dmu) -> Result<Self, TreeError> {
        match dropped {
            Dropped::Node(cell) => Ok(Self::Node(cell.load(dmu)?.slots.clone())),
            Dropped::Run(run) => Ok(Self::Run(large_values(run)?)),
        }
    }
}

/// The large values that a run names.
///
/// # Errors
/// Device errors and damage.
pub(super) fn large_values(run: &Arc<Run>) -> Result<Vec<LargeValue>, TreeError> {
    let mut values = Vec::new();
    let mut cursor = RunCursor::new(Arc::clone(run), ReadMode::Merge);
    cursor.seek(&[])?;
    while let Some(entry) = cursor.entry() {
        if entry.kind == Kind::PutLarge {
            values.push(LargeValue::decode(entry.payload)?);
        }
        cursor.next()?;
    }
    Ok(values)
}
