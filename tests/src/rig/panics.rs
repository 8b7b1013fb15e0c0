//! Panics below a database with background threads: callers get an error, closing returns, and what is opened then is a
//! state that may be.

use super::{Failure, Layout};
use betree::vdev::{SimClock, SimDisk, SimRng};
use betree::{Database, DatabaseConfiguration, Error, MessageAction, StoragePreference};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Writes after which something must have panicked.
const WRITES_MAX: u32 = 20_000;

/// A pool with a database that has background threads.
#[derive(Debug)]
pub struct Patient {
    disks: Vec<SimDisk>,
}

/// How far a patient came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Keys that were written, counted from 0.
    pub accepted: u32,
    /// Keys that were acknowledged as durable.
    pub synced: u32,
}

impl Default for Patient {
    fn default() -> Self {
        Self { disks: Layout::One.disks(&SimClock::new(1)) }
    }
}

fn configuration(disks: &[SimDisk], threads: usize) -> DatabaseConfiguration {
    let threads = Some(threads);
    DatabaseConfiguration {
        background_threads: threads,
        ..Layout::One.configuration(disks, &Arc::default(), 1)
    }
}

/// The value of key `number`: every eighth is a large one.
fn value(number: u32) -> Vec<u8> {
    vec![number as u8; if number % 8 == 7 { 17 << 10 } else { 200 }]
}

/// Keys that live at one time: what is before them was deleted.
const LIVE: u32 = 100;

impl Patient {
    /// Creates a database, calls `harm`, and writes until an error is reported; then demands that nothing is
    /// acknowledged any more and that closing returns and says so.
    ///
    /// # Errors
    /// One of this is not so.
    pub fn ail(&self, harm: impl FnOnce()) -> Result<Written, Failure> {
        let failed = |error: Error| Failure::new(error).within("before the panic");
        let database = Database::create_with(configuration(&self.disks, 2), false).map_err(failed)?;
        let dataset = database.create_dataset("data").map_err(failed)?;
        database.sync().map_err(failed)?;
        harm();
        let mut written = Written { accepted: 0, synced: 0 };
        let write = |number: u32| -> betree::Result<()> {
            dataset.insert(number.to_be_bytes(), value(number))?;
            if number >= LIVE {
                dataset.range_delete(
                    &(number - LIVE).to_be_bytes()[..]..&(number - LIVE + 1).to_be_bytes()[..],
                )?;
            }
            Ok(())
        };
        while written.accepted < WRITES_MAX && write(written.accepted).is_ok() {
            written.accepted += 1;
            if written.accepted.is_multiple_of(50) {
                if database.sync().is_err() {
                    break;
                }
                written.synced = written.accepted;
            }
        }
        if written.accepted == WRITES_MAX {
            return Err(Failure::new("no caller was told"));
        }
        for what in ["sync", "checkpoint", "settle"] {
            let done = match what {
                "sync" => dataset.insert("more", "more").and_then(|()| database.sync()),
                "checkpoint" => database.checkpoint(),
                _ => database.verify().map(|_| ()),
            };
            if done.is_ok() {
                return Err(Failure::new(format!("a {what} succeeds after a panic")));
            }
        }
        // What is read is right, or an error.
        for number in written.accepted.saturating_sub(LIVE / 2)..written.accepted {
            if let Ok(found) = dataset.get(number.to_be_bytes())
                && found.as_deref() != Some(value(number).as_slice())
            {
                return Err(Failure::new(format!("key {number} is wrong after a panic")));
            }
        }
        drop(dataset);
        match database.close() {
            Ok(()) => Err(Failure::new("closing does not tell of the panic")),
            Err(_) => Ok(written),
        }
    }

