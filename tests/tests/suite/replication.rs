//! Send and receive: what arrives is what was sent, and nothing else changes anything.
//!
//! `BETREE_SEED` sets the first random history, `BETREE_REPLICATION_HISTORIES` how many there are.

use crate::pools::{Contents, Folder, contents, seen, small};
use betree::base::checksum::crc_append;
use betree::inspect::{CheckOptions, Outcome, check};
use betree::vdev::SimRng;
use betree::{
    Compression, Database, DatabaseConfiguration, Dataset, Error, ErrorKind, LeafVdev, MessageAction,
    ReceiveOptions, ReceiveReport, ResumeToken, SendOptions, SendPart, Snapshot, StoragePreference,
    StreamError, StreamInfo, StreamKind,
};
use betree_tests::rig::number_from_environment;
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

fn key(number: u64) -> Vec<u8> {
    format!("key{number:05}").into_bytes()
}

fn value(rng: &mut SimRng, length: usize) -> Vec<u8> {
    let mut value: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
    if rng.chance(1, 2) {
        value.fill(length as u8);
    }
    value
}

fn sent(snapshot: &Snapshot, from: Option<&Snapshot>) -> Vec<u8> {
    let mut stream = Vec::new();
    let report = snapshot.send(from, &SendOptions::default(), &mut stream).unwrap();
    assert_eq!(report.bytes, stream.len() as u64);
    stream
}

fn resumed(snapshot: &Snapshot, from: Option<&Snapshot>, token: &ResumeToken) -> Vec<u8> {
    let mut stream = Vec::new();
    // The token travels as text.
    let token: ResumeToken = token.to_string().parse().unwrap();
    let options = SendOptions { resume: Some(&token), ..SendOptions::default() };
    snapshot.send(from, &options, &mut stream).unwrap();
    stream
}

fn received(database: &Database, name: &str, stream: &[u8]) -> betree::Result<ReceiveReport> {
    database.receive(name, &PLAIN, &mut &stream[..])
}

fn of_snapshot(snapshot: &Snapshot) -> Contents {
    let entries = snapshot.range::<&[u8]>(..);
    entries
        .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
        .collect::<Result<_, _>>()
        .unwrap()
}

/// All that a dataset is to those who read it: its snapshots, each with name, guid, time and contents, and its head.
type Whole = (Vec<(Vec<u8>, String, std::time::SystemTime, Contents)>, Contents);

fn whole(dataset: &Dataset) -> Whole {
    let snapshots = dataset.snapshots().unwrap().into_iter();
    let snapshots = snapshots.map(|info| {
        let held = of_snapshot(&dataset.open_snapshot(&info.name).unwrap());
        (info.name, info.guid, info.created, held)
    });
    (snapshots.collect(), contents(dataset).unwrap())
}

fn demand_clean(configuration: &DatabaseConfiguration, context: &str) {
    let options = CheckOptions { deep: true, ..CheckOptions::default() };
    let report = check(configuration, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings, Vec::<String>::new(), "{context}");
    assert_eq!(report.outcome(), Outcome::Clean, "{context}");
}

/// Writes of every kind.
fn write_some(dataset: &Dataset, rng: &mut SimRng, count: u64) {
    for _ in 0..rng.below(count) {
        let number = rng.below(400);
        match rng.below(12) {
            0..7 => {
                let length = 10 + rng.index(300);
                dataset.insert(key(number), value(rng, length)).unwrap();
            }
            7 => dataset.insert(key(number), value(rng, 17_000)).unwrap(),
            8 => dataset.upsert(key(number), b"patch", 3).unwrap(),
            9 | 10 => dataset.delete(key(number)).unwrap(),
            _ => dataset.range_delete(key(number)..key(number + rng.below(60))).unwrap(),
        }
    }
}

fn tiers(folder: &Folder, name: &str) -> DatabaseConfiguration {
    let file = |leaf: &str| folder.file(&format!("{name}-{leaf}"), 40);
    small([vec![file("fast"), file("second")], vec![file("slow")]])
}

/// Guards the whole way: whole and incremental streams, onward from the replica to a third pool of another layout.
#[test]
fn what_is_sent_arrives_in_any_pool() {
    let folder = Folder::new();
    let configurations = [folder.one(64), tiers(&folder, "second"), memory(64)];
    let [first, second, third] = configurations.each_ref().map(built);
    let source = first.create_dataset("source").unwrap();
    let mut rng = SimRng::new(3);
    let mut snapshots: Vec<Snapshot> = Vec::new();
    for name in ["a", "b", "c"] {
        write_some(&source, &mut rng, 600);
        snapshots.push(source.create_snapshot(name).unwrap());
        let stream = sent(&snapshots[snapshots.len() - 1], snapshots.iter().rev().nth(1));
        assert!(
            stream == sent(&snapshots[snapshots.len() - 1], snapshots.iter().rev().nth(1)),
            "bytes that differ"
        );
        let info = StreamInfo::read(&stream[..]).unwrap();
        assert_eq!((info.bytes, info.parts[0].base.is_some()), (stream.len() as u64, name != "a"));
        let report = received(&second, "replica", &stream).unwrap();
        assert_eq!((report.puts, report.deletes), (info.puts, info.deletes));
        assert_eq!(report.received[0].created, name == "a");
    }
    source.delete("than the snapshots").unwrap();
    let replica = second.open_dataset("replica").unwrap();
    let at_source = snapshots.iter().map(of_snapshot).collect::<Vec<_>>();
    let (all, head) = whole(&replica);
    assert!(all.iter().map(|(_, _, _, held)| held).eq(&at_source) && head == at_source[2]);
    for (kept, snapshot) in all.iter().zip(&snapshots) {
        assert_eq!((&kept.0, &kept.1, kept.2), (&snapshot.name(), &snapshot.guid(), snapshot.created()));
    }
    // Onward, past the one in the middle.
    let open = |name: &str| replica.open_snapshot(name).unwrap();
    received(&third, "copy", &sent(&open("a"), None)).unwrap();
    received(&third, "copy", &sent(&open("c"), Some(&open("a")))).unwrap();
    let (all, head) = whole(&third.open_dataset("copy").unwrap());
    assert!(all.len() == 2 && all[1].3 == at_source[2] && head == at_source[2]);
    // And back to where it came from, where it is known.
    let error = received(&first, "source", &sent(&open("c"), Some(&open("b")))).unwrap_err();
    assert!(matches!(error, Error::Stream(StreamError::Changed { .. })), "{error}");
    // What was received is a dataset like any other.
    replica.insert("mine", "now").unwrap();
    replica.rollback("b", true).unwrap();
    assert!(contents(&replica).unwrap() == at_source[1]);
    let clone = second.clone_snapshot(&replica.open_snapshot("a").unwrap(), "clone").unwrap();
    clone.promote().unwrap();
    drop((replica, clone, source, snapshots));
    third.verify().unwrap();
    for (database, configuration) in [first, second].into_iter().zip(&configurations) {
        database.close().unwrap();
        demand_clean(configuration, "in the end");
    }
}

