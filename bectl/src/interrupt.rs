//! Ctrl-C: the first one asks the command to stop where the database is consistent, the second one ends the process.
//!
//! The process may end anywhere: what a command had not synced by then is lost or not, as in a crash, and nothing else.

use crate::failure::Failure;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::SIGINT;
use signal_hook::{flag, low_level};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether Ctrl-C was pressed.
#[derive(Debug)]
pub struct Interrupt {
    pressed: Arc<AtomicBool>,
    /// Becomes readable at Ctrl-C, so that whoever waits for input wakes up.
    wake: UnixStream,
}

impl Interrupt {
    /// Takes over the signal.
    ///
    /// # Errors
    /// The system refuses.
    pub fn install() -> io::Result<Self> {
        let pressed = Arc::new(AtomicBool::new(false));
        let (wake, wakes) = UnixStream::pair()?;
        // The order matters: the second Ctrl-C must find the flag set, the first must not.
        flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&pressed))?;
        flag::register(SIGINT, Arc::clone(&pressed))?;
        low_level::pipe::register(SIGINT, wakes)?;
        Ok(Self { pressed, wake })
    }

    /// Whether Ctrl-C was pressed.
    pub fn is_set(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// Fails once Ctrl-C was pressed.
    ///
    /// # Errors
    /// [`Failure::Interrupted`].
    pub fn check(&self) -> Result<(), Failure> {
        if self.is_set() { Err(Failure::Interrupted) } else { Ok(()) }
    }

    /// Reads from `input`, which has no buffer of its own; waiting for it ends at Ctrl-C, with an error that means
    /// nothing else.
    pub fn reader(&self, input: File) -> Interruptible<'_> {
        Interruptible { interrupt: self, input }
    }

    /// Reads from standard input.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn stdin(&self) -> io::Result<Interruptible<'_>> {
        Ok(self.reader(File::from(io::stdin().as_fd().try_clone_to_owned()?)))
    }

    /// Waits until `input` has something to read or has ended.
    fn wait_for(&self, input: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            if self.is_set() {
                // Not `ErrorKind::Interrupted`, at which readers try again.
                return Err(io::Error::other(Failure::Interrupted));
            }
            let wake = self.wake.as_fd();
            let mut waited = [
                PollFd::from_borrowed_fd(input, PollFlags::IN),
                PollFd::from_borrowed_fd(wake, PollFlags::IN),
            ];
            match poll(&mut waited, None) {
                Ok(_) if !waited[0].revents().is_empty() => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// A reader that Ctrl-C wakes up.
#[derive(Debug)]
pub struct Interruptible<'a> {
    interrupt: &'a Interrupt,
    input: File,
}

impl Read for Interruptible<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.interrupt.wait_for(self.input.as_fd())?;
        self.input.read(buf)
    }
}
