//! The sequences of events that break a design without its rules, one test each. What each rule says and which other tests
//! hold to it is in `docs/testing.md`.

use betree::vdev::{Fault, FlushFailure, LoggedOperation, SimClock, SimDisk};
use betree::{Database, DatabaseConfiguration, Durability, ErrorKind, StoragePreference};
use betree_tests::rig::{COUNTS, Change, Count, Explorer, Failure, Layout, Machine, Operation, Value, view};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

type Outcome = Result<(), Failure>;

fn failed(error: betree::Error) -> Failure {
    Failure::new(error)
}

/// A machine with the datasets `a` and `b`, checkpointed.
fn machine(layout: Layout) -> Result<Machine, Failure> {
    machine_with(layout, true)
}

/// As [`machine`]; without `poison`, nothing is pending but what was written.
fn machine_with(layout: Layout, poison: bool) -> Result<Machine, Failure> {
    let mut machine = Machine::create_with(layout, shape(), poison)?;
    for name in [b"a", b"b"] {
        machine.run(&Operation::Create(name.to_vec()))?;
    }
    machine.run(&Operation::Checkpoint)?;
    Ok(machine)
}

fn put(key: &str, value: &[u8]) -> Operation {
    put_on(key, value, StoragePreference::NONE)
}

fn put_on(key: &str, value: &[u8], preference: StoragePreference) -> Operation {
    let change = Change::Put { key: key.into(), value: Value::new(value), preference };
    Operation::Write { dataset: b"a".to_vec(), change }
}

fn run(machine: &mut Machine, operations: impl IntoIterator<Item = Operation>) -> Outcome {
    operations.into_iter().try_for_each(|operation| machine.run(&operation))
}

/// Bytes that differ from key to key and from block to block.
fn bytes(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (seed * 31 + at / 5) as u8).collect()
}

/// The disks after a crash now, with those pending writes for which `landed(disk, write, sector)` is true.
fn image(machine: &Machine, landed: impl Fn(usize, usize, usize) -> bool) -> (SimClock, Vec<SimDisk>) {
    let clock = SimClock::new(9);
    let disks = machine.disks().iter().enumerate();
    let disks = disks.map(|(disk, sim)| {
        sim.crash_image_where(u64::MAX, &clock, |write, sector| landed(disk, write, sector))
    });
    let disks = disks.collect();
    (clock, disks)
}

/// Opens those disks, demands a legal state, and lets the process die.
fn look(machine: &Machine, landed: impl Fn(usize, usize, usize) -> bool) -> Outcome {
    let (clock, disks) = image(machine, landed);
    let now = machine.clock().operations();
    let visit = Explorer::new(3, 1).look(machine, clock, disks, now)?;
    visit.machine.clock().crash();
    Ok(())
}

fn crash_everywhere(machine: &Machine, from: u64, depth: u32) -> Outcome {
    machine.clock().crash();
    let mut explorer = Explorer::new(11, 2);
    for operation in from..=machine.clock().operations() {
        (0..3).try_for_each(|_| explorer.crash(machine, operation, depth))?;
    }
    Ok(())
}

/// Offsets of the writes to `disk` since number `from`.
fn writes(disk: &SimDisk, from: u64) -> Vec<u64> {
    let offset = |operation| match operation {
        LoggedOperation::Write { number, offset, .. } if number > from => Some(offset),
        _ => None,
    };
    disk.log().into_iter().filter_map(offset).collect()
}

fn configuration(layout: Layout, disks: &[SimDisk]) -> DatabaseConfiguration {
    configuration_of(layout, disks, shape())
}

fn configuration_of(layout: Layout, disks: &[SimDisk], shape: u64) -> DatabaseConfiguration {
    layout.configuration(disks, &Arc::new(AtomicBool::new(false)), shape)
}

/// A shape with memtables that hold a few puts, so that these wait in the log alone.
fn shape() -> u64 {
    let holds_more = |shape: &u64| {
        let configuration = configuration_of(Layout::One, &[], *shape);
        configuration.memtable_size > 16 << 10 && configuration.default_dataset.large_value_size == 16 << 10
    };
    (5..50).find(holds_more).unwrap_or_default()
}

