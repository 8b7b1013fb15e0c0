//! Sending: from snapshots to a stream.

use super::error::StreamError;
use super::format::{
    Base, Entry, FrameKind, Header, Position, SECTIONS_MAX, Section, SectionEnd, chain_append,
    encode_frame_head, put_entry,
};
use super::token::ResumeToken;
use crate::base::codec::Encoder;
use crate::base::compression::{Codec, Compression};
use crate::database::core::Core;
use crate::database::database::{Database, Handle};
use crate::database::error::{Error, Result};
use crate::database::snapshots::Snapshot;
use crate::tree::{Diff, Range, Written};
use std::io::Write;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// A frame of entries ends when its payload has this many bytes: enough for a hash to be fast, little enough to be lost by
/// an interruption.
const FRAME_BYTES: usize = 256 << 10;

/// How a stream is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct SendOptions<'a> {
    /// How frames are compressed.
    pub compression: Compression,
    /// Where an earlier stream of the same snapshots was interrupted.
    pub resume: Option<&'a ResumeToken>,
}

/// A snapshot of one dataset to be sent, and the earlier one that the receiver has; without one it is sent whole. The two of
/// an object store follow each other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendSection<'a> {
    /// What is sent.
    pub snapshot: &'a Snapshot,
    /// What the receiver has.
    pub from: Option<&'a Snapshot>,
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendReport {
    /// Keys with a value.
    pub puts: u64,
    /// Keys that are no longer there.
    pub deletes: u64,
    /// Bytes of these keys and values.
    pub data: u64,
    /// Bytes of the stream.
    pub bytes: u64,
    /// Bytes that all devices of the pool read meanwhile, also for others.
    pub read: u64,
}

impl Snapshot {
    /// Writes the snapshot to `output`: whole, or what has to be done to `from` to make this one of it. Reads only what the two
    /// do not share. The bytes are the same each time.
    ///
    /// # Errors
    /// [`StreamError::Write`] from `output`; a base of another database, or one that is not older; a token of another stream;
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for messages of an action that is not known here; device errors
    /// and damage. The stream ends early then.
    pub fn send(
        &self,
        from: Option<&Self>,
        options: &SendOptions<'_>,
        output: &mut (impl Write + ?Sized),
    ) -> Result<SendReport> {
        self.send_with(&[SendSection { snapshot: self, from }], options, output)
    }

    /// Sends `sections`, of which this is one.
    pub(crate) fn send_with(
        &self,
        sections: &[SendSection<'_>],
        options: &SendOptions<'_>,
        output: &mut (impl Write + ?Sized),
    ) -> Result<SendReport> {
        send(&self.handle, sections, options, output)
    }
}

impl Database {
    /// As [`Snapshot::send`], for several datasets whose snapshots were made at one instant.
    pub(crate) fn send_sections(
        &self,
        parts: &[SendSection<'_>],
        options: &SendOptions<'_>,
        output: &mut (impl Write + ?Sized),
    ) -> Result<SendReport> {
        send(self.handle(), parts, options, output)
    }

    /// About how many bytes each of `parts` is to read and to send: blocks of the whole snapshot, or those written since the
    /// other one. Only what is known of the snapshots is read.
    pub(crate) fn estimate_sections(&self, parts: &[SendSection<'_>]) -> Result<Vec<u64>> {
        check_parts(self.handle(), parts)?;
        let estimate = |part: &SendSection<'_>| {
            let generation = part.snapshot.generation();
            // Promoting a clone may have moved it.
            let dataset = self.core().home(part.snapshot.state(), part.snapshot.of_generation());
            let all = self.core().snapshots_of(&dataset)?;
            let mut all = all.iter().filter(|info| info.generation <= generation);
            Ok(match part.from.map(Snapshot::generation) {
                None => all.next_back().map_or(0, |info| info.referenced),
                Some(from) => all.filter(|info| info.generation > from).map(|info| info.written).sum(),
            })
        };
        parts.iter().map(estimate).collect()
    }
}

fn refused(what: &'static str, reason: String) -> Error {
    Error::InvalidArgument { what, reason }
}

/// What the stream says of a part.
fn section_of(part: &SendSection<'_>) -> Section {
    let tree = &part.snapshot.state().tree;
    let created = part.snapshot.created().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Section {
        role: part.snapshot.state().role,
        dataset: part.snapshot.dataset_name(),
        action: tree.action_name().to_owned(),
        compression: tree.options().compression,
        preference: tree.options().preference,
        snapshot: part.snapshot.name(),
        guid: part.snapshot.guid_bytes(),
        created,
        base: part.from.map(|from| Base { guid: from.guid_bytes(), name: from.name() }),
    }
}

fn check_parts(handle: &Arc<Handle>, parts: &[SendSection<'_>]) -> Result<()> {
    let Some(first) = parts.first() else {
        return Err(refused("snapshots", String::from("there are none")));
    };
    if parts.len() > SECTIONS_MAX {
        return Err(Error::TooLarge {
            what: "list of snapshots",
            length: parts.len() as u64,
            limit: SECTIONS_MAX as u64,
        });
    }
    for (index, part) in parts.iter().enumerate() {
        let snapshot = part.snapshot;
        snapshot.check_of(handle)?;
        if snapshot.generation() != first.snapshot.generation() || snapshot.name() != first.snapshot.name() {
            return Err(refused("snapshots", String::from("they are not of one instant")));
        }
        if parts[..index].iter().any(|other| other.snapshot.state().id == snapshot.state().id) {
            return Err(refused("snapshots", format!("{snapshot:?} is there twice")));
        }
        if let Some(from) = part.from {
            from.check_of(handle)?;
            if from.generation() >= snapshot.generation() {
                return Err(refused("snapshot", format!("{from:?} is not older than {snapshot:?}")));
            }
        }
    }
    Ok(())
}

/// What there is to send of a section.
enum Changes {
    Whole(Box<Range>),
    Since(Box<Diff>),
}

impl Changes {
    /// What follows `after`.
    fn new(part: &SendSection<'_>, after: Option<&[u8]>) -> Result<Self> {
        let low = after.map_or_else(Vec::new, |key| [key, &[0]].concat());
        let later = part.snapshot.tree().view();
        Ok(match part.from {
            None => Self::Whole(Box::new(later.range(low, None))),
            Some(from) => {
                let diff = Diff::starting_at(from.tree().view(), later, low);
                Self::Since(Box::new(diff.map_err(|error| part.snapshot.state().error(error))?))
            }
        })
    }

    fn next(&mut self, part: &SendSection<'_>) -> Result<Option<Written>> {
        let next = match self {
            Self::Whole(range) => range
                .next_preferred()
                .map(|next| next.map(|(key, value, preference)| (key, Some((value, preference))))),
            Self::Since(diff) => diff.next_written(),
        };
        next.transpose().map_err(|error| part.snapshot.state().error(error))
    }
}

/// A stream that is written.
struct Writer<'o, W: ?Sized> {
    output: &'o mut W,
    checksum: u32,
    position: Position,
    compression: Compression,
    report: SendReport,
}

impl<W: Write + ?Sized> Writer<'_, W> {
    fn write(&mut self, part: &[&[u8]]) -> Result<()> {
        for bytes in part {
            self.output.write_all(bytes).map_err(|error| StreamError::Write(Arc::new(error)))?;
            self.report.bytes += bytes.len() as u64;
        }
        self.position.chain = chain_append(&self.position.chain, part);
        Ok(())
    }

