//! Point reads: memtables, then the slot's runs on each level, newest first.

use super::resolve::Resolver;
use super::value::Value;
use super::version::Version;
use super::{Job, Tree, TreeError};
use crate::run::key_hash;
use std::sync::atomic::Ordering;

/// A leaf or buffer that this many point reads searched in several runs is merged in the background, as a Bw-tree
/// consolidates a delta chain that queries keep walking (Levandoski et al., ICDE 2013).
const VISITS_BEFORE_MERGE: u32 = 4096;

impl Tree {
    /// The value of `key` now: every write that returned before the call is seen.
    ///
    /// # Errors
    /// Device errors and damage; a missing or panicked message action when the key has upserts.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, TreeError> {
        // The version first: everything in its immutable parts is then at most as new as `visible`.
        let version = self.version.load();
        let visible = self.visible();
        self.get_in(&version, visible, key)
    }

    /// The value of `key` in `version` as of sequence number `visible`.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn get_in(&self, version: &Version, visible: u64, key: &[u8]) -> Result<Option<Value>, TreeError> {
        let mut resolver = Resolver::new();
        let hash = key_hash(key);
        for table in version.tables() {
            let memtable = &table.memtable;
            if memtable.is_empty() {
                continue;
            }
            if let Some(sequence) = memtable.covering_range_delete(key, visible) {
                resolver.delete_before(sequence);
            }
            if !memtable.may_contain(hash) {
                continue;
            }
            memtable.get(key, visible, &mut |entry| resolver.push(entry));
            if resolver.is_done() {
                return self.finish(resolver, key);
            }
        }
        let mut body = version.root.load(&self.dmu)?;
        loop {
            let index = body.slot_index(key);
            let slot = &body.slots[index];
            if slot.range_deletes {
                for run in slot.runs.iter().filter(|run| run.reference().range_deletes > 0) {
                    if let Some(sequence) = run.covering(key, visible)? {
                        resolver.delete_before(sequence);
                    }
                }
            }
            // All filters at once: their cache misses overlap.
            if slot.runs.len() > 1 {
                slot.runs.iter().for_each(|run| run.prefetch_filter(hash));
            }
            let mut searched = 0;
            for run in &slot.runs {
                if slot.sparse && !run.spans(key) {
                    continue;
                }
                searched += 1;
                if run.get(key, hash, visible, &mut |entry| resolver.push(entry))?.is_break() {
                    break;
                }
            }
            if searched > slot.base.max(1) {
                let visits = slot.visits.fetch_add(1, Ordering::Relaxed);
                if visits == VISITS_BEFORE_MERGE {
                    self.consolidate(key, body.level);
                }
            }
            if resolver.is_done() {
                break;
            }
            let Some(child) = &slot.child else {
                break;
            };
            let next = child.load(&self.dmu)?;
            body = next;
        }
        self.finish(resolver, key)
    }

    fn finish(&self, resolver: Resolver, key: &[u8]) -> Result<Option<Value>, TreeError> {
        let action = if resolver.needs_action() { self.action() } else { None };
        resolver.finish(key, &self.dmu, action.as_ref(), self.action_name())
    }

    /// Queues the merge of a slot that reads keep searching in several runs.
    #[cold]
    fn consolidate(&self, key: &[u8], level: u8) {
        let version = self.version.load_full();
        if let Ok(Some(path)) = self.locate(&version.root, level, key) {
            let low = path.slot_low().to_vec();
            let several = path.slot().runs.len() > path.slot().base.max(1);
            if several {
                let job = if level == 1 { Job::MergeLeaf { low } } else { Job::FlushSlot { level, low } };
                self.jobs.push(self.id, job);
            }
        }
    }
}
