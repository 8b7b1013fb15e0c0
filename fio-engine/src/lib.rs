//! The fio engine, without fio: its files as objects or keys of a database.
//!
//! ```text
//!   fio ─ shim.c ─ engine.h ─▶ boundary     one function for each thing that fio asks for
//!                                 │
//!                                 ▼
//!                                job        a job of fio: how it writes, its threads, its snapshots
//!                             │   │   │
//!              workers, reads ◀───┘   └───▶ target    a file of fio: an object, or keys of a dataset
//!                                 │            │
//!                                 ▼            ▼
//!                              registry ─ the databases that this process has open, each with its jobs
//!                                 │
//!                               place       where a job wants its database
//! ```
//!
//! The shim translates structures of fio and decides nothing else; here nothing is known of fio. So this crate is built and tested
//! without fio's headers, under the licence of the library, and the shim under that of fio.
//!
//! # Invariants
//!
//! * **F1 No panic crosses.** Every exported function is a call of [`boundary`], which makes an errno of a panic.
//! * **F2 Nothing is swallowed.** What fails is an errno, at the request that failed; what is read beyond the end of a file is not
//!   counted as read.
//! * **F3 One database for a place.** The jobs of one process share it; it is closed when the last of them ends, or when the
//!   process does.
//! * **F4 A request has its buffer.** fio leaves the buffer of a request alone until the request was handed back.
//! * **F5 Nothing is lost silently.** Devices that hold something else are not formatted.
//!
//! # Locks
//!
//! Registry → files of a database → the header of a file of keys. The queues of a job's threads are innermost.

mod boundary;
mod errno;
mod job;
mod keys;
mod object;
mod place;
mod reads;
mod registry;
mod request;
mod shared;
mod snapshots;
mod target;
mod workers;
