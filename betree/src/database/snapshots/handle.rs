//! The handle of a snapshot, and what there is to say about one.

use super::dead_lists::sum_of;
use super::edits::{each_entry, of_root};
use super::format::{
    DEAD_LISTS, SNAPSHOTS, SnapshotRecord, SubList, key_dead_list, key_snapshot, keys_of_dataset,
    snapshot_key, snapshot_name_key,
};
use super::lineage::Lineage;
use crate::base::ids::{DatasetId, Generation, Uuid};
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::units::BLOCK_BYTES_U64;
use crate::database::catalog::DatasetState;
use crate::database::core::{Core, tree_parts};
use crate::database::database::Handle;
use crate::database::error::{Error, Result};
use crate::database::view::{DatasetView, Entries};
use crate::dmu::{Dmu, Keeper, OwnedExtents};
use crate::tree::{Drops, JobQueue, PartRead, Tree, Value, View};
use std::collections::{HashMap, HashSet};
use std::ops::RangeBounds;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

/// What a database keeps of all snapshots.
#[derive(Debug, Default)]
pub(in crate::database) struct Snapshots {
    /// The root tree as of the newest durable checkpoint.
    root: Mutex<Option<View>>,
    guards: Mutex<Vec<Guard>>,
    /// Whether something of deleted snapshots waits to be freed.
    condemned: AtomicBool,
}

/// A state that has no place any more, and may still be read.
#[derive(Debug)]
struct Guard {
    /// What it shares with trees that go on was born up to here.
    generation: Generation,
    reader: Reader,
}

#[derive(Debug)]
enum Reader {
    /// Of a deleted snapshot or a destroyed dataset.
    Tree(Weak<Tree>),
    /// Of a tree that another one took the place of.
    Era(Weak<Keeper>),
}

impl Guard {
    fn is_read(&self) -> bool {
        match &self.reader {
            Reader::Tree(tree) => tree.strong_count() > 0,
            Reader::Era(era) => era.strong_count() > 0,
        }
    }
}

impl Snapshots {
    /// The state that callers are told of from now on.
    pub fn set_root(&self, root: View) {
        *self.root.lock() = Some(root);
    }

    /// The root tree as of the newest durable checkpoint.
    pub fn root(&self) -> Result<View> {
        self.root.lock().clone().ok_or_else(|| Error::NotFound { what: "checkpoint", name: String::new() })
    }

    pub fn condemn(&self) {
        self.set_condemned(true);
    }

    pub fn set_condemned(&self, condemned: bool) {
        self.condemned.store(condemned, Ordering::Release);
    }

    pub fn has_condemned(&self) -> bool {
        self.condemned.load(Ordering::Acquire)
    }

    /// The snapshot is deleted: what its handles read is kept for them.
    pub fn close(&self, dataset: &DatasetState, snapshot: Generation) {
        let open = dataset.lineage.lock().open.remove(&snapshot);
        let guard = |tree| Guard { generation: snapshot, reader: Reader::Tree(tree) };
        self.guards.lock().extend(open.map(guard));
    }

    /// The dataset is gone: what its views read is kept for them.
    pub fn close_tree(&self, tree: &Arc<Tree>) {
        let reader = Reader::Tree(Arc::downgrade(tree));
        self.guards.lock().push(Guard { generation: Generation(0), reader });
    }

    /// Another tree took the place of one whose readers hold `era`, and shares with it what was born up to `generation`.
    pub fn close_era(&self, era: Weak<Keeper>, generation: Generation) {
        self.guards.lock().push(Guard { generation, reader: Reader::Era(era) });
    }

    /// Keeps `space` as long as somebody reads a tree that was closed.
    pub fn keep_for_readers(&self, space: &Arc<OwnedExtents>) {
        let tree = |guard: &Guard| match &guard.reader {
            Reader::Tree(tree) => tree.upgrade(),
            Reader::Era(_) => None,
        };
        let open: Vec<Arc<Tree>> = self.guards.lock().iter().filter_map(tree).collect();
        open.iter().for_each(|tree| tree.keep_for_readers(space, false));
    }

    /// What was born up to here may be read by somebody whom the trees that go on do not know of; 0 when there is nobody.
    fn guarded(&self) -> Generation {
        let mut guards = self.guards.lock();
        guards.retain(Guard::is_read);
        guards.iter().map(|guard| guard.generation).max().unwrap_or_default()
    }
}

pub(super) fn snapshot_not_found(dataset: &DatasetState, name: &[u8]) -> Error {
    let name = format!("{}@{}", dataset.display_name(), name.escape_ascii());
    Error::NotFound { what: "snapshot", name }
}

