//! `bectl vdev`: the devices of the pool.

use super::scrub::time_of;
use crate::args::{Add, Replace, VdevCommand};
use crate::configuration::{self, Active, Source};
use crate::confirm::confirm;
use crate::context::{self, Context};
use crate::failure::Failure;
use crate::output::Cell;
use crate::progress::Progress;
use betree::base::ids::VdevId;
use betree::base::preference::TIER_NAMES;
use betree::pool::PoolError;
use betree::vdev::VdevError;
use betree::{
    Database, DatabaseConfiguration, ErrorCounts, FileLeaf, LeafVdev, MemberState, MemberStatus,
    StoragePoolConfiguration, Vdev, VdevStatus,
};
use serde::Serialize;
use std::path::{Path, absolute};

/// Errors in JSON.
#[derive(Serialize)]
struct JsonErrors {
    read: u64,
    write: u64,
    checksum: u64,
    repaired: u64,
}

/// A device of a vdev in JSON.
#[derive(Serialize)]
pub struct JsonMember {
    id: String,
    device: String,
    state: String,
    /// Since when it is in its state.
    since: Option<String>,
    /// The first checkpoint of which it lacks something.
    missed_from: Option<u64>,
    errors: JsonErrors,
    reason: Option<String>,
    /// What its label calls it; none for memory.
    label: Option<String>,
    memory: bool,
}

impl JsonMember {
    fn of(vdev: &VdevStatus, member: &MemberStatus) -> Self {
        let ErrorCounts { read, write, checksum, repaired } = member.errors;
        Self {
            id: id_of(vdev, member),
            device: member.name.clone(),
            state: member.state.to_string(),
            since: member.since.map(time_of),
            missed_from: member.missed_from.map(|generation| generation.0),
            errors: JsonErrors { read, write, checksum, repaired },
            reason: member.reason.clone(),
            label: member.device.map(|device| device.to_string()),
            memory: member.is_volatile,
        }
    }
}

/// A vdev in JSON.
#[derive(Serialize)]
pub struct JsonVdev {
    id: u32,
    tier: &'static str,
    kind: String,
    state: String,
    /// Parity and label areas included.
    bytes: u64,
    members: Vec<JsonMember>,
}

impl JsonVdev {
    pub fn of(vdev: &VdevStatus) -> Self {
        Self {
            id: vdev.id.0,
            tier: TIER_NAMES[usize::from(vdev.tier) % TIER_NAMES.len()],
            kind: vdev.kind.to_string(),
            state: vdev.health.to_string(),
            bytes: vdev.bytes,
            members: vdev.members.iter().map(|member| JsonMember::of(vdev, member)).collect(),
        }
    }
}

/// How a device is called in commands, whatever its path: `VDEV.LEAF`.
pub fn id_of(vdev: &VdevStatus, member: &MemberStatus) -> String {
    format!("{}.{}", vdev.id, member.leaf)
}

/// Header and rows of the table of all devices.
pub fn table_of(vdevs: &[VdevStatus]) -> (&'static [&'static str], Vec<Vec<Cell>>) {
    const HEADER: &[&str] =
        &["ID", "TIER", "KIND", "STATE", "SIZE", "READ", "WRITE", "CHECKSUM", "REPAIRED", "DEVICE"];
    let text = |text: String| Cell::Text(text);
    let mut rows = Vec::new();
    for vdev in vdevs {
        let tier = TIER_NAMES[usize::from(vdev.tier) % TIER_NAMES.len()].to_owned();
        let sum = |of: fn(&ErrorCounts) -> u64| {
            Cell::Count(vdev.members.iter().fold(0, |sum, member| of(&member.errors).saturating_add(sum)))
        };
        let is_single = vdev.members.len() == 1;
        if !is_single {
            rows.push(vec![
                text(vdev.id.to_string()),
                text(tier.clone()),
                text(vdev.kind.to_string()),
                text(vdev.health.to_string()),
                Cell::Bytes(vdev.bytes),
                sum(|errors| errors.read),
                sum(|errors| errors.write),
                sum(|errors| errors.checksum),
                sum(|errors| errors.repaired),
                text("-".into()),
            ]);
        }
        for member in &vdev.members {
            let ErrorCounts { read, write, checksum, repaired } = member.errors;
            let leaf_bytes = vdev.bytes.checked_div(leaves_of(vdev)).unwrap_or_default();
            rows.push(vec![
                text(id_of(vdev, member)),
                text(tier.clone()),
                text("leaf".into()),
                text(member.state.to_string()),
                Cell::Bytes(leaf_bytes),
                Cell::Count(read),
                Cell::Count(write),
                Cell::Count(checksum),
                Cell::Count(repaired),
                text(member.name.clone()),
            ]);
        }
    }
    (HEADER, rows)
}

