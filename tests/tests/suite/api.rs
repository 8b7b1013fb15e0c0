//! What the public types promise: names, ownership, lifetimes, errors. Sizes and ranges are in `limits.rs`.

use crate::pools::{Contents, Folder, contents, seen, settle, small, tiny_dataset};
use betree::{
    AccessMode, Batch, Database, DatabaseConfiguration, DatabaseView, Dataset, DatasetView, Durability,
    Entries, Error, ErrorKind, LeafVdev, MessageAction, StoragePreference, TierConfiguration, Value,
};
use std::sync::Arc;

#[derive(Default)]
struct Nothing;

impl MessageAction for Nothing {
    const NAME: &'static str = "nothing";
    fn apply(&self, _key: &[u8], _message: &[u8], _value: &mut Option<Vec<u8>>) {}
    fn merge(&self, _key: &[u8], _upper: &[u8], _lower: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

fn memory() -> DatabaseConfiguration {
    small([vec![LeafVdev::memory(64 << 20).into()]])
}

/// Guards signatures: a handle that stops being `Clone + Send + Sync`, or an iterator that borrows, breaks callers.
#[test]
fn handles_are_shared_and_iterators_are_sent() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    fn error<T: std::error::Error + Clone + Send + Sync + 'static>() {}
    fn both_ends<T: DoubleEndedIterator<Item = betree::Result<(Value, Value)>>>() {}
    shared::<Database>();
    shared::<Dataset>();
    shared::<Dataset<Nothing>>();
    shared::<DatasetView>();
    shared::<DatabaseView>();
    shared::<Value>();
    sent::<Entries>();
    sent::<Batch>();
    both_ends::<Entries>();
    error::<Error>();
    let _: fn() -> Result<DatabaseConfiguration, betree::ConfigurationError> =
        DatabaseConfiguration::from_env;
}

/// Guards the quick start of the contract, as a newcomer would type it.
#[test]
fn the_quick_start_runs() -> betree::Result<()> {
    let folder = Folder::new();
    let file = format!("{}:64MiB", folder.path("a.img").display());
    let config = DatabaseConfiguration {
        storage: betree::StoragePoolConfiguration {
            tiers: vec![
                TierConfiguration::parse_zfs_like(["mem:16MiB"])?,
                TierConfiguration::parse_zfs_like([file])?,
            ],
            ..Default::default()
        },
        default_storage_class: 1,
        cache_size: 64 << 20,
        access_mode: AccessMode::OpenOrCreate,
        ..Default::default()
    };
    let db = Database::build(config)?;
    let users = db.open_or_create_dataset("users")?;
    users.insert("ada", b"1815")?;
    users.insert_with_pref("alan", b"1912", StoragePreference::FASTEST)?;
    users.upsert("ada", b"!", 4)?;
    assert_eq!(users.get("ada")?.as_deref(), Some(&b"1815!"[..]));
    let mut keys = Vec::new();
    for entry in users.range("a".."b") {
        let (key, _value) = entry?;
        keys.push(key);
    }
    assert_eq!(keys, ["ada", "alan"]);
    assert_eq!(users.prefix("al").count(), 1);
    users.delete("alan")?;
    users.insert("y", "")?;
    users.range_delete("x"..="z")?;
    db.batch().insert(&users, "grace", b"1906").delete(&users, "ada").commit(Durability::Sync)?;
    let view = users.view();
    users.insert("grace", b"?")?;
    assert_eq!(view.get("grace")?.as_deref(), Some(&b"1906"[..]));
    assert_eq!(users.range::<&str>(..).rev().count(), 1);
    db.sync()?;
    db.checkpoint()?;
    let tiers = db.free_space_tier();
    assert!((0.5..1.0).contains(&tiers[1].percent_free()) && tiers[3].percent_full() == 0.0);
    assert!(tiers[1].total > 32 << 20 && tiers[1].free > tiers[1].total / 2 && tiers[3].total == 0);
    db.close()
}

/// Guards the constructors: each opens, creates or refuses as its name says.
#[test]
fn constructors_open_and_create_as_they_say() {
    let folder = Folder::new();
    let storage = folder.one(64).storage;
    assert_eq!(Database::open(storage.clone()).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!folder.path("pool.img").exists(), "opening made a file");
    Database::create(storage.clone()).unwrap().create_dataset("one").unwrap();
    assert_eq!(Database::create(storage.clone()).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let db = Database::open_or_create(storage.clone()).unwrap();
    assert_eq!(db.datasets().unwrap(), [b"one"]);
    db.close().unwrap();
    let mode = |access_mode| DatabaseConfiguration { access_mode, ..folder.one(64) };
    let shared: Arc<Database> = Database::build_threaded(mode(AccessMode::OpenIfExists)).unwrap();
    assert_eq!(shared.datasets().unwrap(), [b"one"]);
    drop(shared);
    let db = Database::build(mode(AccessMode::AlwaysCreateNew)).unwrap();
    assert!(db.datasets().unwrap().is_empty());
}

/// Guards the configuration that is given back: it opens the same database.
#[test]
fn the_configuration_is_written_and_read() {
    let folder = Folder::new();
    let configuration = folder.one(64);
    let db = Database::build(configuration.clone()).unwrap();
    assert_eq!(*db.configuration(), configuration);
    let json = folder.path("config.json");
    db.write_config_json(&json).unwrap();
    db.create_dataset("d").unwrap().insert("k", "v").unwrap();
    drop(db);
    let read = DatabaseConfiguration::from_json_file(&json).unwrap();
    assert_eq!(read, configuration);
    let db = Database::build(read).unwrap();
    assert_eq!(db.open_dataset("d").unwrap().get("k").unwrap().unwrap(), "v");
}

/// Guards the names of datasets: found, taken, renamed, all of it still so after opening again.
#[test]
fn datasets_are_found_by_name() {
    let folder = Folder::new();
    let db = Database::build(folder.one(64)).unwrap();
    let error = db.open_dataset("ghost").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("\"ghost\""), "{error}");
    let one = db.create_dataset("one").unwrap();
    let error = db.create_dataset("one").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("\"one\""), "{error}");
    db.create_dataset("two").unwrap();
    // Opened twice, it is the same dataset.
    let again = db.open_or_create_dataset("one").unwrap();
    one.insert("k", "v").unwrap();
    assert_eq!(again.get("k").unwrap().unwrap(), "v");
    assert_eq!(db.rename_dataset("one", "two").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(db.rename_dataset("ghost", "three").unwrap_err().kind(), ErrorKind::NotFound);
    db.rename_dataset("one", "one").unwrap();
    db.rename_dataset("one", "three").unwrap();
    assert_eq!((one.name(), again.name()), (b"three".to_vec(), b"three".to_vec()));
    again.insert("k", "w").unwrap();
    assert_eq!(one.get("k").unwrap().unwrap(), "w");
    assert_eq!(db.open_dataset("one").unwrap_err().kind(), ErrorKind::NotFound);
    // A name that was given up is free.
    db.create_dataset("one").unwrap();
    drop((one, again));
    db.close().unwrap();
    let db = Database::build(folder.one(64)).unwrap();
    assert_eq!(db.datasets().unwrap(), [&b"one"[..], b"three", b"two"]);
    assert_eq!(db.open_dataset("three").unwrap().get("k").unwrap().unwrap(), "w");
    assert_eq!(db.open_dataset("one").unwrap().get("k").unwrap(), None);
}

/// Guards the small readers of a dataset.
#[test]
fn a_dataset_tells_about_itself() {
    let db = Database::build(memory()).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    assert_eq!(dataset.first_key_value().unwrap(), None);
    assert_eq!(dataset.last_key_value().unwrap(), None);
    for number in 0..2_000u32 {
        dataset.insert(number.to_be_bytes(), number.to_le_bytes()).unwrap();
    }
    settle(&db);
    let (first, last) =
        (dataset.first_key_value().unwrap().unwrap(), dataset.last_key_value().unwrap().unwrap());
    assert_eq!((&*first.0, &*last.0), (&0u32.to_be_bytes()[..], &1999u32.to_be_bytes()[..]));
    assert!(dataset.contains_key(5u32.to_be_bytes()).unwrap() && !dataset.contains_key("no").unwrap());
    let stats = dataset.stats().unwrap();
    assert!(stats.messages >= 2_000 && stats.leaves > 1, "{stats:?}");
    assert!(dataset.tree_dump().unwrap().is_object());
    dataset.sync().unwrap();
    let metrics = db.metrics();
    assert!(metrics.vdevs[0].writes.bytes > 0 && metrics.durable_generation > 0);
    db.drop_cache();
    let before = db.metrics().vdevs[0].reads.requests;
    assert_eq!(dataset.get(7u32.to_be_bytes()).unwrap().unwrap(), 7u32.to_le_bytes());
    assert!(db.metrics().vdevs[0].reads.requests > before, "the cache was not dropped");
}

/// Every call that writes to, or reads from, a dataset.
fn all_calls(db: &Database, dataset: &Dataset) -> Vec<(&'static str, betree::Result<()>)> {
    let pref = StoragePreference::FASTEST;
    let message = betree::DefaultMessageAction::insert_msg(b"v");
    let batch = || db.batch();
    vec![
        ("insert", dataset.insert("k", "v")),
        ("insert_with_pref", dataset.insert_with_pref("k", "v", pref)),
        ("upsert", dataset.upsert("k", "v", 0)),
        ("upsert_with_pref", dataset.upsert_with_pref("k", "v", 0, pref)),
        ("delete", dataset.delete("k")),
        ("range_delete", dataset.range_delete::<&[u8]>(..)),
        ("empty range_delete", dataset.range_delete("b".."a")),
        ("insert_msg", dataset.insert_msg("k", &message)),
        ("insert_msg_with_pref", dataset.insert_msg_with_pref("k", &message, pref)),
        ("batch insert", batch().insert(dataset, "k", "v").commit(Durability::Buffered)),
        ("batch delete", batch().delete(dataset, "k").commit(Durability::Sync)),
        ("batch upsert", batch().upsert(dataset, "k", "v", 0).commit(Durability::Buffered)),
        ("batch message", batch().insert_msg(dataset, "k", &message).commit(Durability::Buffered)),
        ("batch range", batch().range_delete(dataset, "a"..).commit(Durability::Buffered)),
        ("get", dataset.get("k").map(drop)),
        ("contains_key", dataset.contains_key("k").map(drop)),
        ("first_key_value", dataset.first_key_value().map(drop)),
        ("last_key_value", dataset.last_key_value().map(drop)),
        ("range", dataset.range::<&[u8]>(..).collect::<betree::Result<Vec<_>>>().map(drop)),
        ("range backwards", dataset.range("a"..).next_back().transpose().map(drop)),
        ("prefix", dataset.prefix("k").collect::<betree::Result<Vec<_>>>().map(drop)),
        ("stats", dataset.stats().map(drop)),
        ("tree_dump", dataset.tree_dump().map(drop)),
    ]
}

/// Guards against writes into nothing and against reads that find nothing where there was something: a dataset that is
/// gone says so, in every call.
#[test]
fn a_destroyed_dataset_says_so_and_old_views_read_on() {
    for threads in [0, 2] {
        let folder = Folder::new();
        let configuration = DatabaseConfiguration { background_threads: Some(threads), ..folder.one(64) };
        let db = Database::build(configuration).unwrap();
        let dataset = db.create_dataset("gone").unwrap();
        let mut expected = Contents::new();
        for number in 0..3_000u32 {
            let value = vec![number as u8; if number % 500 == 0 { 20_000 } else { 30 }];
            dataset.insert(number.to_be_bytes(), &value).unwrap();
            expected.push((number.to_be_bytes().to_vec(), value));
        }
        let (view, mut entries) = (dataset.view(), dataset.range::<&[u8]>(..));
        assert!(entries.next().unwrap().is_ok());
        db.destroy_dataset("gone").unwrap();
        assert_eq!(db.destroy_dataset("gone").unwrap_err().kind(), ErrorKind::NotFound);
        for (call, result) in all_calls(&db, &dataset) {
            let error = result.expect_err(call);
            assert_eq!(error.kind(), ErrorKind::NotFound, "{call}: {error}");
            assert!(error.to_string().contains("\"gone\""), "{call}: {error}");
        }
        // A new one of that name is another one.
        let new = db.create_dataset("gone").unwrap();
        new.insert("new", "1").unwrap();
        assert_eq!(dataset.get("new").unwrap_err().kind(), ErrorKind::NotFound);
        for _ in 0..4 {
            db.checkpoint().unwrap();
            db.settle().unwrap();
        }
        assert!(seen(&view).unwrap() == expected);
        assert_eq!(entries.filter(|entry| entry.is_ok()).count(), expected.len() - 1);
        drop(view);
        assert_eq!(contents(&new).unwrap(), [(b"new".to_vec(), b"1".to_vec())]);
        db.verify().unwrap();
    }
}

/// Guards against writes that are lost because nobody writes the last checkpoint any more, and against a second opener
/// while something of the first is still around.
#[test]
fn after_close_every_handle_says_closed() {
    for threads in [0, 2] {
        let folder = Folder::new();
        let configuration = DatabaseConfiguration { background_threads: Some(threads), ..folder.one(64) };
        let db = Database::build(configuration.clone()).unwrap();
        let dataset = db.create_dataset("d").unwrap();
        for number in 0..2_000u32 {
            dataset.insert(number.to_be_bytes(), [7; 40]).unwrap();
        }
        let expected = contents(&dataset).unwrap();
        let (other, database_view) = (db.clone(), db.view());
        db.close().unwrap();
        for (call, result) in all_calls(&other, &dataset) {
            assert_eq!(result.expect_err(call).kind(), ErrorKind::Closed, "{call}");
        }
        let closed: Vec<(&str, betree::Result<()>)> = vec![
            ("sync", other.sync()),
            ("dataset sync", dataset.sync()),
            ("checkpoint", other.checkpoint()),
            ("verify", other.verify().map(drop)),
            ("settle", other.settle()),
            ("datasets", other.datasets().map(drop)),
            ("root entries", other.root_entries().map(drop)),
            ("open", other.open_dataset("d").map(drop)),
            ("create", other.create_dataset("e").map(drop)),
            ("open or create", other.open_or_create_dataset("e").map(drop)),
            ("rename", other.rename_dataset("d", "e")),
            ("destroy", other.destroy_dataset("d")),
            ("empty batch", other.batch().commit(Durability::Sync)),
            ("dataset of a view", database_view.dataset(&dataset).map(drop)),
        ];
        for (call, result) in closed {
            assert_eq!(result.expect_err(call).kind(), ErrorKind::Closed, "{call}");
        }
        // Harmless, and no panic.
        let _ = (other.metrics(), other.free_space_tier(), other.configuration(), other.open_report());
        other.drop_cache();
        other.clone().close().unwrap();

        // The files stay locked as long as something could read them.
        assert_eq!(Database::build(configuration.clone()).unwrap_err().kind(), ErrorKind::Busy);
        drop((other, database_view, dataset));
        let second = Database::build(configuration).unwrap();
        assert_eq!(contents(&second.open_dataset("d").unwrap()).unwrap(), expected);
        second.open_dataset("d").unwrap().insert("more", "").unwrap();
        second.verify().unwrap();
    }
}

/// Guards the close by drop: any handle keeps the database open, the last one writes everything and lets go.
#[test]
fn dropping_the_last_handle_closes() {
    let folder = Folder::new();
    let db = Database::build(folder.one(64)).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    let batch = db.batch().insert(&dataset, "batch", "1");
    drop(db);
    dataset.insert("k", "v").unwrap();
    assert_eq!(Database::build(folder.one(64)).unwrap_err().kind(), ErrorKind::Busy);
    drop(dataset);
    batch.commit(Durability::Buffered).unwrap();
    let db = Database::build(folder.one(64)).unwrap();
    // Nothing was left to the log.
    assert!(!db.open_report().unwrap().rolled_back);
    let found = contents(&db.open_dataset("d").unwrap()).unwrap();
    assert_eq!(found, [(b"batch".to_vec(), b"1".to_vec()), (b"k".to_vec(), b"v".to_vec())]);
}

/// Guards values, views and iterators that outlive the database: they go on reading what they saw, and as long as they do,
/// nobody else gets at the files and writes something else into the same places.
#[test]
fn values_and_views_outlive_the_database() {
    for close in [false, true] {
        let folder = Folder::new();
        let db = Database::build(folder.one(64)).unwrap();
        let dataset = db.create_dataset("d").unwrap();
        for number in 0..2_000u32 {
            let length = 100 + (number % 10) as usize * 3_000;
            dataset.insert(number.to_be_bytes(), vec![number as u8; length]).unwrap();
        }
        settle(&db);
        let expected = contents(&dataset).unwrap();
        let value = dataset.get(9u32.to_be_bytes()).unwrap().unwrap();
        let (view, mut entries) = (dataset.view(), dataset.range::<&[u8]>(..));
        entries.next().unwrap().unwrap();
        db.drop_cache();
        if close {
            db.close().unwrap();
            drop(dataset);
        } else {
            drop((dataset, db));
        }
        assert_eq!(Database::build(folder.one(64)).unwrap_err().kind(), ErrorKind::Busy);
        assert!(seen(&view).unwrap() == expected);
        drop(view);
        assert_eq!(Database::build(folder.one(64)).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(entries.map(Result::unwrap).count(), expected.len() - 1);
        let db = Database::build(folder.one(64)).unwrap();
        db.open_dataset("d").unwrap().range_delete::<&[u8]>(..).unwrap();
        settle(&db);
        drop(db);
        assert!(*value == vec![9; 27_100]);
        assert_eq!(value.clone().as_ptr(), value.as_ptr(), "a clone copies");
    }
}

/// Guards against a batch that lands in the wrong database.
#[test]
fn a_batch_takes_datasets_of_its_database_only() {
    let (one, two) = (Database::build(memory()).unwrap(), Database::build(memory()).unwrap());
    let (mine, other) = (one.create_dataset("d").unwrap(), two.create_dataset("d").unwrap());
    let batches = [
        one.batch().insert(&mine, "k", "v").insert(&other, "k", "v"),
        one.batch().insert(&mine, "k", "v").delete(&other, "k"),
        one.batch().insert(&mine, "k", "v").upsert(&other, "k", "v", 1),
        one.batch().insert(&mine, "k", "v").insert_msg(&other, "k", [0]),
        one.batch().insert(&mine, "k", "v").range_delete::<_, &[u8]>(&other, ..),
        one.batch().range_delete(&other, "z".."a").insert(&mine, "k", "v"),
    ];
    for batch in batches {
        let error = batch.commit(Durability::Buffered).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().starts_with("dataset"), "{error}");
    }
    assert_eq!((mine.get("k").unwrap(), other.get("k").unwrap()), (None, None));
    // A clone of the handle is the same database.
    one.clone().batch().insert(&mine, "k", "v").commit(Durability::Buffered).unwrap();
    assert!(one.batch().is_empty() && one.batch().insert(&mine, "k", "v").len() == 1);
    one.batch().commit(Durability::Sync).unwrap();
}

/// Guards against half a batch: the first mistake refuses all of it, whatever comes later.
#[test]
fn a_batch_with_a_mistake_changes_nothing() {
    let db = Database::build(memory()).unwrap();
    let (one, two) = (db.create_dataset("one").unwrap(), db.create_dataset("two").unwrap());
    let long = vec![0; betree::KEY_BYTES_MAX + 1];
    let error = db
        .batch()
        .insert(&one, "k", "v")
        .insert(&two, &long, "v")
        .insert(&two, "k", vec![0; betree::VALUE_BYTES_MAX + 1])
        .commit(Durability::Sync)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().starts_with("key "), "the first mistake is told: {error}");
    db.destroy_dataset("two").unwrap();
    let error =
        db.batch().insert(&one, "k", "v").insert(&two, "k", "v").commit(Durability::Sync).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(contents(&one).unwrap(), Contents::new());
    // Within a batch the order is that of the calls.
    db.batch()
        .insert(&one, "a", "1")
        .range_delete(&one, "a"..="b")
        .insert(&one, "b", "2")
        .upsert(&one, "b", "!", 1)
        .insert(&one, "c", "3")
        .delete(&one, "c")
        .commit(Durability::Buffered)
        .unwrap();
    assert_eq!(contents(&one).unwrap(), [(b"b".to_vec(), b"2!".to_vec())]);
}

