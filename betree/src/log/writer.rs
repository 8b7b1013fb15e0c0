//! The log as it is written: appending, group commit, cutting, releasing.

use super::format::{EXTENT_BLOCKS_MAX, FRAME_BLOCKS_MAX, RECORD_HEADER_BYTES};
use super::frames::{Frames, SealedFrame};
use super::{LogError, LogHead};
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::ids::{Uuid, VdevId};
use crate::base::planted::{Bug, panic_if_planted, planted};
use crate::base::preference::StoragePreference;
use crate::base::sync::thread::{self, JoinHandle};
use crate::base::sync::{Condvar, Mutex, MutexGuard};
use crate::base::units::{BLOCK_BYTES, blocks_for};
use crate::dmu::{Dmu, DmuError, Privilege, Stream};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// Longest record in bytes: 1 GiB. Replay believes no longer one.
pub const RECORD_BYTES_MAX: usize = 1 << 30;

/// Most bytes of frames that are written at once. Frames are short so that what is synced is on its way early; a device that
/// has others to serve, too, takes one long request far sooner than the short ones in turn.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// How a log is written.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The pool, named in every frame.
    pub pool: Uuid,
    /// The tier of the log: the fastest that is redundant enough.
    pub preference: StoragePreference,
    /// Length of an extent in blocks, without their copies on striped vdevs, 1…87,381. 1,024 (4 MiB) is long enough that allocation does not show and short
    /// enough that space comes back soon; small pools and tests take less.
    pub extent_blocks: u32,
    /// Bytes that gather before a frame is written without being asked for, up to 1 MiB. 128 KiB is where the devices
    /// measured reach their sequential rate.
    pub buffer_bytes: usize,
    /// Bytes of full frames that may wait for the background writer before appends wait.
    pub queue_bytes_max: u64,
    /// Longest record in bytes, at most [`RECORD_BYTES_MAX`]; above it [`Log::append`] refuses.
    pub record_bytes_max: usize,
    /// Whether full frames are written by a thread of the log; else by the append that fills them (simulation).
    pub background: bool,
}

impl LogOptions {
    /// The defaults for `pool`: 4 MiB extents, 128 KiB buffer, 4 MiB queue, records up to 1 GiB, background writer, no
    /// preference.
    #[must_use]
    pub fn new(pool: Uuid) -> Self {
        Self {
            pool,
            preference: StoragePreference::NONE,
            extent_blocks: 1024,
            buffer_bytes: 128 << 10,
            queue_bytes_max: 4 << 20,
            record_bytes_max: RECORD_BYTES_MAX,
            background: true,
        }
    }
}

/// The intent log of one read-write open. All methods may be called from any thread.
///
/// Dropping it writes nothing: what was not synced is lost as in a crash.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    dmu: Dmu,
    options: LogOptions,
    state: Mutex<State>,
    /// Tells the background writer that frames are queued or that it shall stop.
    work: Condvar,
    /// Tells everyone else: frames written, leader done, record finished, poisoned.
    progress: Condvar,
}

#[derive(Debug)]
struct State {
    frames: Frames,
    /// Sealed frames that nobody writes yet, oldest first.
    queue: VecDeque<SealedFrame>,
    /// Bytes in `queue` and in the background writer's hands.
    queued_bytes: u64,
    /// Position of the first frame that the background writer is writing, and the vdev of all of them.
    writing: Option<(u64, VdevId)>,
    /// Vdevs of the log with completed writes that were not flushed.
    dirty: Vec<VdevId>,
    /// Vdevs with large values that records name, not flushed since.
    noted: Vec<VdevId>,
    durable_lsn: u64,
    /// Whether a thread writes and flushes for a sync or a release.
    leading: bool,
    /// Whether an append waits in the middle of its record: others wait with theirs, and a head would stand inside it.
    /// No frame is open then.
    appending: bool,
    records: u64,
    stop: bool,
    poison: Option<Arc<LogError>>,
}

