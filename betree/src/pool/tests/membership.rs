//! Members that are missing, late, foreign, replaced or gone their own way.

use super::*;
use crate::pool::format::{MemberState, MembershipLabel, SlotError};
use crate::pool::group::needed;
use crate::pool::{MemberStatus, SlotContent, SlotDump, VdevHealth, VdevStatus, dump_device};
use crate::vdev::{Fault, FlushFailure};
use std::collections::BTreeMap;

const BLOCKS: u64 = 96;

fn layouts() -> Vec<(VdevKind, usize)> {
    vec![
        (VdevKind::Mirror, 2),
        (VdevKind::Mirror, 3),
        (VdevKind::Parity1, 3),
        (VdevKind::Parity1, 5),
        (VdevKind::Parity2, 4),
        (VdevKind::Parity2, 6),
    ]
}

fn disks(count: usize) -> Vec<Disk> {
    (0..count).map(|number| Disk::new(number, BLOCKS)).collect()
}

fn group(tier: u8, kind: VdevKind, disks: &[&Disk]) -> VdevDevices {
    let leaves = disks.iter().map(|disk| on(tier, disk).leaves.remove(0)).collect();
    VdevDevices { tier, kind, leaves }
}

fn all(kind: VdevKind, disks: &[Disk]) -> VdevDevices {
    group(1, kind, &disks.iter().collect::<Vec<_>>())
}

/// The group without some of its disks: their paths lead to nothing.
fn without(kind: VdevKind, disks: &[Disk], missing: &[usize]) -> VdevDevices {
    let mut group = all(kind, disks);
    for leaf in missing {
        group.leaves[*leaf] = LeafDevice { name: format!("gone{leaf}"), device: None };
    }
    group
}

fn opened(members: &[VdevDevices]) -> Result<(Pool, OpenReport), PoolError> {
    open_as(members, Access::ReadWrite, true)
}

/// Opens, also without members that are missing, and settles on the newest root.
fn settled(members: &[VdevDevices]) -> Pool {
    let (pool, report) = opened(members).unwrap();
    assert!(!report.rolled_back);
    pool.rewrite_chosen(report.chosen).unwrap();
    pool
}

fn subsets(count: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..1_usize << count).map(move |set| (0..count).filter(|leaf| set >> leaf & 1 == 1).collect())
}

fn states(pool: &Pool) -> Vec<MemberState> {
    pool.status()[0].members.iter().map(|member| member.state).collect()
}

/// Seventeen blocks that stand for a generation; eight of them take turns.
fn slot(pool: &Pool, generation: u64) -> Extent {
    let geometry = pool.vdevs()[0].geometry();
    let first = AREA_BLOCKS * u64::from(geometry.columns());
    let taken = geometry.taken(6);
    Extent { vdev: VdevId(0), block: first + generation % 8 * taken, blocks: taken as u32 }
}

fn filled(generation: u64) -> Vec<u8> {
    (0..6 * BLOCK).map(|at| (generation * 7 + at as u64 / BLOCK as u64) as u8).collect()
}

fn put(pool: &Pool, generation: u64) -> Result<(), PoolError> {
    pool.write(&slot(pool, generation), 0, &filled(generation))?;
    pool.flush_all()?;
    pool.commit(Generation(generation), &payload(generation))
}

/// Whether the data of `generation` are there, from whoever has them.
fn is_there(pool: &Pool, generation: u64) -> bool {
    let want = filled(generation);
    let mut read = vec![0; want.len()];
    let extent = slot(pool, generation);
    let plain = pool.read(&extent, 0, &mut read).is_ok() && read == want;
    plain || pool.recover(&extent, 0, &mut read, &mut |read| read == want).unwrap().is_some()
}

/// Writes all that a member missed anew, and says that it has it.
fn resilver(pool: &Pool, leaf: u8, newest: u64) {
    let life = pool.life(VdevId(0), leaf).unwrap();
    for generation in newest.saturating_sub(6).max(1)..=newest {
        assert!(is_there(pool, generation), "generation {generation}");
        pool.write(&slot(pool, generation), 0, &filled(generation)).unwrap();
    }
    pool.resilvered(VdevId(0), leaf, life).unwrap();
}

fn made(kind: VdevKind, disks: &[Disk], generations: u64) -> Pool {
    let pool = create(&[all(kind, disks)]);
    (1..=generations).for_each(|generation| put(&pool, generation).unwrap());
    pool
}

/// As of superblocks: see `a_torn_superblock_is_made_whole_by_no_other`.
#[test]
fn what_is_left_of_a_torn_label_is_made_unreadable() {
    let disks = disks(2);
    drop(made(VdevKind::Mirror, &disks, 3));
    let dump = || dump_device(&*device_of(&disks[0]));
    let is_label = |slot: &SlotDump| matches!(slot.content, SlotContent::Label(_));
    let block = dump().into_iter().find(is_label).unwrap().block;
    let byte = block as usize * BLOCK + 100;
    disks[0].set(byte, &[disks[0].bytes()[byte] ^ 1]);
    drop(settled(&[all(VdevKind::Mirror, &disks)]));
    let unmade = || {
        let label = &disks[0].bytes()[block as usize * BLOCK..][..BLOCK];
        label[0] != 0xff && label[8..].iter().all(|byte| *byte == 0xff)
    };
    assert!(unmade());
    // It is damage as before, and not written again.
    let content = dump().into_iter().find(|slot| slot.block == block).unwrap().content;
    assert!(matches!(content, SlotContent::Invalid(SlotError::Checksum { .. })), "{content:?}");
    let ops = record(&disks);
    drop(settled(&[all(VdevKind::Mirror, &disks)]));
    assert!(unmade() && !ops.lock().iter().any(|op| matches!(op, Op::Write { .. })));
}

#[test]
fn every_set_of_missing_members_opens_when_it_may() {
    for (kind, count) in layouts() {
        let disks = disks(count);
        drop(made(kind, &disks, 9));
        let whole: Vec<Vec<u8>> = disks.iter().map(Disk::bytes).collect();
        for missing in subsets(count) {
            let members = [without(kind, &disks, &missing)];
            let is_enough = count - missing.len() >= needed(kind, count);
            match open(&members) {
                Ok(_) => assert!(missing.is_empty()),
                Err(PoolError::NotFound { .. }) => assert_eq!(missing.len(), count),
                Err(error @ PoolError::MissingDevice { leaf, vdev: VdevId(0), .. }) => {
                    assert!(missing.contains(&usize::from(leaf)));
                    let text = error.to_string();
                    assert!(
                        text.contains("gone") && text.contains("\"degraded\": true") == is_enough,
                        "{text}"
                    );
                }
                Err(error) => panic!("{kind} without {missing:?}: {error}"),
            }
            for access in [Access::ReadOnly, Access::ReadWrite] {
                match open_as(&members, access, true) {
                    Ok((pool, report)) => {
                        assert!(is_enough && report.chosen == Generation(9) && !report.rolled_back);
                        (2..=9).for_each(|generation| assert!(is_there(&pool, generation)));
                        let status = &pool.status()[0];
                        let gone: Vec<usize> = (0..count)
                            .filter(|leaf| status.members[*leaf].state == MemberState::Missing)
                            .collect();
                        assert_eq!(gone, missing);
                        let degraded = status.health == VdevHealth::Degraded;
                        assert_eq!(degraded, !missing.is_empty());
                    }
                    Err(PoolError::MissingDevice { .. } | PoolError::NotFound { .. }) => assert!(!is_enough),
                    Err(error) => panic!("{kind} without {missing:?}: {error}"),
                }
            }
            let now: Vec<Vec<u8>> = disks.iter().map(Disk::bytes).collect();
            assert!(now == whole, "opening wrote something");
        }
    }
}

