//! Values that get extents of their own, on their way into the log. Long ones are written here, outside of any lock, all of
//! a batch at once; short ones gather to be written behind ([`crate::dmu::Dmu::write_behind`]).

use super::commit::Write;
use super::core::Core;
use super::error::{Error, Result};
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::preference::StoragePreference;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64, blocks_for};
use crate::dmu::{DmuError, OwnedExtents, Privilege, WriteBatch};
use crate::run::Kind;
use crate::tree::LargeValue;

/// Bytes of one request: neighbours are written together up to this length, longer values in such pieces.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// A large value on its way into the log.
pub(super) struct Large {
    pub pointer: Vec<u8>,
    pub space: OwnedExtents,
    pub bytes: u64,
}

/// Where requests go: to threads when there are several, or made here when there is one.
struct Requests<'a> {
    core: &'a Core,
    batch: Option<WriteBatch>,
}

impl Requests<'_> {
    fn make(&mut self, extents: &[Extent], offset: u64, buffer: AlignedBuffer) -> Result<()> {
        match &mut self.batch {
            Some(batch) => batch.submit(extents, offset, buffer),
            None => self.core.dmu.write(extents, offset, &buffer)?,
        }
        Ok(())
    }

    /// What was made for `extents` is all of it.
    fn end(&mut self, extents: &[Extent]) {
        if let Some(batch) = &mut self.batch {
            batch.end(extents);
        }
    }
}

/// Values whose extents follow each other, and that are written with one request.
#[derive(Default)]
struct Neighbours<'a> {
    extent: Option<Extent>,
    /// Each with the byte of the extent where it starts.
    values: Vec<(&'a [u8], usize)>,
}

impl<'a> Neighbours<'a> {
    /// Adds a value; first writes those before it, when it is no neighbour of theirs.
    fn add(&mut self, extents: &[Extent], bytes: &'a [u8], requests: &mut Requests<'_>) -> Result<()> {
        let [extent] = extents else {
            self.write(requests)?;
            return write(extents, bytes, requests);
        };
        let dmu = &requests.core.dmu;
        let joins = |last: &Extent| {
            dmu.joins(last, extent)
                && (last.blocks + extent.blocks) as usize * BLOCK_BYTES <= REQUEST_BYTES_MAX
        };
        let mut start = 0;
        match &mut self.extent {
            Some(last) if joins(last) => {
                start = dmu.data_blocks(&[*last]) as usize * BLOCK_BYTES;
                last.blocks += extent.blocks;
            }
            _ => {
                self.write(requests)?;
                if bytes.len() > REQUEST_BYTES_MAX {
                    return write(extents, bytes, requests);
                }
                self.extent = Some(*extent);
            }
        }
        self.values.push((bytes, start));
        Ok(())
    }

    fn write(&mut self, requests: &mut Requests<'_>) -> Result<()> {
        let Some(extent) = self.extent.take() else { return Ok(()) };
        let blocks = requests.core.dmu.data_blocks(&[extent]) as usize;
        let mut buffer = AlignedBuffer::recycled(blocks * BLOCK_BYTES);
        let mut at = 0;
        for (bytes, start) in self.values.drain(..) {
            buffer[at..start].fill(0);
            at = start + bytes.len();
            buffer[start..at].copy_from_slice(bytes);
        }
        buffer[at..].fill(0);
        requests.make(&[extent], 0, buffer)?;
        requests.end(&[extent]);
        Ok(())
    }
}

/// Writes `bytes` into `extents`.
fn write(extents: &[Extent], bytes: &[u8], requests: &mut Requests<'_>) -> Result<()> {
    for (index, piece) in bytes.chunks(REQUEST_BYTES_MAX).enumerate() {
        let mut buffer = AlignedBuffer::recycled(piece.len().next_multiple_of(BLOCK_BYTES));
        buffer[..piece.len()].copy_from_slice(piece);
        buffer[piece.len()..].fill(0);
        requests.make(extents, (index * REQUEST_BYTES_MAX) as u64, buffer)?;
    }
    requests.end(extents);
    Ok(())
}

impl Core {
    /// Writes the values that get extents of their own; `None` for the others.
    pub(super) fn write_large(&self, writes: &[Write<'_>]) -> Result<Vec<Option<Large>>> {
        let large_of = |write: &Write<'_>| match write {
            Write::Message { dataset, kind: Kind::Put, payload, preference, .. }
                if payload.len() >= dataset.tree.options().large_value_bytes =>
            {
                Some(preference.or(dataset.tree.options().preference))
            }
            _ => None,
        };
        let bytes = |write: &Write<'_>| match write {
            Write::Message { payload, .. } if large_of(write).is_some() => Some(payload.len()),
            _ => None,
        };
        let (count, total) =
            writes.iter().filter_map(bytes).fold((0, 0), |(count, total), bytes| (count + 1, total + bytes));
        if count == 0 {
            return Ok(Vec::new());
        }
        let one = count == 1 && total <= REQUEST_BYTES_MAX;
        let mut large: Vec<Option<Large>> = Vec::with_capacity(writes.len());
        // Behind what it writes to, so that it is done before that is given back.
        let mut requests = Requests { core: self, batch: (!one).then(|| self.dmu.write_batch()) };
        let mut neighbours = Neighbours::default();
        for write in writes {
            let (Write::Message { payload, .. }, Some(preference)) = (write, large_of(write)) else {
                large.push(None);
                continue;
            };
            let behind = self.write_behind(payload, preference)?;
            let is_behind = behind.is_some();
            let pointer = behind.map_or_else(|| self.allocate_large(payload, preference), Ok)?;
            let (encoded, bytes) = (pointer.encode(), pointer.stored_bytes());
            let space = OwnedExtents::unborn(&self.dmu, pointer.extents);
            if !is_behind {
                neighbours.add(space.extents(), payload, &mut requests)?;
            }
            large.push(Some(Large { pointer: encoded, space, bytes }));
        }
        neighbours.write(&mut requests)?;
        if let Some(batch) = requests.batch {
            batch.finish()?;
        }
        Ok(large)
    }

    /// A short value, for which nobody waits; `None` for one that is written here.
    fn write_behind(&self, bytes: &[u8], preference: StoragePreference) -> Result<Option<LargeValue>> {
        let taken = self.dmu.write_behind(bytes, preference).map_err(|error| {
            let error = Error::from(error);
            // One that had been acknowledged: nothing more is.
            if self.dmu.has_lost_writes() {
                self.fail(error.clone());
            }
            error
        })?;
        Ok(taken.map(|extent| LargeValue::at(vec![extent], bytes)))
    }

    fn allocate_large(&self, bytes: &[u8], preference: StoragePreference) -> Result<LargeValue> {
        let mut tries = 0;
        loop {
            match LargeValue::allocate(&self.dmu, bytes, preference, Privilege::User) {
                Err(DmuError::OutOfSpace { .. }) if tries < 2 => {
                    tries += 1;
                    let class = self.dmu.class_of(preference);
                    // What is left may be scattered, which is why there was no room.
                    let blocks = self.dmu.scattered_blocks(class, blocks_for(bytes.len() as u64)) + 2;
                    self.reclaim(class, Privilege::User, blocks * BLOCK_BYTES_U64)?;
                }
                allocated => return Ok(allocated?),
            }
        }
    }
}