/// The snapshot `name` of `dataset` in the root tree as `view` has it.
pub(super) fn find_snapshot(
    core: &Core,
    view: &View,
    dataset: &DatasetState,
    name: &[u8],
) -> Result<(Generation, SnapshotRecord)> {
    let damaged = |reason: &str| Error::Corrupt { what: "snapshot", reason: reason.to_owned() };
    let Some(value) = view.get(&snapshot_name_key(dataset.id, name)).map_err(of_root)? else {
        return Err(snapshot_not_found(dataset, name));
    };
    let bytes: [u8; 8] = value[..].try_into().map_err(|_| damaged("its generation is cut short"))?;
    let generation = Generation(u64::from_le_bytes(bytes));
    let value = view.get(&snapshot_key(dataset.id, generation)).map_err(of_root)?;
    let value = value.ok_or_else(|| damaged("it has a name and no record"))?;
    Ok((generation, SnapshotRecord::decode(&value, &core.dmu)?))
}

/// The snapshots of a dataset in the root tree as `view` has it, oldest first.
pub(in crate::database) fn snapshot_records(
    view: &View,
    dmu: &Dmu,
    dataset: DatasetId,
) -> Result<Vec<(Generation, SnapshotRecord)>> {
    let (low, high) = keys_of_dataset(SNAPSHOTS, dataset);
    let mut records = Vec::new();
    each_entry(view, low, high, |key, value| {
        if let Some((_, generation)) = key_snapshot(key) {
            records.push((generation, SnapshotRecord::decode(value, dmu)?));
        }
        Ok(true)
    })?;
    Ok(records)
}

/// Generations of the snapshots of a dataset in the root tree as `view` has it, ascending.
pub(in crate::database) fn snapshot_generations(view: &View, dataset: DatasetId) -> Result<Vec<Generation>> {
    let (low, high) = keys_of_dataset(SNAPSHOTS, dataset);
    let mut all = Vec::new();
    each_entry(view, low, high, |key, _| {
        all.extend(key_snapshot(key).map(|(_, generation)| generation));
        Ok(true)
    })?;
    Ok(all)
}

/// The tree of a snapshot: one for all who have it open.
fn open_tree(
    core: &Core,
    dataset: &DatasetState,
    lineage: &mut Lineage,
    generation: Generation,
    record: &SnapshotRecord,
) -> Arc<Tree> {
    if let Some(open) = lineage.open.get(&generation).and_then(Weak::upgrade) {
        return open;
    }
    let jobs = Arc::new(JobQueue::default());
    jobs.close();
    let parts = tree_parts(
        &core.dmu,
        &jobs,
        &Arc::new(AtomicU64::new(u64::MAX)),
        dataset.id,
        dataset.tree.options().clone(),
        dataset.tree.action_name().to_owned(),
        dataset.tree.action(),
    );
    let tree = Tree::open(parts, record.root.clone(), Drops::default(), generation.next());
    lineage.open.retain(|_, tree| tree.strong_count() > 0);
    lineage.open.insert(generation, Arc::downgrade(&tree));
    tree
}

/// A snapshot of a dataset, open for reading. Cloning is cheap. It reads what it read when it was opened, also after it was
/// deleted: its space is then given back when the last handle, view and iterator of it is gone.
#[derive(Clone)]
pub struct Snapshot {
    pub(in crate::database) handle: Arc<Handle>,
    state: Arc<DatasetState>,
    generation: Generation,
    name: Vec<u8>,
    created: u64,
    cut: u64,
    guid: Uuid,
    tree: Arc<Tree>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = format!("{}@{}", self.state.display_name(), self.name.escape_ascii());
        f.debug_tuple("Snapshot").field(&name).finish()
    }
}

impl Snapshot {
    /// Opens the snapshot `name`.
    pub(in crate::database) fn open(
        handle: &Arc<Handle>,
        dataset: &Arc<DatasetState>,
        name: &[u8],
    ) -> Result<Self> {
        let core = handle.core();
        let mut lineage = dataset.lineage.lock();
        // With the lock held: whoever deletes it takes the lock when the state without it is durable.
        let (generation, record) = find_snapshot(core, &core.snapshots.root()?, dataset, name)?;
        let tree = open_tree(core, dataset, &mut lineage, generation, &record);
        drop(lineage);
        if let Some(action) = dataset.tree.action() {
            tree.set_action(action);
        }
        let (name, created, cut, guid) = (record.name, record.created, record.cut, record.guid);
        let (handle, state) = (Arc::clone(handle), Arc::clone(dataset));
        Ok(Self { handle, state, generation, name, created, cut, guid, tree })
    }

