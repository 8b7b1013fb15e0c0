//! What is not the pool that was configured: cut, mixed, copied, somebody else's, no file at all. An error that names
//! the device or the field, and never a changed byte.

use crate::pools::{Folder, contents, existing, small};
use betree::{
    AccessMode, Database, DatabaseConfiguration, Error, ErrorKind, FileLeaf, LeafVdev, TierConfiguration,
    Vdev,
};
use std::path::{Path, PathBuf};

/// Every way to open or create without force.
const WAYS: [(&str, Option<AccessMode>); 4] = [
    ("open", Some(AccessMode::OpenIfExists)),
    ("open or create", Some(AccessMode::OpenOrCreate)),
    ("read", None),
    ("create", None),
];

fn go(way: (&str, Option<AccessMode>), tiers: Vec<Vec<Vdev>>) -> Result<Database, Error> {
    let configuration = small(tiers);
    match way {
        (_, Some(access_mode)) => Database::build(DatabaseConfiguration { access_mode, ..configuration }),
        ("read", None) => Database::open_read_only(configuration),
        _ => Database::create(configuration.storage),
    }
}

/// Demands that all ways fail, with a kind that `allowed` knows and a message that contains one of `names`.
#[track_caller]
fn refused(folder: &Folder, what: &str, tiers: &[Vec<Vdev>], names: &[&str], allowed: &[ErrorKind]) {
    let before = folder.bytes();
    for way in WAYS {
        let error = go(way, tiers.to_vec()).map(drop).expect_err(what);
        assert!(allowed.contains(&error.kind()), "{what}, {}: {:?}, {error}", way.0, error.kind());
        let text = error.to_string();
        assert!(names.iter().any(|name| text.contains(name)), "{what}, {}: {text}", way.0);
        assert!(folder.bytes() == before, "{what}, {}: a byte changed", way.0);
    }
}

/// A closed pool on files of 8 MiB, one a tier, with entries on each.
fn pool(folder: &Folder, name: &str, files: usize) -> Vec<PathBuf> {
    let names: Vec<String> = (0..files).map(|number| format!("{name}{number}.img")).collect();
    let tier = names.iter().map(|name| folder.file(name, 8)).collect();
    let db = Database::build(small([tier])).unwrap();
    let dataset = db.create_dataset("d").unwrap();
    for number in 0..2_000u32 {
        dataset.insert(number.to_be_bytes(), name.repeat(30)).unwrap();
    }
    db.close().unwrap();
    names.iter().map(|name| folder.path(name)).collect()
}

fn one(path: &Path) -> Vec<Vec<Vdev>> {
    vec![vec![existing(path)]]
}

