//! The frozen bytes of runs. All numbers are little-endian; `varint` is LEB128 of at most 64 bits.
//!
//! # A run
//!
//! A run is a sequence of bytes in the concatenation of its extents: data blocks, zeros up to a multiple of 64, the
//! meta section, zeros up to a multiple of 4096. Nothing in it says what it is: the run reference, which lies in a node
//! header, names the meta section with its checksum, and the meta section names each block with its own. So a
//! misdirected, stale or torn write anywhere shows as a checksum that does not match, down from the superblock.
//!
//! A stored block is not padded when it is compressed. An uncompressed one is followed by zeros up to a multiple of 4096
//! when they make up at most an eighth of it: small entries fill their block, which then is one aligned read; large
//! ones would waste a third of the space.
//!
//! # Raw data block
//!
//! | offset | bytes | field | unit, meaning | threat guarded |
//! |---|---|---|---|---|
//! | 0 | 4 | count `n` | entries, ≥ 1 | |
//! | 4 | 4 | prefix length `p` | bytes that all keys of the block share | |
//! | 8 | 8 | base sequence | lowest sequence number in the block | |
//! | 16 | 4 | length | bytes of the block in all | block and index entry of different writes |
//! | 20 | 4 | flags | bit 0: offsets are u32 instead of u16; others 0 | unknown later flags |
//! | 24 | 4 n | heads | per entry the first 4 bytes of the suffix, big-endian, zero-padded, stored as a number | |
//! | 24 + 4 n | 2 n or 4 n | offsets | per entry its start, bytes from the start of the block | |
//! | … | p | prefix | | |
//! | … | … | entries | in order of key ascending, sequence descending | |
//!
//! Entry: varint suffix length; varint sequence − base; tag u8 (bits 0–1 kind, bits 2–4 preference: class or 4 for
//! none, others 0); varint payload length; suffix; payload. Each ends where the next starts.
//!
//! *Why this order*: a search reads the heads and then one offset, so they lie together at the front of the frame, where
//! they can be prefetched; header and prefix are read once, when the block is loaded.
//!
//! # Meta section
//!
//! | offset | bytes | field | unit, meaning | threat guarded |
//! |---|---|---|---|---|
//! | 0 | 4 | magic | `RMTA` | pointer to something else |
//! | 4 | 2 | version | 1 | later format |
//! | 6 | 2 | zero | | |
//! | 8 | 4 | filter lines `f` | lines of 64 bytes; 0: no filter | |
//! | 12 | 4 | blocks `b` | | |
//! | 16 | 4 | range deletes `r` | | |
//! | 20 | 4 | prefix length `p` | bytes that all keys of the run share | |
//! | 24 | 4 | separator bytes `s` | | |
//! | 28 | 4 | range delete bytes `d` | | |
//! | 32 | 32 | zero | | |
//! | 64 | 64 f | filter | see below | |
//! | … | 40 b | block records | see below | |
//! | … | p | prefix | | |
//! | … | s | separators | each behind the prefix, one after the other; the first is empty | |
//! | … | d | range deletes | by start ascending, sequence descending | |
//!
//! Block record:
//!
//! | offset | bytes | field | unit, meaning | threat guarded |
//! |---|---|---|---|---|
//! | 0 | 8 | offset | bytes from the start of the run | |
//! | 8 | 8 | maximum sequence | of the block's entries | a difference that skips a changed block |
//! | 16 | 4 | stored length | bytes, without padding | |
//! | 20 | 4 | raw length | bytes when decompressed | decompression bombs |
//! | 24 | 4 | checksum | CRC-32C of the stored bytes | bit rot, torn and misdirected writes |
//! | 28 | 4 | count | entries | |
//! | 32 | 4 | separator end | bytes into the separators | |
//! | 36 | 1 | codec | 0 none, 1 LZ4, 2 Zstandard | |
//! | 37 | 1 | flags | bit 0: the first key is also the last key of the block before; others 0 | |
//! | 38 | 2 | zero | | |
//!
//! A separator is greater than the last key of the block before and not greater than the first key of its block, or
//! equal to both when flag bit 0 is set.
//!
//! Range delete: varint length, start; u8 1 when an end follows, 0 when not; varint length, end; u64 sequence.
//!
//! Filter: a bloom filter in lines of 512 bits. With `h` the XXH3-64 of a key, its line is ⌊(h >> 32) · f / 2³²⌋ and its
//! six bits are the top nine bits of `(h mod 2³²) · 0x9e3779b9ⁱ mod 2³²`, i = 1…6; bit `x` is bit `x mod 8` of byte
//! `x / 8` (as RocksDB's FastLocalBloom places them).
//!
//! # Run reference (in a node header, whose checksum covers it)
//!
//! | bytes | field | unit, meaning | threat guarded |
//! |---|---|---|---|
//! | 1 | version | 1 | later format |
//! | 1 | preference | class 0…3, 254 none | |
//! | 1 | flags | bit 0 entry keys follow, bit 1 hull of the range deletes follows, bit 2 the hull has an end | |
//! | 4 | meta checksum | CRC-32C of the meta section | bit rot, torn and misdirected writes |
//! | … | extents | as `dmu/extent_list.rs` says | fragmentation that overflows a header |
//! | varint | meta offset | bytes from the start of the run, multiple of 64 | |
//! | varint | meta length | bytes | |
//! | varint | blocks | data blocks | |
//! | varint | raw bytes | sum of the raw block lengths | |
//! | varint | large bytes | bytes in the large values that entries name | garbage that buffers cannot see |
//! | varint | entries | | |
//! | varint | deletes | entries that are deletes | |
//! | varint | upsert bytes | bytes of the messages of upserts | space that only folding frees |
//! | varint | range deletes | | |
//! | varint | minimum sequence | | |
//! | varint | maximum − minimum sequence | | |
//! | varint | birth | generation of the first checkpoint that contains the reference | freeing what a snapshot needs |
//! | varint | origin | dataset that wrote the run | |
//! | varint + n | first key, last key | of the entries, both inclusive | |
//! | varint + n | start, end of the hull | of the range deletes | |
//!
//! # History
//!
//! * 1: first version.

