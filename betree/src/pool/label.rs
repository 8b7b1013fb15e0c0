//! The label areas of one leaf: reading every slot and saying what is in it.

use super::format::{
    AREA_BLOCKS, End, LABEL_SLOTS, MembershipLabel, RING_SLOTS, SlotError, Superblock, ZERO_BLOCK,
};
use crate::base::buffer::AlignedBuffer;
use crate::base::ids::{Generation, Uuid};
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::vdev::{BlockDevice, VdevError};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// What a block of a label area is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotUse {
    /// Slot of the membership label.
    Label(u8),
    /// Slot of the superblock ring.
    Superblock(u8),
    /// Reserved.
    Reserved,
}

impl SlotUse {
    /// The use of block `index` of an area.
    fn of(index: u64) -> Self {
        if index < LABEL_SLOTS {
            Self::Label(index as u8)
        } else if index < LABEL_SLOTS + RING_SLOTS {
            Self::Superblock((index - LABEL_SLOTS) as u8)
        } else {
            Self::Reserved
        }
    }
}

impl fmt::Display for SlotUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(slot) => write!(f, "label slot {slot}"),
            Self::Superblock(slot) => write!(f, "superblock slot {slot}"),
            Self::Reserved => f.write_str("reserved block"),
        }
    }
}

/// What a block of a label area holds.
#[derive(Debug, Clone)]
pub enum SlotContent {
    /// Zeros.
    Empty,
    /// A superblock in its place.
    Superblock(Box<Superblock>),
    /// A membership label in its place.
    Label(Box<MembershipLabel>),
    /// Something else.
    Invalid(SlotError),
    /// The device failed to read it.
    Unreadable(Arc<VdevError>),
}

impl SlotContent {
    /// Whether something was here that cannot be read any more.
    fn is_damaged(&self) -> bool {
        match self {
            Self::Invalid(error) => !matches!(error, SlotError::Foreign { .. }),
            Self::Unreadable(_) => true,
            Self::Empty | Self::Superblock(_) | Self::Label(_) => false,
        }
    }

    /// Whether this is something of this format, sound or damaged.
    pub(super) fn is_of_this_format(&self) -> bool {
        match self {
            Self::Superblock(_) | Self::Label(_) => true,
            Self::Invalid(error) => *error != SlotError::NotOurs,
            Self::Empty | Self::Unreadable(_) => false,
        }
    }
}

impl fmt::Display for SlotContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::Superblock(superblock) => {
                write!(
                    f,
                    "superblock of generation {} of pool {}, vdev {} leaf {}",
                    superblock.generation, superblock.pool, superblock.vdev, superblock.leaf
                )
            }
            Self::Label(label) => {
                write!(f, "membership label {} of pool {}, vdev {}", label.number, label.pool, label.vdev)
            }
            Self::Invalid(error) => error.fmt(f),
            Self::Unreadable(error) => error.fmt(f),
        }
    }
}

/// One block of a label area, for people and checkers.
#[derive(Debug, Clone)]
pub struct SlotDump {
    /// Name of the device.
    pub device: String,
    /// Which area.
    pub end: End,
    /// What the block is for.
    pub slot: SlotUse,
    /// Block number on the device.
    pub block: u64,
    /// What it holds.
    pub content: SlotContent,
}

impl fmt::Display for SlotDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} (block {}): {}", self.device, self.end, self.slot, self.block, self.content)
    }
}

/// Whose device it is: pool and device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub pool: Uuid,
    pub device: Uuid,
}

impl Identity {
    fn of(superblock: &Superblock) -> Self {
        Self { pool: superblock.pool, device: superblock.device }
    }
}

/// What the label areas of one leaf say.
#[derive(Debug)]
pub(super) struct LeafScan {
    /// Every label and superblock slot, and reserved blocks that are not zero.
    pub slots: Vec<SlotDump>,
    /// `None` without a valid superblock, or when those of one area contradict each other.
    pub identity: Option<Identity>,
    /// Whether both areas were read and hold nothing but zeros.
    pub is_blank: bool,
}

/// Reads both label areas of `device` and says what each slot holds; nothing is written.
///
/// The back area is looked for at every length that a superblock of the front area records, and at the end of the
/// device, where it is when the front area is lost or records only the length before the device grew.
#[must_use]
pub fn dump_device(device: &dyn BlockDevice) -> Vec<SlotDump> {
    scan(device).slots
}

