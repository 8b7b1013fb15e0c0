//! Copies of extents, from one geometry to another.

use super::*;
use crate::base::checksum::crc;
use crate::base::codec::Encoder;
use crate::base::preference::StoragePreference;
use crate::dmu::format::{ChunkEntry, DIRECTORY_MAGIC, IndirectVdev, PLACE_BYTES, encode_chunk, map_head};
use crate::dmu::testing::KINDS;
use crate::dmu::{Checksummed, OwnedExtents};
use crate::pool::format::VdevKind;
use crate::pool::{Pool, TopLevelVdev};
use crate::vdev::{BlockDevice, SimClock, SimDisk, SimRng};
use std::sync::Arc;

const OLD: VdevId = VdevId(1);
const NEW: VdevId = VdevId(2);

fn vdev(id: VdevId, kind: VdevKind, leaves: usize, blocks: u64) -> (TopLevelVdev, Vec<SimDisk>) {
    vdev_of(0, id, kind, leaves, blocks)
}

fn vdev_of(tier: u8, id: VdevId, kind: VdevKind, leaves: usize, blocks: u64) -> (TopLevelVdev, Vec<SimDisk>) {
    let clock = SimClock::new(u64::from(id.0));
    let disk = |leaf| SimDisk::new(&format!("disk {id}.{leaf}"), blocks * BLOCK_BYTES_U64, &clock);
    let disks: Vec<SimDisk> = (0..leaves).map(disk).collect();
    let devices = disks.iter().map(|disk| Arc::new(disk.device()) as Arc<dyn BlockDevice>).collect();
    (TopLevelVdev::group(id, tier, kind, devices), disks)
}

/// Extents of one owner, and what they hold.
struct Thing {
    space: OwnedExtents,
    bytes: Vec<u8>,
}

impl Thing {
    fn new(dmu: &Dmu, random: &mut SimRng, generation: Generation) -> Self {
        let most = [3, 70, 200][random.index(3)];
        let blocks = 1 + random.below(most);
        let mut extents = Vec::new();
        let mut left = blocks as u32;
        while left > 0 {
            let piece = if random.chance(1, 3) { 1 + random.below(u64::from(left)) as u32 } else { left };
            let piece = if piece == left { piece } else { piece.next_multiple_of(64).min(left) };
            extents.extend(
                dmu.allocate(Stream::Base, StoragePreference::NONE, piece, Privilege::System).unwrap(),
            );
            left -= piece;
        }
        Self::at(dmu, random, extents, blocks, generation)
    }

    /// One of `blocks` blocks in `extents`.
    fn at(dmu: &Dmu, random: &mut SimRng, extents: Vec<Extent>, blocks: u64, generation: Generation) -> Self {
        let mut bytes = vec![0; blocks as usize * BLOCK_BYTES];
        bytes.chunks_mut(64).for_each(|chunk| chunk.fill(random.next_u64() as u8));
        dmu.write(&extents, 0, &bytes).unwrap();
        let space = OwnedExtents::unborn(dmu, extents);
        space.install(generation);
        Self { space, bytes }
    }

    fn task(&self) -> ScrubTask {
        let unit = |(index, bytes): (usize, &[u8])| Checksummed {
            offset: index as u64 * 10_000,
            length: bytes.len() as u64,
            checksum: crc(bytes),
        };
        ScrubTask {
            extents: self.space.extents().to_vec(),
            units: self.bytes.chunks(10_000).enumerate().map(unit).collect(),
            is_partial: false,
        }
    }

    fn check(&self, dmu: &Dmu, random: &mut SimRng) {
        let blocks = self.bytes.len() / BLOCK_BYTES;
        let from = random.index(blocks);
        let to = from + 1 + random.index(blocks - from);
        let range = from * BLOCK_BYTES..to * BLOCK_BYTES;
        let read = dmu.read(self.space.extents(), range.start as u64, range.len()).unwrap();
        assert!(read[..] == self.bytes[range]);
        let outcome = dmu.scrub(&self.task(), None).unwrap();
        assert!(outcome.damage.is_empty(), "{outcome:?}");
    }
}

