//! What snapshots cost: making one of N keys (1,000,000), writing with one held and without, many of them, a difference.
//!
//! ```text
//! cargo run --release -p betree --example snapshots -- [N [SNAPSHOTS [FOLDER]]]
//! ```
//!
//! The pool is a sparse file of about 500 bytes per key in FOLDER (default: the working directory), removed at the end.

use betree::{
    AccessMode, Database, DatabaseConfiguration, Dataset, SendOptions, StoragePoolConfiguration,
    TierConfiguration,
};
use std::time::{Duration, Instant};

const VALUE_BYTES: usize = 100;
/// Pairs of runs, of which one holds a snapshot; how often a single thing is timed.
const ROUNDS: u64 = 7;

/// A bijection of 64-bit numbers: the finaliser of SplitMix64 (Steele et al., OOPSLA 2014).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// In the order of their numbers, so that neighbours share a leaf.
fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key
}

/// Bytes that no compression makes smaller.
fn value(number: u64) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    for (index, chunk) in value.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&mix(number.wrapping_mul(64) + index as u64).to_be_bytes()[..chunk.len()]);
    }
    value
}

fn timed<T>(work: impl FnOnce() -> betree::Result<T>) -> betree::Result<(Duration, T)> {
    let start = Instant::now();
    let result = work()?;
    Ok((start.elapsed(), result))
}

/// The one in the middle.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Bytes that this process has read from devices, where the system counts them.
fn read() -> u64 {
    let counters = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    counters.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.parse().ok()).unwrap_or(0)
}

/// A database with one dataset, and how many keys that has.
struct Bench {
    database: Database,
    dataset: Dataset,
    keys: u64,
}

impl Bench {
    fn open(configuration: &DatabaseConfiguration, keys: u64) -> betree::Result<Self> {
        let database = Database::build(configuration.clone())?;
        let dataset = database.open_or_create_dataset("data")?;
        Ok(Self { database, dataset, keys })
    }

    fn load(&self) -> betree::Result<()> {
        (0..self.keys).try_for_each(|number| self.dataset.insert(key(number), value(number)))?;
        self.database.settle()?;
        self.database.checkpoint()
    }

    /// Writes random keys; the time until a checkpoint has them.
    fn overwrite(&self, count: u64, seed: u64) -> betree::Result<Duration> {
        let (time, ()) = timed(|| {
            for number in seed..seed + count {
                self.dataset.insert(key(mix(number) % self.keys), value(number))?;
            }
            self.database.checkpoint()
        })?;
        self.database.settle()?;
        Ok(time)
    }

    /// Time of one random read of keys that were read before.
    fn get(&self) -> betree::Result<Duration> {
        let count = 20_000;
        let all = || (0..count).try_for_each(|n| self.dataset.get(key(mix(n) % self.keys)).map(|_| ()));
        all()?;
        let (time, ()) = timed(all)?;
        Ok(time / count as u32)
    }

    /// A checkpoint with one new value, and the same with a name.
    fn creation(&self) -> betree::Result<()> {
        let (mut plain, mut named) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            self.dataset.insert(key(round), value(round))?;
            plain.push(timed(|| self.database.checkpoint())?.0);
            self.dataset.insert(key(round), value(round))?;
            named.push(timed(|| self.dataset.create_snapshot(round.to_string()))?.0);
        }
        (0..ROUNDS).try_for_each(|round| self.dataset.delete_snapshot(round.to_string()))?;
        println!(
            "a checkpoint {:.2} ms, a snapshot {:.2} ms",
            milliseconds(median(plain)),
            milliseconds(median(named))
        );
        Ok(())
    }

    fn difference(&self, what: &str, keys: impl Iterator<Item = u64>) -> betree::Result<()> {
        let from = self.dataset.create_snapshot("from")?;
        keys.into_iter().try_for_each(|number| self.dataset.insert(key(number), value(!number)))?;
        let to = self.dataset.create_snapshot("to")?;
        self.database.settle()?;
        let percent = |bytes: u64| bytes as f64 * 100.0 / (self.keys * (16 + VALUE_BYTES as u64)) as f64;
        let measured = |what: &str, work: &dyn Fn() -> betree::Result<u64>| -> betree::Result<()> {
            self.database.drop_cache();
            let before = read();
            let (time, count) = timed(work)?;
            let bytes = read() - before;
            let (time, kib) = (milliseconds(time), bytes >> 10);
            println!(
                "{what}: {count} keys, {time:.1} ms, {kib} KiB read, {:.2} % of the data",
                percent(bytes)
            );
            Ok(())
        };
        let differ = || from.diff(&to)?.try_fold(0, |count, one| one.map(|_| count + 1));
        measured(&format!("difference {what}"), &differ)?;
        let send = || Ok(to.send(Some(&from), &SendOptions::default(), &mut std::io::sink())?.puts);
        measured(&format!("sending a difference {what}"), &send)?;
        self.dataset.delete_snapshot("from")?;
        self.dataset.delete_snapshot("to")
    }

    fn held(&self) -> betree::Result<()> {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        let count = self.keys / 2;
        for round in 0..ROUNDS {
            without.push(self.overwrite(count, round * 2 * count)?);
            self.dataset.create_snapshot("held")?;
            with.push(self.overwrite(count, (round * 2 + 1) * count)?);
            self.dataset.delete_snapshot("held")?;
            self.database.settle()?;
        }
        let (without, with) = (median(without), median(with));
        println!(
            "{count} random writes: {:.0} ms without a snapshot, {:.0} ms with one held, {:.3} times",
            milliseconds(without),
            milliseconds(with),
            with.as_secs_f64() / without.as_secs_f64()
        );
        Ok(())
    }

    /// What reading and writing cost now.
    fn pace(&self, seed: u64) -> betree::Result<()> {
        let writes: Vec<_> = (0..ROUNDS)
            .map(|round| self.overwrite(20_000, seed + round * 20_000))
            .collect::<Result<_, _>>()?;
        println!(
            "    a get {:.2} us, 20,000 random writes {:.1} ms",
            self.get()?.as_secs_f64() * 1e6,
            milliseconds(median(writes))
        );
        Ok(())
    }
}

