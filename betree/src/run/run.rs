//! A run on its devices, and the point path through it.

use super::block::Block;
use super::entry::EntryRef;
use super::format::{BLOCKS_MAX, BlockRecord, RunRef, Shape};
use super::meta::Meta;
use super::range_deletes::RangeDeleteSet;
use crate::base::buffer::{AlignedBuffer, footprint};
use crate::base::checksum::crc;
use crate::base::codec::{Decoder, Encoder};
use crate::base::compression::Codec;
use crate::base::extent::Extent;
use crate::base::ids::Generation;
use crate::base::planted::{Bug, planted};
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::dmu::{Admission, Checksummed, Dmu, DmuError, Evictable, OwnedExtents, Reading};
use arc_swap::{ArcSwapOption, Guard};
use std::fmt::Display;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};

/// Hash of a key for the filters.
#[inline]
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// An immutable sorted sequence of messages in extents.
///
/// Meta section and blocks are loaded when they are needed and stay while the cache keeps them. All methods may be
/// called from any thread.
#[derive(Debug)]
pub struct Run {
    dmu: Dmu,
    reference: RunRef,
    /// The run's bytes and its extent list.
    space: OwnedExtents,
    meta: ArcSwapOption<Meta>,
}

/// What a miss brings in as long as the cache has room for much more: a device takes hardly longer for it than for one
/// block, and a cold cache fills with a sixteenth of the reads.
const FILL_BYTES: u64 = 64 << 10;
/// The room above which a miss brings more than its block.
const FILL_ROOM_BYTES_MIN: usize = 1 << 20;

/// What a look into a run found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// The filter says that the key is not there; no block was looked at.
    Filtered,
    /// Blocks were searched; older versions elsewhere matter, too.
    Continue,
    /// The visitor has seen enough.
    Done,
}

pub(super) type MetaGuard = Guard<Option<Arc<Meta>>>;
pub(super) type BlockGuard = Guard<Option<Arc<Block>>>;

impl Run {
    /// The run that `reference` names. Reads nothing.
    #[must_use]
    pub fn open(dmu: &Dmu, reference: RunRef) -> Arc<Self> {
        let extents = reference.extents.all();
        let space = match reference.birth {
            Generation(0) => OwnedExtents::unborn(dmu, extents),
            birth => OwnedExtents::from_disk(dmu, extents, birth),
        };
        Arc::new(Self { dmu: dmu.clone(), reference, space, meta: ArcSwapOption::empty() })
    }

    /// What is known of the run without reading it.
    #[must_use]
    pub fn reference(&self) -> &RunRef {
        &self.reference
    }

    /// The run that the encoded `reference` names. Reads nothing but the list of extents, where there is one.
    ///
    /// # Errors
    /// Bytes that are not a reference; device errors and damage of the extent list.
    pub fn from_reference(dmu: &Dmu, reference: &[u8]) -> Result<Arc<Self>, DmuError> {
        let mut input = Decoder::new(reference);
        let decoded = RunRef::decode(&mut input, dmu)?;
        let whole = input.finish("run reference");
        whole.map_err(|source| DmuError::Decode { what: "run reference", source })?;
        if decoded.birth.0 == 0 {
            // Whoever drops a run that was never born gives its blocks back: what is on a device is not that.
            let source = input.invalid("run birth");
            return Err(DmuError::Decode { what: "run reference", source });
        }
        Ok(Self::open(dmu, decoded))
    }

    /// Appends the reference, with the present birth, to a node header.
    pub fn encode_reference(&self, out: &mut Encoder) {
        RunRef { birth: self.space.birth(), ..self.reference.clone() }.encode(out);
    }

    /// The extents that the run owns: its bytes, then its extent list.
    #[must_use]
    pub fn space(&self) -> &OwnedExtents {
        &self.space
    }

    /// Generation of the first checkpoint that contains the run; 0 until a version refers to it.
    #[must_use]
    pub fn birth(&self) -> Generation {
        self.space.birth()
    }

