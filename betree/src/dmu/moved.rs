//! Where extents are that lay on a vdev that left: the map, and what a checkpoint changes in it.
//!
//! Pointers go on naming the extents. Whoever reads through them is led to their *places* ([`Dmu::parts`]); who frees them
//! frees these: the bits of the places are cleared in the checkpoint in which the extent dies, and the line of the extent is
//! not in the map of that checkpoint any more. In memory it stays until the extent is released, that is, as long as somebody holds it.
//!
//! A checkpoint writes the chunks of the map that changed, each to a new place, and the directory that names them. They are
//! written before the bitmaps, which have their births and deaths.

use super::commit::Departures;
use super::evacuation::Switch;
use super::format::{
    ChunkEntry, DIRECTORY_MAGIC, IndirectVdev, PLACE_BYTES, VDEV_BLOCKS_MAX, decode_chunk, decode_map_head,
    encode_chunk, map_head,
};
use super::lifetime::{Changes, OwnedExtents};
use super::sequence::{Part, geometry_of, parts};
use super::{Dmu, DmuError, ScrubTask, StoredExtents};
use crate::base::checksum::crc;
use crate::base::codec::{DecodeError, Decoder, Encoder};
use crate::base::extent::{Extent, total_blocks};
use crate::base::ids::{Generation, VdevId};
use crate::base::preference::StoragePreference;
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::sync::{Mutex, RwLock};
use crate::base::units::BLOCK_BYTES;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

/// Blocks of the vdev that a chunk is about: 128 MiB. Chunks are short in the tests, so that there are several.
pub(super) const CHUNK_BLOCKS: u64 = if cfg!(test) { 1 << 9 } else { 1 << 15 };

/// The maps of all vdevs that left.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Whether there are any: most pools have none.
    exists: AtomicBool,
    /// What the maps are in.
    blocks: AtomicU64,
    maps: RwLock<BTreeMap<VdevId, Map>>,
    /// What the checkpoint that is being written changes.
    plan: Mutex<Option<Plan>>,
}

/// Where an extent is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub blocks: u32,
    /// Put together they hold what it held.
    pub places: Vec<Extent>,
    /// No checkpoint has it any more; somebody may hold it.
    pub is_dead: bool,
}

/// The map of one vdev.
#[derive(Debug, Default)]
struct Map {
    since: Generation,
    /// By the first block of the extent.
    lines: BTreeMap<u64, Line>,
    stored: StoredMap,
}

/// How the last checkpoint has a map.
#[derive(Debug, Clone, Default)]
struct StoredMap {
    /// By number.
    chunks: BTreeMap<u64, Stored>,
    directory: Option<Stored>,
}

/// Bytes in extents of their own.
#[derive(Debug, Clone)]
struct Stored {
    bytes: u32,
    checksum: u32,
    extents: StoredExtents,
    hold: Hold,
}

/// Who has one keeps a chunk, or a directory, of a map from being written over. Once no checkpoint names it any more, it has its
/// extents, which are given back with the last of these.
#[derive(Debug, Clone, Default)]
pub struct Hold(Arc<OnceLock<OwnedExtents>>);

impl StoredMap {
    fn all(&self) -> impl Iterator<Item = &Stored> {
        self.chunks.values().chain(&self.directory)
    }

    /// Blocks that they take.
    fn blocks(&self) -> u64 {
        self.all().map(|stored| total_blocks(&stored.extents.all())).sum()
    }
}

/// What a checkpoint changes in the maps.
#[derive(Debug)]
struct Plan {
    /// What was born and died, as the layers above say it.
    original: Changes,
    /// Extents of vdevs that left, and die.
    dead: Vec<Extent>,
    /// Maps that are written.
    stored: BTreeMap<VdevId, StoredMap>,
    /// What was allocated for them, and what they were before.
    fresh: Vec<Extent>,
    old: Vec<Stored>,
    switch: Option<Switch>,
}

impl Plan {
    /// What is free when nobody looks at `old` any more. What is on the vdev that leaves, leaves with it.
    fn free_of(&self, old: &Stored) -> Vec<Extent> {
        let leaving = self.switch.as_ref().map(|switch| switch.vdev);
        old.extents.all().into_iter().filter(|extent| Some(extent.vdev) != leaving).collect()
    }
}

