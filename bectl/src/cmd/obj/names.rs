//! Objects by their names: list, stat, del, mv, cp.

use super::Target;
use crate::args::{Bytes, ObjList, ObjTarget};
use crate::cmd::Amount;
use crate::confirm::confirm;
use crate::failure::quoted;
use crate::output::{Cell, JsonEntries, Sink};
use crate::progress::Progress;
use crate::text::{Encoding, JsonBytes};
use betree::{Condition, Durability, ListOptions, ObjectInfo, StoreView};
use jiff::Timestamp;
use serde::Serialize;
use std::ops::Bound;
use std::time::SystemTime;

/// Objects are deleted in batches of so many.
const BATCH_OBJECTS: usize = 1000;

/// An object in JSON. Sizes are bytes.
#[derive(Serialize)]
pub struct Described<'a> {
    name: JsonBytes<'a>,
    size: u64,
    modified: String,
    created: String,
    preference: String,
    version: String,
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Vec<MetadataEntry>>,
}

/// A key and a value of custom metadata in JSON.
#[derive(Serialize)]
struct MetadataEntry {
    key: serde_json::Value,
    value: serde_json::Value,
}

impl<'a> Described<'a> {
    pub fn new(name: &'a [u8], encoding: Encoding, info: &ObjectInfo) -> Self {
        Self {
            name: JsonBytes(name, encoding),
            size: info.size,
            modified: time(info.mtime).to_string(),
            created: time(info.created).to_string(),
            preference: info.preference.to_string(),
            version: info.version.to_string(),
            id: info.id,
            metadata: None,
        }
    }
}

/// What names have in common, in JSON.
#[derive(Serialize)]
struct Common<'a> {
    prefix: JsonBytes<'a>,
}

fn time(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

/// To the second, which is enough for people.
fn short(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_nanosecond().div_euclid(1_000_000_000) as i64).unwrap_or(time)
}

/// Where a list goes.
enum List {
    Json(JsonEntries),
    Text(Sink),
}

