//! Two tiers: a dataset prefers one, single writes the other.

use betree::{
    Database, DatabaseConfiguration, DatasetConfiguration, StoragePoolConfiguration, StoragePreference,
    TierConfiguration,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str| format!("{}/{name}.img:256MiB:direct=false", folder.path().display());
    let configuration = DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: vec![
                TierConfiguration::parse_zfs_like([file("fastest").as_str(), "label=nvme"])?,
                // Two vdevs: the tier's load is spread over them.
                TierConfiguration::parse_zfs_like([file("fast-a"), file("fast-b")])?,
            ],
            ..StoragePoolConfiguration::default()
        },
        // What prefers FASTEST may go to FAST when FASTEST is full; what prefers FAST stays there.
        alloc_strategy: [vec![0, 1], vec![1], vec![1], vec![1]],
        ..DatabaseConfiguration::default()
    };
    let database = Database::create_with(configuration, false)?;

    let archive = DatasetConfiguration {
        storage_preference: StoragePreference::FAST,
        compression: Some(betree::Compression::Zstd { level: 3 }),
        ..DatasetConfiguration::default()
    };
    let archive = database.create_dataset_with("archive", &archive)?;
    for day in 0_u32..40 {
        archive.insert(day.to_be_bytes(), vec![day as u8; 1 << 20])?;
    }
    // This one is wanted soon.
    archive.insert_with_pref("today", "read me first", StoragePreference::FASTEST)?;
    database.checkpoint()?;

    for (tier, space) in database.free_space_tier().iter().enumerate().filter(|(_, space)| space.total > 0) {
        println!(
            "tier {tier}: {} of {} MiB free ({:.1} %)",
            space.free >> 20,
            space.total >> 20,
            space.percent_free() * 100.0
        );
    }
    let [fastest, fast, ..] = database.free_space_tier();
    assert!(fast.total - fast.free > fastest.total - fastest.free, "the archive is on the second tier");
    drop(archive);
    Ok(database.close()?)
}
