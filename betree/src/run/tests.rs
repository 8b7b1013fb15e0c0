//! Runs against models: a sorted vector of entries, from printed seeds.

use super::format::{META_HEADER_BYTES, RECORD_BYTES};
use super::testing::{Entry, Keys, Random, entries, memory, sort, write};
use super::*;
use crate::base::checksum::crc;
use crate::base::codec::{Decoder, Encoder};
use crate::base::compression::Compression;
use crate::base::ids::{DatasetId, Generation, VdevId};
use crate::base::preference::StoragePreference;
use crate::base::units::BLOCK_BYTES_U64;
use crate::dmu::testing::late_mirror;
use crate::dmu::{Dmu, DmuError};
use std::ops::ControlFlow;
use std::sync::Arc;

const SHAPES: [Keys; 4] = [Keys::Random, Keys::Short, Keys::LongPrefix, Keys::Huge];
const CODECS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd { level: 1 }];

/// The run as another process would see it: by its reference alone.
fn reopen(dmu: &Dmu, run: &Run) -> Arc<Run> {
    let mut out = Encoder::new();
    RunRef { birth: Generation(9), ..run.reference().clone() }.encode(&mut out);
    let again = Run::from_reference(dmu, out.as_slice()).unwrap();
    assert_eq!((again.birth(), &again.reference().keys), (Generation(9), &run.reference().keys));
    assert_eq!(again.space().extents(), run.space().extents());
    again
}

fn get_all(run: &Arc<Run>, key: &[u8], max_sequence: u64) -> Result<Vec<Entry>, DmuError> {
    let mut out = Vec::new();
    let flow = run.get(key, key_hash(key), max_sequence, &mut |entry| {
        out.push(Entry::of(entry));
        ControlFlow::Continue(())
    })?;
    assert_ne!(flow, Search::Done);
    Ok(out)
}

fn collect(cursor: &mut dyn EntryCursor, forward: bool) -> Result<Vec<Entry>, DmuError> {
    let mut out = Vec::new();
    if forward {
        cursor.seek(&[])?
    } else {
        cursor.seek_before(None)?
    }
    while let Some(entry) = cursor.entry() {
        out.push(Entry::of(entry));
        if forward { cursor.next()? } else { cursor.prev()? }
    }
    Ok(out)
}

/// A key near those of the model: one of them, or one with a byte more, less or other.
fn some_key(random: &mut Random, model: &[Entry]) -> Vec<u8> {
    let mut key = model[random.below(model.len() as u64) as usize].key.clone();
    match random.below(6) {
        0 => key.push(0),
        1 => drop(key.pop()),
        2 => {
            if let Some(last) = key.last_mut() {
                *last = last.wrapping_add(1);
            }
        }
        3 => key = random.bytes(3),
        _ => {}
    }
    key
}

/// Moves `cursor` about and compares each position with the model.
fn walk(cursor: &mut dyn EntryCursor, model: &[Entry], random: &mut Random, steps: usize) {
    let mut position = None;
    for _ in 0..steps {
        match random.below(12) {
            0 => {
                let key = some_key(random, model);
                cursor.seek(&key).unwrap();
                position =
                    Some(model.partition_point(|entry| entry.key < key)).filter(|at| *at < model.len());
            }
            1 => {
                let key = some_key(random, model);
                cursor.seek_before(Some(&key)).unwrap();
                position = model.partition_point(|entry| entry.key < key).checked_sub(1);
            }
            2 if random.below(10) == 0 => {
                cursor.seek_before(None).unwrap();
                position = model.len().checked_sub(1);
            }
            way => {
                for _ in 0..random.below(30) {
                    if way < 8 {
                        cursor.next().unwrap();
                        position = position.map(|at| at + 1).filter(|at| *at < model.len());
                    } else {
                        cursor.prev().unwrap();
                        position = position.and_then(|at| at.checked_sub(1));
                    }
                    assert_eq!(cursor.entry(), position.map(|at| model[at].borrow()));
                }
            }
        }
        assert_eq!(cursor.entry(), position.map(|at| model[at].borrow()));
    }
}

