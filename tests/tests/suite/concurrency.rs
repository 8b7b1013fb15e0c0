//! Threads on few keys: whether what they saw could have happened in one order.
//!
//! Each half of a value is a register of its own: a put writes both halves, an upsert one, a delete and a range delete
//! clear both. Every written number is unique, so that a read tells which write it saw, and every call notes a tick of one
//! clock before it starts and after it returned. Whether such a history is linearizable is then decided by the intervals
//! of each value alone (Gibbons and Korach, "Testing shared memories", 1997): the span in which a value must have been
//! the current one may meet no other such span, and may not enclose a whole write of something else.

use crate::pools::{Folder, small};
use betree::vdev::SimRng;
use betree::{Database, DatabaseConfiguration, Dataset, DatasetView, Durability, ErrorKind, Value};
use betree_tests::seeds::Seeds;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const KEYS: usize = 6;
/// Two keys that only batches write, always both with the same value.
const PAIR: [&str; 2] = ["pair a", "pair z"];
const THREADS: u64 = 5;
const STEPS: u64 = 1_500;

/// Zero is what nothing was written to, or what was deleted.
const CLEARED: u64 = 0;

#[derive(Debug, Clone, Copy)]
struct Call {
    /// Number of the register.
    register: usize,
    is_write: bool,
    /// What was written or read.
    number: u64,
    invoked: u64,
    returned: u64,
}

/// The calls that wrote or read one number.
#[derive(Debug, Clone, Copy)]
struct Cluster {
    number: u64,
    /// The first return and the last start of them: between the two the number must have been the current one.
    first_return: u64,
    last_invoke: u64,
    written_at: Option<u64>,
}

/// Whether the calls on one register could have happened in one order that keeps to their times.
fn check_register(calls: &[Call]) -> Result<(), String> {
    let mut clusters: BTreeMap<u64, Cluster> = BTreeMap::new();
    // Clears cannot be told apart: each write of one stands alone, and reads of it are looked at below.
    let mut spans: Vec<Cluster> = Vec::new();
    for call in calls {
        let cluster = Cluster {
            number: call.number,
            first_return: call.returned,
            last_invoke: call.invoked,
            written_at: call.is_write.then_some(call.invoked),
        };
        if call.number == CLEARED {
            if call.is_write {
                spans.push(cluster);
            }
            continue;
        }
        let all = clusters.entry(call.number).or_insert(cluster);
        all.first_return = all.first_return.min(call.returned);
        all.last_invoke = all.last_invoke.max(call.invoked);
        all.written_at = all.written_at.or(cluster.written_at);
    }
    for cluster in clusters.values() {
        match cluster.written_at {
            None => return Err(format!("{:x} was read and never written", cluster.number)),
            Some(start) if start > cluster.first_return => {
                return Err(format!("{:x} was read before it was written", cluster.number));
            }
            Some(_) => {}
        }
    }
    spans.extend(clusters.values());
    let (mut forward, backward): (Vec<Cluster>, Vec<Cluster>) =
        spans.into_iter().partition(|cluster| cluster.first_return < cluster.last_invoke);
    forward.sort_by_key(|cluster| cluster.first_return);
    for two in forward.windows(2) {
        if two[1].first_return < two[0].last_invoke {
            return Err(format!("{:x?} and {:x?} were both current at one time", two[0], two[1]));
        }
    }
    for inner in &backward {
        let before = forward.partition_point(|outer| outer.first_return < inner.last_invoke);
        if let Some(outer) = before.checked_sub(1).map(|at| &forward[at])
            && inner.first_return < outer.last_invoke
        {
            return Err(format!("{inner:x?} happened while {outer:x?} was current"));
        }
    }
    // A read of nothing: some clear must not be over and overwritten before the read began.
    let begin = Call { register: 0, is_write: true, number: CLEARED, invoked: 0, returned: 0 };
    let clears: Vec<&Call> =
        calls.iter().chain([&begin]).filter(|call| call.is_write && call.number == CLEARED).collect();
    let writes: Vec<&Call> = calls.iter().filter(|call| call.is_write && call.number != CLEARED).collect();
    for read in calls.iter().filter(|call| !call.is_write && call.number == CLEARED) {
        let latest_write =
            writes.iter().filter(|write| write.returned < read.invoked).map(|write| write.invoked).max();
        let explained = clears.iter().any(|clear| {
            clear.invoked < read.returned && latest_write.is_none_or(|invoked| clear.returned >= invoked)
        });
        if !explained {
            return Err(format!("{read:x?} saw nothing, and nothing had been cleared"));
        }
    }
    Ok(())
}