impl Target<'_> {
    pub(super) fn list(&self, options: &ObjList) -> anyhow::Result<()> {
        let view = self.view()?;
        let output = &self.context.output;
        let mut list =
            if output.json { List::Json(output.json_entries()?) } else { List::Text(output.sink()) };
        if let List::Text(sink) = &mut list
            && options.long
            && !output.plain
        {
            sink.line(&format!("{:>10}  {:<20}  {:<10}  NAME", "SIZE", "MODIFIED", "PREFERENCE"))?;
        }
        let is_paged = options.delimiter.is_some() || options.after.is_some() || options.limit.is_some();
        let next = if is_paged && options.from.is_none() && options.to.is_none() {
            self.list_pages(&view, options, &mut list)?
        } else {
            self.list_range(&view, options, &mut list)?;
            None
        };
        let next = next.map(|token| Encoding::Hex.text(&token));
        match list {
            List::Json(entries) => entries.finish(next),
            List::Text(sink) => {
                sink.finish()?;
                if let Some(next) = next {
                    output.note(&format!("there are more: --after {next}"));
                }
                Ok(())
            }
        }
    }

    fn list_range(&self, view: &StoreView, options: &ObjList, list: &mut List) -> anyhow::Result<()> {
        let objects = match &options.prefix {
            Some(prefix) => view.list_prefix(self.name(prefix)?),
            None => {
                let from = options.from.as_ref().map(|name| self.name(name)).transpose()?;
                let to = options.to.as_ref().map(|name| self.name(name)).transpose()?;
                view.list_objects::<Vec<u8>>((
                    from.map_or(Bound::Unbounded, Bound::Included),
                    to.map_or(Bound::Unbounded, Bound::Excluded),
                ))
            }
        };
        let limit = options.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        for object in objects.take(limit) {
            self.context.interrupt.check()?;
            let (name, info) = object?;
            self.list_object(view, options, list, &name, &info)?;
        }
        Ok(())
    }

    /// Lists up to the limit; returns the token of what comes behind.
    fn list_pages(
        &self,
        view: &StoreView,
        options: &ObjList,
        list: &mut List,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        let mut wanted = ListOptions {
            prefix: self.name_or_empty(options.prefix.as_ref())?,
            delimiter: options.delimiter.as_ref().map_or_else(Vec::new, |delimiter| delimiter.0.clone()),
            token: options.after.as_ref().map(|token| token.0.clone()),
            ..ListOptions::default()
        };
        let mut left = options.limit.unwrap_or(u64::MAX);
        loop {
            self.context.interrupt.check()?;
            wanted.limit = usize::try_from(left.min(1000)).unwrap_or(1000);
            let page = view.list_page(&wanted)?;
            left -= (page.objects.len() + page.prefixes.len()) as u64;
            // Both are in order; together they are to be too.
            let mut prefixes = page.prefixes.iter().peekable();
            for (name, info) in &page.objects {
                while let Some(prefix) = prefixes.next_if(|prefix| *prefix < name) {
                    self.list_common(options, list, prefix)?;
                }
                self.list_object(view, options, list, name, info)?;
            }
            for prefix in prefixes {
                self.list_common(options, list, prefix)?;
            }
            if left == 0 || page.token.is_none() {
                return Ok(page.token);
            }
            wanted.token = page.token;
        }
    }

    fn list_common(&self, options: &ObjList, list: &mut List, prefix: &[u8]) -> anyhow::Result<()> {
        match list {
            List::Json(entries) => entries.push(&Common { prefix: JsonBytes(prefix, self.names) }),
            List::Text(sink) => self.line(options, sink, ["-", "-", "-"], prefix),
        }
    }

    fn list_object(
        &self,
        view: &StoreView,
        options: &ObjList,
        list: &mut List,
        name: &[u8],
        info: &ObjectInfo,
    ) -> anyhow::Result<()> {
        let metadata = || -> anyhow::Result<_> {
            let object = view.open_object(name)?.ok_or_else(|| self.absent(name))?;
            Ok(object.iter_metadata().collect::<Result<Vec<_>, _>>()?)
        };
        let output = &self.context.output;
        match list {
            List::Json(entries) => {
                let mut described = Described::new(name, self.names, info);
                if options.with_metadata {
                    let entry = |(key, value): (Vec<u8>, betree::Value)| -> anyhow::Result<_> {
                        let json = |bytes: &[u8]| serde_json::to_value(JsonBytes(bytes, self.values));
                        Ok(MetadataEntry { key: json(&key)?, value: json(&value)? })
                    };
                    described.metadata =
                        Some(metadata()?.into_iter().map(entry).collect::<anyhow::Result<_>>()?);
                }
                entries.push(&described)
            }
            List::Text(sink) => {
                let modified = time(info.mtime);
                let modified = if output.exact { modified } else { short(modified) }.to_string();
                let size = output.size(info.size);
                self.line(options, sink, [&size, &modified, &info.preference.to_string()], name)?;
                if options.with_metadata {
                    for (key, value) in metadata()? {
                        self.metadata_line(sink, "    ", &key, &value)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn line(&self, options: &ObjList, sink: &mut Sink, cells: [&str; 3], name: &[u8]) -> anyhow::Result<()> {
        let name = self.names.text(name);
        let [size, modified, preference] = cells;
        match (options.long, self.context.output.plain) {
            (false, _) => sink.line(&name),
            (true, true) => sink.line(&format!("{size}\t{modified}\t{preference}\t{name}")),
            (true, false) => sink.line(&format!("{size:>10}  {modified:<20}  {preference:<10}  {name}")),
        }
    }

    pub(super) fn stat(&self, name: &Bytes) -> anyhow::Result<()> {
        let name = self.name(name)?;
        let info = self.object(&name)?.info();
        let text = |text: String| Cell::Text(text);
        let pairs = [
            ("name", text(self.names.text(&name))),
            ("size", Cell::Bytes(info.size)),
            ("modified", text(time(info.mtime).to_string())),
            ("created", text(time(info.created).to_string())),
            ("preference", text(info.preference.to_string())),
            ("version", text(info.version.to_string())),
            ("id", Cell::Count(info.id)),
        ];
        self.context.output.pairs(&pairs, &Described::new(&name, self.names, &info))
    }

    pub(super) fn delete(&self, names: &[Bytes], dry_run: bool) -> anyhow::Result<()> {
        let mut names = names.iter().map(|name| self.name(name)).collect::<Result<Vec<_>, _>>()?;
        names.sort_unstable();
        names.dedup();
        if dry_run {
            let view = self.view()?;
            let mut lost = Amount::default();
            for name in &names {
                let info = view.read_object_info(name)?.ok_or_else(|| self.absent(name))?;
                lost.entries += 1;
                lost.bytes += info.size;
            }
            return self.would_delete(lost);
        }
        self.change(|store| {
            for name in &names {
                if store.read_object_info(name)?.is_none() {
                    return Err(self.absent(name));
                }
            }
            let batch = names.iter().fold(store.batch(), |batch, name| batch.delete(name));
            Ok(batch.commit(Durability::Buffered)?)
        })
    }

    fn would_delete(&self, lost: Amount) -> anyhow::Result<()> {
        let output = &self.context.output;
        let what = lost.objects(self.context);
        output.note(&format!("would delete {what} of store {}", quoted(&self.store)));
        if output.json { output.data(&JsonAmount::from(lost)) } else { Ok(()) }
    }

    pub(super) fn delete_prefix(&self, prefix: &Bytes, dry_run: bool, yes: bool) -> anyhow::Result<()> {
        let prefix = self.name(prefix)?;
        if dry_run || !yes {
            let database = self.context.open_read_only()?;
            let view = database.open_object_store(&self.store)?.view()?;
            let lost = count_objects(self.context, &view, &prefix)?;
            if dry_run {
                return self.would_delete(lost);
            }
            let (what, store) = (lost.objects(self.context), quoted(&self.store));
            let start = quoted(&prefix);
            let what = format!("deletes {what} of store {store} whose names start with {start}");
            confirm(self.context, yes, &what, &self.store)?;
        }
        self.change(|store| {
            let progress = Progress::start(&self.context.output, "deleting", None);
            loop {
                self.context.interrupt.check()?;
                // Each time from the start: what was deleted is not there any more.
                let mut batch = store.batch();
                for object in store.list_prefix(&prefix).take(BATCH_OBJECTS) {
                    let (name, info) = object?;
                    batch = batch.delete(name);
                    progress.entry(info.size);
                }
                if batch.is_empty() {
                    return Ok(());
                }
                batch.commit(Durability::Buffered)?;
            }
        })
    }

    pub(super) fn rename(&self, options: &ObjTarget) -> anyhow::Result<()> {
        let (name, new_name) = (self.name(&options.name)?, self.name(&options.new_name)?);
        self.change(|store| {
            if store.read_object_info(&name)?.is_none() {
                return Err(self.absent(&name));
            }
            Ok(store.rename_object_if(&name, &new_name, target_condition(options))?)
        })
    }

    pub(super) fn copy(&self, options: &ObjTarget) -> anyhow::Result<()> {
        let (name, new_name) = (self.name(&options.name)?, self.name(&options.new_name)?);
        self.change(|store| {
            if store.read_object_info(&name)?.is_none() {
                return Err(self.absent(&name));
            }
            store.copy_object_if(&name, &new_name, target_condition(options))?;
            Ok(())
        })
    }
}

fn target_condition(options: &ObjTarget) -> Condition {
    if options.force { Condition::Any } else { Condition::Absent }
}

/// How many objects there are, and their bytes, in JSON.
#[derive(Debug, Serialize)]
pub struct JsonAmount {
    objects: u64,
    bytes: u64,
}

impl From<Amount> for JsonAmount {
    fn from(amount: Amount) -> Self {
        Self { objects: amount.entries, bytes: amount.bytes }
    }
}

/// Counts objects and their bytes; may be interrupted.
///
/// # Errors
/// Device errors and damage.
pub fn count_objects(
    context: &crate::context::Context,
    view: &StoreView,
    prefix: &[u8],
) -> anyhow::Result<Amount> {
    let progress = Progress::start(&context.output, "counting", None);
    let mut amount = Amount::default();
    for object in view.list_prefix(prefix) {
        context.interrupt.check()?;
        let size = object?.1.size;
        amount.entries += 1;
        amount.bytes = amount.bytes.saturating_add(size);
        progress.entry(size);
    }
    Ok(amount)
}
