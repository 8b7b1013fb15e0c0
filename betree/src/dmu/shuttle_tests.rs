//! Allocation, births, deaths and pins in many orders: no block has two owners, and none is used again while a reader or a
//! checkpoint that may be opened can see it.

use super::{Dmu, OwnedExtents, Privilege, Stream};
use crate::base::exploration::explore;
use crate::base::extent::Extent;
use crate::base::ids::{Generation, VdevId};
use crate::base::preference::StoragePreference;
use crate::base::sync::{Mutex, thread};
use crate::base::units::BLOCK_BYTES;
use crate::pool::{Pool, TopLevelVdev};
use crate::vdev::{MemoryDevice, ScheduledDevice};
use std::collections::BTreeSet;
use std::sync::Arc;

const BLOCKS: u64 = 64;

fn unit() -> Dmu {
    let device = Arc::new(ScheduledDevice(Arc::new(MemoryDevice::new(BLOCKS * BLOCK_BYTES as u64))));
    let vdev = TopLevelVdev::leaf(VdevId(1), 0, BLOCKS, device);
    Dmu::over(Arc::new(Pool::from_vdevs(vec![vdev])), 0)
}

fn take(dmu: &Dmu, blocks: u32) -> Option<Vec<Extent>> {
    dmu.allocate(Stream::Delta, StoragePreference::NONE, blocks, Privilege::System).ok()
}

