//! What callers are told of an evacuation.

use super::format::EvacuationRecord;
use crate::base::ids::VdevId;
use crate::database::scrub::ScrubFinding;
use std::time::{Duration, SystemTime};

/// What an evacuation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvacuationState {
    /// It is under way.
    Running = 0,
    /// The vdev left.
    Finished = 1,
    /// It was given up, or the process ended: the vdev is a member as before.
    Stopped = 2,
}

impl EvacuationState {
    pub(super) fn from_u8(value: u8) -> Option<Self> {
        [Self::Running, Self::Finished, Self::Stopped].into_iter().find(|state| *state as u8 == value)
    }
}

impl std::fmt::Display for EvacuationState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
        })
    }
}

/// How far an evacuation is, or what the newest one came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EvacuationStatus {
    /// The vdev.
    pub vdev: VdevId,
    /// What it does.
    pub state: EvacuationState,
    /// Who started it.
    pub by: String,
    /// When it was started, to the second.
    pub started: SystemTime,
    /// When it was finished or given up.
    pub ended: Option<SystemTime>,
    /// Bytes that were copied.
    pub bytes_done: u64,
    /// Bytes that were allocated on the vdev when it began.
    pub bytes_total: u64,
    /// What is right nowhere and cannot be copied, as far as this process found it.
    pub findings: Vec<ScrubFinding>,
}

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(1 << 40))
}

impl EvacuationStatus {
    pub(super) fn of(record: &EvacuationRecord, findings: Vec<ScrubFinding>) -> Self {
        Self {
            vdev: record.vdev,
            state: record.state,
            by: record.by.clone(),
            started: time(record.started),
            ended: (record.ended != 0).then(|| time(record.ended)),
            bytes_done: record.bytes_done,
            bytes_total: record.bytes_total,
            findings,
        }
    }
}
