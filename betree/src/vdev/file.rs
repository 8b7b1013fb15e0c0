//! A regular file or a block device.

use super::error::check_bounds;
use super::{BlockDevice, Operation, VdevError};
use crate::base::buffer::AlignedBuffer;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, IoSlice, IoSliceMut, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Bytes copied at once when the caller's memory is not aligned for direct I/O: bounds the extra memory.
const BOUNCE_BYTES: usize = 1 << 20;

/// How often, and how long apart, the lock of a block device is tried again. The device manager of the system takes a
/// shared lock while it looks at a disk, which it does whenever a writer has closed it (systemd, "Locking Block
/// Device Access"). A second pool does not wait for this: it already fails in opening with `O_EXCL`.
const BLOCK_DEVICE_LOCK_TRIES: u32 = 50;
const BLOCK_DEVICE_LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A regular file or block device, open and locked for as long as this value lives.
#[derive(Debug)]
pub struct FileDevice {
    name: String,
    file: File,
    len: u64,
    direct: bool,
    read_only: bool,
    /// Error number of the first flush that failed. Held during a flush: when two flushes of one descriptor overlap,
    /// Linux tells only one of them that a page was lost (`errseq_t`), and the other must not report success.
    failed_flush: Mutex<Option<Errno>>,
}

impl Drop for FileDevice {
    /// Gives the lock back.
    ///
    /// Closing alone does so only with the last descriptor of the open file, and a process that another thread is
    /// starting has copies of all descriptors between `fork` and `exec`.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            log::warn!("the lock of {} could not be given back before it was closed: {error}", self.name);
        }
    }
}

