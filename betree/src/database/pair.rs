//! Two datasets of one name that live and die together, for object stores: one for what is known of objects, one for what is
//! in them.
//!
//! They are not among [`Database::datasets`]. What is done to one of them is done to the other at the same instant: in one
//! record of the log, or in one checkpoint.

use super::catalog::DatasetState;
use super::commit::Write;
use super::database::check_action;
use super::dataset::{Dataset, check_snapshot_name, check_snapshot_word, create_snapshots};
use super::error::{Error, Result};
use super::format::Role;
use super::naming::{check_name, new_record};
use super::snapshots::{Change, Snapshot};
use super::view::DatasetView;
use super::{Database, Durability};
use crate::base::preference::StoragePreference;
use crate::base::sync::atomic::Ordering;
use crate::run::Kind;
use crate::tree::{Action, DefaultMessageAction, MessageAction, Value};
use std::any::Any;
use std::sync::Arc;

const ROLES: [Role; 2] = [Role::Metadata, Role::Chunks];

/// The two datasets of an object store. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub metadata: Dataset,
    pub chunks: Dataset,
}

/// A change of the snapshots of both.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PairChange<'a> {
    Delete(&'a [u8]),
    Rename(&'a [u8], &'a [u8]),
    Hold(&'a [u8], &'a [u8]),
    Release(&'a [u8], &'a [u8]),
    /// What goes back keeps one entry of the metadata as it is given: key and value.
    Rollback {
        name: &'a [u8],
        force: bool,
        keep: (&'a [u8], &'a [u8]),
    },
    Promote,
}

/// Which of the two a write is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Metadata,
    Chunks,
}

/// Makes a value under the commit lock, where the order of writes is decided.
pub(crate) type Compute<'a> = dyn Fn() -> Vec<u8> + 'a;

/// Gets what was made when it is committed, under the same lock.
pub(crate) type Committed<'a> = dyn Fn(&[u8]) + 'a;

/// One write of a batch to a pair.
pub(crate) enum PairWrite<'a> {
    Put {
        side: Side,
        key: Vec<u8>,
        value: &'a [u8],
        preference: StoragePreference,
    },
    PutOwned {
        side: Side,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    PutValue {
        side: Side,
        key: Vec<u8>,
        value: Value,
        preference: StoragePreference,
    },
    /// `bytes` is the length of the value that is computed; `committed` gets it when it is.
    Compute {
        side: Side,
        key: Vec<u8>,
        bytes: usize,
        compute: Box<Compute<'a>>,
        committed: Box<Committed<'a>>,
    },
    Upsert {
        side: Side,
        key: Vec<u8>,
        message: Vec<u8>,
        preference: StoragePreference,
    },
    Delete {
        side: Side,
        key: Vec<u8>,
    },
    /// From `start` to before `end`.
    RangeDelete {
        side: Side,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
    },
}

impl Database {
    /// Creates the pair `name`, whose data prefers `preference`.
    pub(crate) fn create_pair(&self, name: &[u8], preference: StoragePreference) -> Result<Pair> {
        check_name(name)?;
        let core = self.core();
        let configuration = self.with_preference(preference);
        configuration.validate()?;
        let options = core.scale.tree_options(&core.configuration, &configuration);
        let record = |role| new_record(name, role, DefaultMessageAction::NAME, options.clone());
        let records = ROLES.into_iter().map(record).collect();
        core.create_datasets(records, &Action::new(DefaultMessageAction))?;
        self.open_pair(name)
    }

    /// Opens the pair `name`.
    pub(crate) fn open_pair(&self, name: &[u8]) -> Result<Pair> {
        let core = self.core();
        // Nobody renames or destroys them in between.
        let found = {
            let catalog = core.catalog.read();
            ROLES.map(|role| catalog.by_name(role, name).cloned())
        };
        core.check_open()?;
        let [Some(metadata), Some(chunks)] = found else {
            let name = name.escape_ascii().to_string();
            return Err(Error::NotFound { what: Role::Metadata.noun(), name });
        };
        let open = |state| Dataset::new(Arc::clone(self.handle()), state);
        Ok(Pair { metadata: open(metadata), chunks: open(chunks) })
    }