#[test]
fn a_run_holds_what_was_written() {
    for seed in 0..24 {
        let shape = SHAPES[seed % 4];
        let compression = CODECS[seed / 4 % 3];
        let options = RunOptions {
            block_bytes: [4096, 16 << 10][seed / 12],
            compression,
            filter_bits: [10, 10, 0][seed % 3],
            origin: DatasetId(3),
            preference: StoragePreference::SLOW,
            ..RunOptions::default()
        };
        println!("seed {seed} {shape:?} {options:?}");
        let mut random = Random(seed as u64);
        let count = if matches!(shape, Keys::Huge) { 80 } else { 1500 };
        let model = entries(&mut random, count, shape);
        let (dmu, _devices) = memory(&[32 << 10], [96 << 10, 8 << 20][seed % 2]);
        let written = write(&dmu, options, &model);
        for run in [reopen(&dmu, &written), written] {
            let reference = run.reference();
            assert_eq!(reference.entries, model.len() as u64);
            assert_eq!(
                reference.deletes,
                model.iter().filter(|entry| entry.kind == Kind::Delete).count() as u64
            );
            assert_eq!(reference.max_sequence, model.iter().map(|entry| entry.sequence).max().unwrap());
            assert_eq!(reference.min_sequence, model.iter().map(|entry| entry.sequence).min().unwrap());
            assert_eq!((reference.origin, reference.preference), (DatasetId(3), StoragePreference::SLOW));
            let (first, last) = reference.keys.clone().unwrap();
            assert_eq!((&*first, &*last), (&*model[0].key, &*model[model.len() - 1].key));
            run.verify().unwrap();
            for _ in 0..300 {
                let key = some_key(&mut random, &model);
                let max = [u64::MAX, random.below(1 << 20)][random.below(2) as usize];
                let expected: Vec<Entry> =
                    model.iter().filter(|entry| entry.key == key && entry.sequence <= max).cloned().collect();
                assert_eq!(get_all(&run, &key, max).unwrap(), expected);
                assert!(expected.is_empty() || run.may_contain(key_hash(&key)).unwrap());
                assert!(expected.is_empty() || reference.bounds_contain(&key));
            }
            for mode in [ReadMode::Point, ReadMode::Scan, ReadMode::Merge] {
                let mut cursor = RunCursor::new(Arc::clone(&run), mode);
                assert_eq!(cursor.entry(), None);
                assert!(collect(&mut cursor, true).unwrap() == model);
                let mut backward = collect(&mut cursor, false).unwrap();
                backward.reverse();
                assert!(backward == model);
                walk(&mut cursor, &model, &mut random, 300);
            }
            assert!(dmu.cache().bytes() <= dmu.cache().bytes_max() + (128 << 10));
        }
    }
}

#[test]
fn versions_of_one_key_span_blocks() {
    let (dmu, _devices) = memory(&[4096], 1 << 20);
    let entry = |key: &[u8], sequence| Entry {
        key: key.to_vec(),
        sequence,
        kind: Kind::Upsert,
        preference: StoragePreference::NONE,
        payload: vec![sequence as u8; 50],
    };
    let mut model: Vec<Entry> = (0..1000).map(|sequence| entry(b"many", sequence)).collect();
    model.extend((0..500).map(|sequence| entry(b"many too", sequence)));
    model.push(entry(b"", 5));
    model.push(entry(b"n", 5));
    sort(&mut model);
    let run = write(&dmu, RunOptions { block_bytes: 4096, ..RunOptions::default() }, &model);
    assert!(run.reference().blocks > 10);
    let run = reopen(&dmu, &run);
    for key in [&b"many"[..], b"many too", b"", b"n", b"man", b"many t"] {
        for max in [0, 3, 499, 500, u64::MAX] {
            let expected: Vec<Entry> =
                model.iter().filter(|entry| entry.key == key && entry.sequence <= max).cloned().collect();
            assert_eq!(get_all(&run, key, max).unwrap(), expected);
        }
    }
    let mut first = 0;
    let flow = run.get(b"many", key_hash(b"many"), 700, &mut |entry| {
        first = entry.sequence;
        ControlFlow::Break(())
    });
    assert_eq!((flow.unwrap(), first), (Search::Done, 700));
    let mut cursor = RunCursor::new(run, ReadMode::Scan);
    walk(&mut cursor, &model, &mut Random(1), 2000);
}

