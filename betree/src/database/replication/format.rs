//! Frozen bytes of replication: the stream, the token that says where one goes on, and what the record of a staging says.
//!
//! A stream is a header and frames, little-endian. Header:
//!
//! | offset | bytes | field | unit | meaning | threat guarded |
//! |---|---|---|---|---|---|
//! | 0 | 8 | magic | | `BETRSEND` | other files |
//! | 8 | 2 | version | | 2; 1 is read, too | format drift |
//! | 10 | 2 | flags | | bit 0: goes on where an earlier stream ended | unknown additions |
//! | 12 | 4 | length | bytes | of the body | |
//! | 16 | 16 | stream | | names what is sent: the first bytes of a blake3 hash of all guids | resuming with another stream |
//! | … | … | position | | with flag bit 0 only: where it goes on | gaps between two streams |
//! | … | … | sections | | varint count, each as below | |
//! | … | 4 | crc32c | | of all before | damage |
//!
//! Section: role u8 (0 a dataset, 1 the metadata and 2 the chunks of an object store; not in version 1), dataset name, action name
//! (varint length, bytes each), codec u8, level u8, preference u8 (of the dataset), snapshot name (varint length, bytes), guid (16
//! bytes), created u64 (seconds since 1970, below 2^63), base guid (16 bytes, zeros when the snapshot is sent whole), base name
//! (varint length, bytes). An object store is two sections, chunks behind metadata, of one name, one snapshot name and one base
//! name.
//!
//! Position: section u32, key present u8, key (varint length, bytes, when present: the last one that was sent), chain (32
//! bytes), bytes u64 (of stream, so far; below 2^63).
//!
//! Frame:
//!
//! | offset | bytes | field | unit | meaning | threat guarded |
//! |---|---|---|---|---|---|
//! | 0 | 1 | kind | | 1 entries, 2 end of a section, 3 end of the stream | |
//! | 1 | 1 | codec | | 0 none, 1 LZ4, 2 Zstandard | |
//! | 2 | 2 | reserved | | 0 | unknown additions |
//! | 4 | 4 | raw length | bytes | of the payload as it was | a payload that swells |
//! | 8 | 4 | length | bytes | of the payload as it stands here | |
//! | 12 | 4 | crc32c | | of the bytes of all frames before and of the header, without their checksums, then of the 12 bytes before and of the payload | damage; frames left out, moved, or of another stream |
//! | 16 | … | payload | | | |
//!
//! Payload of entries: each kind u8 (0 deleted, 1 put, 2 put with a preference), key (varint length, bytes), for kind 2 preference
//! u8, for a put value (varint length, bytes); keys ascend through all frames of a section. End of a section: section u32, puts u64, deletes u64 (in this stream). End of
//! the stream: the chain so far.
//!
//! The *chain* is the digest: 32 zero bytes at first, and then, for the header and for each frame, the blake3 hash of the
//! chain before and of all bytes of that part. A stream that goes on starts with the chain of its position, so that the
//! last digest covers what came before, too.
//!
//! Token: version u16 (1), flags u16 (0), stream (16 bytes), position, crc32c u32 of all before.
//!
//! State of a staging, at the end of its dataset record: stream (16 bytes), section u32, sections u32, guid and base guid (16
//! bytes each), snapshot name (varint length, bytes), position (that of section 0 counts).
//!
//! Why this order: who cannot read the version reads no further; checksums stand where everything that they cover is known.
//! History: version 1, the first. Version 2: roles of sections, for object stores; preferences of entries. The token and the state
//! of a staging stay what they were.

use crate::base::checksum::{crc, crc_append};
use crate::base::codec::{DecodeError, Decoder, Encoder};
use crate::base::compression::{Codec, Compression};
use crate::base::ids::Uuid;
use crate::base::preference::StoragePreference;
use crate::database::format::{NAME_BYTES_MAX, Role};
use crate::database::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::database::snapshots::SNAPSHOT_NAME_BYTES_MAX;

