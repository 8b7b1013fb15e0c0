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
use crate::run::{Run, RunRef};
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
        let birth = input.generation("birth").map_err(plain)?;
        // Unborn extents are given back with their last owner: here, extents of somebody else.
        if birth.0 == 0 {
            return Err(plain(input.invalid("birth")));
        }
        let length = input.u32("length").map_err(plain)?;
        let checksum = input.u32("checksum").map_err(plain)?;
        if length > 256 << 20 {
            return Err(plain(input.invalid("length")));
        }
        let extents = StoredExtents::decode(input, dmu)?;
        Ok(Self { level, birth, length, checksum, extents })
    }
}

/// The bytes of a node up to its slots, of which there is one more than pivots.
fn start_node(level: u8, pool: Uuid, generation: Generation, pivots: &[Box<[u8]>]) -> Encoder {
    let mut out = Encoder::with_capacity(4096);
    out.raw(MAGIC);
    out.u16(VERSION);
    out.u8(level);
    out.u8(0);
    out.raw(&pool.0);
    out.u64(generation.0);
    out.u32(pivots.len() as u32 + 1);
    for pivot in pivots {
        out.bytes(pivot);
    }
    out
}

/// The bytes of a node whose children are all on disk.
///
/// # Errors
/// None today; a child without a pointer is a defect of the caller.
pub(super) fn encode_node(body: &NodeBody, pool: Uuid, generation: Generation) -> Result<Vec<u8>, DmuError> {
    let mut out = start_node(body.level, pool, generation, &body.pivots);
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

/// A node header as its bytes say, nothing behind it opened. What it refers to may be damaged, and its fields may
/// contradict each other: [`decode_node`] checks that, and so does whoever verifies.
#[derive(Debug)]
pub(crate) struct NodeImage {
    pub(crate) level: u8,
    pub(crate) generation: Generation,
    pub(crate) pivots: Vec<Box<[u8]>>,
    pub(crate) slots: Vec<SlotImage>,
}

/// A slot of a [`NodeImage`]. An error is that of a list of extents in blocks of its own, or of a reference.
#[derive(Debug)]
pub(crate) struct SlotImage {
    /// Base runs, the last of `runs`.
    pub(crate) base: usize,
    pub(crate) runs: Vec<Result<RunRef, DmuError>>,
    pub(crate) child: Option<Result<NodeRef, DmuError>>,
}

impl NodeImage {
    /// Reads what [`encode_node`] wrote.
    ///
    /// # Errors
    /// Bytes that are not a node of this pool.
    pub(crate) fn decode(bytes: &[u8], dmu: &Dmu, pool: Uuid) -> Result<Self, DmuError> {
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
        let generation = input.generation("generation").map_err(plain)?;
        let count = input.count(SLOTS_MAX, "slots").map_err(plain)?;
        if count == 0 {
            return Err(plain(input.invalid("slots")));
        }
        let pivot = |input: &mut Decoder<'_>| input.bytes(KEY_BYTES_MAX, "pivot").map(Into::into);
        let pivots =
            (1..count).map(|_| pivot(&mut input)).collect::<Result<_, DecodeError>>().map_err(plain)?;
        let slots =
            (0..count).map(|_| SlotImage::decode(&mut input, dmu, level)).collect::<Result<_, DmuError>>()?;
        input.finish("node header").map_err(plain)?;
        Ok(Self { level, generation, pivots, slots })
    }
}

impl NodeImage {
    /// The bytes of the header; `None` when something that it refers to could not be read.
    pub(crate) fn encode(&self, pool: Uuid) -> Option<Vec<u8>> {
        let mut out = start_node(self.level, pool, self.generation, &self.pivots);
        for slot in &self.slots {
            out.u16(slot.runs.len() as u16);
            out.u16(slot.base as u16);
            for run in &slot.runs {
                let mut reference = Encoder::new();
                run.as_ref().ok()?.encode(&mut reference);
                out.u32(reference.len() as u32);
                out.raw(reference.as_slice());
            }
            if let Some(child) = &slot.child {
                child.as_ref().ok()?.encode(&mut out);
            }
        }
        Some(out.finish())
    }
}

impl SlotImage {
    fn decode(input: &mut Decoder<'_>, dmu: &Dmu, level: u8) -> Result<Self, DmuError> {
        let plain = |source: DecodeError| DmuError::Decode { what: "node header", source };
        let count = usize::from(input.u16("runs").map_err(plain)?);
        let base = usize::from(input.u16("base runs").map_err(plain)?);
        if base > count || (level > 1 && base > 0) {
            return Err(plain(input.invalid("base runs")));
        }
        let mut runs = Vec::new();
        for _ in 0..count {
            let length = input.count(RUN_REF_BYTES_MAX, "run pointer length").map_err(plain)?;
            let mut reference = Decoder::new(input.raw(length, "run pointer").map_err(plain)?);
            let run = RunRef::decode(&mut reference, dmu);
            runs.push(run.and_then(|run| match reference.finish("run reference") {
                Ok(()) => Ok(run),
                Err(source) => Err(DmuError::Decode { what: "run reference", source }),
            }));
        }
        let child = match level {
            1 => None,
            _ => match NodeRef::decode(input, dmu) {
                // What follows cannot be found.
                Err(error @ DmuError::Decode { .. }) => return Err(error),
                child => Some(child),
            },
        };
        Ok(Self { base, runs, child })
    }
}

/// Reads what [`encode_node`] wrote.
///
/// # Errors
/// Anything that is not a well-formed node of this pool.
pub(super) fn decode_node(bytes: &[u8], dmu: &Dmu, pool: Uuid) -> Result<NodeBody, DmuError> {
    let invalid = |field: &'static str| DmuError::Decode {
        what: "node header",
        source: DecodeError { field, offset: 0, reason: "value not legal" },
    };
    let NodeImage { level, generation, pivots, slots } = NodeImage::decode(bytes, dmu, pool)?;
    if pivots.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(invalid("pivot"));
    }
    let slot = |image: SlotImage| {
        let mut runs = Vec::with_capacity(image.runs.len());
        for run in image.runs {
            let run = run?;
            // Whoever drops a run that was never born gives its blocks back: what is on a device is not that.
            if run.birth.0 == 0 || run.birth > generation {
                return Err(invalid("run birth"));
            }
            runs.push(Run::open(dmu, run));
        }
        let child = match image.child {
            None => None,
            Some(reference) => {
                let reference = reference?;
                if reference.level + 1 != level || reference.birth > generation {
                    return Err(invalid("child pointer"));
                }
                Some(NodeCell::on_disk(dmu, reference))
            }
        };
        Ok(Arc::new(Slot::new(runs, image.base, child)))
    };
    let slots = slots.into_iter().map(slot).collect::<Result<_, DmuError>>()?;
    Ok(NodeBody { level, pivots, slots })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::preference::StoragePreference;
    use crate::dmu::Privilege;
    use crate::run::{RunRef, testing};

    /// A pointer from a device is of something that a checkpoint contains. One that says otherwise is damaged, and must not
    /// give back the extents that it names.
    #[test]
    fn pointers_to_what_was_never_born_are_refused_and_free_nothing() {
        let (dmu, _devices) = testing::memory(&[4096], 0);
        let mut random = testing::Random(1);
        let entries = testing::entries(&mut random, 50, testing::Keys::Random);
        let run = testing::write(&dmu, crate::run::RunOptions::default(), &entries);
        let free = || dmu.available_blocks(0, Privilege::System);
        let before = free();
        for birth in [0, 3] {
            let mut out = Encoder::new();
            RunRef { birth: Generation(birth), ..run.reference().clone() }.encode(&mut out);
            assert_eq!(Run::from_reference(&dmu, out.as_slice()).is_ok(), birth > 0);
            let extents = dmu.store_extents(run.space().extents().to_vec(), StoragePreference::NONE).unwrap();
            let reference = NodeRef { level: 1, birth: Generation(birth), length: 100, checksum: 0, extents };
            let mut out = Encoder::new();
            reference.encode(&mut out);
            let decoded = NodeRef::decode(&mut Decoder::new(out.as_slice()), &dmu);
            assert_eq!(decoded.map(|found| drop(NodeCell::on_disk(&dmu, found))).is_ok(), birth > 0);
        }
        assert_eq!(free(), before);
    }
}
