//! The disk against models of it.

use super::super::image::SECTOR_BYTES;
use super::*;
use std::collections::HashMap;

const BLOCKS: u64 = 64;
const DISK_BYTES: u64 = BLOCKS * BLOCK_BYTES_U64;

/// Whole blocks whose sectors all carry `stamp`.
fn stamped(stamp: u64, blocks: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat((blocks * BLOCK_BYTES_U64) as usize / 8)
}

/// The stamp of each sector; fails when a sector is made of parts.
fn stamps(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks_exact(SECTOR_BYTES)
        .map(|sector| {
            let stamp: [u8; 8] = sector[..8].try_into().unwrap();
            assert!(sector.chunks_exact(8).all(|part| part == stamp), "a sector is torn");
            u64::from_le_bytes(stamp)
        })
        .collect()
}

fn block_of(device: &SimDevice, block: u64) -> u64 {
    let mut page = [0; BLOCK_BYTES];
    device.read_at(&mut page, block * BLOCK_BYTES_U64).unwrap();
    let found = stamps(&page);
    assert!(found.iter().all(|stamp| *stamp == found[0]), "{found:?}");
    found[0]
}

fn write(device: &SimDevice, block: u64, stamp: u64) {
    device.write_at(&stamped(stamp, 1), block * BLOCK_BYTES_U64).unwrap();
}

/// What each sector may hold after a crash: the durable stamp first, then those of the pending writes.
struct Model {
    legal: Vec<Vec<u64>>,
}

impl Model {
    fn new() -> Self {
        Self { legal: vec![vec![0]; DISK_BYTES as usize / SECTOR_BYTES] }
    }

    fn write(&mut self, block: u64, blocks: u64, stamp: u64) {
        let sectors = 8 * block as usize..8 * (block + blocks) as usize;
        self.legal[sectors].iter_mut().for_each(|legal| legal.push(stamp));
    }

    fn flush(&mut self) {
        self.legal.iter_mut().for_each(|legal| *legal = vec![*legal.last().unwrap()]);
    }

    fn visible(&self) -> Vec<u64> {
        self.legal.iter().map(|legal| *legal.last().unwrap()).collect()
    }

    fn check(&self, image: &SimDisk, context: &str) {
        for (sector, (found, legal)) in stamps(&image.bytes()).iter().zip(&self.legal).enumerate() {
            assert!(legal.contains(found), "{context}: sector {sector} holds {found}, legal are {legal:?}");
        }
    }
}

enum Step {
    Write { block: u64, blocks: u64, stamp: u64 },
    Flush,
}

fn workload(rng: &mut SimRng, steps: u64) -> Vec<Step> {
    (1..=steps)
        .map(|stamp| {
            if rng.chance(1, 8) {
                return Step::Flush;
            }
            let block = rng.below(BLOCKS);
            Step::Write { block, blocks: 1 + rng.below(5.min(BLOCKS - block)), stamp }
        })
        .collect()
}

fn take(step: &Step, device: &SimDevice) -> Result<(), VdevError> {
    match *step {
        Step::Write { block, blocks, stamp } => {
            device.write_at(&stamped(stamp, blocks), block * BLOCK_BYTES_U64)
        }
        Step::Flush => device.flush(),
    }
}

fn record(step: &Step, model: &mut Model) {
    match *step {
        Step::Write { block, blocks, stamp } => model.write(block, blocks, stamp),
        Step::Flush => model.flush(),
    }
}

