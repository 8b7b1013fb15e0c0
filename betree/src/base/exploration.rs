//! Runs a test under the scheduler of shuttle, in many orders.
//!
//! `BETREE_SHUTTLE_ITERATIONS` multiplies the number of orders, `BETREE_SEED` fixes the first; a failure prints the seed of
//! its order.

use shuttle::scheduler::{PctScheduler, Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, MaxSteps, Runner};
use std::time::{SystemTime, UNIX_EPOCH};

/// Changes of priority that the second half of the orders makes: most known races need no more.
const DEPTH: usize = 4;

/// Steps of one order after which threads that wait for each other in turns are taken for that.
const STEPS_MAX: usize = 5_000_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.trim().parse().ok()
}

/// Runs `test` in about `orders` orders: half of them in bursts, half by priorities that change a few times (Burckhardt et
/// al., *A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs*, ASPLOS 2010).
///
/// A deadlock, and a wait that nobody ends, is a failure too.
pub fn explore(orders: usize, test: impl Fn() + Send + Sync + Clone + 'static) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64);
    let seed = number("BETREE_SEED").unwrap_or(now >> 10);
    let factor = number("BETREE_SHUTTLE_ITERATIONS").unwrap_or(1) as usize;
    let half = (orders * factor).div_ceil(2);
    println!("2 × {half} orders, BETREE_SEED={seed}");
    run(Bursts { left: half, seed, random: 0, length: 1 }, test.clone());
    run(PctScheduler::new_from_seed(seed, DEPTH, half), test);
}

fn run(scheduler: impl Scheduler + 'static, test: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    // That all orderings are taken for the strongest one is known and in the docs.
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(test);
}

/// Threads take turns of random length, whose mean is chosen anew for each order: from one step, to find what lies close
/// together, to more than one operation of a database, to let a whole one happen in the middle of another.
struct Bursts {
    left: usize,
    /// Of the next order.
    seed: u64,
    random: u64,
    length: u64,
}

impl Bursts {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Scheduler for Bursts {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.left = self.left.checked_sub(1)?;
        self.random = self.seed;
        self.seed = self.seed.wrapping_add(1);
        self.length = 1 << (self.next() % 8);
        Some(Schedule::new(self.seed))
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, yields: bool) -> Option<TaskId> {
        let goes_on = !self.next().is_multiple_of(self.length) && !yields;
        let current = current.filter(|current| goes_on && runnable.iter().any(|task| task.id() == *current));
        current.or_else(|| {
            let index = self.next() % runnable.len() as u64;
            runnable.get(index as usize).map(|task| task.id())
        })
    }

    fn next_u64(&mut self) -> u64 {
        self.next()
    }
}

impl Drop for Bursts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this order again: BETREE_SEED={}", self.seed.wrapping_sub(1));
        }
    }
}
