//! Frozen bytes of the allocation state, format version 1: bitmap slots, allocation table pages, the table root.
//!
//! All numbers are little-endian. Blocks have 4 KiB. A checksum is CRC-32C of all bytes of the structure but its own
//! field.
//!
//! # Bitmap slot
//!
//! Three per segment, written in turn. A header and the bitmap behind it; when both fit one block they share it, else
//! the header has a block of its own and the bitmap starts with the next one (the rest of the header block is zero).
//!
//! | offset | bytes | field | unit, meaning | threat guarded |
//! |---|---|---|---|---|
//! | 0 | 8 | magic | `betreeBM` | other data taken for a bitmap |
//! | 8 | 4 | version | 1 | older program, newer bytes |
//! | 12 | 4 | checksum | also stored in the table entry | torn write, bit rot; stale slot (against the entry) |
//! | 16 | 16 | pool uuid | | slot of an earlier pool |
//! | 32 | 4 | vdev | id | misdirected write |
//! | 36 | 4 | segment | number within the vdev | misdirected write |
//! | 40 | 8 | generation | checkpoint that wrote it, ≥ 1 | lost write, generation reused |
//! | 48 | 8 | base | newest durable checkpoint when it was written, < generation | silent rollback |
//! | 56 | 4 | bits | blocks of a segment | bitmap cut with another segment length |
//! | 60 | 4 | reserved | 0 | |
//! | 64 or 4096 | bits / 8, rounded up to 8 | bitmap | bit i of word i / 64 = block i of the segment, 1 = taken | |
//!
//! Slots, table areas, label areas and blocks behind the end of the device are set in every bitmap.
//!
//! # Table page
//!
//! One block, three slots per page, written in turn: page `p` of a vdev describes its segments `84 p … 84 p + 83`.
//!
//! | offset | bytes | field | unit, meaning | threat guarded |
//! |---|---|---|---|---|
//! | 0 | 8 | magic | `betreeTP` | |
//! | 8 | 4 | version | 1 | |
//! | 12 | 4 | checksum | also stored in the table root | torn write, bit rot; stale page (against the root) |
//! | 16 | 16 | pool uuid | | page of an earlier pool |
//! | 32 | 4 | vdev | id | misdirected write |
//! | 36 | 4 | page | number within the vdev | misdirected write |
//! | 40 | 8 | generation | checkpoint that wrote it | lost write |
//! | 48 | 8 | base | as in the slot | silent rollback |
//! | 56 | 4 | entries | 84 | |
//! | 60 | 4 | reserved | 0 | |
//! | 64 | 84 × 48 | entries | zero for a segment that was never allocated from | |
//!
//! Entry:
//!
//! | offset | bytes | field | unit, meaning | threat guarded |
//! |---|---|---|---|---|
//! | 0 | 1 | slot | 0…2, of the newest bitmap | |
//! | 1 | 1 | previous slot | 0…2, of the bitmap before it; another one | fallback overwritten |
//! | 2 | 2 | reserved | 0 | |
//! | 4 | 4 | checksum | of the newest bitmap slot | lost or stale bitmap write |
//! | 8 | 8 | generation | of the newest bitmap; 0 = never allocated from | as above |
//! | 16 | 8 | previous generation | 0 = only the reserved blocks were set | as above |
//! | 24 | 4 | previous checksum | | as above |
//! | 28 | 4 | free | blocks clear in the newest bitmap | accounting |
//! | 32 | 4 | free in both | blocks clear in both bitmaps | accounting |
//! | 36 | 4 | longest | longest run of clear bits of the newest bitmap, blocks | |
//! | 40 | 8 | reserved | 0 | |
//!
//! # Table root
//!
//! The bytes that the superblock's extent holds. No padding; the length is fixed between two opens.
//!
//! | offset | bytes | field | unit, meaning | threat guarded |
//! |---|---|---|---|---|
//! | 0 | 8 | magic | `betreeAT` | |
//! | 8 | 4 | version | 1 | |
//! | 12 | 4 | checksum | | torn write, bit rot |
//! | 16 | 16 | pool uuid | | root of another pool |
//! | 32 | 8 | generation | | stale root |
//! | 40 | 8 | parent | the checkpoint before, 0 = none | |
//! | 48 | 4 | length | bytes of the root | cut short |
//! | 52 | 4 | vdevs | count, ≤ 4096 | |
//! | 56 | 4 | indirect vdevs | count, ≤ 65,536; their maps come last | evacuated vdev read as missing |
//! | 60 | 4 | reserved | 0 | |
//! | 64 | | vdevs, ascending by id | | missing vdev |
//! | | 104 each | indirect vdevs, ascending by id | | |
//!
//! Vdev:
//!
//! | offset | bytes | field | unit, meaning | threat guarded |
//! |---|---|---|---|---|
//! | 0 | 4 | id | | |
//! | 4 | 1 | tier | 0…3 | |
//! | 5 | 3 | reserved | 0 | |
//! | 8 | 8 | length | blocks | shrunk device |
//! | 16 | 8 | free | blocks clear in the newest bitmaps | accounting |
//! | 24 | 4 | segment length | blocks, a power of two, 8…262,144 | |
//! | 28 | 4 | reserved ranges | count, ≤ 1024 | |
//! | 32 | 4 | table areas | count, ≤ 1024 | |
//! | 36 | 4 | pages | count | |
//! | 40 | 16 each | reserved ranges | first block, block behind the last | label overwritten |
//! | | 16 each | table areas | first block (8), pages (4), 0 (4): three blocks per page | |
//! | | 16 each | pages | generation (8; 0 = never written), checksum (4), slot (1), 0 (3) | lost or stale page write |
//!
//! Indirect vdev: one that left the pool.
//!
//! | offset | bytes | field | unit, meaning | threat guarded |
//! |---|---|---|---|---|
//! | 0 | 4 | id | | |
//! | 4 | 4 | bytes | of the directory of its map; 0: nothing of it lives | |
//! | 8 | 4 | checksum | of these bytes | torn, lost or stale directory |
//! | 12 | 4 | reserved | 0 | |
//! | 16 | 8 | since | generation from which on it is gone | a resilver that passes over copies |
//! | 24 | 80 | place | extents of the directory as a pointer stores them, zeros behind | |
//!
//! # Map of a vdev that left
//!
//! Where its extents are now. A directory names chunks, each for some range of the vdev; neither lies on such a vdev. Their
//! checksums stand in what names them.
//!
//! | offset | bytes | field | unit, meaning | threat guarded |
//! |---|---|---|---|---|
//! | 0 | 8 | magic | `betreeMD` directory, `betreeMC` chunk | other data taken for it |
//! | 8 | 4 | version | 1 | |
//! | 12 | 4 | vdev | id | map of another vdev |
//! | 16 | 4 | count | entries, at least 1 | |
//! | 20 | 4 | reserved | 0 | |
//! | 24 | | entries, ascending by block | | |
//!
//! Entry of a directory: first block (8) behind which the chunk's extents start, a multiple of its range, bytes (4) and checksum (4) of the chunk, its extents
//! as a pointer stores them (17 to 76). Entry of a chunk: block (8) and length (4) of an extent of the vdev, count (4, at least 1), that many extents of 16 bytes:
//! put together they hold what it held, block of data by block of data.
//!
//! # Why this order
//!
//! The first 40 bytes of all three are alike, so that one look tells whose block it is and whether it is too new. What a
//! pointer must match (generation, checksum) is stored in the pointer *and* in the target: the pointer detects a write
//! that never landed, the target lets a checker without a pointer say what it found.
//!
//! # History
//!
//! * Version 1: first format.

