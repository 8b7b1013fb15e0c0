//! The passes in their order.

use super::catalogue::{Catalogue, dataset_name};
use super::code::Code;
use super::cross::CrossCheck;
use super::devices::Slots;
use super::finding::{CheckReport, DatasetUsage, Finding};
use super::ground::Ground;
use super::journal::{Journal, JournalCheck};
use super::ledger::{Ledger, Watch};
use super::lists::Lists;
use super::ownership::{Address, Owners, Repairable};
use super::roots::Root;
use super::stores::StoreCheck;
use super::walk::{Subject, Walk};
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::ids::{DatasetId, Generation};
use crate::base::units::BLOCK_BYTES_U64;
use crate::database::{DatabaseConfiguration, Result};
use crate::pool::format::Superblock;
use crate::pool::{Access, Members, OpenReport, PoolError};
use std::collections::{HashMap, HashSet};
use xxhash_rust::xxh3::Xxh3;

/// How much a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckOptions {
    /// Also read large values, read the whole contents twice, and see that no device changed meanwhile.
    pub deep: bool,
    /// How many findings are kept; all are counted.
    pub findings_max: usize,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { deep: false, findings_max: 1000 }
    }
}

/// Checks the pool of `configuration` without changing a byte of it: no other process may be writing to it. `watch` is
/// told how far it is, and may stop it.
///
/// # Errors
/// The check cannot run: no pool there, a device in use, a format that is too new. Damage is no error but a finding.
pub fn check(
    configuration: &DatabaseConfiguration,
    options: &CheckOptions,
    watch: Watch<'_>,
) -> Result<CheckReport> {
    let members = Members::open(&configuration.storage, Access::ReadOnly)?;
    Ok(check_members(&members, configuration, options, watch)?.report)
}

/// A report and what a repair needs beside it.
#[derive(Debug)]
pub(super) struct Checked {
    pub report: CheckReport,
    pub repairable: Repairable,
    pub slots: Slots,
}

/// Checks the pool on `members`.
pub(super) fn check_members(
    members: &Members,
    configuration: &DatabaseConfiguration,
    options: &CheckOptions,
    watch: Watch<'_>,
) -> Result<Checked> {
    let mut ledger = Ledger::new(options.findings_max, watch);
    let before = if options.deep { Some(hash(members)) } else { None };
    let slots = Slots::read(members);
    slots.check(&mut ledger);
    let mut out = Outcome::default();
    match members.pool(Access::ReadOnly) {
        Ok((pool, report)) => {
            let ground = Ground::new(configuration, pool, true)?;
            ledger.use_pool(&ground.pool);
            Check { members, configuration, ground: &ground, options, slots: &slots }.run(
                &report,
                &mut ledger,
                &mut out,
            );
        }
        Err(error) if cannot_run(&error) => return Err(error.into()),
        Err(error) => {
            let code = match error {
                PoolError::Diverged { .. } => Code::Diverged,
                PoolError::Damaged { .. } => Code::Slot,
                _ => Code::Members,
            };
            if !ledger.counts.contains_key(&code) {
                ledger.push(Finding {
                    code,
                    object: String::from("pool"),
                    device: None,
                    offset: None,
                    expected: String::from("devices that make up a pool"),
                    found: error.to_string(),
                });
            }
            ledger.note("nothing but the label areas could be looked at");
        }
    }
    if before.is_some_and(|before| before != hash(members)) {
        ledger.report(Code::Changed, "devices", None, "the bytes of before the check", "other bytes");
    }
    let report = CheckReport {
        generation: out.generation.0,
        fallback: out.fallback.map(|generation| generation.0),
        deep: options.deep,
        findings: ledger.findings,
        counts: ledger.counts,
        notes: ledger.notes,
        totals: ledger.totals,
        datasets: out.datasets,
        interrupted: ledger.interrupted,
    };
    Ok(Checked { report, repairable: out.repairable, slots })
}

/// Whether an error means that there is nothing to check, rather than that it is damaged.
fn cannot_run(error: &PoolError) -> bool {
    matches!(
        error,
        PoolError::NotFound { .. }
            | PoolError::NotAPool { .. }
            | PoolError::NoVdevs
            | PoolError::NewerFormat { .. }
            | PoolError::Configuration(_)
            | PoolError::UnknownTier { .. }
            | PoolError::TooManyVdevs { .. }
    )
}

