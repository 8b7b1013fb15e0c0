//! Message actions of programs: order, merging, missing and panicking ones.

use crate::pools::{Folder, contents, seen, settle};
use betree::vdev::SimRng;
use betree::{
    Database, DatabaseConfiguration, Dataset, DefaultMessageAction, Durability, ErrorKind, MessageAction,
    StoragePreference,
};
use betree_tests::seeds::Seeds;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

const NONE: StoragePreference = StoragePreference::NONE;

/// Adds eight bytes, little-endian.
#[derive(Default)]
struct Counter;

impl MessageAction for Counter {
    const NAME: &'static str = "test counter";

    fn apply(&self, _key: &[u8], message: &[u8], value: &mut Option<Vec<u8>>) {
        let sum = number(message).wrapping_add(value.as_deref().map_or(0, number));
        // A counter at zero is none.
        *value = (sum != 0).then(|| sum.to_le_bytes().to_vec());
    }

    fn merge(&self, _key: &[u8], upper: &[u8], lower: &[u8]) -> Option<Vec<u8>> {
        Some(number(upper).wrapping_add(number(lower)).to_le_bytes().to_vec())
    }
}

fn number(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes.try_into().unwrap())
}

/// Appends the message: the order of messages shows in the value. `MERGES` is whether two can be combined.
#[derive(Default)]
struct Append<const MERGES: bool>;

impl<const MERGES: bool> MessageAction for Append<MERGES> {
    const NAME: &'static str = if MERGES { "test append" } else { "test append, never merged" };

    fn apply(&self, _key: &[u8], message: &[u8], value: &mut Option<Vec<u8>>) {
        value.get_or_insert_with(Vec::new).extend_from_slice(message);
    }

    fn merge(&self, _key: &[u8], upper: &[u8], lower: &[u8]) -> Option<Vec<u8>> {
        MERGES.then(|| [lower, upper].concat())
    }
}

/// As [`Append`], but some messages make it panic until it is mended.
#[derive(Default)]
struct Fragile;

static MENDED: AtomicBool = AtomicBool::new(false);

impl MessageAction for Fragile {
    const NAME: &'static str = "test fragile";

    fn apply(&self, key: &[u8], message: &[u8], value: &mut Option<Vec<u8>>) {
        assert!(MENDED.load(Ordering::SeqCst) || message != b"boom", "on purpose");
        Append::<true>.apply(key, message, value);
    }

    fn merge(&self, key: &[u8], upper: &[u8], lower: &[u8]) -> Option<Vec<u8>> {
        assert!(MENDED.load(Ordering::SeqCst) || upper != b"boom" && lower != b"boom", "on purpose");
        Append::<true>.merge(key, upper, lower)
    }
}

/// Writes down through the tree what is in memory, with other keys around.
fn fill<M>(dataset: &Dataset<M>, round: u32) {
    for index in 0..200u32 {
        dataset.insert(format!("filler {:05}", index * 7 % 200 + round), vec![round as u8; 150]).unwrap();
    }
}

