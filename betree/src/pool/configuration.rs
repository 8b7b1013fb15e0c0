//! What a storage pool is made of: tiers of vdevs and how they are opened.
//!
//! The JSON form is the one of Haura's storage stack (github.com/parcio/haura), so that its documents load unchanged;
//! every field has a default, and what we add is optional.
//!
//! ```
//! use betree::pool::{StoragePoolConfiguration, TierConfiguration};
//!
//! let by_words = TierConfiguration::parse_zfs_like(["mirror", "./a.img:1GiB", "./b.img:1GiB"])?;
//! let by_json: TierConfiguration = serde_json::from_str(
//!     r#"{"top_level_vdevs": [{"mirror": [{"path": "./a.img", "size": "1GiB"}, {"path": "./b.img", "size": "1GiB"}]}]}"#,
//! )?;
//! assert_eq!(by_words, by_json);
//! let pool = StoragePoolConfiguration { tiers: vec![by_words], ..Default::default() };
//! pool.validate()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod field;
mod size;
mod vdev;
mod zfs_like;

pub use error::ConfigurationError;
pub(crate) use field::{FieldOf, Object, object};
pub(crate) use size::{Bytes, bytes};
pub use vdev::{DeviceHandle, FileLeaf, LeafVdev, Vdev};

use crate::base::preference::TIER_COUNT;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::HashSet;
use std::fmt;

/// Most top-level vdevs of a tier.
pub const VDEVS_PER_TIER_MAX: usize = 1024;

/// Tiers of vdevs and how they are opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoragePoolConfiguration {
    /// The tiers, fastest first; at most four. A missing one is empty.
    pub tiers: Vec<TierConfiguration>,
    /// Write-back requests in flight per top-level vdev. Kept, without effect yet.
    pub queue_depth_factor: u32,
    /// Threads that serve the members of mirrors and parity beside the caller; `None`: as many as keep all members busy. 0:
    /// members are served one after the other by the caller, as simulation needs it. A number is an upper limit per vdev.
    pub thread_pool_size: Option<u32>,
    /// Pin these threads to processors. Kept, without effect yet.
    pub thread_pool_pinned: bool,
    /// Open the pool although devices are missing, as long as everything can still be read. What is written then is on the
    /// devices that are left, and the others miss it.
    pub degraded: bool,
    /// Files and devices that take the place of members of mirrors and parity that are lost, the first one first. They must be
    /// empty then; a file that does not exist is created.
    pub spares: Vec<LeafVdev>,
}

impl Default for StoragePoolConfiguration {
    fn default() -> Self {
        Self {
            tiers: Vec::new(),
            queue_depth_factor: 20,
            thread_pool_size: None,
            thread_pool_pinned: false,
            degraded: false,
            spares: Vec::new(),
        }
    }
}

impl StoragePoolConfiguration {
    /// Whether tier `class` (0…3) has at least one vdev.
    #[must_use]
    pub fn has_tier(&self, class: u8) -> bool {
        self.tiers.get(usize::from(class)).is_some_and(|tier| !tier.top_level_vdevs.is_empty())
    }

