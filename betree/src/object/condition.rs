//! Writes that are made only when the object is as expected.

use super::format::ObjectRecord;
use super::info::Version;
use crate::database::{Error, Result};

/// What must hold of the object that has a name, at the instant of a write, for it to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// Nothing.
    #[default]
    Any,
    /// There is none; otherwise [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists).
    Absent,
    /// There is one; otherwise [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    Present,
    /// There is one, and it is of this version; otherwise
    /// [`ErrorKind::ConditionFailed`](crate::ErrorKind::ConditionFailed).
    Matches(Version),
}

impl Condition {
    /// Fails when `found`, which has the name `name`, is not as expected.
    pub(super) fn check(self, name: &[u8], found: Option<&ObjectRecord>) -> Result<()> {
        let shown = || name.escape_ascii().to_string();
        match (self, found) {
            (Self::Any, _) | (Self::Absent, None) | (Self::Present, Some(_)) => Ok(()),
            (Self::Matches(version), Some(record)) if record.version == version.0 => Ok(()),
            (Self::Absent, Some(_)) => Err(Error::AlreadyExists { what: "object", name: shown() }),
            (Self::Present, None) => Err(Error::NotFound { what: "object", name: shown() }),
            (Self::Matches(version), found) => Err(Error::ConditionFailed {
                what: "object",
                name: shown(),
                wanted: version.to_string(),
                found: found
                    .map_or_else(|| String::from("none"), |record| Version(record.version).to_string()),
            }),
        }
    }
}
