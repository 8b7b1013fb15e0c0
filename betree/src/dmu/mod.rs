//! Data management: extents, allocation, generations, checksums, cache.

mod allocator;
mod bitmap;
mod cache;
mod commit;
mod copies;
#[expect(clippy::module_inception, reason = "the unit is what this module is about")]
mod dmu;
mod error;
mod extent_list;
mod format;
mod layout;
mod lifetime;
mod queue;
mod segment;
mod segments;
mod space;
mod table;

pub use allocator::{Allocator, Privilege, Stream};
pub use cache::{Admission, Cache, CacheStatistics, Charge, Evictable};
pub use dmu::{Dmu, DmuOptions, PendingRead, WriteBatch};
pub use error::DmuError;
pub use extent_list::StoredExtents;
pub use format::{SEGMENT_BLOCKS_MAX, SEGMENT_BLOCKS_MIN};
pub use layout::VdevGeometry;
pub use lifetime::{Keeper, OwnedExtents};
pub use queue::{IoQueue, JobGroup, PendingJob};
pub use space::{TierSpace, VdevSpace};
pub use table::SeenGenerations;
