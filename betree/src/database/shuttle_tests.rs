//! Writers, readers, checkpoints and workers of one database in many orders.

use super::{Database, DatabaseConfiguration, DatasetConfiguration, Durability, Opening};
use crate::base::compression::Compression;
use crate::base::exploration::explore;
use crate::base::preference::StoragePreference;
use crate::base::sync::thread;
use crate::pool::{Access, LeafVdev, Pool, StoragePoolConfiguration, TierConfiguration};
use crate::tree::{MessageAction, Value};
use crate::vdev::{ScheduledDevice, SimClock, SimDisk};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

fn configuration(disk: &SimDisk, threads: usize) -> DatabaseConfiguration {
    let device = LeafVdev::from(Arc::new(ScheduledDevice(Arc::new(disk.device()))) as Arc<_>);
    DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: vec![TierConfiguration::new(vec![device.into()])],
            ..StoragePoolConfiguration::default()
        },
        compression: Compression::None,
        cache_size: 1 << 20,
        memtable_size: 16 << 10,
        segment_size: 1 << 17,
        background_threads: Some(threads),
        sync_interval_ms: None,
        default_dataset: DatasetConfiguration {
            fanout: 4,
            leaf_size: 16 << 10,
            block_size: 4 << 10,
            buffer_size: 32 << 10,
            runs_per_buffer: 1,
            deltas_per_leaf: 1,
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

const WRITERS: usize = 2;
const BATCHES: u64 = 6;

#[derive(Default)]
struct Told {
    /// Newest number whose batch returned, of each writer.
    written: [AtomicU64; WRITERS],
    /// Newest number whose sync returned.
    synced: [AtomicU64; WRITERS],
}

/// Each writer counts up in two keys of two datasets, in one batch; half of the batches are synced.
fn write(db: &Database, told: &Told, writer: usize) {
    let (left, right) = (db.open_dataset("left").unwrap(), db.open_dataset("right").unwrap());
    for count in 1..=BATCHES {
        let key = format!("counter of {writer}");
        let twin = format!("twin of {writer}");
        let batch = db
            .batch()
            .insert(&left, &key, value(count, 3000))
            .insert(&left, twin, value(count, 100))
            .insert(&right, &key, value(count, 5000));
        let sync = (count + writer as u64).is_multiple_of(2);
        batch.commit(if sync { Durability::Sync } else { Durability::Buffered }).unwrap();
        told.written[writer].store(count, SeqCst);
        if sync {
            told.synced[writer].store(count, SeqCst);
        }
        assert_eq!(number(left.get(&key).unwrap()), count, "a writer does not see its own write");
    }
}

/// Views are whole: both keys of a writer are of one batch, none older than what had returned, none going back.
fn read(db: &Database, told: &Told) {
    let mut last = [0; WRITERS];
    for _ in 0..4 {
        let least = std::array::from_fn::<_, WRITERS, _>(|writer| told.written[writer].load(SeqCst));
        let view = db.view();
        let (left, right) = (view.dataset_named("left").unwrap(), view.dataset_named("right").unwrap());
        for writer in 0..WRITERS {
            let key = format!("counter of {writer}");
            let both = (number(left.get(&key).unwrap()), number(right.get(&key).unwrap()));
            assert_eq!(both.0, both.1, "half of a batch");
            assert!(both.0 >= least[writer].max(last[writer]), "{both:?} after {least:?} and {last:?}");
            assert_eq!(number(left.get(&key).unwrap()), both.0, "a view changed");
            last[writer] = both.0;
        }
        // A range of one dataset takes no lock of the commits, and is as whole.
        let dataset = db.open_dataset("left").unwrap();
        let found: BTreeMap<Vec<u8>, u64> = dataset
            .range::<&[u8]>(..)
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), number(Some(value)))).unwrap())
            .collect();
        for (writer, last) in last.iter().enumerate() {
            let [counter, twin] = ["counter", "twin"]
                .map(|name| found.get(format!("{name} of {writer}").as_bytes()).copied().unwrap_or_default());
            assert_eq!(counter, twin, "half of a batch in a range");
            assert!(counter >= *last, "a range goes back");
        }
    }
}

