//! A run as a checker and a salvage see it: read block by block, what is damaged named and passed over.

use super::entry::EntryRef;
use super::format::{
    BlockRecord, MetaLayout, MetaParts, RawEntry, Shape, decode_meta, encode_block, encode_meta,
    filter_contains, tag_kind, tag_preference,
};
use super::range_deletes::RangeDeleteSet;
use super::run::{Run, key_hash};
use crate::base::buffer::AlignedBuffer;
use crate::base::checksum::crc;
use crate::base::codec::DecodeError;
use crate::base::compression::Codec;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::dmu::DmuError;
use std::sync::Arc;

/// What is wrong with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunFault {
    /// The device does not read it.
    Unreadable,
    /// The bytes are not those that were written.
    Checksum,
    /// The bytes are not of the format.
    Decode,
    /// The bytes are not what the writer would have written for what they say.
    Canonical,
    /// Keys are not in order.
    Order,
    /// A key is outside of the bounds that the reference states.
    Bounds,
    /// A sequence number is outside of the bounds that reference or index state.
    Sequence,
    /// A count differs from the one that is recorded.
    Count,
    /// The filter denies a key that is there.
    Filter,
    /// A message is not one that can be.
    Kind,
}

/// One thing that is wrong with a run.
#[derive(Debug, Clone)]
pub(crate) struct RunFlaw {
    pub(crate) fault: RunFault,
    /// Bytes from the start of the run.
    pub(crate) offset: u64,
    pub(crate) expected: String,
    pub(crate) found: String,
}

fn flaw(fault: RunFault, offset: u64, expected: impl ToString, found: impl ToString) -> RunFlaw {
    RunFlaw { fault, offset, expected: expected.to_string(), found: found.to_string() }
}

fn of_device(offset: u64, error: &DmuError) -> RunFlaw {
    flaw(RunFault::Unreadable, offset, "bytes", error)
}

fn of_decode(offset: u64, error: &DecodeError) -> RunFlaw {
    let fault = if error.reason == "out of order" { RunFault::Order } else { RunFault::Decode };
    flaw(fault, offset, "bytes of the format", error)
}

/// Reads the blocks of a run one after the other.
#[derive(Debug)]
pub(crate) struct RunReader {
    run: Arc<Run>,
    meta: AlignedBuffer,
    start: usize,
    layout: MetaLayout,
    range_deletes: RangeDeleteSet,
    next: usize,
}

/// The entries of one block.
#[derive(Debug)]
pub(crate) struct BlockEntries {
    bytes: AlignedBuffer,
    shape: Shape,
}

impl BlockEntries {
    pub(crate) fn len(&self) -> usize {
        self.shape.count
    }

    /// Entry `index`, whose key is put together in `key`.
    pub(crate) fn entry<'a>(&'a self, index: usize, key: &'a mut Vec<u8>) -> EntryRef<'a> {
        let frame = self.shape.frame(&self.bytes, self.shape.offset(&self.bytes, index));
        key.clear();
        key.extend_from_slice(self.prefix());
        key.extend_from_slice(&self.bytes[frame.suffix..frame.payload]);
        EntryRef {
            key,
            sequence: frame.sequence,
            kind: tag_kind(frame.tag),
            preference: tag_preference(frame.tag),
            payload: &self.bytes[frame.payload..frame.end],
        }
    }

    fn prefix(&self) -> &[u8] {
        &self.bytes[self.shape.prefix..self.shape.prefix + self.shape.prefix_len]
    }

    /// The block as the writer writes it.
    fn encoded(&self, length: usize) -> Vec<u8> {
        // Above this bound offsets have four bytes.
        const NARROW_MAX: usize = u16::MAX as usize + 1;
        let bound = if self.shape.wide { length.max(NARROW_MAX + 1) } else { length };
        let mut out = vec![0; bound];
        let mut keys = Vec::with_capacity(self.shape.count);
        for index in 0..self.shape.count {
            let frame = self.shape.frame(&self.bytes, self.shape.offset(&self.bytes, index));
            let key = [self.prefix(), &self.bytes[frame.suffix..frame.payload]].concat();
            keys.push((key, frame));
        }
        let entries = keys.iter().map(|(key, frame)| RawEntry {
            key,
            sequence: frame.sequence,
            tag: frame.tag,
            payload: &self.bytes[frame.payload..frame.end],
        });
        let end = encode_block(&mut out, bound, self.prefix(), self.shape.base, entries);
        out.truncate(end);
        out
    }
}

