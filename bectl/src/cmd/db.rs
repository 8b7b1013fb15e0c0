//! `bectl db`: the database as a whole.

use super::{init, status};
use crate::args::DbCommand;
use crate::configuration;
use crate::context::{Context, explain};
use crate::output::Cell;
use crate::text::{self, Encoding, JsonBytes};
use betree::base::preference::TIER_NAMES;
use betree::base::units::BLOCK_BYTES_U64;
use betree::pool::{SlotContent, SlotDump, dump_device};
use betree::vdev::FileDevice;
use betree::{Database, LeafVdev};
use serde::Serialize;
use std::fmt::Display;
use std::path::Path;

pub fn run(context: &Context, command: DbCommand) -> anyhow::Result<()> {
    match command {
        DbCommand::Init(options) => init::run(context, &options),
        DbCommand::Status => status::run(context),
        DbCommand::Space => space(context),
        DbCommand::ListDatasets => list_datasets(context),
        DbCommand::DumpSuperblock => dump_superblock(context),
        DbCommand::ListRoot => list_root(context),
    }
}

/// Space of a tier, in bytes.
#[derive(Debug, Clone, Serialize)]
pub struct TierSpace {
    pub tier: &'static str,
    pub total: u64,
    pub used: u64,
    pub free: u64,
}

/// Space of the tiers that have any.
pub fn space_of(database: &Database) -> Vec<TierSpace> {
    let tiers = TIER_NAMES.into_iter().zip(database.free_space_tier());
    tiers
        .filter(|(_, info)| info.total > 0)
        .map(|(tier, info)| TierSpace {
            tier,
            total: info.total,
            used: info.total.saturating_sub(info.free),
            free: info.free,
        })
        .collect()
}

fn space(context: &Context) -> anyhow::Result<()> {
    let tiers = space_of(&context.open_read_only()?);
    let rows = tiers.iter().map(|space| {
        vec![
            Cell::Text(space.tier.into()),
            Cell::Bytes(space.total),
            Cell::Bytes(space.used),
            Cell::Bytes(space.free),
            Cell::Share(if space.total == 0 { 0.0 } else { space.used as f64 / space.total as f64 }),
        ]
    });
    context.output.table(&["TIER", "TOTAL", "USED", "FREE", "FULL"], rows.collect(), &tiers)
}

fn list_datasets(context: &Context) -> anyhow::Result<()> {
    let names = context.open_read_only()?.datasets()?;
    if context.output.json {
        let names: Vec<_> = names.iter().map(|name| JsonBytes(name, Encoding::Utf8)).collect();
        return context.output.data(&names);
    }
    let mut sink = context.output.sink();
    for name in &names {
        sink.line(&text::escaped(name))?;
    }
    sink.finish()
}

/// A slot of a label area.
#[derive(Serialize)]
struct Slot {
    device: String,
    area: String,
    slot: String,
    /// Byte on the device.
    offset: u64,
    content: String,
    #[serde(skip)]
    is_empty: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    superblock: Option<SuperblockFields>,
}

/// The fields of a superblock.
#[derive(Serialize)]
struct SuperblockFields {
    pool: String,
    device: String,
    generation: u64,
    previous: u64,
    highest_seen: u64,
    vdev: u32,
    tier: u8,
    leaf: u8,
    leaf_count: u8,
    device_blocks: u64,
    segment_blocks: u32,
    vdevs: usize,
    payload_bytes: usize,
}

impl Slot {
    fn of(dump: &SlotDump) -> Self {
        let superblock = match &dump.content {
            SlotContent::Superblock(found) => Some(SuperblockFields {
                pool: found.pool.to_string(),
                device: found.device.to_string(),
                generation: found.generation.0,
                previous: found.previous.0,
                highest_seen: found.highest_seen.0,
                vdev: found.vdev.0,
                tier: found.tier,
                leaf: found.leaf,
                leaf_count: found.leaf_count,
                device_blocks: found.device_blocks,
                segment_blocks: found.segment_blocks,
                vdevs: found.topology.entries.len(),
                payload_bytes: found.payload.len(),
            }),
            _ => None,
        };
        Self {
            device: dump.device.clone(),
            area: dump.end.to_string(),
            slot: dump.slot.to_string(),
            offset: dump.block * BLOCK_BYTES_U64,
            content: dump.content.to_string(),
            is_empty: matches!(dump.content, SlotContent::Empty),
            superblock,
        }
    }

    /// What stands for a device that cannot be read.
    fn unread(path: &Path, error: &impl Display) -> Self {
        Self {
            device: path.display().to_string(),
            area: "-".into(),
            slot: "-".into(),
            offset: 0,
            content: format!("not read: {error}"),
            is_empty: false,
            superblock: None,
        }
    }
}

/// Reads the devices themselves, so that it works where the database does not open; of one that is missing it says that, as
/// long as there is another.
fn dump_superblock(context: &Context) -> anyhow::Result<()> {
    let active = context.configuration()?;
    let (mut slots, mut first_error, mut is_any_read) = (Vec::new(), None, false);
    let storage = &active.configuration.storage;
    let leaves = configuration::leaves(storage).map(|(_, leaf)| (leaf, false));
    for (leaf, is_spare) in leaves.chain(storage.spares.iter().map(|leaf| (leaf, true))) {
        let LeafVdev::File(file) = leaf else { continue };
        match FileDevice::open(&file.path, file.direct, true) {
            Ok(device) => {
                is_any_read |= !is_spare;
                slots.extend(dump_device(&device).iter().map(Slot::of));
            }
            // It may be made when it is needed.
            Err(_) if is_spare => {}
            Err(error) => {
                slots.push(Slot::unread(&file.path, &error));
                first_error.get_or_insert(error);
            }
        }
    }
    if let Some(error) = first_error.filter(|_| !is_any_read) {
        return Err(explain(betree::Error::from(betree::pool::PoolError::from(error)), &active.source));
    }
    let shown = slots.iter().filter(|slot| context.verbose > 0 || !slot.is_empty);
    let rows = shown.map(|slot| {
        vec![
            Cell::Text(slot.device.clone()),
            Cell::Text(slot.area.clone()),
            Cell::Text(slot.slot.clone()),
            Cell::Count(slot.offset),
            Cell::Text(slot.content.clone()),
        ]
    });
    context.output.table(&["DEVICE", "AREA", "SLOT", "OFFSET", "CONTENT"], rows.collect(), &slots)
}

/// An entry of the root tree.
#[derive(Serialize)]
struct RootEntry {
    key: String,
    value: String,
}

fn list_root(context: &Context) -> anyhow::Result<()> {
    let entries: Vec<RootEntry> = context
        .open_read_only()?
        .root_entries()?
        .iter()
        .map(|(key, value)| RootEntry { key: Encoding::Hex.text(key), value: Encoding::Hex.text(value) })
        .collect();
    let rows =
        entries.iter().map(|entry| vec![Cell::Text(entry.key.clone()), Cell::Text(entry.value.clone())]);
    context.output.table(&["KEY", "VALUE"], rows.collect(), &entries)
}
