//! The command line.

mod evacuation;
mod objects;

pub use evacuation::VdevRemove;
use objects::META_VERBS;
pub use objects::{
    ByteRange, MetaCommand, Obj, ObjCommand, ObjExport, ObjImport, ObjList, ObjPut, ObjTarget, StoreCommand,
};

use crate::text::Encoding;
use betree::{Compression, MergePolicy, ResumeToken, StoragePreference};
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, ColorChoice, CommandFactory as _, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

/// Works with betree databases: key-value datasets and object stores on tiered storage.
#[derive(Debug, Parser)]
#[command(
    name = "bectl",
    version,
    after_help = "Exit codes: 0 done, 1 failure, 2 usage, 3 not found, 4 damage, \
    5 no space, 6 pool in use, 7 degraded, 8 refused or exists already, 130 interrupted."
)]
pub struct CommandLine {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command; they may stand before or after it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Configuration (JSON) [default: $BETREE_CONFIG, ./betree.json, $XDG_CONFIG_HOME/betree/config.json,
    /// ~/.config/haura.json, /etc/betree/config.json, else one pool file]
    #[arg(short, short_alias = 'd', long, alias = "database-config", global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON document
    #[arg(short, long, global = true)]
    pub json: bool,
    /// Numbers in JSON as integers; they always are, and zfs users may still say so
    #[arg(long, global = true)]
    pub json_int: bool,
    /// Separate columns by tabs and leave out the header
    #[arg(short = 'H', long, global = true)]
    pub no_header: bool,
    /// Print exact numbers
    #[arg(short, long, global = true)]
    pub parsable: bool,
    /// Say nothing but data, warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more (kv list: the values too); twice: messages of the library
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Colour messages
    #[arg(long, global = true, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,
    /// Draw no progress
    #[arg(long, global = true)]
    pub no_progress: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The database as a whole
    #[command(subcommand)]
    Db(DbCommand),
    /// Datasets
    #[command(subcommand)]
    Dataset(DatasetCommand),
    /// Keys and values of a dataset
    Kv(Kv),
    /// Object stores
    #[command(subcommand)]
    Store(StoreCommand),
    /// Objects of a store
    #[command(visible_alias = "object")]
    Obj(Obj),
    /// Snapshots of datasets and object stores, written DATASET@NAME or STORE@NAME
    Snapshot(Snapshots),
    /// Make a dataset or object store of a snapshot: writable, and sharing its space until it is overwritten
    Clone {
        /// The snapshot
        #[arg(value_parser = snapshot_name())]
        snapshot: SnapshotName,
        /// Name of the new dataset or store
        #[arg(value_name = "DATASET|STORE", value_parser = bytes())]
        name: Bytes,
        /// Of an object store, also where a dataset has its name
        #[arg(long)]
        store: bool,
    },
    /// Make a clone the owner of the snapshots that it was made of
    Promote {
        /// The clone
        #[arg(value_name = "DATASET|STORE", value_parser = bytes())]
        name: Bytes,
        /// An object store, also where a dataset has its name
        #[arg(long)]
        store: bool,
    },
    /// Write a snapshot to standard output as a stream, whole or what changed since an earlier one
    Send(Send),
    /// Make a dataset or object store, and a snapshot, of a stream on standard input, or apply changes
    #[command(visible_alias = "recv")]
    Receive(Receive),
    /// Configurations
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check the whole pool without changing it. Exit codes: 0 clean, 1 leaked space only, 2 damage, 3 cannot run
    Check(Check),
    /// Look at every copy of everything, mend what is wrong on some, and tell what is wrong on all
    #[command(subcommand)]
    Scrub(ScrubCommand),
    /// Devices of the pool, named as `vdev list` does: by path, or VDEV.LEAF
    #[command(subcommand)]
    Vdev(VdevCommand),
    /// Look at older checkpoints
    Recover(Recover),
    /// Write whatever can still be read of every dataset to files
    Salvage(Salvage),
}

#[derive(Debug, Subcommand)]
pub enum ScrubCommand {
    /// Scrub in this process until everything was looked at; Ctrl-C pauses it, and the next start goes on there
    Start,
    /// Give up a scrub that is paused
    Stop,
    /// What the newest scrub and resilver found, or how far they are
    Status,
}

#[derive(Debug, Subcommand)]
pub enum VdevCommand {
    /// Vdevs, their devices, states and errors
    List,
    /// Take a device out of use; what is written from then on it misses
    Offline {
        /// The device
        device: String,
    },
    /// Use a device again that is offline or faulted: what it missed is copied to it
    Online {
        /// The device
        device: String,
        /// Leave the copying to the commands and programs that open the pool for writing from now on
        #[arg(long)]
        no_wait: bool,
    },
    /// Add vdevs to the pool, as `db init` takes them: `mirror /x /y slow parity1 /u /v /w`
    Add(Add),
    /// Put a device in the place of one that is lost, bad or too small, and copy to it what it must hold
    Replace(Replace),
    /// Forget the errors of a device, or of all
    Clear {
        /// The device [default: all]
        device: Option<String>,
    },
    /// Move everything that is on a vdev to the others, and take it out of the pool; Ctrl-C leaves it as it was
    Remove(VdevRemove),
}

#[derive(Debug, Args)]
pub struct Add {
    /// The vdevs; the first ones are of the tier fastest, those behind fast, slow or slowest of that one
    #[arg(required = true, value_name = "WORD")]
    pub words: Vec<String>,
    /// Size of the files that are to be created and have none of their own
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub size: Option<u64>,
    /// Also when something is on the new devices, which is lost, or when they bear the loss of fewer devices than the pool does
    #[arg(long)]
    pub force: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Name the new devices in the configuration file, which is written anew
    #[arg(long)]
    pub update_config: bool,
}

#[derive(Debug, Args)]
pub struct Replace {
    /// The device that goes
    pub device: String,
    /// The one that comes: `PATH[:SIZE]`; a file that does not exist is created [default: what is at the path of the old one now]
    pub new: Option<String>,
    /// Also when something is on the new device, which is lost
    #[arg(long)]
    pub force: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Leave the copying to the commands and programs that open the pool for writing from now on
    #[arg(long)]
    pub no_wait: bool,
    /// Name the new device in the configuration file, which is written anew
    #[arg(long)]
    pub update_config: bool,
}

#[derive(Debug, Args)]
pub struct Send {
    /// The snapshot; several that were made at one instant arrive at one instant, too
    #[arg(required = true, value_name = "SNAPSHOT", value_parser = snapshot_name())]
    pub snapshots: Vec<SnapshotName>,
    /// Only what changed since this earlier snapshot, which the receiver has: DATASET@NAME or STORE@NAME, or @NAME of the same
    #[arg(short = 'i', long = "from", value_name = "SNAPSHOT", value_parser = bytes())]
    pub from: Option<Bytes>,
    /// Go on where an earlier stream of the same snapshots was interrupted: a token of `receive --status`
    #[arg(long, value_name = "TOKEN")]
    pub resume: Option<ResumeToken>,
    /// none, lz4, zstd or zstd:LEVEL (1 to 22)
    #[arg(long, value_parser = compression, default_value = "none")]
    pub compression: Compression,
    /// Say about how much there is, and send nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Of object stores, also where a dataset has the name
    #[arg(long)]
    pub store: bool,
}

#[derive(Debug, Args)]
pub struct Receive {
    /// The dataset or object store, as the stream says: a new one for a snapshot that was sent whole, the one that has the
    /// snapshot before for changes. For a stream of several, as many names, in the order in which they were sent
    #[arg(value_name = "DATASET|STORE", value_parser = bytes(), required_unless_present = "status")]
    pub names: Vec<Bytes>,
    /// Go back to the snapshot that the changes start from, or replace the dataset or store: what is later, or there, is lost
    #[arg(short = 'F', long, conflicts_with_all = ["status", "abort"])]
    pub force: bool,
    /// Read the stream, check that it is whole, say what it is, and change nothing
    #[arg(short = 'n', long, conflicts_with_all = ["status", "abort"])]
    pub dry_run: bool,
    /// List what was received in part, with the tokens that `send --resume` takes
    #[arg(long, conflicts_with = "abort")]
    pub status: bool,
    /// Give back what was received in part; the dataset or store stays as it is
    #[arg(long)]
    pub abort: bool,
    /// With --abort: into an object store, also where the name is that of a dataset that something is received into
    #[arg(long, requires = "abort")]
    pub store: bool,
}

#[derive(Debug, Args)]
pub struct Check {
    /// Also read large values, read all contents twice, and see that no byte changed
    #[arg(long)]
    pub deep: bool,
    /// Put right what cannot lose data: leaks, recorded counts, superblock slots with a good copy
    #[arg(long)]
    pub repair: bool,
    /// With --repair: say what would be done, and do nothing
    #[arg(long, requires = "repair")]
    pub dry_run: bool,
    /// List at most so many findings; all are counted
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub limit: usize,
}

#[derive(Debug, Args)]
pub struct Recover {
    /// List the checkpoints that the superblocks name
    #[arg(long, required_unless_present = "generation", conflicts_with = "generation")]
    pub list_generations: bool,
    /// The checkpoint to look at, without the log behind it
    #[arg(long, value_name = "N", requires = "readonly")]
    pub generation: Option<u64>,
    /// Change nothing; a checkpoint cannot be opened in any other way
    #[arg(long)]
    pub readonly: bool,
    #[command(subcommand)]
    pub command: Option<RecoverCommand>,
}

#[derive(Debug, Subcommand)]
pub enum RecoverCommand {
    /// Print the entries of a dataset; without it, the names of the datasets
    Dump {
        /// Its name
        #[arg(value_name = "DATASET", value_parser = bytes())]
        name: Bytes,
        /// Form of a line
        #[arg(long, value_enum, default_value_t)]
        format: DumpFormat,
    },
}

#[derive(Debug, Args)]
pub struct Salvage {
    /// The folder for the files, which is new or empty
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Read this checkpoint, without the log behind it [default: the newest that is readable, with the log]
    #[arg(long, value_name = "N")]
    pub generation: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Create the pool and an empty database on it
    Init(Init),
    /// What is wrong, since when, and what to do; size, checkpoint, devices
    Status,
    /// Free and used space of each tier
    Space,
    /// Names of the datasets
    ListDatasets,
    /// What the superblock and label slots of every device hold; -v: the empty ones too
    DumpSuperblock,
    /// Entries of the root tree, as of the newest checkpoint
    ListRoot,
}

#[derive(Debug, Args)]
pub struct Init {
    /// Vdevs of a pool where there is no configuration yet, as `zpool create` takes them: `/a mirror /b /c slow parity1 ./d ./e ./f`.
    /// The first ones are of the tier fastest, those behind fast, slow or slowest of that one, and
    /// those behind spare wait for a device that is lost
    #[arg(value_name = "WORD")]
    pub words: Vec<String>,
    /// A vdev of a tier, the same in another form; may be repeated. TIER is fastest, fast, slow or slowest;
    /// VDEV is `PATH[:SIZE]`, mem:SIZE, or mirror:, parity1:, parity2: before several of them with commas between
    #[arg(long = "tier", value_name = "TIER=VDEV")]
    pub tiers: Vec<String>,
    /// Size of the files that are to be created and have none of their own
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub size: Option<u64>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Also over an existing pool, which is lost
    #[arg(long)]
    pub force: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Debug, Subcommand)]
