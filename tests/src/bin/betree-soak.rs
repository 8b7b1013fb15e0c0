//! Kills writers for a while: see [`betree_tests::soak`].
//!
//! Arguments: seconds (0: as many as it takes), kills (0: as many as fit), folder. `BETREE_SEED` repeats a run as far as the
//! order of processes can be repeated.

use betree_tests::rig::number_from_environment;
use betree_tests::soak::Killer;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest life of a writer.
const LIFE: Duration = Duration::from_millis(60);
/// Kills between two lines of news.
const NEWS: u64 = 500;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers = arguments.iter().take(2).map(|word| word.parse::<u64>().ok());
    let (Some([Some(seconds), Some(kills)]), Some(folder)) =
        (numbers.collect::<Vec<_>>().first_chunk::<2>().copied(), arguments.get(2))
    else {
        eprintln!("usage: betree-soak SECONDS KILLS FOLDER");
        return ExitCode::from(2);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64);
    let seed = number_from_environment("BETREE_SEED").unwrap_or(now >> 10);
    println!("BETREE_SEED={seed}");
    let writer = std::env::current_exe().unwrap_or_default().with_file_name("betree-writer");
    let mut killer = Killer::new(writer, PathBuf::from(folder), seed, LIFE);
    let until = (seconds > 0).then(|| Instant::now() + Duration::from_secs(seconds));
    let kills = if kills > 0 { kills } else { u64::MAX };
    let mut next = NEWS;
    loop {
        let failure = killer.run(next.min(kills), until).err();
        println!("{}", killer.tally());
        if let Some(failure) = failure {
            eprintln!("{failure}");
            return ExitCode::FAILURE;
        }
        let tally = killer.tally();
        if tally.all_kills() + tally.done >= kills || until.is_some_and(|until| Instant::now() >= until) {
            return ExitCode::SUCCESS;
        }
        next = tally.all_kills() + tally.done + NEWS;
    }
}
