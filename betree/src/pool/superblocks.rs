//! Writing superblocks: commits, and what open does before anything else is written.

use super::assembly::{Assembly, Leaf};
use super::format::{
    AREA_BLOCKS, End, Features, MAGIC_BYTES, MemberState, PAYLOAD_BYTES_MAX, Superblock, Topology, VdevState,
    next_slot,
};
use super::group::Group;
use super::label::{SlotContent, SlotDump, SlotUse, dump_device};
use super::member::Member;
use super::{Pool, PoolError};
use crate::base::buffer::AlignedBuffer;
use crate::base::ids::{Generation, Uuid, VdevId};
use crate::base::planted::{Bug, planted};
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::vdev::{BlockDevice, NewFile};
use std::collections::BTreeSet;
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
    highest_used: Generation,
    /// Vdevs that the root which the pool continues from does not know: they join with the next commit.
    joining: BTreeSet<VdevId>,
    /// Whether the pool continues from a known generation: always, but between open and `rewrite_chosen`.
    settled: bool,
    /// Roots that open found, newest first.
    candidates: Vec<Superblock>,
    /// Leaf, block and generation of every valid superblock that open found.
    found: Vec<(usize, u64, Generation)>,
    /// Leaf, block and use of every slot that it found to be torn, or rotten.
    torn: Vec<(usize, u64, SlotUse)>,
    /// Vdevs whose label areas hold whatever was there before.
    added: BTreeSet<VdevId>,
    /// Files that were made for these, of which nobody has heard.
    made: Vec<NewFile>,
    /// Leaves of vdevs that left since then.
    former: Vec<Leaf>,
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

