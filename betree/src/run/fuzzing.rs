//! Fuzz targets of runs: the reference, the meta section with its index and filter, one block, and whole runs of each
//! codec behind right checksums.

use super::block::View;
use super::format::{META_HEADER_BYTES, RECORD_BYTES, RunRef, Shape, decode_meta};
use super::meta::Meta;
use super::{
    EntryCursor, EntryRef, Kind, RangeDelete, ReadMode, Run, RunCursor, RunOptions, RunWriter, key_hash,
};
use crate::base::buffer::AlignedBuffer;
use crate::base::checksum::crc;
use crate::base::codec::{Decoder, Encoder};
use crate::base::compression::Compression;
use crate::base::extent::{Extent, total_blocks};
use crate::base::fuzzing::Target;
use crate::base::ids::Generation;
use crate::base::preference::StoragePreference;
use crate::base::units::BLOCK_BYTES;
use crate::dmu::fuzzing::{FIRST_BLOCK, VDEV, over_memory, place, with_memory};
use std::ops::ControlFlow;
use std::sync::Arc;

/// The targets of this layer.
pub const TARGETS: &[Target] = &[
    Target { name: "run_reference", seeds: reference_seeds, run: reference },
    Target { name: "run_meta", seeds: meta_seeds, run: meta },
    Target { name: "run_block", seeds: block_seeds, run: block },
    Target { name: "run", seeds: run_seeds, run: whole },
];

const KEYS: [&[u8]; 7] = [b"", b"a", b"key00007", b"key00063", b"key", b"zz", &[0xff; 9]];

/// A small run as it lies on its device: encoded reference and bytes.
#[must_use]
pub fn sample(compression: Compression, entries: u64) -> (Vec<u8>, Vec<u8>) {
    let dmu = over_memory();
    let mut writer =
        RunWriter::new(&dmu, RunOptions { block_bytes: 4096, compression, ..RunOptions::default() }, 0);
    for number in 0..entries {
        let key = format!("key{:05}", number / 2);
        let kind = [Kind::Put, Kind::Delete, Kind::Upsert, Kind::PutLarge][number as usize % 4];
        let payload =
            if kind == Kind::Delete { Vec::new() } else { vec![number as u8; number as usize % 90] };
        let entry = EntryRef {
            key: key.as_bytes(),
            sequence: 100_000 - number,
            kind,
            preference: StoragePreference::NONE,
            payload: &payload,
        };
        assert!(writer.add(entry).is_ok(), "memory takes every write");
    }
    for sequence in 0..3 {
        writer.add_range_delete(RangeDelete {
            start: vec![b'a' + sequence as u8].into(),
            end: (sequence > 0).then(|| b"x"[..].into()),
            sequence,
        });
    }
    let Ok(Some(run)) = writer.finish() else { unreachable!("memory takes every write") };
    let extents = run.reference().extents.extents();
    let length = total_blocks(extents) as usize * BLOCK_BYTES;
    let Ok(bytes) = dmu.read(extents, 0, length) else { unreachable!("memory gives what it took") };
    let mut reference = run.reference().clone();
    reference.birth = Generation(1);
    let mut out = Encoder::new();
    reference.encode(&mut out);
    (out.finish(), bytes[..reference.stored_bytes() as usize].to_vec())
}

const CODECS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd { level: 1 }];

fn reference_seeds() -> Vec<Vec<u8>> {
    vec![sample(Compression::None, 200).0, sample(Compression::None, 0).0, sample(Compression::Lz4, 3).0]
}

fn reference(bytes: &[u8]) -> bool {
    with_memory(|dmu| {
        let mut input = Decoder::new(bytes);
        let Ok(found) = RunRef::decode(&mut input, dmu) else { return false };
        let mut out = Encoder::new();
        found.encode(&mut out);
        let again = RunRef::decode(&mut Decoder::new(out.as_slice()), dmu);
        assert!(again.is_ok_and(|again| again == found), "a reference that is read back differently");
        for key in KEYS {
            let _any = (found.bounds_contain(key), found.overlaps(key, None), found.lies_within(key, None));
        }
        true
    })
}

/// The decoded reference of an encoded one, and its meta section in the bytes of the run.
fn meta_of(reference: &RunRef, bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(reference.meta_offset).ok()?;
    let end = start.checked_add(reference.meta_len as usize)?;
    (end <= bytes.len()).then_some(start..end)
}

fn meta_seeds() -> Vec<Vec<u8>> {
    [200, 0, 3]
        .into_iter()
        .filter_map(|entries| {
            let (reference, bytes) = sample(Compression::None, entries);
            let found = with_memory(|dmu| RunRef::decode(&mut Decoder::new(&reference), dmu)).ok()?;
            Some(bytes[meta_of(&found, &bytes)?].to_vec())
        })
        .collect()
}

fn meta(bytes: &[u8]) -> bool {
    with_memory(|dmu| {
        let mut buffer = AlignedBuffer::zeroed(bytes.len().max(1));
        buffer[..bytes.len()].copy_from_slice(bytes);
        let Ok(meta) = Meta::decode(buffer, 0..bytes.len(), 1 << 20, dmu.cache()) else { return false };
        for key in KEYS {
            let _any = meta.may_contain(key_hash(key));
            meta.prefetch_filter(key_hash(key));
            let _any = meta.range_deletes().covering(key, u64::MAX);
            if meta.blocks() > 0 {
                assert!(meta.find(key) < meta.blocks() && meta.find_before(key) < meta.blocks());
            }
        }
        true
    })
}

