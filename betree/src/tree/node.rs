//! Nodes: pivots and slots of immutable runs.
//!
//! A [`NodeBody`] never changes; an edit builds new bodies along the path to the root and publishes a new root. A
//! [`NodeCell`] is the shared place of one body: in memory, on disk, or both.

use super::TreeError;
use super::drops::Dropping;
use super::format::{NodeRef, decode_node, encode_node};
use crate::base::ids::Generation;
use crate::base::sync::Mutex;
use crate::base::units::BLOCK_BYTES;
use crate::base::{checksum::crc, preference::StoragePreference};
use crate::dmu::{Admission, Charge, Deaths, Dmu, Evictable, Heat, OwnedExtents};
use crate::run::Run;
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// One child of a node: its buffered runs and, above level 1, the child node.
#[derive(Debug)]
pub struct Slot {
    /// Newest first. At level 1 the last [`Slot::base`] of them are the base of the leaf.
    pub runs: Vec<Arc<Run>>,
    /// Number of base runs, disjoint in keys, at the end of `runs`; 0 above level 1.
    pub base: usize,
    /// The child; `None` at level 1.
    pub child: Option<Arc<NodeCell>>,
    /// Bytes of the blocks that the runs occupy that are not base: a small run takes a whole block as well, and a buffer of
    /// many such runs costs space and searching before its stored bytes show it.
    pub delta_bytes: u64,
    /// Stored bytes of the base runs.
    pub base_bytes: u64,
    /// How many of the runs that are not base overlap in one key at most.
    pub depth: usize,
    /// Whether any run holds range deletes.
    pub range_deletes: bool,
    /// Whether some runs do not overlap others, so that it pays to look at their bounds before their filters.
    pub sparse: bool,
    /// Work that reads had because there is more than one run here; drives consolidation on read.
    pub visits: AtomicU32,
}

impl Slot {
    /// A slot with these runs.
    #[must_use]
    pub fn new(runs: Vec<Arc<Run>>, base: usize, child: Option<Arc<NodeCell>>) -> Self {
        let deltas = runs.len() - base;
        let depth = overlap_depth(&runs[..deltas]);
        Self {
            delta_bytes: runs[..deltas].iter().map(|run| occupied_bytes(run)).sum(),
            base_bytes: runs[deltas..].iter().map(|run| run.stored_bytes()).sum(),
            depth,
            sparse: depth < deltas || base > 1,
            range_deletes: runs.iter().any(|run| run.reference().range_deletes > 0),
            visits: AtomicU32::new(0),
            runs,
            base,
            child,
        }
    }

    /// The same child and runs with `newer` in front.
    #[must_use]
    pub fn with_newer(&self, newer: &[Arc<Run>]) -> Self {
        let runs = newer.iter().chain(&self.runs).cloned().collect();
        Self::new(runs, self.base, self.child.clone())
    }

    /// The same runs over another child.
    #[must_use]
    pub fn with_child(&self, child: Arc<NodeCell>) -> Self {
        Self {
            runs: self.runs.clone(),
            base: self.base,
            child: Some(child),
            delta_bytes: self.delta_bytes,
            base_bytes: self.base_bytes,
            depth: self.depth,
            range_deletes: self.range_deletes,
            sparse: self.sparse,
            visits: AtomicU32::new(self.visits.load(Ordering::Relaxed)),
        }
    }
}

impl Slot {
    fn footprint(&self) -> usize {
        let runs: usize = self.runs.iter().map(|run| run.footprint() + size_of::<Arc<Run>>()).sum();
        let child = if self.child.is_some() { size_of::<NodeCell>() } else { 0 };
        size_of::<Self>() + runs + child
    }

    fn is_unshared(self: &Arc<Self>) -> bool {
        let run_is =
            |run: &Arc<Run>| Arc::strong_count(run) == 1 && Arc::strong_count(run.space().keeper()) == 1;
        let child_is = |child: &Arc<NodeCell>| Arc::strong_count(child) == 1 && child.unload();
        Arc::strong_count(self) == 1
            && self.runs.iter().all(run_is)
            && self.child.as_ref().is_none_or(child_is)
    }
}

