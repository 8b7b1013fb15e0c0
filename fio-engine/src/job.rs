//! A job of fio: how its requests are served, by whom, and on which database.

use crate::errno::{errno_of, message_of};
use crate::registry::Lease;
use crate::request::{Operation, Request};
use crate::shared::{Making, Shared};
use crate::snapshots::Snapshots;
use crate::target::Target;
use crate::workers::Workers;
use betree::Result;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

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
            Err(error) => {
                if self.told.fetch_add(1, Ordering::Relaxed) < TOLD_MAX {
                    let Request { operation, offset, length, .. } = request;
                    let message = message_of(&error);
                    eprintln!(
                        "betree: {}: {operation:?} of {length} bytes at {offset}: {message}",
                        self.name
                    );
                }
                -i64::from(errno_of(&error))
            }
        }
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

/// A job.
#[derive(Debug)]
pub struct Job {
    lease: Lease,
    service: Arc<Service>,
    workers: Option<Workers>,
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
        Ok(Self { lease, service: Arc::new(service), workers: None, opened: HashSet::new() })
    }

    /// Starts the threads that serve what is submitted.
    ///
    /// # Errors
    /// The operating system refuses one.
    pub fn start(&mut self, threads: usize) -> std::io::Result<()> {
        self.workers = Some(Workers::start(&self.service, threads)?);
        Ok(())
    }

    /// What serves its requests.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Its threads, when they were started.
    pub fn workers(&self) -> Option<&Workers> {
        self.workers.as_ref()
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
        let Self { lease, service, workers, .. } = self;
        drop(workers);
        let released = service.snapshots.as_ref().map_or(Ok(()), Snapshots::release);
        drop(service);
        let given_back = lease.give_back();
        released.and(given_back)
    }
}
