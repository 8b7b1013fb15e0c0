//! Tests of the whole database.

mod crash;
mod faults;
mod rules;
