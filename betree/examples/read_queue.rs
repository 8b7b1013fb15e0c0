//! Blocks of 4 KiB read in any order by one thread: one by one, and with 32 reads under way.
//!
//! cargo run --release -p betree --example read_queue [FOLDER]

use betree::{
    BegunRead, Database, Dataset, DatasetConfiguration, ReadQueue, StoragePoolConfiguration,
    TierConfiguration,
};
use std::time::Instant;

const BLOCKS: u64 = 64 << 10;
const READS: u64 = 50_000;

fn key(read: u64) -> [u8; 8] {
    (read.wrapping_mul(0x9e37_79b9_7f4a_7c15) % BLOCKS).to_be_bytes()
}

fn one_by_one(blocks: &Dataset) -> betree::Result<()> {
    let mut buffer = [0; 4096];
    for read in 0..READS {
        blocks.get_part(key(read), 0, &mut buffer)?;
        assert_eq!(buffer[..8], key(read));
    }
    Ok(())
}

fn queued(blocks: &Dataset) -> betree::Result<()> {
    let mut queue = ReadQueue::new(32);
    let mut buffer = [0; 4096];
    let mut next = 0;
    while next < READS || !queue.is_empty() {
        while next < READS && queue.len() < 32 {
            // The tag says later which read it is.
            match queue.begin(blocks, key(next), 0, &mut buffer, next)? {
                BegunRead::UnderWay => {}
                BegunRead::Read(_) => assert_eq!(buffer[..8], key(next)),
                BegunRead::Waits => {
                    blocks.get_part(key(next), 0, &mut buffer)?;
                    assert_eq!(buffer[..8], key(next));
                }
            }
            next += 1;
        }
        queue.wait(1, None)?;
        while let Some(arrived) = queue.next_arrived() {
            let read = arrived.tag();
            arrived.finish(&mut buffer)?;
            assert_eq!(buffer[..8], key(read));
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = match std::env::args_os().nth(1) {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let file = format!("{}:1GiB", folder.path().join("pool.img").display());
    let storage = StoragePoolConfiguration {
        tiers: vec![TierConfiguration::parse_zfs_like([file])?],
        ..StoragePoolConfiguration::default()
    };
    let database = Database::open_or_create(storage)?;
    // From so many bytes on a value has an extent of its own, which one request reads.
    let configuration = DatasetConfiguration { large_value_size: 4096, ..DatasetConfiguration::default() };
    database.create_dataset_with("blocks", &configuration)?;
    let blocks = database.open_dataset("blocks")?;
    for number in 0..BLOCKS {
        let mut block = [0; 4096];
        block[..8].copy_from_slice(&number.to_be_bytes());
        blocks.insert(number.to_be_bytes(), block)?;
    }
    database.checkpoint()?;
    type Way = fn(&Dataset) -> betree::Result<()>;
    for (name, way) in [("one by one", one_by_one as Way), ("32 under way", queued)] {
        database.drop_cache();
        let began = Instant::now();
        way(&blocks)?;
        println!("{name}: {:.0} reads a second", READS as f64 / began.elapsed().as_secs_f64());
    }
    drop(blocks);
    Ok(database.close()?)
}
