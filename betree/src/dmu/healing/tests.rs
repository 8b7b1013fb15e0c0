//! What is wrong on some members, on every kind of vdev.

use super::*;
use crate::base::checksum::crc;
use crate::base::preference::StoragePreference;
use crate::dmu::testing::{KINDS, late_mirror, unit, worn_unit};
use crate::dmu::{Privilege, Stream};
use crate::pool::TopLevelVdev;
use crate::pool::format::VdevKind;
use crate::vdev::{BlockDevice, SimClock, SimDisk, SimRng};
use std::sync::Arc;

/// Blocks of a disk.
const BLOCKS: u64 = 1 << 11;
/// Blocks that one checksum covers.
const PIECE: usize = 4;

/// Flips a bit of each block of `disk`.
fn spoil(disk: &SimDisk) {
    for block in 0..BLOCKS {
        disk.flip_bit(block * BLOCK_BYTES as u64 + 77, (block % 8) as u8);
    }
}

/// Extents with `blocks` random blocks.
fn written(dmu: &Dmu, blocks: usize, random: &mut SimRng) -> (Vec<Extent>, Vec<u8>) {
    let take = |count| dmu.allocate(Stream::Base, StoragePreference::NONE, count, Privilege::System).unwrap();
    let mut extents = take(70);
    let hole = take(3);
    extents.extend(take(blocks as u32 - 70));
    dmu.release(&hole);
    let data: Vec<u8> = (0..blocks * BLOCK_BYTES).map(|_| random.next_u64() as u8).collect();
    dmu.write(&extents, 0, &AlignedBuffer::copy_of(&data)).unwrap();
    dmu.flush(&[VdevId(1)]).unwrap();
    (extents, data)
}

/// Reads every piece; how many are right. Panics when one is taken for right and is not.
fn read_all(dmu: &Dmu, extents: &[Extent], data: &[u8]) -> usize {
    let mut right_ones = 0;
    for (index, piece) in data.chunks(PIECE * BLOCK_BYTES).enumerate() {
        let offset = (index * PIECE * BLOCK_BYTES) as u64;
        let checksum = crc(piece);
        let mut is_right = |bytes: &[u8]| crc(bytes) == checksum;
        let (bytes, right) =
            dmu.read_checked(extents, offset, piece.len(), 0..piece.len(), &mut is_right).unwrap();
        assert!(!right || bytes[..] == *piece);
        right_ones += usize::from(right);
    }
    right_ones
}

fn tolerates(kind: VdevKind, leaves: usize) -> usize {
    match kind {
        VdevKind::Leaf => 0,
        VdevKind::Mirror => leaves - 1,
        VdevKind::Parity1 => 1,
        VdevKind::Parity2 => 2,
    }
}

#[test]
fn whole_members_that_lie_are_found_out_and_put_right() {
    let mut random = SimRng::new(3);
    for (name, kind, leaves) in KINDS {
        for first in 0..leaves {
            for second in first..leaves {
                let (dmu, disks) = unit(kind, leaves, BLOCKS);
                let (extents, data) = written(&dmu, 200, &mut random);
                let pieces = data.len().div_ceil(PIECE * BLOCK_BYTES);
                let mut liars = vec![first, second];
                liars.dedup();
                liars.iter().for_each(|liar| spoil(&disks[*liar]));
                let right = read_all(&dmu, &extents, &data);
                if liars.len() > tolerates(kind, leaves) {
                    assert!(right < pieces, "{name}: {liars:?}");
                    continue;
                }
                assert_eq!(right, pieces, "{name}: {liars:?}");
                // On the disks themselves, and read by who cannot tell.
                let plain = dmu.read(&extents, 0, data.len()).unwrap();
                assert!(plain[..] == data[..], "{name}: {liars:?}");
            }
        }
    }
}

