//! The pool on devices whose every write is known.

use super::format::{
    AREA_BLOCKS, DEVICE_BLOCKS_MIN, End, LABEL_SLOTS, PAYLOAD_BYTES_MAX, RING_SLOTS, Superblock, VdevKind,
};
use super::pool::OpenOptions;
use super::topology::{LeafDevice, VdevDevices};
use super::{
    Access, CreateOptions, LeafVdev, OpenReport, Pool, PoolError, SlotContent, StoragePoolConfiguration,
};
use crate::base::checksum::crc;
use crate::base::extent::Extent;
use crate::base::ids::{Generation, VdevId};
use crate::vdev::{BlockDevice, MemoryDevice, Operation, SimClock, SimDisk, SimRng, VdevError};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

mod addition;
mod groups;
mod membership;

const BLOCK: usize = 4096;

#[derive(Debug, Clone)]
enum Op {
    Write { device: usize, offset: usize, bytes: Vec<u8> },
    Flush { device: usize },
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    ops: Option<Arc<Mutex<Vec<Op>>>>,
    /// Fails this and all later requests of a kind, after so many.
    fail: Option<(Operation, usize, io::ErrorKind)>,
    unreadable: BTreeSet<usize>,
}

/// A disk that outlives the pools on it.
#[derive(Debug, Clone)]
struct Disk {
    number: usize,
    name: String,
    state: Arc<Mutex<State>>,
}

impl Disk {
    fn new(number: usize, blocks: u64) -> Self {
        Self::with_bytes(number, vec![0; blocks as usize * BLOCK])
    }

    fn with_bytes(number: usize, bytes: Vec<u8>) -> Self {
        let state = State { bytes, ..State::default() };
        Self { number, name: format!("disk{number}"), state: Arc::new(Mutex::new(state)) }
    }

    fn bytes(&self) -> Vec<u8> {
        self.state.lock().bytes.clone()
    }

    fn set(&self, offset: usize, bytes: &[u8]) {
        self.state.lock().bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn grow(&self, blocks: u64) {
        self.state.lock().bytes.resize(blocks as usize * BLOCK, 0);
    }

    fn fail(&self, operation: Operation, after: usize, kind: io::ErrorKind) {
        self.state.lock().fail = Some((operation, after, kind));
    }

    fn heal(&self) {
        self.state.lock().fail = None;
    }

    fn copy(&self, number: usize) -> Self {
        Self::with_bytes(number, self.bytes())
    }
}

/// An open handle on a disk.
#[derive(Debug)]
struct Handle {
    disk: Disk,
    len: u64,
}

impl Handle {
    fn check(&self, state: &mut State, operation: Operation, offset: u64) -> Result<(), VdevError> {
        let Some((failing, left, kind)) = &mut state.fail else { return Ok(()) };
        if *failing != operation {
            return Ok(());
        }
        if *left > 0 {
            *left -= 1;
            return Ok(());
        }
        let source = io::Error::from(*kind);
        Err(VdevError::Io { device: self.disk.name.clone(), operation, offset, source })
    }
}

impl BlockDevice for Handle {
    fn name(&self) -> &str {
        &self.disk.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
        let mut state = self.disk.state.lock();
        self.check(&mut state, Operation::Read, offset)?;
        let range = offset as usize..offset as usize + buf.len();
        assert!(buf.len().is_multiple_of(BLOCK) && range.end <= self.len as usize);
        if state.unreadable.iter().any(|block| range.contains(&(block * BLOCK))) {
            let source = io::Error::other("bad sector");
            return Err(VdevError::Io {
                device: self.disk.name.clone(),
                operation: Operation::Read,
                offset,
                source,
            });
        }
        buf.copy_from_slice(&state.bytes[range]);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
        let mut state = self.disk.state.lock();
        self.check(&mut state, Operation::Write, offset)?;
        let offset = offset as usize;
        assert!(buf.len().is_multiple_of(BLOCK) && offset + buf.len() <= self.len as usize);
        if let Some(ops) = &state.ops {
            ops.lock().push(Op::Write { device: self.disk.number, offset, bytes: buf.to_vec() });
        }
        state.bytes[offset..offset + buf.len()].copy_from_slice(buf);
        Ok(())
    }

