//! The configuration of a database: by code, from JSON, from the environment.
//!
//! ```text
//!   JSON file or text ──► DatabaseConfiguration ◄── BETREE__STORAGE__DEGRADED=true …
//!                               │    │
//!                  validate() ◄─┘    └─► write_config_json()
//! ```
//!
//! * Every JSON document of Haura's storage stack (github.com/parcio/haura) loads unchanged; what we add is optional.
//! * A name that is not known is an error, as is a name given twice. `"$schema"` and `"version": 1` are allowed at the
//!   top and ignored.
//! * Sizes are whole bytes or strings such as `"4GiB"`.
//! * A document that was written loads as an equal configuration.
//! * Settings of layers that do not exist yet are kept and reported by
//!   [`DatabaseConfiguration::inactive_settings`].
//!
//! ```
//! use betree::database::{AccessMode, DatabaseConfiguration};
//!
//! let config = DatabaseConfiguration::from_json_str(
//!     r#"{"storage": {"tiers": [{"top_level_vdevs": [{"mem": "1GiB"}]}]}, "access_mode": "OpenOrCreate"}"#,
//! )?;
//! assert_eq!(config.access_mode, AccessMode::OpenOrCreate);
//! assert_eq!(DatabaseConfiguration::from_json_str(&config.to_json_string()?)?, config);
//!
//! let error = DatabaseConfiguration::from_json_str(r#"{"default_storage_class": 7}"#).unwrap_err();
//! assert_eq!(error.path(), Some("default_storage_class"));
//! # Ok::<(), betree::pool::ConfigurationError>(())
//! ```

mod dataset;
mod document;
mod environment;
mod migration;

pub use dataset::DatasetConfiguration;
pub use migration::{LfuConfig, LfuMode, MigrationConfig, MigrationPolicies, RlConfig};

use crate::base::compression::Compression;
use crate::base::preference::TIER_COUNT;
use crate::base::units::BLOCK_BYTES_U64;
use crate::pool::{Bytes, ConfigurationError, FieldOf, Object, StoragePoolConfiguration, bytes};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

/// Largest cache and memtable, 64 TiB: beyond it a typo is likelier than such a machine.
const MEMORY_BYTES_MAX: u64 = 1 << 46;
/// Smallest memtable; tests fill it with a handful of writes.
const MEMTABLE_BYTES_MIN: u64 = 4 << 10;
/// Smallest segment, for tests.
const SEGMENT_BYTES_MIN: u64 = 128 << 10;
/// Largest segment: its bitmap of one bit per block is 32 KiB.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Smallest log at which a checkpoint may start.
const CHECKPOINT_LOG_BYTES_MIN: u64 = 64 << 10;
/// Largest log at which a checkpoint may start, 1 TiB: it is what a crash replays.
const CHECKPOINT_LOG_BYTES_MAX: u64 = 1 << 40;
/// Slowest scrub: 64 KiB per second.
const SCRUB_BYTES_PER_SECOND_MIN: u64 = 64 << 10;
/// Most background threads.
const BACKGROUND_THREADS_MAX: usize = 1024;
/// Longest interval of syncs, one year: clocks overflow beyond what no one waits for.
const SYNC_INTERVAL_MS_MAX: u64 = 365 * 24 * 3600 * 1000;

/// What to do with the devices that the configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum AccessMode {
    /// Open the database on them; an error without one.
    #[default]
    OpenIfExists,
    /// Make a new database; what was on them is lost.
    AlwaysCreateNew,
    /// Open the database on them, make a new one where there is none.
    OpenOrCreate,
}

