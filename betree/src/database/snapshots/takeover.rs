//! A staging becomes the dataset that it was made for.
//!
//! The staging has the snapshot that was received, N, and nothing else that counts: it is empty at first, or a clone of the
//! snapshot B that the changes start from. In one checkpoint the snapshot moves to the dataset, whose head becomes what N is,
//! and the staging becomes a destroyed clone of N there:
//!
//! ```text
//!   before   dataset  … B ─ (later ones) ─ head          staging  (B) ─ N ─ head
//!   after    dataset  … B ─ N ─ head = N                 destroyed clone of N
//!
//!   lists of the dataset   that of B goes, with the later snapshots and the head that it was for;
//!                          that of the staging for B takes its place: what B has and N has not
//! ```
//!
//! As the head is dropped, its deaths are dated back to N, so that they stand in the order between B and N: what N has not,
//! and B has not either, is freed. What the staging has beside N dies with it, as in every clone.

use super::edits::RootEdits;
use super::format::{SnapshotRecord, snapshot_key, snapshot_name_key};
use super::handle::{Snapshot, find_snapshot};
use super::lineage::{Lineage, Origin};
use crate::base::ids::{DatasetId, Generation, Uuid};
use crate::base::planted::{Bug, planted};
use crate::base::preference::StoragePreference;
use crate::database::catalog::DatasetState;
use crate::database::commit::Commit;
use crate::database::core::Core;
use crate::database::error::{Error, Result};
use crate::database::format::{DatasetRecord, Role};
use crate::database::replication::{Receiving, StreamError};
use crate::dmu::Death;
use crate::run::{EntryRef, Kind};
use crate::tree::{Action, Diff, Differing, Memtable, Tree, TreeOptions, View};
use std::sync::Arc;

/// A staging to be made.
#[derive(Debug)]
pub(in crate::database) struct Staging<'a> {
    pub role: Role,
    /// Of the dataset that it is for.
    pub name: &'a [u8],
    pub action_name: &'a str,
    pub action: Option<Action>,
    pub options: TreeOptions,
    /// What it is a clone of; empty without.
    pub base: Option<&'a Snapshot>,
    pub receiving: &'a Receiving,
}

/// A staging that becomes a dataset.
#[derive(Debug)]
pub(in crate::database) struct Takeover<'a> {
    pub staging: &'a Arc<DatasetState>,
    pub place: Place<'a>,
}

/// What it becomes.
#[derive(Debug)]
pub(in crate::database) enum Place<'a> {
    /// A dataset of its name, which is not there yet.
    New,
    /// What `dataset` is, as of the snapshot `base`; without one, all of it. Later snapshots and changes are in the way unless
    /// `force`.
    Of {
        dataset: &'a Arc<DatasetState>,
        base: Option<&'a Snapshot>,
        force: bool,
        /// A key whose changes are in nobody's way.
        passed: Option<&'a [u8]>,
        /// Key and value of an entry that stands in what it becomes, whatever stands there in the snapshot.
        keep: Option<(&'a [u8], &'a [u8])>,
    },
}

/// Takeovers that can be done.
#[derive(Debug)]
pub(super) struct Takeovers {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    staging: Arc<DatasetState>,
    snapshot: Generation,
    record: SnapshotRecord,
    /// `None` for a new dataset.
    old: Option<Old>,
}

/// The dataset whose place is taken.
#[derive(Debug)]
struct Old {
    dataset: Arc<DatasetState>,
    base: Option<Generation>,
    /// What was born up to here stays with others.
    floor: Generation,
    /// Snapshots that go, newest first.
    later: Vec<(Generation, Vec<u8>)>,
    /// Without force.
    unchanged: Option<Unchanged>,
    /// What died before the cut and is not listed yet.
    died: Vec<Death>,
    /// Written on top of the snapshot.
    keep: Option<(Vec<u8>, Vec<u8>)>,
}

/// A dataset that is what it was in a snapshot, as long as nothing is written to it.
struct Unchanged {
    base: View,
    name: Vec<u8>,
    passed: Option<Vec<u8>>,
    memtable: Arc<Memtable>,
    written: (u64, usize),
}

