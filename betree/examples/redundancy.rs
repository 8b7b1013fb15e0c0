//! How fast mirrors and parity write, read, and read without a member. `cargo run --release -p betree --example redundancy [MiB
//! [FOLDER]]`
//!
//! Without a folder there is memory under them and one thread, so that what is measured is arithmetic and copying; and how fast
//! checksums are made is measured beside it. With one they are files of one disk, and four callers take turns, as many as serve
//! a database's queue, with requests of 1 MiB and of 4. What a layout allows there is what as many files give that have nothing to
//! do with each other, asked in turn; for writes the part of it that is no redundancy. A mirror may be above that: it makes two
//! of each request.

use betree::base::buffer::AlignedBuffer;
use betree::base::checksum::crc;
use betree::base::extent::Extent;
use betree::base::ids::{Generation, VdevId};
use betree::pool::{
    Access, CreateOptions, LeafVdev, Pool, PoolError, StoragePoolConfiguration, TierConfiguration, Vdev,
};
use betree::vdev::{BlockDevice, VdevError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;
/// Callers at once, where there are disks.
const CALLERS: usize = 4;
/// How long, where there are disks: some give more at first than they can keep up.
const MEASURED: Duration = Duration::from_secs(2);

/// Memory that passes for a disk.
#[derive(Debug)]
struct Ram(RwLock<Vec<u8>>, u64);

impl BlockDevice for Ram {
    fn name(&self) -> &str {
        "ram"
    }

    fn len(&self) -> u64 {
        self.1
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
        let bytes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        buf.copy_from_slice(&bytes[offset as usize..offset as usize + buf.len()]);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        bytes[offset as usize..offset as usize + buf.len()].copy_from_slice(buf);
        Ok(())
    }

    fn flush(&self) -> Result<(), VdevError> {
        Ok(())
    }
}

type Layout = fn(Vec<LeafVdev>) -> Vec<Vdev>;

/// What stands for the disks of a group.
enum Disks {
    Memory(Vec<Arc<dyn BlockDevice>>),
    Files(Vec<PathBuf>),
}

impl Disks {
    fn new(folder: Option<&Path>, count: usize, bytes: usize) -> Self {
        let ram = |_| Arc::new(Ram(RwLock::new(vec![1; bytes]), bytes as u64)) as Arc<dyn BlockDevice>;
        match folder {
            None => Self::Memory((0..count).map(ram).collect()),
            Some(folder) => {
                Self::Files((0..count).map(|index| folder.join(format!("redundancy-{index}"))).collect())
            }
        }
    }

    /// The disks, of which the first `missing` are not to be found.
    fn leaves(&self, missing: usize, bytes: usize) -> Vec<LeafVdev> {
        let lost = |index: usize| LeafVdev::file(format!("/this/path/leads/nowhere/{index}"));
        let file = |path: &PathBuf| {
            let mut leaf = LeafVdev::file(path);
            if let LeafVdev::File(file) = &mut leaf {
                file.size = Some(bytes as u64);
            }
            leaf
        };
        let there: Vec<LeafVdev> = match self {
            Self::Memory(disks) => disks.iter().map(|disk| LeafVdev::from(Arc::clone(disk))).collect(),
            Self::Files(paths) => paths.iter().map(file).collect(),
        };
        (0..missing).map(lost).chain(there.into_iter().skip(missing)).collect()
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        if let Self::Files(paths) = self {
            for path in paths {
                // What was never made is not there.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// What is done with an extent and a buffer as long as its data.
type Work<'a> = dyn Fn(&Extent, &mut AlignedBuffer) -> Result<(), PoolError> + Sync + 'a;

/// Bytes per second, in GB/s, that a layout writes and reads whole.
struct Rates {
    write: f64,
    read: f64,
}

fn measure(
    name: &str,
    (leaves, spare, layout): (usize, usize, Layout),
    (chunk, total): (usize, usize),
    folder: Option<&Path>,
) -> Result<Rates, PoolError> {
    let chunks = total / chunk;
    let bytes = ((total * 2).div_ceil(leaves - spare) + 16 * MIB).next_multiple_of(MIB);
    let disks = Disks::new(folder, leaves, bytes);
    let storage = |missing: usize| {
        let tiers = vec![TierConfiguration::new(layout(disks.leaves(missing, bytes)))];
        let thread_pool_size = if folder.is_none() { Some(0) } else { None };
        StoragePoolConfiguration { tiers, thread_pool_size, degraded: true, ..Default::default() }
    };
    let pool = Pool::create(&storage(0), &CreateOptions { force: true, ..Default::default() })?;
    let geometry = pool.vdevs()[0].geometry();
    let taken = geometry.taken((chunk / BLOCK) as u64);
    let (first, vdevs) = (16 * u64::from(geometry.columns()), pool.vdevs().len() as u64);
    let extent = |at| Extent {
        vdev: VdevId((at % vdevs) as u32),
        block: first + at / vdevs * taken,
        blocks: taken as u32,
    };
    let extents: Vec<Extent> = (0..chunks as u64).map(extent).collect();
    let callers = if folder.is_some() { CALLERS } else { 1 };
    let all = |work: &Work<'_>| {
        let next = AtomicUsize::new(0);
        let call = || {
            let mut buf = AlignedBuffer::zeroed(chunk);
            buf.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 7) as u8);
            let taken = || extents.get(next.fetch_add(1, Ordering::Relaxed));
            std::iter::from_fn(taken).try_for_each(|extent| work(extent, &mut buf))
        };
        thread::scope(|scope| {
            let calls: Vec<_> = (0..callers).map(|_| scope.spawn(call)).collect();
            calls
                .into_iter()
                .try_for_each(|call| call.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    };
    let rate = |work: &Work<'_>, end: &dyn Fn() -> Result<(), PoolError>| {
        all(work)?;
        end()?;
        let (started, mut rounds) = (Instant::now(), 0);
        while rounds == 0 || (folder.is_some() && started.elapsed() < MEASURED) {
            all(work)?;
            end()?;
            rounds += 1;
        }
        Ok::<f64, PoolError>((rounds * chunks * chunk) as f64 / started.elapsed().as_secs_f64() / 1e9)
    };
    let flush = || {
        thread::scope(|scope| {
            let flushes: Vec<_> =
                pool.vdevs().iter().map(|vdev| scope.spawn(|| pool.flush(vdev.id))).collect();
            flushes
                .into_iter()
                .try_for_each(|flush| flush.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    };
    let write = rate(&|extent, buf| pool.write(extent, 0, buf), &flush)?;
    print!("{name}: write {write:.2} GB/s");
    pool.commit(Generation(1), b"measured")?;
    drop(pool);
    let mut whole = 0.0;
    for missing in 0..=spare {
        let (pool, _) = Pool::open(&storage(missing), Access::ReadOnly)?;
        let read = rate(&|extent, buf| pool.read(extent, 0, buf), &|| Ok(()))?;
        print!(", read without {missing} {read:.2}");
        if missing == 0 {
            whole = read;
        }
    }
    println!();
    Ok(Rates { write, read: whole })
}

fn alone(leaves: Vec<LeafVdev>) -> Vec<Vdev> {
    leaves.into_iter().map(Vdev::from).collect()
}

const LAYOUTS: [(&str, (usize, usize, Layout)); 4] = [
    ("mirror of 2", (2, 1, |leaves| vec![Vdev::Mirror(leaves)])),
    ("parity1 of 3", (3, 1, |leaves| vec![Vdev::Parity1(leaves)])),
    ("parity1 of 5", (5, 1, |leaves| vec![Vdev::Parity1(leaves)])),
    ("parity2 of 6", (6, 2, |leaves| vec![Vdev::Parity2(leaves)])),
];

fn in_memory(total: usize) -> Result<(), PoolError> {
    measure("one alone", (1, 0, alone), (MIB, total), None)?;
    for (name, layout) in LAYOUTS {
        measure(name, layout, (MIB, total), None)?;
    }
    let bytes: Vec<u8> = (0..MIB).map(|at| (at / 7) as u8).collect();
    let started = Instant::now();
    let sum = (0..total / MIB).fold(0, |sum, _| sum ^ std::hint::black_box(crc(&bytes)));
    let rate = total as f64 / started.elapsed().as_secs_f64() / 1e9;
    println!("checksums (crc32c): {rate:.2} GB/s ({sum:x})");
    Ok(())
}

fn on_disk(total: usize, folder: &Path) -> Result<(), PoolError> {
    for chunk in [MIB, 4 * MIB] {
        println!("requests of {} MiB", chunk / MIB);
        for (name, layout) in LAYOUTS {
            let (leaves, spare, _) = layout;
            let amount = (chunk, total);
            let files = measure(&format!("{leaves} files"), (leaves, 0, alone), amount, Some(folder))?;
            let rates = measure(name, layout, amount, Some(folder))?;
            let data = (leaves - spare) as f64 / leaves as f64;
            let (write, read) = (rates.write / (files.write * data), rates.read / files.read);
            println!("  of what it allows: write {write:.2}, read {read:.2}");
        }
    }
    Ok(())
}

fn main() -> Result<(), PoolError> {
    let mut arguments = std::env::args().skip(1);
    let total = MIB * arguments.next().and_then(|mib| mib.parse().ok()).unwrap_or(8);
    match arguments.next().map(PathBuf::from) {
        None => in_memory(total),
        // As many requests as callers, at the least.
        Some(folder) => on_disk(total.max(64 * MIB), &folder),
    }
}
