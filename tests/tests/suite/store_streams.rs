//! Object stores that are sent and received: what arrives is what was sent, and nothing else changes anything.
//!
//! `BETREE_SEED` sets the first random history, `BETREE_REPLICATION_HISTORIES` how many there are.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use crate::pools::{Folder, contents, small};
use betree::inspect::{CheckOptions, Outcome, check};
use betree::vdev::SimRng;
use betree::{
    CHUNK_BYTES, Database, DatabaseConfiguration, Dataset, Error, ErrorKind, LeafVdev, ObjectStore,
    ReceiveOptions, ReceiveReport, SendOptions, SendPart, Snapshot, StoragePreference, StoreSnapshot,
    StoreView, StreamError, StreamInfo, StreamKind,
};
use betree_tests::rig::number_from_environment;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

const PLAIN: ReceiveOptions = ReceiveOptions { force: false };
const FORCE: ReceiveOptions = ReceiveOptions { force: true };

fn memory(mib: u64) -> DatabaseConfiguration {
    small([vec![LeafVdev::memory(mib << 20).into()]])
}

fn built(configuration: &DatabaseConfiguration) -> Database {
    Database::build(configuration.clone()).unwrap()
}

/// Version, preference, bytes and custom metadata of an object.
type Object = (String, StoragePreference, Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>);
type Objects = BTreeMap<Vec<u8>, Object>;

fn seen(view: &StoreView) -> Objects {
    let read = |object: betree::Result<(Vec<u8>, betree::ObjectInfo)>| {
        let (name, info) = object.unwrap();
        let object = view.open_object(&name).unwrap().unwrap();
        let metadata = object.iter_metadata().map(|entry| entry.unwrap());
        let metadata = metadata.map(|(key, value)| (key, value.to_vec())).collect();
        (name, (info.version.to_string(), info.preference, object.read_all().unwrap(), metadata))
    };
    view.list_objects::<&[u8]>(..).map(read).collect()
}

fn of_store(store: &ObjectStore) -> Objects {
    seen(&store.view().unwrap())
}

fn of_snapshot(snapshot: &StoreSnapshot) -> Objects {
    seen(&snapshot.view().unwrap())
}

/// All that a store is to those who read it.
type Whole = (Vec<(Vec<u8>, String, std::time::SystemTime, Objects)>, Objects);

fn whole(store: &ObjectStore) -> Whole {
    let snapshots = store.snapshots().unwrap().into_iter().map(|info| {
        let snapshot = store.open_snapshot(&info.name).unwrap();
        assert_eq!(snapshot.guid(), info.guid);
        (info.name, info.guid, info.created, of_snapshot(&snapshot))
    });
    (snapshots.collect(), of_store(store))
}

fn sent(snapshot: &StoreSnapshot, from: Option<&StoreSnapshot>) -> Vec<u8> {
    let mut stream = Vec::new();
    let report = snapshot.send(from, &SendOptions::default(), &mut stream).unwrap();
    assert_eq!(report.bytes, stream.len() as u64);
    stream
}

fn received(database: &Database, name: &str, stream: &[u8]) -> betree::Result<ReceiveReport> {
    database.receive(name, &PLAIN, &mut &stream[..])
}

fn demand_clean(configuration: &DatabaseConfiguration, context: &str) {
    let options = CheckOptions { deep: true, ..CheckOptions::default() };
    let report = check(configuration, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings, Vec::<String>::new(), "{context}");
    assert_eq!(report.outcome(), Outcome::Clean, "{context}");
}

fn bytes(rng: &mut SimRng, length: u64) -> Vec<u8> {
    let mut bytes = vec![rng.next_u64() as u8; length as usize];
    if rng.chance(1, 2) {
        bytes.iter_mut().for_each(|byte| *byte = rng.next_u64() as u8);
    }
    bytes
}

