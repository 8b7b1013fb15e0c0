//! The cursor over several sorted sequences as if they were one.

use super::block::common_prefix;
use super::entry::{EntryCursor, EntryRef};
use super::meta::long_head;
use crate::dmu::DmuError;
use std::cmp::Ordering;

/// Comparisons that the heads did not decide before the common base is looked for again.
const TIES_MAX: u32 = 64;

/// Merges cursors: key ascending, then sequence descending, then (which does not happen in a sound tree) by source.
///
/// The nearest source is apart from the others, which are sorted by distance: as long as it stays the nearest, a step
/// costs one comparison with the runner-up. Comparisons look at eight bytes behind a base that the keys share, kept
/// beside the source's number; only ties ask the cursors.
pub struct MergeCursor {
    sources: Vec<Box<dyn EntryCursor>>,
    current: Option<Candidate>,
    /// The other sources that have a position; the nearest is the last.
    rest: Vec<Candidate>,
    /// Start that the keys of all sources shared when it was chosen. In the direction of travel, keys without it come
    /// after all keys with it.
    base: Vec<u8>,
    ties: u32,
    ties_max: u32,
    forward: bool,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// Eight bytes of the key behind the base; the farthest number when the key does not start with it.
    head: u64,
    source: u32,
    outside: bool,
}

impl std::fmt::Debug for MergeCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MergeCursor").field("sources", &self.sources.len()).finish_non_exhaustive()
    }
}

impl MergeCursor {
    /// A cursor over `sources`, in any order, without a position.
    #[must_use]
    pub fn new(sources: Vec<Box<dyn EntryCursor>>) -> Self {
        Self {
            rest: Vec::with_capacity(sources.len()),
            sources,
            current: None,
            base: Vec::new(),
            ties: 0,
            ties_max: TIES_MAX,
            forward: true,
        }
    }

    /// The number of the source that the entry comes from.
    #[must_use]
    pub fn source(&self) -> Option<usize> {
        self.current.map(|candidate| candidate.source as usize)
    }

    fn candidate(&self, source: u32) -> Option<Candidate> {
        let key = self.sources[source as usize].entry()?.key;
        Some(match key.strip_prefix(self.base.as_slice()) {
            Some(suffix) => Candidate { head: long_head(suffix), source, outside: false },
            None => Candidate { head: if self.forward { u64::MAX } else { 0 }, source, outside: true },
        })
    }

    /// Whether `a` comes before `b` in the direction of travel.
    #[inline]
    fn is_nearer(&mut self, a: Candidate, b: Candidate) -> bool {
        if a.head != b.head {
            return (a.head < b.head) == self.forward;
        }
        self.ties += 1;
        (self.compare(a.source, b.source) == Ordering::Less) == self.forward
    }

    fn compare(&self, a: u32, b: u32) -> Ordering {
        match (self.sources[a as usize].entry(), self.sources[b as usize].entry()) {
            (Some(first), Some(second)) => {
                first.key.cmp(second.key).then(second.sequence.cmp(&first.sequence)).then(a.cmp(&b))
            }
            (first, second) => second.is_some().cmp(&first.is_some()),
        }
    }

