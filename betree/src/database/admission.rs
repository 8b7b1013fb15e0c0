//! Space for what is being written: who may take of it, and how it is made when it runs short.
//!
//! ```text
//!  write ─► credit left? ─► commit
//!             │ no
//!             ▼
//!           measure: free − reserve ≥ what the write needs?  ─► commit, new credit
//!             │ no
//!             ▼
//!           reclaim: checkpoints, pending drops, then leaf by leaf ─► measure again ─► commit, or OutOfSpace
//! ```
//!
//! A write is refused before anything changes. The reserve follows from what is in memory (see [`Scale::reserve`]): deletes
//! may use of it what merges do not need, merges what flushes of memtables and checkpoints do not need, and range deletes
//! are always taken, so that a full pool can always be emptied.
//!
//! [`Scale::reserve`]: super::limits::Scale::reserve

use super::catalog::DatasetState;
use super::commit::Write;
use super::core::Core;
use super::error::{Error, Result};
use crate::base::preference::{StoragePreference, TIER_COUNT};
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use crate::base::units::{BLOCK_BYTES_U64, blocks_for};
use crate::dmu::Privilege;
use crate::run::Kind;
use crate::tree::Job;

/// How often a reclaim goes through all leaves, at the most.
const PASSES_MAX: usize = 8;
/// How often a leaf is tried with what checkpoints have freed since.
const ATTEMPTS_MAX: usize = 4;

/// How far writes may go before space is looked at again, per storage class.
#[derive(Debug, Default)]
pub(super) struct Admission {
    credit: [AtomicI64; TIER_COUNT],
    /// One writer at a time finds out what is left.
    measuring: Mutex<()>,
    /// One reclaim at a time.
    pub(super) reclaiming: Mutex<()>,
    /// Of users' writes and of deletes: one more than the deletes at the last reclaim that freed too little, 0 without
    /// one. Another one is of no use before something is deleted.
    gave_up_at: [AtomicU64; 2],
    deletes: AtomicU64,
}

impl Admission {
    /// Something was deleted: reclaiming may free more than before.
    pub fn note_delete(&self) {
        self.deletes.fetch_add(1, Ordering::Relaxed);
    }

    /// A sync rounds the log up to whole blocks, which no write was counted for.
    pub fn note_sync(&self) {
        for credit in &self.credit {
            credit.fetch_sub(2 * BLOCK_BYTES_U64 as i64, Ordering::Relaxed);
        }
    }

    fn gave_up_at(&self, privilege: Privilege) -> &AtomicU64 {
        &self.gave_up_at[usize::from(privilege != Privilege::User)]
    }

    fn gave_up(&self, privilege: Privilege) -> bool {
        let deletes = self.deletes.load(Ordering::Relaxed);
        self.gave_up_at(privilege).load(Ordering::Relaxed) == deletes + 1
    }

    fn give_up(&self, privilege: Privilege) {
        let deletes = self.deletes.load(Ordering::Relaxed);
        self.gave_up_at(privilege).store(deletes + 1, Ordering::Relaxed);
    }
}