#[test]
fn members_that_lie_about_different_blocks_of_one_piece_are_found_out() {
    for (name, kind, leaves) in KINDS.into_iter().filter(|(_, kind, _)| *kind != VdevKind::Leaf) {
        let (dmu, disks) = unit(kind, leaves, BLOCKS);
        let mut random = SimRng::new(5);
        let (extents, data) = written(&dmu, 200, &mut random);
        let geometry = dmu.pool().vdev(VdevId(1)).unwrap().geometry();
        let columns = u64::from(geometry.columns());
        for round in 0..60 {
            // Two blocks of the vdev far enough apart that no stripe row has both.
            let base = extents[0].block + random.below(u64::from(extents[0].blocks) / 2);
            for (member, block) in [(round % leaves, base), ((round + 1) % leaves, base + columns * 3 + 1)] {
                let (leaf, at) = match geometry.is_plain() {
                    true => (member, block),
                    false => ((block % columns) as usize, block / columns),
                };
                disks[leaf].flip_bit(at * BLOCK_BYTES as u64 + 9, 2);
            }
            let checksum = crc(&data);
            let mut whole = |bytes: &[u8]| crc(bytes) == checksum;
            let (bytes, right) =
                dmu.read_checked(&extents, 0, data.len(), 0..data.len(), &mut whole).unwrap();
            assert!(right && bytes[..] == data[..], "{name}, round {round}");
            // Parity is not read by who only wants data: what is left there must not add up.
            dmu.write(&extents, 0, &AlignedBuffer::copy_of(&data)).unwrap();
        }
    }
}

#[test]
fn blocks_of_the_log_have_copies() {
    let mut random = SimRng::new(7);
    for (name, kind, leaves) in KINDS {
        for liar in 0..leaves {
            let (dmu, disks) = unit(kind, leaves, BLOCKS);
            let extent =
                dmu.allocate(Stream::Log, StoragePreference::NONE, 40, Privilege::System).unwrap()[0];
            assert_eq!(dmu.single_blocks(&extent), 40);
            let data: Vec<u8> = (0..40 * BLOCK_BYTES).map(|_| random.next_u64() as u8).collect();
            let mut at = 0;
            while at < 40 {
                let count = (1 + random.index(7)).min(40 - at);
                let bytes = &data[at * BLOCK_BYTES..(at + count) * BLOCK_BYTES];
                dmu.write_singles(&extent, at as u32, &AlignedBuffer::copy_of(bytes)).unwrap();
                at += count;
            }
            dmu.flush(&[VdevId(1)]).unwrap();
            assert!(dmu.read_singles(&extent, 0, 40).unwrap()[..] == data[..], "{name}");
            assert!(!dmu.differing_singles(&extent, 0, 40).unwrap().contains(&true));
            spoil(&disks[liar]);
            let differs = dmu.differing_singles(&extent, 0, 40).unwrap();
            assert_eq!(differs.contains(&true), kind != VdevKind::Leaf, "{name}");
            for (from, count) in [(0, 1), (1, 5), (6, 10), (16, 24)] {
                let right = &data[from * BLOCK_BYTES..(from + count) * BLOCK_BYTES];
                let mut out = AlignedBuffer::zeroed(right.len());
                let found = dmu.recover_singles(&extent, from as u32, &mut out, &mut |bytes| bytes == right);
                assert_eq!(found.unwrap(), kind != VdevKind::Leaf, "{name}: {from}+{count} without {liar}");
            }
            if kind != VdevKind::Leaf {
                assert!(dmu.read_singles(&extent, 0, 40).unwrap()[..] == data[..], "{name}");
                // The copy that is a parity block is for the scrub: who reads the data does not miss it.
                let differs = dmu.differing_singles(&extent, 0, 40).unwrap().contains(&true);
                assert!(!differs || kind != VdevKind::Mirror, "{name}");
            }
        }
    }
}

/// A checksum that covers parts of blocks says nothing of the rest of them: that is another's, and stays as it is on each
/// member.
#[test]
fn a_repair_leaves_alone_what_was_not_verified() {
    for (name, kind, leaves) in KINDS.into_iter().filter(|(_, kind, _)| *kind == VdevKind::Mirror) {
        let (dmu, disks) = unit(kind, leaves, BLOCKS);
        let (extents, data) = written(&dmu, 200, &mut SimRng::new(9));
        // Everywhere but on the last leg the neighbours behind are wrong; on the first one, this is right.
        let byte = |at: u64| extents[0].block * BLOCK_BYTES as u64 + at;
        disks[..leaves - 1].iter().for_each(|disk| disk.flip_bit(byte(9000), 1));
        disks[1..].iter().for_each(|disk| disk.flip_bit(byte(8500), 1));
        let halves = [(8192..8600, 8192u64), (8600..12_288, 8192)];
        for (bytes, offset) in halves {
            let verified = bytes.start - offset as usize..bytes.end - offset as usize;
            let checksum = crc(&data[bytes.clone()]);
            let mut is_right = |read: &[u8]| crc(&read[verified.clone()]) == checksum;
            let (_, right) =
                dmu.read_checked(&extents, offset, BLOCK_BYTES, verified.clone(), &mut is_right).unwrap();
            assert!(right, "{name}: {bytes:?}");
            // Whoever was asked first.
            let mut place = AlignedBuffer::zeroed(BLOCK_BYTES);
            assert!(dmu.recover(&extents, offset, &mut place, verified.clone(), &mut is_right).unwrap());
        }
        for leg in 0..leaves {
            let others: Vec<usize> = (0..leaves).filter(|other| *other != leg).collect();
            let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
            let held = dmu.pool().alternatives(&extents[0], 2, 1).unwrap();
            assert_eq!(held.without(&others, &mut block), [true]);
            assert!(block[..] == data[8192..12_288], "{name}: leg {leg}");
        }
    }
}

