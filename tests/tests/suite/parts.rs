//! Parts of values: what is read of them, from where, and with patches above.

use crate::pools::{Folder, settle, small};
use betree::vdev::SimRng;
use betree::{
    Database, DatabaseConfiguration, Dataset, DatasetView, ErrorKind, MessageAction, PartRead, Result,
    Snapshot, ValuePart,
};
use std::collections::BTreeMap;

const KIB: usize = 1 << 10;

fn value(number: u64, length: usize) -> Vec<u8> {
    let mut rng = SimRng::new(number);
    (0..length.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).take(length).collect()
}

/// Requests and bytes that `read` takes from the devices.
fn device(db: &Database, read: impl FnOnce()) -> (u64, u64) {
    let now = || {
        let reads: Vec<_> = db.metrics().vdevs.iter().map(|vdev| vdev.reads).collect();
        (
            reads.iter().map(|reads| reads.requests).sum::<u64>(),
            reads.iter().map(|reads| reads.bytes).sum::<u64>(),
        )
    };
    let before = now();
    read();
    let after = now();
    (after.0 - before.0, after.1 - before.1)
}

fn large(folder: &Folder, cache_size: usize) -> DatabaseConfiguration {
    DatabaseConfiguration { cache_size, memtable_size: 1 << 20, ..folder.one(64) }
}

/// What a read of `length` bytes from `offset` should give of `whole`.
#[track_caller]
fn check(
    read: impl Fn(u64, &mut [u8]) -> Result<Option<PartRead>>,
    whole: Option<&[u8]>,
    offset: usize,
    length: usize,
) {
    let mut buffer = vec![0xee; length];
    let found = read(offset as u64, &mut buffer).unwrap();
    let Some(whole) = whole else {
        assert_eq!(found, None);
        return;
    };
    let wanted = whole.get(offset..).unwrap_or_default();
    let wanted = &wanted[..wanted.len().min(length)];
    let expected = PartRead { filled: wanted.len(), value_length: whole.len() as u64 };
    assert_eq!(found, Some(expected), "{length} bytes from {offset}");
    assert!(buffer[..wanted.len()] == *wanted, "{length} bytes from {offset}");
}

/// Guards the cost of a small read in a large value: the pieces around it in one request, and nothing once they are hot.
#[test]
fn a_part_of_a_large_value_reads_its_pieces_alone_and_once() {
    let folder = Folder::new();
    let db = Database::build(large(&folder, 8 << 20)).unwrap();
    let dataset = db.open_or_create_dataset("a").unwrap();
    let whole = value(1, 128 * KIB);
    dataset.insert("chunk", &whole).unwrap();
    settle(&db);
    db.drop_cache();
    let read = |offset, length| check(|o, b| dataset.get_part("chunk", o, b), Some(&whole), offset, length);
    // The run and its index.
    read(0, 0);
    let of = |offset, length| device(&db, || read(offset, length));
    assert_eq!(of(20 * KIB, 4 * KIB), (1, 16 * KIB as u64));
    assert_eq!(of(16 * KIB, 16 * KIB), (0, 0));
    assert_eq!(of(62 * KIB + 7, 4 * KIB), (1, 32 * KIB as u64));
    assert_eq!(of(0, 64 * KIB), (2, 32 * KIB as u64));
    assert_eq!(of(127 * KIB, 4 * KIB), (1, 16 * KIB as u64));
    assert_eq!(of(0, 128 * KIB), (1, 32 * KIB as u64));
    assert_eq!(of(128 * KIB, 10), (0, 0));
    db.drop_cache();
    read(0, 0);
    // What is read for its own sake as a whole stays, too; what a range passes does not.
    let scan = || assert_eq!(dataset.range::<&[u8]>(..).count(), 1);
    assert_eq!(device(&db, scan), (1, 128 * KIB as u64));
    assert_eq!(device(&db, || drop(dataset.get("chunk").unwrap())), (1, 128 * KIB as u64));
    assert_eq!(device(&db, || drop(dataset.get("chunk").unwrap())), (0, 0));
    assert_eq!(device(&db, scan), (0, 0));
}

