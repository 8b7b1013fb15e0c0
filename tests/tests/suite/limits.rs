//! Sizes at their limits and one byte beyond; ranges with every kind of bound.

use crate::pools::{Contents, Folder, contents, settle};
use betree::{
    BATCH_BYTES_MAX, Database, Dataset, DefaultMessageAction, Durability, Entries, ErrorKind, KEY_BYTES_MAX,
    MESSAGE_BYTES_MAX, VALUE_BYTES_MAX,
};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Demands that `result` is refused as too large, naming `what` and the limit.
#[track_caller]
fn too_large(result: betree::Result<()>, what: &str, limit: u64) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    let text = error.to_string();
    assert!(text.starts_with(what) && text.contains(&format!("limit of {limit} bytes")), "{text}");
}

/// Guards keys and values at both ends of what is allowed, through log, tree and reopening.
#[test]
fn keys_and_values_of_every_legal_size_are_kept() {
    let folder = Folder::new();
    let mut db = Database::build(folder.one(256)).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    let mut expected = BTreeMap::new();
    for key_length in [0, 1, 4096, KEY_BYTES_MAX - 1, KEY_BYTES_MAX] {
        for value_length in [0, 1, (16 << 10) - 1, 16 << 10, (16 << 10) + 1, 70_000] {
            let key = [&[value_length as u8][..], &vec![0xff; key_length]].concat();
            let key = if key_length == 0 { Vec::new() } else { key[..key_length].to_vec() };
            let value = vec![key_length as u8 ^ 0x5a; value_length];
            dataset.insert(&key, &value).unwrap();
            expected.insert(key, value);
        }
    }
    for value_length in [VALUE_BYTES_MAX - 1, VALUE_BYTES_MAX] {
        let (key, value) = (format!("large {value_length}").into_bytes(), vec![9; value_length]);
        db.batch().insert(&dataset, &key, &value).commit(Durability::Sync).unwrap();
        expected.insert(key, value);
    }
    let expected: Contents = expected.into_iter().collect();
    assert!(contents(&dataset).unwrap() == expected);
    drop(dataset);
    for _ in 0..2 {
        settle(&db);
        db.close().unwrap();
        db = Database::build(folder.one(256)).unwrap();
        let dataset = db.open_dataset("d").unwrap();
        assert!(contents(&dataset).unwrap() == expected);
        for (key, value) in &expected {
            assert!(dataset.get(key).unwrap().unwrap() == *value);
        }
    }
    // The longest keys are deleted one by one and by range, and stay deleted.
    let dataset = db.open_dataset("d").unwrap();
    let last = expected.iter().rev().find(|(key, _)| key.len() == KEY_BYTES_MAX).unwrap().0.clone();
    dataset.delete(&last).unwrap();
    dataset.range_delete(..=expected[expected.len() / 2].0.as_slice()).unwrap();
    let longest = vec![0xff; KEY_BYTES_MAX];
    dataset.insert(&longest, "end").unwrap();
    dataset.range_delete(longest.as_slice()..=longest.as_slice()).unwrap();
    let mut left = expected[expected.len() / 2 + 1..].to_vec();
    left.retain(|(key, _)| *key != last);
    assert!(contents(&dataset).unwrap() == left);
    settle(&db);
    assert!(contents(&dataset).unwrap() == left);
}

