//! Older checkpoints, salvage and repair.

use super::parts::{Part, What};
use super::pool::{Bench, Model};
use crate::base::ids::DatasetId;
use crate::database::Database;
use crate::inspect::check::check_members;
use crate::inspect::repair::repair_members;
use crate::inspect::{
    CheckOptions, Code, Outcome, Progress, RepairReport, RepairStep, SalvageReport, Salvaged,
    list_generations, open_generation, repair, salvage,
};
use crate::pool::format::End;
use crate::pool::{Access, Members};
use std::ops::ControlFlow;

fn go_on(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn contents(database: &Database) -> Model {
    let mut model = Model::new();
    for name in database.datasets().unwrap() {
        let dataset = database.open_dataset(&name).unwrap();
        let entries = dataset.range::<&[u8]>(..).map(|entry| {
            let (key, value) = entry.unwrap();
            (key.to_vec(), value.to_vec())
        });
        model.insert(String::from_utf8(name).unwrap(), entries.collect());
    }
    model
}

#[test]
fn generations_are_listed_and_opened_as_they_stand() {
    let bench = Bench::new();
    let before = bench.disks[0].bytes();
    let all = list_generations(&bench.configuration).unwrap();
    assert_eq!(all.len(), 8, "the ring is full");
    assert!(all.is_sorted_by(|a, b| a.generation > b.generation && a.previous == b.generation));
    assert!(all[0].newest && all[0].kept && all[1].kept && !all[2].kept);
    assert!(all[..2].iter().all(|info| info.datasets == Some(2) && info.copies == 2), "{all:?}");
    let value = |generation: u64| {
        let database = open_generation(bench.configuration.clone(), generation).unwrap();
        let value = database.open_dataset("aa").unwrap().get(b"key00001").unwrap().unwrap();
        assert!(database.open_dataset("aa").unwrap().insert(b"x", b"y").is_err(), "for reading only");
        value.to_vec()
    };
    assert_eq!(value(all[0].generation), b"last", "the log is not replayed");
    assert_ne!(value(all[1].generation), b"last");
    assert!(open_generation(bench.configuration.clone(), 1_000_000).is_err());
    assert!(bench.disks[0].bytes() == before, "nothing is written");
}

/// What a salvage gave: entries, and the ranges that it left out.
type Saved = (SalvageReport, Model, Vec<(String, Vec<u8>, Option<Vec<u8>>)>);

fn save(bench: &Bench) -> Saved {
    let before = bench.disks[0].bytes();
    let (mut model, mut skipped, mut current) = (Model::new(), Vec::new(), String::new());
    let report = salvage(
        &bench.configuration,
        None,
        &mut |salvaged| {
            match salvaged {
                Salvaged::Dataset { name, .. } => {
                    current = String::from_utf8(name.to_vec()).unwrap();
                    model.insert(current.clone(), Default::default());
                }
                Salvaged::Entry { key, value } => {
                    let entries = model.get_mut(&current).unwrap();
                    assert!(entries.last_key_value().is_none_or(|(last, _)| last.as_slice() < key));
                    entries.insert(key.to_vec(), value.to_vec());
                }
                Salvaged::Skipped { low, high, .. } => {
                    skipped.push((current.clone(), low.to_vec(), high.map(<[u8]>::to_vec)));
                }
            }
            ControlFlow::Continue(())
        },
        &mut go_on,
    )
    .unwrap();
    assert!(bench.disks[0].bytes() == before, "nothing is written");
    assert_eq!(report.skipped, skipped.len() as u64);
    (report, model, skipped)
}

/// Whatever is not in a range that was left out is there, and as it was.
fn compare(bench: &Bench, (report, model, skipped): &Saved) -> usize {
    let mut lost = 0;
    for (name, entries) in &bench.model {
        for (key, value) in entries {
            let left_out = skipped.iter().any(|(of, low, high)| {
                of == name && low <= key && high.as_ref().is_none_or(|high| key < high)
            });
            let found = model.get(name).and_then(|entries| entries.get(key));
            if left_out {
                lost += usize::from(found != Some(value));
            } else {
                assert_eq!(found, Some(value), "{name} {}", key.escape_ascii());
            }
        }
    }
    assert!(!report.interrupted);
    lost
}

#[test]
fn everything_is_saved_of_a_sound_pool() {
    let bench = Bench::new();
    let saved = save(&bench);
    assert_eq!(saved.1, bench.model);
    assert_eq!((saved.0.skipped, saved.0.lost.len()), (0, 0));
}

#[test]
fn damage_costs_what_it_covers_and_nothing_else() {
    let bench = Bench::new();
    let parts = bench.parts();
    let snapshot = bench.disks[0].snapshot();
    let kinds = [What::Node { level: 2 }, What::Node { level: 1 }, What::Meta, What::Block, What::Value];
    for what in kinds {
        let of_data = |part: &&Part| part.what == what && part.dataset != DatasetId(0);
        let mut lost = 0;
        for part in parts.iter().filter(of_data).take(12) {
            bench.disks[0].restore(&snapshot);
            let mut bytes = bench.read(part);
            bytes[20] ^= 8;
            bench.write(part, &bytes);
            let saved = save(&bench);
            assert!(saved.0.skipped > 0, "{what:?}");
            lost += compare(&bench, &saved);
        }
        assert!(lost > 0, "{what:?}");
    }
}

#[test]
fn an_older_checkpoint_is_saved_when_the_newest_has_no_root() {
    let bench = Bench::new();
    let parts = bench.parts();
    let root =
        parts.iter().find(|part| matches!(part.what, What::Node { .. }) && part.parent.is_none()).unwrap();
    let newest = bench.superblock(None);
    let mut bytes = bench.read(root);
    bytes[20] ^= 8;
    bench.write(root, &bytes);
    let (report, model, _) = save(&bench);
    assert_eq!(report.generation, newest.previous.0);
    assert!(!report.lost.is_empty());
    assert_eq!(model.len(), 2);
}

#[test]
fn a_log_that_is_damaged_is_saved_up_to_there() {
    let bench = Bench::new();
    let head = bench.record(&bench.ground()).log_head;
    let block = head.extent.block + u64::from(head.offset) + 3;
    bench.disks[0].flip_bit(block * 4096 + 110, 0);
    let (report, model, _) = save(&bench);
    assert!(report.lost.iter().any(|lost| lost.contains("log")), "{:?}", report.lost);
    assert_eq!(model["aa"][&b"key00002"[..]], b"in the log 2");
    assert_ne!(model["aa"][&b"key00003"[..]], b"in the log 3");
}

fn repaired(bench: &Bench, dry_run: bool) -> RepairReport {
    repair(&bench.configuration, &CheckOptions::default(), dry_run, &mut go_on).unwrap()
}

/// Repairs after `break_it`, which gives `codes`: a dry run writes nothing, and afterwards all is well.
fn is_repaired(break_it: impl FnOnce(&Bench), codes: &[Code], step: impl Fn(&RepairStep) -> bool) {
    let bench = Bench::new();
    break_it(&bench);
    assert_eq!(bench.codes(false), codes);
    let before = bench.disks[0].bytes();
    let planned = repaired(&bench, true);
    assert!(planned.plan.iter().any(&step) && planned.after.is_none(), "{planned:?}");
    assert!(planned.tried.is_some_and(|tried| tried.outcome() == Outcome::Clean));
    assert!(bench.disks[0].bytes() == before, "a dry run writes nothing");
    let done = repaired(&bench, false);
    assert_eq!(done.plan, planned.plan);
    let after = done.after.unwrap();
    after.findings.iter().for_each(|finding| println!("after: {finding}"));
    assert_eq!(after.outcome(), Outcome::Clean);
    assert_eq!(bench.codes(true), []);
    let database = Database::open_read_only(bench.configuration.clone()).unwrap();
    assert!(contents(&database) == bench.model, "nothing was lost");
    drop(database);
    // And it goes on working.
    let database = Database::open_with(bench.configuration.clone()).unwrap();
    database.open_dataset("aa").unwrap().insert(b"new", vec![1; 30_000]).unwrap();
    database.verify().unwrap();
    database.close().unwrap();
    assert_eq!(bench.codes(true), []);
}

#[test]
fn leaks_are_cleared() {
    let leak = |bench: &Bench| {
        bench.forge(|forge| forge.leak(3));
    };
    is_repaired(leak, &[Code::Leak], |step| *step == RepairStep::ClearLeaks { blocks: 3 });
}

#[test]
fn counts_are_corrected() {
    let miscount = |bench: &Bench| {
        let parts = bench.parts();
        let page = parts.iter().position(|part| part.what == What::Page).unwrap();
        bench.edit(&parts, page, |bytes| *super::invariants::longest(bytes) -= 1);
    };
    is_repaired(miscount, &[Code::Free], |step| *step == RepairStep::CorrectCounts { segments: 1 });
    let total = |bench: &Bench| {
        let parts = bench.parts();
        let table = parts.iter().position(|part| part.what == What::Table).unwrap();
        bench.edit(&parts, table, |bytes| bytes[64 + 16] ^= 1);
    };
    is_repaired(total, &[Code::Free], |step| *step == RepairStep::CorrectCounts { segments: 0 });
}

#[test]
fn slots_are_written_anew_from_their_copies() {
    let damage = |bench: &Bench| {
        let slot = (bench.superblock(None).slot + 4) % 8;
        bench.disks[0].flip_bit(bench.slot_offset(End::Back, slot) + 700, 3);
    };
    is_repaired(damage, &[Code::Slot], |step| *step == RepairStep::RestoreSlots { slots: 1 });
}

#[test]
fn what_would_have_to_be_guessed_is_refused() {
    let bench = Bench::new();
    let parts = bench.parts();
    let value = parts.iter().find(|part| part.what == What::Value).unwrap().extents[0];
    let breaks: [&dyn Fn(); 3] = [
        &|| {
            bench.forge(|forge| forge.free(value));
        },
        &|| {
            let block =
                parts.iter().find(|part| part.what == What::Block && part.dataset == DatasetId(1)).unwrap();
            let mut bytes = bench.read(block);
            bytes[20] ^= 1;
            bench.write(block, &bytes);
        },
        &|| {
            let slot = (bench.superblock(None).slot + 4) % 8;
            for end in End::BOTH {
                bench.disks[0].flip_bit(bench.slot_offset(end, slot) + 700, 3);
            }
        },
    ];
    let snapshot = bench.disks[0].snapshot();
    for break_it in breaks {
        bench.disks[0].restore(&snapshot);
        break_it();
        // A leak beside it makes no difference.
        let before = bench.disks[0].bytes();
        let report = repaired(&bench, false);
        assert!(!report.refused.is_empty() && report.plan.is_empty() && report.after.is_none(), "{report:?}");
        assert!(bench.disks[0].bytes() == before, "nothing is written");
    }
}

/// A plan that would free what is reached is found out before anything is written.
#[test]
fn a_plan_that_does_harm_is_refused_by_its_trial() {
    let bench = Bench::new();
    bench.forge(|forge| forge.leak(3));
    let value = bench.parts().into_iter().find(|part| part.what == What::Value).unwrap().extents[0];
    let options = CheckOptions::default();
    let members = Members::open(&bench.configuration.storage, Access::ReadWrite).unwrap();
    let mut checked = check_members(&members, &bench.configuration, &options, &mut go_on).unwrap();
    assert_eq!(checked.report.outcome(), Outcome::Leaks);
    checked.repairable.leaks.push(value);
    let before = bench.disks[0].bytes();
    let report =
        repair_members(&members, &bench.configuration, &options, false, &checked, &mut go_on).unwrap();
    assert_eq!(report.refused, [Code::Unallocated], "{report:?}");
    assert!(report.plan.is_empty() && report.after.is_none());
    assert!(report.tried.is_some_and(|tried| tried.outcome() == Outcome::Damaged));
    assert!(bench.disks[0].bytes() == before, "nothing is written");
}
