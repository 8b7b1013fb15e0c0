//! kill -9 of a real process, with an oracle outside of the store.
//!
//! `BETREE_KILLS` sets the number of kills, `BETREE_SEED` the batches and how long each life lasts.

use betree_tests::rig::number_from_environment;
use betree_tests::soak::Killer;
use std::time::Duration;

const KILLS: u64 = 200;

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let seed = number_from_environment("BETREE_SEED").unwrap_or(7);
    println!("BETREE_SEED={seed}");
    let writer = env!("CARGO_BIN_EXE_betree-writer").into();
    let mut killer = Killer::new(writer, folder.path().to_owned(), seed, Duration::from_millis(40));
    let result = killer.run(number_from_environment("BETREE_KILLS").unwrap_or(KILLS), None);
    println!("{}", killer.tally());
    if let Err(failure) = result {
        // For whoever wants to look.
        let kept = folder.keep();
        panic!("{failure}; the pool is in {}", kept.display());
    }
    let tally = killer.tally();
    assert!(tally.batches > tally.all_kills(), "writers hardly wrote: {tally}");
}
