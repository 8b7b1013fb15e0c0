//! What a check reports.

use super::code::{Code, Severity};
use crate::base::ids::Generation;
use std::collections::BTreeMap;
use std::fmt;

/// One thing that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which invariant does not hold.
    pub code: Code,
    /// What it is about: `dataset "a", node /0/3, run 1`.
    pub object: String,
    /// Name of the device.
    pub device: Option<String>,
    /// Byte on the device.
    pub offset: Option<u64>,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.object)?;
        if let Some(device) = &self.device {
            write!(f, " at {device}")?;
            if let Some(offset) = self.offset {
                write!(f, " byte {offset}")?;
            }
        }
        write!(f, ": expected {}, found {}", self.expected, self.found)
    }
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Node headers.
    pub nodes: u64,
    /// Runs.
    pub runs: u64,
    /// Messages in them.
    pub messages: u64,
    /// Large values that they name.
    pub large_values: u64,
    /// Records of the log.
    pub log_records: u64,
    /// Keys that were read twice and compared.
    pub compared_keys: u64,
}

/// What a dataset occupies, recomputed from its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetUsage {
    /// Its name, or that of the object store that it is of.
    pub name: Vec<u8>,
    /// `dataset`, or `metadata` or `chunks` of an object store.
    pub role: &'static str,
    /// Blocks of 4 KiB that it owns, pending drops included.
    pub blocks: u64,
    /// Messages.
    pub messages: u64,
}

/// What the findings come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// There are none.
    Clean,
    /// Space is lost and nothing else.
    Leaks,
    /// Something is damaged.
    Damaged,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// The newest generation, which was checked; 0 when there is none that can be.
    pub generation: u64,
    /// The one before, which was checked as the fallback.
    pub fallback: Option<u64>,
    /// Whether contents were read and compared, too.
    pub deep: bool,
    /// The findings, in the order in which they were met; no more than asked for.
    pub findings: Vec<Finding>,
    /// How many there are of each code, those left out above included.
    pub counts: BTreeMap<Code, u64>,
    /// What is worth knowing and no finding: what a crash left, passes that were left out.
    pub notes: Vec<String>,
    /// How much was looked at.
    pub totals: Totals,
    /// What the datasets of the newest generation occupy.
    pub datasets: Vec<DatasetUsage>,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
}

impl CheckReport {
    /// What the findings come to.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.counts.keys().map(|code| code.severity()).max() {
            None => Outcome::Clean,
            Some(Severity::Leak) => Outcome::Leaks,
            Some(Severity::Damage) => Outcome::Damaged,
        }
    }

    /// The different codes found, in order.
    #[must_use]
    pub fn codes(&self) -> Vec<Code> {
        self.counts.keys().copied().collect()
    }

    /// The generation that was checked.
    pub(super) fn checked(&self) -> Generation {
        Generation(self.generation)
    }
}
