//! The commands, one file per noun.

mod check;
mod config;
mod dataset;
mod db;
mod difference;
mod evacuation;
mod init;
mod kv;
mod load;
mod obj;
mod owner;
mod readable;
mod recover;
mod salvage;
mod scrub;
mod snapshot;
mod status;
mod store;
mod stream;
mod vdev;

use crate::args::Command;
use crate::context::Context;
use crate::progress::Progress;
use betree::Entries;
use serde::Serialize;

/// Runs a command.
///
/// # Errors
/// Whatever fails; [`crate::failure::exit_code`] says what it means.
pub fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Db(command) => db::run(context, command),
        Command::Dataset(command) => dataset::run(context, command),
        Command::Kv(kv) => kv::run(context, kv),
        Command::Store(command) => store::run(context, command),
        Command::Obj(obj) => obj::run(context, obj),
        Command::Snapshot(snapshots) => snapshot::run(context, snapshots),
        Command::Clone { snapshot, name, store } => snapshot::clone(context, &snapshot, &name.0, store),
        Command::Promote { name, store } => snapshot::promote(context, &name.0, store),
        Command::Send(options) => stream::send(context, &options),
        Command::Receive(options) => stream::receive(context, &options),
        Command::Config(command) => config::run(context, &command),
        Command::Check(options) => check::run(context, &options),
        Command::Scrub(command) => scrub::run(context, &command),
        Command::Vdev(command) => vdev::run(context, command),
        Command::Recover(options) => recover::run(context, &options),
        Command::Salvage(options) => salvage::run(context, &options),
    }
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Amount {
    /// Keys, or objects.
    entries: u64,
    /// Bytes of keys and values, or of objects.
    bytes: u64,
}

impl Amount {
    /// For a sentence.
    fn words(self, context: &Context) -> String {
        let noun = if self.entries == 1 { "entry" } else { "entries" };
        format!("{} {noun} ({})", self.entries, context.output.size(self.bytes))
    }

    /// The same for objects.
    fn objects(self, context: &Context) -> String {
        let noun = if self.entries == 1 { "object" } else { "objects" };
        format!("{} {noun} ({})", self.entries, context.output.size(self.bytes))
    }
}

/// Counts entries; may be interrupted.
fn count(context: &Context, entries: Entries) -> anyhow::Result<Amount> {
    let progress = Progress::start(&context.output, "counting", None);
    let mut amount = Amount::default();
    for entry in entries {
        context.interrupt.check()?;
        let (key, value) = entry?;
        let bytes = (key.len() + value.len()) as u64;
        amount.entries += 1;
        amount.bytes += bytes;
        progress.entry(bytes);
    }
    Ok(amount)
}
