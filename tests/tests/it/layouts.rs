//! Every layout, each set of members that may be away, and besides it each member that holds nothing right: what is read is what was
//! written as long as the layout bears it, and an error that names device and dataset beyond that.

#![expect(clippy::unwrap_used, reason = "an error where none may be fails the test")]

use betree::vdev::{BlockDevice, SimClock, SimDisk};
use betree::{
    AccessMode, Database, DatabaseConfiguration, DatasetConfiguration, Error, LeafVdev,
    StoragePoolConfiguration, StoragePreference, TierConfiguration, Vdev,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a label area.
const LABEL_BYTES: usize = 16 * 4096;
const DISK_BYTES: u64 = 2 << 20;

/// A top-level vdev: its tier, its kind, how many leaves it has and how many it can do without.
#[derive(Debug, Clone, Copy)]
struct Group {
    tier: usize,
    kind: fn(Vec<LeafVdev>) -> Vdev,
    leaves: usize,
    redundancy: usize,
}

fn mirror(tier: usize, leaves: usize) -> Group {
    Group { tier, kind: Vdev::Mirror, leaves, redundancy: leaves - 1 }
}

fn parity1(tier: usize, leaves: usize) -> Group {
    Group { tier, kind: Vdev::Parity1, leaves, redundancy: 1 }
}

fn parity2(tier: usize, leaves: usize) -> Group {
    Group { tier, kind: Vdev::Parity2, leaves, redundancy: 2 }
}

/// All members of a pool, by vdev.
fn disks_of(groups: &[Group]) -> Vec<std::ops::Range<usize>> {
    let mut first = 0;
    let range = |group: &Group| {
        first += group.leaves;
        first - group.leaves..first
    };
    groups.iter().map(range).collect()
}

/// Without the disks in `away`, where a path that leads nowhere stands in their place.
fn configuration(groups: &[Group], disks: &[SimDisk], away: &[usize]) -> DatabaseConfiguration {
    let leaf = |(number, disk): (usize, &SimDisk)| match away.contains(&number) {
        true => LeafVdev::file(format!("/nowhere/disk {number}")),
        false => LeafVdev::from(Arc::new(disk.device()) as Arc<dyn BlockDevice>),
    };
    let mut leaves = disks.iter().enumerate().map(leaf);
    let mut tiers = vec![TierConfiguration::default(); 4];
    for group in groups {
        tiers[group.tier].top_level_vdevs.push((group.kind)(leaves.by_ref().take(group.leaves).collect()));
    }
    DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers,
            degraded: !away.is_empty(),
            thread_pool_size: Some(0),
            ..StoragePoolConfiguration::default()
        },
        default_dataset: DatasetConfiguration {
            fanout: 4,
            leaf_size: 16 << 10,
            block_size: 4 << 10,
            buffer_size: 16 << 10,
            ..DatasetConfiguration::default()
        },
        access_mode: AccessMode::OpenOrCreate,
        memtable_size: 16 << 10,
        segment_size: 1 << 20,
        cache_size: 1 << 20,
        background_threads: Some(0),
        ..DatabaseConfiguration::default()
    }
}

/// What a pool shows that has no error.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Everything,
    /// The newest checkpoint is damaged, the one before was opened, and the report says so; or no copy of the log is right, which reads
    /// as one that ends there, as after a crash.
    Older,
}

/// What the disks of a pool hold, and what must be read from them.
struct Filled {
    groups: Vec<Group>,
    images: Vec<Vec<u8>>,
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The same at the last checkpoint.
    checkpointed: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Filled {
    /// Small and large values on every tier, over several checkpoints; the last of them are in the log alone.
    fn new(groups: &[Group]) -> Self {
        let clock = SimClock::new(1);
        let count = groups.iter().map(|group| group.leaves).sum();
        let disks: Vec<SimDisk> =
            (0..count).map(|disk| SimDisk::new(&format!("disk {disk}"), DISK_BYTES, &clock)).collect();
        let database = Database::build(configuration(groups, &disks, &[])).unwrap();
        let dataset = database.open_or_create_dataset("data").unwrap();
        let (mut map, mut checkpointed) = (BTreeMap::new(), BTreeMap::new());
        for round in 0..3u8 {
            for number in 0..60u8 {
                let key = vec![number, round % 2];
                let length = if number % 20 < 2 { 30_000 } else { 90 };
                let value = vec![number ^ (round * 37); length];
                let tier = groups[usize::from(number) % groups.len()].tier;
                let preference = StoragePreference::new(tier as u8).unwrap();
                dataset.insert_with_pref(&key, &value, preference).unwrap();
                map.insert(key, value);
            }
            if round < 2 {
                database.checkpoint().unwrap();
                checkpointed = map.clone();
            }
        }
        database.sync().unwrap();
        Self {
            groups: groups.to_vec(),
            images: disks.iter().map(SimDisk::bytes).collect(),
            map,
            checkpointed,
        }
    }

    /// Disks with these contents, those in `wrong` with other bytes everywhere but in their labels.
    fn disks(&self, wrong: &[usize]) -> Vec<SimDisk> {
        let clock = SimClock::new(2);
        let disk = |(number, image): (usize, &Vec<u8>)| {
            let mut image = image.clone();
            if wrong.contains(&number) {
                let end = image.len() - LABEL_BYTES;
                image[LABEL_BYTES..end].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(7) ^ 0x5A);
            }
            SimDisk::from_bytes(&format!("disk {number}"), &image, &clock)
        };
        self.images.iter().enumerate().map(disk).collect()
    }

