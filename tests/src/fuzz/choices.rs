//! Bytes that choose operations, and the run of a small database that follows them beside a model.

use crate::rig::{Layout, Machine, Operation, State, scan};

/// Reads the bytes of an input; behind its end everything is zero.
pub(super) struct Choices<'a> {
    bytes: &'a [u8],
    /// Counts what was written, so that no two are alike.
    pub written: u64,
}

impl Choices<'_> {
    pub fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }
}

/// Valid inputs, from which mutations start: one for each layout.
pub(super) fn seeds(seed: u64, bytes: usize) -> Vec<Vec<u8>> {
    let mut rng = betree::vdev::SimRng::new(seed);
    (0..4).map(|layout| [vec![layout], (0..bytes).map(|_| rng.next_u64() as u8).collect()].concat()).collect()
}

#[expect(clippy::panic, reason = "a target panics when it finds something")]
fn demand<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|failure| panic!("{failure}"))
}

/// The layout and the shape are chosen first, then up to so many operations; `None` is one that makes no sense now.
pub(super) fn follow(
    bytes: &[u8],
    operations_max: usize,
    choose: impl Fn(&mut Choices<'_>, &State) -> Option<Operation>,
) -> bool {
    let mut choices = Choices { bytes, written: 0 };
    let layout = Layout::ALL[usize::from(choices.next()) % Layout::ALL.len()];
    let mut machine = demand(Machine::create(layout, u64::from(choices.next())));
    let check = |machine: &Machine| {
        let found = machine.database().and_then(scan);
        assert!(
            found == Ok(machine.timeline().newest().fingerprint()),
            "the database differs from the model: {found:?}"
        );
        let verified = machine.database().map(betree::Database::verify);
        assert!(matches!(verified, Ok(Ok(_))), "{verified:?}");
    };
    for count in 0.. {
        if choices.bytes.is_empty() || count == operations_max {
            break;
        }
        let Some(operation) = choose(&mut choices, machine.timeline().newest()) else { continue };
        demand(machine.run(&operation));
        if matches!(operation, Operation::Reopen | Operation::Checkpoint | Operation::Kill) {
            check(&machine);
        }
    }
    check(&machine);
    true
}
