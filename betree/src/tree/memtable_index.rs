//! An arena of messages and a B-tree over it: the ordered half of a memtable.
//!
//! ```text
//!  inner  prefix of separator  p1 p2 … | record of separator | child 0 … child n
//!                    │
//!  leaf   prefix of key        p0 p1 … | record of entry     | previous, next, skip
//!                                              │
//!  arena  chunk: … [sequence 8][lengths, kind, preference 8][key][payload] …
//! ```
//!
//! A node is searched through eight-byte big-endian prefixes of its keys, which lie together; the arena is touched
//! only where prefixes are equal. (Why: nearly all time here is cache and TLB misses.) A prefix starts behind the
//! `skip` bytes that all keys between the two separators around the node have in common, so that keys with long common
//! beginnings cost no more; the idea is prefix truncation between fence keys (Graefe, "Modern B-Tree
//! Techniques", 2011, section 3.5).
//!
//! 1. Order: key ascending, sequence descending; no two entries are equal in both.
//! 2. Records never move and never change: a number of a record stays valid as long as the index lives.
//! 3. An entry of a node is at or after the separator before the node and before the separator after it. Hence every
//!    key that a descent brings to a node shares the first `skip` bytes of the keys in it.
//! 4. Prefixes ascend within a node; unused ones are `u64::MAX`. Only the root leaf of an empty index is empty.

use crate::base::buffer::AlignedBuffer;
use crate::base::preference::StoragePreference;
use crate::run::{EntryRef, Kind};
use std::cmp::Ordering;

/// Entries of a leaf, and children of an inner node. Of 32, 64 and 128, the last has the fastest reads (a level less at the
/// usual size) and the least memory; inserts do not tell 64 from 128.
const SLOTS: usize = 128;
/// Prefixes of one cache line.
const GROUP: usize = 8;
/// Leaves that are allocated together, so that growing never copies them.
const LEAF_CHUNK: usize = 32;
/// More levels than 2³² entries can fill at half-full nodes.
const HEIGHT_MAX: usize = 16;
/// After so many inserts side by side a full leaf is split where they go on, which leaves full leaves behind.
const SEQUENTIAL_RUN: u32 = 8;
/// "No record", "no leaf".
const NONE: u32 = u32::MAX;

/// Bytes of a chunk of the arena; records start at multiples of [`RECORD_ALIGN`] within one.
const CHUNK_BYTES: usize = 1 << 20;
const RECORD_ALIGN: usize = 4;
const OFFSET_BITS: u32 = (CHUNK_BYTES / RECORD_ALIGN).trailing_zeros();
const CHUNKS_MAX: usize = NONE as usize >> OFFSET_BITS;
const HEADER_BYTES: usize = 16;
const KEY_LENGTH_BITS: u32 = 20;

/// Messages one behind the other. A record is named by its chunk and offset in a `u32`.
#[derive(Debug, Default)]
struct Arena {
    chunks: Vec<AlignedBuffer>,
    /// Bytes used of the last chunk.
    used: usize,
    /// Bytes of all chunks.
    allocated: usize,
}

impl Arena {
    fn push(&mut self, entry: EntryRef<'_>) -> u32 {
        let (key, payload) = (entry.key, entry.payload);
        assert!(key.len() < 1 << KEY_LENGTH_BITS && payload.len() <= u32::MAX as usize, "sizes were checked");
        let size = HEADER_BYTES + key.len() + payload.len();
        if self.chunks.last().is_none_or(|chunk| chunk.len().saturating_sub(self.used) < size) {
            self.grow(size);
        }
        let number = self.chunks.len() - 1;
        let start = self.used;
        let record = &mut self.chunks[number][start..start + size];
        let word = payload.len() as u64
            | (key.len() as u64) << 32
            | (entry.kind as u64) << (32 + KEY_LENGTH_BITS)
            | u64::from(entry.preference.as_u8()) << 56;
        record[..8].copy_from_slice(&entry.sequence.to_le_bytes());
        record[8..HEADER_BYTES].copy_from_slice(&word.to_le_bytes());
        record[HEADER_BYTES..HEADER_BYTES + key.len()].copy_from_slice(key);
        record[HEADER_BYTES + key.len()..].copy_from_slice(payload);
        self.used = (start + size).next_multiple_of(RECORD_ALIGN);
        (number as u32) << OFFSET_BITS | (start / RECORD_ALIGN) as u32
    }

