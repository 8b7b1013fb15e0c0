//! What went wrong, as C programs see it.

use crate::boundary::{maybe_out, panic_message, release, tell};
use libc::{
    EBADF, EBADMSG, EBUSY, ECANCELED, EEXIST, EFBIG, EINVAL, EIO, ENODEV, ENOENT, ENOSPC, ENOTRECOVERABLE,
    EOPNOTSUPP, EROFS,
};
use std::any::Any;
use std::error::Error as _;
use std::ffi::{CString, c_char, c_int};
use std::io;
use std::sync::Arc;

/// What an error means to the caller, independent of where it arose. A number is never given to another meaning; there may be
/// more of them in later versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "the names are those of C")]
#[repr(C)]
pub enum ErrorKind {
    /// Something that has no kind of its own in this version. errno: EIO.
    BETREE_ERROR_OTHER = 0,
    /// What was named does not exist. errno: ENOENT.
    BETREE_ERROR_NOT_FOUND = 1,
    /// It exists already. errno: EEXIST.
    BETREE_ERROR_ALREADY_EXISTS = 2,
    /// An argument or a configuration is not legal: NULL, a length, a number that is none of an enumeration. errno: EINVAL.
    BETREE_ERROR_INVALID_ARGUMENT = 3,
    /// A key, value or batch is larger than its limit. errno: EFBIG.
    BETREE_ERROR_TOO_LARGE = 4,
    /// No room is left where the data may go. errno: ENOSPC.
    BETREE_ERROR_OUT_OF_SPACE = 5,
    /// Bytes on a device, or of a stream, are not what was written. errno: EBADMSG.
    BETREE_ERROR_CORRUPT = 6,
    /// A device or a callback reported an error. errno: what it reported, else EIO.
    BETREE_ERROR_IO = 7,
    /// Another opener, or something that depends on it, is in the way. errno: EBUSY.
    BETREE_ERROR_BUSY = 8,
    /// Redundancy is lost and opening was not allowed to go on without. errno: ENODEV.
    BETREE_ERROR_DEGRADED = 9,
    /// Opened for reading only, or closed for writing after a failure. errno: EROFS.
    BETREE_ERROR_READ_ONLY = 10,
    /// The database was closed. errno: EBADF.
    BETREE_ERROR_CLOSED = 11,
    /// The object is not the one that a write was meant for. errno: ECANCELED.
    BETREE_ERROR_CONDITION_FAILED = 12,
    /// Not supported here: a kind of vdev, a message action, a newer format. errno: EOPNOTSUPP.
    BETREE_ERROR_UNSUPPORTED = 13,
    /// A bug of the library, caught: what the call was to do may have happened in part. Close the database, and open it again.
    /// errno: ENOTRECOVERABLE.
    BETREE_ERROR_PANIC = 14,
}

impl ErrorKind {
    fn errno(self) -> c_int {
        match self {
            Self::BETREE_ERROR_OTHER | Self::BETREE_ERROR_IO => EIO,
            Self::BETREE_ERROR_NOT_FOUND => ENOENT,
            Self::BETREE_ERROR_ALREADY_EXISTS => EEXIST,
            Self::BETREE_ERROR_INVALID_ARGUMENT => EINVAL,
            Self::BETREE_ERROR_TOO_LARGE => EFBIG,
            Self::BETREE_ERROR_OUT_OF_SPACE => ENOSPC,
            Self::BETREE_ERROR_CORRUPT => EBADMSG,
            Self::BETREE_ERROR_BUSY => EBUSY,
            Self::BETREE_ERROR_DEGRADED => ENODEV,
            Self::BETREE_ERROR_READ_ONLY => EROFS,
            Self::BETREE_ERROR_CLOSED => EBADF,
            Self::BETREE_ERROR_CONDITION_FAILED => ECANCELED,
            Self::BETREE_ERROR_UNSUPPORTED => EOPNOTSUPP,
            Self::BETREE_ERROR_PANIC => ENOTRECOVERABLE,
        }
    }
}

