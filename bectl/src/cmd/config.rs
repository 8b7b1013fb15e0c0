//! `bectl config`: configurations as JSON that can be loaded again.

use crate::args::ConfigCommand;
use crate::configuration;
use crate::context::Context;
use anyhow::Context as _;
use betree::DatabaseConfiguration;
use serde::Serialize;
use std::path::Path;

pub fn run(context: &Context, command: &ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::PrintActive => {
            let active = context.configuration()?;
            if context.verbose > 0 {
                context.output.note(&format!("configuration: {}", active.source));
            }
            print(context, &active.configuration)
        }
        ConfigCommand::PrintDefault => print(context, &configuration::default()?),
        ConfigCommand::Validate { file } => validate(context, file),
    }
}

fn print(context: &Context, configuration: &DatabaseConfiguration) -> anyhow::Result<()> {
    if context.output.json {
        return context.output.data(configuration);
    }
    let text = configuration.to_json_string().map_err(betree::Error::from)?;
    let mut sink = context.output.sink();
    sink.bytes(text.as_bytes())?;
    sink.finish()
}

#[derive(Serialize)]
struct Validated<'a> {
    file: String,
    inactive_settings: &'a [String],
}

fn validate(context: &Context, file: &Path) -> anyhow::Result<()> {
    let configuration = DatabaseConfiguration::from_json_file(file).map_err(betree::Error::from)?;
    // A file that cannot be written back would be a file that `print-active` cannot print.
    configuration.to_json_string().map_err(betree::Error::from).context("writing it back")?;
    let inactive = configuration.inactive_settings();
    if configuration.storage.is_empty() {
        context.output.warn("storage.tiers: no vdev; a program may fill them in, bectl cannot");
    }
    if context.output.json {
        return context
            .output
            .data(&Validated { file: file.display().to_string(), inactive_settings: &inactive });
    }
    for setting in &inactive {
        context.output.warn(&format!("{setting} has no effect yet"));
    }
    let mut sink = context.output.sink();
    sink.line(&format!("{}: valid", file.display()))?;
    sink.finish()
}