/// Leaves over which the blocks of a vdev are spread.
fn leaves_of(vdev: &VdevStatus) -> u64 {
    match vdev.kind {
        betree::VdevKind::Leaf | betree::VdevKind::Mirror => 1,
        betree::VdevKind::Parity1 | betree::VdevKind::Parity2 => vdev.members.len() as u64,
    }
}

pub fn run(context: &Context, command: VdevCommand) -> anyhow::Result<()> {
    match command {
        VdevCommand::List => list(context),
        VdevCommand::Remove(options) => super::evacuation::remove(context, &options),
        VdevCommand::Offline { device } => {
            let (database, _) = context.open_for_devices()?;
            let (vdev, leaf) = find(&database, &device)?;
            database.offline(vdev, leaf).map_err(explain)?;
            conclude(context, database, (vdev, leaf))
        }
        VdevCommand::Online { device, no_wait } => {
            let (database, _) = context.open_for_devices()?;
            let (vdev, leaf) = find(&database, &device)?;
            database.online(vdev, leaf).map_err(explain)?;
            fill(context, &database, (vdev, leaf), no_wait)?;
            conclude(context, database, (vdev, leaf))
        }
        VdevCommand::Clear { device } => clear(context, device.as_deref()),
        VdevCommand::Replace(options) => replace(context, &options),
        VdevCommand::Add(options) => add(context, &options),
    }
}

fn list(context: &Context) -> anyhow::Result<()> {
    let (database, _) = context.look_at_devices()?;
    let vdevs = database.vdevs();
    let (header, rows) = table_of(&vdevs);
    let data: Vec<JsonVdev> = vdevs.iter().map(JsonVdev::of).collect();
    context.output.table(header, rows, &data)
}

fn clear(context: &Context, device: Option<&str>) -> anyhow::Result<()> {
    let (database, _) = context.open_for_devices()?;
    let meant = device.map(|device| find(&database, device)).transpose()?;
    for vdev in database.vdevs() {
        for member in vdev.members.iter().filter(|member| !member.is_volatile) {
            let is_meant = meant.is_none_or(|meant| meant == (vdev.id, member.leaf));
            if is_meant && member.errors != ErrorCounts::default() {
                database.clear_errors(vdev.id, member.leaf)?;
            }
        }
    }
    let data: Vec<JsonVdev> = database.vdevs().iter().map(JsonVdev::of).collect();
    database.close()?;
    if context.output.json { context.output.data(&data) } else { Ok(()) }
}

/// What `vdev replace` did.
#[derive(Serialize)]
struct Replaced {
    #[serde(flatten)]
    member: JsonMember,
    /// The path in the configuration that must give way to `device`; none when it is the same.
    configured: Option<String>,
    /// Whether the configuration file names the new device.
    configuration_changed: bool,
}

