//! A tree read with whatever is damaged left out and named: for the catalogue, for salvage, and to compare with what the
//! database reads. It shares no code with the reads of the database but that of runs and messages.

use super::ground::{Ground, first};
use super::merge::Merge;
use super::runs::code_of_run;
use crate::run::{EntryRef, Kind, RangeDelete, Run, RunFlaw, RunRef};
use crate::tree::{Action, NodeRef, TreeError, Value, Versions};
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// A message of the log.
#[derive(Debug, Clone)]
pub(super) struct Logged {
    pub sequence: u64,
    pub kind: Kind,
    pub payload: Vec<u8>,
}

/// What the log says of one dataset.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Per key oldest first.
    pub messages: BTreeMap<Vec<u8>, Vec<Logged>>,
    pub range_deletes: Vec<RangeDelete>,
}

/// Something that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// What it is and what is wrong with it.
    pub what: String,
    /// First key that may be missing, or have an older value than it should.
    pub low: Vec<u8>,
    /// The first key behind; `None`: all to the end.
    pub high: Option<Vec<u8>>,
}

/// How a tree is read.
pub(super) struct Reading<'a> {
    pub ground: &'a Ground,
    pub action: Option<Action>,
    pub action_name: &'a str,
    pub overlay: Option<&'a Overlay>,
    /// First blocks of the nodes met, so that every reading ends.
    pub visited: HashSet<(crate::base::ids::VdevId, u64)>,
    /// Large values are taken for empty ones, and not read.
    pub keys_only: bool,
}

/// Takes entries in order, or what is wrong with the value of a key.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&[u8], Result<Value, TreeError>) -> ControlFlow<()>;
/// Takes what was left out.
pub(super) type Skip<'a> = &'a mut dyn FnMut(Skipped);

