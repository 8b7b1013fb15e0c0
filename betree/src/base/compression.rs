//! Compression of blocks. The caller keeps the raw length beside the bytes.

use serde::{Deserialize, Serialize};
use std::io;

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
            Self::Zstd { level } => {
                (Codec::Zstd, zstd::bulk::compress(raw, i32::from(level.clamp(1, 22))).ok()?)
            }
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
            Self::Zstd => zstd::bulk::decompress_to_buffer(stored, raw).map_err(invalid)?,
        };
        if written == raw.len() { Ok(()) } else { Err(invalid("raw length differs from the recorded one")) }
    }
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
}
