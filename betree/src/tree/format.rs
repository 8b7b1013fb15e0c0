//! Frozen bytes: node headers and the pointer to one.
//!
//! Node header, little-endian, format version 1:
//!
//! | offset | bytes | field | unit | meaning | threat guarded |
//! |---|---|---|---|---|---|
//! | 0 | 8 | magic | | `BETRNODE` | misdirected or lost write |
//! | 8 | 2 | version | | 1 | format drift |
//! | 10 | 1 | level | | 1: above the leaves' runs | cycle, wrong child |
//! | 11 | 1 | flags | | 0 | unknown additions |
//! | 12 | 16 | pool | uuid | owner | foreign device |
//! | 28 | 8 | generation | checkpoint | that wrote the node | stale node |
//! | 36 | 4 | slots | count | 1…65,536 | |
//! | 40 | … | pivots | | slots − 1 times varint length, bytes | keys out of order |
//! | … | … | slots | | each: u16 runs, u16 base runs, run pointers (each u32 length, bytes), then above level 1 the child's pointer | |
//!
//! Node pointer: level u8, birth u64, length u32 (bytes), crc32c u32, then the extent list of the data-management unit.
//!
//! The checksum of a header is in its pointer, that of the root in the superblock: one Merkle tree.
//! History: version 1, the first.

use super::node::{NodeBody, NodeCell, Slot};
use crate::base::codec::{DecodeError, Decoder, Encoder};
use crate::base::ids::{Generation, Uuid};
use crate::dmu::{Dmu, DmuError, StoredExtents};
use crate::run::Run;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"BETRNODE";
const VERSION: u16 = 1;
/// More slots than any legal fan-out splits into.
const SLOTS_MAX: usize = 1 << 16;
/// Longest key, with room for the successor of the longest user key.
pub(crate) const KEY_BYTES_MAX: usize = (64 << 10) + 64;
/// Highest level that a tree of at most 2^64 entries can reach, generously.
const LEVEL_MAX: u8 = 32;
const RUN_REF_BYTES_MAX: usize = 4 * KEY_BYTES_MAX;

/// Pointer to a node on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRef {
    /// Level of the node.
    pub level: u8,
    /// Generation of the checkpoint that wrote it.
    pub birth: Generation,
    /// Length in bytes.
    pub length: u32,
    /// crc32c of those bytes.
    pub checksum: u32,
    /// Where it is.
    pub extents: StoredExtents,
}

impl NodeRef {
    /// Appends the pointer's bytes.
    pub fn encode(&self, out: &mut Encoder) {
        out.u8(self.level);
        out.u64(self.birth.0);
        out.u32(self.length);
        out.u32(self.checksum);
        self.extents.encode(out);
    }

    /// Reads what [`NodeRef::encode`] wrote; a spilled extent list is read from the device.
    ///
    /// # Errors
    /// Missing bytes, values that are not legal, device errors.
    pub fn decode(input: &mut Decoder<'_>, dmu: &Dmu) -> Result<Self, DmuError> {
        let plain = |source| DmuError::Decode { what: "node pointer", source };
        let level = input.u8("level").map_err(plain)?;
        if level == 0 || level > LEVEL_MAX {
            return Err(plain(input.invalid("level")));
        }
        let birth = Generation(input.u64("birth").map_err(plain)?);
        let length = input.u32("length").map_err(plain)?;
        let checksum = input.u32("checksum").map_err(plain)?;
        if length > 256 << 20 {
            return Err(plain(input.invalid("length")));
        }
        let extents = StoredExtents::decode(input, dmu)?;
        Ok(Self { level, birth, length, checksum, extents })
    }
}

/// The bytes of a node whose children are all on disk.
///
/// # Errors
/// None today; a child without a pointer is a defect of the caller.
pub(super) fn encode_node(body: &NodeBody, pool: Uuid, generation: Generation) -> Result<Vec<u8>, DmuError> {
    let mut out = Encoder::with_capacity(4096);
    out.raw(MAGIC);
    out.u16(VERSION);
    out.u8(body.level);
    out.u8(0);
    out.raw(&pool.0);
    out.u64(generation.0);
    out.u32(body.slots.len() as u32);
    for pivot in &body.pivots {
        out.bytes(pivot);
    }
    for slot in &body.slots {
        out.u16(slot.runs.len() as u16);
        out.u16(slot.base as u16);
        for run in &slot.runs {
            let mut reference = Encoder::new();
            run.encode_reference(&mut reference);
            out.u32(reference.len() as u32);
            out.raw(reference.as_slice());
        }
        if let Some(child) = &slot.child {
            let Some(reference) = child.reference() else {
                unreachable!("children are stored before their parent");
            };
            reference.encode(&mut out);
        }
    }
    Ok(out.finish())
}

/// Reads what [`encode_node`] wrote.
///
/// # Errors
/// Anything that is not a well-formed node of this pool.
pub(super) fn decode_node(bytes: &[u8], dmu: &Dmu, pool: Uuid) -> Result<NodeBody, DmuError> {
    let plain = |source: DecodeError| DmuError::Decode { what: "node header", source };
    let mut input = Decoder::new(bytes);
    if input.raw(8, "magic").map_err(plain)? != MAGIC {
        return Err(plain(input.invalid("magic")));
    }
    if input.u16("version").map_err(plain)? != VERSION {
        return Err(plain(input.invalid("version")));
    }
    let level = input.u8("level").map_err(plain)?;
    if level == 0 || level > LEVEL_MAX {
        return Err(plain(input.invalid("level")));
    }
    if input.u8("flags").map_err(plain)? != 0 {
        return Err(plain(input.invalid("flags")));
    }
    if input.uuid("pool").map_err(plain)? != pool {
        return Err(plain(input.invalid("pool")));
    }
    let generation = Generation(input.u64("generation").map_err(plain)?);
    let count = input.count(SLOTS_MAX, "slots").map_err(plain)?;
    if count == 0 {
        return Err(plain(input.invalid("slots")));
    }
    let mut pivots: Vec<Box<[u8]>> = Vec::new();
    for _ in 1..count {
        let pivot = input.bytes(KEY_BYTES_MAX, "pivot").map_err(plain)?;
        if pivots.last().is_some_and(|before| **before >= *pivot) {
            return Err(plain(input.invalid("pivot")));
        }
        pivots.push(pivot.into());
    }
    let mut slots = Vec::new();
    for _ in 0..count {
        let runs = usize::from(input.u16("runs").map_err(plain)?);
        let base = usize::from(input.u16("base runs").map_err(plain)?);
        if base > runs || (level > 1 && base > 0) {
            return Err(plain(input.invalid("base runs")));
        }
        let mut decoded = Vec::with_capacity(runs);
        for _ in 0..runs {
            let length = input.count(RUN_REF_BYTES_MAX, "run pointer length").map_err(plain)?;
            let reference = input.raw(length, "run pointer").map_err(plain)?;
            let run = Run::from_reference(dmu, reference)?;
            if run.birth() > generation {
                return Err(plain(input.invalid("run birth")));
            }
            decoded.push(run);
        }
        let child = if level > 1 {
            let reference = NodeRef::decode(&mut input, dmu)?;
            if reference.level != level - 1 || reference.birth > generation {
                return Err(plain(input.invalid("child pointer")));
            }
            Some(NodeCell::on_disk(dmu, reference))
        } else {
            None
        };
        slots.push(Arc::new(Slot::new(decoded, base, child)));
    }
    input.finish("node header").map_err(plain)?;
    Ok(NodeBody { level, pivots, slots })
}
