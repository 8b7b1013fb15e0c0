//! `bectl obj STORE export`: files of objects, below one folder.
//!
//! Names of objects are somebody else's: whatever they are, nothing outside of the folder is written. What cannot be the path
//! of a file below it is refused; and no step goes through a symbolic link, also not one that an object before made.

use super::Target;
use super::attributes::Stored;
use super::comparison::is_same;
use super::tally::{Count, Outcome, outcome_of};
use super::upload::PARTIAL;
use crate::args::ObjExport;
use crate::cmd::readable::open_store_view;
use crate::configuration::file_ids;
use crate::context::Context;
use crate::failure::{Failure, quoted};
use crate::folder::{self, Folder};
use crate::workers::{default_jobs, lock, share};
use anyhow::Context as _;
use betree::{CHUNK_BYTES, ObjectView, StoreView};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Mutex;

/// What the names of files start with that are not whole yet.
pub const PARTIAL_FILE: &[u8] = b".bectl-partial-";
/// No file system has longer targets.
const LINK_BYTES_MAX: u64 = 4095;

pub fn run(target: &Target<'_>, options: &ObjExport) -> anyhow::Result<()> {
    let context = target.context;
    let prefix = target.name_or_empty(options.prefix.as_ref())?;
    let database = context.open_read_only()?;
    let view = open_store_view(&database, &target.store)?;
    let opening = || format!("opening {}", options.dir.display());
    if !options.dry_run {
        fs::create_dir_all(&options.dir).with_context(opening)?;
    }
    let root = match Folder::open(&options.dir) {
        Ok(root) => Some(root),
        Err(error) if options.dry_run && error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(opening),
    };
    if !options.dry_run && root.as_ref().is_some_and(|root| !root.lock()) {
        let why = format!("somebody else exports to {}", options.dir.display());
        return Err(Failure::Refused(why).into());
    }
    let bytes = if context.output.progress { Some(total(context, &view, &prefix)?) } else { None };
    let export = Export {
        context,
        options,
        root,
        view,
        pool: file_ids(&database.configuration().storage),
        count: Count::start(context, "exporting", bytes),
        folders: Mutex::default(),
    };
    let jobs = options.jobs.map_or_else(default_jobs, usize::from);
    let worked = share(
        jobs,
        |give| export.list(&prefix, give),
        Place::default,
        |place, item| {
            context.interrupt.check()?;
            let outcome = export.one(place, &item).or_else(outcome_of)?;
            export.count.add(&item.name, outcome);
            Ok(())
        },
    );
    let worked = worked.and_then(|()| export.finish_folders());
    export.count.finish(worked, "export", options.dry_run)
}

/// The bytes of all objects that are to be exported.
fn total(context: &Context, view: &StoreView, prefix: &[u8]) -> anyhow::Result<u64> {
    let mut bytes = 0_u64;
    for object in view.list_prefix(prefix) {
        context.interrupt.check()?;
        bytes = bytes.saturating_add(object?.1.size);
    }
    Ok(bytes)
}

/// An object whose name is the path of a file.
#[derive(Debug)]
struct Item {
    name: Vec<u8>,
    /// The names of folders, and the last one.
    path: Vec<Vec<u8>>,
    /// Whether the name ends with `/`.
    is_folder: bool,
}

/// The parts of a name, and whether it is that of a folder.
///
/// # Errors
/// Why it is not the path of a file below some folder.
fn path_of(name: &[u8]) -> Result<(Vec<Vec<u8>>, bool), &'static str> {
    let (name, is_folder) = name.strip_suffix(b"/").map_or((name, false), |name| (name, true));
    if name.contains(&0) {
        return Err("its name has a byte of zero, as no file has");
    }
    let mut path = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" => return Err("its name begins with / or has // in it, or is empty"),
            b"." | b".." => return Err("its name leads to another folder, by . or .."),
            part if part.starts_with(PARTIAL_FILE) => return Err("its name is that of a file in the making"),
            part => path.push(part.to_vec()),
        }
    }
    Ok((path, is_folder))
}

/// The folder that a thread was in last, where the next file often is too.
#[derive(Debug, Default)]
struct Place {
    path: Vec<Vec<u8>>,
    folder: Option<Folder>,
}