use super::entry::{Kind, RangeDelete};
use crate::base::codec::{DecodeError, Decoder, Encoder, get_varint};
use crate::base::compression::Codec;
use crate::base::extent::total_blocks;
use crate::base::ids::{DatasetId, Generation};
use crate::base::preference::StoragePreference;
use crate::base::units::BLOCK_BYTES_U64;
use crate::dmu::{Dmu, DmuError, StoredExtents};
use std::ops::Range;

/// Longest key in bytes: 64 KiB of the user's and room for what layers above put before it.
pub const KEY_BYTES_MAX: usize = (64 << 10) + (4 << 10);
/// Longest payload in bytes; larger values have extents of their own.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Longest raw block in bytes: one entry of the longest key and payload fits.
pub(super) const BLOCK_RAW_BYTES_MAX: usize = 2 << 20;
/// Longest meta section in bytes: some 200 million keys.
pub(super) const META_BYTES_MAX: usize = 256 << 20;
/// Most data blocks of a run.
pub(super) const BLOCKS_MAX: usize = 4 << 20;
/// Most range deletes of a run.
pub(super) const RANGE_DELETES_MAX: usize = 4 << 20;
/// Alignment of the meta section, and so of the filter's lines, in bytes.
pub(super) const META_ALIGNMENT: u64 = 64;

pub(super) const BLOCK_HEADER_BYTES: usize = 24;
pub(super) const HEAD_BYTES: usize = 4;
const FLAG_WIDE: u32 = 1;

pub(super) const META_HEADER_BYTES: usize = 64;
pub(super) const RECORD_BYTES: usize = 40;
const META_MAGIC: u32 = u32::from_le_bytes(*b"RMTA");
const RECORD_CONTINUED: u8 = 1;

pub(super) const FILTER_LINE_BYTES: usize = 64;
const FILTER_PROBES: usize = 6;

const VERSION: u8 = 1;
/// Most entries, or bytes of them, that a reference may say: far more than there can be, and sums over many runs stay numbers.
const COUNT_MAX: u64 = 1 << 48;

fn wrong(field: &'static str, offset: usize, reason: &'static str) -> DecodeError {
    DecodeError { field, offset, reason }
}

/// The number whose order is that of the first four bytes of `suffix`.
#[inline]
pub(super) fn head_of(suffix: &[u8]) -> u32 {
    if let Some(first) = suffix.first_chunk::<4>() {
        return u32::from_be_bytes(*first);
    }
    let mut padded = [0; 4];
    padded[..suffix.len()].copy_from_slice(suffix);
    u32::from_be_bytes(padded)
}

pub(super) fn tag_of(kind: Kind, preference: StoragePreference) -> u8 {
    kind as u8 | preference.class().unwrap_or(4) << 2
}

#[inline]
pub(super) fn tag_kind(tag: u8) -> Kind {
    match tag & 3 {
        0 => Kind::Put,
        1 => Kind::Delete,
        2 => Kind::Upsert,
        _ => Kind::PutLarge,
    }
}

#[inline]
pub(super) fn tag_preference(tag: u8) -> StoragePreference {
    StoragePreference::new(tag >> 2).unwrap_or(StoragePreference::NONE)
}

/// Bytes of `value` as a varint.
#[inline]
pub(super) fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

#[inline]
fn write_varint(out: &mut [u8], position: &mut usize, mut value: u64) {
    while value >= 0x80 {
        out[*position] = value as u8 | 0x80;
        *position += 1;
        value >>= 7;
    }
    out[*position] = value as u8;
    *position += 1;
}

#[inline]
fn write_raw(out: &mut [u8], position: &mut usize, bytes: &[u8]) {
    out[*position..*position + bytes.len()].copy_from_slice(bytes);
    *position += bytes.len();
}

/// One entry as the block encoder takes it; the key includes the prefix.
pub(super) struct RawEntry<'a> {
    pub key: &'a [u8],
    pub sequence: u64,
    pub tag: u8,
    pub payload: &'a [u8],
}

/// Bytes of a block at most: `entries` of them, `framed` bytes of frames, suffixes and payloads.
pub(super) fn block_len(entries: usize, prefix: usize, framed: usize) -> usize {
    let narrow = BLOCK_HEADER_BYTES + entries * (HEAD_BYTES + 2) + prefix + framed;
    if narrow <= usize::from(u16::MAX) + 1 { narrow } else { narrow + 2 * entries }
}

/// Writes a block with the entries of `entries` at the start of `out`, and returns its length.
///
/// `bound` is at least what [`block_len`] says and `out` has as many bytes; `prefix` bytes are common to all keys;
/// `base` is not above any sequence number.
pub(super) fn encode_block<'a>(
    out: &mut [u8],
    bound: usize,
    prefix: &[u8],
    base: u64,
    entries: impl ExactSizeIterator<Item = RawEntry<'a>>,
) -> usize {
    let count = entries.len();
    let wide = bound > usize::from(u16::MAX) + 1;
    let width = if wide { 4 } else { 2 };
    let offsets = BLOCK_HEADER_BYTES + count * HEAD_BYTES;
    let prefix_at = offsets + count * width;
    let (front, _) = out.split_at_mut(bound);
    let mut position = prefix_at;
    write_raw(front, &mut position, prefix);
    for (index, entry) in entries.enumerate() {
        let suffix = &entry.key[prefix.len()..];
        let head = BLOCK_HEADER_BYTES + index * HEAD_BYTES;
        front[head..head + HEAD_BYTES].copy_from_slice(&head_of(suffix).to_le_bytes());
        let offset = offsets + index * width;
        if wide {
            front[offset..offset + 4].copy_from_slice(&(position as u32).to_le_bytes());
        } else {
            front[offset..offset + 2].copy_from_slice(&(position as u16).to_le_bytes());
        }
        write_varint(front, &mut position, suffix.len() as u64);
        write_varint(front, &mut position, entry.sequence - base);
        front[position] = entry.tag;
        position += 1;
        write_varint(front, &mut position, entry.payload.len() as u64);
        write_raw(front, &mut position, suffix);
        write_raw(front, &mut position, entry.payload);
    }
    front[0..4].copy_from_slice(&(count as u32).to_le_bytes());
    front[4..8].copy_from_slice(&(prefix.len() as u32).to_le_bytes());
    front[8..16].copy_from_slice(&base.to_le_bytes());
    front[16..20].copy_from_slice(&(position as u32).to_le_bytes());
    front[20..24].copy_from_slice(&(if wide { FLAG_WIDE } else { 0 }).to_le_bytes());
    position
}