impl std::fmt::Debug for Unchanged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unchanged").field("written", &self.written).finish_non_exhaustive()
    }
}

/// What was written to a memtable so far.
fn written(memtable: &Memtable) -> (u64, usize) {
    (memtable.entries(), memtable.range_delete_count())
}

/// Fails when `dataset` is not what `base` is, but for the key `passed`.
fn demand_same(base: &View, name: &[u8], dataset: &DatasetState, passed: Option<&[u8]>) -> Result<()> {
    let mut diff = Diff::new(base.clone(), dataset.tree.view()).map_err(|error| dataset.error(error))?;
    let counts =
        |next: &std::result::Result<Differing, _>| !matches!(next, Ok(one) if Some(&one.key[..]) == passed);
    match diff.find(counts).transpose().map_err(|error| dataset.error(error))? {
        None => Ok(()),
        Some(Differing { key, .. }) => {
            let shown = &key[..key.len().min(64)];
            let by = format!("key \"{}\" is another", shown.escape_ascii());
            let (dataset, base) = (dataset.display_name(), name.escape_ascii().to_string());
            Err(StreamError::Changed { dataset, base, by }.into())
        }
    }
}

impl Unchanged {
    fn find(
        base: &Snapshot,
        dataset: &DatasetState,
        passed: Option<&[u8]>,
        commit: &crate::base::sync::Mutex<Commit>,
    ) -> Result<Self> {
        let (memtable, written) = {
            // With the lock held everything that was written is seen.
            let _commit = commit.lock();
            let memtable = dataset.tree.active();
            let written = written(&memtable);
            (memtable, written)
        };
        let (base, name) = (base.tree().view(), base.name());
        demand_same(&base, &name, dataset, passed)?;
        Ok(Self { base, name, passed: passed.map(<[u8]>::to_vec), memtable, written })
    }

    /// Whether it is still so, under the commit lock.
    fn check(&self, dataset: &DatasetState) -> Result<()> {
        let active = dataset.tree.active();
        if Arc::ptr_eq(&active, &self.memtable) && written(&active) == self.written {
            return Ok(());
        }
        demand_same(&self.base, &self.name, dataset, self.passed.as_deref())
    }
}

impl Snapshot {
    /// Fails when `dataset` is not what it was in this snapshot, but for the key `passed`.
    pub(in crate::database) fn check_unchanged(
        &self,
        dataset: &DatasetState,
        passed: Option<&[u8]>,
    ) -> Result<()> {
        demand_same(&self.tree().view(), &self.name(), dataset, passed)
    }
}

impl Staging<'_> {
    /// Makes it, under the commit lock: the checkpoint has it.
    pub fn make(&self, core: &Core, commit: &mut Commit, created: u64) -> Result<Arc<DatasetState>> {
        let base = match self.base {
            Some(base) => Some((base, base.record(core)?)),
            None => None,
        };
        let record = DatasetRecord {
            name: self.name.to_vec(),
            role: self.role,
            action: self.action_name.to_owned(),
            created,
            options: self.options.clone(),
            destroyed: false,
            origin: self.base.map(|base| Origin { dataset: base.state().id, snapshot: base.of_generation() }),
            newest: Generation(0),
            blocks: base.as_ref().map_or(0, |(_, record)| record.blocks),
            root: base.map(|(_, record)| record.root),
            receiving: Some(self.receiving.clone()),
        };
        let id = DatasetId(commit.next_dataset);
        commit.next_dataset += 1;
        let mut parts = core.parts_of_tree(id, record.options.clone(), record.action.clone());
        parts.action.clone_from(&self.action);
        let tree = match &record.root {
            Some(root) => {
                let drops = crate::tree::Drops::default();
                Tree::restore(parts, Some(root.clone()), drops, commit.open_generation)
            }
            None => Tree::create(parts, commit.open_generation),
        };
        let state = DatasetState::new(id, tree, record, 0, false);
        core.catalog.write().insert(Arc::clone(&state));
        Ok(state)
    }
}

