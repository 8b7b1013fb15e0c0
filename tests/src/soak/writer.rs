//! The process that is killed.

use super::Plan;
use super::numbers::{COUNTER, DATASETS, batch};
use crate::rig::add;
use betree::vdev::SimRng;
use betree::{AccessMode, Database, Durability};
use std::error::Error;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Writes batches until standard input ends, then closes the pool. Says `open` and `closing` on standard output. The
/// number of each batch that was synced is appended to the oracle, eight bytes big-endian, after the sync returned.
///
/// # Errors
/// Whatever goes wrong; nothing must.
pub fn write(plan: &Plan) -> Result<(), Box<dyn Error>> {
    let db = Database::build(plan.configuration(AccessMode::OpenOrCreate))?;
    for name in DATASETS {
        db.open_or_create_dataset(name)?;
    }
    // Whoever hears that the pool is open may count on the datasets.
    db.sync()?;
    let mut oracle = OpenOptions::new().append(true).create(true).open(plan.oracle())?;
    let dataset = db.open_dataset(DATASETS[0])?;
    let mut number = match dataset.get(COUNTER)? {
        Some(bytes) => u64::from_be_bytes(<[u8; 8]>::try_from(&*bytes)?) + 1,
        None => 1,
    };
    let mut rng = SimRng::new(number);
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    std::thread::spawn(move || {
        let _ended = std::io::stdin().read(&mut [0]);
        told.store(true, Ordering::Release);
    });
    say("open")?;
    while !stop.load(Ordering::Acquire) {
        let mut changes = db.batch();
        for (name, change) in batch(plan.seed, number) {
            changes = add(changes, &db, &name, &change)?;
        }
        if rng.chance(1, 6) {
            changes.commit(Durability::Sync)?;
            oracle.write_all(&number.to_be_bytes())?;
        } else {
            changes.commit(Durability::Buffered)?;
        }
        if rng.chance(1, 500) {
            db.checkpoint()?;
            oracle.write_all(&number.to_be_bytes())?;
        }
        number += 1;
    }
    say("closing")?;
    drop(dataset);
    db.close()?;
    // Closing keeps everything.
    oracle.write_all(&(number - 1).to_be_bytes())?;
    Ok(())
}

fn say(word: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word}")?;
    out.flush()
}
