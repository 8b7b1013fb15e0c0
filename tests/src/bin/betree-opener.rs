//! A process that has a pool open: how tests of locks get a second one.
//!
//! Arguments: `write`, `read` or `create`, then pool files, all of one tier. Opens the pool, prints `open`, and closes it
//! when standard input ends. Otherwise prints the kind of the error and its message, and exits with 1.

use betree::{
    AccessMode, Database, DatabaseConfiguration, LeafVdev, StoragePoolConfiguration, TierConfiguration,
};
use std::io::Read;
use std::process::ExitCode;

fn open(mode: &str, files: &[String]) -> betree::Result<Database> {
    let vdevs = files.iter().map(|file| LeafVdev::file(file).into()).collect();
    let configuration = DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: vec![TierConfiguration::new(vdevs)],
            ..StoragePoolConfiguration::default()
        },
        ..DatabaseConfiguration::default()
    };
    match mode {
        "read" => Database::open_read_only(configuration),
        "write" => Database::open_with(configuration),
        "create" => Database::build(DatabaseConfiguration {
            access_mode: AccessMode::AlwaysCreateNew,
            ..configuration
        }),
        _ => Err(betree::Error::InvalidArgument { what: "mode", reason: mode.to_owned() }),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, files @ ..] = &arguments[..] else {
        eprintln!("usage: betree-opener write|read|create POOL…");
        return ExitCode::from(2);
    };
    let database = match open(mode, files) {
        Ok(database) => database,
        Err(error) => {
            println!("{:?} {error}", error.kind());
            return ExitCode::FAILURE;
        }
    };
    println!("open");
    let mut rest = Vec::new();
    let waited = std::io::stdin().read_to_end(&mut rest);
    match (waited, database.close()) {
        (Ok(_), Ok(())) => ExitCode::SUCCESS,
        (waited, closed) => {
            eprintln!("{waited:?}, {closed:?}");
            ExitCode::FAILURE
        }
    }
}
