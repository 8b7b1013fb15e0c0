//! Values: what a read returns, and large values in extents of their own.

use super::TreeError;
use crate::base::buffer::{AlignedBuffer, footprint};
use crate::base::checksum::crc;
use crate::base::codec::{DecodeError, Decoder, Encoder};
use crate::base::extent::{Extent, total_blocks};
use crate::base::ids::Generation;
use crate::base::planted::{Bug, planted};
use crate::base::preference::StoragePreference;
use crate::base::units::{BLOCK_BYTES, blocks_for};
use crate::dmu::{Admission, Charge, Dmu, DmuError, Piece, Privilege, Reading, Stream};
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};
use std::sync::Arc;

/// The bytes of a key or value. Cloning is cheap, and it borrows nothing from the database.
///
/// Key and value of an entry that a range returned share one allocation: it lives as long as either of them.
#[derive(Clone)]
pub struct Value {
    bytes: Arc<[u8]>,
    range: Range<usize>,
}

impl Value {
    /// Copies of a key and a value in one allocation; `scratch` is used on the way.
    pub(super) fn pair(key: &[u8], value: &[u8], scratch: &mut Vec<u8>) -> (Self, Self) {
        scratch.clear();
        scratch.extend_from_slice(key);
        scratch.extend_from_slice(value);
        let bytes: Arc<[u8]> = scratch.as_slice().into();
        let value = Self { bytes: Arc::clone(&bytes), range: key.len()..scratch.len() };
        (Self { bytes, range: 0..key.len() }, value)
    }
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

impl AsRef<[u8]> for Value {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), range: 0..bytes.len() }
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { bytes: bytes.into(), range }
    }
}

impl Eq for Value {}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Value {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

/// Bytes of a large value that one checksum covers, so that a part can be read without the rest.
pub const CHECKSUM_CHUNK_BYTES: usize = 16 << 10;

/// Bytes of a large value that one request reads, or writes.
const READ_BYTES_MAX: usize = 1 << 20;
const WRITE_BYTES_MAX: usize = 1 << 20;

/// `bytes` and zeros up to a block.
fn whole_blocks(bytes: &[u8]) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::recycled(bytes.len().next_multiple_of(BLOCK_BYTES));
    buffer[..bytes.len()].copy_from_slice(bytes);
    buffer[bytes.len()..].fill(0);
    buffer
}

/// A part up to this length stays in the cache for a while.
const CACHED_PART_BYTES_MAX: usize = 64 << 10;

/// A value up to this length that is read for its own sake stays in the cache for a while.
const CACHED_VALUE_BYTES_MAX: usize = 256 << 10;

/// How a read of a large value uses the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// What is there is used, and what is read is left there.
    Keep,
    /// What is there is used.
    Pass,
    /// Every byte comes from the device.
    Bypass,
}

impl Caching {
    /// How a read of a part of `bytes` bytes for its own sake uses the cache: what reads more at a time is served well by a device.
    #[must_use]
    pub fn of_part(bytes: usize) -> Self {
        if bytes <= CACHED_PART_BYTES_MAX { Self::Keep } else { Self::Pass }
    }
}

/// Pieces of a large value that one request reads, and the room in the cache that was made for them.
#[derive(Debug)]
pub(super) struct PieceRead {
    pieces: Range<usize>,
    /// Bytes of the value in them.
    length: usize,
    /// One for each piece, or none: then they do not stay.
    charges: Vec<Charge>,
}

/// The pieces in which `length` bytes from byte `offset` lie.
fn pieces_of(offset: usize, length: usize) -> Range<usize> {
    offset / CHECKSUM_CHUNK_BYTES..(offset + length).div_ceil(CHECKSUM_CHUNK_BYTES)
}

/// The most blocks that a block of data takes: on parity 2, alone.
const GRANULE_MAX: u64 = 3;

/// Upper bound of the encoded length of a pointer, for checks of bytes from disk.
const POINTER_EXTENTS_MAX: usize = 4096;

/// Pointer to a large value: what travels down the tree in its place.
///
/// Encoded (little-endian): birth u64, length u32, extent count u32, extents of 16 bytes each, one crc32c per 16 KiB
/// of value. The birth stands first because it is filled in under the commit lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeValue {
    /// Generation open when the value was committed.
    pub birth: Generation,
    /// Length in bytes.
    pub length: u32,
    /// Where it is.
    pub extents: Vec<Extent>,
    /// One checksum per 16 KiB of value.
    pub checksums: Vec<u32>,
}