    /// Opens what is left, after a crash too, and demands that everything synced is there, as a prefix of what was
    /// written.
    ///
    /// # Errors
    /// It is not.
    pub fn recovers(&self, written: Written) -> Result<(), Failure> {
        let clock = SimClock::new(2);
        let mut rng = SimRng::new(2);
        let crashed: Vec<SimDisk> =
            self.disks.iter().map(|disk| disk.crash_image(&mut rng, &clock)).collect();
        for disks in [&crashed, &self.disks] {
            let failed = |error: Error| Failure::new(error).within("after the panic");
            let database = Database::open_with(configuration(disks, 0)).map_err(failed)?;
            if database.open_report().is_some_and(|report| report.rolled_back) {
                return Err(Failure::new("a panic looks like a loss"));
            }
            let dataset = database.open_dataset("data").map_err(failed)?;
            let mut found = Vec::new();
            for entry in dataset.range::<&[u8]>(..) {
                let (key, bytes) = entry.map_err(failed)?;
                let number = key.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
                match number {
                    Some(number) if bytes[..] == value(number)[..] => found.push(number),
                    _ => return Err(Failure::new(format!("key {} is wrong", key.escape_ascii()))),
                }
            }
            let end = found.last().map_or(0, |last| last + 1);
            if end < written.synced || end > written.accepted + 1 {
                return Err(Failure::new(format!("{end} keys are there of {written:?}")));
            }
            // The delete of an old key follows the insert of a new one.
            let first = end.saturating_sub(LIVE);
            if !(found.iter().copied().eq(first..end)
                || found.iter().copied().eq(first.saturating_sub(1)..end))
            {
                return Err(Failure::new(format!("of the keys before {end}, some are missing: {found:?}")));
            }
            database.verify().map_err(failed)?;
            dataset.insert("more", "more").and_then(|()| database.sync()).map_err(failed)?;
        }
        Ok(())
    }
}

/// Whether [`Fragile`] panics no more.
static MENDED: AtomicBool = AtomicBool::new(false);

/// An action that panics at the message `bad`, until it is mended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fragile;

impl Fragile {
    #[expect(clippy::panic, reason = "that is what it is for")]
    fn check(message: &[u8]) {
        if message == b"bad" && !MENDED.load(Ordering::SeqCst) {
            panic!("a bad message");
        }
    }
}

impl MessageAction for Fragile {
    const NAME: &'static str = "fragile";

    fn apply(&self, _key: &[u8], message: &[u8], value: &mut Option<Vec<u8>>) {
        Self::check(message);
        *value = Some(message.to_vec());
    }

    fn merge(&self, _key: &[u8], upper: &[u8], lower: &[u8]) -> Option<Vec<u8>> {
        Self::check(upper);
        Self::check(lower);
        Some(upper.to_vec())
    }
}

/// Lets a message action panic in the background, beside a dataset that does not use it. Its own dataset cannot be read, and
/// everything else goes on, the opening after it as well.
///
/// # Errors
/// This is not so.
pub fn action_panics(threads: usize) -> Result<(), Failure> {
    let disks = Layout::One.disks(&SimClock::new(1));
    let failed = |error: Error| Failure::new(error);
    let database = Database::create_with(configuration(&disks, threads), false).map_err(failed)?;
    let none = StoragePreference::NONE;
    let fragile = database.create_custom_dataset::<Fragile>("fragile", none).map_err(failed)?;
    let other = database.create_dataset("other").map_err(failed)?;
    other.insert("key", "value").map_err(failed)?;
    fragile.insert_msg("key", b"good").map_err(failed)?;
    fragile.insert_msg("key", b"bad").map_err(failed)?;
    fragile.insert("other", "value").map_err(failed)?;
    database.sync().map_err(failed)?;
    // The merge of the two messages is the first to meet the bad one.
    database.checkpoint().and_then(|()| database.settle()).map_err(failed)?;
    other.insert("key", "newer").and_then(|()| database.sync()).map_err(failed)?;
    if fragile.get("key").is_ok() {
        return Err(Failure::new("nobody is told of the panic"));
    }
    for round in 0..300_u32 {
        fragile.insert_msg("key", b"good").map_err(failed)?;
        fragile.insert(round.to_be_bytes(), [7; 1000]).map_err(failed)?;
    }
    database.settle().map_err(failed)?;
    database.verify().map_err(failed)?;
    drop((fragile, other));
    database.close().map_err(failed)?;
    let database = Database::open_with(configuration(&disks, threads)).map_err(failed)?;
    let found = database.open_dataset("other").and_then(|other| other.get("key")).map_err(failed)?;
    if found.as_deref() != Some(b"newer") {
        return Err(Failure::new("another dataset lost what was synced"));
    }
    // An action that can deal with the message reads what it would have read.
    let fragile = database.open_custom_dataset::<Fragile>("fragile", none).map_err(failed)?;
    MENDED.store(true, Ordering::SeqCst);
    let found = fragile.get("key").map_err(failed);
    MENDED.store(false, Ordering::SeqCst);
    match found? {
        Some(value) if value[..] == *b"good" => Ok(()),
        _ => Err(Failure::new("messages were lost to the panic")),
    }
}