/// Guards W2 and W3: each thing that is in the way has an error that names it, and nothing changes.
#[test]
fn what_does_not_fit_is_refused_and_says_why() {
    let (first, second) = (built(&memory(64)), built(&memory(64)));
    let source = first.create_dataset("source").unwrap();
    let mut rng = SimRng::new(4);
    let mut make = |name: &str| {
        write_some(&source, &mut rng, 200);
        source.insert(name, name).unwrap();
        source.create_snapshot(name).unwrap()
    };
    let (a, b, c) = (make("a"), make("b"), make("c"));
    let kind = |result: betree::Result<ReceiveReport>| result.map(|_| ()).map_err(|error| error.kind());
    let no_base = |result: betree::Result<ReceiveReport>| {
        let error = result.unwrap_err();
        let Error::Stream(StreamError::NoBase { base, newest, .. }) = &error else { panic!("{error}") };
        (base.clone(), newest.clone())
    };
    assert_eq!(kind(received(&second, "replica", &sent(&b, Some(&a)))), Err(ErrorKind::NotFound));
    received(&second, "replica", &sent(&a, None)).unwrap();
    let replica = second.open_dataset("replica").unwrap();
    let before = whole(&replica);
    assert_eq!(kind(received(&second, "replica", &sent(&a, None))), Err(ErrorKind::AlreadyExists));
    assert_eq!(kind(received(&second, "", &sent(&a, None))), Err(ErrorKind::InvalidArgument));
    let (base, newest) = no_base(received(&second, "replica", &sent(&c, Some(&b))));
    assert!(base == "b" && newest.contains(&a.guid()), "{base} {newest}");
    // A snapshot of the same name is another one.
    second.create_dataset("other").unwrap().create_snapshot("a").unwrap();
    let (base, _) = no_base(received(&second, "other", &sent(&b, Some(&a))));
    assert_eq!(base, "a");
    // A name that is taken.
    replica.rename_snapshot("a", "b").unwrap();
    assert_eq!(kind(received(&second, "replica", &sent(&b, Some(&a)))), Err(ErrorKind::AlreadyExists));
    replica.rename_snapshot("b", "a").unwrap();
    // Something was written since; a write that changes nothing is none.
    replica.insert("a", "a").unwrap();
    replica.insert("mine", "now").unwrap();
    let error = received(&second, "replica", &sent(&b, Some(&a))).unwrap_err();
    assert!(
        matches!(&error, Error::Stream(StreamError::Changed { by, .. }) if by.contains("mine")),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Busy);
    replica.delete("mine").unwrap();
    replica.create_snapshot("later").unwrap();
    let error = received(&second, "replica", &sent(&b, Some(&a))).unwrap_err();
    assert!(
        matches!(&error, Error::Stream(StreamError::Changed { by, .. }) if by.contains("later")),
        "{error}"
    );
    // What force would take away and somebody needs.
    replica.hold_snapshot("later", "tag").unwrap();
    let forced = |stream: &[u8]| second.receive("replica", &FORCE, &mut &stream[..]);
    assert_eq!(kind(forced(&sent(&b, Some(&a)))), Err(ErrorKind::Busy));
    assert_eq!(kind(forced(&sent(&b, None))), Err(ErrorKind::Busy));
    let clone = second.clone_snapshot(&replica.open_snapshot("later").unwrap(), "clone").unwrap();
    replica.release_snapshot("later", "tag").unwrap();
    assert_eq!(kind(forced(&sent(&b, Some(&a)))), Err(ErrorKind::Busy));
    drop(clone);
    second.destroy_dataset("clone").unwrap();
    replica.delete_snapshot("later").unwrap();
    // What ended there is kept to go on, as its error may pass.
    second.abort_receive("replica").unwrap();
    assert!(second.unfinished_receives().unwrap().is_empty());
    assert!(whole(&replica) == before);
    received(&second, "replica", &sent(&b, Some(&a))).unwrap();
    // Bytes that are something else.
    let stream = sent(&c, Some(&b));
    let error = |bytes: &[u8]| match received(&second, "replica", bytes).unwrap_err() {
        Error::Stream(error) => error,
        other => panic!("{other}"),
    };
    assert!(matches!(error(b"hello, world: no stream at all"), StreamError::Foreign));
    assert!(matches!(error(b"hello"), StreamError::Foreign));
    assert!(matches!(error(b""), StreamError::Truncated { at: 0 }));
    let mut newer = stream.clone();
    newer[8] = 3;
    assert!(matches!(error(&newer), StreamError::Newer { version: 3, known: 2 }));
    // The sender refuses what makes no stream.
    let send = |snapshot: &Snapshot, from: Option<&Snapshot>| {
        snapshot
            .send(from, &SendOptions::default(), &mut Vec::new())
            .map(|_| ())
            .map_err(|error| error.kind())
    };
    assert_eq!(send(&a, Some(&b)), Err(ErrorKind::InvalidArgument));
    assert_eq!(send(&a, Some(&a)), Err(ErrorKind::InvalidArgument));
    assert_eq!(send(&b, Some(&replica.open_snapshot("a").unwrap())), Err(ErrorKind::InvalidArgument));
    let mut full = [0_u8; 4];
    let written = b.send(None, &SendOptions::default(), &mut &mut full[..]).unwrap_err();
    assert!(matches!(written, Error::Stream(StreamError::Write(_))), "{written}");
    // And the end of it all: it arrives.
    received(&second, "replica", &stream).unwrap();
    assert!(whole(&replica).1 == of_snapshot(&c));
    first.verify().unwrap();
    second.verify().unwrap();
}

