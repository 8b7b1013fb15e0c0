//! Runs the same workloads on betree and on its peers, in one run, and compares.
//!
//! ```text
//!   main ── round 1 ── load_random ── child: betree ── child: rocksdb
//!        │           ├ get_warm    ── child: betree ── child: rocksdb      interleaved
//!        │           └ …
//!        ├─ round 2 ── …
//!        └─ medians over the rounds, ratios betree / peer
//! ```
//!
//! * [`arguments`]: what the command line says.
//! * [`plan`]: rounds, the order of the workloads, one child process per engine and workload.
//! * [`workload`]: the workloads themselves; every read is checked against what was written.
//! * [`engine`]: what a workload needs of an engine; `engine_betree`, `engine_rocksdb`.
//! * [`keys`], [`random`]: keys, values and choices that any process can compute again.
//! * [`histogram`], [`counters`], [`report`]: latencies, the system's counters, the tables.
//!
//! Rules of the comparison:
//! 1. Both engines get the same memory for caching, no compression, the same file system, the same order of work.
//! 2. A workload runs in a process of its own: the system counts CPU time, device bytes and peak memory for one
//!    engine alone. The database is closed at its end and opened again by the next.
//! 3. Counters run from the first operation until the database is closed, the clock from the first operation until
//!    the last one, and the final sync of a load, has returned.
//! 4. A wrong answer of an engine ends the run with an error.
//!
//! 5. A figure comes with its spread over the rounds, because interleaving only evens out disturbances that last much
//!    longer than a workload. On a busy machine a sync takes ten times as long from one second to the next, for either
//!    engine: the durable workload says something only where its spread is small.
//!
//! Both engines have the same cache. With `--direct yes`, the default, both read past the page cache of the system, so
//! that this cache is all the memory they have for data; with `--direct no` the page cache serves the misses of both. It
//! is not cleared between workloads.

mod arguments;
mod counters;
mod engine;
mod engine_betree;
#[cfg(feature = "rocksdb")]
mod engine_rocksdb;
mod error;
mod histogram;
mod keys;
mod plan;
mod random;
mod report;
#[cfg(feature = "rocksdb")]
mod rocksdb_ffi;
mod workload;

use arguments::{Arguments, Command};
use error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    match Arguments::parse(std::env::args().skip(1))? {
        Command::Help => {
            print!("{}", arguments::HELP);
            Ok(())
        }
        Command::Compare(arguments) => plan::compare(&arguments),
        Command::Child(task) => plan::run_child(&task),
    }
}
