//! Storing a captured tree: dirty headers, bottom-up.

use super::TreeError;
use super::compact::Folding;
use super::format::NodeRef;
use super::job::Job;
use super::node::NodeCell;
use super::tree::Tree;
use crate::base::ids::Generation;
use crate::base::preference::StoragePreference;
use std::sync::Arc;

impl Tree {
    /// Writes every node below `root` that is not on disk, children first, as part of checkpoint `generation`.
    /// `preference` is where headers go. Returns the pointer to the root.
    ///
    /// # Errors
    /// Out of space and device errors; nodes already written stay written.
    pub fn store(
        &self,
        root: &Arc<NodeCell>,
        preference: StoragePreference,
        generation: Generation,
    ) -> Result<NodeRef, TreeError> {
        if let Some(reference) = root.reference() {
            return Ok(reference);
        }
        for slot in &root.load(&self.dmu)?.slots {
            if let Some(child) = &slot.child {
                self.store(child, preference, generation)?;
            }
        }
        root.store(&self.dmu, &self.deaths, preference, generation)
    }

    /// Does one piece of work. When the message action panics in it, the work is done without: the messages stay for a
    /// process whose action can read them.
    ///
    /// # Errors
    /// Out of space, device errors, damage; the tree then stays as it was.
    pub fn run_job(&self, job: &Job) -> Result<(), TreeError> {
        match self.try_job(job) {
            Err(TreeError::ActionPanicked { .. }) => self.try_job(job),
            done => done,
        }
    }

    fn try_job(&self, job: &Job) -> Result<(), TreeError> {
        match job {
            Job::FlushTable => {
                if self.flush_table(false)? && self.frozen_count() > 0 {
                    self.jobs.push(self.id, Job::FlushTable);
                }
                Ok(())
            }
            Job::FlushSlot { level, low } => self.flush_slot(*level, low, usize::MAX),
            Job::MergeLeaf { low } => self.merge_leaf(low, Folding::WhenItPays, None).map(|_| ()),
            Job::MergeBuffer { level, low } => self.merge_buffer(*level, low),
            Job::SplitNode { level, low } => self.split_node(*level, low),
            Job::JoinSlots { level, low } => self.join_slots(*level, low),
            Job::Survey => self.queue_left_over(),
            Job::ResolveDrops => {
                if self.resolve_drop()? {
                    self.jobs.push(self.id, Job::ResolveDrops);
                }
                Ok(())
            }
        }
    }
}
