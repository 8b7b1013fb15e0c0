//! Pool files that are damaged, cut, swapped or somebody else's: an error that says so, or the right data; never a panic,
//! wrong bytes or a changed byte.

use betree::{
    AccessMode, Database, DatabaseConfiguration, ErrorKind, StoragePoolConfiguration, TierConfiguration,
};
use std::path::Path;

const SECTOR: usize = 512;

fn configuration(pool: &Path, mode: AccessMode) -> DatabaseConfiguration {
    DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: vec![TierConfiguration::parse_zfs_like([pool.display().to_string()]).unwrap()],
            ..StoragePoolConfiguration::default()
        },
        access_mode: mode,
        segment_size: 1 << 20,
        background_threads: Some(0),
        ..DatabaseConfiguration::default()
    }
}

type Contents = Vec<(Vec<u8>, Vec<u8>)>;

/// A closed pool and what it holds.
fn pool(folder: &Path) -> (Vec<u8>, Contents) {
    let path = folder.join("whole.img");
    std::fs::write(&path, vec![0; 4 << 20]).unwrap();
    let db = Database::build(configuration(&path, AccessMode::OpenOrCreate)).unwrap();
    let dataset = db.create_dataset("data").unwrap();
    for number in 0..2_000u32 {
        dataset.insert(number.to_be_bytes(), vec![number as u8; 100]).unwrap();
    }
    dataset.insert("large", vec![7; 40_000]).unwrap();
    db.checkpoint().unwrap();
    dataset.insert("in the log", "only").unwrap();
    db.sync().unwrap();
    let contents = read(&db).unwrap();
    // As after a crash: the log still has something to replay.
    let bytes = std::fs::read(&path).unwrap();
    (bytes, contents)
}

fn read(db: &Database) -> betree::Result<Contents> {
    let dataset = db.open_dataset("data")?;
    dataset.range::<&[u8]>(..).map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
}

/// Opens `bytes` as a pool for reading; the file must not change.
fn look(folder: &Path, bytes: &[u8]) -> betree::Result<Contents> {
    let path = folder.join("damaged.img");
    std::fs::write(&path, bytes).unwrap();
    let result =
        Database::open_read_only(configuration(&path, AccessMode::OpenIfExists)).and_then(|db| read(&db));
    assert!(std::fs::read(&path).unwrap() == bytes, "looking at a pool changed it");
    result
}

#[test]
fn one_flipped_bit_in_any_sector_is_an_error_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, contents) = pool(folder.path());
    assert!(look(folder.path(), &bytes).unwrap() == contents);
    let (mut harmless, mut errors) = (0, 0);
    for start in (0..bytes.len()).step_by(SECTOR) {
        if bytes[start..start + SECTOR].iter().all(|byte| *byte == 0) {
            continue;
        }
        let mut damaged = bytes.clone();
        let at = start + (start / SECTOR * 37) % SECTOR;
        damaged[at] ^= 1 << (start / SECTOR % 8);
        match look(folder.path(), &damaged) {
            Ok(found) => {
                assert!(found == contents, "a bit flipped at byte {at} gives wrong data");
                harmless += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                errors += 1;
            }
        }
    }
    println!("{harmless} flips were harmless, {errors} were errors");
    assert!(errors > 100, "{errors} of the flips were noticed");
}

#[test]
fn cut_swapped_and_foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, contents) = pool(folder.path());
    let half = bytes.len() / 2;
    let noise: Vec<u8> =
        (0..bytes.len() as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let cases: [(&str, Vec<u8>); 6] = [
        ("cut in half", bytes[..half].to_vec()),
        ("a single block", bytes[..4096].to_vec()),
        ("halves swapped", [&bytes[half..], &bytes[..half]].concat()),
        ("noise", noise),
        ("text", b"not a pool\n".repeat(400_000)),
        ("zeros", vec![0; bytes.len()]),
    ];
    for (what, bytes) in &cases {
        let error = look(folder.path(), bytes).unwrap_err();
        assert!(error.to_string().contains("damaged.img"), "{what}: {error}");
    }
    // Whichever end is lost, the other one has the superblocks; what else was there is missed, not invented.
    for lost in [0..64 << 10, bytes.len() - (64 << 10)..bytes.len()] {
        let mut damaged = bytes.clone();
        damaged[lost].fill(0);
        assert!(look(folder.path(), &damaged).is_ok_and(|found| found == contents));
    }
}

#[test]
fn nothing_is_created_over_data() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious.img");
    let (whole, _) = pool(folder.path());
    for bytes in [b"precious".repeat(1 << 19), whole] {
        std::fs::write(&path, &bytes).unwrap();
        let error = Database::create(configuration(&path, AccessMode::OpenOrCreate).storage).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert!(std::fs::read(&path).unwrap() == bytes);
    }
    std::fs::write(&path, b"precious".repeat(1 << 19)).unwrap();
    assert!(Database::build(configuration(&path, AccessMode::OpenOrCreate)).is_err());
    assert!(std::fs::read(&path).unwrap() == b"precious".repeat(1 << 19));
}

#[test]
fn a_second_opener_is_told_that_the_pool_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    pool(folder.path());
    let path = folder.path().join("whole.img");
    let db = Database::build(configuration(&path, AccessMode::OpenIfExists)).unwrap();
    for read_only in [false, true] {
        let configuration = configuration(&path, AccessMode::OpenIfExists);
        let second =
            if read_only { Database::open_read_only(configuration) } else { Database::build(configuration) };
        let error = second.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("whole.img"), "{error}");
    }
    drop(db);
    Database::build(configuration(&path, AccessMode::OpenIfExists)).unwrap();
}
