//! Databases out of which a vdev goes, and crashes while it does.
//!
//! `BETREE_CRASH_STATES` and `BETREE_SEED` as for the other layouts.

use betree_tests::rig::{Campaign, Layout};

/// States of each layout.
const STATES: u64 = 1200;

#[expect(clippy::panic, reason = "a campaign that finds something fails its test")]
fn crashes(layout: Layout) {
    match Campaign::new(layout, STATES).with_departures().run() {
        Ok(tally) => {
            println!("{layout:?}: {tally}");
            assert!(tally.departures > tally.workloads / 2, "{layout:?}: hardly a vdev left");
        }
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn crashes_while_a_vdev_leaves_its_tier() {
    crashes(Layout::TwoInTier);
}

#[test]
fn crashes_while_the_vdev_of_the_log_leaves() {
    crashes(Layout::LogAndLarge);
}

#[test]
fn crashes_while_a_mirror_leaves_for_parity() {
    crashes(Layout::MirrorOverParity);
}
