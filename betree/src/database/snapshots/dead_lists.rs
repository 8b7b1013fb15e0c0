//! Dead lists in the root tree: what died after a snapshot and is still in it.
//!
//! The list of snapshot P is what P reaches and the state after it (the next snapshot, or the head) does not. Each entry is
//! there once, in the sub-list of the interval between snapshots that its birth lies in. When the next snapshot N goes, the
//! sub-lists of N that were born after P are in no snapshot any more and are freed, whole; the others are joined to those
//! of P. Freeing goes in steps, some in each checkpoint: a step clears bits and shortens the list in one generation, so that
//! a crash finds both or neither.

use super::edits::{RootEdits, each_entry, of_root};
use super::format::{
    CHUNK_ENTRIES_MAX, CHUNKS, CONDEMNED, ChunkRecord, DEAD_LISTS, DeadEntry, Part, SubList, chunk_key,
    condemned_key, dead_list_key, decode_chunk, encode_chunk, key_dead_list, keys_of_dataset,
    keys_of_dead_lists,
};
use super::lineage::Chain;
use crate::base::checksum::crc;
use crate::base::extent::Extent;
use crate::base::ids::{DatasetId, Generation};
use crate::base::planted::{Bug, planted};
use crate::base::preference::StoragePreference;
use crate::base::units::BLOCK_BYTES;
use crate::database::catalog::DatasetState;
use crate::database::core::Core;
use crate::database::error::{Error, Result};
use crate::dmu::{Death, Dmu, OwnedExtents, ScrubTask};
use crate::tree::View;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Entries that a record holds itself; more go into chunks.
const TAIL_ENTRIES_MAX: usize = 64;
/// Parts that a record names itself; more go into a list of their own.
const PARTS_IN_RECORD_MAX: usize = 64;
/// Entries that one checkpoint frees at most, about.
const STEP_ENTRIES: u64 = 1 << 16;

fn damaged(what: &'static str, error: impl std::fmt::Display) -> Error {
    Error::Corrupt { what, reason: error.to_string() }
}

/// Blocks of those of `lists`, each an interval and blocks, whose entries were born after `snapshot`.
pub(super) fn sum_of(lists: &[(Generation, u64)], snapshot: Generation) -> u64 {
    lists.iter().filter(|(interval, _)| *interval >= snapshot).map(|(_, blocks)| blocks).sum()
}

/// A chunk on its way into the root tree.
struct NewChunk {
    record: ChunkRecord,
    space: OwnedExtents,
}

/// Reads the entries of a chunk.
pub(in crate::database) fn read_chunk(
    dmu: &Dmu,
    length: u32,
    checksum: u32,
    extents: &[Extent],
) -> Result<Vec<DeadEntry>> {
    let length = length as usize;
    let mut is_right = |bytes: &[u8]| crc(&bytes[..length]) == checksum;
    let (buffer, right) =
        dmu.read_checked(extents, 0, length.next_multiple_of(BLOCK_BYTES), 0..length, &mut is_right)?;
    if !right {
        let reason = "the checksum of a chunk differs from the one in its record";
        return Err(damaged("dead list", format!("{reason}, on {}", dmu.place_of(extents))));
    }
    decode_chunk(&buffer[..length]).map_err(|error| damaged("dead list", error))
}

