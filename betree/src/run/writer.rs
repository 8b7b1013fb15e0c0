//! Writing a run: blocks as they fill, then the meta section.

use super::block::{Block, BlockBuilder, common_prefix};
use super::entry::{EntryRef, Kind, RangeDelete};
use super::format::{
    BLOCK_RAW_BYTES_MAX, BlockRecord, FILTER_LINE_BYTES, KEY_BYTES_MAX, META_ALIGNMENT, MetaParts,
    PAYLOAD_BYTES_MAX, RunRef, Shape, encode_meta, filter_add, filter_lines,
};
use super::meta::Meta;
use super::range_deletes::RangeDeleteSet;
use super::run::{Run, key_hash};
use crate::base::buffer::AlignedBuffer;
use crate::base::checksum::crc;
use crate::base::compression::{Codec, Compression};
use crate::base::extent::Extent;
use crate::base::ids::{DatasetId, Generation};
use crate::base::preference::StoragePreference;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64, blocks_for};
use crate::dmu::{Admission, Dmu, DmuError, Privilege, StoredExtents, Stream, WriteBatch};
use std::sync::Arc;

/// Bytes of a write: large enough that a device is at full speed.
const OUT_BYTES: usize = 512 << 10;
/// Blocks that are asked for at once when more is expected: a read-ahead window should not cross extents often.
const CHUNK_BLOCKS_MAX: u64 = (8 << 20) / BLOCK_BYTES_U64;
/// Blocks that are asked for when nobody knows how much will come.
const CHUNK_BLOCKS_MIN: u64 = (512 << 10) / BLOCK_BYTES_U64;

/// How a run is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunOptions {
    /// Bytes of a raw block at most, but for an entry that is larger; a multiple of 4096 up to 1 MiB.
    pub block_bytes: usize,
    /// How blocks are compressed.
    pub compression: Compression,
    /// Bits of the filter per key; 0 for no filter.
    pub filter_bits: u8,
    /// What the run dies together with.
    pub stream: Stream,
    /// Where it should be.
    pub preference: StoragePreference,
    /// How deep into the reserve it may reach.
    pub privilege: Privilege,
    /// The dataset that writes it.
    pub origin: DatasetId,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            block_bytes: 16 << 10,
            compression: Compression::None,
            filter_bits: 16,
            stream: Stream::Delta,
            preference: StoragePreference::NONE,
            privilege: Privilege::User,
            origin: DatasetId(0),
        }
    }
}

/// Says of a block's first key whether the block goes to the cache.
pub type BlockTest = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// Which blocks go to the cache as they are written.
///
/// Merges replace blocks that readers use: without the heat of what it replaces, a merge's output would have to be read
/// from the device again at once.
#[derive(Default)]
pub enum HeatOfBlocks {
    /// None.
    #[default]
    Cold,
    /// All of them (up to an eighth of the cache).
    Hot,
    /// Those for whose first key the function says so (see [`Run::is_resident`]), up to an eighth of the cache.
    Where(BlockTest),
}

/// Writes one run. Dropping it unfinished gives back all that it allocated.
pub struct RunWriter {
    dmu: Dmu,
    options: RunOptions,
    heat: HeatOfBlocks,
    block: BlockBuilder,
    index: IndexBuilder,
    range_deletes: Vec<RangeDelete>,
    hashes: Vec<u64>,
    facts: Facts,
    output: Output,
    scratch: Vec<u8>,
    /// Blocks for the cache: number, frame, shape.
    admitted: Vec<(usize, AlignedBuffer, Shape)>,
    admitted_bytes: usize,
}

/// A run of which parts may still be on their way to the device. Dropping it waits for them and gives back all of it.
pub struct PendingRun {
    /// In front of the run, whose blocks nobody else may get before.
    writes: Option<WriteBatch>,
    run: Arc<Run>,
}

impl PendingRun {
    /// Waits until the run is written (not flushed).
    ///
    /// # Errors
    /// Device errors; all that was allocated is given back then.
    pub fn wait(self) -> Result<Arc<Run>, DmuError> {
        if let Some(writes) = self.writes {
            writes.finish()?;
        }
        Ok(self.run)
    }
}

impl std::fmt::Debug for PendingRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingRun").field("run", &self.run).finish_non_exhaustive()
    }
}

