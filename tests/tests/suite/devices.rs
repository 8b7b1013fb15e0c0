//! Whole lives of pools of files: devices lost, brought back, replaced and mended, until every byte was served by each of them.

use crate::pools::{Folder, contents, small};
use betree::base::ids::VdevId;
use betree::{
    Database, DatabaseConfiguration, ErrorKind, FileLeaf, LeafVdev, MemberState, ScrubState,
    TierConfiguration, Vdev, VdevHealth,
};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type Kind = fn(Vec<LeafVdev>) -> Vdev;

const VDEV: VdevId = VdevId(0);
const MIB: u64 = 12;

/// Mirrors and parities, with how many of their files may be lost.
const KINDS: [(Kind, usize, usize); 4] =
    [(Vdev::Mirror, 2, 1), (Vdev::Mirror, 3, 2), (Vdev::Parity1, 4, 1), (Vdev::Parity2, 5, 2)];

/// A pool of one vdev of files, and what is in it.
struct Life {
    folder: Folder,
    kind: Kind,
    paths: Vec<PathBuf>,
    map: Map,
    round: u32,
}

fn file(path: &PathBuf) -> LeafVdev {
    LeafVdev::File(FileLeaf { direct: false, size: Some(MIB << 20), sparse: true, ..FileLeaf::new(path) })
}

/// Bytes that look like no others.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

impl Life {
    fn new(kind: Kind, files: usize) -> Self {
        let folder = Folder::new();
        let paths = (0..files).map(|number| folder.path(&format!("f{number}"))).collect();
        Self { folder, kind, paths, map: Map::new(), round: 0 }
    }

    fn configuration(&self, degraded: bool) -> DatabaseConfiguration {
        let mut configuration = small([vec![(self.kind)(self.paths.iter().map(file).collect())]]);
        configuration.storage.degraded = degraded;
        configuration
    }

    fn open(&self, degraded: bool) -> Database {
        Database::build(self.configuration(degraded)).unwrap()
    }

    /// Writes on: small and large values, overwrites and deletes, and the last of it in the log alone.
    fn write(&mut self, database: &Database) {
        let dataset = database.open_or_create_dataset("data").unwrap();
        self.round += 1;
        let round = self.round;
        for number in 0..250u32 {
            let key = (number * (round + 1) % 400).to_be_bytes().to_vec();
            let length = if number % 25 == 0 { 40_000 } else { 50 + number as usize };
            let value = noise(round * 1000 + number, length);
            dataset.insert(&key, &value).unwrap();
            self.map.insert(key, value);
            if number == 120 {
                database.checkpoint().unwrap();
            }
        }
        for number in 0..20u32 {
            let key = (number * 7 + round).to_be_bytes().to_vec();
            dataset.delete(&key).unwrap();
            self.map.remove(&key);
        }
        database.sync().unwrap();
    }

    fn check(&self, database: &Database) {
        let dataset = database.open_dataset("data").unwrap();
        for _ in 0..2 {
            database.drop_cache();
            let found: Map = contents(&dataset).unwrap().into_iter().collect();
            assert!(found == self.map, "other contents");
        }
        database.verify().unwrap();
    }

    fn put_away(&self, files: std::ops::Range<usize>) {
        for path in &self.paths[files] {
            fs::rename(path, path.with_extension("away")).unwrap();
        }
    }

    fn bring_back(&self, files: std::ops::Range<usize>) {
        for path in &self.paths[files] {
            fs::rename(path.with_extension("away"), path).unwrap();
        }
    }

    /// Every file does without each set of `lost` others in a row: what each of them holds is needed for something.
    fn check_without(&self, lost: usize) {
        for first in 0..=self.paths.len() - lost {
            self.put_away(first..first + lost);
            let before: Vec<Vec<u8>> = self.paths.iter().filter_map(|path| fs::read(path).ok()).collect();
            let database = Database::open_read_only(self.configuration(true)).unwrap();
            self.check(&database);
            drop(database);
            let after: Vec<Vec<u8>> = self.paths.iter().filter_map(|path| fs::read(path).ok()).collect();
            assert!(before == after, "reading wrote something");
            self.bring_back(first..first + lost);
        }
    }
}