#[test]
fn members_are_found_in_any_order() {
    for (kind, count) in [(VdevKind::Mirror, 5), (VdevKind::Parity1, 4), (VdevKind::Parity2, 5)] {
        let disks = disks(count);
        drop(made(kind, &disks, 9));
        for order in permutations(count) {
            let shuffled: Vec<&Disk> = order.iter().map(|disk| &disks[*disk]).collect();
            let (pool, _) = open(&[group(1, kind, &shuffled)]).unwrap();
            assert!(is_there(&pool, 9) && states(&pool).iter().all(|state| *state == MemberState::Online));
            let names: Vec<String> =
                pool.status()[0].members.iter().map(|member| member.name.clone()).collect();
            assert!(names.iter().enumerate().all(|(leaf, name)| *name == format!("disk{leaf}")), "by place");
        }
    }
}

#[test]
fn members_are_found_in_any_group_of_their_kind_and_refused_in_others() {
    let disks = disks(5);
    let of = |order: &[usize]| -> Vec<VdevDevices> {
        let disk = |at: usize| &disks[order[at]];
        vec![
            group(1, VdevKind::Mirror, &[disk(0), disk(1)]),
            group(1, VdevKind::Mirror, &[disk(2), disk(3)]),
            on(1, disk(4)),
        ]
    };
    let pool = create(&of(&[0, 1, 2, 3, 4]));
    for vdev in 0..3 {
        pool.write(&blocks_at(vdev, 20), 0, &[vdev as u8 + 1; BLOCK]).unwrap();
    }
    commit(&pool, 1);
    drop(pool);
    let (mut found, mut refused) = (0, 0);
    for order in permutations(5) {
        match open(&of(&order)) {
            Ok((pool, _)) => {
                assert_eq!(order[4], 4);
                for vdev in 0..3 {
                    let mut read = [0; BLOCK];
                    pool.read(&blocks_at(vdev, 20), 0, &mut read).unwrap();
                    assert_eq!(read, [vdev as u8 + 1; BLOCK], "{order:?}");
                }
                found += 1;
            }
            Err(PoolError::LayoutMismatch { device, .. }) => {
                assert!(order[4] != 4 && device.starts_with("disk"));
                refused += 1;
            }
            Err(error) => panic!("{order:?}: {error}"),
        }
    }
    assert_eq!((found, refused), (24, 96));
}

#[test]
fn wrong_members_are_refused_by_name() {
    let disks = disks(4);
    let [a, b, c, d] = [&disks[0], &disks[1], &disks[2], &disks[3]];
    drop(made(VdevKind::Mirror, &disks[..2], 5));
    let stranger = create(&[group(1, VdevKind::Mirror, &[c, d])]);
    commit(&stranger, 1);
    let mirror = |legs: &[&Disk]| opened(&[group(1, VdevKind::Mirror, legs)]).unwrap_err();
    let error = mirror(&[a, b, c]);
    assert!(matches!(&error, PoolError::ForeignDevice { device, .. } if device == "disk2"), "{error}");
    let error = mirror(&[a, &a.copy(7)]);
    assert!(matches!(&error, PoolError::DuplicateDevice { device, .. } if device == "disk7"), "{error}");
    let blank = Disk::new(8, BLOCKS);
    let error = open(&[group(1, VdevKind::Mirror, &[a, &blank])]).unwrap_err();
    assert!(
        matches!(&error, PoolError::MissingDevice { leaf: 1, instead: Some(why), .. } if why == "disk8 is empty")
    );
    let error = mirror(&[a, b, &blank]);
    assert!(matches!(&error, PoolError::LayoutMismatch { .. }), "{error}");
    let error = opened(&[group(1, VdevKind::Parity1, &[a, b])]).unwrap_err();
    assert!(matches!(&error, PoolError::LayoutMismatch { .. }), "{error}");
    let error = opened(&[group(2, VdevKind::Mirror, &[a, b])]).unwrap_err();
    assert!(matches!(&error, PoolError::TierMismatch { .. }), "{error}");
    let error = opened(&[on(1, a), on(1, b)]).unwrap_err();
    assert!(matches!(&error, PoolError::LayoutMismatch { .. }), "{error}");
    let before = blank.bytes();
    let pool = settled(&[group(1, VdevKind::Mirror, &[a, &blank])]);
    assert!(
        put(&pool, 6).is_ok() && blank.bytes() == before,
        "what is empty is not taken without being told"
    );
    let data = Disk::with_bytes(9, vec![3; BLOCKS as usize * BLOCK]);
    assert!(matches!(mirror_closed(a, &data), PoolError::NotAPool { device } if device == "disk9"));
    drop(settled(&[group(1, VdevKind::Mirror, &[a, &data])]));
    assert!(data.bytes().iter().all(|byte| *byte == 3));
}

fn mirror_closed(a: &Disk, b: &Disk) -> PoolError {
    open(&[group(1, VdevKind::Mirror, &[a, b])]).unwrap_err()
}

#[test]
fn a_member_that_missed_something_is_recognised_and_made_good() {
    for (kind, count) in layouts() {
        let disks = disks(count);
        drop(made(kind, &disks, 3));
        let pool = settled(&[without(kind, &disks, &[1])]);
        (4..=7).for_each(|generation| put(&pool, generation).unwrap());
        pool.close().unwrap();
        drop(pool);

        // It is back: no flag is needed, and what it has is not believed.
        let (pool, report) = open(&[all(kind, &disks)]).unwrap();
        assert_eq!((report.chosen, states(&pool)[1]), (Generation(7), MemberState::Resilvering));
        let status = &pool.status()[0].members[1];
        assert_eq!(status.missed_from, Some(Generation(3)), "what it may lack at most");
        assert!(status.since.is_some() && status.reason.as_ref().is_some_and(|why| why.contains("missed")));
        pool.rewrite_chosen(Generation(7)).unwrap();
        for generation in 1..=7 {
            let mut read = vec![0; 6 * BLOCK];
            pool.read(&slot(&pool, generation), 0, &mut read).unwrap();
            assert!(read == filled(generation), "{kind}: read from who has it");
        }
        put(&pool, 8).unwrap();
        drop(pool);
        // Still so after another opening, until it is resilvered.
        let pool = settled(&[all(kind, &disks)]);
        assert_eq!(states(&pool)[1], MemberState::Resilvering);
        resilver(&pool, 1, 8);
        assert_eq!(pool.status()[0].health, VdevHealth::Online);
        drop(pool);
        let pool = settled(&[all(kind, &disks)]);
        assert!(states(&pool).iter().all(|state| *state == MemberState::Online));
        put(&pool, 9).unwrap();
        drop(pool);
        // Now others may go.
        let spare = count - needed(kind, count);
        let gone: Vec<usize> = (0..count).filter(|leaf| *leaf != 1).take(spare).collect();
        let pool = settled(&[without(kind, &disks, &gone)]);
        (3..=9).for_each(|generation| assert!(is_there(&pool, generation), "{kind}: {generation}"));
    }
}

#[test]
fn too_many_members_that_missed_something_are_refused() {
    for (kind, count) in layouts() {
        let disks = disks(count);
        drop(made(kind, &disks, 3));
        let spare = count - needed(kind, count);
        let late: Vec<usize> = (0..spare).collect();
        let pool = settled(&[without(kind, &disks, &late)]);
        (4..=7).for_each(|generation| put(&pool, generation).unwrap());
        drop(pool);
        // One of those that went on is away: with those that are late there are enough devices, and too few that know.
        let error = opened(&[without(kind, &disks, &[count - 1])]);
        match error {
            Err(
                PoolError::MissingDevice { .. } | PoolError::Insufficient { .. } | PoolError::Stale { .. },
            ) => {}
            Ok((pool, report)) => {
                // Nobody of those that are left knows of the others: they are all that there is.
                assert!(needed(kind, count) == 1 && report.chosen == Generation(3));
                drop(pool);
            }
            Err(error) => panic!("{kind}: {error}"),
        }
        if count - spare > 1 {
            let members = [without(kind, &disks, &[count - 1])];
            assert!(opened(&members).is_err(), "{kind}");
        }
    }
}

