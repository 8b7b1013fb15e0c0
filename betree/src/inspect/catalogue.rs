//! P4: the records of the root tree.

use super::code::Code;
use super::ground::Ground;
use super::ledger::Ledger;
use super::reading::{Reading, Skipped};
use super::roots::code_of;
use crate::base::ids::{DatasetId, Generation};
use crate::database::{
    CHUNKS, CONDEMNED, ChunkRecord, DATASETS, DEAD_LISTS, DROPS, DatasetRecord, EVACUATIONS,
    EvacuationRecord, NAME_BYTES_MAX, Role, RootRecord, SCRUBS, SNAPSHOT_NAMES, SNAPSHOTS, ScrubRecord,
    SnapshotRecord, SubList, dataset_key, drops_key, evacuation_key, key_chunk, key_dataset, key_dead_list,
    key_snapshot, known_action, scrub_key,
};
use crate::dmu::DmuError;
use crate::tree::{DropImage, decode_drops, encode_drops};
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

/// The datasets of a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    pub datasets: BTreeMap<DatasetId, DatasetRecord>,
    /// What waits to be freed, chunk after chunk.
    pub drops: BTreeMap<DatasetId, Vec<DropImage>>,
    pub snapshots: BTreeMap<DatasetId, BTreeMap<Generation, SnapshotRecord>>,
    pub snapshot_names: BTreeMap<(DatasetId, Vec<u8>), Generation>,
    /// By dataset, snapshot and interval.
    pub lists: BTreeMap<(DatasetId, Generation, Generation), SubList>,
    /// By list and number.
    pub chunks: BTreeMap<(u64, u32), ChunkRecord>,
    /// What is being freed.
    pub condemned: Vec<SubList>,
    /// Whether nothing of the root tree was left out.
    pub whole: bool,
    /// What was left out.
    pub skipped: Vec<Skipped>,
}

/// The name of a dataset in messages.
pub(super) fn dataset_name(record: &DatasetRecord) -> String {
    let name = record.name.escape_ascii();
    match record.role {
        Role::Dataset => format!("dataset \"{name}\""),
        Role::Metadata => format!("metadata of object store \"{name}\""),
        Role::Chunks => format!("chunks of object store \"{name}\""),
    }
}

impl Catalogue {
    /// Reads the root tree of `record`; reports records that are not as they must be.
    pub fn read(ground: &Ground, record: &RootRecord, ledger: &mut Ledger<'_>) -> Self {
        let mut reading = Reading {
            ground,
            action: None,
            action_name: "",
            overlay: None,
            visited: HashSet::new(),
            keys_only: false,
        };
        let mut catalogue = Self { whole: true, ..Self::default() };
        let mut chunks: BTreeMap<DatasetId, Vec<Vec<u8>>> = BTreeMap::new();
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut skipped = Vec::new();
        let mut entries = Vec::new();
        let _whole = reading.all(
            Some(&record.root_tree),
            &mut |key, value| {
                entries.push((key.to_vec(), value));
                ControlFlow::Continue(())
            },
            &mut |what| skipped.push(what),
        );
        for (key, value) in entries {
            let object = format!("root tree, key {}", key.escape_ascii());
            let value = match value {
                Ok(value) => value,
                Err(error) => {
                    ledger.report(Code::Dataset, object, None, "a record", error);
                    catalogue.whole = false;
                    continue;
                }
            };
            match (key.first(), key_dataset(&key)) {
                (Some(&DATASETS), Some(id)) if key == dataset_key(id) => {
                    catalogue.whole &= catalogue.add_dataset(ground, record, id, &value, ledger);
                }
                (Some(&DROPS), Some(id)) if key.len() == 13 => {
                    chunks.entry(id).or_default().push(value.to_vec());
                    keys.push(key);
                }
                (Some(&(SNAPSHOTS | SNAPSHOT_NAMES | DEAD_LISTS | CHUNKS | CONDEMNED)), Some(id)) => {
                    catalogue.whole &= catalogue.add_snapshot_entry(ground, id, &key, &value, ledger);
                }
                (Some(&SCRUBS), None) if [false, true].map(scrub_key).contains(&key) => {
                    if ScrubRecord::decode(&value).is_ok_and(|record| record.encode() == value[..]) {
                        continue;
                    }
                    ledger.report(Code::Canonical, object, None, "the record of a scrub", "other bytes");
                }
                (Some(&EVACUATIONS), None) if key == evacuation_key() => {
                    if EvacuationRecord::decode(&value).is_ok_and(|record| record.encode() == value[..]) {
                        continue;
                    }
                    let expected = "the record of an evacuation";
                    ledger.report(Code::Canonical, object, None, expected, "other bytes");
                }
                _ => {
                    let expected = "the key of a dataset or of pending drops";
                    ledger.report(Code::Dataset, object, None, expected, key.escape_ascii());
                }
            }
        }
        catalogue.whole &= skipped.is_empty();
        catalogue.skipped = skipped;
        for (id, chunks) in chunks {
            let expected: HashSet<Vec<u8>> = (0..chunks.len() as u32).map(|n| drops_key(id, n)).collect();
            let own = keys.iter().filter(|key| key_dataset(key) == Some(id));
            if !own.into_iter().all(|key| expected.contains(key)) {
                let object = format!("pending drops of dataset {id}");
                ledger.report(
                    Code::Drops,
                    object,
                    None,
                    format!("chunks 0 to {}", chunks.len() - 1),
                    "a gap",
                );
            }
            catalogue.whole &= catalogue.add_drops(ground, id, &chunks, ledger);
        }
        if catalogue.whole {
            catalogue.check(ledger);
        }
        catalogue
    }

