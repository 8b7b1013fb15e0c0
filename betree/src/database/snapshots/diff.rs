//! What changed from one snapshot to another, or to what the dataset holds now.

use super::handle::Snapshot;
use crate::database::error::{Error, Result};
use crate::tree::{Differing, Value, View};

/// A change from one state of a dataset to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The key has this value in the later one, and another or none in the earlier.
    Put {
        /// The key.
        key: Value,
        /// Its value in the later snapshot.
        value: Value,
        /// Whether the earlier one does not have the key.
        is_new: bool,
    },
    /// The later one does not have the key.
    Delete {
        /// The key.
        key: Value,
    },
}

/// Iterator over what changed, in the order of keys; after an error it ends. `Send + 'static`.
#[derive(Debug)]
pub struct Differences {
    diff: crate::tree::Diff,
    dataset: Vec<u8>,
}

impl Snapshot {
    /// What has to be done to make `later` of this snapshot. Reads only what the two do not share. They may be of different
    /// datasets of one database; those of a dataset and of its clones share much.
    ///
    /// # Errors
    /// A snapshot of another database; a database that was closed; device errors and damage.
    pub fn diff(&self, later: &Self) -> Result<Differences> {
        later.check_of(&self.handle)?;
        self.handle.core().check_open()?;
        self.diff_to(later.tree().view())
    }

    /// What has to be done to make `later` of this snapshot.
    pub(in crate::database) fn diff_to(&self, later: View) -> Result<Differences> {
        let dataset = self.dataset_name();
        let diff = crate::tree::Diff::new(self.tree().view(), later);
        let diff = diff.map_err(|error| Error::of_tree(&dataset, error))?;
        Ok(Differences { diff, dataset })
    }
}

impl Iterator for Differences {
    type Item = Result<Difference>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.diff.next()?;
        let of = |error| Error::of_tree(&self.dataset, error);
        Some(next.map_err(of).map(|Differing { key, was_there, after }| match after {
            Some((value, _)) => Difference::Put { key, value, is_new: !was_there },
            None => Difference::Delete { key },
        }))
    }
}
