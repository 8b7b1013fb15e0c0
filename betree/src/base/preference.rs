//! Tiers and the storage preference that a write carries.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Number of tiers of a pool.
pub const TIER_COUNT: usize = 4;

/// Names of the tiers, fastest first.
pub const TIER_NAMES: [&str; TIER_COUNT] = ["FASTEST", "FAST", "SLOW", "SLOWEST"];

/// Where a write would like to be: a tier, or no preference.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoragePreference(u8);

impl StoragePreference {
    /// Tier 0.
    pub const FASTEST: Self = Self(0);
    /// Tier 1.
    pub const FAST: Self = Self(1);
    /// Tier 2.
    pub const SLOW: Self = Self(2);
    /// Tier 3.
    pub const SLOWEST: Self = Self(3);
    /// No preference: the dataset's, else the database's default decides.
    pub const NONE: Self = Self(254);

    /// The preference for tier `class` (0…3); `None` above 3.
    #[must_use]
    pub const fn new(class: u8) -> Option<Self> {
        if class < TIER_COUNT as u8 { Some(Self(class)) } else { None }
    }

    /// The number as stored: 0…3 or 254.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self.0
    }

    /// Reads a stored number.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0..=3 | 254 => Some(Self(value)),
            _ => None,
        }
    }

    /// The tier, or `None` without a preference.
    #[must_use]
    pub const fn class(self) -> Option<u8> {
        if self.0 < TIER_COUNT as u8 { Some(self.0) } else { None }
    }

    /// This preference, or `other` when this one is [`StoragePreference::NONE`].
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        if self.class().is_some() { self } else { other }
    }
}

impl Default for StoragePreference {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Display for StoragePreference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class() {
            Some(class) => f.write_str(TIER_NAMES[usize::from(class)]),
            None => f.write_str("NONE"),
        }
    }
}

impl fmt::Debug for StoragePreference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
