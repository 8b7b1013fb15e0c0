//! The tree itself: versions, edits of the node path, freezing, capture for a checkpoint.

use super::action::Action;
use super::claim::Claims;
use super::compact::Folding;
use super::drops::{Dropping, Drops, Step};
use super::format::NodeRef;
use super::job::{Job, JobQueue};
use super::memtable::Memtable;
use super::node::{NodeBody, NodeCell, Slot};
use super::options::MergePolicy;
use super::value::LargeValue;
use super::version::{Table, Version};
use super::{TreeError, TreeOptions};
use crate::base::extent::Extent;
use crate::base::ids::{DatasetId, Generation};
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::sync::{Mutex, RwLock};
use crate::dmu::{Death, Deaths, Dmu, Keeper, OwnedExtents};
use crate::run::{Run, RunRef};
use arc_swap::ArcSwap;
use std::sync::{Arc, Weak};

/// What edits of the tree share; locked for the moment of publishing a version.
#[derive(Debug)]
pub(super) struct Edit {
    /// The generation to which births and deaths belong: the open one, or the one being checkpointed until the tree is
    /// captured.
    pub generation: Generation,
    pub drops: Drops,
}

/// A copy-on-write Bε-tree. All methods take `&self`; writers of memtables are serialised by the caller.
#[derive(Debug)]
pub struct Tree {
    pub(super) id: DatasetId,
    pub(super) dmu: Dmu,
    pub(super) options: TreeOptions,
    action_name: String,
    action: RwLock<Option<Action>>,
    /// The newest sequence number that readers may see.
    pub(super) visible: Arc<AtomicU64>,
    pub(super) version: ArcSwap<Version>,
    pub(super) edit: Mutex<Edit>,
    pub(super) deaths: Deaths,
    pub(super) claims: Claims,
    /// One flush of a memtable at a time, so that tables are installed oldest first.
    pub(super) flushing: Mutex<()>,
    /// One step of resolving pending drops at a time.
    resolving: Mutex<()>,
    pub(super) jobs: Arc<JobQueue>,
}

/// What a tree is made with.
#[derive(Debug, Clone)]
pub struct TreeParts {
    /// The dataset.
    pub id: DatasetId,
    /// The unit below.
    pub dmu: Dmu,
    /// Shape.
    pub options: TreeOptions,
    /// Stored name of the message action.
    pub action_name: String,
    /// The action, when it is registered.
    pub action: Option<Action>,
    /// The newest sequence number that readers may see, shared by all trees.
    pub visible: Arc<AtomicU64>,
    /// The queue of background work, shared by all trees.
    pub jobs: Arc<JobQueue>,
}

/// What a checkpoint writes of a tree.
#[derive(Debug)]
pub struct Captured {
    /// The root.
    pub root: Arc<NodeCell>,
    /// What waits to be freed.
    pub drops: Drops,
}

/// What a tree that another one took the place of leaves.
#[derive(Debug)]
pub struct Replaced {
    /// What died before and is not listed yet.
    pub died: Vec<Death>,
    /// What readers of before hold.
    pub era: Weak<Keeper>,
}

/// One step of the path from the root.
#[derive(Debug)]
pub(super) struct PathStep {
    pub cell: Arc<NodeCell>,
    pub body: Arc<NodeBody>,
    pub index: usize,
}

/// The path from the root to a slot.
#[derive(Debug)]
pub(super) struct Path {
    pub steps: Vec<PathStep>,
}

impl Path {
    /// The node at the end.
    pub fn body(&self) -> &Arc<NodeBody> {
        match self.steps.last() {
            Some(step) => &step.body,
            None => unreachable!("a path has a root"),
        }
    }

    /// Index of the slot at the end.
    pub fn index(&self) -> usize {
        self.steps.last().map_or(0, |step| step.index)
    }

    /// The slot at the end.
    pub fn slot(&self) -> &Arc<Slot> {
        &self.body().slots[self.index()]
    }

