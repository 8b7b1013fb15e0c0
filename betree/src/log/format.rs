//! Bytes of the intent log: frame headers, and the log head in the superblock. All numbers are little-endian.
//!
//! # Frame
//! Whole blocks of 4 KiB: header, payload, zeros.
//!
//! | offset | bytes | field | unit | meaning | threat guarded |
//! |---|---|---|---|---|---|
//! | 0 | 8 | magic | | `"BETRELOG"` | anything else in the block |
//! | 8 | 4 | checksum | | CRC-32C of bytes 12…96+payload | torn writes, bit rot |
//! | 12 | 4 | version | | 1 | a later format |
//! | 16 | 16 | pool | | pool uuid | a frame of another pool |
//! | 32 | 8 | epoch | | read-write open that wrote it | a frame of an earlier life, of whatever length |
//! | 40 | 8 | lsn | bytes | position of the payload in the stream of the epoch | a frame of an earlier use of the extent |
//! | 48 | 8 | durable lsn | bytes | position known flushed when the frame was sealed | damage taken for the tail |
//! | 56 | 8 | block | blocks | own place on the vdev | misdirected writes, copies stored as data |
//! | 64 | 4 | vdev | | own vdev | the same |
//! | 68 | 4 | blocks | blocks | length of the frame, 1…256 | |
//! | 72 | 4 | payload | bytes | 1…, needs exactly `blocks` blocks with the header | lengths that lead astray |
//! | 76 | 4 | previous | | checksum of the frame before; 0 for the first of the epoch | a hole in the chain |
//! | 80 | 16 | next | | the extent after this one (vdev u32, blocks u32, block u64) | a log that cannot be followed |
//! | 96 | … | payload | | bytes of the record stream | |
//!
//! The stream is a sequence of records `[u32 length][length bytes]`, which frames cut anywhere.
//!
//! The checksum stands in front of all that it covers, so that one pass over contiguous bytes computes it.
//!
//! # Log head
//! | offset | bytes | field | unit | meaning | threat guarded |
//! |---|---|---|---|---|---|
//! | 0 | 8 | epoch | | as in the frame | |
//! | 8 | 8 | lsn | bytes | where the next record starts | |
//! | 16 | 8 | durable lsn | bytes | position known flushed when the superblock was written | damage behind the head taken for the tail |
//! | 24 | 16 | extent | | extent with the next frame | |
//! | 40 | 16 | next | | the extent after it; all zeros: not named yet | a first frame that was lost |
//! | 56 | 4 | offset | blocks | next frame, from the start of the extent | |
//! | 60 | 4 | previous | | checksum of the frame before | a ghost as the first frame |
//!
//! # History
//! * 1: first version.

use crate::base::checksum::crc;
use crate::base::codec::{DecodeError, Decoder, Encoder};
use crate::base::extent::Extent;
use crate::base::ids::{Uuid, VdevId};
use crate::base::units::BLOCK_BYTES;

/// Bytes of a frame header.
pub(super) const HEADER_BYTES: usize = 96;

/// Longest frame in blocks: the largest buffer that is recycled, and what replay reads at once.
pub(super) const FRAME_BLOCKS_MAX: u32 = 256;

/// Longest log extent in blocks (1 GiB): bounds what replay searches.
pub(super) const EXTENT_BLOCKS_MAX: u32 = 1 << 18;

/// Bytes of a record's length.
pub(super) const RECORD_HEADER_BYTES: usize = 4;

const MAGIC: u64 = u64::from_le_bytes(*b"BETRELOG");
const VERSION: u32 = 1;
const CHECKSUM_END: usize = 12;

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub pool: Uuid,
    pub epoch: u64,
    /// Position of the payload in the stream.
    pub lsn: u64,
    /// Position known flushed when the frame was sealed.
    pub durable_lsn: u64,
    pub vdev: VdevId,
    /// First block on the vdev.
    pub block: u64,
    /// Length in blocks.
    pub blocks: u32,
    /// Length of the payload in bytes.
    pub payload_bytes: u32,
    /// Checksum of the frame before.
    pub previous: u32,
    /// The extent after the one that holds this frame.
    pub next: Extent,
}

