//! Random operations against a `BTreeMap` per dataset, in lockstep.
//!
//! A seed determines the shape of the database (tiny: every flush, split, join and merge runs) and the operations. They
//! are made before they run, so that a failing list can be shortened: what is printed is what still fails after as many
//! operations as possible were left out.

use betree::vdev::{BlockDevice, SimClock, SimDisk, SimRng};
use betree::{
    AccessMode, Compression, Database, DatabaseConfiguration, DatabaseView, Dataset, DatasetConfiguration,
    DatasetView, Durability, Entries, ErrorKind, LeafVdev, MergePolicy, PartRead, StoragePoolConfiguration,
    StoragePreference, TierConfiguration,
};
use betree_tests::seeds::Seeds;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type Bounds = (Bound<Key>, Bound<Key>);
type Check = Result<(), String>;

macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(format!($($message)+));
        }
    };
}

/// A key; shortened when printed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key(Vec<u8>);

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        short(f, &self.0)
    }
}

/// Bytes that follow from a number and a length.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Filled {
    number: u64,
    length: usize,
}

impl Filled {
    /// Every other number makes bytes that compress.
    fn bytes(self) -> Vec<u8> {
        let mut rng = SimRng::new(self.number);
        let mut bytes = Vec::with_capacity(self.length + 8);
        while bytes.len() < self.length {
            let number = if self.number.is_multiple_of(2) { self.number } else { rng.next_u64() };
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.truncate(self.length);
        bytes
    }
}

impl fmt::Debug for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes from {:#x}", self.length, self.number)
    }
}

fn short(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    match bytes.len() {
        0..=40 => write!(f, "b\"{}\"", bytes.escape_ascii()),
        length => {
            let tail = &bytes[length - 12..];
            write!(f, "b\"{}…{}\" ({length})", bytes[..12].escape_ascii(), tail.escape_ascii())
        }
    }
}

/// A row of keys that are made from numbers.
#[derive(Debug, Clone, Copy)]
struct Row {
    first: u64,
    count: u64,
    /// 1: in order, `u64::MAX`: backwards, anything else: all over.
    stride: u64,
}

impl Row {
    fn keys(self) -> impl Iterator<Item = Vec<u8>> {
        (0..self.count).map(move |index| {
            let number = self.first.wrapping_add(index.wrapping_mul(self.stride)) % 100_000;
            format!("row/{number:06}").into_bytes()
        })
    }
}

#[derive(Debug, Clone)]
enum Change {
    Put { key: Key, value: Filled, preference: StoragePreference },
    Delete { key: Key },
    Upsert { key: Key, bytes: Filled, offset: u32, preference: StoragePreference },
    RangeDelete { bounds: Bounds },
}

/// How an iterator is moved.
#[derive(Debug, Clone, Copy)]
enum Walk {
    Forward,
    Backward,
    Mixed(u64),
}

#[derive(Debug, Clone)]
enum Operation {
    Change(usize, Change),
    PutRow(usize, Row, usize),
    DeleteRow(usize, Row),
    Batch(Vec<(usize, Change)>, Durability),
    Get(usize, Key),
    Range(usize, Bounds, Walk),
    Prefix(usize, Key, Walk),
    Ends(usize),
    Compare(usize),
    View(usize),
    DatabaseView,
    CompareView(usize),
    Open(usize, Bounds),
    Step(usize, usize, Walk),
    Sync,
    Checkpoint,
    Settle,
    Migrate(usize, Bounds, StoragePreference),
    DropCache,
    Verify,
    Reopen { close: bool },
    Create(DatasetConfiguration),
    Rename(usize),
    Destroy(usize),
}

/// What the whole run met: a path that never ran was not tested.
#[derive(Debug, Default)]
struct Reached {
    sequences: AtomicU64,
    operations: AtomicU64,
    reopened: AtomicU64,
    verified: AtomicU64,
    levels: AtomicU64,
    lowered: AtomicU64,
    leaves: AtomicU64,
    large: AtomicU64,
    range_deletes: AtomicU64,
    deltas: AtomicU64,
    moved: AtomicU64,
}

impl Reached {
    fn count(counter: &AtomicU64) {
        Self::add(counter, 1);
    }

    fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

// ---- choices

/// Everything that a seed determines.
#[derive(Debug, Clone)]
struct Plan {
    configuration: DatabaseConfiguration,
    /// Bytes of the disks of each tier.
    tiers: Vec<Vec<u64>>,
    operations: Vec<Operation>,
}

/// Where entries are moved: some of these have no devices.
const MOVES: [StoragePreference; 5] = [
    StoragePreference::FASTEST,
    StoragePreference::FAST,
    StoragePreference::SLOW,
    StoragePreference::SLOWEST,
    StoragePreference::NONE,
];

#[derive(Debug, Clone, Copy)]
enum KeyStyle {
    /// A few short keys: much is overwritten.
    Few,
    /// A long common prefix.
    Prefix,
    /// Bytes at the ends of the alphabet, keys that are prefixes of each other.
    Nasty,
    /// Up to the longest.
    Long,
    /// Those of [`Row`].
    Rows,
}

fn choose<T: Clone>(rng: &mut SimRng, choices: &[T]) -> T {
    choices[rng.index(choices.len())].clone()
}

fn any_key(rng: &mut SimRng, styles: &[KeyStyle]) -> Key {
    let bytes = match choose(rng, styles) {
        KeyStyle::Few => format!("{}", rng.below(40)).into_bytes(),
        KeyStyle::Prefix => {
            let mut key = vec![b'p'; 230];
            key.extend_from_slice(format!("{:03}", rng.below(200)).as_bytes());
            key
        }
        KeyStyle::Nasty => (0..rng.below(6)).map(|_| choose(rng, &[0, 1, b'a', b'r', 0xfe, 0xff])).collect(),
        KeyStyle::Long if rng.chance(1, 6) => {
            let length = 65_536 - rng.below(2) * rng.below(60_000);
            let mut key = vec![choose(rng, b"lm"); length as usize];
            let last = key.len() - 1;
            key[last] = rng.below(4) as u8;
            key
        }
        KeyStyle::Long => vec![b'l'; rng.below(600) as usize],
        KeyStyle::Rows => format!("row/{:06}", rng.below(2_000)).into_bytes(),
    };
    Key(bytes)
}

fn any_bounds(rng: &mut SimRng, styles: &[KeyStyle]) -> Bounds {
    let bound = |rng: &mut SimRng| match rng.below(5) {
        0 | 1 => Bound::Included(any_key(rng, styles)),
        2 | 3 => Bound::Excluded(any_key(rng, styles)),
        _ => Bound::Unbounded,
    };
    let (low, high) = (bound(rng), bound(rng));
    let key = |bound: &Bound<Key>| match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(key.clone()),
        Bound::Unbounded => None,
    };
    // Mostly in order; backwards is an empty range.
    match (key(&low), key(&high)) {
        (Some(a), Some(b)) if a > b && !rng.chance(1, 8) => (high, low),
        _ => (low, high),
    }
}

fn any_value(rng: &mut SimRng, large: &mut u32) -> Filled {
    let length = match rng.below(60) {
        0 => 0,
        1 => 16 * 1024 - 2 + rng.below(4),
        2 => 4000 + rng.below(200),
        3 => 16 * 1024 + rng.below(40_000),
        4 if *large > 0 && rng.chance(1, 4) => {
            *large -= 1;
            1_000_000 + rng.below(48_577)
        }
        5..15 => 200 + rng.below(1500),
        _ => rng.below(120),
    };
    Filled { number: rng.next_u64(), length: length as usize }
}

fn any_change(rng: &mut SimRng, styles: &[KeyStyle], large: &mut u32) -> Change {
    let key = any_key(rng, styles);
    let any_preference = |rng: &mut SimRng| match rng.below(8) {
        class @ 0..4 => StoragePreference::new(class as u8).unwrap(),
        _ => StoragePreference::NONE,
    };
    match rng.below(20) {
        0..9 => Change::Put { key, value: any_value(rng, large), preference: any_preference(rng) },
        9..13 => Change::Delete { key },
        13..18 => {
            let (length, offset) = match rng.below(12) {
                0 => (rng.below(20_000), rng.below(30_000)),
                // Patches of what is large more often than not.
                2..5 => (rng.below(3000), rng.below(40_000)),
                1 => (0, rng.below(50)),
                _ => (rng.below(40), rng.below(100)),
            };
            let bytes = Filled { number: rng.next_u64(), length: length as usize };
            Change::Upsert { key, bytes, offset: offset as u32, preference: any_preference(rng) }
        }
        _ => Change::RangeDelete { bounds: any_bounds(rng, styles) },
    }
}

fn any_walk(rng: &mut SimRng) -> Walk {
    match rng.below(3) {
        0 => Walk::Forward,
        1 => Walk::Backward,
        _ => Walk::Mixed(rng.next_u64()),
    }
}

fn any_compression(rng: &mut SimRng) -> Compression {
    choose(rng, &[Compression::None, Compression::None, Compression::Lz4, Compression::Zstd { level: 1 }])
}

fn any_dataset(rng: &mut SimRng) -> DatasetConfiguration {
    let block_size = choose(rng, &[4 << 10, 4 << 10, 8 << 10, 16 << 10]);
    let merge_policy = choose(rng, &[MergePolicy::Tiered, MergePolicy::LazyLeveled, MergePolicy::Leveled]);
    let fanout = choose(rng, &[4, 4, 5, 8]);
    DatasetConfiguration {
        merge_policy,
        fanout,
        leaf_size: choose(rng, &[block_size as u64, 16 << 10, 32 << 10]).max(block_size as u64),
        block_size,
        // No choice of its own: what follows a seed stays what it was.
        large_value_size: [(5, 2 << 10), (8, 4 << 10)]
            .into_iter()
            .find(|(of, _)| *of == fanout)
            .map_or(16 << 10, |(_, size)| size),
        buffer_size: choose(rng, &[16 << 10, 32 << 10, 64 << 10]),
        runs_per_buffer: choose(rng, &[1, 2, 4, 8]),
        deltas_per_leaf: choose(rng, &[1, 2, 4]),
        compression: if rng.chance(1, 2) { Some(any_compression(rng)) } else { None },
        storage_preference: choose(
            rng,
            &[StoragePreference::NONE, StoragePreference::NONE, StoragePreference::FAST],
        ),
    }
}