fn replace(context: &Context, options: &Replace) -> anyhow::Result<()> {
    let (database, active) = context.open_for_devices()?;
    let (vdev, leaf) = find(&database, &options.device)?;
    let member = member_of(&database, (vdev, leaf))?;
    let old = configured(&active, &member.name).or_else(|| nobody(&active, &database.vdevs()));
    let new = new_device(options, old.as_ref(), &member.name)?;
    let device = LeafVdev::File(new.clone());
    match database.replace(vdev, leaf, &device, false) {
        Err(betree::Error::Pool(PoolError::NotEmpty { device: name, found })) if options.force => {
            confirm(
                context,
                options.yes,
                &format!("overwrites {name}, which holds {found},"),
                name.as_bytes(),
            )?;
            database.replace(vdev, leaf, &device, true).map_err(explain)?;
        }
        Err(betree::Error::Pool(PoolError::Vdev(error))) if is_in_use(&error) && options.new.is_none() => {
            let why = format!(
                "{} is in use by the pool; name another device, or take it out of use (`bectl vdev offline`), put another one in its place, and say this again",
                member.name
            );
            return Err(Failure::Refused(why).into());
        }
        done => done.map_err(explain)?,
    }
    // A spare is found where it is named as such.
    let is_new = |leaf: &LeafVdev| matches!(leaf, LeafVdev::File(file) if is_same(&file.path, &new.path));
    let is_spare = active.configuration.storage.spares.iter().any(is_new);
    let differs = !is_spare && old.as_ref().is_none_or(|old| !is_same(&old.path, &new.path));
    let changed = match differs && options.update_config {
        true => update(&active, old.as_ref(), &new),
        false => Ok(false),
    };
    let is_changed = matches!(changed, Ok(true));
    if differs && !is_changed {
        let before = old.as_ref().map_or_else(|| member.name.clone(), |old| old.path.display().to_string());
        let what = format!(
            "write {} in place of {before} into the configuration {}",
            new.path.display(),
            active.source
        );
        context.output.warn(&format!("{what}: the pool does not open with that any more"));
    }
    fill(context, &database, (vdev, leaf), options.no_wait)?;
    let (status, member) = status_of(&database, (vdev, leaf))?;
    changed?;
    let data = Replaced {
        member: JsonMember::of(&status, &member),
        configured: old.filter(|_| differs).map(|old| old.path.display().to_string()),
        configuration_changed: is_changed,
    };
    database.close()?;
    if context.output.json { context.output.data(&data) } else { Ok(()) }
}

/// What `vdev add` did.
#[derive(Serialize)]
struct Added<'a> {
    /// All vdevs, the new ones last in their tiers.
    vdevs: Vec<JsonVdev>,
    /// Whether the configuration file names the new devices.
    configuration_changed: bool,
    /// What the configuration must say of the storage.
    storage: &'a StoragePoolConfiguration,
}

fn add(context: &Context, options: &Add) -> anyhow::Result<()> {
    let active = context.pool_configuration()?;
    let Source::File(path) = &active.source else {
        let why = "there is no configuration file that could name the new devices; `bectl config print-default` prints one to begin with";
        return Err(Failure::Usage(why.into()).into());
    };
    let mut added = configuration::parse_pool(&options.words)?;
    if !added.spares.is_empty() {
        let why = "spares are in the configuration alone: write them into \"spares\" there";
        return Err(Failure::Usage(why.into()).into());
    }
    configuration::for_each_file(&mut added, |file| file.size = file.size.or(options.size));
    configuration::make_absolute(&mut added)?;
    let before = &active.configuration.storage;
    if !options.force {
        check_redundancy(before, &added)?;
    }
    let storage = before.extended(&added.tiers);
    let database = open_adding(context, &active, &added, options)?;
    let vdevs: Vec<JsonVdev> = database.vdevs().iter().map(JsonVdev::of).collect();
    database.close()?;
    let rewritten = options.update_config.then(|| {
        configuration::rewrite(path, |configuration| {
            configuration.storage = configuration.storage.extended(&added.tiers);
        })
    });
    if !matches!(rewritten, Some(Ok(()))) {
        let what = format!("write {} into the configuration {}", options.words.join(" "), path.display());
        context.output.warn(&format!("{what}: the pool does not open without that any more"));
    }
    rewritten.transpose()?;
    let data = Added { vdevs, configuration_changed: options.update_config, storage: &storage };
    if context.output.json { context.output.data(&data) } else { Ok(()) }
}

/// Opens the database with the new vdevs. An addition that was cut short may be complete.
fn open_adding(
    context: &Context,
    active: &Active,
    added: &StoragePoolConfiguration,
    options: &Add,
) -> anyhow::Result<Database> {
    let add = |force| Database::open_adding(active.configuration.clone(), &added.tiers, force);
    let error = match add(false) {
        Ok(database) => return Ok(database),
        Err(error) => error,
    };
    let is_there =
        matches!(&error, betree::Error::Pool(PoolError::NotEmpty { .. } | PoolError::MissingDevice { .. }));
    if is_there {
        let storage = active.configuration.storage.extended(&added.tiers);
        let whole = DatabaseConfiguration { storage, ..active.configuration.clone() };
        if let Ok(database) = Database::open_with(whole) {
            context.output.note("the pool has these vdevs already");
            return Ok(database);
        }
    }
    match &error {
        betree::Error::Pool(PoolError::NotEmpty { device, found }) if options.force => {
            let what = format!("overwrites the new devices: {device} holds {found}");
            confirm(context, options.yes, &what, device.as_bytes())?;
            add(true).map_err(|error| context::explain(error, &active.source))
        }
        betree::Error::Pool(PoolError::NotEmpty { .. }) => Err(explain(error)),
        _ => Err(context::explain(error, &active.source)),
    }
}

