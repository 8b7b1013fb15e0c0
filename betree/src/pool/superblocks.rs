//! Writing superblocks: commits, and what open does before anything else is written.

use super::assembly::{Assembly, Leaf};
use super::format::{AREA_BLOCKS, End, Features, PAYLOAD_BYTES_MAX, Superblock, Topology, next_slot};
use super::label::{SlotDump, dump_device};
use super::{Pool, PoolError};
use crate::base::buffer::AlignedBuffer;
use crate::base::ids::{Generation, Uuid};
use crate::base::planted::{Bug, planted};
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::vdev::BlockDevice;
use std::sync::Arc;

/// What the next superblock is made from.
#[derive(Debug)]
pub(super) struct Superblocks {
    pool: Uuid,
    features: Features,
    segment_blocks: u32,
    leaves: Vec<Leaf>,
    topology: Topology,
    /// The last durable generation, 0 for none, and its slot.
    committed: Generation,
    slot: u8,
    highest_seen: Generation,
    /// Whether the pool continues from a known generation: always, but between open and `rewrite_chosen`.
    settled: bool,
    /// Roots that open found, newest first.
    candidates: Vec<Superblock>,
    /// Leaf, block and generation of every valid superblock that open found.
    found: Vec<(usize, u64, Generation)>,
}

/// The part of a superblock that is the same on all leaves.
struct Root<'a> {
    generation: Generation,
    slot: u8,
    previous: Generation,
    highest_seen: Generation,
    topology: &'a Topology,
    payload: &'a [u8],
}

/// One block to be written.
struct Image {
    /// Index of the leaf.
    leaf: usize,
    block: u64,
    bytes: AlignedBuffer,
}

impl Superblocks {
    /// The state of a pool that `assembly` opened, or of a new one when it has no candidates.
    pub fn new(assembly: Assembly) -> Self {
        Self {
            pool: assembly.uuid,
            features: assembly.features,
            segment_blocks: assembly.segment_blocks,
            leaves: assembly.leaves,
            topology: assembly.topology,
            committed: Generation(0),
            slot: 0,
            highest_seen: assembly.highest_seen,
            settled: assembly.candidates.is_empty(),
            candidates: assembly.candidates,
            found: assembly.found,
        }
    }

    /// The superblock of `root` for one end of `leaf`, with `blocks` and `retired` as its lengths.
    fn image(&self, index: usize, end: End, root: &Root<'_>, blocks: u64, retired: &[u64]) -> Image {
        let leaf = &self.leaves[index];
        let superblock = Superblock {
            features: self.features,
            pool: self.pool,
            device: leaf.uuid,
            generation: root.generation,
            previous: root.previous,
            highest_seen: root.highest_seen,
            vdev: leaf.vdev,
            tier: leaf.tier,
            kind: leaf.kind,
            leaf: leaf.leaf,
            leaf_count: leaf.leaf_count,
            end,
            slot: root.slot,
            device_blocks: blocks,
            segment_blocks: self.segment_blocks,
            // Every leaf is online: each will hold this generation before it counts.
            member_sequences: vec![root.generation.0; usize::from(leaf.leaf_count)],
            retired: retired.to_vec(),
            topology: root.topology.clone(),
            payload: root.payload.to_vec(),
        };
        Image {
            leaf: index,
            block: end.superblock_block(blocks, root.slot),
            bytes: AlignedBuffer::copy_of(&superblock.encode()),
        }
    }

    /// Writes `images` and flushes every leaf.
    fn write_flushed(&self, pool: &Pool, images: &[Image]) -> Result<(), PoolError> {
        for image in images {
            let leaf = &self.leaves[image.leaf];
            pool.write_label(leaf.position, &leaf.device, image.block, &image.bytes)?;
        }
        if planted(Bug::SkipSuperblockFlush) {
            return Ok(());
        }
        self.leaves.iter().try_for_each(|leaf| pool.flush_position(leaf.position))
    }

    /// The lengths that the next commit records for leaf `index`: present and earlier ones.
    fn next_lengths(&self, index: usize) -> (u64, Vec<u64>) {
        let leaf = &self.leaves[index];
        let mut retired = leaf.retired.clone();
        if leaf.next_blocks != leaf.blocks {
            retired.push(leaf.blocks);
        }
        (leaf.next_blocks, retired)
    }
}

