//! Tiers: where data goes, what happens when a tier is full, what memory is for.

use crate::pools::{Folder, contents, settle, small, tiny_dataset};
use betree::{
    Database, DatabaseConfiguration, Dataset, DatasetConfiguration, Durability, ErrorKind, LeafVdev,
    StoragePreference,
};

const MIB: u64 = 1 << 20;
const ALL: [StoragePreference; 4] = [
    StoragePreference::FASTEST,
    StoragePreference::FAST,
    StoragePreference::SLOW,
    StoragePreference::SLOWEST,
];

/// Bytes in use on each tier, by the newest checkpoint.
fn used(db: &Database) -> [u64; 4] {
    db.metrics().tiers.map(|tier| tier.used * 4096)
}

/// Bytes written to each vdev since it was opened, in the order of the configuration.
fn written(db: &Database) -> Vec<u64> {
    db.metrics().vdevs.iter().map(|vdev| vdev.writes.bytes).collect()
}

/// Four tiers of one file each.
fn four(folder: &Folder, mib: [u64; 4]) -> DatabaseConfiguration {
    small((0..4).map(|tier| vec![folder.file(&format!("tier{tier}.img"), mib[tier])]))
}

/// Nodes that are few beside their data.
fn wide(storage_preference: StoragePreference) -> DatasetConfiguration {
    let (leaf_size, buffer_size) = (128 << 10, 128 << 10);
    DatasetConfiguration { fanout: 16, leaf_size, buffer_size, storage_preference, ..tiny_dataset() }
}

fn value(number: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (number.wrapping_mul(31) + at) as u8).collect()
}

/// Writes `count` values of `length` bytes with keys of their own.
fn fill(dataset: &Dataset, name: &str, count: u64, length: usize, preference: StoragePreference) {
    for number in 0..count {
        dataset.insert_with_pref(format!("{name} {number:06}"), value(number, length), preference).unwrap();
    }
}

fn check(dataset: &Dataset, name: &str, count: u64, length: usize) {
    for number in 0..count {
        let found = dataset.get(format!("{name} {number:06}")).unwrap();
        assert!(found.unwrap() == value(number, length), "{name} {number}");
    }
}

/// Demands that `tiers` hold about `bytes` more than they did `before`, and that no other holds anything but nodes.
#[track_caller]
fn grew(db: &Database, before: [u64; 4], tier: usize, bytes: u64) {
    let after = used(db);
    for (at, (after, before)) in after.iter().zip(before).enumerate() {
        let more = after.saturating_sub(before);
        if at == tier {
            assert!(more > bytes * 9 / 10, "tier {tier} took {more} of {bytes} bytes: {before} → {after}");
        } else {
            assert!(more < bytes / 4, "tier {at} took {more} bytes of what belongs to tier {tier}");
        }
    }
}

/// Guards the preference of a write and of a dataset: small values (in runs) and large ones (in extents of their own)
/// go where they should, and merges, overwriting neighbours and reopening leave them there.
#[test]
fn writes_go_to_the_tier_they_prefer_and_stay() {
    for length in [300, 40_000] {
        let folder = Folder::new();
        let mut db = Database::build(four(&folder, [64; 4])).unwrap();
        let count = 2 * MIB / length as u64;
        for (tier, preference) in ALL.into_iter().enumerate() {
            // By the write; the dataset says otherwise.
            let shape = wide(ALL[(tier + 1) % 4]);
            let dataset = db.create_dataset_with(format!("write {tier}"), &shape).unwrap();
            let before = used(&db);
            fill(&dataset, "a", count, length, preference);
            settle(&db);
            grew(&db, before, tier, 2 * MIB);
            // By the dataset.
            let shape = wide(preference);
            let dataset = db.create_dataset_with(format!("dataset {tier}"), &shape).unwrap();
            let before = used(&db);
            fill(&dataset, "a", count, length, StoragePreference::NONE);
            settle(&db);
            grew(&db, before, tier, 2 * MIB);
        }
        let before = used(&db);
        db.close().unwrap();
        db = Database::build(four(&folder, [64; 4])).unwrap();
        for (tier, preference) in ALL.into_iter().enumerate() {
            for kind in ["write", "dataset"] {
                let dataset = db.open_dataset(format!("{kind} {tier}")).unwrap();
                check(&dataset, "a", count, length);
                // Neighbours, so that every leaf is merged.
                for round in 0..4 {
                    for number in 0..count {
                        let key = format!("a {number:06} neighbour");
                        dataset.insert_with_pref(key, value(round, 20), preference).unwrap();
                    }
                    settle(&db);
                }
            }
        }
        settle(&db);
        let after = used(&db);
        for tier in 1..4 {
            assert!(
                after[tier] > 2 * 2 * MIB * 9 / 10 && after[tier] < before[tier] + 2 * MIB,
                "values of {length} bytes moved from tier {tier}: {before:?} → {after:?}"
            );
        }
        for tier in 0..4 {
            check(&db.open_dataset(format!("write {tier}")).unwrap(), "a", count, length);
        }
    }
}

