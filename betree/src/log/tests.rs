//! The log against a model, on devices that crash, tear, lie and fail.

use super::format::{FrameHeader, HEADER_BYTES};
use super::*;
use crate::base::extent::Extent;
use crate::base::ids::{Uuid, VdevId};
use crate::base::preference::StoragePreference;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::dmu::Dmu;
use crate::dmu::testing::late_mirror;
use crate::pool::{Pool, TopLevelVdev};
use crate::vdev::{BlockDevice, Operation, VdevError};
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const POOL: Uuid = Uuid([0x5a; 16]);

/// xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let start = self.next();
        (0..length as u64).map(|i| (start.wrapping_add(i * i) >> 3) as u8).collect()
    }
}

/// Blocks at the front of a device that are never given out: three slots of a page of the allocation table, three of
/// the first segment's bitmap. What is given out first is the block behind them.
const FRONT: u64 = 6;

/// Block of the frame that starts at `head`.
fn frame_after(head: &LogHead) -> u64 {
    head.extent.block + u64::from(head.offset)
}

type Blocks = HashMap<u64, Vec<u8>>;

#[derive(Debug, Default)]
struct DiskState {
    /// What a crash leaves for certain.
    durable: Blocks,
    /// What reads see.
    view: Blocks,
    /// Completed writes since the last flush.
    pending: Vec<(u64, Vec<u8>)>,
    writes: u64,
    flushes: u64,
    reads: u64,
    /// Writes and flushes with these numbers, counted from 0, fail.
    fail: Range<u64>,
    /// The read with this number fails.
    fail_read: Option<u64>,
    /// Reads of this block fail.
    bad_block: Option<u64>,
}

#[derive(Debug, Default)]
struct Gate {
    /// While set, writes and flushes wait.
    closed: bool,
    waiting: usize,
}

/// A device with a volatile cache.
#[derive(Debug)]
struct Disk {
    name: String,
    bytes: u64,
    state: Mutex<DiskState>,
    gate: Mutex<Gate>,
    opened: Condvar,
}

impl Disk {
    fn new(name: &str, blocks: u64) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            bytes: blocks * BLOCK_BYTES_U64,
            state: Mutex::default(),
            gate: Mutex::default(),
            opened: Condvar::new(),
        })
    }

    /// Loses power: of each unflushed write nothing, all, or any sectors of 512 bytes arrive.
    fn crash(&self, random: &mut Random) {
        let mut state = self.state.lock();
        for (block, bytes) in std::mem::take(&mut state.pending) {
            let fate = random.below(3);
            for (sector, chunk) in bytes.chunks(512).enumerate() {
                if fate == 0 || fate == 1 && random.below(2) == 0 {
                    let at = sector * 512;
                    let old = block_mut(&mut state.durable, block + (at / BLOCK_BYTES) as u64);
                    old[at % BLOCK_BYTES..][..512].copy_from_slice(chunk);
                }
            }
        }
        state.view = state.durable.clone();
    }

    fn pass_gate(&self) {
        let mut gate = self.gate.lock();
        gate.waiting += 1;
        while gate.closed {
            self.opened.wait(&mut gate);
        }
        gate.waiting -= 1;
    }

    fn close_gate(&self) {
        self.gate.lock().closed = true;
    }

    fn open_gate(&self) {
        self.gate.lock().closed = false;
        self.opened.notify_all();
    }

    fn poke(&self, block: u64, offset: usize, bytes: &[u8]) {
        let mut state = self.state.lock();
        block_mut(&mut state.view, block)[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn peek(&self, block: u64) -> Vec<u8> {
        self.state.lock().view.get(&block).cloned().unwrap_or(vec![0; BLOCK_BYTES])
    }

    fn flip(&self, block: u64, offset: usize) {
        let byte = self.peek(block)[offset];
        self.poke(block, offset, &[byte ^ 0x10]);
    }

    fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.writes, state.flushes)
    }

    fn fail(&self, operation: Operation, offset: u64) -> VdevError {
        VdevError::Io {
            device: self.name.clone(),
            operation,
            offset,
            source: std::io::Error::other("injected"),
        }
    }
}

fn block_mut(blocks: &mut Blocks, block: u64) -> &mut Vec<u8> {
    blocks.entry(block).or_insert_with(|| vec![0; BLOCK_BYTES])
}

