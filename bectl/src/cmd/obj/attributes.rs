//! What a store keeps of a file beside its bytes: custom metadata `mtime`, `mode`, `inode` and `written`.
//!
//! | key | value |
//! |---|---|
//! | `mtime` | when the file was changed: seconds since 1970, with nine decimals |
//! | `mode` | kind and permissions as `st_mode` has them, in octal: `100644`, `120777` for a symbolic link, `40755` for a folder |
//! | `inode` | number of the inode, a space, and when that was changed, as `mtime`. Absent when it had just been changed |
//! | `written` | of an object that came in several pieces, its time of change when the last one was written, as `mtime` |
//!
//! The first two are those of tools that sync files with object stores of others. They are believed as long as the bytes of the
//! object are those that came with them: it was never written to, or not since `written`.
//!
//! With the third, a file that was imported before is known again without reading it. No program can set that time, and two
//! files have two numbers. A clock of the system goes in steps, though: what is changed twice in one step has one time. Hence
//! an inode is not kept before its last change is some seconds ago.

use betree::{ObjectBatch, ObjectInfo, ObjectView};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

pub const MTIME: &[u8] = b"mtime";
pub const MODE: &[u8] = b"mode";
pub const INODE: &[u8] = b"inode";
pub const WRITTEN: &[u8] = b"written";

/// The bits of a mode that say what kind of file it is, and three of its values.
const KIND: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
/// The bits that are restored. The others (set-user-ID) would give files of somebody else's making power over others.
const PERMISSIONS: u32 = 0o777;

const SECOND: i128 = 1_000_000_000;
/// Clocks of file systems go in steps of up to two seconds.
const CLOCK_STEP: i128 = 2 * SECOND;

/// Of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// As `st_mode` has it.
    pub mode: u32,
    /// Nanoseconds since 1970.
    pub mtime: i128,
    /// Number of the inode, and when that was changed.
    inode: (u64, i128),
}

impl Attributes {
    /// Those of a file of this metadata.
    pub fn of(metadata: &Metadata) -> Self {
        let mtime = i128::from(metadata.mtime()) * SECOND + i128::from(metadata.mtime_nsec());
        let ctime = i128::from(metadata.ctime()) * SECOND + i128::from(metadata.ctime_nsec());
        Self { mode: metadata.mode(), mtime, inode: (metadata.ino(), ctime) }
    }

    /// The inode as it is kept, unless it changed just before `now`, so that it may change again without a sign of it.
    fn inode(&self, now: SystemTime) -> Option<String> {
        let (number, ctime) = self.inode;
        (nanoseconds(now) - ctime > CLOCK_STEP).then(|| format!("{number} {}", encode_time(ctime)))
    }

    /// Adds them to those of the object `name`.
    pub fn set(self, batch: ObjectBatch, name: &[u8]) -> ObjectBatch {
        let batch = batch.set_metadata(name, MTIME, encode_time(self.mtime));
        let batch = batch.set_metadata(name, MODE, format!("{:o}", self.mode));
        self.set_inode(batch, name)
    }

    /// Adds the inode to them, where it can be kept. Another one that is there already says nothing wrong.
    pub fn set_inode(self, batch: ObjectBatch, name: &[u8]) -> ObjectBatch {
        match self.inode(SystemTime::now()) {
            Some(inode) => batch.set_metadata(name, INODE, inode),
            None => batch,
        }
    }
}

/// Of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The mode that came with it.
    pub mode: Option<u32>,
    /// Nanoseconds since 1970: the time that came with it, or when it was written to since.
    pub mtime: i128,
    /// Whether its bytes are those that came with these.
    pub is_as_imported: bool,
}