    /// Lower bound of the slot at the end.
    pub fn slot_low(&self) -> &[u8] {
        self.bound(self.steps.len(), |step| step.body.slot_low(step.index)).unwrap_or(&[])
    }

    /// Upper bound of the slot at the end, exclusive.
    pub fn slot_high(&self) -> Option<&[u8]> {
        self.bound(self.steps.len(), |step| step.body.slot_high(step.index))
    }

    /// Lower bound of the node at the end.
    pub fn node_low(&self) -> &[u8] {
        self.bound(self.steps.len() - 1, |step| step.body.slot_low(step.index)).unwrap_or(&[])
    }

    /// Upper bound of the node at the end, exclusive.
    pub fn node_high(&self) -> Option<&[u8]> {
        self.bound(self.steps.len() - 1, |step| step.body.slot_high(step.index))
    }

    fn bound<'a>(&'a self, depth: usize, of: impl Fn(&'a PathStep) -> Option<&'a [u8]>) -> Option<&'a [u8]> {
        self.steps[..depth].iter().rev().find_map(of)
    }
}

impl Tree {
    fn with_root(parts: TreeParts, root: Arc<NodeCell>, generation: Generation, drops: Drops) -> Arc<Self> {
        let version = Version { active: Table::new(), frozen: Vec::new(), root, era: Arc::default() };
        Arc::new(Self {
            id: parts.id,
            dmu: parts.dmu,
            options: parts.options,
            action_name: parts.action_name,
            action: RwLock::new(parts.action),
            visible: parts.visible,
            version: ArcSwap::from_pointee(version),
            edit: Mutex::new(Edit { generation, drops }),
            deaths: Deaths::default(),
            claims: Claims::default(),
            flushing: Mutex::new(()),
            resolving: Mutex::new(()),
            jobs: parts.jobs,
        })
    }

    /// An empty tree; `generation` is the open one.
    #[must_use]
    pub fn create(parts: TreeParts, generation: Generation) -> Arc<Self> {
        let root = empty_root(&parts.dmu);
        Self::with_root(parts, root, generation, Drops::default())
    }

    /// The tree that a checkpoint wrote; its nodes are read at first use.
    #[must_use]
    pub fn open(parts: TreeParts, root: NodeRef, drops: Drops, generation: Generation) -> Arc<Self> {
        let root = NodeCell::on_disk(&parts.dmu, root);
        let tree = Self::with_root(parts, root, generation, drops);
        if !tree.edit.lock().drops.is_empty() {
            tree.jobs.push(tree.id, Job::ResolveDrops);
        }
        tree
    }

    /// As [`Tree::open`]; a dataset that no checkpoint has, or that is destroyed, has no root.
    #[must_use]
    pub fn restore(
        parts: TreeParts,
        root: Option<NodeRef>,
        drops: Drops,
        generation: Generation,
    ) -> Arc<Self> {
        match root {
            Some(root) => Self::open(parts, root, drops, generation),
            None => {
                let root = empty_root(&parts.dmu);
                let tree = Self::with_root(parts, root, generation, drops);
                tree.jobs.push(tree.id, Job::ResolveDrops);
                tree
            }
        }
    }

    /// The dataset of this tree.
    #[must_use]
    pub fn id(&self) -> DatasetId {
        self.id
    }

    /// Shape.
    #[must_use]
    pub fn options(&self) -> &TreeOptions {
        &self.options
    }

    /// Stored name of the message action.
    #[must_use]
    pub fn action_name(&self) -> &str {
        &self.action_name
    }

    /// Registers the message action; it must have the stored name.
    pub fn set_action(&self, action: Action) {
        self.action.write().get_or_insert(action);
    }

    /// The message action, when it is registered.
    #[must_use]
    pub fn action(&self) -> Option<Action> {
        self.action.read().clone()
    }

    /// The action for merges: none when it is not registered or has panicked, so that messages are carried on unchanged.
    pub(super) fn folding_action(&self) -> Option<Action> {
        self.action().filter(|action| !action.has_panicked())
    }

    /// The current version.
    #[must_use]
    pub fn version(&self) -> Arc<Version> {
        self.version.load_full()
    }

