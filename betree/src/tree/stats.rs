//! Shape and size of a tree, and its dump.

use super::node::NodeCell;
use super::{Tree, TreeError};
use crate::run::Run;
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// Shape and size of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TreeStats {
    /// Levels of nodes; 1 for a root above leaves.
    pub levels: u8,
    /// Nodes.
    pub nodes: u64,
    /// Slots of level 1.
    pub leaves: u64,
    /// Runs in buffers above level 1, and newer runs of leaves.
    pub delta_runs: u64,
    /// Base runs of leaves.
    pub base_runs: u64,
    /// Messages in all runs; several for a key that was written several times.
    pub messages: u64,
    /// Range deletes in all runs.
    pub range_deletes: u64,
    /// Bytes of all runs on the devices.
    pub stored_bytes: u64,
    /// Bytes of keys and messages in all runs, uncompressed.
    pub raw_bytes: u64,
    /// Bytes of upserts in all runs: of those on large values, what was not folded yet.
    pub upsert_bytes: u64,
    /// Bytes of large values that the runs name.
    pub large_bytes: u64,
    /// Bytes in memtables.
    pub memtable_bytes: u64,
    /// Memtables that wait to be flushed.
    pub frozen_memtables: u64,
}

impl Tree {
    /// Walks all node headers.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn stats(&self) -> Result<TreeStats, TreeError> {
        let version = self.version();
        let mut stats = TreeStats {
            levels: version.root.level(),
            memtable_bytes: (version.active_bytes() + version.frozen_bytes()) as u64,
            frozen_memtables: version.frozen.len() as u64,
            ..TreeStats::default()
        };
        self.add_node(&version.root, &mut stats)?;
        Ok(stats)
    }

    fn add_node(&self, cell: &Arc<NodeCell>, stats: &mut TreeStats) -> Result<(), TreeError> {
        let body = cell.load(&self.dmu)?;
        stats.nodes += 1;
        for slot in &body.slots {
            stats.base_runs += slot.base as u64;
            stats.delta_runs += (slot.runs.len() - slot.base) as u64;
            for run in &slot.runs {
                stats.messages += run.reference().entries;
                stats.range_deletes += u64::from(run.reference().range_deletes);
                stats.stored_bytes += run.stored_bytes();
                stats.raw_bytes += run.reference().raw_bytes;
                stats.upsert_bytes += run.reference().upsert_bytes;
                stats.large_bytes += run.reference().large_bytes;
            }
            match &slot.child {
                Some(child) => self.add_node(child, stats)?,
                None => stats.leaves += 1,
            }
        }
        Ok(())
    }

    /// Nodes, slots and runs as JSON; keys are escaped.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn dump(&self) -> Result<Json, TreeError> {
        let version = self.version();
        let root = self.dump_node(&version.root)?;
        Ok(json!({
            "memtable_bytes": version.active_bytes(),
            "frozen_memtables": version.frozen.len(),
            "root": root,
        }))
    }

    fn dump_node(&self, cell: &Arc<NodeCell>) -> Result<Json, TreeError> {
        let body = cell.load(&self.dmu)?;
        let mut slots = Vec::new();
        for (index, slot) in body.slots.iter().enumerate() {
            let child = slot.child.as_ref().map(|child| self.dump_node(child)).transpose()?;
            slots.push(json!({
                "from": body.slot_low(index).map(escaped),
                "to": body.slot_high(index).map(escaped),
                "base_runs": slot.base,
                "runs": slot.runs.iter().map(|run| dump_run(run)).collect::<Vec<_>>(),
                "child": child,
            }));
        }
        let place = cell.reference().map(|reference| {
            json!({ "birth": reference.birth.0, "extents": extents(reference.extents.extents()) })
        });
        Ok(json!({ "level": body.level, "stored": place, "slots": slots }))
    }
}

fn escaped(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

fn extents(extents: &[crate::base::extent::Extent]) -> Vec<String> {
    extents.iter().map(ToString::to_string).collect()
}

fn dump_run(run: &Run) -> Json {
    json!({
        "entries": run.reference().entries,
        "range_deletes": run.reference().range_deletes,
        "upsert_bytes": run.reference().upsert_bytes,
        "bytes": run.stored_bytes(),
        "first": run.reference().keys.as_ref().map(|(first, _)| escaped(first)),
        "last": run.reference().keys.as_ref().map(|(_, last)| escaped(last)),
        "birth": run.birth().0,
        "extents": extents(run.space().extents()),
    })
}