impl BlockDevice for Disk {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.bytes) {
            return Err(self.fail(Operation::Read, offset));
        }
        let mut state = self.state.lock();
        state.reads += 1;
        let blocks = offset / BLOCK_BYTES_U64..(offset + buf.len() as u64) / BLOCK_BYTES_U64;
        if state.fail_read == Some(state.reads - 1)
            || state.bad_block.is_some_and(|bad| blocks.contains(&bad))
        {
            return Err(self.fail(Operation::Read, offset));
        }
        for (index, chunk) in buf.chunks_mut(BLOCK_BYTES).enumerate() {
            match state.view.get(&(offset / BLOCK_BYTES_U64 + index as u64)) {
                Some(bytes) => chunk.copy_from_slice(bytes),
                None => chunk.fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
        self.pass_gate();
        let mut state = self.state.lock();
        let number = state.writes + state.flushes;
        state.writes += 1;
        if state.fail.contains(&number) {
            return Err(self.fail(Operation::Write, offset));
        }
        let block = offset / BLOCK_BYTES_U64;
        for (index, chunk) in buf.chunks(BLOCK_BYTES).enumerate() {
            block_mut(&mut state.view, block + index as u64).copy_from_slice(chunk);
        }
        state.pending.push((block, buf.to_vec()));
        Ok(())
    }

    fn flush(&self) -> Result<(), VdevError> {
        let mut state = self.state.lock();
        let number = state.writes + state.flushes;
        state.flushes += 1;
        if state.fail.contains(&number) {
            return Err(self.fail(Operation::Flush, 0));
        }
        let flushed = state.pending.len();
        drop(state);
        self.pass_gate();
        let mut state = self.state.lock();
        let flushed: Vec<_> = state.pending.drain(..flushed).collect();
        for (block, bytes) in flushed {
            for (index, chunk) in bytes.chunks(BLOCK_BYTES).enumerate() {
                block_mut(&mut state.durable, block + index as u64).copy_from_slice(chunk);
            }
        }
        Ok(())
    }
}

/// A unit over `disks` with nothing allocated, so that what it gives out was given out before by another one.
fn unit(disks: &[&Arc<Disk>]) -> Dmu {
    unit_on_tiers(&disks.iter().map(|disk| (*disk, 0)).collect::<Vec<_>>())
}

/// As [`unit`], of disks and their tiers.
fn unit_on_tiers(disks: &[(&Arc<Disk>, u8)]) -> Dmu {
    let vdevs = disks.iter().enumerate().map(|(index, (disk, tier))| {
        let device = Arc::clone(*disk) as Arc<dyn BlockDevice>;
        TopLevelVdev::leaf(VdevId(index as u32), *tier, disk.bytes / BLOCK_BYTES_U64, device)
    });
    Dmu::over(Arc::new(Pool::from_vdevs(vdevs.collect())), 0)
}

fn options(extent_blocks: u32, buffer_blocks: usize) -> LogOptions {
    LogOptions {
        extent_blocks,
        buffer_bytes: buffer_blocks * BLOCK_BYTES,
        background: false,
        ..LogOptions::new(POOL)
    }
}

/// Position after a record, and the record.
type Record = (u64, Vec<u8>);

struct Replayed {
    records: Vec<Record>,
    durable: Vec<bool>,
    marked: Vec<Extent>,
    end: ReplayEnd,
}

fn replay_all(dmu: &Dmu, head: &LogHead) -> Result<Replayed, LogError> {
    let (mut records, mut durable, mut marked) = (Vec::new(), Vec::new(), Vec::new());
    let end = replay(
        dmu,
        POOL,
        head,
        |extent| {
            marked.push(extent);
            Ok::<_, LogError>(())
        },
        |record, end, is_durable| {
            records.push((end, record.to_vec()));
            durable.push(is_durable);
            Ok(Verdict::Continue)
        },
    )?;
    Ok(Replayed { records, durable, marked, end })
}

fn append(log: &Log, records: &mut Vec<Record>, bytes: Vec<u8>) -> u64 {
    let (a, b) = bytes.split_at(bytes.len() / 3);
    let end = log.append(&[a, b]).unwrap();
    records.push((end, bytes));
    end
}