/// Changes of every kind.
fn write_some(store: &ObjectStore, rng: &mut SimRng, count: u64) {
    let name = |rng: &mut SimRng| format!("object{:02}", rng.below(40));
    for _ in 0..1 + rng.below(count) {
        let at = name(rng);
        let length = [rng.below(400), rng.below(30_000), CHUNK_BYTES + rng.below(20_000)][rng.index(3)];
        let data = bytes(rng, length);
        let Some(object) = store.open_object(&at).unwrap() else {
            store.put(&at, data).unwrap();
            continue;
        };
        match rng.below(10) {
            0..3 => drop(store.put(&at, data).unwrap()),
            3..5 => drop(object.write_at(&data, rng.below(2 * CHUNK_BYTES)).unwrap()),
            5 => object.truncate(length).unwrap(),
            6 => object.set_metadata("key", format!("{length}")).unwrap(),
            7 => store.rename_object(&at, name(rng)).unwrap(),
            8 => drop(store.copy_object(&at, name(rng)).unwrap()),
            _ => store.delete_object(&at).unwrap(),
        }
    }
}

fn tiers(folder: &Folder, name: &str) -> DatabaseConfiguration {
    let file = |leaf: &str| folder.file(&format!("{name}-{leaf}"), 60);
    small([vec![file("fast"), file("second")], vec![file("slow")]])
}

/// Guards the whole way: whole and incremental streams, onward from the replica to a third pool of another layout.
#[test]
fn object_stores_arrive_in_any_pool() {
    let folder = Folder::new();
    let configurations = [folder.one(100), tiers(&folder, "second"), memory(100)];
    let [first, second, third] = configurations.each_ref().map(built);
    let source = first.create_object_store_with_pref("source", StoragePreference::SLOW).unwrap();
    let mut rng = SimRng::new(31);
    let mut snapshots: Vec<StoreSnapshot> = Vec::new();
    for name in ["a", "b", "c"] {
        write_some(&source, &mut rng, 80);
        source.create_object_with_pref(format!("fast-{name}"), StoragePreference::FASTEST).unwrap();
        snapshots.push(source.create_snapshot(name).unwrap());
        let newest = &snapshots[snapshots.len() - 1];
        let stream = sent(newest, snapshots.iter().rev().nth(1));
        assert!(stream == sent(newest, snapshots.iter().rev().nth(1)), "bytes that differ");
        let info = StreamInfo::read(&stream[..]).unwrap();
        let [part] = &info.parts[..] else { panic!("one part: {info:?}") };
        assert_eq!((part.kind, &part.name[..]), (StreamKind::ObjectStore, &b"source"[..]));
        assert_eq!((info.bytes, part.base.is_some()), (stream.len() as u64, name != "a"));
        assert_eq!(part.guid, newest.guid());
        let report = received(&second, "replica", &stream).unwrap();
        assert_eq!((report.puts, report.deletes), (info.puts, info.deletes));
        let [one] = &report.received[..] else { panic!("one part: {report:?}") };
        assert_eq!((one.kind, one.created), (StreamKind::ObjectStore, name == "a"));
        let replica = second.open_object_store("replica").unwrap();
        assert!(whole(&replica) == whole(&source), "{name}");
        assert_eq!(replica.storage_preference(), StoragePreference::SLOW);
    }
    assert_eq!((second.datasets().unwrap().len(), second.object_stores().unwrap().len()), (0, 1));
    let replica = second.open_object_store("replica").unwrap();
    let open = |name: &str| replica.open_snapshot(name).unwrap();
    received(&third, "onward", &sent(&open("b"), None)).unwrap();
    // Behind a snapshot of the first pool what the second one has to send fits as well.
    received(&third, "onward", &sent(&snapshots[2], Some(&open_in(&first, "source", "b")))).unwrap();
    let onward = third.open_object_store("onward").unwrap();
    assert!(of_store(&onward) == of_store(&source));
    // A replica is a store like any other.
    write_some(&onward, &mut rng, 40);
    onward.rollback("c", false).unwrap();
    assert!(of_store(&onward) == of_store(&source));
    third.clone_store_snapshot(&onward.open_snapshot("b").unwrap(), "clone").unwrap();
    third.verify().unwrap();
    let snapshot = snapshots.remove(0);
    assert_eq!(of_snapshot(&snapshot), whole(&replica).0[0].3);
    drop((source, replica, snapshots, snapshot));
    second.verify().unwrap();
    first.close().unwrap();
    second.close().unwrap();
    demand_clean(&configurations[0], "the first pool");
    demand_clean(&configurations[1], "the second pool");
}

fn open_in(database: &Database, store: &str, name: &str) -> StoreSnapshot {
    database.open_object_store(store).unwrap().open_snapshot(name).unwrap()
}

