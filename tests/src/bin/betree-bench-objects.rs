//! Objects beside plain files on the same file system, in turns: `betree-bench-objects FOLDER [ROUNDS [SCALE [PART]]]`. PART is
//! `1k`, `64k`, `4m` or `large`; otherwise it is all of them.
//!
//! Each round measures both, so that what else the machine does meets both; medians of the rounds are printed. Files are
//! written through the page cache and synced at the end of a phase, as objects are; before reads the page cache is dropped
//! where that is allowed, and the cache of the database always. Single 4 KiB requests to a file are direct.

use betree::base::buffer::AlignedBuffer;
use betree::vdev::SimRng;
use betree::{
    Database, DatabaseConfiguration, LeafVdev, ObjectStore, StoragePoolConfiguration, TierConfiguration, Vdev,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

type Done = Result<(), Box<dyn Error>>;

const O_DIRECT: i32 = if cfg!(target_arch = "aarch64") { 0o200_000 } else { 0o40_000 };

/// Rates of both, round by round, by phase.
#[derive(Default)]
struct Rates(BTreeMap<String, (Vec<f64>, Vec<f64>)>);

impl Rates {
    fn time(&mut self, phase: &str, objects: bool, amount: f64, work: impl FnOnce() -> Done) -> Done {
        let begun = Instant::now();
        work()?;
        let rate = amount / begun.elapsed().as_secs_f64();
        eprintln!("{phase}: {} {rate:.1}", if objects { "objects" } else { "files" });
        let both = self.0.entry(phase.to_owned()).or_default();
        if objects {
            both.0.push(rate)
        } else {
            both.1.push(rate)
        }
        Ok(())
    }

    fn print(&mut self) {
        println!("{:<44} {:>12} {:>12} {:>7}", "", "objects", "files", "ratio");
        for (phase, (objects, files)) in &mut self.0 {
            let median = |rates: &mut Vec<f64>| {
                rates.sort_by(f64::total_cmp);
                rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
            };
            let (objects, files) = (median(objects), median(files));
            println!("{phase:<44} {objects:>12.1} {files:>12.1} {:>7.2}", objects / files);
        }
    }
}

fn drop_caches(database: &Database) -> Done {
    database.checkpoint()?;
    database.drop_cache();
    // Only the administrator may; reads of files are faster than the device then.
    let _refused = fs::write("/proc/sys/vm/drop_caches", "3");
    Ok(())
}

fn sync(folder: &Path) -> Done {
    // One sync of the file system, as one sync of the database.
    let status = std::process::Command::new("sync").arg("-f").arg(folder).status()?;
    if status.success() { Ok(()) } else { Err("sync failed".into()) }
}

fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut rng = SimRng::new(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(rng.next_u64().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Whole objects and files of one length.
fn whole(store: &ObjectStore, folder: &Path, rates: &mut Rates, length: usize, count: usize) -> Done {
    let database = store.database();
    let data = bytes(length, length as u64);
    let name = |number: usize| format!("{:02}/{number:08}", number % 64);
    let (label, amount) = if length < 64 << 10 {
        (format!("{} KiB, per s", length >> 10), count as f64)
    } else {
        (format!("{} KiB, MiB/s", length >> 10), (count * length) as f64 / (1 << 20) as f64)
    };
    let phase = |what: &str| format!("{what} {label}");
    (0..64).try_for_each(|number| fs::create_dir_all(folder.join(format!("{number:02}"))))?;
    rates.time(&phase("1 create"), true, amount, || {
        (0..count).try_for_each(|number| store.put(name(number), &data).map(|_| ()))?;
        Ok(store.sync()?)
    })?;
    rates.time(&phase("1 create"), false, amount, || {
        (0..count).try_for_each(|number| fs::write(folder.join(name(number)), &data))?;
        sync(folder)
    })?;
    drop_caches(database)?;
    rates.time(&phase("2 read"), true, amount, || {
        for number in 0..count {
            let read = store.get(name(number))?.ok_or("it is gone")?;
            assert_eq!(read.len(), length);
        }
        Ok(())
    })?;
    rates.time(&phase("2 read"), false, amount, || {
        (0..count).try_for_each(|number| {
            assert_eq!(fs::read(folder.join(name(number)))?.len(), length);
            Ok(())
        })
    })?;
    drop_caches(database)?;
    rates.time(&format!("3 list {} KiB, per s", length >> 10), true, count as f64, || {
        let sum: u64 =
            store.list_objects::<&[u8]>(..).map(|object| object.map_or(0, |(_, info)| info.size)).sum();
        assert_eq!(sum, (count * length) as u64);
        Ok(())
    })?;
    rates.time(&format!("3 list {} KiB, per s", length >> 10), false, count as f64, || {
        let mut sum = 0;
        for number in 0..64 {
            for entry in fs::read_dir(folder.join(format!("{number:02}")))? {
                sum += entry?.metadata()?.len();
            }
        }
        assert_eq!(sum, (count * length) as u64);
        Ok(())
    })?;
    rates.time(&phase("4 delete"), true, amount, || {
        (0..count).try_for_each(|number| store.delete_object(name(number)))?;
        Ok(store.sync()?)
    })?;
    rates.time(&phase("4 delete"), false, amount, || {
        (0..count).try_for_each(|number| fs::remove_file(folder.join(name(number))))?;
        sync(folder)
    })?;
    Ok(store.database().settle()?)
}

/// Requests of 4 KiB somewhere in one large object and one large file.
fn random(store: &ObjectStore, folder: &Path, rates: &mut Rates, length: u64, requests: u64) -> Done {
    let database = store.database();
    let path = folder.join("large");
    let object = store.open_or_create_object("large")?;
    let piece = bytes(4 << 20, 7);
    let open = |direct| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.custom_flags(if direct { O_DIRECT } else { 0 });
        options.open(&path)
    };
    let file: File = open(false)?;
    let pieces = length / piece.len() as u64;
    let amount = (length >> 20) as f64;
    rates.time("5 write one large, MiB/s", true, amount, || {
        (0..pieces).try_for_each(|number| object.write_at(&piece, number << 22).map(|_| ()))?;
        Ok(store.sync()?)
    })?;
    rates.time("5 write one large, MiB/s", false, amount, || {
        (0..pieces).try_for_each(|number| file.write_all_at(&piece, number << 22))?;
        Ok(file.sync_data()?)
    })?;
    let direct: File = open(true)?;
    drop_caches(database)?;
    let mut buffer = vec![0; 4 << 20];
    rates.time("6 read one large in 4 MiB, MiB/s", true, amount, || {
        (0..pieces).try_for_each(|number| object.read_at(&mut buffer, number << 22).map(|_| ()))?;
        Ok(())
    })?;
    rates.time("6 read one large in 4 MiB, MiB/s", false, amount, || {
        Ok((0..pieces).try_for_each(|number| file.read_exact_at(&mut buffer, number << 22))?)
    })?;
    drop_caches(database)?;
    let mut step = vec![0; 8 << 10];
    rates.time("6 read one large in 8 KiB, MiB/s", true, amount, || {
        let mut cursor = object.cursor();
        Ok((0..length >> 13).try_for_each(|_| cursor.read_exact(&mut step))?)
    })?;
    rates.time("6 read one large in 8 KiB, MiB/s", false, amount, || {
        let mut file = &file;
        file.rewind()?;
        Ok((0..length >> 13).try_for_each(|_| file.read_exact(&mut step))?)
    })?;
    let mut block = AlignedBuffer::zeroed(4096);
    let places = |seed: u64| {
        let mut rng = SimRng::new(seed);
        (0..requests).map(move |_| rng.below(length / 4096) * 4096)
    };
    drop_caches(database)?;
    rates.time("7 read 4 KiB at random, direct, per s", true, requests as f64, || {
        Ok(places(1).try_for_each(|offset| object.read_at(&mut block, offset).map(|_| ()))?)
    })?;
    rates.time("7 read 4 KiB at random, direct, per s", false, requests as f64, || {
        Ok(places(1).try_for_each(|offset| direct.read_exact_at(&mut block, offset))?)
    })?;
    let before = written(database);
    rates.time("8 overwrite 4 KiB at random, direct, per s", true, requests as f64, || {
        places(2).try_for_each(|offset| object.write_at(&block, offset).map(|_| ()))?;
        Ok(store.sync()?)
    })?;
    rates.time("8 overwrite 4 KiB at random, direct, per s", false, requests as f64, || {
        places(2).try_for_each(|offset| direct.write_all_at(&block, offset))?;
        Ok(direct.sync_data()?)
    })?;
    drop_caches(database)?;
    rates.time("9 read 4 KiB of what was overwritten, per s", true, requests as f64, || {
        Ok(places(2).try_for_each(|offset| object.read_at(&mut block, offset).map(|_| ()))?)
    })?;
    rates.time("9 read 4 KiB of what was overwritten, per s", false, requests as f64, || {
        Ok(places(2).try_for_each(|offset| direct.read_exact_at(&mut block, offset))?)
    })?;
    database.settle()?;
    database.checkpoint()?;
    let per_byte = (written(database) - before) as f64 / (requests * 4096) as f64;
    eprintln!("device bytes written for each byte that was overwritten, all merging included: {per_byte:.2}");
    Ok(())
}

fn written(database: &Database) -> u64 {
    database.metrics().vdevs.iter().map(|vdev| vdev.writes.bytes).sum()
}

fn main() -> Done {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: betree-bench-objects FOLDER [ROUNDS [SCALE [PART]]]")?;
    let rounds: usize = arguments.next().map_or(Ok(3), |rounds| rounds.parse())?;
    let scale: usize = arguments.next().map_or(Ok(1), |scale| scale.parse())?;
    let part = arguments.next();
    let folder = &std::path::absolute(folder)?;
    let files = folder.join("files");
    fs::create_dir_all(&files)?;
    let mut tier = TierConfiguration::parse_zfs_like([format!(
        "{}:{}MiB",
        folder.join("pool.img").display(),
        1536 * scale
    )])?;
    if let Some(Vdev::Leaf(LeafVdev::File(file))) = tier.top_level_vdevs.first_mut() {
        file.sparse = true;
    }
    let configuration = DatabaseConfiguration {
        storage: StoragePoolConfiguration { tiers: vec![tier], ..StoragePoolConfiguration::default() },
        cache_size: (64 << 20) * scale,
        ..DatabaseConfiguration::default()
    };
    let database = Database::create_with(configuration, false)?;
    let store = database.create_object_store("bench")?;
    let mut rates = Rates::default();
    let wants = |name| part.as_deref().is_none_or(|part| part == name);
    for _ in 0..rounds {
        for (name, length, count) in
            [("1k", 1 << 10, 100_000), ("64k", 64 << 10, 4_000), ("4m", 4 << 20, 128)]
        {
            if wants(name) {
                whole(&store, &files, &mut rates, length, count * scale)?;
            }
        }
        if wants("large") {
            random(&store, &files, &mut rates, (512 << 20) * scale as u64, 20_000 * scale as u64)?;
        }
    }
    rates.print();
    drop(store);
    Ok(database.close()?)
}
