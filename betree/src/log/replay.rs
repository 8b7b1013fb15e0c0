//! Reading the log back: the chain, its end, and what to make of the end.

use super::format::{EXTENT_BLOCKS_MAX, FRAME_BLOCKS_MAX, FrameHeader, RECORD_HEADER_BYTES};
use super::{LogError, LogHead, RECORD_BYTES_MAX};
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::ids::{Uuid, VdevId};
use crate::base::units::BLOCK_BYTES;
use crate::dmu::Dmu;

/// What replay does after a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was applied: go on.
    Continue,
    /// It and all after it are the tail (a large value that it names never arrived): stop before it. Only for records
    /// that are not durable.
    Cut,
}

/// Why replay stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutReason {
    /// Nothing follows the last frame.
    End,
    /// Frames behind a hole, or a record whose end never arrived, were dropped: the crash fell into unsynced writes.
    Tail,
    /// The caller cut.
    Caller,
}

/// Where replay stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayEnd {
    /// The epoch replayed; a new log takes a higher one.
    pub epoch: u64,
    /// Position after the last record applied.
    pub lsn: u64,
    /// The highest position known to have been flushed.
    pub durable_lsn: u64,
    /// Why it stopped there.
    pub reason: CutReason,
}

/// Replays the log of pool `pool` from `head`.
///
/// First every frame is read and `mark` is called once for each extent of the log, the one named next included, so that
/// nothing is allocated there; the caller owns them from then on and gives them back when no superblock that may be
/// opened has its head in this log. Then the records are read again and handed to `apply` in order: bytes, position
/// after it, and whether it was durable. A record longer than
/// [`RECORD_BYTES_MAX`] is not believed.
///
/// # Errors
/// [`LogError::Damaged`] when something is missing that had been flushed; found before the first record is applied.
/// [`LogError::Corrupt`], device errors, and whatever `mark` and `apply` return.
pub fn replay<E: From<LogError>>(
    dmu: &Dmu,
    pool: Uuid,
    head: &LogHead,
    mut mark: impl FnMut(Extent) -> Result<(), E>,
    mut apply: impl FnMut(&[u8], u64, bool) -> Result<Verdict, E>,
) -> Result<ReplayEnd, E> {
    let mut reader = Reader { dmu, pool, epoch: head.epoch, window: None };

    // First pass: the chain to its end.
    let mut chain = Chain::new(head);
    mark(head.extent)?;
    let mut marked = head.extent;
    loop {
        if let Some(next) = chain.next
            && next != marked
        {
            mark(next)?;
            marked = next;
        }
        if chain.advance(&mut reader)?.is_none() {
            break;
        }
    }
    let end = chain.lsn;
    let (evidence, ignored) = search(&mut reader, &chain)?;
    let durable_lsn = evidence.max(chain.durable_lsn).max(head.durable_lsn);
    if durable_lsn > end {
        return Err(chain.damaged(dmu, durable_lsn).into());
    }

    // Second pass: the records.
    let mut chain = Chain::new(head);
    let mut records = Records { partial: Vec::new(), lsn: head.lsn };
    while chain.lsn < end {
        let Some(header) = chain.advance(&mut reader)? else {
            // The first pass read a good frame here: copies of one vdev may differ above `durable_lsn`.
            if durable_lsn > chain.lsn {
                return Err(chain.damaged(dmu, durable_lsn).into());
            }
            break;
        };
        let payload = reader.payload(&header);
        let illegal = |lsn| too_long(dmu, &header, lsn);
        if records.take(payload, durable_lsn, illegal, &mut apply)? == Verdict::Cut {
            return Ok(ReplayEnd {
                epoch: head.epoch,
                lsn: records.lsn,
                durable_lsn,
                reason: CutReason::Caller,
            });
        }
    }
    let tail = ignored || !records.partial.is_empty() || chain.lsn < end;
    let reason = if tail { CutReason::Tail } else { CutReason::End };
    Ok(ReplayEnd { epoch: head.epoch, lsn: records.lsn, durable_lsn, reason })
}