/// Guards the class of what prefers nothing.
#[test]
fn what_prefers_nothing_goes_to_the_default_class() {
    for class in 0..4u8 {
        let folder = Folder::new();
        let configuration = DatabaseConfiguration { default_storage_class: class, ..four(&folder, [64; 4]) };
        let db = Database::build(configuration).unwrap();
        let dataset = db.create_dataset_with("d", &wide(StoragePreference::NONE)).unwrap();
        let before = used(&db);
        fill(&dataset, "small", 3_000, 300, StoragePreference::NONE);
        fill(&dataset, "large", 30, 40_000, StoragePreference::NONE);
        settle(&db);
        grew(&db, before, usize::from(class), 2 * MIB);
    }
}

/// Guards the lists of tiers: a full tier is followed by the next one of the list, and only by that; when the list is
/// exhausted, the error names the tier that was asked for. Deletes make room again.
#[test]
fn a_full_tier_is_followed_by_the_next_of_its_list() {
    let fills = |list: &[u8], length: usize| {
        let folder = Folder::new();
        let mut configuration = four(&folder, [8, 8, 8, 64]);
        configuration.alloc_strategy[0] = list.to_vec();
        configuration.log_tier = Some(3);
        let db = Database::build(configuration).unwrap();
        let dataset = db.create_dataset("d").unwrap();
        let mut count = 0;
        let error = loop {
            let key = format!("a {count:06}");
            match dataset.insert_with_pref(key, value(count, length), StoragePreference::FASTEST) {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
            assert!(count < 200_000, "never full");
        };
        assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
        assert!(error.to_string().contains("FASTEST"), "{error}");
        check(&dataset, "a", count, length);
        db.checkpoint().unwrap();
        db.verify().unwrap();
        let full = used(&db);
        // Other classes still have room.
        fill(&dataset, "b", 20, length, StoragePreference::SLOWEST);
        dataset.range_delete("a".."b").unwrap();
        settle(&db);
        fill(&dataset, "c", count / 2, length, StoragePreference::FASTEST);
        check(&dataset, "c", count / 2, length);
        (count * length as u64, full)
    };
    for length in [400, 30_000] {
        let (one, used_one) = fills(&[0], length);
        let (two, used_two) = fills(&[0, 2], length);
        assert!((3 * MIB..8 * MIB).contains(&one), "{one} bytes in a tier of 8 MiB");
        assert!(used_one[2] < MIB && used_one[1] < MIB, "a tier outside of the list: {used_one:?}");
        assert!(two > one * 7 / 4, "{two} bytes in two tiers, {one} in one");
        assert!(used_two[2] > 3 * MIB && used_two[1] < MIB, "{used_two:?}");
    }
}

/// Guards batches for several tiers: each part is admitted to its own tier, or nothing is.
#[test]
fn a_batch_for_two_tiers_needs_room_in_both() {
    for large_first in [true, false] {
        for length in [1_000, 30_000] {
            let folder = Folder::new();
            let mut configuration = four(&folder, [8, 8, 8, 64]);
            configuration.default_storage_class = 3;
            configuration.log_tier = Some(3);
            let db = Database::build(configuration).unwrap();
            let dataset = db.create_dataset("d").unwrap();
            let (mut accepted, mut refused) = (0, None);
            for round in 0..40u64 {
                let mut batch = db.batch();
                if !large_first {
                    batch = batch.insert_with_pref(
                        &dataset,
                        format!("s {round}"),
                        "x",
                        StoragePreference::SLOWEST,
                    );
                }
                for number in 0..MIB / length as u64 {
                    let key = format!("f {round:03} {number:06}");
                    batch = batch.insert_with_pref(
                        &dataset,
                        key,
                        value(number, length),
                        StoragePreference::FASTEST,
                    );
                }
                if large_first {
                    batch = batch.insert_with_pref(
                        &dataset,
                        format!("s {round}"),
                        "x",
                        StoragePreference::SLOWEST,
                    );
                }
                match batch.commit(Durability::Buffered) {
                    Ok(()) => accepted += 1,
                    Err(error) => {
                        refused = Some(error);
                        break;
                    }
                }
            }
            let error = refused.expect("40 MiB went into a tier of 8 MiB");
            assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
            assert!(error.to_string().contains("FASTEST"), "{error}");
            assert!(accepted >= 2, "{accepted} batches of 1 MiB in 8 MiB");
            assert_eq!(dataset.prefix("s ").count(), accepted);
            assert_eq!(dataset.prefix("f ").count() as u64, accepted as u64 * (MIB / length as u64));
            // What was admitted finds its place, on its tier.
            settle(&db);
            assert!(used(&db)[0] > accepted as u64 * MIB * 9 / 10, "{:?}", used(&db));
        }
    }
}

/// Guards the use of all vdevs of a tier: small and large writes are spread over them, by their size.
#[test]
fn the_vdevs_of_a_tier_share_the_load() {
    for (length, total) in [(300, 12 * MIB), (40_000, 24 * MIB)] {
        let folder = Folder::new();
        let sizes = [64, 64, 128];
        let tier = (0..3).map(|number| folder.file(&format!("{number}.img"), sizes[number])).collect();
        let configuration = DatabaseConfiguration { memtable_size: 1 << 20, ..small([tier]) };
        let db = Database::build(configuration).unwrap();
        let dataset = db.create_dataset("d").unwrap();
        fill(&dataset, "a", total / length as u64, length, StoragePreference::NONE);
        settle(&db);
        let written = written(&db);
        let all: u64 = written.iter().sum();
        for (vdev, bytes) in written.iter().enumerate() {
            assert!(*bytes > all / 8, "vdev {vdev} has {bytes} of {all} bytes: {written:?}");
            assert!(*bytes < all * 2 / 3, "vdev {vdev} has {bytes} of {all} bytes: {written:?}");
        }
        assert!(written[2] * 10 > written[0] * 9, "the largest vdev has least: {written:?}");
        db.drop_cache();
        check(&dataset, "a", total / length as u64, length);
    }
}

/// Guards memory tiers: they serve reads, and nothing is lost or even noticed when they are gone.
#[test]
fn copies_in_memory_vanish_without_loss() {
    // The second is far too small for all copies.
    for memory in [64 * MIB, 2 * MIB] {
        let folder = Folder::new();
        let configuration = || {
            let tiers = [vec![LeafVdev::memory(memory).into()], vec![folder.file("durable.img", 128)]];
            DatabaseConfiguration { default_storage_class: 1, ..small(tiers) }
        };
        let db = Database::build(configuration()).unwrap();
        let dataset = db.create_dataset("d").unwrap();
        fill(&dataset, "large", 100, 40_000, StoragePreference::FASTEST);
        fill(&dataset, "small", 5_000, 300, StoragePreference::FASTEST);
        settle(&db);
        let file_reads = |db: &Database| {
            let metrics = db.metrics();
            let file = metrics.vdevs.iter().find(|vdev| vdev.tier == 1).unwrap();
            file.reads.bytes
        };
        db.drop_cache();
        // Node headers are on the durable tier alone.
        dataset.stats().unwrap();
        let before = file_reads(&db);
        check(&dataset, "large", 100, 40_000);
        if memory > 8 * MIB {
            assert_eq!(file_reads(&db), before, "values with copies in memory were read from the file");
            assert!(used(&db)[0] > 4 * MIB, "{:?}", used(&db));
        }
        check(&dataset, "small", 5_000, 300);
        let expected = contents(&dataset).unwrap();
        drop((db, dataset));
        let db = Database::build(configuration()).unwrap();
        let dataset = db.open_dataset("d").unwrap();
        assert!(contents(&dataset).unwrap() == expected);
        // New copies are made for what is written now, and old ones go with what they copy.
        for round in 0..6 {
            fill(&dataset, "large", 100, 40_000, StoragePreference::FASTEST);
            fill(&dataset, "small", 5_000, 300, StoragePreference::FASTEST);
            settle(&db);
            assert!(contents(&dataset).unwrap() == expected, "round {round}");
        }
        dataset.range_delete::<&[u8]>(..).unwrap();
        settle(&db);
        db.checkpoint().unwrap();
        assert!(used(&db)[0] < MIB, "copies of nothing: {:?}", used(&db));
    }
}

/// Guards the place of the log: on the tier that is configured, else on the fastest durable one.
#[test]
fn the_log_is_on_its_tier() {
    for (log_tier, at) in [(None, 1), (Some(1), 1), (Some(2), 2)] {
        let folder = Folder::new();
        let mut tiers = vec![vec![LeafVdev::memory(16 * MIB).into()]];
        tiers.extend((1..3).map(|tier| vec![folder.file(&format!("tier{tier}.img"), 64)]));
        let configuration = DatabaseConfiguration { log_tier, memtable_size: 1 << 20, ..small(tiers) };
        let db = Database::build(configuration.clone()).unwrap();
        let dataset = db.create_dataset("d").unwrap();
        let before = written(&db);
        for number in 0..200u64 {
            dataset.insert(number.to_be_bytes(), value(number, 100)).unwrap();
            db.sync().unwrap();
        }
        for (vdev, (after, before)) in written(&db).iter().zip(before).enumerate() {
            let bytes = after - before;
            assert_eq!(bytes >= 200 * 100, vdev == at, "log on {log_tier:?}: {bytes} bytes on vdev {vdev}");
        }
        // What only the log has is found there, whatever the next opener configures.
        let crashed = folder.bytes();
        drop((db, dataset));
        crashed.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
        let db = Database::build(DatabaseConfiguration { log_tier: Some(1), ..configuration }).unwrap();
        assert_eq!(db.open_dataset("d").unwrap().range::<&[u8]>(..).count(), 200);
    }
}

/// Guards nodes: they are on the fastest durable tier, where opening and every cold read meet them.
#[test]
fn nodes_are_on_the_fastest_durable_tier() {
    let folder = Folder::new();
    let mut tiers = vec![vec![LeafVdev::memory(16 * MIB).into()]];
    tiers.extend((1..4).map(|tier| vec![folder.file(&format!("tier{tier}.img"), 64)]));
    let configuration = DatabaseConfiguration { default_storage_class: 3, log_tier: Some(2), ..small(tiers) };
    let db = Database::build(configuration.clone()).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    let before = used(&db);
    fill(&dataset, "a", 5_000, 300, StoragePreference::NONE);
    settle(&db);
    let after = used(&db);
    assert!(dataset.stats().unwrap().nodes > 10);
    assert!(after[1] > before[1], "no node on tier 1: {before:?} → {after:?}");
    assert!(after[3] > before[3] + MIB && after[2] < MIB, "{before:?} → {after:?}");
    db.close().unwrap();
    drop(dataset);
    let db = Database::build(configuration).unwrap();
    let before: Vec<u64> = db.metrics().vdevs.iter().map(|vdev| vdev.reads.bytes).collect();
    db.open_dataset("d").unwrap().stats().unwrap();
    let after: Vec<u64> = db.metrics().vdevs.iter().map(|vdev| vdev.reads.bytes).collect();
    assert!(
        after[1] > before[1] && after[3] == before[3],
        "nodes were read elsewhere: {before:?} → {after:?}"
    );
}
