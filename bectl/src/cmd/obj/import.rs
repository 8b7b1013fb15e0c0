//! `bectl obj STORE import`: objects of the files below a folder.

use super::Target;
use super::attributes::{Attributes, Stored, is_of_inode};
use super::comparison::is_same;
use super::export::PARTIAL_FILE;
use super::tally::{Count, Outcome};
use super::upload::{Upload, is_last, piece};
use crate::args::ObjImport;
use crate::configuration::file_ids;
use crate::context::Context;
use crate::folder::{Folder, Kind};
use crate::workers::{default_jobs, lock, share};
use anyhow::Context as _;
use betree::{
    Condition, Database, Durability, ErrorKind, OBJECT_NAME_BYTES_MAX, ObjectStore, ObjectView, StoreView,
};
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex};

/// After so many objects, they are made durable: whoever goes on after a crash has at most so many to import again.
const SYNC_OBJECTS: u64 = 1000;
/// The same in bytes, some seconds of a slow device.
const SYNC_BYTES: u64 = 128 << 20;

pub fn run(target: &Target<'_>, options: &ObjImport) -> anyhow::Result<()> {
    let context = target.context;
    let prefix = target.name_or_empty(options.prefix.as_ref())?;
    let opening = || format!("opening {}", options.dir.display());
    // The folder first: without it, no store is created.
    let root = Folder::open(&options.dir).with_context(opening)?;
    let (database, to) = match options.dry_run {
        true => {
            let database = context.open_read_only()?;
            let view = match database.open_object_store(&target.store) {
                Ok(store) => Some(store.view()?),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error.into()),
            };
            (database, To::Nothing(view))
        }
        false => {
            let (database, store) = target.open_or_create()?;
            (database, To::Store(store))
        }
    };
    let bytes = if context.output.progress { Some(total(context, &root)?) } else { None };
    let import = Import {
        target,
        options,
        prefix,
        pool: file_ids(&database.configuration().storage),
        to,
        database,
        count: Count::start(context, "importing", bytes),
        unsynced: Mutex::default(),
    };
    let failed = |path: &[u8], error| import.count.add(path, Outcome::Failed(error));
    let jobs = options.jobs.map_or_else(default_jobs, usize::from);
    let worked = share(
        jobs,
        |give| {
            walk(
                &root,
                &mut |found| context.interrupt.check().map_err(Into::into).and_then(|()| give(found)),
                &failed,
            )
        },
        || (),
        |(), found| import.one(&found),
    );
    let Import { count, to, database, .. } = import;
    // Also after an error: what was imported before stays.
    if let To::Store(store) = to {
        drop(store);
        let kept = database.sync().and_then(|()| database.close());
        count.finish(worked.and(kept.map_err(Into::into)), "import", false)
    } else {
        count.finish(worked, "import", true)
    }
}

/// Something below the folder.
#[derive(Debug)]
struct Found {
    /// The folder that it is in; of an empty folder, itself.
    folder: Arc<Folder>,
    /// From the first folder on; that of a folder ends with `/`.
    path: Vec<u8>,
    kind: Kind,
}

impl Found {
    fn leaf(&self) -> &[u8] {
        self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }
}

/// Calls `each` for everything below `root`, but for folders that are not empty; `failed` for folders that cannot be read.
fn walk(
    root: &Folder,
    each: &mut dyn FnMut(Found) -> anyhow::Result<()>,
    failed: &dyn Fn(&[u8], io::Error),
) -> anyhow::Result<()> {
    // Paths, each with `/` at the end. An open folder for each would be too many where they are deep.
    let mut left = vec![Vec::new()];
    while let Some(path) = left.pop() {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let opened = root.descend(names, Folder::enter);
        let opened = opened.and_then(|folder| Ok((folder.entries()?, Arc::new(folder))));
        let (entries, folder) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                failed(&path, error);
                continue;
            }
        };
        if entries.is_empty() && !path.is_empty() {
            each(Found { folder, path, kind: Kind::Folder })?;
            continue;
        }
        let mut folders = Vec::new();
        for (name, kind) in entries {
            let mut below = [&path[..], &name].concat();
            if kind == Kind::Folder {
                below.push(b'/');
                folders.push(below);
            } else {
                each(Found { folder: Arc::clone(&folder), path: below, kind })?;
            }
        }
        left.extend(folders.into_iter().rev());
    }
    Ok(())
}

