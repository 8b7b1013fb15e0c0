//! Frozen bytes of object stores.
//!
//! Keys of the metadata dataset (integers big-endian, so that they sort):
//!
//! | key | value |
//! |---|---|
//! | `0`, name | object record |
//! | `1`, object id u64, key | custom metadata |
//! | `2`, object id u64 | empty: the object is being made, or was when the process ended |
//! | `3` | u64, little-endian: tickets from here on were never taken |
//!
//! Keys of the chunk dataset: object id u64, chunk number u64, big-endian. The value has the first bytes of the chunk, at most
//! 128 KiB of them; what it lacks is zeros.
//!
//! Object record, little-endian:
//!
//! | offset | bytes | field | unit | meaning | threat guarded |
//! |---|---|---|---|---|---|
//! | 0 | 1 | version | | 1 | format drift |
//! | 1 | 1 | flags | | bit 0: there may be custom metadata | unknown additions |
//! | 2 | 1 | preference | tier | 0 to 3, 254 for none | |
//! | 3 | 1 | chunk shift | | 17: chunks of 128 KiB | chunks read with another length |
//! | 4 | 8 | id | | where the chunks are | chunks of an earlier object of that name |
//! | 12 | 8 | size | bytes | | bytes behind the end |
//! | 20 | 8 | modified | ns since 1970 | of the last write | |
//! | 28 | 8 | created | ns since 1970 | | |
//! | 36 | 8 | version | ticket | of the last write | an update that overwrites another |
//!
//! Why this order: what an older reader must understand first stands first.
//! History: version 1, the first.

use crate::base::codec::{DecodeError, Decoder, Encoder};
use crate::base::preference::StoragePreference;

const VERSION: u8 = 1;
const HAS_METADATA: u8 = 1;
const CHUNK_SHIFT: u8 = 17;

/// Bytes of a chunk. Larger: fewer entries and larger transfers for large objects. Smaller: less is read and written again when
/// patches of a chunk are folded into it. 128 KiB is the most that one entry of 16 KiB pieces gains from: a device is busy for
/// longer with the transfer than with the request.
pub const CHUNK_BYTES: u64 = 1 << CHUNK_SHIFT;

/// Prefix of the keys of object records.
pub(crate) const NAMES: u8 = 0;
/// Prefix of the keys of custom metadata.
pub(crate) const CUSTOM: u8 = 1;
/// Prefix of the keys of objects that are being made.
pub(crate) const STAGED: u8 = 2;
/// Key of the next ticket.
pub(crate) const TICKETS: u8 = 3;

/// What a store knows of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ObjectRecord {
    pub id: u64,
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified: u64,
    /// Nanoseconds since 1970.
    pub created: u64,
    pub version: u64,
    pub preference: StoragePreference,
    /// Whether there may be custom metadata.
    pub has_metadata: bool,
}

/// Bytes of a record.
pub(crate) const RECORD_BYTES: usize = 44;

impl ObjectRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::with_capacity(RECORD_BYTES);
        out.u8(VERSION);
        out.u8(if self.has_metadata { HAS_METADATA } else { 0 });
        out.u8(self.preference.as_u8());
        out.u8(CHUNK_SHIFT);
        out.u64(self.id);
        out.u64(self.size);
        out.u64(self.modified);
        out.u64(self.created);
        out.u64(self.version);
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        if input.u8("version")? != VERSION {
            return Err(input.invalid("version"));
        }
        let flags = input.u8("flags")?;
        if flags & !HAS_METADATA != 0 {
            return Err(input.invalid("flags"));
        }
        let preference = StoragePreference::from_u8(input.u8("preference")?);
        let preference = preference.ok_or_else(|| input.invalid("preference"))?;
        if input.u8("chunk shift")? != CHUNK_SHIFT {
            return Err(input.invalid("chunk shift"));
        }
        let id = input.u64("id")?;
        if id == 0 || id == u64::MAX {
            return Err(input.invalid("id"));
        }
        let size = input.u64("size")?;
        if size > i64::MAX as u64 {
            return Err(input.invalid("size"));
        }
        let modified = input.u64("modified")?;
        let created = input.u64("created")?;
        let version = input.u64("version")?;
        input.finish("object record")?;
        let has_metadata = flags & HAS_METADATA != 0;
        Ok(Self { id, size, modified, created, version, preference, has_metadata })
    }
}

