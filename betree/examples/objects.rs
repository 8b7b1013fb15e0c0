//! Objects: bytes of any length under a name, read and written at any offset.
//!
//! cargo run --release -p betree --example objects

use betree::{Condition, Database, Durability, ListOptions, StoragePoolConfiguration, TierConfiguration};
use std::io::{Read, Seek, SeekFrom, Write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let file = format!("{}:256MiB", folder.path().join("pool.img").display());
    let storage = StoragePoolConfiguration {
        tiers: vec![TierConfiguration::parse_zfs_like([file])?],
        ..StoragePoolConfiguration::default()
    };
    let database = Database::open_or_create(storage)?;
    let photos = database.open_or_create_object_store("photos")?;

    // A hole of a mebibyte, then some bytes: only these take space.
    let cat = photos.create_object("cats/tom.jpg")?;
    cat.write_at(&[0xff; 4096], 1 << 20)?;
    cat.set_metadata("camera", "X100")?;
    let mut cursor = cat.cursor();
    cursor.write_all(b"head")?;
    cursor.seek(SeekFrom::End(-4))?;
    let mut tail = Vec::new();
    cursor.read_to_end(&mut tail)?;
    assert_eq!(tail, [0xff; 4]);

    // Several at one instant; and one only if nobody was faster.
    photos
        .batch()
        .put("dogs/rex.jpg", "woof")
        .rename("cats/tom.jpg", "cats/tim.jpg")
        .commit(Durability::Sync)?;
    let version = photos.put("index", "tim, rex")?.version;
    photos.put_if("index", "tim, rex, tweety", Condition::Matches(version))?;
    assert!(photos.put_if("index", "lost", Condition::Matches(version)).is_err());

    // What it was stays readable, and costs nothing until it is overwritten.
    let monday = photos.create_snapshot("monday")?;
    cat.delete()?;
    assert_eq!(monday.get("dogs/rex.jpg")?.as_deref(), Some(&b"woof"[..]));

    let options = ListOptions { delimiter: b"/".to_vec(), ..ListOptions::default() };
    let page = photos.list_page(&options)?;
    let names: Vec<_> = page.prefixes.iter().map(|name| name.escape_ascii().to_string()).collect();
    println!("{} objects beside {}", page.objects.len(), names.join(", "));
    for object in monday.list_objects("cats/".."cats0") {
        let (name, info) = object?;
        println!("{}: {} bytes, version {}", name.escape_ascii(), info.size, info.version);
    }
    Ok(database.close()?)
}
