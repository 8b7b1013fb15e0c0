//! Background threads: workers that flush and merge, one that writes checkpoints, one that syncs at intervals, one that gives
//! spares to lost members.

use super::core::Core;
use crate::base::ids::VdevId;
use crate::base::sync::thread::{self, JoinHandle};
use crate::base::sync::{Condvar, Mutex};
use crate::tree::Job;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long a worker sleeps without work before it looks whether it should end.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often it is looked whether a member is lost for which there is a spare.
const SPARES_INTERVAL: Duration = Duration::from_secs(1);

/// After how many of these a spare that was refused is tried again.
const SPARES_PATIENCE: u32 = 60;

/// How long a worker waits after work that found no room.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(5);

/// The threads of one database; ended and joined by [`Workers::stop`].
#[derive(Debug, Default)]
pub(super) struct Workers {
    threads: Mutex<Vec<JoinHandle<()>>>,
    stop: Arc<(Mutex<bool>, Condvar)>,
}

impl Workers {
    /// Starts the threads that the configuration asks for.
    ///
    /// # Errors
    /// The operating system refuses a thread; those started are ended again.
    pub fn start(core: &Arc<Core>) -> io::Result<Self> {
        let workers = Self::default();
        if !core.has_threads() {
            return Ok(workers);
        }
        for dataset in core.catalog.read().all() {
            core.jobs.push(dataset.id, Job::Survey);
        }
        let processors = thread::available_parallelism().map_or(2, usize::from);
        let count = core.configuration.background_threads.unwrap_or(processors.clamp(2, 8));
        let mut started = Ok(());
        for index in 0..count.max(1) {
            started = started.and_then(|()| workers.spawn(&format!("betree-work-{index}"), core, work));
        }
        started = started.and_then(|()| workers.spawn("betree-checkpoint", core, checkpoint));
        if let Some(interval) = core.configuration.sync_interval_ms {
            let interval = Duration::from_millis(interval.max(1));
            started = started.and_then(|()| {
                workers.spawn("betree-sync", core, move |core, stop| sync(core, stop, interval))
            });
        }
        if core.scrubs.continues() {
            started = started.and_then(|()| workers.spawn_scrub(core));
        }
        if !core.pool.lacking().is_empty() {
            started = started.and_then(|()| workers.spawn_resilver(core));
        }
        if !core.configuration.storage.spares.is_empty() {
            started = started.and_then(|()| workers.spawn("betree-spares", core, watch_spares));
        }
        match started {
            Ok(()) => Ok(workers),
            Err(error) => {
                workers.stop(core);
                Err(error)
            }
        }
    }

    /// Starts a thread of this name, which is told when it should end.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub fn spawn(
        &self,
        name: &str,
        core: &Arc<Core>,
        body: impl FnOnce(&Core, &(Mutex<bool>, Condvar)) + Send + 'static,
    ) -> io::Result<()> {
        let (core, stop) = (Arc::clone(core), Arc::clone(&self.stop));
        let run = move || {
            // A panic here is a defect; it must stop commits, not hang those who wait for the thread.
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&core, &stop)));
            if caught.is_err() {
                core.fail(super::error::Error::Corrupt {
                    what: "background thread",
                    reason: String::from("it panicked"),
                });
            }
        };
        self.threads.lock().push(thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    /// Starts a thread that runs the scrub.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub fn spawn_scrub(&self, core: &Arc<Core>) -> io::Result<()> {
        self.spawn("betree-scrub", core, |core, stop| {
            let goes_on = || !*stop.0.lock() && core.check_accepts().is_ok();
            if let Err(error) = core.run_scrub(&goes_on, &mut |_| true) {
                log::warn!("scrub in the background: {error}");
            }
        })
    }

    /// Starts a thread that gives members what they lack.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub fn spawn_resilver(&self, core: &Arc<Core>) -> io::Result<()> {
        self.spawn("betree-resilver", core, |core, stop| {
            let goes_on = || !*stop.0.lock() && core.check_accepts().is_ok();
            match core.run_resilver_in_turn(&goes_on) {
                // The next opening begins with it.
                Err(error) if goes_on() => log::warn!("resilver in the background: {error}"),
                _ => {}
            }
        })
    }

    /// Starts a thread that evacuates `vdev`.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub fn spawn_evacuation(&self, core: &Arc<Core>, vdev: VdevId, by: &str) -> io::Result<()> {
        let by = by.to_owned();
        // Who stops it at once stops it.
        let stops = core.evacuations.stops();
        self.spawn("betree-evacuate", core, move |core, stop| {
            let goes_on = || !*stop.0.lock() && core.check_accepts().is_ok();
            let evacuates = || goes_on() && core.evacuations.stops() == stops;
            if let Err(error) = core.run_evacuation(vdev, &by, &evacuates, &mut |_| true) {
                log::warn!("evacuation in the background: {error}");
            }
            // A member that came back meanwhile had to wait.
            if !core.pool.lacking().is_empty()
                && let Err(error) = core.run_resilver(&goes_on, &mut |_| true)
            {
                log::warn!("resilver in the background: {error}");
            }
        })
    }

    /// Ends the threads and waits for them; what waits in the queue of jobs is left to the next opening.
    pub fn stop(&self, core: &Core) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        core.jobs.close();
        *core.checkpoint_wanted.0.lock() = true;
        core.checkpoint_wanted.1.notify_all();
        for thread in self.threads.lock().drain(..) {
            // The panic was reported where it was caught.
            let _reported = thread.join();
        }
    }
}

