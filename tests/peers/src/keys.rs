//! Keys and values that any process can compute again from their number.

use crate::error::Wrong;
use crate::random::{Random, mix};
use std::ops::RangeInclusive;

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 100;

/// Bytes that one entry holds for its user.
pub const ENTRY_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;

/// A key.
pub type Key = [u8; KEY_BYTES];

/// A value.
pub type Value = [u8; VALUE_BYTES];

/// How numbers become keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Ascending numbers jump about the whole key space.
    Scattered,
    /// Ascending numbers give ascending keys.
    Ascending,
}

/// Round keys of the Feistel network: nothing up the sleeve, the first digits of pi.
const ROUNDS: [u64; 4] =
    [0x243F_6A88_85A3_08D3, 0x1319_8A2E_0370_7344, 0xA409_3822_299F_31D0, 0x082E_FA98_EC4E_6C89];

impl Order {
    /// The key with number `index`.
    #[must_use]
    pub fn key(self, index: u64) -> Key {
        let (mut left, mut right) = (0u64, index);
        match self {
            Self::Scattered => {
                for round in ROUNDS {
                    (left, right) = (right, left ^ mix(right.wrapping_add(round)));
                }
            }
            Self::Ascending => (left, right) = (index, mix(index)),
        }
        let mut key = [0; KEY_BYTES];
        key[..8].copy_from_slice(&left.to_be_bytes());
        key[8..].copy_from_slice(&right.to_be_bytes());
        key
    }

    /// The number of `key`; `None` when it is no key of this order.
    #[must_use]
    pub fn index(self, key: &[u8]) -> Option<u64> {
        let key: &Key = key.try_into().ok()?;
        let [mut left, mut right] = [&key[..8], &key[8..]].map(be_word);
        match self {
            Self::Scattered => {
                for round in ROUNDS.into_iter().rev() {
                    (left, right) = (right ^ mix(left.wrapping_add(round)), left);
                }
                (left == 0).then_some(right)
            }
            Self::Ascending => (right == mix(left)).then_some(left),
        }
    }
}

fn be_word(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// The value of key number `index` in its `version`: the version, then noise that does not compress.
#[must_use]
pub fn value(index: u64, version: u32) -> Value {
    let mut value = [0; VALUE_BYTES];
    value[..4].copy_from_slice(&version.to_le_bytes());
    let mut noise = Random::new(mix(index ^ 0x5851_F42D_4C95_7F2D).wrapping_add(u64::from(version)));
    for part in value[4..].chunks_exact_mut(8) {
        part.copy_from_slice(&noise.next().to_le_bytes());
    }
    value
}

/// Checks that `found` is the value of key number `index` in one of `versions`.
///
/// # Errors
/// [`Wrong::Value`] when it is not.
pub fn verify(index: u64, versions: RangeInclusive<u32>, found: &[u8]) -> Result<(), Wrong> {
    if let Some(version) = found.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes))
        && versions.contains(&version)
        && found == value(index, version)
    {
        return Ok(());
    }
    Err(Wrong::Value { index })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn keys_lead_back_to_their_numbers() {
        for order in [Order::Scattered, Order::Ascending] {
            for index in (0..10_000).chain([u64::MAX / 2, u64::MAX]) {
                assert_eq!(order.index(&order.key(index)), Some(index));
            }
            let mut foreign = order.key(5);
            foreign[15] ^= 1;
            assert_eq!(order.index(&foreign), None);
            assert_eq!(order.index(&foreign[1..]), None);
        }
    }

    #[test]
    fn keys_lie_as_their_order_says() {
        let ascending: Vec<Key> = (0..1000).map(|index| Order::Ascending.key(index)).collect();
        assert!(ascending.is_sorted());
        let scattered: Vec<Key> = (0..10_000).map(|index| Order::Scattered.key(index)).collect();
        let first_bytes: BTreeSet<u8> = scattered.iter().map(|key| key[0]).collect();
        assert_eq!(first_bytes.len(), 256, "every part of the key space is hit");
        assert_eq!(scattered.iter().collect::<BTreeSet<_>>().len(), scattered.len());
    }

    #[test]
    fn values_are_known_by_key_and_version() {
        assert_eq!(verify(7, 3..=3, &value(7, 3)), Ok(()));
        assert_eq!(verify(7, 2..=4, &value(7, 3)), Ok(()));
        let wrong = Err(Wrong::Value { index: 7 });
        assert_eq!(verify(7, 4..=5, &value(7, 3)), wrong, "an older version");
        assert_eq!(verify(7, 3..=3, &value(8, 3)), wrong, "another key's value");
        assert_eq!(verify(7, 3..=3, &value(7, 3)[..99]), wrong);
        assert_eq!(verify(7, 0..=0, &[]), wrong);
        for byte in 0..VALUE_BYTES {
            let mut damaged = value(7, 3);
            damaged[byte] ^= 0x10;
            assert_eq!(verify(7, 0..=u32::MAX, &damaged), wrong, "byte {byte}");
        }
    }
}