impl RunReader {
    /// Reads the meta section of `run`.
    ///
    /// # Errors
    /// What is wrong with it: then nothing of the run can be read.
    pub(crate) fn new(run: &Arc<Run>) -> Result<Self, RunFlaw> {
        let reference = run.reference();
        let (offset, length) = (reference.meta_offset, reference.meta_len as usize);
        let (meta, start) = window(run, offset, length, reference.meta_crc)?;
        let bytes = &meta[start..start + length];
        if crc(bytes) != reference.meta_crc {
            let expected = format!("meta section with checksum {:08x}", reference.meta_crc);
            return Err(flaw(RunFault::Checksum, offset, expected, format!("{:08x}", crc(bytes))));
        }
        let layout = decode_meta(bytes, offset).map_err(|error| of_decode(offset, &error))?;
        let range_deletes = RangeDeleteSet::new(layout.range_deletes.clone());
        Ok(Self { run: Arc::clone(run), meta, start, layout, range_deletes, next: 0 })
    }

    pub(crate) fn range_deletes(&self) -> &RangeDeleteSet {
        &self.range_deletes
    }

    fn meta(&self) -> &[u8] {
        &self.meta[self.start..self.start + self.run.reference().meta_len as usize]
    }

    fn separator(&self, block: usize) -> Vec<u8> {
        let records = &self.layout.records;
        let start = if block == 0 { 0 } else { records[block - 1].separator_end as usize };
        let texts = &self.meta()[self.layout.separators.clone()];
        [&self.meta()[self.layout.prefix.clone()], &texts[start..records[block].separator_end as usize]]
            .concat()
    }

    /// Goes to the block in which the entries with keys of at least `key` start, or to one before it.
    pub(crate) fn seek(&mut self, key: &[u8]) {
        let (mut low, mut high) = (0, self.layout.records.len());
        while low < high {
            let middle = low + (high - low) / 2;
            // Equal: a block before may end with the same key.
            if self.separator(middle).as_slice() < key { low = middle + 1 } else { high = middle }
        }
        self.next = low.saturating_sub(1);
    }

    /// The next block; `None` at the end.
    pub(crate) fn next_block(&mut self) -> Option<Result<BlockEntries, RunFlaw>> {
        let record = *self.layout.records.get(self.next)?;
        self.next += 1;
        Some(self.read(&record))
    }

    fn read(&self, record: &BlockRecord) -> Result<BlockEntries, RunFlaw> {
        let stored = record.stored_len as usize;
        let (mut bytes, mut at) = window(&self.run, record.offset, stored, record.crc)?;
        let found = crc(&bytes[at..at + stored]);
        if found != record.crc {
            let expected = format!("block with checksum {:08x}", record.crc);
            return Err(flaw(RunFault::Checksum, record.offset, expected, format!("{found:08x}")));
        }
        if record.codec != Codec::None {
            bytes = self
                .run
                .decompress(&bytes[at..at + stored], record)
                .map_err(|error| flaw(RunFault::Decode, record.offset, "a block that unpacks", error))?;
            at = 0;
        }
        let shape = Shape::check(&bytes, at..at + record.raw_len as usize)
            .map_err(|error| of_decode(record.offset, &error))?;
        Ok(BlockEntries { bytes, shape })
    }

