//! Collects what the passes find.

use super::code::Code;
use super::finding::{Finding, Totals};
use crate::base::ids::VdevId;
use crate::base::units::BLOCK_BYTES_U64;
use crate::pool::Pool;
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// How far a check, salvage or repair is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// What is being done.
    pub phase: &'static str,
    /// How much was looked at.
    pub totals: Totals,
}

/// Told how far it is; breaks to stop it.
pub(super) type Watch<'a> = &'a mut dyn FnMut(&Progress) -> ControlFlow<()>;

/// A block of a device.
pub(super) type Block = Option<(VdevId, u64)>;

/// Findings so far.
pub(super) struct Ledger<'a> {
    pub findings: Vec<Finding>,
    pub counts: BTreeMap<Code, u64>,
    pub notes: Vec<String>,
    pub totals: Totals,
    pub interrupted: bool,
    findings_max: usize,
    /// What was found in the newest checkpoint: the fallback shares most of it.
    seen: HashSet<(Code, Block)>,
    in_fallback: bool,
    pool: Option<Arc<Pool>>,
    phase: &'static str,
    watch: Watch<'a>,
}

impl<'a> Ledger<'a> {
    pub fn new(findings_max: usize, watch: Watch<'a>) -> Self {
        Self {
            findings: Vec::new(),
            counts: BTreeMap::new(),
            notes: Vec::new(),
            totals: Totals::default(),
            interrupted: false,
            findings_max,
            seen: HashSet::new(),
            in_fallback: false,
            pool: None,
            phase: "devices",
            watch,
        }
    }

    /// Devices are named by `pool` from here on.
    pub fn use_pool(&mut self, pool: &Arc<Pool>) {
        self.pool = Some(Arc::clone(pool));
    }

    /// What is found from here on is about the fallback.
    pub fn enter_fallback(&mut self) {
        self.in_fallback = true;
    }

    pub fn leave_fallback(&mut self) {
        self.in_fallback = false;
    }

    pub fn enter(&mut self, phase: &'static str) {
        self.phase = phase;
        self.tick();
    }

    /// Tells how far it is; whether to go on.
    pub fn tick(&mut self) -> bool {
        let progress = Progress { phase: self.phase, totals: self.totals };
        if !self.interrupted && (self.watch)(&progress).is_break() {
            self.interrupted = true;
        }
        !self.interrupted
    }

    /// Whether there is damage, but in the fallback, or where other members hold what is right.
    pub fn is_damaged(&self) -> bool {
        let elsewhere = |code: &Code| matches!(code, Code::Leak | Code::Fallback | Code::Slot | Code::Copy);
        self.counts.keys().any(|code| !elsewhere(code))
    }

    /// A finding at a block of a vdev.
    pub fn report(
        &mut self,
        code: Code,
        object: impl ToString,
        at: Block,
        expected: impl ToString,
        found: impl ToString,
    ) {
        if self.in_fallback && self.seen.contains(&(code, at)) {
            return;
        }
        if !self.in_fallback {
            self.seen.insert((code, at));
        }
        let device = at.map(|(vdev, _)| {
            let pool = self.pool.as_ref().and_then(|pool| pool.vdev(vdev).ok());
            pool.map_or_else(|| format!("vdev {vdev}"), |vdev| vdev.name())
        });
        let offset = at.map(|(_, block)| block.saturating_mul(BLOCK_BYTES_U64));
        let (object, expected, found) = (object.to_string(), expected.to_string(), found.to_string());
        self.push(Finding { code, object, device, offset, expected, found });
    }

    /// A finding at a byte of a device.
    pub fn push(&mut self, mut finding: Finding) {
        if self.in_fallback {
            finding.object = format!("fallback: {} {}", finding.code, finding.object);
            finding.code = Code::Fallback;
        }
        *self.counts.entry(finding.code).or_default() += 1;
        if self.findings.len() < self.findings_max {
            self.findings.push(finding);
        }
    }

    pub fn note(&mut self, note: impl ToString) {
        self.notes.push(note.to_string());
    }
}
