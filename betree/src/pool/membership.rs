//! Making durable which members of a vdev are lost and what they miss, and changing who its members are.
//!
//! A label tells of a change before anything is acknowledged that depends on it. It goes to every member that takes writes, at
//! both ends, into the slot that the newest one is not in: whatever a crash leaves, the newest durable label is whole.

use super::assembly::{Leaf, random_uuid};
use super::format::{
    AREA_BLOCKS, DEVICE_BLOCKS_MIN, End, ErrorCounts, LENGTHS_MAX, Member as LabelMember, MemberState,
    MembershipLabel, VdevKind,
};
use super::group::Labels;
use super::label;
use super::member::{Member, Standing, now};
use super::{LeafVdev, Pool, PoolError, TopLevelVdev, topology};
use crate::base::buffer::AlignedBuffer;
use crate::base::ids::{Generation, Uuid, VdevId};
use crate::base::planted::{Bug, planted};
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::vdev::BlockDevice;
use std::sync::Arc;

/// How much of a vdev is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VdevHealth {
    /// Every member holds everything.
    Online,
    /// Everything can be read, and fewer failures are borne than the layout promises.
    Degraded,
    /// Not everything can be read.
    Faulted,
}

impl std::fmt::Display for VdevHealth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Online => "online",
            Self::Degraded => "degraded",
            Self::Faulted => "faulted",
        })
    }
}

/// A member of a vdev, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its place in the vdev.
    pub leaf: u8,
    /// Its device, or where that should be.
    pub name: String,
    /// What the label calls its device; `None` for memory.
    pub device: Option<Uuid>,
    /// What it is good for.
    pub state: MemberState,
    /// Since when, in seconds since 1970; `None` when that is not known.
    pub since: Option<u64>,
    /// The first generation that it lacks something of.
    pub missed_from: Option<Generation>,
    /// What went wrong on it since it belongs to the pool, or since that was cleared.
    pub errors: ErrorCounts,
    /// Why it is not online, as far as this process knows.
    pub reason: Option<String>,
    /// Memory: counts as no redundancy.
    pub is_volatile: bool,
}

/// One time of a member in its place, from when it takes writes until it is lost: what was made good in one is not in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberLife {
    device: Uuid,
    admissions: u64,
}

/// A top-level vdev, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VdevStatus {
    /// The vdev.
    pub id: VdevId,
    /// Its tier, 0…3.
    pub tier: u8,
    /// How its members share its blocks.
    pub kind: VdevKind,
    /// How much of it is there.
    pub health: VdevHealth,
    /// Its length in bytes, as it is used: parity and label areas included.
    pub bytes: u64,
    /// Its members, by place.
    pub members: Vec<MemberStatus>,
}

impl Pool {
    /// Makes the changes of the vdev at `position` durable that wait for it.
    ///
    /// # Errors
    /// [`PoolError::Vdev`] when too few members are left; the pool is then poisoned.
    pub(super) fn write_membership(&self, position: usize) -> Result<(), PoolError> {
        let group = &self.vdevs()[position].group;
        if planted(Bug::AcknowledgeUnrecordedLoss) || !group.is_labelled() {
            group.set_recorded(group.changes());
            return Ok(());
        }
        self.write_labels(position, &mut group.labels())
    }

    fn write_labels(&self, position: usize, labels: &mut Labels) -> Result<(), PoolError> {
        let group = &self.vdevs()[position].group;
        while group.is_unrecorded() {
            let (changes, label) = group.with_changes(|changes| (changes, self.next_label(position, labels)));
            self.write_label_to_all(position, label, labels)?;
            group.set_recorded(changes);
        }
        Ok(())
    }

