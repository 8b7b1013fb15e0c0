//! What callers are told of a scrub or resilver.

use super::format::{Counts, ScrubRecord};
use crate::base::units::BLOCK_BYTES_U64;
use std::time::{Duration, SystemTime};

/// What a scrub does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScrubState {
    /// It is under way, in this process or in one that ended without a word.
    Running = 0,
    /// It goes on where it is when it is started again.
    Paused = 1,
    /// Everything was looked at.
    Finished = 2,
    /// It was given up.
    Stopped = 3,
}

impl ScrubState {
    pub(super) fn from_u8(value: u8) -> Option<Self> {
        [Self::Running, Self::Paused, Self::Finished, Self::Stopped]
            .into_iter()
            .find(|state| *state as u8 == value)
    }

    /// Whether it goes on when it is started again.
    #[must_use]
    pub fn is_unfinished(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

impl std::fmt::Display for ScrubState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
        })
    }
}

/// Something that is wrong on every copy, or that could not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubFinding {
    /// What it is: `run`, `node`, `large value`, …
    pub what: &'static str,
    /// Name of the dataset, with that of the snapshot; `None` for what belongs to all.
    pub dataset: Option<Vec<u8>>,
    /// The lowest key that it may concern.
    pub low: Vec<u8>,
    /// The key before which it ends; `None`: it may concern all from `low` on.
    pub high: Option<Vec<u8>>,
    /// Name of the vdev's devices.
    pub device: String,
    /// Block of the vdev at which the extent starts.
    pub block: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl std::fmt::Display for ScrubFinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.what)?;
        if let Some(dataset) = &self.dataset {
            write!(f, " of {}", dataset.escape_ascii())?;
            match &self.high {
                Some(high) if *high == self.low => write!(f, ", key {}", self.low.escape_ascii())?,
                Some(high) => {
                    write!(f, ", keys from {} to {}", self.low.escape_ascii(), high.escape_ascii())?;
                }
                None => write!(f, ", keys from {} on", self.low.escape_ascii())?,
            }
        }
        write!(f, ", {} at block {}: {}", self.device, self.block, self.reason)
    }
}

/// How far a scrub is, or what the newest one came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubStatus {
    /// What it does.
    pub state: ScrubState,
    /// Who started it.
    pub by: String,
    /// When it was started, to the second.
    pub started: SystemTime,
    /// When it was finished or given up.
    pub ended: Option<SystemTime>,
    /// How long it ran, over all openings.
    pub active: Duration,
    /// The checkpoint whose contents it looks at.
    pub generation: u64,
    /// Bytes of extents that were looked at.
    pub bytes_done: u64,
    /// Bytes that were allocated when it began.
    pub bytes_total: u64,
    /// Checksums that were compared.
    pub units: u64,
    /// Bytes that were wrong on one member and are right again.
    pub repaired_bytes: u64,
    /// Bytes that are wrong on one member and could not be written.
    pub unrepaired_bytes: u64,
    /// What is right on no member, or could not be reached.
    pub damaged: u64,
    /// The first of those that this process found.
    pub findings: Vec<ScrubFinding>,
}

/// How far a resilver is, or what the newest one came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResilverStatus {
    /// The member.
    pub member: String,
    /// Bytes that were written to it.
    pub filled_bytes: u64,
    /// Everything else.
    pub scrub: ScrubStatus,
}

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(1 << 40))
}

impl ScrubStatus {
    pub(super) fn of(record: &ScrubRecord, findings: Vec<ScrubFinding>) -> Self {
        let Counts { bytes_done, bytes_total, units, repaired, unrepaired, damaged, .. } = record.counts;
        Self {
            state: record.state,
            by: record.by.clone(),
            started: time(record.started),
            ended: (record.ended != 0).then(|| time(record.ended)),
            active: Duration::from_millis(record.active_ms),
            generation: record.generation.0,
            bytes_done,
            bytes_total,
            units,
            repaired_bytes: repaired.saturating_mul(BLOCK_BYTES_U64),
            unrepaired_bytes: unrepaired.saturating_mul(BLOCK_BYTES_U64),
            damaged,
            findings,
        }
    }
}

impl ResilverStatus {
    pub(super) fn of(record: &ScrubRecord, findings: Vec<ScrubFinding>) -> Self {
        Self {
            member: record.subject.clone(),
            filled_bytes: record.counts.filled.saturating_mul(BLOCK_BYTES_U64),
            scrub: ScrubStatus::of(record, findings),
        }
    }
}
