//! P0: the label areas of every device, slot by slot.

use super::code::Code;
use super::finding::Finding;
use super::ledger::Ledger;
use crate::base::ids::Generation;
use crate::base::units::BLOCK_BYTES_U64;
use crate::pool::format::{End, SlotError, Superblock, next_slot};
use crate::pool::{Members, SlotContent, SlotDump, SlotUse, can_restore, dump_device};
use std::collections::BTreeMap;

/// What is in the slots.
#[derive(Debug)]
pub(super) struct Slots {
    /// Per device.
    devices: Vec<Vec<SlotDump>>,
}

impl Slots {
    pub fn read(members: &Members) -> Self {
        Self { devices: members.durable().map(|device| dump_device(&**device)).collect() }
    }

    fn superblocks(&self) -> impl Iterator<Item = (&SlotDump, &Superblock)> {
        self.devices.iter().flatten().filter_map(superblock)
    }

    /// The newest superblock.
    pub fn newest(&self) -> Option<&Superblock> {
        self.superblocks().map(|(_, found)| found).max_by_key(|found| found.generation)
    }

    /// A superblock of `generation`.
    pub fn of(&self, generation: Generation) -> Option<&Superblock> {
        self.superblocks().map(|(_, found)| found).find(|found| found.generation == generation)
    }

    /// Every generation in the ring, newest first, with the number of copies.
    pub fn generations(&self) -> Vec<(&Superblock, usize)> {
        let mut all: BTreeMap<Generation, (&Superblock, usize)> = BTreeMap::new();
        for (_, found) in self.superblocks() {
            all.entry(found.generation).or_insert((found, 0)).1 += 1;
        }
        all.into_values().rev().collect()
    }

    /// Damaged slots that can be made anew from their twin.
    pub fn restorable(&self) -> usize {
        let restorable = |slots: &Vec<SlotDump>| slots.iter().filter(|slot| can_restore(slots, slot)).count();
        self.devices.iter().map(restorable).sum()
    }

    /// Damaged slots that make a finding and have no good twin.
    pub fn lost(&self) -> usize {
        let newest = self.newest();
        let mut lost = 0;
        for slots in &self.devices {
            for slot in slots {
                let (code, _) = match judge(slot, newest) {
                    Judgement::Bad(code, found) => (code, found),
                    Judgement::Fine | Judgement::Torn => continue,
                };
                lost += usize::from(code == Code::Padding || !can_restore(slots, slot));
            }
        }
        lost
    }

    pub fn check(&self, ledger: &mut Ledger<'_>) {
        let newest = self.newest();
        for slot in self.devices.iter().flatten() {
            match judge(slot, newest) {
                Judgement::Fine => {}
                Judgement::Torn => ledger.note(format!("{slot}: of a commit that did not end")),
                Judgement::Bad(code, found) => {
                    report(ledger, code, slot, "a superblock or label in its place, or zeros", found);
                }
            }
        }
        self.check_ring(ledger);
        self.check_copies(ledger);
        if let Some(newest) = newest {
            self.note_stale(newest, ledger);
        }
    }

    /// Each generation is one slot further than the one before it.
    fn check_ring(&self, ledger: &mut Ledger<'_>) {
        for slots in &self.devices {
            for (slot, found) in slots.iter().filter_map(superblock) {
                let before = slots
                    .iter()
                    .filter_map(superblock)
                    .find(|(other, before)| other.end == slot.end && before.generation == found.previous);
                if let Some((_, before)) = before
                    && next_slot(before.slot) != found.slot
                {
                    let expected =
                        format!("generation {} in slot {}", found.generation, next_slot(before.slot));
                    report(ledger, Code::Ring, slot, &expected, format!("in slot {}", found.slot));
                }
                // Who lacked something then said so.
                let own = found.member_sequences.get(usize::from(found.leaf));
                if own.is_none_or(|own| *own > found.generation.0) {
                    let expected =
                        format!("a device that holds no more than generation {}", found.generation);
                    report(ledger, Code::Ring, slot, &expected, format!("{own:?}"));
                }
            }
        }
    }

    /// All superblocks of one generation name one root.
    fn check_copies(&self, ledger: &mut Ledger<'_>) {
        let mut first: BTreeMap<Generation, (&SlotDump, &Superblock)> = BTreeMap::new();
        for (slot, found) in self.superblocks() {
            let (_, one) = *first.entry(found.generation).or_insert((slot, found));
            let root = |of: &Superblock| (of.previous, of.slot, of.segment_blocks, of.features, of.pool);
            if one.payload != found.payload || one.topology != found.topology || root(one) != root(found) {
                let expected = format!("the root of generation {} as elsewhere", found.generation);
                report(ledger, Code::Diverged, slot, &expected, "another one".to_owned());
            }
        }
    }

    fn note_stale(&self, newest: &Superblock, ledger: &mut Ledger<'_>) {
        for slots in &self.devices {
            for end in End::BOTH {
                let mut here = slots.iter().filter_map(superblock).filter(|(slot, _)| slot.end == end);
                if !here.any(|(_, found)| found.generation == newest.generation)
                    && let Some(slot) = slots.first()
                {
                    let (device, newest) = (&slot.device, newest.generation);
                    ledger.note(format!("{device}: the {end} area does not have generation {newest} yet"));
                }
            }
        }
    }
}

fn superblock(slot: &SlotDump) -> Option<(&SlotDump, &Superblock)> {
    match &slot.content {
        SlotContent::Superblock(found) => Some((slot, &**found)),
        _ => None,
    }
}

enum Judgement {
    Fine,
    /// As a crash inside of a commit may leave it.
    Torn,
    Bad(Code, String),
}

/// What to make of a slot, where `newest` is the newest superblock of the pool.
fn judge(slot: &SlotDump, newest: Option<&Superblock>) -> Judgement {
    let bad = |code| Judgement::Bad(code, slot.content.to_string());
    match &slot.content {
        SlotContent::Empty | SlotContent::Superblock(_) | SlotContent::Label(_) => Judgement::Fine,
        SlotContent::Unreadable(_) => bad(Code::Slot),
        SlotContent::Invalid(error) => match error {
            SlotError::Checksum { .. } | SlotError::NotOurs if is_under_way(slot, newest) => Judgement::Torn,
            SlotError::NotOurs if slot.slot == SlotUse::Reserved => bad(Code::Padding),
            SlotError::Field(field) if field.reason == "not zero" => bad(Code::Padding),
            SlotError::Foreign { .. } => bad(Code::Members),
            _ => bad(Code::Slot),
        },
    }
}

/// Whether a crash may have torn the slot: a commit writes the front of the slot behind that of the newest superblock;
/// when that is valid somewhere, it is the newest, and copies of it may be torn.
fn is_under_way(slot: &SlotDump, newest: Option<&Superblock>) -> bool {
    // Of a vdev with several members, a label may be torn at any time; it goes where the newest one is not.
    if matches!(slot.slot, SlotUse::Label(_)) {
        return newest.is_some_and(|newest| newest.topology.entries.iter().any(|entry| entry.leaf_count > 1));
    }
    let (SlotUse::Superblock(number), Some(newest)) = (slot.slot, newest) else { return false };
    number == newest.slot || (slot.end == End::Front && number == next_slot(newest.slot))
}

fn report(ledger: &mut Ledger<'_>, code: Code, slot: &SlotDump, expected: &str, found: String) {
    ledger.push(Finding {
        code,
        object: format!("{} {}", slot.end, slot.slot),
        device: Some(slot.device.clone()),
        offset: Some(slot.block * BLOCK_BYTES_U64),
        expected: expected.to_owned(),
        found,
    });
}
