//! The storage pool: tiers of vdevs, labels and superblocks, block I/O, the error latch.

mod configuration;
mod error;
#[expect(clippy::module_inception, reason = "the pool is what this module is about")]
mod pool;

#[cfg(test)]
pub(crate) use configuration::tests::any_tier;
pub(crate) use configuration::{Bytes, FieldOf, Object, bytes, object};
pub use configuration::{
    ConfigurationError, DeviceHandle, FileLeaf, LeafVdev, PreferredAccessType, StorageKind,
    StoragePoolConfiguration, TierConfiguration, VDEVS_PER_TIER_MAX, Vdev,
};
pub use error::PoolError;
pub use pool::{Pool, TopLevelVdev};