/// Guards W1: with any byte flipped, and ending anywhere, a stream changes nothing; and what is given back leaves nothing.
#[test]
fn a_stream_with_any_byte_damaged_or_missing_changes_nothing() {
    let (first, configuration) = (built(&memory(32)), memory(32));
    let second = built(&configuration);
    let source = first.create_dataset("source").unwrap();
    for number in 0..6 {
        source.insert(key(number), b"value of some length").unwrap();
    }
    let a = source.create_snapshot("a").unwrap();
    received(&second, "replica", &sent(&a, None)).unwrap();
    let replica = second.open_dataset("replica").unwrap();
    source.insert(key(3), b"other").unwrap();
    source.insert(key(9), b"new").unwrap();
    source.delete(key(1)).unwrap();
    let b = source.create_snapshot("b").unwrap();
    let before = whole(&replica);
    let names = second.datasets().unwrap();
    let settled = |what: &str| {
        second.checkpoint().unwrap();
        second.checkpoint().unwrap();
        let report = second.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
        // The root tree has some blocks more or less, as its runs are.
        (report.datasets, report.snapshots, report.blocks / 32)
    };
    let start = settled("before");
    for (name, stream) in [("replica", sent(&b, Some(&a))), ("whole", sent(&b, None))] {
        let refuse = |bytes: &[u8], what: &str| {
            let error = received(&second, name, bytes).expect_err(what);
            let of_stream = [ErrorKind::Corrupt, ErrorKind::InvalidArgument, ErrorKind::Unsupported];
            assert!(of_stream.contains(&error.kind()), "{what}: {error}");
            assert!(second.datasets().unwrap() == names, "{what}: another dataset");
        };
        for at in 0..stream.len() {
            let mut damaged = stream.clone();
            damaged[at] ^= 1 << (at % 8);
            refuse(&damaged, &format!("{name}, byte {at} flipped"));
            refuse(&stream[..at], &format!("{name}, cut at {at}"));
            if at % 40 == 0 {
                assert!(whole(&replica) == before, "{name}, byte {at}: the dataset is another");
                settled(name);
            }
        }
        second.abort_receive(name).unwrap();
        assert!(whole(&replica) == before, "the dataset is another");
        assert_eq!(settled(name), start, "{name}: something is left");
    }
    // Checksums that are right do not help a stream whose digest is not.
    let mut forged = sent(&b, Some(&a));
    let end = forged.len() - 48;
    forged[end + 16] ^= 1;
    let before_end = |bytes: &[u8]| {
        // As the format says: over the header and the frames before, without their checksums, and then this one.
        let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let mut at = 16 + length + 4;
        let mut sum = u32::from_le_bytes(bytes[at - 4..at].try_into().unwrap());
        while at < bytes.len() {
            let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
            sum = crc_append(sum, &bytes[at..at + 12]);
            sum = crc_append(sum, &bytes[at + 16..at + 16 + length]);
            at += 16 + length;
        }
        sum
    };
    let sum = before_end(&forged);
    forged[end + 12..end + 16].copy_from_slice(&sum.to_le_bytes());
    let error = received(&second, "replica", &forged).unwrap_err();
    assert!(error.to_string().contains("digest"), "{error}");
    assert!(second.unfinished_receives().unwrap().is_empty(), "what is proved wrong is kept");
    assert_eq!(settled("forged"), start, "something is left");
    received(&second, "replica", &sent(&b, Some(&a))).unwrap();
    assert!(contents(&replica).unwrap() == of_snapshot(&b));
    settled("received");
}

/// Reads so many bytes, and then fails.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the line is cut"));
        }
        self.0.read(buffer)
    }
}

