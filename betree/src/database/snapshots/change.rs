//! What is done to snapshots, each thing as part of one checkpoint; changes of several datasets may share one.
//!
//! A change is checked against the newest state, under the lock of checkpoints; does what belongs to the cut; writes its
//! records behind everything else that the checkpoint writes; and is taken over in memory when the checkpoint is durable. A
//! checkpoint that finds no room takes the records back. Going back to a snapshot cannot be taken back: a checkpoint that
//! fails then ends the writing.

use super::edits::{RootEdits, Undo};
use super::format::{HOLDS_MAX, SnapshotRecord, snapshot_key, snapshot_name_key};
use super::handle::{find_snapshot, snapshot_not_found};
use super::lineage::{Lineage, Origin};
use super::takeover::{Staging, Takeover, Takeovers};
use crate::base::ids::{DatasetId, Generation, Uuid};
use crate::base::preference::StoragePreference;
use crate::database::catalog::DatasetState;
use crate::database::checkpoint::Checkpointer;
use crate::database::commit::Commit;
use crate::database::core::Core;
use crate::database::error::{Error, Result};
use crate::database::format::{DatasetRecord, dataset_key};
use crate::dmu::Death;
use crate::pool::random_uuid;
use crate::run::{EntryRef, Kind};
use crate::tree::{Drops, NodeRef, Tree};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Snapshots of destroyed datasets that one checkpoint deletes at most.
const UNLINKED_MAX: usize = 64;

/// What a caller wants.
#[derive(Debug)]
pub(in crate::database) enum Change<'a> {
    Create {
        datasets: &'a [Arc<DatasetState>],
        name: &'a [u8],
        /// Of those that were made elsewhere, one for each dataset.
        identities: Option<&'a [Identity]>,
    },
    Delete {
        dataset: &'a Arc<DatasetState>,
        name: &'a [u8],
    },
    Rename {
        dataset: &'a Arc<DatasetState>,
        from: &'a [u8],
        to: &'a [u8],
    },
    Hold {
        dataset: &'a Arc<DatasetState>,
        name: &'a [u8],
        tag: &'a [u8],
    },
    Release {
        dataset: &'a Arc<DatasetState>,
        name: &'a [u8],
        tag: &'a [u8],
    },
    Rollback {
        dataset: &'a Arc<DatasetState>,
        name: &'a [u8],
        force: bool,
        /// Key and value of an entry that stands in what is gone back to, whatever stood there then.
        keep: Option<(&'a [u8], &'a [u8])>,
    },
    Clone {
        dataset: &'a Arc<DatasetState>,
        snapshot: Generation,
        name: &'a [u8],
    },
    Promote {
        dataset: &'a Arc<DatasetState>,
    },
    Stage {
        stagings: &'a [Staging<'a>],
    },
    TakeOver {
        takeovers: &'a [Takeover<'a>],
    },
}

/// What a snapshot keeps in every pool.
#[derive(Debug, Clone, Copy)]
pub(in crate::database) struct Identity {
    pub guid: Uuid,
    /// Seconds since 1970.
    pub created: u64,
}

/// Changes that can be made, and what they need.
#[derive(Debug)]
pub(in crate::database) struct Plan<'a> {
    works: Vec<Work<'a>>,
    /// Lineages before, for when it is taken back.
    before: Vec<(Arc<DatasetState>, Option<Origin>, Generation)>,
    undo: Undo,
}

#[derive(Debug)]
enum Work<'a> {
    Create {
        datasets: Vec<(Arc<DatasetState>, Identity)>,
        name: Vec<u8>,
    },
    Delete {
        dataset: Arc<DatasetState>,
        snapshot: Generation,
        name: Vec<u8>,
    },
    /// Another name, other holds.
    Record {
        dataset: Arc<DatasetState>,
        snapshot: Generation,
        old_name: Vec<u8>,
        record: SnapshotRecord,
    },
    Rollback(Rollback),
    Clone {
        id: DatasetId,
        record: Box<DatasetRecord>,
    },
    Promote {
        dataset: Arc<DatasetState>,
        from: Arc<DatasetState>,
        moved: Vec<(Generation, Vec<u8>)>,
    },
    Stage {
        wanted: &'a [Staging<'a>],
        made: Vec<Arc<DatasetState>>,
    },
    TakeOver {
        takeovers: Takeovers,
        /// Something has changed that cannot be taken back.
        changed: bool,
    },
}

