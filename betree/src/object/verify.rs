//! Verification of a database, object stores included.

use super::audit::{Audit, Flaw};
use super::store::ObjectStore;
use crate::database::{Database, Error, Result, VerifyReport};

impl Database {
    /// Checks every invariant: writes a checkpoint, walks each of its trees, reads every block of every run, and compares
    /// what it reaches with the allocation state. Large values are not read. Then looks whether every object store has what
    /// belongs to its objects, and nothing else, as of now.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) names the first thing that is not in order; device errors.
    pub fn verify(&self) -> Result<VerifyReport> {
        let mut report = self.verify_trees()?;
        for name in self.object_stores()? {
            match self.open_object_store(&name).and_then(|store| store.verify()) {
                // Somebody destroyed it meanwhile.
                Err(Error::NotFound { .. }) => {}
                verified => report.objects += verified?,
            }
        }
        Ok(report)
    }
}

impl ObjectStore {
    /// Looks whether both datasets say the same. Returns the number of objects.
    fn verify(&self) -> Result<u64> {
        let reader = self.reader()?;
        let store = self.name();
        let wrong = |flaw: Flaw| Error::Corrupt {
            what: "object store",
            reason: format!(
                "{}: {}: {} expected, {} found",
                store.escape_ascii(),
                flaw.object,
                flaw.expected,
                flaw.found
            ),
        };
        let mut audit = Audit::default();
        for entry in reader.metadata.range::<&[u8]>(..) {
            let (key, value) = entry?;
            audit.metadata(&key, &value).map_err(wrong)?;
        }
        if let Some(flaw) = audit.judge().into_iter().next() {
            return Err(wrong(flaw));
        }
        for (low, high) in audit.gaps() {
            let found = match high {
                Some(high) => reader.chunks.range(low..high).next(),
                None => reader.chunks.range(low..).next(),
            };
            if let Some((key, _)) = found.transpose()? {
                return Err(wrong(audit.orphan(&key)));
            }
        }
        Ok(audit.objects())
    }
}
