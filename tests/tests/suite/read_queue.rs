//! Reads that one thread has under way at once: they give what was there when they began.

use super::pools::{Folder, settle, small};
use betree::vdev::SimRng;
use betree::{
    BegunRead, Database, Dataset, DatasetConfiguration, ErrorKind, FileLeaf, LeafVdev, PartRead, ReadQueue,
    Vdev,
};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A queue, or `None` after saying that the system has none; with `BETREE_CHECK` set that is a failure.
fn queue(depth: u32) -> Option<ReadQueue> {
    let queue = ReadQueue::new(depth);
    if !queue.is_available() {
        assert!(std::env::var_os("BETREE_CHECK").is_none(), "this system has no io_uring");
        println!("left out: this system has no io_uring");
        return None;
    }
    Some(queue)
}

fn blocks(database: &Database, large_value_size: usize) -> Dataset {
    let default = database.configuration().default_dataset.clone();
    let configuration = DatasetConfiguration { large_value_size, ..default };
    database.create_dataset_with("blocks", &configuration).unwrap();
    database.open_dataset("blocks").unwrap()
}

fn value(rng: &mut SimRng, length: usize) -> Vec<u8> {
    (0..length.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).take(length).collect()
}

fn key(number: u64) -> Vec<u8> {
    format!("key{number:04}").into_bytes()
}

/// What a read of `length` bytes from `offset` gives of `whole`.
fn expected(whole: Option<&Vec<u8>>, offset: usize, length: usize) -> Option<(PartRead, Vec<u8>)> {
    let whole = whole?;
    let part = whole.get(offset..).unwrap_or_default();
    let part = &part[..part.len().min(length)];
    Some((PartRead { filled: part.len(), value_length: whole.len() as u64 }, part.to_vec()))
}

fn found(read: Option<PartRead>, buffer: &[u8]) -> Option<(PartRead, Vec<u8>)> {
    read.map(|read| (read, buffer[..read.filled].to_vec()))
}

/// Values of all lengths, with patches and without, are read, overwritten while they are, and their blocks used again.
#[test]
fn what_arrives_is_what_was_there_when_the_read_began() {
    let folder = Folder::new();
    let database = Database::build(folder.one(256)).unwrap();
    let Some(mut queue) = queue(16) else { return };
    let dataset = blocks(&database, 4096);
    let mut rng = SimRng::new(1);
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut waiting = HashMap::new();
    let (mut at_once, mut under_way, mut waits) = (0, 0, 0);
    for round in 0..60 {
        for _ in 0..40 {
            let key = key(rng.below(200));
            match rng.below(10) {
                0 => {
                    dataset.delete(&key).unwrap();
                    model.remove(&key);
                }
                1 => {
                    let (patch, at) = (value(&mut rng, 100), rng.below(3000) as usize);
                    dataset.upsert(&key, &patch, at as u32).unwrap();
                    let whole = model.entry(key).or_default();
                    whole.resize(whole.len().max(at + 100), 0);
                    whole[at..at + 100].copy_from_slice(&patch);
                }
                kind => {
                    let length = [100, 4096, 4096, 10_000, 40_000, 100_000][kind as usize % 6];
                    let whole = value(&mut rng, length);
                    dataset.insert(&key, &whole).unwrap();
                    model.insert(key, whole);
                }
            }
        }
        if round % 4 != 3 {
            settle(&database);
            // Twice: then what died is given out again.
            database.checkpoint().unwrap();
            database.checkpoint().unwrap();
        }
        // Those that nobody sent on their way before are read now.
        queue.wait(usize::MAX, None).unwrap();
        while let Some(arrived) = queue.next_arrived() {
            let (length, wanted) = waiting.remove(&arrived.tag()).unwrap();
            let mut buffer = vec![0xee; length];
            let read = arrived.finish(&mut buffer).unwrap();
            assert!(found(read, &buffer) == wanted, "round {round}");
        }
        if round % 3 == 0 {
            database.drop_cache();
        }
        for step in 0..24 {
            let tag = round * 100 + step;
            let key = key(rng.below(220));
            let (offset, length) = (rng.below(12_000) as usize, rng.below(9000) as usize);
            let (mut buffer, wanted) = (vec![0xee; length], expected(model.get(&key), offset, length));
            match queue.begin(&dataset, &key, offset as u64, &mut buffer, tag).unwrap() {
                BegunRead::Read(read) => {
                    at_once += 1;
                    assert!(found(read, &buffer) == wanted, "round {round}");
                }
                BegunRead::UnderWay => {
                    under_way += 1;
                    waiting.insert(tag, (length, wanted));
                }
                BegunRead::Waits => {
                    waits += 1;
                    let read = dataset.get_part(&key, offset as u64, &mut buffer).unwrap();
                    assert!(found(read, &buffer) == wanted, "round {round}");
                }
            }
        }
        assert_eq!(queue.len(), waiting.len());
        match round % 3 {
            0 => queue.submit().unwrap(),
            1 => queue.wait(usize::MAX, None).unwrap(),
            _ => {}
        }
    }
    assert!(at_once > 100 && under_way > 100 && waits > 50, "{at_once} {under_way} {waits}");
    // What was not taken is waited for, and what holds blocks lets go of them.
    drop(queue);
    drop(dataset);
    database.close().unwrap();
}

