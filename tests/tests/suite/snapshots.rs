//! Snapshots, clones, rollback and promote: against a model, in every order of deleting, on full pools.
//!
//! `BETREE_SEED` sets the first random history, `BETREE_SNAPSHOT_HISTORIES` how many there are, `BETREE_SNAPSHOT_ORDERS` of 10,395
//! orders of deleting how many are tried.

use crate::pools::{Contents, Folder, contents, small};
use betree::inspect::{CheckOptions, Outcome, check};
use betree::vdev::{BlockDevice, Fault, SimClock, SimDisk, SimRng};
use betree::{
    Database, DatabaseConfiguration, Dataset, DatasetView, Difference, Differences, ErrorKind, LeafVdev,
    Snapshot, Vdev,
};
use betree_tests::rig::number_from_environment;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn memory(mib: u64) -> DatabaseConfiguration {
    small([vec![LeafVdev::memory(mib << 20).into()]])
}

fn key(number: u64) -> Vec<u8> {
    format!("key{number:05}").into_bytes()
}

fn of_snapshot(snapshot: &Snapshot) -> Contents {
    let plain = |entry: betree::Result<(betree::Value, betree::Value)>| {
        entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
    };
    snapshot.range::<&[u8]>(..).map(plain).collect::<betree::Result<_>>().unwrap()
}

fn of_map(map: &Map) -> Contents {
    map.clone().into_iter().collect()
}

fn demand_clean(configuration: &DatabaseConfiguration, context: &str) {
    let options = CheckOptions { deep: true, ..CheckOptions::default() };
    let report = check(configuration, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings, Vec::<String>::new(), "{context}");
    assert_eq!(report.outcome(), Outcome::Clean, "{context}");
}

/// A snapshot of the model.
#[derive(Clone)]
struct Kept {
    /// Never used again.
    id: u64,
    name: String,
    map: Map,
    holds: Vec<String>,
}

/// A dataset of the model.
#[derive(Clone)]
struct Data {
    name: String,
    head: Map,
    snapshots: Vec<Kept>,
    /// Id of a snapshot.
    origin: Option<u64>,
}

/// A database, what it should hold, and handles that were taken on the way.
struct World {
    configuration: DatabaseConfiguration,
    database: Option<Database>,
    rng: SimRng,
    datasets: Vec<Data>,
    open: Vec<(Snapshot, Map)>,
    views: Vec<(DatasetView, Map)>,
    made: u64,
    done: BTreeMap<&'static str, u64>,
}

impl World {
    fn new(configuration: DatabaseConfiguration, seed: u64) -> Self {
        let database = Some(Database::build(configuration.clone()).unwrap());
        let rng = SimRng::new(seed);
        let done = BTreeMap::new();
        Self {
            configuration,
            database,
            rng,
            datasets: Vec::new(),
            open: Vec::new(),
            views: Vec::new(),
            made: 0,
            done,
        }
    }

    fn database(&self) -> &Database {
        self.database.as_ref().unwrap()
    }

    fn dataset(&self, index: usize) -> Dataset {
        self.database().open_dataset(&self.datasets[index].name).unwrap()
    }

