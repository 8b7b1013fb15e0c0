//! What there is to say about an object.

use super::format::ObjectRecord;
use crate::base::preference::StoragePreference;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Which state of its bytes an object is in: another one after each write, and never one that any object of the store had
/// before. It says nothing of order. Written as 16 hexadecimal digits, it is an etag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(pub(super) u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Version {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// What a store knows of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Length in bytes, holes included.
    pub size: u64,
    /// When its bytes were changed last.
    pub mtime: SystemTime,
    /// When it was created.
    pub created: SystemTime,
    /// Where it is written, unless a write says otherwise.
    pub preference: StoragePreference,
    /// Which state of its bytes it is in.
    pub version: Version,
    /// Its number in the store, which no other object ever had; renaming does not change it.
    pub id: u64,
}

fn time(nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

/// The time now, in nanoseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

impl From<&ObjectRecord> for ObjectInfo {
    fn from(record: &ObjectRecord) -> Self {
        Self {
            size: record.size,
            mtime: time(record.modified),
            created: time(record.created),
            preference: record.preference,
            version: Version(record.version),
            id: record.id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_written_and_read() {
        let version = Version(0x00ab_cdef);
        assert_eq!(version.to_string(), "0000000000abcdef");
        assert_eq!(version.to_string().parse::<Version>(), Ok(version));
        assert!("xyz".parse::<Version>().is_err());
    }
}
