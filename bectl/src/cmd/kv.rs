//! `bectl kv`: keys and values of a dataset.

use super::readable::{Readable, check_no_snapshot};
use super::{count, load};
use crate::args::{Bytes, DumpFormat, Kv, KvCommand, Selection};
use crate::confirm::confirm;
use crate::context::Context;
use crate::failure::{Failure, quoted};
use crate::lines::{JsonEntry, write_line};
use crate::output::output_error;
use crate::progress::Progress;
use crate::text::{Encoding, JsonBytes};
use anyhow::Context as _;
use betree::{Database, Dataset, Durability, Entries, StoragePreference, VALUE_BYTES_MAX};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::ops::Bound;
use std::path::Path;

/// The dataset that a command works on, and how its keys and values are written.
pub struct Target<'a> {
    pub context: &'a Context,
    pub dataset: Vec<u8>,
    pub key: Encoding,
    pub value: Encoding,
    pub preference: StoragePreference,
}

pub fn run(context: &Context, kv: Kv) -> anyhow::Result<()> {
    let target = Target {
        context,
        dataset: kv.dataset.0,
        key: kv.key_enc,
        value: kv.value_enc,
        preference: kv.storage_preference.unwrap_or_default(),
    };
    match kv.command {
        KvCommand::Put { key, value } => target.put(&key, value),
        KvCommand::Get { key } => target.get(&key),
        KvCommand::Del { key } => target.delete(&key),
        KvCommand::List { selection, limit, reverse, with_value } => {
            let with_value = with_value || context.verbose > 0;
            target.list(&selection, limit.unwrap_or(u64::MAX), reverse, with_value)
        }
        KvCommand::RangeDel { from, to, dry_run, yes } => target.range_delete(from, to, dry_run, yes),
        KvCommand::Count { selection } => target.count(&selection),
        KvCommand::Load(options) => load::run(&target, &options),
        KvCommand::Dump { selection, file, format } => target.dump(&selection, file.as_deref(), format),
        KvCommand::TreeDump => target.tree_dump(),
    }
}