    /// Bytes stored, without the padding at the end.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.reference.stored_bytes()
    }

    /// Bytes of memory without the meta section and the blocks, which count by themselves.
    #[must_use]
    pub fn footprint(&self) -> usize {
        let keys = self.reference.keys.as_ref().map_or(0, |(first, last)| first.len() + last.len());
        size_of::<Self>() + keys + 64
    }

    /// The unit that the run lies in.
    #[must_use]
    pub fn dmu(&self) -> &Dmu {
        &self.dmu
    }

    /// Visits the versions of `key` whose sequence number is at most `max_sequence`, newest first, until `visit`
    /// breaks. `hash` is [`key_hash`] of the key. Range deletes are not looked at: see [`Run::covering`].
    ///
    /// # Errors
    /// Device errors and damage.
    #[inline]
    pub fn get(
        self: &Arc<Self>,
        key: &[u8],
        hash: u64,
        max_sequence: u64,
        visit: &mut impl FnMut(EntryRef<'_>) -> ControlFlow<()>,
    ) -> Result<Search, DmuError> {
        if self.reference.blocks == 0 {
            return Ok(Search::Filtered);
        }
        let guard = self.meta()?;
        let Some(meta) = guard.as_ref().filter(|meta| meta.may_contain(hash)) else {
            return Ok(Search::Filtered);
        };
        let mut index = meta.find(key);
        meta.prefetch(index);
        loop {
            let block = self.block(meta, index, Admission::Probation)?;
            let Some(block) = block.as_deref() else { return Ok(Search::Continue) };
            let view = block.view();
            for position in view.lower_bound(key)..view.shape.count {
                let frame = view.frame(position);
                let Some(entry) = view.entry_of(&frame, key) else { return Ok(Search::Continue) };
                if entry.sequence <= max_sequence && visit(entry).is_break() {
                    return Ok(Search::Done);
                }
            }
            index += 1;
            if index >= meta.blocks() || !meta.record(index).continued {
                return Ok(Search::Continue);
            }
        }
    }

    /// Asks the processor for the line of the filter that a key with this [`key_hash`] falls on, when the filter is in
    /// memory.
    #[inline]
    pub fn prefetch_filter(&self, hash: u64) {
        if let Some(meta) = &*self.meta.load() {
            meta.prefetch_filter(hash);
        }
    }

    /// Whether the run may have an entry for a key with this [`key_hash`]; true when it has no filter. Says nothing about
    /// range deletes.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn may_contain(self: &Arc<Self>, hash: u64) -> Result<bool, DmuError> {
        if self.reference.blocks == 0 {
            return Ok(false);
        }
        Ok(self.meta()?.as_ref().is_none_or(|meta| meta.may_contain(hash)))
    }

    /// The highest sequence number that is at most `max_sequence` among the range deletes that cover `key`. Reads
    /// nothing when the run has none.
    ///
    /// # Errors
    /// Device errors and damage.
    #[inline]
    pub fn covering(self: &Arc<Self>, key: &[u8], max_sequence: u64) -> Result<Option<u64>, DmuError> {
        if self.reference.range_deletes == 0 {
            return Ok(None);
        }
        Ok(self.range_deletes()?.covering(key, max_sequence))
    }

    /// The range deletes.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn range_deletes(self: &Arc<Self>) -> Result<Arc<RangeDeleteSet>, DmuError> {
        if self.reference.range_deletes == 0 {
            return Ok(Arc::default());
        }
        Ok(self.meta()?.as_ref().map(|meta| Arc::clone(meta.range_deletes())).unwrap_or_default())
    }

    /// Whether the block that holds `key`, or would hold it, is in the cache now. Reads nothing.
    #[must_use]
    pub fn is_resident(&self, key: &[u8]) -> bool {
        let guard = self.meta.load();
        let Some(meta) = &*guard else { return false };
        meta.blocks() > 0 && meta.resident(meta.find(key)).is_some()
    }

    /// Whether the meta section is in memory now.
    #[must_use]
    pub fn has_meta(&self) -> bool {
        self.meta.load().is_some()
    }

    /// Whether [`Run::get`] of `key` would read nothing now, unless its versions go on into the next block.
    #[must_use]
    pub fn reads_nothing(&self, key: &[u8], hash: u64) -> bool {
        if self.reference.blocks == 0 {
            return true;
        }
        let guard = self.meta.load();
        let Some(meta) = &*guard else { return false };
        !meta.may_contain(hash) || meta.resident(meta.find(key)).is_some()
    }

    /// Reads the whole run and checks every checksum, every block and that what the index and the reference say of them
    /// is true.
    ///
    /// # Errors
    /// Device errors and damage.
    pub fn verify(self: &Arc<Self>) -> Result<(), DmuError> {
        let guard = self.meta()?;
        let Some(meta) = &*guard else { return Ok(()) };
        let mut entries = 0;
        for index in 0..meta.blocks() {
            let record = meta.record(index);
            let (bytes, shape) = self.read_block(record)?;
            let newest =
                (0..shape.count).map(|entry| shape.frame(&bytes, shape.offset(&bytes, entry)).sequence).max();
            if newest != Some(record.max_sequence) {
                return Err(self.corrupt(record.offset, "block", &"maximum sequence differs from the index"));
            }
            entries += shape.count as u64;
        }
        if entries != self.reference.entries {
            return Err(self.corrupt(0, "run", &"entries differ from the reference"));
        }
        Ok(())
    }

    /// What of the run has a checksum: every block and the meta section, which is read for that.
    ///
    /// # Errors
    /// Device errors and damage of the meta section.
    pub fn checksummed(self: &Arc<Self>) -> Result<Vec<Checksummed>, DmuError> {
        let guard = self.meta()?;
        let mut units = Vec::new();
        if let Some(meta) = &*guard {
            units.extend((0..meta.blocks()).map(|index| {
                let BlockRecord { offset, stored_len, crc, .. } = *meta.record(index);
                Checksummed { offset, length: u64::from(stored_len), checksum: crc }
            }));
        }
        units.push(self.checksummed_meta());
        Ok(units)
    }

    /// The meta section as something with a checksum.
    #[must_use]
    pub fn checksummed_meta(&self) -> Checksummed {
        let RunRef { meta_offset, meta_len, meta_crc, .. } = self.reference;
        Checksummed { offset: meta_offset, length: u64::from(meta_len), checksum: meta_crc }
    }

    /// The meta section, from memory or the device; never empty.
    #[inline]
    pub(super) fn meta(self: &Arc<Self>) -> Result<MetaGuard, DmuError> {
        let guard = self.meta.load();
        if let Some(meta) = &*guard {
            meta.heat.touch();
            return Ok(guard);
        }
        self.load_meta().map(|meta| Guard::from_inner(Some(meta)))
    }

    #[cold]
    fn load_meta(self: &Arc<Self>) -> Result<Arc<Meta>, DmuError> {
        self.dmu.cache().record_miss();
        let (offset, len) = (self.reference.meta_offset, self.reference.meta_len as usize);
        let wanted = self.reference.meta_crc;
        let (bytes, at, right) = self.read_checked(offset, len, &|bytes| crc(bytes) == wanted)?;
        let range = at..at + len;
        if !right {
            return Err(self.corrupt(offset, "meta section of a run", &"checksum does not match"));
        }
        let meta = Meta::decode(bytes, range, offset, self.dmu.cache())
            .map_err(|error| self.corrupt(offset, "meta section of a run", &error))?;
        let deletes = meta.range_deletes().list().len();
        if meta.blocks() != self.reference.blocks as usize || deletes != self.reference.range_deletes as usize
        {
            return Err(self.corrupt(offset, "meta section of a run", &"counts differ from the reference"));
        }
        Ok(self.install_meta(Arc::new(meta), Admission::Probation))
    }

    /// Makes `new` resident, unless another thread was faster; returns what is resident then.
    pub(super) fn install_meta(self: &Arc<Self>, new: Arc<Meta>, admission: Admission) -> Arc<Meta> {
        let none: Option<Arc<Meta>> = None;
        let before = self.meta.compare_and_swap(&none, Some(Arc::clone(&new)));
        if let Some(other) = Guard::into_inner(before) {
            return other;
        }
        let this: Arc<dyn Evictable> = Arc::clone(self) as Arc<dyn Evictable>;
        let owner = Arc::downgrade(&this);
        self.dmu.cache().insert(owner, 0, new.footprint(), self.identity(BLOCKS_MAX), admission);
        new
    }

    /// The block, from memory or the device; never empty.
    #[inline]
    pub(super) fn block(
        self: &Arc<Self>,
        meta: &Arc<Meta>,
        index: usize,
        admission: Admission,
    ) -> Result<BlockGuard, DmuError> {
        let guard = meta.resident(index);
        if let Some(block) = &*guard {
            block.heat.touch();
            self.dmu.cache().record_hit();
            return Ok(guard);
        }
        self.load_block(meta, index, admission).map(|block| Guard::from_inner(Some(block)))
    }

    #[cold]
    fn load_block(
        self: &Arc<Self>,
        meta: &Arc<Meta>,
        index: usize,
        admission: Admission,
    ) -> Result<Arc<Block>, DmuError> {
        if self.dmu.cache().room() > FILL_ROOM_BYTES_MIN {
            let last = self.missing_until(meta, index, FILL_BYTES / 2);
            let first = self.missing_from(meta, index, FILL_BYTES / 2);
            return self.load_blocks(meta, index, first..last + 1, admission);
        }
        self.dmu.cache().record_miss();
        let record = meta.record(index);
        // Room is made before the frame exists.
        let charge = self.dmu.cache().charge(footprint(record.raw_len as usize));
        let (bytes, shape) = self.read_block(record)?;
        let block = Arc::new(Block::new(bytes, shape, charge));
        Ok(self.install_block(meta, index, block, admission))
    }

    /// As [`Run::block`] for a reader that goes on from there: brings up to `bytes_max` of the blocks behind `index`
    /// along in the same read.
    pub(super) fn block_and_next(
        self: &Arc<Self>,
        meta: &Arc<Meta>,
        index: usize,
        bytes_max: u64,
    ) -> Result<Arc<Block>, DmuError> {
        let guard = meta.resident(index);
        if let Some(block) = &*guard {
            block.heat.touch();
            self.dmu.cache().record_hit();
            return Ok(Arc::clone(block));
        }
        let last = self.missing_until(meta, index, bytes_max);
        self.load_blocks(meta, index, index..last + 1, Admission::Probation)
    }

    /// The last block of those that follow `index`, are not resident and end within `bytes_max` of its start.
    fn missing_until(&self, meta: &Meta, index: usize, bytes_max: u64) -> usize {
        let end = meta.record(index).offset + bytes_max;
        let fits = |block: &usize| meta.record(*block).end() <= end && meta.resident(*block).is_none();
        (index + 1..meta.blocks()).take_while(fits).last().unwrap_or(index)
    }

    /// The first block of those that lead up to `index`, are not resident and start within `bytes_max` of it.
    fn missing_from(&self, meta: &Meta, index: usize, bytes_max: u64) -> usize {
        let start = meta.record(index).offset.saturating_sub(bytes_max);
        let fits = |block: &usize| meta.record(*block).offset >= start && meta.resident(*block).is_none();
        (0..index).rev().take_while(fits).last().unwrap_or(index)
    }

    /// Reads `blocks` in one go, makes them resident and returns block `index`. Damage of another one is left to who
    /// needs that.
    fn load_blocks(
        self: &Arc<Self>,
        meta: &Arc<Meta>,
        index: usize,
        blocks: std::ops::Range<usize>,
        admission: Admission,
    ) -> Result<Arc<Block>, DmuError> {
        self.dmu.cache().record_miss();
        let offset = meta.record(blocks.start).offset;
        let len = (meta.record(blocks.end - 1).end() - offset) as usize;
        let (window, start, reading) = self.read_window(offset, len)?;
        let mut wanted = None;
        for block in blocks {
            let record = meta.record(block);
            let at = start + (record.offset - offset) as usize;
            let charge = self.dmu.cache().charge(footprint(record.raw_len as usize));
            let mut frame = self.frame_of(&window[at..at + record.stored_len as usize], record);
            if frame.is_err() && block == index {
                frame = self.read_block(record);
            } else if frame.is_ok() && matches!(reading, Reading::Partial) {
                self.put_right(&window, at, record)?;
            }
            match frame {
                Ok((bytes, shape)) => {
                    let new = Arc::new(Block::new(bytes, shape, charge));
                    let resident = self.install_block(meta, block, new, admission);
                    if block == index {
                        wanted = Some(resident);
                    }
                }
                Err(error) if block == index => return Err(error),
                Err(_) => {}
            }
        }
        wanted.ok_or_else(|| self.corrupt(offset, "block of a run", &"it is not among those that were read"))
    }

    /// The checked block of `stored` bytes in a frame of its own.
    fn frame_of(&self, stored: &[u8], record: &BlockRecord) -> Result<(AlignedBuffer, Shape), DmuError> {
        self.check_stored(stored, record)?;
        let bytes = match record.codec {
            Codec::None => AlignedBuffer::copy_of(stored),
            _ => self.decompress(stored, record)?,
        };
        let shape = self.check_raw(&bytes, 0, record)?;
        Ok((bytes, shape))
    }

    /// Makes `new` resident, unless another thread was faster; returns what is resident then.
    fn install_block(
        &self,
        meta: &Arc<Meta>,
        index: usize,
        new: Arc<Block>,
        admission: Admission,
    ) -> Arc<Block> {
        if let Some(other) = meta.install(index, &new) {
            return other;
        }
        self.enter_cache(meta, index, new.footprint(), admission);
        new
    }

    /// Puts a block that is resident, of `footprint` bytes, under the rule of the cache.
    pub(super) fn enter_cache(&self, meta: &Arc<Meta>, index: usize, footprint: usize, admission: Admission) {
        let owner: Weak<dyn Evictable> = Arc::downgrade(meta) as Weak<dyn Evictable>;
        self.dmu.cache().insert(owner, index as u32, footprint, self.identity(index), admission);
    }

    /// Reads and checks one block; the buffer has no more footprint than the raw block needs.
    pub(super) fn read_block(&self, record: &BlockRecord) -> Result<(AlignedBuffer, Shape), DmuError> {
        let stored = record.stored_len as usize;
        let is_right = |bytes: &[u8]| self.check_stored(bytes, record).is_ok();
        let (mut bytes, mut at, right) = self.read_checked(record.offset, stored, &is_right)?;
        if !right {
            self.check_stored(&bytes[at..at + stored], record)?;
        }
        let raw = record.raw_len as usize;
        if record.codec != Codec::None {
            bytes = self.decompress(&bytes[at..at + stored], record)?;
            at = 0;
        } else if bytes.capacity() > footprint(raw) {
            bytes = AlignedBuffer::copy_of(&bytes[at..at + stored]);
            at = 0;
        }
        let shape = self.check_raw(&bytes, at, record)?;
        Ok((bytes, shape))
    }

    pub(super) fn check_stored(&self, stored: &[u8], record: &BlockRecord) -> Result<(), DmuError> {
        if crc(stored) == record.crc || planted(Bug::SkipChecksum) {
            return Ok(());
        }
        Err(self.corrupt(record.offset, "block of a run", &"checksum does not match"))
    }

    pub(super) fn decompress(&self, stored: &[u8], record: &BlockRecord) -> Result<AlignedBuffer, DmuError> {
        let mut raw = AlignedBuffer::recycled(record.raw_len as usize);
        match record.codec.decompress(stored, &mut raw) {
            Ok(()) => Ok(raw),
            Err(error) => Err(self.corrupt(record.offset, "block of a run", &error)),
        }
    }

    /// Checks the raw block at `at` of `bytes`.
    pub(super) fn check_raw(&self, bytes: &[u8], at: usize, record: &BlockRecord) -> Result<Shape, DmuError> {
        let shape = Shape::check(bytes, at..at + record.raw_len as usize)
            .map_err(|error| self.corrupt(record.offset, "block of a run", &error))?;
        if shape.count != record.count as usize {
            return Err(self.corrupt(record.offset, "block of a run", &"count differs from the index"));
        }
        Ok(shape)
    }

    /// Reads the whole blocks around `len` bytes from byte `offset`, and says where in the buffer these start.
    fn read_window(&self, offset: u64, len: usize) -> Result<(AlignedBuffer, usize, Reading), DmuError> {
        let at = (offset % BLOCK_BYTES_U64) as usize;
        let window = (at + len).next_multiple_of(BLOCK_BYTES);
        let extents = self.reference.extents.extents();
        let (bytes, reading) = self.dmu.read_doubtful(extents, offset - at as u64, window)?;
        Ok((bytes, at, reading))
    }

    /// As [`Run::read_window`], of bytes that can be told to be right, wherever that is; whether they are.
    fn read_checked(
        &self,
        offset: u64,
        len: usize,
        is_right: &dyn Fn(&[u8]) -> bool,
    ) -> Result<(AlignedBuffer, usize, bool), DmuError> {
        let at = (offset % BLOCK_BYTES_U64) as usize;
        let window = (at + len).next_multiple_of(BLOCK_BYTES);
        let (extents, verified) = (self.reference.extents.extents(), at..at + len);
        let mut is_right = |bytes: &[u8]| is_right(&bytes[at..at + len]);
        let (bytes, right) =
            self.dmu.read_checked(extents, offset - at as u64, window, verified, &mut is_right)?;
        Ok((bytes, at, right))
    }

    /// Repairs what a member could not give of the block that is at `at` of `window` and was found right.
    #[cold]
    pub(super) fn put_right(&self, window: &[u8], at: usize, record: &BlockRecord) -> Result<(), DmuError> {
        let end = at + record.stored_len as usize;
        let (first, last) = (at / BLOCK_BYTES * BLOCK_BYTES, end.next_multiple_of(BLOCK_BYTES));
        let offset = record.offset - record.offset % BLOCK_BYTES_U64;
        let verified = at - first..end - first;
        self.dmu.put_right(self.reference.extents.extents(), offset, &window[first..last], &verified)
    }

    /// The error for damage at byte `offset` of the run.
    #[cold]
    pub(super) fn corrupt(&self, offset: u64, what: &'static str, reason: &dyn Display) -> DmuError {
        corrupt(&self.dmu, self.reference.extents.extents(), offset, what, reason)
    }

    fn identity(&self, slot: usize) -> u64 {
        let place =
            self.reference.extents.extents().first().map_or(0, |e| e.block ^ u64::from(e.vdev.0) << 48);
        place.wrapping_mul(0xff51_afd7_ed55_8ccd).wrapping_add(slot as u64)
    }
}

impl Evictable for Run {
    fn evict(&self, _slot: u32) -> bool {
        self.meta.store(None);
        true
    }

    fn take_reference(&self, _slot: u32) -> bool {
        self.meta.load().as_ref().is_some_and(|meta| meta.heat.take())
    }
}

fn corrupt(dmu: &Dmu, extents: &[Extent], offset: u64, what: &'static str, reason: &dyn Display) -> DmuError {
    let (device, block) = dmu.named_block_at(extents, offset);
    DmuError::Corrupt { what, device, block, reason: reason.to_string() }
}