/// Guards against taking something for a pool, or for room to make one.
#[test]
fn what_is_no_pool_is_named_and_left_alone() {
    let folder = Folder::new();
    let at = folder.path("it.img");
    let kinds = [ErrorKind::InvalidArgument, ErrorKind::AlreadyExists, ErrorKind::Corrupt];
    let noise: Vec<u8> = (0..8u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let cases: [(&str, Vec<u8>); 7] = [
        ("one byte", vec![1]),
        ("a byte less than a block", vec![0; 4095]),
        ("a block of zeros", vec![0; 4096]),
        ("too short for a pool", vec![0; 64 << 10]),
        ("noise", noise),
        ("text", b"not a pool\n".repeat(800_000)),
        ("data behind zeros", [vec![0; 4 << 20], vec![1; 4 << 20]].concat()),
    ];
    for (what, bytes) in cases {
        std::fs::write(&at, bytes).unwrap();
        refused(&folder, what, &one(&at), &["it.img"], &[&kinds[..], &[ErrorKind::NotFound]].concat());
    }
    std::fs::remove_file(&at).unwrap();
    std::fs::create_dir(&at).unwrap();
    refused(&folder, "a folder", &one(&at), &["it.img"], &kinds);
    std::fs::remove_dir(&at).unwrap();
    refused(&folder, "a character device", &one(Path::new("/dev/null")), &["/dev/null"], &kinds);
    let socket = folder.path("it.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    refused(&folder, "a socket", &one(&socket), &["it.sock"], &kinds);
    std::fs::remove_file(&socket).unwrap();
    std::os::unix::fs::symlink(folder.path("nowhere"), &at).unwrap();
    let absent = [ErrorKind::NotFound, ErrorKind::InvalidArgument];
    refused(&folder, "a link to nothing", &one(&at), &["it.img"], &absent);
    std::fs::remove_file(&at).unwrap();
    refused(&folder, "nothing", &one(&at), &["it.img"], &absent);
    refused(&folder, "a folder that is not there", &one(&folder.path("no/it.img")), &["no/it.img"], &absent);
    // An empty file holds nothing: it may become a pool, but only where a size says how large.
    std::fs::write(&at, []).unwrap();
    refused(&folder, "an empty file", &one(&at), &["it.img"], &absent);
    let sized = folder.file("it.img", 16);
    let db = go(WAYS[1], vec![vec![sized]]).unwrap();
    db.create_dataset("d").unwrap();
    db.close().unwrap();
    assert_eq!(std::fs::metadata(&at).unwrap().len(), 16 << 20);
}

/// Guards a pool whose file lost its end: refused, or whole; never a part of it.
#[test]
fn a_pool_that_was_cut_is_refused() {
    let folder = Folder::new();
    let path = pool(&folder, "p", 1).remove(0);
    let bytes = std::fs::read(&path).unwrap();
    for left in [0, 1, 4095, 4096, 8192, 64 << 10, 1 << 20, 4 << 20, bytes.len() - 4096, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..left]).unwrap();
        let kinds =
            [ErrorKind::InvalidArgument, ErrorKind::AlreadyExists, ErrorKind::Corrupt, ErrorKind::NotFound];
        refused(&folder, &format!("{left} bytes left"), &one(&path), &["p0.img"], &kinds);
    }
    // A file that grew is the same pool.
    std::fs::write(&path, [&bytes[..], &vec![0; 1 << 20]].concat()).unwrap();
    let db = go(WAYS[0], one(&path)).unwrap();
    assert_eq!(contents(&db.open_dataset("d").unwrap()).unwrap().len(), 2_000);
}

/// Guards the assembly of several devices: any order, but only all of them, each once, in their tier, of one pool.
#[test]
fn devices_are_put_together_as_they_belong() {
    let folder = Folder::new();
    let (mine, other) = (pool(&folder, "p", 3), pool(&folder, "q", 3));
    let tier = |paths: &[&PathBuf]| paths.iter().map(|path| existing(path)).collect::<Vec<Vdev>>();
    let invalid = [ErrorKind::InvalidArgument, ErrorKind::AlreadyExists];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let db = go(WAYS[0], vec![order.iter().map(|at| existing(&mine[*at])).collect()]).unwrap();
        assert!(contents(&db.open_dataset("d").unwrap()).unwrap().len() >= 2_000);
        db.open_dataset("d").unwrap().insert("order", format!("{order:?}")).unwrap();
        db.close().unwrap();
    }
    let two = tier(&[&mine[0], &mine[2]]);
    let kinds = [ErrorKind::Degraded, ErrorKind::AlreadyExists];
    refused(&folder, "one is not configured", &[two], &["missing", "p0.img", "p2.img"], &kinds);
    let mixed = tier(&[&mine[0], &mine[1], &other[2]]);
    refused(&folder, "two pools mixed", &[mixed], &["q2.img", "p0.img"], &invalid);
    let more = tier(&[&mine[0], &mine[1], &mine[2], &other[0]]);
    refused(&folder, "one of another pool too many", &[more], &["q0.img", "p0.img"], &invalid);
    let tiers = vec![tier(&[&mine[0], &mine[1]]), tier(&[&mine[2]])];
    refused(&folder, "one in the wrong tier", &tiers, &["p2.img", "p0.img"], &invalid);
    let copy = folder.path("copy.img");
    std::fs::copy(&mine[1], &copy).unwrap();
    let double = tier(&[&mine[0], &mine[1], &mine[2], &copy]);
    refused(&folder, "one and its copy", &[double], &["copy.img", "p0.img"], &invalid);
    // A copy instead of the original is the original; one that missed a checkpoint is not.
    let db = go(WAYS[0], vec![tier(&[&mine[0], &copy, &mine[2]])]).unwrap();
    db.open_dataset("d").unwrap().insert("later", "1").unwrap();
    db.close().unwrap();
    let stale = [ErrorKind::Corrupt, ErrorKind::AlreadyExists];
    refused(&folder, "an old copy", &[tier(&[&mine[0], &mine[1], &mine[2]])], &["p1.img", "p0.img"], &stale);
    std::fs::remove_file(&mine[1]).unwrap();
    let empty = folder.path("empty.img");
    std::fs::write(&empty, vec![0; 8 << 20]).unwrap();
    let kinds = [ErrorKind::Degraded, ErrorKind::AlreadyExists];
    let replaced = tier(&[&mine[0], &empty, &mine[2]]);
    refused(&folder, "one replaced by an empty file", &[replaced], &["empty.img", "p0.img"], &kinds);
    let group =
        vec![vec![Vdev::Mirror(vec![LeafVdev::file(&mine[0]), LeafVdev::file(&copy)]), existing(&mine[2])]];
    let unsupported = [ErrorKind::Unsupported, ErrorKind::InvalidArgument, ErrorKind::AlreadyExists];
    refused(&folder, "configured as a mirror", &group, &["mirror", "p0.img"], &unsupported);
    let db = go(WAYS[0], vec![tier(&[&mine[0], &copy, &mine[2]])]).unwrap();
    assert!(db.open_dataset("d").unwrap().contains_key("later").unwrap());
}