/// So many snapshots of one dataset.
fn many(configuration: &DatabaseConfiguration, bench: Bench, count: u64) -> betree::Result<()> {
    let Bench { keys, .. } = bench;
    println!("before there are {count} snapshots:");
    bench.pace(1 << 40)?;
    let mut times = Vec::new();
    for number in 0..count {
        bench.dataset.insert(key(mix(number) % keys), value(number))?;
        times.push(timed(|| bench.dataset.create_snapshot(number.to_string()))?.0);
    }
    let tenth = times.len() / 10;
    println!(
        "making them: the first tenth {:.2} ms each, the last tenth {:.2} ms",
        milliseconds(median(times.iter().take(tenth).copied().collect())),
        milliseconds(median(times.iter().rev().take(tenth).copied().collect()))
    );
    bench.pace(2 << 40)?;
    let Bench { database, dataset, .. } = bench;
    drop(dataset);
    database.close()?;
    let (opening, bench) = timed(|| Bench::open(configuration, keys))?;
    let (listing, all) = timed(|| bench.dataset.snapshots())?;
    assert_eq!(all.len() as u64, count, "snapshots");
    println!("opening {:.1} ms, listing {:.1} ms", milliseconds(opening), milliseconds(listing));
    bench.pace(3 << 40)?;
    let mut deleting = Vec::new();
    for number in (0..count).step_by(10) {
        let name = number.to_string();
        let (time, _) = timed(|| bench.dataset.open_snapshot(&name)?.get(key(1)))?;
        times.push(time);
        deleting.push(timed(|| bench.dataset.delete_snapshot(&name))?.0);
    }
    let reads = times.split_off(count as usize);
    println!(
        "opening one and reading a key {:.2} ms, deleting one in ten {:.2} ms each",
        milliseconds(median(reads)),
        milliseconds(median(deleting))
    );
    println!("{:?}", timed(|| bench.database.verify())?);
    bench.database.close()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let keys: u64 = arguments.next().map_or(Ok(1_000_000), |count| count.parse())?;
    let snapshots: u64 = arguments.next().map_or(Ok(10_000), |count| count.parse())?;
    let folder = tempfile::tempdir_in(arguments.next().unwrap_or_else(|| ".".into()))?;
    let file = format!("file:{}/pool.img:{}MiB:sparse=true", folder.path().display(), 2048 + keys / 1000);
    let configuration = DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: vec![TierConfiguration::parse_zfs_like([file])?],
            ..StoragePoolConfiguration::default()
        },
        access_mode: AccessMode::OpenOrCreate,
        ..DatabaseConfiguration::default()
    };
    let bench = Bench::open(&configuration, keys)?;
    let (time, ()) = timed(|| bench.load())?;
    println!("{keys} keys of 16 + {VALUE_BYTES} bytes loaded in {:.1} s", time.as_secs_f64());
    bench.creation()?;
    bench.difference("side by side", keys / 2..keys / 2 + keys / 100)?;
    bench.difference("anywhere", (0..keys / 100).map(|number| mix(number) % keys))?;
    bench.held()?;
    many(&configuration, bench, snapshots)?;
    Ok(())
}