#[derive(Debug)]
struct Rollback {
    dataset: Arc<DatasetState>,
    snapshot: Generation,
    root: NodeRef,
    blocks: u64,
    /// Newest first.
    later: Vec<(Generation, Vec<u8>)>,
    /// What died before the cut and is not listed yet.
    died: Vec<Death>,
    /// Written on top of the snapshot.
    keep: Option<(Vec<u8>, Vec<u8>)>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn full_name(dataset: &DatasetState, name: &[u8]) -> String {
    format!("{}@{}", dataset.display_name(), name.escape_ascii())
}

pub(super) fn exists(dataset: &DatasetState, name: &[u8]) -> Error {
    Error::AlreadyExists { what: "snapshot", name: full_name(dataset, name) }
}

impl Core {
    /// Fails with what keeps a snapshot from being deleted.
    pub(super) fn check_free(
        &self,
        dataset: &DatasetState,
        snapshot: Generation,
        record: &SnapshotRecord,
    ) -> Result<()> {
        let clones = self.clones_of(dataset.id, snapshot);
        let by: Vec<String> = match clones.is_empty() {
            true => record.holds.iter().map(|hold| format!("hold {}", hold.escape_ascii())).collect(),
            false => clones.iter().map(|clone| clone.described()).collect(),
        };
        if by.is_empty() {
            return Ok(());
        }
        Err(Error::Busy { what: "snapshot", name: full_name(dataset, &record.name), by: by.join(", ") })
    }

    /// Fails when a snapshot of `dataset` is needed by others.
    pub fn check_snapshots_free(&self, edits: &RootEdits<'_>, dataset: &DatasetState) -> Result<()> {
        if dataset.lineage.lock().newest.0 == 0 {
            return Ok(());
        }
        for snapshot in edits.snapshots_of(dataset.id)? {
            self.check_free(dataset, snapshot, &self.snapshot_record(edits, dataset, snapshot)?)?;
        }
        Ok(())
    }

    pub(super) fn snapshot_record(
        &self,
        edits: &RootEdits<'_>,
        dataset: &DatasetState,
        snapshot: Generation,
    ) -> Result<SnapshotRecord> {
        let value = edits.get(&snapshot_key(dataset.id, snapshot))?;
        let value = value.ok_or_else(|| snapshot_not_found(dataset, snapshot.to_string().as_bytes()))?;
        Ok(SnapshotRecord::decode(&value, &self.dmu)?)
    }

