//! Frozen bytes of the label areas of a leaf: superblocks and membership labels, format version 1.
//!
//! # Where
//!
//! A durable leaf of `n` blocks of 4 KiB starts and ends with a label area of 16 blocks; the blocks between belong to
//! the allocator. Block numbers are those of the leaf (offset 0 is its first byte).
//!
//! | block of the area | what |
//! |---|---|
//! | 0–1 | membership label; slot = its number mod 2 |
//! | 2–9 | superblock ring; each generation in the slot behind that of the generation before it |
//! | 10–15 | reserved, zero |
//!
//! The front area is blocks `0…15`, the back area `n−16…n−1`, with `n` as *recorded* in the superblock: a device that
//! grew keeps its old back area until a generation that records the new length is durable.
//!
//! # Superblock (one block)
//!
//! | offset | bytes | field | unit | meaning | threat guarded |
//! |---|---|---|---|---|---|
//! | 0 | 8 | magic | | `betreeSB` | other data taken for a superblock |
//! | 8 | 4 | version | | 1 | older program, newer bytes |
//! | 12 | 4 | reserved | | 0 | |
//! | 16 | 8 | incompat | bits | features without which nothing may be read | newer pool misread |
//! | 24 | 8 | ro-compat | bits | features without which nothing may be written | newer pool damaged by a write |
//! | 32 | 8 | compat | bits | features that may be ignored | |
//! | 40 | 16 | pool | uuid | random, at create | foreign device |
//! | 56 | 16 | device | uuid | random, at create | duplicated device |
//! | 72 | 8 | generation | checkpoint | 1 to 2^39 | stale superblock |
//! | 80 | 8 | previous | checkpoint | generation committed before, 0 for none | fallback past depth 1 |
//! | 88 | 8 | highest seen | checkpoint | highest generation seen anywhere, ≥ generation | silent rollback, generation reused |
//! | 96 | 4 | vdev | id | the own top-level vdev | wrong order of paths |
//! | 100 | 1 | tier | | 0…3 | device moved to another tier |
//! | 101 | 1 | kind | | 0 leaf, 1 mirror, 2 parity1, 3 parity2 | layout misread |
//! | 102 | 1 | leaf | index | position within the top-level vdev | legs swapped |
//! | 103 | 1 | leaf count | count | 1…16 | leg left out |
//! | 104 | 1 | end | | 0 front, 1 back | misdirected write |
//! | 105 | 1 | slot | index | in the ring: one more than that of *previous*, mod 8 | misdirected write |
//! | 106 | 1 | retired count | count | 0…16 | |
//! | 107 | 1 | topology count | count | 1…96 | |
//! | 108 | 4 | next vdev | id | above every id ever used, ≤ 65,536 | id reused |
//! | 112 | 8 | device length | blocks | says where the back area is | truncated device |
//! | 120 | 4 | segment length | blocks | power of two, 8…262,144 | bitmaps misread |
//! | 124 | 4 | payload length | bytes | ≤ 2,560 | |
//! | 128 | 8 | configuration hash | | XXH3-64 of the topology entries | members of different layouts |
//! | 136 | 120 | reserved | | 0 | |
//! | 256 | 128 | member sequences | checkpoint | u64 each: newest generation of which leaf i holds everything, 0 for memory; 0 past the count | stale or diverged leg |
//! | 384 | 128 | retired | blocks | u64 each: earlier device lengths, ascending, whose back areas are never allocated; 0 past the count | old back area reused |
//! | 512 | 768 | topology | | 8 bytes each, see below; 0 past the count | missing vdev |
//! | 1280 | 252 | reserved | | 0 | |
//! | 1532 | 2560 | payload | | of the layer above (the database's root record); 0 past the length | |
//! | 4092 | 4 | checksum | | CRC-32C of bytes 0…4091 | torn write, bit rot |
//!
//! Topology entry, ascending by id: vdev id (u32), tier (u8), kind (u8), leaf count (u8), state (u8: 0 durable,
//! 1 volatile, 2 indirect).
//!
//! # Membership label (one block)
//!
//! Who missed what. It has a number of its own, so that a member can be recorded as missing without a checkpoint. Mirrors and
//! parity have one from their first commit on, a single leaf when an error on it was counted.
//!
//! | offset | bytes | field | unit | meaning | threat guarded |
//! |---|---|---|---|---|---|
//! | 0 | 8 | magic | | `betreeLB` | other data taken for a label |
//! | 8 | 64 | version … device | | as in the superblock | as there |
//! | 72 | 8 | number | count | counts the labels of this top-level vdev, with gaps, 1…2^62-1 | stale label |
//! | 80 | 8 | generation | checkpoint | highest seen when it was written | silent rollback |
//! | 88 | 4 | vdev | id | as above | wrong order of paths |
//! | 92 | 1 | leaf | index | as above | legs swapped |
//! | 93 | 1 | leaf count | count | 1…16 | leg left out |
//! | 94 | 1 | end | | as above | misdirected write |
//! | 95 | 1 | slot | index | number mod 2 | misdirected write |
//! | 96 | 8 | configuration hash | | as above | members of different layouts |
//! | 104 | 8 | leaf length | blocks | of every leaf the vdev uses so many, the fewest that one has | extents beyond the end of a shorter leg |
//! | 112 | 1 | length count | count | 0…64 | |
//! | 113 | 143 | reserved | | 0 | |
//! | 256 | 1280 | members | | 80 bytes each, see below; 0 past the count | stale leg trusted |
//! | 1536 | 512 | lengths | blocks | u64 each: lengths that leaves have or had and whose back areas reach below the leaf length, ascending; 0 past the count | back area of an absent leg overwritten |
//! | 2048 | 2044 | reserved | | 0 | |
//! | 4092 | 4 | checksum | | CRC-32C of bytes 0…4091 | torn write, bit rot |
//!
//! Member: device uuid (16 bytes, 0 for memory), first generation missed (u64, 0 none), since (u64, seconds since 1970, 0
//! unknown), recorded length in blocks (u64), failed reads, failed writes and flushes, wrong blocks, repaired blocks (u64
//! each), state (u8: 1 online, 2 missing, 3 resilvering, 4 faulted, 5 offline), 7 × 0. An entry past the leaf count is zero.
//!
//! # Why this order
//!
//! Slots rotate by commit and not by generation, because generations may skip numbers: those of the last two commits
//! are never overwritten, whatever the next generation is.
//!
//! Bytes 0…71 and the checksum stay where they are in every later version, so that any program can say whose device it
//! is and that it is too new. Decoding is strict: a block that is not exactly what [`Superblock::encode`] or
//! [`MembershipLabel::encode`] writes is refused, zero padding included.
//!
//! # History
//!
//! * Version 1: first format. Before mirrors and parity existed no membership label was written.