#[test]
fn members_that_went_on_without_each_other_are_refused() {
    for count in [2, 3] {
        let disks = disks(count);
        drop(made(VdevKind::Mirror, &disks, 3));
        let others: Vec<usize> = (1..count).collect();
        let pool = settled(&[without(VdevKind::Mirror, &disks, &others)]);
        (4..=6).for_each(|generation| put(&pool, generation).unwrap());
        drop(pool);
        let alone: Vec<Disk> = disks.iter().map(|disk| disk.copy(disk.number)).collect();
        // The others do not know of that: nothing tells them apart from those that are left.
        let pool = settled(&[without(VdevKind::Mirror, &disks, &[0])]);
        (4..=8).for_each(|generation| put(&pool, generation).unwrap());
        drop(pool);
        for degraded in [false, true] {
            let error = open_as(&[all(VdevKind::Mirror, &disks)], Access::ReadWrite, degraded).unwrap_err();
            assert!(
                matches!(&error, PoolError::Diverged { device, .. } if device.starts_with("disk")),
                "{error}"
            );
        }
        // Opened and closed is enough to differ.
        let pool = settled(&[without(VdevKind::Mirror, &alone, &[0])]);
        drop(pool);
        let error = opened(&[all(VdevKind::Mirror, &alone)]).unwrap_err();
        assert!(matches!(&error, PoolError::Diverged { .. }), "{error}");
        // Each part by itself is fine.
        assert!(is_there(&settled(&[without(VdevKind::Mirror, &disks, &[0])]), 8));
        assert!(is_there(&settled(&[without(VdevKind::Mirror, &disks, &others)]), 6));
    }
}

#[test]
fn who_was_lost_twice_over_is_late_and_did_not_go_its_own_way() {
    // C is lost; then B; C comes back and is resilvered; then B comes back, with a label that says that C is lost.
    let disks = disks(3);
    drop(made(VdevKind::Mirror, &disks, 2));
    let pool = settled(&[without(VdevKind::Mirror, &disks, &[2])]);
    put(&pool, 3).unwrap();
    drop(pool);
    let pool = settled(&[without(VdevKind::Mirror, &disks, &[1, 2])]);
    put(&pool, 4).unwrap();
    drop(pool);
    let pool = settled(&[without(VdevKind::Mirror, &disks, &[1])]);
    assert_eq!(states(&pool), [MemberState::Online, MemberState::Missing, MemberState::Resilvering]);
    resilver(&pool, 2, 4);
    put(&pool, 5).unwrap();
    drop(pool);
    let pool = settled(&[all(VdevKind::Mirror, &disks)]);
    assert_eq!(states(&pool), [MemberState::Online, MemberState::Resilvering, MemberState::Online]);
    assert!((1..=5).all(|generation| is_there(&pool, generation)));
}

#[test]
fn an_old_copy_of_a_member_is_late_without_any_label() {
    for (kind, count) in layouts() {
        let disks = disks(count);
        let pool = made(kind, &disks, 3);
        let old = disks[0].copy(0);
        (4..=6).for_each(|generation| put(&pool, generation).unwrap());
        drop(pool);
        let mut mixed: Vec<Disk> = disks.clone();
        mixed[0] = old;
        let pool = settled(&[all(kind, &mixed)]);
        assert_eq!(states(&pool)[0], MemberState::Resilvering);
        (1..=6).for_each(|generation| assert!(is_there(&pool, generation)));
    }
}

#[test]
fn a_vdev_that_is_older_than_the_pool_is_refused() {
    let disks = disks(4);
    let of = |disks: &[&Disk]| {
        vec![group(1, VdevKind::Mirror, &disks[..2]), group(1, VdevKind::Mirror, &disks[2..])]
    };
    let [a, b, c, d] = [&disks[0], &disks[1], &disks[2], &disks[3]];
    let pool = create(&of(&[a, b, c, d]));
    (1..=3).for_each(|generation| commit(&pool, generation));
    let [old_c, old_d] = [c.copy(2), d.copy(3)];
    (4..=6).for_each(|generation| commit(&pool, generation));
    drop(pool);
    let error = opened(&of(&[a, b, &old_c, &old_d])).unwrap_err();
    assert!(
        matches!(&error, PoolError::Stale { device, newest: Generation(3), chosen: Generation(6) } if device == "disk2"),
        "{error}"
    );
    // One of them is enough to know better.
    let (pool, report) = opened(&of(&[a, b, &old_c, d])).unwrap();
    assert_eq!(report.chosen, Generation(6));
    assert_eq!(pool.status()[1].members[0].state, MemberState::Resilvering);
}

#[test]
fn a_loss_is_durable_before_anything_is_acknowledged() {
    for (kind, count) in layouts() {
        for operation in [Operation::Write, Operation::Flush] {
            let disks = disks(count);
            let pool = made(kind, &disks, 4);
            let before: Vec<Vec<u8>> = disks.iter().map(Disk::bytes).collect();
            let ops = record(&disks);
            disks[1].fail(operation, 0, io::ErrorKind::Other);
            pool.write(&slot(&pool, 5), 0, &filled(5)).unwrap();
            if operation == Operation::Flush {
                pool.flush_all().unwrap();
            }
            let ops = ops.lock().clone();
            disks.iter().for_each(|disk| disk.state.lock().ops = None);
            disks[1].heal();
            // The power fails: of what came after a flush nothing is there.
            let durable = |disk: &Disk| {
                let image = Disk::with_bytes(disk.number, before[disk.number].clone());
                let flushed =
                    ops.iter().rposition(|op| matches!(op, Op::Flush { device } if *device == disk.number));
                for op in &ops[..flushed.unwrap_or(0)] {
                    if let Op::Write { device, offset, bytes } = op
                        && *device == disk.number
                    {
                        image.set(*offset, bytes);
                    }
                }
                image
            };
            let after: Vec<Disk> = disks.iter().map(durable).collect();
            let pool = settled(&[all(kind, &after)]);
            assert_eq!(states(&pool)[1], MemberState::Resilvering, "{kind}, {operation}");
            let status = &pool.status()[0].members[1];
            assert_eq!(status.missed_from, Some(Generation(5)));
            assert_eq!(status.errors.write, 1);
            (1..=4).for_each(|generation| assert!(is_there(&pool, generation)));
        }
    }
}

#[test]
fn every_crash_while_a_loss_is_recorded_leaves_a_pool_that_knows_or_has_all() {
    for (kind, count) in [(VdevKind::Mirror, 2), (VdevKind::Parity1, 3)] {
        let disks = disks(count);
        let pool = made(kind, &disks, 4);
        let before: Vec<Vec<u8>> = disks.iter().map(Disk::bytes).collect();
        let ops = record(&disks);
        pool.write(&slot(&pool, 5), 0, &filled(5)).unwrap();
        disks[1].fail(Operation::Flush, 0, io::ErrorKind::Other);
        pool.flush(VdevId(0)).unwrap();
        let acknowledged = ops.lock().len();
        pool.commit(Generation(5), &payload(5)).unwrap();
        let ops = ops.lock().clone();
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (cut, images) in crash_states(&before, &ops) {
            let pool = settled(&[all(kind, &disks_of(&images))]);
            let state = states(&pool)[1];
            assert!(cut < acknowledged || state == MemberState::Resilvering, "cut {cut} of {}", ops.len());
            assert!(cut < ops.len() || pool.committed() == Generation(5));
            (1..=pool.committed().0).for_each(|generation| assert!(is_there(&pool, generation)));
            *seen.entry(if state == MemberState::Online { "online" } else { "late" }).or_default() += 1;
        }
        assert!(seen["online"] > 1 && seen["late"] > 10, "{seen:?}");
    }
}

