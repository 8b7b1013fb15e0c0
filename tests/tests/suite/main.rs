//! The tests of the whole, in one binary: one link, and shared helpers without feature tricks.
//!
//! Every module is `#[cfg(test)]`, so that the lints which forbid panics know their helpers as test code.

#[cfg(test)]
mod damage;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod model;
#[cfg(test)]
mod real_input;
#[cfg(test)]
mod space;
#[cfg(test)]
mod tidy;