    /// A new last chunk: small ones first, so that a dataset that is written little takes little memory. The frames of
    /// aligned buffers lie in huge pages and are warm from an earlier memtable.
    fn grow(&mut self, size: usize) {
        assert!(self.chunks.len() < CHUNKS_MAX, "a memtable is frozen long before 16 GiB");
        let bytes = match self.allocated {
            0..0x1_0000 => 16 << 10,
            0x1_0000..0x10_0000 => 128 << 10,
            _ => CHUNK_BYTES,
        };
        let mut chunk = AlignedBuffer::recycled(bytes.max(size));
        // A chunk for one huge record is full with it; of all others the whole frame is used.
        let room = chunk.capacity().min(CHUNK_BYTES);
        if chunk.len() < room {
            chunk.resize(room);
        }
        self.allocated += chunk.capacity();
        self.used = 0;
        self.chunks.push(chunk);
    }

    #[inline]
    fn record(&self, record: u32) -> &[u8] {
        let offset = (record & ((1 << OFFSET_BITS) - 1)) as usize * RECORD_ALIGN;
        &self.chunks[(record >> OFFSET_BITS) as usize][offset..]
    }

    #[inline]
    fn header(record: &[u8]) -> (u64, u64) {
        let mut sequence = [0; 8];
        let mut word = [0; 8];
        sequence.copy_from_slice(&record[..8]);
        word.copy_from_slice(&record[8..HEADER_BYTES]);
        (u64::from_le_bytes(sequence), u64::from_le_bytes(word))
    }

    #[inline]
    fn key_length(word: u64) -> usize {
        (word >> 32) as usize & ((1 << KEY_LENGTH_BITS) - 1)
    }

    #[inline]
    fn key(&self, record: u32) -> &[u8] {
        let bytes = self.record(record);
        let (_, word) = Self::header(bytes);
        &bytes[HEADER_BYTES..HEADER_BYTES + Self::key_length(word)]
    }

    #[inline]
    fn entry(&self, record: u32) -> EntryRef<'_> {
        let bytes = self.record(record);
        let (sequence, word) = Self::header(bytes);
        let (key, rest) = bytes[HEADER_BYTES..].split_at(Self::key_length(word));
        let kind = Kind::from_u8((word >> (32 + KEY_LENGTH_BITS)) as u8 & 0xf);
        let preference = StoragePreference::from_u8((word >> 56) as u8);
        let (Some(kind), Some(preference)) = (kind, preference) else {
            unreachable!("records are written by `push` alone");
        };
        EntryRef { key, sequence, kind, preference, payload: &rest[..word as u32 as usize] }
    }

    /// The order of a record relative to `target`, whose key has the record's first `skip` bytes.
    #[inline]
    fn compare(&self, record: u32, target: Target<'_>, skip: u32) -> Ordering {
        let bytes = self.record(record);
        let (sequence, word) = Self::header(bytes);
        let key = &bytes[HEADER_BYTES..HEADER_BYTES + Self::key_length(word)];
        key[skip as usize..].cmp(&target.key[skip as usize..]).then(target.sequence.cmp(&sequence))
    }
}

/// A point in the order of entries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub key: &'a [u8],
    /// Entries of the key with a larger sequence are before the point.
    pub sequence: u64,
}

/// An entry's place in the leaves; valid until the next insert. One past the last entry: `leaf` is [`NONE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    leaf: u32,
    slot: u32,
}

const END: Place = Place { leaf: NONE, slot: 0 };