/// Holes, patches, ends of objects and streams included.
#[test]
fn parts_of_objects_arrive_as_they_are_read() {
    let folder = Folder::new();
    let database = Database::build(folder.one(256)).unwrap();
    let Some(mut queue) = queue(16) else { return };
    let object = database.create_object_store("s").unwrap().create_object("o").unwrap();
    let mut rng = SimRng::new(2);
    let mut model = vec![0; 3 << 20];
    // The third MiB is a hole, but for its end.
    for (at, length) in [(0, 2 << 20), ((3 << 20) - 70_000, 70_000)] {
        let bytes = value(&mut rng, length);
        object.write_at(&bytes, at as u64).unwrap();
        model[at..at + length].copy_from_slice(&bytes);
    }
    database.checkpoint().unwrap();
    settle(&database);
    let (mut at_once, mut under_way, mut waits) = (0, 0, 0);
    for round in 0..60_u64 {
        if round % 3 == 0 {
            database.drop_cache();
        }
        if round % 10 == 9 {
            let (bytes, at) = (value(&mut rng, 5000), rng.below(1 << 20) as usize);
            object.write_at(&bytes, at as u64).unwrap();
            model[at..at + 5000].copy_from_slice(&bytes);
        }
        let mut waiting = HashMap::new();
        for step in 0..16 {
            let offset = match step % 4 {
                0 => model.len() - rng.below(6000) as usize,
                _ => rng.below(model.len() as u64 + 100) as usize,
            };
            let mut buffer = vec![0xee; rng.below(9000) as usize];
            let left = model.get(offset..).unwrap_or_default();
            let wanted = left[..left.len().min(buffer.len())].to_vec();
            match object.begin_read_at(&mut queue, &mut buffer, offset as u64, step).unwrap() {
                BegunRead::Read(read) => {
                    at_once += 1;
                    let told = PartRead { filled: wanted.len(), value_length: model.len() as u64 };
                    assert!(read == Some(told) && buffer.starts_with(&wanted), "round {round}");
                }
                BegunRead::UnderWay => {
                    under_way += 1;
                    waiting.insert(step, (buffer, wanted));
                }
                BegunRead::Waits => {
                    waits += 1;
                    assert_eq!(object.read_at(&mut buffer, offset as u64).unwrap(), wanted.len());
                    assert!(buffer.starts_with(&wanted), "round {round}");
                }
            }
        }
        queue.wait(16, None).unwrap();
        while let Some(arrived) = queue.next_arrived() {
            let (mut buffer, wanted) = waiting.remove(&arrived.tag()).unwrap();
            let read = arrived.finish(&mut buffer).unwrap();
            let told = PartRead { filled: wanted.len(), value_length: model.len() as u64 };
            assert!(read == Some(told) && buffer.starts_with(&wanted), "round {round}");
        }
        assert!(waiting.is_empty());
    }
    assert!(at_once > 50 && under_way > 50 && waits > 50, "{at_once} {under_way} {waits}");
    // What goes on where the last one ended is a stream, for which there is reading ahead.
    let (mut buffer, at) = ([0; 16 << 10], 12 * (128 << 10));
    database.drop_cache();
    object.read_at(&mut buffer, at).unwrap();
    let mut begin = |offset| object.begin_read_at(&mut queue, &mut buffer, at + offset, 1).unwrap();
    assert_eq!([begin(16 << 10), begin(64 << 10)], [BegunRead::Waits, BegunRead::UnderWay]);
}

