//! Fuzz targets of the database: root, dataset and snapshot records, dead lists, streams, log records, configurations and the
//! environment.

use super::format::{DatasetRecord, Role, RootRecord};
use super::record::{Operation, RecordReader, RecordWriter};
use super::replication::Receiving;
use super::replication::format::Position;
use super::replication::fuzzing::{run_stream, run_token, stream_seeds, token_seeds};
use super::snapshots::Origin;
use super::snapshots::format::{
    ChunkRecord, DeadEntry, Part, SnapshotRecord, SubList, decode_chunk, encode_chunk,
};
use super::{ConfigurationError, DatabaseConfiguration};
use crate::base::codec::{DecodeError, Decoder};
use crate::base::extent::Extent;
use crate::base::fuzzing::Target;
use crate::base::ids::{DatasetId, Generation, Uuid};
use crate::base::preference::StoragePreference;
use crate::dmu::fuzzing::{FIRST_BLOCK, VDEV, with_memory};
use crate::log::LogHead;
use crate::run::Kind;
use crate::tree::{NodeRef, TreeOptions};

/// The targets of this layer.
pub const TARGETS: &[Target] = &[
    Target { name: "root_record", seeds: root_seeds, run: root },
    Target { name: "dataset_record", seeds: dataset_seeds, run: dataset },
    Target { name: "snapshot_record", seeds: snapshot_seeds, run: snapshot },
    Target { name: "dead_list", seeds: list_seeds, run: list },
    Target { name: "dead_list_chunk", seeds: chunk_seeds, run: chunk },
    Target { name: "chunk_record", seeds: chunk_record_seeds, run: chunk_record },
    Target { name: "snapshot_stream", seeds: stream_seeds, run: run_stream },
    Target { name: "resume_token", seeds: token_seeds, run: run_token },
    Target { name: "log_record", seeds: record_seeds, run: record },
    Target { name: "configuration", seeds: configuration_seeds, run: configuration },
    Target { name: "environment", seeds: environment_seeds, run: environment },
];

/// What a layer below decodes from its own seed.
fn pointer() -> Option<NodeRef> {
    let seeds = crate::tree::fuzzing::TARGETS.iter().find(|target| target.name == "node_pointer")?.seeds;
    with_memory(|dmu| NodeRef::decode(&mut Decoder::new(seeds().first()?), dmu).ok())
}

fn root_seeds() -> Vec<Vec<u8>> {
    let heads = crate::log::fuzzing::TARGETS.iter().find(|target| target.name == "log_head");
    let heads = heads.map(|target| (target.seeds)()).unwrap_or_default();
    heads
        .iter()
        .filter_map(|head| {
            let root_tree = pointer()?;
            let record = RootRecord {
                generation: Generation(9),
                cut: 100,
                next_dataset: 4,
                epoch: 3,
                table_length: 300,
                table_checksum: 5,
                table_extents: root_tree.extents.clone(),
                root_tree,
                log_head: LogHead::decode(&mut Decoder::new(head)).ok()?,
            };
            Some(record.encode())
        })
        .collect()
}

fn root(bytes: &[u8]) -> bool {
    with_memory(|dmu| {
        if let Ok(found) = RootRecord::decode(bytes, dmu) {
            let again = RootRecord::decode(&found.encode(), dmu);
            assert!(again.is_ok_and(|again| again == found), "a root that is read back differently");
            return true;
        }
        false
    })
}

fn dataset_seeds() -> Vec<Vec<u8>> {
    let record = |root, destroyed| DatasetRecord {
        name: b"name".to_vec(),
        role: if destroyed { Role::Chunks } else { Role::Dataset },
        action: String::from("default"),
        created: 1_700_000_000,
        options: TreeOptions::default(),
        destroyed,
        origin: destroyed.then_some(Origin { dataset: DatasetId(2), snapshot: Generation(7) }),
        newest: Generation(8),
        blocks: 9,
        root,
        receiving: None,
    };
    let receiving = Receiving {
        stream: Uuid([1; 16]),
        section: 0,
        sections: 2,
        guid: Uuid([2; 16]),
        base: Uuid([3; 16]),
        snapshot: b"snapshot".to_vec(),
        position: Position { section: 1, key: Some(b"key".to_vec()), chain: [4; 32], bytes: 5 },
    };
    let staging = DatasetRecord { receiving: Some(receiving), ..record(pointer(), false) };
    [record(None, false), record(pointer(), false), record(pointer(), true), staging]
        .map(|record| record.encode())
        .to_vec()
}