pub enum DatasetCommand {
    /// Create a dataset
    Create(Create),
    /// Names and sizes
    List,
    /// Give a dataset another name
    Rename {
        /// Its name
        #[arg(value_name = "DATASET", value_parser = bytes())]
        name: Bytes,
        /// The new one
        #[arg(value_parser = bytes())]
        new_name: Bytes,
    },
    /// Destroy a dataset and all that is in it
    Destroy {
        /// Its name
        #[arg(value_name = "DATASET", value_parser = bytes())]
        name: Bytes,
        /// Say what would be lost, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Shape and size of the tree
    Stats {
        /// Its name
        #[arg(value_name = "DATASET", value_parser = bytes())]
        name: Bytes,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    /// Its name
    #[arg(value_name = "DATASET", value_parser = bytes())]
    pub name: Bytes,
    /// When runs are merged: lazy-leveled, tiered (cheapest writes) or leveled (cheapest reads)
    #[arg(long, value_name = "POLICY", value_parser = merge_policy)]
    pub merge_policy: Option<MergePolicy>,
    /// Slots of a node before it splits
    #[arg(long, value_name = "COUNT")]
    pub fanout: Option<usize>,
    /// Size of a data block, a multiple of 4 KiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub block_size: Option<u64>,
    /// Values from this size on lie in blocks of their own, written once however often the tree merges
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub large_value_size: Option<u64>,
    /// Size of the largest leaf
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub leaf_size: Option<u64>,
    /// none, lz4, zstd or zstd:LEVEL (1 to 22)
    #[arg(long, value_parser = compression)]
    pub compression: Option<Compression>,
    /// Where its data goes: fastest, fast, slow, slowest, none, or 0 to 3
    #[arg(long, alias = "storage-preference", value_name = "TIER", value_parser = preference)]
    pub preference: Option<StoragePreference>,
}

#[derive(Debug, Args)]
pub struct Snapshots {
    /// Of object stores, also where a dataset has the name
    #[arg(long, global = true)]
    pub store: bool,
    #[command(subcommand)]
    pub command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Make a snapshot; of several datasets and stores at one instant, when they get the same name
    Create {
        /// The snapshots
        #[arg(required = true, value_name = "SNAPSHOT", value_parser = snapshot_name())]
        snapshots: Vec<SnapshotName>,
    },
    /// Names, times and sizes
    List {
        /// Only those of this dataset or store
        #[arg(value_name = "DATASET|STORE", value_parser = bytes())]
        name: Option<Bytes>,
    },
    /// Destroy snapshots, in any order
    Destroy {
        /// The snapshots
        #[arg(required = true, value_name = "SNAPSHOT", value_parser = snapshot_name())]
        snapshots: Vec<SnapshotName>,
        /// Say what would be lost, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Make the dataset or store what it was in a snapshot
    Rollback {
        /// The snapshot
        #[arg(value_parser = snapshot_name())]
        snapshot: SnapshotName,
        /// Destroy later snapshots, which are in the way otherwise
        #[arg(short, long)]
        force: bool,
        /// Say what would be lost, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Print the keys, or the names of objects, that were added (+), removed (-) or changed (M) since a snapshot, in order
    Diff {
        /// The snapshot
        #[arg(value_parser = snapshot_name())]
        snapshot: SnapshotName,
        /// A later snapshot, or a dataset or store as it is now [default: that of the snapshot]
        #[arg(value_name = "SNAPSHOT|DATASET|STORE", value_parser = bytes())]
        later: Option<Bytes>,
        /// How keys are written in the output
        #[arg(long, value_enum, value_name = "ENCODING", default_value_t)]
        key_enc: Encoding,
    },
    /// Keep a snapshot from being destroyed until the tag is released
    Hold {
        /// Says who needs it
        #[arg(value_parser = bytes())]
        tag: Bytes,
        /// The snapshot
        #[arg(value_parser = snapshot_name())]
        snapshot: SnapshotName,
    },
    /// Take a hold back
    Release {
        /// The tag of the hold
        #[arg(value_parser = bytes())]
        tag: Bytes,
        /// The snapshot
        #[arg(value_parser = snapshot_name())]
        snapshot: SnapshotName,
    },
    /// Give a snapshot another name
    Rename {
        /// The snapshot
        #[arg(value_parser = snapshot_name())]
        snapshot: SnapshotName,
        /// The new name, with or without what is before the @
        #[arg(value_parser = bytes())]
        new_name: Bytes,
    },
    /// Destroy the snapshots of a dataset or store that none of the numbers keeps; what is held or cloned always stays
    Prune(Prune),
}

#[derive(Debug, Args)]
pub struct Prune {
    /// The dataset or store
    #[arg(value_name = "DATASET|STORE", value_parser = bytes())]
    pub name: Bytes,
    #[command(flatten)]
    pub keep: Keep,
    /// Say what would be kept and destroyed, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// How many snapshots to keep, at least one in all.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Keep {
    /// Keep the newest N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_last: Option<u32>,
    /// Keep the newest of each of the last N hours that have a snapshot (in UTC, as all that follow)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_hourly: Option<u32>,
    /// Keep the newest of each of the last N days that have one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_daily: Option<u32>,
    /// Keep the newest of each of the last N weeks, from Monday on, that have one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_weekly: Option<u32>,
    /// Keep the newest of each of the last N months that have one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_monthly: Option<u32>,
    /// Keep the newest of each of the last N years that have one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_yearly: Option<u32>,
}

#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub struct Kv {
    /// The dataset; for commands that only read, also a snapshot: DATASET@NAME
    #[arg(value_parser = OsStringValueParser::new().map(unshield))]
    pub dataset: Bytes,
    /// How keys are written here and in the output
    #[arg(long, global = true, value_enum, value_name = "ENCODING", default_value_t)]
    pub key_enc: Encoding,
    /// How values are written here and in the output
    #[arg(long, global = true, value_enum, value_name = "ENCODING", default_value_t)]
    pub value_enc: Encoding,
    /// Where what is written goes: fastest, fast, slow, slowest, none, or 0 to 3
    #[arg(long, alias = "preference", global = true, value_name = "TIER", value_parser = preference)]
    pub storage_preference: Option<StoragePreference>,
    #[command(subcommand)]
    pub command: KvCommand,
}

#[derive(Debug, Subcommand)]
pub enum KvCommand {
    /// Set the value of a key; creates the dataset when it does not exist
    Put {
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        key: Bytes,
        /// Without it, the value is read from standard input, to the byte
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        value: Option<Bytes>,
    },
    /// Print the value of a key, to the byte
    Get {
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        key: Bytes,
    },
    /// Delete a key
    Del {
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        key: Bytes,
    },
    /// Print the keys in order; -v: with their values
    List {
        #[command(flatten)]
        selection: Selection,
        /// At most so many
        #[arg(long, value_name = "COUNT")]
        limit: Option<u64>,
        /// From the largest key down
        #[arg(long)]
        reverse: bool,
        /// Print the values too
        #[arg(long)]
        with_value: bool,
    },
    /// Delete all keys from FROM up to, but not including, TO
    RangeDel {
        /// First key; without it or when it is empty, from the start
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        from: Option<Bytes>,
        /// The first key that stays; without it, to the end
        #[arg(value_parser = bytes(), allow_negative_numbers = true)]
        to: Option<Bytes>,
        /// Say what would be lost, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Print the number of keys
    Count {
        #[command(flatten)]
        selection: Selection,
    },
    /// Read entries; creates the dataset when it does not exist
    Load(Load),
    /// Print entries in the order of their keys, so that load can read them
    Dump {
        #[command(flatten)]
        selection: Selection,
        /// A file that does not exist yet [default: standard output]
        file: Option<PathBuf>,
        /// Form of a line
        #[arg(long, value_enum, default_value_t)]
        format: DumpFormat,
    },
    /// Print nodes, slots and runs as JSON
    TreeDump,
}

#[derive(Debug, Args)]
pub struct Selection {
    /// Only keys that start so
    #[arg(long, value_name = "KEY", value_parser = bytes(), conflicts_with_all = ["from", "to"])]
    pub prefix: Option<Bytes>,
    /// The first key
    #[arg(long, value_name = "KEY", value_parser = bytes())]
    pub from: Option<Bytes>,
    /// The first key that is left out
    #[arg(long, value_name = "KEY", value_parser = bytes())]
    pub to: Option<Bytes>,
}

#[derive(Debug, Args)]
pub struct Load {
    /// The file; - or nothing: standard input
    pub file: Option<PathBuf>,
    /// Form of a line [default: tsv, or raw with any of the options below]
    #[arg(long, value_enum)]
    pub format: Option<LoadFormat>,
    /// raw: what stands between fields, one byte (\t for a tab); without it, a line is one field
    #[arg(long, value_name = "BYTE", value_parser = delimiter)]
    pub delimiter: Option<u8>,
    /// raw: the field that is the key, from 1; the others are the value
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), requires = "delimiter")]
    pub key_field: Option<u32>,
    /// raw: the value is the whole line, key included
    #[arg(long)]
    pub whole_line: bool,
}

/// Form of a line that `dump` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum DumpFormat {
    /// Key, tab, value; \\ \t \n \r \xNN stand for what cannot be there
    #[default]
    Tsv,
    /// {"key": …, "value": …}; bytes that are not UTF-8 as {"hex": "…"}
    Jsonl,
}

