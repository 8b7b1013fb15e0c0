//! Moving entries between tiers: where they lie afterwards, and what does not change.

use crate::pools::{Folder, settle, small, tiny_dataset};
use betree::vdev::SimRng;
use betree::{
    Database, DatabaseConfiguration, Dataset, DatasetConfiguration, ErrorKind, LeafVdev, Migrated,
    StoragePreference,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

const MIB: u64 = 1 << 20;
const NONE: StoragePreference = StoragePreference::NONE;
const FAST: StoragePreference = StoragePreference::FAST;
const SLOW: StoragePreference = StoragePreference::SLOW;

/// Bytes in use on each tier, by the newest checkpoint.
fn used(db: &Database) -> [u64; 4] {
    db.metrics().tiers.map(|tier| tier.used * 4096)
}

/// The log and nodes on tier 0, data on tier 1, and room on tier 2.
fn three(folder: &Folder, mib: [u64; 3]) -> DatabaseConfiguration {
    let (leaf_size, buffer_size) = (128 << 10, 128 << 10);
    DatabaseConfiguration {
        default_storage_class: 1,
        default_dataset: DatasetConfiguration { fanout: 16, leaf_size, buffer_size, ..tiny_dataset() },
        ..small((0..3).map(|tier| vec![folder.file(&format!("tier{tier}.img"), mib[tier])]))
    }
}

fn value(number: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (number.wrapping_mul(31) + at) as u8).collect()
}

fn key(number: u64) -> String {
    format!("{number:06}")
}

fn fill(dataset: &Dataset, count: u64, length: usize) {
    (0..count).for_each(|number| dataset.insert(key(number), value(number, length)).unwrap());
}

fn check(dataset: &Dataset, count: u64, length: usize) {
    for number in 0..count {
        assert!(dataset.get(key(number)).unwrap().unwrap() == value(number, length), "{number}");
    }
}

/// Deletes what nobody needs any more: it is free two checkpoints later.
fn forget(db: &Database) {
    settle(db);
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
}

/// Guards the promise of a migration: small and large values lie on the wanted tier after the next checkpoint and after
/// every merge that follows, others do not, and each is read as before.
#[test]
fn what_was_migrated_lies_on_its_tier_and_stays_there() {
    for (length, count) in [(300, 8_000), (40_000, 60)] {
        let folder = Folder::new();
        let mut db = Database::build(three(&folder, [64; 3])).unwrap();
        let mut dataset = db.create_dataset("d").unwrap();
        fill(&dataset, count, length);
        forget(&db);
        let before = used(&db);
        let half = count * length as u64 / 2;
        // Some of it is in memory only.
        dataset.insert(key(0), value(0, length)).unwrap();
        let moved = dataset.migrate_range(key(0)..key(count / 2), SLOW).unwrap();
        assert_eq!(moved, Migrated { entries: count / 2, bytes: half });
        check(&dataset, count, length);
        forget(&db);
        let after = used(&db);
        assert!(after[2] > before[2] + half && after[2] < before[2] + half * 5 / 4, "{before:?} → {after:?}");
        assert!(after[1] < before[1] - half * 7 / 8, "{before:?} → {after:?}");
        let again = dataset.migrate_range(key(0)..key(count / 2), SLOW).unwrap();
        assert_eq!(again, Migrated::default());
        // Neighbours, so that every leaf is merged.
        for round in 0..4 {
            for number in 0..count {
                dataset.insert(format!("{} neighbour", key(number)), value(round, 20)).unwrap();
            }
            settle(&db);
        }
        db.close().unwrap();
        drop(dataset);
        db = Database::build(three(&folder, [64; 3])).unwrap();
        dataset = db.open_dataset("d").unwrap();
        let later = used(&db);
        assert!(later[2] > before[2] + half && later[2] < before[2] + half * 5 / 4, "{after:?} → {later:?}");
        check(&dataset, count, length);
        // One by one, back to where the dataset wants it.
        for number in 0..20 {
            let moved = dataset.migrate(key(number), NONE).unwrap();
            assert_eq!(moved, Migrated { entries: 1, bytes: length as u64 });
        }
        assert_eq!(dataset.migrate("nothing", SLOW).unwrap(), Migrated::default());
        let rest = dataset.migrate_range::<&str>(.., NONE).unwrap();
        assert_eq!(rest.entries, count / 2 - 20);
        forget(&db);
        check(&dataset, count, length);
        let back = used(&db);
        assert!(back[2] < before[2] + half / 20, "{before:?} → {back:?}");
    }
}

#[test]
fn a_tier_without_devices_or_room_takes_nothing_and_nothing_changes() {
    let folder = Folder::new();
    let db = Database::build(three(&folder, [64, 64, 4])).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    fill(&dataset, 400, 40_000);
    forget(&db);
    let before = used(&db);
    for (preference, kind) in
        [(StoragePreference::SLOWEST, ErrorKind::InvalidArgument), (SLOW, ErrorKind::OutOfSpace)]
    {
        let error = dataset.migrate_range::<&str>(.., preference).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(&preference.to_string()), "{error}");
        settle(&db);
        assert_eq!(used(&db)[2], before[2]);
    }
    // What there is room for goes.
    assert_eq!(dataset.migrate_range(key(0)..key(40), SLOW).unwrap().entries, 40);
    check(&dataset, 400, 40_000);
    settle(&db);
    assert!(used(&db)[2] > before[2] + 40 * 40_000);
}