    fn fresh(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}{}", self.made)
    }

    /// Names of the clones of snapshot `id`.
    fn clones(&self, id: u64) -> Vec<String> {
        let of = |data: &&Data| data.origin == Some(id);
        self.datasets.iter().filter(of).map(|data| data.name.clone()).collect()
    }

    fn is_needed(&self, snapshot: &Kept) -> bool {
        !snapshot.holds.is_empty() || !self.clones(snapshot.id).is_empty()
    }

    fn write(&mut self, index: usize) {
        let dataset = self.dataset(index);
        for _ in 0..1 + self.rng.below(60) {
            let number = self.rng.below(300);
            let head = &mut self.datasets[index].head;
            match self.rng.below(20) {
                0..12 => {
                    let length = 10 + self.rng.below(400) as usize;
                    let mut value = vec![self.rng.next_u64() as u8; length];
                    value[..8].copy_from_slice(&self.rng.next_u64().to_le_bytes());
                    dataset.insert(key(number), &value).unwrap();
                    head.insert(key(number), value);
                }
                12 => {
                    let mut value =
                        vec![self.rng.next_u64() as u8; (17 << 10) + self.rng.below(9000) as usize];
                    value[..8].copy_from_slice(&self.rng.next_u64().to_le_bytes());
                    dataset.insert(key(number), &value).unwrap();
                    head.insert(key(number), value);
                }
                13..17 => {
                    dataset.delete(key(number)).unwrap();
                    head.remove(&key(number));
                }
                17 | 18 => {
                    let offset = self.rng.below(500) as u32;
                    let bytes = self.rng.next_u64().to_le_bytes();
                    dataset.upsert(key(number), bytes, offset).unwrap();
                    let value = head.entry(key(number)).or_default();
                    let end = offset as usize + 8;
                    value.resize(value.len().max(end), 0);
                    value[offset as usize..end].copy_from_slice(&bytes);
                }
                _ => {
                    let end = number + self.rng.below(150);
                    dataset.range_delete(key(number)..key(end)).unwrap();
                    head.retain(|other, _| *other < key(number) || *other >= key(end));
                }
            }
        }
    }

    fn step(&mut self) {
        if self.datasets.is_empty() {
            let name = self.fresh("data");
            self.database().create_dataset(&name).unwrap();
            self.datasets.push(Data { name, head: Map::new(), snapshots: Vec::new(), origin: None });
        }
        let index = self.rng.index(self.datasets.len());
        let done = match self.rng.below(64) {
            0..26 => {
                self.write(index);
                "write"
            }
            26..34 => self.create(index),
            34..41 => self.delete(index),
            41..43 => self.rename(index),
            43..46 => self.hold(index),
            46..49 => self.rollback(index),
            49..52 => self.clone_one(index),
            52..54 => self.promote(index),
            54 => self.destroy(index),
            55..57 => {
                self.database().checkpoint().unwrap();
                "checkpoint"
            }
            57..59 => {
                self.database().settle().unwrap();
                "settle"
            }
            59 => {
                self.reopen();
                "reopen"
            }
            60..62 => {
                if let Some(kept) = self.datasets[index].snapshots.last() {
                    let (name, map) = (kept.name.clone(), kept.map.clone());
                    self.open.push((self.dataset(index).open_snapshot(name).unwrap(), map));
                }
                "open"
            }
            62 => {
                self.views.push((self.dataset(index).view(), self.datasets[index].head.clone()));
                "view"
            }
            _ => {
                self.look_at_handles();
                self.open.clear();
                self.views.clear();
                "close"
            }
        };
        *self.done.entry(done).or_default() += 1;
    }

    fn create(&mut self, index: usize) -> &'static str {
        let name = self.fresh("snap");
        let several = self.rng.chance(1, 4);
        let all: Vec<usize> = if several { (0..self.datasets.len()).collect() } else { vec![index] };
        let handles: Vec<Dataset> = all.iter().map(|index| self.dataset(*index)).collect();
        let handles: Vec<&Dataset> = handles.iter().collect();
        let snapshots = self.database().create_snapshot(&handles, &name).unwrap();
        for (index, snapshot) in all.into_iter().zip(snapshots) {
            assert_eq!(snapshot.name(), name.as_bytes());
            self.made += 1;
            let map = self.datasets[index].head.clone();
            let kept = Kept { id: self.made, name: name.clone(), map, holds: Vec::new() };
            self.datasets[index].snapshots.push(kept);
            let error = self.dataset(index).create_snapshot(&name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        }
        "create"
    }

    fn some_snapshot(&mut self, index: usize) -> Option<usize> {
        let count = self.datasets[index].snapshots.len();
        (count > 0).then(|| self.rng.index(count))
    }

    fn delete(&mut self, index: usize) -> &'static str {
        let Some(at) = self.some_snapshot(index) else { return "none" };
        let kept = self.datasets[index].snapshots[at].clone();
        let deleted = self.dataset(index).delete_snapshot(&kept.name);
        if self.is_needed(&kept) {
            let error = deleted.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
            let named = self.clones(kept.id).iter().all(|clone| error.to_string().contains(clone));
            assert!(named, "{error}");
            return "busy";
        }
        deleted.unwrap();
        self.datasets[index].snapshots.remove(at);
        let error = self.dataset(index).open_snapshot(&kept.name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        "delete"
    }

    fn rename(&mut self, index: usize) -> &'static str {
        let Some(at) = self.some_snapshot(index) else { return "none" };
        let name = self.fresh("renamed");
        let old = std::mem::replace(&mut self.datasets[index].snapshots[at].name, name.clone());
        self.dataset(index).rename_snapshot(&old, &name).unwrap();
        "rename"
    }

    fn hold(&mut self, index: usize) -> &'static str {
        let Some(at) = self.some_snapshot(index) else { return "none" };
        let dataset = self.dataset(index);
        let kept = &mut self.datasets[index].snapshots[at];
        match kept.holds.pop() {
            Some(tag) => dataset.release_snapshot(&kept.name, tag).unwrap(),
            None => {
                dataset.hold_snapshot(&kept.name, "tag").unwrap();
                kept.holds.push(String::from("tag"));
            }
        }
        "hold"
    }

    fn rollback(&mut self, index: usize) -> &'static str {
        let Some(at) = self.some_snapshot(index) else { return "none" };
        let data = self.datasets[index].clone();
        let later = &data.snapshots[at + 1..];
        let force = self.rng.chance(2, 3);
        let done = self.dataset(index).rollback(&data.snapshots[at].name, force);
        if (!force && !later.is_empty()) || later.iter().any(|kept| self.is_needed(kept)) {
            assert_eq!(done.unwrap_err().kind(), ErrorKind::Busy);
            return "busy";
        }
        done.unwrap();
        let head = data.snapshots[at].map.clone();
        self.datasets[index].head = head;
        self.datasets[index].snapshots.truncate(at + 1);
        "rollback"
    }

    fn clone_one(&mut self, index: usize) -> &'static str {
        let Some(at) = self.some_snapshot(index).filter(|_| self.datasets.len() < 5) else { return "none" };
        let kept = self.datasets[index].snapshots[at].clone();
        let snapshot = self.dataset(index).open_snapshot(&kept.name).unwrap();
        let taken = self.database().clone_snapshot(&snapshot, &self.datasets[index].name).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
        let name = self.fresh("clone");
        let clone = self.database().clone_snapshot(&snapshot, &name).unwrap();
        let of = (self.datasets[index].name.clone().into_bytes(), kept.name.clone().into_bytes());
        assert_eq!(clone.origin().unwrap(), Some(of));
        self.datasets.push(Data { name, head: kept.map, snapshots: Vec::new(), origin: Some(kept.id) });
        "clone"
    }

    fn promote(&mut self, index: usize) -> &'static str {
        let Some(origin) = self.datasets[index].origin else {
            assert_eq!(self.dataset(index).promote().unwrap_err().kind(), ErrorKind::InvalidArgument);
            return "no clone";
        };
        let has = |data: &Data| data.snapshots.iter().position(|kept| kept.id == origin);
        let from = self.datasets.iter().position(|data| has(data).is_some()).unwrap();
        let at = has(&self.datasets[from]).unwrap();
        let moving = &self.datasets[from].snapshots[..=at];
        let names: Vec<&String> = self.datasets[index].snapshots.iter().map(|kept| &kept.name).collect();
        let clash = moving.iter().any(|kept| names.contains(&&kept.name));
        let done = self.dataset(index).promote();
        if clash {
            assert_eq!(done.unwrap_err().kind(), ErrorKind::AlreadyExists);
            return "clash";
        }
        done.unwrap();
        let mut moved: Vec<Kept> = self.datasets[from].snapshots.drain(..=at).collect();
        moved.append(&mut self.datasets[index].snapshots);
        self.datasets[index].snapshots = moved;
        self.datasets[index].origin = self.datasets[from].origin.replace(origin);
        "promote"
    }

    fn destroy(&mut self, index: usize) -> &'static str {
        let data = self.datasets[index].clone();
        let done = self.database().destroy_dataset(&data.name);
        if data.snapshots.iter().any(|kept| self.is_needed(kept)) {
            assert_eq!(done.unwrap_err().kind(), ErrorKind::Busy);
            return "busy";
        }
        done.unwrap();
        self.datasets.remove(index);
        "destroy"
    }

    fn reopen(&mut self) {
        self.look_at_handles();
        self.open.clear();
        self.views.clear();
        self.database.take().unwrap().close().unwrap();
        self.database = Some(Database::build(self.configuration.clone()).unwrap());
    }

    fn look_at_handles(&self) {
        for (snapshot, map) in &self.open {
            assert!(of_snapshot(snapshot) == of_map(map), "{snapshot:?} changed");
        }
        for (view, map) in &self.views {
            assert!(crate::pools::seen(view).unwrap() == of_map(map), "a view changed");
        }
    }

    /// Compares everything.
    fn look(&self) {
        let names: Vec<Vec<u8>> = self.database().datasets().unwrap();
        let mut wanted: Vec<Vec<u8>> =
            self.datasets.iter().map(|data| data.name.clone().into_bytes()).collect();
        wanted.sort();
        assert_eq!(names, wanted);
        for (index, data) in self.datasets.iter().enumerate() {
            let dataset = self.dataset(index);
            assert!(contents(&dataset).unwrap() == of_map(&data.head), "{} differs", data.name);
            let found = dataset.snapshots().unwrap();
            let found: Vec<_> =
                found.into_iter().map(|info| (info.name, info.holds.len(), sorted(info.clones))).collect();
            let clones = |kept: &Kept| {
                sorted(self.clones(kept.id).into_iter().map(String::into_bytes).collect::<Vec<_>>())
            };
            let kept = data.snapshots.iter();
            let wanted: Vec<_> =
                kept.map(|kept| (kept.name.clone().into_bytes(), kept.holds.len(), clones(kept))).collect();
            assert_eq!(found, wanted);
            for kept in &data.snapshots {
                let snapshot = dataset.open_snapshot(&kept.name).unwrap();
                assert!(of_snapshot(&snapshot) == of_map(&kept.map), "{snapshot:?} differs");
            }
        }
        self.look_at_handles();
    }

    /// Deletes everything; what is left must be the trees of an empty database.
    fn empty(&mut self) {
        self.open.clear();
        self.views.clear();
        for index in 0..self.datasets.len() {
            let dataset = self.dataset(index);
            for kept in &mut self.datasets[index].snapshots {
                for tag in kept.holds.drain(..) {
                    dataset.release_snapshot(&kept.name, tag).unwrap();
                }
            }
        }
        while !self.datasets.is_empty() {
            let free = |data: &Data| !data.snapshots.iter().any(|kept| self.is_needed(kept));
            let index = self.datasets.iter().position(free).unwrap();
            self.database().destroy_dataset(&self.datasets[index].name).unwrap();
            self.datasets.remove(index);
        }
        for _ in 0..8 {
            self.database().settle().unwrap();
            self.database().checkpoint().unwrap();
        }
        let report = self.database().verify().unwrap();
        assert_eq!((report.datasets, report.snapshots), (0, 0));
        assert!(report.blocks < 64, "{report:?} is left of nothing");
    }
}

fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort();
    all
}

/// Guards everything at once: what each snapshot holds, whoever is deleted, cloned, promoted or rolled back around it.
#[test]
fn random_histories_read_as_their_model() {
    let first = number_from_environment("BETREE_SEED").unwrap_or(1);
    let histories = number_from_environment("BETREE_SNAPSHOT_HISTORIES").unwrap_or(6);
    let mut done: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in first..first + histories {
        println!("BETREE_SEED={seed}");
        let folder = Folder::new();
        let mut world = World::new(folder.one(64), seed);
        for step in 0..250 {
            world.step();
            if step % 10 == 9 {
                world.database().verify().unwrap();
                world.look();
            }
            if step % 50 == 49 {
                world.reopen();
                world.database.take().unwrap().close().unwrap();
                demand_clean(&world.configuration, &format!("BETREE_SEED={seed}, step {step}"));
                world.database = Some(Database::build(world.configuration.clone()).unwrap());
            }
        }
        world.empty();
        world.database.take().unwrap().close().unwrap();
        demand_clean(&world.configuration, &format!("BETREE_SEED={seed}, empty"));
        world.done.iter().for_each(|(what, count)| *done.entry(what).or_default() += count);
    }
    println!("{done:?}");
    for what in
        ["create", "delete", "rename", "hold", "rollback", "clone", "promote", "destroy", "busy", "reopen"]
    {
        assert!(done.get(what).copied().unwrap_or(0) > 0, "{what} never happened: {done:?}");
    }
}

fn random_value(rng: &mut SimRng, length: usize) -> Vec<u8> {
    (0..length).map(|_| rng.next_u64() as u8).collect()
}

/// Guards T-SNAP-1: dirty data, a snapshot, everything overwritten, checkpoints, a full pool; the snapshot reads the same.
fn survives_a_full_pool(configuration: &DatabaseConfiguration, reopens: bool) {
    let mut database = Database::build(configuration.clone()).unwrap();
    let dataset = database.create_dataset("data").unwrap();
    let mut rng = SimRng::new(7);
    let mut map = Map::new();
    for number in 0..400 {
        let length = if number % 40 == 0 { 20_000 } else { 200 + rng.below(300) as usize };
        let value = random_value(&mut rng, length);
        dataset.insert(key(number), &value).unwrap();
        map.insert(key(number), value);
    }
    // Nothing of it is on the devices but in the log.
    let snapshot = dataset.create_snapshot("s").unwrap();
    for number in 0..400 {
        dataset.insert(key(number), random_value(&mut rng, 300)).unwrap();
    }
    for _ in 0..3 {
        database.settle().unwrap();
        database.checkpoint().unwrap();
    }
    let error =
        (1000..).find_map(|number| dataset.insert(key(number), random_value(&mut rng, 3000)).err()).unwrap();
    assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
    assert!(of_snapshot(&snapshot) == of_map(&map), "the snapshot changed");
    database.verify().unwrap();
    drop((snapshot, dataset));
    if reopens {
        database.close().unwrap();
        demand_clean(configuration, "full");
        let reader = Database::open_read_only(configuration.clone()).unwrap();
        let dataset = reader.open_dataset("data").unwrap();
        assert_eq!(dataset.create_snapshot("t").unwrap_err().kind(), ErrorKind::ReadOnly);
        assert!(of_snapshot(&dataset.open_snapshot("s").unwrap()) == of_map(&map), "read-only");
        drop((dataset, reader));
        database = Database::build(configuration.clone()).unwrap();
    }
    let dataset = database.open_dataset("data").unwrap();
    assert!(of_snapshot(&dataset.open_snapshot("s").unwrap()) == of_map(&map), "the snapshot changed");
    // A full pool gives its snapshots back, and their space.
    let unique = dataset.snapshots().unwrap()[0].unique;
    assert!(unique > 200 << 10, "{unique} bytes are in the snapshot alone");
    // With the reserve, of which a full pool has used some.
    let free = |database: &Database| database.metrics().tiers.iter().map(|tier| tier.free).sum::<u64>() << 12;
    let before = free(&database);
    dataset.delete_snapshot("s").unwrap();
    for _ in 0..4 {
        database.checkpoint().unwrap();
    }
    let freed = free(&database).saturating_sub(before);
    // With threads, work that waited for room takes it at once.
    let waited = configuration.background_threads != Some(0);
    // What a snapshot has on the devices counts parity, free space does not: twice as much at the most, here.
    let mut vdevs = configuration.storage.tiers.iter().flat_map(|tier| &tier.top_level_vdevs);
    let most = if vdevs.any(|vdev| matches!(vdev, Vdev::Parity1(_) | Vdev::Parity2(_))) { 2 } else { 1 };
    assert!(waited || freed * most + (128 << 10) > unique, "{freed} bytes were freed of {unique}");
    database.verify().unwrap();
    drop(dataset);
    database.close().unwrap();
    if reopens {
        demand_clean(configuration, "deleted");
    }
}