impl Takeovers {
    /// The datasets that get the tree of a staging.
    pub fn adopters(&self) -> Vec<DatasetId> {
        self.parts.iter().filter_map(|part| part.old.as_ref()).map(|old| old.dataset.id).collect()
    }

    /// Checks that all of `wanted` can be done.
    pub fn plan(core: &Core, edits: &RootEdits<'_>, wanted: &[Takeover<'_>]) -> Result<Self> {
        let parts = wanted.iter().map(|one| Part::plan(core, edits, one)).collect::<Result<_>>()?;
        Ok(Self { parts })
    }

    /// What belongs to the cut, under the commit lock. Nothing has changed when it fails before `changed` is set.
    pub fn at_cut(&mut self, core: &Core, commit: &Commit, changed: &mut bool) -> Result<()> {
        for part in &self.parts {
            match &part.old {
                None => core.catalog.read().check_absent(part.staging.role, &part.staging.name.read())?,
                Some(old) => {
                    if let Some(unchanged) = &old.unchanged {
                        unchanged.check(&old.dataset)?;
                    }
                }
            }
        }
        *changed = true;
        self.parts.iter_mut().try_for_each(|part| part.at_cut(core, commit))
    }

    /// Writes what must stand before anything else that died is listed.
    pub fn edit_first(&mut self, edits: &mut RootEdits<'_>) -> Result<()> {
        for Part { staging, snapshot, record, old } in &mut self.parts {
            if let Some(old) = old {
                old.edit_first(edits, staging, *snapshot, record)?;
            }
        }
        Ok(())
    }

    /// The checkpoint is durable.
    pub fn finish(self, core: &Core) {
        {
            // Both datasets of a store at one instant.
            let mut catalog = core.catalog.write();
            let new = self.parts.iter().filter(|part| part.old.is_none());
            new.for_each(|part| catalog.reveal(&part.staging));
        }
        for old in self.parts.into_iter().filter_map(|part| part.old) {
            old.later.iter().for_each(|(one, _)| core.snapshots.close(&old.dataset, *one));
        }
    }
}

impl Part {
    fn plan(core: &Core, edits: &RootEdits<'_>, wanted: &Takeover<'_>) -> Result<Self> {
        let staging = Arc::clone(wanted.staging);
        let Some(receiving) = staging.receiving.lock().clone().filter(|_| !staging.is_destroyed()) else {
            let name = staging.display_name();
            return Err(Error::NotFound { what: "unfinished receive into dataset", name });
        };
        let (snapshot, record) = find_snapshot(core, &core.root_tree.view(), &staging, &receiving.snapshot)?;
        let old = match &wanted.place {
            Place::New => {
                core.catalog.read().check_absent(staging.role, &staging.name.read())?;
                None
            }
            Place::Of { dataset, base, force, passed, keep } => {
                let old = Old::plan(core, edits, &receiving, (&staging, &record), dataset, *base, *force)?;
                let unchanged = match base.filter(|_| !force) {
                    Some(base) => Some(Unchanged::find(base, dataset, *passed, &core.commit)?),
                    None => None,
                };
                let keep = keep.map(|(key, value)| (key.to_vec(), value.to_vec()));
                Some(Old { unchanged, keep, ..old })
            }
        };
        Ok(Self { staging, snapshot, record, old })
    }

    fn at_cut(&mut self, core: &Core, commit: &Commit) -> Result<()> {
        let staging = &self.staging;
        let Some(old) = &mut self.old else {
            core.catalog.write().reserve(staging.role, &staging.name.read())?;
            staging.receiving.lock().take();
            return Ok(());
        };
        let (root, blocks) = (self.record.root.clone(), self.record.blocks);
        let replaced = old.dataset.tree.become_snapshot(root, old.floor, self.snapshot, blocks);
        let replaced = replaced.map_err(|error| old.dataset.error(error))?;
        old.died = replaced.died;
        core.snapshots.close_era(replaced.era, old.floor);
        if let Some((key, payload)) = &old.keep {
            // The last number before the cut is younger than the snapshot, which was made in a checkpoint of its own.
            let sequence = commit.next_sequence - 1;
            let (kind, preference) = (Kind::Put, StoragePreference::NONE);
            old.dataset.tree.active().insert(EntryRef { key, sequence, kind, preference, payload });
        }
        core.catalog.write().destroy(staging);
        let era = staging.tree.drop_everything(self.snapshot).map_err(|error| staging.error(error))?;
        core.snapshots.close_era(era, self.snapshot);
        Ok(())
    }
}