    /// Whether no tier has a vdev. Such a configuration is valid (a program may fill it in) but cannot be opened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tiers.iter().all(|tier| tier.top_level_vdevs.is_empty())
    }

    /// Threads of each vdev with several members.
    pub(super) fn threads(&self) -> usize {
        self.thread_pool_size.map_or(usize::MAX, |threads| threads as usize)
    }

    /// Checks counts, sizes and paths without touching a device.
    ///
    /// # Errors
    /// [`ConfigurationError::Invalid`] with the path of the first field that is wrong, seen from the pool
    /// (`tiers[0].top_level_vdevs[1]`).
    pub fn validate(&self) -> Result<(), ConfigurationError> {
        self.validate_at("")
    }

    /// [`StoragePoolConfiguration::validate`] with paths that start with `prefix` (`"storage."`).
    pub(crate) fn validate_at(&self, prefix: &str) -> Result<(), ConfigurationError> {
        let invalid = |path: String, message| ConfigurationError::Invalid { path, message };
        if self.tiers.len() > TIER_COUNT {
            let message = format!("{} tiers, but a pool has at most {TIER_COUNT}", self.tiers.len());
            return Err(invalid(format!("{prefix}tiers"), message));
        }
        let mut paths = HashSet::new();
        let mut devices = HashSet::new();
        for (tier_index, tier) in self.tiers.iter().enumerate() {
            let vdevs_at = format!("{prefix}tiers[{tier_index}].top_level_vdevs");
            let count = tier.top_level_vdevs.len();
            if count > VDEVS_PER_TIER_MAX {
                let message = format!("{count} vdevs, but a tier has at most {VDEVS_PER_TIER_MAX}");
                return Err(invalid(vdevs_at, message));
            }
            for (index, vdev) in tier.top_level_vdevs.iter().enumerate() {
                let vdev_at = format!("{vdevs_at}[{index}]");
                vdev.check_legs().map_err(|message| invalid(vdev_at.clone(), message))?;
                for (leg, leaf) in vdev.leaves().iter().enumerate() {
                    let leaf_at = match vdev.group_word() {
                        Some(word) => format!("{vdev_at}.{word}[{leg}]"),
                        None => vdev_at.clone(),
                    };
                    leaf.check().map_err(|message| invalid(leaf_at.clone(), message))?;
                    let (first_time, name) = match leaf {
                        LeafVdev::File(file) => (paths.insert(&file.path), file.path.display().to_string()),
                        LeafVdev::Device(handle) => {
                            (devices.insert(handle), handle.device().name().to_owned())
                        }
                        LeafVdev::Memory { .. } => continue,
                    };
                    if !first_time {
                        return Err(invalid(leaf_at, format!("{name} is in the pool twice")));
                    }
                }
            }
        }
        for (index, spare) in self.spares.iter().enumerate() {
            let spare_at = format!("{prefix}spares[{index}]");
            spare.check().map_err(|message| invalid(spare_at.clone(), message))?;
            let (first_time, name) = match spare {
                LeafVdev::File(file) => (paths.insert(&file.path), file.path.display().to_string()),
                LeafVdev::Device(handle) => (devices.insert(handle), handle.device().name().to_owned()),
                LeafVdev::Memory { .. } => return Err(invalid(spare_at, "memory is no spare".to_owned())),
            };
            if !first_time {
                return Err(invalid(spare_at, format!("{name} is in the pool twice")));
            }
        }
        Ok(())
    }

    /// Paths (after `prefix`) of the settings that differ from their default and have no effect yet.
    pub(crate) fn inactive_settings_at(&self, prefix: &str) -> Vec<String> {
        let default = Self::default();
        let mut inactive = Vec::new();
        let mut note = |differs: bool, path: String| {
            if differs {
                inactive.push(format!("{prefix}{path}"));
            }
        };
        note(self.queue_depth_factor != default.queue_depth_factor, "queue_depth_factor".to_owned());
        note(self.thread_pool_pinned != default.thread_pool_pinned, "thread_pool_pinned".to_owned());
        for (index, tier) in self.tiers.iter().enumerate() {
            let access = tier.preferred_access_type != PreferredAccessType::default();
            note(access, format!("tiers[{index}].preferred_access_type"));
            note(tier.storage_kind != StorageKind::default(), format!("tiers[{index}].storage_kind"));
        }
        inactive
    }
}

