//! Fuzz targets of the log: one frame, the head in a superblock, and the replay of whole logs whose frames have right
//! checksums and form a chain.

use super::format::{FrameHeader, LogHead};
use super::{Log, LogError, LogOptions, Verdict, replay};
use crate::base::codec::{Decoder, Encoder};
use crate::base::extent::Extent;
use crate::base::fuzzing::Target;
use crate::base::ids::Uuid;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::dmu::Dmu;
use crate::dmu::fuzzing::{over_memory, with_memory};

/// The targets of this layer.
pub const TARGETS: &[Target] = &[
    Target { name: "log_frame", seeds: frame_seeds, run: frame },
    Target { name: "log_head", seeds: head_seeds, run: head },
    Target { name: "log_replay", seeds: replay_seeds, run: replayed },
];

const POOL: Uuid = Uuid([7; 16]);
const EPOCH: u64 = 3;
const EXTENT_BLOCKS: u32 = 8;

/// A log of some frames in extents of eight blocks: its head, its extents, its bytes.
fn sample(dmu: &Dmu, records: usize, synced: usize) -> (LogHead, Vec<Extent>, Vec<u8>) {
    let options = LogOptions {
        extent_blocks: EXTENT_BLOCKS,
        buffer_bytes: 8 << 10,
        background: false,
        ..LogOptions::new(POOL)
    };
    let Ok((log, head)) = Log::start(dmu, options, EPOCH) else { unreachable!("memory has room") };
    for record in 0..records {
        let Ok(lsn) = log.append(&[&vec![record as u8; record * 97 % 3000]]) else {
            unreachable!("memory takes every write")
        };
        if record < synced && record % 3 == 0 {
            assert!(log.sync(lsn).is_ok(), "memory takes every write");
        }
    }
    let extents = log.extents();
    (head, extents.clone(), bytes_of(dmu, &extents))
}

fn bytes_of(dmu: &Dmu, extents: &[Extent]) -> Vec<u8> {
    let length = extents.iter().map(|extent| extent.blocks as usize).sum::<usize>() * BLOCK_BYTES;
    let Ok(bytes) = dmu.read(extents, 0, length) else { unreachable!("memory gives what it took") };
    bytes.to_vec()
}

/// Gives every frame in `blocks` that can be read a right checksum, and the one after it the link to it.
pub fn reseal(blocks: &mut [u8]) {
    let (mut at, mut previous) = (0, None);
    while let Some(block) = blocks.get(at..at + BLOCK_BYTES) {
        let Ok((mut header, checksum)) = FrameHeader::decode(block) else {
            at += BLOCK_BYTES;
            continue;
        };
        let length = header.blocks as usize * BLOCK_BYTES;
        let Some(frame) = blocks.get_mut(at..at + length) else { return };
        header.previous = previous.unwrap_or(header.previous);
        previous = Some(header.seal(frame));
        // As it was, when nothing in it had changed.
        debug_assert!(previous == Some(checksum) || header.is_intact(previous.unwrap_or(0), frame));
        at += length;
    }
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let (_, _, bytes) = sample(&over_memory(), 8, 8);
    let frames = bytes.chunks(BLOCK_BYTES).filter(|block| FrameHeader::decode(block).is_ok());
    frames.take(4).map(<[u8]>::to_vec).collect()
}

fn frame(bytes: &[u8]) -> bool {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES), 0);
    let Ok((header, _)) = FrameHeader::decode(&bytes) else { return false };
    let length = header.blocks as usize * BLOCK_BYTES;
    bytes.resize(length, 0);
    let before = bytes.clone();
    let checksum = header.seal(&mut bytes);
    assert!(
        before[..8] == bytes[..8] && before[12..] == bytes[12..],
        "a frame that would be written differently"
    );
    assert!(header.is_intact(checksum, &bytes));
    assert!(header.end_lsn() > header.lsn && header.payload().end <= bytes.len());
    true
}

fn head_seeds() -> Vec<Vec<u8>> {
    let (head, _, _) = sample(&over_memory(), 8, 8);
    let encode = |head: &LogHead| {
        let mut out = Encoder::new();
        head.encode(&mut out);
        out.finish()
    };
    vec![encode(&head), encode(&LogHead { next: None, ..head })]
}

fn head(bytes: &[u8]) -> bool {
    let mut input = Decoder::new(bytes);
    let Ok(found) = LogHead::decode(&mut input) else { return false };
    let mut out = Encoder::new();
    found.encode(&mut out);
    assert!(bytes.starts_with(out.as_slice()), "a head that would be written differently");
    replay_from(&found);
    true
}

/// Replays what is on the memory device from `head`, which may point anywhere; whether there was a record.
fn replay_from(head: &LogHead) -> bool {
    with_memory(|dmu| {
        let mut last = head.lsn;
        let mark = |_: Extent| Ok::<(), LogError>(());
        let apply = |record: &[u8], lsn: u64, _: bool| {
            assert!(lsn == last + 4 + record.len() as u64, "records lie one behind the other");
            last = lsn;
            Ok(Verdict::Continue)
        };
        if let Ok(end) = replay(dmu, POOL, head, mark, apply) {
            assert!(end.lsn == last);
        }
        last > head.lsn
    })
}

/// Extents and head, as [`replayed`] finds them again, and the bytes to start from.
fn replay_seeds() -> Vec<Vec<u8>> {
    [(30, 30), (60, 30), (3, 3)].map(|(records, synced)| sample(&over_memory(), records, synced).2).to_vec()
}

fn replayed(bytes: &[u8]) -> bool {
    thread_local! {
        // Where a log lies that is started on a fresh device: the same for all seeds.
        static PLACE: (LogHead, Extent) = {
            let (head, extents, _) = sample(&over_memory(), 1, 1);
            (head, extents[0])
        };
    }
    PLACE.with(|(head, first)| {
        let mut blocks = bytes.to_vec();
        blocks.resize(blocks.len().next_multiple_of(BLOCK_BYTES).clamp(BLOCK_BYTES, 128 * BLOCK_BYTES), 0);
        reseal(&mut blocks);
        // The extents of a fresh device lie one behind the other.
        let count = (blocks.len() / BLOCK_BYTES) as u32;
        // Below the unit, which refuses writes to what a checkpoint has.
        let written = with_memory(|dmu| dmu.pool().write(&Extent { blocks: count, ..*first }, 0, &blocks));
        assert!(
            written.is_ok(),
            "memory takes every write, {} bytes too",
            u64::from(count) * BLOCK_BYTES_U64
        );
        replay_from(head)
    })
}