fn kind_of(kind: engine::ErrorKind) -> ErrorKind {
    match kind {
        engine::ErrorKind::NotFound => ErrorKind::BETREE_ERROR_NOT_FOUND,
        engine::ErrorKind::AlreadyExists => ErrorKind::BETREE_ERROR_ALREADY_EXISTS,
        engine::ErrorKind::InvalidArgument => ErrorKind::BETREE_ERROR_INVALID_ARGUMENT,
        engine::ErrorKind::TooLarge => ErrorKind::BETREE_ERROR_TOO_LARGE,
        engine::ErrorKind::OutOfSpace => ErrorKind::BETREE_ERROR_OUT_OF_SPACE,
        engine::ErrorKind::Corrupt => ErrorKind::BETREE_ERROR_CORRUPT,
        engine::ErrorKind::Io => ErrorKind::BETREE_ERROR_IO,
        engine::ErrorKind::Busy => ErrorKind::BETREE_ERROR_BUSY,
        engine::ErrorKind::Degraded => ErrorKind::BETREE_ERROR_DEGRADED,
        engine::ErrorKind::ReadOnly => ErrorKind::BETREE_ERROR_READ_ONLY,
        engine::ErrorKind::Closed => ErrorKind::BETREE_ERROR_CLOSED,
        engine::ErrorKind::ConditionFailed => ErrorKind::BETREE_ERROR_CONDITION_FAILED,
        engine::ErrorKind::Unsupported => ErrorKind::BETREE_ERROR_UNSUPPORTED,
        _ => ErrorKind::BETREE_ERROR_OTHER,
    }
}

/// An error: its kind, errno and message. Owned by whoever passed `err`; freed with `betree_free_err`.
#[derive(Debug)]
pub struct Failure {
    kind: ErrorKind,
    errno: c_int,
    message: CString,
}

impl Failure {
    fn new(kind: ErrorKind, errno: c_int, message: &str) -> Self {
        let message = CString::new(message.replace('\0', "\\0")).unwrap_or_default();
        Self { kind, errno, message }
    }

    /// A panic that was caught.
    pub fn of_panic(panic: &(dyn Any + Send)) -> Self {
        let kind = ErrorKind::BETREE_ERROR_PANIC;
        Self::new(kind, kind.errno(), &format!("a bug of the library: {}", panic_message(panic)))
    }

    #[cfg(test)]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// The error of the operating system that a cause is.
fn system_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let shared = || cause.downcast_ref::<Arc<io::Error>>().map(|error| &**error);
    cause.downcast_ref::<io::Error>().or_else(shared)
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        let kind = kind_of(error.kind());
        let mut message = error.to_string();
        let mut errno = kind.errno();
        let mut cause = error.source();
        while let Some(inner) = cause {
            // Many messages contain that of their cause.
            let text = inner.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            if kind == ErrorKind::BETREE_ERROR_IO {
                errno = system_error(inner).and_then(io::Error::raw_os_error).unwrap_or(errno);
            }
            cause = inner.source();
        }
        Self::new(kind, errno, &message)
    }
}

/// What kind of error it is; BETREE_ERROR_OTHER of NULL. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_error_kind(err: Option<&Failure>) -> ErrorKind {
    tell(ErrorKind::BETREE_ERROR_OTHER, || err.map_or(ErrorKind::BETREE_ERROR_OTHER, |err| err.kind))
}

/// The errno that says the same, never 0; EINVAL of NULL. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_error_errno(err: Option<&Failure>) -> c_int {
    tell(EINVAL, || err.map_or(EINVAL, |err| err.errno))
}

/// What went wrong and why, in UTF-8: `*len` bytes (unless `len` is NULL) and a zero byte, which live as long as the error.
/// An empty text of NULL. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_error_message(err: Option<&Failure>, len: *mut usize) -> *const c_char {
    tell(c"".as_ptr(), || {
        let message = err.map_or(c"", |err| &err.message);
        if let Ok(len) = maybe_out("len", len) {
            len.set(message.count_bytes());
        }
        message.as_ptr()
    })
}

/// Prints the message to stderr, with a line feed. NULL prints nothing. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_print_error(err: Option<&Failure>) {
    tell((), || {
        if let Some(err) = err {
            eprintln!("{}", err.message.to_string_lossy());
        }
    });
}

/// Frees an error; NULL is none. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_free_err(err: Option<Box<Failure>>) {
    release(err);
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Error, StreamError};

    #[test]
    fn errors_keep_their_kind_cause_and_errno() {
        let error = Error::NotFound { what: "dataset", name: String::from("a") };
        let failure = Failure::from(error);
        assert_eq!((failure.kind, failure.errno), (ErrorKind::BETREE_ERROR_NOT_FOUND, ENOENT));
        let cause = Arc::new(std::io::Error::from_raw_os_error(libc::EPIPE));
        let failure = Failure::from(Error::Stream(StreamError::Write(cause)));
        assert_eq!((failure.kind, failure.errno), (ErrorKind::BETREE_ERROR_IO, libc::EPIPE));
        let inner = Arc::new(Error::Corrupt { what: "node", reason: String::from("a\0b") });
        let failure = Failure::from(Error::Failed(inner));
        assert_eq!((failure.kind, failure.errno), (ErrorKind::BETREE_ERROR_CORRUPT, EBADMSG));
        assert!(failure.message.to_string_lossy().contains("node is damaged: a\\0b"), "{failure:?}");
    }
}
