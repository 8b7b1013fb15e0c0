//! Frozen bytes of snapshots and dead lists: records of the root tree, and chunks in extents of their own.
//!
//! Keys of the root tree (integers big-endian, so that they sort):
//!
//! | key | value |
//! |---|---|
//! | `2`, dataset u64, generation u64 | snapshot record |
//! | `3`, dataset u64, name | generation of the snapshot, u64 |
//! | `4`, dataset u64, snapshot u64, interval u64 | sub-list: what died after that snapshot and before the next one, and was born after `interval` and up to the snapshot that then came next |
//! | `5`, list u64, number u32 | chunk record |
//! | `7`, number u64 | sub-list of a snapshot that is gone, being freed |
//!
//! Snapshot record, little-endian:
//!
//! | offset | bytes | field | unit | meaning | threat guarded |
//! |---|---|---|---|---|---|
//! | 0 | 2 | version | | 1 | format drift |
//! | 2 | 2 | flags | | 0 | unknown additions |
//! | 4 | … | name | | varint length, bytes | a name of two snapshots |
//! | … | 8 | created | seconds since 1970 | below 2^63 | |
//! | … | 8 | cut | sequence | holds exactly the messages up to it | |
//! | … | 8 | blocks | 4 KiB | that the tree refers to | |
//! | … | 16 | guid | | names what it holds in every pool: random, or that of the sender | changes sent onto another state |
//! | … | … | holds | | varint count, each varint length, bytes | deleted although somebody needs it |
//! | … | … | root | | node pointer | |
//!
//! Sub-list: version u16, flags u16 (bit 0: its entries belong to others and are not freed; under key `7` only), entries u64,
//! blocks u64, parts (varint count, each list u64, chunks u32), tail (varint count, each an entry). Entry: birth u64, extent
//! (16 bytes). A part is the chunks 0 to n − 1 of a list, which belongs to one sub-list at a time.
//!
//! Chunk record: 0, length u32 (bytes), entries u32, crc32c u32, extent list; or 1, parts as above.
//! Chunk: magic `BETRDEAD`, version u16, flags u16, entries u32, then the entries. Its checksum is in its record.
//!
//! Why sub-lists: deleting a snapshot frees those behind it whose interval is not below the snapshot before, whole, and
//! hands on the others by their parts; nothing is read that is not freed.
//! History: version 1, the first.

use crate::base::codec::{DecodeError, Decoder, Encoder};
use crate::base::extent::Extent;
use crate::base::ids::{DatasetId, Generation, Uuid};
use crate::dmu::{Dmu, DmuError, StoredExtents};
use crate::tree::NodeRef;

const VERSION: u16 = 1;
const MAGIC: &[u8; 8] = b"BETRDEAD";
const CHUNK_HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 24;
/// Longest name of a snapshot and longest tag of a hold, in bytes.
pub(crate) const SNAPSHOT_NAME_BYTES_MAX: usize = 1024;
/// Most holds of a snapshot.
pub(crate) const HOLDS_MAX: usize = 1024;
/// Most entries in a chunk.
pub(crate) const CHUNK_ENTRIES_MAX: usize = 4096;
const PARTS_MAX: usize = 1 << 16;
const TAIL_MAX: usize = 1 << 16;

/// Prefix of the keys of snapshot records.
pub(crate) const SNAPSHOTS: u8 = 2;
/// Prefix of the keys of snapshot names.
pub(crate) const SNAPSHOT_NAMES: u8 = 3;
/// Prefix of the keys of dead lists.
pub(crate) const DEAD_LISTS: u8 = 4;
/// Prefix of the keys of chunk records.
pub(crate) const CHUNKS: u8 = 5;
/// Prefix of the keys of what is being freed.
pub(crate) const CONDEMNED: u8 = 7;

fn key(prefix: u8, numbers: &[u64]) -> Vec<u8> {
    let mut key = vec![prefix];
    numbers.iter().for_each(|number| key.extend_from_slice(&number.to_be_bytes()));
    key
}

/// Number `index` behind the prefix of a key.
fn number(key: &[u8], index: usize) -> Option<u64> {
    let at = 1 + index * 8;
    let bytes: [u8; 8] = key.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}

