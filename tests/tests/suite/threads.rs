//! Writers, readers, checkpoints and background work of one database in threads of the operating system. What is demanded
//! here is also demanded in many orders by the tests with `shuttle` of the library; this one is for the thread sanitizer
//! (`scripts/tsan`) and for processors.

use betree::vdev::{SimClock, SimDisk};
use betree::{
    Database, DatabaseConfiguration, DatasetConfiguration, Durability, LeafVdev, StoragePoolConfiguration,
    TierConfiguration, Value,
};
use betree_tests::rig::Plug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const WRITERS: usize = 3;
const BATCHES: u64 = 400;
const VIEWS: usize = 300;

fn configuration(disk: &SimDisk) -> DatabaseConfiguration {
    let device = Plug::device(disk, &Arc::default());
    DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: vec![TierConfiguration::new(vec![LeafVdev::from(device).into()])],
            ..StoragePoolConfiguration::default()
        },
        cache_size: 1 << 20,
        memtable_size: 64 << 10,
        segment_size: 1 << 20,
        background_threads: Some(2),
        sync_interval_ms: Some(1),
        default_dataset: DatasetConfiguration {
            fanout: 4,
            leaf_size: 64 << 10,
            block_size: 4 << 10,
            buffer_size: 64 << 10,
            ..DatasetConfiguration::default()
        },
        ..DatabaseConfiguration::default()
    }
}

fn number(value: Option<Value>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes(*value.first_chunk().unwrap()))
}

fn value(number: u64, length: usize) -> Vec<u8> {
    let mut value = number.to_be_bytes().to_vec();
    value.resize(length, number as u8);
    value
}

#[test]
fn batches_views_and_checkpoints_agree_in_threads() {
    let clock = SimClock::new(1);
    let disk = SimDisk::new("a", 64 << 20, &clock);
    let db = Database::create_with(configuration(&disk), false).unwrap();
    let (left, right) = (db.create_dataset("left").unwrap(), db.create_dataset("right").unwrap());
    let synced: [AtomicU64; WRITERS] = Default::default();
    let written: [AtomicU64; WRITERS] = Default::default();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (db, left, right, written, synced) = (&db, &left, &right, &written, &synced);
            scope.spawn(move || {
                let key = format!("counter {writer}");
                for count in 1..=BATCHES {
                    let other = format!("{} of {writer}", count % 50);
                    let large = if count % 40 == 0 { 50_000 } else { 900 };
                    let batch = db
                        .batch()
                        .insert(left, &key, value(count, 100))
                        .insert(right, &key, value(count, 200))
                        .insert(right, &other, value(count, large))
                        .delete(left, format!("{} of {writer}", (count + 25) % 50));
                    let sync = count % 16 == 0;
                    batch.commit(if sync { Durability::Sync } else { Durability::Buffered }).unwrap();
                    written[writer].store(count, SeqCst);
                    if sync {
                        synced[writer].store(count, SeqCst);
                    }
                }
            });
        }
        for _ in 0..2 {
            let (db, right, written) = (&db, &right, &written);
            scope.spawn(move || {
                let mut last = [0; WRITERS];
                for round in 0..VIEWS {
                    let least = std::array::from_fn::<_, WRITERS, _>(|writer| written[writer].load(SeqCst));
                    let view = db.view();
                    let both = ["left", "right"].map(|name| view.dataset_named(name).unwrap());
                    for writer in 0..WRITERS {
                        let found = both
                            .each_ref()
                            .map(|dataset| number(dataset.get(format!("counter {writer}")).unwrap()));
                        assert_eq!(found[0], found[1], "half of a batch");
                        assert!(
                            found[0] >= least[writer].max(last[writer]),
                            "{found:?} after {least:?}, {last:?}"
                        );
                        last[writer] = found[0];
                    }
                    if round % 10 == 0 {
                        let keys: Vec<_> = right.range::<&[u8]>(..).map(|entry| entry.unwrap().0).collect();
                        assert!(keys.is_sorted());
                    }
                }
            });
        }
        scope.spawn(|| (0..8).for_each(|_| db.checkpoint().unwrap()));
    });
    db.verify().unwrap();
    let left_by_a_crash = disk.crash_image_where(u64::MAX, &SimClock::new(1), |_, _| false);
    drop((left, right, db));
    for disk in [disk, left_by_a_crash] {
        let db = Database::open_with(configuration(&disk)).unwrap();
        for (writer, synced) in synced.iter().enumerate() {
            let key = format!("counter {writer}");
            let both =
                ["left", "right"].map(|name| number(db.open_dataset(name).unwrap().get(&key).unwrap()));
            assert_eq!(both[0], both[1], "half of a batch after a crash");
            assert!(both[0] >= synced.load(SeqCst), "an acknowledged batch is gone");
        }
        db.verify().unwrap();
    }
}
