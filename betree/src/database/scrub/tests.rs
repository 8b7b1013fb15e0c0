//! Scrubs of whole databases: what is visited, what is mended, and what goes on meanwhile.

use super::format::{HEAD, Position};
use super::pass::{Pass, Step};
use super::tasks::{Tasks, Work};
use super::*;
use crate::base::extent::Extent;
use crate::base::ids::{Generation, VdevId};
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::database::core::Core;
use crate::database::{Database, DatabaseConfiguration, DatasetConfiguration};
use crate::pool::{LeafVdev, MemberState, StoragePoolConfiguration, TierConfiguration, Vdev};
use crate::tree::Births;
use crate::vdev::{BlockDevice, SimClock, SimDisk, SimRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

type Grouped = fn(Vec<LeafVdev>) -> Vdev;

const LAYOUTS: [(&str, Grouped, usize); 5] = [
    ("mirror of 2", Vdev::Mirror, 2),
    ("mirror of 3", Vdev::Mirror, 3),
    ("parity1 of 3", Vdev::Parity1, 3),
    ("parity1 of 5", Vdev::Parity1, 5),
    ("parity2 of 4", Vdev::Parity2, 4),
];

fn alone(mut leaves: Vec<LeafVdev>) -> Vdev {
    Vdev::Leaf(leaves.remove(0))
}

fn disks(count: usize) -> Vec<SimDisk> {
    let clock = SimClock::new(1);
    (0..count).map(|disk| SimDisk::new(&format!("disk {disk}"), 24 << 20, &clock)).collect()
}

fn configuration(disks: &[SimDisk], grouped: Grouped, threads: usize) -> DatabaseConfiguration {
    let leaf = |disk: &SimDisk| LeafVdev::from(Arc::new(disk.device()) as Arc<dyn BlockDevice>);
    DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: vec![TierConfiguration::new(vec![grouped(disks.iter().map(leaf).collect())])],
            ..StoragePoolConfiguration::default()
        },
        cache_size: 1 << 20,
        memtable_size: 8 << 10,
        segment_size: 1 << 19,
        background_threads: Some(threads),
        sync_interval_ms: None,
        default_dataset: DatasetConfiguration {
            fanout: 4,
            leaf_size: 8 << 10,
            block_size: 4 << 10,
            buffer_size: 16 << 10,
            runs_per_buffer: 4,
            deltas_per_leaf: 4,
            ..DatasetConfiguration::default()
        },
        ..DatabaseConfiguration::default()
    }
}

type Model = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A database and what is in it.
struct Bench {
    disks: Vec<SimDisk>,
    grouped: Grouped,
    database: Option<Database>,
    model: Model,
    random: SimRng,
}

impl Bench {
    fn new(grouped: Grouped, leaves: usize, seed: u64) -> Self {
        let disks = disks(leaves);
        let database = Database::create_with(configuration(&disks, grouped, 0), false).unwrap();
        Self { disks, grouped, database: Some(database), model: Model::new(), random: SimRng::new(seed) }
    }

    fn database(&self) -> Database {
        self.database.clone().unwrap()
    }

    fn core(&self) -> Arc<Core> {
        Arc::clone(self.database().core())
    }

    /// Closes the database and opens it again.
    fn reopen(&mut self) {
        self.database.take().unwrap().close().unwrap();
        let configuration = configuration(&self.disks, self.grouped, 0);
        self.database = Some(Database::open_with(configuration).unwrap());
    }

    /// The same after the power went, now.
    fn crashed(&mut self) -> Self {
        let clock = SimClock::new(self.random.next_u64());
        let disks: Vec<SimDisk> =
            self.disks.iter().map(|disk| disk.crash_image(&mut self.random, &clock)).collect();
        let database = Database::open_with(configuration(&disks, self.grouped, 0)).unwrap();
        let random = SimRng::new(self.random.next_u64());
        Self { disks, grouped: self.grouped, database: Some(database), model: self.model.clone(), random }
    }

    fn put(&mut self, dataset: &str, number: u64) {
        let length = match self.random.below(12) {
            0 => 20_000 + self.random.below(60_000),
            _ => self.random.below(400),
        };
        let mut byte = self.random.next_u64();
        let value: Vec<u8> = (0..length)
            .map(|_| {
                byte = byte.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (byte >> 56) as u8
            })
            .collect();
        let key = format!("key {number:04}").into_bytes();
        self.database().open_or_create_dataset(dataset).unwrap().insert(&key, &value).unwrap();
        self.model.entry(dataset.as_bytes().to_vec()).or_default().insert(key, value);
    }

