//! The handle of a database.

use super::batch::Batch;
use super::catalog::DatasetState;
use super::core::Core;
use super::dataset::{Dataset, create_snapshots};
use super::error::{Error, ErrorKind, Result};
use super::evacuation::EvacuationStatus;
use super::format::{NAME_BYTES_MAX, Role};
use super::limits::check_length;
use super::metrics::Metrics;
use super::naming::{check_name, new_record};
use super::pair::Pair;
use super::recovery::Opening;
use super::scrub::ScrubStatus;
use super::snapshots::{Change, Snapshot};
use super::verify::VerifyReport;
use super::view::DatabaseView;
use super::worker::Workers;
use super::{AccessMode, DatabaseConfiguration, DatasetConfiguration};
use crate::base::ids::VdevId;
use crate::base::planted::{Bug, planted};
use crate::base::preference::{StoragePreference, TIER_COUNT};
use crate::base::units::BLOCK_BYTES_U64;
use crate::dmu::DepartedVdev;
use crate::pool::{Access, CreateOptions, OpenReport, Pool, PoolError, StoragePoolConfiguration};
use crate::tree::{Action, DefaultMessageAction, MessageAction, Value};
use std::path::Path;
use std::sync::Arc;

/// A database on a storage pool. Cloning is cheap; dropping the last handle closes it.
#[derive(Debug, Clone)]
pub struct Database {
    handle: Arc<Handle>,
}

/// What all handles hold; dropping it closes the database.
#[derive(Debug)]
pub(super) struct Handle {
    core: Arc<Core>,
    workers: Workers,
    report: Option<OpenReport>,
}

impl Handle {
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    fn close(&self) -> Result<()> {
        let core = &self.core;
        core.set_closing();
        // After a failure this is an error: what was written and not synced may be lost, and perhaps nobody was told.
        let written = if core.read_only { Ok(()) } else { core.checkpoint(false).map(|_| ()) };
        if !core.set_closed() {
            return Ok(());
        }
        self.workers.stop(core);
        written.and(core.pool.close().map_err(Error::from))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close()
            && error.kind() != ErrorKind::Closed
        {
            log::error!("closing the database: {error}");
        }
    }
}

/// Free and total space of one tier, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageInfo {
    /// Bytes that a write may still use.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

impl StorageInfo {
    /// Free share, 0.0 to 1.0; 0 for a tier without vdevs.
    #[must_use]
    pub fn percent_free(&self) -> f64 {
        if self.total == 0 { 0.0 } else { self.free as f64 / self.total as f64 }
    }

    /// Used share, 0.0 to 1.0.
    #[must_use]
    pub fn percent_full(&self) -> f64 {
        if self.total == 0 { 0.0 } else { 1.0 - self.percent_free() }
    }
}

impl Database {
    /// Opens or creates a database as `configuration` says, with its background threads.
    ///
    /// # Errors
    /// The configuration is not legal; no pool where one was to be opened; a device in use, missing, foreign or damaged;
    /// a device that is not provably empty where a pool was to be created. No device was changed then.
    pub fn build(configuration: DatabaseConfiguration) -> Result<Self> {
        configuration.validate()?;
        match configuration.access_mode {
            AccessMode::OpenIfExists => Self::open_pool(configuration, false),
            AccessMode::AlwaysCreateNew => Self::create_pool(configuration, true),
            AccessMode::OpenOrCreate => match Self::open_pool(configuration.clone(), false) {
                Err(Error::Pool(PoolError::NotFound { .. })) => Self::create_pool(configuration, false),
                Err(_) if planted(Bug::FormatOnDecodeError) => Self::create_pool(configuration, true),
                opened => opened,
            },
        }
    }

    /// As [`Database::build`], for callers that share a database in an `Arc`.
    ///
    /// # Errors
    /// As [`Database::build`].
    pub fn build_threaded(configuration: DatabaseConfiguration) -> Result<Arc<Self>> {
        Self::build(configuration).map(Arc::new)
    }

