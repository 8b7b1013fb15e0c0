//! A small pool on simulated disks, and ways to change its bytes.

use super::parts::Part;
use crate::base::checksum::crc;
use crate::base::extent::Extent;
use crate::base::ids::{Generation, VdevId};
use crate::base::units::BLOCK_BYTES_U64;
use crate::database::{Database, DatabaseConfiguration, DatasetConfiguration, RootRecord};
use crate::inspect::ground::Ground;
use crate::inspect::{CheckOptions, CheckReport, Code, check};
use crate::pool::format::{End, Superblock};
use crate::pool::{Access, LeafVdev, Pool, StoragePoolConfiguration, TierConfiguration, dump_device};
use crate::pool::{SlotContent, SlotUse};
use crate::vdev::{BlockDevice, SimClock, SimDisk, VdevError};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

pub(super) type Model = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// Disks with a pool, and what its database holds.
pub(super) struct Bench {
    pub disks: Vec<SimDisk>,
    pub configuration: DatabaseConfiguration,
    pub model: Model,
}

pub(super) fn configuration(devices: Vec<Arc<dyn BlockDevice>>) -> DatabaseConfiguration {
    let vdevs = devices.into_iter().map(|device| LeafVdev::from(device).into()).collect();
    DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: vec![TierConfiguration::new(vdevs)],
            ..StoragePoolConfiguration::default()
        },
        compression: crate::Compression::None,
        cache_size: 1 << 20,
        memtable_size: 8 << 10,
        segment_size: 1 << 19,
        background_threads: Some(0),
        sync_interval_ms: None,
        default_dataset: DatasetConfiguration {
            fanout: 4,
            leaf_size: 8 << 10,
            block_size: 4 << 10,
            buffer_size: 16 << 10,
            runs_per_buffer: 4,
            deltas_per_leaf: 4,
            ..DatasetConfiguration::default()
        },
        ..DatabaseConfiguration::default()
    }
}

pub(super) fn devices(disks: &[SimDisk]) -> Vec<Arc<dyn BlockDevice>> {
    disks.iter().map(|disk| Arc::new(disk.device()) as Arc<dyn BlockDevice>).collect()
}

impl Bench {
    /// A pool of one disk: two datasets of several levels, large values, a full ring of superblocks, and a log behind
    /// the newest checkpoint with records in several frames.
    pub fn new() -> Self {
        Self::with_keys(160)
    }

    pub fn with_keys(keys: u32) -> Self {
        let clock = SimClock::new(1);
        let disk = SimDisk::new("disk", 4 << 20, &clock);
        let settings = configuration(devices(std::slice::from_ref(&disk)));
        let database = Database::create_with(settings, false).unwrap();
        let mut model = Model::new();
        let mut put = |name: &str, key: Vec<u8>, value: Vec<u8>| {
            let dataset = database.open_or_create_dataset(name).unwrap();
            dataset.insert(&key, &value).unwrap();
            model.entry(name.to_owned()).or_default().insert(key, value);
        };
        let key = |number: u32| format!("key{number:05}").into_bytes();
        for round in 0..4u32 {
            for name in ["aa", "ab"] {
                for number in 0..keys {
                    let number = (number * 7 + round) % keys;
                    put(name, key(number), format!("value {round} {number} ").repeat(8).into_bytes());
                }
                put(name, key(3 + round), vec![round as u8; 20_000]);
            }
            database.checkpoint().unwrap();
            database.checkpoint().unwrap();
        }
        // Something in the buffers above the leaves.
        for number in (0..keys).step_by(5) {
            put("aa", key(number), b"newer".to_vec());
        }
        database.checkpoint().unwrap();
        for number in (0..keys).step_by(11) {
            put("aa", key(number), b"newest".to_vec());
            put("ab", key(number), b"newest".to_vec());
        }
        database.open_dataset("ab").unwrap().range_delete(key(20)..key(30)).unwrap();
        database.checkpoint().unwrap();
        // No two checkpoints in a row are alike: the fallback shares much with the newest one, and not all.
        put("aa", key(1), b"last".to_vec());
        database.checkpoint().unwrap();
        for number in 0..6 {
            put("aa", key(number), format!("in the log {number}").into_bytes());
            database.sync().unwrap();
        }
        for number in 20..30 {
            model.get_mut("ab").unwrap().remove(&key(number));
        }
        // As after a crash: the log is not empty.
        let disk = SimDisk::from_bytes("disk", &disk.bytes(), &SimClock::new(1));
        database.close().unwrap();
        let configuration = configuration(devices(std::slice::from_ref(&disk)));
        Self { disks: vec![disk], configuration, model }
    }

    pub fn check(&self, deep: bool) -> CheckReport {
        let options = CheckOptions { deep, ..CheckOptions::default() };
        check(&self.configuration, &options, &mut |_| ControlFlow::Continue(())).unwrap()
    }

    /// The different codes that a check finds.
    pub fn codes(&self, deep: bool) -> Vec<Code> {
        let report = self.check(deep);
        report.findings.iter().for_each(|finding| println!("  {finding}"));
        report.codes()
    }

    pub fn ground(&self) -> Ground {
        let (pool, _) = Pool::open(&self.configuration.storage, Access::ReadOnly).unwrap();
        Ground::new(&self.configuration, pool, true).unwrap()
    }

    /// A superblock: the newest, or that of `generation`.
    pub fn superblock(&self, generation: Option<Generation>) -> Superblock {
        let mut found: Option<Superblock> = None;
        for slot in self.disks.iter().flat_map(|disk| dump_device(&disk.device())) {
            if let SlotContent::Superblock(superblock) = slot.content
                && generation.is_none_or(|generation| superblock.generation == generation)
                && found.as_ref().is_none_or(|found| found.generation < superblock.generation)
            {
                found = Some(*superblock);
            }
        }
        found.unwrap()
    }

