//! Verification of a database: every tree of the newest checkpoint, and that the bitmaps say exactly what it reaches.

use super::catalog::{Catalog, DatasetState};
use super::checkpoint::Checkpointer;
use super::core::{Core, tree_parts};
use super::error::{Error, Result};
use super::format::RootRecord;
use super::recovery::{ROOT, load_catalog, root_options};
use super::snapshots::{listed_extents, snapshot_records};
use crate::base::extent::Extent;
use crate::base::ids::{DatasetId, Generation, VdevId};
use crate::base::sync::atomic::AtomicU64;
use crate::tree::{Drops, Tree, Verified};
use std::sync::Arc;

/// What [`crate::Database::verify`] found to be in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// The generation that was verified.
    pub generation: u64,
    /// Datasets, those being destroyed included.
    pub datasets: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Node headers.
    pub nodes: u64,
    /// Runs, each read whole.
    pub runs: u64,
    /// Messages in them.
    pub messages: u64,
    /// Large values that they name.
    pub large_values: u64,
    /// Blocks of 4 KiB that all of that occupies.
    pub blocks: u64,
    /// Objects in object stores, those being made included.
    pub objects: u64,
}

impl Core {
    /// Verifies the newest checkpoint, made now when the database takes writes.
    pub fn verify(&self) -> Result<VerifyReport> {
        if !self.read_only {
            self.checkpoint(false)?;
        }
        // No later checkpoint becomes durable meanwhile, so nothing that this one reaches is used again.
        let checkpointer = self.checkpointer.lock();
        let Some(record) = &checkpointer.record else {
            return Err(Error::NotFound { what: "checkpoint", name: String::new() });
        };
        self.verify_record(&checkpointer, record)
    }

    fn verify_record(&self, checkpointer: &Checkpointer, record: &RootRecord) -> Result<VerifyReport> {
        let generation = record.generation;
        let visible = Arc::new(AtomicU64::new(u64::MAX));
        // Trees of their own, read from the devices; their jobs go nowhere.
        let jobs = Arc::default();
        let parts = tree_parts(&self.dmu, &jobs, &visible, ROOT, root_options(), String::new(), None);
        let root_tree = Tree::open(parts, record.root_tree.clone(), Drops::default(), generation.next());
        let catalog = load_catalog(&root_tree, &self.dmu, &jobs, &visible, generation.next())?;
        let mut verified = Verified::default();
        let root = root_tree.version();
        let of_root = |error| Error::of_tree(b"root tree", error);
        verified.walk(&root_tree, &root.root, generation).map_err(of_root)?;
        let mut datasets = catalog.all();
        let view = root_tree.view();
        // A clone next to what it was cloned from: they share.
        datasets.sort_by_key(|dataset| family(&catalog, dataset));
        let (mut snapshots, mut last) = (0, None);
        for dataset in &datasets {
            let name = dataset.name.read().clone();
            let of = |error| Error::of_tree(&name, error);
            let family = Some(family(&catalog, dataset));
            if last != family {
                verified.start_family();
                last = family;
            }
            let stored = dataset.recorded.lock().record.as_ref().is_some_and(|record| record.root.is_some());
            if stored {
                verified.walk(&dataset.tree, &dataset.tree.version().root, generation).map_err(of)?;
            }
            verified.drops(&dataset.tree, &dataset.tree.pending_drops(), generation).map_err(of)?;
            verified.end_tree();
            for (snapshot, record) in snapshot_records(&view, &self.dmu, dataset.id)? {
                verified.walk_stored(&dataset.tree, &record.root, snapshot).map_err(of)?;
                verified.end_tree();
                snapshots += 1;
            }
        }
        verified.extents.extend(listed_extents(&view, &self.dmu)?);
        verified.extents.extend(self.dmu.map_extents());
        if let Some(table) = &checkpointer.table {
            verified.extents.extend_from_slice(table.extents());
        }
        let blocks = self.compare_with_bitmaps(verified.extents, generation)?;
        Ok(VerifyReport {
            generation: generation.0,
            datasets: datasets.len() as u64,
            snapshots,
            nodes: verified.nodes,
            runs: verified.runs,
            messages: verified.messages,
            large_values: verified.large_values,
            blocks,
            objects: 0,
        })
    }