/// A member that was away for a turn of the ring has superblocks in one slot alone, and gets the newest one there: as long as that
/// one is not whole at one end, the old one says at the other whose device it is.
#[test]
fn every_crash_while_a_member_comes_back_after_a_turn_of_the_ring_leaves_it_known() {
    for (kind, count) in layouts() {
        let disks = disks(count);
        let pool = made(kind, &disks, 1);
        disks[1].fail(Operation::Write, 0, io::ErrorKind::Other);
        (2..=9).for_each(|generation| put(&pool, generation).unwrap());
        drop(pool);
        disks[1].heal();
        let found = dump_device(&*device_of(&disks[1]));
        let has_root = |slot: &&SlotDump| matches!(slot.content, SlotContent::Superblock(_));
        assert_eq!(found.iter().filter(has_root).count(), 2, "{kind}: {found:?}");
        let before: Vec<Vec<u8>> = disks.iter().map(Disk::bytes).collect();
        let ops = record(&disks);
        drop(settled(&[all(kind, &disks)]));
        let ops = ops.lock().clone();
        let mut torn = 0;
        for cut in 0..=ops.len() {
            // Whatever is not flushed is torn, everywhere.
            let (mut images, mut pending) = (before.clone(), vec![Vec::new(); count]);
            for op in &ops[..cut] {
                match op {
                    Op::Write { device, offset, bytes } => {
                        images[*device][*offset..*offset + bytes.len()].copy_from_slice(bytes);
                        pending[*device].push(*offset);
                    }
                    Op::Flush { device } => pending[*device].clear(),
                }
            }
            for (image, offsets) in images.iter_mut().zip(pending) {
                offsets.into_iter().for_each(|offset| image[offset + 64] ^= 0xff);
            }
            let disks = disks_of(&images);
            let found = dump_device(&*device_of(&disks[1]));
            torn += u64::from(found.iter().any(|slot| matches!(slot.content, SlotContent::Invalid(_))));
            // All of them are there, so that no flag is needed.
            let (pool, report) = open_as(&[all(kind, &disks)], Access::ReadWrite, false).unwrap();
            assert!(!report.rolled_back);
            pool.rewrite_chosen(report.chosen).unwrap();
            assert_eq!((pool.committed(), states(&pool)[1]), (Generation(9), MemberState::Resilvering));
            assert!((2..=9).all(|generation| is_there(&pool, generation)));
        }
        assert!(torn > 0, "{kind}");
    }
}

#[test]
fn each_request_of_a_member_fails_and_the_pool_goes_on() {
    for (kind, count) in [(VdevKind::Mirror, 2), (VdevKind::Parity1, 3), (VdevKind::Parity2, 4)] {
        for operation in [Operation::Read, Operation::Write, Operation::Flush] {
            let mut losses = 0;
            for after in 0.. {
                let disks = disks(count);
                drop(made(kind, &disks, 3));
                disks[1].set(at_of(BLOCKS, End::Back, 3), &[0; BLOCK]);
                let (pool, report) = open(&[all(kind, &disks)]).unwrap();
                disks[1].fail(operation, after, io::ErrorKind::Other);
                pool.rewrite_chosen(report.chosen).unwrap();
                put(&pool, 4).unwrap();
                put(&pool, 5).unwrap();
                pool.close().unwrap();
                let untouched = matches!(disks[1].state.lock().fail, Some((_, left, _)) if left > 0);
                let lost = states(&pool)[1] != MemberState::Online;
                disks[1].heal();
                drop(pool);
                let pool = settled(&[all(kind, &disks)]);
                assert_eq!(pool.committed(), Generation(5));
                assert_eq!(states(&pool)[1] != MemberState::Online, lost, "{kind} {operation} {after}");
                losses += usize::from(lost);
                (1..=5).for_each(|generation| assert!(is_there(&pool, generation)));
                if untouched {
                    break;
                }
            }
            assert!(losses > 3 || operation == Operation::Read, "{kind} {operation}: {losses}");
        }
    }
}

/// As [`at`], on a disk of `blocks` blocks.
fn at_of(blocks: u64, end: End, generation: u64) -> usize {
    end.superblock_block(blocks, (generation % RING_SLOTS) as u8) as usize * BLOCK
}

#[test]
fn a_member_dies_and_comes_back_at_any_moment() {
    let seed = 0x51ce;
    println!("seed {seed:#x}");
    let mut rng = SimRng::new(seed);
    let (mut late, mut healed) = (0, 0);
    for round in 0..150 {
        let (kind, count) = layouts()[round % layouts().len()];
        let disks = disks(count);
        let mut newest = 2;
        drop(made(kind, &disks, newest));
        for _ in 0..3 {
            let pool = settled(&[all(kind, &disks)]);
            newest = pool.committed().0;
            for (leaf, state) in states(&pool).into_iter().enumerate() {
                if state == MemberState::Resilvering {
                    late += 1;
                    resilver(&pool, leaf as u8, newest);
                }
            }
            let dying = rng.index(count);
            let operation = if rng.chance(1, 2) { Operation::Write } else { Operation::Flush };
            disks[dying].fail(operation, rng.index(40), io::ErrorKind::Other);
            for _ in 0..1 + rng.below(4) {
                newest += 1;
                put(&pool, newest).unwrap();
            }
            if rng.chance(1, 2) {
                pool.close().unwrap();
            }
            drop(pool);
            disks[dying].heal();
            // One that is not the late one rots a little.
            let pool = settled(&[all(kind, &disks)]);
            let late = states(&pool).iter().position(|state| *state == MemberState::Resilvering);
            let spare = count - needed(kind, count) - usize::from(late.is_some());
            assert!((newest.saturating_sub(6).max(1)..=newest).all(|generation| is_there(&pool, generation)));
            if let Some(rotten) = (0..count).find(|leaf| Some(*leaf) != late).filter(|_| spare > 0) {
                let data = (AREA_BLOCKS as usize..80).map(|block| block * BLOCK);
                data.for_each(|offset| disks[rotten].set(offset + rng.index(BLOCK), &[rng.below(256) as u8]));
                for generation in newest.saturating_sub(6).max(1)..=newest {
                    assert!(is_there(&pool, generation), "{kind}: {generation}");
                    // The parity, too, which a reader does not see.
                    pool.write(&slot(&pool, generation), 0, &filled(generation)).unwrap();
                    healed += 1;
                }
            }
        }
    }
    assert!(late > 50 && healed > 500, "{late} {healed}");
}

#[test]
fn members_are_taken_out_and_brought_back() {
    for (kind, count) in layouts() {
        let disks = disks(count);
        let pool = made(kind, &disks, 2);
        let id = VdevId(0);
        assert!(matches!(pool.offline(id, 99), Err(PoolError::UnknownMember { leaf: 99, .. })));
        assert!(matches!(pool.offline(VdevId(7), 0), Err(PoolError::UnknownVdev(_))));
        let spare = count - needed(kind, count);
        for leaf in 0..spare {
            pool.offline(id, leaf as u8).unwrap();
        }
        let error = pool.offline(id, spare as u8).unwrap_err();
        assert!(
            matches!(&error, PoolError::Indispensable { device, .. } if *device == format!("disk{spare}"))
        );
        let before = disks[0].bytes();
        put(&pool, 3).unwrap();
        assert!(disks[0].bytes() == before, "nothing is written to it");
        pool.close().unwrap();
        drop(pool);
        // Who was taken out stays out, whether it is there or not, and needs no flag.
        for members in [all(kind, &disks), without(kind, &disks, &[0])] {
            let (pool, _) = open(&[members]).unwrap();
            assert_eq!(states(&pool)[0], MemberState::Offline);
            assert!(is_there(&pool, 3));
        }
        let pool = settled(&[without(kind, &disks, &[0])]);
        assert!(matches!(pool.online(id, 0), Err(PoolError::MemberGone { .. })));
        drop(pool);
        let pool = settled(&[all(kind, &disks)]);
        let life = pool.life(id, 0).unwrap();
        assert!(matches!(pool.resilvered(id, 0, life), Err(PoolError::MemberGone { .. })), "it is offline");
        for leaf in 0..spare as u8 {
            pool.online(id, leaf).unwrap();
            assert_eq!(states(&pool)[usize::from(leaf)], MemberState::Resilvering);
            resilver(&pool, leaf, 3);
        }
        put(&pool, 4).unwrap();
        drop(pool);
        let pool = settled(&[all(kind, &disks)]);
        assert_eq!(pool.status()[0].health, VdevHealth::Online);
        (1..=4).for_each(|generation| assert!(is_there(&pool, generation)));
    }
}