/// Where the parts of a checked block are; positions are bytes from the start of the buffer that it lies in.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shape {
    pub start: usize,
    pub count: usize,
    pub offsets: usize,
    pub prefix: usize,
    pub prefix_len: usize,
    pub base: u64,
    pub wide: bool,
}

/// One entry of a checked block; positions as in [`Shape`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Frame {
    pub suffix: usize,
    pub payload: usize,
    pub end: usize,
    pub sequence: u64,
    pub tag: u8,
}

#[inline]
fn number_u32(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

#[inline]
fn number_u64(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

impl Shape {
    /// Reads the header of the block in `range` of `bytes` and checks every entry of it: lengths, offsets, tags, heads
    /// and the order of entries. What passes can be read with plain indexing.
    ///
    /// # Errors
    /// What is wrong with the block.
    pub fn check(bytes: &[u8], range: Range<usize>) -> Result<Self, DecodeError> {
        let block = &bytes[range.clone()];
        if block.len() < BLOCK_HEADER_BYTES || block.len() > BLOCK_RAW_BYTES_MAX {
            return Err(wrong("block length", 16, "out of range"));
        }
        let (count, prefix_len) = (number_u32(block, 0) as usize, number_u32(block, 4) as usize);
        let (length, flags) = (number_u32(block, 16) as usize, number_u32(block, 20));
        if length != block.len() {
            return Err(wrong("block length", 16, "differs from the index"));
        }
        if flags & !FLAG_WIDE != 0 {
            return Err(wrong("block flags", 20, "unknown"));
        }
        let wide = flags & FLAG_WIDE != 0;
        let width = if wide { 4 } else { 2 };
        if count == 0 || count > length / (HEAD_BYTES + width) || prefix_len > KEY_BYTES_MAX {
            return Err(wrong("block header", 0, "counts do not fit"));
        }
        let offsets = BLOCK_HEADER_BYTES + count * HEAD_BYTES;
        let prefix = offsets + count * width;
        let entries = prefix + prefix_len;
        if entries > length {
            return Err(wrong("block header", 0, "counts do not fit"));
        }
        let shape = Self {
            start: range.start,
            count,
            offsets: range.start + offsets,
            prefix: range.start + prefix,
            prefix_len,
            base: number_u64(block, 8),
            wide,
        };
        check_entries(block, shape, offsets, entries)?;
        Ok(shape)
    }

    /// The entry that starts at `position`, in a block that passed [`Shape::check`].
    #[inline]
    pub fn frame(&self, bytes: &[u8], position: usize) -> Frame {
        let mut at = position;
        parse_frame(bytes, &mut at, self.base).unwrap_or_default()
    }

    /// Start of entry `index`.
    #[inline]
    pub fn offset(&self, bytes: &[u8], index: usize) -> usize {
        if self.wide {
            return self.start + number_u32(bytes, self.offsets + 4 * index) as usize;
        }
        let at = self.offsets + 2 * index;
        self.start + usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
    }

    /// Heads of all entries; each is `u32::from_le_bytes`.
    #[inline]
    pub fn heads<'a>(&self, bytes: &'a [u8]) -> &'a [[u8; 4]] {
        bytes[self.start + BLOCK_HEADER_BYTES..self.offsets].as_chunks::<4>().0
    }
}

#[inline]
fn parse_frame(bytes: &[u8], at: &mut usize, base: u64) -> Option<Frame> {
    let suffix_len = get_varint(bytes, at)? as usize;
    let sequence = base.wrapping_add(get_varint(bytes, at)?);
    let tag = *bytes.get(*at)?;
    *at += 1;
    let payload_len = get_varint(bytes, at)? as usize;
    let payload = at.wrapping_add(suffix_len);
    Some(Frame { suffix: *at, payload, end: payload.wrapping_add(payload_len), sequence, tag })
}

