//! Frozen bytes of the database: the root record in the superblock, and the records of the root tree.
//!
//! Root record (the superblock's payload), little-endian:
//!
//! | offset | bytes | field | unit | meaning | threat guarded |
//! |---|---|---|---|---|---|
//! | 0 | 2 | version | | 1 | format drift |
//! | 2 | 2 | flags | | 0 | unknown additions |
//! | 4 | 8 | generation | checkpoint | equals the superblock's | mixed superblocks |
//! | 12 | 8 | cut | sequence | the checkpoint holds exactly the messages up to it | double or missing replay |
//! | 20 | 8 | next dataset | id | never reused | ghosts of destroyed datasets |
//! | 28 | 8 | log epoch | count | of the log that the head belongs to | ghost records |
//! | 36 | 4+4 | table root | bytes, crc32c | of the allocation table's root | stale table |
//! | 44 | … | table root extents | | extent list | |
//! | … | … | root tree | | node pointer | |
//! | … | 4+… | log head | | length, bytes | |
//! | … | 4 | dead lists | count | 0: they are in the root tree | |
//! | … | 4 | indirect vdevs | count | 0: format room for evacuated vdevs | |
//!
//! Keys of the root tree (integers big-endian, so that they sort):
//!
//! | key | value |
//! |---|---|
//! | `1`, dataset id u64 | dataset record |
//! | `2` to `5`, `7` | snapshots and dead lists: `snapshots/format.rs` |
//! | `6`, dataset id u64, chunk u32 | a chunk of the dataset's pending drops |
//!
//! Dataset record: version u16, flags u16 (bit 0: destroyed; bits 1 and 2: role: 0 dataset, 1 metadata and 2 chunks of the
//! object store of that name; bit 3: a staging, which has the name of the dataset that it is for), name, action name (varint
//! length, bytes), created u64
//! (seconds since 1970), shape (policy u8, fan-out u32, leaf u64, buffer u64, runs per buffer u32, deltas per leaf u32,
//! delta ratio u32, block u32, large value u32, codec u8, level u8, preference u8), origin (dataset u64, generation u64 of the
//! snapshot that it was cloned from; 0 and 0 without one), newest snapshot u64 (generation; 0 without one), blocks u64 (that
//! its tree refers to), root present u8, root node pointer, and for a staging its state: `replication/format.rs`.
//!
//! Why this order: what an older reader must understand first stands first; what grows stands last.
//! History: version 1, the first.

use super::replication::Receiving;
use super::snapshots::Origin;
use crate::base::codec::{DecodeError, Decoder, Encoder};
use crate::base::compression::Compression;
use crate::base::ids::{DatasetId, Generation};
use crate::base::preference::StoragePreference;
use crate::dmu::{Dmu, DmuError, StoredExtents};
use crate::log::LogHead;
use crate::tree::{MergePolicy, NodeRef, TreeOptions};

const VERSION: u16 = 1;
/// Longest name of a dataset or message action, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 1024;

/// What a checkpoint's superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootRecord {
    pub generation: Generation,
    pub cut: u64,
    pub next_dataset: u64,
    pub epoch: u64,
    pub table_length: u32,
    pub table_checksum: u32,
    pub table_extents: StoredExtents,
    pub root_tree: NodeRef,
    pub log_head: LogHead,
}

impl RootRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u16(VERSION);
        out.u16(0);
        out.u64(self.generation.0);
        out.u64(self.cut);
        out.u64(self.next_dataset);
        out.u64(self.epoch);
        out.u32(self.table_length);
        out.u32(self.table_checksum);
        self.table_extents.encode(&mut out);
        self.root_tree.encode(&mut out);
        let mut head = Encoder::new();
        self.log_head.encode(&mut head);
        out.u32(head.len() as u32);
        out.raw(head.as_slice());
        out.u32(0);
        out.u32(0);
        out.finish()
    }

    /// Reads what [`RootRecord::encode`] wrote; `dmu` reads spilled extent lists.
    pub fn decode(bytes: &[u8], dmu: &Dmu) -> Result<Self, DmuError> {
        let plain = |source: DecodeError| DmuError::Decode { what: "root record", source };
        let mut input = Decoder::new(bytes);
        if input.u16("version").map_err(plain)? != VERSION {
            return Err(plain(input.invalid("version")));
        }
        if input.u16("flags").map_err(plain)? != 0 {
            return Err(plain(input.invalid("flags")));
        }
        let generation = input.generation("generation").map_err(plain)?;
        let cut = input.ordinal("cut").map_err(plain)?;
        let next_dataset = input.ordinal("next dataset").map_err(plain)?;
        let epoch = input.ordinal("log epoch").map_err(plain)?;
        let table_length = input.u32("table length").map_err(plain)?;
        let table_checksum = input.u32("table checksum").map_err(plain)?;
        let table_extents = StoredExtents::decode(&mut input, dmu)?;
        let root_tree = NodeRef::decode(&mut input, dmu)?;
        let length = input.count(4096, "log head length").map_err(plain)?;
        let mut head = Decoder::new(input.raw(length, "log head").map_err(plain)?);
        let log_head = LogHead::decode(&mut head).map_err(plain)?;
        for field in ["dead lists", "indirect vdevs"] {
            if input.u32(field).map_err(plain)? != 0 {
                return Err(plain(input.invalid(field)));
            }
        }
        input.finish("root record").map_err(plain)?;
        Ok(Self {
            generation,
            cut,
            next_dataset,
            epoch,
            table_length,
            table_checksum,
            table_extents,
            root_tree,
            log_head,
        })
    }
}

