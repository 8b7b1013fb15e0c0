//! `bectl db status`: what is wrong, since when, and what to do.

use super::db::{TierSpace, space_of};
use super::scrub::{JsonScrubs, sentence, time_of};
use super::vdev::{JsonVdev, id_of, nobody, table_of};
use crate::configuration::Active;
use crate::context::Context;
use crate::output::Cell;
use betree::{Database, ErrorCounts, LeafVdev, MemberState, MemberStatus, VdevHealth, VdevStatus};
use serde::Serialize;

/// Something that wants to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Problem {
    what: String,
    since: Option<String>,
    /// What to do about it.
    action: String,
}

/// What `db status` says.
#[derive(Serialize)]
struct Status<'a> {
    /// `ONLINE`; `DEGRADED` when a device lacks something, `FAULTED` when too many do; `DAMAGED` when superblocks are lost or
    /// damaged, although the database opens, or the newest scrub found what is right on no device.
    state: &'static str,
    problems: Vec<Problem>,
    configuration: String,
    /// Checkpoint that was opened.
    generation: u64,
    /// Newest checkpoint that any device names.
    highest_generation: u64,
    /// Whether something newer than the opened checkpoint was, or may have been, durable.
    rolled_back: bool,
    datasets: usize,
    object_stores: usize,
    tiers: Vec<TierSpace>,
    /// Slots that are damaged or unreadable.
    damaged_slots: Vec<String>,
    /// Label areas that the newest commit has not reached; usual after a crash.
    stale_areas: Vec<String>,
    vdevs: Vec<JsonVdev>,
    spares: Vec<Spare>,
    #[serde(flatten)]
    scrubs: JsonScrubs<'a>,
}

/// A device that waits for another one to be lost.
#[derive(Serialize)]
struct Spare {
    device: String,
    /// Whether it took a place.
    in_use: bool,
}

fn spares_of(active: &Active, vdevs: &[VdevStatus]) -> Vec<Spare> {
    let spare = |leaf: &LeafVdev| {
        let LeafVdev::File(file) = leaf else { return None };
        let device = file.path.display().to_string();
        let in_use = vdevs.iter().flat_map(|vdev| &vdev.members).any(|member| member.name == device);
        Some(Spare { device, in_use })
    };
    active.configuration.storage.spares.iter().filter_map(spare).collect()
}

/// Members that were spares: the configuration still names who was lost.
fn add_spares(status: &mut Status<'_>, active: &Active, vdevs: &[VdevStatus]) {
    for spare in status.spares.iter().filter(|spare| spare.in_use) {
        let all = vdevs.iter().flat_map(|vdev| vdev.members.iter().map(move |member| (vdev, member)));
        for (vdev, member) in all.filter(|(_, member)| member.name == spare.device) {
            let lost =
                nobody(active, vdevs).map_or("a device".into(), |lost| lost.path.display().to_string());
            let id = id_of(vdev, member);
            status.problems.push(Problem {
                what: format!("spare {} ({id}) of {} {} took the place of {lost}", spare.device, vdev.kind, vdev.id),
                since: member.since.map(time_of),
                action: format!(
                    "`bectl vdev replace {id} NEW` ends that; or write it in place of {lost} into the configuration, and another spare"
                ),
            });
        }
    }
}

pub fn run(context: &Context) -> anyhow::Result<()> {
    let (database, active) = context.look_at_devices()?;
    let vdevs = database.vdevs();
    let (scrub, resilver) = (database.scrub_status(), database.resilver_status());
    let mut status = Status {
        state: "ONLINE",
        problems: problems_of_devices(&vdevs),
        configuration: active.source.to_string(),
        generation: 0,
        highest_generation: 0,
        rolled_back: false,
        datasets: database.datasets()?.len(),
        object_stores: database.object_stores()?.len(),
        tiers: space_of(&database),
        damaged_slots: Vec::new(),
        stale_areas: Vec::new(),
        vdevs: vdevs.iter().map(JsonVdev::of).collect(),
        spares: spares_of(&active, &vdevs),
        scrubs: JsonScrubs::of(scrub.as_ref(), resilver.as_ref()),
    };
    add_spares(&mut status, &active, &vdevs);
    for vdev in &vdevs {
        match vdev.health {
            VdevHealth::Faulted => status.state = "FAULTED",
            VdevHealth::Degraded if status.state == "ONLINE" => status.state = "DEGRADED",
            _ => {}
        }
    }
    add_report(&mut status, &database);
    if let Some(scrub) = scrub.as_ref().filter(|scrub| scrub.damaged > 0) {
        status.state = "DAMAGED";
        status.problems.push(Problem {
            what: format!("the scrub found {} piece(s) of data that are right on no device", scrub.damaged),
            since: Some(super::scrub::time(scrub.started)),
            action: "`bectl check` names what it belongs to; restore it, or destroy it, and scrub again"
                .into(),
        });
    }
    let text = |text: &str| Cell::Text(text.to_owned());
    let mut pairs = vec![("state", text(status.state))];
    for Problem { what, since, action } in &status.problems {
        let since = since.as_ref().map_or(String::new(), |since| format!(", since {since}"));
        pairs.push(("problem", Cell::Text(format!("{what}{since}"))));
        pairs.push(("action", text(action)));
    }
    pairs.extend([
        ("configuration", text(&status.configuration)),
        ("generation", Cell::Count(status.generation)),
        ("datasets", Cell::Count(status.datasets as u64)),
        ("object stores", Cell::Count(status.object_stores as u64)),
    ]);
    for tier in &status.tiers {
        let (used, total) = (context.output.size(tier.used), context.output.size(tier.total));
        pairs.push((tier.tier, Cell::Text(format!("{used} of {total} used"))));
    }
    pairs.push(("scrub", Cell::Text(scrub.as_ref().map_or("none".into(), |one| sentence(context, one)))));
    if let Some(one) = &resilver {
        let filled = context.output.size(one.filled_bytes);
        pairs.push((
            "resilver",
            Cell::Text(format!("{} of {}, {filled} copied", one.scrub.state, one.member)),
        ));
    }
    pairs.extend(status.spares.iter().map(|spare| {
        let state = if spare.in_use { "in use" } else { "available" };
        ("spare", Cell::Text(format!("{} {state}", spare.device)))
    }));
    pairs.extend(status.damaged_slots.iter().map(|slot| ("damaged", text(slot))));
    pairs.extend(status.stale_areas.iter().map(|area| ("stale", text(area))));
    context.output.pairs(&pairs, &status)?;
    if context.output.json {
        return Ok(());
    }
    let mut sink = context.output.sink();
    sink.line("")?;
    sink.finish()?;
    let (header, rows) = table_of(&vdevs);
    context.output.table(header, rows, &status.vdevs)
}

