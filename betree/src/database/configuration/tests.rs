//! Documents, defaults, checks and round trips.

use super::*;
use crate::base::preference::StoragePreference;
use crate::pool::{FileLeaf, LeafVdev, PreferredAccessType, StorageKind, TierConfiguration, Vdev, any_tier};
use crate::tree::MergePolicy;
use crate::vdev::{BlockDevice, MemoryDevice};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn fixture(name: &str) -> DatabaseConfiguration {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/configuration");
    DatabaseConfiguration::from_json_file(directory.join(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn tier(vdevs: Vec<Vdev>, access: PreferredAccessType, kind: StorageKind) -> TierConfiguration {
    TierConfiguration { preferred_access_type: access, storage_kind: kind, ..TierConfiguration::new(vdevs) }
}

fn file(path: &str, direct: bool, size: Option<u64>, sparse: bool) -> LeafVdev {
    LeafVdev::File(FileLeaf { path: path.into(), direct, size, sparse })
}

#[test]
fn documents_of_haura_load() {
    let empty = fixture("haura-empty-tier.json");
    assert_eq!(empty.storage.tiers, [tier(vec![], PreferredAccessType::Unknown, StorageKind::Ssd)]);
    assert_eq!((empty.sync_interval_ms, empty.access_mode), (None, AccessMode::OpenOrCreate));
    assert_eq!(empty.inactive_settings(), ["storage.tiers[0].storage_kind"]);

    let memory = fixture("haura-memory-only.json");
    assert_eq!(memory.storage.tiers, [TierConfiguration::new(vec![LeafVdev::memory(1 << 31).into()])]);
    assert_eq!((memory.cache_size, memory.sync_interval_ms), (4 << 30, Some(1000)));
    assert_eq!(memory.alloc_strategy, [[0], [0], [0], [0]]);
    assert_eq!(memory.inactive_settings(), [""; 0]);

    let two = fixture("haura-no-storage-kind.json");
    let expected = [LeafVdev::memory(3 << 30), LeafVdev::file("/srv/pool/disk0")];
    assert_eq!(two.storage.tiers, expected.map(|leaf| TierConfiguration::new(vec![leaf.into()])));
    assert_eq!(two.access_mode, AccessMode::AlwaysCreateNew);

    let lists = fixture("haura-0.2-tier-lists.json");
    let expected = [LeafVdev::memory(64 << 30), LeafVdev::file("/srv/pool/disk0")];
    assert_eq!(lists.storage.tiers, expected.map(|leaf| TierConfiguration::new(vec![leaf.into()])));

    let lfu = fixture("haura-lfu-scalar-threshold.json");
    let config = MigrationConfig {
        grace_period: Duration::ZERO,
        migration_threshold: [0.9; 4],
        update_period: Duration::from_secs(1),
        policy_config: LfuConfig { promote_num: 5000, promote_size: 256, ..Default::default() },
    };
    assert_eq!(lfu.migration_policy, Some(MigrationPolicies::Lfu(config)));
    assert_eq!(lfu.inactive_settings(), ["migration_policy"]);

    let rl = fixture("haura-rl-scalar-threshold.json");
    let config = MigrationConfig {
        grace_period: Duration::ZERO,
        migration_threshold: [0.8; 4],
        update_period: Duration::from_secs(1),
        policy_config: None,
    };
    assert_eq!(rl.migration_policy, Some(MigrationPolicies::ReinforcementLearning(config)));

    let lz4 = fixture("haura-lz4-persistent-memory.json");
    assert_eq!(lz4.compression, Compression::Lz4);
    let leaf = file("/srv/pmem/pool", true, Some(16 << 30), false);
    assert_eq!(
        lz4.storage.tiers,
        [tier(vec![leaf.into()], PreferredAccessType::Unknown, StorageKind::Memory)]
    );
}

#[test]
fn every_field_of_haura_is_kept() {
    let mirror = Vdev::Mirror(vec![LeafVdev::file("/srv/pool/a0"), LeafVdev::file("/srv/pool/a1")]);
    let parity = Vdev::Parity1(vec![
        LeafVdev::file("/srv/pool/b0"),
        LeafVdev::file("/srv/pool/b1"),
        file("/srv/pool/b2", false, None, false),
    ]);
    let config = fixture("haura-every-field.json");
    let expected = DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: vec![
                tier(
                    vec![LeafVdev::memory(1 << 30).into()],
                    PreferredAccessType::RandomReadWrite,
                    StorageKind::Memory,
                ),
                tier(
                    vec![mirror, LeafVdev::file("/srv/pool/a2").into()],
                    PreferredAccessType::RandomRead,
                    StorageKind::Ssd,
                ),
                tier(vec![parity], PreferredAccessType::SequentialReadWrite, StorageKind::Hdd),
                tier(
                    vec![LeafVdev::file("/srv/pool/c0").into()],
                    PreferredAccessType::SequentialWrite,
                    StorageKind::Hdd,
                ),
            ],
            queue_depth_factor: 32,
            thread_pool_size: Some(8),
            thread_pool_pinned: true,
            degraded: false,
            spares: Vec::new(),
        },
        alloc_strategy: [vec![0, 1], vec![1, 2], vec![2, 3, 1], vec![3]],
        default_storage_class: 1,
        compression: Compression::Zstd { level: 5 },
        cache_size: 1 << 30,
        access_mode: AccessMode::OpenIfExists,
        sync_interval_ms: Some(250),
        migration_policy: Some(MigrationPolicies::Lfu(MigrationConfig {
            grace_period: Duration::from_millis(2500),
            migration_threshold: [0.7, 0.8, 0.9, 1.0],
            update_period: Duration::from_secs(5),
            policy_config: LfuConfig {
                promote_num: 100,
                promote_size: 64,
                path_state: Some("/srv/log/state.jsonl".into()),
                path_delta: None,
                mode: LfuMode::Both,
            },
        })),
        metrics: Some(MetricsConfiguration {
            enabled: true,
            interval_ms: 100,
            output_path: "/srv/log/metrics.jsonl".into(),
        }),
        allocation_log_file_path: "/srv/log/allocations.bin".into(),
        ..Default::default()
    };
    assert_eq!(config, expected);
    assert_eq!(
        config.inactive_settings(),
        [
            "storage.queue_depth_factor",
            "storage.thread_pool_pinned",
            "storage.tiers[0].preferred_access_type",
            "storage.tiers[0].storage_kind",
            "storage.tiers[1].preferred_access_type",
            "storage.tiers[1].storage_kind",
            "storage.tiers[2].preferred_access_type",
            "storage.tiers[3].preferred_access_type",
            "migration_policy",
            "metrics",
            "allocation_log_file_path",
        ]
    );
}

#[test]
fn every_field_of_ours_is_read() {
    let legs = ["./c0", "./c1", "./c2", "./c3"].map(LeafVdev::file).to_vec();
    let expected = DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: vec![
                TierConfiguration {
                    storage_kind: StorageKind::Memory,
                    label: Some("memory".to_owned()),
                    ..TierConfiguration::new(vec![LeafVdev::memory(256 << 20).into()])
                },
                TierConfiguration::new(vec![
                    Vdev::Mirror(vec![
                        file("./a.img", true, Some(1 << 30), true),
                        file("./b.img", false, Some(1 << 30), false),
                    ]),
                    Vdev::Parity2(legs),
                ]),
            ],
            degraded: true,
            spares: vec![LeafVdev::file("/dev/spare"), file("./s.img", false, Some(1 << 30), false)],
            ..Default::default()
        },
        alloc_strategy: [vec![0, 1], vec![1], vec![2], vec![3]],
        default_storage_class: 1,
        compression: Compression::Lz4,
        cache_size: 64 << 20,
        access_mode: AccessMode::OpenOrCreate,
        sync_interval_ms: Some(500),
        migration_policy: Some(MigrationPolicies::ReinforcementLearning(MigrationConfig {
            policy_config: Some(RlConfig {
                path_state: Some("state.jsonl".into()),
                path_delta: Some("delta.csv".into()),
            }),
            ..Default::default()
        })),
        metrics: Some(MetricsConfiguration::default()),
        memtable_size: 1 << 20,
        log_tier: Some(1),
        checkpoint_log_bytes: Some(128 << 20),
        segment_size: 16 << 20,
        background_threads: Some(2),
        default_dataset: DatasetConfiguration {
            merge_policy: MergePolicy::Tiered,
            fanout: 32,
            leaf_size: 1 << 20,
            block_size: 4096,
            large_value_size: 8192,
            buffer_size: 8 << 20,
            runs_per_buffer: 6,
            deltas_per_leaf: 4,
            compression: Some(Compression::Zstd { level: 3 }),
            storage_preference: StoragePreference::FAST,
        },
        ..Default::default()
    };
    assert_eq!(fixture("betree-every-field.json"), expected);
}