fn dataset(bytes: &[u8]) -> bool {
    with_memory(|dmu| {
        if let Ok(found) = DatasetRecord::decode(bytes, dmu) {
            let again = DatasetRecord::decode(&found.encode(), dmu);
            assert!(again.is_ok_and(|again| again == found), "a record that is read back differently");
            return true;
        }
        false
    })
}

fn snapshot_seeds() -> Vec<Vec<u8>> {
    let record = |root, holds| SnapshotRecord {
        name: b"name".to_vec(),
        created: 1_700_000_000,
        cut: 99,
        blocks: 1000,
        guid: Uuid([7; 16]),
        holds,
        root,
    };
    let roots = pointer().into_iter();
    roots
        .flat_map(|root| [record(root.clone(), vec![]), record(root, vec![b"tag".to_vec()])])
        .map(|r| r.encode())
        .collect()
}

fn snapshot(bytes: &[u8]) -> bool {
    with_memory(|dmu| {
        let Ok(found) = SnapshotRecord::decode(bytes, dmu) else { return false };
        let again = SnapshotRecord::decode(&found.encode(), dmu);
        assert!(again.is_ok_and(|again| again == found), "a record that is read back differently");
        true
    })
}

fn entries() -> Vec<DeadEntry> {
    let entry = |birth, block| {
        let extent = Extent { vdev: VDEV, block: FIRST_BLOCK + block, blocks: 2 };
        DeadEntry { birth: Generation(birth), extent }
    };
    vec![entry(3, 0), entry(5, 2)]
}

fn list_seeds() -> Vec<Vec<u8>> {
    let list = SubList { parts: vec![Part { list: 5, chunks: 2 }], ..SubList::default() };
    let mut with_tail = list.clone();
    entries().into_iter().for_each(|entry| with_tail.push(entry));
    vec![SubList { forget: true, ..list }.encode(), with_tail.encode()]
}

fn list(bytes: &[u8]) -> bool {
    let Ok(found) = SubList::decode(bytes) else { return false };
    assert!(
        SubList::decode(&found.encode()).is_ok_and(|again| again == found),
        "a list that is read back differently"
    );
    true
}

fn chunk_seeds() -> Vec<Vec<u8>> {
    vec![encode_chunk(&entries())]
}

fn chunk(bytes: &[u8]) -> bool {
    let Ok(found) = decode_chunk(bytes) else { return false };
    assert!(encode_chunk(&found) == bytes, "a chunk that would be written differently");
    true
}

fn chunk_record_seeds() -> Vec<Vec<u8>> {
    let entries = pointer().map(|root| {
        let extents = root.extents;
        ChunkRecord::Entries { length: 64, entries: 2, checksum: 7, extents }.encode()
    });
    let parts = ChunkRecord::Parts(vec![Part { list: 5, chunks: 2 }]).encode();
    entries.into_iter().chain([parts]).collect()
}

fn chunk_record(bytes: &[u8]) -> bool {
    with_memory(|dmu| {
        let Ok(found) = ChunkRecord::decode(bytes, dmu) else { return false };
        let again = ChunkRecord::decode(&found.encode(), dmu);
        assert!(again.is_ok_and(|again| again == found), "a record that is read back differently");
        true
    })
}

