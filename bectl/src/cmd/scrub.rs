//! `bectl scrub`: every copy of everything is looked at, and mended.

use crate::args::ScrubCommand;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Cell;
use crate::progress::Progress;
use crate::text::{Encoding, JsonBytes};
use betree::{ResilverStatus, ScrubFinding, ScrubState, ScrubStatus};
use jiff::Timestamp;
use serde::Serialize;
use std::time::SystemTime;

/// A finding in JSON.
#[derive(Serialize)]
struct JsonFinding<'a> {
    what: &'a str,
    dataset: Option<JsonBytes<'a>>,
    low: JsonBytes<'a>,
    high: Option<JsonBytes<'a>>,
    device: &'a str,
    block: u64,
    reason: &'a str,
}

impl<'a> JsonFinding<'a> {
    fn of(finding: &'a ScrubFinding) -> Self {
        let bytes = |bytes: &'a [u8]| JsonBytes(bytes, Encoding::Utf8);
        Self {
            what: finding.what,
            dataset: finding.dataset.as_deref().map(bytes),
            low: bytes(&finding.low),
            high: finding.high.as_deref().map(bytes),
            device: &finding.device,
            block: finding.block,
            reason: &finding.reason,
        }
    }
}

/// A scrub in JSON.
#[derive(Serialize)]
pub struct JsonScrub<'a> {
    state: String,
    by: &'a str,
    started: String,
    ended: Option<String>,
    active_seconds: f64,
    generation: u64,
    bytes_done: u64,
    bytes_total: u64,
    checksums: u64,
    repaired_bytes: u64,
    unrepaired_bytes: u64,
    damaged: u64,
    findings: Vec<JsonFinding<'a>>,
}

pub fn time(time: SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX).to_string()
}

/// Seconds since 1970 as a time.
pub fn time_of(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

impl<'a> JsonScrub<'a> {
    pub fn of(status: &'a ScrubStatus) -> Self {
        Self {
            state: status.state.to_string(),
            by: &status.by,
            started: time(status.started),
            ended: status.ended.map(time),
            active_seconds: status.active.as_secs_f64(),
            generation: status.generation,
            bytes_done: status.bytes_done,
            bytes_total: status.bytes_total,
            checksums: status.units,
            repaired_bytes: status.repaired_bytes,
            unrepaired_bytes: status.unrepaired_bytes,
            damaged: status.damaged,
            findings: status.findings.iter().map(JsonFinding::of).collect(),
        }
    }
}

/// The newest scrub and resilver.
#[derive(Serialize)]
pub struct JsonScrubs<'a> {
    scrub: Option<JsonScrub<'a>>,
    resilver: Option<JsonResilver<'a>>,
}

impl<'a> JsonScrubs<'a> {
    pub fn of(scrub: Option<&'a ScrubStatus>, resilver: Option<&'a ResilverStatus>) -> Self {
        Self {
            scrub: scrub.map(JsonScrub::of),
            resilver: resilver.map(|one| JsonResilver {
                member: &one.member,
                filled_bytes: one.filled_bytes,
                scrub: JsonScrub::of(&one.scrub),
            }),
        }
    }
}

/// A resilver in JSON.
#[derive(Serialize)]
struct JsonResilver<'a> {
    member: &'a str,
    filled_bytes: u64,
    #[serde(flatten)]
    scrub: JsonScrub<'a>,
}

pub fn run(context: &Context, command: &ScrubCommand) -> anyhow::Result<()> {
    match command {
        ScrubCommand::Start => start(context),
        ScrubCommand::Stop => {
            context.open()?.scrub_stop()?;
            context.output.nothing()
        }
        ScrubCommand::Status => status(context),
    }
}

fn start(context: &Context) -> anyhow::Result<()> {
    let database = context.open()?;
    let progress = Progress::start(&context.output, "scrubbing", None);
    let mut done = 0;
    let status = database.scrub("bectl", |status| {
        progress.advance(status.bytes_done.saturating_sub(done));
        done = status.bytes_done;
        progress.say(|| {
            let total = context.output.size(status.bytes_total);
            let repaired = context.output.size(status.repaired_bytes);
            format!("of {total}, {repaired} repaired, {} damaged", status.damaged)
        });
        !context.interrupt.is_set()
    })?;
    drop(progress);
    database.close()?;
    if context.output.json {
        context.output.data(&JsonScrub::of(&status))?;
    } else {
        let mut sink = context.output.sink();
        for finding in &status.findings {
            sink.line(&finding.to_string())?;
        }
        sink.finish()?;
        context.output.note(&sentence(context, &status));
    }
    if status.state != ScrubState::Finished {
        return Err(Failure::Interrupted.into());
    }
    match status.damaged {
        0 => Ok(()),
        count => {
            let reason = format!("{count} finding(s); what has a sound copy elsewhere was repaired");
            Err(betree::Error::Corrupt { what: "scrub", reason }.into())
        }
    }
}

/// A scrub in one line.
pub fn sentence(context: &Context, status: &ScrubStatus) -> String {
    let size = |bytes| context.output.size(bytes);
    let mut text = format!(
        "{}: {} of {} looked at in {:.1} s, {} repaired, {} finding(s)",
        status.state,
        size(status.bytes_done),
        size(status.bytes_total),
        status.active.as_secs_f64(),
        size(status.repaired_bytes),
        status.damaged,
    );
    if status.unrepaired_bytes > 0 {
        text += &format!(", {} wrong on one member and not writable", size(status.unrepaired_bytes));
    }
    match status.ended {
        Some(ended) => text += &format!(", {}", time(ended)),
        None => text += "; `bectl scrub start` goes on with it",
    }
    text
}

fn status(context: &Context) -> anyhow::Result<()> {
    let (database, _) = context.look_at_devices()?;
    let (scrub, resilver) = (database.scrub_status(), database.resilver_status());
    let data = JsonScrubs::of(scrub.as_ref(), resilver.as_ref());
    let text = |text: String| Cell::Text(text);
    let mut pairs = vec![("scrub", text(scrub.as_ref().map_or("none".into(), |one| sentence(context, one))))];
    if let Some(scrub) = &scrub {
        pairs.push(("started", text(format!("{} by {}", time(scrub.started), scrub.by))));
    }
    if let Some(one) = &resilver {
        let filled = context.output.size(one.filled_bytes);
        pairs.push(("resilver", text(format!("{} of {}, {filled} copied", one.scrub.state, one.member))));
    }
    context.output.pairs(&pairs, &data)
}