fn life() {
    let clock = SimClock::new(1);
    let disk = SimDisk::new("a", 2 << 20, &clock);
    let db = Arc::new(Database::create_with(configuration(&disk, 1), false).unwrap());
    db.create_dataset("left").unwrap();
    db.create_dataset("right").unwrap();
    let told = Arc::new(Told::default());
    let mut threads = Vec::new();
    for writer in 0..WRITERS {
        let (db, told) = (Arc::clone(&db), Arc::clone(&told));
        threads.push(thread::spawn(move || write(&db, &told, writer)));
    }
    let (reader, seen) = (Arc::clone(&db), Arc::clone(&told));
    threads.push(thread::spawn(move || read(&reader, &seen)));
    let checkpointer = Arc::clone(&db);
    threads.push(thread::spawn(move || (0..2).for_each(|_| checkpointer.checkpoint().unwrap())));
    threads.into_iter().for_each(|thread| thread.join().unwrap());

    // The power goes: what was not flushed is lost, all of it.
    let left = disk.crash_image_where(u64::MAX, &SimClock::new(1), |_, _| false);
    db.verify().unwrap();
    drop(db);
    let db = Database::open_with(configuration(&left, 0)).unwrap();
    for writer in 0..WRITERS {
        let key = format!("counter of {writer}");
        let both = ["left", "right"].map(|name| number(db.open_dataset(name).unwrap().get(&key).unwrap()));
        assert_eq!(both[0], both[1], "half of a batch after a crash");
        assert!(both[0] >= told.synced[writer].load(SeqCst), "an acknowledged batch is gone");
    }
    db.verify().unwrap();
}

#[test]
fn shuttle_batches_views_and_checkpoints_agree() {
    explore(600, life);
}

/// One writer and one reader, nothing else: orders in which a whole view falls into the middle of a commit.
fn visibility() {
    let clock = SimClock::new(1);
    let disk = SimDisk::new("a", 2 << 20, &clock);
    let db = Arc::new(Database::create_with(configuration(&disk, 0), false).unwrap());
    db.create_dataset("left").unwrap();
    db.create_dataset("right").unwrap();
    let told = Arc::new(Told::default());
    let (other, seen) = (Arc::clone(&db), Arc::clone(&told));
    let reader = thread::spawn(move || read(&other, &seen));
    write(&db, &told, 0);
    reader.join().unwrap();
}

#[test]
fn shuttle_a_view_is_whole_in_the_middle_of_a_commit() {
    explore(3000, visibility);
}

/// Closing beside a writer: what returned is there, what came too late is refused, and nobody hangs.
fn closing() {
    let clock = SimClock::new(1);
    let disk = SimDisk::new("a", 2 << 20, &clock);
    let db = Database::create_with(configuration(&disk, 1), false).unwrap();
    let dataset = db.create_dataset("left").unwrap();
    // What is written behind this one is left to closing, or refused by it.
    db.checkpoint().unwrap();
    let written = Arc::new(AtomicU64::new(0));
    let writer = {
        let written = Arc::clone(&written);
        thread::spawn(move || {
            for count in 1..=2 {
                if dataset.insert("counter", value(count, 5000)).is_err() {
                    return;
                }
                written.store(count, SeqCst);
            }
        })
    };
    db.close().unwrap();
    writer.join().unwrap();
    let db = Database::open_with(configuration(&disk, 0)).unwrap();
    let found = number(db.open_dataset("left").unwrap().get("counter").unwrap());
    assert_eq!(found, written.load(SeqCst), "closing lost a write, or made one up");
    db.verify().unwrap();
}

#[test]
fn shuttle_closing_keeps_what_returned() {
    explore(2000, closing);
}

/// Adds numbers, so that what is replayed twice, or left out, shows.
#[derive(Debug, Default)]
struct Sum;

impl MessageAction for Sum {
    const NAME: &'static str = "sum";

    fn apply(&self, _key: &[u8], message: &[u8], value: &mut Option<Vec<u8>>) {
        let add = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let sum = value.as_deref().map_or(0, add) + add(message);
        *value = Some(sum.to_be_bytes().to_vec());
    }

    fn merge(&self, _key: &[u8], upper: &[u8], lower: &[u8]) -> Option<Vec<u8>> {
        let mut value = Some(lower.to_vec());
        self.apply(b"", upper, &mut value);
        value
    }
}