/// What the reference will say of the entries.
#[derive(Debug, Default)]
struct Facts {
    raw_bytes: u64,
    large_bytes: u64,
    entries: u64,
    deletes: u64,
    upsert_bytes: u64,
    min_sequence: u64,
    max_sequence: u64,
}

/// Block records and separators, as blocks are finished.
#[derive(Debug, Default)]
struct IndexBuilder {
    records: Vec<BlockRecord>,
    /// Separators with the common prefix; the first block's is empty.
    separators: Vec<u8>,
    first_key: Vec<u8>,
    /// Last key and sequence number of the last block.
    last_key: Vec<u8>,
    last_sequence: u64,
}

impl IndexBuilder {
    /// Adds the block in `block`; `stored` says where and how it was stored.
    fn push(&mut self, block: &BlockBuilder, stored: &Stored) {
        let first = block.first_key();
        let mut continued = false;
        if self.records.is_empty() {
            self.first_key.extend_from_slice(first);
        } else {
            continued = first == self.last_key;
            let len = if continued { first.len() } else { common_prefix(first, &self.last_key) + 1 };
            self.separators.extend_from_slice(&first[..len]);
        }
        self.records.push(BlockRecord {
            offset: stored.offset,
            max_sequence: block.max_sequence(),
            stored_len: stored.stored_len as u32,
            raw_len: stored.raw_len as u32,
            crc: stored.crc,
            count: block.count() as u32,
            separator_end: self.separators.len() as u32,
            codec: stored.codec,
            continued,
        });
        self.last_key.clear();
        self.last_key.extend_from_slice(block.last_key());
        self.last_sequence = block.last_sequence();
    }

    /// Cuts the prefix that all keys share off the separators, and returns its length.
    fn strip(&mut self) -> usize {
        let prefix = common_prefix(&self.first_key, &self.last_key);
        let mut stripped = Vec::with_capacity(self.separators.len());
        let mut start = 0;
        for record in &mut self.records {
            let end = record.separator_end as usize;
            // The first separator is empty; all others are longer than what all keys share, or are such a key.
            stripped.extend_from_slice(self.separators[start..end].get(prefix..).unwrap_or_default());
            record.separator_end = stripped.len() as u32;
            start = end;
        }
        self.separators = stripped;
        prefix
    }
}

struct Stored {
    offset: u64,
    stored_len: usize,
    raw_len: usize,
    crc: u32,
    codec: Codec,
}

impl RunWriter {
    /// A writer of a run of about `expected_bytes` stored bytes (0: unknown). Nothing is allocated yet.
    ///
    /// # Panics
    /// When `options.block_bytes` is not a multiple of 4096 between 4096 and 1 MiB.
    #[must_use]
    pub fn new(dmu: &Dmu, options: RunOptions, expected_bytes: u64) -> Self {
        let block_bytes = options.block_bytes;
        assert!(block_bytes.is_multiple_of(BLOCK_BYTES) && (BLOCK_BYTES..=1 << 20).contains(&block_bytes));
        Self {
            dmu: dmu.clone(),
            options,
            heat: HeatOfBlocks::Cold,
            block: BlockBuilder::default(),
            index: IndexBuilder::default(),
            range_deletes: Vec::new(),
            hashes: Vec::new(),
            facts: Facts { min_sequence: u64::MAX, ..Facts::default() },
            output: Output::new(dmu, options, expected_bytes),
            scratch: Vec::new(),
            admitted: Vec::new(),
            admitted_bytes: 0,
        }
    }

    /// Says which blocks go to the cache; none until this is called.
    pub fn set_heat(&mut self, heat: HeatOfBlocks) {
        self.heat = heat;
    }

    /// Adds the next entry: keys ascending, sequence numbers descending within a key.
    ///
    /// # Errors
    /// [`DmuError::Corrupt`] when it is not behind the entry before (which comes from a device); errors of allocation.
    ///
    /// # Panics
    /// When the key is longer than [`KEY_BYTES_MAX`] or the payload longer than [`PAYLOAD_BYTES_MAX`].
    pub fn add(&mut self, entry: EntryRef<'_>) -> Result<(), DmuError> {
        assert!(entry.key.len() <= KEY_BYTES_MAX && entry.payload.len() <= PAYLOAD_BYTES_MAX);
        let new_key = self.check_order(&entry)?;
        if !self.block.add(&entry, self.options.block_bytes) {
            self.cut()?;
            self.block.add(&entry, self.options.block_bytes);
        }
        if new_key && self.options.filter_bits > 0 {
            self.hashes.push(key_hash(entry.key));
        }
        self.facts.entries += 1;
        self.facts.deletes += u64::from(entry.kind == Kind::Delete);
        self.facts.upsert_bytes += if entry.kind == Kind::Upsert { entry.payload.len() as u64 } else { 0 };
        self.facts.min_sequence = self.facts.min_sequence.min(entry.sequence);
        self.facts.max_sequence = self.facts.max_sequence.max(entry.sequence);
        Ok(())
    }

