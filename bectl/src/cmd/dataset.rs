//! `bectl dataset`: datasets and their trees.

use super::readable::check_no_snapshot;
use super::{Amount, count};
use crate::args::{Create, DatasetCommand};
use crate::confirm::confirm;
use crate::context::Context;
use crate::failure::quoted;
use crate::output::Cell;
use crate::text::{self, Encoding, JsonBytes};
use betree::{DatasetConfiguration, ErrorKind, TreeStats};
use serde::Serialize;

pub fn run(context: &Context, command: DatasetCommand) -> anyhow::Result<()> {
    match command {
        DatasetCommand::Create(options) => create(context, &options),
        DatasetCommand::List => list(context),
        DatasetCommand::Rename { name, new_name } => {
            let database = context.open()?;
            check_no_snapshot(&database, &new_name.0)?;
            database.rename_dataset(&name.0, &new_name.0)?;
            database.sync()?;
            database.close()?;
            context.output.nothing()
        }
        DatasetCommand::Destroy { name, dry_run, yes } => destroy(context, &name.0, dry_run, yes),
        DatasetCommand::Stats { name } => stats(context, &name.0),
    }
}

fn create(context: &Context, options: &Create) -> anyhow::Result<()> {
    let database = context.open()?;
    check_no_snapshot(&database, &options.name.0)?;
    let default = database.configuration().default_dataset.clone();
    let configuration = DatasetConfiguration {
        merge_policy: options.merge_policy.unwrap_or(default.merge_policy),
        fanout: options.fanout.unwrap_or(default.fanout),
        block_size: match options.block_size {
            Some(bytes) => usize::try_from(bytes)?,
            None => default.block_size,
        },
        large_value_size: match options.large_value_size {
            Some(bytes) => usize::try_from(bytes)?,
            None => default.large_value_size,
        },
        leaf_size: options.leaf_size.unwrap_or(default.leaf_size),
        compression: options.compression.or(default.compression),
        storage_preference: options.preference.unwrap_or(default.storage_preference),
        ..default
    };
    database.create_dataset_with(&options.name.0, &configuration)?;
    database.sync()?;
    database.close()?;
    context.output.nothing()
}

/// A dataset in a list. Sizes are of what checkpoints hold; what only the log holds yet is in `memtable_bytes`.
#[derive(Serialize)]
struct Listed<'a> {
    name: JsonBytes<'a>,
    /// Absent for a dataset whose message action this program does not have.
    stats: Option<TreeStats>,
}

fn list(context: &Context) -> anyhow::Result<()> {
    let database = context.open_read_only()?;
    let names = database.datasets()?;
    let mut listed = Vec::new();
    for name in &names {
        context.interrupt.check()?;
        let stats = match database.open_dataset(name) {
            Ok(dataset) => Some(dataset.stats()?),
            Err(error) if error.kind() == ErrorKind::InvalidArgument => None,
            Err(error) => return Err(error.into()),
        };
        listed.push(Listed { name: JsonBytes(name, Encoding::Utf8), stats });
    }
    let rows = listed.iter().map(|Listed { name, stats }| {
        let column = |of: fn(&TreeStats) -> Cell| stats.as_ref().map_or_else(|| Cell::Text("-".into()), of);
        vec![
            Cell::Text(text::escaped(name.0)),
            column(|stats| Cell::Count(stats.messages)),
            column(|stats| Cell::Bytes(stats.stored_bytes + stats.large_bytes)),
            column(|stats| Cell::Bytes(stats.memtable_bytes)),
        ]
    });
    context.output.table(&["NAME", "MESSAGES", "STORED", "IN MEMORY"], rows.collect(), &listed)
}

fn stats(context: &Context, name: &[u8]) -> anyhow::Result<()> {
    let stats = context.open_read_only()?.open_dataset(name)?.stats()?;
    let pairs = [
        ("levels", Cell::Count(stats.levels.into())),
        ("nodes", Cell::Count(stats.nodes)),
        ("leaves", Cell::Count(stats.leaves)),
        ("delta runs", Cell::Count(stats.delta_runs)),
        ("base runs", Cell::Count(stats.base_runs)),
        ("messages", Cell::Count(stats.messages)),
        ("range deletes", Cell::Count(stats.range_deletes)),
        ("stored", Cell::Bytes(stats.stored_bytes)),
        ("raw", Cell::Bytes(stats.raw_bytes)),
        ("large values", Cell::Bytes(stats.large_bytes)),
        ("in memory", Cell::Bytes(stats.memtable_bytes)),
        ("frozen memtables", Cell::Count(stats.frozen_memtables)),
    ];
    context.output.pairs(&pairs, &stats)
}

fn destroy(context: &Context, name: &[u8], dry_run: bool, yes: bool) -> anyhow::Result<()> {
    if dry_run || !yes {
        let lost = content(context, name)?;
        let what = match &lost {
            None => "all that is in it".into(),
            Some(Lost { amount, snapshots: 0 }) => amount.words(context),
            Some(Lost { amount, snapshots }) => {
                format!("{} and its snapshots ({snapshots})", amount.words(context))
            }
        };
        if dry_run {
            context.output.note(&format!("would destroy dataset {} with {what}", quoted(name)));
            return if context.output.json { context.output.data(&lost) } else { Ok(()) };
        }
        confirm(context, yes, &format!("destroys dataset {} with {what}", quoted(name)), name)?;
    }
    let database = context.open()?;
    database.destroy_dataset(name)?;
    database.sync()?;
    database.close()?;
    context.output.nothing()
}

/// What goes with a dataset.
#[derive(Serialize)]
struct Lost {
    #[serde(flatten)]
    amount: Amount,
    snapshots: usize,
}

/// What a dataset holds; `None` when its message action is not ours, so that it cannot be read.
fn content(context: &Context, name: &[u8]) -> anyhow::Result<Option<Lost>> {
    let database = context.open_read_only()?;
    match database.open_dataset(name) {
        Ok(dataset) => {
            let snapshots = dataset.snapshots()?.len();
            Ok(Some(Lost { amount: count(context, dataset.range::<&[u8]>(..))?, snapshots }))
        }
        Err(error) if error.kind() == ErrorKind::InvalidArgument => Ok(None),
        Err(error) => Err(error.into()),
    }
}