    fn flush(&self) -> Result<(), VdevError> {
        let mut state = self.disk.state.lock();
        self.check(&mut state, Operation::Flush, 0)?;
        if let Some(ops) = &state.ops {
            ops.lock().push(Op::Flush { device: self.disk.number });
        }
        Ok(())
    }
}

fn leaf(tier: u8, device: Arc<dyn BlockDevice>) -> VdevDevices {
    let leaf = LeafDevice { name: device.name().to_owned(), device: Some(device) };
    VdevDevices { tier, kind: VdevKind::Leaf, leaves: vec![leaf] }
}

fn on(tier: u8, disk: &Disk) -> VdevDevices {
    let len = disk.state.lock().bytes.len() as u64;
    leaf(tier, Arc::new(Handle { disk: disk.clone(), len }))
}

fn memory(tier: u8) -> VdevDevices {
    leaf(tier, Arc::new(MemoryDevice::new(1 << 20)))
}

fn all_on(tier: u8, disks: &[Disk]) -> Vec<VdevDevices> {
    disks.iter().map(|disk| on(tier, disk)).collect()
}

fn create_with(members: &[VdevDevices], segment_blocks: u32, force: bool) -> Result<Pool, PoolError> {
    Pool::create_on(members, &CreateOptions { segment_blocks, force }, 0)
}

fn create(members: &[VdevDevices]) -> Pool {
    create_with(members, 64, false).unwrap()
}

fn open(members: &[VdevDevices]) -> Result<(Pool, OpenReport), PoolError> {
    open_as(members, Access::ReadWrite, false)
}

fn open_as(members: &[VdevDevices], access: Access, degraded: bool) -> Result<(Pool, OpenReport), PoolError> {
    Pool::open_on(members, OpenOptions { access, degraded, threads: 0 })
}

fn payload(generation: u64) -> Vec<u8> {
    format!("root of {generation}").into_bytes()
}

fn commit(pool: &Pool, generation: u64) {
    pool.flush_all().unwrap();
    pool.commit(Generation(generation), &payload(generation)).unwrap();
}

/// Opens, settles on the newest root and checks that it is `generation`.
fn reopen(members: &[VdevDevices], generation: u64) -> Pool {
    let (pool, report) = open(members).unwrap();
    assert_eq!(report.chosen, Generation(generation));
    assert_eq!(report.candidates[0].payload, payload(generation));
    pool.rewrite_chosen(report.chosen).unwrap();
    pool
}

/// One disk with a pool of `generations` commits.
fn committed(generations: u64) -> Disk {
    let disk = Disk::new(0, DEVICE_BLOCKS_MIN);
    let pool = create(&[on(1, &disk)]);
    (1..=generations).for_each(|generation| commit(&pool, generation));
    disk
}

/// Byte offset of the superblock of `generation`, when none was left out, at `end` of a disk of the least length.
fn at(end: End, generation: u64) -> usize {
    end.superblock_block(DEVICE_BLOCKS_MIN, (generation % RING_SLOTS) as u8) as usize * BLOCK
}

/// Changes the superblock at `offset` and puts the right checksum on it.
fn forge(disk: &Disk, offset: usize, change: impl FnOnce(&mut [u8])) {
    let mut state = disk.state.lock();
    let block = &mut state.bytes[offset..offset + BLOCK];
    change(block);
    let sum = crc(&block[..BLOCK - 4]);
    block[BLOCK - 4..].copy_from_slice(&sum.to_le_bytes());
}

/// Two blocks of a vdev.
fn blocks_at(vdev: u32, block: u64) -> Extent {
    Extent { vdev: VdevId(vdev), block, blocks: 2 }
}

#[test]
fn a_pool_is_found_from_its_first_commit_on() {
    let disk = Disk::new(0, DEVICE_BLOCKS_MIN);
    let members = [on(1, &disk)];
    assert!(matches!(open(&members), Err(PoolError::NotFound { devices }) if devices == ["disk0"]));
    let pool = create(&members);
    assert_eq!((pool.committed(), pool.next_generation(Generation(0))), (Generation(0), Generation(1)));
    assert!(matches!(open(&members), Err(PoolError::NotFound { .. })));
    for generation in 1..=20 {
        commit(&pool, generation);
        let (_, report) = open(&members).unwrap();
        assert_eq!(report.chosen, Generation(generation));
        assert_eq!(report.highest_seen, Generation(generation));
        let generations: Vec<u64> =
            report.candidates.iter().map(|candidate| candidate.generation.0).collect();
        assert_eq!(generations, if generation == 1 { vec![1] } else { vec![generation, generation - 1] });
        assert!(!report.rolled_back && report.bad_slots.is_empty() && report.stale.is_empty());
    }
    let (opened, _) = open(&members).unwrap();
    assert_eq!((opened.uuid(), opened.segment_blocks()), (pool.uuid(), 64));
    assert_eq!(opened.vdevs()[0].blocks, DEVICE_BLOCKS_MIN);
    assert_eq!(opened.reserved_ranges(VdevId(0)).unwrap(), [0..16, 48..64]);
}

#[test]
fn create_refuses_what_is_not_provably_empty() {
    let blank = Disk::new(0, DEVICE_BLOCKS_MIN);
    for block in (0..AREA_BLOCKS).chain(DEVICE_BLOCKS_MIN - AREA_BLOCKS..DEVICE_BLOCKS_MIN) {
        for within in [0, 511, 4095] {
            let other = Disk::new(1, DEVICE_BLOCKS_MIN);
            other.set(block as usize * BLOCK + within, &[1]);
            let before = other.bytes();
            let error = create_with(&[on(0, &blank), on(0, &other)], 64, false).unwrap_err();
            assert!(matches!(&error, PoolError::NotEmpty { device, .. } if device == "disk1"), "{error}");
            assert_eq!(other.bytes(), before);
            assert!(blank.bytes().iter().all(|byte| *byte == 0));
            assert!(matches!(
                open(&[on(0, &other)]),
                Err(PoolError::NotAPool { .. } | PoolError::Damaged { .. })
            ));
        }
    }
    let unreadable = Disk::new(1, DEVICE_BLOCKS_MIN);
    unreadable.state.lock().unreadable.insert(3);
    assert!(matches!(create_with(&[on(0, &unreadable)], 64, false), Err(PoolError::NotEmpty { .. })));
    assert!(
        matches!(open(&[on(0, &unreadable)]), Err(PoolError::Vdev(_))),
        "an unreadable device is not empty"
    );

    let disk = committed(12);
    let error = create_with(&[on(1, &disk)], 64, false).unwrap_err();
    assert!(error.to_string().contains("at generation 12"), "{error}");
    let old = open(&[on(1, &disk)]).unwrap().0.uuid();
    let pool = create_with(&[on(1, &disk)], 64, true).unwrap();
    assert!(matches!(open(&[on(1, &disk)]), Err(PoolError::NotFound { .. })));
    commit(&pool, 1);
    assert_ne!(reopen(&[on(1, &disk)], 1).uuid(), old);
}

#[test]
fn create_names_what_it_needs() {
    let small = Disk::new(0, DEVICE_BLOCKS_MIN - 1);
    let error = create_with(&[on(0, &small)], 64, true).unwrap_err();
    assert!(error.to_string().contains("the minimum is 64 (256 KiB)"), "{error}");
    let disk = Disk::new(0, DEVICE_BLOCKS_MIN);
    for blocks in [0, 4, 65, 1 << 19] {
        assert!(matches!(create_with(&[on(0, &disk)], blocks, false), Err(PoolError::SegmentLength { .. })));
    }
    assert!(matches!(create_with(&[], 64, false), Err(PoolError::NoVdevs)));
    assert!(matches!(create_with(&[on(4, &disk)], 64, false), Err(PoolError::UnknownTier { tier: 4 })));
    let many: Vec<VdevDevices> = (0..97).map(|_| memory(0)).collect();
    assert!(matches!(create_with(&many, 64, false), Err(PoolError::TooManyVdevs { count: 97, limit: 96 })));
    let member = on(0, &disk);
    let twice = [member.clone(), member];
    assert!(matches!(create_with(&twice, 64, false), Err(PoolError::DuplicateDevice { .. })));
    assert!(disk.bytes().iter().all(|byte| *byte == 0));
}

/// Three states of the slot that generation `n + 1` goes to: empty, an old generation, a torn one.
fn tear_states() -> Vec<(Disk, u64)> {
    let torn = committed(11);
    for end in End::BOTH {
        torn.set(at(end, 12) + 100, &[0xee; 77]);
    }
    vec![(committed(3), 3), (committed(11), 11), (torn, 11)]
}

/// What the disk holds after a commit, at the superblock of each end.
fn next_superblocks(disk: &Disk, newest: u64) -> [Vec<u8>; 2] {
    let after = disk.copy(0);
    let pool = reopen(&[on(1, &after)], newest);
    commit(&pool, newest + 1);
    let bytes = after.bytes();
    End::BOTH.map(|end| bytes[at(end, newest + 1)..][..BLOCK].to_vec())
}

#[test]
fn every_prefix_tear_leaves_the_old_or_the_new_root() {
    for (disk, newest) in tear_states() {
        let next = next_superblocks(&disk, newest);
        for (end, new) in End::BOTH.into_iter().zip(&next) {
            let torn = disk.copy(0);
            if end == End::Back {
                torn.set(at(End::Front, newest + 1), &next[0]);
            }
            let old = torn.bytes()[at(end, newest + 1)..][..BLOCK].to_vec();
            for length in 0..=BLOCK {
                torn.set(at(end, newest + 1), &[&new[..length], &old[length..]].concat());
                let (_, report) = open(&[on(1, &torn)]).unwrap();
                let is_new = end == End::Back || [&new[..length], &old[length..]].concat() == *new;
                let want = if is_new { newest + 1 } else { newest };
                assert_eq!(report.chosen, Generation(want), "{end} {length}");
                assert_eq!(report.candidates[0].payload, payload(want));
            }
        }
    }
}

#[test]
fn every_sector_tear_leaves_the_old_or_the_new_root() {
    for (disk, newest) in tear_states() {
        let next = next_superblocks(&disk, newest);
        for (end, new) in End::BOTH.into_iter().zip(&next) {
            let torn = disk.copy(0);
            if end == End::Back {
                torn.set(at(End::Front, newest + 1), &next[0]);
            }
            let old = torn.bytes()[at(end, newest + 1)..][..BLOCK].to_vec();
            for landed in 0..256_usize {
                let mixed: Vec<u8> = (0..BLOCK)
                    .map(|byte| if landed >> (byte / 512) & 1 == 1 { new[byte] } else { old[byte] })
                    .collect();
                let torn = torn.copy(0);
                torn.set(at(end, newest + 1), &mixed);
                let (pool, report) = open(&[on(1, &torn)]).unwrap();
                let want = if end == End::Back || mixed == *new { newest + 1 } else { newest };
                assert_eq!(report.chosen, Generation(want));
                pool.rewrite_chosen(report.chosen).unwrap();
                let (_, report) = open(&[on(1, &torn)]).unwrap();
                assert!(report.stale.is_empty() && report.chosen == Generation(want));
            }
        }
    }
}

#[test]
fn every_flipped_byte_is_noticed_and_the_other_end_serves() {
    let disk = committed(13);
    let want = disk.bytes();
    let members = [on(1, &disk)];
    let uuid = open(&members).unwrap().0.uuid();
    for end in End::BOTH {
        let area = end.area(DEVICE_BLOCKS_MIN);
        let reserved = (area.start + LABEL_SLOTS + RING_SLOTS) as usize * BLOCK;
        let slots = area.start as usize * BLOCK..reserved;
        for byte in slots.chain((reserved..area.end as usize * BLOCK).step_by(61)) {
            disk.set(byte, &[want[byte] ^ (1 << (byte % 8))]);
            let (pool, report) = open(&members).unwrap();
            assert_eq!((report.chosen, pool.uuid()), (Generation(13), uuid), "byte {byte}");
            assert_eq!(report.candidates[0].payload, payload(13));
            assert_eq!(report.bad_slots.len(), 1, "byte {byte}");
            assert_eq!(report.bad_slots[0].block, (byte / BLOCK) as u64);
            assert!(!report.rolled_back);
            disk.set(byte, &want[byte..=byte]);
        }
    }
}

#[test]
fn a_lost_newest_root_is_never_silent() {
    for flipped in (0..BLOCK).step_by(61) {
        let disk = committed(13);
        for end in End::BOTH {
            let byte = at(end, 13) + flipped;
            let old = disk.bytes()[byte];
            disk.set(byte, &[old ^ 0x10]);
        }
        let (_, report) = open(&[on(1, &disk)]).unwrap();
        assert!(report.rolled_back, "byte {flipped}");
        assert_eq!((report.chosen, report.bad_slots.len()), (Generation(12), 2));
        assert_eq!(report.candidates.len(), 1, "what 13 freed may have been overwritten: 11 is not offered");
    }
    // Bad sectors are as bad as rotten ones, and the slots beside them still serve.
    let disk = committed(13);
    for end in End::BOTH {
        disk.state.lock().unreadable.insert(at(end, 13) / BLOCK);
    }
    let (_, report) = open(&[on(1, &disk)]).unwrap();
    assert!(report.rolled_back && report.chosen == Generation(12));
    // On a second device, which never got it, the same damage is a crash.
    let disks = [Disk::new(0, DEVICE_BLOCKS_MIN), Disk::new(1, DEVICE_BLOCKS_MIN)];
    let pool = create(&all_on(1, &disks));
    (1..=13).for_each(|generation| commit(&pool, generation));
    disks[0].set(at(End::Front, 14) + 7, &[9]);
    let (_, report) = open(&all_on(1, &disks)).unwrap();
    assert!(!report.rolled_back && report.chosen == Generation(13) && report.candidates.len() == 2);
}

#[test]
fn devices_are_found_in_any_order_within_their_tier() {
    let tiers = [0, 0, 1, 1, 2];
    let disks: Vec<Disk> =
        (0..5).map(|number| Disk::new(number, DEVICE_BLOCKS_MIN + number as u64)).collect();
    let placed: Vec<VdevDevices> = disks.iter().zip(tiers).map(|(disk, tier)| on(tier, disk)).collect();
    let pool = create(&placed);
    (1..=3).for_each(|generation| commit(&pool, generation));
    let mut refused = 0;
    for permutation in permutations(5) {
        let members: Vec<VdevDevices> =
            permutation.iter().zip(tiers).map(|(disk, tier)| on(tier, &disks[*disk])).collect();
        let same_tiers = permutation.iter().zip(tiers).all(|(disk, tier)| tiers[*disk] == tier);
        match open(&members) {
            Ok((pool, report)) => {
                assert!(same_tiers && report.chosen == Generation(3));
                for (disk, tier) in tiers.into_iter().enumerate() {
                    let vdev = pool.vdev(VdevId(disk as u32)).unwrap();
                    assert_eq!((vdev.blocks, vdev.tier), (DEVICE_BLOCKS_MIN + disk as u64, tier));
                }
                let order: Vec<usize> = pool.vdevs().iter().map(|vdev| vdev.id.0 as usize).collect();
                assert_eq!(order, permutation);
            }
            Err(PoolError::TierMismatch { device, recorded, configured }) => {
                let disk: usize = device.strip_prefix("disk").unwrap().parse().unwrap();
                assert!(!same_tiers && recorded == tiers[disk] && configured != recorded);
                refused += 1;
            }
            Err(error) => panic!("{permutation:?}: {error}"),
        }
    }
    assert_eq!(refused, 120 - 4);
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut out = Vec::new();
    for shorter in permutations(count - 1) {
        for place in 0..count {
            let mut longer = shorter.clone();
            longer.insert(place, count - 1);
            out.push(longer);
        }
    }
    out
}

#[test]
fn wrong_devices_are_refused_by_name_and_left_alone() {
    let disks: Vec<Disk> = (0..3).map(|number| Disk::new(number, 80)).collect();
    let pool = create(&all_on(1, &disks));
    (1..=9).for_each(|generation| commit(&pool, generation));
    let other = Disk::new(7, 80);
    commit(&create(&[on(1, &other)]), 1);
    let blank = Disk::new(8, 80);
    let images: Vec<Vec<u8>> = disks.iter().chain([&other, &blank]).map(Disk::bytes).collect();
    let refuse = |members: &[&Disk]| {
        let members: Vec<VdevDevices> = members.iter().map(|disk| on(1, disk)).collect();
        open(&members).unwrap_err()
    };
    let [a, b, c] = [&disks[0], &disks[1], &disks[2]];

    let error = refuse(&[a, &other, c]);
    let (ours, theirs) = (pool.uuid().to_string(), open(&[on(1, &other)]).unwrap().0.uuid().to_string());
    assert!(matches!(&error, PoolError::ForeignDevice { device, .. } if device == "disk7"), "{error}");
    assert!(error.to_string().contains(&ours) && error.to_string().contains(&theirs));
    let error = refuse(&[a, b, c, &other]);
    assert!(matches!(&error, PoolError::ForeignDevice { device, .. } if device == "disk7"), "{error}");

    let error = refuse(&[a, b, &a.copy(9)]);
    assert!(
        matches!(&error, PoolError::DuplicateDevice { device, other } if device == "disk9" && other == "disk0")
    );
    let error = refuse(&[a, c]);
    assert!(
        matches!(
            &error,
            PoolError::MissingDevice { vdev: VdevId(1), leaf: 0, tier: 1, instead: None, remedy: "" }
        ),
        "{error}"
    );
    let error = refuse(&[a, &blank, c]);
    assert_eq!(error.to_string(), "leaf 0 of vdev 1 (tier FAST) is missing; disk8 is empty");
    let error = refuse(&[a, b, c, &blank]);
    assert!(matches!(&error, PoolError::BlankDevice { device, .. } if device == "disk8"), "{error}");
    let mut members = all_on(1, &disks);
    members[2].leaves[0] = LeafDevice { name: "gone".to_owned(), device: None };
    let error = open(&members).unwrap_err();
    assert!(
        matches!(&error, PoolError::MissingDevice { vdev: VdevId(2), instead: Some(why), .. } if why.starts_with("gone does not exist"))
    );

    let cut = c.copy(2);
    cut.state.lock().bytes.truncate(79 * BLOCK);
    let error = refuse(&[a, b, &cut]);
    assert!(
        matches!(&error, PoolError::Shorter { device, blocks: 79, recorded: 80 } if device == "disk2"),
        "{error}"
    );
    cut.state.lock().bytes.truncate(8 * BLOCK);
    assert!(matches!(refuse(&[a, b, &cut]), PoolError::NotAPool { .. }));

    let data = Disk::new(2, 80);
    data.set(0, b"some file system");
    assert!(matches!(refuse(&[a, b, &data]), PoolError::NotAPool { .. }));
    let wrecked = c.copy(2);
    for end in End::BOTH {
        let area = end.area(80);
        (area.start..area.end).for_each(|block| wrecked.set(block as usize * BLOCK + 4000, &[3]));
    }
    assert!(matches!(refuse(&[a, b, &wrecked]), PoolError::Damaged { .. }));

    let after: Vec<Vec<u8>> = disks.iter().chain([&other, &blank]).map(Disk::bytes).collect();
    assert!(images == after, "nothing was written");
}

#[test]
fn a_device_that_missed_a_generation_is_refused() {
    let disks = [Disk::new(0, DEVICE_BLOCKS_MIN), Disk::new(1, DEVICE_BLOCKS_MIN)];
    let pool = create(&all_on(1, &disks));
    (1..=4).for_each(|generation| commit(&pool, generation));
    let [at_4, at_4_too] = [disks[0].copy(0), disks[1].copy(1)];
    commit(&pool, 5);
    let crash = [disks[0].clone(), at_4_too.clone()];
    let (_, report) = open(&all_on(1, &crash)).unwrap();
    assert_eq!((report.chosen, report.stale.len()), (Generation(5), 2), "one generation behind is a crash");
    commit(&pool, 6);
    let error = open(&all_on(1, &[disks[0].clone(), at_4_too.clone()])).unwrap_err();
    assert!(
        matches!(&error, PoolError::Stale { device, newest: Generation(4), chosen: Generation(6) } if device == "disk1"),
        "{error}"
    );

    // Both sides of a copy go on by themselves, and then their disks are mixed.
    let copies = [at_4, at_4_too];
    let apart = reopen(&all_on(1, &copies), 4);
    apart.commit(Generation(5), b"another root").unwrap();
    apart.commit(Generation(6), &payload(6)).unwrap();
    let error = open(&all_on(1, &[disks[0].clone(), copies[1].clone()])).unwrap_err();
    assert!(matches!(&error, PoolError::Diverged { generation: Generation(5), .. }), "{error}");
}

#[test]
fn newer_formats_are_refused_even_beside_older_superblocks() {
    let disk = committed(13);
    let before = disk.bytes();
    forge(&disk, at(End::Front, 13), |block| block[16] = 1);
    let error = open(&[on(1, &disk)]).unwrap_err();
    assert!(error.to_string().contains("written by a newer version"), "{error}");
    assert!(matches!(error, PoolError::NewerFormat { readable: false, features: 1, .. }));
    disk.set(0, &before);
    for end in End::BOTH {
        forge(&disk, at(end, 13), |block| block[24] = 2);
    }
    let error = open(&[on(1, &disk)]).unwrap_err();
    assert!(matches!(error, PoolError::NewerFormat { readable: true, features: 2, .. }), "{error}");
    assert_eq!(open_as(&[on(1, &disk)], Access::ReadOnly, false).unwrap().1.chosen, Generation(13));
    disk.set(0, &before);
    for end in End::BOTH {
        forge(&disk, at(end, 13), |block| block[32] = 4);
    }
    let pool = reopen(&[on(1, &disk)], 13);
    commit(&pool, 14);
    let block = disk.bytes()[at(End::Back, 14)..][..BLOCK].to_vec();
    assert_eq!(Superblock::decode(&block).unwrap().features.compat, 4, "bits that may be ignored are kept");
}

#[test]
fn superblocks_out_of_place_are_ignored() {
    let disk = committed(13);
    let moved = disk.bytes()[at(End::Front, 13)..][..BLOCK].to_vec();
    for generation in 7..15 {
        for end in End::BOTH {
            let copy = disk.copy(0);
            copy.set(at(end, generation), &moved);
            let (_, report) = open(&[on(1, &copy)]).unwrap();
            let stays = (end, generation % RING_SLOTS) == (End::Front, 13 % RING_SLOTS);
            assert_eq!((report.chosen, report.bad_slots.len()), (Generation(13), usize::from(!stays)));
        }
    }
}

#[test]
fn read_only_changes_nothing() {
    let disk = committed(13);
    disk.set(at(End::Front, 13) + 5, &[1]);
    let before = disk.bytes();
    disk.fail(Operation::Write, 0, io::ErrorKind::PermissionDenied);
    let (pool, report) = open_as(&[on(1, &disk)], Access::ReadOnly, false).unwrap();
    assert_eq!((report.chosen, report.stale.len()), (Generation(13), 1));
    assert!(matches!(pool.write(&blocks_at(0, 20), 0, &[1; BLOCK]), Err(PoolError::ReadOnly)));
    assert!(matches!(pool.flush_all(), Err(PoolError::ReadOnly)));
    assert!(matches!(pool.rewrite_chosen(Generation(13)), Err(PoolError::ReadOnly)));
    assert!(matches!(pool.commit(Generation(14), b""), Err(PoolError::ReadOnly)));
    pool.read(&blocks_at(0, 20), 0, &mut [0; BLOCK]).unwrap();
    assert_eq!(pool.dump_superblocks().len(), 20);
    pool.close().unwrap();
    assert!(matches!(pool.write(&blocks_at(0, 20), 0, &[1; BLOCK]), Err(PoolError::Closed)));
    assert_eq!(disk.bytes(), before);
    disk.grow(128);
    let (pool, report) = open_as(&[on(1, &disk)], Access::ReadOnly, false).unwrap();
    assert!(report.grown.is_empty() && pool.vdevs()[0].blocks == DEVICE_BLOCKS_MIN);
}

#[test]
fn a_failed_write_or_flush_is_final() {
    for operation in [Operation::Write, Operation::Flush] {
        let disk = committed(3);
        let pool = reopen(&[on(1, &disk)], 3);
        pool.write(&blocks_at(0, 20), 0, &[1; BLOCK]).unwrap();
        disk.fail(operation, 0, io::ErrorKind::Other);
        let failed = match operation {
            Operation::Write => pool.write(&blocks_at(0, 21), 0, &[1; BLOCK]),
            _ => pool.flush(VdevId(0)),
        };
        assert!(matches!(failed, Err(PoolError::Vdev(_))));
        disk.heal();
        for result in [
            pool.write(&blocks_at(0, 21), 0, &[1; BLOCK]),
            pool.flush_all(),
            pool.commit(Generation(4), b""),
            pool.close(),
            pool.flush(VdevId(0)),
        ] {
            assert!(matches!(result, Err(PoolError::Poisoned(_))));
        }
        assert!(pool.first_failure().is_some());
        pool.read(&blocks_at(0, 20), 0, &mut [0; BLOCK]).unwrap();
        reopen(&[on(1, &disk)], 3);
    }
    // A full host file system costs an extent, but must not cost a superblock.
    let disk = committed(3);
    let pool = reopen(&[on(1, &disk)], 3);
    disk.fail(Operation::Write, 0, io::ErrorKind::StorageFull);
    assert!(matches!(pool.write(&blocks_at(0, 21), 0, &[1; BLOCK]), Err(PoolError::Vdev(_))));
    disk.heal();
    pool.write(&blocks_at(0, 21), 0, &[1; BLOCK]).unwrap();
    commit(&pool, 4);
    disk.fail(Operation::Write, 0, io::ErrorKind::StorageFull);
    assert!(matches!(pool.commit(Generation(5), b""), Err(PoolError::Vdev(_))));
    disk.heal();
    assert!(matches!(pool.commit(Generation(5), b""), Err(PoolError::Poisoned(_))));
    reopen(&[on(1, &disk)], 4);
}

#[test]
fn every_failing_request_of_commit_and_rewrite_leaves_an_openable_pool() {
    for operation in [Operation::Read, Operation::Write, Operation::Flush] {
        for after in 0.. {
            let disks = [Disk::new(0, DEVICE_BLOCKS_MIN), Disk::new(1, DEVICE_BLOCKS_MIN)];
            let pool = create(&all_on(1, &disks));
            (1..=3).for_each(|generation| commit(&pool, generation));
            disks[1].set(at(End::Back, 3), &[0; BLOCK]);
            drop(pool);
            let (pool, report) = open(&all_on(1, &disks)).unwrap();
            disks[1].fail(operation, after, io::ErrorKind::Other);
            let result =
                pool.rewrite_chosen(report.chosen).and_then(|()| pool.commit(Generation(4), &payload(4)));
            let untouched = matches!(disks[1].state.lock().fail, Some((_, left, _)) if left > 0);
            disks[1].heal();
            let (_, report) = open(&all_on(1, &disks)).unwrap();
            match result {
                Ok(()) => assert_eq!(report.chosen, Generation(4)),
                Err(_) => {
                    assert!(matches!(pool.flush_all(), Err(PoolError::Poisoned(_))));
                    assert!(report.chosen == Generation(3) || report.chosen == Generation(4));
                }
            }
            assert_eq!(report.candidates[0].payload, payload(report.chosen.0));
            if untouched {
                break;
            }
        }
    }
}

#[test]
fn a_root_that_cannot_be_read_gives_way_to_the_one_before() {
    let disk = committed(13);
    let (pool, report) = open(&[on(1, &disk)]).unwrap();
    assert!(matches!(pool.rewrite_chosen(Generation(11)), Err(PoolError::NotACandidate { .. })));
    assert_eq!(report.candidates[1].payload, payload(12));
    pool.rewrite_chosen(Generation(12)).unwrap();
    assert_eq!((pool.committed(), pool.next_generation(Generation(0))), (Generation(12), Generation(14)));
    drop(pool);
    let (pool, report) = open(&[on(1, &disk)]).unwrap();
    assert_eq!((report.chosen, report.highest_seen), (Generation(12), Generation(13)));
    assert!(report.rolled_back && report.candidates.len() == 1, "13 is known to have been");
    pool.rewrite_chosen(Generation(12)).unwrap();
    commit(&pool, 14);
    let (_, report) = open(&[on(1, &disk)]).unwrap();
    assert_eq!((report.chosen, report.candidates[1].generation), (Generation(14), Generation(12)));
    assert!(!report.rolled_back);
}

#[test]
fn generations_may_jump() {
    let disk = committed(3);
    let mut newest = 3;
    for seen in [0, 10, 18, 26, 26, 34, 1000, 1007, 1014] {
        let pool = reopen(&[on(1, &disk)], newest);
        let (before, after) = (newest, pool.next_generation(Generation(seen)).0);
        assert_eq!(after, newest.max(seen) + 1);
        commit(&pool, after);
        let (_, report) = open(&[on(1, &disk)]).unwrap();
        let generations: Vec<u64> =
            report.candidates.iter().map(|candidate| candidate.generation.0).collect();
        assert_eq!(generations, [after, before]);
        newest = after;
    }
}

#[test]
fn a_generation_that_could_not_be_read_is_not_written() {
    let (disk, last) = (committed(3), Generation::STORED_MAX);
    let pool = reopen(&[on(1, &disk)], 3);
    commit(&pool, last.0);
    let error = pool.commit(last.next(), &payload(1)).unwrap_err();
    assert!(matches!(error, PoolError::UsedUp { generation } if generation == last.next()), "{error}");
    drop(pool);
    assert_eq!(open(&[on(1, &disk)]).unwrap().1.chosen, last);
}

// A root written over one that may be needed is lost: the two orders that only a defect of the layer above breaks are
// demanded in release builds, before a byte is written.
#[test]
#[should_panic(expected = "was used before")]
fn a_generation_is_used_once() {
    let disk = committed(3);
    let pool = reopen(&[on(1, &disk)], 3);
    let _panics = pool.commit(Generation(3), b"");
}

#[test]
#[should_panic(expected = "after rewrite_chosen")]
fn a_commit_needs_a_chosen_root() {
    let disk = committed(3);
    let _panics = open(&[on(1, &disk)]).unwrap().0.commit(Generation(4), b"");
}

#[test]
fn payloads_have_a_limit() {
    let disk = committed(1);
    let pool = reopen(&[on(1, &disk)], 1);
    let error = pool.commit(Generation(2), &[0; PAYLOAD_BYTES_MAX + 1]).unwrap_err();
    assert!(matches!(error, PoolError::PayloadTooLarge { .. }));
    pool.commit(Generation(2), &[7; PAYLOAD_BYTES_MAX]).unwrap();
    assert_eq!(open(&[on(1, &disk)]).unwrap().1.candidates[0].payload, [7; PAYLOAD_BYTES_MAX]);
}

#[test]
fn a_grown_device_is_used_from_the_next_commit_on() {
    let disk = committed(3);
    disk.grow(DEVICE_BLOCKS_MIN + AREA_BLOCKS - 1);
    let (pool, report) = open(&[on(1, &disk)]).unwrap();
    assert!(
        report.grown.is_empty() && pool.vdevs()[0].blocks == 64,
        "the new back area would touch the old one"
    );
    disk.grow(200);
    // A grown partition may end in anything, the back area of another pool included.
    let stranger = Disk::new(5, 200);
    let strangers = create(&[on(0, &stranger)]);
    (1..=9).for_each(|generation| commit(&strangers, generation));
    disk.set(184 * BLOCK, &stranger.bytes()[184 * BLOCK..]);

    let (pool, report) = open(&[on(1, &disk)]).unwrap();
    assert_eq!((report.grown[0].recorded_blocks, report.grown[0].blocks), (64, 200));
    assert!(report.bad_slots.is_empty() && report.chosen == Generation(3));
    assert_eq!(pool.vdevs()[0].blocks, 200);
    assert_eq!(pool.reserved_ranges(VdevId(0)).unwrap(), [0..16, 48..64, 184..200]);
    pool.rewrite_chosen(Generation(3)).unwrap();
    assert_eq!(open(&[on(1, &disk)]).unwrap().1.grown.len(), 1, "not yet recorded");
    commit(&pool, 4);
    let (pool, report) = open(&[on(1, &disk)]).unwrap();
    assert!(report.grown.is_empty() && report.stale.is_empty() && report.bad_slots.is_empty());
    assert_eq!(pool.reserved_ranges(VdevId(0)).unwrap(), [0..16, 48..64, 184..200]);

    // The front area is lost: the back area is found at the new end. Both newest lost: the old back area still serves.
    let front_lost = disk.copy(0);
    front_lost.set(0, &[0; 16 * BLOCK]);
    reopen(&[on(1, &front_lost)], 4);
    let newest_lost = disk.copy(0);
    for offset in [at(End::Front, 4), at(End::Front, 3), 184 * BLOCK + (at(End::Front, 4))] {
        newest_lost.set(offset + 99, &[1]);
    }
    let (_, report) = open(&[on(1, &newest_lost)]).unwrap();
    assert!(report.rolled_back && report.chosen == Generation(3), "{report:?}");

    pool.rewrite_chosen(Generation(4)).unwrap();
    disk.grow(1000);
    let pool = reopen(&[on(1, &disk)], 4);
    commit(&pool, 5);
    commit(&pool, 6);
    let pool = reopen(&[on(1, &disk)], 6);
    assert_eq!(pool.reserved_ranges(VdevId(0)).unwrap(), [0..16, 48..64, 184..200, 984..1000]);
    disk.state.lock().bytes.truncate(999 * BLOCK);
    assert!(matches!(open(&[on(1, &disk)]), Err(PoolError::Shorter { recorded: 1000, .. })));
}

#[test]
fn a_device_grows_sixteen_times() {
    let disk = committed(1);
    for round in 1..=18 {
        disk.grow(DEVICE_BLOCKS_MIN + round * 20);
        let pool = reopen(&[on(1, &disk)], round);
        assert_eq!(pool.vdevs()[0].blocks, DEVICE_BLOCKS_MIN + round.min(16) * 20);
        commit(&pool, round + 1);
    }
}

#[test]
fn memory_vdevs_come_back_empty_under_their_old_ids() {
    let disks = [Disk::new(0, DEVICE_BLOCKS_MIN), Disk::new(1, DEVICE_BLOCKS_MIN)];
    let [a, b] = &disks;
    let pool = create(&[memory(0), on(1, a), memory(0), on(2, b), memory(1)]);
    let ids = |pool: &Pool| pool.vdevs().iter().map(|vdev| vdev.id.0).collect::<Vec<_>>();
    assert_eq!(ids(&pool), [0, 1, 2, 3, 4]);
    assert!(pool.reserved_ranges(VdevId(0)).unwrap().is_empty());
    commit(&pool, 1);
    let pool = reopen(&[on(2, b), memory(0), memory(1), on(1, a), memory(0)], 1);
    assert_eq!(ids(&pool), [3, 0, 4, 1, 2]);
    // One tier loses its memory, another gets some; ids are not used again.
    let pool = reopen(&[on(1, a), on(2, b), memory(2), memory(1)], 1);
    assert_eq!(ids(&pool), [1, 3, 5, 4]);
    commit(&pool, 2);
    let pool = reopen(&[memory(0), on(1, a), on(2, b), memory(2)], 2);
    assert_eq!(ids(&pool), [6, 1, 3, 5]);
    assert!(matches!(pool.vdev(VdevId(0)), Err(PoolError::UnknownVdev(VdevId(0)))));
    assert!(matches!(pool.vdev(VdevId(7)), Err(PoolError::UnknownVdev(_))));
    assert!(matches!(pool.vdev(VdevId(u32::MAX)), Err(PoolError::UnknownVdev(_))));
    assert!(!pool.is_volatile());
}

#[test]
fn a_pool_of_memory_alone_is_legal_and_never_found() {
    let members = [memory(0), memory(3)];
    let pool = create(&members);
    assert!(pool.is_volatile());
    pool.write(&blocks_at(1, 0), 0, &[5; BLOCK]).unwrap();
    commit(&pool, 1);
    commit(&pool, 2);
    assert_eq!(pool.committed(), Generation(2));
    assert!(matches!(open(&members), Err(PoolError::NotFound { .. })));
}

#[test]
fn metrics_count_and_clean_vdevs_are_not_flushed() {
    let disks = [Disk::new(0, DEVICE_BLOCKS_MIN), Disk::new(1, DEVICE_BLOCKS_MIN)];
    let pool = create(&all_on(1, &disks));
    commit(&pool, 1);
    let before = pool.metrics();
    pool.write(&blocks_at(0, 20), 0, &[1; 2 * BLOCK]).unwrap();
    pool.flush_all().unwrap();
    pool.flush_all().unwrap();
    pool.read(&blocks_at(1, 20), 0, &mut [0; BLOCK]).unwrap();
    disks[1].fail(Operation::Read, 0, io::ErrorKind::Other);
    pool.read(&blocks_at(1, 20), 0, &mut [0; BLOCK]).unwrap_err();
    let after = pool.metrics();
    assert_eq!(after[0].writes.requests - before[0].writes.requests, 1);
    assert_eq!(after[0].writes.bytes - before[0].writes.bytes, 2 * BLOCK as u64);
    assert_eq!(after[0].flushes.requests - before[0].flushes.requests, 1);
    assert_eq!(after[1].flushes.requests, before[1].flushes.requests);
    assert_eq!((after[1].reads.requests, after[1].reads.bytes, after[1].reads.errors), (2, BLOCK as u64, 1));
    assert_eq!((after[1].device.as_str(), after[1].tier), ("disk1", 1));
}

#[test]
fn dumps_name_every_slot() {
    let disk = committed(9);
    disk.set(at(End::Back, 7), &[1; 10]);
    disk.state.lock().unreadable.insert(at(End::Back, 6) / BLOCK);
    let pool = reopen(&[on(1, &disk)], 9);
    let dump = pool.dump_superblocks();
    assert_eq!(dump.len() as u64, 2 * (LABEL_SLOTS + RING_SLOTS));
    let count = |wanted: fn(&SlotContent) -> bool| dump.iter().filter(|slot| wanted(&slot.content)).count();
    assert_eq!(count(|content| matches!(content, SlotContent::Superblock(_))), 14);
    assert_eq!(count(|content| matches!(content, SlotContent::Empty)), 4);
    assert_eq!(count(|content| matches!(content, SlotContent::Invalid(_))), 1);
    assert_eq!(count(|content| matches!(content, SlotContent::Unreadable(_))), 1);
    assert!(
        dump.iter().any(
            |slot| slot.to_string() == format!("disk0 back superblock slot 7 (block 57): {}", "not ours")
        )
    );
}

/// Every state that a crash may leave: at each point, what each device flushed, and any subset of its later writes,
/// the last of them also torn in the middle.
fn crash_states(start: &[Vec<u8>], ops: &[Op]) -> Vec<(usize, Vec<Vec<u8>>)> {
    let mut states = Vec::new();
    let mut seen = HashSet::new();
    for cut in 0..=ops.len() {
        let mut choices: Vec<Vec<Vec<u8>>> = Vec::new();
        for (device, bytes) in start.iter().enumerate() {
            let mut durable = bytes.clone();
            let mut pending: Vec<(usize, &[u8])> = Vec::new();
            for op in &ops[..cut] {
                match op {
                    Op::Write { device: of, offset, bytes } if *of == device => {
                        pending.push((*offset, bytes))
                    }
                    Op::Flush { device: of } if *of == device => {
                        for (offset, bytes) in pending.drain(..) {
                            durable[offset..offset + bytes.len()].copy_from_slice(bytes);
                        }
                    }
                    Op::Write { .. } | Op::Flush { .. } => {}
                }
            }
            assert!(pending.len() <= 4, "few writes between flushes");
            let mut of_device = Vec::new();
            for landed in 0..1_usize << pending.len() {
                for torn in [false, true] {
                    let mut image = durable.clone();
                    for (index, (offset, bytes)) in pending.iter().enumerate() {
                        if landed >> index & 1 == 1 {
                            let last = torn && index + 1 == pending.len();
                            let length = if last { bytes.len() / 2 + 512 } else { bytes.len() };
                            image[*offset..offset + length].copy_from_slice(&bytes[..length]);
                        }
                    }
                    of_device.push(image);
                }
            }
            of_device.dedup();
            choices.push(of_device);
        }
        let mut states_here: Vec<Vec<Vec<u8>>> = vec![Vec::new()];
        for of_device in choices {
            states_here = states_here
                .into_iter()
                .flat_map(|state| {
                    of_device.iter().map(move |image| [state.clone(), vec![image.clone()]].concat())
                })
                .collect();
        }
        for state in states_here {
            if seen.insert((cut, crc(&state.concat()))) {
                states.push((cut, state));
            }
        }
    }
    states
}

/// Sectors of 512 bytes arrive or do not: those that a crash took of one superblock may be the ones that the next crash lets
/// through of another.
#[test]
fn a_torn_superblock_is_made_whole_by_no_other() {
    let payload = vec![7; PAYLOAD_BYTES_MAX];
    let (slot, mut wanted) = (at(End::Front, 3), 0);
    let next = |disk: &Disk, generation| {
        let pool = reopen(&[on(1, disk)], 2);
        let before = disk.bytes();
        pool.commit(Generation(generation), &payload).unwrap();
        (before, disk.bytes()[slot..slot + BLOCK].to_vec())
    };
    let (before, third) = next(&committed(2), 3);
    for sector in (0..BLOCK).step_by(512) {
        let disk = Disk::with_bytes(0, before.clone());
        disk.set(slot, &third);
        disk.set(slot + sector, &[0; 512]);
        let (before, fourth) = next(&disk, 4);
        // What would have been whole.
        wanted += usize::from(third[sector..sector + 512] == fourth[sector..sector + 512]);
        let disk = Disk::with_bytes(0, before);
        disk.set(slot + sector, &fourth[sector..sector + 512]);
        let (_, report) = open(&[on(1, &disk)]).unwrap();
        assert!(report.chosen == Generation(2) && !report.rolled_back, "sector {sector}: {report:?}");
        assert_eq!(report.bad_slots.len(), 1);
    }
    assert!(wanted >= 5, "{wanted} sectors of the two are the same");
}

fn record(disks: &[Disk]) -> Arc<Mutex<Vec<Op>>> {
    let ops = Arc::new(Mutex::new(Vec::new()));
    for disk in disks {
        disk.state.lock().ops = Some(Arc::clone(&ops));
    }
    ops
}

fn disks_of(images: &[Vec<u8>]) -> Vec<Disk> {
    images.iter().enumerate().map(|(number, image)| Disk::with_bytes(number, image.clone())).collect()
}

/// Opens every crash state of `work` on `start`: the root is one of `allowed`, and the last one once `work` has
/// returned. Then recovers from it, crashes in the middle of that, and looks again.
fn check_crashes(start: &[Disk], allowed: &[u64], depth: usize, work: &dyn Fn(&[Disk])) -> usize {
    let before: Vec<Vec<u8>> = start.iter().map(Disk::bytes).collect();
    let ops = record(start);
    work(start);
    let ops = ops.lock().clone();
    let mut count = 0;
    for (cut, images) in crash_states(&before, &ops) {
        count += 1;
        let disks = disks_of(&images);
        let (pool, report) = open(&all_on(1, &disks)).unwrap();
        let chosen = report.chosen.0;
        assert!(allowed.contains(&chosen), "cut {cut}: {chosen}");
        assert!(cut < ops.len() || Some(&chosen) == allowed.last(), "an acknowledged commit was lost");
        assert_eq!(report.candidates[0].payload, payload(chosen));
        assert!(!report.rolled_back, "no crash looks like a rollback");
        drop(pool);
        if depth > 0 {
            count += check_crashes(&disks, &[chosen, chosen + 1], depth - 1, &|disks| {
                let pool = reopen(&all_on(1, disks), chosen);
                commit(&pool, chosen + 1);
            });
        }
    }
    count
}

#[test]
fn every_crash_in_a_commit_or_its_recovery_leaves_the_old_or_the_new_root() {
    let disks: Vec<Disk> = (0..2).map(|number| Disk::new(number, DEVICE_BLOCKS_MIN)).collect();
    let pool = create(&all_on(1, &disks));
    (1..=9).for_each(|generation| commit(&pool, generation));
    drop(pool);
    let states = check_crashes(&disks, &[9, 10], 1, &|disks| {
        let pool = reopen(&all_on(1, disks), 9);
        commit(&pool, 10);
    });
    assert!(states > 300, "{states}");
}

#[test]
fn every_crash_while_a_device_grows_leaves_the_old_or_the_new_root() {
    let disks: Vec<Disk> = (0..2).map(|number| Disk::new(number, DEVICE_BLOCKS_MIN)).collect();
    let pool = create(&all_on(1, &disks));
    (1..=9).for_each(|generation| commit(&pool, generation));
    drop(pool);
    disks[1].grow(DEVICE_BLOCKS_MIN + 20);
    let states = check_crashes(&disks, &[9, 10], 1, &|disks| {
        let pool = reopen(&all_on(1, disks), 9);
        commit(&pool, 10);
    });
    assert!(states > 300, "{states}");
}

#[test]
fn every_crash_while_falling_back_leaves_a_candidate() {
    let disks: Vec<Disk> = (0..2).map(|number| Disk::new(number, DEVICE_BLOCKS_MIN)).collect();
    let pool = create(&all_on(1, &disks));
    (1..=9).for_each(|generation| commit(&pool, generation));
    drop(pool);
    let before: Vec<Vec<u8>> = disks.iter().map(Disk::bytes).collect();
    let ops = record(&disks);
    let pool = open(&all_on(1, &disks)).unwrap().0;
    pool.rewrite_chosen(Generation(8)).unwrap();
    commit(&pool, 10);
    let ops = ops.lock().clone();
    for (cut, images) in crash_states(&before, &ops) {
        let (_, report) = open(&all_on(1, &disks_of(&images))).unwrap();
        let generations: Vec<u64> =
            report.candidates.iter().map(|candidate| candidate.generation.0).collect();
        assert!(matches!(generations[..], [9, 8] | [8] | [10, 8]), "cut {cut}: {generations:?}");
        assert!(cut < ops.len() || generations == [10, 8]);
    }
}

/// The block that generation `generation` fills on every disk; eight of them take turns.
fn data_block(generation: u64) -> u64 {
    AREA_BLOCKS + generation % 8
}

fn simulated(disks: &[SimDisk]) -> StoragePoolConfiguration {
    let vdevs =
        disks.iter().map(|disk| LeafVdev::from(Arc::new(disk.device()) as Arc<dyn BlockDevice>).into());
    StoragePoolConfiguration { tiers: vec![vdevs.collect()], ..Default::default() }
}

/// Opens or makes the pool and commits until the clock stops; returns the last generation that was acknowledged.
fn live(disks: &[SimDisk]) -> Result<u64, u64> {
    let options = CreateOptions { segment_blocks: 64, force: false };
    let (pool, report) = Pool::open_or_create(&simulated(disks), &options).map_err(|_| 0_u64)?;
    let mut acknowledged = 0;
    if let Some(report) = report {
        acknowledged = report.chosen.0;
        pool.rewrite_chosen(report.chosen).map_err(|_| acknowledged)?;
    }
    for _ in 0..10 {
        let next = pool.next_generation(Generation(0)).0;
        let bytes = vec![next as u8; BLOCK];
        let step = || {
            pool.vdevs()
                .iter()
                .try_for_each(|vdev| pool.write(&blocks_at(vdev.id.0, data_block(next)), 0, &bytes))?;
            pool.flush_all()?;
            pool.commit(Generation(next), &payload(next))
        };
        step().map_err(|_: PoolError| acknowledged)?;
        acknowledged = next;
    }
    Ok(acknowledged)
}

#[test]
fn random_crashes_never_lose_an_acknowledged_commit() {
    let seed = 0x9e37_79b9;
    println!("seed {seed:#x}");
    let mut rng = SimRng::new(seed);
    let (mut crashes, mut between) = (0, 0);
    for round in 0..150 {
        let clock = SimClock::new(rng.next_u64());
        let mut disks: Vec<SimDisk> =
            (0..=round % 3).map(|number| SimDisk::new(&format!("disk{number}"), 64 << 12, &clock)).collect();
        let mut acknowledged = 0;
        for _ in 0..6 {
            let clock = disks[0].clock();
            clock.set_stop_after(clock.operations() + rng.below(70));
            let (Ok(newest) | Err(newest)) = live(&disks);
            acknowledged = acknowledged.max(newest);
            let clock = SimClock::new(rng.next_u64());
            disks = disks.iter().map(|disk| disk.crash_image(&mut rng, &clock)).collect();
            crashes += 1;
            let (pool, report) = match Pool::open(&simulated(&disks), Access::ReadOnly) {
                // The first commit was cut short: nothing to find, or a device that has it beside one that does not.
                Err(PoolError::NotFound { .. }) if acknowledged == 0 => continue,
                Err(PoolError::NotAPool { .. }) if acknowledged == 0 => break,
                Err(error @ (PoolError::MissingDevice { .. } | PoolError::Damaged { .. }))
                    if acknowledged == 0 =>
                {
                    assert!(error.to_string().contains("create it again by force"), "{error}");
                    break;
                }
                other => other.unwrap(),
            };
            let chosen = report.chosen.0;
            assert!(chosen == acknowledged || chosen == acknowledged + 1, "{chosen} after {acknowledged}");
            between += chosen - acknowledged;
            assert!(!report.rolled_back);
            for candidate in &report.candidates {
                let generation = candidate.generation.0;
                assert_eq!(candidate.payload, payload(generation));
                for vdev in pool.vdevs() {
                    let mut bytes = vec![0; BLOCK];
                    pool.read(&blocks_at(vdev.id.0, data_block(generation)), 0, &mut bytes).unwrap();
                    assert!(bytes.iter().all(|byte| *byte == generation as u8), "data of {generation}");
                }
            }
            acknowledged = chosen;
        }
    }
    println!("{crashes} crashes, {between} of them with the new root before it was acknowledged");
    assert!(crashes > 500 && between > 20);
}
