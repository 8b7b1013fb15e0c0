//! Reading a stream: what is handed on is what was sent, as far as checksums tell, and in the order in which it was sent.

use super::error::StreamError;
use super::format::{
    Entry, FRAME_HEAD_BYTES, FrameHead, FrameKind, HEADER_BODY_BYTES_MAX, HEADER_HEAD_BYTES, Header,
    HeaderHead, Position, SectionEnd, VERSION, chain_append, decode_entries, frame_checksum,
};
use crate::base::checksum::crc;
use crate::base::compression::Codec;
use crate::base::planted::{Bug, planted};
use std::io::{ErrorKind, Read};
use std::sync::Arc;

/// What comes next in a stream.
#[derive(Debug)]
pub(in crate::database) enum Part {
    /// Entries of the section that is being read: the payload, which [`decode_entries`] has read.
    Entries(Vec<u8>),
    /// The section is there to its end.
    SectionEnd,
    /// The stream is there to its end, and its digest is right.
    End,
}

/// A stream that is read.
#[derive(Debug)]
pub(in crate::database) struct StreamReader<R> {
    input: R,
    header: Header,
    /// Bytes that were read.
    at: u64,
    checksum: u32,
    position: Position,
    /// What was read of the section.
    puts: u64,
    deletes: u64,
    /// Checksums were right, and the digest was not.
    tainted: bool,
}

/// Reads `length` bytes. Memory grows as they come: a length that is wrong costs none.
fn read_exactly(input: &mut impl Read, length: usize, at: &mut u64) -> Result<Vec<u8>, StreamError> {
    let mut buffer = Vec::new();
    let read = input.take(length as u64).read_to_end(&mut buffer);
    *at += buffer.len() as u64;
    match read {
        Ok(_) if buffer.len() == length => Ok(buffer),
        Ok(_) => Err(StreamError::Truncated { at: *at }),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(StreamError::Truncated { at: *at }),
        Err(error) => Err(StreamError::Read(Arc::new(error))),
    }
}

impl<R: Read> StreamReader<R> {
    /// Reads the header.
    pub fn new(mut input: R) -> Result<Self, StreamError> {
        let mut at = 0;
        let head = match read_exactly(&mut input, HEADER_HEAD_BYTES, &mut at) {
            Ok(head) => head,
            // Of something that is no stream, nobody wants to know where it ends; of nothing at all, one does.
            Err(StreamError::Truncated { at: 1.. }) => return Err(StreamError::Foreign),
            Err(error) => return Err(error),
        };
        let parsed =
            head.as_slice().try_into().ok().and_then(HeaderHead::decode).ok_or(StreamError::Foreign)?;
        if parsed.version > VERSION {
            return Err(StreamError::Newer { version: parsed.version, known: VERSION });
        }
        let damaged = |reason: String| StreamError::Damaged { at: 0, reason };
        if parsed.version == 0 || parsed.length > HEADER_BODY_BYTES_MAX {
            return Err(damaged(String::from("its header is none")));
        }
        let rest = read_exactly(&mut input, parsed.length + 4, &mut at)?;
        let (body, sum) = rest.split_at(parsed.length);
        let checksum = crc(&[&head, body].concat());
        if checksum.to_le_bytes() != *sum {
            return Err(damaged(String::from("the checksum of its header is wrong")));
        }
        let header = Header::decode_body(body, parsed.version, parsed.flags);
        let header = header.map_err(|error| damaged(error.to_string()))?;
        let start = header.resumed.clone().unwrap_or_default();
        let chain = chain_append(&start.chain, &[&head, &rest]);
        let position = Position { chain, bytes: start.bytes + at, ..start };
        Ok(Self { input, header, at, checksum, position, puts: 0, deletes: 0, tainted: false })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Behind what was read last.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Bytes that were read.
    pub fn bytes(&self) -> u64 {
        self.at
    }

    /// Whether what was handed on is not what was sent, although each part seemed to be.
    pub fn is_tainted(&self) -> bool {
        self.tainted
    }

    /// Reads the next part.
    pub fn next(&mut self) -> Result<Part, StreamError> {
        let start = self.at;
        let damaged = |reason: String| StreamError::Damaged { at: start, reason };
        let bytes = match read_exactly(&mut self.input, FRAME_HEAD_BYTES, &mut self.at) {
            Err(StreamError::Truncated { .. }) if planted(Bug::TakeUnfinished) => return Ok(Part::End),
            bytes => bytes?,
        };
        let whole: [u8; FRAME_HEAD_BYTES] =
            bytes.as_slice().try_into().map_err(|_| StreamError::Truncated { at: start })?;
        let head = FrameHead::decode(&whole).map_err(|error| damaged(error.to_string()))?;
        let payload = read_exactly(&mut self.input, head.length, &mut self.at)?;
        let checksum = frame_checksum(self.checksum, &whole[..12], &payload);
        if checksum != head.checksum {
            return Err(damaged(String::from("the checksum of a frame is wrong")));
        }
        let chain = chain_append(&self.position.chain, &[&whole, &payload]);
        let before = self.position.chain;
        let payload = match head.codec {
            Codec::None => payload,
            codec => {
                let mut raw = vec![0; head.raw_length];
                codec.decompress(&payload, &mut raw).map_err(|error| damaged(error.to_string()))?;
                raw
            }
        };
        let section = self.header.sections.get(self.position.section as usize);
        let (section, key, part) = match (head.kind, section) {
            (FrameKind::Entries, Some(section)) => {
                let entries = decode_entries(&payload).map_err(|error| damaged(error.to_string()))?;
                let last = self.check(&entries, section.base.is_some()).map_err(damaged)?;
                (self.position.section, Some(last), Part::Entries(payload))
            }
            (FrameKind::SectionEnd, Some(_)) => {
                let end = SectionEnd::decode(&payload).map_err(|error| damaged(error.to_string()))?;
                let section = self.position.section;
                if end != (SectionEnd { section, puts: self.puts, deletes: self.deletes }) {
                    return Err(damaged(String::from("a section has more entries than it says, or fewer")));
                }
                (self.puts, self.deletes) = (0, 0);
                (section + 1, None, Part::SectionEnd)
            }
            (FrameKind::End, None) => {
                if payload != before {
                    self.tainted = true;
                    return Err(StreamError::Damaged { at: 0, reason: String::from("its digest is wrong") });
                }
                (self.position.section, None, Part::End)
            }
            _ => return Err(damaged(String::from("a section is missing, or one too many"))),
        };
        self.checksum = checksum;
        self.position = Position { section, key, chain, bytes: self.position.bytes + (self.at - start) };
        Ok(part)
    }

    /// Checks the order of entries and counts them; returns the last key.
    fn check(&mut self, entries: &[Entry<'_>], has_base: bool) -> Result<Vec<u8>, String> {
        let mut last = self.position.key.as_deref();
        for Entry { key, value, .. } in entries {
            if last.is_some_and(|last| last >= *key) {
                return Err(String::from("its keys do not ascend"));
            }
            if value.is_none() && !has_base {
                return Err(String::from("it deletes keys of nothing"));
            }
            last = Some(key);
        }
        let last = last.filter(|_| !entries.is_empty()).ok_or("a frame is empty")?.to_vec();
        let puts = entries.iter().filter(|entry| entry.value.is_some()).count() as u64;
        self.puts += puts;
        self.deletes += entries.len() as u64 - puts;
        Ok(last)
    }
}