/// The extents of the log of pool `pool` from `head` on, as far as the first frame of each names the next. One block of each
/// is read, and nothing is checked beyond that: to keep them from being used again.
///
/// # Errors
/// Device errors.
pub fn extents_from(dmu: &Dmu, pool: Uuid, head: &LogHead) -> Result<Vec<Extent>, LogError> {
    let reader = Reader { dmu, pool, epoch: head.epoch, window: None };
    let mut extents = vec![head.extent];
    let (mut offset, mut lsn) = (head.offset, head.lsn);
    loop {
        let last = extents[extents.len() - 1];
        // Positions ascend: it ends.
        let later = |frame: &FrameHeader| frame.lsn >= lsn;
        let inside = offset < dmu.single_blocks(&last);
        let frame = if inside { reader.header(&last, offset, &later)? } else { None };
        let named = frame.as_ref().map(|frame| frame.next).or(head.next.filter(|_| extents.len() == 1));
        let Some(next) = named.filter(|next| !extents.contains(next)) else { return Ok(extents) };
        extents.push(next);
        offset = 0;
        if let Some(frame) = frame {
            lsn = frame.end_lsn();
        }
    }
}

/// Calls `each` with the records of the log of pool `pool` from `head` up to position `until`, in order, as far as frames
/// follow each other: what the log names, before it is known whether all of it would be replayed. Each frame is read once.
///
/// # Errors
/// Device errors, [`LogError::Corrupt`], and whatever `each` returns; records before it were visited.
pub fn records_before<E: From<LogError>>(
    dmu: &Dmu,
    pool: Uuid,
    head: &LogHead,
    until: u64,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = Reader { dmu, pool, epoch: head.epoch, window: None };
    let mut chain = Chain::new(head);
    let mut records = Records { partial: Vec::new(), lsn: head.lsn };
    while records.lsn < until
        && let Some(header) = chain.advance(&mut reader)?
    {
        let illegal = |lsn| too_long(dmu, &header, lsn);
        let mut visit = |record: &[u8], _end: u64, _durable: bool| each(record).map(|()| Verdict::Continue);
        records.take(reader.payload(&header), 0, illegal, &mut visit)?;
    }
    Ok(())
}

pub(super) fn too_long(dmu: &Dmu, header: &FrameHeader, lsn: u64) -> LogError {
    let device = device_name(dmu, header.vdev);
    LogError::Corrupt { device, block: header.block, lsn, reason: "longer than the limit" }
}

/// A position in the chain of frames.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub extent: Extent,
    /// Named by the frames of `extent`.
    pub next: Option<Extent>,
    /// Block of the next frame, from the start of `extent`.
    pub offset: u32,
    pub lsn: u64,
    previous: u32,
    /// Highest in the frames passed.
    pub durable_lsn: u64,
}

impl Chain {
    pub fn new(head: &LogHead) -> Self {
        Self {
            extent: head.extent,
            next: head.next,
            offset: head.offset,
            lsn: head.lsn,
            previous: head.previous,
            durable_lsn: 0,
        }
    }

    /// Reads the next frame; `None` when there is none that continues the chain.
    pub fn advance(&mut self, reader: &mut Reader<'_>) -> Result<Option<FrameHeader>, LogError> {
        if self.offset >= reader.dmu.single_blocks(&self.extent) {
            let Some(next) = self.next.take() else { return Ok(None) };
            self.extent = next;
            self.offset = 0;
        }
        let fits = |header: &FrameHeader| {
            header.lsn == self.lsn
                && header.previous == self.previous
                && self.next.is_none_or(|next| next == header.next)
        };
        let frame = reader.frame(&self.extent, self.offset, &fits)?;
        let Some((header, checksum)) = frame else { return Ok(None) };
        self.next = Some(header.next);
        self.offset += header.blocks;
        self.lsn = header.end_lsn();
        self.previous = checksum;
        self.durable_lsn = self.durable_lsn.max(header.durable_lsn);
        Ok(Some(header))
    }

    fn damaged(&self, dmu: &Dmu, durable_lsn: u64) -> LogError {
        LogError::Damaged {
            device: device_name(dmu, self.extent.vdev),
            block: dmu.single_block(&self.extent, self.offset),
            lsn: self.lsn,
            durable_lsn,
        }
    }
}

