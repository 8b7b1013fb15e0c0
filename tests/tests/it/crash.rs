//! Power loss at any moment, on simulated disks; see [`betree_tests::rig`] for what is demanded.
//!
//! `BETREE_CRASH_STATES` sets the number of states of each layout, `BETREE_SEED` the first workload.

use betree_tests::rig::{Campaign, Layout};

/// States of each layout.
const STATES: u64 = 25_000;

#[expect(clippy::panic, reason = "a campaign that finds something fails its test")]
fn campaign(layout: Layout) {
    let campaign = Campaign::new(layout, STATES);
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

/// Each bug is switched on for the whole process, so these run one at a time and apart from the others.
#[cfg(feature = "planted-bugs")]
mod planted {
    use super::{Campaign, Layout, STATES};
    use betree::base::planted::{Bug, plant};

    /// Demands that the rig finds `bug` on one of the layouts within the states of an ordinary run.
    #[expect(clippy::panic, reason = "a bug that is not caught fails its test")]
    fn is_caught(bug: Bug) {
        plant(bug, true);
        let caught = Layout::ALL.into_iter().find_map(|layout| {
            // An assertion that fails is a way of catching it, too.
            match std::panic::catch_unwind(|| Campaign::new(layout, STATES).run()) {
                Ok(Ok(_)) => None,
                Ok(Err(failure)) => Some(failure.to_string()),
                Err(_) => Some(String::from("a panic")),
            }
        });
        plant(bug, false);
        match caught {
            Some(how) => println!("{bug:?}: {how:.300}"),
            None => panic!("{bug:?} was not caught"),
        }
    }

    #[test]
    fn planted_superblock_before_flush_is_caught() {
        is_caught(Bug::SuperblockBeforeFlush);
    }

    #[test]
    fn planted_superblock_without_flush_is_caught() {
        is_caught(Bug::SkipSuperblockFlush);
    }

    #[test]
    fn planted_reuse_of_freed_blocks_is_caught() {
        is_caught(Bug::ReuseFreedAtOnce);
    }

    #[test]
    fn planted_loss_of_log_records_is_caught() {
        is_caught(Bug::DropLogRecord);
    }

    #[test]
    fn planted_loss_of_tombstones_is_caught() {
        is_caught(Bug::SkipDeadMessage);
    }

    #[test]
    fn planted_loss_of_range_deletes_is_caught() {
        is_caught(Bug::DropRangeDelete);
    }

    #[test]
    fn planted_large_values_without_flush_are_caught() {
        is_caught(Bug::SkipValueFlush);
    }

    #[test]
    fn planted_reuse_of_a_log_epoch_is_caught() {
        is_caught(Bug::ReuseEpoch);
    }
}
