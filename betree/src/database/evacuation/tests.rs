//! Databases out of which vdevs go: given up, cut short, beside others. What a checker says of them is in its tests.

use super::testing::{Bench, Content, Place, configuration, content, is_blank, place};
use super::*;
use crate::base::extent::Extent;
use crate::base::preference::StoragePreference;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::database::scrub::ScrubState;
use crate::database::{Database, ErrorKind, ReceiveOptions, SendOptions, Snapshot};
use crate::dmu::{Privilege, Stream};
use crate::pool::{LeafVdev, MemberState, Vdev};
use crate::vdev::{BlockDevice, Fault, SimClock, SimDevice, SimDisk, SimRng, VdevError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// Who is asked to end leaves everything as it was, and nothing taken.
#[test]
fn an_evacuation_is_given_up() {
    let mut bench = Bench::new(&[(0, 0), (0, 1)], 7, 0);
    for _ in 0..20 {
        bench.change();
    }
    let (database, vdev) = (bench.database(), bench.vdev(0));
    for stop in [0, 1, 3] {
        let mut steps = 0;
        let status = database
            .evacuate(vdev, "test", |_| {
                steps += 1;
                if stop == 0 {
                    database.evacuate_stop();
                    return true;
                }
                steps < stop
            })
            .unwrap();
        assert_eq!((status.state, database.departed_vdevs()), (EvacuationState::Stopped, Vec::new()));
        bench.change();
        bench.check();
    }
    let used = database.core().dmu.used_blocks(vdev);
    for _ in 0..30 {
        bench.change();
    }
    database.checkpoint().unwrap();
    assert!(database.core().dmu.used_blocks(vdev) != used, "it takes nothing any more");
    drop(database);
    bench.reopen();
    assert_eq!(bench.database().evacuation_status().unwrap().state, EvacuationState::Stopped);
    bench.check();
}

/// What is asked to end before it began ends.
#[test]
fn an_evacuation_that_was_just_started_is_given_up() {
    let mut bench = Bench::new(&[(0, 0), (1, 0)], 15, 1);
    for _ in 0..10 {
        bench.change();
    }
    let (database, vdev) = (bench.database(), bench.vdev(0));
    database.evacuate_start(vdev, "test").unwrap();
    database.evacuate_stop();
    while database.evacuation_status().is_none_or(|status| status.ended.is_none()) {
        thread::yield_now();
    }
    assert_eq!(database.evacuation_status().unwrap().state, EvacuationState::Stopped);
    drop(database);
    bench.check();
    bench.close();
}

/// The switch may be in a checkpoint that somebody else writes, and whoever evacuates meet something else then: the vdev goes. What
/// there is no room for on the way is done the next time.
#[test]
fn a_vdev_that_left_goes_whatever_comes_then() {
    for is_full in [false, true] {
        let mut bench = Bench::new(&[(0, 0), (1, 0)], 14, 0);
        for _ in 0..20 {
            bench.change();
        }
        let (gone, stays) = (bench.places[0].clone(), bench.places[1].disks[0].clone());
        let (database, vdev) = (bench.database(), bench.vdev(0));
        let core = database.core();
        let ended = database.evacuate(vdev, "test", |_| {
            // As the thread that writes checkpoints does.
            core.dmu.want_switch();
            core.checkpoint(true).unwrap();
            if core.dmu.has_left(vdev) && is_full {
                stays.arm(Fault::OutOfSpace { nth: 1 });
            }
            !core.dmu.has_left(vdev)
        });
        // It is out of use, so that this is no failure.
        assert_eq!(ended.unwrap().state, EvacuationState::Finished);
        assert_eq!(database.evacuation_status().unwrap().state, EvacuationState::Finished);
        assert!(core.pool.present().all(|present| present.id != vdev));
        assert_eq!(gone.disks.iter().all(is_blank), !is_full);
        stays.clear_faults();
        let again = database.evacuate(vdev, "test", |_| true).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotFound);
        assert!(gone.disks.iter().all(is_blank), "labels are left");
        drop(database);
        bench.places.remove(0);
        bench.check();
        bench.reopen();
        bench.check();
    }
}