fn zeros(leaf: usize, block: u64, blocks: u64) -> Image {
    Image { leaf, block, bytes: AlignedBuffer::zeroed(blocks as usize * BLOCK_BYTES) }
}

impl Pool {
    /// Makes both label areas of every leaf zero and durable: the end of whatever was there.
    ///
    /// Also done on blank devices, so that a sparse file has its label areas allocated.
    pub(super) fn clear_labels(&self) -> Result<(), PoolError> {
        let superblocks = self.superblocks().lock();
        let both = |(index, leaf): (usize, &Leaf)| {
            End::BOTH.map(|end| zeros(index, end.area(leaf.blocks).start, AREA_BLOCKS))
        };
        let images: Vec<Image> = superblocks.leaves.iter().enumerate().flat_map(both).collect();
        superblocks.write_flushed(self, &images)
    }

    /// The last durable generation; 0 before the first commit.
    #[must_use]
    pub fn committed(&self) -> Generation {
        self.superblocks().lock().committed
    }

    /// The generation that the next commit may have, at the least: above the last one, above every generation that
    /// open saw, and above `seen` (the highest that the caller saw in bitmaps or log records).
    #[must_use]
    pub fn next_generation(&self, seen: Generation) -> Generation {
        let superblocks = self.superblocks().lock();
        if planted(Bug::ReuseGeneration) {
            return superblocks
                .candidates
                .first()
                .map_or(superblocks.committed, |newest| newest.generation)
                .next();
        }
        superblocks.committed.max(superblocks.highest_seen).max(seen).next()
    }

    /// Makes `generation` the root of the pool: writes its superblock with `payload` to the front of all leaves,
    /// flushes them, then to the back of all leaves, and flushes them. A crash in between leaves this generation or
    /// the one before, never neither. A pool of memory vdevs only counts.
    ///
    /// The caller has flushed everything that `payload` refers to ([`Pool::flush_all`]) before; RELIABILITY rule:
    /// data, flush, root, flush.
    ///
    /// # Errors
    /// [`PoolError::PayloadTooLarge`] above [`PAYLOAD_BYTES_MAX`] bytes: nothing was written.
    /// [`PoolError::Vdev`]: the pool is then poisoned, also by a full host file system; whether the generation became
    /// durable is known only by opening anew. [`PoolError::Poisoned`], [`PoolError::ReadOnly`], [`PoolError::Closed`].
    ///
    /// # Panics
    /// When `generation` is not above the last one and every generation that open saw, and between open and
    /// [`Pool::rewrite_chosen`].
    pub fn commit(&self, generation: Generation, payload: &[u8]) -> Result<(), PoolError> {
        check_payload(payload)?;
        let mut superblocks = self.superblocks().lock();
        self.check_writable()?;
        assert!(superblocks.settled, "a commit comes after rewrite_chosen");
        assert!(
            generation > superblocks.committed && generation > superblocks.highest_seen,
            "generation {generation} was used before"
        );

        let lengths: Vec<(u64, Vec<u64>)> =
            (0..superblocks.leaves.len()).map(|leaf| superblocks.next_lengths(leaf)).collect();
        let grown = |(index, leaf): (usize, &Leaf)| {
            let area = End::Back.area(leaf.next_blocks);
            (leaf.next_blocks != leaf.blocks).then(|| zeros(index, area.start, AREA_BLOCKS))
        };
        let new_areas: Vec<Image> = superblocks.leaves.iter().enumerate().filter_map(grown).collect();
        if !new_areas.is_empty() {
            superblocks.write_flushed(self, &new_areas)?;
        }
        let root = Root {
            generation,
            slot: if planted(Bug::SuperblockSlotZero) { 0 } else { next_slot(superblocks.slot) },
            previous: superblocks.committed,
            highest_seen: generation,
            topology: &superblocks.topology,
            payload,
        };
        for end in End::BOTH {
            let image = |(leaf, (blocks, retired)): (usize, &(u64, Vec<u64>))| {
                superblocks.image(leaf, end, &root, *blocks, retired)
            };
            let images: Vec<Image> = lengths.iter().enumerate().map(image).collect();
            superblocks.write_flushed(self, &images)?;
        }
        for (leaf, (blocks, retired)) in superblocks.leaves.iter_mut().zip(lengths) {
            leaf.blocks = blocks;
            leaf.retired = retired;
        }
        superblocks.slot = next_slot(superblocks.slot);
        superblocks.committed = generation;
        superblocks.highest_seen = generation;
        Ok(())
    }