use crate::base::checksum::crc;
use crate::base::codec::{DecodeError, Decoder, Encoder};
use crate::base::ids::{Generation, Uuid, VdevId};
use crate::base::preference::TIER_COUNT;
use crate::base::units::BLOCK_BYTES;
use std::fmt;
use std::ops::Range;
use thiserror::Error;

/// Blocks of a label area; one at each end of a durable leaf.
pub const AREA_BLOCKS: u64 = 16;
/// Slots of the membership label in an area, from its first block.
pub const LABEL_SLOTS: u64 = 2;
/// Slots of the superblock ring in an area, behind the label slots.
pub const RING_SLOTS: u64 = 8;
/// The smallest leaf: both areas and as much again.
pub const DEVICE_BLOCKS_MIN: u64 = 64;
/// Longest device in blocks: block numbers of extents have 52 bits.
const DEVICE_BLOCKS_MAX: u64 = 1 << 52;
/// Legs of one top-level vdev.
pub const LEAVES_MAX: usize = 16;
/// Top-level vdevs of a pool.
pub const TOPOLOGY_MAX: usize = 96;
/// Vdev ids in the life of a pool; they index a table.
pub const VDEV_IDS_MAX: u32 = 1 << 16;
/// How often a device can grow.
pub const RETIRED_MAX: usize = 16;
/// Bytes that the layer above may store in a superblock.
pub const PAYLOAD_BYTES_MAX: usize = 2560;
/// Shortest segment in blocks.
pub const SEGMENT_BLOCKS_MIN: u32 = 8;
/// Longest segment in blocks: 1 GiB, whose bitmap has 32 KiB.
pub const SEGMENT_BLOCKS_MAX: u32 = 1 << 18;

const SUPERBLOCK_MAGIC: &[u8; 8] = b"betreeSB";
const LABEL_MAGIC: &[u8; 8] = b"betreeLB";
const VERSION: u32 = 1;
/// Features that this program knows.
const KNOWN: Features = Features { incompat: 0, ro_compat: 0, compat: 0 };

/// A block of zeros, to compare with.
pub(super) const ZERO_BLOCK: &[u8; BLOCK_BYTES] = &[0; BLOCK_BYTES];

/// Lengths that a membership label lists.
pub const LENGTHS_MAX: usize = 64;

/// Bound of the numbers of labels: counting on from any of them cannot overflow.
const LABEL_NUMBERS: u64 = 1 << 62;

const MEMBERS_AT: usize = 256;
const RETIRED_AT: usize = 384;
const TOPOLOGY_AT: usize = 512;
const TOPOLOGY_END: usize = TOPOLOGY_AT + TOPOLOGY_MAX * TopologyEntry::ENCODED_BYTES;
const PAYLOAD_AT: usize = 1532;
const CHECKSUM_AT: usize = BLOCK_BYTES - 4;
const LENGTHS_AT: usize = MEMBERS_AT + LEAVES_MAX * Member::ENCODED_BYTES;
const LENGTHS_END: usize = LENGTHS_AT + LENGTHS_MAX * 8;

/// Which label area of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// The first 16 blocks.
    Front,
    /// The last 16 blocks of the recorded length.
    Back,
}

impl End {
    /// Both ends, in the order in which they are written.
    pub const BOTH: [Self; 2] = [Self::Front, Self::Back];

    const fn tag(self) -> u8 {
        match self {
            Self::Front => 0,
            Self::Back => 1,
        }
    }

    const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            0 => Some(Self::Front),
            1 => Some(Self::Back),
            _ => None,
        }
    }

    /// Blocks of this area on a leaf of `device_blocks` (≥ [`DEVICE_BLOCKS_MIN`]) blocks.
    #[must_use]
    pub fn area(self, device_blocks: u64) -> Range<u64> {
        match self {
            Self::Front => 0..AREA_BLOCKS,
            Self::Back => device_blocks.saturating_sub(AREA_BLOCKS)..device_blocks,
        }
    }

    /// Block of ring slot `slot` (below [`RING_SLOTS`]) in this area.
    #[must_use]
    pub fn superblock_block(self, device_blocks: u64, slot: u8) -> u64 {
        self.area(device_blocks).start + LABEL_SLOTS + u64::from(slot)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Front => "front",
            Self::Back => "back",
        })
    }
}

/// The ring slot behind `slot`.
#[must_use]
pub fn next_slot(slot: u8) -> u8 {
    ((u64::from(slot) + 1) % RING_SLOTS) as u8
}