/// Guards the way back to a stream that was interrupted: its dataset keeps its name meanwhile.
#[test]
fn a_dataset_that_a_stream_waits_for_keeps_its_name() {
    let first = built(&memory(64));
    let second = built(&memory(64));
    let source = first.create_dataset("source").unwrap();
    source.insert("key", "before").unwrap();
    let a = source.create_snapshot("a").unwrap();
    (0..40).for_each(|number| source.insert(key(number), vec![number as u8; 60_000]).unwrap());
    let b = source.create_snapshot("b").unwrap();
    second.receive("replica", &PLAIN, &mut &sent(&a, None)[..]).unwrap();
    let stream = sent(&b, Some(&a));
    second.receive("replica", &PLAIN, &mut Failing(&stream[..stream.len() / 2])).unwrap_err();
    assert_eq!(second.rename_dataset("replica", "other").unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(second.destroy_dataset("replica").unwrap_err().kind(), ErrorKind::Busy);
    second.abort_receive("replica").unwrap();
    second.rename_dataset("replica", "other").unwrap();
    second.receive("other", &PLAIN, &mut &stream[..]).unwrap();
    assert!(whole(&second.open_dataset("other").unwrap()) == whole(&source));
}

/// Guards W4: a stream that is interrupted again and again, with the database opened anew in between, arrives whole; and
/// what is there of it is seen by nobody.
#[test]
fn a_stream_goes_on_where_it_was_interrupted() {
    let folder = Folder::new();
    let first = built(&memory(64));
    let configuration = folder.one(64);
    let mut second = built(&configuration);
    let source = first.create_dataset("source").unwrap();
    let mut rng = SimRng::new(8);
    for number in 0..40 {
        source.insert(key(number), vec![number as u8; 60_000]).unwrap();
    }
    let a = source.create_snapshot("a").unwrap();
    for number in 20..60 {
        source.insert(key(number), vec![number as u8 + 1; 70_000]).unwrap();
        source.delete(key(number - 20)).unwrap();
    }
    let b = source.create_snapshot("b").unwrap();
    for (snapshot, from) in [(&a, None), (&b, Some(&a))] {
        let before = second.open_dataset("replica").ok().map(|replica| whole(&replica));
        let mut stream = sent(snapshot, from);
        let whole_length = stream.len();
        let (mut read, mut interruptions) = (0, 0);
        loop {
            let length = 300_000 + rng.index(900_000);
            let part = &stream[..length.min(stream.len())];
            match second.receive("replica", &PLAIN, &mut Failing(part)) {
                Ok(_) => break,
                Err(error) => assert!(matches!(error, Error::Stream(StreamError::Read(_))), "{error}"),
            }
            interruptions += 1;
            let unfinished = second.unfinished_receives().unwrap();
            let [one] = &unfinished[..] else { panic!("{unfinished:?}") };
            assert_eq!(
                (one.names.as_slice(), &one.snapshot),
                (&[(StreamKind::Dataset, b"replica".to_vec())][..], &snapshot.name())
            );
            assert!(one.bytes > read, "nothing of {length} bytes is there");
            read = one.bytes;
            // The other stream does not fit, and neither does a token of another.
            let other = if from.is_some() { (&a, None) } else { (&b, Some(&a)) };
            let resume = SendOptions { resume: Some(&one.token), ..SendOptions::default() };
            let error = other.0.send(other.1, &resume, &mut Vec::new()).unwrap_err();
            assert!(matches!(error, Error::Stream(StreamError::NotResumed { .. })), "{error}");
            if interruptions % 2 == 0 {
                second.close().unwrap();
                demand_clean(&configuration, "with what was received in part");
                second = built(&configuration);
            }
            let after = second.open_dataset("replica").ok().map(|replica| whole(&replica));
            assert!(after == before && second.datasets().unwrap().len() <= 1, "it is seen");
            let again = second.unfinished_receives().unwrap();
            assert_eq!(again, unfinished, "what is durable is something else");
            stream = resumed(snapshot, from, &again[0].token);
            assert!(stream.len() < whole_length);
        }
        assert!(interruptions > 1, "{interruptions}");
        let replica = second.open_dataset("replica").unwrap();
        assert!(contents(&replica).unwrap() == of_snapshot(snapshot));
        // Once is enough.
        let error = received(&second, "replica", &stream).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::Busy | ErrorKind::InvalidArgument),
            "{error}"
        );
    }
    // What is received in part keeps its base, and says so.
    let c = source.create_snapshot("c").unwrap();
    source.insert("more", vec![1; 400_000]).unwrap();
    source.insert("most", vec![1; 400_000]).unwrap();
    let d = source.create_snapshot("d").unwrap();
    received(&second, "replica", &sent(&c, Some(&b))).unwrap();
    let stream = sent(&d, Some(&c));
    received(&second, "replica", &stream[..500_000]).unwrap_err();
    let replica = second.open_dataset("replica").unwrap();
    let error = replica.delete_snapshot("c").unwrap_err();
    assert!(error.kind() == ErrorKind::Busy && error.to_string().contains("unfinished receive"), "{error}");
    assert!(replica.snapshots().unwrap().last().unwrap().receiving);
    assert_eq!(second.destroy_dataset("replica").unwrap_err().kind(), ErrorKind::Busy);
    // A stream from the start takes the place of what is there of another.
    received(&second, "replica", &stream).unwrap();
    assert!(second.unfinished_receives().unwrap().is_empty());
    assert_eq!(second.abort_receive("replica").unwrap_err().kind(), ErrorKind::NotFound);
    drop(replica);
    second.close().unwrap();
    demand_clean(&configuration, "in the end");
}

/// Guards the takeover with `force`: later snapshots and writes of every kind go, whatever was shared with whom.
#[test]
fn force_takes_the_place_of_what_is_there() {
    let first = built(&memory(64));
    let configuration = memory(64);
    let second = built(&configuration);
    let source = first.create_dataset("source").unwrap();
    let mut rng = SimRng::new(9);
    let mut before: Option<Snapshot> = None;
    for round in 0..12 {
        write_some(&source, &mut rng, 400);
        let snapshot = source.create_snapshot(format!("s{round}")).unwrap();
        // Every fourth is sent whole.
        let from = before.as_ref().filter(|_| round % 4 != 3);
        let stream = sent(&snapshot, from);
        second.receive("replica", &FORCE, &mut &stream[..]).unwrap();
        let replica = second.open_dataset("replica").unwrap();
        assert!(contents(&replica).unwrap() == of_snapshot(&snapshot), "round {round}");
        let count = replica.snapshots().unwrap().len();
        if from.is_none() {
            assert_eq!(count, 1, "round {round}");
        }
        let view = replica.view();
        let held = seen(&view).unwrap();
        // What is lost in the next round, in memory, in trees and in snapshots.
        write_some(&replica, &mut rng, 500);
        if round % 2 == 0 {
            replica.create_snapshot("mine").unwrap();
            write_some(&replica, &mut rng, 300);
        }
        if round % 3 == 0 {
            second.settle().unwrap();
            second.checkpoint().unwrap();
        }
        if round == 5 {
            // A clone of what stays, which drops what it shares.
            let base = replica.open_snapshot("s5").unwrap();
            let clone = second.clone_snapshot(&base, "clone").unwrap();
            write_some(&clone, &mut rng, 300);
        }
        if round == 6 {
            second.destroy_dataset("clone").unwrap();
        }
        second.verify().unwrap();
        assert!(seen(&view).unwrap() == held, "a reader sees another state");
        before = Some(snapshot);
    }
    // A clone is replaced: it is none any more, and what it was made of is free to go.
    let replica = second.open_dataset("replica").unwrap();
    let stays = replica.create_snapshot("stays").unwrap();
    let fork = second.clone_snapshot(&stays, "fork").unwrap();
    write_some(&fork, &mut rng, 500);
    fork.create_snapshot("of the fork").unwrap();
    write_some(&fork, &mut rng, 300);
    let snapshot = before.unwrap();
    second.receive("fork", &FORCE, &mut &sent(&snapshot, None)[..]).unwrap();
    second.verify().unwrap();
    assert!(fork.origin().unwrap().is_none() && fork.snapshots().unwrap().len() == 1);
    assert!(contents(&fork).unwrap() == of_snapshot(&snapshot));
    replica.delete_snapshot("stays").unwrap();
    drop(replica);
    second.destroy_dataset("replica").unwrap();
    second.checkpoint().unwrap();
    second.verify().unwrap();
    assert!(contents(&fork).unwrap() == of_snapshot(&snapshot));
}

