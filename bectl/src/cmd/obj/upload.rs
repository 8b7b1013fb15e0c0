//! Bytes on their way into an object, of which nothing is to be seen before all are there.
//!
//! What fits into one batch is put at once. More is written to an object of a name of its own, which gets the right one at the
//! end. Such an object is left over when the process is killed. A pool has one writer, so that whoever opens a store for
//! writing may remove what others left.

use super::attributes::{Attributes, WRITTEN, written};
use betree::{
    Condition, Durability, Error, OBJECT_WRITE_BYTES_MAX, ObjectHandle, ObjectStore, StoragePreference,
};
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

/// What the names of unfinished objects start with. No file has such a name.
pub const PARTIAL: &[u8] = b"\0bectl-partial\0";

/// The number of the next unfinished object of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// An object that is being made.
#[derive(Debug)]
pub struct Upload<'a> {
    store: &'a ObjectStore,
    preference: StoragePreference,
    /// The first piece, while it is the only one.
    held: Vec<u8>,
    /// The unfinished object, from the second piece on.
    partial: Option<ObjectHandle>,
    size: u64,
}

/// Removes the unfinished objects of processes that were killed.
///
/// # Errors
/// Device errors and damage.
pub fn clean(store: &ObjectStore) -> betree::Result<()> {
    for object in store.list_prefix(PARTIAL) {
        store.delete_object(object?.0)?;
    }
    Ok(())
}

/// Reads a piece: all that there is, up to the most that one batch writes.
///
/// # Errors
/// Reading fails.
pub fn piece(input: &mut impl Read, expected: u64) -> io::Result<Vec<u8>> {
    let most = OBJECT_WRITE_BYTES_MAX as u64;
    // One more than expected, for the read that finds the end.
    let mut piece = Vec::with_capacity(expected.min(most) as usize + 1);
    input.take(most).read_to_end(&mut piece)?;
    Ok(piece)
}

/// Whether nothing comes behind `piece`, which [`piece()`] read.
pub fn is_last(piece: &[u8]) -> bool {
    piece.len() < OBJECT_WRITE_BYTES_MAX
}

impl<'a> Upload<'a> {
    /// Nothing yet.
    pub fn new(store: &'a ObjectStore, preference: StoragePreference) -> Self {
        Self { store, preference, held: Vec::new(), partial: None, size: 0 }
    }

    /// The bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Goes on with `piece`, which [`piece()`] read.
    ///
    /// # Errors
    /// Out of space, device errors.
    pub fn push(&mut self, piece: Vec<u8>) -> betree::Result<()> {
        let at = self.size;
        self.size += piece.len() as u64;
        if at == 0 {
            self.held = piece;
            return Ok(());
        }
        if piece.is_empty() {
            return Ok(());
        }
        let partial = match &self.partial {
            Some(partial) => partial,
            None => {
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                let name = [PARTIAL, number.to_string().as_bytes()].concat();
                let partial = self.store.create_object_with_pref(name, self.preference)?;
                let first = std::mem::take(&mut self.held);
                let partial = self.partial.insert(partial);
                partial.write_at(&first, 0)?;
                partial
            }
        };
        partial.write_at(&piece, at)?;
        Ok(())
    }

    /// Makes all of it the object `name`, if `condition` holds of one that has that name.
    ///
    /// # Errors
    /// The condition does not hold; a name that is not legal; out of space, device errors: no object was changed.
    pub fn finish(
        mut self,
        name: &[u8],
        condition: Condition,
        attributes: Option<Attributes>,
    ) -> betree::Result<()> {
        let mut batch = self.store.batch().require(name, condition);
        batch = match &self.partial {
            Some(partial) => {
                let info = partial.info()?;
                let batch = batch.rename(partial.name(), name);
                if attributes.is_some() { batch.set_metadata(name, WRITTEN, written(&info)) } else { batch }
            }
            None => batch.put_with_pref(name, std::mem::take(&mut self.held), self.preference),
        };
        if let Some(attributes) = attributes {
            batch = attributes.set(batch, name);
        }
        batch.commit(Durability::Buffered)?;
        self.partial = None;
        Ok(())
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if let Some(partial) = self.partial.take()
            && let Err(error) = partial.delete()
            && !matches!(error, Error::NotFound { .. })
        {
            log::warn!("an unfinished object stays, until something is put into the store: {error}");
        }
    }
}