fn checkpoint(dmu: &Dmu, generation: &mut u64) {
    *generation += 1;
    let generation = Generation(*generation);
    dmu.prepare_departure(generation);
    let longest = dmu.table_root_bytes_max(generation);
    let root = dmu.write_bitmaps(generation).unwrap();
    assert_eq!(root.len(), longest);
    dmu.set_durable(generation);
}

/// From every kind of vdev to every kind: what was there is read from the others, dies there, and leaves nothing behind.
#[test]
fn extents_go_from_every_geometry_to_every_other() {
    for (seed, (from, of_kind, of_leaves)) in (1..).zip(KINDS) {
        for (to, kind, leaves) in KINDS {
            println!("{from} to {to}");
            let mut random = SimRng::new(seed);
            let (old, _) = vdev(OLD, of_kind, of_leaves, 4096);
            let (new, _) = vdev(NEW, kind, leaves, 8192);
            let dmu = Dmu::over(Arc::new(Pool::from_vdevs(vec![old, new])), 0);
            let mut generation = 0;
            let thing =
                |random: &mut SimRng, generation| Thing::new(&dmu, random, Generation(generation + 1));
            let mut things: Vec<Thing> = (0..40).map(|_| thing(&mut random, generation)).collect();
            checkpoint(&dmu, &mut generation);
            assert!(dmu.used_blocks(OLD) > 0 && dmu.used_blocks(NEW) > 0);
            dmu.close_vdev(OLD).unwrap();
            let late = thing(&mut random, generation);
            assert!(late.space.extents().iter().all(|extent| extent.vdev == NEW));
            things.push(late);
            // What is not copied keeps the vdev.
            dmu.want_switch();
            checkpoint(&dmu, &mut generation);
            assert!(dmu.left_on_vdev().is_some_and(|left| left > 0) && !dmu.has_left(OLD));
            for thing in &things {
                let outcome = dmu.evacuate(&thing.task()).unwrap();
                assert!(outcome.damage.is_empty(), "{outcome:?}");
                assert_eq!(dmu.evacuate(&thing.task()).unwrap().filled, 0, "copied twice");
            }
            // One dies between its copy and the switch.
            things.remove(3).space.kill(Generation(generation + 1));
            dmu.want_switch();
            checkpoint(&dmu, &mut generation);
            assert!(dmu.has_left(OLD) && dmu.left_on_vdev().is_none());
            things.iter().for_each(|thing| thing.check(&dmu, &mut random));
            // Read anew.
            let indirect = dmu.allocator().indirect.lock().clone();
            let before = dmu.departed();
            dmu.load_maps(&indirect).unwrap();
            assert_eq!(dmu.departed(), before);
            things.iter().for_each(|thing| thing.check(&dmu, &mut random));
            while !things.is_empty() {
                let one = things.swap_remove(random.index(things.len()));
                one.space.kill(Generation(generation + 1));
                if random.chance(1, 4) {
                    checkpoint(&dmu, &mut generation);
                    one.check(&dmu, &mut random);
                }
            }
            for _ in 0..4 {
                checkpoint(&dmu, &mut generation);
            }
            let gone = dmu.departed();
            assert_eq!((gone[0].id, gone[0].extents, gone[0].blocks), (OLD, 0, 0));
            assert_eq!((dmu.used_blocks(NEW), dmu.map_extents()), (0, Vec::new()));
            assert_eq!(dmu.deferred_blocks(), 0);
            let space = dmu.space()[0];
            assert_eq!((space.free, space.used), (space.total, 0), "{from} to {to}");
        }
    }
}

