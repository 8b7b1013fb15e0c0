//! The write path: admission, commit lock, log record, memtables, visibility.

use super::Durability;
use super::catalog::DatasetState;
use super::core::Core;
use super::error::{Error, Result};
use super::limits::BATCH_BYTES_MAX;
use super::record::RecordWriter;
use crate::base::ids::Generation;
use crate::base::preference::{StoragePreference, TIER_COUNT};
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use crate::base::sync::thread;
use crate::base::units::BLOCK_BYTES_U64;
use crate::dmu::{DmuError, OwnedExtents, Privilege};
use crate::log::Log;
use crate::run::{EntryRef, Kind, RangeDelete};
use crate::tree::LargeValue;
use std::sync::Arc;
use std::time::Duration;

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
#[derive(Debug)]
pub(super) enum Write<'a> {
    /// A message for a key.
    Message {
        dataset: &'a Arc<DatasetState>,
        kind: Kind,
        preference: StoragePreference,
        key: &'a [u8],
        payload: &'a [u8],
    },
    /// A range delete; `end` is exclusive.
    RangeDelete { dataset: &'a Arc<DatasetState>, start: &'a [u8], end: Option<&'a [u8]> },
}

impl Commit {
    /// Logs one operation on the catalog; takes its sequence number.
    pub fn log_one(&mut self, log: &Log, operation: impl FnOnce(&mut RecordWriter)) -> Result<()> {
        self.record.start(self.next_sequence, 1);
        operation(&mut self.record);
        log.append(&[self.record.bytes()])?;
        self.next_sequence += 1;
        Ok(())
    }
}

impl Write<'_> {
    fn dataset(&self) -> &Arc<DatasetState> {
        match self {
            Self::Message { dataset, .. } | Self::RangeDelete { dataset, .. } => dataset,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Message { key, payload, .. } => (key.len() + payload.len() + 32) as u64,
            Self::RangeDelete { start, end, .. } => (start.len() + end.map_or(0, <[u8]>::len) + 32) as u64,
        }
    }
}

/// How far writes may go before space is looked at again, per storage class.
#[derive(Debug, Default)]
pub(super) struct Admission {
    credit: [AtomicI64; TIER_COUNT],
    /// One writer at a time finds out what is left.
    measuring: Mutex<()>,
    /// Sequence number at the last reclaim that freed too little: another one is of no use before something is deleted.
    gave_up_at: AtomicU64,
    deletes: AtomicU64,
    /// Writes so far.
    writes: AtomicU64,
    /// A job found no room since a writer last looked.
    pub put_off: AtomicBool,
    /// Bytes in frozen memtables when last measured.
    frozen: AtomicUsize,
    /// Delay that writers owe, in nanoseconds.
    owed_ns: AtomicU64,
}

