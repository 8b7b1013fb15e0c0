//! One run of a recipe on disks that fail or lie, and what must hold during it and after every way in which it may end.

use super::machine::{Machine, contents, perform, scan};
use super::model::{Change, Operation, State, Value};
use super::recipe::Recipe;
use super::stores::StoreOperation;
use super::timeline::Timeline;
use super::{Failure, Layout};
use betree::vdev::{BlockDevice, FaultKind, SimClock, SimDisk, SimRng};
use betree::{Database, DatabaseConfiguration, Durability, Error, ErrorKind, StoragePreference};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What is wrong with the disks, and so what may be expected of a database on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Requests fail and say so: nothing acknowledged is lost, and whatever is read is right.
    Failing,
    /// The host file system is full: as before, and extents that were not written change nothing.
    HostFull,
    /// The pool is full: writes are refused and change nothing, all else goes on.
    PoolFull,
    /// Bytes are not what was written, and nobody says so: errors or the right bytes, and no rollback that is not
    /// reported, but for the newest acknowledgement before a crash, which may be in the one frame that is gone.
    Lying,
    /// As before, but all copies of a superblock on the only device are gone: what came after it may be gone as well.
    LostRoot,
}

impl Class {
    fn is_lying(self) -> bool {
        matches!(self, Self::Lying | Self::LostRoot)
    }
}

/// More writes and flushes than any one operation makes, and what is demanded after it.
const STEP_REQUESTS_MAX: u64 = 20_000;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It closes the database; what only the cache of the system has is then forgotten.
    Close,
    /// It is killed; the cache of the system stays.
    Kill,
    /// The power fails.
    Crash,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kill, Self::Crash, Self::Close];
}

/// What was tried and what came of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Runs.
    pub trials: u64,
    /// Runs in which no armed fault happened.
    pub quiet: u64,
    /// How often each kind of fault happened.
    pub fired: [u64; FaultKind::ALL.len()],
    /// Operations that reported an error.
    pub errors: u64,
    /// Reads that reported one.
    pub read_errors: u64,
    /// Runs after which the database took no more writes.
    pub latched: u64,
    /// Databases opened afterwards, and found to be as they must.
    pub opened: u64,
    /// Openings that were refused.
    pub refused: u64,
    /// Rollbacks behind an acknowledgement that were reported.
    pub reported: u64,
    /// Losses that nothing tells from a crash a little earlier.
    pub untold: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} runs ({} without a fault), fired:", self.trials, self.quiet)?;
        for kind in FaultKind::ALL {
            if self.fired(kind) > 0 {
                write!(f, " {kind:?} {}", self.fired(kind))?;
            }
        }
        write!(
            f,
            "; {} operations and {} scans failed, {} databases latched, {} openings held, {} were refused, {} rollbacks \
             were reported, {} could not be told",
            self.errors,
            self.read_errors,
            self.latched,
            self.opened,
            self.refused,
            self.reported,
            self.untold
        )
    }
}

impl Counts {
    /// How often faults of `kind` happened.
    #[must_use]
    pub fn fired(&self, kind: FaultKind) -> u64 {
        self.fired[kind as usize]
    }

    /// Adds what `disks` count.
    pub fn note(&mut self, disks: &[SimDisk]) {
        for kind in FaultKind::ALL {
            self.fired[kind as usize] += disks.iter().map(|disk| disk.fired(kind)).sum::<u64>();
        }
    }

    /// Fails unless each of `kinds` happened: a fault that never fires tests nothing.
    ///
    /// # Errors
    /// One did not.
    pub fn demand(&self, kinds: &[FaultKind]) -> Result<(), Failure> {
        match kinds.iter().find(|kind| self.fired(**kind) == 0) {
            Some(kind) => Err(Failure::new(format!("{kind:?} never happened"))),
            None => Ok(()),
        }
    }
}

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    End,
}