#[test]
fn merged_runs_are_one_sequence() {
    for seed in 0..16 {
        let shape = SHAPES[seed % 3];
        let sources = [1, 2, 3, 9][seed / 4];
        println!("seed {seed} {shape:?} {sources} sources");
        let mut random = Random(seed as u64);
        let model = entries(&mut random, 2000, shape);
        let (dmu, _devices) = memory(&[32 << 10], 1 << 20);
        let mut parts = vec![Vec::new(); sources];
        let mut part = 0;
        for entry in &model {
            // Stay with a source for a while now and then, so that one dominates.
            if random.below(1 + seed as u64) == 0 {
                part = random.below(sources as u64) as usize;
            }
            parts[part].push(entry.clone());
        }
        let runs: Vec<_> = parts
            .iter()
            .filter(|part| !part.is_empty())
            .map(|part| write(&dmu, RunOptions { block_bytes: 4096, ..RunOptions::default() }, part))
            .collect();
        let cursors = |mode| -> Vec<Box<dyn EntryCursor>> {
            let boxed =
                |run: &Arc<Run>| Box::new(RunCursor::new(Arc::clone(run), mode)) as Box<dyn EntryCursor>;
            runs.iter().map(boxed).collect()
        };
        let mut merge = MergeCursor::new(cursors(ReadMode::Merge));
        assert_eq!(merge.entry(), None);
        assert!(collect(&mut merge, true).unwrap() == model);
        let mut backward = collect(&mut merge, false).unwrap();
        backward.reverse();
        assert!(backward == model);
        walk(&mut MergeCursor::new(cursors(ReadMode::Scan)), &model, &mut random, 2000);
        // Merging is a cursor again.
        let (mut left, mut right) = (cursors(ReadMode::Point), Vec::new());
        right.extend(left.drain(left.len() / 2..));
        let nested: Vec<Box<dyn EntryCursor>> =
            vec![Box::new(MergeCursor::new(left)), Box::new(MergeCursor::new(right))];
        walk(&mut MergeCursor::new(nested), &model, &mut random, 500);
    }
}

#[test]
fn equal_entries_of_two_sources_are_walked_both_ways() {
    let (dmu, _devices) = memory(&[4096], 1 << 20);
    let model = entries(&mut Random(1), 50, Keys::Short);
    let run = write(&dmu, RunOptions::default(), &model);
    let cursors = (0..2).map(|_| Box::new(RunCursor::new(Arc::clone(&run), ReadMode::Scan)) as _).collect();
    let mut merge = MergeCursor::new(cursors);
    let doubled: Vec<Entry> = model.iter().flat_map(|entry| [entry.clone(), entry.clone()]).collect();
    walk(&mut merge, &doubled, &mut Random(2), 2000);
}

#[test]
fn small_entries_fill_aligned_blocks_and_large_ones_waste_little() {
    let (dmu, _devices) = memory(&[64 << 10], 1 << 20);
    for payload in [100, 4096, 9000, 40_000] {
        let mut random = Random(payload);
        let count = 4_000_000 / (payload + 30);
        let mut model: Vec<Entry> = (0..count)
            .map(|sequence| Entry {
                key: random.bytes(16),
                sequence,
                kind: Kind::Put,
                preference: StoragePreference::NONE,
                payload: vec![1; payload as usize],
            })
            .collect();
        sort(&mut model);
        let run = write(&dmu, RunOptions { filter_bits: 0, ..RunOptions::default() }, &model);
        let reference = run.reference();
        assert!(reference.meta_offset * 7 <= reference.raw_bytes * 8, "{payload}: {reference:?}");
        if payload == 100 {
            let meta = run.meta().unwrap().clone().unwrap();
            assert!((0..meta.blocks()).all(|block| meta.record(block).offset == block as u64 * (16 << 10)));
        }
        let mut cursor = RunCursor::new(reopen(&dmu, &run), ReadMode::Scan);
        assert!(collect(&mut cursor, true).unwrap() == model);
    }
}

