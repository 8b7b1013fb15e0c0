//! What one member of a vdev has wrong: found, named, and not taken for damage.

use super::pool::configuration;
use crate::base::units::BLOCK_BYTES_U64;
use crate::inspect::{CheckOptions, CheckReport, Code, check};
use crate::pool::{LeafVdev, TierConfiguration, Vdev};
use crate::vdev::{BlockDevice, SimClock, SimDisk};
use crate::{Database, DatabaseConfiguration};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Blocks of a label area.
const LABEL_BLOCKS: u64 = 16;

fn settings(disks: &[SimDisk], group: fn(Vec<LeafVdev>) -> Vdev) -> DatabaseConfiguration {
    let leaf = |disk: &SimDisk| LeafVdev::from(Arc::new(disk.device()) as Arc<dyn BlockDevice>);
    let mut settings = configuration(Vec::new());
    let vdev = group(disks.iter().map(leaf).collect());
    settings.storage.tiers = vec![TierConfiguration::new(vec![vdev])];
    settings
}

fn looked(settings: &DatabaseConfiguration) -> CheckReport {
    let options = CheckOptions { deep: true, ..CheckOptions::default() };
    check(settings, &options, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn what_one_member_has_wrong_is_a_finding_of_its_own() {
    type Group = fn(Vec<LeafVdev>) -> Vdev;
    for (leaves, group) in [(2, Vdev::Mirror as Group), (4, Vdev::Parity1), (5, Vdev::Parity2)] {
        let clock = SimClock::new(1);
        let disk = |leaf: usize| SimDisk::new(&format!("disk {leaf}"), 4 << 20, &clock);
        let disks: Vec<SimDisk> = (0..leaves).map(disk).collect();
        let database = Database::create_with(settings(&disks, group), false).unwrap();
        let dataset = database.create_dataset("a").unwrap();
        for round in 0..3u8 {
            for number in 0..400u32 {
                dataset.insert(number.to_be_bytes(), [round; 300]).unwrap();
            }
            dataset.insert(b"large", vec![round; 300_000]).unwrap();
            database.checkpoint().unwrap();
        }
        dataset.insert(b"logged", b"value").unwrap();
        database.sync().unwrap();
        // As after a crash: the log is not empty.
        let images: Vec<SimDisk> = disks
            .iter()
            .map(|disk| SimDisk::from_bytes(disk.name(), &disk.bytes(), &SimClock::new(1)))
            .collect();
        drop(dataset);
        database.close().unwrap();
        assert_eq!(looked(&settings(&images, group)).codes(), [], "sound, on {leaves}");
        for liar in 0..leaves {
            for block in LABEL_BLOCKS..images[liar].len() / BLOCK_BYTES_U64 - LABEL_BLOCKS {
                images[liar].flip_bit(block * BLOCK_BYTES_U64 + 70, 3);
            }
            let before: Vec<Vec<u8>> = images.iter().map(SimDisk::bytes).collect();
            let report = looked(&settings(&images, group));
            // What only the fallback has is wrong for it in the same way.
            let mut codes = report.codes();
            codes.retain(|code| *code != Code::Fallback);
            assert_eq!(codes, [Code::Copy], "{:?}", report.findings.first());
            let of_copy = |finding: &crate::inspect::Finding| {
                finding.code == Code::Copy || finding.object.starts_with("fallback: K6-copy")
            };
            assert!(report.findings.iter().all(of_copy), "{:?}", report.findings);
            let named = |finding: &crate::inspect::Finding| {
                finding.device.as_ref().is_some_and(|device| device.contains(images[liar].name()))
            };
            assert!(report.findings.iter().all(named), "{:?}", report.findings);
            let after: Vec<Vec<u8>> = images.iter().map(SimDisk::bytes).collect();
            assert!(before == after, "a check repairs nothing");
            // The next one alone lies.
            images[liar].overwrite(0, &undone(&before[liar]));
        }
    }
}

/// The bytes of before the flips.
fn undone(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let blocks = bytes.len() as u64 / BLOCK_BYTES_U64;
    for block in LABEL_BLOCKS..blocks - LABEL_BLOCKS {
        bytes[(block * BLOCK_BYTES_U64) as usize + 70] ^= 1 << 3;
    }
    bytes
}
