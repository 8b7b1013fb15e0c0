//! How fast mirrors and parity write, read, and read without a member: memory under them and one thread, so that what is
//! measured is arithmetic and copying. `cargo run --release -p betree --example redundancy [MiB]`

use betree::base::extent::Extent;
use betree::base::ids::{Generation, VdevId};
use betree::pool::{
    Access, CreateOptions, LeafVdev, Pool, PoolError, StoragePoolConfiguration, TierConfiguration, Vdev,
};
use betree::vdev::{BlockDevice, VdevError};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

const CHUNK: usize = 1 << 20;
const BLOCK: usize = 4096;

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

fn measure(
    name: &str,
    (leaves, spare, group): (usize, usize, Group),
    chunks: usize,
) -> Result<(), PoolError> {
    let bytes = (chunks * CHUNK * 2).div_ceil(leaves - spare) + CHUNK;
    let ram = || Arc::new(Ram(RwLock::new(vec![1; bytes]), bytes as u64)) as Arc<dyn BlockDevice>;
    let disks: Vec<_> = (0..leaves).map(|_| ram()).collect();
    let storage = |missing: usize| {
        let leaf = |(index, disk): (usize, &Arc<dyn BlockDevice>)| match index < missing {
            true => LeafVdev::file(format!("/this/path/leads/nowhere/{index}")),
            false => LeafVdev::from(Arc::clone(disk)),
        };
        let vdev = group(disks.iter().enumerate().map(leaf).collect());
        let tiers = vec![TierConfiguration::new(vec![vdev])];
        StoragePoolConfiguration { tiers, thread_pool_size: Some(0), degraded: true, ..Default::default() }
    };
    let pool = Pool::create(&storage(0), &CreateOptions { force: true, ..Default::default() })?;
    let geometry = pool.vdevs()[0].geometry();
    let taken = geometry.taken((CHUNK / BLOCK) as u64);
    let first = 16 * u64::from(geometry.columns());
    let extents: Vec<Extent> = (0..chunks as u64)
        .map(|at| Extent { vdev: VdevId(0), block: first + at * taken, blocks: taken as u32 })
        .collect();
    let rate = |work: &mut dyn FnMut(&Extent) -> Result<(), PoolError>| {
        extents.iter().try_for_each(&mut *work)?;
        let started = Instant::now();
        extents.iter().try_for_each(&mut *work)?;
        Ok::<f64, PoolError>((chunks * CHUNK) as f64 / started.elapsed().as_secs_f64() / 1e9)
    };
    let mut buf: Vec<u8> = (0..CHUNK).map(|at| (at / 7) as u8).collect();
    print!("{name}: write {:.2} GB/s", rate(&mut |extent| pool.write(extent, 0, &buf))?);
    pool.flush_all()?;
    pool.commit(Generation(1), b"measured")?;
    drop(pool);
    for missing in 0..=spare {
        let (pool, _) = Pool::open(&storage(missing), Access::ReadOnly)?;
        print!(", read without {missing} {:.2}", rate(&mut |extent| pool.read(extent, 0, &mut buf))?);
    }
    println!();
    Ok(())
}

fn main() -> Result<(), PoolError> {
    let chunks = std::env::args().nth(1).and_then(|mib| mib.parse().ok()).unwrap_or(8);
    measure("mirror of 2", (2, 1, Vdev::Mirror), chunks)?;
    measure("parity1 of 3", (3, 1, Vdev::Parity1), chunks)?;
    measure("parity1 of 5", (5, 1, Vdev::Parity1), chunks)?;
    measure("parity2 of 6", (6, 2, Vdev::Parity2), chunks)
}
