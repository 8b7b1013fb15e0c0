//! What is being looked at: several extents at once, not faster than it may be, and what came of them.

use super::format::Counts;
use super::status::ScrubFinding;
use crate::base::sync::thread;
use crate::base::units::BLOCK_BYTES_U64;
use crate::database::core::Core;
use crate::database::error::{Error, Result};
use crate::dmu::{DmuError, PendingJob, ScrubOutcome, ScrubTask, Target};
use crate::tree::{Found, Subject, TreeError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tasks under way. A task reads a window of 1 MiB at a time for each copy.
const TASKS_MAX: usize = 8;

/// The longest that others are given at once when they use the devices.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What is done with what a walk finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Every copy is looked at; of a member that is to be filled, what it lacks.
    Look(Option<Target>),
    /// What is on the vdev that is to leave is copied.
    Copy,
}

/// The tasks of a walk.
pub(super) struct Tasks<'a> {
    core: &'a Core,
    work: Work,
    pending: VecDeque<Pending>,
    pub counts: Counts,
    pub findings: Vec<ScrubFinding>,
    /// Name of the dataset, or snapshot, that is visited.
    pub owner: Option<Arc<[u8]>>,
    /// Whether the walk was asked to end; what is found from then on is left to the next one.
    goes_on: &'a dyn Fn() -> bool,
    was_stopped: bool,
    failure: Option<Error>,
    pace: Pace,
}

struct Pending {
    subject: Subject,
    owner: Option<Arc<[u8]>>,
    blocks: u64,
    job: PendingJob<ScrubOutcome>,
}

/// How fast it may be.
struct Pace {
    bytes_per_second: Option<u64>,
    /// Whether there is anybody to give way to.
    gives_way: bool,
    began: Instant,
    bytes: u64,
}

impl<'a> Tasks<'a> {
    pub fn new(core: &'a Core, work: Work, goes_on: &'a dyn Fn() -> bool) -> Self {
        let pace = Pace {
            bytes_per_second: core.configuration.scrub_bytes_per_second,
            gives_way: core.has_threads(),
            began: Instant::now(),
            bytes: 0,
        };
        Self {
            core,
            work,
            pending: VecDeque::new(),
            counts: Counts::default(),
            findings: Vec::new(),
            owner: None,
            goes_on,
            was_stopped: false,
            failure: None,
            pace,
        }
    }

    /// Blocks of one step: less when it is slow, so that it ends soon when it is asked to.
    pub fn step_blocks(&self) -> u64 {
        const STEP_BLOCKS: u64 = if cfg!(test) { 64 } else { 65_536 };
        let in_a_second = self.pace.bytes_per_second.map(|bytes| bytes / BLOCK_BYTES_U64);
        in_a_second.unwrap_or(STEP_BLOCKS).clamp(16, STEP_BLOCKS)
    }

    /// Whether nothing more is looked at in this step.
    pub fn is_over(&mut self) -> bool {
        self.was_stopped = self.was_stopped || !(self.goes_on)();
        self.was_stopped || self.failure.is_some()
    }

    /// Takes what a walk found.
    pub fn take(&mut self, found: Found) {
        match found {
            Found::Unreadable { subject, error } => {
                let place = match &error {
                    TreeError::Dmu(DmuError::Corrupt { device, block, .. }) => Some((device.clone(), *block)),
                    _ => None,
                };
                self.unreadable(subject, place, error.to_string());
            }
            Found::Task { task, subject, now } => self.add(task, subject, now),
        }
    }

    /// Something could not be visited, and what is below it neither.
    pub fn unreadable(&mut self, subject: Subject, place: Option<(String, u64)>, reason: String) {
        self.counts.damaged += 1;
        let (device, block) = place.unwrap_or_else(|| (String::from("the pool"), 0));
        let owner = self.owner.clone();
        self.report(subject, owner, device, block, reason);
    }

