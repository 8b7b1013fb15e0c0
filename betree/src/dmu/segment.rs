//! One segment: its table entry and, once something touches it, its bitmaps.

use super::DmuError;
use super::bitmap::Bitmap;
use super::format::{self, Entry, Identity, SLOT_COUNT, SlotRef};
use super::healing;
use super::layout::Layout;
use super::sequence::{Part, vdev_name};
use crate::base::buffer::AlignedBuffer;
use crate::base::ids::{Generation, Uuid};
use crate::base::units::BLOCK_BYTES;
use crate::pool::Pool;
use std::ops::Range;

/// What is kept of every segment of the pool (about 90 bytes; 9 MiB for 100 TiB).
#[derive(Debug)]
pub(super) struct Segment {
    /// As in the last durable table.
    pub(super) entry: Entry,
    /// Blocks that can be handed out now.
    pub(super) free: u32,
    /// No run of blocks that can be handed out is longer; exact after a search of the whole segment.
    pub(super) longest: u32,
    /// The next checkpoint writes it though nothing in it changes (the device grew).
    pub(super) is_outdated: bool,
    pub(super) loaded: Option<Box<Loaded>>,
}

/// The bitmaps of a segment in use. Sets that are mostly empty are `None` when they are.
#[derive(Debug)]
pub(super) struct Loaded {
    /// What may not be handed out: the union of all other sets and of what was allocated since.
    pub(super) busy: Bitmap,
    /// The last checkpoint's bits, with the changes of one that is being written.
    pub(super) persistent: Bitmap,
    /// Bits that the checkpoint being written clears.
    pub(super) clearing: Option<Bitmap>,
    /// Bits that the checkpoint before the last one had set and the last one has not: still reachable by a fallback.
    pub(super) held: Option<Bitmap>,
    /// Cleared by a checkpoint, but not yet released.
    pub(super) dead: Option<Bitmap>,
    /// Dead bits that were found on the device: nobody will release them, the next checkpoint does.
    pub(super) orphans: Option<Bitmap>,
    /// Reserved in the last checkpoint and no longer: the device grew.
    pub(super) opened: Option<Bitmap>,
    /// Where the next search starts.
    pub(super) next: u32,
    /// The last durable checkpoint when it was last used.
    pub(super) touched: Generation,
}

/// Sets `range` in an optional set.
pub(super) fn add(set: &mut Option<Bitmap>, bits: u32, range: Range<u32>) {
    set.get_or_insert_with(|| Bitmap::new(bits)).set(range);
}

/// Clears `range` in an optional set and returns how many bits were set.
pub(super) fn remove(set: &mut Option<Bitmap>, range: Range<u32>) -> u32 {
    let Some(bits) = set else { return 0 };
    let count = bits.count_set_in(range.clone());
    bits.clear(range);
    if count > 0 && bits.is_clear() {
        *set = None;
    }
    count
}

/// Whether an optional set has a bit of `range`.
pub(super) fn touches(set: Option<&Bitmap>, range: Range<u32>) -> bool {
    set.is_some_and(|bits| bits.any_set(range))
}

/// Where bitmaps are read from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) pool: &'a Pool,
    pub(super) uuid: Uuid,
    pub(super) layout: &'a Layout,
}

