//! From a sorted stream of messages to the fewest messages that mean the same.
//!
//! Versions are dropped and upserts combined only here, when a new run is written: a view keeps the old runs. Upserts
//! are never combined across a range delete or a put between them, because both end the walk through a key's versions.

use super::action::Action;
use super::value::{Caching, LargeValue};
use super::{TreeError, TreeOptions};
use crate::base::ids::Generation;
use crate::base::planted::{Bug, planted};
use crate::base::preference::StoragePreference;
use crate::dmu::{Dmu, OwnedExtents, Privilege};
use crate::run::{EntryRef, Kind, RangeDelete};

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
    /// Large values that folding upserts wrote.
    pub written: Vec<OwnedExtents>,
    /// The birth that pointers to these say.
    birth: Generation,
}

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
    /// Nothing lies below: deletes are dropped, upserts folded.
    bottom: bool,
    /// Birth for large values that folding writes.
    generation: Generation,
    ranges: RangeSweep,
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
        bottom: bool,
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
            state: State::Settled,
            started: false,
            key: Vec::new(),
            upserts: Vec::new(),
            effects: Effects::default(),
        }
    }

    /// Takes the next message: ascending by key, newest first within a key.
    pub fn push(&mut self, entry: EntryRef<'_>, sink: &mut impl Sink) -> Result<(), TreeError> {
        if !self.started || self.key != entry.key {
            self.end_key(sink)?;
            self.started = true;
            self.key.clear();
            self.key.extend_from_slice(entry.key);
            self.state = State::Fresh;
        }
        if self.state == State::Settled {
            return self.drop_message(&entry);
        }
        if self.ranges.covering(entry.key) > entry.sequence {
            self.drop_message(&entry)?;
            return self.settle_over_nothing(sink);
        }
        if self.state == State::Upserts
            && let Some(folded) = self.fold_over(&entry)?
        {
            self.drop_message(&entry)?;
            return self.put_folded(folded, entry.preference, sink);
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
            Kind::Put | Kind::PutLarge => {
                let preference = self.emit_upserts(entry.preference, sink)?;
                self.state = State::Settled;
                sink.put(EntryRef { preference, ..entry })
            }
            Kind::Delete => {
                let preference = self.emit_upserts(entry.preference, sink)?;
                self.state = State::Settled;
                let leave_out = self.bottom || planted(Bug::SkipDeadMessage);
                if leave_out { Ok(()) } else { sink.put(EntryRef { preference, ..entry }) }
            }
        }
    }

    /// Ends the stream.
    pub fn finish(mut self, sink: &mut impl Sink) -> Result<Effects, TreeError> {
        self.end_key(sink)?;
        Ok(Effects { birth: self.generation, ..std::mem::take(&mut self.effects) })
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
        if self.bottom {
            return self.settle_over_nothing(sink);
        }
        self.emit_upserts(StoragePreference::NONE, sink)?;
        Ok(())
    }

    /// The preference for all that is kept of the key: the newest one that says something. All messages of a key
    /// share it, because the preference chooses the run, and versions of a key may not be spread over runs of one age.
    fn key_preference(&self, base: StoragePreference) -> StoragePreference {
        self.upserts
            .iter()
            .map(|upsert| upsert.preference)
            .fold(StoragePreference::NONE, StoragePreference::or)
            .or(base)
    }

    /// Folds the collected upserts onto `base`. `None` when they have to stay: `base` is another upsert or not to be read
    /// here, or there is no action, or one that panicked.
    fn fold_over(&self, base: &EntryRef<'_>) -> Result<Option<Folded>, TreeError> {
        let Some(action) = self.action.filter(|action| !action.has_panicked()) else { return Ok(None) };
        let value = match base.kind {
            Kind::Put => Some(base.payload.to_vec()),
            Kind::PutLarge if self.bottom => {
                Some(LargeValue::decode(base.payload)?.read(self.dmu, Caching::Pass)?)
            }
            Kind::Delete => None,
            Kind::PutLarge | Kind::Upsert => return Ok(None),
        };
        Ok(self.fold(action, value))
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
            Some(folded) => self.put_folded(folded, StoragePreference::NONE, sink),
            None => {
                self.state = State::Settled;
                self.emit_upserts(StoragePreference::NONE, sink)?;
                Ok(())
            }
        }
    }

    /// Puts what the collected upserts made of the value below them.
    fn put_folded(
        &mut self,
        folded: Folded,
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
        match folded.value {
            Some(value) if value.len() >= self.options.large_value_bytes => {
                let wanted = preference.or(self.options.preference);
                let mut pointer = LargeValue::write(self.dmu, &value, wanted, self.privilege)?;
                pointer.birth = self.generation;
                self.effects.written.push(OwnedExtents::unborn(self.dmu, pointer.extents.clone()));
                sink.put(EntryRef {
                    key,
                    sequence,
                    kind: Kind::PutLarge,
                    preference,
                    payload: &pointer.encode(),
                })
            }
            Some(value) => sink.put(EntryRef { key, sequence, kind: Kind::Put, preference, payload: &value }),
            None if self.bottom => Ok(()),
            None => sink.put(EntryRef { key, sequence, kind: Kind::Delete, preference, payload: &[] }),
        }
    }

    /// What lies below is not known here: passes the upserts on, combined where the action can, and returns the
    /// preference for the rest of the key.
    fn emit_upserts(
        &mut self,
        base_preference: StoragePreference,
        sink: &mut impl Sink,
    ) -> Result<StoragePreference, TreeError> {
        let preference = self.key_preference(base_preference);
        let mut waiting: Option<Upsert> = None;
        for lower in std::mem::take(&mut self.upserts) {
            let Some(mut upper) = waiting.take() else {
                waiting = Some(lower);
                continue;
            };
            // An action that panics combines nothing.
            let merge = |action: &Action| action.merge(&self.key, &upper.message, &lower.message).ok();
            let merged = self.action.and_then(merge).flatten();
            waiting = Some(match merged {
                Some(message) => {
                    upper.message = message;
                    upper
                }
                None => {
                    put_upsert(&self.key, &upper, preference, sink)?;
                    lower
                }
            });
        }
        if let Some(upsert) = waiting {
            put_upsert(&self.key, &upsert, preference, sink)?;
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