use super::bitmap::Bitmap;
use crate::base::buffer::AlignedBuffer;
use crate::base::checksum::{crc, crc_append};
use crate::base::codec::{DecodeError, Decoder, Encoder};
use crate::base::extent::Extent;
use crate::base::ids::{Generation, Uuid, VdevId};
use crate::base::preference::TIER_COUNT;
use crate::base::units::BLOCK_BYTES;
use std::ops::Range;

/// Slots of each bitmap and each page: this checkpoint's, the one's before, the next one's.
pub(super) const SLOT_COUNT: u32 = 3;
/// Entries of a table page.
pub(super) const PAGE_ENTRIES: usize = 84;
/// Shortest segment in blocks.
pub const SEGMENT_BLOCKS_MIN: u32 = 8;
/// Longest segment, and the usual one: 1 GiB, whose bitmap has 32 KiB.
pub const SEGMENT_BLOCKS_MAX: u32 = 1 << 18;
/// Longest vdev in blocks: block numbers of extents have 52 bits.
pub(super) const VDEV_BLOCKS_MAX: u64 = 1 << 52;

/// What the table root is called in errors.
pub const TABLE_ROOT: &str = "allocation table root";

const VERSION: u32 = 1;
const SLOT_MAGIC: &[u8; 8] = b"betreeBM";
const PAGE_MAGIC: &[u8; 8] = b"betreeTP";
const ROOT_MAGIC: &[u8; 8] = b"betreeAT";
const CHECKSUM: Range<usize> = 12..16;
const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 48;
const ROOT_VDEV_BYTES: usize = 40;
const ROOT_PART_BYTES: usize = 16;
pub(super) const INDIRECT_BYTES: usize = 24 + PLACE_BYTES;
/// Bytes of the place of a directory: more than extents take as a pointer stores them, which is 76.
pub(super) const PLACE_BYTES: usize = 80;
pub(super) const DIRECTORY_MAGIC: &[u8; 8] = b"betreeMD";
const CHUNK_MAGIC: &[u8; 8] = b"betreeMC";
const _: () = assert!(HEADER_BYTES + PAGE_ENTRIES * ENTRY_BYTES == BLOCK_BYTES);
const VDEVS_MAX: usize = 4096;
const INDIRECT_MAX: usize = 1 << 16;
const RANGES_MAX: usize = 1024;