    /// Role and name of every dataset.
    pub(crate) fn all_datasets(&self) -> Result<Vec<(Role, Vec<u8>)>> {
        let core = self.core();
        core.check_open()?;
        let of = |role| core.names(role).into_iter().map(move |name| (role, name));
        Ok([Role::Dataset, Role::Metadata, Role::Chunks].into_iter().flat_map(of).collect())
    }

    /// Opens the dataset `name` of `role`, when its messages are of the default action.
    pub(crate) fn open_of_role(&self, role: Role, name: &[u8]) -> Result<Dataset> {
        let state = self.core().named(role, name)?;
        check_action::<DefaultMessageAction>(&state)?;
        Ok(Dataset::new(Arc::clone(self.handle()), state))
    }

    /// Names of all pairs, in order.
    pub(crate) fn pairs(&self) -> Result<Vec<Vec<u8>>> {
        self.core().check_open()?;
        Ok(self.core().names(Role::Metadata))
    }

    pub(crate) fn rename_pair(&self, name: &[u8], new_name: &[u8]) -> Result<()> {
        self.core().rename_datasets(&ROLES, name, new_name)
    }

    pub(crate) fn destroy_pair(&self, name: &[u8]) -> Result<()> {
        self.core().destroy_datasets(&ROLES, name)
    }

    /// Makes the pair `name` of snapshots of both.
    pub(crate) fn clone_pair(&self, metadata: &Snapshot, chunks: &Snapshot, name: &[u8]) -> Result<Pair> {
        check_name(name)?;
        metadata.check_of(self.handle())?;
        let core = self.core();
        core.check_writable()?;
        core.admit_metadata()?;
        let change = |snapshot| {
            let snapshot: &Snapshot = snapshot;
            Change::Clone { dataset: snapshot.state(), snapshot: snapshot.of_generation(), name }
        };
        core.change(&[change(metadata), change(chunks)])?;
        self.open_pair(name)
    }
}

impl Pair {
    fn both(&self) -> [&Dataset; 2] {
        [&self.metadata, &self.chunks]
    }

    fn of(&self, side: Side) -> &Dataset {
        match side {
            Side::Metadata => &self.metadata,
            Side::Chunks => &self.chunks,
        }
    }

    /// What the layer above keeps in memory of this pair; made by the first who asks.
    pub fn companion<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Result<Arc<T>> {
        let kept = self.metadata.state().companion.get_or_init(|| Arc::new(make()));
        Arc::clone(kept).downcast().map_err(|_| Error::InvalidArgument {
            what: "companion",
            reason: String::from("it is of another type"),
        })
    }

    /// The name of both.
    pub fn name(&self) -> Vec<u8> {
        self.metadata.name()
    }

    /// When it was created, in seconds since 1970.
    pub fn created(&self) -> u64 {
        self.metadata.state().created
    }

    /// The preference of what is written without one.
    pub fn preference(&self) -> StoragePreference {
        self.chunks.state().tree.options().preference
    }

    /// Fails when the database was closed, or the pair destroyed.
    pub fn check(&self) -> Result<()> {
        self.metadata.check()
    }

    /// Fails when the database takes no writes.
    pub fn check_accepts(&self) -> Result<()> {
        self.check()?;
        self.metadata.handle().core().check_accepts()
    }

    /// One state of both. Who goes back to a snapshot at the same time must be kept out.
    pub fn views(&self) -> Result<(DatasetView, DatasetView)> {
        let core = self.metadata.handle().core();
        let states = self.both().map(Dataset::state);
        let views = || states.map(|state| state.tree.view());
        // Most of the time no memtable changes place in between: whatever is visible is in those that are held.
        for _ in 0..8 {
            let [mut metadata, mut chunks] = views();
            let visible = core.visible.load(Ordering::Acquire);
            let same =
                |view: &crate::tree::View| Arc::ptr_eq(&view.version.active, &view.tree.version().active);
            if same(&metadata) && same(&chunks) {
                (metadata.visible, chunks.visible) = (visible, visible);
                self.check()?;
                return Ok((self.view_of(Side::Metadata, metadata), self.view_of(Side::Chunks, chunks)));
            }
        }
        let commit = core.commit.lock();
        let [metadata, chunks] = views();
        drop(commit);
        self.check()?;
        Ok((self.view_of(Side::Metadata, metadata), self.view_of(Side::Chunks, chunks)))
    }