/// Everything that can be set. Fields have the names and meanings of the JSON document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DatabaseConfiguration {
    /// The storage pool.
    pub storage: StoragePoolConfiguration,
    /// For each storage class, the tiers to try in order; at most four. Tiers without vdevs are skipped, see
    /// [`DatabaseConfiguration::allocation_order`].
    pub alloc_strategy: [Vec<u8>; TIER_COUNT],
    /// Storage class (0…3) of what has no preference.
    pub default_storage_class: u8,
    /// Compression of blocks, where a dataset does not say otherwise. JSON: `"None"`, `"Lz4"` or
    /// `{"Zstd": {"level": 1…22}}`; `{"Lz4": {"level": n}}` is read as `"Lz4"`, which has no levels.
    pub compression: Compression,
    /// Bytes of memory for cached blocks and dirty headers.
    pub cache_size: usize,
    /// Whether to open or to create.
    pub access_mode: AccessMode,
    /// Milliseconds between syncs in the background; `None`: only on demand.
    pub sync_interval_ms: Option<u64>,
    /// Moves data between tiers. Kept, without effect yet.
    pub migration_policy: Option<MigrationPolicies>,
    /// Writes measurements. Kept, without effect yet.
    pub metrics: Option<MetricsConfiguration>,
    /// Where allocations are recorded. Kept, without effect yet.
    pub allocation_log_file_path: PathBuf,
    /// Bytes at which a dataset's memtable is frozen and flushed. A larger one makes fewer, larger flushes; it is
    /// replayed after a crash.
    pub memtable_size: usize,
    /// Tier (0…3) of the intent log; `None`: the fastest that is redundant enough.
    pub log_tier: Option<u8>,
    /// Bytes of intent log at which a checkpoint starts; `None`: derived from the size of memtables and pool.
    pub checkpoint_log_bytes: Option<u64>,
    /// Bytes of a segment, the unit of allocation state, fixed when a pool is created: a power of two from 128 KiB to
    /// 1 GiB. Small ones are for tests.
    pub segment_size: u64,
    /// Bytes per second at which a scrub or resilver reads, of each copy; `None`: as fast as the devices, but for half of the
    /// time while others use them.
    pub scrub_bytes_per_second: Option<u64>,
    /// Threads that flush, merge and checkpoint; `None`: chosen from the number of processors.
    pub background_threads: Option<usize>,
    /// What datasets are created with.
    pub default_dataset: DatasetConfiguration,
}

impl Default for DatabaseConfiguration {
    fn default() -> Self {
        Self {
            storage: StoragePoolConfiguration::default(),
            alloc_strategy: [vec![0], vec![1], vec![2], vec![3]],
            default_storage_class: 0,
            compression: Compression::None,
            cache_size: 256 << 20,
            access_mode: AccessMode::OpenIfExists,
            sync_interval_ms: Some(1000),
            migration_policy: None,
            metrics: None,
            allocation_log_file_path: PathBuf::from("allocation_log.bin"),
            memtable_size: 32 << 20,
            log_tier: None,
            checkpoint_log_bytes: None,
            segment_size: SEGMENT_BYTES_MAX,
            scrub_bytes_per_second: None,
            background_threads: None,
            default_dataset: DatasetConfiguration::default(),
        }
    }
}

impl DatabaseConfiguration {
    /// For each storage class, the tiers to try, in order: those of `alloc_strategy` that have vdevs, each once.
    ///
    /// Where none of them has any (the default strategy on a pool with one tier, or an empty list), the class goes to
    /// the next slower tier that has vdevs, else to the next faster one: a preference for a tier that does not exist
    /// never makes a write fail. A tier that is listed and full is another matter: only the list is tried.
    #[must_use]
    pub fn allocation_order(&self) -> [Vec<u8>; TIER_COUNT] {
        std::array::from_fn(|class| {
            let has_tier = |tier: &u8| self.storage.has_tier(*tier);
            let mut order: Vec<u8> = Vec::new();
            for tier in self.alloc_strategy[class].iter().copied().filter(has_tier) {
                if !order.contains(&tier) {
                    order.push(tier);
                }
            }
            if order.is_empty() {
                let class = class as u8;
                let slower = class..TIER_COUNT as u8;
                order.extend(slower.chain((0..class).rev()).find(has_tier));
            }
            order
        })
    }

    /// Checks every setting, without touching a device. All that loads from JSON or the environment has been checked.
    ///
    /// # Errors
    /// [`ConfigurationError::Invalid`] with the path of the first field that is wrong.
    pub fn validate(&self) -> Result<(), ConfigurationError> {
        self.storage.validate_at("storage.")?;
        for (class, tiers) in self.alloc_strategy.iter().enumerate() {
            let at = || format!("alloc_strategy[{class}]");
            check(tiers.len() <= TIER_COUNT, at, || {
                format!("{} tiers, but at most {TIER_COUNT}", tiers.len())
            })?;
            for (index, tier) in tiers.iter().enumerate() {
                check_tier(*tier, || format!("alloc_strategy[{class}][{index}]"))?;
            }
        }
        check_tier(self.default_storage_class, || "default_storage_class".to_owned())?;
        check_compression(self.compression, "compression")?;
        check_size("cache_size", self.cache_size as u64, 0, MEMORY_BYTES_MAX)?;
        check_size("memtable_size", self.memtable_size as u64, MEMTABLE_BYTES_MIN, MEMORY_BYTES_MAX)?;
        if let Some(interval) = self.sync_interval_ms {
            check(
                (1..=SYNC_INTERVAL_MS_MAX).contains(&interval),
                || "sync_interval_ms".to_owned(),
                || {
                    format!(
                        "{interval} is not from 1 to {SYNC_INTERVAL_MS_MAX} (a year); null switches it off"
                    )
                },
            )?;
        }
        if let Some(rate) = self.scrub_bytes_per_second {
            check_size("scrub_bytes_per_second", rate, SCRUB_BYTES_PER_SECOND_MIN, u64::MAX)?;
        }
        if let Some(tier) = self.log_tier {
            let at = || "log_tier".to_owned();
            check_tier(tier, at)?;
            let there = self.storage.is_empty() || self.storage.has_tier(tier);
            check(there, at, || format!("tier {tier} has no vdev"))?;
        }
        if let Some(bytes) = self.checkpoint_log_bytes {
            check_size("checkpoint_log_bytes", bytes, CHECKPOINT_LOG_BYTES_MIN, CHECKPOINT_LOG_BYTES_MAX)?;
        }
        check_size("segment_size", self.segment_size, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)?;
        check(
            self.segment_size.is_power_of_two(),
            || "segment_size".to_owned(),
            || format!("{} bytes are no power of two", self.segment_size),
        )?;
        if let Some(threads) = self.background_threads {
            check(
                threads <= BACKGROUND_THREADS_MAX,
                || "background_threads".to_owned(),
                || format!("{threads} threads, but at most {BACKGROUND_THREADS_MAX}"),
            )?;
        }
        if let Some(policy) = &self.migration_policy {
            policy.validate_at("migration_policy.")?;
        }
        self.default_dataset.validate_at("default_dataset.")
    }

