//! A small pool, changed as the input says, then opened for reading, for writing, and read whole.
//!
//! An input is a list of changes of [`CHANGE_BYTES`] bytes behind one byte of flags. With the flag [`RESEAL`], whatever
//! has its checksum inside of itself gets a right one afterwards: superblocks, labels, bitmap slots, table pages and roots,
//! log frames. Without it, what is read must be something that was written.

use crate::rig::Plug;
use betree::base::fuzzing::Target;
use betree::base::units::BLOCK_BYTES;
use betree::vdev::{SimClock, SimDisk};
use betree::{
    AccessMode, Compression, Database, DatabaseConfiguration, Error, LeafVdev, StoragePoolConfiguration,
    TierConfiguration,
};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The target.
pub const TARGET: Target = Target { name: "image", seeds, run };

const POOL_BYTES: u64 = 2 << 20;
const SEGMENT_BLOCKS: u32 = 32;
const CHANGE_BYTES: usize = 13;
const CHANGES_MAX: usize = 16;
/// Flag of an input: checksums are made right after the changes.
const RESEAL: u8 = 1;
/// Flag: each change is made in both label areas, where it falls into one.
const BOTH_ENDS: u8 = 2;

/// Keys, and all values that each had at some time.
type Written = BTreeMap<Vec<u8>, Vec<Vec<u8>>>;

struct Base {
    bytes: Vec<u8>,
    written: Written,
    /// Blocks that hold something.
    used: Vec<u32>,
}

fn configuration(disk: &SimDisk, mode: AccessMode) -> DatabaseConfiguration {
    let tier = TierConfiguration::new(vec![LeafVdev::from(Plug::device(disk, &Arc::default())).into()]);
    DatabaseConfiguration {
        storage: StoragePoolConfiguration { tiers: vec![tier], ..StoragePoolConfiguration::default() },
        access_mode: mode,
        compression: Compression::None,
        segment_size: u64::from(SEGMENT_BLOCKS) * BLOCK_BYTES as u64,
        memtable_size: 16 << 10,
        cache_size: 1 << 20,
        background_threads: Some(0),
        sync_interval_ms: None,
        ..DatabaseConfiguration::default()
    }
}

/// Makes the pool that all inputs start from; `None` when that fails, which fails the target.
fn make() -> Result<Base, Error> {
    let clock = SimClock::new(1);
    let disk = SimDisk::new("base", POOL_BYTES, &clock);
    let db = Database::create_with(configuration(&disk, AccessMode::OpenOrCreate), false)?;
    let mut written = Written::new();
    for round in 0..3_u8 {
        for name in ["data", "more"] {
            let dataset = db.open_or_create_dataset(name)?;
            for number in 0..120_u8 {
                let (key, value) =
                    (format!("{name}{number:03}"), vec![number ^ round; 60 + usize::from(number)]);
                dataset.insert(&key, &value)?;
                written.entry(key.into_bytes()).or_default().push(value);
            }
            let (key, value) = (format!("{name} large"), vec![round + 100; 30_000]);
            dataset.insert(&key, &value)?;
            written.entry(key.into_bytes()).or_default().push(value);
            dataset.range_delete(format!("{name}01{round}")..format!("{name}02"))?;
            dataset.delete(format!("{name}03{round}"))?;
        }
        db.settle()?;
        db.checkpoint()?;
    }
    let dataset = db.open_dataset("data")?;
    for number in 0..20_u8 {
        let (key, value) = (format!("data{number:03}"), vec![number; 200]);
        dataset.insert(&key, &value)?;
        written.entry(key.into_bytes()).or_default().push(value);
        if number % 5 == 0 {
            db.sync()?;
        }
    }
    // As a crash leaves it: with a log to replay.
    let bytes = disk.bytes();
    let used = bytes.chunks(BLOCK_BYTES).enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0));
    let used = used.map(|(index, _)| index as u32).collect();
    Ok(Base { bytes, written, used })
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    #[expect(clippy::panic, reason = "without a pool there is nothing to damage")]
    BASE.get_or_init(|| make().unwrap_or_else(|error| panic!("the pool to damage: {error}")))
}

fn seeds() -> Vec<Vec<u8>> {
    let mut rng = betree::vdev::SimRng::new(3);
    let mut change = || {
        let mut change: Vec<u8> = (0..CHANGE_BYTES).map(|_| rng.next_u64() as u8).collect();
        change[4] = rng.below(6) as u8;
        change
    };
    (0..16_u8).map(|seed| [vec![seed], change(), change(), change()].concat()).collect()
}

