//! 4 KiB-aligned memory for direct I/O and cache frames.
//!
//! Frames come from 2 MiB slabs, one list of free frames per power-of-two size class, and go back to their list:
//! the allocator of the C library turned a 256 MiB cache of 16 KiB frames into 612 MiB, and huge pages save most TLB
//! misses of cached reads. Larger buffers are mapped on their own. A device is given each run of memory that is one to the machine, so
//! that huge pages make large requests fewer for it, too: three times as fast on one virtual disk.

use super::units::BLOCK_BYTES;
use parking_lot::Mutex;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const SLAB_BYTES: usize = 2 << 20;
const CLASS_COUNT: usize = 9; // 4 KiB … 1 MiB

/// Start addresses of free frames of one class.
static FREE: [Mutex<Vec<usize>>; CLASS_COUNT] = [const { Mutex::new(Vec::new()) }; CLASS_COUNT];

/// Owned bytes whose address and capacity are multiples of 4 KiB.
///
/// A new buffer from [`AlignedBuffer::recycled`] holds whatever its frame held before; [`AlignedBuffer::zeroed`] does not.
pub struct AlignedBuffer {
    start: NonNull<u8>,
    len: usize,
    capacity: usize,
}

// SAFETY: the buffer owns its memory exclusively, like a Vec<u8>.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared references only read.
unsafe impl Sync for AlignedBuffer {}

fn class_of(capacity: usize) -> usize {
    (capacity / BLOCK_BYTES).next_power_of_two().trailing_zeros() as usize
}

/// Bytes of memory that a buffer of `len` bytes takes.
#[must_use]
pub fn footprint(len: usize) -> usize {
    let capacity = len.max(1).next_multiple_of(BLOCK_BYTES);
    if class_of(capacity) < CLASS_COUNT { BLOCK_BYTES << class_of(capacity) } else { capacity }
}

impl AlignedBuffer {
    /// A buffer of `len` zero bytes.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::recycled(len);
        buffer.fill(0);
        buffer
    }

    /// A buffer of `len` bytes with unspecified (but initialised) contents, for reading into.
    #[must_use]
    pub fn recycled(len: usize) -> Self {
        let capacity = footprint(len);
        let class = class_of(capacity);
        let start = if class < CLASS_COUNT { take_frame(class) } else { allocate(capacity) };
        Self { start, len, capacity }
    }

    /// A copy of `bytes`.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::recycled(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// Bytes of memory held, at least `len`.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Shortens the buffer to `len` bytes; nothing when it is not longer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Lengthens or shortens to `len` bytes within the capacity; bytes added are zero.
    ///
    /// # Panics
    /// When `len` exceeds [`AlignedBuffer::capacity`].
    pub fn resize(&mut self, len: usize) {
        assert!(len <= self.capacity, "resize within the capacity");
        let old = self.len;
        self.len = len;
        if len > old {
            self[old..].fill(0);
        }
    }
}

