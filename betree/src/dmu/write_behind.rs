//! Writes behind the back of who asked for them: short pieces of data gather in memory and go to their device many at once.
//!
//! ```text
//!   write_behind ─► room of 1 MiB, filled from the front ─ full ─► IoQueue ─► device
//!                        │ finish_behind: written now               │
//!                        └──────── reads are served from here ──────┘
//! ```
//!
//! A device takes one long request far sooner than many short ones, and who writes need not wait for either. What is here
//! is as good as written for who reads ([`Dmu::read`] looks here first), and as good as lost for who crashes: so a sync, and a
//! checkpoint, begin with [`Dmu::finish_behind`]. A write that fails cannot be told to who asked for it; from then on every call here
//! fails, and the bytes stay readable. One for which the host had no space is tried again by each finish; until it succeeds nothing more is
//! taken.
//!
//! Blocks whose writer gave up are given back when the write that they are part of is done, or somebody else's data in
//! them would be overwritten by it. Blocks that die need no such care: a checkpoint comes before they are used again.
//!
//! Only where every block is written on its own: on leaves and mirrors, not where a stripe is written once and whole, nor
//! where memory holds copies of whole extents.

use super::dmu::{Dmu, Placement};
use super::queue::outcome;
use super::sequence::Part;
use super::{DmuError, Privilege, Stream};
use crate::base::buffer::AlignedBuffer;
use crate::base::extent::Extent;
use crate::base::preference::{StoragePreference, TIER_COUNT};
use crate::base::sync::atomic::{AtomicUsize, Ordering};
use crate::base::sync::{Condvar, Mutex};
use crate::base::units::{BLOCK_BYTES, blocks_for};
use std::sync::Arc;

/// Fewest and most blocks of a room. The longest is one request of 1 MiB.
const ROOM_BLOCKS: (u64, u64) = (32, 256);

/// What is on its way to a device.
#[derive(Debug)]
pub(super) struct WriteBehind {
    /// Blocks that are allocated at once.
    room_blocks: u32,
    /// Gatherings whose bytes are not on their device.
    count: AtomicUsize,
    state: Mutex<State>,
    /// One is written, or never will be.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    classes: [Class; TIER_COUNT],
    /// Full, or wanted: to be written.
    sealed: Vec<Sealed>,
    /// How many were sealed so far.
    number: u64,
    /// Given up by their writers before they were written.
    given_up: Vec<Extent>,
    /// The host had no space for the last one.
    is_full: bool,
    failure: Option<DmuError>,
}

/// What gathers for one storage class.
#[derive(Debug, Default)]
struct Class {
    /// Where it may lie; another one when a vdev leaves.
    placement: Option<Arc<Placement>>,
    open: Option<Gathering>,
    /// Allocated, with nothing in them.
    rooms: Vec<Extent>,
    /// Fewer blocks follow each other than these; another look is worth while after the next checkpoint.
    scattered: Option<u32>,
}

/// A room that is being filled.
#[derive(Debug)]
struct Gathering {
    room: Extent,
    used: u32,
    bytes: AlignedBuffer,
}

/// Bytes that are complete, in the order of their numbers.
#[derive(Debug, Clone)]
struct Sealed {
    number: u64,
    extent: Extent,
    bytes: Arc<AlignedBuffer>,
    /// Whether somebody writes it.
    is_taken: bool,
}

fn contains(outer: &Extent, inner: &Extent) -> bool {
    outer.vdev == inner.vdev && outer.block <= inner.block && inner.end() <= outer.end()
}

/// The blocks that `part` reads.
fn blocks_of(part: &Part) -> Extent {
    let blocks = (part.range.len() / BLOCK_BYTES) as u32;
    Extent { block: part.block(), blocks, ..part.extent }
}

impl Gathering {
    fn new(room: Extent) -> Self {
        Self { room, used: 0, bytes: AlignedBuffer::recycled(room.blocks as usize * BLOCK_BYTES) }
    }

    fn left(&self) -> u32 {
        self.room.blocks - self.used
    }

    /// Puts `bytes` into the next `blocks` blocks.
    fn put(&mut self, bytes: &[u8], blocks: u32) -> Extent {
        let start = self.used as usize * BLOCK_BYTES;
        let (end, padded) = (start + bytes.len(), start + blocks as usize * BLOCK_BYTES);
        self.bytes[start..end].copy_from_slice(bytes);
        self.bytes[end..padded].fill(0);
        let extent = Extent { block: self.room.block + u64::from(self.used), blocks, ..self.room };
        self.used += blocks;
        extent
    }
}

