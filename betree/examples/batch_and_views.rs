//! Batches are atomic across datasets; views keep one state while writes go on.

use betree::{Database, Durability, Result, StoragePoolConfiguration, TierConfiguration, Value};
use std::thread;

const ACCOUNTS: u32 = 100;

fn amount(value: &Value) -> i64 {
    value.as_ref().try_into().map_or(0, i64::from_be_bytes)
}

fn main() -> Result<()> {
    // A pool of memory alone is legal: it is gone at the end.
    let memory = TierConfiguration::parse_zfs_like(["mem:256MiB"])?;
    let storage = StoragePoolConfiguration { tiers: vec![memory], ..StoragePoolConfiguration::default() };
    let database = Database::create(storage)?;
    let accounts = database.create_dataset("accounts")?;
    let journal = database.create_dataset("journal")?;

    let mut batch = database.batch();
    for account in 0..ACCOUNTS {
        batch = batch.insert(&accounts, account.to_be_bytes(), 100_i64.to_be_bytes());
    }
    batch.commit(Durability::Sync)?;

    let before = database.view();
    thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<()> {
            for transfer in 0..10_000_u32 {
                let (from, to) = (transfer % ACCOUNTS, (transfer * 7 + 1) % ACCOUNTS);
                if from == to {
                    continue;
                }
                let of = |account: u32| accounts.get(account.to_be_bytes());
                let (Some(source), Some(target)) = (of(from)?, of(to)?) else { continue };
                // Both accounts and the journal, or none of them.
                database
                    .batch()
                    .insert(&accounts, from.to_be_bytes(), (amount(&source) - 1).to_be_bytes())
                    .insert(&accounts, to.to_be_bytes(), (amount(&target) + 1).to_be_bytes())
                    .insert(&journal, transfer.to_be_bytes(), [from.to_be_bytes(), to.to_be_bytes()].concat())
                    .commit(Durability::Buffered)?;
            }
            Ok(())
        });
        // Beside the writer: every view is one instant, so money is neither made nor lost in it.
        while !writer.is_finished() {
            let mut sum = 0;
            for entry in database.view().dataset(&accounts)?.range::<&[u8]>(..) {
                sum += amount(&entry?.1);
            }
            assert_eq!(sum, i64::from(ACCOUNTS) * 100);
        }
        writer.join().unwrap_or(Ok(()))
    })?;

    // The view from before still sees what was then.
    assert_eq!(before.dataset(&journal)?.range::<&[u8]>(..).count(), 0);
    let entries = journal.range::<&[u8]>(..).count();
    println!("{entries} transfers; account 1 had {:?}", before.dataset(&accounts)?.get(1_u32.to_be_bytes())?);
    drop((before, accounts, journal));
    database.close()
}
