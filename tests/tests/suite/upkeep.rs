//! Work in the background: what it did outlives the process, what it left undone is found again, and what it holds in
//! memory can leave.

use super::pools::{Folder, contents, seen};
use betree::{Database, DatabaseConfiguration, Dataset, DatasetConfiguration};

fn key(number: u32) -> Vec<u8> {
    format!("key{:06}", number.wrapping_mul(7919) % 20_000).into_bytes()
}

fn load(dataset: &Dataset, numbers: std::ops::Range<u32>) {
    for number in numbers {
        dataset.insert(key(number), [number as u8; 60]).unwrap();
    }
}

#[test]
fn merges_without_new_messages_outlive_the_process() {
    let folder = Folder::new();
    let db = Database::build(folder.one(64)).unwrap();
    let dataset = db.open_or_create_dataset("d").unwrap();
    load(&dataset, 0..2500);
    db.settle().unwrap();
    db.checkpoint().unwrap();
    let before = dataset.stats().unwrap().delta_runs;
    // Readers that keep walking several runs have them merged.
    for round in 0..2_000_000_u32 {
        dataset.get(key(round % 2500)).unwrap();
        if round % 10_000 == 0 {
            db.settle().unwrap();
            if dataset.stats().unwrap().delta_runs < before {
                break;
            }
        }
    }
    let merged = dataset.stats().unwrap().delta_runs;
    assert!(merged < before, "{before} runs were to become fewer");
    drop(dataset);
    db.close().unwrap();
    let db = Database::open_read_only(folder.one(64)).unwrap();
    assert_eq!(db.open_dataset("d").unwrap().stats().unwrap().delta_runs, merged);
}

/// Of the reasons for a checkpoint only one is left here: headers that nothing has written.
#[test]
fn dirty_headers_start_a_checkpoint() {
    let folder = Folder::new();
    let small = DatasetConfiguration { leaf_size: 4 << 10, ..DatasetConfiguration::default() };
    let configuration = DatabaseConfiguration { default_dataset: small, ..folder.one(16) };
    let db = Database::build(configuration).unwrap();
    let dataset = db.open_or_create_dataset("d").unwrap();
    let insert = |number: u32| dataset.insert(number.wrapping_mul(7919).to_be_bytes(), [1; 60]).unwrap();
    (0..80_000).for_each(insert);
    db.settle().unwrap();
    db.checkpoint().unwrap();
    assert_eq!(db.metrics().dirty_header_bytes, 0);
    let (before, mut most, mut log) = (db.metrics().durable_generation, 0, 0);
    for number in 80_000..100_000 {
        insert(number);
        if db.metrics().durable_generation > before {
            break;
        }
        most = most.max(db.metrics().dirty_header_bytes);
        log = log.max(db.metrics().log_bytes);
    }
    assert!(db.metrics().durable_generation > before && log < 512 << 10, "{most} bytes dirty, {log} of log");
}

/// Nothing will write them any more: counted for a checkpoint, they would start one after the other.
#[test]
fn dead_headers_that_a_view_holds_wait_for_no_checkpoint() {
    let folder = Folder::new();
    let db = Database::build(folder.one(64)).unwrap();
    let dataset = db.open_or_create_dataset("d").unwrap();
    load(&dataset, 0..10_000);
    db.settle().unwrap();
    assert!(db.metrics().dirty_header_bytes > 0);
    let view = dataset.view();
    load(&dataset, 0..10_000);
    db.checkpoint().unwrap();
    assert_eq!(db.metrics().dirty_header_bytes, 0);
    assert_eq!(view.range::<&[u8]>(..).count(), 10_000);
}

#[test]
fn work_left_undone_is_found_at_the_next_opening() {
    let folder = Folder::new();
    let configuration = DatabaseConfiguration {
        // Large enough that nothing is due before the last checkpoint flushes it all at once.
        memtable_size: 1 << 20,
        default_dataset: DatasetConfiguration { deltas_per_leaf: 1, ..DatasetConfiguration::default() },
        ..folder.one(64)
    };
    let db = Database::build(configuration.clone()).unwrap();
    let dataset = db.open_or_create_dataset("d").unwrap();
    load(&dataset, 0..500);
    db.checkpoint().unwrap();
    assert!(dataset.stats().unwrap().delta_runs > 0, "the merge is due and not done");
    drop(dataset);
    db.close().unwrap();
    let db = Database::build(DatabaseConfiguration { background_threads: Some(1), ..configuration }).unwrap();
    db.settle().unwrap();
    assert_eq!(db.open_dataset("d").unwrap().stats().unwrap().delta_runs, 0);
}

#[test]
fn clean_node_headers_leave_memory_and_come_back() {
    let folder = Folder::new();
    let db = Database::build(folder.one(64)).unwrap();
    let dataset = db.open_or_create_dataset("d").unwrap();
    load(&dataset, 0..20_000);
    db.settle().unwrap();
    db.checkpoint().unwrap();
    db.drop_cache();
    assert_eq!(db.metrics().cache.bytes, 0);
    let before = db.metrics().cache.misses;
    let nodes = dataset.stats().unwrap().nodes;
    assert!(nodes > 4);
    assert_eq!(db.metrics().cache.misses - before, nodes, "each header was read anew");
    assert!(db.metrics().cache.bytes > 0, "they count for the budget");
    assert_eq!(contents(&dataset).unwrap().len(), 20_000);
    db.verify().unwrap();
}

#[test]
fn what_a_view_holds_is_not_used_again_when_headers_left_memory() {
    let folder = Folder::new();
    let db = Database::build(folder.one(16)).unwrap();
    let dataset = db.open_or_create_dataset("d").unwrap();
    load(&dataset, 0..5_000);
    db.settle().unwrap();
    db.checkpoint().unwrap();
    let view = dataset.view();
    let expected = seen(&view).unwrap();
    let mut half_way = view.range::<&[u8]>(..);
    let first: Vec<_> = half_way.by_ref().take(2_500).map(Result::unwrap).collect();
    for round in 0..4_u32 {
        db.drop_cache();
        for number in 0..5_000 {
            dataset.insert(key(number), [round as u8 ^ 0xff; 60]).unwrap();
            if number % 2000 == 0 {
                db.drop_cache();
            }
        }
        db.settle().unwrap();
        db.checkpoint().unwrap();
        assert_eq!(seen(&view).unwrap(), expected);
    }
    let rest: Vec<_> = half_way.map(Result::unwrap).collect();
    let both = first.iter().chain(&rest).map(|(key, value)| (key.to_vec(), value.to_vec()));
    assert!(both.eq(expected));
    drop(view);
    db.verify().unwrap();
}

/// Pointers are few bytes: what they make garbage of must be a reason to merge, or it would stay.
#[test]
fn large_values_that_small_messages_name_are_a_reason_to_merge() {
    let folder = Folder::new();
    let large =
        DatasetConfiguration { leaf_size: 1 << 20, deltas_per_leaf: 64, ..DatasetConfiguration::default() };
    let db = Database::build(DatabaseConfiguration { default_dataset: large, ..folder.one(256) }).unwrap();
    let dataset = db.open_or_create_dataset("d").unwrap();
    let mut named = Vec::new();
    for round in 0..24_u8 {
        dataset.insert("key", vec![round; 256 << 10]).unwrap();
        db.checkpoint().unwrap();
        db.settle().unwrap();
        named.push(dataset.stats().unwrap().large_bytes);
    }
    let (most, end) = (*named.iter().max().unwrap(), *named.last().unwrap());
    assert!(most == 4 << 20 && end < most, "{named:?}");
}
