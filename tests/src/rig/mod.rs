//! The crash rig: a random workload on simulated disks, a model beside it, and every crash that the disks allow.
//!
//! ```text
//!   seed ─▶ Workload ─▶ Machine ──────────▶ Database ──▶ SimDisk … SimDisk ── SimClock
//!              │           │ the same                        │ history of all writes and flushes
//!              │           ▼                                  ▼
//!              │        Timeline: state after every       crash at operation n: disks that may be left
//!              │        operation, what was durable when          │
//!              │           └──────────────▶ legal states ◀── open, read everything, verify
//!              │                                                  │ write on, sync
//!              └──────────────────────────────────────────────────┴─▶ crash again, inside of the recovery too
//! ```
//!
//! # What is demanded of every state after a crash
//!
//! R1. It opens, and the report knows of no rollback: no crash looks like a loss.
//! R2. What it holds is the state after some number of the operations: none left out, no batch in part.
//! R3. Everything that was acknowledged as durable is among them.
//! R4. [`betree::Database::verify`] finds nothing, and single reads agree with the scan.
//! R5. It takes writes, and what is synced then survives the next crash, also one within this recovery.
//!
//! # Repeating a failure
//!
//! A [`Failure`] names the seed of its workload. `BETREE_SEED=<seed> BETREE_CRASH_STATES=1` runs that workload alone,
//! with the same crashes.

mod campaign;
mod endurance;
mod exhaustive;
mod explore;
pub mod faults;
mod layout;
mod machine;
mod misfortune;
mod model;
pub mod panics;
mod plug;
mod recipe;
mod stores;
mod timeline;
mod trial;
mod workload;

pub use campaign::{Campaign, Tally};
pub use endurance::{Endurance, Ill};
pub use exhaustive::{Exhaustive, Tried};
pub use explore::{Explorer, Visit};
pub use layout::Layout;
pub use machine::{Machine, scan, view};
pub(crate) use machine::{add, contents};
pub use misfortune::{Misfortune, Misfortunes};
pub use model::{Arrival, COUNTS, Change, Count, Operation, State, Value};
pub use plug::Plug;
pub use recipe::Recipe;
pub use stores::{Object, ObjectChange, Objects, Store, StoreArrival, StoreOperation};
pub use timeline::{Step, Timeline};
pub use trial::{Class, Counts, Ending, Trial};
pub use workload::Workload;

use std::fmt;

/// What was not as demanded, with what repeats it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Failure {
    /// A failure of what is shown.
    pub fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }

    /// The same, with `context` before it.
    #[must_use]
    pub fn within(self, context: impl fmt::Display) -> Self {
        Self(format!("{context}: {}", self.0))
    }
}

/// A number from the environment.
#[must_use]
pub fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.replace('_', "").parse().ok())
}
