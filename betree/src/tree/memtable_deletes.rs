//! The range deletes of a memtable, indexed by key and sequence.
//!
//! The question is "which newest range delete, not newer than a view, covers this key?". Range deletes are kept in the
//! order in which they came. The newest few are scanned. Older ones form blocks, and a block knows for each stretch of keys
//! the newest of its range deletes ("painted"). Four blocks of a size make one of four times the size, and stay below it for
//! views that are older than its newest member (the logarithmic method of Bentley and Saxe, J. Algorithms 1, 1980). So
//! n range deletes, however they overlap, take O(n log n) memory and a question O(log² n) time.

use crate::run::RangeDelete;
use std::cmp::Ordering;

/// Range deletes of the smallest block; so many are scanned at most.
const TAIL: usize = 32;
/// Blocks of one size that are joined.
const FAN: usize = 4;
/// "No range delete".
const NONE: u32 = u32::MAX;

/// From this key on, up to the next stretch, `owner` is the newest.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    /// The first eight bytes of the key, big-endian.
    prefix: u64,
    /// Twice the number of a range delete; one more: its end, not its start.
    key: u32,
    /// A number in the list, or [`NONE`].
    owner: u32,
}

#[derive(Debug)]
struct Block {
    /// Its range deletes are `list[first..first + count]`.
    first: usize,
    count: usize,
    sequence_min: u64,
    sequence_max: u64,
    painted: Vec<Stretch>,
    /// What it was joined from; none in the smallest blocks.
    parts: Vec<Block>,
}

/// All range deletes of a memtable.
#[derive(Debug, Default)]
pub(super) struct RangeDeletes {
    list: Vec<RangeDelete>,
    blocks: Vec<Block>,
    /// Range deletes in blocks.
    blocked: usize,
    /// Bytes of keys, stretches and blocks.
    bytes: usize,
}

