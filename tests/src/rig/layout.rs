//! The pools that workloads run on, and how their databases are configured.

use super::plug::Plug;
use betree::vdev::{SimClock, SimDisk, SimRng};
use betree::{
    Compression, DatabaseConfiguration, DatasetConfiguration, LeafVdev, MergePolicy,
    StoragePoolConfiguration, StoragePreference, TierConfiguration, Vdev,
};
use std::ops::Range;
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
    /// A mirror of two.
    Mirror2,
    /// A mirror of three.
    Mirror3,
    /// Parity over three.
    Parity1Of3,
    /// Parity over five.
    Parity1Of5,
    /// Two parities over four.
    Parity2Of4,
    /// Two parities over six.
    Parity2Of6,
    /// A mirror for log and metadata, and parity below it.
    MirrorOverParity,
}

/// A top-level vdev of a layout.
#[derive(Debug, Clone, Copy)]
struct Group {
    tier: usize,
    kind: fn(Vec<LeafVdev>) -> Vdev,
    disks: usize,
    /// Length of each disk.
    kib: u64,
    /// Disks that may be lost.
    redundancy: usize,
}

fn one(mut leaves: Vec<LeafVdev>) -> Vdev {
    Vdev::Leaf(leaves.swap_remove(0))
}

impl Layout {
    /// Those that need every device.
    pub const ALL: [Self; 4] = [Self::One, Self::TwoInTier, Self::LogAndLarge, Self::MemoryOverDurable];

    /// Those that can do without one.
    pub const REDUNDANT: [Self; 7] = [
        Self::Mirror2,
        Self::Mirror3,
        Self::Parity1Of3,
        Self::Parity1Of5,
        Self::Parity2Of4,
        Self::Parity2Of6,
        Self::MirrorOverParity,
    ];

    fn groups(self) -> Vec<Group> {
        let single = |tier, kib| Group { tier, kind: one, disks: 1, kib, redundancy: 0 };
        let mirror =
            |tier, disks: usize, kib| Group { tier, kind: Vdev::Mirror, disks, kib, redundancy: disks - 1 };
        let parity1 = |tier, disks, kib| Group { tier, kind: Vdev::Parity1, disks, kib, redundancy: 1 };
        let parity2 = |tier, disks, kib| Group { tier, kind: Vdev::Parity2, disks, kib, redundancy: 2 };
        match self {
            Self::One => vec![single(0, 3 << 10)],
            Self::TwoInTier => vec![single(0, 2 << 10), single(0, 2 << 10)],
            Self::LogAndLarge => vec![single(0, 2 << 10), single(1, 2 << 10)],
            Self::MemoryOverDurable => vec![single(0, 512), single(1, 3 << 10)],
            Self::Mirror2 => vec![mirror(0, 2, 3 << 10)],
            Self::Mirror3 => vec![mirror(0, 3, 3 << 10)],
            Self::Parity1Of3 => vec![parity1(0, 3, 3 << 10)],
            Self::Parity1Of5 => vec![parity1(0, 5, 2 << 10)],
            Self::Parity2Of4 => vec![parity2(0, 4, 4 << 10)],
            Self::Parity2Of6 => vec![parity2(0, 6, 3 << 10)],
            Self::MirrorOverParity => vec![mirror(0, 2, 2 << 10), parity1(1, 3, 2 << 10)],
        }
    }

    /// For each disk, the disks of its vdev and how many of these may be lost.
    #[must_use]
    pub fn companions(self) -> Vec<(Range<usize>, usize)> {
        let mut out = Vec::new();
        for group in self.groups() {
            let start = out.len();
            out.extend((0..group.disks).map(|_| (start..start + group.disks, group.redundancy)));
        }
        out
    }

    /// Whether blocks are spread over several disks, so that accounts are rounded.
    #[must_use]
    pub fn is_striped(self) -> bool {
        !matches!(
            self,
            Self::One
                | Self::TwoInTier
                | Self::LogAndLarge
                | Self::MemoryOverDurable
                | Self::Mirror2
                | Self::Mirror3
        )
    }

    /// Fresh disks, each with its tier.
    #[must_use]
    pub fn disks(self, clock: &SimClock) -> Vec<SimDisk> {
        let mut names = 'a'..;
        let mut disk = |kib: u64| {
            let name = names.next().map_or_else(String::new, String::from);
            SimDisk::new(&name, kib << 10, clock)
        };
        let mut disks = Vec::new();
        for group in self.groups() {
            match (self, group.tier) {
                (Self::MemoryOverDurable, 0) => disks.push(SimDisk::volatile("m", group.kib << 10, clock)),
                _ => disks.extend((0..group.disks).map(|_| disk(group.kib))),
            }
        }
        disks
    }

    /// The tier that large values are sent to.
    #[must_use]
    pub fn large_preference(self) -> StoragePreference {
        match self {
            Self::LogAndLarge | Self::MirrorOverParity => StoragePreference::FAST,
            _ => StoragePreference::NONE,
        }
    }

    /// Where data can be moved to.
    #[must_use]
    pub fn destinations(self) -> &'static [StoragePreference] {
        const TWO: [StoragePreference; 3] =
            [StoragePreference::FASTEST, StoragePreference::FAST, StoragePreference::NONE];
        match self {
            Self::LogAndLarge | Self::MemoryOverDurable | Self::MirrorOverParity => &TWO,
            _ => &TWO[..1],
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
        self.configuration_behind(0, disks, pulled, seed)
    }

    /// As [`Layout::configuration`], without the first `gone` top-level vdevs.
    #[must_use]
    pub fn configuration_behind(
        self,
        gone: usize,
        disks: &[SimDisk],
        pulled: &Arc<AtomicBool>,
        seed: u64,
    ) -> DatabaseConfiguration {
        let mut rng = SimRng::new(seed ^ 0x5A5A);
        let mut tiers = vec![TierConfiguration::default(), TierConfiguration::default()];
        let mut left = disks.iter();
        for (number, group) in self.groups().into_iter().enumerate() {
            let leaves: Vec<LeafVdev> =
                left.by_ref().take(group.disks).map(|disk| Plug::device(disk, pulled).into()).collect();
            if !leaves.is_empty() && number >= gone {
                tiers[group.tier].top_level_vdevs.push((group.kind)(leaves));
            }
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
            // Without a random number of its own: what follows stays what it was.
            large_value_size: if seed.is_multiple_of(2) { 4 << 10 } else { 16 << 10 },
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