fn states(database: &Database) -> Vec<MemberState> {
    database.vdevs()[0].members.iter().map(|member| member.state).collect()
}

fn resilver(database: &Database) {
    database.resilver(|_| true).unwrap();
    assert!(states(database).iter().all(|state| *state == MemberState::Online), "{:?}", states(database));
    assert_eq!(database.vdevs()[0].health, VdevHealth::Online);
}

/// A scrub that has nothing to mend.
fn scrub_is_clean(database: &Database) {
    let status = database.scrub("test", |_| true).unwrap();
    assert_eq!(status.state, ScrubState::Finished);
    assert_eq!((status.damaged, status.repaired_bytes, status.unrepaired_bytes), (0, 0, 0));
    assert!(status.bytes_done > 0);
}

#[test]
fn lost_files_come_back_stale_and_are_made_good() {
    for (kind, files, lost) in KINDS {
        let mut life = Life::new(kind, files);
        let database = life.open(false);
        life.write(&database);
        database.close().unwrap();

        life.put_away(0..lost);
        let refused = Database::build(life.configuration(false)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Degraded);
        let database = life.open(true);
        assert!(states(&database)[..lost].iter().all(|state| *state == MemberState::Missing));
        assert_eq!(database.vdevs()[0].health, VdevHealth::Degraded);
        life.write(&database);
        life.check(&database);
        database.close().unwrap();

        life.bring_back(0..lost);
        let database = life.open(false);
        assert!(states(&database)[..lost].iter().all(|state| *state == MemberState::Resilvering));
        life.check(&database);
        life.write(&database);
        resilver(&database);
        scrub_is_clean(&database);
        life.check(&database);
        database.close().unwrap();
        life.check_without(lost);

        // The others are lost in turn, and only those that came back have what was written then.
        life.put_away(files - lost..files);
        let database = life.open(true);
        life.check(&database);
        life.write(&database);
        database.close().unwrap();
        life.bring_back(files - lost..files);
        let database = life.open(false);
        resilver(&database);
        scrub_is_clean(&database);
        database.close().unwrap();
        life.check_without(lost);
    }
}

#[test]
fn lost_files_are_replaced_by_empty_ones() {
    for (kind, files, lost) in KINDS {
        let mut life = Life::new(kind, files);
        let database = life.open(false);
        life.write(&database);
        database.close().unwrap();
        life.put_away(0..lost);
        let database = life.open(true);
        life.write(&database);
        let old = life.paths.clone();
        for leaf in 0..lost {
            life.paths[leaf] = life.folder.path(&format!("new{leaf}"));
            // Without a size it is as large as it must be.
            let new = FileLeaf { direct: false, sparse: true, ..FileLeaf::new(&life.paths[leaf]) };
            database.replace(VDEV, leaf as u8, &LeafVdev::File(new), false).unwrap();
            assert_eq!(states(&database)[leaf], MemberState::Resilvering);
        }
        life.write(&database);
        resilver(&database);
        life.check(&database);
        database.close().unwrap();

        let database = life.open(false);
        scrub_is_clean(&database);
        life.write(&database);
        database.close().unwrap();
        life.check_without(lost);
        // Those that were replaced are no members any more.
        for (leaf, old) in old.iter().enumerate().take(lost) {
            fs::rename(old.with_extension("away"), old).unwrap();
            let new = std::mem::replace(&mut life.paths[leaf], old.clone());
            let refused = Database::build(life.configuration(true)).unwrap_err().to_string();
            assert!(refused.contains("until another device took its place"), "{refused}");
            life.paths[leaf] = new;
        }
        life.check(&life.open(false));
    }
}

