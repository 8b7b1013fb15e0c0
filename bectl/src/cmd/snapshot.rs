//! `bectl snapshot`, `clone` and `promote`.

use super::difference::changes;
use super::owner::Owner;
use super::readable::{check_no_snapshot, check_no_store_snapshot};
use crate::args::{Bytes, Keep, Prune, SnapshotCommand, SnapshotName, Snapshots};
use crate::confirm::confirm;
use crate::context::Context;
use crate::failure::{Failure, quoted};
use crate::output::Cell;
use crate::progress::Progress;
use crate::text::{self, Encoding, JsonBytes};
use betree::{Database, ErrorKind, KeepReason, Retention, SnapshotInfo};
use jiff::Timestamp;
use serde::Serialize;

pub fn run(context: &Context, snapshots: Snapshots) -> anyhow::Result<()> {
    let Snapshots { store, command } = snapshots;
    let change = |snapshot: &SnapshotName, work: &dyn Fn(&Owner) -> betree::Result<()>| {
        change(context, &snapshot.dataset, store, work)
    };
    match command {
        SnapshotCommand::Create { snapshots } => create(context, &snapshots, store),
        SnapshotCommand::List { name } => list(context, name.as_ref(), store),
        SnapshotCommand::Destroy { snapshots, dry_run, yes } => {
            destroy(context, &snapshots, store, dry_run, yes)
        }
        SnapshotCommand::Rollback { snapshot, force, dry_run, yes } => {
            if dry_run || !yes {
                let told = tell_rollback(context, &snapshot, store, force, dry_run)?;
                if dry_run {
                    return Ok(());
                }
                confirm(context, yes, &told, &snapshot.bytes())?;
            }
            change(&snapshot, &|owner| owner.rollback(&snapshot.name, force))
        }
        SnapshotCommand::Diff { snapshot, later, key_enc } => {
            diff(context, &snapshot, later.as_ref(), store, key_enc)
        }
        SnapshotCommand::Hold { tag, snapshot } => {
            change(&snapshot, &|owner| owner.hold_snapshot(&snapshot.name, &tag.0))
        }
        SnapshotCommand::Release { tag, snapshot } => {
            change(&snapshot, &|owner| owner.release_snapshot(&snapshot.name, &tag.0))
        }
        SnapshotCommand::Rename { snapshot, new_name } => {
            let new_name = renamed(&snapshot, &new_name.0)?;
            change(&snapshot, &|owner| owner.rename_snapshot(&snapshot.name, new_name))
        }
        SnapshotCommand::Prune(options) => prune(context, &options, store),
    }
}

/// Makes a dataset or object store of a snapshot.
pub fn clone(context: &Context, snapshot: &SnapshotName, name: &[u8], store: bool) -> anyhow::Result<()> {
    let database = context.open()?;
    match Owner::open(&database, &snapshot.dataset, store)? {
        Owner::Dataset(dataset) => {
            check_no_snapshot(&database, name)?;
            database.clone_snapshot(&dataset.open_snapshot(&snapshot.name)?, name)?;
        }
        Owner::Store(store) => {
            check_no_store_snapshot(&database, name)?;
            database.clone_store_snapshot(&store.open_snapshot(&snapshot.name)?, name)?;
        }
    }
    database.close()?;
    context.output.nothing()
}

/// Makes a clone the owner of what it was made of.
pub fn promote(context: &Context, name: &[u8], store: bool) -> anyhow::Result<()> {
    change(context, name, store, &Owner::promote)
}

/// A change of one dataset or object store, which is durable when the library returns.
fn change(
    context: &Context,
    name: &[u8],
    store: bool,
    work: &dyn Fn(&Owner) -> betree::Result<()>,
) -> anyhow::Result<()> {
    let database = context.open()?;
    work(&Owner::open(&database, name, store)?)?;
    database.close()?;
    context.output.nothing()
}

