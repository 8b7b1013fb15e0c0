//! `bectl kv DATASET load`: entries from lines of text.

use super::Amount;
use super::kv::Target;
use crate::args::Load;
use crate::lines::{LineFormat, Lines};
use crate::progress::Progress;
use anyhow::Context as _;
use betree::{Database, Dataset, Durability};
use betree::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// A batch is committed at this many entries. Each batch costs one pass through the commit lock; thousands of small
/// entries share it.
const BATCH_ENTRIES: usize = 1000;
/// A batch is committed at this many bytes of keys and values, far below the largest batch.
const BATCH_BYTES: usize = 1 << 20;

pub fn run(target: &Target<'_>, options: &Load) -> anyhow::Result<()> {
    let format = LineFormat::of(options, target.key, target.value)?;
    let interrupt = &target.context.interrupt;
    let path = options.file.as_deref().filter(|path| *path != Path::new("-"));
    // The input first: without it, no dataset is created.
    let (input, bytes) = match path {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
            let metadata = file.metadata()?;
            (interrupt.reader(file), metadata.is_file().then_some(metadata.len()))
        }
        None => (interrupt.stdin()?, None),
    };
    let (database, dataset) = target.open()?;
    if target.context.verbose > 0 {
        target.context.output.note("loading");
    }
    let mut loader = Loader {
        target,
        database: &database,
        dataset,
        pending: Vec::new(),
        pending_bytes: 0,
        loaded: Amount::default(),
    };
    let progress = Progress::start(&target.context.output, "loading", bytes);
    let read = loader.read(Lines::new(BufReader::with_capacity(1 << 20, input)), format, progress);
    // Also after an error: what is before it is loaded, and durable.
    let kept = loader.commit().and_then(|()| Ok(database.sync()?));
    let loaded = loader.loaded;
    drop(loader);
    let closed = kept.and_then(|()| Ok(database.close()?));
    let output = &target.context.output;
    match (read, closed) {
        (Ok(()), Ok(())) if output.json => output.data(&loaded),
        (Ok(()), Ok(())) => {
            output.note(&format!("loaded {}", loaded.words(target.context)));
            Ok(())
        }
        (Err(error), Ok(())) => Err(error.context(format!("stopped after {}", loaded.words(target.context)))),
        (_, Err(error)) => Err(error),
    }
}

struct Loader<'a> {
    target: &'a Target<'a>,
    database: &'a Database,
    dataset: Dataset,
    pending: Vec<(Vec<u8>, Vec<u8>)>,
    pending_bytes: usize,
    loaded: Amount,
}

impl Loader<'_> {
    fn read(
        &mut self,
        mut lines: Lines<impl BufRead>,
        format: LineFormat,
        progress: Progress,
    ) -> anyhow::Result<()> {
        let interrupt = &self.target.context.interrupt;
        loop {
            interrupt.check()?;
            let more = lines.advance();
            interrupt.check()?;
            if !more.with_context(|| format!("line {}", lines.number()))? {
                return Ok(());
            }
            let parsed = format.parse(lines.line()).and_then(within_limits);
            let (key, value) = parsed.map_err(|why| anyhow::anyhow!("line {}: {why}", lines.number()))?;
            self.pending_bytes += key.len() + value.len();
            self.pending.push((key, value));
            if self.pending.len() >= BATCH_ENTRIES || self.pending_bytes >= BATCH_BYTES {
                self.commit()?;
            }
            progress.entry(lines.bytes());
        }
    }

    /// Commits what is pending, as one batch.
    fn commit(&mut self) -> anyhow::Result<()> {
        let mut batch = self.database.batch();
        let entries = self.pending.len() as u64;
        // Taken first: a batch that failed is not tried again at the end.
        for (key, value) in std::mem::take(&mut self.pending) {
            batch = batch.insert_with_pref(&self.dataset, key, value, self.target.preference);
        }
        let bytes = std::mem::take(&mut self.pending_bytes) as u64;
        if entries > 0 {
            batch.commit(Durability::Buffered)?;
            self.loaded.entries += entries;
            self.loaded.bytes += bytes;
        }
        Ok(())
    }
}

fn within_limits((key, value): (Vec<u8>, Vec<u8>)) -> Result<(Vec<u8>, Vec<u8>), String> {
    for (what, bytes, limit) in [("key", &key, KEY_BYTES_MAX), ("value", &value, VALUE_BYTES_MAX)] {
        if bytes.len() > limit {
            return Err(format!("{what} of {} bytes exceeds the limit of {limit} bytes", bytes.len()));
        }
    }
    Ok((key, value))
}