impl Log {
    /// Starts the log of `epoch`, which no earlier open of the pool has used. Allocates the first two extents; writes
    /// nothing. The head goes into the superblock of the next checkpoint, which must be durable before a record is
    /// appended that shall be found again.
    ///
    /// # Errors
    /// [`LogError::Dmu`] when there is no space, [`LogError::Thread`]; nothing is allocated then.
    pub fn start(dmu: &Dmu, mut options: LogOptions, epoch: u64) -> Result<(Self, LogHead), LogError> {
        options.extent_blocks = options.extent_blocks.clamp(1, EXTENT_BLOCKS_MAX / 3);
        let buffer_blocks = blocks_for(options.buffer_bytes as u64).clamp(1, u64::from(FRAME_BLOCKS_MAX));
        let mut extents = allocate(dmu, &options)?;
        match allocate(dmu, &options) {
            Ok(more) => extents.extend(more),
            Err(error) => {
                dmu.release(&extents);
                return Err(error.into());
            }
        }
        let mut frames = Frames::new(options.pool, epoch, buffer_blocks as u32, &sized(dmu, &extents));
        let head = frames.head(0);
        let background = options.background;
        let shared = Arc::new(Shared {
            dmu: dmu.clone(),
            options,
            state: Mutex::new(State {
                frames,
                queue: VecDeque::new(),
                queued_bytes: 0,
                writing: None,
                dirty: Vec::new(),
                noted: Vec::new(),
                durable_lsn: 0,
                leading: false,
                appending: false,
                records: 0,
                stop: false,
                poison: None,
            }),
            work: Condvar::new(),
            progress: Condvar::new(),
        });
        let mut writer = None;
        if background {
            let shared = Arc::clone(&shared);
            let spawned = thread::Builder::new()
                .name(String::from("betree-log"))
                .spawn(move || shared.write_in_background());
            match spawned {
                Ok(handle) => writer = Some(handle),
                Err(error) => {
                    dmu.release(&extents);
                    return Err(LogError::Thread(Arc::new(error)));
                }
            }
        }
        Ok((Self { shared, writer }, head))
    }

    /// Appends one record, the concatenation of `parts`, and returns the position after it, for [`Log::sync`]. Copies
    /// only; waits when the background writer is behind. The order of records is the order of calls.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] and out of space: nothing is appended, the log goes on. [`LogError::Poisoned`] and device
    /// errors: the log takes nothing more.
    pub fn append(&self, parts: &[&[u8]]) -> Result<u64, LogError> {
        let shared = &*self.shared;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let limit = shared.options.record_bytes_max.min(RECORD_BYTES_MAX);
        if length > limit {
            return Err(LogError::TooLarge { bytes: length as u64, limit: limit as u64 });
        }
        let mut state = shared.state.lock();
        state.check()?;
        if state.appending {
            shared.wait_for_append(&mut state)?;
        }
        state.records += 1;
        if planted(Bug::DropLogRecord) && state.records.is_multiple_of(8) {
            return Ok(state.frames.position());
        }
        let prefix = (length as u32).to_le_bytes();
        let total = RECORD_HEADER_BYTES + length;
        let room = state.frames.room();
        if total < room {
            state.frames.put(&prefix);
            for part in parts {
                state.frames.put(part);
            }
            return Ok(state.frames.position());
        }
        shared.secure(&mut state, (total - room) as u64)?;
        for part in std::iter::once(&prefix[..]).chain(parts.iter().copied()) {
            let mut rest = part;
            while !rest.is_empty() {
                let taken = state.frames.put(rest);
                rest = &rest[taken..];
                if state.frames.is_full() {
                    shared.hand_over(&mut state)?;
                }
            }
        }
        Ok(state.frames.position())
    }

    /// Notes that a large value lies on `vdev`. To be called when the write of the value has completed, or will be by
    /// [`Dmu::finish_behind`], and before the record that names it is appended; the sync that covers the record flushes `vdev` first.
    pub fn note_device(&self, vdev: VdevId) {
        insert(&mut self.shared.state.lock().noted, vdev);
    }

