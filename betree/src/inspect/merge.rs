//! Several runs as one sequence of keys; what is damaged in one of them is passed over and named.

use crate::run::{BlockEntries, EntryRef, Run, RunFlaw, RunReader};
use std::sync::Arc;

/// Told which run has what wrong with it.
pub(super) type Damaged<'a> = &'a mut dyn FnMut(&Arc<Run>, RunFlaw);

/// A run, at one of its entries.
struct Source {
    run: Arc<Run>,
    reader: RunReader,
    block: Option<BlockEntries>,
    position: usize,
    key: Vec<u8>,
}

impl Source {
    fn open(run: &Arc<Run>, low: &[u8], damaged: Damaged<'_>) -> Option<Self> {
        let mut reader = match RunReader::new(run) {
            Ok(reader) => reader,
            Err(flaw) => {
                damaged(run, flaw);
                return None;
            }
        };
        reader.seek(low);
        let mut source = Self { run: Arc::clone(run), reader, block: None, position: 0, key: Vec::new() };
        source.next_block(damaged);
        while source.block.is_some() && source.key.as_slice() < low {
            source.advance(damaged);
        }
        Some(source)
    }

    fn next_block(&mut self, damaged: Damaged<'_>) {
        self.position = 0;
        loop {
            match self.reader.next_block() {
                None => self.block = None,
                Some(Ok(block)) => {
                    block.entry(0, &mut self.key);
                    self.block = Some(block);
                }
                Some(Err(flaw)) => {
                    damaged(&self.run, flaw);
                    continue;
                }
            }
            return;
        }
    }

    fn advance(&mut self, damaged: Damaged<'_>) {
        self.position += 1;
        match &self.block {
            Some(block) if self.position < block.len() => {
                block.entry(self.position, &mut self.key);
            }
            _ => self.next_block(damaged),
        }
    }
}

/// Runs, newest first, from a key on.
pub(super) struct Merge {
    sources: Vec<Source>,
}

impl Merge {
    /// The entries of `runs` whose keys are at least `low`.
    pub fn new(runs: &[Arc<Run>], low: &[u8], damaged: Damaged<'_>) -> Self {
        let sources = runs.iter().filter_map(|run| Source::open(run, low, damaged)).collect();
        Self { sources }
    }

    /// The newest range delete that covers `key`.
    pub fn covering(&self, key: &[u8]) -> u64 {
        let covering = |source: &Source| source.reader.range_deletes().covering(key, u64::MAX);
        self.sources.iter().filter_map(covering).max().unwrap_or(0)
    }

    /// The smallest key that was not taken.
    pub fn key(&self) -> Option<&[u8]> {
        let heads = self.sources.iter().filter(|source| source.block.is_some());
        heads.map(|source| source.key.as_slice()).min()
    }

    /// Takes all entries of `key`, run by run, each with the number of its run.
    pub fn take(&mut self, key: &[u8], damaged: Damaged<'_>, each: &mut dyn FnMut(usize, EntryRef<'_>)) {
        for (number, source) in self.sources.iter_mut().enumerate() {
            while source.key == key
                && let Some(block) = &source.block
            {
                let mut own = Vec::new();
                each(number, block.entry(source.position, &mut own));
                source.advance(damaged);
            }
        }
    }
}
