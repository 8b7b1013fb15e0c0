//! Patches: upserts on large values, which wait beside them until folding pays.

use crate::pools::{Folder, existing, settle, small, storage, tiny_dataset};
use betree::vdev::SimRng;
use betree::{
    Database, DatabaseConfiguration, Dataset, DatasetConfiguration, DatasetView, Difference, Durability,
};
use std::collections::BTreeMap;

const KIB: usize = 1 << 10;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn value(number: u64, length: usize) -> Vec<u8> {
    let mut rng = SimRng::new(number);
    (0..length.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).take(length).collect()
}

/// Leaves that hold many patches, and are merged whenever something arrives.
fn wide(folder: &Folder, mib: u64) -> DatabaseConfiguration {
    let (leaf_size, buffer_size) = (1 << 20, 1 << 20);
    DatabaseConfiguration {
        memtable_size: 256 << 10,
        default_dataset: DatasetConfiguration {
            fanout: 16,
            leaf_size,
            buffer_size,
            deltas_per_leaf: 1,
            ..tiny_dataset()
        },
        ..small([vec![folder.file("pool.img", mib)]])
    }
}

fn patch(dataset: &Dataset, model: &mut Vec<u8>, key: &str, offset: usize, bytes: &[u8]) {
    dataset.upsert(key, bytes, offset as u32).unwrap();
    model.resize(model.len().max(offset + bytes.len()), 0);
    model[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Guards the cost of a small write in a large value: the patch, as often as it is merged, and not the value.
#[test]
fn patches_stay_beside_their_value_until_folding_pays() {
    let folder = Folder::new();
    let db = Database::build(wide(&folder, 64)).unwrap();
    let dataset = db.open_or_create_dataset("a").unwrap();
    let mut model = value(1, 128 * KIB);
    dataset.insert("chunk", &model).unwrap();
    settle(&db);
    // The same place again and again, each time down to the leaf: what is overwritten goes.
    for round in 0..8 {
        patch(&dataset, &mut model, "chunk", 40_000, &value(100 + round, 4 * KIB));
        settle(&db);
        let stats = dataset.stats().unwrap();
        assert_eq!((stats.delta_runs, stats.messages), (0, 2), "{stats:?}");
        assert!((4096..4200).contains(&stats.upsert_bytes), "{stats:?}");
    }
    // More places, up to half of the value.
    for round in 0..15 {
        patch(&dataset, &mut model, "chunk", round as usize * 8 * KIB, &value(200 + round, 4 * KIB));
        settle(&db);
        assert_eq!(dataset.stats().unwrap().messages, 2);
        assert!(dataset.get("chunk").unwrap().unwrap() == model);
    }
    assert!(dataset.stats().unwrap().upsert_bytes > 60 << 10);
    for round in 0..2 {
        patch(&dataset, &mut model, "chunk", (30 - round) * 4 * KIB, &value(300, 4 * KIB));
    }
    settle(&db);
    let stats = dataset.stats().unwrap();
    assert_eq!((stats.messages, stats.upsert_bytes, stats.large_bytes), (1, 0, 128 << 10));
    assert!(dataset.get("chunk").unwrap().unwrap() == model);
    // A large patch is half of the value at once.
    patch(&dataset, &mut model, "chunk", 10_000, &value(400, 80 * KIB));
    settle(&db);
    assert_eq!(dataset.stats().unwrap().upsert_bytes, 0);
    assert!(dataset.get("chunk").unwrap().unwrap() == model);
}

/// What was folded is as new as the newest patch, and what was not is there after opening.
#[test]
fn patches_are_there_after_opening_and_below_what_came_later() {
    let folder = Folder::new();
    let mut model = value(1, 128 * KIB);
    {
        let db = Database::build(wide(&folder, 64)).unwrap();
        let dataset = db.open_or_create_dataset("a").unwrap();
        dataset.insert("chunk", &model).unwrap();
        settle(&db);
        patch(&dataset, &mut model, "chunk", 70_000, &value(2, 4 * KIB));
        settle(&db);
        db.close().unwrap();
    }
    let storage = storage([vec![existing(&folder.path("pool.img"))]]);
    let db = Database::build(DatabaseConfiguration { storage, ..wide(&folder, 64) }).unwrap();
    let dataset = db.open_dataset("a").unwrap();
    assert!(dataset.get("chunk").unwrap().unwrap() == model && dataset.stats().unwrap().upsert_bytes > 4000);
    let snapshot = dataset.create_snapshot("s").unwrap();
    let was = model.clone();
    patch(&dataset, &mut model, "chunk", 72_000, &value(3, 4 * KIB));
    settle(&db);
    let differences: Vec<_> = dataset.changes_since(&snapshot).unwrap().map(Result::unwrap).collect();
    assert_eq!(differences.len(), 1);
    // Merged anew without anything new, it is no difference.
    let again = dataset.create_snapshot("t").unwrap();
    dataset.insert("neighbour", b"x").unwrap();
    settle(&db);
    let changed: Vec<_> = dataset.changes_since(&again).unwrap().map(Result::unwrap).collect();
    let (key, value) = (b"neighbour"[..].into(), b"x"[..].into());
    assert_eq!(changed, [Difference::Put { key, value, is_new: true }]);
    dataset.range_delete("a".."d").unwrap();
    patch(&dataset, &mut Vec::new(), "chunk", 5, b"abc");
    settle(&db);
    assert_eq!(dataset.get("chunk").unwrap().unwrap(), b"\0\0\0\0\0abc"[..]);
    assert!(snapshot.get("chunk").unwrap().unwrap() == was && again.get("chunk").unwrap().unwrap() == model);
    dataset.rollback("t", false).unwrap();
    settle(&db);
    assert!(dataset.get("chunk").unwrap().unwrap() == model);
}

fn compare(view: &DatasetView, model: &Map) {
    let entries: Vec<_> = view.range::<&[u8]>(..).map(Result::unwrap).collect();
    assert_eq!(entries.len(), model.len());
    for ((key, found), (wanted, content)) in entries.iter().zip(model) {
        assert!(**key == **wanted && **found == **content, "{}", key.escape_ascii());
    }
    let backwards: Vec<_> = view.range::<&[u8]>(..).rev().map(Result::unwrap).collect();
    assert!(backwards.iter().rev().eq(&entries));
}

/// Guards everything that meets a leaf with several messages of one key: merges, splits, snapshots, differences, range
/// deletes, batches, opening.
#[test]
fn many_patches_on_few_large_values_agree_with_a_model() {
    for seed in 0..3 {
        let mut rng = SimRng::new(seed);
        let folder = Folder::new();
        let shape = [small([vec![folder.file("pool.img", 256)]]), wide(&folder, 256)];
        let configuration = shape[(seed % 2) as usize].clone();
        let mut db = Database::build(configuration.clone()).unwrap();
        let mut dataset = db.open_or_create_dataset("a").unwrap();
        let mut model = Map::new();
        let mut views: Vec<(DatasetView, Map)> = Vec::new();
        let mut snapshots: Vec<(String, Map)> = Vec::new();
        for round in 0..500 {
            let key = format!("{:02}", rng.below(12)).into_bytes();
            match rng.below(40) {
                0..4 => {
                    let bytes = value(round, [300, 16 * KIB, 40_000, 128 * KIB][rng.index(4)]);
                    dataset.insert(&key, &bytes).unwrap();
                    model.insert(key, bytes);
                }
                4 => {
                    dataset.delete(&key).unwrap();
                    model.remove(&key);
                }
                5 => {
                    let end = [key.as_slice(), b"5"].concat();
                    dataset.range_delete(key.clone()..end.clone()).unwrap();
                    model.retain(|other, _| *other < key || *other >= end);
                }
                6 => settle(&db),
                7 => views.push((dataset.view(), model.clone())),
                8 => {
                    if let Some((view, model)) = views.pop() {
                        compare(&view, &model);
                    }
                }
                9 => {
                    let name = format!("s{round}");
                    dataset.create_snapshot(&name).unwrap();
                    snapshots.push((name, model.clone()));
                    if snapshots.len() > 4 {
                        let (name, _) = snapshots.remove(rng.index(4));
                        dataset.delete_snapshot(&name).unwrap();
                    }
                }
                10 => {
                    if let Some((name, was)) = snapshots.last() {
                        let snapshot = dataset.open_snapshot(name).unwrap();
                        let mut then = was.clone();
                        for change in dataset.changes_since(&snapshot).unwrap() {
                            match change.unwrap() {
                                Difference::Put { key, value, .. } => {
                                    drop(then.insert(key.to_vec(), value.to_vec()))
                                }
                                Difference::Delete { key } => drop(then.remove(&*key)),
                            }
                        }
                        assert!(then == model, "round {round} of seed {seed}");
                    }
                }
                11 if rng.chance(1, 2) => {
                    views.clear();
                    drop(dataset);
                    db.close().unwrap();
                    let storage = storage([vec![existing(&folder.path("pool.img"))]]);
                    db = Database::build(DatabaseConfiguration { storage, ..configuration.clone() }).unwrap();
                    dataset = db.open_dataset("a").unwrap();
                    compare(&dataset.view(), &model);
                }
                kind => {
                    let mut batch = db.batch();
                    for _ in 0..if kind < 16 { 6 } else { 1 } {
                        let length = [0, 10, 512, 4 * KIB, 4 * KIB, 20_000][rng.index(6)];
                        let end = if rng.chance(1, 20) { 160_000 } else { 120_000 };
                        let offset = rng.below(end) as usize;
                        let bytes = value(rng.next_u64(), length);
                        batch = batch.upsert(&dataset, &key, &bytes, offset as u32);
                        let whole = model.entry(key.clone()).or_default();
                        whole.resize(whole.len().max(offset + length), 0);
                        whole[offset..offset + length].copy_from_slice(&bytes);
                    }
                    batch.commit(Durability::Buffered).unwrap();
                }
            }
        }
        settle(&db);
        compare(&dataset.view(), &model);
        for (name, model) in snapshots {
            let snapshot = dataset.open_snapshot(name).unwrap();
            let all: Map = snapshot
                .range::<&[u8]>(..)
                .map(Result::unwrap)
                .map(|(k, v)| (k.to_vec(), v.to_vec()))
                .collect();
            assert!(all == model);
        }
    }
}

/// Guards a pool that is nearly full against patches that pile up: where space is short they are folded.
#[test]
fn patches_never_fill_a_pool_that_holds_their_values() {
    let folder = Folder::new();
    let mib = 24;
    let db = Database::build(wide(&folder, mib)).unwrap();
    let dataset = db.open_or_create_dataset("a").unwrap();
    let mut model: Vec<Vec<u8>> = (0..mib * 4).map(|number| value(number, 128 * KIB)).collect();
    for (number, value) in model.iter().enumerate() {
        dataset.insert(format!("{number:04}"), value).unwrap();
    }
    let mut rng = SimRng::new(1);
    // Half of the pool is values; the patches are more than all of it.
    for round in 0..mib * 400 {
        let number = rng.index(model.len());
        let (offset, bytes) = (rng.below(31) as usize * 4 * KIB, value(round, 4 * KIB));
        patch(&dataset, &mut model[number], &format!("{number:04}"), offset, &bytes);
    }
    settle(&db);
    for (number, value) in model.iter().enumerate() {
        assert!(dataset.get(format!("{number:04}")).unwrap().unwrap() == *value, "{number}");
    }
}

/// Guards space: patches of leaves in which nothing else is due are folded, too, when others want their room.
#[test]
fn patches_of_settled_leaves_give_way_to_others() {
    let folder = Folder::new();
    let mib = 24;
    let db = Database::build(wide(&folder, mib)).unwrap();
    let dataset = db.open_or_create_dataset("a").unwrap();
    let mut model: Vec<Vec<u8>> = (0..mib * 3).map(|number| value(number, 128 * KIB)).collect();
    for (number, value) in model.iter().enumerate() {
        dataset.insert(format!("{number:04}"), value).unwrap();
    }
    settle(&db);
    // Three eighths of each value.
    for place in 0..12 {
        for (number, model) in model.iter_mut().enumerate() {
            let bytes = value((place * 1000 + number) as u64, 4 * KIB);
            patch(&dataset, model, &format!("{number:04}"), place * 8 * KIB, &bytes);
        }
        settle(&db);
    }
    let before = dataset.stats().unwrap();
    assert!(before.delta_runs < 10 && before.upsert_bytes > mib * 3 * 40 * KIB as u64, "{before:?}");
    let other = db.open_or_create_dataset("other").unwrap();
    (0..).find_map(|number: u64| other.insert(number.to_be_bytes(), value(number, 8 * KIB)).err()).unwrap();
    let after = dataset.stats().unwrap();
    assert!(
        after.upsert_bytes < before.upsert_bytes / 8,
        "{} bytes of patches, {} before",
        after.upsert_bytes,
        before.upsert_bytes
    );
    for (number, value) in model.iter().enumerate() {
        assert!(dataset.get(format!("{number:04}")).unwrap().unwrap() == *value, "{number}");
    }
    db.verify().unwrap();
}