/// One vdev after the other leaves: what moved moves again, in part or as a whole, and no line leads to another.
#[test]
fn what_moved_moves_again() {
    for seed in 0..12 {
        let mut random = SimRng::new(seed);
        let mut vdevs = Vec::new();
        for id in 1..=4 {
            let (_, kind, leaves) = KINDS[random.index(KINDS.len())];
            vdevs.push(vdev(VdevId(id), kind, leaves, 4096).0);
        }
        let dmu = Dmu::over(Arc::new(Pool::from_vdevs(vdevs)), 0);
        let mut generation = 0;
        let mut things = Vec::new();
        for round in 1..4 {
            for _ in 0..10 {
                things.push(Thing::new(&dmu, &mut random, Generation(generation + 1)));
            }
            checkpoint(&dmu, &mut generation);
            let leaves = VdevId(round);
            dmu.close_vdev(leaves).unwrap();
            for thing in &things {
                assert!(dmu.evacuate(&thing.task()).unwrap().damage.is_empty());
            }
            things.swap_remove(random.index(things.len())).space.kill(Generation(generation + 1));
            dmu.want_switch();
            checkpoint(&dmu, &mut generation);
            assert!(dmu.has_left(leaves), "seed {seed}: {:?} left", dmu.left_on_vdev());
            things.iter().for_each(|thing| thing.check(&dmu, &mut random));
            let places = things.iter().flat_map(|thing| thing.space.extents());
            let mut places = places.filter_map(|extent| dmu.places_of_moved(extent)).flatten();
            assert!(places.all(|place| place.vdev > leaves), "seed {seed}");
            assert!(dmu.map_extents().iter().all(|extent| extent.vdev > leaves), "seed {seed}");
        }
        assert_eq!(dmu.departed().len(), 3);
        for thing in things.drain(..) {
            thing.space.kill(Generation(generation + 1));
        }
        for _ in 0..4 {
            checkpoint(&dmu, &mut generation);
        }
        let space = dmu.space()[0];
        assert_eq!((space.free, space.used), (space.total, 0), "seed {seed}");
    }
}

/// On a vdev with short gaps an extent has several places; on parity, what is written there behind each other is not longer than it
/// was.
#[test]
fn what_is_scattered_moves_to_every_geometry() {
    const SCATTERED: VdevId = VdevId(2);
    const LAST: VdevId = VdevId(3);
    for (name, kind, leaves) in KINDS {
        let mut random = SimRng::new(leaves as u64);
        let old = vdev(OLD, VdevKind::Leaf, 1, 2048).0;
        let scattered = vdev(SCATTERED, VdevKind::Leaf, 1, 2048).0;
        let last = vdev_of(1, LAST, kind, leaves, 16384).0;
        let dmu = Dmu::over(Arc::new(Pool::from_vdevs(vec![old, scattered, last])), 0);
        let mut generation = 0;
        // Short things until the vdev is full; every other one goes.
        dmu.close_vdev(OLD).unwrap();
        let mut things = Vec::new();
        loop {
            let blocks = 1 + random.below(7);
            let place =
                dmu.allocate(Stream::Base, StoragePreference::FASTEST, blocks as u32, Privilege::System);
            let Ok(extents) = place else { break };
            if extents.iter().any(|extent| extent.vdev != SCATTERED) {
                dmu.release(&extents);
                break;
            }
            things.push(Thing::at(&dmu, &mut random, extents, blocks, Generation(1)));
        }
        assert!(things.len() > 300, "{name}: {}", things.len());
        checkpoint(&dmu, &mut generation);
        dmu.open_vdev(OLD);
        for (index, thing) in std::mem::take(&mut things).into_iter().enumerate() {
            match index % 2 {
                0 => thing.space.kill(Generation(generation + 1)),
                _ => things.push(thing),
            }
        }
        dmu.close_vdev(SCATTERED).unwrap();
        for blocks in 3..23 {
            let extents =
                dmu.allocate(Stream::Base, StoragePreference::FASTEST, blocks, Privilege::System).unwrap();
            assert!(extents.iter().all(|extent| extent.vdev == OLD));
            things.push(Thing::at(&dmu, &mut random, extents, u64::from(blocks), Generation(generation + 1)));
        }
        dmu.open_vdev(SCATTERED);
        for _ in 0..3 {
            checkpoint(&dmu, &mut generation);
        }
        let mut several = 0;
        for leaving in [OLD, SCATTERED] {
            dmu.close_vdev(leaving).unwrap();
            for thing in &things {
                assert!(dmu.evacuate(&thing.task()).unwrap().damage.is_empty());
            }
            dmu.want_switch();
            checkpoint(&dmu, &mut generation);
            assert!(dmu.has_left(leaving), "{name}: {:?} left", dmu.left_on_vdev());
            things.iter().for_each(|thing| thing.check(&dmu, &mut random));
            let extents = things.iter().flat_map(|thing| thing.space.extents());
            let places = extents.filter_map(|extent| dmu.places_of_moved(extent));
            several = several.max(places.filter(|places| places.len() > 1).count());
        }
        assert!(several > 10, "{name}: {several}");
        // Nothing of it is left either.
        things.drain(..).for_each(|thing| thing.space.kill(Generation(generation + 1)));
        for _ in 0..4 {
            checkpoint(&dmu, &mut generation);
        }
        assert_eq!(dmu.used_blocks(LAST), 0, "{name}");
    }
}