/// Chunks by number.
type Chunks = Vec<(u64, Vec<ChunkEntry>)>;

/// A vdev that left, and what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DepartedVdev {
    /// The vdev.
    pub id: VdevId,
    /// The generation from which on it is gone.
    pub since: Generation,
    /// Extents of it that live.
    pub extents: u64,
    /// Blocks that their copies take.
    pub blocks: u64,
}

impl Moved {
    /// The vdevs that left.
    pub fn vdevs(&self) -> Vec<VdevId> {
        self.maps.read().keys().copied().collect()
    }

    fn note_blocks(&self, maps: &BTreeMap<VdevId, Map>) {
        self.blocks.store(maps.values().map(|map| map.stored.blocks()).sum(), Ordering::Relaxed);
    }
}

/// The numbers of the chunks that `lines` are in.
fn numbers(lines: &BTreeMap<u64, Line>) -> BTreeSet<u64> {
    lines.keys().map(|block| block / CHUNK_BLOCKS).collect()
}

fn damaged(dmu: &Dmu, vdev: VdevId, extents: &[Extent], reason: String) -> DmuError {
    let (device, block) = dmu.named_block_at(extents, 0);
    DmuError::Corrupt {
        what: "map of a vdev that left",
        device,
        block,
        reason: format!("vdev {vdev}: {reason}"),
    }
}

impl Dmu {
    /// As [`parts`], at the places of extents that moved.
    pub(super) fn parts(&self, extents: &[Extent], offset: u64, len: usize) -> Result<Vec<Part>, DmuError> {
        let found = parts(self.pool(), extents, offset, len)?;
        if !self.moved().exists.load(Ordering::Acquire) {
            return Ok(found);
        }
        let maps = self.moved().maps.read();
        let mut out = Vec::with_capacity(found.len());
        for part in found {
            let line = maps.get(&part.extent.vdev).and_then(|map| map.lines.get(&part.extent.block));
            match line.filter(|line| line.blocks == part.extent.blocks) {
                Some(line) => self.parts_of_line(line, part, &mut out),
                // Of what died before its vdev left, this process may hold something: then it still has the vdev.
                None => out.push(part),
            }
        }
        Ok(out)
    }

    fn parts_of_line(&self, line: &Line, part: Part, out: &mut Vec<Part>) {
        let (mut skip, mut at) = (part.from, part.range.start);
        for place in &line.places {
            let geometry = geometry_of(self.pool(), place.vdev);
            let blocks = geometry.capacity(u64::from(place.blocks));
            if skip >= blocks {
                skip -= blocks;
                continue;
            }
            let bytes = usize::try_from(blocks - skip).unwrap_or(usize::MAX).saturating_mul(BLOCK_BYTES);
            let end = at + bytes.min(part.range.end - at);
            out.push(Part { extent: *place, geometry, from: skip, range: at..end });
            (skip, at) = (0, end);
            if at == part.range.end {
                break;
            }
        }
    }

    /// Where `extent` is now, if it lay on a vdev that left. `None` for any other, and for what nothing has any more.
    #[must_use]
    pub fn places_of_moved(&self, extent: &Extent) -> Option<Vec<Extent>> {
        if !self.moved().exists.load(Ordering::Acquire) {
            return None;
        }
        let maps = self.moved().maps.read();
        let line = maps.get(&extent.vdev)?.lines.get(&extent.block)?;
        (line.blocks == extent.blocks).then(|| line.places.clone())
    }

    /// Whether the last checkpoint has `extent`, which lay on a vdev that left.
    pub(super) fn is_moved_and_alive(&self, extent: &Extent) -> bool {
        let maps = self.moved().maps.read();
        let line = maps.get(&extent.vdev).and_then(|map| map.lines.get(&extent.block));
        line.is_some_and(|line| line.blocks == extent.blocks && !line.is_dead)
    }

    /// Whether `vdev` left.
    #[must_use]
    pub fn has_left(&self, vdev: VdevId) -> bool {
        self.moved().maps.read().contains_key(&vdev)
    }

