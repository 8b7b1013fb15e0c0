//! What can be put right without losing anything: leaks, recorded counts, superblock slots with a good copy.

use super::check::{CheckOptions, Checked, check_members};
use super::code::Code;
use super::finding::{CheckReport, Outcome};
use super::ledger::Watch;
use crate::database::{Amends, Database, DatabaseConfiguration, Opening, Result};
use crate::pool::{Access, Members};

/// One step of a repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepairStep {
    /// Superblock slots are written anew from the copies at the other ends of their devices.
    RestoreSlots {
        /// How many.
        slots: u64,
    },
    /// Recorded counts of free blocks are replaced by those of the bitmaps, in a new checkpoint.
    CorrectCounts {
        /// Segments whose counts are wrong.
        segments: u64,
    },
    /// Blocks that nothing reaches are freed, in a new checkpoint.
    ClearLeaks {
        /// How many blocks of 4 KiB.
        blocks: u64,
    },
}

impl std::fmt::Display for RepairStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RestoreSlots { slots } => {
                write!(f, "write {slots} superblock slots anew from their copies")
            }
            Self::CorrectCounts { segments } => {
                write!(f, "replace the recorded counts of {segments} segments by those of their bitmaps")
            }
            Self::ClearLeaks { blocks } => write!(f, "free {blocks} blocks that nothing reaches"),
        }
    }
}

/// What a repair would do, or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairReport {
    /// What was found before.
    pub before: CheckReport,
    /// The plan; empty when there is nothing to do, or when it is refused.
    pub plan: Vec<RepairStep>,
    /// Codes of what cannot be repaired, or of what the plan would leave: when there are any, nothing is done. Salvage
    /// what can be read.
    pub refused: Vec<Code>,
    /// What a check found after the plan was tried out in memory; `None` without a plan.
    pub tried: Option<CheckReport>,
    /// What a check found afterwards; `None` when nothing was done.
    pub after: Option<CheckReport>,
}

/// Checks the pool of `configuration`, makes a plan, tries it out in memory over the devices and checks that; only when
/// nothing is found there, and unless `dry_run`, carries it out and checks again. The pool is locked throughout.
///
/// A checkpoint is part of every repair but that of slots alone: the log is replayed as it is when the database opens.
/// What that writes is held in memory while it is tried out.
///
/// # Errors
/// As [`super::check`]; the plan cannot be tried out; nothing was written then. A device fails: the pool is then as after
/// a crash, and what was durable still is.
pub fn repair(
    configuration: &DatabaseConfiguration,
    options: &CheckOptions,
    dry_run: bool,
    watch: Watch<'_>,
) -> Result<RepairReport> {
    let access = if dry_run { Access::ReadOnly } else { Access::ReadWrite };
    let members = Members::open(&configuration.storage, access)?;
    let checked = check_members(&members, configuration, options, watch)?;
    repair_members(&members, configuration, options, dry_run, &checked, watch)
}

/// Repairs what was found on `members`.
pub(super) fn repair_members(
    members: &Members,
    configuration: &DatabaseConfiguration,
    options: &CheckOptions,
    dry_run: bool,
    checked: &Checked,
    watch: Watch<'_>,
) -> Result<RepairReport> {
    let (plan, refused) = plan(checked);
    let before = checked.report.clone();
    let mut report = RepairReport { before, plan, refused, tried: None, after: None };
    if report.plan.is_empty() || report.before.interrupted {
        return Ok(report);
    }
    let overlaid = members.overlaid();
    carry_out(&overlaid, configuration, &report.plan, checked)?;
    let tried = report.tried.insert(check_members(&overlaid, configuration, options, watch)?.report);
    if tried.outcome() != Outcome::Clean {
        report.refused = tried.counts.keys().copied().collect();
        report.plan.clear();
        return Ok(report);
    }
    if dry_run || tried.interrupted {
        return Ok(report);
    }
    carry_out(members, configuration, &report.plan, checked)?;
    report.after = Some(check_members(members, configuration, options, watch)?.report);
    Ok(report)
}

/// What to do about what was found, and the codes that nothing can be done about.
fn plan(checked: &Checked) -> (Vec<RepairStep>, Vec<Code>) {
    let counts = &checked.report.counts;
    let slots_lost = checked.slots.lost() > 0;
    let repairable = |code: &Code| match code {
        Code::Leak => !checked.repairable.leaks.is_empty(),
        Code::Free => true,
        Code::Slot | Code::Padding => !slots_lost,
        // What the fallback shares with the newest checkpoint is found there; a leak or count of its own goes away
        // with it, and it is not worth more than that.
        Code::Fallback => fallback_is_harmless(&checked.report),
        _ => false,
    };
    let refused: Vec<Code> = counts.keys().copied().filter(|code| !repairable(code)).collect();
    if !refused.is_empty() || checked.report.outcome() == Outcome::Clean {
        return (Vec::new(), refused);
    }
    let mut plan = Vec::new();
    let slots = checked.slots.restorable() as u64;
    if slots > 0 {
        plan.push(RepairStep::RestoreSlots { slots });
    }
    let leaks = &checked.repairable.leaks;
    if counts.contains_key(&Code::Free) || counts.contains_key(&Code::Fallback) {
        let segments = checked.repairable.counts.len() as u64;
        plan.push(RepairStep::CorrectCounts { segments });
    }
    if !leaks.is_empty() {
        plan.push(RepairStep::ClearLeaks { blocks: leaks.iter().map(|leak| u64::from(leak.blocks)).sum() });
    }
    (plan, Vec::new())
}

/// Whether nothing is wrong with the fallback but leaks and counts. Findings that were not kept are not known.
fn fallback_is_harmless(report: &CheckReport) -> bool {
    let kept = report.findings.iter().filter(|finding| finding.code == Code::Fallback);
    let harmless = [Code::Leak, Code::Free].map(|code| format!("fallback: {code} "));
    let mut seen = 0;
    for finding in kept {
        seen += 1;
        if !harmless.iter().any(|start| finding.object.starts_with(start)) {
            return false;
        }
    }
    report.counts.get(&Code::Fallback) == Some(&seen)
}

fn carry_out(
    members: &Members,
    configuration: &DatabaseConfiguration,
    plan: &[RepairStep],
    checked: &Checked,
) -> Result<()> {
    if plan.iter().any(|step| matches!(step, RepairStep::RestoreSlots { .. })) {
        let (pool, _) = members.pool(Access::ReadWrite)?;
        pool.restore_slots()?;
        pool.close()?;
    }
    let of_space =
        |step: &RepairStep| matches!(step, RepairStep::CorrectCounts { .. } | RepairStep::ClearLeaks { .. });
    if plan.iter().any(of_space) {
        let (pool, report) = members.pool(Access::ReadWrite)?;
        // The checkpoint that was checked, and no other.
        let chosen = checked.report.checked();
        let mut report = report;
        report.candidates.retain(|candidate| candidate.generation == chosen);
        let amends =
            Amends { counts: checked.repairable.counts.clone(), leaks: checked.repairable.leaks.clone() };
        let configuration = DatabaseConfiguration {
            background_threads: Some(0),
            sync_interval_ms: None,
            ..configuration.clone()
        };
        let database = Database::open_on(configuration, pool, report, Opening::Amended(&amends))?;
        // The fallback is repaired when it is a checkpoint after the repair, too.
        database.checkpoint()?;
        database.checkpoint()?;
        database.close()?;
    }
    Ok(())
}
