//! Resilver: a member that lacks something gets it.

use super::pass::{Pass, Step};
use super::scrubs::{Kept, busy};
use super::status::{ResilverStatus, ScrubState};
use super::tasks::Work;
use crate::base::ids::Generation;
use crate::base::sync::{MutexGuard, thread};
use crate::database::core::Core;
use crate::database::error::Result;
use crate::dmu::Target;
use crate::pool::{Lacking, PoolError};
use crate::tree::Births;
use std::time::{Duration, Instant};

/// How often who waits for its turn looks whether it has come.
const TURN: Duration = Duration::from_millis(20);

/// What came of filling a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// It is whole; or it was away meanwhile, and is filled anew when it is back.
    Ended,
    /// Something was not to be had.
    Lacks,
    /// It was asked to end.
    Interrupted,
}

impl Core {
    /// Fills every member that lacks something, one after the other, until all are whole, or `goes_on` or `watch` says no. A member for
    /// which something could not be found stays one that lacks it: whoever declared it whole would have it trusted alone.
    /// Returns what came of the last one.
    pub fn run_resilver(
        &self,
        goes_on: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(&ResilverStatus) -> bool,
    ) -> Result<Option<ResilverStatus>> {
        let Some(turn) = self.scrubs.resilvering.try_lock() else { return Err(busy("resilver")) };
        self.fill_all(turn, goes_on, watch)
    }

    /// As [`Core::run_resilver`], behind the one that is under way: that may have ended its search when a member came.
    pub fn run_resilver_in_turn(&self, goes_on: &dyn Fn() -> bool) -> Result<Option<ResilverStatus>> {
        loop {
            if let Some(turn) = self.scrubs.resilvering.try_lock() {
                return self.fill_all(turn, goes_on, &mut |_| true);
            }
            if !goes_on() {
                return Ok(self.scrubs.resilver_status());
            }
            thread::sleep(TURN);
        }
    }

    fn fill_all(
        &self,
        _turn: MutexGuard<'_, ()>,
        goes_on: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(&ResilverStatus) -> bool,
    ) -> Result<Option<ResilverStatus>> {
        self.check_accepts()?;
        let mut tried: Vec<Lacking> = Vec::new();
        while let Some(lacking) = self.pool.lacking().into_iter().find(|lacking| !tried.contains(lacking)) {
            match self.fill(&lacking, goes_on, watch)? {
                Filled::Ended => {}
                Filled::Lacks => tried.push(lacking),
                Filled::Interrupted => break,
            }
        }
        Ok(self.scrubs.resilver_status())
    }

    /// Fills one member.
    fn fill(
        &self,
        lacking: &Lacking,
        goes_on: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(&ResilverStatus) -> bool,
    ) -> Result<Filled> {
        let Lacking { vdev, member, name, since } = lacking;
        let target = Target { vdev: *vdev, member: *member };
        let life = self.pool.life(*vdev, *member as u8)?;
        // What began to be written before the member was there is named by the checkpoint, which writes what waits, or gone.
        self.writers.wait();
        let record = self.new_scrub("resilver", name, true)?;
        // Copies of an evacuation are younger than the extents that they are of.
        let was_away = self.dmu.departed().iter().any(|departed| departed.since >= *since);
        let floor = if was_away { Generation(0) } else { Generation(since.0.saturating_sub(1)) };
        let births = Births { floor, ceiling: record.generation };
        let position = record.position.clone();
        *self.scrubs.resilver().lock() =
            Kept { record: Some(record), findings: Vec::new(), is_changed: true };
        log::warn!("{name}: what was written since generation {since} is copied to it");
        let still_lacks = || self.pool.lacking().contains(lacking);
        let fills = || goes_on() && still_lacks();
        let mut pass = Pass::new(self, births, Work::Look(Some(target)), position, &fills);
        let mut began = Instant::now();
        let mut repeated = false;
        let mut round = self.scrubs.resilver().lock().again();
        loop {
            let step = match pass.step(&round) {
                // The member is gone again: what it missed then is found when it comes back.
                Err(error) if !still_lacks() => {
                    log::error!("{name}: {error}");
                    return self.end_fill(ScrubState::Stopped, Filled::Ended);
                }
                step => step?,
            };
            let mut kept = self.scrubs.resilver().lock();
            kept.take(&mut pass, &mut began);
            match step {
                Step::Done => {
                    if pass.position.second {
                        kept.done_again(&round);
                    }
                    round = kept.again();
                    if !round.is_empty() {
                        pass.start_again();
                        continue;
                    }
                    let lost = kept.record.as_ref().map_or(0, |record| record.counts.damaged);
                    if lost == 0 {
                        break;
                    }
                    if !repeated {
                        // Perhaps a device just did not answer.
                        repeated = true;
                        kept.forget_findings();
                        pass.restart();
                        continue;
                    }
                    drop(kept);
                    log::error!(
                        "{name}: {lost} things could not be copied to it, and it is not whole without them"
                    );
                    return self.end_fill(ScrubState::Stopped, Filled::Lacks);
                }
                Step::Interrupted if still_lacks() => {
                    drop(kept);
                    return self.end_fill(ScrubState::Stopped, Filled::Interrupted);
                }
                Step::Interrupted => {
                    drop(kept);
                    return self.end_fill(ScrubState::Stopped, Filled::Ended);
                }
                Step::More => {}
            }
            drop(kept);
            if !self.scrubs.resilver_status().is_none_or(|status| watch(&status)) {
                return self.end_fill(ScrubState::Stopped, Filled::Interrupted);
            }
        }
        // Both checkpoints that the pool may be opened at, and the log behind them, were written with the member.
        self.checkpoint(true)?;
        self.checkpoint(true)?;
        if !still_lacks() {
            return self.end_fill(ScrubState::Stopped, Filled::Ended);
        }
        match self.pool.resilvered(*vdev, *member as u8, life) {
            // It was away meanwhile, and came back.
            Err(PoolError::MemberGone { .. }) => return self.end_fill(ScrubState::Stopped, Filled::Ended),
            declared => declared?,
        }
        self.end_fill(ScrubState::Finished, Filled::Ended)
    }

    fn end_fill(&self, state: ScrubState, filled: Filled) -> Result<Filled> {
        self.scrubs.resilver().lock().set_state(state);
        if self.check_accepts().is_ok() {
            self.checkpoint(true)?;
        }
        Ok(filled)
    }
}