    /// Whether `entry` has another key than the one before.
    fn check_order(&self, entry: &EntryRef<'_>) -> Result<bool, DmuError> {
        let (last_key, last_sequence) = match (self.block.is_empty(), self.facts.entries) {
            (false, _) => (self.block.last_key(), self.block.last_sequence()),
            (true, 0) => return Ok(true),
            (true, _) => (self.index.last_key.as_slice(), self.index.last_sequence),
        };
        match last_key.cmp(entry.key) {
            std::cmp::Ordering::Less => Ok(true),
            std::cmp::Ordering::Equal if last_sequence > entry.sequence => Ok(false),
            _ => Err(DmuError::Corrupt {
                what: "order of the entries of a run",
                device: String::from("none"),
                block: 0,
                reason: format!("sequence {} is not behind the entry before", entry.sequence),
            }),
        }
    }

    /// Adds a range delete, in any order; nothing when its range is empty.
    ///
    /// # Panics
    /// When a bound is longer than [`KEY_BYTES_MAX`].
    pub fn add_range_delete(&mut self, delete: RangeDelete) {
        let end_len = delete.end.as_ref().map_or(0, |end| end.len());
        assert!(delete.start.len().max(end_len) <= KEY_BYTES_MAX);
        if delete.end.as_ref().is_some_and(|end| **end <= *delete.start) {
            return;
        }
        self.facts.min_sequence = self.facts.min_sequence.min(delete.sequence);
        self.facts.max_sequence = self.facts.max_sequence.max(delete.sequence);
        self.range_deletes.push(delete);
    }

    /// Counts `bytes` of a large value that an entry just added names.
    pub fn add_large_bytes(&mut self, bytes: u64) {
        self.facts.large_bytes += bytes;
    }

