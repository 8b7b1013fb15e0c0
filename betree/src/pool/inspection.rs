//! What a checker needs of a pool: its devices behind one lock, every slot on them, and good copies for damaged ones.

use super::format::{End, Superblock};
use super::label::{SlotContent, SlotDump, SlotUse, dump_device};
use super::pool::OpenOptions;
use super::spares;
use super::topology::VdevDevices;
use super::{Access, OpenReport, Pool, PoolError, StoragePoolConfiguration};
use crate::base::buffer::AlignedBuffer;
use crate::vdev::{BlockDevice, OverlayDevice};
use std::sync::Arc;

/// The devices of a configuration, open and locked.
#[derive(Debug)]
pub(crate) struct Members {
    members: Vec<VdevDevices>,
    degraded: bool,
    threads: usize,
}

impl Members {
    /// Opens and locks every device of `configuration` that exists.
    ///
    /// # Errors
    /// A configuration that is not legal; a device that cannot be opened or is in use.
    pub(crate) fn open(configuration: &StoragePoolConfiguration, access: Access) -> Result<Self, PoolError> {
        Ok(Self {
            members: spares::open_devices(configuration, access)?,
            degraded: configuration.degraded,
            threads: configuration.threads(),
        })
    }

    /// The devices whose contents outlive the process.
    pub(crate) fn durable(&self) -> impl Iterator<Item = &Arc<dyn BlockDevice>> {
        let leaves = self.members.iter().flat_map(|member| &member.leaves);
        leaves.filter_map(|leaf| leaf.device.as_ref()).filter(|device| !device.is_volatile())
    }

    /// The same, where what is written goes to memory and is gone with it.
    pub(crate) fn overlaid(&self) -> Self {
        let mut members = self.members.clone();
        for leaf in members.iter_mut().flat_map(|member| &mut member.leaves) {
            leaf.device = leaf.device.take().map(|below| Arc::new(OverlayDevice::new(below)) as Arc<_>);
        }
        Self { members, ..*self }
    }

    /// The pool that they are.
    ///
    /// # Errors
    /// As [`Pool::open`].
    pub(crate) fn pool(&self, access: Access) -> Result<(Pool, OpenReport), PoolError> {
        let Self { degraded, threads, .. } = *self;
        Pool::open_on(&self.members, OpenOptions { access, degraded, threads })
    }
}

/// The superblock that is missing from a damaged `slot` of `slots`, made from the one at the other end.
fn twin(slots: &[SlotDump], slot: &SlotDump) -> Option<Superblock> {
    let SlotUse::Superblock(number) = slot.slot else { return None };
    if !matches!(slot.content, SlotContent::Invalid(_)) {
        return None;
    }
    slots.iter().find_map(|other| match &other.content {
        SlotContent::Superblock(found) if other.end != slot.end && other.slot == slot.slot => {
            let twin = Superblock { end: slot.end, ..(**found).clone() };
            let place = slot.end.superblock_block(twin.device_blocks, number);
            (slot.end == End::Front || place == slot.block).then_some(twin)
        }
        _ => None,
    })
}

/// Whether a damaged slot can be made anew from the copy at the other end of its device.
pub(crate) fn can_restore(slots: &[SlotDump], slot: &SlotDump) -> bool {
    twin(slots, slot).is_some()
}

impl Pool {
    /// Writes every damaged superblock slot anew that has a good copy at the other end of its device; how many those
    /// are.
    ///
    /// # Errors
    /// Device errors: the pool is then poisoned.
    pub(crate) fn restore_slots(&self) -> Result<u64, PoolError> {
        let mut restored = 0;
        let leaves = self.superblocks().lock().devices();
        for (position, member, device) in leaves {
            if !self.vdevs()[position].group.members()[member].state().is_written() {
                continue;
            }
            let slots = dump_device(&*device);
            for slot in &slots {
                if let Some(twin) = twin(&slots, slot) {
                    let bytes = AlignedBuffer::copy_of(&twin.encode());
                    self.write_label(position, member, slot.block, &bytes)?;
                    restored += 1;
                }
            }
            self.flush_position(position)?;
        }
        Ok(restored)
    }
}
