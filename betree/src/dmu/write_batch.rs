//! Writes that go on in the background, as one group.

use super::queue::JobGroup;
use super::sequence::whole_stripes;
use super::{Dmu, DmuError};
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};

/// A group of background writes with one result; dropping it waits for them, too.
///
/// What is written is one sequence after the other, each in order from its start, in pieces of any length. A stripe is written
/// whole and once: what a piece leaves of one waits for the next piece, or for [`WriteBatch::end`].
#[derive(Debug)]
pub struct WriteBatch {
    dmu: Dmu,
    group: JobGroup,
    carry: Option<Carry>,
}

/// The start of a stripe.
#[derive(Debug)]
struct Carry {
    /// Byte of the sequence.
    offset: u64,
    bytes: AlignedBuffer,
}

impl WriteBatch {
    pub(super) fn new(dmu: Dmu) -> Self {
        Self { dmu, group: JobGroup::new(), carry: None }
    }

    /// Queues `buffer` (whole blocks) for byte `offset` of `extents`, where the piece before it ended; waits when too much is
    /// queued. More extents may have come behind since then.
    pub fn submit(&mut self, extents: &[Extent], offset: u64, buffer: AlignedBuffer) {
        let carry = self.carry.take();
        debug_assert!(
            carry.as_ref().is_none_or(|carry| carry.offset + carry.bytes.len() as u64 == offset),
            "pieces follow each other"
        );
        let start = carry.as_ref().map_or(offset, |carry| carry.offset);
        let end = offset + buffer.len() as u64;
        let whole = whole_stripes(self.dmu.pool(), extents, end / BLOCK_BYTES_U64) * BLOCK_BYTES_U64;
        if whole <= start {
            let bytes = joined(carry, &buffer);
            self.carry = Some(Carry { offset: start, bytes });
            return;
        }
        // The rest of the first stripe goes with what was carried.
        let head = match &carry {
            Some(_) => {
                let mut end = start + BLOCK_BYTES_U64;
                while end < whole
                    && whole_stripes(self.dmu.pool(), extents, end / BLOCK_BYTES_U64) * BLOCK_BYTES_U64 < end
                {
                    end += BLOCK_BYTES_U64;
                }
                end.max(offset)
            }
            None => offset,
        };
        let at = |byte: u64| (byte - offset) as usize;
        let carried = carry.map(|carry| joined(Some(carry), &buffer[..at(head)]));
        if whole < end {
            let bytes = AlignedBuffer::copy_of(&buffer[at(whole)..]);
            self.carry = Some(Carry { offset: whole, bytes });
        }
        let range = at(head)..at(whole);
        let (dmu, extents) = (self.dmu.clone(), extents.to_vec());
        let bytes = buffer.capacity() + carried.as_ref().map_or(0, |carried| carried.capacity());
        self.group.submit(self.dmu.writes(), bytes, move || {
            if let Some(carried) = carried {
                dmu.write(&extents, start, &carried)?;
            }
            if range.is_empty() { Ok(()) } else { dmu.write(&extents, head, &buffer[range]) }
        });
    }

    /// The sequence ends: what is left of its last stripe is queued, too. `extents` are those that it has in the end.
    pub fn end(&mut self, extents: &[Extent]) {
        let Some(Carry { offset, bytes }) = self.carry.take() else { return };
        let (dmu, extents) = (self.dmu.clone(), extents.to_vec());
        let memory = bytes.capacity();
        self.group.submit(self.dmu.writes(), memory, move || dmu.write(&extents, offset, &bytes));
    }

    /// Waits for all writes of the group. What was not ended is not written.
    ///
    /// # Errors
    /// The first error among them.
    pub fn finish(self) -> Result<(), DmuError> {
        self.group.finish()
    }
}

fn joined(carry: Option<Carry>, more: &[u8]) -> AlignedBuffer {
    let Some(Carry { bytes, .. }) = carry else { return AlignedBuffer::copy_of(more) };
    let mut out = AlignedBuffer::recycled(bytes.len() + more.len());
    out[..bytes.len()].copy_from_slice(&bytes);
    out[bytes.len()..].copy_from_slice(more);
    debug_assert!(out.len().is_multiple_of(BLOCK_BYTES));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::preference::StoragePreference;
    use crate::dmu::testing::layouts;
    use crate::dmu::{Privilege, Stream};
    use crate::vdev::SimRng;

    fn bytes(random: &mut SimRng, blocks: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..blocks {
            let byte = random.below(256) as u8;
            out.extend(std::iter::repeat_n(byte, BLOCK_BYTES));
        }
        out
    }

    /// Pieces of all lengths over extents of all lengths that come as they are needed, the last one cut.
    #[test]
    fn what_comes_in_pieces_is_there_as_a_whole() {
        let mut random = SimRng::new(1);
        for (name, dmu) in layouts(1 << 14) {
            for round in 0..40 {
                let total = 1 + random.below(600) as usize;
                let data = bytes(&mut random, total);
                let (mut extents, mut at) = (Vec::new(), 0);
                let mut batch = dmu.write_batch();
                while at < total {
                    let piece = (1 + random.below([3, 70, 200][round % 3]) as usize).min(total - at);
                    while dmu.data_blocks(&extents) < (at + piece) as u64 {
                        let more = 1 + random.below([5, 64, 190][round / 3 % 3]) as u32;
                        let got = dmu
                            .allocate(Stream::Base, StoragePreference::NONE, more, Privilege::System)
                            .unwrap();
                        // Some lie apart.
                        got.into_iter().for_each(|extent| match random.below(3) {
                            0 => extents.push(extent),
                            _ => dmu.join(&mut extents, extent),
                        });
                    }
                    let range = at * BLOCK_BYTES..(at + piece) * BLOCK_BYTES;
                    batch.submit(&extents, range.start as u64, AlignedBuffer::copy_of(&data[range]));
                    at += piece;
                }
                let tail = dmu.cut(&mut extents, total as u64);
                dmu.release(&tail);
                batch.end(&extents);
                batch.finish().unwrap();
                let read = dmu.read(&extents, 0, data.len()).unwrap();
                assert!(read[..] == data[..], "{name}, round {round}: {extents:?}");
                dmu.release(&extents);
            }
        }
    }
}
