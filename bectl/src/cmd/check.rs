//! `bectl check`: the whole pool, from outside.

use crate::args::Check;
use crate::context::{Context, explain};
use crate::failure::{Failure, message};
use crate::progress::Progress;
use crate::text::{Encoding, JsonBytes};
use betree::inspect::{self, CheckOptions, CheckReport, Finding, Outcome, RepairReport};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// A finding in JSON.
#[derive(Serialize)]
struct JsonFinding<'a> {
    code: &'static str,
    object: &'a str,
    device: Option<&'a str>,
    offset: Option<u64>,
    expected: &'a str,
    found: &'a str,
}

impl<'a> JsonFinding<'a> {
    fn of(finding: &'a Finding) -> Self {
        Self {
            code: finding.code.as_str(),
            object: &finding.object,
            device: finding.device.as_deref(),
            offset: finding.offset,
            expected: &finding.expected,
            found: &finding.found,
        }
    }
}

/// What a dataset occupies, in JSON.
#[derive(Serialize)]
struct JsonUsage<'a> {
    name: JsonBytes<'a>,
    blocks: u64,
    messages: u64,
}

/// A report in JSON.
#[derive(Serialize)]
struct JsonReport<'a> {
    outcome: &'static str,
    generation: u64,
    fallback: Option<u64>,
    deep: bool,
    interrupted: bool,
    nodes: u64,
    runs: u64,
    messages: u64,
    large_values: u64,
    log_records: u64,
    compared_keys: u64,
    counts: BTreeMap<&'static str, u64>,
    findings: Vec<JsonFinding<'a>>,
    notes: &'a [String],
    datasets: Vec<JsonUsage<'a>>,
}

impl<'a> JsonReport<'a> {
    fn of(report: &'a CheckReport) -> Self {
        let totals = report.totals;
        let usage = |dataset: &'a inspect::DatasetUsage| JsonUsage {
            name: JsonBytes(&dataset.name, Encoding::Utf8),
            blocks: dataset.blocks,
            messages: dataset.messages,
        };
        Self {
            outcome: word(report.outcome()),
            generation: report.generation,
            fallback: report.fallback,
            deep: report.deep,
            interrupted: report.interrupted,
            nodes: totals.nodes,
            runs: totals.runs,
            messages: totals.messages,
            large_values: totals.large_values,
            log_records: totals.log_records,
            compared_keys: totals.compared_keys,
            counts: report.counts.iter().map(|(code, count)| (code.as_str(), *count)).collect(),
            findings: report.findings.iter().map(JsonFinding::of).collect(),
            notes: &report.notes,
            datasets: report.datasets.iter().map(usage).collect(),
        }
    }
}

/// A repair in JSON.
#[derive(Serialize)]
struct JsonRepair<'a> {
    before: JsonReport<'a>,
    plan: Vec<String>,
    refused: Vec<&'static str>,
    tried: Option<JsonReport<'a>>,
    after: Option<JsonReport<'a>>,
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Clean => "clean",
        Outcome::Leaks => "leaks",
        Outcome::Damaged => "damaged",
    }
}

pub fn run(context: &Context, options: &Check) -> anyhow::Result<()> {
    let cannot_run = |error: &anyhow::Error| Failure::CannotRun(message(error));
    let active = context.pool_configuration().map_err(|error| cannot_run(&error))?;
    let check = CheckOptions { deep: options.deep, findings_max: options.limit };
    let progress = Progress::start(&context.output, "checking", None);
    let mut watch = |at: &inspect::Progress| {
        progress.say(|| {
            let totals = at.totals;
            format!(
                "{}: {} nodes, {} runs, {} messages",
                at.phase, totals.nodes, totals.runs, totals.messages
            )
        });
        if context.interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let failed = |error: betree::Error| cannot_run(&explain(error, &active.source));
    if options.repair {
        let done = inspect::repair(&active.configuration, &check, options.dry_run, &mut watch);
        let report = done.map_err(failed)?;
        drop(progress);
        context.interrupt.check()?;
        return say_repair(context, &report, options.dry_run);
    }
    let report = inspect::check(&active.configuration, &check, &mut watch).map_err(failed)?;
    drop(progress);
    if context.output.json {
        context.output.data(&JsonReport::of(&report))?;
    } else {
        say(context, &report)?;
    }
    context.interrupt.check()?;
    conclude(&report)
}

/// Prints findings, and notes for those who want more.
fn say(context: &Context, report: &CheckReport) -> anyhow::Result<()> {
    let mut sink = context.output.sink();
    for finding in &report.findings {
        sink.line(&finding.to_string())?;
    }
    sink.finish()?;
    if context.verbose > 0 {
        report.notes.iter().for_each(|note| context.output.note(note));
    }
    let totals = report.totals;
    context.output.note(&format!(
        "generation {}: {} nodes, {} runs, {} messages, {} large values, {} log records: {}",
        report.generation,
        totals.nodes,
        totals.runs,
        totals.messages,
        totals.large_values,
        totals.log_records,
        word(report.outcome())
    ));
    Ok(())
}

fn say_repair(context: &Context, report: &RepairReport, dry_run: bool) -> anyhow::Result<()> {
    let refused: Vec<&str> = report.refused.iter().map(|code| code.as_str()).collect();
    if context.output.json {
        context.output.data(&JsonRepair {
            before: JsonReport::of(&report.before),
            plan: report.plan.iter().map(ToString::to_string).collect(),
            refused: refused.clone(),
            tried: report.tried.as_ref().map(JsonReport::of),
            after: report.after.as_ref().map(JsonReport::of),
        })?;
    } else {
        say(context, &report.before)?;
        for step in &report.plan {
            context.output.note(&format!("{}: {step}", if dry_run { "would" } else { "done" }));
        }
        if let Some(after) = &report.after {
            context.output.note("after the repair:");
            say(context, after)?;
        }
    }
    if !refused.is_empty() {
        let codes = refused.join(", ");
        let why = match report.tried {
            Some(_) => "would be left, as a trial in memory shows",
            None => "cannot be put right without guessing",
        };
        context
            .output
            .warn(&format!("nothing is repaired: {codes} {why}; `bectl salvage` saves what can be read"));
    }
    conclude(report.after.as_ref().unwrap_or(&report.before))
}

fn conclude(report: &CheckReport) -> anyhow::Result<()> {
    let total: u64 = report.counts.values().sum();
    let counts = report.counts.iter().map(|(code, count)| format!("{count} × {code}"));
    let message = format!("{total} finding(s): {}", counts.collect::<Vec<_>>().join(", "));
    match report.outcome() {
        Outcome::Clean => Ok(()),
        outcome => Err(Failure::Found { only_leaks: outcome == Outcome::Leaks, message }.into()),
    }
}