    /// Puts `candidate` where it belongs, which is behind the nearest of the rest; that one becomes the current.
    fn displace(&mut self, candidate: Candidate) {
        let nearest = self.rest.pop();
        let (mut low, mut high) = (0, self.rest.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.is_nearer(self.rest[middle], candidate) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        self.rest.insert(low, candidate);
        self.current = nearest;
    }

    /// Chooses a base and sorts all sources anew.
    fn sort(&mut self) {
        self.current = None;
        self.rest.clear();
        self.base.clear();
        let mut entries = self.sources.iter().filter_map(|source| source.entry());
        if let Some(first) = entries.next() {
            let shared =
                entries.fold(first.key.len(), |shared, entry| common_prefix(&first.key[..shared], entry.key));
            self.base.extend_from_slice(&first.key[..shared]);
        }
        for source in 0..self.sources.len() as u32 {
            if let Some(candidate) = self.candidate(source) {
                let at = (0..self.rest.len()).find(|at| self.is_nearer(self.rest[*at], candidate));
                self.rest.insert(at.unwrap_or(self.rest.len()), candidate);
            }
        }
        self.current = self.rest.pop();
        self.ties = 0;
    }

    /// Sorts anew when the base has become useless: all keys are beyond it, or it is too short to tell them apart.
    fn rebase(&mut self, outside: bool) {
        let before = self.base.len();
        self.sort();
        // Do not try in vain too often: keys that differ late or not at all stay ties.
        let useless = !outside && self.base.len() == before;
        self.ties_max = if useless { self.ties_max.saturating_mul(4) } else { TIES_MAX };
    }

    fn travel(&mut self, forward: bool) -> Result<(), DmuError> {
        let Some(current) = self.current else { return Ok(()) };
        if self.forward != forward {
            self.turn(forward)?;
        }
        let source = &mut self.sources[current.source as usize];
        let moved = if forward { source.next() } else { source.prev() };
        if let Err(error) = moved {
            return Err(self.lose(error));
        }
        match self.candidate(current.source) {
            None => self.current = self.rest.pop(),
            Some(candidate) => {
                self.current = Some(candidate);
                if let Some(nearest) = self.rest.last().copied()
                    && self.is_nearer(nearest, candidate)
                {
                    self.displace(candidate);
                }
            }
        }
        let outside = self.current.is_some_and(|candidate| candidate.outside);
        if outside || self.ties > self.ties_max {
            self.rebase(outside);
        }
        Ok(())
    }

    /// Moves the other sources to the other side of the current entry.
    fn turn(&mut self, forward: bool) -> Result<(), DmuError> {
        let Some(current) = self.current.map(|candidate| candidate.source as usize) else { return Ok(()) };
        let Some(entry) = self.sources[current].entry() else { return Ok(()) };
        let (key, sequence) = (entry.key.to_vec(), entry.sequence);
        for index in (0..self.sources.len()).filter(|index| *index != current) {
            if let Err(error) =
                turn_source(&mut self.sources[index], &key, sequence, index < current, forward)
            {
                return Err(self.lose(error));
            }
        }
        self.forward = forward;
        self.sort();
        Ok(())
    }

    /// Gives up the position.
    fn lose(&mut self, error: DmuError) -> DmuError {
        self.current = None;
        self.rest.clear();
        error
    }

    fn start(
        &mut self,
        forward: bool,
        seek: impl Fn(&mut dyn EntryCursor) -> Result<(), DmuError>,
    ) -> Result<(), DmuError> {
        self.forward = forward;
        self.ties_max = TIES_MAX;
        for index in 0..self.sources.len() {
            if let Err(error) = seek(&mut *self.sources[index]) {
                return Err(self.lose(error));
            }
        }
        self.sort();
        Ok(())
    }
}

/// Moves `source` to its first entry behind the entry (`key`, `sequence`) of another source, or to the last one before
/// it. `wins`: of equal entries that of `source` comes first.
fn turn_source(
    source: &mut Box<dyn EntryCursor>,
    key: &[u8],
    sequence: u64,
    wins: bool,
    forward: bool,
) -> Result<(), DmuError> {
    source.seek(key)?;
    while source.entry().is_some_and(|entry| {
        entry.key == key && (entry.sequence > sequence || (entry.sequence == sequence && wins))
    }) {
        source.next()?;
    }
    match (forward, source.entry().is_some()) {
        (true, _) => Ok(()),
        (false, true) => source.prev(),
        (false, false) => source.seek_before(None),
    }
}

impl EntryCursor for MergeCursor {
    fn seek(&mut self, key: &[u8]) -> Result<(), DmuError> {
        self.start(true, |source| source.seek(key))
    }

    fn seek_before(&mut self, key: Option<&[u8]>) -> Result<(), DmuError> {
        self.start(false, |source| source.seek_before(key))
    }

    fn next(&mut self) -> Result<(), DmuError> {
        self.travel(true)
    }

    fn prev(&mut self) -> Result<(), DmuError> {
        self.travel(false)
    }

    fn entry(&self) -> Option<EntryRef<'_>> {
        self.sources[self.current?.source as usize].entry()
    }
}
