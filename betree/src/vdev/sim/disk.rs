//! The simulated disk and the device through which a program uses it.

use super::clock::{SimClock, Tick};
use super::crash::{Write, land_some, some_sectors};
use super::fault::{Fault, FaultKind, Faults, FlushFailure};
use super::image::{Image, Page, SECTORS_PER_PAGE, WHOLE_PAGE, page_of};
use super::rng::SimRng;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::vdev::error::check_bounds;
use crate::vdev::{BlockDevice, Operation, VdevError};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// A simulated disk; clones are the same disk. See the module for what it is.
#[derive(Debug, Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

/// A [`SimDisk`] in use as a device. Several of one disk see each other's writes.
#[derive(Debug, Clone)]
pub struct SimDevice {
    shared: Arc<Shared>,
}

/// Contents of a disk, durable and pending, to go back to.
#[derive(Clone)]
pub struct SimSnapshot {
    current: Epoch,
    visible: Image,
}

/// A write or flush that a disk has received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoggedOperation {
    /// A write.
    Write {
        /// Number on the clock.
        number: u64,
        /// Byte offset.
        offset: u64,
        /// Length in bytes.
        bytes: u64,
    },
    /// A flush that made the writes before it durable.
    Flush {
        /// Number on the clock.
        number: u64,
    },
}

struct Shared {
    name: String,
    len: u64,
    volatile: bool,
    clock: SimClock,
    state: Mutex<State>,
}

struct State {
    visible: Image,
    current: Epoch,
    /// The epochs before the current one, when they are kept.
    past: Vec<Epoch>,
    keep_history: bool,
    /// What discarded blocks are filled with.
    garbage: Option<Arc<Page>>,
    faults: Faults,
    rng: SimRng,
}

/// The time from one flush to the next.
#[derive(Clone)]
struct Epoch {
    /// Number of the flush that began it; 0 for the first.
    start: u64,
    durable: Image,
    /// What was written since, and is pending.
    writes: Vec<Write>,
}

impl SimDisk {
    /// A disk of `bytes` zero bytes, rounded down to whole 4 KiB blocks.
    #[must_use]
    pub fn new(name: &str, bytes: u64, clock: &SimClock) -> Self {
        Self::with_image(name, Image::empty(bytes / BLOCK_BYTES_U64), false, clock)
    }

    /// A disk that is empty after a crash, as memory is.
    #[must_use]
    pub fn volatile(name: &str, bytes: u64, clock: &SimClock) -> Self {
        Self::with_image(name, Image::empty(bytes / BLOCK_BYTES_U64), true, clock)
    }

    /// A disk with the whole blocks of `bytes` as its durable contents.
    #[must_use]
    pub fn from_bytes(name: &str, bytes: &[u8], clock: &SimClock) -> Self {
        let mut image = Image::empty(bytes.len() as u64 / BLOCK_BYTES_U64);
        for (block, page) in (0..).zip(bytes.chunks_exact(BLOCK_BYTES)) {
            image.write(block, &page_of(page), WHOLE_PAGE);
        }
        Self::with_image(name, image, false, clock)
    }

    fn with_image(name: &str, image: Image, volatile: bool, clock: &SimClock) -> Self {
        let len = image.blocks() * BLOCK_BYTES_U64;
        let state = State {
            visible: image.clone(),
            current: Epoch { start: 0, durable: image, writes: Vec::new() },
            past: Vec::new(),
            keep_history: false,
            garbage: None,
            faults: Faults::default(),
            rng: SimRng::new(clock.next_seed()),
        };
        let (name, clock) = (name.to_owned(), clock.clone());
        Self { shared: Arc::new(Shared { name, len, volatile, clock, state: Mutex::new(state) }) }
    }

    /// The device that a program under test is given.
    #[must_use]
    pub fn device(&self) -> SimDevice {
        SimDevice { shared: Arc::clone(&self.shared) }
    }

