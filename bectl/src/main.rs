//! `bectl`: works with betree databases from the command line.
//!
//! ```text
//!   main ── args ──► cmd::{db, dataset, kv, store, obj, snapshot, stream, vdev, config}
//!                      │ context: configuration, Database, Ctrl-C
//!                      │ text, lines: bytes as text
//!                      │ folder, workers: files, and threads that share them
//!                      └ output, progress, confirm: standard output and standard error
//! ```
//!
//! 1. Data goes to standard output, everything else to standard error.
//! 2. A command that reads opens the database for reading only, and changes and creates nothing.
//! 3. Only `db init` makes a pool, and only there `--force` can overwrite one; what the configuration says of an access
//!    mode has no effect.
//! 4. What destroys something says what, and goes on with `-y` or the typed name only.
//! 5. A command that wrote has synced before it reports success.
//! 6. Every failure has its exit code: see [`failure`].

mod args;
mod cmd;
mod configuration;
mod confirm;
mod context;
mod failure;
mod folder;
mod interrupt;
mod lines;
mod output;
mod progress;
mod text;
mod workers;

use crate::args::CommandLine;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let CommandLine { global, command } = CommandLine::read();
    let name = command.name();
    start_logger(&global, &Output::new(&global, name.to_owned()));
    let done = Context::new(&global, name).and_then(|context| cmd::run(&context, command));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let (code, _) = failure::exit_code(&error);
            if !matches!(error.downcast_ref(), Some(Failure::OutputClosed)) {
                Output::new(&global, name.to_owned()).fail(&error);
            }
            ExitCode::from(code)
        }
    }
}

/// Messages of the library: warnings, more with `-vv`, or as `RUST_LOG` says.
fn start_logger(global: &args::Global, output: &Output) {
    let level = match global.verbose {
        0 | 1 => "warn",
        2 => "info",
        _ => "debug",
    };
    let color = output.has_color();
    let mut logger = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level));
    logger.format(move |line, record| {
        let level = match record.level() {
            log::Level::Error => "error",
            log::Level::Warn => "warning",
            log::Level::Info => "info",
            log::Level::Debug | log::Level::Trace => "debug",
        };
        if color {
            writeln!(line, "\x1b[1m{level}:\x1b[0m {}", record.args())
        } else {
            writeln!(line, "{level}: {}", record.args())
        }
    });
    logger.init();
}