/// A writer counts in two datasets at once, workers flush and merge, checkpoints are made all the time. In every state
/// after a crash both counts are the same, no synced one is missing, and no addition counts twice.
#[test]
fn a_checkpoint_beside_writers_and_merges_holds_exactly_what_is_up_to_its_cut() -> Outcome {
    for seed in 0..4 {
        let clock = SimClock::new(seed);
        let disks = Layout::One.disks(&clock);
        for disk in &disks {
            disk.keep_history();
            disk.poison_discards();
        }
        let threads =
            DatabaseConfiguration { background_threads: Some(2), ..configuration(Layout::One, &disks) };
        let database = Database::create_with(threads, false).map_err(failed)?;
        let plain = database.create_dataset("plain").map_err(failed)?;
        let counts =
            database.create_custom_dataset::<Count>(COUNTS, StoragePreference::NONE).map_err(failed)?;
        database.sync().map_err(failed)?;
        let created = clock.operations();
        let done = AtomicBool::new(false);
        let synced = std::thread::scope(|scope| -> Result<Vec<(u64, u64)>, Failure> {
            let writer = scope.spawn(|| -> Result<Vec<(u64, u64)>, Failure> {
                let mut synced = vec![(0, 0)];
                for number in 1..=600_u64 {
                    let filler = format!("filler{:03}", number % 97);
                    let batch = database
                        .batch()
                        .insert(&plain, "number", number.to_le_bytes())
                        .insert(&plain, filler, bytes(number as usize, 700))
                        .insert_msg(&counts, "number", 1_u64.to_le_bytes());
                    let durability = if number % 16 == 0 { Durability::Sync } else { Durability::Buffered };
                    batch.commit(durability).map_err(failed)?;
                    if number % 16 == 0 {
                        synced.push((clock.operations(), number));
                    }
                }
                done.store(true, Ordering::Release);
                Ok(synced)
            });
            while !done.load(Ordering::Acquire) && !writer.is_finished() {
                database.checkpoint().map_err(failed)?;
            }
            writer.join().map_err(|_| Failure::new("the writer panicked"))?
        })?;
        clock.crash();
        drop((plain, counts, database));
        let mut rng = betree::vdev::SimRng::new(seed);
        for _ in 0..150 {
            let operation = created + rng.below(clock.operations() - created + 1);
            let after = SimClock::new(seed);
            let crashed: Vec<SimDisk> =
                disks.iter().map(|disk| disk.crash_image_at(operation, &mut rng, &after)).collect();
            let database = Database::open_with(configuration(Layout::One, &crashed)).map_err(failed)?;
            let read = |name: &[u8]| -> Result<u64, Failure> {
                let value = view(&database, name).and_then(|view| view.get("number")).map_err(failed)?;
                Ok(value.and_then(|value| value.as_ref().try_into().ok()).map_or(0, u64::from_le_bytes))
            };
            let (number, count) = (read(b"plain")?, read(COUNTS)?);
            let promised = synced.iter().rev().find(|(at, _)| *at <= operation).map_or(0, |(_, n)| *n);
            assert!(
                number == count && number >= promised,
                "seed {seed}: {number}, {count}, {promised} synced"
            );
            database.verify().map_err(failed)?;
            after.crash();
        }
    }
    Ok(())
}

#[test]
fn the_log_of_the_checkpoint_before_survives_a_crash_in_the_recovery() -> Outcome {
    let mut machine = machine(Layout::One)?;
    let some = |from: usize| (from..from + 40).map(|n| put(&format!("key{n:03}"), &bytes(n, 2000)));
    run(&mut machine, some(0))?;
    run(&mut machine, [Operation::Checkpoint])?;
    run(&mut machine, some(40))?;
    // Long enough for the replay to write runs.
    run(&mut machine, [Operation::Sync, Operation::Kill])?;
    let before = machine.clock().operations();
    run(&mut machine, [Operation::Kill])?;
    machine.clock().crash();
    let mut explorer = Explorer::new(1, 1);
    for operation in before.saturating_sub(40)..=machine.clock().operations() {
        (0..2).try_for_each(|_| explorer.rot(&machine, operation, 0))?;
    }
    assert!(explorer.rotten > 20, "only {} times was there something to fall back to", explorer.rotten);
    Ok(())
}

