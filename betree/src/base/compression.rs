//! Compression of blocks. The caller keeps the raw length beside the bytes.

use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::io;
use zstd::bulk::{Compressor, Decompressor};

/// How blocks are compressed. In JSON: `"None"`, `"Lz4"` or `{"Zstd":{"level":3}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Compression {
    /// Stored as they are.
    #[default]
    None,
    /// LZ4 block format.
    Lz4,
    /// Zstandard.
    Zstd {
        /// 1 (fast) to 22 (small).
        level: u8,
    },
}

/// The codec of a stored block, as it is written beside its lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Stored as it is.
    None,
    /// LZ4 block format.
    Lz4,
    /// Zstandard frame.
    Zstd,
}

impl Codec {
    /// The number stored on disk.
    #[must_use]
    pub const fn tag(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    /// Reads a stored number.
    #[must_use]
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }
}

impl Compression {
    /// Compresses `raw`; `None` when the result would not be smaller, so that it is stored as it is.
    #[must_use]
    pub fn compress(self, raw: &[u8]) -> Option<(Codec, Vec<u8>)> {
        let (codec, out) = match self {
            Self::None => return None,
            Self::Lz4 => (Codec::Lz4, lz4_flex::block::compress(raw)),
            Self::Zstd { level } => (Codec::Zstd, zstd_compress(raw, level.clamp(1, 22)).ok()?),
        };
        (out.len() < raw.len()).then_some((codec, out))
    }
}

impl Codec {
    /// Decompresses `stored` into `raw`, which has exactly the raw length.
    ///
    /// # Errors
    /// `InvalidData` when `stored` is not what the codec wrote for that many bytes.
    pub fn decompress(self, stored: &[u8], raw: &mut [u8]) -> io::Result<()> {
        let written = match self {
            Self::None => {
                if stored.len() != raw.len() {
                    return Err(invalid("stored length differs from raw length"));
                }
                raw.copy_from_slice(stored);
                raw.len()
            }
            Self::Lz4 => lz4_flex::block::decompress_into(stored, raw).map_err(invalid)?,
            Self::Zstd => zstd_decompress(stored, raw).map_err(invalid)?,
        };
        if written == raw.len() { Ok(()) } else { Err(invalid("raw length differs from the recorded one")) }
    }
}

thread_local! {
    /// The level that it was made for, and its tables: making those anew takes longer than to compress a short block.
    static COMPRESSOR: RefCell<Option<(u8, Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn zstd_compress(raw: &[u8], level: u8) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let (_, compressor) = match kept.take_if(|(of, _)| *of == level) {
            Some(same) => kept.insert(same),
            None => kept.insert((level, Compressor::new(i32::from(level))?)),
        };
        compressor.compress(raw)
    })
}

fn zstd_decompress(stored: &[u8], raw: &mut [u8]) -> io::Result<usize> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress_to_buffer(stored, raw)
    })
}

fn invalid(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_round_trip_and_damage_is_an_error() {
        let raw: Vec<u8> = (0..20_000u32).map(|i| (i / 97) as u8).collect();
        for compression in [Compression::Lz4, Compression::Zstd { level: 3 }] {
            let (codec, stored) = compression.compress(&raw).unwrap();
            assert!(stored.len() < raw.len() / 4);
            let mut out = vec![0; raw.len()];
            codec.decompress(&stored, &mut out).unwrap();
            assert_eq!(out, raw);
            assert!(codec.decompress(&stored[..stored.len() / 2], &mut out).is_err());
            assert!(codec.decompress(&stored, &mut out[1..]).is_err());
            assert!(codec.decompress(&stored, &mut vec![0; raw.len() + 1]).is_err());
        }
        assert!(Compression::None.compress(&raw).is_none());
    }

    /// What is kept from block to block leaves no trace in them.
    #[test]
    fn blocks_do_not_depend_on_those_before() {
        let blocks: Vec<Vec<u8>> =
            (1..40_usize).map(|n| (0..n * 300).map(|i| (i / n) as u8).collect()).collect();
        for (turn, raw) in (0..).zip(blocks.iter().chain(blocks.iter().rev())) {
            let level = [1, 3, 3, 19][turn % 4];
            let (codec, stored) = Compression::Zstd { level }.compress(raw).unwrap();
            assert!(stored == zstd::bulk::compress(raw, i32::from(level)).unwrap());
            let mut out = vec![0; raw.len()];
            assert!(codec.decompress(&stored[..stored.len() - 1], &mut out).is_err());
            codec.decompress(&stored, &mut out).unwrap();
            assert!(out == *raw);
        }
    }
}