pub(super) fn scan(device: &dyn BlockDevice) -> LeafScan {
    let blocks = device.len() / BLOCK_BYTES_U64;
    if blocks < 2 * AREA_BLOCKS {
        return LeafScan { slots: Vec::new(), identity: None, is_blank: false };
    }
    let (mut slots, front_blank) = read_area(device, End::Front, blocks);
    let front = identities(&slots);
    let recorded: BTreeSet<u64> = superblocks(&slots)
        .map(|superblock| superblock.device_blocks)
        .filter(|recorded| *recorded <= blocks)
        .collect();
    let (at_end, back_blank) = read_area(device, End::Back, blocks);
    if front.is_empty() {
        slots.extend(at_end);
    } else {
        for length in &recorded {
            slots.extend(read_area(device, End::Back, *length).0);
        }
        if !recorded.contains(&blocks) {
            // A device that grew, and the front copy that recorded it is lost or not yet written. What a stranger left
            // at the new end is none of our business; what may have been ours is.
            slots.extend(at_end.into_iter().filter(|slot| match &slot.content {
                SlotContent::Superblock(found) => front.contains(&Identity::of(found)),
                SlotContent::Invalid(error) => matches!(error, SlotError::Checksum { .. }),
                SlotContent::Empty | SlotContent::Label(_) | SlotContent::Unreadable(_) => false,
            }));
        }
    }
    // The front area decides whose device it is: what lies at the end of a grown device may be anybody's.
    let candidates = if front.is_empty() { identities(&slots) } else { front };
    let identity = if candidates.len() == 1 { candidates.first().copied() } else { None };
    if let Some(identity) = identity {
        for slot in &mut slots {
            disown(&mut slot.content, identity);
        }
    }
    LeafScan { slots, identity, is_blank: front_blank && back_blank }
}

fn superblocks(slots: &[SlotDump]) -> impl Iterator<Item = &Superblock> {
    slots.iter().filter_map(|slot| match &slot.content {
        SlotContent::Superblock(superblock) => Some(&**superblock),
        _ => None,
    })
}

fn identities(slots: &[SlotDump]) -> BTreeSet<Identity> {
    superblocks(slots).map(Identity::of).collect()
}

/// Turns a block of another pool or device into an invalid one.
fn disown(content: &mut SlotContent, identity: Identity) {
    let (pool, device) = match content {
        SlotContent::Superblock(superblock) => (superblock.pool, superblock.device),
        SlotContent::Label(label) => (label.pool, label.device),
        SlotContent::Empty | SlotContent::Invalid(_) | SlotContent::Unreadable(_) => return,
    };
    if (Identity { pool, device }) != identity {
        *content = SlotContent::Invalid(SlotError::Foreign { pool, device });
    }
}

/// Reads one area; also says whether all of it is zero.
fn read_area(device: &dyn BlockDevice, end: End, device_blocks: u64) -> (Vec<SlotDump>, bool) {
    let first = end.area(device_blocks).start;
    let mut area = AlignedBuffer::zeroed(AREA_BLOCKS as usize * BLOCK_BYTES);
    let whole = device.read_at(&mut area, first * BLOCK_BYTES_U64).is_ok();
    let mut blank = true;
    let mut slots = Vec::new();
    for (index, bytes) in (0..AREA_BLOCKS).zip(area.chunks_exact_mut(BLOCK_BYTES)) {
        let block = first + index;
        // One bad sector must not hide the slots beside it.
        let read = if whole { Ok(()) } else { device.read_at(bytes, block * BLOCK_BYTES_U64) };
        let slot = SlotUse::of(index);
        let content = match read {
            Err(error) => SlotContent::Unreadable(Arc::new(error)),
            Ok(()) => decode(slot, end, device_blocks, bytes),
        };
        let empty = matches!(content, SlotContent::Empty);
        blank &= empty;
        if slot != SlotUse::Reserved || !empty {
            slots.push(SlotDump { device: device.name().to_owned(), end, slot, block, content });
        }
    }
    (slots, blank)
}

/// Decodes `bytes` as what belongs into `slot` of the `end` area of a device of `device_blocks` blocks.
fn decode(slot: SlotUse, end: End, device_blocks: u64, bytes: &[u8]) -> SlotContent {
    if bytes == ZERO_BLOCK {
        return SlotContent::Empty;
    }
    match slot {
        SlotUse::Reserved => SlotContent::Invalid(SlotError::NotOurs),
        SlotUse::Label(index) => match MembershipLabel::decode(bytes) {
            Err(error) => SlotContent::Invalid(error),
            Ok(label) if (label.end, label.slot()) == (end, index) => SlotContent::Label(Box::new(label)),
            Ok(label) => SlotContent::Invalid(SlotError::Misplaced {
                end: label.end,
                slot: label.slot(),
                device_blocks: 0,
            }),
        },
        SlotUse::Superblock(index) => match Superblock::decode(bytes) {
            Err(error) => SlotContent::Invalid(error),
            Ok(superblock) => {
                let in_place = (superblock.end, superblock.slot) == (end, index)
                    && (end == End::Front || superblock.device_blocks == device_blocks);
                if in_place {
                    SlotContent::Superblock(Box::new(superblock))
                } else {
                    SlotContent::Invalid(SlotError::Misplaced {
                        end: superblock.end,
                        slot: superblock.slot,
                        device_blocks: superblock.device_blocks,
                    })
                }
            }
        },
    }
}

