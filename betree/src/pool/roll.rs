//! The roll of a vdev: which devices are its members, and which of them hold what they should.
//!
//! Labels are asked first. The newest one says who was lost and since when; nobody is believed who says of himself that he has
//! everything. Superblocks tell the rest: a member whose own end before the pool's newest, or of which a newer superblock
//! says that it holds less, is stale, whatever labels say. What is stale is never trusted, and made good by a resilver.

use super::PoolError;
use super::format::{Member as LabelMember, MemberState, MembershipLabel, Superblock, VdevKind};
use super::label::LeafScan;
use super::member::{Standing, now};
use crate::base::ids::{Generation, Uuid, VdevId};
use crate::base::planted::{Bug, planted};
use crate::base::units::BLOCK_BYTES_U64;
use crate::vdev::BlockDevice;
use std::sync::Arc;

/// A configured leaf with what is on it.
pub(super) struct Found {
    /// Position of the vdev that it is configured in.
    pub position: usize,
    pub tier: u8,
    pub kind: VdevKind,
    pub leaf_count: usize,
    pub device: Arc<dyn BlockDevice>,
    pub scan: LeafScan,
}

impl Found {
    pub fn name(&self) -> String {
        self.device.name().to_owned()
    }

    pub fn blocks(&self) -> u64 {
        self.device.len() / BLOCK_BYTES_U64
    }
}

/// A durable member: a found device with its newest superblock and label.
pub(super) struct MemberDevice<'a> {
    pub found: &'a Found,
    pub newest: &'a Superblock,
    pub label: Option<&'a MembershipLabel>,
}

/// The members of one vdev, by place.
pub(super) struct Roll<'a> {
    pub vdev: VdevId,
    /// The newest label of any of them; of several with the same number, what all of them say.
    pub label: Option<MembershipLabel>,
    /// Whether there are several with the same number that differ.
    pub is_split: bool,
    /// The devices that are there.
    pub devices: Vec<Option<&'a MemberDevice<'a>>>,
}

/// More labels than anybody writes whom nobody hears of any more, and an even number: slots take turns.
const UNSEEN_LABELS: u64 = 1 << 32;

/// Makes `label` say no more than `other`, which has the same number: neither knows of the other. Whether they differ in who is
/// what.
fn agree(label: &mut MembershipLabel, other: &MembershipLabel) -> bool {
    let mut differ = false;
    for (member, other) in label.members.iter_mut().zip(&other.members) {
        if member.device != other.device {
            continue;
        }
        differ |= member.state != other.state;
        match (member.state, other.state) {
            (_, MemberState::Online) => {}
            (MemberState::Online, _) => *member = *other,
            _ => member.missed_from = member.missed_from.min(other.missed_from),
        }
    }
    differ
}

/// Whether `device`, which `newest` says is lost and whose `own` label says that of all who `went_on`, is no more than late: it
/// was there when one of those was lost, and lost itself only behind that, in a generation behind which it has nothing. It
/// went on with others then, who have heard of both.
fn is_before(
    device: &MemberDevice<'_>,
    own: &MembershipLabel,
    newest: &MembershipLabel,
    went_on: &[usize],
) -> bool {
    let place = usize::from(device.newest.leaf);
    let lost_from = newest.members[place].missed_from;
    let is_alone = (own.members.iter().enumerate())
        .all(|(leaf, member)| leaf == place || member.state != MemberState::Online);
    !is_alone
        && newest.members[place].state != MemberState::Online
        && device.newest.generation <= lost_from
        && went_on.iter().any(|leaf| own.members[*leaf].missed_from < lost_from)
}

/// What a member is good for, and what is known of it.
pub(super) struct Verdict {
    pub state: MemberState,
    pub standing: Standing,
    /// Memory, which has no label.
    pub is_volatile: bool,
}