    /// The vdevs that left, ascending by id.
    #[must_use]
    pub fn departed(&self) -> Vec<DepartedVdev> {
        let maps = self.moved().maps.read();
        let of = |(id, map): (&VdevId, &Map)| {
            let alive = || map.lines.values().filter(|line| !line.is_dead);
            let blocks = alive().flat_map(|line| &line.places).map(|place| u64::from(place.blocks)).sum();
            DepartedVdev { id: *id, since: map.since, extents: alive().count() as u64, blocks }
        };
        maps.iter().map(of).collect()
    }

    /// What the maps themselves are in.
    #[must_use]
    pub fn map_extents(&self) -> Vec<Extent> {
        let maps = self.moved().maps.read();
        maps.values().flat_map(|map| map.stored.all()).flat_map(|stored| stored.extents.all()).collect()
    }

    /// Blocks that the maps are in, and what the map of the vdev that is to leave will be in.
    #[must_use]
    pub fn map_blocks(&self) -> u64 {
        let coming =
            self.evacuation().lock().as_ref().map_or(0, |evacuation| evacuation.map_blocks(self.pool()));
        self.moved().blocks.load(Ordering::Relaxed) + coming
    }

    /// What there is to look at of the maps themselves, and what keeps it where it is meanwhile.
    #[must_use]
    pub fn map_tasks(&self) -> Vec<(ScrubTask, Hold)> {
        let maps = self.moved().maps.read();
        let mut tasks = Vec::new();
        for stored in maps.values().flat_map(|map| map.stored.all()) {
            let lists = ScrubTask::of_lists(&stored.extents);
            let extents = stored.extents.extents().to_vec();
            let data = ScrubTask::of(extents, u64::from(stored.bytes), stored.checksum);
            tasks.extend(lists.into_iter().chain([data]).map(|task| (task, stored.hold.clone())));
        }
        tasks
    }

    /// Reads the maps of the vdevs that `indirect` lists.
    ///
    /// # Errors
    /// Damage, device errors.
    pub(super) fn load_maps(&self, indirect: &[IndirectVdev]) -> Result<(), DmuError> {
        let mut maps = BTreeMap::new();
        for vdev in indirect {
            maps.insert(vdev.id, self.load_map(vdev)?);
        }
        self.moved().exists.store(!maps.is_empty(), Ordering::Release);
        self.moved().note_blocks(&maps);
        *self.moved().maps.write() = maps;
        if !indirect.is_empty() {
            self.place_anew();
        }
        Ok(())
    }

    fn load_map(&self, vdev: &IndirectVdev) -> Result<Map, DmuError> {
        let plain = |source: DecodeError| DmuError::Decode { what: "map of a vdev that left", source };
        let mut map = Map { since: vdev.since, ..Map::default() };
        if vdev.bytes == 0 {
            return Ok(map);
        }
        let mut place = Decoder::new(&vdev.place);
        let extents = StoredExtents::decode(&mut place, self)?;
        let rest = place.remaining();
        place.zeros(rest).map_err(plain)?;
        let hold = Hold::default();
        let directory = Stored { bytes: vdev.bytes, checksum: vdev.checksum, extents, hold };
        let bytes = self.read_stored(vdev.id, &directory)?;
        let mut input = Decoder::new(&bytes);
        let count = decode_map_head(&mut input, DIRECTORY_MAGIC, vdev.id).map_err(plain)?;
        let mut before = None;
        for _ in 0..count {
            let block = input.u64("first block of a chunk").map_err(plain)?;
            let bytes = input.u32("bytes of a chunk").map_err(plain)?;
            let checksum = input.u32("checksum of a chunk").map_err(plain)?;
            if before.is_some_and(|before| before >= block)
                || !block.is_multiple_of(CHUNK_BLOCKS)
                || block > VDEV_BLOCKS_MAX
            {
                return Err(plain(input.invalid("first block of a chunk")));
            }
            before = Some(block);
            let (extents, hold) = (StoredExtents::decode(&mut input, self)?, Hold::default());
            let stored = Stored { bytes, checksum, extents, hold };
            self.load_chunk(vdev.id, block, &stored, &mut map.lines)?;
            map.stored.chunks.insert(block / CHUNK_BLOCKS, stored);
        }
        input.finish("directory of a map").map_err(plain)?;
        map.stored.directory = Some(directory);
        Ok(map)
    }