/// Guards W1 for several datasets: they arrive at one instant, or none does.
#[test]
fn several_datasets_arrive_as_one() {
    let (first, second) = (built(&memory(64)), built(&memory(64)));
    let data = first.create_dataset("data").unwrap();
    let index = first.create_dataset("index").unwrap();
    let mut rng = SimRng::new(10);
    let mut make = |name: &str| {
        write_some(&data, &mut rng, 500);
        write_some(&index, &mut rng, 100);
        let made = first.create_snapshot(&[&data, &index], name).unwrap();
        <[Snapshot; 2]>::try_from(made).unwrap()
    };
    let ([data_a, index_a], [data_b, index_b]) = (make("a"), make("b"));
    let stream_of = |parts: &[SendPart<'_>]| {
        let mut stream = Vec::new();
        let options = SendOptions { compression: Compression::Zstd { level: 3 }, ..SendOptions::default() };
        first.send(parts, &options, &mut stream).map(|_| stream)
    };
    let part = |snapshot, from| SendPart::Dataset { snapshot, from };
    let both = stream_of(&[part(&data_a, None), part(&index_a, None)]).unwrap();
    let since = stream_of(&[part(&data_b, Some(&data_a)), part(&index_b, Some(&index_a))]).unwrap();
    for parts in [&[][..], &[part(&data_a, None), part(&index_b, None)], &[part(&data_a, None); 2]] {
        assert_eq!(stream_of(parts).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    let names: [&[u8]; 2] = [b"x", b"y"];
    let receive = |stream: &[u8]| second.receive_all(&names, &PLAIN, &mut &stream[..]);
    assert_eq!(received(&second, "x", &both).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let twice = second.receive_all(&[b"x", b"x"], &PLAIN, &mut &both[..]).unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::InvalidArgument);
    receive(&both[..both.len() - 1]).unwrap_err();
    let [unfinished] = &second.unfinished_receives().unwrap()[..] else { panic!("one stream") };
    let dataset = |name: &[u8]| (StreamKind::Dataset, name.to_vec());
    assert_eq!(unfinished.names, [dataset(b"x"), dataset(b"y")]);
    assert!(second.datasets().unwrap().is_empty());
    second.abort_receive("y").unwrap();
    assert!(second.unfinished_receives().unwrap().is_empty());
    receive(&both).unwrap();
    let (x, y) = (second.open_dataset("x").unwrap(), second.open_dataset("y").unwrap());
    assert_eq!(x.open_snapshot("a").unwrap().generation(), y.open_snapshot("a").unwrap().generation());
    // One of them has changed: none arrives.
    y.insert("mine", "now").unwrap();
    let before = (whole(&x), whole(&y));
    assert!(matches!(receive(&since).unwrap_err(), Error::Stream(StreamError::Changed { .. })));
    assert!((whole(&x), whole(&y)) == before);
    y.delete("mine").unwrap();
    // And on the way.
    receive(&since[..since.len() - 1]).unwrap_err();
    assert!(second.unfinished_receives().unwrap()[0].bytes > 0);
    let token = second.unfinished_receives().unwrap().remove(0).token;
    let options = SendOptions { resume: Some(&token), ..SendOptions::default() };
    let mut rest = Vec::new();
    first.send(&[part(&data_b, Some(&data_a)), part(&index_b, Some(&index_a))], &options, &mut rest).unwrap();
    receive(&rest).unwrap();
    assert!(contents(&x).unwrap() == of_snapshot(&data_b) && contents(&y).unwrap() == of_snapshot(&index_b));
    // They can be sent on as one, too.
    let open = |dataset: &Dataset| dataset.open_snapshot("b").unwrap();
    let mut onward = Vec::new();
    let (x_b, y_b) = (open(&x), open(&y));
    second.send(&[part(&x_b, None), part(&y_b, None)], &SendOptions::default(), &mut onward).unwrap();
    first.receive_all(&names, &PLAIN, &mut &onward[..]).unwrap();
    assert!(contents(&first.open_dataset("y").unwrap()).unwrap() == of_snapshot(&index_b));
    second.verify().unwrap();
}

/// Guards what a full pool keeps: the dataset is as it was, and what was received is given back, all of it.
#[test]
fn a_pool_that_gets_full_on_the_way_loses_nothing() {
    let folder = Folder::new();
    let first = built(&memory(128));
    let configuration = folder.one(24);
    let second = built(&configuration);
    let source = first.create_dataset("source").unwrap();
    let mut rng = SimRng::new(12);
    for number in 0..60 {
        source.insert(key(number), value(&mut rng, 9000)).unwrap();
    }
    let a = source.create_snapshot("a").unwrap();
    for number in 0..4000 {
        let value: Vec<u8> = (0..9000_u32).map(|_| rng.next_u64() as u8).collect();
        source.insert(key(number), value).unwrap();
    }
    let b = source.create_snapshot("b").unwrap();
    received(&second, "replica", &sent(&a, None)).unwrap();
    let replica = second.open_dataset("replica").unwrap();
    let before = whole(&replica);
    let used = || {
        for _ in 0..3 {
            second.settle().unwrap();
            second.checkpoint().unwrap();
        }
        // But for the root tree, which has some blocks more or less.
        second.verify().unwrap().blocks
    };
    let start = used() + 32;
    for (name, stream) in [("replica", sent(&b, Some(&a))), ("other", sent(&b, None))] {
        let error = received(&second, name, &stream).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
        assert!(whole(&replica) == before);
        second.abort_receive(name).unwrap();
        assert!(used() < start, "something is left");
        replica.insert("there is", "room again").unwrap();
        replica.delete("there is").unwrap();
    }
    drop(replica);
    second.close().unwrap();
    demand_clean(&configuration, "after a full pool");
}

/// Guards what an incremental stream costs: changes in few leaves are found without reading the others.
#[test]
fn changes_in_few_leaves_are_sent_without_reading_the_rest() {
    let configuration = DatabaseConfiguration { cache_size: 4 << 20, ..memory(256) };
    let database = built(&configuration);
    let dataset = database.create_dataset("data").unwrap();
    let mut rng = SimRng::new(13);
    let mut random = |length: usize| (0..length).map(|_| rng.next_u64() as u8).collect::<Vec<u8>>();
    const KEYS: u64 = 40_000;
    for number in 0..KEYS {
        dataset.insert(key(number), random(1000)).unwrap();
    }
    database.settle().unwrap();
    let a = dataset.create_snapshot("a").unwrap();
    for number in KEYS / 2..KEYS / 2 + KEYS / 100 {
        dataset.insert(key(number), random(1000)).unwrap();
    }
    database.settle().unwrap();
    let b = dataset.create_snapshot("b").unwrap();
    // One key in a hundred, anywhere.
    for number in 0..KEYS / 100 {
        dataset.insert(key(number * 100 + number % 97), random(1000)).unwrap();
    }
    let c = dataset.create_snapshot("c").unwrap();
    let read = |snapshot: &Snapshot, from: Option<&Snapshot>| {
        database.drop_cache();
        let report = snapshot.send(from, &SendOptions::default(), &mut io::sink()).unwrap();
        (report.puts, report.read)
    };
    let (puts, all) = read(&a, None);
    assert!(puts == KEYS && all > KEYS * 1000, "{all} bytes for {puts} keys");
    let (puts, together) = read(&b, Some(&a));
    assert_eq!(puts, KEYS / 100);
    assert!(together * 100 <= 3 * all, "{together} of {all} bytes were read");
    let (puts, apart) = read(&c, Some(&b));
    assert_eq!(puts, KEYS / 100);
    println!("read of {all}: {together} for changes together, {apart} for changes anywhere");
    assert!(apart < all, "{apart} of {all} bytes were read");
}

/// Guards streams that were kept: those of an older version are received as they were meant.
#[test]
fn streams_of_the_first_version_are_received() {
    let database = built(&memory(64));
    let streams = [
        (
            &include_bytes!("../../fixtures/streams/v1-whole.stream")[..],
            &[("changed", "old"), ("kept", "old"), ("removed", "old")][..],
        ),
        (include_bytes!("../../fixtures/streams/v1-changes.stream"), &[("changed", "new"), ("kept", "old")]),
    ];
    for (stream, expected) in streams {
        assert_eq!(stream[8..10], [1, 0]);
        for cut in 0..stream.len() {
            StreamInfo::read(&stream[..cut]).unwrap_err();
        }
        received(&database, "d", stream).unwrap();
        let expected: Contents = expected
            .iter()
            .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect();
        assert_eq!(contents(&database.open_dataset("d").unwrap()).unwrap(), expected);
    }
}

/// The action of a dataset that the receiver need not know.
#[derive(Debug, Clone, Copy, Default)]
struct Append;

impl MessageAction for Append {
    const NAME: &'static str = "test.append";

    fn apply(&self, _key: &[u8], message: &[u8], value: &mut Option<Vec<u8>>) {
        value.get_or_insert_default().extend_from_slice(message);
    }

    fn merge(&self, _key: &[u8], upper: &[u8], lower: &[u8]) -> Option<Vec<u8>> {
        Some([lower, upper].concat())
    }
}

/// Guards what belongs to a dataset: its action, codec and preference travel with it; its shape is that of the pool.
#[test]
fn what_belongs_to_the_dataset_travels_with_it() {
    let (first, second) = (built(&memory(256)), built(&memory(256)));
    let source = first.create_custom_dataset::<Append>("source", StoragePreference::SLOW).unwrap();
    source.insert_msg("key", "one").unwrap();
    let a = source.create_snapshot("a").unwrap();
    source.insert_msg("key", ", two").unwrap();
    source.insert("large", vec![7; betree::VALUE_BYTES_MAX]).unwrap();
    source.insert(vec![1; betree::KEY_BYTES_MAX], "").unwrap();
    source.insert("", "").unwrap();
    let b = source.create_snapshot("b").unwrap();
    received(&second, "replica", &sent(&a, None)).unwrap();
    assert_eq!(second.open_dataset("replica").unwrap_err().kind(), ErrorKind::InvalidArgument);
    received(&second, "replica", &sent(&b, Some(&a))).unwrap();
    let replica = second.open_custom_dataset::<Append>("replica", StoragePreference::NONE).unwrap();
    assert_eq!(replica.get("key").unwrap().as_deref(), Some(&b"one, two"[..]));
    assert_eq!(contents(&replica).unwrap(), of_snapshot(&b));
    replica.insert_msg("key", "!").unwrap();
    assert_eq!(replica.get("key").unwrap().as_deref(), Some(&b"one, two!"[..]));
    // A dataset with another action is another dataset, whatever its snapshots are called.
    second.create_dataset("other").unwrap();
    let error = second.receive("other", &FORCE, &mut &sent(&b, None)[..]).unwrap_err();
    assert!(matches!(error, Error::WrongAction { .. }), "{error}");
    second.verify().unwrap();
}

/// Guards the takeover with work in the background: readers and writers go on, and none sees anything in between.
#[test]
fn receiving_goes_on_beside_readers_and_writers() {
    let configuration = DatabaseConfiguration { background_threads: Some(2), ..memory(128) };
    let (first, second) = (built(&configuration), built(&configuration));
    let source = first.create_dataset("source").unwrap();
    let mut rng = SimRng::new(14);
    let mut before: Option<Snapshot> = None;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = second.create_dataset("other").unwrap();
            let mut number = 0;
            while !stop.load(Ordering::Acquire) {
                other.insert(key(number % 500), vec![number as u8; 700]).unwrap();
                number += 1;
                if number % 50 == 0 {
                    second.checkpoint().unwrap();
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                let Ok(replica) = second.open_dataset("replica") else { continue };
                // Both are written by every round, to the same number.
                let view = replica.view();
                assert_eq!(view.get("first").unwrap(), view.get("last").unwrap());
            }
        });
        for round in 0..20 {
            source.insert("first", format!("{round}")).unwrap();
            write_some(&source, &mut rng, 400);
            source.insert("last", format!("{round}")).unwrap();
            let snapshot = source.create_snapshot(format!("s{round}")).unwrap();
            received(&second, "replica", &sent(&snapshot, before.as_ref())).unwrap();
            let replica = second.open_dataset("replica").unwrap();
            assert!(contents(&replica).unwrap() == of_snapshot(&snapshot), "round {round}");
            before = Some(snapshot);
        }
        stop.store(true, Ordering::Release);
    });
    second.settle().unwrap();
    second.verify().unwrap();
}

