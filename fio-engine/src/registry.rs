//! The databases that this process has open.

use crate::place::{Place, Wishes};
use crate::shared::Shared;
use betree::{Database, Result};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

#[derive(Default)]
struct Registry {
    wishes: HashMap<Place, Wishes>,
    open: HashMap<Place, Open>,
}

struct Open {
    shared: Arc<Shared>,
    jobs: usize,
}

/// One for the process: fio asks each job alone, and jobs are to share.
static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

/// A job's share of a database.
#[derive(Debug)]
pub struct Lease {
    place: Place,
    /// The database.
    pub shared: Arc<Shared>,
}

/// Says that a job at `place` has the file `path`, of `bytes` bytes. Without effect once the database is open.
pub fn wish(place: &Place, path: PathBuf, bytes: u64, direct: Option<bool>) {
    REGISTRY.lock().wishes.entry(place.clone()).or_default().add(path, bytes, direct);
}

/// Opens the database at `place`, unless another job has done so.
pub fn lease(place: &Place) -> Result<Lease> {
    let mut registry = REGISTRY.lock();
    if let Some(open) = registry.open.get_mut(place) {
        open.jobs += 1;
        return Ok(Lease { place: place.clone(), shared: Arc::clone(&open.shared) });
    }
    let wishes = registry.wishes.get(place).cloned().unwrap_or_default();
    let database = Database::build(place.configuration(&wishes)?)?;
    if database.open_report().is_some_and(|report| report.rolled_back) {
        eprintln!("betree: an older checkpoint was opened, for the newest one is damaged");
    }
    let shared = Arc::new(Shared::new(database));
    registry.open.insert(place.clone(), Open { shared: Arc::clone(&shared), jobs: 1 });
    Ok(Lease { place: place.clone(), shared })
}

impl Lease {
    /// Gives the share back; the last one closes the database.
    ///
    /// # Errors
    /// Those of closing: what was synced is safe.
    pub fn give_back(self) -> Result<()> {
        let mut registry = REGISTRY.lock();
        let Some(open) = registry.open.get_mut(&self.place) else { return Ok(()) };
        open.jobs -= 1;
        if open.jobs > 0 {
            return Ok(());
        }
        // With the registry locked, so that whoever opens it next finds it closed.
        registry.open.remove(&self.place);
        self.shared.close()
    }
}

/// Closes what is open although the process ends: jobs that never ran give nothing back.
///
/// # Errors
/// The first error; all are closed.
pub fn close_all() -> Result<()> {
    let open = std::mem::take(&mut REGISTRY.lock().open);
    open.into_values().map(|open| open.shared.close()).fold(Ok(()), Result::and)
}

#[cfg(test)]
mod tests {
    use super::*;
    use betree::ErrorKind;

    #[test]
    fn the_last_job_closes_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let document = folder.path().join("config.json");
        std::fs::write(&document, r#"{"background_threads": 0}"#).unwrap();
        let place = Place { configuration: Some(document), owner: 0, files_are_devices: true };
        wish(&place, folder.path().join("device"), 1 << 20, Some(false));
        let (first, second) = (lease(&place).unwrap(), lease(&place).unwrap());
        assert!(Arc::ptr_eq(&first.shared, &second.shared));
        let other = lease(&Place { owner: 1, ..place.clone() }).unwrap_err();
        assert_eq!(other.kind(), ErrorKind::InvalidArgument, "it has no files: {other}");
        let shared = Arc::clone(&first.shared);
        first.give_back().unwrap();
        shared.database().datasets().unwrap();
        second.give_back().unwrap();
        assert_eq!(shared.database().datasets().unwrap_err().kind(), ErrorKind::Closed);
        drop(shared);
        lease(&place).unwrap().give_back().unwrap();
    }
}
