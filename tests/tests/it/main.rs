//! Tests of the whole database.

mod crash;
mod faults;
mod layouts;
mod redundancy;
mod rules;
