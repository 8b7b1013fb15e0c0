//! The storage pool: tiers of vdevs, labels and superblocks, block I/O, the error latch.

mod error;
#[expect(clippy::module_inception, reason = "the pool is what this module is about")]
mod pool;

pub use error::PoolError;
pub use pool::{Pool, TopLevelVdev};