impl Core {
    /// Reserves the space that `writes` need until they are in their leaves, or refuses them before anything changes.
    ///
    /// # Errors
    /// Out of space, naming the first tier of the class that has too little; whatever a reclaim meets.
    pub fn admit(&self, writes: &[Write<'_>]) -> Result<()> {
        // Of each class, the bytes and the most that one of its writes may ask for.
        let mut classes = [(0, Privilege::System); TIER_COUNT];
        for write in writes {
            let (dataset, preference, privilege) = match write {
                Write::Message { dataset, kind: Kind::Delete, preference, .. } => {
                    (dataset, *preference, Privilege::Delete)
                }
                Write::Message { dataset, preference, .. } => (dataset, *preference, Privilege::User),
                Write::Computed { dataset, .. } => (dataset, StoragePreference::NONE, Privilege::User),
                Write::RangeDelete { dataset, .. } => (dataset, StoragePreference::NONE, Privilege::System),
            };
            let class = self.dmu.class_of(preference.or(dataset.tree.options().preference));
            let (bytes, least) = &mut classes[usize::from(class)];
            *bytes += write.bytes();
            *least = privilege.min(*least);
        }
        for (class, (_, privilege)) in
            (0..).zip(classes).filter(|(_, (_, least))| *least != Privilege::System)
        {
            // What else of this batch goes to nothing but tiers of this class shares their room.
            let inside = |other: &u8| *other == class || self.dmu.is_inside(*other, class);
            let others = (0..).zip(classes).filter(|(other, (bytes, _))| *bytes > 0 && inside(other));
            let bytes = others.map(|(_, (bytes, _))| bytes).sum();
            self.admit_class(class, privilege, bytes)?;
        }
        Ok(())
    }

    fn admit_class(&self, class: u8, privilege: Privilege, bytes: u64) -> Result<()> {
        // Log, run, and the merges on the way down: three times on the devices at the most at one time.
        let need = bytes * 3;
        let credit = &self.admission.credit[usize::from(class)];
        if privilege == Privilege::User && credit.fetch_sub(need as i64, Ordering::Relaxed) >= need as i64 {
            return Ok(());
        }
        let _measuring = self.admission.measuring.lock();
        if self.grant(class, privilege, need) {
            return Ok(());
        }
        if !self.admission.gave_up(privilege) || self.has_much_deferred() {
            // A little space at a time would cost a reclaim for every few writes.
            let slack = if privilege == Privilege::User { self.scale.merge_bytes() / 2 } else { 0 };
            // What was made free is counted before workers take of it again.
            let _held = self.jobs.hold();
            self.reclaim(class, privilege, need + slack)?;
            if self.grant(class, privilege, need + slack) {
                return Ok(());
            }
            self.admission.give_up(privilege);
        }
        let free = self.dmu.available_blocks(class, privilege) * BLOCK_BYTES_U64;
        Err(Error::OutOfSpace { tier: self.dmu.first_tier(class), wanted: bytes, free })
    }

    /// Whether `need` bytes fit; extends the credit of the class.
    fn grant(&self, class: u8, privilege: Privilege, need: u64) -> bool {
        self.measure_memtables();
        let free = self.dmu.available_blocks(class, privilege) * BLOCK_BYTES_U64;
        let left = free as i64 - need as i64;
        let credit = if privilege == Privilege::User { (left / 4).clamp(0, 64 << 20) } else { 0 };
        self.admission.credit[usize::from(class)].store(credit, Ordering::Relaxed);
        left >= 0
    }

    /// Admits a record of a few bytes about a dataset.
    ///
    /// # Errors
    /// As [`Core::admit`].
    pub fn admit_metadata(&self) -> Result<()> {
        let (class, wanted) = (self.dmu.class_of(StoragePreference::NONE), 4 * BLOCK_BYTES_U64);
        let free = || self.dmu.available_blocks(class, Privilege::Delete) * BLOCK_BYTES_U64;
        if free() <= wanted {
            self.reclaim(class, Privilege::Delete, wanted + BLOCK_BYTES_U64)?;
        }
        let (tier, free) = (self.dmu.first_tier(class), free());
        if free > wanted { Ok(()) } else { Err(Error::OutOfSpace { tier, wanted, free }) }
    }

    /// Makes `wanted` bytes available to requests of `privilege` in `class`, or as many as there are: writes
    /// checkpoints until what died may be used again, and pushes deletes and new versions down to the leaves, which drop
    /// what these cover. Goes through the leaves one by one, because a full pool has room for few merges between two
    /// checkpoints, and keeps the workers from taking this room meanwhile.
    ///
    /// # Errors
    /// Everything but a lack of space, which is for the caller to find.
    pub fn reclaim(&self, class: u8, privilege: Privilege, wanted: u64) -> Result<()> {
        let _one = self.admission.reclaiming.lock();
        let _held = self.jobs.hold();
        // More than is wanted now, so that not every write comes here while garbage is left.
        let wanted = blocks_for(wanted) + self.scale.deferred_blocks_max() / 2;
        let available = || {
            self.measure_memtables();
            self.dmu.available_blocks(class, privilege)
        };
        unless_full(self.free_deferred())?;
        if available() >= wanted {
            return Ok(());
        }
        // A pass goes from leaf to leaf; what one has no room for may be possible after the others.
        let datasets = self.catalog.read().all();
        for _pass in 0..PASSES_MAX {
            let mut complete = true;
            for dataset in &datasets {
                while dataset.tree.has_drops() && self.work(dataset.id, &Job::ResolveDrops)? {}
                let mut low = Some(Vec::new());
                while let Some(from) = low {
                    if available() + self.dmu.deferred_blocks() >= wanted && self.has_much_deferred() {
                        unless_full(self.free_deferred())?;
                        if available() >= wanted {
                            return Ok(());
                        }
                    }
                    low = dataset.tree.next_leaf(&from).map_err(|error| dataset.error(error))?;
                    complete &= self.push_down(dataset, &from)?;
                }
            }
            self.drain_jobs()?;
            unless_full(self.free_deferred())?;
            if complete || available() >= wanted {
                break;
            }
        }
        Ok(())
    }

    /// Pushes down what lies above one leaf; whether there was room for all of it. Without it, checkpoints make some, if
    /// there is any to be made.
    pub(super) fn push_down(&self, dataset: &DatasetState, low: &[u8]) -> Result<bool> {
        for _attempt in 0..ATTEMPTS_MAX {
            let pushed = {
                let _writer = self.writers.enter();
                dataset.tree.push_down(low).map_err(|error| dataset.error(error))
            };
            if unless_full(pushed)? {
                return Ok(true);
            }
            if !self.has_much_deferred() || !unless_full(self.free_deferred())? {
                break;
            }
        }
        Ok(false)
    }
}

/// Whether there was room: a step that finds none does not keep the next one from making some.
fn unless_full(result: Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.is_lack_of_space() => Ok(false),
        Err(error) => Err(error),
    }
}
