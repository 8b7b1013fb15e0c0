//! Windows over extents of every kind of vdev, with wrong copies anywhere.

use super::*;
use crate::dmu::testing::{KINDS, unit, worn_unit};
use crate::pool::{MemberState, VdevKind};
use crate::vdev::{SimDisk, SimRng};

/// Blocks of a disk.
const BLOCKS: u64 = 1 << 11;

/// Extents of several lengths that hold random bytes, with units of any length that follow each other without room between, as
/// those of a run do, and some gaps of zeros.
fn written(dmu: &Dmu, random: &mut SimRng) -> ScrubTask {
    let vdev = dmu.persistent_vdevs()[0];
    let geometry = dmu.pool().vdev(vdev).unwrap().geometry();
    let mut task = ScrubTask::default();
    let mut block = 64 * u64::from(geometry.granule());
    for data in [70, 600, 3, 65] {
        let extent = Extent { vdev, block, blocks: geometry.taken(data) as u32 };
        block = extent.end() + u64::from(geometry.granule());
        task.extents.push(extent);
    }
    let length = dmu.data_blocks(&task.extents) * BLOCK_BYTES_U64;
    let mut bytes: Vec<u8> = (0..length).map(|_| random.next_u64() as u8).collect();
    let mut at = 0;
    while at < length {
        let wanted = match random.below(20) {
            0 => 1_500_000,
            1..5 => 16_384,
            _ => 1 + random.below(20_000),
        };
        let length = wanted.min(length - at);
        let range = at as usize..(at + length) as usize;
        match random.chance(1, 8) {
            true => bytes[range].fill(0),
            false => task.units.push(Checksummed { offset: at, length, checksum: crc(&bytes[range]) }),
        }
        at += length;
    }
    let mut from = 0;
    for extent in &task.extents {
        let length = dmu.data_blocks(&[*extent]) as usize * BLOCK_BYTES;
        dmu.pool().write(extent, 0, &AlignedBuffer::copy_of(&bytes[from..from + length])).unwrap();
        from += length;
    }
    task
}

/// Has every block be a unit, so that no byte is nobody's.
fn judge_each_block(dmu: &Dmu, task: &mut ScrubTask) {
    let length = dmu.data_blocks(&task.extents) as usize * BLOCK_BYTES;
    let bytes = dmu.read(&task.extents, 0, length).unwrap();
    let unit = |(at, block): (usize, &[u8])| {
        let offset = (at * BLOCK_BYTES) as u64;
        Checksummed { offset, length: BLOCK_BYTES_U64, checksum: crc(block) }
    };
    task.units = bytes.chunks_exact(BLOCK_BYTES).enumerate().map(unit).collect();
}

/// Changes bytes of `count` blocks of a disk, of those that hold something.
fn spoil(disk: &SimDisk, count: u64, random: &mut SimRng) {
    let bytes = disk.bytes();
    let used: Vec<usize> = (0..bytes.len() / BLOCK_BYTES)
        .filter(|block| bytes[block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES].iter().any(|byte| *byte != 0))
        .collect();
    for _ in 0..count {
        let block = used[random.index(used.len())];
        disk.flip_bit((block * BLOCK_BYTES) as u64 + random.below(BLOCK_BYTES_U64), random.below(8) as u8);
    }
}

fn images(disks: &[SimDisk]) -> Vec<Vec<u8>> {
    disks.iter().map(SimDisk::bytes).collect()
}

fn redundancy(kind: VdevKind, leaves: usize) -> usize {
    match kind {
        VdevKind::Leaf => 0,
        VdevKind::Mirror => leaves - 1,
        VdevKind::Parity1 => 1,
        VdevKind::Parity2 => 2,
    }
}