/// Makes one change: u16 used block, u16 offset in it, kind, eight bytes.
fn apply(bytes: &mut [u8], base: &Base, change: &[u8], both: bool) {
    let number = |at: usize| usize::from(u16::from_le_bytes([change[at], change[at + 1]]));
    let block = base.used[number(0) % base.used.len()] as usize;
    let blocks = bytes.len() / BLOCK_BYTES;
    let offset = number(2) % BLOCK_BYTES;
    // Most of what matters is at the head of a block.
    let offset = if change[4] & 0x40 == 0 { offset % 256 } else { offset };
    let mirrored = match block {
        block if block < 16 => Some(blocks - 16 + block),
        block if block >= blocks - 16 => Some(block + 16 - blocks),
        _ => None,
    };
    for block in [Some(block), mirrored.filter(|_| both)].into_iter().flatten() {
        let start = block * BLOCK_BYTES;
        let at = start + offset;
        let end = (at + 8).min(bytes.len());
        match change[4] % 6 {
            0 => bytes[at] ^= 1 << (change[5] % 8),
            1 => bytes[at] = change[5],
            2 => bytes[at..end].copy_from_slice(&change[5..5 + end - at]),
            3 => bytes[start..start + BLOCK_BYTES].fill(0),
            4 => {
                // A block that landed at a wrong place, or an old one that came back.
                let from = base.used[usize::from(change[5]) * base.used.len() / 256] as usize * BLOCK_BYTES;
                bytes[start..start + BLOCK_BYTES].copy_from_slice(&base.bytes[from..from + BLOCK_BYTES]);
            }
            _ => bytes[at..end].fill(change[5]),
        }
    }
}

fn reseal(bytes: &mut [u8]) {
    for start in (0..bytes.len()).step_by(BLOCK_BYTES) {
        let block = &mut bytes[start..];
        if betree::pool::fuzzing::is_ours(block) {
            betree::pool::fuzzing::reseal(&mut block[..BLOCK_BYTES]);
        }
        betree::dmu::fuzzing::reseal(block, SEGMENT_BLOCKS);
    }
    betree::log::fuzzing::reseal(bytes);
}

/// Reads everything that can be read; checks every value against `written` where that is given.
fn read(db: &Database, written: Option<&Written>) {
    let Ok(names) = db.datasets() else { return };
    let view = db.view();
    for name in names {
        let (Ok(dataset), _) = (db.open_dataset(&name), &view) else { continue };
        for entry in dataset.range::<&[u8]>(..) {
            let Ok((key, value)) = entry else { break };
            let known = written.is_none_or(|written| {
                written.get(&key[..]).is_some_and(|values| values.iter().any(|known| **known == *value))
            });
            assert!(known, "key {} has a value that nobody wrote", key.escape_ascii());
        }
        for number in (0..120).step_by(7) {
            let _refused = dataset.get(format!("data{number:03}"));
        }
    }
}

fn run(bytes: &[u8]) -> bool {
    let base = base();
    let Some((flags, changes)) = bytes.split_first() else { return false };
    let mut image = base.bytes.clone();
    for change in changes.chunks_exact(CHANGE_BYTES).take(CHANGES_MAX) {
        apply(&mut image, base, change, flags & BOTH_ENDS != 0);
    }
    let written = (flags & RESEAL == 0).then_some(&base.written);
    if written.is_none() {
        reseal(&mut image);
    }
    let disk = SimDisk::from_bytes("damaged", &image, &SimClock::new(2));
    if let Ok(db) = Database::open_read_only(configuration(&disk, AccessMode::OpenIfExists)) {
        read(&db, written);
    }
    assert!(disk.bytes() == image, "looking at a pool changed it");
    let Ok(db) = Database::open_with(configuration(&disk, AccessMode::OpenIfExists)) else { return false };
    read(&db, written);
    let sound = db.verify().is_ok();
    // On damaged ground writing may fail at any point, but not panic.
    let wrote = db.open_dataset("data").and_then(|dataset| {
        dataset.insert("data new", "new")?;
        dataset.delete("data005")?;
        db.checkpoint()
    });
    let still = db.verify().is_ok();
    assert!(!(sound && wrote.is_ok()) || still, "a pool that was sound is so no longer");
    let _refused = db.close();
    sound
}
