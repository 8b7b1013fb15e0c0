//! How fast a scrub is, beside reading the same file from its beginning to its end.
//!
//! `cargo run --release --example scrub [MIB] [FOLDER]`

use betree::vdev::{BlockDevice, FileDevice};
use betree::{
    Database, DatabaseConfiguration, FileLeaf, LeafVdev, StoragePoolConfiguration, StoragePreference,
    TierConfiguration,
};
use std::time::Instant;

const MIB: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mib: u64 = arguments.next().map_or(Ok(32), |argument| argument.parse())?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let path = folder.join(format!("scrub-{}.img", std::process::id()));
    let leaf = FileLeaf { size: Some((mib * 3 + 64) * MIB), ..FileLeaf::new(&path) };
    let configuration = DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: vec![TierConfiguration::new(vec![LeafVdev::File(leaf).into()])],
            ..StoragePoolConfiguration::default()
        },
        ..DatabaseConfiguration::default()
    };
    let database = Database::create_with(configuration, false)?;
    let (small, large) = (database.create_dataset("small")?, database.create_dataset("large")?);
    let mut value = vec![0; 1 << 20];
    for number in 0..mib / 2 {
        value.iter_mut().zip(number..).for_each(|(byte, at)| *byte = (at * 167) as u8);
        large.insert_with_pref(number.to_be_bytes(), &value, StoragePreference::NONE)?;
        for part in 0..1024 {
            small
                .insert((number * 7919 % mib * 1024 + part).to_be_bytes(), &value[part as usize..][..1024])?;
        }
    }
    database.checkpoint()?;
    database.settle()?;
    database.drop_cache();
    let status = database.scrub("example", |_| true)?;
    let rate = status.bytes_done as f64 / MIB as f64 / status.active.as_secs_f64();
    println!("scrub: {} MiB, {rate:.0} MiB/s, {} checksums", status.bytes_done / MIB, status.units);
    // Handles keep the file locked.
    drop((small, large));
    database.close()?;

    let device = FileDevice::open(&path, true, false)?;
    let (started, mut buffer) = (Instant::now(), betree::base::buffer::AlignedBuffer::zeroed(1 << 20));
    for at in 0..status.bytes_done / MIB {
        device.read_at(&mut buffer, at * MIB)?;
    }
    let rate = (status.bytes_done / MIB) as f64 / started.elapsed().as_secs_f64();
    println!("the same from the file, in order: {rate:.0} MiB/s");
    Ok(std::fs::remove_file(path)?)
}