    /// Checks that `changes` can be made, each of another dataset.
    pub fn plan<'a>(&self, changes: &'a [Change<'a>], checkpointer: &mut Checkpointer) -> Result<Plan<'a>> {
        let works = changes.iter().map(|change| self.plan_one(change, checkpointer));
        Ok(Plan { works: works.collect::<Result<_>>()?, before: Vec::new(), undo: Undo::default() })
    }

    fn plan_one<'a>(&self, change: &'a Change<'a>, checkpointer: &mut Checkpointer) -> Result<Work<'a>> {
        let edits = RootEdits::new(self, checkpointer, Generation(0));
        let view = self.root_tree.view();
        let find = |dataset: &DatasetState, name: &[u8]| -> Result<(Generation, SnapshotRecord)> {
            if dataset.is_destroyed() {
                return Err(dataset.not_found());
            }
            find_snapshot(self, &view, dataset, name)
        };
        // A snapshot that cannot be read has its name all the same.
        let check_name = |dataset: &DatasetState, name: &[u8]| match find(dataset, name) {
            Err(Error::NotFound { what: "snapshot", .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(exists(dataset, name)),
        };
        let work = match change {
            Change::Create { datasets, name, identities } => {
                datasets.iter().try_for_each(|dataset| check_name(dataset, name))?;
                let created = now();
                let identity = |index: usize| -> Result<Identity> {
                    match identities.and_then(|all| all.get(index)) {
                        Some(identity) => Ok(*identity),
                        None => Ok(Identity { guid: random_uuid()?, created }),
                    }
                };
                let with = |(index, dataset)| Ok((Arc::clone(dataset), identity(index)?));
                let datasets = datasets.iter().enumerate().map(with).collect::<Result<_>>()?;
                Work::Create { datasets, name: name.to_vec() }
            }
            Change::Delete { dataset, name } => {
                let (snapshot, record) = find(dataset, name)?;
                self.check_free(dataset, snapshot, &record)?;
                Work::Delete { dataset: Arc::clone(dataset), snapshot, name: name.to_vec() }
            }
            Change::Rename { dataset, from, to } => {
                let (snapshot, record) = find(dataset, from)?;
                if from != to {
                    check_name(dataset, to)?;
                }
                let record = SnapshotRecord { name: to.to_vec(), ..record };
                Work::Record { dataset: Arc::clone(dataset), snapshot, old_name: from.to_vec(), record }
            }
            Change::Hold { dataset, name, tag } => {
                let (snapshot, mut record) = find(dataset, name)?;
                if record.holds.iter().any(|hold| hold == tag) {
                    return Err(Error::AlreadyExists { what: "hold", name: tag.escape_ascii().to_string() });
                }
                if record.holds.len() == HOLDS_MAX {
                    let limit = HOLDS_MAX as u64;
                    return Err(Error::TooLarge { what: "list of holds", length: limit + 1, limit });
                }
                record.holds.push(tag.to_vec());
                Work::Record { dataset: Arc::clone(dataset), snapshot, old_name: name.to_vec(), record }
            }
            Change::Release { dataset, name, tag } => {
                let (snapshot, mut record) = find(dataset, name)?;
                let before = record.holds.len();
                record.holds.retain(|hold| hold != tag);
                if record.holds.len() == before {
                    return Err(Error::NotFound { what: "hold", name: tag.escape_ascii().to_string() });
                }
                Work::Record { dataset: Arc::clone(dataset), snapshot, old_name: name.to_vec(), record }
            }
            Change::Rollback { dataset, name, force, keep } => {
                let (snapshot, record) = find(dataset, name)?;
                let mut later = Vec::new();
                for one in edits.snapshots_of(dataset.id)?.into_iter().filter(|one| *one > snapshot).rev() {
                    let record = self.snapshot_record(&edits, dataset, one)?;
                    if !force {
                        let by = format!("the later snapshot {}", full_name(dataset, &record.name));
                        return Err(Error::Busy { what: "snapshot", name: full_name(dataset, name), by });
                    }
                    self.check_free(dataset, one, &record)?;
                    later.push((one, record.name));
                }
                Work::Rollback(Rollback {
                    dataset: Arc::clone(dataset),
                    snapshot,
                    root: record.root,
                    blocks: record.blocks,
                    later,
                    died: Vec::new(),
                    keep: keep.map(|(key, value)| (key.to_vec(), value.to_vec())),
                })
            }
            Change::Clone { dataset, snapshot, name } => {
                let dataset = &self.home(dataset, *snapshot);
                if dataset.is_destroyed() {
                    return Err(dataset.not_found());
                }
                let source = self.snapshot_record(&edits, dataset, *snapshot)?;
                let record = DatasetRecord {
                    name: name.to_vec(),
                    role: dataset.role,
                    action: dataset.tree.action_name().to_owned(),
                    created: now(),
                    options: dataset.tree.options().clone(),
                    destroyed: false,
                    origin: Some(Origin { dataset: dataset.id, snapshot: *snapshot }),
                    newest: Generation(0),
                    blocks: source.blocks,
                    root: Some(source.root),
                    receiving: None,
                };
                Work::Clone { id: DatasetId(0), record: Box::new(record) }
            }
            Change::Promote { dataset } => self.plan_promote(&edits, dataset)?,
            Change::Stage { stagings } => {
                let mut bases = stagings.iter().filter_map(|one| one.base);
                if let Some(gone) = bases.find(|base| base.state().is_destroyed()) {
                    return Err(gone.state().not_found());
                }
                Work::Stage { wanted: stagings, made: Vec::new() }
            }
            Change::TakeOver { takeovers } => {
                Work::TakeOver { takeovers: Takeovers::plan(self, &edits, takeovers)?, changed: false }
            }
        };
        Ok(work)
    }

    fn plan_promote(&self, edits: &RootEdits<'_>, dataset: &Arc<DatasetState>) -> Result<Work<'static>> {
        let origin = dataset.lineage.lock().origin;
        let found = origin.and_then(|origin| {
            let from = self.catalog.read().by_id(origin.dataset).cloned()?;
            Some((origin.snapshot, from))
        });
        let Some((snapshot, from)) = found.filter(|_| !dataset.is_destroyed()) else {
            let reason = format!("{} is no clone", dataset.display_name());
            return Err(Error::InvalidArgument { what: "dataset", reason });
        };
        let mut moved = Vec::new();
        for one in edits.snapshots_of(from.id)?.into_iter().filter(|one| *one <= snapshot) {
            let record = self.snapshot_record(edits, &from, one)?;
            if edits.get(&snapshot_name_key(dataset.id, &record.name))?.is_some() {
                return Err(exists(dataset, &record.name));
            }
            moved.push((one, record.name));
        }
        Ok(Work::Promote { dataset: Arc::clone(dataset), from, moved })
    }
}

impl Plan<'_> {
    /// Whether it is more than a checkpoint.
    pub fn is_work(&self) -> bool {
        !self.works.is_empty()
    }

    /// Whether the state of `dataset` that is captured becomes a snapshot.
    pub fn takes_snapshot_of(&self, dataset: &DatasetState) -> bool {
        let takes = |work: &Work<'_>| matches!(work, Work::Create { datasets, .. } if datasets.iter().any(|(one, _)| one.id == dataset.id));
        self.works.iter().any(takes)
    }

    /// Datasets that get snapshots, or a tree, of others.
    pub fn adopters(&self) -> Vec<DatasetId> {
        let adopters = |work: &Work<'_>| match work {
            Work::Promote { dataset, .. } => vec![dataset.id],
            Work::TakeOver { takeovers, .. } => takeovers.adopters(),
            _ => Vec::new(),
        };
        self.works.iter().flat_map(adopters).collect()
    }

    /// What belongs to the cut, under the commit lock. Nothing has changed when it fails, or the database takes no more
    /// writes.
    pub fn at_cut(&mut self, core: &Core, commit: &mut Commit) -> Result<()> {
        for at in 0..self.works.len() {
            let Err(error) = self.works[at].at_cut(core, commit) else { continue };
            let (done, failed) = self.works.split_at(at);
            done.iter().for_each(|work| work.undo_cut(core));
            let halfway =
                failed.first().is_some_and(|work| matches!(work, Work::TakeOver { changed: true, .. }));
            if halfway || done.iter().any(Work::is_final) {
                core.fail(error.clone());
            }
            return Err(error);
        }
        Ok(())
    }

    /// Whether a checkpoint that fails cannot be forgotten.
    pub fn is_final(&self) -> bool {
        self.works.iter().any(Work::is_final)
    }

    fn save(&mut self, dataset: &Arc<DatasetState>) {
        let lineage = dataset.lineage.lock();
        self.before.push((Arc::clone(dataset), lineage.origin, lineage.newest));
    }

    /// Writes what must stand before anything else that died is listed: the snapshots that a rollback passes over.
    pub fn edit_first(&mut self, edits: &mut RootEdits<'_>) -> Result<()> {
        for work in &mut self.works {
            let rollback = match work {
                Work::Rollback(rollback) => rollback,
                Work::TakeOver { takeovers, .. } => {
                    takeovers.edit_first(edits)?;
                    continue;
                }
                _ => continue,
            };
            let dataset = Arc::clone(&rollback.dataset);
            edits.list_deaths(&dataset, std::mem::take(&mut rollback.died))?;
            for (snapshot, name) in &rollback.later {
                edits.delete_snapshot(&dataset, *snapshot, Some(name))?;
            }
            // What the list names is alive again in the head.
            edits.forget_list(dataset.id, rollback.snapshot)?;
            edits.core().set_listed(&dataset);
        }
        Ok(())
    }

    /// Writes its records. What the cut holds is stored, and what died is listed.
    pub fn edit(
        &mut self,
        edits: &mut RootEdits<'_>,
        cut: u64,
        roots: &[(DatasetId, NodeRef, u64)],
    ) -> Result<()> {
        edits.remember();
        let works = std::mem::take(&mut self.works);
        let edited = works.iter().try_for_each(|work| self.edit_one(work, edits, cut, roots));
        self.works = works;
        edited
    }

    fn edit_one(
        &mut self,
        work: &Work<'_>,
        edits: &mut RootEdits<'_>,
        cut: u64,
        roots: &[(DatasetId, NodeRef, u64)],
    ) -> Result<()> {
        match work {
            Work::Rollback(_) | Work::Stage { .. } | Work::TakeOver { .. } => {}
            Work::Create { datasets, name } => {
                for (dataset, Identity { guid, created }) in datasets {
                    self.save(dataset);
                    let Some((_, root, blocks)) = roots.iter().find(|(id, _, _)| *id == dataset.id) else {
                        return Err(dataset.not_found());
                    };
                    let (root, blocks) = (root.clone(), *blocks);
                    let (name, created, guid, holds) = (name.clone(), *created, *guid, Vec::new());
                    let record = SnapshotRecord { name, created, cut, blocks, guid, holds, root };
                    edits.put_snapshot(dataset, edits.generation, &record)?;
                    dataset.lineage.lock().add(edits.generation);
                }
            }
            Work::Delete { dataset, snapshot, name } => {
                let (dataset, snapshot, name) = (Arc::clone(dataset), *snapshot, name.clone());
                self.save(&dataset);
                edits.delete_snapshot(&dataset, snapshot, Some(&name))?;
            }
            Work::Record { dataset, snapshot, old_name, record } => {
                edits.put(&snapshot_name_key(dataset.id, old_name), None)?;
                edits.put_snapshot(dataset, *snapshot, record)?;
            }
            Work::Clone { id, record } => edits.put(&dataset_key(*id), Some(&record.encode()))?,
            Work::Promote { dataset, from, moved } => {
                let (dataset, from, moved) = (Arc::clone(dataset), Arc::clone(from), moved.clone());
                self.promote(edits, &dataset, &from, &moved)?;
            }
        }
        Ok(())
    }

    fn promote(
        &mut self,
        edits: &mut RootEdits<'_>,
        dataset: &Arc<DatasetState>,
        from: &Arc<DatasetState>,
        moved: &[(Generation, Vec<u8>)],
    ) -> Result<()> {
        let core = edits.core();
        let Some(last) = moved.last().map(|(snapshot, _)| *snapshot) else { return Ok(()) };
        let above = from.lineage.lock().origin;
        for (snapshot, name) in moved {
            let key = snapshot_key(from.id, *snapshot);
            let record = edits.get(&key)?.ok_or_else(|| snapshot_not_found(from, name))?;
            let record = SnapshotRecord::decode(&record, &core.dmu)?;
            edits.put(&key, None)?;
            edits.put(&snapshot_name_key(from.id, name), None)?;
            edits.put_snapshot(dataset, *snapshot, &record)?;
            // What died between the last of them and what follows in each of the two is listed there already.
            if *snapshot != last {
                edits.move_list(from.id, dataset.id, *snapshot)?;
            }
            for clone in core.clones_of(from.id, *snapshot) {
                if clone.id != dataset.id {
                    self.save(&clone);
                    let mut lineage = clone.lineage.lock();
                    lineage.origin = Some(Origin { dataset: dataset.id, snapshot: *snapshot });
                    lineage.forget_chain();
                }
            }
        }
        if let Some(above) = above {
            edits.move_list(from.id, dataset.id, above.snapshot)?;
        }
        self.save(from);
        self.save(dataset);
        let later = edits.snapshots_of(from.id)?.last().copied().unwrap_or_default();
        let set = |lineage: &mut Lineage, origin, newest| {
            lineage.origin = origin;
            lineage.newest = newest;
            lineage.forget_chain();
        };
        set(&mut from.lineage.lock(), Some(Origin { dataset: dataset.id, snapshot: last }), later);
        let mut lineage = dataset.lineage.lock();
        let newest = lineage.newest.max(last);
        set(&mut lineage, above, newest);
        Ok(())
    }

    /// Keeps what it takes to take the records back.
    pub fn set_undo(&mut self, undo: Undo) {
        self.undo = undo;
    }

    /// The checkpoint found no room: everything is as it was.
    pub fn take_back(self, core: &Core, checkpointer: &mut Checkpointer, generation: Generation) {
        self.undo.apply(core, checkpointer, generation);
        for (dataset, origin, newest) in self.before {
            let mut lineage = dataset.lineage.lock();
            (lineage.origin, lineage.newest) = (origin, newest);
            lineage.forget_chain();
        }
        for work in self.works {
            work.undo_cut(core);
            let Work::Create { datasets, .. } = work else { continue };
            for (dataset, _) in datasets {
                dataset.lineage.lock().forget_chain();
                core.set_listed(&dataset);
            }
        }
    }

    /// The checkpoint is durable: takes the changes over.
    pub fn finish(self, core: &Core) {
        if self.works.is_empty() {
            return;
        }
        // Datasets that are made come into the catalog at one instant.
        let mut commit = core.commit.lock();
        self.works.into_iter().for_each(|work| work.finish(core, &mut commit));
    }
}

impl Work<'_> {
    fn is_final(&self) -> bool {
        matches!(self, Self::Rollback(_) | Self::TakeOver { .. })
    }

    fn at_cut(&mut self, core: &Core, commit: &mut Commit) -> Result<()> {
        match self {
            Self::Create { datasets, .. } => {
                if let Some((gone, _)) = datasets.iter().find(|(dataset, _)| dataset.is_destroyed()) {
                    return Err(gone.not_found());
                }
            }
            Self::Rollback(rollback) => {
                let tree = &rollback.dataset.tree;
                let gone = tree.go_back_to(rollback.root.clone(), rollback.snapshot, rollback.blocks);
                let gone = gone.map_err(|error| Error::of_tree(&rollback.dataset.name.read(), error))?;
                rollback.died = gone.died;
                core.snapshots.close_era(gone.era, rollback.snapshot);
                if let Some((key, payload)) = &rollback.keep {
                    // Of the last number before the cut: that came behind the snapshot, and what this tree had of it is gone.
                    let sequence = commit.next_sequence - 1;
                    let (kind, preference) = (Kind::Put, StoragePreference::NONE);
                    tree.active().insert(EntryRef { key, sequence, kind, preference, payload });
                }
            }
            Self::Clone { id, record } => {
                core.catalog.write().reserve(record.role, &record.name)?;
                *id = DatasetId(commit.next_dataset);
                commit.next_dataset += 1;
            }
            Self::Stage { wanted, made } => {
                for one in *wanted {
                    match one.make(core, commit, now()) {
                        Ok(staging) => made.push(staging),
                        Err(error) => {
                            self.undo_cut(core);
                            return Err(error);
                        }
                    }
                }
            }
            Self::TakeOver { takeovers, changed } => takeovers.at_cut(core, commit, changed)?,
            Self::Delete { .. } | Self::Record { .. } | Self::Promote { .. } => {}
        }
        Ok(())
    }

    /// Gives back what belonged to the cut: the name of a clone that is not made, and stagings.
    fn undo_cut(&self, core: &Core) {
        match self {
            Self::Clone { record, .. } => core.catalog.write().unreserve(record.role, &record.name),
            // Their trees have space already: it is given back as that of every dataset.
            Self::Stage { made, .. } => {
                for staging in made {
                    core.catalog.write().destroy(staging);
                    if let Err(error) = core.drop_tree(staging) {
                        log::error!("what an attempt to receive had is not given back: {error}");
                    }
                }
            }
            _ => {}
        }
    }

    fn finish(self, core: &Core, commit: &mut Commit) {
        match self {
            Self::Create { .. } | Self::Record { .. } | Self::Stage { .. } => {}
            Self::TakeOver { takeovers, .. } => takeovers.finish(core),
            Self::Delete { dataset, snapshot, .. } => {
                core.snapshots.close(&dataset, snapshot);
                core.set_listed(&dataset);
            }
            Self::Rollback(rollback) => {
                rollback.later.iter().for_each(|(one, _)| core.snapshots.close(&rollback.dataset, *one));
            }
            Self::Clone { id, record } => {
                let mut parts = core.parts_of_tree(id, record.options.clone(), record.action.clone());
                if let Some(source) =
                    record.origin.and_then(|origin| core.catalog.read().by_id(origin.dataset).cloned())
                {
                    parts.action = source.tree.action();
                }
                let tree =
                    Tree::restore(parts, record.root.clone(), Drops::default(), commit.open_generation);
                let (role, name) = (record.role, record.name.clone());
                let state = DatasetState::new(id, tree, *record, 0, true);
                let mut catalog = core.catalog.write();
                catalog.unreserve(role, &name);
                catalog.insert(state);
            }
            Self::Promote { dataset, from, moved } => {
                for (snapshot, _) in moved {
                    let open = from.lineage.lock().open.remove(&snapshot);
                    if let Some(open) = open {
                        dataset.lineage.lock().open.insert(snapshot, open);
                    }
                }
            }
        }
    }
}

impl RootEdits<'_> {
    pub(super) fn put_snapshot(
        &mut self,
        dataset: &DatasetState,
        snapshot: Generation,
        record: &SnapshotRecord,
    ) -> Result<()> {
        self.put(&snapshot_key(dataset.id, snapshot), Some(&record.encode()))?;
        self.put(&snapshot_name_key(dataset.id, &record.name), Some(&snapshot.0.to_le_bytes()))
    }