/// Guards the promise that what is too large is refused with nothing changed, by an error that names the limit.
#[test]
fn one_byte_more_is_refused_and_changes_nothing() {
    let folder = Folder::new();
    let db = Database::build(folder.one(64)).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    dataset.insert("k", "v").unwrap();
    let before = contents(&dataset).unwrap();
    let key = vec![0; KEY_BYTES_MAX + 1];
    let value = vec![0; VALUE_BYTES_MAX + 1];
    let message = DefaultMessageAction::insert_msg(&vec![0; MESSAGE_BYTES_MAX]);
    let limit = KEY_BYTES_MAX as u64;
    let commit = |batch: betree::Batch| batch.insert(&dataset, "l", "w").commit(Durability::Buffered);
    for result in [
        dataset.insert(&key, ""),
        dataset.delete(&key),
        dataset.upsert(&key, "", 0),
        dataset.insert_msg(&key, [0]),
        commit(db.batch().insert(&dataset, &key, "")),
        commit(db.batch().delete(&dataset, &key)),
        commit(db.batch().upsert(&dataset, &key, "", 0)),
        commit(db.batch().insert_msg(&dataset, &key, [0])),
    ] {
        too_large(result, "key of 65537 bytes", limit);
    }
    let limit = VALUE_BYTES_MAX as u64;
    let end = VALUE_BYTES_MAX as u32;
    for result in [
        dataset.insert("k", &value),
        dataset.upsert("k", "x", end),
        dataset.upsert("k", "", end + 1),
        dataset.upsert("k", "x", u32::MAX),
        commit(db.batch().insert(&dataset, "k", &value)),
        commit(db.batch().upsert(&dataset, "k", "x", end)),
    ] {
        too_large(result, "value of ", limit);
    }
    let limit = MESSAGE_BYTES_MAX as u64;
    for result in [
        dataset.insert_msg("k", &message),
        dataset.upsert("k", vec![0; MESSAGE_BYTES_MAX + 1], 0),
        commit(db.batch().insert_msg(&dataset, "k", &message)),
        commit(db.batch().upsert(&dataset, "k", vec![0; MESSAGE_BYTES_MAX + 1], 0)),
    ] {
        too_large(result, "message of ", limit);
    }
    // A key that is too long to exist has no value, and bounds that are too long are still places between keys.
    assert_eq!(dataset.get(&key).unwrap(), None);
    let long = vec![b'k'; KEY_BYTES_MAX + 2];
    assert_eq!(dataset.range(..long.as_slice()).count(), 1);
    assert_eq!(dataset.range(long.as_slice()..).count(), 0);
    assert_eq!(dataset.range(key.as_slice()..=long.as_slice()).count(), 1);
    assert_eq!(dataset.prefix(&long).count(), 0);
    assert_eq!(contents(&dataset).unwrap(), before);
    db.verify().unwrap();
}

/// Guards the upserts at the edges of their limits: they are applied, not lost, wherever they are in the tree.
#[test]
fn upserts_reach_to_the_end_of_the_largest_value() {
    let folder = Folder::new();
    let db = Database::build(folder.one(256)).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    let end = VALUE_BYTES_MAX as u32;
    dataset.upsert("far", "x", end - 1).unwrap();
    dataset.upsert("empty", "", 0).unwrap();
    dataset.upsert("gap", "", 5).unwrap();
    dataset.upsert("wide", vec![1; MESSAGE_BYTES_MAX], 3).unwrap();
    dataset.insert_msg("message", DefaultMessageAction::insert_msg(&vec![2; MESSAGE_BYTES_MAX - 4])).unwrap();
    for _ in 0..2 {
        let far = dataset.get("far").unwrap().unwrap();
        assert!(far.len() == VALUE_BYTES_MAX && far.ends_with(b"\0x"));
        assert_eq!(dataset.get("empty").unwrap().unwrap(), "");
        assert_eq!(dataset.get("gap").unwrap().unwrap(), [0; 5]);
        let wide = dataset.get("wide").unwrap().unwrap();
        assert!(
            wide.len() == MESSAGE_BYTES_MAX + 3 && wide.starts_with(&[0, 0, 0, 1]) && wide.ends_with(&[1])
        );
        assert!(*dataset.get("message").unwrap().unwrap() == vec![2; MESSAGE_BYTES_MAX - 4]);
        settle(&db);
    }
}

