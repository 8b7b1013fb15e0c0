//! Power loss at any moment, on simulated disks; see [`betree_tests::rig`] for what is demanded.
//!
//! `BETREE_CRASH_STATES` sets the number of states of each layout, `BETREE_SEED` the first workload.

use betree_tests::rig::{Campaign, Layout};

/// States of each layout.
const STATES: u64 = 25_000;

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
