//! The pool: tiers of top-level vdevs, block I/O, and the error latch.

use super::PoolError;
use crate::base::ids::VdevId;
use crate::base::units::BLOCK_BYTES_U64;
use crate::vdev::{BlockDevice, VdevError};
use parking_lot::Mutex;
use std::sync::Arc;

/// A top-level vdev: what extents point to.
#[derive(Debug, Clone)]
pub struct TopLevelVdev {
    /// Stable id.
    pub id: VdevId,
    /// Tier, 0…3.
    pub tier: u8,
    /// Usable length in 4 KiB blocks.
    pub blocks: u64,
    /// Where its blocks are.
    pub device: Arc<dyn BlockDevice>,
}

/// Tiers of vdevs. All methods take `&self` and may be called from any thread.
#[derive(Debug)]
pub struct Pool {
    vdevs: Vec<TopLevelVdev>,
    /// The first write or flush that failed; see [`Pool::check_writable`].
    poison: Mutex<Option<Arc<PoolError>>>,
}

impl Pool {
    /// A pool over vdevs that are already open.
    #[must_use]
    pub fn from_vdevs(vdevs: Vec<TopLevelVdev>) -> Self {
        Self { vdevs, poison: Mutex::new(None) }
    }

    /// All top-level vdevs, in the order of the configuration.
    #[must_use]
    pub fn vdevs(&self) -> &[TopLevelVdev] {
        &self.vdevs
    }

    /// The vdev with this id.
    ///
    /// # Errors
    /// [`PoolError::UnknownVdev`].
    pub fn vdev(&self, id: VdevId) -> Result<&TopLevelVdev, PoolError> {
        self.vdevs.iter().find(|vdev| vdev.id == id).ok_or(PoolError::UnknownVdev(id))
    }

    /// Reads whole blocks from `block` of `vdev` into `buf`.
    ///
    /// # Errors
    /// [`PoolError::Vdev`], [`PoolError::UnknownVdev`].
    pub fn read(&self, vdev: VdevId, block: u64, buf: &mut [u8]) -> Result<(), PoolError> {
        Ok(self.vdev(vdev)?.device.read_at(buf, block.saturating_mul(BLOCK_BYTES_U64))?)
    }

    /// Writes whole blocks at `block` of `vdev`. Completion is not durability.
    ///
    /// # Errors
    /// [`PoolError::Vdev`]: the pool is then poisoned, except when the host file system is full.
    /// [`PoolError::Poisoned`] after an earlier failure.
    pub fn write(&self, vdev: VdevId, block: u64, buf: &[u8]) -> Result<(), PoolError> {
        self.check_writable()?;
        let device = &self.vdev(vdev)?.device;
        match device.write_at(buf, block.saturating_mul(BLOCK_BYTES_U64)) {
            Ok(()) => Ok(()),
            Err(error) if error.is_out_of_space() => Err(error.into()),
            Err(error) => Err(self.poison(error)),
        }
    }

    /// Makes all completed writes to `vdev` durable.
    ///
    /// # Errors
    /// As [`Pool::write`]; a failed flush is never retried.
    pub fn flush(&self, vdev: VdevId) -> Result<(), PoolError> {
        self.check_writable()?;
        let vdev = self.vdev(vdev)?;
        vdev.device.flush().map_err(|error| self.poison(error))
    }

    /// Fails when an earlier write or flush failed.
    ///
    /// # Errors
    /// [`PoolError::Poisoned`] with the first failure.
    pub fn check_writable(&self) -> Result<(), PoolError> {
        match &*self.poison.lock() {
            Some(first) => Err(PoolError::Poisoned(Arc::clone(first))),
            None => Ok(()),
        }
    }

    fn poison(&self, error: VdevError) -> PoolError {
        log::error!("{error}; the pool takes no more writes");
        let error = PoolError::from(error);
        self.poison.lock().get_or_insert_with(|| Arc::new(error.clone()));
        error
    }
}
