//! Kills writers, and looks at what they leave.

use super::damage::{Outcome, damage};
use super::numbers::{COUNTER, DATASETS};
use super::{Numbers, Plan};
use crate::rig::{Failure, contents, scan};
use betree::vdev::SimRng;
use betree::{AccessMode, Database, Error};
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Kills in the life of one pool; then a new one is made, of another shape.
const KILLS_OF_A_POOL: u64 = 50;
/// One kill in so many is followed by damage to a copy.
const DAMAGE_EVERY: u64 = 25;

/// When a writer dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Writing,
    Closing,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Kills, by when: while opening, writing, closing.
    pub kills: [u64; 3],
    /// Writers that were done before they could be killed.
    pub done: u64,
    /// Batches found in the end, over all pools.
    pub batches: u64,
    /// Pools made.
    pub pools: u64,
    /// Openings with direct I/O and without.
    pub direct: [u64; 2],
    /// Damaged copies: harmless, noticed.
    pub damaged: [u64; 2],
    /// Full verifications.
    pub verified: u64,
}

impl Tally {
    /// All kills.
    #[must_use]
    pub fn all_kills(&self) -> u64 {
        self.kills.iter().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, done, batches, pools, direct, damaged, verified } = self;
        write!(
            f,
            "{} kills ({} opening, {} writing, {} closing; {done} were done before), {batches} batches in {pools} pools, \
             {} openings direct and {} not, {verified} verified, {} copies damaged ({} harmless)",
            self.all_kills(),
            kills[0],
            kills[1],
            kills[2],
            direct[1],
            direct[0],
            damaged[0] + damaged[1],
            damaged[0],
        )
    }
}

/// A loop of writers and kills.
#[derive(Debug)]
pub struct Killer {
    writer: PathBuf,
    folder: PathBuf,
    seed: u64,
    rng: SimRng,
    life: Duration,
    /// How long opening takes, roughly: kills in it are spread over that time.
    opening: Duration,
    tally: Tally,
}

impl Killer {
    /// Kills processes of the program `writer` (`betree-writer`), on pools in `folder`; each writes for at most `life`.
    #[must_use]
    pub fn new(writer: PathBuf, folder: PathBuf, seed: u64, life: Duration) -> Self {
        let opening = Duration::from_millis(10);
        Self { writer, folder, seed, rng: SimRng::new(seed), life, opening, tally: Tally::default() }
    }

    /// What was done so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Makes a pool and kills its writers until there were `kills` in all or `until` has passed.
    ///
    /// # Errors
    /// What is not as it must be. The pool is left where it is.
    pub fn run(&mut self, kills: u64, until: Option<Instant>) -> Result<(), Failure> {
        let ended = |tally: &Tally| {
            tally.all_kills() + tally.done >= kills || until.is_some_and(|until| Instant::now() >= until)
        };
        while !ended(&self.tally) {
            let pool = self.tally.pools;
            self.tally.pools += 1;
            let folder = self.folder.join(format!("pool-{pool}"));
            std::fs::create_dir_all(&folder).map_err(Failure::new)?;
            let seed = self.seed.wrapping_add(pool << 32);
            let mut plan = Plan { folder, seed, tiers: 1 + (pool % 2) as usize, direct: true };
            let mut numbers = Numbers::new(seed);
            let first = self.seed;
            let context = |failure: Failure, tally: &Tally| {
                failure.within(format!("seed {first}, pool {pool}, after {} kills", tally.all_kills()))
            };
            let (writer, life) = (self.writer.clone(), self.life);
            let mut unseen = false;
            for kill in 0..KILLS_OF_A_POOL {
                plan.direct = self.rng.chance(1, 2);
                self.tally.direct[usize::from(plan.direct)] += 1;
                let phase = match self.rng.below(10) {
                    // The first life of a pool is left alone until it has one.
                    0 if kill > 0 => Phase::Opening,
                    1 => Phase::Closing,
                    _ => Phase::Writing,
                };
                let delay = match phase {
                    Phase::Opening => self.opening.mul_f64(self.rng.below(1000) as f64 / 900.0),
                    Phase::Writing => life.mul_f64(self.rng.below(1000) as f64 / 1000.0),
                    Phase::Closing => Duration::from_micros(self.rng.below(1 << self.rng_bits())),
                };
                let lived = kill_one(&writer, &plan, phase, delay, life.mul_f64(0.3));
                let (killed, opening) = lived.map_err(|failure| context(failure, &self.tally))?;
                if let Some(opening) = opening {
                    self.opening = (self.opening * 7 + opening) / 8;
                }
                match killed {
                    true => self.tally.kills[phase as usize] += 1,
                    false => self.tally.done += 1,
                }
                // Sometimes nobody looks, so that the next writer finds the crash, and may die of it.
                let last = kill + 1 == KILLS_OF_A_POOL || ended(&self.tally);
                unseen = !last && !unseen && self.rng.chance(1, 3);
                if !unseen {
                    self.look(&plan, &mut numbers).map_err(|failure| context(failure, &self.tally))?;
                }
                if last {
                    break;
                }
            }
            self.tally.batches += numbers.count();
            std::fs::remove_dir_all(&plan.folder).map_err(Failure::new)?;
        }
        Ok(())
    }

