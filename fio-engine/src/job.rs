//! A job of fio: how its requests are served, by whom, and on which database.

use crate::errno::{errno_of, message_of};
use crate::reads::{Reads, Submitted};
use crate::registry::Lease;
use crate::request::{Operation, Request};
use crate::shared::{Making, Shared};
use crate::snapshots::Snapshots;
use crate::target::Target;
use crate::workers::{Completion, Token, Workers};
use betree::{Error, Result};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// So many failures of a job are told in words; fio counts the others.
const TOLD_MAX: u32 = 8;

/// What serves the requests of a job.
#[derive(Debug)]
pub struct Service {
    name: String,
    shared: Arc<Shared>,
    making: Making,
    /// Whether each write is durable before it is done.
    is_durable: bool,
    snapshots: Option<Snapshots>,
    told: AtomicU32,
}

impl Service {
    /// Does what `request` wants. Returns how many bytes it did, or a negative errno.
    pub fn serve(&self, request: &mut Request) -> i64 {
        match self.try_serve(request) {
            Ok(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
            Err(error) => self.tell(request, &error),
        }
    }

    /// Tells that `request` failed, unless many have. Returns the negative errno.
    pub fn tell(&self, request: &Request, error: &Error) -> i64 {
        if self.told.fetch_add(1, Ordering::Relaxed) < TOLD_MAX {
            let Request { operation, offset, length, .. } = request;
            let message = message_of(error);
            eprintln!("betree: {}: {operation:?} of {length} bytes at {offset}: {message}", self.name);
        }
        -i64::from(errno_of(error))
    }

    fn try_serve(&self, request: &mut Request) -> Result<u64> {
        let Request { operation, target, offset, length, buffer } = request;
        match operation {
            Operation::Read => return Ok(target.read(buffer.bytes_mut(), *offset)? as u64),
            Operation::Write => {
                target.write(buffer.bytes(), *offset, self.making.preference)?;
                if self.is_durable {
                    self.shared.database().sync()?;
                }
                if let Some(snapshots) = &self.snapshots {
                    snapshots.note_write()?;
                }
            }
            Operation::Trim => target.trim(*offset, *length)?,
            Operation::Sync => self.shared.database().sync()?,
        }
        Ok(*length)
    }
}

/// How a job wants its requests served.
#[derive(Debug, Clone)]
pub struct Manner {
    /// The name that fio has for the job.
    pub name: String,
    /// What its files are.
    pub making: Making,
    /// Whether each write is durable before it is done.
    pub is_durable: bool,
    /// Writes from one snapshot to the next; 0: there are none.
    pub snapshot_writes: u64,
    /// Snapshots that are held at once.
    pub snapshots_kept: usize,
}

fn started(workers: Option<&Workers>) -> Result<&Workers> {
    workers
        .ok_or_else(|| Error::InvalidArgument { what: "threads", reason: String::from("none was started") })
}

/// A job.
#[derive(Debug)]
pub struct Job {
    lease: Lease,
    service: Arc<Service>,
    /// Serve what has to be waited for, when they were started.
    workers: Option<Workers>,
    /// Under way without them.
    reads: Option<Reads>,
    /// Files that were opened before: their cache is dropped once.
    opened: HashSet<Vec<u8>>,
}

impl Job {
    /// A job on the database of `lease`, without threads of its own.
    ///
    /// # Errors
    /// Snapshots that an earlier process left cannot be deleted.
    pub fn new(lease: Lease, manner: Manner) -> Result<Self> {
        let Manner { name, making, is_durable, snapshot_writes, snapshots_kept } = manner;
        let shared = Arc::clone(&lease.shared);
        let of = || {
            let shared = Arc::clone(&shared);
            Snapshots::new(shared, making.interface, &name, snapshot_writes, snapshots_kept)
        };
        let snapshots = if snapshot_writes > 0 { of().map(Some) } else { Ok(None) };
        let snapshots = match snapshots {
            Ok(snapshots) => snapshots,
            Err(error) => {
                // The error that was first is the one to tell.
                let _ = lease.give_back();
                return Err(error);
            }
        };
        let service = Service { name, shared, making, is_durable, snapshots, told: AtomicU32::new(0) };
        Ok(Self { lease, service: Arc::new(service), workers: None, reads: None, opened: HashSet::new() })
    }

    /// Starts what serves up to `depth` requests that are submitted: `threads` threads, and what needs none.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn start(&mut self, depth: u32, threads: usize) -> std::io::Result<()> {
        self.workers = Some(Workers::start(&self.service, threads)?);
        self.reads = Reads::new(depth);
        Ok(())
    }

