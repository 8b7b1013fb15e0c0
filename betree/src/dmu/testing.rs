//! Units over every kind of vdev, for tests.

use super::Dmu;
use crate::base::ids::VdevId;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::pool::format::VdevKind;
use crate::pool::{Pool, TopLevelVdev};
use crate::vdev::{BlockDevice, Operation, SimClock, SimDevice, SimDisk, VdevError};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Kinds of vdevs with their number of leaves, and what they are called.
pub(crate) const KINDS: [(&str, VdevKind, usize); 7] = [
    ("leaf", VdevKind::Leaf, 1),
    ("mirror of 2", VdevKind::Mirror, 2),
    ("mirror of 3", VdevKind::Mirror, 3),
    ("parity1 of 3", VdevKind::Parity1, 3),
    ("parity1 of 5", VdevKind::Parity1, 5),
    ("parity2 of 4", VdevKind::Parity2, 4),
    ("parity2 of 6", VdevKind::Parity2, 6),
];

/// A disk with bad sectors, which are good again when they are written.
#[derive(Debug)]
pub(crate) struct WornDisk {
    disk: SimDisk,
    device: SimDevice,
    bad: Mutex<BTreeSet<u64>>,
    reads: AtomicU64,
}

impl WornDisk {
    /// Block `block` does not read any more.
    pub fn wear(&self, block: u64) {
        self.bad.lock().insert(block);
    }

    /// Blocks that do not read.
    pub fn worn(&self) -> usize {
        self.bad.lock().len()
    }

    /// Requests to read since the last time.
    pub fn take_reads(&self) -> u64 {
        self.reads.swap(0, Ordering::Relaxed)
    }
}

impl BlockDevice for WornDisk {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn len(&self) -> u64 {
        self.device.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let first = offset / BLOCK_BYTES_U64;
        let bad = self.bad.lock();
        if bad.range(first..first + (buf.len() / BLOCK_BYTES) as u64).next().is_some() {
            let (device, operation) = (self.name().to_owned(), Operation::Read);
            let source = std::io::Error::other("a bad sector");
            return Err(VdevError::Io { device, operation, offset, source });
        }
        drop(bad);
        self.device.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
        let first = offset / BLOCK_BYTES_U64;
        let blocks = first..first + (buf.len() / BLOCK_BYTES) as u64;
        self.bad.lock().retain(|block| !blocks.contains(block));
        self.device.write_at(buf, offset)
    }

    fn flush(&self) -> Result<(), VdevError> {
        self.device.flush()
    }
}

impl std::ops::Deref for WornDisk {
    type Target = SimDisk;

    fn deref(&self) -> &SimDisk {
        &self.disk
    }
}

/// A unit on one vdev of `kind`, and its disks of `blocks` blocks each, which may get bad sectors.
pub(crate) fn worn_unit(kind: VdevKind, leaves: usize, blocks: u64) -> (Dmu, Vec<Arc<WornDisk>>) {
    let clock = SimClock::new(1);
    let disk = |leaf: usize| {
        let disk = SimDisk::new(&format!("disk {leaf}"), blocks * BLOCK_BYTES_U64, &clock);
        let device = disk.device();
        Arc::new(WornDisk { disk, device, bad: Mutex::default(), reads: AtomicU64::new(0) })
    };
    let disks: Vec<Arc<WornDisk>> = (0..leaves).map(disk).collect();
    let devices = disks.iter().map(|disk| Arc::clone(disk) as Arc<dyn BlockDevice>).collect();
    let vdev = TopLevelVdev::group(VdevId(1), 0, kind, devices);
    (Dmu::over(Arc::new(Pool::from_vdevs(vec![vdev])), 0), disks)
}

/// A unit on a mirror of two of which only the first counts as up to date, though the second has everything that is written
/// from now on, too.
pub(crate) fn late_mirror(blocks: u64) -> (Dmu, Vec<Arc<WornDisk>>) {
    let (dmu, disks) = worn_unit(VdevKind::Mirror, 2, blocks);
    dmu.pool().offline(VdevId(1), 1).unwrap();
    dmu.pool().online(VdevId(1), 1).unwrap();
    (dmu, disks)
}

/// A unit on one vdev of `kind`, and its disks of `blocks` blocks each.
pub(crate) fn unit(kind: VdevKind, leaves: usize, blocks: u64) -> (Dmu, Vec<SimDisk>) {
    let clock = SimClock::new(1);
    let disk = |leaf: usize| SimDisk::new(&format!("disk {leaf}"), blocks * BLOCK_BYTES_U64, &clock);
    let disks: Vec<SimDisk> = (0..leaves).map(disk).collect();
    let devices = disks.iter().map(|disk| Arc::new(disk.device()) as Arc<dyn BlockDevice>).collect();
    let vdev = TopLevelVdev::group(VdevId(1), 0, kind, devices);
    (Dmu::over(Arc::new(Pool::from_vdevs(vec![vdev])), 0), disks)
}

/// A unit on one vdev of each kind, of disks of `blocks` blocks.
pub(crate) fn layouts(blocks: u64) -> Vec<(&'static str, Dmu)> {
    KINDS.into_iter().map(|(name, kind, leaves)| (name, unit(kind, leaves, blocks).0)).collect()
}