    /// Reads everything: all of it is right, or there are errors, of which the first is returned.
    fn read(&self, disks: &[SimDisk], away: &[usize]) -> Result<Seen, Error> {
        let database = Database::build(configuration(&self.groups, disks, away))?;
        if database.open_report().is_some_and(|report| report.rolled_back) {
            return Ok(Seen::Older);
        }
        let dataset = database.open_dataset("data")?;
        let (mut first, mut is_older) = (None, false);
        for (key, value) in &self.map {
            match dataset.get(key) {
                Ok(Some(found)) if found[..] == value[..] => {}
                Ok(found) => {
                    let found = found.as_deref();
                    let length = found.map(<[u8]>::len);
                    let checkpointed = self.checkpointed.get(key).map(Vec::as_slice);
                    assert!(found == checkpointed, "key {key:?}, away {away:?}: {length:?} bytes");
                    is_older = true;
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        match first {
            Some(error) => Err(error),
            None => database.verify().map(|_| if is_older { Seen::Older } else { Seen::Everything }),
        }
    }
}

/// All sets of members that the vdevs can do without.
fn bearable(groups: &[Group]) -> Vec<Vec<usize>> {
    let mut out = vec![Vec::new()];
    for (group, disks) in groups.iter().zip(disks_of(groups)) {
        let mut wider = Vec::new();
        for set in (0..1_usize << group.leaves).filter(|set| set.count_ones() as usize <= group.redundancy) {
            let members = disks.clone().filter(|disk| set >> (disk - disks.start) & 1 == 1);
            let members: Vec<usize> = members.collect();
            wider.extend(out.iter().map(|other| [&other[..], &members].concat()));
        }
        out = wider;
    }
    out
}

/// Each member that may be away, each that is wrong, and both: how many cases there were in which that was too much.
fn bears_what_it_promises(groups: &[Group]) -> usize {
    let filled = Filled::new(groups);
    let ranges = disks_of(groups);
    let mut too_much = 0;
    for away in bearable(groups) {
        assert_eq!(filled.read(&filled.disks(&[]), &away).unwrap(), Seen::Everything, "away {away:?}");
        for wrong in (0..filled.images.len()).filter(|disk| !away.contains(disk)) {
            let vdev = ranges.iter().position(|range| range.contains(&wrong)).unwrap();
            let lost = away.iter().filter(|disk| ranges[vdev].contains(disk)).count() + 1;
            let disks = filled.disks(&[wrong]);
            let case = format!("away {away:?}, disk {wrong} wrong");
            let is_borne = lost <= groups[vdev].redundancy;
            match filled.read(&disks, &away) {
                Ok(seen) => assert_eq!(is_borne, seen == Seen::Everything, "{case}: {seen:?}"),
                Err(error) => {
                    let message = error.to_string();
                    assert!(!is_borne && message.contains(&format!("disk {wrong}")), "{case}: {message}");
                    too_much += 1;
                }
            }
        }
    }
    too_much
}

#[test]
fn mirrors_bear_what_they_promise() {
    for leaves in 2..=3 {
        assert!(bears_what_it_promises(&[mirror(0, leaves)]) > 0);
    }
}

#[test]
fn parity_bears_what_it_promises() {
    for leaves in 3..=8 {
        assert!(bears_what_it_promises(&[parity1(0, leaves)]) > 0);
    }
}

#[test]
fn two_parities_bear_what_they_promise() {
    for leaves in 4..=8 {
        assert!(bears_what_it_promises(&[parity2(0, leaves)]) > 0);
    }
}

#[test]
fn mixed_tiers_bear_what_they_promise() {
    assert!(bears_what_it_promises(&[mirror(0, 2), parity1(1, 3)]) > 0);
    assert!(bears_what_it_promises(&[mirror(0, 3), parity1(1, 3), parity2(2, 4)]) > 0);
}
