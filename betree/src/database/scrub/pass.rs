//! The walk: the ground, then dataset after dataset, snapshot after snapshot, in steps.

use super::format::{HEAD, Position};
use super::tasks::{Tasks, Work};
use crate::base::ids::{DatasetId, Generation};
use crate::database::catalog::DatasetState;
use crate::database::core::Core;
use crate::database::error::Result;
use crate::database::snapshots::listed_chunks;
use crate::tree::{Births, NodeName, Place, Subject, View};
use std::sync::Arc;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is more.
    More,
    /// It was asked to end, and did not advance.
    Interrupted,
    /// Everything of the round was visited.
    Done,
}

/// A walk on its way.
pub(super) struct Pass<'a> {
    core: &'a Core,
    births: Births,
    work: Work,
    pub position: Position,
    /// Nodes above the position, while this process knows them.
    path: Vec<NodeName>,
    pub tasks: Tasks<'a>,
}

impl<'a> Pass<'a> {
    pub fn new(
        core: &'a Core,
        births: Births,
        work: Work,
        position: Position,
        goes_on: &'a dyn Fn() -> bool,
    ) -> Self {
        Self { core, births, work, position, path: Vec::new(), tasks: Tasks::new(core, work, goes_on) }
    }

    /// One step; in the second round, `again` are the datasets to visit.
    ///
    /// # Errors
    /// The root tree cannot be read; the member to be filled failed.
    pub fn step(&mut self, again: &[DatasetId]) -> Result<Step> {
        self.core.check_open()?;
        if !self.position.ground {
            if !self.ground()? {
                return Ok(Step::Interrupted);
            }
            self.position.ground = true;
            return Ok(Step::More);
        }
        let second = self.position.second;
        let is_next = |dataset: &Arc<DatasetState>| {
            dataset.id >= self.position.dataset && (!second || again.contains(&dataset.id))
        };
        let next = self.core.catalog.read().all().into_iter().find(is_next);
        let Some(dataset) = next else { return Ok(Step::Done) };
        if dataset.id != self.position.dataset {
            self.go_to(dataset.id);
        }
        self.visit(&dataset)
    }

    /// Begins anew.
    pub fn restart(&mut self) {
        self.position = Position::default();
        self.path.clear();
    }

    /// Begins the second round.
    pub fn start_again(&mut self) {
        self.position.second = true;
        self.go_to(DatasetId(0));
    }

    fn go_to(&mut self, dataset: DatasetId) {
        let Position { ground, second, .. } = self.position;
        self.position = Position { ground, second, dataset, ..Position::default() };
        self.path.clear();
    }

    /// Visits what belongs to no dataset; whether all of it was visited.
    fn ground(&mut self) -> Result<bool> {
        let ground = self.core.ground()?;
        let (tasks, dmu) = (&mut self.tasks, &self.core.dmu);
        tasks.owner = None;
        for task in ground.table {
            tasks.add(task, Subject::of("allocation table root"), false);
        }
        let mut holds = Vec::new();
        if let Work::Look(_) = self.work {
            for (task, hold) in ground.maps {
                tasks.add(task, Subject::of("map of a vdev that left"), false);
                holds.push(hold);
            }
        }
        let (tree, root) = (&ground.view.tree, &ground.view.version.root);
        let end = tree.scrub(root, self.births, &Place::default(), u64::MAX, &mut |found| tasks.take(found));
        debug_assert!(end.is_none());
        let listed = listed_chunks(&ground.view, dmu, &mut |list| {
            list.into_iter().for_each(|task| tasks.add(task, Subject::of("chunk of a dead list"), false));
        });
        if let Err(error) = listed {
            tasks.unreadable(Subject::of("dead lists"), None, error.to_string());
        }
        let settled = tasks.settle()?;
        drop((ground.keeper, holds));
        // Bitmaps and maps are written anew where they are to be.
        let Work::Look(target) = self.work else { return Ok(settled) };
        let visited = dmu.scrub_allocation(target, &mut |what, outcome| {
            tasks.note(what, outcome);
            !tasks.is_over()
        })?;
        Ok(settled && visited)
    }

    /// One step of `dataset`, which the position is in.
    fn visit(&mut self, dataset: &Arc<DatasetState>) -> Result<Step> {
        let sight = self.core.sight(dataset, self.position.seen)?;
        let position = &mut self.position;
        if position.tree != sight.generation {
            // What was visited of a later state of the dataset counts; of an earlier one, something may be missing.
            if position.tree < self.births.ceiling {
                position.key.clear();
            }
            self.path.clear();
            position.tree = sight.generation;
        }
        let floor = position.seen.max(sight.origin).max(self.births.floor);
        let births = Births { floor, ..self.births };
        let tasks = &mut self.tasks;
        tasks.owner = Some(Arc::clone(&sight.name));
        let mut end = None;
        if floor < births.ceiling {
            let from = Place { key: std::mem::take(&mut position.key), path: std::mem::take(&mut self.path) };
            let blocks = tasks.step_blocks();
            let View { tree, version, .. } = &sight.view;
            end = tree.scrub(&version.root, births, &from, blocks, &mut |found| tasks.take(found));
            (position.key, self.path) = (from.key, from.path);
        }
        let is_last = end.is_none() && sight.generation == HEAD;
        if is_last {
            sight.drops.scrub(&self.core.dmu, &|drop| sight.births_of(drop, self.births), &mut |found| {
                tasks.take(found)
            });
        }
        if !tasks.settle()? {
            return Ok(Step::Interrupted);
        }
        match end {
            Some(place) => (position.key, self.path) = (place.key, place.path),
            None if is_last => self.go_to(DatasetId(dataset.id.0 + 1)),
            None => {
                (position.seen, position.tree) = (sight.generation, Generation(0));
                position.key.clear();
                self.path.clear();
            }
        }
        Ok(Step::More)
    }
}
