//! Creating and opening: from the superblock to a database that takes writes.

use super::DatabaseConfiguration;
use super::catalog::{Catalog, DatasetState};
use super::checkpoint::Checkpointer;
use super::commit::Commit;
use super::core::{Core, CoreParts, tree_parts};
use super::error::{Error, ErrorKind, Result};
use super::format::{DATASETS, DROPS, DatasetRecord, RootRecord, key_dataset};
use super::limits::Scale;
use super::record::{Operation, RecordReader, RecordWriter};
use crate::base::checksum::crc;
use crate::base::extent::{Extent, total_blocks};
use crate::base::ids::{DatasetId, Generation};
use crate::base::planted::{Bug, planted};
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64, blocks_for};
use crate::dmu::{Dmu, DmuError, DmuOptions, OwnedExtents, SegmentCounts};
use crate::log::{Log, LogHead, LogOptions, Verdict, extents_from, records_before, replay};
use crate::pool::{Candidate, OpenReport, Pool};
use crate::run::{Kind, RangeDelete};
use crate::tree::{Caching, Drops, JobQueue, LargeValue, Tree, TreeOptions};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The root tree's dataset.
pub(super) const ROOT: DatasetId = DatasetId(0);

/// How a database is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Opening<'a> {
    /// The log is replayed in memory, and no byte is written.
    ReadOnly,
    /// As the checkpoint stands, without the log behind it; no byte is written.
    Checkpoint,
    /// For writing.
    ReadWrite,
    /// For writing, with what a check found put right by the first checkpoint.
    Amended(&'a Amends),
}

