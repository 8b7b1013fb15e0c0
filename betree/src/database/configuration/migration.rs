//! Settings of the migration policies, kept until the policies exist.

use super::check;
use crate::base::preference::TIER_COUNT;
use crate::pool::{ConfigurationError, object};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How data moves between tiers by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MigrationPolicies {
    /// What is used most moves up, what is used least moves down.
    Lfu(#[serde(deserialize_with = "object")] MigrationConfig<LfuConfig>),
    /// Objects move where a learned cost function expects the least response time (Vengerov 2008).
    ReinforcementLearning(#[serde(deserialize_with = "object")] MigrationConfig<Option<RlConfig>>),
}

impl MigrationPolicies {
    pub(super) fn validate_at(&self, prefix: &str) -> Result<(), ConfigurationError> {
        let (name, thresholds) = match self {
            Self::Lfu(config) => ("Lfu", &config.migration_threshold),
            Self::ReinforcementLearning(config) => ("ReinforcementLearning", &config.migration_threshold),
        };
        for threshold in thresholds {
            let at = || format!("{prefix}{name}.migration_threshold");
            check((0.0..=1.0).contains(threshold), at, || format!("{threshold} is not a share from 0 to 1"))?;
        }
        Ok(())
    }
}

/// What every policy has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, bound(deserialize = "P: Deserialize<'de> + Default"))]
pub struct MigrationConfig<P> {
    /// How long the policy only watches. JSON: `{"secs": …, "nanos": …}`.
    pub grace_period: Duration,
    /// The share of each tier, 0 to 1, above which data moves down. JSON: four numbers, or one for all tiers.
    #[serde(deserialize_with = "thresholds")]
    pub migration_threshold: [f32; TIER_COUNT],
    /// Time between two decisions. JSON: `{"secs": …, "nanos": …}`.
    pub update_period: Duration,
    /// Settings of the policy.
    pub policy_config: P,
}

impl<P: Default> Default for MigrationConfig<P> {
    fn default() -> Self {
        Self {
            grace_period: Duration::from_secs(300),
            migration_threshold: [0.95; TIER_COUNT],
            update_period: Duration::from_secs(30),
            policy_config: P::default(),
        }
    }
}

/// Settings of [`MigrationPolicies::Lfu`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LfuConfig {
    /// Most objects or nodes that move up at once.
    pub promote_num: u32,
    /// Most 4 KiB blocks that move up at once.
    pub promote_size: u32,
    /// Where the policy's state is written.
    pub path_state: Option<PathBuf>,
    /// Where its decisions are written.
    pub path_delta: Option<PathBuf>,
    /// What moves.
    pub mode: LfuMode,
}

impl Default for LfuConfig {
    fn default() -> Self {
        Self {
            promote_num: u32::MAX,
            promote_size: 1024,
            path_state: None,
            path_delta: None,
            mode: LfuMode::Object,
        }
    }
}

/// What [`MigrationPolicies::Lfu`] moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum LfuMode {
    /// Whole objects.
    #[default]
    Object,
    /// Parts of trees.
    Node,
    /// Objects and parts of trees.
    Both,
}

/// Settings of [`MigrationPolicies::ReinforcementLearning`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RlConfig {
    /// Where the policy's state is written.
    pub path_state: Option<PathBuf>,
    /// Where its decisions are written.
    pub path_delta: Option<PathBuf>,
}

fn thresholds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[f32; TIER_COUNT], D::Error> {
    deserializer.deserialize_any(ThresholdVisitor)
}

struct ThresholdVisitor;

impl<'de> Visitor<'de> for ThresholdVisitor {
    type Value = [f32; TIER_COUNT];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number from 0 to 1, or {TIER_COUNT} of them")
    }

    fn visit_f64<E: Error>(self, share: f64) -> Result<Self::Value, E> {
        Ok([share as f32; TIER_COUNT])
    }

    fn visit_u64<E: Error>(self, share: u64) -> Result<Self::Value, E> {
        Ok([share as f32; TIER_COUNT])
    }

    fn visit_i64<E: Error>(self, share: i64) -> Result<Self::Value, E> {
        Ok([share as f32; TIER_COUNT])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut shares = Vec::with_capacity(TIER_COUNT);
        while let Some(share) = seq.next_element::<f32>()? {
            if shares.len() == TIER_COUNT {
                return Err(A::Error::invalid_length(TIER_COUNT + 1, &self));
            }
            shares.push(share);
        }
        let count = shares.len();
        shares.try_into().map_err(|_| A::Error::invalid_length(count, &self))
    }
}