    /// Some writes, and something rarer.
    fn change(&mut self) {
        let names = ["a", "b", "c", "d"];
        let name = names[self.random.index(names.len())];
        for _ in 0..12 {
            let number = self.random.below(250);
            self.put(name, number);
        }
        let database = self.database();
        let dataset = database.open_dataset(name).unwrap();
        let snapshots = dataset.snapshots().unwrap();
        let snapshot = match snapshots.is_empty() {
            true => None,
            false => Some(snapshots[self.random.index(snapshots.len())].name.clone()),
        };
        match (self.random.below(9), snapshot) {
            (0 | 1, _) if snapshots.len() < 6 => {
                let number = self.random.next_u64();
                dataset.create_snapshot(format!("s{number}")).unwrap();
            }
            (2, Some(snapshot)) => {
                // It may have clones.
                let _busy = dataset.delete_snapshot(snapshot);
            }
            (3, Some(snapshot)) => {
                let other = names[self.random.index(names.len())].as_bytes().to_vec();
                let snapshot = dataset.open_snapshot(snapshot).unwrap();
                if !database.datasets().unwrap().contains(&other) {
                    database.clone_snapshot(&snapshot, &other).unwrap();
                    let content = snapshot.range::<&[u8]>(..).map(|entry| entry.unwrap());
                    let content = content.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
                    self.model.insert(other, content);
                }
            }
            (4, _) => {
                let _no_clone = dataset.promote();
            }
            (5, Some(snapshot)) => {
                let content = dataset.open_snapshot(&snapshot).unwrap();
                if dataset.rollback(&snapshot, true).is_ok() {
                    let content = content.range::<&[u8]>(..).map(|entry| entry.unwrap());
                    let content = content.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
                    self.model.insert(name.as_bytes().to_vec(), content);
                }
            }
            // Snapshots of it may have clones.
            (6, _) if database.destroy_dataset(name).is_ok() => {
                self.model.remove(name.as_bytes());
            }
            (7, _) => {
                let from = format!("key {:04}", self.random.below(250));
                let to = format!("key {:04}", self.random.below(250));
                if from < to {
                    dataset.range_delete(from.as_bytes()..to.as_bytes()).unwrap();
                    let model = self.model.get_mut(name.as_bytes()).unwrap();
                    model.retain(|key, _| !(from.as_bytes()..to.as_bytes()).contains(&&key[..]));
                }
            }
            _ => {}
        }
    }

    fn check(&self) {
        self.database().drop_cache();
        for (name, content) in &self.model {
            let dataset = self.database().open_dataset(name).unwrap();
            let found = dataset.range::<&[u8]>(..).map(|entry| entry.unwrap());
            let found: BTreeMap<Vec<u8>, Vec<u8>> =
                found.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            assert!(found == *content, "{}", name.escape_ascii());
        }
    }

    /// What a walk over everything born up to `ceiling` looks at.
    fn walk(&self, ceiling: Generation) -> Vec<Extent> {
        self.walk_from(Position::default(), ceiling)
    }

    fn walk_from(&self, position: Position, ceiling: Generation) -> Vec<Extent> {
        let core = self.core();
        core.scrubs.take_seen();
        let births = Births { floor: Generation(0), ceiling };
        let mut pass = Pass::new(&core, births, Work::Look(None), position, &|| true);
        while pass.step(&[]).unwrap() == Step::More {}
        assert_eq!(pass.tasks.findings, []);
        core.scrubs.take_seen()
    }
}

/// Blocks of extents, each once.
fn blocks(extents: &[Extent]) -> BTreeSet<(VdevId, u64)> {
    let of =
        |extent: &Extent| (extent.block..extent.end()).map(|block| (extent.vdev, block)).collect::<Vec<_>>();
    let all: Vec<_> = extents.iter().flat_map(of).collect();
    let set: BTreeSet<_> = all.iter().copied().collect();
    assert_eq!(set.len(), all.len(), "something was visited twice");
    set
}

fn allocated(core: &Core) -> BTreeSet<(VdevId, u64)> {
    let mut extents = Vec::new();
    for vdev in core.dmu.persistent_vdevs() {
        core.dmu.for_each_allocated(vdev, |extent| extents.push(extent)).unwrap();
    }
    blocks(&extents)
}

