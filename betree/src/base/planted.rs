//! Deliberate bugs, to test that the test rig bites.
//!
//! Without the feature `planted-bugs`, [`planted`] is the constant `false` and no bug can be switched on.

/// A bug that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Bug {
    /// A checkpoint writes its superblock without flushing what it points to.
    SuperblockBeforeFlush = 1 << 0,
    /// A freed extent may be allocated again at once.
    ReuseFreedAtOnce = 1 << 1,
    /// Every 8th log record is left out of the log.
    DropLogRecord = 1 << 2,
    /// A flush leaves tombstones out of the run that it writes.
    SkipDeadMessage = 1 << 3,
    /// A sync does not flush the large values that its records name.
    SkipValueFlush = 1 << 4,
    /// A flush leaves range deletes out of the runs that it writes.
    DropRangeDelete = 1 << 5,
    /// A checkpoint does not flush its superblock.
    SkipSuperblockFlush = 1 << 6,
    /// Every opening starts a log of the same epoch.
    ReuseEpoch = 1 << 7,
    /// Superblocks do not take turns: each goes to slot 0.
    SuperblockSlotZero = 1 << 8,
    /// A device's flush fails and nobody is told.
    IgnoreFlushError = 1 << 9,
    /// A write fails and nobody is told.
    SwallowWriteError = 1 << 10,
    /// What is read is not compared with its checksum.
    SkipChecksum = 1 << 11,
    /// Opening applies the log twice.
    ReplayTwice = 1 << 12,
    /// A flush leaves out every 32nd value.
    DropFlushedMessage = 1 << 13,
    /// Extents that no checkpoint ever reached, those of a write that fails among them, are not given back.
    LeakAborted = 1 << 14,
    /// The count of used blocks of a vdev is one too low after each checkpoint.
    DriftByOne = 1 << 15,
    /// `OpenOrCreate` creates a pool where none can be understood.
    FormatOnDecodeError = 1 << 16,
    /// After a rollback the generations that were lost are counted anew.
    ReuseGeneration = 1 << 17,
    /// A job in the background panics.
    PanicInJob = 1 << 18,
    /// A checkpoint panics before its superblock.
    PanicInCheckpoint = 1 << 19,
    /// The writer of the log panics.
    PanicInLog = 1 << 20,
    /// What was born in the generation of the newest snapshot is freed when it dies.
    FreeBornAtSnapshot = 1 << 21,
    /// What dies and is in a snapshot comes into no dead list.
    SkipDeadList = 1 << 22,
    /// Deleting a snapshot frees all of the dead list behind it.
    DeleteFreesAll = 1 << 23,
    /// Upserts are combined in the wrong order.
    CombineOutOfOrder = 1 << 24,
    /// A merge at the bottom drops the patches that it leaves beside a large value.
    DropKeptPatch = 1 << 25,
    /// Deleting an object leaves its chunks.
    DeleteForgetsChunks = 1 << 26,
    /// An object is taken from its old name in one batch and gets the new one in another.
    RenameInTwoBatches = 1 << 27,
    /// A truncated object keeps the last of its chunks whole.
    TruncateKeepsTail = 1 << 28,
    /// A stream that ends early is taken for a whole one.
    TakeUnfinished = 1 << 29,
    /// What is received does not delete.
    ForgetDeletes = 1 << 30,
    /// The dead list of the snapshot that received changes start from stays what it was.
    KeepOldDeadList = 1 << 31,
    /// That a member of a vdev is lost is acknowledged before it is durable.
    AcknowledgeUnrecordedLoss = 1 << 32,
    /// A member that missed something is taken for one that holds everything.
    TrustStaleMember = 1 << 33,
    /// The parity of the last stripe of a write is not written.
    SkipLastParity = 1 << 34,
    /// A sync does not wait for what is written behind.
    SkipWriteBehind = 1 << 35,
    /// A checkpoint does not wait for what is written behind.
    CheckpointBeforeWriteBehind = 1 << 36,
}

impl Bug {
    /// Those that lose or change something, and which campaigns must catch; a panic is an error of callers instead, and
    /// those of redundancy are caught by tests of the pool.
    pub const ALL: [Self; 31] = [
        Self::SuperblockBeforeFlush,
        Self::ReuseFreedAtOnce,
        Self::DropLogRecord,
        Self::SkipDeadMessage,
        Self::SkipValueFlush,
        Self::DropRangeDelete,
        Self::SkipSuperblockFlush,
        Self::ReuseEpoch,
        Self::SuperblockSlotZero,
        Self::IgnoreFlushError,
        Self::SwallowWriteError,
        Self::SkipChecksum,
        Self::ReplayTwice,
        Self::DropFlushedMessage,
        Self::LeakAborted,
        Self::DriftByOne,
        Self::FormatOnDecodeError,
        Self::ReuseGeneration,
        Self::FreeBornAtSnapshot,
        Self::SkipDeadList,
        Self::DeleteFreesAll,
        Self::CombineOutOfOrder,
        Self::DropKeptPatch,
        Self::DeleteForgetsChunks,
        Self::RenameInTwoBatches,
        Self::TruncateKeepsTail,
        Self::TakeUnfinished,
        Self::ForgetDeletes,
        Self::KeepOldDeadList,
        Self::SkipWriteBehind,
        Self::CheckpointBeforeWriteBehind,
    ];
}

#[cfg(feature = "planted-bugs")]
static PLANTED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Switches `bug` on or off for the whole process.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Bug, on: bool) {
    use std::sync::atomic::Ordering::SeqCst;
    if on {
        PLANTED.fetch_or(bug as u64, SeqCst);
    } else {
        PLANTED.fetch_and(!(bug as u64), SeqCst);
    }
}

/// Whether `bug` is switched on.
#[cfg(feature = "planted-bugs")]
#[must_use]
pub fn planted(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::SeqCst) & bug as u64 != 0
}

/// Panics when `bug` is switched on.
///
/// # Panics
/// When `bug` is switched on.
#[cfg(feature = "planted-bugs")]
#[expect(clippy::panic, reason = "that is the bug")]
pub fn panic_if_planted(bug: Bug) {
    if planted(bug) {
        panic!("planted: {bug:?}");
    }
}

/// Nothing, in this build.
#[cfg(not(feature = "planted-bugs"))]
pub const fn panic_if_planted(_bug: Bug) {}

/// Whether `bug` is switched on: never, in this build.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
pub const fn planted(_bug: Bug) -> bool {
    false
}