    /// Reads the whole run, hands its entries to `visit` and what is wrong to `report`. Returns whether every block could
    /// be read.
    pub(crate) fn check(
        &mut self,
        visit: &mut dyn FnMut(EntryRef<'_>),
        report: &mut dyn FnMut(RunFlaw),
    ) -> bool {
        self.check_meta(report);
        let mut totals = Totals::default();
        for index in 0..self.layout.records.len() {
            let record = self.layout.records[index];
            match self.read(&record) {
                Ok(block) => self.check_block(index, &record, &block, &mut totals, visit, report),
                Err(flaw) => {
                    totals.damaged = true;
                    totals.last = None;
                    report(flaw);
                }
            }
        }
        if !totals.damaged {
            self.check_totals(&totals, report);
        }
        !totals.damaged
    }

    fn check_meta(&self, report: &mut dyn FnMut(RunFlaw)) {
        let (reference, layout, bytes) = (self.run.reference(), &self.layout, self.meta());
        let at = reference.meta_offset;
        let parts = MetaParts {
            records: &layout.records,
            prefix: &bytes[layout.prefix.clone()],
            separators: &bytes[layout.separators.clone()],
            filter: &bytes[layout.filter.clone()],
            range_deletes: &layout.range_deletes,
        };
        if encode_meta(&parts) != bytes {
            report(flaw(RunFault::Canonical, at, "the meta section as it is written", "other bytes"));
        }
        let counts = (reference.blocks as usize, reference.range_deletes as usize);
        let found = (layout.records.len(), layout.range_deletes.len());
        if counts != found {
            let of = |(blocks, deletes)| format!("{blocks} blocks and {deletes} range deletes");
            report(flaw(RunFault::Count, at, of(counts), of(found)));
        }
        let raw: u64 = layout.records.iter().map(|record| u64::from(record.raw_len)).sum();
        if raw != reference.raw_bytes {
            report(flaw(RunFault::Count, at, format!("{} raw bytes", reference.raw_bytes), raw));
        }
        let hull = self.range_deletes.hull().map(|(start, end)| (start.into(), end.map(Into::into)));
        if hull != reference.hull {
            report(flaw(RunFault::Bounds, at, "the hull of the range deletes", "another one"));
        }
        let kept = self.range_deletes.list().len();
        if kept != layout.range_deletes.len() {
            report(flaw(RunFault::Bounds, at, "range deletes that cover something", "empty ones"));
        }
    }

    fn check_block(
        &self,
        index: usize,
        record: &BlockRecord,
        block: &BlockEntries,
        totals: &mut Totals,
        visit: &mut dyn FnMut(EntryRef<'_>),
        report: &mut dyn FnMut(RunFlaw),
    ) {
        let at = record.offset;
        if block.len() != record.count as usize {
            report(flaw(RunFault::Count, at, format!("{} entries in the block", record.count), block.len()));
        }
        let length = record.raw_len as usize;
        if block.encoded(length) != block.bytes[block.shape.start..block.shape.start + length] {
            report(flaw(RunFault::Canonical, at, "the block as it is written", "other bytes"));
        }
        let filter = &self.meta()[self.layout.filter.clone()];
        let (mut newest, mut oldest) = (0, u64::MAX);
        let mut key = Vec::new();
        for position in 0..block.len() {
            let entry = block.entry(position, &mut key);
            if position == 0 {
                self.check_start(index, record, &entry, totals, report);
            }
            if !filter_contains(filter, key_hash(entry.key)) {
                report(flaw(RunFault::Filter, at, "a filter with every key", entry.key.escape_ascii()));
            }
            if entry.kind == super::Kind::Delete && !entry.payload.is_empty() {
                report(flaw(RunFault::Kind, at, "a delete without payload", entry.key.escape_ascii()));
            }
            newest = newest.max(entry.sequence);
            oldest = oldest.min(entry.sequence);
            totals.entries += 1;
            totals.deletes += u64::from(entry.kind == super::Kind::Delete);
            totals.upsert_bytes +=
                if entry.kind == super::Kind::Upsert { entry.payload.len() as u64 } else { 0 };
            if totals.first.is_none() {
                totals.first = Some(entry.key.to_vec());
            }
            if position + 1 == block.len() {
                totals.last = Some((entry.key.to_vec(), entry.sequence));
            }
            visit(entry);
        }
        if newest != record.max_sequence {
            let expected = format!("newest sequence {} in the block", record.max_sequence);
            report(flaw(RunFault::Sequence, at, expected, newest));
        }
        if oldest != block.shape.base {
            report(flaw(RunFault::Canonical, at, format!("base sequence {oldest}"), block.shape.base));
        }
        totals.newest = totals.newest.max(newest);
        totals.oldest = Some(totals.oldest.map_or(oldest, |before| before.min(oldest)));
    }

    /// The first entry of a block against the block before and its separator.
    fn check_start(
        &self,
        index: usize,
        record: &BlockRecord,
        entry: &EntryRef<'_>,
        totals: &Totals,
        report: &mut dyn FnMut(RunFlaw),
    ) {
        let Some((last, sequence)) = &totals.last else { return };
        let at = record.offset;
        let same = last.as_slice() == entry.key;
        if last.as_slice() > entry.key || (same && *sequence <= entry.sequence) {
            let expected = format!("a key above {}", last.escape_ascii());
            report(flaw(RunFault::Order, at, expected, entry.key.escape_ascii()));
            return;
        }
        let separator = self.separator(index);
        let fits = if same {
            record.continued && separator == entry.key
        } else {
            !record.continued && *last < separator && separator.as_slice() <= entry.key
        };
        if !fits {
            let expected = format!("a separator between {} and its block", last.escape_ascii());
            report(flaw(RunFault::Order, at, expected, separator.escape_ascii()));
        }
    }

    fn check_totals(&self, totals: &Totals, report: &mut dyn FnMut(RunFlaw)) {
        let reference = self.run.reference();
        if (totals.entries, totals.deletes) != (reference.entries, reference.deletes) {
            let of = |entries, deletes| format!("{entries} entries, {deletes} of them deletes");
            let expected = of(reference.entries, reference.deletes);
            report(flaw(RunFault::Count, 0, expected, of(totals.entries, totals.deletes)));
        }
        if totals.upsert_bytes != reference.upsert_bytes {
            let of = |bytes| format!("upserts of {bytes} bytes");
            let expected = of(reference.upsert_bytes);
            report(flaw(RunFault::Count, 0, expected, of(totals.upsert_bytes)));
        }
        let last = totals.last.as_ref().map(|(key, _)| key.as_slice());
        let keys = totals.first.as_deref().zip(last);
        let stated = reference.keys.as_ref().map(|(first, last)| (&**first, &**last));
        if keys != stated {
            let of = |keys: Option<(&[u8], &[u8])>| match keys {
                Some((first, last)) => {
                    format!("keys {} to {}", first.escape_ascii(), last.escape_ascii())
                }
                None => String::from("no keys"),
            };
            report(flaw(RunFault::Bounds, 0, of(stated), of(keys)));
        }
        let deletes = self.layout.range_deletes.iter().map(|delete| delete.sequence);
        let oldest = deletes.clone().chain(totals.oldest).min().unwrap_or(0);
        let newest = deletes.chain([totals.newest]).max().unwrap_or(0);
        if (oldest, newest) != (reference.min_sequence, reference.max_sequence) {
            let expected = format!("sequences {} to {}", reference.min_sequence, reference.max_sequence);
            report(flaw(RunFault::Sequence, 0, expected, format!("{oldest} to {newest}")));
        }
    }
}

/// What the blocks so far say.
#[derive(Debug, Default)]
struct Totals {
    entries: u64,
    deletes: u64,
    upsert_bytes: u64,
    newest: u64,
    oldest: Option<u64>,
    first: Option<Vec<u8>>,
    /// Last key and its sequence number, of the block before.
    last: Option<(Vec<u8>, u64)>,
    damaged: bool,
}

/// Reads the whole blocks around `length` bytes from byte `offset`, which should have `checksum`, and says where in the
/// buffer these start.
fn window(
    run: &Arc<Run>,
    offset: u64,
    length: usize,
    checksum: u32,
) -> Result<(AlignedBuffer, usize), RunFlaw> {
    let at = (offset % BLOCK_BYTES_U64) as usize;
    let bytes = (at + length).next_multiple_of(BLOCK_BYTES);
    let mut is_right = |bytes: &[u8]| crc(&bytes[at..at + length]) == checksum;
    let extents = run.reference().extents.extents();
    let read = run.dmu().read_checked(extents, offset - at as u64, bytes, at..at + length, &mut is_right);
    read.map(|(buffer, _)| (buffer, at)).map_err(|error| of_device(offset, &error))
}
