//! Reading, writing and healing on mirrors and parity.

use super::*;
use crate::pool::format::MemberState;
use crate::pool::geometry::Geometry;
use crate::pool::group::{Group, Labels, needed};
use crate::pool::member::{Member, Standing};
use std::sync::Barrier;

fn layouts() -> Vec<(VdevKind, usize)> {
    let parity1 = (3..=8).map(|leaves| (VdevKind::Parity1, leaves));
    let parity2 = (4..=8).map(|leaves| (VdevKind::Parity2, leaves));
    [(VdevKind::Mirror, 2), (VdevKind::Mirror, 3)].into_iter().chain(parity1).chain(parity2).collect()
}

fn group_on(kind: VdevKind, disks: &[Disk], threads: usize) -> Group {
    let member = |disk: &Disk| {
        let device = on(0, disk).leaves.remove(0).device;
        Member::new(disk.name.clone(), device, MemberState::Online, Standing::default())
    };
    Group::new(kind, disks.iter().map(member).collect(), Labels::default(), threads)
}

fn disks_for(leaves: usize) -> Vec<Disk> {
    // What a pool would refuse to be made on may have anything in it.
    let blocks = if leaves > 3 { 400 / leaves + 10 } else { 220 };
    (0..leaves).map(|number| Disk::with_bytes(number, vec![0x77; blocks * BLOCK])).collect()
}

