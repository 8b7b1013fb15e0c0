//! Pools of files that lose one of them, and get it back.

use crate::pools::{Contents, Folder, contents, small};
use betree::inspect::{CheckOptions, check};
use betree::{Database, DatabaseConfiguration, LeafVdev, Vdev};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A pool of one vdev of files that can be put away.
struct Pool {
    configuration: DatabaseConfiguration,
    paths: Vec<PathBuf>,
}

impl Pool {
    fn new(folder: &Folder, kind: fn(Vec<LeafVdev>) -> Vdev, files: usize) -> Self {
        let leaf = |number: usize| folder.file(&format!("f{number}"), 8).leaves()[0].clone();
        let leaves: Vec<LeafVdev> = (0..files).map(leaf).collect();
        let path = |leaf: &LeafVdev| match leaf {
            LeafVdev::File(file) => file.path.clone(),
            _ => PathBuf::new(),
        };
        let paths = leaves.iter().map(path).collect();
        Self { configuration: small([vec![kind(leaves)]]), paths }
    }

    fn degraded(&self) -> DatabaseConfiguration {
        let mut configuration = self.configuration.clone();
        configuration.storage.degraded = true;
        configuration
    }

    fn put_away(&self, file: usize) {
        std::fs::rename(&self.paths[file], self.paths[file].with_extension("away")).unwrap();
    }

    fn bring_back(&self, file: usize) {
        std::fs::rename(self.paths[file].with_extension("away"), &self.paths[file]).unwrap();
    }

    /// Writes on, closes.
    fn live(configuration: &DatabaseConfiguration, round: u32, map: &mut Map) {
        let database = Database::build(configuration.clone()).unwrap();
        let dataset = database.open_or_create_dataset("data").unwrap();
        for number in 0..500u32 {
            let key = (number * (round + 1) % 700).to_be_bytes().to_vec();
            let length = if number % 50 == 0 { 50_000 } else { 100 + number as usize };
            let value = vec![(round * 31 + number) as u8; length];
            dataset.insert(&key, &value).unwrap();
            map.insert(key, value);
            if number % 200 == 199 {
                database.checkpoint().unwrap();
            }
        }
        for number in 0..20u32 {
            let key = (number * 9 + round).to_be_bytes().to_vec();
            dataset.delete(&key).unwrap();
            map.remove(&key);
        }
        // The last of it is in the log alone.
        database.sync().unwrap();
        assert!(contents(&dataset).unwrap() == of_map(map));
        database.verify().unwrap();
        drop(dataset);
        database.close().unwrap();
    }

    /// Reads everything from the files.
    fn read(configuration: &DatabaseConfiguration, map: &Map) {
        let database = Database::build(configuration.clone()).unwrap();
        let dataset = database.open_dataset("data").unwrap();
        for _ in 0..3 {
            database.drop_cache();
            assert!(contents(&dataset).unwrap() == of_map(map), "other contents");
        }
        database.verify().unwrap();
        drop(dataset);
        database.close().unwrap();
    }
}

fn of_map(map: &Map) -> Contents {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn whole_life(kind: fn(Vec<LeafVdev>) -> Vdev, files: usize, lost: usize) {
    let folder = Folder::new();
    let pool = Pool::new(&folder, kind, files);
    let mut map = Map::new();
    Pool::live(&pool.configuration, 0, &mut map);
    let report =
        check(&pool.configuration, &CheckOptions { deep: true, ..CheckOptions::default() }, &mut |_| {
            ControlFlow::Continue(())
        });
    assert_eq!(report.unwrap().findings, []);
    // Away, and only who says so goes on without them.
    (0..lost).for_each(|file| pool.put_away(file));
    let refused = Database::build(pool.configuration.clone()).unwrap_err().to_string();
    assert!(refused.contains("f0"), "{refused}");
    Pool::live(&pool.degraded(), 1, &mut map);
    Pool::read(&pool.degraded(), &map);
    // Back, stale.
    (0..lost).for_each(|file| pool.bring_back(file));
    Pool::read(&pool.configuration, &map);
    Pool::live(&pool.configuration, 2, &mut map);
    Pool::read(&pool.configuration, &map);
    // What lacks something is no replacement for what holds everything.
    (lost..=lost).for_each(|file| pool.put_away(file));
    assert!(Database::build(pool.degraded()).is_err(), "stale files are believed");
    (lost..=lost).for_each(|file| pool.bring_back(file));
    Pool::read(&pool.configuration, &map);
}

#[test]
fn a_mirror_lives_on_without_a_file_and_takes_it_back() {
    whole_life(Vdev::Mirror, 2, 1);
    whole_life(Vdev::Mirror, 3, 2);
}

#[test]
fn parity_lives_on_without_a_file_and_takes_it_back() {
    whole_life(Vdev::Parity1, 3, 1);
    whole_life(Vdev::Parity1, 5, 1);
}

#[test]
fn two_parities_live_on_without_two_files_and_take_them_back() {
    whole_life(Vdev::Parity2, 4, 2);
    whole_life(Vdev::Parity2, 6, 2);
}

/// A leg in memory is empty after every opening: it serves what was written since, and nobody needs it.
#[test]
fn legs_in_memory_start_empty_every_time() {
    type Kind = fn(Vec<LeafVdev>) -> Vdev;
    for (files, kind) in [(1, Vdev::Mirror as Kind), (2, Vdev::Parity1), (3, Vdev::Parity2)] {
        let folder = Folder::new();
        let leaf = |number: usize| folder.file(&format!("f{number}"), 8).leaves()[0].clone();
        let leaves = (0..files).map(leaf).chain([LeafVdev::memory(8 << 20)]).collect();
        let configuration = small([vec![kind(leaves)]]);
        let mut map = Map::new();
        for round in 0..3 {
            Pool::live(&configuration, round, &mut map);
            Pool::read(&configuration, &map);
        }
    }
}