impl RootEdits<'_> {
    /// Lists what died in `dataset`, each extent with the last snapshot that has it. What no snapshot has any more is freed.
    ///
    /// # Errors
    /// Out of space: what is not listed then waits for the next checkpoint.
    pub fn list_deaths(&mut self, dataset: &Arc<DatasetState>, deaths: Vec<Death>) -> Result<()> {
        let mut homes: BTreeMap<DatasetId, (Arc<DatasetState>, Vec<Death>)> = BTreeMap::new();
        for death in deaths {
            let home = self.core().home(dataset, death.death);
            homes.entry(home.id).or_insert_with(|| (home, Vec::new())).1.push(death);
        }
        let mut result = Ok(());
        for (home, deaths) in homes.into_values() {
            result = result.and(self.list_deaths_at(&home, deaths));
        }
        result
    }

    /// Lists what died in the order of `dataset`.
    fn list_deaths_at(&mut self, dataset: &DatasetState, deaths: Vec<Death>) -> Result<()> {
        let mut groups: BTreeMap<(Generation, Generation), Vec<Death>> = BTreeMap::new();
        let mut free = Vec::new();
        self.chain(dataset, |chain: &Chain| {
            for death in &deaths {
                let snapshot = chain.before(death.death);
                if death.birth > snapshot {
                    free.push(death.extent);
                } else {
                    groups.entry((snapshot, chain.interval(death.birth))).or_default().push(*death);
                }
            }
        })
        .inspect_err(|_| dataset.tree.deaths().put_back(deaths.clone()))?;
        self.core().free_from_snapshots(free, self.generation);
        let mut result = Ok(());
        for ((snapshot, interval), deaths) in groups {
            if planted(Bug::SkipDeadList) {
                continue;
            }
            if result.is_ok() {
                let entries =
                    deaths.iter().map(|death| DeadEntry { birth: death.birth, extent: death.extent });
                result = self.append(dead_list_key(dataset.id, snapshot, interval), entries.collect());
            }
            if result.is_err() {
                dataset.tree.deaths().put_back(deaths);
            }
        }
        result
    }

    fn sub_list(&self, key: &[u8]) -> Result<Option<SubList>> {
        let value = self.get(key)?;
        value.map(|value| SubList::decode(&value).map_err(|error| damaged("dead list", error))).transpose()
    }

    /// Adds entries to the sub-list with this key. Nothing changes when it fails.
    fn append(&mut self, key: Vec<u8>, entries: Vec<DeadEntry>) -> Result<()> {
        let mut list = self.sub_list(&key)?.unwrap_or_default();
        entries.into_iter().for_each(|entry| list.push(entry));
        self.spill(&mut list)?;
        self.put(&key, Some(&list.encode()))
    }

    /// Moves what a record should not hold itself into chunks.
    fn spill(&mut self, list: &mut SubList) -> Result<()> {
        let mut chunks = Vec::new();
        if list.tail.len() > TAIL_ENTRIES_MAX {
            for entries in list.tail.chunks(CHUNK_ENTRIES_MAX) {
                chunks.push(self.write_chunk(entries)?);
            }
            list.tail.clear();
        }
        for NewChunk { record, space } in chunks {
            space.install(self.generation);
            self.add_chunk(list, &record)?;
            self.remember_space(space);
        }
        if list.parts.len() > PARTS_IN_RECORD_MAX {
            let parts = std::mem::take(&mut list.parts);
            self.add_chunk(list, &ChunkRecord::Parts(parts))?;
        }
        Ok(())
    }

    fn add_chunk(&mut self, list: &mut SubList, record: &ChunkRecord) -> Result<()> {
        if list.parts.is_empty() {
            list.parts.push(Part { list: self.unique(), chunks: 0 });
        }
        let Some(part) = list.parts.last_mut() else { return Ok(()) };
        let key = chunk_key(part.list, part.chunks);
        part.chunks += 1;
        self.put(&key, Some(&record.encode()))
    }

    fn write_chunk(&self, entries: &[DeadEntry]) -> Result<NewChunk> {
        let (dmu, preference) = (&self.core().dmu, StoragePreference::NONE);
        let bytes = encode_chunk(entries);
        let stored = dmu.store_bytes(&bytes, preference)?;
        let space = OwnedExtents::unborn(dmu, stored.all());
        let record = ChunkRecord::Entries {
            length: bytes.len() as u32,
            entries: entries.len() as u32,
            checksum: crc(&bytes),
            extents: stored,
        };
        Ok(NewChunk { record, space })
    }

    /// Takes snapshot `snapshot` of `dataset` out of the order; `before` is the one before it, or 0. What only it had is
    /// condemned.
    pub fn unlink(&mut self, dataset: DatasetId, snapshot: Generation, before: Generation) -> Result<()> {
        for (interval, list) in self.lists_of(dataset, snapshot)? {
            // When there is no room to join it, it stays where it is.
            if interval >= before || planted(Bug::DeleteFreesAll) {
                self.condemn(list)?;
            } else {
                self.join(dead_list_key(dataset, before, interval), list)?;
            }
            self.put(&dead_list_key(dataset, snapshot, interval), None)?;
        }
        Ok(())
    }

    /// The sub-lists of `snapshot`, by interval.
    pub fn lists_of(&self, dataset: DatasetId, snapshot: Generation) -> Result<Vec<(Generation, SubList)>> {
        let (low, high) = keys_of_dead_lists(dataset, snapshot);
        let mut lists = Vec::new();
        self.each(low, high, |key, value| {
            if let Some((_, _, interval)) = key_dead_list(key) {
                lists.push((interval, SubList::decode(value).map_err(|error| damaged("dead list", error))?));
            }
            Ok(true)
        })?;
        Ok(lists)
    }

    /// Adds `list` to the sub-list with this key, by its parts.
    fn join(&mut self, key: Vec<u8>, list: SubList) -> Result<()> {
        let Some(mut joined) = self.sub_list(&key)? else {
            return self.put(&key, Some(&list.encode()));
        };
        joined.entries += list.entries;
        joined.blocks += list.blocks;
        joined.parts.extend(list.parts);
        joined.tail.extend(list.tail);
        self.spill(&mut joined)?;
        self.put(&key, Some(&joined.encode()))
    }

    fn condemn(&mut self, list: SubList) -> Result<()> {
        let key = condemned_key(self.unique());
        self.core().snapshots.condemn();
        self.put(&key, Some(&list.encode()))
    }

    /// Takes the list of `snapshot` away: what it names is alive again, or somebody else's.
    pub fn forget_list(&mut self, dataset: DatasetId, snapshot: Generation) -> Result<()> {
        for (interval, list) in self.lists_of(dataset, snapshot)? {
            self.put(&dead_list_key(dataset, snapshot, interval), None)?;
            if !list.parts.is_empty() {
                self.condemn(SubList { forget: true, parts: list.parts, ..SubList::default() })?;
            }
        }
        Ok(())
    }

    /// Takes all lists of a dataset away that is gone.
    pub fn forget_lists(&mut self, dataset: DatasetId) -> Result<()> {
        let (low, high) = keys_of_dataset(DEAD_LISTS, dataset);
        let mut snapshots = Vec::new();
        self.each(low, high, |key, _| {
            snapshots.extend(key_dead_list(key).map(|(_, snapshot, _)| snapshot));
            Ok(true)
        })?;
        snapshots.dedup();
        snapshots.into_iter().try_for_each(|snapshot| self.forget_list(dataset, snapshot))
    }

    /// Hands the list of `snapshot` from one dataset to another.
    pub fn move_list(&mut self, from: DatasetId, to: DatasetId, snapshot: Generation) -> Result<()> {
        for (interval, list) in self.lists_of(from, snapshot)? {
            self.put(&dead_list_key(from, snapshot, interval), None)?;
            self.put(&dead_list_key(to, snapshot, interval), Some(&list.encode()))?;
        }
        Ok(())
    }

    /// Frees some of what is condemned. A chunk that cannot be read ends this for now: nothing of it is lost but space.
    pub fn free_condemned(&mut self) -> Result<()> {
        let mut left = STEP_ENTRIES;
        while left > 0 && self.core().snapshots.has_condemned() {
            let mut first = None;
            self.each(vec![CONDEMNED], vec![CONDEMNED + 1], |key, value| {
                first = Some((key.to_vec(), value.clone()));
                Ok(false)
            })?;
            let Some((key, value)) = first else {
                self.core().snapshots.set_condemned(false);
                return Ok(());
            };
            let mut list = SubList::decode(&value).map_err(|error| damaged("dead list", error))?;
            match self.free_some(&mut list) {
                Ok(freed) => left = left.saturating_sub(freed.max(1)),
                Err(error) => {
                    log::error!("what a deleted snapshot had is not freed: {error}");
                    self.core().snapshots.set_condemned(false);
                    return Ok(());
                }
            }
            let gone = list.parts.is_empty() && list.tail.is_empty();
            self.put(&key, if gone { None } else { Some(list.encode()) }.as_deref())?;
        }
        Ok(())
    }

    /// Frees the tail or the last chunk of `list`; returns how many entries that were. Nothing changes when it fails.
    fn free_some(&mut self, list: &mut SubList) -> Result<u64> {
        let entries = if !list.tail.is_empty() {
            std::mem::take(&mut list.tail)
        } else if let Some(part) = list.parts.last().copied() {
            let key = chunk_key(part.list, part.chunks - 1);
            let value = self.get(&key)?.ok_or_else(|| damaged("dead list", "a chunk is missing"))?;
            let record = ChunkRecord::decode(&value, &self.core().dmu)?;
            let (entries, parts) = match record {
                ChunkRecord::Parts(parts) => (Vec::new(), parts),
                ChunkRecord::Entries { length, checksum, extents, .. } => {
                    let dmu = &self.core().dmu;
                    let entries = match list.forget {
                        true => Vec::new(),
                        false => read_chunk(dmu, length, checksum, extents.extents())?,
                    };
                    let space = OwnedExtents::from_disk(dmu, extents.all(), Generation(1));
                    space.kill(self.generation);
                    self.core().scrubs.keep(space);
                    (entries, Vec::new())
                }
            };
            self.put(&key, None)?;
            match list.parts.last_mut() {
                Some(last) if last.chunks > 1 => last.chunks -= 1,
                _ => drop(list.parts.pop()),
            }
            list.parts.extend(parts);
            entries
        } else {
            Vec::new()
        };
        let count = entries.len() as u64;
        if !list.forget {
            let blocks: u64 = entries.iter().map(|entry| u64::from(entry.extent.blocks)).sum();
            list.entries = list.entries.saturating_sub(count);
            list.blocks = list.blocks.saturating_sub(blocks);
            let free = entries.into_iter().map(|entry| entry.extent).collect();
            self.core().free_from_snapshots(free, self.generation);
        }
        Ok(count)
    }
}