/// The newest version that is understood.
pub(crate) const VERSION: u16 = 2;
const TOKEN_VERSION: u16 = 1;
pub(crate) const MAGIC: &[u8; 8] = b"BETRSEND";
/// Bytes of a header before its body.
pub(crate) const HEADER_HEAD_BYTES: usize = 16;
/// Longest body of a header: that of the most sections, with the longest names and position.
pub(crate) const HEADER_BODY_BYTES_MAX: usize = 512 << 10;
/// Most sections of a stream.
pub(crate) const SECTIONS_MAX: usize = 64;
/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEAD_BYTES: usize = 16;
/// Longest payload of a frame: one entry of the longest key and value.
pub(crate) const PAYLOAD_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + 32;
const RESUMED: u16 = 1;

/// A digest of what was sent so far.
pub(crate) type Chain = [u8; 32];

/// The chain behind `part`.
pub(crate) fn chain_append(chain: &Chain, part: &[&[u8]]) -> Chain {
    let mut hasher = blake3::Hasher::new();
    hasher.update(chain);
    for bytes in part {
        hasher.update(bytes);
    }
    *hasher.finalize().as_bytes()
}

/// How far a stream was read, or where it goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub section: u32,
    /// The last key of the section that was sent; `None` before the first.
    pub key: Option<Vec<u8>>,
    pub chain: Chain,
    /// Bytes of stream before.
    pub bytes: u64,
}

impl Position {
    fn encode(&self, out: &mut Encoder) {
        out.u32(self.section);
        out.u8(u8::from(self.key.is_some()));
        if let Some(key) = &self.key {
            out.bytes(key);
        }
        out.raw(&self.chain);
        out.u64(self.bytes);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let section = input.u32("section")?;
        let key = match input.u8("key present")? {
            0 => None,
            1 => Some(input.bytes(KEY_BYTES_MAX, "key")?.to_vec()),
            _ => return Err(input.invalid("key present")),
        };
        let mut chain = Chain::default();
        chain.copy_from_slice(input.raw(32, "chain")?);
        let bytes = input.u64("bytes")?;
        // Whoever reads on adds to it.
        if i64::try_from(bytes).is_err() {
            return Err(input.invalid("bytes"));
        }
        Ok(Self { section, key, chain, bytes })
    }
}

/// The snapshot that changes start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    pub guid: Uuid,
    /// As it was called where the stream was made.
    pub name: Vec<u8>,
}

/// What a stream says of one dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub role: Role,
    pub dataset: Vec<u8>,
    pub action: String,
    pub compression: Compression,
    pub preference: StoragePreference,
    pub snapshot: Vec<u8>,
    pub guid: Uuid,
    /// Seconds since 1970.
    pub created: u64,
    /// `None` when the snapshot is sent whole.
    pub base: Option<Base>,
}

impl Section {
    fn encode(&self, out: &mut Encoder) {
        out.u8(self.role as u8);
        out.bytes(&self.dataset);
        out.bytes(self.action.as_bytes());
        let (codec, level) = match self.compression {
            Compression::None => (Codec::None, 0),
            Compression::Lz4 => (Codec::Lz4, 0),
            Compression::Zstd { level } => (Codec::Zstd, level),
        };
        out.u8(codec.tag());
        out.u8(level);
        out.u8(self.preference.as_u8());
        out.bytes(&self.snapshot);
        out.raw(&self.guid.0);
        out.u64(self.created);
        out.raw(&self.base.as_ref().map_or(Uuid::default(), |base| base.guid).0);
        out.bytes(self.base.as_ref().map_or(&[], |base| &base.name));
    }

