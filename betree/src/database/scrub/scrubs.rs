//! The scrub and the resilver of a database: what is kept of them, and running them.

use super::format::{Counts, Position, SCRUBS, ScrubRecord, scrub_key};
use super::pass::{Pass, Step};
use super::status::{ResilverStatus, ScrubFinding, ScrubState, ScrubStatus};
use super::tasks::Work;
use crate::base::ids::{DatasetId, Generation};
use crate::base::sync::atomic::{AtomicU8, Ordering};
use crate::base::sync::{Mutex, thread};
use crate::base::units::BLOCK_BYTES_U64;
use crate::database::core::Core;
use crate::database::error::{Error, Result};
use crate::dmu::{Keeper, OwnedExtents};
use crate::tree::{Births, View};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Findings that are told; the others are counted.
const FINDINGS_MAX: usize = 100;

/// How often who waits for the end of a scrub looks for it.
const ENDING: Duration = Duration::from_millis(2);

const GO: u8 = 0;
const PAUSE: u8 = 1;
const STOP: u8 = 2;

/// What a database keeps of its scrubs.
#[derive(Debug, Default)]
pub(in crate::database) struct Scrubs {
    scrub: Mutex<Kept>,
    resilver: Mutex<Kept>,
    /// What the scrub is asked to do.
    wish: AtomicU8,
    /// Held while a scrub runs.
    turn: Mutex<()>,
    /// Held while a resilver runs.
    pub(in crate::database) resilvering: Mutex<()>,
    /// Held by who looks at the chunks of dead lists.
    lists: Mutex<Weak<Keeper>>,
    /// What was looked at.
    #[cfg(test)]
    seen: Mutex<Vec<crate::base::extent::Extent>>,
}

/// A record, and what of it no checkpoint has.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub record: Option<ScrubRecord>,
    pub findings: Vec<ScrubFinding>,
    pub is_changed: bool,
}

pub(in crate::database) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Kept {
    /// Takes over what a walk did in a step.
    pub fn take(&mut self, pass: &mut Pass<'_>, began: &mut Instant) {
        self.is_changed = true;
        let room = FINDINGS_MAX.saturating_sub(self.findings.len());
        self.findings.extend(pass.tasks.findings.drain(..).take(room));
        let Some(record) = &mut self.record else { return };
        let done = std::mem::take(&mut pass.tasks.counts);
        let counts = &mut record.counts;
        counts.bytes_done += done.bytes_done;
        counts.units += done.units;
        counts.repaired += done.repaired;
        counts.unrepaired += done.unrepaired;
        counts.damaged += done.damaged;
        counts.filled += done.filled;
        record.position = pass.position.clone();
        record.active_ms += began.elapsed().as_millis() as u64;
        *began = Instant::now();
    }

    /// What was found is looked for anew.
    pub fn forget_findings(&mut self) {
        self.findings.clear();
        if let Some(record) = &mut self.record {
            record.counts = Counts { bytes_total: record.counts.bytes_total, ..Counts::default() };
        }
    }

    pub fn set_state(&mut self, state: ScrubState) {
        self.is_changed = true;
        if let Some(record) = &mut self.record {
            record.state = state;
            record.ended = if state.is_unfinished() { 0 } else { now() };
        }
    }

    /// The datasets for the second round.
    pub fn again(&self) -> Vec<DatasetId> {
        self.record.as_ref().map_or_else(Vec::new, |record| record.again.clone())
    }

    /// The datasets `round`, which were the first of them, were visited; those that joined meanwhile were perhaps not.
    pub fn done_again(&mut self, round: &[DatasetId]) {
        if let Some(record) = &mut self.record {
            record.again.drain(..round.len().min(record.again.len()));
        }
    }
}

impl Scrubs {
    /// Who holds `keeper` looks at the chunks of dead lists from now on.
    pub(super) fn keep_lists(&self, keeper: &Arc<Keeper>) {
        let mut lists = self.lists.lock();
        if let Some(before) = lists.upgrade() {
            // Two who look at the same time: the later one keeps for both.
            before.follow(Arc::clone(keeper));
        }
        *lists = Arc::downgrade(keeper);
    }

    /// Chunks that nothing refers to any more stay as long as somebody looks at them.
    pub fn keep(&self, space: OwnedExtents) {
        if let Some(keeper) = self.lists.lock().upgrade() {
            keeper.keep(Arc::new(space));
        }
    }