fn check_entries(block: &[u8], shape: Shape, offsets: usize, entries: usize) -> Result<(), DecodeError> {
    let width = if shape.wide { 4 } else { 2 };
    let heads = block[BLOCK_HEADER_BYTES..offsets].as_chunks::<4>().0;
    let suffix_max = KEY_BYTES_MAX - shape.prefix_len;
    let mut start = entries;
    let mut before = Frame { sequence: 0, ..Frame::default() };
    let mut head_before = 0;
    for (index, head) in heads.iter().enumerate() {
        let offset_at = offsets + index * width;
        let offset = if shape.wide {
            number_u32(block, offset_at) as usize
        } else {
            usize::from(u16::from_le_bytes([block[offset_at], block[offset_at + 1]]))
        };
        if offset != start {
            return Err(wrong("offset of an entry", offset_at, "not where the entry before ends"));
        }
        let mut at = start;
        let frame = parse_frame(block, &mut at, shape.base).ok_or(wrong("entry", start, "cut short"))?;
        // Both lengths were added to a position in the block, so an overflow shows as an end before its start.
        let fits = frame.suffix <= frame.payload && frame.payload <= frame.end && frame.end <= block.len();
        if !fits || frame.payload - frame.suffix > suffix_max {
            return Err(wrong("entry", start, "lengths exceed the block"));
        }
        if frame.end - frame.payload > PAYLOAD_BYTES_MAX {
            return Err(wrong("payload length", start, "longer than its limit"));
        }
        if frame.sequence < shape.base || frame.tag >> 2 > 4 {
            return Err(wrong("entry", start, "sequence or tag not legal"));
        }
        let suffix = &block[frame.suffix..frame.payload];
        let head = u32::from_le_bytes(*head);
        if head != head_of(suffix) {
            return Err(wrong("head of an entry", start, "differs from its key"));
        }
        if index > 0 && head <= head_before {
            let order =
                head.cmp(&head_before).then_with(|| suffix.cmp(&block[before.suffix..before.payload]));
            if order.then_with(|| before.sequence.cmp(&frame.sequence)).is_le() {
                return Err(wrong("entry", start, "out of order"));
            }
        }
        start = frame.end;
        head_before = head;
        before = frame;
    }
    if start != block.len() {
        return Err(wrong("block length", 16, "not where the last entry ends"));
    }
    Ok(())
}

/// What the index says of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockRecord {
    /// Bytes from the start of the run.
    pub offset: u64,
    pub max_sequence: u64,
    pub stored_len: u32,
    pub raw_len: u32,
    pub crc: u32,
    pub count: u32,
    /// End of its separator, bytes into the separators.
    pub separator_end: u32,
    pub codec: Codec,
    /// Whether its first key is also the last key of the block before.
    pub continued: bool,
}

impl BlockRecord {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.offset);
        out.u64(self.max_sequence);
        out.u32(self.stored_len);
        out.u32(self.raw_len);
        out.u32(self.crc);
        out.u32(self.count);
        out.u32(self.separator_end);
        out.u8(self.codec.tag());
        out.u8(if self.continued { RECORD_CONTINUED } else { 0 });
        out.u16(0);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let record = Self {
            offset: input.u64("block offset")?,
            max_sequence: input.u64("block maximum sequence")?,
            stored_len: input.u32("block stored length")?,
            raw_len: input.u32("block raw length")?,
            crc: input.u32("block checksum")?,
            count: input.u32("block count")?,
            separator_end: input.u32("separator end")?,
            codec: Codec::from_tag(input.u8("block codec")?).ok_or_else(|| input.invalid("block codec"))?,
            continued: match input.u8("block flags")? {
                0 => false,
                RECORD_CONTINUED => true,
                _ => return Err(input.invalid("block flags")),
            },
        };
        input.zeros(2)?;
        let (stored, raw) = (record.stored_len as usize, record.raw_len as usize);
        if stored == 0 || stored > raw || raw > BLOCK_RAW_BYTES_MAX || record.count == 0 {
            return Err(input.invalid("block lengths"));
        }
        if record.codec == Codec::None && stored != raw {
            return Err(input.invalid("block lengths"));
        }
        Ok(record)
    }

    /// Bytes of the run that the block takes, without padding.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.stored_len)
    }
}

/// The parts of a meta section, as they are written.
pub(super) struct MetaParts<'a> {
    pub records: &'a [BlockRecord],
    pub prefix: &'a [u8],
    pub separators: &'a [u8],
    pub filter: &'a [u8],
    pub range_deletes: &'a [RangeDelete],
}

/// Writes a meta section.
pub(super) fn encode_meta(parts: &MetaParts<'_>) -> Vec<u8> {
    let mut deletes = Encoder::new();
    for delete in parts.range_deletes {
        deletes.bytes(&delete.start);
        match &delete.end {
            Some(end) => {
                deletes.u8(1);
                deletes.bytes(end);
            }
            None => deletes.u8(0),
        }
        deletes.u64(delete.sequence);
    }
    let capacity = META_HEADER_BYTES
        + parts.filter.len()
        + parts.records.len() * RECORD_BYTES
        + parts.prefix.len()
        + parts.separators.len()
        + deletes.len();
    let mut out = Encoder::with_capacity(capacity);
    out.u32(META_MAGIC);
    out.u16(u16::from(VERSION));
    out.u16(0);
    out.u32((parts.filter.len() / FILTER_LINE_BYTES) as u32);
    out.u32(parts.records.len() as u32);
    out.u32(parts.range_deletes.len() as u32);
    out.u32(parts.prefix.len() as u32);
    out.u32(parts.separators.len() as u32);
    out.u32(deletes.len() as u32);
    out.pad_to(META_HEADER_BYTES);
    out.raw(parts.filter);
    for record in parts.records {
        record.encode(&mut out);
    }
    out.raw(parts.prefix);
    out.raw(parts.separators);
    out.raw(deletes.as_slice());
    out.finish()
}

/// Where the parts of a checked meta section are, and those that are read once.
#[derive(Debug)]
pub(super) struct MetaLayout {
    pub filter: Range<usize>,
    pub records: Vec<BlockRecord>,
    pub prefix: Range<usize>,
    pub separators: Range<usize>,
    pub range_deletes: Vec<RangeDelete>,
}