fn work(core: &Core, _stop: &(Mutex<bool>, Condvar)) {
    while !core.jobs.is_closed() {
        let Some(taken) = core.jobs.pop(PATIENCE) else {
            continue;
        };
        let result = if core.has_failed() { Ok(true) } else { core.work(taken.tree, &taken.job) };
        drop(taken);
        match result {
            Ok(true) => {}
            // A checkpoint without room queues it again: not at once, or this thread would do nothing else.
            Ok(false) => core.wait_for_progress(NO_ROOM_PAUSE),
            Err(error) => core.fail(error),
        }
        core.note_progress();
    }
}

fn checkpoint(core: &Core, stop: &(Mutex<bool>, Condvar)) {
    loop {
        {
            let mut wanted = core.checkpoint_wanted.0.lock();
            while !*wanted {
                core.checkpoint_wanted.1.wait(&mut wanted);
            }
            *wanted = false;
        }
        if *stop.0.lock() {
            return;
        }
        if let Err(error) = core.checkpoint(false) {
            log::warn!("checkpoint in the background: {error}");
        }
    }
}

/// Gives spares to members that are lost, and what they lack to these.
fn watch_spares(core: &Core, stop: &(Mutex<bool>, Condvar)) {
    let goes_on = || !*stop.0.lock() && core.check_accepts().is_ok();
    // What found no spare is asked about again when something else is lost, and now and then.
    let (mut before, mut waits) = (Vec::new(), 0);
    let mut has_to_fill = false;
    let mut stopped = stop.0.lock();
    while !*stopped {
        stop.1.wait_for(&mut stopped, SPARES_INTERVAL);
        drop(stopped);
        let lost = core.pool.lost();
        waits += 1;
        if goes_on() && (lost != before || (!lost.is_empty() && waits >= SPARES_PATIENCE)) {
            waits = 0;
            match core.use_spares() {
                Ok(used) => has_to_fill |= !used.is_empty(),
                Err(error) => log::warn!("spares: {error}"),
            }
            before = core.pool.lost();
        }
        if has_to_fill && goes_on() {
            // The next one that is lost does not wait for this.
            let is_undisturbed = || goes_on() && core.pool.lost() == before;
            if let Err(error) = core.run_resilver_in_turn(&is_undisturbed)
                && goes_on()
            {
                log::warn!("spares: {error}");
            }
            has_to_fill = core.pool.lost() != before;
        }
        stopped = stop.0.lock();
    }
}

fn sync(core: &Core, stop: &(Mutex<bool>, Condvar), interval: Duration) {
    let mut stopped = stop.0.lock();
    while !*stopped {
        stop.1.wait_for(&mut stopped, interval);
        if *stopped {
            return;
        }
        drop(stopped);
        if let Err(error) = core.sync_if_needed() {
            log::warn!("sync in the background: {error}");
        }
        stopped = stop.0.lock();
    }
}

