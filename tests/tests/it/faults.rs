//! Faults of disks below a whole database: each request of a run fails, is dropped or goes astray in turn; see
//! [`betree_tests::rig::Trial`] for what is demanded.
//!
//! `BETREE_FAULT_WORKLOADS` sets the number of workloads of each test, `BETREE_SEED` the first one.

use betree::vdev::{Fault, FaultKind, FlushFailure, SimDisk, SimRng};
use betree_tests::rig::faults::{self, Access, Specimen};
use betree_tests::rig::{Class, Counts, Ending, Failure, Layout, Recipe, number_from_environment, panics};

/// Runs `body` with the workloads of a test and demands that each of `kinds` happened.
#[expect(clippy::panic, reason = "a loop that finds something fails its test")]
fn with(
    count: u64,
    kinds: &[FaultKind],
    body: impl Fn(&Recipe, &mut Counts) -> Result<(), Failure>,
) -> Counts {
    let mut counts = Counts::default();
    let started = std::time::Instant::now();
    let result = Recipe::several(count)
        .and_then(|recipes| recipes.iter().try_for_each(|recipe| body(recipe, &mut counts)))
        .and_then(|()| counts.demand(kinds));
    println!("{counts}; {:.1} s", started.elapsed().as_secs_f64());
    match result {
        Ok(()) => counts,
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn each_read_fails_once() {
    let counts = with(10, &[FaultKind::ReadError], |recipe, counts| {
        faults::each_request(recipe, Class::Failing, &[Ending::Crash], counts, |nth| Fault::ReadError {
            nth,
            sticky: false,
        })
    });
    assert!(counts.errors > 0 && counts.read_errors > 0);
}

#[test]
fn each_read_fails_for_good() {
    with(10, &[FaultKind::ReadError], |recipe, counts| {
        faults::each_request(recipe, Class::Failing, &[Ending::Close], counts, |nth| Fault::ReadError {
            nth,
            sticky: true,
        })
    });
}

#[test]
fn each_write_fails_once_or_for_good() {
    let counts = with(10, &[FaultKind::WriteError], |recipe, counts| {
        [false, true].into_iter().try_for_each(|sticky| {
            faults::each_request(recipe, Class::Failing, &Ending::ALL, counts, |nth| Fault::WriteError {
                nth,
                sticky,
            })
        })
    });
    assert!(counts.latched > 0);
}

#[test]
fn each_flush_fails_once_or_for_good() {
    let counts = with(10, &[FaultKind::FlushError], |recipe, counts| {
        for after in [FlushFailure::DropDirty, FlushFailure::KeepVisible, FlushFailure::Revert] {
            for sticky in [false, true] {
                faults::each_request(recipe, Class::Failing, &Ending::ALL, counts, |nth| {
                    Fault::FlushError { nth, sticky, after }
                })?;
            }
        }
        Ok(())
    });
    assert!(counts.latched > 0);
}

/// Once and for good.
const BOTH: [bool; 2] = [false, true];

#[test]
fn each_read_of_a_recovery_fails() {
    with(10, &[FaultKind::ReadError], |recipe, counts| {
        BOTH.into_iter().try_for_each(|sticky| {
            faults::each_request_of_recovery(recipe, 3, Class::Failing, counts, |nth| Fault::ReadError {
                nth,
                sticky,
            })
        })
    });
}

#[test]
fn each_write_of_a_recovery_fails() {
    with(10, &[FaultKind::WriteError, FaultKind::OutOfSpace], |recipe, counts| {
        BOTH.into_iter().try_for_each(|sticky| {
            faults::each_request_of_recovery(recipe, 3, Class::Failing, counts, |nth| Fault::WriteError {
                nth,
                sticky,
            })
        })?;
        let full = |nth| Fault::OutOfSpace { nth };
        faults::each_request_of_recovery(recipe, 3, Class::HostFull, counts, full)
    });
}

#[test]
fn each_flush_of_a_recovery_fails() {
    with(10, &[FaultKind::FlushError], |recipe, counts| {
        for after in [FlushFailure::DropDirty, FlushFailure::KeepVisible, FlushFailure::Revert] {
            for sticky in BOTH {
                faults::each_request_of_recovery(recipe, 3, Class::Failing, counts, |nth| {
                    Fault::FlushError { nth, sticky, after }
                })?;
            }
        }
        Ok(())
    });
}

#[test]
fn the_host_is_full_at_each_write() {
    let counts = with(10, &[FaultKind::OutOfSpace], |recipe, counts| {
        faults::each_request(recipe, Class::HostFull, &Ending::ALL, counts, |nth| Fault::OutOfSpace { nth })
    });
    assert!(counts.errors > counts.latched, "some of them change nothing and pass");
}

#[test]
fn each_allocation_meets_a_full_pool() {
    let counts = with(4, &[], |recipe, counts| {
        let capacity: usize = if recipe.layout == Layout::One { 3 << 20 } else { 2 << 20 };
        let sizes = (capacity / 4..capacity).step_by(16 << 10);
        sizes.into_iter().try_for_each(|bytes| faults::with_ballast(recipe, bytes, counts))
    });
    assert!(counts.errors > 100, "{} operations were refused", counts.errors);
}

#[test]
fn each_write_is_dropped() {
    let counts = with(10, &[FaultKind::DroppedWrite], |recipe, counts| {
        let dropped = |nth| Fault::DroppedWrite { nth };
        faults::each_request(recipe, Class::Lying, &Ending::ALL, counts, dropped)?;
        faults::each_request_of_recovery(recipe, 2, Class::Lying, counts, dropped)
    });
    assert!(counts.refused + counts.reported + counts.read_errors > 0, "nothing was noticed");
}

#[test]
fn each_superblock_is_lost() {
    let counts = with(16, &[FaultKind::DroppedWrite], faults::each_lost_superblock);
    assert!(counts.opened > 0);
}

#[test]
fn each_write_goes_astray() {
    let counts = with(10, &[FaultKind::MisdirectedWrite], |recipe, counts| {
        for round in 0..3_u64 {
            let astray = |nth: u64| {
                let somewhere = (nth * 0x9E37_79B9 + recipe.seed * 0x85EB_CA6B + round * 0xC2B2_AE35) >> 7;
                // Now and then another superblock, else where the data are.
                let block = if nth % 7 == round { somewhere % 16 } else { somewhere % 700 };
                Fault::MisdirectedWrite { nth, block }
            };
            faults::each_request(recipe, Class::Lying, &Ending::ALL, counts, astray)?;
        }
        Ok(())
    });
    assert!(counts.refused + counts.reported + counts.read_errors > 0, "nothing was noticed");
}

/// Looks at pools with `fault(disk, number)` for `numbers` on each of their disks.
fn specimens(
    count: u64,
    kind: FaultKind,
    each: impl Fn(&Specimen, &mut Counts) -> Result<(), Failure>,
) -> Counts {
    with(count, &[kind], |recipe, counts| {
        BOTH.into_iter().try_for_each(|with_log| each(&Specimen::new(recipe, with_log)?, counts))
    })
}

#[test]
fn each_block_is_stale() {
    specimens(8, FaultKind::StaleRead, |specimen, counts| {
        for (index, disk) in specimen.disks().iter().enumerate() {
            for block in 0..disk.len() / 4096 {
                let access = if block % 2 == 0 { Access::ReadOnly } else { Access::ReadWrite };
                specimen.look(index, Fault::StaleRead { block }, access, counts)?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_bit_of_each_sector_is_flipped() {
    let counts = specimens(4, FaultKind::BitFlip, |specimen, counts| {
        for (index, disk) in specimen.disks().iter().enumerate() {
            for (sector, bytes) in (0..).zip(disk.bytes().chunks(512)) {
                if bytes.iter().any(|byte| *byte != 0) {
                    let offset = sector * 512 + sector * 37 % 512;
                    let fault = Fault::BitFlip { offset, bit: (sector % 8) as u8 };
                    let access = if sector % 2 == 0 { Access::ReadOnly } else { Access::ReadWrite };
                    specimen.look(index, fault, access, counts)?;
                }
            }
        }
        Ok(())
    });
    assert!(counts.refused + counts.read_errors + counts.errors > 100, "few were noticed");
}

#[test]
fn random_bits_are_flipped() {
    let flips = number_from_environment("BETREE_FAULT_FLIPS").unwrap_or(20_000);
    let counts = specimens(4, FaultKind::BitFlip, |specimen, counts| {
        let mut rng = SimRng::new(number_from_environment("BETREE_SEED").unwrap_or(1));
        let used: Vec<(usize, u64)> = (0..).zip(specimen.disks()).flat_map(used_blocks).collect();
        for _ in 0..flips / 8 {
            let (disk, block) = used[rng.index(used.len())];
            let fault = Fault::BitFlip { offset: block * 4096 + rng.below(4096), bit: rng.below(8) as u8 };
            let access = if rng.chance(3, 4) { Access::ReadOnly } else { Access::ReadWrite };
            specimen.look(disk, fault, access, counts)?;
        }
        Ok(())
    });
    assert!(counts.refused + counts.read_errors + counts.errors > 0, "none was noticed");
}

/// The blocks of a disk in which there is something.
fn used_blocks((index, disk): (usize, &SimDisk)) -> Vec<(usize, u64)> {
    let bytes = disk.bytes();
    let used = (0..).zip(bytes.chunks(4096)).filter(|(_, block)| block.iter().any(|byte| *byte != 0));
    used.map(|(block, _)| (index, block)).collect()
}

#[test]
fn a_message_action_that_panics_in_the_background() {
    for threads in [0, 2] {
        panics::action_panics(threads).unwrap_or_else(|failure| panic!("{threads} threads: {failure}"));
    }
}

/// Each panic is switched on for the whole process, so these run one at a time and apart from the others.
#[cfg(feature = "planted-bugs")]
mod planted {
    use betree::base::planted::{Bug, plant};
    use betree_tests::rig::panics::Patient;

    /// Lets `bug` panic and demands that callers are told and nothing that was synced is lost.
    #[expect(clippy::panic, reason = "what is not as demanded fails its test")]
    fn survives(bug: Bug) {
        let patient = Patient::default();
        let written = patient.ail(|| plant(bug, true));
        plant(bug, false);
        let recovered = written.and_then(|written| patient.recovers(written).map(|()| written));
        match recovered {
            Ok(written) => println!("{bug:?} after {written:?}"),
            Err(failure) => panic!("{bug:?}: {failure}"),
        }
    }

    #[test]
    fn planted_panic_in_a_job_is_an_error_of_callers() {
        survives(Bug::PanicInJob);
    }

    #[test]
    fn planted_panic_in_a_checkpoint_is_an_error_of_callers() {
        survives(Bug::PanicInCheckpoint);
    }

    #[test]
    fn planted_panic_in_the_log_is_an_error_of_callers() {
        survives(Bug::PanicInLog);
    }
}