#[test]
fn nothing_is_mandatory() {
    let config = DatabaseConfiguration::from_json_str("{}").unwrap();
    assert_eq!(config, DatabaseConfiguration::default());
    assert_eq!(config.cache_size, 256 << 20);
    assert_eq!(config.sync_interval_ms, Some(1000));
    assert_eq!(config.alloc_strategy, [[0], [1], [2], [3]]);
    assert_eq!(config.allocation_log_file_path, Path::new("allocation_log.bin"));
    assert_eq!(config.inactive_settings(), [""; 0]);
    let preference = |text: &str| {
        let json = format!(r#"{{"default_dataset":{{"storage_preference":{text}}}}}"#);
        DatabaseConfiguration::from_json_str(&json).map(|config| config.default_dataset.storage_preference)
    };
    assert_eq!(preference("null").unwrap(), StoragePreference::NONE);
    assert_eq!(preference("254").unwrap(), StoragePreference::NONE);
    assert_eq!(preference("2").unwrap(), StoragePreference::SLOW);
    assert_eq!(preference("\"slowest\"").unwrap(), StoragePreference::SLOWEST);
    assert!(preference("4").is_err() && preference("\"QUICK\"").is_err() && preference("-1").is_err());
}

/// Document, the field that the error names, a part of the message.
const WRONG: &[(&str, &str, &str)] = &[
    ("", "", "EOF"),
    ("[]", "", "invalid type: sequence"),
    ("{} x", "", "trailing characters"),
    ("{\"cache_size\": 1,}", "", "trailing comma"),
    (r#"{"cach_size": 1}"#, "cach_size", "unknown field `cach_size`, expected one of"),
    (r#"{"cache_size": 1, "cache_size": 2}"#, "", "duplicate field `cache_size`"),
    (r#"{"version": 1, "version": 1}"#, "", "duplicate field `version`"),
    (r#"{"version": 2}"#, "version", "version 2 is not known"),
    (r#"{"cache_size": null}"#, "cache_size", "expected a size"),
    (r#"{"cache_size": -1}"#, "cache_size", "expected a size"),
    (r#"{"cache_size": 1e9}"#, "cache_size", "expected a size"),
    (r#"{"cache_size": 18446744073709551616}"#, "cache_size", "expected a size"),
    (r#"{"cache_size": 18446744073709551615}"#, "cache_size", "bytes are not from 0 to"),
    (r#"{"cache_size": "1 zebibyte"}"#, "cache_size", "is not a size"),
    (r#"{"memtable_size": 0}"#, "memtable_size", "bytes are not from 4096"),
    (r#"{"segment_size": "2GiB"}"#, "segment_size", "bytes are not from"),
    (r#"{"segment_size": "3MiB"}"#, "segment_size", "no power of two"),
    (r#"{"checkpoint_log_bytes": 1}"#, "checkpoint_log_bytes", "bytes are not from"),
    (r#"{"scrub_bytes_per_second": 1}"#, "scrub_bytes_per_second", "are not from 65536"),
    (r#"{"background_threads": 100000}"#, "background_threads", "at most 1024"),
    (r#"{"sync_interval_ms": 0}"#, "sync_interval_ms", "null switches it off"),
    (r#"{"sync_interval_ms": 18446744073709551615}"#, "sync_interval_ms", "is not from 1 to"),
    (r#"{"log_tier": 4}"#, "log_tier", "4 is not a storage class"),
    (r#"{"log_tier": 1, "storage": {"tiers": [["/a"]]}}"#, "log_tier", "tier 1 has no vdev"),
    (r#"{"default_storage_class": 4}"#, "default_storage_class", "4 is not a storage class"),
    (r#"{"default_storage_class": 256}"#, "default_storage_class", "expected u8"),
    (
        r#"{"alloc_strategy": [[0],[1],[2]]}"#,
        "alloc_strategy",
        "expected 4 lists, one per storage class, found 3",
    ),
    (r#"{"alloc_strategy": [[0],[1],[2],[3],[0]]}"#, "alloc_strategy", "found 5"),
    (r#"{"alloc_strategy": [[0],[0,1,2,3,0],[],[]]}"#, "alloc_strategy[1]", "5 tiers, but at most 4"),
    (r#"{"alloc_strategy": [[0],[0,9],[],[]]}"#, "alloc_strategy[1][1]", "9 is not a storage class"),
    (r#"{"alloc_strategy": [[0],[0,"x"],[],[]]}"#, "alloc_strategy[1][1]", "expected u8"),
    (r#"{"compression": "Gzip"}"#, "compression", "expected \"None\", \"Lz4\" or"),
    (r#"{"compression": "Zstd"}"#, "compression", "expected \"None\", \"Lz4\" or"),
    (r#"{"compression": {}}"#, "compression", "an empty object"),
    (r#"{"compression": {"Zstd": {}}}"#, "compression.Zstd", "missing field `level`"),
    (r#"{"compression": {"Zstd": {"level": 0}}}"#, "compression.Zstd.level", "0 is not a zstd level"),
    (r#"{"compression": {"Zstd": {"level": 23}}}"#, "compression.Zstd.level", "23 is not a zstd level"),
    (r#"{"compression": {"Zstd": {"level": 3}, "Lz4": {"level": 1}}}"#, "compression", "second compression"),
    (r#"{"access_mode": "Open"}"#, "access_mode", "unknown variant `Open`"),
    (r#"{"storage": {"tiers": [{},{},{},{},{}]}}"#, "storage.tiers", "5 tiers"),
    (r#"{"storage": {"tiers": [{"vdevs": []}]}}"#, "storage.tiers[0].vdevs", "unknown field `vdevs`"),
    (
        r#"{"storage": {"tiers": [{"top_level_vdevs": ["/a", {"path": 5}]}]}}"#,
        "storage.tiers[0].top_level_vdevs[1].path",
        "expected a string",
    ),
    (
        r#"{"storage": {"tiers": [{"top_level_vdevs": ["/a", {"mirror": ["/b"]}]}]}}"#,
        "storage.tiers[0].top_level_vdevs[1]",
        "a mirror needs at least 2 leaves, not 1",
    ),
    (
        r#"{"storage": {"tiers": [[{"parity1": ["/a", "/b"]}]]}}"#,
        "storage.tiers[0].top_level_vdevs[0]",
        "a parity1 group needs at least 3",
    ),
    (
        r#"{"storage": {"tiers": [{"top_level_vdevs": [{"mirror": ["/a", {"mem": 5}]}]}]}}"#,
        "storage.tiers[0].top_level_vdevs[0].mirror[1]",
        "less than one block",
    ),
    (
        r#"{"storage": {"tiers": [["/a"], ["/b", "/a"]]}}"#,
        "storage.tiers[1].top_level_vdevs[1]",
        "/a is in the pool twice",
    ),
    (r#"{"metrics": []}"#, "metrics", "expected an object"),
    (r#"{"storage": []}"#, "storage", "expected an object"),
    (r#"{"default_dataset": []}"#, "default_dataset", "expected an object"),
    (r#"{"migration_policy": {"Lfu": []}}"#, "migration_policy.Lfu", "expected an object"),
    (r#"{"metrics": {"interval": 5}}"#, "metrics.interval", "unknown field `interval`"),
    (r#"{"migration_policy": {"Mru": {}}}"#, "migration_policy", "unknown variant `Mru`"),
    (
        r#"{"migration_policy": {"Lfu": {"migration_threshold": 2}}}"#,
        "migration_policy.Lfu.migration_threshold",
        "share",
    ),
    (
        r#"{"migration_policy": {"Lfu": {"migration_threshold": [0.5, 0.5]}}}"#,
        "migration_policy.Lfu.migration_threshold",
        "invalid length 2",
    ),
    (
        r#"{"migration_policy": {"Lfu": {"migration_threshold": [0.5, 0.5, 0.5, 0.5, 0.5]}}}"#,
        "migration_policy.Lfu.migration_threshold",
        "invalid length 5",
    ),
    (
        r#"{"migration_policy": {"Lfu": {"grace_period": {"secs": 18446744073709551615, "nanos": 4000000000}}}}"#,
        "migration_policy.Lfu.grace_period",
        "overflow",
    ),
    (r#"{"default_dataset": {"block_size": 6000}}"#, "default_dataset.block_size", "no multiple of 4096"),
    (r#"{"default_dataset": {"block_size": "4MiB"}}"#, "default_dataset.block_size", "bytes are not from"),
    (
        r#"{"default_dataset": {"large_value_size": 512}}"#,
        "default_dataset.large_value_size",
        "bytes are not from",
    ),
    (
        r#"{"default_dataset": {"large_value_size": "2MiB"}}"#,
        "default_dataset.large_value_size",
        "bytes are not from",
    ),
    (r#"{"default_dataset": {"leaf_size": 2048}}"#, "default_dataset.leaf_size", "bytes are not from 4096"),
    (r#"{"default_dataset": {"buffer_size": "1TiB"}}"#, "default_dataset.buffer_size", "bytes are not from"),
    (r#"{"default_dataset": {"fanout": 1}}"#, "default_dataset.fanout", "1 is not from 4 to 1024"),
    (r#"{"default_dataset": {"runs_per_buffer": 0}}"#, "default_dataset.runs_per_buffer", "0 is not from"),
    (r#"{"default_dataset": {"deltas_per_leaf": 65}}"#, "default_dataset.deltas_per_leaf", "65 is not from"),
    (
        r#"{"default_dataset": {"compression": {"Zstd": {"level": 99}}}}"#,
        "default_dataset.compression.Zstd.level",
        "99 is not a zstd level",
    ),
];

#[test]
fn wrong_documents_are_errors_that_say_where() {
    for (text, path, expected) in WRONG {
        match DatabaseConfiguration::from_json_str(text) {
            Err(error @ ConfigurationError::Document { .. }) => {
                assert_eq!(error.path().unwrap_or_default(), *path, "{text}: {error}");
                let message = error.to_string();
                assert!(message.contains(expected), "{text}: {message}");
                assert_eq!(message.matches("line").count(), 1, "{message}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let deep = format!("{{\"$schema\": {}", "[".repeat(1_000_000));
    assert!(DatabaseConfiguration::from_json_str(&deep).is_err());
    let nested = format!(r#"{{"storage":{{"tiers":[[{}"#, r#"{"mirror":["#.repeat(1_000_000));
    assert!(DatabaseConfiguration::from_json_str(&nested).is_err());
}

#[test]
fn errors_have_file_line_and_column() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("betree.json");
    for (text, position, field) in [
        ("{\n  \"cache_size\": true\n}", "2:20", "cache_size"),
        (
            "{\n  \"storage\": {\n    \"tiers\": [[\"/a\",\n    \"/a\"]]}}",
            "4:8",
            "storage.tiers[0].top_level_vdevs[1]",
        ),
        ("{\n \"x\": [],\n \"cache_size\": 1}", "2:4", "x: unknown field"),
        (
            "{\"default_dataset\": {\n\"block_size\": 1048576, \"buffer_size\": 8192}}",
            "2:42",
            "default_dataset.buffer_size",
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = DatabaseConfiguration::from_json_file(&path).unwrap_err();
        let expected = format!("{}:{position}: {field}", path.display());
        assert!(error.to_string().starts_with(&expected), "{expected} / {error}");
    }
    let error = DatabaseConfiguration::from_json_file(directory.path()).unwrap_err();
    assert!(matches!(error, ConfigurationError::File { .. }), "{error}");
    std::fs::write(&path, [0xFF]).unwrap();
    let error = DatabaseConfiguration::from_json_file(&path).unwrap_err();
    assert!(matches!(error, ConfigurationError::File { .. }), "{error}");
}

#[test]
fn a_class_without_vdevs_goes_elsewhere() {
    let mut config = DatabaseConfiguration::default();
    let order = |config: &DatabaseConfiguration| config.allocation_order();
    assert_eq!(order(&config), [[0; 0]; 4]);
    let full = TierConfiguration::new(vec![LeafVdev::file("/a").into()]);
    let empty = TierConfiguration::default();
    for (tiers, strategy, expected) in [
        ([1, 1, 1, 1], [vec![0], vec![1], vec![2], vec![3]], [vec![0], vec![1], vec![2], vec![3]]),
        ([1, 0, 0, 0], [vec![0], vec![1], vec![2], vec![3]], [vec![0], vec![0], vec![0], vec![0]]),
        ([0, 1, 0, 1], [vec![0], vec![1], vec![2], vec![3]], [vec![1], vec![1], vec![3], vec![3]]),
        (
            [1, 0, 1, 0],
            [vec![1, 2], vec![0, 2, 0], vec![], vec![3, 1]],
            [vec![2], vec![0, 2], vec![2], vec![2]],
        ),
        ([0, 1, 1, 0], [vec![0], vec![1], vec![], vec![]], [vec![1], vec![1], vec![2], vec![2]]),
    ] {
        config.storage.tiers =
            tiers.map(|there| if there == 1 { full.clone() } else { empty.clone() }).to_vec();
        config.alloc_strategy = strategy;
        assert_eq!(order(&config), expected, "{tiers:?}");
    }
    // Nonsense that was not validated is skipped.
    config.alloc_strategy[0] = vec![200, 1];
    assert_eq!(config.allocation_order()[0], [1]);
}

#[test]
fn a_programs_settings_are_checked_too() {
    let device: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(1 << 20));
    let mut config = DatabaseConfiguration::default();
    config.storage.tiers = vec![[LeafVdev::from(device).into()].into_iter().collect()];
    config.validate().unwrap();
    let error = config.to_json_string().unwrap_err();
    assert_eq!(error.path(), Some("storage.tiers[0].top_level_vdevs[0]"), "{error}");
    config.storage.tiers.clear();
    config.migration_policy = Some(MigrationPolicies::Lfu(MigrationConfig {
        migration_threshold: [0.5, f32::NAN, 0.5, 0.5],
        ..Default::default()
    }));
    assert!(config.validate().is_err() && config.to_json_string().is_err());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.json");
    assert!(config.write_config_json(&path).is_err());
    assert!(!path.exists());
    config.migration_policy = None;
    config.write_config_json(&path).unwrap();
    assert_eq!(DatabaseConfiguration::from_json_file(&path).unwrap(), config);
    assert!(config.write_config_json(directory.path()).is_err());
}

fn any_compression() -> impl Strategy<Value = Compression> {
    prop_oneof![
        Just(Compression::None),
        Just(Compression::Lz4),
        (1u8..=22).prop_map(|level| Compression::Zstd { level }),
    ]
}

fn any_path() -> impl Strategy<Value = PathBuf> {
    ".*".prop_map(PathBuf::from)
}

fn any_storage() -> impl Strategy<Value = StoragePoolConfiguration> {
    (
        prop::collection::vec(any_tier(), 0..=4),
        any::<u32>(),
        any::<Option<u32>>(),
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec(any_path().prop_map(LeafVdev::file), 0..3),
    )
        .prop_map(|(tiers, queue_depth_factor, thread_pool_size, thread_pool_pinned, degraded, spares)| {
            StoragePoolConfiguration {
                tiers,
                queue_depth_factor,
                thread_pool_size,
                thread_pool_pinned,
                degraded,
                spares,
            }
        })
        .prop_filter("a path is used twice", |storage| storage.validate().is_ok())
}

fn any_migration<P: std::fmt::Debug>(
    policy: impl Strategy<Value = P>,
) -> impl Strategy<Value = MigrationConfig<P>> {
    let duration =
        || (any::<u64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos));
    (duration(), prop::array::uniform4(0.0f32..=1.0), duration(), policy).prop_map(
        |(grace_period, migration_threshold, update_period, policy_config)| MigrationConfig {
            grace_period,
            migration_threshold,
            update_period,
            policy_config,
        },
    )
}

fn any_policy() -> impl Strategy<Value = MigrationPolicies> {
    let mode = prop::sample::select(vec![LfuMode::Object, LfuMode::Node, LfuMode::Both]);
    let path = || prop::option::of(any_path());
    let lfu = (any::<u32>(), any::<u32>(), path(), path(), mode).prop_map(
        |(promote_num, promote_size, path_state, path_delta, mode)| LfuConfig {
            promote_num,
            promote_size,
            path_state,
            path_delta,
            mode,
        },
    );
    let rl = (path(), path()).prop_map(|(path_state, path_delta)| RlConfig { path_state, path_delta });
    prop_oneof![
        any_migration(lfu).prop_map(MigrationPolicies::Lfu),
        any_migration(prop::option::of(rl)).prop_map(MigrationPolicies::ReinforcementLearning),
    ]
}

fn any_dataset() -> impl Strategy<Value = DatasetConfiguration> {
    let policies = vec![MergePolicy::LazyLeveled, MergePolicy::Tiered, MergePolicy::Leveled];
    let preferences =
        [0, 1, 2, 3, 254].into_iter().filter_map(StoragePreference::from_u8).collect::<Vec<_>>();
    (
        prop::sample::select(policies),
        4usize..=1024,
        (1usize..=256, (2usize << 10)..=(1 << 20), (1u64 << 20)..=(1 << 30), (1u64 << 20)..=(1 << 36)),
        (1usize..=64, 1usize..=64),
        prop::option::of(any_compression()),
        prop::sample::select(preferences),
    )
        .prop_map(
            |(
                merge_policy,
                fanout,
                (blocks, large_value_size, leaf_size, buffer_size),
                runs,
                compression,
                preference,
            )| {
                DatasetConfiguration {
                    merge_policy,
                    fanout,
                    leaf_size,
                    block_size: blocks * 4096,
                    large_value_size,
                    buffer_size,
                    runs_per_buffer: runs.0,
                    deltas_per_leaf: runs.1,
                    compression,
                    storage_preference: preference,
                }
            },
        )
}

fn any_configuration() -> impl Strategy<Value = DatabaseConfiguration> {
    let modes = vec![AccessMode::OpenIfExists, AccessMode::AlwaysCreateNew, AccessMode::OpenOrCreate];
    let metrics =
        (any::<bool>(), any::<u32>(), any_path()).prop_map(|(enabled, interval_ms, output_path)| {
            MetricsConfiguration { enabled, interval_ms, output_path }
        });
    (
        (
            any_storage(),
            prop::array::uniform4(prop::collection::vec(0u8..4, 0..=4)),
            0u8..4,
            any_compression(),
            0usize..=1 << 46,
            prop::sample::select(modes),
            prop::option::of(1u64..=1 << 30),
            prop::option::of(any_policy()),
            prop::option::of(metrics),
            any_path(),
        ),
        (
            4096usize..=1 << 46,
            prop::option::of(0u8..4),
            prop::option::of(1u64 << 16..=1 << 40),
            20u32..=30,
            prop::option::of(0usize..=1024),
            any_dataset(),
        ),
    )
        .prop_map(|(haura, ours)| {
            let (storage, alloc_strategy, default_storage_class, compression, cache_size, ..) = haura;
            let (.., access_mode, sync_interval_ms, migration_policy, metrics, allocation_log_file_path) =
                haura;
            let (memtable_size, log_tier, checkpoint_log_bytes, shift, background_threads, default_dataset) =
                ours;
            let log_tier = log_tier.filter(|tier| storage.is_empty() || storage.has_tier(*tier));
            DatabaseConfiguration {
                storage,
                alloc_strategy,
                default_storage_class,
                compression,
                cache_size,
                access_mode,
                sync_interval_ms,
                migration_policy,
                metrics,
                allocation_log_file_path,
                memtable_size,
                log_tier,
                checkpoint_log_bytes,
                segment_size: 1 << shift,
                scrub_bytes_per_second: checkpoint_log_bytes,
                background_threads,
                default_dataset,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_loads_equal(config in any_configuration()) {
        let text = config.to_json_string().unwrap();
        prop_assert_eq!(&DatabaseConfiguration::from_json_str(&text).unwrap(), &config);
        // The plain serde way, and through a tree of values as the environment goes.
        prop_assert_eq!(&serde_json::from_str::<DatabaseConfiguration>(&text).unwrap(), &config);
        let mut through_env = config.clone();
        let label = ("BETREE__STORAGE__DEGRADED".to_owned(), config.storage.degraded.to_string());
        let tiers = serde_json::to_string(&config.storage.tiers).unwrap();
        through_env.apply_env([label, ("BETREE__STORAGE__TIERS".to_owned(), tiers)]).unwrap();
        prop_assert_eq!(through_env, config);
    }

    #[test]
    fn damaged_documents_do_not_panic(
        config in any_configuration(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = config.to_json_string().unwrap().into_bytes();
        for (index, byte) in edits {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = DatabaseConfiguration::from_json_str(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn strings_do_not_panic(text in "(?s).*|[{}\\[\\]\":,a-z_0-9 ]{0,60}") {
        let _ = DatabaseConfiguration::from_json_str(&text);
    }
}
