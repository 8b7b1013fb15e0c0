//! Newtypes for the numbers that corrupt data when they are mixed up.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A top-level vdev. Never reused within a pool; position and tier come from the configuration.
    VdevId,
    u32
);
number!(
    /// A dataset. Never reused within a pool; 0 is the root tree.
    DatasetId,
    u64
);
number!(
    /// A checkpoint. Strictly increasing over the life of a pool, never reused after a fallback.
    Generation,
    u64
);
number!(
    /// The database-wide order of messages.
    Sequence,
    u64
);

impl Generation {
    /// The newest generation that is written or taken from a device: a checkpoint each millisecond comes to it in 17 years.
    /// The messages of the root tree, 2^24 of each generation, have numbers up to twice that.
    pub const STORED_MAX: Self = Self(1 << 39);

    /// The generation after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Sixteen random bytes that name a pool or a device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