/// Guards batches that are too large for one record.
#[test]
fn a_batch_over_its_limit_is_refused() {
    let folder = Folder::new();
    let db = Database::build(folder.one(1024)).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    let value = vec![3; VALUE_BYTES_MAX];
    let count = BATCH_BYTES_MAX as usize / VALUE_BYTES_MAX;
    // Keys of one byte: that many values of the largest size are more than the limit.
    let mut batch = db.batch();
    for number in 0..count {
        batch = batch.insert(&dataset, [number as u8], &value);
    }
    too_large(batch.commit(Durability::Buffered), "batch of ", BATCH_BYTES_MAX);
    assert_eq!(contents(&dataset).unwrap(), Contents::new());
    let mut batch = db.batch();
    for number in 0..count - 1 {
        batch = batch.insert(&dataset, [number as u8], &value);
    }
    batch.commit(Durability::Sync).unwrap();
    assert_eq!(dataset.range::<&[u8]>(..).count(), count - 1);
}

/// Guards names: any bytes up to the limit, never empty, never longer.
#[test]
fn names_of_datasets_have_limits() {
    let folder = Folder::new();
    let mut db = Database::build(folder.one(64)).unwrap();
    let (longest, longer) = (vec![0xff; 1024], vec![0xff; 1025]);
    let names: [&[u8]; 6] = [&longest, b"\0", b"/", b"..", b"a\nb\x1b[31m", "Zürich".as_bytes()];
    for name in names {
        db.create_dataset(name).unwrap().insert("k", name).unwrap();
    }
    for name in [&longer[..], b""] {
        let kind = if name.is_empty() { ErrorKind::InvalidArgument } else { ErrorKind::TooLarge };
        for result in [
            db.create_dataset(name).map(drop),
            db.open_or_create_dataset(name).map(drop),
            db.rename_dataset("/", name),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().starts_with("name"), "{error}");
        }
        assert_eq!(db.open_dataset(name).unwrap_err().kind(), ErrorKind::NotFound);
    }
    for checkpoint in [false, true] {
        if checkpoint {
            db.checkpoint().unwrap();
        }
        drop(db);
        db = Database::build(folder.one(64)).unwrap();
        assert_eq!(db.datasets().unwrap().len(), names.len());
        for name in names {
            assert_eq!(db.open_dataset(name).unwrap().get("k").unwrap().unwrap(), name);
        }
    }
}

type Pair = (Bound<Vec<u8>>, Bound<Vec<u8>>);

fn is_inside((start, end): &Pair, key: &[u8]) -> bool {
    (match start {
        Bound::Included(start) => key >= start.as_slice(),
        Bound::Excluded(start) => key > start.as_slice(),
        Bound::Unbounded => true,
    }) && (match end {
        Bound::Included(end) => key <= end.as_slice(),
        Bound::Excluded(end) => key < end.as_slice(),
        Bound::Unbounded => true,
    })
}

/// Every pair of bounds on these places, those that end before they start included.
fn pairs(places: &[&[u8]]) -> Vec<Pair> {
    let bounds: Vec<Bound<Vec<u8>>> = places
        .iter()
        .flat_map(|place| [Bound::Included(place.to_vec()), Bound::Excluded(place.to_vec())])
        .chain([Bound::Unbounded])
        .collect();
    bounds.iter().flat_map(|start| bounds.iter().map(|end| (start.clone(), end.clone()))).collect()
}

/// Takes from the front where a bit of `turns` is set, else from the back; returns the keys in order.
fn walked(mut entries: Entries, turns: u64) -> Vec<Vec<u8>> {
    let (mut front, mut back) = (Vec::new(), Vec::new());
    for step in 0.. {
        let forwards = turns >> (step % 64) & 1 == 1;
        let Some(entry) = (if forwards { entries.next() } else { entries.next_back() }) else { break };
        let (key, value) = entry.unwrap();
        assert_eq!(key, *value, "the value of another key");
        if forwards { front.push(key.to_vec()) } else { back.push(key.to_vec()) }
    }
    assert!(entries.next().is_none() && entries.next_back().is_none(), "an end came back");
    back.reverse();
    front.extend(back);
    front
}

