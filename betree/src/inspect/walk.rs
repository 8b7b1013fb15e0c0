//! P2: from a root pointer down, through every node, run and large value.

use super::code::Code;
use super::ground::{Ground, HeaderFault, first};
use super::ledger::Ledger;
use super::merge::Merge;
use super::ownership::{Address, Kind, Owners};
use super::roots::{block_bytes, code_of, placed};
use super::runs::RunCheck;
use crate::base::extent::Extent;
use crate::base::ids::{DatasetId, Generation};
use crate::base::units::blocks_for;
use crate::dmu::AllocationState;
use crate::run::{Run, RunRef};
use crate::tree::{DropImage, DroppedImage, NodeImage, NodeRef, SlotImage};
use std::collections::HashSet;
use std::sync::Arc;

/// The keys that something may hold: from `low` up to, but not including, `high`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<'a> {
    pub low: &'a [u8],
    pub high: Option<&'a [u8]>,
}

impl Bounds<'_> {
    /// All keys.
    pub const ALL: Bounds<'static> = Bounds { low: &[], high: None };
}

/// The tree that is walked.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    /// `dataset "a"`.
    pub name: String,
    pub id: DatasetId,
    /// Its number among the owners.
    pub number: u32,
    /// The newest sequence number that it may hold.
    pub cut: u64,
    /// Whether what others wrote may be in it.
    pub is_clone: bool,
}

/// A walk of all trees of one checkpoint.
pub(super) struct Walk<'a, 'l> {
    pub ground: &'a Ground,
    pub table: Option<&'a AllocationState>,
    pub owners: &'a mut Owners,
    pub ledger: &'a mut Ledger<'l>,
    /// Whether large values are read.
    pub deep: bool,
    /// First blocks of the nodes met.
    pub visited: HashSet<Address>,
    /// What trees that share with the one being walked own; it is not looked at again.
    pub known: HashSet<Extent>,
    /// What the tree being walked owns.
    pub own: Vec<Extent>,
    /// While a pending drop is walked: what was born up to here does not die with it, and what was met.
    pub drop: Option<(Generation, HashSet<Extent>)>,
    /// Runs without a fault and without large values, by first block and checksum: the fallback shares them.
    pub sound: &'a mut HashSet<(Address, u32)>,
    /// Whether everything that is reached was read.
    pub complete: bool,
    pub messages: u64,
}

/// The runs of the slots from a node up to the root, newest first.
type Above = Vec<Arc<Run>>;

impl Walk<'_, '_> {
    /// Walks the tree below `root`, which `limit` refers to.
    pub fn tree(&mut self, subject: &Subject, root: &NodeRef, limit: Generation) {
        let place = format!("{}, node /", subject.name);
        self.node(subject, &place, root, limit, Bounds::ALL, Some(&Vec::new()));
    }

    /// What follows shares nothing with what was walked.
    pub fn start_family(&mut self) {
        self.known.clear();
        self.own.clear();
    }

    /// The next tree may share with those walked since [`Walk::start_family`].
    pub fn end_tree(&mut self) {
        self.known.extend(self.own.drain(..));
    }

    /// Whether the owner of `extents` was looked at already.
    pub fn is_known(&self, extents: &[Extent]) -> bool {
        self.drop.is_none() && extents.first().is_some_and(|extent| self.known.contains(extent))
    }

    /// Whether something of this birth belongs to a snapshot, and not to the pending drop that names it.
    pub fn is_kept(&self, birth: Generation) -> bool {
        self.drop.as_ref().is_some_and(|(floor, _)| birth <= *floor)
    }