/// A run.
#[derive(Debug)]
pub struct Trial<'a> {
    layout: Layout,
    shape: u64,
    class: Class,
    clock: SimClock,
    disks: Vec<SimDisk>,
    database: Option<Database>,
    timeline: Timeline,
    /// What the operation that latched the database would have led to: it may have become durable.
    doubtful: Option<Arc<State>>,
    /// Whether creating the pool was acknowledged.
    created: bool,
    /// The step that was acknowledged when no fault had happened yet.
    sound: usize,
    rng: SimRng,
    counts: &'a mut Counts,
}

/// The configuration of a database on `disks`.
fn configuration(layout: Layout, disks: &[SimDisk], shape: u64) -> DatabaseConfiguration {
    layout.configuration(disks, &Arc::new(AtomicBool::new(false)), shape)
}

impl<'a> Trial<'a> {
    /// Runs `recipe` on fresh disks after `arm` has put faults on them, and looks at what each of `endings` leaves.
    /// Whether a fault happened.
    ///
    /// # Errors
    /// The first thing that is not as it must be; a panic, too.
    pub fn run(
        recipe: &Recipe,
        class: Class,
        arm: &dyn Fn(&[SimDisk]),
        endings: &[Ending],
        counts: &'a mut Counts,
    ) -> Result<bool, Failure> {
        let clock = SimClock::new(recipe.shape);
        let disks = recipe.layout.disks(&clock);
        let timeline = Timeline::new(Arc::default());
        let trial = Self::new(recipe.layout, recipe.shape, class, clock, disks, timeline, counts);
        trial.guarded(endings, |trial| {
            arm(&trial.disks);
            trial.play(recipe)
        })
    }

    /// Crashes `machine` after number `operation` of its clock, arms faults on what is left, opens it, and looks at what
    /// each of `endings` leaves. Whether a fault happened.
    ///
    /// # Errors
    /// As [`Trial::run`].
    pub fn recover(
        machine: &Machine,
        operation: u64,
        class: Class,
        arm: &dyn Fn(&[SimDisk]),
        endings: &[Ending],
        counts: &'a mut Counts,
    ) -> Result<bool, Failure> {
        let clock = SimClock::new(machine.shape());
        let mut rng = SimRng::new(machine.shape() ^ operation);
        let disks: Vec<SimDisk> =
            machine.disks().iter().map(|disk| disk.crash_image_at(operation, &mut rng, &clock)).collect();
        let legal = &machine.timeline().steps()[machine.timeline().legal(operation)];
        let mut timeline = Timeline::new(Arc::clone(&legal[0].state));
        for step in &legal[1..] {
            timeline.push(0, step.operation.clone().unwrap_or(Operation::Sync), Arc::clone(&step.state));
        }
        let (layout, shape) = (machine.layout(), machine.shape());
        let mut trial = Self::new(layout, shape, class, clock, disks, timeline, counts);
        trial.created = true;
        trial.guarded(endings, |trial| {
            arm(&trial.disks);
            if trial.open(Ending::Crash)? == Flow::Next {
                let after = after_recovery(trial.timeline.newest());
                for operation in &after {
                    if trial.step(operation)? == Flow::End {
                        break;
                    }
                }
            }
            Ok(())
        })
    }

    fn new(
        layout: Layout,
        shape: u64,
        class: Class,
        clock: SimClock,
        disks: Vec<SimDisk>,
        timeline: Timeline,
        counts: &'a mut Counts,
    ) -> Self {
        Self {
            layout,
            shape,
            class,
            clock,
            disks,
            database: None,
            timeline,
            doubtful: None,
            created: false,
            sound: 0,
            rng: SimRng::new(shape ^ 0xFA17),
            counts,
        }
    }

