//! More vdevs for a pool that there is.
//!
//! They come in with an opening and its first commit. The new leaves get that commit first, whole, and only then does anybody
//! else hear of it: a crash leaves the pool as it was, for who names the devices that it had, or the pool with the new ones, for
//! who names all of them.

use super::assembly::{self, Assembly, NewVdev};
use super::format::{TOPOLOGY_MAX, VDEV_IDS_MAX};
use super::pool::OpenOptions;
use super::spares;
use super::topology::{self, VdevDevices};
use super::{Access, OpenReport, Pool, PoolError, StoragePoolConfiguration, TierConfiguration};
use crate::base::ids::VdevId;

impl StoragePoolConfiguration {
    /// This configuration with the vdevs of `added` as well, the first of which are for the fastest tier; what else `added` says
    /// of tiers is left out.
    #[must_use]
    pub fn extended(&self, added: &[TierConfiguration]) -> Self {
        let mut out = self.clone();
        if out.tiers.len() < added.len() {
            out.tiers.resize_with(added.len(), TierConfiguration::default);
        }
        for (tier, added) in out.tiers.iter_mut().zip(added) {
            tier.top_level_vdevs.extend(added.top_level_vdevs.iter().cloned());
        }
        out
    }
}

impl Pool {
    /// [`Pool::open`] for writing, with the vdevs of `added` as well, the first of which are for the fastest tier; files that do
    /// not exist are created. They belong to the pool when the first commit is durable; from then on it opens with all devices
    /// only. Until [`Pool::take_added`] no byte of them changes, and until the commit begins files that were created are
    /// removed again when the pool is dropped.
    ///
    /// # Errors
    /// As [`Pool::open`] and, for the new devices, as [`Pool::create`]: [`PoolError::NotEmpty`] unless `force`,
    /// [`PoolError::TooManyVdevs`]. Nothing was written then.
    pub fn open_adding(
        configuration: &StoragePoolConfiguration,
        added: &[TierConfiguration],
        force: bool,
    ) -> Result<(Self, OpenReport), PoolError> {
        configuration.extended(added).validate()?;
        let members = spares::open_devices(configuration, Access::ReadWrite)?;
        let added = StoragePoolConfiguration { tiers: added.to_vec(), ..StoragePoolConfiguration::default() };
        let mut new = topology::open_devices(&added, Access::ReadWrite)?;
        let options = OpenOptions::of(configuration, Access::ReadWrite);
        let (assembly, report) = assembly::assemble(&members, options)?;
        // A refusal must not leave new files behind.
        check(&assembly, &members, &new, force)?;
        let made = topology::create_missing(&added, &mut new)?;
        assembly::check_empty(&new, force)?;
        let (pool, report) = Self::adding_on(assembly, report, &new, options.threads)?;
        pool.superblocks().lock().hold(made);
        Ok((pool, report))
    }

    /// As [`Pool::open_adding`], on devices that are open.
    #[cfg(test)]
    pub(super) fn open_adding_on(
        members: &[VdevDevices],
        new: &[VdevDevices],
        options: OpenOptions,
        force: bool,
    ) -> Result<(Self, OpenReport), PoolError> {
        let (assembly, report) = assembly::assemble(members, options)?;
        check(&assembly, members, new, force)?;
        Self::adding_on(assembly, report, new, options.threads)
    }

    fn adding_on(
        mut assembly: Assembly,
        report: OpenReport,
        new: &[VdevDevices],
        threads: usize,
    ) -> Result<(Self, OpenReport), PoolError> {
        report.log();
        for member in new {
            let id = VdevId(assembly.topology.next_vdev);
            let NewVdev { entry, vdev, reserved, leaves } =
                assembly::new_vdev(assembly.vdevs.len(), id, member, threads)?;
            assembly.added.insert(id);
            assembly.topology.entries.push(entry);
            assembly.topology.next_vdev += 1;
            assembly.vdevs.push(vdev);
            assembly.reserved.push(reserved);
            assembly.leaves.extend(leaves);
        }
        Ok((Self::from_assembly(assembly, Access::ReadWrite), report))
    }
}

/// Checks that `new` can be added to the pool of `members`.
fn check(
    assembly: &Assembly,
    members: &[VdevDevices],
    new: &[VdevDevices],
    force: bool,
) -> Result<(), PoolError> {
    if new.is_empty() {
        return Err(PoolError::NoVdevs);
    }
    let count = assembly.topology.entries.len() + new.len();
    let ids = u64::from(assembly.topology.next_vdev) + new.len() as u64;
    if count > TOPOLOGY_MAX || ids > u64::from(VDEV_IDS_MAX) {
        return Err(PoolError::TooManyVdevs { count, limit: TOPOLOGY_MAX });
    }
    assembly::check_configuration(&[members, new].concat())?;
    assembly::check_empty(new, force)
}
