//! The workloads.
//!
//! Every answer of an engine is checked: a value against key and version, a full scan also against the number of
//! entries. Which version a key has now is kept in a table while versions change, and in a file between processes.

use crate::counters::Counters;
use crate::engine::{Engine, Settings};
use crate::error::{Error, Wrong};
use crate::histogram::Histogram;
use crate::keys::{ENTRY_BYTES, KEY_BYTES, Order, value, verify};
use crate::random::{Random, Zipfian};
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Entries of one short scan.
const SHORT_SCAN_ENTRIES: u64 = 100;

/// Exponent of Zipf's law in the mixed workload: the one of YCSB.
const ZIPFIAN_THETA: f64 = 0.99;

/// Most operations of the durable workload: each waits for the device.
const DURABLE_OPERATIONS_MAX: u64 = 50_000;

/// One of how many entries of a full scan is timed: reading the clock takes a tenth of the time of an entry. A prime,
/// so that the entries looked at do not keep step with the blocks of an engine.
const SCAN_SAMPLING: u64 = 17;

/// Where a workload ends that does not go over all keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Most operations.
    pub operations: u64,
    /// Longest time, in seconds.
    pub seconds: f64,
}

/// The workloads, in the order of running: what only reads comes before what changes the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// All keys in ascending order into an empty database, one sync at the end, which the time includes.
    LoadSeq,
    /// The same in scattered order; the data set of all that follow but the last.
    LoadRandom,
    /// Uniform present keys, in a process that did as much before.
    GetWarm,
    /// Uniform present keys, right after opening.
    GetReopen,
    /// Uniform absent keys, right after opening.
    GetMissing,
    /// All entries in order, right after opening.
    Scan,
    /// 100 entries from a uniform present key on.
    ShortScan,
    /// New values for uniform keys, one sync at the end, which the time includes.
    Overwrite,
    /// Half reads, half new values, keys by Zipf's law, one thread.
    Mixed1,
    /// The same with two threads.
    Mixed2,
    /// Scattered keys into an empty database, each made durable before the next.
    Durable,
}

impl Workload {
    /// All, in the order of running.
    pub const ALL: [Self; 11] = [
        Self::LoadSeq,
        Self::LoadRandom,
        Self::GetWarm,
        Self::GetReopen,
        Self::GetMissing,
        Self::Scan,
        Self::ShortScan,
        Self::Overwrite,
        Self::Mixed1,
        Self::Mixed2,
        Self::Durable,
    ];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LoadSeq => "load_seq",
            Self::LoadRandom => "load_random",
            Self::GetWarm => "get_warm",
            Self::GetReopen => "get_reopen",
            Self::GetMissing => "get_missing",
            Self::Scan => "scan",
            Self::ShortScan => "short_scan",
            Self::Overwrite => "overwrite",
            Self::Mixed1 => "mixed_1",
            Self::Mixed2 => "mixed_2",
            Self::Durable => "durable",
        }
    }

    /// The workloads named in `list`, in the order of [`Workload::ALL`]; `mixed` names both of its kind.
    ///
    /// # Errors
    /// [`Error::Arguments`] for a name that none has.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, Error> {
        let names: Vec<&str> = list.split(',').map(str::trim).collect();
        let matches = |workload: Self, name: &str| {
            workload.name() == name || (name == "mixed" && matches!(workload, Self::Mixed1 | Self::Mixed2))
        };
        if let Some(unknown) = names.iter().find(|name| !Self::ALL.iter().any(|w| matches(*w, name))) {
            return Err(Error::Arguments(format!("no workload is called {unknown}")));
        }
        Ok(Self::ALL
            .into_iter()
            .filter(|workload| names.iter().any(|name| matches(*workload, name)))
            .collect())
    }

    /// The folder of the data set that it works on, under that of the engine.
    #[must_use]
    pub const fn data_set(self) -> &'static str {
        match self {
            Self::LoadSeq => "seq",
            Self::Durable => "durable",
            _ => "random",
        }
    }

    /// Whether it works on an empty database of its own making.
    #[must_use]
    pub const fn starts_empty(self) -> bool {
        matches!(self, Self::LoadSeq | Self::LoadRandom | Self::Durable)
    }

    /// Whether nobody uses its data set after it.
    #[must_use]
    pub const fn leaves_nothing(self) -> bool {
        matches!(self, Self::LoadSeq | Self::Durable)
    }

    /// Keys that its data set holds at most.
    #[must_use]
    pub fn keys(self, settings: &Settings, limits: &Limits) -> u64 {
        if self == Self::Durable { limits.operations.min(DURABLE_OPERATIONS_MAX) } else { settings.keys }
    }
}