/// Whether a segment may have `blocks` blocks.
pub(super) fn is_segment_length(blocks: u32) -> bool {
    (SEGMENT_BLOCKS_MIN..=SEGMENT_BLOCKS_MAX).contains(&blocks) && blocks.is_power_of_two()
}

/// Blocks of one bitmap slot of a segment of `segment_blocks` blocks.
pub(super) fn slot_blocks(segment_blocks: u32) -> u32 {
    let bytes = Bitmap::bytes_for(segment_blocks);
    if HEADER_BYTES + bytes <= BLOCK_BYTES { 1 } else { 1 + bytes.div_ceil(BLOCK_BYTES) as u32 }
}

/// Where the bitmap starts in its slot, in bytes.
fn bitmap_offset(segment_blocks: u32) -> usize {
    if slot_blocks(segment_blocks) == 1 { HEADER_BYTES } else { BLOCK_BYTES }
}

/// Who a bitmap slot or a table page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) pool: Uuid,
    pub(super) vdev: VdevId,
    /// Number of the segment or of the page within the vdev.
    pub(super) number: u32,
    /// The checkpoint that wrote it.
    pub(super) generation: Generation,
    /// The newest durable checkpoint when it was written.
    pub(super) base: Generation,
}

impl Identity {
    fn encode(&self, magic: &[u8; 8], count: u32) -> Encoder {
        let mut out = Encoder::with_capacity(BLOCK_BYTES);
        out.raw(magic);
        out.u32(VERSION);
        out.u32(0);
        out.raw(&self.pool.0);
        out.u32(self.vdev.0);
        out.u32(self.number);
        out.u64(self.generation.0);
        out.u64(self.base.0);
        out.u32(count);
        out.u32(0);
        out
    }

    /// Reads the header of `bytes` after comparing the checksum of all of them.
    fn decode<'a>(bytes: &'a [u8], magic: &[u8; 8], count: u32) -> Result<(Self, Decoder<'a>), DecodeError> {
        let mut input = Decoder::new(bytes);
        check_head(&mut input, magic)?;
        check_sum(bytes)?;
        let identity = Self {
            pool: input.uuid("pool uuid")?,
            vdev: VdevId(input.u32("vdev")?),
            number: input.u32("number")?,
            generation: input.generation("generation")?,
            base: input.generation("base generation")?,
        };
        if identity.base >= identity.generation {
            return Err(input.invalid("base generation"));
        }
        if input.u32("count")? != count {
            return Err(input.invalid("count"));
        }
        input.zeros(4)?;
        Ok((identity, input))
    }
}

fn check_head(input: &mut Decoder<'_>, magic: &[u8; 8]) -> Result<(), DecodeError> {
    if input.raw(8, "magic")? != magic {
        return Err(input.invalid("magic"));
    }
    if input.u32("version")? != VERSION {
        return Err(input.invalid("version"));
    }
    input.u32("checksum")?;
    Ok(())
}

/// Checksum of `bytes` without the checksum field.
fn sum(bytes: &[u8]) -> u32 {
    crc_append(crc(&bytes[..CHECKSUM.start]), &bytes[CHECKSUM.end..])
}

/// The checksum that `bytes` carry.
pub(super) fn stored_checksum(bytes: &[u8]) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[CHECKSUM]);
    u32::from_le_bytes(field)
}

fn check_sum(bytes: &[u8]) -> Result<(), DecodeError> {
    if stored_checksum(bytes) == sum(bytes) {
        return Ok(());
    }
    Err(DecodeError { field: "checksum", offset: CHECKSUM.start, reason: "does not match the bytes" })
}

pub(super) fn seal(bytes: &mut [u8]) -> u32 {
    let sum = sum(bytes);
    bytes[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    sum
}

/// The bytes of a bitmap slot and their checksum.
pub(super) fn encode_slot(identity: &Identity, bitmap: &Bitmap) -> (AlignedBuffer, u32) {
    let mut bytes = AlignedBuffer::zeroed(slot_blocks(bitmap.bits()) as usize * BLOCK_BYTES);
    bytes[..HEADER_BYTES].copy_from_slice(identity.encode(SLOT_MAGIC, bitmap.bits()).as_slice());
    let start = bitmap_offset(bitmap.bits());
    bitmap.write_to(&mut bytes[start..start + Bitmap::bytes_for(bitmap.bits())]);
    let sum = seal(&mut bytes);
    (bytes, sum)
}

/// Reads a bitmap slot of a segment of `segment_blocks` blocks; `bytes` are whole blocks.
///
/// # Errors
/// When anything is not as [`encode_slot`] writes it.
pub(super) fn decode_slot(bytes: &[u8], segment_blocks: u32) -> Result<(Identity, Bitmap), DecodeError> {
    let (identity, mut input) = Identity::decode(bytes, SLOT_MAGIC, segment_blocks)?;
    input.zeros(bitmap_offset(segment_blocks) - HEADER_BYTES)?;
    let words = input.raw(Bitmap::bytes_for(segment_blocks), "bitmap")?;
    let bitmap = Bitmap::from_bytes(words, segment_blocks).ok_or_else(|| input.invalid("bitmap"))?;
    let rest = input.remaining();
    input.zeros(rest)?;
    Ok((identity, bitmap))
}

/// One of the three slots of a bitmap, and what must be found in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SlotRef {
    pub(super) slot: u8,
    pub(super) checksum: u32,
    pub(super) generation: Generation,
}

