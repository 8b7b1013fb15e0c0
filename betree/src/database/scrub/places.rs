//! What there is to look at: of the root tree, and of one dataset at one instant.

use super::format::HEAD;
use crate::base::ids::Generation;
use crate::database::catalog::DatasetState;
use crate::database::core::Core;
use crate::database::error::Result;
use crate::database::snapshots::snapshot_generations;
use crate::dmu::{Hold, Keeper, ScrubTask};
use crate::tree::{Births, Dropping, Drops, View};
use std::sync::Arc;

/// What belongs to no dataset, held.
pub(in crate::database) struct Ground {
    pub view: View,
    /// Keeps chunks of dead lists that go meanwhile.
    pub keeper: Arc<Keeper>,
    /// The allocation table's root, and the lists of its extents.
    pub table: Vec<ScrubTask>,
    /// The maps of vdevs that left, held.
    pub maps: Vec<(ScrubTask, Hold)>,
}

/// A dataset at one instant: the state to look at next, held.
pub(super) struct Sight {
    pub view: View,
    /// The snapshot that it is, or [`HEAD`].
    pub generation: Generation,
    /// Name of the dataset, with that of the snapshot.
    pub name: Arc<[u8]>,
    pub drops: Drops,
    /// Snapshots of the dataset, oldest first.
    own: Vec<Generation>,
    /// The snapshot that it was cloned from; 0 without one.
    pub origin: Generation,
}

impl Sight {
    /// What of something dropped is in no snapshot.
    pub fn births_of(&self, drop: Dropping, births: Births) -> Births {
        let before = self.own.iter().rev().find(|snapshot| **snapshot < drop.death);
        let floor = before.copied().unwrap_or(self.origin).max(drop.floor).max(births.floor);
        Births { floor, ..births }
    }
}

impl Core {
    /// What belongs to no dataset.
    pub(in crate::database) fn ground(&self) -> Result<Ground> {
        // Between two checkpoints: what the newest one names is what the next one starts from.
        let checkpointer = self.checkpointer.lock();
        let keeper = Arc::new(Keeper::default());
        self.scrubs.keep_lists(&keeper);
        let mut table = Vec::new();
        if let Some(record) = &checkpointer.record {
            table.extend(ScrubTask::of_lists(&record.table_extents));
            let extents = record.table_extents.extents().to_vec();
            table.push(ScrubTask::of(extents, u64::from(record.table_length), record.table_checksum));
        }
        let maps = self.dmu.map_tasks();
        Ok(Ground { view: self.snapshots.root()?, keeper, table, maps })
    }

    /// The state of `dataset` to look at when what was born up to `seen` is done: its first snapshot behind that, or the head.
    pub(super) fn sight(&self, dataset: &Arc<DatasetState>, seen: Generation) -> Result<Sight> {
        // While a checkpoint is written, what its snapshot has may be gone from the head already, and the snapshot not there.
        let _between = self.checkpointer.lock();
        let own = snapshot_generations(&self.snapshots.root()?, dataset.id)?;
        let origin = dataset.lineage.lock().origin.map_or(Generation(0), |origin| origin.snapshot);
        let mut name = dataset.name.read().clone();
        let (tree, generation) = match own.iter().find(|snapshot| **snapshot > seen) {
            Some(snapshot) => {
                let (tree, of_snapshot) = self.snapshot_tree(dataset, *snapshot)?;
                name.push(b'@');
                name.extend(of_snapshot);
                (tree, *snapshot)
            }
            None => (Arc::clone(&dataset.tree), HEAD),
        };
        let (view, drops) = (tree.view(), dataset.tree.pending_drops());
        Ok(Sight { view, generation, name: name.into(), drops, own, origin })
    }
}