/// Large values that are born and die between two checkpoints are in neither bitmap: only the log of the older one names
/// them. A recovery opens the newer one and looks for room; then it dies, and the superblock that it opened rots.
#[test]
fn values_that_only_the_log_of_the_checkpoint_before_names_survive_a_crash_in_the_recovery() -> Outcome {
    // Each flush goes into a leaf, and merges it.
    let merges = |shape: &u64| {
        let configuration = configuration_of(Layout::One, &[], *shape);
        configuration.default_dataset.deltas_per_leaf == 1 && configuration.memtable_size == 16 << 10
    };
    let mut explorer = Explorer::new(1, 1);
    let mut rounds = 0;
    let shapes = (0..100).filter(merges).take(3);
    for (shape, room) in shapes.flat_map(|shape| [260, 320, 380].map(|room| (shape, room))) {
        let mut machine = Machine::create_with(Layout::One, shape, true)?;
        run(&mut machine, [Operation::Create(b"a".to_vec())])?;
        let metrics = |machine: &Machine| machine.database().map(betree::Database::metrics);
        // So little room is left that the recovery comes to that of the dead values.
        for number in 0..100 {
            if metrics(&machine)?.tiers[0].free <= room {
                break;
            }
            run(&mut machine, [put(&format!("full{number:03}"), &bytes(number, 20_000))])?;
        }
        run(&mut machine, [Operation::Settle, Operation::Checkpoint, Operation::Checkpoint])?;
        let before = metrics(&machine)?;
        let filler = || (0..9).map(|number| put(&format!("filler{number}"), &bytes(number, 2000)));
        let keys = || (0..3).map(|number| format!("key{number}"));
        run(&mut machine, keys().enumerate().map(|(number, key)| put(&key, &bytes(number, 60_000))))?;
        run(&mut machine, filler())?;
        // Upserts of more than half of them are folded into the values, and leave records in the log that need the old ones.
        let upsert = |key: String| {
            let change = Change::Upsert { key: key.into_bytes(), offset: 3, bytes: bytes(7, 31_000) };
            Operation::Write { dataset: b"a".to_vec(), change }
        };
        run(&mut machine, keys().map(upsert))?;
        run(&mut machine, filler())?;
        run(&mut machine, [Operation::Sync, Operation::Settle])?;
        let dead = metrics(&machine)?.pending_free_bytes;
        run(&mut machine, [Operation::Checkpoint])?;
        // Long enough for the replay to write runs.
        run(&mut machine, (0..20).map(|number| put(&format!("new{number:03}"), &bytes(number, 3000))))?;
        run(&mut machine, [Operation::Sync])?;
        machine.clock().crash();
        // A checkpoint that the lack of room brought about comes between.
        if dead < 180_000 || metrics(&machine)?.durable_generation != before.durable_generation + 1 {
            continue;
        }
        rounds += 1;
        let recovery = explorer.visit(&machine, machine.clock().operations())?;
        recovery.machine.clock().crash();
        for operation in 0..recovery.recovered {
            explorer.rot(&recovery.machine, operation, 0)?;
        }
    }
    assert!(rounds >= 3 && explorer.rotten > 60, "{rounds} rounds with {} superblocks lost", explorer.rotten);
    Ok(())
}

#[test]
fn a_rotten_newest_superblock_gives_way_loudly_to_the_checkpoint_before() -> Outcome {
    let mut machine = machine(Layout::TwoInTier)?;
    for round in 0..6 {
        // What the older checkpoint reaches dies, and new data looks for room.
        let keys = (0..30).map(|n| put(&format!("key{n:03}"), &bytes(n + round, 3000)));
        run(&mut machine, keys)?;
        run(&mut machine, [Operation::Checkpoint])?;
    }
    machine.clock().crash();
    let mut explorer = Explorer::new(1, 2);
    for operation in 0..=machine.clock().operations() {
        explorer.rot(&machine, operation, 1)?;
    }
    assert!(explorer.rotten > 20, "only {} times was there something to fall back to", explorer.rotten);
    Ok(())
}

