//! A tiered object storage stack on copy-on-write Bε-trees.

pub mod base;
pub mod database;
pub mod dmu;
pub mod inspect;
pub mod log;
pub mod object;
pub mod pool;
pub mod run;
pub mod tree;
pub mod vdev;

pub use base::compression::Compression;
pub use base::preference::StoragePreference;
pub use database::{
    AccessMode, ArrivedRead, BATCH_BYTES_MAX, Batch, BegunRead, Database, DatabaseConfiguration,
    DatabaseView, Dataset, DatasetConfiguration, DatasetView, Difference, Differences, Durability, Entries,
    Error, ErrorKind, EvacuationState, EvacuationStatus, KEY_BYTES_MAX, KeepReason, MESSAGE_BYTES_MAX,
    Metrics, ReadQueue, ReceiveOptions, ReceiveReport, Received, ResilverStatus, Result, ResumeToken,
    Retention, ScrubFinding, ScrubState, ScrubStatus, SendOptions, SendReport, Snapshot, SnapshotInfo,
    StorageInfo, StreamError, StreamInfo, StreamKind, StreamPart, Unfinished, VALUE_BYTES_MAX, VerifyReport,
};
pub use object::{
    AsyncObjectStore, CHUNK_BYTES, Chunks, Condition, ListOptions, METADATA_KEY_BYTES_MAX,
    METADATA_VALUE_BYTES_MAX, MetadataEntries, OBJECT_BYTES_MAX, OBJECT_NAME_BYTES_MAX,
    OBJECT_WRITE_BYTES_MAX, ObjectBatch, ObjectCursor, ObjectHandle, ObjectInfo, ObjectPage, ObjectStore,
    ObjectView, Objects, Pending, SendPart, StoreSnapshot, StoreView, Version,
};
pub use pool::{
    ConfigurationError, ErrorCounts, FileLeaf, LeafVdev, MemberState, MemberStatus, OpenReport,
    PreferredAccessType, SpareUse, StorageKind, StoragePoolConfiguration, TierConfiguration, Vdev,
    VdevHealth, VdevKind, VdevStatus,
};
pub use tree::{
    DefaultMessageAction, MergePolicy, MessageAction, Migrated, PartRead, TreeStats, Value, ValuePart,
};