/// A large value on its way into the log.
struct Large {
    pointer: Vec<u8>,
    space: OwnedExtents,
    bytes: u64,
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
        let large = self.write_large(writes)?;
        let lsn = self.commit(writes, large)?;
        self.after_write()?;
        if durability == Durability::Sync {
            self.admission.note_sync();
            self.log()?.sync(lsn)?;
        }
        Ok(())
    }

    /// Writes the values that get extents of their own; `None` for the others.
    fn write_large(&self, writes: &[Write<'_>]) -> Result<Vec<Option<Large>>> {
        let is_large = |write: &Write<'_>| match write {
            Write::Message { dataset, kind: Kind::Put, payload, .. } => {
                payload.len() >= dataset.tree.options().large_value_bytes
            }
            _ => false,
        };
        if !writes.iter().any(is_large) {
            return Ok(Vec::new());
        }
        let mut large = Vec::with_capacity(writes.len());
        for write in writes {
            large.push(match write {
                Write::Message { dataset, preference, payload, .. } if is_large(write) => {
                    Some(self.write_one_large(dataset, *preference, payload)?)
                }
                _ => None,
            });
        }
        Ok(large)
    }

    fn write_one_large(
        &self,
        dataset: &DatasetState,
        preference: StoragePreference,
        bytes: &[u8],
    ) -> Result<Large> {
        let preference = preference.or(dataset.tree.options().preference);
        let mut tries = 0;
        let pointer = loop {
            match LargeValue::write(&self.dmu, bytes, preference, Privilege::User) {
                Err(DmuError::OutOfSpace { .. }) if tries < 2 => {
                    tries += 1;
                    self.reclaim()?;
                }
                result => break result?,
            }
        };
        let space = OwnedExtents::unborn(&self.dmu, pointer.extents.clone());
        Ok(Large { pointer: pointer.encode(), space, bytes: pointer.stored_bytes() })
    }

    /// Under the commit lock: sequence numbers, log record, memtables, visibility. Returns the record's log position.
    fn commit(&self, writes: &[Write<'_>], mut large: Vec<Option<Large>>) -> Result<u64> {
        let log = self.log()?;
        let mut guard = self.commit.lock();
        let commit = &mut *guard;
        self.check_accepts()?;
        if let Some(gone) = writes.iter().map(Write::dataset).find(|dataset| dataset.is_destroyed()) {
            return Err(Error::NotFound { what: "dataset", name: gone.display_name() });
        }
        let first = commit.next_sequence;
        let generation = commit.open_generation;
        commit.record.start(first, writes.len());
        for (index, write) in writes.iter().enumerate() {
            match write {
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
                Write::Message { kind, preference, key, payload, .. } => {
                    match large.get_mut(index).and_then(Option::take) {
                        Some(large) => {
                            large.space.install(generation);
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
                                self.admission.deletes.fetch_add(1, Ordering::Relaxed);
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
                    self.admission.deletes.fetch_add(1, Ordering::Relaxed);
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
        let wanted =
            self.admission.writes.fetch_add(1, Ordering::Relaxed).is_multiple_of(WRITES_BETWEEN_LOOKS)
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

    /// Slows writers down smoothly when flushes fall behind: no delay up to half of the memtable budget, then a delay
    /// per byte that grows until, at the budget, writers go at the speed of the flushes.
    ///
    /// # Errors
    /// Out of space when the flushes find no room.
    fn pace(&self, bytes: u64) -> Result<()> {
        if !self.has_threads() {
            return Ok(());
        }
        let budget = self.scale.memtables_bytes_max;
        let mut waits = 0;
        loop {
            let frozen = self.admission.frozen_bytes();
            if frozen * 2 < budget || self.has_failed() {
                return Ok(());
            }
            if frozen < budget {
                // 0 … 100 ns per byte: 10 MB/s at the budget.
                let share = (frozen * 2 - budget) as f64 / budget as f64;
                let delay = Duration::from_nanos((bytes as f64 * share * share * 100.0) as u64);
                self.admission.delay(delay);
                return Ok(());
            }
            waits += 1;
            if waits % 16 == 0 {
                self.measure_memtables();
                if self.admission.put_off.swap(false, Ordering::AcqRel) {
                    if waits >= PUT_OFF_WAITS_MAX {
                        let class = self.dmu.class_of(StoragePreference::NONE);
                        let free = self.dmu.available_blocks(class, Privilege::User) * BLOCK_BYTES_U64;
                        return Err(Error::OutOfSpace {
                            tier: self.dmu.first_tier(class),
                            wanted: bytes,
                            free,
                        });
                    }
                    self.queue_flushes();
                }
            }
            let mut progress = self.progress.0.lock();
            self.progress.1.wait_for(&mut progress, Duration::from_millis(1));
        }
    }

    /// Reserves the space that `writes` need until they are in their leaves, or refuses them before anything changes.
    fn admit(&self, writes: &[Write<'_>]) -> Result<()> {
        // Of each class, the bytes and the most that one of its writes may ask for.
        let mut classes = [(0, Privilege::System); TIER_COUNT];
        for write in writes {
            let (dataset, preference, privilege) = match write {
                Write::Message { dataset, kind: Kind::Delete, preference, .. } => {
                    (dataset, *preference, Privilege::Delete)
                }
                Write::Message { dataset, preference, .. } => (dataset, *preference, Privilege::User),
                Write::RangeDelete { dataset, .. } => (dataset, StoragePreference::NONE, Privilege::System),
            };
            let class = self.dmu.class_of(preference.or(dataset.tree.options().preference));
            let (bytes, least) = &mut classes[usize::from(class)];
            *bytes += write.bytes();
            *least = privilege.min(*least);
        }
        for (class, (_, privilege)) in
            (0..).zip(classes).filter(|(_, (_, least))| *least != Privilege::System)
        {
            // What else of this batch goes to nothing but tiers of this class shares their room.
            let inside = |other: &u8| *other == class || self.dmu.is_inside(*other, class);
            let others = (0..).zip(classes).filter(|(other, (bytes, _))| *bytes > 0 && inside(other));
            let bytes = others.map(|(_, (bytes, _))| bytes).sum();
            self.admit_class(class, privilege, bytes)?;
        }
        Ok(())
    }

    fn admit_class(&self, class: u8, privilege: Privilege, bytes: u64) -> Result<()> {
        // Log, run, and the merges on the way down: three times on the devices at the most at one time.
        let need = (bytes * 3) as i64;
        let credit = &self.admission.credit[usize::from(class)];
        if privilege == Privilege::User && credit.fetch_sub(need, Ordering::Relaxed) >= need {
            return Ok(());
        }
        let _measuring = self.admission.measuring.lock();
        if self.grant(class, privilege, need) {
            return Ok(());
        }
        let deletes = self.admission.deletes.load(Ordering::Relaxed);
        if self.admission.gave_up_at.load(Ordering::Relaxed) != deletes + 1 || self.dmu.deferred_blocks() > 0
        {
            // A little space at a time would cost a reclaim for every few writes.
            let slack = if privilege == Privilege::User { self.scale.merge_bytes() as i64 / 2 } else { 0 };
            self.reclaim()?;
            if self.grant(class, privilege, need + slack) {
                return Ok(());
            }
            let deletes = self.admission.deletes.load(Ordering::Relaxed);
            self.admission.gave_up_at.store(deletes + 1, Ordering::Relaxed);
        }
        let free = self.dmu.available_blocks(class, privilege) * BLOCK_BYTES_U64;
        Err(Error::OutOfSpace { tier: self.dmu.first_tier(class), wanted: bytes, free })
    }

    /// Whether `need` bytes fit; extends the credit of the class.
    fn grant(&self, class: u8, privilege: Privilege, need: i64) -> bool {
        let (all, _) = self.measure_memtables();
        let free = self.dmu.available_blocks(class, privilege) * BLOCK_BYTES_U64;
        let promised = all as u64 + self.scale.merge_bytes();
        let left = free as i64 - promised as i64 - need;
        let credit = if privilege == Privilege::User { (left / 4).clamp(0, 64 << 20) } else { 0 };
        self.admission.credit[usize::from(class)].store(credit, Ordering::Relaxed);
        left >= 0
    }

    /// Makes free what can be: pushes deletes and overwritten data down to the leaves, and writes checkpoints until what
    /// died may be used again.
    pub fn reclaim(&self) -> Result<()> {
        // A step that finds no room does not keep the next one from making some; what is free in the end decides.
        let unless_full = |result: Result<()>| match result {
            Err(error) if error.is_lack_of_space() => Ok(()),
            result => result,
        };
        unless_full(self.free_deferred())?;
        for dataset in self.catalog.read().all() {
            let queued = dataset.tree.queue_everything();
            unless_full(queued.map_err(|error| Error::of_tree(&dataset.name.read(), error)))?;
        }
        self.drain_jobs()?;
        // What workers have in hand frees space, too.
        while !self.jobs.is_empty() || self.working.load(Ordering::Acquire) > 0 {
            self.check_writable()?;
            let mut progress = self.progress.0.lock();
            self.progress.1.wait_for(&mut progress, Duration::from_millis(5));
        }
        unless_full(self.free_deferred())
    }

    /// Admits a record of a few bytes about a dataset.
    pub fn admit_metadata(&self) -> Result<()> {
        let class = self.dmu.class_of(StoragePreference::NONE);
        let free = self.dmu.available_blocks(class, Privilege::Delete);
        if free > 4 {
            return Ok(());
        }
        self.reclaim()?;
        let free = self.dmu.available_blocks(class, Privilege::Delete);
        let (tier, wanted, free) = (self.dmu.first_tier(class), 4 * BLOCK_BYTES_U64, free * BLOCK_BYTES_U64);
        if free > wanted { Ok(()) } else { Err(Error::OutOfSpace { tier, wanted, free }) }
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

/// Waits of a writer, of a millisecond each, after which flushes that find no room are its own error.
const PUT_OFF_WAITS_MAX: u32 = 1024;
/// How many writes pass before the length of the log is looked at again.
const WRITES_BETWEEN_LOOKS: u64 = 32;
/// Shortest sleep worth its overhead; smaller delays add up first.
const SLEEP_MIN: Duration = Duration::from_micros(500);
/// Longest single sleep of a paced writer.
const SLEEP_MAX: Duration = Duration::from_millis(5);

impl Admission {
    /// Remembers the size of all memtables for the pacing of writers.
    pub fn note_memtables(&self, frozen: usize) {
        self.frozen.store(frozen, Ordering::Relaxed);
    }

    /// A sync rounds the log up to whole blocks, which no write was counted for.
    fn note_sync(&self) {
        for credit in &self.credit {
            credit.fetch_sub(2 * BLOCK_BYTES_U64 as i64, Ordering::Relaxed);
        }
    }

    fn frozen_bytes(&self) -> usize {
        self.frozen.load(Ordering::Relaxed)
    }

    /// Sleeps for `delay`, saved up until it is worth a sleep.
    fn delay(&self, delay: Duration) {
        let owed = self.owed_ns.fetch_add(delay.as_nanos() as u64, Ordering::Relaxed);
        if owed >= SLEEP_MIN.as_nanos() as u64 {
            let owed = self.owed_ns.swap(0, Ordering::Relaxed);
            thread::sleep(Duration::from_nanos(owed).min(SLEEP_MAX));
        }
    }
}