#[test]
fn a_long_log_and_much_garbage_start_checkpoints() -> Outcome {
    let mut machine = machine(Layout::One)?;
    let generation =
        |machine: &Machine| machine.database().map(|database| database.metrics().durable_generation);
    let start = generation(&machine)?;
    run(&mut machine, (0..400).map(|n| put(&format!("key{:02}", n % 20), &bytes(n, 1500))))?;
    let long = generation(&machine)?;
    assert!(long > start + 1, "600 KB of log, and generation {long} after {start}");
    // One key overwritten: hardly any log, but more garbage than the pool has room.
    run(&mut machine, (0..120).map(|n| put("key", &bytes(n, 60_000))))?;
    assert!(generation(&machine)? > long + 1);
    assert_eq!(machine.refused(), 0);
    Ok(())
}

/// Every life writes records of the same length into a log that lies where one of an earlier life lay.
#[test]
fn records_of_an_earlier_life_are_not_replayed() -> Outcome {
    for seed in 0..12 {
        let mut explorer = Explorer::new(seed, 1);
        let mut machine = machine(Layout::One)?;
        for life in 0..12_usize {
            let from = machine.clock().operations();
            for number in 0..6 {
                // Frames go out full and unflushed, so that any of them may be missing.
                run(&mut machine, [put(&format!("key{number}"), &bytes(life * 7 + number, 12_000))])?;
            }
            run(&mut machine, [Operation::Sync])?;
            machine.clock().crash();
            let operation = from + explorer.rng.below(machine.clock().operations() - from + 1);
            machine = explorer.visit(&machine, operation)?.machine;
        }
        machine.clock().crash();
    }
    Ok(())
}

#[test]
fn of_two_unflushed_log_writes_only_the_second_landed_and_that_is_no_damage() -> Outcome {
    let mut machine = machine_with(Layout::One, false)?;
    let start = machine.clock().operations();
    run(&mut machine, (0..20).map(|n| put(&format!("key{n}"), &bytes(n, 9000))))?;
    machine.clock().crash();
    let pending = machine.disks()[0].pending_at(u64::MAX).len();
    assert!(pending >= 2 && !writes(&machine.disks()[0], start).is_empty(), "{pending} frames wait");
    for only in 0..pending {
        look(&machine, |_, write, _| write == only)?;
        look(&machine, |_, write, _| write != only)?;
    }
    Ok(())
}

/// Of the frames that lie behind the head of the newest checkpoint, each is refused that a later one vouches for.
#[test]
fn a_synced_record_that_is_damaged_is_refused_and_its_device_named() -> Outcome {
    let mut machine = machine(Layout::TwoInTier)?;
    let start = machine.clock().operations();
    let keys = || (0..5).map(|number| format!("key{number}"));
    run(&mut machine, keys().flat_map(|key| [put(&key, b"value"), Operation::Sync]))?;
    machine.clock().crash();
    let log = |disk: &&SimDisk| !writes(disk, start).is_empty();
    let Some(disk) = machine.disks().iter().find(log) else { return Err(Failure::new("nothing was logged")) };
    let mut frames = writes(disk, start);
    // The first is what the checkpoint cut off, written together with that of the next sync. It holds what the checkpoint has.
    assert_eq!(frames.len(), 5, "a frame for each sync");
    frames.insert(1, frames[0] + 4096);
    for (number, byte) in (0..6).flat_map(|number| [30, 100].map(|byte| (number, byte))) {
        let (clock, disks) = image(&machine, |_, _, _| true);
        for crashed in disks.iter().filter(|crashed| crashed.name() == disk.name()) {
            crashed.flip_bit(frames[number] + byte, 3);
        }
        let opened = Database::open_with(configuration(Layout::TwoInTier, &disks));
        match (number, opened) {
            (1..=4, Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                let place = format!("device {} is damaged at block {}", disk.name(), frames[number] / 4096);
                assert!(error.to_string().contains(&place), "{error}");
            }
            // No later frame vouches for the last one: it may as well be the tail that a crash left.
            (0 | 5, Ok(database)) => {
                let found = scan_keys(&database)?;
                let kept = if number == 0 { 5 } else { 4 };
                assert!(found.iter().eq(keys().take(kept).collect::<Vec<_>>().iter()), "{number}: {found:?}");
            }
            (_, opened) => {
                return Err(Failure::new(format!("frame {number}, byte {byte}: {:?}", opened.map(drop))));
            }
        }
        clock.crash();
    }
    Ok(())
}