#[test]
fn another_device_takes_the_place_of_a_member() {
    for (kind, count) in layouts() {
        let disks = disks(count);
        let fresh = create(&[all(kind, &disks)]);
        let id = VdevId(0);
        let new = Disk::new(30, BLOCKS + 20);
        let device = |disk: &Disk| on(1, disk).leaves.remove(0).device.unwrap();
        assert!(matches!(fresh.replace(id, 0, device(&new), false), Err(PoolError::NotCommitted)));
        drop(fresh);
        disks.iter().for_each(|disk| disk.set(0, &vec![0; BLOCKS as usize * BLOCK]));
        let pool = made(kind, &disks, 3);
        let small = Disk::new(31, BLOCKS - 1);
        assert!(matches!(pool.replace(id, 0, device(&small), false), Err(PoolError::TooSmall { .. })));
        let used = Disk::with_bytes(32, vec![1; BLOCKS as usize * BLOCK]);
        assert!(matches!(pool.replace(id, 0, device(&used), false), Err(PoolError::NotEmpty { .. })));
        assert_eq!(states(&pool)[0], MemberState::Online, "nothing has changed");

        pool.replace(id, 0, device(&new), false).unwrap();
        put(&pool, 4).unwrap();
        drop(pool);
        let mut now = disks.clone();
        now[0] = new.clone();
        let error = opened(&[all(kind, &disks)]).unwrap_err();
        assert!(
            matches!(&error, PoolError::Replaced { device, leaf: 0, .. } if device == "disk0"),
            "{error}"
        );
        let pool = settled(&[all(kind, &now)]);
        let status = &pool.status()[0].members[0];
        assert_eq!((status.state, status.missed_from), (MemberState::Resilvering, Some(Generation(1))));
        resilver(&pool, 0, 4);
        put(&pool, 5).unwrap();
        drop(pool);
        let spare = count - needed(kind, count);
        let gone: Vec<usize> = (1..=spare).collect();
        let pool = settled(&[without(kind, &now, &gone)]);
        (1..=5).for_each(|generation| assert!(is_there(&pool, generation), "{kind}"));
        drop(pool);
        // A member that is long gone is replaced as well.
        let another = Disk::new(33, BLOCKS);
        let pool = settled(&[without(kind, &now, &gone)]);
        pool.replace(id, 1, device(&another), false).unwrap();
        resilver(&pool, 1, 5);
        drop(pool);
        now[1] = another;
        let pool = settled(&[without(kind, &now, &gone[1..])]);
        assert_eq!(states(&pool)[..2], [MemberState::Online; 2]);
    }
}

#[test]
fn every_crash_while_a_device_is_replaced_leaves_one_of_both() {
    let disks = disks(2);
    let pool = made(VdevKind::Mirror, &disks, 3);
    let new = Disk::new(2, BLOCKS);
    let three = [disks[0].clone(), disks[1].clone(), new.clone()];
    let before: Vec<Vec<u8>> = three.iter().map(Disk::bytes).collect();
    let ops = record(&three);
    let device = on(1, &new).leaves.remove(0).device.unwrap();
    pool.replace(VdevId(0), 1, device, false).unwrap();
    let ops = ops.lock().clone();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (cut, images) in crash_states(&before, &ops) {
        let disks = disks_of(&images);
        let old_way = opened(&[group(1, VdevKind::Mirror, &[&disks[0], &disks[1]])]);
        let new_way = opened(&[group(1, VdevKind::Mirror, &[&disks[0], &disks[2]])]);
        for (pool, _) in [&old_way, &new_way].into_iter().flatten() {
            assert!(is_there(pool, 3) && states(pool)[0] == MemberState::Online);
        }
        assert!(old_way.is_ok() || new_way.is_ok(), "cut {cut}");
        let is_new = new_way.is_ok_and(|(pool, _)| states(&pool)[1] == MemberState::Resilvering);
        assert!(cut < ops.len() || (is_new && old_way.is_err()));
        *seen.entry(if is_new { "new" } else { "old" }).or_default() += 1;
    }
    assert!(seen["new"] > 2 && seen["old"] > 2, "{seen:?}");
}

#[test]
fn what_went_wrong_is_counted_for_life() {
    let disks = disks(2);
    let pool = made(VdevKind::Mirror, &disks, 2);
    let status = |pool: &Pool| -> MemberStatus { pool.status()[0].members[0].clone() };
    let offset = slot(&pool, 2).block as usize * BLOCK;
    disks[0].set(offset, &[0xff; 100]);
    // The copy that is read first is one of both; who finds it wrong has it repaired.
    let want = filled(2);
    let mut read = vec![0; want.len()];
    let healing = pool.recover(&slot(&pool, 2), 0, &mut read, &mut |read| read == want).unwrap().unwrap();
    assert_eq!((healing.repaired, healing.unrepaired), (1, 0));
    disks[0].state.lock().unreadable.insert(slot(&pool, 1).block as usize);
    assert!(is_there(&pool, 1) || !is_there(&pool, 1));
    let mut ignored = vec![0; 6 * BLOCK];
    let _any = pool.recover(&slot(&pool, 1), 0, &mut ignored, &mut |read| read == filled(1));
    let counted = status(&pool).errors;
    assert!(counted.checksum >= 1 && counted.repaired >= 1 && counted.read >= 1 && counted.write == 0);
    disks[0].state.lock().unreadable.clear();
    pool.close().unwrap();
    drop(pool);
    let pool = settled(&[all(VdevKind::Mirror, &disks)]);
    assert_eq!(status(&pool).errors, counted);
    pool.clear_errors(VdevId(0), 0).unwrap();
    drop(pool);
    let pool = settled(&[all(VdevKind::Mirror, &disks)]);
    assert_eq!(status(&pool).errors, Default::default());
    let metrics = &pool.metrics()[0];
    assert_eq!(metrics.members.len(), 2);
    assert_eq!(
        metrics.reads.requests,
        metrics.members.iter().map(|member| member.reads.requests).sum::<u64>()
    );

    // A device of its own counts, too, as soon as there is something to count.
    let disk = committed(3);
    let labels = |disk: &Disk| {
        let bytes = disk.bytes();
        (0..LABEL_SLOTS as usize)
            .filter(|slot| MembershipLabel::decode(&bytes[slot * BLOCK..][..BLOCK]).is_ok())
            .count()
    };
    let pool = reopen(&[on(1, &disk)], 3);
    disk.state.lock().unreadable.insert(30);
    pool.read(&blocks_at(0, 30), 0, &mut [0; BLOCK]).unwrap_err();
    assert_eq!(labels(&disk), 0);
    commit(&pool, 4);
    assert_eq!(labels(&disk), 1);
    drop(pool);
    let pool = reopen(&[on(1, &disk)], 4);
    let VdevStatus { health, members, .. } = pool.status().remove(0);
    assert_eq!(
        (health, members[0].errors.read, members[0].state),
        (VdevHealth::Online, 1, MemberState::Online)
    );
}