#[test]
fn range_deletes_travel_with_or_without_entries() {
    let (dmu, _devices) = memory(&[4096], 1 << 20);
    let delete = |start: &[u8], end: Option<&[u8]>, sequence| RangeDelete {
        start: start.into(),
        end: end.map(Into::into),
        sequence,
    };
    let mut writer = RunWriter::new(&dmu, RunOptions::default(), 0);
    writer.add_range_delete(delete(b"m", Some(b"p"), 7));
    writer.add_range_delete(delete(b"c", Some(b"n"), 9));
    writer.add_range_delete(delete(b"x", Some(b"x"), 99));
    let run = reopen(&dmu, &writer.finish().unwrap().unwrap());
    let reference = run.reference();
    assert_eq!((reference.entries, reference.blocks, reference.range_deletes), (0, 0, 2));
    assert_eq!((reference.min_sequence, reference.max_sequence), (7, 9));
    assert_eq!(reference.hull, Some((b"c"[..].into(), Some(b"p"[..].into()))));
    assert_eq!(run.covering(b"m", u64::MAX).unwrap(), Some(9));
    assert_eq!(run.covering(b"m", 8).unwrap(), Some(7));
    assert_eq!(run.covering(b"p", u64::MAX).unwrap(), None);
    assert_eq!(run.range_deletes().unwrap().list().len(), 2);
    assert!(reference.overlaps(b"o", None) && reference.overlaps(b"", Some(b"d")));
    assert!(!reference.overlaps(b"p", None) && !reference.overlaps(b"", Some(b"c")));
    assert!(reference.lies_within(b"c", Some(b"p")) && !reference.lies_within(b"d", None));
    assert!(!reference.lies_within(b"", Some(b"o")));
    run.verify().unwrap();
    let mut cursor = RunCursor::new(Arc::clone(&run), ReadMode::Scan);
    assert!(
        collect(&mut cursor, true).unwrap().is_empty() && collect(&mut cursor, false).unwrap().is_empty()
    );
    assert!(get_all(&run, b"m", u64::MAX).unwrap().is_empty());

    let mut writer = RunWriter::new(&dmu, RunOptions::default(), 0);
    let model = entries(&mut Random(1), 100, Keys::Random);
    model.iter().for_each(|entry| writer.add(entry.borrow()).unwrap());
    writer.add_range_delete(delete(b"", None, u64::MAX));
    writer.add_large_bytes(77);
    let run = reopen(&dmu, &writer.finish().unwrap().unwrap());
    assert_eq!(run.reference().max_sequence, u64::MAX);
    assert_eq!(run.reference().large_bytes, 77);
    assert_eq!(run.reference().hull, Some((b""[..].into(), None)));
    assert_eq!(run.covering(b"anything", u64::MAX).unwrap(), Some(u64::MAX));
    assert!(!run.reference().lies_within(b"", Some(&[255; 20])) && run.reference().lies_within(b"", None));

    assert!(RunWriter::new(&dmu, RunOptions::default(), 1 << 20).finish().unwrap().is_none());
}

#[test]
fn entries_out_of_order_are_an_error() {
    let (dmu, _devices) = memory(&[4096], 1 << 20);
    let mut writer = RunWriter::new(&dmu, RunOptions::default(), 0);
    let entry = |key, sequence| EntryRef {
        key,
        sequence,
        kind: Kind::Put,
        preference: StoragePreference::NONE,
        payload: b"",
    };
    writer.add(entry(b"b", 5)).unwrap();
    writer.add(entry(b"b", 4)).unwrap();
    for (key, sequence) in [(b"b", 4), (b"b", 5), (b"a", 9)] {
        assert!(matches!(writer.add(entry(key, sequence)), Err(DmuError::Corrupt { .. })));
    }
    writer.add(entry(b"c", 9)).unwrap();
    assert_eq!(writer.entries(), 3);
    drop(writer);
}

#[test]
fn blocks_are_admitted_with_the_heat_of_what_they_replace() {
    let (dmu, _devices) = memory(&[16 << 10], 64 << 20);
    let model = entries(&mut Random(3), 5000, Keys::Random);
    let write = |heat| {
        let mut writer = RunWriter::new(&dmu, RunOptions::default(), 0);
        writer.set_heat(heat);
        model.iter().for_each(|entry| writer.add(entry.borrow()).unwrap());
        writer.finish().unwrap().unwrap()
    };
    let resident = |run: &Arc<Run>| model.iter().filter(|entry| run.is_resident(&entry.key)).count();
    let (cold, hot) = (write(HeatOfBlocks::Cold), write(HeatOfBlocks::Hot));
    let source = Arc::clone(&hot);
    let some = write(HeatOfBlocks::Where(Box::new(move |key| key < &[128][..] && source.is_resident(key))));
    assert_eq!((resident(&cold), resident(&hot)), (0, model.len()));
    assert!((1000..4000).contains(&resident(&some)));
    let misses = dmu.cache().statistics().misses;
    assert!(model.iter().all(|entry| get_all(&hot, &entry.key, u64::MAX).unwrap()[0] == *entry));
    assert_eq!(dmu.cache().statistics().misses, misses);
    drop((cold, hot, some));
    assert_eq!(dmu.cache().bytes(), 0);
}