/// What is done once, by whoever writes.
type Once = Mutex<Option<Box<dyn FnOnce() + Send>>>;

/// A disk at whose next write something else happens first.
struct Detour {
    device: SimDevice,
    first: Arc<Once>,
}

impl std::fmt::Debug for Detour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.device.fmt(f)
    }
}

impl BlockDevice for Detour {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn len(&self) -> u64 {
        self.device.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
        self.device.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
        let first = self.first.lock().unwrap().take();
        if let Some(first) = first {
            first();
        }
        self.device.write_at(buf, offset)
    }

    fn flush(&self) -> Result<(), VdevError> {
        self.device.flush()
    }

    fn discard(&self, offset: u64, bytes: u64) {
        self.device.discard(offset, bytes);
    }
}

/// A merge that a reclaim makes has allocated on the vdev that is to leave, and did not yet come to its end: nothing is visited
/// before it does.
#[test]
fn merges_of_a_reclaim_are_waited_for() {
    let clock = SimClock::new(1);
    let places = vec![place(&clock, "a", 0, 0), place(&clock, "b", 1, 0)];
    let first = Arc::<Once>::default();
    let detour = Detour { device: places[0].disks[0].device(), first: Arc::clone(&first) };
    let mut configuration = configuration(&places, 0);
    configuration.storage.tiers[0].top_level_vdevs[0] =
        Vdev::Leaf(LeafVdev::from(Arc::new(detour) as Arc<dyn BlockDevice>));
    let database = Database::create_with(configuration, false).unwrap();
    let mut head = Content::new();
    let dataset = database.create_dataset("data").unwrap();
    for number in 0..200u32 {
        let value = vec![number as u8; 100];
        dataset.insert(number.to_be_bytes(), &value).unwrap();
        head.insert(number.to_be_bytes().to_vec(), value);
    }
    database.settle().unwrap();
    for number in 0..10u32 {
        dataset.delete(number.to_be_bytes()).unwrap();
        head.remove(&number.to_be_bytes()[..]);
    }
    database.checkpoint().unwrap();
    let vdev = database.core().pool.vdevs()[0].id;
    let went_on = Arc::new(Mutex::new(None));
    let (other, told) = (database.clone(), Arc::clone(&went_on));
    *first.lock().unwrap() = Some(Box::new(move || {
        let before = other.core().dmu.durable_generation();
        let evacuates = other.clone();
        let evacuation = thread::spawn(move || evacuates.evacuate(vdev, "test", |_| true));
        while other.evacuation_status().is_none() {
            thread::yield_now();
        }
        // Who does not wait has written a checkpoint long before that.
        let end = Instant::now() + Duration::from_millis(200);
        while other.core().dmu.durable_generation() == before && Instant::now() < end {
            thread::yield_now();
        }
        *told.lock().unwrap() = Some((other.core().dmu.durable_generation() != before, evacuation));
    }));
    let state = database.core().catalog.read().all()[0].clone();
    assert!(database.core().push_down(&state, &[]).unwrap());
    let (went_on, evacuation) = went_on.lock().unwrap().take().expect("nothing was merged");
    let status = evacuation.join().unwrap().unwrap();
    assert_eq!((went_on, status.state), (false, EvacuationState::Finished));
    let bench = Bench {
        clock,
        places: places[1..].to_vec(),
        database: Some(database.clone()),
        heads: BTreeMap::from([(String::from("data"), head)]),
        snapshots: BTreeMap::new(),
        random: SimRng::new(1),
    };
    drop((dataset, state, database));
    bench.check();
    let mut bench = bench;
    bench.reopen();
    bench.check();
}

