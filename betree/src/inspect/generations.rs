//! The checkpoints that the superblock ring still names, and opening one of them as it stands.

use super::devices::Slots;
use super::ground::Ground;
use crate::base::ids::Generation;
use crate::database::{Database, DatabaseConfiguration, Error, Opening, Result};
use crate::pool::format::Superblock;
use crate::pool::{Access, Candidate, Members, OpenReport};

/// A checkpoint that a superblock names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationInfo {
    /// Its number.
    pub generation: u64,
    /// The one before it; 0 for none.
    pub previous: u64,
    /// Slot in the ring.
    pub slot: u8,
    /// Good copies of its superblock, of two on each device.
    pub copies: usize,
    /// Whether opening the pool chooses it.
    pub newest: bool,
    /// Whether its blocks are kept for a fallback: those of the one before the newest are, of older ones they may have
    /// been used again.
    pub kept: bool,
    /// Datasets in it; `None` when it does not open.
    pub datasets: Option<u64>,
    /// Why it does not open.
    pub problem: Option<String>,
}

/// Lists the checkpoints in the ring, newest first, and whether each still opens. Nothing is written.
///
/// # Errors
/// As [`Database::open_read_only`], but for damage of the database itself.
pub fn list_generations(configuration: &DatabaseConfiguration) -> Result<Vec<GenerationInfo>> {
    let members = Members::open(&configuration.storage, Access::ReadOnly)?;
    let slots = Slots::read(&members);
    let (_, report) = members.pool(Access::ReadOnly)?;
    let newest_previous = slots.of(report.chosen).map(|newest| newest.previous);
    let mut all = Vec::new();
    for (superblock, copies) in slots.generations() {
        let opened =
            open(&members, configuration, superblock, &report).and_then(|database| database.datasets());
        let (datasets, problem) = match opened {
            Ok(names) => (Some(names.len() as u64), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let newest = superblock.generation == report.chosen;
        all.push(GenerationInfo {
            generation: superblock.generation.0,
            previous: superblock.previous.0,
            slot: superblock.slot,
            copies,
            newest,
            kept: newest || newest_previous == Some(superblock.generation),
            datasets,
            problem,
        });
    }
    Ok(all)
}

/// Opens checkpoint `generation` for reading, as it stands: without the log behind it, also when it is the newest.
/// Blocks of a checkpoint that is not kept any more may have been used again: what they held is an error when it is
/// read, for every byte is under a checksum.
///
/// # Errors
/// No superblock names it; as [`Database::open_read_only`].
pub fn open_generation(configuration: DatabaseConfiguration, generation: u64) -> Result<Database> {
    configuration.validate()?;
    let members = Members::open(&configuration.storage, Access::ReadOnly)?;
    let slots = Slots::read(&members);
    let (_, report) = members.pool(Access::ReadOnly)?;
    let Some(superblock) = slots.of(Generation(generation)) else {
        return Err(Error::NotFound { what: "generation", name: generation.to_string() });
    };
    open(&members, &configuration, superblock, &report)
}

fn open(
    members: &Members,
    configuration: &DatabaseConfiguration,
    superblock: &Superblock,
    report: &OpenReport,
) -> Result<Database> {
    let (pool, _) = members.pool(Access::ReadOnly)?;
    let candidate = Candidate { generation: superblock.generation, payload: superblock.payload.clone() };
    let report = OpenReport { candidates: vec![candidate], ..report.clone() };
    Database::open_on(configuration.clone(), pool, report, Opening::Checkpoint)
}

/// The superblock from which most can be read: `wanted`, or the newest one whose root tree has a header.
pub(super) fn readable<'s>(
    slots: &'s Slots,
    ground: &Ground,
    wanted: Option<Generation>,
) -> Option<&'s Superblock> {
    let mut all = slots.generations().into_iter().map(|(superblock, _)| superblock);
    if let Some(wanted) = wanted {
        return all.find(|superblock| superblock.generation == wanted);
    }
    all.find(|superblock| {
        let record = crate::database::RootRecord::decode(&superblock.payload, &ground.dmu);
        record.is_ok_and(|record| ground.header(&record.root_tree).is_ok())
    })
}