#[test]
fn what_is_allocated_is_visited_once_each() {
    for seed in 0..12 {
        println!("seed {seed}");
        let (_, grouped, leaves) = LAYOUTS[seed as usize % LAYOUTS.len()];
        let grouped = if seed % 2 == 0 { alone as Grouped } else { grouped };
        let mut bench = Bench::new(grouped, if seed % 2 == 0 { 1 } else { leaves }, seed);
        for _ in 0..25 {
            bench.change();
            let generation = bench.core().checkpoint(true).unwrap();
            let visited = blocks(&bench.walk(generation));
            let allocated = allocated(&bench.core());
            assert_eq!(allocated.difference(&visited).next(), None, "seed {seed}: not visited");
            assert_eq!(visited.difference(&allocated).next(), None, "seed {seed}: not allocated");
        }
    }
}

/// While everything changes, and the database is opened anew in between, whatever of the first checkpoint is left at the end
/// was visited.
#[test]
fn what_stays_was_visited_whatever_happens_meanwhile() {
    for seed in 0..24 {
        println!("seed {seed}");
        let mut bench = Bench::new(alone, 1, 1000 + seed);
        for _ in 0..20 {
            bench.change();
        }
        let mut seen: BTreeSet<Extent> = BTreeSet::new();
        let mut rounds = 0;
        let status = loop {
            rounds += 1;
            let stop = bench.random.below(8);
            let mut steps = 0;
            let database = bench.database();
            bench.core().scrubs.take_seen();
            let status = database
                .scrub("test", |_| {
                    steps += 1;
                    bench.change();
                    steps < stop
                })
                .unwrap();
            seen.extend(bench.core().scrubs.take_seen());
            drop(database);
            if status.state == ScrubState::Finished || rounds > 400 {
                break status;
            }
            assert_eq!(status.state, ScrubState::Paused);
            if bench.random.chance(1, 4) {
                bench.reopen();
            }
        };
        assert_eq!((status.state, status.damaged, status.repaired_bytes), (ScrubState::Finished, 0, 0));
        // What belongs to no dataset is new by now.
        let position = Position { ground: true, ..Position::default() };
        let left = bench.walk_from(position, Generation(status.generation));
        let missed: Vec<&Extent> = left.iter().filter(|extent| !seen.contains(extent)).collect();
        assert!(missed.is_empty(), "seed {seed}: {missed:?}");
        bench.check();
    }
}

/// Every block of a member that holds something is wrong.
#[test]
fn a_member_of_which_all_is_wrong_is_mended() {
    for (name, grouped, leaves) in LAYOUTS {
        println!("{name}");
        let mut bench = Bench::new(grouped, leaves, 5);
        for _ in 0..30 {
            bench.change();
        }
        bench.core().free_deferred().unwrap();
        for leaf in 0..leaves {
            let generation = bench.core().checkpoint(true).unwrap();
            let columns = bench.database().core().pool.vdevs()[0].geometry().columns() as u64;
            let before = bench.disks[leaf].bytes();
            let held = blocks(&bench.walk(generation));
            let own = |(_, block): &(VdevId, u64)| block % columns == leaf as u64 % columns;
            let mut count = 0;
            for (_, block) in held.iter().filter(|block| own(block)) {
                bench.disks[leaf].flip_bit(block / columns * BLOCK_BYTES_U64 + 99, 3);
                count += 1;
            }
            bench.database().drop_cache();
            let status = bench.database().scrub("test", |_| true).unwrap();
            assert_eq!((status.state, status.damaged, status.unrepaired_bytes), (ScrubState::Finished, 0, 0));
            let repaired = status.repaired_bytes / BLOCK_BYTES_U64;
            assert!(repaired * 2 > count, "{name}: {repaired} of {count} blocks");
            // What died meanwhile does not count, and not all that a stripe takes holds something.
            let now = bench.disks[leaf].bytes();
            for (_, block) in allocated(&bench.core()).intersection(&held).filter(|_| columns == 1) {
                let at = (block / columns) as usize * BLOCK_BYTES;
                assert!(now[at..at + BLOCK_BYTES] == before[at..at + BLOCK_BYTES], "{name}: block {block}");
            }
            let again = bench.database().scrub("test", |_| true).unwrap();
            assert_eq!((again.repaired_bytes, again.damaged), (0, 0), "{name}");
        }
        bench.check();
        bench.database().verify().unwrap();
    }
}

