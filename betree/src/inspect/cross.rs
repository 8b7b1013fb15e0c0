//! P7: the contents, read by the database and by [`super::reading`], which share little; and single reads against both.

use super::catalogue::{Catalogue, dataset_name};
use super::code::Code;
use super::ground::Ground;
use super::journal::Journal;
use super::ledger::Ledger;
use crate::base::ids::DatasetId;
use crate::database::{Database, DatabaseConfiguration, Dataset, DatasetRecord, Opening, Role};
use crate::pool::{Access, Members};
use crate::tree::TreeError;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Of so many keys one is read alone.
const SAMPLE: u64 = 16;

/// Keys, in order, and what they add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    keys: u64,
    hash: u64,
}

impl Sum {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.keys += 1;
        let mut hash = Xxh3::new();
        hash.update(&self.hash.to_le_bytes());
        hash.update(&xxh3_64(key).to_le_bytes());
        hash.update(&xxh3_64(value).to_le_bytes());
        self.hash = hash.digest();
    }
}

/// What both readings need.
pub(super) struct CrossCheck<'a, 'l> {
    pub members: &'a Members,
    pub configuration: &'a DatabaseConfiguration,
    pub ground: &'a Ground,
    pub catalogue: &'a Catalogue,
    pub journal: &'a Journal,
    pub ledger: &'a mut Ledger<'l>,
}

impl CrossCheck<'_, '_> {
    /// What each snapshot holds, by both readings.
    fn compare_snapshots(&mut self, id: DatasetId, record: &DatasetRecord, name: &str, dataset: &Dataset) {
        let catalogue = self.catalogue;
        for kept in catalogue.snapshots.get(&id).into_iter().flat_map(BTreeMap::values) {
            let name = format!("{name}, snapshot \"{}\"", kept.name.escape_ascii());
            let (mut own, mut other) = (Sum::default(), Sum::default());
            let mut wrong = None;
            let mut skipped = Vec::new();
            let _done = catalogue.reading(self.ground, record).all(
                Some(&kept.root),
                &mut |key, value: Result<_, TreeError>| match value {
                    Ok(value) => {
                        own.add(key, &value);
                        ControlFlow::Continue(())
                    }
                    Err(error) => {
                        wrong = Some(format!("key {}: {error}", key.escape_ascii()));
                        ControlFlow::Break(())
                    }
                },
                &mut |what| skipped.push(what.what),
            );
            wrong = wrong.or_else(|| skipped.pop());
            match dataset.open_snapshot(&kept.name) {
                Ok(snapshot) => {
                    for entry in snapshot.range::<&[u8]>(..) {
                        match entry {
                            Ok((key, value)) => other.add(&key, &value),
                            Err(error) => wrong = wrong.or_else(|| Some(error.to_string())),
                        }
                    }
                }
                Err(error) => wrong = wrong.or_else(|| Some(error.to_string())),
            }
            self.ledger.totals.compared_keys += own.keys;
            if wrong.is_some() || own != other {
                let expected = format!("{} keys, hash {:016x}", own.keys, own.hash);
                let found = wrong.unwrap_or_else(|| format!("{} keys, hash {:016x}", other.keys, other.hash));
                self.ledger.report(Code::Contents, &name, None, expected, found);
            }
        }
    }

    pub fn run(&mut self) {
        let opened = self.members.pool(Access::ReadOnly).map_err(crate::database::Error::from).and_then(
            |(pool, report)| Database::open_on(self.configuration.clone(), pool, report, Opening::ReadOnly),
        );
        let database = match opened {
            Ok(database) => database,
            Err(error) => {
                self.ledger.report(Code::Contents, "database", None, "one that opens", error);
                return;
            }
        };
        let datasets = self.journal.datasets(self.catalogue);
        let stored: BTreeSet<(Role, Vec<u8>)> =
            datasets.values().map(|record| (record.role, record.name.clone())).collect();
        match database.all_datasets() {
            Ok(names) => {
                let names: BTreeSet<(Role, Vec<u8>)> = names.into_iter().collect();
                if names != stored {
                    let found = format!("{} by the database, {} by the check", names.len(), stored.len());
                    self.ledger.report(Code::Contents, "datasets", None, "the same names", found);
                    return;
                }
            }
            Err(error) => {
                self.ledger.report(Code::Contents, "datasets", None, "their names", error);
                return;
            }
        }
        for (id, record) in datasets {
            if !self.ledger.tick() {
                return;
            }
            let name = dataset_name(record);
            let Ok(dataset) = database.open_of_role(record.role, &record.name) else {
                let action = &record.action;
                self.ledger.note(format!("{name}: its message action {action:?} is not known here"));
                continue;
            };
            self.compare_snapshots(id, record, &name, &dataset);
            let mut own = Sum::default();
            let mut sampled = Vec::new();
            let mut wrong = None;
            let mut reading = self.catalogue.reading(self.ground, record);
            reading.overlay = self.journal.overlays.get(&id);
            let mut skipped = Vec::new();
            let done = reading.all(
                record.root.as_ref(),
                &mut |key, value: Result<_, TreeError>| match value {
                    Ok(value) => {
                        own.add(key, &value);
                        if own.keys % SAMPLE == 1 {
                            sampled.push((key.to_vec(), xxh3_64(&value)));
                        }
                        ControlFlow::Continue(())
                    }
                    Err(error) => {
                        wrong = Some(format!("key {}: {error}", key.escape_ascii()));
                        ControlFlow::Break(())
                    }
                },
                &mut |what| skipped.push(what.what),
            );
            if done.is_break() || !skipped.is_empty() {
                let found = wrong.or_else(|| skipped.pop()).unwrap_or_default();
                self.ledger.report(Code::Contents, &name, None, "contents that can be read", found);
                continue;
            }
            let mut other = Sum::default();
            let mut failed = None;
            for entry in dataset.range::<&[u8]>(..) {
                match entry {
                    Ok((key, value)) => other.add(&key, &value),
                    Err(error) => {
                        failed = Some(error.to_string());
                        break;
                    }
                }
            }
            self.ledger.totals.compared_keys += own.keys;
            if failed.is_some() || own != other {
                let expected = format!("{} keys, hash {:016x}", own.keys, own.hash);
                let found =
                    failed.unwrap_or_else(|| format!("{} keys, hash {:016x}", other.keys, other.hash));
                self.ledger.report(Code::Contents, &name, None, expected, found);
                continue;
            }
            for (key, hash) in sampled {
                let found = dataset.get(&key).map(|value| value.map(|value| xxh3_64(&value)));
                if !matches!(found, Ok(Some(found)) if found == hash) {
                    let object = format!("{name}, key {}", key.escape_ascii());
                    let expected = "the value that iteration gives";
                    self.ledger.report(Code::Contents, object, None, expected, format!("{found:?}"));
                    break;
                }
            }
        }
    }
}
