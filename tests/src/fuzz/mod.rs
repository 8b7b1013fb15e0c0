//! Fuzz targets, and what runs them without a fuzzer.
//!
//! ```text
//!   betree::*::fuzzing   one target for every decoder, behind right checksums ─┐   (and `decoders`, all of these in one)
//!   operations, objects  bytes choose operations on a database, beside a model ├─▶ targets() ─▶ betree/fuzz (libFuzzer)
//!   image                a small pool, damaged, then opened and read whole ────┘            └─▶ smoke(): seeds, mutations
//! ```
//!
//! libFuzzer is guided by coverage and keeps a corpus; [`smoke`] needs nothing but a stable compiler, and runs in the tests.

mod choices;
mod decoders;
mod image;
mod mutate;
mod objects;
mod operations;

use betree::base::fuzzing::Target;
use betree::vdev::SimRng;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use mutate::mutate;

fn decoder_targets() -> impl Iterator<Item = Target> {
    let layers = [
        betree::base::fuzzing::TARGETS,
        betree::pool::fuzzing::TARGETS,
        betree::dmu::fuzzing::TARGETS,
        betree::run::fuzzing::TARGETS,
        betree::tree::fuzzing::TARGETS,
        betree::log::fuzzing::TARGETS,
        betree::database::fuzzing::TARGETS,
        betree::object::fuzzing::TARGETS,
    ];
    layers.into_iter().flatten().copied()
}

/// All targets.
#[must_use]
pub fn targets() -> Vec<Target> {
    decoder_targets().chain([operations::TARGET, objects::TARGET, image::TARGET]).collect()
}

/// The target of this name; `decoders` is all of the first kind in one.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    targets().into_iter().chain([decoders::TARGET]).find(|target| target.name == name)
}

/// Runs `target` with its seeds and with `inputs` inputs made from `seed`: most are mutated seeds, some are noise. Returns
/// how many of the latter it took for valid.
///
/// # Errors
/// The input that made it panic, as hexadecimal digits, and the number that repeats it; a seed that is not valid.
pub fn smoke(target: &Target, seed: u64, inputs: u64) -> Result<u64, String> {
    let seeds = (target.seeds)();
    for (index, bytes) in seeds.iter().enumerate() {
        let refused = |what| format!("{} with its own seed {index}: {what}", target.name);
        // A seed of damage may be refused.
        if !run(target, bytes).map_err(refused)? && target.name != image::TARGET.name {
            return Err(refused(String::from("it is refused")));
        }
    }
    let mut valid = 0;
    for number in 0..inputs {
        // Each input from a seed of its own, so that one can be repeated alone.
        let mut rng = SimRng::new(seed.wrapping_add(number));
        let input = mutate(&seeds, &mut rng);
        valid += u64::from(run(target, &input).map_err(|what| {
            let digits: String = input.iter().take(4096).map(|byte| format!("{byte:02x}")).collect();
            format!(
                "{}: BETREE_SEED={} BETREE_FUZZ_ITERATIONS=1: {what}\n{digits}",
                target.name,
                seed.wrapping_add(number)
            )
        })?);
    }
    Ok(valid)
}

fn run(target: &Target, bytes: &[u8]) -> Result<bool, String> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}