#[test]
fn crash_images_are_legal_and_of_every_shape() {
    let (mut none, mut all, mut torn, mut reordered) = (0, 0, 0, 0);
    for seed in 0..200 {
        let mut rng = SimRng::new(seed);
        let clock = SimClock::new(seed);
        let disk = SimDisk::new("disk", DISK_BYTES, &clock);
        let (device, mut model) = (disk.device(), Model::new());
        for step in workload(&mut rng, 40) {
            take(&step, &device).unwrap();
            record(&step, &mut model);
            assert_eq!(stamps(&disk.bytes()), model.visible(), "seed {seed}");
            let image = disk.crash_image(&mut rng, &SimClock::new(seed));
            model.check(&image, &format!("seed {seed}"));
            let found = stamps(&image.bytes());
            let lost = |legal: &Vec<u64>, found: u64| legal.len() > 1 && found == legal[0];
            let pending = model.legal.iter().filter(|legal| legal.len() > 1).count();
            let gone = model.legal.iter().zip(&found).filter(|(legal, found)| lost(legal, **found)).count();
            none += u32::from(pending > 0 && gone == pending);
            all += u32::from(pending > 0 && found == model.visible());
            torn += u32::from(found.chunks(8).any(|page| page.iter().any(|stamp| *stamp != page[0])));
            let middle =
                |legal: &Vec<u64>, found: u64| legal.len() > 2 && legal[1..legal.len() - 1].contains(&found);
            reordered +=
                u32::from(model.legal.iter().zip(&found).any(|(legal, found)| middle(legal, *found)));
        }
    }
    for (what, times) in [("none", none), ("all", all), ("torn", torn), ("an earlier write", reordered)] {
        assert!(times > 50, "{what}: only {times} of 8000 images");
    }
}

#[test]
fn images_from_the_history_are_those_of_a_process_that_died_there() {
    for seed in 0..20 {
        let steps = workload(&mut SimRng::new(seed), 40);
        let recorded = SimDisk::new("disk", DISK_BYTES, &SimClock::new(seed));
        recorded.keep_history();
        steps.iter().for_each(|step| take(step, &recorded.device()).unwrap());
        let mut model = Model::new();
        for operation in 0..=steps.len() as u64 {
            let clock = SimClock::new(seed);
            let died = SimDisk::new("disk", DISK_BYTES, &clock);
            died.set_stop_after(operation);
            let device = died.device();
            let taken = steps.iter().take_while(|step| take(step, &device).is_ok()).count();
            assert_eq!(taken as u64, operation);
            assert_eq!(clock.operations(), operation);
            assert_eq!(clock.is_crashed(), operation < steps.len() as u64);
            assert_eq!(died.pending_at(u64::MAX), recorded.pending_at(operation));

            if operation > 0 {
                record(&steps[operation as usize - 1], &mut model);
            }
            let mut with_next = Model { legal: model.legal.clone() };
            if let Some(step @ Step::Write { .. }) = steps.get(operation as usize) {
                record(step, &mut with_next);
            }
            for choice in 0..20 {
                let image = recorded.crash_image_at(operation, &mut SimRng::new(choice), &SimClock::new(0));
                let same = died.crash_image(&mut SimRng::new(choice), &SimClock::new(0));
                assert!(image.bytes() == same.bytes(), "seed {seed}, operation {operation}");
                with_next.check(&image, &format!("seed {seed}, operation {operation}"));
            }
        }
        let flushes = steps.iter().filter(|step| matches!(step, Step::Flush)).count();
        let log = recorded.log();
        assert_eq!(log.len(), steps.len());
        assert_eq!(
            log.iter().filter(|entry| matches!(entry, LoggedOperation::Flush { .. })).count(),
            flushes
        );
    }
}

#[test]
fn every_case_of_few_sectors_can_be_tried() {
    let disk = SimDisk::new("disk", DISK_BYTES, &SimClock::new(0));
    let device = disk.device();
    write(&device, 3, 1);
    device.flush().unwrap();
    write(&device, 3, 2);
    write(&device, 3, 3);
    write(&device, 7, 4);
    assert_eq!(disk.pending_at(u64::MAX).len(), 3);
    let mut found = HashMap::new();
    for case in 0..8_u32 {
        let image = disk.crash_image_where(u64::MAX, &SimClock::new(0), |write, _| case & (1 << write) != 0);
        let after = image.device();
        *found.entry((block_of(&after, 3), block_of(&after, 7))).or_insert(0) += 1;
    }
    let expected = [(1, 0), (2, 0), (3, 0), (1, 4), (2, 4), (3, 4)];
    assert_eq!(found.len(), expected.len());
    assert!(expected.iter().all(|case| found.contains_key(case)), "{found:?}");

    let half = disk.crash_image_where(u64::MAX, &SimClock::new(0), |write, sector| write == 1 && sector >= 4);
    assert_eq!(stamps(&half.bytes())[24..32], [1, 1, 1, 1, 3, 3, 3, 3]);
}

