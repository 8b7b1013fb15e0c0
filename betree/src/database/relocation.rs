//! Moving the entries of a dataset between tiers.

use super::catalog::DatasetState;
use super::core::Core;
use super::error::{Error, Result};
use crate::base::preference::{StoragePreference, TIER_NAMES};
use crate::base::units::BLOCK_BYTES_U64;
use crate::dmu::Privilege;
use crate::tree::{Migrated, Relocation};

impl Core {
    /// Moves what `dataset` holds now from `low` to `high` (exclusive; `None`: the end) to where `preference` says.
    pub fn migrate(
        &self,
        dataset: &DatasetState,
        low: Vec<u8>,
        high: Option<Vec<u8>>,
        preference: StoragePreference,
    ) -> Result<Migrated> {
        self.check_accepts()?;
        let tree = &dataset.tree;
        let mut relocation = Relocation::new(tree, low.clone(), high, preference);
        let class = relocation.class();
        if let Some(tier) = preference.class().filter(|tier| !self.dmu.has_tier(*tier)) {
            let reason = format!("the pool has no devices on tier {}", TIER_NAMES[usize::from(tier)]);
            return Err(Error::InvalidArgument { what: "storage preference", reason });
        }
        let of_tree = |error| dataset.error(error);
        if tree.is_in_memory(&relocation).map_err(of_tree)? {
            self.checkpoint(false)?;
        }
        let wanted = {
            // Who else has a buffer in hand would put what is in it below, unmoved.
            let _one = self.admission.reclaiming.lock();
            let _held = self.jobs.hold();
            let _writer = self.writers.enter();
            tree.gather(&relocation).map_err(of_tree)?
        };
        self.check_room(class, wanted)?;
        let mut moved = Migrated::default();
        let mut from = Some(low);
        while let Some(leaf) = from {
            let writer = self.writers.enter();
            let (step, more) = tree.relocate_leaf(&leaf, &mut relocation).map_err(of_tree)?;
            drop(writer);
            moved.entries += step.entries;
            moved.bytes += step.bytes;
            from = match more {
                true => Some(leaf),
                false => tree.next_leaf(&leaf).map_err(of_tree)?.filter(|next| relocation.reaches(next)),
            };
            self.note_progress();
        }
        if !self.has_threads() {
            self.drain_jobs()?;
        }
        Ok(moved)
    }

    /// Fails when the first tier of `class` has no room for `wanted` bytes and for what merges write beside them.
    fn check_room(&self, class: u8, wanted: u64) -> Result<()> {
        if wanted == 0 {
            return Ok(());
        }
        let wanted = wanted + wanted / 16 + 16 * BLOCK_BYTES_U64;
        let free = || {
            self.measure_memtables();
            self.dmu.first_tier_blocks(class, Privilege::User) * BLOCK_BYTES_U64
        };
        if free() < wanted {
            self.reclaim(class, Privilege::User, wanted)?;
        }
        let (tier, free) = (self.dmu.first_tier(class), free());
        if free < wanted { Err(Error::OutOfSpace { tier, wanted, free }) } else { Ok(()) }
    }
}