/// Form of a line that `load` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LoadFormat {
    /// Key, tab, value; \\ \t \n \r \xNN stand for what cannot be there
    Tsv,
    /// {"key": …, "value": …}; bytes that are not UTF-8 as {"hex": "…"}
    Jsonl,
    /// Bytes as they are, without escapes
    Raw,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// The configuration that a command would use, environment included
    PrintActive,
    /// The configuration without any file
    PrintDefault,
    /// Check a file
    Validate {
        /// The file
        file: PathBuf,
    },
}

/// Bytes of an argument. An own type, because clap would take `Vec<u8>` for several arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

fn bytes() -> impl clap::builder::TypedValueParser<Value = Bytes> {
    OsStringValueParser::new().map(|argument| Bytes(argument.into_vec()))
}

/// `DATASET@NAME` or `STORE@NAME`. The last `@` ends the name of the dataset or store: that of a snapshot has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotName {
    /// The dataset or store.
    pub dataset: Vec<u8>,
    /// The snapshot of it.
    pub name: Vec<u8>,
}

impl SnapshotName {
    /// `None` for bytes that name no snapshot.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let at = bytes.iter().rposition(|byte| *byte == b'@')?;
        let (dataset, name) = (bytes[..at].to_vec(), bytes[at + 1..].to_vec());
        (!dataset.is_empty() && !name.is_empty()).then_some(Self { dataset, name })
    }

    /// All of it, as it is written.
    pub fn bytes(&self) -> Vec<u8> {
        [&self.dataset[..], b"@", &self.name].concat()
    }
}