/// Without redundancy a scrub says what is wrong, and where.
#[test]
fn what_is_wrong_is_named() {
    let mut bench = Bench::new(alone, 1, 3);
    let database = bench.database();
    database.create_dataset("data").unwrap().insert("large", vec![7; 100_000]).unwrap();
    bench.model.clear();
    let generation = bench.core().checkpoint(true).unwrap();
    let place = bench.walk(generation).into_iter().find(|extent| extent.blocks == 25).unwrap();
    bench.disks[0].flip_bit(place.block * BLOCK_BYTES_U64 + 40_000, 0);
    let before = bench.disks[0].bytes();
    let status = database.scrub("test", |_| true).unwrap();
    assert_eq!((status.state, status.damaged, status.findings.len()), (ScrubState::Finished, 1, 1));
    let finding = &status.findings[0];
    assert_eq!((finding.what, finding.dataset.as_deref()), ("large value", Some(&b"data"[..])));
    assert_eq!((&finding.low[..], finding.high.as_deref()), (&b"large"[..], Some(&b"large"[..])));
    assert_eq!((&finding.device[..], finding.block), ("disk 0", place.block));
    let at = place.block as usize * BLOCK_BYTES..place.end() as usize * BLOCK_BYTES;
    assert!(before[at.clone()] == bench.disks[0].bytes()[at]);
    assert!(finding.to_string().starts_with("large value of data, key large, disk 0 at block "));
}

#[test]
fn a_scrub_is_paused_resumed_stopped_and_remembered() {
    let mut bench = Bench::new(Vdev::Mirror, 2, 4);
    for _ in 0..20 {
        bench.change();
    }
    assert_eq!(bench.database().scrub_status(), None);
    assert!(bench.database().scrub_stop().is_err());
    let first = bench.database().scrub("me", |_| false).unwrap();
    assert_eq!((first.state, &first.by[..], first.ended), (ScrubState::Paused, "me", None));
    bench.reopen();
    let paused = bench.database().scrub_status().unwrap();
    assert_eq!((paused.state, paused.generation), (ScrubState::Paused, first.generation));
    let finished = bench.database().scrub("you", |_| true).unwrap();
    assert_eq!((finished.state, finished.generation), (ScrubState::Finished, first.generation));
    assert!(finished.bytes_done > first.bytes_done && finished.ended.is_some());
    bench.reopen();
    assert_eq!(bench.database().scrub_status().unwrap().state, ScrubState::Finished);
    let next = bench.database().scrub("me", |_| false).unwrap();
    assert!(next.generation > first.generation);
    bench.database().scrub_stop().unwrap();
    bench.reopen();
    assert_eq!(bench.database().scrub_status().unwrap().state, ScrubState::Stopped);
}

/// A member that was away gets what it missed, and the others may go.
#[test]
fn a_member_that_was_away_gets_what_it_missed() {
    for (name, grouped, leaves) in LAYOUTS {
        println!("{name}");
        for member in 0..leaves {
            let mut bench = Bench::new(grouped, leaves, 6);
            for _ in 0..15 {
                bench.change();
            }
            let core = bench.core();
            let vdev = core.pool.vdevs()[0].id;
            core.pool.set_member(vdev, member, MemberState::Missing);
            for _ in 0..15 {
                bench.change();
            }
            bench.database().sync().unwrap();
            // It comes back with what it had.
            core.pool.set_lacking(vdev, member);
            bench.change();
            let status = bench.database().resilver(|_| true).unwrap().unwrap();
            assert_eq!((status.scrub.state, status.scrub.damaged), (ScrubState::Finished, 0), "{name}");
            assert!(status.filled_bytes > 0 && core.pool.lacking().is_empty());
            let gone = if leaves == 2 || name.starts_with("parity1") { 1 } else { 2 };
            for other in 1..=gone {
                core.pool.set_member(vdev, (member + other) % leaves, MemberState::Missing);
            }
            bench.check();
            bench.database().verify().unwrap();
        }
    }
}