impl Class {
    /// Makes a room of `blocks` blocks the one that is filled, if there is one.
    fn open_room(&mut self, blocks: u32) -> bool {
        let Some(index) = self.rooms.iter().position(|room| room.blocks >= blocks) else { return false };
        self.open = Some(Gathering::new(self.rooms.swap_remove(index)));
        true
    }
}

impl State {
    fn check(&self) -> Result<(), DmuError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Ends what gathers for `class`, which is to be written then; what is left of its room is a room.
    fn seal(&mut self, class: usize) {
        let Some(Gathering { room, used, mut bytes }) = self.classes[class].open.take() else { return };
        if used < room.blocks {
            let (block, blocks) = (room.block + u64::from(used), room.blocks - used);
            self.classes[class].rooms.push(Extent { block, blocks, ..room });
        }
        if used > 0 {
            bytes.truncate(used as usize * BLOCK_BYTES);
            self.number += 1;
            let extent = Extent { blocks: used, ..room };
            self.sealed.push(Sealed { number: self.number, extent, bytes: Arc::new(bytes), is_taken: false });
        }
    }

    fn seal_all(&mut self) {
        (0..TIER_COUNT).for_each(|class| self.seal(class));
    }

    /// The oldest up to `last` that nobody writes, for the caller to write.
    fn take(&mut self, last: u64) -> Option<Sealed> {
        let free = self.sealed.iter_mut().find(|sealed| !sealed.is_taken && sealed.number <= last)?;
        free.is_taken = true;
        Some(free.clone())
    }

    /// Where all blocks of `extent` are, with the first of them.
    fn find(&self, extent: &Extent) -> Option<(Found<'_>, Extent)> {
        let sealed = self.sealed.iter().find(|sealed| contains(&sealed.extent, extent));
        if let Some(Sealed { extent, bytes, .. }) = sealed {
            return Some((Found::Sealed(bytes), *extent));
        }
        let mut open = self.classes.iter().flat_map(|class| &class.open);
        open.find(|open| contains(&open.room, extent)).map(|open| (Found::Open(&open.bytes), open.room))
    }

    fn take_rooms(&mut self) -> Vec<Extent> {
        let rooms = |class: &mut Class| {
            class.scattered = None;
            std::mem::take(&mut class.rooms)
        };
        self.classes.iter_mut().flat_map(rooms).collect()
    }
}