#[test]
fn a_snapshot_survives_overwriting_and_a_full_pool_on_one_file() {
    survives_a_full_pool(&Folder::new().one(8), true);
    let folder = Folder::new();
    let background_threads = Some(2);
    survives_a_full_pool(&DatabaseConfiguration { background_threads, ..folder.one(8) }, true);
}

#[test]
fn a_snapshot_survives_overwriting_and_a_full_pool_on_other_pools() {
    let folder = Folder::new();
    survives_a_full_pool(&small([vec![folder.file("a", 4), folder.file("b", 4)]]), true);
    let configuration = DatabaseConfiguration {
        alloc_strategy: [vec![0, 1], vec![1], vec![1], vec![1]],
        ..small([vec![folder.file("c", 4)], vec![folder.file("d", 6)]])
    };
    survives_a_full_pool(&configuration, true);
    let configuration = DatabaseConfiguration {
        alloc_strategy: [vec![0, 1], vec![1], vec![1], vec![1]],
        ..small([vec![LeafVdev::memory(1 << 20).into()], vec![folder.file("e", 8)]])
    };
    survives_a_full_pool(&configuration, true);
    survives_a_full_pool(&memory(8), false);
}

#[test]
fn a_snapshot_survives_overwriting_and_a_full_pool_on_mirrors_and_parity() {
    let folder = Folder::new();
    let leaves = |names: &[&str], mib| -> Vec<LeafVdev> {
        let leaf = |name: &&str| folder.file(name, mib).leaves()[0].clone();
        names.iter().map(leaf).collect()
    };
    let mirror = Vdev::Mirror(leaves(&["m0", "m1"], 6));
    survives_a_full_pool(&small([vec![mirror]]), true);
    let parity = Vdev::Parity1(leaves(&["p0", "p1", "p2", "p3", "p4"], 3));
    survives_a_full_pool(&small([vec![parity]]), true);
    let parity = Vdev::Parity2(leaves(&["q0", "q1", "q2", "q3"], 6));
    survives_a_full_pool(&small([vec![parity]]), true);
    let configuration = DatabaseConfiguration {
        alloc_strategy: [vec![0, 1], vec![1], vec![1], vec![1]],
        ..small([
            vec![Vdev::Mirror(leaves(&["r0", "r1"], 4))],
            vec![Vdev::Parity1(leaves(&["s0", "s1", "s2"], 4))],
        ])
    };
    survives_a_full_pool(&configuration, true);
}

/// Guards dead lists: every history of three events before, between and behind three snapshots, and every order of
/// deleting them.
#[test]
fn every_short_history_and_order_of_deleting_is_exact() {
    let orders: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let folder = Folder::new();
    let configuration = folder.one(32);
    let database = Database::build(configuration.clone()).unwrap();
    let empty = database.verify().unwrap().blocks;
    for history in 0..4_u32.pow(4) {
        let name = format!("h{history}");
        let dataset = database.create_dataset(&name).unwrap();
        let mut states = Vec::new();
        for part in 0..4 {
            match history / 4_u32.pow(part) % 4 {
                0 => {}
                1 => (0..12).for_each(|n| dataset.insert(key(n), [part as u8; 900]).unwrap()),
                2 => dataset.range_delete(key(2)..key(9)).unwrap(),
                _ => dataset.insert(key(part.into()), vec![part as u8; 20_000]).unwrap(),
            }
            if part < 3 {
                dataset.create_snapshot(format!("s{part}")).unwrap();
                states.push(contents(&dataset).unwrap());
            }
        }
        if history % 3 == 0 {
            database.settle().unwrap();
        }
        let head = contents(&dataset).unwrap();
        let order = orders[history as usize % 6];
        for (done, at) in order.into_iter().enumerate() {
            dataset.delete_snapshot(format!("s{at}")).unwrap();
            for left in &order[done + 1..] {
                let snapshot = dataset.open_snapshot(format!("s{left}")).unwrap();
                assert!(of_snapshot(&snapshot) == states[*left], "history {history}, s{left} after s{at}");
            }
        }
        assert!(contents(&dataset).unwrap() == head, "history {history}");
        drop(dataset);
        if history % 16 == 15 {
            database.verify().unwrap();
            for history in history - 15..=history {
                database.destroy_dataset(format!("h{history}")).unwrap();
            }
            for _ in 0..3 {
                database.settle().unwrap();
                database.checkpoint().unwrap();
            }
            let left = database.verify().unwrap().blocks;
            assert!(left <= empty + 16, "{left} blocks are left of an empty database of {empty}");
        }
    }
    database.close().unwrap();
    demand_clean(&configuration, "all histories");
}

/// What is done to a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Create(usize),
    Delete(usize),
}

/// Ways to make `count` snapshots in their order and to delete each at any time behind that: 1 · 3 · 5 · …
fn interleavings(count: usize) -> usize {
    (0..count).map(|pair| 2 * pair + 1).product()
}

/// The `number`th of them.
fn interleaving(count: usize, mut number: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    for snapshot in (0..count).rev() {
        steps.insert(0, Step::Create(snapshot));
        let places = steps.len();
        steps.insert(1 + number % places, Step::Delete(snapshot));
        number /= places;
    }
    steps
}

#[test]
fn interleavings_are_all_there_and_each_once() {
    for count in 1..=4 {
        let all: BTreeSet<String> =
            (0..interleavings(count)).map(|number| format!("{:?}", interleaving(count, number))).collect();
        assert_eq!(all.len(), interleavings(count));
    }
    assert_eq!((interleavings(3), interleavings(6)), (15, 10_395));
    // Those that delete at the end only are the orders of deleting.
    let late = |steps: &[Step]| steps[..6].iter().all(|step| matches!(step, Step::Create(_)));
    let all = (0..interleavings(6)).map(|number| interleaving(6, number));
    assert_eq!(all.filter(|steps| late(steps)).count(), 720);
}