/// What a check found wrong in the allocation state, and nothing else did.
#[derive(Debug, Default)]
pub(crate) struct Amends {
    /// Segments whose recorded counts are wrong, with the right ones.
    pub(crate) counts: Vec<SegmentCounts>,
    /// Blocks that are marked taken and reached by nothing.
    pub(crate) leaks: Vec<Extent>,
}

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

    /// Opens the database on `pool`, whose superblocks say what is in `report`: the first of its candidates that loads.
    pub fn open(
        configuration: DatabaseConfiguration,
        pool: Pool,
        report: &OpenReport,
        opening: Opening<'_>,
    ) -> Result<Arc<Self>> {
        let pool = Arc::new(pool);
        let highest = report.highest_seen;
        let mut first_error = None;
        for (index, candidate) in report.candidates.iter().enumerate() {
            match load(&configuration, &pool, candidate, highest, opening) {
                Ok((mut loaded, ground)) => {
                    if let Some(error) = &first_error {
                        log::error!("falling back to generation {}: {error}", candidate.generation);
                        // Its superblock was written after everything that it needs was flushed: no crash does this.
                        loaded.rolled_back = true;
                    }
                    let before = report.candidates.get(index + 1);
                    return Self::recover(configuration, pool, loaded, ground, before, opening);
                }
                // What cannot be read now may be read later; what an older generation lacks is gone for good.
                Err(error) if error.kind() == ErrorKind::Io => return Err(error),
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
        before: Option<&Candidate>,
        opening: Opening<'_>,
    ) -> Result<Arc<Self>> {
        let read_only = matches!(opening, Opening::ReadOnly | Opening::Checkpoint);
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
        core.publish_root(record.generation);
        core.find_condemned()?;
        core.scrubs.load(&core.snapshots.root()?)?;
        core.evacuations.load(&core.snapshots.root()?, |vdev| core.dmu.has_left(vdev))?;
        if matches!(opening, Opening::Checkpoint) {
            return Ok(core);
        }
        let (log_extents, doubtful) = core.replay_log(&record, before)?;
        if read_only {
            return Ok(core);
        }
        core.pool.rewrite_chosen(record.generation)?;
        for value in &doubtful {
            value.write_again(&core.dmu).map_err(|error| Error::of_tree(b"log record", error))?;
        }
        core.checkpointer.lock().earlier_log = log_extents;
        core.start_log()?;
        if let Opening::Amended(amends) = opening {
            for leak in &amends.leaks {
                let space = OwnedExtents::from_disk(&core.dmu, vec![*leak], record.generation);
                space.kill(core.open_generation());
            }
        }
        // Nothing is appended before replay is in a checkpoint of its own.
        core.checkpoint(true)?;
        // Who was about to take a vdev away is gone.
        core.depart()?;
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

    /// Replays the log behind `record`: first marks what the log and its records occupy, and the log of the checkpoint
    /// before, then applies. Returns the extents of both logs, and the large values of records that are not known to be
    /// durable: after a flush that failed, they may be in a cache only that takes them for written.
    fn replay_log(
        &self,
        record: &RootRecord,
        before: Option<&Candidate>,
    ) -> Result<(Vec<Extent>, Vec<LargeValue>)> {
        let mut extents: HashSet<Extent> = HashSet::new();
        let mut doubtful = Vec::new();
        let mut large: Vec<Extent> = Vec::new();
        let cut = record.cut;
        self.replay_pass(&record.log_head, &mut extents, &mut doubtful, |sequence, operation| {
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
        let mut kept = Vec::new();
        if let Some(before) = before {
            self.keep_log_of(before, record, &mut kept)?;
        }
        doubtful.clear();
        // All that could refuse has been read. What is replayed may be flushed, to any vdev.
        if !self.read_only {
            self.pool.take_added()?;
        }
        self.replay_pass(&record.log_head, &mut extents, &mut doubtful, |sequence, operation| {
            if sequence > cut { self.apply(sequence, operation) } else { Ok(()) }
        })?;
        if planted(Bug::ReplayTwice) {
            self.replay_pass(&record.log_head, &mut extents, &mut doubtful, |sequence, operation| {
                if sequence > cut { self.apply(sequence, operation) } else { Ok(()) }
            })?;
        }
        kept.extend(extents);
        Ok((kept, doubtful))
    }

    /// Keeps the log of the checkpoint before `newest`, and the large values that it names: until the recovery has written
    /// its own checkpoint, that is what a lost superblock falls back to. Values that died before `newest` are in no
    /// bitmap.
    fn keep_log_of(&self, before: &Candidate, newest: &RootRecord, kept: &mut Vec<Extent>) -> Result<()> {
        let mut named = Vec::new();
        let read = RootRecord::decode(&before.payload, &self.dmu).map_err(Error::from).and_then(|record| {
            let (pool, head) = (self.pool.uuid(), &record.log_head);
            named.extend(extents_from(&self.dmu, pool, head)?);
            // Behind the head of the newest checkpoint it is the log that is replayed.
            let until = if head.epoch == newest.log_head.epoch { newest.log_head.lsn } else { u64::MAX };
            records_before(&self.dmu, pool, head, until, |bytes| {
                named.extend(large_values(bytes)?.into_iter().flat_map(|value| value.extents));
                Ok(())
            })
        });
        if let Err(error) = read {
            // No reason not to open the newer one, which is sound.
            log::warn!("generation {} is no fallback: {error}", before.generation);
        }
        for extent in named {
            match self.dmu.mark_busy(extent) {
                Ok(true) => kept.push(extent),
                // The newest checkpoint has it as well; or it is named by what would not be replayed, and somebody's.
                Ok(false) | Err(DmuError::Allocation { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn replay_pass(
        &self,
        head: &LogHead,
        extents: &mut HashSet<Extent>,
        doubtful: &mut Vec<LargeValue>,
        mut each: impl FnMut(u64, Operation<'_>) -> Result<()>,
    ) -> Result<()> {
        let mark = |extent: Extent| -> Result<()> {
            if extents.insert(extent) {
                self.dmu.mark_busy(extent)?;
            }
            Ok(())
        };
        let opened = self.checkpointer.lock().durable;
        let apply = |bytes: &[u8], _end: u64, durable: bool| -> Result<Verdict> {
            if !durable && !self.values_are_whole(bytes, doubtful)? {
                return Ok(Verdict::Cut);
            }
            let mut reader = RecordReader::new(bytes).map_err(|error| damaged("log record", &error))?;
            while let Some((sequence, operation)) =
                reader.next().map_err(|error| damaged("log record", &error))?
            {
                if let Operation::Changed { generation } = operation
                    && generation > opened
                {
                    log::error!(
                        "what follows a change of snapshots in generation {generation}, which is lost, is lost"
                    );
                    return Ok(Verdict::Cut);
                }
                each(sequence, operation)?;
            }
            Ok(Verdict::Continue)
        };
        let end = replay(&self.dmu, self.pool.uuid(), head, mark, apply)?;
        log::debug!("replayed the log up to position {}: {:?}", end.lsn, end.reason);
        Ok(())
    }

    /// Whether every large value that a record names is on its device: the record may have landed without them. Then adds
    /// them to `found`; those of a record at which the log is cut belong to nobody.
    fn values_are_whole(&self, bytes: &[u8], found: &mut Vec<LargeValue>) -> Result<bool> {
        let values = large_values(bytes)?;
        for pointer in &values {
            if !pointer.fits(&self.dmu) {
                return Err(damaged("log record", &"the extents of a large value are not as long as it"));
            }
            match pointer
                .read(&self.dmu, Caching::Bypass)
                .map_err(|error| Error::of_tree(b"log record", error))
            {
                Ok(_) => {}
                // It may well have landed, and have been acknowledged.
                Err(error) if error.kind() == ErrorKind::Io => return Err(error),
                Err(error) => {
                    log::info!("the log is cut at a record whose value did not land: {error}");
                    return Ok(false);
                }
            }
        }
        found.extend(values);
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
                    dataset.tree.deaths().count(generation, total_blocks(&pointer.extents) as i64);
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
            Operation::Changed { .. } | Operation::Filler { .. } => {}
            Operation::Destroy { dataset } => {
                let dataset = dataset_of(dataset)?;
                self.catalog.write().destroy(&dataset);
                self.drop_tree(&dataset)?;
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
        // Log, table roots and what the root tree changes, of the two checkpoints after which space is given back.
        let table = blocks_for(dmu.table_root_bytes_max(Generation(0)) as u64);
        let log = u64::from(scale.log_extent_blocks);
        scale.checkpoint_blocks = log * 2 + table * 6 + 16;
        dmu.set_reserve(scale.reserve(0, 0, 0, dmu.map_blocks()));
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

pub(crate) fn dmu_options(configuration: &DatabaseConfiguration) -> DmuOptions {
    DmuOptions {
        alloc_strategy: configuration.allocation_order(),
        default_class: configuration.default_storage_class,
        log_tier: configuration.log_tier,
        cache_bytes: configuration.cache_size,
        threads: if configuration.background_threads == Some(0) { 0 } else { 4 },
        compare_copies: false,
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

/// The large values that a log record names.
fn large_values(bytes: &[u8]) -> Result<Vec<LargeValue>> {
    let mut reader = RecordReader::new(bytes).map_err(|error| damaged("log record", &error))?;
    let mut values = Vec::new();
    while let Some((_, operation)) = reader.next().map_err(|error| damaged("log record", &error))? {
        if let Operation::Message { entry, .. } = operation
            && entry.kind == Kind::PutLarge
        {
            values.push(LargeValue::decode(entry.payload).map_err(|error| damaged("log record", &error))?);
        }
    }
    Ok(values)
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
    opening: Opening<'_>,
) -> Result<(Loaded, Ground)> {
    let reader = Dmu::reader(Arc::clone(pool), dmu_options(configuration))?;
    let record = RootRecord::decode(&candidate.payload, &reader)?;
    if record.generation != candidate.generation {
        let reason =
            format!("it says generation {}, its superblock {}", record.generation, candidate.generation);
        return Err(Error::Corrupt { what: "root record", reason });
    }
    let table = read_table(&reader, &record)?;
    let options = dmu_options(configuration);
    let dmu = match opening {
        Opening::Amended(amends) => {
            Dmu::open_amended(Arc::clone(pool), options, &table, record.generation, &amends.counts)?
        }
        _ => Dmu::open(Arc::clone(pool), options, &table, record.generation)?,
    };
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
    let bad = |reason: &str| {
        let reason = format!("{reason}, on {}", dmu.place_of(extents));
        Error::Corrupt { what: "allocation table root", reason }
    };
    if length as u64 > dmu.data_blocks(extents) * BLOCK_BYTES_U64 {
        return Err(bad("it is longer than its extents"));
    }
    let mut is_right = |bytes: &[u8]| crc(&bytes[..length]) == record.table_checksum;
    let (buffer, right) =
        dmu.read_checked(extents, 0, length.next_multiple_of(BLOCK_BYTES), 0..length, &mut is_right)?;
    if !right {
        return Err(bad("its checksum differs from the one in the superblock"));
    }
    Ok(buffer[..length].to_vec())
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