/// A few lives of a log under random operations, each ended by a crash and checked from every head still valid.
fn random_lives(seed: u64, background: bool) {
    println!("seed {seed} background {background}");
    let mut random = Random::new(seed);
    let disks = [Disk::new("a", FRONT + 40), Disk::new("b", FRONT + 6000)];
    let disks = [&disks[0], &disks[1]];
    for epoch in 1..=3 {
        let dmu = unit(&disks);
        let options = LogOptions {
            queue_bytes_max: 16 << 10,
            background,
            ..options(1 + random.below(9) as u32, 1 + random.below(5))
        };
        let (log, head) = Log::start(&dmu, options, epoch).unwrap();
        let (mut heads, mut records, mut synced) = (vec![head], Vec::new(), 0);
        for _ in 0..random.below(80) {
            match random.below(16) {
                0..=8 => {
                    let limit = [150, 5000, 60_000][random.below(16).saturating_sub(13)];
                    let length = random.below(limit);
                    let bytes = random.bytes(length);
                    append(&log, &mut records, bytes);
                }
                9..=11 => {
                    let lsn = match records.len() {
                        0 => 0,
                        _ if random.below(3) > 0 => log.position(),
                        count => records[random.below(count)].0,
                    };
                    log.sync(lsn).unwrap();
                    synced = lsn.max(synced);
                    assert!(log.durable_lsn() >= synced && log.durable_lsn() <= log.position());
                }
                12 => log.note_device(VdevId(random.below(2) as u32)),
                13 | 14 => {
                    let head = log.cut().unwrap();
                    assert_eq!(head.lsn, log.position());
                    heads.push(head);
                }
                _ => {
                    let keep = random.below(heads.len());
                    heads.drain(..keep);
                    log.release_before(&heads[0]).unwrap();
                    assert!(log.extents().contains(&heads[0].extent));
                    let last = random.below(heads.len());
                    heads[last].durable_lsn = log.durable_lsn();
                }
            }
        }
        let (live, durable_lsn) = (log.extents(), log.durable_lsn());
        drop(log);
        disks.iter().for_each(|disk| disk.crash(&mut random));
        for head in &heads {
            let found = replay_all(&dmu, head).unwrap();
            let expected: Vec<_> = records.iter().filter(|(end, _)| *end > head.lsn).collect();
            assert!(found.records.len() <= expected.len());
            assert!(found.records.iter().zip(&expected).all(|(a, b)| a == *b), "not a prefix");
            assert_eq!(found.end.lsn, found.records.last().map_or(head.lsn, |last| last.0));
            assert!(
                found.end.lsn >= synced.min(records.last().map_or(0, |last| last.0)),
                "synced records are lost"
            );
            for ((end, _), durable) in found.records.iter().zip(&found.durable) {
                assert_eq!(*durable, *end <= found.end.durable_lsn);
            }
            assert!(found.end.durable_lsn <= durable_lsn);
            for (index, extent) in found.marked.iter().enumerate() {
                assert!(live.contains(extent) && !found.marked[..index].contains(extent));
            }
            // What is read twice is the same twice.
            assert_eq!(replay_all(&dmu, head).unwrap().records, found.records);
        }
    }
}

#[test]
fn random_operations_and_crashes() {
    for seed in 0..400 {
        random_lives(seed, false);
    }
    for seed in 0..60 {
        random_lives(seed, true);
    }
}

#[test]
fn one_small_record_and_a_sync_are_one_write_and_one_flush() {
    let disk = Disk::new("a", 4096);
    for background in [false, true] {
        let (log, _) = Log::start(&unit(&[&disk]), LogOptions { background, ..options(16, 4) }, 1).unwrap();
        for _ in 0..40 {
            let before = disk.counts();
            let end = log.append(&[b"put"]).unwrap();
            log.sync(end).unwrap();
            log.sync(end).unwrap();
            assert_eq!(disk.counts(), (before.0 + 1, before.1 + 1));
        }
    }
}

#[test]
fn records_come_back_at_every_fill_level_of_an_extent() {
    for extent_blocks in [1, 2, 3] {
        let disk = Disk::new("a", FRONT + 64);
        for (epoch, length) in
            (0..2 * BLOCK_BYTES + 250).step_by(if cfg!(debug_assertions) { 3 } else { 1 }).enumerate()
        {
            let dmu = unit(&[&disk]);
            let (log, head) = Log::start(&dmu, options(extent_blocks, 2), epoch as u64 + 1).unwrap();
            let mut records = Vec::new();
            append(&log, &mut records, vec![7; length]);
            append(&log, &mut records, Vec::new());
            let cut = log.cut().unwrap();
            assert!(cut.offset < cut.extent.blocks && cut.next.is_some());
            let end = append(&log, &mut records, b"last".to_vec());
            log.sync(end).unwrap();
            assert_eq!(replay_all(&dmu, &head).unwrap().records, records, "length {length}");
            let found = replay_all(&dmu, &cut).unwrap();
            assert_eq!(found.records, records[2..], "length {length}");
            assert_eq!(found.end.reason, CutReason::End);
            assert_eq!(found.marked[0], cut.extent);
            let (live, here) = (log.extents(), log.cut().unwrap().extent);
            let from = live.iter().position(|extent| *extent == cut.extent).unwrap();
            assert_eq!(found.marked, live[from..from + found.marked.len()], "length {length}");
            assert!(
                found.marked.contains(&here),
                "the extent that goes on, and the one named next when it is full"
            );
            assert!(
                disk.peek(frame_after(&cut))[HEADER_BYTES + 8..].iter().all(|byte| *byte == 0),
                "padding"
            );
        }
    }
}

