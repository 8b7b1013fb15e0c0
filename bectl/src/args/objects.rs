//! The command lines of object stores and of what is in them.

use super::{Bytes, bytes, preference, size, unshield};
use crate::text::Encoding;
use betree::{Condition, StoragePreference, Version};
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Create an object store
    Create {
        /// Its name
        #[arg(value_name = "STORE", value_parser = bytes())]
        name: Bytes,
        /// Where its objects go that say nothing else: fastest, fast, slow, slowest, none, or 0 to 3
        #[arg(long, aliases = ["storage-preference", "tier"], value_name = "TIER", value_parser = preference)]
        preference: Option<StoragePreference>,
    },
    /// Names of the object stores
    #[command(visible_alias = "ls")]
    List,
    /// Give an object store another name
    Rename {
        /// Its name
        #[arg(value_name = "STORE", value_parser = bytes())]
        name: Bytes,
        /// The new one
        #[arg(value_parser = bytes())]
        new_name: Bytes,
    },
    /// Destroy an object store, all that is in it, and its snapshots
    Destroy {
        /// Its name
        #[arg(value_name = "STORE", value_parser = bytes())]
        name: Bytes,
        /// Say what would be lost, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Count the objects of a store, and their bytes
    Stats {
        /// Its name, or that of a snapshot: STORE@NAME
        #[arg(value_name = "STORE", value_parser = bytes())]
        name: Bytes,
    },
}

#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub struct Obj {
    /// The object store; for commands that only read, also a snapshot: STORE@NAME
    #[arg(value_parser = OsStringValueParser::new().map(unshield))]
    pub store: Bytes,
    /// How names of objects are written here and in the output
    #[arg(long, global = true, value_enum, value_name = "ENCODING", default_value_t)]
    pub name_enc: Encoding,
    /// How keys and values of custom metadata are written here and in the output
    #[arg(long, global = true, value_enum, value_name = "ENCODING", default_value_t)]
    pub value_enc: Encoding,
    /// Where what is written goes: fastest, fast, slow, slowest, none, or 0 to 3
    #[arg(long, aliases = ["preference", "tier"], global = true, value_name = "TIER", value_parser = preference)]
    pub storage_preference: Option<StoragePreference>,
    #[command(subcommand)]
    pub command: ObjCommand,
}