/// Guards dead lists: whatever lives from one of the thirteen intervals between the making and the deleting of six snapshots
/// until another, and every way in which making and deleting may follow each other. What happens to a block depends on its
/// own life and on the snapshots; `docs/testing.md` says why a history with a value of each life stands for all histories of so
/// many snapshots, and what it does not stand for.
#[test]
fn every_lifetime_and_interleaving_of_six_snapshots_is_exact() {
    const SNAPSHOTS: usize = 6;
    let all = interleavings(SNAPSHOTS);
    let wanted =
        number_from_environment("BETREE_SNAPSHOT_ORDERS").unwrap_or(60).clamp(1, all as u64) as usize;
    let seed = number_from_environment("BETREE_SEED").unwrap_or(0) as usize;
    let folder = Folder::new();
    let configuration = folder.one(32);
    let database = Database::build(configuration.clone()).unwrap();
    let used = || database.verify().unwrap().blocks;
    let empty = used();
    for number in (seed % (all / wanted)..all).step_by(all / wanted) {
        let mut rng = SimRng::new(number as u64);
        let dataset = database.create_dataset("data").unwrap();
        let mut map = Map::new();
        let mut states: BTreeMap<usize, Map> = BTreeMap::new();
        let steps = interleaving(SNAPSHOTS, number);
        // Values that are born in an interval and die in a later one, or never. Half of the histories have eight of them.
        let ends = steps.len();
        let mut lifetimes: Vec<(usize, usize)> =
            (0..=ends).flat_map(|born| (born..=ends + 1).map(move |died| (born, died))).collect();
        if number % 2 == 1 {
            lifetimes = (0..8).map(|_| lifetimes[rng.index(lifetimes.len())]).collect();
        }
        for interval in 0..=ends {
            for (index, (born, died)) in lifetimes.iter().enumerate() {
                let key: Vec<u8> = key(index as u64);
                if *born == interval {
                    // Most have an extent of their own, some share a run.
                    let length = if index % 4 == 3 { 700 } else { 17_000 };
                    let value = random_value(&mut rng, length);
                    dataset.insert(&key, &value).unwrap();
                    map.insert(key.clone(), value);
                }
                if *died == interval {
                    match index % 3 {
                        0 => dataset.delete(&key).unwrap(),
                        1 => dataset.range_delete(key.as_slice()..=&key).unwrap(),
                        _ => dataset.insert(&key, "small").unwrap(),
                    }
                    match index % 3 {
                        0 | 1 => map.remove(&key),
                        _ => map.insert(key, b"small".to_vec()),
                    };
                }
            }
            if rng.below(4) == 0 {
                database.settle().unwrap();
            }
            match steps.get(interval) {
                Some(Step::Create(snapshot)) => {
                    dataset.create_snapshot(snapshot.to_string()).unwrap();
                    states.insert(*snapshot, map.clone());
                }
                Some(Step::Delete(snapshot)) => {
                    dataset.delete_snapshot(snapshot.to_string()).unwrap();
                    states.remove(snapshot);
                    for (left, state) in &states {
                        let snapshot = dataset.open_snapshot(left.to_string()).unwrap();
                        assert!(of_snapshot(&snapshot) == of_map(state), "{left} in {steps:?} at {interval}");
                    }
                    if rng.below(3) == 0 {
                        used();
                    }
                }
                None => {}
            }
        }
        assert!(contents(&dataset).unwrap() == of_map(&map), "the head after {steps:?}");
        drop(dataset);
        database.destroy_dataset("data").unwrap();
        (0..3).for_each(|_| database.checkpoint().unwrap());
        // The root tree has some runs more or less; what is left of each history would add up.
        let left = used();
        assert!(left <= empty + 16, "{left} blocks are left of {empty} after {steps:?}");
    }
    database.close().unwrap();
    demand_clean(&configuration, "all lifetimes");
}

/// Makes `to` of `from` by what `differences` say, which must be exact and in order.
fn demand_exact(differences: Differences, from: &Snapshot, to: &[(Vec<u8>, Vec<u8>)], what: &str) {
    let mut map: Map = of_snapshot(from).into_iter().collect();
    let mut last = None;
    for difference in differences {
        let key = match difference.unwrap() {
            Difference::Put { key, value, is_new } => {
                let before = map.insert(key.to_vec(), value.to_vec());
                assert!(before.as_deref() != Some(&value[..]) && before.is_none() == is_new);
                key
            }
            Difference::Delete { key } => {
                assert!(map.remove(&key[..]).is_some());
                key
            }
        };
        assert!(last.replace(key.clone()).is_none_or(|last| last < key), "not in order");
    }
    assert!(of_map(&map) == to, "{what}");
}

/// Writes of every kind.
fn write_some(dataset: &Dataset, rng: &mut SimRng) {
    for _ in 0..rng.below(200) {
        let number = rng.below(600);
        match rng.below(10) {
            0..6 => dataset.insert(key(number), random_value(rng, 100)).unwrap(),
            6 => dataset.insert(key(number), random_value(rng, 17_000)).unwrap(),
            7 => dataset.upsert(key(number), b"patch", 3).unwrap(),
            8 => dataset.delete(key(number)).unwrap(),
            _ => dataset.range_delete(key(number)..key(number + rng.below(60))).unwrap(),
        }
    }
}

/// Guards diff: what it says makes the one of the other, from any snapshot to any other, of clones too, and to the head with
/// what is in memory only; and it is exact.
#[test]
fn differences_make_one_snapshot_of_another() {
    let database = Database::build(memory(64)).unwrap();
    let dataset = database.create_dataset("data").unwrap();
    let mut world_rng = SimRng::new(11);
    let rng = &mut world_rng;
    let mut snapshots = Vec::new();
    for round in 0..8_u64 {
        write_some(&dataset, rng);
        if round % 3 == 0 {
            database.settle().unwrap();
        }
        snapshots.push(dataset.create_snapshot(format!("s{round}")).unwrap());
    }
    let clone = database.clone_snapshot(&snapshots[3], "clone").unwrap();
    clone.insert(key(5), "cloned").unwrap();
    clone.range_delete(key(100)..key(300)).unwrap();
    snapshots.push(clone.create_snapshot("of the clone").unwrap());
    for from in &snapshots {
        for to in &snapshots {
            demand_exact(from.diff(to).unwrap(), from, &of_snapshot(to), &format!("{from:?} to {to:?}"));
        }
        demand_exact(dataset.changes_since(from).unwrap(), from, &of_snapshot(&snapshots[7]), "the head");
    }
    // Changes in memory, over those in a tree and alone, and what was written while they are read.
    for settled in [false, true] {
        if settled {
            database.settle().unwrap();
        }
        write_some(&dataset, rng);
        let now = contents(&dataset).unwrap();
        for from in &snapshots {
            let differences = dataset.changes_since(from).unwrap();
            dataset.insert("later", "than the differences").unwrap();
            demand_exact(differences, from, &now, "the head with what is in memory");
            dataset.delete("later").unwrap();
        }
    }
}