fn snapshot_name() -> impl clap::builder::TypedValueParser<Value = SnapshotName> {
    let parse = |argument: OsString| SnapshotName::parse(argument.as_bytes());
    OsStringValueParser::new()
        .try_map(move |argument| parse(argument).ok_or("a snapshot is written DATASET@NAME"))
}

fn size(text: &str) -> Result<u64, String> {
    betree::base::units::parse_bytes(text)
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if *byte != b'\n' => Ok(*byte),
        b"\\t" => Ok(b'\t'),
        _ => Err("one byte, or \\t".into()),
    }
}

/// Reads a storage preference: a name in any case, or 0 to 3.
fn preference(text: &str) -> Result<StoragePreference, String> {
    let all = [
        StoragePreference::FASTEST,
        StoragePreference::FAST,
        StoragePreference::SLOW,
        StoragePreference::SLOWEST,
        StoragePreference::NONE,
    ];
    let is_meant = |preference: &StoragePreference| {
        let number = preference.class().map(|class| class.to_string());
        preference.to_string().eq_ignore_ascii_case(text) || number.as_deref() == Some(text)
    };
    all.into_iter().find(is_meant).ok_or_else(|| "fastest, fast, slow, slowest, none, or 0 to 3".into())
}

fn merge_policy(text: &str) -> Result<MergePolicy, String> {
    match text.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
        "lazyleveled" => Ok(MergePolicy::LazyLeveled),
        "tiered" => Ok(MergePolicy::Tiered),
        "leveled" => Ok(MergePolicy::Leveled),
        _ => Err("lazy-leveled, tiered or leveled".into()),
    }
}