    fn view_of(&self, side: Side, view: crate::tree::View) -> DatasetView {
        DatasetView::new(Arc::clone(self.of(side).state()), view)
    }

    /// Commits `writes` as one atomic batch.
    pub fn commit(&self, writes: &[PairWrite<'_>], durability: Durability) -> Result<()> {
        let mut all = Vec::with_capacity(writes.len());
        for write in writes {
            all.push(match write {
                PairWrite::Put { side, key, value, preference } => {
                    self.message(*side, Kind::Put, *preference, key, value)
                }
                PairWrite::PutValue { side, key, value, preference } => {
                    self.message(*side, Kind::Put, *preference, key, value)
                }
                PairWrite::PutOwned { side, key, value } => {
                    self.message(*side, Kind::Put, StoragePreference::NONE, key, value)
                }
                PairWrite::Compute { side, key, bytes, compute, committed } => {
                    let dataset = self.of(*side).state();
                    Write::Computed { dataset, key, bytes: *bytes, compute, committed }
                }
                PairWrite::Upsert { side, key, message, preference } => {
                    self.message(*side, Kind::Upsert, *preference, key, message)
                }
                PairWrite::Delete { side, key } => {
                    self.message(*side, Kind::Delete, StoragePreference::NONE, key, &[])
                }
                PairWrite::RangeDelete { side, start, end } => {
                    let dataset = self.of(*side).state();
                    Write::RangeDelete { dataset, start, end: end.as_deref() }
                }
            });
        }
        self.metadata.handle().core().write(&all, durability)
    }

    fn message<'a>(
        &'a self,
        side: Side,
        kind: Kind,
        preference: StoragePreference,
        key: &'a [u8],
        payload: &'a [u8],
    ) -> Write<'a> {
        Write::Message { dataset: self.of(side).state(), kind, preference, key, payload }
    }

    /// Makes the snapshot `name` of both at one instant.
    pub fn create_snapshot(&self, name: &[u8]) -> Result<()> {
        let states = self.both().map(|dataset| Arc::clone(dataset.state()));
        create_snapshots(self.metadata.handle(), &states, name)
    }

    /// Opens the snapshot `name` of both.
    pub fn open_snapshot(&self, name: &[u8]) -> Result<(Snapshot, Snapshot)> {
        let opened = (self.metadata.open_snapshot(name)?, self.chunks.open_snapshot(name)?);
        if opened.0.of_generation() == opened.1.of_generation() {
            return Ok(opened);
        }
        // It was deleted, and another one made, in between; or one of them never was.
        let opened = (self.metadata.open_snapshot(name)?, self.chunks.open_snapshot(name)?);
        if opened.0.of_generation() == opened.1.of_generation() {
            return Ok(opened);
        }
        let reason = format!("{} is not of one instant in both datasets", name.escape_ascii());
        Err(Error::Corrupt { what: "snapshot of an object store", reason })
    }

    /// Does `change` to the snapshots of both, in one checkpoint.
    pub fn change(&self, change: PairChange<'_>) -> Result<()> {
        self.check()?;
        let core = self.metadata.handle().core();
        match change {
            PairChange::Rename(_, to) => check_snapshot_name(to)?,
            PairChange::Hold(_, tag) => check_snapshot_word("tag", tag)?,
            _ => {}
        }
        if let PairChange::Rollback { .. } = change {
            // What this needs is free, or becomes so here, where failing changes nothing.
            core.check_accepts()?;
            core.checkpoint(true)?;
            core.admit_metadata()?;
        }
        let of = |dataset| {
            let dataset: &Arc<DatasetState> = dataset;
            match change {
                PairChange::Delete(name) => Change::Delete { dataset, name },
                PairChange::Rename(from, to) => Change::Rename { dataset, from, to },
                PairChange::Hold(name, tag) => Change::Hold { dataset, name, tag },
                PairChange::Release(name, tag) => Change::Release { dataset, name, tag },
                PairChange::Rollback { name, force, keep } => {
                    let keep = (dataset.role == Role::Metadata).then_some(keep);
                    Change::Rollback { dataset, name, force, keep }
                }
                PairChange::Promote => Change::Promote { dataset },
            }
        };
        core.change(&self.both().map(|dataset| of(dataset.state())))
    }
}
