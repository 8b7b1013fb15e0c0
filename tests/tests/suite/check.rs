//! The offline check on what crashes leave: no crash looks like damage, and a check changes nothing.
//!
//! `BETREE_SEED` sets the first workload.

use betree::inspect::{CheckOptions, Outcome, Salvaged, check, salvage};
use betree::vdev::{BlockDevice, SimClock, SimDisk, SimRng};
use betree::{Database, DatabaseConfiguration};
use betree_tests::rig::{COUNTS, Layout, Machine, Workload, number_from_environment, scan, view};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Workloads of each layout.
const WORKLOADS: u64 = 3;
/// Crashes of each workload.
const CRASHES: u64 = 40;

fn demand_clean(configuration: &DatabaseConfiguration, disks: &[SimDisk], deep: bool, context: &str) {
    let before: Vec<Vec<u8>> = disks.iter().map(SimDisk::bytes).collect();
    let options = CheckOptions { deep, ..CheckOptions::default() };
    let report = check(configuration, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings, Vec::<String>::new(), "{context}");
    assert_eq!(report.outcome(), Outcome::Clean, "{context}");
    assert!(disks.iter().map(SimDisk::bytes).eq(before), "{context}: the check changed a byte");
}

/// Runs workloads, crashes them, checks what is left, lets it recover, and checks again.
fn crashes(layout: Layout) {
    let first = number_from_environment("BETREE_SEED").unwrap_or(1);
    let mut states = 0;
    for seed in first..first + WORKLOADS {
        let mut choice = SimRng::new(seed ^ 0xC4EC);
        let mut machine = Machine::create(layout, choice.next_u64()).unwrap();
        let mut workload = Workload::new(layout, choice.next_u64());
        let created = machine.clock().operations();
        for _ in 0..150 {
            let operation = workload.next(machine.timeline().newest());
            machine.run(&operation).unwrap();
        }
        let end = machine.clock().operations();
        machine.clock().crash();
        for crash in 0..CRASHES {
            let operation = created + choice.below(end + 1 - created);
            let clock = SimClock::new(choice.next_u64());
            let left: Vec<SimDisk> = machine
                .disks()
                .iter()
                .map(|disk| disk.crash_image_at(operation, &mut choice, &clock))
                .collect();
            let pulled = Arc::new(AtomicBool::new(false));
            let configuration = layout.configuration(&left, &pulled, machine.shape());
            let context = format!("BETREE_SEED={seed} {layout:?}, crash {crash} at operation {operation}");
            let durable: Vec<SimDisk> =
                left.iter().filter(|disk| !disk.device().is_volatile()).cloned().collect();
            demand_clean(&configuration, &durable, crash % 4 == 0, &context);
            states += 1;
            if crash % 8 == 0 {
                // What salvage gives is what the database reads.
                let mut entries = 0;
                // The datasets of object stores are hidden from it.
                let (mut is_hidden, mut hidden) = (false, 0);
                let mut take = |one: Salvaged<'_>| {
                    match one {
                        Salvaged::Dataset { role, .. } => is_hidden = role != "dataset",
                        Salvaged::Entry { .. } => hidden += u64::from(is_hidden),
                        _ => {}
                    }
                    ControlFlow::Continue(())
                };
                let saved = salvage(&configuration, None, &mut take, &mut |_| ControlFlow::Continue(()));
                let saved = saved.unwrap();
                let database = Database::open_with(configuration.clone()).unwrap();
                for name in database.datasets().unwrap() {
                    entries += view(&database, &name).unwrap().range::<&[u8]>(..).count() as u64;
                }
                scan(&database).unwrap();
                // Values that only an action of this program tells are not guessed.
                let counts = view(&database, COUNTS).map_or(0, |view| view.range::<&[u8]>(..).count() as u64);
                assert!(saved.skipped <= counts, "{context}: {} are skipped", saved.skipped);
                assert_eq!(
                    (saved.entries + saved.skipped, saved.lost.len()),
                    (entries + hidden, 0),
                    "{context}"
                );
                drop(database);
                demand_clean(&configuration, &durable, true, &format!("{context}, recovered"));
            }
        }
    }
    println!("{layout:?} from seed {first}: {states} states");
    assert_eq!(states, WORKLOADS * CRASHES);
}

#[test]
fn no_crash_on_one_device_looks_like_damage() {
    crashes(Layout::One);
}

#[test]
fn no_crash_on_two_devices_looks_like_damage() {
    crashes(Layout::TwoInTier);
}

#[test]
fn no_crash_with_log_and_values_apart_looks_like_damage() {
    crashes(Layout::LogAndLarge);
}

#[test]
fn no_crash_with_memory_in_the_pool_looks_like_damage() {
    crashes(Layout::MemoryOverDurable);
}

#[test]
fn a_database_with_threads_is_clean_wherever_it_is_cut() {
    // With threads, flushes of what comes after the cut run beside the checkpoint.
    let clock = SimClock::new(7);
    let disks = Layout::One.disks(&clock);
    let pulled = Arc::new(AtomicBool::new(false));
    let configuration = DatabaseConfiguration {
        background_threads: Some(2),
        ..Layout::One.configuration(&disks, &pulled, 7)
    };
    let database = Database::create_with(configuration.clone(), false).unwrap();
    let dataset = database.create_dataset("data").unwrap();
    for round in 0..12u32 {
        for number in 0..400u32 {
            dataset.insert((number * 31 % 400).to_be_bytes(), vec![round as u8; 150]).unwrap();
        }
        let bytes = disks[0].bytes();
        let image = [SimDisk::from_bytes("a", &bytes, &SimClock::new(1))];
        let configuration = Layout::One.configuration(&image, &Arc::new(AtomicBool::new(false)), 7);
        // As after a kill: every write that was done is there.
        demand_clean(&configuration, &image, true, &format!("round {round}"));
    }
    database.close().unwrap();
    demand_clean(&configuration, &disks, true, "closed");
}