/// Guards diff: what no checkpoint has is in memory alone, each kind of it by itself.
#[test]
fn differences_in_memory_are_found_one_by_one() {
    let database = Database::build(memory(64)).unwrap();
    let dataset = database.create_dataset("data").unwrap();
    (0..20).for_each(|number| dataset.insert(key(number), "before").unwrap());
    let put = |number| format!("put {}", key(number).escape_ascii());
    let gone = |number| format!("gone {}", key(number).escape_ascii());
    let since = |snapshot: &Snapshot| -> Vec<String> {
        let name = |difference: betree::Result<Difference>| match difference.unwrap() {
            Difference::Put { key, .. } => format!("put {}", key.escape_ascii()),
            Difference::Delete { key } => format!("gone {}", key.escape_ascii()),
        };
        dataset.changes_since(snapshot).unwrap().map(name).collect()
    };
    let first = dataset.create_snapshot("first").unwrap();
    assert_eq!(since(&first), Vec::<String>::new());
    dataset.insert(key(3), "after").unwrap();
    assert_eq!(since(&first), [put(3)]);
    let second = dataset.create_snapshot("second").unwrap();
    dataset.delete(key(5)).unwrap();
    assert_eq!(since(&second), [gone(5)]);
    let third = dataset.create_snapshot("third").unwrap();
    dataset.range_delete(key(8)..key(11)).unwrap();
    assert_eq!(since(&third), [gone(8), gone(9), gone(10)]);
    assert_eq!(since(&first), [put(3), gone(5), gone(8), gone(9), gone(10)]);
}

/// Guards the cost of many snapshots: what is written for one more does not grow with their number, and all of them are
/// there after opening.
#[test]
fn many_snapshots_cost_what_the_first_ones_did() {
    let disk = SimDisk::new("disk", 128 << 20, &SimClock::new(1));
    let configuration = || {
        let device: Arc<dyn BlockDevice> = Arc::new(disk.device());
        small([vec![LeafVdev::from(device).into()]])
    };
    let database = Database::create_with(configuration(), false).unwrap();
    let dataset = database.create_dataset("data").unwrap();
    let used = |database: &Database| {
        let metrics = database.metrics();
        metrics.tiers.iter().map(|tier| tier.used).sum::<u64>()
    };
    let mut grown = Vec::new();
    for round in 0..200_u64 {
        let before = used(&database);
        dataset.insert(key(round % 50), round.to_le_bytes()).unwrap();
        dataset.create_snapshot(round.to_string()).unwrap();
        grown.push(used(&database).saturating_sub(before));
    }
    let sum = |part: &[u64]| part.iter().sum::<u64>();
    let (early, late) = (sum(&grown[20..80]), sum(&grown[140..]));
    assert!(late < early * 2, "60 snapshots took {early} blocks at first and {late} later");
    drop(dataset);
    database.close().unwrap();
    let database = Database::open_with(configuration()).unwrap();
    let dataset = database.open_dataset("data").unwrap();
    let all = dataset.snapshots().unwrap();
    assert_eq!(all.len(), 200);
    for round in [0, 1, 100, 199_u64] {
        let snapshot = dataset.open_snapshot(round.to_string()).unwrap();
        assert_eq!(snapshot.get(key(round % 50)).unwrap().as_deref(), Some(&round.to_le_bytes()[..]));
    }
    for round in (0..200).filter(|round| round % 50 != 0) {
        dataset.delete_snapshot(round.to_string()).unwrap();
    }
    database.verify().unwrap();
    let kept = dataset.open_snapshot("100").unwrap();
    assert_eq!(kept.get(key(0)).unwrap().as_deref(), Some(&100_u64.to_le_bytes()[..]));
}

/// Guards readers: what was opened reads what it read, whoever else lets go of it later.
#[test]
fn what_is_open_is_read_after_it_was_deleted_rolled_back_or_destroyed() {
    let database = Database::build(memory(8)).unwrap();
    let dataset = database.create_dataset("data").unwrap();
    let mut rng = SimRng::new(3);
    let mut fill = |dataset: &Dataset| {
        for number in 0..300 {
            let length = if number % 50 == 0 { 18_000 } else { 250 };
            dataset.insert(key(number), random_value(&mut rng, length)).unwrap();
        }
    };
    fill(&dataset);
    let snapshot = dataset.create_snapshot("s").unwrap();
    let first = of_snapshot(&snapshot);
    let clone = database.clone_snapshot(&snapshot, "clone").unwrap();
    let of_clone = clone.view();
    fill(&dataset);
    let before = (dataset.view(), contents(&dataset).unwrap());
    dataset.rollback("s", false).unwrap();
    drop(clone);
    database.destroy_dataset("clone").unwrap();
    dataset.delete_snapshot("s").unwrap();
    // The head is the only one to have it now, and lets go of it.
    for _ in 0..3 {
        fill(&dataset);
        database.settle().unwrap();
        (0..3).for_each(|_| database.checkpoint().unwrap());
    }
    let mut rng = SimRng::new(4);
    let full = |number| dataset.insert(key(number), random_value(&mut rng, 3000)).err();
    assert_eq!((1000..).find_map(full).unwrap().kind(), ErrorKind::OutOfSpace);
    assert!(of_snapshot(&snapshot) == first, "the snapshot changed");
    assert!(crate::pools::seen(&of_clone).unwrap() == first, "the view of the clone changed");
    assert!(crate::pools::seen(&before.0).unwrap() == before.1, "the view from before the rollback changed");
    // With the readers, what they kept goes.
    let free = || database.metrics().tiers.iter().map(|tier| tier.free).sum::<u64>();
    drop((snapshot, of_clone, before));
    dataset.range_delete::<&[u8]>(..).unwrap();
    for _ in 0..4 {
        database.settle().unwrap();
        database.checkpoint().unwrap();
    }
    let total: u64 = database.metrics().tiers.iter().map(|tier| tier.total).sum();
    assert!(free() * 10 > total * 8, "{} of {total} blocks are free", free());
    database.verify().unwrap();
}