/// What a dataset is for. A name is taken by one dataset of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) enum Role {
    /// What its owner puts in.
    #[default]
    Dataset = 0,
    /// What an object store knows of its objects.
    Metadata = 1,
    /// What is in them.
    Chunks = 2,
}

impl Role {
    /// What callers know it as.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Dataset => "dataset",
            Self::Metadata | Self::Chunks => "object store",
        }
    }

    /// The word for one dataset of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dataset => "dataset",
            Self::Metadata => "metadata",
            Self::Chunks => "chunks",
        }
    }

    pub(super) fn from_bits(bits: u16) -> Option<Self> {
        [Self::Dataset, Self::Metadata, Self::Chunks].into_iter().find(|role| *role as u16 == bits)
    }
}

/// What the root tree says of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DatasetRecord {
    pub name: Vec<u8>,
    pub role: Role,
    pub action: String,
    /// Seconds since 1970.
    pub created: u64,
    pub options: TreeOptions,
    /// The dataset is gone; its record stays until its space is given back.
    pub destroyed: bool,
    /// The snapshot that it was cloned from.
    pub origin: Option<Origin>,
    /// Generation of its newest snapshot; 0 without one.
    pub newest: Generation,
    /// Blocks that its tree refers to.
    pub blocks: u64,
    /// `None` until the first checkpoint.
    pub root: Option<NodeRef>,
    /// What is being received into it; `None` for a dataset that is there.
    pub receiving: Option<Receiving>,
}

const DESTROYED: u16 = 1;
const ROLE_SHIFT: u32 = 1;
const STAGING: u16 = 8;

impl DatasetRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u16(VERSION);
        let flag = |on: bool, flag| if on { flag } else { 0 };
        let state = flag(self.destroyed, DESTROYED) | flag(self.receiving.is_some(), STAGING);
        out.u16(state | (self.role as u16) << ROLE_SHIFT);
        out.bytes(&self.name);
        out.bytes(self.action.as_bytes());
        out.u64(self.created);
        encode_options(&self.options, &mut out);
        out.u64(self.origin.map_or(0, |origin| origin.dataset.0));
        out.u64(self.origin.map_or(0, |origin| origin.snapshot.0));
        out.u64(self.newest.0);
        out.u64(self.blocks);
        out.u8(u8::from(self.root.is_some()));
        if let Some(root) = &self.root {
            root.encode(&mut out);
        }
        if let Some(receiving) = &self.receiving {
            receiving.encode(&mut out);
        }
        out.finish()
    }

    /// Whether it is a dataset that can be opened.
    pub fn is_named(&self) -> bool {
        !self.destroyed && self.receiving.is_none()
    }

    pub fn decode(bytes: &[u8], dmu: &Dmu) -> Result<Self, DmuError> {
        let plain = |source: DecodeError| DmuError::Decode { what: "dataset record", source };
        let mut input = Decoder::new(bytes);
        if input.u16("version").map_err(plain)? != VERSION {
            return Err(plain(input.invalid("version")));
        }
        let flags = input.u16("flags").map_err(plain)?;
        let (destroyed, staging) = (flags & DESTROYED != 0, flags & STAGING != 0);
        let role = Role::from_bits((flags & !STAGING) >> ROLE_SHIFT).filter(|_| !(destroyed && staging));
        let role = role.ok_or_else(|| plain(input.invalid("flags")))?;
        let name = input.bytes(NAME_BYTES_MAX, "name").map_err(plain)?.to_vec();
        let action = input.bytes(NAME_BYTES_MAX, "action").map_err(plain)?;
        let action = String::from_utf8(action.to_vec()).map_err(|_| plain(input.invalid("action")))?;
        let created = input.u64("created").map_err(plain)?;
        let options = decode_options(&mut input).map_err(plain)?;
        let dataset = DatasetId(input.u64("origin").map_err(plain)?);
        let snapshot = input.generation("origin").map_err(plain)?;
        let origin = match (dataset.0, snapshot.0) {
            (0, 0) => None,
            (0, _) | (_, 0) => return Err(plain(input.invalid("origin"))),
            _ => Some(Origin { dataset, snapshot }),
        };
        let newest = input.generation("newest snapshot").map_err(plain)?;
        let blocks = input.ordinal("blocks").map_err(plain)?;
        let root = match input.u8("root present").map_err(plain)? {
            0 => None,
            1 => Some(NodeRef::decode(&mut input, dmu)?),
            _ => return Err(plain(input.invalid("root present"))),
        };
        let receiving = staging.then(|| Receiving::decode(&mut input)).transpose().map_err(plain)?;
        input.finish("dataset record").map_err(plain)?;
        Ok(Self { name, role, action, created, options, destroyed, origin, newest, blocks, root, receiving })
    }
}

