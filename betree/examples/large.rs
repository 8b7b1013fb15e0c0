//! One larger run: loads N random keys (10,000,000) of 16 bytes with values of 100 bytes, and checks every way to them.
//!
//! ```text
//! cargo run --release -p betree --example large -- [N [FOLDER]]
//! ```
//!
//! The pool is a sparse file of about 500 bytes per key in FOLDER (default: the working directory), removed at the end.

use betree::{
    AccessMode, Database, DatabaseConfiguration, Dataset, StoragePoolConfiguration, TierConfiguration,
};
use std::time::Instant;

const VALUE_BYTES: usize = 100;
const SAMPLE: u64 = 200_000;

/// A bijection of 64-bit numbers: the finaliser of SplitMix64 (Steele et al., OOPSLA 2014).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Keys of different numbers differ, and come in no order.
fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mix(number + 1).to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Bytes that no compression makes smaller, different for each key.
fn value(number: u64) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    for (index, chunk) in value.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&mix(number.wrapping_mul(64) + index as u64).to_be_bytes()[..chunk.len()]);
    }
    value
}

/// Bytes that this process has sent to devices, where the system counts them.
fn written() -> Option<u64> {
    let counters = std::fs::read_to_string("/proc/self/io").ok()?;
    counters.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok())
}

/// Does `work` on `count` things and says how fast that was.
fn timed<T>(what: &str, count: u64, work: impl FnOnce() -> betree::Result<T>) -> betree::Result<T> {
    let start = Instant::now();
    let result = work()?;
    let seconds = start.elapsed().as_secs_f64();
    let rate = if count > 1 {
        format!("{count:>11} times, {:>9.0} /s", count as f64 / seconds)
    } else {
        String::new()
    };
    println!("{what:<34} {seconds:>8.2} s {rate}");
    Ok(result)
}

fn read_sample(dataset: &Dataset, keys: u64, sample: u64) -> betree::Result<()> {
    for index in 0..sample {
        let number = mix(index + 77) % keys;
        assert_eq!(dataset.get(key(number))?.as_deref(), Some(&value(number)[..]), "key {number}");
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let keys: u64 = arguments.next().map_or(Ok(10_000_000), |count| count.parse())?;
    let folder = tempfile::tempdir_in(arguments.next().unwrap_or_else(|| ".".into()))?;
    let sample = SAMPLE.min(keys);
    let file = format!("file:{}/pool.img:{}MiB:sparse=true", folder.path().display(), 512 + keys / 2100);
    let configuration = DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: vec![TierConfiguration::parse_zfs_like([file])?],
            ..StoragePoolConfiguration::default()
        },
        access_mode: AccessMode::OpenOrCreate,
        ..DatabaseConfiguration::default()
    };
    let user_bytes = keys * (16 + VALUE_BYTES as u64);
    println!("{keys} keys of 16 + {VALUE_BYTES} bytes: {} MiB; cache 256 MiB", user_bytes >> 20);

    let database = Database::build(configuration.clone())?;
    let dataset = database.create_dataset("large")?;
    timed("insert in random order, then sync", keys, || {
        for number in 0..keys {
            dataset.insert(key(number), value(number))?;
        }
        database.sync()
    })?;
    timed("settle: background work done", 1, || database.settle())?;
    timed("get a sample", sample, || read_sample(&dataset, keys, sample))?;
    timed("get absent keys", sample, || {
        (0..sample).try_for_each(|index| dataset.get(key(keys + index)).map(|found| assert_eq!(found, None)))
    })?;
    println!("{:?}", timed("verify every block and bitmap", 1, || database.verify())?);
    println!("{:?}", dataset.stats()?);
    drop(dataset);
    database.close()?;
    let disk = std::process::Command::new("du").arg("-sm").arg(folder.path()).output()?.stdout;
    println!("MiB on disk: {}", String::from_utf8_lossy(&disk).split_whitespace().next().unwrap_or("?"));
    if let Some(written) = written() {
        println!("bytes to the device per byte of user data: {:.2}", written as f64 / user_bytes as f64);
    }

    let database = timed("open again", 1, || Database::build(configuration))?;
    let dataset = database.open_dataset("large")?;
    timed("get a sample, cold", sample, || read_sample(&dataset, keys, sample))?;
    let found = timed("walk all in order", keys, || {
        let (mut found, mut before) = (0, None);
        for entry in dataset.range::<&[u8]>(..) {
            let (name, bytes) = entry?;
            let number =
                name.get(8..).and_then(|tail| tail.try_into().ok()).map_or(u64::MAX, u64::from_be_bytes);
            assert!(number < keys && name == key(number) && bytes == value(number), "entry {name:?}");
            assert!(before.as_ref() < Some(&name), "order at {name:?}");
            before = Some(name);
            found += 1;
        }
        Ok(found)
    })?;
    assert_eq!(found, keys, "keys in the walk");
    drop(dataset);
    database.close()?;
    println!("all {keys} keys are there, with their values, in order");
    Ok(())
}