#[derive(Debug)]
#[repr(align(64))]
struct Leaf {
    prefixes: [u64; SLOTS],
    records: [u32; SLOTS],
    len: u32,
    skip: u32,
    previous: u32,
    next: u32,
}

#[derive(Debug)]
#[repr(align(64))]
struct Inner {
    /// Of separators; separator `i` is the lower bound of child `i + 1`.
    prefixes: [u64; SLOTS],
    separators: [u32; SLOTS],
    children: [u32; SLOTS],
    /// Number of separators: one less than children.
    len: u32,
    skip: u32,
}

/// The separators around a node; [`NONE`] at the ends.
#[derive(Debug, Clone, Copy)]
struct Fences {
    low: u32,
    high: u32,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    node: u32,
    child: usize,
    fences: Fences,
}

/// Where the last entry went. Inserts side by side find their leaf here without a descent.
#[derive(Debug)]
struct Hint {
    leaf: u32,
    slot: usize,
    fences: Fences,
    /// Inserts in a row that went beside the one before.
    run: u32,
}

/// The arena and the B-tree.
#[derive(Debug)]
pub(super) struct Index {
    arena: Arena,
    leaves: Vec<Vec<Leaf>>,
    inners: Vec<Inner>,
    root: u32,
    /// Levels of inner nodes.
    height: usize,
    last_leaf: u32,
    hint: Hint,
}

/// The eight bytes of `key` from `skip` on as a number; a short key is filled up with zeros.
#[inline]
fn prefix_at(key: &[u8], skip: u32) -> u64 {
    let rest = key.get(skip as usize..).unwrap_or_default();
    if let Some(bytes) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(bytes)
}

/// How many prefixes are less than `target`: the ends of all lines first, then one line, without a branch that depends
/// on a comparison, so that the lines arrive side by side.
#[inline]
fn rank(prefixes: &[u64; SLOTS], target: u64) -> usize {
    let mut group = 0;
    for index in 0..SLOTS / GROUP {
        group += usize::from(prefixes[index * GROUP + GROUP - 1] < target);
    }
    let Some(line) = prefixes.get(group * GROUP..(group + 1) * GROUP) else {
        return SLOTS;
    };
    group * GROUP + line.iter().map(|prefix| usize::from(*prefix < target)).sum::<usize>()
}