fn occupied_bytes(run: &Run) -> u64 {
    run.stored_bytes().next_multiple_of(BLOCK_BYTES as u64)
}

/// The largest number of `runs` that overlap in one key.
fn overlap_depth(runs: &[Arc<Run>]) -> usize {
    let mut deepest = 0;
    for run in runs {
        // Some key of maximal depth is the lowest key of a run.
        let depth = runs.iter().filter(|other| other.spans(run.low())).count();
        deepest = deepest.max(depth);
    }
    deepest
}

/// The immutable contents of a node.
#[derive(Debug)]
pub struct NodeBody {
    /// 1 for the level above the leaves' runs.
    pub level: u8,
    /// Strictly increasing; slot i holds keys from `pivots[i-1]` (inclusive) to `pivots[i]` (exclusive).
    pub pivots: Vec<Box<[u8]>>,
    /// One more than pivots.
    pub slots: Vec<Arc<Slot>>,
}

impl NodeBody {
    /// An empty node of one slot; above level 1 with an empty child.
    #[must_use]
    pub fn empty(dmu: &Dmu, level: u8) -> Self {
        let child = (level > 1).then(|| NodeCell::fresh(dmu, Self::empty(dmu, level - 1)));
        Self { level, pivots: Vec::new(), slots: vec![Arc::new(Slot::new(Vec::new(), 0, child))] }
    }

    /// Index of the slot that holds `key`.
    #[must_use]
    pub fn slot_index(&self, key: &[u8]) -> usize {
        self.pivots.partition_point(|pivot| **pivot <= *key)
    }

    /// Index of the slot that holds the keys just below `key` (`None`: the last slot).
    #[must_use]
    pub fn slot_index_before(&self, key: Option<&[u8]>) -> usize {
        key.map_or(self.pivots.len(), |key| self.pivots.partition_point(|pivot| **pivot < *key))
    }

    /// Lower bound of slot `index`; `None`: that of the node.
    #[must_use]
    pub fn slot_low(&self, index: usize) -> Option<&[u8]> {
        index.checked_sub(1).and_then(|before| self.pivots.get(before)).map(|pivot| &**pivot)
    }

    /// Upper bound of slot `index`, exclusive; `None`: that of the node.
    #[must_use]
    pub fn slot_high(&self, index: usize) -> Option<&[u8]> {
        self.pivots.get(index).map(|pivot| &**pivot)
    }

    /// Bytes of memory, about.
    fn footprint(&self) -> usize {
        let pivots: usize = self.pivots.iter().map(|pivot| pivot.len() + size_of::<Box<[u8]>>()).sum();
        let slots: usize = self.slots.iter().map(|slot| slot.footprint()).sum();
        size_of::<Self>() + pivots + slots
    }

    /// Whether nothing refers to any part of the node but through the node itself, of which the caller has the only
    /// reference.
    fn is_unshared(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && self.slots.iter().all(Slot::is_unshared)
    }

    /// The node with slot `index` replaced by `slots`, which are separated by `pivots` (one fewer).
    #[must_use]
    pub fn with_slots(&self, index: usize, slots: Vec<Arc<Slot>>, pivots: Vec<Box<[u8]>>) -> Self {
        let mut body = Self { level: self.level, pivots: self.pivots.clone(), slots: self.slots.clone() };
        body.slots.splice(index..=index, slots);
        body.pivots.splice(index..index, pivots);
        body
    }
}

#[derive(Debug, Default)]
struct Disk {
    stored: Option<(NodeRef, OwnedExtents)>,
    /// What the contents count in the cache while they are in memory; dirty until they are on disk.
    charge: Option<Charge>,
    /// Generation in which the live tree dropped the node; 0 while it is alive.
    death: u64,
}

/// The shared place of a node.
///
/// The cache puts the contents of a stored node out of memory when nothing but the node refers to them: runs and nodes
/// have one identity each, through which their users keep their space from being used again, and contents that are read
/// anew bring new ones. For the same reason a dead node keeps its contents as long as someone holds it.
#[derive(Debug)]
pub struct NodeCell {
    level: u8,
    body: ArcSwapOption<NodeBody>,
    disk: Mutex<Disk>,
    heat: Heat,
}