/// Random messages, puts and deletes against a map.
fn agrees<M: MessageAction + Default>(
    seed: u64,
    message: impl Fn(&mut SimRng, u64) -> Vec<u8>,
) -> Result<(), String> {
    let folder = Folder::new();
    let mut rng = SimRng::new(seed);
    let mut db = Database::build(folder.one(64)).unwrap();
    let mut dataset = db.create_custom_dataset::<M>("d", NONE).unwrap();
    let action = M::default();
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for step in 0..4_000u64 {
        let key = format!("key {:03}", rng.below(300)).into_bytes();
        match rng.below(40) {
            0 => {
                dataset.delete(&key).unwrap();
                model.remove(&key);
            }
            1 => {
                let value = message(&mut rng, step);
                dataset.insert(&key, &value).unwrap();
                model.insert(key, value);
            }
            2 => {
                let end = [&key[..], b"~"].concat();
                dataset.range_delete(key.as_slice()..end.as_slice()).unwrap();
                model.remove(&key);
            }
            3 => {
                // Several messages of one key in a batch, with a put between them.
                let messages: Vec<Vec<u8>> = (0..4).map(|_| message(&mut rng, step)).collect();
                db.batch()
                    .insert_msg(&dataset, &key, &messages[0])
                    .insert(&dataset, &key, &messages[1])
                    .insert_msg(&dataset, &key, &messages[2])
                    .insert_msg(&dataset, &key, &messages[3])
                    .commit(Durability::Buffered)
                    .unwrap();
                let mut value = Some(messages[1].clone());
                action.apply(&key, &messages[2], &mut value);
                action.apply(&key, &messages[3], &mut value);
                set(&mut model, key, value);
            }
            4 if rng.below(20) == 0 => settle(&db),
            5 if rng.below(20) == 0 => {
                drop(dataset);
                db.close().unwrap();
                db = Database::build(folder.one(64)).unwrap();
                dataset = db.open_custom_dataset::<M>("d", NONE).unwrap();
            }
            _ => {
                let message = message(&mut rng, step);
                dataset.insert_msg(&key, &message).unwrap();
                let mut value = model.get(&key).cloned();
                action.apply(&key, &message, &mut value);
                set(&mut model, key, value);
            }
        }
    }
    for round in 0..2 {
        let found = contents(&dataset).map_err(|error| error.to_string())?;
        if !found.iter().map(|(key, value)| (key, value)).eq(&model) {
            return Err(format!("the dataset differs from the model in round {round}"));
        }
        for (key, value) in &model {
            if dataset.get(key).unwrap().as_deref() != Some(value) {
                return Err(format!("get of {} differs", key.escape_ascii()));
            }
        }
        settle(&db);
    }
    Ok(())
}

fn set(model: &mut BTreeMap<Vec<u8>, Vec<u8>>, key: Vec<u8>, value: Option<Vec<u8>>) {
    match value {
        Some(value) => drop(model.insert(key, value)),
        None => drop(model.remove(&key)),
    }
}

/// Guards sums: each message counts once, however often it is merged, flushed, folded or replayed.
#[test]
fn counters_count_every_message_once() {
    let run = |seed| agrees::<Counter>(seed, |rng, _| (rng.below(7) as i64 - 3).to_le_bytes().to_vec());
    Seeds::new(6).run(run).unwrap();
}

/// Guards the order of messages, with an action that combines them and one that never does.
#[test]
fn messages_are_applied_in_the_order_of_their_writes() {
    let letters =
        |rng: &mut SimRng, step: u64| format!("{step}{} ", "x".repeat(rng.below(12) as usize)).into_bytes();
    Seeds::new(4).run(|seed| agrees::<Append<true>>(seed, letters)).unwrap();
    Seeds::new(4).run(|seed| agrees::<Append<false>>(seed, letters)).unwrap();
}

/// Guards against messages that an action combines into one that no run can hold.
#[test]
fn messages_are_combined_no_further_than_a_run_can_hold() {
    let folder = Folder::new();
    let configuration = DatabaseConfiguration { memtable_size: 8 << 20, ..folder.one(1024) };
    let db = Database::build(configuration).unwrap();
    let dataset = db.create_custom_dataset::<Append<true>>("d", NONE).unwrap();
    let mut expected = Vec::new();
    for round in 0..12u8 {
        let message = vec![round; 250 << 10];
        dataset.insert_msg("log", &message).unwrap();
        expected.extend(message);
    }
    settle(&db);
    assert!(dataset.get("log").unwrap().unwrap() == expected);
}