#[test]
fn files_of_garbage_are_replaced_where_they_are() {
    for (kind, files, lost) in KINDS {
        let mut life = Life::new(kind, files);
        let database = life.open(false);
        life.write(&database);
        database.close().unwrap();
        for leaf in 0..lost {
            fs::write(&life.paths[leaf], noise(99, 1 << 20).repeat(MIB as usize)).unwrap();
        }
        assert!(Database::build(life.configuration(false)).is_err());
        let database = life.open(true);
        life.check(&database);
        for leaf in 0..lost {
            let device = file(&life.paths[leaf]);
            let refused = database.replace(VDEV, leaf as u8, &device, false).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused}");
            database.replace(VDEV, leaf as u8, &device, true).unwrap();
        }
        resilver(&database);
        scrub_is_clean(&database);
        database.close().unwrap();
        life.check(&life.open(false));
        life.check_without(lost);
    }
}

/// What is wrong on one file is what it was, to the byte, after a scrub, and after a read of it alone.
#[test]
fn mended_bytes_are_those_that_were_written() {
    for (kind, files, _) in KINDS {
        let mut life = Life::new(kind, files);
        let database = life.open(false);
        life.write(&database);
        let dataset = database.open_dataset("data").unwrap();
        let value = noise(77_777, 60_000);
        dataset.insert("wanted", &value).unwrap();
        life.map.insert(b"wanted".to_vec(), value.clone());
        drop(dataset);
        database.close().unwrap();
        let piece = &value[4096..8192];
        let holders: Vec<(PathBuf, u64)> = life
            .paths
            .iter()
            .filter_map(|path| {
                let bytes = fs::read(path).unwrap();
                let at = bytes.chunks_exact(4096).position(|block| block == piece)?;
                Some((path.clone(), at as u64 * 4096))
            })
            .collect();
        let is_copied = holders.len() > 1;
        assert_eq!(is_copied, holders.len() == files, "a mirror has it everywhere, parity once");
        let (path, at) = &holders[0];
        let read = || {
            let mut bytes = vec![0; piece.len()];
            fs::File::open(path).unwrap().read_exact_at(&mut bytes, *at).unwrap();
            bytes
        };
        let spoil = || {
            let spoiled = fs::OpenOptions::new().write(true).open(path).unwrap();
            spoiled.write_all_at(&noise(5, 4096), *at).unwrap();
            assert!(read() != piece);
        };

        spoil();
        let database = life.open(false);
        let status = database.scrub("test", |_| true).unwrap();
        assert_eq!((status.damaged, status.unrepaired_bytes), (0, 0));
        assert_eq!(status.repaired_bytes, 4096);
        assert!(read() == piece, "the scrub wrote something else");
        assert_eq!(database.vdevs()[0].members.iter().map(|member| member.errors.repaired).sum::<u64>(), 1);
        database.close().unwrap();

        // Of a mirror, another copy may serve.
        if !is_copied {
            spoil();
            let database = life.open(false);
            life.check(&database);
            assert!(read() == piece, "the reader wrote something else");
            scrub_is_clean(&database);
            database.close().unwrap();
        }
        life.check(&life.open(false));
    }
}