/// A source, a replica of it, and what both should hold.
struct Pair {
    first: Database,
    second: Database,
    configuration: DatabaseConfiguration,
    rng: SimRng,
    /// Names of the snapshots of the source that there are, oldest first, and whether the replica has them.
    snapshots: Vec<(String, bool)>,
    made: u64,
}

impl Pair {
    fn source(&self) -> Dataset {
        self.first.open_or_create_dataset("source").unwrap()
    }

    fn open(&self, index: usize) -> Snapshot {
        self.source().open_snapshot(&self.snapshots[index].0).unwrap()
    }

    /// The newest snapshot that both have.
    fn common(&self) -> Option<usize> {
        self.snapshots.iter().rposition(|(_, there)| *there)
    }

    /// Receives, perhaps with interruptions, damage and openings on the way.
    fn receive(&mut self, snapshot: &Snapshot, from: Option<&Snapshot>, options: &ReceiveOptions) {
        let mut stream = sent(snapshot, from);
        for _ in 0..self.rng.below(4) {
            let before = self.second.open_dataset("replica").ok().map(|replica| whole(&replica));
            let mut bad = stream.clone();
            match self.rng.below(3) {
                0 => bad.truncate(self.rng.index(stream.len())),
                1 => bad[self.rng.index(stream.len())] ^= 1 << self.rng.below(8),
                _ => {
                    let from = self.rng.index(stream.len());
                    let length = 1 + self.rng.index(stream.len() - from);
                    drop(bad.drain(from..from + length));
                }
            }
            self.second.receive("replica", options, &mut &bad[..]).unwrap_err();
            let after = self.second.open_dataset("replica").ok().map(|replica| whole(&replica));
            assert!(before == after, "a bad stream changed something");
            if self.rng.chance(1, 3) {
                self.reopen();
            }
            match self.second.unfinished_receives().unwrap().first() {
                Some(unfinished) if self.rng.chance(3, 4) => {
                    stream = resumed(snapshot, from, &unfinished.token);
                }
                Some(_) if self.rng.chance(1, 2) => {
                    self.second.abort_receive("replica").unwrap();
                    stream = sent(snapshot, from);
                }
                _ => stream = sent(snapshot, from),
            }
        }
        self.second.receive("replica", options, &mut &stream[..]).unwrap();
    }