/// Looks for frames of this log behind the end of `chain`, in the rest of its extent and in those that are named from
/// there on. Returns the highest position that one of them knows flushed, and whether there is any.
pub(super) fn search(reader: &mut Reader<'_>, chain: &Chain) -> Result<(u64, bool), LogError> {
    let (mut durable_lsn, mut found_any) = (0, false);
    let (mut extent, mut next, mut offset) = (chain.extent, chain.next, chain.offset);
    // Each step goes on only from frames that start later in the stream than all before: it ends.
    let mut from = chain.lsn;
    loop {
        let mut found = false;
        while offset < reader.dmu.single_blocks(&extent) {
            // An earlier position: from an earlier use of the extent in the same epoch.
            match reader.frame(&extent, offset, &|header| header.lsn >= from)? {
                Some((header, _)) => {
                    found = true;
                    from = header.end_lsn();
                    durable_lsn = durable_lsn.max(header.durable_lsn);
                    next = Some(header.next);
                    offset += header.blocks;
                }
                None => offset += 1,
            }
        }
        found_any |= found;
        let first = extent == chain.extent;
        match next.take() {
            Some(named) if found || first => (extent, offset) = (named, 0),
            _ => return Ok((durable_lsn, found_any)),
        }
    }
}

/// Reads frames through a window, because most frames are short.
pub(super) struct Reader<'a> {
    pub dmu: &'a Dmu,
    pub pool: Uuid,
    pub epoch: u64,
    pub window: Option<Window>,
}

pub(super) struct Window {
    extent: Extent,
    /// First block, from the start of the extent.
    offset: u32,
    /// Its block on the vdev, and how many blocks of the vdev each one takes.
    block: u64,
    step: u64,
    buffer: AlignedBuffer,
    /// Which blocks have copies that differ, when somebody asked.
    differing: Option<Vec<bool>>,
}

