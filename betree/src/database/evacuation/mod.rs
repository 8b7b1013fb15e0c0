//! Evacuation: a vdev leaves while the database is used.
//!
//! ```text
//!   close ─▶ wait for writers · fill up the log ─▶ checkpoint g
//!     ▲                                               │
//!     │ given up                     ┌────────────────▼──────────────┐
//!     └───────────────────────────── │ walk: all that is in g, copied │ ◀─┐ something is left
//!                                    └────────────────┬──────────────┘   │
//!                                          checkpoint: switch ───────────┘
//!                                                     ▼
//!                                  two checkpoints without the vdev ─▶ its labels are zero
//! ```
//!
//! The walk is that of a scrub (`database::scrub`), whose invariants C1 to C3 hold for it. Copying and the map are of data
//! management (`dmu::evacuation`, `dmu::moved`), the list of vdevs and the labels of the pool.
//!
//! # Invariants
//!
//! * **E1 Nothing new.** Whoever began to allocate before the vdev was closed is waited for: from checkpoint g on nothing is born on it.
//! * **E2 The bitmap decides.** A switch leaves out no block that is taken; the walk goes round as long as there is one.
//! * **E3 Undone or done.** Before the switch is durable the vdev is what it was, to this process and the next one; afterwards nothing of
//!   it is needed but by the checkpoint before. Who opens the database in between goes on: the vdev goes.
//! * **E4 No log, no root.** Neither the log behind a cut nor the root record names blocks of a vdev that left: they are read
//!   before the map is.
//! * **E5 Whole members.** No member is declared whole while copies are made, nor without those that were.

mod evacuations;
mod format;
mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(super) use evacuations::Evacuations;
pub(crate) use format::{EVACUATIONS, EvacuationRecord, evacuation_key};
pub use status::{EvacuationState, EvacuationStatus};
