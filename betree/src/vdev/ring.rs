//! Reads of files that one thread has under way at once, by `io_uring`.
//!
//! The thread makes requests and later looks which of them arrived; no other thread is woken for either. Axboe, "Efficient IO
//! with io_uring" (2019), says how the kernel and a process share the two rings.

use super::{BlockDevice, Operation, VdevError};
use crate::base::buffer::AlignedBuffer;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use rustix::io::Errno;
use slab::Slab;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most reads that may be under way.
pub const DEPTH_MAX: u32 = 4096;

/// How often the kernel is asked again, when the ring is dropped, to wait for what is under way.
const WAITS_MAX: u32 = 500;

/// Reads under way, each with what belongs to it.
///
/// Dropping it waits for them: their buffers are the kernel's until then.
pub struct ReadRing<T> {
    ring: IoUring,
    /// Dropped when it is empty alone: buffers that the kernel may write to are never anybody else's.
    reads: ManuallyDrop<Slab<Read<T>>>,
    depth: usize,
}

struct Read<T> {
    /// Its file stays open.
    device: Arc<dyn BlockDevice>,
    offset: u64,
    buffer: AlignedBuffer,
    payload: T,
}

/// A read that arrived.
#[derive(Debug)]
pub struct Arrived<T> {
    /// What belongs to it.
    pub payload: T,
    /// What was read, when `result` is no error; else unspecified.
    pub buffer: AlignedBuffer,
    /// Whether the buffer was filled.
    pub result: Result<(), VdevError>,
}

impl<T> std::fmt::Debug for ReadRing<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadRing").field("reads", &self.reads.len()).field("depth", &self.depth).finish()
    }
}

impl<T> ReadRing<T> {
    /// A ring for up to `depth` reads, 1…[`DEPTH_MAX`].
    ///
    /// # Errors
    /// The operating system has no `io_uring` (Linux before 5.11), or does not let this process have one.
    pub fn new(depth: u32) -> io::Result<Self> {
        let depth = depth.clamp(1, DEPTH_MAX);
        // Completions are noted when this thread is in the kernel anyway, where Linux knows how (5.19); a flag says that there are some.
        let cooperative = IoUring::builder().setup_coop_taskrun().setup_taskrun_flag().build(depth);
        let ring = cooperative.or_else(|_| IoUring::builder().build(depth))?;
        if !ring.params().is_feature_ext_arg() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self { ring, reads: ManuallyDrop::new(Slab::new()), depth: depth as usize })
    }

    /// How many reads are under way.
    pub fn len(&self) -> usize {
        self.reads.len()
    }

    /// Whether no more can be pushed before one is popped.
    pub fn is_full(&self) -> bool {
        self.reads.len() >= self.depth
    }

    /// Adds a read of `device` from byte `offset` that fills `buffer`, all aligned as for [`BlockDevice::read_at`]. It is on its way
    /// after the next [`ReadRing::submit`] or [`ReadRing::wait`].
    ///
    /// # Errors
    /// The payload, when the ring is full or the device has no file.
    pub fn push(
        &mut self,
        device: Arc<dyn BlockDevice>,
        offset: u64,
        buffer: AlignedBuffer,
        payload: T,
    ) -> Result<(), T> {
        let Some(file) = device.file().map(|file| Fd(file.as_raw_fd())) else { return Err(payload) };
        let Ok(length) = u32::try_from(buffer.len()) else { return Err(payload) };
        if self.is_full() {
            return Err(payload);
        }
        let entry = self.reads.vacant_entry();
        let key = entry.key() as u64;
        let read = entry.insert(Read { device, offset, buffer, payload });
        let request =
            opcode::Read::new(file, read.buffer.as_mut_ptr(), length).offset(offset).build().user_data(key);
        // SAFETY: buffer and file live in `reads`, which gives them away when the kernel is done with the request, or never.
        let pushed = unsafe { self.ring.submission().push(&request) };
        match pushed {
            Ok(()) => Ok(()),
            // There are as many places as reads.
            Err(_) => Err(self.reads.remove(key as usize).payload),
        }
    }

    /// Sends what was pushed on its way.
    ///
    /// # Errors
    /// The kernel has no memory for it now; it is sent later.
    pub fn submit(&mut self) -> Result<(), VdevError> {
        if self.ring.submission().is_empty() { Ok(()) } else { entered(self.ring.submit()) }
    }

    /// As [`ReadRing::submit`], and waits until `least` reads have arrived, all have, or until `deadline`.
    ///
    /// # Errors
    /// As [`ReadRing::submit`].
    pub fn wait(&mut self, least: usize, deadline: Option<Instant>) -> Result<(), VdevError> {
        let least = least.min(self.reads.len());
        loop {
            let wanted = least.saturating_sub(self.ring.completion().len());
            let submission = self.ring.submission();
            let is_idle = submission.is_empty() && !submission.taskrun();
            drop(submission);
            if wanted == 0 && is_idle {
                return Ok(());
            }
            match deadline {
                None => entered(self.ring.submit_and_wait(least))?,
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let left = Timespec::from(left);
                    let arguments = SubmitArgs::new().timespec(&left);
                    match self.ring.submitter().submit_with_args(least, &arguments) {
                        Err(error) if error.raw_os_error() == Some(Errno::TIME.raw_os_error()) => {
                            return Ok(());
                        }
                        waited => entered(waited)?,
                    }
                }
            }
        }
    }

    /// The next read that arrived.
    pub fn pop(&mut self) -> Option<Arrived<T>> {
        let entry = self.ring.completion().next()?;
        let Read { device, offset, buffer, payload } = self.reads.try_remove(entry.user_data() as usize)?;
        let failed = |source| VdevError::Io {
            device: device.name().to_owned(),
            operation: Operation::Read,
            offset,
            source,
        };
        let result = match usize::try_from(entry.result()) {
            Ok(bytes) if bytes == buffer.len() => Ok(()),
            Ok(_) => Err(failed(io::ErrorKind::UnexpectedEof.into())),
            Err(_) => Err(failed(io::Error::from_raw_os_error(-entry.result()))),
        };
        Some(Arrived { payload, buffer, result })
    }
}