#[test]
fn what_is_wrong_on_one_member_is_as_it_was_afterwards() {
    for (name, kind, leaves) in KINDS {
        let mut random = SimRng::new(7);
        let (dmu, disks) = unit(kind, leaves, BLOCKS);
        let task = written(&dmu, &mut random);
        let before = images(&disks);
        let clean = dmu.scrub(&task, None).unwrap();
        assert_eq!((&clean.damage[..], clean.repaired, clean.units), (&[][..], 0, task.units.len() as u64));
        assert!(images(&disks) == before, "{name}: what is right stays as it is");
        for disk in &disks {
            spoil(disk, 40, &mut random);
            let outcome = dmu.scrub(&task, None).unwrap();
            if redundancy(kind, leaves) == 0 {
                assert!(!outcome.damage.is_empty() && outcome.repaired == 0);
                continue;
            }
            assert_eq!((&outcome.damage[..], outcome.unrepaired), (&[][..], 0), "{name}");
            assert!(outcome.repaired > 0 && images(&disks) == before, "{name}");
        }
    }
}

/// All of a member is wrong: it acknowledged writes and forgot them.
#[test]
fn a_member_that_forgot_everything_gets_it_back() {
    for (name, kind, leaves) in KINDS.into_iter().filter(|(_, kind, _)| *kind != VdevKind::Leaf) {
        let mut random = SimRng::new(8);
        let (dmu, disks) = unit(kind, leaves, BLOCKS);
        let task = written(&dmu, &mut random);
        let before = images(&disks);
        for disk in &disks {
            disk.overwrite(0, &vec![0; disk.len() as usize]);
            let outcome = dmu.scrub(&task, None).unwrap();
            assert!(outcome.damage.is_empty() && images(&disks) == before, "{name}");
        }
    }
}

/// Units that are wrong everywhere are named, and no byte of them changes; what is beside them is mended.
#[test]
fn what_is_right_nowhere_is_named_and_not_touched() {
    for (name, kind, leaves) in KINDS {
        let mut random = SimRng::new(9);
        let (dmu, disks) = unit(kind, leaves, BLOCKS);
        let task = written(&dmu, &mut random);
        for disk in &disks {
            spoil(disk, 12, &mut random);
        }
        let spoilt = images(&disks);
        let first = dmu.scrub(&task, None).unwrap();
        let mended = images(&disks);
        let second = dmu.scrub(&task, None).unwrap();
        assert!(images(&disks) == mended && second.repaired == 0, "{name}: nothing is left to mend");
        assert_eq!(first.damage, second.damage, "{name}: nothing got lost, or was found");
        if redundancy(kind, leaves) == 0 {
            assert!(mended == spoilt && !first.damage.is_empty());
        }
    }
}

/// A member that lacks everything gets exactly what it had.
#[test]
fn a_member_is_filled() {
    for (name, kind, leaves) in KINDS.into_iter().filter(|(_, kind, _)| *kind != VdevKind::Leaf) {
        let mut random = SimRng::new(10);
        let (dmu, disks) = unit(kind, leaves, BLOCKS);
        let task = written(&dmu, &mut random);
        let before = images(&disks);
        let vdev = dmu.persistent_vdevs()[0];
        for (member, disk) in disks.iter().enumerate() {
            disk.overwrite(0, &vec![0xee; disk.len() as usize]);
            dmu.pool().set_lacking(vdev, member);
            // Of parity 1 and a mirror of two, nobody else may be wrong.
            if redundancy(kind, leaves) > 1 {
                spoil(&disks[(member + 1) % leaves], 10, &mut random);
            }
            let outcome = dmu.scrub(&task, Some(Target { vdev, member })).unwrap();
            assert!(outcome.damage.is_empty() && outcome.filled > 0, "{name}");
            dmu.pool().set_member(vdev, member, MemberState::Online);
            for (now, before) in images(&disks).iter().zip(&before) {
                let differs = |block: &usize| {
                    let place = block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES;
                    before[place.clone()].iter().any(|byte| *byte != 0) && now[place.clone()] != before[place]
                };
                assert_eq!((0..now.len() / BLOCK_BYTES).find(differs), None, "{name}");
            }
            // Where nothing was, nothing counts.
            disk.overwrite(0, &before[member]);
        }
    }
}

