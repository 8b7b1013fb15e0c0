//! P4: the order of snapshots, and their dead lists against what is reached.
//!
//! The list of a snapshot is what the snapshot reaches and what follows it (the next one, or the head) does not. Both are
//! walked side by side, level by level: nodes that both have are left out with all below them, so that the work is that of
//! what changed in between.

use super::catalogue::{Catalogue, dataset_name};
use super::code::Code;
use super::ground::{Ground, first};
use super::ownership::Kind;
use super::walk::{Subject, Walk};
use crate::base::checksum::crc;
use crate::base::extent::Extent;
use crate::base::ids::{DatasetId, Generation, Uuid};
use crate::base::units::BLOCK_BYTES;
use crate::database::{ChunkRecord, DatasetRecord, DeadEntry, Role, RootRecord, SubList, decode_chunk};
use crate::run::{EntryRef, Kind as MessageKind, Run, RunReader, RunRef};
use crate::tree::{LargeValue, NodeRef};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The lists of a checkpoint.
pub(super) struct Lists<'a> {
    pub catalogue: &'a Catalogue,
    pub record: &'a RootRecord,
}

/// Extents with their births.
type Entries = BTreeSet<DeadEntry>;

impl Lists<'_> {
    /// Checks all of them; `datasets` each with what its pending drops are.
    pub fn check<'d>(
        &self,
        walk: &mut Walk<'_, '_>,
        datasets: impl Iterator<Item = (&'d Subject, &'d DatasetRecord, &'d HashSet<Extent>)>,
    ) {
        if self.catalogue.whole {
            self.check_order(walk);
            self.check_stagings(walk);
        }
        let mut used = BTreeSet::new();
        let mut lists: BTreeMap<(DatasetId, Generation), Entries> = BTreeMap::new();
        for ((dataset, snapshot, interval), list) in &self.catalogue.lists {
            let object =
                format!("dead list of dataset {dataset}, snapshot {snapshot}, births after {interval}");
            let Some(entries) = self.entries(walk, &object, list, &mut used) else {
                walk.complete = false;
                continue;
            };
            self.check_interval(walk, &object, (*dataset, *snapshot, *interval), &entries);
            let known = lists.entry((*dataset, *snapshot)).or_default();
            for entry in entries {
                if !known.insert(entry) {
                    let expected = "extents that are listed once";
                    walk.ledger.report(
                        Code::DeadList,
                        &object,
                        first(&[entry.extent]),
                        expected,
                        "one twice",
                    );
                }
            }
        }
        for list in &self.catalogue.condemned {
            let object = "what deleted snapshots had";
            match self.entries(walk, object, list, &mut used) {
                Some(entries) => {
                    let extents: Vec<Extent> = entries.iter().map(|entry| entry.extent).collect();
                    walk.owners.add(Kind::Condemned, &extents);
                }
                None => walk.complete = false,
            }
        }
        for (list, index) in self.catalogue.chunks.keys().filter(|key| !used.contains(*key)) {
            let found = format!("chunk {index} of list {list}");
            walk.ledger.report(Code::Lists, "chunks", None, "chunks of lists that there are", found);
        }
        if !walk.complete {
            return;
        }
        let datasets: Vec<_> = datasets.filter(|(_, record, _)| !record.destroyed).collect();
        for (subject, record, pending) in datasets {
            self.check_lists(walk, subject, record, pending, &lists);
        }
    }

    fn check_order(&self, walk: &mut Walk<'_, '_>) {
        let catalogue = self.catalogue;
        let report = &mut |object: String, expected: &str, found: String| {
            walk.ledger.report(Code::Snapshot, object, None, expected, found);
        };
        for ((dataset, name), generation) in &catalogue.snapshot_names {
            let record = catalogue.snapshots.get(dataset).and_then(|all| all.get(generation));
            if record.is_none_or(|record| record.name != *name) {
                let object = format!("snapshot name \"{}\" of dataset {dataset}", name.escape_ascii());
                report(object, "the name of a snapshot", format!("none of generation {generation}"));
            }
        }
        for (dataset, all) in &catalogue.snapshots {
            if !catalogue.datasets.contains_key(dataset) {
                let object = format!("snapshots of dataset {dataset}");
                report(object, "those of a dataset that there is", String::from("one that is gone"));
            }
            for (generation, record) in all {
                let object = format!("snapshot \"{}\" of dataset {dataset}", record.name.escape_ascii());
                if !catalogue.snapshot_names.contains_key(&(*dataset, record.name.clone())) {
                    report(object.clone(), "a snapshot with a name", String::from("a record alone"));
                }
                if *generation > self.record.generation || record.cut > self.record.cut {
                    let found = format!("generation {generation}, cut {}", record.cut);
                    report(object, "one that is not newer than the checkpoint", found);
                }
            }
        }
        for (dataset, record) in &catalogue.datasets {
            let newest = catalogue.snapshots.get(dataset).and_then(|all| all.keys().next_back());
            let newest = newest.copied().unwrap_or_default();
            let object = format!("record of dataset {dataset}");
            if record.newest != newest {
                let expected = format!("newest snapshot {newest}");
                report(object.clone(), &expected, record.newest.to_string());
            }
            if let Some(origin) = record.origin.filter(|_| !record.destroyed)
                && !catalogue
                    .snapshots
                    .get(&origin.dataset)
                    .is_some_and(|all| all.contains_key(&origin.snapshot))
            {
                let found = format!("none of dataset {}, generation {}", origin.dataset, origin.snapshot);
                report(object, "the snapshot that it was cloned from", found);
            }
        }
    }

    /// What is being received: its sections, and what they start from.
    fn check_stagings(&self, walk: &mut Walk<'_, '_>) {
        let catalogue = self.catalogue;
        // Those of one stream are made together: stream, number of sections, and how many of them there are.
        let mut streams: Vec<(Uuid, u32, u32)> = Vec::new();
        let mut halves: Vec<(Uuid, &DatasetRecord)> = Vec::new();
        for (dataset, record) in &catalogue.datasets {
            let Some(receiving) = &record.receiving else { continue };
            halves.push((receiving.stream, record));
            match (streams.last_mut(), receiving.section) {
                (_, 0) => streams.push((receiving.stream, receiving.sections, 1)),
                (Some((stream, sections, found)), section)
                    if (*stream, *sections, *found) == (receiving.stream, receiving.sections, section) =>
                {
                    *found += 1;
                }
                _ => streams.push((receiving.stream, receiving.sections, 0)),
            }
            let snapshots = |dataset| catalogue.snapshots.get(&dataset);
            let base = record.origin.and_then(|origin| snapshots(origin.dataset)?.get(&origin.snapshot));
            let base = base.map_or(Uuid::default(), |base| base.guid);
            let object = format!("what is received into {}", dataset_name(record));
            if base != receiving.base {
                let expected = format!("one that starts from the snapshot {}", receiving.base);
                walk.ledger.report(Code::Staging, &object, None, expected, base);
            }
            let mut own = snapshots(*dataset).into_iter().flat_map(BTreeMap::values);
            let other = own.clone().find(|own| own.guid != receiving.guid).or_else(|| own.nth(1));
            if let Some(other) = other {
                let expected = format!("no snapshot but {}", receiving.guid);
                walk.ledger.report(Code::Staging, &object, None, expected, other.guid);
            }
        }
        // Each metadata has its chunks behind it, in one stream, and there are no other chunks.
        let is_pair = |(of, metadata): &(Uuid, &DatasetRecord), (stream, chunks): &(Uuid, &DatasetRecord)| {
            (metadata.role, chunks.role) == (Role::Metadata, Role::Chunks)
                && (of, &metadata.name) == (stream, &chunks.name)
        };
        for (at, half) in halves.iter().enumerate() {
            let is_whole = match half.1.role {
                Role::Dataset => true,
                Role::Metadata => halves.get(at + 1).is_some_and(|next| is_pair(half, next)),
                Role::Chunks => at > 0 && is_pair(&halves[at - 1], half),
            };
            if !is_whole {
                let object = format!("what is received into {}", dataset_name(half.1));
                let expected = "both datasets of an object store, behind each other";
                walk.ledger.report(Code::Staging, &object, None, expected, "this one alone");
            }
        }
        for (stream, sections, found) in streams.into_iter().filter(|(_, sections, found)| sections != found)
        {
            let object = format!("what is received of stream {stream}");
            walk.ledger.report(Code::Staging, object, None, format!("{sections} sections, in order"), found);
        }
    }

    /// All entries of `list`; `None` when some cannot be read. What its chunks occupy is entered as owned.
    fn entries(
        &self,
        walk: &mut Walk<'_, '_>,
        object: &str,
        list: &SubList,
        used: &mut BTreeSet<(u64, u32)>,
    ) -> Option<Vec<DeadEntry>> {
        let mut entries = list.tail.clone();
        let mut parts = list.parts.clone();
        let mut whole = true;
        while let Some(part) = parts.pop() {
            for index in 0..part.chunks {
                let fresh = used.insert((part.list, index));
                let chunk = self.catalogue.chunks.get(&(part.list, index)).filter(|_| fresh);
                let Some(chunk) = chunk else {
                    let found = if fresh { "none" } else { "one of two lists" };
                    let expected = format!("chunk {index} of list {}", part.list);
                    walk.ledger.report(Code::Lists, object, None, expected, found);
                    return None;
                };
                match chunk {
                    ChunkRecord::Parts(more) => parts.extend(more),
                    ChunkRecord::Entries { length, entries: count, checksum, extents } => {
                        let all = extents.all();
                        if !walk.own(object, Kind::List, &all) {
                            return None;
                        }
                        if list.forget {
                            continue;
                        }
                        let place = first(extents.extents());
                        match self.read_chunk(walk.ground, *length, *checksum, extents.extents()) {
                            Ok(found) if found.len() == *count as usize => entries.extend(found),
                            Ok(found) => {
                                walk.ledger.report(Code::Lists, object, place, count, found.len());
                                whole = false;
                            }
                            Err((code, found)) => {
                                walk.ledger.report(code, object, place, "a chunk of a dead list", found);
                                whole = false;
                            }
                        }
                    }
                }
            }
        }
        if list.forget {
            return Some(Vec::new());
        }
        let blocks: u64 = entries.iter().map(|entry| u64::from(entry.extent.blocks)).sum();
        let found = (entries.len() as u64, blocks);
        if whole && found != (list.entries, list.blocks) {
            let of = |(entries, blocks)| format!("{entries} entries of {blocks} blocks");
            walk.ledger.report(Code::Lists, object, None, of((list.entries, list.blocks)), of(found));
        }
        whole.then_some(entries)
    }

    fn read_chunk(
        &self,
        ground: &Ground,
        length: u32,
        checksum: u32,
        extents: &[Extent],
    ) -> Result<Vec<DeadEntry>, (Code, String)> {
        let length = length as usize;
        let mut is_right = |bytes: &[u8]| crc(&bytes[..length]) == checksum;
        let whole = length.next_multiple_of(BLOCK_BYTES);
        let read = ground.dmu.read_checked(extents, 0, whole, 0..length, &mut is_right);
        let (buffer, right) = read.map_err(|error| (Code::Unreadable, error.to_string()))?;
        let bytes = &buffer[..length];
        if !right {
            return Err((Code::Checksum, format!("checksum {:08x}, not {checksum:08x}", crc(bytes))));
        }
        decode_chunk(bytes).map_err(|error| (Code::Decode, error.to_string()))
    }

    /// Snapshots that `dataset` and those that it was cloned from have.
    fn line(&self, dataset: DatasetId) -> BTreeSet<Generation> {
        let (mut line, mut at, mut limit) = (BTreeSet::new(), dataset, Generation(u64::MAX));
        for _ in 0..1024 {
            let own = self.catalogue.snapshots.get(&at).into_iter().flat_map(BTreeMap::keys);
            line.extend(own.filter(|one| **one <= limit));
            match self.catalogue.datasets.get(&at).and_then(|record| record.origin) {
                Some(origin) => (at, limit) = (origin.dataset, origin.snapshot),
                None => break,
            }
        }
        line
    }

    fn check_interval(
        &self,
        walk: &mut Walk<'_, '_>,
        object: &str,
        (dataset, snapshot, interval): (DatasetId, Generation, Generation),
        entries: &[DeadEntry],
    ) {
        let line = self.line(dataset);
        let next = line.range(interval.next()..).next().copied().unwrap_or(snapshot).min(snapshot);
        let wrong = entries.iter().find(|entry| entry.birth <= interval || entry.birth > next);
        if let Some(entry) = wrong {
            let expected = format!("births from {} to {next}", interval.next());
            walk.ledger.report(Code::Interval, object, first(&[entry.extent]), expected, entry.birth);
        }
    }

    /// Compares the lists of one dataset with what is reached.
    fn check_lists(
        &self,
        walk: &mut Walk<'_, '_>,
        subject: &Subject,
        record: &DatasetRecord,
        pending: &HashSet<Extent>,
        lists: &BTreeMap<(DatasetId, Generation), Entries>,
    ) {
        let own = self.catalogue.snapshots.get(&subject.id);
        let mut order: Vec<(Generation, &NodeRef)> = Vec::new();
        if let Some(origin) = record.origin
            && let Some(of) =
                self.catalogue.snapshots.get(&origin.dataset).and_then(|all| all.get(&origin.snapshot))
        {
            order.push((origin.snapshot, &of.root));
        }
        order.extend(own.into_iter().flatten().map(|(generation, record)| (*generation, &record.root)));
        for ((_, snapshot), _) in
            lists.range((subject.id, Generation(0))..(DatasetId(subject.id.0 + 1), Generation(0)))
        {
            if !order.iter().any(|(one, _)| one == snapshot) {
                let object = format!("dead list of {}, snapshot {snapshot}", subject.name);
                walk.ledger.report(
                    Code::DeadList,
                    object,
                    None,
                    "the list of a snapshot that there is",
                    "none",
                );
            }
        }
        let Some(head) = &record.root else { return };
        for (index, (snapshot, root)) in order.iter().enumerate() {
            let next = order.get(index + 1).map_or(head, |(_, root)| root);
            let object = format!("dead list of {}, snapshot {snapshot}", subject.name);
            let Some(mut wanted) = Difference::of(walk.ground, root, next) else {
                walk.ledger.note(format!("{object} could not be compared"));
                continue;
            };
            // What waits to be looked through is not listed yet.
            wanted.retain(|entry| !pending.contains(&entry.extent));
            let none = Entries::new();
            let listed = lists.get(&(subject.id, *snapshot)).unwrap_or(&none);
            if let Some(entry) = wanted.difference(listed).next() {
                let expected = format!("{} born in {}", entry.extent, entry.birth);
                walk.ledger.report(
                    Code::DeadList,
                    &object,
                    first(&[entry.extent]),
                    expected,
                    "nothing of it",
                );
            }
            if let Some(entry) = listed.difference(&wanted).next() {
                let expected = "nothing that what follows has, or the snapshot has not";
                let found = format!("{} born in {}", entry.extent, entry.birth);
                walk.ledger.report(Code::Undead, &object, first(&[entry.extent]), expected, found);
            }
        }
    }
}