/// Devices of a vdev that may be lost before data are; none for memory, which holds nothing for ever.
fn borne(vdev: &Vdev) -> Option<usize> {
    let is_durable = |leaf: &LeafVdev| !matches!(leaf, LeafVdev::Memory { .. });
    let durable = vdev.leaves().iter().filter(|leaf| is_durable(leaf)).count();
    match vdev {
        _ if durable == 0 => None,
        Vdev::Leaf(_) => Some(0),
        Vdev::Mirror(_) => Some(durable - 1),
        Vdev::Parity1(legs) => Some((1 + durable).saturating_sub(legs.len())),
        Vdev::Parity2(legs) => Some((2 + durable).saturating_sub(legs.len())),
    }
}

/// Refuses vdevs that are lost more easily than any that the pool has: all that is spread over them is lost with one.
fn check_redundancy(
    before: &StoragePoolConfiguration,
    added: &StoragePoolConfiguration,
) -> Result<(), Failure> {
    let least = |storage: &StoragePoolConfiguration| {
        storage.tiers.iter().flat_map(|tier| &tier.top_level_vdevs).filter_map(borne).min()
    };
    match (least(before), least(added)) {
        (Some(before), Some(added)) if added < before => Err(Failure::Refused(format!(
            "every vdev of the pool bears the loss of {before} device(s), and the new ones only of {added}: what is on them would be lost with them; --force adds them"
        ))),
        _ => Ok(()),
    }
}

/// The device that comes: as it is named, with what it does not say as the one that goes.
fn new_device(options: &Replace, old: Option<&FileLeaf>, name: &str) -> anyhow::Result<FileLeaf> {
    let Some(text) = &options.new else {
        return old.cloned().ok_or_else(|| {
            let why = format!("the configuration has no file {name}; name the new device");
            Failure::Usage(why).into()
        });
    };
    let mut new = configuration::parse_leaf(text)?;
    if let Some(old) = old {
        new.direct = if text.contains(":direct=") { new.direct } else { old.direct };
        new.sparse = if text.contains(":sparse=") { new.sparse } else { old.sparse };
    }
    new.path = absolute(&new.path)?;
    Ok(new)
}

/// Writes the new device into the configuration file; whether there is one that names the old one.
fn update(active: &Active, old: Option<&FileLeaf>, new: &FileLeaf) -> anyhow::Result<bool> {
    let (Source::File(path), Some(old)) = (&active.source, old) else { return Ok(false) };
    let mut is_changed = false;
    configuration::rewrite(path, |configuration| {
        configuration::for_each_file(&mut configuration.storage, |file| {
            if file.path == old.path {
                *file = new.clone();
                is_changed = true;
            }
        });
    })?;
    Ok(is_changed)
}

fn is_in_use(error: &VdevError) -> bool {
    matches!(error, VdevError::InUse { .. })
}

/// Whether two paths name the same place, without looking there.
fn is_same(path: &Path, other: &Path) -> bool {
    match (absolute(path), absolute(other)) {
        (Ok(path), Ok(other)) => path == other,
        _ => path == other,
    }
}

/// The file of the configuration that a device is called by.
fn configured(active: &Active, name: &str) -> Option<FileLeaf> {
    configuration::leaves(&active.configuration.storage).find_map(|(_, leaf)| match leaf {
        LeafVdev::File(file) if file.path.display().to_string() == name => Some(file.clone()),
        _ => None,
    })
}

/// The only file of the configuration that is no device of the pool: what a spare, or one without a name, stands for.
pub fn nobody(active: &Active, vdevs: &[VdevStatus]) -> Option<FileLeaf> {
    let is_member = |path: &Path| {
        let name = path.display().to_string();
        vdevs.iter().flat_map(|vdev| &vdev.members).any(|member| member.name == name)
    };
    let files = configuration::leaves(&active.configuration.storage).filter_map(|(_, leaf)| match leaf {
        LeafVdev::File(file) if !is_member(&file.path) => Some(file),
        _ => None,
    });
    let files: Vec<&FileLeaf> = files.collect();
    match files[..] {
        [only] => Some(only.clone()),
        _ => None,
    }
}

