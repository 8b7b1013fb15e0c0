//! `bectl db init`: makes a pool.

use super::db::{TierSpace, space_of};
use crate::args::Init;
use crate::configuration::{self, Active, Source};
use crate::confirm::confirm;
use crate::context::{Context, explain};
use crate::failure::Failure;
use crate::output::Cell;
use anyhow::Context as _;
use betree::base::preference::TIER_NAMES;
use betree::{Database, DatabaseConfiguration, ErrorKind, LeafVdev};
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// What is to be made.
struct Plan {
    active: Active,
    /// The configuration file that is to be written, with its text.
    file: Option<(PathBuf, String)>,
}

pub fn run(context: &Context, init: &Init) -> anyhow::Result<()> {
    let plan = match init.tiers.is_empty() && init.words.is_empty() {
        true => of_configuration(context, init)?,
        false => of_options(context, init)?,
    };
    let Active { configuration, source } = &plan.active;
    if configuration.storage.is_empty() {
        return Err(Failure::Usage(format!("the configuration {source} names no vdev")).into());
    }
    if init.dry_run {
        return preview(context, &plan);
    }
    if !configuration::is_durable(&configuration.storage) {
        context.output.warn("the pool is in memory only: nothing of it outlives this command");
    }
    if init.force {
        confirm_loss(context, init.yes, configuration)?;
    }
    if let Source::Default { pool } = source
        && let Some(folder) = pool.parent()
    {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let database = match &plan.file {
        Some((path, text)) => with_file(path, text, || create(&plan.active, init.force))?,
        None => create(&plan.active, init.force)?,
    };
    database.sync()?;
    let tiers = space_of(&database);
    database.close()?;
    report(context, &plan, &tiers)
}

/// A pool as the configuration says.
fn of_configuration(context: &Context, init: &Init) -> anyhow::Result<Plan> {
    let mut active = context.configuration()?;
    let is_default = matches!(active.source, Source::Default { .. });
    if let Some(size) = init.size {
        configuration::for_each_file(&mut active.configuration.storage, |file| {
            if is_default || file.size.is_none() {
                file.size = Some(size);
            }
        });
    }
    Ok(Plan { active, file: None })
}

/// A pool of the tiers in the options, with a configuration file that does not exist yet.
fn of_options(context: &Context, init: &Init) -> anyhow::Result<Plan> {
    let exists = |path: &Path| {
        let why = format!(
            "the configuration {} exists; name a new one with -c, or leave out what is in it: the vdevs",
            path.display()
        );
        anyhow::Error::from(Failure::Refused(why))
    };
    let path = match configuration::named(context.config.as_deref()) {
        Some(path) => path,
        None => match configuration::find(None)? {
            Some(path) => return Err(exists(&path)),
            None => configuration::user_file().ok_or_else(|| {
                Failure::Usage("there is no home folder; name a configuration with -c".into())
            })?,
        },
    };
    if path.try_exists()? {
        return Err(exists(&path));
    }
    let mut storage = configuration::parse_pool(&init.words)?;
    for option in &init.tiers {
        configuration::add_tier(&mut storage.tiers, option)?;
    }
    configuration::for_each_file(&mut storage, |file| file.size = file.size.or(init.size));
    configuration::make_absolute(&mut storage)?;
    let fastest = configuration::leaves(&storage).find(|(_, leaf)| !matches!(leaf, LeafVdev::Memory { .. }));
    let Some((tier, _)) = fastest else {
        return Err(Failure::Usage(
            "a pool needs a file or device: memory does not outlive a command".into(),
        )
        .into());
    };
    let mut configuration = DatabaseConfiguration {
        storage,
        default_storage_class: tier as u8,
        ..DatabaseConfiguration::default()
    };
    let text = configuration.to_json_string().map_err(betree::Error::from)?;
    configuration::apply_environment(&mut configuration)?;
    let source = Source::File(path.clone());
    Ok(Plan { active: Active { configuration, source }, file: Some((path, text)) })
}

fn create(active: &Active, force: bool) -> anyhow::Result<Database> {
    Database::create_with(active.configuration.clone(), force).map_err(|error| {
        let exists = error.kind() == ErrorKind::AlreadyExists;
        let missing = error.kind() == ErrorKind::NotFound;
        match explain_unless(missing, error, &active.source) {
            error if exists => {
                error.context("nothing was changed; --force makes a new pool over the old one")
            }
            error => error,
        }
    })
}

/// What does not exist here is a folder, not a pool.
fn explain_unless(missing: bool, error: betree::Error, source: &Source) -> anyhow::Error {
    if missing { error.into() } else { explain(error, source) }
}

/// Writes the configuration, which must not exist, and takes it back when `make` fails.
fn with_file(
    path: &Path,
    text: &str,
    make: impl FnOnce() -> anyhow::Result<Database>,
) -> anyhow::Result<Database> {
    let writing = || format!("writing the configuration {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(writing)?;
    }
    let mut file: File = OpenOptions::new().write(true).create_new(true).open(path).with_context(writing)?;
    let made = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(writing)
        .and_then(|()| make());
    if made.is_err()
        && let Err(error) = fs::remove_file(path)
    {
        log::warn!("{} could not be removed: {error}", path.display());
    }
    made
}

/// Asks before a pool is overwritten; devices that are provably empty need no question.
fn confirm_loss(context: &Context, yes: bool, configuration: &DatabaseConfiguration) -> anyhow::Result<()> {
    let lost = match Database::open_read_only(configuration.clone()) {
        Ok(database) => {
            let datasets = database.datasets()?.len();
            format!("destroys the pool with {datasets} dataset{}", if datasets == 1 { "" } else { "s" })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == ErrorKind::Busy => return Err(error.into()),
        Err(error) => format!("destroys what is there, which is no pool that can be opened ({error})"),
    };
    let files: Vec<String> =
        configuration::leaves(&configuration.storage).filter_map(|(_, leaf)| file_name(leaf)).collect();
    let name = files.first().cloned().unwrap_or_default();
    confirm(context, yes, &format!("{lost} on {}", files.join(", ")), name.as_bytes())
}

fn file_name(leaf: &LeafVdev) -> Option<String> {
    match leaf {
        LeafVdev::File(file) => Some(file.path.display().to_string()),
        LeafVdev::Memory { .. } | LeafVdev::Device(_) => None,
    }
}

#[derive(Serialize)]
struct Made<'a, T: Serialize> {
    /// The configuration file in use, if there is one.
    configuration: Option<String>,
    /// What was made, or would be.
    tiers: &'a [T],
}

impl Plan {
    fn configuration_file(&self) -> Option<String> {
        match &self.active.source {
            Source::File(path) => Some(path.display().to_string()),
            Source::Default { .. } => None,
        }
    }
}

/// A device that would be taken.
#[derive(Serialize)]
struct Planned {
    tier: &'static str,
    device: String,
    /// Bytes with which it is created; none for one that exists.
    size: Option<u64>,
}

fn preview(context: &Context, plan: &Plan) -> anyhow::Result<()> {
    let storage = &plan.active.configuration.storage;
    let planned: Vec<Planned> = configuration::leaves(storage)
        .map(|(tier, leaf)| {
            let (device, size) = match leaf {
                LeafVdev::File(file) => (file.path.display().to_string(), file.size),
                LeafVdev::Memory { mem } => ("memory".to_owned(), Some(*mem)),
                LeafVdev::Device(device) => (device.device().name().to_owned(), None),
            };
            Planned { tier: TIER_NAMES[tier], device, size }
        })
        .collect();
    if let Some((path, _)) = &plan.file {
        context.output.note(&format!("would write the configuration {}", path.display()));
    }
    context.output.note("would create a pool on:");
    let rows = planned.iter().map(|planned| {
        let size = planned.size.map_or_else(|| Cell::Text("-".into()), Cell::Bytes);
        vec![Cell::Text(planned.tier.into()), size, Cell::Text(planned.device.clone())]
    });
    let data = Made { configuration: plan.configuration_file(), tiers: &planned };
    context.output.table(&["TIER", "SIZE", "DEVICE"], rows.collect(), &data)
}

fn report(context: &Context, plan: &Plan, tiers: &[TierSpace]) -> anyhow::Result<()> {
    if context.output.json {
        return context.output.data(&Made { configuration: plan.configuration_file(), tiers });
    }
    if let Some((path, _)) = &plan.file {
        context.output.note(&format!("wrote the configuration {}", path.display()));
    }
    let total = tiers.iter().map(|tier| tier.total).sum();
    let size = context.output.size(total);
    let place = match &plan.active.source {
        Source::Default { pool } => format!("in {}", pool.display()),
        Source::File(path) => format!("as {} says", path.display()),
    };
    context.output.note(&format!("created a pool of {size} {place}"));
    Ok(())
}
