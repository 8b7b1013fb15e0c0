//! The allocator against a model of its blocks, on disks that crash and lie.

use super::*;
use crate::base::extent::total_blocks;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::dmu::testing::worn_unit;
use crate::pool::TopLevelVdev;
use crate::pool::format::VdevKind;
use crate::vdev::{BlockDevice, Fault, SimClock, SimDisk, SimRng, VdevError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

const UUID: Uuid = Uuid(*b"pool of the test");
const LABEL: u64 = 4;

type Blocks = BTreeSet<(u32, u64)>;

fn blocks_of(extents: &[Extent]) -> impl Iterator<Item = (u32, u64)> {
    extents.iter().flat_map(|extent| (extent.block..extent.end()).map(|block| (extent.vdev.0, block)))
}

fn geometry(id: u32, tier: u8, blocks: u64) -> VdevGeometry {
    let reserved = vec![0..LABEL, blocks - LABEL..blocks];
    VdevGeometry { id: VdevId(id), tier, blocks, reserved, geometry: Geometry::PLAIN }
}

fn pool_of(geometries: &[VdevGeometry], disks: &[SimDisk]) -> Arc<Pool> {
    let vdev = |(geometry, disk): (&VdevGeometry, &SimDisk)| {
        TopLevelVdev::leaf(geometry.id, geometry.tier, geometry.blocks, Arc::new(disk.device()))
    };
    Arc::new(Pool::from_vdevs(geometries.iter().zip(disks).map(vdev).collect()))
}

/// A pool on simulated disks, without a model.
struct Rig {
    geometries: Vec<VdevGeometry>,
    disks: Vec<SimDisk>,
    segment_blocks: u32,
    allocator: Allocator,
}

impl Rig {
    fn new(geometries: Vec<VdevGeometry>, segment_blocks: u32) -> Self {
        let clock = SimClock::new(1);
        let disk = |geometry: &VdevGeometry| SimDisk::new("sim", geometry.blocks * BLOCK_BYTES_U64, &clock);
        let disks: Vec<SimDisk> = geometries.iter().map(disk).collect();
        let pool = pool_of(&geometries, &disks);
        let allocator = Allocator::create(pool, UUID, &geometries, segment_blocks).unwrap();
        Self { geometries, disks, segment_blocks, allocator }
    }

    fn commit(&self, generation: u64, set: &[Extent], clear: &[Extent]) -> Vec<u8> {
        let root = self.allocator.commit(Generation(generation), set, clear).unwrap();
        assert_eq!(root.len(), self.allocator.table_root_bytes_max());
        self.allocator.committed(Generation(generation));
        root
    }

    fn open(&self, root: &[u8], generation: u64) -> Result<Allocator, DmuError> {
        let pool = pool_of(&self.geometries, &self.disks);
        Allocator::open(pool, UUID, &self.geometries, self.segment_blocks, root, Generation(generation))
    }

    fn take(&self, blocks: u32) -> Vec<Extent> {
        self.allocator.allocate(Stream::Base, &[0, 1, 2, 3], blocks, Privilege::System).unwrap()
    }

    fn free(&self) -> u64 {
        self.allocator.vdev_space().iter().map(|space| space.free).sum()
    }
}

fn set_blocks(allocator: &Allocator, geometries: &[VdevGeometry]) -> Blocks {
    let mut out = Blocks::new();
    for geometry in geometries {
        let mut last = 0;
        allocator
            .for_each_set(geometry.id, |extent| {
                assert!(extent.block >= last);
                last = extent.end();
                out.extend(blocks_of(&[extent]));
            })
            .unwrap();
    }
    out
}

// ---- the model

#[derive(Clone)]
struct Checkpoint {
    generation: Generation,
    root: Vec<u8>,
    blocks: Blocks,
    /// Lengths of the vdevs.
    lengths: Vec<u64>,
    is_first: bool,
}

/// Plays the layers above, with random faults, and knows who owns every block.
struct Model {
    rng: SimRng,
    geometries: Vec<VdevGeometry>,
    disks: Vec<SimDisk>,
    clock: SimClock,
    segment_blocks: u32,
    allocator: Allocator,
    /// Openable checkpoints, the newest last; at most two.
    openable: Vec<Checkpoint>,
    last_generation: Generation,
    /// In the newest checkpoint.
    alive: Vec<Extent>,
    /// Allocated since.
    fresh: Vec<Extent>,
    /// In the newest checkpoint and to be cleared by the next one.
    dying: Vec<Extent>,
    /// Cleared by a checkpoint.
    dead: Vec<(Generation, Extent)>,
    /// Blocks that the checkpoint before the opened one has.
    protected: Blocks,
    /// Whether the model knows the number of free blocks: not at once after a fallback or growth.
    is_exact: bool,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut rng = SimRng::new(seed);
        let segment_blocks = [8, 16, 32, 64, 512][rng.index(5)];
        let geometries = match rng.index(3) {
            0 => vec![geometry(3, 1, 40 + rng.below(400))],
            1 => vec![geometry(9, 0, 64 + rng.below(300)), geometry(2, 0, 64 + rng.below(600))],
            _ => vec![
                geometry(1, 0, 40 + rng.below(100)),
                geometry(7, 2, 200 + rng.below(300)),
                geometry(4, 2, 50 + rng.below(100)),
            ],
        };
        let clock = SimClock::new(seed);
        let disk = |geometry: &VdevGeometry| SimDisk::new("sim", geometry.blocks * BLOCK_BYTES_U64, &clock);
        let disks: Vec<SimDisk> = geometries.iter().map(disk).collect();
        let pool = pool_of(&geometries, &disks);
        let allocator = Allocator::create(pool, UUID, &geometries, segment_blocks).unwrap();
        Self {
            rng,
            geometries,
            disks,
            clock,
            segment_blocks,
            allocator,
            openable: Vec::new(),
            last_generation: Generation(0),
            alive: Vec::new(),
            fresh: Vec::new(),
            dying: Vec::new(),
            dead: Vec::new(),
            protected: Blocks::new(),
            is_exact: true,
        }
    }

    fn lengths(&self) -> Vec<u64> {
        self.geometries.iter().map(|geometry| geometry.blocks).collect()
    }

    fn owned(&self) -> Blocks {
        let lists = [&self.alive, &self.fresh, &self.dying];
        let dead = self.dead.iter().flat_map(|(_, extent)| blocks_of(std::slice::from_ref(extent)));
        lists.into_iter().flat_map(|list| blocks_of(list)).chain(dead).collect()
    }

    /// Blocks of `tier` that are taken.
    fn taken(&self, tier: u8) -> u64 {
        let of_tier = |id: u32| self.geometries.iter().any(|g| g.id.0 == id && g.tier == tier);
        self.owned().union(&self.protected).filter(|(id, _)| of_tier(*id)).count() as u64
    }

    fn check_space(&self) {
        let spaces = self.allocator.tier_space();
        let newest = self.openable.last();
        for (tier, space) in (0..).zip(&spaces) {
            let free = space.total - self.taken(tier);
            assert!(space.free <= free || !self.is_exact, "tier {tier}: too many free blocks");
            assert!(space.free >= free || !self.is_exact, "tier {tier}: blocks leaked");
            let of_tier = |id: u32| self.geometries.iter().any(|g| g.id.0 == id && g.tier == tier);
            let used = newest.map_or(0, |c| c.blocks.iter().filter(|(id, _)| of_tier(*id)).count() as u64);
            assert_eq!(space.used, used);
            assert!(space.free + space.used + space.pending <= space.total);
            assert_eq!(self.allocator.available(tier, Privilege::System), space.free);
        }
    }

    fn allocate(&mut self) {
        let stream =
            [Stream::Header, Stream::Log, Stream::Delta, Stream::Base, Stream::Value][self.rng.index(5)];
        let mut tiers: Vec<u8> = (0..4).filter(|_| self.rng.chance(2, 3)).collect();
        if self.rng.chance(1, 2) {
            tiers.reverse();
        }
        let blocks = match self.rng.index(8) {
            0 => self.rng.below(300),
            1 => self.rng.below(30),
            _ => 1 + self.rng.below(4),
        } as u32;
        let privilege =
            [Privilege::User, Privilege::Delete, Privilege::System, Privilege::System][self.rng.index(4)];
        match self.allocator.allocate(stream, &tiers, blocks, privilege) {
            Ok(extents) => {
                assert_eq!(total_blocks(&extents), u64::from(blocks));
                let owned = self.owned();
                let got: Vec<(u32, u64)> = blocks_of(&extents).collect();
                assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), got.len());
                for block in &got {
                    assert!(!owned.contains(block), "{block:?} handed out twice");
                    assert!(!self.protected.contains(block), "{block:?} is in the checkpoint before");
                    for checkpoint in &self.openable {
                        assert!(
                            !checkpoint.blocks.contains(block),
                            "{block:?} is in {}",
                            checkpoint.generation
                        );
                    }
                    let g = self.geometries.iter().find(|g| g.id.0 == block.0).unwrap();
                    assert!(tiers.contains(&g.tier) && block.1 < g.blocks);
                    assert!(g.reserved.iter().all(|range| !range.contains(&block.1)));
                }
                self.fresh.extend(extents);
            }
            Err(DmuError::OutOfSpace { tier, wanted, .. }) => {
                assert_eq!((tier, wanted), (tiers.first().copied().unwrap_or(0), u64::from(blocks)));
                for tier in tiers {
                    let space = self.allocator.tier_space()[usize::from(tier)];
                    let floor = Reserve::of_tier(space.total, 1).left_by(privilege);
                    assert!(
                        space.free < u64::from(blocks) + floor,
                        "refused with {} free blocks",
                        space.free
                    );
                }
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Removes some extents of `list`.
    fn some(rng: &mut SimRng, list: &mut Vec<Extent>, of: u64) -> Vec<Extent> {
        let (out, keep) = list.drain(..).partition(|_| rng.chance(1, of));
        *list = keep;
        out
    }

    fn checkpoint(&mut self) {
        let generation = Generation(self.last_generation.0 + 1 + self.rng.below(3));
        // What is not set: extents of merges under way, log extents.
        let mut set = std::mem::take(&mut self.fresh);
        self.fresh = Self::some(&mut self.rng, &mut set, 4);
        let mut clear = std::mem::take(&mut self.dying);
        if self.rng.chance(1, 6) {
            // A mistake of the layers above changes nothing.
            let mut wrong_set = set.clone();
            let mut wrong_clear = clear.clone();
            let list = if self.rng.chance(1, 2) { &mut wrong_set } else { &mut wrong_clear };
            let source = [&self.alive, &self.fresh, &set, &clear][self.rng.index(4)];
            let nowhere = Extent { vdev: self.geometries[0].id, block: 1, blocks: 1 };
            let extra = source.first().copied().unwrap_or(nowhere);
            list.push(extra);
            let legal = list.iter().collect::<BTreeSet<_>>().len() == list.len()
                && wrong_set.iter().all(|extent| !self.alive.contains(extent) && !clear.contains(extent))
                && wrong_clear.iter().all(|extent| self.alive.contains(extent) || clear.contains(extent))
                && extra != nowhere;
            if !legal {
                let error = self.allocator.commit(generation, &wrong_set, &wrong_clear).unwrap_err();
                assert!(matches!(error, DmuError::Allocation { .. }), "{error}");
            }
        }
        if self.rng.chance(1, 6) {
            // The host file system is full for a moment.
            let disk = self.rng.index(self.disks.len());
            self.disks[disk].arm(Fault::OutOfSpace { nth: 1 + self.rng.below(3) });
            if self.allocator.commit(generation, &set, &clear).is_ok() {
                self.allocator.aborted();
            }
            self.disks[disk].clear_faults();
            // The next attempt need not be the same.
            self.dying = Self::some(&mut self.rng, &mut clear, 3);
        }
        let crash = self.rng.chance(1, 4);
        if crash {
            self.clock.set_stop_after(self.clock.operations() + self.rng.below(8));
        }
        let root = self.allocator.commit(generation, &set, &clear);
        if let Ok(root) = &root {
            // Allocation and release go on while it is written.
            let late = Self::some(&mut self.rng, &mut self.fresh, 3);
            if !crash {
                self.allocator.release(&late).unwrap();
                assert!(set.is_empty() || self.allocator.release(&set[..1]).is_err());
                assert!(clear.is_empty() || self.allocator.release(&clear[..1]).is_err());
            }
            let mut blocks = self.openable.last().map(|last| last.blocks.clone()).unwrap_or_default();
            blocks.extend(blocks_of(&set));
            blocks_of(&clear).for_each(|block| assert!(blocks.remove(&block)));
            let flushed = self.disks.iter().all(|disk| disk.device().flush().is_ok());
            if flushed {
                let lengths = self.lengths();
                let is_first = self.openable.is_empty();
                self.openable.push(Checkpoint { generation, root: root.clone(), blocks, lengths, is_first });
            }
            if crash {
                // The superblock may or may not have landed.
                if flushed && self.rng.chance(1, 2) {
                    self.openable.pop();
                }
                return self.reopen();
            }
        }
        let Ok(_) = root else {
            assert!(crash, "{root:?}");
            return self.reopen();
        };
        self.allocator.committed(generation);
        if self.openable.len() > 2 {
            self.openable.remove(0);
        }
        self.last_generation = generation;
        self.protected.clear();
        self.is_exact = true;
        self.alive.extend(set);
        // What died in the checkpoint before this one may go now, unless a reader holds it.
        let before = std::mem::take(&mut self.dead);
        for (death, extent) in before {
            if self.rng.chance(1, 5) {
                self.dead.push((death, extent));
            } else {
                self.allocator.release(&[extent]).unwrap();
                assert!(self.allocator.release(&[extent]).is_err(), "released twice");
            }
        }
        for extent in clear {
            assert!(self.allocator.release(&[extent]).is_err(), "the checkpoint before has it");
            self.dead.push((generation, extent));
        }
    }

    /// The process dies; the newest checkpoint or, as if its superblock were damaged, the one before is opened.
    fn reopen(&mut self) {
        let fallback = self.openable.len() > 1 && self.rng.chance(1, 4);
        if fallback {
            self.openable.pop();
        }
        if self.openable.len() > 2 {
            self.openable.remove(0);
        }
        let clock = SimClock::new(self.rng.next_u64());
        self.disks = self.disks.iter().map(|disk| disk.crash_image(&mut self.rng, &clock)).collect();
        let grows = self.rng.chance(1, 8);
        if grows {
            let index = self.rng.index(self.disks.len());
            let mut bytes = self.disks[index].bytes();
            let blocks = self.geometries[index].blocks + LABEL + self.rng.below(200);
            bytes.resize((blocks * BLOCK_BYTES_U64) as usize, 0);
            self.disks[index] = SimDisk::from_bytes("sim", &bytes, &clock);
            self.geometries[index].blocks = blocks;
            self.geometries[index].reserved.push(blocks - LABEL..blocks);
        }
        self.clock = clock;
        let pool = pool_of(&self.geometries, &self.disks);
        (self.alive, self.fresh, self.dying, self.dead) = Default::default();
        self.protected.clear();
        // Whether the bitmaps before the newest ones are those of a checkpoint that is known here.
        self.is_exact = self.openable.iter().all(|checkpoint| checkpoint.lengths == self.lengths())
            && (self.openable.len() > 1 || self.openable.iter().all(|only| only.is_first));
        let Some(newest) = self.openable.last().cloned() else {
            self.allocator = Allocator::create(pool, UUID, &self.geometries, self.segment_blocks).unwrap();
            self.last_generation = Generation(100);
            self.is_exact = true;
            return;
        };
        let mut padded = newest.root.clone();
        padded.resize(padded.len().next_multiple_of(BLOCK_BYTES), 0);
        self.allocator =
            Allocator::open(pool, UUID, &self.geometries, self.segment_blocks, &padded, newest.generation)
                .unwrap();
        let seen = self.allocator.seen_generations();
        assert!(seen.written >= newest.generation && seen.durable >= newest.generation);
        self.last_generation = self.last_generation.max(seen.written).max(newest.generation);
        // After a fallback the checkpoint before need not be openable any more.
        if self.openable.len() > 1 {
            self.protected = self.openable[0].blocks.clone();
        } else {
            self.openable = vec![newest.clone()];
        }
        assert_eq!(set_blocks(&self.allocator, &self.geometries), newest.blocks);
        // Pointers of the tree name pieces of runs of bits: any cut of them will do.
        for geometry in &self.geometries {
            let (rng, alive) = (&mut self.rng, &mut self.alive);
            let cut = |extent: Extent| {
                let mut block = extent.block;
                while block < extent.end() {
                    let blocks = 1 + rng.below(extent.end() - block) as u32;
                    alive.push(Extent { vdev: extent.vdev, block, blocks });
                    block += u64::from(blocks);
                }
            };
            self.allocator.for_each_set(geometry.id, cut).unwrap();
        }
        let extents = self.alive.clone();
        for extent in extents {
            if self.rng.chance(1, 4) {
                assert!(self.allocator.is_persistent(extent).unwrap());
                assert!(!self.allocator.mark_busy(extent).unwrap());
            }
        }
        self.replay();
    }

    /// Log records name extents that no checkpoint has.
    fn replay(&mut self) {
        for _ in 0..self.rng.below(4) {
            let vdev = &self.geometries[self.rng.index(self.geometries.len())];
            let (block, blocks) = (self.rng.below(vdev.blocks), 1 + self.rng.below(3) as u32);
            let extent = Extent { vdev: vdev.id, block, blocks };
            let owned = self.owned();
            // Blocks of the checkpoint before cannot be named by records after the newest one.
            if blocks_of(&[extent]).any(|block| self.protected.contains(&block)) {
                continue;
            }
            let taken = blocks_of(&[extent]).filter(|block| owned.contains(block)).count();
            match self.allocator.mark_busy(extent) {
                Ok(marked) => {
                    assert_eq!(taken, if marked { 0 } else { blocks as usize });
                    if marked {
                        assert!(!self.allocator.mark_busy(extent).unwrap());
                        self.fresh.push(extent);
                    }
                }
                Err(DmuError::Allocation { .. }) => {
                    let alone = Extent { blocks: 1, ..extent };
                    let is_mixed = taken > 0 && taken < blocks as usize;
                    let is_outside = self.allocator.is_persistent(alone).is_err()
                        || self.allocator.is_persistent(extent).is_err();
                    assert!(is_mixed || is_outside || !self.is_exact, "{extent}");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.rng.index(20) {
                0..=9 => self.allocate(),
                10..=11 => {
                    let extents = Self::some(&mut self.rng, &mut self.fresh, 4);
                    self.allocator.release(&extents).unwrap();
                }
                12..=14 => {
                    let extents = Self::some(&mut self.rng, &mut self.alive, 3);
                    self.dying.extend(extents);
                }
                15..=18 => self.checkpoint(),
                _ => self.reopen(),
            }
            self.check_space();
        }
    }
}

#[test]
fn agrees_with_a_model_through_crashes_fallbacks_and_growth() {
    let (first, count) = match std::env::var("ALLOCATOR_SEEDS") {
        Ok(text) => text.split_once('+').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).unwrap(),
        Err(_) => (0, 300),
    };
    for seed in first..first + count {
        // Shown when it fails: run again with ALLOCATOR_SEEDS=<seed>+1.
        println!("seed {seed}");
        Model::new(seed).run(120);
    }
}

// ---- single rules

#[test]
fn nothing_leaks_over_fills_and_a_full_pool_can_always_be_emptied() {
    let rig = Rig::new(vec![geometry(1, 0, 300), geometry(2, 0, 200)], 64);
    let all = rig.free();
    let (mut generation, mut rng) = (0, SimRng::new(7));
    let mut root = Vec::new();
    for cycle in 0..100 {
        let mut extents = Vec::new();
        while rig.free() > 0 {
            let blocks = (1 + rng.below(20)).min(rig.free()) as u32;
            extents.extend(rig.take(blocks));
        }
        assert_eq!(total_blocks(&extents), all);
        let error = rig.allocator.allocate(Stream::Log, &[0], 1, Privilege::System).unwrap_err();
        assert!(matches!(error, DmuError::OutOfSpace { tier: 0, wanted: 1, free: 0 }));
        rig.commit(generation + 1, &extents, &[]);
        rng.shuffle(&mut extents);
        rig.commit(generation + 2, &[], &extents);
        assert_eq!(rig.allocator.tier_space()[0].pending, all);
        root = rig.commit(generation + 3, &[], &[]);
        rig.allocator.release(&extents).unwrap();
        assert_eq!((rig.free(), rig.allocator.tier_space()[0].pending), (all, 0), "cycle {cycle}");
        generation += 3;
    }
    let again = rig.open(&root, generation).unwrap();
    assert_eq!(again.vdev_space().iter().map(|space| space.free).sum::<u64>(), all);
}

#[test]
fn scattered_blocks_are_still_space_and_come_in_few_extents() {
    let rig = Rig::new(vec![geometry(1, 0, 500)], 64);
    let mut singles: Vec<Extent> = (0..rig.free()).flat_map(|_| rig.take(1)).collect();
    singles.sort_unstable();
    // Holes of one block everywhere, and one of nine.
    let hole = singles.windows(9).position(|w| w[8].block - w[0].block == 8).unwrap();
    let is_hole = |index: usize| index.is_multiple_of(2) || (hole..hole + 9).contains(&index);
    let (free, _): (Vec<_>, Vec<_>) = singles.iter().enumerate().partition(|(index, _)| is_hole(*index));
    let free: Vec<Extent> = free.into_iter().map(|(_, extent)| *extent).collect();
    rig.allocator.release(&free).unwrap();
    let wanted = rig.free() as u32;
    let extents = rig.take(wanted);
    assert_eq!(total_blocks(&extents), u64::from(wanted));
    assert!(extents[0].blocks >= 9 && extents.iter().map(|extent| extent.blocks).is_sorted_by(|a, b| a >= b));
    assert!(extents.windows(2).all(|pair| pair[0].end() != pair[1].block), "neighbours are one extent");
    assert_eq!(rig.free(), 0);
}

/// On striped vdevs, holes of whole granules hold a block each, and nothing else is ever free.
#[test]
fn scattered_space_of_striped_vdevs_is_space() {
    for (name, kind, leaves) in crate::dmu::testing::KINDS {
        let (dmu, _disks) = crate::dmu::testing::unit(kind, leaves, 1 << 10);
        let granule = dmu.pool().vdev(VdevId(1)).unwrap().geometry().granule();
        let take = |blocks| {
            dmu.allocate(
                Stream::Base,
                crate::base::preference::StoragePreference::NONE,
                blocks,
                Privilege::System,
            )
        };
        let all = dmu.available_blocks(0, Privilege::System);
        assert!(all > 400, "{name}: {all}");
        let mut ones: Vec<Extent> = std::iter::from_fn(|| take(1).ok()).flatten().collect();
        assert!(ones.iter().all(|one| one.blocks == granule));
        assert_eq!(dmu.available_blocks(0, Privilege::System), 0, "{name}");
        // Every third one: as many requests for one block, or one request for all of them.
        let (freed, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut ones).into_iter().enumerate().partition(|(at, _)| at % 3 == 0);
        let freed: Vec<Extent> = freed.into_iter().map(|(_, one)| one).collect();
        dmu.release(&freed);
        // A reclaim that stops at what looks available stops too early.
        let few = (1..freed.len() as u64).take_while(|blocks| {
            dmu.scattered_blocks(0, *blocks) <= dmu.available_blocks(0, Privilege::System)
        });
        let few = few.last().unwrap();
        assert!(few + 2 >= freed.len() as u64, "{name}: {few} of {}", freed.len());
        let least = (1..=few).find(|blocks| take(*blocks as u32).map(|got| dmu.release(&got)).is_err());
        assert_eq!(least, None, "{name}");
        let got = take(freed.len() as u32).unwrap();
        assert_eq!(dmu.data_blocks(&got), freed.len() as u64, "{name}");
        assert!(matches!(take(1), Err(DmuError::OutOfSpace { .. })));
        dmu.release(&got);
        assert!(matches!(take(freed.len() as u32 + 1), Err(DmuError::OutOfSpace { .. })), "{name}");
        assert_eq!(std::iter::from_fn(|| take(1).ok()).count(), freed.len(), "{name}");
        let kept: Vec<Extent> = kept.into_iter().map(|(_, one)| one).collect();
        dmu.release(&kept);
        dmu.release(&freed);
        assert_eq!(dmu.available_blocks(0, Privilege::System), all, "{name}");
        let long = take((all * 9 / 10) as u32).unwrap();
        assert!(dmu.data_blocks(&long) >= all * 9 / 10, "{name}");
    }
}

#[test]
fn requests_longer_than_a_segment_are_cut_and_others_are_not() {
    let rig = Rig::new(vec![geometry(1, 0, 1000), geometry(2, 0, 1000)], 64);
    let long = rig.take(200);
    assert!(long.len() <= 4, "{long:?}");
    for blocks in [1, 7, 61] {
        assert_eq!(rig.take(blocks).len(), 1);
    }
}

#[test]
fn streams_keep_apart_and_requests_of_one_are_neighbours() {
    let rig = Rig::new(vec![geometry(1, 0, 2000)], 64);
    let streams = [Stream::Header, Stream::Log, Stream::Delta, Stream::Base, Stream::Value];
    let mut seen: BTreeMap<usize, Vec<Extent>> = BTreeMap::new();
    for round in 0..20 {
        for stream in streams {
            let extents = rig.allocator.allocate(stream, &[0], 2, Privilege::User).unwrap();
            assert_eq!(extents.len(), 1);
            let own = seen.entry(stream.index()).or_default();
            assert!(own.last().is_none_or(|last| last.end() == extents[0].block), "round {round}");
            own.extend(extents);
        }
    }
    let segments: BTreeSet<u64> = seen.values().map(|extents| extents[0].block / 64).collect();
    assert_eq!(segments.len(), streams.len());
}

#[test]
fn vdevs_of_a_tier_share_the_load_by_their_free_space() {
    let rig = Rig::new(vec![geometry(1, 0, 30_000), geometry(2, 0, 10_000)], 512);
    let mut taken = [0; 3];
    for _ in 0..3000 {
        taken[rig.take(4)[0].vdev.0 as usize] += 4;
    }
    let share = f64::from(taken[2]) / f64::from(taken[1]);
    assert!((0.2..0.5).contains(&share), "{taken:?}");
}

#[test]
fn tiers_are_tried_in_order_and_the_reserve_is_kept() {
    let rig = Rig::new(vec![geometry(1, 0, 300), geometry(2, 3, 300)], 64);
    let allocator = &rig.allocator;
    let space = allocator.tier_space();
    assert_eq!((space[0].reserve, space[1], space[3].reserve), (16, TierSpace::default(), 16));
    allocator.set_reserve(0, Reserve { merge: 10, delete: 20, user: 40 });
    let usable = allocator.available(0, Privilege::User) as u32;
    assert_eq!(u64::from(usable), space[0].total - 40);
    let user = |blocks| allocator.allocate(Stream::Base, &[0], blocks, Privilege::User);
    assert!(user(usable + 1).is_err());
    user(usable).unwrap();
    assert!(matches!(user(1), Err(DmuError::OutOfSpace { tier: 0, wanted: 1, free: 0 })));
    let spilled = allocator.allocate(Stream::Base, &[0, 3], 1, Privilege::User).unwrap();
    assert_eq!(spilled[0].vdev, VdevId(2));
    assert_eq!(allocator.available(0, Privilege::Delete), 20);
    allocator.allocate(Stream::Base, &[0], 20, Privilege::Delete).unwrap();
    assert!(allocator.allocate(Stream::Base, &[0], 1, Privilege::Delete).is_err());
    allocator.allocate(Stream::Base, &[0], 10, Privilege::Merge).unwrap();
    assert!(allocator.allocate(Stream::Base, &[0], 1, Privilege::Merge).is_err());
    allocator.allocate(Stream::Base, &[0], 10, Privilege::System).unwrap();
    assert!(allocator.allocate(Stream::Base, &[0], 1, Privilege::System).is_err());
    assert!(allocator.allocate(Stream::Base, &[1, 9], 1, Privilege::System).is_err());
    assert_eq!(allocator.allocate(Stream::Base, &[1], 0, Privilege::User).unwrap(), vec![]);
}

#[test]
fn extents_outside_are_refused_everywhere() {
    let rig = Rig::new(vec![geometry(1, 0, 300)], 64);
    let at = |vdev, block, blocks| Extent { vdev: VdevId(vdev), block, blocks };
    for extent in [
        at(1, 0, 1),
        at(1, 299, 1),
        at(1, 300, 1),
        at(1, u64::MAX, 1),
        at(2, 50, 1),
        at(1, 63, 2),
        at(1, 50, 0),
    ] {
        let allocator = &rig.allocator;
        let results = [
            allocator.release(&[extent]).err(),
            allocator.mark_busy(extent).err(),
            allocator.is_persistent(extent).err(),
            allocator.commit(Generation(1), &[extent], &[]).err(),
            allocator.commit(Generation(1), &[], &[extent]).err(),
        ];
        for error in results {
            assert!(matches!(error, Some(DmuError::Allocation { .. })), "{extent}: {error:?}");
        }
    }
    assert!(rig.allocator.for_each_set(VdevId(2), |_| {}).is_err());
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let rig = Rig::new(vec![geometry(1, 0, 300)], 64);
    let first = rig.take(20);
    rig.commit(1, &first, &[]);
    let second = rig.take(20);
    let root = rig.commit(2, &second, &[]);
    let written: Vec<u64> = {
        let bytes = rig.disks[0].bytes();
        let blocks = bytes.chunks(BLOCK_BYTES).enumerate();
        blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0)).map(|(at, _)| at as u64).collect()
    };
    assert_eq!(written.len(), 4, "two bitmaps and two pages: {written:?}");
    let mut noticed = 0;
    for block in written {
        for byte in (0..BLOCK_BYTES_U64).step_by(61).chain([0, 9, 12, 20, 33, 40, 50, 57, 63, 64, 71]) {
            rig.disks[0].flip_bit(block * BLOCK_BYTES_U64 + byte, (byte % 8) as u8);
            let result = rig.open(&root, 2).and_then(|allocator| {
                allocator.for_each_set(VdevId(1), |_| {})?;
                let request = |blocks| allocator.allocate(Stream::Base, &[0], blocks, Privilege::System);
                while request(1).map(|extents| !extents.is_empty())? {}
                Ok(())
            });
            match result {
                Err(DmuError::Corrupt { .. }) => noticed += 1,
                Err(DmuError::OutOfSpace { .. }) => {} // A slot that nothing needs any more.
                other => panic!("{other:?}"),
            }
            rig.disks[0].flip_bit(block * BLOCK_BYTES_U64 + byte, (byte % 8) as u8);
        }
    }
    assert!(noticed >= 2 * 60, "the newest bitmap and the newest page matter: {noticed}");
    for byte in 0..root.len() {
        let mut bytes = root.clone();
        bytes[byte] ^= 0x10;
        assert!(rig.open(&bytes, 2).is_err());
        assert!(rig.open(&root[..byte], 2).is_err());
    }
    assert!(matches!(rig.open(&root, 3), Err(DmuError::Corrupt { .. })));
    assert!(rig.open(&root, 2).is_ok());
}

