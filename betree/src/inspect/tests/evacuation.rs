//! Vdevs leave: what the checker says of what is left, whatever happens meanwhile and wherever it ends.

use crate::base::units::BLOCK_BYTES_U64;
use crate::database::evacuation_testing::{Bench, KINDS, Place, configuration, content, is_blank};
use crate::database::{Database, Error, ErrorKind, EvacuationState};
use crate::inspect::{CheckOptions, Code, check};
use crate::pool::format::VdevState;
use crate::pool::{PoolError, SlotContent, dump_device};
use crate::vdev::{SimClock, SimDisk, SimRng};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Looks at the closed pool from outside, and opens it again.
fn reopen_checked(bench: &mut Bench) {
    bench.close();
    let options = CheckOptions { deep: true, ..CheckOptions::default() };
    let report = check(&configuration(&bench.places, 0), &options, &mut |_| ControlFlow::Continue(()));
    assert_eq!(report.unwrap().findings, []);
    bench.open();
}

/// Every kind leaves, onto every kind: contents, snapshots and accounts are as before, from inside and outside, and stay so in
/// what follows.
#[test]
fn a_vdev_leaves_and_nothing_is_lost() {
    for (from, (name, ..)) in KINDS.iter().enumerate() {
        for (to, (other, ..)) in KINDS.iter().enumerate() {
            println!("{name} to {other}");
            let seed = from as u64 + 1;
            let mut bench = Bench::new(&[(0, from), (1, to)], seed, 0);
            for _ in 0..25 {
                bench.change();
            }
            let gone = bench.places[0].clone();
            let all = bench.places.clone();
            let status = bench.evacuate(0);
            assert!(status.bytes_done > 0 && status.ended.is_some());
            bench.check();
            assert!(gone.disks.iter().all(is_blank), "labels are left");
            let departed = bench.database().departed_vdevs();
            assert!(departed.len() == 1 && departed[0].extents > 0);
            reopen_checked(&mut bench);
            assert_eq!(bench.database().departed_vdevs(), departed);
            bench.check();
            for _ in 0..10 {
                bench.change();
            }
            bench.check();
            reopen_checked(&mut bench);
            // Who is configured with it is told.
            bench.close();
            let refused = Database::open_with(configuration(&all, 0)).unwrap_err();
            assert!(matches!(refused, Error::Pool(PoolError::BlankDevice { .. })), "{refused}");
            bench.open();
            let names: Vec<String> = bench.heads.keys().cloned().collect();
            for name in names {
                bench.database().destroy_dataset(&name).unwrap();
            }
            (bench.heads, bench.snapshots) = (BTreeMap::new(), BTreeMap::new());
            for _ in 0..6 {
                bench.database().settle().unwrap();
                bench.database().checkpoint().unwrap();
            }
            // All that is left is what the root tree has not rewritten.
            let left = bench.database().departed_vdevs()[0].extents;
            assert!(left < 6, "{left} lines of the map are left");
            reopen_checked(&mut bench);
        }
    }
}

/// The walk and everything else that goes on at the same time.
#[test]
fn a_vdev_leaves_while_everything_changes() {
    for seed in 0..16 {
        println!("seed {seed}");
        let kinds = [(0, seed as usize % 4), (0, (seed as usize / 4) % 4), (1, 0)];
        let mut bench = Bench::new(&kinds, 100 + seed, 0);
        for _ in 0..20 {
            bench.change();
        }
        let view = bench.database().view();
        let (database, vdev) = (bench.database(), bench.vdev(0));
        let held = bench.heads.iter();
        let held = held.map(|(name, was)| (database.open_dataset(name).unwrap(), was.clone()));
        let held: Vec<_> = held.collect();
        let mut steps = 0;
        let status = database
            .evacuate(vdev, "test", |_| {
                steps += 1;
                if steps < 40 {
                    bench.change();
                }
                true
            })
            .unwrap();
        assert_eq!(status.state, EvacuationState::Finished);
        assert!(steps > 2);
        for (dataset, was) in &held {
            let seen = view.dataset(dataset).unwrap();
            assert!(content(seen.range::<&[u8]>(..)) == *was, "seed {seed}: a view from before");
        }
        drop((database, view, held));
        bench.places.remove(0);
        bench.check();
        reopen_checked(&mut bench);
        bench.check();
    }
}

/// One after the other, up to the last, which stays.
#[test]
fn one_vdev_after_the_other_leaves() {
    for seed in 0..4 {
        println!("seed {seed}");
        let mut random = SimRng::new(seed);
        let kinds: Vec<(usize, usize)> = (0..4).map(|_| (random.index(2), random.index(4))).collect();
        let mut bench = Bench::new(&kinds, 200 + seed, 0);
        bench.places.sort_by_key(|place| place.tier);
        for _ in 0..3 {
            for _ in 0..12 {
                bench.change();
            }
            let at = random.index(bench.places.len());
            let vdev = bench.present()[at];
            bench.database().evacuate(vdev, "test", |_| true).unwrap();
            bench.places.remove(at);
            bench.check();
            if random.chance(1, 2) {
                reopen_checked(&mut bench);
            }
        }
        let last = bench.present()[0];
        let refused = bench.database().evacuate(last, "test", |_| true).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
        for _ in 0..10 {
            bench.change();
        }
        reopen_checked(&mut bench);
        bench.check();
    }
}

