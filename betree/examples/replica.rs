//! A replica in another pool: a whole snapshot, what changed since, and a connection that breaks on the way.

use betree::{
    Database, ReceiveOptions, Result, SendOptions, StoragePoolConfiguration, StreamError, TierConfiguration,
};

fn pool() -> Result<Database> {
    // A pool of memory alone is legal: it is gone at the end.
    let memory = TierConfiguration::parse_zfs_like(["mem:128MiB"])?;
    Database::create(StoragePoolConfiguration { tiers: vec![memory], ..StoragePoolConfiguration::default() })
}

fn main() -> Result<()> {
    let (here, there) = (pool()?, pool()?);
    let users = here.create_dataset("users")?;
    for number in 0..20_000_u32 {
        users.insert(number.to_be_bytes(), [number as u8; 200])?;
    }
    let monday = users.create_snapshot("monday")?;

    // Anything that writes and reads bytes will do: a file, a pipe, a connection.
    let mut stream = Vec::new();
    let report = monday.send(None, &SendOptions::default(), &mut stream)?;
    println!("monday: {} entries, {} bytes", report.puts, report.bytes);

    // The connection breaks: nothing is seen of it, and it goes on where it ended.
    let half = &stream[..stream.len() / 2];
    match there.receive("users", &ReceiveOptions::default(), &mut &half[..]) {
        Err(betree::Error::Stream(StreamError::Truncated { at })) => println!("cut at byte {at}"),
        other => drop(other?),
    }
    assert!(there.datasets()?.is_empty());
    let token = there.unfinished_receives()?.remove(0).token;
    let mut rest = Vec::new();
    monday.send(None, &SendOptions { resume: Some(&token), ..SendOptions::default() }, &mut rest)?;
    there.receive("users", &ReceiveOptions::default(), &mut &rest[..])?;

    // Later: only what changed.
    users.insert(7_u32.to_be_bytes(), "changed")?;
    users.range_delete(1000_u32.to_be_bytes()..1100_u32.to_be_bytes())?;
    let tuesday = users.create_snapshot("tuesday")?;
    let mut changes = Vec::new();
    let report = tuesday.send(Some(&monday), &SendOptions::default(), &mut changes)?;
    println!("tuesday: {} entries and {} deleted keys, {} bytes", report.puts, report.deletes, report.bytes);
    there.receive("users", &ReceiveOptions::default(), &mut &changes[..])?;

    let replica = there.open_dataset("users")?;
    assert_eq!(replica.get(7_u32.to_be_bytes())?.as_deref(), Some(&b"changed"[..]));
    assert_eq!(replica.open_snapshot("tuesday")?.guid(), tuesday.guid());
    assert_eq!(replica.range::<&[u8]>(..).count(), tuesday.range::<&[u8]>(..).count());
    drop((replica, users, monday, tuesday));
    here.close()?;
    there.close()
}