fn scan_keys(database: &Database) -> Result<Vec<String>, Failure> {
    let entries = view(database, b"a").map_err(failed)?.range::<&[u8]>(..);
    let key = |entry: betree::Result<(betree::Value, betree::Value)>| {
        entry.map(|(key, _)| String::from_utf8_lossy(&key).into_owned()).map_err(failed)
    };
    entries.map(key).collect()
}

#[test]
fn a_large_value_on_another_device_is_durable_with_the_small_put_synced_after_it() -> Outcome {
    let mut machine = machine(Layout::LogAndLarge)?;
    let value = bytes(1, 40_000);
    let from = machine.clock().operations();
    run(&mut machine, [put_on("large", &value, StoragePreference::FAST)])?;
    run(&mut machine, [put("small", b"value"), Operation::Sync])?;
    assert!(!writes(&machine.disks()[1], from).is_empty(), "it went to the other device");
    look(&machine, |_, _, _| false)?;
    crash_everywhere(&machine, from, 1)
}

#[test]
fn a_value_that_the_log_names_is_not_used_again_before_its_death_is_durable() -> Outcome {
    let mut machine = machine(Layout::LogAndLarge)?;
    let from = machine.clock().operations();
    for round in 0..12 {
        let large = put_on("key", &bytes(round, 50_000), StoragePreference::FAST);
        run(&mut machine, [large, Operation::Sync])?;
        // Small messages fill memtables, so that the value dies in a merge.
        run(&mut machine, (0..12).map(|n| put(&format!("filler{n:02}"), &bytes(n + round, 2000))))?;
        run(&mut machine, [Operation::Settle])?;
    }
    crash_everywhere(&machine, from, 0)
}

#[test]
fn half_of_a_batch_is_never_seen() -> Outcome {
    let mut machine = machine_with(Layout::One, false)?;
    let values = [b"a", b"b", b"a"].iter().enumerate().map(|(number, name)| {
        let (key, value) = (format!("key{number}").into_bytes(), Value::new(&bytes(number, 9000)));
        (name.to_vec(), Change::Put { key, value, preference: StoragePreference::NONE })
    });
    let batch = Operation::Batch { changes: values.collect(), sync: false };
    run(&mut machine, [put("before", b"value"), batch])?;
    // The frame is written, and the process dies before its flush.
    machine.clock().set_stop_after(machine.clock().operations() + 1);
    let stopped = machine.attempt(&Operation::Sync);
    assert!(stopped.is_err());
    let blocks = machine.disks()[0].pending_at(u64::MAX).into_iter().map(|write| match write {
        LoggedOperation::Write { bytes, .. } => bytes / 4096,
        LoggedOperation::Flush { .. } => 0,
    });
    let blocks: u64 = blocks.sum();
    assert!((7..=12).contains(&blocks), "{blocks} blocks");
    (0..1_u64 << blocks).try_for_each(|case| look(&machine, |_, _, sector| case & (1 << (sector / 8)) != 0))
}

#[test]
fn datasets_come_go_and_change_their_names_in_the_order_of_the_log() -> Outcome {
    let mut machine = machine(Layout::One)?;
    let from = machine.clock().operations();
    for round in 0..4 {
        run(
            &mut machine,
            [
                put(&format!("key{round}"), b"of the first a"),
                Operation::Rename(b"a".to_vec(), b"c".to_vec()),
                Operation::Create(b"a".to_vec()),
                put("key", b"of the second a"),
                Operation::Sync,
                Operation::Destroy(b"c".to_vec()),
                Operation::Sync,
            ],
        )?;
    }
    crash_everywhere(&machine, from, 1)
}