/// One tier: its vdevs and what they are good at.
///
/// In JSON an object, all fields optional, or just the list of vdevs. In words:
/// [`TierConfiguration::parse_zfs_like`], which [`Display`](fmt::Display) and [`FromStr`](std::str::FromStr) use too.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct TierConfiguration {
    /// The vdevs; data is spread over them.
    pub top_level_vdevs: Vec<Vdev>,
    /// The kind of access that objects in search of a tier match. Kept, without effect yet.
    pub preferred_access_type: PreferredAccessType,
    /// What the devices are. Kept, without effect yet.
    pub storage_kind: StorageKind,
    /// A name for people; never interpreted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl TierConfiguration {
    /// A tier of these vdevs, all else default.
    #[must_use]
    pub fn new(top_level_vdevs: Vec<Vdev>) -> Self {
        Self { top_level_vdevs, ..Self::default() }
    }
}

impl FromIterator<Vdev> for TierConfiguration {
    fn from_iter<I: IntoIterator<Item = Vdev>>(vdevs: I) -> Self {
        Self::new(vdevs.into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for TierConfiguration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TierVisitor)
    }
}

struct TierVisitor;

impl<'de> Visitor<'de> for TierVisitor {
    type Value = TierConfiguration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tier: {\"top_level_vdevs\": [vdev, …]} or a list of vdevs")
    }

    /// The form of Haura 0.2.
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(TierConfiguration::new)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        const FIELDS: &[&str] = &["top_level_vdevs", "preferred_access_type", "storage_kind", "label"];
        let mut tier = TierConfiguration::default();
        let mut seen = HashSet::new();
        while let Some(field) = map.next_key_seed(FieldOf(FIELDS))? {
            if !seen.insert(field) {
                return Err(A::Error::duplicate_field(field));
            }
            match field {
                "top_level_vdevs" => tier.top_level_vdevs = map.next_value()?,
                "preferred_access_type" => tier.preferred_access_type = map.next_value()?,
                "storage_kind" => tier.storage_kind = map.next_value()?,
                _ => tier.label = map.next_value()?,
            }
        }
        Ok(tier)
    }
}

/// The kind of access that a tier, or an object, is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[repr(u8)]
pub enum PreferredAccessType {
    /// Nothing is known.
    #[default]
    Unknown = 0,
    /// Small reads anywhere.
    RandomRead = 1,
    /// Small writes anywhere.
    RandomWrite = 2,
    /// Small reads and writes anywhere.
    RandomReadWrite = 3,
    /// Long writes in order.
    SequentialWrite = 4,
    /// Long reads in order.
    SequentialRead = 5,
    /// Long reads and writes in order.
    SequentialReadWrite = 6,
}

impl PreferredAccessType {
    /// All of them, with their names in JSON.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Unknown, "Unknown"),
        (Self::RandomRead, "RandomRead"),
        (Self::RandomWrite, "RandomWrite"),
        (Self::RandomReadWrite, "RandomReadWrite"),
        (Self::SequentialWrite, "SequentialWrite"),
        (Self::SequentialRead, "SequentialRead"),
        (Self::SequentialReadWrite, "SequentialReadWrite"),
    ];
}

/// What the devices of a tier are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[repr(u8)]
pub enum StorageKind {
    /// Rotating disks.
    #[default]
    Hdd = 0,
    /// Memory.
    Memory = 1,
    /// Flash.
    Ssd = 2,
}

impl StorageKind {
    /// All of them, with their names in JSON.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Hdd, "Hdd"), (Self::Memory, "Memory"), (Self::Ssd, "Ssd")];
}