    fn load_chunk(
        &self,
        vdev: VdevId,
        start: u64,
        stored: &Stored,
        lines: &mut BTreeMap<u64, Line>,
    ) -> Result<(), DmuError> {
        let bytes = self.read_stored(vdev, stored)?;
        let plain = |source: DecodeError| DmuError::Decode { what: "map of a vdev that left", source };
        let geometry = geometry_of(self.pool(), vdev);
        for entry in decode_chunk(&bytes, vdev).map_err(plain)? {
            let ChunkEntry { block, blocks, places } = entry;
            let held = self.data_blocks(&places);
            let is_inside = (start..start + CHUNK_BLOCKS).contains(&block);
            if !is_inside || held < geometry.capacity(u64::from(blocks)) {
                let reason = format!("the places of blocks {block}+{blocks} do not hold these");
                return Err(damaged(self, vdev, stored.extents.extents(), reason));
            }
            lines.insert(block, Line { blocks, places, is_dead: false });
        }
        Ok(())
    }

    fn read_stored(&self, vdev: VdevId, stored: &Stored) -> Result<Vec<u8>, DmuError> {
        let (extents, length) = (stored.extents.extents(), stored.bytes as usize);
        let mut is_right = |bytes: &[u8]| crc(&bytes[..length]) == stored.checksum;
        let (bytes, right) =
            self.read_checked(extents, 0, length.next_multiple_of(BLOCK_BYTES), 0..length, &mut is_right)?;
        if !right {
            let reason = String::from("its checksum differs from the one in what names it");
            return Err(damaged(self, vdev, extents, reason));
        }
        Ok(bytes[..length].to_vec())
    }

    /// Takes out of the map what `extent` was, when nothing has it any more: its places, to be released.
    pub(super) fn release_moved(&self, extent: &Extent) -> Option<Vec<Extent>> {
        if !self.moved().exists.load(Ordering::Acquire) {
            return None;
        }
        let mut maps = self.moved().maps.write();
        let lines = &mut maps.get_mut(&extent.vdev)?.lines;
        if lines.get(&extent.block)?.blocks != extent.blocks {
            return None;
        }
        // What is not dead is refused by the bitmaps.
        Some(lines.remove(&extent.block)?.places)
    }

    /// Whether a checkpoint may have to say something of vdevs that left.
    pub(super) fn has_departures(&self) -> bool {
        self.moved().exists.load(Ordering::Acquire) || self.evacuation().lock().is_some()
    }

    /// [`Dmu::write_bitmaps`], with the maps.
    pub(super) fn write_bitmaps_and_maps(
        &self,
        generation: Generation,
        original: Changes,
    ) -> Result<Vec<u8>, DmuError> {
        let (dead, stored) = (Vec::new(), BTreeMap::new());
        let mut plan = Plan { original, dead, stored, fresh: Vec::new(), old: Vec::new(), switch: None };
        let written = self.plan(generation, &mut plan).and_then(|(changes, departures)| {
            self.allocator().commit_with(generation, &changes.born, &changes.dead, departures)
        });
        match written {
            Ok(root) => {
                *self.moved().plan.lock() = Some(plan);
                Ok(root)
            }
            Err(error) => {
                self.forget(generation, plan);
                Err(error)
            }
        }
    }

    fn forget(&self, generation: Generation, plan: Plan) {
        self.release(&plan.fresh);
        self.lifetimes().restore_changes(generation, plan.original);
    }

    /// Takes back [`Dmu::write_bitmaps_and_maps`]; whether it was that.
    pub(super) fn abort_maps(&self, generation: Generation) -> bool {
        let Some(plan) = self.moved().plan.lock().take() else { return false };
        self.allocator().aborted();
        self.forget(generation, plan);
        true
    }

