//! Creating and opening: from the superblock to a database that takes writes.

use super::DatabaseConfiguration;
use super::catalog::{Catalog, DatasetState};
use super::checkpoint::Checkpointer;
use super::commit::Commit;
use super::core::{Core, CoreParts, tree_parts};
use super::error::{Error, Result};
use super::format::{DATASETS, DROPS, DatasetRecord, RootRecord, key_dataset};
use super::limits::Scale;
use super::record::{Operation, RecordReader, RecordWriter};
use crate::base::buffer::AlignedBuffer;
use crate::base::checksum::crc;
use crate::base::extent::{Extent, total_blocks};
use crate::base::ids::{DatasetId, Generation};
use crate::base::planted::{Bug, planted};
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64, blocks_for};
use crate::dmu::{Dmu, DmuOptions, OwnedExtents};
use crate::log::{Log, LogHead, LogOptions, Verdict, replay};
use crate::pool::{Candidate, OpenReport, Pool};
use crate::run::{Kind, RangeDelete};
use crate::tree::{Drops, JobQueue, LargeValue, Tree, TreeOptions};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The root tree's dataset.
pub(super) const ROOT: DatasetId = DatasetId(0);

/// A checkpoint that could be loaded.
struct Loaded {
    record: RootRecord,
    dmu: Dmu,
    root_tree: Arc<Tree>,
    catalog: Catalog,
    table: OwnedExtents,
    /// The highest generation seen anywhere: superblocks, labels, allocation table.
    highest: Generation,
    /// The allocation table names a newer generation that was durable.
    rolled_back: bool,
}

/// What the trees of a database share before there is a core.
struct Ground {
    jobs: Arc<JobQueue>,
    visible: Arc<AtomicU64>,
    root_visible: Arc<AtomicU64>,
    scale: Scale,
}

impl Core {
    /// Makes a database on a pool that was just created and holds nothing.
    pub fn create(configuration: DatabaseConfiguration, pool: Pool) -> Result<Arc<Self>> {
        let pool = Arc::new(pool);
        let dmu = Dmu::create(Arc::clone(&pool), dmu_options(&configuration))?;
        let ground = Ground::new(&configuration, &dmu);
        let first = pool.next_generation(Generation(0));
        let parts =
            tree_parts(&dmu, &ground.jobs, &ground.root_visible, ROOT, root_options(), String::new(), None);
        let core = Arc::new(Self::new(CoreParts {
            configuration,
            pool,
            dmu,
            jobs: ground.jobs,
            root_tree: Tree::create(parts, first),
            commit: Commit {
                next_sequence: 1,
                next_dataset: 1,
                open_generation: first,
                record: RecordWriter::default(),
                unmeasured: 0,
            },
            visible: ground.visible,
            catalog: Catalog::default(),
            checkpointer: Checkpointer::new(Generation(0), None, 0, None),
            scale: ground.scale,
            read_only: false,
            rolled_back: false,
        }));
        core.start_log()?;
        core.checkpoint(true)?;
        Ok(core)
    }