    /// Opens the database on a pool, with defaults for everything else.
    ///
    /// # Errors
    /// As [`Database::build`].
    pub fn open(storage: StoragePoolConfiguration) -> Result<Self> {
        Self::build(DatabaseConfiguration { storage, ..DatabaseConfiguration::default() })
    }

    /// Creates a pool and a database on it; refuses devices that are not provably empty.
    ///
    /// # Errors
    /// As [`Database::build`].
    pub fn create(storage: StoragePoolConfiguration) -> Result<Self> {
        let configuration = DatabaseConfiguration { storage, ..DatabaseConfiguration::default() };
        configuration.validate()?;
        Self::create_pool(configuration, false)
    }

    /// Opens the database on a pool; creates both where every device is provably empty.
    ///
    /// # Errors
    /// As [`Database::build`].
    pub fn open_or_create(storage: StoragePoolConfiguration) -> Result<Self> {
        let access_mode = AccessMode::OpenOrCreate;
        Self::build(DatabaseConfiguration { storage, access_mode, ..DatabaseConfiguration::default() })
    }

    /// Creates a database as `configuration` says, whatever its access mode; refuses devices that are not provably empty
    /// unless `force`.
    ///
    /// # Errors
    /// As [`Database::build`].
    pub fn create_with(configuration: DatabaseConfiguration, force: bool) -> Result<Self> {
        configuration.validate()?;
        Self::create_pool(configuration, force)
    }

    /// Opens a database for reading: no byte of any device changes, and other readers may do the same.
    ///
    /// # Errors
    /// As [`Database::build`].
    pub fn open_read_only(configuration: DatabaseConfiguration) -> Result<Self> {
        configuration.validate()?;
        Self::open_pool(configuration, true)
    }

    /// Opens an existing database for reading and writing, whatever the access mode of `configuration`.
    ///
    /// # Errors
    /// As [`Database::build`].
    pub fn open_with(configuration: DatabaseConfiguration) -> Result<Self> {
        configuration.validate()?;
        Self::open_pool(configuration, false)
    }

    fn create_pool(configuration: DatabaseConfiguration, force: bool) -> Result<Self> {
        let segment_blocks = (configuration.segment_size / BLOCK_BYTES_U64) as u32;
        let pool = Pool::create(&configuration.storage, &CreateOptions { segment_blocks, force })?;
        Self::start(Core::create(configuration, pool)?, None)
    }

    fn open_pool(configuration: DatabaseConfiguration, read_only: bool) -> Result<Self> {
        let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
        let (pool, report) = Pool::open(&configuration.storage, access)?;
        let opening = if read_only { Opening::ReadOnly } else { Opening::ReadWrite };
        Self::open_on(configuration, pool, report, opening)
    }

    /// Opens the database on `pool`, at the first candidate of `report` that loads.
    ///
    /// # Errors
    /// As [`Database::build`].
    pub(crate) fn open_on(
        configuration: DatabaseConfiguration,
        pool: Pool,
        report: OpenReport,
        opening: Opening<'_>,
    ) -> Result<Self> {
        let core = Core::open(configuration, pool, &report, opening)?;
        let report = OpenReport { rolled_back: report.rolled_back || core.rolled_back, ..report };
        Self::start(core, Some(report))
    }

    fn start(core: Arc<Core>, report: Option<OpenReport>) -> Result<Self> {
        let workers = Workers::start(&core).map_err(|error| Error::InvalidArgument {
            what: "background threads",
            reason: format!("the operating system refuses one: {error}"),
        })?;
        Ok(Self { handle: Arc::new(Handle { core, workers, report }) })
    }

    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// What opening found: the generation chosen, the newest seen, damaged or stale superblocks. `None` for a database
    /// that was created by this handle.
    #[must_use]
    pub fn open_report(&self) -> Option<&OpenReport> {
        self.handle.report.as_ref()
    }

    /// The configuration that this database was built with.
    #[must_use]
    pub fn configuration(&self) -> &DatabaseConfiguration {
        &self.core().configuration
    }

