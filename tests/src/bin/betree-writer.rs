//! A writer to be killed: counts up in a dataset and tells an oracle file what was acknowledged.
//!
//! Arguments: pool file, oracle file. Each batch writes the key of its number and the counter; every eighth is synced, and
//! only then its number is appended to the oracle, eight bytes big-endian.

use betree::{
    AccessMode, Batch, Database, DatabaseConfiguration, Durability, LeafVdev, StoragePoolConfiguration,
};
use betree::{TierConfiguration, Vdev};
use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;

fn run(pool: &str, oracle: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut tier = TierConfiguration::parse_zfs_like([format!("{pool}:4GiB")])?;
    if let Some(Vdev::Leaf(LeafVdev::File(file))) = tier.top_level_vdevs.first_mut() {
        file.sparse = true;
    }
    let db = Database::build(DatabaseConfiguration {
        storage: StoragePoolConfiguration { tiers: vec![tier], ..StoragePoolConfiguration::default() },
        access_mode: AccessMode::OpenOrCreate,
        memtable_size: 64 << 10,
        ..DatabaseConfiguration::default()
    })?;
    let dataset = db.open_or_create_dataset("numbers")?;
    let mut oracle = OpenOptions::new().append(true).create(true).open(oracle)?;
    let mut number = match dataset.get("counter")? {
        Some(bytes) => u64::from_be_bytes(<[u8; 8]>::try_from(&*bytes)?) + 1,
        None => 0,
    };
    loop {
        let value = vec![number as u8; 200 + (number % 40) as usize * 500];
        let batch: Batch = db.batch().insert(&dataset, format!("n{number:012}"), &value).insert(
            &dataset,
            "counter",
            number.to_be_bytes(),
        );
        if number % 8 == 7 {
            batch.commit(Durability::Sync)?;
            oracle.write_all(&number.to_be_bytes())?;
        } else {
            batch.commit(Durability::Buffered)?;
        }
        number += 1;
        if number % 2_000 == 0 {
            dataset.range_delete(format!("n{:012}", number - 2_000)..format!("n{:012}", number - 1_000))?;
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pool, oracle] = &arguments[..] else {
        eprintln!("usage: betree-writer POOL ORACLE");
        return ExitCode::from(2);
    };
    match run(pool, oracle) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