fn check(calls: &[Call], registers: usize) -> Result<(), String> {
    let mut by_register = vec![Vec::new(); registers];
    for call in calls {
        by_register[call.register].push(*call);
    }
    for (register, calls) in by_register.iter().enumerate() {
        check_register(calls).map_err(|error| format!("register {register}: {error}"))?;
    }
    Ok(())
}

/// Guards the check itself: histories that are impossible are told from those that are merely concurrent.
#[test]
fn the_check_tells_impossible_histories() {
    let call =
        |is_write, number, invoked, returned| Call { register: 0, is_write, number, invoked, returned };
    let (write, read) = (
        |number, invoked, returned| call(true, number, invoked, returned),
        |number, invoked, returned| call(false, number, invoked, returned),
    );
    let possible: [&[Call]; 6] = [
        &[write(1, 1, 2), read(1, 3, 4), write(2, 5, 6), read(2, 7, 8)],
        // Two concurrent writes, read as either by readers that are concurrent too.
        &[write(1, 1, 10), write(2, 2, 9), read(1, 3, 5), read(2, 6, 8), read(2, 11, 12)],
        &[write(1, 1, 2), write(2, 3, 10), read(1, 4, 9), read(2, 5, 8)],
        &[read(CLEARED, 1, 2), write(1, 3, 4), write(CLEARED, 5, 6), read(CLEARED, 7, 8)],
        &[write(1, 1, 2), write(CLEARED, 3, 10), read(1, 4, 5), read(CLEARED, 6, 7), read(CLEARED, 11, 12)],
        &[write(1, 1, 10), read(CLEARED, 2, 3), read(1, 4, 5)],
    ];
    for history in possible {
        check_register(history).unwrap();
    }
    let impossible: [(&str, &[Call]); 8] = [
        ("stale", &[write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)]),
        ("older than one seen", &[write(1, 1, 2), write(2, 3, 20), read(2, 4, 5), read(1, 6, 7)]),
        (
            "seen in two orders",
            &[write(1, 1, 20), write(2, 2, 20), read(1, 3, 4), read(2, 5, 6), read(1, 7, 8)],
        ),
        ("from the future", &[read(1, 1, 2), write(1, 3, 4)]),
        ("from nowhere", &[read(7, 1, 2)]),
        ("lost", &[write(1, 1, 2), read(CLEARED, 3, 4)]),
        ("not deleted", &[write(1, 1, 2), write(CLEARED, 3, 4), read(1, 5, 6)]),
        ("deleted twice", &[write(CLEARED, 1, 2), write(1, 3, 4), read(1, 5, 6), read(CLEARED, 7, 8)]),
    ];
    for (what, history) in impossible {
        assert!(check_register(history).is_err(), "{what} passed");
    }
}

fn key(index: usize) -> String {
    format!("key {index}")
}

/// The two halves of a value.
fn halves(value: Option<&Value>) -> [u64; 2] {
    let half = |at: usize| {
        let bytes = value.and_then(|value| value.get(at..at + 8));
        bytes.map_or(CLEARED, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
    };
    [half(0), half(8)]
}

struct Worker<'a> {
    db: &'a Database,
    dataset: &'a Dataset,
    clock: &'a AtomicU64,
    rng: SimRng,
    thread: u64,
    calls: Vec<Call>,
}

