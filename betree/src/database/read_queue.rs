//! Reads that one thread has under way at once.

use super::catalog::DatasetState;
use super::dataset::Dataset;
use super::error::Result;
use super::view::DatasetView;
use crate::base::buffer::AlignedBuffer;
use crate::pool::PoolError;
use crate::tree::{Begun, PartRead, PartRequest};
use crate::vdev::{Arrived, ReadRing};
use std::sync::Arc;
use std::time::Instant;

/// Reads of parts of values, up to a number of which one thread has under way at once.
///
/// What is in memory is read at once. What is not is asked of its device, by `io_uring`, and arrives later; meanwhile the thread
/// begins other reads. No other thread has a part in it, where [`Dataset::get_part`] would need one for each read under way: the device then is
/// as busy for a fraction of the processor's time.
///
/// Under way can be what one request to one file gives: a part of a value with an extent of its own
/// ([`large_value_size`](crate::DatasetConfiguration::large_value_size)) and without patches, on a leaf or a mirror, whose place in the tree is in the cache. Other
/// reads are given back as [`BegunRead::Waits`].
///
/// What is under way holds the state that it reads, and its devices: a database that is closed is not let go of before it arrived, and was taken
/// or dropped with the queue. Buffers of parts of more than 64 KiB are beside the cache's budget. All calls are for one thread at a time, and
/// best for the same one.
#[derive(Debug)]
pub struct ReadQueue {
    /// `None`: the operating system has none.
    ring: Option<ReadRing<UnderWay>>,
}

#[derive(Debug)]
struct UnderWay {
    state: Arc<DatasetState>,
    request: Box<PartRequest>,
    tag: u64,
    told: Option<PartRead>,
}

/// What is told of a part that was read: `told`, when there is something, and what the value has not is zeros then.
fn tell(read: Option<PartRead>, told: Option<PartRead>, buffer: &mut [u8]) -> Option<PartRead> {
    let Some(told) = told else { return read };
    buffer[read.map_or(0, |read| read.filled)..told.filled].fill(0);
    Some(told)
}

/// What became of a read that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BegunRead {
    /// It is done, as by [`Dataset::get_part`].
    Read(Option<PartRead>),
    /// It will arrive.
    UnderWay,
    /// Somebody has to wait for it, with [`Dataset::get_part`]: blocks of the tree are not in memory, it is not what one request gives,
    /// or there is no place in the queue.
    Waits,
}

/// A read that arrived. Its bytes are still to be verified.
#[derive(Debug)]
pub struct ArrivedRead(Arrived<UnderWay>);

impl ReadQueue {
    /// A queue for up to `depth` reads, 1 to 4,096, of whatever datasets.
    #[must_use]
    pub fn new(depth: u32) -> Self {
        let ring = ReadRing::new(depth)
            .inspect_err(|error| log::info!("reads wait for their device: there is no io_uring: {error}"));
        Self { ring: ring.ok() }
    }

    /// Whether anything can be under way: whether the operating system has `io_uring`, for this process.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.ring.is_some()
    }

    /// How many reads are under way, those that arrived and were not taken included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.as_ref().map_or(0, ReadRing::len)
    }

    /// Whether no read is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins a read of the part of the value of `key` from byte `offset` that fits into `buffer`, which has it when this says
    /// [`BegunRead::Read`], and is not needed any more in any case. `tag` says later which read arrived. It sees every write that returned before the call, and none
    /// that began after it.
    ///
    /// It is on its way after the next [`ReadQueue::submit`] or [`ReadQueue::wait`].
    ///
    /// # Errors
    /// As [`Dataset::get_part`].
    pub fn begin<M>(
        &mut self,
        dataset: &Dataset<M>,
        key: impl AsRef<[u8]>,
        offset: u64,
        buffer: &mut [u8],
        tag: u64,
    ) -> Result<BegunRead> {
        dataset.check()?;
        let begun = self.begin_in(&dataset.view(), key.as_ref(), offset, buffer, tag, None)?;
        if begun == BegunRead::Read(None) {
            // It may have been destroyed in between, and its tree emptied.
            dataset.check()?;
        }
        Ok(begun)
    }

    /// As [`ReadQueue::begin`], of what `view` sees. With `told`, that is what the read gives, and zeros where the value has less.
    pub(crate) fn begin_in(
        &mut self,
        view: &DatasetView,
        key: &[u8],
        offset: u64,
        buffer: &mut [u8],
        tag: u64,
        told: Option<PartRead>,
    ) -> Result<BegunRead> {
        let has_room = self.ring.as_ref().is_some_and(|ring| !ring.is_full());
        let request = match view.begin_part(key, offset, buffer, has_room)? {
            Begun::Read(read) => return Ok(BegunRead::Read(tell(read, told, buffer))),
            Begun::Waits => return Ok(BegunRead::Waits),
            Begun::Request(request) => request,
        };
        let Some(ring) = &mut self.ring else { return Ok(BegunRead::Waits) };
        let (device, offset) = (Arc::clone(&request.request().device), request.request().offset);
        let buffer = AlignedBuffer::recycled(request.request().bytes);
        let state = Arc::clone(view.state());
        match ring.push(device, offset, buffer, UnderWay { state, request, tag, told }) {
            Ok(()) => Ok(BegunRead::UnderWay),
            Err(_) => Ok(BegunRead::Waits),
        }
    }

    /// Sends what was begun on its way.
    ///
    /// # Errors
    /// The operating system cannot take it now. It is sent later.
    pub fn submit(&mut self) -> Result<()> {
        Ok(self.ring.as_mut().map_or(Ok(()), ReadRing::submit).map_err(PoolError::from)?)
    }

    /// As [`ReadQueue::submit`], and waits until `least` reads, or all, have arrived, or until `deadline`.
    ///
    /// # Errors
    /// As [`ReadQueue::submit`].
    pub fn wait(&mut self, least: usize, deadline: Option<Instant>) -> Result<()> {
        Ok(self.ring.as_mut().map_or(Ok(()), |ring| ring.wait(least, deadline)).map_err(PoolError::from)?)
    }

    /// The next read that arrived, in whatever order; `None` when none has.
    pub fn next_arrived(&mut self) -> Option<ArrivedRead> {
        self.ring.as_mut()?.pop().map(ArrivedRead)
    }
}

impl ArrivedRead {
    /// The tag that it was begun with.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.0.payload.tag
    }

    /// Verifies what came, and puts it into `buffer`, of at least the length that the read was begun with; says what
    /// [`Dataset::get_part`] would have said when it began, whatever became of key, dataset and database meanwhile. What is damaged, or did not come, is read again, and repaired where there is another copy.
    ///
    /// # Errors
    /// As [`Dataset::get_part`].
    ///
    /// # Panics
    /// When `buffer` is shorter than the part.
    pub fn finish(self, buffer: &mut [u8]) -> Result<Option<PartRead>> {
        let Arrived { payload: UnderWay { state, request, told, .. }, buffer: bytes, result } = self.0;
        let read = request.finish(result.map(|()| bytes), buffer).map_err(|error| state.error(error))?;
        Ok(tell(Some(read), told, buffer))
    }
}
