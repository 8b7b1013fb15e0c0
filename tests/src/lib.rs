//! What the tests of the whole share; the tests themselves are the one binary `tests/suite`.
//!
//! * [`seeds`]: random sequences and how a failure is repeated.
//! * [`tidy`]: rules that the sources must keep, checked by reading them.

pub mod seeds;
pub mod tidy;