pub(crate) fn name_key(name: &[u8]) -> Vec<u8> {
    [&[NAMES][..], name].concat()
}

/// Key of custom metadata; without `key`, what all keys of the object start with.
pub(crate) fn custom_key(id: u64, key: &[u8]) -> Vec<u8> {
    [&[CUSTOM][..], &id.to_be_bytes(), key].concat()
}

pub(crate) fn staged_key(id: u64) -> Vec<u8> {
    [&[STAGED][..], &id.to_be_bytes()].concat()
}

pub(crate) fn chunk_key(id: u64, chunk: u64) -> Vec<u8> {
    [id.to_be_bytes(), chunk.to_be_bytes()].concat()
}

/// Object id and number of the chunk of a key.
pub(crate) fn key_chunk(key: &[u8]) -> Option<(u64, u64)> {
    let (id, chunk) = key.split_at_checked(8)?;
    Some((u64::from_be_bytes(id.try_into().ok()?), u64::from_be_bytes(chunk.try_into().ok()?)))
}

/// The object of a key of custom metadata, and the key as its owner knows it.
pub(crate) fn key_custom(key: &[u8]) -> Option<(u64, &[u8])> {
    let (id, key) = key.strip_prefix(&[CUSTOM])?.split_at_checked(8)?;
    Some((u64::from_be_bytes(id.try_into().ok()?), key))
}

/// The object that a key says is being made.
pub(crate) fn key_staged(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.strip_prefix(&[STAGED])?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ObjectRecord {
        ObjectRecord {
            id: 0x0102,
            size: 1 << 40,
            modified: 7,
            created: 5,
            version: 0x0a0b,
            preference: StoragePreference::FAST,
            has_metadata: true,
        }
    }

    #[test]
    fn records_have_golden_bytes_and_read_back() {
        let golden = [
            &[1, 1, 1, 17][..],
            &[2, 1, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 0, 1, 0, 0],
            &[7, 0, 0, 0, 0, 0, 0, 0],
            &[5, 0, 0, 0, 0, 0, 0, 0],
            &[0x0b, 0x0a, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(sample().encode(), golden);
        assert_eq!(golden.len(), RECORD_BYTES);
        assert_eq!(ObjectRecord::decode(&golden), Ok(sample()));
    }

    #[test]
    fn damaged_records_are_refused() {
        let bytes = sample().encode();
        for cut in 0..bytes.len() {
            assert!(ObjectRecord::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(ObjectRecord::decode(&[&bytes[..], &[0]].concat()).is_err());
        for (at, value) in [(0, 2), (1, 2), (2, 4), (3, 16), (19, 0x80)] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            assert!(ObjectRecord::decode(&damaged).is_err(), "{at}");
        }
        let mut unnamed = bytes.clone();
        unnamed[4..12].fill(0);
        assert!(ObjectRecord::decode(&unnamed).is_err());
    }

    #[test]
    fn keys_have_golden_bytes() {
        assert_eq!(name_key(b"a"), [0, b'a']);
        assert_eq!(custom_key(0x0102, b"k"), [1, 0, 0, 0, 0, 0, 0, 1, 2, b'k']);
        assert_eq!(staged_key(3), [2, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(chunk_key(1, 2), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(key_chunk(&chunk_key(1, 2)), Some((1, 2)));
        assert_eq!(key_chunk(&[0; 15]), None);
        assert_eq!(key_custom(&custom_key(5, b"k")), Some((5, &b"k"[..])));
        assert_eq!(key_staged(&staged_key(5)), Some(5));
        assert_eq!(key_staged(&custom_key(5, b"")), None);
    }
}
