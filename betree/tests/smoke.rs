//! Smoke.
use betree::*;
fn config(dir: &std::path::Path, mode: AccessMode) -> DatabaseConfiguration {
    DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: vec![
                TierConfiguration::parse_zfs_like([format!("{}/a.img:256MiB", dir.display())]).unwrap(),
            ],
            ..Default::default()
        },
        access_mode: mode,
        ..Default::default()
    }
}
#[test]
fn smoke() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let db = Database::build(config(dir.path(), AccessMode::OpenOrCreate)).unwrap();
    let ds = db.create_dataset("foo").unwrap();
    let n = 300_000u64;
    for i in 0..n {
        let k = (i.wrapping_mul(0x9E3779B97F4A7C15)).to_be_bytes();
        ds.insert(k, [i as u8; 100]).unwrap();
    }
    db.sync().unwrap();
    for i in 0..n {
        let k = (i.wrapping_mul(0x9E3779B97F4A7C15)).to_be_bytes();
        assert_eq!(ds.get(k).unwrap().as_deref(), Some(&[i as u8; 100][..]), "{i}");
    }
    assert_eq!(ds.range::<&[u8]>(..).count() as u64, n);
    assert_eq!(ds.range::<&[u8]>(..).rev().count() as u64, n);
    println!("{:?}", ds.stats());
    println!("{:?}", db.verify().unwrap());
    drop(ds);
    db.close().unwrap();
    let db = Database::build(config(dir.path(), AccessMode::OpenIfExists)).unwrap();
    println!("{:?}", db.open_report().map(|r| (r.chosen, r.rolled_back)));
    let ds = db.open_dataset("foo").unwrap();
    println!("{:?}", ds.stats());
    assert_eq!(ds.range::<&[u8]>(..).count() as u64, n);
    println!("{:?}", db.verify().unwrap());
    println!("{:?}", db.free_space_tier());
}