impl Stored {
    /// Those of `object`.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn of(object: &ObjectView) -> betree::Result<Self> {
        let info = object.info();
        let time = |key| -> betree::Result<Option<i128>> {
            Ok(object.get_metadata(key)?.and_then(|value| decode_time(&value)))
        };
        let (came, changed) = (time(MTIME)?, nanoseconds(info.mtime));
        let is_unwritten = info.mtime == info.created || time(WRITTEN)? == Some(changed);
        let mode = object.get_metadata(MODE)?;
        let mode = mode.and_then(|value| u32::from_str_radix(std::str::from_utf8(&value).ok()?, 8).ok());
        Ok(Self {
            mode,
            mtime: came.filter(|_| is_unwritten).unwrap_or(changed),
            is_as_imported: is_unwritten && came.is_some(),
        })
    }

    /// Whether it was a symbolic link.
    pub fn is_link(&self) -> bool {
        self.mode.is_some_and(|mode| mode & KIND == LINK)
    }

    /// Whether it was a folder.
    pub fn is_folder(&self) -> bool {
        self.mode.is_some_and(|mode| mode & KIND == FOLDER)
    }

    /// Who may do what with the file, where that is known.
    pub fn permissions(&self) -> Option<u32> {
        self.mode.map(|mode| mode & PERMISSIONS)
    }

    /// Whether they came from a file with those of `file`; its bytes may be others.
    pub fn equals(&self, file: Attributes) -> bool {
        self.is_as_imported && self.mtime == file.mtime && self.mode == Some(file.mode)
    }

    /// Whether a file is what an object of `size` bytes with these would become.
    pub fn is_exported_as(&self, size: u64, file: &Metadata) -> bool {
        let Attributes { mode, mtime, .. } = Attributes::of(file);
        let permissions = self.permissions().unwrap_or(mode & PERMISSIONS);
        file.is_file() && file.len() == size && mtime == self.mtime && mode & PERMISSIONS == permissions
    }
}

/// Whether `object`, which is as it was imported, came from just this file, and that did not change since.
///
/// # Errors
/// Device errors and damage.
pub fn is_of_inode(object: &ObjectView, file: Attributes) -> betree::Result<bool> {
    let kept = object.get_metadata(INODE)?;
    let is = |kept: &[u8]| file.inode(SystemTime::now()).is_some_and(|inode| inode.as_bytes() == kept);
    Ok(kept.is_some_and(|kept| is(&kept)))
}

/// The time at which an object was written to, as its `written`.
pub fn written(info: &ObjectInfo) -> String {
    encode_time(nanoseconds(info.mtime))
}

fn nanoseconds(time: SystemTime) -> i128 {
    match time.duration_since(UNIX_EPOCH) {
        // Nanoseconds of a u64 of seconds are below 2^94.
        Ok(since) => since.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    }
}

fn encode_time(nanoseconds: i128) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let size = nanoseconds.unsigned_abs();
    format!("{sign}{}.{:09}", size / SECOND as u128, size % SECOND as u128)
}

/// Fewer decimals are zeros, more are cut off, as others may write them.
fn decode_time(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let (seconds, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(decimals) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let decimals = format!("{:0<9}", decimals.get(..9.min(decimals.len()))?);
    Some(sign * (i128::from(seconds) * SECOND + decimals.parse::<i128>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_decimal_seconds() {
        for (time, text) in [
            (0, "0.000000000"),
            (1_700_000_000_000_000_001, "1700000000.000000001"),
            (-1, "-0.000000001"),
            (-1_500_000_000, "-1.500000000"),
        ] {
            assert_eq!(encode_time(time), text);
            assert_eq!(decode_time(text.as_bytes()), Some(time));
        }
        assert_eq!(decode_time(b"12"), Some(12 * SECOND));
        assert_eq!(decode_time(b"12.5"), Some(12 * SECOND + SECOND / 2));
        assert_eq!(decode_time(b"12.1234567899"), Some(12_123_456_789));
        for text in
            ["", "-", "1.", ".1", "1e5", "+1", "--1", "1.-1", "99999999999999999999", "1.é", "\u{0661}"]
        {
            assert_eq!(decode_time(text.as_bytes()), None, "{text}");
        }
        assert_eq!(decode_time(b"\xff"), None);
    }

    #[test]
    fn an_inode_that_just_changed_is_not_kept() {
        let ctime = 1_700_000_000 * SECOND;
        let file = Attributes { mode: 0o100_644, mtime: 0, inode: (7, ctime) };
        let after = |milliseconds: u64| UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + milliseconds);
        assert_eq!(file.inode(after(2001)).as_deref(), Some("7 1700000000.000000000"));
        assert_eq!(file.inode(after(1999)), None);
        // A clock that was set back.
        assert_eq!(file.inode(UNIX_EPOCH), None);
    }

    #[test]
    fn power_over_others_is_not_restored() {
        let stored = |mode| Stored { mode, mtime: 0, is_as_imported: true };
        assert_eq!(stored(Some(0o104_755)).permissions(), Some(0o755));
        assert_eq!(stored(None).permissions(), None);
        assert!(stored(Some(0o120_777)).is_link() && !stored(Some(0o100_777)).is_link());
        assert!(stored(Some(0o040_755)).is_folder() && !stored(None).is_folder());
    }
}
