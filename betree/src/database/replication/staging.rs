//! Stagings: datasets that a stream is received into, and that nobody sees before it is there.

use super::format::{Position, Receiving};
use super::receiver::StreamKind;
use super::token::ResumeToken;
use crate::base::sync::Mutex;
use crate::database::catalog::DatasetState;
use crate::database::core::Core;
use crate::database::database::Database;
use crate::database::error::{Error, Result};
use crate::database::format::Role;
use crate::database::snapshots::{Change, Staging};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Roles and names of the datasets that streams are being received into right now.
#[derive(Debug, Default)]
pub(in crate::database) struct Receives {
    names: Mutex<BTreeSet<(Role, Vec<u8>)>>,
}

/// Keeps others from receiving into the same datasets.
#[derive(Debug)]
pub(super) struct ReceiveGuard<'a> {
    receives: &'a Receives,
    names: Vec<(Role, Vec<u8>)>,
}

impl Receives {
    /// Claims `names`.
    ///
    /// # Errors
    /// Another stream is being received into one of them, or a name is there twice.
    pub(super) fn claim(&self, names: &[(Role, &[u8])]) -> Result<ReceiveGuard<'_>> {
        let mut all = self.names.lock();
        let owned: Vec<(Role, Vec<u8>)> = names.iter().map(|(role, name)| (*role, name.to_vec())).collect();
        for (index, (role, name)) in names.iter().enumerate() {
            if names[..index].contains(&(*role, name)) {
                let reason = format!("the {} {} is there twice", role.noun(), name.escape_ascii());
                return Err(Error::InvalidArgument { what: "names", reason });
            }
            if all.contains(&owned[index]) {
                let (name, by) = (name.escape_ascii().to_string(), String::from("another stream"));
                return Err(Error::Busy { what: role.noun(), name, by });
            }
        }
        let names = owned;
        all.extend(names.iter().cloned());
        Ok(ReceiveGuard { receives: self, names })
    }
}

impl Drop for ReceiveGuard<'_> {
    fn drop(&mut self) {
        let mut all = self.receives.names.lock();
        all.retain(|name| !self.names.contains(name));
    }
}

/// A stream that was interrupted: what is there of it, hidden, and where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// The datasets and object stores that it was received into, in the order of the stream.
    pub names: Vec<(StreamKind, Vec<u8>)>,
    /// The name of the snapshot that is to be made.
    pub snapshot: Vec<u8>,
    /// Bytes of stream that are there.
    pub bytes: u64,
    /// What the sender needs to go on.
    pub token: ResumeToken,
}

/// The stagings of one stream, by section.
pub(super) type Stagings = Vec<(Arc<DatasetState>, Receiving)>;

impl Core {
    /// All stagings, those of one stream together, by section.
    pub(super) fn stagings(&self) -> Vec<Stagings> {
        let all = self.catalog.read().all();
        let mut found: Vec<Stagings> = Vec::new();
        for state in all.into_iter().filter(|state| !state.is_destroyed()) {
            let Some(receiving) = state.receiving.lock().clone() else { continue };
            // Those of one stream are made together: section 0 has the lowest id.
            match found.last_mut().filter(|one| one[0].1.stream == receiving.stream && receiving.section > 0)
            {
                Some(one) => one.push((state, receiving)),
                None => found.push(vec![(state, receiving)]),
            }
        }
        found
    }

    /// The stagings for the datasets `names`, if there are any.
    pub(super) fn stagings_of(&self, names: &[(Role, &[u8])]) -> Vec<Stagings> {
        let mut all = self.stagings();
        let into = |state: &DatasetState| names.contains(&(state.role, state.name.read().as_slice()));
        all.retain(|one| one.iter().any(|(state, _)| into(state)));
        all
    }

    /// Makes stagings, in one checkpoint.
    pub(super) fn stage(&self, stagings: &[Staging<'_>]) -> Result<()> {
        self.admit_metadata()?;
        self.change(&[Change::Stage { stagings }])
    }

    /// Gives back what was received. What has become a dataset meanwhile stays.
    pub(super) fn discard(&self, stagings: &Stagings) -> Result<()> {
        self.destroy(&|| {
            let states = stagings.iter().map(|(state, _)| Arc::clone(state));
            Ok(states.filter(|state| state.is_staging()).collect())
        })
    }

    /// Whether nothing was received of a stream yet.
    pub(super) fn has_nothing_of(&self, stagings: &Stagings) -> bool {
        let nothing = |receiving: &Receiving| receiving.position == Position::default();
        stagings.first().is_none_or(|(state, _)| state.receiving.lock().as_ref().is_none_or(nothing))
    }

    /// Notes how far the stream was read whose first section is received into `staging`.
    pub(super) fn note_received(&self, staging: &DatasetState, position: &Position) {
        if let Some(receiving) = &mut *staging.receiving.lock() {
            receiving.position.clone_from(position);
        }
    }
}

impl Database {
    /// The streams whose receiving was interrupted, by the time of their start.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn unfinished_receives(&self) -> Result<Vec<Unfinished>> {
        self.core().check_open()?;
        let unfinished = |stagings: Stagings| {
            let (_, first) = stagings.first()?;
            Some(Unfinished {
                names: stagings
                    .iter()
                    .filter(|(state, _)| state.role != Role::Chunks)
                    .map(|(state, _)| (StreamKind::of(state.role), state.name.read().clone()))
                    .collect(),
                snapshot: first.snapshot.clone(),
                bytes: first.position.bytes,
                token: ResumeToken { stream: first.stream, position: first.position.clone() },
            })
        };
        Ok(self.core().stagings().into_iter().filter_map(unfinished).collect())
    }

