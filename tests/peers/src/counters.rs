//! What the system counted for this process.

use crate::error::Error;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Counters of this process since it started; two of them make a difference.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    /// User and system time of all threads, in seconds.
    pub cpu_seconds: f64,
    /// Bytes read from devices: what the page cache served does not count.
    pub read_bytes: u64,
    /// Bytes on their way to devices: counted when a page becomes dirty or a direct write is issued.
    pub write_bytes: u64,
}

impl Counters {
    /// The counters now.
    ///
    /// # Errors
    /// The system's files could not be read.
    pub fn now() -> Result<Self, Error> {
        let io = read("/proc/self/io")?;
        Ok(Self {
            cpu_seconds: cpu_seconds(),
            read_bytes: field(&io, "read_bytes:"),
            write_bytes: field(&io, "write_bytes:"),
        })
    }

    /// What was added since `start`.
    #[must_use]
    pub fn since(&self, start: &Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - start.cpu_seconds,
            read_bytes: self.read_bytes.saturating_sub(start.read_bytes),
            write_bytes: self.write_bytes.saturating_sub(start.write_bytes),
        }
    }
}

/// The most memory that this process ever had resident, in bytes.
///
/// # Errors
/// The system's file could not be read.
pub fn memory_peak_bytes() -> Result<u64, Error> {
    Ok(field(&read("/proc/self/status")?, "VmHWM:") * 1024)
}

/// Processes that wanted a processor, on average over the last minute: above the number of processors, something else
/// was running too.
///
/// # Errors
/// The system's file could not be read.
pub fn load_average() -> Result<f64, Error> {
    let text = read("/proc/loadavg")?;
    Ok(text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0))
}

/// The space that the files under `folder` take on disk, in bytes.
///
/// # Errors
/// A file or folder could not be read.
pub fn disk_bytes(folder: &Path) -> Result<u64, Error> {
    let failed = |source| Error::File { path: folder.into(), source };
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        // The unit of st_blocks is 512 bytes whatever the file system's block.
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            bytes += disk_bytes(&entry.path())?;
        }
    }
    Ok(bytes)
}

fn read(path: &str) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })
}

/// The number behind `name` at the start of a line; 0 when the system does not have it.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn cpu_seconds() -> f64 {
    // SAFETY: rusage is plain numbers, for which all zeros is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a whole rusage that outlives the call. It cannot fail with these arguments.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "cancelled_write_bytes: 5\nwrite_bytes: 7\nVmHWM:\t  12 kB\n";
        assert_eq!(field(text, "write_bytes:"), 7);
        assert_eq!(field(text, "VmHWM:"), 12);
        assert_eq!(field(text, "read_bytes:"), 0);
    }

    #[test]
    fn work_is_counted() {
        let start = Counters::now().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        let mut x = 1u64;
        while Counters::now().unwrap().since(&start).cpu_seconds == 0.0 {
            x = crate::random::mix(x);
        }
        std::fs::write(folder.path().join("inner/file"), vec![x as u8; 1 << 20]).unwrap();
        std::fs::File::open(folder.path().join("inner/file")).unwrap().sync_all().unwrap();
        assert!(disk_bytes(folder.path()).unwrap() >= 1 << 20);
        assert!(memory_peak_bytes().unwrap() > 1 << 20);
        assert!(load_average().unwrap() >= 0.0);
    }
}
