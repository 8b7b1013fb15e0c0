//! All decoders behind one target: an hour for all of them instead of one for each. The fuzzer finds out by itself which of
//! them have something left to find.

use super::decoder_targets;
use betree::base::fuzzing::Target;
use std::sync::LazyLock;

/// The first byte says which decoder takes the others.
pub const TARGET: Target = Target { name: "decoders", seeds, run };

static TARGETS: LazyLock<Vec<Target>> = LazyLock::new(|| decoder_targets().collect());

fn seeds() -> Vec<Vec<u8>> {
    let numbered = TARGETS.iter().zip(0_u8..);
    numbered
        .flat_map(|(target, number)| {
            (target.seeds)().into_iter().map(move |seed| [&[number][..], &seed].concat())
        })
        .collect()
}

fn run(bytes: &[u8]) -> bool {
    let Some((number, bytes)) = bytes.split_first() else { return false };
    TARGETS.get(usize::from(*number)).is_some_and(|target| (target.run)(bytes))
}