/// Number `index` behind the prefix of a key, a generation.
fn generation(key: &[u8], index: usize) -> Option<Generation> {
    number(key, index).map(Generation).filter(|generation| *generation <= Generation::STORED_MAX)
}

/// Key of a snapshot's record.
pub(crate) fn snapshot_key(dataset: DatasetId, generation: Generation) -> Vec<u8> {
    key(SNAPSHOTS, &[dataset.0, generation.0])
}

/// The dataset and generation of the key of a snapshot's record; `None` when it is not one.
pub(crate) fn key_snapshot(key: &[u8]) -> Option<(DatasetId, Generation)> {
    let whole = key.len() == 17;
    whole.then(|| Some((DatasetId(number(key, 0)?), generation(key, 1)?))).flatten()
}

/// Key of a snapshot's name.
pub(crate) fn snapshot_name_key(dataset: DatasetId, name: &[u8]) -> Vec<u8> {
    [&key(SNAPSHOT_NAMES, &[dataset.0])[..], name].concat()
}

/// Key of a sub-list.
pub(crate) fn dead_list_key(dataset: DatasetId, snapshot: Generation, interval: Generation) -> Vec<u8> {
    key(DEAD_LISTS, &[dataset.0, snapshot.0, interval.0])
}

/// Dataset, snapshot and interval of the key of a sub-list; `None` when it is not one.
pub(crate) fn key_dead_list(key: &[u8]) -> Option<(DatasetId, Generation, Generation)> {
    let numbers = || Some((DatasetId(number(key, 0)?), generation(key, 1)?, generation(key, 2)?));
    if key.len() == 25 { numbers() } else { None }
}

/// Key of a chunk record.
pub(crate) fn chunk_key(list: u64, index: u32) -> Vec<u8> {
    [&key(CHUNKS, &[list])[..], &index.to_be_bytes()].concat()
}

/// List and number of the key of a chunk record; `None` when it is not one.
pub(crate) fn key_chunk(key: &[u8]) -> Option<(u64, u32)> {
    let index: [u8; 4] = key.get(9..13)?.try_into().ok()?;
    if key.len() == 13 { Some((number(key, 0)?, u32::from_be_bytes(index))) } else { None }
}

/// Key of a sub-list that is being freed.
pub(crate) fn condemned_key(number: u64) -> Vec<u8> {
    key(CONDEMNED, &[number])
}

/// Bounds of the keys with `prefix` that are of `dataset`.
pub(crate) fn keys_of_dataset(prefix: u8, dataset: DatasetId) -> (Vec<u8>, Vec<u8>) {
    (key(prefix, &[dataset.0]), key(prefix, &[dataset.0 + 1]))
}

/// Bounds of the keys of the sub-lists of one snapshot.
pub(crate) fn keys_of_dead_lists(dataset: DatasetId, snapshot: Generation) -> (Vec<u8>, Vec<u8>) {
    (key(DEAD_LISTS, &[dataset.0, snapshot.0]), key(DEAD_LISTS, &[dataset.0, snapshot.0 + 1]))
}

/// What the root tree says of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotRecord {
    pub name: Vec<u8>,
    /// Seconds since 1970.
    pub created: u64,
    /// The newest message in it.
    pub cut: u64,
    /// Blocks that its tree refers to.
    pub blocks: u64,
    /// The same in every pool that it was sent to.
    pub guid: Uuid,
    /// Why it may not be deleted.
    pub holds: Vec<Vec<u8>>,
    pub root: NodeRef,
}

