//! Latencies in buckets that grow with the value.

/// Bits of a value that tell buckets apart: 64 buckets per power of two, so a bucket is at most 1.6 % wide.
const PRECISION_BITS: u32 = 6;

/// Values counted in buckets of nearly constant relative width, after the idea of HdrHistogram.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = bucket(u64::MAX) + 1;
        Self { counts: vec![0; buckets], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts `value`.
    pub fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The value that the share `quantile` (0.0..=1.0) of all values does not exceed, up to the width of a bucket;
    /// 0 when nothing was counted.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> u64 {
        let wanted = ((quantile * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return highest(index).min(self.max);
            }
        }
        self.max
    }

    /// The largest value, exactly.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }
}

/// The bucket of `value`.
const fn bucket(value: u64) -> usize {
    let bits = u64::BITS - value.leading_zeros();
    if bits <= PRECISION_BITS + 1 {
        return value as usize;
    }
    let shift = bits - PRECISION_BITS - 1;
    ((shift as usize) << PRECISION_BITS) + (value >> shift) as usize
}

/// The highest value in bucket `index`.
const fn highest(index: usize) -> u64 {
    let shift = (index >> PRECISION_BITS).saturating_sub(1);
    let mantissa = (index - (shift << PRECISION_BITS)) as u64;
    // The highest bucket of all ends at 2^64 - 1: shifting first would lose a bit there.
    (mantissa << shift) | ((1u64 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn buckets_are_ordered_and_narrow() {
        assert_eq!(highest(bucket(u64::MAX)), u64::MAX);
        let mut random = Random::new(11);
        for _ in 0..100_000 {
            let shift = random.below(64);
            let value = random.next() >> shift;
            let index = bucket(value);
            assert!(highest(index) >= value, "{value}");
            assert!(highest(index) - value <= value >> PRECISION_BITS, "{value}");
            assert!(index == 0 || highest(index - 1) < value, "{value}");
        }
    }

    /// In lockstep with a sorted list.
    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut random = Random::new(5);
        let (mut all, mut parts) = (Vec::new(), [Histogram::default(), Histogram::default()]);
        for i in 0..10_001 {
            let value = random.below(1 << (10 + i % 20));
            all.push(value);
            parts[i % 2].record(value);
        }
        let [mut whole, other] = parts;
        whole.merge(&other);
        all.sort_unstable();
        for quantile in [0.0, 0.5, 0.99, 0.999, 1.0] {
            let rank = ((quantile * all.len() as f64).ceil() as usize).max(1) - 1;
            let (expected, found) = (all[rank], whole.quantile(quantile));
            assert!(
                found >= expected && found - expected <= expected / 64,
                "{quantile}: {found} for {expected}"
            );
        }
        assert_eq!(whole.max(), all[all.len() - 1]);
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }
}
