//! The extents of a run or node as its pointer stores them: up to three inline, more in a block of their own.
//!
//! Encoded: count u8; 0…3: that many extents of 16 bytes; 255: crc32c u32 of the list's bytes, u32 count, then the
//! extents of the list's own blocks encoded in the same way (a list in more than three pieces has a list of its own).
//! The list holds the extents back to back.

use super::{Dmu, DmuError, Privilege, Stream};
use crate::base::buffer::AlignedBuffer;
use crate::base::checksum::crc;
use crate::base::codec::{DecodeError, Decoder, Encoder};
use crate::base::extent::Extent;
use crate::base::preference::StoragePreference;
use crate::base::units::{BLOCK_BYTES, blocks_for};

const INLINE_MAX: usize = 3;
const SPILLED: u8 = 255;
/// A list of 65,536 extents takes 1 MiB; no allocation comes near it.
const LIST_MAX: usize = 1 << 16;

/// Extents as a pointer stores them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredExtents {
    extents: Vec<Extent>,
    /// The blocks that list them, when they do not fit the pointer.
    list: Option<Box<List>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct List {
    checksum: u32,
    blocks: StoredExtents,
}

/// Lists of lists of lists hold more extents than [`LIST_MAX`].
const DEPTH_MAX: u32 = 3;

impl StoredExtents {
    /// The extents of the data, in order.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The extents of the data and of the lists: what the owner frees.
    #[must_use]
    pub fn all(&self) -> Vec<Extent> {
        let mut all = self.extents.clone();
        if let Some(list) = &self.list {
            all.extend(list.blocks.all());
        }
        all
    }

    /// For each of the lists: its blocks, its bytes and their checksum.
    #[must_use]
    pub fn lists(&self) -> Vec<(Vec<Extent>, u64, u32)> {
        let mut lists = Vec::new();
        let (mut listed, mut list) = (self.extents.len(), &self.list);
        while let Some(found) = list {
            let bytes = (listed * Extent::ENCODED_BYTES) as u64;
            lists.push((found.blocks.extents.clone(), bytes, found.checksum));
            (listed, list) = (found.blocks.extents.len(), &found.blocks.list);
        }
        lists
    }

    /// Appends the encoded list.
    pub fn encode(&self, out: &mut Encoder) {
        match &self.list {
            None => {
                out.u8(self.extents.len() as u8);
                for extent in &self.extents {
                    extent.encode(out);
                }
            }
            Some(list) => {
                out.u8(SPILLED);
                out.u32(list.checksum);
                out.u32(self.extents.len() as u32);
                list.blocks.encode(out);
            }
        }
    }

    /// Reads what [`StoredExtents::encode`] wrote.
    ///
    /// # Errors
    /// Missing bytes, values that are not legal, device errors while reading list blocks.
    pub fn decode(input: &mut Decoder<'_>, dmu: &Dmu) -> Result<Self, DmuError> {
        Self::decode_at(input, dmu, 0)
    }

    fn decode_at(input: &mut Decoder<'_>, dmu: &Dmu, depth: u32) -> Result<Self, DmuError> {
        let plain = |source: DecodeError| DmuError::Decode { what: "extent list", source };
        let count = input.u8("extent count").map_err(plain)?;
        if count != SPILLED {
            if usize::from(count) > INLINE_MAX {
                return Err(plain(input.invalid("extent count")));
            }
            let extents = decode_extents(input, usize::from(count)).map_err(plain)?;
            return Ok(Self { extents, list: None });
        }
        if depth == DEPTH_MAX {
            return Err(plain(input.invalid("list depth")));
        }
        let checksum = input.u32("list checksum").map_err(plain)?;
        let count = input.count(LIST_MAX, "list length").map_err(plain)?;
        let blocks = Self::decode_at(input, dmu, depth + 1)?;
        let used = count * Extent::ENCODED_BYTES;
        if !dmu.fits(&blocks.extents, blocks_for(used as u64)) {
            return Err(plain(input.invalid("list length")));
        }
        let length = used.next_multiple_of(BLOCK_BYTES);
        let mut is_right = |bytes: &[u8]| crc(&bytes[..used]) == checksum;
        let (buffer, right) = dmu.read_checked(&blocks.extents, 0, length, 0..used, &mut is_right)?;
        if !right {
            let (device, block) = dmu.named_block_at(&blocks.extents, 0);
            return Err(DmuError::Corrupt {
                what: "extent list",
                device,
                block,
                reason: String::from("its checksum differs from the one in its pointer"),
            });
        }
        let extents = decode_extents(&mut Decoder::new(&buffer[..used]), count).map_err(plain)?;
        Ok(Self { extents, list: Some(Box::new(List { checksum, blocks })) })
    }
}

fn decode_extents(input: &mut Decoder<'_>, count: usize) -> Result<Vec<Extent>, DecodeError> {
    (0..count).map(|_| Extent::decode(input)).collect()
}

impl Dmu {
    /// Makes `extents` storable in a pointer, writing list blocks when they are many.
    ///
    /// # Errors
    /// More than 65,536 pieces, out of space and device errors; `extents` themselves stay allocated.
    pub fn store_extents(
        &self,
        extents: Vec<Extent>,
        preference: StoragePreference,
    ) -> Result<StoredExtents, DmuError> {
        if extents.len() <= INLINE_MAX {
            return Ok(StoredExtents { extents, list: None });
        }
        if let (true, Some(first)) = (extents.len() > LIST_MAX, extents.first()) {
            return Err(DmuError::Allocation { what: "in more pieces than a list holds", extent: *first });
        }
        let mut bytes = Encoder::new();
        for extent in &extents {
            extent.encode(&mut bytes);
        }
        let bytes = bytes.finish();
        let blocks = self.store_bytes(&bytes, preference)?;
        Ok(StoredExtents { extents, list: Some(Box::new(List { checksum: crc(&bytes), blocks })) })
    }

    /// Writes `bytes`, with zeros up to a whole block, into extents of their own beside the headers.
    ///
    /// # Errors
    /// Out of space and device errors; nothing is allocated then.
    pub fn store_bytes(
        &self,
        bytes: &[u8],
        preference: StoragePreference,
    ) -> Result<StoredExtents, DmuError> {
        let blocks = blocks_for(bytes.len() as u64) as u32;
        let extents = self.allocate(Stream::Header, preference, blocks, Privilege::System)?;
        let mut buffer = AlignedBuffer::zeroed(blocks as usize * BLOCK_BYTES);
        buffer[..bytes.len()].copy_from_slice(bytes);
        let stored = self.write(&extents, 0, &buffer);
        stored
            .and_then(|()| self.store_extents(extents.clone(), preference))
            .inspect_err(|_| self.release(&extents))
    }
}