/// What one of two trees reaches beside the other.
#[derive(Default)]
struct Side {
    /// By level.
    nodes: BTreeMap<u8, Vec<NodeRef>>,
    runs: Vec<RunRef>,
    reached: Entries,
}

struct Difference;

impl Difference {
    /// What the tree below `this` reaches and the one below `other` does not; `None` when something cannot be read.
    fn of(ground: &Ground, this: &NodeRef, other: &NodeRef) -> Option<Entries> {
        let (mut a, mut b) = (Side::default(), Side::default());
        a.nodes.entry(this.level).or_default().push(this.clone());
        b.nodes.entry(other.level).or_default().push(other.clone());
        for level in (1..=this.level.max(other.level)).rev() {
            let of_a = a.nodes.remove(&level).unwrap_or_default();
            let of_b = b.nodes.remove(&level).unwrap_or_default();
            let key = |node: &NodeRef| (node.birth, first(node.extents.extents()));
            let (keys_a, keys_b): (HashSet<_>, HashSet<_>) =
                (of_a.iter().map(key).collect(), of_b.iter().map(key).collect());
            for node in of_a.iter().filter(|node| !keys_b.contains(&key(node))) {
                a.enter(ground, node)?;
            }
            for node in of_b.iter().filter(|node| !keys_a.contains(&key(node))) {
                b.enter(ground, node)?;
            }
        }
        let key = |run: &RunRef| (run.birth, first(run.extents.extents()));
        let (keys_a, keys_b): (HashSet<_>, HashSet<_>) =
            (a.runs.iter().map(key).collect(), b.runs.iter().map(key).collect());
        let runs_a = std::mem::take(&mut a.runs);
        let runs_b = std::mem::take(&mut b.runs);
        for run in runs_a.iter().filter(|run| !keys_b.contains(&key(run))) {
            a.add_run(ground, run)?;
        }
        for run in runs_b.iter().filter(|run| !keys_a.contains(&key(run))) {
            b.add_run(ground, run)?;
        }
        a.reached.retain(|entry| !b.reached.contains(entry));
        Some(a.reached)
    }
}