impl Source<'_> {
    pub(super) fn corrupt(&self, what: &'static str, block: u64, reason: String) -> DmuError {
        DmuError::Corrupt { what, device: vdev_name(self.pool, self.layout.id), block, reason }
    }

    /// Reads `length` bytes that have their fixed place at `block`; what is wrong is looked for on other members, and given
    /// back as it is when they have nothing right either.
    ///
    /// # Errors
    /// Device errors.
    pub(super) fn fixed(
        &self,
        block: u64,
        length: usize,
        is_right: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<AlignedBuffer, DmuError> {
        let extent = self.layout.fixed(block, length);
        let part = Part { extent, geometry: self.layout.geometry, from: 0, range: 0..length };
        let mut bytes = AlignedBuffer::zeroed(length);
        let read = self.pool.read_noting(&extent, 0, &mut bytes);
        if matches!(read, Ok(false)) && is_right(&bytes) {
            // Where a member is missing, nothing is to be had of it.
            if self.pool.vdev(extent.vdev)?.is_whole() {
                healing::repair(self.pool, &[part], &bytes, &(0..length))?;
            }
        } else if read.is_err() || !is_right(&bytes) {
            let before = AlignedBuffer::copy_of(&bytes);
            if !healing::recover(self.pool, &[part], &mut bytes, &(0..length), is_right)? {
                read?;
                return Ok(before);
            }
        }
        Ok(bytes)
    }

    /// The bitmap of segment `number` that `wanted` names.
    ///
    /// # Errors
    /// Device errors; [`DmuError::Corrupt`] when the slot holds anything else.
    pub(super) fn bitmap(&self, number: u32, wanted: SlotRef) -> Result<Bitmap, DmuError> {
        let what = "segment bitmap";
        let Some(block) = self.layout.slot_block(number, wanted.slot) else {
            let start = self.layout.segment(number).start;
            return Err(self.corrupt(what, start, format!("segment {number} has no room for one")));
        };
        let length = self.layout.slot_data_blocks() as usize * BLOCK_BYTES;
        let is_wanted = |identity: &Identity, bytes: &[u8]| {
            (identity.pool, identity.vdev, identity.number, identity.generation)
                == (self.uuid, self.layout.id, number, wanted.generation)
                && format::stored_checksum(bytes) == wanted.checksum
        };
        let bytes = self.fixed(block, length, &mut |bytes| {
            format::decode_slot(bytes, self.layout.segment_blocks)
                .is_ok_and(|(identity, _)| is_wanted(&identity, bytes))
        })?;
        let (identity, bitmap) = format::decode_slot(&bytes, self.layout.segment_blocks)
            .map_err(|error| self.corrupt(what, block, error.to_string()))?;
        if !is_wanted(&identity, &bytes) {
            let reason = format!(
                "segment {number} of generation {} expected, segment {} of vdev {} of generation {} found: \
                 a write was lost or went astray",
                wanted.generation, identity.number, identity.vdev, identity.generation
            );
            return Err(self.corrupt(what, block, reason));
        }
        if !bitmap.contains(&self.layout.reserved_bits(number)) {
            return Err(self.corrupt(
                what,
                block,
                format!("segment {number} has reserved blocks marked free"),
            ));
        }
        Ok(bitmap)
    }

    /// The newest bitmap of segment `number`.
    ///
    /// # Errors
    /// As [`Source::bitmap`], and when it does not have the free blocks of its entry.
    pub(super) fn current(&self, number: u32, entry: &Entry) -> Result<Bitmap, DmuError> {
        if entry.is_virgin() {
            return Ok(self.layout.reserved_bits(number));
        }
        let bitmap = self.bitmap(number, entry.current)?;
        if bitmap.count_clear() != entry.free {
            let reason = format!(
                "segment {number} has {} free blocks, its table entry says {}",
                bitmap.count_clear(),
                entry.free
            );
            return Err(self.corrupt("segment bitmap", self.layout.segment(number).start, reason));
        }
        Ok(bitmap)
    }
}

impl Segment {
    /// A segment that the table of checkpoint `generation` describes, nothing read.
    pub(super) fn new(entry: Entry, usable: u32, generation: Generation) -> Self {
        let (free, longest) = if entry.is_virgin() {
            (usable, usable)
        } else if entry.current.generation == generation {
            (entry.free_in_both, entry.longest.min(entry.free_in_both))
        } else {
            (entry.free, entry.longest)
        };
        Self { entry, free, longest, is_outdated: false, loaded: None }
    }

