//! What the tests of the whole share; the tests themselves are the one binary `tests/suite`.
//!
//! * [`fuzz`]: what fuzzers run, and a runner that needs none.
//! * [`rig`]: crashes of a database on simulated disks, against a model.
//! * [`soak`]: kill -9 of a real process, again and again.
//! * [`seeds`]: random sequences and how a failure is repeated.
//! * [`tidy`]: rules that the sources must keep, checked by reading them.

pub mod fuzz;
pub mod rig;
pub mod seeds;
pub mod soak;
pub mod tidy;