/// Whether the newest checkpoint that is everywhere has one before it that is, too: on all disks of the vdevs that it names.
fn has_fallback(places: &[Place]) -> bool {
    let mut generations: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    for disk in places.iter().flat_map(|place| &place.disks) {
        for slot in dump_device(&disk.device()) {
            let SlotContent::Superblock(superblock) = slot.content else { continue };
            let entries = superblock.topology.entries.iter();
            let durable = entries.filter(|entry| entry.state == VdevState::Durable);
            let (found, whole) = generations.entry(superblock.generation.0).or_default();
            *found += 1;
            *whole = 2 * durable.map(|entry| usize::from(entry.leaf_count)).sum::<usize>();
        }
    }
    let mut newest = generations.values().rev().map(|(found, whole)| found == whole);
    newest.any(|is_whole| is_whole) && newest.next() == Some(true)
}

/// The power goes at every kind of instant of an evacuation. What was synced is there; the vdev is a member as before, or gone.
#[test]
fn a_crash_at_any_instant_is_undone_or_done() {
    for seed in 0..6u64 {
        println!("seed {seed}");
        let kinds = [(0, seed as usize % 4), (1, (seed as usize + 1) % 4)];
        let mut bench = Bench::new(&kinds, 300 + seed, 0);
        for _ in 0..15 {
            bench.change();
        }
        bench.database().sync().unwrap();
        let all = bench.places.clone();
        all.iter().flat_map(|place| &place.disks).for_each(SimDisk::keep_history);
        let start = bench.clock.operations();
        let vdev = bench.vdev(0);
        // Some writes meanwhile, each time synced: what must be there between two of them is known.
        let (database, mut steps) = (bench.database(), 0);
        let mut states = vec![(start, start, bench.heads.clone(), bench.snapshots.clone())];
        database
            .evacuate(vdev, "test", |_| {
                steps += 1;
                if steps % 2 == 0 && states.len() < 5 {
                    let begun = bench.clock.operations();
                    bench.change();
                    bench.database().sync().unwrap();
                    let synced = bench.clock.operations();
                    states.push((begun, synced, bench.heads.clone(), bench.snapshots.clone()));
                }
                true
            })
            .unwrap();
        drop(database);
        assert!(states.len() > 1, "seed {seed}: {steps} steps");
        let end = bench.clock.operations();
        let mut outcomes = BTreeSet::new();
        let mut instants: Vec<u64> = (0..40).map(|_| start + bench.random.below(end - start)).collect();
        // The end of it is where the most happens.
        instants.extend((0..50).map(|back| end - back));
        let is_between =
            |instant: &u64| states.iter().all(|(begun, synced, ..)| !(begun..synced).contains(&instant));
        for instant in instants.into_iter().filter(is_between) {
            let (.., heads, snapshots) =
                states.iter().rev().find(|(_, synced, ..)| *synced <= instant).unwrap();
            let clock = SimClock::new(instant);
            let mut after = Vec::new();
            for place in &all {
                let image = |disk: &SimDisk| disk.crash_image_at(instant, &mut bench.random, &clock);
                after.push(Place { disks: place.disks.iter().map(image).collect(), ..place.clone() });
            }
            assert!(has_fallback(&after), "seed {seed}, operation {instant} of {start}..{end}");
            let (opened, places) = match Database::open_with(configuration(&after, 0)) {
                Ok(database) => (database, after.clone()),
                // Its labels are there, zero, or half of them.
                Err(Error::Pool(
                    PoolError::Removed { .. } | PoolError::BlankDevice { .. } | PoolError::NotAPool { .. },
                )) => {
                    let left = after[1..].to_vec();
                    (Database::open_with(configuration(&left, 0)).unwrap(), left)
                }
                Err(error) => panic!("seed {seed}, operation {instant} of {start}..{end}: {error}"),
            };
            let mut recovered = Bench {
                clock,
                places,
                database: Some(opened),
                heads: heads.clone(),
                snapshots: snapshots.clone(),
                random: SimRng::new(instant),
            };
            let is_gone = !recovered.database().departed_vdevs().is_empty();
            let state = recovered.database().evacuation_status().map(|status| status.state);
            assert_ne!(state, Some(EvacuationState::Running));
            assert_eq!(is_gone, state == Some(EvacuationState::Finished), "{state:?}");
            outcomes.insert((is_gone, recovered.places.len()));
            recovered.check();
            if is_gone {
                // Whoever opened it has taken the vdev away.
                recovered.places = after[1..].to_vec();
            }
            recovered.change();
            reopen_checked(&mut recovered);
            if !is_gone {
                recovered.evacuate(0);
                reopen_checked(&mut recovered);
            }
            recovered.check();
        }
        assert!(outcomes.len() == 3, "seed {seed}: {outcomes:?}");
    }
}

/// A map that is damaged is named, and nothing is made up; so is one that lacks what is reached.
#[test]
fn a_damaged_map_is_found_from_outside() {
    let mut bench = Bench::new(&[(0, 0), (1, 0)], 11, 0);
    for _ in 0..15 {
        bench.change();
    }
    bench.evacuate(0);
    let maps = bench.map_extents();
    bench.close();
    let disk = &bench.places[0].disks[0];
    for extent in maps {
        disk.flip_bit(extent.block * BLOCK_BYTES_U64 + 30, 4);
        let options = CheckOptions::default();
        let report =
            check(&configuration(&bench.places, 0), &options, &mut |_| ControlFlow::Continue(())).unwrap();
        assert!(report.codes().contains(&Code::Moved), "{:?}", report.findings);
        assert!(report.codes().iter().all(|code| [Code::Moved, Code::Fallback].contains(code)));
        let refused = Database::open_with(configuration(&bench.places, 0)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
        disk.flip_bit(extent.block * BLOCK_BYTES_U64 + 30, 4);
    }
    bench.open();
    bench.check();
}