/// The device that `text` names: by its path, or as `VDEV.LEAF`.
fn find(database: &Database, text: &str) -> anyhow::Result<(VdevId, u8)> {
    let vdevs = database.vdevs();
    let all = || vdevs.iter().flat_map(|vdev| vdev.members.iter().map(move |member| (vdev, member)));
    let is_path = |(_, member): &(&VdevStatus, &MemberStatus)| {
        !member.is_volatile && is_same(Path::new(&member.name), Path::new(text))
    };
    let is_id = |(vdev, member): &(&VdevStatus, &MemberStatus)| id_of(vdev, member) == text;
    let found = all().find(is_path).or_else(|| all().find(is_id));
    found.map(|(vdev, member)| (vdev.id, member.leaf)).ok_or_else(|| {
        let why = format!("the pool has no device {text}; `bectl vdev list` names them");
        Failure::NotFound(why).into()
    })
}

fn status_of(database: &Database, (id, leaf): (VdevId, u8)) -> anyhow::Result<(VdevStatus, MemberStatus)> {
    let vdev = database.vdevs().into_iter().find(|vdev| vdev.id == id);
    let found = vdev.and_then(|vdev| {
        let member = vdev.members.iter().find(|member| member.leaf == leaf).cloned();
        member.map(|member| (vdev, member))
    });
    found.ok_or_else(|| betree::Error::Pool(PoolError::UnknownMember { vdev: id, leaf }).into())
}

fn member_of(database: &Database, place: (VdevId, u8)) -> anyhow::Result<MemberStatus> {
    status_of(database, place).map(|(_, member)| member)
}

/// Adds what a user can do.
fn explain(error: betree::Error) -> anyhow::Error {
    let hint = match &error {
        betree::Error::Pool(PoolError::Indispensable { .. }) => {
            "nothing was changed; only what is on other devices, too, can be taken away or replaced"
        }
        betree::Error::Pool(PoolError::MemberGone { .. }) => {
            "attach the device, or put another one in its place with `bectl vdev replace`"
        }
        betree::Error::Pool(PoolError::NotEmpty { .. }) => "nothing was changed; --force overwrites it",
        _ => return error.into(),
    };
    anyhow::Error::from(error).context(hint)
}

/// Waits until the member at `place` holds everything, if it is to.
fn fill(context: &Context, database: &Database, place: (VdevId, u8), no_wait: bool) -> anyhow::Result<()> {
    if no_wait || member_of(database, place)?.state != MemberState::Resilvering {
        return Ok(());
    }
    let progress = Progress::start(&context.output, "resilvering", None);
    let mut done = 0;
    let ended = database.resilver(|status| {
        progress.advance(status.scrub.bytes_done.saturating_sub(done));
        done = status.scrub.bytes_done;
        progress.say(|| {
            let (total, filled) = (status.scrub.bytes_total, status.filled_bytes);
            let (total, filled) = (context.output.size(total), context.output.size(filled));
            format!("of {total}, {filled} copied to {}", status.member)
        });
        !context.interrupt.is_set()
    })?;
    drop(progress);
    let member = member_of(database, place)?;
    if member.state != MemberState::Online {
        context.interrupt.check()?;
        if let Some(count) = ended.map(|status| status.scrub.damaged).filter(|count| *count > 0) {
            let reason = format!(
                "{count} finding(s) that are right on no device, so that {} goes on lacking something; `bectl scrub start` names them",
                member.name
            );
            return Err(betree::Error::Corrupt { what: "resilver", reason }.into());
        }
        let why = format!("{} is {}: {}", member.name, member.state, member.reason.unwrap_or_default());
        return Err(betree::Error::InvalidArgument { what: "resilver", reason: why }.into());
    }
    if let Some(status) = ended {
        context.output.note(&format!(
            "{} copied to {}",
            context.output.size(status.filled_bytes),
            member.name
        ));
    }
    Ok(())
}

/// Closes the database and prints how a member is.
fn conclude(context: &Context, database: Database, place: (VdevId, u8)) -> anyhow::Result<()> {
    let (vdev, member) = status_of(&database, place)?;
    database.close()?;
    if context.output.json { context.output.data(&JsonMember::of(&vdev, &member)) } else { Ok(()) }
}