    fn reopen(&mut self) {
        self.second.clone().close().unwrap();
        self.second = built(&memory(8));
        demand_clean(&self.configuration, "between");
        self.second = built(&self.configuration);
    }

    fn step(&mut self) {
        match self.rng.below(20) {
            0..5 => write_some(&self.source(), &mut self.rng, 120),
            5..8 => {
                self.made += 1;
                let name = format!("s{}", self.made);
                self.source().create_snapshot(&name).unwrap();
                self.snapshots.push((name, false));
            }
            8 if self.snapshots.len() > 1 => {
                let index = self.rng.index(self.snapshots.len());
                // The replica keeps what it has.
                if Some(index) != self.common() {
                    let (name, _) = self.snapshots.remove(index);
                    self.source().delete_snapshot(name).unwrap();
                }
            }
            9 if self.common().is_some() => {
                // Lost in the next round.
                let replica = self.second.open_dataset("replica").unwrap();
                write_some(&replica, &mut self.rng, 150);
                if self.rng.chance(1, 3) {
                    self.made += 1;
                    replica.create_snapshot(format!("mine{}", self.made)).unwrap();
                    write_some(&replica, &mut self.rng, 50);
                }
                drop(replica);
                self.send(&FORCE);
            }
            10 => self.reopen(),
            11 => {
                self.second.settle().unwrap();
                self.first.settle().unwrap();
            }
            12 if self.common().is_some() && self.rng.chance(1, 4) => {
                // All over again.
                if let Some(index) = self.snapshots.len().checked_sub(1) {
                    let snapshot = self.open(index);
                    self.receive(&snapshot, None, &FORCE);
                    self.snapshots.iter_mut().for_each(|(_, there)| *there = false);
                    self.snapshots[index].1 = true;
                }
            }
            _ => self.send(&PLAIN),
        }
    }

    fn send(&mut self, options: &ReceiveOptions) {
        let common = self.common();
        let later = common.map_or(0, |at| at + 1)..self.snapshots.len();
        if later.is_empty() {
            if options.force
                && let Some(at) = common
            {
                self.second.open_dataset("replica").unwrap().rollback(&self.snapshots[at].0, true).unwrap();
            }
            return;
        }
        let index = later.start + self.rng.index(later.len());
        let (snapshot, from) = (self.open(index), common.map(|at| self.open(at)));
        self.receive(&snapshot, from.as_ref(), options);
        self.snapshots[index].1 = true;
        let replica = self.second.open_dataset("replica").unwrap();
        assert!(contents(&replica).unwrap() == of_snapshot(&snapshot), "{snapshot:?}");
    }

    /// Compares all snapshots that both have.
    fn compare(&self) {
        let Ok(replica) = self.second.open_dataset("replica") else { return };
        for index in 0..self.snapshots.len() {
            let (name, there) = &self.snapshots[index];
            match replica.open_snapshot(name) {
                Ok(snapshot) => {
                    assert!(*there && snapshot.guid() == self.open(index).guid(), "{name}");
                    assert!(of_snapshot(&snapshot) == of_snapshot(&self.open(index)), "{name}");
                }
                Err(error) => assert!(!there && error.kind() == ErrorKind::NotFound, "{name}: {error}"),
            }
        }
    }
}

