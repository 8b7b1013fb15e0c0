//! `bectl db`: the database as a whole.

use super::init;
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

pub fn run(context: &Context, command: DbCommand) -> anyhow::Result<()> {
    match command {
        DbCommand::Init(options) => init::run(context, &options),
        DbCommand::Status => status(context),
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

/// What `db status` says.
#[derive(Serialize)]
struct Status {
    /// `ONLINE`, or `DAMAGED` when superblocks are lost or damaged, although the database opens.
    state: &'static str,
    configuration: String,
    /// Checkpoint that was opened.
    generation: u64,
    /// Newest checkpoint that any device names.
    highest_generation: u64,
    /// Whether something newer than the opened checkpoint was, or may have been, durable.
    rolled_back: bool,
    datasets: usize,
    object_stores: usize,
    tiers: Vec<TierSpace>,
    /// Slots that are damaged or unreadable.
    damaged_slots: Vec<String>,
    /// Label areas that the newest commit has not reached; usual after a crash.
    stale_areas: Vec<String>,
}

fn status(context: &Context) -> anyhow::Result<()> {
    let (database, source) = context.open_read_only_from()?;
    let mut status = Status {
        state: "ONLINE",
        configuration: source.to_string(),
        generation: 0,
        highest_generation: 0,
        rolled_back: false,
        datasets: database.datasets()?.len(),
        object_stores: database.object_stores()?.len(),
        tiers: space_of(&database),
        damaged_slots: Vec::new(),
        stale_areas: Vec::new(),
    };
    if let Some(report) = database.open_report() {
        status.generation = report.chosen.0;
        status.highest_generation = report.highest_seen.0;
        status.rolled_back = report.rolled_back;
        status.damaged_slots = report.bad_slots.iter().map(ToString::to_string).collect();
        let stale = report.stale.iter().map(|area| format!("{} {}", area.device, area.end));
        status.stale_areas = stale.collect();
        if report.rolled_back || !report.bad_slots.is_empty() {
            status.state = "DAMAGED";
        }
    }
    let text = |text: &str| Cell::Text(text.to_owned());
    let mut pairs = vec![
        ("state", text(status.state)),
        ("configuration", text(&status.configuration)),
        ("generation", Cell::Count(status.generation)),
        ("datasets", Cell::Count(status.datasets as u64)),
        ("object stores", Cell::Count(status.object_stores as u64)),
    ];
    for tier in &status.tiers {
        let (used, total) = (context.output.size(tier.used), context.output.size(tier.total));
        pairs.push((tier.tier, Cell::Text(format!("{used} of {total} used"))));
    }
    if status.rolled_back {
        let lost =
            format!("checkpoints after {} (up to {} seen)", status.generation, status.highest_generation);
        pairs.push(("lost", Cell::Text(lost)));
    }
    pairs.extend(status.damaged_slots.iter().map(|slot| ("damaged", text(slot))));
    pairs.extend(status.stale_areas.iter().map(|area| ("stale", text(area))));
    context.output.pairs(&pairs, &status)
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
}

/// Reads the devices themselves, so that it works where the database does not open.
fn dump_superblock(context: &Context) -> anyhow::Result<()> {
    let active = context.configuration()?;
    let mut slots = Vec::new();
    for (_, leaf) in configuration::leaves(&active.configuration.storage) {
        let LeafVdev::File(file) = leaf else { continue };
        let device = FileDevice::open(&file.path, file.direct, true).map_err(|error| {
            explain(betree::Error::from(betree::pool::PoolError::from(error)), &active.source)
        })?;
        slots.extend(dump_device(&device).iter().map(Slot::of));
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