    /// Reads the bitmaps. Returns the segment's state as of `generation`, the last durable checkpoint, and how many
    /// blocks more can be handed out than [`Segment::free`] says.
    ///
    /// The bitmap before is protected as well (the pool may fall back to it), unless it cannot be read: then the
    /// checkpoint before is not usable here anyway. After a fallback that is the normal case, because the checkpoint
    /// that was given up wrote over it.
    ///
    /// # Errors
    /// Device errors; [`DmuError::Corrupt`].
    pub(super) fn read(
        &self,
        source: Source<'_>,
        number: u32,
        generation: Generation,
    ) -> Result<(Loaded, u32), DmuError> {
        let entry = &self.entry;
        let persistent = source.current(number, entry)?;
        let mut loaded = Loaded {
            busy: persistent.clone(),
            persistent,
            clearing: None,
            held: None,
            dead: None,
            orphans: None,
            opened: None,
            next: 0,
            touched: generation,
        };
        if entry.is_virgin() || entry.current.generation != generation {
            return Ok((loaded, 0));
        }
        let previous = match entry.previous.generation {
            Generation(0) => Ok(source.layout.reserved_bits(number)),
            _ => source.bitmap(number, entry.previous),
        };
        match previous {
            Ok(previous) => {
                loaded.busy.add(&previous);
                if loaded.busy.count_clear() != entry.free_in_both {
                    let reason = format!(
                        "segment {number} has {} blocks free in both bitmaps, its table entry says {}",
                        loaded.busy.count_clear(),
                        entry.free_in_both
                    );
                    return Err(source.corrupt(
                        "segment bitmap",
                        source.layout.segment(number).start,
                        reason,
                    ));
                }
                let mut only = previous;
                only.subtract(&loaded.persistent);
                if !only.is_clear() {
                    loaded.held = Some(only.clone());
                    loaded.dead = Some(only.clone());
                    loaded.orphans = Some(only);
                }
                Ok((loaded, 0))
            }
            Err(DmuError::Corrupt { block, reason, .. }) => {
                log::warn!(
                    "vdev {} block {block}: the bitmap before the newest one of segment {number} cannot be used \
                     ({reason}); its blocks are not kept for a fallback",
                    source.layout.id
                );
                Ok((loaded, entry.free - entry.free_in_both))
            }
            Err(error) => Err(error),
        }
    }
}

impl Loaded {
    /// Finds `wanted` contiguous blocks behind the last ones given, else anywhere. On failure the longest run.
    pub(super) fn find(&self, wanted: u32) -> Result<u32, u32> {
        let bits = self.busy.bits();
        self.busy
            .find_clear_run(self.next, bits, wanted)
            .or_else(|_| self.busy.find_clear_run(0, bits, wanted))
    }

    /// Blocks that are clear now and set in the last checkpoint.
    fn freed(&self) -> u32 {
        let freed = |set: &Bitmap| {
            let mut set = set.clone();
            set.subtract(&self.persistent);
            set.count_set()
        };
        [&self.clearing, &self.opened].into_iter().flatten().map(freed).sum()
    }

    /// Whether nothing would be lost by reading it again later, when the last durable checkpoint did not change it.
    pub(super) fn is_idle(&self) -> bool {
        self.clearing.is_none()
            && self.held.is_none()
            && self.dead.is_none()
            && self.orphans.is_none()
            && self.opened.is_none()
            && self.busy == self.persistent
    }

    /// The bytes of the next bitmap slot and the entry that goes with it.
    pub(super) fn image(
        &self,
        entry: &Entry,
        pool: Uuid,
        layout: &Layout,
        number: u32,
        (generation, base): (Generation, Generation),
    ) -> (AlignedBuffer, Entry) {
        let identity = Identity { pool, vdev: layout.id, number, generation, base };
        let (bytes, checksum) = format::encode_slot(&identity, &self.persistent);
        // The slot that neither the last checkpoint nor the one before refers to.
        let (slot, mut previous) = if entry.is_virgin() {
            (0, SlotRef { slot: 2, ..SlotRef::default() })
        } else {
            (SLOT_COUNT as u8 - entry.current.slot - entry.previous.slot, entry.current)
        };
        if previous.generation.0 == 0 {
            previous.checksum = 0;
        }
        let free = self.persistent.count_clear();
        let entry = Entry {
            current: SlotRef { slot, checksum, generation },
            previous,
            free,
            free_in_both: free - self.freed(),
            longest: self.persistent.longest_clear_run(),
        };
        (bytes, entry)
    }
}