#[test]
fn the_budget_holds_while_readers_come_and_go() {
    let (dmu, _devices) = memory(&[64 << 10], 600 << 10);
    let runs: Vec<_> = (0..8)
        .map(|seed| {
            let model = entries(&mut Random(seed), 5000, Keys::Random);
            (write(&dmu, RunOptions::default(), &model), model)
        })
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (runs, dmu) = (&runs, &dmu);
            scope.spawn(move || {
                let mut random = Random(thread);
                for _ in 0..3000 {
                    let (run, model) = &runs[random.below(8) as usize];
                    let entry = &model[random.below(model.len() as u64) as usize];
                    assert_eq!(get_all(run, &entry.key, u64::MAX).unwrap()[0], *entry);
                    assert!(dmu.cache().bytes() <= (600 << 10) + 3 * (96 << 10));
                }
            });
        }
    });
    let statistics = dmu.cache().statistics();
    assert!(statistics.evictions > 100 && statistics.hits > 100, "{statistics:?}");
    dmu.cache().clear();
    assert_eq!(dmu.cache().bytes(), 0);
    drop(runs);
}

/// Reads everything in every way; what comes must be the model, in part.
fn read_damaged(dmu: &Dmu, reference: &RunRef, model: &[Entry], exact: bool) -> bool {
    // As from disk: dropping it frees nothing.
    let run = Run::open(dmu, RunRef { birth: Generation(1), ..reference.clone() });
    let mut sound = true;
    for mode in [ReadMode::Point, ReadMode::Scan, ReadMode::Merge] {
        let mut cursor = RunCursor::new(Arc::clone(&run), mode);
        for forward in [true, false] {
            match collect(&mut cursor, forward) {
                Ok(mut all) if exact => {
                    if !forward {
                        all.reverse();
                    }
                    assert!(all == model);
                }
                Ok(_) => {}
                Err(_) => sound = false,
            }
        }
    }
    for entry in model.iter().step_by(7) {
        match get_all(&run, &entry.key, u64::MAX) {
            Ok(found) if exact => assert!(found.contains(entry)),
            Ok(_) => {}
            Err(_) => sound = false,
        }
    }
    sound &= run.covering(b"k", 1 << 40).is_ok();
    if !exact {
        // What a merge would do with it.
        let mut writer = RunWriter::new(dmu, RunOptions::default(), 0);
        let mut cursor = RunCursor::new(run, ReadMode::Merge);
        let _may_fail = cursor.seek(&[]);
        while let Some(entry) = cursor.entry() {
            if writer.add(entry).is_err() || cursor.next().is_err() {
                break;
            }
        }
    }
    sound
}

fn damaged_run(random: &mut Random, dmu: &Dmu, compression: Compression) -> (Arc<Run>, Vec<Entry>, Vec<u8>) {
    let shape = SHAPES[random.below(3) as usize];
    let model = entries(random, 150, shape);
    let options = RunOptions { block_bytes: 4096, compression, ..RunOptions::default() };
    let mut writer = RunWriter::new(dmu, options, 0);
    model.iter().for_each(|entry| writer.add(entry.borrow()).unwrap());
    for sequence in 0..random.below(5) {
        writer.add_range_delete(RangeDelete { start: random.bytes(3).into(), end: None, sequence });
    }
    let run = writer.finish().unwrap().unwrap();
    let extents = run.reference().extents.extents();
    let len = crate::base::extent::total_blocks(extents) * BLOCK_BYTES_U64;
    let bytes = dmu.read(extents, 0, len as usize).unwrap().to_vec();
    (run, model, bytes)
}

fn damage(random: &mut Random, bytes: &mut [u8]) {
    let at = random.below(bytes.len() as u64) as usize;
    match random.below(4) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize],
        2 => bytes[at] = random.next() as u8,
        _ => {
            let end = (at + 1 + random.below(8) as usize).min(bytes.len());
            let new = random.bytes(end - at);
            bytes[at..end].copy_from_slice(&new);
        }
    }
}

#[test]
fn damage_is_an_error_and_never_wrong_data() {
    for seed in 0..30 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let (dmu, _devices) = memory(&[16 << 10], 1 << 20);
        let (run, model, bytes) = damaged_run(&mut random, &dmu, CODECS[seed as usize % 3]);
        let mut errors = 0;
        for _ in 0..15 {
            let mut bad = bytes.clone();
            damage(&mut random, &mut bad);
            dmu.write(run.reference().extents.extents(), 0, &bad).unwrap();
            errors += usize::from(!read_damaged(&dmu, run.reference(), &model, true));
        }
        assert!(errors > 0);
        dmu.write(run.reference().extents.extents(), 0, &bytes).unwrap();
        assert!(read_damaged(&dmu, run.reference(), &model, true));
    }
}