    /// Paths of the settings that differ from their default and have no effect yet, in the order of the fields.
    #[must_use]
    pub fn inactive_settings(&self) -> Vec<String> {
        let default = Self::default();
        let mut inactive = self.storage.inactive_settings_at("storage.");
        for (differs, path) in [
            (self.migration_policy != default.migration_policy, "migration_policy"),
            (self.metrics != default.metrics, "metrics"),
            (self.allocation_log_file_path != default.allocation_log_file_path, "allocation_log_file_path"),
        ] {
            if differs {
                inactive.push(path.to_owned());
            }
        }
        inactive
    }
}

/// Measurements that are written at an interval, one JSON object per line. Kept, without effect yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfiguration {
    /// Whether they are written.
    pub enabled: bool,
    /// Milliseconds between two lines.
    pub interval_ms: u32,
    /// The file that lines are appended to.
    pub output_path: PathBuf,
}

impl Default for MetricsConfiguration {
    fn default() -> Self {
        Self { enabled: true, interval_ms: 500, output_path: PathBuf::from("betree-metrics.jsonl") }
    }
}

fn check(
    holds: bool,
    path: impl FnOnce() -> String,
    message: impl FnOnce() -> String,
) -> Result<(), ConfigurationError> {
    if holds { Ok(()) } else { Err(ConfigurationError::Invalid { path: path(), message: message() }) }
}

fn check_tier(tier: u8, path: impl FnOnce() -> String) -> Result<(), ConfigurationError> {
    check(usize::from(tier) < TIER_COUNT, path, || {
        format!("{tier} is not a storage class; they are 0 (FASTEST) to {} (SLOWEST)", TIER_COUNT - 1)
    })
}

fn check_size(path: &str, bytes: u64, least: u64, most: u64) -> Result<(), ConfigurationError> {
    check(
        (least..=most).contains(&bytes),
        || path.to_owned(),
        || format!("{bytes} bytes are not from {least} to {most} bytes"),
    )
}

fn check_blocks(path: &str, bytes: u64) -> Result<(), ConfigurationError> {
    check(
        bytes.is_multiple_of(BLOCK_BYTES_U64),
        || path.to_owned(),
        || format!("{bytes} bytes are no multiple of {BLOCK_BYTES_U64}"),
    )
}

fn check_compression(compression: Compression, path: &str) -> Result<(), ConfigurationError> {
    match compression {
        Compression::Zstd { level } => check(
            (1..=22).contains(&level),
            || format!("{path}.Zstd.level"),
            || format!("{level} is not a zstd level; they are 1 (fast) to 22 (small)"),
        ),
        Compression::None | Compression::Lz4 => Ok(()),
    }
}

impl<'de> Deserialize<'de> for DatabaseConfiguration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ConfigurationVisitor)
    }
}

/// Reads the document; not derived, because `$schema` and `version` are no fields.
struct ConfigurationVisitor;