/// `wanted` with what must run before it, and whether a workload was wanted itself.
#[must_use]
pub fn with_preparations(wanted: &[Workload]) -> Vec<(Workload, bool)> {
    let needs_data = wanted.iter().any(|workload| !workload.starts_empty());
    Workload::ALL
        .into_iter()
        .map(|workload| (workload, wanted.contains(&workload)))
        .filter(|(workload, is_wanted)| *is_wanted || (*workload == Workload::LoadRandom && needs_data))
        .collect()
}

/// What one workload did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Operations done; entries for a full scan, scans for short ones.
    pub operations: u64,
    /// Bytes of keys and values written.
    pub user_bytes_written: u64,
    /// Time for them.
    pub elapsed: Duration,
    /// Latencies in nanoseconds.
    pub latencies: Histogram,
    /// What the system counted from the first operation until the database was closed.
    pub counters: Counters,
    /// Bytes in use at the end, for an engine whose files are allocated ahead.
    pub used_bytes: Option<u64>,
}

/// A running workload: operations, the clock, and when to stop.
struct Clock {
    started: Instant,
    /// End of the last operation: the next one is timed from here, so that each costs one look at the clock. The
    /// few ten nanoseconds in which the workload makes keys and checks values count as part of it.
    last: Instant,
    latencies: Histogram,
    operations: u64,
    operations_max: u64,
    seconds_max: f64,
}

impl Clock {
    fn start(operations_max: u64, seconds_max: f64) -> Self {
        let now = Instant::now();
        Self {
            started: now,
            last: now,
            latencies: Histogram::default(),
            operations: 0,
            operations_max,
            seconds_max,
        }
    }

    /// Counts an operation that has just ended; false when it was the last one.
    fn tick(&mut self) -> bool {
        let now = Instant::now();
        self.latencies.record(u64::try_from((now - self.last).as_nanos()).unwrap_or(u64::MAX));
        self.last = now;
        self.operations += 1;
        self.operations < self.operations_max && (now - self.started).as_secs_f64() < self.seconds_max
    }
}

/// Runs `workload` on the database `engine`, and closes it. `folder` is the engine's.
///
/// # Errors
/// The engine's, and [`Error::Wrong`] when it gave a wrong answer.
pub fn run<E: Engine>(
    engine: E,
    workload: Workload,
    settings: &Settings,
    limits: &Limits,
    folder: &Path,
) -> Result<Outcome, Error> {
    let keys = settings.keys;
    let versions = Versions::path(folder);
    match workload {
        Workload::LoadSeq => measure(engine, |engine| load(engine, Order::Ascending, keys)),
        Workload::LoadRandom => measure(engine, |engine| load(engine, Order::Scattered, keys)),
        Workload::GetWarm => {
            let versions = Versions::load(&versions, keys)?;
            get(&engine, &versions, limits, 1)?;
            measure(engine, |engine| get(engine, &versions, limits, 2))
        }
        Workload::GetReopen => {
            let versions = Versions::load(&versions, keys)?;
            measure(engine, |engine| get(engine, &versions, limits, 3))
        }
        Workload::GetMissing => measure(engine, |engine| get_missing(engine, keys, limits)),
        Workload::Scan => {
            let versions = Versions::load(&versions, keys)?;
            measure(engine, |engine| scan(engine, &versions))
        }
        Workload::ShortScan => {
            let versions = Versions::load(&versions, keys)?;
            measure(engine, |engine| short_scan(engine, &versions, limits))
        }
        Workload::Overwrite => {
            let current = Versions::load_for_writing(&versions, keys)?;
            let outcome = measure(engine, |engine| overwrite(engine, &current, limits.operations))?;
            current.save(&versions)?;
            Ok(outcome)
        }
        Workload::Mixed1 | Workload::Mixed2 => {
            let threads = if workload == Workload::Mixed1 { 1 } else { 2 };
            let current = Versions::load_for_writing(&versions, keys)?;
            let zipfian = Zipfian::new(keys, ZIPFIAN_THETA);
            let outcome = measure(engine, |engine| mixed(engine, &current, &zipfian, limits, threads))?;
            current.save(&versions)?;
            Ok(outcome)
        }
        Workload::Durable => measure(engine, |engine| durable(engine, keys, limits)),
    }
}

