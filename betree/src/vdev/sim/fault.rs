//! What can be made to go wrong on a simulated disk.

use crate::vdev::Operation;

/// Something that goes wrong. `nth` counts the reads, writes or flushes of the disk from the moment the fault is armed: 1
/// is the next one. A `sticky` fault also befalls every later one until [`SimDisk::clear_faults`].
///
/// [`SimDisk::clear_faults`]: super::SimDisk::clear_faults
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A read fails; the memory of the caller is scrambled.
    ReadError {
        /// Which one.
        nth: u64,
        /// Whether all later ones fail, too.
        sticky: bool,
    },
    /// A write fails; none, some or all of its sectors are written.
    WriteError {
        /// Which one.
        nth: u64,
        /// Whether all later ones fail, too.
        sticky: bool,
    },
    /// A flush fails.
    FlushError {
        /// Which one.
        nth: u64,
        /// Whether all later ones fail, too.
        sticky: bool,
        /// What becomes of the writes that it was to make durable.
        after: FlushFailure,
    },
    /// A write is acknowledged and goes nowhere.
    DroppedWrite {
        /// Which one.
        nth: u64,
    },
    /// A write is acknowledged and goes elsewhere.
    MisdirectedWrite {
        /// Which one.
        nth: u64,
        /// First block that it overwrites instead; moved back if it would reach beyond the end.
        block: u64,
    },
    /// The host file system has no space from this write on; the first blocks of each may be written.
    OutOfSpace {
        /// Which write.
        nth: u64,
    },
    /// Reads of a block return what was in it before its last write, until it is written again.
    StaleRead {
        /// The block.
        block: u64,
    },
    /// Reads see a bit flipped, until its block is written again.
    BitFlip {
        /// Byte offset on the disk.
        offset: u64,
        /// Bit of the byte, 0…7.
        bit: u8,
    },
}

/// What becomes of the pending writes when a flush fails. A later flush does not bring them back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushFailure {
    /// Any part of them is durable, reads see that part only: the cache dropped its dirty pages.
    DropDirty,
    /// None is durable, reads see all of them until [`SimDisk::drop_caches`] or a crash: the cache took its dirty pages
    /// for clean.
    ///
    /// [`SimDisk::drop_caches`]: super::SimDisk::drop_caches
    KeepVisible,
    /// None is durable, and reads see what was there before.
    Revert,
}

/// Kinds of faults, to ask how often one happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// [`Fault::ReadError`]
    ReadError,
    /// [`Fault::WriteError`]
    WriteError,
    /// [`Fault::FlushError`]
    FlushError,
    /// [`Fault::DroppedWrite`]
    DroppedWrite,
    /// [`Fault::MisdirectedWrite`]
    MisdirectedWrite,
    /// [`Fault::OutOfSpace`]
    OutOfSpace,
    /// [`Fault::StaleRead`]
    StaleRead,
    /// [`Fault::BitFlip`]
    BitFlip,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::ReadError,
        Self::WriteError,
        Self::FlushError,
        Self::DroppedWrite,
        Self::MisdirectedWrite,
        Self::OutOfSpace,
        Self::StaleRead,
        Self::BitFlip,
    ];
}

impl Fault {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::ReadError { .. } => FaultKind::ReadError,
            Self::WriteError { .. } => FaultKind::WriteError,
            Self::FlushError { .. } => FaultKind::FlushError,
            Self::DroppedWrite { .. } => FaultKind::DroppedWrite,
            Self::MisdirectedWrite { .. } => FaultKind::MisdirectedWrite,
            Self::OutOfSpace { .. } => FaultKind::OutOfSpace,
            Self::StaleRead { .. } => FaultKind::StaleRead,
            Self::BitFlip { .. } => FaultKind::BitFlip,
        }
    }

    /// Operation that it befalls, which one, and whether it stays; none for those that lie over a block.
    fn trigger(&self) -> Option<(Operation, u64, bool)> {
        match *self {
            Self::ReadError { nth, sticky } => Some((Operation::Read, nth, sticky)),
            Self::WriteError { nth, sticky } => Some((Operation::Write, nth, sticky)),
            Self::FlushError { nth, sticky, .. } => Some((Operation::Flush, nth, sticky)),
            Self::DroppedWrite { nth } | Self::MisdirectedWrite { nth, .. } => {
                Some((Operation::Write, nth, false))
            }
            Self::OutOfSpace { nth } => Some((Operation::Write, nth, true)),
            Self::StaleRead { .. } | Self::BitFlip { .. } => None,
        }
    }
}

