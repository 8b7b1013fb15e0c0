//! Which keys a run reaches: those of its entries and those that its range deletes cover.

use super::Run;

impl Run {
    /// The lowest key that the run reaches.
    #[must_use]
    pub fn low(&self) -> &[u8] {
        let reference = self.reference();
        match (&reference.keys, &reference.hull) {
            (Some((first, _)), Some((start, _))) => first.min(start),
            (Some((first, _)), None) => first,
            (None, Some((start, _))) => start,
            (None, None) => &[],
        }
    }

    /// Whether every key that the run reaches is below `bound`.
    #[must_use]
    pub fn ends_before(&self, bound: &[u8]) -> bool {
        let reference = self.reference();
        let keys = reference.keys.as_ref().is_none_or(|(_, last)| **last < *bound);
        let hull =
            reference.hull.as_ref().is_none_or(|(_, end)| end.as_ref().is_some_and(|end| **end <= *bound));
        keys && hull
    }

    /// Whether the run reaches keys on both sides of `pivot`, which belongs to the upper side.
    #[must_use]
    pub fn crosses(&self, pivot: &[u8]) -> bool {
        self.low() < pivot && !self.ends_before(pivot)
    }

    /// Whether every key that the run reaches is in `low..high`.
    #[must_use]
    pub fn lies_in(&self, low: &[u8], high: Option<&[u8]>) -> bool {
        self.low() >= low && high.is_none_or(|high| self.ends_before(high))
    }

    /// Whether `key` is between the lowest and the highest key that the run reaches.
    #[must_use]
    #[inline]
    pub fn spans(&self, key: &[u8]) -> bool {
        self.low() <= key && !self.ends_before(key)
    }

    /// Whether both runs may reach one key.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        !self.ends_before(other.low()) && !other.ends_before(self.low())
    }
}
