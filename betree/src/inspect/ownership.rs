//! P3 and P5: who owns which block, and whether bitmaps and counts say the same.

use super::code::Code;
use super::ground::{Ground, Placement, first};
use super::ledger::Ledger;
use super::roots::report_flaw;
use crate::base::extent::Extent;
use crate::base::ids::VdevId;
use crate::dmu::{AllocationState, Fault, SegmentCounts};
use std::collections::HashSet;

/// What an extent is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    /// Of tree number n.
    Node(u32),
    Run(u32),
    Value(u32),
    /// The map of a vdev that left.
    Map,
    /// A chunk of a dead list.
    List,
    /// What a deleted snapshot had, and is being freed.
    Condemned,
    /// The log, and large values that only it names: they are in no bitmap.
    Log,
}

/// Extents with their owners.
#[derive(Debug, Default)]
pub(super) struct Owners {
    all: Vec<(Extent, Kind)>,
    /// Names of the trees.
    trees: Vec<String>,
}

/// What the comparison with the bitmaps leaves for a repair.
#[derive(Debug, Default)]
pub(super) struct Repairable {
    pub counts: Vec<SegmentCounts>,
    pub leaks: Vec<Extent>,
}

impl Owners {
    /// The number of a tree called `name`.
    pub fn tree(&mut self, name: String) -> u32 {
        self.trees.push(name);
        self.trees.len() as u32 - 1
    }

    pub fn add(&mut self, kind: Kind, extents: &[Extent]) {
        self.all.extend(extents.iter().map(|extent| (*extent, kind)));
    }

    fn name(&self, kind: Kind) -> String {
        let (what, tree) = match kind {
            Kind::Table => return String::from("allocation table root"),
            Kind::Log => return String::from("log"),
            Kind::Map => return String::from("map of a vdev that left"),
            Kind::List => return String::from("dead list"),
            Kind::Condemned => return String::from("what is being freed"),
            Kind::Node(tree) => ("node", tree),
            Kind::Run(tree) => ("run", tree),
            Kind::Value(tree) => ("large value", tree),
        };
        format!("{what} of {}", self.trees.get(tree as usize).map_or("?", String::as_str))
    }

    /// Compares what was reached with itself and with `table`. `complete` says that nothing was left out: only then
    /// is a block without an owner a leak.
    pub fn compare(
        mut self,
        ground: &Ground,
        table: Option<&AllocationState>,
        complete: bool,
        ledger: &mut Ledger<'_>,
    ) -> Repairable {
        let mut all = self.places(ground, ledger);
        all.sort_unstable_by_key(|(extent, kind)| (extent.vdev, extent.block, extent.blocks, order(*kind)));
        self.check_overlaps(&all, ledger);
        let mut repairable = Repairable::default();
        let Some(table) = table else { return repairable };
        let of_log =
            |extent: &Extent| all.iter().any(|(other, kind)| *kind == Kind::Log && other.overlaps(extent));
        let reached: Vec<Extent> = all
            .iter()
            .filter(|(_, kind)| *kind != Kind::Log)
            .map(|(extent, _)| *extent)
            .filter(|extent| ground.placement(Some(table), extent) == Placement::Fine)
            .collect();
        let mut left_out = 0;
        let counts = table.compare(&ground.pool, &reached, &mut |flaw| {
            if flaw.fault == Fault::Leak {
                let (vdev, block) = (flaw.vdev, flaw.block);
                let leak = Extent { vdev, block, blocks: u32::try_from(flaw.blocks).unwrap_or(u32::MAX) };
                if !complete {
                    left_out += flaw.blocks;
                    return;
                }
                if !of_log(&leak) {
                    repairable.leaks.push(leak);
                }
            }
            report_flaw(&flaw, None, ledger);
        });
        if left_out > 0 {
            ledger.note(format!("{left_out} blocks are taken and may belong to what could not be read"));
        }
        repairable.counts = counts;
        repairable
    }

    /// What was reached, where it is: what lay on vdevs that left is at its places.
    fn places(&mut self, ground: &Ground, ledger: &mut Ledger<'_>) -> Vec<(Extent, Kind)> {
        let mut all = Vec::with_capacity(self.all.len());
        let mut reported = HashSet::new();
        for (extent, kind) in std::mem::take(&mut self.all) {
            match ground.dmu.places_of_moved(&extent) {
                Some(places) => all.extend(places.into_iter().map(|place| (place, kind))),
                None if ground.dmu.has_left(extent.vdev) => {
                    if reported.insert(extent) {
                        let (object, expected) = (self.name(kind), "a place for what is reached");
                        ledger.report(Code::Moved, object, first(&[extent]), expected, extent);
                    }
                }
                None => all.push((extent, kind)),
            }
        }
        all
    }

    fn check_overlaps(&self, all: &[(Extent, Kind)], ledger: &mut Ledger<'_>) {
        let mut farthest: Option<(Extent, Kind)> = None;
        for (extent, kind) in all {
            if let Some((before, other)) = farthest
                && before.overlaps(extent)
            {
                let expected = format!("blocks of one owner, {} ({before})", self.name(other));
                let found = format!("also {} ({extent})", self.name(*kind));
                ledger.report(Code::Overlap, "blocks", first(&[*extent]), expected, found);
            }
            let reaches = |of: &Extent| (of.vdev, of.end());
            if farthest.is_none_or(|(before, _)| reaches(&before) < reaches(extent)) {
                farthest = Some((*extent, *kind));
            }
        }
    }

    /// Blocks of tree number `tree`.
    pub fn blocks_of(&self, tree: u32) -> u64 {
        let own = |kind: Kind| matches!(kind, Kind::Node(n) | Kind::Run(n) | Kind::Value(n) if n == tree);
        self.all.iter().filter(|(_, kind)| own(*kind)).map(|(extent, _)| u64::from(extent.blocks)).sum()
    }
}

fn order(kind: Kind) -> (u8, u32) {
    match kind {
        Kind::Table => (0, 0),
        Kind::Node(tree) => (1, tree),
        Kind::Run(tree) => (2, tree),
        Kind::Value(tree) => (3, tree),
        Kind::List => (4, 0),
        Kind::Condemned => (5, 0),
        Kind::Log => (6, 0),
        Kind::Map => (7, 0),
    }
}

/// A block by its vdev and number.
pub(super) type Address = (VdevId, u64);