/// The bytes of all files below `root`, as far as they can be seen.
fn total(context: &Context, root: &Folder) -> anyhow::Result<u64> {
    let mut bytes = 0_u64;
    let mut each = |found: Found| {
        context.interrupt.check()?;
        if found.kind == Kind::File
            && let Ok(metadata) = found.folder.look(found.leaf())
        {
            bytes = bytes.saturating_add(metadata.len());
        }
        Ok(())
    };
    walk(root, &mut each, &|_, _| {})?;
    Ok(bytes)
}

/// Where the objects go.
#[derive(Debug)]
enum To {
    Store(ObjectStore),
    /// Nowhere; what is there already, if anything.
    Nothing(Option<StoreView>),
}

struct Import<'a> {
    target: &'a Target<'a>,
    options: &'a ObjImport,
    prefix: Vec<u8>,
    /// Devices and inodes of the files that the pool is in.
    pool: HashSet<(u64, u64)>,
    to: To,
    database: Database,
    count: Count<'a>,
    /// Objects and bytes that are not durable yet.
    unsynced: Mutex<(u64, u64)>,
}

impl Import<'_> {
    fn one(&self, found: &Found) -> anyhow::Result<()> {
        self.target.context.interrupt.check()?;
        let name = [&self.prefix[..], &found.path].concat();
        let outcome = if name.len() > OBJECT_NAME_BYTES_MAX {
            Outcome::Refused(format!("longer than the {OBJECT_NAME_BYTES_MAX} bytes that a name may have"))
        } else {
            match found.kind {
                Kind::File => self.file(found, &name)?,
                Kind::Link => self.link(found, &name)?,
                Kind::Folder => self.folder(found, &name)?,
                Kind::Special => {
                    Outcome::Skipped("left out: neither a file nor a folder nor a symbolic link")
                }
            }
        };
        let done = if let Outcome::Done(bytes) = &outcome { Some(*bytes) } else { None };
        self.count.add(&found.path, outcome);
        done.map_or(Ok(()), |bytes| self.wrote(bytes))
    }

    fn existing(&self, name: &[u8]) -> betree::Result<Option<ObjectView>> {
        match &self.to {
            To::Store(store) => store.view()?.open_object(name),
            To::Nothing(view) => view.as_ref().map_or(Ok(None), |view| view.open_object(name)),
        }
    }

    /// The object `name`, if its size and attributes are these.
    fn like(&self, name: &[u8], attributes: Attributes, size: u64) -> betree::Result<Option<ObjectView>> {
        // The size is at hand, the rest is to be read.
        let Some(object) = self.existing(name)?.filter(|object| object.size() == size) else {
            return Ok(None);
        };
        Ok(Stored::of(&object)?.equals(attributes).then_some(object))
    }

    /// Whether the object `name` has the bytes of `file` already. Looks at them where the inode does not say so.
    fn is_there(&self, name: &[u8], attributes: Attributes, file: &File, size: u64) -> anyhow::Result<bool> {
        let Some(object) = self.like(name, attributes, size)? else { return Ok(false) };
        if is_of_inode(&object, attributes)? {
            return Ok(true);
        }
        if !is_same(&self.target.context.interrupt, file, &object)? {
            return Ok(false);
        }
        if let To::Store(store) = &self.to {
            // So that the next import need not look.
            let batch = attributes.set_inode(store.batch(), name);
            if !batch.is_empty() {
                batch.commit(Durability::Buffered)?;
            }
        }
        Ok(true)
    }

    fn file(&self, found: &Found, name: &[u8]) -> anyhow::Result<Outcome> {
        if found.leaf().starts_with(PARTIAL_FILE) {
            return Ok(Outcome::Skipped("left out: an interrupted export left it"));
        }
        let opened = found.folder.open_file(found.leaf());
        let (mut file, before) = match opened.and_then(|file| Ok((file.metadata()?, file))) {
            Ok((before, file)) if before.is_file() => (file, before),
            Ok(_) => return Ok(changed()),
            Err(error) => return Ok(Outcome::Failed(error)),
        };
        if self.pool.contains(&(before.dev(), before.ino())) {
            return Ok(Outcome::Skipped("left out: the pool is in it"));
        }
        let attributes = Attributes::of(&before);
        match self.is_there(name, attributes, &file, before.len()) {
            Ok(true) => return Ok(Outcome::Unchanged(before.len())),
            Ok(false) => {}
            Err(error) => return error.downcast().map(Outcome::Failed),
        }
        let To::Store(store) = &self.to else { return Ok(Outcome::Done(before.len())) };
        let mut upload = Upload::new(store, self.target.preference);
        loop {
            self.target.context.interrupt.check()?;
            let piece = match piece(&mut file, before.len().saturating_sub(upload.size())) {
                Ok(piece) => piece,
                Err(error) => return Ok(Outcome::Failed(error)),
            };
            let is_last = is_last(&piece);
            self.count.progress.bytes(piece.len() as u64);
            upload.push(piece)?;
            if upload.size() > before.len() {
                return Ok(changed());
            }
            if is_last {
                break;
            }
        }
        let after = match file.metadata() {
            Ok(after) => after,
            Err(error) => return Ok(Outcome::Failed(error)),
        };
        let is_as_before = Attributes::of(&after) == attributes && after.len() == before.len();
        if upload.size() != before.len() || !is_as_before {
            return Ok(changed());
        }
        upload.finish(name, Condition::Any, Some(attributes))?;
        Ok(Outcome::Done(before.len()))
    }

    fn link(&self, found: &Found, name: &[u8]) -> anyhow::Result<Outcome> {
        if self.options.no_symlinks {
            return Ok(Outcome::Skipped("left out: a symbolic link"));
        }
        let leaf = found.leaf();
        let read = found.folder.look(leaf).and_then(|metadata| Ok((metadata, found.folder.read_link(leaf)?)));
        match read {
            Ok((metadata, target)) if metadata.is_symlink() => {
                self.small(name, target, Attributes::of(&metadata))
            }
            Ok(_) => Ok(changed()),
            Err(error) => Ok(Outcome::Failed(error)),
        }
    }

    fn folder(&self, found: &Found, name: &[u8]) -> anyhow::Result<Outcome> {
        match found.folder.metadata() {
            Ok(metadata) => self.small(name, Vec::new(), Attributes::of(&metadata)),
            Err(error) => Ok(Outcome::Failed(error)),
        }
    }

    /// Puts `bytes`, unless they are there.
    fn small(&self, name: &[u8], bytes: Vec<u8>, attributes: Attributes) -> anyhow::Result<Outcome> {
        let size = bytes.len() as u64;
        if let Some(object) = self.like(name, attributes, size)?
            && object.read_all()? == bytes
        {
            return Ok(Outcome::Unchanged(size));
        }
        if let To::Store(store) = &self.to {
            let mut upload = Upload::new(store, self.target.preference);
            upload.push(bytes)?;
            upload.finish(name, Condition::Any, Some(attributes))?;
        }
        Ok(Outcome::Done(size))
    }

    /// Makes everything durable when there is enough of it.
    fn wrote(&self, bytes: u64) -> anyhow::Result<()> {
        let is_due = {
            let mut unsynced = lock(&self.unsynced);
            unsynced.0 += 1;
            unsynced.1 += bytes;
            let is_due = unsynced.0 >= SYNC_OBJECTS || unsynced.1 >= SYNC_BYTES;
            if is_due {
                *unsynced = (0, 0);
            }
            is_due
        };
        if !is_due || matches!(self.to, To::Nothing(_)) {
            return Ok(());
        }
        let done = self.count.so_far().objects;
        self.database.sync()?;
        let context = self.target.context;
        if context.verbose > 0 {
            self.count.progress.aside(|| context.output.note(&format!("{done} objects are durable")));
        }
        Ok(())
    }
}

fn changed() -> Outcome {
    Outcome::Failed(io::Error::other("it changed while it was read; its object stays as it was"))
}