/// Taken out of use and back while the database is used, with threads in the background that copy what was missed.
#[test]
fn members_go_and_come_while_it_is_used() {
    for (kind, files, _) in KINDS {
        let mut life = Life::new(kind, files);
        let configuration =
            DatabaseConfiguration { background_threads: Some(2), ..life.configuration(false) };
        let database = Database::build(configuration).unwrap();
        life.write(&database);
        for leaf in 0..2u8 {
            database.offline(VDEV, leaf).unwrap();
            assert_eq!(states(&database)[usize::from(leaf)], MemberState::Offline);
            life.write(&database);
            if files - 1 == 1 {
                let refused = database.offline(VDEV, 1 - leaf).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Busy, "{refused}");
            }
            database.online(VDEV, leaf).unwrap();
            life.write(&database);
            // Waits for the thread that does it.
            resilver(&database);
        }
        let new = life.folder.path("new");
        let device = LeafVdev::File(FileLeaf { direct: false, sparse: true, ..FileLeaf::new(&new) });
        database.replace(VDEV, 0, &device, false).unwrap();
        life.write(&database);
        resilver(&database);
        life.paths[0] = new;
        life.check(&database);
        scrub_is_clean(&database);
        database.close().unwrap();
        let database = life.open(false);
        life.check(&database);
        database.close().unwrap();
        life.check_without(1);
    }
}

#[test]
fn what_cannot_take_a_place_is_refused_and_changes_nothing() {
    let mut life = Life::new(Vdev::Mirror, 2);
    let database = life.open(false);
    life.write(&database);
    let before = database.vdevs();
    let path = life.folder.path("new");
    let small = LeafVdev::File(FileLeaf { direct: false, size: Some(1 << 20), ..FileLeaf::new(&path) });
    let refused = |device: &LeafVdev, kind: ErrorKind| {
        let error = database.replace(VDEV, 0, device, false).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(database.vdevs(), before);
    };
    refused(&small, ErrorKind::InvalidArgument);
    assert!(!path.exists());
    refused(&LeafVdev::memory(MIB << 20), ErrorKind::InvalidArgument);
    refused(&file(&life.paths[0]), ErrorKind::Busy);
    refused(&LeafVdev::file(life.folder.path("nowhere/new")), ErrorKind::NotFound);
    for (vdev, leaf) in [(VDEV, 2), (VdevId(7), 0)] {
        assert!(database.replace(vdev, leaf, &file(&path), false).is_err());
        assert!(database.offline(vdev, leaf).is_err());
        assert!(database.online(vdev, leaf).is_err());
        assert!(database.clear_errors(vdev, leaf).is_err());
    }
    assert_eq!(database.vdevs(), before);
    life.check(&database);
    database.close().unwrap();
}

/// A pool that is full has room again when a vdev was added, or when its devices became longer.
#[test]
fn a_full_pool_grows() {
    let folder = Folder::new();
    let path = |name: &str| folder.path(name);
    let leaf = |name: &str| file(&path(name));
    let mut configuration = small([vec![Vdev::Mirror(vec![leaf("a"), leaf("b")])]]);
    let fill = |database: &Database, from: u32| {
        let dataset = database.open_or_create_dataset("data").unwrap();
        let mut number = from;
        loop {
            match dataset.insert(number.to_be_bytes(), noise(number, 40_000)) {
                Ok(()) => number += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
                    return number;
                }
            }
        }
    };
    let check = |database: &Database, count: u32| {
        database.drop_cache();
        let dataset = database.open_dataset("data").unwrap();
        for number in 0..count {
            let value = dataset.get(number.to_be_bytes()).unwrap().unwrap();
            assert!(value.to_vec() == noise(number, 40_000), "{number}");
        }
        database.verify().unwrap();
    };
    let database = Database::build(configuration.clone()).unwrap();
    let first = fill(&database, 0);
    assert!(first > 50);
    database.close().unwrap();

    let added = TierConfiguration::new(vec![Vdev::Parity1(vec![leaf("c"), leaf("d"), leaf("e")])]);
    let added = [added];
    let database = Database::open_adding(configuration.clone(), &added, false).unwrap();
    configuration.storage = configuration.storage.extended(&added);
    assert_eq!(database.vdevs().len(), 2);
    let second = fill(&database, first);
    assert!(second - first > 100, "{first} {second}");
    check(&database, second);
    database.close().unwrap();
    let database = Database::build(configuration.clone()).unwrap();
    check(&database, second);
    scrub_is_clean(&database);
    database.close().unwrap();

    // One leg alone is of no use; both are.
    let lengthen = |name: &str| {
        fs::OpenOptions::new().write(true).open(path(name)).unwrap().set_len((3 * MIB) << 20).unwrap();
    };
    lengthen("a");
    let database = Database::build(configuration.clone()).unwrap();
    let total = database.free_space_tier()[0].total;
    database.close().unwrap();
    lengthen("b");
    let database = Database::build(configuration.clone()).unwrap();
    assert!(database.free_space_tier()[0].total >= total + ((2 * MIB) << 20) - (1 << 20));
    let third = fill(&database, second);
    assert!(third - second > 100, "{second} {third}");
    check(&database, third);
    database.close().unwrap();
    for name in ["c", "d", "e"] {
        lengthen(name);
    }
    let database = Database::build(configuration.clone()).unwrap();
    let fourth = fill(&database, third);
    assert!(fourth - third > 200, "{third} {fourth}");
    scrub_is_clean(&database);
    database.close().unwrap();
    // Each of them was needed for something, and none is.
    configuration.storage.degraded = true;
    for name in ["a", "b", "c", "d", "e"] {
        fs::rename(path(name), path("away")).unwrap();
        let database = Database::open_read_only(configuration.clone()).unwrap();
        check(&database, fourth);
        drop(database);
        fs::rename(path("away"), path(name)).unwrap();
    }
}