    /// The next label of the vdev at `position`, as each leaf of it gets it at each end.
    fn next_label(&self, position: usize, labels: &Labels) -> MembershipLabel {
        let vdev = &self.vdevs()[position];
        let member = |member: &Arc<Member>| {
            let Standing { uuid, missed_from, since, blocks, .. } = member.standing();
            let state = member.state();
            match member.is_volatile() {
                true => LabelMember {
                    device: Uuid::default(),
                    missed_from: Generation(1),
                    since: 0,
                    blocks,
                    errors: ErrorCounts::default(),
                    state: MemberState::Resilvering,
                },
                false => LabelMember {
                    device: uuid,
                    missed_from: match state {
                        MemberState::Online => Generation(0),
                        _ => missed_from.max(Generation(1)),
                    },
                    since,
                    blocks,
                    errors: member.errors(),
                    state,
                },
            }
        };
        let identity = self.identity();
        MembershipLabel {
            features: identity.features,
            pool: identity.uuid,
            device: Uuid::default(),
            number: labels.number + 1,
            generation: self.highest_seen(),
            vdev: vdev.id,
            leaf: 0,
            end: End::Front,
            configuration_hash: self.topology_hash(),
            leaf_blocks: labels.leaf_blocks,
            lengths: labels.lengths.clone(),
            members: vdev.group.members().iter().map(member).collect(),
        }
    }

    fn write_label_to_all(
        &self,
        position: usize,
        label: MembershipLabel,
        labels: &mut Labels,
    ) -> Result<(), PoolError> {
        let group = &self.vdevs()[position].group;
        labels.number = label.number;
        for (index, member) in group.members().iter().enumerate() {
            if member.is_volatile() || !member.state().is_written() {
                continue;
            }
            let blocks = member.standing().blocks;
            let written = write_label(&label, index, blocks, |block, bytes| member.write(block, bytes))
                .and_then(|()| member.flush());
            match written {
                Ok(()) => member.update(|standing| standing.recorded = label.members[index].errors),
                Err(error) if group.lose(index, &error) => {}
                Err(error) => return Err(self.poison(error)),
            }
        }
        Ok(())
    }

    /// Has the vdevs write their first label, or one with what was counted since the last one.
    pub(super) fn record_counts(&self) -> Result<(), PoolError> {
        for (position, vdev) in self.vdevs().iter().enumerate() {
            let group = &vdev.group;
            if !group.is_labelled() || self.has_left(position) {
                continue;
            }
            let is_first = vdev.group.kind() != VdevKind::Leaf && group.labels().number == 0;
            let counted = |member: &Arc<Member>| member.state().is_written() && member.has_uncounted_errors();
            if is_first || group.members().iter().any(counted) {
                group.change();
            }
            self.record_losses(position)?;
        }
        Ok(())
    }

    /// What each vdev is made of and how that is, in the order of the configuration.
    #[must_use]
    pub fn status(&self) -> Vec<VdevStatus> {
        self.present().map(status_of).collect()
    }

    /// The vdev and member that are meant.
    fn member(&self, vdev: VdevId, leaf: u8) -> Result<(usize, usize), PoolError> {
        let position = self.position(vdev)?;
        if self.has_left(position) {
            return Err(PoolError::UnknownVdev(vdev));
        }
        match self.vdevs()[position].group.members().get(usize::from(leaf)) {
            Some(_) => Ok((position, usize::from(leaf))),
            None => Err(PoolError::UnknownMember { vdev, leaf }),
        }
    }

    fn indispensable(&self, position: usize, leaf: usize) -> PoolError {
        let vdev = &self.vdevs()[position];
        PoolError::Indispensable { device: vdev.group.members()[leaf].name(), vdev: vdev.id }
    }

    /// Takes a member out of use until [`Pool::online`]; durable when this returns.
    ///
    /// # Errors
    /// [`PoolError::Indispensable`] when the others do not hold everything: nothing has changed. [`PoolError::UnknownVdev`],
    /// [`PoolError::UnknownMember`], and as [`Pool::write`].
    pub fn offline(&self, vdev: VdevId, leaf: u8) -> Result<(), PoolError> {
        self.check_writable()?;
        let (position, index) = self.member(vdev, leaf)?;
        let group = &self.vdevs()[position].group;
        if group.members()[index].is_volatile() {
            return Err(PoolError::VolatileMember { vdev, leaf });
        }
        if !group.leave(index, MemberState::Offline, || "taken out of use".to_owned()) {
            return Err(self.indispensable(position, index));
        }
        self.record_losses(position)
    }