fn compression(text: &str) -> Result<Compression, String> {
    let lower = text.to_ascii_lowercase();
    let level = match lower.as_str() {
        "none" => return Ok(Compression::None),
        "lz4" => return Ok(Compression::Lz4),
        "zstd" => Some(1),
        other => other.strip_prefix("zstd:").and_then(|level| level.parse().ok()),
    };
    match level {
        Some(level @ 1..=22) => Ok(Compression::Zstd { level }),
        _ => Err("none, lz4, zstd or zstd:LEVEL with a level from 1 to 22".into()),
    }
}

/// Stands before the name of a dataset or store on its way through clap.
const SHIELD: u8 = 0x01;

fn unshield(argument: OsString) -> Bytes {
    let bytes = argument.into_vec();
    Bytes(bytes.strip_prefix(&[SHIELD]).map(<[u8]>::to_vec).unwrap_or(bytes))
}

impl CommandLine {
    /// Reads the arguments of the process; ends it for help and for what is wrong.
    pub fn read() -> Self {
        Self::parse_from(shield_names(std::env::args_os().collect()))
    }
}

/// Marks the dataset of `kv DATASET VERB …` and the store of `obj STORE VERB …`: clap would take one with the name of a verb
/// (`kv list list`) for the verb. Puts the verb of `obj STORE meta NAME VERB …` before the name.
fn shield_names(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let root = CommandLine::command();
    let words = words_of(&root, &arguments);
    let is = |word: usize, text: &[u8]| words.get(word).is_some_and(|at| arguments[*at].as_bytes() == text);
    let is_object = is(0, b"obj") || is(0, b"object");
    if !is_object && !is(0, b"kv") {
        return arguments;
    }
    let is_verb = |word: usize| META_VERBS.iter().any(|verb| is(word, verb));
    let turn = is_object && is(2, b"meta") && !is_verb(3) && is_verb(4);
    if let (true, [_, _, _, name, verb, ..]) = (turn, &words[..]) {
        arguments.swap(*name, *verb);
    }
    if let Some(at) = words.get(1) {
        let mut shielded = vec![SHIELD];
        shielded.extend_from_slice(arguments[*at].as_bytes());
        arguments[*at] = OsString::from_vec(shielded);
    }
    arguments
}