    /// Takes a snapshot out of the order of `dataset`. Its name is read where it is not known.
    pub(super) fn delete_snapshot(
        &mut self,
        dataset: &DatasetState,
        snapshot: Generation,
        name: Option<&[u8]>,
    ) -> Result<()> {
        let key = snapshot_key(dataset.id, snapshot);
        let read = match (name, self.get(&key)?) {
            (None, Some(value)) => Some(SnapshotRecord::decode(&value, &self.core().dmu)?.name),
            _ => None,
        };
        if let Some(name) = name.or(read.as_deref()) {
            self.put(&snapshot_name_key(dataset.id, name), None)?;
        }
        self.put(&key, None)?;
        let before = self.chain(dataset, |chain| chain.before(snapshot))?;
        self.unlink(dataset.id, snapshot, before)?;
        dataset.lineage.lock().remove(snapshot);
        Ok(())
    }

    /// Deletes some snapshots of a destroyed dataset, newest first; whether none is left.
    pub fn delete_snapshots_of(&mut self, dataset: &DatasetState) -> Result<bool> {
        for _ in 0..UNLINKED_MAX {
            let newest = dataset.lineage.lock().newest;
            if newest.0 == 0 {
                return Ok(true);
            }
            self.delete_snapshot(dataset, newest, None)?;
            self.core().snapshots.close(dataset, newest);
        }
        Ok(dataset.lineage.lock().newest.0 == 0)
    }
}

#[cfg(test)]
mod tests {
    use crate::database::snapshots::format::snapshot_name_key;
    use crate::database::{Database, DatabaseConfiguration, ErrorKind};
    use crate::pool::{LeafVdev, StoragePoolConfiguration, TierConfiguration};