/// Bytes that are different in every block.
fn pattern(blocks: u64, salt: u64) -> Vec<u8> {
    let mut rng = SimRng::new(salt + 1);
    (0..blocks * BLOCK as u64 / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect()
}

fn extent(group: &Group, block: u64, data: u64) -> Extent {
    let taken = group.geometry().taken(data) as u32;
    Extent { vdev: VdevId(0), block, blocks: taken }
}

fn images(disks: &[Disk]) -> Vec<Vec<u8>> {
    disks.iter().map(Disk::bytes).collect()
}

fn set_images(disks: &[Disk], images: &[Vec<u8>]) {
    disks.iter().zip(images).for_each(|(disk, image)| disk.set(0, image));
}

/// All sets of up to `most` of `count` members.
fn sets(count: usize, most: usize) -> Vec<Vec<usize>> {
    let members = |set: usize| (0..count).filter(|member| set >> member & 1 == 1).collect::<Vec<_>>();
    (0..1_usize << count).map(members).filter(|set| set.len() <= most).collect()
}

fn lose(group: &Group, missing: &[usize]) {
    for (index, member) in group.members().iter().enumerate() {
        let state = if missing.contains(&index) { MemberState::Missing } else { MemberState::Online };
        member.set_state(state, Generation(1), None);
    }
}

#[test]
pub(super) fn every_length_is_read_back_whoever_is_missing() {
    for (kind, leaves) in layouts() {
        let disks = disks_for(leaves);
        let group = group_on(kind, &disks, 0);
        let missing = sets(leaves, leaves - needed(kind, leaves));
        for length in 1..=130 {
            for block in [16, 17 + length % 9] {
                let extent = extent(&group, block, length);
                let bytes = pattern(length, length);
                group.write(&extent, 0, &bytes).unwrap();
                let every = matches!(length, 1 | 2 | 5 | 63 | 64 | 65 | 100 | 130);
                let one = (length + block) as usize % missing.len();
                for set in
                    missing.iter().enumerate().filter(|(at, _)| every || *at == one).map(|(_, set)| set)
                {
                    lose(&group, set);
                    let mut read = vec![0xee; bytes.len()];
                    let clean = group.read(&extent, 0, &mut read).unwrap();
                    assert!(read == bytes, "{kind} of {leaves}, {length} blocks at {block} without {set:?}");
                    assert!(clean || !set.is_empty());
                    // A part of it, at both ends inside of a stripe.
                    let (from, to) = (length / 3, length - length / 4);
                    let part = from as usize * BLOCK..to as usize * BLOCK;
                    let mut read = vec![0xee; part.len()];
                    group.read(&extent, from, &mut read).unwrap();
                    assert!(
                        read == bytes[part],
                        "{kind} of {leaves}, {from}..{to} of {length} without {set:?}"
                    );
                }
                lose(&group, &[]);
            }
        }
        // One more is too many, and no bytes are made up.
        let extent = extent(&group, 16, 100);
        group.write(&extent, 0, &pattern(100, 0)).unwrap();
        let most = leaves - needed(kind, leaves);
        for set in sets(leaves, most + 1).into_iter().filter(|set| set.len() > most) {
            lose(&group, &set);
            let mut read = vec![0; 100 * BLOCK];
            assert!(group.read(&extent, 0, &mut read).is_err(), "{kind} of {leaves} without {set:?}");
            lose(&group, &[]);
        }
    }
}

#[test]
fn a_part_of_an_extent_is_written_from_a_stripe_on() {
    for (kind, leaves) in layouts() {
        let disks = disks_for(leaves);
        let group = group_on(kind, &disks, 0);
        let extent = extent(&group, 18, 200);
        let bytes = pattern(200, 9);
        for part in [64..128, 0..64, 128..150] {
            let range = part.start as usize * BLOCK..part.end as usize * BLOCK;
            group.write(&extent, part.start, &bytes[range]).unwrap();
        }
        let missing = if kind == VdevKind::Parity2 { vec![1, 3] } else { vec![1] };
        lose(&group, &missing);
        let mut read = vec![0; 200 * BLOCK];
        group.read(&extent, 0, &mut read).unwrap();
        assert!(read[..150 * BLOCK] == bytes[..150 * BLOCK]);
        if kind != VdevKind::Mirror {
            let end = Geometry::of(kind, leaves as u8).capacity(u64::from(extent.blocks)) as usize;
            assert!(read[150 * BLOCK..192 * BLOCK].iter().all(|byte| *byte == 0), "the stripe is filled up");
            assert!(group.write(&extent, 3, &bytes[..BLOCK]).is_err(), "not where a stripe starts");
            assert!(group.write(&extent, 192, &vec![0; (end - 191) * BLOCK]).is_err(), "beyond the end");
        }
    }
}

/// Overwrites every block of a leaf.
fn spoil(disk: &Disk, salt: u8) {
    let bytes: Vec<u8> = disk.bytes().iter().map(|byte| byte ^ (0x5a | salt)).collect();
    disk.set(0, &bytes);
}

/// Recovers `bytes` from `extent`, and checks that only what was spoiled was written, and rightly.
fn check_recovery(group: &Group, disks: &[Disk], extent: &Extent, bytes: &[u8], good: &[Vec<u8>]) -> bool {
    let spoiled = images(disks);
    let mut read = vec![0; bytes.len()];
    let healing = group.recover(extent, 0, &mut read, &mut |read| read == bytes);
    let after = images(disks);
    let mut repaired = 0;
    for (leaf, after) in after.iter().enumerate() {
        for (block, now) in after.chunks_exact(BLOCK).enumerate() {
            let range = block * BLOCK..(block + 1) * BLOCK;
            if *now != spoiled[leaf][range.clone()] {
                assert!(*now == good[leaf][range], "leaf {leaf} block {block} was made wrong");
                repaired += 1;
            }
        }
    }
    match healing {
        None => assert!(repaired == 0),
        Some(healing) => {
            assert!(read == bytes);
            assert_eq!(healing.repaired, repaired);
            // What was read is right on its own now; not the parity, which nobody has seen.
            if group.members().iter().all(|member| member.state() == MemberState::Online) {
                let mut again = vec![0; bytes.len()];
                group.read(extent, 0, &mut again).unwrap();
                assert!(again == bytes && healing.unrepaired == 0);
            }
        }
    }
    healing.is_some()
}

#[test]
fn one_wrong_column_is_found_and_repaired_whoever_is_missing() {
    for (kind, leaves) in layouts() {
        let disks = disks_for(leaves);
        let group = group_on(kind, &disks, 0);
        let spare = leaves - needed(kind, leaves);
        for length in [1, 17, 64, 130] {
            let extent = extent(&group, 16 + length % 5, length);
            let bytes = pattern(length, length);
            group.write(&extent, 0, &bytes).unwrap();
            let good = images(&disks);
            for missing in sets(leaves, spare) {
                if length != 17 && missing.len() > 1 {
                    continue;
                }
                for wrong in (0..leaves).filter(|leaf| !missing.contains(leaf)) {
                    lose(&group, &missing);
                    spoil(&disks[wrong], 0);
                    let found = check_recovery(&group, &disks, &extent, &bytes, &good);
                    assert!(
                        found || missing.len() + 1 > spare,
                        "{kind} of {leaves}, {length} blocks, {wrong} wrong without {missing:?}"
                    );
                    lose(&group, &[]);
                    set_images(&disks, &good);
                }
            }
        }
        let counted = |member: &Arc<Member>| member.errors().checksum > 0 && member.errors().repaired > 0;
        assert!(group.members().iter().all(counted));
    }
}

#[test]
fn rows_with_different_wrong_columns_are_repaired() {
    for (kind, leaves) in [(VdevKind::Mirror, 2), (VdevKind::Parity1, 4), (VdevKind::Parity2, 5)] {
        let disks = disks_for(leaves);
        let group = group_on(kind, &disks, 0);
        let extent = extent(&group, 16, 130);
        let bytes = pattern(130, 3);
        group.write(&extent, 0, &bytes).unwrap();
        let good = images(&disks);
        let mut rng = SimRng::new(5);
        let mut found = 0;
        for _ in 0..40 {
            // Blocks far apart, each on another leaf: never two in one row.
            let first = rng.index(leaves);
            for step in 0..leaves {
                let leaf = (first + step) % leaves;
                let block = 16 / usize::from(group.geometry().columns()) + 3 * step + 1;
                let bit = rng.index(BLOCK);
                let old = disks[leaf].bytes()[block * BLOCK + bit];
                disks[leaf].set(block * BLOCK + bit, &[old ^ 4]);
            }
            found += usize::from(check_recovery(&group, &disks, &extent, &bytes, &good));
            set_images(&disks, &good);
        }
        assert_eq!(found, 40, "{kind}");
    }
}

#[test]
fn sectors_that_cannot_be_read_are_served_and_then_repaired() {
    for (kind, leaves) in layouts() {
        let disks = disks_for(leaves);
        let group = group_on(kind, &disks, 0);
        let extent = extent(&group, 16, 64);
        let bytes = pattern(64, 4);
        group.write(&extent, 0, &bytes).unwrap();
        let good = images(&disks);
        // Each in another row.
        for (leaf, disk) in disks.iter().enumerate().take(4) {
            let first = 16 / usize::from(group.geometry().columns());
            disk.state.lock().unreadable.insert(first + 2 * leaf + 1);
        }
        let mut read = vec![0; bytes.len()];
        assert!(!group.read(&extent, 0, &mut read).unwrap());
        assert!(read == bytes, "{kind} of {leaves}");
        assert!(images(&disks) == good, "reading repairs nothing: who reads has not verified it");
        let healing = group.recover(&extent, 0, &mut read, &mut |read| read == bytes).unwrap();
        assert!(healing.repaired > 0 && images(&disks) == good);
    }
}

#[test]
fn a_read_that_fails_for_a_moment_costs_no_right_bytes() {
    for (kind, leaves) in layouts() {
        let disks = disks_for(leaves);
        let group = group_on(kind, &disks, 0);
        let extent = extent(&group, 16, 8);
        group.write(&extent, 0, &pattern(8, 4)).unwrap();
        spoil(&disks[1], 1);
        let before = images(&disks);
        for disk in [&disks[0], &disks[2 % leaves]] {
            disk.fail(Operation::Read, 0, io::ErrorKind::Other);
            let _any = group.read(&extent, 0, &mut vec![0; 8 * BLOCK]);
            disk.heal();
        }
        assert!(
            images(&disks) == before,
            "{kind} of {leaves}: what was read was wrong and came to another disk"
        );
    }
}

#[test]
fn blocks_that_are_stripes_of_their_own_are_written_and_read_alone() {
    for (kind, leaves) in layouts() {
        let disks = disks_for(leaves);
        let group = group_on(kind, &disks, 0);
        let granule = group.geometry().granule();
        let extent = Extent { vdev: VdevId(0), block: 19, blocks: 40 * granule };
        let bytes = pattern(40, 8);
        let before: u64 = requests(&group);
        group.write_singles(&extent, 0, &bytes[..7 * BLOCK]).unwrap();
        assert!(requests(&group) - before <= leaves as u64, "one request for each leaf");
        group.write_singles(&extent, 7, &bytes[7 * BLOCK..8 * BLOCK]).unwrap();
        group.write_singles(&extent, 8, &bytes[8 * BLOCK..]).unwrap();
        assert!(kind == VdevKind::Mirror || group.write_singles(&extent, 40, &bytes[..BLOCK]).is_err());
        for missing in sets(leaves, leaves - needed(kind, leaves)) {
            lose(&group, &missing);
            let mut read = vec![0; 33 * BLOCK];
            group.read_singles(&extent, 5, &mut read).unwrap();
            assert!(read == bytes[5 * BLOCK..38 * BLOCK]);
            let one = Extent { vdev: VdevId(0), block: 19 + 9 * u64::from(granule), blocks: granule };
            group.read(&one, 0, &mut read[..BLOCK]).unwrap();
            assert!(read[..BLOCK] == bytes[9 * BLOCK..10 * BLOCK], "the same as an extent of its own");
        }
        lose(&group, &[]);
        spoil(&disks[1], 0);
        let mut read = vec![0; 40 * BLOCK];
        assert!(group.recover_singles(&extent, 0, &mut read, &mut |read| read == bytes).is_some());
        assert!(read == bytes);
    }
}

fn requests(group: &Group) -> u64 {
    let of = |member: &Arc<Member>| {
        let metrics = member.counters.of_member(String::new(), member.state());
        metrics.reads.requests + metrics.writes.requests
    };
    group.members().iter().map(of).sum()
}

fn bytes_read(group: &Group) -> u64 {
    let of = |member: &Arc<Member>| member.counters.of_member(String::new(), member.state()).reads.bytes;
    group.members().iter().map(of).sum()
}

#[test]
fn long_requests_are_few_for_each_member() {
    for (kind, leaves) in [(VdevKind::Parity1, 5), (VdevKind::Parity2, 6), (VdevKind::Mirror, 3)] {
        let disks = disks_for(leaves);
        let group = group_on(kind, &disks, 0);
        let extent = extent(&group, 16, 190);
        let bytes = pattern(190, 4);
        group.write(&extent, 0, &bytes).unwrap();
        assert_eq!(requests(&group), leaves as u64, "writing on {kind}");
        let mut read = vec![0; bytes.len()];
        group.read(&extent, 0, &mut read).unwrap();
        assert!(read == bytes, "reading from {kind}");
        // A member reads on until it comes to parity, of which it does not read much.
        let per_member = if kind == VdevKind::Mirror { 1 } else { 3 };
        assert!(requests(&group) <= (1 + per_member) * leaves as u64, "{} from {kind}", requests(&group));
        let blocks = bytes_read(&group) / BLOCK as u64;
        assert!((190..190 + 8 * leaves as u64).contains(&blocks), "{blocks} blocks from {kind}");
        lose(&group, &[1]);
        let before = requests(&group);
        group.read(&extent, 0, &mut read).unwrap();
        assert!(
            requests(&group) - before < leaves as u64 && read == bytes,
            "reading without one from {kind}"
        );
    }
}

#[test]
fn reads_of_a_mirror_go_to_all_of_it_and_go_on_where_they_were() {
    let disks = disks_for(3);
    let group = group_on(VdevKind::Mirror, &disks, 0);
    let of_member = |index: usize| {
        let member = &group.members()[index];
        member.counters.of_member(String::new(), member.state()).reads.requests
    };
    for block in 0..200 {
        group.read(&Extent { vdev: VdevId(0), block, blocks: 1 }, 0, &mut [0; BLOCK]).unwrap();
    }
    assert_eq!((0..3).map(of_member).filter(|reads| *reads > 0).count(), 1, "one after the other");
    let disks = (0..3).map(|number| Disk::new(number, 2000)).collect::<Vec<_>>();
    let group = group_on(VdevKind::Mirror, &disks, 0);
    let mut rng = SimRng::new(1);
    for _ in 0..300 {
        let block = rng.below(1999);
        group.read(&Extent { vdev: VdevId(0), block, blocks: 1 }, 0, &mut [0; BLOCK]).unwrap();
    }
    for index in 0..3 {
        let member = &group.members()[index];
        let reads = member.counters.of_member(String::new(), member.state()).reads.requests;
        assert!(reads > 50, "member {index}: {reads}");
    }
}

/// A device whose requests wait until all devices have one.
#[derive(Debug)]
struct Meeting {
    below: MemoryDevice,
    barrier: Arc<Barrier>,
}

impl BlockDevice for Meeting {
    fn name(&self) -> &str {
        "meeting"
    }

    fn len(&self) -> u64 {
        self.below.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
        self.barrier.wait();
        self.below.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
        self.barrier.wait();
        self.below.write_at(buf, offset)
    }

    fn flush(&self) -> Result<(), VdevError> {
        self.barrier.wait();
        Ok(())
    }
}

#[test]
fn members_are_served_at_the_same_time() {
    for (kind, leaves) in layouts() {
        let barrier = Arc::new(Barrier::new(leaves));
        let member = |_| {
            let device = Meeting { below: MemoryDevice::new(1 << 20), barrier: Arc::clone(&barrier) };
            let device: Arc<dyn BlockDevice> = Arc::new(device);
            Member::new("meeting".to_owned(), Some(device), MemberState::Online, Standing::default())
        };
        let group = Group::new(kind, (0..leaves).map(member).collect(), Labels::default(), usize::MAX);
        let extent = extent(&group, 0, 128);
        let bytes = pattern(128, 1);
        // Each of these would wait for ever if one member were served after another.
        group.write(&extent, 0, &bytes).unwrap();
        group.flush().unwrap();
        // Of a stripe, parity is not read, so that not every member need be asked.
        if kind == VdevKind::Mirror {
            let mut read = vec![0; bytes.len()];
            group.read(&extent, 0, &mut read).unwrap();
            assert!(read == bytes);
        }
    }
}

#[test]
fn members_are_served_in_order_without_threads() {
    for (kind, leaves) in layouts() {
        let disks = disks_for(leaves);
        let ops = record(&disks);
        let group = group_on(kind, &disks, 0);
        group.write(&extent(&group, 0, 128), 0, &pattern(128, 1)).unwrap();
        group.flush().unwrap();
        let order: Vec<usize> = ops
            .lock()
            .iter()
            .map(|op| match op {
                Op::Write { device, .. } | Op::Flush { device } => *device,
            })
            .collect();
        let all: Vec<usize> = (0..leaves).collect();
        assert_eq!(order, [&all[..], &all[..]].concat());
    }
}

#[test]
fn members_are_lost_as_long_as_the_others_are_enough() {
    for threads in [0, usize::MAX] {
        for operation in [Operation::Write, Operation::Flush] {
            for (kind, leaves) in layouts() {
                let disks = disks_for(leaves);
                let group = group_on(kind, &disks, threads);
                let extent = extent(&group, 16, 70);
                let bytes = pattern(70, 1);
                let act = || match operation {
                    Operation::Write => group.write(&extent, 0, &bytes),
                    _ => group.flush(),
                };
                let spare = leaves - needed(kind, leaves);
                for disk in &disks[..spare] {
                    disk.fail(operation, 0, io::ErrorKind::Other);
                    assert!(!group.is_unrecorded());
                    act().unwrap();
                    assert!(group.is_unrecorded(), "{kind} of {leaves}");
                    group.set_recorded(group.changes());
                }
                let lost = |member: &&Arc<Member>| member.state() == MemberState::Faulted;
                assert_eq!(group.members().iter().filter(lost).count(), spare);
                disks[spare].fail(operation, 0, io::ErrorKind::Other);
                act().unwrap_err();
                assert!(!group.is_unrecorded(), "nothing is given up that is needed");
                assert_eq!(group.members().iter().filter(lost).count(), spare);
            }
        }
    }
    // A full host file system is no fault of the member.
    let disks = disks_for(2);
    let group = group_on(VdevKind::Mirror, &disks, 0);
    disks[0].fail(Operation::Write, 0, io::ErrorKind::StorageFull);
    let error = group.write(&extent(&group, 16, 1), 0, &[1; BLOCK]).unwrap_err();
    assert!(error.is_out_of_space() && group.members()[0].state() == MemberState::Online);
}

#[test]
fn long_reads_of_a_mirror_are_served_block_by_block_whoever_has_them() {
    for leaves in [2, 3] {
        for bad in 0..leaves {
            let disks = disks_for(leaves);
            let group = group_on(VdevKind::Mirror, &disks, usize::MAX);
            let extent = extent(&group, 0, 192);
            let bytes = pattern(192, 4);
            group.write(&extent, 0, &bytes).unwrap();
            // In the share of each, one block that it lacks and one that all others lack.
            let share = 192 / leaves;
            for of in 0..leaves {
                for (leaf, disk) in disks.iter().enumerate() {
                    let lacked = of * share + if leaf == bad { 3 } else { 5 };
                    disk.state.lock().unreadable.insert(lacked);
                }
            }
            let mut read = vec![0; bytes.len()];
            assert!(!group.read(&extent, 0, &mut read).unwrap());
            assert!(read == bytes, "{bad} of {leaves}");
        }
    }
}

#[test]
fn a_label_tells_of_a_loss_that_it_counts() {
    let disks = disks_for(2);
    let group = group_on(VdevKind::Mirror, &disks, 0);
    let member = &group.members()[1];
    std::thread::scope(|scope| {
        let mut told = None;
        member.update(|_| {
            // The loss is under way, and cannot end before the standing of the member is free.
            scope.spawn(|| group.lose(1, &member.gone(Operation::Write, 0)));
            while group.changes() == 0 {
                std::thread::yield_now();
            }
            told = Some(scope.spawn(|| group.with_changes(|changes| (changes, member.state()))));
            (0..1000).for_each(|_| std::thread::yield_now());
        });
        assert_eq!(told.unwrap().join().unwrap(), (1, MemberState::Faulted));
    });
}