    /// What serves its requests.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Takes `request`, to be fetched with `token`, and returns `None`: [`Job::announce`] lets it begin. Or serves it now, and returns what
    /// came of it.
    ///
    /// # Errors
    /// No threads were started.
    pub fn submit(&mut self, token: Token, request: Request) -> Result<Option<i64>> {
        let workers = started(self.workers.as_ref())?;
        let (token, request) = match &mut self.reads {
            Some(reads) if request.operation == Operation::Read => {
                match reads.begin(&self.service, token, request) {
                    Submitted::Served(result) => return Ok(Some(result)),
                    Submitted::UnderWay => return Ok(None),
                    Submitted::Waits(token, request) => (token, request),
                }
            }
            _ => (token, request),
        };
        workers.submit(token, request);
        Ok(None)
    }

    /// Lets what was submitted begin.
    ///
    /// # Errors
    /// The operating system has no room for it.
    pub fn announce(&mut self) -> Result<()> {
        self.workers.iter().for_each(Workers::announce);
        self.reads.as_mut().map_or(Ok(()), Reads::submit)
    }

    /// Waits until nothing that was submitted is under way. What was not fetched is still there.
    ///
    /// # Errors
    /// As [`Job::announce`].
    pub fn drain(&mut self) -> Result<()> {
        self.workers.iter().for_each(Workers::drain);
        match &mut self.reads {
            Some(reads) => reads.wait(&self.service, reads.len(), None),
            None => Ok(()),
        }
    }

    /// Waits until `least` requests were served or until `deadline`, and puts up to as many as `place` has there. Returns how many.
    ///
    /// # Errors
    /// No threads were started; as [`Job::announce`].
    pub fn fetch(
        &mut self,
        place: &mut [Completion],
        least: usize,
        deadline: Option<Instant>,
    ) -> Result<usize> {
        let workers = started(self.workers.as_ref())?;
        let Some(reads) = &mut self.reads else { return Ok(workers.fetch(place, least, deadline)) };
        let least = least.min(place.len());
        let (mut count, mut wanted) = (0, 0);
        loop {
            match reads.wait(&self.service, wanted, deadline) {
                // It is met again when what is here was taken.
                Err(_) if count > 0 => return Ok(count),
                waited => waited?,
            }
            count += reads.take(&mut place[count..]);
            count += workers.fetch(&mut place[count..], 0, None);
            let is_late = || deadline.is_some_and(|deadline| deadline <= Instant::now());
            if count >= least || is_late() {
                return Ok(count);
            }
            if reads.len() == 0 {
                return Ok(count + workers.fetch(&mut place[count..], least - count, deadline));
            }
            // What the threads serve meanwhile is fetched behind it.
            wanted = least - count;
        }
    }

    /// Length of the file `name` in bytes; `None` when there is none.
    ///
    /// # Errors
    /// As [`Shared::find`].
    pub fn file_size(&self, name: &[u8]) -> Result<Option<u64>> {
        let found = self.service.shared.find(name, &self.service.making)?;
        found.map(|target| target.size()).transpose()
    }

    /// Opens the file `name`, or makes it. With `cold` the cache is dropped, when this job did not open it before.
    ///
    /// # Errors
    /// As [`Shared::find`].
    pub fn open(&mut self, name: &[u8], cold: bool) -> Result<Arc<Target>> {
        let target = self.service.shared.find_or_make(name, &self.service.making)?;
        if self.opened.insert(name.to_vec()) && cold {
            self.drop_cache();
        }
        Ok(target)
    }

    /// Makes the file `name` at least `size` bytes long.
    ///
    /// # Errors
    /// As [`Shared::find`]; out of space.
    pub fn extend(&self, name: &[u8], size: u64) -> Result<()> {
        self.service.shared.find_or_make(name, &self.service.making)?.extend(size)
    }

    /// Writes `bytes` at byte `offset` of the file `name`, before the job runs.
    ///
    /// # Errors
    /// As [`Shared::find`]; out of space.
    pub fn fill(&self, name: &[u8], offset: u64, bytes: &[u8]) -> Result<()> {
        let making = &self.service.making;
        self.service.shared.find_or_make(name, making)?.write(bytes, offset, making.preference)
    }

    /// Makes what was written durable, and waits until the trees have the shape that they keep.
    ///
    /// # Errors
    /// Device errors.
    pub fn settle(&self) -> Result<()> {
        let database = self.service.shared.database();
        database.sync()?;
        database.settle()
    }

    /// Forgets what is cached of the whole database.
    pub fn drop_cache(&self) {
        self.service.shared.database().drop_cache();
    }

    /// Removes the file `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn remove(&self, name: &[u8]) -> Result<()> {
        self.service.shared.remove(name, &self.service.making)
    }

    /// Ends the job: its threads, its snapshots, and when it is the last one the database.
    ///
    /// # Errors
    /// Snapshots that cannot be deleted; those of closing the database.
    pub fn end(self) -> Result<()> {
        let Self { lease, service, workers, reads, .. } = self;
        drop((workers, reads));
        let released = service.snapshots.as_ref().map_or(Ok(()), Snapshots::release);
        drop(service);
        let given_back = lease.give_back();
        released.and(given_back)
    }
}
