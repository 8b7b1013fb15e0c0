//! From a sorted stream of messages to the fewest messages that mean the same.
//!
//! Upserts on a large value are *patches*: folding one would read and write all of the value. They stay beside it, in the
//! same run, until they are half as long as it is (the fold then writes two bytes for each of theirs), or, where space is
//! short, an eighth. What they overwrite of each other goes when they are combined.
//!
//! Versions are dropped and upserts combined only here, when a new run is written: a view keeps the old runs. Upserts
//! are never combined across a range delete or a put between them, because both end the walk through a key's versions.

use super::action::Action;
use super::relocate::{Migrated, Relocation};
use super::value::{Caching, LargeValue};
use super::{TreeError, TreeOptions};
use crate::base::ids::Generation;
use crate::base::planted::{Bug, planted};
use crate::base::preference::StoragePreference;
use crate::dmu::{Dmu, DmuError, OwnedExtents, Privilege};
use crate::run::{EntryRef, Kind, PAYLOAD_BYTES_MAX, RangeDelete, Run, without_covered};
use std::sync::Arc;

/// Where compacted messages go, in ascending order of keys.
pub(super) trait Sink {
    /// Takes one message.
    fn put(&mut self, entry: EntryRef<'_>) -> Result<(), TreeError>;
}

/// What a compaction changes outside of the runs that it writes.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Large values whose last message is gone.
    pub dropped: Vec<LargeValue>,
    /// Large values that folding upserts wrote, or that were copied to another tier.
    pub written: Vec<Arc<OwnedExtents>>,
    /// The birth that pointers to these say.
    birth: Generation,
    /// Why patches that were to be folded stay: there was no room.
    pub unfolded: Option<DmuError>,
    /// What is on another tier now.
    pub moved: Migrated,
}

/// What a merge at the bottom does with patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folding {
    /// It folds them when that costs little for each of their bytes.
    WhenItPays,
    /// It folds them when that frees something worth while.
    ForSpace,
}

impl Folding {
    /// The part of a value that its patches must be as long as.
    pub const fn share(self) -> u64 {
        match self {
            Self::WhenItPays => 2,
            Self::ForSpace => 8,
        }
    }
}

/// Messages beside a large value that could not be combined: whoever reads the value reads each of them.
const KEPT_MESSAGES_MAX: usize = 64;

impl Effects {
    /// Whether a checkpoint captured the tree meanwhile, so that what was written is born later than its pointers say. A
    /// snapshot would seem to have it: the work is done again.
    pub fn are_late(&self, generation: Generation) -> bool {
        !self.written.is_empty() && self.birth != generation
    }
}

/// Range deletes, asked for ascending keys.
#[derive(Debug, Default)]
pub(super) struct RangeSweep {
    /// By start.
    ranges: Vec<RangeDelete>,
    next: usize,
    active: Vec<usize>,
}

impl RangeSweep {
    pub fn new(mut ranges: Vec<RangeDelete>) -> Self {
        ranges.sort_by(|a, b| a.start.cmp(&b.start));
        Self { ranges, next: 0, active: Vec::new() }
    }

    /// The newest sequence that deletes `key`, 0 without one. Keys must not descend from call to call.
    pub fn covering(&mut self, key: &[u8]) -> u64 {
        if self.ranges.is_empty() {
            return 0;
        }
        while let Some(range) = self.ranges.get(self.next).filter(|range| *range.start <= *key) {
            // A range that ended before this key is never looked at again.
            if range.covers(key) {
                self.active.push(self.next);
            }
            self.next += 1;
        }
        let ranges = &self.ranges;
        self.active.retain(|index| ranges[*index].covers(key));
        self.active.iter().map(|index| ranges[*index].sequence).max().unwrap_or(0)
    }
}

/// An upsert that waits for what lies below it.
#[derive(Debug)]
struct Upsert {
    sequence: u64,
    preference: StoragePreference,
    message: Vec<u8>,
}

/// What upserts made of the value below them; none deletes the key.
#[derive(Debug)]
struct Folded {
    value: Option<Vec<u8>>,
}

/// What a key is in the end.
enum Settled {
    Deleted,
    Inline(Vec<u8>),
    Large(LargeValue),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// No version of the key was seen.
    Fresh,
    /// The key is settled; older versions are dropped.
    Settled,
    /// Only upserts were seen.
    Upserts,
}