    fn add_dataset(
        &mut self,
        ground: &Ground,
        root: &RootRecord,
        id: DatasetId,
        bytes: &[u8],
        ledger: &mut Ledger<'_>,
    ) -> bool {
        let object = format!("record of dataset {id}");
        let record = match DatasetRecord::decode(bytes, &ground.dmu) {
            Ok(record) => record,
            Err(error) => {
                ledger.report(code_of(&error), object, None, "a dataset record", error);
                return false;
            }
        };
        if record.encode() != bytes {
            ledger.report(Code::Canonical, &object, None, "the record as it is written", "other bytes");
        }
        if id.0 == 0 || id.0 >= root.next_dataset {
            let expected = format!("an id from 1 to {}", root.next_dataset.saturating_sub(1));
            ledger.report(Code::Dataset, &object, None, expected, id);
        }
        if record.destroyed == record.root.is_some() {
            let expected = "a root unless the dataset is destroyed";
            let found = if record.destroyed { "both" } else { "neither" };
            ledger.report(Code::Dataset, &object, None, expected, found);
        }
        if record.name.len() > NAME_BYTES_MAX {
            ledger.report(Code::Dataset, &object, None, "a name within its limit", record.name.len());
        }
        self.datasets.insert(id, record);
        true
    }

    /// Adds an entry of snapshots or dead lists; whether it can be read.
    fn add_snapshot_entry(
        &mut self,
        ground: &Ground,
        id: DatasetId,
        key: &[u8],
        bytes: &[u8],
        ledger: &mut Ledger<'_>,
    ) -> bool {
        let object = format!("root tree, key {}", key.escape_ascii());
        let plain = |source| DmuError::Decode { what: "record", source };
        let dmu = &ground.dmu;
        let again = match key[0] {
            SNAPSHOTS => SnapshotRecord::decode(bytes, dmu).map(|record| {
                let encoded = record.encode();
                let place = key_snapshot(key).map(|(_, generation)| generation);
                place.map(|place| self.snapshots.entry(id).or_default().insert(place, record));
                place.map(|_| encoded)
            }),
            SNAPSHOT_NAMES => {
                let generation: Option<[u8; 8]> = bytes.try_into().ok();
                let generation = generation.map(|bytes| Generation(u64::from_le_bytes(bytes)));
                generation.map(|generation| self.snapshot_names.insert((id, key[9..].to_vec()), generation));
                Ok(generation.map(|generation| generation.0.to_le_bytes().to_vec()))
            }
            DEAD_LISTS => SubList::decode(bytes).map_err(plain).map(|list| {
                let encoded = list.encode();
                let place = key_dead_list(key).filter(|_| !list.forget);
                place.map(|place| self.lists.insert(place, list));
                place.map(|_| encoded)
            }),
            CHUNKS => ChunkRecord::decode(bytes, dmu).map(|chunk| {
                let encoded = chunk.encode();
                let place = key_chunk(key);
                place.map(|place| self.chunks.insert(place, chunk));
                place.map(|_| encoded)
            }),
            _ => SubList::decode(bytes).map_err(plain).map(|list| {
                let encoded = list.encode();
                self.condemned.push(list);
                (key.len() == 9).then_some(encoded)
            }),
        };
        match again {
            Ok(Some(again)) if again == bytes => true,
            Ok(Some(_)) => {
                ledger.report(Code::Canonical, object, None, "the record as it is written", "other bytes");
                true
            }
            Ok(None) => {
                ledger.report(
                    Code::Snapshot,
                    object,
                    None,
                    "a key and value of snapshots or dead lists",
                    "others",
                );
                false
            }
            Err(error) => {
                ledger.report(code_of(&error), object, None, "a record of snapshots or dead lists", error);
                false
            }
        }
    }

