//! Background threads: workers that flush and merge, one that writes checkpoints, one that syncs at intervals.

use super::core::Core;
use crate::base::sync::thread::{self, JoinHandle};
use crate::base::sync::{Condvar, Mutex};
use crate::tree::Job;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long a worker sleeps without work before it looks whether it should end.
const PATIENCE: Duration = Duration::from_millis(500);

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
        match started {
            Ok(()) => Ok(workers),
            Err(error) => {
                workers.stop(core);
                Err(error)
            }
        }
    }

    fn spawn(
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
    use crate::database::{Database, DatabaseConfiguration, ErrorKind};
    use crate::pool::{LeafVdev, StoragePoolConfiguration, TierConfiguration};
    use crate::vdev::{Fault, SimClock, SimDisk};
    use std::sync::Arc;

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
