//! `bectl salvage`: what can still be read, in files that `kv load` reads.

use crate::args::{DumpFormat, Salvage};
use crate::context::{Context, explain};
use crate::failure::Failure;
use crate::lines::write_line;
use crate::progress::Progress;
use crate::text::{self, Encoding, JsonBytes};
use anyhow::Context as _;
use betree::inspect::{self, Salvaged};
use serde::Serialize;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Longest part of a dataset's name in the name of its file, in bytes.
const NAME_BYTES_MAX: usize = 100;

/// What was done, in JSON.
#[derive(Serialize)]
struct JsonSalvage<'a> {
    generation: u64,
    entries: u64,
    skipped: u64,
    lost: &'a [String],
    files: Vec<JsonFile<'a>>,
}

/// The file of a dataset, in JSON.
#[derive(Serialize)]
struct JsonFile<'a> {
    dataset: JsonBytes<'a>,
    file: String,
    entries: u64,
    skipped: u64,
}

/// A part that was left out, as a line.
#[derive(Serialize)]
struct JsonSkipped<'a> {
    what: &'a str,
    from: JsonBytes<'a>,
    to: Option<JsonBytes<'a>>,
}

/// The files of one dataset.
struct Files {
    name: Vec<u8>,
    path: PathBuf,
    entries: BufWriter<File>,
    written: u64,
    /// Where the parts that were left out are listed; made when there are any.
    skipped: Option<BufWriter<File>>,
    left_out: u64,
}

/// A file name for a dataset: its id, and of its name what is harmless in one.
fn file_name(id: u64, name: &[u8]) -> String {
    let mut out = format!("{id}-");
    for byte in name.iter().take(NAME_BYTES_MAX) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => out.push(char::from(*byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

impl Files {
    fn create(folder: &Path, id: u64, name: &[u8]) -> anyhow::Result<Self> {
        let path = folder.join(format!("{}.jsonl", file_name(id, name)));
        let entries = BufWriter::with_capacity(1 << 20, create(&path)?);
        Ok(Self { name: name.to_vec(), path, entries, written: 0, skipped: None, left_out: 0 })
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<u64> {
        let mut line = String::new();
        write_line(DumpFormat::Jsonl, (Encoding::Utf8, Encoding::Utf8), key, value, &mut line)?;
        self.entries.write_all(line.as_bytes()).with_context(|| writing(&self.path))?;
        self.written += 1;
        Ok(line.len() as u64)
    }

    fn skip(&mut self, what: &str, low: &[u8], high: Option<&[u8]>) -> anyhow::Result<()> {
        let path = self.path.with_extension("skipped.jsonl");
        let out = match &mut self.skipped {
            Some(out) => out,
            None => self.skipped.insert(BufWriter::new(create(&path)?)),
        };
        let from = JsonBytes(low, Encoding::Utf8);
        let to = high.map(|high| JsonBytes(high, Encoding::Utf8));
        serde_json::to_writer(&mut *out, &JsonSkipped { what, from, to })?;
        out.write_all(b"\n").with_context(|| writing(&path))?;
        self.left_out += 1;
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        self.entries.flush().with_context(|| writing(&self.path))?;
        if let Some(skipped) = &mut self.skipped {
            skipped.flush().with_context(|| writing(&self.path))?;
        }
        Ok(())
    }
}

fn writing(path: &Path) -> String {
    format!("writing {}", path.display())
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create_new(path).with_context(|| writing(path))
}

pub fn run(context: &Context, options: &Salvage) -> anyhow::Result<()> {
    let active = context.pool_configuration()?;
    let folder = &options.to;
    if folder.exists() {
        let mut inside = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
        if inside.next().is_some() {
            return Err(Failure::Refused(format!("{} is not empty", folder.display())).into());
        }
    }
    let progress = Progress::start(&context.output, "salvaging", None);
    let mut all: Vec<Files> = Vec::new();
    let mut failed = None;
    let mut take = |salvaged: Salvaged<'_>| -> anyhow::Result<()> {
        match salvaged {
            Salvaged::Dataset { id, name, .. } => {
                if let Some(files) = all.last_mut() {
                    files.finish()?;
                }
                // Not before there is something to put into it.
                fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
                all.push(Files::create(folder, id, name)?);
            }
            Salvaged::Entry { key, value } => {
                if let Some(files) = all.last_mut() {
                    progress.entry(files.entry(key, value)?);
                }
            }
            Salvaged::Skipped { what, low, high } => {
                if let Some(files) = all.last_mut() {
                    files.skip(what, low, high)?;
                }
            }
        }
        Ok(())
    };
    let done = inspect::salvage(
        &active.configuration,
        options.generation,
        &mut |salvaged| match take(salvaged) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        },
        &mut |_| if context.interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) },
    );
    let report = done.map_err(|error| explain(error, &active.source))?;
    drop(progress);
    if let Some(error) = failed {
        return Err(error);
    }
    for files in &mut all {
        files.finish()?;
        files.entries.get_ref().sync_all().with_context(|| writing(&files.path))?;
    }
    context.interrupt.check()?;
    for lost in &report.lost {
        context.output.warn(&format!("lost: {lost}"));
    }
    for files in all.iter().filter(|files| files.left_out > 0) {
        context.output.warn(&format!(
            "dataset \"{}\": {} part(s) left out, listed in {}",
            text::escaped(&files.name),
            files.left_out,
            files.path.with_extension("skipped.jsonl").display()
        ));
    }
    if context.output.json {
        let file = |files: &Files| files.path.display().to_string();
        let files = all.iter().map(|files| JsonFile {
            dataset: JsonBytes(&files.name, Encoding::Utf8),
            file: file(files),
            entries: files.written,
            skipped: files.left_out,
        });
        let (generation, entries) = (report.generation, report.entries);
        let (skipped, lost) = (report.skipped, &report.lost);
        return context.output.data(&JsonSalvage {
            generation,
            entries,
            skipped,
            lost,
            files: files.collect(),
        });
    }
    context.output.note(&format!(
        "generation {}: {} entries of {} datasets",
        report.generation, report.entries, report.datasets
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_datasets_lead_nowhere() {
        assert_eq!(file_name(3, b"data"), "3-data");
        assert_eq!(file_name(3, b"../../etc/x"), "3-%2E%2E%2F%2E%2E%2Fetc%2Fx");
        assert_eq!(file_name(3, b"\0"), "3-%00");
        assert!(file_name(3, &[b'/'; 1000]).len() <= 3 * NAME_BYTES_MAX + 2);
    }
}