#[test]
fn shuttle_allocations_never_overlap() {
    explore(4000, || {
        let dmu = unit();
        let free = dmu.available_blocks(0, Privilege::System);
        // A lock of the standard library: to the scheduler, marking is one step.
        let owned = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
        let threads: Vec<_> = (0..3_u32)
            .map(|thread| {
                let (dmu, owned) = (dmu.clone(), Arc::clone(&owned));
                thread::spawn(move || {
                    for round in 0..3 {
                        let Some(extents) = take(&dmu, 5 + thread * 7 + round) else { continue };
                        for extent in &extents {
                            for block in extent.block..extent.end() {
                                assert!(owned.lock().unwrap().insert(block), "block {block} has two owners");
                            }
                        }
                        thread::yield_now();
                        for extent in &extents {
                            (extent.block..extent.end()).for_each(|block| {
                                owned.lock().unwrap().remove(&block);
                            });
                        }
                        dmu.release(&extents);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(dmu.available_blocks(0, Privilege::System), free, "blocks were lost");
        // A double free would have stopped all writing.
        dmu.write(&take(&dmu, 1).unwrap(), 0, &[0; BLOCK_BYTES]).unwrap();
    });
}

/// A value on the device: every byte of it is its number.
struct Value {
    space: OwnedExtents,
    number: u8,
}

impl Value {
    fn check(&self, dmu: &Dmu) {
        let found = dmu.read(self.space.extents(), 0, BLOCK_BYTES).unwrap();
        assert!(found.iter().all(|byte| *byte == self.number), "value {} was overwritten", self.number);
    }
}

/// What a tree is here: one value, its open generation, and what the two newest checkpoints refer to.
struct Tree {
    open: Generation,
    value: Arc<Value>,
}

/// One replaces a value again and again, one writes checkpoints, readers hold on to what they saw.
fn pins() {
    let dmu = unit();
    let value = |number: u8, generation: Generation| {
        // Freeing waits for checkpoints, of which there are few: a device that is full is no news.
        let extents = take(&dmu, 1)?;
        let value = Value { space: OwnedExtents::unborn(&dmu, extents), number };
        dmu.write(value.space.extents(), 0, &[number; BLOCK_BYTES]).unwrap();
        value.space.install(generation);
        Some(Arc::new(value))
    };
    let first = value(1, Generation(1)).unwrap();
    let tree = Arc::new(Mutex::new(Tree { open: Generation(1), value: first }));
    let writer = {
        let (dmu, tree) = (dmu.clone(), Arc::clone(&tree));
        thread::spawn(move || {
            for number in 2..9_u8 {
                // Written before it is known in which generation it is born, as by merges.
                let Some(extents) = take(&dmu, 1) else { continue };
                let space = OwnedExtents::unborn(&dmu, extents);
                dmu.write(space.extents(), 0, &[number; BLOCK_BYTES]).unwrap();
                let mut tree = tree.lock();
                space.install(tree.open);
                let old = std::mem::replace(&mut tree.value, Arc::new(Value { space, number }));
                old.space.kill(tree.open);
                drop(tree);
                drop(old);
            }
        })
    };
    let checkpointer = {
        let (dmu, tree) = (dmu.clone(), Arc::clone(&tree));
        thread::spawn(move || {
            // Place and number of what each durable checkpoint refers to.
            let mut durable: Vec<(Vec<Extent>, u8)> = Vec::new();
            // A crash now falls back to the newest, or to the one before.
            let check = |durable: &[(Vec<Extent>, u8)]| {
                for (extents, number) in durable.iter().rev().take(2) {
                    let found = dmu.read(extents, 0, BLOCK_BYTES).unwrap();
                    assert!(found.iter().all(|byte| byte == number), "a checkpoint lost value {number}");
                }
            };
            for _ in 0..5 {
                let mut guard = tree.lock();
                let generation = guard.open;
                guard.open = generation.next();
                let captured = (guard.value.space.extents().to_vec(), guard.value.number);
                drop(guard);
                dmu.write_bitmaps(generation).unwrap();
                check(&durable);
                durable.push(captured);
                dmu.set_durable(generation);
                check(&durable);
            }
        })
    };
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (dmu, tree) = (dmu.clone(), Arc::clone(&tree));
            thread::spawn(move || {
                for _ in 0..3 {
                    let value = Arc::clone(&tree.lock().value);
                    value.check(&dmu);
                    thread::yield_now();
                    value.check(&dmu);
                }
            })
        })
        .collect();
    for thread in readers.into_iter().chain([writer, checkpointer]) {
        thread.join().unwrap();
    }
    // With nobody left, three checkpoints free all but the value itself.
    let mut generation = tree.lock().open;
    for _ in 0..3 {
        dmu.write_bitmaps(generation).unwrap();
        dmu.set_durable(generation);
        generation = generation.next();
    }
    assert_eq!(dmu.deferred_blocks(), 0);
    let mut allocated = 0;
    dmu.for_each_allocated(VdevId(1), |extent| allocated += extent.blocks).unwrap();
    assert_eq!(allocated, 1, "blocks were lost or freed twice");
    tree.lock().value.check(&dmu);
}

#[test]
fn shuttle_nothing_is_used_again_while_it_can_be_seen() {
    explore(4000, pins);
}

/// The same test must fail when freed blocks are used again at once.
#[cfg(feature = "planted-bugs")]
#[test]
fn shuttle_planted_reuse_at_once_is_caught() {
    use crate::base::planted::{Bug, plant};
    plant(Bug::ReuseFreedAtOnce, true);
    let caught = std::panic::catch_unwind(|| explore(4000, pins));
    plant(Bug::ReuseFreedAtOnce, false);
    assert!(caught.is_err());
}

/// What was taken before a finish is on the device after it, whoever writes it; and readers find it at every moment.
#[test]
fn shuttle_what_is_written_behind_is_found_and_finished() {
    explore(4000, || {
        let device = Arc::new(ScheduledDevice(Arc::new(MemoryDevice::new(1 << 20))));
        let vdev = TopLevelVdev::leaf(VdevId(1), 0, 256, device);
        let dmu = Dmu::over_with_threads(Arc::new(Pool::from_vdevs(vec![vdev])), 0, 1);
        let threads: Vec<_> = (1..3_u8)
            .map(|thread| {
                let dmu = dmu.clone();
                thread::spawn(move || {
                    let mut taken = Vec::new();
                    for number in 0..3_u8 {
                        // Half of a room: every second one makes it full.
                        let bytes = vec![thread * 16 + number; 16 * BLOCK_BYTES];
                        let extent = dmu.write_behind(&bytes, StoragePreference::NONE);
                        taken.push((extent.unwrap().unwrap(), bytes));
                        let check = |raw: bool| {
                            for (extent, bytes) in &taken {
                                let mut found = vec![0; bytes.len()];
                                if raw {
                                    dmu.pool().read(extent, 0, &mut found).unwrap();
                                } else {
                                    found.copy_from_slice(&dmu.read(&[*extent], 0, bytes.len()).unwrap());
                                }
                                assert!(found == *bytes, "{extent}, on the device: {raw}");
                            }
                        };
                        check(false);
                        if thread == 1 {
                            dmu.finish_behind().unwrap();
                            check(true);
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        dmu.settle_behind().unwrap();
    });
}