/// Two units share a block; each is wrong on another leg, in its own part of it.
#[test]
fn mending_a_unit_does_not_spoil_its_neighbour() {
    let (dmu, disks) = unit(VdevKind::Mirror, 2, BLOCKS);
    let vdev = dmu.persistent_vdevs()[0];
    let extent = Extent { vdev, block: 64, blocks: 3 };
    let bytes: Vec<u8> = (0..3 * BLOCK_BYTES).map(|at| (at % 251) as u8 + 1).collect();
    dmu.pool().write(&extent, 0, &AlignedBuffer::copy_of(&bytes)).unwrap();
    let unit_of = |range: Range<usize>| Checksummed {
        offset: range.start as u64,
        length: range.len() as u64,
        checksum: crc(&bytes[range]),
    };
    let units = vec![unit_of(0..6000), unit_of(6000..12_288)];
    let task = ScrubTask { extents: vec![extent], units, is_partial: false };
    let before = images(&disks);
    let start = 64 * BLOCK_BYTES_U64;
    disks[0].flip_bit(start + 100, 0);
    disks[0].flip_bit(start + 5000, 0);
    disks[1].flip_bit(start + 7000, 0);
    let outcome = dmu.scrub(&task, None).unwrap();
    assert!(outcome.damage.is_empty() && images(&disks) == before);
}

/// A block that does not read is written anew.
#[test]
fn what_cannot_be_read_is_made_from_the_others() {
    for (name, kind, leaves) in KINDS.into_iter().filter(|(_, kind, _)| *kind != VdevKind::Leaf) {
        let mut random = SimRng::new(11);
        let (dmu, disks) = unit(kind, leaves, BLOCKS);
        let mut task = written(&dmu, &mut random);
        // A unit in several extents is read before them.
        task.extents.truncate(1);
        judge_each_block(&dmu, &mut task);
        let before = images(&disks);
        for disk in &disks {
            disk.arm(crate::vdev::Fault::ReadError { nth: 1, sticky: false });
            disk.arm(crate::vdev::Fault::ReadError { nth: 2, sticky: false });
            let outcome = dmu.scrub(&task, None).unwrap();
            assert_eq!((&outcome.damage[..], outcome.unrepaired), (&[][..], 0), "{name}");
            assert!(outcome.repaired > 0, "{name}");
            assert!(images(&disks) == before, "{name}");
            disk.clear_faults();
        }
    }
}

/// Bad sectors of others cost who is filled the rows that they are in, and no more; and where nothing right is known, it keeps what
/// it has.
#[test]
fn a_bad_sector_costs_who_is_filled_no_more_than_its_row() {
    let parity = |kind: VdevKind| matches!(kind, VdevKind::Parity1 | VdevKind::Parity2);
    for (name, kind, leaves) in KINDS.into_iter().filter(|(_, kind, _)| parity(*kind)) {
        for offset in [0, 3, 7, 40, 90] {
            let mut random = SimRng::new(12);
            let (dmu, disks) = worn_unit(kind, leaves, BLOCKS);
            let mut task = written(&dmu, &mut random);
            judge_each_block(&dmu, &mut task);
            let before: Vec<Vec<u8>> = disks.iter().map(|disk| disk.bytes()).collect();
            let vdev = dmu.persistent_vdevs()[0];
            let first = task.extents[0].block / leaves as u64;
            // Together with who is filled one more than a row can do without.
            (1..=redundancy(kind, leaves)).for_each(|other| disks[other].wear(first + offset));
            disks[0].overwrite(0, &vec![0xee; disks[0].len() as usize]);
            dmu.pool().set_lacking(vdev, 0);
            let outcome = dmu.scrub(&task, Some(Target { vdev, member: 0 })).unwrap();
            let now = disks[0].bytes();
            let block = |bytes: &[u8], at: usize| bytes[at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES].to_vec();
            let is_used = |at: &usize| block(&before[0], *at).iter().any(|byte| *byte != 0);
            let differs = |at: &usize| block(&now, *at) != block(&before[0], *at);
            let lacks: Vec<usize> = (0..now.len() / BLOCK_BYTES).filter(is_used).filter(differs).collect();
            assert!(lacks.len() <= redundancy(kind, leaves), "{name}, {offset}: {lacks:?}");
            assert!(lacks.is_empty() || !outcome.damage.is_empty(), "{name}, {offset}");
            assert!(
                lacks.iter().all(|at| block(&now, *at).iter().all(|byte| *byte == 0xee)),
                "{name}, {offset}"
            );
        }
    }
}