impl Reading<'_> {
    /// Reads the tree below `root`; without a root, what the log says alone.
    pub fn all(&mut self, root: Option<&NodeRef>, visit: Visit<'_>, skip: Skip<'_>) -> ControlFlow<()> {
        match root {
            Some(root) => self.node(root, (&[], None), &[], None, visit, skip),
            None => self.leaf((&[], None), &[], visit, skip),
        }
    }

    fn node(
        &mut self,
        reference: &NodeRef,
        (low, high): (&[u8], Option<&[u8]>),
        above: &[Arc<Run>],
        level: Option<u8>,
        visit: Visit<'_>,
        skip: Skip<'_>,
    ) -> ControlFlow<()> {
        let fits = level.is_none_or(|level| reference.level == level);
        let is_new = first(reference.extents.extents()).is_none_or(|address| self.visited.insert(address));
        let image = match self.ground.header(reference) {
            Ok((_, image)) if fits && is_new && image.level == reference.level => image,
            other => {
                let why =
                    other.map_or_else(|fault| fault.to_string(), |_| String::from("not the node meant"));
                let at = first(reference.extents.extents());
                skip(Skipped {
                    what: format!("node {}: {why}", at_text(at)),
                    low: low.into(),
                    high: owned(high),
                });
                // What lies in the buffers above it is newer than what is lost.
                return self.leaf((low, high), above, visit, skip);
            }
        };
        let mut floor = low.to_vec();
        for (index, slot) in image.slots.iter().enumerate() {
            let pivot = image.pivots.get(index).map(|pivot| &**pivot);
            // Pivots that are out of order must not lead back.
            let ceiling = match (pivot, high) {
                (Some(pivot), Some(high)) => Some(pivot.min(high)),
                (pivot, high) => pivot.or(high),
            };
            let ceiling = ceiling.map(|ceiling| ceiling.max(floor.as_slice()).to_vec());
            let bounds = (floor.as_slice(), ceiling.as_deref());
            let mut runs: Vec<Arc<Run>> = above.to_vec();
            for reference in &slot.runs {
                match reference {
                    Ok(reference) => runs.push(self.open(reference)),
                    Err(error) => skip(Skipped {
                        what: format!("run: {error}"),
                        low: floor.clone(),
                        high: ceiling.clone(),
                    }),
                }
            }
            match &slot.child {
                None => self.leaf(bounds, &runs, visit, skip)?,
                Some(Ok(child)) => {
                    self.node(child, bounds, &runs, Some(image.level - 1), visit, skip)?;
                }
                Some(Err(error)) => {
                    skip(Skipped {
                        what: format!("node: {error}"),
                        low: floor.clone(),
                        high: ceiling.clone(),
                    });
                    self.leaf(bounds, &runs, visit, skip)?;
                }
            }
            match ceiling {
                Some(ceiling) => floor = ceiling,
                None => break,
            }
        }
        ControlFlow::Continue(())
    }

    fn open(&self, reference: &RunRef) -> Arc<Run> {
        // A run that was never born would give its blocks back when it is let go.
        let birth = reference.birth.max(crate::base::ids::Generation(1));
        Run::open(&self.ground.dmu, RunRef { birth, ..reference.clone() })
    }

    /// The entries of a leaf, from the runs above it and its own.
    fn leaf(
        &mut self,
        (low, high): (&[u8], Option<&[u8]>),
        runs: &[Arc<Run>],
        visit: Visit<'_>,
        skip: Skip<'_>,
    ) -> ControlFlow<()> {
        let touching: Vec<Arc<Run>> =
            runs.iter().filter(|run| run.reference().overlaps(low, high)).cloned().collect();
        let mut damaged = |run: &Arc<Run>, flaw: RunFlaw| skip(skipped_run(run, &flaw, (low, high)));
        let mut merge = Merge::new(&touching, low, &mut damaged);
        let empty = Overlay::default();
        let overlay = self.overlay.unwrap_or(&empty);
        let mut from_log = overlay.messages.range::<[u8], _>((
            std::ops::Bound::Included(low),
            high.map_or(std::ops::Bound::Unbounded, |high| std::ops::Bound::Excluded(high.max(low))),
        ));
        let mut next_logged = from_log.next();
        loop {
            let stored = merge.key().filter(|key| high.is_none_or(|high| *key < high));
            let key = match (stored, next_logged) {
                (Some(stored), Some((logged, _))) => stored.min(logged.as_slice()).to_vec(),
                (Some(stored), None) => stored.to_vec(),
                (None, Some((logged, _))) => logged.clone(),
                (None, None) => return ControlFlow::Continue(()),
            };
            let mut versions: Vec<Logged> = Vec::new();
            if let Some((logged, messages)) = next_logged
                && *logged == key
            {
                versions.extend(messages.iter().cloned());
                next_logged = from_log.next();
            }
            merge.take(&key, &mut damaged, &mut |_, entry| {
                let EntryRef { sequence, kind, payload, .. } = entry;
                versions.push(Logged { sequence, kind, payload: payload.to_vec() });
            });
            let covering = overlay.range_deletes.iter().filter(|range| range.covers(&key));
            let deleted = covering.map(|range| range.sequence).max().unwrap_or(0).max(merge.covering(&key));
            if let Some(value) = self.resolve(&key, versions, deleted) {
                visit(&key, value)?;
            }
        }
    }

    fn resolve(
        &self,
        key: &[u8],
        mut versions: Vec<Logged>,
        deleted: u64,
    ) -> Option<Result<Value, TreeError>> {
        versions.sort_by_key(|version| std::cmp::Reverse(version.sequence));
        let mut resolver = Versions::new(deleted);
        for version in &versions {
            let Logged { sequence, kind, payload } = version;
            let preference = crate::base::preference::StoragePreference::NONE;
            resolver.push(EntryRef { key, sequence: *sequence, kind: *kind, preference, payload });
            if resolver.is_done() {
                break;
            }
        }
        let bases = versions.iter().filter(|version| version.kind != Kind::Upsert);
        let base = bases.max_by_key(|version| version.sequence);
        if self.keys_only && base.is_some_and(|base| base.kind == Kind::PutLarge && base.sequence >= deleted)
        {
            return Some(Ok(Value::from(&[][..])));
        }
        let value = resolver.value(key, &self.ground.dmu, self.action.as_ref(), self.action_name);
        value.transpose()
    }
}

fn owned(high: Option<&[u8]>) -> Option<Vec<u8>> {
    high.map(<[u8]>::to_vec)
}

fn at_text(at: super::ledger::Block) -> String {
    at.map_or_else(|| String::from("nowhere"), |(vdev, block)| format!("at vdev {vdev} block {block}"))
}

/// The keys that a damaged run may have said something about.
fn skipped_run(run: &Arc<Run>, flaw: &RunFlaw, (low, high): (&[u8], Option<&[u8]>)) -> Skipped {
    let reference = run.reference();
    let from = run.low().max(low).to_vec();
    let behind = |last: &[u8]| [last, &[0]].concat();
    let end = match (&reference.keys, &reference.hull) {
        (Some((_, last)), None) => Some(behind(last)),
        _ => None,
    };
    let to = match (end, high) {
        (Some(end), Some(high)) => Some(end.min(high.to_vec())),
        (end, high) => end.or(owned(high)),
    };
    let at = run.dmu().block_at(reference.extents.extents(), flaw.offset);
    let what = format!("run {}: {} {}", at_text(at), code_of_run(flaw.fault), flaw.found);
    Skipped { what, low: from, high: to }
}