/// Every byte behind the magic of a slot that held something torn.
const UNMADE: u8 = 0xff;

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
            highest_used: assembly.highest_used,
            joining: BTreeSet::new(),
            settled: assembly.candidates.is_empty(),
            candidates: assembly.candidates,
            found: assembly.found,
            torn: assembly.torn,
            added: assembly.added,
            made: Vec::new(),
            former: Vec::new(),
        }
    }

    /// Keeps `made` from the next commit on; without one they are removed again.
    pub fn hold(&mut self, made: Vec<NewFile>) {
        self.made = made;
    }

    /// As [`Pool::take_added`]. A member that fails is an error: it could not be told from one of another pool.
    fn clear_added(&mut self) -> Result<(), PoolError> {
        let zeros = AlignedBuffer::zeroed(AREA_BLOCKS as usize * BLOCK_BYTES);
        for leaf in self.leaves.iter().filter(|leaf| self.added.contains(&leaf.vdev)) {
            for end in End::BOTH {
                leaf.device.write_at(&zeros, end.area(leaf.blocks).start * BLOCK_BYTES_U64)?;
            }
            leaf.device.flush()?;
        }
        self.added.clear();
        Ok(())
    }

    /// The vdev at `position` is not in the list of vdevs any more, nor its leaves among those that get superblocks. The
    /// hash of the list, and whether that changed anything.
    pub fn remove(&mut self, vdev: VdevId) -> Option<u64> {
        let entry = self.topology.entries.iter_mut().find(|entry| entry.id == vdev)?;
        entry.state = VdevState::Indirect;
        let (former, leaves) =
            std::mem::take(&mut self.leaves).into_iter().partition(|leaf| leaf.vdev == vdev);
        self.leaves = leaves;
        self.former.extend::<Vec<Leaf>>(former);
        Some(self.topology.hash())
    }

    /// Whether there are leaves of vdevs that left.
    pub fn has_former(&self) -> bool {
        !self.former.is_empty()
    }

    /// Takes the leaves of vdevs that left.
    pub fn take_former(&mut self) -> Vec<Leaf> {
        std::mem::take(&mut self.former)
    }

    /// The superblock of `root` for one end of a leaf, with `blocks` and `retired` as its lengths: where, and what.
    fn encode(
        &self,
        pool: &Pool,
        leaf: &Leaf,
        end: End,
        root: &Root<'_>,
        blocks: u64,
        retired: &[u64],
    ) -> (u64, AlignedBuffer) {
        let held = |member: &Arc<Member>| match (member.is_volatile(), member.state()) {
            (true, _) => 0,
            // It will hold this generation before that counts.
            (false, MemberState::Online) => root.generation.0,
            (false, _) => member.standing().missed_from.0.saturating_sub(1),
        };
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
            member_sequences: pool.vdevs()[leaf.position].group.members().iter().map(held).collect(),
            retired: retired.to_vec(),
            topology: root.topology.clone(),
            payload: root.payload.to_vec(),
        };
        (end.superblock_block(blocks, root.slot), AlignedBuffer::copy_of(&superblock.encode()))
    }

    fn image(
        &self,
        pool: &Pool,
        index: usize,
        end: End,
        root: &Root<'_>,
        (blocks, retired): (u64, &[u64]),
    ) -> Image {
        let (block, bytes) = self.encode(pool, &self.leaves[index], end, root, blocks, retired);
        Image { leaf: index, block, bytes }
    }

    /// Whether the member at leaf `index` takes writes.
    fn is_written(&self, pool: &Pool, index: usize) -> bool {
        let leaf = &self.leaves[index];
        pool.vdevs()[leaf.position].group.members()[usize::from(leaf.leaf)].state().is_written()
    }

    /// What goes over superblocks and labels that a crash tore, where the ones behind the superblock in `slot` come: when the next one is torn as
    /// well, its sectors could be just those that are missing, and one that was never acknowledged be whole. It
    /// stays a slot of ours that is damaged, which may be all that says so of a superblock that was lost.
    fn unmade(&self, slot: u8) -> Vec<Image> {
        let next = SlotUse::Superblock(next_slot(slot));
        let comes_next = |slot: SlotUse| slot == next || matches!(slot, SlotUse::Label(_));
        let mut images = Vec::new();
        for (leaf, block, _) in self.torn.iter().filter(|(_, _, slot)| comes_next(*slot)) {
            let mut present = AlignedBuffer::zeroed(BLOCK_BYTES);
            let read = self.leaves[*leaf].device.read_at(&mut present, block * BLOCK_BYTES_U64);
            let mut bytes = AlignedBuffer::copy_of(&present);
            bytes[MAGIC_BYTES..].fill(UNMADE);
            if read.is_ok() && present[..] != bytes[..] {
                images.push(Image { leaf: *leaf, block: *block, bytes });
            }
        }
        images
    }

    /// Writes `images`, as far as their leaves take writes, and flushes every vdev.
    fn write_flushed(&self, pool: &Pool, images: &[Image]) -> Result<(), PoolError> {
        for image in images {
            let leaf = &self.leaves[image.leaf];
            if !self.is_written(pool, image.leaf) {
                continue;
            }
            pool.write_label(leaf.position, usize::from(leaf.leaf), image.block, &image.bytes)?;
        }
        if planted(Bug::SkipSuperblockFlush) {
            return Ok(());
        }
        let positions: BTreeSet<usize> = self.leaves.iter().map(|leaf| leaf.position).collect();
        positions.into_iter().try_for_each(|position| pool.flush_position(position))
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
        superblocks.write_flushed(self, &images)?;
        // What was recorded meanwhile may have been cleared.
        let lost =
            |group: &&Arc<Group>| group.members().iter().any(|member| member.state() != MemberState::Online);
        self.vdevs().iter().map(|vdev| &vdev.group).filter(lost).for_each(|group| group.change());
        Ok(())
    }

    /// Takes the vdevs that are added: what was on them, of another pool or of this one before a crash, must not be met beside the
    /// first commit, nor beside anything that is written before it. From here on it is gone.
    ///
    /// # Errors
    /// [`PoolError::Vdev`] of a new device; the pool has not changed.
    pub fn take_added(&self) -> Result<(), PoolError> {
        self.superblocks().lock().clear_added()
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
        superblocks.committed.max(superblocks.highest_seen).max(superblocks.highest_used).max(seen).next()
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
    /// durable is known only by opening anew. [`PoolError::UsedUp`] above [`Generation::STORED_MAX`], where nothing was
    /// written. [`PoolError::Poisoned`], [`PoolError::ReadOnly`], [`PoolError::Closed`].
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
        // It would not be taken back.
        if generation > Generation::STORED_MAX {
            return Err(PoolError::UsedUp { generation });
        }

        self.record_counts()?;
        // Others may name them from now on.
        superblocks.made.drain(..).for_each(NewFile::keep);
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
        // Who joins is whole before anybody else names it.
        let joins = |leaf: &Leaf| superblocks.joining.contains(&leaf.vdev);
        let turns = if superblocks.joining.is_empty() { &[false][..] } else { &[true, false][..] };
        for joining in turns {
            for end in End::BOTH {
                let of_turn = lengths
                    .iter()
                    .enumerate()
                    .filter(|(leaf, _)| joins(&superblocks.leaves[*leaf]) == *joining);
                let image = |(leaf, (blocks, retired)): (usize, &(u64, Vec<u64>))| {
                    superblocks.image(self, leaf, end, &root, (*blocks, retired))
                };
                let images: Vec<Image> = of_turn.map(image).collect();
                superblocks.write_flushed(self, &images)?;
            }
        }
        superblocks.joining.clear();
        superblocks.slot = next_slot(superblocks.slot);
        superblocks.committed = generation;
        superblocks.highest_seen = generation;
        self.set_committed(generation, generation);
        let mut moved = BTreeSet::new();
        for (index, (blocks, retired)) in lengths.into_iter().enumerate() {
            if !superblocks.is_written(self, index) {
                continue;
            }
            let leaf = &mut superblocks.leaves[index];
            let group = &self.vdevs()[leaf.position].group;
            if leaf.blocks != blocks {
                let member = &group.members()[usize::from(leaf.leaf)];
                member.update(|standing| standing.blocks = blocks);
                if group.labels().number > 0 && moved.insert(leaf.position) {
                    group.change();
                }
            }
            leaf.blocks = blocks;
            leaf.retired = retired;
        }
        // The back areas are elsewhere now, and the labels with them.
        moved.into_iter().try_for_each(|position| self.record_losses(position))
    }

    /// Continues from `generation`, one of [`super::OpenReport::candidates`]: writes its superblock wherever a leaf
    /// lacks it, and removes newer ones that could not be opened, so that every later open sees the same root. Comes
    /// after open and before anything else is written; everything found is flushed first, since a process that was
    /// killed may have left it in a cache.
    ///
    /// The only valid copy of a superblock is never overwritten: missing copies come first, then the front, then the
    /// back, each flushed. What a crash tore is made unreadable before that.
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
        superblocks.clear_added()?;
        self.flush_all()?;
        let unmade = superblocks.unmade(candidate.slot);
        if !unmade.is_empty() {
            superblocks.write_flushed(self, &unmade)?;
        }
        // Who is missing is durable before anything else that counts.
        (0..self.vdevs().len()).try_for_each(|position| self.record_losses(position))?;
        let root = Root {
            generation,
            slot: candidate.slot,
            previous: candidate.previous,
            highest_seen: superblocks.highest_seen,
            topology: &candidate.topology,
            payload: &candidate.payload,
        };
        let joining: BTreeSet<VdevId> = superblocks.leaves.iter().map(|leaf| leaf.vdev).collect();
        let joining: BTreeSet<VdevId> =
            joining.into_iter().filter(|vdev| root.topology.entry(*vdev).is_none()).collect();
        let (mut missing, mut front, mut back) = (Vec::new(), Vec::new(), Vec::new());
        for (index, leaf) in superblocks.leaves.iter().enumerate() {
            if joining.contains(&leaf.vdev) {
                continue;
            }
            for end in End::BOTH {
                let image = superblocks.image(self, index, end, &root, (leaf.blocks, &leaf.retired));
                let mut present = AlignedBuffer::zeroed(BLOCK_BYTES);
                let read = leaf.device.read_at(&mut present, image.block * BLOCK_BYTES_U64);
                let found = if read.is_ok() { Superblock::decode(&present).ok() } else { None };
                match (found, end) {
                    (None, _) => missing.push(image),
                    (Some(_), _) if present[..] == image.bytes[..] => {}
                    // What is there may be all that says whose device it is, when it was away for a whole turn of the ring.
                    (Some(_), End::Front) => front.push(image),
                    (Some(_), End::Back) => back.push(image),
                }
            }
        }
        let abandoned = superblocks.found.iter().filter(|(_, _, found)| *found > generation);
        // Those of the leaves that join again go last: as long as anybody names their vdev, it is there.
        let (last, abandoned): (Vec<Image>, Vec<Image>) = abandoned
            .map(|(leaf, block, _)| zeros(*leaf, *block, 1))
            .partition(|image| joining.contains(&superblocks.leaves[image.leaf].vdev));
        for images in [missing, front, back, abandoned, last] {
            if !images.is_empty() {
                superblocks.write_flushed(self, &images)?;
            }
        }
        superblocks.committed = generation;
        superblocks.slot = candidate.slot;
        superblocks.joining = joining;
        superblocks.settled = true;
        superblocks.candidates = Vec::new();
        superblocks.found = Vec::new();
        superblocks.torn = Vec::new();
        self.set_committed(generation, superblocks.highest_seen);
        self.vdevs().iter().for_each(|vdev| vdev.group.set_repairs(true));
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
    /// A superblock of the last commit, from whichever leaf has it of those that hold everything: a late one may have another of
    /// the same generation.
    ///
    /// # Errors
    /// [`PoolError::NotCommitted`].
    pub fn committed_root(&self, pool: &Pool) -> Result<Superblock, PoolError> {
        let is_root = |found: &Superblock| found.generation == self.committed;
        let of_leaf = |leaf: &Leaf| {
            let slots = dump_device(&*leaf.device);
            slots.into_iter().find_map(|slot| match slot.content {
                SlotContent::Superblock(found) if is_root(&found) => Some(*found),
                _ => None,
            })
        };
        match self.settled && self.committed.0 > 0 {
            true => {
                let is_online = |leaf: &&Leaf| {
                    let members = pool.vdevs()[leaf.position].group.members();
                    members[usize::from(leaf.leaf)].state() == MemberState::Online
                };
                self.leaves.iter().filter(is_online).find_map(of_leaf).ok_or(PoolError::NotCommitted)
            }
            false => Err(PoolError::NotCommitted),
        }
    }

    /// What a member gets before it counts as one that holds everything: the superblocks of the last commit, and behind these
    /// nothing in the place of newer ones, from which the pool does not continue. Each list is flushed before the next one.
    /// Nothing for memory and before the first commit.
    ///
    /// # Errors
    /// [`PoolError::NotCommitted`] between open and `rewrite_chosen`.
    pub fn images_of_root(
        &self,
        pool: &Pool,
        position: usize,
        member: usize,
    ) -> Result<Vec<Vec<(u64, AlignedBuffer)>>, PoolError> {
        if !self.settled {
            return Err(PoolError::NotCommitted);
        }
        let is_meant = |leaf: &&Leaf| (leaf.position, usize::from(leaf.leaf)) == (position, member);
        let Some(leaf) = self.leaves.iter().find(is_meant).filter(|_| self.committed.0 > 0) else {
            return Ok(Vec::new());
        };
        let present = self.images_for(pool, leaf, &self.committed_root(pool)?);
        let newer = |slot: SlotDump| match slot.content {
            SlotContent::Superblock(found) if found.generation > self.committed => {
                Some((slot.block, AlignedBuffer::zeroed(BLOCK_BYTES)))
            }
            _ => None,
        };
        // In its slot is the newest one now.
        let is_free = |(block, _): &(u64, AlignedBuffer)| present.iter().all(|(other, _)| other != block);
        let newer = dump_device(&*leaf.device).into_iter().filter_map(newer).filter(is_free).collect();
        Ok(vec![present, newer])
    }

    /// What `leaf` gets of `root`: where and what.
    pub fn images_for(&self, pool: &Pool, leaf: &Leaf, root: &Superblock) -> Vec<(u64, AlignedBuffer)> {
        let root = Root {
            generation: root.generation,
            slot: root.slot,
            previous: root.previous,
            highest_seen: self.highest_seen,
            topology: &root.topology,
            payload: &root.payload,
        };
        End::BOTH.map(|end| self.encode(pool, leaf, end, &root, leaf.blocks, &leaf.retired)).into()
    }

    /// Puts `leaf` in the place of the one that was there.
    pub fn put_leaf(&mut self, leaf: Leaf) {
        self.leaves.retain(|old| (old.vdev, old.leaf) != (leaf.vdev, leaf.leaf));
        self.leaves.push(leaf);
    }

    /// Whether the pool continues from a known generation.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    pub fn segment_blocks(&self) -> u32 {
        self.segment_blocks
    }

    /// Every labelled device, with the position of its vdev and its own in it.
    pub fn devices(&self) -> Vec<(usize, usize, Arc<dyn BlockDevice>)> {
        let place = |leaf: &Leaf| (leaf.position, usize::from(leaf.leaf), Arc::clone(&leaf.device));
        self.leaves.iter().map(place).collect()
    }
}

fn check_payload(payload: &[u8]) -> Result<(), PoolError> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(PoolError::PayloadTooLarge { bytes: payload.len(), limit: PAYLOAD_BYTES_MAX });
    }
    Ok(())
}