/// How the leaves of a top-level vdev share its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VdevKind {
    /// One device.
    Leaf,
    /// Copies.
    Mirror,
    /// One parity column.
    Parity1,
    /// Two parity columns.
    Parity2,
}

impl VdevKind {
    const fn tag(self) -> u8 {
        match self {
            Self::Leaf => 0,
            Self::Mirror => 1,
            Self::Parity1 => 2,
            Self::Parity2 => 3,
        }
    }

    const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            0 => Some(Self::Leaf),
            1 => Some(Self::Mirror),
            2 => Some(Self::Parity1),
            3 => Some(Self::Parity2),
            _ => None,
        }
    }

    /// Whether a vdev of this kind can have `count` leaves.
    const fn takes(self, count: u8) -> bool {
        match self {
            Self::Leaf => count == 1,
            Self::Mirror => count >= 2 && count as usize <= LEAVES_MAX,
            Self::Parity1 => count >= 3 && count as usize <= LEAVES_MAX,
            Self::Parity2 => count >= 4 && count as usize <= LEAVES_MAX,
        }
    }
}

impl fmt::Display for VdevKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaf => "leaf",
            Self::Mirror => "mirror",
            Self::Parity1 => "parity1",
            Self::Parity2 => "parity2",
        })
    }
}

/// What the topology says about the contents of a vdev.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VdevState {
    /// Has labels on every leaf.
    Durable,
    /// Memory: no label, empty at every open.
    Volatile,
    /// Evacuated: only a map to where its blocks went.
    Indirect,
}

impl VdevState {
    const fn tag(self) -> u8 {
        match self {
            Self::Durable => 0,
            Self::Volatile => 1,
            Self::Indirect => 2,
        }
    }

    const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            0 => Some(Self::Durable),
            1 => Some(Self::Volatile),
            2 => Some(Self::Indirect),
            _ => None,
        }
    }
}

/// One top-level vdev of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopologyEntry {
    /// Stable id.
    pub id: VdevId,
    /// Tier, 0…3.
    pub tier: u8,
    /// How its leaves share its blocks.
    pub kind: VdevKind,
    /// Number of leaves; 0 only for an indirect vdev.
    pub leaf_count: u8,
    /// Durable, volatile or indirect.
    pub state: VdevState,
}

impl TopologyEntry {
    const ENCODED_BYTES: usize = 8;

    fn encode(&self, out: &mut Encoder) {
        out.u32(self.id.0);
        out.u8(self.tier);
        out.u8(self.kind.tag());
        out.u8(self.leaf_count);
        out.u8(self.state.tag());
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let id = VdevId(input.u32("topology vdev id")?);
        let tier = input.u8("topology tier")?;
        let kind = VdevKind::from_tag(input.u8("topology kind")?);
        let leaf_count = input.u8("topology leaf count")?;
        let state = VdevState::from_tag(input.u8("topology state")?);
        let (Some(kind), Some(state)) = (kind, state) else {
            return Err(input.invalid("topology entry"));
        };
        let counted = kind.takes(leaf_count) || (state == VdevState::Indirect && leaf_count == 0);
        if usize::from(tier) >= TIER_COUNT || !counted {
            return Err(input.invalid("topology entry"));
        }
        Ok(Self { id, tier, kind, leaf_count, state })
    }
}

/// All top-level vdevs of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Ascending by id; 1…[`TOPOLOGY_MAX`].
    pub entries: Vec<TopologyEntry>,
    /// The id that the next vdev gets; above every id ever used.
    pub next_vdev: u32,
}

impl Topology {
    /// Hash over all entries, the same on every leaf.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut out = Encoder::with_capacity(self.entries.len() * TopologyEntry::ENCODED_BYTES);
        self.entries.iter().for_each(|entry| entry.encode(&mut out));
        xxhash_rust::xxh3::xxh3_64(out.as_slice())
    }

    /// The entry of `id`.
    #[must_use]
    pub fn entry(&self, id: VdevId) -> Option<&TopologyEntry> {
        self.entries.binary_search_by_key(&id, |entry| entry.id).ok().map(|at| &self.entries[at])
    }

    fn is_legal(&self) -> bool {
        (1..=TOPOLOGY_MAX).contains(&self.entries.len())
            && self.entries.windows(2).all(|pair| pair[0].id < pair[1].id)
            && self.entries.last().is_some_and(|last| last.id.0 < self.next_vdev)
            && self.next_vdev <= VDEV_IDS_MAX
    }
}

/// Feature words: bits that later versions set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// A program that does not know a bit may not read.
    pub incompat: u64,
    /// A program that does not know a bit may not write.
    pub ro_compat: u64,
    /// A program that does not know a bit may ignore it.
    pub compat: u64,
}

impl Features {
    /// Bits that allow reading only to programs that know them, and that this one does not know.
    #[must_use]
    pub fn unknown_ro_compat(&self) -> u64 {
        self.ro_compat & !KNOWN.ro_compat
    }
}