    /// Lets a member that is offline or faulted, and whose device is there, take writes again; durable when this returns. It
    /// lacks what was written meanwhile: it resilvers until [`Pool::resilvered`].
    ///
    /// # Errors
    /// [`PoolError::MemberGone`] when its device is not there. As [`Pool::offline`].
    pub fn online(&self, vdev: VdevId, leaf: u8) -> Result<(), PoolError> {
        self.check_writable()?;
        let (position, index) = self.member(vdev, leaf)?;
        let group = &self.vdevs()[position].group;
        let member = &group.members()[index];
        if member.device().is_none() {
            return Err(PoolError::MemberGone { device: member.name(), vdev, leaf });
        }
        let is_lost = |state: MemberState| !state.is_written();
        group.admit(index, is_lost, MemberState::Resilvering, Some("it was brought back"));
        self.record_losses(position)
    }

    /// The present life of a member. Who resilvers it asks before, and says it to [`Pool::resilvered`].
    ///
    /// # Errors
    /// [`PoolError::UnknownVdev`], [`PoolError::UnknownMember`].
    pub fn life(&self, vdev: VdevId, leaf: u8) -> Result<MemberLife, PoolError> {
        let (position, index) = self.member(vdev, leaf)?;
        Ok(life_of(&self.vdevs()[position], index))
    }

    /// A member that was resilvering in `life` holds everything, says who has seen to it: makes that durable, behind everything that was
    /// written to it and the root of the last commit, since from then on it may be the one that is left. Memory counts as online
    /// until the process ends.
    ///
    /// # Errors
    /// [`PoolError::MemberGone`] when the member is not resilvering (any more), or in another life, [`PoolError::NotCommitted`] between open and
    /// [`Pool::rewrite_chosen`]. As [`Pool::write`].
    pub fn resilvered(&self, vdev: VdevId, leaf: u8, life: MemberLife) -> Result<(), PoolError> {
        self.check_writable()?;
        let (position, index) = self.member(vdev, leaf)?;
        // No commit meanwhile: each of its superblocks says who holds it.
        let superblocks = self.superblocks().lock();
        let group = &self.vdevs()[position].group;
        let member = &group.members()[index];
        let is_resilvering =
            |state| state == MemberState::Resilvering && life_of(&self.vdevs()[position], index) == life;
        let gone = || PoolError::MemberGone { device: member.name(), vdev, leaf };
        if !is_resilvering(member.state()) {
            return Err(gone());
        }
        self.flush_anew(position)?;
        for images in superblocks.images_of_root(self, position, index)? {
            for (block, bytes) in images {
                self.write_label(position, index, block, &bytes)?;
            }
            self.flush_position(position)?;
        }
        if !group.admit(index, is_resilvering, MemberState::Online, None) {
            return Err(gone());
        }
        self.record_losses(position)
    }

    /// Forgets what went wrong on a member; durable when this returns.
    ///
    /// # Errors
    /// As [`Pool::offline`].
    pub fn clear_errors(&self, vdev: VdevId, leaf: u8) -> Result<(), PoolError> {
        self.check_writable()?;
        let (position, index) = self.member(vdev, leaf)?;
        let group = &self.vdevs()[position].group;
        group.members()[index].clear_errors();
        group.change();
        self.record_losses(position)
    }

    /// As [`Pool::replace`], with a device that is opened here; a file that does not exist, or is empty, is created: as large as
    /// `device` says, or as the vdev uses of each leaf.
    ///
    /// # Errors
    /// As [`Pool::replace`]; no file is created where that is known to refuse. The device cannot be opened.
    pub fn replace_by(
        &self,
        vdev: VdevId,
        leaf: u8,
        device: &LeafVdev,
        force: bool,
    ) -> Result<(), PoolError> {
        let device = self.open_for(vdev, leaf, device)?;
        self.replace(vdev, leaf, device, force)
    }

