//! The record stream laid out in frames and extents: the part of the log that does no I/O.

use super::LogHead;
use super::format::{FrameHeader, HEADER_BYTES};
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::ids::{Uuid, VdevId};
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use std::collections::VecDeque;

/// An extent of the log that was not given back.
#[derive(Debug)]
struct LiveExtent {
    extent: Extent,
    /// Blocks of the log that it holds.
    blocks: u32,
    /// Blocks of the epoch's extents before it.
    start: u64,
}

/// The frame that records are copied into. It stands at the current offset and may grow to the length of its buffer.
#[derive(Debug)]
struct OpenFrame {
    buffer: AlignedBuffer,
    /// Bytes in use, header included.
    filled: usize,
}

/// A frame that is ready to be written.
#[derive(Debug)]
pub(super) struct SealedFrame {
    pub buffer: AlignedBuffer,
    /// The extent it lies in.
    pub extent: Extent,
    /// First block, from the start of the extent.
    pub offset: u32,
    /// Position of its payload in the stream.
    pub lsn: u64,
}

/// Layout of the stream: which extents, where the next frame goes, and the frame being filled.
#[derive(Debug)]
pub(super) struct Frames {
    pool: Uuid,
    epoch: u64,
    /// Longest frame in blocks.
    frame_blocks: u32,
    /// Oldest first. The one after `extents[current]` is there whenever a frame is open or in `extents[current]`.
    extents: VecDeque<LiveExtent>,
    current: usize,
    /// Blocks of `extents[current]` that sealed frames fill.
    offset: u32,
    /// Checksum of the last sealed frame.
    previous: u32,
    open: Option<OpenFrame>,
    /// Bytes put into the stream.
    position: u64,
}

impl Frames {
    /// The empty stream of `epoch`, in frames of at most `frame_blocks` blocks, laid out from the first of `extents`.
    pub fn new(pool: Uuid, epoch: u64, frame_blocks: u32, extents: &[(Extent, u32)]) -> Self {
        let mut frames = Self {
            pool,
            epoch,
            frame_blocks,
            extents: VecDeque::new(),
            current: 0,
            offset: 0,
            previous: 0,
            open: None,
            position: 0,
        };
        frames.add_extents(extents);
        frames
    }

    /// Appends to the extents that will be filled; with each the blocks of the log that it holds.
    pub fn add_extents(&mut self, extents: &[(Extent, u32)]) {
        for (extent, blocks) in extents {
            let start = self.extents.back().map_or(0, |last| last.start + u64::from(last.blocks));
            self.extents.push_back(LiveExtent { extent: *extent, blocks: *blocks, start });
        }
    }

    /// Takes back the last `count` extents, which no frame names yet.
    pub fn remove_extents(&mut self, count: usize) -> Vec<Extent> {
        let keep = self.extents.len() - count;
        self.extents.drain(keep..).map(|live| live.extent).collect()
    }

    /// Bytes put into the stream.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Position up to which the stream is in sealed frames.
    pub fn sealed_lsn(&self) -> u64 {
        self.position - self.open.as_ref().map_or(0, |open| (open.filled - HEADER_BYTES) as u64)
    }