/// Who is filled may have what nobody else gives any more: that is used, and not written over.
#[test]
fn who_is_filled_is_asked_for_what_nobody_else_has() {
    for (name, kind, leaves) in KINDS.into_iter().filter(|(_, kind, _)| *kind != VdevKind::Leaf) {
        for offset in [0, 5, 40] {
            let mut random = SimRng::new(13);
            let (dmu, disks) = worn_unit(kind, leaves, BLOCKS);
            let mut task = written(&dmu, &mut random);
            // A unit in several extents is read, and repaired, before them.
            task.extents.truncate(1);
            judge_each_block(&dmu, &mut task);
            let before: Vec<Vec<u8>> = disks.iter().map(|disk| disk.bytes()).collect();
            let vdev = dmu.persistent_vdevs()[0];
            let columns = u64::from(dmu.pool().vdev(vdev).unwrap().geometry().columns());
            let first = task.extents[0].block / columns;
            (1..=redundancy(kind, leaves)).for_each(|other| disks[other].wear(first + offset));
            dmu.pool().set_lacking(vdev, 0);
            let outcome = dmu.scrub(&task, Some(Target { vdev, member: 0 })).unwrap();
            assert_eq!(outcome.damage, [], "{name}, {offset}");
            let now: Vec<Vec<u8>> = disks.iter().map(|disk| disk.bytes()).collect();
            assert!(now == before, "{name}, {offset}");
        }
    }
}

/// A read that fails for a moment costs nothing, though what the others have in its place is wrong.
#[test]
fn what_cannot_be_read_just_now_is_not_written_over_with_what_may_be_wrong() {
    for (name, kind, leaves) in KINDS.into_iter().filter(|(_, kind, _)| *kind != VdevKind::Leaf) {
        let mut random = SimRng::new(14);
        let (dmu, disks) = unit(kind, leaves, BLOCKS);
        let mut task = written(&dmu, &mut random);
        judge_each_block(&dmu, &mut task);
        let before = images(&disks);
        for round in 0..40 {
            // Its first reads are long ones; those behind them are of single blocks.
            let failing = 1 + round % 3 * 257;
            disks[0].arm(crate::vdev::Fault::ReadError { nth: failing, sticky: false });
            disks[0]
                .arm(crate::vdev::Fault::ReadError { nth: failing + 1 + random.below(70), sticky: false });
            (1..=redundancy(kind, leaves)).for_each(|other| spoil(&disks[other], 12, &mut random));
            dmu.scrub(&task, None).unwrap();
            assert!(disks[0].bytes() == before[0], "{name}, {round}: who was right is as it was");
            disks[0].clear_faults();
            let outcome = dmu.scrub(&task, None).unwrap();
            assert!(outcome.damage.is_empty() && images(&disks) == before, "{name}, {round}");
        }
    }
}

/// A pointer to a vdev that there is not is damage like any other.
#[test]
fn an_extent_of_no_vdev_is_damage() {
    let (dmu, _disks) = unit(VdevKind::Mirror, 2, BLOCKS);
    let extent = Extent { vdev: VdevId(77), block: 64, blocks: 3 };
    let outcome = dmu.scrub(&ScrubTask::of(vec![extent], 5000, 1), None).unwrap();
    assert_eq!(outcome.damage.len(), 1);
    assert_eq!(outcome.damage[0].vdev, VdevId(77));
}