#[test]
fn records_longer_than_extents_and_the_limit() {
    let disk = Disk::new("a", FRONT + 3000);
    for background in [false, true] {
        let dmu = unit(&[&disk]);
        let options =
            LogOptions { record_bytes_max: 2 << 20, queue_bytes_max: 64 << 10, background, ..options(20, 8) };
        let (log, head) = Log::start(&dmu, options, 1 + u64::from(background)).unwrap();
        let mut records = Vec::new();
        for length in [2 << 20, 5, (2 << 20) - 1, 0] {
            append(&log, &mut records, Random::new(length as u64).bytes(length));
        }
        assert!(matches!(log.append(&[&vec![0; (2 << 20) + 1]]), Err(LogError::TooLarge { .. })));
        log.sync(u64::MAX).unwrap();
        assert!(replay_all(&dmu, &head).unwrap().records == records);
        // No log writes such a length, but the checksums are good.
        let mut frame = disk.peek(frame_after(&head));
        let (header, _) = FrameHeader::decode(&frame).unwrap();
        frame[HEADER_BYTES..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let short = FrameHeader { blocks: 1, payload_bytes: 200, ..header };
        short.seal(&mut frame);
        disk.poke(frame_after(&head), 0, &frame);
        let error = replay_all(&dmu, &head).map(|found| found.end);
        assert!(matches!(error, Err(LogError::Corrupt { lsn: 0, .. })), "{error:?}");
    }
}

#[test]
fn running_out_of_space_changes_nothing() {
    let disk = Disk::new("a", FRONT + 16);
    let dmu = unit(&[&disk]);
    let (log, head) = Log::start(&dmu, options(4, 4), 1).unwrap();
    let mut records = Vec::new();
    append(&log, &mut records, vec![1; 3000]);
    for _ in 0..3 {
        let (extents, position) = (log.extents(), log.position());
        assert!(matches!(log.append(&[&vec![2; 100_000]]), Err(LogError::Dmu(_))));
        assert_eq!((log.extents(), log.position()), (extents, position));
    }
    append(&log, &mut records, vec![3; 9000]);
    log.sync(u64::MAX).unwrap();
    assert_eq!(replay_all(&dmu, &head).unwrap().records, records);
}

/// A synced log of `count` one-block frames with one record each, in the blocks from [`FRONT`] on: unit, head after the
/// start, records.
fn synced_frames(disk: &Arc<Disk>, epoch: u64, count: usize) -> (Dmu, LogHead, Vec<Record>) {
    let dmu = unit(&[disk]);
    let (log, mut head) = Log::start(&dmu, options(5, 2), epoch).unwrap();
    let mut records = Vec::new();
    for index in 0..count {
        let end = append(&log, &mut records, vec![index as u8; 100]);
        log.sync(end).unwrap();
    }
    head.durable_lsn = log.durable_lsn();
    let mut next = FRONT;
    for extent in log.extents() {
        assert_eq!(extent.block, next, "tests find frames and extents by their numbers");
        next = extent.end();
    }
    (dmu, head, records)
}

#[test]
fn damage_below_the_durable_position_is_reported_and_above_it_is_the_tail() {
    let count = 13;
    for frame in 0..count {
        for offset in [0, 40, 48, HEADER_BYTES, HEADER_BYTES + 103, HEADER_BYTES + 104] {
            let disk = Disk::new("the device", 256);
            let (dmu, with_durable, records) = synced_frames(&disk, 1, count);
            let head = LogHead { durable_lsn: 0, ..with_durable };
            let start = frame as u64 * 104;
            disk.flip(FRONT + frame as u64, offset);
            let (found, knowing) = (replay_all(&dmu, &head), replay_all(&dmu, &with_durable));
            if offset == HEADER_BYTES + 104 {
                assert_eq!(found.unwrap().records, records, "padding");
                continue;
            }
            match found {
                Err(LogError::Damaged { device, block, lsn, durable_lsn }) if frame < count - 1 => {
                    assert_eq!((device.as_str(), block, lsn), ("the device", FRONT + frame as u64, start));
                    assert!(durable_lsn > start);
                }
                // Nothing vouches for the last frame, but the superblock may.
                Ok(found) if frame == count - 1 => assert_eq!(found.records, records[..frame]),
                other => panic!("frame {frame}: {:?}", other.map(|found| found.end)),
            }
            assert!(matches!(knowing, Err(LogError::Damaged { lsn, .. }) if lsn == start));
        }
    }
}

#[test]
fn of_unflushed_frames_only_the_second_landed() {
    let disk = Disk::new("a", 256);
    let dmu = unit(&[&disk]);
    let (log, head) = Log::start(&dmu, options(8, 1), 1).unwrap();
    let mut records = Vec::new();
    let end = append(&log, &mut records, vec![1; 50]);
    log.sync(end).unwrap();
    append(&log, &mut records, vec![2; 3996]);
    append(&log, &mut records, vec![3; 3996]);
    assert_eq!(disk.counts(), (3, 1), "one synced frame and two full ones");
    disk.poke(frame_after(&head) + 1, 0, &[0; BLOCK_BYTES]);
    let found = replay_all(&dmu, &head).unwrap();
    assert_eq!(found.records, records[..1]);
    assert_eq!((found.end.reason, found.end.durable_lsn), (CutReason::Tail, end));
    assert_eq!(found.durable, [true]);
}

#[test]
fn frames_of_other_lives_pools_places_and_uses_are_not_taken() {
    let disk = Disk::new("a", 256);
    // An earlier life with equal lengths, all over the same blocks.
    synced_frames(&disk, 1, 12);
    let (dmu, head, records) = synced_frames(&disk, 2, 4);
    let head = LogHead { durable_lsn: 0, ..head };
    let found = replay_all(&dmu, &head).unwrap();
    assert_eq!((found.records, found.end.reason), (records.clone(), CutReason::End));
    // A copy of the last frame elsewhere, and a frame of the same epoch from an earlier use of the block.
    disk.poke(FRONT + 4, 0, &disk.peek(FRONT + 3));
    let mut ghost = disk.peek(FRONT + 2);
    let (header, _) = FrameHeader::decode(&ghost).unwrap();
    FrameHeader { block: FRONT + 5, ..header }.seal(&mut ghost);
    disk.poke(FRONT + 5, 0, &ghost);
    let found = replay_all(&dmu, &head).unwrap();
    assert_eq!((found.records, found.end.reason), (records.clone(), CutReason::End));
    // A frame that continues the stream, but of another pool or behind another frame.
    let (last, checksum) = FrameHeader::decode(&disk.peek(FRONT + 3)).unwrap();
    let follower = FrameHeader { lsn: last.end_lsn(), block: FRONT + 4, previous: checksum, ..last };
    for (header, taken) in [
        (follower, true),
        (FrameHeader { pool: Uuid([1; 16]), ..follower }, false),
        (FrameHeader { epoch: 1, ..follower }, false),
        (FrameHeader { previous: checksum ^ 1, ..follower }, false),
        (FrameHeader { vdev: VdevId(1), ..follower }, false),
        (FrameHeader { block: FRONT + 5, ..follower }, false),
        (FrameHeader { next: Extent { block: 200, ..follower.next }, ..follower }, false),
    ] {
        let mut frame = disk.peek(FRONT + 3);
        header.seal(&mut frame);
        disk.poke(FRONT + 4, 0, &frame);
        assert_eq!(replay_all(&dmu, &head).unwrap().records.len(), 4 + usize::from(taken), "{header:?}");
    }
    assert!(replay_all(&dmu, &LogHead { epoch: 3, ..head }).unwrap().records.is_empty());
}

#[test]
fn every_prefix_of_a_torn_frame_over_every_past_is_the_tail() {
    let disk = Disk::new("a", 256);
    synced_frames(&disk, 1, 12);
    let old = disk.peek(FRONT + 4);
    let (dmu, head, records) = synced_frames(&disk, 2, 5);
    let head = LogHead { durable_lsn: 0, ..head };
    let new = disk.peek(FRONT + 4);
    for past in [vec![0; BLOCK_BYTES], vec![0xff; BLOCK_BYTES], old] {
        for length in 0..=BLOCK_BYTES {
            disk.poke(FRONT + 4, 0, &past);
            disk.poke(FRONT + 4, 0, &new[..length]);
            let arrived = disk.peek(FRONT + 4)[..HEADER_BYTES + 104] == new[..HEADER_BYTES + 104];
            let found = replay_all(&dmu, &head).unwrap();
            assert_eq!(found.records, records[..4 + usize::from(arrived)], "{length}");
        }
    }
}

#[test]
fn random_damage_never_panics_and_never_makes_records_up() {
    for seed in 0..600 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let disk = Disk::new("a", 256);
        let (dmu, head, records) = synced_frames(&disk, 1, 20);
        for _ in 0..=random.below(3) {
            let (block, offset, length) =
                (FRONT + random.below(22) as u64, random.below(220), 1 + random.below(30));
            let bytes = random.bytes(length);
            disk.poke(block, offset, &bytes);
        }
        if let Ok(found) = replay_all(&dmu, &LogHead { durable_lsn: 0, ..head }) {
            assert_eq!(found.records, records[..found.records.len()]);
        }
    }
}