#[test]
fn memory_in_a_group_starts_empty_and_counts_for_nothing() {
    let disks = disks(3);
    let memory = || memory(1).leaves.remove(0);
    let with_memory = |kind, disks: &[Disk]| {
        let mut group = all(kind, disks);
        group.leaves.push(memory());
        group
    };
    for (kind, durable) in
        [(VdevKind::Mirror, 1), (VdevKind::Mirror, 2), (VdevKind::Parity1, 3), (VdevKind::Parity2, 3)]
    {
        let disks: Vec<Disk> = disks[..durable].iter().map(|disk| Disk::new(disk.number, BLOCKS)).collect();
        let pool = create(&[with_memory(kind, &disks)]);
        (1..=3).for_each(|generation| put(&pool, generation).unwrap());
        pool.close().unwrap();
        drop(pool);
        let (pool, _) = open(&[with_memory(kind, &disks)]).unwrap();
        assert_eq!(states(&pool)[durable], MemberState::Resilvering);
        let member = &pool.status()[0].members[durable];
        assert!(member.is_volatile && member.device.is_none());
        assert_eq!(pool.status()[0].health, VdevHealth::Online);
        pool.rewrite_chosen(Generation(3)).unwrap();
        (1..=3).for_each(|generation| assert!(is_there(&pool, generation)));
        resilver(&pool, durable as u8, 3);
        assert_eq!(states(&pool)[durable], MemberState::Online);
        // It may be read from, and does not make up for a device.
        let is_enough = durable > needed(kind, durable + 1);
        assert_eq!(pool.offline(VdevId(0), 0).is_ok(), is_enough, "{kind} of {durable} and memory");
        drop(pool);
        let error = open(&[all(kind, &disks)]).unwrap_err();
        assert!(matches!(error, PoolError::LayoutMismatch { .. }), "{error}");
    }
    let error = create_with(
        &[VdevDevices {
            tier: 1,
            kind: VdevKind::Parity1,
            leaves: vec![memory(), memory(), on(1, &disks[0]).leaves.remove(0)],
        }],
        64,
        false,
    );
    assert!(matches!(error, Err(PoolError::TooMuchMemory { memory: 2, limit: 1, .. })));
    let pool = create(&[VdevDevices { tier: 1, kind: VdevKind::Mirror, leaves: vec![memory(), memory()] }]);
    assert!(pool.is_volatile());
    commit(&pool, 1);
    let many = VdevDevices { tier: 1, kind: VdevKind::Mirror, leaves: (0..17).map(|_| memory()).collect() };
    assert!(matches!(create_with(&[many], 64, false), Err(PoolError::TooManyLeaves { count: 17, .. })));
}

#[test]
fn a_vdev_grows_when_all_its_leaves_have() {
    for (kind, count) in layouts() {
        let disks: Vec<Disk> = (0..count).map(|number| Disk::new(number, BLOCKS + number as u64)).collect();
        let pool = made(kind, &disks, 3);
        let columns = u64::from(pool.vdevs()[0].geometry().columns());
        assert_eq!(pool.vdevs()[0].blocks, BLOCKS * columns, "as long as the shortest");
        drop(pool);
        for disk in &disks[1..] {
            disk.grow(200);
        }
        let pool = settled(&[all(kind, &disks)]);
        assert_eq!(pool.vdevs()[0].blocks, BLOCKS * columns, "one has not grown");
        put(&pool, 4).unwrap();
        drop(pool);
        // Without one of them nobody knows whether it would.
        disks[0].grow(180);
        let pool = settled(&[without(kind, &disks, &[count - 1])]);
        assert_eq!(pool.vdevs()[0].blocks, BLOCKS * columns);
        put(&pool, 5).unwrap();
        drop(pool);
        let pool = settled(&[all(kind, &disks)]);
        resilver(&pool, count as u8 - 1, 5);
        drop(pool);
        let pool = settled(&[all(kind, &disks)]);
        assert_eq!(pool.vdevs()[0].blocks, 180 * columns);
        let reserved = pool.reserved_ranges(VdevId(0)).unwrap().to_vec();
        let is_reserved = |block: u64| reserved.iter().any(|range| range.contains(&(block * columns)));
        // Both ends, where the back areas of each of them were, and are.
        let areas = (0..16).chain(BLOCKS - 16..BLOCKS + count as u64 - 1).chain(164..180);
        for block in areas {
            assert!(is_reserved(block), "{kind}: block {block} of {reserved:?}");
        }
        assert!(!is_reserved(16) && !is_reserved(BLOCKS + count as u64));
        put(&pool, 6).unwrap();
        drop(pool);
        // The length is that of the vdev, whoever is there.
        let pool = settled(&[without(kind, &disks, &[0])]);
        assert_eq!(pool.vdevs()[0].blocks, 180 * columns);
        assert_eq!(pool.reserved_ranges(VdevId(0)).unwrap(), reserved);
        assert!((1..=6).all(|generation| is_there(&pool, generation)));
        drop(pool);
        disks[1].state.lock().bytes.truncate(170 * BLOCK);
        assert!(matches!(opened(&[all(kind, &disks)]), Err(PoolError::Shorter { .. })));
    }
}

#[test]
fn labels_that_are_damaged_everywhere_do_not_make_a_late_member_current() {
    let disks = disks(2);
    drop(made(VdevKind::Mirror, &disks, 3));
    let pool = settled(&[without(VdevKind::Mirror, &disks, &[1])]);
    (4..=5).for_each(|generation| put(&pool, generation).unwrap());
    drop(pool);
    // It takes writes again, so that it has the newest superblocks, and lacks what it missed.
    let pool = settled(&[all(VdevKind::Mirror, &disks)]);
    (6..=7).for_each(|generation| put(&pool, generation).unwrap());
    drop(pool);
    for disk in &disks {
        for end in End::BOTH {
            let first = end.area(BLOCKS).start;
            (first..first + LABEL_SLOTS).for_each(|block| disk.set(block as usize * BLOCK + 300, &[0xaa; 9]));
        }
    }
    let pool = settled(&[all(VdevKind::Mirror, &disks)]);
    assert_eq!(states(&pool), [MemberState::Online, MemberState::Resilvering], "the superblocks know");
    assert!((4..=7).all(|generation| is_there(&pool, generation)));
}

/// Labels at the front of a disk, the newest first.
fn labels_of(disk: &Disk) -> Vec<MembershipLabel> {
    let bytes = disk.bytes();
    let slots =
        (0..LABEL_SLOTS as usize).map(|slot| MembershipLabel::decode(&bytes[slot * BLOCK..][..BLOCK]));
    let mut labels: Vec<MembershipLabel> = slots.flatten().collect();
    labels.sort_by_key(|label| std::cmp::Reverse(label.number));
    labels
}

fn device_of(disk: &Disk) -> Arc<dyn BlockDevice> {
    on(1, disk).leaves.remove(0).device.unwrap()
}

#[test]
fn label_areas_are_kept_free_beside_memory_that_is_shorter() {
    let id = VdevId(0);
    let with_memory = |disk: &Disk, blocks: u64| {
        let mut mirror = group(1, VdevKind::Mirror, &[disk]);
        let memory: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(blocks * BLOCK as u64));
        mirror.leaves.push(LeafDevice { name: "memory".to_owned(), device: Some(memory) });
        mirror
    };
    let disk = Disk::new(0, 192);
    let members = || [with_memory(&disk, 96)];
    let pool = create(&members());
    let is_reserved = |pool: &Pool, block: u64| {
        pool.reserved_ranges(id).unwrap().iter().any(|range| range.contains(&block))
    };
    assert!((0..AREA_BLOCKS).all(|block| is_reserved(&pool, block)));
    commit(&pool, 1);
    assert_eq!(labels_of(&disk).len(), 1, "the first commit writes the first label");
    drop(pool);
    let (pool, _) = open(&members()).unwrap();
    assert!((0..AREA_BLOCKS).all(|block| is_reserved(&pool, block)));
    drop(pool);

    // A device whose back area begins elsewhere than those before has it where no data is.
    let disk = Disk::new(0, 260);
    let pool = create(&[with_memory(&disk, 256)]);
    commit(&pool, 1);
    for blocks in 256..280 {
        let area = End::Back.area(blocks);
        assert!(area.filter(|block| *block < 256).all(|block| is_reserved(&pool, block)), "{blocks}");
    }
}