    /// What the bitmaps of `generation` change, and what its table says of vdevs that left; the maps are written.
    fn plan(&self, generation: Generation, plan: &mut Plan) -> Result<(Changes, Departures), DmuError> {
        let mut changes = Changes { born: plan.original.born.clone(), dead: Vec::new() };
        self.deaths_of_moved(plan, &mut changes.dead)?;
        plan.switch = self.switch(generation, &plan.original, &plan.dead)?;
        let leaving = plan.switch.as_ref().map(|switch| switch.vdev);
        changes.born.extend(plan.switch.iter().flat_map(|switch| &switch.born));
        for (vdev, mut stored, chunks) in self.chunks_to_write(plan) {
            for (number, entries) in chunks {
                let before = match entries.is_empty() {
                    true => stored.chunks.remove(&number),
                    false => {
                        let chunk = self.store_map(&encode_chunk(vdev, &entries), plan)?;
                        stored.chunks.insert(number, chunk)
                    }
                };
                plan.old.extend(before);
            }
            let directory = match stored.chunks.is_empty() {
                true => None,
                false => Some(self.store_map(&encode_directory(vdev, &stored.chunks), plan)?),
            };
            let before = std::mem::replace(&mut stored.directory, directory);
            plan.old.extend(before);
            plan.stored.insert(vdev, stored);
        }
        changes.born.extend_from_slice(&plan.fresh);
        changes.dead.extend(plan.old.iter().flat_map(|old| plan.free_of(old)));
        let maps = self.moved().maps.read();
        let of_map = |(vdev, map): (&VdevId, &Map)| {
            indirect_of(*vdev, map.since, plan.stored.get(vdev).unwrap_or(&map.stored))
        };
        let mut indirect: Vec<IndirectVdev> = maps.iter().map(of_map).collect();
        if let Some(vdev) = leaving {
            let none = StoredMap::default();
            indirect.push(indirect_of(vdev, generation, plan.stored.get(&vdev).unwrap_or(&none)));
            indirect.sort_by_key(|vdev| vdev.id);
        }
        Ok((changes, Departures { indirect, leaving }))
    }

    /// Puts into `dead` what dies on devices: the places of extents that moved.
    fn deaths_of_moved(&self, plan: &mut Plan, dead: &mut Vec<Extent>) -> Result<(), DmuError> {
        let maps = self.moved().maps.read();
        for extent in &plan.original.dead {
            let Some(map) = maps.get(&extent.vdev) else {
                dead.push(*extent);
                continue;
            };
            let line = map.lines.get(&extent.block);
            let Some(line) = line.filter(|line| line.blocks == extent.blocks && !line.is_dead) else {
                let what = "a checkpoint frees an extent that the map of its vdev does not have";
                return Err(DmuError::Allocation { what, extent: *extent });
            };
            dead.extend_from_slice(&line.places);
            plan.dead.push(*extent);
        }
        Ok(())
    }

    /// The chunks that change, and those that lie where nothing is to stay: of each vdev what it has now, and what these are to be.
    fn chunks_to_write(&self, plan: &Plan) -> Vec<(VdevId, StoredMap, Chunks)> {
        let maps = self.moved().maps.read();
        let mut dirty: BTreeMap<VdevId, BTreeSet<u64>> = BTreeMap::new();
        for extent in &plan.dead {
            dirty.entry(extent.vdev).or_default().insert(extent.block / CHUNK_BLOCKS);
        }
        if let Some(switch) = &plan.switch {
            for extent in switch.changed.keys() {
                dirty.entry(extent.vdev).or_default().insert(extent.block / CHUNK_BLOCKS);
            }
            dirty.insert(switch.vdev, numbers(&switch.lines));
            let leaves =
                |stored: &Stored| stored.extents.all().iter().any(|extent| extent.vdev == switch.vdev);
            for (vdev, map) in maps.iter().filter(|(_, map)| map.stored.all().any(leaves)) {
                let chunks = map.stored.chunks.iter().filter(|(_, stored)| leaves(stored));
                dirty.entry(*vdev).or_default().extend(chunks.map(|(number, _)| *number));
            }
        }
        let none = Map::default();
        let of_vdev = |(vdev, numbers): (VdevId, BTreeSet<u64>)| {
            let map = maps.get(&vdev).unwrap_or(&none);
            let chunk = |number: u64| (number, entries_of(vdev, map, number, plan));
            (vdev, map.stored.clone(), numbers.into_iter().map(chunk).collect())
        };
        dirty.into_iter().map(of_vdev).collect()
    }