/// What the table knows of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Entry {
    /// The newest bitmap; generation 0 when the segment was never allocated from.
    pub(super) current: SlotRef,
    /// The bitmap before; generation 0 when only the reserved blocks were set.
    pub(super) previous: SlotRef,
    /// Blocks clear in the newest bitmap.
    pub(super) free: u32,
    /// Blocks clear in both bitmaps.
    pub(super) free_in_both: u32,
    /// Longest run of blocks clear in the newest bitmap.
    pub(super) longest: u32,
}

impl Entry {
    /// Whether the segment was never allocated from: nothing was ever written for it.
    pub(super) fn is_virgin(&self) -> bool {
        self.current.generation.0 == 0
    }

    fn encode(&self, out: &mut Encoder) {
        out.u8(self.current.slot);
        out.u8(self.previous.slot);
        out.u16(0);
        out.u32(self.current.checksum);
        out.u64(self.current.generation.0);
        out.u64(self.previous.generation.0);
        out.u32(self.previous.checksum);
        out.u32(self.free);
        out.u32(self.free_in_both);
        out.u32(self.longest);
        out.u64(0);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let mut entry = Self::default();
        entry.current.slot = input.u8("slot")?;
        entry.previous.slot = input.u8("previous slot")?;
        input.zeros(2)?;
        entry.current.checksum = input.u32("checksum of the slot")?;
        entry.current.generation = input.generation("generation of the slot")?;
        entry.previous.generation = input.generation("previous generation")?;
        entry.previous.checksum = input.u32("previous checksum")?;
        entry.free = input.u32("free blocks")?;
        entry.free_in_both = input.u32("free blocks in both")?;
        entry.longest = input.u32("longest run")?;
        input.zeros(8)?;
        let legal = entry.previous.generation < entry.current.generation
            && u32::from(entry.current.slot) < SLOT_COUNT
            && u32::from(entry.previous.slot) < SLOT_COUNT
            && entry.current.slot != entry.previous.slot
            && (entry.previous.generation.0 != 0 || entry.previous.checksum == 0)
            && entry.free <= SEGMENT_BLOCKS_MAX
            && entry.free_in_both <= entry.free
            && entry.longest <= entry.free
            && (entry.longest == 0) == (entry.free == 0);
        if legal || entry == Self::default() { Ok(entry) } else { Err(input.invalid("table entry")) }
    }
}

/// The bytes of a table page and their checksum. At most [`PAGE_ENTRIES`] entries; missing ones are written as zero.
pub(super) fn encode_page(identity: &Identity, entries: &[Entry]) -> (AlignedBuffer, u32) {
    assert!(entries.len() <= PAGE_ENTRIES, "a page holds at most {PAGE_ENTRIES} entries");
    let mut out = identity.encode(PAGE_MAGIC, PAGE_ENTRIES as u32);
    for entry in entries {
        entry.encode(&mut out);
    }
    out.pad_to(BLOCK_BYTES);
    let mut bytes = AlignedBuffer::copy_of(out.as_slice());
    let sum = seal(&mut bytes);
    (bytes, sum)
}

/// Reads a table page (one block).
///
/// # Errors
/// When anything is not as [`encode_page`] writes it.
pub(super) fn decode_page(bytes: &[u8]) -> Result<(Identity, Vec<Entry>), DecodeError> {
    let (identity, mut input) = Identity::decode(bytes, PAGE_MAGIC, PAGE_ENTRIES as u32)?;
    let entries = (0..PAGE_ENTRIES).map(|_| Entry::decode(&mut input)).collect::<Result<Vec<_>, _>>()?;
    input.finish("table page")?;
    Ok((identity, entries))
}

/// Space for table pages: three blocks each, with their parity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) block: u64,
    pub(super) pages: u32,
}

impl Area {
    /// The blocks that it takes; one block of a page takes `granule`.
    pub(super) fn range(&self, granule: u32) -> Range<u64> {
        let blocks = u64::from(self.pages) * u64::from(SLOT_COUNT) * u64::from(granule);
        self.block..self.block.saturating_add(blocks)
    }
}

