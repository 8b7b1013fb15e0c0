//! A tree as a checker and a salvage see it: pointers and bytes, nothing opened that could not be.

use super::TreeError;
use super::action::Action;
use super::drops::{Dropping, NODE, RUN, decode_drop, encode_drop};
use super::format::NodeRef;
use super::resolve::Resolver;
use super::value::{Caching, Value};
use crate::base::codec::{DecodeError, Decoder, Encoder};
use crate::base::ids::Generation;
use crate::dmu::{Dmu, DmuError};
use crate::run::{EntryRef, RunRef};

/// The versions of one key, newest first, on the way to its value.
pub(crate) struct Versions(Resolver);

impl Versions {
    /// No version yet; those older than `deleted_before` do not count.
    pub(crate) fn new(deleted_before: u64) -> Self {
        let mut resolver = Resolver::new();
        resolver.delete_before(deleted_before);
        Self(resolver)
    }

    /// Takes the next older version, unless the value is known.
    pub(crate) fn push(&mut self, entry: EntryRef<'_>) {
        if !self.0.is_done() {
            let _whether_older_ones_matter = self.0.push(entry);
        }
    }

    /// Whether no older version matters.
    pub(crate) fn is_done(&self) -> bool {
        self.0.is_done()
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// A large value cannot be read; a message action is missing or panics.
    pub(crate) fn value(
        self,
        key: &[u8],
        dmu: &Dmu,
        action: Option<&Action>,
        name: &str,
    ) -> Result<Option<Value>, TreeError> {
        self.0.finish(key, dmu, action, name, |_| Caching::Bypass)
    }
}

/// What waits to be freed, as its record says.
#[derive(Debug)]
pub(crate) struct DropImage {
    /// The generation in which it was dropped.
    pub(crate) generation: Generation,
    /// What was born up to here does not die with it.
    pub(crate) floor: Generation,
    pub(crate) what: DroppedImage,
}

/// What was dropped.
#[derive(Debug)]
pub(crate) enum DroppedImage {
    /// A node and all that it reaches.
    Node(NodeRef),
    /// A run and the large values that it names.
    Run(RunRef),
}

/// The entries of one chunk of pending drops.
///
/// # Errors
/// Bytes that are not a chunk; a list of extents that cannot be read.
pub(crate) fn decode_drops(bytes: &[u8], dmu: &Dmu) -> Result<Vec<DropImage>, DmuError> {
    let plain = |source: DecodeError| DmuError::Decode { what: "pending drops", source };
    let mut input = Decoder::new(bytes);
    let mut drops = Vec::new();
    while input.remaining() > 0 {
        let (drop, kind) = decode_drop(&mut input).map_err(plain)?;
        let what = match kind {
            NODE => DroppedImage::Node(NodeRef::decode(&mut input, dmu)?),
            _ => {
                let mut reference = Decoder::new(input.bytes(1 << 20, "run pointer").map_err(plain)?);
                let run = RunRef::decode(&mut reference, dmu)?;
                reference.finish("run reference").map_err(plain)?;
                DroppedImage::Run(run)
            }
        };
        let Dropping { death: generation, floor } = drop;
        drops.push(DropImage { generation, floor, what });
    }
    Ok(drops)
}

/// The bytes of a chunk with these entries.
pub(crate) fn encode_drops(drops: &[DropImage]) -> Vec<u8> {
    let mut out = Encoder::new();
    for DropImage { generation, floor, what } in drops {
        let drop = Dropping { death: *generation, floor: *floor };
        match what {
            DroppedImage::Node(node) => {
                encode_drop(drop, NODE, &mut out);
                node.encode(&mut out);
            }
            DroppedImage::Run(run) => {
                let mut reference = Encoder::new();
                run.encode(&mut reference);
                encode_drop(drop, RUN, &mut out);
                out.bytes(reference.as_slice());
            }
        }
    }
    out.finish()
}
