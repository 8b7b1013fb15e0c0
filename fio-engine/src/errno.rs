//! What fio is told of an error: a number.

use betree::{Error, ErrorKind};
use libc::{
    EBADF, EBADMSG, EBUSY, ECANCELED, EEXIST, EFBIG, EINVAL, EIO, ENODEV, ENOENT, ENOSPC, EOPNOTSUPP, EROFS,
    c_int,
};
use std::error::Error as _;
use std::io;
use std::sync::Arc;

/// The error of the operating system that a cause is.
fn system_errno(cause: &(dyn std::error::Error + 'static)) -> Option<c_int> {
    let shared = cause.downcast_ref::<Arc<io::Error>>().map(|error| &**error);
    cause.downcast_ref::<io::Error>().or(shared)?.raw_os_error()
}

/// The errno that says the same as `error`, never 0: that of the device where one failed.
pub fn errno_of(error: &Error) -> c_int {
    match error.kind() {
        ErrorKind::NotFound => ENOENT,
        ErrorKind::AlreadyExists => EEXIST,
        ErrorKind::InvalidArgument => EINVAL,
        ErrorKind::TooLarge => EFBIG,
        ErrorKind::OutOfSpace => ENOSPC,
        ErrorKind::Corrupt => EBADMSG,
        ErrorKind::Busy => EBUSY,
        ErrorKind::Degraded => ENODEV,
        ErrorKind::ReadOnly => EROFS,
        ErrorKind::Closed => EBADF,
        ErrorKind::ConditionFailed => ECANCELED,
        ErrorKind::Unsupported => EOPNOTSUPP,
        _ => {
            let mut cause = error.source();
            let mut errno = EIO;
            while let Some(inner) = cause {
                errno = system_errno(inner).filter(|errno| *errno != 0).unwrap_or(errno);
                cause = inner.source();
            }
            errno
        }
    }
}

/// The message of `error` with those of its causes.
pub fn message_of(error: &Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Many messages contain that of their cause.
        let text = inner.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = inner.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use betree::StreamError;

    #[test]
    fn an_error_keeps_the_number_of_its_cause() {
        let cause = Arc::new(io::Error::from_raw_os_error(libc::EREMOTEIO));
        assert_eq!(errno_of(&Error::Stream(StreamError::Write(cause))), libc::EREMOTEIO);
        let inner = Error::Corrupt { what: "node", reason: String::from("torn") };
        let error = Error::Failed(Arc::new(inner));
        assert_eq!(errno_of(&error), EBADMSG);
        assert!(message_of(&error).contains("torn"));
        assert_eq!(errno_of(&Error::ReadOnly), EROFS);
    }
}
