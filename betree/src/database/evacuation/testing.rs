//! Databases out of which vdevs go, for tests.

use super::{EvacuationState, EvacuationStatus};
use crate::base::extent::Extent;
use crate::base::ids::VdevId;
use crate::base::units::BLOCK_BYTES_U64;
use crate::database::{Database, DatabaseConfiguration, DatasetConfiguration, Result};
use crate::pool::{LeafVdev, StoragePoolConfiguration, TierConfiguration, Vdev};
use crate::tree::Value;
use crate::vdev::{BlockDevice, SimClock, SimDisk, SimRng};
use std::collections::BTreeMap;
use std::sync::Arc;

pub type Grouped = fn(Vec<LeafVdev>) -> Vdev;
pub type Content = BTreeMap<Vec<u8>, Vec<u8>>;

pub fn alone(mut leaves: Vec<LeafVdev>) -> Vdev {
    Vdev::Leaf(leaves.remove(0))
}

/// Kinds of vdevs, by what they are called, with as many leaves, of that many MiB each.
pub const KINDS: [(&str, Grouped, usize, u64); 4] = [
    ("leaf", alone, 1, 24),
    ("mirror", Vdev::Mirror, 2, 24),
    ("parity1", Vdev::Parity1, 3, 12),
    ("parity2", Vdev::Parity2, 4, 16),
];

/// A vdev and its disks.
#[derive(Clone)]
pub struct Place {
    pub tier: usize,
    pub grouped: Grouped,
    pub disks: Vec<SimDisk>,
}

pub fn place(clock: &SimClock, name: &str, tier: usize, kind: usize) -> Place {
    let (_, grouped, leaves, mib) = KINDS[kind];
    let disk = |leaf: usize| SimDisk::new(&format!("{name}{leaf}"), mib << 20, clock);
    Place { tier, grouped, disks: (0..leaves).map(disk).collect() }
}

pub fn configuration(places: &[Place], threads: usize) -> DatabaseConfiguration {
    let leaf = |disk: &SimDisk| LeafVdev::from(Arc::new(disk.device()) as Arc<dyn BlockDevice>);
    let mut tiers = vec![Vec::new(); 4];
    for place in places {
        tiers[place.tier].push((place.grouped)(place.disks.iter().map(leaf).collect()));
    }
    DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: tiers.into_iter().map(TierConfiguration::new).collect(),
            ..StoragePoolConfiguration::default()
        },
        cache_size: 1 << 20,
        memtable_size: 8 << 10,
        segment_size: 1 << 19,
        background_threads: Some(threads),
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

/// A database and what is in it.
pub struct Bench {
    pub clock: SimClock,
    pub places: Vec<Place>,
    pub database: Option<Database>,
    pub heads: BTreeMap<String, Content>,
    pub snapshots: BTreeMap<(String, String), Content>,
    pub random: SimRng,
}

pub fn content(entries: impl Iterator<Item = Result<(Value, Value)>>) -> Content {
    entries.map(|entry| entry.unwrap()).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

impl Bench {
    pub fn new(kinds: &[(usize, usize)], seed: u64, threads: usize) -> Self {
        let clock = SimClock::new(seed);
        let named = "abcdef".chars().zip(kinds);
        let places: Vec<Place> =
            named.map(|(name, (tier, kind))| place(&clock, &name.to_string(), *tier, *kind)).collect();
        let database = Database::create_with(configuration(&places, threads), false).unwrap();
        Self {
            clock,
            places,
            database: Some(database),
            heads: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            random: SimRng::new(seed),
        }
    }

    pub fn database(&self) -> Database {
        self.database.clone().unwrap()
    }

    pub fn vdev(&self, at: usize) -> VdevId {
        self.database().core().pool.vdevs()[at].id
    }

    /// Some writes, and something rarer.
    pub fn change(&mut self) {
        let database = self.database();
        let name = ["x", "y", "z"][self.random.index(3)].to_owned();
        let dataset = database.open_or_create_dataset(&name).unwrap();
        let head = self.heads.entry(name.clone()).or_default();
        for _ in 0..10 {
            let key = format!("key {:04}", self.random.below(300)).into_bytes();
            let length = match self.random.below(10) {
                0 => 16_384 + self.random.below(40_000),
                _ => self.random.below(500),
            };
            let mut value = vec![0; length as usize];
            value.chunks_mut(8).for_each(|chunk| {
                let word = self.random.next_u64().to_le_bytes();
                chunk.copy_from_slice(&word[..chunk.len()]);
            });
            dataset.insert(&key, &value).unwrap();
            head.insert(key, value);
        }
        match self.random.below(8) {
            0 => {
                let snapshot = format!("s{}", self.random.next_u64());
                dataset.create_snapshot(&snapshot).unwrap();
                self.snapshots.insert((name, snapshot), head.clone());
            }
            1 => {
                let own = self.snapshots.keys().filter(|(dataset, _)| *dataset == name).cloned();
                let own: Vec<_> = own.collect();
                if own.len() > 2 {
                    let key = &own[self.random.index(own.len())];
                    dataset.delete_snapshot(&key.1).unwrap();
                    self.snapshots.remove(key);
                }
            }
            2 => {
                let from = format!("key {:04}", self.random.below(300)).into_bytes();
                let to = format!("key {:04}", self.random.below(300)).into_bytes();
                if from < to {
                    dataset.range_delete(&from[..]..&to[..]).unwrap();
                    head.retain(|key, _| !(&from..&to).contains(&key));
                }
            }
            3 => {
                database.destroy_dataset(&name).unwrap();
                self.heads.remove(&name);
                self.snapshots.retain(|(dataset, _), _| *dataset != name);
            }
            _ => {}
        }
    }

    /// Everything is what it should be, for readers and for a checker.
    pub fn check(&self) {
        let database = self.database();
        database.drop_cache();
        for (name, head) in &self.heads {
            let dataset = database.open_dataset(name).unwrap();
            assert!(content(dataset.range::<&[u8]>(..)) == *head, "{name}");
        }
        for ((name, snapshot), was) in &self.snapshots {
            let snapshot = database.open_dataset(name).unwrap().open_snapshot(snapshot).unwrap();
            assert!(content(snapshot.range::<&[u8]>(..)) == *was, "snapshot of {name}");
        }
        database.verify().unwrap();
    }

    pub fn close(&mut self) {
        self.database.take().unwrap().close().unwrap();
    }

    pub fn open(&mut self) {
        self.database = Some(Database::open_with(configuration(&self.places, 0)).unwrap());
    }

    pub fn reopen(&mut self) {
        self.close();
        self.open();
    }

    /// The vdevs that did not leave.
    pub fn present(&self) -> Vec<VdevId> {
        self.database().core().pool.present().map(|vdev| vdev.id).collect()
    }

    /// What the maps of those that left are in.
    pub fn map_extents(&self) -> Vec<Extent> {
        self.database().core().dmu.map_extents()
    }

    /// The vdev at `at` goes, and is configured no more.
    pub fn evacuate(&mut self, at: usize) -> EvacuationStatus {
        let vdev = self.vdev(at);
        let status = self.database().evacuate(vdev, "test", |_| true).unwrap();
        assert_eq!((status.state, status.vdev), (EvacuationState::Finished, vdev));
        self.places.remove(at);
        status
    }
}

pub fn is_blank(disk: &SimDisk) -> bool {
    let bytes = disk.bytes();
    let area = 16 * BLOCK_BYTES_U64 as usize;
    bytes[..area].iter().chain(&bytes[bytes.len() - area..]).all(|byte| *byte == 0)
}
