//! Object stores: against a model, and what each call promises at its limits.
//!
//! `BETREE_SEED` sets the first random history, `BETREE_SEQUENCES` how many there are.

use crate::pools::{Folder, settle, small};
use betree::inspect::{CheckOptions, Outcome, check};
use betree::vdev::SimRng;
use betree::{
    CHUNK_BYTES, Condition, Database, DatabaseConfiguration, Durability, ErrorKind, ListOptions,
    ObjectHandle, ObjectStore, ObjectView, StoragePreference, StoreSnapshot, StoreView,
};
use betree_tests::seeds::Seeds;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;

const CHUNK: u64 = CHUNK_BYTES;

/// An object of the model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Model {
    /// Of all objects ever: a handle knows its object by it.
    number: u64,
    bytes: Vec<u8>,
    metadata: BTreeMap<Vec<u8>, Vec<u8>>,
}

type Names = BTreeMap<Vec<u8>, Model>;

/// What a store should hold, with what is open.
struct World {
    configuration: DatabaseConfiguration,
    database: Option<Database>,
    store: Option<ObjectStore>,
    names: Names,
    handles: Vec<(ObjectHandle, u64)>,
    views: Vec<(StoreView, Names)>,
    snapshots: Vec<(String, Names)>,
    versions: BTreeSet<String>,
    numbers: u64,
    rng: SimRng,
    trace: Vec<String>,
}