/// Guards W1: whatever is missing or wrong, the store is what it was; and the stream goes on where it was interrupted.
#[test]
fn a_damaged_stream_of_a_store_changes_nothing() {
    let folder = Folder::new();
    let configuration = folder.one(100);
    let first = built(&memory(100));
    let mut second = built(&configuration);
    let source = first.create_object_store("source").unwrap();
    let mut rng = SimRng::new(32);
    write_some(&source, &mut rng, 60);
    let a = source.create_snapshot("a").unwrap();
    write_some(&source, &mut rng, 30);
    // Several frames in both sections.
    for number in 0..8 {
        source.put(format!("large{number}"), bytes(&mut rng, 2 * CHUNK_BYTES)).unwrap();
    }
    for number in 0..3000 {
        source.open_object("large0").unwrap().unwrap().set_metadata(format!("{number:0100}"), "v").unwrap();
    }
    let b = source.create_snapshot("b").unwrap();
    received(&second, "replica", &sent(&a, None)).unwrap();
    let before = whole(&second.open_object_store("replica").unwrap());
    let stream = sent(&b, Some(&a));
    for round in 0..40 {
        let mut bad = stream.clone();
        let at = stream.len() * round / 40;
        if round % 2 == 0 {
            bad.truncate(at)
        } else {
            bad[at] ^= 1 << rng.below(8)
        }
        received(&second, "replica", &bad).unwrap_err();
        assert!(whole(&second.open_object_store("replica").unwrap()) == before, "byte {at}");
    }
    assert_eq!(second.object_stores().unwrap(), [b"replica".to_vec()]);
    second.verify().unwrap();
    // Each time a third of what is left, or a little more than a frame.
    let mut rest = stream.clone();
    let mut interruptions = 0;
    loop {
        // A frame has some 256 KiB: what is cut off before its end is sent again.
        let end = (rest.len() / 3).max(400_000).min(rest.len());
        match received(&second, "replica", &rest[..end]) {
            Ok(_) => break,
            Err(error) => assert!(matches!(error, Error::Stream(StreamError::Truncated { .. })), "{error}"),
        }
        interruptions += 1;
        second.close().unwrap();
        demand_clean(&configuration, "with half a store");
        second = built(&configuration);
        let [unfinished] = &second.unfinished_receives().unwrap()[..] else { panic!("one stream") };
        assert_eq!(unfinished.names, [(StreamKind::ObjectStore, b"replica".to_vec())]);
        assert!(whole(&second.open_object_store("replica").unwrap()) == before);
        let renamed = second.rename_object_store("replica", "other").unwrap_err();
        assert_eq!(renamed.kind(), ErrorKind::Busy, "{renamed}");
        let options = SendOptions { resume: Some(&unfinished.token), ..SendOptions::default() };
        rest.clear();
        b.send(Some(&a), &options, &mut rest).unwrap();
    }
    assert!(interruptions >= 2, "{interruptions} interruptions");
    assert!(whole(&second.open_object_store("replica").unwrap()) == whole(&source));
    // A new one that is not wanted any more.
    received(&second, "new", &sent(&b, None)[..stream.len() / 2]).unwrap_err();
    assert_eq!(second.abort_receive("new").unwrap_err().kind(), ErrorKind::NotFound);
    second.abort_store_receive("new").unwrap();
    assert!(second.unfinished_receives().unwrap().is_empty());
    second.verify().unwrap();
    second.close().unwrap();
    demand_clean(&configuration, "at the end");
}