#[test]
fn a_batch_that_is_refused_changes_nothing_and_gives_its_space_back() -> Outcome {
    let machine = machine(Layout::One)?;
    let database = machine.database()?;
    let doomed = database.open_dataset("b").map_err(failed)?;
    let kept = database.open_dataset("a").map_err(failed)?;
    database.destroy_dataset("b").map_err(failed)?;
    database.settle().map_err(failed)?;
    (0..3).try_for_each(|_| database.checkpoint().map_err(failed))?;
    let free = || database.metrics().tiers[0].free;
    // The first is written by the batch itself, the second behind its back.
    for length in [100_000, 30_000] {
        let before = free();
        let (one, other) = (bytes(1, length), bytes(2, length));
        let batch = database.batch().insert(&kept, "key", &one).insert(&doomed, "key", other);
        let refused = batch.commit(Durability::Buffered);
        assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::NotFound));
        // A checkpoint gives back what was allocated for values to come.
        (0..if length < 50_000 { 3 } else { 0 }).try_for_each(|_| database.checkpoint().map_err(failed))?;
        assert_eq!((free(), kept.get("key").map_err(failed)?), (before, None));
        drop(database.batch().insert(&kept, "key", &one));
        assert_eq!((free(), kept.get("key").map_err(failed)?), (before, None));
    }
    Ok(())
}

#[test]
fn the_log_and_the_headers_are_on_the_fastest_durable_tier() -> Outcome {
    for layout in [Layout::LogAndLarge, Layout::MemoryOverDurable] {
        let mut machine = machine(layout)?;
        let from = machine.clock().operations();
        run(&mut machine, (0..5).flat_map(|n| [put(&format!("key{n}"), b"value"), Operation::Sync]))?;
        let of = |name: &str| {
            machine
                .disks()
                .iter()
                .filter(|disk| disk.name() == name)
                .map(|disk| writes(disk, from).len())
                .sum()
        };
        let (log, other): (usize, usize) = (of("a"), of("b") + of("m"));
        assert!(log >= 5 && other == 0, "{layout:?}: {log} writes to the log's device, {other} to others");
    }
    Ok(())
}

#[test]
fn a_view_keeps_its_versions_while_runs_are_merged_and_their_space_is_wanted() -> Outcome {
    let mut machine = machine(Layout::One)?;
    let all =
        |round: usize| (0..60).map(move |n| put(&format!("key{n:02}"), &bytes(n + round, 900 + n * 300)));
    run(&mut machine, all(0))?;
    let view = machine.database()?.open_dataset("a").map_err(failed)?.view();
    let upsert = Change::Upsert { key: b"key05".to_vec(), offset: 3, bytes: b"later".to_vec() };
    run(&mut machine, [Operation::Write { dataset: b"a".to_vec(), change: upsert }])?;
    for round in 1..4 {
        run(&mut machine, all(round))?;
        run(&mut machine, [Operation::Settle, Operation::Checkpoint, Operation::Checkpoint])?;
    }
    for n in 0..60 {
        let found = view.get(format!("key{n:02}")).map_err(failed)?;
        assert!(found.is_some_and(|value| value == bytes(n, 900 + n * 300)), "key {n}");
    }
    let entries = view.range::<&[u8]>(..).collect::<betree::Result<Vec<_>>>().map_err(failed)?;
    assert!(
        entries.len() == 60 && entries.iter().enumerate().all(|(n, (_, v))| *v == bytes(n, 900 + n * 300))
    );
    Ok(())
}

