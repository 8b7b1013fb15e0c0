//! What the tests of the whole share; the tests themselves are the one binary `tests/suite`.
//!
//! * [`rig`]: crashes of a database on simulated disks, against a model.
//! * [`seeds`]: random sequences and how a failure is repeated.
//! * [`tidy`]: rules that the sources must keep, checked by reading them.

pub mod rig;
pub mod seeds;
pub mod tidy;