/// Why a slot holds no superblock or label.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SlotError {
    /// Another magic: not written by this format.
    #[error("not ours")]
    NotOurs,
    /// Torn or rotten.
    #[error("checksum {computed:08x} differs from the stored {stored:08x}")]
    Checksum {
        /// In the block.
        stored: u32,
        /// Of the block.
        computed: u32,
    },
    /// Sound, but made by a newer version.
    #[error("written by a newer version (format {version}, unknown features {incompat:#x})")]
    Newer {
        /// The pool that it belongs to.
        pool: Uuid,
        /// Format version.
        version: u32,
        /// Incompatible features that this version does not know.
        incompat: u64,
    },
    /// The checksum is right and a field is not.
    #[error(transparent)]
    Field(#[from] DecodeError),
    /// A sound block that belongs elsewhere on the device.
    #[error("belongs to another place ({end} area, slot {slot}, device of {device_blocks} blocks)")]
    Misplaced {
        /// The end that it names.
        end: End,
        /// The slot that it names.
        slot: u8,
        /// The device length that it names, in blocks; 0 for a label.
        device_blocks: u64,
    },
    /// A sound block of another pool or device than the rest of this device.
    #[error("belongs to device {device} of pool {pool}")]
    Foreign {
        /// The other pool.
        pool: Uuid,
        /// The other device.
        device: Uuid,
    },
}

/// The first 72 bytes, which no version changes.
struct Head {
    features: Features,
    pool: Uuid,
    device: Uuid,
}

/// Bytes of the magic with which a superblock or label begins.
pub(super) const MAGIC_BYTES: usize = 8;

fn encode_head(out: &mut Encoder, magic: &[u8; 8], head: &Head) {
    out.raw(magic);
    out.u32(VERSION);
    out.u32(0);
    out.u64(head.features.incompat);
    out.u64(head.features.ro_compat);
    out.u64(head.features.compat);
    out.raw(&head.pool.0);
    out.raw(&head.device.0);
}

/// Checks magic, checksum, version and features, in this order; `bytes` is one block.
fn decode_head<'a>(bytes: &'a [u8], magic: &[u8; 8]) -> Result<(Head, Decoder<'a>), SlotError> {
    let mut input = Decoder::new(bytes);
    if bytes.len() != BLOCK_BYTES || input.raw(8, "magic")? != magic {
        return Err(SlotError::NotOurs);
    }
    let mut trailer = Decoder::new(&bytes[CHECKSUM_AT..]);
    let stored = trailer.u32("checksum")?;
    let computed = crc(&bytes[..CHECKSUM_AT]);
    if stored != computed {
        return Err(SlotError::Checksum { stored, computed });
    }
    let version = input.u32("version")?;
    let reserved = input.u32("reserved")?;
    let features = Features {
        incompat: input.u64("incompat features")?,
        ro_compat: input.u64("ro-compat features")?,
        compat: input.u64("compat features")?,
    };
    let pool = input.uuid("pool uuid")?;
    let device = input.uuid("device uuid")?;
    let unknown = features.incompat & !KNOWN.incompat;
    if version > VERSION || unknown != 0 {
        return Err(SlotError::Newer { pool, version, incompat: unknown });
    }
    if version != VERSION || reserved != 0 {
        return Err(input.invalid("version").into());
    }
    Ok((Head { features, pool, device }, input))
}

fn seal(mut out: Encoder) -> Vec<u8> {
    assert!(out.len() <= CHECKSUM_AT, "the fields fit into the block");
    out.pad_to(CHECKSUM_AT);
    let sum = crc(out.as_slice());
    out.u32(sum);
    out.finish()
}

/// Skips reserved bytes up to `end`, which must be zero.
fn zeros(input: &mut Decoder<'_>, end: usize, field: &'static str) -> Result<(), DecodeError> {
    let offset = input.position();
    let bytes = input.raw(end.saturating_sub(offset), field)?;
    if ZERO_BLOCK.get(..bytes.len()) == Some(bytes) {
        return Ok(());
    }
    match bytes.iter().position(|byte| *byte != 0) {
        None => Ok(()),
        Some(at) => Err(DecodeError { field, offset: offset + at, reason: "not zero" }),
    }
}

/// The root of a pool as one leaf holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Feature words.
    pub features: Features,
    /// The pool.
    pub pool: Uuid,
    /// The leaf.
    pub device: Uuid,
    /// Of the checkpoint.
    pub generation: Generation,
    /// Committed before it; 0 for none.
    pub previous: Generation,
    /// Highest generation seen anywhere when it was written.
    pub highest_seen: Generation,
    /// The leaf's top-level vdev.
    pub vdev: VdevId,
    /// Tier of the top-level vdev.
    pub tier: u8,
    /// Kind of the top-level vdev.
    pub kind: VdevKind,
    /// Index of the leaf in its top-level vdev.
    pub leaf: u8,
    /// Leaves of the top-level vdev.
    pub leaf_count: u8,
    /// Which area this copy is for.
    pub end: End,
    /// Slot in the ring.
    pub slot: u8,
    /// Length of the leaf in blocks.
    pub device_blocks: u64,
    /// Length of a segment in blocks.
    pub segment_blocks: u32,
    /// Newest generation of which each leaf of the top-level vdev holds everything, 0 for memory; `leaf_count` entries.
    pub member_sequences: Vec<u64>,
    /// Earlier lengths of the leaf in blocks, ascending: their back areas are never allocated.
    pub retired: Vec<u64>,
    /// All top-level vdevs.
    pub topology: Topology,
    /// What the layer above stored; at most [`PAYLOAD_BYTES_MAX`] bytes.
    pub payload: Vec<u8>,
}