impl Plan {
    fn new(seed: u64) -> Self {
        let mut rng = SimRng::new(seed);
        let rng = &mut rng;
        let tiers = choose(
            rng,
            &[
                vec![vec![48 << 20]],
                vec![vec![48 << 20]],
                vec![vec![24 << 20, 32 << 20]],
                vec![vec![24 << 20], vec![40 << 20]],
                vec![vec![], vec![40 << 20], vec![], vec![24 << 20, 24 << 20]],
            ],
        );
        let threads = if rng.chance(1, 5) { 1 + rng.below(2) as usize } else { 0 };
        let configuration = DatabaseConfiguration {
            alloc_strategy: choose(
                rng,
                &[[vec![0], vec![1], vec![2], vec![3]], [vec![0, 1], vec![1, 0], vec![3, 2, 1, 0], vec![2]]],
            ),
            compression: any_compression(rng),
            cache_size: choose(rng, &[0, 64 << 10, 1 << 20, 16 << 20]),
            sync_interval_ms: if rng.chance(1, 4) { Some(1) } else { None },
            memtable_size: choose(rng, &[4 << 10, 8 << 10, 16 << 10, 64 << 10]),
            checkpoint_log_bytes: choose(rng, &[None, Some(64 << 10), Some(1 << 20)]),
            segment_size: choose(rng, &[256 << 10, 256 << 10, 1 << 20, 8 << 20]),
            background_threads: Some(threads),
            default_dataset: any_dataset(rng),
            ..DatabaseConfiguration::default()
        };
        let styles = match rng.below(8) {
            0 => vec![KeyStyle::Few],
            1 => vec![KeyStyle::Prefix, KeyStyle::Rows],
            2 => vec![KeyStyle::Nasty, KeyStyle::Rows],
            3 => vec![KeyStyle::Long, KeyStyle::Few],
            4 => vec![KeyStyle::Few, KeyStyle::Prefix, KeyStyle::Nasty, KeyStyle::Long, KeyStyle::Rows],
            _ => vec![KeyStyle::Rows, KeyStyle::Rows, KeyStyle::Few],
        };
        let most = choose(rng, &[10, 40, 120, 300]);
        let length = 1 + rng.below(most);
        let mut large = 4;
        let mut operations = vec![Operation::Create(any_dataset(rng))];
        for _ in 0..length {
            operations.push(Self::operation(rng, &styles, &mut large));
        }
        Self { configuration, tiers, operations }
    }

    fn operation(rng: &mut SimRng, styles: &[KeyStyle], large: &mut u32) -> Operation {
        let dataset = rng.index(4);
        let row = |rng: &mut SimRng, most: u64| Row {
            first: rng.below(2_000),
            count: 1 + rng.below(most),
            stride: choose(rng, &[1, 1, u64::MAX, 7_919, 31]),
        };
        match rng.below(100) {
            0..36 => Operation::Change(dataset, any_change(rng, styles, large)),
            36..46 => Operation::PutRow(dataset, row(rng, 250), 1 + rng.index(150)),
            46..49 => Operation::DeleteRow(dataset, row(rng, 200)),
            49..54 => {
                let writes =
                    (0..rng.below(12)).map(|_| (rng.index(4), any_change(rng, styles, large))).collect();
                Operation::Batch(writes, choose(rng, &[Durability::Buffered, Durability::Sync]))
            }
            54..62 => Operation::Get(dataset, any_key(rng, styles)),
            62..68 => Operation::Range(dataset, any_bounds(rng, styles), any_walk(rng)),
            68..70 => {
                let mut prefix = any_key(rng, styles);
                prefix.0.truncate(rng.index(8));
                Operation::Prefix(dataset, prefix, any_walk(rng))
            }
            70..72 => Operation::Ends(dataset),
            72 => Operation::Compare(dataset),
            73..75 => Operation::View(dataset),
            75 => Operation::DatabaseView,
            76..78 => Operation::CompareView(rng.index(8)),
            78 => Operation::Open(dataset, any_bounds(rng, styles)),
            79..82 => Operation::Step(rng.index(4), 1 + rng.index(60), any_walk(rng)),
            82..86 => Operation::Sync,
            86..89 => Operation::Checkpoint,
            89..91 => Operation::Settle,
            99 if rng.chance(1, 2) => {
                let preference = choose(rng, &MOVES);
                Operation::Migrate(dataset, any_bounds(rng, styles), preference)
            }
            91 => Operation::DropCache,
            92 => Operation::Verify,
            93..96 => Operation::Reopen { close: rng.chance(1, 2) },
            96 => Operation::Create(any_dataset(rng)),
            97 => Operation::Rename(dataset),
            98 => Operation::Destroy(dataset),
            _ => Operation::Change(
                dataset,
                Change::RangeDelete {
                    bounds: (Bound::Included(Key(b"row/".to_vec())), Bound::Excluded(Key(b"row0".to_vec()))),
                },
            ),
        }
    }
}