    /// The name, without that of the dataset.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        self.name.clone()
    }

    /// The name of the dataset that it is of, which promoting a clone changes.
    #[must_use]
    pub fn dataset_name(&self) -> Vec<u8> {
        self.handle.core().home(&self.state, self.generation).name.read().clone()
    }

    /// When it was made, to the second.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.created)
    }

    /// The checkpoint that it is.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.0
    }

    /// The sequence number of the newest message that it may hold.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// What names the snapshot in every pool that it was sent to: its guid, as text.
    #[must_use]
    pub fn guid(&self) -> String {
        self.guid.to_string()
    }

    pub(in crate::database) fn guid_bytes(&self) -> Uuid {
        self.guid
    }

    pub(in crate::database) fn state(&self) -> &Arc<DatasetState> {
        &self.state
    }

    pub(in crate::database) fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    pub(in crate::database) fn of_generation(&self) -> Generation {
        self.generation
    }

    /// Fails when the snapshot is not of the database `handle`.
    pub(in crate::database) fn check_of(&self, handle: &Arc<Handle>) -> Result<()> {
        if Arc::ptr_eq(&self.handle, handle) {
            return Ok(());
        }
        let reason = String::from("it belongs to another database");
        Err(Error::InvalidArgument { what: "snapshot", reason })
    }

    /// What the root tree says of it.
    pub(super) fn record(&self, core: &Core) -> Result<SnapshotRecord> {
        let value =
            core.root_tree.view().get(&snapshot_key(self.state.id, self.generation)).map_err(of_root)?;
        let value = value.ok_or_else(|| snapshot_not_found(&self.state, &self.name))?;
        Ok(SnapshotRecord::decode(&value, &core.dmu)?)
    }

    fn entries(&self) -> DatasetView {
        DatasetView::new(Arc::clone(&self.state), self.tree.view())
    }

    /// What it holds, as a view.
    pub(crate) fn view(&self) -> Result<DatasetView> {
        self.handle.core().check_open()?;
        Ok(self.entries())
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// Device errors and damage; a database that was closed.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.handle.core().check_open()?;
        self.entries().get(key)
    }

    /// Reads a part of the value of `key`; as [`DatasetView::get_part`].
    ///
    /// # Errors
    /// As [`Snapshot::get`]; what is in `buffer` then says nothing.
    pub fn get_part(
        &self,
        key: impl AsRef<[u8]>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<Option<PartRead>> {
        self.handle.core().check_open()?;
        self.entries().get_part(key, offset, buffer)
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// The entries of `range` in the order of their keys; `.rev()` goes backwards. The only entry of a closed database is the
    /// error that says so.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Entries {
        match self.handle.core().check_open() {
            Ok(()) => self.entries().range(range),
            Err(error) => self.entries().refused(error),
        }
    }

    /// The entries whose keys start with `prefix`.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Entries {
        match self.handle.core().check_open() {
            Ok(()) => self.entries().prefix(prefix),
            Err(error) => self.entries().refused(error),
        }
    }
}

/// What there is to say about a snapshot. Bytes are those of whole blocks on the devices.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// The name, without that of the dataset.
    pub name: Vec<u8>,
    /// When it was made, to the second.
    pub created: SystemTime,
    /// The checkpoint that it is.
    pub generation: u64,
    /// What names it in every pool that it was sent to.
    pub guid: String,
    /// Bytes that it reads from. Ranges that were deleted whole shortly before may still be counted.
    pub referenced: u64,
    /// Bytes that nothing else has: what deleting it would free, as of the newest checkpoint.
    pub unique: u64,
    /// Bytes that were written since the snapshot before and are in it.
    pub written: u64,
    /// Tags of those who need it.
    pub holds: Vec<Vec<u8>>,
    /// Names of the datasets that were cloned from it.
    pub clones: Vec<Vec<u8>>,
    /// Whether a stream of changes to it was received in part: it stays until that is finished or aborted.
    pub receiving: bool,
}

impl Core {
    /// Empties the tree of a destroyed dataset.
    pub fn drop_tree(&self, dataset: &DatasetState) -> Result<()> {
        let floor = dataset.lineage.lock().origin.map_or(Generation(0), |origin| origin.snapshot);
        let era = dataset.tree.drop_everything(floor);
        let era = era.map_err(|error| Error::of_tree(&dataset.name.read(), error))?;
        self.snapshots.close_era(era, floor);
        Ok(())
    }