    /// Looks at what `task` names: before this returns, when `now`.
    pub fn add(&mut self, task: ScrubTask, subject: Subject, now: bool) {
        if self.is_over() {
            return;
        }
        #[cfg(test)]
        if self.work != Work::Copy {
            self.core.scrubs.note_seen(&task);
        }
        let blocks = if task.is_partial { 0 } else { task.blocks() };
        let dmu = &self.core.dmu;
        let job = match (self.work, now) {
            (Work::Look(target), false) => dmu.scrub_in_background(task, target),
            (Work::Look(target), true) => PendingJob::ready(dmu.scrub(&task, target)),
            (Work::Copy, false) => dmu.evacuate_in_background(task),
            (Work::Copy, true) => PendingJob::ready(dmu.evacuate(&task)),
        };
        let pending = Pending { subject, owner: self.owner.clone(), blocks, job };
        if now {
            self.finish(pending);
            return;
        }
        self.pending.push_back(pending);
        while self.pending.len() >= TASKS_MAX
            && let Some(oldest) = self.pending.pop_front()
        {
            self.finish(oldest);
        }
    }

    /// What was looked at beside the tasks.
    pub fn note(&mut self, what: &'static str, outcome: ScrubOutcome) {
        self.count(Subject::of(what), None, outcome);
    }

    /// Waits for all tasks of the step; whether all of them were looked at.
    ///
    /// # Errors
    /// The member to be filled failed; the database was closed.
    pub fn settle(&mut self) -> Result<bool> {
        while let Some(pending) = self.pending.pop_front() {
            self.finish(pending);
        }
        match self.failure.take() {
            Some(error) => Err(error),
            None => Ok(!self.was_stopped),
        }
    }

    fn finish(&mut self, pending: Pending) {
        let Pending { subject, owner, blocks, job } = pending;
        // Meanwhile the walk itself asks for nothing.
        let (began, requests) = (Instant::now(), self.core.pool.requests_of_others());
        match job.wait() {
            Ok(outcome) => {
                let has_others = self.core.pool.requests_of_others() > requests;
                self.counts.bytes_done += blocks * BLOCK_BYTES_U64;
                self.count(subject, owner, outcome);
                self.give_way(
                    blocks * BLOCK_BYTES_U64,
                    if has_others { began.elapsed() } else { Duration::ZERO },
                );
            }
            Err(error) => {
                self.failure.get_or_insert(error.into());
            }
        }
    }

    fn count(&mut self, subject: Subject, owner: Option<Arc<[u8]>>, outcome: ScrubOutcome) {
        self.counts.units += outcome.units;
        self.counts.repaired += outcome.repaired;
        self.counts.unrepaired += outcome.unrepaired;
        self.counts.filled += outcome.filled;
        self.counts.damaged += outcome.damage.len() as u64;
        for damage in outcome.damage {
            let key = subject.key_of(damage.unit).map(<[u8]>::to_vec);
            let mut subject = Subject { keys: Vec::new(), ..subject.clone() };
            if let Some(key) = key {
                (subject.low, subject.high) = (key.clone(), Some(key));
            }
            let reason = String::from("no copy has the checksum that it must have");
            self.report(subject, owner.clone(), damage.device, damage.block, reason);
        }
    }

    fn report(
        &mut self,
        subject: Subject,
        owner: Option<Arc<[u8]>>,
        device: String,
        block: u64,
        reason: String,
    ) {
        let Subject { what, low, high, .. } = subject;
        let dataset = owner.map(|owner| owner.to_vec());
        let finding = ScrubFinding { what, dataset, low, high, device, block, reason };
        log::error!("scrub: {finding}");
        self.findings.push(finding);
    }

    /// After `bytes` bytes, for which the devices were shared for `shared`: waits until more may be read.
    pub fn give_way(&mut self, bytes: u64, shared: Duration) {
        let pace = &mut self.pace;
        pace.bytes += bytes;
        // Half of the time is that of the others.
        let mut pause = if pace.gives_way { shared.min(PAUSE_MAX) } else { Duration::ZERO };
        if let Some(rate) = pace.bytes_per_second {
            let due = Duration::from_secs_f64(pace.bytes as f64 / rate.max(1) as f64);
            pause = pause.max(due.saturating_sub(pace.began.elapsed()));
        }
        // In slices, so that who asks the walk to end need not wait for all of it.
        while !pause.is_zero() && !self.was_stopped && (self.goes_on)() {
            let slice = pause.min(PAUSE_MAX);
            thread::sleep(slice);
            pause -= slice;
        }
    }
}