/// Guards keys whose messages are combined into long ones, and whose folded value gets extents of its own.
#[test]
fn messages_that_grow_long_are_kept_whole() {
    let folder = Folder::new();
    let mut db = Database::build(folder.one(256)).unwrap();
    let dataset = db.create_custom_dataset::<Append<true>>("d", NONE).unwrap();
    let mut expected = Vec::new();
    for round in 0..60u32 {
        let message = vec![round as u8; 100_000];
        dataset.insert_msg("log", &message).unwrap();
        expected.extend(message);
        fill(&dataset, round);
        if round % 20 == 10 {
            db.checkpoint().unwrap();
        }
    }
    drop(dataset);
    for _ in 0..2 {
        let dataset = db.open_custom_dataset::<Append<true>>("d", NONE).unwrap();
        assert!(dataset.get("log").unwrap().unwrap() == expected);
        drop(dataset);
        settle(&db);
        db.close().unwrap();
        db = Database::build(folder.one(256)).unwrap();
    }
}

/// Guards datasets against the action of another program.
#[test]
fn another_action_is_refused() {
    let folder = Folder::new();
    let db = Database::build(folder.one(64)).unwrap();
    db.create_custom_dataset::<Counter>("counts", NONE).unwrap();
    db.create_dataset("plain").unwrap();
    drop(db);
    let db = Database::build(folder.one(64)).unwrap();
    let refused = [
        (db.open_dataset("counts").map(drop), "counts", "test counter", "default"),
        (db.open_or_create_dataset("counts").map(drop), "counts", "test counter", "default"),
        (
            db.open_custom_dataset::<Append<true>>("counts", NONE).map(drop),
            "counts",
            "test counter",
            "test append",
        ),
        (
            db.open_or_create_custom_dataset::<Counter>("plain", NONE).map(drop),
            "plain",
            "default",
            "test counter",
        ),
    ];
    for (result, dataset, stored, wanted) in refused {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        let text = error.to_string();
        for name in [dataset, stored, wanted] {
            assert!(text.contains(&format!("{name:?}")), "{text}");
        }
    }
    db.open_custom_dataset::<Counter>("counts", NONE).unwrap();
    let again = db.create_custom_dataset::<Append<true>>("counts", NONE).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
}

/// Guards data whose action a program does not have: it is carried through flushes, merges, checkpoints, a crash and
/// reopening without being touched, and reads say why they cannot.
#[test]
fn what_has_no_action_here_is_kept_and_not_folded() {
    for crash in [false, true] {
        let folder = Folder::new();
        let db = Database::build(folder.one(64)).unwrap();
        let dataset = db.create_custom_dataset::<Append<true>>("d", NONE).unwrap();
        let other = db.create_dataset("other").unwrap();
        dataset.insert("plain", "readable").unwrap();
        // Long enough for several flushes of what only the log has.
        let message = |round: u32| format!("{round}{},", "·".repeat(50));
        for round in 0..8u32 {
            for key in 0..100u32 {
                dataset.insert_msg(format!("key {key:03}"), message(round)).unwrap();
            }
            if round == 2 {
                dataset.insert("key 000", "base:").unwrap();
                dataset.range_delete("key 010"..="key 019").unwrap();
            }
            if round == 3 {
                settle(&db);
            }
        }
        let expected = contents(&dataset).unwrap();
        let base: String = (3..8).map(message).collect();
        assert_eq!(expected[0].1, format!("base:{base}").into_bytes());
        db.sync().unwrap();
        let bytes = std::fs::read(folder.path("pool.img")).unwrap();
        drop((dataset, other));
        db.close().unwrap();
        if crash {
            std::fs::write(folder.path("pool.img"), bytes).unwrap();
        }
        for _ in 0..2 {
            let db = Database::build(folder.one(64)).unwrap();
            let other = db.open_dataset("other").unwrap();
            for round in 0..4 {
                fill(&other, round);
            }
            settle(&db);
            let view = db.view().dataset_named("d").unwrap();
            assert_eq!(view.get("plain").unwrap().unwrap(), "readable");
            assert_eq!(view.get("absent").unwrap(), None);
            for result in
                [view.get("key 000").map(drop), view.get("key 050").map(drop), seen(&view).map(drop)]
            {
                // What was closed in order may have been folded by those who had the action.
                let Err(error) = result else {
                    assert!(!crash, "it was folded without its action");
                    continue;
                };
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                assert!(
                    error.to_string().contains("\"test append\"") && error.to_string().contains("\"d\""),
                    "{error}"
                );
            }
            db.close().unwrap();
        }
        let db = Database::build(folder.one(64)).unwrap();
        let dataset = db.open_custom_dataset::<Append<true>>("d", NONE).unwrap();
        assert!(contents(&dataset).unwrap() == expected, "crash: {crash}");
        settle(&db);
        assert!(contents(&dataset).unwrap() == expected, "crash: {crash}");
    }
}

