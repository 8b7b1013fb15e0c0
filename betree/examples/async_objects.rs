//! Objects from asynchronous code: tokio here, but any executor may poll these futures.
//!
//! cargo run --release -p betree --example async_objects

use betree::{Database, StoragePoolConfiguration, TierConfiguration};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let file = format!("{}:256MiB", folder.path().join("pool.img").display());
    let storage = StoragePoolConfiguration {
        tiers: vec![TierConfiguration::parse_zfs_like([file])?],
        ..StoragePoolConfiguration::default()
    };
    let database = Database::open_or_create(storage)?;
    let store = database.open_or_create_object_store("uploads")?.asynchronous(2)?;

    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        // A hundred uploads at once, on one thread of the runtime and two of the store.
        let uploads: Vec<_> = (0..100_u8)
            .map(|number| tokio::spawn(store.put(format!("file-{number:03}"), vec![number; 100_000])))
            .collect();
        let mut bytes = 0;
        for upload in uploads {
            bytes += upload.await.map_err(std::io::Error::other)??.size;
        }
        store.sync().await?;
        println!("{bytes} bytes uploaded");

        let object = store.call(|store| store.open_object("file-042")).await?.ok_or("it is gone")?;
        store.write_at(&object, *b"head", 0).await?;
        let head = store.read_at(&object, 0, 6).await?;
        assert_eq!(head, b"head\x2a\x2a");
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    drop(store);
    Ok(database.close()?)
}
