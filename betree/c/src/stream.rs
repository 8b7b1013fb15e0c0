//! Sending snapshots as streams of bytes, and receiving them.

use crate::boundary::{bytes, call, find, given, illegal, maybe_out, optional, out_bytes, text};
use crate::bytes::ByteSlice;
use crate::database::Database;
use crate::error::Failure;
use crate::snapshot::Snapshot;
use crate::store_snapshot::StoreSnapshot;
use engine::{Compression, ReceiveOptions, Result, ResumeToken, SendOptions, SendReport, StreamKind};
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd as _;

/// Takes `length` bytes of a stream, at least one, and returns how many it took, or a negative errno; after -EINTR it is called
/// again. Called in the thread that sends, with the `context` of the call. It must return: neither longjmp nor an exception may
/// leave it.
pub type WriteFn =
    Option<unsafe extern "C" fn(context: *mut c_void, bytes: *const c_void, length: usize) -> isize>;

/// Puts up to `length` bytes of a stream into `buffer`, and returns how many, 0 at the end, or a negative errno; after -EINTR it is
/// called again. Called in the thread that receives, with the `context` of the call. It must return: neither longjmp nor an
/// exception may leave it.
pub type ReadFn =
    Option<unsafe extern "C" fn(context: *mut c_void, buffer: *mut c_void, length: usize) -> isize>;

/// A callback and what it wants to know.
struct Callback<F> {
    function: F,
    context: *mut c_void,
}

fn transferred(result: isize, length: usize) -> io::Result<usize> {
    match usize::try_from(result) {
        Ok(count) if count <= length => Ok(count),
        Ok(_) => Err(io::Error::other("the callback says that it did more than it was asked for")),
        Err(_) => {
            let errno = result.checked_neg().and_then(|errno| i32::try_from(errno).ok());
            Err(io::Error::from_raw_os_error(errno.unwrap_or(libc::EIO)))
        }
    }
}

impl Write for Callback<unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> isize> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: the caller passed the function for this, with its context; the bytes are there as long as it runs.
        let result = unsafe { (self.function)(self.context, bytes.as_ptr().cast(), bytes.len()) };
        transferred(result, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Callback<unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> isize> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the caller passed the function for this, with its context; the buffer is its own as long as it runs.
        let result = unsafe { (self.function)(self.context, buffer.as_mut_ptr().cast(), buffer.len()) };
        transferred(result, buffer.len())
    }
}

/// The file behind a descriptor that stays the caller's.
fn file_of(fd: c_int) -> Result<ManuallyDrop<File>> {
    if fd < 0 {
        return Err(illegal("fd", format!("{fd} is none")));
    }
    // SAFETY: not negative; the caller has it open as long as the call lasts, and it is not closed here.
    Ok(ManuallyDrop::new(unsafe { File::from_raw_fd(fd) }))
}

/// How the frames of a stream are compressed.
#[expect(non_camel_case_types, reason = "the names are those of C")]
#[derive(Debug)]
#[repr(C)]
#[expect(dead_code, reason = "C programs use them; they come in as numbers")]
pub enum CompressionKind {
    /// Not at all.
    BETREE_COMPRESSION_NONE = 0,
    /// LZ4.
    BETREE_COMPRESSION_LZ4 = 1,
    /// Zstandard, of a level.
    BETREE_COMPRESSION_ZSTD = 2,
}

/// How a stream is made. All zeros: not compressed, from the start.
#[derive(Debug)]
#[repr(C)]
pub struct SendSettings {
    /// One of betree_compression_t.
    compression: u32,
    /// For BETREE_COMPRESSION_ZSTD: 1 (fast) to 22 (small).
    level: u32,
    /// The token of the receiver when an earlier stream of the same snapshots was interrupted; NULL for none.
    token: *const c_void,
    /// Bytes of the token.
    token_len: usize,
}

/// What was sent.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct SendCounts {
    /// Keys with a value.
    pub puts: u64,
    /// Keys that are no longer there.
    pub deletes: u64,
    /// Bytes of these keys and values.
    pub data: u64,
    /// Bytes of the stream.
    pub bytes: u64,
    /// Bytes that all devices of the pool read meanwhile, also for others.
    pub read: u64,
}

/// What was received.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ReceiveCounts {
    /// Snapshots that were made.
    pub snapshots: u64,
    /// Keys that were set.
    pub puts: u64,
    /// Keys that were deleted.
    pub deletes: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}

fn token_of(settings: &SendSettings) -> Result<Option<ResumeToken>> {
    if settings.token.is_null() {
        return Ok(None);
    }
    Ok(Some(text("token", settings.token, settings.token_len)?.parse()?))
}

fn compression_of(settings: &SendSettings) -> Result<Compression> {
    Ok(match (settings.compression, settings.level) {
        (0, _) => Compression::None,
        (1, _) => Compression::Lz4,
        (2, level @ 1..=22) => Compression::Zstd { level: level as u8 },
        (2, level) => return Err(illegal("level", format!("{level} is not from 1 to 22"))),
        (other, _) => return Err(illegal("compression", format!("{other} is none"))),
    })
}