fn encode_options(options: &TreeOptions, out: &mut Encoder) {
    out.u8(match options.policy {
        MergePolicy::LazyLeveled => 0,
        MergePolicy::Tiered => 1,
        MergePolicy::Leveled => 2,
    });
    out.u32(options.fanout as u32);
    out.u64(options.leaf_bytes);
    out.u64(options.buffer_bytes);
    out.u32(options.runs_per_buffer as u32);
    out.u32(options.deltas_per_leaf as u32);
    out.u32(options.delta_ratio_percent as u32);
    out.u32(options.block_bytes as u32);
    out.u32(options.large_value_bytes as u32);
    let (codec, level) = match options.compression {
        Compression::None => (0, 0),
        Compression::Lz4 => (1, 0),
        Compression::Zstd { level } => (2, level),
    };
    out.u8(codec);
    out.u8(level);
    out.u8(options.preference.as_u8());
}

fn decode_options(input: &mut Decoder<'_>) -> Result<TreeOptions, DecodeError> {
    let policy = match input.u8("policy")? {
        0 => MergePolicy::LazyLeveled,
        1 => MergePolicy::Tiered,
        2 => MergePolicy::Leveled,
        _ => return Err(input.invalid("policy")),
    };
    let bounded = |value: u64, low: u64, high: u64| (low..=high).contains(&value);
    let fanout = input.u32("fan-out")? as usize;
    let leaf_bytes = input.u64("leaf")?;
    let buffer_bytes = input.u64("buffer")?;
    let runs_per_buffer = input.u32("runs per buffer")? as usize;
    let deltas_per_leaf = input.u32("deltas per leaf")? as usize;
    let delta_ratio_percent = u64::from(input.u32("delta ratio")?);
    let block_bytes = input.u32("block")? as usize;
    let large_value_bytes = input.u32("large value")? as usize;
    let legal = bounded(fanout as u64, 2, 1 << 16)
        && bounded(leaf_bytes, 4096, 1 << 30)
        && bounded(buffer_bytes, 4096, 1 << 40)
        && bounded(runs_per_buffer as u64, 1, 1024)
        && bounded(deltas_per_leaf as u64, 1, 1024)
        && bounded(delta_ratio_percent, 1, 10_000)
        && bounded(block_bytes as u64, 4096, 1 << 20)
        && bounded(large_value_bytes as u64, 1, 1 << 20);
    if !legal {
        return Err(input.invalid("shape"));
    }
    let (codec, level) = (input.u8("codec")?, input.u8("level")?);
    let compression = match (codec, level) {
        (0, 0) => Compression::None,
        (1, 0) => Compression::Lz4,
        (2, 1..=22) => Compression::Zstd { level },
        _ => return Err(input.invalid("codec")),
    };
    let preference = StoragePreference::from_u8(input.u8("preference")?);
    let preference = preference.ok_or_else(|| input.invalid("preference"))?;
    Ok(TreeOptions {
        policy,
        fanout,
        leaf_bytes,
        buffer_bytes,
        runs_per_buffer,
        deltas_per_leaf,
        delta_ratio_percent,
        block_bytes,
        compression,
        preference,
        large_value_bytes,
    })
}

/// Prefix of the keys of dataset records.
pub(crate) const DATASETS: u8 = 1;
/// Prefix of the keys of pending drops.
pub(crate) const DROPS: u8 = 6;

/// Key of a dataset's record.
pub(crate) fn dataset_key(id: DatasetId) -> Vec<u8> {
    [&[DATASETS][..], &id.0.to_be_bytes()].concat()
}

/// Key of a chunk of a dataset's pending drops.
pub(crate) fn drops_key(id: DatasetId, chunk: u32) -> Vec<u8> {
    [&[DROPS][..], &id.0.to_be_bytes(), &chunk.to_be_bytes()].concat()
}

/// The dataset of a key of either kind; `None` when it is not one.
pub(crate) fn key_dataset(key: &[u8]) -> Option<DatasetId> {
    let id = key.get(1..9)?;
    let mut bytes = [0; 8];
    bytes.copy_from_slice(id);
    Some(DatasetId(u64::from_be_bytes(bytes)))
}