#[derive(Debug, Subcommand)]
pub enum ObjCommand {
    /// Make an object of a file or of standard input, in place of one of that name; creates the store when it does not
    /// exist
    Put(ObjPut),
    /// Write the bytes of an object to a file or to standard output
    Get {
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        name: Bytes,
        /// A file that does not exist yet; - or nothing: standard output
        file: Option<PathBuf>,
    },
    /// Write the bytes of objects to standard output, one after the other
    Cat {
        /// The objects
        #[arg(required = true, value_name = "NAME", value_parser = bytes(), allow_negative_numbers = true)]
        names: Vec<Bytes>,
        /// Of each only LENGTH bytes from OFFSET on; without LENGTH, to the end (`4KiB:100`, `1000:`)
        #[arg(long, value_name = "OFFSET:LENGTH", value_parser = byte_range)]
        range: Option<ByteRange>,
    },
    /// Print the names of objects in order
    #[command(visible_alias = "ls")]
    List(ObjList),
    /// Print what there is to say about an object
    Stat {
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        name: Bytes,
    },
    /// Delete objects: all that are named, or none
    #[command(visible_alias = "rm")]
    Del {
        /// The objects
        #[arg(value_name = "NAME", value_parser = bytes(), allow_negative_numbers = true, required_unless_present = "prefix")]
        names: Vec<Bytes>,
        /// All whose names start so, after asking
        #[arg(long, value_name = "NAME", value_parser = bytes(), conflicts_with = "names")]
        prefix: Option<Bytes>,
        /// Say what would be lost, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Give an object another name
    Mv(ObjTarget),
    /// Copy an object, with its custom metadata
    Cp(ObjTarget),
    /// Write into an object, whose other bytes stay
    Write {
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        name: Bytes,
        /// The bytes; - or nothing: standard input
        file: Option<PathBuf>,
        /// Where the first byte goes
        #[arg(long, value_name = "SIZE", value_parser = size, required_unless_present = "append")]
        offset: Option<u64>,
        /// Write behind the last byte
        #[arg(long, conflicts_with = "offset")]
        append: bool,
        /// Create the object when it does not exist
        #[arg(long)]
        create: bool,
    },
    /// Make an object shorter, or longer by bytes of zero
    Truncate {
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        name: Bytes,
        /// Its new size
        #[arg(value_parser = size)]
        size: u64,
    },
    /// Custom metadata of an object: keys and values
    #[command(subcommand)]
    Meta(MetaCommand),
    /// Make objects of all files below a folder; creates the store when it does not exist. What is there already is left out
    Import(ObjImport),
    /// Make files of objects below a folder, and nowhere else. What is there already is left out
    Export(ObjExport),
}

#[derive(Debug, Subcommand)]
pub enum MetaCommand {
    /// Print the value of a key, to the byte
    Get {
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        name: Bytes,
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        key: Bytes,
    },
    /// Set the value of a key
    Set {
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        name: Bytes,
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        key: Bytes,
        /// Without it, the value is read from standard input, to the byte
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        value: Option<Bytes>,
    },
    /// Delete a key
    #[command(visible_alias = "rm")]
    Del {
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        name: Bytes,
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        key: Bytes,
    },
    /// Print keys and values in the order of the keys
    #[command(visible_alias = "ls")]
    List {
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        name: Bytes,
    },
}

/// The words behind `meta`, in front of the name of an object, or behind it as in Haura.
pub const META_VERBS: [&[u8]; 6] = [b"get", b"set", b"del", b"rm", b"list", b"ls"];

#[derive(Debug, Args)]
pub struct ObjPut {
    #[arg(value_parser = bytes(), allow_negative_numbers = true)]
    pub name: Bytes,
    /// The file; - or nothing: standard input
    pub file: Option<PathBuf>,
    /// Only when there is no object of this name
    #[arg(long)]
    pub if_absent: bool,
    /// Only when there is one, and it is of this version (see stat)
    #[arg(long, value_name = "VERSION", value_parser = version, conflicts_with = "if_absent")]
    pub if_version: Option<Version>,
    /// Has no effect; users of Haura may still say so
    #[arg(long, hide = true)]
    pub buf_size: Option<u64>,
}

impl ObjPut {
    /// What must hold for the object to be put.
    pub fn condition(&self) -> Condition {
        match (self.if_absent, self.if_version) {
            (true, _) => Condition::Absent,
            (false, Some(version)) => Condition::Matches(version),
            (false, None) => Condition::Any,
        }
    }
}

#[derive(Debug, Args)]
pub struct ObjTarget {
    #[arg(value_parser = bytes(), allow_negative_numbers = true)]
    pub name: Bytes,
    #[arg(value_parser = bytes(), allow_negative_numbers = true)]
    pub new_name: Bytes,
    /// Also in place of an object that has the new name, which is lost
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct ObjList {
    /// Only names that start so
    #[arg(long, value_name = "NAME", value_parser = bytes(), conflicts_with_all = ["from", "to"])]
    pub prefix: Option<Bytes>,
    /// The first name
    #[arg(long, value_name = "NAME", value_parser = bytes())]
    pub from: Option<Bytes>,
    /// The first name that is left out
    #[arg(long, value_name = "NAME", value_parser = bytes())]
    pub to: Option<Bytes>,
    /// List what names have in common up to this, behind the prefix, once: `/` lists a folder
    #[arg(long, value_name = "TEXT", value_parser = bytes(), conflicts_with_all = ["from", "to"])]
    pub delimiter: Option<Bytes>,
    /// At most so many
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Go on behind a list that --limit ended, which named this
    #[arg(long, value_name = "TOKEN", value_parser = token, conflicts_with_all = ["from", "to"])]
    pub after: Option<Bytes>,
    /// With sizes, times and tiers
    #[arg(short, long)]
    pub long: bool,
    /// With the custom metadata
    #[arg(long, alias = "with-custom")]
    pub with_metadata: bool,
}

#[derive(Debug, Args)]
pub struct ObjImport {
    /// The folder
    pub dir: PathBuf,
    /// Put this before the names
    #[arg(long, value_name = "NAME", value_parser = bytes())]
    pub prefix: Option<Bytes>,
    /// So many files at once [default: one for each processor, 2 to 4]
    #[arg(short = 'J', long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: Option<u16>,
    /// Leave symbolic links out
    #[arg(long)]
    pub no_symlinks: bool,
    /// Say what would be imported, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct ObjExport {
    /// The folder; created when it does not exist
    pub dir: PathBuf,
    /// Only objects whose names start so; the files are named by the rest
    #[arg(long, value_name = "NAME", value_parser = bytes())]
    pub prefix: Option<Bytes>,
    /// So many files at once [default: one for each processor, 2 to 4]
    #[arg(short = 'J', long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: Option<u16>,
    /// Leave symbolic links out
    #[arg(long)]
    pub no_symlinks: bool,
    /// Take a file of the same size, time and mode for the same, without reading it
    #[arg(long)]
    pub quick: bool,
    /// Say what would be exported, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Bytes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// The first.
    pub offset: u64,
    /// How many, at the most.
    pub length: u64,
}

impl ByteRange {
    /// All there are.
    pub const ALL: Self = Self { offset: 0, length: u64::MAX };
}

fn byte_range(text: &str) -> Result<ByteRange, String> {
    let form = || String::from("OFFSET:LENGTH or OFFSET:, for example 4KiB:100");
    let (offset, length) = text.split_once(':').ok_or_else(form)?;
    let length = if length.is_empty() { u64::MAX } else { size(length)? };
    Ok(ByteRange { offset: size(offset)?, length })
}

fn version(text: &str) -> Result<Version, String> {
    text.parse().map_err(|_| "a version has 16 hexadecimal digits; stat prints it".into())
}

/// Tokens are bytes of the library, in hexadecimal.
fn token(text: &str) -> Result<Bytes, String> {
    Encoding::Hex.decode(text.as_bytes()).map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(byte_range("4KiB:100"), Ok(ByteRange { offset: 4096, length: 100 }));
        assert_eq!(byte_range("0:"), Ok(ByteRange::ALL));
        for text in ["", ":", ":5", "5", "a:b", "1:-1"] {
            assert!(byte_range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn versions_and_tokens_are_hexadecimal() {
        assert_eq!(version("00000000000000ff").unwrap().to_string(), "00000000000000ff");
        assert!(version("x").is_err());
        assert_eq!(token("0061"), Ok(Bytes(b"\0a".to_vec())));
        assert!(token("0").is_err());
    }
}
