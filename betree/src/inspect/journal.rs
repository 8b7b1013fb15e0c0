//! P6: the log behind the cut, and what it says, for those who read the newest state.

use super::catalogue::Catalogue;
use super::code::Code;
use super::ground::Ground;
use super::ledger::Ledger;
use super::ownership::{Kind, Owners};
use super::reading::{Logged, Overlay};
use super::roots::placed;
use crate::base::codec::DecodeError;
use crate::base::extent::Extent;
use crate::base::ids::{DatasetId, Generation};
use crate::database::{DatasetRecord, Operation, RecordReader, RootRecord};
use crate::dmu::AllocationState;
use crate::log::{LogError, LogReading, Verdict, read_log};
use crate::run::{Kind as MessageKind, RangeDelete};
use crate::tree::{Caching, LargeValue};
use std::collections::BTreeMap;

/// What the log adds to the checkpoint.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Per dataset, when it was asked for.
    pub overlays: BTreeMap<DatasetId, Overlay>,
    /// Datasets created, renamed or destroyed behind the cut: `None` for a destroyed one.
    pub changed: BTreeMap<DatasetId, Option<DatasetRecord>>,
    /// Extents of the log and of the values that only it names.
    pub extents: Vec<Extent>,
    /// What is wrong with it, when anything is.
    pub damage: Option<String>,
}

/// Reads the log behind a cut.
pub(super) struct JournalCheck<'a, 'l> {
    pub ground: &'a Ground,
    pub table: Option<&'a AllocationState>,
    pub catalogue: &'a Catalogue,
    pub ledger: &'a mut Ledger<'l>,
    pub deep: bool,
    /// Whether to keep what it says.
    pub keep: bool,
}

/// The state of a reading.
struct State<'s> {
    journal: Journal,
    /// The sequence number that the next record starts with.
    next_sequence: u64,
    /// Datasets, by whether they are there.
    known: BTreeMap<DatasetId, bool>,
    findings: Vec<(Code, String, String)>,
    catalogue: &'s Catalogue,
    records: u64,
    /// The checkpoint.
    generation: Generation,
    /// A change of snapshots that it does not have is behind: an open of it ends there.
    lost: bool,
}

impl JournalCheck<'_, '_> {
    pub fn read(&mut self, record: &RootRecord, owners: &mut Owners) -> Journal {
        let head = &record.log_head;
        let object = "log";
        let mut journal = Journal::default();
        let named = [Some(head.extent), head.next];
        if !named.iter().flatten().all(|extent| placed(self.ground, self.table, object, extent, self.ledger))
        {
            owners.add(Kind::Log, &[head.extent]);
            journal.damage = Some(String::from("its head names blocks that cannot be its"));
            return journal;
        }
        let live = |record: &DatasetRecord| !record.destroyed;
        let mut state = State {
            journal,
            next_sequence: record.cut.saturating_add(1),
            known: self.catalogue.datasets.iter().map(|(id, record)| (*id, live(record))).collect(),
            findings: Vec::new(),
            catalogue: self.catalogue,
            records: 0,
            generation: record.generation,
            lost: false,
        };
        let mut reading = None;
        let (pool, dmu) = (self.ground.pool.uuid(), &self.ground.dmu);
        let (deep, keep, ground) = (self.deep, self.keep, self.ground);
        let done = read_log(
            dmu,
            pool,
            head,
            |found| reading = Some(found.clone()),
            |bytes, _, durable| Ok(state.record(ground, record.cut, bytes, durable, deep, keep)),
        );
        if let Some(reading) = &reading {
            self.judge(reading, &mut state);
        }
        if let Err(error) = done {
            let code = match error {
                LogError::Dmu(_) => Code::Unreadable,
                _ => Code::Log,
            };
            state.journal.damage.get_or_insert_with(|| error.to_string());
            self.ledger.report(code, object, Some((head.extent.vdev, head.extent.block)), "the log", error);
        }
        for (code, expected, found) in state.findings {
            self.ledger.report(code, object, None, expected, found);
        }
        self.ledger.totals.log_records += state.records;
        for extent in &state.journal.extents {
            placed(self.ground, self.table, object, extent, self.ledger);
        }
        owners.add(Kind::Log, &state.journal.extents);
        state.journal
    }

    fn judge(&mut self, reading: &LogReading, state: &mut State<'_>) {
        state.journal.extents.extend(&reading.extents);
        if reading.durable_lsn > reading.lsn {
            let expected = format!("a log that is whole up to position {}", reading.durable_lsn);
            let found = format!("one that ends at {}", reading.lsn);
            state.journal.damage = Some(format!("expected {expected}, found {found}"));
            self.ledger.report(Code::Log, "log", Some(reading.end), expected, found);
        } else if reading.tail {
            self.ledger.note("the log has a tail that was never acknowledged");
        }
        for at in &reading.differing {
            let expected = "a frame that every member holds";
            self.ledger.report(Code::Copy, "log", Some(*at), expected, "one that some do not");
        }
        if reading.backward {
            let expected = "frames that know no less flushed than those before";
            self.ledger.report(Code::Log, "log", Some(reading.end), expected, "one that does");
        }
    }
}

