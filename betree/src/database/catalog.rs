//! The datasets of a database, by name and id.

use super::error::{Error, Result};
use super::format::{DatasetRecord, Role};
use super::replication::Receiving;
use super::snapshots::Lineage;
use crate::base::ids::DatasetId;
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::base::sync::{Mutex, RwLock};
use crate::tree::{Tree, TreeError};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

/// What the root tree holds of a dataset.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// `None` when there is none yet.
    pub record: Option<DatasetRecord>,
    pub drop_chunks: u32,
}

/// A dataset, shared by its handles and the catalog.
#[derive(Debug)]
pub(super) struct DatasetState {
    pub id: DatasetId,
    pub tree: Arc<Tree>,
    pub role: Role,
    pub name: RwLock<Vec<u8>>,
    /// Seconds since 1970.
    pub created: u64,
    destroyed: AtomicBool,
    /// What is being received into it: nobody can open it then.
    pub receiving: Mutex<Option<Receiving>>,
    pub recorded: Mutex<Recorded>,
    pub lineage: Mutex<Lineage>,
    /// What the layer above keeps of it in memory, for all handles. It must hold none of them.
    pub companion: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl DatasetState {
    /// The error of an operation on the tree, with the name of the dataset.
    pub fn error(&self, source: TreeError) -> Error {
        Error::of_tree(&self.name.read(), source)
    }

    /// A dataset as `record` says; `recorded` when that record is in the root tree.
    pub fn new(
        id: DatasetId,
        tree: Arc<Tree>,
        record: DatasetRecord,
        drop_chunks: u32,
        recorded: bool,
    ) -> Arc<Self> {
        let lineage = Lineage::new(record.origin, record.newest);
        tree.deaths().set_newest(lineage.sharing());
        tree.deaths().set_blocks(record.blocks);
        Arc::new(Self {
            id,
            tree,
            role: record.role,
            name: RwLock::new(record.name.clone()),
            created: record.created,
            destroyed: AtomicBool::new(record.destroyed),
            receiving: Mutex::new(record.receiving.clone()),
            recorded: Mutex::new(Recorded { record: recorded.then_some(record), drop_chunks }),
            lineage: Mutex::new(lineage),
            companion: OnceLock::new(),
        })
    }

    /// The name, escaped for messages.
    pub fn display_name(&self) -> String {
        self.name.read().escape_ascii().to_string()
    }

    /// The error of a dataset that is gone.
    pub fn not_found(&self) -> Error {
        Error::NotFound { what: self.role.noun(), name: self.display_name() }
    }

    pub fn is_destroyed(&self) -> bool {
        self.destroyed.load(Ordering::Acquire)
    }

    pub fn set_destroyed(&self) {
        self.destroyed.store(true, Ordering::Release);
    }

    /// Whether it is not there yet.
    pub fn is_staging(&self) -> bool {
        self.receiving.lock().is_some()
    }

    /// What it is called in messages that name those who need something.
    pub fn described(&self) -> String {
        let what = if self.is_staging() { "an unfinished receive into" } else { "clone" };
        format!("{what} {}", self.display_name())
    }

    /// The record without its root and what that refers to.
    pub fn record(&self) -> DatasetRecord {
        let lineage = self.lineage.lock();
        DatasetRecord {
            name: self.name.read().clone(),
            role: self.role,
            action: self.tree.action_name().to_owned(),
            created: self.created,
            options: self.tree.options().clone(),
            destroyed: self.is_destroyed(),
            origin: lineage.origin,
            newest: lineage.newest,
            blocks: 0,
            root: None,
            receiving: self.receiving.lock().clone(),
        }
    }
}

/// All datasets.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    names: BTreeMap<(Role, Vec<u8>), DatasetId>,
    /// Names of datasets that are there when a checkpoint is durable.
    reserved: BTreeSet<(Role, Vec<u8>)>,
    datasets: HashMap<DatasetId, Arc<DatasetState>>,
}

impl Catalog {
    pub fn by_name(&self, role: Role, name: &[u8]) -> Option<&Arc<DatasetState>> {
        self.names.get(&(role, name.to_vec())).and_then(|id| self.datasets.get(id))
    }

    /// Fails when a dataset has this name, or is about to.
    pub fn check_absent(&self, role: Role, name: &[u8]) -> Result<()> {
        let key = (role, name.to_vec());
        if self.names.contains_key(&key) || self.reserved.contains(&key) {
            return Err(Error::AlreadyExists { what: role.noun(), name: name.escape_ascii().to_string() });
        }
        Ok(())
    }

    /// Keeps `name` for a dataset to come.
    pub fn reserve(&mut self, role: Role, name: &[u8]) -> Result<()> {
        self.check_absent(role, name)?;
        self.reserved.insert((role, name.to_vec()));
        Ok(())
    }

    pub fn unreserve(&mut self, role: Role, name: &[u8]) {
        self.reserved.remove(&(role, name.to_vec()));
    }

    pub fn by_id(&self, id: DatasetId) -> Option<&Arc<DatasetState>> {
        self.datasets.get(&id)
    }

    /// Every dataset, those being destroyed included, by id.
    pub fn all(&self) -> Vec<Arc<DatasetState>> {
        let mut all: Vec<_> = self.datasets.values().cloned().collect();
        all.sort_by_key(|dataset| dataset.id);
        all
    }

    /// The datasets that exist, by role and name.
    pub fn named(&self) -> impl Iterator<Item = &Arc<DatasetState>> {
        self.names.values().filter_map(|id| self.datasets.get(id))
    }

    pub fn insert(&mut self, dataset: Arc<DatasetState>) {
        if !dataset.is_destroyed() && !dataset.is_staging() {
            self.names.insert((dataset.role, dataset.name.read().clone()), dataset.id);
        }
        self.datasets.insert(dataset.id, dataset);
    }

    /// Gives the name to `dataset`, which was a staging for it.
    pub fn reveal(&mut self, dataset: &DatasetState) {
        let key = (dataset.role, dataset.name.read().clone());
        self.reserved.remove(&key);
        self.names.insert(key, dataset.id);
    }

    pub fn rename(&mut self, dataset: &DatasetState, name: &[u8]) {
        let mut current = dataset.name.write();
        self.names.remove(&(dataset.role, current.clone()));
        self.names.insert((dataset.role, name.to_vec()), dataset.id);
        *current = name.to_vec();
    }

    /// Takes the name away; the dataset stays until its space is given back.
    pub fn destroy(&mut self, dataset: &DatasetState) {
        // A staging has the name of another.
        if dataset.receiving.lock().take().is_none() {
            self.names.remove(&(dataset.role, dataset.name.read().clone()));
        }
        dataset.set_destroyed();
    }

    /// Forgets a destroyed dataset whose space is given back.
    pub fn forget(&mut self, id: DatasetId) {
        self.datasets.remove(&id);
    }
}