/// Guards snapshots: they keep what they refer to where it was, exactly as long as they are there.
#[test]
fn a_snapshot_keeps_the_old_place() {
    let folder = Folder::new();
    let db = Database::build(three(&folder, [64; 3])).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    fill(&dataset, 100, 40_000);
    forget(&db);
    let before = used(&db);
    let snapshot = dataset.create_snapshot("s").unwrap();
    assert_eq!(dataset.migrate_range::<&str>(.., SLOW).unwrap().entries, 100);
    forget(&db);
    let (during, bytes) = (used(&db), 100 * 40_000);
    assert!(during[1] > before[1] - MIB && during[2] > before[2] + bytes, "{before:?} → {during:?}");
    assert_eq!(dataset.changes_since(&snapshot).unwrap().count(), 0);
    db.drop_cache();
    for number in [0, 57, 99] {
        assert!(snapshot.get(key(number)).unwrap().unwrap() == value(number, 40_000));
    }
    drop(snapshot);
    dataset.delete_snapshot("s").unwrap();
    forget(&db);
    let after = used(&db);
    assert!(after[1] < before[1] - bytes * 7 / 8, "{during:?} → {after:?}");
    check(&dataset, 100, 40_000);
}

/// Guards values with patches beside them, in memory and in leaves.
#[test]
fn patches_go_along() {
    let folder = Folder::new();
    let db = Database::build(three(&folder, [64; 3])).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    let mut model: Vec<Vec<u8>> = (0..16).map(|number| value(number, 120_000)).collect();
    fill(&dataset, 16, 120_000);
    let mut rng = SimRng::new(3);
    for round in 0..160 {
        let (number, offset) = (rng.index(16), rng.below(110_000) as usize);
        let bytes = value(round, 3000);
        dataset.upsert(key(number as u64), &bytes, offset as u32).unwrap();
        model[number][offset..offset + 3000].copy_from_slice(&bytes);
        if round % 40 == 20 {
            settle(&db);
        }
        if round % 50 == 30 {
            let to = if rng.chance(1, 2) { SLOW } else { FAST };
            dataset.migrate_range(key(rng.below(8))..key(8 + rng.below(8)), to).unwrap();
        }
    }
    dataset.migrate_range::<&str>(.., SLOW).unwrap();
    for _ in 0..2 {
        for (number, value) in model.iter().enumerate() {
            assert!(dataset.get(key(number as u64)).unwrap().unwrap() == *value, "{number}");
        }
        forget(&db);
    }
    assert!(used(&db)[1] < MIB && used(&db)[2] > 16 * 120_000, "{:?}", used(&db));
}

/// Guards copies in memory: what goes to a memory tier is there and on the durable one, and reading does not need the latter.
#[test]
fn what_goes_to_memory_has_a_copy_there() {
    let folder = Folder::new();
    let tiers = [vec![LeafVdev::memory(32 * MIB).into()], vec![folder.file("durable.img", 64)]];
    let mut configuration = DatabaseConfiguration { default_storage_class: 1, ..small(tiers) };
    configuration.alloc_strategy[0] = vec![0, 1];
    let db = Database::build(configuration).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    fill(&dataset, 50, 40_000);
    settle(&db);
    assert_eq!(dataset.migrate_range::<&str>(.., StoragePreference::FASTEST).unwrap().entries, 50);
    settle(&db);
    let reads = || db.metrics().vdevs.iter().find(|vdev| vdev.tier == 1).unwrap().reads.bytes;
    db.drop_cache();
    dataset.stats().unwrap();
    let before = reads();
    check(&dataset, 50, 40_000);
    assert_eq!(reads(), before);
}

/// Guards writers, readers and workers beside a migration.
#[test]
fn entries_move_beside_writers_and_readers() {
    let folder = Folder::new();
    let configuration = DatabaseConfiguration { background_threads: Some(2), ..three(&folder, [128; 3]) };
    let db = Database::build(configuration).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    fill(&dataset, 60, 40_000);
    fill_small(&dataset);
    let done = AtomicBool::new(false);
    let model = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rng = SimRng::new(5);
            let mut model: BTreeMap<u64, Vec<u8>> = (0..60).map(|n| (n, value(n, 40_000))).collect();
            for round in 0..600u64 {
                let number = rng.below(60);
                if rng.chance(1, 4) {
                    dataset.insert(key(number), value(round, 40_000)).unwrap();
                    model.insert(number, value(round, 40_000));
                } else {
                    let offset = rng.below(39_000) as usize;
                    dataset.upsert(key(number), value(round, 500), offset as u32).unwrap();
                    model.get_mut(&number).unwrap()[offset..offset + 500].copy_from_slice(&value(round, 500));
                }
                dataset.insert(format!("s{:05}", rng.below(4_000)), value(7, 200)).unwrap();
            }
            done.store(true, Ordering::Release);
            model
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                for entry in dataset.prefix("s") {
                    assert!(*entry.unwrap().1 == *value(7, 200));
                }
            }
        });
        let mut to = [SLOW, FAST].into_iter().cycle();
        while !done.load(Ordering::Acquire) {
            dataset.migrate_range::<&str>(.., to.next().unwrap()).unwrap();
            db.checkpoint().unwrap();
        }
        writer.join().unwrap()
    });
    settle(&db);
    for (number, value) in model {
        assert!(dataset.get(key(number)).unwrap().unwrap() == value, "{number}");
    }
    assert_eq!(dataset.prefix("s").count(), 4_000);
}

fn fill_small(dataset: &Dataset) {
    (0..4_000).for_each(|number| dataset.insert(format!("s{number:05}"), value(7, 200)).unwrap());
}
