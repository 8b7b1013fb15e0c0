//! The devices of the pool while the database is used: how they are, and putting others in their places.

use super::DatabaseConfiguration;
use super::core::Core;
use super::database::Database;
use super::error::{Error, Result};
use super::recovery::Opening;
use super::scrub::ResilverStatus;
use crate::base::ids::VdevId;
use crate::base::sync::thread;
use crate::pool::{LeafVdev, Pool, SpareUse, TierConfiguration, VdevStatus};
use std::sync::Arc;
use std::time::Duration;

/// How often who waits for a resilver of another thread looks how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

impl Core {
    /// Puts spares into the places of members that are lost.
    pub fn use_spares(&self) -> Result<Vec<SpareUse>> {
        self.pool.use_spares(&self.configuration.storage.spares).map_err(Error::from)
    }
}

impl Database {
    /// Opens an existing database for reading and writing, as [`Database::open_with`] does, and adds vdevs to its pool: those of
    /// `added`, of which the first are for the fastest tier; files that do not exist are created. When this returns they belong
    /// to the pool, which opens with all devices only from then on: with [`StoragePoolConfiguration::extended`]. A crash before
    /// leaves it as it was, or with the new vdevs.
    ///
    /// [`StoragePoolConfiguration::extended`]: crate::StoragePoolConfiguration::extended
    ///
    /// # Errors
    /// As [`Database::open_with`]; a new device that is not provably empty, unless `force`, or that is in the pool; more vdevs than
    /// a pool can have. Nothing has changed then.
    pub fn open_adding(
        configuration: DatabaseConfiguration,
        added: &[TierConfiguration],
        force: bool,
    ) -> Result<Self> {
        let before = configuration.storage.clone();
        let storage = before.extended(added);
        let configuration = DatabaseConfiguration { storage, ..configuration };
        configuration.validate()?;
        let (pool, report) = Pool::open_adding(&before, added, force)?;
        Self::open_on(configuration, pool, report, Opening::ReadWrite)
    }

    /// What each vdev is made of and how that is, in the order of the configuration.
    #[must_use]
    pub fn vdevs(&self) -> Vec<VdevStatus> {
        self.core().pool.status()
    }

    /// Takes the member at place `leaf` of `vdev` out of use until [`Database::online`], over openings, too. Durable when this
    /// returns.
    ///
    /// # Errors
    /// [`PoolError::Indispensable`](crate::pool::PoolError::Indispensable) when the others do not hold everything: nothing has
    /// changed. No such member; device errors; the database takes no writes.
    pub fn offline(&self, vdev: VdevId, leaf: u8) -> Result<()> {
        self.accepting()?.pool.offline(vdev, leaf).map_err(Error::from)
    }

    /// Lets a member that is offline or faulted take writes again. What it missed is copied to it by [`Database::resilver`],
    /// which begins by itself with background threads; until that is done the member counts for nothing.
    ///
    /// # Errors
    /// [`PoolError::MemberGone`](crate::pool::PoolError::MemberGone) when its device was not there when the database was opened.
    /// No such member; device errors; the database takes no writes.
    pub fn online(&self, vdev: VdevId, leaf: u8) -> Result<()> {
        let core = self.accepting()?;
        core.pool.online(vdev, leaf)?;
        self.begin_resilver(core)
    }

    /// Puts `device` in the place of a member, whatever state that is in; a file that does not exist, or is empty, is created
    /// as large as it says, or as the vdev needs. Durable when this returns: from then on the configuration must name the new
    /// device, and the old one is refused. The new one gets what it lacks as in [`Database::online`].
    ///
    /// # Errors
    /// A device that is not provably empty, unless `force`; one that is too small, in use, or memory;
    /// [`PoolError::Indispensable`](crate::pool::PoolError::Indispensable) when the other members do not hold everything: nothing has
    /// changed then. An error of the new device: the member is offline, and the old device still its own. No such member;
    /// the database takes no writes.
    pub fn replace(&self, vdev: VdevId, leaf: u8, device: &LeafVdev, force: bool) -> Result<()> {
        let core = self.accepting()?;
        core.pool.replace_by(vdev, leaf, device, force)?;
        self.begin_resilver(core)
    }

    /// Puts spares of the configuration into the places of members that are missing or were given up after an error; with
    /// background threads that happens by itself within seconds. Those that got one are filled as in [`Database::online`]. What
    /// a spare is refused for is in the log: it is not empty, or too small, or the other members do not hold everything.
    ///
    /// # Errors
    /// Device errors; the database takes no writes.
    pub fn use_spares(&self) -> Result<Vec<SpareUse>> {
        let core = self.accepting()?;
        let used = core.use_spares()?;
        if !used.is_empty() {
            self.begin_resilver(core)?;
        }
        Ok(used)
    }

