//! Pieces in the cache: checked parts of extents whose owner is not in memory.
//!
//! A run has a place in memory that points to its frames. A large value has none: its pointer is decoded anew by each
//! read. So its pieces are found through a map, by name: where the piece lies, and in which generation it was born. Blocks
//! that were used again belong to something with another birth, because what the log may name is not used again within its
//! generation, and nobody reads what no version refers to: a name never stands for two contents. Who finds a piece still
//! compares its checksum.
//!
//! A piece of a value that is gone stays until nobody asked for it for long enough, like any other frame.

use super::cache::{Admission, Cache, Charge, Evictable, Heat};
use crate::base::buffer::{AlignedBuffer, prefetch};
use crate::base::ids::{Generation, VdevId};
use crate::base::sync::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// What a piece is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceName {
    /// Vdev of its first block.
    pub vdev: VdevId,
    /// Its first block.
    pub block: u64,
    /// First generation that has it.
    pub birth: Generation,
}

/// A piece in memory.
#[derive(Debug)]
pub struct Piece {
    bytes: AlignedBuffer,
    checksum: u32,
    heat: Heat,
    /// Where the last read of it ended.
    read_to: AtomicUsize,
    charge: Charge,
}

impl Piece {
    /// A piece that was read and checked; a read of it ended at byte `read_to`.
    #[must_use]
    pub fn new(bytes: AlignedBuffer, checksum: u32, read_to: usize, charge: Charge) -> Self {
        Self { bytes, checksum, heat: Heat::default(), read_to: AtomicUsize::new(read_to), charge }
    }

    /// The checksum that it was checked against.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Its bytes from `offset`, as many as fit into `out`, which must be there. Reading on where the last read ended is not
    /// another use: a stream of small reads leaves no more behind than one of large ones.
    pub fn copy_to(&self, offset: usize, out: &mut [u8]) {
        let end = offset + out.len();
        out.copy_from_slice(&self.bytes[offset..end]);
        if self.read_to.swap(end, Ordering::Relaxed) != offset {
            self.heat.touch();
        }
    }
}

impl Hash for PieceName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(identity(self));
    }
}

/// The hash of a name is its identity: names are made here, so that nobody can choose them to collide.
#[derive(Debug, Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = self.0.rotate_left(8) ^ number;
    }
}

#[derive(Debug)]
struct Frame {
    /// Address of the bytes of the piece, so that they can be fetched before it is looked at.
    start: usize,
    piece: Arc<Piece>,
}

/// Lines of 64 bytes; the processor sees by itself that it goes on from there.
const PREFETCHED_LINES: usize = 8;

#[derive(Debug, Default)]
struct Frames {
    pieces: HashMap<PieceName, Frame, BuildHasherDefault<IdentityHasher>>,
    /// By slot.
    names: Vec<Option<PieceName>>,
    vacant: Vec<u32>,
}

/// Some of the pieces: those whose names fall here.
#[derive(Debug, Default)]
struct Shard {
    frames: Mutex<Frames>,
}

impl Evictable for Shard {
    fn evict(&self, slot: u32) -> bool {
        let mut frames = self.frames.lock();
        if let Some(name) = frames.names.get_mut(slot as usize).and_then(Option::take) {
            frames.pieces.remove(&name);
            frames.vacant.push(slot);
        }
        true
    }

    fn take_reference(&self, slot: u32) -> bool {
        let frames = self.frames.lock();
        let name = frames.names.get(slot as usize).and_then(Option::as_ref);
        name.and_then(|name| frames.pieces.get(name)).is_some_and(|frame| frame.piece.heat.take())
    }
}

const SHARDS: usize = 16;

/// The pieces in the cache. Lock order: the queues of the cache → a shard.
#[derive(Debug)]
pub struct Pieces {
    cache: Cache,
    shards: [Arc<Shard>; SHARDS],
}

impl Pieces {
    /// None yet, in the budget of `cache`.
    #[must_use]
    pub fn new(cache: &Cache) -> Self {
        Self { cache: cache.clone(), shards: std::array::from_fn(|_| Arc::default()) }
    }

