//! Runs the fuzz targets without a fuzzer: `betree-fuzz --list`, or `betree-fuzz SECONDS [TARGET…]`, seconds for each.

use betree_tests::fuzz::{smoke, target, targets};
use betree_tests::rig::number_from_environment;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Inputs between two looks at the clock.
const INPUTS: u64 = 64;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next().unwrap_or_default();
    if first == "--list" {
        targets().iter().for_each(|target| println!("{}", target.name));
        return ExitCode::SUCCESS;
    }
    let wanted: Option<Vec<_>> = arguments.map(|name| target(&name)).collect();
    let (Ok(seconds), Some(wanted)) = (first.parse(), wanted) else {
        eprintln!("usage: betree-fuzz --list | SECONDS [TARGET…]");
        return ExitCode::from(2);
    };
    let wanted = if wanted.is_empty() { targets() } else { wanted };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64);
    let first = number_from_environment("BETREE_SEED").unwrap_or(now >> 10);
    for target in wanted {
        let (begun, mut seed, mut valid) = (Instant::now(), first, 0);
        while begun.elapsed() < Duration::from_secs(seconds) {
            match smoke(&target, seed, INPUTS) {
                Ok(more) => valid += more,
                Err(failure) => {
                    eprintln!("{failure}");
                    return ExitCode::FAILURE;
                }
            }
            seed = seed.wrapping_add(INPUTS);
        }
        let inputs = seed.wrapping_sub(first);
        println!("{:>16}: {inputs} inputs, {valid} valid, from BETREE_SEED={first}", target.name);
    }
    ExitCode::SUCCESS
}
