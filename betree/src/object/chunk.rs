//! Which bytes of an object are in which chunk, and the writes that change them.

use super::format::{CHUNK_BYTES, chunk_key};
use crate::base::preference::StoragePreference;
use crate::database::{PairWrite, Side};
use crate::tree::DefaultMessageAction;
use std::ops::Range;

/// Up to so many chunks are deleted one by one: a range delete is looked at by every read that comes near.
const SINGLE_DELETES_MAX: u64 = 4;

/// Bytes of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub chunk: u64,
    /// Where in the chunk they begin.
    pub offset: usize,
    /// Where they are in the buffer.
    pub range: Range<usize>,
}

impl Piece {
    /// Where in the object the chunk begins.
    pub fn start(&self) -> u64 {
        self.chunk * CHUNK_BYTES
    }

    /// Where in the object the piece ends.
    pub fn end(&self) -> u64 {
        self.start() + (self.offset + self.range.len()) as u64
    }
}

/// The pieces of `length` bytes at `offset`.
pub(super) fn pieces(offset: u64, length: usize) -> impl Iterator<Item = Piece> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == length {
            return None;
        }
        let position = offset + at as u64;
        let in_chunk = (position % CHUNK_BYTES) as usize;
        let take = (length - at).min(CHUNK_BYTES as usize - in_chunk);
        let piece = Piece { chunk: position / CHUNK_BYTES, offset: in_chunk, range: at..at + take };
        at += take;
        Some(piece)
    })
}

/// Chunks that `size` bytes have.
pub(super) fn chunk_count(size: u64) -> u64 {
    size.div_ceil(CHUNK_BYTES)
}

/// The writes that put `bytes` at `offset` of object `id`. `size` is that of the object, when nobody else writes to it: a part
/// of a chunk that covers all there is of it takes its place, as a whole chunk does.
pub(super) fn write<'a>(
    id: u64,
    bytes: &'a [u8],
    offset: u64,
    size: Option<u64>,
    preference: StoragePreference,
    writes: &mut Vec<PairWrite<'a>>,
) {
    for piece in pieces(offset, bytes.len()) {
        let (side, key, value) = (Side::Chunks, chunk_key(id, piece.chunk), &bytes[piece.range.clone()]);
        let covers = value.len() as u64 == CHUNK_BYTES
            || piece.offset == 0 && size.is_some_and(|size| size <= piece.end());
        writes.push(if covers {
            PairWrite::Put { side, key, value, preference }
        } else {
            let message = DefaultMessageAction::upsert_msg(piece.offset as u32, value);
            PairWrite::Upsert { side, key, message, preference }
        });
    }
}

/// The writes that remove the chunks of object `id` whose numbers are in `chunks`.
pub(super) fn remove(id: u64, chunks: Range<u64>, writes: &mut Vec<PairWrite<'_>>) {
    let side = Side::Chunks;
    if chunks.end.saturating_sub(chunks.start) <= SINGLE_DELETES_MAX {
        writes.extend(chunks.map(|chunk| PairWrite::Delete { side, key: chunk_key(id, chunk) }));
    } else {
        let (start, end) = (chunk_key(id, chunks.start), Some(chunk_key(id, chunks.end)));
        writes.push(PairWrite::RangeDelete { side, start, end });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_where_chunks_end() {
        let chunk = CHUNK_BYTES as usize;
        let all: Vec<Piece> = pieces(CHUNK_BYTES - 10, chunk + 20).collect();
        let piece = |chunk, offset, range| Piece { chunk, offset, range };
        assert_eq!(
            all,
            [piece(0, chunk - 10, 0..10), piece(1, 0, 10..chunk + 10), piece(2, 0, chunk + 10..chunk + 20)]
        );
        assert_eq!(pieces(5, 0).count(), 0);
        assert_eq!((chunk_count(0), chunk_count(1), chunk_count(CHUNK_BYTES)), (0, 1, 1));
    }

    #[test]
    fn whole_chunks_are_put_and_parts_are_upserted() {
        let bytes = vec![1; CHUNK_BYTES as usize + 10];
        let kinds = |offset, size| {
            let mut writes = Vec::new();
            write(1, &bytes, offset, size, StoragePreference::NONE, &mut writes);
            writes.iter().map(|write| matches!(write, PairWrite::Put { .. })).collect::<Vec<_>>()
        };
        assert_eq!(kinds(0, None), [true, false]);
        assert_eq!(kinds(0, Some(0)), [true, true]);
        assert_eq!(kinds(0, Some(CHUNK_BYTES + 11)), [true, false]);
        assert_eq!(kinds(5, Some(0)), [false, true]);
    }
}