fn resize_write(bytes: &mut Vec<u8>, data: &[u8], offset: usize) {
    if data.is_empty() {
        return;
    }
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

fn read_view(view: &StoreView) -> Names {
    let mut names = Names::new();
    for object in view.list_objects::<&[u8]>(..) {
        let (name, info) = object.unwrap();
        let object = view.open_object(&name).unwrap().unwrap();
        assert_eq!(object.info(), info);
        names.insert(name, read_object(&object));
    }
    names
}

fn read_object(object: &ObjectView) -> Model {
    let bytes = object.read_all().unwrap();
    assert_eq!(bytes.len() as u64, object.size());
    // Chunks and zeros make the same bytes.
    let mut patched = vec![0; bytes.len()];
    for chunk in object.read_all_chunks() {
        let (range, value) = chunk.unwrap();
        patched[range.start as usize..range.end as usize].copy_from_slice(&value);
    }
    assert!(patched == bytes, "the chunks are not the bytes");
    let metadata = object.iter_metadata().map(|entry| entry.unwrap());
    Model { number: 0, bytes, metadata: metadata.map(|(key, value)| (key, value.to_vec())).collect() }
}

fn without_numbers(names: &Names) -> Names {
    names.iter().map(|(name, model)| (name.clone(), Model { number: 0, ..model.clone() })).collect()
}

fn short(names: &Names) -> String {
    let of = |(name, model): (&Vec<u8>, &Model)| {
        format!("{}: {} bytes, {} keys", name.escape_ascii(), model.bytes.len(), model.metadata.len())
    };
    names.iter().map(of).collect::<Vec<_>>().join("; ")
}

impl World {
    fn new(configuration: DatabaseConfiguration, seed: u64) -> Self {
        let database = Database::build(configuration.clone()).unwrap();
        let store = database.create_object_store("store").unwrap();
        Self {
            configuration,
            database: Some(database),
            store: Some(store),
            names: Names::new(),
            handles: Vec::new(),
            views: Vec::new(),
            snapshots: Vec::new(),
            versions: BTreeSet::new(),
            numbers: 0,
            rng: SimRng::new(seed),
            trace: Vec::new(),
        }
    }

    fn store(&self) -> ObjectStore {
        self.store.clone().unwrap()
    }

    fn name(&mut self) -> Vec<u8> {
        let number = self.rng.below(8);
        [&b"a"[..], b"a/b", b"a/c", b"b", b"b\0", b"\xff\xff", b"dir/x", b"dir/y"][number as usize].to_vec()
    }

    fn existing(&mut self) -> Option<Vec<u8>> {
        let at = (!self.names.is_empty()).then(|| self.rng.index(self.names.len()))?;
        self.names.keys().nth(at).cloned()
    }

    fn data(&mut self) -> Vec<u8> {
        let length = match self.rng.below(10) {
            0 => 0,
            1..6 => 1 + self.rng.below(3000),
            6..8 => 1 + self.rng.below(60_000),
            8 => CHUNK,
            _ => self.rng.below(3 * CHUNK),
        };
        let first = self.rng.next_u64();
        (0..length).map(|at| (first.wrapping_add(at / 7)) as u8 | 1).collect()
    }

    fn offset(&mut self) -> u64 {
        match self.rng.below(4) {
            0 => 0,
            1 => self.rng.below(3) * CHUNK,
            2 => (self.rng.below(3) * CHUNK).saturating_sub(self.rng.below(40)),
            _ => self.rng.below(3 * CHUNK),
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The name of the object that a handle is of; `None` when it is gone.
    fn name_of(&self, number: u64) -> Option<Vec<u8>> {
        self.names.iter().find(|(_, model)| model.number == number).map(|(name, _)| name.clone())
    }

    fn note_version(&mut self, name: &[u8]) {
        let info = self.store().read_object_info(name).unwrap().unwrap();
        assert!(self.versions.insert(info.version.to_string()), "a version that was there before");
    }

    fn step(&mut self) {
        let store = self.store();
        let choice = self.rng.below(100);
        match choice {
            0..12 => {
                let (name, data) = (self.name(), self.data());
                self.trace.push(format!("put {} {}", name.escape_ascii(), data.len()));
                let condition = match (self.rng.below(4), store.read_object_info(&name).unwrap()) {
                    (0, _) => Condition::Absent,
                    (1, Some(info)) => Condition::Matches(info.version),
                    (2, _) => Condition::Present,
                    _ => Condition::Any,
                };
                let there = self.names.contains_key(&name);
                let result = store.put_if(&name, &data, condition);
                match condition {
                    Condition::Absent if there => {
                        assert_eq!(result.unwrap_err().kind(), ErrorKind::AlreadyExists);
                        return;
                    }
                    Condition::Present if !there => {
                        assert_eq!(result.unwrap_err().kind(), ErrorKind::NotFound);
                        return;
                    }
                    _ => assert_eq!(result.unwrap().size, data.len() as u64),
                }
                let number = self.number();
                self.names.insert(name.clone(), Model { number, bytes: data, metadata: BTreeMap::new() });
                self.note_version(&name);
            }
            12..18 => {
                let name = self.name();
                self.trace.push(format!("create or open {}", name.escape_ascii()));
                let handle = match self.rng.below(3) {
                    0 => match store.create_object(&name) {
                        Ok(handle) => {
                            assert!(!self.names.contains_key(&name));
                            handle
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
                            assert!(self.names.contains_key(&name));
                            return;
                        }
                    },
                    1 => store.open_or_create_object_with_pref(&name, StoragePreference::FASTEST).unwrap(),
                    _ => {
                        let opened = store.open_object(&name).unwrap();
                        assert_eq!(opened.is_some(), self.names.contains_key(&name));
                        let Some(opened) = opened else { return };
                        opened
                    }
                };
                let number = match self.names.get(&name) {
                    Some(model) => model.number,
                    None => {
                        let number = self.number();
                        self.names.insert(name.clone(), Model { number, ..Model::default() });
                        number
                    }
                };
                assert_eq!(handle.name(), name);
                if self.handles.len() > 5 {
                    self.handles.remove(0);
                }
                self.handles.push((handle, number));
            }
            18..24 => {
                let name = self.name();
                self.trace.push(format!("delete {}", name.escape_ascii()));
                let deleted = store.delete_object(&name);
                match self.names.remove(&name) {
                    Some(_) => deleted.unwrap(),
                    None => assert_eq!(deleted.unwrap_err().kind(), ErrorKind::NotFound),
                }
            }
            24..30 => {
                let (from, to) = (self.name(), self.name());
                self.trace.push(format!("rename {} {}", from.escape_ascii(), to.escape_ascii()));
                let renamed = store.rename_object(&from, &to);
                match self.names.remove(&from) {
                    Some(model) => {
                        renamed.unwrap();
                        self.names.insert(to, model);
                    }
                    None => assert_eq!(renamed.unwrap_err().kind(), ErrorKind::NotFound),
                }
            }
            30..35 => {
                let (from, to) = (self.name(), self.name());
                self.trace.push(format!("copy {} {}", from.escape_ascii(), to.escape_ascii()));
                let copied = store.copy_object(&from, &to);
                match self.names.get(&from).cloned() {
                    Some(model) => {
                        copied.unwrap();
                        let number = self.number();
                        self.names.insert(to.clone(), Model { number, ..model });
                        self.note_version(&to);
                    }
                    None => assert_eq!(copied.unwrap_err().kind(), ErrorKind::NotFound),
                }
            }
            35..70 => self.step_handle(),
            70..78 => {
                let mut batch = store.batch();
                let mut names = self.names.clone();
                let mut fails = false;
                for _ in 0..1 + self.rng.below(5) {
                    let (name, other, data, offset) = (self.name(), self.name(), self.data(), self.offset());
                    match self.rng.below(6) {
                        0 | 1 => {
                            batch = batch.put(&name, &data);
                            let number = self.number();
                            names.insert(name, Model { number, bytes: data, metadata: BTreeMap::new() });
                        }
                        2 => {
                            batch = batch.write_at(&name, &data, offset);
                            match names.get_mut(&name) {
                                Some(model) => resize_write(&mut model.bytes, &data, offset as usize),
                                None => fails = true,
                            }
                        }
                        3 => {
                            batch = batch.delete(&name);
                            fails |= names.remove(&name).is_none();
                        }
                        4 => {
                            batch = batch.rename(&name, &other);
                            match names.remove(&name) {
                                Some(model) => drop(names.insert(other, model)),
                                None => fails = true,
                            }
                        }
                        _ => {
                            batch = batch.set_metadata(&name, "key", &other);
                            match names.get_mut(&name) {
                                Some(model) => drop(model.metadata.insert(b"key".to_vec(), other)),
                                None => fails = true,
                            }
                        }
                    }
                    if fails {
                        break;
                    }
                }
                self.trace.push(format!("batch of {}, fails {fails}", batch.len()));
                let committed = batch.commit(Durability::Buffered);
                assert_eq!(committed.is_err(), fails, "{committed:?}");
                if !fails {
                    self.names = names;
                }
            }
            78..80 => {
                if self.views.len() > 2 {
                    self.views.remove(0);
                }
                self.views.push((store.view().unwrap(), without_numbers(&self.names)));
            }
            80..84 => {
                if self.snapshots.len() < 3 {
                    let name = format!("s{}", self.number());
                    self.trace.push(format!("snapshot {name}"));
                    store.create_snapshot(&name).unwrap();
                    self.snapshots.push((name, self.names.clone()));
                }
            }
            84..86 => {
                if !self.snapshots.is_empty() {
                    let at = self.rng.index(self.snapshots.len());
                    let (name, _) = self.snapshots.remove(at);
                    self.trace.push(format!("delete snapshot {name}"));
                    store.delete_snapshot(&name).unwrap();
                }
            }
            86..88 => {
                if !self.snapshots.is_empty() {
                    let at = self.rng.index(self.snapshots.len());
                    self.snapshots.truncate(at + 1);
                    let (name, names) = self.snapshots[at].clone();
                    self.trace.push(format!("roll back to {name}"));
                    // A handle goes on when its object had the name that it has now.
                    let before: BTreeMap<u64, Vec<u8>> =
                        self.handles.iter().map(|(handle, number)| (*number, handle.name())).collect();
                    store.rollback(&name, true).unwrap();
                    self.names = names;
                    let kept = self.names.clone();
                    self.handles.retain(|(handle, number)| {
                        let here = kept.get(&before[number]).is_some_and(|model| model.number == *number);
                        if !here {
                            assert_eq!(handle.info().unwrap_err().kind(), ErrorKind::NotFound);
                        }
                        here
                    });
                }
            }
            88..91 => self.compare_pages(),
            91..93 => {
                self.trace.push(String::from("checkpoint, settle"));
                let database = self.database.as_ref().unwrap();
                database.checkpoint().unwrap();
                database.settle().unwrap();
            }
            93..95 => {
                self.trace.push(String::from("reopen"));
                self.handles.clear();
                self.views.clear();
                drop(store);
                self.store = None;
                let database = self.database.take().unwrap();
                if self.rng.chance(1, 2) {
                    database.rename_object_store("store", "other").unwrap();
                    database.rename_object_store("other", "store").unwrap();
                }
                database.close().unwrap();
                let database = Database::build(self.configuration.clone()).unwrap();
                self.store = Some(database.open_object_store("store").unwrap());
                self.database = Some(database);
            }
            95 => self.database.as_ref().unwrap().drop_cache(),
            _ => self.compare(),
        }
    }

    fn step_handle(&mut self) {
        if self.handles.is_empty() || self.rng.chance(1, 4) {
            let Some(name) = self.existing() else { return };
            let handle = self.store().open_object(&name).unwrap().unwrap();
            self.handles.push((handle, self.names[&name].number));
        }
        let at = self.rng.index(self.handles.len());
        let (handle, number) = self.handles[at].clone();
        let (data, offset) = (self.data(), self.offset());
        let name = self.name_of(number);
        let choice = self.rng.below(10);
        self.trace.push(format!("handle {choice} of {name:?}, {} at {offset}", data.len()));
        let Some(name) = name else {
            let gone =
                |result: betree::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::NotFound);
            gone(handle.write_at(&data, offset).map(|_| ()));
            gone(handle.append(&data).map(|_| ()));
            gone(handle.truncate(offset));
            gone(handle.punch_hole(offset, 9));
            gone(handle.set_metadata("key", &data[..data.len().min(9)]));
            gone(handle.get_metadata("key").map(|_| ()));
            gone(handle.info().map(|_| ()));
            gone(handle.read_at(&mut [0; 3], offset).map(|_| ()));
            gone(handle.rename("new"));
            gone(handle.delete());
            return;
        };
        assert_eq!(handle.name(), name);
        let other = self.name();
        let model = self.names.get_mut(&name).unwrap();
        match choice {
            0..4 => {
                assert_eq!(handle.write_at(&data, offset).unwrap(), data.len());
                resize_write(&mut model.bytes, &data, offset as usize);
                if !data.is_empty() {
                    self.note_version(&name);
                }
            }
            4 => {
                assert_eq!(handle.append(&data).unwrap(), model.bytes.len() as u64);
                model.bytes.extend_from_slice(&data);
            }
            5 => {
                handle.truncate(offset).unwrap();
                model.bytes.resize(offset as usize, 0);
                self.note_version(&name);
            }
            6 => {
                let length = data.len() as u64;
                handle.punch_hole(offset, length).unwrap();
                let end = model.bytes.len().min(offset as usize + data.len());
                if let Some(hole) = model.bytes.get_mut(offset as usize..end) {
                    hole.fill(0);
                }
            }
            7 => {
                let value = &data[..data.len().min(500)];
                handle.set_metadata(&other, value).unwrap();
                model.metadata.insert(other.clone(), value.to_vec());
                assert_eq!(handle.get_metadata(&other).unwrap().unwrap(), value);
            }
            8 => {
                handle.delete_metadata(&other).unwrap();
                model.metadata.remove(&other);
                assert_eq!(handle.get_metadata(&other).unwrap(), None);
            }
            _ => {
                handle.rename(&other).unwrap();
                let model = self.names.remove(&name).unwrap();
                self.names.insert(other.clone(), model);
                assert_eq!(handle.name(), other);
            }
        }
        let Some(name) = self.name_of(number) else { return };
        let model = &self.names[&name];
        assert_eq!(handle.size().unwrap(), model.bytes.len() as u64);
        let mut buffer = vec![7; data.len().min(5000) + 1];
        let read = handle.read_at(&mut buffer, offset).unwrap();
        let wanted = model.bytes.get(offset as usize..).unwrap_or_default();
        assert!(buffer[..read] == wanted[..wanted.len().min(buffer.len())], "{:?}", self.trace.last());
    }

    fn compare(&self) {
        let found = read_view(&self.store().view().unwrap());
        let wanted = without_numbers(&self.names);
        assert!(found == wanted, "{}\nwanted, found:\n{}", short(&wanted), short(&found));
        for (view, names) in &self.views {
            assert!(read_view(view) == *names, "a view changed");
        }
        let store = self.store();
        let listed: Vec<String> = store
            .snapshots()
            .unwrap()
            .into_iter()
            .map(|info| String::from_utf8(info.name).unwrap())
            .collect();
        assert_eq!(listed, self.snapshots.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
        for (name, names) in &self.snapshots {
            let snapshot = store.open_snapshot(name).unwrap();
            assert!(read_view(&snapshot.view().unwrap()) == without_numbers(names), "a snapshot changed");
        }
        self.database.as_ref().unwrap().verify().unwrap();
    }

    fn compare_pages(&mut self) {
        let store = self.store();
        let prefixes: [&[u8]; 5] = [b"", b"a", b"a/", b"dir/", b"\xff"];
        let delimiters: [&[u8]; 3] = [b"", b"/", b"/b"];
        let mut options = ListOptions {
            prefix: prefixes[self.rng.index(5)].to_vec(),
            delimiter: delimiters[self.rng.index(3)].to_vec(),
            start_after: if self.rng.chance(1, 3) { self.name() } else { Vec::new() },
            token: None,
            limit: 1 + self.rng.index(3),
        };
        let (mut wanted, mut common) = (Vec::new(), Vec::new());
        for name in self.names.keys() {
            if !name.starts_with(&options.prefix)
                || (!options.start_after.is_empty() && *name <= options.start_after)
            {
                continue;
            }
            let rest = &name[options.prefix.len()..];
            let length = options.delimiter.len();
            let at = rest.windows(length.max(1)).position(|window| window == options.delimiter);
            match at.filter(|_| length > 0) {
                Some(at) => {
                    let prefix = name[..options.prefix.len() + at + length].to_vec();
                    if common.last() != Some(&prefix) {
                        common.push(prefix);
                    }
                }
                None => wanted.push(name.clone()),
            }
        }
        let (mut objects, mut found) = (Vec::new(), Vec::new());
        loop {
            let page = store.list_page(&options).unwrap();
            assert!(page.objects.len() + page.prefixes.len() <= options.limit);
            objects.extend(page.objects.into_iter().map(|(name, _)| name));
            found.extend(page.prefixes);
            let Some(token) = page.token else { break };
            options.token = Some(token);
        }
        assert_eq!((objects, found), (wanted, common), "{options:?}");
    }
}

fn demand_clean(configuration: &DatabaseConfiguration) {
    let options = CheckOptions { deep: true, ..CheckOptions::default() };
    let report = check(configuration, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(report.outcome(), Outcome::Clean);
}

/// Guards every call against a map from names to bytes and metadata, with views, snapshots, rollbacks and reopening.
#[test]
fn stores_hold_what_the_model_holds() {
    let history = |seed: u64| {
        let folder = Folder::new();
        let mut world = World::new(folder.one(192), seed);
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..150 {
                world.step();
            }
            world.compare();
        }));
        if run.is_err() {
            return Err(world.trace.join("\n"));
        }
        let World { configuration, database, store, handles, views, .. } = world;
        drop((handles, views, store));
        database.unwrap().close().unwrap();
        demand_clean(&configuration);
        Ok(())
    };
    Seeds::new(24).run(history).unwrap();
}

/// Guards the cursor as `std::io` knows it.
#[test]
fn a_cursor_reads_writes_and_seeks() {
    let folder = Folder::new();
    let db = Database::build(folder.one(64)).unwrap();
    let store = db.create_object_store("s").unwrap();
    let object = store.create_object("o").unwrap();
    let mut cursor = object.cursor();
    let bytes: Vec<u8> = (0..400_000_u32).map(|at| (at / 3) as u8).collect();
    for part in bytes.chunks(70_000) {
        cursor.write_all(part).unwrap();
    }
    cursor.flush().unwrap();
    assert_eq!(cursor.position(), bytes.len() as u64);
    assert_eq!(cursor.seek(SeekFrom::Start(10)).unwrap(), 10);
    let mut read = Vec::new();
    cursor.read_to_end(&mut read).unwrap();
    assert!(read == bytes[10..]);
    assert_eq!(cursor.seek(SeekFrom::End(-4)).unwrap(), bytes.len() as u64 - 4);
    assert_eq!(cursor.seek(SeekFrom::Current(8)).unwrap(), bytes.len() as u64 + 4);
    assert_eq!(cursor.read(&mut [0; 9]).unwrap(), 0);
    cursor.write_all(b"end").unwrap();
    assert_eq!(object.size().unwrap(), bytes.len() as u64 + 7);
    assert!(cursor.seek(SeekFrom::Current(-(bytes.len() as i64) - 100)).is_err());
    let snapshot: StoreSnapshot = store.create_snapshot("now").unwrap();
    let mut frozen = snapshot.open_object("o").unwrap().unwrap().cursor();
    object.truncate(0).unwrap();
    let mut again = Vec::new();
    frozen.read_to_end(&mut again).unwrap();
    assert!(again.starts_with(&bytes) && again.ends_with(b"\0\0\0\0end"));
    assert_eq!(frozen.write(b"x").unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    object.delete().unwrap();
    assert_eq!(cursor.read(&mut [0; 9]).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

/// Guards objects larger than one batch: put and copied whole, with nothing left behind when that fails.
#[test]
fn objects_larger_than_a_batch_are_put_and_copied_whole() {
    let folder = Folder::new();
    let db = Database::build(small([vec![folder.file("pool.img", 400)]])).unwrap();
    let store = db.create_object_store("s").unwrap();
    let bytes: Vec<u8> = (0..40_u32 << 20).map(|at| (at >> 9) as u8).collect();
    store.put("large", &bytes).unwrap();
    store.open_object("large").unwrap().unwrap().set_metadata("k", "v").unwrap();
    assert!(store.get("large").unwrap().unwrap() == bytes);
    store.copy_object("large", "copy").unwrap();
    assert!(store.get("copy").unwrap().unwrap() == bytes);
    let copy = store.open_object("copy").unwrap().unwrap();
    assert_eq!(copy.get_metadata("k").unwrap().unwrap(), "v");
    let refused = store.put_if("copy", &bytes, Condition::Absent).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert_eq!(db.verify().unwrap().objects, 2);
    // Written in place, it is longer than one piece as well.
    assert_eq!(copy.write_at(&bytes, 12_345).unwrap(), bytes.len());
    let mut part = vec![0; 20 << 20];
    assert_eq!(copy.read_at(&mut part, 12_345 + (15 << 20)).unwrap(), part.len());
    assert!(part == bytes[15 << 20..35 << 20]);
    store.delete_object("copy").unwrap();
    store.delete_object("large").unwrap();
    assert_eq!(db.verify().unwrap().objects, 0);
}

fn kind<T>(result: betree::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// Guards names of stores: their own, beside those of datasets, and one instant for both parts of each.
#[test]
fn stores_are_created_opened_renamed_listed_and_destroyed() {
    let folder = Folder::new();
    let db = Database::build(folder.one(64)).unwrap();
    let dataset = db.create_dataset("x").unwrap();
    assert_eq!(kind(db.open_object_store("x")), Some(ErrorKind::NotFound));
    let store = db.create_object_store("x").unwrap();
    assert_eq!(kind(db.create_object_store("x")), Some(ErrorKind::AlreadyExists));
    assert_eq!(kind(db.create_object_store("")), Some(ErrorKind::InvalidArgument));
    store.put("o", "bytes").unwrap();
    dataset.insert("k", "v").unwrap();
    assert_eq!(db.datasets().unwrap(), [b"x"]);
    assert_eq!(db.object_stores().unwrap(), [b"x"]);
    db.open_or_create_object_store("y").unwrap();
    assert_eq!(kind(db.rename_object_store("x", "y")), Some(ErrorKind::AlreadyExists));
    assert_eq!(kind(db.rename_object_store("z", "y")), Some(ErrorKind::NotFound));
    db.rename_object_store("x", "z").unwrap();
    assert_eq!(store.name(), b"z");
    let handle = store.open_object("o").unwrap().unwrap();
    let view = store.view().unwrap();
    db.destroy_object_store("z").unwrap();
    db.open_dataset("x").unwrap();
    assert_eq!(db.object_stores().unwrap(), [b"y"]);
    assert_eq!(kind(store.put("o", "other")), Some(ErrorKind::NotFound));
    assert_eq!(kind(store.get("o")), Some(ErrorKind::NotFound));
    assert_eq!(kind(store.open_object("o")), Some(ErrorKind::NotFound));
    assert_eq!(kind(store.create_snapshot("s")), Some(ErrorKind::NotFound));
    assert_eq!(store.list_objects::<&[u8]>(..).next().and_then(kind), Some(ErrorKind::NotFound));
    assert_eq!(kind(handle.write_at(b"x", 0)), Some(ErrorKind::NotFound));
    assert_eq!(kind(handle.read_at(&mut [0], 0)), Some(ErrorKind::NotFound));
    assert_eq!(view.get("o").unwrap().unwrap(), b"bytes");
    // Another one of that name has nothing to do with it.
    let again = db.create_object_store("z").unwrap();
    assert_eq!(again.get("o").unwrap(), None);
    assert_eq!(kind(handle.info()), Some(ErrorKind::NotFound));
    db.verify().unwrap();
    let other = db.clone();
    db.close().unwrap();
    assert_eq!(kind(again.put("o", "x")), Some(ErrorKind::Closed));
    assert_eq!(kind(again.get("o")), Some(ErrorKind::Closed));
    assert_eq!(kind(other.object_stores()), Some(ErrorKind::Closed));
}

/// Guards arguments at their limits, and one beyond.
#[test]
fn what_is_too_long_is_refused_and_changes_nothing() {
    use betree::{METADATA_KEY_BYTES_MAX, METADATA_VALUE_BYTES_MAX, OBJECT_BYTES_MAX, OBJECT_NAME_BYTES_MAX};
    let folder = Folder::new();
    let db = Database::build(folder.one(64)).unwrap();
    let store = db.create_object_store("s").unwrap();
    let longest = vec![0xff; OBJECT_NAME_BYTES_MAX];
    let object = store.create_object(&longest).unwrap();
    let too_long = vec![0xff; OBJECT_NAME_BYTES_MAX + 1];
    assert_eq!(kind(store.create_object(&too_long)), Some(ErrorKind::TooLarge));
    assert_eq!(kind(store.put(&too_long, "")), Some(ErrorKind::TooLarge));
    assert_eq!(kind(store.rename_object(&longest, &too_long)), Some(ErrorKind::TooLarge));
    assert_eq!(kind(store.copy_object(&longest, "")), Some(ErrorKind::InvalidArgument));
    assert_eq!(kind(object.rename("")), Some(ErrorKind::InvalidArgument));
    assert_eq!(kind(store.batch().put("", "").commit(Durability::Sync)), Some(ErrorKind::InvalidArgument));
    let (key, value) = (vec![1; METADATA_KEY_BYTES_MAX], vec![2; METADATA_VALUE_BYTES_MAX]);
    object.set_metadata(&key, &value).unwrap();
    assert_eq!(object.get_metadata(&key).unwrap().unwrap(), value);
    let longer = |bytes: &[u8]| [bytes, &[0]].concat();
    assert_eq!(kind(object.set_metadata(longer(&key), "")), Some(ErrorKind::TooLarge));
    assert_eq!(kind(object.set_metadata("k", longer(&value))), Some(ErrorKind::TooLarge));
    assert_eq!(kind(object.write_at(b"xy", OBJECT_BYTES_MAX - 1)), Some(ErrorKind::TooLarge));
    assert_eq!(kind(object.write_at(b"x", u64::MAX)), Some(ErrorKind::TooLarge));
    assert_eq!(kind(object.truncate(OBJECT_BYTES_MAX + 1)), Some(ErrorKind::TooLarge));
    assert_eq!(object.size().unwrap(), 0);
    // A byte at the very end makes the largest object there is, of one chunk.
    object.write_at(b"x", OBJECT_BYTES_MAX - 1).unwrap();
    assert_eq!(object.size().unwrap(), OBJECT_BYTES_MAX);
    assert_eq!(object.read_all_chunks().unwrap().count(), 1);
    assert_eq!(kind(object.append(b"x")), Some(ErrorKind::TooLarge));
    let mut buffer = [7; 9];
    assert_eq!(object.read_at(&mut buffer, OBJECT_BYTES_MAX - 4).unwrap(), 4);
    assert_eq!(buffer, [0, 0, 0, b'x', 7, 7, 7, 7, 7]);
    assert_eq!(object.read_at(&mut buffer, u64::MAX).unwrap(), 0);
    object.punch_hole(0, u64::MAX).unwrap();
    assert_eq!(object.read_all_chunks().unwrap().count(), 0);
    assert_eq!(object.size().unwrap(), OBJECT_BYTES_MAX);
    store.delete_object(&longest).unwrap();
    assert_eq!(db.verify().unwrap().objects, 0);
    let token = ListOptions { token: Some(vec![9]), ..ListOptions::default() };
    assert_eq!(kind(store.list_page(&token)), Some(ErrorKind::InvalidArgument));
}

/// Guards snapshots of stores: of both parts at one instant, with everything that snapshots of datasets have.
/// Guards ids: a rollback that is refused, in a store that was just opened, does not make tickets be given out that no counter
/// on the devices covers.
#[test]
fn a_rollback_that_is_refused_gives_no_id_again() {
    let folder = Folder::new();
    let configuration = folder.one(64);
    let mut ids = Vec::new();
    for round in 0..3_u8 {
        let database = Database::build(configuration.clone()).unwrap();
        let store = database.open_or_create_object_store("store").unwrap();
        assert_eq!(kind(store.rollback("missing", false)), Some(ErrorKind::NotFound));
        let info = store.put([b'a' + round], [round; 100]).unwrap();
        assert!(!ids.contains(&info.id), "{} again, after {ids:?}", info.id);
        ids.push(info.id);
        for earlier in 0..=round {
            assert_eq!(store.get([b'a' + earlier]).unwrap().unwrap()[..], [earlier; 100]);
        }
        drop(store);
        database.verify().unwrap();
        database.close().unwrap();
    }
}

/// Guards sizes: no bytes behind the end make no object longer, alone or in a batch.
#[test]
fn a_write_of_nothing_changes_nothing() {
    let folder = Folder::new();
    let database = Database::build(folder.one(64)).unwrap();
    let store = database.create_object_store("store").unwrap();
    let before = store.put("object", "abc").unwrap();
    let object = store.open_object("object").unwrap().unwrap();
    assert_eq!(object.write_at(&[], 100).unwrap(), 0);
    assert_eq!(object.append(&[]).unwrap(), 3);
    store.batch().write_at("object", [], 100).commit(Durability::Buffered).unwrap();
    assert_eq!(object.info().unwrap(), before);
    assert_eq!(
        kind(store.batch().write_at("missing", [], 0).commit(Durability::Buffered)),
        Some(ErrorKind::NotFound)
    );
}

#[test]
fn snapshots_of_stores_are_held_renamed_cloned_and_promoted() {
    let folder = Folder::new();
    let db = Database::build(folder.one(96)).unwrap();
    let store = db.create_object_store("s").unwrap();
    let bytes = vec![5; 300_000];
    store.put("kept", &bytes).unwrap();
    let monday = store.create_snapshot("monday").unwrap();
    assert_eq!((monday.name(), monday.store_name()), (b"monday".to_vec(), b"s".to_vec()));
    assert_eq!(kind(store.create_snapshot("monday")), Some(ErrorKind::AlreadyExists));
    assert_eq!(kind(store.create_snapshot("mon@day")), Some(ErrorKind::InvalidArgument));
    store.hold_snapshot("monday", "tag").unwrap();
    assert_eq!(kind(store.hold_snapshot("monday", "tag")), Some(ErrorKind::AlreadyExists));
    assert_eq!(kind(store.delete_snapshot("monday")), Some(ErrorKind::Busy));
    assert_eq!(kind(db.destroy_object_store("s")), Some(ErrorKind::Busy));
    store.release_snapshot("monday", "tag").unwrap();
    assert_eq!(kind(store.release_snapshot("monday", "tag")), Some(ErrorKind::NotFound));
    assert_eq!(kind(store.rename_snapshot("monday", "")), Some(ErrorKind::InvalidArgument));
    store.rename_snapshot("monday", "first").unwrap();
    let info = store.snapshots().unwrap().remove(0);
    assert_eq!(info.name, b"first");
    assert!(info.referenced >= bytes.len() as u64, "{info:?}");
    store.delete_object("kept").unwrap();
    store.put("new", "x").unwrap();
    store.create_snapshot("second").unwrap();
    let first = store.open_snapshot("first").unwrap();
    assert!(first.get("kept").unwrap().unwrap() == bytes);
    assert_eq!(first.list_prefix("k").count(), 1);
    assert_eq!(first.read_object_info("new").unwrap(), None);
    assert_eq!(kind(store.rollback("first", false)), Some(ErrorKind::Busy));
    let copy = db.clone_store_snapshot(&first, "copy").unwrap();
    assert_eq!(kind(db.clone_store_snapshot(&first, "copy")), Some(ErrorKind::AlreadyExists));
    assert_eq!(copy.origin().unwrap().unwrap(), (b"s".to_vec(), b"first".to_vec()));
    assert_eq!(kind(store.delete_snapshot("first")), Some(ErrorKind::Busy));
    assert!(copy.get("kept").unwrap().unwrap() == bytes);
    // Ids go on where they were, so that objects of both never mix.
    let ours = copy.put("more", "y").unwrap();
    assert!(ours.id > first.read_object_info("kept").unwrap().unwrap().id);
    copy.promote().unwrap();
    assert_eq!(copy.snapshots().unwrap().len(), 1);
    assert_eq!(store.snapshots().unwrap().len(), 1);
    db.verify().unwrap();
    store.delete_snapshot("second").unwrap();
    db.destroy_object_store("s").unwrap();
    assert_eq!(copy.get("more").unwrap().unwrap(), b"y");
    copy.rollback("first", true).unwrap();
    assert_eq!(copy.list_objects::<&[u8]>(..).count(), 1);
    db.verify().unwrap();
    let configuration = folder.one(96);
    drop((store, copy, monday, first));
    db.close().unwrap();
    demand_clean(&configuration);
    let db = Database::open_read_only(configuration).unwrap();
    let copy = db.open_object_store("copy").unwrap();
    assert!(copy.get("kept").unwrap().unwrap() == bytes);
    let object = copy.open_object("kept").unwrap().unwrap();
    assert_eq!(kind(object.write_at(b"x", 0)), Some(ErrorKind::ReadOnly));
    assert_eq!(kind(copy.put("x", "x")), Some(ErrorKind::ReadOnly));
    assert_eq!(kind(copy.rollback("first", true)), Some(ErrorKind::ReadOnly));
}

/// Guards the promise that a full pool can be emptied: of objects, however small.
#[test]
fn objects_are_deleted_on_a_full_pool() {
    let folder = Folder::new();
    let db = Database::build(folder.one(16)).unwrap();
    let store = db.create_object_store("s").unwrap();
    let bytes: Vec<u8> = (0..70_000_u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
    let mut names = Vec::new();
    for number in 0_u32.. {
        let name = format!("{number:06}");
        let length = [900, 5_000, 70_000][number as usize % 3];
        match store.put(&name, &bytes[..length]) {
            Ok(_) => names.push(name),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::OutOfSpace);
                break;
            }
        }
    }
    assert!(names.len() > 100, "{}", names.len());
    assert_eq!(db.verify().unwrap().objects, names.len() as u64);
    for name in &names {
        store.delete_object(name).unwrap();
    }
    assert_eq!(db.verify().unwrap().objects, 0);
    db.checkpoint().unwrap();
    db.settle().unwrap();
    for name in &names[..names.len() / 2] {
        store.put(name, &bytes[..900]).unwrap();
    }
}

fn with_threads(folder: &Folder, mib: u64) -> DatabaseConfiguration {
    DatabaseConfiguration { background_threads: Some(2), ..folder.one(mib) }
}

/// Guards chunks: none is written behind the delete of its object, whatever happens to the object meanwhile.
#[test]
fn writers_deleters_and_renamers_leave_no_chunk_behind() {
    let folder = Folder::new();
    let db = Database::build(with_threads(&folder, 128)).unwrap();
    let store = db.create_object_store("s").unwrap();
    let names = ["a", "b", "c"];
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let store = store.clone();
            scope.spawn(move || {
                let mut rng = SimRng::new(thread);
                let bytes = vec![thread as u8 + 1; 140_000];
                for _ in 0..150 {
                    let (name, other) = (names[rng.index(3)], names[rng.index(3)]);
                    let length = 1 + rng.index(bytes.len() - 1);
                    let offset = rng.below(3 * CHUNK);
                    let done = match rng.below(8) {
                        0 => store.delete_object(name),
                        1 => store.rename_object(name, other),
                        2 => store.put(name, &bytes[..length]).map(|_| ()),
                        3 => store.copy_object(name, other).map(|_| ()),
                        4 => store
                            .batch()
                            .put(name, &bytes[..length])
                            .write_at(name, &bytes[..9], offset)
                            .commit(Durability::Buffered),
                        _ => store.open_or_create_object(name).and_then(|object| {
                            object.write_at(&bytes[..length], offset)?;
                            object.set_metadata("k", [thread as u8])?;
                            if rng.chance(1, 4) { object.truncate(offset) } else { Ok(()) }
                        }),
                    };
                    assert!(matches!(kind(done), None | Some(ErrorKind::NotFound)));
                }
            });
        }
    });
    let names = read_view(&store.view().unwrap());
    assert_eq!(db.verify().unwrap().objects, names.len() as u64);
    for name in names.keys() {
        store.delete_object(name).unwrap();
    }
    assert_eq!(db.verify().unwrap().objects, 0);
}

/// Guards a write: readers see all of it or nothing, over the ends of chunks too, and a size that is its own.
#[test]
fn readers_see_a_write_whole() {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    let folder = Folder::new();
    let db = Database::build(with_threads(&folder, 128)).unwrap();
    let store = db.create_object_store("s").unwrap();
    let object = store.create_object("o").unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (object, done) = (object.clone(), &done);
            scope.spawn(move || {
                let mut buffer = vec![0; 600_000];
                let mut sizes = 0;
                while !done.load(SeqCst) {
                    let length = object.read_at(&mut buffer, 1000).unwrap();
                    assert!(length >= sizes, "it got shorter");
                    sizes = length;
                    assert!(buffer[..length].iter().all(|byte| *byte == buffer[0]), "half of a write");
                }
            });
        }
        for round in 0..150_usize {
            let bytes = vec![round as u8; 300_000 + round * 1000];
            object.write_at(&bytes, 1000).unwrap();
        }
        done.store(true, SeqCst);
    });
}