/// What the root knows of one vdev.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RootVdev {
    pub(super) id: VdevId,
    pub(super) tier: u8,
    pub(super) blocks: u64,
    pub(super) free: u64,
    pub(super) segment_blocks: u32,
    pub(super) reserved: Vec<Range<u64>>,
    pub(super) areas: Vec<Area>,
    /// Generation 0: never written, all entries are zero.
    pub(super) pages: Vec<SlotRef>,
}

/// A vdev that left: where the directory of its map is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IndirectVdev {
    pub(super) id: VdevId,
    /// 0: there is no directory.
    pub(super) bytes: u32,
    pub(super) checksum: u32,
    /// The generation from which on it is gone.
    pub(super) since: Generation,
    /// Extents of the directory as a pointer stores them, zeros behind.
    pub(super) place: [u8; PLACE_BYTES],
}

impl IndirectVdev {
    fn encode(&self, out: &mut Encoder) {
        out.u32(self.id.0);
        out.u32(self.bytes);
        out.u32(self.checksum);
        out.u32(0);
        out.u64(self.since.0);
        out.raw(&self.place);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let id = VdevId(input.u32("indirect vdev")?);
        let bytes = input.u32("bytes of the directory")?;
        let checksum = input.u32("checksum of the directory")?;
        input.zeros(4)?;
        let since = input.generation("generation of the removal")?;
        let mut place = [0; PLACE_BYTES];
        place.copy_from_slice(input.raw(PLACE_BYTES, "place of the directory")?);
        if bytes == 0 && (checksum != 0 || place != [0; PLACE_BYTES]) {
            return Err(input.invalid("indirect vdev"));
        }
        Ok(Self { id, bytes, checksum, since, place })
    }
}

/// Where the contents of an extent are that lay on a vdev that left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChunkEntry {
    pub(super) block: u64,
    pub(super) blocks: u32,
    pub(super) places: Vec<Extent>,
}

/// Head of a directory or chunk of `count` entries.
pub(super) fn map_head(magic: &[u8; 8], vdev: VdevId, count: usize) -> Encoder {
    let mut out = Encoder::new();
    out.raw(magic);
    out.u32(VERSION);
    out.u32(vdev.0);
    out.u32(count as u32);
    out.u32(0);
    out
}

/// Reads a head; how many entries follow.
///
/// # Errors
/// When it is not as [`map_head`] writes it.
pub(super) fn decode_map_head(
    input: &mut Decoder<'_>,
    magic: &[u8; 8],
    vdev: VdevId,
) -> Result<usize, DecodeError> {
    if input.raw(8, "magic")? != magic {
        return Err(input.invalid("magic"));
    }
    if input.u32("version")? != VERSION {
        return Err(input.invalid("version"));
    }
    if input.u32("vdev")? != vdev.0 {
        return Err(input.invalid("vdev"));
    }
    let count = input.u32("count")? as usize;
    input.zeros(4)?;
    // An entry has 24 bytes at the least.
    if count == 0 || count > input.remaining() / 24 {
        return Err(input.invalid("count"));
    }
    Ok(count)
}

/// Bytes that an extent with `places` places takes in a chunk.
pub(super) fn chunk_entry_bytes(places: usize) -> u64 {
    16 + (places * Extent::ENCODED_BYTES) as u64
}

/// The bytes of a chunk.
pub(super) fn encode_chunk(vdev: VdevId, entries: &[ChunkEntry]) -> Vec<u8> {
    let mut out = map_head(CHUNK_MAGIC, vdev, entries.len());
    for entry in entries {
        out.u64(entry.block);
        out.u32(entry.blocks);
        out.u32(entry.places.len() as u32);
        entry.places.iter().for_each(|place| place.encode(&mut out));
    }
    out.finish()
}

/// Reads a chunk.
///
/// # Errors
/// When it is not as [`encode_chunk`] writes it.
pub(super) fn decode_chunk(bytes: &[u8], vdev: VdevId) -> Result<Vec<ChunkEntry>, DecodeError> {
    let mut input = Decoder::new(bytes);
    let count = decode_map_head(&mut input, CHUNK_MAGIC, vdev)?;
    let mut entries = Vec::with_capacity(count);
    let mut end = 0;
    for _ in 0..count {
        let block = input.u64("block of an extent")?;
        let blocks = input.u32("length of an extent")?;
        let places = input.u32("count of its places")? as usize;
        if blocks == 0
            || block > VDEV_BLOCKS_MAX
            || block < end
            || places == 0
            || places > input.remaining() / Extent::ENCODED_BYTES
        {
            return Err(input.invalid("extent of the map"));
        }
        let places = (0..places).map(|_| Extent::decode(&mut input)).collect::<Result<Vec<_>, _>>()?;
        end = block + u64::from(blocks);
        entries.push(ChunkEntry { block, blocks, places });
    }
    input.finish("chunk of a map")?;
    Ok(entries)
}