    /// The memtable that writers insert into; stays the active one while the commit lock is held.
    #[must_use]
    pub fn active(&self) -> Arc<Memtable> {
        Arc::clone(&self.version.load().active.memtable)
    }

    /// Freezes the active memtable and opens another; under the commit lock, never inside a batch. `generation` is the
    /// open one. Returns whether there was anything to freeze.
    pub fn freeze(&self, generation: Generation) -> bool {
        let edit = self.edit.lock();
        let version = self.version.load_full();
        if version.active.memtable.is_empty() {
            return false;
        }
        version.active.freeze(generation);
        let mut frozen = Vec::with_capacity(version.frozen.len() + 1);
        frozen.push(Arc::clone(&version.active));
        frozen.extend(version.frozen.iter().cloned());
        self.version.store(Arc::new(Version {
            active: Table::new(),
            frozen,
            root: Arc::clone(&version.root),
            era: Arc::clone(&version.era),
        }));
        drop(edit);
        self.jobs.push(self.id, Job::FlushTable);
        true
    }

    /// Number of frozen memtables that wait.
    #[must_use]
    pub fn frozen_count(&self) -> usize {
        self.version.load().frozen.len()
    }

    /// Whether a table that was frozen in or before `generation` waits.
    #[must_use]
    pub fn has_frozen(&self, generation: Generation) -> bool {
        self.version.load().frozen.last().is_some_and(|table| table.frozen_in() <= generation)
    }

    /// After a checkpoint that failed: births and deaths belong to `generation`, the one that is open now.
    pub fn skip_to(&self, generation: Generation) {
        let mut edit = self.edit.lock();
        edit.generation = edit.generation.max(generation);
        drop(edit);
        if self.frozen_count() > 0 {
            self.jobs.push(self.id, Job::FlushTable);
        }
    }

    /// Fixes what checkpoint `generation` contains: the root and pending drops as they are now, with every table frozen
    /// in or before `generation` flushed already. Later births and deaths belong to the generation after. With `snapshot`,
    /// what dies from here on is kept when the captured state has it.
    #[must_use]
    pub fn capture(&self, generation: Generation, snapshot: bool) -> Captured {
        let mut edit = self.edit.lock();
        let version = self.version.load_full();
        assert!(
            version.frozen.last().is_none_or(|table| table.frozen_in() > generation),
            "tables before the cut are flushed before capture"
        );
        edit.generation = generation.next();
        if snapshot {
            self.deaths.set_newest(generation);
        }
        let captured = Captured { root: Arc::clone(&version.root), drops: edit.drops.clone() };
        let waiting = !version.frozen.is_empty();
        drop(edit);
        if waiting {
            self.jobs.push(self.id, Job::FlushTable);
        }
        captured
    }

    /// The whole tree becomes a pending drop, and an empty one takes its place: the first step of destroying a dataset.
    /// What was born up to `floor` belongs to the snapshot that the tree was made of. Returns what readers of before hold.
    ///
    /// # Errors
    /// A pointer to a large value that does not decode; nothing happened then.
    pub fn drop_everything(&self, floor: Generation) -> Result<Weak<Keeper>, TreeError> {
        self.replace(empty_root(&self.dmu), floor, None, |_| ())
    }

    /// The tree of the snapshot `root`, of generation `snapshot`, takes the place of this one; what came later is a pending
    /// drop. It refers to `blocks` blocks. Under the commit lock.
    ///
    /// # Errors
    /// As [`Tree::drop_everything`].
    pub fn go_back_to(
        &self,
        root: NodeRef,
        snapshot: Generation,
        blocks: u64,
    ) -> Result<Replaced, TreeError> {
        let mut died = Vec::new();
        let set = |generation| {
            died = self.deaths.take(generation);
            self.deaths.set_blocks(blocks);
        };
        let era = self.replace(NodeCell::on_disk(&self.dmu, root), snapshot, None, set)?;
        Ok(Replaced { died, era })
    }