impl FrameHeader {
    /// Writes the header into the start of `frame`, whose payload and padding are in place, and returns the checksum.
    pub fn seal(&self, frame: &mut [u8]) -> u32 {
        let mut out = Encoder::with_capacity(HEADER_BYTES);
        out.u64(MAGIC);
        out.u32(0);
        out.u32(VERSION);
        out.raw(&self.pool.0);
        out.u64(self.epoch);
        out.u64(self.lsn);
        out.u64(self.durable_lsn);
        out.u64(self.block);
        out.u32(self.vdev.0);
        out.u32(self.blocks);
        out.u32(self.payload_bytes);
        out.u32(self.previous);
        self.next.encode(&mut out);
        frame[..HEADER_BYTES].copy_from_slice(out.as_slice());
        let checksum = crc(&frame[CHECKSUM_END..HEADER_BYTES + self.payload_bytes as usize]);
        frame[8..CHECKSUM_END].copy_from_slice(&checksum.to_le_bytes());
        checksum
    }

    /// Reads the header and the stored checksum from the first block of a frame; checks all that can be known without
    /// the rest of the frame.
    ///
    /// # Errors
    /// When a field is not legal.
    pub fn decode(block: &[u8]) -> Result<(Self, u32), DecodeError> {
        let mut input = Decoder::new(block);
        if input.u64("frame magic")? != MAGIC {
            return Err(input.invalid("frame magic"));
        }
        let checksum = input.u32("frame checksum")?;
        if input.u32("frame version")? != VERSION {
            return Err(input.invalid("frame version"));
        }
        let header = Self {
            pool: input.uuid("frame pool")?,
            epoch: input.ordinal("frame epoch")?,
            lsn: input.ordinal("frame lsn")?,
            durable_lsn: input.ordinal("frame durable lsn")?,
            block: input.u64("frame block")?,
            vdev: VdevId(input.u32("frame vdev")?),
            blocks: input.u32("frame length")?,
            payload_bytes: input.u32("frame payload length")?,
            previous: input.u32("frame chain")?,
            next: decode_extent(&mut input)?,
        };
        let used = HEADER_BYTES + header.payload_bytes as usize;
        if header.blocks == 0
            || header.blocks > FRAME_BLOCKS_MAX
            || header.payload_bytes == 0
            || used.div_ceil(BLOCK_BYTES) != header.blocks as usize
        {
            return Err(input.invalid("frame length"));
        }
        if header.lsn.checked_add(u64::from(header.payload_bytes)).is_none()
            || header.durable_lsn > header.lsn
        {
            return Err(input.invalid("frame lsn"));
        }
        Ok((header, checksum))
    }

    /// Position in the stream after the payload.
    pub fn end_lsn(&self) -> u64 {
        self.lsn + u64::from(self.payload_bytes)
    }

    /// Where the payload lies in the frame.
    pub fn payload(&self) -> std::ops::Range<usize> {
        HEADER_BYTES..HEADER_BYTES + self.payload_bytes as usize
    }

    /// Whether `frame` (all its blocks) has the checksum that its header states.
    pub fn is_intact(&self, checksum: u32, frame: &[u8]) -> bool {
        frame.get(CHECKSUM_END..self.payload().end).is_some_and(|bytes| crc(bytes) == checksum)
    }
}

fn decode_extent(input: &mut Decoder<'_>) -> Result<Extent, DecodeError> {
    let extent = Extent::decode(input)?;
    if extent.blocks > EXTENT_BLOCKS_MAX {
        return Err(input.invalid("log extent length"));
    }
    Ok(extent)
}

/// Where replay starts: a position of the log as the superblock stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHead {
    /// The read-write open that wrote the log.
    pub epoch: u64,
    /// Where the next record starts, in bytes of the stream of the epoch.
    pub lsn: u64,
    /// Position known flushed; may be behind `lsn`, since what is before it is in the checkpoint. Set it to
    /// [`crate::log::Log::durable_lsn`] when the superblock is made, and damage of what was synced during the checkpoint
    /// is recognised.
    pub durable_lsn: u64,
    /// The extent that holds the next frame.
    pub extent: Extent,
    /// The extent after it; `None` when there was no space to name one.
    pub next: Option<Extent>,
    /// Next frame, in blocks from the start of the extent.
    pub offset: u32,
    /// Checksum of the frame before; 0 at the start of the epoch.
    pub previous: u32,
}

impl LogHead {
    /// Encoded length in bytes.
    pub const ENCODED_BYTES: usize = 64;