/// Guards views of all datasets: one instant, found by the dataset and not by a name that may have moved on.
#[test]
fn a_view_of_all_datasets_is_one_instant() {
    let db = Database::build(memory()).unwrap();
    let (one, two) = (db.create_dataset("one").unwrap(), db.create_dataset("two").unwrap());
    db.batch().insert(&one, "k", "1").insert(&two, "k", "2").commit(Durability::Buffered).unwrap();
    let view = db.view();
    db.batch().insert(&one, "k", "x").insert(&two, "k", "x").commit(Durability::Buffered).unwrap();
    let late = db.create_dataset("late").unwrap();
    db.rename_dataset("one", "old one").unwrap();
    db.rename_dataset("two", "one").unwrap();
    assert_eq!(view.dataset(&one).unwrap().get("k").unwrap().unwrap(), "1");
    assert_eq!(view.dataset(&two).unwrap().get("k").unwrap().unwrap(), "2");
    assert_eq!(view.dataset_named("one").unwrap().get("k").unwrap().unwrap(), "1");
    assert_eq!(view.dataset_named("two").unwrap().get("k").unwrap().unwrap(), "2");
    let error = view.dataset(&late).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("\"late\""), "{error}");
    // Destroyed and made again, it is another dataset; the view has the old one.
    db.destroy_dataset("one").unwrap();
    let again = db.create_dataset("two").unwrap();
    assert_eq!(view.dataset(&two).unwrap().get("k").unwrap().unwrap(), "2");
    assert_eq!(view.dataset(&again).unwrap_err().kind(), ErrorKind::NotFound);
    let other = Database::build(memory()).unwrap();
    let foreign = other.create_dataset("one").unwrap();
    assert!(view.dataset(&foreign).is_err(), "a dataset of another database was found");
}