impl Target<'_> {
    fn decode_key(&self, key: &Bytes) -> Result<Vec<u8>, Failure> {
        self.key.decode_argument("key", &key.0)
    }

    /// Opens for reading; the dataset must exist.
    fn open_read_only(&self) -> anyhow::Result<Dataset> {
        Ok(self.context.open_read_only()?.open_dataset(&self.dataset)?)
    }

    /// As [`Target::open_read_only`]; a snapshot too.
    fn open_readable(&self) -> anyhow::Result<Readable> {
        Readable::open(&self.context.open_read_only()?, &self.dataset)
    }

    /// Opens for writing; creates the dataset when it does not exist.
    pub fn open(&self) -> anyhow::Result<(Database, Dataset)> {
        let database = self.context.open()?;
        check_no_snapshot(&database, &self.dataset)?;
        let dataset = database.open_or_create_dataset(&self.dataset)?;
        Ok((database, dataset))
    }

    fn select(&self, source: &Readable, selection: &Selection) -> anyhow::Result<Entries> {
        if let Some(prefix) = &selection.prefix {
            return Ok(source.prefix(&self.decode_key(prefix)?));
        }
        let from = selection.from.as_ref().map(|key| self.decode_key(key)).transpose()?;
        let to = selection.to.as_ref().map(|key| self.decode_key(key)).transpose()?;
        let bounds =
            (from.map_or(Bound::Unbounded, Bound::Included), to.map_or(Bound::Unbounded, Bound::Excluded));
        Ok(source.range(bounds))
    }

    fn absent(&self, noun: &str, key: &[u8]) -> anyhow::Error {
        let key = match self.key {
            Encoding::Utf8 => quoted(key).into_owned(),
            encoding => encoding.text(key),
        };
        Failure::NotFound(format!("key {key} is not in {noun} {}", quoted(&self.dataset))).into()
    }

    fn put(&self, key: &Bytes, value: Option<Bytes>) -> anyhow::Result<()> {
        let key = self.decode_key(key)?;
        let value = match value {
            Some(value) => self.value.decode_argument("value", &value.0)?,
            None => self.read_value()?,
        };
        let (database, dataset) = self.open()?;
        // One commit, durable when it returns.
        let batch = database.batch().insert_with_pref(&dataset, key, value, self.preference);
        batch.commit(Durability::Sync)?;
        database.close()?;
        self.context.output.nothing()
    }

    fn read_value(&self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // In hexadecimal a value has two digits for each byte, and perhaps a line end.
        let read =
            self.context.interrupt.stdin()?.take(VALUE_BYTES_MAX as u64 * 2 + 2).read_to_end(&mut bytes);
        self.context.interrupt.check()?;
        read.context("reading the value from standard input")?;
        if self.value != Encoding::Utf8 {
            bytes.truncate(bytes.trim_ascii_end().len());
        }
        Ok(self.value.decode_argument("value", &bytes)?)
    }

    fn get(&self, key: &Bytes) -> anyhow::Result<()> {
        let key = self.decode_key(key)?;
        let source = self.open_readable()?;
        let value = source.get(&key)?.ok_or_else(|| self.absent(source.noun(), &key))?;
        let output = &self.context.output;
        if output.json {
            let value = Some(JsonBytes(&value, self.value));
            return output.data(&JsonEntry { key: JsonBytes(&key, self.key), value });
        }
        output.value(&value, self.value)
    }

    fn delete(&self, key: &Bytes) -> anyhow::Result<()> {
        let key = self.decode_key(key)?;
        let database = self.context.open()?;
        let dataset = database.open_dataset(&self.dataset)?;
        let deleted = if dataset.contains_key(&key)? {
            database.batch().delete(&dataset, &key).commit(Durability::Sync).map_err(anyhow::Error::from)
        } else {
            Err(self.absent("dataset", &key))
        };
        database.close()?;
        deleted?;
        self.context.output.nothing()
    }

    fn list(&self, selection: &Selection, limit: u64, reverse: bool, with_value: bool) -> anyhow::Result<()> {
        let output = &self.context.output;
        let entries = self.select(&self.open_readable()?, selection)?;
        let entries: Box<dyn Iterator<Item = _>> =
            if reverse { Box::new(entries.rev()) } else { Box::new(entries) };
        let entries = entries.take(usize::try_from(limit).unwrap_or(usize::MAX));
        if output.json {
            let mut list = output.json_list()?;
            for entry in entries {
                self.context.interrupt.check()?;
                let (key, value) = entry?;
                let value = with_value.then_some(JsonBytes(&value, self.value));
                list.push(&JsonEntry { key: JsonBytes(&key, self.key), value })?;
            }
            return list.finish();
        }
        let separator = if output.plain { "\t" } else { " -> " };
        let mut sink = output.sink();
        let mut line = String::new();
        for entry in entries {
            self.context.interrupt.check()?;
            let (key, value) = entry?;
            line.clear();
            self.key.encode(&key, &mut line);
            if with_value {
                line.push_str(separator);
                self.value.encode(&value, &mut line);
            }
            sink.line(&line)?;
        }
        sink.finish()
    }

    fn count(&self, selection: &Selection) -> anyhow::Result<()> {
        let amount = count(self.context, self.select(&self.open_readable()?, selection)?)?;
        let output = &self.context.output;
        if output.json {
            return output.data(&amount);
        }
        let mut sink = output.sink();
        sink.line(&amount.entries.to_string())?;
        sink.finish()
    }

    fn range_delete(
        &self,
        from: Option<Bytes>,
        to: Option<Bytes>,
        dry_run: bool,
        yes: bool,
    ) -> anyhow::Result<()> {
        let from = from.map(|key| self.decode_key(&key)).transpose()?.unwrap_or_default();
        let to = to.map(|key| self.decode_key(&key)).transpose()?;
        if to.as_ref().is_some_and(|to| *to <= from) {
            return Err(Failure::Usage("TO is not above FROM: there is nothing between them".into()).into());
        }
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let output = &self.context.output;
        if dry_run || !yes {
            let lost = count(self.context, self.open_read_only()?.range::<Vec<u8>>(bounds.clone()))?;
            let what = format!("{} of dataset {}", lost.words(self.context), quoted(&self.dataset));
            if dry_run {
                output.note(&format!("would delete {what}"));
                return if output.json { output.data(&lost) } else { Ok(()) };
            }
            confirm(self.context, yes, &format!("deletes {what}"), &self.dataset)?;
        }
        let database = self.context.open()?;
        database.open_dataset(&self.dataset)?.range_delete::<Vec<u8>>(bounds)?;
        database.sync()?;
        database.close()?;
        output.nothing()
    }

    fn dump(&self, selection: &Selection, file: Option<&Path>, format: DumpFormat) -> anyhow::Result<()> {
        let entries = self.select(&self.open_readable()?, selection)?;
        let Some(path) = file.filter(|path| *path != Path::new("-")) else {
            let mut sink = self.context.output.sink();
            self.dump_to(entries, format, &mut sink, output_error)?;
            return sink.finish();
        };
        let writing =
            |error: io::Error| anyhow::Error::from(error).context(format!("writing {}", path.display()));
        let file = File::create_new(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::Refused(format!("{} exists", path.display())).into(),
            _ => writing(error),
        })?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let dumped =
            self.dump_to(entries, format, &mut out, writing).and_then(|()| out.flush().map_err(writing));
        if dumped.is_err()
            && let Err(error) = fs::remove_file(path)
        {
            log::warn!("{} is not complete and could not be removed: {error}", path.display());
        }
        dumped
    }

    fn dump_to(
        &self,
        entries: Entries,
        format: DumpFormat,
        out: &mut impl Write,
        failed: impl Fn(io::Error) -> anyhow::Error,
    ) -> anyhow::Result<()> {
        let progress = Progress::start(&self.context.output, "dumping", None);
        let mut line = String::new();
        for entry in entries {
            self.context.interrupt.check()?;
            let (key, value) = entry?;
            line.clear();
            write_line(format, (self.key, self.value), &key, &value, &mut line)?;
            out.write_all(line.as_bytes()).map_err(&failed)?;
            progress.entry(line.len() as u64);
        }
        Ok(())
    }

    fn tree_dump(&self) -> anyhow::Result<()> {
        let dump = self.open_read_only()?.tree_dump()?;
        let output = &self.context.output;
        if output.json {
            return output.data(&dump);
        }
        let mut sink = output.sink();
        sink.line(&serde_json::to_string_pretty(&dump)?)?;
        sink.finish()
    }
}