impl Worker<'_> {
    /// Runs `operation` and notes it for these registers.
    fn write(
        &mut self,
        registers: &[usize],
        number: u64,
        operation: impl FnOnce(&Self) -> betree::Result<()>,
    ) {
        let invoked = self.clock.fetch_add(1, Ordering::SeqCst);
        operation(self).unwrap();
        let returned = self.clock.fetch_add(1, Ordering::SeqCst);
        let noted =
            |register: &usize| Call { register: *register, is_write: true, number, invoked, returned };
        self.calls.extend(registers.iter().map(noted));
    }

    fn saw(&mut self, index: usize, value: Option<&Value>, invoked: u64, returned: u64) {
        for (half, number) in halves(value).into_iter().enumerate() {
            let register = index * 2 + half;
            self.calls.push(Call { register, is_write: false, number, invoked, returned });
        }
    }

    fn get(&mut self, index: usize) {
        let invoked = self.clock.fetch_add(1, Ordering::SeqCst);
        let value = self.dataset.get(key(index)).unwrap();
        let returned = self.clock.fetch_add(1, Ordering::SeqCst);
        self.saw(index, value.as_ref(), invoked, returned);
    }

    /// Reads all keys from one state, taken between the two ticks and perhaps read much later.
    fn all(&mut self, how: u64) {
        let invoked = self.clock.fetch_add(1, Ordering::SeqCst);
        let view = self.dataset.view();
        let database_view = self.db.view().dataset(self.dataset).unwrap();
        let entries = self.dataset.range("key ".."key~");
        let returned = self.clock.fetch_add(1, Ordering::SeqCst);
        self.pair_is_whole(if how.is_multiple_of(2) { &view } else { &database_view });
        let mut found = BTreeMap::new();
        match how {
            0 => found.extend(entries.map(Result::unwrap).map(|(key, value)| (key.to_vec(), value))),
            1 => found.extend(entries.rev().map(Result::unwrap).map(|(key, value)| (key.to_vec(), value))),
            _ => {
                let view = if how == 2 { view } else { database_view };
                for index in 0..KEYS {
                    if let Some(value) = view.get(key(index)).unwrap() {
                        found.insert(key(index).into_bytes(), value);
                    }
                }
            }
        }
        for index in 0..KEYS {
            self.saw(index, found.get(key(index).as_bytes()), invoked, returned);
        }
    }

    fn pair_is_whole(&self, view: &DatasetView) {
        let [a, z] = PAIR.map(|key| view.get(key).unwrap());
        assert_eq!(a, z, "half of a batch was seen");
    }

    fn step(&mut self, step: u64) {
        let index = self.rng.below(KEYS as u64) as usize;
        let number = (self.thread + 1) << 32 | (step + 1);
        let both = [number.to_be_bytes(), number.to_be_bytes()].concat();
        let registers = [index * 2, index * 2 + 1];
        match self.rng.below(100) {
            0..20 => self.write(&registers, number, |worker| worker.dataset.insert(key(index), &both)),
            20..35 => {
                let half = self.rng.below(2) as usize;
                self.write(&[registers[half]], number, |worker| {
                    worker.dataset.upsert(key(index), number.to_be_bytes(), half as u32 * 8)
                });
            }
            35..42 => self.write(&registers, CLEARED, |worker| worker.dataset.delete(key(index))),
            42..44 => {
                let other = self.rng.below(KEYS as u64) as usize;
                let (from, to) = (index.min(other), index.max(other));
                let registers: Vec<usize> = (from * 2..to * 2 + 2).collect();
                self.write(&registers, CLEARED, |worker| worker.dataset.range_delete(key(from)..=key(to)));
            }
            44..50 => {
                let other = (index + 1) % KEYS;
                let registers = [registers[0], registers[1], other * 2 + 1];
                let durability = if step.is_multiple_of(8) { Durability::Sync } else { Durability::Buffered };
                self.write(&registers, number, |worker| {
                    worker
                        .db
                        .batch()
                        .insert(worker.dataset, PAIR[0], number.to_be_bytes())
                        .delete(worker.dataset, key(index))
                        .insert(worker.dataset, key(index), &both)
                        .upsert(worker.dataset, key(other), number.to_be_bytes(), 8)
                        .insert(worker.dataset, PAIR[1], number.to_be_bytes())
                        .commit(durability)
                });
            }
            50..60 => {
                // Weight between the keys, so that they are flushed, split and merged apart from each other.
                let filler = format!("{} filler {:04}", key(index), self.rng.below(300));
                self.dataset.insert(&filler, vec![step as u8; 400]).unwrap();
            }
            60..62 => {
                // A large value, which has extents of its own, in the way.
                self.dataset.insert(format!("{} large", key(index)), vec![step as u8; 20_000]).unwrap();
            }
            62..66 => {
                let how = self.rng.below(4);
                self.all(how);
            }
            _ => self.get(index),
        }
    }
}