    /// Opens, or creates, a device that is to take the place of a member.
    ///
    /// # Errors
    /// As [`Pool::replace_by`].
    pub(super) fn open_for(
        &self,
        vdev: VdevId,
        leaf: u8,
        device: &LeafVdev,
    ) -> Result<Arc<dyn BlockDevice>, PoolError> {
        self.check_writable()?;
        let (position, index) = self.member(vdev, leaf)?;
        let group = &self.vdevs()[position].group;
        if group.members()[index].is_volatile() || matches!(device, LeafVdev::Memory { .. }) {
            return Err(PoolError::VolatileMember { vdev, leaf });
        }
        if !group.can_lose(index) {
            return Err(self.indispensable(position, index));
        }
        let bytes = group.labels().leaf_blocks.max(DEVICE_BLOCKS_MIN) * BLOCK_BYTES_U64;
        topology::open_or_create(device, bytes)
    }

    /// Puts `device` in the place of a member, whatever state that is in; durable when this returns. The new member holds
    /// nothing of what was written before: it resilvers from the first generation on until [`Pool::resilvered`]. The old
    /// device is refused from then on.
    ///
    /// The order is what makes a crash harmless: the new device first gets everything by which it is recognised, the label
    /// that names it included, and only then do the others hear of it.
    ///
    /// # Errors
    /// [`PoolError::NotEmpty`] unless the device is provably empty or `force` is set, [`PoolError::TooSmall`] when it is
    /// shorter than what the vdev uses of each leaf, [`PoolError::Indispensable`], [`PoolError::VolatileMember`] for memory,
    /// [`PoolError::NotCommitted`] before the first commit: nothing has changed then. [`PoolError::Vdev`] of the new device: the
    /// member is then offline, or lost as it was, and the old device still its own. As [`Pool::write`].
    pub fn replace(
        &self,
        vdev: VdevId,
        leaf: u8,
        device: Arc<dyn BlockDevice>,
        force: bool,
    ) -> Result<(), PoolError> {
        self.replace_if(vdev, leaf, device, force, |_| true)
    }