#[test]
fn damage_behind_right_checksums_never_panics() {
    for seed in 0..60 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let (dmu, _devices) = memory(&[64 << 10], 1 << 20);
        let (run, model, bytes) = damaged_run(&mut random, &dmu, CODECS[seed as usize % 3]);
        let reference = run.reference();
        let (meta_at, meta_len) = (reference.meta_offset as usize, reference.meta_len as usize);
        for _ in 0..20 {
            let mut bad = bytes.clone();
            let lines = u32::from_le_bytes(bad[meta_at + 8..meta_at + 12].try_into().unwrap()) as usize;
            let records = meta_at + META_HEADER_BYTES + lines * 64;
            if random.below(3) > 0 {
                let record = records + random.below(u64::from(reference.blocks)) as usize * RECORD_BYTES;
                let number = |at: usize| u32::from_le_bytes(bad[at..at + 4].try_into().unwrap()) as usize;
                let (start, len) = (number(record), number(record + 16));
                damage(&mut random, &mut bad[start..start + len]);
                let forged = crc(&bad[start..start + len]);
                bad[record + 24..record + 28].copy_from_slice(&forged.to_le_bytes());
            } else if random.below(3) == 0 {
                damage(&mut random, &mut bad[meta_at..meta_at + META_HEADER_BYTES]);
            } else {
                damage(&mut random, &mut bad[records..meta_at + meta_len]);
            }
            let mut forged = reference.clone();
            forged.meta_crc = crc(&bad[meta_at..meta_at + meta_len]);
            dmu.write(reference.extents.extents(), 0, &bad).unwrap();
            read_damaged(&dmu, &forged, &model, false);
        }
    }
}

#[test]
fn damaged_references_are_errors_or_harmless() {
    for seed in 0..200 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let (dmu, _devices) = memory(&[16 << 10], 1 << 20);
        let (run, model, _) = damaged_run(&mut random, &dmu, Compression::None);
        let mut out = Encoder::new();
        RunRef { birth: Generation(1), ..run.reference().clone() }.encode(&mut out);
        let bytes = out.finish();
        for len in 0..bytes.len() {
            assert!(RunRef::decode(&mut Decoder::new(&bytes[..len]), &dmu).is_err());
        }
        for _ in 0..20 {
            let mut bad = bytes.clone();
            damage(&mut random, &mut bad);
            if let Ok(reference) = RunRef::decode(&mut Decoder::new(&bad), &dmu) {
                read_damaged(&dmu, &reference, &model, false);
            }
        }
    }
}

/// What does not read on a member that holds everything is had of another one: of one that counts, or of one that only a
/// checksum can trust. Either way it is written again where it did not read.
#[test]
fn bad_sectors_are_borne_and_repaired() {
    let modes = [ReadMode::Point, ReadMode::Scan, ReadMode::Stream, ReadMode::Merge];
    let mut random = Random(23);
    let model = entries(&mut random, 4000, Keys::Random);
    for compression in CODECS {
        for (both_count, mode) in [false, true].into_iter().flat_map(|both| modes.map(|mode| (both, mode))) {
            let (dmu, disks) = late_mirror(1 << 11);
            let options = RunOptions { compression, ..RunOptions::default() };
            let run = write(&dmu, options, &model);
            if both_count {
                dmu.pool().resilvered(VdevId(1), 1, dmu.pool().life(VdevId(1), 1).unwrap()).unwrap();
            }
            let blocks = run.space().extents().iter().flat_map(|extent| extent.block..extent.end());
            for (index, block) in blocks.enumerate() {
                // With two that count, no copy is whole, and each block is on one.
                disks[if both_count { index % 2 } else { 0 }].wear(block);
            }
            let worn = || disks.iter().map(|disk| disk.worn()).sum::<usize>();
            let before = worn();
            let run = reopen(&dmu, &run);
            let found = collect(&mut RunCursor::new(Arc::clone(&run), mode), true).unwrap();
            assert_eq!(found.len(), model.len());
            assert!(found == model, "{mode:?}, {both_count}");
            // With two that count, half of it is on the other one, which need not be asked. Where blocks of the run end within
            // those of the device, nobody verifies all of one.
            let is_aligned = compression == Compression::None;
            assert!(
                !is_aligned || worn() <= before * 3 / 5,
                "{mode:?}, {both_count}: {} of {before} are left",
                worn()
            );
        }
    }
}