#[test]
fn a_bitmap_or_page_that_never_landed_is_noticed() {
    for (nth, at_open) in [(1, false), (2, true)] {
        let rig = Rig::new(vec![geometry(1, 0, 60)], 64);
        let (a, b) = (rig.take(3), rig.take(3));
        rig.commit(1, &a, &[]);
        rig.disks[0].arm(Fault::DroppedWrite { nth });
        let root = rig.commit(2, &b, &[]);
        let result = rig.open(&root, 2);
        assert_eq!(result.is_err(), at_open);
        let result = result.and_then(|allocator| allocator.is_persistent(b[0]));
        assert!(matches!(result, Err(DmuError::Corrupt { .. })), "{result:?}");
    }
}

#[test]
fn rollback_shows_in_the_generations_seen() {
    let rig = Rig::new(vec![geometry(1, 0, 300)], 64);
    let extents: Vec<Vec<Extent>> = (0..3).map(|_| rig.take(2)).collect();
    let root = rig.commit(1, &extents[0], &[]);
    let at = |root: &[u8], generation| {
        let seen = rig.open(root, generation).unwrap().seen_generations();
        (seen.written.0, seen.durable.0)
    };
    assert_eq!(at(&root, 1), (1, 1));
    let second = rig.commit(2, &extents[1], &[]);
    // Written, but was it durable? Nobody knows.
    assert_eq!((at(&root, 1), at(&second, 2)), ((2, 1), (2, 2)));
    rig.commit(3, &extents[2], &[]);
    assert_eq!(at(&second, 2), (3, 2));
}