impl LargeValue {
    /// Allocates extents for `bytes` and writes them (not flushed).
    ///
    /// # Errors
    /// Out of space, or a device error; nothing stays allocated then.
    pub fn write(
        dmu: &Dmu,
        bytes: &[u8],
        preference: StoragePreference,
        privilege: Privilege,
    ) -> Result<Self, DmuError> {
        if bytes.len() > WRITE_BYTES_MAX {
            let value = Self::allocate(dmu, bytes, preference, privilege)?;
            let mut batch = dmu.write_batch();
            for (index, piece) in bytes.chunks(WRITE_BYTES_MAX).enumerate() {
                batch.submit(&value.extents, (index * WRITE_BYTES_MAX) as u64, whole_blocks(piece));
            }
            batch.end(&value.extents);
            return batch.finish().map(|()| value.clone()).inspect_err(|_| dmu.release(&value.extents));
        }
        // One request needs no other thread.
        let value = Self::allocate(dmu, bytes, preference, privilege)?;
        let written = dmu.write(&value.extents, 0, &whole_blocks(bytes));
        written.map(|()| value.clone()).inspect_err(|_| dmu.release(&value.extents))
    }

    /// A pointer to extents for `bytes`, which are still to be written.
    ///
    /// # Errors
    /// Out of space; nothing stays allocated then.
    pub fn allocate(
        dmu: &Dmu,
        bytes: &[u8],
        preference: StoragePreference,
        privilege: Privilege,
    ) -> Result<Self, DmuError> {
        let blocks = blocks_for(bytes.len() as u64) as u32;
        Ok(Self::at(dmu.allocate(Stream::Value, preference, blocks, privilege)?, bytes))
    }

    /// A pointer to `extents`, which hold `bytes`.
    #[must_use]
    pub fn at(extents: Vec<Extent>, bytes: &[u8]) -> Self {
        let checksums = bytes.chunks(CHECKSUM_CHUNK_BYTES).map(crc).collect();
        Self { birth: Generation(0), length: bytes.len() as u32, extents, checksums }
    }

    /// How a read of the whole value for its own sake uses the cache: a long one would push out many short ones.
    #[must_use]
    pub fn caching(&self) -> Caching {
        if self.length as usize <= CACHED_VALUE_BYTES_MAX { Caching::Keep } else { Caching::Pass }
    }

    /// Reads the whole value and verifies its checksums.
    ///
    /// # Errors
    /// Device errors, [`TreeError::Value`] on damage.
    pub fn read(&self, dmu: &Dmu, caching: Caching) -> Result<Vec<u8>, TreeError> {
        let mut out = vec![0; self.length as usize];
        self.read_part(dmu, 0, &mut out, caching)?;
        Ok(out)
    }

