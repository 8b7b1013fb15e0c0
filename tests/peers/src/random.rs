//! Choices that are the same in every run.

/// Scrambles 64 bits, one to one: the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
#[must_use]
pub const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// SplitMix64: small, fast, and good enough to choose keys and fill values.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The sequence that belongs to `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Multiply and shift (Lemire 2019) without the rejection: the bias is bound / 2^64.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in 0.0..1.0.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Ranks that follow Zipf's law, by the method of Gray et al. (SIGMOD 1994, section 3.2), which YCSB uses too,
/// scattered over the keys by a hash.
#[derive(Debug, Clone)]
pub struct Zipfian {
    items: u64,
    zeta_items: f64,
    second: f64,
    alpha: f64,
    eta: f64,
}

impl Zipfian {
    /// For `items` keys with the exponent `theta`, above 0 and below 1. Takes time in proportion to `items`.
    #[must_use]
    pub fn new(items: u64, theta: f64) -> Self {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-theta)).sum::<f64>();
        let zeta_items = zeta(items);
        let eta = (1.0 - (2.0 / items as f64).powf(1.0 - theta)) / (1.0 - zeta(2) / zeta_items);
        Self { items, zeta_items, second: 1.0 + 0.5f64.powf(theta), alpha: 1.0 / (1.0 - theta), eta }
    }

    /// The next rank: 0 is the most frequent one.
    fn rank(&self, random: &mut Random) -> u64 {
        let u = random.unit();
        let uz = u * self.zeta_items;
        if uz < 1.0 {
            0
        } else if uz < self.second {
            1.min(self.items - 1)
        } else {
            let rank = self.items as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha);
            (rank as u64).min(self.items - 1)
        }
    }

    /// The number of the next key.
    pub fn next(&self, random: &mut Random) -> u64 {
        mix(self.rank(random).wrapping_add(0x51_7C_C1_B7_27_22_0A_95)) % self.items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_their_bound() {
        let mut random = Random::new(1);
        for bound in [1, 2, 3, 1000, u64::MAX] {
            for _ in 0..1000 {
                assert!(random.below(bound) < bound);
                assert!((0.0..1.0).contains(&random.unit()));
            }
        }
    }

    /// The share of rank r is r^-theta / zeta(n): checked for the first ranks of a small set.
    #[test]
    fn ranks_follow_the_law() {
        let (items, theta, draws) = (1000u64, 0.99, 1_000_000);
        let zipfian = Zipfian::new(items, theta);
        let zeta: f64 = (1..=items).map(|i| (i as f64).powf(-theta)).sum();
        let mut random = Random::new(7);
        let mut counts = vec![0u32; items as usize];
        for _ in 0..draws {
            counts[zipfian.rank(&mut random) as usize] += 1;
        }
        for rank in [0usize, 1, 9, 99] {
            let expected = f64::from(draws) * ((rank + 1) as f64).powf(-theta) / zeta;
            let ratio = f64::from(counts[rank]) / expected;
            assert!((0.75..1.25).contains(&ratio), "rank {rank}: {ratio}");
        }
    }

    #[test]
    fn small_sets_work() {
        let mut random = Random::new(3);
        for items in [1, 2, 3] {
            let zipfian = Zipfian::new(items, 0.99);
            for _ in 0..100 {
                assert!(zipfian.next(&mut random) < items);
            }
        }
    }
}