    /// Writes the configuration as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_config_json(&self, path: impl AsRef<Path>) -> Result<()> {
        Ok(self.configuration().write_config_json(path)?)
    }

    /// Starts an atomic batch.
    pub fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.handle))
    }

    /// One consistent state of all datasets, in memory.
    #[must_use]
    pub fn view(&self) -> DatabaseView {
        DatabaseView::new(Arc::clone(&self.handle))
    }

    /// Makes everything that returned before durable: one log write and one flush of the devices that need it.
    ///
    /// # Errors
    /// Device errors: what was written since the last sync may be lost in a crash, and the database takes no more
    /// writes.
    pub fn sync(&self) -> Result<()> {
        self.core().sync()
    }

    /// Writes the trees and empties the log; happens by itself too.
    ///
    /// # Errors
    /// Out of space, device errors.
    pub fn checkpoint(&self) -> Result<()> {
        self.core().checkpoint(true).map(|_| ())
    }

    /// Writes a checkpoint and closes the database; later calls on any handle report [`ErrorKind::Closed`]. The devices stay
    /// locked until the last handle, view and iterator of this database is gone.
    ///
    /// # Errors
    /// Device errors; what was synced is safe.
    pub fn close(self) -> Result<()> {
        self.handle.close()
    }

    /// Opens the dataset `name`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; another message action.
    pub fn open_dataset(&self, name: impl AsRef<[u8]>) -> Result<Dataset> {
        self.open_custom(name.as_ref(), DefaultMessageAction)
    }

    /// Creates the dataset `name`.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`].
    pub fn create_dataset(&self, name: impl AsRef<[u8]>) -> Result<Dataset> {
        let configuration = self.configuration().default_dataset.clone();
        self.create_dataset_with(name, &configuration)
    }

    /// Creates the dataset `name` with a shape and preference of its own.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`]; a configuration that is not legal.
    pub fn create_dataset_with(
        &self,
        name: impl AsRef<[u8]>,
        configuration: &DatasetConfiguration,
    ) -> Result<Dataset> {
        self.create_custom(name.as_ref(), configuration, DefaultMessageAction)
    }

    /// Opens the dataset `name`, or creates it.
    ///
    /// # Errors
    /// Another message action; device errors.
    pub fn open_or_create_dataset(&self, name: impl AsRef<[u8]>) -> Result<Dataset> {
        self.open_or_create_custom(name.as_ref(), StoragePreference::NONE, || DefaultMessageAction)
    }

    /// Opens the dataset `name`, whose messages `M` applies. The preference given here has no effect: it is stored with
    /// the dataset when that is created.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; another message action.
    pub fn open_custom_dataset<M: MessageAction + Default>(
        &self,
        name: impl AsRef<[u8]>,
        _preference: StoragePreference,
    ) -> Result<Dataset<M>> {
        self.open_custom(name.as_ref(), M::default())
    }

    /// Creates the dataset `name`, whose messages `M` applies and whose data prefers `preference`.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`].
    pub fn create_custom_dataset<M: MessageAction + Default>(
        &self,
        name: impl AsRef<[u8]>,
        preference: StoragePreference,
    ) -> Result<Dataset<M>> {
        self.create_custom(name.as_ref(), &self.with_preference(preference), M::default())
    }

    /// Opens the dataset `name`, or creates it; as the two methods before.
    ///
    /// # Errors
    /// Another message action; device errors.
    pub fn open_or_create_custom_dataset<M: MessageAction + Default>(
        &self,
        name: impl AsRef<[u8]>,
        preference: StoragePreference,
    ) -> Result<Dataset<M>> {
        self.open_or_create_custom(name.as_ref(), preference, M::default)
    }

    pub(super) fn with_preference(&self, preference: StoragePreference) -> DatasetConfiguration {
        let mut configuration = self.configuration().default_dataset.clone();
        configuration.storage_preference = preference.or(configuration.storage_preference);
        configuration
    }

    fn open_custom<M: MessageAction>(&self, name: &[u8], action: M) -> Result<Dataset<M>> {
        let state = self.core().dataset(name)?;
        check_action::<M>(&state)?;
        state.tree.set_action(Action::new(action));
        Ok(Dataset::new(Arc::clone(&self.handle), state))
    }

    fn open_or_create_custom<M: MessageAction>(
        &self,
        name: &[u8],
        preference: StoragePreference,
        action: impl Fn() -> M,
    ) -> Result<Dataset<M>> {
        loop {
            match self.open_custom(name, action()) {
                Err(Error::NotFound { .. }) => {}
                opened => return opened,
            }
            match self.create_custom(name, &self.with_preference(preference), action()) {
                // Another thread was faster.
                Err(Error::AlreadyExists { .. }) => {}
                created => return created,
            }
        }
    }

    fn create_custom<M: MessageAction>(
        &self,
        name: &[u8],
        configuration: &DatasetConfiguration,
        action: M,
    ) -> Result<Dataset<M>> {
        check_name(name)?;
        check_length("name of the message action", M::NAME.len(), NAME_BYTES_MAX)?;
        configuration.validate()?;
        let core = self.core();
        let options = core.scale.tree_options(&core.configuration, configuration);
        let record = new_record(name, Role::Dataset, M::NAME, options);
        let made = core.create_datasets(vec![record], &Action::new(action))?;
        let made = made.into_iter().next().map(|state| Dataset::new(Arc::clone(&self.handle), state));
        made.ok_or_else(|| Error::NotFound { what: "dataset", name: name.escape_ascii().to_string() })
    }

    /// Gives the dataset `name` the name `new_name`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::AlreadyExists`] when `new_name` is taken; [`ErrorKind::Busy`] while a stream is on
    /// its way into it, or was interrupted and may go on.
    pub fn rename_dataset(&self, name: impl AsRef<[u8]>, new_name: impl AsRef<[u8]>) -> Result<()> {
        self.core().rename_datasets(&[Role::Dataset], name.as_ref(), new_name.as_ref())
    }

    /// Destroys the dataset `name` and its snapshots; their space is given back in the background. Views and handles of
    /// snapshots that were taken before still read them. Works on a full pool.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Busy`] when somebody holds a snapshot of it or has cloned one.
    pub fn destroy_dataset(&self, name: impl AsRef<[u8]>) -> Result<()> {
        self.core().destroy_datasets(&[Role::Dataset], name.as_ref())
    }

    /// Makes a snapshot `name` of each of `datasets`, all of one instant; as [`Dataset::create_snapshot`].
    ///
    /// # Errors
    /// As [`Dataset::create_snapshot`]: there is none of them then. A dataset of another database, or one that is there twice.
    pub fn create_snapshot<M>(
        &self,
        datasets: &[&Dataset<M>],
        name: impl AsRef<[u8]>,
    ) -> Result<Vec<Snapshot>> {
        self.create_all_snapshots(datasets, &[], name.as_ref())?;
        datasets.iter().map(|dataset| dataset.open_snapshot(name.as_ref())).collect()
    }

    /// Makes a snapshot `name` of each of `datasets` and of both datasets of each of `pairs`, all of one instant.
    pub(crate) fn create_all_snapshots<M>(
        &self,
        datasets: &[&Dataset<M>],
        pairs: &[&Pair],
        name: &[u8],
    ) -> Result<()> {
        let mut states: Vec<Arc<DatasetState>> = Vec::with_capacity(datasets.len() + 2 * pairs.len());
        for dataset in datasets {
            dataset.check_of(&self.handle, "database")?;
            states.push(Arc::clone(dataset.state()));
        }
        for dataset in pairs.iter().flat_map(|pair| [&pair.metadata, &pair.chunks]) {
            dataset.check_of(&self.handle, "database")?;
            states.push(Arc::clone(dataset.state()));
        }
        for (index, state) in states.iter().enumerate() {
            if states[..index].iter().any(|other| other.id == state.id) {
                let reason = format!("{} is there twice", state.display_name());
                return Err(Error::InvalidArgument { what: "datasets", reason });
            }
        }
        create_snapshots(&self.handle, &states, name)
    }

    /// Makes the dataset `name` of `snapshot`: writable, and sharing its space until it is overwritten. Durable when this
    /// returns.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`]; [`ErrorKind::NotFound`] when the snapshot was deleted; out of space.
    pub fn clone_snapshot(&self, snapshot: &Snapshot, name: impl AsRef<[u8]>) -> Result<Dataset> {
        self.clone_custom(snapshot, name.as_ref(), DefaultMessageAction)
    }

    /// As [`Database::clone_snapshot`], of a dataset whose messages `M` applies.
    ///
    /// # Errors
    /// As [`Database::clone_snapshot`]; another message action.
    pub fn clone_custom_snapshot<M: MessageAction + Default>(
        &self,
        snapshot: &Snapshot,
        name: impl AsRef<[u8]>,
    ) -> Result<Dataset<M>> {
        self.clone_custom(snapshot, name.as_ref(), M::default())
    }

    fn clone_custom<M: MessageAction>(
        &self,
        snapshot: &Snapshot,
        name: &[u8],
        action: M,
    ) -> Result<Dataset<M>> {
        check_name(name)?;
        snapshot.check_of(&self.handle)?;
        let core = self.core();
        core.check_writable()?;
        check_action::<M>(snapshot.state())?;
        core.admit_metadata()?;
        let (dataset, snapshot) = (snapshot.state(), snapshot.of_generation());
        core.change(&[Change::Clone { dataset, snapshot, name }])?;
        self.open_custom(name, action)
    }

    /// Names of all datasets, in order.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`].
    pub fn datasets(&self) -> Result<Vec<Vec<u8>>> {
        self.core().check_open()?;
        Ok(self.core().names(Role::Dataset))
    }

    /// Free and total space of each tier, FASTEST first.
    #[must_use]
    pub fn free_space_tier(&self) -> [StorageInfo; TIER_COUNT] {
        let mut tiers = [StorageInfo { free: 0, total: 0 }; TIER_COUNT];
        for (tier, space) in tiers.iter_mut().zip(self.core().dmu.space()) {
            tier.free = space.free.saturating_sub(space.reserve) * BLOCK_BYTES_U64;
            tier.total = space.total * BLOCK_BYTES_U64;
        }
        tiers
    }

    /// What the database counts.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.core().metrics()
    }

    /// The entries of the root tree in the order of their keys, as of the newest checkpoint: for looking inside.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`]; device errors and damage.
    pub fn root_entries(&self) -> Result<Vec<(Value, Value)>> {
        let core = self.core();
        core.check_open()?;
        let entries = core.root_tree.view().range(Vec::new(), None);
        entries.map(|entry| entry.map_err(|error| Error::of_tree(b"root tree", error))).collect()
    }

    /// Drops all cached blocks; the next reads go to the devices.
    pub fn drop_cache(&self) {
        self.core().dmu.cache().clear();
    }

    /// The part of a verification that knows nothing of objects.
    pub(crate) fn verify_trees(&self) -> Result<VerifyReport> {
        self.core().verify()
    }

    /// Looks at every copy of everything that is stored, mends what is wrong and tells what is right nowhere: in this thread,
    /// until it is finished or `watch`, which is asked after every step, says no. Then it is paused, and the next call, of any
    /// process, goes on where it stopped. `by` says who wants it.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] while another thread runs it; out of space for its records; the database takes no writes.
    pub fn scrub(&self, by: &str, mut watch: impl FnMut(&ScrubStatus) -> bool) -> Result<ScrubStatus> {
        self.core().begin_scrub(by, false)?;
        self.core().run_scrub(&|| true, &mut watch)
    }

    /// As [`Database::scrub`], in a thread of its own. When the database is closed meanwhile, it goes on at the next opening.
    ///
    /// # Errors
    /// As [`Database::scrub`]; the operating system refuses a thread, or the configuration has none.
    pub fn scrub_start(&self, by: &str) -> Result<()> {
        let core = self.core();
        if !core.has_threads() {
            let reason = String::from("the configuration has no background threads");
            return Err(Error::InvalidArgument { what: "scrub", reason });
        }
        core.begin_scrub(by, true)?;
        self.handle.workers.spawn_scrub(core).map_err(|error| Error::InvalidArgument {
            what: "scrub",
            reason: format!("the operating system refuses a thread: {error}"),
        })
    }

    /// Pauses the scrub; one that is running ends behind the step that is under way. It goes on when it is started again.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there never was one.
    pub fn scrub_pause(&self) -> Result<()> {
        self.core().pause_scrub()
    }

    /// Gives up the scrub that is running or paused, as [`Database::scrub_pause`]; the next one begins anew.
    ///
    /// # Errors
    /// As [`Database::scrub_pause`].
    pub fn scrub_stop(&self) -> Result<()> {
        self.core().stop_scrub()
    }

    /// How far the scrub is, or what the newest one came to; `None` when there never was one.
    #[must_use]
    pub fn scrub_status(&self) -> Option<ScrubStatus> {
        self.core().scrubs.status()
    }

    /// Moves everything that is on `vdev` to other vdevs, while the database is used, and takes it out of the pool: in this
    /// thread, until it is done or `watch`, which is asked after every step, says no. Then, as after an error or a crash, the
    /// vdev is a member as before; the next call begins anew. `by` says who wants it.
    ///
    /// When this returns [`EvacuationState::Finished`](super::EvacuationState::Finished), the devices of the vdev are nobody's: the next opening is to be
    /// configured without them. This process keeps them open until the database is closed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::OutOfSpace`] when the others have no room for it; [`ErrorKind::InvalidArgument`] for the last vdev and for memory;
    /// [`ErrorKind::Corrupt`] when something on it is right on none of its members (the status has what); [`ErrorKind::Busy`] while another thread
    /// does, or a member is resilvered.
    pub fn evacuate(
        &self,
        vdev: VdevId,
        by: &str,
        mut watch: impl FnMut(&EvacuationStatus) -> bool,
    ) -> Result<EvacuationStatus> {
        let core = self.core();
        let stops = core.evacuations.stops();
        core.run_evacuation(vdev, by, &|| core.evacuations.stops() == stops, &mut watch)
    }

    /// As [`Database::evacuate`], in a thread of its own, which ends when the database is closed. What came of it is in the status;
    /// what kept it from beginning (no room, a member that is resilvered) is in the program's log, and the status stays what it was.
    ///
    /// # Errors
    /// The operating system refuses a thread, or the configuration has none.
    pub fn evacuate_start(&self, vdev: VdevId, by: &str) -> Result<()> {
        let core = self.core();
        if !core.has_threads() {
            let reason = String::from("the configuration has no background threads");
            return Err(Error::InvalidArgument { what: "evacuation", reason });
        }
        core.check_accepts()?;
        if !core.pool.present().any(|present| present.id == vdev) {
            return Err(Error::NotFound { what: "vdev", name: vdev.to_string() });
        }
        core.pool.check_removable(vdev)?;
        self.handle.workers.spawn_evacuation(core, vdev, by).map_err(|error| Error::InvalidArgument {
            what: "evacuation",
            reason: format!("the operating system refuses a thread: {error}"),
        })
    }

    /// Gives up the evacuation that runs or was started, behind the step that is under way. One that has switched is finished.
    pub fn evacuate_stop(&self) {
        self.core().evacuations.stop();
    }

    /// How far the evacuation is, or what the newest one came to; `None` when there never was one.
    #[must_use]
    pub fn evacuation_status(&self) -> Option<EvacuationStatus> {
        self.core().evacuations.status()
    }

    /// The vdevs that left the pool, and how much of them lives on others.
    #[must_use]
    pub fn departed_vdevs(&self) -> Vec<DepartedVdev> {
        self.core().dmu.departed()
    }

    /// Waits until no background work is left, so that the trees have the shape that reads like best.
    ///
    /// # Errors
    /// What failed in the background.
    pub fn settle(&self) -> Result<()> {
        self.core().settle()
    }
}

pub(super) fn check_action<M: MessageAction>(state: &DatasetState) -> Result<()> {
    let stored = state.tree.action_name().to_owned();
    if stored == M::NAME {
        return Ok(());
    }
    Err(Error::WrongAction { dataset: state.display_name(), stored, wanted: M::NAME.to_owned() })
}