#[test]
fn the_caller_cuts_and_stops() {
    let disk = Disk::new("a", 256);
    let (dmu, head, records) = synced_frames(&disk, 1, 6);
    let mut seen = 0;
    let end = replay(
        &dmu,
        POOL,
        &head,
        |_| Ok::<_, LogError>(()),
        |_, _, _| {
            seen += 1;
            Ok(if seen == 4 { Verdict::Cut } else { Verdict::Continue })
        },
    );
    let end = end.unwrap();
    assert_eq!((end.lsn, end.reason, end.epoch), (records[2].0, CutReason::Caller, 1));

    let own = LogError::TooLarge { bytes: 1, limit: 0 };
    let refused = replay(&dmu, POOL, &head, |_| Err(own.clone()), |_, _, _| Ok(Verdict::Continue));
    assert!(matches!(refused, Err(LogError::TooLarge { .. })));
    let refused = replay(&dmu, POOL, &head, |_| Ok::<_, LogError>(()), |_, _, _| Err(own.clone()));
    assert!(matches!(refused, Err(LogError::TooLarge { .. })));
}

#[test]
fn large_values_are_flushed_before_the_log() {
    let (logs, values) = (Disk::new("log", 4096), Disk::new("values", 64));
    let (log, _) = Log::start(&unit_on_tiers(&[(&logs, 0), (&values, 1)]), options(16, 4), 1).unwrap();
    log.note_device(VdevId(1));
    log.note_device(VdevId(0));
    let end = log.append(&[b"names both"]).unwrap();
    values.state.lock().fail = 0..1;
    assert!(log.sync(end).is_err(), "the value did not become durable");
    assert_eq!(logs.counts(), (0, 0), "so the record was not even written");

    let values = Disk::new("values", 64);
    let (log, _) = Log::start(&unit_on_tiers(&[(&logs, 0), (&values, 1)]), options(16, 4), 2).unwrap();
    log.note_device(VdevId(1));
    log.note_device(VdevId(0));
    let end = log.append(&[b"names both"]).unwrap();
    log.sync(end).unwrap();
    let end = log.append(&[b"names none"]).unwrap();
    log.sync(end).unwrap();
    assert_eq!((logs.counts(), values.counts()), ((2, 2), (0, 1)));
}