    /// Returns when everything up to position `lsn` (at most the position appended so far) is durable. Callers share
    /// flushes: one of them leads, the others wait.
    ///
    /// # Errors
    /// Device errors for the leader, [`LogError::Poisoned`] for all others and later ones; what the call was to make
    /// durable may or may not be found at the next open.
    pub fn sync(&self, lsn: u64) -> Result<(), LogError> {
        let shared = &*self.shared;
        let mut state = shared.state.lock();
        state.check()?;
        let lsn = lsn.min(state.frames.position());
        loop {
            if state.durable_lsn >= lsn {
                return Ok(());
            }
            state.check()?;
            if !state.leading {
                break;
            }
            shared.progress.wait(&mut state);
        }
        shared.lead(&mut state, |state| shared.make_durable(state, lsn))
    }

    /// Closes the open frame and returns the head from which replay finds exactly the records appended from now on.
    /// Called under the commit lock; does no device I/O.
    ///
    /// # Errors
    /// [`LogError::Poisoned`].
    pub fn cut(&self) -> Result<LogHead, LogError> {
        let shared = &*self.shared;
        let mut state = shared.state.lock();
        state.check()?;
        shared.wait_for_append(&mut state)?;
        state.seal();
        if !state.queue.is_empty() {
            shared.work.notify_one();
        }
        // So that the head names the extent after its own. Without space it does not, and a checkpoint goes on.
        if let Err(error) = shared.secure(&mut state, 1) {
            ::log::debug!("the log head names no next extent: {error}");
        }
        let durable_lsn = state.durable_lsn;
        Ok(state.frames.head(durable_lsn))
    }

    /// Gives back the extents that lie wholly before `head`. To be called with the head of the older of the two
    /// superblocks that may be opened, once both are durable. A head of an earlier epoch gives back nothing.
    ///
    /// # Errors
    /// Device errors and [`LogError::Poisoned`]; nothing is given back then.
    pub fn release_before(&self, head: &LogHead) -> Result<(), LogError> {
        let shared = &*self.shared;
        let mut state = shared.state.lock();
        state.check()?;
        while state.leading {
            shared.progress.wait(&mut state);
            state.check()?;
        }
        if state.frames.count_before(head) == 0 {
            return Ok(());
        }
        // A frame that is still queued must not be written into an extent that has a new owner.
        shared.lead(&mut state, |state| shared.write_out(state, head.lsn))?;
        let count = state.frames.count_before(head);
        let extents = state.frames.take_oldest(count);
        drop(state);
        shared.dmu.release(&extents);
        Ok(())
    }

    /// All extents of the log, oldest first, those not yet written to included.
    #[must_use]
    pub fn extents(&self) -> Vec<Extent> {
        self.shared.state.lock().frames.extents()
    }

    /// Whether what is appended from now on may come to `vdev`.
    #[must_use]
    pub fn stands_on(&self, vdev: VdevId) -> bool {
        self.shared.state.lock().frames.stands_on(vdev)
    }

    /// Bytes that the log takes on devices from `head` on, partly filled blocks in full: what a checkpoint would free.
    #[must_use]
    pub fn bytes_since(&self, head: &LogHead) -> u64 {
        self.shared.state.lock().frames.bytes_since(head)
    }

    /// Position after the last record.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.shared.state.lock().frames.position()
    }

    /// Position up to which everything is durable.
    #[must_use]
    pub fn durable_lsn(&self) -> u64 {
        self.shared.state.lock().durable_lsn
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.work.notify_all();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            ::log::error!("the thread of the intent log panicked");
        }
    }
}

impl State {
    fn check(&self) -> Result<(), LogError> {
        match &self.poison {
            Some(first) => Err(LogError::Poisoned(Arc::clone(first))),
            None => Ok(()),
        }
    }

    /// Seals the open frame into the queue.
    fn seal(&mut self) {
        if let Some(frame) = self.frames.seal(self.durable_lsn) {
            self.queued_bytes += frame.buffer.len() as u64;
            self.queue.push_back(frame);
        }
    }

    fn poison(&mut self, error: &LogError) {
        if self.poison.is_none() {
            ::log::error!("{error}; the intent log takes no more records");
            self.poison = Some(Arc::new(error.clone()));
        }
        self.queue.clear();
        self.queued_bytes = 0;
    }
}