// ---- the run

struct Subject {
    name: String,
    dataset: Dataset,
    model: Map,
}

struct HeldView {
    view: DatasetView,
    model: Map,
}

struct HeldRange {
    entries: Entries,
    left: VecDeque<(Vec<u8>, Vec<u8>)>,
}

struct World<'a> {
    configuration: DatabaseConfiguration,
    disks: Vec<Vec<SimDisk>>,
    db: Option<Database>,
    subjects: Vec<Subject>,
    views: Vec<HeldView>,
    database_views: Vec<(DatabaseView, Vec<(String, Map)>)>,
    iterators: Vec<HeldRange>,
    names: u64,
    reached: &'a Reached,
}

fn told(what: impl fmt::Debug) -> impl FnOnce(betree::Error) -> String {
    move |error| format!("{what:?}: {error} ({:?})", error.kind())
}

fn inside(model: &Map, bounds: &Bounds) -> VecDeque<(Vec<u8>, Vec<u8>)> {
    let is_inside = |key: &Vec<u8>| {
        let low = match &bounds.0 {
            Bound::Included(low) => *key >= low.0,
            Bound::Excluded(low) => *key > low.0,
            Bound::Unbounded => true,
        };
        let high = match &bounds.1 {
            Bound::Included(high) => *key <= high.0,
            Bound::Excluded(high) => *key < high.0,
            Bound::Unbounded => true,
        };
        low && high
    };
    model.iter().filter(|(key, _)| is_inside(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn apply(model: &mut Map, change: &Change) {
    match change {
        Change::Put { key, value, .. } => {
            model.insert(key.0.clone(), value.bytes());
        }
        Change::Delete { key } => {
            model.remove(&key.0);
        }
        Change::Upsert { key, bytes, offset, .. } => {
            let value = model.entry(key.0.clone()).or_default();
            let (offset, bytes) = (*offset as usize, bytes.bytes());
            if value.len() < offset + bytes.len() {
                value.resize(offset + bytes.len(), 0);
            }
            value[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        Change::RangeDelete { bounds } => {
            let bounds = (bounds.0.as_ref().map(|key| &key.0), bounds.1.as_ref().map(|key| &key.0));
            model.retain(|key, _| !RangeBounds::<Vec<u8>>::contains(&bounds, key));
        }
    }
}

/// Moves `entries` as `walk` says, `most` times or until both are at their ends.
fn advance(entries: &mut Entries, left: &mut VecDeque<(Vec<u8>, Vec<u8>)>, walk: Walk, most: usize) -> Check {
    let mut rng = SimRng::new(if let Walk::Mixed(seed) = walk { seed } else { 0 });
    for _ in 0..most {
        let forward = match walk {
            Walk::Forward => true,
            Walk::Backward => false,
            Walk::Mixed(_) => rng.chance(1, 2),
        };
        let found = if forward { entries.next() } else { entries.next_back() };
        let found = found.transpose().map_err(told("iterator"))?;
        let expected = if forward { left.pop_front() } else { left.pop_back() };
        let direction = if forward { "forward" } else { "backward" };
        match (&found, &expected) {
            (None, None) => return Ok(()),
            (Some((key, value)), Some((wanted, content))) => {
                ensure!(
                    **key == **wanted,
                    "{direction}: key {:?} instead of {:?}",
                    Key(key.to_vec()),
                    Key(wanted.clone())
                );
                ensure!(
                    **value == **content,
                    "{direction}: key {:?} has {:?}, not {:?}",
                    Key(key.to_vec()),
                    Key(value.to_vec()),
                    Key(content.clone())
                );
            }
            (found, expected) => {
                let key = |entry: Option<&[u8]>| entry.map(|key| Key(key.to_vec()));
                return Err(format!(
                    "{direction}: {:?} instead of {:?}",
                    key(found.as_ref().map(|(key, _)| &**key)),
                    key(expected.as_ref().map(|(key, _)| &**key))
                ));
            }
        }
    }
    Ok(())
}

fn compare(mut entries: Entries, model: &Map, walk: Walk) -> Check {
    let mut left = inside(model, &(Bound::Unbounded, Bound::Unbounded));
    advance(&mut entries, &mut left, walk, usize::MAX)
}

impl<'a> World<'a> {
    fn new(plan: &Plan, reached: &'a Reached) -> Result<Self, String> {
        let clock = SimClock::new(1);
        let disk = |bytes: &u64| SimDisk::new("disk", *bytes, &clock);
        let disks = plan.tiers.iter().map(|tier| tier.iter().map(disk).collect()).collect();
        let mut world = Self {
            configuration: plan.configuration.clone(),
            disks,
            db: None,
            subjects: Vec::new(),
            views: Vec::new(),
            database_views: Vec::new(),
            iterators: Vec::new(),
            names: 0,
            reached,
        };
        world.open(AccessMode::OpenOrCreate)?;
        Ok(world)
    }

    fn open(&mut self, access_mode: AccessMode) -> Check {
        let tier = |disks: &Vec<SimDisk>| {
            let device = |disk: &SimDisk| Arc::new(disk.device()) as Arc<dyn BlockDevice>;
            TierConfiguration::new(disks.iter().map(|disk| LeafVdev::from(device(disk)).into()).collect())
        };
        let storage = StoragePoolConfiguration {
            tiers: self.disks.iter().map(tier).collect(),
            ..StoragePoolConfiguration::default()
        };
        let configuration = DatabaseConfiguration { storage, access_mode, ..self.configuration.clone() };
        self.db = Some(Database::build(configuration).map_err(told("open"))?);
        Ok(())
    }

    fn db(&self) -> &Database {
        self.db.as_ref().unwrap()
    }

    /// The datasets in lockstep; `None` when there is none.
    fn subject(&mut self, index: usize) -> Option<&mut Subject> {
        let count = self.subjects.len();
        (count > 0).then(|| &mut self.subjects[index % count])
    }

    fn perform(&mut self, operation: &Operation) -> Check {
        Reached::count(&self.reached.operations);
        match operation {
            Operation::Change(index, change) => self.change(*index, change),
            Operation::PutRow(index, row, length) => {
                let Some(subject) = self.subject(*index) else { return Ok(()) };
                for (number, key) in row.keys().enumerate() {
                    let value = Filled { number: number as u64 + row.first, length: *length }.bytes();
                    subject.dataset.insert(&key, &value).map_err(told(operation))?;
                    subject.model.insert(key, value);
                }
                Ok(())
            }
            Operation::DeleteRow(index, row) => {
                let Some(subject) = self.subject(*index) else { return Ok(()) };
                for key in row.keys() {
                    subject.dataset.delete(&key).map_err(told(operation))?;
                    subject.model.remove(&key);
                }
                Ok(())
            }
            Operation::Batch(writes, durability) => self.batch(writes, *durability),
            Operation::Get(index, key) => {
                let Some(subject) = self.subject(*index) else { return Ok(()) };
                check_get(subject, &key.0)
            }
            Operation::Range(index, bounds, walk) => {
                let Some(subject) = self.subject(*index) else { return Ok(()) };
                let mut left = inside(&subject.model, bounds);
                advance(&mut subject.dataset.range(bounds.clone()), &mut left, *walk, usize::MAX)
            }
            Operation::Prefix(index, prefix, walk) => {
                let Some(subject) = self.subject(*index) else { return Ok(()) };
                let mut left: VecDeque<_> = subject
                    .model
                    .iter()
                    .filter(|(key, _)| key.starts_with(&prefix.0))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                advance(&mut subject.dataset.prefix(prefix), &mut left, *walk, usize::MAX)
            }
            Operation::Ends(index) => {
                let Some(subject) = self.subject(*index) else { return Ok(()) };
                let first = subject.dataset.first_key_value().map_err(told(operation))?;
                let last = subject.dataset.last_key_value().map_err(told(operation))?;
                let plain = |entry: Option<(betree::Value, betree::Value)>| {
                    entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
                };
                let owned = |entry: Option<(&Vec<u8>, &Vec<u8>)>| {
                    entry.map(|(key, value)| (key.clone(), value.clone()))
                };
                ensure!(plain(first) == owned(subject.model.first_key_value()), "first entry differs");
                ensure!(plain(last) == owned(subject.model.last_key_value()), "last entry differs");
                Ok(())
            }
            Operation::Compare(index) => {
                self.sample(*index)?;
                let Some(subject) = self.subject(*index) else { return Ok(()) };
                compare(subject.dataset.range::<&[u8]>(..), &subject.model, Walk::Backward)
            }
            Operation::View(index) => {
                let Some(subject) = self.subject(*index) else { return Ok(()) };
                let held = HeldView { view: subject.dataset.view(), model: subject.model.clone() };
                self.views.push(held);
                if self.views.len() > 6 { self.compare_view(0) } else { Ok(()) }
            }
            Operation::DatabaseView => {
                let models =
                    self.subjects.iter().map(|subject| (subject.name.clone(), subject.model.clone()));
                let models = models.collect();
                self.database_views.push((self.db().view(), models));
                Ok(())
            }
            Operation::CompareView(index) => {
                if let Some((view, models)) = self.database_views.pop() {
                    check_database_view(&view, &models)?;
                }
                self.compare_view(*index)
            }
            Operation::Open(index, bounds) => {
                let Some(subject) = self.subject(*index) else { return Ok(()) };
                let left = inside(&subject.model, bounds);
                let entries = subject.dataset.range(bounds.clone());
                self.iterators.push(HeldRange { entries, left });
                self.iterators.truncate(4);
                Ok(())
            }
            Operation::Step(index, count, walk) => {
                let Some(iterator) = self.iterators.get_mut(*index) else { return Ok(()) };
                advance(&mut iterator.entries, &mut iterator.left, *walk, *count)
            }
            Operation::Sync => self.db().sync().map_err(told(operation)),
            Operation::Checkpoint => self.db().checkpoint().map_err(told(operation)),
            Operation::Settle => {
                self.db().settle().map_err(told(operation))?;
                self.sample(0)
            }
            Operation::Migrate(index, bounds, preference) => {
                let devices =
                    |class: u8| self.disks.get(class as usize).is_some_and(|disks| !disks.is_empty());
                let possible = preference.class().is_none_or(devices);
                let Some(subject) = self.subject(*index) else { return Ok(()) };
                match subject.dataset.migrate_range(bounds.clone(), *preference) {
                    Ok(moved) => {
                        // An empty range asks for nothing.
                        ensure!(possible || moved.entries == 0, "moved to no device");
                        Reached::add(&self.reached.moved, moved.entries);
                    }
                    Err(error) => {
                        ensure!(
                            !possible && error.kind() == ErrorKind::InvalidArgument,
                            "{operation:?}: {error}"
                        );
                    }
                }
                self.sample(*index)
            }
            Operation::DropCache => {
                self.db().drop_cache();
                Ok(())
            }
            Operation::Verify => self.verify(),
            Operation::Reopen { close } => self.reopen(*close),
            Operation::Create(configuration) => self.create(configuration),
            Operation::Rename(index) => self.rename(*index),
            Operation::Destroy(index) => self.destroy(*index),
        }
    }

    fn change(&mut self, index: usize, change: &Change) -> Check {
        let Some(subject) = self.subject(index) else { return Ok(()) };
        let dataset = &subject.dataset;
        match change {
            Change::Put { key, value, preference } => {
                dataset.insert_with_pref(key, value.bytes(), *preference)
            }
            Change::Delete { key } => dataset.delete(key),
            Change::Upsert { key, bytes, offset, preference } => {
                dataset.upsert_with_pref(key, bytes.bytes(), *offset, *preference)
            }
            Change::RangeDelete { bounds } => dataset.range_delete(bounds.clone()),
        }
        .map_err(told(change))?;
        apply(&mut subject.model, change);
        match change {
            Change::Put { key, .. } | Change::Delete { key } | Change::Upsert { key, .. } => {
                check_get(subject, &key.0)
            }
            Change::RangeDelete { bounds } => {
                ensure!(subject.dataset.range(bounds.clone()).next().is_none(), "the range is not empty");
                Ok(())
            }
        }
    }

    fn batch(&mut self, writes: &[(usize, Change)], durability: Durability) -> Check {
        if self.subjects.is_empty() {
            return Ok(());
        }
        let mut batch = self.db().batch();
        for (index, change) in writes {
            let dataset = &self.subjects[index % self.subjects.len()].dataset;
            batch = match change {
                Change::Put { key, value, preference } => {
                    batch.insert_with_pref(dataset, key, value.bytes(), *preference)
                }
                Change::Delete { key } => batch.delete(dataset, key),
                Change::Upsert { key, bytes, offset, .. } => {
                    batch.upsert(dataset, key, bytes.bytes(), *offset)
                }
                Change::RangeDelete { bounds } => batch.range_delete(dataset, bounds.clone()),
            };
        }
        batch.commit(durability).map_err(told("batch"))?;
        for (index, change) in writes {
            let count = self.subjects.len();
            apply(&mut self.subjects[index % count].model, change);
        }
        Ok(())
    }

    fn compare_view(&mut self, index: usize) -> Check {
        if self.views.is_empty() {
            return Ok(());
        }
        let held = self.views.swap_remove(index % self.views.len());
        check_view(&held.view, &held.model)
    }

    fn create(&mut self, configuration: &DatasetConfiguration) -> Check {
        if self.subjects.len() >= 4 {
            return Ok(());
        }
        self.names += 1;
        let name = format!("dataset {}", self.names);
        let db = self.db();
        let dataset = db.create_dataset_with(&name, configuration).map_err(told("create"))?;
        let again = db.create_dataset(&name).map(drop);
        ensure!(
            again.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists),
            "created twice: {again:?}"
        );
        self.subjects.push(Subject { name, dataset, model: Map::new() });
        Ok(())
    }

    fn rename(&mut self, index: usize) -> Check {
        self.names += 1;
        let new_name = format!("renamed {}", self.names);
        let db = self.db().clone();
        let Some(subject) = self.subject(index) else { return Ok(()) };
        db.rename_dataset(&subject.name, &new_name).map_err(told("rename"))?;
        ensure!(subject.dataset.name() == new_name.as_bytes(), "the handle has the old name");
        subject.name = new_name;
        Ok(())
    }

    fn destroy(&mut self, index: usize) -> Check {
        if self.subjects.is_empty() {
            return Ok(());
        }
        let subject = self.subjects.swap_remove(index % self.subjects.len());
        self.views.push(HeldView { view: subject.dataset.view(), model: subject.model });
        self.db().destroy_dataset(&subject.name).map_err(told("destroy"))?;
        let gone =
            |result: betree::Result<()>| result.is_err_and(|error| error.kind() == ErrorKind::NotFound);
        ensure!(gone(subject.dataset.get("a").map(drop)), "a destroyed dataset reads");
        ensure!(gone(subject.dataset.insert("a", "b")), "a destroyed dataset takes writes");
        ensure!(gone(self.db().open_dataset(&subject.name).map(drop)), "a destroyed dataset opens");
        Ok(())
    }

    fn verify(&self) -> Check {
        Reached::count(&self.reached.verified);
        self.db().verify().map(drop).map_err(told("verify"))
    }

    /// Ends what would keep the database open, checking it.
    fn release(&mut self) -> Check {
        while !self.views.is_empty() {
            self.compare_view(0)?;
        }
        for (view, models) in std::mem::take(&mut self.database_views) {
            check_database_view(&view, &models)?;
        }
        for mut iterator in std::mem::take(&mut self.iterators) {
            advance(&mut iterator.entries, &mut iterator.left, Walk::Forward, usize::MAX)?;
        }
        Ok(())
    }

    fn reopen(&mut self, close: bool) -> Check {
        Reached::count(&self.reached.reopened);
        self.release()?;
        let models: Vec<_> = self.subjects.drain(..).map(|subject| (subject.name, subject.model)).collect();
        let db = self.db.take().unwrap();
        if close {
            db.close().map_err(told("close"))?;
        } else {
            drop(db);
        }
        self.open(AccessMode::OpenIfExists)?;
        let mut names: Vec<_> = models.iter().map(|(name, _)| name.clone().into_bytes()).collect();
        names.sort();
        ensure!(self.db().datasets().map_err(told("datasets"))? == names, "other datasets");
        for (name, model) in models {
            let dataset = self.db().open_dataset(&name).map_err(told("open dataset"))?;
            compare(dataset.range::<&[u8]>(..), &model, Walk::Forward)?;
            self.subjects.push(Subject { name, dataset, model });
        }
        Ok(())
    }

    /// Notes what shapes the trees take.
    fn sample(&self, index: usize) -> Check {
        if self.subjects.is_empty() {
            return Ok(());
        }
        let subject = &self.subjects[index % self.subjects.len()];
        let stats = subject.dataset.stats().map_err(told("stats"))?;
        let reached = self.reached;
        reached.levels.fetch_max(u64::from(stats.levels), Ordering::Relaxed);
        reached.leaves.fetch_max(stats.leaves, Ordering::Relaxed);
        reached.large.fetch_max(stats.large_bytes, Ordering::Relaxed);
        reached.range_deletes.fetch_max(stats.range_deletes, Ordering::Relaxed);
        reached.deltas.fetch_max(stats.delta_runs, Ordering::Relaxed);
        Ok(())
    }

    /// Everything is as the model says, and the database in order; then everything is deleted, and it still is.
    fn finish(&mut self) -> Check {
        self.release()?;
        let mut levels = Vec::new();
        for index in 0..self.subjects.len() {
            self.sample(index)?;
            let subject = &self.subjects[index];
            compare(subject.dataset.range::<&[u8]>(..), &subject.model, Walk::Forward)?;
            levels.push(subject.dataset.stats().map_err(told("stats"))?.levels);
        }
        self.verify()?;
        self.reopen(true)?;
        self.verify()?;
        for subject in &self.subjects {
            compare(subject.dataset.range::<&[u8]>(..), &subject.model, Walk::Backward)?;
        }
        for (index, subject) in self.subjects.iter_mut().enumerate() {
            if index.is_multiple_of(2) {
                subject.dataset.range_delete::<&[u8]>(..).map_err(told("delete everything"))?;
            } else {
                for key in subject.model.keys() {
                    subject.dataset.delete(key).map_err(told("delete each"))?;
                }
            }
            subject.model.clear();
        }
        let db = self.db();
        for _ in 0..3 {
            db.checkpoint().map_err(told("checkpoint"))?;
            db.settle().map_err(told("settle"))?;
        }
        for (subject, before) in self.subjects.iter().zip(levels) {
            compare(subject.dataset.range::<&[u8]>(..), &subject.model, Walk::Forward)?;
            let stats = subject.dataset.stats().map_err(told("stats"))?;
            if stats.levels < before {
                Reached::count(&self.reached.lowered);
            }
        }
        self.verify()?;
        self.subjects.clear();
        self.db.take().unwrap().close().map_err(told("close"))
    }
}

fn check_get(subject: &Subject, key: &[u8]) -> Check {
    let found = subject.dataset.get(key).map_err(told("get"))?;
    let expected = subject.model.get(key);
    ensure!(
        found.as_deref() == expected.map(Vec::as_slice),
        "key {:?} has {:?}, not {:?}",
        Key(key.to_vec()),
        found.map(|value| Key(value.to_vec())),
        expected.map(|value| Key(value.clone()))
    );
    let contains = subject.dataset.contains_key(key).map_err(told("contains_key"))?;
    ensure!(contains == expected.is_some(), "contains_key differs from get");
    check_part(|offset, part| subject.dataset.get_part(key, offset, part), expected)
}

/// Some part of a value, and it may reach beyond the end.
fn check_part(
    read: impl Fn(u64, &mut [u8]) -> betree::Result<Option<PartRead>>,
    expected: Option<&Vec<u8>>,
) -> Check {
    let whole = expected.map_or(&[][..], Vec::as_slice);
    let mut rng = SimRng::new(whole.iter().map(|byte| u64::from(*byte)).sum());
    let offset = rng.below(whole.len() as u64 + 10) as usize;
    let mut buffer = vec![1; rng.below(whole.len() as u64 + 100) as usize];
    let found = read(offset as u64, &mut buffer).map_err(told("get_part"))?;
    let wanted = whole.get(offset..).unwrap_or_default();
    let filled = wanted.len().min(buffer.len());
    let part = expected.map(|whole| PartRead { filled, value_length: whole.len() as u64 });
    ensure!(found == part, "the part from {offset} of {} is {found:?}, not {part:?}", buffer.len());
    ensure!(buffer[..filled] == wanted[..filled], "the part from {offset} of {} differs", buffer.len());
    Ok(())
}

fn check_view(view: &DatasetView, model: &Map) -> Check {
    compare(view.range::<&[u8]>(..), model, Walk::Forward).map_err(|error| format!("view: {error}"))?;
    compare(view.range::<&[u8]>(..), model, Walk::Mixed(1)).map_err(|error| format!("view: {error}"))?;
    if let Some((key, value)) = model.first_key_value() {
        let found = view.get(key).map_err(told("get of a view"))?;
        ensure!(found.as_deref() == Some(value.as_slice()), "get of a view differs");
        check_part(|offset, part| view.get_part(key, offset, part), Some(value))?;
    }
    Ok(())
}

fn check_database_view(view: &DatabaseView, models: &[(String, Map)]) -> Check {
    for (name, model) in models {
        check_view(&view.dataset_named(name).map_err(told("dataset of a view"))?, model)?;
    }
    Ok(())
}

/// Runs a plan; a panic is a failure like others. On failure also the number of operations that were done.
fn run(plan: &Plan, reached: &Reached) -> Result<(), (usize, String)> {
    let mut done = 0;
    let body = || -> Check {
        let mut world = World::new(plan, reached)?;
        for operation in &plan.operations {
            world.perform(operation)?;
            done += 1;
        }
        world.finish()
    };
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("?")))
    });
    result.map_err(|error| (done, error))
}