    /// Gives back what is there of a stream that was being received into the dataset `name`, and into others with it. Works
    /// on a full pool. The dataset itself stays as it is.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is nothing of that kind;
    /// [`ErrorKind::Busy`](crate::ErrorKind::Busy) while it is being received.
    pub fn abort_receive(&self, name: impl AsRef<[u8]>) -> Result<()> {
        self.abort(Role::Dataset, name.as_ref())
    }

    /// As [`Database::abort_receive`], of the object store `name`.
    ///
    /// # Errors
    /// As [`Database::abort_receive`].
    pub fn abort_store_receive(&self, name: impl AsRef<[u8]>) -> Result<()> {
        self.abort(Role::Metadata, name.as_ref())
    }

    fn abort(&self, role: Role, name: &[u8]) -> Result<()> {
        let core = self.core();
        core.check_writable()?;
        let found = core.stagings_of(&[(role, name)]);
        let Some(one) = found.first() else {
            let name = name.escape_ascii().to_string();
            let what = match StreamKind::of(role) {
                StreamKind::Dataset => "unfinished receive into dataset",
                StreamKind::ObjectStore => "unfinished receive into object store",
            };
            return Err(Error::NotFound { what, name });
        };
        let names: Vec<(Role, Vec<u8>)> =
            one.iter().map(|(state, _)| (state.role, state.name.read().clone())).collect();
        let names: Vec<(Role, &[u8])> = names.iter().map(|(role, name)| (*role, name.as_slice())).collect();
        let _claimed = core.receives.claim(&names)?;
        found.iter().try_for_each(|one| core.discard(one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Uuid;
    use crate::database::{DatabaseConfiguration, ErrorKind};
    use crate::pool::{LeafVdev, StoragePoolConfiguration, TierConfiguration};

    fn database() -> Database {
        let storage = StoragePoolConfiguration {
            tiers: vec![TierConfiguration::new(vec![LeafVdev::memory(16 << 20).into()])],
            ..StoragePoolConfiguration::default()
        };
        let configuration =
            DatabaseConfiguration { storage, segment_size: 1 << 19, ..DatabaseConfiguration::default() };
        Database::create_with(configuration, false).unwrap()
    }

    fn receiving() -> Receiving {
        Receiving {
            stream: Uuid([1; 16]),
            section: 0,
            sections: 1,
            guid: Uuid([2; 16]),
            base: Uuid::default(),
            snapshot: b"s".to_vec(),
            position: Position::default(),
        }
    }

    /// Who gives up a stream looked for it before the last of it was there.
    #[test]
    fn a_staging_that_became_a_dataset_is_not_discarded() {
        let database = database();
        let core = database.core();
        let options = database.create_dataset("other").unwrap().state().tree.options().clone();
        let receiving = receiving();
        let staging = Staging {
            role: Role::Dataset,
            name: b"data",
            action_name: "default",
            action: None,
            options,
            base: None,
            receiving: &receiving,
        };
        core.stage(&[staging]).unwrap();
        let found = core.stagings_of(&[(Role::Dataset, b"data")]).pop().unwrap();
        found[0].0.receiving.lock().take();
        core.catalog.write().reveal(&found[0].0);
        core.discard(&found).unwrap();
        assert!(database.open_dataset("data").is_ok());
    }

    /// The extents of a snapshot of a destroyed dataset are on their way to others.
    #[test]
    fn nothing_is_received_onto_a_dataset_that_is_destroyed() {
        let database = database();
        let dataset = database.create_dataset("data").unwrap();
        let options = dataset.state().tree.options().clone();
        let snapshot = dataset.create_snapshot("base").unwrap();
        drop(dataset);
        database.destroy_dataset("data").unwrap();
        let receiving = receiving();
        let staging = Staging {
            role: Role::Dataset,
            name: b"data",
            action_name: "default",
            action: None,
            options,
            base: Some(&snapshot),
            receiving: &receiving,
        };
        let staged = database.core().stage(&[staging]);
        assert_eq!(staged.map_err(|error| error.kind()), Err(ErrorKind::NotFound));
        assert_eq!(database.unfinished_receives().unwrap(), []);
    }
}
