//! What every command works with.

use crate::args::Global;
use crate::configuration::{self, Active, Source};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::Output;
use anyhow::Context as _;
use betree::pool::PoolError;
use betree::vdev::VdevError;
use betree::{AccessMode, Database, DatabaseConfiguration, ErrorKind};
use std::path::PathBuf;

/// What every command works with.
#[derive(Debug)]
pub struct Context {
    /// How to print.
    pub output: Output,
    /// Ctrl-C.
    pub interrupt: Interrupt,
    /// How often `-v` was said.
    pub verbose: u8,
    /// The file that `-c` names.
    pub config: Option<PathBuf>,
}

impl Context {
    /// For a command named `command`.
    ///
    /// # Errors
    /// The system does not give what Ctrl-C needs.
    pub fn new(global: &Global, command: &str) -> anyhow::Result<Self> {
        Ok(Self {
            output: Output::new(global, command.to_owned()),
            interrupt: Interrupt::install().context("taking over Ctrl-C")?,
            verbose: global.verbose,
            config: global.config.clone(),
        })
    }

    /// The configuration to use.
    ///
    /// # Errors
    /// As [`configuration::active`].
    pub fn configuration(&self) -> anyhow::Result<Active> {
        let active = configuration::active(self.config.as_deref())?;
        log::info!("configuration: {}", active.source);
        for setting in active.configuration.inactive_settings() {
            log::info!("{setting} has no effect yet");
        }
        if active.configuration.access_mode == AccessMode::AlwaysCreateNew {
            self.output
                .warn("access_mode AlwaysCreateNew has no effect: only `bectl db init` creates a pool");
        }
        Ok(active)
    }

    /// Opens the database for reading: nothing is changed or created.
    ///
    /// # Errors
    /// As [`Database::open_read_only`].
    pub fn open_read_only(&self) -> anyhow::Result<Database> {
        open(self.configuration()?, Database::open_read_only)
    }

    /// The configuration of a pool that there is, for commands that look at its devices themselves.
    ///
    /// # Errors
    /// [`Failure::NotFound`] when it names no durable vdev.
    pub fn pool_configuration(&self) -> anyhow::Result<Active> {
        let active = self.configuration()?;
        check_storage(&active)?;
        Ok(active)
    }

    /// As [`Context::open_read_only`], also when devices are missing without which everything can be read: for commands that say
    /// so. With the configuration.
    ///
    /// # Errors
    /// As there.
    pub fn look_at_devices(&self) -> anyhow::Result<(Database, Active)> {
        let active = self.with_devices_missing()?;
        Ok((open(active.clone(), Database::open_read_only)?, active))
    }

    /// Opens the database for reading and writing, also when devices are missing without which everything can be read: for
    /// commands that are about them.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn open_for_devices(&self) -> anyhow::Result<(Database, Active)> {
        let active = self.with_devices_missing()?;
        Ok((open(active.clone(), Database::open_with)?, active))
    }

    fn with_devices_missing(&self) -> anyhow::Result<Active> {
        let mut active = self.configuration()?;
        active.configuration.storage.degraded = true;
        Ok(active)
    }

    /// Opens the database for reading and writing; it must exist.
    ///
    /// # Errors
    /// As [`Database::open_with`].
    pub fn open(&self) -> anyhow::Result<Database> {
        open(self.configuration()?, Database::open_with)
    }
}

fn open(
    active: Active,
    open: impl Fn(DatabaseConfiguration) -> betree::Result<Database>,
) -> anyhow::Result<Database> {
    check_storage(&active)?;
    let Active { configuration, source } = active;
    open(configuration).map_err(|error| explain(error, &source))
}

fn check_storage(active: &Active) -> Result<(), Failure> {
    let Active { configuration, source } = active;
    if configuration.storage.is_empty() {
        return Err(Failure::NotFound(format!("no pool: the configuration {source} names no vdev")));
    }
    if !configuration::is_durable(&configuration.storage) {
        let why = "no pool: the configuration names only memory, which does not outlive a command";
        return Err(Failure::NotFound(why.into()));
    }
    Ok(())
}

/// Adds what a user can do about `error` of opening or creating.
pub fn explain(error: betree::Error, source: &Source) -> anyhow::Error {
    if error.kind() == ErrorKind::NotFound {
        return Failure::NotFound(format!("no pool; run `bectl db init` to make one ({error})")).into();
    }
    if matches!(&error, betree::Error::Pool(PoolError::Replaced { .. })) {
        let hint = format!("the configuration {source} must name the device that took its place");
        return anyhow::Error::from(error).context(hint);
    }
    let refuses_direct_io = match &error {
        betree::Error::Pool(PoolError::Vdev(error)) => matches!(**error, VdevError::NoDirectIo { .. }),
        _ => false,
    };
    if refuses_direct_io && matches!(source, Source::Default { .. }) {
        let hint = match configuration::user_file() {
            Some(path) => format!(
                "\"direct\": false is needed: `bectl config print-default > {}`, and set it there",
                path.display()
            ),
            None => "\"direct\": false is needed in a configuration".into(),
        };
        return anyhow::Error::from(error).context(hint);
    }
    error.into()
}
