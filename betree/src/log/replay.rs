//! Reading the log back: the chain, its end, and what to make of the end.

use super::format::{EXTENT_BLOCKS_MAX, FRAME_BLOCKS_MAX, FrameHeader, RECORD_HEADER_BYTES};
use super::{LogError, LogHead, RECORD_BYTES_MAX};
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::ids::{Uuid, VdevId};
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
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
        let frame = if offset < last.blocks { reader.header(&last, offset)? } else { None };
        // Positions ascend: it ends.
        let frame = frame.filter(|frame| frame.lsn >= lsn);
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
        if self.offset >= self.extent.blocks {
            let Some(next) = self.next.take() else { return Ok(None) };
            self.extent = next;
            self.offset = 0;
        }
        let Some((header, checksum)) = reader.frame(&self.extent, self.offset)? else { return Ok(None) };
        let fits = header.lsn == self.lsn
            && header.previous == self.previous
            && self.next.is_none_or(|next| next == header.next);
        if !fits {
            return Ok(None);
        }
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
            block: self.extent.block + u64::from(self.offset),
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
        while offset < extent.blocks {
            match reader.frame(&extent, offset)? {
                // An earlier position: from an earlier use of the extent in the same epoch.
                Some((header, _)) if header.lsn >= from => {
                    found = true;
                    from = header.end_lsn();
                    durable_lsn = durable_lsn.max(header.durable_lsn);
                    next = Some(header.next);
                    offset += header.blocks;
                }
                _ => offset += 1,
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
    vdev: VdevId,
    block: u64,
    buffer: AlignedBuffer,
}

impl Reader<'_> {
    /// The frame of this log at block `offset` of `extent`, with its checksum; `None` when there is no intact one.
    ///
    /// # Errors
    /// Device errors: what cannot be read is neither tail nor damage.
    fn frame(&mut self, extent: &Extent, offset: u32) -> Result<Option<(FrameHeader, u32)>, LogError> {
        let Ok((header, checksum)) = FrameHeader::decode(self.blocks(extent, offset, 1)?) else {
            return Ok(None);
        };
        if !self.is_ours(&header, extent, offset) {
            return Ok(None);
        }
        let frame = self.blocks(extent, offset, header.blocks)?;
        Ok(header.is_intact(checksum, frame).then_some((header, checksum)))
    }

    fn is_ours(&self, header: &FrameHeader, extent: &Extent, offset: u32) -> bool {
        header.pool == self.pool
            && header.epoch == self.epoch
            && header.vdev == extent.vdev
            && header.block == extent.block + u64::from(offset)
            && header.blocks <= extent.blocks - offset
    }

    /// The header of the frame of this log at block `offset` of `extent`, its payload unread.
    fn header(&self, extent: &Extent, offset: u32) -> Result<Option<FrameHeader>, LogError> {
        let bytes = self.dmu.read(&[*extent], u64::from(offset) * BLOCK_BYTES_U64, BLOCK_BYTES)?;
        let header = FrameHeader::decode(&bytes).ok().map(|(header, _)| header);
        Ok(header.filter(|header| self.is_ours(header, extent, offset)))
    }

    /// The payload of the frame that was read last.
    pub fn payload(&self, header: &FrameHeader) -> &[u8] {
        let window =
            self.window.as_ref().filter(|window| window.holds(header.vdev, header.block, header.blocks));
        let Some(window) = window else { unreachable!("the frame was just read") };
        &window.at(header.block)[header.payload()]
    }

    fn blocks(&mut self, extent: &Extent, offset: u32, count: u32) -> Result<&[u8], LogError> {
        let block = extent.block + u64::from(offset);
        let held = self.window.as_ref().is_some_and(|window| window.holds(extent.vdev, block, count));
        if !held {
            self.window = None;
            let ahead = (extent.blocks - offset).min(FRAME_BLOCKS_MAX);
            let read = |blocks: u32| {
                self.dmu.read(&[*extent], u64::from(offset) * BLOCK_BYTES_U64, blocks as usize * BLOCK_BYTES)
            };
            // A bad sector further on must not spoil what stands before it.
            let buffer = read(ahead).or_else(|_| read(count))?;
            self.window = Some(Window { vdev: extent.vdev, block, buffer });
        }
        let Some(window) = &self.window else { unreachable!("the window was just filled") };
        Ok(&window.at(block)[..count as usize * BLOCK_BYTES])
    }
}

impl Window {
    fn holds(&self, vdev: VdevId, block: u64, count: u32) -> bool {
        let end = self.block + (self.buffer.len() / BLOCK_BYTES) as u64;
        self.vdev == vdev && self.block <= block && block + u64::from(count) <= end
    }

    fn at(&self, block: u64) -> &[u8] {
        &self.buffer[(block - self.block) as usize * BLOCK_BYTES..]
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
    dmu.pool().vdev(vdev).map_or_else(|_| format!("vdev {vdev}"), |found| found.device.name().to_owned())
}

const _: () = assert!(FRAME_BLOCKS_MAX <= EXTENT_BLOCKS_MAX);