/// Reads the meta section in `bytes`. `data_end` is where it starts in the run: blocks end there at the latest.
///
/// # Errors
/// What is wrong with it. What passes names only blocks in order and before `data_end`, separators in order and range
/// deletes that are not empty.
pub(super) fn decode_meta(bytes: &[u8], data_end: u64) -> Result<MetaLayout, DecodeError> {
    let mut input = Decoder::new(bytes);
    if input.u32("meta magic")? != META_MAGIC {
        return Err(wrong("meta magic", 0, "not a meta section"));
    }
    if input.u16("meta version")? != u16::from(VERSION) {
        return Err(wrong("meta version", 4, "unknown"));
    }
    input.zeros(2)?;
    let lines = input.count(META_BYTES_MAX / FILTER_LINE_BYTES, "filter lines")?;
    let blocks = input.count(BLOCKS_MAX, "blocks")?;
    let deletes = input.count(RANGE_DELETES_MAX, "range deletes")?;
    let prefix_len = input.count(KEY_BYTES_MAX, "prefix length")?;
    let separators_len = input.count(META_BYTES_MAX, "separator bytes")?;
    let deletes_len = input.count(META_BYTES_MAX, "range delete bytes")?;
    input.zeros(META_HEADER_BYTES - 32)?;
    let filter = take(&mut input, lines * FILTER_LINE_BYTES, "filter")?;
    if input.remaining() < blocks * RECORD_BYTES {
        return Err(input.invalid("blocks"));
    }
    let mut records: Vec<BlockRecord> = Vec::with_capacity(blocks);
    let (mut offset_min, mut separator_min) = (0, 0);
    for index in 0..blocks {
        let record = BlockRecord::decode(&mut input)?;
        let in_order = record.offset >= offset_min && record.separator_end >= separator_min;
        let inside = record.offset <= data_end && record.end() <= data_end;
        if !in_order || !inside || (index == 0 && (record.separator_end != 0 || record.continued)) {
            return Err(input.invalid("block record"));
        }
        (offset_min, separator_min) = (record.end(), record.separator_end);
        records.push(record);
    }
    if separator_min as usize != separators_len {
        return Err(input.invalid("separator bytes"));
    }
    let prefix = take(&mut input, prefix_len, "prefix")?;
    let separators = take(&mut input, separators_len, "separators")?;
    let texts = &bytes[separators.clone()];
    for pair in records.windows(2) {
        let start = pair[0].separator_end as usize;
        let text = &texts[start..pair[1].separator_end as usize];
        if text.len() + prefix_len > KEY_BYTES_MAX {
            return Err(wrong("separator", separators.start + start, "longer than its limit"));
        }
    }
    check_separator_order(&records, texts, separators.start)?;
    let mut input_deletes = Decoder::new(input.raw(deletes_len, "range deletes")?);
    input.finish("meta section")?;
    let range_deletes = decode_range_deletes(&mut input_deletes, deletes)?;
    Ok(MetaLayout { filter, records, prefix, separators, range_deletes })
}

fn take(input: &mut Decoder<'_>, len: usize, field: &'static str) -> Result<Range<usize>, DecodeError> {
    let start = input.position();
    input.raw(len, field)?;
    Ok(start..start + len)
}

fn check_separator_order(records: &[BlockRecord], texts: &[u8], at: usize) -> Result<(), DecodeError> {
    for three in records.windows(3) {
        let (a, b, c) = (
            three[0].separator_end as usize,
            three[1].separator_end as usize,
            three[2].separator_end as usize,
        );
        let order = texts[a..b].cmp(&texts[b..c]);
        if order.is_gt() || (order.is_eq() && !three[2].continued) {
            return Err(wrong("separator", at + b, "out of order"));
        }
    }
    Ok(())
}

fn decode_range_deletes(input: &mut Decoder<'_>, count: usize) -> Result<Vec<RangeDelete>, DecodeError> {
    // Each takes at least 10 bytes.
    let mut out: Vec<RangeDelete> = Vec::with_capacity(count.min(input.remaining() / 10));
    for _ in 0..count {
        let start = input.bytes(KEY_BYTES_MAX, "start of a range delete")?;
        let end = match input.u8("end of a range delete")? {
            0 => None,
            1 => Some(input.bytes(KEY_BYTES_MAX, "end of a range delete")?),
            _ => return Err(input.invalid("end of a range delete")),
        };
        let sequence = input.u64("sequence of a range delete")?;
        let sorted = out
            .last()
            .is_none_or(|last| (*last.start).cmp(start).then_with(|| sequence.cmp(&last.sequence)).is_le());
        if end.is_some_and(|end| end <= start) || !sorted {
            return Err(input.invalid("range delete"));
        }
        out.push(RangeDelete { start: start.into(), end: end.map(Into::into), sequence });
    }
    input.finish("range deletes")?;
    Ok(out)
}

/// Lines of a filter for `keys` keys at `bits` bits per key; at least one.
pub(super) fn filter_lines(keys: usize, bits: u8) -> usize {
    (keys * usize::from(bits)).div_ceil(FILTER_LINE_BYTES * 8).max(1)
}

#[inline]
fn filter_line(lines: usize, hash: u64) -> usize {
    (((hash >> 32) * lines as u64) >> 32) as usize
}

/// Where the line of `hash` starts in a filter of `filter_bytes` bytes.
#[inline]
pub(super) fn filter_offset(filter_bytes: usize, hash: u64) -> usize {
    filter_line(filter_bytes / FILTER_LINE_BYTES, hash) * FILTER_LINE_BYTES
}

/// Marks `hash` in `filter`, whole lines and at least one.
pub(super) fn filter_add(filter: &mut [u8], hash: u64) {
    let line = filter_line(filter.len() / FILTER_LINE_BYTES, hash) * FILTER_LINE_BYTES;
    let mut bits = hash as u32;
    for _ in 0..FILTER_PROBES {
        bits = bits.wrapping_mul(0x9e37_79b9);
        let bit = (bits >> 23) as usize;
        filter[line + bit / 8] |= 1 << (bit % 8);
    }
}

/// Whether a key with `hash` may be in `filter`, whole lines; true when it has none.
#[inline]
pub(super) fn filter_contains(filter: &[u8], hash: u64) -> bool {
    let (lines, _) = filter.as_chunks::<FILTER_LINE_BYTES>();
    let Some(line) = lines.get(filter_line(lines.len(), hash)) else { return true };
    let mut bits = hash as u32;
    let mut all = 1;
    for _ in 0..FILTER_PROBES {
        bits = bits.wrapping_mul(0x9e37_79b9);
        let bit = bits >> 23;
        all &= line[(bit / 8) as usize] >> (bit % 8);
    }
    all != 0
}