    /// The dataset that `id` was cloned from first of all.
    pub fn family(&self, mut id: DatasetId) -> DatasetId {
        // A damaged record may lead in a circle.
        for _ in 0..1024 {
            match self.datasets.get(&id).and_then(|record| record.origin) {
                Some(origin) => id = origin.dataset,
                None => break,
            }
        }
        id
    }

    /// The dataset in whose order it stands what `id` dropped in `death`: with the snapshots of then it may have moved to a
    /// clone that was promoted.
    pub fn home(&self, mut id: DatasetId, death: Generation) -> DatasetId {
        for _ in 0..1024 {
            let origin = self.datasets.get(&id).and_then(|record| record.origin);
            match origin.filter(|origin| death <= origin.snapshot) {
                Some(origin) => id = origin.dataset,
                None => break,
            }
        }
        id
    }

    fn add_drops(
        &mut self,
        ground: &Ground,
        id: DatasetId,
        chunks: &[Vec<u8>],
        ledger: &mut Ledger<'_>,
    ) -> bool {
        let object = format!("pending drops of dataset {id}");
        let mut whole = true;
        for bytes in chunks {
            match decode_drops(bytes, &ground.dmu) {
                Ok(drops) => {
                    if encode_drops(&drops) != *bytes {
                        let expected = "the list as it is written";
                        ledger.report(Code::Canonical, &object, None, expected, "other bytes");
                    }
                    if drops.is_empty() {
                        ledger.report(Code::Drops, &object, None, "chunks with entries", "an empty one");
                    }
                    self.drops.entry(id).or_default().extend(drops);
                }
                Err(error) => {
                    ledger.report(code_of(&error), &object, None, "a chunk of pending drops", error);
                    whole = false;
                }
            }
        }
        whole
    }

    fn check(&self, ledger: &mut Ledger<'_>) {
        let mut names: BTreeMap<(Role, &[u8]), DatasetId> = BTreeMap::new();
        for (id, record) in self.datasets.iter().filter(|(_, record)| record.is_named()) {
            if let Some(other) = names.insert((record.role, &record.name), *id) {
                let expected = "a name of one dataset";
                let found = format!("that of datasets {other} and {id}");
                ledger.report(Code::Dataset, dataset_name(record), None, expected, found);
            }
        }
        for id in self.drops.keys().filter(|id| !self.datasets.contains_key(id)) {
            let object = format!("pending drops of dataset {id}");
            ledger.report(Code::Drops, object, None, "drops of a dataset that there is", "one that is gone");
        }
        for (id, record) in self.datasets.iter().filter(|(_, record)| record.destroyed) {
            // Snapshots go some in each checkpoint, and clones may still drop what left it.
            let waits = self.snapshots.get(id).is_some_and(|snapshots| !snapshots.is_empty())
                || self.datasets.values().any(|one| one.origin.is_some_and(|origin| origin.dataset == *id));
            if !waits && !self.drops.contains_key(id) {
                let object = dataset_name(record);
                let expected = "a destroyed dataset with something left to free";
                ledger.report(Code::Drops, object, None, expected, "nothing left");
            }
        }
    }

    /// How the dataset of `record` is read.
    pub fn reading<'a>(&self, ground: &'a Ground, record: &'a DatasetRecord) -> Reading<'a> {
        Reading {
            ground,
            action: known_action(&record.action),
            action_name: &record.action,
            overlay: None,
            visited: HashSet::new(),
            keys_only: false,
        }
    }
}
