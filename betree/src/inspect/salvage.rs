//! Whatever can still be read of every dataset, handed to the caller entry by entry.

use super::catalogue::{Catalogue, dataset_name};
use super::devices::Slots;
use super::generations::readable;
use super::ground::Ground;
use super::journal::JournalCheck;
use super::ledger::{Ledger, Watch};
use super::ownership::Owners;
use super::reading::Skipped;
use crate::base::ids::Generation;
use crate::database::{DatabaseConfiguration, Error, Result, RootRecord};
use crate::pool::{Access, Members};
use std::ops::ControlFlow;

/// What a salvage hands over, in this order for each dataset.
#[derive(Debug, Clone, Copy)]
pub enum Salvaged<'a> {
    /// A dataset begins.
    Dataset {
        /// Its id.
        id: u64,
        /// Its name, or that of the object store that it is of.
        name: &'a [u8],
        /// `dataset`, or `metadata` or `chunks` of an object store.
        role: &'static str,
    },
    /// An entry of the dataset; keys ascend.
    Entry {
        /// The key.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// Keys from `low` up to, but not including, `high` may be missing, or have an older value than they should.
    Skipped {
        /// What was left out, and why.
        what: &'a str,
        /// First key.
        low: &'a [u8],
        /// The key behind the last one; `None`: all to the end.
        high: Option<&'a [u8]>,
    },
}

/// What a salvage found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SalvageReport {
    /// The checkpoint that was read.
    pub generation: u64,
    /// Datasets.
    pub datasets: u64,
    /// Entries handed over.
    pub entries: u64,
    /// Parts left out.
    pub skipped: u64,
    /// What is missing as a whole: datasets whose records are lost, the end of the log, a newer checkpoint.
    pub lost: Vec<String>,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
}

/// Reads every dataset of the newest checkpoint whose root is readable, or of `generation`, and hands what is left of
/// it to `take`; damaged nodes, runs, blocks and values are left out, and said to be. For the newest checkpoint the log
/// is read as far as it goes. Nothing is written.
///
/// # Errors
/// No pool there, a device in use, no superblock that can be used, no such generation.
pub fn salvage(
    configuration: &DatabaseConfiguration,
    generation: Option<u64>,
    take: &mut dyn FnMut(Salvaged<'_>) -> ControlFlow<()>,
    watch: Watch<'_>,
) -> Result<SalvageReport> {
    let members = Members::open(&configuration.storage, Access::ReadOnly)?;
    let slots = Slots::read(&members);
    let (pool, opened) = members.pool(Access::ReadOnly)?;
    let ground = Ground::new(configuration, pool, false)?;
    let wanted = generation.map(Generation);
    let Some(superblock) = readable(&slots, &ground, wanted) else {
        let name = generation.map_or_else(|| String::from("readable"), |generation| generation.to_string());
        return Err(Error::NotFound { what: "generation", name });
    };
    let record = RootRecord::decode(&superblock.payload, &ground.dmu)?;
    let mut report = SalvageReport { generation: superblock.generation.0, ..SalvageReport::default() };
    if superblock.generation != opened.chosen && generation.is_none() {
        report.lost.push(format!("generation {}: its root cannot be read", opened.chosen));
    }
    if let Err(error) = ground.follow(&record) {
        report.lost.push(format!("what lay on vdevs that left: {error}"));
    }
    let mut ledger = Ledger::new(0, watch);
    ledger.use_pool(&ground.pool);
    ledger.enter("salvaging");
    let catalogue = Catalogue::read(&ground, &record, &mut ledger);
    let lost = catalogue.skipped.iter().map(|skipped| format!("records of datasets: {}", skipped.what));
    report.lost.extend(lost);
    if !catalogue.whole && catalogue.skipped.is_empty() {
        report.lost.push(String::from("records of datasets that do not decode"));
    }
    let journal = if superblock.generation == opened.chosen && generation.is_none() {
        let mut check = JournalCheck {
            ground: &ground,
            table: None,
            catalogue: &catalogue,
            ledger: &mut ledger,
            deep: false,
            keep: true,
        };
        check.read(&record, &mut Owners::default())
    } else {
        super::journal::Journal::default()
    };
    report.lost.extend(journal.damage.iter().map(|damage| format!("the end of the log: {damage}")));
    for (id, dataset) in journal.datasets(&catalogue) {
        report.datasets += 1;
        if take(Salvaged::Dataset { id: id.0, name: &dataset.name, role: dataset.role.as_str() }).is_break() {
            report.interrupted = true;
            break;
        }
        let mut reading = catalogue.reading(&ground, dataset);
        reading.overlay = journal.overlays.get(&id);
        let mut skipped: Vec<Skipped> = Vec::new();
        let mut bad_values = Vec::new();
        let (mut entries, mut stopped) = (0, false);
        let done = reading.all(
            dataset.root.as_ref(),
            &mut |key, value| {
                if entries % 1024 == 0 && !ledger.tick() {
                    return ControlFlow::Break(());
                }
                match value {
                    Ok(value) => {
                        entries += 1;
                        ledger.totals.compared_keys += 1;
                        let taken = take(Salvaged::Entry { key, value: &value });
                        stopped |= taken.is_break();
                        taken
                    }
                    Err(error) => {
                        bad_values.push(Skipped {
                            what: format!("value of {}: {error}", dataset_name(dataset)),
                            low: key.to_vec(),
                            high: Some([key, &[0]].concat()),
                        });
                        ControlFlow::Continue(())
                    }
                }
            },
            &mut |what| {
                if !skipped.contains(&what) {
                    skipped.push(what);
                }
            },
        );
        report.entries += entries;
        report.skipped += (skipped.len() + bad_values.len()) as u64;
        for Skipped { what, low, high } in skipped.iter().chain(&bad_values) {
            let high = high.as_deref();
            if take(Salvaged::Skipped { what, low, high }).is_break() {
                stopped = true;
                break;
            }
        }
        if done.is_break() || stopped {
            report.interrupted = true;
            break;
        }
    }
    Ok(report)
}
