//! Power loss at any moment, on simulated disks; see [`betree_tests::rig`] for what is demanded.
//!
//! `BETREE_CRASH_STATES` sets the number of states of each layout, `BETREE_SEED` the first workload,
//! `BETREE_EXHAUSTIVE_STATES` the number of states of short sequences, `BETREE_EXHAUSTIVE_SECTORS` up to how many pending
//! sectors all cases of a moment are tried, `BETREE_MISFORTUNES` the workloads on devices that fail or are damaged.

use betree_tests::rig::{Campaign, Exhaustive, Layout, Misfortune, Misfortunes};

/// States of each layout.
const STATES: u64 = 25_000;
/// States of short sequences of each layout.
const EXHAUSTIVE_STATES: u64 = 10_000;
/// Workloads of each layout that something befalls.
const ROUNDS: u64 = 150;

fn campaign(layout: Layout) {
    run(layout, &Campaign::new(layout, STATES));
}

#[expect(clippy::panic, reason = "a campaign that finds something fails its test")]
fn run(layout: Layout, campaign: &Campaign) {
    match campaign.run() {
        Ok(tally) => println!("{layout:?} from seed {}: {tally}", campaign.seed),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn crashes_on_one_device() {
    campaign(Layout::One);
}

#[test]
fn crashes_on_two_devices_in_one_tier() {
    campaign(Layout::TwoInTier);
}

#[test]
fn crashes_with_log_and_large_values_on_different_tiers() {
    campaign(Layout::LogAndLarge);
}

#[test]
fn crashes_with_memory_over_a_durable_tier() {
    campaign(Layout::MemoryOverDurable);
}

/// Workloads that found a bug which others did not.
#[test]
fn crashes_that_found_something_once() {
    for (layout, seed) in [
        (Layout::One, 19),
        (Layout::One, 1140),
        (Layout::One, 1148),
        (Layout::TwoInTier, 25),
        (Layout::TwoInTier, 2_000_004),
    ] {
        run(layout, &Campaign { seed, states: 1, ..Campaign::new(layout, 1) });
    }
}

#[expect(clippy::panic, reason = "a campaign that finds something fails its test")]
fn exhaustive(layout: Layout) {
    match Exhaustive::new(layout, EXHAUSTIVE_STATES).run() {
        Ok(tried) => println!("{layout:?}: {tried}"),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn every_crash_of_short_sequences_on_one_device() {
    exhaustive(Layout::One);
}

#[test]
fn every_crash_of_short_sequences_on_two_devices_in_one_tier() {
    exhaustive(Layout::TwoInTier);
}

#[test]
fn every_crash_of_short_sequences_with_large_values_on_another_tier() {
    exhaustive(Layout::LogAndLarge);
}

#[test]
fn every_crash_of_short_sequences_with_memory_over_a_durable_tier() {
    exhaustive(Layout::MemoryOverDurable);
}

#[expect(clippy::panic, reason = "a campaign that finds something fails its test")]
fn misfortunes(kind: Misfortune) {
    for layout in Layout::ALL {
        match Misfortunes::new(kind, layout, ROUNDS).run() {
            Ok(counts) => println!("{kind:?} on {layout:?}: {counts}"),
            Err(failure) => panic!("{failure}"),
        }
    }
}

#[test]
fn devices_that_fail_lose_nothing_acknowledged() {
    misfortunes(Misfortune::Failure);
}

#[test]
fn damaged_bytes_are_errors_and_never_other_data() {
    misfortunes(Misfortune::Damage);
}

#[test]
fn a_pool_that_was_full_has_all_its_space_again() {
    misfortunes(Misfortune::FullPool);
}

/// Each bug is switched on for the whole process, so these run one at a time and apart from the others.
#[cfg(feature = "planted-bugs")]
mod planted {
    use super::{Campaign, EXHAUSTIVE_STATES, Exhaustive, Layout, Misfortune, Misfortunes, ROUNDS, STATES};
    use betree::base::planted::{Bug, plant};
    use betree_tests::rig::Failure;

    /// What catches a bug.
    #[derive(Debug, Clone, Copy)]
    enum Hunt {
        Crashes,
        ShortSequences,
        Misfortune(Misfortune),
    }

    impl Hunt {
        fn run(self, layout: Layout) -> Result<(), Failure> {
            match self {
                Self::Crashes => Campaign::new(layout, STATES).run().map(|_| ()),
                Self::ShortSequences => Exhaustive::new(layout, EXHAUSTIVE_STATES).run().map(|_| ()),
                Self::Misfortune(kind) => Misfortunes::new(kind, layout, ROUNDS).run().map(|_| ()),
            }
        }
    }

    /// Every bug with the campaign that must catch it.
    const CAUGHT_BY: [(Bug, Hunt); Bug::ALL.len()] = [
        (Bug::SuperblockBeforeFlush, Hunt::ShortSequences),
        (Bug::SkipSuperblockFlush, Hunt::ShortSequences),
        (Bug::SuperblockSlotZero, Hunt::ShortSequences),
        (Bug::ReuseFreedAtOnce, Hunt::Crashes),
        (Bug::DropLogRecord, Hunt::ShortSequences),
        (Bug::SkipDeadMessage, Hunt::Crashes),
        (Bug::DropFlushedMessage, Hunt::Crashes),
        (Bug::DropRangeDelete, Hunt::Crashes),
        (Bug::SkipValueFlush, Hunt::ShortSequences),
        (Bug::SkipWriteBehind, Hunt::ShortSequences),
        (Bug::CheckpointBeforeWriteBehind, Hunt::ShortSequences),
        (Bug::ReuseEpoch, Hunt::Crashes),
        (Bug::ReuseGeneration, Hunt::Crashes),
        (Bug::ReplayTwice, Hunt::ShortSequences),
        (Bug::DriftByOne, Hunt::Crashes),
        (Bug::IgnoreFlushError, Hunt::Misfortune(Misfortune::Failure)),
        (Bug::SwallowWriteError, Hunt::Misfortune(Misfortune::Failure)),
        (Bug::SkipChecksum, Hunt::Misfortune(Misfortune::Damage)),
        (Bug::FormatOnDecodeError, Hunt::Misfortune(Misfortune::Damage)),
        (Bug::LeakAborted, Hunt::Misfortune(Misfortune::FullPool)),
        (Bug::FreeBornAtSnapshot, Hunt::Crashes),
        (Bug::SkipDeadList, Hunt::Crashes),
        (Bug::DeleteFreesAll, Hunt::Crashes),
        (Bug::CombineOutOfOrder, Hunt::Crashes),
        (Bug::DropKeptPatch, Hunt::Crashes),
        (Bug::DeleteForgetsChunks, Hunt::Crashes),
        (Bug::RenameInTwoBatches, Hunt::Crashes),
        (Bug::TruncateKeepsTail, Hunt::Crashes),
        (Bug::TakeUnfinished, Hunt::Crashes),
        (Bug::ForgetDeletes, Hunt::Crashes),
        (Bug::KeepOldDeadList, Hunt::Crashes),
    ];

    /// How the campaign finds `bug` on one of the layouts, within the states of an ordinary run.
    fn hunt(bug: Bug, hunt: Hunt) -> Option<String> {
        plant(bug, true);
        let caught = Layout::ALL.into_iter().find_map(|layout| {
            // An assertion that fails is a way of catching it, too.
            match std::panic::catch_unwind(|| hunt.run(layout)) {
                Ok(Ok(())) => None,
                Ok(Err(failure)) => Some(failure.to_string()),
                Err(_) => Some(String::from("a panic")),
            }
        });
        plant(bug, false);
        caught
    }

    #[test]
    fn planted_bugs_are_all_caught_by_their_campaigns() {
        let mut missed = Vec::new();
        for bug in Bug::ALL {
            let Some((_, campaign)) = CAUGHT_BY.iter().find(|(listed, _)| *listed == bug) else {
                missed.push(format!("{bug:?}, which no campaign hunts"));
                continue;
            };
            let started = std::time::Instant::now();
            match hunt(bug, *campaign) {
                Some(how) => {
                    println!(
                        "{bug:?} by {campaign:?} in {:.1} s: {how:.300}",
                        started.elapsed().as_secs_f64()
                    );
                }
                None => missed.push(format!("{bug:?} by {campaign:?}")),
            }
        }
        assert_eq!((missed, Bug::ALL.len()), (Vec::<String>::new(), 31), "not caught, of all");
    }
}
