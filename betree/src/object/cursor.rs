//! An object as a stream.

use super::handle::ObjectHandle;
use super::snapshot::ObjectView;
use crate::base::preference::StoragePreference;
use crate::database::{Error, ErrorKind};
use std::io::{self, Read, Seek, SeekFrom, Write};

/// A place in an object, from which is read and to which is written. Nothing is kept back: what was written is there for all
/// when a call returns, and `flush` does nothing.
#[derive(Debug, Clone)]
pub struct ObjectCursor {
    source: Source,
    position: u64,
    preference: StoragePreference,
}

#[derive(Debug, Clone)]
enum Source {
    Handle(ObjectHandle),
    View(ObjectView),
}

fn as_io(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::NotFound => io::ErrorKind::NotFound,
        ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
        ErrorKind::InvalidArgument | ErrorKind::TooLarge => io::ErrorKind::InvalidInput,
        ErrorKind::OutOfSpace => io::ErrorKind::StorageFull,
        ErrorKind::Corrupt => io::ErrorKind::InvalidData,
        ErrorKind::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl ObjectCursor {
    pub(super) fn of_handle(handle: ObjectHandle, preference: StoragePreference) -> Self {
        Self { source: Source::Handle(handle), position: 0, preference }
    }

    pub(super) fn of_view(view: ObjectView) -> Self {
        Self { source: Source::View(view), position: 0, preference: StoragePreference::NONE }
    }

    /// Where the next byte is read or written.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What is written from now on goes to the tier that `preference` names.
    pub fn set_storage_preference(&mut self, preference: StoragePreference) {
        self.preference = preference;
    }

    fn size(&self) -> io::Result<u64> {
        match &self.source {
            Source::Handle(handle) => handle.size().map_err(as_io),
            Source::View(view) => Ok(view.size()),
        }
    }
}

impl Read for ObjectCursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &self.source {
            Source::Handle(handle) => handle.read_at(buffer, self.position),
            Source::View(view) => view.read_at(buffer, self.position),
        };
        let length = read.map_err(as_io)?;
        self.position += length as u64;
        Ok(length)
    }
}

impl Write for ObjectCursor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &self.source {
            Source::Handle(handle) => handle.write_at_with_pref(bytes, self.position, self.preference),
            Source::View(_) => Err(Error::ReadOnly),
        };
        let length = written.map_err(as_io)?;
        self.position += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for ObjectCursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
            SeekFrom::End(distance) => self.size()?.checked_add_signed(distance),
        };
        let outside = || io::Error::new(io::ErrorKind::InvalidInput, "a place before the first byte");
        self.position = position.ok_or_else(outside)?;
        Ok(self.position)
    }
}
