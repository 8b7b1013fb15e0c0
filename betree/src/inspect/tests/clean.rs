//! What is sound gives no finding.

use super::pool::Bench;
use crate::inspect::{Code, Outcome};

#[test]
fn a_sound_pool_has_no_finding() {
    let bench = Bench::new();
    let before = bench.disks[0].bytes();
    for deep in [false, true] {
        let report = bench.check(deep);
        assert_eq!(report.findings, [], "deep: {deep}");
        assert_eq!(report.outcome(), Outcome::Clean);
        assert!(report.fallback.is_some(), "the fallback was looked at");
        let totals = report.totals;
        assert!(totals.nodes > 8 && totals.runs > 8 && totals.messages > 300, "{totals:?}");
        assert!(totals.large_values > 2 && totals.log_records >= 6, "{totals:?}");
        assert_eq!(totals.compared_keys > 0, deep);
        assert!(bench.disks[0].bytes() == before, "a check writes nothing");
    }
}

#[test]
fn a_forged_checkpoint_is_sound() {
    let bench = Bench::new();
    bench.forge(|_| ());
    assert_eq!(bench.codes(true), []);
}

#[test]
fn edits_that_change_nothing_leave_no_trace() {
    let bench = Bench::new();
    let before = bench.disks[0].bytes();
    let parts = bench.parts();
    for index in 0..parts.len() {
        bench.edit(&parts, index, |_| ());
    }
    assert!(bench.disks[0].bytes() == before, "the toolkit knows where every checksum is");
}

#[test]
fn codes_are_distinct_and_named_by_their_invariant() {
    let mut texts: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert!(texts.iter().all(|text| text.starts_with('K') && text.contains('-')));
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), Code::ALL.len());
}
