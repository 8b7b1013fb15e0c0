//! Errors of the storage pool.

use super::ConfigurationError;
use super::format::{MemberState, VdevKind};
use crate::base::ids::{Generation, Uuid, VdevId};
use crate::base::preference::TIER_NAMES;
use crate::vdev::VdevError;
use std::io;
use std::sync::Arc;
use thiserror::Error;

/// What went wrong in the pool.
///
/// Every error of opening or creating leaves all devices as they were, but for [`PoolError::Vdev`] from a failed write.
#[derive(Debug, Error, Clone)]
pub enum PoolError {
    /// A device reported an error.
    #[error(transparent)]
    Vdev(Arc<VdevError>),
    /// A pointer names a vdev that the pool does not have.
    #[error("vdev {0} is not part of the pool")]
    UnknownVdev(VdevId),
    /// An earlier write or flush failed: the pool takes no more writes until it is opened anew.
    #[error("the pool takes no more writes after an earlier failure: {0}")]
    Poisoned(Arc<PoolError>),
    /// No generation is left: somebody forged one of the last.
    #[error("generation {generation} is above all that a pool comes to: one that it names is forged")]
    UsedUp {
        /// The generation.
        generation: Generation,
    },
    /// The pool was opened for reading only.
    #[error("the pool is open for reading only")]
    ReadOnly,
    /// The pool was closed.
    #[error("the pool is closed")]
    Closed,

