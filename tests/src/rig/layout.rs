//! The pools that workloads run on, and how their databases are configured.

use super::plug::Plug;
use betree::vdev::{SimClock, SimDisk, SimRng};
use betree::{
    Compression, DatabaseConfiguration, DatasetConfiguration, LeafVdev, MergePolicy,
    StoragePoolConfiguration, StoragePreference, TierConfiguration,
};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Devices of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One device.
    One,
    /// Two devices in one tier.
    TwoInTier,
    /// The log and most data on one tier, large values on another.
    LogAndLarge,
    /// Memory before a durable tier: empty after every crash.
    MemoryOverDurable,
}

impl Layout {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::One, Self::TwoInTier, Self::LogAndLarge, Self::MemoryOverDurable];

    /// Fresh disks, each with its tier.
    #[must_use]
    pub fn disks(self, clock: &SimClock) -> Vec<SimDisk> {
        let disk = |name: &str, kib: u64| SimDisk::new(name, kib << 10, clock);
        match self {
            Self::One => vec![disk("a", 3 << 10)],
            Self::TwoInTier => vec![disk("a", 2 << 10), disk("b", 2 << 10)],
            Self::LogAndLarge => vec![disk("a", 2 << 10), disk("b", 2 << 10)],
            Self::MemoryOverDurable => {
                vec![SimDisk::volatile("m", 512 << 10, clock), disk("a", 3 << 10)]
            }
        }
    }

    /// The tier of each disk.
    fn tiers(self) -> &'static [usize] {
        match self {
            Self::One => &[0],
            Self::TwoInTier => &[0, 0],
            Self::LogAndLarge | Self::MemoryOverDurable => &[0, 1],
        }
    }

    /// The tier that large values are sent to.
    #[must_use]
    pub fn large_preference(self) -> StoragePreference {
        match self {
            Self::LogAndLarge => StoragePreference::FAST,
            _ => StoragePreference::NONE,
        }
    }

    /// Where data can be moved to.
    #[must_use]
    pub fn destinations(self) -> &'static [StoragePreference] {
        const TWO: [StoragePreference; 3] =
            [StoragePreference::FASTEST, StoragePreference::FAST, StoragePreference::NONE];
        match self {
            Self::One | Self::TwoInTier => &TWO[..1],
            Self::LogAndLarge | Self::MemoryOverDurable => &TWO,
        }
    }

    /// Bytes that may be live at one time without running into the end of the pool too often.
    #[must_use]
    pub fn live_bytes(self) -> usize {
        400 << 10
    }

    /// The configuration of a database on `disks`, whose shape depends on `seed`.
    #[must_use]
    pub fn configuration(
        self,
        disks: &[SimDisk],
        pulled: &Arc<AtomicBool>,
        seed: u64,
    ) -> DatabaseConfiguration {
        let mut rng = SimRng::new(seed ^ 0x5A5A);
        let mut tiers = vec![TierConfiguration::default(), TierConfiguration::default()];
        for (disk, tier) in disks.iter().zip(self.tiers()) {
            tiers[*tier].top_level_vdevs.push(LeafVdev::from(Plug::device(disk, pulled)).into());
        }
        let policies = [MergePolicy::Tiered, MergePolicy::LazyLeveled, MergePolicy::Leveled];
        let default_dataset = DatasetConfiguration {
            merge_policy: policies[rng.index(3)],
            fanout: 4,
            leaf_size: 16 << 10,
            block_size: 4 << 10,
            buffer_size: 32 << 10,
            runs_per_buffer: 1 + rng.index(4),
            deltas_per_leaf: 1 + rng.index(4),
            ..DatasetConfiguration::default()
        };
        let compression = if rng.chance(1, 2) { Compression::None } else { Compression::Lz4 };
        let segment_size = 1 << (17 + rng.below(4));
        // The first chunk of a memtable fills the smaller one: then every batch is flushed by itself.
        let memtable_size = if rng.chance(1, 3) { 16 << 10 } else { 64 << 10 };
        DatabaseConfiguration {
            storage: StoragePoolConfiguration { tiers, ..StoragePoolConfiguration::default() },
            alloc_strategy: match self {
                Self::MemoryOverDurable => [vec![0, 1], vec![1], vec![1], vec![1]],
                _ => [vec![0], vec![1], vec![1], vec![1]],
            },
            compression,
            cache_size: 1 << 20,
            memtable_size,
            segment_size,
            background_threads: Some(0),
            sync_interval_ms: None,
            default_dataset,
            ..DatabaseConfiguration::default()
        }
    }
}