    /// Bytes that the open frame still takes.
    #[inline]
    pub fn room(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.buffer.len() - open.filled)
    }

    /// Whether `bytes` more bytes than the open frame takes fit into the extents, each frame naming an extent after
    /// its own.
    pub fn has_space(&self, bytes: u64) -> bool {
        let open_blocks = self.open.as_ref().map_or(0, |open| (open.buffer.len() / BLOCK_BYTES) as u32);
        let mut skip = self.offset + open_blocks;
        let mut capacity = 0;
        // The last extent cannot be filled: nothing could be named after it.
        for live in self.extents.range(self.current..self.extents.len() - 1) {
            let blocks = u64::from(live.blocks - skip);
            let frames = blocks.div_ceil(u64::from(self.frame_blocks));
            capacity += blocks * BLOCK_BYTES_U64 - frames * HEADER_BYTES as u64;
            if capacity >= bytes {
                return true;
            }
            skip = 0;
        }
        capacity >= bytes
    }

    /// Copies as much of `bytes` as the open frame takes (at least one byte) and returns how much that was; opens a
    /// frame when there is none, for which [`Frames::has_space`] must have been asked.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        if self.open.is_none() {
            self.open_frame();
        }
        let Some(open) = &mut self.open else { unreachable!("a frame was just opened") };
        let take = bytes.len().min(open.buffer.len() - open.filled);
        open.buffer[open.filled..open.filled + take].copy_from_slice(&bytes[..take]);
        open.filled += take;
        self.position += take as u64;
        take
    }

    /// Whether the open frame takes no more.
    pub fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.filled == open.buffer.len())
    }

    fn open_frame(&mut self) {
        self.step();
        assert!(self.current + 1 < self.extents.len(), "space is secured before bytes are put");
        let left = self.extents[self.current].blocks - self.offset;
        let blocks = left.min(self.frame_blocks) as usize;
        self.open =
            Some(OpenFrame { buffer: AlignedBuffer::recycled(blocks * BLOCK_BYTES), filled: HEADER_BYTES });
    }

    /// Moves from a full extent to the next.
    fn step(&mut self) {
        if self.offset == self.extents[self.current].blocks && self.current + 1 < self.extents.len() {
            self.current += 1;
            self.offset = 0;
        }
    }

    /// Closes the open frame, if there is one; `durable_lsn` goes into its header.
    pub fn seal(&mut self, durable_lsn: u64) -> Option<SealedFrame> {
        let lsn = self.sealed_lsn();
        let OpenFrame { mut buffer, filled } = self.open.take()?;
        let LiveExtent { extent, blocks: held, .. } = self.extents[self.current];
        let blocks = filled.div_ceil(BLOCK_BYTES) as u32;
        buffer.truncate(blocks as usize * BLOCK_BYTES);
        buffer[filled..].fill(0);
        let header = FrameHeader {
            pool: self.pool,
            epoch: self.epoch,
            lsn,
            durable_lsn,
            vdev: extent.vdev,
            // Each block takes as many as its stripe.
            block: extent.block + u64::from(self.offset) * u64::from(extent.blocks / held.max(1)),
            blocks,
            payload_bytes: (filled - HEADER_BYTES) as u32,
            previous: self.previous,
            next: self.extents[self.current + 1].extent,
        };
        self.previous = header.seal(&mut buffer);
        let offset = self.offset;
        self.offset += blocks;
        Some(SealedFrame { buffer, extent, offset, lsn })
    }

    /// Where the next frame will start. No frame may be open.
    pub fn head(&mut self, durable_lsn: u64) -> LogHead {
        assert!(self.open.is_none(), "a head stands between frames");
        self.step();
        LogHead {
            epoch: self.epoch,
            lsn: self.position,
            durable_lsn,
            extent: self.extents[self.current].extent,
            next: self.extents.get(self.current + 1).map(|live| live.extent),
            offset: self.offset,
            previous: self.previous,
        }
    }

    /// Number of extents that lie wholly before `head`; 0 for a head of another epoch or of an extent given back.
    pub fn count_before(&self, head: &LogHead) -> usize {
        if head.epoch != self.epoch {
            return 0;
        }
        self.extents.range(..=self.current).position(|live| live.extent == head.extent).unwrap_or(0)
    }

    /// Takes the oldest `count` extents out.
    pub fn take_oldest(&mut self, count: usize) -> Vec<Extent> {
        assert!(count <= self.current, "the extent being filled is never given back");
        self.current -= count;
        self.extents.drain(..count).map(|live| live.extent).collect()
    }

    /// All extents, oldest first.
    pub fn extents(&self) -> Vec<Extent> {
        self.extents.iter().map(|live| live.extent).collect()
    }

    /// Whether frames that come are to lie on `vdev`, or name an extent there.
    pub fn stands_on(&self, vdev: VdevId) -> bool {
        let is_full = self.open.is_none() && self.offset == self.extents[self.current].blocks;
        let first = self.current + usize::from(is_full && self.current + 1 < self.extents.len());
        self.extents.range(first..).any(|live| live.extent.vdev == vdev)
    }

    /// Bytes on devices from `head` to the end of the open frame; from the oldest extent when `head` is none of ours.
    pub fn bytes_since(&self, head: &LogHead) -> u64 {
        let start = match self.extents.iter().find(|live| live.extent == head.extent) {
            Some(live) if head.epoch == self.epoch => live.start + u64::from(head.offset),
            _ => self.extents[0].start,
        };
        let open = self.open.as_ref().map_or(0, |open| open.filled.div_ceil(BLOCK_BYTES) as u64);
        let end = self.extents[self.current].start + u64::from(self.offset) + open;
        end.saturating_sub(start) * BLOCK_BYTES_U64
    }
}