impl Superblock {
    /// The 4096 bytes of the block.
    ///
    /// # Panics
    /// When a field exceeds its limit.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.is_legal(), "a superblock is legal before it is written");
        let mut out = Encoder::with_capacity(BLOCK_BYTES);
        let head = Head { features: self.features, pool: self.pool, device: self.device };
        encode_head(&mut out, SUPERBLOCK_MAGIC, &head);
        out.u64(self.generation.0);
        out.u64(self.previous.0);
        out.u64(self.highest_seen.0);
        out.u32(self.vdev.0);
        out.raw(&[self.tier, self.kind.tag(), self.leaf, self.leaf_count]);
        out.raw(&[self.end.tag(), self.slot, self.retired.len() as u8, self.topology.entries.len() as u8]);
        out.u32(self.topology.next_vdev);
        out.u64(self.device_blocks);
        out.u32(self.segment_blocks);
        out.u32(self.payload.len() as u32);
        out.u64(self.topology.hash());
        out.pad_to(MEMBERS_AT);
        self.member_sequences.iter().for_each(|sequence| out.u64(*sequence));
        out.pad_to(RETIRED_AT);
        self.retired.iter().for_each(|blocks| out.u64(*blocks));
        out.pad_to(TOPOLOGY_AT);
        self.topology.entries.iter().for_each(|entry| entry.encode(&mut out));
        out.pad_to(PAYLOAD_AT);
        out.raw(&self.payload);
        seal(out)
    }

    /// Reads one block.
    ///
    /// # Errors
    /// [`SlotError`] unless it is exactly what [`Superblock::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, SlotError> {
        let (head, mut input) = decode_head(bytes, SUPERBLOCK_MAGIC)?;
        let generation = input.generation("generation")?;
        let previous = input.generation("previous generation")?;
        let highest_seen = input.generation("highest generation seen")?;
        let vdev = VdevId(input.u32("vdev id")?);
        let tier = input.u8("tier")?;
        let kind = VdevKind::from_tag(input.u8("vdev kind")?).ok_or_else(|| input.invalid("vdev kind"))?;
        let leaf = input.u8("leaf")?;
        let leaf_count = input.u8("leaf count")?;
        let end = End::from_tag(input.u8("end")?).ok_or_else(|| input.invalid("end"))?;
        let slot = input.u8("slot")?;
        let retired_count = usize::from(input.u8("retired count")?);
        let topology_count = usize::from(input.u8("topology count")?);
        let next_vdev = input.u32("next vdev id")?;
        let device_blocks = input.u64("device length")?;
        let segment_blocks = input.u32("segment length")?;
        let payload_length = input.count(PAYLOAD_BYTES_MAX, "payload length")?;
        let hash = input.u64("configuration hash")?;
        zeros(&mut input, MEMBERS_AT, "reserved")?;
        if usize::from(leaf_count) > LEAVES_MAX
            || retired_count > RETIRED_MAX
            || topology_count > TOPOLOGY_MAX
        {
            return Err(input.invalid("counts").into());
        }
        let member_sequences = numbers(&mut input, usize::from(leaf_count), RETIRED_AT, "member sequences")?;
        let retired = numbers(&mut input, retired_count, TOPOLOGY_AT, "retired lengths")?;
        let entries = (0..topology_count)
            .map(|_| TopologyEntry::decode(&mut input))
            .collect::<Result<Vec<_>, DecodeError>>()?;
        zeros(&mut input, TOPOLOGY_END, "topology")?;
        zeros(&mut input, PAYLOAD_AT, "reserved")?;
        let payload = input.raw(payload_length, "payload")?.to_vec();
        zeros(&mut input, CHECKSUM_AT, "payload padding")?;
        let superblock = Self {
            features: head.features,
            pool: head.pool,
            device: head.device,
            generation,
            previous,
            highest_seen,
            vdev,
            tier,
            kind,
            leaf,
            leaf_count,
            end,
            slot,
            device_blocks,
            segment_blocks,
            member_sequences,
            retired,
            topology: Topology { entries, next_vdev },
            payload,
        };
        if !superblock.is_legal() || superblock.topology.hash() != hash {
            return Err(input.invalid("superblock").into());
        }
        Ok(superblock)
    }

    /// Whether the fields agree with each other and keep their limits.
    fn is_legal(&self) -> bool {
        let lengths: Vec<u64> = self.retired.iter().copied().chain([self.device_blocks]).collect();
        let own = self.topology.entry(self.vdev);
        self.generation.0 >= 1
            && self.previous < self.generation
            && self.highest_seen >= self.generation
            && self.leaf < self.leaf_count
            && u64::from(self.slot) < RING_SLOTS
            && self.member_sequences.len() == usize::from(self.leaf_count)
            && self.retired.len() <= RETIRED_MAX
            && lengths.iter().all(|blocks| (DEVICE_BLOCKS_MIN..=DEVICE_BLOCKS_MAX).contains(blocks))
            && lengths.windows(2).all(|pair| pair[0] + AREA_BLOCKS <= pair[1])
            && is_segment_length(self.segment_blocks)
            && self.payload.len() <= PAYLOAD_BYTES_MAX
            && self.topology.is_legal()
            && own.is_some_and(|own| {
                (own.tier, own.kind, own.leaf_count, own.state)
                    == (self.tier, self.kind, self.leaf_count, VdevState::Durable)
            })
    }
}

/// Whether a segment may have `blocks` blocks.
#[must_use]
pub fn is_segment_length(blocks: u32) -> bool {
    (SEGMENT_BLOCKS_MIN..=SEGMENT_BLOCKS_MAX).contains(&blocks) && blocks.is_power_of_two()
}

/// Reads `count` numbers, then zeros up to `end`.
fn numbers(
    input: &mut Decoder<'_>,
    count: usize,
    end: usize,
    field: &'static str,
) -> Result<Vec<u64>, DecodeError> {
    let values = (0..count).map(|_| input.u64(field)).collect::<Result<Vec<_>, DecodeError>>()?;
    zeros(input, end, field)?;
    Ok(values)
}

/// What a leaf of a top-level vdev is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// Holds everything.
    Online,
    /// Takes writes, and lacks some of what was written while it was away.
    Resilvering,
    /// A write or a flush of it failed: it is not used any more.
    Faulted,
    /// Taken out of use by an administrator.
    Offline,
    /// Not there.
    Missing,
}

