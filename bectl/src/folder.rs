//! Folders of the file system, one step at a time: no step goes through a symbolic link, or up.
//!
//! Whoever works below a folder with this cannot be led out of it, neither by names nor by what others put there meanwhile.

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, flock, mkdirat,
    openat, readlinkat, renameat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
}

/// What a folder says of one of its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file with bytes.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A device, pipe or socket.
    Special,
}

impl Kind {
    /// `None` where the file system does not say it here.
    fn of(kind: FileType) -> Option<Self> {
        match kind {
            FileType::RegularFile => Some(Self::File),
            FileType::Directory => Some(Self::Folder),
            FileType::Symlink => Some(Self::Link),
            FileType::Unknown => None,
            _ => Some(Self::Special),
        }
    }

    /// That of a file with this metadata.
    pub fn of_metadata(metadata: &Metadata) -> Self {
        match metadata.file_type() {
            kind if kind.is_file() => Self::File,
            kind if kind.is_dir() => Self::Folder,
            kind if kind.is_symlink() => Self::Link,
            _ => Self::Special,
        }
    }
}

/// How every folder is opened.
const ENTER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Refuses what is no name of an entry: it would lead elsewhere.
fn check(name: &[u8]) -> io::Result<&[u8]> {
    let leads_elsewhere = name.contains(&b'/') || matches!(name, b"" | b"." | b"..");
    if leads_elsewhere {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a name of a file"));
    }
    Ok(name)
}

