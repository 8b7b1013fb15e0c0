//! Ranges over values with extents of their own: what they return, and with how many requests.

use super::pools::{Folder, settle};
use betree::vdev::SimRng;
use betree::{Database, DatabaseConfiguration, Dataset, DatasetConfiguration, StoragePreference};
use std::collections::BTreeMap;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn blocks(database: &Database) -> Dataset {
    let configuration =
        DatasetConfiguration { large_value_size: 4096, ..database.configuration().default_dataset.clone() };
    database.create_dataset_with("blocks", &configuration).unwrap();
    database.open_dataset("blocks").unwrap()
}

fn key(number: u64) -> Vec<u8> {
    format!("key{number:05}").into_bytes()
}

fn filled(number: u64, length: usize) -> Vec<u8> {
    let mut rng = SimRng::new(number);
    (0..length.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).take(length).collect()
}

fn requests(database: &Database) -> u64 {
    database.metrics().vdevs.iter().map(|vdev| vdev.reads.requests).sum()
}

fn all(dataset: &Dataset) -> Vec<(Vec<u8>, Vec<u8>)> {
    let entries = dataset.range::<&[u8]>(..);
    entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

#[test]
fn values_that_were_written_in_order_are_read_many_at_once() {
    for threads in [0, 2] {
        let folder = Folder::new();
        let cache = DatabaseConfiguration { cache_size: 16 << 20, ..folder.one(256) };
        let database =
            Database::build(DatabaseConfiguration { background_threads: Some(threads), ..cache }).unwrap();
        let dataset = blocks(&database);
        let model: Map = (0..4000).map(|number| (key(number), filled(number, 4096))).collect();
        for (key, value) in &model {
            dataset.insert(key, value).unwrap();
        }
        settle(&database);
        database.checkpoint().unwrap();
        database.drop_cache();
        let before = requests(&database);
        assert!(all(&dataset) == model.clone().into_iter().collect::<Vec<_>>());
        let asked = requests(&database) - before;
        // Sixteen MB in requests of up to one MiB, and the blocks that name them.
        assert!((16..400).contains(&asked), "{asked} requests of {threads} threads");
    }
}

/// Values of all lengths, overwritten, patched and deleted; ranges that turn round, and that end early.
#[test]
fn ranges_of_large_values_return_what_is_there() {
    let folder = Folder::new();
    let database = Database::build(folder.one(256)).unwrap();
    let dataset = blocks(&database);
    let (mut model, mut rng) = (Map::new(), SimRng::new(5));
    for round in 0..30_u64 {
        for _ in 0..150 {
            let key = key(rng.below(600));
            match rng.below(12) {
                0 => {
                    dataset.delete(&key).unwrap();
                    model.remove(&key);
                }
                1 => {
                    let at = rng.below(2000) as usize;
                    dataset.upsert_with_pref(&key, [7; 50], at as u32, StoragePreference::NONE).unwrap();
                    let value = model.entry(key).or_default();
                    value.resize(value.len().max(at + 50), 0);
                    value[at..at + 50].fill(7);
                }
                kind => {
                    let length = [10, 4096, 4096, 5000, 9000, 30_000][kind as usize % 6];
                    let value = filled(rng.next_u64(), length);
                    dataset.insert(&key, &value).unwrap();
                    model.insert(key, value);
                }
            }
        }
        if round % 3 != 2 {
            settle(&database);
            database.checkpoint().unwrap();
            database.drop_cache();
        }
        let wanted: Vec<(Vec<u8>, Vec<u8>)> = model.clone().into_iter().collect();
        assert!(all(&dataset) == wanted, "round {round}");
        let (mut front, mut back, mut entries) = (0, wanted.len(), dataset.range::<&[u8]>(..));
        while front < back {
            let forward = rng.below(3) > 0;
            for _ in 0..rng.below(80) {
                let next = if forward { entries.next() } else { entries.next_back() };
                if front == back {
                    assert!(next.is_none());
                    break;
                }
                let (key, value) = next.unwrap().unwrap();
                let at = if forward { front } else { back - 1 };
                assert!((key.to_vec(), value.to_vec()) == wanted[at], "round {round}, {at}");
                if forward {
                    front += 1;
                } else {
                    back -= 1;
                }
            }
            if round % 5 == 4 && rng.below(8) == 0 {
                break;
            }
        }
    }
}