    /// The configuration contradicts itself.
    #[error(transparent)]
    Configuration(Arc<ConfigurationError>),
    /// A file is to be created, and the configuration does not say how large.
    #[error("{device} does not exist, and no size is configured to create it with")]
    NoSize {
        /// Its path.
        device: String,
    },
    /// The configuration names no device at all.
    #[error("the storage configuration names no vdev")]
    NoVdevs,
    /// The configuration names a tier that does not exist.
    #[error("tier {tier} does not exist; the tiers are 0 (FASTEST) to 3 (SLOWEST)")]
    UnknownTier {
        /// The tier.
        tier: usize,
    },
    /// More top-level vdevs than a superblock can list.
    #[error("{count} top-level vdevs; a pool can have {limit}")]
    TooManyVdevs {
        /// Configured.
        count: usize,
        /// Possible.
        limit: usize,
    },
    /// More leaves than a vdev can have.
    #[error("a {kind} of {count} leaves; it can have {limit}")]
    TooManyLeaves {
        /// Kind of the vdev.
        kind: VdevKind,
        /// Configured.
        count: usize,
        /// Possible.
        limit: usize,
    },
    /// So much of a vdev is memory that it would lose what it holds with the process.
    #[error(
        "{memory} leaves of a {kind} are memory; with more than {limit} it would lose data when the process ends"
    )]
    TooMuchMemory {
        /// Kind of the vdev.
        kind: VdevKind,
        /// Leaves that are memory.
        memory: usize,
        /// Possible.
        limit: usize,
    },
    /// The segment length is not a power of two within its limits.
    #[error("segments of {blocks} blocks; it must be a power of two between {min} and {max}")]
    SegmentLength {
        /// Asked for.
        blocks: u32,
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes for device names: {0}")]
    NoRandomBytes(Arc<io::Error>),

    /// No pool here: every durable device of the configuration is absent or provably empty.
    #[error("no pool found: {} hold{} nothing", list(devices), if devices.len() == 1 { "s" } else { "" })]
    NotFound {
        /// The devices.
        devices: Vec<String>,
    },
    /// A device is not provably empty, so that nothing is created on it.
    #[error("{device} is not empty: it holds {found}; creating a pool there would destroy it")]
    NotEmpty {
        /// Name of the device.
        device: String,
        /// What was found.
        found: String,
    },
    /// A device is too small for a pool.
    #[error("{device} has {blocks} blocks of 4 KiB; the minimum is {minimum} ({} KiB)", minimum * 4)]
    TooSmall {
        /// Name of the device.
        device: String,
        /// Its length in blocks.
        blocks: u64,
        /// The shortest length in blocks.
        minimum: u64,
    },

    /// A configured device belongs to another pool than the others.
    #[error("{device} belongs to pool {pool}, but {other} to pool {expected}")]
    ForeignDevice {
        /// Name of the foreign device.
        device: String,
        /// Its pool.
        pool: Uuid,
        /// A device of the pool being opened.
        other: String,
        /// The pool being opened.
        expected: Uuid,
    },
    /// Two configured devices are the same, or one is a copy of the other.
    #[error("{device} and {other} are the same member of the pool; one of them is a copy or is named twice")]
    DuplicateDevice {
        /// Name of one.
        device: String,
        /// Name of the other.
        other: String,
    },
    /// A leaf of the pool is on none of the configured devices.
    #[error(
        "leaf {leaf} of vdev {vdev} (tier {}) is missing{}{remedy}",
        TIER_NAMES[usize::from(*tier) % 4],
        instead.as_ref().map_or(String::new(), |instead| format!("; {instead}"))
    )]
    MissingDevice {
        /// The top-level vdev.
        vdev: VdevId,
        /// The leaf in it.
        leaf: u8,
        /// Its tier.
        tier: u8,
        /// A configured device that holds no member: absent or empty.
        instead: Option<String>,
        /// What to do, or why nothing can be done; empty for a vdev of one device.
        remedy: &'static str,
    },
    /// Devices are there, but too few of them hold everything.
    #[error(
        "vdev {vdev} has {online} member(s) that hold everything and needs {needed}; {} missed what was written without them",
        list(behind)
    )]
    Insufficient {
        /// The top-level vdev.
        vdev: VdevId,
        /// Members that hold everything.
        online: usize,
        /// Members that must.
        needed: usize,
        /// Names of devices that lack something.
        behind: Vec<String>,
    },
    /// Another device took the place of this one.
    #[error("{device} was leaf {leaf} of vdev {vdev} until another device took its place")]
    Replaced {
        /// Name of the device.
        device: String,
        /// The top-level vdev.
        vdev: VdevId,
        /// Its former place.
        leaf: u8,
    },
    /// A configured device is empty and no member is missing: opening does not add devices.
    #[error("{device} is empty: it is no member of pool {pool}, which is complete without it")]
    BlankDevice {
        /// Name of the device.
        device: String,
        /// The pool.
        pool: Uuid,
    },
    /// A device of this pool names a vdev that the pool does not have (any more).
    #[error("{device} holds vdev {vdev}, which pool {pool} does not have any more")]
    NotAMember {
        /// Name of the device.
        device: String,
        /// The vdev that it holds.
        vdev: VdevId,
        /// The pool.
        pool: Uuid,
    },
    /// A device of this pool holds a vdev that was removed from it.
    #[error(
        "{device} held {}, which was removed from pool {pool}: what was on it is elsewhere; take it out of the configuration",
        vdev.map_or_else(|| "a vdev".to_owned(), |vdev| format!("vdev {vdev}"))
    )]
    Removed {
        /// Name of the device.
        device: String,
        /// The vdev that it held; `None` when its labels are half gone.
        vdev: Option<VdevId>,
        /// The pool.
        pool: Uuid,
    },
    /// A vdev cannot leave the pool.
    #[error("vdev {vdev} cannot be removed: {reason}")]
    NotRemovable {
        /// The vdev.
        vdev: VdevId,
        /// Why.
        reason: &'static str,
    },
    /// No valid superblock, but something that looks like one.
    #[error("the superblocks of {device} are damaged: {reason}")]
    Damaged {
        /// Name of the device.
        device: String,
        /// What was found.
        reason: String,
    },
    /// The device holds something that is not a pool.
    #[error("{device} holds data, but no pool")]
    NotAPool {
        /// Name of the device.
        device: String,
    },
    /// Written by a newer version of the format.
    #[error(
        "{device} was written by a newer version (format {version}, unknown features {features:#x}){}",
        if *readable { "; it can be opened for reading" } else { "" }
    )]
    NewerFormat {
        /// Name of the device.
        device: String,
        /// Format version.
        version: u32,
        /// Features that this version does not know.
        features: u64,
        /// Whether it may be opened for reading.
        readable: bool,
    },
    /// A device is configured in another tier than it was created in.
    #[error(
        "{device} is a device of tier {}, but is configured in tier {}",
        TIER_NAMES[usize::from(*recorded) % 4], TIER_NAMES[usize::from(*configured) % 4]
    )]
    TierMismatch {
        /// Name of the device.
        device: String,
        /// Tier in its superblock.
        recorded: u8,
        /// Tier in the configuration.
        configured: u8,
    },
    /// A device is configured in a vdev of another kind or size than it was created in.
    #[error("{device} is part of a {recorded}, but is configured as part of a {configured}")]
    LayoutMismatch {
        /// Name of the device.
        device: String,
        /// Kind and leaves in its superblock.
        recorded: String,
        /// Kind and leaves in the configuration.
        configured: String,
    },
    /// A device is shorter than it was.
    #[error("{device} has {blocks} blocks of 4 KiB, but {recorded} are recorded: it was cut")]
    Shorter {
        /// Name of the device.
        device: String,
        /// Its length in blocks.
        blocks: u64,
        /// The recorded length in blocks.
        recorded: u64,
    },
    /// A device lacks checkpoints that the others have: an old copy.
    #[error("{device} ends at generation {newest}, but the pool is at {chosen}: it is out of date")]
    Stale {
        /// Name of the device.
        device: String,
        /// Its newest generation.
        newest: Generation,
        /// The newest generation of the pool.
        chosen: Generation,
    },
    /// Two devices hold different roots of the same generation, or each went on without the other.
    #[error(
        "{device} and {other} were written apart: from generation {generation} on they differ; open the pool with one of them"
    )]
    Diverged {
        /// Name of one.
        device: String,
        /// Name of the other.
        other: String,
        /// The first generation in which they differ.
        generation: Generation,
    },

    /// The payload does not fit into a superblock.
    #[error("a superblock payload of {bytes} bytes; the limit is {limit}")]
    PayloadTooLarge {
        /// Given.
        bytes: usize,
        /// Possible.
        limit: usize,
    },
    /// A vdev has no member at this place.
    #[error("vdev {vdev} has no leaf {leaf}")]
    UnknownMember {
        /// The top-level vdev.
        vdev: VdevId,
        /// The place.
        leaf: u8,
    },
    /// The member is, or would be, memory, which is a member only while the process lives.
    #[error("leaf {leaf} of vdev {vdev} cannot be memory for this")]
    VolatileMember {
        /// The top-level vdev.
        vdev: VdevId,
        /// The place.
        leaf: u8,
    },
    /// A member cannot be taken out of use: the others do not hold everything.
    #[error("{device} is needed: without it vdev {vdev} could not be read")]
    Indispensable {
        /// Name of the device.
        device: String,
        /// The top-level vdev.
        vdev: VdevId,
    },
    /// The device of a member is not there, or the member was lost meanwhile.
    #[error("{device}, leaf {leaf} of vdev {vdev}, is not there or not in use")]
    MemberGone {
        /// Name of the device.
        device: String,
        /// The top-level vdev.
        vdev: VdevId,
        /// The place.
        leaf: u8,
    },
    /// A member whose state has changed meanwhile.
    #[error("{device} is {state} by now")]
    OtherState {
        /// Name of the device.
        device: String,
        /// Its state.
        state: MemberState,
    },
    /// There was no commit yet, or no device can give its superblock.
    #[error("nothing was committed yet")]
    NotCommitted,
    /// The generation to continue from is none of those that open found.
    #[error("generation {generation} is not one that can be opened")]
    NotACandidate {
        /// Given.
        generation: Generation,
    },
}

fn list(devices: &[String]) -> String {
    devices.join(", ")
}

impl From<VdevError> for PoolError {
    fn from(error: VdevError) -> Self {
        Self::Vdev(Arc::new(error))
    }
}

impl From<ConfigurationError> for PoolError {
    fn from(error: ConfigurationError) -> Self {
        Self::Configuration(Arc::new(error))
    }
}