    fn decode(input: &mut Decoder<'_>, version: u16) -> Result<Self, DecodeError> {
        let role =
            if version < 2 { Some(Role::Dataset) } else { Role::from_bits(u16::from(input.u8("role")?)) };
        let role = role.ok_or_else(|| input.invalid("role"))?;
        let dataset = input.bytes(NAME_BYTES_MAX, "dataset name")?.to_vec();
        let action = String::from_utf8(input.bytes(NAME_BYTES_MAX, "action name")?.to_vec());
        let action = action.map_err(|_| input.invalid("action name"))?;
        let (codec, level) = (input.u8("codec")?, input.u8("level")?);
        let compression = match (Codec::from_tag(codec), level) {
            (Some(Codec::None), 0) => Compression::None,
            (Some(Codec::Lz4), 0) => Compression::Lz4,
            (Some(Codec::Zstd), 1..=22) => Compression::Zstd { level },
            _ => return Err(input.invalid("codec")),
        };
        let preference = StoragePreference::from_u8(input.u8("preference")?);
        let preference = preference.ok_or_else(|| input.invalid("preference"))?;
        let snapshot = input.bytes(SNAPSHOT_NAME_BYTES_MAX, "snapshot name")?.to_vec();
        if snapshot.is_empty() || snapshot.contains(&b'@') {
            return Err(input.invalid("snapshot name"));
        }
        let guid = input.uuid("guid")?;
        let created = input.u64("created")?;
        if guid == Uuid::default() || i64::try_from(created).is_err() {
            return Err(input.invalid("snapshot"));
        }
        let base = input.uuid("base guid")?;
        let name = input.bytes(SNAPSHOT_NAME_BYTES_MAX, "base name")?.to_vec();
        let base = match (base == Uuid::default(), name.is_empty()) {
            (true, true) => None,
            (false, false) if base != guid => Some(Base { guid: base, name }),
            _ => return Err(input.invalid("base")),
        };
        Ok(Self { role, dataset, action, compression, preference, snapshot, guid, created, base })
    }

    /// Whether it is the other half of what `metadata` belongs to.
    fn is_chunks_of(&self, metadata: &Self) -> bool {
        let base = |section: &Self| section.base.as_ref().map(|base| base.name.clone());
        (metadata.role, self.role) == (Role::Metadata, Role::Chunks)
            && (&self.dataset, &self.snapshot, base(self))
                == (&metadata.dataset, &metadata.snapshot, base(metadata))
    }

    /// Whether it is the first one of a dataset or object store.
    pub fn is_first(&self) -> bool {
        self.role != Role::Chunks
    }
}

/// What a stream starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Where an earlier stream ended; `None` for a stream from the start.
    pub resumed: Option<Position>,
    pub sections: Vec<Section>,
}

impl Header {
    /// The name of what is sent: the same for every stream of the same snapshots from the same bases.
    pub fn stream(&self) -> Uuid {
        let mut hasher = blake3::Hasher::new();
        hasher.update(MAGIC);
        for section in &self.sections {
            hasher.update(&section.guid.0);
            hasher.update(&section.base.as_ref().map_or(Uuid::default(), |base| base.guid).0);
        }
        let mut stream = Uuid::default();
        stream.0.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        stream
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut body = Encoder::new();
        body.raw(&self.stream().0);
        if let Some(position) = &self.resumed {
            position.encode(&mut body);
        }
        body.varint(self.sections.len() as u64);
        self.sections.iter().for_each(|section| section.encode(&mut body));
        let mut out = Encoder::new();
        out.raw(MAGIC);
        out.u16(VERSION);
        out.u16(if self.resumed.is_some() { RESUMED } else { 0 });
        out.u32(body.len() as u32);
        out.raw(body.as_slice());
        out.u32(crc(out.as_slice()));
        out.finish()
    }

