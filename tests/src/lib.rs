//! What the tests of the whole share; the tests themselves are the one binary `tests/suite`.
//!
//! * [`tidy`]: rules that the sources must keep, checked by reading them.

pub mod tidy;