/// What the checkpoint alone has on `disk`, or what the log adds to it: the number that was put and how often one was
/// added.
fn put_and_added(disk: &SimDisk, opening: Opening<'_>) -> (u64, u64) {
    let configuration = configuration(disk, 0);
    let (pool, report) = Pool::open(&configuration.storage, Access::ReadOnly).unwrap();
    let db = Database::open_on(configuration, pool, report, opening).unwrap();
    let put = db.open_dataset("put").unwrap().get("number").unwrap();
    let added =
        db.open_custom_dataset::<Sum>("added", StoragePreference::NONE).unwrap().get("number").unwrap();
    (number(put), number(added))
}

/// Checkpoints beside a writer whose every batch goes to two datasets, and fills a memtable. Each holds whole batches, all
/// that had returned before it began, and the log behind it goes on exactly there.
fn cutting() {
    let clock = SimClock::new(1);
    let disk = SimDisk::new("a", 2 << 20, &clock);
    let db = Arc::new(Database::create_with(configuration(&disk, 1), false).unwrap());
    let put = db.create_dataset("put").unwrap();
    let added = db.create_custom_dataset::<Sum>("added", StoragePreference::NONE).unwrap();
    db.checkpoint().unwrap();
    let written = Arc::new(AtomicU64::new(0));
    let writer = {
        let (db, written) = (Arc::clone(&db), Arc::clone(&written));
        thread::spawn(move || {
            for count in 1..=4 {
                let batch = db.batch().insert(&put, "number", value(count, 6000)).insert_msg(
                    &added,
                    "number",
                    1_u64.to_be_bytes(),
                );
                batch.commit(Durability::Buffered).unwrap();
                written.store(count, SeqCst);
            }
        })
    };
    let mut images = Vec::new();
    for _ in 0..2 {
        let least = written.load(SeqCst);
        db.checkpoint().unwrap();
        // The power goes: nothing is left that was not flushed.
        images.push((least, disk.crash_image_where(u64::MAX, &SimClock::new(1), |_, _| false)));
    }
    writer.join().unwrap();
    db.sync().unwrap();
    images.push((4, disk.crash_image_where(u64::MAX, &SimClock::new(1), |_, _| false)));
    for (least, image) in images {
        let cut = put_and_added(&image, Opening::Checkpoint);
        assert_eq!(cut.0, cut.1, "a checkpoint with a part of a batch");
        let replayed = put_and_added(&image, Opening::ReadOnly);
        assert_eq!(replayed.0, replayed.1, "a batch replayed twice, or in part");
        assert!(replayed.0 >= cut.0.max(least), "{replayed:?} after {cut:?} and {least}");
    }
}

#[test]
fn shuttle_checkpoints_cut_between_batches() {
    explore(800, cutting);
}

/// Every write fills its memtable. Readers see it before the switch, behind it, and after the flush, and no older one.
fn switching() {
    let clock = SimClock::new(1);
    let disk = SimDisk::new("a", 2 << 20, &clock);
    let db = Database::create_with(configuration(&disk, 1), false).unwrap();
    let dataset = Arc::new(db.create_dataset("left").unwrap());
    let written = Arc::new(AtomicU64::new(0));
    let (own, told) = (Arc::clone(&dataset), Arc::clone(&written));
    let writer = thread::spawn(move || {
        for count in 1..=5 {
            own.insert("number", value(count, 9000)).unwrap();
            told.store(count, SeqCst);
        }
    });
    let mut last = 0;
    while last < 5 {
        let least = written.load(SeqCst);
        let found = number(dataset.get("number").unwrap());
        assert!(found >= least.max(last), "{found} after {least} and {last}");
        let entries =
            dataset.range::<&[u8]>(..).map(|entry| entry.map(|(_, value)| number(Some(value))).unwrap());
        let ranged = entries.collect::<Vec<_>>();
        assert!(
            ranged.len() <= 1 && ranged.first().copied().unwrap_or(0) >= found,
            "{ranged:?} after {found}"
        );
        last = found;
        thread::yield_now();
    }
    writer.join().unwrap();
    db.settle().unwrap();
    assert_eq!(number(dataset.get("number").unwrap()), 5);
    db.verify().unwrap();
}

#[test]
fn shuttle_memtables_are_switched_beside_readers_and_flushes() {
    explore(1500, switching);
}