/// What was on a device, and that there was no file, is known until the pool is known to open.
#[test]
fn a_database_that_does_not_open_takes_no_device() {
    let folder = Folder::new();
    let leaf = |name: &str| Vdev::from(file(&folder.path(name)));
    let make = |name: &str| {
        let database = Database::build(small([vec![leaf(name)]])).unwrap();
        database.create_dataset("data").unwrap().insert(b"key", name.as_bytes()).unwrap();
        database.close().unwrap();
    };
    make("pool");
    make("other");
    let read = |name: &str| fs::read(folder.path(name)).unwrap();
    let (pool, other) = (read("pool"), read("other"));
    // Everything but the labels is gone.
    let mut damaged = pool.clone();
    let middle = 1 << 20..damaged.len() - (1 << 20);
    damaged[middle].fill(0x5a);
    fs::write(folder.path("pool"), &damaged).unwrap();
    let added = [TierConfiguration::new(vec![leaf("other"), leaf("new")])];
    let add = || Database::open_adding(small([vec![leaf("pool")]]), &added, true);
    let refused = add().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert!(read("pool") == damaged && read("other") == other);
    assert!(!folder.path("new").exists());

    fs::write(folder.path("pool"), &pool).unwrap();
    let database = add().unwrap();
    assert_eq!(database.vdevs().len(), 3);
    assert_eq!(contents(&database.open_dataset("data").unwrap()).unwrap().len(), 1);
    database.close().unwrap();
    let alone = Database::build(small([vec![leaf("other")]])).unwrap_err();
    assert_eq!(alone.kind(), ErrorKind::Degraded, "{alone}");
    assert!(folder.path("new").exists());
}