    /// The tree `root` of a snapshot that becomes the newest one, of generation `snapshot`, takes the place of this one. The two
    /// share what was born up to `floor`; what this one has beside that is a pending drop, as one that was dropped before the
    /// snapshot was made: the snapshot has nothing of it. The new tree refers to `blocks` blocks. Under the commit lock.
    ///
    /// # Errors
    /// As [`Tree::drop_everything`].
    pub fn become_snapshot(
        &self,
        root: NodeRef,
        floor: Generation,
        snapshot: Generation,
        blocks: u64,
    ) -> Result<Replaced, TreeError> {
        let mut died = Vec::new();
        let set = |generation| {
            died = self.deaths.take(generation);
            self.deaths.set_blocks(blocks);
            // Before anybody changes the new tree: what it has, the snapshot has.
            self.deaths.set_newest(self.deaths.newest().max(snapshot));
        };
        let era = self.replace(NodeCell::on_disk(&self.dmu, root), floor, Some(snapshot), set)?;
        Ok(Replaced { died, era })
    }

    fn replace(
        &self,
        root: Arc<NodeCell>,
        floor: Generation,
        death: Option<Generation>,
        replaced: impl FnOnce(Generation),
    ) -> Result<Weak<Keeper>, TreeError> {
        let _flushing = self.flushing.lock();
        let mut edit = self.edit.lock();
        let version = self.version.load_full();
        let generation = edit.generation;
        let mut values = Vec::new();
        for table in version.tables() {
            values.push((Arc::clone(table), table.large_values()?));
        }
        for (table, values) in values {
            self.kill_values(values, table.keeper(), generation);
        }
        let death = death.unwrap_or(generation);
        edit.drops.go_back_to(floor, death);
        edit.drops.add_node(&version.root, Dropping { death, floor }, &self.deaths, generation);
        replaced(generation);
        let era = Arc::new(Keeper::default());
        version.era.follow(Arc::clone(&era));
        self.version.store(Arc::new(Version { active: Table::new(), frozen: Vec::new(), root, era }));
        drop(edit);
        self.jobs.push(self.id, Job::ResolveDrops);
        Ok(Arc::downgrade(&version.era))
    }

    /// The unit below.
    #[must_use]
    pub fn dmu(&self) -> &Dmu {
        &self.dmu
    }

    /// Births and deaths of this tree.
    #[must_use]
    pub fn deaths(&self) -> &Deaths {
        &self.deaths
    }

    /// Keeps `space`, which no tree refers to from now on, as long as somebody reads a state of this tree of before. A
    /// tree that is `read_on` does not refer to it either: later readers of it keep nothing.
    pub fn keep_for_readers(&self, space: &Arc<OwnedExtents>, read_on: bool) {
        let edit = self.edit.lock();
        let version = self.version.load_full();
        version.era.keep(Arc::clone(space));
        if read_on {
            let era = Arc::new(Keeper::default());
            version.era.follow(Arc::clone(&era));
            self.version.store(Arc::new(Version {
                active: Arc::clone(&version.active),
                frozen: version.frozen.clone(),
                root: Arc::clone(&version.root),
                era,
            }));
        }
        drop(edit);
    }

    /// What waits to be freed.
    #[must_use]
    pub fn pending_drops(&self) -> Drops {
        self.edit.lock().drops.clone()
    }

    /// Whether nodes exist in memory only: something was flushed or merged since the last checkpoint.
    #[must_use]
    pub fn has_dirty_nodes(&self) -> bool {
        !self.version.load().root.is_stored()
    }

    /// Whether dropped things wait to be freed.
    #[must_use]
    pub fn has_drops(&self) -> bool {
        !self.edit.lock().drops.is_empty()
    }

    /// Resolves one pending drop; returns whether more wait.
    pub(super) fn resolve_drop(&self) -> Result<bool, TreeError> {
        let Some(_resolving) = self.resolving.try_lock() else {
            return Ok(false);
        };
        let Some(dropped) = self.edit.lock().drops.last() else {
            return Ok(false);
        };
        let step = Step::prepare(&dropped, &self.dmu)?;
        let mut edit = self.edit.lock();
        let generation = edit.generation;
        edit.drops.apply(&dropped, step, &self.dmu, &self.deaths, generation);
        Ok(!edit.drops.is_empty())
    }