/// A signal is no reason to give up.
fn entered(result: io::Result<usize>) -> Result<(), VdevError> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::Interrupted => Err(VdevError::Io {
            device: String::from("io_uring"),
            operation: Operation::Read,
            offset: 0,
            source,
        }),
        _ => Ok(()),
    }
}

impl<T> Drop for ReadRing<T> {
    fn drop(&mut self) {
        let mut tries = 0;
        while !self.reads.is_empty() {
            match self.wait(1, None) {
                Ok(()) => while self.pop().is_some() {},
                // The kernel has no memory for it now.
                Err(_) if tries < WAITS_MAX => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => {
                    log::error!("{error}; the memory of {} reads is not given back", self.reads.len());
                    return;
                }
            }
        }
        // SAFETY: `self` is being dropped, and nobody uses it after this.
        unsafe { ManuallyDrop::drop(&mut self.reads) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::BLOCK_BYTES;
    use crate::vdev::{FileDevice, MemoryDevice};

    /// A ring, or `None` after saying that the system has none; with `BETREE_CHECK` set that is a failure.
    fn ring(depth: u32) -> Option<ReadRing<u64>> {
        match ReadRing::new(depth) {
            Ok(ring) => Some(ring),
            Err(error) => {
                assert!(std::env::var_os("BETREE_CHECK").is_none(), "{error}");
                println!("left out: this system has no io_uring: {error}");
                None
            }
        }
    }

    /// A file of `blocks` blocks, each of which is its number.
    fn file(blocks: u8) -> (tempfile::TempDir, Arc<dyn BlockDevice>) {
        let folder = tempfile::tempdir().unwrap();
        let bytes = u64::from(blocks) * BLOCK_BYTES as u64;
        let device = FileDevice::create(&folder.path().join("file"), bytes, false, true).unwrap();
        for block in 0..blocks {
            device.write_at(&[block; BLOCK_BYTES], u64::from(block) * BLOCK_BYTES as u64).unwrap();
        }
        (folder, Arc::new(device))
    }

    fn push(ring: &mut ReadRing<u64>, device: &Arc<dyn BlockDevice>, block: u64) -> Result<(), u64> {
        let buffer = AlignedBuffer::recycled(BLOCK_BYTES);
        ring.push(Arc::clone(device), block * BLOCK_BYTES as u64, buffer, block)
    }

    #[test]
    fn every_read_arrives_once_with_its_bytes() {
        let (_folder, device) = file(200);
        let Some(mut ring) = ring(32) else { return };
        let mut arrived = vec![0; 200];
        let mut next = 0;
        while arrived.iter().sum::<u32>() < 200 {
            while next < 200 && push(&mut ring, &device, next).is_ok() {
                next += 1;
            }
            assert!(ring.len() <= 32);
            ring.wait(1, None).unwrap();
            while let Some(read) = ring.pop() {
                read.result.unwrap();
                assert!(read.buffer.iter().all(|byte| u64::from(*byte) == read.payload));
                arrived[read.payload as usize] += 1;
            }
        }
        assert!(arrived.iter().all(|times| *times == 1) && ring.len() == 0);
        // Nothing is under way: nothing to wait for.
        ring.wait(1, None).unwrap();
        assert!(ring.pop().is_none());
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_it() {
        let (_folder, device) = file(2);
        let Some(mut ring) = ring(4) else { return };
        push(&mut ring, &device, 1).unwrap();
        push(&mut ring, &device, 2).unwrap();
        let longer = AlignedBuffer::recycled(2 * BLOCK_BYTES);
        ring.push(Arc::clone(&device), BLOCK_BYTES as u64, longer, 3).unwrap();
        ring.wait(3, None).unwrap();
        let mut found: Vec<(u64, bool)> = std::iter::from_fn(|| ring.pop())
            .map(|read| match read.result {
                Ok(()) => (read.payload, true),
                Err(VdevError::Io { device: name, operation: Operation::Read, .. }) => {
                    assert_eq!(name, device.name());
                    (read.payload, false)
                }
                Err(error) => panic!("{error}"),
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, [(1, true), (2, false), (3, false)]);
    }

    #[test]
    fn what_has_no_file_or_no_place_is_given_back() {
        let (_folder, device) = file(8);
        let Some(mut ring) = ring(4) else { return };
        let memory: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(1 << 20));
        assert_eq!(push(&mut ring, &memory, 0), Err(0));
        (0..4).for_each(|block| push(&mut ring, &device, block).unwrap());
        assert_eq!(push(&mut ring, &device, 7), Err(7));
        assert!(ring.is_full());
        // Waits for what is under way.
        drop(ring);
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let Some(mut ring) = ring(4) else { return };
        let (_folder, device) = file(1);
        push(&mut ring, &device, 0).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        ring.wait(1, Some(deadline)).unwrap();
        assert!(ring.pop().is_some());
        // A pipe that nobody writes to never arrives.
        let pipe = std::io::pipe().unwrap();
        let device: Arc<dyn BlockDevice> = Arc::new(Pipe(pipe.0));
        push(&mut ring, &device, 0).unwrap();
        ring.wait(1, Some(Instant::now() + Duration::from_millis(1))).unwrap();
        assert!(ring.pop().is_none());
        drop(pipe.1);
        ring.wait(1, None).unwrap();
        assert!(ring.pop().unwrap().result.is_err());
    }

    #[derive(Debug)]
    struct Pipe(std::io::PipeReader);

    impl BlockDevice for Pipe {
        fn name(&self) -> &str {
            "pipe"
        }

        fn len(&self) -> u64 {
            BLOCK_BYTES as u64
        }

        fn file(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
            Some(std::os::fd::AsFd::as_fd(&self.0))
        }

        fn read_at(&self, _buf: &mut [u8], _offset: u64) -> Result<(), VdevError> {
            unreachable!("it is read by the ring")
        }

        fn write_at(&self, _buf: &[u8], _offset: u64) -> Result<(), VdevError> {
            unreachable!("it is read by the ring")
        }

        fn flush(&self) -> Result<(), VdevError> {
            Ok(())
        }
    }
}
