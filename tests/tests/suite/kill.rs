//! kill -9 of a real process, with an oracle outside of the store.
//!
//! `BETREE_KILLS` sets the number of kills, `BETREE_SEED` how long each life lasts.

use betree::vdev::SimRng;
use betree::{AccessMode, Database, DatabaseConfiguration, StoragePoolConfiguration, TierConfiguration};
use std::process::{Command, Stdio};
use std::time::Duration;

const KILLS: u64 = 40;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (pool, oracle) = (folder.path().join("pool.img"), folder.path().join("oracle"));
    let seed = number("BETREE_SEED", 7);
    let mut rng = SimRng::new(seed);
    println!("BETREE_SEED={seed}");
    let configuration = DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: vec![TierConfiguration::parse_zfs_like([pool.display().to_string()]).unwrap()],
            ..StoragePoolConfiguration::default()
        },
        access_mode: AccessMode::OpenIfExists,
        ..DatabaseConfiguration::default()
    };
    let mut before = 0;
    for kill in 0..number("BETREE_KILLS", KILLS) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_betree-writer"))
            .args([&pool, &oracle])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The first life is left alone until it has a pool, or there would be nothing to open.
        while kill == 0 && std::fs::metadata(&oracle).map_or(0, |oracle| oracle.len()) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(rng.below(80)));
        assert!(child.try_wait().unwrap().is_none(), "kill {kill}: {:?}", child.wait_with_output());
        child.kill().unwrap();
        child.wait().unwrap();

        let told = std::fs::read(&oracle).unwrap();
        let acknowledged =
            told.chunks_exact(8).last().map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap())).unwrap();
        let db = Database::build(configuration.clone()).unwrap();
        let dataset = db.open_dataset("numbers").unwrap();
        let counter = dataset.get("counter").unwrap().unwrap();
        let counter = u64::from_be_bytes((*counter).try_into().unwrap());
        assert!(
            counter >= acknowledged.max(before),
            "kill {kill}: {acknowledged} was acknowledged, {counter} is there"
        );
        before = counter;
        // Every batch up to the counter is whole, no later one is there, and what a range delete took stays away.
        let mut expected: Vec<u64> = (0..=counter).collect();
        for end in (2_000..=counter + 1).step_by(2_000) {
            let (from, to) = (end - 2_000, end - 1_000);
            // The range delete after the last batch may not have been written.
            let deleted = dataset.get(format!("n{from:012}")).unwrap().is_none();
            assert!(deleted || end == counter + 1, "kill {kill}: the range from {from} came back");
            if deleted {
                expected.retain(|number| !(from..to).contains(number));
            }
        }
        let found: Vec<u64> = dataset
            .prefix("n")
            .map(|entry| {
                let (key, value) = entry.unwrap();
                let number: u64 = std::str::from_utf8(&key[1..]).unwrap().parse().unwrap();
                assert!(*value == vec![number as u8; 200 + (number % 40) as usize * 500], "value {number}");
                number
            })
            .collect();
        assert!(found == expected, "kill {kill}: {} batches, {} expected", found.len(), expected.len());
        if kill % 8 == 0 {
            db.verify().unwrap();
        }
    }
}