    /// Name for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.shared.len
    }

    /// Whether the disk has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The clock that counts its operations.
    #[must_use]
    pub fn clock(&self) -> &SimClock {
        &self.shared.clock
    }

    /// Lets the process die after operation number `operation` of the clock; see [`SimClock::set_stop_after`].
    pub fn set_stop_after(&self, operation: u64) {
        self.shared.clock.set_stop_after(operation);
    }

    /// Keeps, from now on, what [`SimDisk::crash_image_at`] needs for operations before the last flush: a shared image
    /// for each flush, and every page written.
    pub fn keep_history(&self) {
        self.shared.state.lock().keep_history = true;
    }

    /// Fills what is discarded from now on with garbage, and on the disks that crashes leave of this one as well. The
    /// garbage is as pending as any write of that moment.
    pub fn poison_discards(&self) {
        let mut state = self.shared.state.lock();
        let mut page = [0; BLOCK_BYTES];
        for bytes in page.chunks_exact_mut(8) {
            bytes.copy_from_slice(&state.rng.next_u64().to_le_bytes());
        }
        state.garbage = Some(Arc::new(page));
    }

    // ---- crashes

    /// A legal disk after a crash now, on `clock`. A write that was under way when the clock stopped may have landed.
    /// Faults do not carry over.
    #[must_use]
    pub fn crash_image(&self, rng: &mut SimRng, clock: &SimClock) -> Self {
        self.crash_image_at(u64::MAX, rng, clock)
    }

    /// A legal disk after a crash when operation number `operation` was complete and the next one under way.
    ///
    /// # Panics
    /// When `operation` lies before the last flush and the history was not kept.
    #[must_use]
    pub fn crash_image_at(&self, operation: u64, rng: &mut SimRng, clock: &SimClock) -> Self {
        self.after_crash(operation, clock, |pending, image| land_some(pending, image, rng))
    }

    /// The disk after a crash at `operation` with those sectors of its pending writes for which
    /// `landed(index of the write, sector within it)` is true, in the order of the writes. For trying all cases.
    ///
    /// # Panics
    /// As [`SimDisk::crash_image_at`].
    #[must_use]
    pub fn crash_image_where(
        &self,
        operation: u64,
        clock: &SimClock,
        mut landed: impl FnMut(usize, usize) -> bool,
    ) -> Self {
        self.after_crash(operation, clock, |pending, image| {
            for (index, write) in pending.iter().enumerate() {
                write.land_where(image, |sector| landed(index, sector));
            }
        })
    }

    /// The writes that a crash at `operation` may lose: those complete and not flushed, and the one under way. An
    /// operation that is `u64::MAX` means now.
    ///
    /// # Panics
    /// As [`SimDisk::crash_image_at`].
    #[must_use]
    pub fn pending_at(&self, operation: u64) -> Vec<LoggedOperation> {
        let state = self.shared.state.lock();
        state.pending_at(operation).1.into_iter().map(logged).collect()
    }

    /// The sectors that a crash at `operation` may lose and that would be missed: index of the write and sector within
    /// it, as [`SimDisk::crash_image_where`] counts. Left out are those that have the bytes of the durable disk anyway,
    /// in blocks that no other pending write goes to.
    ///
    /// # Panics
    /// As [`SimDisk::crash_image_at`].
    #[must_use]
    pub fn pending_sectors_at(&self, operation: u64) -> Vec<(usize, usize)> {
        if self.shared.volatile {
            return Vec::new();
        }
        let state = self.shared.state.lock();
        let (durable, pending) = state.pending_at(operation);
        let writers = |block: u64| pending.iter().filter(|write| write.covers(block)).count();
        let mut sectors = Vec::new();
        for (index, write) in pending.iter().enumerate() {
            for (at, block) in write.blocks().enumerate() {
                let mut before = [0; BLOCK_BYTES];
                durable.read(block, &mut before);
                let changed = write.changed_sectors(at, &before, writers(block) > 1);
                sectors.extend(changed.map(|sector| (index, at * SECTORS_PER_PAGE + sector)));
            }
        }
        sectors
    }

    fn after_crash(
        &self,
        operation: u64,
        clock: &SimClock,
        choose: impl FnOnce(&[&Write], &mut Image),
    ) -> Self {
        let image = if self.shared.volatile {
            Image::empty(self.len() / BLOCK_BYTES_U64)
        } else {
            let state = self.shared.state.lock();
            let (durable, pending) = state.pending_at(operation);
            let mut image = durable.clone();
            choose(&pending, &mut image);
            image
        };
        let disk = Self::with_image(self.name(), image, self.shared.volatile, clock);
        disk.shared.state.lock().garbage.clone_from(&self.shared.state.lock().garbage);
        disk
    }

    /// The writes and flushes since the start, or since the last flush when the history is not kept; without the garbage
    /// that discards leave.
    #[must_use]
    pub fn log(&self) -> Vec<LoggedOperation> {
        let state = self.shared.state.lock();
        let mut log = Vec::new();
        for epoch in state.past.iter().chain([&state.current]) {
            log.extend((epoch.start > 0).then_some(LoggedOperation::Flush { number: epoch.start }));
            log.extend(epoch.writes.iter().filter(|write| !write.is_garbage).map(logged));
        }
        log
    }

    // ---- faults

    /// Arms a fault.
    pub fn arm(&self, fault: Fault) {
        self.shared.state.lock().faults.arm(fault);
    }

    /// Lifts all faults. What they have done stays.
    pub fn clear_faults(&self) {
        self.shared.state.lock().faults.clear();
    }

    /// How often a fault of this kind happened.
    #[must_use]
    pub fn fired(&self, kind: FaultKind) -> u64 {
        self.shared.state.lock().faults.fired(kind)
    }

    /// Forgets what only the cache of the host has: writes that a flush with [`FlushFailure::KeepVisible`] lost are gone.
    pub fn drop_caches(&self) {
        let mut state = self.shared.state.lock();
        let mut visible = state.current.durable.clone();
        state.current.writes.iter().for_each(|write| write.land(&mut visible));
        state.visible = visible;
    }

    // ---- contents

    /// All bytes as reads see them, without faults.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.shared.state.lock().visible.bytes()
    }

    /// Replaces bytes from `offset` on behind the back of the program: durable at once, pending writes included. What
    /// reaches beyond the end is left out.
    pub fn overwrite(&self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let end = self.len().min(offset.saturating_add(bytes.len() as u64));
        while at < end {
            let within = (at % BLOCK_BYTES_U64) as usize;
            let from = (at - offset) as usize;
            let length = (BLOCK_BYTES - within).min((end - at) as usize);
            self.edit(at / BLOCK_BYTES_U64, |page| {
                page[within..within + length].copy_from_slice(&bytes[from..from + length]);
            });
            at += length as u64;
        }
    }

    /// Flips `bit` (0…7) of the byte at `offset`, as [`SimDisk::overwrite`] does; nothing beyond the end.
    pub fn flip_bit(&self, offset: u64, bit: u8) {
        if offset < self.len() {
            let within = (offset % BLOCK_BYTES_U64) as usize;
            self.edit(offset / BLOCK_BYTES_U64, |page| page[within] ^= 1 << (bit % 8));
        }
    }

    fn edit(&self, block: u64, change: impl Fn(&mut [u8; BLOCK_BYTES])) {
        let mut state = self.shared.state.lock();
        let State { visible, current, .. } = &mut *state;
        visible.edit(block, &change);
        current.durable.edit(block, &change);
        for write in &mut current.writes {
            let index = block.wrapping_sub(write.block) as usize;
            if let Some((page, _)) = write.pages.get_mut(index) {
                change(Arc::make_mut(page));
            }
        }
    }

    /// The contents now; costs no copy.
    #[must_use]
    pub fn snapshot(&self) -> SimSnapshot {
        let state = self.shared.state.lock();
        SimSnapshot { current: state.current.clone(), visible: state.visible.clone() }
    }

    /// Goes back to a snapshot of this disk, or takes over that of one of the same length. The clock, the faults and
    /// their counts stay; the history is gone.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn restore(&self, snapshot: &SimSnapshot) {
        assert_eq!(snapshot.visible.blocks() * BLOCK_BYTES_U64, self.len(), "a snapshot of this length");
        let mut state = self.shared.state.lock();
        let now = self.shared.clock.operations();
        state.past.clear();
        state.visible = snapshot.visible.clone();
        state.current = snapshot.current.clone();
        state.current.start = now;
        state.current.writes.iter_mut().for_each(|write| write.number = now);
    }
}

