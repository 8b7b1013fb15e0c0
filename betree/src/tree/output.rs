//! Runs written for a row of slots: cut at their pivots, one run per tier.

use super::compact::Sink;
use super::value::LargeValue;
use super::{TreeError, TreeOptions};
use crate::base::planted::{Bug, planted};
use crate::base::preference::{StoragePreference, TIER_COUNT};
use crate::dmu::{Dmu, Privilege, Stream};
use crate::run::{
    EntryRef, HeatOfBlocks, Kind, PendingRun, RangeDelete, Run, RunOptions, RunWriter, without_covered,
};
use std::sync::Arc;

/// Writers for one place, one per tier that the entries want, so that hot and cold keys lie on their own tiers.
struct Writers {
    by_class: [Option<RunWriter>; TIER_COUNT + 1],
}

impl Writers {
    fn new() -> Self {
        Self { by_class: [const { None }; TIER_COUNT + 1] }
    }

    fn is_empty(&self) -> bool {
        self.by_class.iter().all(Option::is_none)
    }

    fn stored_bytes(&self) -> u64 {
        self.by_class.iter().flatten().map(RunWriter::stored_bytes).sum()
    }
}

/// What [`Outputs`] needs to open a writer.
#[derive(Clone, Copy)]
pub(super) struct OutputOptions<'a> {
    pub dmu: &'a Dmu,
    pub tree: &'a TreeOptions,
    pub stream: Stream,
    /// How deep into the reserve the runs may reach.
    pub privilege: Privilege,
    /// Expected stored bytes of one run, for contiguous allocation.
    pub expected_bytes: u64,
    /// A run is ended at this size and another one begun.
    pub run_bytes_max: u64,
    /// The runs that are replaced: blocks go into the cache where a block of these is in it. `None`: all blocks go there.
    pub replaced: Option<&'a [Arc<Run>]>,
}

impl OutputOptions<'_> {
    fn class_of(&self, preference: StoragePreference) -> (usize, StoragePreference) {
        let preference = preference.or(self.tree.preference);
        (preference.class().map_or(TIER_COUNT, usize::from), preference)
    }

    fn open(&self, preference: StoragePreference) -> RunWriter {
        let options = RunOptions {
            block_bytes: self.tree.block_bytes,
            compression: self.tree.compression,
            stream: self.stream,
            preference,
            privilege: self.privilege,
            ..RunOptions::default()
        };
        let mut writer = RunWriter::new(self.dmu, options, self.expected_bytes);
        writer.set_heat(match self.replaced {
            None => HeatOfBlocks::Hot,
            Some(runs) => {
                let runs = runs.to_vec();
                HeatOfBlocks::Where(Box::new(move |key| runs.iter().any(|run| run.is_resident(key))))
            }
        });
        writer
    }

    fn writer<'w>(&self, writers: &'w mut Writers, preference: StoragePreference) -> &'w mut RunWriter {
        let (class, preference) = self.class_of(preference);
        writers.by_class[class].get_or_insert_with(|| self.open(preference))
    }

    /// Adds `entry` to the writer of its tier. A large value counts for its run, so that garbage is seen and a run that is
    /// dropped unread is known to name some.
    fn add(&self, writers: &mut Writers, entry: EntryRef<'_>) -> Result<(), TreeError> {
        let writer = self.writer(writers, entry.preference);
        if entry.kind == Kind::PutLarge {
            writer.add_large_bytes(LargeValue::stored_bytes_of(entry.payload)?);
        }
        writer.add(entry)?;
        Ok(())
    }

    /// Ends the writers; `ranges` go into each of them, so that no run of this age lacks them.
    fn end(
        &self,
        writers: &mut Writers,
        ranges: &[RangeDelete],
        runs: &mut Vec<PendingRun>,
    ) -> Result<(), TreeError> {
        if writers.is_empty() && !ranges.is_empty() {
            self.writer(writers, StoragePreference::NONE);
        }
        for writer in &mut writers.by_class {
            let Some(mut writer) = writer.take() else { continue };
            for range in ranges.iter().filter(|_| !planted(Bug::DropRangeDelete)) {
                writer.add_range_delete(range.clone());
            }
            runs.extend(writer.end()?);
        }
        Ok(())
    }
}

/// The runs, once they are written: only here is waited for devices, that they have the next run while one is made.
fn written(runs: Vec<PendingRun>) -> Result<Vec<Arc<Run>>, TreeError> {
    Ok(runs.into_iter().map(PendingRun::wait).collect::<Result<_, _>>()?)
}

/// Runs for the slots of a node, cut at its pivots.
pub(super) struct SlotOutputs<'a> {
    options: OutputOptions<'a>,
    pivots: &'a [Box<[u8]>],
    low: &'a [u8],
    ranges: Vec<RangeDelete>,
    /// The slot being written.
    current: usize,
    writers: Writers,
    last_key: Vec<u8>,
    /// Runs of each slot.
    runs: Vec<Vec<PendingRun>>,
}

impl<'a> SlotOutputs<'a> {
    /// Outputs for the slots between `pivots`, the first of which starts at `low`; `ranges` go to the slots that they
    /// reach, clipped.
    pub fn new(
        options: OutputOptions<'a>,
        low: &'a [u8],
        pivots: &'a [Box<[u8]>],
        ranges: Vec<RangeDelete>,
    ) -> Self {
        let runs = (0..=pivots.len()).map(|_| Vec::new()).collect();
        Self { options, pivots, low, ranges, current: 0, writers: Writers::new(), last_key: Vec::new(), runs }
    }

