//! Every piece of a checkpoint that a checksum covers, with the place of that checksum: a Merkle tree that can be edited.

use super::pool::{Bench, DISK};
use crate::base::checksum::crc;
use crate::base::codec::Decoder;
use crate::base::extent::Extent;
use crate::base::ids::{DatasetId, Generation};
use crate::database::DatasetRecord;
use crate::dmu::{AllocationState, Expected, StoredExtents};
use crate::inspect::ground::Ground;
use crate::run::RunRef;
use crate::tree::NodeRef;
use std::ops::Range;

/// What a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Table,
    Page,
    Bitmap,
    Node {
        level: u8,
    },
    Meta,
    Block,
    /// 16 KiB of a large value.
    Value,
}

/// Bytes under one checksum.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub what: What,
    /// The tree that it is of; the root tree for the table.
    pub dataset: DatasetId,
    pub extents: Vec<Extent>,
    /// Bytes into the extents.
    pub offset: u64,
    pub length: usize,
    /// The part that names it; `None`: the root record.
    pub parent: Option<usize>,
    /// Where in the parent its checksum is.
    pub checksum_at: usize,
    /// Where the pointer to it begins in the parent: a node pointer, a run pointer, a block record, a table entry.
    pub pointer_at: usize,
}

impl Part {
    /// Whether it carries its checksum itself.
    pub fn is_sealed(&self) -> bool {
        matches!(self.what, What::Table | What::Page | What::Bitmap)
    }

    /// The checksum that its pointer states.
    pub fn pointer_checksum(&self, bytes: &[u8]) -> u32 {
        match self.what {
            What::Page | What::Bitmap => u32::from_le_bytes(bytes[12..16].try_into().unwrap()),
            _ => crc(bytes),
        }
    }
}

/// A large value's entry in a raw block: where its pointer is.
pub(super) fn entries(block: &[u8]) -> Vec<Entry> {
    let number = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap()) as usize;
    let (count, prefix, wide) = (number(0), number(4), number(20) & 1 == 1);
    let mut at = 24 + count * (4 + if wide { 4 } else { 2 }) + prefix;
    let mut all = Vec::new();
    for _ in 0..count {
        let start = at;
        let varint = |at: &mut usize| crate::base::codec::get_varint(block, at).unwrap() as usize;
        let suffix = varint(&mut at);
        let sequence_at = at;
        varint(&mut at);
        let tag_at = at;
        at += 1;
        let payload = varint(&mut at);
        let suffix = at..at + suffix;
        let payload = suffix.end..suffix.end + payload;
        at = payload.end;
        all.push(Entry { start, sequence_at, tag_at, suffix, payload });
    }
    all
}

/// Where an entry is in its raw block.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub start: usize,
    pub sequence_at: usize,
    pub tag_at: usize,
    pub suffix: Range<usize>,
    pub payload: Range<usize>,
}

/// Reads the parts of the newest checkpoint.
pub(super) struct Parts<'a> {
    bench: &'a Bench,
    ground: Ground,
    pub all: Vec<Part>,
}

impl Bench {
    /// Every part of the newest checkpoint, parents first.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = Parts { bench: self, ground: self.ground(), all: Vec::new() };
        parts.collect();
        parts.all
    }
}