/// Guards that what is of one instant stays so, and that a dataset and a store of one name are two things.
#[test]
fn datasets_and_stores_of_one_name_arrive_as_one() {
    let (first, second) = (built(&memory(100)), built(&memory(100)));
    let data = first.create_dataset("same").unwrap();
    let store = first.create_object_store("same").unwrap();
    let other = first.create_object_store("other").unwrap();
    let mut rng = SimRng::new(33);
    let mut make = |name: &str| {
        data.insert("in", name).unwrap();
        write_some(&store, &mut rng, 20);
        write_some(&other, &mut rng, 20);
        let (mut datasets, stores) = first.create_snapshots(&[&data], &[&store, &other], name).unwrap();
        (datasets.remove(0), <[StoreSnapshot; 2]>::try_from(stores).unwrap())
    };
    let ((data_a, stores_a), (data_b, stores_b)) = (make("a"), make("b"));
    assert_eq!(data_a.generation(), stores_a[1].generation());
    for wrong in [
        first.create_snapshots(&[&data, &data], &[], "c"),
        first.create_snapshots(&[&data], &[&store, &store], "c"),
    ] {
        assert_eq!(wrong.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    // One of them has it: none is made.
    other.create_snapshot("d").unwrap();
    let exists = first.create_snapshots(&[&data], &[&store, &other], "d").unwrap_err();
    assert_eq!(exists.kind(), ErrorKind::AlreadyExists);
    assert_eq!((data.snapshots().unwrap().len(), store.snapshots().unwrap().len()), (2, 2));
    let stream_of = |of_data: (&Snapshot, Option<&Snapshot>),
                     stores: &[StoreSnapshot; 2],
                     from: Option<&[StoreSnapshot; 2]>| {
        let of_store =
            |at: usize| SendPart::ObjectStore { snapshot: &stores[at], from: from.map(|from| &from[at]) };
        let parts = [of_store(1), SendPart::Dataset { snapshot: of_data.0, from: of_data.1 }, of_store(0)];
        let mut stream = Vec::new();
        first.send(&parts, &SendOptions::default(), &mut stream).unwrap();
        assert_eq!(first.estimate_send(&parts).unwrap().len(), 3);
        stream
    };
    let all = stream_of((&data_a, None), &stores_a, None);
    let since = stream_of((&data_b, Some(&data_a)), &stores_b, Some(&stores_a));
    let mixed = [
        SendPart::ObjectStore { snapshot: &stores_a[0], from: None },
        SendPart::Dataset { snapshot: &data_b, from: None },
    ];
    let instants = first.send(&mixed, &SendOptions::default(), &mut io::sink()).unwrap_err();
    assert_eq!(instants.kind(), ErrorKind::InvalidArgument);
    let names: [&[u8]; 3] = [b"other", b"x", b"x"];
    let receive = |stream: &[u8]| second.receive_all(&names, &PLAIN, &mut &stream[..]);
    let stores_twice = second.receive_all(&[b"x", b"y", b"x"], &PLAIN, &mut &all[..]).unwrap_err();
    assert_eq!(stores_twice.kind(), ErrorKind::InvalidArgument);
    assert_eq!(received(&second, "x", &all).unwrap_err().kind(), ErrorKind::InvalidArgument);
    receive(&all[..all.len() - 1]).unwrap_err();
    let [unfinished] = &second.unfinished_receives().unwrap()[..] else { panic!("one stream") };
    let of = |kind, name: &[u8]| (kind, name.to_vec());
    let expected = [
        of(StreamKind::ObjectStore, b"other"),
        of(StreamKind::Dataset, b"x"),
        of(StreamKind::ObjectStore, b"x"),
    ];
    assert_eq!(unfinished.names, expected);
    assert!(second.datasets().unwrap().is_empty() && second.object_stores().unwrap().is_empty());
    // Any of them ends all.
    second.abort_store_receive("x").unwrap();
    assert!(second.unfinished_receives().unwrap().is_empty());
    receive(&all).unwrap();
    let (x, xs) = (second.open_dataset("x").unwrap(), second.open_object_store("x").unwrap());
    let others = second.open_object_store("other").unwrap();
    assert_eq!(x.open_snapshot("a").unwrap().generation(), xs.open_snapshot("a").unwrap().generation());
    // One of them has changed: none arrives.
    xs.put("mine", "now").unwrap();
    let state = || (contents(&x).unwrap(), whole(&xs), whole(&others));
    let before = state();
    let changed = receive(&since).unwrap_err();
    assert!(matches!(changed, Error::Stream(StreamError::Changed { .. })), "{changed}");
    assert!(state() == before);
    // Numbers that were taken for it are no change.
    xs.delete_object("mine").unwrap();
    receive(&since).unwrap();
    assert_eq!(x.get("in").unwrap().unwrap(), "b");
    assert!(of_store(&xs) == of_snapshot(&stores_b[0]) && of_store(&others) == of_snapshot(&stores_b[1]));
    second.verify().unwrap();
    // A stream of a store goes into no dataset, and one of a dataset into no store.
    let of_store = sent(&stores_b[0], Some(&stores_a[0]));
    second.create_dataset("only").unwrap();
    assert_eq!(received(&second, "only", &of_store).unwrap_err().kind(), ErrorKind::NotFound);
    received(&second, "only", &sent(&stores_a[0], None)).unwrap();
    received(&second, "only", &of_store).unwrap();
    assert!(contents(&second.open_dataset("only").unwrap()).unwrap().is_empty());
}

/// Guards O3 over streams: what was written to a replica is lost with `force` only, its handles end, and no number that was
/// taken there is taken again.
#[test]
fn a_replica_that_was_written_to_goes_back() {
    let folder = Folder::new();
    let configuration = folder.one(100);
    let (first, second) = (built(&memory(100)), built(&configuration));
    let source = first.create_object_store("source").unwrap();
    source.put("kept", "of the source").unwrap();
    source.put("changed", "before").unwrap();
    let a = source.create_snapshot("a").unwrap();
    source.put("new", "of the source").unwrap();
    source.open_object("changed").unwrap().unwrap().write_at(b"after", 0).unwrap();
    let b = source.create_snapshot("b").unwrap();
    received(&second, "replica", &sent(&a, None)).unwrap();
    let replica = second.open_object_store("replica").unwrap();
    let kept = replica.open_object("kept").unwrap().unwrap();
    let mine = replica.create_object("new").unwrap();
    mine.write_at(b"of the replica", 0).unwrap();
    let lost = replica.read_object_info("new").unwrap().unwrap().version;
    let refused = received(&second, "replica", &sent(&b, Some(&a))).unwrap_err();
    assert!(matches!(refused, Error::Stream(StreamError::Changed { .. })), "{refused}");
    assert_eq!(replica.get("new").unwrap().unwrap(), b"of the replica");
    second.receive("replica", &FORCE, &mut &sent(&b, Some(&a))[..]).unwrap();
    assert!(of_store(&replica) == of_store(&source));
    assert_eq!(kept.read_all().unwrap(), b"of the source");
    assert_eq!(replica.get("changed").unwrap().unwrap(), b"aftere");
    // Both objects have one name, and perhaps one number; they are not the same.
    assert_eq!(mine.read_at(&mut [0; 8], 0).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(mine.write_at(b"x", 0).unwrap_err().kind(), ErrorKind::NotFound);
    // The replica goes on numbering where it was, and takes the next changes all the same.
    source.put("more", "of the source").unwrap();
    let c = source.create_snapshot("c").unwrap();
    received(&second, "replica", &sent(&c, Some(&b))).unwrap();
    assert!(of_store(&replica) == of_store(&source));
    second.verify().unwrap();
    // Also when nobody remembers but the devices.
    drop((replica, kept, mine));
    second.close().unwrap();
    let second = built(&configuration);
    let replica = second.open_object_store("replica").unwrap();
    let kept = replica.open_object("kept").unwrap().unwrap();
    replica.put("later", "of the replica").unwrap();
    let later = replica.read_object_info("later").unwrap().unwrap().version;
    assert_ne!(later, lost, "a number is taken twice");
    // Whole, over what is there.
    second.receive("replica", &FORCE, &mut &sent(&a, None)[..]).unwrap();
    assert!(of_store(&replica) == of_snapshot(&a));
    assert_eq!(kept.read_at(&mut [0; 8], 0).unwrap_err().kind(), ErrorKind::NotFound);
    replica.put("last", "of the replica").unwrap();
    let last = replica.read_object_info("last").unwrap().unwrap().version;
    assert!(last != lost && last != later);
    second.verify().unwrap();
}

/// Guards the takeover with work in the background: both datasets change at once for those who read, and for those who write.
#[test]
fn a_store_is_received_beside_its_readers() {
    let configuration = DatabaseConfiguration { background_threads: Some(2), ..memory(100) };
    let (first, second) = (built(&configuration), built(&configuration));
    let source = first.create_object_store("source").unwrap();
    let mut before: Option<StoreSnapshot> = None;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = second.create_object_store("other").unwrap();
            let mut number = 0_u64;
            while !stop.load(Ordering::Acquire) {
                other.put(format!("object{}", number % 50), vec![number as u8; 20_000]).unwrap();
                number += 1;
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                let Ok(replica) = second.open_object_store("replica") else { continue };
                // The record says how long the bytes are, and the metadata what they are.
                let view = replica.view().unwrap();
                let object = view.open_object("object").unwrap().unwrap();
                let number = object.get_metadata("number").unwrap().unwrap();
                let number: u8 = String::from_utf8_lossy(&number).parse().unwrap();
                let bytes = object.read_all().unwrap();
                assert!(
                    bytes.len() == 1000 * usize::from(number) && bytes.iter().all(|byte| *byte == number)
                );
            }
        });
        for round in 1..=15_u8 {
            source.put("object", vec![round; 1000 * usize::from(round)]).unwrap();
            source
                .open_object("object")
                .unwrap()
                .unwrap()
                .set_metadata("number", format!("{round}"))
                .unwrap();
            let snapshot = source.create_snapshot(format!("s{round}")).unwrap();
            received(&second, "replica", &sent(&snapshot, before.as_ref())).unwrap();
            before = Some(snapshot);
        }
        stop.store(true, Ordering::Release);
    });
    let replica = second.open_object_store("replica").unwrap();
    assert!(whole(&replica) == whole(&source));
    // Those who write to the store have their turn before or after, and lose nothing that they were told is there.
    let a = before.unwrap();
    source.put("object", "changed").unwrap();
    let b = source.create_snapshot("last").unwrap();
    let stream = sent(&b, Some(&a));
    let object = replica.open_object("object").unwrap().unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..200).take_while(|_| object.write_at(b"mine", 0).is_ok()).count());
        match second.receive("replica", &PLAIN, &mut &stream[..]) {
            Ok(_) => {}
            Err(error) => assert!(matches!(error, Error::Stream(StreamError::Changed { .. })), "{error}"),
        }
        writer.join().unwrap();
    });
    second.settle().unwrap();
    second.verify().unwrap();
}