impl<'a> Roll<'a> {
    /// The roll of `vdev`, of which at least one of `devices` is.
    ///
    /// # Errors
    /// [`PoolError::Replaced`], [`PoolError::DuplicateDevice`], [`PoolError::Diverged`].
    pub fn call(vdev: VdevId, devices: &'a [MemberDevice<'a>]) -> Result<Self, PoolError> {
        let present: Vec<&MemberDevice<'a>> =
            devices.iter().filter(|device| device.newest.vdev == vdev).collect();
        let count =
            present.iter().map(|device| usize::from(device.newest.leaf_count)).max().unwrap_or_default();
        let fits = |label: &&MembershipLabel| label.vdev == vdev && label.members.len() == count;
        let labels: Vec<&MembershipLabel> =
            present.iter().filter_map(|device| device.label).filter(fits).collect();
        let newest = labels.iter().max_by_key(|label| (label.number, label.generation)).copied();
        let mut label = newest.cloned();
        let mut is_split = false;
        if let Some(label) = &mut label {
            let number = label.number;
            for other in labels.iter().filter(|other| other.number == number) {
                is_split |= agree(label, other);
            }
        }
        let mut places: Vec<Option<&MemberDevice<'a>>> = vec![None; count];
        for device in &present {
            let leaf = usize::from(device.newest.leaf);
            if label.as_ref().is_some_and(|label| label.members[leaf].device != device.newest.device) {
                let device = device.found.name();
                return Err(PoolError::Replaced { device, vdev, leaf: leaf as u8 });
            }
            if let Some(other) = places[leaf] {
                let (device, other) = (device.found.name(), other.found.name());
                return Err(PoolError::DuplicateDevice { device, other });
            }
            places[leaf] = Some(device);
        }
        let roll = Self { vdev, label, is_split, devices: places };
        if let Some(newest) = newest {
            roll.check_divergence(count, newest)?;
        }
        Ok(roll)
    }

    /// The number of the newest label, as the next one counts on from it. Who is away, or has an older label, may have written
    /// some that nobody else has: the next one is beyond these, and in the slot that the newest is not in.
    pub fn next_number(&self) -> u64 {
        let Some(newest) = &self.label else { return 0 };
        let is_current = |(device, member): (&Option<&MemberDevice<'_>>, &LabelMember)| match device {
            Some(device) => device.label.is_some_and(|label| label.number == newest.number),
            None => member.device == Uuid::default(),
        };
        match self.devices.iter().zip(&newest.members).all(is_current) {
            true => newest.number,
            false => newest.number + UNSEEN_LABELS,
        }
    }

    /// Refuses members that went on without each other. Who is recorded as lost has an older label that counts on at least
    /// one of those who went on: when it counts on none of them, it went on by itself, unless it is seen to be older.
    fn check_divergence(&self, count: usize, newest: &MembershipLabel) -> Result<(), PoolError> {
        let went_on: Vec<usize> =
            (0..count).filter(|leaf| newest.members[*leaf].state == MemberState::Online).collect();
        for device in self.devices.iter().flatten() {
            let Some(own) =
                device.label.filter(|own| own.members.len() == count && own.number <= newest.number)
            else {
                continue;
            };
            let lost = |leaf: &usize| !own.members[*leaf].state.is_written();
            if !went_on.is_empty() && went_on.iter().all(lost) && !is_before(device, own, newest, &went_on) {
                let other = went_on.iter().find_map(|leaf| self.devices[*leaf]);
                let missed = |leaf: &usize| own.members[*leaf].missed_from;
                return Err(PoolError::Diverged {
                    device: device.found.name(),
                    other: other.map_or_else(
                        || format!("leaf {} of vdev {}", went_on[0], self.vdev),
                        |other| other.found.name(),
                    ),
                    generation: went_on.iter().map(missed).min().unwrap_or_default(),
                });
            }
        }
        Ok(())
    }

    /// Whether no label says that the member at `leaf` lacks something.
    pub fn is_trusted(&self, leaf: usize) -> bool {
        planted(Bug::TrustStaleMember)
            || self.label.as_ref().is_none_or(|label| label.members[leaf].state == MemberState::Online)
    }

    /// The members that are there and that no label distrusts.
    pub fn trusted(&self) -> impl Iterator<Item = &'a MemberDevice<'a>> {
        let devices = self.devices.iter().enumerate();
        devices.filter(|(leaf, _)| self.is_trusted(*leaf)).filter_map(|(_, device)| *device)
    }

    /// What each member is good for in a pool whose newest superblock is `chosen`, when the vdev may have memory in it or not.
    pub fn judge(&self, chosen: &Superblock, has_memory: bool) -> Vec<Verdict> {
        let own = self.trusted().map(|device| device.newest).max_by_key(|newest| newest.generation);
        (0..self.devices.len()).map(|leaf| self.judge_one(leaf, chosen, own, has_memory)).collect()
    }

    fn judge_one(
        &self,
        leaf: usize,
        chosen: &Superblock,
        own: Option<&Superblock>,
        has_memory: bool,
    ) -> Verdict {
        let recorded = self.label.as_ref().map(|label| label.members[leaf]);
        let held = own.and_then(|own| own.member_sequences.get(leaf)).copied();
        // Who holds nothing of what came before has missed that, too.
        let behind = held.map(|held| Generation(held.saturating_add(1)));
        let first = Generation(chosen.previous.0 + 1).min(behind.unwrap_or(Generation(u64::MAX)));
        let standing = |missed_from, recorded: Option<LabelMember>, uuid| Standing {
            uuid,
            missed_from,
            since: recorded.map_or(0, |recorded| recorded.since),
            blocks: recorded.map_or(0, |recorded| recorded.blocks),
            errors: recorded.map(|recorded| recorded.errors).unwrap_or_default(),
            recorded: recorded.map(|recorded| recorded.errors).unwrap_or_default(),
            reason: None,
        };
        let Some(device) = self.devices[leaf] else {
            let is_volatile = match recorded {
                Some(recorded) => recorded.device == Uuid::default(),
                None => held == Some(0) && has_memory,
            };
            let uuid = recorded.map(|recorded| recorded.device).unwrap_or_default();
            if is_volatile {
                let standing = Standing { since: now(), ..standing(Generation(1), recorded, uuid) };
                return Verdict { state: MemberState::Resilvering, standing, is_volatile };
            }
            let missed = recorded.map(|recorded| recorded.missed_from).filter(|missed| missed.0 > 0);
            let mut standing = standing(missed.unwrap_or(first), recorded, uuid);
            let state = match recorded.map(|recorded| recorded.state) {
                Some(MemberState::Offline) => MemberState::Offline,
                _ => MemberState::Missing,
            };
            if recorded.is_none_or(|recorded| recorded.state == MemberState::Online) {
                standing.since = now();
            }
            return Verdict { state, standing, is_volatile };
        };
        let newest = device.newest;
        let mut standing = standing(Generation(0), recorded, newest.device);
        standing.blocks = newest.device_blocks;
        if planted(Bug::TrustStaleMember) {
            return Verdict { state: MemberState::Online, standing, is_volatile: false };
        }
        let (state, missed_from, reason) = match recorded {
            // The label is right about the device that was there then; this may be an older copy of it.
            Some(recorded) if recorded.state == MemberState::Offline => {
                (MemberState::Offline, recorded.missed_from.min(newest.generation.next()), None)
            }
            Some(recorded) if recorded.state != MemberState::Online => {
                let missed_from = recorded.missed_from.min(newest.generation.next());
                let missed = format!("it missed what was written from generation {missed_from} on");
                (MemberState::Resilvering, missed_from, Some(missed))
            }
            _ if chosen.previous < newest.generation && newest.generation < chosen.generation => {
                let reason = format!(
                    "it ends at generation {}, which the pool at {} does not continue from",
                    newest.generation, chosen.generation
                );
                (MemberState::Resilvering, Generation(1), Some(reason))
            }
            _ if newest.generation < chosen.previous => {
                let reason = format!(
                    "it ends at generation {}, but the pool is at {}",
                    newest.generation, chosen.generation
                );
                (MemberState::Resilvering, newest.generation.next(), Some(reason))
            }
            _ => match (own, held) {
                (Some(own), Some(held))
                    if self.label.as_ref().is_none_or(|label| label.generation < own.generation)
                        && held < own.generation.0 =>
                {
                    let reason = format!("the others say that it holds generation {held} and no more");
                    (MemberState::Resilvering, Generation(held + 1), Some(reason))
                }
                _ => (MemberState::Online, Generation(0), None),
            },
        };
        if recorded.is_none_or(|recorded| recorded.state != state) && state != MemberState::Online {
            standing.since = now();
        }
        standing.missed_from = missed_from;
        standing.reason = reason;
        Verdict { state, standing, is_volatile: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::format::{End, ErrorCounts, Features};

    fn label(members: &[(u8, MemberState, u64)]) -> MembershipLabel {
        let member = |(device, state, missed_from): &(u8, MemberState, u64)| LabelMember {
            device: Uuid([*device; 16]),
            missed_from: Generation(*missed_from),
            since: 0,
            blocks: 100,
            errors: ErrorCounts::default(),
            state: *state,
        };
        MembershipLabel {
            features: Features::default(),
            pool: Uuid([9; 16]),
            device: Uuid([1; 16]),
            number: 4,
            generation: Generation(20),
            vdev: VdevId(0),
            leaf: 0,
            end: End::Front,
            configuration_hash: 7,
            leaf_blocks: 100,
            lengths: Vec::new(),
            members: members.iter().map(member).collect(),
        }
    }

    #[test]
    fn of_two_labels_with_one_number_the_worse_holds_for_each_member() {
        use MemberState::{Faulted, Offline, Online, Resilvering};
        let told = |one, other, both, differ: bool| {
            let (one, other, both) = (
                label(&[(1, Online, 0), one]),
                label(&[(1, Online, 0), other]),
                label(&[(1, Online, 0), both]),
            );
            for (one, other) in [(&one, &other), (&other, &one)] {
                let mut found = one.clone();
                assert_eq!(agree(&mut found, other), differ, "{one:?} {other:?}");
                // Of two that are no good, which they are is all one.
                found.members[1].state = match found.members[1].state {
                    Online => Online,
                    _ => both.members[1].state,
                };
                assert_eq!(found, both);
            }
        };
        told((2, Online, 0), (2, Online, 0), (2, Online, 0), false);
        told((2, Online, 0), (2, Faulted, 8), (2, Faulted, 8), true);
        told((2, Resilvering, 5), (2, Resilvering, 8), (2, Resilvering, 5), false);
        told((2, Offline, 12), (2, Faulted, 8), (2, Offline, 8), true);

        // What the other one says is of another device.
        let mut found = label(&[(2, Online, 0)]);
        assert!(!agree(&mut found, &label(&[(3, Faulted, 8)])));
        assert_eq!(found, label(&[(2, Online, 0)]));
    }
}