    fn rng_bits(&self) -> u32 {
        // From a microsecond to 16 ms: closing takes about that.
        (self.tally.all_kills() % 15) as u32
    }

    /// Opens the pool, for reading or for writing, and compares all of it with the model.
    fn look(&mut self, plan: &Plan, numbers: &mut Numbers) -> Result<(), Failure> {
        let failed = |error: Error| Failure::new(error);
        let told = std::fs::read(plan.oracle()).map_err(Failure::new)?;
        let acknowledged = told.rchunks_exact(8).next().and_then(|bytes| bytes.first_chunk());
        let acknowledged = acknowledged.map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let damaging = self.tally.all_kills() % DAMAGE_EVERY == DAMAGE_EVERY - 1;
        let read_only = !damaging && self.rng.chance(1, 2);
        let configuration = plan.configuration(AccessMode::OpenIfExists);
        let db = if read_only {
            Database::open_read_only(configuration)
        } else {
            Database::open_with(configuration)
        };
        let db = db.map_err(failed)?;
        if db.open_report().is_some_and(|report| report.rolled_back) {
            return Err(Failure::new("a crash looks like a loss"));
        }
        let counter =
            db.open_dataset(DATASETS[0]).and_then(|dataset| dataset.get(COUNTER)).map_err(failed)?;
        let counter = counter.as_deref().and_then(|bytes| bytes.first_chunk());
        let counter = counter.map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let least = acknowledged.max(numbers.count());
        if counter < least {
            return Err(Failure::new(format!(
                "{least} batches were acknowledged or seen, {counter} are there"
            )));
        }
        numbers.advance(counter);
        if scan(&db)? != numbers.state().fingerprint() {
            let differences = numbers.state().differences(&contents(&db)?);
            return Err(Failure::new(differences.join("; ")).within(format!("{counter} batches")));
        }
        if !read_only {
            db.verify().map_err(failed)?;
            self.tally.verified += 1;
            db.close().map_err(failed)?;
        }
        if damaging {
            let outcome = damage(plan, numbers, &mut self.rng)?;
            self.tally.damaged[usize::from(outcome == Outcome::Noticed)] += 1;
        }
        Ok(())
    }
}

/// A writer's life. Whether it was killed, rather than done before, and how long it took to open.
fn kill_one(
    writer: &PathBuf,
    plan: &Plan,
    phase: Phase,
    delay: Duration,
    before_closing: Duration,
) -> Result<(bool, Option<Duration>), Failure> {
    let begun = Instant::now();
    let mut child = Command::new(writer)
        .args(plan.words())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Failure::new)?;
    let mut opening = None;
    if phase != Phase::Opening {
        let mut words = BufReader::new(child.stdout.take().ok_or_else(|| Failure::new("no output"))?).lines();
        let mut heard = |word: &str| words.next().is_some_and(|line| line.is_ok_and(|line| line == word));
        if !heard("open") {
            return Err(died(child));
        }
        opening = Some(begun.elapsed());
        if phase == Phase::Closing {
            std::thread::sleep(before_closing);
            drop(child.stdin.take());
            if !heard("closing") {
                return Err(died(child));
            }
        }
    }
    std::thread::sleep(delay);
    child.kill().map_err(Failure::new)?;
    let status = child.wait().map_err(Failure::new)?;
    match status.code() {
        // By the signal.
        None => Ok((true, opening)),
        Some(0) => Ok((false, opening)),
        Some(_) => Err(died(child)),
    }
}

fn died(mut child: Child) -> Failure {
    let mut text = String::new();
    // To its end, which is the end of the process.
    let _unreadable = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut text));
    let status = child.wait();
    Failure::new(format!("the writer ended by itself ({status:?}): {text}"))
}
