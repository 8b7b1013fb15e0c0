//! The cursor over one run.

use super::block::{Block, View};
use super::entry::{EntryCursor, EntryRef};
use super::format::{Frame, Shape, tag_kind, tag_preference};
use super::meta::Meta;
use super::run::Run;
use crate::base::buffer::AlignedBuffer;
use crate::base::compression::Codec;
use crate::base::units::{BLOCK_BYTES_U64, round_up_to_block};
use crate::dmu::{Admission, DmuError, PendingJob, Reading};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a cursor is used for, which decides how it reads ahead and what it leaves in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// Single look-ups: every block goes through the cache.
    Point,
    /// A range: the first blocks go through the cache, then windows are read ahead beside it.
    Scan,
    /// A range that goes on from a neighbour: windows are read ahead beside the cache from the start.
    Stream,
    /// All of the run: larger windows are read ahead beside the cache from the start.
    Merge,
}

/// Bytes of a scan that go through the cache before it reads ahead: short scans stay in the cache, long ones do not
/// wash it out.
const SCAN_BYTES_CACHED: u64 = 32 << 10;
/// Bytes that such a read fetches at once.
const SCAN_READ_BYTES: u64 = 16 << 10;
/// First and largest window of a scan in bytes.
const SCAN_WINDOW_BYTES: (usize, usize) = (64 << 10, 256 << 10);
/// Windows of a merge in bytes: two of them per input are in memory.
const MERGE_WINDOW_BYTES: usize = 512 << 10;
/// Resident blocks that are skipped in search of one to read ahead.
const SKIP_MAX: usize = 64;

/// A cursor over one run. Entries are visible whatever their sequence number.
#[derive(Debug)]
pub struct RunCursor {
    run: Arc<Run>,
    mode: ReadMode,
    meta: Option<Arc<Meta>>,
    /// Whether there is a position.
    valid: bool,
    /// Block that `source` and `shape` belong to.
    loaded: Option<usize>,
    source: Source,
    shape: Shape,
    entry: usize,
    frame: Frame,
    /// The key of the entry; its prefix is that of the block.
    key: Vec<u8>,
    window: Option<Window>,
    ahead: Option<(Span, PendingJob<Window>)>,
    /// Whether reading ahead has to wait; see [`RunCursor::hold_back`].
    held_back: Option<Arc<AtomicBool>>,
    scratch: Option<AlignedBuffer>,
    /// Bytes of the blocks entered one after the other since the last jump.
    followed: u64,
    window_bytes: usize,
}

/// Where the block at the position lies.
#[derive(Debug)]
enum Source {
    None,
    Resident(Arc<Block>),
    Window,
    Scratch,
}

/// Blocks `first..end`, in bytes `offset..offset + len` of the run.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: usize,
    end: usize,
    offset: u64,
    len: usize,
}

impl Span {
    fn contains(&self, block: usize) -> bool {
        (self.first..self.end).contains(&block)
    }
}

#[derive(Debug)]
struct Window {
    span: Span,
    bytes: AlignedBuffer,
    /// Of each block, what was found when it was checked on arrival; `None`: it is damaged or compressed.
    shapes: Vec<Option<Shape>>,
}