/// Leaves out operations as long as the rest still fails, for a limited time.
fn shorten(mut plan: Plan, failed_at: usize) -> (Plan, String) {
    let reached = Reached::default();
    plan.operations.truncate(failed_at + 1);
    let mut message = String::from("it did not fail again: timing matters");
    if let Err((_, error)) = run(&plan, &reached) {
        message = error;
    }
    let patience = std::env::var("BETREE_SHORTEN_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(patience.unwrap_or(20));
    let mut piece = plan.operations.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < plan.operations.len() && Instant::now() < end {
            let mut shorter = plan.clone();
            shorter.operations.drain(at..(at + piece).min(plan.operations.len()));
            match run(&shorter, &reached) {
                Err((_, error)) => (plan, message) = (shorter, error),
                Ok(()) => at += piece,
            }
        }
        piece /= 2;
    }
    (plan, message)
}

fn sequence(seed: u64, reached: &Reached) -> Result<(), String> {
    let plan = Plan::new(seed);
    Reached::count(&reached.sequences);
    run(&plan, reached).map_err(|(done, first)| {
        let all = plan.operations.len();
        let (short, error) = shorten(plan, done);
        format!(
            "after {done} of {all} operations: {first}\nshortened: {error}\n{:?}\ntiers {:?}\n{:#?}",
            short.configuration,
            short.tiers,
            short.operations.iter().map(|operation| format!("{operation:?}")).collect::<Vec<_>>()
        )
    })
}