    /// Walks what waits to be freed; adds to `met` what that is.
    pub fn dropped(
        &mut self,
        subject: &Subject,
        dropped: &DropImage,
        index: usize,
        limit: Generation,
        met: &mut HashSet<Extent>,
    ) {
        let place = format!("{}, pending drop {index}", subject.name);
        if dropped.generation > limit {
            let expected = format!("a generation of at most {limit}");
            self.ledger.report(Code::Generation, &place, None, expected, dropped.generation);
        }
        self.drop = Some((dropped.floor, std::mem::take(met)));
        match &dropped.what {
            DroppedImage::Node(node) => self.node(subject, &place, node, limit, Bounds::ALL, None),
            DroppedImage::Run(run) => {
                self.run(subject, &place, run, limit, Bounds::ALL);
            }
        }
        if let Some((_, all)) = self.drop.take() {
            *met = all;
        }
    }

    /// Whether all of `extents` may be read; they are entered as owned.
    pub fn own(&mut self, place: &str, kind: Kind, all: &[Extent]) -> bool {
        if let Some((_, met)) = &mut self.drop {
            met.extend(all);
        }
        if !all.first().is_some_and(|extent| self.known.contains(extent)) {
            self.owners.add(kind, all);
            self.own.extend_from_slice(all);
        }
        let mut fine = true;
        for extent in all {
            fine &= placed(self.ground, self.table, place, extent, self.ledger);
        }
        fine
    }

    fn node(
        &mut self,
        subject: &Subject,
        place: &str,
        reference: &NodeRef,
        limit: Generation,
        bounds: Bounds<'_>,
        above: Option<&Above>,
    ) {
        if !self.ledger.tick() {
            self.complete = false;
            return;
        }
        let extents = reference.extents.extents();
        if self.is_kept(reference.birth) || self.is_known(extents) {
            return;
        }
        let at = first(extents);
        if let Some(address) = at
            && !self.visited.insert(address)
        {
            self.ledger.report(Code::Cycle, place, at, "a node that is reached once", "one met before");
            self.complete = false;
            return;
        }
        self.ledger.totals.nodes += 1;
        if !self.own(place, Kind::Node(subject.number), &reference.extents.all()) {
            self.complete = false;
            return;
        }
        if reference.birth > limit {
            let expected = format!("a node of at most generation {limit}");
            self.ledger.report(Code::Generation, place, at, expected, reference.birth);
        }
        if !self.ground.dmu.fits(extents, blocks_for(u64::from(reference.length))) {
            let expected = format!("blocks for {} bytes", reference.length);
            self.ledger.report(Code::Size, place, at, expected, block_bytes(extents));
        }
        let image = match self.ground.header(reference) {
            Ok((bytes, image)) => {
                let encoded = image.encode(self.ground.pool.uuid());
                if encoded.is_some_and(|encoded| encoded[..] != bytes[..]) {
                    let expected = "the header as it is written";
                    self.ledger.report(Code::Canonical, place, at, expected, "other bytes");
                }
                image
            }
            Err(fault) => {
                let (code, expected) = match fault {
                    HeaderFault::Unreadable(_) => (Code::Unreadable, "a node header".to_owned()),
                    HeaderFault::Checksum(_) => {
                        (Code::Checksum, format!("a node header with checksum {:08x}", reference.checksum))
                    }
                    HeaderFault::Decode(_) => (Code::Decode, "a node header".to_owned()),
                    HeaderFault::Foreign => (Code::Identity, "a node of this pool".to_owned()),
                };
                self.ledger.report(code, place, at, expected, fault);
                self.complete = false;
                return;
            }
        };
        let header = (image.level, image.generation);
        if header != (reference.level, reference.birth) {
            let of = |(level, generation)| format!("level {level}, generation {generation}");
            let expected = of((reference.level, reference.birth));
            self.ledger.report(Code::Identity, place, at, expected, of(header));
        }
        self.check_pivots(place, &image, bounds, at);
        let base = place.trim_end_matches('/');
        for (index, slot) in image.slots.iter().enumerate() {
            let low = index.checked_sub(1).map_or(bounds.low, |before| &image.pivots[before]);
            let high = image.pivots.get(index).map(|pivot| &**pivot).or(bounds.high);
            let place = format!("{base}/{index}");
            self.slot(subject, &place, &image, slot, Bounds { low, high }, above);
        }
    }

