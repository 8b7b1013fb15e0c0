//! What became of many files or objects, and what that means for the command.

use crate::context::Context;
use crate::failure::{Failure, message, quoted};
use crate::output::Output;
use crate::progress::Progress;
use crate::workers::lock;
use serde::Serialize;
use std::io;
use std::sync::Mutex;

/// What became of one.
#[derive(Debug)]
pub enum Outcome {
    /// It is there now, with so many bytes.
    Done(u64),
    /// It was there already, with so many bytes.
    Unchanged(u64),
    /// Left out, as it should be.
    Skipped(&'static str),
    /// Left out: it would go where nothing may go.
    Refused(String),
    /// The file system does not let us.
    Failed(io::Error),
    /// The store does not give it back.
    Damaged(betree::Error),
}

/// Numbers of them, in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub objects: u64,
    pub bytes: u64,
    pub unchanged: u64,
    pub skipped: u64,
    #[serde(skip)]
    refused: u64,
    #[serde(skip)]
    failed: u64,
}

/// Counts them, and tells of those that are not as they should be.
#[derive(Debug)]
pub struct Count<'a> {
    output: &'a Output,
    pub progress: Progress,
    tally: Mutex<Tally>,
    damage: Mutex<Option<betree::Error>>,
}

impl<'a> Count<'a> {
    /// Of none. `bytes` is how many there will be, where that is known.
    pub fn start(context: &'a Context, verb: &'static str, bytes: Option<u64>) -> Self {
        Self {
            output: &context.output,
            progress: Progress::start(&context.output, verb, bytes),
            tally: Mutex::default(),
            damage: Mutex::default(),
        }
    }

    /// One more. Bytes that were read or written before it failed were told to the progress by whoever did.
    pub fn add(&self, name: &[u8], outcome: Outcome) {
        let tell = |why: &str| {
            self.progress.aside(|| self.output.warn(&format!("{}: {why}", quoted(name))));
        };
        let mut tally = lock(&self.tally);
        match outcome {
            Outcome::Done(bytes) => {
                tally.objects += 1;
                tally.bytes += bytes;
                self.progress.entry(0);
            }
            Outcome::Unchanged(bytes) => {
                tally.unchanged += 1;
                self.progress.entry(bytes);
            }
            Outcome::Skipped(why) => {
                tally.skipped += 1;
                tell(why);
            }
            Outcome::Refused(why) => {
                tally.refused += 1;
                tell(&why);
            }
            Outcome::Failed(error) => {
                tally.failed += 1;
                tell(&error.to_string());
            }
            Outcome::Damaged(error) => {
                tally.failed += 1;
                tell(&error.to_string());
                lock(&self.damage).get_or_insert(error);
            }
        }
    }

    /// The numbers so far.
    pub fn so_far(&self) -> Tally {
        *lock(&self.tally)
    }

    /// Says how it went with what `verb` says ("import"), which nothing was done of with `dry_run`; `worked` is whether it came
    /// to the end.
    ///
    /// # Errors
    /// Why it did not; what was refused or failed.
    pub fn finish(self, worked: anyhow::Result<()>, verb: &str, dry_run: bool) -> anyhow::Result<()> {
        let Self { output, progress, tally, damage } = self;
        drop(progress);
        let tally = *lock(&tally);
        let done = if dry_run { format!("would {verb}") } else { format!("{verb}ed") };
        let noun = if tally.objects == 1 { "object" } else { "objects" };
        let mut told = format!("{done} {} {noun} ({})", tally.objects, output.size(tally.bytes));
        if tally.unchanged > 0 {
            told = format!("{told}, {} unchanged", tally.unchanged);
        }
        if tally.skipped > 0 {
            told = format!("{told}, {} skipped", tally.skipped);
        }
        worked.map_err(|error| error.context(format!("stopped after this was done: {told}")))?;
        let could_not =
            |number: u64| format!("could not {verb} {number} of them, which are named above; {told}");
        if let Some(error) = lock(&damage).take() {
            return Err(anyhow::Error::from(error).context(could_not(tally.failed)));
        }
        if tally.failed > 0 {
            anyhow::bail!(could_not(tally.failed + tally.refused));
        }
        if tally.refused > 0 {
            return Err(Failure::Refused(could_not(tally.refused)).into());
        }
        if output.json {
            return output.data(&tally);
        }
        output.note(&told);
        Ok(())
    }
}

/// Whether what comes after would fail in the same way.
pub fn is_hopeless(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

/// What came of one object that the store or the file system would not let us have.
///
/// # Errors
/// What ends the whole command.
pub fn outcome_of(error: anyhow::Error) -> anyhow::Result<Outcome> {
    let error = match error.downcast::<betree::Error>() {
        Ok(error) if matches!(error.kind(), betree::ErrorKind::Corrupt | betree::ErrorKind::Io) => {
            return Ok(Outcome::Damaged(error));
        }
        Ok(error) => return Err(error.into()),
        Err(error) => error,
    };
    match error.downcast::<io::Error>() {
        Ok(error) if !is_hopeless(&error) => Ok(Outcome::Failed(error)),
        Ok(error) => {
            let why = message(&anyhow::Error::from(error));
            Err(anyhow::anyhow!("writing: {why}"))
        }
        Err(error) => Err(error),
    }
}