impl Old {
    fn plan(
        core: &Core,
        edits: &RootEdits<'_>,
        receiving: &Receiving,
        (staging, record): (&DatasetState, &SnapshotRecord),
        dataset: &Arc<DatasetState>,
        base: Option<&Snapshot>,
        force: bool,
    ) -> Result<Self> {
        if dataset.is_destroyed() {
            return Err(dataset.not_found());
        }
        let origin = base.map(|base| Origin { dataset: dataset.id, snapshot: base.of_generation() });
        let guid = base.map_or(Uuid::default(), Snapshot::guid_bytes);
        // The snapshot may have gone to another dataset with a clone of it that was promoted.
        if staging.lineage.lock().origin != origin || receiving.base != guid {
            let (dataset, guid) = (dataset.display_name(), receiving.base.to_string());
            let base = base.map_or_else(String::new, |base| base.name().escape_ascii().to_string());
            let newest = String::from("another dataset has it");
            return Err(StreamError::NoBase { dataset, base, guid, newest }.into());
        }
        let base_generation = base.map_or(Generation(0), Snapshot::of_generation);
        let mut later = Vec::new();
        for one in edits.snapshots_of(dataset.id)?.into_iter().rev() {
            let kept = core.snapshot_record(edits, dataset, one)?;
            if one > base_generation {
                if !force {
                    let by = format!("it has the later snapshot \"{}\"", kept.name.escape_ascii());
                    let base = base.map_or_else(String::new, |base| base.name().escape_ascii().to_string());
                    return Err(StreamError::Changed { dataset: dataset.display_name(), base, by }.into());
                }
                core.check_free(dataset, one, &kept)?;
                later.push((one, kept.name));
            } else if kept.name == record.name {
                return Err(super::change::exists(dataset, &record.name));
            }
        }
        // Nothing of a dataset was born in the first checkpoint, which made the pool.
        let above = dataset.lineage.lock().origin.map_or(Generation(1), |origin| origin.snapshot);
        let floor = base_generation.max(above);
        let base = base.map(Snapshot::of_generation);
        let dataset = Arc::clone(dataset);
        Ok(Self { dataset, base, floor, later, unchanged: None, died: Vec::new(), keep: None })
    }

    fn edit_first(
        &mut self,
        edits: &mut RootEdits<'_>,
        staging: &Arc<DatasetState>,
        snapshot: Generation,
        record: &SnapshotRecord,
    ) -> Result<()> {
        let dataset = &self.dataset;
        edits.list_deaths(dataset, std::mem::take(&mut self.died))?;
        for (one, name) in &self.later {
            edits.delete_snapshot(dataset, *one, Some(name))?;
        }
        let above = dataset.lineage.lock().origin;
        match (self.base, above) {
            (Some(base), _) => {
                if !planted(Bug::KeepOldDeadList) {
                    edits.forget_list(dataset.id, base)?;
                }
                edits.move_list(staging.id, dataset.id, base)?;
            }
            // What it dropped of the snapshot that it was cloned from is that snapshot's alone.
            (None, Some(above)) => edits.forget_list(dataset.id, above.snapshot)?,
            (None, None) => {}
        }
        edits.put(&snapshot_key(staging.id, snapshot), None)?;
        edits.put(&snapshot_name_key(staging.id, &record.name), None)?;
        edits.put_snapshot(dataset, snapshot, record)?;
        let set = |lineage: &mut Lineage, origin, newest| {
            (lineage.origin, lineage.newest) = (origin, newest);
            lineage.forget_chain();
        };
        let origin = Some(Origin { dataset: dataset.id, snapshot });
        set(&mut staging.lineage.lock(), origin, Generation(0));
        set(&mut dataset.lineage.lock(), above.filter(|_| self.base.is_some()), snapshot);
        edits.core().set_listed(dataset);
        Ok(())
    }
}
