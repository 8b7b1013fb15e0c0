//! Records, bytes and lists of one state of a store.

use super::chunk::pieces;
use super::chunks::Chunks;
use super::format::{CHUNK_BYTES, ObjectRecord, chunk_key, custom_key, name_key};
use super::metadata::MetadataEntries;
use super::read_ahead::ReadAhead;
use super::state::decode_record;
use crate::database::{BegunRead, DatasetView, PendingReadAhead, ReadQueue, Result};
use crate::tree::{PartRead, Value};
use std::collections::VecDeque;

/// Chunks that are asked for ahead of the one that is waited for.
const CHUNKS_AHEAD: usize = 8;

/// Bytes of `buffer` for which the object has some at `offset`.
fn length_at(record: &ObjectRecord, buffer: &[u8], offset: u64) -> usize {
    let left = record.size.saturating_sub(offset);
    buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX))
}

/// One state of both datasets.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub metadata: DatasetView,
    pub chunks: DatasetView,
}

impl Reader {
    pub fn record(&self, name: &[u8]) -> Result<Option<ObjectRecord>> {
        let value = self.metadata.get(name_key(name))?;
        value.map(|value| decode_record(name, &value)).transpose()
    }

    /// As [`Reader::read`], for a reader whose reads `ahead` follows.
    pub fn read_in_stream(
        &self,
        record: &ObjectRecord,
        buffer: &mut [u8],
        offset: u64,
        ahead: &ReadAhead,
    ) -> Result<usize> {
        let length = length_at(record, buffer, offset);
        ahead.follow(self, record, offset..offset + length as u64);
        self.read(record, buffer, offset)
    }

    /// Reads from `offset` on into `buffer`; returns how many bytes the object has there.
    pub fn read(&self, record: &ObjectRecord, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let length = length_at(record, buffer, offset);
        let mut rest = &mut buffer[..length];
        let mut coming = VecDeque::new();
        let mut ahead = pieces(offset, length).skip(1);
        for piece in pieces(offset, length) {
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(piece.range.len());
            rest = behind;
            while coming.len() < CHUNKS_AHEAD
                && let Some(next) = ahead.next()
            {
                let (key, at) = (chunk_key(record.id, next.chunk), next.offset as u64);
                coming.push_back(self.chunks.get_part_in_background(key, at, next.range.len()));
            }
            if piece.range.start == 0 {
                // The others are under way meanwhile.
                let key = chunk_key(record.id, piece.chunk);
                let read = self.chunks.get_part(key, piece.offset as u64, part)?;
                part[read.map_or(0, |read| read.filled)..].fill(0);
            } else if let Some(pending) = coming.pop_front() {
                let bytes = pending.wait()?.unwrap_or_default();
                part[..bytes.len()].copy_from_slice(&bytes);
                part[bytes.len()..].fill(0);
            }
        }
        Ok(length)
    }

    /// Begins to read from `offset` on into `buffer`, when that is in one chunk and goes on with no stream.
    pub fn begin(
        &self,
        record: &ObjectRecord,
        queue: &mut ReadQueue,
        buffer: &mut [u8],
        offset: u64,
        tag: u64,
        ahead: &ReadAhead,
    ) -> Result<BegunRead> {
        let length = length_at(record, buffer, offset);
        let mut pieces = pieces(offset, length);
        let (Some(piece), None) = (pieces.next(), pieces.next()) else { return Ok(BegunRead::Waits) };
        if !ahead.passes(offset..offset + length as u64) {
            return Ok(BegunRead::Waits);
        }
        let told = PartRead { filled: length, value_length: record.size };
        let (key, at) = (chunk_key(record.id, piece.chunk), piece.offset as u64);
        queue.begin_in(&self.chunks, &key, at, &mut buffer[..length], tag, Some(told))
    }

    /// Starts to bring `length` bytes of object `id` from byte `offset` on, all in one chunk, into the cache.
    pub fn read_ahead(&self, id: u64, offset: u64, length: usize) -> PendingReadAhead {
        self.chunks.read_ahead(chunk_key(id, offset / CHUNK_BYTES), offset % CHUNK_BYTES, length)
    }

    /// All bytes of an object.
    pub fn read_all(&self, record: &ObjectRecord) -> Result<Vec<u8>> {
        let size = usize::try_from(record.size).unwrap_or(usize::MAX);
        let too_large = crate::database::Error::TooLarge {
            what: "object to be read at once",
            length: record.size,
            limit: isize::MAX as u64,
        };
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).map_err(|_| too_large)?;
        bytes.resize(size, 0);
        self.read(record, &mut bytes, 0)?;
        Ok(bytes)
    }

    /// The chunks of an object that are there, of the numbers from `first` to before `end`.
    pub fn chunks_of(&self, record: &ObjectRecord, first: u64, end: u64) -> Chunks {
        let (low, high) = (chunk_key(record.id, first), chunk_key(record.id, end.max(first)));
        Chunks::new(self.chunks.range(low..high), record.size)
    }

    pub fn metadata_of(&self, record: &ObjectRecord, key: &[u8]) -> Result<Option<Value>> {
        self.metadata.get(custom_key(record.id, key))
    }

    pub fn all_metadata_of(&self, record: &ObjectRecord) -> MetadataEntries {
        MetadataEntries::new(self.metadata.prefix(custom_key(record.id, b"")))
    }
}