    /// Reads the body, whose checksum is right; `version` and `flags` stand before it.
    pub fn decode_body(bytes: &[u8], version: u16, flags: u16) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        if flags > RESUMED {
            return Err(input.invalid("flags"));
        }
        let stream = input.uuid("stream")?;
        let resumed = if flags == RESUMED { Some(Position::decode(&mut input)?) } else { None };
        let count = input.varint("sections")?;
        if count == 0 || count > SECTIONS_MAX as u64 {
            return Err(input.invalid("sections"));
        }
        let sections =
            (0..count).map(|_| Section::decode(&mut input, version)).collect::<Result<Vec<_>, _>>()?;
        input.finish("header")?;
        // Each metadata has its chunks behind it, and there are no other chunks.
        let is_whole = |(at, section): (usize, &Section)| match section.role {
            Role::Dataset => true,
            Role::Metadata => sections.get(at + 1).is_some_and(|next| next.is_chunks_of(section)),
            Role::Chunks => at > 0 && section.is_chunks_of(&sections[at - 1]),
        };
        if !sections.iter().enumerate().all(is_whole) {
            return Err(input.invalid("sections"));
        }
        let header = Self { resumed, sections };
        let beyond = header.resumed.as_ref().is_some_and(|position| u64::from(position.section) > count);
        if beyond || header.stream() != stream {
            return Err(input.invalid("stream"));
        }
        Ok(header)
    }
}

/// What a header says before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeaderHead {
    pub version: u16,
    pub flags: u16,
    pub length: usize,
}

impl HeaderHead {
    /// `None` for what is no header at all.
    pub fn decode(bytes: &[u8; HEADER_HEAD_BYTES]) -> Option<Self> {
        let mut input = Decoder::new(bytes);
        if input.raw(8, "magic").ok()? != MAGIC {
            return None;
        }
        let (version, flags) = (input.u16("version").ok()?, input.u16("flags").ok()?);
        Some(Self { version, flags, length: input.u32("length").ok()? as usize })
    }
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Entries,
    SectionEnd,
    End,
}

/// What a frame says before its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub kind: FrameKind,
    pub codec: Codec,
    pub raw_length: usize,
    pub length: usize,
    pub checksum: u32,
}

impl FrameHead {
    pub fn decode(bytes: &[u8; FRAME_HEAD_BYTES]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        let kind = match input.u8("kind of frame")? {
            1 => FrameKind::Entries,
            2 => FrameKind::SectionEnd,
            3 => FrameKind::End,
            _ => return Err(input.invalid("kind of frame")),
        };
        let codec = Codec::from_tag(input.u8("codec")?).ok_or_else(|| input.invalid("codec"))?;
        input.zeros(2)?;
        let raw_length = input.count(PAYLOAD_BYTES_MAX, "raw length")?;
        let length = input.count(PAYLOAD_BYTES_MAX, "length")?;
        // What is no smaller is not compressed.
        if length > raw_length || (length == raw_length) != (codec == Codec::None) {
            return Err(input.invalid("length"));
        }
        Ok(Self { kind, codec, raw_length, length, checksum: input.u32("checksum")? })
    }
}

/// The head of a frame with the payload `raw`, compressed with `codec` to `payload`; and its checksum, behind one of
/// `before`.
pub(crate) fn encode_frame_head(
    kind: FrameKind,
    codec: Codec,
    raw_length: usize,
    payload: &[u8],
    before: u32,
) -> (Vec<u8>, u32) {
    let mut out = Encoder::with_capacity(FRAME_HEAD_BYTES);
    out.u8(match kind {
        FrameKind::Entries => 1,
        FrameKind::SectionEnd => 2,
        FrameKind::End => 3,
    });
    out.u8(codec.tag());
    out.u16(0);
    out.u32(raw_length as u32);
    out.u32(payload.len() as u32);
    let checksum = frame_checksum(before, out.as_slice(), payload);
    out.u32(checksum);
    (out.finish(), checksum)
}

/// The checksum of a frame behind one of `before`; `head` is what stands before the checksum.
pub(crate) fn frame_checksum(before: u32, head: &[u8], payload: &[u8]) -> u32 {
    crc_append(crc_append(before, head), payload)
}

/// Appends an entry; without `value` it says that the key was deleted.
pub(crate) fn put_entry(out: &mut Encoder, entry: Entry<'_>) {
    let Entry { key, value, preference } = entry;
    let is_preferred = value.is_some() && preference != StoragePreference::NONE;
    out.u8(u8::from(value.is_some()) + u8::from(is_preferred));
    out.bytes(key);
    if is_preferred {
        out.u8(preference.as_u8());
    }
    if let Some(value) = value {
        out.bytes(value);
    }
}