fn prefix_of(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = key.len().min(8);
    bytes[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(bytes)
}

impl RangeDeletes {
    /// Adds a range delete.
    pub fn insert(&mut self, range: RangeDelete) {
        assert!(self.list.len() < (NONE / 2) as usize, "a memtable is frozen long before 2³¹ range deletes");
        // Each key is an allocation of its own, which takes about two words more than it holds.
        self.bytes += range.start.len() + range.end.as_ref().map_or(0, |end| end.len()) + 32;
        self.list.push(range);
        if self.list.len() - self.blocked < TAIL {
            return;
        }
        let first = self.blocked;
        let ranges = &self.list[first..];
        let block = Block {
            first,
            count: ranges.len(),
            sequence_min: ranges.iter().map(|range| range.sequence).min().unwrap_or(u64::MAX),
            sequence_max: ranges.iter().map(|range| range.sequence).max().unwrap_or(0),
            painted: self.paint(first, self.list.len()),
            parts: Vec::new(),
        };
        self.blocked = self.list.len();
        self.add_block(block);
        while let [.., first, _, _, last] = self.blocks.as_slice()
            && first.count == last.count
        {
            let parts = self.blocks.split_off(self.blocks.len() - FAN);
            let joined = self.join(parts);
            self.add_block(joined);
        }
    }

    fn add_block(&mut self, block: Block) {
        self.bytes += block.painted.capacity() * size_of::<Stretch>() + size_of::<Block>();
        self.blocks.push(block);
    }

    fn join(&self, parts: Vec<Block>) -> Block {
        let mut painted = Vec::new();
        for pair in parts.chunks(2) {
            let both = match pair {
                [older, newer] => self.overlay(&older.painted, &newer.painted),
                _ => pair.first().map(|block| block.painted.clone()).unwrap_or_default(),
            };
            painted = if painted.is_empty() { both } else { self.overlay(&painted, &both) };
        }
        painted.shrink_to_fit();
        Block {
            first: parts.iter().map(|block| block.first).min().unwrap_or(0),
            count: parts.iter().map(|block| block.count).sum(),
            sequence_min: parts.iter().map(|block| block.sequence_min).min().unwrap_or(u64::MAX),
            sequence_max: parts.iter().map(|block| block.sequence_max).max().unwrap_or(0),
            painted,
            parts,
        }
    }

    /// The stretches of `list[first..end]`.
    fn paint(&self, first: usize, end: usize) -> Vec<Stretch> {
        if end - first > 1 {
            let middle = usize::midpoint(first, end);
            return self.overlay(&self.paint(first, middle), &self.paint(middle, end));
        }
        let (range, number) = (&self.list[first], first as u32);
        let mut out = vec![Stretch { prefix: prefix_of(&range.start), key: 2 * number, owner: number }];
        if let Some(end) = &range.end {
            out.push(Stretch { prefix: prefix_of(end), key: 2 * number + 1, owner: NONE });
        }
        out
    }

    /// Both paintings in one; where both have an owner, the newer one counts.
    fn overlay(&self, a: &[Stretch], b: &[Stretch]) -> Vec<Stretch> {
        let mut out: Vec<Stretch> = Vec::with_capacity(a.len() + b.len());
        let (mut at_a, mut at_b) = (0, 0);
        let (mut owner_a, mut owner_b, mut owner) = (NONE, NONE, NONE);
        loop {
            let order = match (a.get(at_a), b.get(at_b)) {
                (None, None) => return out,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(x), Some(y)) => x.prefix.cmp(&y.prefix).then_with(|| self.key(x).cmp(self.key(y))),
            };
            let mut stretch = if order == Ordering::Greater { b[at_b] } else { a[at_a] };
            if order != Ordering::Greater {
                owner_a = a[at_a].owner;
                at_a += 1;
            }
            if order != Ordering::Less {
                owner_b = b[at_b].owner;
                at_b += 1;
            }
            stretch.owner = match (owner_a, owner_b) {
                (NONE, other) | (other, NONE) => other,
                (x, y) if self.list[x as usize].sequence > self.list[y as usize].sequence => x,
                (_, y) => y,
            };
            if stretch.owner != owner {
                owner = stretch.owner;
                out.push(stretch);
            }
        }
    }

    fn key(&self, stretch: &Stretch) -> &[u8] {
        let range = &self.list[(stretch.key / 2) as usize];
        match &range.end {
            Some(end) if stretch.key % 2 == 1 => end,
            _ => &range.start,
        }
    }

    /// The newest sequence, at most `max_sequence`, of a range delete that covers `key`.
    pub fn covering(&self, key: &[u8], max_sequence: u64) -> Option<u64> {
        let mut best = self.scan(self.blocked, self.list.len(), key, max_sequence);
        let prefix = prefix_of(key);
        for block in self.blocks.iter().rev() {
            self.ask(block, key, prefix, max_sequence, &mut best);
        }
        best
    }

    fn scan(&self, first: usize, end: usize, key: &[u8], max_sequence: u64) -> Option<u64> {
        let old = |range: &&RangeDelete| range.sequence <= max_sequence && range.covers(key);
        self.list[first..end].iter().filter(old).map(|range| range.sequence).max()
    }

    fn ask(&self, block: &Block, key: &[u8], prefix: u64, max_sequence: u64, best: &mut Option<u64>) {
        if block.sequence_min > max_sequence || best.is_some_and(|best| best >= block.sequence_max) {
            return;
        }
        if block.sequence_max <= max_sequence {
            let starts_before = |stretch: &Stretch| {
                stretch.prefix < prefix || (stretch.prefix == prefix && self.key(stretch) <= key)
            };
            let after = block.painted.partition_point(starts_before);
            if let Some(stretch) = after.checked_sub(1).map(|index| &block.painted[index])
                && stretch.owner != NONE
            {
                *best = (*best).max(Some(self.list[stretch.owner as usize].sequence));
            }
        } else if block.parts.is_empty() {
            *best = (*best).max(self.scan(block.first, block.first + block.count, key, max_sequence));
        } else {
            for part in block.parts.iter().rev() {
                self.ask(part, key, prefix, max_sequence, best);
            }
        }
    }

    /// Copies of the range deletes up to `max_sequence`, by start, then newest first.
    pub fn sorted(&self, max_sequence: u64) -> Vec<RangeDelete> {
        let mut visible: Vec<&RangeDelete> =
            self.list.iter().filter(|range| range.sequence <= max_sequence).collect();
        visible.sort_unstable_by(|a, b| a.start.cmp(&b.start).then(b.sequence.cmp(&a.sequence)));
        visible.into_iter().cloned().collect()
    }

    /// Bytes of memory allocated.
    pub fn footprint(&self) -> usize {
        self.bytes + self.list.capacity() * size_of::<RangeDelete>()
    }
}
