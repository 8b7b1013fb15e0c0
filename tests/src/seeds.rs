//! Where the randomness of tests comes from, and how a failure is repeated.
//!
//! A test that takes random choices runs many sequences, each from a seed of its own. The first seed is new at every run
//! and printed; `BETREE_SEED` fixes it, `BETREE_SEQUENCES` says how many sequences run.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Consecutive seeds, one for each sequence.
#[derive(Debug, Clone, Copy)]
pub struct Seeds {
    /// The first one.
    pub first: u64,
    /// How many.
    pub count: u64,
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.trim().parse().ok()
}

impl Seeds {
    /// `count` seeds unless the environment says otherwise; prints what it chose.
    #[must_use]
    pub fn new(count: u64) -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64);
        let first = number("BETREE_SEED").unwrap_or_else(|| now() >> 10);
        let seeds = Self { first, count: number("BETREE_SEQUENCES").unwrap_or(count) };
        println!("{} sequences from BETREE_SEED={}", seeds.count, seeds.first);
        seeds
    }

    /// Runs `sequence` with each seed, on all processors, and returns the failure of one of them: after the first no
    /// other sequence is begun.
    ///
    /// # Errors
    /// What a sequence reported, and how to repeat it.
    pub fn run(self, sequence: impl Fn(u64) -> Result<(), String> + Sync) -> Result<(), String> {
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let failure = Mutex::new(None);
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.count {
                    return;
                }
                let seed = self.first.wrapping_add(index);
                if let Err(error) = sequence(seed) {
                    stop.store(true, Ordering::Relaxed);
                    let repeat = format!("repeat with BETREE_SEED={seed} BETREE_SEQUENCES=1\n{error}");
                    if let Ok(mut failure) = failure.lock() {
                        failure.get_or_insert(repeat);
                    }
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        match failure.into_inner() {
            Ok(Some(failure)) => Err(failure),
            _ => Ok(()),
        }
    }
}