/// Guards each kind of reader by itself: where there are several, what one keeps covers for the others.
#[test]
fn a_reader_keeps_what_it_reads_without_others() {
    for reader in [
        "a view of what a deleted snapshot alone still had",
        "a deleted snapshot",
        "a deleted snapshot of what the head has",
        "a view from before a rollback",
        "a snapshot that a rollback passed over",
        "a view of a clone that was destroyed",
        "a snapshot that moved to a clone that was promoted, and was deleted there",
        "a snapshot of a dataset that was destroyed",
    ] {
        let database = Database::build(memory(8)).unwrap();
        let (dataset, other) =
            (database.create_dataset("data").unwrap(), database.create_dataset("other").unwrap());
        let mut rng = SimRng::new(5);
        let mut fill = |dataset: &Dataset, numbers: std::ops::Range<u64>| {
            for number in numbers {
                let length = if number % 50 == 0 { 18_000 } else { 250 };
                dataset.insert(key(number), random_value(&mut rng, length)).unwrap();
            }
            database.settle().unwrap();
            (0..3).for_each(|_| database.checkpoint().unwrap());
        };
        fill(&dataset, 0..300);
        let first = contents(&dataset).unwrap();
        let snapshot = dataset.create_snapshot("s").unwrap();
        let mut filled = &dataset;
        let (mut open, mut view, mut wanted) = (None, None, first);
        match reader {
            "a view of what a deleted snapshot alone still had" => {
                view = Some(dataset.view());
                drop(snapshot);
                fill(&dataset, 0..300);
                dataset.delete_snapshot("s").unwrap();
            }
            "a deleted snapshot" => {
                fill(&dataset, 0..300);
                dataset.delete_snapshot("s").unwrap();
                open = Some(snapshot);
            }
            "a deleted snapshot of what the head has" => {
                dataset.delete_snapshot("s").unwrap();
                open = Some(snapshot);
            }
            "a view from before a rollback" => {
                drop(snapshot);
                fill(&dataset, 150..300);
                wanted = contents(&dataset).unwrap();
                view = Some(dataset.view());
                dataset.rollback("s", false).unwrap();
                dataset.delete_snapshot("s").unwrap();
            }
            "a snapshot that a rollback passed over" => {
                drop(snapshot);
                fill(&dataset, 150..300);
                wanted = contents(&dataset).unwrap();
                open = Some(dataset.create_snapshot("t").unwrap());
                dataset.rollback("s", true).unwrap();
                dataset.delete_snapshot("s").unwrap();
            }
            "a view of a clone that was destroyed" => {
                let clone = database.clone_snapshot(&snapshot, "clone").unwrap();
                view = Some(clone.view());
                drop((snapshot, clone));
                database.destroy_dataset("clone").unwrap();
                dataset.delete_snapshot("s").unwrap();
            }
            "a snapshot that moved to a clone that was promoted, and was deleted there" => {
                let clone = database.clone_snapshot(&snapshot, "clone").unwrap();
                clone.promote().unwrap();
                database.destroy_dataset("data").unwrap();
                fill(&clone, 0..300);
                clone.delete_snapshot("s").unwrap();
                filled = &other;
                drop(clone);
                open = Some(snapshot);
            }
            _ => {
                database.destroy_dataset("data").unwrap();
                open = Some(snapshot);
                filled = &other;
            }
        }
        (0..3).for_each(|_| fill(filled, 0..300));
        let full = |number| filled.insert(key(number), random_value(&mut rng, 3000)).err();
        assert_eq!((1000..).find_map(full).unwrap().kind(), ErrorKind::OutOfSpace);
        if let Some(snapshot) = &open {
            assert!(of_snapshot(snapshot) == wanted, "{reader} changed");
        }
        if let Some(view) = &view {
            assert!(crate::pools::seen(view).unwrap() == wanted, "{reader} changed");
        }
    }
}

/// Guards names: none is given twice, by renaming or by promoting, and what is refused changes nothing.
#[test]
fn a_name_that_is_taken_is_not_taken_again() {
    let database = Database::build(memory(64)).unwrap();
    let dataset = database.create_dataset("data").unwrap();
    let states: Vec<Contents> = ["a", "b"]
        .into_iter()
        .map(|name| {
            dataset.insert("key", name).unwrap();
            dataset.create_snapshot(name).unwrap();
            contents(&dataset).unwrap()
        })
        .collect();
    let read = |dataset: &Dataset, name: &str| of_snapshot(&dataset.open_snapshot(name).unwrap());
    for (from, to) in [("a", "b"), ("b", "a")] {
        let error = dataset.rename_snapshot(from, to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(read(&dataset, "a") == states[0] && read(&dataset, "b") == states[1], "{from} to {to}");
    }
    dataset.rename_snapshot("a", "a").unwrap();
    let clone = database.clone_snapshot(&dataset.open_snapshot("b").unwrap(), "clone").unwrap();
    clone.insert("key", "of the clone").unwrap();
    clone.create_snapshot("a").unwrap();
    assert_eq!(clone.promote().unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(read(&clone, "a") == contents(&clone).unwrap() && read(&dataset, "a") == states[0]);
    clone.rename_snapshot("a", "c").unwrap();
    clone.promote().unwrap();
    assert!(read(&clone, "a") == states[0] && read(&clone, "b") == states[1]);
    assert!(read(&clone, "c") == contents(&clone).unwrap());
    assert!(dataset.snapshots().unwrap().is_empty());
    database.verify().unwrap();
}

/// Guards the check: a clone and what it came of, destroyed one after the other, are gone with one checkpoint.
#[test]
fn a_clone_and_its_origin_may_go_together() {
    let folder = Folder::new();
    let configuration = folder.one(32);
    let database = Database::build(configuration.clone()).unwrap();
    let dataset = database.create_dataset("data").unwrap();
    dataset.insert("key", vec![1; 20_000]).unwrap();
    let clone = database.clone_snapshot(&dataset.create_snapshot("s").unwrap(), "clone").unwrap();
    clone.insert("other", vec![2; 20_000]).unwrap();
    drop((dataset, clone));
    database.checkpoint().unwrap();
    database.destroy_dataset("clone").unwrap();
    database.destroy_dataset("data").unwrap();
    database.close().unwrap();
    demand_clean(&configuration, "right after closing");
}

/// Guards handles: a snapshot that moved when a clone was promoted is the same one, under the name of its new dataset.
#[test]
fn a_handle_follows_its_snapshot_to_a_clone_that_is_promoted() {
    let database = Database::build(memory(64)).unwrap();
    let dataset = database.create_dataset("data").unwrap();
    dataset.insert("key", "value").unwrap();
    let snapshot = dataset.create_snapshot("s").unwrap();
    let clone = database.clone_snapshot(&snapshot, "clone").unwrap();
    let later = clone.create_snapshot("later").unwrap();
    let second = database.clone_snapshot(&later, "second").unwrap();
    assert_eq!((snapshot.dataset_name(), later.dataset_name()), (b"data".to_vec(), b"clone".to_vec()));
    clone.promote().unwrap();
    assert_eq!(snapshot.dataset_name(), b"clone");
    second.promote().unwrap();
    assert_eq!((snapshot.dataset_name(), later.dataset_name()), (b"second".to_vec(), b"second".to_vec()));
    drop((dataset, clone));
    database.destroy_dataset("data").unwrap();
    database.destroy_dataset("clone").unwrap();
    for (number, snapshot) in [snapshot, later].iter().enumerate() {
        let third = database.clone_snapshot(snapshot, format!("third{number}")).unwrap();
        assert_eq!(third.get("key").unwrap().as_deref(), Some(&b"value"[..]));
    }
    database.verify().unwrap();
}

/// Guards the cut: snapshots of two datasets at one instant, beside a writer whose batches go to both.
#[test]
fn snapshots_are_taken_beside_writers() {
    let configuration = DatabaseConfiguration { background_threads: Some(2), ..memory(64) };
    let database = Database::build(configuration).unwrap();
    let (a, b) = (database.create_dataset("a").unwrap(), database.create_dataset("b").unwrap());
    let done = std::sync::atomic::AtomicBool::new(false);
    let returned = std::sync::atomic::AtomicU64::new(0);
    let order = std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1.. {
                let value = u64::to_le_bytes(number);
                let batch = database.batch().insert(&a, key(number % 500), value);
                batch
                    .insert(&b, key(number % 500), value)
                    .insert(&a, "newest", value)
                    .commit(betree::Durability::Buffered)
                    .unwrap();
                returned.store(number, order);
                if done.load(order) && number > 2000 {
                    break;
                }
            }
        });
        for round in 0..12 {
            let least = returned.load(order);
            let taken = database.create_snapshot(&[&a, &b], round.to_string()).unwrap();
            let mut of_a = of_snapshot(&taken[0]);
            let newest = of_a.iter().position(|(key, _)| key == b"newest").map(|at| of_a.remove(at).1);
            assert!(of_a == of_snapshot(&taken[1]), "half of a batch in round {round}");
            let newest = newest.map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()));
            assert!(newest >= least, "write {least} had returned, and the snapshot ends at {newest}");
        }
        done.store(true, order);
    });
    for round in (0..12).rev() {
        a.delete_snapshot(round.to_string()).unwrap();
        b.delete_snapshot(round.to_string()).unwrap();
    }
    database.settle().unwrap();
    database.verify().unwrap();
}

