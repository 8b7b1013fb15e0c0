//! Creating, renaming and destroying datasets, several at one instant: one record of the log each.

use super::catalog::DatasetState;
use super::core::Core;
use super::error::{Error, Result};
use super::format::{DatasetRecord, NAME_BYTES_MAX, Role};
use super::limits::check_length;
use super::snapshots::RootEdits;
use crate::base::ids::{DatasetId, Generation};
use crate::tree::{Action, Tree, TreeOptions};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) fn check_name(name: &[u8]) -> Result<()> {
    check_length("name", name.len(), NAME_BYTES_MAX)?;
    if name.is_empty() {
        return Err(Error::InvalidArgument { what: "name", reason: String::from("it is empty") });
    }
    Ok(())
}

/// The record of a dataset that is to be created now.
pub(super) fn new_record(name: &[u8], role: Role, action: &str, options: TreeOptions) -> DatasetRecord {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DatasetRecord {
        name: name.to_vec(),
        role,
        action: action.to_owned(),
        created,
        options,
        destroyed: false,
        origin: None,
        newest: Generation(0),
        blocks: 0,
        root: None,
        receiving: None,
    }
}

impl Core {
    /// Names of the datasets of `role`, in order.
    pub fn names(&self, role: Role) -> Vec<Vec<u8>> {
        let catalog = self.catalog.read();
        let of_role = catalog.named().filter(|dataset| dataset.role == role);
        of_role.map(|dataset| dataset.name.read().clone()).collect()
    }

    /// Creates the datasets that `records` describe, whose messages `action` applies.
    pub fn create_datasets(
        &self,
        records: Vec<DatasetRecord>,
        action: &Action,
    ) -> Result<Vec<Arc<DatasetState>>> {
        self.check_writable()?;
        self.admit_metadata()?;
        let mut commit = self.commit.lock();
        self.check_accepts()?;
        for record in &records {
            self.catalog.read().check_absent(record.role, &record.name)?;
        }
        let first = commit.next_dataset;
        commit.log_all(self.log()?, records.len(), |writer| {
            for (id, record) in (first..).zip(&records) {
                writer.create(DatasetId(id), &record.encode());
            }
        })?;
        commit.next_dataset += records.len() as u64;
        let mut states = Vec::with_capacity(records.len());
        let mut catalog = self.catalog.write();
        for (id, record) in (first..).map(DatasetId).zip(records) {
            let mut parts = self.parts_of_tree(id, record.options.clone(), record.action.clone());
            parts.action = Some(action.clone());
            let tree = Tree::create(parts, commit.open_generation);
            let state = DatasetState::new(id, tree, record, 0, false);
            catalog.insert(Arc::clone(&state));
            states.push(state);
        }
        drop(catalog);
        self.publish(&commit);
        Ok(states)
    }

    /// Gives the datasets `name` of all `roles` the name `new_name`.
    pub fn rename_datasets(&self, roles: &[Role], name: &[u8], new_name: &[u8]) -> Result<()> {
        check_name(new_name)?;
        self.check_writable()?;
        self.admit_metadata()?;
        let mut commit = self.commit.lock();
        self.check_accepts()?;
        let states = self.all_named(roles, name)?;
        if name == new_name {
            return Ok(());
        }
        self.check_not_received_into(roles, name)?;
        for state in &states {
            self.catalog.read().check_absent(state.role, new_name)?;
        }
        commit.log_all(self.log()?, states.len(), |writer| {
            states.iter().for_each(|state| writer.rename(state.id, new_name));
        })?;
        states.iter().for_each(|state| self.catalog.write().rename(state, new_name));
        self.publish(&commit);
        Ok(())
    }

    /// Fails when a stream waits to go on into the dataset `name`: it would not find it.
    fn check_not_received_into(&self, roles: &[Role], name: &[u8]) -> Result<()> {
        let all = self.catalog.read().all();
        let waits = |one: &&Arc<DatasetState>| {
            roles.contains(&one.role) && !one.is_destroyed() && one.is_staging() && *one.name.read() == name
        };
        match all.iter().find(waits) {
            Some(staging) => {
                let (what, name) = (staging.role.noun(), staging.display_name());
                Err(Error::Busy { what, name, by: staging.described() })
            }
            None => Ok(()),
        }
    }

    /// Destroys the datasets `name` of all `roles`, and their snapshots.
    pub fn destroy_datasets(&self, roles: &[Role], name: &[u8]) -> Result<()> {
        self.destroy(&|| self.all_named(roles, name))
    }

    /// Destroys the datasets that `find` finds, all at once, and their snapshots.
    pub fn destroy(&self, find: &dyn Fn() -> Result<Vec<Arc<DatasetState>>>) -> Result<()> {
        self.check_writable()?;
        // A checkpoint being made contains the datasets as they were at its cut.
        let mut checkpointer = self.checkpointer.lock();
        let states = find()?;
        if states.is_empty() {
            return Ok(());
        }
        for state in &states {
            let edits = RootEdits::new(self, &mut checkpointer, Generation(0));
            self.check_snapshots_free(&edits, state)?;
        }
        let mut commit = self.commit.lock();
        self.check_accepts()?;
        if states.iter().any(|state| state.is_destroyed()) {
            return find().map(|_| ());
        }
        commit.log_all(self.log()?, states.len(), |writer| {
            states.iter().for_each(|state| writer.destroy(state.id));
        })?;
        states.iter().for_each(|state| self.catalog.write().destroy(state));
        self.publish(&commit);
        states.iter().try_for_each(|state| self.drop_tree(state))?;
        drop(commit);
        drop(checkpointer);
        if self.has_threads() { Ok(()) } else { self.drain_jobs() }
    }

    fn all_named(&self, roles: &[Role], name: &[u8]) -> Result<Vec<Arc<DatasetState>>> {
        roles.iter().map(|role| self.named(*role, name)).collect()
    }
}