/// Reads the options, has `sent` send, and says what that was.
fn send(
    settings: *const SendSettings,
    counts: *mut SendCounts,
    sent: impl FnOnce(&SendOptions<'_>) -> Result<SendReport>,
) -> Result<()> {
    let counts = maybe_out("counts", counts)?;
    let settings = optional("options", settings)?;
    let token = settings.map(token_of).transpose()?.flatten();
    let compression = settings.map_or(Ok(Compression::None), compression_of)?;
    let sent = sent(&SendOptions { compression, resume: token.as_ref() })?;
    counts.set(SendCounts {
        puts: sent.puts,
        deletes: sent.deletes,
        data: sent.data,
        bytes: sent.bytes,
        read: sent.read,
    });
    Ok(())
}

fn callback(write: WriteFn, context: *mut c_void) -> Result<impl Write> {
    let function = write.ok_or_else(|| illegal("write", "it is NULL"))?;
    Ok(Callback { function, context })
}

/// Writes a snapshot to `write`: whole, or, unless `from` is NULL, what has to be done to `from` to make this one of it. `options`
/// may be NULL, as may `counts`, which says what was sent. 0, or -1 on error: the stream ends early then. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_snapshot_send(
    ss: Option<&Snapshot>,
    from: Option<&Snapshot>,
    options: *const SendSettings,
    write: WriteFn,
    context: *mut c_void,
    counts: *mut SendCounts,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (ss, mut output) = (given("ss", ss)?, callback(write, context)?);
        send(options, counts, |options| ss.0.send(from.map(|from| &from.0), options, &mut output))
    })
}

/// As betree_snapshot_send, to a file descriptor, which stays open. Writing to a pipe or socket that nobody reads raises SIGPIPE
/// unless the program ignores that. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_snapshot_send_fd(
    ss: Option<&Snapshot>,
    from: Option<&Snapshot>,
    options: *const SendSettings,
    fd: c_int,
    counts: *mut SendCounts,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (ss, mut file) = (given("ss", ss)?, file_of(fd)?);
        send(options, counts, |options| ss.0.send(from.map(|from| &from.0), options, &mut *file))
    })
}

/// As betree_snapshot_send, of a snapshot of an object store. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_snapshot_send(
    ss: Option<&StoreSnapshot>,
    from: Option<&StoreSnapshot>,
    options: *const SendSettings,
    write: WriteFn,
    context: *mut c_void,
    counts: *mut SendCounts,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (ss, mut output) = (given("ss", ss)?, callback(write, context)?);
        send(options, counts, |options| ss.0.send(from.map(|from| &from.0), options, &mut output))
    })
}

/// As betree_snapshot_send_fd, of a snapshot of an object store. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_store_snapshot_send_fd(
    ss: Option<&StoreSnapshot>,
    from: Option<&StoreSnapshot>,
    options: *const SendSettings,
    fd: c_int,
    counts: *mut SendCounts,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (ss, mut file) = (given("ss", ss)?, file_of(fd)?);
        send(options, counts, |options| ss.0.send(from.map(|from| &from.0), options, &mut *file))
    })
}

fn receive(
    db: Option<&Database>,
    name: *const c_void,
    len: usize,
    force: bool,
    input: &mut dyn Read,
    counts: *mut ReceiveCounts,
) -> Result<()> {
    let (db, name) = (given("db", db)?, bytes("name", name, len)?);
    let counts = maybe_out("counts", counts)?;
    let received = db.0.receive(name, &ReceiveOptions { force }, input)?;
    counts.set(ReceiveCounts {
        snapshots: received.received.len() as u64,
        puts: received.puts,
        deletes: received.deletes,
        bytes: received.bytes,
    });
    Ok(())
}

/// Reads a stream from `read` and makes of it the dataset or object store `name`, whichever was sent, or changes that; nothing
/// behind the end of the stream is read. With `force`, what was written since the snapshot that changes start from is lost, and a
/// snapshot that was sent whole takes the place of what has that name. `counts` may be NULL. 0, or -1 on error: the dataset or store
/// is what it was, and what came is kept for a stream that goes on there (betree_receive_token). Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_receive(
    db: Option<&Database>,
    name: *const c_void,
    len: usize,
    force: bool,
    read: ReadFn,
    context: *mut c_void,
    counts: *mut ReceiveCounts,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let function = read.ok_or_else(|| illegal("read", "it is NULL"))?;
        receive(db, name, len, force, &mut Callback { function, context }, counts)
    })
}

/// As betree_receive, from a file descriptor, which stays open. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_receive_fd(
    db: Option<&Database>,
    name: *const c_void,
    len: usize,
    force: bool,
    fd: c_int,
    counts: *mut ReceiveCounts,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || receive(db, name, len, force, &mut *file_of(fd)?, counts))
}

/// Puts what the sender needs to go on into `token`, text, when a stream into the dataset or object store `name` was interrupted
/// (into the dataset, when both have one). 0; 1 when there is nothing to go on with; -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_receive_token(
    db: Option<&Database>,
    name: *const c_void,
    len: usize,
    token: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    find(err, || {
        let (db, name, token) = (given("db", db)?, bytes("name", name, len)?, out_bytes("token", token)?);
        let unfinished = db.0.unfinished_receives()?;
        let into =
            |kind: StreamKind| unfinished.iter().find(|one| one.names.contains(&(kind, name.to_vec())));
        let found = into(StreamKind::Dataset).or_else(|| into(StreamKind::ObjectStore));
        Ok(found.map(|found| token.set(found.token.to_string().into())))
    })
}

/// Gives back what came of a stream into the dataset `name` that was interrupted. 0, or -1 on error: BETREE_ERROR_NOT_FOUND without one.
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_abort_receive(
    db: Option<&Database>,
    name: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || given("db", db)?.0.abort_receive(bytes("name", name, len)?))
}

/// As betree_abort_receive, of the object store `name`. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_abort_store_receive(
    db: Option<&Database>,
    name: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || given("db", db)?.0.abort_store_receive(bytes("name", name, len)?))
}