    /// Ends the stream; one list of runs per slot.
    pub fn finish(mut self) -> Result<Vec<Vec<Arc<Run>>>, TreeError> {
        while self.current < self.runs.len() {
            self.end_slot()?;
        }
        self.runs.into_iter().map(written).collect()
    }

    fn end_slot(&mut self) -> Result<(), TreeError> {
        let low = self.current.checked_sub(1).map_or(self.low, |before| &*self.pivots[before]);
        let high = self.pivots.get(self.current).map(|pivot| &**pivot);
        let ranges = clip(&self.ranges, low, high);
        self.options.end(&mut self.writers, &ranges, &mut self.runs[self.current])?;
        self.current += 1;
        Ok(())
    }
}

/// The parts of `ranges` inside `low..high`, but for those that newer ones cover there: each would carry the bounds of the
/// slot, which are long when keys are.
pub(super) fn clip(ranges: &[RangeDelete], low: &[u8], high: Option<&[u8]>) -> Vec<RangeDelete> {
    let mut clipped = Vec::new();
    for range in ranges {
        let start = if *range.start < *low { low } else { &range.start };
        let end = match (range.end.as_deref(), high) {
            (Some(end), Some(high)) => Some(end.min(high)),
            (end, high) => end.or(high),
        };
        if end.is_none_or(|end| start < end) {
            clipped.push(RangeDelete {
                start: start.into(),
                end: end.map(Into::into),
                sequence: range.sequence,
            });
        }
    }
    without_covered(clipped)
}

impl Sink for SlotOutputs<'_> {
    fn put(&mut self, entry: EntryRef<'_>) -> Result<(), TreeError> {
        while self.pivots.get(self.current).is_some_and(|pivot| **pivot <= *entry.key) {
            self.end_slot()?;
        }
        let full = self.writers.stored_bytes() >= self.options.run_bytes_max;
        // Range deletes of a slot go with its last runs; a slot that has some is not cut.
        if full && self.ranges.is_empty() && self.last_key != entry.key {
            self.options.end(&mut self.writers, &[], &mut self.runs[self.current])?;
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(entry.key);
        self.options.add(&mut self.writers, entry)
    }
}

/// A leaf that a merge wrote.
#[derive(Debug)]
pub(super) struct NewLeaf {
    /// Lower bound; `None`: that of the slot that was merged.
    pub low: Option<Box<[u8]>>,
    /// Its base.
    pub runs: Vec<Arc<Run>>,
}

struct PendingLeaf {
    low: Option<Box<[u8]>>,
    runs: Vec<PendingRun>,
}

/// New leaves, cut at a target size.
pub(super) struct LeafOutputs<'a> {
    options: OutputOptions<'a>,
    writers: Writers,
    low: Option<Box<[u8]>>,
    last_key: Vec<u8>,
    leaves: Vec<PendingLeaf>,
}

impl<'a> LeafOutputs<'a> {
    /// Leaves of `options.run_bytes_max` stored bytes each, over all tiers.
    pub fn new(options: OutputOptions<'a>) -> Self {
        Self { options, writers: Writers::new(), low: None, last_key: Vec::new(), leaves: Vec::new() }
    }

    /// Ends the stream; at least one leaf, which may be empty.
    pub fn finish(mut self) -> Result<Vec<NewLeaf>, TreeError> {
        self.end_leaf()?;
        let wait = |leaf: PendingLeaf| Ok(NewLeaf { low: leaf.low, runs: written(leaf.runs)? });
        self.leaves.into_iter().map(wait).collect()
    }

    fn end_leaf(&mut self) -> Result<(), TreeError> {
        let mut runs = Vec::new();
        self.options.end(&mut self.writers, &[], &mut runs)?;
        self.leaves.push(PendingLeaf { low: self.low.take(), runs });
        Ok(())
    }
}

impl Sink for LeafOutputs<'_> {
    fn put(&mut self, entry: EntryRef<'_>) -> Result<(), TreeError> {
        let full = self.writers.stored_bytes() >= self.options.run_bytes_max;
        if full && self.last_key != entry.key {
            self.end_leaf()?;
            self.low = Some(separator(&self.last_key, entry.key));
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(entry.key);
        self.options.add(&mut self.writers, entry)
    }
}

/// A shortest key above `before` and at most `after`.
fn separator(before: &[u8], after: &[u8]) -> Box<[u8]> {
    let common = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    after[..(common + 1).min(after.len())].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_lie_between() {
        for (before, after) in
            [(&b"abc"[..], &b"abd"[..]), (b"", b"a"), (b"a", b"ab"), (b"ab", b"b"), (b"a\xff", b"b")]
        {
            let key = separator(before, after);
            assert!(*before < *key && *key <= *after, "{before:?} {after:?} {key:?}");
        }
    }

    #[test]
    fn ranges_are_clipped_to_slots() {
        let range = |start: &[u8], end: Option<&[u8]>| RangeDelete {
            start: start.into(),
            end: end.map(Into::into),
            sequence: 1,
        };
        let ranges = [range(b"c", Some(b"k")), range(b"x", None)];
        assert_eq!(clip(&ranges, b"", Some(b"c")), []);
        assert_eq!(clip(&ranges, b"", Some(b"d")), [range(b"c", Some(b"d"))]);
        assert_eq!(clip(&ranges, b"f", Some(b"y")), [range(b"f", Some(b"k")), range(b"x", Some(b"y"))]);
        assert_eq!(clip(&ranges, b"y", None), [range(b"y", None)]);
    }
}
