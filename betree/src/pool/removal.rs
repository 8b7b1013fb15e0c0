//! A vdev leaves the pool: nothing refers to its blocks any more but a map of the layer above.

use super::format::{AREA_BLOCKS, End};
use super::{Pool, PoolError};
use crate::base::buffer::AlignedBuffer;
use crate::base::ids::VdevId;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::vdev::VdevError;

impl Pool {
    /// Takes `vdev` out of the list of vdevs, from the next commit on. Its devices stay open, so that who reads from it goes on,
    /// and what fails on them concerns nobody else.
    ///
    /// The caller has seen to it that no root that may be opened needs it from that commit on.
    ///
    /// # Errors
    /// [`PoolError::NotRemovable`] for the last durable vdev and for memory; [`PoolError::NotCommitted`] between open and
    /// [`Pool::rewrite_chosen`]; [`PoolError::UnknownVdev`]; the pool takes no writes.
    pub fn remove(&self, vdev: VdevId) -> Result<(), PoolError> {
        self.check_writable()?;
        self.check_removable(vdev)?;
        let position = self.position(vdev)?;
        let mut superblocks = self.superblocks().lock();
        if !superblocks.is_settled() {
            return Err(PoolError::NotCommitted);
        }
        let Some(hash) = superblocks.remove(vdev) else { return Err(PoolError::UnknownVdev(vdev)) };
        self.set_left(position, hash);
        Ok(())
    }

    /// Whether the others can be a pool without `vdev`.
    ///
    /// # Errors
    /// [`PoolError::NotRemovable`], [`PoolError::UnknownVdev`].
    pub fn check_removable(&self, vdev: VdevId) -> Result<(), PoolError> {
        let refuse = |reason| Err(PoolError::NotRemovable { vdev, reason });
        if self.has_left(self.position(vdev)?) {
            return Err(PoolError::UnknownVdev(vdev));
        }
        if self.vdev(vdev)?.is_volatile() {
            return refuse("it is memory, which goes with the configuration");
        }
        if !self.present().any(|other| other.id != vdev && !other.is_volatile()) {
            return refuse("it is the last one");
        }
        Ok(())
    }

    /// Whether devices of vdevs that were taken out still have labels.
    #[must_use]
    pub fn has_removed(&self) -> bool {
        self.superblocks().lock().has_former()
    }

    /// Makes the label areas of vdevs that left zero, so that their devices are nobody's. To be called when two commits were made
    /// without them. A device that does not take it is reported, and still says to which pool it belonged.
    pub fn clear_removed(&self) {
        let former = self.superblocks().lock().take_former();
        for leaf in former {
            let clear = || -> Result<(), VdevError> {
                let zeros = AlignedBuffer::zeroed(AREA_BLOCKS as usize * BLOCK_BYTES);
                let lengths = leaf.retired.iter().copied().chain([leaf.blocks, leaf.next_blocks]);
                let ends = lengths.map(|blocks| End::Back.area(blocks)).chain([End::Front.area(leaf.blocks)]);
                for area in ends {
                    if area.end * BLOCK_BYTES_U64 <= leaf.device.len() {
                        leaf.device.write_at(&zeros, area.start * BLOCK_BYTES_U64)?;
                    }
                }
                leaf.device.flush()
            };
            if let Err(error) = clear() {
                log::warn!(
                    "{} keeps labels of the pool that it was removed from: {error}",
                    leaf.device.name()
                );
            }
        }
    }
}