/// Compacts one ascending stream.
pub(super) struct Compactor<'a> {
    dmu: &'a Dmu,
    options: &'a TreeOptions,
    action: Option<&'a Action>,
    privilege: Privilege,
    /// Nothing lies below: deletes are dropped, upserts folded, patches as it says.
    bottom: Option<Folding>,
    /// Birth for large values that folding writes.
    generation: Generation,
    ranges: RangeSweep,
    /// What goes to another tier.
    relocation: Option<&'a Relocation>,
    /// Where all that is kept of the key goes, when it is moved.
    destination: Option<StoragePreference>,
    state: State,
    started: bool,
    key: Vec<u8>,
    upserts: Vec<Upsert>,
    effects: Effects,
}

impl<'a> Compactor<'a> {
    pub fn new(
        dmu: &'a Dmu,
        options: &'a TreeOptions,
        action: Option<&'a Action>,
        privilege: Privilege,
        bottom: Option<Folding>,
        generation: Generation,
        ranges: Vec<RangeDelete>,
    ) -> Self {
        Self {
            dmu,
            options,
            action,
            privilege,
            bottom,
            generation,
            ranges: RangeSweep::new(ranges),
            relocation: None,
            destination: None,
            state: State::Settled,
            started: false,
            key: Vec::new(),
            upserts: Vec::new(),
            effects: Effects::default(),
        }
    }

    /// Moves the keys of `relocation` to where it says.
    pub fn relocate(&mut self, relocation: Option<&'a Relocation>) {
        self.relocation = relocation;
    }

    /// Takes the next message: ascending by key, newest first within a key.
    pub fn push(&mut self, entry: EntryRef<'_>, sink: &mut impl Sink) -> Result<(), TreeError> {
        if !self.started || self.key != entry.key {
            self.end_key(sink)?;
            self.started = true;
            self.key.clear();
            self.key.extend_from_slice(entry.key);
            self.state = State::Fresh;
            let relocation = self.relocation.filter(|relocation| relocation.covers(entry.key));
            self.destination = relocation.map(Relocation::preference);
        }
        if self.state == State::Settled {
            return self.drop_message(&entry);
        }
        if self.ranges.covering(entry.key) > entry.sequence {
            self.drop_message(&entry)?;
            return self.settle_over_nothing(sink);
        }
        if self.state == State::Upserts
            && let Some(settled) = self.fold_over(&entry)?
        {
            self.drop_message(&entry)?;
            self.note_moved(
                &entry,
                match &settled {
                    Settled::Large(pointer) => u64::from(pointer.length),
                    Settled::Inline(value) => value.len() as u64,
                    Settled::Deleted => 0,
                },
            )?;
            return self.put_settled(settled, entry.preference, sink);
        }
        match entry.kind {
            Kind::Upsert => {
                self.state = State::Upserts;
                self.upserts.push(Upsert {
                    sequence: entry.sequence,
                    preference: entry.preference,
                    message: entry.payload.to_vec(),
                });
                Ok(())
            }
            Kind::Put | Kind::PutLarge
                if planted(Bug::DropFlushedMessage) && entry.sequence.is_multiple_of(32) =>
            {
                self.drop_message(&entry)
            }
            Kind::PutLarge if self.destination.is_some() => self.put_moved(entry, sink),
            Kind::Put | Kind::PutLarge => {
                self.note_moved(&entry, entry.payload.len() as u64)?;
                self.put_as_it_is(entry, sink)
            }
            Kind::Delete => {
                let preference = self.emit_upserts(entry.preference, sink)?;
                self.state = State::Settled;
                let leave_out = self.bottom.is_some() || planted(Bug::SkipDeadMessage);
                if leave_out { Ok(()) } else { sink.put(EntryRef { preference, ..entry }) }
            }
        }
    }

    /// Ends the stream.
    pub fn finish(mut self, sink: &mut impl Sink) -> Result<Effects, TreeError> {
        self.end_key(sink)?;
        Ok(Effects { birth: self.generation, ..std::mem::take(&mut self.effects) })
    }

    fn put_as_it_is(&mut self, entry: EntryRef<'_>, sink: &mut impl Sink) -> Result<(), TreeError> {
        let preference = self.emit_upserts(entry.preference, sink)?;
        self.state = State::Settled;
        sink.put(EntryRef { preference, ..entry })
    }

    /// Puts the large value `entry` of a key that is to be moved: its copy, if there is one. Without one, what does not lie
    /// there already stays.
    fn put_moved(&mut self, entry: EntryRef<'_>, sink: &mut impl Sink) -> Result<(), TreeError> {
        let Some(relocation) = self.relocation else { return self.put_as_it_is(entry, sink) };
        let value = LargeValue::decode(entry.payload)?;
        let Some(copied) = relocation.copy_of(&value) else {
            if !relocation.is_home(&value, self.dmu) {
                self.destination = None;
            }
            return self.put_as_it_is(entry, sink);
        };
        self.effects.moved.entries += 1;
        self.effects.moved.bytes += u64::from(value.length);
        self.effects.written.push(Arc::clone(&copied.space));
        self.effects.dropped.push(value);
        let pointer = LargeValue { birth: self.generation, ..copied.pointer.clone() };
        self.put_as_it_is(EntryRef { payload: &pointer.encode(), ..entry }, sink)
    }