#[cfg(test)]
mod tests {
    use crate::database::{Database, DatabaseConfiguration, DatasetConfiguration, ErrorKind};
    use crate::pool::{LeafVdev, StoragePoolConfiguration, TierConfiguration};
    use crate::vdev::{Fault, SimClock, SimDisk};
    use std::sync::Arc;

    /// A range delete that covers a slot puts an empty node in the place of all that is below it, and asks nobody there: a join
    /// that waits for two nodes must not find that they have become one, which it holds already.
    #[test]
    fn what_is_joined_may_be_dropped_from_above() {
        let disk = SimDisk::new("a", 32 << 20, &SimClock::new(1));
        let vdev = LeafVdev::from(Arc::new(disk.device()) as Arc<_>).into();
        let configuration = DatabaseConfiguration {
            storage: StoragePoolConfiguration {
                tiers: vec![TierConfiguration::new(vec![vdev])],
                ..StoragePoolConfiguration::default()
            },
            segment_size: 1 << 19,
            memtable_size: 64 << 10,
            background_threads: Some(0),
            sync_interval_ms: None,
            default_dataset: DatasetConfiguration {
                fanout: 4,
                leaf_size: 8 << 10,
                ..DatasetConfiguration::default()
            },
            ..DatabaseConfiguration::default()
        };
        let database = Database::create_with(configuration, false).unwrap();
        let dataset = database.create_dataset("data").unwrap();
        for number in 0..4000_u32 {
            dataset.insert(number.to_be_bytes(), vec![number as u8; 500]).unwrap();
        }
        database.checkpoint().unwrap();
        let (core, tree) = (database.core(), &dataset.state().tree);
        dataset.range_delete::<&[u8]>(..).unwrap();
        let ended = tree.beside_a_join(2, || {
            tree.freeze(core.open_generation());
            assert!(tree.flush_table(true).unwrap());
        });
        assert!(ended, "it waits for itself");
        database.verify().unwrap();
        assert_eq!(dataset.range::<&[u8]>(..).count(), 0);
        database.close().unwrap();
    }

    /// The root tree's flush finds no room, nor does a checkpoint, which leaves the root tree more to flush. What a worker
    /// does then must come to an end, or it never does anything else and nobody who waits for it goes on.
    #[test]
    fn jobs_of_the_root_tree_on_a_full_host_come_to_an_end() {
        let disk = SimDisk::new("a", 8 << 20, &SimClock::new(1));
        let vdev = LeafVdev::from(Arc::new(disk.device()) as Arc<_>).into();
        let configuration = DatabaseConfiguration {
            storage: StoragePoolConfiguration {
                tiers: vec![TierConfiguration::new(vec![vdev])],
                ..StoragePoolConfiguration::default()
            },
            segment_size: 1 << 19,
            background_threads: Some(0),
            sync_interval_ms: None,
            ..DatabaseConfiguration::default()
        };
        let database = Database::create_with(configuration, false).unwrap();
        let core = database.core();
        database.create_dataset("before").unwrap();
        database.checkpoint().unwrap();
        // Only the root tree has something to write.
        database.rename_dataset("before", "after").unwrap();
        disk.arm(Fault::OutOfSpace { nth: 1 });
        assert_eq!(database.checkpoint().map_err(|error| error.kind()), Err(ErrorKind::OutOfSpace));
        let root = core.root_tree.id();
        assert!(core.root_tree.frozen_count() > 0 && core.dmu.deferred_blocks() > 0);
        let mut jobs = 0;
        let mut put_off = 0;
        while let Some(taken) = core.jobs.try_pop() {
            jobs += 1;
            put_off += u64::from(!core.work(taken.tree, &taken.job).unwrap() && taken.tree == root);
            assert!(jobs < 100, "job after job, the last of them {taken:?}");
        }
        assert!(put_off > 0, "the root tree had nothing to do");
        // With room again all of it is done.
        disk.clear_faults();
        database.checkpoint().unwrap();
        assert_eq!((core.root_tree.frozen_count(), core.jobs.len()), (0, 0));
        database.verify().unwrap();
        database.close().unwrap();
    }
}
