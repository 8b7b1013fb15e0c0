//! The database: datasets on trees, one log, checkpoints.

mod batch;
mod catalog;
mod checkpoint;
mod commit;
mod configuration;
mod core;
#[expect(clippy::module_inception, reason = "the database is what this module is about")]
mod database;
mod dataset;
mod durability;
mod error;
mod format;
mod limits;
mod metrics;
mod record;
mod recovery;
mod verify;
mod view;
mod worker;

pub use crate::pool::ConfigurationError;
pub use batch::Batch;
pub use configuration::{
    AccessMode, DatabaseConfiguration, DatasetConfiguration, LfuConfig, LfuMode, MetricsConfiguration,
    MigrationConfig, MigrationPolicies, RlConfig,
};
pub use database::{Database, StorageInfo};
pub use dataset::Dataset;
pub use durability::Durability;
pub use error::{Error, ErrorKind, Result};
pub use limits::{BATCH_BYTES_MAX, KEY_BYTES_MAX, MESSAGE_BYTES_MAX, VALUE_BYTES_MAX};
pub use metrics::Metrics;
pub use verify::VerifyReport;
pub use view::{DatabaseView, DatasetView, Entries};