    /// Counts the value of a key that is moved, of `bytes` bytes, when `entry`, that of it which is in the leaf, lies
    /// elsewhere.
    fn note_moved(&mut self, entry: &EntryRef<'_>, bytes: u64) -> Result<(), TreeError> {
        let Some(relocation) = self.relocation.filter(|_| self.destination.is_some()) else { return Ok(()) };
        let moves = match entry.kind {
            Kind::PutLarge => !relocation.is_home(&LargeValue::decode(entry.payload)?, self.dmu),
            _ => relocation.displaces(entry, self.dmu, self.options.preference),
        };
        if moves {
            self.effects.moved.entries += 1;
            self.effects.moved.bytes += bytes;
        }
        Ok(())
    }

    fn drop_message(&mut self, entry: &EntryRef<'_>) -> Result<(), TreeError> {
        if entry.kind == Kind::PutLarge {
            self.effects.dropped.push(LargeValue::decode(entry.payload)?);
        }
        Ok(())
    }

    fn end_key(&mut self, sink: &mut impl Sink) -> Result<(), TreeError> {
        if self.state != State::Upserts {
            return Ok(());
        }
        if self.bottom.is_some() {
            return self.settle_over_nothing(sink);
        }
        self.emit_upserts(StoragePreference::NONE, sink)?;
        Ok(())
    }

    /// The preference for all that is kept of the key: the newest one that says something. All messages of a key
    /// share it, because the preference chooses the run, and versions of a key may not be spread over runs of one age.
    fn key_preference(&self, base: StoragePreference) -> StoragePreference {
        if let Some(destination) = self.destination {
            return destination;
        }
        self.upserts
            .iter()
            .map(|upsert| upsert.preference)
            .fold(StoragePreference::NONE, StoragePreference::or)
            .or(base)
    }

    /// Folds the collected upserts onto `base`. `None` when they have to stay: `base` is another upsert or not to be read
    /// here, or there is no action, or one that panicked.
    fn fold_over(&mut self, base: &EntryRef<'_>) -> Result<Option<Settled>, TreeError> {
        let Some(action) = self.action.filter(|action| !action.has_panicked()) else { return Ok(None) };
        let value = match (base.kind, self.bottom) {
            (Kind::Put, _) => Some(base.payload.to_vec()),
            (Kind::Delete, _) => None,
            (Kind::PutLarge, Some(folding)) => return self.fold_patches(action, folding, base),
            (Kind::PutLarge, None) | (Kind::Upsert, _) => return Ok(None),
        };
        let Some(folded) = self.fold(action, value) else { return Ok(None) };
        Ok(Some(self.settle(folded, base.preference)?))
    }

    /// Folds the collected upserts onto the large value `base`, if it pays and there is room.
    fn fold_patches(
        &mut self,
        action: &Action,
        folding: Folding,
        base: &EntryRef<'_>,
    ) -> Result<Option<Settled>, TreeError> {
        let pointer = LargeValue::decode(base.payload)?;
        self.combine();
        let bytes: u64 = self.upserts.iter().map(|upsert| upsert.message.len() as u64).sum();
        let pays = bytes * folding.share() >= u64::from(pointer.length)
            || bytes >= self.options.leaf_bytes / 2
            || self.upserts.len() > KEPT_MESSAGES_MAX;
        if !pays {
            return Ok(None);
        }
        let value = pointer.read(self.dmu, Caching::Pass)?;
        let Some(folded) = self.fold(action, Some(value)) else { return Ok(None) };
        match self.settle(folded, base.preference) {
            Err(error @ DmuError::OutOfSpace { .. }) => {
                self.effects.unfolded = Some(error);
                Ok(None)
            }
            settled => Ok(Some(settled?)),
        }
    }

    fn fold(&self, action: &Action, mut value: Option<Vec<u8>>) -> Option<Folded> {
        for upsert in self.upserts.iter().rev() {
            // Readers are told. Here the messages are passed on as without the action: nothing is lost, nothing stops.
            action.apply(&self.key, &upsert.message, &mut value).ok()?;
        }
        Some(Folded { value })
    }