#[test]
fn who_is_resilvered_has_the_root_before_anybody_relies_on_it() {
    for (kind, count) in layouts() {
        let disks = disks(count);
        let pool = made(kind, &disks, 2);
        let spare = count - needed(kind, count);
        let back: Vec<usize> = (0..spare).collect();
        back.iter().for_each(|leaf| pool.offline(VdevId(0), *leaf as u8).unwrap());
        put(&pool, 3).unwrap();
        for leaf in &back {
            pool.online(VdevId(0), *leaf as u8).unwrap();
            resilver(&pool, *leaf as u8, 3);
        }
        // No commit: others fail, and what was acknowledged is with those that came back.
        let failing: Vec<usize> = (spare..count.min(2 * spare)).collect();
        for leaf in &failing {
            disks[*leaf].fail(Operation::Write, 0, io::ErrorKind::Other);
            pool.write(&slot(&pool, 3), 0, &filled(3)).unwrap();
            pool.flush_all().unwrap();
        }
        drop(pool);
        let (pool, report) = opened(&[without(kind, &disks, &failing)]).unwrap();
        assert_eq!((report.chosen, report.rolled_back), (Generation(3), false), "{kind} of {count}");
        pool.rewrite_chosen(report.chosen).unwrap();
        assert!((1..=3).all(|generation| is_there(&pool, generation)), "{kind} of {count}");
    }
}

#[test]
fn who_was_lost_again_while_it_was_resilvered_is_not_whole() {
    let disks = disks(2);
    let pool = made(VdevKind::Mirror, &disks, 2);
    let id = VdevId(0);
    pool.offline(id, 0).unwrap();
    pool.online(id, 0).unwrap();
    let first = pool.life(id, 0).unwrap();
    pool.offline(id, 0).unwrap();
    put(&pool, 3).unwrap();
    pool.online(id, 0).unwrap();
    assert!(matches!(pool.resilvered(id, 0, first), Err(PoolError::MemberGone { leaf: 0, .. })));
    let second = pool.life(id, 0).unwrap();
    pool.replace(id, 0, device_of(&Disk::new(2, BLOCKS)), false).unwrap();
    for life in [first, second] {
        assert!(matches!(pool.resilvered(id, 0, life), Err(PoolError::MemberGone { leaf: 0, .. })));
        assert_eq!(states(&pool)[0], MemberState::Resilvering);
    }
    resilver(&pool, 0, 3);
    assert_eq!(states(&pool)[0], MemberState::Online);
}

#[test]
fn who_comes_back_with_a_root_that_was_given_up_is_not_opened_at_it() {
    let disks = disks(2);
    let pool = made(VdevKind::Mirror, &disks, 2);
    let id = VdevId(0);
    pool.offline(id, 0).unwrap();
    drop(pool);
    // Somebody writes a root to the member that is offline, as a commit does that is cut short.
    let newer = {
        let other = self::disks(2);
        other.iter().zip(&disks).for_each(|(to, from)| to.set(0, &from.bytes()));
        let pool = settled(&[all(VdevKind::Mirror, &other)]);
        pool.online(id, 0).unwrap();
        pool.commit(Generation(3), b"given up").unwrap();
        drop(pool);
        let at = at_of(BLOCKS, End::Front, 3);
        other[0].bytes()[at..at + BLOCK].to_vec()
    };
    disks[0].set(at_of(BLOCKS, End::Front, 3), &newer);
    let pool = settled(&[all(VdevKind::Mirror, &disks)]);
    assert_eq!(pool.committed(), Generation(2));
    pool.online(id, 0).unwrap();
    resilver(&pool, 0, 2);
    disks[1].fail(Operation::Write, 0, io::ErrorKind::Other);
    pool.write(&slot(&pool, 2), 0, &filled(2)).unwrap();
    drop(pool);
    let (_, report) = opened(&[without(VdevKind::Mirror, &disks, &[1])]).unwrap();
    assert_eq!(report.candidates[0].payload, payload(2));
}

#[test]
fn a_label_that_one_member_alone_has_does_not_outrank_the_others() {
    // A power failure cuts a label short that says nothing new: only A has it. Then A is away, and comes back.
    let disks = disks(2);
    let pool = made(VdevKind::Mirror, &disks, 3);
    let b = disks[1].bytes();
    pool.clear_errors(VdevId(0), 0).unwrap();
    drop(pool);
    disks[1].set(0, &b);
    let pool = settled(&[without(VdevKind::Mirror, &disks, &[0])]);
    put(&pool, 4).unwrap();
    drop(pool);
    for order in permutations(2) {
        let members: Vec<&Disk> = order.iter().map(|disk| &disks[*disk]).collect();
        let (pool, report) = open(&[group(1, VdevKind::Mirror, &members)]).unwrap();
        assert_eq!(report.chosen, Generation(4));
        assert_eq!(states(&pool), [MemberState::Resilvering, MemberState::Online], "{order:?}");
    }
}

#[test]
fn of_labels_with_the_same_number_none_is_believed_against_another() {
    // A and B are opened without C, and a crash leaves the label of that on A alone; then B and C without A.
    let disks = disks(3);
    drop(made(VdevKind::Mirror, &disks, 3));
    let b = disks[1].bytes();
    drop(settled(&[without(VdevKind::Mirror, &disks, &[2])]));
    disks[1].set(0, &b);
    let pool = settled(&[without(VdevKind::Mirror, &disks, &[0])]);
    let extent = slot(&pool, 4);
    pool.write(&extent, 0, &filled(4)).unwrap();
    pool.flush_all().unwrap();
    drop(pool);
    for order in permutations(3) {
        let members: Vec<&Disk> = order.iter().map(|disk| &disks[*disk]).collect();
        let pool = settled_copy(&members);
        let [a, b, _] = states(&pool)[..] else { unreachable!() };
        assert_eq!((a, b), (MemberState::Resilvering, MemberState::Online), "{order:?}");
        let mut read = vec![0; 6 * BLOCK];
        pool.read(&extent, 0, &mut read).unwrap();
        assert!(read == filled(4));
    }
}

/// A mirror of copies of `disks`, in the order given.
fn settled_copy(disks: &[&Disk]) -> Pool {
    let copies: Vec<Disk> = disks.iter().map(|disk| disk.copy(disk.number)).collect();
    settled(&[group(1, VdevKind::Mirror, &copies.iter().collect::<Vec<_>>())])
}

#[test]
fn an_older_copy_of_a_late_member_lacks_more_than_its_label_says() {
    for offline in [false, true] {
        let disks = disks(2);
        let pool = made(VdevKind::Mirror, &disks, 2);
        let old = disks[0].bytes();
        (3..=6).for_each(|generation| put(&pool, generation).unwrap());
        if offline {
            pool.offline(VdevId(0), 0).unwrap();
        }
        drop(pool);
        let pool = settled(&[without(VdevKind::Mirror, &disks, &[0])]);
        put(&pool, 7).unwrap();
        drop(pool);
        disks[0].set(0, &old);
        let pool = settled(&[all(VdevKind::Mirror, &disks)]);
        let state = if offline { MemberState::Offline } else { MemberState::Resilvering };
        let status = &pool.status()[0].members[0];
        assert_eq!((status.state, status.missed_from), (state, Some(Generation(3))));
    }
}

#[test]
fn an_absent_member_lacks_what_superblocks_say_when_no_label_is_left() {
    let disks = disks(3);
    let pool = made(VdevKind::Mirror, &disks, 3);
    pool.offline(VdevId(0), 2).unwrap();
    (4..=8).for_each(|generation| put(&pool, generation).unwrap());
    drop(pool);
    for disk in &disks {
        for end in End::BOTH {
            let first = end.area(BLOCKS).start;
            (first..first + LABEL_SLOTS).for_each(|block| disk.set(block as usize * BLOCK + 300, &[0xaa; 9]));
        }
    }
    let pool = settled(&[without(VdevKind::Mirror, &disks, &[2])]);
    assert_eq!(pool.status()[0].members[2].missed_from, Some(Generation(4)));
}