/// What a scrub is about to look at of a map stays there, however often the map is written anew meanwhile.
#[test]
fn a_map_that_is_looked_at_is_not_written_over() {
    let mut bench = Bench::new(&[(0, 0), (1, 0)], 13, 0);
    for _ in 0..20 {
        bench.change();
    }
    bench.evacuate(0);
    let database = bench.database();
    let core = database.core();
    let seen = core.ground().unwrap();
    let before = core.dmu.map_extents();
    assert!(before.len() > 2);
    for name in bench.heads.keys() {
        database.destroy_dataset(name).unwrap();
    }
    for _ in 0..4 {
        database.settle().unwrap();
        database.checkpoint().unwrap();
    }
    let after = core.dmu.map_extents();
    assert!(after.iter().filter(|extent| before.contains(extent)).count() < before.len());
    // All that is free is written over.
    let take = || core.dmu.allocate(Stream::Base, StoragePreference::NONE, 1, Privilege::System).ok();
    let others: Vec<Extent> = std::iter::from_fn(take).flatten().collect();
    others.iter().for_each(|other| core.dmu.write(&[*other], 0, &[0xAA; BLOCK_BYTES]).unwrap());
    let looks = || -> usize {
        let outcomes = seen.maps.iter().map(|(task, _)| core.dmu.scrub(task, None).unwrap());
        outcomes.map(|outcome| outcome.damage.len()).sum()
    };
    assert_eq!(looks(), 0);
    // Nobody looks any more: what they were in is given back.
    let old = before.iter().filter(|extent| !after.contains(extent));
    let old: u64 = old.map(|extent| u64::from(extent.blocks)).sum();
    let free = || core.dmu.space().iter().map(|space| space.free).sum::<u64>();
    let held = free();
    drop(seen.maps);
    assert_eq!(free() - held, old);
    core.dmu.release(&others);
    drop((seen.view, seen.keeper, database));
    bench.heads.clear();
    bench.snapshots.clear();
    bench.check();
    bench.reopen();
    bench.check();
}

/// What checkpoints need to write maps anew stays free, from the first copy on.
#[test]
fn there_is_room_for_maps_to_be_written_anew() {
    let mut bench = Bench::new(&[(0, 0), (1, 0)], 16, 0);
    for _ in 0..30 {
        bench.change();
    }
    let (database, vdev) = (bench.database(), bench.vdev(0));
    let core = database.core();
    let class = core.dmu.class_of(StoragePreference::NONE);
    let kept = || {
        core.measure_memtables();
        let [all, least] = [Privilege::System, Privilege::Merge];
        core.dmu.available_blocks(class, all) - core.dmu.available_blocks(class, least)
    };
    let without = core.scale.reserve(0, 0, 0, 0).merge;
    let mut expected = 0;
    database
        .evacuate(vdev, "test", |_| {
            expected = core.dmu.map_blocks();
            assert!(kept() >= without + 3 * expected);
            true
        })
        .unwrap();
    let maps = core.dmu.map_blocks();
    assert!(maps > 2 && maps <= expected, "{maps} of {expected}");
    database.checkpoint().unwrap();
    assert!(kept() >= without + 3 * maps);
}

/// Puts a value of 100 kB; whether there was room for it.
fn fill(database: &Database, head: &mut Content) -> bool {
    let dataset = database.open_or_create_dataset("fill").unwrap();
    let (key, value) = (format!("key {:04}", head.len()).into_bytes(), vec![head.len() as u8; 100_000]);
    match dataset.insert(&key, &value) {
        Ok(()) => head.insert(key, value).is_none(),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
            false
        }
    }
}