/// A pool with spares: a file is lost, a spare takes its place, and then the others are lost.
#[test]
fn spares_take_the_places_of_lost_files() {
    for (kind, files, lost) in KINDS {
        let mut life = Life::new(kind, files);
        let spares: Vec<PathBuf> =
            (0..=lost).map(|number| life.folder.path(&format!("spare{number}"))).collect();
        // The first one is not empty, and of no use.
        fs::write(&spares[0], noise(3, 1 << 20).repeat(MIB as usize)).unwrap();
        let with_spares = |life: &Life, degraded: bool| {
            let mut configuration = life.configuration(degraded);
            configuration.storage.spares = spares.iter().map(file).collect();
            configuration
        };
        let database = Database::build(with_spares(&life, false)).unwrap();
        life.write(&database);
        assert_eq!(database.use_spares().unwrap(), []);
        database.close().unwrap();
        life.put_away(0..lost);
        let database = Database::build(with_spares(&life, true)).unwrap();
        life.write(&database);
        let used = database.use_spares().unwrap();
        assert_eq!(used.len(), lost);
        for (number, used) in used.iter().enumerate() {
            assert_eq!((used.vdev, used.leaf), (VDEV, number as u8));
            assert_eq!(used.spare, spares[number + 1].display().to_string());
        }
        life.write(&database);
        resilver(&database);
        assert_eq!(database.use_spares().unwrap(), []);
        database.close().unwrap();

        // From then on it is a member wherever it is named, and who was lost is not.
        for back in [false, true] {
            if back {
                life.bring_back(0..lost);
            }
            let database = Database::build(with_spares(&life, false)).unwrap();
            assert_eq!(database.vdevs()[0].health, VdevHealth::Online);
            let names: Vec<String> =
                database.vdevs()[0].members.iter().map(|member| member.name.clone()).collect();
            for number in 0..lost {
                assert_eq!(names[number], spares[number + 1].display().to_string());
            }
            life.write(&database);
            life.check(&database);
            scrub_is_clean(&database);
            database.close().unwrap();
        }
        assert!(Database::build(life.configuration(false)).is_err(), "a pool without its members");
        // Whoever else is lost: the spares have everything.
        for first in lost..=files - lost {
            life.put_away(first..first + lost);
            let database = Database::open_read_only(with_spares(&life, true)).unwrap();
            life.check(&database);
            drop(database);
            life.bring_back(first..first + lost);
        }
        // Named as members they are no spares any more.
        for number in 0..lost {
            life.paths[number].clone_from(&spares[number + 1]);
        }
        life.check(&life.open(false));
        life.check_without(lost);
    }
}

/// A spare whose place another device took is nobody, whatever it holds.
#[test]
fn a_spare_that_was_replaced_is_no_member() {
    let mut life = Life::new(Vdev::Mirror, 2);
    let spare = life.folder.path("spare");
    let database = life.open(false);
    life.write(&database);
    database.close().unwrap();
    life.put_away(0..1);
    let mut configuration = life.configuration(true);
    configuration.storage.spares = vec![file(&spare)];
    let database = Database::build(configuration).unwrap();
    assert_eq!(database.use_spares().unwrap().len(), 1);
    resilver(&database);
    let new = life.folder.path("new");
    database.replace(VDEV, 0, &file(&new), false).unwrap();
    life.write(&database);
    resilver(&database);
    database.close().unwrap();
    life.paths[0] = new;
    let mut configuration = life.configuration(false);
    configuration.storage.spares = vec![file(&spare)];
    let database = Database::build(configuration.clone()).unwrap();
    life.check(&database);
    database.close().unwrap();
    life.put_away(0..1);
    configuration.storage.degraded = true;
    let database = Database::build(configuration).unwrap();
    life.check(&database);
    assert_eq!(states(&database), [MemberState::Missing, MemberState::Online]);
    assert_eq!(database.use_spares().unwrap(), [], "it is not empty");
    database.close().unwrap();
}

/// With threads in the background nobody has to ask.
#[test]
fn a_spare_takes_a_place_by_itself() {
    let mut life = Life::new(Vdev::Parity1, 3);
    let database = life.open(false);
    life.write(&database);
    database.close().unwrap();
    life.put_away(1..2);
    let mut configuration = life.configuration(true);
    configuration.background_threads = Some(2);
    configuration.storage.spares = vec![file(&life.folder.path("spare"))];
    let database = Database::build(configuration).unwrap();
    life.write(&database);
    let began = std::time::Instant::now();
    while states(&database) != [MemberState::Online; 3] {
        assert!(began.elapsed().as_secs() < 120, "{:?}", states(&database));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    life.check(&database);
    scrub_is_clean(&database);
    database.close().unwrap();
}