    /// Runs `body` and then the endings; a panic is a failure.
    fn guarded(
        mut self,
        endings: &[Ending],
        body: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            body(&mut self)?;
            self.end(endings)
        }));
        self.counts.trials += 1;
        self.counts.note(&self.disks);
        let fired = self.has_fired();
        self.counts.quiet += u64::from(!fired);
        match caught {
            Ok(result) => result.map(|()| fired),
            Err(payload) => {
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
                Err(Failure::new(format!("a panic: {}", text.unwrap_or("without a message"))))
            }
        }
    }

    /// Whether a fault has happened.
    fn has_fired(&self) -> bool {
        FaultKind::ALL.iter().any(|kind| self.fired(*kind) > 0)
    }

    fn fired(&self, kind: FaultKind) -> u64 {
        self.disks.iter().map(|disk| disk.fired(kind)).sum()
    }

    /// Whether a request has failed after which nothing may be acknowledged.
    fn must_be_latched(&self) -> bool {
        self.class == Class::Failing
            && self.fired(FaultKind::WriteError) + self.fired(FaultKind::FlushError) > 0
    }

    fn play(&mut self, recipe: &Recipe) -> Result<(), Failure> {
        let configuration = configuration(self.layout, &self.disks, self.shape);
        match Database::create_with(configuration, false) {
            Ok(database) => {
                self.database = Some(database);
                self.created = true;
                self.acknowledge();
            }
            Err(error) => return self.excuse(&error, "create"),
        }
        for (number, operation) in recipe.operations.iter().enumerate() {
            if !self.timeline.newest().allows(operation) {
                continue;
            }
            let within = |failure: Failure| failure.within(format!("operation {number}, {operation:.120?}"));
            if self.step(operation).map_err(within)? == Flow::End {
                return Ok(());
            }
            if number % 3 == 2 {
                self.look().map_err(within)?;
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self) {
        self.timeline.acknowledge(self.clock.operations());
        if !self.has_fired() {
            self.sound = self.acknowledged();
        }
    }

    /// The step that was acknowledged last.
    fn acknowledged(&self) -> usize {
        self.timeline.acknowledged().last().map_or(0, |(_, step)| *step)
    }

    /// An error is to be expected only after a fault.
    fn excuse(&mut self, error: &Error, what: &str) -> Result<(), Failure> {
        self.counts.errors += 1;
        if !self.has_fired() && self.class != Class::PoolFull {
            return Err(Failure::new(error).within(format!("{what} fails without a fault")));
        }
        if matches!(self.class, Class::HostFull | Class::PoolFull) && error.kind() != ErrorKind::OutOfSpace {
            return Err(Failure::new(error).within(format!("{what}: no lack of space")));
        }
        Ok(())
    }

    // ---- operations

    fn step(&mut self, operation: &Operation) -> Result<Flow, Failure> {
        // A database that goes on for ever is stopped, before it takes all memory for the history of its disks.
        let begun = self.clock.operations();
        self.clock.set_stop_after(begun + STEP_REQUESTS_MAX);
        let flow =
            if matches!(operation, Operation::Reopen) { self.reopen() } else { self.perform(operation) };
        if self.clock.is_crashed() {
            return Err(Failure::new(format!("{STEP_REQUESTS_MAX} writes and flushes, and no end")));
        }
        flow
    }

    fn perform(&mut self, operation: &Operation) -> Result<Flow, Failure> {
        let begun = self.clock.operations();
        let mut after = State::clone(self.timeline.newest());
        after.apply(operation);
        let after = Arc::new(after);
        self.timeline.push(begun, operation.clone(), Arc::clone(&after));
        let Some(database) = &self.database else { return Ok(Flow::End) };
        match perform(database, operation) {
            Ok(durable) => {
                if durable {
                    self.acknowledge();
                }
                if self.must_be_latched() { self.check_latched(None) } else { Ok(Flow::Next) }
            }
            Err(error) => {
                self.timeline.take_back();
                self.failed(operation, &error, after)
            }
        }
    }

    /// What must hold after an operation that reported an error.
    fn failed(&mut self, operation: &Operation, error: &Error, after: Arc<State>) -> Result<Flow, Failure> {
        self.excuse(error, "it")?;
        if self.class == Class::PoolFull && !may_be_refused(operation) {
            return Err(Failure::new(error).within("refused for want of space"));
        }
        self.sees_one_of(&after)?;
        if self.class == Class::HostFull {
            // The host has space again.
            self.disks.iter().for_each(SimDisk::clear_faults);
        }
        let Some(database) = &self.database else { return Ok(Flow::End) };
        match database.sync() {
            Ok(()) if self.must_be_latched() => {
                Err(Failure::new(error).within("a later sync succeeds after a failure"))
            }
            Ok(()) => {
                self.acknowledge();
                match self.database.as_ref().map(scan) {
                    Some(Ok(found)) if found == self.timeline.newest().fingerprint() => Ok(Flow::Next),
                    Some(Ok(_)) => Err(Failure::new(error).within("it failed and has changed something")),
                    Some(Err(failure)) if matches!(self.class, Class::HostFull | Class::PoolFull) => {
                        Err(failure)
                    }
                    _ => Ok(Flow::Next),
                }
            }
            Err(later) => {
                let cause = cause(&later);
                // What a rollback or a takeover replaced is not in memory any more when its checkpoint fails.
                let is_final = matches!(
                    operation,
                    Operation::Rollback(..)
                        | Operation::Receive(_)
                        | Operation::Store(StoreOperation::Rollback(..) | StoreOperation::Receive(_))
                );
                let of_extents = !matches!(cause, Error::Log(_) | Error::Pool(_));
                if self.class == Class::HostFull && of_extents && !is_final {
                    return Err(Failure::new(later).within("extents that were not written are no reason"));
                }
                if self.class == Class::PoolFull {
                    return Err(Failure::new(later).within("a full pool takes no sync"));
                }
                self.check_latched(Some(after))
            }
        }
    }

    /// The database has failed: it acknowledges nothing, tries nothing again, and reads what was there.
    fn check_latched(&mut self, after: Option<Arc<State>>) -> Result<Flow, Failure> {
        self.counts.latched += 1;
        let Some(database) = &self.database else { return Ok(Flow::End) };
        let before = self.clock.operations();
        for attempt in 0..2 {
            let acknowledged = [
                ("sync", database.sync().is_ok()),
                ("checkpoint", database.checkpoint().is_ok()),
                ("create", database.create_dataset(format!("new{attempt}")).is_ok()),
                ("synced batch", synced_write(database).is_ok_and(|done| done)),
                ("settle", database.verify().is_ok()),
            ];
            if let Some((what, _)) = acknowledged.iter().find(|(_, done)| *done) {
                return Err(Failure::new(format!("a {what} succeeds after a failure")));
            }
        }
        let tried = self.clock.operations() - before;
        if tried > 0 && self.class == Class::Failing {
            return Err(Failure::new(format!("{tried} writes or flushes were tried again after a failure")));
        }
        if let Some(after) = after {
            self.sees_one_of(&after)?;
            database_cache_dropped(self.database.as_ref());
            self.sees_one_of(&after)?;
            self.doubtful = Some(after);
        }
        Ok(Flow::End)
    }

    /// What is read is the newest state or `after`, or an error. What takes the place of a head is in memory before its
    /// checkpoint is durable, and its snapshots are not.
    fn sees_one_of(&mut self, after: &State) -> Result<(), Failure> {
        let newest = self.timeline.newest().fingerprint();
        let between = self.timeline.newest().with_heads_of(after).fingerprint();
        let Some(database) = &self.database else { return Ok(()) };
        match scan(database) {
            Ok(found) if found == newest || found == between || found == after.fingerprint() => Ok(()),
            Ok(_) => Err(wrong(database, self.timeline.newest(), "after a failure")),
            Err(_) => {
                self.counts.read_errors += 1;
                Ok(())
            }
        }
    }

    /// Reads everything from the devices.
    fn look(&mut self) -> Result<(), Failure> {
        let newest = Arc::clone(self.timeline.newest());
        let Some(database) = &self.database else { return Ok(()) };
        database.drop_cache();
        let errors = self.fired(FaultKind::ReadError);
        match scan(database) {
            Ok(found) if found == newest.fingerprint() => Ok(()),
            Ok(_) => Err(wrong(database, &newest, "read")),
            Err(failure) => {
                self.counts.read_errors += 1;
                match self.class {
                    Class::Lying | Class::LostRoot if self.has_fired() => Ok(()),
                    Class::Failing if self.fired(FaultKind::ReadError) > errors => {
                        // Nothing stays of a read that failed once.
                        match scan(database) {
                            Ok(found) if found == newest.fingerprint() => Ok(()),
                            Ok(_) => Err(wrong(database, &newest, "read again")),
                            Err(again) if self.fired(FaultKind::ReadError) == errors + 1 => {
                                Err(again.within("a read that failed once fails again"))
                            }
                            Err(_) => Ok(()),
                        }
                    }
                    _ => Err(failure),
                }
            }
        }
    }

    fn reopen(&mut self) -> Result<Flow, Failure> {
        if let Some(database) = self.database.take() {
            match database.close() {
                Ok(()) => self.acknowledge(),
                Err(error) => {
                    self.excuse(&error, "close")?;
                    if self.class == Class::PoolFull {
                        return Err(Failure::new(error).within("close"));
                    }
                    return Ok(Flow::End);
                }
            }
        }
        self.open(Ending::Close)
    }

    /// Opens what the disks hold, with their faults.
    fn open(&mut self, ending: Ending) -> Result<Flow, Failure> {
        let database = match Database::open_with(configuration(self.layout, &self.disks, self.shape)) {
            Ok(database) => database,
            Err(error) => {
                self.excuse(&error, "open")?;
                if self.class == Class::PoolFull {
                    return Err(Failure::new(error).within("open"));
                }
                self.counts.refused += 1;
                return Ok(Flow::End);
            }
        };
        let reported = database.open_report().is_some_and(|report| report.rolled_back);
        let found = match scan(&database) {
            // What failed once does not fail again.
            Err(_) if self.class == Class::Failing && self.has_fired() => scan(&database),
            found => found,
        };
        let flow = match found {
            Ok(found) => {
                let state = self.judge(&database, found, reported, ending)?;
                if !Arc::ptr_eq(&state, self.timeline.newest()) {
                    self.timeline = Timeline::new(state);
                    self.sound = 0;
                }
                self.acknowledge();
                Flow::Next
            }
            Err(_) if self.has_fired() => {
                self.counts.read_errors += 1;
                Flow::End
            }
            Err(failure) => return Err(failure),
        };
        self.database = Some(database);
        if flow == Flow::Next && self.must_be_latched() { self.check_latched(None) } else { Ok(flow) }
    }

    /// The state that was found when it may be.
    fn judge(
        &mut self,
        database: &Database,
        found: u64,
        reported: bool,
        ending: Ending,
    ) -> Result<Arc<State>, Failure> {
        if reported && !self.class.is_lying() {
            let report = database.open_report();
            return Err(Failure::new(format!("a failure looks like a loss: {report:?}")));
        }
        if let Some(doubtful) = self.doubtful.as_ref().filter(|state| state.fingerprint() == found) {
            return Ok(Arc::clone(doubtful));
        }
        let steps = self.timeline.steps();
        let acknowledged = self.acknowledged();
        let newest = Arc::clone(self.timeline.newest());
        let Some(index) = (0..steps.len()).rev().find(|step| steps[*step].fingerprint == found) else {
            return Err(wrong(database, &newest, "no state that ever was"));
        };
        let state = Arc::clone(&steps[index].state);
        if index >= acknowledged {
            return Ok(state);
        }
        if self.class.is_lying() && reported {
            self.counts.reported += 1;
            return Ok(state);
        }
        let mut lost: Vec<u64> = self
            .timeline
            .acknowledged()
            .iter()
            .filter(|(_, step)| *step > index)
            .map(|(_, step)| steps[*step].fingerprint)
            .collect();
        lost.dedup();
        let cannot_be_told = match self.class {
            Class::Lying => lost.len() <= 1 && ending != Ending::Close,
            Class::LostRoot => true,
            _ => false,
        };
        if cannot_be_told && index >= self.sound {
            self.counts.untold += 1;
            return Ok(state);
        }
        let what = format!(
            "{} acknowledgements are lost and nobody says so (step {index} found, {acknowledged} acknowledged, {} \
             before the fault)",
            lost.len(),
            self.sound
        );
        Err(wrong(database, &steps[acknowledged].state, &what))
    }

    // ---- endings

    fn end(&mut self, endings: &[Ending]) -> Result<(), Failure> {
        // First what does not need the database any more, as the disks are now.
        for ending in endings {
            let clock = SimClock::new(self.rng.next_u64());
            let disks: Vec<SimDisk> = match ending {
                Ending::Close => continue,
                Ending::Kill => self.disks.iter().map(|disk| copy(disk, &clock)).collect(),
                Ending::Crash => {
                    let rng = &mut self.rng;
                    self.disks.iter().map(|disk| disk.crash_image(rng, &clock)).collect()
                }
            };
            self.afterwards(&clock, &disks, *ending)
                .map_err(|failure| failure.within(format!("{ending:?}")))?;
        }
        if !endings.contains(&Ending::Close) {
            self.clock.crash();
            return Ok(());
        }
        if let Some(database) = self.database.take() {
            match database.close() {
                Ok(()) => self.timeline.acknowledge(self.clock.operations()),
                Err(error) => {
                    self.excuse(&error, "close")?;
                    if self.class == Class::PoolFull {
                        return Err(Failure::new(error).within("close"));
                    }
                }
            }
        }
        self.disks.iter().for_each(SimDisk::clear_faults);
        self.disks.iter().for_each(SimDisk::drop_caches);
        let clock = SimClock::new(self.rng.next_u64());
        let disks: Vec<SimDisk> = self.disks.iter().map(|disk| copy(disk, &clock)).collect();
        self.afterwards(&clock, &disks, Ending::Close).map_err(|failure| failure.within("Close"))
    }

    /// What must hold of `disks`, which have no faults any more.
    fn afterwards(&mut self, clock: &SimClock, disks: &[SimDisk], ending: Ending) -> Result<(), Failure> {
        let lying = self.class.is_lying();
        let database = match Database::open_with(configuration(self.layout, disks, self.shape)) {
            Ok(database) => database,
            Err(_) if lying => {
                self.counts.refused += 1;
                return Ok(());
            }
            Err(error) if self.created => return Err(Failure::new(error).within("open")),
            Err(_) => {
                // Creating was interrupted. It can be repeated by force.
                let again = configuration(self.layout, disks, self.shape);
                let created = Database::create_with(again, true);
                return created.map(drop).map_err(|error| Failure::new(error).within("create by force"));
            }
        };
        let reported = database.open_report().is_some_and(|report| report.rolled_back);
        let found = match scan(&database) {
            Ok(found) => found,
            Err(_) if lying => {
                self.counts.read_errors += 1;
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        let state = self.judge(&database, found, reported, ending)?;
        match database.verify() {
            Ok(_) => {}
            Err(_) if lying => self.counts.errors += 1,
            Err(error) => return Err(Failure::new(error).within("verify")),
        }
        self.counts.opened += 1;
        self.goes_on(&database, state, clock, disks).map_err(|failure| failure.within("writing on"))
    }

    /// What is written and synced now survives a crash.
    fn goes_on(
        &mut self,
        database: &Database,
        state: Arc<State>,
        clock: &SimClock,
        disks: &[SimDisk],
    ) -> Result<(), Failure> {
        let lying = self.class.is_lying();
        let mut state = State::clone(&state);
        for operation in after_recovery(&state) {
            match perform(database, &operation) {
                Ok(_) => state.apply(&operation),
                Err(_) if lying => return Ok(()),
                Err(error) if self.class == Class::PoolFull && error.kind() == ErrorKind::OutOfSpace => {}
                Err(error) => return Err(Failure::new(error).within(format!("{operation:.120?}"))),
            }
        }
        clock.crash();
        let after = SimClock::new(self.rng.next_u64());
        let rng = &mut self.rng;
        let disks: Vec<SimDisk> = disks.iter().map(|disk| disk.crash_image(rng, &after)).collect();
        let database = match Database::open_with(configuration(self.layout, &disks, self.shape)) {
            Ok(database) => database,
            Err(_) if lying => return Ok(()),
            Err(error) => return Err(Failure::new(error).within("open")),
        };
        let reported = database.open_report().is_some_and(|report| report.rolled_back);
        match scan(&database) {
            Ok(found) if found == state.fingerprint() => Ok(()),
            Ok(_) if lying && reported => Ok(()),
            Ok(_) => Err(wrong(&database, &state, "what was synced is not there")),
            Err(_) if lying => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

/// A disk with the contents of `disk` as they are, pending writes included, and no faults; memory is empty.
pub(super) fn copy(disk: &SimDisk, clock: &SimClock) -> SimDisk {
    if disk.device().is_volatile() {
        return SimDisk::volatile(disk.name(), disk.len(), clock);
    }
    let copy = SimDisk::new(disk.name(), disk.len(), clock);
    copy.restore(&disk.snapshot());
    copy
}

/// A write that is synced.
fn after_recovery(state: &State) -> Vec<Operation> {
    let change = Change::Put {
        key: b"afterwards".to_vec(),
        value: Value::new(b"written after the recovery"),
        preference: StoragePreference::NONE,
    };
    let dataset = state.datasets.keys().next().cloned();
    let create = dataset.is_none().then(|| Operation::Create(b"later".to_vec()));
    let write = dataset.map(|dataset| Operation::Write { dataset, change });
    create.into_iter().chain(write).chain([Operation::Sync]).collect()
}

/// Whether a full pool may refuse `operation`.
fn may_be_refused(operation: &Operation) -> bool {
    match operation {
        Operation::Write { change, .. } => !matches!(change, Change::RangeDelete { .. }),
        Operation::Batch { .. } | Operation::Create(_) | Operation::Rename(..) => true,
        Operation::Migrate { .. } => true,
        Operation::Snapshot(..) | Operation::Clone(..) | Operation::Rollback(..) => true,
        _ => false,
    }
}

/// The first failure behind those that it led to.
fn cause(error: &Error) -> &Error {
    match error {
        Error::Failed(first) => cause(first),
        error => error,
    }
}

/// Tries a synced write of a large value; `None` without a dataset to write to.
fn synced_write(database: &Database) -> betree::Result<bool> {
    let Some(name) = database.datasets()?.into_iter().next() else { return Ok(false) };
    let dataset = database.open_dataset(name)?;
    let batch = database.batch().insert(&dataset, b"after a failure", vec![1; 20 << 10]);
    batch.commit(Durability::Sync).map(|()| true)
}

fn database_cache_dropped(database: Option<&Database>) {
    if let Some(database) = database {
        database.drop_cache();
    }
}

/// Says how what is read differs from `wanted`.
fn wrong(database: &Database, wanted: &State, what: &str) -> Failure {
    match contents(database) {
        Ok(found) => {
            let differences = wanted.differences(&found);
            let shown = &differences[..differences.len().min(5)];
            Failure::new(format!("{what}: {} differences: {}", differences.len(), shown.join("; ")))
        }
        Err(failure) => failure.within(what),
    }
}