/// What a check of both roots leaves.
#[derive(Debug, Default)]
struct Outcome {
    generation: Generation,
    fallback: Option<Generation>,
    datasets: Vec<DatasetUsage>,
    repairable: Repairable,
}

struct Check<'a> {
    members: &'a Members,
    configuration: &'a DatabaseConfiguration,
    ground: &'a Ground,
    options: &'a CheckOptions,
    slots: &'a Slots,
}

/// A root that was walked.
struct Walked {
    catalogue: Catalogue,
    journal: Journal,
}

impl Check<'_> {
    fn run(&self, report: &OpenReport, ledger: &mut Ledger<'_>, out: &mut Outcome) {
        let Some(newest) = self.slots.of(report.chosen) else { return };
        out.generation = newest.generation;
        if report.rolled_back {
            let expected = format!("nothing newer than generation {}", report.chosen);
            let found = format!("generation {} was seen, or slots that are lost", report.highest_seen);
            ledger.report(Code::Rollback, "superblocks", None, expected, found);
        }
        for grown in &report.grown {
            ledger.note(format!("{} grew to {} blocks", grown.device, grown.blocks));
        }
        let mut sound = HashSet::new();
        ledger.enter("checking the newest checkpoint");
        let walked = self.root(newest, true, &mut sound, ledger, out);
        if let Some(previous) = self.slots.of(newest.previous).filter(|_| newest.previous.0 > 0) {
            out.fallback = Some(previous.generation);
            ledger.enter("checking the fallback");
            ledger.enter_fallback();
            self.root(previous, false, &mut sound, ledger, &mut Outcome::default());
            ledger.leave_fallback();
        } else if newest.previous.0 > 0 {
            ledger.note(format!("generation {} is in no slot: there is no fallback", newest.previous));
        }
        if let Some(walked) = walked
            && self.options.deep
            && Root::read(self.ground, newest, ledger).is_some_and(|root| root.follow(self.ground, ledger))
        {
            if ledger.is_damaged() {
                ledger.note("contents are not compared where something is damaged");
            } else {
                ledger.enter("comparing contents");
                let Walked { catalogue, journal, .. } = &walked;
                CrossCheck {
                    members: self.members,
                    configuration: self.configuration,
                    ground: self.ground,
                    catalogue,
                    journal,
                    ledger,
                }
                .run();
            }
        }
        for wrong in self.ground.dmu.take_wrong_copies() {
            ledger.push(Finding {
                code: Code::Copy,
                object: String::from("copy"),
                device: Some(wrong.device),
                offset: Some(wrong.offset),
                expected: String::from("what other members of the vdev give"),
                found: String::from("other bytes, or none that read"),
            });
        }
    }

    fn root(
        &self,
        superblock: &Superblock,
        newest: bool,
        sound: &mut HashSet<(Address, u32)>,
        ledger: &mut Ledger<'_>,
        out: &mut Outcome,
    ) -> Option<Walked> {
        let ground = self.ground;
        let root = Root::read(ground, superblock, ledger)?;
        let generation = superblock.generation;
        if !root.follow(ground, ledger) {
            return None;
        }
        let mut owners = Owners::default();
        let table = root.table(ground, newest, &mut owners, ledger);
        let table = table.as_ref();
        if let Some(seen) = table.map(|table| table.seen_generations().durable)
            && newest
            && seen > generation
            && !ledger.counts.contains_key(&Code::Rollback)
        {
            let expected = format!("nothing that was durable after generation {generation}");
            ledger.report(Code::Rollback, "allocation table", None, expected, format!("generation {seen}"));
        }
        let root_subject = Subject {
            name: String::from("root tree"),
            id: DatasetId(0),
            number: owners.tree(String::from("the root tree")),
            cut: u64::MAX,
            is_clone: false,
        };
        let mut walk = Walk {
            ground,
            table,
            owners: &mut owners,
            ledger,
            deep: self.options.deep,
            visited: HashSet::new(),
            known: HashSet::new(),
            own: Vec::new(),
            drop: None,
            sound,
            complete: true,
            messages: 0,
        };
        walk.tree(&root_subject, &root.record.root_tree, generation);
        let catalogue = Catalogue::read(ground, &root.record, walk.ledger);
        walk.complete &= catalogue.whole;
        let mut subjects = Vec::new();
        // What waits to be looked through, by the dataset in whose order it left.
        let mut pending: HashMap<DatasetId, HashSet<Extent>> = HashMap::new();
        let mut ids: Vec<DatasetId> =
            catalogue.datasets.keys().chain(catalogue.drops.keys()).copied().collect();
        // A clone next to what it was cloned from: they share.
        ids.sort_unstable_by_key(|id| (catalogue.family(*id), *id));
        ids.dedup();
        let mut last = None;
        for id in ids {
            let record = catalogue.datasets.get(&id);
            let name = record.map_or_else(|| format!("dataset {id}"), dataset_name);
            let number = walk.owners.tree(name.clone());
            let is_clone = record.is_some_and(|record| record.origin.is_some());
            let subject = Subject { name, id, number, cut: root.record.cut, is_clone };
            let family = Some(catalogue.family(id));
            if last != family {
                walk.start_family();
                last = family;
            }
            walk.messages = 0;
            if let Some(tree) = record.and_then(|record| record.root.as_ref()) {
                walk.tree(&subject, tree, generation);
            }
            let messages = walk.messages;
            for (index, dropped) in catalogue.drops.get(&id).into_iter().flatten().enumerate() {
                let met = pending.entry(catalogue.home(id, dropped.generation)).or_default();
                walk.dropped(&subject, dropped, index, generation, met);
            }
            walk.end_tree();
            for (snapshot, kept) in catalogue.snapshots.get(&id).into_iter().flatten() {
                let name = format!("{}, snapshot \"{}\"", subject.name, kept.name.escape_ascii());
                let cut = kept.cut.min(root.record.cut);
                walk.tree(&Subject { name, cut, ..subject.clone() }, &kept.root, *snapshot);
                walk.end_tree();
            }
            if let Some(record) = record {
                subjects.push((subject, messages, record));
            }
        }
        let lists = Lists { catalogue: &catalogue, record: &root.record };
        let none = HashSet::new();
        let pending = |subject: &Subject| pending.get(&subject.id).unwrap_or(&none);
        lists.check(
            &mut walk,
            subjects.iter().map(|(subject, _, record)| (subject, *record, pending(subject))),
        );
        let complete = walk.complete;
        if complete {
            let stores = StoreCheck { ground, catalogue: &catalogue, deep: self.options.deep };
            stores.check(walk.ledger);
        } else {
            walk.ledger.note("objects are not looked at where something could not be read");
        }
        subjects.sort_by_key(|(subject, ..)| subject.id);
        for (subject, messages, record) in subjects {
            let (name, role) = (record.name.clone(), record.role.as_str());
            let blocks = owners.blocks_of(subject.number);
            out.datasets.push(DatasetUsage { name, role, blocks, messages });
        }
        let journal = JournalCheck {
            ground,
            table,
            catalogue: &catalogue,
            ledger,
            deep: self.options.deep,
            keep: newest && self.options.deep,
        }
        .read(&root.record, &mut owners);
        if !ledger.interrupted {
            out.repairable = owners.compare(ground, table, complete, ledger);
        }
        Some(Walked { catalogue, journal })
    }
}

/// A hash of every byte of every device; parts that do not read count as nothing.
fn hash(members: &Members) -> u64 {
    const PIECE_BYTES: u64 = 1 << 20;
    let mut hash = Xxh3::new();
    for device in members.durable() {
        let end = device.len() / BLOCK_BYTES_U64 * BLOCK_BYTES_U64;
        let mut at = 0;
        while at < end {
            let mut piece = AlignedBuffer::zeroed(PIECE_BYTES.min(end - at) as usize);
            if device.read_at(&mut piece, at).is_ok() {
                hash.update(&piece);
            }
            at += piece.len() as u64;
        }
    }
    hash.digest()
}
