//! What was dropped whole and waits to be freed: subtrees under a range delete, the tree of a destroyed dataset.
//!
//! A drop costs one entry; a background job resolves it in steps of one node or run. The list is part of every
//! checkpoint, and a step changes the list and the allocation in one generation: after a crash the job goes on where
//! the checkpoint stands.

use super::TreeError;
use super::format::NodeRef;
use super::node::{NodeCell, Slot};
use super::value::LargeValue;
use crate::base::codec::{Decoder, Encoder};
use crate::base::ids::Generation;
use crate::dmu::{Dmu, DmuError, OwnedExtents};
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

/// Dropped things of one tree, last in, first out, so that the list stays short.
#[derive(Debug, Clone, Default)]
pub struct Drops {
    entries: Vec<(Generation, Dropped)>,
}

impl Drops {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes over a slot that the tree refers to no longer from `generation` on.
    pub fn add_slot(&mut self, slot: &Slot, generation: Generation) {
        for run in &slot.runs {
            self.add_run(run, generation);
        }
        if let Some(child) = &slot.child {
            self.add_node(child, generation);
        }
    }

    /// Takes over a node that the tree refers to no longer from `generation` on.
    pub fn add_node(&mut self, cell: &Arc<NodeCell>, generation: Generation) {
        // A node that is only in memory is not worth an entry, and has no pointer that one could store.
        match cell.die_in_memory(generation) {
            Some(body) => body.slots.iter().for_each(|slot| self.add_slot(slot, generation)),
            None => self.entries.push((generation, Dropped::Node(Arc::clone(cell)))),
        }
    }

    fn add_run(&mut self, run: &Arc<Run>, generation: Generation) {
        if run.reference().large_bytes == 0 {
            run.space().kill(generation);
        } else {
            self.entries.push((generation, Dropped::Run(Arc::clone(run))));
        }
    }

    /// The entry to resolve next.
    #[must_use]
    pub fn last(&self) -> Option<Dropped> {
        self.entries.last().map(|(_, dropped)| dropped.clone())
    }

    /// Finishes the step that `Step::prepare` prepared for `dropped`. Entries may have come since, and none may have
    /// been resolved: steps take turns.
    pub fn apply(&mut self, dropped: &Dropped, step: Step, dmu: &Dmu, generation: Generation) {
        let same = |other: &Dropped| match (other, dropped) {
            (Dropped::Node(a), Dropped::Node(b)) => Arc::ptr_eq(a, b),
            (Dropped::Run(a), Dropped::Run(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let Some(at) = self.entries.iter().rposition(|(_, other)| same(other)) else {
            unreachable!("only this step resolves entries");
        };
        let (_, dropped) = self.entries.remove(at);
        match (dropped, step) {
            (Dropped::Node(cell), Step::Node(slots)) => {
                cell.die(generation);
                slots.iter().for_each(|slot| self.add_slot(slot, generation));
            }
            (Dropped::Run(run), Step::Run(values)) => {
                for value in values {
                    let space = Arc::new(OwnedExtents::of_value(dmu, value.extents, value.birth));
                    space.kill(generation);
                    run.space().keeper().keep(space);
                }
                run.space().kill(generation);
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
            let generation = Generation(input.u64("drop generation").map_err(plain)?);
            let dropped = match input.u8("drop kind").map_err(plain)? {
                0 => Dropped::Node(NodeCell::on_disk(dmu, NodeRef::decode(&mut input, dmu)?)),
                1 => {
                    let reference = input.bytes(1 << 20, "run pointer").map_err(plain)?;
                    Dropped::Run(Run::from_reference(dmu, reference)?)
                }
                _ => return Err(plain(input.invalid("drop kind"))),
            };
            self.entries.push((generation, dropped));
        }
        Ok(())
    }

    /// All entries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Dropped> {
        self.entries.iter().map(|(_, dropped)| dropped)
    }
}

fn encode_chunk(entries: &[(Generation, Dropped)]) -> Vec<u8> {
    let mut out = Encoder::new();
    for (generation, dropped) in entries {
        out.u64(generation.0);
        match dropped {
            Dropped::Node(cell) => {
                let Some(reference) = cell.reference() else {
                    unreachable!("only stored nodes become entries");
                };
                out.u8(0);
                reference.encode(&mut out);
            }
            Dropped::Run(run) => {
                let mut reference = Encoder::new();
                run.encode_reference(&mut reference);
                out.u8(1);
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
