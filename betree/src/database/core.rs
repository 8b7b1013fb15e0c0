//! What all handles of a database share.

use super::DatabaseConfiguration;
use super::admission::Admission;
use super::catalog::{Catalog, DatasetState};
use super::checkpoint::Checkpointer;
use super::commit::Commit;
use super::error::{Error, Result};
use super::evacuation::Evacuations;
use super::format::Role;
use super::limits::Scale;
use super::pacing::Pacing;
use super::replication::Receives;
use super::scrub::Scrubs;
use super::snapshots::Snapshots;
use super::writers::Writers;
use crate::base::ids::{DatasetId, Generation};
use crate::base::planted::{Bug, panic_if_planted};
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::sync::{Condvar, Mutex, RwLock};
use crate::dmu::Dmu;
use crate::log::{Log, LogHead};
use crate::pool::Pool;
use crate::tree::{Action, Job, JobQueue, Tree, TreeOptions, TreeParts};
use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Shared state. Lock order: checkpointer → commit → catalog → a tree's locks.
#[derive(Debug)]
pub(super) struct Core {
    pub configuration: DatabaseConfiguration,
    pub scale: Scale,
    pub pool: Arc<Pool>,
    pub dmu: Dmu,
    /// Absent when the database is open for reading only.
    pub log: OnceLock<Log>,
    pub visible: Arc<AtomicU64>,
    pub jobs: Arc<JobQueue>,
    pub commit: Mutex<Commit>,
    pub catalog: RwLock<Catalog>,
    pub root_tree: Arc<Tree>,
    pub checkpointer: Mutex<Checkpointer>,
    pub admission: Admission,
    pub snapshots: Snapshots,
    pub receives: Receives,
    pub scrubs: Scrubs,
    pub evacuations: Evacuations,
    /// Who writes what no checkpoint names yet.
    pub writers: Writers,
    pub pacing: Pacing,
    /// Writes so far.
    pub writes: AtomicU64,
    pub read_only: bool,
    /// A newer generation than the one opened was durable.
    pub rolled_back: bool,
    /// Head of the log at the newest cut.
    pub cut_head: Mutex<Option<LogHead>>,
    /// A signal for each change of what the background does.
    pub progress: (Mutex<u64>, Condvar),
    /// Whether the checkpoint thread was asked for a checkpoint.
    pub checkpoint_wanted: (Mutex<bool>, Condvar),
    failure: Mutex<Option<Arc<Error>>>,
    failed: AtomicBool,
    /// No more writes are taken; the last checkpoint is being made.
    closing: AtomicBool,
    closed: AtomicBool,
}

/// Parts that recovery found or creation made.
pub(super) struct CoreParts {
    pub configuration: DatabaseConfiguration,
    pub pool: Arc<Pool>,
    pub dmu: Dmu,
    pub jobs: Arc<JobQueue>,
    pub root_tree: Arc<Tree>,
    pub commit: Commit,
    pub visible: Arc<AtomicU64>,
    pub catalog: Catalog,
    pub checkpointer: Checkpointer,
    pub scale: Scale,
    pub read_only: bool,
    pub rolled_back: bool,
}

