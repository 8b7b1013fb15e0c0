//! A leaf of a top-level vdev: its device, what it is good for, and what went wrong on it.

use super::format::{ErrorCounts, MemberState};
use super::metrics::Counters;
use crate::base::ids::{Generation, Uuid};
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::vdev::{BlockDevice, Operation, VdevError};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// One leaf of a group.
#[derive(Debug)]
pub(super) struct Member {
    is_volatile: bool,
    place: ArcSwap<Place>,
    state: AtomicU8,
    standing: Mutex<Standing>,
    pub counters: Counters,
    /// Reads under way.
    reading: AtomicU32,
    /// Block behind the last read: who goes on there is sequential.
    read_end: AtomicU64,
}

#[derive(Debug)]
struct Place {
    /// What it is called, also when it is not there.
    name: String,
    device: Option<Arc<dyn BlockDevice>>,
}

/// What labels say of a member.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// Its device; all zero for memory, which has no label.
    pub uuid: Uuid,
    /// First generation that it lacks something of; 0 when it holds everything.
    pub missed_from: Generation,
    /// Since when it is in its state, in seconds since 1970; 0 when that is not known.
    pub since: u64,
    /// Its recorded length in blocks.
    pub blocks: u64,
    /// What was wrong on it before it was opened.
    pub errors: ErrorCounts,
    /// What the newest label says was wrong on it.
    pub recorded: ErrorCounts,
    /// Why it is in its state, as far as this process knows.
    pub reason: Option<String>,
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Member {
    /// A member that is not there when it has no `device`.
    pub fn new(
        name: String,
        device: Option<Arc<dyn BlockDevice>>,
        state: MemberState,
        standing: Standing,
    ) -> Self {
        Self {
            is_volatile: device.as_ref().is_some_and(|device| device.is_volatile()),
            place: ArcSwap::from_pointee(Place { name, device }),
            state: AtomicU8::new(state.tag()),
            standing: Mutex::new(standing),
            counters: Counters::default(),
            reading: AtomicU32::new(0),
            read_end: AtomicU64::new(0),
        }
    }

    /// What it is called: its device, or where that should be.
    pub fn name(&self) -> String {
        self.place.load().name.clone()
    }

    /// Whether its contents vanish with the process.
    pub fn is_volatile(&self) -> bool {
        self.is_volatile
    }

    pub fn state(&self) -> MemberState {
        MemberState::from_tag(self.state.load(Ordering::Acquire)).unwrap_or(MemberState::Faulted)
    }

    /// Puts it into `state`; what it lacks from now on, if anything, begins with `missed_from`, unless it lacked more.
    pub fn set_state(&self, state: MemberState, missed_from: Generation, reason: Option<String>) {
        let mut standing = self.standing.lock();
        standing.missed_from = match state {
            MemberState::Online => Generation(0),
            _ if standing.missed_from.0 == 0 => missed_from,
            _ => standing.missed_from.min(missed_from),
        };
        standing.since = now();
        standing.reason = reason;
        self.state.store(state.tag(), Ordering::Release);
    }

    pub fn standing(&self) -> Standing {
        self.standing.lock().clone()
    }

    /// Changes what labels will say of it.
    pub fn update(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.standing.lock());
    }

    pub fn device(&self) -> Option<Arc<dyn BlockDevice>> {
        self.place.load().device.clone()
    }

    /// Puts `device` in its place.
    pub fn set_device(&self, device: Arc<dyn BlockDevice>) {
        let name = device.name().to_owned();
        self.place.store(Arc::new(Place { name, device: Some(device) }));
    }

    /// What went wrong on it, in this process and before.
    pub fn errors(&self) -> ErrorCounts {
        let before = self.standing.lock().errors;
        let now = self.counters.errors();
        ErrorCounts {
            read: before.read.wrapping_add(now.read),
            write: before.write.wrapping_add(now.write),
            checksum: before.checksum.wrapping_add(now.checksum),
            repaired: before.repaired.wrapping_add(now.repaired),
        }
    }

    /// Counts from zero again.
    pub fn clear_errors(&self) {
        let now = self.counters.errors();
        self.standing.lock().errors = ErrorCounts {
            read: now.read.wrapping_neg(),
            write: now.write.wrapping_neg(),
            checksum: now.checksum.wrapping_neg(),
            repaired: now.repaired.wrapping_neg(),
        };
    }

    /// Whether its newest label says less than is known of what went wrong on it.
    pub fn has_uncounted_errors(&self) -> bool {
        let recorded = self.standing.lock().recorded;
        !self.is_volatile && self.errors() != recorded
    }

    /// Reads under way, and whether a read of `block` goes on where the last one ended.
    pub fn load(&self, block: u64) -> (u32, bool) {
        (self.reading.load(Ordering::Relaxed), self.read_end.load(Ordering::Relaxed) == block)
    }

    pub fn read(&self, block: u64, buf: &mut [u8]) -> Result<(), VdevError> {
        self.reading.fetch_add(1, Ordering::Relaxed);
        let result = self.read_alone(block, buf);
        self.reading.fetch_sub(1, Ordering::Relaxed);
        self.read_end.store(block + (buf.len() / BLOCK_BYTES) as u64, Ordering::Relaxed);
        result
    }

    /// As [`Member::read`], into several buffers.
    pub fn read_vectored(&self, block: u64, bufs: &mut [IoSliceMut<'_>]) -> Result<(), VdevError> {
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        self.reading.fetch_add(1, Ordering::Relaxed);
        let result = self
            .request(Operation::Read, block, length, |device, offset| device.read_vectored_at(bufs, offset));
        self.reading.fetch_sub(1, Ordering::Relaxed);
        self.read_end.store(block + (length / BLOCK_BYTES) as u64, Ordering::Relaxed);
        result
    }

    /// As [`Member::read`], of the only member of its vdev: nobody asks for its load.
    pub fn read_alone(&self, block: u64, buf: &mut [u8]) -> Result<(), VdevError> {
        self.request(Operation::Read, block, buf.len(), |device, offset| device.read_at(buf, offset))
    }

    pub fn write(&self, block: u64, buf: &[u8]) -> Result<(), VdevError> {
        self.request(Operation::Write, block, buf.len(), |device, offset| device.write_at(buf, offset))
    }

    /// As [`Member::write`], from several buffers.
    pub fn write_vectored(&self, block: u64, bufs: &[IoSlice<'_>]) -> Result<(), VdevError> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        self.request(Operation::Write, block, length, |device, offset| device.write_vectored_at(bufs, offset))
    }

    /// A read or write of `length` bytes from `block` on, counted.
    fn request(
        &self,
        operation: Operation,
        block: u64,
        length: usize,
        ask: impl FnOnce(&dyn BlockDevice, u64) -> Result<(), VdevError>,
    ) -> Result<(), VdevError> {
        let place = self.place.load();
        let Some(device) = &place.device else { return Err(self.gone(operation, block)) };
        let result = ask(&**device, block.saturating_mul(BLOCK_BYTES_U64));
        let counters = match operation {
            Operation::Read => self.counters.reads(),
            _ => self.counters.writes(),
        };
        counters.add(length, result.is_ok());
        result
    }

    /// Somebody else reads `bytes` bytes from `block` on, until [`Member::end_read`].
    pub fn begin_read(&self, block: u64, bytes: usize) {
        self.reading.fetch_add(1, Ordering::Relaxed);
        self.read_end.store(block + (bytes / BLOCK_BYTES) as u64, Ordering::Relaxed);
    }

    pub fn end_read(&self) {
        self.reading.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a read that somebody else made.
    pub fn count_read(&self, bytes: usize) {
        self.counters.reads().add(bytes, true);
    }

    pub fn flush(&self) -> Result<(), VdevError> {
        let Some(device) = self.device() else { return Err(self.gone(Operation::Flush, 0)) };
        let result = device.flush();
        self.counters.flushes().add(0, result.is_ok());
        result
    }

    pub fn discard(&self, block: u64, blocks: u64) {
        if let Some(device) = self.device() {
            device.discard(block * BLOCK_BYTES_U64, blocks * BLOCK_BYTES_U64);
        }
    }

    /// The error of a request to a device that is not there.
    pub fn gone(&self, operation: Operation, block: u64) -> VdevError {
        VdevError::Io {
            device: self.name(),
            operation,
            offset: block.saturating_mul(BLOCK_BYTES_U64),
            source: std::io::Error::from(std::io::ErrorKind::NotFound),
        }
    }
}