    fn check_pivots(&mut self, place: &str, image: &NodeImage, bounds: Bounds<'_>, at: Option<Address>) {
        if let Some(pair) = image.pivots.windows(2).find(|pair| pair[0] >= pair[1]) {
            let expected = format!("a pivot above {}", pair[0].escape_ascii());
            self.ledger.report(Code::Order, place, at, expected, pair[1].escape_ascii());
        }
        let inside = |pivot: &[u8]| *pivot > *bounds.low && bounds.high.is_none_or(|high| *pivot < *high);
        if let Some(pivot) = image.pivots.iter().find(|pivot| !inside(pivot)) {
            let expected = "pivots inside of the slot of the parent";
            self.ledger.report(Code::Bounds, place, at, expected, pivot.escape_ascii());
        }
    }

    fn slot(
        &mut self,
        subject: &Subject,
        place: &str,
        node: &NodeImage,
        slot: &SlotImage,
        bounds: Bounds<'_>,
        above: Option<&Above>,
    ) {
        let mut runs = Vec::new();
        let mut whole = above.is_some();
        for (index, reference) in slot.runs.iter().enumerate() {
            let place = format!("{place}, run {index}");
            let opened = match reference {
                Ok(reference) => self.run(subject, &place, reference, node.generation, bounds),
                Err(error) => {
                    let expected = "a run pointer with its extents";
                    self.ledger.report(code_of(error), &place, None, expected, error);
                    self.complete = false;
                    None
                }
            };
            whole &= opened.is_some();
            runs.extend(opened);
        }
        if runs.len() == slot.runs.len() {
            self.check_base(place, &runs[slot.runs.len() - slot.base..], bounds);
        }
        let mut path = above.cloned().unwrap_or_default();
        path.extend(runs);
        match &slot.child {
            None => {
                if whole {
                    self.check_order(place, &path, bounds);
                }
            }
            Some(Err(error)) => {
                self.ledger.report(code_of(error), place, None, "a node pointer with its extents", error);
                self.complete = false;
            }
            Some(Ok(child)) if child.level + 1 != node.level => {
                let expected = format!("a child of level {}", node.level - 1);
                self.ledger.report(Code::Level, place, first(child.extents.extents()), expected, child.level);
                self.complete = false;
            }
            Some(Ok(child)) => {
                // Without a run, older messages would seem to lie above newer ones.
                let above = whole.then_some(&path);
                self.node(subject, &format!("{place}/"), child, node.generation, bounds, above);
            }
        }
    }

    /// Checks one run; it is returned when it can be read.
    fn run(
        &mut self,
        subject: &Subject,
        place: &str,
        reference: &RunRef,
        limit: Generation,
        bounds: Bounds<'_>,
    ) -> Option<Arc<Run>> {
        let extents = reference.extents.extents();
        if self.is_kept(reference.birth) {
            return None;
        }
        if self.is_known(extents) {
            return Some(Run::open(&self.ground.dmu, reference.clone()));
        }
        self.ledger.totals.runs += 1;
        let at = first(extents);
        let readable = self.own(place, Kind::Run(subject.number), &reference.extents.all());
        let ledger = &mut *self.ledger;
        if reference.birth.0 == 0 || reference.birth > limit {
            let expected = format!("a run of generation 1 to {limit}");
            ledger.report(Code::Generation, place, at, expected, reference.birth);
        }
        // Runs of today do not say who wrote them.
        if reference.origin.0 != 0 && reference.origin != subject.id && !subject.is_clone {
            let expected = format!("a run of dataset {}", subject.id);
            ledger.report(Code::Identity, place, at, expected, reference.origin);
        }
        if !reference.lies_within(bounds.low, bounds.high) {
            ledger.report(Code::Bounds, place, at, "a run inside of its slot", "keys beyond it");
        }
        if reference.max_sequence > subject.cut {
            let expected = format!("messages up to the cut {}", subject.cut);
            ledger.report(Code::Sequence, place, at, expected, reference.max_sequence);
        }
        if !self.ground.dmu.fits(extents, blocks_for(reference.stored_bytes())) {
            let expected = format!("blocks for {} bytes", reference.stored_bytes());
            ledger.report(Code::Size, place, at, expected, block_bytes(extents));
        }
        if !readable {
            self.complete = false;
            return None;
        }
        // A run that was never born would give its blocks back when it is let go.
        let reference = RunRef { birth: reference.birth.max(Generation(1)), ..reference.clone() };
        let run = Run::open(&self.ground.dmu, reference);
        let known = at.map(|address| (address, run.reference().meta_crc));
        if let Some(known) = known
            && run.reference().large_bytes == 0
            && self.sound.contains(&known)
        {
            return Some(run);
        }
        let mut check = RunCheck { walk: self, subject, place, run: &run, limit };
        let (readable, sound) = check.all();
        if sound && let Some(known) = known {
            self.sound.insert(known);
        }
        readable.then_some(run)
    }

