//! Data blocks in memory: the builder that fills one, and the checked block that is searched.

use super::entry::EntryRef;
use super::format::{
    Frame, RawEntry, Shape, block_len, encode_block, head_of, tag_kind, tag_of, tag_preference, varint_len,
};
use crate::base::buffer::AlignedBuffer;
use crate::dmu::{Charge, Heat};

/// Collects the entries of one block.
///
/// The common prefix is known only when the block is full, so keys and payloads are copied into an arena first. Lengths
/// are bounded from above as entries come: sequence deltas and suffix lengths as if all were the longest.
#[derive(Debug, Default)]
pub(super) struct BlockBuilder {
    /// Keys and payloads, each payload behind its key.
    arena: Vec<u8>,
    items: Vec<Item>,
    totals: Totals,
}

#[derive(Debug)]
struct Item {
    sequence: u64,
    start: u32,
    key_len: u32,
    payload_len: u32,
    tag: u8,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    prefix: usize,
    key_bytes: usize,
    /// Payloads with their lengths and the tags.
    payload_bytes: usize,
    key_len_max: usize,
    min_sequence: u64,
    max_sequence: u64,
}

impl Totals {
    fn bound(&self, entries: usize) -> usize {
        let suffix_len_bytes = varint_len((self.key_len_max - self.prefix) as u64);
        let delta_bytes = varint_len(self.max_sequence - self.min_sequence);
        let framed = self.key_bytes - entries * self.prefix
            + entries * (suffix_len_bytes + delta_bytes)
            + self.payload_bytes;
        block_len(entries, self.prefix, framed)
    }
}

impl BlockBuilder {
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn count(&self) -> usize {
        self.items.len()
    }

    pub fn max_sequence(&self) -> u64 {
        self.totals.max_sequence
    }

    /// Bytes that the block has at most.
    pub fn bound(&self) -> usize {
        if self.items.is_empty() { 0 } else { self.totals.bound(self.items.len()) }
    }

    pub fn first_key(&self) -> &[u8] {
        self.items.first().map_or(&[], |item| self.key(item))
    }

    pub fn last_key(&self) -> &[u8] {
        self.items.last().map_or(&[], |item| self.key(item))
    }

    pub fn last_sequence(&self) -> u64 {
        self.items.last().map_or(0, |item| item.sequence)
    }

    fn key(&self, item: &Item) -> &[u8] {
        let start = item.start as usize;
        &self.arena[start..start + item.key_len as usize]
    }

    fn totals_with(&self, entry: &EntryRef<'_>) -> Totals {
        let payload_bytes = 1 + varint_len(entry.payload.len() as u64) + entry.payload.len();
        let Some(first) = self.items.first() else {
            return Totals {
                prefix: entry.key.len(),
                key_bytes: entry.key.len(),
                payload_bytes,
                key_len_max: entry.key.len(),
                min_sequence: entry.sequence,
                max_sequence: entry.sequence,
            };
        };
        let old = &self.totals;
        let shared = &self.arena[first.start as usize..first.start as usize + old.prefix];
        Totals {
            prefix: if entry.key.starts_with(shared) { old.prefix } else { common_prefix(shared, entry.key) },
            key_bytes: old.key_bytes + entry.key.len(),
            payload_bytes: old.payload_bytes + payload_bytes,
            key_len_max: old.key_len_max.max(entry.key.len()),
            min_sequence: old.min_sequence.min(entry.sequence),
            max_sequence: old.max_sequence.max(entry.sequence),
        }
    }

    /// Adds `entry` when the block then has at most `bytes_max` bytes, or when it is the first one.
    pub fn add(&mut self, entry: &EntryRef<'_>, bytes_max: usize) -> bool {
        let totals = self.totals_with(entry);
        if !self.items.is_empty() && totals.bound(self.items.len() + 1) > bytes_max {
            return false;
        }
        self.totals = totals;
        self.items.push(Item {
            sequence: entry.sequence,
            start: self.arena.len() as u32,
            key_len: entry.key.len() as u32,
            payload_len: entry.payload.len() as u32,
            tag: tag_of(entry.kind, entry.preference),
        });
        self.arena.extend_from_slice(entry.key);
        self.arena.extend_from_slice(entry.payload);
        true
    }