/// How many of a node's first `len` records are before `target` (`or_at`: before or equal).
#[inline]
fn partition(
    arena: &Arena,
    (prefixes, records, len, skip): (&[u64; SLOTS], &[u32; SLOTS], u32, u32),
    target: Target<'_>,
    or_at: bool,
) -> usize {
    let len = len as usize;
    let prefix = prefix_at(target.key, skip);
    let mut low = rank(prefixes, prefix);
    if low >= len || prefixes[low] != prefix {
        return low.min(len);
    }
    let mut high = low + 1;
    if high < len && prefixes[high] == prefix {
        high = prefix.checked_add(1).map_or(len, |above| rank(prefixes, above).min(len));
    }
    while low < high {
        let middle = usize::midpoint(low, high);
        let before = match arena.compare(records[middle], target, skip) {
            Ordering::Less => true,
            Ordering::Equal => or_at,
            Ordering::Greater => false,
        };
        if before {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Puts `value` at `at` of the first `len` of `array`.
#[inline]
fn insert_at<T: Copy>(array: &mut [T; SLOTS], len: usize, at: usize, value: T) {
    array.copy_within(at..len, at + 1);
    array[at] = value;
}

/// The prefixes of `records` behind a longer skip, when some are equal and the fences have more in common.
fn deepen(arena: &Arena, prefixes: &mut [u64; SLOTS], records: &[u32], skip: &mut u32, fences: Fences) {
    let ambiguous = prefixes[..records.len()].windows(2).any(|pair| pair[0] == pair[1]);
    if !ambiguous || fences.low == NONE || fences.high == NONE {
        return;
    }
    let (low, high) = (arena.key(fences.low), arena.key(fences.high));
    let common = low.iter().zip(high).take_while(|(a, b)| a == b).count() as u32;
    if common > *skip {
        *skip = common;
        for (prefix, record) in prefixes.iter_mut().zip(records) {
            *prefix = prefix_at(arena.key(*record), common);
        }
    }
}

impl Leaf {
    fn new() -> Self {
        Self { prefixes: [u64::MAX; SLOTS], records: [0; SLOTS], len: 0, skip: 0, previous: NONE, next: NONE }
    }

    #[inline]
    fn view(&self) -> (&[u64; SLOTS], &[u32; SLOTS], u32, u32) {
        (&self.prefixes, &self.records, self.len, self.skip)
    }

    #[inline]
    fn insert(&mut self, slot: usize, key: &[u8], record: u32) {
        let len = self.len as usize;
        insert_at(&mut self.prefixes, len, slot, prefix_at(key, self.skip));
        insert_at(&mut self.records, len, slot, record);
        self.len += 1;
    }

    /// Takes the entries from `cut` on away into a new leaf.
    fn split_off(&mut self, cut: usize) -> Self {
        let mut right = Self::new();
        let moved = self.len as usize - cut;
        right.prefixes[..moved].copy_from_slice(&self.prefixes[cut..self.len as usize]);
        right.records[..moved].copy_from_slice(&self.records[cut..self.len as usize]);
        right.len = moved as u32;
        right.skip = self.skip;
        self.prefixes[cut..].fill(u64::MAX);
        self.len = cut as u32;
        right
    }

    fn deepen(&mut self, arena: &Arena, fences: Fences) {
        let records = &self.records[..self.len as usize];
        deepen(arena, &mut self.prefixes, records, &mut self.skip, fences);
    }
}

impl Inner {
    fn new() -> Self {
        Self { prefixes: [u64::MAX; SLOTS], separators: [0; SLOTS], children: [0; SLOTS], len: 0, skip: 0 }
    }

    #[inline]
    fn view(&self) -> (&[u64; SLOTS], &[u32; SLOTS], u32, u32) {
        (&self.prefixes, &self.separators, self.len, self.skip)
    }

    /// Adds `right`, which starts at `separator`, behind child `child`.
    fn insert(&mut self, arena: &Arena, child: usize, separator: u32, right: u32) {
        let len = self.len as usize;
        insert_at(&mut self.prefixes, len, child, prefix_at(arena.key(separator), self.skip));
        insert_at(&mut self.separators, len, child, separator);
        insert_at(&mut self.children, len + 1, child + 1, right);
        self.len += 1;
    }

    /// Takes the children from `cut` on away into a new node; also returns the separator between the two.
    fn split_off(&mut self, cut: usize) -> (u32, Self) {
        let len = self.len as usize;
        let mut right = Self::new();
        right.prefixes[..len - cut].copy_from_slice(&self.prefixes[cut..len]);
        right.separators[..len - cut].copy_from_slice(&self.separators[cut..len]);
        right.children[..=len - cut].copy_from_slice(&self.children[cut..=len]);
        right.len = (len - cut) as u32;
        right.skip = self.skip;
        self.prefixes[cut - 1..].fill(u64::MAX);
        self.len = cut as u32 - 1;
        (self.separators[cut - 1], right)
    }

    fn deepen(&mut self, arena: &Arena, fences: Fences) {
        let separators = &self.separators[..self.len as usize];
        deepen(arena, &mut self.prefixes, separators, &mut self.skip, fences);
    }
}

impl Index {
    /// An empty index; it allocates nothing before the first insert.
    pub fn new() -> Self {
        let fences = Fences { low: NONE, high: NONE };
        Self {
            arena: Arena::default(),
            leaves: Vec::new(),
            inners: Vec::new(),
            root: 0,
            height: 0,
            last_leaf: 0,
            hint: Hint { leaf: NONE, slot: 0, fences, run: 0 },
        }
    }

    /// Bytes of memory allocated.
    pub fn footprint(&self) -> usize {
        let leaves = match self.leaves.as_slice() {
            [] => 0,
            [first, rest @ ..] => first.capacity() + rest.len() * LEAF_CHUNK,
        };
        self.arena.allocated
            + leaves * size_of::<Leaf>()
            + self.leaves.capacity() * size_of::<Vec<Leaf>>()
            + self.arena.chunks.capacity() * size_of::<AlignedBuffer>()
            + self.inners.capacity() * size_of::<Inner>()
    }

    #[inline]
    fn leaf(&self, leaf: u32) -> &Leaf {
        &self.leaves[leaf as usize / LEAF_CHUNK][leaf as usize % LEAF_CHUNK]
    }

    #[inline]
    fn leaf_mut(&mut self, leaf: u32) -> &mut Leaf {
        &mut self.leaves[leaf as usize / LEAF_CHUNK][leaf as usize % LEAF_CHUNK]
    }

    fn add_leaf(&mut self, leaf: Leaf) -> u32 {
        match self.leaves.last_mut() {
            Some(chunk) if chunk.len() < LEAF_CHUNK => chunk.push(leaf),
            last => {
                // The first chunk grows, for the sake of small memtables.
                let mut chunk = Vec::with_capacity(if last.is_none() { 1 } else { LEAF_CHUNK });
                chunk.push(leaf);
                self.leaves.push(chunk);
            }
        }
        let in_last = self.leaves.last().map_or(0, Vec::len);
        ((self.leaves.len() - 1) * LEAF_CHUNK + in_last - 1) as u32
    }

    /// Adds an entry; `false`, and nothing else, when its key has a message with its sequence already.
    pub fn insert(&mut self, entry: EntryRef<'_>) -> bool {
        if self.leaves.is_empty() {
            self.root = self.add_leaf(Leaf::new());
        }
        let target = Target { key: entry.key, sequence: entry.sequence };
        if let Some(slot) = self.beside_last(target) {
            let record = self.arena.push(entry);
            let leaf = self.hint.leaf;
            self.leaf_mut(leaf).insert(slot, entry.key, record);
            self.hint.slot = slot;
            self.hint.run += 1;
            return true;
        }

        let mut path = [Step { node: 0, child: 0, fences: Fences { low: NONE, high: NONE } }; HEIGHT_MAX];
        let mut fences = Fences { low: NONE, high: NONE };
        let mut node = self.root;
        for step in &mut path[..self.height] {
            let inner = &self.inners[node as usize];
            let child = partition(&self.arena, inner.view(), target, true);
            *step = Step { node, child, fences };
            if child > 0 {
                fences.low = inner.separators[child - 1];
            }
            if child < inner.len as usize {
                fences.high = inner.separators[child];
            }
            node = inner.children[child];
        }
        let leaf = self.leaf(node);
        let slot = partition(&self.arena, leaf.view(), target, false);
        if slot < leaf.len as usize
            && leaf.prefixes[slot] == prefix_at(entry.key, leaf.skip)
            && self.arena.compare(leaf.records[slot], target, leaf.skip) == Ordering::Equal
        {
            return false;
        }
        let full = leaf.len as usize == SLOTS;
        let beside = self.hint.leaf == node && (slot == self.hint.slot || slot == self.hint.slot + 1);
        let run = if beside { self.hint.run + 1 } else { 0 };
        let record = self.arena.push(entry);
        if full {
            self.split(&path[..self.height], node, fences, slot, run, entry.key, record);
        } else {
            self.leaf_mut(node).insert(slot, entry.key, record);
            self.hint = Hint { leaf: node, slot, fences, run };
        }
        true
    }

    /// The slot of `target` in the leaf of the last insert, when it is certain to be there and beside the last one.
    #[inline]
    fn beside_last(&self, target: Target<'_>) -> Option<usize> {
        let hint = &self.hint;
        if hint.run == 0 {
            return None;
        }
        let leaf = self.leaf(hint.leaf);
        if leaf.len as usize == SLOTS {
            return None;
        }
        // Fences have not been compared yet, so the target may not share the leaf's skipped bytes: compare from 0.
        let order = |record: u32| self.arena.compare(record, target, 0);
        let last = order(leaf.records[hint.slot]);
        let (low, high) = match last {
            Ordering::Less => (None, leaf.records[..leaf.len as usize].get(hint.slot + 1)),
            Ordering::Greater => (hint.slot.checked_sub(1).map(|slot| leaf.records[slot]), None),
            Ordering::Equal => return None,
        };
        let inside = match last {
            // Behind the last one: before its neighbour or, without one, before the next leaf.
            Ordering::Less => match high {
                Some(record) => order(*record) == Ordering::Greater,
                None => hint.fences.high == NONE || order(hint.fences.high) == Ordering::Greater,
            },
            // Before the last one. At the low fence itself is a duplicate or belongs here: leave it to the descent.
            _ => match low {
                Some(record) => order(record) == Ordering::Less,
                None => hint.fences.low == NONE || order(hint.fences.low) == Ordering::Less,
            },
        };
        inside.then_some(if last == Ordering::Less { hint.slot + 1 } else { hint.slot })
    }

    /// Splits a full leaf and puts the new record into one half.
    #[expect(clippy::too_many_arguments, reason = "the state of one insert, used once")]
    fn split(
        &mut self,
        path: &[Step],
        left_leaf: u32,
        fences: Fences,
        slot: usize,
        run: u32,
        key: &[u8],
        record: u32,
    ) {
        let sequential = run >= SEQUENTIAL_RUN;
        let cut = if sequential { slot } else { SLOTS / 2 };
        let mut right = self.leaf_mut(left_leaf).split_off(cut);
        let to_right = cut == SLOTS || slot > cut;
        if to_right {
            right.insert(slot - cut, key, record);
        } else {
            self.leaf_mut(left_leaf).insert(slot, key, record);
        }
        let separator = right.records[0];
        let low = Fences { low: fences.low, high: separator };
        let high = Fences { low: separator, high: fences.high };
        right.deepen(&self.arena, high);
        right.previous = left_leaf;
        right.next = self.leaf(left_leaf).next;
        let after = right.next;
        let right_leaf = self.add_leaf(right);
        if after == NONE {
            self.last_leaf = right_leaf;
        } else {
            self.leaf_mut(after).previous = right_leaf;
        }
        let left = &mut self.leaves[left_leaf as usize / LEAF_CHUNK][left_leaf as usize % LEAF_CHUNK];
        left.next = right_leaf;
        left.deepen(&self.arena, low);
        self.hint = if to_right {
            Hint { leaf: right_leaf, slot: slot - cut, fences: high, run }
        } else {
            Hint { leaf: left_leaf, slot, fences: low, run }
        };
        self.add_separator(path, separator, right_leaf, sequential);
    }

    /// Enters the new right half of a split child into its parent, and splits that where it is full.
    fn add_separator(&mut self, path: &[Step], mut separator: u32, mut right: u32, sequential: bool) {
        for step in path.iter().rev() {
            let inner = &mut self.inners[step.node as usize];
            if (inner.len as usize) < SLOTS - 1 {
                inner.insert(&self.arena, step.child, separator, right);
                return;
            }
            let cut = if sequential && step.child == SLOTS - 1 { SLOTS - 1 } else { SLOTS / 2 };
            let (middle, mut half) = inner.split_off(cut);
            if step.child < cut {
                inner.insert(&self.arena, step.child, separator, right);
            } else {
                half.insert(&self.arena, step.child - cut, separator, right);
            }
            inner.deepen(&self.arena, Fences { low: step.fences.low, high: middle });
            half.deepen(&self.arena, Fences { low: middle, high: step.fences.high });
            (separator, right) = (middle, self.inners.len() as u32);
            self.inners.push(half);
        }
        let mut root = Inner::new();
        root.children[0] = self.root;
        root.insert(&self.arena, 0, separator, right);
        self.root = self.inners.len() as u32;
        self.inners.push(root);
        self.height += 1;
        assert!(self.height < HEIGHT_MAX, "2³² records fill fewer levels");
    }

    /// The first entry at or after `target` (`after`: after it).
    #[inline]
    pub fn locate(&self, target: Target<'_>, after: bool) -> Place {
        if self.leaves.is_empty() {
            return END;
        }
        let mut node = self.root;
        for _ in 0..self.height {
            let inner = &self.inners[node as usize];
            node = inner.children[partition(&self.arena, inner.view(), target, true)];
        }
        let leaf = self.leaf(node);
        let slot = partition(&self.arena, leaf.view(), target, after) as u32;
        if slot < leaf.len { Place { leaf: node, slot } } else { Place { leaf: leaf.next, slot: 0 } }
    }

    /// The first entry.
    pub fn first(&self) -> Place {
        // A split leaves the left half where it was, so the first leaf stays number 0.
        if self.leaves.is_empty() { END } else { Place { leaf: 0, slot: 0 } }
    }

    /// The place behind the last entry.
    pub fn end(&self) -> Place {
        END
    }

    /// The place after `place`, which is an entry's.
    #[inline]
    pub fn next(&self, place: Place) -> Place {
        let leaf = self.leaf(place.leaf);
        if place.slot + 1 < leaf.len {
            Place { slot: place.slot + 1, ..place }
        } else {
            Place { leaf: leaf.next, slot: 0 }
        }
    }

    /// The place before `place`; the end when there is none.
    #[inline]
    pub fn previous(&self, place: Place) -> Place {
        if place.slot > 0 {
            return Place { slot: place.slot - 1, ..place };
        }
        let leaf = match place.leaf {
            NONE if self.leaves.is_empty() => NONE,
            NONE => self.last_leaf,
            leaf => self.leaf(leaf).previous,
        };
        if leaf == NONE { END } else { Place { leaf, slot: self.leaf(leaf).len - 1 } }
    }

    /// The entry at `place`; `None` at the end.
    #[inline]
    pub fn entry(&self, place: Place) -> Option<EntryRef<'_>> {
        if place.leaf == NONE {
            return None;
        }
        Some(self.arena.entry(self.leaf(place.leaf).records[place.slot as usize]))
    }

    /// Checks the invariants of the module; for tests.
    #[cfg(test)]
    pub fn check(&self) {
        let mut previous: Option<EntryRef<'_>> = None;
        let mut place = self.first();
        while let Some(entry) = self.entry(place) {
            if let Some(before) = previous {
                let order = before.key.cmp(entry.key).then(entry.sequence.cmp(&before.sequence));
                assert_eq!(order, Ordering::Less, "{before:?} {entry:?}");
            }
            let target = Target { key: entry.key, sequence: entry.sequence };
            assert_eq!(self.locate(target, false), place);
            assert_eq!(self.locate(target, true), self.next(place));
            if place != self.first() {
                assert_eq!(self.next(self.previous(place)), place);
            }
            previous = Some(entry);
            place = self.next(place);
        }
        for leaf in self.leaves.iter().flatten() {
            let len = leaf.len as usize;
            assert!(
                leaf.prefixes.is_sorted() && leaf.prefixes[len..].iter().all(|prefix| *prefix == u64::MAX)
            );
            for slot in 0..len {
                let key = self.arena.key(leaf.records[slot]);
                assert_eq!(leaf.prefixes[slot], prefix_at(key, leaf.skip));
                let first = self.arena.key(leaf.records[0]);
                assert_eq!(key[..leaf.skip as usize], first[..leaf.skip as usize]);
            }
        }
        for inner in &self.inners {
            let len = inner.len as usize;
            assert!(inner.prefixes.is_sorted());
            assert!(inner.prefixes[len..].iter().all(|prefix| *prefix == u64::MAX));
        }
        assert!(self.footprint() >= self.arena.allocated);
    }
}