impl FileDevice {
    /// Opens an existing file or block device.
    ///
    /// `direct` bypasses the page cache. `read_only` takes a shared lock instead of the exclusive one, so that several
    /// readers are let in while there is no writer. The length of a regular file is rounded down to whole 4 KiB
    /// blocks.
    ///
    /// # Errors
    /// [`VdevError::InUse`], [`VdevError::NoDirectIo`], [`VdevError::Unsuitable`] (neither file nor block device, or
    /// shorter than a block), [`VdevError::Io`]. Nothing on the device has changed.
    pub fn open(path: &Path, direct: bool, read_only: bool) -> Result<Self, VdevError> {
        let name = path.display().to_string();
        let found = fs::metadata(path).map_err(|source| failed(&name, Operation::Open, source))?;
        let block_device = found.file_type().is_block_device();
        if !found.is_file() && !block_device {
            return Err(unsuitable(&name, "it is neither a regular file nor a block device"));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(!read_only);
        if block_device && !read_only {
            // Also refuses devices that are mounted or part of an array.
            options.custom_flags(OFlags::EXCL.bits().cast_signed());
        }
        let file = options.open(path).map_err(|source| match source.raw_os_error() {
            Some(errno) if block_device && errno == Errno::BUSY.raw_os_error() => {
                VdevError::InUse { device: name.clone(), holder: holder_of(&found) }
            }
            _ => failed(&name, Operation::Open, source),
        })?;
        let tries = if block_device && !read_only { BLOCK_DEVICE_LOCK_TRIES } else { 1 };
        let held = lock(&file, path, &name, read_only, tries)?;
        let bytes = if held.file_type().is_block_device() {
            (&file).seek(SeekFrom::End(0)).map_err(|source| failed(&name, Operation::Open, source))?
        } else {
            held.len()
        };
        Self::with_locked(file, name, bytes, direct, read_only)
    }

    /// Creates a regular file of `bytes` bytes (rounded down to whole 4 KiB blocks) that reads as zeros, and makes it
    /// durable together with its name.
    ///
    /// Space is preallocated unless `sparse`: a preallocated file does not run into a full host file system later.
    /// An empty file that exists already is used.
    ///
    /// # Errors
    /// [`VdevError::NotEmpty`] when the file has bytes, [`VdevError::Unsuitable`] when it is not a regular file, when
    /// `bytes` is less than a block or the file system cannot preallocate, [`VdevError::InUse`],
    /// [`VdevError::NoDirectIo`], [`VdevError::Io`] (see [`VdevError::is_out_of_space`]). A file that was created here
    /// is removed again, one that was empty before is empty.
    pub fn create(path: &Path, bytes: u64, direct: bool, sparse: bool) -> Result<Self, VdevError> {
        Self::make(path, bytes, direct, sparse).map(|(device, _)| device)
    }

    /// As [`FileDevice::create`]; whether there was no file before.
    fn make(path: &Path, bytes: u64, direct: bool, sparse: bool) -> Result<(Self, bool), VdevError> {
        let name = path.display().to_string();
        let len = whole_blocks(bytes);
        if len == 0 {
            return Err(unsuitable(&name, &format!("{bytes} bytes are less than a block of 4096")));
        }
        let (file, created) = create_or_open_empty(path, &name)?;
        let held = lock(&file, path, &name, false, 1)?;
        if held.len() > 0 {
            return Err(VdevError::NotEmpty { device: name, bytes: held.len() });
        }
        let undo = file.try_clone().map_err(|source| failed(&name, Operation::Open, source))?;
        let device = allocate(&file, path, &name, len, sparse)
            .and_then(|()| Self::with_locked(file, name.clone(), len, direct, false));
        if device.is_err() {
            // Still locked through `undo`, so that nobody takes the half-made file for an empty one.
            unmake(&undo, path, created);
        }
        device.map(|device| (device, created))
    }

    /// Finishes opening: `file` is locked and has `bytes` bytes.
    fn with_locked(
        file: File,
        name: String,
        bytes: u64,
        direct: bool,
        read_only: bool,
    ) -> Result<Self, VdevError> {
        let len = whole_blocks(bytes);
        if len == 0 {
            return Err(unsuitable(&name, &format!("its {bytes} bytes are less than a block of 4096")));
        }
        if direct {
            set_direct(&file, &name)?;
        }
        Ok(Self { name, file, len, direct, read_only, failed_flush: Mutex::new(None) })
    }

    /// Bytes that a short transfer must be made of to count: the next one starts behind them, aligned if direct.
    fn unit(&self) -> usize {
        if self.direct { BLOCK_BYTES } else { 1 }
    }

    fn read_all(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
        transfer(buf.len(), self.unit(), io::ErrorKind::UnexpectedEof, |done| {
            self.file.read_at(&mut buf[done..], offset + done as u64)
        })
        .map_err(|source| self.failed_at(Operation::Read, offset, source))
    }

    fn write_all(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
        transfer(buf.len(), self.unit(), io::ErrorKind::WriteZero, |done| {
            self.file.write_at(&buf[done..], offset + done as u64)
        })
        .map_err(|source| self.failed_at(Operation::Write, offset, source))
    }

    fn failed_at(&self, operation: Operation, offset: u64, source: io::Error) -> VdevError {
        VdevError::Io { device: self.name.clone(), operation, offset, source }
    }
}

/// A file that was made for something that may still not come about: dropped, it is removed, or empty as it was before.
#[derive(Debug)]
pub struct NewFile {
    device: Arc<FileDevice>,
    path: PathBuf,
    created: bool,
    is_kept: bool,
}

impl NewFile {
    /// As [`FileDevice::create`].
    ///
    /// # Errors
    /// As [`FileDevice::create`].
    pub fn make(path: &Path, bytes: u64, direct: bool, sparse: bool) -> Result<Self, VdevError> {
        let (device, created) = FileDevice::make(path, bytes, direct, sparse)?;
        Ok(Self { device: Arc::new(device), path: path.to_owned(), created, is_kept: false })
    }

    /// The device.
    pub fn device(&self) -> Arc<FileDevice> {
        Arc::clone(&self.device)
    }