/// Guards taking back: a deletion whose checkpoint finds no room, whichever write that is, leaves the snapshot, and no space
/// that nobody has.
#[test]
fn a_deletion_that_finds_no_room_is_taken_back_whole() {
    let mut refused = 0;
    for nth in 1.. {
        let disk = SimDisk::new("disk", 32 << 20, &SimClock::new(1));
        let device: Arc<dyn BlockDevice> = Arc::new(disk.device());
        let configuration = small([vec![LeafVdev::from(device).into()]]);
        let database = Database::create_with(configuration, false).unwrap();
        let dataset = database.create_dataset("data").unwrap();
        let mut rng = SimRng::new(9);
        let mut fill = |numbers: std::ops::Range<u64>| {
            for number in numbers {
                dataset.insert(key(number), random_value(&mut rng, 17_000)).unwrap();
            }
            database.settle().unwrap();
            database.checkpoint().unwrap();
        };
        // Two lists, each short enough for a record, and both together too long for one.
        fill(0..80);
        dataset.create_snapshot("first").unwrap();
        fill(0..40);
        let second = dataset.create_snapshot("second").unwrap();
        let of_second = of_snapshot(&second);
        drop(second);
        fill(40..80);
        disk.arm(Fault::OutOfSpace { nth });
        let deleted = dataset.delete_snapshot("second");
        disk.clear_faults();
        let Err(error) = deleted else { break };
        assert_eq!(error.kind(), ErrorKind::OutOfSpace, "write {nth}: {error}");
        // What befalls the log or a superblock ends the writing.
        if database.checkpoint().is_err() {
            continue;
        }
        refused += 1;
        database.verify().unwrap_or_else(|error| panic!("write {nth}: {error}"));
        assert!(of_snapshot(&dataset.open_snapshot("second").unwrap()) == of_second, "write {nth}");
        dataset.delete_snapshot("second").unwrap();
        database.verify().unwrap_or_else(|error| panic!("write {nth}, deleted: {error}"));
    }
    assert!(refused > 1, "no deletion was refused by anything but the log");
}

/// Guards promoting: what was dropped between two of the snapshots that move, and is looked through later, is given back by
/// those who have them.
#[test]
fn what_was_dropped_before_promoting_is_given_back() {
    let folder = Folder::new();
    let configuration = folder.one(32);
    let database = Database::build(configuration.clone()).unwrap();
    let empty = database.verify().unwrap().blocks;
    let dataset = database.create_dataset("data").unwrap();
    let mut rng = SimRng::new(5);
    let mut fill = |from: u64| {
        (from..from + 20)
            .for_each(|number| dataset.insert(key(number), random_value(&mut rng, 20_000)).unwrap());
        database.settle().unwrap();
        database.checkpoint().unwrap();
    };
    fill(0);
    let first = dataset.create_snapshot("first").unwrap();
    let of_first = of_snapshot(&first);
    fill(20);
    dataset.range_delete::<&[u8]>(..).unwrap();
    // Its checkpoint drops everything whole.
    let second = dataset.create_snapshot("second").unwrap();
    assert!(of_snapshot(&second).is_empty());
    let clone = database.clone_snapshot(&second, "clone").unwrap();
    clone.promote().unwrap();
    drop((first, second));
    for _ in 0..3 {
        database.settle().unwrap();
        database.checkpoint().unwrap();
    }
    database.verify().unwrap();
    assert!(of_snapshot(&clone.open_snapshot("first").unwrap()) == of_first, "the snapshot changed");
    drop((clone, dataset));
    database.close().unwrap();
    demand_clean(&configuration, "promoted");
    let database = Database::build(configuration.clone()).unwrap();
    database.destroy_dataset("data").unwrap();
    database.destroy_dataset("clone").unwrap();
    for _ in 0..4 {
        database.settle().unwrap();
        database.checkpoint().unwrap();
    }
    let left = database.verify().unwrap().blocks;
    assert!(left <= empty + 16, "{left} blocks are left of an empty database of {empty}");
    database.close().unwrap();
    demand_clean(&configuration, "destroyed");
}