    /// As [`Pool::replace`], of a member whose state `is_meant`.
    ///
    /// # Errors
    /// As [`Pool::replace`]; [`PoolError::OtherState`]: nothing has changed.
    pub(super) fn replace_if(
        &self,
        vdev: VdevId,
        leaf: u8,
        device: Arc<dyn BlockDevice>,
        force: bool,
        is_meant: impl Fn(MemberState) -> bool,
    ) -> Result<(), PoolError> {
        self.check_writable()?;
        let (position, index) = self.member(vdev, leaf)?;
        // No commit meanwhile.
        let mut superblocks = self.superblocks().lock();
        let group = &self.vdevs()[position].group;
        let member = &group.members()[index];
        if member.is_volatile() || device.is_volatile() {
            return Err(PoolError::VolatileMember { vdev, leaf });
        }
        if !is_meant(member.state()) {
            return Err(PoolError::OtherState { device: member.name(), state: member.state() });
        }
        let blocks = device.len() / BLOCK_BYTES_U64;
        let minimum = group.labels().leaf_blocks.max(DEVICE_BLOCKS_MIN);
        if blocks < minimum {
            return Err(PoolError::TooSmall { device: device.name().to_owned(), blocks, minimum });
        }
        if !force && let Some(found) = label::scan(&*device).in_the_way() {
            return Err(PoolError::NotEmpty { device: device.name().to_owned(), found });
        }
        let root = superblocks.committed_root(self)?;
        // Who is lost already stays what it is, should the new device fail.
        let is_spared = match member.state().is_written() {
            true => group.leave(index, MemberState::Offline, || "another device takes its place".to_owned()),
            false => group.can_lose(index),
        };
        if !is_spared {
            return Err(self.indispensable(position, index));
        }
        self.record_losses(position)?;

        let uuid = random_uuid()?;
        let new = Leaf {
            position,
            device: Arc::clone(&device),
            uuid,
            vdev,
            tier: self.vdevs()[position].tier,
            kind: group.kind(),
            leaf,
            leaf_count: group.members().len() as u8,
            blocks,
            next_blocks: blocks,
            retired: Vec::new(),
        };
        // A failure of the new device is no failure of the pool.
        let write = |block: u64, bytes: &[u8]| device.write_at(bytes, block * BLOCK_BYTES_U64);
        let zeros = AlignedBuffer::zeroed(AREA_BLOCKS as usize * BLOCK_BYTES);
        for end in End::BOTH {
            write(end.area(blocks).start, &zeros)?;
        }
        device.flush()?;
        let mut labels = group.labels();
        if labels.lengths.len() < LENGTHS_MAX
            && End::Back.area(blocks).start < labels.leaf_blocks
            && !labels.lengths.contains(&blocks)
        {
            labels.lengths.push(blocks);
            labels.lengths.sort_unstable();
        }
        let mut label = self.next_label(position, &labels);
        label.members[index] = LabelMember {
            device: uuid,
            missed_from: Generation(1),
            since: now(),
            blocks,
            errors: ErrorCounts::default(),
            state: MemberState::Resilvering,
        };
        // Whatever comes of the new device, no later label has a number that one on it has.
        labels.number = label.number + 1;
        for (block, bytes) in superblocks.images_for(self, &new, &root) {
            write(block, &bytes)?;
        }
        // Two labels, so that the next one goes on all members into the slot that the newest one of the others is not in.
        write_label(&label, index, blocks, write)?;
        device.flush()?;
        label.number += 1;
        write_label(&label, index, blocks, write)?;
        device.flush()?;

        member.set_device(device);
        member.update(|standing| {
            *standing = Standing { uuid, missed_from: Generation(1), blocks, ..Standing::default() };
        });
        member.clear_errors();
        superblocks.put_leaf(new);
        let reason = "it took the place of another device";
        group.admit(index, |_| true, MemberState::Resilvering, Some(reason));
        self.write_labels(position, &mut labels)
    }
}

/// Writes `label` to both areas of the leaf at `index`, which has `blocks` blocks.
fn write_label<E>(
    label: &MembershipLabel,
    index: usize,
    blocks: u64,
    write: impl Fn(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    for end in End::BOTH {
        let own =
            MembershipLabel { device: label.members[index].device, leaf: index as u8, end, ..label.clone() };
        write(end.area(blocks).start + u64::from(own.slot()), &AlignedBuffer::copy_of(&own.encode()))?;
    }
    Ok(())
}

fn life_of(vdev: &TopLevelVdev, index: usize) -> MemberLife {
    let device = vdev.group.members()[index].standing().uuid;
    MemberLife { device, admissions: vdev.group.admissions(index) }
}

fn status_of(vdev: &TopLevelVdev) -> VdevStatus {
    let group = &vdev.group;
    let members: Vec<MemberStatus> = group
        .members()
        .iter()
        .enumerate()
        .map(|(leaf, member)| {
            let standing = member.standing();
            let some = |value: u64| Some(value).filter(|value| *value > 0);
            MemberStatus {
                leaf: leaf as u8,
                name: member.name(),
                device: Some(standing.uuid).filter(|uuid| *uuid != Uuid::default()),
                state: member.state(),
                since: some(standing.since),
                missed_from: some(standing.missed_from.0).map(Generation),
                errors: member.errors(),
                reason: standing.reason,
                is_volatile: member.is_volatile(),
            }
        })
        .collect();
    let whole = |member: &MemberStatus| member.state == MemberState::Online || member.is_volatile;
    let health = match (group.is_sufficient(), members.iter().all(whole)) {
        (false, _) => VdevHealth::Faulted,
        (true, true) => VdevHealth::Online,
        (true, false) => VdevHealth::Degraded,
    };
    let bytes = vdev.blocks * BLOCK_BYTES_U64;
    VdevStatus { id: vdev.id, tier: vdev.tier, kind: group.kind(), health, bytes, members }
}