    /// Bytes that the run has so far, without its meta section.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.output.position() + self.block.bound() as u64
    }

    /// Entries added so far.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.facts.entries
    }

    /// Finishes the run: all of it is written (not flushed). `None` when nothing was added.
    ///
    /// # Errors
    /// Device errors and errors of allocation; all that was allocated is given back then.
    pub fn finish(self) -> Result<Option<Arc<Run>>, DmuError> {
        self.end()?.map(PendingRun::wait).transpose()
    }

    /// As [`RunWriter::finish`], without waiting for what is still to be written: who writes several runs has the device busy
    /// all the time. Nobody may read the run before [`PendingRun::wait`].
    ///
    /// # Errors
    /// As [`RunWriter::finish`].
    pub fn end(mut self) -> Result<Option<PendingRun>, DmuError> {
        if self.facts.entries == 0 && self.range_deletes.is_empty() {
            return Ok(None);
        }
        if !self.block.is_empty() {
            self.cut()?;
        }
        let deletes = RangeDeleteSet::new(std::mem::take(&mut self.range_deletes));
        let meta = self.encode_meta(deletes.list());
        self.output.pad_to(META_ALIGNMENT)?;
        let meta_offset = self.output.position();
        self.output.append(&meta)?;
        let (extents, writes) = self.output.finish()?;
        let hull = deletes.hull().map(|(start, end)| (start.into(), end.map(Into::into)));
        let index = &self.index;
        let reference = RunRef {
            extents,
            meta_offset,
            meta_len: meta.len() as u32,
            meta_crc: crc(&meta),
            blocks: index.records.len() as u32,
            raw_bytes: self.facts.raw_bytes,
            large_bytes: self.facts.large_bytes,
            entries: self.facts.entries,
            deletes: self.facts.deletes,
            upsert_bytes: self.facts.upsert_bytes,
            range_deletes: deletes.list().len() as u32,
            min_sequence: self.facts.min_sequence,
            max_sequence: self.facts.max_sequence,
            birth: Generation(0),
            origin: self.options.origin,
            preference: self.options.preference,
            keys: (self.facts.entries > 0)
                .then(|| (index.first_key.as_slice().into(), index.last_key.as_slice().into())),
            hull,
        };
        let pending = PendingRun { writes, run: Run::open(&self.dmu, reference) };
        self.warm(&pending.run, &meta, meta_offset);
        Ok(Some(pending))
    }

    fn encode_meta(&mut self, range_deletes: &[RangeDelete]) -> Vec<u8> {
        let prefix = self.index.strip();
        let mut filter = Vec::new();
        if !self.hashes.is_empty() {
            filter = vec![0; filter_lines(self.hashes.len(), self.options.filter_bits) * FILTER_LINE_BYTES];
            self.hashes.iter().for_each(|hash| filter_add(&mut filter, *hash));
        }
        encode_meta(&MetaParts {
            records: &self.index.records,
            prefix: &self.index.first_key[..prefix],
            separators: &self.index.separators,
            filter: &filter,
            range_deletes,
        })
    }

    /// Puts the meta section and the admitted blocks into the cache.
    fn warm(&mut self, run: &Arc<Run>, meta: &[u8], meta_offset: u64) {
        let bytes = AlignedBuffer::copy_of(meta);
        let decoded = Meta::decode(bytes, 0..meta.len(), meta_offset, self.dmu.cache());
        debug_assert!(decoded.is_ok(), "what was just encoded: {decoded:?}");
        let Ok(mut decoded) = decoded else { return };
        let mut footprints = Vec::with_capacity(self.admitted.len());
        for (index, bytes, shape) in self.admitted.drain(..) {
            let charge = self.dmu.cache().charge(bytes.capacity());
            let block = Block::new(bytes, shape, charge);
            footprints.push((index, block.footprint()));
            decoded.place(index, Arc::new(block));
        }
        let meta = run.install_meta(Arc::new(decoded), Admission::Probation);
        for (index, footprint) in footprints {
            run.enter_cache(&meta, index, footprint, Admission::Proven);
        }
    }

    /// Writes the block that is being filled.
    fn cut(&mut self) -> Result<(), DmuError> {
        let bound = self.block.bound();
        let admit = self.admits();
        let mut frame = None;
        let stored = if self.options.compression == Compression::None && self.output.room() >= bound {
            let offset = self.output.position();
            let space = self.output.space(bound);
            let len = self.block.encode(space);
            if admit {
                frame = Some(AlignedBuffer::copy_of(&space[..len]));
            }
            let crc = crc(&space[..len]);
            self.output.advance(len)?;
            Stored { offset, stored_len: len, raw_len: len, crc, codec: Codec::None }
        } else {
            self.scratch.resize(bound.max(self.scratch.len()), 0);
            let len = self.block.encode(&mut self.scratch);
            let raw = &self.scratch[..len];
            if admit {
                frame = Some(AlignedBuffer::copy_of(raw));
            }
            let compressed = self.options.compression.compress(raw);
            let (codec, bytes) = compressed.as_ref().map_or((Codec::None, raw), |(codec, out)| (*codec, out));
            let offset = self.output.position();
            self.output.append(bytes)?;
            Stored { offset, stored_len: bytes.len(), raw_len: len, crc: crc(bytes), codec }
        };
        debug_assert!(stored.raw_len <= BLOCK_RAW_BYTES_MAX && stored.raw_len <= bound);
        if stored.codec == Codec::None {
            // Keep blocks aligned where that costs at most an eighth.
            let padding = self.output.position().next_multiple_of(BLOCK_BYTES_U64) - self.output.position();
            if padding as usize * 8 <= stored.stored_len {
                self.output.pad_to(BLOCK_BYTES_U64)?;
            }
        }
        if let Some(bytes) = frame
            && let Ok(shape) = Shape::check(&bytes, 0..stored.raw_len)
        {
            self.admitted_bytes += bytes.capacity();
            self.admitted.push((self.index.records.len(), bytes, shape));
        }
        self.facts.raw_bytes += stored.raw_len as u64;
        self.index.push(&self.block, &stored);
        self.block.clear();
        Ok(())
    }

    fn admits(&mut self) -> bool {
        if self.admitted_bytes >= self.dmu.cache().bytes_max() / 8 {
            return false;
        }
        match &mut self.heat {
            HeatOfBlocks::Cold => false,
            HeatOfBlocks::Hot => true,
            HeatOfBlocks::Where(is_hot) => is_hot(self.block.first_key()),
        }
    }
}

