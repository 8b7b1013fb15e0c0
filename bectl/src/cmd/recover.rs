//! `bectl recover`: older checkpoints, as they stand.

use crate::args::{Recover, RecoverCommand};
use crate::context::{Context, explain};
use crate::lines::write_line;
use crate::output::Cell;
use crate::progress::Progress;
use crate::text::{self, Encoding, JsonBytes};
use betree::inspect::{self, GenerationInfo};
use serde::Serialize;

/// A checkpoint in JSON.
#[derive(Serialize)]
struct JsonGeneration<'a> {
    generation: u64,
    previous: u64,
    slot: u8,
    copies: usize,
    newest: bool,
    kept: bool,
    datasets: Option<u64>,
    problem: Option<&'a str>,
}

pub fn run(context: &Context, options: &Recover) -> anyhow::Result<()> {
    let active = context.pool_configuration()?;
    let failed = |error: betree::Error| explain(error, &active.source);
    let Some(generation) = options.generation else {
        let all = inspect::list_generations(&active.configuration).map_err(failed)?;
        return list(context, &all);
    };
    let database = inspect::open_generation(active.configuration.clone(), generation).map_err(failed)?;
    match &options.command {
        None => {
            let names = database.datasets()?;
            if context.output.json {
                let names: Vec<_> = names.iter().map(|name| JsonBytes(name, Encoding::Utf8)).collect();
                return context.output.data(&names);
            }
            let mut sink = context.output.sink();
            for name in &names {
                sink.line(&text::escaped(name))?;
            }
            sink.finish()
        }
        Some(RecoverCommand::Dump { name, format }) => {
            let dataset = database.open_dataset(&name.0)?;
            let progress = Progress::start(&context.output, "dumping", None);
            let mut sink = context.output.sink();
            let mut line = String::new();
            for entry in dataset.range::<&[u8]>(..) {
                context.interrupt.check()?;
                let (key, value) = entry?;
                line.clear();
                write_line(*format, (Encoding::Utf8, Encoding::Utf8), &key, &value, &mut line)?;
                sink.bytes(line.as_bytes())?;
                progress.entry(line.len() as u64);
            }
            sink.finish()
        }
    }
}

fn list(context: &Context, all: &[GenerationInfo]) -> anyhow::Result<()> {
    let rows = all.iter().map(|info| {
        let state = match (info.newest, info.kept) {
            (true, _) => "newest",
            (false, true) => "kept",
            (false, false) => "old",
        };
        let opens = match (&info.problem, info.datasets) {
            (Some(problem), _) => problem.clone(),
            (None, Some(datasets)) => format!("{datasets} dataset(s)"),
            (None, None) => String::new(),
        };
        vec![
            Cell::Count(info.generation),
            Cell::Text(state.into()),
            Cell::Count(u64::from(info.slot)),
            Cell::Count(info.copies as u64),
            Cell::Text(opens),
        ]
    });
    let json: Vec<JsonGeneration<'_>> = all
        .iter()
        .map(|info| JsonGeneration {
            generation: info.generation,
            previous: info.previous,
            slot: info.slot,
            copies: info.copies,
            newest: info.newest,
            kept: info.kept,
            datasets: info.datasets,
            problem: info.problem.as_deref(),
        })
        .collect();
    context.output.table(&["GENERATION", "STATE", "SLOT", "COPIES", "OPENS"], rows.collect(), &json)
}