/// Guards iterators in the hands of other threads while everything they read is overwritten.
#[test]
fn an_iterator_is_one_state_while_writers_go_on() {
    let folder = Folder::new();
    let configuration = DatabaseConfiguration { background_threads: Some(2), ..folder.one(64) };
    let db = Database::build(configuration).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    for number in 0..5_000u32 {
        dataset.insert(number.to_be_bytes(), [1; 30]).unwrap();
    }
    let readers: Vec<_> = (0..3)
        .map(|reader| {
            let mut entries = dataset.range::<&[u8]>(..);
            std::thread::spawn(move || {
                let (mut front, mut back) = (Vec::new(), Vec::new());
                loop {
                    let backwards = reader == 1 || (reader == 2 && (front.len() + back.len()) % 3 == 0);
                    let next = if backwards { entries.next_back() } else { entries.next() };
                    let Some(next) = next else { break };
                    let (key, value) = next.unwrap();
                    assert_eq!(value, [1; 30]);
                    if backwards { back.push(key) } else { front.push(key) }
                }
                assert!(entries.next().is_none() && entries.next_back().is_none(), "an end came back");
                back.reverse();
                front.extend(back);
                front
            })
        })
        .collect();
    dataset.range_delete(100u32.to_be_bytes()..2_000u32.to_be_bytes()).unwrap();
    for number in (0..5_000u32).rev() {
        dataset.insert(number.to_be_bytes(), [2; 60]).unwrap();
        if number % 1_000 == 0 {
            db.checkpoint().unwrap();
            db.drop_cache();
        }
    }
    dataset.range_delete::<&[u8]>(..).unwrap();
    settle(&db);
    for reader in readers {
        let keys = reader.join().unwrap();
        assert!(keys.iter().map(|key| &**key).eq((0..5_000u32).map(u32::to_be_bytes).collect::<Vec<_>>()));
    }
    assert_eq!(contents(&dataset).unwrap(), Contents::new());
}

