//! P4: object stores, whose two datasets must say the same.

use super::catalogue::{Catalogue, dataset_name};
use super::code::Code;
use super::ground::Ground;
use super::ledger::Ledger;
use crate::base::ids::DatasetId;
use crate::database::{DatasetRecord, Role};
use crate::object::audit::{Audit, Flaw, Kind};
use crate::tree::NodeRef;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// What the pass needs.
pub(super) struct StoreCheck<'a> {
    pub ground: &'a Ground,
    pub catalogue: &'a Catalogue,
    /// Also look at snapshots.
    pub deep: bool,
}

type Side<'a> = (DatasetId, &'a DatasetRecord);

impl StoreCheck<'_> {
    pub fn check(&self, ledger: &mut Ledger<'_>) {
        let mut stores: BTreeMap<&[u8], [Option<Side<'_>>; 2]> = BTreeMap::new();
        for (id, record) in self.catalogue.datasets.iter().filter(|(_, record)| record.is_named()) {
            let side = match record.role {
                Role::Dataset => continue,
                Role::Metadata => 0,
                Role::Chunks => 1,
            };
            stores.entry(&record.name).or_default()[side] = Some((*id, record));
        }
        for sides in stores.into_values() {
            if !ledger.tick() {
                return;
            }
            match sides {
                [Some(metadata), Some(chunks)] => self.store(metadata, chunks, ledger),
                [Some((_, record)), None] | [None, Some((_, record))] => {
                    let expected = "both datasets of an object store";
                    ledger.report(Code::Store, dataset_name(record), None, expected, "this one alone");
                }
                [None, None] => {}
            }
        }
    }

    fn store(&self, metadata: Side<'_>, chunks: Side<'_>, ledger: &mut Ledger<'_>) {
        let name = dataset_name(metadata.1);
        self.pair(&name, metadata.1, metadata.1.root.as_ref(), chunks.1, chunks.1.root.as_ref(), ledger);
        let snapshots = |side: Side<'_>| self.catalogue.snapshots.get(&side.0).cloned().unwrap_or_default();
        let (ours, theirs) = (snapshots(metadata), snapshots(chunks));
        let names = |all: &BTreeMap<_, crate::database::SnapshotRecord>| -> Vec<_> {
            all.iter().map(|(generation, record)| (*generation, record.name.clone())).collect()
        };
        if names(&ours) != names(&theirs) {
            let expected = "the snapshots of its chunks";
            let found = format!("{}, and {} of its chunks", ours.len(), theirs.len());
            ledger.report(Code::Store, &name, None, expected, found);
        }
        for (generation, kept) in ours.iter().filter(|_| self.deep) {
            let Some(other) = theirs.get(generation) else { continue };
            let name = format!("{name}, snapshot \"{}\"", kept.name.escape_ascii());
            self.pair(&name, metadata.1, Some(&kept.root), chunks.1, Some(&other.root), ledger);
        }
    }

    /// Both datasets in one state.
    fn pair(
        &self,
        name: &str,
        metadata: &DatasetRecord,
        metadata_root: Option<&NodeRef>,
        chunks: &DatasetRecord,
        chunks_root: Option<&NodeRef>,
        ledger: &mut Ledger<'_>,
    ) {
        let mut audit = Audit::default();
        let mut flaws: Vec<Flaw> = Vec::new();
        let (mut unread, mut missing) = (Vec::new(), Vec::new());
        let mut reading = self.catalogue.reading(self.ground, metadata);
        let _done = reading.all(
            metadata_root,
            &mut |key, value| {
                match value {
                    Ok(value) => flaws.extend(audit.metadata(key, &value).err()),
                    Err(error) => unread.push(error.to_string()),
                }
                ControlFlow::Continue(())
            },
            &mut |skipped| missing.push(skipped.what),
        );
        unread.append(&mut missing);
        // What could not be read may be what is missed.
        if unread.is_empty() && flaws.is_empty() {
            flaws.extend(audit.judge());
        }
        if unread.is_empty() && !flaws.iter().any(|flaw| flaw.kind == Kind::Record) {
            let mut gaps = audit.gaps().peekable();
            let mut reading = self.catalogue.reading(self.ground, chunks);
            reading.keys_only = true;
            let mut last = None;
            let _done = reading.all(
                chunks_root,
                &mut |key, _value| {
                    while gaps
                        .next_if(|(_, high)| high.as_ref().is_some_and(|high| &high[..] <= key))
                        .is_some()
                    {}
                    if gaps.peek().is_some_and(|(low, _)| &low[..] <= key) {
                        let flaw = audit.orphan(key);
                        // One of each object is enough.
                        if last.as_ref() != Some(&flaw.object) {
                            last = Some(flaw.object.clone());
                            flaws.push(flaw);
                        }
                    }
                    ControlFlow::Continue(())
                },
                &mut |skipped| unread.push(skipped.what),
            );
        }
        for flaw in flaws {
            let code = match flaw.kind {
                Kind::Record => Code::Object,
                Kind::Orphan => Code::Orphan,
            };
            ledger.report(code, format!("{name}, {}", flaw.object), None, flaw.expected, flaw.found);
        }
        if let Some(what) = unread.pop() {
            ledger.note(format!("{name}: {what}"));
        }
    }
}