fn block_seeds() -> Vec<Vec<u8>> {
    let (reference, bytes) = sample(Compression::None, 300);
    let Ok(found) = with_memory(|dmu| RunRef::decode(&mut Decoder::new(&reference), dmu)) else {
        return Vec::new();
    };
    let meta = meta_of(&found, &bytes).and_then(|range| decode_meta(&bytes[range], found.meta_offset).ok());
    let records = meta.map(|meta| meta.records).unwrap_or_default();
    records.iter().map(|record| bytes[record.offset as usize..record.end() as usize].to_vec()).collect()
}

fn block(bytes: &[u8]) -> bool {
    // The length is in the index as well; it is not what is tried here.
    let mut bytes = bytes.to_vec();
    if let Some(length) = bytes.get(16..20).map(|_| bytes.len() as u32) {
        bytes[16..20].copy_from_slice(&length.to_le_bytes());
    }
    let Ok(shape) = Shape::check(&bytes, 0..bytes.len()) else { return false };
    let view = View { bytes: &bytes, shape: &shape };
    for key in KEYS {
        let found = view.lower_bound(key);
        assert!(found <= shape.count);
        if found < shape.count {
            let _any = view.entry_of(&view.frame(found), key);
        }
    }
    for index in 0..shape.count {
        let frame = view.frame(index);
        assert!(frame.suffix <= frame.payload && frame.payload <= frame.end && frame.end <= bytes.len());
        let key = [view.prefix(), &bytes[frame.suffix..frame.payload]].concat();
        assert!(view.lower_bound(&key) <= index, "an entry that a search would pass");
    }
    true
}

fn run_seeds() -> Vec<Vec<u8>> {
    let seed = |(reference, bytes): (Vec<u8>, Vec<u8>)| {
        [&(reference.len() as u16).to_le_bytes()[..], &reference, &bytes].concat()
    };
    let small = CODECS.map(|compression| seed(sample(compression, 150)));
    small.into_iter().chain([seed(sample(Compression::None, 0))]).collect()
}

/// Gives the blocks and the meta section of a run right checksums, the latter in its reference.
pub fn reseal(reference: &mut RunRef, bytes: &mut [u8]) {
    let Some(range) = meta_of(reference, bytes) else { return };
    let start = range.start;
    let number = |bytes: &[u8], at: usize| {
        let field = bytes.get(at..at + 4)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*field) as usize)
    };
    let lines = number(bytes, start + 8).unwrap_or(0).min(1 << 20);
    let blocks = number(bytes, start + 12).unwrap_or(0).min(1 << 16);
    for index in 0..blocks {
        let record = start + META_HEADER_BYTES + lines * 64 + index * RECORD_BYTES;
        let (Some(offset), Some(length)) = (number(bytes, record), number(bytes, record + 16)) else { break };
        let Some(sum) = bytes.get(offset..offset + length).map(crc) else { continue };
        if let Some(field) = bytes.get_mut(record + 24..record + 28) {
            field.copy_from_slice(&sum.to_le_bytes());
        }
    }
    reference.meta_crc = crc(&bytes[range]);
}

fn whole(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return false };
    let Some((reference, bytes)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))) else {
        return false;
    };
    with_memory(|dmu| {
        let extents = place(dmu, bytes);
        let mut bytes = bytes.to_vec();
        let Ok(mut found) = RunRef::decode(&mut Decoder::new(reference), dmu) else { return false };
        reseal(&mut found, &mut bytes);
        let place = Extent { vdev: VDEV, block: FIRST_BLOCK, blocks: extents[0].blocks };
        let mut stored = Encoder::new();
        stored.u8(1);
        place.encode(&mut stored);
        if let Ok(here) = crate::dmu::StoredExtents::decode(&mut Decoder::new(stored.as_slice()), dmu) {
            found.extents = here;
        }
        crate::dmu::fuzzing::place(dmu, &bytes);
        // As from a device: dropping it frees nothing.
        found.birth = Generation(found.birth.0.max(1));
        read(&Run::open(dmu, found))
    })
}

/// Reads `run` in every way; whether all of it can be read.
#[must_use]
pub fn read(run: &Arc<Run>) -> bool {
    let sound = run.verify().is_ok();
    for mode in [ReadMode::Point, ReadMode::Scan, ReadMode::Merge] {
        let mut cursor = RunCursor::new(Arc::clone(run), mode);
        let mut entries = 0_u64;
        let mut result = cursor.seek(&[]);
        while result.is_ok() && cursor.entry().is_some() {
            entries += 1;
            result = cursor.next();
        }
        assert!(
            !sound || (result.is_ok() && entries == run.reference().entries),
            "verified, but not readable"
        );
        let mut backward = cursor.seek_before(None);
        while backward.is_ok() && cursor.entry().is_some() {
            backward = cursor.prev();
        }
    }
    for key in KEYS {
        let mut visit = |entry: EntryRef<'_>| {
            assert!(entry.key == key, "another key");
            ControlFlow::Continue(())
        };
        let _refused = run.get(key, key_hash(key), u64::MAX, &mut visit);
        let _refused = run.covering(key, u64::MAX);
    }
    sound
}