impl Folder {
    /// Opens the folder at `path`, to which links may lead.
    ///
    /// # Errors
    /// There is none, or it may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let follow = ENTER.difference(OFlags::NOFOLLOW);
        Ok(Self { fd: openat(rustix::fs::CWD, path, follow, Mode::empty())? })
    }

    /// Keeps others from locking the folder as long as it is open. Returns whether nobody else has; where the file system has
    /// no locks, nobody does.
    pub fn lock(&self) -> bool {
        !matches!(flock(&self.fd, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK))
    }

    /// Opens a folder in it.
    ///
    /// # Errors
    /// There is none, or something else; a symbolic link is [`io::ErrorKind::NotADirectory`].
    pub fn enter(&self, name: &[u8]) -> io::Result<Self> {
        Ok(Self { fd: openat(&self.fd, check(name)?, ENTER, Mode::empty())? })
    }

    /// As [`Folder::enter`]; makes the folder when there is none.
    ///
    /// # Errors
    /// As there; it cannot be made.
    pub fn enter_or_create(&self, name: &[u8]) -> io::Result<Self> {
        match self.enter(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            entered => return entered,
        }
        match mkdirat(&self.fd, check(name)?, Mode::from_raw_mode(0o777)) {
            // Somebody else was faster.
            Ok(()) | Err(Errno::EXIST) => self.enter(name),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Goes down one name after the other.
    ///
    /// # Errors
    /// As [`Folder::enter`].
    pub fn descend<'a>(
        &self,
        names: impl IntoIterator<Item = &'a [u8]>,
        step: impl Fn(&Self, &'a [u8]) -> io::Result<Self>,
    ) -> io::Result<Self> {
        let mut at = Self { fd: self.fd.try_clone()? };
        for name in names {
            at = step(&at, name)?;
        }
        Ok(at)
    }

    /// Names and kinds of the entries, in the order of the names.
    ///
    /// # Errors
    /// Reading fails.
    pub fn entries(&self) -> io::Result<Vec<(Vec<u8>, Kind)>> {
        let mut entries: Vec<(Vec<u8>, Kind)> = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let kind = match Kind::of(entry.file_type()) {
                Some(kind) => kind,
                None => match self.look(name) {
                    Ok(metadata) => Kind::of_metadata(&metadata),
                    // It went meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                },
            };
            entries.push((name.to_vec(), kind));
        }
        entries.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        Ok(entries)
    }

    /// The metadata of an entry itself; of a symbolic link that of the link.
    ///
    /// # Errors
    /// There is none.
    pub fn look(&self, name: &[u8]) -> io::Result<Metadata> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        File::from(openat(&self.fd, check(name)?, flags, Mode::empty())?).metadata()
    }

    /// The metadata of the folder itself.
    ///
    /// # Errors
    /// The system refuses.
    pub fn metadata(&self) -> io::Result<Metadata> {
        File::from(self.fd.try_clone()?).metadata()
    }

    /// Opens a file for reading. Whoever put a pipe or a device there instead does not make us wait.
    ///
    /// # Errors
    /// There is none, or something else.
    pub fn open_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.fd, check(name)?, flags, Mode::empty())?))
    }

    /// Makes a new file, for writing.
    ///
    /// # Errors
    /// Something of that name is there already.
    pub fn create_file(&self, name: &[u8], mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.fd, check(name)?, flags, Mode::from_raw_mode(mode))?))
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// There is none.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(readlinkat(&self.fd, check(name)?, Vec::new())?.into_bytes())
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// Something of that name is there already.
    pub fn create_link(&self, name: &[u8], target: &[u8]) -> io::Result<()> {
        Ok(symlinkat(target, &self.fd, check(name)?)?)
    }

    /// Gives an entry another name, in place of a file or link that has it.
    ///
    /// # Errors
    /// A folder has it.
    pub fn rename(&self, name: &[u8], new_name: &[u8]) -> io::Result<()> {
        Ok(renameat(&self.fd, check(name)?, &self.fd, check(new_name)?)?)
    }

    /// Removes a file or link, if there is one.
    ///
    /// # Errors
    /// It is a folder, or may not be removed.
    pub fn remove(&self, name: &[u8]) -> io::Result<()> {
        match unlinkat(&self.fd, check(name)?, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sets when a link was changed, `mtime` nanoseconds after 1970.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_link_mtime(&self, name: &[u8], mtime: i128) -> io::Result<()> {
        Ok(utimensat(&self.fd, check(name)?, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets permissions and time of the folder itself.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set(&self, permissions: Option<u32>, mtime: i128) -> io::Result<()> {
        set(&self.fd, permissions, mtime)
    }
}

/// Sets permissions of an open file, and when it was changed, `mtime` nanoseconds after 1970.
///
/// # Errors
/// The system refuses.
pub fn set(file: impl std::os::fd::AsFd, permissions: Option<u32>, mtime: i128) -> io::Result<()> {
    if let Some(permissions) = permissions {
        rustix::fs::fchmod(file.as_fd(), Mode::from_raw_mode(permissions))?;
    }
    Ok(rustix::fs::futimens(file, &times(mtime))?)
}

fn times(mtime: i128) -> Timestamps {
    const SECOND: i128 = 1_000_000_000;
    let seconds = mtime.div_euclid(SECOND).clamp(i64::MIN.into(), i64::MAX.into());
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        // Both fit: the one is clamped, the other a rest.
        last_modification: Timespec { tv_sec: seconds as i64, tv_nsec: mtime.rem_euclid(SECOND) as _ },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    #[test]
    fn no_step_leads_out() {
        let outside = tempfile::tempdir().unwrap();
        let inside = outside.path().join("inside");
        fs::create_dir_all(inside.join("real")).unwrap();
        symlink(outside.path(), inside.join("link")).unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        symlink("../secret", inside.join("file")).unwrap();
        let folder = Folder::open(&inside).unwrap();
        for name in [&b".."[..], b".", b"", b"link", b"real/..", b"/", b"a\0b", b"file"] {
            assert!(folder.enter(name).is_err(), "{name:?}");
            assert!(folder.enter_or_create(name).is_err(), "{name:?}");
            assert!(folder.open_file(name).is_err() || name == b".", "{name:?}");
            assert!(folder.create_file(name, 0o600).is_err(), "{name:?}");
        }
        assert!(folder.descend([&b"real"[..], b".."], Folder::enter).is_err());
        assert!(folder.look(b"file").unwrap().is_symlink());
        assert_eq!(folder.read_link(b"file").unwrap(), b"../secret");
        // What takes the place of a link leaves what it leads to.
        folder.create_file(b"new", 0o600).unwrap();
        folder.rename(b"new", b"file").unwrap();
        assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"x");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
        let kinds = [(b"file".to_vec(), Kind::File), (b"link".to_vec(), Kind::Link)];
        assert_eq!(folder.entries().unwrap()[..2], kinds);
    }

    #[test]
    fn times_before_1970_are_times() {
        let outside = tempfile::tempdir().unwrap();
        let folder = Folder::open(outside.path()).unwrap();
        for mtime in [-1_500_000_000_i128, 0, 1_700_000_000_123_456_789] {
            let file = folder.create_file(b"file", 0o600).unwrap();
            set(&file, Some(0o640), mtime).unwrap();
            let found = folder.look(b"file").unwrap();
            assert_eq!(i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec()), mtime);
            assert_eq!(found.mode() & 0o777, 0o640);
            folder.remove(b"file").unwrap();
        }
    }

    #[test]
    fn one_lock_at_a_time() {
        let outside = tempfile::tempdir().unwrap();
        let (one, two) = (Folder::open(outside.path()).unwrap(), Folder::open(outside.path()).unwrap());
        assert!(one.lock());
        assert!(!two.lock());
        drop(one);
        assert!(two.lock());
    }
}
