//! kill -9 again and again: a process that writes, a model outside of it, and damage now and then.
//!
//! ```text
//!   Killer ── spawns ──▶ betree-writer ──▶ pool files
//!     │  ◀── "open", "closing" ──┘  └─ number of each synced batch ──▶ oracle file
//!     │ kill -9 while it opens, writes or closes
//!     └─▶ opens the pool, reads it whole, compares with the model, verifies; damages a copy
//! ```
//!
//! Batch `n` of a seed is always the same, so the state after `n` batches is known without the writer. What is found must be
//! the state after some number of batches, at least as many as the oracle says.

mod damage;
mod killer;
mod numbers;
mod plan;
mod writer;

pub use killer::{Killer, Tally};
pub use numbers::Numbers;
pub use plan::Plan;
pub use writer::write;