/// Each row has enough, though no set of members has all of it.
#[test]
fn bad_sectors_and_wrong_bytes_in_different_rows_are_borne_together() {
    for (name, kind, leaves) in KINDS.into_iter().filter(|(_, kind, _)| *kind != VdevKind::Leaf) {
        for first in 0..leaves {
            let (dmu, disks) = worn_unit(kind, leaves, BLOCKS);
            let (extents, data) = written(&dmu, 200, &mut SimRng::new(11));
            let columns = u64::from(dmu.pool().vdev(VdevId(1)).unwrap().geometry().columns());
            // One more member than may be wrong in one row: the last one lies, the others have a bad sector.
            let hurt = tolerates(kind, leaves) + 1;
            for index in 0..hurt {
                let leaf = (first + index) % leaves;
                let base = extents[0].block;
                let ahead = match columns {
                    1 => 0,
                    _ => (leaf as u64 + columns - base % columns) % columns,
                };
                let block = (base + ahead) / columns + 2 * index as u64;
                match index + 1 < hurt {
                    true => disks[leaf].wear(block),
                    false => disks[leaf].flip_bit(block * BLOCK_BYTES as u64 + 100, 3),
                }
            }
            let piece = &data[..64 * BLOCK_BYTES];
            let checksum = crc(piece);
            let mut is_right = |bytes: &[u8]| crc(bytes) == checksum;
            let read = dmu.read_checked(&extents, 0, piece.len(), 0..piece.len(), &mut is_right);
            let (bytes, right) = read.unwrap();
            assert!(right && bytes[..] == *piece, "{name}, {first}");
            // Repaired, too.
            assert!(dmu.read(&extents, 0, piece.len()).unwrap()[..] == *piece, "{name}, {first}");
        }
    }
}

/// However many guesses are made, each member is asked once.
#[test]
fn a_search_reads_each_column_once() {
    let (dmu, disks) = worn_unit(VdevKind::Parity2, 6, BLOCKS);
    let (extents, data) = written(&dmu, 200, &mut SimRng::new(13));
    let len = 64 * BLOCK_BYTES;
    for disk in &disks {
        disk.take_reads();
    }
    let mut guesses = 0;
    let mut out = AlignedBuffer::zeroed(len);
    let mut never = |_: &[u8]| {
        guesses += 1;
        false
    };
    assert!(!dmu.recover(&extents, 0, &mut out, 0..len, &mut never).unwrap());
    let reads: Vec<u64> = disks.iter().map(|disk| disk.take_reads()).collect();
    assert!(reads.iter().all(|reads| *reads <= 1), "{reads:?}");
    // All say the same, which needs to be tried no more than twice.
    assert!((1..=2).contains(&guesses), "{guesses}");
    let checksum = crc(&data[..len]);
    let found = dmu.recover(&extents, 0, &mut out, 0..len, &mut |bytes| crc(bytes) == checksum);
    assert!(found.unwrap() && out[..] == data[..len]);
}

/// Guesses are bounded, as a short checksum is met by chance at last.
#[test]
fn guesses_are_bounded() {
    let (dmu, disks) = worn_unit(VdevKind::Mirror, 3, BLOCKS);
    let (extents, data) = written(&dmu, 200, &mut SimRng::new(15));
    disks[1..].iter().for_each(|disk| spoil(disk));
    let (mut guesses, mut out) = (0, AlignedBuffer::zeroed(data.len()));
    let mut never = |_: &[u8]| {
        guesses += 1;
        false
    };
    assert!(!dmu.recover(&extents, 0, &mut out, 0..data.len(), &mut never).unwrap());
    assert!((3..=TRIES_MAX).contains(&guesses), "{guesses}");
}