    /// Writes the block at the start of `out`, which has at least [`BlockBuilder::bound`] bytes; returns its length.
    pub fn encode(&self, out: &mut [u8]) -> usize {
        let prefix = &self.first_key()[..self.totals.prefix];
        let entries = self.items.iter().map(|item| {
            let key_end = item.start as usize + item.key_len as usize;
            RawEntry {
                key: &self.arena[item.start as usize..key_end],
                sequence: item.sequence,
                tag: item.tag,
                payload: &self.arena[key_end..key_end + item.payload_len as usize],
            }
        });
        encode_block(out, self.bound(), prefix, self.totals.min_sequence, entries)
    }

    pub fn clear(&mut self) {
        self.arena.clear();
        self.items.clear();
    }
}

/// Number of bytes that `a` and `b` have in common at their start.
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let same = words.take_while(|(a, b)| a == b).count() * 8;
    same + a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count()
}

/// A checked block and the buffer that it lies in.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub bytes: &'a [u8],
    pub shape: &'a Shape,
}

impl<'a> View<'a> {
    /// Index of the first entry whose key is at least `key`; the count when there is none.
    #[inline]
    pub fn lower_bound(self, key: &[u8]) -> usize {
        let prefix = self.prefix();
        let Some(suffix) = key.strip_prefix(prefix) else {
            return if key < prefix { 0 } else { self.shape.count };
        };
        let heads = self.shape.heads(self.bytes);
        let head = head_of(suffix);
        let mut low = heads.partition_point(|other| u32::from_le_bytes(*other) < head);
        if low < heads.len() && u32::from_le_bytes(heads[low]) == head {
            let ties = &heads[low..];
            let mut size = match ties.get(1) {
                Some(next) if u32::from_le_bytes(*next) == head => {
                    ties.partition_point(|other| u32::from_le_bytes(*other) == head)
                }
                _ => 1,
            };
            while size > 0 {
                let half = size / 2;
                if self.suffix(low + half) < suffix {
                    low += half + 1;
                    size -= half + 1;
                } else {
                    size = half;
                }
            }
        }
        low
    }

    #[inline]
    pub fn prefix(self) -> &'a [u8] {
        &self.bytes[self.shape.prefix..self.shape.prefix + self.shape.prefix_len]
    }

    #[inline]
    pub fn frame(self, index: usize) -> Frame {
        self.shape.frame(self.bytes, self.shape.offset(self.bytes, index))
    }

    #[inline]
    fn suffix(self, index: usize) -> &'a [u8] {
        let frame = self.frame(index);
        &self.bytes[frame.suffix..frame.payload]
    }

    /// The entry of `frame` when its key is `key`; `None` when it has another one.
    #[inline]
    pub fn entry_of<'e>(self, frame: &Frame, key: &'e [u8]) -> Option<EntryRef<'e>>
    where
        'a: 'e,
    {
        if key.strip_prefix(self.prefix())? != &self.bytes[frame.suffix..frame.payload] {
            return None;
        }
        Some(EntryRef {
            key,
            sequence: frame.sequence,
            kind: tag_kind(frame.tag),
            preference: tag_preference(frame.tag),
            payload: &self.bytes[frame.payload..frame.end],
        })
    }
}

/// Bytes of a cache line; addresses in hints are multiples of it.
pub(super) const HINT_ALIGNMENT: usize = 64;

/// A checked block that is, or was, in the cache.
#[derive(Debug)]
pub(super) struct Block {
    bytes: AlignedBuffer,
    shape: Shape,
    pub heat: Heat,
    _charge: Charge,
}

impl Block {
    pub fn new(bytes: AlignedBuffer, shape: Shape, charge: Charge) -> Self {
        Self { bytes, shape, heat: Heat::default(), _charge: charge }
    }

    #[inline]
    pub fn view(&self) -> View<'_> {
        View { bytes: &self.bytes, shape: &self.shape }
    }

    /// Bytes of memory of the frame.
    pub fn footprint(&self) -> usize {
        self.bytes.capacity()
    }

    /// Where a search reads first: the address of the block's first line, and in its low bits how many lines lie from
    /// there to the end of the offsets.
    pub fn hint(&self) -> usize {
        // More lines than this would wait for each other.
        const LINES_MAX: usize = 16;
        let address = self.bytes[self.shape.start..].as_ptr() as usize;
        let lines = (self.shape.prefix - self.shape.start).div_ceil(HINT_ALIGNMENT).min(LINES_MAX);
        (address / HINT_ALIGNMENT * HINT_ALIGNMENT) | lines
    }
}