impl MemberState {
    pub(super) const fn tag(self) -> u8 {
        match self {
            Self::Online => 1,
            Self::Missing => 2,
            Self::Resilvering => 3,
            Self::Faulted => 4,
            Self::Offline => 5,
        }
    }

    pub(super) const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Online),
            2 => Some(Self::Missing),
            3 => Some(Self::Resilvering),
            4 => Some(Self::Faulted),
            5 => Some(Self::Offline),
            _ => None,
        }
    }

    /// Whether writes go to it.
    #[must_use]
    pub const fn is_written(self) -> bool {
        matches!(self, Self::Online | Self::Resilvering)
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online => "online",
            Self::Resilvering => "resilvering",
            Self::Faulted => "faulted",
            Self::Offline => "offline",
            Self::Missing => "missing",
        })
    }
}

/// What went wrong on a leaf in its life in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErrorCounts {
    /// Reads that failed.
    pub read: u64,
    /// Writes and flushes that failed.
    pub write: u64,
    /// Blocks of 4 KiB that were not what was written there.
    pub checksum: u64,
    /// Blocks of 4 KiB that were written anew.
    pub repaired: u64,
}

/// One leaf in a membership label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The leaf; all zero for memory.
    pub device: Uuid,
    /// First generation that it missed something of; 0 when it is online.
    pub missed_from: Generation,
    /// Since when it is in its state, in seconds since 1970; 0 when that is not known.
    pub since: u64,
    /// Its recorded length in blocks.
    pub blocks: u64,
    /// What went wrong on it.
    pub errors: ErrorCounts,
    /// Its state.
    pub state: MemberState,
}

impl Member {
    const ENCODED_BYTES: usize = 80;

    fn encode(&self, out: &mut Encoder) {
        out.raw(&self.device.0);
        let ErrorCounts { read, write, checksum, repaired } = self.errors;
        for value in [self.missed_from.0, self.since, self.blocks, read, write, checksum, repaired] {
            out.u64(value);
        }
        out.u8(self.state.tag());
        out.raw(&[0; 7]);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let device = input.uuid("member device")?;
        let missed_from = input.generation("member generation")?;
        let since = input.ordinal("member since")?;
        let blocks = input.u64("member length")?;
        let errors = ErrorCounts {
            read: input.ordinal("member read errors")?,
            write: input.ordinal("member write errors")?,
            checksum: input.ordinal("member checksum errors")?,
            repaired: input.ordinal("member repaired blocks")?,
        };
        let state =
            MemberState::from_tag(input.u8("member state")?).ok_or_else(|| input.invalid("member state"))?;
        let padded = input.position() + 7;
        zeros(input, padded, "member padding")?;
        Ok(Self { device, missed_from, since, blocks, errors, state })
    }
}

/// Who missed what in one top-level vdev.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipLabel {
    /// Feature words.
    pub features: Features,
    /// The pool.
    pub pool: Uuid,
    /// The leaf that holds this copy.
    pub device: Uuid,
    /// Counts the labels of this vdev, from 1, with gaps.
    pub number: u64,
    /// Highest generation seen when it was written.
    pub generation: Generation,
    /// The top-level vdev.
    pub vdev: VdevId,
    /// Index of the leaf that holds this copy.
    pub leaf: u8,
    /// Which area this copy is for.
    pub end: End,
    /// [`Topology::hash`].
    pub configuration_hash: u64,
    /// Blocks of each leaf that the vdev uses.
    pub leaf_blocks: u64,
    /// Lengths that leaves have or had and whose back areas reach below `leaf_blocks`, ascending; at most [`LENGTHS_MAX`].
    pub lengths: Vec<u64>,
    /// One entry per leaf, 1…[`LEAVES_MAX`].
    pub members: Vec<Member>,
}

impl MembershipLabel {
    /// Slot in its area.
    #[must_use]
    pub fn slot(&self) -> u8 {
        (self.number % LABEL_SLOTS) as u8
    }