impl SnapshotRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u16(VERSION);
        out.u16(0);
        out.bytes(&self.name);
        out.u64(self.created);
        out.u64(self.cut);
        out.u64(self.blocks);
        out.raw(&self.guid.0);
        out.varint(self.holds.len() as u64);
        self.holds.iter().for_each(|hold| out.bytes(hold));
        self.root.encode(&mut out);
        out.finish()
    }

    pub fn decode(bytes: &[u8], dmu: &Dmu) -> Result<Self, DmuError> {
        let plain = |source: DecodeError| DmuError::Decode { what: "snapshot record", source };
        let mut input = Decoder::new(bytes);
        header(&mut input, 0).map_err(plain)?;
        let name = input.bytes(SNAPSHOT_NAME_BYTES_MAX, "name").map_err(plain)?.to_vec();
        let created = input.u64("created").map_err(plain)?;
        // Whoever lists snapshots adds it to a time of the system.
        if i64::try_from(created).is_err() {
            return Err(plain(input.invalid("created")));
        }
        let cut = input.ordinal("cut").map_err(plain)?;
        let blocks = input.ordinal("blocks").map_err(plain)?;
        let mut guid = Uuid::default();
        guid.0.copy_from_slice(input.raw(16, "guid").map_err(plain)?);
        let count = count(&mut input, HOLDS_MAX, "holds").map_err(plain)?;
        let hold = |input: &mut Decoder<'_>| input.bytes(SNAPSHOT_NAME_BYTES_MAX, "hold").map(<[u8]>::to_vec);
        let holds = (0..count).map(|_| hold(&mut input)).collect::<Result<_, _>>().map_err(plain)?;
        let root = NodeRef::decode(&mut input, dmu)?;
        input.finish("snapshot record").map_err(plain)?;
        Ok(Self { name, created, cut, blocks, guid, holds, root })
    }
}

/// Reads version and flags.
fn header(input: &mut Decoder<'_>, flags_max: u16) -> Result<u16, DecodeError> {
    if input.u16("version")? != VERSION {
        return Err(input.invalid("version"));
    }
    let flags = input.u16("flags")?;
    if flags > flags_max { Err(input.invalid("flags")) } else { Ok(flags) }
}

fn count(input: &mut Decoder<'_>, limit: usize, field: &'static str) -> Result<usize, DecodeError> {
    let count = input.varint(field)?;
    usize::try_from(count).ok().filter(|count| *count <= limit).ok_or_else(|| input.invalid(field))
}

/// One dead extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DeadEntry {
    pub birth: Generation,
    pub extent: Extent,
}

impl DeadEntry {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.birth.0);
        self.extent.encode(out);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let birth = input.generation("birth")?;
        // What was never born is nowhere.
        if birth.0 == 0 {
            return Err(input.invalid("birth"));
        }
        Ok(Self { birth, extent: Extent::decode(input)? })
    }
}

/// Chunks of a list, in order from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub list: u64,
    pub chunks: u32,
}

fn encode_parts(parts: &[Part], out: &mut Encoder) {
    out.varint(parts.len() as u64);
    for part in parts {
        out.u64(part.list);
        out.u32(part.chunks);
    }
}

fn decode_parts(input: &mut Decoder<'_>) -> Result<Vec<Part>, DecodeError> {
    let count = count(input, PARTS_MAX, "parts")?;
    let mut parts = Vec::new();
    for _ in 0..count {
        let part = Part { list: input.u64("list")?, chunks: input.u32("chunks")? };
        if part.chunks == 0 {
            return Err(input.invalid("chunks"));
        }
        parts.push(part);
    }
    Ok(parts)
}

/// A part of a dead list whose entries have births in one interval between snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SubList {
    /// The entries belong to others; only the list itself is given back.
    pub forget: bool,
    pub entries: u64,
    pub blocks: u64,
    pub parts: Vec<Part>,
    pub tail: Vec<DeadEntry>,
}

impl SubList {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u16(VERSION);
        out.u16(u16::from(self.forget));
        out.u64(self.entries);
        out.u64(self.blocks);
        encode_parts(&self.parts, &mut out);
        out.varint(self.tail.len() as u64);
        self.tail.iter().for_each(|entry| entry.encode(&mut out));
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        let forget = header(&mut input, 1)? == 1;
        let entries = input.ordinal("entries")?;
        let blocks = input.ordinal("blocks")?;
        let parts = decode_parts(&mut input)?;
        let count = count(&mut input, TAIL_MAX, "tail")?;
        let tail = (0..count).map(|_| DeadEntry::decode(&mut input)).collect::<Result<Vec<_>, _>>()?;
        input.finish("dead list")?;
        Ok(Self { forget, entries, blocks, parts, tail })
    }

    /// Adds to the tail.
    pub fn push(&mut self, entry: DeadEntry) {
        self.entries += 1;
        self.blocks += u64::from(entry.extent.blocks);
        self.tail.push(entry);
    }
}