    /// Notes what is looked at.
    #[cfg(test)]
    pub(super) fn note_seen(&self, task: &crate::dmu::ScrubTask) {
        if !task.is_partial {
            self.seen.lock().extend_from_slice(&task.extents);
        }
    }

    /// What was looked at since the last call.
    #[cfg(test)]
    pub(super) fn take_seen(&self) -> Vec<crate::base::extent::Extent> {
        std::mem::take(&mut self.seen.lock())
    }

    /// What the checkpoint that is being written says of them, with `moved` to be visited once more: keys and records.
    pub fn take_records(&self, moved: &[DatasetId]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut records = Vec::new();
        for (is_resilver, kept) in [(false, &self.scrub), (true, &self.resilver)] {
            let mut kept = kept.lock();
            let Kept { record: Some(record), is_changed, .. } = &mut *kept else { continue };
            if record.state.is_unfinished() && !moved.is_empty() {
                record.again.extend_from_slice(moved);
                *is_changed = true;
            }
            if std::mem::take(is_changed) {
                records.push((scrub_key(is_resilver), record.encode()));
            }
        }
        records
    }

    /// Takes over what the root tree says of them.
    pub fn load(&self, root: &View) -> Result<()> {
        for (is_resilver, kept) in [(false, &self.scrub), (true, &self.resilver)] {
            let value =
                root.get(&scrub_key(is_resilver)).map_err(|error| Error::of_tree(b"root tree", error))?;
            let decoded = value.map(|value| ScrubRecord::decode(&value)).transpose();
            // Nobody's data depend on it.
            let mut record = decoded.unwrap_or_else(|error| {
                log::error!("what the root tree says of scrubs (key {SCRUBS}) is lost: {error}");
                None
            });
            if let Some(record) = record.as_mut().filter(|record| record.state == ScrubState::Running) {
                // Who ran it is gone.
                let goes_on = record.continues && !is_resilver;
                record.state = if goes_on { ScrubState::Running } else { ScrubState::Paused };
            }
            kept.lock().record = record;
        }
        Ok(())
    }

    pub(super) fn resilver(&self) -> &Mutex<Kept> {
        &self.resilver
    }

    /// Whether a scrub that runs in the background was under way when the database was closed.
    pub fn continues(&self) -> bool {
        let kept = self.scrub.lock();
        kept.record.as_ref().is_some_and(|record| record.continues && record.state == ScrubState::Running)
    }

    pub fn status(&self) -> Option<ScrubStatus> {
        let kept = self.scrub.lock();
        kept.record.as_ref().map(|record| ScrubStatus::of(record, kept.findings.clone()))
    }

    pub fn resilver_status(&self) -> Option<ResilverStatus> {
        let kept = self.resilver.lock();
        kept.record.as_ref().map(|record| ResilverStatus::of(record, kept.findings.clone()))
    }
}