/// Guards that preferences of single entries travel: they are what moves with the entry when it is rewritten.
#[test]
fn preferences_of_entries_travel() {
    let folder = Folder::new();
    let (first, second) = (built(&tiers(&folder, "first")), built(&tiers(&folder, "second")));
    let source = first.create_dataset("source").unwrap();
    let slow = vec![7; 3 << 20];
    let used = |database: &Database| database.free_space_tier().map(|tier| tier.total - tier.free);
    for number in 0..3 {
        source.insert_with_pref(format!("slow{number}"), &slow[..1 << 20], StoragePreference::FAST).unwrap();
    }
    source.insert("plain", "value").unwrap();
    let a = source.create_snapshot("a").unwrap();
    source.insert_with_pref("more", &slow[..1 << 20], StoragePreference::FAST).unwrap();
    source.insert_with_pref("patched", &slow[..1 << 20], StoragePreference::FAST).unwrap();
    source.upsert("patched", "patch", 3).unwrap();
    let b = source.create_snapshot("b").unwrap();
    for (snapshot, from) in [(&a, None), (&b, Some(&a))] {
        let before = used(&second);
        let mut stream = Vec::new();
        snapshot.send(from, &SendOptions::default(), &mut stream).unwrap();
        received(&second, "replica", &stream).unwrap();
        second.settle().unwrap();
        second.checkpoint().unwrap();
        let after = used(&second);
        let wanted = if from.is_none() { 3 << 20 } else { 2 << 20 };
        assert!(after[1] - before[1] >= wanted, "{before:?} {after:?}");
        assert!(after[0] - before[0] < 2 << 20, "{before:?} {after:?}");
    }
    let replica: Dataset = second.open_dataset("replica").unwrap();
    assert!(contents(&replica).unwrap() == contents(&source).unwrap());
}