/// Guards the hot pieces against streams: of small reads in order, of large parts, of ranges.
#[test]
fn streams_leave_hot_pieces_in_the_cache() {
    let folder = Folder::new();
    let db = Database::build(large(&folder, 2 << 20)).unwrap();
    let dataset = db.open_or_create_dataset("a").unwrap();
    let whole = value(1, 128 * KIB);
    for number in 0..40 {
        dataset.insert(format!("{number:02}"), &whole).unwrap();
    }
    settle(&db);
    let mut buffer = vec![0; 128 * KIB];
    let mut read = |number: usize, offset: usize, length: usize| {
        let part = &mut buffer[..length];
        dataset.get_part(format!("{number:02}"), offset as u64, part).unwrap().unwrap();
    };
    // 1 MiB that is read again and again, out of order.
    let mut hot = || {
        for at in 0..64 {
            read(at % 8, (at * 7 % 8) * 16 * KIB + 8 * KIB, 4 * KIB);
        }
    };
    for _ in 0..4 {
        hot();
    }
    for number in 8..40 {
        for offset in (0..128 * KIB).step_by(4 * KIB) {
            let part = &mut vec![0; 4 * KIB];
            dataset.get_part(format!("{number:02}"), offset as u64, part).unwrap().unwrap();
        }
        dataset.get_part(format!("{number:02}"), 0, &mut vec![0; 128 * KIB]).unwrap().unwrap();
    }
    assert_eq!(dataset.range::<&[u8]>(..).count(), 40);
    let (requests, _) = device(&db, hot);
    assert!(requests < 8, "{requests} of 64 reads went to the device");
}

/// Guards parts below patches, wherever these are: in a memtable, in runs, in a snapshot, in a view of before.
#[test]
fn patches_apply_to_the_part_that_is_read() {
    let folder = Folder::new();
    let db = Database::build(small([vec![folder.file("pool.img", 96)]])).unwrap();
    let dataset = db.open_or_create_dataset("a").unwrap();
    let mut rng = SimRng::new(7);
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut kept: Vec<(DatasetView, BTreeMap<String, Vec<u8>>)> = Vec::new();
    let mut snapshots: Vec<(Snapshot, BTreeMap<String, Vec<u8>>)> = Vec::new();
    for round in 0..600 {
        let key = format!("{}", rng.below(4));
        match rng.below(24) {
            0 => {
                let length = [100, 5000, 16 * KIB, 50_000, 128 * KIB][rng.index(5)];
                let bytes = value(round, length);
                dataset.insert(&key, &bytes).unwrap();
                model.insert(key, bytes);
            }
            1 if rng.chance(1, 3) => {
                dataset.delete(&key).unwrap();
                model.remove(&key);
            }
            2 => settle(&db),
            3 => kept.push((dataset.view(), model.clone())),
            4 if snapshots.len() < 5 => {
                snapshots.push((dataset.create_snapshot(format!("s{round}")).unwrap(), model.clone()));
            }
            5 => db.drop_cache(),
            6..15 => {
                let length = [0, 1, 100, 4 * KIB, 20_000][rng.index(5)];
                let (offset, bytes) = (rng.below(120_000) as usize, value(round, length));
                dataset.upsert(&key, &bytes, offset as u32).unwrap();
                let whole = model.entry(key).or_default();
                whole.resize(whole.len().max(offset + length), 0);
                whole[offset..offset + length].copy_from_slice(&bytes);
            }
            _ => {
                let whole = model.get(&key).map(Vec::as_slice);
                let (offset, length) = (rng.below(140_000) as usize, rng.below(40_000) as usize);
                check(|o, b| dataset.get_part(&key, o, b), whole, offset, length);
                if let Some((view, model)) = kept.pop() {
                    let whole = model.get(&key).map(Vec::as_slice);
                    check(|o, b| view.get_part(&key, o, b), whole, offset, length);
                }
                if let Some((snapshot, model)) = snapshots.last() {
                    let whole = model.get(&key).map(Vec::as_slice);
                    check(|o, b| snapshot.get_part(&key, o, b), whole, offset, length);
                }
            }
        }
    }
    assert!(snapshots.len() == 5 && model.len() > 2);
}