    /// Kills large values whose last message is gone, and has `keeper` keep them for its readers. There may be very many short
    /// ones, so that those which no snapshot has are one owner's.
    pub(super) fn kill_values(&self, values: Vec<LargeValue>, keeper: &Keeper, generation: Generation) {
        let newest = self.deaths.newest();
        let kill = |extents: Vec<Extent>, birth: Generation| {
            let space = Arc::new(OwnedExtents::of_value(&self.dmu, extents, birth));
            self.deaths.died(&space, generation);
            keeper.keep(space);
        };
        let (mut freed, mut oldest) = (Vec::new(), generation);
        for value in values {
            if value.birth > newest {
                freed.extend(value.extents);
                oldest = oldest.min(value.birth);
            } else {
                kill(value.extents, value.birth);
            }
        }
        if !freed.is_empty() {
            kill(freed, oldest);
        }
    }

    /// The path in `root` to the slot of `level` that holds `key`; `None` when the tree is lower than that.
    pub(super) fn locate(
        &self,
        root: &Arc<NodeCell>,
        level: u8,
        key: &[u8],
    ) -> Result<Option<Path>, TreeError> {
        self.descend(root, level, |body| body.slot_index(key))
    }

    /// The path in `root` to the slot of `level` that `choose` takes on each level.
    pub(super) fn descend(
        &self,
        root: &Arc<NodeCell>,
        level: u8,
        choose: impl Fn(&NodeBody) -> usize,
    ) -> Result<Option<Path>, TreeError> {
        let mut cell = Arc::clone(root);
        let mut steps = Vec::new();
        if cell.level() < level {
            return Ok(None);
        }
        loop {
            let body = cell.load(&self.dmu)?;
            let index = choose(&body);
            let child = body.slots[index].child.clone();
            let at_level = body.level == level;
            steps.push(PathStep { cell, body, index });
            match child {
                Some(child) if !at_level => cell = child,
                _ => return Ok(Some(Path { steps })),
            }
        }
    }

    /// Publishes `body` in place of the node at the end of `path`; under the edit lock, `path` from the current root.
    pub(super) fn publish(&self, edit: &Edit, path: &Path, body: NodeBody, frozen: Option<Vec<Arc<Table>>>) {
        let mut child = NodeCell::fresh(&self.dmu, body);
        for (depth, step) in path.steps.iter().enumerate().rev() {
            step.cell.die(&self.deaths, edit.generation);
            if depth + 1 < path.steps.len() {
                let slot = Arc::new(step.body.slots[step.index].with_child(child));
                child = NodeCell::fresh(&self.dmu, step.body.with_slots(step.index, vec![slot], Vec::new()));
            }
        }
        self.publish_root(child, frozen);
    }

    /// Publishes a root, and a list of frozen tables when it changed; under the edit lock.
    pub(super) fn publish_root(&self, root: Arc<NodeCell>, frozen: Option<Vec<Arc<Table>>>) {
        let version = self.version.load_full();
        self.version.store(Arc::new(Version {
            active: Arc::clone(&version.active),
            frozen: frozen.unwrap_or_else(|| version.frozen.clone()),
            root,
            era: Arc::clone(&version.era),
        }));
    }

    /// Queues the jobs that slot `index` of `body` is due for; `low` is the slot's lower bound.
    pub(super) fn queue_due(&self, body: &NodeBody, index: usize, low: &[u8]) {
        let slot = &body.slots[index];
        if let Some(job) = self.due(body.level, slot, low) {
            self.jobs.push(self.id, job);
        }
    }