    /// Checks that the bitmaps hold exactly the blocks of `reached`; returns how many those are.
    fn compare_with_bitmaps(&self, reached: Vec<Extent>, generation: Generation) -> Result<u64> {
        // What lay on a vdev that left is where the map says; who is not there is reached, and free.
        let places = |extent| self.dmu.places_of_moved(&extent).unwrap_or_else(|| vec![extent]);
        let mut reached: Vec<Extent> = reached.into_iter().flat_map(places).collect();
        reached.sort_unstable_by_key(|extent| (extent.vdev, extent.block));
        let wrong = |reason: String| Error::Corrupt { what: "allocation state", reason };
        for pair in reached.windows(2) {
            if pair[0].overlaps(&pair[1]) {
                return Err(wrong(format!("{} and {} overlap", pair[0], pair[1])));
            }
        }
        let reached = joined(reached.into_iter());
        let mut allocated = Vec::new();
        for vdev in self.dmu.persistent_vdevs() {
            self.dmu.for_each_allocated(vdev, |extent| allocated.push(extent))?;
        }
        allocated.sort_unstable_by_key(|extent| (extent.vdev, extent.block));
        let allocated = joined(allocated.into_iter());
        if let Some(lost) = first_missing(&reached, &allocated) {
            return Err(wrong(format!(
                "{} blocks from {} of vdev {} are reached by generation {generation}, but free",
                lost.2, lost.1, lost.0
            )));
        }
        if let Some(leaked) = first_missing(&allocated, &reached) {
            return Err(wrong(format!(
                "{} blocks from {} of vdev {} are allocated, but nothing in generation {generation} reaches them",
                leaked.2, leaked.1, leaked.0
            )));
        }
        Ok(reached.iter().map(|(_, start, end)| end - start).sum())
    }
}

/// The dataset from which this one was cloned first of all.
fn family(catalog: &Catalog, dataset: &DatasetState) -> DatasetId {
    let (mut id, mut above) = (dataset.id, dataset.lineage.lock().origin);
    // A record that was damaged may lead in a circle.
    for _ in 0..1024 {
        let Some(origin) = above else { break };
        id = origin.dataset;
        above = catalog.by_id(id).and_then(|dataset| dataset.lineage.lock().origin);
    }
    id
}

/// Ranges of blocks (vdev, start, end), neighbours joined; `extents` in order.
fn joined(extents: impl Iterator<Item = Extent>) -> Vec<(VdevId, u64, u64)> {
    let mut ranges: Vec<(VdevId, u64, u64)> = Vec::new();
    for extent in extents {
        match ranges.last_mut() {
            Some((vdev, _, end)) if *vdev == extent.vdev && *end == extent.block => *end = extent.end(),
            _ => ranges.push((extent.vdev, extent.block, extent.end())),
        }
    }
    ranges
}

/// The first blocks of `these` that are not in `those`: vdev, block, number. Both in order, disjoint, joined.
fn first_missing(these: &[(VdevId, u64, u64)], those: &[(VdevId, u64, u64)]) -> Option<(VdevId, u64, u64)> {
    for (vdev, start, end) in these {
        let at = those.partition_point(|(other, _, other_end)| (*other, *other_end) <= (*vdev, *start));
        match those.get(at).filter(|(other, from, _)| other == vdev && from <= start) {
            Some((_, _, until)) if until >= end => {}
            Some((_, _, until)) => return Some((*vdev, *until, end - until)),
            None => return Some((*vdev, *start, end - start)),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_blocks_are_found() {
        let extent = |block, blocks| Extent { vdev: VdevId(1), block, blocks };
        let all = joined([extent(1, 2), extent(3, 4), extent(9, 1)].into_iter());
        assert_eq!(all, [(VdevId(1), 1, 7), (VdevId(1), 9, 10)]);
        assert_eq!(first_missing(&all, &all), None);
        assert_eq!(first_missing(&all, &[(VdevId(1), 1, 5), (VdevId(1), 9, 10)]), Some((VdevId(1), 5, 2)));
        assert_eq!(first_missing(&all, &[(VdevId(1), 0, 8)]), Some((VdevId(1), 9, 1)));
        assert_eq!(first_missing(&all, &[(VdevId(2), 0, 80)]), Some((VdevId(1), 1, 6)));
    }
}