/// A block that nobody gave, and that is padding, is zeros again, though what it was made from was wrong; so parity stays what it was.
#[test]
fn padding_that_nobody_gave_is_padding_again() {
    const LEAVES: usize = 4;
    const DATA: usize = 12;
    let geometry = |dmu: &Dmu| dmu.pool().vdev(dmu.persistent_vdevs()[0]).unwrap().geometry();
    let mut random = SimRng::new(15);
    let bytes: Vec<u8> = (0..(DATA - 1) * BLOCK_BYTES).map(|_| random.next_u64() as u8).collect();
    let padded = [&bytes[..], &[0; BLOCK_BYTES]].concat();
    let unit = |(at, block): (usize, &[u8])| {
        let offset = (at * BLOCK_BYTES) as u64;
        Checksummed { offset, length: BLOCK_BYTES_U64, checksum: crc(block) }
    };
    let units: Vec<Checksummed> = bytes.chunks_exact(BLOCK_BYTES).enumerate().map(unit).collect();
    let mut mended = 0;
    for worn in 0..LEAVES {
        for wrong in (0..LEAVES).filter(|wrong| *wrong != worn) {
            for (bad, flipped) in (0..7).flat_map(|bad| (0..7).map(move |flipped| (bad, flipped))) {
                let (dmu, disks) = worn_unit(VdevKind::Parity2, LEAVES, BLOCKS);
                let block = 64 * u64::from(geometry(&dmu).granule());
                let taken = geometry(&dmu).taken(DATA as u64) as u32;
                let extent = Extent { vdev: dmu.persistent_vdevs()[0], block, blocks: taken };
                dmu.pool().write(&extent, 0, &AlignedBuffer::copy_of(&padded)).unwrap();
                let before: Vec<Vec<u8>> = disks.iter().map(|disk| disk.bytes()).collect();
                let first = block / LEAVES as u64;
                let place = (first + flipped) as usize * BLOCK_BYTES;
                // A wrong byte of what is nobody's is wrong for nobody.
                if before[wrong][place..place + BLOCK_BYTES].iter().all(|byte| *byte == 0) {
                    continue;
                }
                disks[worn].wear(first + bad);
                disks[wrong].flip_bit(place as u64 + 9, 1);
                let task = ScrubTask { extents: vec![extent], units: units.clone(), is_partial: false };
                let outcome = dmu.scrub(&task, None).unwrap();
                assert_eq!(outcome.damage, [], "{worn} at {bad}, {wrong} at {flipped}");
                let now: Vec<Vec<u8>> = disks.iter().map(|disk| disk.bytes()).collect();
                assert!(now == before, "{worn} at {bad}, {wrong} at {flipped}");
                mended += outcome.repaired;
            }
        }
    }
    assert!(mended > 0);
}

/// Who is filled has the only right bytes of a block, and does not read just now: they are not written over.
#[test]
fn who_is_filled_and_does_not_read_keeps_what_it_has() {
    let (dmu, disks) = worn_unit(VdevKind::Mirror, 2, BLOCKS);
    let vdev = dmu.persistent_vdevs()[0];
    let extent = Extent { vdev, block: 64, blocks: 1 };
    let bytes: Vec<u8> = (0..BLOCK_BYTES).map(|at| (at % 251) as u8 + 1).collect();
    dmu.pool().write(&extent, 0, &AlignedBuffer::copy_of(&bytes)).unwrap();
    let unit_of = |range: Range<usize>| Checksummed {
        offset: range.start as u64,
        length: range.len() as u64,
        checksum: crc(&bytes[range]),
    };
    let units = vec![unit_of(0..2000), unit_of(2000..BLOCK_BYTES)];
    let task = ScrubTask { extents: vec![extent], units, is_partial: false };
    let before = disks[1].bytes();
    disks[0].flip_bit(64 * BLOCK_BYTES_U64 + 3000, 0);
    disks[1].wear(64);
    dmu.pool().set_lacking(vdev, 1);
    let outcome = dmu.scrub(&task, Some(Target { vdev, member: 1 })).unwrap();
    assert_eq!(outcome.damage.iter().map(|damage| damage.unit).collect::<Vec<_>>(), [1]);
    assert!(disks[1].bytes() == before);
}
