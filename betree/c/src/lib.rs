//! The C interface: `betree.h`, `libbetree.so`, `libbetree.a`.
//!
//! ```text
//!   C program ─ betree.h ─▶ database, dataset, snapshot, store, object, …   one function of Rust behind each of C
//!                                    │
//!                                    ▼
//!                                boundary    NULL, lengths, panics: the one place where pointers become references
//! ```
//!
//! The header is made of these files, in the order of `cbindgen.toml` and of `tests/header.rs`, which also compares it with the
//! one that is committed. Functions that Haura has keep its names.
//!
//! # Invariants
//!
//! * **C1 No panic crosses.** Every exported function is a call of [`boundary`], which catches panics and makes errors of them.
//! * **C2 One owner.** A handle is a `Box` that went out; it comes back to one function, which frees it. It owns what it needs,
//!   so that handles may be freed in any order.
//! * **C3 Shared.** Every handle is `Sync`: all calls but those that free it may be made from several threads at once. What
//!   changes within (iterators, batches, configurations) is behind a lock of its own.
//! * **C4 Numbers, not enums, come in.** A value of C is checked before it becomes one of Rust.
//! * **C5 Nothing half.** Arguments are checked before anything is done; where a call fails, nothing was put out.
//!
//! # What it does not do
//!
//! Message actions of one's own, and futures, are for Rust.

mod batch;
mod boundary;
mod bytes;
mod condition;
mod configuration;
mod database;
mod dataset;
mod error;
mod iterator;
mod listing;
mod logger;
mod metrics;
mod object;
mod object_batch;
mod preference;
mod snapshot;
mod store;
mod store_snapshot;
mod stream;
mod view;

/// Handles may be used by several threads, and freed by any.
const _: () = {
    const fn shared<T: Send + Sync + 'static>() {}
    shared::<batch::Batch>();
    shared::<configuration::Configuration>();
    shared::<database::Database>();
    shared::<dataset::Dataset>();
    shared::<error::Failure>();
    shared::<iterator::Names>();
    shared::<iterator::Entries>();
    shared::<iterator::Differences>();
    shared::<listing::Objects>();
    shared::<listing::Page>();
    shared::<object::Object>();
    shared::<object::Chunks>();
    shared::<object_batch::ObjectBatch>();
    shared::<snapshot::Snapshot>();
    shared::<store::Store>();
    shared::<store_snapshot::StoreSnapshot>();
    shared::<view::DatabaseView>();
    shared::<view::View>();
};