impl LeafScan {
    /// Valid superblocks of this device, with where they are.
    pub fn superblocks(&self) -> impl Iterator<Item = (&SlotDump, &Superblock)> {
        self.slots.iter().filter_map(|slot| match &slot.content {
            SlotContent::Superblock(superblock) => Some((slot, &**superblock)),
            _ => None,
        })
    }

    /// The valid superblock with the highest generation; of two equal ones, that of the front.
    pub fn newest(&self) -> Option<&Superblock> {
        let mut newest: Option<&Superblock> = None;
        for (_, superblock) in self.superblocks() {
            if newest.is_none_or(|newest| superblock.generation > newest.generation) {
                newest = Some(superblock);
            }
        }
        newest
    }

    /// The newest membership label of this device.
    pub fn label(&self) -> Option<&MembershipLabel> {
        let labels = self.slots.iter().filter_map(|slot| match &slot.content {
            SlotContent::Label(label) => Some(&**label),
            _ => None,
        });
        labels.max_by_key(|label| label.number)
    }

    /// The highest generation that a valid superblock or label of this device names.
    pub fn highest_seen(&self) -> Generation {
        let named = self.slots.iter().map(|slot| match &slot.content {
            SlotContent::Superblock(superblock) => superblock.highest_seen,
            SlotContent::Label(label) => label.generation,
            _ => Generation(0),
        });
        named.max().unwrap_or_default()
    }

    /// Slots that held something which cannot be read any more, and blocks of somebody else.
    pub fn bad(&self) -> impl Iterator<Item = &SlotDump> {
        self.slots
            .iter()
            .filter(|slot| matches!(slot.content, SlotContent::Invalid(_) | SlotContent::Unreadable(_)))
    }

    /// Slots that begin as what belongs there, and have another checksum.
    pub fn torn(&self) -> impl Iterator<Item = &SlotDump> {
        let is_torn =
            |slot: &&SlotDump| matches!(slot.content, SlotContent::Invalid(SlotError::Checksum { .. }));
        self.slots.iter().filter(is_torn)
    }

    /// Whether ring slot `index` is damaged at both ends.
    pub fn lost_both(&self, index: u8) -> bool {
        let damaged = |slot: &&SlotDump| slot.slot == SlotUse::Superblock(index) && slot.content.is_damaged();
        End::BOTH.iter().all(|end| self.slots.iter().filter(damaged).any(|slot| slot.end == *end))
    }

    /// What is in the way of creating a pool here; `None` when the device is blank.
    pub fn in_the_way(&self) -> Option<String> {
        if self.is_blank {
            return None;
        }
        if let Some(newest) = self.newest() {
            return Some(format!("pool {} at generation {}", newest.pool, newest.generation));
        }
        let written = self.slots.iter().find(|slot| !matches!(slot.content, SlotContent::Empty));
        Some(written.map_or_else(
            || "data".to_owned(),
            |slot| format!("data in block {} ({})", slot.block, slot.content),
        ))
    }

    /// The superblock or label that a newer version wrote, unless it is somebody else's.
    pub fn newer(&self) -> Option<(u32, u64)> {
        self.slots.iter().find_map(|slot| match &slot.content {
            SlotContent::Invalid(SlotError::Newer { pool, version, incompat })
                if self.identity.is_none_or(|identity| identity.pool == *pool) =>
            {
                Some((*version, *incompat))
            }
            _ => None,
        })
    }

    /// The first read that failed.
    pub fn read_error(&self) -> Option<Arc<VdevError>> {
        self.slots.iter().find_map(|slot| match &slot.content {
            SlotContent::Unreadable(error) => Some(Arc::clone(error)),
            _ => None,
        })
    }

    /// Whether a slot holds something of this format, sound or damaged.
    pub fn has_our_magic(&self) -> bool {
        self.slots.iter().any(|slot| slot.content.is_of_this_format())
    }
}