/// Without room elsewhere nothing begins; when it runs out on the way, everything is as before.
#[test]
fn without_room_the_vdev_stays() {
    for (mib, blocks) in [(4, 1100), (6, 600)] {
        let clock = SimClock::new(1);
        let small =
            Place { disks: vec![SimDisk::new("small", mib << 20, &clock)], ..place(&clock, "b", 0, 0) };
        let places = vec![place(&clock, "a", 0, 0), small];
        let database = Database::create_with(configuration(&places, 0), false).unwrap();
        let heads = BTreeMap::new();
        let (snapshots, random) = (BTreeMap::new(), SimRng::new(3));
        let mut bench = Bench { clock, places, database: Some(database), heads, snapshots, random };
        let (database, vdev, mut head) = (bench.database(), bench.vdev(0), Content::new());
        while database.core().dmu.used_blocks(vdev) < blocks {
            assert!(fill(&database, &mut head));
            database.checkpoint().unwrap();
        }
        let mut steps = 0;
        let refused = database.evacuate(vdev, "test", |_| {
            steps += 1;
            while fill(&database, &mut head) {}
            true
        });
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::OutOfSpace);
        assert_eq!(steps > 0, mib == 6);
        assert!(fill(&database, &mut head), "what was taken for copies is not free again");
        drop(database);
        bench.heads.insert("fill".to_owned(), head);
        bench.check();
        bench.reopen();
        bench.check();
    }
}

/// What is right nowhere is named, and keeps the vdev.
#[test]
fn what_cannot_be_copied_keeps_the_vdev() {
    let mut bench = Bench::new(&[(0, 0), (1, 0)], 8, 0);
    let database = bench.database();
    database.create_dataset("data").unwrap().insert("large", vec![7; 100_000]).unwrap();
    database.checkpoint().unwrap();
    let vdev = bench.vdev(0);
    let mut large = None;
    database
        .core()
        .dmu
        .for_each_allocated(vdev, |extent| large = large.or((extent.blocks >= 25).then_some(extent)))
        .unwrap();
    let at = large.unwrap().block * BLOCK_BYTES_U64 + 40_000;
    bench.places[0].disks[0].flip_bit(at, 0);
    let refused = database.evacuate(vdev, "test", |_| true).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    let status = database.evacuation_status().unwrap();
    assert_eq!((status.state, status.findings.len()), (EvacuationState::Stopped, 1));
    assert_eq!(status.findings[0].dataset.as_deref(), Some(&b"data"[..]));
    // When that is gone it leaves.
    database.open_dataset("data").unwrap().delete("large").unwrap();
    drop(database);
    bench.database().destroy_dataset("data").unwrap();
    for _ in 0..4 {
        bench.database().checkpoint().unwrap();
    }
    bench.evacuate(0);
    bench.reopen();
}

/// What moved is looked at by scrubs, mended, and given to members that were away when it moved.
#[test]
fn scrubs_and_resilvers_see_what_moved() {
    for member in 0..2 {
        let mut bench = Bench::new(&[(0, 0), (1, 1)], 9, 0);
        for _ in 0..20 {
            bench.change();
        }
        let mirror = bench.vdev(1);
        bench.database().checkpoint().unwrap();
        // Everything that is copied is older than the absence.
        bench.database().core().pool.offline(mirror, member).unwrap();
        bench.evacuate(0);
        bench.database().core().pool.online(mirror, member).unwrap();
        let status = bench.database().resilver(|_| true).unwrap().unwrap();
        assert_eq!((status.scrub.state, status.scrub.damaged), (ScrubState::Finished, 0));
        let pool = Arc::clone(&bench.database().core().pool);
        pool.set_member(mirror, 1 - usize::from(member), MemberState::Missing);
        bench.check();
        pool.set_member(mirror, 1 - usize::from(member), MemberState::Online);
        // Now one of the copies rots, and the map with it.
        let core = Arc::clone(bench.database().core());
        let mut held = Vec::new();
        core.dmu.for_each_allocated(mirror, |extent| held.push(extent)).unwrap();
        assert!(!core.dmu.map_extents().is_empty());
        for block in held.iter().flat_map(|extent| extent.block..extent.end()) {
            bench.places[0].disks[usize::from(member)].flip_bit(block * BLOCK_BYTES_U64 + 3, 1);
        }
        let status = bench.database().scrub("test", |_| true).unwrap();
        assert_eq!((status.state, status.damaged), (ScrubState::Finished, 0));
        assert!(status.repaired_bytes > 0);
        let again = bench.database().scrub("test", |_| true).unwrap();
        assert_eq!((again.repaired_bytes, again.damaged), (0, 0));
        drop((core, pool));
        bench.close();
        bench.open();
        bench.check();
    }
}