/// Nobody syncs: a crash then takes what was not in a full frame, and the values of that.
#[test]
fn a_full_frame_takes_along_the_values_that_were_written_behind() {
    for background in [false, true] {
        let (logs, values) = (Disk::new("log", 4096), Disk::new("values", 4096));
        let dmu = unit_on_tiers(&[(&logs, 0), (&values, 1)]);
        let (log, _) = Log::start(&dmu, LogOptions { background, ..options(16, 1) }, 1).unwrap();
        let extent = dmu.write_behind(&[7; 5000], StoragePreference::FAST).unwrap().unwrap();
        assert_eq!(extent.vdev, VdevId(1));
        for _ in 0..6 {
            log.append(&[&[1; 1000]]).unwrap();
        }
        // The frame comes in any case, and behind the value.
        while logs.counts().0 == 0 {
            std::thread::yield_now();
        }
        assert_eq!(values.peek(extent.block), [7; BLOCK_BYTES], "{background}");
    }
}

#[test]
fn after_the_nth_failure_nothing_is_acknowledged_and_what_was_is_there() {
    for n in 0..40 {
        for (background, end) in [(false, n + 1), (false, u64::MAX), (true, n + 1), (true, u64::MAX)] {
            fail_and_recover(background, n..end);
        }
    }
}

/// Appends and syncs on a device whose writes and flushes with the numbers `fail` fail, then crashes.
fn fail_and_recover(background: bool, fail: Range<u64>) {
    let n = fail.start;
    println!("background {background} failure {fail:?}");
    let disk = Disk::new("a", 1024);
    let dmu = unit(&[&disk]);
    let options = LogOptions { queue_bytes_max: 8 << 10, background, ..options(4, 2) };
    let (log, head) = Log::start(&dmu, options, 1).unwrap();
    disk.state.lock().fail = fail;
    let (mut records, mut acknowledged, mut failed) = (Vec::new(), 0, false);
    for step in 0..30 {
        let bytes = Random::new(step).bytes(if step % 5 == 4 { 30_000 } else { 300 });
        let result = log.append(&[&bytes]).and_then(|end| {
            records.push((end, bytes));
            log.sync(end)?;
            Ok(end)
        });
        match result {
            Ok(end) => {
                assert!(!failed, "acknowledged after a failure");
                acknowledged = end;
            }
            Err(error) => {
                assert!(!failed || matches!(error, LogError::Poisoned(_)), "{error}");
                failed = true;
            }
        }
    }
    assert!(failed, "the run is long enough for this failure");
    assert!(log.sync(0).is_err() && log.cut().is_err() && log.append(&[]).is_err());
    assert!(log.release_before(&head).is_err());
    drop(log);
    disk.crash(&mut Random::new(n));
    let found = replay_all(&dmu, &head).unwrap();
    assert!(found.end.lsn >= acknowledged);
    let whole = found.records.len().min(records.len());
    assert_eq!(found.records[..whole], records[..whole]);
}

#[test]
fn a_read_that_fails_once_does_not_matter_and_a_bad_sector_is_an_error() {
    let disk = Disk::new("a", 256);
    let (dmu, head, records) = synced_frames(&disk, 1, 20);
    for n in 0.. {
        {
            let mut state = disk.state.lock();
            (state.reads, state.fail_read) = (0, Some(n));
        }
        assert_eq!(replay_all(&dmu, &head).unwrap().records, records);
        if disk.state.lock().reads <= n {
            break;
        }
    }
    // Whether tail or not: behind the end it may hide evidence.
    for block in FRONT..FRONT + 25 {
        disk.state.lock().bad_block = Some(block);
        assert!(matches!(replay_all(&dmu, &head), Err(LogError::Dmu(_))), "block {block}");
    }
}

