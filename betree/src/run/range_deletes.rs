//! Range deletes of a run, arranged so that a point query is a few binary searches however they overlap.

use super::entry::RangeDelete;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Range deletes and a segment tree over their bounds (de Berg et al., Computational Geometry, section 10.3).
///
/// Cutting them into disjoint pieces would be quadratic for nested ranges, which trimming a queue from the front makes.
/// Here each range is in O(log n) nodes; a query looks at the O(log n) nodes over one position.
#[derive(Debug, Default)]
pub struct RangeDeleteSet {
    /// By start ascending, sequence descending.
    list: Vec<RangeDelete>,
    /// All starts and ends, ascending, each once. Position `i` stands for the keys from `bounds[i]` to the next bound.
    bounds: Vec<Box<[u8]>>,
    /// Start of each tree node's sequences in `sequences`; one more at the end.
    nodes: Vec<u32>,
    /// Per node descending.
    sequences: Vec<u64>,
}

impl RangeDeleteSet {
    /// Arranges `list`, in any order. Empty ranges are left out.
    #[must_use]
    pub fn new(mut list: Vec<RangeDelete>) -> Self {
        list.retain(|delete| delete.end.as_ref().is_none_or(|end| *delete.start < **end));
        list.sort_by(|a, b| a.start.cmp(&b.start).then_with(|| b.sequence.cmp(&a.sequence)));
        let starts = list.iter().map(|delete| &delete.start);
        let ends = list.iter().filter_map(|delete| delete.end.as_ref());
        let mut bounds: Vec<Box<[u8]>> = starts.chain(ends).cloned().collect();
        bounds.sort_unstable();
        bounds.dedup();
        let mut placed = Vec::new();
        for delete in &list {
            let from = bounds.partition_point(|bound| *bound < delete.start);
            let to = match &delete.end {
                Some(end) => bounds.partition_point(|bound| bound < end),
                None => bounds.len(),
            };
            cover(bounds.len(), from, to, |node| placed.push((node as u32, delete.sequence)));
        }
        placed.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.cmp(&a.1)));
        let mut nodes = vec![0; 2 * bounds.len() + 1];
        for (node, _) in &placed {
            nodes[*node as usize + 1] += 1;
        }
        for node in 1..nodes.len() {
            nodes[node] += nodes[node - 1];
        }
        Self { list, bounds, nodes, sequences: placed.into_iter().map(|(_, sequence)| sequence).collect() }
    }

    /// The range deletes, by start ascending, then sequence descending.
    #[must_use]
    pub fn list(&self) -> &[RangeDelete] {
        &self.list
    }

    /// The highest sequence number that is at most `max_sequence` among the range deletes that cover `key`.
    #[must_use]
    pub fn covering(&self, key: &[u8], max_sequence: u64) -> Option<u64> {
        let position = self.bounds.partition_point(|bound| **bound <= *key).checked_sub(1)?;
        let mut node = position + self.bounds.len();
        let mut best = None;
        while node > 0 {
            let sequences = &self.sequences[self.nodes[node] as usize..self.nodes[node + 1] as usize];
            let visible = sequences.partition_point(|sequence| *sequence > max_sequence);
            best = best.max(sequences.get(visible).copied());
            node /= 2;
        }
        best
    }

    /// Lowest start and highest end (`None`: no bound); `None` when there are no range deletes.
    #[must_use]
    pub fn hull(&self) -> Option<(&[u8], Option<&[u8]>)> {
        let first = self.list.first()?;
        let unbounded = self.list.iter().any(|delete| delete.end.is_none());
        let end = if unbounded { None } else { self.bounds.last().map(|bound| &**bound) };
        Some((&first.start, end))
    }

    /// Bytes of memory, about.
    #[must_use]
    pub fn footprint(&self) -> usize {
        let keys: usize = self.bounds.iter().map(|bound| bound.len()).sum();
        3 * keys
            + self.list.len() * (size_of::<RangeDelete>() + 48)
            + self.bounds.len() * 24
            + self.sequences.len() * 8
    }
}

/// `list` without the range deletes all of whose keys newer ones cover, which delete the same and more. Newest first.
#[must_use]
pub fn without_covered(mut list: Vec<RangeDelete>) -> Vec<RangeDelete> {
    list.sort_by_key(|delete| std::cmp::Reverse(delete.sequence));
    // What the newer ones cover: start to end (`None`: no bound), disjoint and not touching.
    let mut covered: BTreeMap<Box<[u8]>, Option<Box<[u8]>>> = BTreeMap::new();
    list.retain(|delete| {
        let before =
            covered.range::<[u8], _>((Bound::Unbounded, Bound::Included(&*delete.start))).next_back();
        let within = before.is_some_and(|(_, end)| is_by(delete.end.as_deref(), end.as_deref()));
        if !within {
            add(&mut covered, delete);
        }
        !within
    });
    list
}

/// Whether the end `this` is not behind the end `that`.
fn is_by(this: Option<&[u8]>, that: Option<&[u8]>) -> bool {
    that.is_none_or(|that| this.is_some_and(|this| this <= that))
}

