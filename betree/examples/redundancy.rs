//! How fast mirrors and parity write, read, and read without a member. `cargo run --release -p betree --example redundancy [MiB
//! [FOLDER]]`
//!
//! Without a folder there is memory under them and one thread, so that what is measured is arithmetic and copying; and how fast
//! checksums are made is measured beside it. With one they are files of one disk, after a file alone, and four callers take
//! turns, as many as serve a database's queue: what a layout allows on it is the rate of that one, for writes the part of it that
//! is no redundancy.

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
use std::time::Instant;

const CHUNK: usize = 1 << 20;
const BLOCK: usize = 4096;
/// Callers at once, where there are disks.
const CALLERS: usize = 4;

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

type Group = fn(Vec<LeafVdev>) -> Vdev;

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
    (leaves, spare, group): (usize, usize, Group),
    chunks: usize,
    folder: Option<&Path>,
) -> Result<Rates, PoolError> {
    let bytes = ((chunks * CHUNK * 2).div_ceil(leaves - spare) + 16 * CHUNK).next_multiple_of(CHUNK);
    let disks = Disks::new(folder, leaves, bytes);
    let storage = |missing: usize| {
        let tiers = vec![TierConfiguration::new(vec![group(disks.leaves(missing, bytes))])];
        let thread_pool_size = if folder.is_none() { Some(0) } else { None };
        StoragePoolConfiguration { tiers, thread_pool_size, degraded: true, ..Default::default() }
    };
    let pool = Pool::create(&storage(0), &CreateOptions { force: true, ..Default::default() })?;
    let geometry = pool.vdevs()[0].geometry();
    let taken = geometry.taken((CHUNK / BLOCK) as u64);
    let first = 16 * u64::from(geometry.columns());
    let extents: Vec<Extent> = (0..chunks as u64)
        .map(|at| Extent { vdev: VdevId(0), block: first + at * taken, blocks: taken as u32 })
        .collect();
    let callers = if folder.is_some() { CALLERS } else { 1 };
    let all = |work: &Work<'_>| {
        let next = AtomicUsize::new(0);
        let call = || {
            let mut buf = AlignedBuffer::zeroed(CHUNK);
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
        let started = Instant::now();
        all(work)?;
        end()?;
        Ok::<f64, PoolError>((chunks * CHUNK) as f64 / started.elapsed().as_secs_f64() / 1e9)
    };
    let write = rate(&|extent, buf| pool.write(extent, 0, buf), &|| pool.flush_all())?;
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

fn alone(mut leaves: Vec<LeafVdev>) -> Vdev {
    Vdev::from(leaves.remove(0))
}

fn main() -> Result<(), PoolError> {
    let mut arguments = std::env::args().skip(1);
    let chunks = arguments.next().and_then(|mib| mib.parse().ok()).unwrap_or(8);
    let folder = arguments.next().map(PathBuf::from);
    let one = measure("one alone", (1, 0, alone), chunks, folder.as_deref())?;
    let layouts: [(&str, (usize, usize, Group)); 4] = [
        ("mirror of 2", (2, 1, Vdev::Mirror)),
        ("parity1 of 3", (3, 1, Vdev::Parity1)),
        ("parity1 of 5", (5, 1, Vdev::Parity1)),
        ("parity2 of 6", (6, 2, Vdev::Parity2)),
    ];
    for (name, layout) in layouts {
        let rates = measure(name, layout, chunks, folder.as_deref())?;
        if folder.is_some() {
            let data = if name.starts_with("mirror") { 1 } else { layout.0 - layout.1 };
            let allowed = one.write * data as f64 / layout.0 as f64;
            println!(
                "  of what it allows: write {:.2}, read {:.2}",
                rates.write / allowed,
                rates.read / one.read
            );
        }
    }
    if folder.is_none() {
        let bytes: Vec<u8> = (0..CHUNK).map(|at| (at / 7) as u8).collect();
        let started = Instant::now();
        let sum = (0..chunks).fold(0, |sum, _| sum ^ std::hint::black_box(crc(&bytes)));
        let rate = (chunks * CHUNK) as f64 / started.elapsed().as_secs_f64() / 1e9;
        println!("checksums (crc32c): {rate:.2} GB/s ({:x})", sum & 1);
    }
    Ok(())
}