/// What is given up leaves nothing taken, and the vdev takes extents again; so does a checkpoint that is.
#[test]
fn what_is_given_up_is_as_it_was() {
    let mut random = SimRng::new(5);
    let (old, new) = (vdev(OLD, VdevKind::Leaf, 1, 4096).0, vdev(NEW, VdevKind::Parity1, 3, 2048).0);
    let dmu = Dmu::over(Arc::new(Pool::from_vdevs(vec![old, new])), 0);
    let mut generation = 0;
    let mut things: Vec<Thing> =
        (0..20).map(|_| Thing::new(&dmu, &mut random, Generation(generation + 1))).collect();
    checkpoint(&dmu, &mut generation);
    let before = dmu.space();
    for _ in 0..2 {
        dmu.close_vdev(OLD).unwrap();
        assert!(dmu.close_vdev(NEW).is_err());
        for thing in &things {
            dmu.evacuate(&thing.task()).unwrap();
        }
        dmu.want_switch();
        // The checkpoint that switches does not come to its end.
        generation += 1;
        let failed = Generation(generation);
        things.pop().unwrap().space.kill(failed);
        dmu.prepare_departure(failed);
        dmu.write_bitmaps(failed).unwrap();
        dmu.abort_bitmaps(failed);
        assert!(!dmu.has_left(OLD));
        things.iter().for_each(|thing| thing.check(&dmu, &mut random));
        dmu.open_vdev(OLD);
        checkpoint(&dmu, &mut generation);
        checkpoint(&dmu, &mut generation);
        let mut allocated = 0;
        for vdev in [OLD, NEW] {
            dmu.for_each_allocated(vdev, |extent| allocated += u64::from(extent.blocks)).unwrap();
        }
        let held = things.iter().flat_map(|thing| thing.space.extents());
        assert_eq!(allocated, held.map(|extent| u64::from(extent.blocks)).sum::<u64>());
        assert_eq!(dmu.space()[0].total, before[0].total);
        checkpoint(&dmu, &mut generation);
        // But for rounding.
        let space = dmu.space()[0];
        assert!(space.free.abs_diff(space.total - space.used) < 4, "{space:?}");
    }
    // The abort of a switch, and then one that succeeds.
    dmu.close_vdev(OLD).unwrap();
    for thing in &things {
        dmu.evacuate(&thing.task()).unwrap();
    }
    for aborts in [true, false] {
        dmu.want_switch();
        if aborts {
            generation += 1;
            dmu.prepare_departure(Generation(generation));
            dmu.write_bitmaps(Generation(generation)).unwrap();
            dmu.abort_bitmaps(Generation(generation));
        } else {
            checkpoint(&dmu, &mut generation);
        }
    }
    assert!(dmu.has_left(OLD));
    things.iter().for_each(|thing| thing.check(&dmu, &mut random));
}