#[test]
fn any_operations_agree_with_a_map() {
    let seeds = Seeds::new(if cfg!(debug_assertions) { 400 } else { 2_000 });
    let reached = Reached::default();
    let result = seeds.run(|seed| sequence(seed, &reached));
    println!("{reached:?}");
    if let Err(error) = result {
        panic!("{error}");
    }
    if seeds.count >= 1_000 {
        let at_least = |counter: &AtomicU64, least: u64, what: &str| {
            let met = counter.load(Ordering::Relaxed);
            assert!(met >= least, "{what}: {met}, not {least}");
        };
        at_least(&reached.levels, 4, "levels of a tree");
        at_least(&reached.lowered, seeds.count / 20, "trees that became lower");
        at_least(&reached.leaves, 64, "leaves of a tree");
        at_least(&reached.large, 1 << 20, "bytes of large values");
        at_least(&reached.range_deletes, 4, "range deletes in runs");
        at_least(&reached.deltas, 16, "runs in buffers");
        at_least(&reached.moved, 1, "entries that were moved to another tier");
        at_least(&reached.reopened, seeds.count, "times that a database was opened again");
    }
}

/// Sequences that found something which others did not: a leaf that was merged and joined for ever; range deletes that were
/// repeated, each of which got the long bounds of every slot.
#[test]
fn operations_that_found_something_once() {
    let reached = Reached::default();
    for seed in [1_003_368, 20_000_987] {
        if let Err(error) = sequence(seed, &reached) {
            panic!("seed {seed}: {error}");
        }
    }
}
