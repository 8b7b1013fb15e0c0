//! Vdevs that come to a pool that there is.

use super::*;

const LAYOUTS: [(VdevKind, usize); 3] = [(VdevKind::Leaf, 1), (VdevKind::Mirror, 2), (VdevKind::Parity1, 3)];

fn group(kind: VdevKind, disks: &[Disk]) -> VdevDevices {
    VdevDevices { tier: 2, kind, leaves: disks.iter().map(|disk| on(2, disk).leaves.remove(0)).collect() }
}

fn adding(old: &[Disk], new: &[VdevDevices], force: bool) -> Result<(Pool, OpenReport), PoolError> {
    let options = OpenOptions { access: Access::ReadWrite, degraded: false, threads: 0 };
    Pool::open_adding_on(&all_on(1, old), new, options, force)
}

fn whole(old: &[Disk], kind: VdevKind, new: &[Disk]) -> Vec<VdevDevices> {
    [all_on(1, old), vec![group(kind, new)]].concat()
}

/// Two disks with a pool of nine commits, and as many empty ones as are asked for.
fn disks(count: usize) -> (Vec<Disk>, Vec<Disk>) {
    let old: Vec<Disk> = (0..2).map(|number| Disk::new(number, DEVICE_BLOCKS_MIN)).collect();
    let pool = create(&all_on(1, &old));
    (1..=9).for_each(|generation| commit(&pool, generation));
    let new = (2..2 + count).map(|number| Disk::new(number, DEVICE_BLOCKS_MIN + 16)).collect();
    (old, new)
}

#[test]
fn a_vdev_belongs_to_the_pool_from_the_next_commit_on() {
    for (kind, count) in LAYOUTS {
        let (old, new) = disks(count);
        let (pool, report) = adding(&old, &[group(kind, &new)], false).unwrap();
        pool.rewrite_chosen(report.chosen).unwrap();
        let ids: Vec<(u32, u8)> = pool.vdevs().iter().map(|vdev| (vdev.id.0, vdev.tier)).collect();
        assert_eq!(ids, [(0, 1), (1, 1), (2, 2)]);
        // Until then the pool is what it was.
        assert_eq!(open(&all_on(1, &old)).unwrap().1.chosen, Generation(9));
        let extent = Extent { vdev: VdevId(2), block: 48, blocks: 6 };
        pool.write(&extent, 0, &[7; 3 * BLOCK]).unwrap();
        commit(&pool, 10);
        drop(pool);
        let alone = open(&all_on(1, &old)).map(drop);
        assert!(matches!(alone, Err(PoolError::MissingDevice { vdev: VdevId(2), .. })), "{alone:?}");
        let pool = reopen(&whole(&old, kind, &new), 10);
        let mut read = vec![0; 3 * BLOCK];
        pool.read(&extent, 0, &mut read).unwrap();
        assert!(read == [7; 3 * BLOCK]);
        commit(&pool, 11);
        drop(pool);
        assert_eq!(open(&whole(&old, kind, &new)).unwrap().1.chosen, Generation(11));
    }
}

#[test]
fn what_cannot_be_added_is_refused_and_changes_nothing() {
    let (old, new) = disks(1);
    let add = |new: &[VdevDevices]| adding(&old, new, false).map(drop).unwrap_err();
    assert!(matches!(add(&[]), PoolError::NoVdevs));
    let many: Vec<VdevDevices> =
        (0..95).map(|number| on(2, &Disk::new(2 + number, DEVICE_BLOCKS_MIN))).collect();
    assert!(matches!(add(&many), PoolError::TooManyVdevs { count: 97, .. }));
    assert!(adding(&old, &many[..94], false).is_ok());
    assert!(matches!(add(&[on(2, &Disk::new(2, 10))]), PoolError::TooSmall { .. }));
    assert!(matches!(add(&[on(2, &committed(3))]), PoolError::NotEmpty { .. }));
    assert!(matches!(add(&[on(2, &old[0])]), PoolError::NotEmpty { .. }));
    let none = LeafDevice { name: "none".to_owned(), device: None };
    assert!(matches!(
        add(&[VdevDevices { tier: 2, kind: VdevKind::Leaf, leaves: vec![none] }]),
        PoolError::NotFound { .. }
    ));
    assert!(new[0].bytes().iter().all(|byte| *byte == 0));
    assert_eq!(open(&all_on(1, &old)).unwrap().1.chosen, Generation(9));
}

