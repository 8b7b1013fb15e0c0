//! Every fuzz target, with mutations of its seeds and with noise.
//!
//! `BETREE_FUZZ_ITERATIONS` sets the number of inputs of a decoder (the slow targets take a part of it), `BETREE_SEED` the
//! first input; `BETREE_FUZZ_TARGET` runs one target alone.

use betree::base::fuzzing::Target;
use betree_tests::fuzz::{smoke, target, targets};
use betree_tests::rig::{State, Value, number_from_environment};
use std::collections::BTreeSet;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const ITERATIONS: u64 = 60_000;

/// How many inputs of a decoder take as long as one of this target.
fn weight(target: &Target) -> u64 {
    match target.name {
        "operations" | "object_operations" | "image" => 60,
        "run" | "log_replay" | "decoders" => 20,
        "configuration" | "environment" => 10,
        _ => 1,
    }
}

fn run(targets: &[Target]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64);
    let seed = number_from_environment("BETREE_SEED").unwrap_or(now >> 10);
    let iterations = number_from_environment("BETREE_FUZZ_ITERATIONS").unwrap_or(ITERATIONS);
    let wanted = std::env::var("BETREE_FUZZ_TARGET").ok();
    println!("BETREE_SEED={seed}");
    for target in targets.iter().filter(|target| wanted.as_deref().is_none_or(|wanted| wanted == target.name))
    {
        let (inputs, begun) = ((iterations / weight(target)).max(1), Instant::now());
        let valid = smoke(target, seed, inputs).unwrap();
        println!(
            "{:>16}: {inputs} inputs, {valid} valid, in {} ms",
            target.name,
            begun.elapsed().as_millis()
        );
        // A target that refuses all but its seeds would try nothing.
        assert!(valid > 0 || inputs < 500, "{}: no mutation gets through", target.name);
    }
}

#[test]
fn no_decoder_panics_or_accepts_what_it_would_not_write() {
    let all_in_one = target("decoders").unwrap();
    let targets: Vec<_> =
        targets().into_iter().filter(|target| !is_whole(target)).chain([all_in_one]).collect();
    assert!(targets.len() >= 24, "{} targets", targets.len());
    run(&targets);
}

#[test]
fn operations_chosen_by_bytes_agree_with_the_model() {
    run(&targets().into_iter().filter(|target| target.name.ends_with("operations")).collect::<Vec<_>>());
}

/// A run that is killed is compared with its model by fingerprints alone: an entry that is in another dataset than it should
/// be must show. It did not for every second value, which an input of stores found.
#[test]
fn an_entry_in_another_dataset_is_another_state() {
    let state = |key: &str, number: u64, holder: usize| {
        let mut state = State::default();
        for (index, name) in ["s", "t", "u"].iter().enumerate() {
            let entry = (key.as_bytes().to_vec(), Value::new(&number.to_le_bytes()));
            let entries = (index == holder).then_some(entry).into_iter().collect();
            state.datasets.insert(name.as_bytes().to_vec(), entries);
        }
        state.fingerprint()
    };
    let mut seen = BTreeSet::new();
    for number in 0..200 {
        for holder in 0..3 {
            for key in ["a", "b"] {
                assert!(seen.insert(state(key, number, holder)), "{key}, {number}, {holder}");
            }
        }
    }
}

#[test]
fn damaged_pools_open_to_errors_or_to_what_was_written() {
    run(&targets().into_iter().filter(|target| target.name == "image").collect::<Vec<_>>());
}

fn is_whole(target: &Target) -> bool {
    ["operations", "object_operations", "image"].contains(&target.name)
}