#[test]
fn a_member_that_fails_while_a_pool_is_made_is_missing_and_no_memory() {
    for (kind, count) in layouts() {
        let disks = disks(count);
        disks[0].fail(Operation::Write, 0, io::ErrorKind::Other);
        let pool = create(&[all(kind, &disks)]);
        (1..=3).for_each(|generation| put(&pool, generation).unwrap());
        drop(pool);
        disks[0].heal();
        for members in [all(kind, &disks), without(kind, &disks, &[0])] {
            let pool = settled(&[members]);
            assert!(!pool.status()[0].members[0].is_volatile);
            assert_eq!(pool.status()[0].health, VdevHealth::Degraded, "{kind} of {count}");
            assert!((1..=3).all(|generation| is_there(&pool, generation)));
        }
        // Superblocks alone do not make it memory either.
        for disk in &disks {
            for end in End::BOTH {
                let first = end.area(BLOCKS).start;
                (first..first + LABEL_SLOTS)
                    .for_each(|block| disk.set(block as usize * BLOCK + 300, &[0xaa; 9]));
            }
        }
        let pool = settled(&[without(kind, &disks, &[0])]);
        assert_eq!(states(&pool)[0], MemberState::Missing);
        assert_eq!(pool.status()[0].members[0].missed_from, Some(Generation(1)));
    }
}

#[test]
fn who_was_lost_before_others_came_back_did_not_go_its_own_way() {
    // X is lost, then D; X comes back and is made good; then Y is lost, so that all that D counts on is X, which it knows
    // to be lost.
    let disks = disks(3);
    let kind = VdevKind::Mirror;
    drop(made(kind, &disks, 2));
    let pool = settled(&[without(kind, &disks, &[0])]);
    (3..=4).for_each(|generation| put(&pool, generation).unwrap());
    drop(pool);
    let pool = settled(&[without(kind, &disks, &[0, 2])]);
    put(&pool, 5).unwrap();
    drop(pool);
    let pool = settled(&[without(kind, &disks, &[2])]);
    resilver(&pool, 0, 5);
    put(&pool, 6).unwrap();
    drop(pool);
    let pool = settled(&[without(kind, &disks, &[1, 2])]);
    put(&pool, 7).unwrap();
    drop(pool);
    for missing in [&[][..], &[1]] {
        let copies: Vec<Disk> = disks.iter().map(|disk| disk.copy(disk.number)).collect();
        let pool = settled(&[without(kind, &copies, missing)]);
        assert_eq!((states(&pool)[0], states(&pool)[2]), (MemberState::Online, MemberState::Resilvering));
        assert!((1..=7).all(|generation| is_there(&pool, generation)));
    }
    // It did, when it wrote a root that nobody else has.
    let pool = settled(&[without(kind, &disks, &[0])]);
    (5..=6).for_each(|generation| put(&pool, generation + 10).unwrap());
    drop(pool);
    let error = opened(&[all(kind, &disks)]).unwrap_err();
    assert!(matches!(&error, PoolError::Diverged { .. }), "{error}");
}

#[test]
fn a_replacement_overwrites_no_label_that_is_the_newest_of_a_member() {
    for (kind, count) in layouts() {
        let disks = disks(count);
        let pool = made(kind, &disks, 3);
        let new = Disk::new(30, BLOCKS);
        pool.replace(VdevId(0), 0, device_of(&new), false).unwrap();
        for disk in &disks[1..] {
            let [newest, before] = &labels_of(disk)[..] else { unreachable!() };
            assert_eq!(newest.members[0].state, MemberState::Resilvering);
            assert_eq!(before.members[0].state, MemberState::Offline, "{kind}: the label before is whole");
        }
        let [newest, before] = &labels_of(&new)[..] else { unreachable!() };
        assert_eq!(newest.number, labels_of(&disks[1])[0].number);
        assert_eq!(before.members[0].device, newest.members[0].device);
    }
}

/// The new device fails at any moment: no label that it has outranks a later one of the pool.
#[test]
fn who_could_not_take_a_place_outranks_nobody() {
    for nth in 1..8 {
        let disks = disks(3);
        let pool = made(VdevKind::Mirror, &disks, 3);
        let sim = SimDisk::new("new", BLOCKS * BLOCK as u64, &SimClock::new(1));
        sim.arm(Fault::FlushError { nth, sticky: true, after: FlushFailure::KeepVisible });
        let taken = pool.replace(VdevId(0), 1, Arc::new(sim.device()), false);
        if taken.is_ok() {
            assert!(nth > 2, "the new device was flushed");
            continue;
        }
        pool.clear_errors(VdevId(0), 0).unwrap();
        let own = crate::pool::label::scan(&sim.device()).label().map_or(0, |label| label.number);
        assert!(labels_of(&disks[0])[0].number > own, "flush {nth}");
    }
}

#[test]
fn a_root_between_the_newest_and_the_one_before_is_of_another_history() {
    let disks = disks(2);
    drop(made(VdevKind::Mirror, &disks, 4));
    let copies: Vec<Disk> = disks.iter().map(|disk| disk.copy(disk.number)).collect();
    // One goes on to 5, the other from 4 to 7; neither has a label of that.
    let labels: Vec<Vec<u8>> = disks.iter().map(Disk::bytes).collect();
    let pool = settled(&[all(VdevKind::Mirror, &disks)]);
    pool.commit(Generation(5), b"another history").unwrap();
    drop(pool);
    let pool = settled(&[all(VdevKind::Mirror, &copies)]);
    put(&pool, 7).unwrap();
    drop(pool);
    assert!(labels_of(&disks[0])[0] == labels_of(&copies[0])[0], "labels do not tell");
    assert!(labels[0] != disks[0].bytes());
    let pool = settled(&[group(1, VdevKind::Mirror, &[&disks[0], &copies[1]])]);
    assert_eq!(pool.committed(), Generation(7));
    assert_eq!(states(&pool), [MemberState::Resilvering, MemberState::Online]);
    assert_eq!(pool.status()[0].members[0].missed_from, Some(Generation(1)));
}

#[test]
fn a_label_with_a_number_beyond_all_is_none() {
    let disks = disks(2);
    drop(made(VdevKind::Mirror, &disks, 3));
    for disk in &disks {
        for end in End::BOTH {
            for slot in 0..LABEL_SLOTS {
                let offset = (end.area(BLOCKS).start + slot) as usize * BLOCK;
                let Ok(label) = MembershipLabel::decode(&disk.bytes()[offset..offset + BLOCK]) else {
                    continue;
                };
                let number = u64::MAX - 1 + label.number % 2;
                disk.set(offset, &MembershipLabel { number, ..label }.encode());
            }
        }
    }
    let pool = settled(&[all(VdevKind::Mirror, &disks)]);
    pool.clear_errors(VdevId(0), 0).unwrap();
    pool.clear_errors(VdevId(0), 0).unwrap();
    assert!(labels_of(&disks[0])[0].number < 1 << 62);
}

/// Each bug of redundancy makes one of the tests above fail.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_of_redundancy_are_caught() {
    use crate::base::planted::{Bug, plant};
    let hunts: [(Bug, fn()); 3] = [
        (Bug::AcknowledgeUnrecordedLoss, a_loss_is_durable_before_anything_is_acknowledged),
        (Bug::TrustStaleMember, a_member_that_missed_something_is_recognised_and_made_good),
        (Bug::SkipLastParity, super::groups::every_length_is_read_back_whoever_is_missing),
    ];
    for (bug, hunt) in hunts {
        plant(bug, true);
        let caught = std::panic::catch_unwind(hunt).is_err();
        plant(bug, false);
        assert!(caught, "{bug:?} was not caught");
    }
}