fn create(context: &Context, snapshots: &[SnapshotName], store: bool) -> anyhow::Result<()> {
    let Some(first) = snapshots.first() else { return context.output.nothing() };
    if snapshots.iter().any(|one| one.name != first.name) {
        let why = "snapshots that are made at one instant have one name behind the @";
        return Err(Failure::Usage(why.into()).into());
    }
    let database = context.open()?;
    let (mut datasets, mut stores) = (Vec::new(), Vec::new());
    for one in snapshots {
        match Owner::open(&database, &one.dataset, store)? {
            Owner::Dataset(dataset) => datasets.push(dataset),
            Owner::Store(store) => stores.push(store),
        }
    }
    let (all, all_stores): (Vec<_>, Vec<_>) = (datasets.iter().collect(), stores.iter().collect());
    database.create_snapshots(&all, &all_stores, &first.name)?;
    drop((datasets, stores));
    database.close()?;
    context.output.nothing()
}

/// The new name of a snapshot, which may be written with that of its dataset.
fn renamed<'a>(snapshot: &SnapshotName, new_name: &'a [u8]) -> Result<&'a [u8], Failure> {
    let Some(at) = new_name.iter().rposition(|byte| *byte == b'@') else { return Ok(new_name) };
    if at > 0 && new_name[..at] != snapshot.dataset[..] {
        return Err(Failure::Usage("a snapshot stays with its dataset or object store".into()));
    }
    Ok(&new_name[at + 1..])
}

/// A snapshot in JSON. Sizes are bytes.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset: Option<JsonBytes<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<JsonBytes<'a>>,
    name: JsonBytes<'a>,
    created: String,
    generation: u64,
    guid: &'a str,
    used: u64,
    referenced: u64,
    written: u64,
    holds: Vec<JsonBytes<'a>>,
    clones: Vec<JsonBytes<'a>>,
    /// Whether changes to it were received in part.
    receiving: bool,
}

fn created(info: &SnapshotInfo) -> String {
    Timestamp::try_from(info.created).unwrap_or(Timestamp::MAX).to_string()
}

fn full_name(dataset: &[u8], info: &SnapshotInfo) -> Vec<u8> {
    SnapshotName { dataset: dataset.to_vec(), name: info.name.clone() }.bytes()
}

/// The name of what has a snapshot, and whether that is an object store.
type Of = (Vec<u8>, bool);

fn of(owner: &Owner) -> Of {
    (owner.name(), matches!(owner, Owner::Store(_)))
}

fn listed<'a>((name, is_store): &'a Of, info: &'a SnapshotInfo) -> Listed<'a> {
    let name = || JsonBytes(name, Encoding::Utf8);
    let all = |names: &'a [Vec<u8>]| names.iter().map(|name| JsonBytes(name, Encoding::Utf8)).collect();
    Listed {
        dataset: (!is_store).then(name),
        store: is_store.then(name),
        name: JsonBytes(&info.name, Encoding::Utf8),
        created: created(info),
        generation: info.generation,
        guid: &info.guid,
        used: info.unique,
        referenced: info.referenced,
        written: info.written,
        holds: all(&info.holds),
        clones: all(&info.clones),
        receiving: info.receiving,
    }
}

/// Names in one cell.
fn names(names: &[Vec<u8>]) -> String {
    match names {
        [] => "-".into(),
        names => names.iter().map(|name| text::escaped(name)).collect::<Vec<_>>().join(","),
    }
}