/// The power goes in the middle of a scrub that mends: what was synced is there, and the scrub goes on and mends the rest.
#[test]
fn a_crash_in_a_scrub_loses_nothing() {
    for (name, grouped, leaves) in LAYOUTS {
        println!("{name}");
        let mut bench = Bench::new(grouped, leaves, 21);
        for _ in 0..20 {
            bench.change();
        }
        bench.core().free_deferred().unwrap();
        let generation = bench.core().checkpoint(true).unwrap();
        let columns = u64::from(bench.core().pool.vdevs()[0].geometry().columns());
        for (_, block) in blocks(&bench.walk(generation)) {
            if block % columns == 0 {
                bench.disks[0].flip_bit(block / columns * BLOCK_BYTES_U64 + 31, 1);
            }
        }
        bench.database().drop_cache();
        bench.database().sync().unwrap();
        let (mut steps, mut found) = (0, 0);
        let database = bench.database();
        database
            .scrub("test", |_| {
                steps += 1;
                if steps % 5 == 1 && found < 6 {
                    found += 1;
                    let after = bench.crashed();
                    let status = after.database().scrub("test", |_| true).unwrap();
                    assert_eq!(
                        (status.state, status.damaged),
                        (ScrubState::Finished, 0),
                        "{name}, step {steps}"
                    );
                    let again = after.database().scrub("test", |_| true).unwrap();
                    assert_eq!((again.damaged, again.repaired_bytes), (0, 0), "{name}, step {steps}");
                    after.check();
                    after.database().verify().unwrap();
                }
                true
            })
            .unwrap();
        assert!(found > 1, "{name}");
    }
}

/// A member is taken out, misses writes, comes back, and is filled; the power goes in the middle. It is not trusted before it
/// has everything, and has everything then.
#[test]
fn a_crash_in_a_resilver_begins_it_anew() {
    for (name, grouped, leaves) in LAYOUTS {
        println!("{name}");
        let mut bench = Bench::new(grouped, leaves, 22);
        for _ in 0..12 {
            bench.change();
        }
        let vdev = bench.core().pool.vdevs()[0].id;
        bench.core().checkpoint(true).unwrap();
        bench.core().pool.offline(vdev, 0).unwrap();
        for _ in 0..12 {
            bench.change();
        }
        bench.core().pool.online(vdev, 0).unwrap();
        let lacking = bench.core().pool.lacking();
        assert!(lacking.len() == 1 && lacking[0].since.0 > 1, "{name}: {lacking:?}");
        bench.change();
        bench.database().sync().unwrap();
        let (mut steps, mut found) = (0, 0);
        let database = bench.database();
        let whole = |bench: &Bench| {
            let core = bench.core();
            assert!(core.pool.lacking().is_empty());
            core.pool.set_member(vdev, 1, MemberState::Missing);
            bench.check();
            bench.database().verify().unwrap();
        };
        let status = database
            .resilver(|_| {
                steps += 1;
                if steps % 7 == 1 && found < 4 {
                    found += 1;
                    let after = bench.crashed();
                    assert_eq!(after.core().pool.lacking().len(), 1, "{name}, step {steps}");
                    let status = after.database().resilver(|_| true).unwrap().unwrap();
                    assert_eq!((status.scrub.state, status.scrub.damaged), (ScrubState::Finished, 0));
                    whole(&after);
                }
                true
            })
            .unwrap()
            .unwrap();
        assert!(found > 0 && status.scrub.state == ScrubState::Finished, "{name}");
        assert!(status.filled_bytes < status.scrub.bytes_total * leaves as u64, "{name}");
        drop(database);
        // It is whole for good.
        bench.reopen();
        whole(&bench);
    }
}

/// With threads, a member that lacks something is filled without anybody asking for it.
#[test]
fn a_resilver_begins_by_itself() {
    let mut bench = Bench::new(Vdev::Mirror, 2, 23);
    for _ in 0..10 {
        bench.change();
    }
    let vdev = bench.core().pool.vdevs()[0].id;
    bench.core().pool.offline(vdev, 1).unwrap();
    bench.change();
    bench.core().pool.online(vdev, 1).unwrap();
    bench.database.take().unwrap().close().unwrap();
    let database = Database::open_with(configuration(&bench.disks, Vdev::Mirror, 2)).unwrap();
    while !database.core().pool.lacking().is_empty() {
        std::thread::yield_now();
    }
    database.core().pool.set_member(vdev, 0, MemberState::Missing);
    bench.database = Some(database);
    bench.check();
    bench.database().verify().unwrap();
}