/// Who verifies piece by piece gets what there is, and knows what to do with it.
#[test]
fn what_does_not_read_is_left_to_who_has_checksums() {
    let (dmu, disks) = late_mirror(BLOCKS);
    let (extents, data) = written(&dmu, 200, &mut SimRng::new(17));
    disks[0].wear(extents[0].block + 5);
    let len = 64 * BLOCK_BYTES;
    let (_, reading) = dmu.read_doubtful(&extents, 0, len).unwrap();
    assert!(matches!(reading, Reading::Failed(_)), "{reading:?}");
    let checksum = crc(&data[..len]);
    let mut out = AlignedBuffer::zeroed(len);
    assert!(dmu.recover(&extents, 0, &mut out, 0..len, &mut |bytes| crc(bytes) == checksum).unwrap());
    assert!(out[..] == data[..len] && disks[0].worn() == 0);
    // With two that count, the other one serves, and what it gave goes to the first.
    dmu.pool().resilvered(VdevId(1), 1, dmu.pool().life(VdevId(1), 1).unwrap()).unwrap();
    disks.iter().for_each(|disk| disk.wear(extents[0].block + 7));
    disks[1].wear(extents[0].block + 9);
    let read = |from: usize, count: usize| {
        dmu.read_doubtful(&extents, (from * BLOCK_BYTES) as u64, count * BLOCK_BYTES)
    };
    assert!(matches!(read(7, 1).unwrap().1, Reading::Failed(_)));
    let mut put_right = 0;
    for _ in 0..4 {
        let (bytes, reading) = read(9, 1).unwrap();
        assert!(bytes[..] == data[9 * BLOCK_BYTES..10 * BLOCK_BYTES]);
        if matches!(reading, Reading::Partial) {
            dmu.put_right(&extents, 9 * BLOCK_BYTES as u64, &bytes, &(0..BLOCK_BYTES)).unwrap();
            put_right += 1;
        }
    }
    assert!(put_right <= 1 && disks[1].worn() == 2 - put_right);
    // Without redundancy there is nobody else.
    let (dmu, disks) = worn_unit(VdevKind::Leaf, 1, BLOCKS);
    let (extents, _) = written(&dmu, 200, &mut SimRng::new(19));
    disks[0].wear(extents[0].block + 5);
    assert!(dmu.read_doubtful(&extents, 0, len).is_err());
}

/// The copy in memory is a help, never a need.
#[test]
fn a_wrong_copy_in_memory_gives_way_to_the_disk() {
    let clock = SimClock::new(1);
    let disk = SimDisk::new("disk", BLOCKS * BLOCK_BYTES as u64, &clock);
    let memory = SimDisk::volatile("memory", BLOCKS * BLOCK_BYTES as u64, &clock);
    let leaf = |id, tier, disk: &SimDisk| {
        TopLevelVdev::leaf(VdevId(id), tier, BLOCKS, Arc::new(disk.device()) as Arc<dyn BlockDevice>)
    };
    let pool = Arc::new(Pool::from_vdevs(vec![leaf(2, 0, &memory), leaf(1, 1, &disk)]));
    let dmu = Dmu::over(pool, 0);
    let (extents, data) = written(&dmu, 200, &mut SimRng::new(21));
    assert_eq!(read_all(&dmu, &extents, &data), 50);
    spoil(&memory);
    assert!(dmu.read(&extents, 0, data.len()).unwrap()[..] != data[..], "memory is asked first");
    assert_eq!(read_all(&dmu, &extents, &data), 50);
    assert!(dmu.read(&extents, 0, data.len()).unwrap()[..] == data[..], "the copies are right again");
    // A checksum says nothing of the rest of its blocks.
    spoil(&memory);
    (0..BLOCKS).for_each(|block| memory.flip_bit(block * BLOCK_BYTES as u64 + 2000, 1));
    let checksum = crc(&data[..100]);
    let mut is_right = |bytes: &[u8]| crc(&bytes[..100]) == checksum;
    let (_, right) = dmu.read_checked(&extents, 0, BLOCK_BYTES, 0..100, &mut is_right).unwrap();
    assert!(right);
    let block = dmu.read(&extents, 0, BLOCK_BYTES).unwrap();
    assert_eq!(block[..100], data[..100]);
    assert_ne!(block[2000], data[2000], "left to who knows");
}
