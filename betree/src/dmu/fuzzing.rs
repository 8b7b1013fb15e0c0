//! Fuzz targets of data management: bitmap slots, table pages and roots, extent lists; and the unit on memory that the
//! targets of the layers above decode with.

use super::bitmap::Bitmap;
use super::format::{
    self, Area, ChunkEntry, Entry, Identity, IndirectVdev, Root, RootVdev, SlotRef, decode_chunk,
    decode_page, decode_slot, encode_chunk, encode_page, encode_slot, slot_blocks,
};
use super::{Dmu, StoredExtents};
use crate::base::buffer::AlignedBuffer;
use crate::base::checksum::crc;
use crate::base::codec::{Decoder, Encoder};
use crate::base::extent::Extent;
use crate::base::fuzzing::Target;
use crate::base::ids::{Generation, Uuid, VdevId};
use crate::base::units::BLOCK_BYTES;
use crate::pool::{Pool, TopLevelVdev};
use crate::vdev::MemoryDevice;
use std::sync::Arc;

/// The targets of this layer.
pub const TARGETS: &[Target] = &[
    Target { name: "bitmap_slot", seeds: slot_seeds, run: slot },
    Target { name: "table_page", seeds: page_seeds, run: page },
    Target { name: "table_root", seeds: root_seeds, run: root },
    Target { name: "extent_list", seeds: list_seeds, run: list },
    Target { name: "map_chunk", seeds: map_seeds, run: map },
];

/// The only vdev of [`with_memory`].
pub const VDEV: VdevId = VdevId(1);
/// Its length.
pub const BLOCKS: u64 = 1024;
/// Where targets put what pointers point to.
pub const FIRST_BLOCK: u64 = 256;

const SEGMENT_BLOCKS: u32 = 1024;

thread_local! {
    static MEMORY: Dmu = over_memory();
}

/// A unit over a memory device of its own.
#[must_use]
pub fn over_memory() -> Dmu {
    let device = Arc::new(MemoryDevice::new(BLOCKS * BLOCK_BYTES as u64));
    let vdev = TopLevelVdev::leaf(VDEV, 0, BLOCKS, device);
    Dmu::over(Arc::new(Pool::from_vdevs(vec![vdev])), 1 << 20)
}

/// Runs `work` with the unit of this thread, on a device of 4 MiB in memory. What is on the device is what earlier calls
/// left there.
pub fn with_memory<T>(work: impl FnOnce(&Dmu) -> T) -> T {
    MEMORY.with(work)
}

/// Writes `bytes` at [`FIRST_BLOCK`], as far as there is room, and returns where they are.
pub fn place(dmu: &Dmu, bytes: &[u8]) -> Vec<Extent> {
    let room = (BLOCKS - FIRST_BLOCK - 32) as usize * BLOCK_BYTES;
    let bytes = &bytes[..bytes.len().min(room)];
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES), 0);
    let blocks = (padded.len() / BLOCK_BYTES) as u32;
    let extents = vec![Extent { vdev: VDEV, block: FIRST_BLOCK, blocks }];
    // Below the unit, which refuses writes to what a checkpoint has.
    assert!(dmu.pool().write(&extents[0], 0, &padded).is_ok(), "memory takes every write");
    extents
}

/// Gives whatever of this layer starts at the head of `bytes` a right checksum.
pub fn reseal(bytes: &mut [u8], segment_blocks: u32) {
    let length = match bytes.get(..8) {
        Some(b"betreeBM") => slot_blocks(segment_blocks) as usize * BLOCK_BYTES,
        Some(b"betreeTP") => BLOCK_BYTES,
        Some(b"betreeAT") => bytes
            .get(48..52)
            .map_or(0, |length| length.iter().rev().fold(0_usize, |all, byte| all << 8 | usize::from(*byte))),
        _ => return,
    };
    if let Some(bytes) = bytes.get_mut(..length)
        && length >= 64
    {
        format::seal(bytes);
    }
}

fn identity() -> Identity {
    Identity { pool: Uuid([7; 16]), vdev: VDEV, number: 2, generation: Generation(9), base: Generation(8) }
}

fn slot_seeds() -> Vec<Vec<u8>> {
    let mut bitmap = Bitmap::new(SEGMENT_BLOCKS);
    let empty = encode_slot(&identity(), &bitmap).0.to_vec();
    bitmap.set(3..500);
    vec![empty, encode_slot(&identity(), &bitmap).0.to_vec()]
}

fn slot(bytes: &[u8]) -> bool {
    let mut buffer = bytes.to_vec();
    buffer.resize(slot_blocks(SEGMENT_BLOCKS) as usize * BLOCK_BYTES, 0);
    format::seal(&mut buffer);
    if let Ok((identity, bitmap)) = decode_slot(&buffer, SEGMENT_BLOCKS) {
        assert!(
            encode_slot(&identity, &bitmap).0[..] == buffer[..],
            "a slot that would be written differently"
        );
        return true;
    }
    false
}

