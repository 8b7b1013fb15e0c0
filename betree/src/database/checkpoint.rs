//! Checkpoint: from the cut to the superblock.
//!
//! Under the commit lock: the cut, the log's head behind it, all memtables frozen, the next generation opened. Then, as
//! writers go on: the frozen tables flushed, each tree captured, its dirty headers written bottom-up, the root tree, the
//! bitmaps, a flush of every device, and the superblock in two flushed steps. Only then is freed what the checkpoint
//! before the last one held.

use super::catalog::DatasetState;
use super::commit::Commit;
use super::core::Core;
use super::error::{Error, Result};
use super::format::{DatasetRecord, RootRecord, dataset_key, drops_key};
use super::snapshots::{Change, Plan, RootEdits};
use crate::base::buffer::AlignedBuffer;
use crate::base::checksum::crc;
use crate::base::extent::Extent;
use crate::base::ids::Generation;
use crate::base::planted::{Bug, panic_if_planted, planted};
use crate::base::preference::StoragePreference;
use crate::base::sync::MutexGuard;
use crate::base::units::{BLOCK_BYTES, blocks_for};
use crate::dmu::{DmuError, OwnedExtents, Privilege, Stream};
use crate::log::LogHead;
use crate::run::{EntryRef, Kind};
use crate::tree::{Captured, Drops, Tree, TreeError, View};
use std::sync::Arc;

/// What one checkpoint leaves for the next.
#[derive(Debug)]
pub(super) struct Checkpointer {
    /// The newest durable generation.
    pub durable: Generation,
    /// Log head of the newest durable generation; `None` before the first checkpoint of this opening.
    pub head: Option<LogHead>,
    /// Extents of the logs of earlier openings, and of what only they name, kept as long as a superblock may need them.
    pub earlier_log: Vec<Extent>,
    /// Space of the newest table root.
    pub table: Option<OwnedExtents>,
    /// Messages written into the root tree by the checkpoint being made.
    pub root_messages: u64,
    /// Sequence number of the newest cut.
    pub cut: u64,
    /// What the newest durable superblock says.
    pub record: Option<RootRecord>,
}

/// What the cut fixes.
struct Cut {
    generation: Generation,
    sequence: u64,
    next_dataset: u64,
    head: LogHead,
    datasets: Vec<(Arc<DatasetState>, DatasetRecord)>,
}

/// Room for the messages of one checkpoint between the sequence numbers of two generations in the root tree.
const ROOT_MESSAGES_MAX: u64 = 1 << 24;

impl Core {
    /// Writes a checkpoint; without `force` only when something changed. Returns the newest durable generation.
    ///
    /// # Errors
    /// Out of space: nothing changed, and the next checkpoint tries again. Any other error latches.
    pub fn checkpoint(&self, force: bool) -> Result<Generation> {
        self.checkpoint_with(force, &[])
    }