/// Reads so many bytes, and fails.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("the line is dead")),
            length => Ok(length),
        }
    }
}

/// A source, a replica of it, and what is left of a stream.
struct Replication {
    first: Database,
    second: Database,
    configuration: DatabaseConfiguration,
    rng: SimRng,
    /// Names of the snapshots of the source, and whether the replica has them.
    snapshots: Vec<(String, bool)>,
}

impl Replication {
    fn source(&self) -> ObjectStore {
        self.first.open_or_create_object_store("source").unwrap()
    }

    fn reopen(&mut self) {
        self.second.clone().close().unwrap();
        self.second = built(&memory(8));
        demand_clean(&self.configuration, "between");
        self.second = built(&self.configuration);
    }

    fn replica(&self) -> Option<ObjectStore> {
        self.second.open_object_store("replica").ok()
    }

    fn receive(&mut self, snapshot: &StoreSnapshot, from: Option<&StoreSnapshot>, options: &ReceiveOptions) {
        let mut stream = sent(snapshot, from);
        for _ in 0..self.rng.below(3) {
            let before = self.replica().map(|replica| whole(&replica));
            let end = self.rng.index(stream.len());
            self.second.receive("replica", options, &mut Failing(&stream[..end])).unwrap_err();
            if self.rng.chance(1, 2) {
                self.reopen();
            }
            assert!(
                self.replica().map(|replica| whole(&replica)) == before,
                "half a stream changed something"
            );
            stream.clear();
            let unfinished = self.second.unfinished_receives().unwrap();
            let resume = unfinished.first().map(|one| &one.token);
            let token = SendOptions { resume, ..SendOptions::default() };
            snapshot.send(from, &token, &mut stream).unwrap();
        }
        self.second.receive("replica", options, &mut &stream[..]).unwrap();
    }