impl Reader<'_> {
    /// The frame of this log at block `offset` of `extent` that `fits`, with its checksum; `None` when there is no intact one,
    /// on whatever member of the vdev.
    ///
    /// # Errors
    /// Device errors: what cannot be read is neither tail nor damage.
    fn frame(
        &mut self,
        extent: &Extent,
        offset: u32,
        fits: &dyn Fn(&FrameHeader) -> bool,
    ) -> Result<Option<(FrameHeader, u32)>, LogError> {
        let mut count = 1;
        let failed = match self.blocks(extent, offset, 1).map(FrameHeader::decode) {
            Ok(Ok((header, checksum))) if self.is_ours(&header, extent, offset) => {
                count = header.blocks;
                match self.blocks(extent, offset, count) {
                    Ok(frame) if header.is_intact(checksum, frame) && fits(&header) => {
                        return Ok(Some((header, checksum)));
                    }
                    Ok(_) => None,
                    Err(error) => Some(error),
                }
            }
            Ok(_) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = failed {
            // A member that does not hold everything may well hold this.
            if self.dmu.is_redundant(extent.vdev)
                && let Some(found) = self.recover(extent, offset, fits)?
            {
                return Ok(Some(found));
            }
            return Err(error);
        }
        match self.differs(extent, offset, count)? {
            true => self.recover(extent, offset, fits),
            false => Ok(None),
        }
    }

    /// The frame at block `offset` of `extent`, put together from what the members of the vdev hold.
    #[cold]
    fn recover(
        &mut self,
        extent: &Extent,
        offset: u32,
        fits: &dyn Fn(&FrameHeader) -> bool,
    ) -> Result<Option<(FrameHeader, u32)>, LogError> {
        let mut found: Vec<(FrameHeader, u32)> = Vec::new();
        let mut first = AlignedBuffer::zeroed(BLOCK_BYTES);
        self.dmu.recover_singles(extent, offset, &mut first, &mut |bytes| {
            if let Ok((header, checksum)) = FrameHeader::decode(bytes)
                && self.is_ours(&header, extent, offset)
                && fits(&header)
                && !found.contains(&(header, checksum))
            {
                found.push((header, checksum));
            }
            false
        })?;
        for (header, checksum) in found {
            let mut frame = AlignedBuffer::zeroed(header.blocks as usize * BLOCK_BYTES);
            let right = self.dmu.recover_singles(extent, offset, &mut frame, &mut |bytes| {
                FrameHeader::decode(bytes).is_ok_and(|found| found == (header, checksum))
                    && header.is_intact(checksum, bytes)
            })?;
            if right {
                self.put(extent, offset, frame);
                return Ok(Some((header, checksum)));
            }
        }
        Ok(None)
    }

    fn is_ours(&self, header: &FrameHeader, extent: &Extent, offset: u32) -> bool {
        let blocks = self.dmu.single_blocks(extent);
        header.pool == self.pool
            && header.epoch == self.epoch
            && header.vdev == extent.vdev
            && header.block == self.dmu.single_block(extent, offset)
            && header.blocks <= blocks.saturating_sub(offset)
    }

    /// The header of the frame of this log at block `offset` of `extent` that `fits`, its payload unread.
    fn header(
        &self,
        extent: &Extent,
        offset: u32,
        fits: &dyn Fn(&FrameHeader) -> bool,
    ) -> Result<Option<FrameHeader>, LogError> {
        let read = self.dmu.read_singles(extent, offset, 1);
        let mut found = None;
        let mut is_right = |bytes: &[u8]| {
            let header = FrameHeader::decode(bytes).ok().map(|(header, _)| header);
            found = header.filter(|header| self.is_ours(header, extent, offset) && fits(header));
            found.is_some()
        };
        match read {
            Ok(mut bytes) => {
                if !is_right(&bytes) && self.dmu.differing_singles(extent, offset, 1)? == [true] {
                    self.dmu.recover_singles(extent, offset, &mut bytes, &mut is_right)?;
                }
            }
            Err(error) => {
                let mut bytes = AlignedBuffer::zeroed(BLOCK_BYTES);
                if !self.dmu.is_redundant(extent.vdev)
                    || !self.dmu.recover_singles(extent, offset, &mut bytes, &mut is_right)?
                {
                    return Err(error.into());
                }
            }
        }
        Ok(found)
    }

    /// The payload of the frame that was read last.
    pub fn payload(&self, header: &FrameHeader) -> &[u8] {
        let at = |window: &Window| {
            let ahead =
                header.block.checked_sub(window.block).filter(|_| header.vdev == window.extent.vdev)?;
            let offset = window.offset + (ahead / window.step) as u32;
            window.holds(&window.extent, offset, header.blocks).then_some(offset)
        };
        let window = self.window.as_ref().and_then(|window| Some((window, at(window)?)));
        let Some((window, offset)) = window else { unreachable!("the frame was just read") };
        &window.at(offset)[header.payload()]
    }

    fn blocks(&mut self, extent: &Extent, offset: u32, count: u32) -> Result<&[u8], LogError> {
        let held = self.window.as_ref().is_some_and(|window| window.holds(extent, offset, count));
        if !held {
            self.window = None;
            let ahead = (self.dmu.single_blocks(extent).saturating_sub(offset)).min(FRAME_BLOCKS_MAX);
            let read = |blocks: u32| self.dmu.read_singles(extent, offset, blocks);
            // A bad sector further on must not spoil what stands before it.
            let buffer = read(ahead.max(count)).or_else(|_| read(count))?;
            self.window = Some(self.window_of(extent, offset, buffer));
        }
        let Some(window) = &self.window else { unreachable!("the window was just filled") };
        Ok(&window.at(offset)[..count as usize * BLOCK_BYTES])
    }

    fn window_of(&self, extent: &Extent, offset: u32, buffer: AlignedBuffer) -> Window {
        let block = self.dmu.single_block(extent, offset);
        let step = self.dmu.single_block(extent, 1) - extent.block;
        Window { extent: *extent, offset, block, step, buffer, differing: None }
    }

    /// Puts what was found right into the window.
    fn put(&mut self, extent: &Extent, offset: u32, frame: AlignedBuffer) {
        let count = (frame.len() / BLOCK_BYTES) as u32;
        match &mut self.window {
            Some(window) if window.holds(extent, offset, count) => {
                let start = (offset - window.offset) as usize * BLOCK_BYTES;
                window.buffer[start..start + frame.len()].copy_from_slice(&frame);
            }
            _ => self.window = Some(self.window_of(extent, offset, frame)),
        }
    }

    /// Whether members of the vdev hold different things in `count` blocks from `offset` of `extent`.
    pub fn differs(&mut self, extent: &Extent, offset: u32, count: u32) -> Result<bool, LogError> {
        let Some(window) = &mut self.window else { return Ok(false) };
        if !window.holds(extent, offset, count) {
            return Ok(self.dmu.differing_singles(extent, offset, count)?.contains(&true));
        }
        if window.differing.is_none() {
            let blocks = (window.buffer.len() / BLOCK_BYTES) as u32;
            window.differing = Some(self.dmu.differing_singles(extent, window.offset, blocks)?);
        }
        let start = (offset - window.offset) as usize;
        let differing = window.differing.as_ref().and_then(|all| all.get(start..start + count as usize));
        Ok(differing.is_some_and(|found| found.contains(&true)))
    }
}