/// Guards against configurations that mean nothing: the error names the field, and nothing is opened or made.
#[test]
fn documents_that_make_no_sense_name_their_field() {
    let tiers = |leaf: &str| format!(r#"{{"storage":{{"tiers":[{{"top_level_vdevs":[{leaf}]}}]}}}}"#);
    let cases = [
        (tiers(r#"{"path":"/p","size":"99999999999TiB"}"#), "size"),
        (tiers(r#"{"path":"/p","size":99999999999999999999}"#), "size"),
        (tiers(r#"{"path":"/p","size":0}"#), "top_level_vdevs[0]"),
        (tiers(r#"{"path":"/p","size":-1}"#), "size"),
        (tiers(r#"{"path":"/p","size":1.5}"#), "size"),
        (tiers(r#"{"path":"/p","size":"four"}"#), "size"),
        (tiers(r#"{"path":"/p","size":"-4GiB"}"#), "size"),
        (tiers(r#"{"path":"/p","len":"4GiB","size":"4GiB"}"#), "size"),
        (tiers(r#"{"path":""}"#), "top_level_vdevs[0]"),
        (tiers(r#"{"mem":0}"#), "top_level_vdevs[0]"),
        (tiers(r#"{"mem":-1}"#), "mem"),
        (tiers(r#"{"mem":"16EiB"}"#), "mem"),
        (tiers(r#""/p", "/p""#), "top_level_vdevs[1]"),
        (tiers(r#"{"mirror":["/p"]}"#), "top_level_vdevs[0]"),
        (tiers(r#"{"mirror":[]}"#), "top_level_vdevs[0]"),
        (tiers(r#"{"raidz3":["/p"]}"#), "raidz3"),
        (tiers(r#"{"path":"/p","drect":true}"#), "drect"),
        (tiers("null"), "top_level_vdevs[0]"),
        (r#"{"storage":{"tiers":[[],[],[],[],[]]}}"#.into(), "tiers"),
        (r#"{"storage":{"teirs":[]}}"#.into(), "teirs"),
        (r#"{"storage":null}"#.into(), "storage"),
        (r#"{"cache_size":"99999999999TiB"}"#.into(), "cache_size"),
        (r#"{"cache_size":-1}"#.into(), "cache_size"),
        (r#"{"cache_siez":1}"#.into(), "cache_siez"),
        (r#"{"cache_size":1,"cache_size":2}"#.into(), "cache_size"),
        (r#"{"memtable_size":0}"#.into(), "memtable_size"),
        (r#"{"segment_size":"3MiB"}"#.into(), "segment_size"),
        (r#"{"segment_size":0}"#.into(), "segment_size"),
        (r#"{"background_threads":99999}"#.into(), "background_threads"),
        (r#"{"sync_interval_ms":0}"#.into(), "sync_interval_ms"),
        (r#"{"alloc_strategy":[[0],[1],[2]]}"#.into(), "alloc_strategy"),
        (r#"{"alloc_strategy":[[9],[],[],[]]}"#.into(), "alloc_strategy"),
        (r#"{"default_storage_class":4}"#.into(), "default_storage_class"),
        (r#"{"default_storage_class":256}"#.into(), "default_storage_class"),
        (r#"{"log_tier":7}"#.into(), "log_tier"),
        (r#"{"compression":{"Zstd":{"level":99}}}"#.into(), "compression"),
        (r#"{"compression":"Gzip"}"#.into(), "compression"),
        (r#"{"access_mode":"Sometimes"}"#.into(), "access_mode"),
        (r#"{"default_dataset":{"fanout":0}}"#.into(), "default_dataset.fanout"),
        (r#"{"default_dataset":{"leaf_size":"1EiB"}}"#.into(), "default_dataset.leaf_size"),
        (r#"{"default_dataset":{"storage_preference":9}}"#.into(), "storage_preference"),
        (r#"{"version":99}"#.into(), "version"),
        ("{".into(), "line 1"),
        ("".into(), "line 1"),
        ("[]".into(), "expected"),
        ("{\"cache_size\": \n 1,}".into(), "line 2"),
        (format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), "line 1"),
        (format!("{{\"metrics\":{}", "{\"a\":".repeat(100_000)), "metrics"),
    ];
    for (document, field) in cases {
        let short: String = document.chars().take(80).collect();
        let error = DatabaseConfiguration::from_json_str(&document).map(drop).expect_err(&short);
        assert!(error.to_string().contains(field), "{short}: {error}");
        assert_eq!(Error::from(error).kind(), ErrorKind::InvalidArgument, "{short}");
    }
}

/// Guards the same in configurations that are made by code, where no document was checked.
#[test]
fn configurations_by_code_are_checked_before_anything_is_opened() {
    let folder = Folder::new();
    let file = |mib| vec![folder.file("never.img", mib)];
    let mut absurd = FileLeaf::new(folder.path("never.img"));
    absurd.size = Some(1 << 62);
    let cases: [(&str, DatabaseConfiguration); 8] = [
        ("cache_size", DatabaseConfiguration { cache_size: usize::MAX, ..small([file(64)]) }),
        ("memtable_size", DatabaseConfiguration { memtable_size: 0, ..small([file(64)]) }),
        ("segment_size", DatabaseConfiguration { segment_size: 5000, ..small([file(64)]) }),
        ("default_storage_class", DatabaseConfiguration { default_storage_class: 200, ..small([file(64)]) }),
        ("log_tier", DatabaseConfiguration { log_tier: Some(1), ..small([file(64)]) }),
        ("tiers[0].top_level_vdevs[0]", small([vec![LeafVdev::File(absurd).into()]])),
        ("top_level_vdevs[0]", small([vec![LeafVdev::memory(0).into()]])),
        ("no vdev", small([])),
    ];
    for (field, configuration) in cases {
        for (way, result) in [
            ("build", Database::build(configuration.clone())),
            ("read", Database::open_read_only(configuration.clone())),
            ("create", Database::create_with(configuration, true)),
        ] {
            let error = result.map(drop).expect_err(field);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{field}, {way}: {error}");
            assert!(error.to_string().contains(field), "{field}, {way}: {error}");
        }
        assert!(folder.bytes().is_empty(), "{field}: a file was made");
    }
    // More than the host has: refused by the file system, and nothing stays behind.
    let words = format!("{}:900PiB", folder.path("never.img").display());
    let huge = TierConfiguration::parse_zfs_like([words]).unwrap().top_level_vdevs;
    let error = Database::build(small([huge])).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::OutOfSpace | ErrorKind::Io), "{error}");
    assert!(error.to_string().contains("never.img"), "{error}");
    assert!(folder.bytes().is_empty());
    for words in [
        "./a:99999999999TiB",
        "./a:2EiB",
        "./a:size=0",
        "./a:size=-1",
        "mem:",
        "mem:0",
        "mirror",
        "./a stripe",
    ] {
        let error = TierConfiguration::parse_zfs_like(words.split(' ')).expect_err(words).to_string();
        assert!(error.contains(words.rsplit(' ').next().unwrap()), "{words}: {error}");
    }
}