/// The root of the allocation table of one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) pool: Uuid,
    pub(super) generation: Generation,
    pub(super) parent: Generation,
    pub(super) vdevs: Vec<RootVdev>,
    pub(super) indirect: Vec<IndirectVdev>,
}

impl Root {
    /// Length of what [`Root::encode`] writes.
    pub(super) fn encoded_bytes(&self) -> usize {
        let vdevs = self.vdevs.iter().map(|vdev| {
            ROOT_VDEV_BYTES + (vdev.reserved.len() + vdev.areas.len() + vdev.pages.len()) * ROOT_PART_BYTES
        });
        HEADER_BYTES + vdevs.sum::<usize>() + self.indirect.len() * INDIRECT_BYTES
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let length = self.encoded_bytes();
        let mut out = Encoder::with_capacity(length);
        out.raw(ROOT_MAGIC);
        out.u32(VERSION);
        out.u32(0);
        out.raw(&self.pool.0);
        out.u64(self.generation.0);
        out.u64(self.parent.0);
        out.u32(length as u32);
        out.u32(self.vdevs.len() as u32);
        out.u32(self.indirect.len() as u32);
        out.u32(0);
        for vdev in &self.vdevs {
            vdev.encode(&mut out);
        }
        self.indirect.iter().for_each(|vdev| vdev.encode(&mut out));
        let mut bytes = out.finish();
        assert!(bytes.len() == length, "the length of a root is known before");
        seal(&mut bytes);
        bytes
    }

    /// Reads a root; `bytes` may have zeros behind it (the rest of its last block).
    ///
    /// # Errors
    /// When anything is not as [`Root::encode`] writes it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut head = Decoder::new(bytes);
        check_head(&mut head, ROOT_MAGIC)?;
        let pool = head.uuid("pool uuid")?;
        let generation = Generation(head.u64("generation")?);
        let parent = Generation(head.u64("parent")?);
        let length = head.u32("length")? as usize;
        if length < HEADER_BYTES || length > bytes.len() || parent >= generation {
            return Err(head.invalid("length or parent"));
        }
        check_sum(&bytes[..length])?;
        if bytes[length..].iter().any(|byte| *byte != 0) {
            return Err(DecodeError { field: "padding", offset: length, reason: "not zero" });
        }
        let mut input = Decoder::new(&bytes[..length]);
        input.raw(head.position(), "header")?;
        let vdev_count = input.count(VDEVS_MAX, "vdev count")?;
        let indirect_count = input.count(INDIRECT_MAX, "indirect vdev count")?;
        input.zeros(4)?;
        let vdevs =
            (0..vdev_count).map(|_| RootVdev::decode(&mut input)).collect::<Result<Vec<_>, DecodeError>>()?;
        let indirect = (0..indirect_count)
            .map(|_| IndirectVdev::decode(&mut input))
            .collect::<Result<Vec<_>, DecodeError>>()?;
        let ascending = vdevs.windows(2).all(|pair| pair[0].id < pair[1].id)
            && indirect.windows(2).all(|pair| pair[0].id < pair[1].id)
            && indirect
                .iter()
                .all(|gone| vdevs.iter().all(|vdev| vdev.id != gone.id) && gone.since <= generation);
        if !ascending {
            return Err(input.invalid("order of the vdevs"));
        }
        input.finish("table root")?;
        Ok(Self { pool, generation, parent, vdevs, indirect })
    }
}