/// What the lists in the root tree own: the space of their chunks, and what is condemned.
pub(in crate::database) fn listed_extents(view: &View, dmu: &Dmu) -> Result<Vec<Extent>> {
    let mut owned = Vec::new();
    each_entry(view, vec![CHUNKS], vec![CHUNKS + 1], |_, value| {
        if let ChunkRecord::Entries { extents, .. } = ChunkRecord::decode(value, dmu)? {
            owned.extend(extents.all());
        }
        Ok(true)
    })?;
    each_entry(view, vec![CONDEMNED], vec![CONDEMNED + 1], |_, value| {
        let list = SubList::decode(value).map_err(|error| damaged("dead list", error))?;
        if !list.forget {
            owned.extend(entries_of(view, dmu, &list)?.into_iter().map(|entry| entry.extent));
        }
        Ok(true)
    })?;
    Ok(owned)
}

/// The chunks of dead lists, each with the lists of its extents.
pub(in crate::database) fn listed_chunks(
    view: &View,
    dmu: &Dmu,
    visit: &mut dyn FnMut(Vec<ScrubTask>),
) -> Result<()> {
    each_entry(view, vec![CHUNKS], vec![CHUNKS + 1], |_, value| {
        if let ChunkRecord::Entries { length, checksum, extents, .. } = ChunkRecord::decode(value, dmu)? {
            let mut tasks = ScrubTask::of_lists(&extents);
            tasks.push(ScrubTask::of(extents.extents().to_vec(), u64::from(length), checksum));
            visit(tasks);
        }
        Ok(true)
    })
}