#[cfg(test)]
pub(super) mod tests {
    use super::vdev::tests::any_vdev;
    use super::*;
    use crate::vdev::MemoryDevice;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn tier(json: &str) -> Result<TierConfiguration, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_tier_is_an_object_or_a_list() {
        let object = tier(r#"{"top_level_vdevs":[{"mem":4096},"/dev/x"]}"#).unwrap();
        assert_eq!(tier(r#"[{"mem":4096},"/dev/x"]"#).unwrap(), object);
        assert_eq!(tier("{}").unwrap(), TierConfiguration::default());
        let full = r#"{"storage_kind":"Ssd","label":"l","preferred_access_type":"RandomRead"}"#;
        let full = tier(full).unwrap();
        assert_eq!(
            (full.storage_kind, full.preferred_access_type, full.label.as_deref()),
            (StorageKind::Ssd, PreferredAccessType::RandomRead, Some("l"))
        );
        for (json, expected) in [
            (r#"{"vdevs":[]}"#, "unknown field `vdevs`"),
            (r#"{"label":"a","label":"b"}"#, "duplicate field `label`"),
            ("17", "expected a tier"),
            (r#"{"storage_kind":"Tape"}"#, "unknown variant `Tape`"),
        ] {
            let error = tier(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn validation_names_the_field() {
        let pool = |tiers: Vec<TierConfiguration>| StoragePoolConfiguration { tiers, ..Default::default() };
        let device =
            LeafVdev::from(Arc::new(MemoryDevice::new(1 << 20)) as Arc<dyn crate::vdev::BlockDevice>);
        let file = |path: &str| LeafVdev::file(path);
        for (tiers, expected) in [
            (vec![TierConfiguration::default(); 5], "tiers: 5 tiers"),
            (
                vec![TierConfiguration::new(vec![Vdev::Mirror(vec![device.clone()])])],
                "tiers[0].top_level_vdevs[0]: a mirror",
            ),
            (
                vec![TierConfiguration::new(vec![file("/a").into(), file("").into()])],
                "tiers[0].top_level_vdevs[1]: the path",
            ),
            (
                vec![
                    TierConfiguration::new(vec![file("/a").into()]),
                    TierConfiguration::new(vec![Vdev::Mirror(vec![device.clone(), file("/a")])]),
                ],
                "tiers[1].top_level_vdevs[0].mirror[1]: /a is in the pool twice",
            ),
            (
                vec![TierConfiguration::new(vec![device.clone().into(), device.clone().into()])],
                "tiers[0].top_level_vdevs[1]: memory is in the pool twice",
            ),
            (
                vec![TierConfiguration::new(vec![file("/a").into(); VDEVS_PER_TIER_MAX + 1])],
                "tiers[0].top_level_vdevs: 1025 vdevs",
            ),
            (
                vec![TierConfiguration::new(vec![LeafVdev::memory(1 << 60).into()])],
                "tiers[0].top_level_vdevs[0]: ",
            ),
        ] {
            let error = pool(tiers).validate().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let good = pool(vec![TierConfiguration::default(), [device.into()].into_iter().collect()]);
        good.validate().unwrap();
        assert!(!good.is_empty() && !good.has_tier(0) && good.has_tier(1) && !good.has_tier(7));
        assert!(StoragePoolConfiguration::default().is_empty());
    }

    pub(crate) fn any_tier() -> impl Strategy<Value = TierConfiguration> {
        (
            prop::collection::vec(any_vdev(), 0..5),
            prop::sample::select(PreferredAccessType::ALL.to_vec()),
            prop::sample::select(StorageKind::ALL.to_vec()),
            prop::option::of(".*"),
        )
            .prop_map(|(top_level_vdevs, access, kind, label)| TierConfiguration {
                top_level_vdevs,
                preferred_access_type: access.0,
                storage_kind: kind.0,
                label,
            })
    }

    proptest! {
        #[test]
        fn tiers_survive_json_and_words(tier in any_tier()) {
            let json = serde_json::to_string(&tier).unwrap();
            prop_assert_eq!(&serde_json::from_str::<TierConfiguration>(&json).unwrap(), &tier);
            let words = tier.zfs_like();
            let read: TierConfiguration = words.parse().map_err(|e| TestCaseError::fail(format!("{words}: {e}")))?;
            prop_assert_eq!(&read, &tier, "{}", words);
            prop_assert_eq!(tier.to_string(), words);
        }

        #[test]
        fn nonsense_is_an_error_not_a_panic(text in ".*", tokens in prop::collection::vec(".*", 0..6)) {
            let _ = text.parse::<TierConfiguration>();
            let _ = TierConfiguration::parse_zfs_like(tokens);
        }
    }
}
