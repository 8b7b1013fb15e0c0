//! The tests of the whole, in one binary: one link, and shared helpers without feature tricks.
//!
//! Every module is `#[cfg(test)]`, so that the lints which forbid panics know their helpers as test code.

#[cfg(test)]
mod actions;
#[cfg(test)]
mod api;
#[cfg(test)]
mod check;
#[cfg(test)]
mod concurrency;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod locking;
#[cfg(test)]
mod migration;
#[cfg(test)]
mod model;
#[cfg(test)]
mod objects;
#[cfg(test)]
mod parts;
#[cfg(test)]
mod patches;
#[cfg(test)]
mod pools;
#[cfg(test)]
mod ranges;
#[cfg(test)]
mod read_queue;
#[cfg(test)]
mod real_input;
#[cfg(test)]
mod redundancy;
#[cfg(test)]
mod replication;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod space;
mod store_streams;
#[cfg(test)]
mod threads;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod tiers;
#[cfg(test)]
mod upkeep;