#[test]
fn pools_change_shape() {
    let rig = Rig::new(vec![geometry(1, 0, 300)], 64);
    let extents = rig.take(250);
    let root = rig.commit(5, &extents, &[]);
    let clock = SimClock::new(1);
    let grow = |blocks: u64| {
        let mut bytes = rig.disks[0].bytes();
        bytes.resize((blocks * BLOCK_BYTES_U64) as usize, 0);
        SimDisk::from_bytes("sim", &bytes, &clock)
    };
    let mut longer = geometry(1, 0, 9000);
    longer.reserved.push(296..300);
    let vdevs = vec![geometry(0, 2, 100), longer];
    let disks = vec![SimDisk::new("sim", 100 * BLOCK_BYTES_U64, &clock), grow(9000)];
    let open = |root: &[u8], generation| {
        Allocator::open(pool_of(&vdevs, &disks), UUID, &vdevs, 32, root, Generation(generation))
    };
    let allocator = open(&root, 5).unwrap();
    assert!(allocator.tier_space()[0].total > 8300 && allocator.tier_space()[2].total > 50);
    // Most of the new blocks can be used at once, all of them after a checkpoint.
    let mut more = allocator.allocate(Stream::Base, &[0], 8000, Privilege::System).unwrap();
    more.extend(allocator.allocate(Stream::Base, &[2], 30, Privilege::System).unwrap());
    assert!(more.iter().all(|extent| extents.iter().all(|old| !old.overlaps(extent))));
    let grown = allocator.commit(Generation(6), &more, &extents).unwrap();
    allocator.committed(Generation(6));
    let space = allocator.tier_space()[0];
    assert_eq!(space.free + space.used + space.pending, space.total);
    let again = open(&grown, 6).unwrap();
    assert_eq!(set_blocks(&again, &vdevs), blocks_of(&more).collect());
    // The 20 blocks of the last segment behind the old end are still set in the bitmap before.
    assert_eq!(again.tier_space()[0].pending, 250 + 20);
    // The old length, a missing vdev, one twice.
    for wrong in [vec![geometry(0, 2, 100), geometry(1, 0, 300)], vec![vdevs[0].clone()]] {
        let result = Allocator::open(pool_of(&vdevs, &disks), UUID, &wrong, 64, &grown, Generation(6));
        assert!(matches!(result, Err(DmuError::Geometry { vdev: VdevId(1), .. })), "{result:?}");
    }
    let twice = vec![vdevs[0].clone(), vdevs[0].clone()];
    let result = Allocator::create(pool_of(&vdevs, &disks), UUID, &twice, 64);
    assert!(matches!(result, Err(DmuError::Geometry { vdev: VdevId(0), .. })));
    let label_over_data =
        vec![vdevs[0].clone(), VdevGeometry { reserved: vec![0..100, 100..200], ..vdevs[1].clone() }];
    let result = Allocator::open(pool_of(&vdevs, &disks), UUID, &label_over_data, 64, &grown, Generation(6));
    assert!(matches!(result, Err(DmuError::Geometry { vdev: VdevId(1), .. })), "{result:?}");
}

