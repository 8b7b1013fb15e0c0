//! `bectl store`: object stores as a whole.

use super::obj::names::{JsonAmount, count_objects};
use super::readable::{check_no_store_snapshot, open_store_view};
use crate::args::StoreCommand;
use crate::confirm::confirm;
use crate::context::Context;
use crate::failure::quoted;
use crate::output::Cell;
use crate::text::{self, Encoding, JsonBytes};
use jiff::Timestamp;
use serde::Serialize;

pub fn run(context: &Context, command: StoreCommand) -> anyhow::Result<()> {
    match command {
        StoreCommand::Create { name, preference } => {
            let database = context.open()?;
            check_no_store_snapshot(&database, &name.0)?;
            drop(database.create_object_store_with_pref(&name.0, preference.unwrap_or_default())?);
            database.sync()?;
            database.close()?;
            context.output.nothing()
        }
        StoreCommand::List => list(context),
        StoreCommand::Rename { name, new_name } => {
            let database = context.open()?;
            check_no_store_snapshot(&database, &new_name.0)?;
            database.rename_object_store(&name.0, &new_name.0)?;
            database.sync()?;
            database.close()?;
            context.output.nothing()
        }
        StoreCommand::Destroy { name, dry_run, yes } => destroy(context, &name.0, dry_run, yes),
        StoreCommand::Stats { name } => stats(context, &name.0),
    }
}

/// A store in a list.
#[derive(Serialize)]
struct Listed<'a> {
    name: JsonBytes<'a>,
    created: String,
    preference: String,
    snapshots: usize,
}

fn list(context: &Context) -> anyhow::Result<()> {
    let database = context.open_read_only()?;
    let names = database.object_stores()?;
    let mut listed = Vec::new();
    for name in &names {
        context.interrupt.check()?;
        let store = database.open_object_store(name)?;
        listed.push(Listed {
            name: JsonBytes(name, Encoding::Utf8),
            created: Timestamp::try_from(store.created()).unwrap_or(Timestamp::MAX).to_string(),
            preference: store.storage_preference().to_string(),
            snapshots: store.snapshots()?.len(),
        });
    }
    let rows = listed.iter().map(|store| {
        vec![
            Cell::Text(text::escaped(store.name.0)),
            Cell::Text(store.created.clone()),
            Cell::Text(store.preference.clone()),
            Cell::Count(store.snapshots as u64),
        ]
    });
    context.output.table(&["NAME", "CREATED", "PREFERENCE", "SNAPSHOTS"], rows.collect(), &listed)
}

fn stats(context: &Context, name: &[u8]) -> anyhow::Result<()> {
    let view = open_store_view(&context.open_read_only()?, name)?;
    let amount = count_objects(context, &view, b"")?;
    let pairs = [("objects", Cell::Count(amount.entries)), ("bytes", Cell::Bytes(amount.bytes))];
    context.output.pairs(&pairs, &JsonAmount::from(amount))
}

/// What goes with a store.
#[derive(Serialize)]
struct Lost {
    #[serde(flatten)]
    amount: JsonAmount,
    snapshots: usize,
}

fn destroy(context: &Context, name: &[u8], dry_run: bool, yes: bool) -> anyhow::Result<()> {
    if dry_run || !yes {
        let database = context.open_read_only()?;
        let store = database.open_object_store(name)?;
        let snapshots = store.snapshots()?.len();
        let amount = count_objects(context, &store.view()?, b"")?;
        let mut what = format!("object store {} with {}", quoted(name), amount.objects(context));
        if snapshots > 0 {
            what = format!("{what} and its snapshots ({snapshots})");
        }
        if dry_run {
            context.output.note(&format!("would destroy {what}"));
            let lost = Lost { amount: amount.into(), snapshots };
            return if context.output.json { context.output.data(&lost) } else { Ok(()) };
        }
        confirm(context, yes, &format!("destroys {what}"), name)?;
    }
    let database = context.open()?;
    database.destroy_object_store(name)?;
    database.sync()?;
    database.close()?;
    context.output.nothing()
}