/// Operations, latencies, time and user bytes written of a workload's main part.
struct Part {
    operations: u64,
    latencies: Histogram,
    elapsed: Duration,
    user_bytes_written: u64,
}

impl Part {
    /// What `clock` saw, until now.
    fn until_now(clock: Clock, user_bytes_written: u64) -> Self {
        let elapsed = clock.started.elapsed();
        Self { operations: clock.operations, latencies: clock.latencies, elapsed, user_bytes_written }
    }
}

/// Runs `part` between two looks at the counters, and closes the engine before the second.
fn measure<E: Engine>(engine: E, part: impl FnOnce(&E) -> Result<Part, Error>) -> Result<Outcome, Error> {
    let before = Counters::now()?;
    let part = part(&engine)?;
    let used_bytes = engine.used_bytes();
    engine.close()?;
    Ok(Outcome {
        operations: part.operations,
        user_bytes_written: part.user_bytes_written,
        elapsed: part.elapsed,
        latencies: part.latencies,
        counters: Counters::now()?.since(&before),
        used_bytes,
    })
}

fn load<E: Engine>(engine: &E, order: Order, keys: u64) -> Result<Part, Error> {
    let mut clock = Clock::start(keys, f64::INFINITY);
    for index in 0..keys {
        engine.put(&order.key(index), &value(index, 0))?;
        clock.tick();
    }
    engine.sync()?;
    Ok(Part::until_now(clock, keys * ENTRY_BYTES))
}

/// Reads key number `index` and checks what stands there against its version at that time.
fn get_one<E: Engine>(engine: &E, versions: &Versions, index: u64) -> Result<(), Error> {
    let oldest = versions.get(index);
    engine.get(&Order::Scattered.key(index), |found| {
        // While another thread writes the next version, that one may be seen already.
        let newest = versions.get(index).saturating_add(versions.ahead());
        match found {
            Some(found) => verify(index, oldest..=newest, found),
            None => Err(Wrong::Missing { index }),
        }
    })??;
    Ok(())
}

fn get<E: Engine>(engine: &E, versions: &Versions, limits: &Limits, seed: u64) -> Result<Part, Error> {
    let mut random = Random::new(seed);
    let mut clock = Clock::start(limits.operations, limits.seconds);
    loop {
        get_one(engine, versions, random.below(versions.keys()))?;
        if !clock.tick() {
            return Ok(Part::until_now(clock, 0));
        }
    }
}

fn get_missing<E: Engine>(engine: &E, keys: u64, limits: &Limits) -> Result<Part, Error> {
    let mut random = Random::new(4);
    let mut clock = Clock::start(limits.operations, limits.seconds);
    loop {
        let index = keys + random.below(keys);
        let absent = engine.get(&Order::Scattered.key(index), |found| found.is_none())?;
        if !absent {
            return Err(Wrong::Unexpected { index }.into());
        }
        if !clock.tick() {
            return Ok(Part::until_now(clock, 0));
        }
    }
}

/// Checks the entries of one scan, one after the other.
struct ScanCheck<'a> {
    versions: &'a Versions,
    last: Option<[u8; KEY_BYTES]>,
    position: u64,
}

