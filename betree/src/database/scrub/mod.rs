//! Scrub and resilver: a walk that looks at everything a database holds, once, while it is used.
//!
//! ```text
//!   ground     root tree · chunks of dead lists · table root · table pages · bitmaps
//!   dataset 1  snapshot a │ snapshot b │ … │ head │ pending drops
//!              (o, a]       (a, b]           (…, g]              births; o: the origin of a clone, 0 without one
//!   dataset 2  …
//!        │ what is found: extents, checksums, who they belong to
//!        ▼
//!   tasks ── several at once ──▶ dmu ── windows ──▶ pool: every copy read, judged, mended
//! ```
//!
//! It begins with a checkpoint, of generation g, and looks at what that holds. What is born later is of no interest: it was
//! just written. A *scrub* compares all copies and mends what is wrong. A *resilver* is the same walk for one member that
//! lacks something: it looks at what was born since, and writes it there.
//!
//! # Invariants
//!
//! * **C1 Held.** What is looked at is held, as by a reader: it is not given to anybody else before the looking is done, so
//!   that what is mended is never what somebody else has written meanwhile. So are the maps of vdevs that left. Bitmaps and
//!   pages are looked at while no checkpoint can begin to write any.
//! * **C2 Once.** An extent that was born up to a snapshot p and is reached by a later state of the same dataset is reached
//!   by p. So each tree has its predecessor as its floor, and nothing must be remembered of what was seen. While nothing
//!   changes, exactly what is allocated is visited, each extent once; changes may lead to a second visit, never to none.
//! * **C3 In steps.** A version is held for one step, so that the space that dies meanwhile is not kept for long. A step
//!   begins while no checkpoint is being written: the order of snapshots and the head belong together.
//! * **C4 Behind the position.** The position that a checkpoint records lies behind nothing that was not looked at, nor
//!   mended; the checkpoint flushes what was mended.
//! * **C5 Moves are seen again.** Datasets that get snapshots or trees of others meanwhile are visited once more at the end.
//! * **C6 Declared last.** A member is whole when everything is there that two checkpoints behind the walk reach: those that
//!   the pool may be opened at.
//!
//! # What it does not do
//!
//! It does not check what bytes mean, nor the log, which the next opening reads: that is for a check of the pool from outside.
//! Nor does it look at superblocks and labels, which are written anew in turns, nor at copies in memory tiers.

mod copying;
mod format;
mod pass;
mod places;
mod resilver;
mod scrubs;
mod status;
mod tasks;
#[cfg(test)]
mod tests;

pub(super) use copying::{Copying, Lap};
pub(crate) use format::{SCRUBS, ScrubRecord, scrub_key};
pub(super) use scrubs::{Scrubs, busy, now};
pub use status::{ResilverStatus, ScrubFinding, ScrubState, ScrubStatus};