/// Guards read-only databases: every write is refused and no byte changes.
#[test]
fn a_read_only_database_reads() {
    let folder = Folder::new();
    let db = Database::build(folder.one(64)).unwrap();
    db.create_dataset("d").unwrap().insert("k", "v").unwrap();
    db.checkpoint().unwrap();
    db.open_dataset("d").unwrap().insert("in the log", "1").unwrap();
    db.sync().unwrap();
    let crashed = folder.bytes();
    drop(db);
    std::fs::write(folder.path("pool.img"), &crashed[0].1).unwrap();
    let db = Database::open_read_only(folder.one(64)).unwrap();
    let dataset = db.open_dataset("d").unwrap();
    let all = contents(&dataset).unwrap();
    assert_eq!(all.len(), 2);
    for (call, result) in all_calls(&db, &dataset).into_iter().take(14) {
        assert_eq!(result.expect_err(call).kind(), ErrorKind::ReadOnly, "{call}");
    }
    let refused: Vec<(&str, betree::Result<()>)> = vec![
        ("create", db.create_dataset("e").map(drop)),
        ("open or create", db.open_or_create_dataset("e").map(drop)),
        ("rename", db.rename_dataset("d", "e")),
        ("destroy", db.destroy_dataset("d")),
        ("sync", db.sync()),
        ("checkpoint", db.checkpoint()),
    ];
    for (call, result) in refused {
        assert_eq!(result.expect_err(call).kind(), ErrorKind::ReadOnly, "{call}");
    }
    db.settle().unwrap();
    assert_eq!(contents(&db.open_or_create_dataset("d").unwrap()).unwrap(), all);
    drop(dataset);
    db.close().unwrap();
    assert!(folder.bytes() == crashed);
}