#[test]
fn threads_never_share_a_block() {
    let rig = Rig::new(vec![geometry(1, 0, 3000), geometry(2, 0, 2000), geometry(3, 1, 1000)], 64);
    let owners: Vec<Vec<AtomicBool>> =
        rig.geometries.iter().map(|g| (0..g.blocks).map(|_| AtomicBool::new(false)).collect()).collect();
    let mark = |extents: &[Extent], to: bool| {
        for (vdev, block) in blocks_of(extents) {
            let was = owners[vdev as usize - 1][block as usize].swap(to, Ordering::SeqCst);
            assert_ne!(was, to, "block {block} of vdev {vdev}");
        }
    };
    let before = rig.free();
    let (done, handed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let root = std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (allocator, mark, done, handed) = (&rig.allocator, &mark, &done, &handed);
            scope.spawn(move || {
                let mut rng = SimRng::new(thread);
                let mut own: Vec<Vec<Extent>> = Vec::new();
                for _ in 0..3000 {
                    let stream = [Stream::Header, Stream::Delta, Stream::Base][rng.index(3)];
                    let blocks = if rng.chance(1, 20) { 200 } else { 1 + rng.below(12) } as u32;
                    if let Ok(extents) = allocator.allocate(stream, &[0, 1], blocks, Privilege::User) {
                        mark(&extents, true);
                        own.push(extents);
                    }
                    while own.len() > 60 {
                        let extents = own.swap_remove(rng.index(own.len()));
                        if rng.chance(1, 8) {
                            handed.lock().extend(extents);
                        } else {
                            mark(&extents, false);
                            allocator.release(&extents).unwrap();
                        }
                    }
                }
                for extents in own {
                    mark(&extents, false);
                    allocator.release(&extents).unwrap();
                }
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        // Checkpoints take what was handed over, and free it again two checkpoints later.
        let (mut generation, mut alive, mut dead) = (0, Vec::new(), Vec::new());
        loop {
            let last = done.load(Ordering::SeqCst) == 4;
            let set = std::mem::take(&mut *handed.lock());
            generation += 1;
            let root = rig.commit(generation, &set, &alive);
            mark(&dead, false);
            rig.allocator.release(&dead).unwrap();
            dead = std::mem::replace(&mut alive, set);
            if last && dead.is_empty() && alive.is_empty() {
                return (root, generation);
            }
        }
    });
    assert_eq!(rig.free(), before);
    assert!(owners.iter().flatten().all(|owner| !owner.load(Ordering::SeqCst)));
    let again = rig.open(&root.0, root.1).unwrap();
    assert_eq!(again.vdev_space().iter().map(|space| space.free).sum::<u64>(), before);
}

/// A device of any length that keeps what was written and counts reads.
#[derive(Debug)]
struct Sparse {
    blocks: u64,
    written: Mutex<BTreeMap<u64, Vec<u8>>>,
    bytes_read: AtomicU64,
}

impl BlockDevice for Sparse {
    fn name(&self) -> &str {
        "sparse"
    }

    fn len(&self) -> u64 {
        self.blocks * BLOCK_BYTES_U64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), VdevError> {
        self.bytes_read.fetch_add(buf.len() as u64, Ordering::SeqCst);
        let written = self.written.lock();
        for (index, out) in (offset / BLOCK_BYTES_U64..).zip(buf.chunks_mut(BLOCK_BYTES)) {
            match written.get(&index) {
                Some(bytes) => out.copy_from_slice(bytes),
                None => out.fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), VdevError> {
        let mut written = self.written.lock();
        for (index, bytes) in (offset / BLOCK_BYTES_U64..).zip(buf.chunks(BLOCK_BYTES)) {
            written.insert(index, bytes.to_vec());
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), VdevError> {
        Ok(())
    }
}

#[test]
fn a_hundred_tebibytes_open_without_reading_bitmaps() {
    let blocks = (100u64 << 40) / BLOCK_BYTES_U64;
    let device =
        Arc::new(Sparse { blocks, written: Mutex::new(BTreeMap::new()), bytes_read: AtomicU64::new(0) });
    let geometries = [geometry(1, 0, blocks)];
    let device_of_vdev: Arc<dyn BlockDevice> = device.clone();
    let vdev = TopLevelVdev::leaf(VdevId(1), 0, blocks, device_of_vdev);
    let pool = Arc::new(Pool::from_vdevs(vec![vdev]));
    let size = crate::dmu::SEGMENT_BLOCKS_MAX;
    let allocator = Allocator::create(Arc::clone(&pool), UUID, &geometries, size).unwrap();
    let streams = [Stream::Header, Stream::Log, Stream::Delta, Stream::Base, Stream::Value];
    let extents: Vec<Extent> = streams
        .iter()
        .flat_map(|stream| allocator.allocate(*stream, &[0], 200_000, Privilege::User).unwrap())
        .collect();
    assert_eq!((extents.len(), device.bytes_read.load(Ordering::SeqCst)), (5, 0));
    assert!(allocator.table_root_bytes_max() < 64 << 10);
    let root = allocator.commit(Generation(1), &extents, &[]).unwrap();
    allocator.committed(Generation(1));
    assert!(device.written.lock().len() < 100);
    let again = Allocator::open(pool, UUID, &geometries, size, &root, Generation(1)).unwrap();
    assert!(device.bytes_read.load(Ordering::SeqCst) < 16 << 20);
    assert_eq!(again.tier_space()[0].used, 1_000_000);
    let before = device.bytes_read.load(Ordering::SeqCst);
    again.allocate(Stream::Base, &[0], 250_000, Privilege::User).unwrap();
    assert_eq!(device.bytes_read.load(Ordering::SeqCst), before, "an empty segment needs no reading");
    assert!(again.is_persistent(extents[3]).unwrap());
    assert_eq!(device.bytes_read.load(Ordering::SeqCst) - before, 9 * BLOCK_BYTES_U64);
}

/// A slot that no member reads says nothing of the others.
#[test]
fn bad_sectors_in_old_slots_of_the_table_are_borne_by_mirrors() {
    let (dmu, disks) = worn_unit(VdevKind::Mirror, 2, 1 << 11);
    let vdev = VdevGeometry {
        id: VdevId(1),
        tier: 0,
        blocks: 1 << 11,
        reserved: Vec::new(),
        geometry: dmu.pool().vdev(VdevId(1)).unwrap().geometry(),
    };
    let allocator = dmu.allocator();
    let extents = allocator.allocate(Stream::Base, &[0], 40, Privilege::System).unwrap();
    let root = allocator.commit(Generation(5), &extents, &[]).unwrap();
    allocator.committed(Generation(5));
    // The page is in its first slot: on neither member all of them read.
    disks[0].wear(0);
    disks.iter().for_each(|disk| disk.wear(2));
    let pool = Arc::new(Pool::from_vdevs(vec![TopLevelVdev::group(
        VdevId(1),
        0,
        VdevKind::Mirror,
        disks.iter().map(|disk| Arc::clone(disk) as Arc<dyn BlockDevice>).collect(),
    )]));
    let vdevs = [vdev];
    let opened = Allocator::open(pool, Uuid([7; 16]), &vdevs, 1 << 10, &root, Generation(5)).unwrap();
    assert_eq!(set_blocks(&opened, &vdevs), blocks_of(&extents).collect());
    assert_eq!(opened.seen_generations().written, Generation(5));
    assert!(disks.iter().all(|disk| disk.worn() == 1), "the page itself is repaired");
}