/// What was written is not read: a part that patches cover needs nothing of the value below.
#[test]
fn a_part_that_was_written_is_not_read_below() {
    let folder = Folder::new();
    let db = Database::build(large(&folder, 8 << 20)).unwrap();
    let dataset = db.open_or_create_dataset("a").unwrap();
    let mut whole = value(1, 128 * KIB);
    dataset.insert("chunk", &whole).unwrap();
    settle(&db);
    db.drop_cache();
    let patch = value(2, 4 * KIB);
    dataset.upsert("chunk", &patch, 40_000).unwrap();
    whole[40_000..40_000 + 4 * KIB].copy_from_slice(&patch);
    let read = |offset, length| check(|o, b| dataset.get_part("chunk", o, b), Some(&whole), offset, length);
    read(0, 0);
    assert_eq!(device(&db, || read(40_000, 4 * KIB)), (0, 0));
    assert_eq!(device(&db, || read(39_000, 4 * KIB)), (1, 16 * KIB as u64));
}

/// Swaps the first and the last byte: what that does to a part depends on the whole.
#[derive(Default)]
struct Swap;

impl MessageAction for Swap {
    const NAME: &'static str = "test swap";

    fn apply(&self, _key: &[u8], _message: &[u8], value: &mut Option<Vec<u8>>) {
        if let Some([first, .., last]) = value.as_deref_mut() {
            std::mem::swap(first, last);
        }
    }

    fn merge(&self, _key: &[u8], _upper: &[u8], _lower: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn apply_to_part(&self, _key: &[u8], _message: &[u8], part: &mut ValuePart<'_>) -> bool {
        // Whatever happened to the part before it said no does not count.
        part.write(1, b"nonsense");
        false
    }
}

#[test]
fn an_action_that_needs_the_whole_value_gets_it() {
    let folder = Folder::new();
    let db = Database::build(large(&folder, 8 << 20)).unwrap();
    let dataset: Dataset<Swap> = db.create_custom_dataset("a", betree::StoragePreference::NONE).unwrap();
    let mut whole = value(1, 50_000);
    dataset.insert("chunk", &whole).unwrap();
    settle(&db);
    dataset.insert_msg("chunk", b"").unwrap();
    whole.swap(0, 49_999);
    for (offset, length) in [(0, 10), (49_990, 100), (20_000, 10), (60_000, 5)] {
        check(|o, b| dataset.get_part("chunk", o, b), Some(&whole), offset, length);
    }
    check(|o, b| dataset.get_part("none", o, b), None, 0, 10);
}

/// Guards against bytes that the checksum of a piece does not cover: damage is found where it is read, and only there.
#[test]
fn damage_is_found_in_the_piece_that_is_read() {
    let folder = Folder::new();
    let whole = value(1, 128 * KIB);
    {
        let db = Database::build(large(&folder, 8 << 20)).unwrap();
        db.open_or_create_dataset("a").unwrap().insert("chunk", &whole).unwrap();
        db.close().unwrap();
    }
    let path = folder.path("pool.img");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(64).position(|window| *window == whole[50_000..50_064]).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let storage = crate::pools::storage([vec![crate::pools::existing(&path)]]);
    let db = Database::build(DatabaseConfiguration { storage, ..large(&folder, 8 << 20) }).unwrap();
    let dataset = db.open_dataset("a").unwrap();
    let read = |offset, length| check(|o, b| dataset.get_part("chunk", o, b), Some(&whole), offset, length);
    read(0, 48 * KIB);
    read(64 * KIB, 64 * KIB);
    for _ in 0..2 {
        let damaged = dataset.get_part("chunk", 60_000, &mut [0; 100]);
        assert_eq!(damaged.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    assert_eq!(dataset.get("chunk").unwrap_err().kind(), ErrorKind::Corrupt);
}