    pub fn record(&self, ground: &Ground) -> RootRecord {
        RootRecord::decode(&self.superblock(None).payload, &ground.dmu).unwrap()
    }

    /// Changes every copy of the superblock of `generation` for which `choose` is true, with a right checksum.
    pub fn edit_superblock(
        &self,
        generation: Generation,
        choose: impl Fn(End) -> bool,
        change: impl Fn(&mut Superblock),
    ) {
        for disk in &self.disks {
            for slot in dump_device(&disk.device()) {
                if let SlotContent::Superblock(mut found) = slot.content
                    && found.generation == generation
                    && choose(slot.end)
                {
                    change(&mut found);
                    disk.overwrite(slot.block * BLOCK_BYTES_U64, &found.encode());
                }
            }
        }
    }

    /// Changes the payload of the newest superblock.
    pub fn edit_record(&self, change: impl Fn(&mut Vec<u8>)) {
        let newest = self.superblock(None).generation;
        self.edit_superblock(newest, |_| true, |superblock| change(&mut superblock.payload));
    }

    /// Empties the slots of the checkpoint before the newest one.
    pub fn forget_fallback(&self) {
        let previous = self.superblock(None).previous;
        for disk in &self.disks {
            for slot in dump_device(&disk.device()) {
                if let SlotContent::Superblock(found) = slot.content
                    && found.generation == previous
                {
                    disk.overwrite(slot.block * BLOCK_BYTES_U64, &[0; BLOCK_BYTES_U64 as usize]);
                }
            }
        }
    }

    /// Byte of superblock slot `number` at `end` on the first disk.
    pub fn slot_offset(&self, end: End, number: u8) -> u64 {
        let slots = dump_device(&self.disks[0].device());
        let slot = slots.iter().find(|slot| slot.end == end && slot.slot == SlotUse::Superblock(number));
        slot.unwrap().block * BLOCK_BYTES_U64
    }

    /// Bytes `from` of the concatenation of the part's extents.
    fn transfer(&self, part: &Part, mut each: impl FnMut(&SimDisk, u64, std::ops::Range<usize>)) {
        let mut done = 0;
        while done < part.length {
            let at = part.offset + done as u64;
            let (vdev, block) = block_at(&part.extents, at).unwrap();
            let within = at % BLOCK_BYTES_U64;
            let take = ((BLOCK_BYTES_U64 - within) as usize).min(part.length - done);
            each(&self.disks[vdev.0 as usize], block * BLOCK_BYTES_U64 + within, done..done + take);
            done += take;
        }
    }

    pub fn read(&self, part: &Part) -> Vec<u8> {
        let mut bytes = vec![0; part.length];
        self.transfer(part, |disk, offset, range| {
            let block = offset / BLOCK_BYTES_U64 * BLOCK_BYTES_U64;
            let mut page = vec![0; BLOCK_BYTES_U64 as usize];
            disk.device().read_at(&mut page, block).unwrap();
            let within = (offset - block) as usize;
            bytes[range.clone()].copy_from_slice(&page[within..within + range.len()]);
        });
        bytes
    }

    pub fn write(&self, part: &Part, bytes: &[u8]) {
        self.transfer(part, |disk, offset, range| disk.overwrite(offset, &bytes[range]));
    }

    /// Changes a part and makes every checksum from it up to the superblock right again.
    pub fn edit(&self, parts: &[Part], index: usize, change: impl FnOnce(&mut [u8])) {
        let mut bytes = self.read(&parts[index]);
        change(&mut bytes);
        self.replace(parts, index, bytes);
    }

    fn replace(&self, parts: &[Part], index: usize, mut bytes: Vec<u8>) {
        let part = &parts[index];
        if part.is_sealed() {
            let sum = crate::base::checksum::crc_append(crc(&bytes[..12]), &bytes[16..]);
            bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        }
        self.write(part, &bytes);
        let sum = part.pointer_checksum(&bytes).to_le_bytes();
        let at = part.checksum_at;
        match part.parent {
            Some(parent) => self.edit(parts, parent, |bytes| bytes[at..at + 4].copy_from_slice(&sum)),
            None => self.edit_record(|payload| payload[at..at + 4].copy_from_slice(&sum)),
        }
    }
}

/// A device of which one block does not read.
#[derive(Debug)]
pub(super) struct BadBlock {
    pub device: Arc<dyn BlockDevice>,
    pub block: u64,
}

impl BlockDevice for BadBlock {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn len(&self) -> u64 {
        self.device.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
        let bad = self.block * BLOCK_BYTES_U64;
        if offset < bad + BLOCK_BYTES_U64 && bad < offset + buf.len() as u64 {
            let (device, operation) = (self.name().to_owned(), crate::vdev::Operation::Read);
            let source = std::io::Error::other("a bad sector");
            return Err(VdevError::Io { device, operation, offset, source });
        }
        self.device.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
        self.device.write_at(buf, offset)
    }

    fn flush(&self) -> Result<(), VdevError> {
        self.device.flush()
    }
}

/// The only vdev of a bench.
pub(super) const DISK: VdevId = VdevId(0);

/// The block at byte `offset` of the concatenation of `extents`, which are on leaves.
fn block_at(extents: &[Extent], offset: u64) -> Option<(VdevId, u64)> {
    let mut skip = offset / BLOCK_BYTES_U64;
    for extent in extents {
        if skip < u64::from(extent.blocks) {
            return Some((extent.vdev, extent.block + skip));
        }
        skip -= u64::from(extent.blocks);
    }
    None
}