    /// The base runs of a leaf share no key. Those of different tiers may lie between each other.
    fn check_base(&mut self, place: &str, base: &[Arc<Run>], bounds: Bounds<'_>) {
        let meet = |(index, run): (usize, &Arc<Run>)| base[..index].iter().any(|other| other.overlaps(run));
        if !base.iter().enumerate().any(meet) {
            return;
        }
        let mut damaged = |_: &Arc<Run>, _| ();
        let mut merge = Merge::new(base, bounds.low, &mut damaged);
        while let Some(key) = merge.key().map(<[u8]>::to_vec) {
            let (mut holder, mut shared) = (None, false);
            merge.take(&key, &mut damaged, &mut |run, _| {
                shared |= holder.is_some_and(|holder| holder != run);
                holder = Some(run);
            });
            if shared {
                let at = base.first().and_then(|run| first(run.space().extents()));
                let found = format!("two with key {}", key.escape_ascii());
                self.ledger.report(Code::Bounds, place, at, "base runs that share no key", found);
                return;
            }
        }
    }

    /// No message of a key lies above a newer one. `path`: the runs of a leaf and of the slots above it, newest first.
    fn check_order(&mut self, place: &str, path: &[Arc<Run>], bounds: Bounds<'_>) {
        let in_slot = |run: &&Arc<Run>| {
            run.reference().keys.is_some() && run.reference().overlaps(bounds.low, bounds.high)
        };
        let runs: Vec<&Arc<Run>> = path.iter().filter(in_slot).collect();
        let in_order = |index: usize| {
            runs[index + 1..].iter().all(|lower| {
                runs[index].reference().min_sequence > lower.reference().max_sequence
                    || !runs[index].overlaps(lower)
            })
        };
        // Nearly always the bounds alone show it, and nothing is read twice.
        if (0..runs.len()).all(in_order) {
            return;
        }
        let runs: Vec<Arc<Run>> = runs.into_iter().cloned().collect();
        let mut damaged = |_: &Arc<Run>, _| ();
        let mut merge = Merge::new(&runs, bounds.low, &mut damaged);
        while let Some(key) = merge.key().filter(|key| bounds.high.is_none_or(|high| *key < high)) {
            let key = key.to_vec();
            let (mut newest, mut broken) = (u64::MAX, false);
            merge.take(&key, &mut damaged, &mut |_, entry| {
                broken |= entry.sequence >= newest;
                newest = entry.sequence;
            });
            if broken {
                let at = runs.first().and_then(|run| first(run.space().extents()));
                let found = format!("key {} with a newer one below", key.escape_ascii());
                self.ledger.report(Code::Sequence, place, at, "messages newest first", found);
                return;
            }
        }
    }
}