impl std::fmt::Debug for RunWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunWriter").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// A growing sequence of bytes in extents, written in the background in large pieces.
struct Output {
    dmu: Dmu,
    stream: Stream,
    preference: StoragePreference,
    privilege: Privilege,
    /// Blocks expected in all.
    expected: u64,
    extents: Vec<Extent>,
    batch: Option<WriteBatch>,
    /// Bytes given to `batch`; a multiple of [`OUT_BYTES`].
    written: u64,
    buffer: Option<AlignedBuffer>,
    filled: usize,
}

impl Output {
    fn new(dmu: &Dmu, options: RunOptions, expected_bytes: u64) -> Self {
        Self {
            dmu: dmu.clone(),
            stream: options.stream,
            preference: options.preference,
            privilege: options.privilege,
            expected: blocks_for(expected_bytes),
            extents: Vec::new(),
            batch: None,
            written: 0,
            buffer: None,
            filled: 0,
        }
    }

    fn position(&self) -> u64 {
        self.written + self.filled as u64
    }

    /// Bytes that fit before the buffer is written.
    fn room(&self) -> usize {
        OUT_BYTES - self.filled
    }

    /// The next `len` bytes, at most [`Output::room`]; [`Output::advance`] makes them count.
    fn space(&mut self, len: usize) -> &mut [u8] {
        let filled = self.filled;
        &mut self.buffer.get_or_insert_with(|| AlignedBuffer::recycled(OUT_BYTES))[filled..filled + len]
    }

