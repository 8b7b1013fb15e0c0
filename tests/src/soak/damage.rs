//! A flipped bit in a copy of a pool: an error, or the right data.

use super::{Numbers, Plan};
use crate::rig::{Failure, scan};
use betree::vdev::SimRng;
use betree::{AccessMode, Database};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What came of the damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was there.
    Harmless,
    /// It was noticed.
    Noticed,
}

const WINDOW: usize = 64 << 10;

/// Copies the closed pool of `plan`, flips one to three bits of bytes that are not zero, and reads the copy, in `mode`s for
/// reading and for writing.
///
/// # Errors
/// Wrong data, with the places of the flips.
pub fn damage(plan: &Plan, numbers: &Numbers, rng: &mut SimRng) -> Result<Outcome, Failure> {
    let folder = plan.folder.join("damaged");
    std::fs::create_dir_all(&folder).map_err(Failure::new)?;
    let mut flips = Vec::new();
    for file in plan.files() {
        let name = file.file_name().unwrap_or_default();
        let copy = folder.join(name);
        let used = copy_sparse(&file, &copy).map_err(Failure::new)?;
        for _ in 0..=rng.below(2) {
            if let Some(place) = flip(&copy, &used, rng).map_err(Failure::new)? {
                flips.push(format!("{} {place}", name.display()));
            }
        }
    }
    let outcome = look(plan, &folder, numbers).map_err(|failure| failure.within(flips.join(", ")));
    std::fs::remove_dir_all(&folder).map_err(Failure::new)?;
    outcome
}

fn look(plan: &Plan, folder: &Path, numbers: &Numbers) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::Harmless;
    for read_only in [true, false] {
        let configuration = plan.configuration_in(folder, AccessMode::OpenIfExists);
        let opened = if read_only {
            Database::open_read_only(configuration)
        } else {
            Database::open_with(configuration)
        };
        let Ok(db) = opened else {
            outcome = Outcome::Noticed;
            continue;
        };
        match scan(&db) {
            Ok(found) if found == numbers.state().fingerprint() => {}
            // An older state may be shown when it is said that it is older.
            Ok(_) if db.open_report().is_some_and(|report| report.rolled_back) => outcome = Outcome::Noticed,
            Ok(_) => return Err(Failure::new("a damaged pool was read as something else")),
            Err(_) => outcome = Outcome::Noticed,
        }
        if db.verify().is_err() {
            outcome = Outcome::Noticed;
        }
    }
    Ok(outcome)
}

/// Copies what is not zero; the rest of the copy is a hole. Returns where the windows are that were copied.
fn copy_sparse(from: &Path, to: &Path) -> std::io::Result<Vec<u64>> {
    let (from, to) = (File::open(from)?, File::create(to)?);
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let (mut buffer, mut used) = (vec![0; WINDOW], Vec::new());
    for start in (0..length).step_by(WINDOW) {
        let read = from.read_at(&mut buffer, start)?;
        if buffer[..read].iter().any(|byte| *byte != 0) {
            to.write_all_at(&buffer[..read], start)?;
            used.push(start);
        }
    }
    Ok(used)
}

/// Flips one bit of a byte that is not zero, in one of the `windows`; says where.
fn flip(file: &Path, windows: &[u64], rng: &mut SimRng) -> std::io::Result<Option<u64>> {
    let (Some(first), Some(last)) = (windows.first(), windows.last()) else { return Ok(None) };
    // The label areas at both ends are small and matter much.
    let start = match rng.below(10) {
        0 => *first,
        1 => *last,
        _ => windows[rng.index(windows.len())],
    };
    let file = OpenOptions::new().read(true).write(true).open(file)?;
    let mut buffer = vec![0; WINDOW];
    let read = file.read_at(&mut buffer, start)?;
    let used: Vec<usize> = (0..read).filter(|at| buffer[*at] != 0).collect();
    let at = used[rng.index(used.len())];
    file.write_all_at(&[buffer[at] ^ 1 << rng.below(8)], start + at as u64)?;
    Ok(Some(start + at as u64))
}