    /// Opens the database on `pool`, whose superblocks say what is in `report`.
    pub fn open(
        configuration: DatabaseConfiguration,
        pool: Pool,
        report: &OpenReport,
        read_only: bool,
    ) -> Result<Arc<Self>> {
        let pool = Arc::new(pool);
        let highest = report.highest_seen;
        let mut first_error = None;
        for candidate in &report.candidates {
            match load(&configuration, &pool, candidate, highest) {
                Ok((loaded, ground)) => {
                    if let Some(error) = &first_error {
                        log::error!("falling back to generation {}: {error}", candidate.generation);
                    }
                    return Self::recover(configuration, pool, loaded, ground, read_only);
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| Error::NotFound { what: "database", name: String::new() }))
    }

    fn recover(
        configuration: DatabaseConfiguration,
        pool: Arc<Pool>,
        loaded: Loaded,
        ground: Ground,
        read_only: bool,
    ) -> Result<Arc<Self>> {
        let Loaded { record, dmu, root_tree, catalog, table, highest, rolled_back } = loaded;
        let open_generation = pool.next_generation(highest.max(record.generation));
        let core = Arc::new(Self::new(CoreParts {
            configuration,
            pool,
            dmu,
            jobs: ground.jobs,
            root_tree,
            commit: Commit {
                next_sequence: record.cut + 1,
                next_dataset: record.next_dataset,
                open_generation,
                record: RecordWriter::default(),
                unmeasured: 0,
            },
            visible: ground.visible,
            catalog,
            checkpointer: Checkpointer::new(record.generation, Some(table), record.cut, Some(record.clone())),
            scale: ground.scale,
            read_only,
            rolled_back,
        }));
        let log_extents = core.replay_log(&record)?;
        if read_only {
            return Ok(core);
        }
        core.pool.rewrite_chosen(record.generation)?;
        core.checkpointer.lock().earlier_log = log_extents;
        core.start_log()?;
        // Nothing is appended before replay is in a checkpoint of its own.
        core.checkpoint(true)?;
        Ok(core)
    }

    /// Starts a log of a new epoch. The open generation names it: that is above everything seen anywhere, so that no
    /// frame of an abandoned life is taken for one of this.
    fn start_log(&self) -> Result<()> {
        let epoch = if planted(Bug::ReuseEpoch) { 1 } else { self.open_generation().0 };
        let options = LogOptions {
            extent_blocks: self.scale.log_extent_blocks,
            background: self.has_threads(),
            ..LogOptions::new(self.pool.uuid())
        };
        let (log, head) = Log::start(&self.dmu, options, epoch)?;
        *self.cut_head.lock() = Some(head);
        assert!(self.log.set(log).is_ok(), "the log is started once");
        Ok(())
    }

    /// Replays the log behind `record`: first marks what the log and its records occupy, then applies. Returns the log's
    /// extents.
    fn replay_log(&self, record: &RootRecord) -> Result<Vec<Extent>> {
        let mut extents: HashSet<Extent> = HashSet::new();
        let mut large: Vec<Extent> = Vec::new();
        let cut = record.cut;
        self.replay_pass(&record.log_head, &mut extents, |sequence, operation| {
            if let Operation::Message { entry, .. } = operation
                && entry.kind == Kind::PutLarge
                && sequence > cut
            {
                let pointer =
                    LargeValue::decode(entry.payload).map_err(|error| damaged("log record", &error))?;
                large.extend(&pointer.extents);
            }
            Ok(())
        })?;
        for extent in &large {
            self.dmu.mark_busy(*extent)?;
        }
        self.replay_pass(&record.log_head, &mut extents, |sequence, operation| {
            if sequence > cut { self.apply(sequence, operation) } else { Ok(()) }
        })?;
        Ok(extents.into_iter().collect())
    }

    fn replay_pass(
        &self,
        head: &LogHead,
        extents: &mut HashSet<Extent>,
        mut each: impl FnMut(u64, Operation<'_>) -> Result<()>,
    ) -> Result<()> {
        let mark = |extent: Extent| -> Result<()> {
            if extents.insert(extent) {
                self.dmu.mark_busy(extent)?;
            }
            Ok(())
        };
        let apply = |bytes: &[u8], _end: u64, durable: bool| -> Result<Verdict> {
            if !durable && !self.values_are_whole(bytes)? {
                return Ok(Verdict::Cut);
            }
            let mut reader = RecordReader::new(bytes).map_err(|error| damaged("log record", &error))?;
            while let Some((sequence, operation)) =
                reader.next().map_err(|error| damaged("log record", &error))?
            {
                each(sequence, operation)?;
            }
            Ok(Verdict::Continue)
        };
        let end = replay(&self.dmu, self.pool.uuid(), head, mark, apply)?;
        log::debug!("replayed the log up to position {}: {:?}", end.lsn, end.reason);
        Ok(())
    }

    /// Whether every large value that a record names is on its device: the record may have landed without them.
    fn values_are_whole(&self, bytes: &[u8]) -> Result<bool> {
        let mut reader = RecordReader::new(bytes).map_err(|error| damaged("log record", &error))?;
        while let Some((_, operation)) = reader.next().map_err(|error| damaged("log record", &error))? {
            let Operation::Message { entry, .. } = operation else { continue };
            if entry.kind == Kind::PutLarge {
                let pointer =
                    LargeValue::decode(entry.payload).map_err(|error| damaged("log record", &error))?;
                if let Err(error) = pointer.read(&self.dmu) {
                    log::info!("the log is cut at a record whose value did not land: {error}");
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Applies one replayed operation.
    fn apply(&self, sequence: u64, operation: Operation<'_>) -> Result<()> {
        let mut commit = self.commit.lock();
        let generation = commit.open_generation;
        let dataset_of = |id: DatasetId| {
            let found = self.catalog.read().by_id(id).cloned();
            found.ok_or_else(|| Error::Corrupt {
                what: "log record",
                reason: format!("it names dataset {id}"),
            })
        };
        commit.next_sequence = sequence + 1;
        match operation {
            Operation::Message { dataset, entry } => {
                let dataset = dataset_of(dataset)?;
                let table = dataset.tree.active();
                if entry.kind == Kind::PutLarge {
                    let pointer =
                        LargeValue::decode(entry.payload).map_err(|error| damaged("log record", &error))?;
                    self.dmu.value_born(&pointer.extents, generation);
                    // The generation that was open when it was written may be gone; this one contains it first.
                    let mut payload = entry.payload.to_vec();
                    LargeValue::set_birth(&mut payload, generation);
                    let entry = crate::run::EntryRef { payload: &payload, ..entry };
                    table.insert_large(entry, pointer.stored_bytes());
                } else {
                    table.insert(entry);
                }
                self.visible.store(sequence, Ordering::Release);
                self.freeze_replayed(&dataset, generation)?;
            }
            Operation::RangeDelete { dataset, start, end } => {
                let range = RangeDelete { start: start.into(), end: end.map(Into::into), sequence };
                dataset_of(dataset)?.tree.active().range_delete(range);
            }
            Operation::Create { dataset, record } => {
                let record = DatasetRecord::decode(record, &self.dmu)?;
                commit.next_dataset = commit.next_dataset.max(dataset.0 + 1);
                let parts = self.parts_of_tree(dataset, record.options.clone(), record.action.clone());
                let tree = Tree::create(parts, generation);
                self.catalog.write().insert(DatasetState::new(dataset, tree, record, 0, false));
            }
            Operation::Rename { dataset, name } => {
                // Looked up before the catalog is locked for the change.
                let dataset = dataset_of(dataset)?;
                self.catalog.write().rename(&dataset, name);
            }
            Operation::Destroy { dataset } => {
                let dataset = dataset_of(dataset)?;
                self.catalog.write().destroy(&dataset);
                dataset.tree.drop_everything()?;
            }
        }
        self.visible.store(sequence, Ordering::Release);
        Ok(())
    }

    /// A long log does not fit into memory: flushes on the way.
    fn freeze_replayed(&self, dataset: &DatasetState, generation: Generation) -> Result<()> {
        if !self.read_only && dataset.tree.active().bytes() >= self.scale.memtable_bytes {
            dataset.tree.freeze(generation);
            dataset.tree.flush_table(true)?;
            self.drain_jobs()?;
        }
        Ok(())
    }
}

impl Ground {
    fn new(configuration: &DatabaseConfiguration, dmu: &Dmu) -> Self {
        let mut scale = Scale::new(configuration, dmu.capacity_blocks() * BLOCK_BYTES_U64);
        // Room for the checkpoints that give space back: log, table roots, headers.
        let table = blocks_for(dmu.table_root_bytes_max() as u64);
        let log = u64::from(scale.log_extent_blocks);
        scale.reserve_blocks = dmu.capacity_blocks() * 3 / 100 + log * 2 + table * 6 + 16;
        dmu.set_reserve_min(scale.reserve_blocks);
        Self {
            jobs: Arc::default(),
            visible: Arc::default(),
            root_visible: Arc::new(AtomicU64::new(u64::MAX)),
            scale,
        }
    }
}

impl Checkpointer {
    fn new(durable: Generation, table: Option<OwnedExtents>, cut: u64, record: Option<RootRecord>) -> Self {
        Self { durable, head: None, earlier_log: Vec::new(), table, root_messages: 0, cut, record }
    }
}

fn dmu_options(configuration: &DatabaseConfiguration) -> DmuOptions {
    DmuOptions {
        alloc_strategy: configuration.allocation_order(),
        default_class: configuration.default_storage_class,
        log_tier: configuration.log_tier,
        cache_bytes: configuration.cache_size,
        threads: if configuration.background_threads == Some(0) { 0 } else { 4 },
    }
}

pub(super) fn root_options() -> TreeOptions {
    TreeOptions {
        leaf_bytes: 256 << 10,
        block_bytes: 4096,
        large_value_bytes: usize::MAX,
        ..TreeOptions::default()
    }
}

fn damaged(what: &'static str, error: &dyn std::fmt::Display) -> Error {
    Error::Corrupt { what, reason: error.to_string() }
}

/// Loads the checkpoint of `candidate` without changing anything.
fn load(
    configuration: &DatabaseConfiguration,
    pool: &Arc<Pool>,
    candidate: &Candidate,
    highest: Generation,
) -> Result<(Loaded, Ground)> {
    let reader = Dmu::reader(Arc::clone(pool), dmu_options(configuration))?;
    let record = RootRecord::decode(&candidate.payload, &reader)?;
    if record.generation != candidate.generation {
        let reason =
            format!("it says generation {}, its superblock {}", record.generation, candidate.generation);
        return Err(Error::Corrupt { what: "root record", reason });
    }
    let table = read_table(&reader, &record)?;
    let dmu = Dmu::open(Arc::clone(pool), dmu_options(configuration), &table, record.generation)?;
    let ground = Ground::new(configuration, &dmu);
    ground.visible.store(record.cut, Ordering::Release);
    let seen = dmu.seen_generations();
    let highest = highest.max(seen.written);
    let rolled_back = seen.durable > record.generation;
    if rolled_back {
        log::error!("opening generation {}, although {} was durable", record.generation, seen.durable);
    }
    let open_generation = pool.next_generation(highest.max(record.generation));
    let options = root_options();
    let parts = tree_parts(&dmu, &ground.jobs, &ground.root_visible, ROOT, options, String::new(), None);
    let root_tree = Tree::open(parts, record.root_tree.clone(), Drops::default(), open_generation);
    let catalog = load_catalog(&root_tree, &dmu, &ground.jobs, &ground.visible, open_generation)?;
    let table = OwnedExtents::from_disk(&dmu, record.table_extents.all(), record.generation);
    Ok((Loaded { record, dmu, root_tree, catalog, table, highest, rolled_back }, ground))
}

fn read_table(dmu: &Dmu, record: &RootRecord) -> Result<Vec<u8>> {
    let length = record.table_length as usize;
    let extents = record.table_extents.extents();
    let bad = |reason: &str| Error::Corrupt { what: "allocation table root", reason: reason.to_owned() };
    if length as u64 > total_blocks(extents) * BLOCK_BYTES_U64 {
        return Err(bad("it is longer than its extents"));
    }
    let buffer: AlignedBuffer = dmu.read(extents, 0, length.next_multiple_of(BLOCK_BYTES))?;
    let bytes = &buffer[..length];
    if crc(bytes) != record.table_checksum {
        return Err(bad("its checksum differs from the one in the superblock"));
    }
    Ok(bytes.to_vec())
}

/// The datasets that the root tree lists.
pub(super) fn load_catalog(
    root_tree: &Arc<Tree>,
    dmu: &Dmu,
    jobs: &Arc<JobQueue>,
    visible: &Arc<AtomicU64>,
    generation: Generation,
) -> Result<Catalog> {
    let view = root_tree.view();
    let of_root = |error| Error::of_tree(b"root tree", error);
    let mut drops: HashMap<DatasetId, (Drops, u32)> = HashMap::new();
    for entry in view.range(vec![DROPS], Some(vec![DROPS + 1])) {
        let (key, value) = entry.map_err(of_root)?;
        let id =
            key_dataset(&key).ok_or_else(|| damaged("root tree", &"a key of pending drops is cut short"))?;
        let (drops, chunks) = drops.entry(id).or_default();
        drops.decode_chunk(&value, dmu)?;
        *chunks += 1;
    }
    let mut catalog = Catalog::default();
    for entry in view.range(vec![DATASETS], Some(vec![DATASETS + 1])) {
        let (key, value) = entry.map_err(of_root)?;
        let id = key_dataset(&key).ok_or_else(|| damaged("root tree", &"a dataset key is cut short"))?;
        let record = DatasetRecord::decode(&value, dmu)?;
        let (drops, chunks) = drops.remove(&id).unwrap_or_default();
        let action = super::dataset::known_action(&record.action);
        let options = record.options.clone();
        let parts = tree_parts(dmu, jobs, visible, id, options, record.action.clone(), action);
        let tree = Tree::restore(parts, record.root.clone(), drops, generation);
        catalog.insert(DatasetState::new(id, tree, record, chunks, true));
    }
    Ok(catalog)
}