/// Owned bytes of a key.
pub type Key = Box<[u8]>;

/// What a node header stores of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRef {
    /// Where the bytes are, in order.
    pub extents: StoredExtents,
    /// Start of the meta section, bytes from the start of the run.
    pub meta_offset: u64,
    /// Length of the meta section in bytes.
    pub meta_len: u32,
    /// CRC-32C of the meta section.
    pub meta_crc: u32,
    /// Data blocks.
    pub blocks: u32,
    /// Bytes of all blocks before compression.
    pub raw_bytes: u64,
    /// Bytes in the large values that entries name.
    pub large_bytes: u64,
    /// Entries, of any kind.
    pub entries: u64,
    /// Entries that are deletes.
    pub deletes: u64,
    /// Bytes of the messages of upserts.
    pub upsert_bytes: u64,
    /// Range deletes.
    pub range_deletes: u32,
    /// Lowest sequence number of entries and range deletes.
    pub min_sequence: u64,
    /// Highest sequence number of entries and range deletes.
    pub max_sequence: u64,
    /// Generation of the first checkpoint that contains this reference; 0 until then.
    pub birth: Generation,
    /// The dataset that wrote the run.
    pub origin: DatasetId,
    /// Where it was to be placed.
    pub preference: StoragePreference,
    /// First and last key of the entries, both inclusive; `None` when there are only range deletes.
    pub keys: Option<(Key, Key)>,
    /// Lowest start and highest end (exclusive; `None`: no bound) of the range deletes.
    pub hull: Option<(Key, Option<Key>)>,
}

impl RunRef {
    /// Bytes stored, without the padding at the end.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.meta_offset + u64::from(self.meta_len)
    }

    /// Whether the run may say anything about `key`, by its bounds alone.
    #[must_use]
    pub fn bounds_contain(&self, key: &[u8]) -> bool {
        self.keys_contain(key)
            || self
                .hull
                .as_ref()
                .is_some_and(|(start, end)| **start <= *key && end.as_deref().is_none_or(|end| key < end))
    }

    /// Whether `key` lies between the first and the last key of the entries.
    #[inline]
    #[must_use]
    pub fn keys_contain(&self, key: &[u8]) -> bool {
        self.keys.as_ref().is_some_and(|(first, last)| **first <= *key && *key <= **last)
    }

    /// Whether entries or range deletes may touch `start..end` (`None`: no bound).
    #[must_use]
    pub fn overlaps(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        let above = |low: &[u8]| end.is_none_or(|end| low < end);
        self.keys.as_ref().is_some_and(|(first, last)| above(first) && **last >= *start)
            || self
                .hull
                .as_ref()
                .is_some_and(|(low, high)| above(low) && high.as_deref().is_none_or(|high| high > start))
    }

    /// Whether all entries and range deletes lie in `start..end` (`None`: no bound).
    #[must_use]
    pub fn lies_within(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        let keys = self
            .keys
            .as_ref()
            .is_none_or(|(first, last)| **first >= *start && end.is_none_or(|end| **last < *end));
        let hull = self.hull.as_ref().is_none_or(|(low, high)| {
            let inside = match (high.as_deref(), end) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(high), Some(end)) => high <= end,
            };
            **low >= *start && inside
        });
        keys && hull
    }

    /// Appends the reference.
    pub fn encode(&self, out: &mut Encoder) {
        out.u8(VERSION);
        out.u8(self.preference.as_u8());
        let hull_end = self.hull.as_ref().and_then(|(_, end)| end.as_deref());
        let flags = [self.keys.is_some(), self.hull.is_some(), hull_end.is_some()];
        out.u8(flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
        out.u32(self.meta_crc);
        self.extents.encode(out);
        out.varint(self.meta_offset);
        out.varint(u64::from(self.meta_len));
        out.varint(u64::from(self.blocks));
        out.varint(self.raw_bytes);
        out.varint(self.large_bytes);
        out.varint(self.entries);
        out.varint(self.deletes);
        out.varint(self.upsert_bytes);
        out.varint(u64::from(self.range_deletes));
        out.varint(self.min_sequence);
        out.varint(self.max_sequence - self.min_sequence);
        out.varint(self.birth.0);
        out.varint(self.origin.0);
        if let Some((first, last)) = &self.keys {
            out.bytes(first);
            out.bytes(last);
        }
        if let Some((start, end)) = &self.hull {
            out.bytes(start);
            if let Some(end) = end {
                out.bytes(end);
            }
        }
    }

    /// Reads what [`RunRef::encode`] wrote, and the list of extents, where there is one, from `dmu`.
    ///
    /// # Errors
    /// What is wrong with it; device errors and damage of the list.
    pub fn decode(input: &mut Decoder<'_>, dmu: &Dmu) -> Result<Self, DmuError> {
        let plain = |source| DmuError::Decode { what: "run reference", source };
        let front = Front::decode(input).map_err(plain)?;
        let extents = StoredExtents::decode(input, dmu)?;
        Self::decode_rest(input, front, extents).map_err(plain)
    }

    fn decode_rest(
        input: &mut Decoder<'_>,
        front: Front,
        extents: StoredExtents,
    ) -> Result<Self, DecodeError> {
        let Front { preference, flags, meta_crc } = front;
        let mut reference = Self {
            extents,
            meta_offset: input.varint("meta offset")?,
            meta_len: varint_u32(input, META_BYTES_MAX, "meta length")?,
            meta_crc,
            blocks: varint_u32(input, BLOCKS_MAX, "run blocks")?,
            raw_bytes: input.varint("run raw bytes")?,
            large_bytes: input.varint("run large bytes")?,
            entries: input.varint("run entries")?,
            deletes: input.varint("run deletes")?,
            upsert_bytes: input.varint("run upsert bytes")?,
            range_deletes: varint_u32(input, RANGE_DELETES_MAX, "run range deletes")?,
            min_sequence: input.varint("run minimum sequence")?,
            max_sequence: input.varint("run maximum sequence")?,
            birth: Generation(input.varint("run birth")?),
            origin: DatasetId(input.varint("run origin")?),
            preference,
            keys: None,
            hull: None,
        };
        reference.max_sequence = reference
            .min_sequence
            .checked_add(reference.max_sequence)
            .ok_or_else(|| input.invalid("run maximum sequence"))?;
        if flags & 1 != 0 {
            let first = input.bytes(KEY_BYTES_MAX, "run first key")?;
            let last = input.bytes(KEY_BYTES_MAX, "run last key")?;
            if first > last {
                return Err(input.invalid("run keys"));
            }
            reference.keys = Some((first.into(), last.into()));
        }
        if flags & 2 != 0 {
            let start = input.bytes(KEY_BYTES_MAX, "run hull start")?;
            let end =
                if flags & 4 != 0 { Some(input.bytes(KEY_BYTES_MAX, "run hull end")?.into()) } else { None };
            reference.hull = Some((start.into(), end));
        }
        reference.check(flags).map_err(|field| input.invalid(field))?;
        Ok(reference)
    }

    fn check(&self, flags: u8) -> Result<(), &'static str> {
        if flags > 7 || flags & 6 == 4 {
            return Err("run flags");
        }
        if self.keys.is_some() != (self.entries > 0)
            || (self.entries > 0) != (self.blocks > 0)
            || self.hull.is_some() != (self.range_deletes > 0)
            || self.deletes > self.entries
            || [self.entries, self.raw_bytes, self.large_bytes, self.upsert_bytes]
                .iter()
                .any(|n| *n > COUNT_MAX)
        {
            return Err("run counts");
        }
        if self.birth > Generation::STORED_MAX {
            return Err("run birth");
        }
        let aligned = self.meta_offset.is_multiple_of(META_ALIGNMENT);
        if !aligned || self.meta_offset > 1 << 60 || (self.meta_len as usize) < META_HEADER_BYTES {
            return Err("run meta section");
        }
        if total_blocks(self.extents.extents()).saturating_mul(BLOCK_BYTES_U64) < self.stored_bytes() {
            return Err("run extents");
        }
        Ok(())
    }
}

