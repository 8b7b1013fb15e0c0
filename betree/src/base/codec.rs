//! Checked little-endian reading and writing of bytes.

use super::ids::{Generation, Uuid};
use thiserror::Error;

/// Largest number that is taken from a device and counted on from.
pub const ORDINAL_MAX: u64 = 1 << 62;

/// Why bytes could not be decoded: which field, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} at byte {offset}: {reason}")]
pub struct DecodeError {
    /// The field that is missing or wrong.
    pub field: &'static str,
    /// Byte offset in the decoded buffer.
    pub offset: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Appends little-endian numbers and bytes to a vector.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An empty encoder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty encoder with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A LEB128 number of one to ten bytes.
    pub fn varint(&mut self, value: u64) {
        put_varint(&mut self.bytes, value);
    }

    /// `bytes` without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A varint length, then `bytes`.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    /// Zeros up to `length` bytes in all; nothing when there are as many already.
    pub fn pad_to(&mut self, length: usize) {
        if self.bytes.len() < length {
            self.bytes.resize(length, 0);
        }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was written so far.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes written.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Appends `value` to `out` as LEB128.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a LEB128 number at `*position`, which moves behind it; `None` when it is cut short or exceeds 64 bits.
#[inline]
pub fn get_varint(bytes: &[u8], position: &mut usize) -> Option<u64> {
    let first = *bytes.get(*position)?;
    *position += 1;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    let mut shift = 7;
    loop {
        let byte = *bytes.get(*position)?;
        *position += 1;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

/// Reads little-endian numbers and bytes; every read is checked.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Decoder<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Byte offset of the next read.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// An error for a field whose value is not legal.
    #[must_use]
    pub fn invalid(&self, field: &'static str) -> DecodeError {
        DecodeError { field, offset: self.position, reason: "value not legal" }
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn raw(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        if length > self.remaining() {
            return Err(DecodeError { field, offset: self.position, reason: "cut short" });
        }
        let out = &self.bytes[self.position..self.position + length];
        self.position += length;
        Ok(out)
    }

    /// Skips `length` reserved bytes.
    ///
    /// # Errors
    /// When fewer are left, or one of them is not zero.
    pub fn zeros(&mut self, length: usize) -> Result<(), DecodeError> {
        if self.raw(length, "reserved bytes")?.iter().any(|byte| *byte != 0) {
            return Err(self.invalid("reserved bytes"));
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.raw(N, field)?);
        Ok(out)
    }

    /// One byte.
    ///
    /// # Errors
    /// When none is left.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(field)?[0])
    }

    /// Two bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    /// Four bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// Eight bytes of a number that only ever counts up, one at a time or by what was done.
    ///
    /// # Errors
    /// When fewer are left, or above [`ORDINAL_MAX`]: damage, which counting on would carry over the end.
    pub fn ordinal(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let value = self.u64(field)?;
        if value > ORDINAL_MAX {
            return Err(self.invalid(field));
        }
        Ok(value)
    }

    /// Eight bytes of a generation.
    ///
    /// # Errors
    /// When fewer are left, or above [`Generation::STORED_MAX`].
    pub fn generation(&mut self, field: &'static str) -> Result<Generation, DecodeError> {
        let value = Generation(self.u64(field)?);
        if value > Generation::STORED_MAX {
            return Err(self.invalid(field));
        }
        Ok(value)
    }

    /// Sixteen bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn uuid(&mut self, field: &'static str) -> Result<Uuid, DecodeError> {
        Ok(Uuid(self.array(field)?))
    }

    /// A LEB128 number.
    ///
    /// # Errors
    /// When it is cut short or exceeds 64 bits.
    pub fn varint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let at = self.position;
        get_varint(self.bytes, &mut self.position).ok_or(DecodeError {
            field,
            offset: at,
            reason: "not a number of at most 64 bits",
        })
    }

    /// A varint length of at most `limit`, then that many bytes.
    ///
    /// # Errors
    /// When the length exceeds `limit` or bytes are missing.
    pub fn bytes(&mut self, limit: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.varint(field)?;
        match usize::try_from(length) {
            Ok(length) if length <= limit => self.raw(length, field),
            _ => Err(DecodeError { field, offset: self.position, reason: "longer than its limit" }),
        }
    }

    /// A count of at most `limit`, as u32.
    ///
    /// # Errors
    /// When it exceeds `limit` or bytes are missing.
    pub fn count(&mut self, limit: usize, field: &'static str) -> Result<usize, DecodeError> {
        let count = self.u32(field)? as usize;
        if count > limit {
            return Err(DecodeError { field, offset: self.position, reason: "more than its limit" });
        }
        Ok(count)
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// When bytes are left.
    pub fn finish(&self, field: &'static str) -> Result<(), DecodeError> {
        if self.remaining() == 0 {
            return Ok(());
        }
        Err(DecodeError { field, offset: self.position, reason: "bytes left over" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_refuse_overlong_input() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(get_varint(&out, &mut 0), Some(value));
            assert_eq!(get_varint(&out[..out.len() - 1], &mut 0), None);
        }
        assert_eq!(get_varint(&[0xff; 11], &mut 0), None);
        assert_eq!(get_varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], &mut 0), None);
    }

    #[test]
    fn numbers_that_are_counted_on_from_have_an_end() {
        let number = |value: u64| value.to_le_bytes();
        let ordinal = |value| Decoder::new(&number(value)).ordinal("x");
        assert_eq!(ordinal(ORDINAL_MAX), Ok(ORDINAL_MAX));
        assert_eq!(ordinal(ORDINAL_MAX + 1).map_err(|error| error.field), Err("x"));
        let generation = |value| Decoder::new(&number(value)).generation("x");
        assert_eq!(generation(Generation::STORED_MAX.0), Ok(Generation::STORED_MAX));
        assert_eq!(generation(Generation::STORED_MAX.0 + 1).map_err(|error| error.field), Err("x"));
    }

    #[test]
    fn lengths_are_checked() {
        let mut out = Encoder::new();
        out.bytes(b"abc");
        let bytes = out.finish();
        assert_eq!(Decoder::new(&bytes).bytes(3, "x"), Ok(&b"abc"[..]));
        assert!(Decoder::new(&bytes).bytes(2, "x").is_err());
        assert!(Decoder::new(&bytes[..3]).bytes(3, "x").is_err());
    }
}