/// Guards several who create, append and put conditionally at once: one wins, and nothing of the others is lost.
#[test]
fn of_several_at_once_each_has_its_turn() {
    let folder = Folder::new();
    let db = Database::build(with_threads(&folder, 64)).unwrap();
    let store = db.create_object_store("s").unwrap();
    store.put("counter", 0_u64.to_le_bytes()).unwrap();
    let created = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (store, created) = (store.clone(), &created);
            scope.spawn(move || {
                for round in 0..50 {
                    if store.create_object(format!("o{round}")).is_ok() {
                        created.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    }
                    let log = store.open_or_create_object("log").unwrap();
                    log.append(&[thread; 100]).unwrap();
                    loop {
                        let view = store.view().unwrap();
                        let counter = view.open_object("counter").unwrap().unwrap();
                        let number = u64::from_le_bytes(counter.read_all().unwrap().try_into().unwrap());
                        let condition = Condition::Matches(counter.info().version);
                        match store.put_if("counter", (number + 1).to_le_bytes(), condition) {
                            Ok(_) => break,
                            Err(error) => assert_eq!(error.kind(), ErrorKind::ConditionFailed, "{error}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(created.into_inner(), 50);
    assert_eq!(store.get("counter").unwrap().unwrap(), 200_u64.to_le_bytes());
    let log = store.get("log").unwrap().unwrap();
    assert_eq!(log.len(), 4 * 50 * 100);
    let whole = log.chunks(100).all(|record| record.iter().all(|byte| *byte == record[0]));
    assert!(whole, "an append inside of another one");
    db.verify().unwrap();
}

/// Guards preferences: of the store, of the object, of the write, and by the kind of access.
#[test]
fn objects_go_where_they_are_sent() {
    let folder = Folder::new();
    let mut configuration = small([vec![folder.file("fast.img", 64)], vec![folder.file("slow.img", 64)]]);
    configuration.storage.tiers[1].preferred_access_type = betree::PreferredAccessType::SequentialRead;
    let db = Database::build(configuration).unwrap();
    let store = db.create_object_store("s").unwrap();
    let used = |tier: usize| {
        settle(&db);
        db.checkpoint().unwrap();
        let space = db.free_space_tier()[tier];
        space.total - space.free
    };
    let bytes = vec![1; 2 << 20];
    let before = used(1);
    let slow =
        store.create_object_with_access_type("slow", betree::PreferredAccessType::SequentialRead).unwrap();
    assert_eq!(slow.info().unwrap().preference, StoragePreference::FAST);
    slow.write_at(&bytes, 0).unwrap();
    assert!(used(1) >= before + bytes.len() as u64);
    let before = used(0);
    slow.write_at_with_pref(&bytes, 0, StoragePreference::FASTEST).unwrap();
    assert!(used(0) >= before + bytes.len() as u64);
    let none = store.create_object_with_access_type("none", betree::PreferredAccessType::RandomWrite);
    assert_eq!(none.unwrap().info().unwrap().preference, StoragePreference::NONE);
    let before = used(1);
    slow.set_storage_preference(StoragePreference::FASTEST).unwrap();
    slow.append(&bytes).unwrap();
    assert!(used(1) < before + bytes.len() as u64 / 2);
    let before = used(1);
    let far = db.create_object_store_with_pref("far", StoragePreference::FAST).unwrap();
    assert_eq!(far.storage_preference(), StoragePreference::FAST);
    far.put("o", &bytes).unwrap();
    assert!(used(1) >= before + bytes.len() as u64 / 2);
}

/// Guards versions and ids: a store that goes back to a snapshot does not give those again that were given since.
#[test]
fn a_rollback_gives_no_version_again() {
    let folder = Folder::new();
    let configuration = folder.one(64);
    let open = || Database::build(configuration.clone()).unwrap();
    let db = open();
    let store = db.create_object_store("s").unwrap();
    let mut versions = BTreeSet::new();
    let mut put = |store: &ObjectStore| {
        let info = store.put("o", "x").unwrap();
        assert!(versions.insert(info.version.to_string()), "{info:?}");
        assert!(versions.insert(format!("id {}", info.id)), "{info:?}");
    };
    put(&store);
    store.create_snapshot("before").unwrap();
    drop(store);
    db.close().unwrap();
    // Another life reserves other numbers.
    let db = open();
    let store = db.open_object_store("s").unwrap();
    put(&store);
    store.rollback("before", true).unwrap();
    drop(store);
    db.close().unwrap();
    demand_clean(&configuration);
    let db = open();
    let store = db.open_object_store("s").unwrap();
    assert_eq!(store.list_objects::<&[u8]>(..).count(), 1);
    put(&store);
    store.rollback("before", true).unwrap();
    put(&store);
    db.verify().unwrap();
}

/// Guards versions: one that was seen, and was lost with its write in a crash, is not given to other bytes.
#[test]
fn a_crash_gives_no_version_again() {
    use betree::vdev::{SimClock, SimDisk};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    let disk = SimDisk::new("a", 16 << 20, &SimClock::new(1));
    let plugged = |pulled: &Arc<AtomicBool>| {
        small([vec![betree::LeafVdev::from(betree_tests::rig::Plug::device(&disk, pulled)).into()]])
    };
    let pulled = Arc::default();
    let db = Database::create_with(plugged(&pulled), false).unwrap();
    db.create_object_store("s").unwrap();
    db.sync().unwrap();
    let mut versions = BTreeSet::new();
    drop(db);
    for _ in 0..3 {
        let pulled = Arc::default();
        let db = Database::open_with(plugged(&pulled)).unwrap();
        let store = db.open_object_store("s").unwrap();
        assert_eq!(store.read_object_info("o").unwrap(), None);
        let version = store.put("o", "x").unwrap().version.to_string();
        assert!(versions.insert(version));
        // Nothing of it reaches the disk any more.
        pulled.store(true, SeqCst);
    }
}

/// Guards moving objects: all of one or a part, with what is written afterwards or without, and bytes that stay.
#[test]
fn objects_are_migrated_up_down_once_and_in_parts() {
    let folder = Folder::new();
    let configuration = small([vec![folder.file("a.img", 64)], vec![], vec![folder.file("c.img", 64)]]);
    let db = Database::build(configuration).unwrap();
    let store = db.create_object_store("s").unwrap();
    let used = |tier: usize| {
        settle(&db);
        db.checkpoint().unwrap();
        let space = db.free_space_tier()[tier];
        space.total - space.free
    };
    let bytes: Vec<u8> = (0..3_u32 << 20).map(|at| (at >> 8) as u8).collect();
    let half = bytes.len() as u64 / 2;
    store.put("o", &bytes).unwrap();
    let object = store.open_object("o").unwrap().unwrap();
    let version = object.info().unwrap().version;
    let slow = used(2);
    assert!(object.migrate(StoragePreference::SLOW).unwrap().bytes >= bytes.len() as u64);
    assert_eq!(object.info().unwrap().preference, StoragePreference::SLOW);
    assert!(used(2) >= slow + half);
    // There is nothing below it, and only the fastest above.
    object.migrate_down().unwrap();
    assert_eq!(object.info().unwrap().preference, StoragePreference::SLOW);
    object.migrate_up().unwrap();
    object.migrate_up().unwrap();
    assert_eq!(object.info().unwrap().preference, StoragePreference::FASTEST);
    assert!(used(2) < slow + half);
    object.migrate_once(StoragePreference::SLOW).unwrap();
    assert_eq!(object.info().unwrap().preference, StoragePreference::FASTEST);
    assert!(used(2) >= slow + half);
    object.migrate_once(StoragePreference::FASTEST).unwrap();
    let moved = object.migrate_range(CHUNK + 5, CHUNK, StoragePreference::SLOW).unwrap();
    assert_eq!(moved.entries, 2);
    assert_eq!(object.migrate_range(u64::MAX, 9, StoragePreference::SLOW).unwrap().entries, 0);
    assert_eq!(kind(object.migrate(StoragePreference::FAST)), Some(ErrorKind::InvalidArgument));
    assert_eq!(object.info().unwrap().preference, StoragePreference::FASTEST);
    assert_eq!(object.info().unwrap().version, version);
    assert!(object.read_all().unwrap() == bytes);
    object.delete().unwrap();
    assert_eq!(kind(object.migrate(StoragePreference::SLOW)), Some(ErrorKind::NotFound));
    assert_eq!(kind(object.migrate_once(StoragePreference::SLOW)), Some(ErrorKind::NotFound));
    db.verify().unwrap();
}