#[test]
fn evidence_is_found_several_extents_behind_the_damage() {
    let disk = Disk::new("a", 256);
    let dmu = unit(&[&disk]);
    let (log, head) = Log::start(&dmu, options(1, 1), 1).unwrap();
    log.append(&[&vec![1; 20_000]]).unwrap();
    log.sync(u64::MAX).unwrap();
    let end = log.append(&[b"vouches"]).unwrap();
    log.sync(end).unwrap();
    disk.flip(head.extent.block, 200);
    let found = replay_all(&dmu, &head).map(|found| found.end);
    assert!(matches!(found, Err(LogError::Damaged { lsn: 0, durable_lsn: 20_004, .. })), "{found:?}");
}

#[test]
fn a_record_stays_whole_while_its_append_waits() {
    for with_sync in [false, true] {
        let disk = Disk::new("a", 256);
        let dmu = unit(&[&disk]);
        let options = LogOptions { queue_bytes_max: 8 << 10, background: true, ..options(3, 1) };
        let (log, head) = Log::start(&dmu, options, 1).unwrap();
        let log = &log;
        disk.close_gate();
        std::thread::scope(|scope| {
            scope.spawn(move || log.append(&[&vec![1; 40_000]]).unwrap());
            while log.position() < 8000 {
                std::thread::yield_now();
            }
            // Not even started, or waiting for the rest of the record: what comes back is the same.
            scope.spawn(move || {
                if with_sync {
                    log.sync(u64::MAX).unwrap();
                } else {
                    log.append(&[&[2; 10]]).unwrap();
                }
            });
            for _ in 0..1000 {
                std::thread::yield_now();
            }
            disk.open_gate();
        });
        log.sync(u64::MAX).unwrap();
        let found = replay_all(&dmu, &head).unwrap();
        assert_eq!(found.end.lsn, log.position());
        assert_eq!(found.records[0], (40_004, vec![1; 40_000]));
        // No frame was sealed before it was full: the space counted for the record is enough.
        let frames = 40_004_u64.div_ceil((BLOCK_BYTES - HEADER_BYTES) as u64);
        assert!(
            with_sync.then(|| log.bytes_since(&head)).is_none_or(|bytes| bytes == frames * BLOCK_BYTES_U64)
        );
    }
}

#[test]
fn a_release_waits_for_queued_frames() {
    let disk = Disk::new("a", 1024);
    let dmu = unit(&[&disk]);
    let (log, head) = Log::start(&dmu, options(2, 8), 1).unwrap();
    log.append(&[&vec![1; 5000]]).unwrap();
    let cut = log.cut().unwrap();
    assert_eq!((cut.offset, disk.counts()), (0, (0, 0)), "cutting writes nothing");
    assert_eq!(log.bytes_since(&head), 2 * BLOCK_BYTES_U64);
    assert_eq!(log.bytes_since(&cut), 0);
    log.release_before(&LogHead { epoch: 0, ..cut }).unwrap();
    assert_eq!(log.extents().len(), 3);
    log.release_before(&cut).unwrap();
    assert_eq!(disk.counts(), (1, 0));
    assert_eq!(log.extents()[0], cut.extent);
    let end = log.append(&[b"x"]).unwrap();
    assert_eq!(log.bytes_since(&cut), BLOCK_BYTES_U64);
    assert_eq!(log.bytes_since(&head), BLOCK_BYTES_U64, "what was given back does not count");
    log.sync(end).unwrap();
    assert_eq!(replay_all(&dmu, &cut).unwrap().records, [(end, b"x".to_vec())]);
}

#[test]
fn eight_threads_share_two_flushes() {
    let disk = Disk::new("a", 4096);
    let dmu = unit(&[&disk]);
    let (log, head) = Log::start(&dmu, LogOptions { background: true, ..options(64, 32) }, 1).unwrap();
    let (appended, log) = (AtomicUsize::new(0), &log);
    disk.close_gate();
    std::thread::scope(|scope| {
        // The first leads and hangs in its write.
        let first = log.append(&[b"first"]).unwrap();
        scope.spawn(move || log.sync(first).unwrap());
        while disk.gate.lock().waiting == 0 {
            std::thread::yield_now();
        }
        for index in 0..8_u8 {
            let appended = &appended;
            scope.spawn(move || {
                let end = log.append(&[&[index; 100]]).unwrap();
                appended.fetch_add(1, Ordering::SeqCst);
                log.sync(end).unwrap();
                assert!(log.durable_lsn() >= end);
            });
        }
        while appended.load(Ordering::SeqCst) < 8 {
            std::thread::yield_now();
        }
        disk.open_gate();
    });
    assert_eq!(disk.counts(), (2, 2));
    assert_eq!(replay_all(&dmu, &head).unwrap().records.len(), 9);
}

