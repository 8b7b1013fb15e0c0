//! A pool that is full refuses writes, keeps what it has, and takes writes again after deletes; no block leaks.

use betree::{
    AccessMode, Database, DatabaseConfiguration, ErrorKind, LeafVdev, StoragePoolConfiguration,
    TierConfiguration, Vdev,
};
use std::path::Path;

fn configuration(folder: &Path, threads: usize) -> DatabaseConfiguration {
    let pool = folder.join("pool.img");
    let mut tier = TierConfiguration::parse_zfs_like([format!("{}:16MiB", pool.display())]).unwrap();
    if let Vdev::Leaf(LeafVdev::File(file)) = &mut tier.top_level_vdevs[0] {
        file.sparse = true;
    }
    DatabaseConfiguration {
        storage: StoragePoolConfiguration { tiers: vec![tier], ..StoragePoolConfiguration::default() },
        access_mode: AccessMode::OpenOrCreate,
        segment_size: 1 << 20,
        background_threads: Some(threads),
        ..DatabaseConfiguration::default()
    }
}

fn key(number: u64) -> [u8; 8] {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

/// Deletes every key as well, one by one: their messages take more than the reserve, unless it is given back meanwhile.
fn fills_and_empties(rounds: u64, value_bytes: usize, threads: usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut db = Database::build(configuration(folder.path(), threads)).unwrap();
    db.create_dataset("data").unwrap();
    let mut least = u64::MAX;
    let mut first = 0;
    for round in 0..rounds {
        let dataset = db.open_dataset("data").unwrap();
        let mut count = 0;
        let error = loop {
            match dataset.insert(key(count), vec![count as u8; value_bytes]) {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
        assert!(error.to_string().contains("FASTEST"), "{error}");
        for number in 0..count {
            let value = dataset.get(key(number)).unwrap().unwrap();
            assert!(value == vec![number as u8; value_bytes], "round {round}, key {number}");
        }
        db.sync().unwrap();
        db.checkpoint().unwrap();
        db.verify().unwrap();
        drop(dataset);
        db.close().unwrap();
        db = Database::build(configuration(folder.path(), threads)).unwrap();
        let dataset = db.open_dataset("data").unwrap();
        match round % 3 {
            0 => dataset.range_delete::<&[u8]>(..).unwrap(),
            1 => {
                for number in 0..count {
                    if let Err(error) = dataset.delete(key(number)) {
                        panic!("round {round}: delete {number} of {count}: {error}");
                    }
                }
            }
            _ => {
                db.destroy_dataset("data").unwrap();
                db.create_dataset("data").unwrap();
            }
        }
        let dataset = db.open_dataset("data").unwrap();
        assert_eq!(dataset.range::<&[u8]>(..).count(), 0);
        if round == 0 {
            first = count;
        }
        least = least.min(count);
    }
    assert!(least * 10 >= first * 9, "the pool held {first} entries at first and {least} later");
}

#[test]
fn a_full_pool_of_small_values_is_emptied_and_filled_again() {
    fills_and_empties(3, 100, 0);
}

#[test]
fn a_full_pool_of_small_values_is_emptied_and_filled_again_with_threads() {
    fills_and_empties(4, 400, 2);
}

#[test]
fn a_full_pool_of_values_of_a_few_blocks_is_emptied_and_filled_twenty_times_with_threads() {
    fills_and_empties(20, 12_000, 2);
}

#[test]
fn a_full_pool_of_large_values_is_emptied_and_filled_twenty_times() {
    fills_and_empties(20, 60_000, 0);
}

#[test]
fn overwriting_one_key_with_large_values_never_fills_the_pool() {
    let folder = tempfile::tempdir().unwrap();
    let db = Database::build(configuration(folder.path(), 0)).unwrap();
    let dataset = db.create_dataset("data").unwrap();
    for round in 0..200u8 {
        dataset.insert("key", vec![round; 1 << 20]).unwrap();
    }
    assert!(dataset.get("key").unwrap().unwrap() == vec![199; 1 << 20]);
    db.verify().unwrap();
}