impl NodeCell {
    /// A node that exists in memory only.
    #[must_use]
    pub fn fresh(dmu: &Dmu, body: NodeBody) -> Arc<Self> {
        let level = body.level;
        let charge = Some(dmu.cache().charge_dirty(body.footprint()));
        Arc::new(Self {
            level,
            body: ArcSwapOption::from_pointee(body),
            disk: Mutex::new(Disk { charge, ..Disk::default() }),
            heat: Heat::default(),
        })
    }

    /// A node on disk, loaded at first use.
    #[must_use]
    pub fn on_disk(dmu: &Dmu, reference: NodeRef) -> Arc<Self> {
        let space = OwnedExtents::from_disk(dmu, reference.extents.all(), reference.birth);
        let level = reference.level;
        let disk = Mutex::new(Disk { stored: Some((reference, space)), ..Disk::default() });
        Arc::new(Self { level, body: ArcSwapOption::empty(), disk, heat: Heat::default() })
    }

    /// Level of the node.
    #[must_use]
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Whether the contents are in memory now.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        self.body.load().is_some()
    }

    /// The contents, read from disk when they are not in memory.
    ///
    /// # Errors
    /// Device errors, [`TreeError::Node`] on damage.
    #[inline]
    pub fn load(self: &Arc<Self>, dmu: &Dmu) -> Result<Arc<NodeBody>, TreeError> {
        match self.body.load_full() {
            Some(body) => {
                self.heat.touch();
                Ok(body)
            }
            None => self.load_from_disk(dmu),
        }
    }

    #[cold]
    fn load_from_disk(self: &Arc<Self>, dmu: &Dmu) -> Result<Arc<NodeBody>, TreeError> {
        let mut disk = self.disk.lock();
        if let Some(body) = self.body.load_full() {
            return Ok(body);
        }
        let Some((reference, _)) = &disk.stored else {
            unreachable!("a node is in memory or on disk");
        };
        dmu.cache().record_miss();
        let body = Arc::new(read_node(dmu, reference)?);
        self.body.store(Some(Arc::clone(&body)));
        let identity = identity(reference);
        let bytes = body.footprint();
        // The cache may not be called with the lock held; until then the contents are charged to nobody.
        drop(std::mem::take(&mut disk.charge));
        drop(disk);
        self.enter_cache(dmu, bytes, identity);
        Ok(body)
    }

    /// Puts contents that are in memory and on disk under the rule of the cache.
    fn enter_cache(self: &Arc<Self>, dmu: &Dmu, bytes: usize, identity: u64) {
        let charge = dmu.cache().charge(bytes);
        self.disk.lock().charge = Some(charge);
        let this: Arc<dyn Evictable> = Arc::clone(self) as Arc<dyn Evictable>;
        dmu.cache().insert(Arc::downgrade(&this), 0, bytes, identity, Admission::Probation);
    }

    /// Takes the contents out of memory when nobody else holds them or a part of them; whether they are out.
    fn unload(&self) -> bool {
        let Some(mut disk) = self.disk.try_lock() else { return false };
        if disk.stored.is_none() || disk.death != 0 {
            return false;
        }
        // Guards of readers are counted from here on, and who comes now waits for the lock.
        let Some(body) = self.body.swap(None) else { return true };
        if !body.is_unshared() {
            self.body.store(Some(body));
            return false;
        }
        disk.charge = None;
        true
    }

    /// Whether the node is on disk.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.disk.lock().stored.is_some()
    }

    /// Whether the node is on disk and as old as `generation` at least: then all that it reaches is, too.
    #[must_use]
    pub fn is_born_by(&self, generation: Generation) -> bool {
        self.disk.lock().stored.as_ref().is_some_and(|(reference, _)| reference.birth <= generation)
    }

    /// The pointer to the node on disk.
    #[must_use]
    pub fn reference(&self) -> Option<NodeRef> {
        self.disk.lock().stored.as_ref().map(|(reference, _)| reference.clone())
    }

    /// The live tree refers to this node no longer, from `generation` on.
    pub fn die(&self, deaths: &Deaths, generation: Generation) {
        self.die_in(deaths, Dropping::now(generation), generation);
    }

    /// As [`NodeCell::die`], for a node that the tree dropped already, or below one.
    pub fn die_in(&self, deaths: &Deaths, drop: Dropping, generation: Generation) {
        let mut disk = self.disk.lock();
        assert_eq!(disk.death, 0, "a node dies once");
        disk.death = generation.0;
        if let Some((_, space)) = &disk.stored {
            deaths.died_in(space, drop.death, generation, drop.is_counted());
        }
        disk.charge.iter_mut().for_each(Charge::abandon);
    }

    /// As [`NodeCell::die`] for a node that is not on disk: returns its contents. `None`, and nothing changed, when it is.
    pub fn die_in_memory(&self, generation: Generation) -> Option<Arc<NodeBody>> {
        let mut disk = self.disk.lock();
        if disk.stored.is_some() {
            return None;
        }
        assert_eq!(disk.death, 0, "a node dies once");
        disk.death = generation.0;
        disk.charge.iter_mut().for_each(Charge::abandon);
        self.body.load_full()
    }

    /// Writes the node, whose children are on disk already, as part of checkpoint `generation`.
    ///
    /// # Errors
    /// Out of space and device errors; the node then stays in memory only.
    pub fn store(
        self: &Arc<Self>,
        dmu: &Dmu,
        deaths: &Deaths,
        preference: StoragePreference,
        generation: Generation,
    ) -> Result<NodeRef, TreeError> {
        let mut disk = self.disk.lock();
        if let Some((reference, _)) = &disk.stored {
            return Ok(reference.clone());
        }
        let Some(body) = self.body.load_full() else {
            unreachable!("a node is in memory or on disk");
        };
        let bytes = encode_node(&body, dmu.pool_uuid(), generation)?;
        let extents = dmu.store_bytes(&bytes, preference)?;
        let reference = NodeRef {
            level: self.level,
            birth: generation,
            length: bytes.len() as u32,
            checksum: crc(&bytes),
            extents,
        };
        let space = OwnedExtents::unborn(dmu, reference.extents.all());
        deaths.born(&space, generation);
        if disk.death != 0 {
            deaths.died(&space, Generation(disk.death));
        }
        disk.stored = Some((reference.clone(), space));
        let alive = disk.death == 0;
        disk.charge = None;
        drop(disk);
        if alive {
            self.enter_cache(dmu, body.footprint(), identity(&reference));
        }
        Ok(reference)
    }
}

