//! Sizes in configurations: whole bytes, or a string with a unit.

use crate::base::units::parse_bytes;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// A number of bytes, read from `4096` or `"4KiB"`.
pub(crate) struct Bytes(pub(crate) u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BytesVisitor)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size: whole bytes such as 4096, or a string such as \"4GiB\"")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<Bytes, E> {
        Ok(Bytes(bytes))
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<Bytes, E> {
        u64::try_from(bytes).map(Bytes).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
        parse_bytes(text).map(Bytes).map_err(E::custom)
    }
}

/// `deserialize_with` for a size in `u64` or `usize`.
pub(crate) fn bytes<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    let Bytes(bytes) = Bytes::deserialize(deserializer)?;
    T::try_from(bytes)
        .map_err(|_| D::Error::custom(format!("{bytes} bytes are more than this machine can address")))
}