/// Bytes in memory: complete, or being added to.
enum Found<'a> {
    Sealed(&'a Arc<AlignedBuffer>),
    Open(&'a AlignedBuffer),
}

impl WriteBehind {
    /// Nothing yet, in rooms for a pool of `capacity` blocks.
    pub fn new(capacity: u64) -> Self {
        let room_blocks = (capacity / 1024).clamp(ROOM_BLOCKS.0, ROOM_BLOCKS.1) as u32;
        Self { room_blocks, count: AtomicUsize::new(0), state: Mutex::default(), done: Condvar::new() }
    }

    /// Lets readers know how many there are.
    fn publish(&self, state: &State) {
        let open = state.classes.iter().flat_map(|class| &class.open).filter(|open| open.used > 0).count();
        self.count.store(open + state.sealed.len(), Ordering::Release);
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Reads `part`, if it is here.
    #[inline]
    pub fn read(&self, part: &Part, out: &mut [u8]) -> bool {
        !self.is_empty() && self.find(part, out)
    }

    /// Whether [`WriteBehind::read`] would read `part`.
    pub fn has(&self, part: &Part) -> bool {
        !self.is_empty() && self.state.lock().find(&blocks_of(part)).is_some()
    }

    fn find(&self, part: &Part, out: &mut [u8]) -> bool {
        let extent = blocks_of(part);
        let state = self.state.lock();
        let Some((found, outer)) = state.find(&extent) else { return false };
        let start = (extent.block - outer.block) as usize * BLOCK_BYTES;
        match found {
            Found::Open(bytes) => out.copy_from_slice(&bytes[start..start + out.len()]),
            Found::Sealed(bytes) => {
                let bytes = Arc::clone(bytes);
                drop(state);
                out.copy_from_slice(&bytes[start..start + out.len()]);
            }
        }
        true
    }

    /// Notes what became of the write of `sealed`, and tells who waits for it.
    fn complete(&self, sealed: &Sealed, written: &Result<(), DmuError>) {
        let mut state = self.state.lock();
        match written {
            Ok(()) => {
                state.is_full = false;
                state.sealed.retain(|other| other.number != sealed.number);
            }
            Err(error) if error.is_out_of_space() => {
                log::warn!("{error}; what waits to be written there goes on waiting");
                let left = state.sealed.iter_mut().filter(|other| other.number == sealed.number);
                left.for_each(|left| left.is_taken = false);
                state.is_full = true;
            }
            Err(error) => {
                log::error!("{error}; what was to be written there is lost");
                state.failure.get_or_insert_with(|| error.clone());
            }
        }
        self.publish(&state);
        drop(state);
        self.done.notify_all();
    }
}

impl Dmu {
    /// Takes `bytes`, which are written later, and returns where; `None` when that cannot be: they are too many, the place is
    /// no good for it, or there is little room, and whoever wants them written does that.
    ///
    /// # Errors
    /// An earlier one could not be written ([`Dmu::has_lost_writes`]); damage of the allocation state.
    pub fn write_behind(
        &self,
        bytes: &[u8],
        preference: StoragePreference,
    ) -> Result<Option<Extent>, DmuError> {
        let behind = self.behind();
        if blocks_for(bytes.len() as u64) > u64::from(behind.room_blocks / 2) {
            return Ok(None);
        }
        let taken = self.gather(bytes, preference)?;
        self.submit_sealed();
        Ok(taken)
    }

    /// Has everything written that was taken so far, and waits for nothing: what goes wrong is told by the next
    /// [`Dmu::finish_behind`].
    pub fn start_behind(&self) {
        if self.behind().is_empty() {
            return;
        }
        self.behind().state.lock().seal_all();
        self.submit_sealed();
    }

    /// Gives what is complete to the threads of background I/O; writes it when there are none.
    fn submit_sealed(&self) {
        let behind = self.behind();
        loop {
            let next = {
                let mut state = behind.state.lock();
                if state.is_full { None } else { state.take(u64::MAX) }
            };
            let Some(sealed) = next else { return };
            let (dmu, behind) = (self.clone(), Arc::clone(behind));
            let memory = sealed.bytes.capacity();
            let job = move || {
                let (extent, bytes) = (sealed.extent, Arc::clone(&sealed.bytes));
                // The unit is let go of before anybody is told: it may be the last to hold the pool.
                let written = outcome(move || dmu.write(&[extent], 0, &bytes));
                behind.complete(&sealed, &written);
            };
            self.writes().submit(job, memory);
        }
    }

    /// Copies `bytes` to what gathers for their class.
    fn gather(&self, bytes: &[u8], preference: StoragePreference) -> Result<Option<Extent>, DmuError> {
        let behind = self.behind();
        let (blocks, class) = (blocks_for(bytes.len() as u64) as u32, usize::from(self.class_of(preference)));
        let mut guard = behind.state.lock();
        let state = &mut *guard;
        state.check()?;
        if state.is_full {
            return Ok(None);
        }
        // Looked at under the lock: who comes after a vdev was closed fills no room on it.
        let placement = self.placement();
        if !placement.is_plain(class) {
            return Ok(None);
        }
        let is_new = |of: &Arc<Placement>| !Arc::ptr_eq(of, &placement);
        if state.classes[class].placement.as_ref().is_none_or(is_new) {
            state.seal(class);
            let class = &mut state.classes[class];
            self.release(&std::mem::take(&mut class.rooms));
            *class = Class { placement: Some(placement), ..Class::default() };
        }
        if state.classes[class].scattered.is_some_and(|least| blocks >= least) {
            return Ok(None);
        }
        if state.classes[class].open.as_ref().is_none_or(|open| open.left() < blocks) {
            state.seal(class);
            let class = &mut state.classes[class];
            if !class.open_room(blocks) {
                self.release(&std::mem::take(&mut class.rooms));
                match self.allocate(Stream::Value, preference, behind.room_blocks, Privilege::User) {
                    Ok(extents) => class.rooms = extents,
                    Err(DmuError::OutOfSpace { .. }) => {}
                    Err(error) => return Err(error),
                }
                if !class.open_room(blocks) {
                    class.scattered = Some(blocks);
                }
            }
        }
        let extent = state.classes[class].open.as_mut().map(|open| open.put(bytes, blocks));
        if state.classes[class].open.as_ref().is_some_and(|open| open.left() == 0) {
            state.seal(class);
        }
        behind.publish(state);
        Ok(extent)
    }

    /// Gives back what was given up and is written.
    fn release_given_up(&self, state: &mut State) {
        if state.given_up.is_empty() {
            return;
        }
        let waits = |extent: &Extent| state.find(extent).is_some();
        let (waiting, free): (Vec<Extent>, Vec<Extent>) =
            state.given_up.iter().partition(|extent| waits(extent));
        state.given_up = waiting;
        self.release(&free);
    }

    /// Returns when everything that was taken by [`Dmu::write_behind`] before the call is on its device (not flushed).
    ///
    /// # Errors
    /// Something could not be written, now or earlier. What there was no space for waits for the next call.
    pub fn finish_behind(&self) -> Result<(), DmuError> {
        let behind = self.behind();
        if behind.is_empty() {
            return Ok(());
        }
        let mut state = behind.state.lock();
        state.seal_all();
        let last = state.number;
        loop {
            state.check()?;
            if let Some(sealed) = state.take(last) {
                drop(state);
                // Whoever waits may as well do it.
                let written = outcome(|| self.write(&[sealed.extent], 0, &sealed.bytes));
                behind.complete(&sealed, &written);
                written?;
                state = behind.state.lock();
            } else if state.sealed.iter().all(|sealed| sealed.number > last) {
                self.release_given_up(&mut state);
                return Ok(());
            } else {
                behind.done.wait(&mut state);
            }
        }
    }

    /// As [`Dmu::finish_behind`], and gives back the rooms: nothing is allocated for what may come.
    ///
    /// # Errors
    /// As [`Dmu::finish_behind`].
    pub fn settle_behind(&self) -> Result<(), DmuError> {
        self.finish_behind()?;
        let mut state = self.behind().state.lock();
        self.release_given_up(&mut state);
        self.release(&state.take_rooms());
        Ok(())
    }

    /// Whether something could not be written that [`Dmu::write_behind`] had taken.
    #[must_use]
    pub fn has_lost_writes(&self) -> bool {
        self.behind().state.lock().failure.is_some()
    }

    /// Gives back extents that were allocated and never named, when nothing is written to them any more.
    pub(super) fn release_unborn(&self, extents: &[Extent]) {
        let behind = self.behind();
        if behind.is_empty() {
            return self.release(extents);
        }
        let mut state = behind.state.lock();
        state.given_up.extend(extents);
        self.release_given_up(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::VdevId;
    use crate::base::units::BLOCK_BYTES_U64;
    use crate::dmu::OwnedExtents;
    use crate::dmu::testing::{KINDS, unit};
    use crate::pool::format::VdevKind;
    use crate::pool::{Pool, TopLevelVdev};
    use crate::vdev::{
        BlockDevice, Fault, LoggedOperation, MemoryDevice, Operation, SimClock, SimDisk, VdevError,
    };
    use std::thread;

    const NONE: StoragePreference = StoragePreference::NONE;

    /// A device whose writes wait, and then may fail.
    #[derive(Debug)]
    struct Gate {
        device: MemoryDevice,
        state: Mutex<GateState>,
        changed: Condvar,
    }

    #[derive(Debug, Default)]
    struct GateState {
        is_closed: bool,
        is_broken: bool,
        waiting: usize,
    }

    impl Gate {
        fn set(&self, is_closed: bool, is_broken: bool) {
            let mut state = self.state.lock();
            (state.is_closed, state.is_broken) = (is_closed, is_broken);
            self.changed.notify_all();
        }

        /// Returns when a write waits.
        fn meet(&self) {
            let mut state = self.state.lock();
            while state.waiting == 0 {
                self.changed.wait(&mut state);
            }
        }
    }

    impl BlockDevice for Gate {
        fn name(&self) -> &str {
            "gate"
        }

        fn len(&self) -> u64 {
            self.device.len()
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
            self.device.read_at(buf, offset)
        }

        fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
            let mut state = self.state.lock();
            state.waiting += 1;
            self.changed.notify_all();
            while state.is_closed {
                self.changed.wait(&mut state);
            }
            state.waiting -= 1;
            if state.is_broken {
                let (device, operation) = (String::from("gate"), Operation::Write);
                let source = std::io::Error::other("injected");
                return Err(VdevError::Io { device, operation, offset, source });
            }
            drop(state);
            self.device.write_at(buf, offset)
        }

        fn flush(&self) -> Result<(), VdevError> {
            self.device.flush()
        }
    }

    /// A unit with a thread that writes to the gate, which is open.
    fn gated(blocks: u64) -> (Dmu, Arc<Gate>) {
        let device = MemoryDevice::new(blocks * BLOCK_BYTES_U64);
        let gate = Arc::new(Gate { device, state: Mutex::default(), changed: Condvar::new() });
        let vdev = TopLevelVdev::leaf(VdevId(1), 0, blocks, Arc::clone(&gate) as Arc<dyn BlockDevice>);
        (Dmu::over_with_threads(Arc::new(Pool::from_vdevs(vec![vdev])), 0, 1), gate)
    }

    /// What lies in the first block of `extent` on the device.
    fn raw(dmu: &Dmu, extent: &Extent) -> u8 {
        let mut raw = vec![0; BLOCK_BYTES];
        dmu.pool().read(extent, 0, &mut raw).unwrap();
        raw[0]
    }

    fn take(dmu: &Dmu, bytes: &[u8]) -> Option<Extent> {
        dmu.write_behind(bytes, NONE).unwrap()
    }

    fn read(dmu: &Dmu, extent: &Extent) -> Vec<u8> {
        dmu.read(&[*extent], 0, extent.blocks as usize * BLOCK_BYTES).unwrap().to_vec()
    }

    fn writes(disk: &SimDisk) -> usize {
        disk.log().iter().filter(|logged| matches!(logged, LoggedOperation::Write { .. })).count()
    }

    /// `count` values of different lengths, each of its own bytes.
    fn values(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|number| vec![number as u8 + 1; 1 + number * 1777 % 20_000]).collect()
    }

    #[test]
    fn many_values_are_one_request_and_are_read_before_and_after() {
        for (kind, leaves) in [(VdevKind::Leaf, 1), (VdevKind::Mirror, 2)] {
            let (dmu, disks) = unit(kind, leaves, 1 << 12);
            let before = writes(&disks[0]);
            let values = values(8);
            let extents: Vec<Extent> = values.iter().map(|value| take(&dmu, value).unwrap()).collect();
            let check = || {
                for (value, extent) in values.iter().zip(&extents) {
                    let found = read(&dmu, extent);
                    assert_eq!(extent.blocks, blocks_for(value.len() as u64) as u32);
                    assert!(
                        found[..value.len()] == value[..]
                            && found[value.len()..].iter().all(|byte| *byte == 0)
                    );
                }
            };
            assert_eq!(writes(&disks[0]), before);
            check();
            dmu.finish_behind().unwrap();
            assert_eq!(writes(&disks[0]), before + 1, "neighbours are one request");
            assert!(dmu.behind().is_empty());
            check();
            // The rest of the room is used by what comes next, and is given back when nothing comes.
            let next = take(&dmu, &[9]).unwrap();
            assert_eq!(next.block, extents[7].end());
            let taken = dmu.available_blocks(0, Privilege::System);
            dmu.settle_behind().unwrap();
            let used: u32 = extents.iter().map(|extent| extent.blocks).sum::<u32>() + 1;
            let room = dmu.behind().room_blocks;
            assert_eq!(dmu.available_blocks(0, Privilege::System), taken + u64::from(room - used));
        }
    }

    #[test]
    fn full_rooms_are_written_unasked() {
        let (dmu, disks) = unit(VdevKind::Leaf, 1, 1 << 12);
        let before = writes(&disks[0]);
        let room = dmu.behind().room_blocks as usize;
        let extents: Vec<Extent> = (0..room).map(|number| take(&dmu, &[number as u8]).unwrap()).collect();
        assert_eq!(writes(&disks[0]), before + 1);
        assert!(dmu.behind().is_empty());
        assert!((0..room).all(|number| read(&dmu, &extents[number])[0] == number as u8));
    }

    #[test]
    fn what_cannot_wait_is_left_to_its_writer() {
        for (name, kind, leaves) in KINDS {
            let (dmu, _disks) = unit(kind, leaves, 1 << 12);
            let is_plain = matches!(kind, VdevKind::Leaf | VdevKind::Mirror);
            assert_eq!(take(&dmu, &[1; 100]).is_some(), is_plain, "{name}");
            let longest = dmu.behind().room_blocks as usize / 2 * BLOCK_BYTES;
            assert_eq!(take(&dmu, &vec![1; longest]).is_some(), is_plain, "{name}");
            assert!(take(&dmu, &vec![1; longest + 1]).is_none(), "{name}");
        }
    }

    /// A write that is under way would go over what its next owner has written there.
    #[test]
    fn blocks_that_were_given_up_are_used_again_when_they_are_written() {
        let (dmu, _disks) = unit(VdevKind::Leaf, 1, 1 << 9);
        let free = dmu.available_blocks(0, Privilege::System);
        let (kept, given_up) = (take(&dmu, &[1]).unwrap(), take(&dmu, &[2; 9000]).unwrap());
        drop(OwnedExtents::unborn(&dmu, vec![given_up]));
        // Everything else is somebody's.
        let mut others = Vec::new();
        while let Ok(extents) = dmu.allocate(Stream::Delta, NONE, 1, Privilege::System) {
            others.extend(extents);
        }
        let overlaps = |other: &Extent| other.block < given_up.end() && given_up.block < other.end();
        assert!(!others.iter().any(overlaps), "{given_up} is used again");
        dmu.settle_behind().unwrap();
        while let Ok(extents) = dmu.allocate(Stream::Delta, NONE, 1, Privilege::System) {
            others.extend(extents);
        }
        assert_eq!(others.iter().filter(|other| overlaps(other)).count(), 3);
        dmu.release(&others);
        assert_eq!(dmu.available_blocks(0, Privilege::System), free - 1);
        assert_eq!(read(&dmu, &kept)[0], 1);
    }

    #[test]
    fn a_failure_is_never_forgotten_and_the_bytes_stay_readable() {
        let (dmu, disks) = unit(VdevKind::Leaf, 1, 1 << 12);
        let first = take(&dmu, &[1]).unwrap();
        dmu.finish_behind().unwrap();
        let second = take(&dmu, &[2]).unwrap();
        disks[0].arm(Fault::WriteError { nth: 1, sticky: false });
        for _ in 0..2 {
            assert!(dmu.finish_behind().is_err());
            assert!(dmu.settle_behind().is_err());
            assert!(dmu.write_behind(&[3], NONE).is_err());
            assert!(dmu.has_lost_writes());
        }
        assert_eq!((read(&dmu, &first)[0], read(&dmu, &second)[0]), (1, 2));
        // Never given to somebody else.
        drop(OwnedExtents::unborn(&dmu, vec![second]));
        while let Ok(extents) = dmu.allocate(Stream::Delta, NONE, 1, Privilege::System) {
            assert_ne!(extents[0].block, second.block);
        }
    }

    /// A sparse file on a full host: nothing is lost, and nothing more is taken until there is space.
    #[test]
    fn what_the_host_has_no_space_for_waits_and_is_written_in_the_end() {
        let (dmu, disks) = unit(VdevKind::Leaf, 1, 1 << 12);
        let extent = take(&dmu, &[1]).unwrap();
        disks[0].arm(Fault::OutOfSpace { nth: 1 });
        for _ in 0..2 {
            assert!(dmu.finish_behind().unwrap_err().is_out_of_space());
            assert!(take(&dmu, &[2]).is_none() && !dmu.has_lost_writes());
            assert_eq!(read(&dmu, &extent)[0], 1);
        }
        disks[0].clear_faults();
        dmu.settle_behind().unwrap();
        assert!(dmu.behind().is_empty() && take(&dmu, &[2]).is_some());
        assert_eq!(raw(&dmu, &extent), 1);
    }

    #[test]
    fn a_full_pool_takes_nothing_and_fails_nothing() {
        let (dmu, _disks) = unit(VdevKind::Leaf, 1, 1 << 9);
        let mut others = Vec::new();
        while let Ok(extents) = dmu.allocate(Stream::Delta, NONE, 1, Privilege::System) {
            others.extend(extents);
        }
        assert!(take(&dmu, &[1]).is_none());
        dmu.release(&others);
        // Another look is worth while after the next checkpoint.
        assert!(take(&dmu, &[1]).is_none());
        dmu.settle_behind().unwrap();
        assert!(take(&dmu, &[1]).is_some());
        assert!(!dmu.has_lost_writes());
    }

    #[test]
    fn blocks_that_were_given_up_while_a_thread_writes_them_are_used_again_after_it() {
        let (dmu, gate) = gated(1 << 10);
        gate.set(true, false);
        let extent = take(&dmu, &[1]).unwrap();
        dmu.start_behind();
        gate.meet();
        drop(OwnedExtents::unborn(&dmu, vec![extent]));
        let all = || {
            let one = || dmu.allocate(Stream::Delta, NONE, 1, Privilege::System).ok();
            std::iter::from_fn(one).flatten().collect::<Vec<Extent>>()
        };
        assert!(!all().iter().any(|other| other.block == extent.block), "{extent} is used again");
        gate.set(false, false);
        dmu.settle_behind().unwrap();
        assert!(all().iter().any(|other| other.block == extent.block));
    }

    #[test]
    fn who_waits_for_a_thread_hears_that_it_failed() {
        let (dmu, gate) = gated(1 << 10);
        gate.set(true, false);
        let extent = take(&dmu, &[1]).unwrap();
        dmu.start_behind();
        gate.meet();
        thread::scope(|scope| {
            let finished = scope.spawn(|| dmu.finish_behind());
            gate.set(false, true);
            assert!(finished.join().unwrap().is_err());
        });
        assert!(dmu.has_lost_writes() && dmu.write_behind(&[2], NONE).is_err());
        assert_eq!(read(&dmu, &extent)[0], 1);
    }

    #[test]
    fn what_was_begun_is_written_without_being_waited_for() {
        let (dmu, gate) = gated(1 << 10);
        gate.set(true, false);
        let (first, second) = (take(&dmu, &[1]).unwrap(), take(&dmu, &[2; 5000]).unwrap());
        dmu.start_behind();
        gate.meet();
        let third = take(&dmu, &[3]).unwrap();
        assert_eq!(third.block, second.end(), "the rest of the room is filled");
        gate.set(false, false);
        while !dmu.behind().state.lock().sealed.is_empty() {
            thread::yield_now();
        }
        assert_eq!([first, second, third].map(|extent| raw(&dmu, &extent)), [1, 2, 0]);
        dmu.finish_behind().unwrap();
        assert_eq!(raw(&dmu, &third), 3);
    }

    #[test]
    fn nothing_gathers_on_a_vdev_that_is_closed() {
        let clock = SimClock::new(1);
        let vdev = |id| {
            let device = SimDisk::new("disk", 16 << 20, &clock).device();
            TopLevelVdev::leaf(VdevId(id), 0, 1 << 12, Arc::new(device) as Arc<dyn BlockDevice>)
        };
        let dmu = Dmu::over(Arc::new(Pool::from_vdevs(vec![vdev(1), vdev(2)])), 0);
        let free = || dmu.available_blocks(0, Privilege::System);
        let before = free();
        let first = take(&dmu, &[1]).unwrap();
        dmu.close_vdev(first.vdev).unwrap();
        for _ in 0..300 {
            assert_ne!(take(&dmu, &[2]).unwrap().vdev, first.vdev);
        }
        dmu.settle_behind().unwrap();
        dmu.open_vdev(first.vdev);
        assert_eq!(before - free(), 301);
        assert_eq!(read(&dmu, &first)[0], 1);
    }

    /// Writers, syncs and readers beside each other, with threads that write.
    #[test]
    fn what_is_taken_is_there_for_everybody() {
        let device = Arc::new(MemoryDevice::new(64 << 20));
        let vdev = TopLevelVdev::leaf(VdevId(1), 0, 1 << 14, device);
        let pool = Arc::new(Pool::from_vdevs(vec![vdev]));
        let dmu = Dmu::over_with_threads(pool, 0, 2);
        std::thread::scope(|scope| {
            for thread in 0..3_u8 {
                let dmu = &dmu;
                scope.spawn(move || {
                    let mut taken: Vec<(Extent, u8)> = Vec::new();
                    for number in 0..600_u32 {
                        let byte = thread * 80 + (number % 80) as u8;
                        taken.push((take(dmu, &vec![byte; 4096]).unwrap(), byte));
                        let (extent, byte) = taken[number as usize * 7 % taken.len()];
                        assert!(read(dmu, &extent).iter().all(|found| *found == byte));
                        if number % 50 == u32::from(thread) {
                            dmu.finish_behind().unwrap();
                        }
                    }
                });
            }
        });
        dmu.finish_behind().unwrap();
        assert!(dmu.behind().is_empty());
    }
}