    /// As [`LargeValue::read`], without another copy.
    ///
    /// # Errors
    /// As [`LargeValue::read`].
    pub fn read_value(&self, dmu: &Dmu, caching: Caching) -> Result<Value, TreeError> {
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, self.length as usize).collect();
        if let Some(out) = Arc::get_mut(&mut bytes) {
            self.read_part(dmu, 0, out, caching)?;
        }
        let range = 0..bytes.len();
        Ok(Value { bytes, range })
    }

    /// Reads the bytes from `offset` that fit into `out`, and verifies the checksums of the pieces that they lie in; no
    /// other piece is read.
    ///
    /// # Errors
    /// As [`LargeValue::read`]; `out` is then unspecified.
    ///
    /// # Panics
    /// When the value ends before `out` does.
    pub fn read_part(
        &self,
        dmu: &Dmu,
        offset: usize,
        out: &mut [u8],
        caching: Caching,
    ) -> Result<(), TreeError> {
        let end = offset + out.len();
        assert!(end <= self.length as usize, "what is read is inside of the value");
        let mut at = offset;
        while at < end {
            let piece = at / CHECKSUM_CHUNK_BYTES;
            if let Some(found) = self.cached(dmu, at, caching) {
                let to = end.min((piece + 1) * CHECKSUM_CHUNK_BYTES);
                found.copy_to(at % CHECKSUM_CHUNK_BYTES, &mut out[at - offset..to - offset]);
                dmu.cache().record_hit();
                at = to;
                continue;
            }
            let pieces = self.missing(dmu, piece, end.div_ceil(CHECKSUM_CHUNK_BYTES), caching);
            let to = end.min(pieces.end * CHECKSUM_CHUNK_BYTES);
            self.read_pieces(dmu, pieces, at, &mut out[at - offset..to - offset], caching)?;
            at = to;
        }
        Ok(())
    }

    /// Brings the pieces of `length` bytes from byte `offset` into the cache, as far as the value has them. Whether a device was
    /// asked for some.
    ///
    /// # Errors
    /// As [`LargeValue::read`].
    pub fn read_ahead(&self, dmu: &Dmu, offset: u64, length: usize) -> Result<bool, TreeError> {
        let offset = (self.length as usize).min(usize::try_from(offset).unwrap_or(usize::MAX));
        let end = (self.length as usize).min(offset.saturating_add(length));
        let last = end.div_ceil(CHECKSUM_CHUNK_BYTES);
        let (mut piece, mut was_read) = (offset / CHECKSUM_CHUNK_BYTES, false);
        while piece < last {
            if self.is_piece_cached(dmu, piece, Caching::Keep) {
                piece += 1;
                continue;
            }
            let pieces = self.missing(dmu, piece, last, Caching::Keep);
            let start = pieces.start * CHECKSUM_CHUNK_BYTES;
            piece = pieces.end;
            self.read_pieces(dmu, pieces, start, &mut [], Caching::Keep)?;
            was_read = true;
        }
        Ok(was_read)
    }

    /// The pieces from `piece`, which is not in the cache, to before `last` that one request may read.
    fn missing(&self, dmu: &Dmu, piece: usize, last: usize, caching: Caching) -> Range<usize> {
        let last = last.min(piece + READ_BYTES_MAX / CHECKSUM_CHUNK_BYTES);
        let found = (piece + 1..last).find(|next| self.is_piece_cached(dmu, *next, caching));
        piece..found.unwrap_or(last)
    }

    /// The piece that has the byte `at`, when it is in the cache and may be used.
    fn cached(&self, dmu: &Dmu, at: usize, caching: Caching) -> Option<Arc<Piece>> {
        if caching == Caching::Bypass {
            return None;
        }
        let (piece, offset) = (at / CHECKSUM_CHUNK_BYTES, at % CHECKSUM_CHUNK_BYTES);
        let name = dmu.piece_name(&self.extents, (at - offset) as u64, self.birth)?;
        let found = dmu.pieces().get(&name, offset)?;
        (self.checksums.get(piece) == Some(&found.checksum())).then_some(found)
    }

    fn is_piece_cached(&self, dmu: &Dmu, piece: usize, caching: Caching) -> bool {
        self.cached(dmu, piece * CHECKSUM_CHUNK_BYTES, caching).is_some()
    }

    /// Reads `pieces` from the device in one go; `out` gets the bytes from `at`, which are all in them. Read ahead, they are for
    /// the cache alone, and `out` is empty.
    fn read_pieces(
        &self,
        dmu: &Dmu,
        pieces: Range<usize>,
        at: usize,
        out: &mut [u8],
        caching: Caching,
    ) -> Result<(), TreeError> {
        let (start, length) = self.bytes_of(&pieces);
        let stored = length.next_multiple_of(BLOCK_BYTES);
        let in_place = out.len() == stored && (out.as_ptr() as usize).is_multiple_of(BLOCK_BYTES);
        if caching != Caching::Keep && in_place {
            dmu.cache().record_miss();
            let reading = dmu.read_into(&self.extents, start as u64, out)?;
            return self.settle(dmu, pieces.start, length, out, reading);
        }
        let read = self.piece_read(dmu, pieces, caching);
        let (mut buffer, reading) = dmu.read_doubtful(&self.extents, start as u64, stored)?;
        self.settle(dmu, read.pieces.start, length, &mut buffer, reading)?;
        self.keep_pieces(dmu, read, buffer, at, out);
        Ok(())
    }

    /// The byte where `pieces` start, and how many of the value are in them.
    fn bytes_of(&self, pieces: &Range<usize>) -> (usize, usize) {
        let start = pieces.start * CHECKSUM_CHUNK_BYTES;
        (start, (self.length as usize).min(pieces.end * CHECKSUM_CHUNK_BYTES) - start)
    }

    /// From which byte a request reads `pieces`, and how many.
    pub(super) fn stored_range(&self, pieces: &Range<usize>) -> (u64, usize) {
        let (start, length) = self.bytes_of(pieces);
        (start as u64, length.next_multiple_of(BLOCK_BYTES))
    }

    /// Makes room in the cache for `pieces`, before the frames exist.
    pub(super) fn piece_read(&self, dmu: &Dmu, pieces: Range<usize>, caching: Caching) -> PieceRead {
        dmu.cache().record_miss();
        let (_, length) = self.bytes_of(&pieces);
        let charge = |piece| dmu.cache().charge(footprint(self.piece_bytes(piece)));
        let kept = if caching == Caching::Keep { pieces.clone() } else { 0..0 };
        PieceRead { length, charges: kept.map(charge).collect(), pieces }
    }

    /// The pieces of `length` bytes from byte `offset`, when none of them is in the cache and one request may read them all.
    pub(super) fn missing_pieces(
        &self,
        dmu: &Dmu,
        offset: usize,
        length: usize,
        caching: Caching,
    ) -> Option<Range<usize>> {
        let pieces = pieces_of(offset, length);
        let missing = self.missing(dmu, pieces.start, pieces.end, caching);
        let is_first_missing = !self.is_piece_cached(dmu, pieces.start, caching);
        (missing == pieces && is_first_missing).then_some(pieces)
    }

    /// Whether the pieces of `length` bytes from byte `offset` are all in the cache.
    pub(super) fn is_cached(&self, dmu: &Dmu, offset: usize, length: usize) -> bool {
        pieces_of(offset, length).all(|piece| self.is_piece_cached(dmu, piece, Caching::of_part(length)))
    }

    /// Takes what a request for `read` gave, as [`LargeValue::read_part`] does: `out` gets the bytes from `at`.
    ///
    /// # Errors
    /// As [`LargeValue::read`].
    pub(super) fn take_pieces(
        &self,
        dmu: &Dmu,
        read: PieceRead,
        mut buffer: AlignedBuffer,
        at: usize,
        out: &mut [u8],
    ) -> Result<(), TreeError> {
        self.settle(dmu, read.pieces.start, read.length, &mut buffer, Reading::Clean)?;
        self.keep_pieces(dmu, read, buffer, at, out);
        Ok(())
    }

    /// Copies the bytes from `at` of what was read and is right to `out`, and puts it into the cache, if it is to stay.
    fn keep_pieces(&self, dmu: &Dmu, read: PieceRead, mut buffer: AlignedBuffer, at: usize, out: &mut [u8]) {
        let PieceRead { pieces, length, charges } = read;
        let start = pieces.start * CHECKSUM_CHUNK_BYTES;
        buffer.truncate(length);
        out.copy_from_slice(&buffer[at - start..at - start + out.len()]);
        let end = at + out.len();
        let mut whole = Some(buffer);
        let alone = pieces.len() == 1;
        for (piece, charge) in pieces.zip(charges) {
            let from = piece * CHECKSUM_CHUNK_BYTES;
            let bytes = match if alone { whole.take() } else { None } {
                Some(buffer) => buffer,
                None => {
                    let Some(buffer) = &whole else { break };
                    AlignedBuffer::copy_of(&buffer[from - start..from - start + self.piece_bytes(piece)])
                }
            };
            let Some(checksum) = self.checksums.get(piece) else { break };
            let name = dmu.piece_name(&self.extents, from as u64, self.birth);
            let read_to = end.saturating_sub(from).min(bytes.len());
            if let Some(name) = name {
                let piece = Arc::new(Piece::new(bytes, *checksum, read_to, charge));
                dmu.pieces().insert(name, piece, Admission::Probation);
            }
        }
    }

    /// Whether `bytes` are the value, by its checksums.
    pub(super) fn is_right(&self, bytes: &[u8]) -> bool {
        let pieces = bytes.chunks(CHECKSUM_CHUNK_BYTES);
        bytes.len() == self.length as usize
            && pieces.len() == self.checksums.len()
            && pieces.zip(&self.checksums).all(|(piece, checksum)| crc(piece) == *checksum)
    }

    fn piece_bytes(&self, piece: usize) -> usize {
        (self.length as usize - piece * CHECKSUM_CHUNK_BYTES).min(CHECKSUM_CHUNK_BYTES)
    }

    /// Checks the pieces from `first` that the first `length` bytes of `read` are; what is wrong with one of them is looked for on
    /// other members of its vdev.
    fn settle(
        &self,
        dmu: &Dmu,
        first: usize,
        length: usize,
        read: &mut [u8],
        reading: Reading,
    ) -> Result<(), TreeError> {
        let is_right = |piece: usize, bytes: &[u8]| {
            self.checksums.get(piece).copied() == Some(crc(bytes)) || planted(Bug::SkipChecksum)
        };
        for (piece, place) in (first..).zip(read.chunks_mut(CHECKSUM_CHUNK_BYTES)) {
            let bytes = self.piece_bytes(piece).min(length).min(place.len());
            let at_byte = piece * CHECKSUM_CHUNK_BYTES;
            let mut check = |place: &[u8]| is_right(piece, &place[..bytes]);
            if check(place) {
                if matches!(reading, Reading::Partial) {
                    dmu.put_right(&self.extents, at_byte as u64, place, &(0..bytes))?;
                }
            } else if !dmu.recover(&self.extents, at_byte as u64, place, 0..bytes, &mut check)? {
                if let Reading::Failed(error) = reading {
                    return Err(error.into());
                }
                let reason = format!("checksum of the 16 KiB from byte {at_byte} differs");
                return Err(TreeError::Value { at: dmu.place_of(&self.extents), reason });
            }
        }
        Ok(dmu.found_right(&self.extents, (first * CHECKSUM_CHUNK_BYTES) as u64, read, 0..length)?)
    }

    /// Reads the value and writes it where it is, so that the next flush makes it durable.
    ///
    /// # Errors
    /// As [`LargeValue::read`] and [`LargeValue::write`].
    pub fn write_again(&self, dmu: &Dmu) -> Result<(), TreeError> {
        let bytes = self.read(dmu, Caching::Bypass)?;
        let mut buffer = AlignedBuffer::zeroed(bytes.len().next_multiple_of(BLOCK_BYTES));
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(dmu.write(&self.extents, 0, &buffer)?)
    }

    /// Bytes on the devices.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        total_blocks(&self.extents) * BLOCK_BYTES as u64
    }

    /// The pointer's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::with_capacity(16 + self.extents.len() * 16 + self.checksums.len() * 4);
        out.u64(self.birth.0);
        out.u32(self.length);
        out.u32(self.extents.len() as u32);
        for extent in &self.extents {
            extent.encode(&mut out);
        }
        for checksum in &self.checksums {
            out.u32(*checksum);
        }
        out.finish()
    }

    /// Whether its extents take what it needs on their vdevs, and no more: what a pointer of unknown origin must.
    #[must_use]
    pub fn fits(&self, dmu: &Dmu) -> bool {
        dmu.fits(&self.extents, blocks_for(u64::from(self.length)))
    }

    /// As [`LargeValue::stored_bytes`] of a pointer that is decoded no further.
    ///
    /// # Errors
    /// When the bytes are not a pointer.
    pub fn stored_bytes_of(encoded: &[u8]) -> Result<u64, DecodeError> {
        let mut input = Decoder::new(encoded);
        input.generation("birth")?;
        input.u32("length")?;
        let count = input.count(POINTER_EXTENTS_MAX, "extent count")?;
        let mut blocks = 0;
        for _ in 0..count {
            blocks += u64::from(Extent::decode(&mut input)?.blocks);
        }
        Ok(blocks * BLOCK_BYTES as u64)
    }

    /// Fills the birth into encoded bytes.
    pub fn set_birth(encoded: &mut [u8], birth: Generation) {
        encoded[..8].copy_from_slice(&birth.0.to_le_bytes());
    }

    /// Reads what [`LargeValue::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not a pointer whose extents hold its length.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        let birth = input.generation("birth")?;
        // Only what was born dies: a value that never was would end the merge that drops it.
        if birth.0 == 0 {
            return Err(input.invalid("birth"));
        }
        let length = input.u32("length")?;
        let count = input.count(POINTER_EXTENTS_MAX, "extent count")?;
        let mut extents = Vec::with_capacity(count);
        for _ in 0..count {
            extents.push(Extent::decode(&mut input)?);
        }
        // With parity they take more. How much exactly depends on the vdev: [`LargeValue::fits`].
        let (taken, blocks) = (total_blocks(&extents), blocks_for(u64::from(length)));
        if taken < blocks || taken > blocks * GRANULE_MAX {
            return Err(input.invalid("length"));
        }
        let chunks = (length as usize).div_ceil(CHECKSUM_CHUNK_BYTES);
        let checksums = input.raw(chunks * size_of::<u32>(), "checksum")?;
        let checksums = checksums.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        input.finish("large-value pointer")?;
        Ok(Self { birth, length, extents, checksums })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::VdevId;
    use crate::dmu::testing::{late_mirror, layouts, worn_unit};
    use crate::pool::format::VdevKind;

    #[test]
    fn pointers_have_golden_bytes_and_refuse_damage() {
        let pointer = LargeValue {
            birth: Generation(3),
            length: 20_000,
            extents: vec![Extent { vdev: VdevId(1), block: 7, blocks: 5 }],
            checksums: vec![0x1122_3344, 5],
        };
        let bytes = pointer.encode();
        assert_eq!(LargeValue::stored_bytes_of(&bytes).unwrap(), pointer.stored_bytes());
        assert!(LargeValue::stored_bytes_of(&bytes[..31]).is_err());
        assert_eq!(
            bytes,
            [
                &[3, 0, 0, 0, 0, 0, 0, 0, 0x20, 0x4e, 0, 0, 1, 0, 0, 0][..],
                &[1, 0, 0, 0, 5, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0],
                &[0x44, 0x33, 0x22, 0x11, 5, 0, 0, 0],
            ]
            .concat()
        );
        assert_eq!(LargeValue::decode(&bytes), Ok(pointer.clone()));
        for cut in 0..bytes.len() {
            assert!(LargeValue::decode(&bytes[..cut]).is_err());
        }
        let mut unborn = bytes.clone();
        LargeValue::set_birth(&mut unborn, Generation(0));
        assert!(LargeValue::decode(&unborn).is_err());
        let mut longer = bytes.clone();
        longer[8] = 0xff;
        longer[9] = 0xff;
        assert!(LargeValue::decode(&longer).is_err());
        let striped = |blocks| {
            let extents = vec![Extent { vdev: VdevId(1), block: 7, blocks }];
            LargeValue::decode(&LargeValue { extents, ..pointer.clone() }.encode())
        };
        assert!(striped(4).is_err() && striped(5).is_ok() && striped(15).is_ok() && striped(16).is_err());
    }

    #[test]
    fn values_outlive_bad_sectors() {
        let bytes: Vec<u8> = (0..700_000u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
        for (both_count, caching) in [false, true]
            .into_iter()
            .flat_map(|both| [Caching::Keep, Caching::Pass, Caching::Bypass].map(|caching| (both, caching)))
        {
            let (dmu, disks) = late_mirror(1 << 11);
            let value = LargeValue::write(&dmu, &bytes, StoragePreference::NONE, Privilege::System).unwrap();
            if both_count {
                dmu.pool().resilvered(VdevId(1), 1, dmu.pool().life(VdevId(1), 1).unwrap()).unwrap();
            }
            let blocks = value.extents.iter().flat_map(|extent| extent.block..extent.end());
            for (index, block) in blocks.enumerate() {
                disks[if both_count { index % 2 } else { 0 }].wear(block);
            }
            let worn = || disks.iter().map(|disk| disk.worn()).sum::<usize>();
            let before = worn();
            assert!(value.read(&dmu, caching).unwrap() == bytes, "{caching:?}, {both_count}");
            // The last block is not the value's alone: nobody has verified all of it.
            let left = if both_count { before * 3 / 5 } else { 1 };
            assert!(worn() <= left, "{caching:?}, {both_count}: {} of {before}", worn());
        }
        // On the only one that has it, it is an error of the device.
        let (dmu, disks) = worn_unit(VdevKind::Mirror, 2, 1 << 11);
        let value = LargeValue::write(&dmu, &bytes, StoragePreference::NONE, Privilege::System).unwrap();
        disks.iter().for_each(|disk| disk.wear(value.extents[0].block + 30));
        assert!(matches!(value.read(&dmu, Caching::Pass), Err(TreeError::Dmu(_))));
        let mut start = vec![0; 50_000];
        value.read_part(&dmu, 0, &mut start, Caching::Pass).unwrap();
        assert!(start == bytes[..50_000]);
    }

    #[test]
    fn extents_are_as_long_as_their_vdevs_need() {
        for (name, dmu) in layouts(1 << 11) {
            let bytes = vec![7; 300_000];
            let value = LargeValue::write(&dmu, &bytes, StoragePreference::NONE, Privilege::System).unwrap();
            assert!(value.fits(&dmu), "{name}");
            let mut longer = value.clone();
            longer.extents[0].blocks += 6;
            if name != "leaf" && !name.starts_with("mirror") {
                assert!(
                    LargeValue::decode(&{
                        let mut one = longer.clone();
                        one.birth = Generation(3);
                        one.encode()
                    })
                    .is_ok()
                );
            }
            assert!(!longer.fits(&dmu), "{name}");
            let mut shorter = value.clone();
            shorter.extents[0].blocks -= 6;
            assert!(!shorter.fits(&dmu), "{name}");
        }
    }
}