/// The faults armed on one disk, and how often each kind happened.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// With the number of operations seen since each was armed.
    armed: Vec<(Fault, u64)>,
    fired: [u64; FaultKind::ALL.len()],
}

impl Faults {
    pub(super) fn arm(&mut self, fault: Fault) {
        self.armed.push((fault, 0));
    }

    pub(super) fn clear(&mut self) {
        self.armed.clear();
    }

    pub(super) fn fired(&self, kind: FaultKind) -> u64 {
        self.fired[kind as usize]
    }

    pub(super) fn count(&mut self, kind: FaultKind) {
        self.fired[kind as usize] += 1;
    }

    /// The fault that befalls this operation, counted. When several are due, the one armed first; the others befall the
    /// following operations.
    pub(super) fn next(&mut self, operation: Operation) -> Option<Fault> {
        if self.armed.is_empty() {
            return None;
        }
        let mut hit = None;
        self.armed.retain_mut(|(fault, seen)| {
            let Some((befalls, nth, sticky)) = fault.trigger() else { return true };
            if befalls != operation {
                return true;
            }
            *seen += 1;
            if hit.is_some() || *seen < nth {
                return true;
            }
            hit = Some(*fault);
            sticky
        });
        if let Some(fault) = &hit {
            self.count(fault.kind());
        }
        hit
    }

    /// The faults that lie over blocks from `first` to before `end`.
    pub(super) fn over(&self, first: u64, end: u64) -> impl Iterator<Item = Fault> {
        self.armed
            .iter()
            .map(|(fault, _)| *fault)
            .filter(move |fault| block_under(fault).is_some_and(|block| (first..end).contains(&block)))
    }

    /// Lifts the faults that lie over blocks from `first` to before `end`, which have been written anew.
    pub(super) fn lift(&mut self, first: u64, end: u64) {
        if !self.armed.is_empty() {
            self.armed
                .retain(|(fault, _)| !block_under(fault).is_some_and(|block| (first..end).contains(&block)));
        }
    }
}

fn block_under(fault: &Fault) -> Option<u64> {
    match *fault {
        Fault::StaleRead { block } => Some(block),
        Fault::BitFlip { offset, .. } => Some(offset / crate::base::units::BLOCK_BYTES_U64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_befall_the_operation_they_name() {
        let mut faults = Faults::default();
        faults.arm(Fault::DroppedWrite { nth: 2 });
        faults.arm(Fault::WriteError { nth: 2, sticky: false });
        faults.arm(Fault::ReadError { nth: 3, sticky: true });
        faults.arm(Fault::StaleRead { block: 5 });
        let mut kinds = |operation: Operation, times: usize| -> Vec<Option<FaultKind>> {
            (0..times).map(|_| faults.next(operation).map(|fault| fault.kind())).collect()
        };
        let (dropped, error) = (Some(FaultKind::DroppedWrite), Some(FaultKind::WriteError));
        assert_eq!(kinds(Operation::Write, 4), [None, dropped, error, None]);
        let error = Some(FaultKind::ReadError);
        assert_eq!(kinds(Operation::Read, 4), [None, None, error, error]);
        assert_eq!(kinds(Operation::Flush, 1), [None]);
        assert_eq!(faults.over(4, 6).count(), 1);
        assert_eq!(faults.over(6, 9).count(), 0);
        faults.lift(5, 6);
        assert_eq!(faults.over(0, 9).count(), 0);
        assert_eq!(faults.fired(FaultKind::ReadError), 2);
        faults.clear();
        assert_eq!(faults.next(Operation::Read), None);
    }
}
