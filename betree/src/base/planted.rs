//! Deliberate bugs, to test that the test rig bites.
//!
//! Without the feature `planted-bugs`, [`planted`] is the constant `false` and no bug can be switched on.

/// A bug that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Bug {
    /// A checkpoint writes its superblock without flushing what it points to.
    SuperblockBeforeFlush = 1,
    /// A freed extent may be allocated again at once.
    ReuseFreedAtOnce = 2,
    /// Every 8th log record is left out of the log.
    DropLogRecord = 4,
    /// A flush leaves tombstones out of the run that it writes.
    SkipDeadMessage = 8,
    /// A sync does not flush the large values that its records name.
    SkipValueFlush = 16,
    /// A flush leaves range deletes out of the runs that it writes.
    DropRangeDelete = 32,
    /// A checkpoint does not flush its superblock.
    SkipSuperblockFlush = 64,
    /// Every opening starts a log of the same epoch.
    ReuseEpoch = 128,
}

#[cfg(feature = "planted-bugs")]
static PLANTED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Switches `bug` on or off for the whole process.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Bug, on: bool) {
    use std::sync::atomic::Ordering::SeqCst;
    if on {
        PLANTED.fetch_or(bug as u32, SeqCst);
    } else {
        PLANTED.fetch_and(!(bug as u32), SeqCst);
    }
}

/// Whether `bug` is switched on.
#[cfg(feature = "planted-bugs")]
#[must_use]
pub fn planted(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::SeqCst) & bug as u32 != 0
}

/// Whether `bug` is switched on: never, in this build.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
pub const fn planted(_bug: Bug) -> bool {
    false
}