#[test]
fn messages_of_an_action_that_is_not_known_are_moved_and_not_folded() -> Outcome {
    let mut machine = machine(Layout::One)?;
    run(&mut machine, [Operation::Create(COUNTS.to_vec())])?;
    let fold = |machine: &mut Machine, rounds: usize| -> Outcome {
        for round in 0..rounds {
            let add = Change::Add { key: format!("count{}", round % 7).into_bytes(), amount: 3 };
            run(machine, [Operation::Write { dataset: COUNTS.to_vec(), change: add }])?;
            if round % 50 == 49 {
                run(machine, [Operation::Checkpoint])?;
            }
        }
        Ok(())
    };
    fold(&mut machine, 210)?;
    // Opened anew, nobody has named the action: replay, flushes and checkpoints go on without it.
    for _ in 0..3 {
        run(&mut machine, [Operation::Sync, Operation::Reopen])?;
        let database = machine.database()?;
        assert_eq!(
            database.open_dataset(COUNTS).map(|_| ()).map_err(|error| error.kind()),
            Err(ErrorKind::InvalidArgument)
        );
        run(&mut machine, [Operation::Settle, Operation::Checkpoint])?;
    }
    let counts = view(machine.database()?, COUNTS).map_err(failed)?;
    for number in 0..7 {
        let found = counts.get(format!("count{number}")).map_err(failed)?;
        assert!(found.is_some_and(|value| value == 90_u64.to_le_bytes()), "count {number}");
    }
    crash_everywhere(&machine, machine.clock().operations(), 1)
}

#[test]
fn values_hidden_behind_small_messages_are_freed_before_anything_is_refused() -> Outcome {
    let mut machine = machine(Layout::One)?;
    // Each round writes half of the pool and deletes it with messages of a few bytes.
    for round in 0..10 {
        for number in 0..24 {
            run(&mut machine, [put(&format!("key{number:02}"), &bytes(round + number, 60_000))])?;
        }
        for number in 0..24 {
            let change = Change::Delete { key: format!("key{number:02}").into_bytes() };
            run(&mut machine, [Operation::Write { dataset: b"a".to_vec(), change }])?;
        }
    }
    assert_eq!(machine.refused(), 0);
    machine.database()?.verify().map_err(failed)?;
    Ok(())
}

#[test]
fn a_covered_slot_is_dropped_while_a_view_holds_it() -> Outcome {
    let mut machine = machine(Layout::One)?;
    run(&mut machine, (0..200).map(|n| put(&format!("key{n:03}"), &bytes(n, 1500))))?;
    run(&mut machine, [Operation::Settle, Operation::Checkpoint])?;
    let view = machine.database()?.open_dataset("a").map_err(failed)?.view();
    let from = machine.clock().operations();
    let change = Change::RangeDelete { low: b"key000".to_vec(), high: b"key190".to_vec() };
    run(&mut machine, [Operation::Write { dataset: b"a".to_vec(), change }])?;
    for round in 0..5 {
        run(&mut machine, (0..20).map(|n| put(&format!("new{n:03}"), &bytes(n + round, 2000))))?;
        run(&mut machine, [Operation::Settle, Operation::Checkpoint, Operation::Checkpoint])?;
    }
    let entries = view.range::<&[u8]>(..).collect::<betree::Result<Vec<_>>>().map_err(failed)?;
    assert!(entries.len() == 200 && entries.iter().enumerate().all(|(n, (_, v))| *v == bytes(n, 1500)));
    drop(view);
    run(&mut machine, [Operation::Checkpoint, Operation::Checkpoint])?;
    machine.database()?.verify().map_err(failed)?;
    // A crash between any two steps of the drop: it goes on, and frees each block once.
    crash_everywhere(&machine, from, 0)
}