/// Where entries are, or more parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChunkRecord {
    Entries { length: u32, entries: u32, checksum: u32, extents: StoredExtents },
    Parts(Vec<Part>),
}

impl ChunkRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        match self {
            Self::Entries { length, entries, checksum, extents } => {
                out.u8(0);
                out.u32(*length);
                out.u32(*entries);
                out.u32(*checksum);
                extents.encode(&mut out);
            }
            Self::Parts(parts) => {
                out.u8(1);
                encode_parts(parts, &mut out);
            }
        }
        out.finish()
    }

    pub fn decode(bytes: &[u8], dmu: &Dmu) -> Result<Self, DmuError> {
        let plain = |source: DecodeError| DmuError::Decode { what: "chunk record", source };
        let mut input = Decoder::new(bytes);
        let record = match input.u8("kind").map_err(plain)? {
            0 => {
                let length = input.u32("length").map_err(plain)?;
                let entries = input.u32("entries").map_err(plain)?;
                let checksum = input.u32("checksum").map_err(plain)?;
                let legal = (1..=CHUNK_ENTRIES_MAX).contains(&(entries as usize))
                    && length as usize == CHUNK_HEADER_BYTES + entries as usize * ENTRY_BYTES;
                if !legal {
                    return Err(plain(input.invalid("entries")));
                }
                let extents = StoredExtents::decode(&mut input, dmu)?;
                if !dmu.fits(extents.extents(), crate::base::units::blocks_for(u64::from(length))) {
                    return Err(plain(input.invalid("length")));
                }
                Self::Entries { length, entries, checksum, extents }
            }
            1 => Self::Parts(decode_parts(&mut input).map_err(plain)?),
            _ => return Err(plain(input.invalid("kind"))),
        };
        input.finish("chunk record").map_err(plain)?;
        Ok(record)
    }
}

/// The bytes of a chunk.
pub(crate) fn encode_chunk(entries: &[DeadEntry]) -> Vec<u8> {
    let mut out = Encoder::with_capacity(CHUNK_HEADER_BYTES + entries.len() * ENTRY_BYTES);
    out.raw(MAGIC);
    out.u16(VERSION);
    out.u16(0);
    out.u32(entries.len() as u32);
    entries.iter().for_each(|entry| entry.encode(&mut out));
    out.finish()
}