impl Window {
    /// Reads `span` of `run` and checks what can be checked without more memory. Damage is not reported here but to who
    /// enters the block.
    fn read(run: &Run, meta: &Meta, span: Span) -> Result<Self, DmuError> {
        let (bytes, reading) =
            run.dmu().read_doubtful(run.reference().extents.extents(), span.offset, span.len)?;
        let mut shapes = Vec::with_capacity(span.end - span.first);
        for index in span.first..span.end {
            let record = meta.record(index);
            let at = (record.offset - span.offset) as usize;
            let stored = bytes.get(at..at + record.stored_len as usize);
            let right = stored.is_some_and(|stored| run.check_stored(stored, record).is_ok());
            if right && matches!(reading, Reading::Partial) {
                run.put_right(&bytes, at, record)?;
            }
            let is_plain = right && record.codec == Codec::None;
            shapes.push(if is_plain { run.check_raw(&bytes, at, record).ok() } else { None });
        }
        Ok(Self { span, bytes, shapes })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

impl RunCursor {
    /// A cursor over `run` without a position. Reads nothing yet.
    #[must_use]
    pub fn new(run: Arc<Run>, mode: ReadMode) -> Self {
        Self {
            run,
            mode,
            meta: None,
            valid: false,
            loaded: None,
            source: Source::None,
            shape: Shape::default(),
            entry: 0,
            frame: Frame::default(),
            key: Vec::new(),
            window: None,
            ahead: None,
            held_back: None,
            scratch: None,
            followed: 0,
            window_bytes: if mode == ReadMode::Stream { SCAN_WINDOW_BYTES.1 } else { SCAN_WINDOW_BYTES.0 },
        }
    }

    /// Reads nothing ahead as long as `held_back` is set: for a cursor that takes its first position in a background
    /// job, which must not wait for another one.
    pub fn hold_back(&mut self, held_back: &Arc<AtomicBool>) {
        self.held_back = Some(Arc::clone(held_back));
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match &self.source {
            Source::Resident(block) => block.view().bytes,
            Source::Window => self.window.as_ref().map_or(&[], |window| &window.bytes),
            Source::Scratch => self.scratch.as_deref().unwrap_or_default(),
            Source::None => &[],
        }
    }

    fn view(&self) -> View<'_> {
        View { bytes: self.bytes(), shape: &self.shape }
    }

    /// The meta section; `None` when the run has no blocks.
    fn meta(&mut self) -> Result<Option<Arc<Meta>>, DmuError> {
        if self.run.reference().blocks == 0 {
            return Ok(None);
        }
        if self.meta.is_none() {
            self.meta = self.run.meta()?.clone();
        }
        Ok(self.meta.clone())
    }

    /// Takes the position `entry` of the loaded block.
    fn place(&mut self, entry: usize) {
        let start = self.shape.offset(self.bytes(), entry);
        self.place_at(entry, start);
    }

    /// As [`RunCursor::place`], where it is known that the entry starts at `start`.
    #[inline]
    fn place_at(&mut self, entry: usize, start: usize) {
        let mut key = std::mem::take(&mut self.key);
        let bytes = self.bytes();
        let frame = self.shape.frame(bytes, start);
        key.truncate(self.shape.prefix_len);
        key.extend_from_slice(&bytes[frame.suffix..frame.payload]);
        self.key = key;
        self.frame = frame;
        self.entry = entry;
        self.valid = true;
    }

    /// Loads block `index` when it is not loaded.
    fn enter(&mut self, meta: &Arc<Meta>, index: usize, direction: Direction) -> Result<(), DmuError> {
        if self.loaded == Some(index) {
            return Ok(());
        }
        let neighbour = match direction {
            Direction::Forward => index.checked_sub(1),
            Direction::Backward => Some(index + 1),
        };
        if self.loaded.is_some() && self.loaded != neighbour {
            self.followed = 0;
            self.window_bytes = SCAN_WINDOW_BYTES.0;
        }
        self.loaded = None;
        self.source = Source::None;
        let through_cache = match self.mode {
            ReadMode::Point => true,
            ReadMode::Scan => self.followed < SCAN_BYTES_CACHED,
            ReadMode::Stream | ReadMode::Merge => false,
        };
        let block = if through_cache {
            match direction {
                Direction::Forward if self.mode == ReadMode::Scan => {
                    Some(self.run.block_and_next(meta, index, SCAN_READ_BYTES)?)
                }
                _ => self.run.block(meta, index, Admission::Probation)?.clone(),
            }
        } else {
            meta.resident(index).clone()
        };
        if let Some(block) = block {
            self.shape = *block.view().shape;
            self.source = Source::Resident(block);
        } else {
            self.bring_window(meta, index, direction)?;
            self.enter_window(meta, index)?;
        }
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        key.extend_from_slice(self.view().prefix());
        self.key = key;
        self.followed += u64::from(meta.record(index).stored_len);
        self.loaded = Some(index);
        Ok(())
    }

    /// Takes the block from the window.
    fn enter_window(&mut self, meta: &Meta, index: usize) -> Result<(), DmuError> {
        let Some(window) = &self.window else { return Ok(()) };
        let checked = index.checked_sub(window.span.first).and_then(|place| window.shapes.get(place));
        if let Some(Some(shape)) = checked {
            self.shape = *shape;
            self.source = Source::Window;
            return Ok(());
        }
        let record = meta.record(index);
        let at = (record.offset - window.span.offset) as usize;
        let stored = &window.bytes[at..at + record.stored_len as usize];
        if self.run.check_stored(stored, record).is_err() {
            // Alone: other members of the vdev may have it.
            let (bytes, shape) = self.run.read_block(record)?;
            self.shape = shape;
            self.scratch = Some(bytes);
            self.source = Source::Scratch;
        } else if record.codec == Codec::None {
            self.shape = self.run.check_raw(&window.bytes, at, record)?;
            self.source = Source::Window;
        } else {
            let raw = self.run.decompress(stored, record)?;
            self.shape = self.run.check_raw(&raw, 0, record)?;
            self.scratch = Some(raw);
            self.source = Source::Scratch;
        }
        Ok(())
    }

    /// Makes the window contain block `index`, and starts to read the next one.
    fn bring_window(&mut self, meta: &Arc<Meta>, index: usize, direction: Direction) -> Result<(), DmuError> {
        if !self.window.as_ref().is_some_and(|window| window.span.contains(index)) {
            let ahead = self.ahead.take();
            self.window = Some(match ahead {
                Some((span, read)) if span.contains(index) => read.wait()?,
                _ => {
                    let span = self.plan(meta, index, direction);
                    self.grow();
                    Window::read(&self.run, meta, span)?
                }
            });
        }
        let span = self.window.as_ref().map(|window| window.span);
        let held_back = self.held_back.as_ref().is_some_and(|held| held.load(Ordering::Acquire));
        if self.ahead.is_none()
            && !held_back
            && let Some(next) = span.and_then(|span| next_missing(meta, span, direction))
        {
            let span = self.plan(meta, next, direction);
            self.grow();
            let (run, meta) = (Arc::clone(&self.run), Arc::clone(meta));
            let read = self.run.dmu().read_in_background(span.len, move || Window::read(&run, &meta, span));
            self.ahead = Some((span, read));
        }
        Ok(())
    }

    fn grow(&mut self) {
        self.window_bytes = (self.window_bytes * 2).min(SCAN_WINDOW_BYTES.1);
    }

    /// The window that starts (or backwards: ends) with block `index`: blocks that are not resident, up to its size.
    fn plan(&self, meta: &Meta, index: usize, direction: Direction) -> Span {
        let bytes_max = match self.mode {
            ReadMode::Merge => MERGE_WINDOW_BYTES as u64,
            ReadMode::Point | ReadMode::Scan | ReadMode::Stream => self.window_bytes as u64,
        };
        let (mut first, mut end) = (index, index + 1);
        loop {
            let (low, high, new) = match direction {
                Direction::Forward if end < meta.blocks() => (first, end, end),
                Direction::Backward if first > 0 => (first - 1, end - 1, first - 1),
                _ => break,
            };
            let len = meta.record(high).end() - meta.record(low).offset;
            if len > bytes_max || meta.resident(new).is_some() {
                break;
            }
            (first, end) = (low, high + 1);
        }
        let start = meta.record(first).offset / BLOCK_BYTES_U64 * BLOCK_BYTES_U64;
        let stop = round_up_to_block(meta.record(end - 1).end());
        Span { first, end, offset: start, len: (stop - start) as usize }
    }

    fn step(&mut self, direction: Direction) -> Result<(), DmuError> {
        self.valid = false;
        let (Some(meta), Some(block)) = (self.meta.clone(), self.loaded) else { return Ok(()) };
        match direction {
            Direction::Forward if block + 1 < meta.blocks() => {
                self.enter(&meta, block + 1, direction)?;
                self.place(0);
            }
            Direction::Backward if block > 0 => {
                self.enter(&meta, block - 1, direction)?;
                self.place(self.shape.count - 1);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The nearest block beyond `span` that is not resident.
fn next_missing(meta: &Meta, span: Span, direction: Direction) -> Option<usize> {
    let missing = |block: &usize| meta.resident(*block).is_none();
    match direction {
        Direction::Forward => (span.end..meta.blocks()).take(SKIP_MAX).find(missing),
        Direction::Backward => (0..span.first).rev().take(SKIP_MAX).find(missing),
    }
}

impl EntryCursor for RunCursor {
    fn seek(&mut self, key: &[u8]) -> Result<(), DmuError> {
        self.valid = false;
        let Some(meta) = self.meta()? else { return Ok(()) };
        let block = meta.find(key);
        meta.prefetch(block);
        self.enter(&meta, block, Direction::Forward)?;
        let entry = self.view().lower_bound(key);
        if entry < self.shape.count {
            self.place(entry);
            return Ok(());
        }
        self.step(Direction::Forward)
    }

    fn seek_before(&mut self, key: Option<&[u8]>) -> Result<(), DmuError> {
        self.valid = false;
        let Some(meta) = self.meta()? else { return Ok(()) };
        let block = key.map_or(meta.blocks() - 1, |key| meta.find_before(key));
        meta.prefetch(block);
        self.enter(&meta, block, Direction::Backward)?;
        let below = key.map_or(self.shape.count, |key| self.view().lower_bound(key));
        if below > 0 {
            self.place(below - 1);
            return Ok(());
        }
        self.step(Direction::Backward)
    }

    #[inline]
    fn next(&mut self) -> Result<(), DmuError> {
        if !self.valid {
            return Ok(());
        }
        if self.entry + 1 < self.shape.count {
            self.place_at(self.entry + 1, self.frame.end);
            return Ok(());
        }
        self.step(Direction::Forward)
    }

    fn prev(&mut self) -> Result<(), DmuError> {
        if !self.valid {
            return Ok(());
        }
        if self.entry > 0 {
            self.place(self.entry - 1);
            return Ok(());
        }
        self.step(Direction::Backward)
    }

    #[inline]
    fn entry(&self) -> Option<EntryRef<'_>> {
        self.valid.then(|| EntryRef {
            key: &self.key,
            sequence: self.frame.sequence,
            kind: tag_kind(self.frame.tag),
            preference: tag_preference(self.frame.tag),
            payload: &self.bytes()[self.frame.payload..self.frame.end],
        })
    }
}