fn history(seed: u64) -> Result<(), String> {
    let folder = Folder::new();
    let configuration = DatabaseConfiguration {
        background_threads: Some(3),
        memtable_size: 4 << 10,
        checkpoint_log_bytes: Some(64 << 10),
        cache_size: 256 << 10,
        ..small([vec![folder.file("a.img", 64), folder.file("b.img", 64)]])
    };
    let db = Database::build(configuration.clone()).map_err(|error| error.to_string())?;
    let dataset = db.create_dataset("d").map_err(|error| error.to_string())?;
    let clock = AtomicU64::new(1);
    let done = AtomicBool::new(false);
    let mut calls: Vec<Call> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let rng = SimRng::new(seed.wrapping_mul(THREADS + 1).wrapping_add(thread));
                let mut worker =
                    Worker { db: &db, dataset: &dataset, clock: &clock, rng, thread, calls: Vec::new() };
                scope.spawn(move || {
                    (0..STEPS).for_each(|step| worker.step(step));
                    worker.calls
                })
            })
            .collect();
        let disturber = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                db.checkpoint().unwrap();
                db.drop_cache();
                // Datasets come and go beside it.
                let name = format!("other {}", clock.load(Ordering::Relaxed));
                let other = db.create_dataset(&name).unwrap();
                other.insert("k", [0; 300]).unwrap();
                db.destroy_dataset(&name).unwrap();
                assert_eq!(other.get("k").unwrap_err().kind(), ErrorKind::NotFound);
                db.sync().unwrap();
            }
        });
        let calls = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        done.store(true, Ordering::Release);
        disturber.join().unwrap();
        calls
    });
    let stats = dataset.stats().map_err(|error| error.to_string())?;
    if stats.leaves < 3 {
        return Err(format!("the tree never split: {stats:?}"));
    }
    db.verify().map_err(|error| error.to_string())?;
    // What is left is read once more, from this database and from the one that is opened next.
    let mut last = |db: &Database| -> Result<(), String> {
        let dataset = db.open_dataset("d").map_err(|error| error.to_string())?;
        for index in 0..KEYS {
            let invoked = clock.fetch_add(1, Ordering::SeqCst);
            let value = dataset.get(key(index)).map_err(|error| error.to_string())?;
            let returned = clock.fetch_add(1, Ordering::SeqCst);
            for (half, number) in halves(value.as_ref()).into_iter().enumerate() {
                calls.push(Call { register: index * 2 + half, is_write: false, number, invoked, returned });
            }
        }
        Ok(())
    };
    last(&db)?;
    drop(dataset);
    db.close().map_err(|error| error.to_string())?;
    last(&Database::build(configuration).map_err(|error| error.to_string())?)?;
    check(&calls, KEYS * 2)
}

/// Guards "a read sees every write that returned before it, from any thread", while memtables are frozen and flushed,
/// nodes split and merge, checkpoints are written and the cache is dropped.
#[test]
fn what_threads_see_fits_one_order() {
    Seeds::new(4).run(history).unwrap();
}