impl State<'_> {
    fn record(
        &mut self,
        ground: &Ground,
        cut: u64,
        bytes: &[u8],
        durable: bool,
        deep: bool,
        keep: bool,
    ) -> Verdict {
        let operations = match operations(bytes) {
            Ok(operations) => operations,
            Err(error) => {
                self.finding("a record", error);
                return Verdict::Cut;
            }
        };
        let large = |operation: &Operation<'_>| match operation {
            Operation::Message { entry, .. } if entry.kind == MessageKind::PutLarge => {
                Some(LargeValue::decode(entry.payload))
            }
            _ => None,
        };
        for (sequence, operation) in &operations {
            let Some(value) = large(operation) else { continue };
            let value = match value {
                Ok(value) => value,
                Err(error) => {
                    self.finding("a pointer to a large value", error);
                    return Verdict::Cut;
                }
            };
            if !value.fits(&ground.dmu) {
                self.finding("a large value in extents for it", "extents of another length");
                return Verdict::Cut;
            }
            let read =
                if !durable || deep { value.read(&ground.dmu, Caching::Bypass).map(|_| ()) } else { Ok(()) };
            if let Err(error) = read {
                if durable {
                    let expected = String::from("the large value of a durable record");
                    self.findings.push((Code::Checksum, expected, error.to_string()));
                    self.journal.damage.get_or_insert_with(|| error.to_string());
                } else {
                    // The record landed without its value: the tail.
                    return Verdict::Cut;
                }
            }
            if *sequence > cut && !self.lost {
                self.journal.extents.extend(&value.extents);
            }
        }
        self.records += 1;
        let first = operations.first().map_or(self.next_sequence, |(sequence, _)| *sequence);
        if first != self.next_sequence {
            self.finding(format!("a record that starts with sequence {}", self.next_sequence), first);
        }
        for (sequence, operation) in operations {
            self.next_sequence = sequence.saturating_add(1);
            if sequence > cut && !self.lost {
                self.operation(ground, sequence, operation, keep);
            }
        }
        Verdict::Continue
    }

    fn finding(&mut self, expected: impl ToString, found: impl ToString) {
        let found = found.to_string();
        self.journal.damage.get_or_insert_with(|| found.clone());
        self.findings.push((Code::Log, expected.to_string(), found));
    }

    fn operation(&mut self, ground: &Ground, sequence: u64, operation: Operation<'_>, keep: bool) {
        let id = match operation {
            Operation::Message { dataset, .. }
            | Operation::RangeDelete { dataset, .. }
            | Operation::Create { dataset, .. }
            | Operation::Rename { dataset, .. }
            | Operation::Destroy { dataset } => dataset,
            Operation::Changed { generation } => {
                self.lost |= generation > self.generation;
                return;
            }
            Operation::Filler { .. } => return,
        };
        let is_new = matches!(operation, Operation::Create { .. });
        let found = self.known.get(&id).copied();
        if (is_new && found.is_some()) || (!is_new && found != Some(true)) {
            // Without the whole catalogue it may be one that could not be read.
            if self.catalogue.whole {
                let expected = if is_new { "a new dataset" } else { "a dataset that there is" };
                self.finding(expected, format!("dataset {id}"));
            }
        }
        match operation {
            Operation::Create { record, .. } => match DatasetRecord::decode(record, &ground.dmu) {
                Ok(record) => {
                    self.known.insert(id, true);
                    self.journal.changed.insert(id, Some(record));
                }
                Err(error) => self.finding("a dataset record", error),
            },
            Operation::Rename { name, .. } => {
                let record = match self.journal.changed.get(&id) {
                    Some(record) => record.clone(),
                    None => self.catalogue.datasets.get(&id).cloned(),
                };
                if let Some(mut record) = record {
                    record.name = name.to_vec();
                    self.journal.changed.insert(id, Some(record));
                }
            }
            Operation::Changed { .. } | Operation::Filler { .. } => {}
            Operation::Destroy { .. } => {
                self.known.insert(id, false);
                self.journal.changed.insert(id, None);
                self.journal.overlays.remove(&id);
            }
            Operation::Message { entry, .. } if keep => {
                let logged = Logged { sequence, kind: entry.kind, payload: entry.payload.to_vec() };
                let overlay = self.journal.overlays.entry(id).or_default();
                overlay.messages.entry(entry.key.to_vec()).or_default().push(logged);
            }
            Operation::RangeDelete { start, end, .. } if keep => {
                let range = RangeDelete { start: start.into(), end: end.map(Into::into), sequence };
                self.journal.overlays.entry(id).or_default().range_deletes.push(range);
            }
            Operation::Message { .. } | Operation::RangeDelete { .. } => {}
        }
    }
}

fn operations(bytes: &[u8]) -> Result<Vec<(u64, Operation<'_>)>, DecodeError> {
    let mut reader = RecordReader::new(bytes)?;
    let mut operations = Vec::new();
    while let Some(operation) = reader.next()? {
        operations.push(operation);
    }
    Ok(operations)
}

impl Journal {
    /// The datasets of the newest state that can be opened: those of `catalogue` with what the log did to them.
    pub fn datasets<'a>(&'a self, catalogue: &'a Catalogue) -> BTreeMap<DatasetId, &'a DatasetRecord> {
        let stored = catalogue.datasets.iter().filter(|(_, record)| record.is_named());
        let mut all: BTreeMap<DatasetId, &DatasetRecord> = stored.map(|(id, record)| (*id, record)).collect();
        for (id, record) in &self.changed {
            match record {
                Some(record) => all.insert(*id, record),
                None => all.remove(id),
            };
        }
        all
    }
}