/// Guards the causes of errors: the one of the operating system is at the end of the chain.
#[test]
fn errors_have_their_causes() {
    fn of_system(error: &Error) -> Option<std::io::ErrorKind> {
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<std::io::Error>() {
                return Some(error.kind());
            }
            // Errors that can be cloned share their cause.
            if let Some(error) = error.downcast_ref::<Arc<std::io::Error>>() {
                return Some(error.kind());
            }
            cause = error.source();
        }
        None
    }
    let folder = Folder::new();
    let absent = DatabaseConfiguration::from_json_file(folder.path("absent.json")).unwrap_err();
    assert!(absent.to_string().contains("absent.json"), "{absent}");
    assert_eq!(of_system(&absent.into()), Some(std::io::ErrorKind::NotFound));
    let homeless = Database::build(small([vec![folder.file("no folder/pool.img", 64)]])).unwrap_err();
    assert!(homeless.to_string().contains("no folder/pool.img"), "{homeless}");
    assert_eq!(of_system(&homeless), Some(std::io::ErrorKind::NotFound));
}

/// Guards the shape of a dataset that is created with one: checked, named in the error, kept.
#[test]
fn a_dataset_of_no_legal_shape_is_not_created() {
    let db = Database::build(memory()).unwrap();
    let wrong = betree::DatasetConfiguration { fanout: 1, ..tiny_dataset() };
    let error = db.create_dataset_with("d", &wrong).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("fanout"), "{error}");
    assert!(db.datasets().unwrap().is_empty());
}