impl Side {
    fn add(&mut self, birth: Generation, extents: &[Extent]) {
        self.reached.extend(extents.iter().map(|extent| DeadEntry { birth, extent: *extent }));
    }

    fn enter(&mut self, ground: &Ground, node: &NodeRef) -> Option<()> {
        self.add(node.birth, &node.extents.all());
        let (_, image) = ground.header(node).ok()?;
        for slot in image.slots {
            for run in slot.runs {
                self.runs.push(run.ok()?);
            }
            if let Some(child) = slot.child {
                let child = child.ok().filter(|child| child.level < node.level)?;
                self.nodes.entry(child.level).or_default().push(child);
            }
        }
        Some(())
    }

    fn add_run(&mut self, ground: &Ground, run: &RunRef) -> Option<()> {
        self.add(run.birth, &run.extents.all());
        if run.large_bytes == 0 {
            return Some(());
        }
        let run = Run::open(&ground.dmu, RunRef { birth: run.birth.max(Generation(1)), ..run.clone() });
        let mut reader = RunReader::new(&run).ok()?;
        let mut values = Vec::new();
        let mut visit = |entry: EntryRef<'_>| {
            if entry.kind == MessageKind::PutLarge {
                values.push(LargeValue::decode(entry.payload));
            }
        };
        let whole = reader.check(&mut visit, &mut |_| ());
        for value in values {
            let value = value.ok()?;
            self.add(value.birth, &value.extents);
        }
        whole.then_some(())
    }
}
