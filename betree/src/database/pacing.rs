//! The speed of writers: slowed down smoothly when flushes fall behind, so that memtables keep to their budget.

use super::core::Core;
use super::error::{Error, Result};
use crate::base::preference::StoragePreference;
use crate::base::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::base::sync::thread;
use crate::base::units::BLOCK_BYTES_U64;
use crate::dmu::Privilege;
use std::time::Duration;

/// Waits of a writer, of a millisecond each, after which flushes that find no room are its own error.
const PUT_OFF_WAITS_MAX: u32 = 1024;
/// Shortest sleep worth its overhead; smaller delays add up first.
const SLEEP_MIN: Duration = Duration::from_micros(500);
/// Longest single sleep of a paced writer.
const SLEEP_MAX: Duration = Duration::from_millis(5);

/// How far flushes are behind.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    /// A job found no room since a writer last looked.
    put_off: AtomicBool,
    /// Bytes in frozen memtables when last measured.
    frozen: AtomicUsize,
    /// Delay that writers owe, in nanoseconds.
    owed_ns: AtomicU64,
}

impl Pacing {
    /// Remembers the bytes of all frozen memtables.
    pub fn note_memtables(&self, frozen: usize) {
        self.frozen.store(frozen, Ordering::Relaxed);
    }

    /// A job found no room and waits for some.
    pub fn note_put_off(&self) {
        self.put_off.store(true, Ordering::Release);
    }

    /// Sleeps for `delay`, saved up until it is worth a sleep.
    fn delay(&self, delay: Duration) {
        let owed = self.owed_ns.fetch_add(delay.as_nanos() as u64, Ordering::Relaxed);
        if owed >= SLEEP_MIN.as_nanos() as u64 {
            let owed = self.owed_ns.swap(0, Ordering::Relaxed);
            thread::sleep(Duration::from_nanos(owed).min(SLEEP_MAX));
        }
    }
}

impl Core {
    /// No delay up to half of the budget for frozen memtables, then a delay per byte that grows until, at the budget,
    /// writers go at the speed of the flushes.
    ///
    /// # Errors
    /// Out of space when the flushes find no room.
    pub fn pace(&self, bytes: u64) -> Result<()> {
        if !self.has_threads() {
            return Ok(());
        }
        // One more table is being filled.
        let budget = self.scale.memtables_bytes_max - self.scale.memtable_bytes;
        let mut waits = 0;
        loop {
            let frozen = self.pacing.frozen.load(Ordering::Relaxed);
            if frozen * 2 < budget || self.has_failed() {
                return Ok(());
            }
            if frozen < budget {
                // 0 … 100 ns per byte: 10 MB/s at the budget.
                let share = (frozen * 2 - budget) as f64 / budget as f64;
                let delay = Duration::from_nanos((bytes as f64 * share * share * 100.0) as u64);
                self.pacing.delay(delay);
                return Ok(());
            }
            waits += 1;
            if waits % 16 == 0 {
                self.measure_memtables();
                if self.pacing.put_off.swap(false, Ordering::AcqRel) {
                    if waits >= PUT_OFF_WAITS_MAX {
                        let class = self.dmu.class_of(StoragePreference::NONE);
                        let free = self.dmu.available_blocks(class, Privilege::User) * BLOCK_BYTES_U64;
                        return Err(Error::OutOfSpace {
                            tier: self.dmu.first_tier(class),
                            wanted: bytes,
                            free,
                        });
                    }
                    self.queue_flushes();
                }
            }
            self.wait_for_progress(Duration::from_millis(1));
        }
    }
}
