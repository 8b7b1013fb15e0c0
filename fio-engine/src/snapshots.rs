//! Snapshots that a job takes while it writes, and holds until it ends.

use crate::shared::{Interface, Shared};
use betree::Result;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The snapshots of one job.
#[derive(Debug)]
pub struct Snapshots {
    shared: Arc<Shared>,
    interface: Interface,
    prefix: String,
    /// After so many writes comes the next one.
    every: u64,
    kept_max: usize,
    writes: AtomicU64,
    held: Mutex<VecDeque<String>>,
}

impl Snapshots {
    /// One snapshot after `every` writes; at most `kept_max` are held, the newest. Those that a job of this name left, because its
    /// process was killed, are deleted.
    pub fn new(
        shared: Arc<Shared>,
        interface: Interface,
        job: &str,
        every: u64,
        kept_max: usize,
    ) -> Result<Self> {
        let (prefix, writes, held) =
            (format!("fio-{}-", job.replace('@', "_")), AtomicU64::new(0), Mutex::default());
        let snapshots = Self { shared, interface, prefix, every, kept_max, writes, held };
        let left = match interface {
            Interface::Object => snapshots.shared.store()?.snapshots()?,
            Interface::Kv => snapshots.shared.dataset()?.snapshots()?,
        };
        for info in left {
            if info.name.starts_with(snapshots.prefix.as_bytes()) {
                snapshots.delete(&info.name)?;
            }
        }
        Ok(snapshots)
    }

    fn delete(&self, name: &[u8]) -> Result<()> {
        match self.interface {
            Interface::Object => self.shared.store()?.delete_snapshot(name),
            Interface::Kv => self.shared.dataset()?.delete_snapshot(name),
        }
    }

    /// Counts a write, and takes a snapshot when it is time.
    ///
    /// # Errors
    /// Those of taking or deleting one.
    pub fn note_write(&self) -> Result<()> {
        let writes = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        if !writes.is_multiple_of(self.every) {
            return Ok(());
        }
        let name = format!("{}{}", self.prefix, writes / self.every);
        match self.interface {
            Interface::Object => drop(self.shared.store()?.create_snapshot(&name)?),
            Interface::Kv => drop(self.shared.dataset()?.create_snapshot(&name)?),
        }
        let mut held = self.held.lock();
        held.push_back(name);
        while held.len() > self.kept_max
            && let Some(oldest) = held.pop_front()
        {
            self.delete(oldest.as_bytes())?;
        }
        Ok(())
    }

    /// Deletes all that are held.
    ///
    /// # Errors
    /// The first error; the others are deleted.
    pub fn release(&self) -> Result<()> {
        let held = std::mem::take(&mut *self.held.lock());
        held.iter().map(|name| self.delete(name.as_bytes())).fold(Ok(()), Result::and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::tests::database;

    #[test]
    fn the_newest_are_held_until_the_job_ends() {
        let shared = Arc::new(Shared::new(database()));
        for interface in [Interface::Object, Interface::Kv] {
            let names = || match interface {
                Interface::Object => shared.store().unwrap().snapshots().unwrap(),
                Interface::Kv => shared.dataset().unwrap().snapshots().unwrap(),
            };
            let snapshots = Snapshots::new(Arc::clone(&shared), interface, "a@b", 3, 2).unwrap();
            for _ in 0..11 {
                snapshots.note_write().unwrap();
            }
            let held: Vec<Vec<u8>> = names().into_iter().map(|info| info.name).collect();
            assert_eq!(held, [b"fio-a_b-2", b"fio-a_b-3"]);
            // The process is killed, and the job runs again.
            let again = Snapshots::new(Arc::clone(&shared), interface, "a@b", 1, 2).unwrap();
            assert!(names().is_empty());
            again.note_write().unwrap();
            again.release().unwrap();
            assert!(names().is_empty());
        }
    }
}
