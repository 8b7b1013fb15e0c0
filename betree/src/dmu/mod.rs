//! Data management: extents, allocation, generations, checksums, cache.

mod allocator;
#[expect(clippy::module_inception, reason = "the unit is what this module is about")]
mod dmu;
mod error;
mod queue;

pub use allocator::{Privilege, Stream};
pub use dmu::{Dmu, PendingRead, WriteBatch};
pub use error::DmuError;
pub use queue::{IoQueue, JobGroup, PendingJob};