/// Threads write, read and take snapshots while a vdev leaves.
#[test]
fn a_vdev_leaves_beside_writers() {
    let mut bench = Bench::new(&[(0, 1), (0, 0), (1, 2)], 10, 2);
    let database = bench.database();
    let dataset = database.create_dataset("data").unwrap();
    for number in 0..1500u32 {
        dataset.insert(number.to_be_bytes(), vec![number as u8; 300]).unwrap();
    }
    dataset.create_snapshot("before").unwrap();
    let vdev = bench.vdev(0);
    database.evacuate_start(vdev, "test").unwrap();
    let mut number = 0u32;
    let ended = || database.evacuation_status().is_some_and(|status| status.ended.is_some());
    while !ended() {
        let length = if number.is_multiple_of(40) { 20_000 } else { 200 };
        dataset.insert((number % 3000).to_be_bytes(), vec![number as u8; length]).unwrap();
        if number.is_multiple_of(7) {
            let read = dataset.get((number % 1500).to_be_bytes()).unwrap();
            assert!(read.is_some());
        }
        number += 1;
    }
    while bench.database().core().pool.present().any(|present| present.id == vdev) {
        std::thread::yield_now();
    }
    let was = content(dataset.open_snapshot("before").unwrap().range::<&[u8]>(..));
    assert!(was.len() == 1500 && was.iter().all(|(key, value)| value[..] == vec![key[3]; 300]));
    database.verify().unwrap();
    drop((dataset, database));
    bench.close();
    bench.places.remove(0);
    bench.open();
    bench.check();
    let was = bench.database().open_dataset("data").unwrap().open_snapshot("before").unwrap();
    assert_eq!(content(was.range::<&[u8]>(..)).len(), 1500);
}

/// Streams are made of what moved, and applied beside it.
#[test]
fn what_moved_is_sent_and_received() {
    let mut bench = Bench::new(&[(0, 0), (0, 2)], 12, 0);
    for _ in 0..20 {
        bench.change();
    }
    let database = bench.database();
    let dataset = database.open_or_create_dataset("sent").unwrap();
    let put = |from: u32, to: u32, byte: u8| {
        for number in from..to {
            let length = if number % 9 == 0 { 30_000 } else { 300 };
            dataset.insert(number.to_be_bytes(), vec![byte; length]).unwrap();
        }
    };
    put(0, 90, 1);
    let first = dataset.create_snapshot("first").unwrap();
    put(30, 120, 2);
    bench.evacuate(0);
    put(100, 140, 3);
    let second = dataset.create_snapshot("second").unwrap();
    let stream = |snapshot: &Snapshot, from: Option<&Snapshot>| {
        let mut stream = Vec::new();
        snapshot.send(from, &SendOptions::default(), &mut stream).unwrap();
        stream
    };
    let (whole, changes) = (stream(&first, None), stream(&second, Some(&first)));
    for stream in [&whole, &changes] {
        database.receive("received", &ReceiveOptions::default(), &mut &stream[..]).unwrap();
    }
    let received = database.open_dataset("received").unwrap();
    assert!(content(received.range::<&[u8]>(..)) == content(dataset.range::<&[u8]>(..)));
    let was = received.open_snapshot("first").unwrap();
    assert!(content(was.range::<&[u8]>(..)) == content(first.range::<&[u8]>(..)));
    assert_eq!(content(second.range::<&[u8]>(..)).len(), 140);
    drop((was, received, first, second, dataset, database));
    bench.check();
    bench.reopen();
}