    /// Pushes what lies above the leaf of `low` down to it, and merges the leaf: what its deletes and newer versions cover
    /// is free afterwards, and what patches take beside their values. One leaf at a time takes little space at a time.
    ///
    /// # Errors
    /// Out of space, though what there is room for was done: another call goes on with it. Device errors.
    pub fn push_down(&self, low: &[u8]) -> Result<(), TreeError> {
        let mut flushed = Ok(());
        for level in (2..=self.version.load().root.level()).rev() {
            let level_flushed = self.empty_buffer(level, low);
            if level_flushed.as_ref().is_err_and(|error| !error.is_out_of_space()) {
                return level_flushed;
            }
            flushed = flushed.and(level_flushed);
        }
        let version = self.version.load_full();
        if let Some(path) = self.locate(&version.root, 1, low)? {
            let slot = path.slot();
            let deletes = |run: &Run| run.reference().deletes + u64::from(run.reference().range_deletes);
            let can_fold = self.folding_action().is_some();
            let is_patched = |run: &Run| can_fold && is_patched(run);
            if slot.runs.len() > slot.base || slot.runs.iter().any(|run| deletes(run) > 0 || is_patched(run))
            {
                self.merge_leaf(path.slot_low(), Folding::ForSpace, None)?;
            }
        }
        flushed
    }

    /// Flushes the buffer above `low` on `level`: at once, or run by run where there is not the room for that. Leaves it to
    /// another job that has it in hand.
    pub(super) fn empty_buffer(&self, level: u8, low: &[u8]) -> Result<(), TreeError> {
        let (mut runs_max, mut before) = (usize::MAX, usize::MAX);
        loop {
            let version = self.version.load_full();
            let path = self.locate(&version.root, level, low)?;
            let Some(path) = path.filter(|path| (1..before).contains(&path.slot().runs.len())) else {
                return Ok(());
            };
            let runs = path.slot().runs.len();
            match self.flush_slot(level, path.slot_low(), runs_max) {
                Err(error) if error.is_out_of_space() && runs.min(runs_max) > 1 => {
                    runs_max = runs.min(runs_max) / 2;
                }
                flushed => {
                    flushed?;
                    before = runs;
                }
            }
        }
    }

    /// Where the leaf behind that of `low` begins; `None` behind the last.
    ///
    /// # Errors
    /// Device errors while headers are read.
    pub fn next_leaf(&self, low: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        let path = self.locate(&self.version.load_full().root, 1, low)?;
        Ok(path.and_then(|path| path.slot_high().map(<[u8]>::to_vec)))
    }

    /// Queues the work that an earlier process left undone, as far as the first nodes of each level show it: in a tree
    /// of more nodes, readers and writers come across the rest.
    ///
    /// # Errors
    /// Device errors while headers are read.
    pub(super) fn queue_left_over(&self) -> Result<(), TreeError> {
        for level in (1..=self.version.load().root.level()).rev() {
            let mut low = Some(Vec::new());
            for _ in 0..SURVEY_NODES_MAX {
                let Some(from) = low else { break };
                self.queue_node_at(level, &from)?;
                let path = self.locate(&self.version.load_full().root, level, &from)?;
                low = path.and_then(|path| path.node_high().map(<[u8]>::to_vec));
            }
        }
        Ok(())
    }