    /// Forgets what went wrong on a member; durable when this returns.
    ///
    /// # Errors
    /// No such member; device errors; the database takes no writes.
    pub fn clear_errors(&self, vdev: VdevId, leaf: u8) -> Result<()> {
        self.accepting()?.pool.clear_errors(vdev, leaf).map_err(Error::from)
    }

    /// Gives members that lack something what they lack, in this thread; with background threads that begins by itself, and this
    /// waits for it. `watch` is asked again and again whether to go on. A resilver that was interrupted begins anew. `None` when
    /// no member ever lacked anything.
    ///
    /// # Errors
    /// Damage that kept it from looking; out of space for its records; the database takes no writes.
    pub fn resilver(&self, mut watch: impl FnMut(&ResilverStatus) -> bool) -> Result<Option<ResilverStatus>> {
        let core = self.core();
        loop {
            match core.run_resilver(&|| true, &mut watch) {
                Err(Error::Busy { .. }) => {}
                ended => return ended,
            }
            let status = core.scrubs.resilver_status();
            if !status.as_ref().is_none_or(&mut watch) {
                return Ok(status);
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// How far the resilver is, or what the newest one came to; `None` when there never was one.
    #[must_use]
    pub fn resilver_status(&self) -> Option<ResilverStatus> {
        self.core().scrubs.resilver_status()
    }

    fn accepting(&self) -> Result<&Arc<Core>> {
        let core = self.core();
        core.check_accepts()?;
        Ok(core)
    }

    fn begin_resilver(&self, core: &Arc<Core>) -> Result<()> {
        if !core.has_threads() {
            return Ok(());
        }
        self.handle().workers().spawn_resilver(core).map_err(|error| Error::InvalidArgument {
            what: "resilver",
            reason: format!(
                "the operating system refuses a thread: {error}; it begins when the database is opened"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{DatasetConfiguration, ErrorKind};
    use crate::pool::{FileLeaf, MemberState, StoragePoolConfiguration, Vdev};
    use crate::vdev::{BlockDevice, SimClock, SimDisk, SimRng};

    const BYTES: u64 = 4 << 20;

    fn leaf(disk: &SimDisk) -> LeafVdev {
        LeafVdev::from(Arc::new(disk.device()) as Arc<dyn BlockDevice>)
    }

    fn mirror(disks: &[SimDisk]) -> TierConfiguration {
        TierConfiguration::new(vec![Vdev::Mirror(disks.iter().map(leaf).collect())])
    }

    fn configuration(tiers: Vec<TierConfiguration>) -> DatabaseConfiguration {
        DatabaseConfiguration {
            storage: StoragePoolConfiguration { tiers, ..StoragePoolConfiguration::default() },
            cache_size: 1 << 20,
            memtable_size: 8 << 10,
            segment_size: 1 << 19,
            background_threads: Some(0),
            sync_interval_ms: None,
            default_dataset: DatasetConfiguration {
                leaf_size: 8 << 10,
                buffer_size: 16 << 10,
                ..DatasetConfiguration::default()
            },
            ..DatabaseConfiguration::default()
        }
    }

    fn put(database: &Database, numbers: std::ops::Range<u32>) -> Result<()> {
        let dataset = database.open_or_create_dataset("data")?;
        for number in numbers {
            let length = if number % 8 == 0 { 20_000 } else { 300 };
            dataset.insert(number.to_be_bytes(), vec![number as u8; length])?;
        }
        database.sync()
    }

    /// How many entries there are, from the first one on; all of them are right.
    fn count(database: &Database) -> u32 {
        database.drop_cache();
        let dataset = database.open_dataset("data").unwrap();
        let entries: Vec<_> = dataset.range::<&[u8]>(..).map(|entry| entry.unwrap()).collect();
        for (number, (key, value)) in (0u32..).zip(&entries) {
            assert_eq!(key[..], number.to_be_bytes());
            assert!(value.iter().all(|byte| *byte == number as u8), "{number}");
        }
        database.verify().unwrap();
        entries.len() as u32
    }

    /// Two disks with forty entries, half of them in the log alone, and as many empty ones as are asked for.
    fn disks(empty: usize) -> Vec<SimDisk> {
        disks_with(40, empty)
    }

    /// Two disks with `count` entries, all but twenty of them in the log alone, and `empty` ones.
    fn disks_with(count: u32, empty: usize) -> Vec<SimDisk> {
        let clock = SimClock::new(1);
        let all: Vec<SimDisk> =
            (0..2 + empty).map(|number| SimDisk::new(&format!("disk{number}"), BYTES, &clock)).collect();
        let database = Database::create_with(configuration(vec![mirror(&all[..2])]), false).unwrap();
        put(&database, 0..20).unwrap();
        database.checkpoint().unwrap();
        put(&database, 20..count).unwrap();
        crashed(&all, &mut SimRng::new(3))
    }

    /// The disks after the power went.
    fn crashed(disks: &[SimDisk], random: &mut SimRng) -> Vec<SimDisk> {
        let clock = SimClock::new(random.next_u64());
        disks.iter().map(|disk| disk.crash_image(random, &clock)).collect()
    }

    /// Runs `work` on disks that stop behind every `step`th of its requests in turn, until it gets to its end, and looks at what
    /// the crash left with `look`, which is told what `work` said at last.
    fn at_every_request<T>(
        start: &[SimDisk],
        step: u64,
        work: impl Fn(&[SimDisk]) -> Result<T>,
        mut look: impl FnMut(&[SimDisk], Option<T>),
    ) -> u64 {
        let mut random = SimRng::new(7);
        let mut stop = 0;
        loop {
            let disks = crashed(start, &mut random);
            disks[0].clock().set_stop_after(stop);
            let done = work(&disks).ok();
            let is_done = done.is_some();
            look(&crashed(&disks, &mut random), done);
            if is_done {
                return stop;
            }
            stop += step;
        }
    }

    fn adding(disks: &[SimDisk], force: bool) -> Result<Database> {
        let added = [TierConfiguration::default(), mirror(&disks[2..])];
        Database::open_adding(configuration(vec![mirror(&disks[..2])]), &added, force)
    }

    /// How many vdevs and entries a pool has, when it opens.
    type Opened = Result<(usize, u32)>;

    /// The pool of the old disks, else that of all.
    fn old_or_new(disks: &[SimDisk]) -> (Opened, Option<Opened>) {
        let open = |tiers| {
            let opened = Database::open_with(configuration(tiers));
            opened.map(|database| (database.vdevs().len(), count(&database)))
        };
        // Neither is met in the state that the other one left.
        match open(vec![mirror(&disks[..2])]) {
            Ok(as_old) => (Ok(as_old), None),
            Err(error) => (Err(error), Some(open(vec![mirror(&disks[..2]), mirror(&disks[2..])]))),
        }
    }

    /// With a log so long that parts of it are flushed while it is replayed, too.
    #[test]
    fn a_crash_while_a_vdev_is_added_leaves_the_old_or_the_new_pool() {
        for (before, step) in [(40, 3), (100, 7)] {
            let start = disks_with(before, 2);
            let (mut old_only, mut new_only, mut both, mut again) = (0, 0, 0, 0);
            let work = |disks: &[SimDisk]| put(&adding(disks, false)?, before..before + 20);
            let all = before + 20;
            let requests = at_every_request(&start, step, work, |disks, done| {
                let mut random = SimRng::new(1);
                // Once more, by force, over whatever the first time left; and a crash in the middle of that.
                let others = crashed(disks, &mut random);
                match old_or_new(disks) {
                    (Ok((1, count)), _) if done.is_none() && count == before => old_only += 1,
                    (Err(_), Some(Ok((2, count)))) if (before..=all).contains(&count) => {
                        new_only += 1;
                        assert!(done.is_none() || count == all, "{count}");
                        return;
                    }
                    other => panic!("{other:?}"),
                }
                // With all of them named, before anybody went on without: the old pool is refused, or the new one opens.
                let named = crashed(disks, &mut random);
                let whole = configuration(vec![mirror(&named[..2]), mirror(&named[2..])]);
                both += u64::from(Database::open_with(whole).is_ok());
                others[0].clock().set_stop_after(random.below(60));
                let forced = adding(&others, true).and_then(|database| put(&database, before..all));
                again += u64::from(forced.is_err());
                let others = crashed(&others, &mut random);
                let whole = crashed(&others, &mut random);
                let whole = configuration(vec![mirror(&whole[..2]), mirror(&whole[2..])]);
                if let Ok(database) = Database::open_with(whole) {
                    assert!((before..=all).contains(&count(&database)));
                }
                match old_or_new(&others) {
                    (Ok((1, count)), _) if count == before => {}
                    (Err(_), Some(Ok((2, count)))) if (before..=all).contains(&count) => {}
                    other => panic!("{other:?}"),
                }
            });
            assert!(requests > 30 && old_only > 3 && new_only > 3, "{requests}: {old_only} {new_only}");
            assert_eq!(both, 0, "who went on without the new vdev meets it again");
            assert!(again > 3, "{again}");
        }
    }

    /// Of another pool on the devices that are added there is everything, or nothing.
    #[test]
    fn a_crash_while_a_vdev_is_added_by_force_leaves_its_former_pool_or_none() {
        let start = [disks_with(100, 0), disks_with(40, 0)].concat();
        let (mut whole, mut gone) = (0, 0);
        let work = |disks: &[SimDisk]| {
            let added = [mirror(&disks[2..])];
            Database::open_adding(configuration(vec![mirror(&disks[..2])]), &added, true).map(drop)
        };
        at_every_request(&start, 1, work, |disks, _| {
            match Database::open_with(configuration(vec![mirror(&disks[2..])])) {
                Ok(former) => {
                    assert_eq!(count(&former), 40);
                    whole += 1;
                }
                Err(_) => gone += 1,
            }
        });
        assert!(whole > 1 && gone > 3, "{whole} {gone}");
    }

    /// A spare took a place and has everything since; then the last one beside it is gone, and it cannot be opened for a moment. Whoever
    /// was displaced is not opened in its stead, and the spare stays as it is.
    #[test]
    fn a_spare_that_cannot_be_opened_is_not_done_without() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spare");
        let file = LeafVdev::File(FileLeaf { direct: false, size: Some(BYTES), ..FileLeaf::new(&path) });
        let disks = disks(0);
        let with = |first: LeafVdev, second: LeafVdev| {
            let mut configuration =
                configuration(vec![TierConfiguration::new(vec![Vdev::Mirror(vec![first, second])])]);
            configuration.storage.degraded = true;
            configuration.storage.spares = vec![file.clone()];
            configuration
        };
        let nowhere = || LeafVdev::file("/nowhere/at all");
        let database = Database::open_with(with(leaf(&disks[0]), nowhere())).unwrap();
        assert_eq!(database.use_spares().unwrap().len(), 1);
        put(&database, 40..60).unwrap();
        database.resilver(|_| true).unwrap();
        database.close().unwrap();
        let before = std::fs::read(&path).unwrap();
        let held = crate::vdev::FileDevice::open(&path, false, false).unwrap();
        let refused = Database::open_with(with(nowhere(), leaf(&disks[1]))).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Busy, "{refused}");
        drop(held);
        assert!(std::fs::read(&path).unwrap() == before);
        let database = Database::open_with(with(nowhere(), leaf(&disks[1]))).unwrap();
        assert_eq!(count(&database), 60);
    }

    #[test]
    fn a_crash_while_a_spare_takes_a_place_loses_nothing() {
        let start = disks(1);
        let with_spare = |disks: &[SimDisk]| {
            let vdev = Vdev::Mirror(vec![leaf(&disks[0]), LeafVdev::file("/nowhere/at all")]);
            let mut configuration = configuration(vec![TierConfiguration::new(vec![vdev])]);
            configuration.storage.degraded = true;
            configuration.storage.spares = vec![leaf(&disks[2])];
            configuration
        };
        let work = |disks: &[SimDisk]| {
            let database = Database::open_with(with_spare(disks))?;
            put(&database, 40..60)?;
            if database.use_spares()?.is_empty() {
                return Err(Error::Closed);
            }
            put(&database, 60..80)?;
            database.resilver(|_| true)?;
            put(&database, 80..100)
        };
        let (mut taken, mut whole) = (0, 0);
        let requests = at_every_request(&start, 3, work, |disks, done| {
            let database = Database::open_with(with_spare(disks)).unwrap();
            let found = count(&database);
            assert!((40..=100).contains(&found) && (done.is_none() || found == 100), "{found}");
            let state = database.vdevs()[0].members[1].state;
            taken += u64::from(state != MemberState::Missing);
            if state == MemberState::Resilvering {
                database.resilver(|_| true).unwrap();
            }
            let is_whole = database.vdevs()[0].members[1].state == MemberState::Online;
            database.close().unwrap();
            // It has everything: the first disk goes.
            if is_whole {
                whole += 1;
                let vdev = Vdev::Mirror(vec![leaf(&disks[2]), LeafVdev::file("/nowhere/at all")]);
                let mut alone = configuration(vec![TierConfiguration::new(vec![vdev])]);
                alone.storage.degraded = true;
                let database = Database::open_with(alone).unwrap();
                assert_eq!(count(&database), found);
            }
        });
        assert!(requests > 100 && taken > 20 && whole > 20, "{requests}: {taken} {whole}");
    }
}