const KEYS: [&[u8]; 7] = [b"", b"a", b"a\0", b"a\0\0", b"ab", b"b", b"\xff\xff"];
const PLACES: [&[u8]; 10] =
    [b"", b"\0", b"a", b"a\0", b"a\0\x01", b"aa", b"b", b"\xff", b"\xff\xff", b"\xff\xff\xff"];

fn check_ranges(dataset: &Dataset) {
    for pair in pairs(&PLACES) {
        let expected: Vec<Vec<u8>> =
            KEYS.iter().filter(|key| is_inside(&pair, key)).map(|key| key.to_vec()).collect();
        for turns in [u64::MAX, 0, 0x5555_5555_5555_5555, 0b0110_1100] {
            assert_eq!(walked(dataset.range(pair.clone()), turns), expected, "{pair:?}, {turns:b}");
            assert_eq!(walked(dataset.view().range(pair.clone()), turns), expected, "{pair:?}");
        }
    }
    for prefix in PLACES {
        let expected: Vec<Vec<u8>> =
            KEYS.iter().filter(|key| key.starts_with(prefix)).map(|key| key.to_vec()).collect();
        assert_eq!(walked(dataset.prefix(prefix), 0b0110_1100), expected, "{prefix:?}");
    }
}

/// Guards each kind of bound in each combination, from memory, from runs and after opening again: an exclusive end is
/// exclusive, a reversed range is empty, both ends meet and neither goes on.
#[test]
fn ranges_keep_to_their_bounds() {
    let folder = Folder::new();
    let db = Database::build(folder.one(64)).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    for (index, key) in KEYS.iter().enumerate() {
        dataset.insert(key, key).unwrap();
        if index == 3 {
            // Half in runs, half in memory.
            db.checkpoint().unwrap();
        }
    }
    check_ranges(&dataset);
    settle(&db);
    check_ranges(&dataset);
    drop((db, dataset));
    let db = Database::build(folder.one(64)).unwrap();
    check_ranges(&db.open_dataset("d").unwrap());
}

/// Guards range deletes with the same bounds: exactly what a range would give is gone, now and after opening again.
#[test]
fn range_deletes_take_what_their_range_has() {
    let folder = Folder::new();
    let db = Database::build(folder.one(64)).unwrap();
    let pairs = pairs(&PLACES);
    let datasets: Vec<_> =
        (0..pairs.len()).map(|number| db.create_dataset(format!("{number:03}")).unwrap()).collect();
    for (index, (dataset, pair)) in datasets.iter().zip(&pairs).enumerate() {
        let mut batch = db.batch();
        for key in KEYS {
            batch = batch.insert(dataset, key, key);
        }
        if index % 2 == 0 {
            batch.commit(Durability::Buffered).unwrap();
            dataset.range_delete(pair.clone()).unwrap();
        } else {
            batch.range_delete(dataset, pair.clone()).commit(Durability::Buffered).unwrap();
        }
    }
    let check = |db: &Database| {
        for (number, pair) in pairs.iter().enumerate() {
            let dataset = db.open_dataset(format!("{number:03}")).unwrap();
            let left: Vec<Vec<u8>> =
                KEYS.iter().filter(|key| !is_inside(pair, key)).map(|key| key.to_vec()).collect();
            assert_eq!(walked(dataset.range::<&[u8]>(..), u64::MAX), left, "{pair:?}");
            for key in KEYS {
                assert_eq!(dataset.get(key).unwrap().is_some(), !is_inside(pair, key), "{pair:?}, {key:?}");
            }
        }
    };
    check(&db);
    settle(&db);
    check(&db);
    drop((db, datasets));
    check(&Database::build(folder.one(64)).unwrap());
}