/// All entries of `list`.
fn entries_of(view: &View, dmu: &Dmu, list: &SubList) -> Result<Vec<DeadEntry>> {
    let (mut entries, mut parts) = (list.tail.clone(), list.parts.clone());
    while let Some(part) = parts.pop() {
        for index in 0..part.chunks {
            let value = view.get(&chunk_key(part.list, index)).map_err(of_root)?;
            let value = value.ok_or_else(|| damaged("dead list", "a chunk is missing"))?;
            match ChunkRecord::decode(&value, dmu)? {
                ChunkRecord::Parts(more) => parts.extend(more),
                ChunkRecord::Entries { length, checksum, extents, .. } => {
                    entries.extend(read_chunk(dmu, length, checksum, extents.extents())?);
                }
            }
        }
    }
    Ok(entries)
}

impl Core {
    /// Looks whether an earlier opening left something to free.
    pub fn find_condemned(&self) -> Result<()> {
        each_entry(&self.snapshots.root()?, vec![CONDEMNED], vec![CONDEMNED + 1], |_, _| {
            self.snapshots.condemn();
            Ok(false)
        })
    }

    /// Frees extents that no tree and no snapshot refers to from `generation` on. Who reads an older state keeps them.
    pub fn free_from_snapshots(&self, extents: Vec<Extent>, generation: Generation) {
        if extents.is_empty() {
            return;
        }
        let space = Arc::new(OwnedExtents::from_disk(&self.dmu, extents, Generation(1)));
        space.kill(generation);
        let all = self.catalog.read().all();
        for dataset in all {
            dataset.tree.keep_for_readers(&space, true);
            let open: Vec<_> = dataset.lineage.lock().open.values().filter_map(Weak::upgrade).collect();
            open.iter().for_each(|tree| tree.keep_for_readers(&space, true));
        }
        self.snapshots.keep_for_readers(&space);
    }
}