/// What opening found.
fn add_report(status: &mut Status<'_>, database: &Database) {
    let Some(report) = database.open_report() else { return };
    status.generation = report.chosen.0;
    status.highest_generation = report.highest_seen.0;
    status.rolled_back = report.rolled_back;
    status.damaged_slots = report.bad_slots.iter().map(ToString::to_string).collect();
    status.stale_areas = report.stale.iter().map(|area| format!("{} {}", area.device, area.end)).collect();
    if report.rolled_back {
        status.state = "DAMAGED";
        status.problems.push(Problem {
            what: format!(
                "checkpoints after {} are lost (up to {} seen)",
                status.generation, status.highest_generation
            ),
            since: None,
            action: "`bectl recover --list-generations` and `bectl check` say what is left; what was written since must be written again"
                .into(),
        });
    }
    if !report.bad_slots.is_empty() {
        status.state = "DAMAGED";
        status.problems.push(Problem {
            what: format!("{} superblock or label slot(s) are damaged", report.bad_slots.len()),
            since: None,
            action: "`bectl check --repair` writes anew what has a good copy".into(),
        });
    }
}

/// What is wrong with the devices, the worst first.
fn problems_of_devices(vdevs: &[VdevStatus]) -> Vec<Problem> {
    let all = || vdevs.iter().flat_map(|vdev| vdev.members.iter().map(move |member| (vdev, member)));
    let lacking = all().filter_map(|(vdev, member)| problem_of(vdev, member));
    let wrong = all().filter_map(|(vdev, member)| errors_of(vdev, member));
    lacking.chain(wrong).collect()
}

/// Why a member is not online, and what brings it back.
fn problem_of(vdev: &VdevStatus, member: &MemberStatus) -> Option<Problem> {
    if member.is_volatile || member.state == MemberState::Online {
        return None;
    }
    let id = id_of(vdev, member);
    let reason = member.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    let replace = format!("`bectl vdev replace {id} NEW` puts another one in its place");
    let action = match member.state {
        MemberState::Missing => format!("attach the device; or {replace}"),
        MemberState::Faulted => format!("`bectl vdev online {id}` when the device is sound; else {replace}"),
        MemberState::Offline => format!("`bectl vdev online {id}` uses it again; or {replace}"),
        MemberState::Resilvering | MemberState::Online => format!(
            "what it lacks is copied to it while the pool is open for writing; `bectl vdev online {id}` waits until that is done"
        ),
    };
    let what = format!("{} ({id}) of {} {} is {}{reason}", member.name, vdev.kind, vdev.id, member.state);
    Some(Problem { what, since: member.since.map(time_of), action })
}

/// Errors of a member that is in use.
fn errors_of(vdev: &VdevStatus, member: &MemberStatus) -> Option<Problem> {
    let ErrorCounts { read, write, checksum, .. } = member.errors;
    if read + write + checksum == 0 || !member.state.is_written() {
        return None;
    }
    let id = id_of(vdev, member);
    let remedy = match vdev.members.len() {
        1 => "nothing else has a copy of what is on it: copy it away when that goes on".to_owned(),
        _ => format!("`bectl vdev replace {id} NEW` when that goes on"),
    };
    Some(Problem {
        what: format!("{} ({id}): {read} read, {write} write and {checksum} checksum error(s)", member.name),
        since: None,
        action: format!(
            "`bectl scrub start` looks at everything on it, `bectl vdev clear {id}` forgets them; {remedy}"
        ),
    })
}