    /// It stays.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_kept {
            unmake(&self.device.file, &self.path, self.created);
        }
    }
}

impl BlockDevice for FileDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
        check_bounds(&self.name, Operation::Read, offset, buf.len(), self.len)?;
        if !self.direct || is_aligned(buf) {
            return self.read_all(buf, offset);
        }
        let mut bounce = AlignedBuffer::recycled(BOUNCE_BYTES.min(buf.len()));
        let mut at = offset;
        for part in buf.chunks_mut(BOUNCE_BYTES) {
            let bounce = &mut bounce[..part.len()];
            self.read_all(bounce, at)?;
            part.copy_from_slice(bounce);
            at += part.len() as u64;
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
        check_bounds(&self.name, Operation::Write, offset, buf.len(), self.len)?;
        if self.read_only {
            let source = io::ErrorKind::ReadOnlyFilesystem.into();
            return Err(self.failed_at(Operation::Write, offset, source));
        }
        if !self.direct || is_aligned(buf) {
            return self.write_all(buf, offset);
        }
        let mut bounce = AlignedBuffer::recycled(BOUNCE_BYTES.min(buf.len()));
        let mut at = offset;
        for part in buf.chunks(BOUNCE_BYTES) {
            let bounce = &mut bounce[..part.len()];
            bounce.copy_from_slice(part);
            self.write_all(bounce, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn read_vectored_at(&self, mut bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<(), VdevError> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        check_bounds(&self.name, Operation::Read, offset, length, self.len)?;
        let mut at = offset;
        if self.direct && bufs.iter().any(|buf| !is_aligned(buf)) {
            for buf in bufs {
                self.read_at(buf, at)?;
                at += buf.len() as u64;
            }
            return Ok(());
        }
        transfer(length, self.unit(), io::ErrorKind::UnexpectedEof, |done| {
            IoSliceMut::advance_slices(&mut bufs, done - (at - offset) as usize);
            at = offset + done as u64;
            // Of more buffers than the system takes at once, it is given as many.
            Ok(rustix::io::preadv(&self.file, bufs, at)?)
        })
        .map_err(|source| self.failed_at(Operation::Read, offset, source))
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<(), VdevError> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        check_bounds(&self.name, Operation::Write, offset, length, self.len)?;
        let mut at = offset;
        if self.read_only || self.direct && bufs.iter().any(|buf| !is_aligned(buf)) {
            for buf in bufs {
                self.write_at(buf, at)?;
                at += buf.len() as u64;
            }
            return Ok(());
        }
        let mut bufs = bufs.to_vec();
        let mut bufs = &mut bufs[..];
        transfer(length, self.unit(), io::ErrorKind::WriteZero, |done| {
            IoSlice::advance_slices(&mut bufs, done - (at - offset) as usize);
            at = offset + done as u64;
            Ok(rustix::io::pwritev(&self.file, bufs, at)?)
        })
        .map_err(|source| self.failed_at(Operation::Write, offset, source))
    }

    fn flush(&self) -> Result<(), VdevError> {
        if self.read_only {
            return Ok(());
        }
        let mut failed_flush = self.failed_flush.lock();
        let errno = match *failed_flush {
            Some(errno) => errno,
            // Not through the standard library, which would repeat an interrupted call.
            None => match rustix::fs::fdatasync(&self.file) {
                Ok(()) => return Ok(()),
                Err(errno) => errno,
            },
        };
        *failed_flush = Some(errno);
        Err(self.failed_at(Operation::Flush, 0, errno.into()))
    }
}

fn whole_blocks(bytes: u64) -> u64 {
    bytes / BLOCK_BYTES_U64 * BLOCK_BYTES_U64
}

fn is_aligned(buf: &[u8]) -> bool {
    buf.as_ptr().addr().is_multiple_of(BLOCK_BYTES)
}

fn failed(name: &str, operation: Operation, source: io::Error) -> VdevError {
    VdevError::Io { device: name.to_owned(), operation, offset: 0, source }
}

fn unsuitable(name: &str, reason: &str) -> VdevError {
    VdevError::Unsuitable { device: name.to_owned(), reason: reason.to_owned() }
}

/// Calls `step(done)` until `length` bytes are done, counting whole multiples of `unit` only.
///
/// A step that moves nothing ends it with `nothing`: repeating it could go on for ever.
fn transfer(
    length: usize,
    unit: usize,
    nothing: io::ErrorKind,
    mut step: impl FnMut(usize) -> io::Result<usize>,
) -> io::Result<()> {
    let mut done = 0;
    while done < length {
        match step(done) {
            Ok(moved) => {
                let moved = moved.min(length - done) / unit * unit;
                if moved == 0 {
                    return Err(nothing.into());
                }
                done += moved;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Empties `file`, which is at `path`, locked, and was just made; removes it when it was `created`.
fn unmake(file: &File, path: &Path, created: bool) {
    let is_named = || -> io::Result<bool> {
        let (held, named) = (file.metadata()?, fs::metadata(path)?);
        Ok((held.dev(), held.ino()) == (named.dev(), named.ino()))
    };
    let emptied = file.set_len(0);
    let removed = is_named().and_then(|is_named| match created && is_named {
        true => fs::remove_file(path),
        false => Ok(()),
    });
    if let Err(error) = emptied.and(removed) {
        log::warn!("{} could not be removed after it was made in vain: {error}", path.display());
    }
}

/// The file at `path`, and whether it was created now.
fn create_or_open_empty(path: &Path, name: &str) -> Result<(File, bool), VdevError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.clone().create_new(true).open(path) {
        Ok(file) => return Ok((file, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(failed(name, Operation::Open, source)),
    }
    let found = fs::metadata(path).map_err(|source| failed(name, Operation::Open, source))?;
    if !found.is_file() {
        return Err(unsuitable(name, "it exists and is not a regular file"));
    }
    let file = options.open(path).map_err(|source| failed(name, Operation::Open, source))?;
    Ok((file, false))
}

/// Gives the empty `file` its length, and makes it and its name durable.
fn allocate(file: &File, path: &Path, name: &str, len: u64, sparse: bool) -> Result<(), VdevError> {
    let created = |result: io::Result<()>| result.map_err(|source| failed(name, Operation::Open, source));
    if sparse {
        created(file.set_len(len))?;
    } else {
        loop {
            match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP) => {
                    let reason = "its file system cannot preallocate; set \"sparse\": true to go without";
                    return Err(unsuitable(name, reason));
                }
                Err(errno) => return created(Err(errno.into())),
            }
        }
    }
    let durable = || {
        file.sync_all()?;
        match fs::canonicalize(path)?.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    durable().map_err(|source| failed(name, Operation::Flush, source))
}

/// Takes the lock, and returns what the locked file is.
fn lock(file: &File, path: &Path, name: &str, shared: bool, mut tries: u32) -> Result<Metadata, VdevError> {
    let locking = |source| failed(name, Operation::Lock, source);
    let held = file.metadata().map_err(locking)?;
    loop {
        tries -= 1;
        match if shared { file.try_lock_shared() } else { file.try_lock() } {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if tries > 0 => std::thread::sleep(BLOCK_DEVICE_LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(VdevError::InUse { device: name.to_owned(), holder: holder_of(&held) });
            }
            Err(TryLockError::Error(source)) => return Err(locking(source)),
        }
    }
    // Whoever held the lock until now may have written to the file, replaced or removed it.
    let (held, named) = (file.metadata().map_err(locking)?, fs::metadata(path).map_err(locking)?);
    if (held.dev(), held.ino()) != (named.dev(), named.ino()) {
        return Err(unsuitable(name, "it was replaced while it was being opened"));
    }
    Ok(held)
}

/// Process that holds a lock on the file, where the system tells.
fn holder_of(file: &Metadata) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    find_holder(&locks, rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()), file.ino())
}

/// Finds `major:minor:inode` in lines like `1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`. Lines of waiting
/// processes have an arrow as their second word.
fn find_holder(locks: &str, major: u32, minor: u32, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = words[..] else { return None };
        let mut place = place.split(':');
        let same = u32::from_str_radix(place.next()?, 16) == Ok(major)
            && u32::from_str_radix(place.next()?, 16) == Ok(minor)
            && place.next()?.parse() == Ok(inode);
        if same { pid.parse().ok().filter(|pid| *pid != 0) } else { None }
    })
}

/// Switches to direct I/O.
///
/// On the open descriptor, because opening with `O_CREAT | O_DIRECT` leaves a file behind where it is refused, and
/// tried out with a read, because some file systems accept the flag and refuse the I/O.
fn set_direct(file: &File, name: &str) -> Result<(), VdevError> {
    let refused = |errno: Errno| match errno {
        Errno::INVAL | Errno::OPNOTSUPP => VdevError::NoDirectIo { device: name.to_owned() },
        errno => failed(name, Operation::Open, errno.into()),
    };
    if let Ok(sector_bytes) = rustix::fs::ioctl_blksszget(file)
        && sector_bytes as usize > BLOCK_BYTES
    {
        let reason = format!("its sectors of {sector_bytes} bytes exceed a block of 4096");
        return Err(unsuitable(name, &reason));
    }
    let flags = rustix::fs::fcntl_getfl(file).map_err(refused)?;
    rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT).map_err(refused)?;
    let mut block = AlignedBuffer::recycled(BLOCK_BYTES);
    match file.read_at(&mut block, 0) {
        // Any other failure is met again, and dealt with, by who reads the block in earnest.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Err(refused(Errno::INVAL)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|i| ((i + seed) % 251) as u8).collect()
    }

    /// Direct I/O where the temporary directory has it.
    fn modes(directory: &Path) -> Vec<bool> {
        let path = directory.join("probe");
        match FileDevice::create(&path, 4096, true, true) {
            Ok(_) => vec![false, true],
            Err(VdevError::NoDirectIo { .. }) => {
                assert!(!path.exists(), "a refused file is removed");
                vec![false]
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn what_was_made_in_vain_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (new, empty) = (folder.path().join("new"), folder.path().join("empty"));
        fs::write(&empty, b"").unwrap();
        let make = |path: &Path| {
            let made = NewFile::make(path, 8192, false, false).unwrap();
            made.device().write_at(&[7; BLOCK_BYTES], 0).unwrap();
            made
        };
        for path in [&new, &empty] {
            drop(make(path));
        }
        assert!(!new.exists());
        assert_eq!(fs::metadata(&empty).unwrap().len(), 0);

        // Another one that is there by now is nobody's business.
        let made = make(&new);
        fs::rename(&new, folder.path().join("moved")).unwrap();
        fs::write(&new, b"another").unwrap();
        drop(made);
        assert_eq!(fs::read(&new).unwrap(), b"another");

        make(&empty).keep();
        assert_eq!(fs::metadata(&empty).unwrap().len(), 8192);
    }

    #[test]
    fn a_copy_of_the_descriptor_keeps_no_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("device");
        let device = FileDevice::create(&path, 4096, false, true).unwrap();
        // As a process has it that was forked and has not yet replaced itself.
        let copy = device.file.try_clone().unwrap();
        assert!(matches!(FileDevice::open(&path, false, false), Err(VdevError::InUse { .. })));
        drop(device);
        drop(FileDevice::open(&path, false, false).unwrap());
        drop(copy);
    }

    #[test]
    fn what_is_written_is_read_with_any_alignment_of_memory() {
        let directory = tempfile::tempdir().unwrap();
        for direct in modes(directory.path()) {
            let path = directory.path().join(format!("direct-{direct}"));
            let device = FileDevice::create(&path, (3 << 20) + 5000, direct, false).unwrap();
            assert_eq!(device.len(), (3 << 20) + 4096);
            assert!(!device.is_volatile());

            let data = pattern((1 << 20) + 8192, 1);
            let mut memory = AlignedBuffer::zeroed(data.len() + 4096);
            for shift in [0, 1, 512] {
                memory[shift..shift + data.len()].copy_from_slice(&data);
                device.write_at(&memory[shift..shift + data.len()], 4096).unwrap();
                device.flush().unwrap();
                memory.fill(0);
                device.read_at(&mut memory[shift..shift + data.len()], 4096).unwrap();
                assert_eq!(&memory[shift..shift + data.len()], &data[..], "direct {direct}, shift {shift}");
            }
            drop(device);

            let device = FileDevice::open(&path, direct, true).unwrap();
            let mut block = AlignedBuffer::zeroed(4096);
            device.read_at(&mut block, 4096 + 8192).unwrap();
            assert_eq!(&block[..], &data[8192..12_288]);
            device.read_at(&mut block, 0).unwrap();
            assert!(block.iter().all(|byte| *byte == 0), "never written");
        }
    }

    #[test]
    fn several_buffers_are_one_after_the_other() {
        let directory = tempfile::tempdir().unwrap();
        for direct in modes(directory.path()) {
            let path = directory.path().join(format!("vectored-{direct}"));
            let device = FileDevice::create(&path, 10 << 20, direct, false).unwrap();
            // Lengths in blocks: more buffers than the system takes at once, and some with nothing in them.
            for lengths in [vec![1, 3, 0, 2], vec![], vec![0], vec![1; 1029], vec![2, 300]] {
                let bytes = lengths.iter().sum::<usize>() * BLOCK_BYTES;
                let data = pattern(bytes, lengths.len());
                for shift in [0, 512] {
                    let mut memory = AlignedBuffer::zeroed(bytes + 4096);
                    memory[shift..shift + bytes].copy_from_slice(&data);
                    let mut rest = &memory[shift..shift + bytes];
                    let mut slices = Vec::new();
                    for length in &lengths {
                        let (now, later) = rest.split_at(length * BLOCK_BYTES);
                        slices.push(IoSlice::new(now));
                        rest = later;
                    }
                    device.write_vectored_at(&slices, 8192).unwrap();
                    let mut back = vec![0; bytes];
                    device.read_at(&mut back, 8192).unwrap();
                    assert!(back == data, "written, direct {direct}, shift {shift}");

                    memory.fill(0);
                    let mut rest = &mut memory[shift..shift + bytes];
                    let mut slices = Vec::new();
                    for length in &lengths {
                        let (now, later) = rest.split_at_mut(length * BLOCK_BYTES);
                        slices.push(IoSliceMut::new(now));
                        rest = later;
                    }
                    device.read_vectored_at(&mut slices, 8192).unwrap();
                    assert!(memory[shift..shift + bytes] == data, "read, direct {direct}, shift {shift}");
                }
            }
            let (mut one, mut two) = (AlignedBuffer::zeroed(4096), AlignedBuffer::zeroed(4096));
            let mut both = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
            let error = device.read_vectored_at(&mut both, (10 << 20) - 4096).unwrap_err();
            assert!(matches!(error, VdevError::OutOfBounds { length: 8192, .. }), "{error}");
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5000).unwrap();
            let error = device.read_vectored_at(&mut both, 0).unwrap_err();
            assert!(matches!(error, VdevError::Io { operation: Operation::Read, .. }), "{error}");
            let (one, two) = (&one[..], &two[..]);
            let both = [IoSlice::new(one), IoSlice::new(two)];
            let error = device.write_vectored_at(&both, (10 << 20) - 4096).unwrap_err();
            assert!(matches!(error, VdevError::OutOfBounds { .. }), "{error}");
            drop(device);
            let error = FileDevice::open(&path, direct, true).unwrap().write_vectored_at(&both[..1], 0);
            assert!(matches!(error, Err(VdevError::Io { operation: Operation::Write, .. })), "read-only");
        }
    }

    #[test]
    fn requests_outside_and_odd_ones_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, pattern(10_000, 0)).unwrap();
        let device = FileDevice::open(&path, false, false).unwrap();
        assert_eq!(device.len(), 8192, "rounded down");
        let mut buf = vec![0; 8192];
        for (length, offset) in [(4096, 8192), (8192, 4096), (100, 0), (4096, 1), (4096, u64::MAX - 4095)] {
            let error = device.read_at(&mut buf[..length], offset).unwrap_err();
            assert!(matches!(error, VdevError::OutOfBounds { .. }), "{error}");
            assert!(device.write_at(&buf[..length], offset).is_err());
        }
        device.read_at(&mut [], 8192).unwrap();
        drop(device);
        assert_eq!(fs::read(&path).unwrap(), pattern(10_000, 0));
    }

    #[test]
    fn a_file_that_shrank_under_the_device_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        for direct in modes(directory.path()) {
            let path = directory.path().join(format!("direct-{direct}"));
            let device = FileDevice::create(&path, 16_384, direct, true).unwrap();
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5000).unwrap();
            let mut buf = AlignedBuffer::zeroed(16_384);
            let error = device.read_at(&mut buf, 0).unwrap_err();
            assert!(matches!(error, VdevError::Io { operation: Operation::Read, .. }), "{error}");
        }
    }

    #[test]
    fn a_reader_does_not_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        drop(FileDevice::create(&path, 8192, false, true).unwrap());
        let device = FileDevice::open(&path, false, true).unwrap();
        let error = device.write_at(&[1; 4096], 0).unwrap_err();
        assert!(
            matches!(&error, VdevError::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem),
            "{error}"
        );
        device.flush().unwrap();
    }

    #[test]
    fn a_second_opener_is_kept_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let in_use = |result: Result<FileDevice, VdevError>| match result {
            // Some file systems (btrfs) show another device number in the table of locks than in the metadata.
            Err(VdevError::InUse { device, holder }) => {
                assert_eq!(device, path.display().to_string());
                assert!(holder.is_none_or(|pid| pid == std::process::id()), "{holder:?}");
            }
            other => panic!("{other:?}"),
        };
        let writer = FileDevice::create(&path, 8192, false, true).unwrap();
        in_use(FileDevice::open(&path, false, false));
        in_use(FileDevice::open(&path, false, true));
        in_use(FileDevice::create(&path, 8192, false, true));
        drop(writer);

        let reader = FileDevice::open(&path, false, true).unwrap();
        let another = FileDevice::open(&path, false, true).unwrap();
        in_use(FileDevice::open(&path, false, false));
        drop((reader, another));
        FileDevice::open(&path, false, false).unwrap();
    }

    #[test]
    fn the_holder_is_found_in_the_table_of_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:1234 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 fe:00:1235 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 13 fe:00:1234 0 EOF\n\
                     garbage\n\
                     4: FLOCK  ADVISORY  WRITE x fe:zz:1234 0 EOF\n\
                     5: FLOCK  ADVISORY  READ 14 fe:0a:1234 0 EOF\n";
        assert_eq!(find_holder(locks, 0xfe, 0, 1235), Some(12));
        assert_eq!(find_holder(locks, 0xfe, 10, 1234), Some(14));
        assert_eq!(find_holder(locks, 0xfe, 0, 1234), None);
        assert_eq!(find_holder("", 0xfe, 0, 1234), None);
    }

    #[test]
    fn creating_destroys_nothing_and_leaves_nothing_half_done() {
        let directory = tempfile::tempdir().unwrap();
        let full = directory.path().join("full");
        fs::write(&full, b"precious").unwrap();
        let error = FileDevice::create(&full, 8192, false, false).unwrap_err();
        assert!(matches!(error, VdevError::NotEmpty { bytes: 8, .. }), "{error}");
        assert_eq!(fs::read(&full).unwrap(), b"precious");

        let empty = directory.path().join("empty");
        fs::write(&empty, b"").unwrap();
        let device = FileDevice::create(&empty, 1 << 20, false, false).unwrap();
        assert_eq!(device.len(), 1 << 20);
        assert!(fs::metadata(&empty).unwrap().blocks() * 512 >= 1 << 20, "preallocated");
        drop(device);

        let sparse = directory.path().join("sparse");
        assert_eq!(FileDevice::create(&sparse, 1 << 30, false, true).unwrap().len(), 1 << 30);
        assert!(fs::metadata(&sparse).unwrap().blocks() * 512 < 1 << 20);

        // No file system takes a length beyond the range of a file offset.
        for sparse in [false, true] {
            let huge = directory.path().join("huge");
            assert!(FileDevice::create(&huge, 1 << 63, false, sparse).is_err());
            assert!(!huge.exists());
            fs::write(&huge, b"").unwrap();
            assert!(FileDevice::create(&huge, 1 << 63, false, sparse).is_err());
            assert_eq!(fs::metadata(&huge).unwrap().len(), 0);
            fs::remove_file(&huge).unwrap();
        }
        assert!(FileDevice::create(&directory.path().join("none"), 4095, false, true).is_err());
        assert!(!directory.path().join("none").exists());
    }

    #[test]
    fn unsuitable_paths_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let short = directory.path().join("short");
        fs::write(&short, [0; 4095]).unwrap();
        for path in [directory.path(), Path::new("/dev/null"), &short] {
            let error = FileDevice::open(path, false, true).unwrap_err();
            assert!(matches!(error, VdevError::Unsuitable { .. }), "{error}");
        }
        assert!(matches!(
            FileDevice::create(directory.path(), 8192, false, true),
            Err(VdevError::Unsuitable { .. })
        ));
        let missing = FileDevice::open(&directory.path().join("missing"), false, true).unwrap_err();
        assert!(
            matches!(&missing, VdevError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound),
            "{missing}"
        );
    }

    #[test]
    fn refused_direct_io_is_an_error_of_its_own() {
        // Files of sysfs are regular, one page long, and know no direct I/O.
        let path = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
        if fs::metadata(path).is_ok_and(|file| file.len() >= 4096) {
            let error = FileDevice::open(path, true, true).unwrap_err();
            assert!(matches!(error, VdevError::NoDirectIo { .. }), "{error}");
            FileDevice::open(path, false, true).unwrap();
        }
    }

    #[test]
    fn transfers_continue_repeat_and_end() {
        let eof = io::ErrorKind::UnexpectedEof;
        let run = |unit: usize, script: Vec<io::Result<usize>>| {
            let (mut script, mut seen) = (script.into_iter(), Vec::new());
            let result = transfer(8192, unit, eof, |done| {
                seen.push(done);
                script.next().unwrap_or(Ok(0))
            });
            (result.map_err(|error| error.kind()), seen)
        };
        let interrupted = || Err(io::ErrorKind::Interrupted.into());
        assert_eq!(run(1, vec![Ok(100), interrupted(), Ok(8092)]), (Ok(()), vec![0, 100, 100]));
        assert_eq!(run(1, vec![Ok(100)]), (Err(eof), vec![0, 100]));
        assert_eq!(run(4096, vec![Ok(5000), Ok(4096)]), (Ok(()), vec![0, 4096]));
        assert_eq!(run(4096, vec![Ok(4095)]), (Err(eof), vec![0]));
        assert_eq!(run(1, vec![Ok(100_000)]), (Ok(()), vec![0]));
        let denied = io::ErrorKind::PermissionDenied;
        assert_eq!(run(1, vec![Ok(1), Err(denied.into())]), (Err(denied), vec![0, 1]));
    }
}