impl Core {
    /// Blocks that are allocated, in bytes.
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.dmu.space().iter().map(|space| space.used).sum::<u64>() * BLOCK_BYTES_U64
    }

    /// A new record, with a checkpoint of its own.
    pub(super) fn new_scrub(&self, by: &str, subject: &str, continues: bool) -> Result<ScrubRecord> {
        let generation = self.checkpoint(true)?;
        let counts = Counts { bytes_total: self.allocated_bytes(), ..Counts::default() };
        Ok(ScrubRecord {
            continues,
            state: ScrubState::Running,
            started: now(),
            ended: 0,
            active_ms: 0,
            generation,
            counts,
            position: Position::default(),
            again: Vec::new(),
            by: by.chars().take(256).collect(),
            subject: subject.chars().take(1024).collect(),
        })
    }

    /// Starts a scrub, or goes on with one that is not finished.
    pub fn begin_scrub(&self, by: &str, continues: bool) -> Result<()> {
        self.check_accepts()?;
        let is_running = |record: &ScrubRecord| record.state == ScrubState::Running;
        // Nobody changes the record while somebody runs it. Who is just ending says so soon.
        let _turn = loop {
            if let Some(turn) = self.scrubs.turn.try_lock() {
                break turn;
            }
            if self.scrubs.scrub.lock().record.as_ref().is_some_and(is_running) {
                self.scrubs.wish.store(GO, Ordering::Release);
                return Ok(());
            }
            thread::sleep(ENDING);
        };
        let is_unfinished = {
            let mut kept = self.scrubs.scrub.lock();
            kept.is_changed = true;
            let unfinished = kept.record.as_mut().filter(|record| record.state.is_unfinished());
            let unfinished = unfinished.map(|record| {
                record.state = ScrubState::Running;
                record.continues = continues;
            });
            unfinished.is_some()
        };
        if !is_unfinished {
            let record = self.new_scrub(by, "", continues)?;
            *self.scrubs.scrub.lock() = Kept { record: Some(record), findings: Vec::new(), is_changed: true };
        }
        self.scrubs.wish.store(GO, Ordering::Release);
        Ok(())
    }

    /// Runs the scrub that was begun until it is finished, or asked to pause or stop, or `watch` says no, which pauses it.
    pub fn run_scrub(
        &self,
        goes_on: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(&ScrubStatus) -> bool,
    ) -> Result<ScrubStatus> {
        let Some(_turn) = self.scrubs.turn.try_lock() else { return Err(busy("scrub")) };
        let record = self.scrubs.scrub.lock().record.clone();
        let Some(record) = record.filter(|record| record.state == ScrubState::Running) else {
            // Somebody stopped it before it began.
            return self.scrubs.status().ok_or_else(no_scrub);
        };
        let births = Births { floor: Generation(0), ceiling: record.generation };
        let goes_on = || goes_on() && self.scrubs.wish.load(Ordering::Acquire) == GO;
        let mut pass = Pass::new(self, births, Work::Look(None), record.position, &goes_on);
        let mut began = Instant::now();
        if pass.position.second {
            // Datasets behind the position may have joined the round.
            pass.start_again();
        }
        let mut round = self.scrubs.scrub.lock().again();
        let state = loop {
            let step = pass.step(&round)?;
            let mut kept = self.scrubs.scrub.lock();
            kept.take(&mut pass, &mut began);
            match step {
                Step::Done => {
                    if pass.position.second {
                        kept.done_again(&round);
                    }
                    round = kept.again();
                    if round.is_empty() {
                        break ScrubState::Finished;
                    }
                    pass.start_again();
                    continue;
                }
                // Somebody who paused it has changed their mind.
                Step::Interrupted if goes_on() => {
                    pass = Pass::new(self, births, Work::Look(None), pass.position, &goes_on);
                    continue;
                }
                Step::Interrupted => break self.state_wanted(),
                Step::More => {}
            }
            drop(kept);
            let goes_on = self.scrubs.status().is_none_or(|status| watch(&status));
            if !goes_on {
                break ScrubState::Paused;
            }
        };
        self.scrubs.scrub.lock().set_state(state);
        // What ends because the database does goes on by itself.
        if self.check_accepts().is_ok() {
            self.checkpoint(true)?;
        }
        self.scrubs.status().ok_or_else(no_scrub)
    }

    /// What becomes of a scrub that was asked to end.
    fn state_wanted(&self) -> ScrubState {
        match self.scrubs.wish.load(Ordering::Acquire) {
            PAUSE => ScrubState::Paused,
            STOP => ScrubState::Stopped,
            _ => ScrubState::Running,
        }
    }

    /// Asks the scrub to pause, or to stop; one that is not running is paused or stopped at once.
    fn end_scrub(&self, wish: u8, state: ScrubState) -> Result<()> {
        self.check_accepts()?;
        self.scrubs.wish.store(wish, Ordering::Release);
        // Who runs it ends behind the step that is under way, and says so itself.
        let Some(_turn) = self.scrubs.turn.try_lock() else { return Ok(()) };
        let mut kept = self.scrubs.scrub.lock();
        let Some(record) = &kept.record else { return Err(no_scrub()) };
        if record.state.is_unfinished() && record.state != state {
            kept.set_state(state);
            drop(kept);
            self.checkpoint(true)?;
        }
        Ok(())
    }

    /// Pauses the scrub.
    pub fn pause_scrub(&self) -> Result<()> {
        self.end_scrub(PAUSE, ScrubState::Paused)
    }

    /// Gives the scrub up.
    pub fn stop_scrub(&self) -> Result<()> {
        self.end_scrub(STOP, ScrubState::Stopped)
    }
}

pub(in crate::database) fn busy(what: &'static str) -> Error {
    Error::Busy { what, name: String::new(), by: String::from("another call that runs it") }
}

fn no_scrub() -> Error {
    Error::NotFound { what: "scrub", name: String::new() }
}