fn page_seeds() -> Vec<Vec<u8>> {
    let reference = |slot, generation| SlotRef { slot, checksum: 5, generation: Generation(generation) };
    let entry = Entry {
        current: reference(1, 9),
        previous: reference(0, 4),
        free: 600,
        free_in_both: 590,
        longest: 77,
    };
    let first = Entry { previous: SlotRef::default(), ..entry };
    vec![
        encode_page(&identity(), &[]).0.to_vec(),
        encode_page(&identity(), &[entry, Entry::default(), first]).0.to_vec(),
    ]
}

fn page(bytes: &[u8]) -> bool {
    let mut buffer = bytes.to_vec();
    buffer.resize(BLOCK_BYTES, 0);
    format::seal(&mut buffer);
    if let Ok((identity, entries)) = decode_page(&buffer) {
        assert!(
            encode_page(&identity, &entries).0[..] == buffer[..],
            "a page that would be written differently"
        );
        return true;
    }
    false
}

fn root_seeds() -> Vec<Vec<u8>> {
    let vdev = RootVdev {
        id: VDEV,
        tier: 0,
        blocks: 4096,
        free: 3000,
        segment_blocks: SEGMENT_BLOCKS,
        reserved: vec![0..16, 4080..4096],
        areas: vec![Area { block: 16, pages: 1 }],
        pages: vec![SlotRef { slot: 2, checksum: 3, generation: Generation(9) }],
    };
    let root = Root {
        pool: Uuid([7; 16]),
        generation: Generation(9),
        parent: Generation(8),
        vdevs: vec![vdev],
        indirect: Vec::new(),
    };
    let moved = IndirectVdev {
        id: VdevId(5),
        bytes: 5000,
        checksum: 1,
        since: Generation(8),
        place: [0; format::PLACE_BYTES],
    };
    vec![root.encode(), Root { indirect: vec![moved], ..root }.encode()]
}

fn root(bytes: &[u8]) -> bool {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().max(64), 0);
    let length = bytes.len() as u32;
    bytes[48..52].copy_from_slice(&length.to_le_bytes());
    format::seal(&mut bytes);
    if let Ok(found) = Root::decode(&bytes) {
        assert!(found.encode() == bytes, "a root that would be written differently");
        return true;
    }
    false
}

fn map_seeds() -> Vec<Vec<u8>> {
    let place = |block, blocks| Extent { vdev: VDEV, block, blocks };
    let entry = |block, places: &[Extent]| ChunkEntry { block, blocks: 4, places: places.to_vec() };
    let entries = [entry(8, &[place(40, 4)]), entry(12, &[place(60, 1), place(80, 3)])];
    vec![encode_chunk(VdevId(5), &entries[..1]), encode_chunk(VdevId(5), &entries)]
}

fn map(bytes: &[u8]) -> bool {
    if let Ok(entries) = decode_chunk(bytes, VdevId(5)) {
        assert!(encode_chunk(VdevId(5), &entries) == bytes, "a chunk that would be written differently");
        return true;
    }
    false
}

/// A pointer of 64 bytes, padded, then the list that it names, as it lies at [`FIRST_BLOCK`].
fn list_seeds() -> Vec<Vec<u8>> {
    let extent = |block| Extent { vdev: VDEV, block, blocks: 1 };
    let seed = |count: u32, list: &[u8]| {
        let mut out = Encoder::new();
        if count <= 3 {
            out.u8(count as u8);
            (0..count).for_each(|index| extent(u64::from(index) + 9).encode(&mut out));
        } else {
            out.u8(255);
            out.u32(crc(list));
            out.u32(count);
            out.u8(1);
            let blocks = list.len().div_ceil(BLOCK_BYTES) as u32;
            Extent { blocks, ..extent(FIRST_BLOCK) }.encode(&mut out);
        }
        out.pad_to(64);
        out.raw(list);
        out.finish()
    };
    let mut list = Encoder::new();
    (0..300).for_each(|index| extent(index).encode(&mut list));
    vec![seed(2, &[]), seed(300, list.as_slice()), seed(5, &list.as_slice()[..80])]
}

fn list(bytes: &[u8]) -> bool {
    let Some((pointer, list)) = bytes.split_first_chunk::<64>() else { return false };
    let mut pointer = *pointer;
    with_memory(|dmu| {
        place(dmu, list);
        if pointer[0] == 255 {
            let count = u32::from_le_bytes([pointer[5], pointer[6], pointer[7], pointer[8]]) as usize;
            let mut used = list.to_vec();
            used.resize(count.min(1 << 16) * Extent::ENCODED_BYTES, 0);
            pointer[1..5].copy_from_slice(&crc(&used).to_le_bytes());
        }
        let mut input = Decoder::new(&pointer);
        if let Ok(found) = StoredExtents::decode(&mut input, dmu) {
            let mut out = Encoder::new();
            found.encode(&mut out);
            assert!(
                out.as_slice() == &pointer[..input.position()],
                "a list that would be written differently"
            );
            assert!(found.all().len() >= found.extents().len());
            // What is done with extents that may lie anywhere.
            let length = found.extents().iter().map(|extent| extent.blocks as usize).sum::<usize>();
            if length < 64 {
                let _refused: Result<AlignedBuffer, _> = dmu.read(found.extents(), 0, length * BLOCK_BYTES);
            }
            return true;
        }
        false
    })
}