/// Threads write while a scrub in the background mends a leg.
#[test]
fn a_scrub_in_the_background_beside_writers() {
    let disks = disks(2);
    let database = Database::create_with(configuration(&disks, Vdev::Mirror, 2), false).unwrap();
    let dataset = database.create_dataset("data").unwrap();
    for number in 0..2000u32 {
        dataset.insert(number.to_be_bytes(), vec![number as u8; 300]).unwrap();
    }
    database.checkpoint().unwrap();
    let held = allocated(database.core());
    for (_, block) in &held {
        disks[1].flip_bit(block * BLOCK_BYTES_U64 + 5, 0);
    }
    database.drop_cache();
    database.scrub_start("test").unwrap();
    let mut number = 0u32;
    while database.scrub_status().is_some_and(|status| status.state == ScrubState::Running) {
        dataset.insert((number % 4000).to_be_bytes(), vec![number as u8; 200]).unwrap();
        number += 1;
    }
    let status = database.scrub_status().unwrap();
    assert_eq!((status.state, status.damaged), (ScrubState::Finished, 0));
    assert!(status.repaired_bytes > 0);
    let again = database.scrub("test", |_| true).unwrap();
    assert_eq!((again.repaired_bytes, again.damaged), (0, 0));
    database.verify().unwrap();
    database.close().unwrap();
}

/// A walk that goes on inside of a slot, as after leaves were joined around its position, looks at all runs of it: which of them were seen,
/// nobody knows.
#[test]
fn runs_of_a_slot_around_the_position_are_visited() {
    let mut bench = Bench::new(alone, 1, 40);
    (0..20).for_each(|number| bench.put("a", number));
    let core = bench.core();
    let generation = core.checkpoint(true).unwrap();
    let whole = bench.walk_from(Position { ground: true, ..Position::default() }, generation);
    let dataset = core.catalog.read().all()[0].id;
    let key = b"key 0010".to_vec();
    let inside = Position { ground: true, dataset, tree: HEAD, key, ..Position::default() };
    let again = bench.walk_from(inside, generation);
    assert!(!whole.is_empty());
    assert_eq!(blocks(&whole).difference(&blocks(&again)).next(), None);
}

/// A member for which something was not to be had is not whole, until it is.
#[test]
fn who_could_not_be_given_everything_is_not_whole() {
    let mut bench = Bench::new(Vdev::Mirror, 2, 41);
    for _ in 0..10 {
        bench.change();
    }
    let core = bench.core();
    let vdev = core.pool.vdevs()[0].id;
    core.pool.set_member(vdev, 1, MemberState::Missing);
    let value: Vec<u8> = (0..50_000u32).flat_map(|at| (at ^ 0x5aa5_1234).to_le_bytes()).collect();
    bench.database().open_or_create_dataset("a").unwrap().insert(b"late", &value).unwrap();
    bench.model.entry(b"a".to_vec()).or_default().insert(b"late".to_vec(), value.clone());
    bench.database().checkpoint().unwrap();
    core.pool.set_lacking(vdev, 1);
    let bytes = bench.disks[0].bytes();
    let at = bytes.windows(64).position(|window| *window == value[8192..8256]).unwrap() as u64;
    bench.disks[0].flip_bit(at, 0);
    let status = bench.database().resilver(|_| true).unwrap().unwrap();
    assert_eq!((status.scrub.state, status.scrub.damaged), (ScrubState::Stopped, 1));
    assert_eq!(core.pool.lacking().len(), 1);
    // The device gives it again.
    bench.disks[0].flip_bit(at, 0);
    let status = bench.database().resilver(|_| true).unwrap().unwrap();
    assert_eq!((status.scrub.state, status.scrub.damaged), (ScrubState::Finished, 0));
    assert_eq!(core.pool.lacking(), []);
    core.pool.set_member(vdev, 0, MemberState::Missing);
    bench.check();
}

/// Who has read far more than it may waits, and still ends when it is asked to.
#[test]
fn who_waits_ends_when_it_is_asked_to() {
    let disks = disks(1);
    let mut slow = configuration(&disks, alone, 0);
    slow.scrub_bytes_per_second = Some(1 << 16);
    let database = Database::create_with(slow, false).unwrap();
    let asked = AtomicU64::new(0);
    let goes_on = || asked.fetch_add(1, Ordering::Relaxed) < 2;
    let mut tasks = Tasks::new(database.core(), Work::Look(None), &goes_on);
    // Half a year.
    tasks.give_way(1 << 40, Duration::ZERO);
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}