/// Each write and each flush of a checkpoint fails in turn.
#[test]
fn a_checkpoint_that_fails_anywhere_leaves_the_one_before_and_the_log() -> Outcome {
    let prepare = |layout| -> Result<Machine, Failure> {
        let mut machine = machine(layout)?;
        run(&mut machine, (0..12).map(|n| put(&format!("key{n}"), &bytes(n, 3000))))?;
        run(&mut machine, [Operation::Sync, put("unsynced", b"value")])?;
        Ok(machine)
    };
    for layout in [Layout::One, Layout::TwoInTier] {
        let mut whole = prepare(layout)?;
        let before = whole.clock().operations();
        run(&mut whole, [Operation::Checkpoint])?;
        let most = whole.clock().operations() - before;
        let mut failures = 0;
        for nth in 1..=most {
            for after in [None, Some(FlushFailure::DropDirty), Some(FlushFailure::KeepVisible)] {
                let mut machine = prepare(layout)?;
                let disk = machine.disks()[(nth % 2) as usize % machine.disks().len()].clone();
                disk.arm(match after {
                    None => Fault::WriteError { nth, sticky: false },
                    Some(after) => Fault::FlushError { nth, sticky: false, after },
                });
                let Err(error) = machine.attempt(&Operation::Checkpoint) else { continue };
                failures += 1;
                let database = machine.database()?;
                assert!(database.sync().is_err() && database.checkpoint().is_err(), "{error}");
                machine.clock().crash();
                disk.clear_faults();
                Explorer::new(nth, 1).crash(&machine, machine.clock().operations(), 1)?;
            }
        }
        assert!(failures >= 10, "{layout:?}: only {failures} checkpoints failed");
    }
    Ok(())
}

#[test]
fn a_full_host_refuses_extents_and_stops_the_log() -> Outcome {
    let mut machine = machine(Layout::One)?;
    let disk = machine.disks()[0].clone();
    disk.arm(Fault::OutOfSpace { nth: 1 });
    let refused = machine.database()?.open_dataset("a").map_err(failed)?.insert("key", bytes(1, 100_000));
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::OutOfSpace));
    // One that is written behind is taken, and waits for space as long as nobody wants it durable.
    run(&mut machine, [put("behind", &bytes(2, 40_000))])?;
    let refused = machine.database()?.checkpoint();
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::OutOfSpace));
    let found = machine.database()?.open_dataset("a").map_err(failed)?.get("behind").map_err(failed)?;
    assert!(found.is_some_and(|found| found == bytes(2, 40_000)));
    disk.clear_faults();
    run(&mut machine, [Operation::Checkpoint])?;
    run(&mut machine, [put("key", &bytes(1, 40_000)), Operation::Sync])?;
    disk.arm(Fault::OutOfSpace { nth: 1 });
    run(&mut machine, [put("small", b"value")])?;
    assert!(machine.attempt(&Operation::Sync).is_err());
    disk.clear_faults();
    assert!(machine.attempt(&Operation::Sync).is_err(), "the first failure stays");
    machine.clock().crash();
    look(&machine, |_, _, _| true)
}

/// Everything that needs room fails, for long: that is reported, and work that is put off does not call for itself.
#[test]
fn a_host_that_stays_full_is_no_endless_loop() -> Outcome {
    let mut machine = machine(Layout::One)?;
    for round in 0..3 {
        run(&mut machine, (0..40).map(|n| put(&format!("key{n:02}"), &bytes(n + round, 2000))))?;
        run(&mut machine, [Operation::Checkpoint])?;
    }
    let disk = machine.disks()[0].clone();
    disk.arm(Fault::OutOfSpace { nth: 1 });
    machine.clock().set_stop_after(machine.clock().operations() + 5000);
    let mut refused = 0;
    for n in 0..60 {
        refused += u64::from(machine.attempt(&put(&format!("key{n:02}"), &bytes(n, 3000))).is_err());
    }
    for operation in [Operation::Settle, Operation::Checkpoint, Operation::Settle] {
        refused += u64::from(machine.attempt(&operation).is_err());
    }
    assert!(refused > 0 && !machine.clock().is_crashed(), "it went on for 5000 writes");
    disk.clear_faults();
    machine.clock().crash();
    look(&machine, |_, _, _| true)
}

#[test]
fn closing_after_a_failure_is_no_success() -> Outcome {
    let mut machine = machine(Layout::One)?;
    run(&mut machine, [put("key", b"value")])?;
    machine.disks()[0].arm(Fault::FlushError { nth: 1, sticky: false, after: FlushFailure::DropDirty });
    let database = machine.database()?.clone();
    assert!(database.sync().is_err());
    assert!(database.close().is_err(), "what was written is lost");
    Ok(())
}
