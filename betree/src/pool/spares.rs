//! Hot spares: devices that wait to take the place of one that is lost.
//!
//! A spare is nobody until it takes a place: nothing of it is in any label, and it must be provably empty then. A former member
//! is not: who could tell whether it is older than the pool, or the pool opened without it? Afterwards the configuration still
//! names the lost device in its vdev and the new member among the spares, until somebody changes that. So each opening looks
//! whether a spare is a member, and takes it for the device whose place it has; what the newest label says decides which of the
//! two that is.

use super::configuration::LeafVdev;
use super::format::{MemberState, MembershipLabel, Superblock};
use super::label::{self, LeafScan};
use super::topology::{self, LeafDevice, VdevDevices};
use super::{Access, Pool, PoolError, StoragePoolConfiguration};
use crate::base::ids::VdevId;

/// A member that got a spare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpareUse {
    /// The vdev.
    pub vdev: VdevId,
    /// The place in it.
    pub leaf: u8,
    /// The device that was lost.
    pub lost: String,
    /// The spare.
    pub spare: String,
}

/// Opens and locks the devices of a pool that there is: those of its vdevs, of which spares may have taken places.
///
/// # Errors
/// As [`topology::open_devices`]; a spare that cannot be opened while a device is missing, whose place it may have.
pub(super) fn open_devices(
    configuration: &StoragePoolConfiguration,
    access: Access,
) -> Result<Vec<VdevDevices>, PoolError> {
    let mut members = topology::open_devices(configuration, access)?;
    let mut unopened = None;
    for spare in &configuration.spares {
        match topology::open_leaf(spare, access) {
            Ok(spare) => take_place(&mut members, spare),
            Err(error) => {
                log::warn!("spare: {error}");
                unopened = unopened.or(Some(error));
            }
        }
    }
    let is_missing = members.iter().flat_map(|vdev| &vdev.leaves).any(|leaf| leaf.device.is_none());
    match unopened.filter(|_| is_missing) {
        // It may have everything since it took that place, and be in use by who goes on with it.
        Some(error) => Err(error),
        None => Ok(members),
    }
}

/// What is on a leaf, when that is a member of a pool.
fn member_on(leaf: &LeafDevice) -> Option<LeafScan> {
    let device = leaf.device.as_ref().filter(|device| !device.is_volatile())?;
    let scan = label::scan(&**device);
    (scan.identity.is_some() && scan.newest().is_some()).then_some(scan)
}

/// Puts `spare` into the vdev that it is a member of, for the device whose place it took.
fn take_place(members: &mut [VdevDevices], spare: LeafDevice) {
    let Some(own) = member_on(&spare) else { return };
    let Some(newest) = own.newest() else { return };
    let scans: Vec<Vec<Option<LeafScan>>> =
        members.iter().map(|vdev| vdev.leaves.iter().map(member_on).collect()).collect();
    let of_vdev = |scan: &&LeafScan| {
        scan.newest().is_some_and(|found| (found.pool, found.vdev) == (newest.pool, newest.vdev))
    };
    let all = || scans.iter().flatten().flatten().filter(of_vdev);
    let labels = all().chain([&own]).filter_map(LeafScan::label);
    let is_of_vdev = |label: &&MembershipLabel| label.vdev == newest.vdev;
    let label = labels.filter(is_of_vdev).max_by_key(|label| (label.number, label.generation));
    let named =
        label.and_then(|label| label.members.get(usize::from(newest.leaf))).map(|member| member.device);
    if named != Some(newest.device) {
        log::warn!(
            "spare {} was leaf {} of vdev {}, whose place another device has by now",
            spare.name,
            newest.leaf,
            newest.vdev
        );
        return;
    }
    let Some((vdev, leaf)) = place_of(members, &scans, newest) else {
        log::warn!("spare {}: vdev {} of the configuration has its members", spare.name, newest.vdev);
        return;
    };
    let lost = &mut members[vdev].leaves[leaf];
    log::warn!("{} took the place of {}", spare.name, lost.name);
    *lost = spare;
}

/// The configured leaf that `newest`, of a spare, stands for: an earlier device of its place, else one that holds no member of
/// its vdev.
fn place_of(
    members: &[VdevDevices],
    scans: &[Vec<Option<LeafScan>>],
    newest: &Superblock,
) -> Option<(usize, usize)> {
    let found = |scan: &Option<LeafScan>| scan.as_ref().and_then(LeafScan::newest).cloned();
    let is_of_vdev = |scan: &&Option<LeafScan>| {
        found(scan).is_some_and(|found| (found.pool, found.vdev) == (newest.pool, newest.vdev))
    };
    let fits = |vdev: &usize| {
        let VdevDevices { tier, kind, leaves } = &members[*vdev];
        (*tier, *kind, leaves.len()) == (newest.tier, newest.kind, usize::from(newest.leaf_count))
    };
    let count = |vdev: &usize| scans[*vdev].iter().filter(is_of_vdev).count();
    // Without any member left there, one that has none of another vdev either.
    let is_free = |vdev: &usize| count(vdev) > 0 || scans[*vdev].iter().all(Option::is_none);
    let vdev = (0..members.len()).filter(fits).filter(is_free).rev().max_by_key(count)?;
    let of_vdev = &scans[vdev];
    let earlier = of_vdev
        .iter()
        .position(|scan| is_of_vdev(&scan) && found(scan).is_some_and(|found| found.leaf == newest.leaf));
    let is_memory =
        |leaf: usize| members[vdev].leaves[leaf].device.as_ref().is_some_and(|device| device.is_volatile());
    let empty = || (0..of_vdev.len()).find(|leaf| of_vdev[*leaf].is_none() && !is_memory(*leaf));
    earlier.or_else(empty).map(|leaf| (vdev, leaf))
}

fn is_lost(state: MemberState) -> bool {
    matches!(state, MemberState::Missing | MemberState::Faulted)
}

impl Pool {
    /// The members that are lost and not expected back: missing, or given up after an error.
    #[must_use]
    pub fn lost(&self) -> Vec<(VdevId, u8)> {
        let mut lost = Vec::new();
        for vdev in self.status() {
            let members = vdev.members.iter().filter(|member| is_lost(member.state) && !member.is_volatile);
            lost.extend(members.map(|member| (vdev.id, member.leaf)));
        }
        lost
    }

    /// Puts the first of `spares` that can into the place of each member that is lost; they are then resilvered like any other
    /// replacement. What a spare is refused for is in the log.
    ///
    /// # Errors
    /// As [`Pool::write`].
    pub fn use_spares(&self, spares: &[LeafVdev]) -> Result<Vec<SpareUse>, PoolError> {
        let _turn = self.sparing.lock();
        let mut used = Vec::new();
        for (vdev, leaf) in self.lost() {
            for spare in spares {
                self.check_writable()?;
                let name_of = |pool: &Self| {
                    let status = pool.status().into_iter().find(|status| status.id == vdev);
                    let member = status.and_then(|status| status.members.into_iter().nth(usize::from(leaf)));
                    member.map(|member| member.name).unwrap_or_default()
                };
                let lost = name_of(self);
                let replaced = self
                    .open_for(vdev, leaf, spare)
                    .and_then(|device| self.replace_if(vdev, leaf, device, false, is_lost));
                match replaced {
                    Ok(()) => {
                        let spare = name_of(self);
                        log::warn!("{spare} takes the place of {lost}");
                        used.push(SpareUse { vdev, leaf, lost, spare });
                        break;
                    }
                    Err(error) => log::warn!("no spare for {lost}: {error}"),
                }
            }
        }
        Ok(used)
    }
}
