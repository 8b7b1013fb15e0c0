//! A dataset as an ordered map: write, read, walk, make durable, open again.

use betree::{AccessMode, Database, DatabaseConfiguration, StoragePoolConfiguration, TierConfiguration};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    // Buffered I/O, because the folder for temporary files may be in memory; without `direct=false` the pool bypasses
    // the page cache.
    let file = format!("{}/pool.img:256MiB:direct=false", folder.path().display());
    let configuration = DatabaseConfiguration {
        storage: StoragePoolConfiguration {
            tiers: vec![TierConfiguration::parse_zfs_like([file])?],
            ..StoragePoolConfiguration::default()
        },
        access_mode: AccessMode::OpenOrCreate,
        ..DatabaseConfiguration::default()
    };

    let database = Database::build(configuration.clone())?;
    let planets = database.create_dataset("planets")?;
    for (name, moons) in
        [("Mercury", "0"), ("Venus", "0"), ("Earth", "1"), ("Mars", "2"), ("Jupiter", "97"), ("Vulcan", "?")]
    {
        planets.insert(name, moons)?;
    }
    planets.delete("Vulcan")?;
    // Overwrites from byte 0 on, without reading the value first.
    planets.upsert("Jupiter", "95", 0)?;
    assert_eq!(planets.get("Jupiter")?.as_deref(), Some(&b"95"[..]));

    for entry in planets.range("E".."N") {
        let (name, moons) = entry?;
        println!("{}: {}", String::from_utf8_lossy(&name), String::from_utf8_lossy(&moons));
    }

    // Everything that returned before is on the device once this returns.
    database.sync()?;
    drop(planets);
    database.close()?;

    let database = Database::build(configuration)?;
    let planets = database.open_dataset("planets")?;
    assert_eq!(planets.range::<&[u8]>(..).count(), 5);
    assert!(!planets.contains_key("Vulcan")?);

    // One message deletes the range, whatever is in it.
    planets.range_delete("F"..)?;
    let first = planets.first_key_value()?.map(|(name, _)| String::from_utf8_lossy(&name).into_owned());
    println!("left: {first:?}, verified: {:?}", database.verify()?);
    assert_eq!(first.as_deref(), Some("Earth"));
    drop(planets);
    Ok(database.close()?)
}
