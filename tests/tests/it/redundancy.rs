//! Databases on mirrors and parity: crashes, devices that fail, devices that lie. See [`betree_tests::rig::Ill`].
//!
//! `BETREE_CRASH_STATES`, `BETREE_MISFORTUNES` and `BETREE_SEED` as for the other layouts; `BETREE_LAYOUT=Mirror2` has crashes on
//! that layout alone.

use betree_tests::rig::{Campaign, Endurance, Ill, Layout, Misfortune, Misfortunes};

/// States of each layout.
const STATES: u64 = 1500;
/// Workloads of each layout and ill.
const ROUNDS: u64 = 12;

/// Those of `layouts` that are asked for.
fn wanted(layouts: &[Layout]) -> impl Iterator<Item = &Layout> {
    let only = std::env::var("BETREE_LAYOUT").ok();
    layouts.iter().filter(move |layout| only.as_ref().is_none_or(|only| *only == format!("{layout:?}")))
}

#[expect(clippy::panic, reason = "a campaign that finds something fails its test")]
fn crashes(layouts: &[Layout]) {
    for layout in wanted(layouts) {
        match Campaign::new(*layout, STATES).run() {
            Ok(tally) => println!("{layout:?}: {tally}"),
            Err(failure) => panic!("{failure}"),
        }
    }
}

#[test]
fn crashes_on_mirrors() {
    crashes(&[Layout::Mirror2, Layout::Mirror3]);
}

#[test]
fn crashes_on_parity() {
    crashes(&[Layout::Parity1Of3, Layout::Parity1Of5]);
}

#[test]
fn crashes_on_two_parities() {
    crashes(&[Layout::Parity2Of4, Layout::Parity2Of6]);
}

#[test]
fn crashes_on_a_mirror_over_parity() {
    crashes(&[Layout::MirrorOverParity]);
}

#[expect(clippy::panic, reason = "a campaign that finds something fails its test")]
fn deaths(layouts: &[Layout]) {
    for layout in wanted(layouts) {
        match Campaign::new(*layout, STATES).with_deaths().run() {
            Ok(tally) => println!("{layout:?}: {tally}"),
            Err(failure) => panic!("{failure}"),
        }
    }
}

#[test]
fn crashes_after_which_a_dead_leg_is_back() {
    deaths(&[Layout::Mirror2, Layout::Mirror3, Layout::MirrorOverParity]);
}

#[test]
fn crashes_after_which_a_dead_column_is_back() {
    deaths(&[Layout::Parity1Of3, Layout::Parity1Of5, Layout::Parity2Of4, Layout::Parity2Of6]);
}

#[expect(clippy::panic, reason = "a campaign that finds something fails its test")]
fn endures(ill: Ill) {
    for layout in Layout::REDUNDANT {
        match Endurance::new(ill, layout, ROUNDS).run() {
            Ok(fired) => println!("{ill:?} on {layout:?}: {fired} devices"),
            Err(failure) => panic!("{failure}"),
        }
    }
}

#[test]
fn devices_that_die_are_done_without() {
    endures(Ill::Death);
}

#[test]
fn devices_that_read_nothing_are_done_without() {
    endures(Ill::Blindness);
}

#[test]
fn writes_that_one_device_lost_are_found_on_the_others() {
    endures(Ill::Forgetting);
}

#[test]
fn writes_that_went_astray_on_one_device_are_found_on_the_others() {
    endures(Ill::Straying);
}

#[test]
fn a_device_that_rots_from_end_to_end_is_read_from_the_others() {
    endures(Ill::Rot);
}

#[test]
fn a_full_redundant_pool_has_all_its_space_again() {
    for layout in Layout::REDUNDANT {
        match Misfortunes::new(Misfortune::FullPool, layout, ROUNDS).run() {
            Ok(counts) => println!("{layout:?}: {counts}"),
            Err(failure) => panic!("{failure}"),
        }
    }
}