/// Guards reads of a dataset that is destroyed meanwhile: they see everything or say that it is gone; never the tree that
/// was emptied for it.
#[test]
fn reads_beside_a_destroy_see_everything_or_say_so() {
    let folder = Folder::new();
    let configuration = DatabaseConfiguration { background_threads: Some(2), ..folder.one(64) };
    let db = Database::build(configuration).unwrap();
    let gone = |error: betree::Error| assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    for round in 0..60u32 {
        let dataset = db.create_dataset("d").unwrap();
        for number in 0..50u32 {
            dataset.insert(number.to_be_bytes(), [round as u8; 100]).unwrap();
        }
        if round % 2 == 0 {
            db.checkpoint().unwrap();
        }
        let started = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                started.wait();
                loop {
                    match dataset.get(7u32.to_be_bytes()) {
                        Ok(value) => assert!(value.is_some(), "a key was lost before its dataset was gone"),
                        Err(error) => return gone(error),
                    }
                }
            });
            for backwards in [false, true] {
                let (dataset, started) = (&dataset, &started);
                scope.spawn(move || {
                    started.wait();
                    loop {
                        let entries = dataset.range::<&[u8]>(..);
                        let all: betree::Result<Vec<_>> =
                            if backwards { entries.rev().collect() } else { entries.collect() };
                        match all {
                            Ok(all) => assert_eq!(all.len(), 50),
                            Err(error) => return gone(error),
                        }
                    }
                });
            }
            started.wait();
            db.destroy_dataset("d").unwrap();
        });
    }
    db.verify().unwrap();
}

/// Guards the catalog with many threads at once: names are created, renamed and destroyed by all of
/// them, and each name exists once or not at all.
#[test]
fn names_are_created_and_renamed_by_one_thread_only() {
    let folder = Folder::new();
    let configuration = DatabaseConfiguration { background_threads: Some(2), ..folder.one(64) };
    let db = Database::build(configuration).unwrap();
    for round in 0..30 {
        let name = format!("round {round}");
        let count = |results: Vec<betree::Result<()>>, lost: ErrorKind| {
            let won = results.iter().filter(|result| result.is_ok()).count();
            assert!(
                results.iter().flat_map(|result| result.as_ref().err()).all(|error| error.kind() == lost)
            );
            won
        };
        let all = |operation: &(dyn Fn(u64) -> betree::Result<()> + Sync)| -> Vec<betree::Result<()>> {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || operation(thread))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            })
        };
        let opened = all(&|_| db.open_or_create_dataset(&name)?.insert("k", "v"));
        assert_eq!(count(opened, ErrorKind::NotFound), 4);
        assert_eq!(count(all(&|_| db.create_dataset(&name).map(drop)), ErrorKind::AlreadyExists), 0);
        let renamed = all(&|thread| db.rename_dataset(&name, format!("{name} by {thread}")));
        assert_eq!(count(renamed, ErrorKind::NotFound), 1);
        let created = all(&|_| db.create_dataset(&name).map(drop));
        assert_eq!(count(created, ErrorKind::AlreadyExists), 1);
        assert_eq!(count(all(&|_| db.destroy_dataset(&name)), ErrorKind::NotFound), 1);
        assert_eq!(db.datasets().unwrap().len(), round + 1);
    }
    db.verify().unwrap();
}

/// Each bug is switched on for the whole process, so these run one at a time and apart from the others.
#[cfg(feature = "planted-bugs")]
mod planted {
    use super::{Seeds, history};
    use betree::base::planted::{Bug, plant};

    #[track_caller]
    fn is_noticed(bug: Bug) {
        plant(bug, true);
        let run = std::panic::catch_unwind(|| Seeds::new(8).run(history));
        plant(bug, false);
        assert!(!matches!(run, Ok(Ok(()))), "{bug:?} was not noticed");
        println!("{bug:?}: {run:.300?}");
    }

    #[test]
    fn planted_loss_of_tombstones_is_noticed_by_threads() {
        is_noticed(Bug::SkipDeadMessage);
    }

    #[test]
    fn planted_loss_of_range_deletes_is_noticed_by_threads() {
        is_noticed(Bug::DropRangeDelete);
    }
}