fn list(context: &Context, name: Option<&Bytes>, store: bool) -> anyhow::Result<()> {
    let database = context.open_read_only()?;
    let mut found: Vec<(Of, SnapshotInfo)> = Vec::new();
    let mut add = |owner: Owner| -> betree::Result<()> {
        found.extend(owner.snapshots()?.into_iter().map(|info| (of(&owner), info)));
        Ok(())
    };
    match name {
        Some(name) => add(Owner::open(&database, &name.0, store)?)?,
        None => {
            let datasets = if store { Vec::new() } else { database.datasets()? };
            for name in datasets {
                context.interrupt.check()?;
                match database.open_dataset(&name) {
                    Ok(dataset) => add(Owner::Dataset(dataset))?,
                    Err(error) if error.kind() == ErrorKind::InvalidArgument => {
                        context.output.warn(&format!("left out: {error}"));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            for name in database.object_stores()? {
                context.interrupt.check()?;
                add(Owner::Store(database.open_object_store(&name)?))?;
            }
        }
    }
    let rows = found.iter().map(|((name, _), info)| {
        vec![
            Cell::Text(text::escaped(&full_name(name, info))),
            Cell::Text(created(info)),
            Cell::Bytes(info.unique),
            Cell::Bytes(info.referenced),
            Cell::Bytes(info.written),
            Cell::Text(names(&info.holds)),
            Cell::Text(names(&info.clones)),
        ]
    });
    let header = ["NAME", "CREATED", "USED", "REFERENCED", "WRITTEN", "HOLDS", "CLONES"];
    let json: Vec<_> = found.iter().map(|(of, info)| listed(of, info)).collect();
    context.output.table(&header, rows.collect(), &json)
}

/// What there is to say about the snapshot `name` of `owner`.
fn find(owner: &Owner, name: &SnapshotName) -> anyhow::Result<SnapshotInfo> {
    let found = owner.snapshots()?.into_iter().find(|info| info.name == name.name);
    let absent = || Failure::NotFound(format!("snapshot {} does not exist", quoted(&name.bytes())));
    Ok(found.ok_or_else(absent)?)
}

/// Fails with what keeps a snapshot from being destroyed.
fn check_free(dataset: &[u8], info: &SnapshotInfo) -> Result<(), Failure> {
    let by: Vec<String> = if info.receiving {
        vec!["an unfinished receive into its dataset".into()]
    } else if info.clones.is_empty() {
        info.holds.iter().map(|tag| format!("hold {}", quoted(tag))).collect()
    } else {
        info.clones.iter().map(|clone| format!("clone {}", quoted(clone))).collect()
    };
    if by.is_empty() {
        return Ok(());
    }
    let name = quoted(&full_name(dataset, info));
    Err(Failure::Refused(format!("snapshot {name} is needed by {}; nothing was changed", by.join(", "))))
}

/// The snapshots that are to be destroyed, each once, if all of them can be.
fn to_destroy(
    database: &Database,
    snapshots: &[SnapshotName],
    store: bool,
) -> anyhow::Result<Vec<(Owner, SnapshotInfo)>> {
    let mut found: Vec<(Owner, SnapshotInfo)> = Vec::new();
    for (index, name) in snapshots.iter().enumerate() {
        if snapshots[..index].contains(name) {
            continue;
        }
        let owner = Owner::open(database, &name.dataset, store)?;
        let info = find(&owner, name)?;
        check_free(&name.dataset, &info)?;
        found.push((owner, info));
    }
    Ok(found)
}

fn destroy(
    context: &Context,
    snapshots: &[SnapshotName],
    store: bool,
    dry_run: bool,
    yes: bool,
) -> anyhow::Result<()> {
    let output = &context.output;
    if dry_run || !yes {
        let database = context.open_read_only()?;
        let found = to_destroy(&database, snapshots, store)?;
        let name = |(owner, info): &(Owner, SnapshotInfo)| full_name(&owner.name(), info);
        let what = match &found[..] {
            [one] => {
                format!("snapshot {} with {} of its own", quoted(&name(one)), output.size(one.1.unique))
            }
            all => {
                let names: Vec<String> = all.iter().map(|one| quoted(&name(one)).into_owned()).collect();
                format!("{} snapshots: {}", all.len(), names.join(", "))
            }
        };
        if dry_run {
            output.note(&format!("would destroy {what}"));
            let owners: Vec<_> = found.iter().map(|(owner, _)| of(owner)).collect();
            let json: Vec<_> =
                found.iter().zip(&owners).map(|((_, info), owner)| listed(owner, info)).collect();
            return if output.json { output.data(&json) } else { Ok(()) };
        }
        let typed = found.first().map(name).unwrap_or_default();
        confirm(context, yes, &format!("destroys {what}"), &typed)?;
    }
    let database = context.open()?;
    for (owner, info) in to_destroy(&database, snapshots, store)? {
        context.interrupt.check()?;
        owner.delete_snapshot(&info.name)?;
    }
    database.close()?;
    output.nothing()
}

/// What a rollback loses, in JSON.
#[derive(Serialize)]
struct RolledBack<'a> {
    /// Keys whose values change, or objects that do.
    keys: u64,
    /// Names of the later snapshots, newest last.
    destroyed: Vec<JsonBytes<'a>>,
}

/// Says what a rollback does. With `dry_run`, prints it.
fn tell_rollback(
    context: &Context,
    snapshot: &SnapshotName,
    store: bool,
    force: bool,
    dry_run: bool,
) -> anyhow::Result<String> {
    let output = &context.output;
    let database = context.open_read_only()?;
    let owner = Owner::open(&database, &snapshot.dataset, store)?;
    let info = find(&owner, snapshot)?;
    let later: Vec<_> =
        owner.snapshots()?.into_iter().filter(|one| one.generation > info.generation).collect();
    let names: Vec<_> =
        later.iter().map(|one| quoted(&full_name(&snapshot.dataset, one)).into_owned()).collect();
    if !later.is_empty() && !force {
        let names = names.join(", ");
        let why = format!("there are later snapshots: {names}; with --force they are destroyed");
        return Err(Failure::Refused(why).into());
    }
    later.iter().try_for_each(|one| check_free(&snapshot.dataset, one))?;
    let mut keys = 0_u64;
    let progress = Progress::start(output, "comparing", None);
    for change in changes(&database, &owner, snapshot, &snapshot.dataset)? {
        context.interrupt.check()?;
        change?;
        keys += 1;
        progress.entry(0);
    }
    drop(progress);
    let (name, of, noun) = (quoted(&snapshot.bytes()), quoted(&snapshot.dataset), owner.noun());
    let entries = if matches!(owner, Owner::Store(_)) { "objects" } else { "keys" };
    let mut what = format!("back to {name}, which changes {keys} {entries}");
    if !later.is_empty() {
        what = format!("{what} and destroys {}", names.join(", "));
    }
    if dry_run {
        output.note(&format!("would roll {noun} {of} {what}"));
        let destroyed = later.iter().map(|one| JsonBytes(&one.name, Encoding::Utf8)).collect();
        if output.json {
            output.data(&RolledBack { keys, destroyed })?;
        }
    }
    Ok(format!("rolls {noun} {of} {what}"))
}

/// A key that differs, in JSON.
#[derive(Serialize)]
struct Changed<'a> {
    change: &'static str,
    key: JsonBytes<'a>,
}

fn diff(
    context: &Context,
    snapshot: &SnapshotName,
    later: Option<&Bytes>,
    store: bool,
    encoding: Encoding,
) -> anyhow::Result<()> {
    let database = context.open_read_only()?;
    let owner = Owner::open(&database, &snapshot.dataset, store)?;
    let later = later.map_or(&snapshot.dataset, |later| &later.0);
    let changes = changes(&database, &owner, snapshot, later)?;
    let output = &context.output;
    if output.json {
        let mut list = output.json_list()?;
        for change in changes {
            context.interrupt.check()?;
            let (change, key) = change?;
            list.push(&Changed { change: change.word(), key: JsonBytes(&key, encoding) })?;
        }
        return list.finish();
    }
    let separator = if output.plain { '\t' } else { ' ' };
    let mut sink = output.sink();
    let mut line = String::new();
    for change in changes {
        context.interrupt.check()?;
        let (change, key) = change?;
        line.clear();
        line.extend([change.sign(), separator]);
        encoding.encode(&key, &mut line);
        sink.line(&line)?;
    }
    sink.finish()
}

/// What becomes of a snapshot, in JSON.
#[derive(Serialize)]
struct Judged<'a> {
    name: JsonBytes<'a>,
    created: String,
    used: u64,
    /// Why it stays; absent for what is destroyed.
    kept: Option<String>,
}