impl Shared {
    /// Allocates until `bytes` more than the open frame takes have space (L3).
    fn secure(&self, state: &mut State, bytes: u64) -> Result<(), LogError> {
        let mut added = 0;
        while !state.frames.has_space(bytes) {
            match allocate(&self.dmu, &self.options) {
                Ok(extents) => {
                    added += extents.len();
                    state.frames.add_extents(&sized(&self.dmu, &extents));
                }
                Err(error) => {
                    self.dmu.release(&state.frames.remove_extents(added));
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Seals the full frame and gets it written: by the background writer, or here.
    fn hand_over(&self, state: &mut MutexGuard<'_, State>) -> Result<(), LogError> {
        state.seal();
        if !self.options.background {
            self.dmu.start_behind();
            while let Some(frame) = state.queue.pop_front() {
                state.queued_bytes -= frame.buffer.len() as u64;
                if let Err(error) = self.write(&frame) {
                    state.poison(&error);
                    self.progress.notify_all();
                    return Err(error);
                }
                insert(&mut state.dirty, frame.extent.vdev);
            }
            return Ok(());
        }
        self.work.notify_one();
        if state.queued_bytes < self.options.queue_bytes_max {
            return Ok(());
        }
        state.appending = true;
        while state.poison.is_none() && state.queued_bytes >= self.options.queue_bytes_max {
            self.progress.wait(state);
        }
        state.appending = false;
        self.progress.notify_all();
        state.check()
    }

    /// Waits until no append stands in the middle of its record.
    fn wait_for_append(&self, state: &mut MutexGuard<'_, State>) -> Result<(), LogError> {
        while state.appending {
            self.progress.wait(state);
            state.check()?;
        }
        Ok(())
    }

    /// Runs `work` as the leader: nobody leads when this is called. An error poisons the log.
    fn lead(
        &self,
        state: &mut MutexGuard<'_, State>,
        work: impl FnOnce(&mut MutexGuard<'_, State>) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        state.leading = true;
        let caught = catch_unwind(AssertUnwindSafe(|| work(state)));
        state.leading = false;
        // Whoever waits for the leader is told, whatever became of it.
        let error = match &caught {
            Ok(result) => result.as_ref().err().cloned(),
            Err(_) => Some(panicked()),
        };
        if let Some(error) = error {
            state.poison(&error);
        }
        self.progress.notify_all();
        caught.unwrap_or_else(|payload| resume_unwind(payload))
    }

    /// Flushes the devices of large values, writes what is sealed (sealing the open frame when `lsn` lies in it),
    /// flushes the log.
    fn make_durable(&self, state: &mut MutexGuard<'_, State>, lsn: u64) -> Result<(), LogError> {
        if lsn > state.frames.sealed_lsn() {
            state.seal();
        }
        let target = state.frames.sealed_lsn();
        // Now, for what others append while this waits is not written by it, and its devices are theirs to flush.
        let mut noted = std::mem::take(&mut state.noted);
        // The flush of the log's own devices at the end covers the values there as well.
        noted.retain(|vdev| {
            !state.dirty.contains(vdev)
                && state.writing.is_none_or(|(_, writing)| writing != *vdev)
                && !state.queue.iter().any(|frame| frame.extent.vdev == *vdev)
        });
        if !planted(Bug::SkipWriteBehind) {
            MutexGuard::unlocked(state, || self.dmu.finish_behind())?;
            state.check()?;
        }
        if !noted.is_empty() && !planted(Bug::SkipValueFlush) {
            MutexGuard::unlocked(state, || self.dmu.flush(&noted))?;
            state.check()?;
        }
        self.write_out(state, target)?;
        let dirty = std::mem::take(&mut state.dirty);
        if !dirty.is_empty() {
            MutexGuard::unlocked(state, || self.dmu.flush(&dirty))?;
            state.check()?;
        }
        state.durable_lsn = target;
        Ok(())
    }

    /// Writes the sealed frames that start before position `target`, and waits for those that the background writer
    /// is at.
    fn write_out(&self, state: &mut MutexGuard<'_, State>, target: u64) -> Result<(), LogError> {
        let count = state.queue.partition_point(|frame| frame.lsn < target);
        let frames: Vec<SealedFrame> = state.queue.drain(..count).collect();
        if !frames.is_empty() {
            state.queued_bytes -= frames.iter().map(|frame| frame.buffer.len() as u64).sum::<u64>();
            MutexGuard::unlocked(state, || self.write_all(&frames))?;
            for frame in &frames {
                insert(&mut state.dirty, frame.extent.vdev);
            }
        }
        while state.writing.is_some_and(|(lsn, _)| lsn < target) {
            self.progress.wait(state);
        }
        state.check()
    }

    fn write_in_background(&self) {
        let mut state = self.state.lock();
        while !state.stop {
            let Some(first) = state.queue.front() else {
                self.work.wait(&mut state);
                continue;
            };
            state.writing = Some((first.lsn, first.extent.vdev));
            // What has gathered while the device was busy.
            let count = neighbours(state.queue.make_contiguous());
            let frames: Vec<SealedFrame> = state.queue.drain(..count).collect();
            let write = || {
                panic_if_planted(Bug::PanicInLog);
                // Or a crash would leave records without their values, and nothing of what is behind them.
                self.dmu.start_behind();
                self.write_all(&frames)
            };
            let result = MutexGuard::unlocked(&mut state, || {
                catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|_| Err(panicked()))
            });
            state.writing = None;
            // Zero already when the log was poisoned meanwhile.
            let written: u64 = frames.iter().map(|frame| frame.buffer.len() as u64).sum();
            state.queued_bytes = state.queued_bytes.saturating_sub(written);
            insert(&mut state.dirty, frames[0].extent.vdev);
            if let Err(error) = result {
                state.poison(&error);
            }
            self.progress.notify_all();
        }
    }

    /// Writes `frames`, neighbours among them at once.
    fn write_all(&self, mut frames: &[SealedFrame]) -> Result<(), LogError> {
        while !frames.is_empty() {
            let (now, later) = frames.split_at(neighbours(frames));
            match now {
                [one] => self.write(one)?,
                several => {
                    let length = several.iter().map(|frame| frame.buffer.len()).sum();
                    let mut buffer = AlignedBuffer::recycled(length);
                    let mut rest = &mut buffer[..];
                    for frame in several {
                        let (place, behind) = rest.split_at_mut(frame.buffer.len());
                        place.copy_from_slice(&frame.buffer);
                        rest = behind;
                    }
                    self.dmu.write_singles(&several[0].extent, several[0].offset, &buffer)?;
                }
            }
            frames = later;
        }
        Ok(())
    }

    fn write(&self, frame: &SealedFrame) -> Result<(), LogError> {
        Ok(self.dmu.write_singles(&frame.extent, frame.offset, &frame.buffer)?)
    }
}

/// How many of `frames`, from the first one on, lie one behind the other, as far as one request goes.
fn neighbours(frames: &[SealedFrame]) -> usize {
    let mut length = frames.first().map_or(0, |first| first.buffer.len());
    let joins = |pair: &&[SealedFrame]| {
        let end = pair[0].offset as usize + pair[0].buffer.len() / BLOCK_BYTES;
        length += pair[1].buffer.len();
        pair[0].extent == pair[1].extent && end == pair[1].offset as usize && length <= REQUEST_BYTES_MAX
    };
    1 + frames.windows(2).take_while(joins).count()
}

fn allocate(dmu: &Dmu, options: &LogOptions) -> Result<Vec<Extent>, DmuError> {
    dmu.allocate(Stream::Log, options.preference, options.extent_blocks, Privilege::System)
}

/// Each extent with the blocks of the log that it holds.
fn sized(dmu: &Dmu, extents: &[Extent]) -> Vec<(Extent, u32)> {
    extents.iter().map(|extent| (*extent, dmu.single_blocks(extent))).collect()
}

fn panicked() -> LogError {
    DmuError::Panicked { message: String::from("while the intent log was written") }.into()
}

fn insert(vdevs: &mut Vec<VdevId>, vdev: VdevId) {
    if !vdevs.contains(&vdev) {
        vdevs.push(vdev);
    }
}