impl RootVdev {
    fn encode(&self, out: &mut Encoder) {
        out.u32(self.id.0);
        out.u8(self.tier);
        out.raw(&[0; 3]);
        out.u64(self.blocks);
        out.u64(self.free);
        out.u32(self.segment_blocks);
        out.u32(self.reserved.len() as u32);
        out.u32(self.areas.len() as u32);
        out.u32(self.pages.len() as u32);
        for range in &self.reserved {
            out.u64(range.start);
            out.u64(range.end);
        }
        for area in &self.areas {
            out.u64(area.block);
            out.u32(area.pages);
            out.u32(0);
        }
        for page in &self.pages {
            out.u64(page.generation.0);
            out.u32(page.checksum);
            out.u8(page.slot);
            out.raw(&[0; 3]);
        }
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let id = VdevId(input.u32("vdev")?);
        let tier = input.u8("tier")?;
        input.zeros(3)?;
        let blocks = input.u64("vdev length")?;
        let free = input.u64("free blocks")?;
        let segment_blocks = input.u32("segment length")?;
        if usize::from(tier) >= TIER_COUNT
            || blocks > VDEV_BLOCKS_MAX
            || free > blocks
            || !is_segment_length(segment_blocks)
        {
            return Err(input.invalid("vdev"));
        }
        let range_count = input.count(RANGES_MAX, "reserved range count")?;
        let area_count = input.count(RANGES_MAX, "table area count")?;
        let page_count = input.count(input.remaining() / ROOT_PART_BYTES, "page count")?;
        let mut vdev = Self {
            id,
            tier,
            blocks,
            free,
            segment_blocks,
            reserved: Vec::new(),
            areas: Vec::new(),
            pages: Vec::new(),
        };
        for _ in 0..range_count {
            let range = input.u64("reserved range")?..input.u64("reserved range")?;
            if range.start >= range.end || range.end > blocks {
                return Err(input.invalid("reserved range"));
            }
            vdev.reserved.push(range);
        }
        for _ in 0..area_count {
            let area = Area { block: input.u64("table area")?, pages: input.u32("pages of a table area")? };
            input.zeros(4)?;
            if area.pages == 0 || area.range(1).end > blocks {
                return Err(input.invalid("table area"));
            }
            vdev.areas.push(area);
        }
        for _ in 0..page_count {
            let generation = input.generation("page generation")?;
            let checksum = input.u32("page checksum")?;
            let page = SlotRef { slot: input.u8("page slot")?, checksum, generation };
            input.zeros(3)?;
            let legal = if generation.0 == 0 {
                page == SlotRef::default()
            } else {
                u32::from(page.slot) < SLOT_COUNT
            };
            if !legal {
                return Err(input.invalid("page"));
            }
            vdev.pages.push(page);
        }
        Ok(vdev)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn identity() -> Identity {
        Identity {
            pool: Uuid(*b"0123456789abcdef"),
            vdev: VdevId(7),
            number: 3,
            generation: Generation(0x1122),
            base: Generation(0x1121),
        }
    }

    fn entry() -> Entry {
        Entry {
            current: SlotRef { slot: 2, checksum: 0xaabb_ccdd, generation: Generation(9) },
            previous: SlotRef { slot: 1, checksum: 0x0102_0304, generation: Generation(8) },
            free: 40,
            free_in_both: 30,
            longest: 20,
        }
    }

    fn root() -> Root {
        Root {
            pool: identity().pool,
            generation: Generation(9),
            parent: Generation(8),
            vdevs: vec![
                RootVdev {
                    id: VdevId(1),
                    tier: 0,
                    blocks: 1000,
                    free: 900,
                    segment_blocks: 64,
                    reserved: vec![0..16, 984..1000],
                    areas: vec![Area { block: 16, pages: 1 }],
                    pages: vec![SlotRef { slot: 1, checksum: 5, generation: Generation(9) }],
                },
                RootVdev {
                    id: VdevId(2),
                    tier: 3,
                    blocks: 64,
                    free: 64,
                    segment_blocks: 8,
                    reserved: vec![],
                    areas: vec![],
                    pages: vec![SlotRef::default()],
                },
            ],
            indirect: vec![IndirectVdev {
                id: VdevId(5),
                bytes: 6,
                checksum: 7,
                since: Generation(8),
                place: [0xab; PLACE_BYTES],
            }],
        }
    }

    fn hex(bytes: &[u8]) -> String {
        let mut out = String::new();
        for line in bytes.chunks(16) {
            for byte in line {
                write!(out, "{byte:02x}").unwrap();
            }
            out.push('\n');
        }
        out
    }

    const GOLDEN_SLOT: &str = "\
626574726565424d0100000071900481\n\
30313233343536373839616263646566\n\
07000000030000002211000000000000\n\
21110000000000004000000000000000\n\
ff010000000000f00000000000000000\n\
";
    const GOLDEN_PAGE: &str = "\
626574726565545001000000e28a8ff1\n\
30313233343536373839616263646566\n\
07000000030000002211000000000000\n\
21110000000000005400000000000000\n\
00000000000000000000000000000000\n\
00000000000000000000000000000000\n\
00000000000000000000000000000000\n\
02010000ddccbbaa0900000000000000\n\
08000000000000000403020128000000\n\
1e000000140000000000000000000000\n\
";
    const GOLDEN_ROOT: &str = "\
626574726565415401000000bf384b07\n\
30313233343536373839616263646566\n\
09000000000000000800000000000000\n\
48010000020000000100000000000000\n\
0100000000000000e803000000000000\n\
84030000000000004000000002000000\n\
01000000010000000000000000000000\n\
1000000000000000d803000000000000\n\
e8030000000000001000000000000000\n\
01000000000000000900000000000000\n\
05000000010000000200000003000000\n\
40000000000000004000000000000000\n\
08000000000000000000000001000000\n\
00000000000000000000000000000000\n\
05000000060000000700000000000000\n\
0800000000000000abababababababab\n\
abababababababababababababababab\n\
abababababababababababababababab\n\
abababababababababababababababab\n\
abababababababababababababababab\n\
abababababababab\n\
";

    #[test]
    fn bytes_are_those_of_version_1() {
        let mut bitmap = Bitmap::new(64);
        bitmap.set(0..9);
        bitmap.set(60..64);
        let (slot, slot_sum) = encode_slot(&identity(), &bitmap);
        assert_eq!((slot.len(), hex(&slot[..80])), (4096, GOLDEN_SLOT.to_owned()));
        assert_eq!(slot_sum, stored_checksum(&slot));
        let (page, page_sum) = encode_page(&identity(), &[Entry::default(), entry()]);
        assert_eq!((page.len(), hex(&page[..160])), (4096, GOLDEN_PAGE.to_owned()));
        assert_eq!(page_sum, stored_checksum(&page));
        assert_eq!(hex(&root().encode()), GOLDEN_ROOT);
    }

    #[test]
    fn structures_round_trip() {
        for bits in [8, 64, 16_384, 32_768, SEGMENT_BLOCKS_MAX] {
            let mut bitmap = Bitmap::new(bits);
            bitmap.set(1..bits - 1);
            let (bytes, _) = encode_slot(&identity(), &bitmap);
            assert_eq!(bytes.len(), slot_blocks(bits) as usize * BLOCK_BYTES);
            assert_eq!(decode_slot(&bytes, bits), Ok((identity(), bitmap)));
            assert!(decode_slot(&bytes, bits * 2).is_err());
        }
        assert_eq!((slot_blocks(64), slot_blocks(SEGMENT_BLOCKS_MAX)), (1, 9));
        let mut entries = vec![entry(); PAGE_ENTRIES];
        entries[3] = Entry::default();
        let (bytes, _) = encode_page(&identity(), &entries);
        assert_eq!(decode_page(&bytes), Ok((identity(), entries)));
        let mut bytes = root().encode();
        assert_eq!(Root::decode(&bytes), Ok(root()));
        bytes.resize(4096, 0);
        assert_eq!(Root::decode(&bytes), Ok(root()));
        bytes[4095] = 1;
        assert!(Root::decode(&bytes).is_err());
    }

    #[test]
    fn chunks_of_maps_have_golden_bytes_and_wrong_ones_are_refused() {
        let place = |block, blocks| Extent { vdev: VdevId(1), block, blocks };
        let entries = [
            ChunkEntry { block: 7, blocks: 3, places: vec![place(9, 1), place(20, 2)] },
            ChunkEntry { block: 10, blocks: 1, places: vec![place(30, 1)] },
        ];
        let bytes = encode_chunk(VdevId(5), &entries);
        let golden = "\
6265747265654d430100000005000000\n\
02000000000000000700000000000000\n\
03000000020000000100000001000000\n\
09000000000000000100000002000000\n\
14000000000000000a00000000000000\n\
01000000010000000100000001000000\n\
1e00000000000000\n";
        assert_eq!(hex(&bytes), golden);
        assert_eq!(decode_chunk(&bytes, VdevId(5)).unwrap(), entries);
        assert!(decode_chunk(&bytes, VdevId(6)).is_err());
        for length in 0..bytes.len() {
            assert!(decode_chunk(&bytes[..length], VdevId(5)).is_err(), "length {length}");
        }
        // Magic, version, count, order, lengths, counts of places.
        for (at, value) in [(0, 0), (8, 2), (16, 3), (20, 1), (24, 8), (32, 4), (36, 0), (36, 9), (84, 0)] {
            let mut wrong = bytes.clone();
            wrong[at] = value;
            assert!(decode_chunk(&wrong, VdevId(5)).is_err(), "byte {at}");
        }
        let mut random = crate::vdev::SimRng::new(1);
        for _ in 0..20_000 {
            let mut wrong = bytes.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.index(wrong.len());
                wrong[at] = random.next_u64() as u8;
            }
            let _may_be_legal = decode_chunk(&wrong, VdevId(5));
        }
    }

    /// Every bit flip is an error; with the checksum corrected it is an error or other contents, never a panic.
    #[test]
    fn flipped_bits_are_noticed() {
        let mut bitmap = Bitmap::new(64);
        bitmap.set(0..9);
        let slot = encode_slot(&identity(), &bitmap).0.to_vec();
        let page = encode_page(&identity(), &[entry(); PAGE_ENTRIES]).0.to_vec();
        let root = root().encode();
        type Decode = fn(&[u8]) -> bool;
        let cases: [(&[u8], Decode); 3] = [
            (&slot, |bytes| decode_slot(bytes, 64).is_ok()),
            (&page, |bytes| decode_page(bytes).is_ok()),
            (&root, |bytes| Root::decode(bytes).is_ok()),
        ];
        for (original, decode) in cases {
            let mut bytes = original.to_vec();
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(!decode(&bytes), "bit {bit}");
                seal(&mut bytes);
                let _may_be_legal = decode(&bytes);
                bytes.copy_from_slice(original);
            }
            for length in 0..original.len() {
                assert!(!decode(&original[..length]), "length {length}");
            }
        }
    }
}