impl<'de> Visitor<'de> for ConfigurationVisitor {
    type Value = DatabaseConfiguration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the settings of a database")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        const FIELDS: &[&str] = &[
            "$schema",
            "version",
            "storage",
            "alloc_strategy",
            "default_storage_class",
            "compression",
            "cache_size",
            "access_mode",
            "sync_interval_ms",
            "migration_policy",
            "metrics",
            "allocation_log_file_path",
            "memtable_size",
            "log_tier",
            "checkpoint_log_bytes",
            "segment_size",
            "scrub_bytes_per_second",
            "background_threads",
            "default_dataset",
        ];
        let mut config = DatabaseConfiguration::default();
        let mut seen = HashSet::new();
        while let Some(field) = map.next_key_seed(FieldOf(FIELDS))? {
            if !seen.insert(field) {
                return Err(A::Error::duplicate_field(field));
            }
            match field {
                "$schema" => {
                    map.next_value::<IgnoredAny>()?;
                }
                "version" => {
                    map.next_value::<Version>()?;
                }
                "storage" => config.storage = map.next_value::<Object<_>>()?.0,
                "alloc_strategy" => config.alloc_strategy = map.next_value::<AllocStrategy>()?.0,
                "default_storage_class" => config.default_storage_class = map.next_value()?,
                "compression" => config.compression = map.next_value::<AnyCompression>()?.0,
                "cache_size" => config.cache_size = map.next_value::<MemoryBytes>()?.0,
                "access_mode" => config.access_mode = map.next_value()?,
                "sync_interval_ms" => config.sync_interval_ms = map.next_value()?,
                "migration_policy" => config.migration_policy = map.next_value()?,
                "metrics" => {
                    config.metrics = map.next_value::<Option<Object<_>>>()?.map(|Object(metrics)| metrics);
                }
                "allocation_log_file_path" => config.allocation_log_file_path = map.next_value()?,
                "memtable_size" => config.memtable_size = map.next_value::<MemoryBytes>()?.0,
                "log_tier" => config.log_tier = map.next_value()?,
                "checkpoint_log_bytes" => {
                    config.checkpoint_log_bytes =
                        map.next_value::<Option<Bytes>>()?.map(|Bytes(bytes)| bytes);
                }
                "segment_size" => config.segment_size = map.next_value::<Bytes>()?.0,
                "scrub_bytes_per_second" => {
                    config.scrub_bytes_per_second =
                        map.next_value::<Option<Bytes>>()?.map(|Bytes(bytes)| bytes);
                }
                "background_threads" => config.background_threads = map.next_value()?,
                _ => config.default_dataset = map.next_value::<Object<_>>()?.0,
            }
        }
        Ok(config)
    }
}

/// A size that this machine can address.
#[derive(Deserialize)]
struct MemoryBytes(#[serde(deserialize_with = "bytes")] usize);

/// The version of the document's form.
struct Version;

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            1 => Ok(Self),
            other => {
                Err(D::Error::custom(format!("version {other} is not known here; this is for version 1")))
            }
        }
    }
}

/// Four lists; not an array of serde's, whose errors speak of trailing characters.
struct AllocStrategy([Vec<u8>; TIER_COUNT]);

impl<'de> Deserialize<'de> for AllocStrategy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let lists = Vec::<Vec<u8>>::deserialize(deserializer)?;
        let count = lists.len();
        lists.try_into().map(Self).map_err(|_| {
            D::Error::custom(format!("expected {TIER_COUNT} lists, one per storage class, found {count}"))
        })
    }
}

/// Compression in all forms that documents have.
struct AnyCompression(Compression);

impl<'de> Deserialize<'de> for AnyCompression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CompressionVisitor)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Level {
    level: u8,
}

struct CompressionVisitor;

impl<'de> Visitor<'de> for CompressionVisitor {
    type Value = AnyCompression;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"None\", \"Lz4\" or {\"Zstd\": {\"level\": 1…22}}")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<AnyCompression, E> {
        match name {
            "None" => Ok(AnyCompression(Compression::None)),
            "Lz4" => Ok(AnyCompression(Compression::Lz4)),
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(name), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyCompression, A::Error> {
        const VARIANTS: &[&str] = &["None", "Lz4", "Zstd"];
        let compression = match map.next_key_seed(FieldOf(VARIANTS))? {
            Some("Zstd") => Compression::Zstd { level: map.next_value::<Level>()?.level },
            // The levels of lz4 are those of another encoder; reading is the same.
            Some("Lz4") => map.next_value::<Level>().map(|_| Compression::Lz4)?,
            Some(_) => map.next_value::<IgnoredAny>().map(|_| Compression::None)?,
            None => return Err(A::Error::custom("an empty object; expected {\"Zstd\": {\"level\": 1…22}}")),
        };
        match map.next_key_seed(FieldOf(VARIANTS))? {
            None => Ok(AnyCompression(compression)),
            Some(second) => Err(A::Error::custom(format!("{second:?} is a second compression; choose one"))),
        }
    }
}

fn optional_compression<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Compression>, D::Error> {
    Ok(Option::<AnyCompression>::deserialize(deserializer)?.map(|AnyCompression(compression)| compression))
}

#[cfg(test)]
mod tests;