    fn due(&self, level: u8, slot: &Slot, low: &[u8]) -> Option<Job> {
        let options = &self.options;
        let low = low.to_vec();
        let leveled = options.policy == MergePolicy::Leveled;
        if level > 1 {
            let full = slot.delta_bytes >= options.buffer_bytes
                || slot.depth >= options.runs_per_buffer
                || slot.runs.len() >= RUNS_PER_SLOT_MAX;
            return match full {
                true => Some(Job::FlushSlot { level, low }),
                false if leveled && slot.depth > 1 => Some(Job::MergeBuffer { level, low }),
                false => None,
            };
        }
        let (ratio, deltas) = match options.policy {
            MergePolicy::LazyLeveled => (options.delta_ratio_percent, options.deltas_per_leaf),
            MergePolicy::Tiered => (options.delta_ratio_percent * 2, options.deltas_per_leaf * 2),
            MergePolicy::Leveled => (options.delta_ratio_percent / 2, options.deltas_per_leaf.min(2)),
        };
        // Small leaves are measured against a quarter of a full one, or a young tree would merge at every flush.
        let base = slot.base_bytes.max(options.leaf_bytes / 4);
        let newer = &slot.runs[..slot.runs.len() - slot.base];
        // What a range delete covers whole is dropped at once; a few boundary leaves wait for more work.
        let ranges = newer.iter().filter(|run| run.reference().range_deletes > 0).count() as u64;
        let weight = slot.delta_bytes + ranges * options.leaf_bytes / 8;
        let full = slot.depth >= deltas.max(1) || weight * 100 >= base * ratio;
        let split = slot.delta_bytes > 0 && slot.delta_bytes + slot.base_bytes > options.leaf_bytes * 2;
        // More than one base run per tier: small neighbours that were joined.
        let small = slot.base > 8 && slot.base_bytes / (slot.base as u64) < options.leaf_bytes / 8;
        let garbage = frees_much(newer, &slot.runs[newer.len()..], options);
        (full || split || small || garbage).then_some(Job::MergeLeaf { low })
    }

    /// Kills consumed runs. Their readers may still look at the large values that the merge dropped, and at those that
    /// went on into other runs (`heirs`), when they are dropped later.
    pub(super) fn retire_runs(
        &self,
        runs: &[Arc<Run>],
        dropped: Vec<LargeValue>,
        heirs: Vec<Arc<Keeper>>,
        generation: Generation,
    ) {
        for run in runs {
            self.deaths.died(run.space(), generation);
        }
        if dropped.is_empty() && heirs.is_empty() {
            return;
        }
        let keeper = Arc::new(Keeper::default());
        self.kill_values(dropped, &keeper, generation);
        heirs.into_iter().for_each(|heir| keeper.follow(heir));
        for run in runs.iter().filter(|run| run.reference().large_bytes > 0) {
            run.space().keeper().follow(Arc::clone(&keeper));
        }
    }

    /// Newest sequence number that a reader who took its version before may see.
    pub(super) fn visible(&self) -> u64 {
        self.visible.load(Ordering::Acquire)
    }
}

fn empty_root(dmu: &Dmu) -> Arc<NodeCell> {
    NodeCell::fresh(dmu, NodeBody::empty(dmu, 1))
}

/// Whether the messages of `newer` are small but name much space on the devices, beside what `base` names: garbage that byte
/// counts of buffers do not see.
fn frees_much(newer: &[Arc<Run>], base: &[Arc<Run>], options: &TreeOptions) -> bool {
    let large = |runs: &[Arc<Run>]| runs.iter().map(|run| run.reference().large_bytes).sum::<u64>();
    let stored: u64 = newer.iter().map(|run| run.stored_bytes()).sum();
    let named = large(newer);
    let share = large(base) / 100 * options.delta_ratio_percent;
    named > 4 * options.leaf_bytes && named > 4 * stored && named >= share.min(64 * options.leaf_bytes)
}

/// Whether patches take so much beside the large values of a run that at least one of these is folded for space.
pub(super) fn is_patched(run: &Run) -> bool {
    let RunRef { upsert_bytes, large_bytes, .. } = *run.reference();
    large_bytes > 0 && upsert_bytes.saturating_mul(Folding::ForSpace.share()) >= large_bytes
}

/// Nodes of each level that are read at opening in search of work, in the background: some 40 MiB of headers.
const SURVEY_NODES_MAX: usize = 1024;

/// A buffer is flushed at this many runs, overlapping or not: a node's header names each of them.
const RUNS_PER_SLOT_MAX: usize = 256;

/// The keepers of those of `runs` that name large values.
pub(super) fn keepers<'a>(runs: impl IntoIterator<Item = &'a Arc<Run>>) -> Vec<Arc<Keeper>> {
    let runs = runs.into_iter().filter(|run| run.reference().large_bytes > 0);
    runs.map(|run| Arc::clone(run.space().keeper())).collect()
}
