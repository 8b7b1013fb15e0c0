//! A checkpoint made by hand: any records in the root tree, any births and deaths, all of it well-formed.

use super::pool::Bench;
use crate::base::buffer::AlignedBuffer;
use crate::base::checksum::crc;
use crate::base::extent::Extent;
use crate::base::ids::{DatasetId, Generation};
use crate::base::preference::StoragePreference;
use crate::base::sync::atomic::AtomicU64;
use crate::base::units::{BLOCK_BYTES, blocks_for};
use crate::database::{RootRecord, dmu_options};
use crate::dmu::{Dmu, OwnedExtents, Privilege, Stream};
use crate::pool::{Access, Pool};
use crate::run::{EntryRef, Kind};
use crate::tree::{Drops, Tree, TreeOptions, TreeParts};
use std::cell::Cell;
use std::sync::Arc;

/// The checkpoint being made.
pub(super) struct Forge {
    pub dmu: Dmu,
    pub generation: Generation,
    tree: Arc<Tree>,
    puts: Cell<u64>,
}

const NONE: StoragePreference = StoragePreference::NONE;

impl Forge {
    /// Puts a record into the root tree.
    pub fn put(&self, key: &[u8], payload: &[u8]) {
        self.puts.set(self.puts.get() + 1);
        let sequence = (self.generation.0 << 24) + self.puts.get();
        self.tree.active().insert(EntryRef { key, sequence, kind: Kind::Put, preference: NONE, payload });
    }

    /// Takes a record out of the root tree.
    pub fn delete(&self, key: &[u8]) {
        self.puts.set(self.puts.get() + 1);
        let sequence = (self.generation.0 << 24) + self.puts.get();
        let entry = EntryRef { key, sequence, kind: Kind::Delete, preference: NONE, payload: &[] };
        self.tree.active().insert(entry);
    }

    /// Allocates blocks that nothing will reach.
    pub fn leak(&self, blocks: u32) -> Vec<Extent> {
        let extents = self.dmu.allocate(Stream::Value, NONE, blocks, Privilege::System).unwrap();
        let space = OwnedExtents::unborn(&self.dmu, extents.clone());
        space.install(self.generation);
        extents
    }

    /// Takes exactly `extent`, which must be free.
    pub fn take(&self, extent: Extent) -> bool {
        if !self.dmu.mark_busy(extent).unwrap() {
            return false;
        }
        OwnedExtents::unborn(&self.dmu, vec![extent]).install(self.generation);
        true
    }

    /// Frees `extent`, whoever reaches it.
    pub fn free(&self, extent: Extent) {
        OwnedExtents::from_disk(&self.dmu, vec![extent], Generation(1)).kill(self.generation);
    }
}

impl Bench {
    /// Makes a checkpoint of the newest one and what `work` does to it. The log stays as it is.
    pub fn forge<T>(&self, work: impl FnOnce(&Forge) -> T) -> T {
        let (pool, report) = Pool::open(&self.configuration.storage, Access::ReadWrite).unwrap();
        let pool = Arc::new(pool);
        pool.rewrite_chosen(report.chosen).unwrap();
        let options = dmu_options(&self.configuration);
        let reader = Dmu::reader(Arc::clone(&pool), options.clone()).unwrap();
        let record = RootRecord::decode(&report.candidates[0].payload, &reader).unwrap();
        let length = record.table_length as usize;
        let table =
            reader.read(record.table_extents.extents(), 0, length.next_multiple_of(BLOCK_BYTES)).unwrap();
        let dmu = Dmu::open(Arc::clone(&pool), options, &table[..length], record.generation).unwrap();
        for extent in [Some(record.log_head.extent), record.log_head.next].into_iter().flatten() {
            dmu.mark_busy(extent).unwrap();
        }
        let generation = pool.next_generation(dmu.seen_generations().written);
        let parts = TreeParts {
            id: DatasetId(0),
            dmu: dmu.clone(),
            options: TreeOptions {
                leaf_bytes: 256 << 10,
                block_bytes: 4096,
                large_value_bytes: usize::MAX,
                ..TreeOptions::default()
            },
            action_name: String::new(),
            action: None,
            visible: Arc::new(AtomicU64::new(u64::MAX)),
            jobs: Arc::default(),
        };
        let tree = Tree::open(parts, record.root_tree.clone(), Drops::default(), generation);
        let forge = Forge { dmu: dmu.clone(), generation, tree: Arc::clone(&tree), puts: Cell::new(0) };
        let out = work(&forge);
        tree.freeze(generation);
        while tree.has_frozen(generation) {
            tree.flush_table(true).unwrap();
        }
        let captured = tree.capture(generation, false);
        let root_tree = tree.store(&captured.root, NONE, generation).unwrap();
        let blocks = blocks_for(dmu.table_root_bytes_max(Generation(0)) as u64) as u32;
        let extents = dmu.allocate(Stream::Header, NONE, blocks, Privilege::System).unwrap();
        let table_extents = dmu.store_extents(extents, NONE).unwrap();
        OwnedExtents::unborn(&dmu, table_extents.all()).install(generation);
        OwnedExtents::from_disk(&dmu, record.table_extents.all(), record.generation).kill(generation);
        let root = dmu.write_bitmaps(generation).unwrap();
        let mut buffer = AlignedBuffer::zeroed(blocks as usize * BLOCK_BYTES);
        buffer[..root.len()].copy_from_slice(&root);
        dmu.write(table_extents.extents(), 0, &buffer).unwrap();
        pool.flush_all().unwrap();
        let record = RootRecord {
            generation,
            table_length: root.len() as u32,
            table_checksum: crc(&root),
            table_extents,
            root_tree,
            ..record
        };
        pool.commit(generation, &record.encode()).unwrap();
        dmu.set_durable(generation);
        out
    }
}
