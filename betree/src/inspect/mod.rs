//! Looking at a pool from outside: the offline check, older checkpoints, salvage, and the repairs that cannot lose data.
//!
//! ```text
//!   check ─┬─ P0 devices    every slot of every label area, against each other
//!          ├─ P1 roots      the newest root record and its table, then those of the fallback
//!          ├─ P2 walk       nodes ── runs ── large values, from pointers alone
//!          ├─ P3 ownership  who owns which block; against the bitmaps         P5 the counts beside them
//!          ├─ P4 catalogue  names, ids, pending drops, snapshots
//!          │     lists      dead lists, against what snapshots and heads reach
//!          │     stores     objects against their chunks
//!          ├─ P6 journal    the log behind the cut
//!          └─ P7 cross      the whole contents read twice, by the database and by `reading`
//!                │
//!             Ledger ──► CheckReport: findings, each with a stable code (`code`) and a place (`finding`)
//!
//!   generations   what is in the ring, and opening it as it stands
//!   salvage       `reading` over what is left, with what was left out
//!   repair        a plan from a report; leaks, counts and slots; check again
//! ```
//!
//! The layers below tell this one what is on the devices through a file `inspection.rs` each: they know their bytes and
//! name what is wrong with them; which invariant that breaks, where, and what it means is decided here.
//!
//! # Rooms
//!
//! | file | subject |
//! |---|---|
//! | `code` | the codes of findings, which scripts may rely on |
//! | `finding` | a finding, its place, the report |
//! | `ledger` | collects findings: no more than asked for, the fallback's apart |
//! | `ground` | pool, reader and geometry that all passes stand on |
//! | `devices`, `roots`, `walk`, `runs`, `lists`, `ownership`, `catalogue`, `stores`, `journal`, `cross` | the passes |
//! | `check` | their order |
//! | `reading`, `merge` | a tree read with whatever is damaged left out |
//! | `generations`, `salvage`, `repair` | what to do then |
//!
//! Mirrors and parity will each bring a pass of their own, and codes whose numbers are kept free
//! (`docs/check.md`).
//!
//! # Invariants
//!
//! * **I1 Nothing is written** but by a repair that was asked for: devices are opened for reading only, under the lock
//!   that keeps writers out.
//! * **I2 Pointers are followed, bitmaps never believed**: what is reached is found from the superblock down, and only
//!   then compared with what is allocated.
//! * **I3 Damage ends nothing but itself**: what lies beside it is still looked at. Pointers that were seen before are
//!   not followed again, so that every walk ends.
//! * **I4 Nothing read is trusted**: it is bounded, checked and never a reason to panic.
//! * **I5 A crash is no damage**: what a crash may leave (a torn slot of the commit under way, an unfinished log tail)
//!   gives no finding.
//! * **I6 A repair never guesses**: it is refused when anything is damaged that it cannot make from a good copy, or from
//!   everything that is reached.
//!
//! # Memory
//!
//! The extents that are reached (24 bytes each) and one bitmap at a time; of findings, no more than asked for.

mod catalogue;
mod check;
mod code;
mod cross;
mod devices;
mod finding;
mod generations;
mod ground;
mod journal;
mod ledger;
mod lists;
mod merge;
mod ownership;
mod reading;
mod repair;
mod roots;
mod runs;
mod salvage;
mod stores;
#[cfg(test)]
mod tests;
mod walk;

pub use check::{CheckOptions, check};
pub use code::{Code, Severity};
pub use finding::{CheckReport, DatasetUsage, Finding, Outcome, Totals};
pub use generations::{GenerationInfo, list_generations, open_generation};
pub use ledger::Progress;
pub use repair::{RepairReport, RepairStep, repair};
pub use salvage::{SalvageReport, Salvaged, salvage};