    fn frame(&mut self, kind: FrameKind, raw: &[u8]) -> Result<()> {
        let compressed = self.compression.compress(raw);
        let (codec, payload) = match &compressed {
            Some((codec, bytes)) => (*codec, bytes.as_slice()),
            None => (Codec::None, raw),
        };
        let (head, checksum) = encode_frame_head(kind, codec, raw.len(), payload, self.checksum);
        self.checksum = checksum;
        self.write(&[&head, payload])
    }
}

/// Bytes that the devices read so far.
fn read_bytes(core: &Core) -> u64 {
    core.pool.metrics().iter().map(|vdev| vdev.reads.bytes).sum()
}

fn send<W: Write + ?Sized>(
    handle: &Arc<Handle>,
    parts: &[SendSection<'_>],
    options: &SendOptions<'_>,
    output: &mut W,
) -> Result<SendReport> {
    check_parts(handle, parts)?;
    let core = handle.core();
    core.check_open()?;
    let read_before = read_bytes(core);
    let sections = parts.iter().map(section_of).collect();
    let mut header = Header { resumed: None, sections };
    if let Some(token) = options.resume {
        if token.stream != header.stream() || token.position.section as usize > parts.len() {
            let reason = String::from("its token is of a stream of other snapshots");
            return Err(StreamError::NotResumed { reason }.into());
        }
        header.resumed = Some(token.position.clone());
    }
    let start = header.resumed.clone().unwrap_or_default();
    let (first, mut after) = (start.section as usize, start.key.clone());
    let bytes = header.encode();
    let mut writer = Writer {
        output,
        checksum: u32::from_le_bytes(bytes.last_chunk().copied().unwrap_or_default()),
        position: start,
        compression: options.compression,
        report: SendReport::default(),
    };
    writer.write(&[&bytes])?;
    for (index, part) in parts.iter().enumerate().skip(first) {
        let before = writer.report;
        let mut changes = Changes::new(part, after.take().as_deref())?;
        let mut frame = Encoder::new();
        while let Some((key, value)) = changes.next(part)? {
            core.check_open()?;
            let (value, preference) = value.unzip();
            let length = key.len() + value.as_ref().map_or(0, |value| value.len());
            // A value that is large on its own does not share: a frame has room for one.
            if !frame.is_empty() && frame.len() + length > FRAME_BYTES {
                writer.frame(FrameKind::Entries, frame.as_slice())?;
                frame = Encoder::new();
            }
            let preference = preference.unwrap_or_default();
            put_entry(&mut frame, Entry { key: &key, value: value.as_deref(), preference });
            match value {
                Some(_) => writer.report.puts += 1,
                None => writer.report.deletes += 1,
            }
            writer.report.data += length as u64;
        }
        if !frame.is_empty() {
            writer.frame(FrameKind::Entries, frame.as_slice())?;
        }
        let end = SectionEnd {
            section: index as u32,
            puts: writer.report.puts - before.puts,
            deletes: writer.report.deletes - before.deletes,
        };
        writer.frame(FrameKind::SectionEnd, &end.encode())?;
    }
    let digest = writer.position.chain;
    writer.compression = Compression::None;
    writer.frame(FrameKind::End, &digest)?;
    writer.output.flush().map_err(|error| StreamError::Write(Arc::new(error)))?;
    let read = read_bytes(core) - read_before;
    Ok(SendReport { read, ..writer.report })
}
