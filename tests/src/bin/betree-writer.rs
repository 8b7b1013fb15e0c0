//! A writer to be killed: see [`betree_tests::soak`]. Arguments: those of a plan.

use betree_tests::soak::{Plan, write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(plan) = Plan::from_words(&arguments) else {
        eprintln!("usage: betree-writer FOLDER SEED TIERS DIRECT");
        return ExitCode::from(2);
    };
    match write(&plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