/// Guards all of it: whatever happened before, the replica has the snapshots of the source, byte for byte.
#[test]
fn random_histories_arrive_whole() {
    let first = number_from_environment("BETREE_SEED").unwrap_or(1);
    let histories = number_from_environment("BETREE_REPLICATION_HISTORIES").unwrap_or(12);
    for seed in first..first + histories {
        let folder = Folder::new();
        let configuration = if seed.is_multiple_of(3) { tiers(&folder, "pool") } else { folder.one(64) };
        let mut pair = Pair {
            first: built(&memory(64)),
            second: built(&configuration),
            configuration,
            rng: SimRng::new(seed),
            snapshots: Vec::new(),
            made: 0,
        };
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for step in 0..60 {
                pair.step();
                if step % 6 == 0 {
                    pair.compare();
                    pair.second.verify().unwrap();
                }
            }
            pair.compare();
            pair.reopen();
            pair.compare();
        }));
        assert!(run.is_ok(), "BETREE_SEED={seed} BETREE_REPLICATION_HISTORIES=1 repeats it");
    }
}

/// Does something in the middle of a stream.
struct Meanwhile<'a, F> {
    stream: &'a [u8],
    at: usize,
    read: usize,
    work: Option<F>,
}

impl<F: FnOnce()> Read for Meanwhile<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read >= self.at
            && let Some(work) = self.work.take()
        {
            work();
        }
        let length = buffer.len().min(512).min(self.stream.len() - self.read);
        buffer[..length].copy_from_slice(&self.stream[self.read..self.read + length]);
        self.read += length;
        Ok(length)
    }
}

/// Guards what others do to the dataset while a stream is received: it ends in their favour, or says what is in the way.
#[test]
fn what_others_do_meanwhile_is_not_lost() {
    let (first, second) = (built(&memory(64)), built(&memory(64)));
    let source = first.create_dataset("source").unwrap();
    let mut rng = SimRng::new(15);
    let mut make = |name: &str| {
        for number in 0..30 {
            source.insert(key(rng.below(200)), value(&mut rng, 200)).unwrap();
            source.delete(key(number * 7)).unwrap();
        }
        source.create_snapshot(name).unwrap()
    };
    let (a, b, c, d) = (make("a"), make("b"), make("c"), make("d"));
    received(&second, "replica", &sent(&a, None)).unwrap();
    let replica = second.open_dataset("replica").unwrap();
    let stream = sent(&b, Some(&a));
    let during = |name: &str, stream: &[u8], work: &dyn Fn()| {
        // Before its last two frames, which have no entries.
        let mut input = Meanwhile { stream, at: stream.len() - 84, read: 0, work: Some(work) };
        second.receive(name, &PLAIN, &mut input)
    };
    let changed = |result: betree::Result<ReceiveReport>, what: &str| {
        let error = result.unwrap_err();
        assert!(
            matches!(&error, Error::Stream(StreamError::Changed { by, .. }) if by.contains(what)),
            "{error}"
        );
    };
    // Others wait for their turn, and see nothing.
    let before = whole(&replica);
    let done = during("replica", &stream, &|| {
        assert_eq!(second.abort_receive("replica").unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(received(&second, "replica", &stream).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(second.datasets().unwrap(), [b"replica".to_vec()]);
        assert!(second.unfinished_receives().unwrap()[0].bytes > 0);
        assert!(whole(&replica) == before, "half of a stream is seen");
        second.verify().unwrap();
    });
    done.unwrap();
    assert!(contents(&replica).unwrap() == of_snapshot(&b));
    // A write, in memory only or not, and a snapshot: the stream is all there, and waits.
    let stream = sent(&c, Some(&b));
    for settled in [false, true] {
        let write = || {
            replica.insert("mine", "now").unwrap();
            if settled {
                second.checkpoint().unwrap();
            }
        };
        changed(during("replica", &stream, &write), "mine");
        assert_eq!(replica.get("mine").unwrap().as_deref(), Some(&b"now"[..]));
        replica.delete("mine").unwrap();
    }
    changed(during("replica", &stream, &|| drop(replica.create_snapshot("mine").unwrap())), "mine");
    replica.delete_snapshot("mine").unwrap();
    // What is there of it is all of it: nothing but the end is sent again. The dataset keeps its name until that has arrived.
    let unfinished = second.unfinished_receives().unwrap().remove(0);
    let rest = resumed(&c, Some(&b), &unfinished.token);
    assert!(rest.len() < 500, "{} bytes", rest.len());
    let rename = || second.rename_dataset("replica", "renamed");
    let refused = || assert_eq!(rename().unwrap_err().kind(), ErrorKind::Busy);
    let mut input = Meanwhile { stream: &rest, at: rest.len() - 48, read: 0, work: Some(refused) };
    second.receive("replica", &PLAIN, &mut input).unwrap();
    rename().unwrap();
    assert!(replica.name() == b"renamed" && contents(&replica).unwrap() == of_snapshot(&c));
    // A name that is given to another dataset.
    let error = during("new", &sent(&c, None), &|| drop(second.create_dataset("new").unwrap())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(contents(&second.open_dataset("new").unwrap()).unwrap().is_empty());
    second.abort_receive("new").unwrap();
    // The snapshot that the changes start from goes to a clone, which takes it away.
    let clone = second.clone_snapshot(&replica.open_snapshot("c").unwrap(), "clone").unwrap();
    let error = during("renamed", &sent(&d, Some(&c)), &|| clone.promote().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Stream(StreamError::NoBase { .. })), "{error}");
    second.abort_receive("renamed").unwrap();
    received(&second, "clone", &sent(&d, Some(&c))).unwrap();
    assert!(contents(&clone).unwrap() == of_snapshot(&d) && contents(&replica).unwrap() == of_snapshot(&c));
    // And a dataset that is destroyed is not there.
    let whole_stream = sent(&d, None);
    second.receive("new", &FORCE, &mut &whole_stream[..]).unwrap();
    let destroy = || second.destroy_dataset("new").unwrap();
    let mut input = Meanwhile { stream: &whole_stream, at: 2000, read: 0, work: Some(destroy) };
    let error = second.receive("new", &FORCE, &mut input).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    second.abort_receive("new").unwrap();
    second.verify().unwrap();
}