#[test]
fn disks_share_the_clock_and_nothing_else() {
    let clock = SimClock::new(9);
    let (a, b) = (SimDisk::new("a", DISK_BYTES, &clock), SimDisk::volatile("b", DISK_BYTES, &clock));
    let c = SimDisk::new("c", DISK_BYTES, &clock);
    for (disk, stamp) in [(&a, 1), (&b, 2), (&c, 3)] {
        write(&disk.device(), 0, stamp);
    }
    a.device().flush().unwrap();
    b.device().flush().unwrap();
    assert_eq!(clock.operations(), 5);
    a.set_stop_after(5);
    assert!(b.device().is_volatile() && !a.device().is_volatile());

    let error = c.device().write_at(&stamped(4, 1), 4096).unwrap_err();
    assert_eq!(error.to_string(), "write of c at byte 4096 failed: crashed");
    let mut page = [0; BLOCK_BYTES];
    for disk in [&a, &b, &c] {
        assert!(disk.device().read_at(&mut page, 0).is_err(), "dead");
        assert!(disk.device().write_at(&page, 0).is_err());
        assert!(disk.device().flush().is_err());
    }
    assert_eq!(clock.operations(), 5);

    let (mut rng, mut lost, mut landed) = (SimRng::new(1), 0, 0);
    for _ in 0..100 {
        let after = SimClock::new(1);
        assert_eq!(block_of(&a.crash_image(&mut rng, &after).device(), 0), 1);
        assert!(b.crash_image(&mut rng, &after).bytes().iter().all(|byte| *byte == 0));
        let image = c.crash_image(&mut rng, &after);
        let found = stamps(&image.bytes());
        assert!(found[..8].iter().all(|stamp| [0, 3].contains(stamp)));
        assert!(found[8..16].iter().all(|stamp| [0, 4].contains(stamp)));
        assert!(found[16..].iter().all(|stamp| *stamp == 0), "what was tried after death");
        lost += u32::from(found[8] == 0);
        landed += u32::from(found[8] == 4);
    }
    assert!(lost > 10 && landed > 10, "the write under way: lost {lost}, landed {landed}");
}

#[test]
fn a_crash_without_an_operation_under_way() {
    let clock = SimClock::new(0);
    let disk = SimDisk::new("disk", DISK_BYTES, &clock);
    write(&disk.device(), 0, 1);
    clock.crash();
    assert!(clock.is_crashed() && disk.device().flush().is_err());
    assert_eq!(disk.pending_at(u64::MAX).len(), 1);
    assert_eq!(clock.operations(), 1);
}

#[test]
fn failed_reads_and_writes() {
    let disk = SimDisk::new("disk", DISK_BYTES, &SimClock::new(5));
    let device = disk.device();
    disk.arm(Fault::ReadError { nth: 2, sticky: false });
    let mut page = [0; BLOCK_BYTES];
    let results: Vec<bool> = (0..3).map(|_| device.read_at(&mut page, 0).is_ok()).collect();
    assert_eq!(results, [true, false, true]);
    assert_eq!(disk.fired(FaultKind::ReadError), 1);

    disk.arm(Fault::WriteError { nth: 1, sticky: true });
    let (mut none, mut all, mut some) = (0, 0, 0);
    for stamp in 1..=100 {
        let error = device.write_at(&stamped(stamp, 1), 4096).unwrap_err();
        assert!(!error.is_out_of_space());
        device.read_at(&mut page, 4096).unwrap();
        let landed = stamps(&page).iter().filter(|found| **found == stamp).count();
        none += u32::from(landed == 0);
        all += u32::from(landed == 8);
        some += u32::from(landed > 0 && landed < 8);
        let all_pending = disk.crash_image_where(u64::MAX, &SimClock::new(0), |_, _| true);
        assert!(all_pending.bytes() == disk.bytes(), "sectors that were not written do not land");
    }
    assert!(none > 10 && all > 10 && some > 10, "{none} {all} {some}");
    assert_eq!(disk.fired(FaultKind::WriteError), 100);
    disk.clear_faults();
    write(&device, 1, 7);
    assert_eq!(block_of(&device, 1), 7);
}