impl Place {
    /// Goes to a folder below `root`, which is made where it does not exist.
    fn go(&mut self, root: &Folder, path: &[Vec<u8>], create: bool) -> io::Result<&Folder> {
        if self.folder.is_none() || self.path != path {
            self.folder = None;
            let step = if create { Folder::enter_or_create } else { Folder::enter };
            self.folder = Some(root.descend(path.iter().map(Vec::as_slice), step)?);
            self.path = path.to_vec();
        }
        self.folder.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

struct Export<'a> {
    context: &'a Context,
    options: &'a ObjExport,
    /// Absent when nothing is to be written and there is none.
    root: Option<Folder>,
    view: StoreView,
    /// Devices and inodes of the files that the pool is in.
    pool: HashSet<(u64, u64)>,
    count: Count<'a>,
    /// Folders that get their permissions and times at the end, when nothing is written into them any more.
    folders: Mutex<Vec<(Vec<Vec<u8>>, Stored)>>,
}

impl Export<'_> {
    /// Gives all objects that can be files.
    fn list(&self, prefix: &[u8], give: &mut dyn FnMut(Item) -> anyhow::Result<()>) -> anyhow::Result<()> {
        // The names before that the next one starts with. What starts so follows at once in a list in order.
        let mut above: Vec<Vec<u8>> = Vec::new();
        for object in self.view.list_prefix(prefix) {
            self.context.interrupt.check()?;
            let (name, _) = object?;
            if name.starts_with(PARTIAL) {
                continue;
            }
            let rest = &name[prefix.len().min(name.len())..];
            while above.last().is_some_and(|last| !rest.starts_with(last)) {
                above.pop();
            }
            let file = above.iter().find(|above| rest.get(above.len()) == Some(&b'/'));
            match (path_of(rest), file) {
                (Err(why), _) => self.count.add(&name, Outcome::Refused(why.into())),
                (Ok(_), Some(file)) => {
                    let why = format!("{} is an object too, and no file is a folder", quoted(file));
                    self.count.add(&name, Outcome::Refused(why));
                }
                (Ok((path, is_folder)), None) => give(Item { name: name.clone(), path, is_folder })?,
            }
            above.push(rest.to_vec());
        }
        Ok(())
    }

    fn one(&self, place: &mut Place, item: &Item) -> anyhow::Result<Outcome> {
        let gone = || anyhow::anyhow!("{} is listed, but not there", quoted(&item.name));
        let object = self.view.open_object(&item.name)?.ok_or_else(gone)?;
        let stored = Stored::of(&object)?;
        if item.is_folder && (object.size() > 0 || stored.mode.is_some() && !stored.is_folder()) {
            return Ok(Outcome::Refused("its name is that of a folder, and it is none".into()));
        }
        if stored.is_link() && self.options.no_symlinks {
            return Ok(Outcome::Skipped("left out: a symbolic link"));
        }
        if stored.is_link() && !(1..=LINK_BYTES_MAX).contains(&object.size()) {
            return Ok(Outcome::Refused("no symbolic link is of that length".into()));
        }
        let Some((leaf, parents)) = item.path.split_last() else { return Err(gone()) };
        let would = Outcome::Done(object.size());
        let Some(root) = &self.root else { return Ok(would) };
        let folder = match place.go(root, parents, !self.options.dry_run) {
            Ok(folder) => folder,
            Err(error) if self.options.dry_run && error.kind() == io::ErrorKind::NotFound => {
                return Ok(would);
            }
            Err(error) if is_no_folder(&error) => {
                return Ok(Outcome::Refused("a file or symbolic link is where its folder would be".into()));
            }
            Err(error) => return Err(error.into()),
        };
        let found = match folder.look(leaf) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        if item.is_folder {
            return self.folder(folder, item, found.as_ref(), stored);
        }
        if let Some(found) = &found {
            if found.is_dir() {
                return Ok(Outcome::Refused("a folder is where its file would be".into()));
            }
            if self.pool.contains(&(found.dev(), found.ino())) {
                return Ok(Outcome::Refused("the pool is where its file would be".into()));
            }
        }
        if stored.is_link() {
            return self.link(folder, leaf, &object, found.as_ref(), stored);
        }
        if found.is_some_and(|found| stored.is_exported_as(object.size(), &found))
            && (self.options.quick || is_same(&self.context.interrupt, &folder.open_file(leaf)?, &object)?)
        {
            return Ok(Outcome::Unchanged(object.size()));
        }
        if self.options.dry_run {
            return Ok(would);
        }
        self.file(folder, leaf, &object, stored)
    }

    fn file(
        &self,
        folder: &Folder,
        leaf: &[u8],
        object: &ObjectView,
        stored: Stored,
    ) -> anyhow::Result<Outcome> {
        let partial = Partial::new(folder, object)?;
        // Nobody else reads what may be secret before it has its permissions.
        let file = folder.create_file(&partial.name, if stored.mode.is_some() { 0o600 } else { 0o666 })?;
        let size = object.size();
        let mut written = 0;
        if size <= CHUNK_BYTES {
            file.write_all_at(&object.read_all()?, 0)?;
        } else {
            // Chunk by chunk: holes stay holes.
            for chunk in object.read_all_chunks() {
                self.context.interrupt.check()?;
                let (range, bytes) = chunk?;
                file.write_all_at(&bytes, range.start)?;
                written += bytes.len() as u64;
                self.count.progress.bytes(bytes.len() as u64);
            }
            file.set_len(size)?;
        }
        self.count.progress.bytes(size - written.min(size));
        folder::set(&file, stored.permissions(), stored.mtime)?;
        drop(file);
        partial.finish(leaf)?;
        Ok(Outcome::Done(size))
    }

