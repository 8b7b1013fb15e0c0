//! Object stores: named objects of any length, read and written at any offset.
//!
//! ```text
//!   ObjectStore ─ ObjectHandle ─ ObjectCursor       StoreSnapshot ─ StoreView ─ ObjectView
//!        │              │                                           │
//!        │    store state in memory: gate ─ names ─ objects         │
//!        ▼              ▼                                           ▼
//!   ┌── metadata ─────────────────────────┐  ┌── chunks ──────────────────────┐   two datasets of one name,
//!   │ 0 name          → object record     │  │ id, number → up to 128 KiB     │   which `datasets` does not list
//!   │ 1 id, key       → custom metadata   │  │                                │
//!   │ 2 id            → being made        │  └────────────────────────────────┘
//!   │ 3               → the next ticket   │
//!   └─────────────────────────────────────┘
//! ```
//!
//! An object is a record under its name and chunks under its id. A rename moves the record and nothing else; a delete is the
//! record's and one range of chunks, however many there are. What was never written has no chunk, or a short one, and reads
//! as zeros. A small object costs two small entries; chunks that are written whole and have 16 KiB or more get extents of
//! their own, and a part of a chunk is an upsert that reads nothing.
//!
//! # Rooms
//!
//! | file | subject |
//! |---|---|
//! | `format` | keys and records |
//! | `info` | what there is to say about an object; versions |
//! | `state` | what all handles of a store share: locks, open objects, tickets |
//! | `chunk` | which bytes are in which chunk, and the writes that change them |
//! | `edit` | changes of names, all at one instant |
//! | `staging` | objects too large for one batch, invisible until they are whole |
//! | `store`, `handle`, `batch` | what callers hold |
//! | `reader` | records, bytes and lists of one state |
//! | `last_record` | the record that a handle read last |
//! | `read_ahead` | what is read next by who reads in order, within an object and from object to object |
//! | `listing`, `metadata`, `chunks` | iterators |
//! | `migration` | moving objects between tiers |
//! | `cursor` | an object as a stream |
//! | `snapshot` | states that stay |
//! | `stream` | stores on their way to other pools, alone and with datasets |
//! | `condition` | writes that are made only when the object is as expected |
//! | `audit`, `verify` | whether the two datasets say the same |
//! | `asynchronous` | futures |
//!
//! # Invariants
//!
//! * **O1 All or nothing.** Creating, deleting, renaming, copying, putting, a write of up to 16 MiB, and a batch are one batch
//!   of the database each: after a crash, and to every reader, they are there whole or not at all.
//! * **O2 Whose chunks.** Every chunk belongs to an id that a record names, or that is marked as being made. Whoever takes the
//!   first id after opening removes what is marked.
//! * **O3 No id twice.** Ids and versions are tickets, taken from one counter that only goes up, over crashes, clones and
//!   rollbacks too: a handle of a deleted object never reads or writes another one, and no two states of an object have
//!   one version.
//! * **O4 Nothing behind the end.** No chunk holds bytes at or behind the size of its object, so that growing it shows zeros.
//! * **O5 One order.** The record of an object is made under the commit lock: its size, time and version are those of the
//!   writes in the order in which they were committed, and the later of two overlapping writes wins.
//!
//! # Locks
//!
//! Gate of the store → stripes of names, in order → objects, by id → tickets → those of the database → the record in memory of
//! an object. Readers take none but that of what they read ahead, which nobody waits for; and they wait for the gate while the
//! store goes back to a snapshot or becomes what was received. A write takes the lock of its object shared, and alone when it
//! makes the object longer by a part of a chunk; deleting, renaming, truncating and punching holes take it alone.
//!
//! # What it does not do
//!
//! It does not lock for callers, keep old versions of objects beside those in snapshots, or know who may do what.

mod asynchronous;
pub(crate) mod audit;
mod batch;
mod chunk;
mod chunks;
mod condition;
mod cursor;
mod edit;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod info;
mod last_record;
mod listing;
mod metadata;
mod migration;
mod read_ahead;
mod reader;
mod snapshot;
mod staging;
mod state;
mod store;
mod stream;
mod verify;

pub use asynchronous::{AsyncObjectStore, Pending};
pub use batch::ObjectBatch;
pub use chunks::Chunks;
pub use condition::Condition;
pub use cursor::ObjectCursor;
pub use format::CHUNK_BYTES;
pub use handle::ObjectHandle;
pub use info::{ObjectInfo, Version};
pub use listing::{ListOptions, ObjectPage, Objects};
pub use metadata::MetadataEntries;
pub use snapshot::{ObjectView, StoreSnapshot, StoreView};
pub use store::{
    METADATA_KEY_BYTES_MAX, METADATA_VALUE_BYTES_MAX, OBJECT_BYTES_MAX, OBJECT_NAME_BYTES_MAX,
    OBJECT_WRITE_BYTES_MAX, ObjectStore,
};
pub use stream::SendPart;