#[test]
fn a_full_host_file_system() {
    let disk = SimDisk::new("disk", DISK_BYTES, &SimClock::new(5));
    let device = disk.device();
    disk.arm(Fault::OutOfSpace { nth: 2 });
    write(&device, 0, 1);
    for _ in 0..5 {
        let error = device.write_at(&stamped(2, 4), 0).unwrap_err();
        assert!(error.is_out_of_space(), "{error}");
    }
    let mut pages = [0; 4 * BLOCK_BYTES];
    device.read_at(&mut pages, 0).unwrap();
    assert!(stamps(&pages).is_sorted_by(|a, b| a >= b), "a prefix was written");
    assert_eq!(disk.fired(FaultKind::OutOfSpace), 5);
}

#[test]
fn writes_that_are_dropped_or_go_elsewhere() {
    let disk = SimDisk::new("disk", DISK_BYTES, &SimClock::new(5));
    let device = disk.device();
    for block in 0..4 {
        write(&device, block, 10 + block);
    }
    device.flush().unwrap();
    disk.arm(Fault::DroppedWrite { nth: 1 });
    disk.arm(Fault::MisdirectedWrite { nth: 2, block: u64::MAX });
    write(&device, 0, 20);
    write(&device, 1, 21);
    write(&device, 2, 22);
    device.flush().unwrap();
    let everything = disk.crash_image(&mut SimRng::new(0), &SimClock::new(0)).device();
    for device in [&device, &everything] {
        let found = [0, 1, 2, 3, BLOCKS - 1].map(|block| block_of(device, block));
        assert_eq!(found, [10, 11, 22, 13, 21]);
    }
    assert_eq!(disk.fired(FaultKind::DroppedWrite), 1);
    assert_eq!(disk.fired(FaultKind::MisdirectedWrite), 1);
}

#[test]
fn stale_and_rotten_blocks_heal_when_written() {
    let disk = SimDisk::new("disk", DISK_BYTES, &SimClock::new(5));
    let device = disk.device();
    write(&device, 2, 1);
    write(&device, 2, 2);
    disk.arm(Fault::StaleRead { block: 2 });
    assert_eq!(block_of(&device, 2), 1);
    assert_eq!(block_of(&device, 3), 0);
    assert_eq!(disk.fired(FaultKind::StaleRead), 1);
    write(&device, 2, 3);
    assert_eq!(block_of(&device, 2), 3);

    disk.arm(Fault::BitFlip { offset: 2 * 4096 + 5, bit: 3 });
    let mut pages = vec![0; 2 * BLOCK_BYTES];
    device.read_at(&mut pages, 4096).unwrap();
    assert_eq!(pages[4096 + 5], 8);
    disk.clear_faults();
    assert_eq!(block_of(&device, 2), 3);
    disk.arm(Fault::BitFlip { offset: 2 * 4096 + 5, bit: 3 });
    write(&device, 2, 4);
    assert_eq!(block_of(&device, 2), 4);
    assert_eq!(disk.fired(FaultKind::BitFlip), 1);

    disk.flip_bit(2 * 4096, 0);
    device.flush().unwrap();
    for disk in [&disk, &disk.crash_image(&mut SimRng::new(0), &SimClock::new(0))] {
        assert_eq!(disk.bytes()[2 * 4096], 5);
    }
    disk.overwrite(4095, &[9; 4098]);
    disk.overwrite(DISK_BYTES - 1, &[9; 5]);
    disk.flip_bit(DISK_BYTES, 1);
    let bytes = disk.bytes();
    assert_eq!((bytes[4094], &bytes[4095..8193], bytes[8193]), (0, &[9; 4098][..], 0));
    assert_eq!(bytes[DISK_BYTES as usize - 1], 9);
}