    /// The piece, when it is in memory. Its bytes from `offset` on, which are read next, are on their way to the processor meanwhile.
    #[must_use]
    pub fn get(&self, name: &PieceName, offset: usize) -> Option<Arc<Piece>> {
        let frames = self.shard(name).frames.lock();
        frames.pieces.get(name).map(|frame| {
            prefetch(frame.start + offset, PREFETCHED_LINES);
            Arc::clone(&frame.piece)
        })
    }

    /// Puts `piece` into the cache, unless another thread was faster.
    pub fn insert(&self, name: PieceName, piece: Arc<Piece>, admission: Admission) {
        let bytes = piece.charge.bytes();
        let shard = self.shard(&name);
        let slot = {
            let mut frames = shard.frames.lock();
            if frames.pieces.contains_key(&name) {
                return;
            }
            let slot = frames.vacant.pop().unwrap_or_else(|| {
                frames.names.push(None);
                frames.names.len() as u32 - 1
            });
            let start = piece.bytes.as_ptr().addr();
            frames.pieces.insert(name, Frame { start, piece });
            frames.names[slot as usize] = Some(name);
            slot
        };
        let owner: Weak<Shard> = Arc::downgrade(shard);
        self.cache.insert(owner, slot, bytes, identity(&name), admission);
    }

    fn shard(&self, name: &PieceName) -> &Arc<Shard> {
        &self.shards[(identity(name) >> 40) as usize % SHARDS]
    }
}

/// A number in which every bit depends on the whole name.
fn identity(name: &PieceName) -> u64 {
    let mixed = (name.block ^ u64::from(name.vdev.0) << 48)
        .wrapping_mul(0xff51_afd7_ed55_8ccd)
        .wrapping_add(name.birth.0.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 16 << 10;

    fn name(block: u64, birth: u64) -> PieceName {
        PieceName { vdev: VdevId(1), block, birth: Generation(birth) }
    }

    fn insert(pieces: &Pieces, name: PieceName, read_to: usize) {
        let charge = pieces.cache.charge(BYTES);
        let bytes = AlignedBuffer::copy_of(&[name.birth.0 as u8; BYTES]);
        pieces.insert(name, Arc::new(Piece::new(bytes, 7, read_to, charge)), Admission::Probation);
    }

    /// Reads `block` like a stream of 4 KiB reads, and whether its piece was there.
    fn stream(pieces: &Pieces, block: u64) -> bool {
        let mut out = [0; 4096];
        let found = pieces.get(&name(block, 1), 0);
        if found.is_none() {
            insert(pieces, name(block, 1), 4096);
        }
        for offset in [4096, 8192, 12_288] {
            if let Some(piece) = pieces.get(&name(block, 1), 0) {
                piece.copy_to(offset, &mut out);
            }
        }
        found.is_some()
    }

    #[test]
    fn a_stream_of_small_reads_leaves_the_hot_pieces_alone() {
        let cache = Cache::new(100 * BYTES);
        let pieces = Pieces::new(&cache);
        let mut out = [0; 4096];
        for block in 0..40 {
            insert(&pieces, name(block, 1), 4096);
            for _ in 0..2 {
                pieces.get(&name(block, 1), 0).unwrap().copy_to(8192, &mut out);
            }
        }
        for block in 1000..3000 {
            assert!(!stream(&pieces, block));
            assert!(cache.bytes() <= 100 * BYTES);
        }
        assert!((0..40).all(|block| pieces.get(&name(block, 1), 0).is_some()));
        cache.clear();
        assert_eq!(cache.bytes(), 0);
        assert!(pieces.get(&name(0, 1), 0).is_none());
    }

    #[test]
    fn a_birth_is_part_of_the_name() {
        let cache = Cache::new(100 * BYTES);
        let pieces = Pieces::new(&cache);
        let mut out = [0; 4];
        insert(&pieces, name(5, 1), 0);
        assert!(pieces.get(&name(5, 2), 0).is_none());
        insert(&pieces, name(5, 2), 0);
        for birth in [1, 2] {
            pieces.get(&name(5, birth), 0).unwrap().copy_to(100, &mut out);
            assert_eq!(out, [birth as u8; 4]);
        }
    }
}