/// A small pool is written several times over while a read is under way.
#[test]
fn blocks_that_are_being_read_are_not_used_again() {
    let folder = Folder::new();
    let database = Database::build(folder.one(16)).unwrap();
    let Some(mut queue) = queue(1) else { return };
    let dataset = blocks(&database, 4096);
    let mut rng = SimRng::new(3);
    let whole = value(&mut rng, 4096);
    dataset.insert("wanted", &whole).unwrap();
    settle(&database);
    database.checkpoint().unwrap();
    database.drop_cache();
    let mut buffer = vec![0; 4096];
    dataset.get_part("wanted", 0, &mut []).unwrap();
    assert_eq!(queue.begin(&dataset, "wanted", 0, &mut buffer, 1).unwrap(), BegunRead::UnderWay);
    dataset.delete("wanted").unwrap();
    for round in 0..64 {
        for number in 0..16 {
            dataset.insert(key(number), vec![round; 64 << 10]).unwrap();
        }
        settle(&database);
        database.checkpoint().unwrap();
    }
    assert_eq!(dataset.get("wanted").unwrap(), None);
    queue.wait(1, None).unwrap();
    queue.next_arrived().unwrap().finish(&mut buffer).unwrap();
    assert!(buffer == whole);
}

fn file(path: &Path) -> LeafVdev {
    LeafVdev::File(FileLeaf { direct: false, size: Some(64 << 20), sparse: true, ..FileLeaf::new(path) })
}

/// The block of `path` that starts with `wanted`.
fn find(path: &Path, wanted: &[u8]) -> Option<u64> {
    let whole = std::fs::read(path).unwrap();
    let mut blocks = whole.chunks(4096);
    blocks.position(|block| block.starts_with(wanted)).map(|block| block as u64)
}

fn damage(path: &Path, wanted: &[u8]) {
    let block = find(path, wanted).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[9; 100], block * 4096).unwrap();
}

/// Reads a value of 4 KiB that is on `vdev` alone; `change` happens to that when the read has begun, and is not on its way yet.
fn read_after(vdev: Vdev, change: impl Fn(&[u8])) -> Option<betree::Result<()>> {
    let mut queue = queue(1)?;
    let database = Database::build(small([vec![vdev]])).unwrap();
    let dataset = blocks(&database, 4096);
    let whole = value(&mut SimRng::new(7), 4096);
    for key in ["first", "second", "third"] {
        dataset.insert(key, if key == "second" { whole.clone() } else { vec![1; 4096] }).unwrap();
    }
    settle(&database);
    database.checkpoint().unwrap();
    database.drop_cache();
    // Brings their places in the tree into the cache.
    let mut buffer = vec![0; 4096];
    assert_eq!(queue.begin(&dataset, "second", 0, &mut buffer, 5).unwrap(), BegunRead::Waits);
    dataset.get_part("first", 0, &mut buffer).unwrap();
    assert_eq!(queue.begin(&dataset, "second", 0, &mut buffer, 5).unwrap(), BegunRead::UnderWay);
    assert_eq!(queue.begin(&dataset, "third", 0, &mut buffer, 6).unwrap(), BegunRead::Waits, "it is full");
    change(&whole);
    queue.wait(1, None).unwrap();
    let arrived = queue.next_arrived().unwrap();
    assert_eq!((arrived.tag(), queue.len()), (5, 0));
    let read = arrived.finish(&mut buffer);
    assert!(read.is_err() || buffer == whole, "wrong bytes");
    Some(read.map(|read| assert_eq!(read, Some(PartRead { filled: 4096, value_length: 4096 }))))
}

#[test]
fn damage_of_what_arrives_is_an_error_or_repaired() {
    let folder = Folder::new();
    let [sound, damaged, a, b] = ["sound", "damaged", "a", "b"].map(|name| folder.path(name));
    let Some(read) = read_after(Vdev::Leaf(file(&sound)), |_| ()) else { return };
    read.unwrap();
    let read = read_after(Vdev::Leaf(file(&damaged)), |whole| damage(&damaged, whole)).unwrap();
    let error = read.unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("blocks"), "{error}");
    // One of them is asked.
    let mut repaired = 0;
    for leg in [&a, &b] {
        let change = |whole: &[u8]| damage(leg, whole);
        read_after(Vdev::Mirror(vec![file(&a), file(&b)]), change).unwrap().unwrap();
        repaired += usize::from(find(leg, &value(&mut SimRng::new(7), 4096)).is_some());
        std::fs::remove_file(&a).unwrap();
        std::fs::remove_file(&b).unwrap();
    }
    assert_eq!(repaired, 1);
}

#[test]
fn a_device_that_became_shorter_is_an_error() {
    let folder = Folder::new();
    let path = folder.path("one");
    let cut = |_: &[u8]| {
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
    };
    let Some(read) = read_after(Vdev::Leaf(file(&path)), cut) else { return };
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Io);
}
