//! A message action of your own: counters that are added to without reading them.

use betree::{
    Database, Dataset, MessageAction, StoragePoolConfiguration, StoragePreference, TierConfiguration,
};

/// A message is a signed number that is added to the value; both are 8 bytes, big-endian.
#[derive(Debug, Default)]
struct Add;

fn number(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_be_bytes)
}

impl MessageAction for Add {
    // Stored with the dataset: opening it with another action is an error.
    const NAME: &'static str = "example.add.v1";

    fn apply(&self, _key: &[u8], message: &[u8], value: &mut Option<Vec<u8>>) {
        let sum = value.as_deref().map_or(0, number).wrapping_add(number(message));
        // A counter at zero needs no key.
        *value = (sum != 0).then(|| sum.to_be_bytes().to_vec());
    }

    // Adding both at once is the same as one after the other, so that a thousand messages become one on their way down.
    fn merge(&self, _key: &[u8], upper: &[u8], lower: &[u8]) -> Option<Vec<u8>> {
        Some(number(upper).wrapping_add(number(lower)).to_be_bytes().to_vec())
    }
}

fn main() -> betree::Result<()> {
    let memory = TierConfiguration::parse_zfs_like(["mem:256MiB"])?;
    let storage = StoragePoolConfiguration { tiers: vec![memory], ..StoragePoolConfiguration::default() };
    let database = Database::create(storage)?;
    let hits: Dataset<Add> = database.create_custom_dataset("hits", StoragePreference::NONE)?;

    for visit in 0..100_000_u32 {
        let page = format!("/page/{}", visit.wrapping_mul(2_654_435_769) >> 24);
        hits.insert_msg(page, 1_i64.to_be_bytes())?;
    }
    hits.insert_msg("/page/7", (-1_i64).to_be_bytes())?;

    let mut total = 0;
    for entry in hits.range::<&[u8]>(..) {
        total += number(&entry?.1);
    }
    println!("{total} hits on {} pages", hits.range::<&[u8]>(..).count());
    assert_eq!(total, 99_999);

    // The dataset belongs to this action now.
    drop(hits);
    assert!(database.open_dataset("hits").is_err());
    database.close()
}