    /// The name of a snapshot that cannot be read was taken for a free one: renaming another to it lost it for good.
    #[test]
    fn the_name_of_a_damaged_snapshot_is_taken() {
        let storage = StoragePoolConfiguration {
            tiers: vec![TierConfiguration::new(vec![LeafVdev::memory(16 << 20).into()])],
            ..StoragePoolConfiguration::default()
        };
        let configuration =
            DatabaseConfiguration { storage, segment_size: 1 << 19, ..DatabaseConfiguration::default() };
        let database = Database::create_with(configuration, false).unwrap();
        let dataset = database.create_dataset("data").unwrap();
        dataset.create_snapshot("kept").unwrap();
        {
            let core = database.core();
            let mut checkpointer = core.checkpointer.lock();
            let key = snapshot_name_key(dataset.state().id, b"damaged");
            core.put_root(&mut checkpointer, core.open_generation(), &key, Some(&999_u64.to_le_bytes()));
        }
        let renamed = dataset.rename_snapshot("kept", "damaged");
        assert_eq!(renamed.map_err(|error| error.kind()), Err(ErrorKind::Corrupt));
        let created = dataset.create_snapshot("damaged");
        assert_eq!(created.map_err(|error| error.kind()).map(|_| ()), Err(ErrorKind::Corrupt));
    }
}