/// Guards the rest of a database against one dataset whose action panics, in reads and in background merges, and guards
/// the messages that it could not apply.
#[test]
fn a_panicking_action_poisons_its_dataset_only() {
    MENDED.store(false, Ordering::SeqCst);
    for threads in [0, 2] {
        let folder = Folder::new();
        let configuration = DatabaseConfiguration { background_threads: Some(threads), ..folder.one(64) };
        let db = Database::build(configuration.clone()).unwrap();
        let bad = db.create_custom_dataset::<Fragile>("bad", NONE).unwrap();
        let good = db.create_custom_dataset::<Append<true>>("good", NONE).unwrap();
        let mut expected = BTreeMap::new();
        for round in 0..6u32 {
            for key in 0..40u32 {
                let key = format!("key {key:03}");
                let message = if round == 3 { String::from("boom") } else { format!("{round},") };
                bad.insert_msg(&key, &message).unwrap();
                good.insert_msg(&key, &message).unwrap();
                expected.entry(key).or_insert_with(String::new).push_str(&message);
            }
            fill(&bad, round);
            fill(&good, round);
            settle(&db);
            if round == 3 && threads == 0 {
                // Nothing was read: if anything was folded by now, it was in a merge.
                let error = bad.get("key 007").unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                let text = error.to_string();
                assert!(text.contains("\"bad\"") && text.contains("\"test fragile\""), "{text}");
            }
        }
        assert_eq!(bad.get("key 007").unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(contents(&bad).unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(bad.get("filler 00003").unwrap().is_some(), "what needs no action can be read");
        let check = |dataset: &dyn Fn(&str) -> Vec<u8>| {
            expected.iter().for_each(|(key, value)| assert_eq!(dataset(key), value.as_bytes(), "{key}"));
        };
        check(&|key| good.get(key).unwrap().unwrap().to_vec());
        drop((bad, good));
        db.close().unwrap();

        MENDED.store(true, Ordering::SeqCst);
        let db = Database::build(configuration).unwrap();
        let bad = db.open_custom_dataset::<Fragile>("bad", NONE).unwrap();
        check(&|key| bad.get(key).unwrap().unwrap().to_vec());
        settle(&db);
        check(&|key| bad.get(key).unwrap().unwrap().to_vec());
        MENDED.store(false, Ordering::SeqCst);
    }
}

/// Guards the default action against messages that are none: they would swallow those that they are merged with.
#[test]
fn malformed_messages_are_refused_alone_and_in_batches() {
    let folder = Folder::new();
    let db = Database::build(folder.one(64)).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    let wrong: [&[u8]; 4] = [&[9], &[1], &[1, 200], &[2, 0, 0]];
    for message in wrong {
        for result in [
            dataset.insert_msg("k", message),
            db.batch().insert_msg(&dataset, "k", message).commit(Durability::Buffered),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{message:?}: {error}");
        }
    }
    assert_eq!(dataset.get("k").unwrap(), None);
    let message = DefaultMessageAction::upsert_msg(1, b"x");
    db.batch().insert_msg(&dataset, "k", message).commit(Durability::Buffered).unwrap();
    assert_eq!(dataset.get("k").unwrap().unwrap(), "\0x");
}