fn retention(keep: &Keep) -> Retention {
    Retention {
        last: keep.keep_last.unwrap_or(0),
        hourly: keep.keep_hourly.unwrap_or(0),
        daily: keep.keep_daily.unwrap_or(0),
        weekly: keep.keep_weekly.unwrap_or(0),
        monthly: keep.keep_monthly.unwrap_or(0),
        yearly: keep.keep_yearly.unwrap_or(0),
    }
}

/// A snapshot, and why it stays.
type Verdict = (SnapshotInfo, Option<KeepReason>);

fn prune(context: &Context, options: &Prune, store: bool) -> anyhow::Result<()> {
    let name = &options.name.0;
    let retention = retention(&options.keep);
    let judge = |owner: &Owner| -> betree::Result<Vec<Verdict>> {
        let all = owner.snapshots()?;
        let reasons = retention.judge(&all);
        Ok(all.into_iter().zip(reasons).collect())
    };
    if options.dry_run || !options.yes {
        let judged = judge(&Owner::open(&context.open_read_only()?, name, store)?)?;
        if options.dry_run {
            return print_judged(context, name, &judged);
        }
        let gone: Vec<String> = judged
            .iter()
            .filter(|(_, reason)| reason.is_none())
            .map(|(info, _)| quoted(&full_name(name, info)).into_owned())
            .collect();
        if gone.is_empty() {
            return report_pruned(context, name, &judged);
        }
        let what = format!("destroys {} of {} snapshots: {}", gone.len(), judged.len(), gone.join(", "));
        confirm(context, options.yes, &what, name)?;
    }
    let database = context.open()?;
    let owner = Owner::open(&database, name, store)?;
    let judged = judge(&owner)?;
    for (info, _) in judged.iter().filter(|(_, reason)| reason.is_none()) {
        context.interrupt.check()?;
        owner.delete_snapshot(&info.name)?;
    }
    drop(owner);
    database.close()?;
    report_pruned(context, name, &judged)
}

