//! Random damage behind right checksums: never a panic, and what is called clean reads as it was written.
//!
//! `BETREE_MUTATIONS` sets how many, `BETREE_SEED` the first seed.

use super::parts::{Part, What};
use super::pool::{Bench, configuration, devices};
use crate::base::checksum::crc;
use crate::base::ids::DatasetId;
use crate::base::units::{BLOCK_BYTES, BLOCK_BYTES_U64};
use crate::database::Database;
use crate::inspect::Outcome;
use crate::pool::format::End;
use crate::vdev::{BlockDevice, SimClock, SimDisk, SimRng};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.replace('_', "").parse().ok()).unwrap_or(default)
}

/// What a mutation may change without anybody being able to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Pointers, indexes, bitmaps, counts: a change is found, or changes nothing that is read.
    Structure,
    /// Keys, values, names, positions in the log: other contents are as good as those.
    Contents,
}

/// Changes one to three bytes.
fn scramble(rng: &mut SimRng, bytes: &mut [u8]) {
    for _ in 0..1 + rng.below(3) {
        let at = rng.index(bytes.len());
        bytes[at] = match rng.below(6) {
            0 => bytes[at] ^ (1 << rng.below(8)),
            1 => bytes[at].wrapping_add(1),
            2 => bytes[at].wrapping_sub(1),
            3 => 0,
            4 => 0xff,
            _ => rng.next_u64() as u8,
        };
    }
}

/// Makes one mutation; what it was.
fn mutate(bench: &Bench, parts: &[Part], rng: &mut SimRng) -> (Class, String) {
    match rng.below(20) {
        0 => {
            let which = (rng.below(2) == 0).then(|| bench.superblock(None).previous);
            let superblock = bench.superblock(which);
            let mut bytes = superblock.encode();
            scramble(rng, &mut bytes[..4092]);
            let sum = crc(&bytes[..4092]);
            bytes[4092..].copy_from_slice(&sum.to_le_bytes());
            for end in End::BOTH {
                bytes[104] = u8::from(end == End::Back);
                let sum = crc(&bytes[..4092]);
                bytes[4092..].copy_from_slice(&sum.to_le_bytes());
                bench.disks[0].overwrite(bench.slot_offset(end, superblock.slot), &bytes);
            }
            (Class::Contents, String::from("superblock"))
        }
        1 | 2 => {
            let mut payload = bench.superblock(None).payload;
            scramble(rng, &mut payload);
            bench.edit_record(|bytes| bytes.copy_from_slice(&payload));
            (Class::Contents, String::from("root record"))
        }
        3 => {
            let head = bench.record(&bench.ground()).log_head;
            let frame = rng.below(6);
            let offset = (head.extent.block + u64::from(head.offset) + frame) * BLOCK_BYTES_U64;
            let mut bytes = vec![0; BLOCK_BYTES];
            bench.disks[0].device().read_at(&mut bytes, offset).unwrap();
            scramble(rng, &mut bytes[..200]);
            let payload = u32::from_le_bytes(bytes[72..76].try_into().unwrap()) as usize;
            if let Some(covered) = bytes.get(12..96usize.saturating_add(payload)) {
                let sum = crc(covered);
                bytes[8..12].copy_from_slice(&sum.to_le_bytes());
            }
            bench.disks[0].overwrite(offset, &bytes);
            (Class::Contents, format!("frame {frame} of the log"))
        }
        _ => {
            let index = rng.index(parts.len());
            let part = &parts[index];
            bench.edit(parts, index, |bytes| scramble(rng, bytes));
            let class = match part.what {
                What::Block | What::Value => Class::Contents,
                // A range delete is contents, and only its hull is known elsewhere.
                What::Meta if part.dataset == DatasetId(2) => Class::Contents,
                _ => Class::Structure,
            };
            (class, format!("{:?} of dataset {}", part.what, part.dataset))
        }
    }
}

/// Reads everything; whether it is as the model says.
fn reads_as_written(bench: &Bench) -> Result<bool, crate::Error> {
    let database = Database::open_read_only(bench.configuration.clone())?;
    if database.datasets()?.len() != bench.model.len() {
        return Ok(false);
    }
    for (name, entries) in &bench.model {
        let mut expected = entries.iter();
        for entry in database.open_dataset(name)?.range::<&[u8]>(..) {
            let (key, value) = entry?;
            if expected.next().is_none_or(|(k, v)| **k != *key || **v != *value) {
                return Ok(false);
            }
        }
        if expected.next().is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[derive(Debug, Default)]
struct Tally {
    mutations: u64,
    clean: u64,
    clean_structure: u64,
    leaks: u64,
    damaged: u64,
    cannot_run: u64,
}

fn campaign(base: &Bench, first: u64, count: u64) -> Tally {
    let disk = SimDisk::from_bytes("disk", &base.disks[0].bytes(), &SimClock::new(1));
    let settings = configuration(devices(std::slice::from_ref(&disk)));
    let bench = Bench { disks: vec![disk], configuration: settings, model: base.model.clone() };
    let parts = bench.parts();
    let snapshot = bench.disks[0].snapshot();
    let mut tally = Tally::default();
    for seed in first..first + count {
        bench.disks[0].restore(&snapshot);
        let mut rng = SimRng::new(seed);
        let (class, what) = mutate(&bench, &parts, &mut rng);
        let options = crate::inspect::CheckOptions { deep: seed % 16 == 0, findings_max: 20 };
        let watch = &mut |_: &crate::inspect::Progress| std::ops::ControlFlow::Continue(());
        let checked =
            catch_unwind(AssertUnwindSafe(|| crate::inspect::check(&bench.configuration, &options, watch)));
        let checked =
            checked.unwrap_or_else(|_| panic!("BETREE_SEED={seed}: the check of a {what} panicked"));
        tally.mutations += 1;
        match checked.map(|report| report.outcome()) {
            Err(_) => tally.cannot_run += 1,
            Ok(Outcome::Damaged) => tally.damaged += 1,
            Ok(Outcome::Leaks) => tally.leaks += 1,
            Ok(Outcome::Clean) => {
                tally.clean += 1;
                let read = catch_unwind(AssertUnwindSafe(|| reads_as_written(&bench)));
                let read =
                    read.unwrap_or_else(|_| panic!("BETREE_SEED={seed}: reading past a {what} panicked"));
                if class == Class::Structure {
                    tally.clean_structure += 1;
                    assert!(matches!(read, Ok(true)), "BETREE_SEED={seed}: a clean {what} reads as {read:?}");
                }
            }
        }
    }
    tally
}

#[test]
fn random_damage_behind_right_checksums_never_panics_nor_passes_for_sound() {
    let (seed, count) = (number("BETREE_SEED", 1), number("BETREE_MUTATIONS", 20_000));
    let base = Bench::with_keys(24);
    let threads = 2;
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let base = &base;
        let share = count.div_ceil(threads);
        let handles: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || campaign(base, seed + thread * share, share)))
            .collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    println!("from seed {seed}: {tallies:?}");
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let total = sum(|tally| tally.mutations);
    assert!(total < 1000 || sum(|tally| tally.damaged) * 3 > total, "most damage is found");
    assert!(total < 1000 || sum(|tally| tally.clean_structure) > 0, "some changes nothing");
}
