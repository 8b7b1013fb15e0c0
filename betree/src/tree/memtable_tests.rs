//! The memtable against models: ordered maps, lists, and a writer beside readers.

use super::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};

type Key = (Vec<u8>, Reverse<u64>);
type Value = (Kind, StoragePreference, Vec<u8>);
type Model = BTreeMap<Key, Value>;
type Row = (Vec<u8>, u64, Kind, StoragePreference, Vec<u8>);

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    /// From a new seed, which is printed, or from the one in the variable `BETREE_SEED`.
    fn new() -> Self {
        let given = std::env::var("BETREE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        println!("seed {seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn put<'a>(key: &'a [u8], sequence: u64, payload: &'a [u8]) -> EntryRef<'a> {
    EntryRef { key, sequence, kind: Kind::Put, preference: StoragePreference::NONE, payload }
}

fn row(entry: EntryRef<'_>) -> Row {
    (entry.key.to_vec(), entry.sequence, entry.kind, entry.preference, entry.payload.to_vec())
}

fn model_row((key, value): (&Key, &Value)) -> Row {
    (key.0.clone(), key.1.0, value.0, value.1, value.2.clone())
}

fn visible(model: &Model, max_sequence: u64) -> Vec<Row> {
    model.iter().filter(|(key, _)| key.1.0 <= max_sequence).map(model_row).collect()
}

/// Keys of one habit: each habit is hard for another part of the index.
fn key_of(random: &mut Random, habit: u64, step: u64) -> Vec<u8> {
    match habit {
        // Uniform.
        0 => random.next().to_be_bytes().repeat(2),
        // Ascending, behind a long common prefix.
        1 => format!("a common prefix of every key/{step:012}").into_bytes(),
        // Few keys, so many versions.
        2 => vec![b'k', random.below(5) as u8],
        // One key.
        3 => b"counter".to_vec(),
        // Equal prefixes and lengths that only zeros tell apart; the empty key; the largest prefix.
        4 => vec![0; random.below(24) as usize],
        5 => vec![0xff; random.below(24) as usize],
        // Several ascending streams that take turns, like chunks of objects.
        6 => {
            let mut key = (random.below(7) << 40).to_be_bytes().to_vec();
            key.extend(step.to_be_bytes());
            key
        }
        // Descending.
        7 => (u64::MAX - step).to_be_bytes().to_vec(),
        // A deep trie of two letters.
        8 => (0..random.below(40)).map(|_| b'a' + (random.below(5) / 4) as u8).collect(),
        // As long as a key gets, and different at the very end.
        _ => {
            let mut key = vec![b'L'; 64 << 10];
            key.push(random.below(3) as u8);
            key
        }
    }
}

fn fill(random: &mut Random, table: &Memtable, model: &mut Model, habits: &[u64], count: u64, first: u64) {
    let kinds = [Kind::Put, Kind::Delete, Kind::Upsert, Kind::PutLarge];
    let mut bytes = vec![0; 40_000];
    bytes.iter_mut().for_each(|byte| *byte = random.next() as u8);
    for step in 0..count {
        let mut habit = habits[random.below(habits.len() as u64) as usize];
        if habit == 9 && random.below(50) > 0 {
            habit = 4;
        }
        let key = key_of(random, habit, step);
        let kind = kinds[random.below(4) as usize];
        let preference = StoragePreference::new(random.below(5) as u8).unwrap_or_default();
        let len = if random.below(200) == 0 { random.below(32_769) } else { random.below(40) };
        let payload = &bytes[..len as usize];
        let sequence = first + step;
        let entry = EntryRef { key: &key, sequence, kind, preference, payload };
        assert!(table.insert(entry));
        if random.below(20) == 0 {
            assert!(!table.insert(put(&key, sequence, b"again")));
        }
        model.insert((key, Reverse(sequence)), (kind, preference, payload.to_vec()));
    }
}

fn compare(random: &mut Random, table: &Arc<Memtable>, model: &Model) {
    table.index.read().check();
    assert_eq!(table.entries(), model.len() as u64);
    let top = table.max_sequence().unwrap_or(0);
    let keys: Vec<&Vec<u8>> = model.keys().map(|(key, _)| key).collect();
    let some_key = |random: &mut Random| {
        let mut key = keys[random.below(keys.len() as u64) as usize].clone();
        match random.below(6) {
            0 => key.push(0),
            1 => drop(key.pop()),
            2 => key = key_of(random, 8, 0),
            _ => {}
        }
        key
    };

    let mut all = Vec::new();
    table
        .for_each::<()>(None, None, &mut |entry| {
            all.push(row(entry));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    assert!(all == visible(model, u64::MAX), "walk");

    for _ in 0..100 {
        let (from, to) = (some_key(random), some_key(random));
        let limit = 1 + random.below(100) as usize;
        let mut found = Vec::new();
        table
            .for_each::<()>(Some(&from), Some(&to), &mut |entry| {
                found.push(row(entry));
                Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })
            .unwrap();
        let inside = |key: &&Key| key.0 >= from && key.0 < to;
        let expected: Vec<_> =
            model.keys().filter(inside).take(limit).map(|key| (key.0.clone(), key.1.0)).collect();
        let found: Vec<_> = found.into_iter().map(|row| (row.0, row.1)).collect();
        assert!(found == expected, "walk from {from:?} to {to:?}");
    }

    for _ in 0..500 {
        let (key, max) = (some_key(random), random.below(top + 2));
        let mut found = Vec::new();
        table.get(&key, max, &mut |entry| {
            found.push(row(entry));
            if found.len() < 50 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let versions = model.range((key.clone(), Reverse(max))..=(key.clone(), Reverse(0)));
        assert!(found == versions.take(50).map(model_row).collect::<Vec<_>>(), "get {key:?} at {max}");
    }

    for max in [random.below(top + 1), random.below(top + 1), u64::MAX] {
        let rows = visible(model, max);
        let mut cursor = MemtableCursor::new(table.clone(), max);
        assert_eq!(cursor.entry(), None);
        for _ in 0..30 {
            let key = some_key(random);
            let mut at = if random.below(10) == 0 {
                cursor.seek_before(None).unwrap();
                rows.len().checked_sub(1)
            } else if random.below(2) == 0 {
                cursor.seek(&key).unwrap();
                Some(rows.partition_point(|row| row.0 < key))
            } else {
                cursor.seek_before(Some(&key)).unwrap();
                rows.partition_point(|row| row.0 < key).checked_sub(1)
            };
            let forward = random.below(8);
            for _ in 0..random.below(400) {
                let expected = at.and_then(|at| rows.get(at));
                assert!(cursor.entry().map(row).as_ref() == expected, "cursor at {at:?} of {}", rows.len());
                if expected.is_none() {
                    at = None;
                }
                if random.below(8) < forward {
                    cursor.next().unwrap();
                    at = at.map(|at| at + 1);
                } else {
                    cursor.prev().unwrap();
                    at = at.and_then(|at| at.checked_sub(1));
                }
            }
        }
    }
}

#[test]
fn agrees_with_a_model() {
    let mut random = Random::new();
    let mixes: [&[u64]; 11] = [
        &[0],
        &[1],
        &[2],
        &[3],
        &[4, 5],
        &[6],
        &[7],
        &[8],
        &[9],
        &[0, 1, 6, 7],
        &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    ];
    for habits in mixes {
        let table = Arc::new(Memtable::new());
        let mut model = Model::new();
        let mut first = 1;
        for count in [1, 130, 2000, 30_000] {
            fill(&mut random, &table, &mut model, habits, count, first);
            first += count;
            compare(&mut random, &table, &model);
        }
        assert_eq!((table.min_sequence(), table.max_sequence()), (Some(1), Some(first - 1)));
    }
}

#[test]
fn sequence_numbers_need_not_ascend() {
    let mut random = Random::new();
    let table = Arc::new(Memtable::new());
    let mut model = Model::new();
    for first in [50_000, 10_000, 90_000, 0, 20_000] {
        fill(&mut random, &table, &mut model, &[2, 3, 8], 2000, first);
    }
    compare(&mut random, &table, &model);
}

#[test]
fn an_empty_memtable_has_nothing() {
    let table = Arc::new(Memtable::new());
    assert!(table.is_empty());
    assert_eq!((table.bytes(), table.large_bytes(), table.entries()), (0, 0, 0));
    assert_eq!((table.min_sequence(), table.max_sequence()), (None, None));
    assert_eq!(table.covering_range_delete(b"", u64::MAX), None);
    assert!(table.range_deletes(u64::MAX).is_empty());
    table.get(b"", u64::MAX, &mut |_| panic!("no entry"));
    table.for_each::<()>(None, None, &mut |_| panic!("no entry")).unwrap();
    let mut cursor = MemtableCursor::new(table, u64::MAX);
    cursor.seek(b"").unwrap();
    assert_eq!(cursor.entry(), None);
    cursor.seek_before(None).unwrap();
    cursor.next().unwrap();
    cursor.prev().unwrap();
    assert_eq!(cursor.entry(), None);
}

#[test]
fn a_visitor_ends_a_walk_and_its_error_is_returned() {
    let table = Memtable::new();
    for sequence in 0..10 {
        table.insert(put(b"k", sequence, b""));
    }
    let mut seen = 0;
    table.get(b"k", 7, &mut |entry| {
        assert_eq!(entry.sequence, 7 - seen);
        seen += 1;
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(seen, 3);
    let mut seen = 0;
    let end = table.for_each(None, None, &mut |_| {
        seen += 1;
        if seen == 2 { Err("enough") } else { Ok(ControlFlow::Continue(())) }
    });
    assert_eq!((end, seen), (Err("enough"), 2));
}

#[test]
fn counts_bytes_and_large_bytes() {
    let table = Memtable::new();
    assert!(table.insert_large(put(b"a", 1, b"pointer"), 1 << 20));
    assert!(!table.insert_large(put(b"a", 1, b"pointer"), 1 << 20));
    assert!(table.insert_large(put(b"b", 2, b"pointer"), 5));
    assert_eq!(table.large_bytes(), (1 << 20) + 5);
    assert!(table.bytes() < 32 << 10, "a small memtable is small: {}", table.bytes());
    // One record that is larger than a chunk, and others around it.
    let large = vec![7; 3 << 20];
    assert!(table.insert(put(b"c", 3, &large)));
    assert!(table.insert(put(b"d", 4, b"after")));
    assert!(table.bytes() > 3 << 20);
    table.get(b"c", 9, &mut |entry| {
        assert_eq!(entry.payload, large);
        ControlFlow::Continue(())
    });
    let mut random = Random::new();
    for sequence in 0..100_000 {
        let key = random.next().to_be_bytes().repeat(2);
        table.insert(put(&key, sequence, &large[..100]));
    }
    let payload = 100_000 * 116 + large.len();
    assert!(table.bytes() > payload && table.bytes() < payload * 3 / 2, "{} for {payload}", table.bytes());
}

#[test]
fn ascending_inserts_leave_full_leaves() {
    let bytes_of = |key_of: &dyn Fn(u64) -> [u8; 16]| {
        let table = Memtable::new();
        for step in 0..200_000 {
            table.insert(put(&key_of(step), step, b""));
        }
        let index = table.index.read();
        index.check();
        index.footprint()
    };
    let ascending = bytes_of(&|step| u128::from(step).to_be_bytes());
    let mixed = bytes_of(&|step| {
        (u128::from(step).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_be_bytes()
    });
    assert!(ascending < mixed, "{ascending} {mixed}");
    assert!(ascending < 200_000 * (16 + 16 + 13) + (2 << 20), "{ascending}");
}

#[test]
fn a_cursor_passes_what_is_too_new() {
    let table = Arc::new(Memtable::new());
    let mut expected = Vec::new();
    let mut sequence = 1_000_000;
    for step in 0..30_000_u32 {
        // Every 7000th key has an old message, and one of them very many new ones.
        let key = step.to_be_bytes();
        if step % 7000 == 3 {
            table.insert(put(&key, u64::from(step), b"old"));
            expected.push(key.to_vec());
        }
        for _ in 0..if step == 14_003 { 20_000 } else { 1 } {
            sequence += 1;
            table.insert(put(&key, sequence, b"new"));
        }
    }
    let mut cursor = MemtableCursor::new(table, 999_999);
    let mut found = Vec::new();
    cursor.seek(b"").unwrap();
    while let Some(entry) = cursor.entry() {
        found.push(entry.key.to_vec());
        cursor.next().unwrap();
    }
    assert_eq!(found, expected);
    cursor.seek_before(None).unwrap();
    while let Some(entry) = cursor.entry() {
        assert_eq!(Some(entry.key.to_vec()), found.pop());
        cursor.prev().unwrap();
    }
    assert!(found.is_empty());
}

#[test]
fn cursors_and_gets_beside_a_writer() {
    let mut random = Random::new();
    let table = Arc::new(Memtable::new());
    let mut model = Model::new();
    fill(&mut random, &table, &mut model, &[0, 2, 6, 8], 4000, 1);
    let rows = visible(&model, 4000);
    std::thread::scope(|scope| {
        let mut writer_random = Random(random.next());
        let written = &table;
        scope.spawn(move || {
            fill(&mut writer_random, written, &mut Model::new(), &[0, 2, 6, 8], 40_000, 4001);
        });
        let mut cursor = MemtableCursor::new(table.clone(), 4000);
        for turn in 0..20 {
            cursor.seek(b"").unwrap();
            for row_expected in &rows {
                assert!(cursor.entry().map(row).as_ref() == Some(row_expected), "turn {turn}");
                cursor.next().unwrap();
            }
            assert!(cursor.entry().is_none());
            cursor.seek_before(None).unwrap();
            for row_expected in rows.iter().rev() {
                assert!(cursor.entry().map(row).as_ref() == Some(row_expected), "turn {turn}");
                cursor.prev().unwrap();
            }
            assert!(cursor.entry().is_none());
            for _ in 0..500 {
                let at = random.below(rows.len() as u64) as usize;
                let key = &rows[at].0;
                cursor.seek(key).unwrap();
                let first = rows.partition_point(|row| row.0 < *key);
                assert!(cursor.entry().map(row).as_ref() == Some(&rows[first]));
                let mut newest = None;
                table.get(key, 4000, &mut |entry| {
                    newest = Some(row(entry));
                    ControlFlow::Break(())
                });
                assert!(newest.as_ref() == Some(&rows[first]));
            }
        }
    });
    table.index.read().check();
    assert_eq!(table.entries(), 44_000);
}

fn short_key(random: &mut Random, letters: u64) -> Box<[u8]> {
    (0..random.below(12)).map(|_| b'a' + random.below(letters) as u8).collect()
}

#[test]
fn range_deletes_agree_with_a_list() {
    let mut random = Random::new();
    for (count, letters, wide) in
        [(5, 3, true), (40, 2, true), (1500, 3, true), (3000, 20, false), (2500, 2, false)]
    {
        let table = Memtable::new();
        let mut list: Vec<RangeDelete> = Vec::new();
        for step in 0..count {
            let start = short_key(&mut random, letters);
            let end = match random.below(10) {
                0 if wide => None,
                1..5 if wide => Some(short_key(&mut random, letters)),
                // Disjoint or small ones.
                _ => Some([&*start, b"a"].concat().into_boxed_slice()),
            };
            // Mostly in order, now and then not.
            let sequence = if random.below(50) == 0 { random.below(step + 1) * 3 + 1 } else { step * 3 };
            let range = RangeDelete { start, end, sequence };
            table.range_delete(range.clone());
            if range.end.as_ref().is_none_or(|end| *end > range.start) {
                list.push(range);
            }
        }
        assert_eq!(table.range_delete_count(), list.len());
        assert_eq!(table.min_sequence(), list.iter().map(|range| range.sequence).min());
        assert_eq!(table.max_sequence(), list.iter().map(|range| range.sequence).max());
        for _ in 0..3000 {
            let key = short_key(&mut random, letters);
            let max = if random.below(3) == 0 { u64::MAX } else { random.below(3 * count + 2) };
            let covers = |range: &&RangeDelete| range.sequence <= max && range.covers(&key);
            let expected = list.iter().filter(covers).map(|range| range.sequence).max();
            assert_eq!(table.covering_range_delete(&key, max), expected, "{key:?} at {max}");
        }
        let max = random.below(3 * count);
        let mut sorted: Vec<RangeDelete> =
            list.iter().filter(|range| range.sequence <= max).cloned().collect();
        sorted.sort_by(|a, b| a.start.cmp(&b.start).then(b.sequence.cmp(&a.sequence)));
        let found = table.range_deletes(max);
        let order = |range: &RangeDelete| (range.start.clone(), Reverse(range.sequence));
        assert!(found.is_sorted_by_key(order));
        let bounds = |ranges: &[RangeDelete]| {
            let mut bounds: Vec<_> =
                ranges.iter().map(|range| (range.start.clone(), range.end.clone(), range.sequence)).collect();
            bounds.sort();
            bounds
        };
        assert_eq!(bounds(&found), bounds(&sorted));
    }
}

#[test]
fn many_nested_range_deletes_stay_small() {
    let table = Memtable::new();
    for step in 0..20_000_u32 {
        let (start, end) = (step.to_be_bytes(), (1_000_000 - step).to_be_bytes());
        table.range_delete(RangeDelete {
            start: start.into(),
            end: Some(end.into()),
            sequence: u64::from(step),
        });
    }
    assert_eq!(table.covering_range_delete(&500_000_u32.to_be_bytes(), u64::MAX), Some(19_999));
    assert_eq!(table.covering_range_delete(&500_000_u32.to_be_bytes(), 7_777), Some(7_777));
    assert_eq!(table.covering_range_delete(&123_u32.to_be_bytes(), u64::MAX), Some(123));
    assert_eq!(table.covering_range_delete(&2_000_000_u32.to_be_bytes(), u64::MAX), None);
    assert!(table.bytes() < 20_000 * 500, "{}", table.bytes());
}
