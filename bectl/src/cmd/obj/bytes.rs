//! The bytes of objects: put, get, cat, write, truncate.

use super::Target;
use super::names::Described;
use super::upload::{Upload, is_last, piece};
use crate::args::{ByteRange, Bytes, ObjPut};
use crate::failure::Failure;
use crate::progress::Progress;
use anyhow::Context as _;
use betree::ObjectView;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Read at once: enough for the store to read ahead, and little beside its cache.
const BUFFER_BYTES: usize = 1 << 20;

impl Target<'_> {
    /// A file, or standard input; and how many bytes there are, where that is known.
    fn input(&self, file: Option<&Path>) -> anyhow::Result<(impl Read, Option<u64>)> {
        let interrupt = &self.context.interrupt;
        match file.filter(|path| *path != Path::new("-")) {
            Some(path) => {
                let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
                let metadata = file.metadata()?;
                Ok((interrupt.reader(file), metadata.is_file().then_some(metadata.len())))
            }
            None => Ok((interrupt.stdin()?, None)),
        }
    }

    /// Calls `each` with the pieces of the input, at least once; only the last is short, and may be empty.
    fn pieces(
        &self,
        file: Option<&Path>,
        input: (impl Read, Option<u64>),
        mut each: impl FnMut(Vec<u8>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (mut input, bytes) = input;
        let progress = Progress::start(&self.context.output, "writing", bytes);
        let mut left = bytes.unwrap_or(BUFFER_BYTES as u64);
        loop {
            let read = piece(&mut input, left);
            self.context.interrupt.check()?;
            let reading = || match file {
                Some(path) => format!("reading {}", path.display()),
                None => "reading standard input".into(),
            };
            let piece = read.with_context(reading)?;
            let is_last = is_last(&piece);
            left = left.saturating_sub(piece.len() as u64);
            progress.bytes(piece.len() as u64);
            each(piece)?;
            if is_last {
                return Ok(());
            }
        }
    }

    pub(super) fn put(&self, options: &ObjPut) -> anyhow::Result<()> {
        let name = self.name(&options.name)?;
        let file = options.file.as_deref();
        // The input first: without it, no store is created.
        let input = self.input(file)?;
        let (database, store) = self.open_or_create()?;
        let mut upload = Upload::new(&store, self.preference);
        let put = self.pieces(file, input, |piece| Ok(upload.push(piece)?));
        let put = put.and_then(|()| Ok(upload.finish(&name, options.condition(), None)?));
        let info = store.read_object_info(&name);
        drop(store);
        let kept = database.sync().and_then(|()| database.close());
        put?;
        kept?;
        let info = info?.ok_or_else(|| self.absent(&name))?;
        let output = &self.context.output;
        if output.json { output.data(&Described::new(&name, self.names, &info)) } else { Ok(()) }
    }

    pub(super) fn get(&self, name: &Bytes, file: Option<&Path>) -> anyhow::Result<()> {
        let object = self.object(&self.name(name)?)?;
        let Some(path) = file.filter(|path| *path != Path::new("-")) else {
            return self.print(&[object], ByteRange::ALL);
        };
        let file = File::create_new(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::Refused(format!("{} exists", path.display())).into(),
            _ => anyhow::Error::from(error).context(format!("writing {}", path.display())),
        })?;
        let written = self.write_file(&object, path, &file);
        if written.is_err()
            && let Err(error) = fs::remove_file(path)
        {
            log::warn!("{} is not complete and could not be removed: {error}", path.display());
        }
        written?;
        self.context.output.nothing()
    }

    fn write_file(&self, object: &ObjectView, path: &Path, file: &File) -> anyhow::Result<()> {
        let progress = Progress::start(&self.context.output, "reading", Some(object.size()));
        let writing = || format!("writing {}", path.display());
        for chunk in object.read_all_chunks() {
            self.context.interrupt.check()?;
            let (range, bytes) = chunk?;
            file.write_all_at(&bytes, range.start).with_context(writing)?;
            progress.bytes(bytes.len() as u64);
        }
        // What is left out reads as zeros, in the file as in the object.
        file.set_len(object.size()).with_context(writing)
    }

    pub(super) fn cat(&self, names: &[Bytes], range: Option<ByteRange>) -> anyhow::Result<()> {
        let view = self.view()?;
        // All of them first: without one, nothing is printed.
        let open = |name: &Bytes| {
            let name = self.name(name)?;
            view.open_object(&name)?.ok_or_else(|| self.absent(&name))
        };
        let objects = names.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
        self.print(&objects, range.unwrap_or(ByteRange::ALL))
    }

    fn print(&self, objects: &[ObjectView], range: ByteRange) -> anyhow::Result<()> {
        if self.context.output.json {
            let why = "bytes of objects have no JSON form: they go to standard output or a file as they are";
            return Err(Failure::Usage(why.into()).into());
        }
        let size = |object: &ObjectView| range.length.min(object.size().saturating_sub(range.offset));
        let progress = Progress::start(&self.context.output, "reading", Some(objects.iter().map(size).sum()));
        let mut sink = self.context.output.sink();
        let mut buffer = vec![0; BUFFER_BYTES];
        for object in objects {
            let (mut at, mut left) = (range.offset, size(object));
            while left > 0 {
                self.context.interrupt.check()?;
                let most = left.min(BUFFER_BYTES as u64) as usize;
                let read = object.read_at(&mut buffer[..most], at)?;
                if read == 0 {
                    break;
                }
                sink.bytes(&buffer[..read])?;
                progress.bytes(read as u64);
                at += read as u64;
                left -= read as u64;
            }
        }
        sink.finish()
    }

    pub(super) fn write(
        &self,
        name: &Bytes,
        file: Option<&Path>,
        offset: Option<u64>,
        create: bool,
    ) -> anyhow::Result<()> {
        let name = self.name(name)?;
        let input = self.input(file)?;
        self.change(|store| {
            let object = match store.open_object(&name)? {
                Some(object) => object,
                None if create => store.open_or_create_object_with_pref(&name, self.preference)?,
                None => return Err(self.absent(&name)),
            };
            let mut at = offset;
            self.pieces(file, input, |piece| {
                match &mut at {
                    Some(at) => {
                        object.write_at_with_pref(&piece, *at, self.preference)?;
                        *at += piece.len() as u64;
                    }
                    None => {
                        object.append(&piece)?;
                    }
                }
                Ok(())
            })
        })
    }

    pub(super) fn truncate(&self, name: &Bytes, size: u64) -> anyhow::Result<()> {
        self.change_object(&self.name(name)?, |object| Ok(object.truncate(size)?))
    }
}
