//! What a dataset knows of its snapshots: how they follow each other, and which are open.

use super::edits::RootEdits;
use super::format::{SNAPSHOTS, key_snapshot, keys_of_dataset};
use crate::base::ids::{DatasetId, Generation};
use crate::database::catalog::DatasetState;
use crate::database::core::Core;
use crate::database::error::Result;
use crate::tree::Tree;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

/// The snapshot that a clone was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub dataset: DatasetId,
    pub snapshot: Generation,
}

/// The snapshots of one dataset.
#[derive(Debug, Default)]
pub(in crate::database) struct Lineage {
    pub origin: Option<Origin>,
    /// The newest snapshot; 0 without one.
    pub newest: Generation,
    /// All of them, once somebody needed to know.
    chain: Option<Chain>,
    /// Trees of snapshots that have handles.
    pub open: HashMap<Generation, Weak<Tree>>,
}

/// The order of snapshots.
#[derive(Debug, Clone, Default)]
pub(in crate::database) struct Chain {
    pub own: BTreeSet<Generation>,
    /// Those that the origin goes back to, itself included. Some may be gone since: that makes intervals finer than need be.
    ancestors: BTreeSet<Generation>,
    origin: Option<Generation>,
}

impl Chain {
    /// The last snapshot that may have what died in `death`; 0 when there is none.
    pub fn before(&self, death: Generation) -> Generation {
        let own = self.own.range(..death).next_back().copied();
        own.or(self.origin).unwrap_or_default()
    }

    /// The last snapshot that cannot have what was born in `birth`; 0 when there is none.
    pub fn interval(&self, birth: Generation) -> Generation {
        let last = |all: &BTreeSet<Generation>| all.range(..birth).next_back().copied().unwrap_or_default();
        last(&self.own).max(last(&self.ancestors))
    }
}

impl Lineage {
    /// What a dataset's record says.
    pub fn new(origin: Option<Origin>, newest: Generation) -> Self {
        Self { origin, newest, ..Self::default() }
    }

    /// The dataset has a new snapshot.
    pub fn add(&mut self, snapshot: Generation) {
        self.newest = snapshot;
        if let Some(chain) = &mut self.chain {
            chain.own.insert(snapshot);
        }
    }

    /// A snapshot is gone. The order is known.
    pub fn remove(&mut self, snapshot: Generation) {
        if let Some(chain) = &mut self.chain {
            chain.own.remove(&snapshot);
            self.newest = chain.own.last().copied().unwrap_or_default();
        }
    }

    /// Forgets the order: it changed, or a change was taken back.
    pub fn forget_chain(&mut self) {
        self.chain = None;
    }

    /// The newest snapshot that shares extents with the head; 0 without one.
    pub fn sharing(&self) -> Generation {
        self.newest.max(self.origin.map_or(Generation(0), |origin| origin.snapshot))
    }
}

impl RootEdits<'_> {
    /// The snapshots of `dataset` in order, read once.
    pub fn chain<T>(&self, dataset: &DatasetState, work: impl FnOnce(&Chain) -> T) -> Result<T> {
        let mut lineage = dataset.lineage.lock();
        let chain = match lineage.chain.take() {
            Some(chain) => chain,
            None => {
                let mut chain = Chain {
                    own: self.snapshots_of(dataset.id)?.into_iter().collect(),
                    ancestors: BTreeSet::new(),
                    origin: lineage.origin.map(|origin| origin.snapshot),
                };
                let mut above = lineage.origin;
                while let Some(origin) = above {
                    let all = self.snapshots_of(origin.dataset)?;
                    chain.ancestors.extend(all.into_iter().filter(|one| *one <= origin.snapshot));
                    above = self.core().origin_of(origin.dataset);
                }
                chain
            }
        };
        let out = work(&chain);
        lineage.chain = Some(chain);
        Ok(out)
    }

    /// Generations of the snapshots of a dataset, ascending.
    pub fn snapshots_of(&self, dataset: DatasetId) -> Result<Vec<Generation>> {
        let (low, high) = keys_of_dataset(SNAPSHOTS, dataset);
        let mut all = Vec::new();
        self.each(low, high, |key, _| {
            all.extend(key_snapshot(key).map(|(_, generation)| generation));
            Ok(true)
        })?;
        Ok(all)
    }
}

impl Core {
    /// What the dataset `id` was cloned from.
    pub fn origin_of(&self, id: DatasetId) -> Option<Origin> {
        let dataset = self.catalog.read().by_id(id).cloned();
        dataset.and_then(|dataset| dataset.lineage.lock().origin)
    }

    /// The dataset in whose order it stands what happened to `dataset` in `generation`: a snapshot, or what it dropped then. It
    /// is another one when the snapshots of then have moved to a clone that was promoted.
    pub fn home(&self, dataset: &Arc<DatasetState>, generation: Generation) -> Arc<DatasetState> {
        let mut home = Arc::clone(dataset);
        loop {
            let origin = home.lineage.lock().origin.filter(|origin| generation <= origin.snapshot);
            match origin.and_then(|origin| self.catalog.read().by_id(origin.dataset).cloned()) {
                Some(above) => home = above,
                None => return home,
            }
        }
    }

    /// Whether a dataset, which may be destroyed, was cloned from this one, and is not in `gone`.
    pub fn has_clones(&self, dataset: DatasetId, gone: &[Arc<DatasetState>]) -> bool {
        let all = self.catalog.read().all();
        let mut left = all.iter().filter(|one| gone.iter().all(|gone| gone.id != one.id));
        left.any(|one| one.lineage.lock().origin.is_some_and(|origin| origin.dataset == dataset))
    }

    /// The datasets that were cloned from this snapshot and still share its extents.
    pub fn clones_of(&self, dataset: DatasetId, snapshot: Generation) -> Vec<Arc<DatasetState>> {
        let origin = Some(Origin { dataset, snapshot });
        let all = self.catalog.read().all();
        all.into_iter().filter(|one| !one.is_destroyed() && one.lineage.lock().origin == origin).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_intervals_follow_the_order_of_snapshots() {
        let all = |numbers: &[u64]| numbers.iter().map(|n| Generation(*n)).collect();
        let chain = Chain { own: all(&[5, 9]), ancestors: BTreeSet::new(), origin: None };
        let before = |death| chain.before(Generation(death)).0;
        assert_eq!([before(3), before(5), before(6), before(9), before(10)], [0, 0, 5, 5, 9]);
        let interval = |birth| chain.interval(Generation(birth)).0;
        assert_eq!([interval(1), interval(5), interval(6), interval(9), interval(10)], [0, 0, 5, 5, 9]);
        let clone = Chain { own: all(&[9]), ancestors: all(&[2, 4]), origin: Some(Generation(4)) };
        assert_eq!((clone.before(Generation(6)).0, clone.before(Generation(10)).0), (4, 9));
        assert_eq!((clone.interval(Generation(3)).0, clone.interval(Generation(7)).0), (2, 4));
    }
}