fn logged(write: &Write) -> LoggedOperation {
    LoggedOperation::Write {
        number: write.number,
        offset: write.block * BLOCK_BYTES_U64,
        bytes: (write.pages.len() * BLOCK_BYTES) as u64,
    }
}

impl State {
    /// The durable image at `operation`, and the writes that were pending or under way then.
    fn pending_at(&self, operation: u64) -> (&Image, Vec<&Write>) {
        let epoch = if operation >= self.current.start {
            &self.current
        } else {
            let epochs = self.past.partition_point(|epoch| epoch.start <= operation);
            assert!(epochs > 0, "the history back to operation {operation} was kept");
            &self.past[epochs - 1]
        };
        let under_way = operation.saturating_add(1);
        let pending = epoch.writes.iter().take_while(|write| write.number <= under_way).collect();
        (&epoch.durable, pending)
    }

    /// Starts an epoch with flush `number`; the caller then sets what is durable.
    fn next_epoch(&mut self, number: u64) -> Vec<Write> {
        if self.keep_history {
            self.past.push(self.current.clone());
        }
        self.current.start = number;
        std::mem::take(&mut self.current.writes)
    }

    /// A write that takes place: reads see it, and the next flush makes it durable.
    fn accept(&mut self, write: Write) {
        let end = write.block + write.pages.len() as u64;
        self.faults.lift(write.block, end);
        write.land(&mut self.visible);
        self.current.writes.push(write);
    }