    /// The 4096 bytes of the block.
    ///
    /// # Panics
    /// When a field exceeds its limit.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.is_legal(), "a label is legal before it is written");
        let mut out = Encoder::with_capacity(BLOCK_BYTES);
        let head = Head { features: self.features, pool: self.pool, device: self.device };
        encode_head(&mut out, LABEL_MAGIC, &head);
        out.u64(self.number);
        out.u64(self.generation.0);
        out.u32(self.vdev.0);
        out.raw(&[self.leaf, self.members.len() as u8, self.end.tag(), self.slot()]);
        out.u64(self.configuration_hash);
        out.u64(self.leaf_blocks);
        out.u8(self.lengths.len() as u8);
        out.pad_to(MEMBERS_AT);
        self.members.iter().for_each(|member| member.encode(&mut out));
        out.pad_to(LENGTHS_AT);
        self.lengths.iter().for_each(|blocks| out.u64(*blocks));
        seal(out)
    }

    /// Reads one block.
    ///
    /// # Errors
    /// [`SlotError`] unless it is exactly what [`MembershipLabel::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, SlotError> {
        let (head, mut input) = decode_head(bytes, LABEL_MAGIC)?;
        let number = input.ordinal("number")?;
        let generation = input.generation("generation")?;
        let vdev = VdevId(input.u32("vdev id")?);
        let leaf = input.u8("leaf")?;
        let leaf_count = usize::from(input.u8("leaf count")?);
        let end = End::from_tag(input.u8("end")?).ok_or_else(|| input.invalid("end"))?;
        let slot = input.u8("slot")?;
        let configuration_hash = input.u64("configuration hash")?;
        let leaf_blocks = input.u64("leaf length")?;
        let length_count = usize::from(input.u8("length count")?);
        zeros(&mut input, MEMBERS_AT, "reserved")?;
        if leaf_count > LEAVES_MAX || length_count > LENGTHS_MAX {
            return Err(input.invalid("counts").into());
        }
        let members =
            (0..leaf_count).map(|_| Member::decode(&mut input)).collect::<Result<Vec<_>, DecodeError>>()?;
        zeros(&mut input, LENGTHS_AT, "members")?;
        let lengths = numbers(&mut input, length_count, LENGTHS_END, "lengths")?;
        zeros(&mut input, CHECKSUM_AT, "reserved")?;
        let label = Self {
            features: head.features,
            pool: head.pool,
            device: head.device,
            number,
            generation,
            vdev,
            leaf,
            end,
            configuration_hash,
            leaf_blocks,
            lengths,
            members,
        };
        if !label.is_legal() || slot != label.slot() || label.number >= LABEL_NUMBERS {
            return Err(input.invalid("membership label").into());
        }
        Ok(label)
    }

    fn is_legal(&self) -> bool {
        self.number >= 1
            && self.members.len() <= LEAVES_MAX
            && usize::from(self.leaf) < self.members.len()
            && self.vdev.0 < VDEV_IDS_MAX
            && self.leaf_blocks <= DEVICE_BLOCKS_MAX
            && self.lengths.len() <= LENGTHS_MAX
            && self.lengths.windows(2).all(|pair| pair[0] < pair[1])
            && self.lengths.iter().all(|blocks| (DEVICE_BLOCKS_MIN..=DEVICE_BLOCKS_MAX).contains(blocks))
            && self
                .members
                .iter()
                .all(|member| (member.state == MemberState::Online) == (member.missed_from.0 == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(first: u8) -> Uuid {
        Uuid(std::array::from_fn(|index| first + index as u8))
    }

    fn sample() -> Superblock {
        let entry = |id, tier, kind, leaf_count, state| TopologyEntry {
            id: VdevId(id),
            tier,
            kind,
            leaf_count,
            state,
        };
        Superblock {
            features: Features::default(),
            pool: uuid(0x10),
            device: uuid(0x40),
            generation: Generation(0x0102_0304),
            previous: Generation(0x0102_0303),
            highest_seen: Generation(0x0102_0305),
            vdev: VdevId(2),
            tier: 1,
            kind: VdevKind::Mirror,
            leaf: 1,
            leaf_count: 3,
            end: End::Back,
            slot: 4,
            device_blocks: 0x10_0000,
            segment_blocks: 1 << 18,
            member_sequences: vec![0x0102_0304, 0x0102_0304, 7],
            retired: vec![0x1000, 0x8000],
            topology: Topology {
                entries: vec![
                    entry(0, 0, VdevKind::Leaf, 1, VdevState::Volatile),
                    entry(2, 1, VdevKind::Mirror, 3, VdevState::Durable),
                    entry(3, 3, VdevKind::Leaf, 0, VdevState::Indirect),
                ],
                next_vdev: 5,
            },
            payload: b"root".to_vec(),
        }
    }

    fn label() -> MembershipLabel {
        let member = |first, missed, state| Member {
            device: uuid(first),
            missed_from: Generation(missed),
            since: 0x6000_0000 + missed,
            blocks: 0x1000,
            errors: ErrorCounts { read: missed, write: 2, checksum: 3, repaired: 4 },
            state,
        };
        MembershipLabel {
            features: Features::default(),
            pool: uuid(0x10),
            device: uuid(0x40),
            number: 5,
            generation: Generation(9),
            vdev: VdevId(2),
            leaf: 1,
            end: End::Front,
            configuration_hash: 0x1122_3344_5566_7788,
            leaf_blocks: 0x1000,
            lengths: vec![0x800, 0x1000],
            members: vec![
                member(0x30, 0, MemberState::Online),
                member(0x40, 0, MemberState::Online),
                member(0x50, 8, MemberState::Missing),
            ],
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Puts the right checksum on changed bytes, so that the checks behind it are reached.
    fn reseal(bytes: &mut [u8]) {
        let sum = crc(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
    }

    #[test]
    fn golden_bytes_of_a_superblock() {
        let bytes = sample().encode();
        assert_eq!(bytes.len(), BLOCK_BYTES);
        let parts = [
            (0, "62657472656553420100000000000000"),
            (16, "000000000000000000000000000000000000000000000000"),
            (40, "101112131415161718191a1b1c1d1e1f404142434445464748494a4b4c4d4e4f"),
            (72, "040302010000000003030201000000000503020100000000"),
            (96, "0200000001010103010402030500000000001000000000000000040004000000"),
            (256, "040302010000000004030201000000000700000000000000"),
            (384, "00100000000000000080000000000000"),
            (512, "000000000000010102000000010103000300000003000002"),
            (1532, "726f6f7400000000"),
        ];
        for (offset, want) in parts {
            assert_eq!(hex(&bytes[offset..offset + want.len() / 2]), want, "bytes at {offset}");
        }
        assert_eq!(hex(&bytes[128..136]), "364a23c9200c7d1b");
        assert_eq!(hex(&bytes[CHECKSUM_AT..]), "87751847");
        assert_eq!(Superblock::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn numbers_that_cannot_be_counted_on_from_are_refused() {
        // The highest generation seen, alone and with that of the superblock: they are in order.
        for fields in [&[88][..], &[72, 88]] {
            let mut bytes = sample().encode();
            for field in fields {
                bytes[*field..field + 8].copy_from_slice(&u64::MAX.to_le_bytes());
            }
            reseal(&mut bytes);
            assert!(Superblock::decode(&bytes).is_err(), "{fields:?}");
        }
        // Number, generation, and of a member: missed from, since, read, write, checksum, repaired.
        for field in [72, 80, 272, 280, 296, 304, 312, 320] {
            let mut bytes = label().encode();
            bytes[field..field + 8].copy_from_slice(&u64::MAX.to_le_bytes());
            reseal(&mut bytes);
            assert!(MembershipLabel::decode(&bytes).is_err(), "{field}");
        }
    }

    #[test]
    fn golden_bytes_of_a_membership_label() {
        let bytes = label().encode();
        assert_eq!(bytes.len(), BLOCK_BYTES);
        let parts = [
            (0, "6265747265654c420100000000000000"),
            (72, "0500000000000000090000000000000002000000010300018877665544332211"),
            (104, "00100000000000000200000000000000"),
            (256, "303132333435363738393a3b3c3d3e3f00000000000000000000006000000000"),
            (288, "0010000000000000000000000000000002000000000000000300000000000000"),
            (320, "04000000000000000100000000000000"),
            (416, "505152535455565758595a5b5c5d5e5f08000000000000000800006000000000"),
            (448, "0010000000000000080000000000000002000000000000000300000000000000"),
            (480, "04000000000000000200000000000000"),
            (1536, "000800000000000000100000000000000000000000000000"),
        ];
        for (offset, want) in parts {
            assert_eq!(hex(&bytes[offset..offset + want.len() / 2]), want, "bytes at {offset}");
        }
        assert_eq!(hex(&bytes[CHECKSUM_AT..]), "5873cd33");
        assert_eq!(MembershipLabel::decode(&bytes), Ok(label()));
    }

    #[test]
    fn the_largest_superblock_round_trips() {
        let entries = (0..TOPOLOGY_MAX as u32).map(|id| TopologyEntry {
            id: VdevId(id * 3),
            tier: (id % 4) as u8,
            kind: VdevKind::Mirror,
            leaf_count: 16,
            state: VdevState::Durable,
        });
        let largest = Superblock {
            tier: 1,
            vdev: VdevId(3),
            leaf: 15,
            leaf_count: 16,
            member_sequences: vec![u64::MAX; LEAVES_MAX],
            retired: (0..RETIRED_MAX as u64).map(|at| 64 + 16 * at).collect(),
            topology: Topology { entries: entries.collect(), next_vdev: VDEV_IDS_MAX },
            payload: vec![0xff; PAYLOAD_BYTES_MAX],
            ..sample()
        };
        assert_eq!(Superblock::decode(&largest.encode()), Ok(largest));
    }

    #[test]
    fn every_changed_byte_is_refused_behind_a_right_checksum_or_is_a_value() {
        // Whatever decodes must encode to the same bytes: nothing is ignored.
        let good = sample().encode();
        let mut accepted = 0;
        for at in 0..CHECKSUM_AT {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= flip;
                assert!(Superblock::decode(&bytes).is_err(), "byte {at} without a new checksum");
                reseal(&mut bytes);
                if let Ok(superblock) = Superblock::decode(&bytes) {
                    assert_eq!(superblock.encode(), bytes, "byte {at}");
                    accepted += 1;
                }
            }
        }
        assert!(accepted > 0);
        let good = label().encode();
        for at in 0..CHECKSUM_AT {
            let mut bytes = good.clone();
            bytes[at] ^= 0x81;
            assert!(MembershipLabel::decode(&bytes).is_err(), "byte {at} without a new checksum");
            reseal(&mut bytes);
            if let Ok(label) = MembershipLabel::decode(&bytes) {
                assert_eq!(label.encode(), bytes, "byte {at}");
            }
        }
    }

    #[test]
    fn padding_must_be_zero() {
        let mut bytes = sample().encode();
        for at in [12, 140, 280, 400, 536, 1279, 1280, 1531, 1536, CHECKSUM_AT - 1] {
            bytes[at] = 1;
            reseal(&mut bytes);
            assert!(matches!(Superblock::decode(&bytes), Err(SlotError::Field(_))), "byte {at}");
            bytes[at] = 0;
        }
        reseal(&mut bytes);
        assert_eq!(Superblock::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn newer_bytes_are_named_as_such() {
        for (at, value) in [(8, 2), (16, 1), (23, 0x80)] {
            let mut bytes = sample().encode();
            bytes[at] = value;
            reseal(&mut bytes);
            let error = Superblock::decode(&bytes).unwrap_err();
            assert!(matches!(error, SlotError::Newer { pool, .. } if pool == uuid(0x10)), "{error}");
            assert!(error.to_string().contains("written by a newer version"));
        }
        let mut bytes = sample().encode();
        bytes[24] = 4;
        bytes[32] = 8;
        reseal(&mut bytes);
        let superblock = Superblock::decode(&bytes).unwrap();
        assert_eq!(superblock.features.unknown_ro_compat(), 4);
        assert_eq!(superblock.encode(), bytes, "feature words survive");
    }

    #[test]
    fn short_and_other_blocks_are_not_ours() {
        for length in [0, 7, 8, 100, 4092, 4095] {
            assert_eq!(Superblock::decode(&sample().encode()[..length]), Err(SlotError::NotOurs));
        }
        assert_eq!(Superblock::decode(&label().encode()), Err(SlotError::NotOurs));
        assert_eq!(Superblock::decode(&[0; BLOCK_BYTES]), Err(SlotError::NotOurs));
    }
}
