//! P1: a root record and the allocation table that it names.

use super::code::Code;
use super::ground::{Ground, Placement, first};
use super::ledger::{Block, Ledger};
use super::ownership::{Kind, Owners};
use crate::base::checksum::crc;
use crate::base::extent::{Extent, total_blocks};
use crate::base::ids::Generation;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64, blocks_for};
use crate::database::RootRecord;
use crate::dmu::{AllocationState, DmuError, Expected, Fault, Flaw};
use crate::pool::format::Superblock;

/// A checkpoint: what its superblock says of it.
#[derive(Debug)]
pub(super) struct Root {
    pub record: RootRecord,
    /// The checkpoint before it.
    pub parent: Generation,
}

/// The code of an error that a pointer's list of extents, or a device, gave.
pub(super) fn code_of(error: &DmuError) -> Code {
    match error {
        DmuError::Pool(_) => Code::Unreadable,
        DmuError::Decode { .. } => Code::Decode,
        _ => Code::Checksum,
    }
}

impl Root {
    /// Reads the root record of `superblock`; `None` when it cannot be used.
    pub fn read(ground: &Ground, superblock: &Superblock, ledger: &mut Ledger<'_>) -> Option<Self> {
        let object = format!("root record of generation {}", superblock.generation);
        let record = match RootRecord::decode(&superblock.payload, &ground.dmu) {
            Ok(record) => record,
            Err(error) => {
                ledger.report(code_of(&error), object, None, "a root record", error);
                return None;
            }
        };
        if record.encode() != superblock.payload {
            ledger.report(Code::Canonical, &object, None, "the record as it is written", "other bytes");
        }
        let mut agree = |is: bool, what: &str, found: String| {
            if !is {
                ledger.report(Code::Root, &object, None, what, found);
            }
        };
        let head = &record.log_head;
        let generation = record.generation;
        agree(generation == superblock.generation, "the superblock's generation", generation.to_string());
        agree(record.epoch == head.epoch, "one log epoch", format!("{} and {}", record.epoch, head.epoch));
        let opened = head.epoch <= superblock.highest_seen.0;
        agree(opened, "a log of a generation that was seen", format!("epoch {}", head.epoch));
        agree(record.next_dataset > 0, "a next dataset above the root tree's", String::from("0"));
        let length = u64::from(record.table_length);
        if !ground.dmu.fits(record.table_extents.extents(), blocks_for(length)) {
            let blocks = ground.dmu.data_blocks(record.table_extents.extents());
            let found = format!("{blocks} blocks for {length} bytes");
            ledger.report(
                Code::Size,
                &object,
                first(record.table_extents.extents()),
                "as many as needed",
                found,
            );
        }
        Some(Self { record, parent: superblock.previous })
    }

    /// Has what lies on vdevs that left found where this checkpoint says; whether it can be.
    pub fn follow(&self, ground: &Ground, ledger: &mut Ledger<'_>) -> bool {
        match ground.follow(&self.record) {
            Ok(()) => true,
            Err(error) => {
                let at = first(self.record.table_extents.extents());
                ledger.report(Code::Moved, "map of a vdev that left", at, "a map", error);
                ledger.note("without the map nothing behind the root record can be looked at");
                false
            }
        }
    }

    /// Reads the allocation table.
    pub fn table(
        &self,
        ground: &Ground,
        newest: bool,
        owners: &mut Owners,
        ledger: &mut Ledger<'_>,
    ) -> Option<AllocationState> {
        let record = &self.record;
        let object = "allocation table";
        let extents = record.table_extents.extents();
        let at = first(extents);
        owners.add(Kind::Table, &record.table_extents.all());
        // A table that may be anywhere is not read: the walk would trust it.
        if !extents.iter().all(|extent| placed(ground, None, object, extent, ledger)) {
            return None;
        }
        let length = record.table_length as usize;
        let mut is_right = |bytes: &[u8]| crc(&bytes[..length]) == record.table_checksum;
        let whole = length.next_multiple_of(BLOCK_BYTES);
        let (bytes, right) = match ground.dmu.read_checked(extents, 0, whole, 0..length, &mut is_right) {
            Ok(read) => read,
            Err(error) => {
                ledger.report(code_of(&error), object, at, "the table root", error);
                return None;
            }
        };
        if !right {
            let found = crc(&bytes[..length]);
            let expected = format!("a table root with checksum {:08x}", record.table_checksum);
            ledger.report(Code::Checksum, object, at, expected, format!("{found:08x}"));
            return None;
        }
        let expected =
            Expected { generation: record.generation, parent: self.parent, vdevs: &ground.vdevs, newest };
        owners.add(Kind::Map, &ground.dmu.map_extents());
        AllocationState::read(&ground.pool, &bytes[..length], &expected, &mut |flaw| {
            report_flaw(&flaw, at, ledger);
        })
    }
}

/// Reports what is wrong with the allocation state; a flaw without a block of its own is that of the root, at `root`.
pub(super) fn report_flaw(flaw: &Flaw, root: Block, ledger: &mut Ledger<'_>) {
    let code = match flaw.fault {
        Fault::Unreadable => Code::Unreadable,
        Fault::Checksum => Code::Checksum,
        Fault::Decode => Code::Decode,
        Fault::Canonical => Code::Canonical,
        Fault::Identity => Code::Identity,
        Fault::Generation => Code::Generation,
        Fault::Geometry => Code::Root,
        Fault::Reserved => Code::Reserved,
        Fault::Unallocated => Code::Unallocated,
        Fault::Leak => Code::Leak,
        Fault::Count => Code::Free,
        Fault::Copy => Code::Copy,
    };
    let at = if flaw.block == 0 { root } else { Some((flaw.vdev, flaw.block)) };
    ledger.report(code, format!("allocation state of vdev {}", flaw.vdev), at, &flaw.expected, &flaw.found);
}

/// Whether `extent` may be read; reports when not.
pub(super) fn placed(
    ground: &Ground,
    table: Option<&AllocationState>,
    object: &str,
    extent: &Extent,
    ledger: &mut Ledger<'_>,
) -> bool {
    let (code, expected) = match ground.placement(table, extent) {
        Placement::Fine => return true,
        Placement::NoVdev => (Code::Tier, "a durable vdev of the pool"),
        Placement::Outside => (Code::Outside, "blocks that can be handed out"),
    };
    ledger.report(code, object, Some((extent.vdev, extent.block)), expected, extent);
    false
}

/// Bytes of blocks, for messages.
pub(super) fn block_bytes(extents: &[Extent]) -> u64 {
    total_blocks(extents) * BLOCK_BYTES_U64
}
