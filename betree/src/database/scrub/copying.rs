//! The walk of an evacuation.

use super::format::Position;
use super::pass::{Pass, Step};
use super::status::ScrubFinding;
use super::tasks::Work;
use crate::base::ids::Generation;
use crate::database::core::Core;
use crate::database::error::Result;
use crate::tree::Births;

/// How a step of it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::database) enum Lap {
    /// There is more.
    More,
    /// It was asked to end.
    Interrupted,
    /// Everything was visited.
    Done,
}

/// A walk over everything, with which what is on the vdev that is to leave is copied.
pub(in crate::database) struct Copying<'a> {
    pass: Pass<'a>,
    damaged: u64,
}

impl<'a> Copying<'a> {
    /// Over what is born up to `ceiling`.
    pub fn new(core: &'a Core, ceiling: Generation, goes_on: &'a dyn Fn() -> bool) -> Self {
        let births = Births { floor: Generation(0), ceiling };
        Self { pass: Pass::new(core, births, Work::Copy, Position::default(), goes_on), damaged: 0 }
    }

    /// One step.
    ///
    /// # Errors
    /// No room for a copy, or its devices failed; the root tree cannot be read.
    pub fn lap(&mut self) -> Result<Lap> {
        Ok(match self.pass.step(&[])? {
            Step::More => Lap::More,
            Step::Interrupted => Lap::Interrupted,
            Step::Done => Lap::Done,
        })
    }

    /// Blocks that were copied since the last time, and what could not be.
    pub fn take(&mut self) -> (u64, Vec<ScrubFinding>) {
        let counts = std::mem::take(&mut self.pass.tasks.counts);
        self.damaged += counts.damaged;
        (counts.filled, std::mem::take(&mut self.pass.tasks.findings))
    }

    /// Things that could not be copied, or visited.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }
}