    /// Nothing lies below the collected upserts, if there are any.
    fn settle_over_nothing(&mut self, sink: &mut impl Sink) -> Result<(), TreeError> {
        match self.action.and_then(|action| self.fold(action, None)) {
            Some(folded) => {
                let settled = self.settle(folded, StoragePreference::NONE)?;
                self.put_settled(settled, StoragePreference::NONE, sink)
            }
            None => {
                self.state = State::Settled;
                self.emit_upserts(StoragePreference::NONE, sink)?;
                Ok(())
            }
        }
    }

    /// Writes the value that the collected upserts came to, where it is large.
    fn settle(&mut self, folded: Folded, base_preference: StoragePreference) -> Result<Settled, DmuError> {
        match folded.value {
            // Without upserts nothing is put.
            Some(value) if value.len() >= self.options.large_value_bytes && !self.upserts.is_empty() => {
                let wanted = self.key_preference(base_preference).or(self.options.preference);
                let mut pointer = LargeValue::write(self.dmu, &value, wanted, self.privilege)?;
                pointer.birth = self.generation;
                let space = OwnedExtents::unborn(self.dmu, pointer.extents.clone());
                self.effects.written.push(Arc::new(space));
                Ok(Settled::Large(pointer))
            }
            Some(value) => Ok(Settled::Inline(value)),
            None => Ok(Settled::Deleted),
        }
    }

    /// Puts what the collected upserts made of the value below them.
    fn put_settled(
        &mut self,
        settled: Settled,
        base_preference: StoragePreference,
        sink: &mut impl Sink,
    ) -> Result<(), TreeError> {
        self.state = State::Settled;
        let preference = self.key_preference(base_preference);
        let upserts = std::mem::take(&mut self.upserts);
        let Some(sequence) = upserts.first().map(|newest| newest.sequence) else {
            return Ok(());
        };
        let key = &self.key;
        match settled {
            Settled::Large(pointer) => {
                let payload = &pointer.encode();
                sink.put(EntryRef { key, sequence, kind: Kind::PutLarge, preference, payload })
            }
            Settled::Inline(value) => {
                sink.put(EntryRef { key, sequence, kind: Kind::Put, preference, payload: &value })
            }
            Settled::Deleted if self.bottom.is_some() => Ok(()),
            Settled::Deleted => {
                sink.put(EntryRef { key, sequence, kind: Kind::Delete, preference, payload: &[] })
            }
        }
    }

    /// Combines the collected upserts where the action can; one that panics combines nothing.
    fn combine(&mut self) {
        let Some(action) = self.action else { return };
        let mut combined: Vec<Upsert> = Vec::with_capacity(self.upserts.len());
        for lower in std::mem::take(&mut self.upserts) {
            let merge = |upper: &Upsert| {
                let (upper, lower) = match planted(Bug::CombineOutOfOrder) {
                    true => (&lower.message, &upper.message),
                    false => (&upper.message, &lower.message),
                };
                let merged = action.merge(&self.key, upper, lower).ok().flatten()?;
                // What an action of a program makes may be of any length.
                (merged.len() <= PAYLOAD_BYTES_MAX).then_some(merged)
            };
            let merged = combined.last().and_then(merge);
            match (merged, combined.last_mut()) {
                (Some(message), Some(upper)) => {
                    upper.message = message;
                    upper.preference = upper.preference.or(lower.preference);
                }
                _ => combined.push(lower),
            }
        }
        self.upserts = combined;
    }

    /// What lies below is not known here: passes the upserts on, combined where the action can, and returns the
    /// preference for the rest of the key.
    fn emit_upserts(
        &mut self,
        base_preference: StoragePreference,
        sink: &mut impl Sink,
    ) -> Result<StoragePreference, TreeError> {
        let preference = self.key_preference(base_preference);
        self.combine();
        let beside_a_value = self.bottom.is_some() && planted(Bug::DropKeptPatch);
        for upsert in std::mem::take(&mut self.upserts).iter().filter(|_| !beside_a_value) {
            put_upsert(&self.key, upsert, preference, sink)?;
        }
        Ok(preference)
    }
}

fn put_upsert(
    key: &[u8],
    upsert: &Upsert,
    preference: StoragePreference,
    sink: &mut impl Sink,
) -> Result<(), TreeError> {
    let Upsert { sequence, message, .. } = upsert;
    sink.put(EntryRef { key, sequence: *sequence, kind: Kind::Upsert, preference, payload: message })
}
/// The range deletes of `runs` that no newer ones of them cover.
pub(super) fn range_deletes(runs: &[Arc<Run>]) -> Result<Vec<RangeDelete>, TreeError> {
    let mut ranges = Vec::new();
    for run in runs {
        ranges.extend_from_slice(run.range_deletes()?.list());
    }
    Ok(without_covered(ranges))
}