    /// Appends the 64 bytes.
    pub fn encode(&self, out: &mut Encoder) {
        out.u64(self.epoch);
        out.u64(self.lsn);
        out.u64(self.durable_lsn);
        self.extent.encode(out);
        match &self.next {
            Some(next) => next.encode(out),
            None => out.raw(&[0; Extent::ENCODED_BYTES]),
        }
        out.u32(self.offset);
        out.u32(self.previous);
    }

    /// Reads what [`LogHead::encode`] wrote.
    ///
    /// # Errors
    /// When bytes are missing or not legal.
    pub fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let epoch = input.ordinal("log epoch")?;
        let lsn = input.ordinal("log lsn")?;
        let durable_lsn = input.ordinal("log durable lsn")?;
        let extent = decode_extent(input)?;
        let raw = input.raw(Extent::ENCODED_BYTES, "log next extent")?;
        let next = if raw.iter().all(|byte| *byte == 0) {
            None
        } else {
            Some(decode_extent(&mut Decoder::new(raw))?)
        };
        let offset = input.u32("log offset")?;
        if offset > extent.blocks {
            return Err(input.invalid("log offset"));
        }
        let previous = input.u32("log chain")?;
        Ok(Self { epoch, lsn, durable_lsn, extent, next, offset, previous })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            pool: Uuid([0xab; 16]),
            epoch: 7,
            lsn: 0x1234,
            durable_lsn: 0x1000,
            vdev: VdevId(3),
            block: 0x99,
            blocks: 1,
            payload_bytes: 5,
            previous: 0xdead_beef,
            next: Extent { vdev: VdevId(2), block: 0x400, blocks: 1024 },
        }
    }

    fn frame() -> Vec<u8> {
        let mut frame = vec![0; BLOCK_BYTES];
        frame[HEADER_BYTES..HEADER_BYTES + 5].copy_from_slice(b"hello");
        header().seal(&mut frame);
        frame
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_frame() {
        let frame = frame();
        assert_eq!(
            hex(&frame[..HEADER_BYTES + 6]),
            concat!(
                "42455452454c4f47",
                "50eb13d2",
                "01000000",
                "abababababababababababababababab",
                "0700000000000000",
                "3412000000000000",
                "0010000000000000",
                "9900000000000000",
                "03000000",
                "01000000",
                "05000000",
                "efbeadde",
                "02000000000400000004000000000000",
                "68656c6c6f",
                "00"
            )
        );
        let (decoded, checksum) = FrameHeader::decode(&frame).unwrap();
        assert_eq!(decoded, header());
        assert!(decoded.is_intact(checksum, &frame));
    }

    #[test]
    fn golden_head() {
        let head = LogHead {
            epoch: 7,
            lsn: 0x1234,
            durable_lsn: 0x1000,
            extent: Extent { vdev: VdevId(3), block: 0x80, blocks: 0x100 },
            next: None,
            offset: 0x20,
            previous: 0xdead_beef,
        };
        for (next, golden) in [
            (None, "00000000000000000000000000000000"),
            (
                Some(Extent { vdev: VdevId(0), block: 0x400, blocks: 1024 }),
                "00000000000400000004000000000000",
            ),
        ] {
            let head = LogHead { next, ..head };
            let mut out = Encoder::new();
            head.encode(&mut out);
            let bytes = out.finish();
            assert_eq!(
                hex(&bytes),
                [
                    "0700000000000000",
                    "3412000000000000",
                    "0010000000000000",
                    "03000000000100008000000000000000",
                    golden,
                    "20000000",
                    "efbeadde"
                ]
                .concat()
            );
            assert_eq!(bytes.len(), LogHead::ENCODED_BYTES);
            assert_eq!(LogHead::decode(&mut Decoder::new(&bytes)), Ok(head));
            for length in 0..bytes.len() {
                assert!(LogHead::decode(&mut Decoder::new(&bytes[..length])).is_err());
            }
        }
    }

    #[test]
    fn every_changed_bit_is_noticed_and_nothing_panics() {
        let frame = frame();
        for bit in 0..(HEADER_BYTES + 5) * 8 {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Ok((header, checksum)) = FrameHeader::decode(&changed) {
                assert!(!header.is_intact(checksum, &changed), "bit {bit}");
            }
        }
        for length in 0..HEADER_BYTES {
            assert!(FrameHeader::decode(&frame[..length]).is_err());
        }
    }
}