    /// Continues from `generation`, one of [`super::OpenReport::candidates`]: writes its superblock wherever a leaf
    /// lacks it, and removes newer ones that could not be opened, so that every later open sees the same root. Comes
    /// after open and before anything else is written; everything found is flushed first, since a process that was
    /// killed may have left it in a cache.
    ///
    /// The only valid copy of a superblock is never overwritten: missing copies come first, then the front, then the
    /// back, each flushed.
    ///
    /// # Errors
    /// [`PoolError::NotACandidate`]: nothing was written. Otherwise as [`Pool::commit`].
    pub fn rewrite_chosen(&self, generation: Generation) -> Result<(), PoolError> {
        self.check_writable()?;
        let mut superblocks = self.superblocks().lock();
        let candidate =
            superblocks.candidates.iter().find(|candidate| candidate.generation == generation).cloned();
        let Some(candidate) = candidate else {
            return Err(PoolError::NotACandidate { generation });
        };
        self.flush_all()?;
        let root = Root {
            generation,
            slot: candidate.slot,
            previous: candidate.previous,
            highest_seen: superblocks.highest_seen,
            topology: &candidate.topology,
            payload: &candidate.payload,
        };
        let (mut missing, mut front, mut back) = (Vec::new(), Vec::new(), Vec::new());
        for (index, leaf) in superblocks.leaves.iter().enumerate() {
            for end in End::BOTH {
                let image = superblocks.image(index, end, &root, leaf.blocks, &leaf.retired);
                let mut present = AlignedBuffer::zeroed(BLOCK_BYTES);
                let read = leaf.device.read_at(&mut present, image.block * BLOCK_BYTES_U64);
                let is_valid = read.is_ok()
                    && Superblock::decode(&present).is_ok_and(|found| found.generation == generation);
                match (is_valid, end) {
                    (false, _) => missing.push(image),
                    (true, _) if present[..] == image.bytes[..] => {}
                    (true, End::Front) => front.push(image),
                    (true, End::Back) => back.push(image),
                }
            }
        }
        let abandoned = superblocks.found.iter().filter(|(_, _, found)| *found > generation);
        let abandoned: Vec<Image> = abandoned.map(|(leaf, block, _)| zeros(*leaf, *block, 1)).collect();
        for images in [missing, front, back, abandoned] {
            if !images.is_empty() {
                superblocks.write_flushed(self, &images)?;
            }
        }
        superblocks.committed = generation;
        superblocks.slot = candidate.slot;
        superblocks.settled = true;
        superblocks.candidates = Vec::new();
        superblocks.found = Vec::new();
        Ok(())
    }

    /// Reads every label and superblock slot of every durable leaf; nothing is written.
    #[must_use]
    pub fn dump_superblocks(&self) -> Vec<SlotDump> {
        let superblocks = self.superblocks().lock();
        superblocks.leaves.iter().flat_map(|leaf| dump_device(&*leaf.device)).collect()
    }
}

impl Superblocks {
    pub fn pool(&self) -> Uuid {
        self.pool
    }

    pub fn segment_blocks(&self) -> u32 {
        self.segment_blocks
    }

    /// Every labelled device, with the position of its vdev.
    pub fn devices(&self) -> Vec<(usize, Arc<dyn BlockDevice>)> {
        self.leaves.iter().map(|leaf| (leaf.position, Arc::clone(&leaf.device))).collect()
    }
}

fn check_payload(payload: &[u8]) -> Result<(), PoolError> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(PoolError::PayloadTooLarge { bytes: payload.len(), limit: PAYLOAD_BYTES_MAX });
    }
    Ok(())
}
