//! Where a write would like to be.

use crate::boundary::illegal;
use engine::{Migrated, Result, StoragePreference};

/// The tier that a write prefers: one of STORAGE_PREF_FASTEST, STORAGE_PREF_FAST, STORAGE_PREF_SLOW, STORAGE_PREF_SLOWEST and
/// STORAGE_PREF_NONE. Any other number is an error wherever it is passed.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct StoragePref {
    /// 0 (fastest) to 3, or 254 for none.
    _0: u8,
}

impl StoragePref {
    /// The preference.
    pub fn get(self) -> Result<StoragePreference> {
        StoragePreference::from_u8(self._0).ok_or_else(|| {
            illegal("storage_pref", format!("{} is none; they are 0 (fastest) to 3 and 254 (none)", self._0))
        })
    }
}

impl From<StoragePreference> for StoragePref {
    fn from(preference: StoragePreference) -> Self {
        Self { _0: preference.as_u8() }
    }
}

/// What a migration moved.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct MigratedCount {
    /// Keys with a value that lay elsewhere.
    pub entries: u64,
    /// Bytes of these values.
    pub bytes: u64,
}

impl From<Migrated> for MigratedCount {
    fn from(moved: Migrated) -> Self {
        Self { entries: moved.entries, bytes: moved.bytes }
    }
}