/// Where the first words are that are no options or values of them, up to `--`.
fn words_of(root: &clap::Command, arguments: &[OsString]) -> Vec<usize> {
    let nouns = ["kv", "obj"].into_iter().filter_map(|noun| root.find_subcommand(noun));
    let with_value: Vec<_> = root
        .get_arguments()
        .chain(nouns.flat_map(clap::Command::get_arguments))
        .filter(|option| option.get_action().takes_values())
        .collect();
    let takes_value = |option: &[u8]| match option {
        [b'-', b'-', name @ ..] => {
            let is_named = |long: &str| long.as_bytes() == name;
            with_value.iter().any(|option| {
                let aliases = option.get_all_aliases().unwrap_or_default();
                option.get_long().into_iter().chain(aliases).any(is_named)
            })
        }
        // Of several short options in one argument, the first that takes a value takes the rest of it, if there is any.
        [b'-', letters @ ..] => {
            let is_valued = |letter: u8| {
                let letter = char::from(letter);
                with_value.iter().any(|option| {
                    let aliases = option.get_all_short_aliases().unwrap_or_default();
                    option.get_short().into_iter().chain(aliases).any(|short| short == letter)
                })
            };
            letters.iter().position(|letter| is_valued(*letter)).is_some_and(|at| at + 1 == letters.len())
        }
        _ => false,
    };
    let mut words = Vec::new();
    let mut index = 1;
    while let Some(argument) = arguments.get(index).map(|argument| argument.as_bytes()) {
        if argument == b"--" {
            break;
        }
        if argument.len() > 1 && argument.starts_with(b"-") {
            index += if takes_value(argument) { 2 } else { 1 };
            continue;
        }
        words.push(index);
        index += 1;
    }
    words
}