#[test]
fn frames_that_gather_are_written_at_once() {
    let disk = Disk::new("a", 4096);
    let dmu = unit(&[&disk]);
    // Frames of a block, in extents of which one is too short for all of them.
    let (log, head) = Log::start(&dmu, LogOptions { background: true, ..options(32, 1) }, 1).unwrap();
    let mut records = Vec::new();
    let mut fill = |random: &mut Random, frames: usize| {
        for _ in 0..frames {
            let bytes = random.bytes(BLOCK_BYTES - HEADER_BYTES - 4);
            append(&log, &mut records, bytes);
        }
    };
    let mut random = Random::new(1);
    disk.close_gate();
    fill(&mut random, 1);
    while disk.gate.lock().waiting == 0 {
        std::thread::yield_now();
    }
    fill(&mut random, 45);
    disk.open_gate();
    log.sync(u64::MAX).unwrap();
    // The first, those to the end of its extent, those in the next one; some more where the sync took a part of them.
    let (writes, _) = disk.counts();
    assert!((3..=5).contains(&writes), "{writes} writes of 46 frames");
    let found = replay_all(&dmu, &head).unwrap();
    assert!(found.records == records);
}

#[test]
fn threads_append_sync_cut_and_release_together() {
    let disk = Disk::new("a", FRONT + 20_000);
    let dmu = unit(&[&disk]);
    let options = LogOptions { queue_bytes_max: 32 << 10, background: true, ..options(16, 4) };
    let (log, _) = Log::start(&dmu, options, 1).unwrap();
    let all = Mutex::new(Vec::new());
    let commit = Mutex::new(());
    let last = std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (log, all, commit) = (&log, &all, &commit);
            scope.spawn(move || {
                let mut random = Random::new(thread);
                for _ in 0..150 {
                    let limit = if random.below(8) == 0 { 30_000 } else { 100 };
                    let length = random.below(limit);
                    let bytes = random.bytes(length);
                    // Without the commit lock every other time: records stay whole all the same.
                    let guard = (thread % 2 == 0).then(|| commit.lock());
                    let end = log.append(&[&bytes]).unwrap();
                    drop(guard);
                    all.lock().push((end, bytes));
                    if random.below(3) == 0 {
                        log.sync(end).unwrap();
                    }
                }
            });
        }
        let (log, commit) = (&log, &commit);
        scope
            .spawn(move || {
                let mut head = log.cut().unwrap();
                for _ in 0..50 {
                    let guard = commit.lock();
                    head = log.cut().unwrap();
                    drop(guard);
                    log.release_before(&head).unwrap();
                    std::thread::yield_now();
                }
                head
            })
            .join()
            .unwrap()
    });
    log.sync(u64::MAX).unwrap();
    disk.crash(&mut Random::new(1));
    let mut expected = all.into_inner();
    expected.retain(|(end, _)| *end > last.lsn);
    expected.sort_unstable();
    assert!(replay_all(&dmu, &last).unwrap().records == expected);
}

/// Run alone: the switch is for the whole process.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_drop_log_record_loses_every_eighth() {
    use crate::base::planted::{Bug, plant};
    plant(Bug::DropLogRecord, true);
    let disk = Disk::new("a", 256);
    let (dmu, head, records) = synced_frames(&disk, 1, 16);
    plant(Bug::DropLogRecord, false);
    let found: Vec<_> =
        replay_all(&dmu, &head).unwrap().records.into_iter().map(|record| record.1[0]).collect();
    let kept = records.iter().map(|record| record.1[0]).filter(|index| index % 8 != 7);
    assert_eq!(found, kept.collect::<Vec<_>>());
}

/// A frame that does not read on the member that holds everything is had of one that is not known to.
#[test]
fn frames_that_do_not_read_are_had_of_a_member_that_is_late() {
    let (dmu, disks) = late_mirror(1 << 11);
    let (log, mut head) = Log::start(&dmu, options(16, 4), 1).unwrap();
    let mut records = Vec::new();
    for index in 0..20 {
        let end = append(&log, &mut records, vec![index; 100 + 900 * usize::from(index)]);
        log.sync(end).unwrap();
    }
    head.durable_lsn = log.durable_lsn();
    // Those that are full: what is not written has no frame that anybody could know.
    let extents = log.extents();
    let full = &extents[..extents.len() - 2];
    let blocks: Vec<u64> = full.iter().flat_map(|extent| extent.block..extent.end()).collect();
    for step in [1, 3] {
        blocks.iter().step_by(step).for_each(|block| disks[0].wear(*block));
        assert_eq!(replay_all(&dmu, &head).unwrap().records, records, "every {step}");
    }
    // Where nobody has it, it is no tail.
    disks.iter().for_each(|disk| disk.wear(blocks[0]));
    assert!(matches!(replay_all(&dmu, &head), Err(LogError::Dmu(_))));
}