/// Tells what was destroyed, and what stays although no number asks for it.
fn report_pruned(context: &Context, dataset: &[u8], judged: &[Verdict]) -> anyhow::Result<()> {
    let output = &context.output;
    for (info, reason) in judged {
        let why = match reason {
            Some(KeepReason::Held) => format!("it is held by {}", names(&info.holds)),
            Some(KeepReason::Cloned) => format!("it is cloned by {}", names(&info.clones)),
            Some(KeepReason::Receiving) => "changes to it are received in part".into(),
            _ => continue,
        };
        output.note(&format!("snapshot {} stays: {why}", quoted(&full_name(dataset, info))));
    }
    let destroyed = judged.iter().filter(|(_, reason)| reason.is_none()).count();
    output.note(&format!("destroyed {destroyed} of {} snapshots", judged.len()));
    if output.json { print_judged(context, dataset, judged) } else { Ok(()) }
}

fn print_judged(context: &Context, dataset: &[u8], judged: &[Verdict]) -> anyhow::Result<()> {
    let rows = judged.iter().map(|(info, reason)| {
        vec![
            Cell::Text(text::escaped(&full_name(dataset, info))),
            Cell::Text(created(info)),
            Cell::Bytes(info.unique),
            Cell::Text(reason.map_or_else(|| "-".into(), |reason| reason.to_string())),
        ]
    });
    let json: Vec<_> = judged
        .iter()
        .map(|(info, reason)| Judged {
            name: JsonBytes(&info.name, Encoding::Utf8),
            created: created(info),
            used: info.unique,
            kept: reason.map(|reason| reason.to_string()),
        })
        .collect();
    context.output.table(&["NAME", "CREATED", "USED", "KEPT"], rows.collect(), &json)
}
