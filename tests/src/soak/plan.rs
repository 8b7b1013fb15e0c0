//! Where a pool lies and how it is opened, in a form that goes through a command line.

use betree::vdev::SimRng;
use betree::{
    AccessMode, Compression, DatabaseConfiguration, DatasetConfiguration, FileLeaf, LeafVdev,
    StoragePoolConfiguration, TierConfiguration, Vdev,
};
use std::path::{Path, PathBuf};

/// Length of each file; sparse.
const FILE_BYTES: u64 = 256 << 20;

/// A pool, and one way to open it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Folder with the files of the pool and the oracle.
    pub folder: PathBuf,
    /// Seed of the batches and of the shape of the trees.
    pub seed: u64,
    /// One tier or two.
    pub tiers: usize,
    /// Whether files are opened for direct I/O.
    pub direct: bool,
}

impl Plan {
    /// The words for [`Plan::from_words`].
    #[must_use]
    pub fn words(&self) -> [String; 4] {
        let folder = self.folder.display().to_string();
        [folder, self.seed.to_string(), self.tiers.to_string(), u8::from(self.direct).to_string()]
    }

    /// The plan of a command line.
    #[must_use]
    pub fn from_words(words: &[String]) -> Option<Self> {
        let [folder, seed, tiers, direct] = words else { return None };
        let tiers = tiers.parse().ok().filter(|tiers| (1..=2).contains(tiers))?;
        Some(Self { folder: folder.into(), seed: seed.parse().ok()?, tiers, direct: direct == "1" })
    }

    /// The files of the pool.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        ["fast.img", "slow.img"].iter().take(self.tiers).map(|name| self.folder.join(name)).collect()
    }

    /// Where the numbers of synced batches are.
    #[must_use]
    pub fn oracle(&self) -> PathBuf {
        self.folder.join("oracle")
    }

    /// The configuration of the pool in `folder`, which may be a copy.
    #[must_use]
    pub fn configuration_in(&self, folder: &Path, access_mode: AccessMode) -> DatabaseConfiguration {
        let mut rng = SimRng::new(self.seed);
        let tiers = self.files().into_iter().map(|file| {
            let path = folder.join(file.file_name().unwrap_or_default());
            let leaf =
                FileLeaf { size: Some(FILE_BYTES), sparse: true, direct: self.direct, ..FileLeaf::new(path) };
            TierConfiguration::new(vec![Vdev::Leaf(LeafVdev::File(leaf))])
        });
        let compression = [Compression::None, Compression::Lz4, Compression::Zstd { level: 1 }][rng.index(3)];
        DatabaseConfiguration {
            storage: StoragePoolConfiguration {
                tiers: tiers.collect(),
                ..StoragePoolConfiguration::default()
            },
            access_mode,
            compression,
            cache_size: 8 << 20,
            memtable_size: 64 << rng.below(3) << 10,
            segment_size: 1 << 20,
            background_threads: Some(2),
            sync_interval_ms: None,
            default_dataset: DatasetConfiguration {
                fanout: 4 + rng.index(5),
                leaf_size: 256 << 10,
                buffer_size: 256 << 10,
                ..DatasetConfiguration::default()
            },
            ..DatabaseConfiguration::default()
        }
    }

    /// The configuration of the pool itself.
    #[must_use]
    pub fn configuration(&self, access_mode: AccessMode) -> DatabaseConfiguration {
        self.configuration_in(&self.folder, access_mode)
    }
}