/// Joins `delete` and the pieces that it touches.
fn add(covered: &mut BTreeMap<Box<[u8]>, Option<Box<[u8]>>>, delete: &RangeDelete) {
    let (mut start, mut end) = (delete.start.clone(), delete.end.clone());
    let last = match &delete.end {
        Some(end) => Bound::Included(&**end),
        None => Bound::Unbounded,
    };
    while let Some((from, to)) = covered.range::<[u8], _>((Bound::Unbounded, last)).next_back() {
        if to.as_deref().is_some_and(|to| *to < *delete.start) {
            break;
        }
        let (from, to) = (from.clone(), to.clone());
        covered.remove(&from);
        start = start.min(from);
        if is_by(end.as_deref(), to.as_deref()) {
            end = to;
        }
    }
    covered.insert(start, end);
}

/// Names the nodes of a segment tree over `leaves` leaves (leaf `i` is node `leaves + i`) that make up `from..to`.
fn cover(leaves: usize, from: usize, to: usize, mut node: impl FnMut(usize)) {
    let (mut low, mut high) = (from + leaves, to + leaves);
    while low < high {
        if low % 2 == 1 {
            node(low);
            low += 1;
        }
        if high % 2 == 1 {
            high -= 1;
            node(high);
        }
        low /= 2;
        high /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::testing::Random;

    fn key(number: u64) -> Box<[u8]> {
        if number == 0 { Box::default() } else { format!("{number:03}").into_bytes().into() }
    }

    #[test]
    fn covering_agrees_with_a_scan_of_all() {
        for seed in 0..60 {
            println!("seed {seed}");
            let mut random = Random(seed);
            let list: Vec<RangeDelete> = (0..random.below(40))
                .map(|_| {
                    let start = random.below(60);
                    let end = start + random.below(60);
                    RangeDelete {
                        start: key(start),
                        end: (random.below(8) > 0).then(|| key(end)),
                        sequence: random.below(50),
                    }
                })
                .collect();
            let set = RangeDeleteSet::new(list.clone());
            assert!(
                set.list().is_sorted_by_key(|delete| (&delete.start, std::cmp::Reverse(delete.sequence)))
            );
            for number in 0..130 {
                for max in [0, 7, 25, u64::MAX] {
                    let covers =
                        |delete: &&RangeDelete| delete.covers(&key(number)) && delete.sequence <= max;
                    let expected = list.iter().filter(covers).map(|delete| delete.sequence).max();
                    assert_eq!(set.covering(&key(number), max), expected, "key {number} max {max}");
                }
            }
        }
    }

    /// What is left covers each key up to the same number, and none of it is of no use.
    #[test]
    fn what_newer_ones_cover_is_left_out() {
        let mut left_out = 0;
        for seed in 0..300 {
            println!("seed {seed}");
            let mut random = Random(seed);
            let list: Vec<RangeDelete> = (0..random.below(20))
                .map(|sequence| {
                    let start = random.below(12);
                    let end = start + 1 + random.below(6);
                    let end = (random.below(8) > 0).then(|| key(end));
                    RangeDelete { start: key(start), end, sequence: sequence * 7 % 23 }
                })
                .collect();
            let kept = without_covered(list.clone());
            left_out += list.len() - kept.len();
            let newest = |list: &[RangeDelete], number: u64| {
                list.iter().filter(|delete| delete.covers(&key(number))).map(|delete| delete.sequence).max()
            };
            for number in 0..20 {
                assert_eq!(newest(&list, number), newest(&kept, number), "key {number}");
            }
            for delete in &kept {
                assert!(
                    (0..20).any(|number| newest(&kept, number) == Some(delete.sequence)),
                    "{delete:?} is covered by newer ones"
                );
            }
        }
        assert!(left_out > 500, "{left_out}");
        let of =
            |start: u64, end: u64, sequence| RangeDelete { start: key(start), end: Some(key(end)), sequence };
        let queue: Vec<RangeDelete> = (1..1000).map(|end| of(0, end, end)).collect();
        assert_eq!(without_covered(queue), [of(0, 999, 999)]);
        let touching = vec![of(1, 3, 9), of(3, 5, 8), of(2, 4, 1), of(0, 2, 5)];
        assert_eq!(without_covered(touching), [of(1, 3, 9), of(3, 5, 8), of(0, 2, 5)]);
    }

    #[test]
    fn nested_ranges_take_linear_logarithmic_memory() {
        let list: Vec<RangeDelete> = (1..20_000u64)
            .map(|n| RangeDelete { start: Box::default(), end: Some(Box::new(n.to_be_bytes())), sequence: n })
            .collect();
        let set = RangeDeleteSet::new(list);
        assert!(set.sequences.len() < 20_000 * 2 * 16);
        assert_eq!(set.covering(&10_000u64.to_be_bytes(), u64::MAX), Some(19_999));
        assert_eq!(set.covering(&10_000u64.to_be_bytes(), 15_000), Some(15_000));
        assert_eq!(set.covering(&10_000u64.to_be_bytes(), 10_000), None);
        assert_eq!(set.hull(), Some((&[][..], Some(&19_999u64.to_be_bytes()[..]))));
    }
}