/// Asks the processor to bring the 64-byte lines from `address` on into its cache; nothing waits for it.
///
/// The address need not be valid: a prefetch shows the program nothing and never faults. Nothing happens where there is
/// no stable instruction for it.
#[inline]
pub fn prefetch(address: usize, lines: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..lines {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let at = address.wrapping_add(line * 64) as *const i8;
        // SAFETY: SSE is part of x86-64, and a prefetch of any address never faults and changes nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (address, lines);
}

fn layout(capacity: usize, align: usize) -> Layout {
    match Layout::from_size_align(capacity, align) {
        Ok(layout) => layout,
        Err(_) => unreachable!("capacities are bounded by isize and alignments are powers of two"),
    }
}

/// New memory, zeroed: from [`SLAB_BYTES`] on in huge pages, from the start of one on.
fn allocate(capacity: usize) -> NonNull<u8> {
    #[cfg(all(target_os = "linux", not(miri)))]
    if capacity >= SLAB_BYTES {
        return map(capacity);
    }
    let layout = layout(capacity, BLOCK_BYTES);
    // SAFETY: the layout has a non-zero size.
    let start = unsafe { alloc_zeroed(layout) };
    NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Gives back what [`allocate`] gave for `capacity` bytes.
///
/// # Safety
/// `start` is from there, and nobody uses it any more.
unsafe fn free(start: NonNull<u8>, capacity: usize) {
    #[cfg(all(target_os = "linux", not(miri)))]
    if capacity >= SLAB_BYTES {
        // SAFETY: a whole mapping of this length, says the caller.
        let _never_fails = unsafe { libc::munmap(start.as_ptr().cast(), capacity) };
        return;
    }
    // SAFETY: allocated with the same layout, says the caller.
    unsafe { dealloc(start.as_ptr(), layout(capacity, BLOCK_BYTES)) }
}

/// A mapping of its own, since the allocator of the C library would keep its books in a page before it, and reuse huge pages
/// for small things.
#[cfg(all(target_os = "linux", not(miri)))]
fn map(capacity: usize) -> NonNull<u8> {
    let layout = layout(capacity, SLAB_BYTES);
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let reach = capacity + SLAB_BYTES;
    // SAFETY: a new mapping where there is none; of it what is before and behind the aligned part is given back.
    let start = unsafe {
        let mapped = libc::mmap(std::ptr::null_mut(), reach, protection, flags, -1, 0);
        if mapped == libc::MAP_FAILED {
            handle_alloc_error(layout);
        }
        let before = mapped.align_offset(SLAB_BYTES);
        let start = mapped.byte_add(before);
        if before > 0 {
            libc::munmap(mapped, before);
        }
        libc::munmap(start.byte_add(capacity), reach - before - capacity);
        // Advice only.
        libc::madvise(start, capacity, libc::MADV_HUGEPAGE);
        start
    };
    NonNull::new(start.cast()).unwrap_or_else(|| handle_alloc_error(layout))
}

fn take_frame(class: usize) -> NonNull<u8> {
    let mut free = FREE[class].lock();
    if free.is_empty() {
        let slab = allocate(SLAB_BYTES).as_ptr() as usize;
        let frame = BLOCK_BYTES << class;
        free.extend((0..SLAB_BYTES / frame).rev().map(|index| slab + index * frame));
    }
    match free.pop().and_then(|address| NonNull::new(address as *mut u8)) {
        Some(start) => start,
        None => unreachable!("a slab was just added to the list"),
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        let class = class_of(self.capacity);
        if class < CLASS_COUNT {
            FREE[class].lock().push(self.start.as_ptr() as usize);
        } else {
            // SAFETY: allocated in `recycled` with the same capacity, and owned by this buffer alone.
            unsafe { free(self.start, self.capacity) }
        }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is valid for `capacity ≥ len` initialised bytes owned by this buffer.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the buffer is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBuffer").field("len", &self.len).field("capacity", &self.capacity).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_distinct_and_recycled() {
        for len in [0, 1, 4096, 4097, 16_384, 100_000, 1 << 20, (1 << 20) + 1, 2 << 20, 5 << 20] {
            let mut a = AlignedBuffer::zeroed(len);
            let mut b = AlignedBuffer::zeroed(len);
            let is_huge = a.capacity() >= SLAB_BYTES && cfg!(all(target_os = "linux", not(miri)));
            let page = if is_huge { SLAB_BYTES } else { BLOCK_BYTES };
            assert_eq!(a.as_ptr() as usize % page, 0);
            assert_eq!((a.len(), a.capacity()), (len, footprint(len)));
            a.fill(1);
            b.fill(2);
            // Compared as a whole: byte by byte, Miri takes minutes.
            assert!(a[..] == vec![1; len] && b[..] == vec![2; len]);
            drop(a);
            assert!(AlignedBuffer::zeroed(len)[..] == vec![0; len]);
        }
    }

    #[test]
    fn resize_fills_with_zeros() {
        let mut buffer = AlignedBuffer::copy_of(&[7; 100]);
        buffer.truncate(10);
        buffer.resize(100);
        assert_eq!(&buffer[..10], &[7; 10]);
        assert_eq!(&buffer[10..], &[0; 90]);
    }
}
