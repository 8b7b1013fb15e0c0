//! P2: one run, and the large values that it names.

use super::code::Code;
use super::ground::first;
use super::ownership::Kind;
use super::walk::{Subject, Walk};
use crate::base::ids::Generation;
use crate::run::{EntryRef, Kind as MessageKind, Run, RunFault, RunFlaw, RunReader};
use crate::tree::{Caching, LargeValue, TreeError};
use std::sync::Arc;

/// A run to be checked.
pub(super) struct RunCheck<'r, 'a, 'l> {
    pub walk: &'r mut Walk<'a, 'l>,
    pub subject: &'r Subject,
    pub place: &'r str,
    pub run: &'r Arc<Run>,
    /// Nothing that the run names is younger.
    pub limit: Generation,
}

/// The code of what is wrong with a run.
pub(super) fn code_of_run(fault: RunFault) -> Code {
    match fault {
        RunFault::Unreadable => Code::Unreadable,
        RunFault::Checksum => Code::Checksum,
        RunFault::Decode => Code::Decode,
        RunFault::Canonical => Code::Canonical,
        RunFault::Order => Code::Order,
        RunFault::Bounds => Code::Bounds,
        RunFault::Sequence => Code::Sequence,
        RunFault::Count => Code::Count,
        RunFault::Filter => Code::Filter,
        RunFault::Kind => Code::Kind,
    }
}

impl RunCheck<'_, '_, '_> {
    /// Whether the run can be read at all, and whether nothing is wrong with it.
    pub fn all(&mut self) -> (bool, bool) {
        let mut reader = match RunReader::new(self.run) {
            Ok(reader) => reader,
            Err(flaw) => {
                self.report(&flaw);
                self.walk.complete = false;
                return (false, false);
            }
        };
        let mut values = Vec::new();
        let mut flaws = Vec::new();
        let mut messages = 0;
        let mut visit = |entry: EntryRef<'_>| {
            messages += 1;
            if entry.kind == MessageKind::PutLarge {
                values.push((entry.key.to_vec(), LargeValue::decode(entry.payload)));
            }
        };
        let whole = reader.check(&mut visit, &mut |flaw| flaws.push(flaw));
        self.walk.messages += messages;
        self.walk.ledger.totals.messages += messages;
        flaws.iter().for_each(|flaw| self.report(flaw));
        self.walk.complete &= whole;
        // Values are owned by the run, whatever else is wrong with it.
        let values_are_sound = self.values(&values, whole);
        (true, flaws.is_empty() && values_are_sound)
    }

    fn report(&mut self, flaw: &RunFlaw) {
        let at = self.run.dmu().block_at(self.run.reference().extents.extents(), flaw.offset);
        self.walk.ledger.report(code_of_run(flaw.fault), self.place, at, &flaw.expected, &flaw.found);
    }

    fn values(
        &mut self,
        values: &[(Vec<u8>, Result<LargeValue, crate::base::codec::DecodeError>)],
        whole: bool,
    ) -> bool {
        let (mut sum, mut sound) = (0, true);
        for (key, value) in values {
            let place = format!("{}, large value of key {}", self.place, key.escape_ascii());
            self.walk.ledger.totals.large_values += 1;
            let value = match value {
                Ok(value) => value,
                Err(error) => {
                    let at = first(self.run.space().extents());
                    self.walk.ledger.report(Code::Value, place, at, "a pointer to a large value", error);
                    self.walk.complete = false;
                    sound = false;
                    continue;
                }
            };
            sum += value.stored_bytes();
            if !self.walk.is_kept(value.birth) && !self.walk.is_known(&value.extents) {
                sound &= self.value(&place, value);
            }
        }
        let stated = self.run.reference().large_bytes;
        if whole && sum != stated {
            let at = first(self.run.space().extents());
            let expected = format!("large values of {stated} bytes");
            self.walk.ledger.report(Code::Value, self.place, at, expected, sum);
            sound = false;
        }
        sound
    }

    fn value(&mut self, place: &str, value: &LargeValue) -> bool {
        let at = first(&value.extents);
        let mut sound = true;
        if value.birth.0 == 0 || value.birth > self.limit {
            let expected = format!("a value of generation 1 to {}", self.limit);
            self.walk.ledger.report(Code::Generation, place, at, expected, value.birth);
            sound = false;
        }
        let fits = value.fits(&self.walk.ground.dmu);
        if !fits {
            let expected = format!("extents for {} bytes", value.length);
            self.walk.ledger.report(Code::Value, place, at, expected, value.stored_bytes());
            sound = false;
        }
        if !self.walk.own(place, Kind::Value(self.subject.number), &value.extents) {
            return false;
        }
        if self.walk.deep
            && fits
            && let Err(error) = value.read(&self.walk.ground.dmu, Caching::Bypass)
        {
            let code = match error {
                TreeError::Dmu(_) => Code::Unreadable,
                _ => Code::Checksum,
            };
            self.walk.ledger.report(code, place, at, "the value that was written", error);
            return false;
        }
        sound
    }
}
