//! The database.

mod configuration;
mod durability;

pub use configuration::{
    AccessMode, DatabaseConfiguration, DatasetConfiguration, LfuConfig, LfuMode, MergePolicy,
    MetricsConfiguration, MigrationConfig, MigrationPolicies, RlConfig,
};
pub use durability::Durability;