    fn advance(&mut self, len: usize) -> Result<(), DmuError> {
        self.filled += len;
        if self.filled == OUT_BYTES { self.submit() } else { Ok(()) }
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<(), DmuError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.room()));
            self.space(now.len()).copy_from_slice(now);
            self.advance(now.len())?;
            bytes = later;
        }
        Ok(())
    }

    /// Appends zeros up to a multiple of `alignment`, which divides [`OUT_BYTES`].
    fn pad_to(&mut self, alignment: u64) -> Result<(), DmuError> {
        let padding = (self.position().next_multiple_of(alignment) - self.position()) as usize;
        self.space(padding).fill(0);
        self.advance(padding)
    }

    /// Gives the buffer, whole blocks, to the background.
    fn submit(&mut self) -> Result<(), DmuError> {
        let Some(mut buffer) = self.buffer.take() else { return Ok(()) };
        self.allocate(blocks_for(self.position()))?;
        buffer.truncate(self.filled);
        let batch = self.batch.get_or_insert_with(|| self.dmu.write_batch());
        batch.submit(&self.extents, self.written, buffer);
        self.written += self.filled as u64;
        self.filled = 0;
        Ok(())
    }

    /// Allocates until there are `wanted` blocks, and more when more is expected.
    fn allocate(&mut self, wanted: u64) -> Result<(), DmuError> {
        loop {
            let have = self.dmu.data_blocks(&self.extents);
            if have >= wanted {
                return Ok(());
            }
            let ahead = self.expected.saturating_sub(have).min(CHUNK_BLOCKS_MAX);
            let least = (wanted - have).min(CHUNK_BLOCKS_MAX);
            let mut blocks = if ahead > 0 { ahead.max(least) } else { least.max(CHUNK_BLOCKS_MIN) };
            let got = loop {
                match self.dmu.allocate(self.stream, self.preference, blocks as u32, self.privilege) {
                    Err(DmuError::OutOfSpace { .. }) if blocks > least => blocks = (blocks / 2).max(least),
                    other => break other?,
                }
            };
            got.into_iter().for_each(|extent| self.dmu.join(&mut self.extents, extent));
        }
    }

    /// Gives what is left to the background, gives back what is not used, and hands over the extents and the writes.
    fn finish(&mut self) -> Result<(StoredExtents, Option<WriteBatch>), DmuError> {
        let used = blocks_for(self.position());
        // Do not ask for more than is left.
        self.expected = used;
        if self.filled > 0 {
            self.pad_to(BLOCK_BYTES_U64)?;
            self.submit()?;
        }
        let tail = self.dmu.cut(&mut self.extents, used);
        self.dmu.release(&tail);
        if let Some(batch) = &mut self.batch {
            batch.end(&self.extents);
        }
        let stored = self.dmu.store_extents(self.extents.clone(), self.preference)?;
        self.extents.clear();
        Ok((stored, self.batch.take()))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take()
            && let Err(error) = batch.finish()
        {
            log::warn!("a run that is given up was not written: {error}");
        }
        if !self.extents.is_empty() {
            self.dmu.release(&self.extents);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::codec::Encoder;
    use crate::base::extent::total_blocks;
    use crate::run::testing::{Entry, Keys, Random, entries, memory};
    use crate::run::{EntryCursor, ReadMode, RunCursor};

    fn free(dmu: &Dmu) -> u64 {
        dmu.space()[0].free
    }

    #[test]
    fn a_run_in_many_pieces_has_a_list_of_extents() {
        let (dmu, _devices) = memory(&[8 << 10], 1 << 20);
        let before = free(&dmu);
        let model = entries(&mut Random(1), 30_000, Keys::Random);
        let mut writer = RunWriter::new(&dmu, RunOptions::default(), 0);
        // Every other block of a free range: the writer takes these first.
        let mut gaps = Vec::new();
        for _ in 0..1200 {
            let two = dmu.allocate(Stream::Base, StoragePreference::NONE, 2, Privilege::User).unwrap();
            writer.output.extents.push(Extent { blocks: 1, ..two[0] });
            gaps.push(Extent { block: two[0].block + 1, blocks: 1, ..two[0] });
        }
        model.iter().for_each(|entry| writer.add(entry.borrow()).unwrap());
        let run = writer.finish().unwrap().unwrap();
        let pieces = run.reference().extents.extents().len();
        assert_eq!(pieces as u64, blocks_for(run.reference().stored_bytes()));
        assert!(pieces > 255 && run.space().extents().len() > pieces);
        dmu.release(&gaps);
        assert_eq!(before - free(&dmu), total_blocks(run.space().extents()));

        let mut out = Encoder::new();
        RunRef { birth: Generation(1), ..run.reference().clone() }.encode(&mut out);
        let again = Run::from_reference(&dmu, out.as_slice()).unwrap();
        assert_eq!(again.space().extents(), run.space().extents());
        let mut cursor = RunCursor::new(again, ReadMode::Merge);
        cursor.seek(&[]).unwrap();
        for entry in &model {
            assert_eq!(cursor.entry().map(Entry::of).as_ref(), Some(entry));
            cursor.next().unwrap();
        }
        assert!(cursor.entry().is_none());
        drop(run);
        assert_eq!(free(&dmu), before);
    }

    #[test]
    fn what_is_not_used_is_given_back() {
        let (dmu, _devices) = memory(&[8 << 10], 1 << 20);
        let before = free(&dmu);
        let model = entries(&mut Random(1), 20_000, Keys::Random);
        for expected in [0, 100, 8 << 20, 1 << 40] {
            let mut writer = RunWriter::new(&dmu, RunOptions::default(), expected);
            model.iter().for_each(|entry| writer.add(entry.borrow()).unwrap());
            assert!(free(&dmu) < before);
            drop(writer);
            assert_eq!(free(&dmu), before);
            let mut writer = RunWriter::new(&dmu, RunOptions::default(), expected);
            model.iter().for_each(|entry| writer.add(entry.borrow()).unwrap());
            let run = writer.finish().unwrap().unwrap();
            assert_eq!(before - free(&dmu), blocks_for(run.reference().stored_bytes()));
            assert!(run.reference().extents.extents().len() <= 3);
        }
        assert_eq!(free(&dmu), before);
    }

    #[test]
    fn a_full_pool_is_an_error_and_keeps_nothing() {
        let (dmu, _devices) = memory(&[2 << 10], 1 << 20);
        let before = free(&dmu);
        let model = entries(&mut Random(1), 200_000, Keys::Random);
        let mut writer = RunWriter::new(&dmu, RunOptions::default(), 0);
        let result = model.iter().try_for_each(|entry| writer.add(entry.borrow()));
        assert!(matches!(result, Err(DmuError::OutOfSpace { .. })));
        drop(writer);
        assert_eq!(free(&dmu), before);
    }
}