    /// Sets up to which birth what dies in `dataset` is listed before it is freed: because a snapshot has it, or because
    /// readers of a state that is gone must be asked.
    pub fn set_listed(&self, dataset: &DatasetState) {
        let guarded = self.snapshots.guarded();
        let lineage = dataset.lineage.lock();
        dataset.tree.deaths().set_newest(lineage.sharing().max(guarded));
    }

    /// The tree of a snapshot of `dataset`, and its name. It reads what it reads now, also after the snapshot was deleted.
    pub fn snapshot_tree(
        &self,
        dataset: &DatasetState,
        snapshot: Generation,
    ) -> Result<(Arc<Tree>, Vec<u8>)> {
        let mut lineage = dataset.lineage.lock();
        let value = self.snapshots.root()?.get(&snapshot_key(dataset.id, snapshot)).map_err(of_root)?;
        let value = value.ok_or_else(|| snapshot_not_found(dataset, snapshot.to_string().as_bytes()))?;
        let record = SnapshotRecord::decode(&value, &self.dmu)?;
        Ok((open_tree(self, dataset, &mut lineage, snapshot, &record), record.name))
    }

    /// The names of the dataset and of the snapshot that `dataset` was cloned from.
    pub fn origin_names(&self, dataset: &DatasetState) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let Some(origin) = dataset.lineage.lock().origin else { return Ok(None) };
        let Some(from) = self.catalog.read().by_id(origin.dataset).cloned() else { return Ok(None) };
        let key = snapshot_key(origin.dataset, origin.snapshot);
        let value = self.snapshots.root()?.get(&key).map_err(of_root)?;
        let Some(value) = value else { return Ok(None) };
        let name = from.name.read().clone();
        Ok(Some((name, SnapshotRecord::decode(&value, &self.dmu)?.name)))
    }

    /// All snapshots of `dataset`, oldest first.
    pub fn snapshots_of(&self, dataset: &DatasetState) -> Result<Vec<SnapshotInfo>> {
        let view = self.snapshots.root()?;
        let damaged = |error: crate::base::codec::DecodeError| Error::Corrupt {
            what: "dead list",
            reason: error.to_string(),
        };
        // All of the list behind each snapshot: (interval, blocks).
        let mut lists: HashMap<Generation, Vec<(Generation, u64)>> = HashMap::new();
        let (low, high) = keys_of_dataset(DEAD_LISTS, dataset.id);
        each_entry(&view, low, high, |key, value| {
            if let Some((_, snapshot, interval)) = key_dead_list(key) {
                let list = SubList::decode(value).map_err(damaged)?;
                lists.entry(snapshot).or_default().push((interval, list.blocks));
            }
            Ok(true)
        })?;
        let mut clones: HashMap<Generation, Vec<Vec<u8>>> = HashMap::new();
        let mut receiving = HashSet::new();
        let all = self.catalog.read().all();
        for other in all.iter().filter(|other| !other.is_destroyed()) {
            let origin = other.lineage.lock().origin.filter(|origin| origin.dataset == dataset.id);
            let Some(origin) = origin else { continue };
            if other.is_staging() {
                receiving.insert(origin.snapshot);
            } else {
                clones.entry(origin.snapshot).or_default().push(other.name.read().clone());
            }
        }
        // What the snapshot before refers to; that of a clone's first one is its origin.
        let mut before = (Generation(0), 0);
        let origin = dataset.lineage.lock().origin;
        if let Some(origin) = origin {
            let value = view.get(&snapshot_key(origin.dataset, origin.snapshot)).map_err(of_root)?;
            if let Some(value) = value {
                before = (origin.snapshot, SnapshotRecord::decode(&value, &self.dmu)?.blocks);
            }
        }
        let mut found = Vec::new();
        for (generation, record) in snapshot_records(&view, &self.dmu, dataset.id)? {
            let of = |snapshot| lists.get(&snapshot).map_or(&[][..], Vec::as_slice);
            let unique = sum_of(of(generation), before.0);
            let gone = sum_of(of(before.0), Generation(0));
            let written = (record.blocks + gone).saturating_sub(before.1);
            before = (generation, record.blocks);
            found.push(SnapshotInfo {
                name: record.name,
                created: SystemTime::UNIX_EPOCH + Duration::from_secs(record.created),
                generation: generation.0,
                guid: record.guid.to_string(),
                referenced: record.blocks * BLOCK_BYTES_U64,
                unique: unique * BLOCK_BYTES_U64,
                written: written * BLOCK_BYTES_U64,
                holds: record.holds,
                clones: clones.remove(&generation).unwrap_or_default(),
                receiving: receiving.contains(&generation),
            });
        }
        Ok(found)
    }
}
