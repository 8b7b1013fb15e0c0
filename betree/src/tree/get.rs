//! Point reads: memtables, then the slot's runs on each level, newest first.

use super::node::Slot;
use super::part::PartRead;
use super::resolve::Resolver;
use super::value::{LargeValue, Value};
use super::version::Version;
use super::{Job, Tree, TreeError};
use crate::base::preference::StoragePreference;
use crate::run::{Search, key_hash};
use std::sync::atomic::Ordering;

/// A leaf or buffer whose readers had this much work with its several runs is merged in the background, as a Bw-tree
/// consolidates a delta chain that queries keep walking (Levandoski et al., ICDE 2013). The unit is a look at one more
/// filter, some 20 ns; a merge of a leaf costs about as much as half a million of these.
const VISIT_COST_BEFORE_MERGE: u32 = 1 << 17;
/// Cost of searching the blocks of one more run, beside the one that has the key.
const SEARCH_COST: u32 = 64;
/// Cost of starting a range in one more run.
const RANGE_COST: u32 = 256;

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
        Ok(self.get_preferred_in(version, visible, key)?.map(|(value, _)| value))
    }

    /// As [`Tree::get_in`], with the preference that the value was written with.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn get_preferred_in(
        &self,
        version: &Version,
        visible: u64,
        key: &[u8],
    ) -> Result<Option<(Value, StoragePreference)>, TreeError> {
        let resolver = self.collect(version, visible, key)?;
        let preference = resolver.preference();
        let action = if resolver.needs_action() { self.action() } else { None };
        let value =
            resolver.finish(key, &self.dmu, action.as_ref(), self.action_name(), LargeValue::caching)?;
        Ok(value.map(|value| (value, preference)))
    }

    /// As [`Tree::get_in`], of the part of the value from byte `offset` that fits into `out`. Of a large value only the
    /// pieces of 16 KiB around it are read, unless there are upserts that need the whole.
    ///
    /// # Errors
    /// As [`Tree::get`]; `out` is then unspecified.
    pub fn get_part_in(
        &self,
        version: &Version,
        visible: u64,
        key: &[u8],
        offset: u64,
        out: &mut [u8],
    ) -> Result<Option<PartRead>, TreeError> {
        let resolver = self.collect(version, visible, key)?;
        self.finish_part(resolver, key, offset, out)
    }

    /// What `resolver`, which has the versions of `key`, makes of the part of the value from byte `offset`.
    pub(super) fn finish_part(
        &self,
        resolver: Resolver,
        key: &[u8],
        offset: u64,
        out: &mut [u8],
    ) -> Result<Option<PartRead>, TreeError> {
        let action = if resolver.needs_action() { self.action() } else { None };
        resolver.finish_part(key, &self.dmu, action.as_ref(), self.action_name(), offset, out)
    }

    /// Brings what a read of `length` bytes from byte `offset` of the value of `key` would need into the cache. Whether a device
    /// was asked for pieces of a large value.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn read_ahead_in(
        &self,
        version: &Version,
        visible: u64,
        key: &[u8],
        offset: u64,
        length: usize,
    ) -> Result<bool, TreeError> {
        self.collect(version, visible, key)?.read_ahead(&self.dmu, offset, length)
    }

    /// As [`Tree::get_part_in`], now.
    ///
    /// # Errors
    /// As [`Tree::get_part_in`].
    pub fn get_part(&self, key: &[u8], offset: u64, out: &mut [u8]) -> Result<Option<PartRead>, TreeError> {
        let version = self.version.load();
        let visible = self.visible();
        self.get_part_in(&version, visible, key, offset, out)
    }

    /// The versions of `key` that make its value.
    fn collect(&self, version: &Version, visible: u64, key: &[u8]) -> Result<Resolver, TreeError> {
        let mut resolver = Resolver::new();
        self.collect_into(&mut resolver, version, visible, key, true)?;
        Ok(resolver)
    }

    /// The versions of `key` that make its value. Without `waits`, only as far as they are in memory: whether they all were.
    pub(super) fn collect_into(
        &self,
        resolver: &mut Resolver,
        version: &Version,
        visible: u64,
        key: &[u8],
        waits: bool,
    ) -> Result<bool, TreeError> {
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
                return Ok(true);
            }
        }
        if !waits && !version.root.is_resident() {
            return Ok(false);
        }
        let mut body = version.root.load(&self.dmu)?;
        loop {
            let index = body.slot_index(key);
            let slot = &body.slots[index];
            if slot.range_deletes {
                for run in slot.runs.iter().filter(|run| run.reference().range_deletes > 0) {
                    if !waits && !run.has_meta() {
                        return Ok(false);
                    }
                    if let Some(sequence) = run.covering(key, visible)? {
                        resolver.delete_before(sequence);
                    }
                }
            }
            // All filters at once: their cache misses overlap.
            if slot.runs.len() > 1 {
                slot.runs.iter().for_each(|run| run.prefetch_filter(hash));
            }
            let (mut filters, mut searches) = (0, 0_u32);
            for run in &slot.runs {
                if slot.sparse && !run.spans(key) {
                    continue;
                }
                filters += 1;
                if !waits && !run.reads_nothing(key, hash) {
                    return Ok(false);
                }
                match run.get(key, hash, visible, &mut |entry| resolver.push(entry))? {
                    Search::Filtered => {}
                    Search::Continue => searches += 1,
                    Search::Done => break,
                }
            }
            if filters > slot.base.max(1) {
                let cost = (filters - slot.base.max(1)) as u32 + searches * SEARCH_COST;
                self.note_visit(slot, cost, key, body.level);
            }
            if resolver.is_done() {
                break;
            }
            let Some(child) = &slot.child else {
                break;
            };
            if !waits && !child.is_resident() {
                return Ok(false);
            }
            let next = child.load(&self.dmu)?;
            body = next;
        }
        Ok(true)
    }

    /// A range starts in `slot` of `level` at `key`.
    pub(super) fn note_range(&self, slot: &Slot, key: &[u8], level: u8) {
        let extra = slot.runs.len().saturating_sub(slot.base.max(1)) as u32;
        if extra > 0 {
            self.note_visit(slot, extra * RANGE_COST, key, level);
        }
    }

    /// Adds to the work that readers had with the several runs of a slot.
    fn note_visit(&self, slot: &Slot, cost: u32, key: &[u8], level: u8) {
        let before = slot.visits.fetch_add(cost, Ordering::Relaxed);
        if before < VISIT_COST_BEFORE_MERGE && before + cost >= VISIT_COST_BEFORE_MERGE {
            self.consolidate(key, level);
        }
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