    fn step(&mut self) {
        let common = self.snapshots.iter().rposition(|(_, there)| *there);
        match self.rng.below(10) {
            0..4 => write_some(&self.source(), &mut self.rng, 25),
            4..6 => {
                let name = format!("s{}", self.snapshots.len());
                self.source().create_snapshot(&name).unwrap();
                self.snapshots.push((name, false));
            }
            6 => self.reopen(),
            7 => {
                if let (Some(replica), Some(at)) = (self.replica(), common) {
                    // Lost with the next stream, or at once.
                    write_some(&replica, &mut self.rng, 20);
                    if self.snapshots.len() > at + 1 {
                        drop(replica);
                        return self.send(common, &FORCE);
                    }
                    replica.rollback(&self.snapshots[at].0, true).unwrap();
                }
            }
            8 if self.rng.chance(1, 3) && !self.snapshots.is_empty() => {
                // All over again.
                self.snapshots.iter_mut().for_each(|(_, there)| *there = false);
                self.send(None, &FORCE);
            }
            _ => self.send(common, &PLAIN),
        }
    }

    fn send(&mut self, common: Option<usize>, options: &ReceiveOptions) {
        let later = common.map_or(0, |at| at + 1)..self.snapshots.len();
        if later.is_empty() {
            return;
        }
        let index = later.start + self.rng.index(later.len());
        let open = |index: usize| self.source().open_snapshot(&self.snapshots[index].0).unwrap();
        let (snapshot, from) = (open(index), common.map(open));
        self.receive(&snapshot, from.as_ref(), options);
        self.snapshots[index].1 = true;
        assert!(of_store(&self.replica().unwrap()) == of_snapshot(&snapshot), "{snapshot:?}");
    }

    fn compare(&self) {
        let Some(replica) = self.replica() else { return };
        for (name, _) in self.snapshots.iter().filter(|(_, there)| *there) {
            let (mine, theirs) =
                (replica.open_snapshot(name).unwrap(), self.source().open_snapshot(name).unwrap());
            assert!(mine.guid() == theirs.guid() && of_snapshot(&mine) == of_snapshot(&theirs), "{name}");
        }
        self.second.verify().unwrap();
    }
}

/// Guards all of it: whatever happened before, the replica has the snapshots of the source, object for object.
#[test]
fn random_histories_of_stores_arrive_whole() {
    let first = number_from_environment("BETREE_SEED").unwrap_or(1);
    let histories = number_from_environment("BETREE_REPLICATION_HISTORIES").unwrap_or(6);
    for seed in first..first + histories {
        let folder = Folder::new();
        let configuration = if seed.is_multiple_of(3) { tiers(&folder, "pool") } else { folder.one(120) };
        let mut replication = Replication {
            first: built(&memory(120)),
            second: built(&configuration),
            configuration,
            rng: SimRng::new(seed),
            snapshots: Vec::new(),
        };
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for step in 0..40 {
                replication.step();
                if step % 8 == 0 {
                    replication.compare();
                }
            }
            replication.compare();
            replication.reopen();
            replication.compare();
        }));
        assert!(run.is_ok(), "BETREE_SEED={seed} BETREE_REPLICATION_HISTORIES=1 repeats it");
    }
}