impl<'a> ScanCheck<'a> {
    const fn new(versions: &'a Versions) -> Self {
        Self { versions, last: None, position: 0 }
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Wrong> {
        let position = self.position;
        let index = Order::Scattered
            .index(key)
            .filter(|index| *index < self.versions.keys())
            .ok_or(Wrong::ForeignKey { position })?;
        if self.last.as_ref().is_some_and(|last| key <= last) {
            return Err(Wrong::Order { position });
        }
        let version = self.versions.get(index);
        verify(index, version..=version, value)?;
        // A key that belongs to a number has the right length.
        self.last = key.try_into().ok();
        self.position += 1;
        Ok(())
    }
}

fn scan<E: Engine>(engine: &E, versions: &Versions) -> Result<Part, Error> {
    let mut check = ScanCheck::new(versions);
    let mut clock = Clock::start(u64::MAX, f64::INFINITY);
    engine.scan(&[], |key, value| {
        check.entry(key, value)?;
        match check.position % SCAN_SAMPLING {
            0 => clock.last = Instant::now(),
            1 => {
                clock.tick();
            }
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if check.position != versions.keys() {
        return Err(Wrong::Count { found: check.position, expected: versions.keys() }.into());
    }
    clock.operations = check.position;
    Ok(Part::until_now(clock, 0))
}

fn short_scan<E: Engine>(engine: &E, versions: &Versions, limits: &Limits) -> Result<Part, Error> {
    let mut random = Random::new(5);
    let mut clock = Clock::start(limits.operations, limits.seconds);
    loop {
        let start = Order::Scattered.key(random.below(versions.keys()));
        let mut check = ScanCheck::new(versions);
        engine.scan(&start, |key, value| {
            if check.position == 0 && key != start {
                return Err(Wrong::Order { position: 0 }.into());
            }
            check.entry(key, value)?;
            let done = check.position == SHORT_SCAN_ENTRIES;
            Ok(if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if check.position == 0 {
            return Err(Wrong::Count { found: 0, expected: SHORT_SCAN_ENTRIES }.into());
        }
        if !clock.tick() {
            return Ok(Part::until_now(clock, 0));
        }
    }
}

fn overwrite<E: Engine>(engine: &E, versions: &Versions, operations: u64) -> Result<Part, Error> {
    let mut random = Random::new(6);
    let mut clock = Clock::start(operations, f64::INFINITY);
    for _ in 0..operations {
        overwrite_one(engine, versions, random.below(versions.keys()))?;
        clock.tick();
    }
    engine.sync()?;
    Ok(Part::until_now(clock, operations * ENTRY_BYTES))
}

/// Gives key number `index` its next version. One thread at a time may do this to a key.
fn overwrite_one<E: Engine>(engine: &E, versions: &Versions, index: u64) -> Result<(), Error> {
    let next = versions.get(index).wrapping_add(1);
    engine.put(&Order::Scattered.key(index), &value(index, next))?;
    versions.set(index, next);
    Ok(())
}

fn mixed<E: Engine>(
    engine: &E,
    versions: &Versions,
    zipfian: &Zipfian,
    limits: &Limits,
    threads: u64,
) -> Result<Part, Error> {
    versions.set_ahead(u32::from(threads > 1));
    let writes = AtomicU64::new(0);
    let barrier = Barrier::new(threads as usize);
    let work = |thread: u64| {
        let mut random = Random::new(100 + thread);
        barrier.wait();
        let mut clock = Clock::start(limits.operations.div_ceil(threads), limits.seconds);
        loop {
            let index = zipfian.next(&mut random);
            if random.next() & 1 == 0 {
                get_one(engine, versions, index)?;
            } else {
                overwrite_one(engine, versions, own(index, thread, threads, versions.keys()))?;
                writes.fetch_add(1, Ordering::Relaxed);
            }
            if !clock.tick() {
                return Ok::<_, Error>(clock);
            }
        }
    };
    let started = Instant::now();
    let clocks = std::thread::scope(|scope| {
        let work = &work;
        let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().map_err(|_| Error::Thread)?)
            .collect::<Result<Vec<_>, _>>()
    })?;
    let elapsed = started.elapsed();
    versions.set_ahead(0);
    let mut latencies = Histogram::default();
    clocks.iter().for_each(|clock| latencies.merge(&clock.latencies));
    let operations = clocks.iter().map(|clock| clock.operations).sum();
    Ok(Part { operations, latencies, elapsed, user_bytes_written: writes.into_inner() * ENTRY_BYTES })
}

/// The key nearest to number `index` that `thread` of `threads` may write: of each group of neighbours every thread
/// has one, so that no key has two writers and each knows what is in it.
const fn own(index: u64, thread: u64, threads: u64, keys: u64) -> u64 {
    let near = index - index % threads + thread;
    if near < keys { near } else { near - threads }
}

fn durable<E: Engine>(engine: &E, keys: u64, limits: &Limits) -> Result<Part, Error> {
    let mut clock = Clock::start(keys, limits.seconds);
    for index in 0..keys {
        engine.put_durable(&Order::Scattered.key(index), &value(index, 0))?;
        if !clock.tick() {
            break;
        }
    }
    let bytes = clock.operations * ENTRY_BYTES;
    Ok(Part::until_now(clock, bytes))
}

/// The version that each key has now. As long as none was overwritten it takes no memory, then 4 bytes a key, which
/// the peak memory of the workloads that overwrite includes.
struct Versions {
    keys: u64,
    /// One for each key, or none at all while all are 0.
    versions: Vec<AtomicU32>,
    /// By how much a read may be ahead of the table: 1 while a writer may be between the engine and the table.
    ahead: AtomicU32,
}

impl Versions {
    /// The file under the engine's folder, which is there once a key was overwritten.
    fn path(folder: &Path) -> PathBuf {
        folder.join("versions")
    }

    /// The versions saved at `path`, for workloads that do not change them.
    fn load(path: &Path, keys: u64) -> Result<Self, Error> {
        let failed = |source| Error::File { path: path.into(), source };
        let mut versions = Vec::new();
        match File::open(path) {
            Ok(file) => {
                let mut file = BufReader::new(file);
                versions.reserve_exact(keys as usize);
                for _ in 0..keys {
                    let mut word = [0; 4];
                    file.read_exact(&mut word).map_err(failed)?;
                    versions.push(AtomicU32::new(u32::from_le_bytes(word)));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(Self { keys, versions, ahead: AtomicU32::new(0) })
    }

    /// The versions saved at `path`, with room for changes.
    fn load_for_writing(path: &Path, keys: u64) -> Result<Self, Error> {
        let mut this = Self::load(path, keys)?;
        this.versions.resize_with(keys as usize, || AtomicU32::new(0));
        Ok(this)
    }

    fn save(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::File { path: path.into(), source };
        let mut file = BufWriter::new(File::create(path).map_err(failed)?);
        for version in &self.versions {
            file.write_all(&version.load(Ordering::SeqCst).to_le_bytes()).map_err(failed)?;
        }
        file.flush().map_err(failed)
    }

    const fn keys(&self) -> u64 {
        self.keys
    }

    fn get(&self, index: u64) -> u32 {
        self.versions.get(index as usize).map_or(0, |version| version.load(Ordering::SeqCst))
    }

    /// Only on versions that were loaded for writing.
    fn set(&self, index: u64, version: u32) {
        self.versions[index as usize].store(version, Ordering::SeqCst);
    }

    fn ahead(&self) -> u32 {
        self.ahead.load(Ordering::SeqCst)
    }

    fn set_ahead(&self, ahead: u32) {
        self.ahead.store(ahead, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    /// How [`Model`] lies.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Lie {
        None,
        /// Every 50th put is lost.
        DropPut,
        /// A put of a key that is there is lost.
        KeepOld,
        /// Every read returns the value of another key.
        OtherValue,
        /// Every key is there.
        AlwaysThere,
        /// A scan leaves out the 20th entry.
        ScanSkips,
        /// A scan returns the 20th entry twice.
        ScanRepeats,
        /// A scan starts one entry late.
        ScanLate,
        /// A scan ends with a key that nobody wrote.
        ScanInvents,
    }

    /// An engine that is right by its simplicity, or wrong on purpose.
    struct Model {
        entries: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
        puts: AtomicU64,
        lie: Lie,
    }

    impl Model {
        fn new(lie: Lie) -> Self {
            Self { entries: Mutex::default(), puts: AtomicU64::new(0), lie }
        }
    }

    impl Engine for &Model {
        fn open(_: &Path, _: &Settings) -> Result<Self, Error> {
            Err(Error::Thread)
        }

        fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
            let count = self.puts.fetch_add(1, Ordering::Relaxed);
            let mut entries = self.entries.lock().unwrap();
            let lost = match self.lie {
                Lie::DropPut => count % 50 == 49,
                Lie::KeepOld => entries.contains_key(key),
                _ => false,
            };
            if !lost {
                entries.insert(key.into(), value.into());
            }
            Ok(())
        }

        fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
            self.put(key, value)
        }

        fn get<T>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> T) -> Result<T, Error> {
            let entries = self.entries.lock().unwrap();
            let found = match self.lie {
                Lie::OtherValue => entries.range(key.to_vec()..).map(|entry| entry.1).nth(1),
                Lie::AlwaysThere => entries.get(key).or_else(|| entries.values().next()),
                _ => entries.get(key),
            };
            let found = found.cloned();
            drop(entries);
            Ok(read(found.as_deref()))
        }

        fn scan(
            &self,
            from: &[u8],
            mut each: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Error>,
        ) -> Result<(), Error> {
            let mut entries: Vec<_> = self
                .entries
                .lock()
                .unwrap()
                .range(from.to_vec()..)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            match self.lie {
                Lie::ScanSkips => drop(entries.remove(20)),
                Lie::ScanRepeats => entries.insert(20, entries[20].clone()),
                Lie::ScanLate => drop(entries.remove(0)),
                Lie::ScanInvents => entries.push((vec![0xFF; KEY_BYTES], vec![])),
                _ => {}
            }
            for (key, value) in entries {
                if each(&key, &value)?.is_break() {
                    break;
                }
            }
            Ok(())
        }

        fn sync(&self) -> Result<(), Error> {
            Ok(())
        }

        fn used_bytes(&self) -> Option<u64> {
            Some(7)
        }

        fn close(self) -> Result<(), Error> {
            Ok(())
        }
    }

    const SETTINGS: Settings = Settings { keys: 2_001, cache_bytes: 0, direct: false };
    const LIMITS: Limits = Limits { operations: 3_000, seconds: 1e9 };

    /// Runs `workloads` on one model that tells `lie`, until one fails.
    fn run_all(lie: Lie, workloads: &[Workload]) -> Result<Vec<Outcome>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let model = Model::new(lie);
        workloads
            .iter()
            .map(|workload| {
                if workload.starts_empty() {
                    model.entries.lock().unwrap().clear();
                }
                let keys = workload.keys(&SETTINGS, &LIMITS);
                run(&model, *workload, &Settings { keys, ..SETTINGS }, &LIMITS, folder.path())
            })
            .collect()
    }

    #[test]
    fn an_honest_engine_passes_every_workload() {
        let outcomes = run_all(Lie::None, &Workload::ALL).unwrap();
        for (workload, outcome) in Workload::ALL.into_iter().zip(&outcomes) {
            let (operations, written) = match workload {
                Workload::LoadSeq | Workload::LoadRandom => (2_001, 2_001),
                Workload::Scan => (2_001, 0),
                Workload::Overwrite | Workload::Durable => (3_000, 3_000),
                Workload::Mixed1 | Workload::Mixed2 => (3_000, outcome.user_bytes_written / ENTRY_BYTES),
                _ => (3_000, 0),
            };
            assert_eq!(outcome.operations, operations, "{workload:?}");
            assert_eq!(outcome.user_bytes_written, written * ENTRY_BYTES, "{workload:?}");
            assert_eq!(outcome.used_bytes, Some(7));
            assert!(outcome.latencies.max() > 0, "{workload:?}");
        }
        let half = outcomes[8].user_bytes_written / ENTRY_BYTES;
        assert!((1_200..1_800).contains(&half), "{half} of 3000 were writes");
    }

    #[test]
    fn every_lie_is_caught() {
        use Workload::*;
        for (lie, workloads) in [
            (Lie::DropPut, &[LoadRandom, GetWarm][..]),
            (Lie::DropPut, &[LoadRandom, Scan]),
            (Lie::KeepOld, &[LoadRandom, Overwrite, Mixed1]),
            (Lie::KeepOld, &[LoadRandom, Mixed1]),
            (Lie::KeepOld, &[LoadRandom, Mixed2]),
            (Lie::OtherValue, &[LoadRandom, GetReopen]),
            (Lie::AlwaysThere, &[LoadRandom, GetMissing]),
            (Lie::ScanSkips, &[LoadRandom, Scan]),
            (Lie::ScanRepeats, &[LoadRandom, Scan]),
            (Lie::ScanRepeats, &[LoadRandom, ShortScan]),
            (Lie::ScanLate, &[LoadRandom, Scan]),
            (Lie::ScanLate, &[LoadRandom, ShortScan]),
            (Lie::ScanInvents, &[LoadRandom, Scan]),
        ] {
            let before = &workloads[..workloads.len() - 1];
            assert!(run_all(lie, before).is_ok(), "{lie:?} {before:?}");
            assert!(matches!(run_all(lie, workloads), Err(Error::Wrong(_))), "{lie:?} {workloads:?}");
        }
    }

    #[test]
    fn time_ends_a_workload() {
        let mut clock = Clock::start(u64::MAX, 1e-9);
        assert!(!clock.tick());
        assert!(Clock::start(2, f64::INFINITY).tick());
    }

    #[test]
    fn every_key_has_one_writer() {
        for (keys, threads) in [(2u64, 2u64), (7, 2), (9, 4), (5, 1)] {
            for thread in 0..threads {
                for index in 0..keys {
                    let own = own(index, thread, threads, keys);
                    assert!(own < keys && own % threads == thread, "{index} {thread}/{threads} of {keys}");
                }
            }
        }
    }

    #[test]
    fn preparations_come_first_and_are_not_reported() {
        use Workload::*;
        assert_eq!(with_preparations(&[Scan, LoadSeq]), [(LoadSeq, true), (LoadRandom, false), (Scan, true)]);
        assert_eq!(with_preparations(&[Durable]), [(Durable, true)]);
        assert_eq!(with_preparations(&Workload::ALL).len(), Workload::ALL.len());
    }
}
