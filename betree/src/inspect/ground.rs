//! What all passes stand on: the pool, open for reading, and what its newest superblock says of the vdevs.

use super::ledger::Block;
use crate::base::buffer::AlignedBuffer;
use crate::base::checksum::crc;
use crate::base::extent::Extent;
use crate::base::units::BLOCK_BYTES;
use crate::database::{DatabaseConfiguration, RootRecord, dmu_options};
use crate::dmu::{AllocationState, Dmu, DmuError, DmuOptions, TABLE_ROOT, VdevGeometry};
use crate::pool::Pool;
use crate::tree::{NodeImage, NodeRef};
use std::sync::Arc;

/// Pool, reader and geometry.
#[derive(Debug)]
pub(super) struct Ground {
    pub pool: Arc<Pool>,
    /// Reads extents; allocates nothing.
    pub dmu: Dmu,
    /// The vdevs that persistent pointers may name.
    pub vdevs: Vec<VdevGeometry>,
}

/// Why a node header cannot be used.
#[derive(Debug)]
pub(super) enum HeaderFault {
    Unreadable(String),
    Checksum(u32),
    Decode(String),
    /// Another pool's.
    Foreign,
}

impl std::fmt::Display for HeaderFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(why) | Self::Decode(why) => f.write_str(why),
            Self::Checksum(found) => write!(f, "checksum {found:08x}"),
            Self::Foreign => f.write_str("a node of another pool"),
        }
    }
}

/// Where extents are, against what can be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    Fine,
    /// No durable vdev.
    NoVdev,
    /// Not inside of blocks that can be handed out.
    Outside,
}

impl Ground {
    pub fn new(
        configuration: &DatabaseConfiguration,
        pool: Pool,
        compare_copies: bool,
    ) -> Result<Self, DmuError> {
        let pool = Arc::new(pool);
        let vdevs = Dmu::persistent_geometries(&pool)?;
        let options = DmuOptions { compare_copies, ..dmu_options(configuration) };
        let dmu = Dmu::reader(Arc::clone(&pool), options)?;
        Ok(Self { pool, dmu, vdevs })
    }

    /// Has extents of vdevs that left read where the checkpoint of `record` says they are. A table root that cannot be read says
    /// nothing of them: that is found where it is looked at.
    ///
    /// # Errors
    /// Damage of a map, device errors.
    pub fn follow(&self, record: &RootRecord) -> Result<(), DmuError> {
        let length = record.table_length as usize;
        let mut is_right = |bytes: &[u8]| crc(&bytes[..length]) == record.table_checksum;
        let whole = length.next_multiple_of(BLOCK_BYTES);
        let extents = record.table_extents.extents();
        match self.dmu.read_checked(extents, 0, whole, 0..length, &mut is_right) {
            Ok((bytes, true)) => match self.dmu.follow_moved(&bytes[..length]) {
                Err(DmuError::Decode { what: TABLE_ROOT, .. }) => Ok(()),
                followed => followed,
            },
            _ => Ok(()),
        }
    }

    /// Whether `extent` may be named by a pointer. Without a table, the device's length and label areas decide.
    pub fn placement(&self, table: Option<&AllocationState>, extent: &Extent) -> Placement {
        if self.dmu.has_left(extent.vdev) {
            // Whether there is a place for it is a question of its own.
            return Placement::Fine;
        }
        let Some(vdev) = self.vdevs.iter().find(|vdev| vdev.id == extent.vdev) else {
            return Placement::NoVdev;
        };
        let end = extent.block.saturating_add(u64::from(extent.blocks));
        let inside = end <= vdev.blocks
            && vdev.reserved.iter().all(|range| end <= range.start || range.end <= extent.block);
        let fits = match table {
            Some(table) => inside && table.can_hold(extent),
            None => inside,
        };
        if fits { Placement::Fine } else { Placement::Outside }
    }

    /// Reads the node header that `reference` names.
    pub fn header(&self, reference: &NodeRef) -> Result<(AlignedBuffer, NodeImage), HeaderFault> {
        let length = reference.length as usize;
        let mut is_right = |bytes: &[u8]| crc(&bytes[..length]) == reference.checksum;
        let whole = length.next_multiple_of(BLOCK_BYTES);
        let read = self.dmu.read_checked(reference.extents.extents(), 0, whole, 0..length, &mut is_right);
        let (mut bytes, right) = read.map_err(|error| HeaderFault::Unreadable(error.to_string()))?;
        bytes.truncate(length);
        if !right {
            return Err(HeaderFault::Checksum(crc(&bytes)));
        }
        match NodeImage::decode(&bytes, &self.dmu, self.pool.uuid()) {
            Ok(image) => Ok((bytes, image)),
            Err(DmuError::Decode { source, .. }) if source.field == "pool" => Err(HeaderFault::Foreign),
            Err(error) => Err(HeaderFault::Decode(error.to_string())),
        }
    }
}

/// The first block of what has these extents.
pub(super) fn first(extents: &[Extent]) -> Block {
    extents.first().map(|extent| (extent.vdev, extent.block))
}
