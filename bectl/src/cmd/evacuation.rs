//! `bectl vdev remove`: what a vdev holds is moved to others, and the vdev leaves the pool.

use crate::args::VdevRemove;
use crate::configuration::{self, Source};
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Progress;
use betree::base::ids::VdevId;
use betree::{EvacuationState, EvacuationStatus, LeafVdev};
use serde::Serialize;
use std::path::Path;

/// An evacuation in JSON.
#[derive(Serialize)]
struct JsonEvacuation<'a> {
    vdev: u32,
    state: String,
    by: &'a str,
    bytes_done: u64,
    bytes_total: u64,
    findings: Vec<String>,
}

impl<'a> JsonEvacuation<'a> {
    fn of(status: &'a EvacuationStatus) -> Self {
        Self {
            vdev: status.vdev.0,
            state: status.state.to_string(),
            by: &status.by,
            bytes_done: status.bytes_done,
            bytes_total: status.bytes_total,
            findings: status.findings.iter().map(ToString::to_string).collect(),
        }
    }
}

pub fn remove(context: &Context, options: &VdevRemove) -> anyhow::Result<()> {
    let source = context.configuration()?.source;
    let database = context.open()?;
    let vdev = database.vdevs().into_iter().find(|vdev| vdev.id.0 == options.vdev);
    let members = vdev.into_iter().flat_map(|vdev| vdev.members).map(|member| member.name);
    let members: Vec<String> = members.collect();
    let progress = Progress::start(&context.output, "moving", None);
    let mut done = 0;
    let evacuated = database.evacuate(VdevId(options.vdev), "bectl", |status| {
        progress.advance(status.bytes_done.saturating_sub(done));
        done = status.bytes_done;
        progress.say(|| format!("of {}", context.output.size(status.bytes_total)));
        !context.interrupt.is_set()
    });
    drop(progress);
    if evacuated.is_err() {
        for finding in database.evacuation_status().iter().flat_map(|status| &status.findings) {
            context.output.warn(&finding.to_string());
        }
    }
    let status = evacuated?;
    database.close()?;
    if status.state != EvacuationState::Finished {
        context.output.note(&format!("vdev {} is a member as before", status.vdev));
        return Err(Failure::Interrupted.into());
    }
    let moved = context.output.size(status.bytes_done);
    context.output.note(&format!("vdev {} left the pool, {moved} were moved", status.vdev));
    match &source {
        Source::File(path) if options.update_config => take_out(path, &members)?,
        _ => {
            let names = members.join(", ");
            let what = format!("take {names} out of the configuration {source}");
            context.output.warn(&format!("{what}: the pool does not open with that any more"));
        }
    }
    match context.output.json {
        true => context.output.data(&JsonEvacuation::of(&status)),
        false => context.output.nothing(),
    }
}

/// Takes the vdev whose devices are called `members` out of the configuration file at `path`.
fn take_out(path: &Path, members: &[String]) -> anyhow::Result<()> {
    let is_member = |leaf: &LeafVdev| match leaf {
        LeafVdev::File(file) => members.contains(&file.path.display().to_string()),
        LeafVdev::Memory { .. } | LeafVdev::Device(_) => false,
    };
    configuration::rewrite(path, |configuration| {
        for tier in &mut configuration.storage.tiers {
            tier.top_level_vdevs.retain(|vdev| !vdev.leaves().iter().any(is_member));
        }
    })
}
