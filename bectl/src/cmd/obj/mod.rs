//! `bectl obj`: objects of a store.
//!
//! | file | subject |
//! |---|---|
//! | `bytes` | put, get, cat, write, truncate |
//! | `names` | list, stat, del, mv, cp |
//! | `metadata` | meta |
//! | `import`, `export` | folders of files |
//! | `attributes` | what is kept of a file beside its bytes |
//! | `comparison` | whether a file and an object are the same |
//! | `upload` | objects that are not whole yet |
//! | `tally` | what became of many of them |

mod attributes;
mod bytes;
mod comparison;
mod export;
mod import;
mod metadata;
pub mod names;
mod tally;
mod upload;

use super::readable::{check_no_store_snapshot, open_store_view};
use crate::args::{Bytes, Obj, ObjCommand};
use crate::context::Context;
use crate::failure::{Failure, quoted};
use crate::text::Encoding;
use betree::{Database, ObjectHandle, ObjectStore, ObjectView, StoragePreference, StoreView};

/// The store that a command works on, and how its names and custom metadata are written.
pub struct Target<'a> {
    pub context: &'a Context,
    pub store: Vec<u8>,
    pub names: Encoding,
    pub values: Encoding,
    pub preference: StoragePreference,
}

pub fn run(context: &Context, obj: Obj) -> anyhow::Result<()> {
    let target = Target {
        context,
        store: obj.store.0,
        names: obj.name_enc,
        values: obj.value_enc,
        preference: obj.storage_preference.unwrap_or_default(),
    };
    match obj.command {
        ObjCommand::Put(options) => target.put(&options),
        ObjCommand::Get { name, file } => target.get(&name, file.as_deref()),
        ObjCommand::Cat { names, range } => target.cat(&names, range),
        ObjCommand::List(options) => target.list(&options),
        ObjCommand::Stat { name } => target.stat(&name),
        ObjCommand::Del { prefix: Some(prefix), dry_run, yes, .. } => {
            target.delete_prefix(&prefix, dry_run, yes)
        }
        ObjCommand::Del { names, dry_run, .. } => target.delete(&names, dry_run),
        ObjCommand::Mv(options) => target.rename(&options),
        ObjCommand::Cp(options) => target.copy(&options),
        ObjCommand::Write { name, file, offset, create, .. } => {
            target.write(&name, file.as_deref(), offset, create)
        }
        ObjCommand::Truncate { name, size } => target.truncate(&name, size),
        ObjCommand::Meta(command) => target.metadata(&command),
        ObjCommand::Import(options) => import::run(&target, &options),
        ObjCommand::Export(options) => export::run(&target, &options),
    }
}

impl Target<'_> {
    fn name(&self, name: &Bytes) -> Result<Vec<u8>, Failure> {
        self.names.decode_argument("name", &name.0)
    }

    fn name_or_empty(&self, name: Option<&Bytes>) -> Result<Vec<u8>, Failure> {
        name.map_or(Ok(Vec::new()), |name| self.name(name))
    }

    /// One state of the store or snapshot, for reading.
    fn view(&self) -> anyhow::Result<StoreView> {
        open_store_view(&self.context.open_read_only()?, &self.store)
    }

    /// An object of [`Target::view`].
    fn object(&self, name: &[u8]) -> anyhow::Result<ObjectView> {
        self.view()?.open_object(name)?.ok_or_else(|| self.absent(name))
    }

    fn absent(&self, name: &[u8]) -> anyhow::Error {
        let name = match self.names {
            Encoding::Utf8 => quoted(name).into_owned(),
            encoding => encoding.text(name),
        };
        Failure::NotFound(format!("object {name} is not in store {}", quoted(&self.store))).into()
    }

    /// Opens for writing; creates the store when it does not exist.
    fn open_or_create(&self) -> anyhow::Result<(Database, ObjectStore)> {
        let database = self.context.open()?;
        check_no_store_snapshot(&database, &self.store)?;
        let store = database.open_or_create_object_store(&self.store)?;
        upload::clean(&store)?;
        Ok((database, store))
    }

    /// Opens the store for `work` on it, which is durable when this returns.
    fn change(&self, work: impl FnOnce(&ObjectStore) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let database = self.context.open()?;
        check_no_store_snapshot(&database, &self.store)?;
        let store = database.open_object_store(&self.store)?;
        let worked = work(&store);
        drop(store);
        // Also after an error, which may have come in the middle.
        let kept = database.sync().and_then(|()| database.close());
        worked?;
        kept?;
        self.context.output.nothing()
    }

    /// As [`Target::change`], of one object.
    fn change_object(
        &self,
        name: &[u8],
        work: impl FnOnce(&ObjectHandle) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.change(|store| {
            let object = store.open_object(name)?.ok_or_else(|| self.absent(name))?;
            work(&object)
        })
    }
}
