//! The write path: commit lock, log record, memtables, visibility.

use super::Durability;
use super::catalog::DatasetState;
use super::core::Core;
use super::error::{Error, Result};
use super::large::Large;
use super::limits::BATCH_BYTES_MAX;
use super::record::RecordWriter;
use crate::base::ids::Generation;
use crate::base::preference::StoragePreference;
use crate::base::sync::atomic::Ordering;
use crate::log::Log;
use crate::run::{EntryRef, Kind, RangeDelete};
use crate::tree::LargeValue;
use std::sync::Arc;

/// How many writes pass before the length of the log is looked at again.
const WRITES_BETWEEN_LOOKS: u64 = 32;

/// What the commit lock guards.
#[derive(Debug)]
pub(super) struct Commit {
    /// The next sequence number.
    pub next_sequence: u64,
    /// The next dataset id.
    pub next_dataset: u64,
    /// The generation that the next checkpoint will write.
    pub open_generation: Generation,
    pub record: RecordWriter,
    /// Bytes written since memtables were last measured.
    pub unmeasured: usize,
}

/// One operation of a batch.
pub(super) enum Write<'a> {
    /// A message for a key.
    Message {
        dataset: &'a Arc<DatasetState>,
        kind: Kind,
        preference: StoragePreference,
        key: &'a [u8],
        payload: &'a [u8],
    },
    /// A put of the `bytes` bytes that `compute` makes under the commit lock, and that `committed` gets before it is released.
    Computed {
        dataset: &'a Arc<DatasetState>,
        key: &'a [u8],
        bytes: usize,
        compute: &'a dyn Fn() -> Vec<u8>,
        committed: &'a dyn Fn(&[u8]),
    },
    /// A range delete; `end` is exclusive.
    RangeDelete { dataset: &'a Arc<DatasetState>, start: &'a [u8], end: Option<&'a [u8]> },
}

impl Commit {
    /// Logs one operation on the catalog; takes its sequence number.
    pub fn log_one(&mut self, log: &Log, operation: impl FnOnce(&mut RecordWriter)) -> Result<()> {
        self.log_all(log, 1, operation)
    }

    /// Logs `count` operations on the catalog, all or none; takes their sequence numbers.
    pub fn log_all(
        &mut self,
        log: &Log,
        count: usize,
        operations: impl FnOnce(&mut RecordWriter),
    ) -> Result<()> {
        self.record.start(self.next_sequence, count);
        operations(&mut self.record);
        log.append(&[self.record.bytes()])?;
        self.next_sequence += count as u64;
        Ok(())
    }
}

impl Write<'_> {
    fn dataset(&self) -> &Arc<DatasetState> {
        match self {
            Self::Message { dataset, .. }
            | Self::Computed { dataset, .. }
            | Self::RangeDelete { dataset, .. } => dataset,
        }
    }

    /// Bytes for which space is reserved.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Message { key, payload, .. } => (key.len() + payload.len() + 32) as u64,
            Self::Computed { key, bytes, .. } => (key.len() + bytes + 32) as u64,
            Self::RangeDelete { start, end, .. } => (start.len() + end.map_or(0, <[u8]>::len) + 32) as u64,
        }
    }
}