    fn store_map(&self, bytes: &[u8], plan: &mut Plan) -> Result<Stored, DmuError> {
        let extents = self.store_bytes(bytes, StoragePreference::NONE)?;
        plan.fresh.extend(extents.all());
        let (length, hold) = (bytes.len() as u32, Hold::default());
        Ok(Stored { bytes: length, checksum: crc(bytes), extents, hold })
    }

    /// The checkpoint that was planned is durable, [`Lifetimes::set_durable`](super::lifetime::Lifetimes::set_durable) knows.
    pub(super) fn take_over_maps(&self, generation: Generation) {
        let Some(mut plan) = self.moved().plan.lock().take() else { return };
        let old = std::mem::take(&mut plan.old);
        let old: Vec<(Vec<Extent>, Hold)> =
            old.into_iter().map(|old| (plan.free_of(&old), old.hold)).collect();
        let mut maps = self.moved().maps.write();
        for extent in &plan.dead {
            let line = maps.get_mut(&extent.vdev).and_then(|map| map.lines.get_mut(&extent.block));
            if let Some(line) = line {
                line.is_dead = true;
            }
        }
        let (mut unused, mut left) = (Vec::new(), None);
        if let Some(switch) = plan.switch {
            left = Some(switch.vdev);
            for (extent, places) in switch.changed {
                let line = maps.get_mut(&extent.vdev).and_then(|map| map.lines.get_mut(&extent.block));
                if let Some(line) = line {
                    line.places = places;
                }
            }
            let lines = switch.lines;
            maps.insert(switch.vdev, Map { since: generation, lines, stored: StoredMap::default() });
            unused = switch.unused;
            self.moved().exists.store(true, Ordering::Release);
        }
        for (vdev, stored) in plan.stored {
            if let Some(map) = maps.get_mut(&vdev) {
                map.stored = stored;
            }
        }
        self.moved().note_blocks(&maps);
        drop(maps);
        if let Some(vdev) = left {
            self.end_evacuation(vdev);
            self.place_anew();
        }
        self.release(&unused);
        for (extents, Hold(hold)) in old {
            hold.get_or_init(|| OwnedExtents::dead(self, extents, generation));
        }
    }
}

/// The lines of chunk `number` of `map` as the checkpoint of `plan` has them.
fn entries_of(vdev: VdevId, map: &Map, number: u64, plan: &Plan) -> Vec<ChunkEntry> {
    let switch = plan.switch.as_ref();
    let lines = match switch.filter(|switch| switch.vdev == vdev) {
        Some(switch) => &switch.lines,
        None => &map.lines,
    };
    let mut entries = Vec::new();
    for (block, line) in lines.range(number * CHUNK_BLOCKS..(number + 1) * CHUNK_BLOCKS) {
        let extent = Extent { vdev, block: *block, blocks: line.blocks };
        // In order, as changes are.
        if line.is_dead || plan.dead.binary_search(&extent).is_ok() {
            continue;
        }
        let changed = switch.and_then(|switch| switch.changed.get(&extent));
        let places = changed.unwrap_or(&line.places).clone();
        entries.push(ChunkEntry { block: *block, blocks: line.blocks, places });
    }
    entries
}

fn encode_directory(vdev: VdevId, chunks: &BTreeMap<u64, Stored>) -> Vec<u8> {
    let mut out = map_head(DIRECTORY_MAGIC, vdev, chunks.len());
    for (number, stored) in chunks {
        out.u64(number * CHUNK_BLOCKS);
        out.u32(stored.bytes);
        out.u32(stored.checksum);
        stored.extents.encode(&mut out);
    }
    out.finish()
}

fn indirect_of(id: VdevId, since: Generation, stored: &StoredMap) -> IndirectVdev {
    let mut place = [0; PLACE_BYTES];
    let Some(directory) = &stored.directory else {
        return IndirectVdev { id, bytes: 0, checksum: 0, since, place };
    };
    let mut out = Encoder::new();
    directory.extents.encode(&mut out);
    let encoded = out.finish();
    place[..encoded.len()].copy_from_slice(&encoded);
    IndirectVdev { id, bytes: directory.bytes, checksum: directory.checksum, since, place }
}