impl Evictable for NodeCell {
    fn evict(&self, _slot: u32) -> bool {
        self.unload()
    }

    fn take_reference(&self, _slot: u32) -> bool {
        self.heat.take()
    }
}

/// Names the contents of a stored node to the cache.
fn identity(reference: &NodeRef) -> u64 {
    let place = reference.extents.extents().first();
    place
        .map_or(0, |extent| extent.block ^ u64::from(extent.vdev.0) << 48)
        .wrapping_mul(0xff51_afd7_ed55_8ccd)
}

fn read_node(dmu: &Dmu, reference: &NodeRef) -> Result<NodeBody, TreeError> {
    let damaged = |reason: String| TreeError::Node {
        level: reference.level,
        at: dmu.place_of(reference.extents.extents()),
        reason,
    };
    let length = reference.length as usize;
    let mut is_right = |bytes: &[u8]| crc(&bytes[..length]) == reference.checksum;
    let whole = length.next_multiple_of(BLOCK_BYTES);
    let (buffer, right) =
        dmu.read_checked(reference.extents.extents(), 0, whole, 0..length, &mut is_right)?;
    if !right {
        return Err(damaged(String::from("its checksum differs from the one in its pointer")));
    }
    let bytes = &buffer[..length];
    let body = decode_node(bytes, dmu, dmu.pool_uuid()).map_err(|error| damaged(error.to_string()))?;
    if body.level != reference.level {
        return Err(damaged(format!("it says level {}", body.level)));
    }
    Ok(body)
}