/// What comes before the extents in a reference.
struct Front {
    preference: StoragePreference,
    flags: u8,
    meta_crc: u32,
}

impl Front {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        if input.u8("run version")? != VERSION {
            return Err(input.invalid("run version"));
        }
        let preference = StoragePreference::from_u8(input.u8("run preference")?)
            .ok_or_else(|| input.invalid("run preference"))?;
        Ok(Self { preference, flags: input.u8("run flags")?, meta_crc: input.u32("meta checksum")? })
    }
}

fn varint_u32(input: &mut Decoder<'_>, limit: usize, field: &'static str) -> Result<u32, DecodeError> {
    let value = input.varint(field)?;
    if value > limit as u64 {
        return Err(input.invalid(field));
    }
    Ok(value as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::extent::Extent;
    use crate::base::ids::VdevId;
    use crate::run::testing::memory;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn raw<'a>(key: &'a [u8], sequence: u64, tag: u8, payload: &'a [u8]) -> RawEntry<'a> {
        RawEntry { key, sequence, tag, payload }
    }

    #[test]
    fn golden_block() {
        let entries = || {
            vec![
                raw(b"key", 300, tag_of(Kind::Delete, StoragePreference::NONE), b""),
                raw(b"keyring", 172, tag_of(Kind::Put, StoragePreference::FASTEST), b"value"),
                raw(b"keyring", 171, tag_of(Kind::PutLarge, StoragePreference::SLOWEST), b"p"),
            ]
            .into_iter()
        };
        let bound = block_len(3, 3, 60);
        let mut out = vec![0xee; bound];
        let len = encode_block(&mut out, bound, b"key", 171, entries());
        assert_eq!(hex(&out[..len]), GOLDEN_BLOCK);
        let shape = Shape::check(&out, 0..len).unwrap();
        assert_eq!((shape.count, shape.prefix_len, shape.base, shape.wide), (3, 3, 171, false));
        let frame = shape.frame(&out, shape.offset(&out, 1));
        assert_eq!(
            (&out[frame.suffix..frame.payload], &out[frame.payload..frame.end]),
            (&b"ring"[..], &b"value"[..])
        );
        assert_eq!(
            (frame.sequence, tag_kind(frame.tag), tag_preference(frame.tag).as_u8()),
            (172, Kind::Put, 0)
        );
        let wide_bound = 70_000;
        let mut wide = vec![0; wide_bound];
        let len = encode_block(&mut wide, wide_bound, b"key", 171, entries());
        assert_eq!(wide[20], 1);
        let shape = Shape::check(&wide, 0..len).unwrap();
        let frame = shape.frame(&wide, shape.offset(&wide, 2));
        assert_eq!(
            (frame.sequence, tag_kind(frame.tag), tag_preference(frame.tag).as_u8()),
            (171, Kind::PutLarge, 3)
        );
    }

    const GOLDEN_BLOCK: &str = "\
        0300000003000000ab00000000000000480000000000000000000000676e6972676e69722d003200\
        3f006b657900810111000401000572696e6776616c756504000f0172696e6770";

    fn record(offset: u64, separator_end: u32, continued: bool) -> BlockRecord {
        BlockRecord {
            offset,
            max_sequence: 0x1122,
            stored_len: 4000,
            raw_len: 4001,
            crc: 0xaabb_ccdd,
            count: 17,
            separator_end,
            codec: Codec::Lz4,
            continued,
        }
    }

    #[test]
    fn golden_meta() {
        let mut filter = vec![0; 2 * FILTER_LINE_BYTES];
        let hash = 0x0123_4567_89ab_cdef;
        assert!(!filter_contains(&filter, hash));
        filter_add(&mut filter, hash);
        assert!(filter_contains(&filter, hash) && filter_contains(&[], 1));
        let deletes = [
            RangeDelete { start: b"a"[..].into(), end: Some(b"b"[..].into()), sequence: 7 },
            RangeDelete { start: b"c"[..].into(), end: None, sequence: 8 },
        ];
        let parts = MetaParts {
            records: &[record(0, 0, false), record(4000, 3, true)],
            prefix: b"run",
            separators: b"sep",
            filter: &filter,
            range_deletes: &deletes,
        };
        let bytes = encode_meta(&parts);
        assert_eq!(hex(&bytes), GOLDEN_META);
        let layout = decode_meta(&bytes, 8000).unwrap();
        assert_eq!(layout.records, parts.records);
        assert_eq!((&bytes[layout.filter], &bytes[layout.prefix]), (&filter[..], &b"run"[..]));
        assert_eq!((&bytes[layout.separators], &layout.range_deletes[..]), (&b"sep"[..], &deletes[..]));
        assert!(decode_meta(&bytes, 7999).is_err());
        assert!((0..bytes.len()).all(|len| decode_meta(&bytes[..len], 8000).is_err()));
        let records = layout.records.len() * RECORD_BYTES;
        let first = META_HEADER_BYTES + filter.len();
        let of_records =
            (first..first + records).filter(|at| (at - first) % RECORD_BYTES >= RECORD_BYTES - 2);
        for at in [6, 7].into_iter().chain(32..META_HEADER_BYTES).chain(of_records) {
            let mut changed = bytes.clone();
            changed[at] = 1;
            assert_eq!(decode_meta(&changed, 8000).unwrap_err().field, "reserved bytes", "byte {at}");
        }
    }

    const GOLDEN_META: &str = "\
        524d5441010000000200000002000000020000000300000003000000180000000000000000000000\
        00000000000000000000000000000000000000000000000000000000000001000000000000000000\
        06000000000000000000000008200000000000000000000000000000000000000000000000001000\
        00000000000000000000000000000000000000000000000000000000000000000000000000000000\
        00000000000000000000000000000000000000000000000000000000000000000000000000000000\
        2211000000000000a00f0000a10f0000ddccbbaa110000000000000001000000a00f000000000000\
        2211000000000000a00f0000a10f0000ddccbbaa11000000030000000101000072756e7365700161\
        01016207000000000000000163000800000000000000";

    fn reference(dmu: &Dmu) -> RunRef {
        let extents = vec![Extent { vdev: VdevId(1), block: 0x1234, blocks: 40 }];
        RunRef {
            extents: dmu.store_extents(extents, StoragePreference::NONE).unwrap(),
            meta_offset: 128 << 10,
            meta_len: 3000,
            meta_crc: 0xdead_beef,
            blocks: 8,
            raw_bytes: 130_000,
            large_bytes: 5,
            entries: 1000,
            deletes: 10,
            upsert_bytes: 300,
            range_deletes: 2,
            min_sequence: 100,
            max_sequence: 400,
            birth: Generation(6),
            origin: DatasetId(7),
            preference: StoragePreference::NONE,
            keys: Some((b"first"[..].into(), b"last"[..].into())),
            hull: Some((b"a"[..].into(), Some(b"z"[..].into()))),
        }
    }

    fn check_reference(dmu: &Dmu, reference: &RunRef, golden: &str) {
        let mut out = Encoder::new();
        reference.encode(&mut out);
        assert_eq!(hex(out.as_slice()), golden);
        let mut input = Decoder::new(out.as_slice());
        assert_eq!(&RunRef::decode(&mut input, dmu).unwrap(), reference);
        assert_eq!(input.remaining(), 0);
    }

    #[test]
    fn golden_reference() {
        let (dmu, _devices) = memory(&[8 << 10], 0);
        check_reference(&dmu, &reference(&dmu), GOLDEN_REFERENCE);
        let ranges_only = RunRef {
            preference: StoragePreference::FAST,
            hull: Some((Box::default(), None)),
            keys: None,
            blocks: 0,
            entries: 0,
            deletes: 0,
            upsert_bytes: 0,
            ..reference(&dmu)
        };
        check_reference(&dmu, &ranges_only, GOLDEN_RANGES_REFERENCE);
    }

    const GOLDEN_REFERENCE: &str = "\
        01fe07efbeadde0101000000280000003412000000000000808008b81708d0f70705e8070aac0202\
        64ac020607056669727374046c6173740161017a";
    const GOLDEN_RANGES_REFERENCE: &str = "\
        010102efbeadde0101000000280000003412000000000000808008b81700d0f707050000000264ac\
        02060700";

    #[test]
    fn filters_find_all_and_few_others() {
        for keys in [1, 10, 1000, 100_000] {
            let hash = |number: u64| xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes());
            let mut filter = vec![0; filter_lines(keys, 10) * FILTER_LINE_BYTES];
            (0..keys as u64).for_each(|key| filter_add(&mut filter, hash(key)));
            assert!((0..keys as u64).all(|key| filter_contains(&filter, hash(key))));
            let wrong = (0..10_000).filter(|key| filter_contains(&filter, hash(1 << 40 | key))).count();
            assert!(wrong < 250, "{wrong} of 10000 with {keys} keys");
        }
    }

    #[test]
    fn lengths_of_numbers() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Encoder::new();
            out.varint(value);
            assert_eq!(varint_len(value), out.len());
            let (mut buffer, mut position) = ([0; 10], 0);
            write_varint(&mut buffer, &mut position, value);
            assert_eq!(&buffer[..position], out.as_slice());
        }
    }
}
