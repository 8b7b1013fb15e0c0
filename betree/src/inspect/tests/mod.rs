//! The checker under test: pools that break one invariant each, random damage behind right checksums, crashes.

mod clean;
mod copies;
mod evacuation;
mod forge;
mod invariants;
mod mutations;
mod parts;
mod pool;
mod remedies;