    /// Makes `changes`, all or none, with a checkpoint of their own.
    ///
    /// # Errors
    /// As [`Core::checkpoint`]; what keeps the change from being made.
    pub fn change(&self, changes: &[Change<'_>]) -> Result<()> {
        self.check_accepts()?;
        self.checkpoint_with(true, changes)?;
        // What is condemned goes on being freed: by the checkpoint thread, or here.
        while !self.has_threads() && self.snapshots.has_condemned() {
            match self.checkpoint(true) {
                Err(error) if error.is_lack_of_space() => break,
                written => written.map(|_| ())?,
            }
        }
        Ok(())
    }

    fn checkpoint_with(&self, force: bool, changes: &[Change<'_>]) -> Result<Generation> {
        self.check_writable()?;
        let mut checkpointer = self.checkpointer.lock();
        // Who waits for the lock must find the failure, not the ruins.
        let _guard = self.fail_on_panic();
        self.check_writable()?;
        if !force && checkpointer.head.is_some() && checkpointer.cut == self.visible() && !self.has_changes()
        {
            return Ok(checkpointer.durable);
        }
        let mut plan = self.plan(changes, &mut checkpointer)?;
        let (cut, mut commit) = self.cut(&mut plan)?;
        match self.write_checkpoint(&mut checkpointer, &cut, &mut plan) {
            Ok(()) => {
                self.publish_root(cut.generation);
                if plan.is_work() {
                    // Whoever opens an older checkpoint must not go on here with what builds on the change.
                    let commit = commit.get_or_insert_with(|| self.commit.lock());
                    let logged = commit.log_one(self.log()?, |writer| writer.changed(cut.generation));
                    logged.inspect_err(|error| self.fail(error.clone()))?;
                    self.publish(commit);
                }
                drop(commit);
                plan.finish(self);
                if self.snapshots.has_condemned() && self.has_threads() {
                    self.want_checkpoint();
                }
                Ok(cut.generation)
            }
            Err(error) if error.is_lack_of_space() && !plan.is_final() => {
                plan.take_back(self, &mut checkpointer, cut.generation);
                let next = self.open_generation();
                self.root_tree.skip_to(next);
                cut.datasets.iter().for_each(|(dataset, _)| dataset.tree.skip_to(next));
                Err(error)
            }
            Err(error) => {
                self.fail(error.clone());
                Err(error)
            }
        }
    }

    fn visible(&self) -> u64 {
        self.visible.load(crate::base::sync::atomic::Ordering::Acquire)
    }

    /// Whether there is something to write without new messages: merged runs, or space that was given back.
    fn has_changes(&self) -> bool {
        let changed = |dataset: &DatasetState| {
            !dataset.tree.deaths().is_empty()
                || dataset.tree.has_drops()
                || dataset.tree.has_dirty_nodes()
                || dataset.is_destroyed()
        };
        self.snapshots.has_condemned() || self.catalog.read().all().iter().any(|dataset| changed(dataset))
    }

    /// Fixes what the checkpoint contains: every message up to now of every dataset, and no other.
    /// What goes back behind writes that were seen holds the commit lock until it is durable: none may build on it before.
    fn cut(&self, plan: &mut Plan<'_>) -> Result<(Cut, Option<MutexGuard<'_, Commit>>)> {
        let mut commit = self.commit.lock();
        plan.at_cut(self, &mut commit)?;
        let head = self.log()?.cut().inspect_err(|error| self.fail(error.clone().into()))?;
        *self.cut_head.lock() = Some(head.clone());
        let generation = commit.open_generation;
        commit.open_generation = generation.next();
        let datasets = self.catalog.read().all();
        for dataset in &datasets {
            dataset.tree.freeze(generation);
        }
        let cut = Cut {
            generation,
            sequence: commit.next_sequence - 1,
            next_dataset: commit.next_dataset,
            head,
            datasets: datasets.into_iter().map(|dataset| (Arc::clone(&dataset), dataset.record())).collect(),
        };
        Ok((cut, plan.is_final().then_some(commit)))
    }

    fn write_checkpoint(
        &self,
        checkpointer: &mut Checkpointer,
        cut: &Cut,
        plan: &mut Plan<'_>,
    ) -> Result<()> {
        let generation = cut.generation;
        checkpointer.root_messages = 0;
        // What the trees name is on its devices when these are flushed, and what no value took is there to be allocated.
        if !planted(Bug::CheckpointBeforeWriteBehind) {
            self.dmu.settle_behind()?;
        }
        let finished = self.record_datasets(checkpointer, cut, plan)?;
        self.root_tree.freeze(generation);
        let root_of = |error| Error::of_tree(b"root tree", error);
        let captured = self.capture(&self.root_tree, generation, false).map_err(root_of)?;
        let preference = StoragePreference::NONE;
        let root_tree = self.root_tree.store(&captured.root, preference, generation).map_err(root_of)?;
        // Nobody asks; but what changed is added up.
        let _blocks = self.root_tree.deaths().blocks(generation);

        // The table root's place is part of the bitmaps, so it is found before they are written.
        self.dmu.prepare_departure(generation);
        let blocks = blocks_for(self.dmu.table_root_bytes_max(generation) as u64) as u32;
        let extents = self.dmu.allocate(Stream::Header, preference, blocks, Privilege::System)?;
        let table_extents = match self.dmu.store_extents(extents.clone(), preference) {
            Ok(stored) => stored,
            Err(error) => {
                self.dmu.release(&extents);
                return Err(error.into());
            }
        };
        let table = OwnedExtents::unborn(&self.dmu, table_extents.all());
        table.install(generation);
        if let Some(old) = checkpointer.table.replace(table) {
            old.kill(generation);
            self.scrubs.keep(old);
        }
        let root = self.dmu.write_bitmaps(generation)?;
        let mut buffer = AlignedBuffer::zeroed(blocks as usize * BLOCK_BYTES);
        let Some(place) = buffer.get_mut(..root.len()) else {
            return Err(Error::Corrupt {
                what: "allocation table",
                reason: String::from("it outgrew its place"),
            });
        };
        place.copy_from_slice(&root);
        if let Err(error) = self.dmu.write(table_extents.extents(), 0, &buffer) {
            self.dmu.abort_bitmaps(generation);
            return Err(error.into());
        }
        if !planted(Bug::SuperblockBeforeFlush) {
            self.pool.flush_all()?;
        }
        let record = RootRecord {
            generation,
            cut: cut.sequence,
            next_dataset: cut.next_dataset,
            epoch: cut.head.epoch,
            table_length: root.len() as u32,
            table_checksum: crc(&root),
            table_extents,
            root_tree,
            // What was synced meanwhile is known, so that its loss is recognised as damage.
            log_head: LogHead {
                durable_lsn: self.log()?.durable_lsn().max(cut.head.durable_lsn),
                ..cut.head.clone()
            },
        };
        panic_if_planted(Bug::PanicInCheckpoint);
        if self.has_failed() {
            // What a worker left that failed meanwhile does not become durable.
            self.check_writable()?;
        }
        self.pool.commit(generation, &record.encode())?;

        checkpointer.durable = generation;
        checkpointer.cut = cut.sequence;
        checkpointer.record = Some(record);
        self.dmu.set_durable(generation);
        match checkpointer.head.replace(cut.head.clone()) {
            // The superblock before this one is still openable: its log stays.
            Some(before) => {
                self.log()?.release_before(&before)?;
                self.dmu.release(&std::mem::take(&mut checkpointer.earlier_log));
            }
            None => log::debug!("first checkpoint of this opening: generation {generation}"),
        }
        let mut catalog = self.catalog.write();
        for dataset in finished {
            self.snapshots.close_tree(&dataset.tree);
            catalog.forget(dataset.id);
        }
        Ok(())
    }

    /// Captures and stores every dataset, and writes what changed into the root tree. Returns the destroyed datasets whose
    /// space is all given back.
    fn record_datasets(
        &self,
        checkpointer: &mut Checkpointer,
        cut: &Cut,
        plan: &mut Plan<'_>,
    ) -> Result<Vec<Arc<DatasetState>>> {
        let generation = cut.generation;
        let mut edits = RootEdits::new(self, checkpointer, generation);
        plan.edit_first(&mut edits)?;
        let mut stored = Vec::with_capacity(cut.datasets.len());
        let mut roots = Vec::new();
        for (dataset, record) in &cut.datasets {
            let snapshot = plan.takes_snapshot_of(dataset);
            let captured =
                self.capture(&dataset.tree, generation, snapshot).map_err(|error| dataset.error(error))?;
            let root = if record.destroyed {
                None
            } else {
                let preference = StoragePreference::NONE;
                let root = dataset.tree.store(&captured.root, preference, generation);
                Some(root.map_err(|error| dataset.error(error))?)
            };
            edits.list_deaths(dataset, dataset.tree.deaths().take(generation))?;
            if !snapshot {
                // Readers of what is gone may be gone as well.
                self.set_listed(dataset);
            }
            let blocks = dataset.tree.deaths().blocks(generation);
            if let Some(root) = root.clone().filter(|_| snapshot) {
                roots.push((dataset.id, root, blocks));
            }
            stored.push((dataset, record, captured.drops, root, blocks));
        }
        let mut empty = Vec::new();
        for (dataset, _, drops, _, _) in stored.iter().filter(|(_, record, _, _, _)| record.destroyed) {
            if edits.delete_snapshots_of(dataset)? && drops.is_empty() {
                empty.push(Arc::clone(dataset));
            }
        }
        // Those that were cloned from it may still drop what left it, unless they go with this checkpoint, too.
        let mut finished: Vec<Arc<DatasetState>> = Vec::new();
        while let Some(at) = empty.iter().position(|one| !self.has_clones(one.id, &finished)) {
            let dataset = empty.remove(at);
            edits.forget_lists(dataset.id)?;
            finished.push(dataset);
        }
        edits.free_condemned()?;
        for (key, record) in self.scrubs.take_records(&plan.adopters()) {
            edits.put(&key, Some(&record))?;
        }
        if let Some((key, record)) = self.evacuations.take_record() {
            edits.put(&key, Some(&record))?;
        }
        let edited = plan.edit(&mut edits, cut.sequence, &roots);
        plan.set_undo(edits.into_undo());
        edited?;
        for (dataset, record, drops, root, blocks) in stored {
            let gone = finished.iter().any(|one| one.id == dataset.id);
            let lineage = dataset.record();
            let record = DatasetRecord {
                origin: lineage.origin,
                newest: lineage.newest,
                blocks: if record.destroyed { 0 } else { blocks },
                root,
                ..record.clone()
            };
            self.record_dataset(checkpointer, dataset, (!gone).then_some(record), &drops, generation);
        }
        Ok(finished)
    }

    /// Flushes what was frozen up to the cut and captures the tree.
    fn capture(&self, tree: &Tree, generation: Generation, snapshot: bool) -> Result<Captured, TreeError> {
        while tree.has_frozen(generation) {
            tree.flush_table(true)?;
        }
        Ok(tree.capture(generation, snapshot))
    }

    /// Writes the dataset's records into the root tree, where something changed; without `record` it is gone.
    fn record_dataset(
        &self,
        checkpointer: &mut Checkpointer,
        dataset: &DatasetState,
        record: Option<DatasetRecord>,
        drops: &Drops,
        generation: Generation,
    ) {
        let mut recorded = dataset.recorded.lock();
        let chunks = drops.encode();
        for (index, chunk) in chunks.iter().enumerate() {
            self.put_root(checkpointer, generation, &drops_key(dataset.id, index as u32), Some(chunk));
        }
        for index in chunks.len() as u32..recorded.drop_chunks {
            self.put_root(checkpointer, generation, &drops_key(dataset.id, index), None);
        }
        recorded.drop_chunks = chunks.len() as u32;
        if record.is_none() || recorded.record != record {
            let bytes = record.as_ref().map(DatasetRecord::encode);
            self.put_root(checkpointer, generation, &dataset_key(dataset.id), bytes.as_deref());
            recorded.record = record;
        }
    }

    /// The sequence number of the next message of the root tree in the checkpoint being made.
    pub(super) fn next_root_sequence(&self, checkpointer: &mut Checkpointer, generation: Generation) -> u64 {
        checkpointer.root_messages += 1;
        generation.0 * ROOT_MESSAGES_MAX + checkpointer.root_messages % ROOT_MESSAGES_MAX
    }

    pub(super) fn put_root(
        &self,
        checkpointer: &mut Checkpointer,
        generation: Generation,
        key: &[u8],
        value: Option<&[u8]>,
    ) {
        let sequence = self.next_root_sequence(checkpointer, generation);
        let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
        let preference = StoragePreference::NONE;
        let payload = value.unwrap_or(&[]);
        self.root_tree.active().insert(EntryRef { key, sequence, kind, preference, payload });
    }

    /// Callers are told of the snapshots in checkpoint `generation`, which is durable.
    pub(super) fn publish_root(&self, generation: Generation) {
        let visible = (generation.0 + 1) * ROOT_MESSAGES_MAX - 1;
        self.snapshots.set_root(View { visible, ..self.root_tree.view() });
    }
}

impl From<TreeError> for Error {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Dmu(error @ DmuError::OutOfSpace { .. }) => error.into(),
            source => Self::Tree { dataset: String::from("?"), source },
        }
    }
}