impl Core {
    /// Commits `writes` as one atomic batch.
    pub fn write(&self, writes: &[Write<'_>], durability: Durability) -> Result<()> {
        self.check_accepts()?;
        if writes.is_empty() {
            return if durability == Durability::Sync { self.sync() } else { Ok(()) };
        }
        let total: u64 = writes.iter().map(Write::bytes).sum();
        if total > BATCH_BYTES_MAX {
            return Err(Error::TooLarge { what: "batch", length: total, limit: BATCH_BYTES_MAX });
        }
        self.admit(writes)?;
        self.pace(total)?;
        let writer = self.writers.enter();
        let large = self.write_large(writes)?;
        let lsn = self.commit(writes, large)?;
        drop(writer);
        self.after_write()?;
        if durability == Durability::Sync {
            self.admission.note_sync();
            self.log()?.sync(lsn)?;
        }
        Ok(())
    }

    /// Under the commit lock: sequence numbers, log record, memtables, visibility. Returns the record's log position.
    fn commit(&self, writes: &[Write<'_>], mut large: Vec<Option<Large>>) -> Result<u64> {
        let log = self.log()?;
        let mut guard = self.commit.lock();
        let commit = &mut *guard;
        self.check_accepts()?;
        if let Some(gone) = writes.iter().map(Write::dataset).find(|dataset| dataset.is_destroyed()) {
            return Err(gone.not_found());
        }
        let first = commit.next_sequence;
        let generation = commit.open_generation;
        let compute = |write: &Write<'_>| match write {
            Write::Computed { compute, .. } => compute(),
            _ => Vec::new(),
        };
        let computed: Vec<Vec<u8>> = writes.iter().map(compute).collect();
        commit.record.start(first, writes.len());
        for (index, write) in writes.iter().enumerate() {
            match write {
                Write::Computed { dataset, key, .. } => {
                    let preference = StoragePreference::NONE;
                    commit.record.message(dataset.id, Kind::Put, preference, key, &computed[index]);
                }
                Write::Message { dataset, kind, preference, key, payload } => {
                    match large.get_mut(index).and_then(Option::as_mut) {
                        Some(large) => {
                            LargeValue::set_birth(&mut large.pointer, generation);
                            commit.record.message(
                                dataset.id,
                                Kind::PutLarge,
                                *preference,
                                key,
                                &large.pointer,
                            );
                            large.space.extents().iter().for_each(|extent| log.note_device(extent.vdev));
                        }
                        None => commit.record.message(dataset.id, *kind, *preference, key, payload),
                    }
                }
                Write::RangeDelete { dataset, start, end } => {
                    commit.record.range_delete(dataset.id, start, *end)
                }
            }
        }
        let lsn = log.append(&[commit.record.bytes()])?;
        // Nothing fails from here on.
        let mut bytes = 0;
        for (index, write) in writes.iter().enumerate() {
            let sequence = first + index as u64;
            let table = write.dataset().tree.active();
            bytes += write.bytes() as usize;
            match write {
                Write::Computed { key, committed, .. } => {
                    let (kind, preference) = (Kind::Put, StoragePreference::NONE);
                    committed(&computed[index]);
                    table.insert(EntryRef { key, sequence, kind, preference, payload: &computed[index] });
                }
                Write::Message { kind, preference, key, payload, .. } => {
                    match large.get_mut(index).and_then(Option::take) {
                        Some(large) => {
                            write.dataset().tree.deaths().born(&large.space, generation);
                            let entry = EntryRef {
                                key,
                                sequence,
                                kind: Kind::PutLarge,
                                preference: *preference,
                                payload: &large.pointer,
                            };
                            table.insert_large(entry, large.bytes);
                        }
                        None => {
                            if *kind == Kind::Delete {
                                self.admission.note_delete();
                            }
                            table.insert(EntryRef {
                                key,
                                sequence,
                                kind: *kind,
                                preference: *preference,
                                payload,
                            });
                        }
                    }
                }
                Write::RangeDelete { start, end, .. } => {
                    self.admission.note_delete();
                    let (start, end) = ((*start).into(), end.map(Into::into));
                    table.range_delete(RangeDelete { start, end, sequence });
                }
            }
        }
        let last = first + writes.len() as u64 - 1;
        commit.next_sequence = last + 1;
        self.visible.store(last, Ordering::Release);
        for write in writes {
            self.freeze_when_full(write.dataset(), generation);
        }
        commit.unmeasured += bytes;
        if commit.unmeasured > self.scale.memtable_bytes / 4 {
            commit.unmeasured = 0;
            self.freeze_largest(generation);
        }
        Ok(lsn)
    }

    fn freeze_when_full(&self, dataset: &DatasetState, generation: Generation) {
        let table = dataset.tree.active();
        if table.bytes() >= self.scale.memtable_bytes || table.large_bytes() >= self.scale.large_bytes_max() {
            dataset.tree.freeze(generation);
        }
    }

    /// Many datasets with small memtables: freezes the largest when all together are too large.
    fn freeze_largest(&self, generation: Generation) {
        let (all, frozen) = self.measure_memtables();
        if all - frozen > self.scale.memtables_bytes_max / 2 {
            let datasets = self.catalog.read().all();
            if let Some(largest) = datasets.iter().max_by_key(|dataset| dataset.tree.active().bytes()) {
                largest.tree.freeze(generation);
            }
        }
    }

    /// What a write leaves to do: with threads, wake them; without, do it here.
    fn after_write(&self) -> Result<()> {
        let wanted = self.writes.fetch_add(1, Ordering::Relaxed).is_multiple_of(WRITES_BETWEEN_LOOKS)
            && self.log_bytes()? > self.scale.checkpoint_log_bytes;
        if self.has_threads() {
            if wanted {
                self.want_checkpoint();
            }
            return Ok(());
        }
        if !self.jobs.is_empty() {
            self.drain_jobs()?;
        }
        if wanted {
            match self.checkpoint(false) {
                // The write itself is done; the next one that needs room reclaims it, or is refused.
                Err(error) if error.is_lack_of_space() => {
                    log::warn!("no room for a checkpoint; it is put off")
                }
                written => written.map(|_| ())?,
            }
        }
        Ok(())
    }

    /// Bytes of log on the devices since the newest cut.
    pub fn log_bytes(&self) -> Result<u64> {
        let log = self.log()?;
        Ok(self.cut_head.lock().as_ref().map_or(0, |head| log.bytes_since(head)))
    }

    pub fn want_checkpoint(&self) {
        let mut wanted = self.checkpoint_wanted.0.lock();
        if !*wanted {
            *wanted = true;
            self.checkpoint_wanted.1.notify_all();
        }
    }

    /// Lets readers see everything that was committed under `commit`.
    pub fn publish(&self, commit: &Commit) {
        self.visible.store(commit.next_sequence - 1, Ordering::Release);
    }

    /// Makes durable what is not, if there is anything.
    pub fn sync_if_needed(&self) -> Result<()> {
        let log = self.log()?;
        if log.durable_lsn() < log.position() { self.sync() } else { Ok(()) }
    }

    /// Makes everything that returned before durable.
    pub fn sync(&self) -> Result<()> {
        self.check_writable()?;
        let log = self.log()?;
        self.admission.note_sync();
        Ok(log.sync(log.position())?)
    }
}
