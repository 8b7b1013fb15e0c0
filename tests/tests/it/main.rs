//! Tests of the whole database.

mod crash;
mod evacuation;
mod faults;
mod layouts;
mod redundancy;
mod rules;