impl Command {
    /// The words of the command: `kv list`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Check(_) => "check",
            Self::Scrub(ScrubCommand::Start) => "scrub start",
            Self::Scrub(ScrubCommand::Stop) => "scrub stop",
            Self::Scrub(ScrubCommand::Status) => "scrub status",
            Self::Vdev(VdevCommand::List) => "vdev list",
            Self::Vdev(VdevCommand::Offline { .. }) => "vdev offline",
            Self::Vdev(VdevCommand::Online { .. }) => "vdev online",
            Self::Vdev(VdevCommand::Replace(_)) => "vdev replace",
            Self::Vdev(VdevCommand::Add(_)) => "vdev add",
            Self::Vdev(VdevCommand::Clear { .. }) => "vdev clear",
            Self::Vdev(VdevCommand::Remove(_)) => "vdev remove",
            Self::Recover(_) => "recover",
            Self::Salvage(_) => "salvage",
            Self::Db(DbCommand::Init(_)) => "db init",
            Self::Db(DbCommand::Status) => "db status",
            Self::Db(DbCommand::Space) => "db space",
            Self::Db(DbCommand::ListDatasets) => "db list-datasets",
            Self::Db(DbCommand::DumpSuperblock) => "db dump-superblock",
            Self::Db(DbCommand::ListRoot) => "db list-root",
            Self::Dataset(DatasetCommand::Create(_)) => "dataset create",
            Self::Dataset(DatasetCommand::List) => "dataset list",
            Self::Dataset(DatasetCommand::Rename { .. }) => "dataset rename",
            Self::Dataset(DatasetCommand::Destroy { .. }) => "dataset destroy",
            Self::Dataset(DatasetCommand::Stats { .. }) => "dataset stats",
            Self::Snapshot(snapshots) => match snapshots.command {
                SnapshotCommand::Create { .. } => "snapshot create",
                SnapshotCommand::List { .. } => "snapshot list",
                SnapshotCommand::Destroy { .. } => "snapshot destroy",
                SnapshotCommand::Rollback { .. } => "snapshot rollback",
                SnapshotCommand::Diff { .. } => "snapshot diff",
                SnapshotCommand::Hold { .. } => "snapshot hold",
                SnapshotCommand::Release { .. } => "snapshot release",
                SnapshotCommand::Rename { .. } => "snapshot rename",
                SnapshotCommand::Prune(_) => "snapshot prune",
            },
            Self::Store(StoreCommand::Create { .. }) => "store create",
            Self::Store(StoreCommand::List) => "store list",
            Self::Store(StoreCommand::Rename { .. }) => "store rename",
            Self::Store(StoreCommand::Destroy { .. }) => "store destroy",
            Self::Store(StoreCommand::Stats { .. }) => "store stats",
            Self::Obj(obj) => match obj.command {
                ObjCommand::Put(_) => "obj put",
                ObjCommand::Get { .. } => "obj get",
                ObjCommand::Cat { .. } => "obj cat",
                ObjCommand::List(_) => "obj list",
                ObjCommand::Stat { .. } => "obj stat",
                ObjCommand::Del { .. } => "obj del",
                ObjCommand::Mv(_) => "obj mv",
                ObjCommand::Cp(_) => "obj cp",
                ObjCommand::Write { .. } => "obj write",
                ObjCommand::Truncate { .. } => "obj truncate",
                ObjCommand::Meta(MetaCommand::Get { .. }) => "obj meta get",
                ObjCommand::Meta(MetaCommand::Set { .. }) => "obj meta set",
                ObjCommand::Meta(MetaCommand::Del { .. }) => "obj meta del",
                ObjCommand::Meta(MetaCommand::List { .. }) => "obj meta list",
                ObjCommand::Import(_) => "obj import",
                ObjCommand::Export(_) => "obj export",
            },
            Self::Clone { .. } => "clone",
            Self::Promote { .. } => "promote",
            Self::Send(_) => "send",
            Self::Receive(_) => "receive",
            Self::Kv(kv) => match kv.command {
                KvCommand::Put { .. } => "kv put",
                KvCommand::Get { .. } => "kv get",
                KvCommand::Del { .. } => "kv del",
                KvCommand::List { .. } => "kv list",
                KvCommand::RangeDel { .. } => "kv range-del",
                KvCommand::Count { .. } => "kv count",
                KvCommand::Load(_) => "kv load",
                KvCommand::Dump { .. } => "kv dump",
                KvCommand::TreeDump => "kv tree-dump",
            },
            Self::Config(ConfigCommand::PrintActive) => "config print-active",
            Self::Config(ConfigCommand::PrintDefault) => "config print-default",
            Self::Config(ConfigCommand::Validate { .. }) => "config validate",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<CommandLine, clap::Error> {
        let words = std::iter::once("bectl").chain(words.split(' ')).map(OsString::from).collect();
        CommandLine::try_parse_from(shield_names(words))
    }