    fn fail_flush(&mut self, number: u64, after: FlushFailure) {
        let lost = self.next_epoch(number);
        match after {
            FlushFailure::DropDirty => {
                let lost: Vec<&Write> = lost.iter().collect();
                land_some(&lost, &mut self.current.durable, &mut self.rng);
                self.visible = self.current.durable.clone();
            }
            FlushFailure::KeepVisible => {}
            FlushFailure::Revert => self.visible = self.current.durable.clone(),
        }
    }
}

impl Shared {
    fn failed(&self, operation: Operation, offset: u64, source: io::Error) -> VdevError {
        VdevError::Io { device: self.name.clone(), operation, offset, source }
    }

    fn crashed(&self, operation: Operation, offset: u64) -> VdevError {
        self.failed(operation, offset, io::Error::other("crashed"))
    }
}

fn io_error() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

impl BlockDevice for SimDevice {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn len(&self) -> u64 {
        self.shared.len
    }

    fn is_volatile(&self) -> bool {
        self.shared.volatile
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
        let shared = &*self.shared;
        check_bounds(&shared.name, Operation::Read, offset, buf.len(), shared.len)?;
        let mut state = shared.state.lock();
        if shared.clock.is_crashed() {
            return Err(shared.crashed(Operation::Read, offset));
        }
        if state.faults.next(Operation::Read).is_some() {
            // Whoever goes on with these bytes has it noticed.
            buf.fill(0xEE);
            return Err(shared.failed(Operation::Read, offset, io_error()));
        }
        let first = offset / BLOCK_BYTES_U64;
        for (block, out) in (first..).zip(buf.chunks_exact_mut(BLOCK_BYTES)) {
            state.visible.read(block, out);
        }
        let end = first + (buf.len() / BLOCK_BYTES) as u64;
        let over: Vec<Fault> = state.faults.over(first, end).collect();
        for fault in over {
            state.faults.count(fault.kind());
            match fault {
                Fault::StaleRead { block } => {
                    let start = (block - first) as usize * BLOCK_BYTES;
                    state.visible.read_before(block, &mut buf[start..start + BLOCK_BYTES]);
                }
                Fault::BitFlip { offset: at, bit } => buf[(at - offset) as usize] ^= 1 << (bit % 8),
                _ => {}
            }
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
        let shared = &*self.shared;
        check_bounds(&shared.name, Operation::Write, offset, buf.len(), shared.len)?;
        let mut state = shared.state.lock();
        let (number, alive) = match shared.clock.tick() {
            Tick::Runs(number) => (number, true),
            Tick::Dies(number) => (number, false),
            Tick::Dead => return Err(shared.crashed(Operation::Write, offset)),
        };
        let block = offset / BLOCK_BYTES_U64;
        let pages = buf.chunks_exact(BLOCK_BYTES).map(|page| (page_of(page), WHOLE_PAGE)).collect();
        let mut write = Write { number, block, pages, is_garbage: false };
        if !alive {
            state.current.writes.push(write);
            return Err(shared.crashed(Operation::Write, offset));
        }
        match state.faults.next(Operation::Write) {
            Some(Fault::WriteError { .. }) => {
                for (_, sectors) in &mut write.pages {
                    *sectors = some_sectors(&mut state.rng);
                }
                state.accept(write);
                return Err(shared.failed(Operation::Write, offset, io_error()));
            }
            Some(Fault::OutOfSpace { .. }) => {
                let written = state.rng.index(write.pages.len() + 1);
                write.pages.truncate(written);
                state.accept(write);
                let source = io::Error::from_raw_os_error(libc::ENOSPC);
                return Err(shared.failed(Operation::Write, offset, source));
            }
            Some(Fault::DroppedWrite { .. }) => {}
            Some(Fault::MisdirectedWrite { block, .. }) => {
                write.block = block.min(shared.len / BLOCK_BYTES_U64 - write.pages.len() as u64);
                state.accept(write);
            }
            _ => state.accept(write),
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), VdevError> {
        let shared = &*self.shared;
        let mut state = shared.state.lock();
        // A flush under way at the crash may have written anything or nothing: as if it had not been called.
        let Tick::Runs(number) = shared.clock.tick() else {
            return Err(shared.crashed(Operation::Flush, 0));
        };
        if let Some(Fault::FlushError { after, .. }) = state.faults.next(Operation::Flush) {
            state.fail_flush(number, after);
            return Err(shared.failed(Operation::Flush, 0, io_error()));
        }
        let writes = state.next_epoch(number);
        writes.iter().for_each(|write| write.land(&mut state.current.durable));
        Ok(())
    }

    fn discard(&self, offset: u64, bytes: u64) {
        let shared = &*self.shared;
        let mut state = shared.state.lock();
        let Some(garbage) = state.garbage.clone() else { return };
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= shared.len);
        if shared.clock.is_crashed() || !inside {
            return;
        }
        // It is under way from the last operation to the next one, and not numbered itself.
        let number = shared.clock.operations().saturating_add(1);
        let pages = vec![(garbage, WHOLE_PAGE); (bytes / BLOCK_BYTES_U64) as usize];
        state.accept(Write { number, block: offset / BLOCK_BYTES_U64, pages, is_garbage: true });
    }
}

// By hand: the derived ones would print every byte.
impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").field("name", &self.name).field("len", &self.len).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SimSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimSnapshot").field("blocks", &self.visible.blocks()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