/// A leg that rotted is not what is copied; what rotted on all legs is named, and keeps the vdev.
#[test]
fn only_what_is_right_is_copied() {
    let mut random = SimRng::new(9);
    let ((old, disks), new) = (vdev(OLD, VdevKind::Mirror, 2, 4096), vdev(NEW, VdevKind::Leaf, 1, 8192).0);
    let dmu = Dmu::over(Arc::new(Pool::from_vdevs(vec![old, new])), 0);
    let mut generation = 0;
    let things: Vec<Thing> =
        (0..30).map(|_| Thing::new(&dmu, &mut random, Generation(generation + 1))).collect();
    checkpoint(&dmu, &mut generation);
    let on_old = things.iter().flat_map(|thing| thing.space.extents()).filter(|extent| extent.vdev == OLD);
    let on_old: Vec<Extent> = on_old.copied().collect();
    for (number, block) in on_old.iter().flat_map(range_of).enumerate() {
        disks[number % 2].flip_bit(block * BLOCK_BYTES_U64 + 7, 2);
    }
    let bad = on_old[on_old.len() / 2].block * BLOCK_BYTES_U64 + 7;
    dmu.close_vdev(OLD).unwrap();
    for is_mended in [false, true] {
        if !is_mended {
            // One block is wrong on both.
            disks.iter().for_each(|disk| disk.flip_bit(bad, 5));
        } else {
            disks.iter().for_each(|disk| disk.flip_bit(bad, 5));
        }
        let outcomes: Vec<ScrubOutcome> =
            things.iter().map(|thing| dmu.evacuate(&thing.task()).unwrap()).collect();
        let damaged: usize = outcomes.iter().map(|outcome| outcome.damage.len()).sum();
        assert_eq!(damaged, usize::from(!is_mended));
        dmu.want_switch();
        checkpoint(&dmu, &mut generation);
        assert_eq!(dmu.has_left(OLD), is_mended);
    }
    things.iter().for_each(|thing| thing.check(&dmu, &mut random));
}

/// A unit lies in two extents and is wrong on one leg, in the first of them. What is copied is what was verified, whichever leg
/// is asked for the unit and whichever for the extent.
#[test]
fn a_unit_in_two_extents_is_copied_as_it_was_verified() {
    for (first, leg) in [(300, 0), (300, 1), (512, 0), (512, 1)] {
        let ((old, disks), new) =
            (vdev(OLD, VdevKind::Mirror, 2, 4096), vdev(NEW, VdevKind::Leaf, 1, 8192).0);
        let dmu = Dmu::over(Arc::new(Pool::from_vdevs(vec![old, new])), 0);
        dmu.allocator().set_closed(NEW, true).unwrap();
        let take = |blocks| dmu.allocate(Stream::Base, StoragePreference::NONE, blocks, Privilege::System);
        let extents = [take(first).unwrap(), take(100).unwrap()].concat();
        assert!(extents.len() == 2 && extents.iter().all(|extent| extent.vdev == OLD), "{extents:?}");
        dmu.allocator().set_closed(NEW, false).unwrap();
        let mut random = SimRng::new(u64::from(first));
        let mut bytes = vec![0; (first as usize + 100) * BLOCK_BYTES];
        bytes.chunks_mut(64).for_each(|chunk| chunk.fill(random.next_u64() as u8));
        dmu.write(&extents, 0, &bytes).unwrap();
        let border = first as usize * BLOCK_BYTES;
        let ends = [border - 8 * BLOCK_BYTES, border + 8 * BLOCK_BYTES, bytes.len()];
        let mut task = ScrubTask { extents: extents.clone(), ..ScrubTask::default() };
        let mut from = 0;
        for to in ends {
            let (offset, length) = (from as u64, (to - from) as u64);
            task.units.push(Checksummed { offset, length, checksum: crc(&bytes[from..to]) });
            from = to;
        }
        let space = OwnedExtents::unborn(&dmu, extents.clone());
        space.install(Generation(1));
        let mut generation = 0;
        checkpoint(&dmu, &mut generation);
        for block in extents[0].end() - 8..extents[0].end() {
            disks[leg].flip_bit(block * BLOCK_BYTES_U64 + 9, 3);
        }
        dmu.close_vdev(OLD).unwrap();
        let outcome = dmu.evacuate(&task).unwrap();
        assert!(outcome.damage.is_empty(), "{outcome:?}");
        dmu.want_switch();
        checkpoint(&dmu, &mut generation);
        assert!(dmu.has_left(OLD));
        let read = dmu.read(&extents, 0, bytes.len()).unwrap();
        assert!(read[..] == bytes, "{first} blocks, leg {leg}: what is wrong was copied");
    }
}