    fn dataset_of(words: &str) -> Vec<u8> {
        match parse(words).unwrap().command {
            Command::Kv(kv) => kv.dataset.0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_dataset_may_have_the_name_of_a_verb() {
        for words in [
            "kv list list",
            "kv list list -v",
            "-c x kv list count",
            "-jc x kv list count",
            "-cx kv list count",
            "--color never kv --key-enc hex list get 00",
            "--color=never -v kv list get 00",
            "-d x kv --preference 3 list put a b",
        ] {
            assert_eq!(dataset_of(words), b"list", "{words}");
        }
        assert_eq!(dataset_of("kv help list"), b"help");
        assert_eq!(dataset_of("kv \u{1}x list"), b"\x01x");
        assert_eq!(dataset_of("kv kv get kv"), b"kv");
        assert!(parse("kv list").is_err());
        assert!(parse("kv a lits").is_err());
        assert!(parse("kv").is_err());
    }

    #[test]
    fn a_store_may_have_the_name_of_a_verb() {
        let of = |words: &str| match parse(words).unwrap().command {
            Command::Obj(obj) => (obj.store.0, obj.command),
            other => panic!("{other:?}"),
        };
        for words in ["obj list list", "-c x object --name-enc hex list get 00", "obj list --tier 1 put a -"]
        {
            assert_eq!(of(words).0, b"list", "{words}");
        }
        // The verb of `meta` stands before or, as in Haura, behind the object.
        for words in ["obj s meta set name key value", "obj s -q meta name set key value"] {
            let (store, command) = of(words);
            let ObjCommand::Meta(MetaCommand::Set { name, key, value }) = command else {
                panic!("{command:?}")
            };
            let value = value.map(|value| value.0);
            assert_eq!((&store[..], &name.0[..], &key.0[..]), (&b"s"[..], &b"name"[..], &b"key"[..]));
            assert_eq!(value.as_deref(), Some(&b"value"[..]));
        }
        let (_, command) = of("obj s meta get get list");
        let ObjCommand::Meta(MetaCommand::Get { name, .. }) = command else { panic!("{command:?}") };
        assert_eq!(name.0, b"get");
        assert!(parse("obj s meta a b c").is_err());
        assert!(parse("obj s write name").is_err());
        assert!(parse("obj s del").is_err());
        assert!(parse("obj s del a --prefix b").is_err());
        assert!(parse("obj s list --delimiter / --from a").is_err());
    }

    #[test]
    fn global_options_stand_anywhere() {
        let before = parse("-c x -H -p -q --json kv a list").unwrap();
        let after = parse("kv a list -c x -H -p -q --json").unwrap();
        for line in [before, after] {
            let Global { config, json, no_header, parsable, quiet, .. } = line.global;
            assert_eq!(config, Some("x".into()));
            assert!(json && no_header && parsable && quiet);
        }
        assert!(parse("-q -v db status").is_err());
    }

    #[test]
    fn the_last_at_ends_the_name_of_a_dataset() {
        let parts = |text: &str| SnapshotName::parse(text.as_bytes()).map(|full| (full.dataset, full.name));
        assert_eq!(parts("a@b"), Some((b"a".to_vec(), b"b".to_vec())));
        assert_eq!(parts("a@b@c"), Some((b"a@b".to_vec(), b"c".to_vec())));
        for text in ["", "@", "a", "a@", "@b"] {
            assert_eq!(parts(text), None, "{text}");
        }
        assert_eq!(SnapshotName::parse(b"\xff@\0").unwrap().bytes(), b"\xff@\0");
        assert!(parse("snapshot destroy a").is_err());
        assert!(parse("snapshot create").is_err());
        assert!(parse("snapshot prune a").is_err());
        assert!(parse("snapshot prune a --keep-last 0").is_err());
        assert!(parse("snapshot prune a --keep-last 1 --keep-yearly 1").is_ok());
    }

    #[test]
    fn values_are_read() {
        assert_eq!(preference("Slow").unwrap(), StoragePreference::SLOW);
        assert_eq!(preference("3").unwrap(), StoragePreference::SLOWEST);
        assert_eq!(preference("none").unwrap(), StoragePreference::NONE);
        assert_eq!(compression("ZSTD:22").unwrap(), Compression::Zstd { level: 22 });
        assert_eq!(compression("zstd").unwrap(), Compression::Zstd { level: 1 });
        assert_eq!(merge_policy("LazyLeveled").unwrap(), MergePolicy::LazyLeveled);
        assert_eq!(delimiter("\\t").unwrap(), b'\t');
        for text in ["4", "254", "", "medium"] {
            assert!(preference(text).is_err(), "{text}");
        }
        for text in ["zstd:0", "zstd:23", "zstd:", "gzip"] {
            assert!(compression(text).is_err(), "{text}");
        }
        for text in ["", "ab", "\n", "é"] {
            assert!(delimiter(text).is_err(), "{text:?}");
        }
    }
}
