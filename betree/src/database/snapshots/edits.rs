//! Changes of the root tree that belong to one checkpoint, some of which can be taken back.

use crate::base::ids::Generation;
use crate::database::checkpoint::Checkpointer;
use crate::database::core::Core;
use crate::database::error::{Error, Result};
use crate::dmu::OwnedExtents;
use crate::tree::{Value, View};

/// What checkpoint `generation` writes into the root tree.
pub(in crate::database) struct RootEdits<'c> {
    core: &'c Core,
    checkpointer: &'c mut Checkpointer,
    pub generation: Generation,
    /// `None` while changes are not remembered.
    undo: Option<Undo>,
}

pub(super) fn of_root(error: crate::tree::TreeError) -> Error {
    Error::of_tree(b"root tree", error)
}

/// Visits the entries of `view` from `low` to before `high` until `visit` returns false.
pub(super) fn each_entry(
    view: &View,
    low: Vec<u8>,
    high: Vec<u8>,
    mut visit: impl FnMut(&[u8], &Value) -> Result<bool>,
) -> Result<()> {
    for entry in view.range(low, Some(high)) {
        let (key, value) = entry.map_err(of_root)?;
        if !visit(&key, &value)? {
            break;
        }
    }
    Ok(())
}

impl<'c> RootEdits<'c> {
    pub fn new(core: &'c Core, checkpointer: &'c mut Checkpointer, generation: Generation) -> Self {
        Self { core, checkpointer, generation, undo: None }
    }

    pub fn core(&self) -> &'c Core {
        self.core
    }

    /// Sets or takes away a record.
    pub fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let before = if self.undo.is_some() { Some(self.get(key)?) } else { None };
        if let (Some(undo), Some(before)) = (&mut self.undo, before) {
            undo.records.push((key.to_vec(), before));
        }
        self.core.put_root(self.checkpointer, self.generation, key, value);
        Ok(())
    }

    /// A number that no other edit of any checkpoint has.
    pub fn unique(&mut self) -> u64 {
        self.core.next_root_sequence(self.checkpointer, self.generation)
    }

    /// The record with this key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.core.root_tree.view().get(key).map_err(of_root)
    }

    /// Visits records in the order of their keys until `visit` returns false.
    pub fn each(
        &self,
        low: Vec<u8>,
        high: Vec<u8>,
        visit: impl FnMut(&[u8], &Value) -> Result<bool>,
    ) -> Result<()> {
        each_entry(&self.core.root_tree.view(), low, high, visit)
    }

    /// From here on, changes can be taken back.
    pub fn remember(&mut self) {
        self.undo = Some(Undo::default());
    }

    /// `space` was born for what is changed.
    pub fn remember_space(&mut self, space: OwnedExtents) {
        if let Some(undo) = &mut self.undo {
            undo.space.push(space);
        }
    }

    /// What it takes to take back the changes since [`RootEdits::remember`].
    pub fn into_undo(self) -> Undo {
        self.undo.unwrap_or_default()
    }
}

/// Records as they were, and what came with the new ones.
#[derive(Debug, Default)]
pub(in crate::database) struct Undo {
    /// Newest change last.
    records: Vec<(Vec<u8>, Option<Value>)>,
    space: Vec<OwnedExtents>,
}

impl Undo {
    /// Puts the records back, and gives the space back.
    pub fn apply(self, core: &Core, checkpointer: &mut Checkpointer, generation: Generation) {
        for (key, value) in self.records.into_iter().rev() {
            core.put_root(checkpointer, generation, &key, value.as_deref());
        }
        self.space.iter().for_each(|space| space.kill(generation));
    }
}