    fn link(
        &self,
        folder: &Folder,
        leaf: &[u8],
        object: &ObjectView,
        found: Option<&Metadata>,
        stored: Stored,
    ) -> anyhow::Result<Outcome> {
        let target = object.read_all()?;
        if found.is_some_and(Metadata::is_symlink) && folder.read_link(leaf)? == target {
            return Ok(Outcome::Unchanged(object.size()));
        }
        if !self.options.dry_run {
            let partial = Partial::new(folder, object)?;
            folder.create_link(&partial.name, &target)?;
            folder.set_link_mtime(&partial.name, stored.mtime)?;
            partial.finish(leaf)?;
        }
        Ok(Outcome::Done(object.size()))
    }

    fn folder(
        &self,
        parent: &Folder,
        item: &Item,
        found: Option<&Metadata>,
        stored: Stored,
    ) -> anyhow::Result<Outcome> {
        if found.is_some_and(|found| !found.is_dir()) {
            return Ok(Outcome::Refused("a file or symbolic link is where its folder would be".into()));
        }
        if self.options.dry_run {
            return Ok(if found.is_some() { Outcome::Unchanged(0) } else { Outcome::Done(0) });
        }
        if let Some(leaf) = item.path.last() {
            parent.enter_or_create(leaf)?;
        }
        lock(&self.folders).push((item.path.clone(), stored));
        Ok(if found.is_some() { Outcome::Unchanged(0) } else { Outcome::Done(0) })
    }

    /// Gives folders their permissions and times, the deepest first.
    fn finish_folders(&self) -> anyhow::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let mut folders = std::mem::take(&mut *lock(&self.folders));
        folders.sort_unstable_by(|one, other| other.0.cmp(&one.0));
        for (path, stored) in folders {
            let folder = root.descend(path.iter().map(Vec::as_slice), Folder::enter);
            let set = folder.and_then(|folder| folder.set(stored.permissions(), stored.mtime));
            if let Err(error) = set {
                self.count.add(&path.join(&b'/'), Outcome::Failed(error));
            }
        }
        Ok(())
    }
}

/// Whether something that is no folder is where one would be.
fn is_no_folder(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotADirectory || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// The name of a file that is not whole yet, which goes away unless it becomes whole. It is that of the object, whose number
/// no other has: what a killed export left is replaced by the next one.
struct Partial<'a> {
    folder: &'a Folder,
    name: Vec<u8>,
    is_whole: bool,
}

impl<'a> Partial<'a> {
    fn new(folder: &'a Folder, object: &ObjectView) -> io::Result<Self> {
        let name = [PARTIAL_FILE, format!("{:016x}", object.info().id).as_bytes()].concat();
        folder.remove(&name)?;
        Ok(Self { folder, name, is_whole: false })
    }

    fn finish(mut self, name: &[u8]) -> io::Result<()> {
        self.folder.rename(&self.name, name)?;
        self.is_whole = true;
        Ok(())
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if !self.is_whole
            && let Err(error) = self.folder.remove(&self.name)
        {
            log::warn!("{} stays behind: {error}", quoted(&self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    #[test]
    fn names_that_lead_elsewhere_are_no_paths() {
        for name in [
            &b""[..],
            b"/",
            b"//",
            b".",
            b"..",
            b"./",
            b"../x",
            b"/etc/x",
            b"a/../../x",
            b"a/..",
            b"a//b",
            b"a/./b",
            b"a\0b",
            b"\0",
            b"a//",
            b".bectl-partial-0",
            b"a/.bectl-partial-1/b",
        ] {
            assert!(path_of(name).is_err(), "{name:?}");
        }
        assert_eq!(path_of(b"a/b"), Ok((vec![b"a".to_vec(), b"b".to_vec()], false)));
        assert_eq!(path_of(b"..."), Ok((vec![b"...".to_vec()], false)));
        assert_eq!(path_of(b"\xff/\n/"), Ok((vec![b"\xff".to_vec(), b"\n".to_vec()], true)));
    }

    proptest! {
        /// Judged by the standard library: nothing but plain names, and none is lost.
        #[test]
        fn paths_stay_below(name in "[./a\0\\\\]{0,12}") {
            if let Ok((path, is_folder)) = path_of(name.as_bytes()) {
                let parts: Vec<String> =
                    path.into_iter().map(|part| String::from_utf8(part).unwrap()).collect();
                let plain = Path::new(&name).components().all(|part| matches!(part, Component::Normal(_)));
                prop_assert!(plain && !name.contains('\0'));
                prop_assert_eq!(parts.join("/") + if is_folder { "/" } else { "" }, name);
            }
        }
    }
}
