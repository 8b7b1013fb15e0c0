//! Tests of the whole database.

mod crash;
