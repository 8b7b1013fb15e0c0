//! Reproducible choices.

/// A small generator of numbers that look random: SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
/// Generators", OOPSLA 2014).
#[derive(Debug, Clone)]
pub struct SimRng {
    state: u64,
}

impl SimRng {
    /// A generator whose numbers depend on `seed` alone.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(end)) >> 64) as u64
    }

    /// An index of a slice of `len` entries; 0 when it has none.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True in `hits` of `of` cases.
    pub fn chance(&mut self, hits: u64, of: u64) -> bool {
        self.below(of) < hits
    }

    /// Brings `entries` into any order.
    pub fn shuffle<T>(&mut self, entries: &mut [T]) {
        for end in (1..entries.len()).rev() {
            entries.swap(end, self.index(end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_splitmix64_and_reach_every_value() {
        let mut rng = SimRng::new(1_234_567);
        let first = [rng.next_u64(), rng.next_u64(), rng.next_u64()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        let mut seen = [false; 7];
        (0..1000).for_each(|_| seen[rng.index(7)] = true);
        assert_eq!((seen, rng.below(0), rng.index(0)), ([true; 7], 0, 0));
        let mut entries: Vec<u32> = (0..100).collect();
        rng.shuffle(&mut entries);
        assert!(!entries.is_sorted());
        entries.sort_unstable();
        assert!(entries.iter().copied().eq(0..100));
    }
}