#[test]
fn states_after_a_failed_flush() {
    for after in [FlushFailure::DropDirty, FlushFailure::KeepVisible, FlushFailure::Revert] {
        let mut durable = HashMap::new();
        for seed in 0..50 {
            let disk = SimDisk::new("disk", DISK_BYTES, &SimClock::new(seed));
            let device = disk.device();
            write(&device, 0, 1);
            device.flush().unwrap();
            device.write_at(&stamped(2, 1), 0).unwrap();
            disk.arm(Fault::FlushError { nth: 1, sticky: false, after });
            assert!(device.flush().is_err());
            assert_eq!(disk.fired(FaultKind::FlushError), 1);
            let seen = stamps(&disk.bytes());

            // What was lost stays lost, though this flush succeeds.
            write(&device, 1, 3);
            device.flush().unwrap();
            let crashed = stamps(&disk.crash_image(&mut SimRng::new(seed), &SimClock::new(0)).bytes());
            assert_eq!(crashed[8], 3);
            match after {
                FlushFailure::DropDirty => assert_eq!(seen[..8], crashed[..8]),
                FlushFailure::KeepVisible => assert_eq!((seen[0], crashed[0]), (2, 1)),
                FlushFailure::Revert => assert_eq!((seen[0], crashed[0]), (1, 1)),
            }
            *durable.entry(crashed[0]).or_insert(0) += 1;
            disk.drop_caches();
            assert_eq!(stamps(&disk.bytes()), crashed);
        }
        let kinds = if after == FlushFailure::DropDirty { 2 } else { 1 };
        assert_eq!(durable.len(), kinds, "{durable:?}");
    }
}

#[test]
fn snapshots_bring_back_durable_and_pending_bytes() {
    let disk = SimDisk::new("disk", DISK_BYTES, &SimClock::new(5));
    let device = disk.device();
    write(&device, 0, 1);
    device.flush().unwrap();
    write(&device, 0, 2);
    let snapshot = disk.snapshot();
    write(&device, 0, 3);
    device.flush().unwrap();

    let other_clock = SimClock::new(0);
    let other = SimDisk::new("other", DISK_BYTES, &other_clock);
    for disk in [&disk, &other] {
        disk.restore(&snapshot);
        assert_eq!(block_of(&disk.device(), 0), 2);
        let image = disk.crash_image_where(u64::MAX, &other_clock, |_, _| false);
        assert_eq!(block_of(&image.device(), 0), 1);
        assert_eq!(disk.pending_at(disk.clock().operations()).len(), 1);
    }
    let copy = SimDisk::from_bytes("copy", &disk.bytes(), &other_clock);
    assert_eq!((copy.len(), copy.bytes()), (disk.len(), disk.bytes()));
}

#[test]
fn requests_outside_are_refused_and_not_counted() {
    let disk = SimDisk::new("disk", DISK_BYTES + 100, &SimClock::new(5));
    assert_eq!(disk.len(), DISK_BYTES);
    let mut page = [0; BLOCK_BYTES];
    let device = disk.device();
    assert!(device.read_at(&mut page, DISK_BYTES).is_err());
    assert!(device.write_at(&page, u64::MAX - 4095).is_err());
    assert!(device.write_at(&page[..512], 0).is_err());
    assert_eq!(disk.clock().operations(), 0);
}

#[test]
fn discarded_blocks_are_garbage_when_wanted_and_pending_as_writes_are() {
    let clock = SimClock::new(1);
    let disk = SimDisk::new("disk", 16 << 12, &clock);
    disk.keep_history();
    let device = disk.device();
    let page = |disk: &SimDisk, block: usize| disk.bytes()[block << 12..(block + 1) << 12].to_vec();
    let written = vec![7; 4096];
    device.write_at(&written.repeat(3), 0).unwrap();
    device.flush().unwrap();
    device.discard(0, 4096);
    assert_eq!(page(&disk, 0), written, "only when wanted");
    disk.poison_discards();
    device.discard(4096, 4096);
    device.discard(u64::MAX, 4096);
    device.discard(15 << 12, 8192);
    let garbage = page(&disk, 1);
    assert!(garbage != written && garbage != [0; 4096]);
    assert_eq!((page(&disk, 0), page(&disk, 2), clock.operations()), (written.clone(), written.clone(), 2));
    let at = |operation, landed| disk.crash_image_where(operation, &SimClock::new(2), |_, _| landed);
    // Under way from the flush on, not during it.
    assert_eq!(page(&at(1, true), 1), written);
    assert_eq!(page(&at(2, false), 1), written);
    let after = at(2, true);
    assert_eq!(page(&after, 1), garbage);
    after.device().discard(0, 4096);
    assert_eq!(page(&after, 0), garbage, "what a crash leaves does the same");
    device.flush().unwrap();
    assert_eq!(page(&at(3, false), 1), garbage);
}