impl Core {
    pub fn new(parts: CoreParts) -> Self {
        Self {
            configuration: parts.configuration,
            scale: parts.scale,
            pool: parts.pool,
            dmu: parts.dmu,
            log: OnceLock::new(),
            visible: parts.visible,
            jobs: parts.jobs,
            commit: Mutex::new(parts.commit),
            catalog: RwLock::new(parts.catalog),
            root_tree: parts.root_tree,
            checkpointer: Mutex::new(parts.checkpointer),
            admission: Admission::default(),
            snapshots: Snapshots::default(),
            receives: Receives::default(),
            scrubs: Scrubs::default(),
            evacuations: Evacuations::default(),
            writers: Writers::default(),
            pacing: Pacing::default(),
            writes: AtomicU64::new(0),
            read_only: parts.read_only,
            rolled_back: parts.rolled_back,
            cut_head: Mutex::new(None),
            progress: (Mutex::new(0), Condvar::new()),
            checkpoint_wanted: (Mutex::new(false), Condvar::new()),
            failure: Mutex::new(None),
            failed: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Whether background work runs in threads of its own; otherwise in the callers.
    pub fn has_threads(&self) -> bool {
        self.configuration.background_threads != Some(0) && !self.read_only
    }

    pub fn parts_of_tree(&self, id: DatasetId, options: TreeOptions, action_name: String) -> TreeParts {
        let action = super::dataset::known_action(&action_name);
        tree_parts(&self.dmu, &self.jobs, &self.visible, id, options, action_name, action)
    }

    /// Fails unless the database takes writes.
    #[inline]
    pub fn check_writable(&self) -> Result<()> {
        let failed = self.failed.load(Ordering::Acquire) || self.pool.check_writable().is_err();
        if failed || self.closed.load(Ordering::Acquire) || self.read_only {
            return self.why_not_writable();
        }
        Ok(())
    }

    #[cold]
    fn why_not_writable(&self) -> Result<()> {
        self.check_open()?;
        if let Some(first) = &*self.failure.lock() {
            return Err(Error::Failed(Arc::clone(first)));
        }
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        // A write or flush failed that nobody waits for any more: what else was written may be as little there.
        Ok(self.pool.check_writable()?)
    }

    /// Fails once the database was closed.
    pub fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Fails once closing has begun: what is written after the last cut would be lost.
    #[inline]
    pub fn check_accepts(&self) -> Result<()> {
        if self.closing.load(Ordering::Acquire) { Err(Error::Closed) } else { self.check_writable() }
    }

    /// Takes no more writes from here on.
    pub fn set_closing(&self) {
        // Under the commit lock: whoever holds it is done before the last cut.
        let _commit = self.commit.lock();
        self.closing.store(true, Ordering::Release);
    }

    /// Marks the database closed; whether it was open.
    pub fn set_closed(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// Latches the first failure of background work: no later write or checkpoint succeeds.
    pub fn fail(&self, error: Error) {
        log::error!("the database takes no more writes: {error}");
        self.failure.lock().get_or_insert_with(|| Arc::new(error));
        self.failed.store(true, Ordering::Release);
        self.signal_progress();
    }

    /// Latches when this thread panics before the guard is dropped, and before what it holds by then is let go.
    pub fn fail_on_panic(&self) -> PanicGuard<'_> {
        PanicGuard { core: self }
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The log of a database that takes writes.
    pub fn log(&self) -> Result<&Log> {
        self.log.get().ok_or(Error::ReadOnly)
    }

    pub fn tree(&self, id: DatasetId) -> Option<Arc<Tree>> {
        if id == self.root_tree.id() {
            return Some(Arc::clone(&self.root_tree));
        }
        self.catalog.read().by_id(id).map(|dataset| Arc::clone(&dataset.tree))
    }

    /// The dataset of this name.
    pub fn dataset(&self, name: &[u8]) -> Result<Arc<DatasetState>> {
        self.named(Role::Dataset, name)
    }

    /// The dataset of this role and name.
    pub fn named(&self, role: Role, name: &[u8]) -> Result<Arc<DatasetState>> {
        self.check_open()?;
        let found = self.catalog.read().by_name(role, name).cloned();
        found.ok_or_else(|| Error::NotFound { what: role.noun(), name: name.escape_ascii().to_string() })
    }

    pub fn signal_progress(&self) {
        *self.progress.0.lock() += 1;
        self.progress.1.notify_all();
    }

    /// Waits until something happens in the background, but not longer than `patience`.
    pub fn wait_for_progress(&self, patience: Duration) {
        let mut progress = self.progress.0.lock();
        self.progress.1.wait_for(&mut progress, patience);
    }

    /// Does one job; out of space is met by freeing what waits to be freed, anything else latches. Whether it was done:
    /// without room it is put off.
    pub fn work(&self, id: DatasetId, job: &Job) -> Result<bool> {
        let Some(tree) = self.tree(id) else {
            return Ok(true);
        };
        let _guard = self.fail_on_panic();
        let _writer = self.writers.enter();
        panic_if_planted(Bug::PanicInJob);
        for _attempt in 0..3 {
            let error = match tree.run_job(job) {
                Ok(()) => return Ok(true),
                Err(error) => Error::of_tree(&self.name_of(id), error),
            };
            if !error.is_lack_of_space() {
                return Err(error);
            }
            // While the log is replayed, under the commit lock, there is no checkpoint to be made; and one that fails leaves
            // more for the root tree to flush, whose jobs would never end with that.
            let in_vain = !self.has_much_deferred() || id == self.root_tree.id();
            if in_vain || self.log.get().is_none() {
                break;
            }
            match self.free_deferred() {
                Ok(()) => {}
                Err(error) if error.is_lack_of_space() => break,
                Err(error) => return Err(error),
            }
        }
        // Still no room: writers that wait for the job queue it again, and so does a reclaim.
        log::warn!("no room for background work on dataset {id}; it is put off");
        self.pacing.note_put_off();
        Ok(false)
    }

    fn name_of(&self, id: DatasetId) -> Vec<u8> {
        let catalog = self.catalog.read();
        catalog.by_id(id).map_or_else(|| b"root tree".to_vec(), |dataset| dataset.name.read().clone())
    }

    /// Two checkpoints: what died before them may be used again.
    pub fn free_deferred(&self) -> Result<()> {
        self.checkpoint(true)?;
        self.checkpoint(true)?;
        Ok(())
    }

    /// Whether enough died since the last checkpoints to be worth two.
    pub fn has_much_deferred(&self) -> bool {
        self.dmu.deferred_blocks() >= self.scale.deferred_blocks_least()
    }

    /// Whether headers that wait for a checkpoint take more memory than they should.
    pub fn has_many_dirty_headers(&self) -> bool {
        self.dmu.cache().dirty_bytes() > self.scale.dirty_bytes_max
    }

    /// Does all waiting jobs in this thread. As in a worker, a failure latches: the job is gone from the queue.
    pub fn drain_jobs(&self) -> Result<()> {
        let mut put_off = HashSet::new();
        while let Some(taken) = self.jobs.try_pop() {
            let entry = (taken.tree, taken.job.clone());
            // The checkpoint that found no room either has queued it again: once is enough.
            if put_off.contains(&entry) {
                continue;
            }
            if !self.work(entry.0, &entry.1).inspect_err(|error| self.fail(error.clone()))? {
                put_off.insert(entry);
            }
        }
        Ok(())
    }

    /// After a job: how full memtables are now, for writers that wait.
    pub fn note_progress(&self) {
        self.measure_memtables();
        if self.dmu.deferred_blocks() > self.scale.deferred_blocks_max() || self.has_many_dirty_headers() {
            self.want_checkpoint();
        }
        self.signal_progress();
    }

    /// Waits until no background work is left.
    pub fn settle(&self) -> Result<()> {
        self.check_open()?;
        if !self.has_threads() {
            return if self.read_only { Ok(()) } else { self.drain_jobs() };
        }
        let frozen = || self.catalog.read().all().iter().any(|dataset| dataset.tree.frozen_count() > 0);
        while !self.jobs.is_idle() || frozen() {
            self.check_writable()?;
            self.wait_for_progress(Duration::from_millis(20));
        }
        self.check_writable()
    }

    /// Queues the flushes that wait, in case one was put off.
    pub fn queue_flushes(&self) {
        for dataset in self.catalog.read().all() {
            if dataset.tree.frozen_count() > 0 {
                self.jobs.push(dataset.id, Job::FlushTable);
            }
        }
    }

    /// Measures what waits in memory: for the pacing of writers, and for the reserve that has room for all of it. Returns
    /// the bytes in all memtables, and in those that are frozen.
    pub fn measure_memtables(&self) -> (usize, usize) {
        let (mut all, mut frozen, mut tables) = (0, 0, 0);
        for dataset in self.catalog.read().all() {
            let version = dataset.tree.version();
            let (active, waiting) = (version.active_bytes(), version.frozen_bytes());
            all += waiting + active;
            frozen += waiting;
            tables += version.frozen.len() + usize::from(active > 0);
        }
        self.pacing.note_memtables(frozen);
        let (dirty, maps) = (self.dmu.cache().dirty_bytes(), self.dmu.map_blocks());
        self.dmu.set_reserve(self.scale.reserve(all, tables, dirty, maps));
        (all, frozen)
    }

    /// The generation that is open now.
    pub fn open_generation(&self) -> Generation {
        self.commit.lock().open_generation
    }
}

/// See [`Core::fail_on_panic`].
#[must_use]
pub(super) struct PanicGuard<'a> {
    core: &'a Core,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = String::from("it panicked");
            self.core.fail(Error::Corrupt { what: "work on the trees", reason });
        }
    }
}

/// What a tree is made with.
pub(super) fn tree_parts(
    dmu: &Dmu,
    jobs: &Arc<JobQueue>,
    visible: &Arc<AtomicU64>,
    id: DatasetId,
    options: TreeOptions,
    action_name: String,
    action: Option<Action>,
) -> TreeParts {
    TreeParts {
        id,
        dmu: dmu.clone(),
        options,
        action_name,
        action,
        visible: Arc::clone(visible),
        jobs: Arc::clone(jobs),
    }
}
