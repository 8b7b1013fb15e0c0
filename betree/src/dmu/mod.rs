//! Data management: extents, allocation, generations, checksums, cache.

mod allocator;
mod cache;
#[expect(clippy::module_inception, reason = "the unit is what this module is about")]
mod dmu;
mod error;
mod queue;

pub use allocator::{Privilege, Stream};
pub use cache::{Admission, Cache, CacheStatistics, Charge, Evictable};
pub use dmu::{Dmu, PendingRead, WriteBatch};
pub use error::DmuError;
pub use queue::{IoQueue, JobGroup, PendingJob};