/// Whichever devices are named, the old ones or all: with one of them the pool opens, as it was before or after.
fn check(old: &[Disk], kind: VdevKind, new: &[Disk], allowed: &[u64], at: usize) -> (bool, bool) {
    let as_old = open(&all_on(1, old));
    let as_new = open(&whole(old, kind, new));
    for (pool, report) in as_old.iter().chain(&as_new) {
        let chosen = report.chosen.0;
        assert!(allowed.contains(&chosen), "cut {at}: {chosen}");
        assert_eq!(report.candidates[0].payload, payload(chosen));
        let has_all = pool.vdevs().len() == 3;
        assert_eq!(has_all, chosen > 9, "cut {at}: {} vdevs at {chosen}", pool.vdevs().len());
    }
    assert!(as_old.is_ok() || as_new.is_ok(), "cut {at}: {:?} {:?}", as_old.err(), as_new.err());
    (as_old.is_ok(), as_new.is_ok())
}

#[test]
fn every_crash_while_a_vdev_joins_leaves_the_old_or_the_new_pool() {
    for (kind, count) in &LAYOUTS[..2] {
        let (old, new) = disks(*count);
        let all = [&old[..], &new[..]].concat();
        let before: Vec<Vec<u8>> = all.iter().map(Disk::bytes).collect();
        let ops = record(&all);
        let (pool, report) = adding(&old, &[group(*kind, &new)], false).unwrap();
        pool.rewrite_chosen(report.chosen).unwrap();
        commit(&pool, 10);
        let ops = ops.lock().clone();
        let (mut both, mut states) = (0, 0);
        for (cut, images) in crash_states(&before, &ops) {
            states += 1;
            let disks = disks_of(&images);
            let (old, new) = disks.split_at(2);
            let (as_old, as_new) = check(old, *kind, new, &[9, 10], cut);
            both += usize::from(as_old && as_new);
            assert!(cut < ops.len() || (as_new && !as_old), "an acknowledged commit was lost");
            if !as_old {
                continue;
            }
            // Who goes on without it does not meet it again unasked.
            let pool = reopen(&all_on(1, old), 9);
            pool.commit(Generation(10), b"another").unwrap();
            drop(pool);
            assert!(open(&whole(old, *kind, new)).is_err(), "cut {cut}: two pools in one");
            let (pool, report) = adding(old, &[group(*kind, new)], true).unwrap();
            pool.rewrite_chosen(report.chosen).unwrap();
            commit(&pool, 11);
            drop(pool);
            assert_eq!(open(&whole(old, *kind, new)).unwrap().1.chosen, Generation(11));
        }
        assert!(states > 30 && both > 0, "{states} states, {both} that open both ways");
    }
}

/// The commit that a vdev came with cannot be loaded, and the one before knows nothing of it.
#[test]
fn every_crash_while_falling_back_behind_an_addition_leaves_a_pool() {
    let (old, new) = disks(1);
    let (pool, report) = adding(&old, &[group(VdevKind::Leaf, &new)], false).unwrap();
    pool.rewrite_chosen(report.chosen).unwrap();
    commit(&pool, 10);
    drop(pool);
    let all = [&old[..], &new[..]].concat();
    let before: Vec<Vec<u8>> = all.iter().map(Disk::bytes).collect();
    let ops = record(&all);
    let (pool, report) = open(&whole(&old, VdevKind::Leaf, &new)).unwrap();
    let generations: Vec<u64> = report.candidates.iter().map(|candidate| candidate.generation.0).collect();
    assert_eq!(generations, [10, 9]);
    pool.rewrite_chosen(Generation(9)).unwrap();
    commit(&pool, 11);
    let ops = ops.lock().clone();
    for (cut, images) in crash_states(&before, &ops) {
        let disks = disks_of(&images);
        let (old, new) = disks.split_at(2);
        let (_, as_new) = check(old, VdevKind::Leaf, new, &[9, 10, 11], cut);
        assert!(cut < ops.len() || as_new);
    }
    assert_eq!(open(&whole(&old, VdevKind::Leaf, &new)).unwrap().1.chosen, Generation(11));
}