impl Window {
    fn holds(&self, extent: &Extent, offset: u32, count: u32) -> bool {
        let end = self.offset + (self.buffer.len() / BLOCK_BYTES) as u32;
        self.extent == *extent && self.offset <= offset && offset.saturating_add(count) <= end
    }

    fn at(&self, offset: u32) -> &[u8] {
        &self.buffer[(offset - self.offset) as usize * BLOCK_BYTES..]
    }
}

/// Records put together from payloads.
pub(super) struct Records {
    /// The start of a record that goes on in the next frame. Grows as frames arrive, never by a length read.
    pub partial: Vec<u8>,
    /// Position after the last record applied.
    pub lsn: u64,
}

impl Records {
    pub fn take<E: From<LogError>>(
        &mut self,
        mut payload: &[u8],
        durable_lsn: u64,
        illegal: impl Fn(u64) -> LogError,
        apply: &mut impl FnMut(&[u8], u64, bool) -> Result<Verdict, E>,
    ) -> Result<Verdict, E> {
        while !payload.is_empty() {
            if self.partial.is_empty() {
                // The usual record lies in one frame and is not copied.
                if let Some(prefix) = payload.first_chunk() {
                    let whole = Self::wanted(prefix).ok_or_else(|| illegal(self.lsn))?;
                    if let Some((record, rest)) = payload.split_at_checked(whole) {
                        let end = self.lsn + whole as u64;
                        if apply(&record[RECORD_HEADER_BYTES..], end, end <= durable_lsn)? == Verdict::Cut {
                            return Ok(Verdict::Cut);
                        }
                        (self.lsn, payload) = (end, rest);
                        continue;
                    }
                }
                self.partial.extend_from_slice(payload);
                break;
            }
            // First the length, then the rest.
            let whole = match self.partial.first_chunk() {
                Some(prefix) => Self::wanted(prefix).ok_or_else(|| illegal(self.lsn))?,
                None => RECORD_HEADER_BYTES,
            };
            let (start, rest) = payload.split_at((whole - self.partial.len()).min(payload.len()));
            self.partial.extend_from_slice(start);
            payload = rest;
            let Some(prefix) = self.partial.first_chunk() else { continue };
            let whole = Self::wanted(prefix).ok_or_else(|| illegal(self.lsn))?;
            if self.partial.len() == whole {
                let end = self.lsn + whole as u64;
                if apply(&self.partial[RECORD_HEADER_BYTES..], end, end <= durable_lsn)? == Verdict::Cut {
                    return Ok(Verdict::Cut);
                }
                self.lsn = end;
                self.partial.clear();
            }
        }
        Ok(Verdict::Continue)
    }

    /// Bytes of the record with this length, the length included; `None` above the limit.
    fn wanted(prefix: &[u8; RECORD_HEADER_BYTES]) -> Option<usize> {
        let length = u32::from_le_bytes(*prefix) as usize;
        (length <= RECORD_BYTES_MAX).then_some(RECORD_HEADER_BYTES + length)
    }
}

fn device_name(dmu: &Dmu, vdev: VdevId) -> String {
    dmu.pool().vdev(vdev).map_or_else(|_| format!("vdev {vdev}"), |found| found.name())
}

const _: () = assert!(FRAME_BLOCKS_MAX <= EXTENT_BLOCKS_MAX);
