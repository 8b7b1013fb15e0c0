//! Group commit in many orders: what is acknowledged has been flushed.

use super::{Log, LogError, LogHead, LogOptions, Verdict, replay};
use crate::base::exploration::explore;
use crate::base::ids::{Uuid, VdevId};
use crate::base::preference::StoragePreference;
use crate::base::sync::thread;
use crate::dmu::Dmu;
use crate::pool::{Pool, TopLevelVdev};
use crate::vdev::{BlockDevice, ScheduledDevice, SimClock, SimDisk};
use std::sync::{Arc, Mutex};

const POOL: Uuid = Uuid([7; 16]);
const BLOCKS: u64 = 256;

fn unit(device: Arc<dyn BlockDevice>) -> Dmu {
    let vdev = TopLevelVdev::leaf(VdevId(1), 0, BLOCKS, device);
    Dmu::over(Arc::new(Pool::from_vdevs(vec![vdev])), 0)
}

/// A unit whose log is on one disk, and the values of the class FAST on another.
fn unit_of_two(log: &SimDisk, values: &SimDisk, threads: usize) -> Dmu {
    let leaf = |id, tier, disk: &SimDisk| {
        let device = Arc::new(ScheduledDevice(Arc::new(disk.device())));
        TopLevelVdev::leaf(VdevId(id), tier, BLOCKS, device)
    };
    let vdevs = vec![leaf(1, 0, log), leaf(2, 1, values)];
    Dmu::over_with_threads(Arc::new(Pool::from_vdevs(vdevs)), 0, threads)
}

/// What a crash now would leave for certain: the records behind `head` that had been flushed.
fn durable_records(disk: &SimDisk, head: &LogHead) -> Vec<Vec<u8>> {
    let clock = SimClock::new(1);
    let left = disk.crash_image_where(u64::MAX, &clock, |_, _| false);
    let mut records = Vec::new();
    let apply = |record: &[u8], _: u64, _: bool| {
        records.push(record.to_vec());
        Ok(Verdict::Continue)
    };
    replay(&unit(Arc::new(left.device())), POOL, head, |_| Ok::<(), LogError>(()), apply).unwrap();
    records
}

fn group_commit(background: bool) {
    let clock = SimClock::new(1);
    let disk = SimDisk::new("a", BLOCKS * 4096, &clock);
    let dmu = unit(Arc::new(ScheduledDevice(Arc::new(disk.device()))));
    let options = LogOptions {
        extent_blocks: 8,
        buffer_bytes: 4096,
        queue_bytes_max: 8192,
        background,
        ..LogOptions::new(POOL)
    };
    let (log, head) = Log::start(&dmu, options, 1).unwrap();
    let log = Arc::new(log);
    // Records before the cut are given back; what replay must find starts at the newest head.
    let newest = Arc::new(Mutex::new((head.clone(), head.lsn)));
    let writers: Vec<_> = (0..3_u8)
        .map(|writer| {
            let (log, disk, newest) = (Arc::clone(&log), disk.clone(), Arc::clone(&newest));
            thread::spawn(move || {
                for number in 0..2_u8 {
                    // Now and then one that spans frames, and waits for room in the queue.
                    let record = vec![writer * 16 + number; if writer == 2 { 9000 } else { 50 }];
                    let lsn = log.append(&[&record]).unwrap();
                    log.sync(lsn).unwrap();
                    assert!(log.durable_lsn() >= lsn);
                    // No point of scheduling from here to the end of the look at the disk.
                    let (head, from) = newest.lock().unwrap().clone();
                    if lsn > from {
                        assert!(durable_records(&disk, &head).contains(&record), "acknowledged, not flushed");
                    }
                }
            })
        })
        .collect();
    let cutter = {
        let (log, newest) = (Arc::clone(&log), Arc::clone(&newest));
        thread::spawn(move || {
            for _ in 0..2 {
                let head = log.cut().unwrap();
                *newest.lock().unwrap() = (head.clone(), head.lsn);
                log.release_before(&head).unwrap();
            }
        })
    };
    for thread in writers.into_iter().chain([cutter]) {
        thread.join().unwrap();
    }
    log.sync(u64::MAX).unwrap();
    assert_eq!(log.durable_lsn(), log.position());
}

#[test]
fn shuttle_group_commit_acknowledges_after_the_flush_that_covers_it() {
    explore(2000, || group_commit(false));
    explore(2000, || group_commit(true));
}

/// Values on another device than the log, written behind: when a sync returns, what its record names has been flushed.
fn values_of_synced_records(background: bool) {
    let clock = SimClock::new(1);
    let disks = ["log", "values"].map(|name| SimDisk::new(name, BLOCKS * 4096, &clock));
    let dmu = unit_of_two(&disks[0], &disks[1], usize::from(background));
    let options = LogOptions { extent_blocks: 8, buffer_bytes: 4096, background, ..LogOptions::new(POOL) };
    let log = Arc::new(Log::start(&dmu, options, 1).unwrap().0);
    let writers: Vec<_> = (1..3_u8)
        .map(|writer| {
            let (log, dmu, disk) = (Arc::clone(&log), dmu.clone(), disks[1].clone());
            thread::spawn(move || {
                for number in 0..2_u8 {
                    let value = vec![writer * 16 + number; 4096];
                    let extent = dmu.write_behind(&value, StoragePreference::FAST).unwrap().unwrap();
                    assert_eq!(extent.vdev, VdevId(2));
                    log.note_device(extent.vdev);
                    let lsn = log.append(&[&[writer; 60]]).unwrap();
                    log.sync(lsn).unwrap();
                    // No point of scheduling from here to the end of the look at the disk.
                    let left = disk.crash_image_where(u64::MAX, &SimClock::new(1), |_, _| false);
                    let mut found = vec![0; 4096];
                    left.device().read_at(&mut found, extent.block * 4096).unwrap();
                    assert!(found == value, "a synced record without its value");
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

#[test]
fn shuttle_a_sync_covers_values_that_are_written_behind() {
    explore(2000, || values_of_synced_records(false));
    explore(2000, || values_of_synced_records(true));
}
