//! What differs between two states of a dataset or object store.

use super::owner::Owner;
use super::readable::{Readable, open_store_view};
use crate::args::SnapshotName;
use betree::{Database, Difference, Objects};
use std::cmp::Ordering;
use std::iter::Peekable;

/// How something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Added,
    Removed,
    Changed,
}

impl Change {
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }

    pub fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Removed => '-',
            Self::Changed => 'M',
        }
    }
}

/// Keys of a dataset or names of objects, in order.
pub type Changes = Box<dyn Iterator<Item = anyhow::Result<(Change, Vec<u8>)>>>;

/// What is different in `later`, a snapshot or what `owner` is now, from what the snapshot `before` of `owner` holds.
///
/// # Errors
/// There is no such snapshot; what reading needs.
pub fn changes(
    database: &Database,
    owner: &Owner,
    before: &SnapshotName,
    later: &[u8],
) -> anyhow::Result<Changes> {
    match owner {
        Owner::Dataset(dataset) => {
            let before = dataset.open_snapshot(&before.name)?;
            let differences = match Readable::open(database, later)? {
                Readable::Dataset(later) => later.changes_since(&before)?,
                Readable::Snapshot(later) => before.diff(&later)?,
            };
            Ok(Box::new(differences.map(|difference| -> anyhow::Result<_> {
                Ok(match difference? {
                    Difference::Delete { key } => (Change::Removed, key.to_vec()),
                    Difference::Put { key, is_new: true, .. } => (Change::Added, key.to_vec()),
                    Difference::Put { key, .. } => (Change::Changed, key.to_vec()),
                })
            })))
        }
        Owner::Store(store) => {
            let before = store.open_snapshot(&before.name)?.view()?.list_prefix(b"");
            let later = open_store_view(database, later)?.list_prefix(b"");
            Ok(Box::new(ObjectChanges { before: before.peekable(), later: later.peekable() }))
        }
    }
}

/// Walks two lists of objects side by side. One whose bytes were written, or that was put anew, has another version.
struct ObjectChanges {
    before: Peekable<Objects>,
    later: Peekable<Objects>,
}

impl Iterator for ObjectChanges {
    type Item = anyhow::Result<(Change, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.before.peek(), self.later.peek()) {
                (None, None) => return None,
                (Some(Err(_)), _) | (Some(Ok(_)), None) => Ordering::Less,
                (_, Some(Err(_))) | (None, Some(Ok(_))) => Ordering::Greater,
                (Some(Ok((before, _))), Some(Ok((later, _)))) => before.cmp(later),
            };
            let (entry, change) = match order {
                Ordering::Less => (self.before.next()?, Change::Removed),
                Ordering::Greater => (self.later.next()?, Change::Added),
                Ordering::Equal => {
                    let (before, later) = (self.before.next()?, self.later.next()?);
                    if matches!((&before, &later), (Ok((_, before)), Ok((_, later))) if before == later) {
                        continue;
                    }
                    (later, Change::Changed)
                }
            };
            return Some(entry.map(|(name, _)| (change, name)).map_err(Into::into));
        }
    }
}