fn record_seeds() -> Vec<Vec<u8>> {
    let mut writer = RecordWriter::default();
    writer.start(7, 10);
    writer.message(DatasetId(1), Kind::Put, StoragePreference::FAST, b"key", b"value");
    writer.message(DatasetId(300), Kind::Delete, StoragePreference::NONE, b"", b"");
    writer.message(DatasetId(2), Kind::PutLarge, StoragePreference::NONE, b"large", &[0; 36]);
    writer.range_delete(DatasetId(1), b"a", Some(b"b"));
    writer.range_delete(DatasetId(1), b"a", None);
    writer.create(DatasetId(9), &dataset_seeds()[0]);
    writer.rename(DatasetId(2), b"new");
    writer.destroy(DatasetId(3));
    writer.changed(Generation(9));
    writer.filler(5);
    vec![writer.bytes().to_vec()]
}

fn record(bytes: &[u8]) -> bool {
    let read = |bytes: &[u8]| -> Result<RecordWriter, DecodeError> {
        let mut reader = RecordReader::new(bytes)?;
        let mut writer = RecordWriter::default();
        let (mut first, mut count) = (None, 0);
        // Counted first: the writer wants to know how many there are.
        while let Some((sequence, _)) = reader.next()? {
            assert!(
                sequence == *first.get_or_insert(sequence) + count as u64,
                "sequence numbers without a gap"
            );
            count += 1;
        }
        writer.start(first.unwrap_or(0), count);
        let mut reader = RecordReader::new(bytes)?;
        while let Some((_, operation)) = reader.next()? {
            match operation {
                Operation::Message { dataset, entry } => {
                    writer.message(dataset, entry.kind, entry.preference, entry.key, entry.payload);
                }
                Operation::RangeDelete { dataset, start, end } => writer.range_delete(dataset, start, end),
                Operation::Create { dataset, record } => writer.create(dataset, record),
                Operation::Rename { dataset, name } => writer.rename(dataset, name),
                Operation::Destroy { dataset } => writer.destroy(dataset),
                Operation::Changed { generation } => writer.changed(generation),
                Operation::Filler { bytes } => writer.filler(bytes),
            }
        }
        Ok(writer)
    };
    if let Ok(written) = read(bytes) {
        let again = read(written.bytes());
        assert!(
            again.is_ok_and(|again| again.bytes() == written.bytes()),
            "a record that is read back differently"
        );
        return true;
    }
    false
}

fn configuration_seeds() -> Vec<Vec<u8>> {
    vec![
        DatabaseConfiguration::default().to_json_string().unwrap_or_default().into_bytes(),
        include_bytes!("../../tests/data/configuration/betree-every-field.json").to_vec(),
        include_bytes!("../../tests/data/configuration/haura-every-field.json").to_vec(),
        br#"{"storage":{"tiers":[{"top_level_vdevs":["./a",{"path":"b","direct":false}]}]},"cache_size":"1GiB"}"#.to_vec(),
    ]
}

fn configuration(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    match DatabaseConfiguration::from_json_str(&text) {
        Ok(found) => {
            check(&found);
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// What was read can be written and read again.
fn check(found: &DatabaseConfiguration) {
    let written = found.to_json_string();
    let again = written.as_deref().map(DatabaseConfiguration::from_json_str);
    assert!(
        matches!(&again, Ok(Ok(again)) if again == found),
        "a configuration that is read back differently: {written:?}"
    );
    let _any = (found.inactive_settings(), found.allocation_order());
}

fn environment_seeds() -> Vec<Vec<u8>> {
    [
        "BETREE__CACHE_SIZE=4GiB\nBETREE__COMPRESSION={ Zstd = { level = 3 } }",
        "betree__storage__tiers__0__label=fast\nBETREE__STORAGE__TIERS=[{top_level_vdevs=['./a']}]",
        "BETREE__ALLOC_STRATEGY=[[0, 1], [1], [2], [3]]\nBETREE__SYNC_INTERVAL_MS=null",
        "BETREE__DEFAULT_DATASET__FANOUT=8\nPATH=/bin",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn environment(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let before = DatabaseConfiguration::default();
    let mut after = before.clone();
    let result: Result<(), ConfigurationError> =
        after.apply_env(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    match result {
        Ok(()) => {
            check(&after);
            true
        }
        Err(_) => {
            assert!(after == before, "an error that changed something");
            false
        }
    }
}