/// What is to be done to one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub key: &'a [u8],
    /// `None` when it was deleted.
    pub value: Option<&'a [u8]>,
    /// Where the value goes.
    pub preference: StoragePreference,
}

/// The entries of a payload.
pub(crate) fn decode_entries(payload: &[u8]) -> Result<Vec<Entry<'_>>, DecodeError> {
    let mut input = Decoder::new(payload);
    let mut entries = Vec::new();
    while input.remaining() > 0 {
        let kind = input.u8("kind of entry")?;
        if kind > 2 {
            return Err(input.invalid("kind of entry"));
        }
        let key = input.bytes(KEY_BYTES_MAX, "key")?;
        let mut preference = StoragePreference::NONE;
        if kind == 2 {
            let stated = StoragePreference::from_u8(input.u8("preference")?);
            let stated = stated.filter(|stated| *stated != StoragePreference::NONE);
            preference = stated.ok_or_else(|| input.invalid("preference"))?;
        }
        let value = if kind > 0 { Some(input.bytes(VALUE_BYTES_MAX, "value")?) } else { None };
        entries.push(Entry { key, value, preference });
    }
    Ok(entries)
}

/// What a section ends with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SectionEnd {
    pub section: u32,
    pub puts: u64,
    pub deletes: u64,
}

impl SectionEnd {
    pub fn encode(self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u32(self.section);
        out.u64(self.puts);
        out.u64(self.deletes);
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        let (section, puts, deletes) = (input.u32("section")?, input.u64("puts")?, input.u64("deletes")?);
        input.finish("end of a section")?;
        Ok(Self { section, puts, deletes })
    }
}

/// The bytes of a token.
pub(crate) fn encode_token(stream: Uuid, position: &Position) -> Vec<u8> {
    let mut out = Encoder::new();
    out.u16(TOKEN_VERSION);
    out.u16(0);
    out.raw(&stream.0);
    position.encode(&mut out);
    out.u32(crc(out.as_slice()));
    out.finish()
}

/// Reads what [`encode_token`] wrote.
pub(crate) fn decode_token(bytes: &[u8]) -> Result<(Uuid, Position), DecodeError> {
    let mut input = Decoder::new(bytes);
    let covered = bytes.len().saturating_sub(4);
    if input.u16("version")? != TOKEN_VERSION || input.u16("flags")? != 0 {
        return Err(input.invalid("version"));
    }
    let found = (input.uuid("stream")?, Position::decode(&mut input)?);
    if input.u32("checksum")? != crc(&bytes[..covered]) {
        return Err(input.invalid("checksum"));
    }
    input.finish("token")?;
    Ok(found)
}

/// What the record of a staging says: what is received into it, and how far that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receiving {
    pub stream: Uuid,
    pub section: u32,
    pub sections: u32,
    pub guid: Uuid,
    /// Zeros when the snapshot is sent whole.
    pub base: Uuid,
    pub snapshot: Vec<u8>,
    pub position: Position,
}

impl Receiving {
    pub fn encode(&self, out: &mut Encoder) {
        out.raw(&self.stream.0);
        out.u32(self.section);
        out.u32(self.sections);
        out.raw(&self.guid.0);
        out.raw(&self.base.0);
        out.bytes(&self.snapshot);
        self.position.encode(out);
    }