/// A directory whose checksum is right, and that names a chunk behind everything.
#[test]
fn a_chunk_that_starts_nowhere_is_refused() {
    let (old, new) = (vdev(OLD, VdevKind::Leaf, 1, 4096).0, vdev(NEW, VdevKind::Leaf, 1, 4096).0);
    let dmu = Dmu::over(Arc::new(Pool::from_vdevs(vec![old, new])), 0);
    let places = dmu.allocate(Stream::Base, StoragePreference::NONE, 1, Privilege::System).unwrap();
    let chunk = encode_chunk(OLD, &[ChunkEntry { block: 0, blocks: 1, places }]);
    let stored = dmu.store_bytes(&chunk, StoragePreference::NONE).unwrap();
    for (block, is_right) in [(0, true), (CHUNK_BLOCKS, false), (u64::MAX - (CHUNK_BLOCKS - 1), false)] {
        let mut directory = map_head(DIRECTORY_MAGIC, OLD, 1);
        directory.u64(block);
        directory.u32(chunk.len() as u32);
        directory.u32(crc(&chunk));
        stored.encode(&mut directory);
        let directory = directory.finish();
        let mut pointer = Encoder::new();
        dmu.store_bytes(&directory, StoragePreference::NONE).unwrap().encode(&mut pointer);
        let (pointer, mut place) = (pointer.finish(), [0; PLACE_BYTES]);
        place[..pointer.len()].copy_from_slice(&pointer);
        let (bytes, checksum) = (directory.len() as u32, crc(&directory));
        let vdev = IndirectVdev { id: OLD, bytes, checksum, since: Generation(1), place };
        assert_eq!(dmu.load_maps(&[vdev]).is_ok(), is_right, "{block}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut random = SimRng::new(3);
    let (old, new) = (vdev(OLD, VdevKind::Leaf, 1, 4096).0, vdev(NEW, VdevKind::Leaf, 1, 1024).0);
    let dmu = Dmu::over(Arc::new(Pool::from_vdevs(vec![old, new])), 0);
    let mut generation = 0;
    let things: Vec<Thing> =
        (0..40).map(|_| Thing::new(&dmu, &mut random, Generation(generation + 1))).collect();
    checkpoint(&dmu, &mut generation);
    let before = dmu.space();
    assert!(matches!(dmu.close_vdev(OLD), Err(DmuError::OutOfSpace { .. })));
    assert_eq!(dmu.space(), before);
    assert!(dmu.close_vdev(VdevId(9)).is_err());
    things.iter().for_each(|thing| thing.check(&dmu, &mut random));
}

#[test]
fn blocks_that_nothing_covers_are_counted() {
    let covered = [2..4, 4..5, 8..9, 8..12];
    for (blocks, left) in [(0..2, 2), (2..5, 0), (1..6, 2), (4..9, 3), (9..20, 8), (0..20, 13), (6..7, 1)] {
        assert_eq!(uncovered(&blocks, &covered), left, "{blocks:?}");
    }
}