/// Reads what [`encode_chunk`] wrote.
pub(crate) fn decode_chunk(bytes: &[u8]) -> Result<Vec<DeadEntry>, DecodeError> {
    let mut input = Decoder::new(bytes);
    if input.raw(8, "magic")? != MAGIC {
        return Err(input.invalid("magic"));
    }
    header(&mut input, 0)?;
    let count = input.u32("entries")? as usize;
    if count == 0 || count > CHUNK_ENTRIES_MAX {
        return Err(input.invalid("entries"));
    }
    let entries = (0..count).map(|_| DeadEntry::decode(&mut input)).collect::<Result<Vec<_>, _>>()?;
    input.finish("chunk")?;
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::VdevId;
    use crate::run::testing;

    fn entry(birth: u64, block: u64) -> DeadEntry {
        DeadEntry { birth: Generation(birth), extent: Extent { vdev: VdevId(1), block, blocks: 2 } }
    }

    #[test]
    fn keys_sort_by_dataset_snapshot_and_interval() {
        let key = dead_list_key(DatasetId(1), Generation(2), Generation(3));
        let golden = [&[4][..], &1_u64.to_be_bytes(), &2_u64.to_be_bytes(), &3_u64.to_be_bytes()].concat();
        assert_eq!(key, golden);
        assert_eq!(key_dead_list(&key), Some((DatasetId(1), Generation(2), Generation(3))));
        assert_eq!(key_dead_list(&key[1..]), None);
        let snapshot = snapshot_key(DatasetId(7), Generation(9));
        assert_eq!(key_snapshot(&snapshot), Some((DatasetId(7), Generation(9))));
        assert_eq!(snapshot_name_key(DatasetId(1), b"a"), [&[3, 0, 0, 0, 0, 0, 0, 0, 1][..], b"a"].concat());
        assert_eq!(chunk_key(1, 2), [5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(key_chunk(&chunk_key(1, 2)), Some((1, 2)));
        assert_eq!(condemned_key(3), [7, 0, 0, 0, 0, 0, 0, 0, 3]);
        let (low, high) = keys_of_dead_lists(DatasetId(1), Generation(2));
        assert!(low < key && key < high);
    }

    #[test]
    fn sub_lists_and_chunks_have_golden_bytes_and_refuse_damage() {
        let mut list = SubList { parts: vec![Part { list: 5, chunks: 1 }], ..SubList::default() };
        list.push(entry(3, 7));
        let bytes = list.encode();
        let of_entry = [3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
        let golden = [
            &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
            &of_entry,
        ]
        .concat();
        assert_eq!(bytes, golden);
        assert_eq!(SubList::decode(&bytes), Ok(list));
        let chunk = encode_chunk(&[entry(3, 7)]);
        assert_eq!(chunk, [&b"BETRDEAD\x01\0\0\0\x01\0\0\0"[..], &of_entry].concat());
        assert_eq!(decode_chunk(&chunk), Ok(vec![entry(3, 7)]));
        for cut in 0..bytes.len() {
            assert!(SubList::decode(&bytes[..cut]).is_err());
        }
        for cut in 0..chunk.len() {
            assert!(decode_chunk(&chunk[..cut]).is_err());
        }
    }

    #[test]
    fn records_have_golden_bytes_and_refuse_damage() {
        let (dmu, _devices) = testing::memory(&[4096], 0);
        {
            let dmu = &dmu;
            let mut extents = Encoder::new();
            extents.u8(1);
            Extent { vdev: VdevId(1), block: 300, blocks: 1 }.encode(&mut extents);
            let stored = StoredExtents::decode(&mut Decoder::new(extents.as_slice()), dmu).unwrap();
            let root =
                NodeRef { level: 1, birth: Generation(2), length: 100, checksum: 9, extents: stored.clone() };
            let record = SnapshotRecord {
                name: b"n".to_vec(),
                created: 4,
                cut: 5,
                blocks: 6,
                guid: Uuid([7; 16]),
                holds: vec![b"h".to_vec()],
                root,
            };
            let golden = [
                &[1, 0, 0, 0, 1, b'n', 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0][..],
                &[6, 0, 0, 0, 0, 0, 0, 0],
                &[7; 16],
                &[1, 1, b'h', 1, 2, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 9, 0, 0, 0],
                extents.as_slice(),
            ]
            .concat();
            assert_eq!(record.encode(), golden);
            assert_eq!(SnapshotRecord::decode(&golden, dmu).unwrap(), record);
            let beyond = SnapshotRecord { created: u64::MAX, ..record };
            assert!(SnapshotRecord::decode(&beyond.encode(), dmu).is_err(), "a time that is none");
            let chunk = ChunkRecord::Entries { length: 40, entries: 1, checksum: 3, extents: stored };
            let of_chunk = [&[0, 40, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0][..], extents.as_slice()].concat();
            assert_eq!(chunk.encode(), of_chunk);
            assert_eq!(ChunkRecord::decode(&of_chunk, dmu).unwrap(), chunk);
            let parts = ChunkRecord::Parts(vec![Part { list: 5, chunks: 1 }]);
            assert_eq!(parts.encode(), [1, 1, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
            assert_eq!(ChunkRecord::decode(&parts.encode(), dmu).unwrap(), parts);
            for cut in 0..golden.len() {
                assert!(SnapshotRecord::decode(&golden[..cut], dmu).is_err());
            }
            for cut in 0..of_chunk.len() {
                assert!(ChunkRecord::decode(&of_chunk[..cut], dmu).is_err());
            }
        }
    }
}