    pub fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let stream = input.uuid("stream")?;
        let (section, sections) = (input.u32("section")?, input.u32("sections")?);
        if section >= sections || sections as usize > SECTIONS_MAX {
            return Err(input.invalid("section"));
        }
        let (guid, base) = (input.uuid("guid")?, input.uuid("base guid")?);
        let snapshot = input.bytes(SNAPSHOT_NAME_BYTES_MAX, "snapshot name")?.to_vec();
        let position = Position::decode(input)?;
        Ok(Self { stream, section, sections, guid, base, snapshot, position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(resumed: Option<Position>) -> Header {
        let section = Section {
            role: Role::Dataset,
            dataset: b"d".to_vec(),
            action: String::from("a"),
            compression: Compression::Zstd { level: 3 },
            preference: StoragePreference::FAST,
            snapshot: b"s".to_vec(),
            guid: Uuid([1; 16]),
            created: 4,
            base: Some(Base { guid: Uuid([2; 16]), name: b"b".to_vec() }),
        };
        Header { resumed, sections: vec![section] }
    }

    fn position() -> Position {
        Position { section: 0, key: Some(b"k".to_vec()), chain: [8; 32], bytes: 300 }
    }

    #[test]
    fn headers_have_golden_bytes_and_refuse_damage() {
        let stream = [97, 92, 50, 155, 64, 140, 152, 10, 60, 146, 149, 40, 255, 133, 7, 114];
        assert_eq!(header(None).stream().0, stream);
        let of_section = [
            &[0, 1, b'd', 1, b'a', 2, 3, 1, 1, b's'][..],
            &[1; 16],
            &[4, 0, 0, 0, 0, 0, 0, 0],
            &[2; 16],
            &[1, b'b'],
        ]
        .concat();
        let of_position = [&[0, 0, 0, 0, 1, 1, b'k'][..], &[8; 32], &[44, 1, 0, 0, 0, 0, 0, 0]].concat();
        for resumed in [None, Some(position())] {
            let flag = u8::from(resumed.is_some());
            let before = if resumed.is_some() { of_position.as_slice() } else { &[] };
            let body = [&stream[..], before, &[1], &of_section].concat();
            let head = [&b"BETRSEND\x02\0"[..], &[flag, 0, body.len() as u8, 0, 0, 0]].concat();
            let mut golden = [head.as_slice(), &body].concat();
            golden.extend_from_slice(&crc(&golden).to_le_bytes());
            let header = header(resumed);
            assert_eq!(header.encode(), golden);
            let head = HeaderHead::decode(golden[..16].try_into().unwrap()).unwrap();
            assert_eq!(head, HeaderHead { version: 2, flags: u16::from(flag), length: body.len() });
            assert_eq!(Header::decode_body(&body, 2, head.flags), Ok(header.clone()));
            let old = [&stream[..], before, &[1], &of_section[1..]].concat();
            assert_eq!(Header::decode_body(&old, 1, head.flags), Ok(header));
            for cut in 0..body.len() {
                assert!(Header::decode_body(&body[..cut], 2, head.flags).is_err());
            }
        }
        assert_eq!(HeaderHead::decode(b"BETRDEAD\x01\0\0\0\0\0\0\0"), None);
    }

    #[test]
    fn both_halves_of_a_store_follow_each_other() {
        let section = |role, name: &[u8], number| Section {
            role,
            dataset: name.to_vec(),
            guid: Uuid([number; 16]),
            ..header(None).sections.remove(0)
        };
        let decoded = |sections: &[Section]| {
            let header = Header { resumed: None, sections: sections.to_vec() };
            let bytes = header.encode();
            Header::decode_body(&bytes[HEADER_HEAD_BYTES..bytes.len() - 4], VERSION, 0)
                .map(|read| read == header)
        };
        let (dataset, metadata) = (section(Role::Dataset, b"o", 3), section(Role::Metadata, b"o", 4));
        let chunks = section(Role::Chunks, b"o", 5);
        assert_eq!(decoded(&[dataset.clone(), metadata.clone(), chunks.clone()]), Ok(true));
        let whole = Section { base: None, ..chunks.clone() };
        let (other, named) =
            (section(Role::Chunks, b"p", 6), Section { snapshot: b"t".to_vec(), ..chunks.clone() });
        let (metadata, chunks, dataset) = (&metadata, &chunks, &dataset);
        for wrong in [
            &[metadata.clone()][..],
            std::slice::from_ref(chunks),
            &[chunks.clone(), metadata.clone()],
            &[metadata.clone(), dataset.clone(), chunks.clone()],
            &[metadata.clone(), chunks.clone(), chunks.clone()],
            &[metadata.clone(), other],
            &[metadata.clone(), named],
            &[metadata.clone(), whole],
        ] {
            assert!(decoded(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn frames_have_golden_bytes_and_refuse_damage() {
        let mut payload = Encoder::new();
        let entry = |key, value, preference| Entry { key, value, preference };
        let entries = [
            entry(b"k", Some(&b"vv"[..]), StoragePreference::NONE),
            entry(b"l", None, StoragePreference::NONE),
            entry(b"m", Some(b"w"), StoragePreference::SLOW),
        ];
        entries[..2].iter().for_each(|entry| put_entry(&mut payload, *entry));
        let mut preferred = Encoder::new();
        put_entry(&mut preferred, entries[2]);
        let (payload, preferred) = (payload.finish(), preferred.finish());
        assert_eq!(payload, [1, 1, b'k', 2, b'v', b'v', 0, 1, b'l']);
        assert_eq!(preferred, [2, 1, b'm', 2, 1, b'w']);
        assert_eq!(decode_entries(&[&payload[..], &preferred].concat()), Ok(entries.to_vec()));
        for wrong in [&[3, 1, b'm', 1, b'w'][..], &[2, 1, b'm', 9, 1, b'w'], &[2, 1, b'm', 254, 1, b'w']] {
            assert!(decode_entries(wrong).is_err(), "{wrong:?}");
        }
        let (head, checksum) = encode_frame_head(FrameKind::Entries, Codec::None, 9, &payload, 7);
        let start = [1, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0];
        assert_eq!(head, [&start[..], &checksum.to_le_bytes()].concat());
        assert_eq!(checksum, frame_checksum(7, &start, &payload));
        let whole: [u8; 16] = head.try_into().unwrap();
        let decoded =
            FrameHead { kind: FrameKind::Entries, codec: Codec::None, raw_length: 9, length: 9, checksum };
        assert_eq!(FrameHead::decode(&whole), Ok(decoded));
        for (at, byte) in [(0, 0), (0, 4), (1, 1), (1, 9), (2, 1), (4, 8), (7, 2), (11, 1)] {
            let mut wrong = whole;
            wrong[at] = byte;
            assert!(FrameHead::decode(&wrong).is_err(), "byte {at} is {byte}");
        }
        let end = SectionEnd { section: 1, puts: 2, deletes: 3 };
        let golden = [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(end.encode(), golden);
        assert_eq!(SectionEnd::decode(&golden), Ok(end));
        assert!(SectionEnd::decode(&golden[1..]).is_err());
        let chain = chain_append(&[8; 32], &[b"a", b"b"]);
        assert_eq!(chain, *blake3::hash(&[&[8; 32][..], b"ab"].concat()).as_bytes());
    }

    #[test]
    fn tokens_and_stagings_have_golden_bytes() {
        let of_position = [&[0, 0, 0, 0, 1, 1, b'k'][..], &[8; 32], &[44, 1, 0, 0, 0, 0, 0, 0]].concat();
        let mut golden = [&[1, 0, 0, 0][..], &[5; 16], &of_position].concat();
        golden.extend_from_slice(&crc(&golden).to_le_bytes());
        assert_eq!(encode_token(Uuid([5; 16]), &position()), golden);
        assert_eq!(decode_token(&golden), Ok((Uuid([5; 16]), position())));
        let receiving = Receiving {
            stream: Uuid([5; 16]),
            section: 1,
            sections: 2,
            guid: Uuid([6; 16]),
            base: Uuid([7; 16]),
            snapshot: b"s".to_vec(),
            position: position(),
        };
        let golden =
            [&[5; 16][..], &[1, 0, 0, 0, 2, 0, 0, 0], &[6; 16], &[7; 16], &[1, b's'], &of_position].concat();
        let mut out = Encoder::new();
        receiving.encode(&mut out);
        assert_eq!(out.as_slice(), golden);
        assert_eq!(Receiving::decode(&mut Decoder::new(&golden)), Ok(receiving));
        for cut in 0..golden.len() {
            assert!(Receiving::decode(&mut Decoder::new(&golden[..cut])).is_err());
        }
    }
}
