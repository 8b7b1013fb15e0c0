//! Fuzz targets of replication: streams behind right checksums and digests, and tokens.

use super::format::{
    Base, Entry, FrameKind, Header, Position, Section, SectionEnd, chain_append, encode_frame_head,
    frame_checksum, put_entry,
};
use super::reader::{Part, StreamReader};
use super::token::ResumeToken;
use crate::base::checksum::crc;
use crate::base::codec::Encoder;
use crate::base::compression::{Codec, Compression};
use crate::base::ids::Uuid;
use crate::base::preference::StoragePreference;
use crate::database::format::Role;

fn section(role: Role, number: u8, base: Option<u8>) -> Section {
    Section {
        role,
        dataset: b"dataset".to_vec(),
        action: String::from("default"),
        compression: Compression::Lz4,
        preference: StoragePreference::NONE,
        snapshot: b"snapshot".to_vec(),
        guid: Uuid([number; 16]),
        created: 1_700_000_000,
        base: base.map(|base| Base { guid: Uuid([base; 16]), name: b"base".to_vec() }),
    }
}

/// A stream of these frames.
fn stream(header: &Header, frames: &[(FrameKind, Vec<u8>)]) -> Vec<u8> {
    let mut stream = header.encode();
    let mut checksum = u32::from_le_bytes(stream.last_chunk().copied().unwrap_or_default());
    for (kind, raw) in frames {
        let compression = match kind {
            FrameKind::End => Compression::None,
            _ => Compression::Zstd { level: 1 },
        };
        let compressed = compression.compress(raw);
        let (codec, payload) = compressed.unwrap_or_else(|| (Codec::None, raw.clone()));
        let (head, sum) = encode_frame_head(*kind, codec, raw.len(), &payload, checksum);
        checksum = sum;
        stream.extend_from_slice(&head);
        stream.extend_from_slice(&payload);
    }
    mend(&stream)
}

pub(in crate::database) fn stream_seeds() -> Vec<Vec<u8>> {
    let entries = |entries: &[(&[u8], Option<&[u8]>)]| {
        let mut payload = Encoder::new();
        let preference = StoragePreference::NONE;
        entries
            .iter()
            .for_each(|(key, value)| put_entry(&mut payload, Entry { key, value: *value, preference }));
        (FrameKind::Entries, payload.finish())
    };
    let section_end =
        |section, puts, deletes| (FrameKind::SectionEnd, SectionEnd { section, puts, deletes }.encode());
    let end = || (FrameKind::End, vec![0; 32]);
    let whole = Header { resumed: None, sections: vec![section(Role::Dataset, 1, None)] };
    let frames = [entries(&[(b"", Some(b"")), (b"a", Some(&[7; 300]))]), entries(&[(b"b", Some(b"c"))])];
    let whole = stream(&whole, &[&frames[..], &[section_end(0, 3, 0), end()]].concat());
    let position = Position { section: 0, key: Some(b"k".to_vec()), chain: [8; 32], bytes: 300 };
    let since = Header {
        resumed: Some(position),
        sections: vec![section(Role::Dataset, 1, Some(3)), section(Role::Dataset, 2, Some(4))],
    };
    let frames =
        [entries(&[(b"l", None), (b"m", Some(b"n"))]), section_end(0, 1, 1), section_end(1, 0, 0), end()];
    let since = stream(&since, &frames);
    let halves = vec![section(Role::Metadata, 1, None), section(Role::Chunks, 2, None)];
    let mut payload = Encoder::new();
    put_entry(&mut payload, Entry { key: b"k", value: Some(b"v"), preference: StoragePreference::SLOW });
    let frames = [section_end(0, 0, 0), (FrameKind::Entries, payload.finish()), section_end(1, 1, 0), end()];
    vec![whole, since, stream(&Header { resumed: None, sections: halves }, &frames)]
}

/// The same bytes with the checksums and digests that they should have, as far as they are a stream.
fn mend(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let length = |bytes: &[u8], at: usize| {
        let field = bytes.get(at..at + 4).and_then(|field| field.first_chunk()).copied();
        field.map(|field: [u8; 4]| u32::from_le_bytes(field) as usize)
    };
    let Some(body) = length(&bytes, 12).filter(|body| bytes.len() >= 20 + body) else { return bytes };
    let mut checksum = crc(&bytes[..16 + body]);
    bytes[16 + body..20 + body].copy_from_slice(&checksum.to_le_bytes());
    let resumed = Header::decode_body(&bytes[16..16 + body], u16::from(bytes[8]), u16::from(bytes[10]))
        .ok()
        .and_then(|header| header.resumed);
    let mut chain = chain_append(&resumed.unwrap_or_default().chain, &[&bytes[..20 + body]]);
    let mut at = 20 + body;
    while let Some(payload) = length(&bytes, at + 8).filter(|payload| bytes.len() >= at + 16 + payload) {
        if bytes[at] == 3 && payload == 32 && bytes[at + 1] == 0 {
            bytes[at + 16..at + 48].copy_from_slice(&chain);
        }
        checksum = frame_checksum(checksum, &bytes[at..at + 12], &bytes[at + 16..at + 16 + payload]);
        bytes[at + 12..at + 16].copy_from_slice(&checksum.to_le_bytes());
        chain = chain_append(&chain, &[&bytes[at..at + 16 + payload]]);
        at += 16 + payload;
    }
    bytes
}

pub(in crate::database) fn run_stream(bytes: &[u8]) -> bool {
    let mended = mend(bytes);
    let Ok(mut reader) = StreamReader::new(&mended[..]) else { return false };
    let header = reader.header().clone();
    let encoded = header.encode();
    let again = StreamReader::new(&encoded[..]);
    assert!(again.is_ok_and(|again| *again.header() == header), "a header that is read back differently");
    let mut last: Option<(u32, Vec<u8>)> = None;
    loop {
        let section = reader.position().section;
        match reader.next() {
            Ok(Part::Entries(payload)) => {
                let entries = super::format::decode_entries(&payload).unwrap_or_default();
                for entry in entries {
                    let next = (section, entry.key.to_vec());
                    assert!(last.as_ref().is_none_or(|last| *last < next), "keys that do not ascend");
                    last = Some(next);
                }
            }
            Ok(Part::SectionEnd) => {
                assert!(reader.position().section == section + 1, "a section that goes on")
            }
            Ok(Part::End) => {
                assert!(section as usize == header.sections.len(), "a section is missing");
                return true;
            }
            Err(_) => return false,
        }
    }
}

pub(in crate::database) fn token_seeds() -> Vec<Vec<u8>> {
    let position = Position { section: 1, key: Some(b"key".to_vec()), chain: [4; 32], bytes: 5 };
    let token = |position| ResumeToken { stream: Uuid([1; 16]), position }.to_string().into_bytes();
    vec![token(position), token(Position::default())]
}

pub(in crate::database) fn run_token(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Ok(token) = text.parse::<ResumeToken>() else { return false };
    let again = token.to_string().parse::<ResumeToken>();
    assert!(again.is_ok_and(|again| again == token), "a token that is read back differently");
    true
}