impl Parts<'_> {
    fn collect(&mut self) {
        let payload = self.bench.superblock(None).payload;
        let record = self.bench.record(&self.ground);
        let mut input = Decoder::new(&payload);
        input.raw(44, "front").unwrap();
        StoredExtents::decode(&mut input, &self.ground.dmu).unwrap();
        let root_at = input.position();
        self.table(&record.table_extents, record.table_length as usize, record.generation);
        self.node(DatasetId(0), &record.root_tree, None, root_at);
        // Dataset records are entries of blocks of the root tree: the pointer's checksum is in there.
        let blocks: Vec<usize> =
            (0..self.all.len()).filter(|index| self.all[*index].what == What::Block).collect();
        for index in blocks {
            let bytes = self.bench.read(&self.all[index]);
            for entry in entries(&bytes) {
                let value = &bytes[entry.payload.clone()];
                let Ok(record) = DatasetRecord::decode(value, &self.ground.dmu) else { continue };
                let Some(root) = &record.root else { continue };
                // The pointer is the last thing in the record; an older record of the dataset is not the one meant.
                let mut encoded = crate::base::codec::Encoder::new();
                root.encode(&mut encoded);
                let pointer = entry.payload.end - encoded.len();
                let newest = self.newest_roots().contains(root);
                let id = u64::from_be_bytes(self.key_of(&bytes, &entry)[1..9].try_into().unwrap());
                if newest {
                    self.node(DatasetId(id), root, Some(index), pointer);
                }
            }
        }
    }

    fn key_of(&self, block: &[u8], entry: &Entry) -> Vec<u8> {
        let number = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap()) as usize;
        let (count, prefix) = (number(0), number(4));
        let at = 24 + count * (4 + if number(20) & 1 == 1 { 4 } else { 2 });
        [&block[at..at + prefix], &block[entry.suffix.clone()]].concat()
    }

    fn newest_roots(&self) -> Vec<NodeRef> {
        let record = self.bench.record(&self.ground);
        let mut ledger_watch = |_: &crate::inspect::Progress| std::ops::ControlFlow::Continue(());
        let mut ledger = crate::inspect::ledger::Ledger::new(10, &mut ledger_watch);
        let catalogue = crate::inspect::catalogue::Catalogue::read(&self.ground, &record, &mut ledger);
        catalogue.datasets.into_values().filter_map(|record| record.root).collect()
    }

    fn push(&mut self, part: Part) -> usize {
        self.all.push(part);
        self.all.len() - 1
    }

    fn table(&mut self, extents: &StoredExtents, length: usize, generation: Generation) {
        let superblock = self.bench.superblock(None);
        let table = self.push(Part {
            what: What::Table,
            dataset: DatasetId(0),
            extents: extents.extents().to_vec(),
            offset: 0,
            length,
            parent: None,
            checksum_at: 40,
            pointer_at: 36,
        });
        let bytes = self.bench.read(&self.all[table]);
        let expected =
            Expected { generation, parent: superblock.previous, vdevs: &self.ground.vdevs, newest: true };
        let state = AllocationState::read(&self.ground.pool, &bytes, &expected, &mut |flaw| {
            panic!("a sound table: {flaw:?}")
        });
        let state = state.unwrap();
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        // One vdev and one table area: the bench has one disk, and it is small.
        let (reserved, areas, pages) = (number(64 + 28), number(64 + 32), number(64 + 36));
        assert_eq!((areas, pages), (1, 1));
        let area_at = 104 + 16 * reserved as usize;
        let page_at = area_at + 16;
        let slot = u64::from(bytes[page_at + 12]);
        let page = self.push(Part {
            what: What::Page,
            dataset: DatasetId(0),
            extents: vec![Extent { vdev: DISK, block: long(area_at) + slot, blocks: 1 }],
            offset: 0,
            length: 4096,
            parent: Some(table),
            checksum_at: page_at + 8,
            pointer_at: page_at,
        });
        let bytes = self.bench.read(&self.all[page]);
        for segment in 0..84 {
            let at = 64 + 48 * segment as usize;
            if bytes[at + 8..at + 16] == [0; 8] {
                continue;
            }
            let extent = state.bitmap_slot(DISK, segment, bytes[at]).unwrap();
            self.push(Part {
                what: What::Bitmap,
                dataset: DatasetId(0),
                extents: vec![extent],
                offset: 0,
                length: extent.blocks as usize * 4096,
                parent: Some(page),
                checksum_at: at + 4,
                pointer_at: at,
            });
        }
    }

    fn node(&mut self, dataset: DatasetId, reference: &NodeRef, parent: Option<usize>, pointer_at: usize) {
        let node = self.push(Part {
            what: What::Node { level: reference.level },
            dataset,
            extents: reference.extents.extents().to_vec(),
            offset: 0,
            length: reference.length as usize,
            parent,
            checksum_at: pointer_at + 13,
            pointer_at,
        });
        let bytes = self.bench.read(&self.all[node]);
        let mut input = Decoder::new(&bytes);
        input.raw(36, "front").unwrap();
        let slots = input.u32("slots").unwrap();
        for _ in 1..slots {
            input.bytes(1 << 20, "pivot").unwrap();
        }
        for _ in 0..slots {
            let runs = input.u16("runs").unwrap();
            input.u16("base").unwrap();
            for _ in 0..runs {
                let length = input.u32("length").unwrap() as usize;
                let at = input.position();
                let reference = input.raw(length, "run").unwrap();
                let reference = RunRef::decode(&mut Decoder::new(reference), &self.ground.dmu).unwrap();
                self.run(dataset, &reference, node, at);
            }
            if reference.level > 1 {
                let at = input.position();
                let child = NodeRef::decode(&mut input, &self.ground.dmu).unwrap();
                self.node(dataset, &child, Some(node), at);
            }
        }
        input.finish("node").unwrap();
    }

    fn run(&mut self, dataset: DatasetId, reference: &RunRef, node: usize, pointer_at: usize) {
        let extents = reference.extents.extents().to_vec();
        let meta = self.push(Part {
            what: What::Meta,
            dataset,
            extents: extents.clone(),
            offset: reference.meta_offset,
            length: reference.meta_len as usize,
            parent: Some(node),
            checksum_at: pointer_at + 3,
            pointer_at,
        });
        let bytes = self.bench.read(&self.all[meta]);
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let records = 64 + 64 * number(8);
        for record in 0..number(12) {
            let at = records + 40 * record;
            let block = self.push(Part {
                what: What::Block,
                dataset,
                extents: extents.clone(),
                offset: u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()),
                length: number(at + 16),
                parent: Some(meta),
                checksum_at: at + 24,
                pointer_at: at,
            });
            self.values(dataset, block);
        }
    }

    fn values(&mut self, dataset: DatasetId, block: usize) {
        let bytes = self.bench.read(&self.all[block]);
        for entry in entries(&bytes) {
            if bytes[entry.tag_at] & 3 != 3 {
                continue;
            }
            let value = crate::tree::LargeValue::decode(&bytes[entry.payload.clone()]).unwrap();
            let sums = entry.payload.start + 16 + 16 * value.extents.len();
            for chunk in 0..value.checksums.len() {
                let offset = chunk * (16 << 10);
                self.push(Part {
                    what: What::Value,
                    dataset,
                    extents: value.extents.clone(),
                    offset: offset as u64,
                    length: (value.length as usize - offset).min(16 << 10),
                    parent: Some(block),
                    checksum_at: sums + 4 * chunk,
                    pointer_at: entry.payload.start,
                });
            }
        }
    }
}
