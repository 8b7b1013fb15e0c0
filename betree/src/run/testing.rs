//! What the tests of runs share: random numbers, pools in memory, models.

use super::{EntryRef, Kind, Run, RunOptions, RunWriter};
use crate::base::ids::VdevId;
use crate::base::preference::StoragePreference;
use crate::dmu::Dmu;
use crate::pool::{Pool, TopLevelVdev};
use crate::vdev::{BlockDevice, MemoryDevice};
use std::cmp::Reverse;
use std::sync::Arc;

/// Random numbers from a seed (SplitMix64, Steele et al., OOPSLA 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// A unit over memory devices of these sizes in blocks, and the devices.
pub fn memory(blocks: &[u64], cache_bytes: usize) -> (Dmu, Vec<Arc<MemoryDevice>>) {
    let devices: Vec<_> = blocks.iter().map(|blocks| Arc::new(MemoryDevice::new(blocks * 4096))).collect();
    let vdevs = devices.iter().zip(blocks).enumerate().map(|(index, (device, blocks))| {
        TopLevelVdev::leaf(VdevId(index as u32 + 1), 0, *blocks, Arc::clone(device) as Arc<dyn BlockDevice>)
    });
    (Dmu::over(Arc::new(Pool::from_vdevs(vdevs.collect())), cache_bytes), devices)
}

/// An entry that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: Vec<u8>,
    pub sequence: u64,
    pub kind: Kind,
    pub preference: StoragePreference,
    pub payload: Vec<u8>,
}

impl Entry {
    pub fn of(entry: EntryRef<'_>) -> Self {
        Self {
            key: entry.key.to_vec(),
            sequence: entry.sequence,
            kind: entry.kind,
            preference: entry.preference,
            payload: entry.payload.to_vec(),
        }
    }

    pub fn borrow(&self) -> EntryRef<'_> {
        EntryRef {
            key: &self.key,
            sequence: self.sequence,
            kind: self.kind,
            preference: self.preference,
            payload: &self.payload,
        }
    }
}

pub fn sort(entries: &mut Vec<Entry>) {
    entries.sort_by(|a, b| (&a.key, Reverse(a.sequence)).cmp(&(&b.key, Reverse(b.sequence))));
    entries.dedup_by(|a, b| a.key == b.key && a.sequence == b.sequence);
}

/// Shapes of keys.
#[derive(Debug, Clone, Copy)]
pub enum Keys {
    Random,
    Short,
    LongPrefix,
    Huge,
}

/// `count` sorted entries.
pub fn entries(random: &mut Random, count: u64, keys: Keys) -> Vec<Entry> {
    let long = random.bytes(300);
    let huge = vec![7; 64 << 10];
    let mut out: Vec<Entry> = (0..count)
        .map(|_| {
            let key = match keys {
                Keys::Random => random.bytes(16),
                Keys::Short => {
                    let len = random.below(4) as usize;
                    (0..len).map(|_| random.below(3) as u8).collect()
                }
                Keys::LongPrefix => {
                    let cut = if random.below(10) == 0 { random.below(300) as usize } else { 300 };
                    [&long[..cut], &random.below(count).to_be_bytes()[..]].concat()
                }
                Keys::Huge if random.below(2) == 0 => {
                    [&huge[..(64 << 10) - 8], &random.below(count).to_be_bytes()[..]].concat()
                }
                Keys::Huge => huge[..random.below(64 << 10) as usize].to_vec(),
            };
            let kind =
                [Kind::Put, Kind::Put, Kind::Delete, Kind::Upsert, Kind::PutLarge][random.below(5) as usize];
            let len = match random.below(100) {
                0 => random.below(20_000),
                1..20 => 0,
                _ => random.below(60),
            };
            let payload =
                if kind == Kind::Delete { Vec::new() } else { vec![random.next() as u8; len as usize] };
            let preference = [StoragePreference::NONE, StoragePreference::FAST][random.below(2) as usize];
            Entry { key, sequence: random.below(1 << 20), kind, preference, payload }
        })
        .collect();
    sort(&mut out);
    out
}

pub fn write(dmu: &Dmu, options: RunOptions, entries: &[Entry]) -> Arc<Run> {
    let mut writer = RunWriter::new(dmu, options, 0);
    entries.iter().for_each(|entry| writer.add(entry.borrow()).unwrap());
    writer.finish().unwrap().unwrap()
}
