//! What a fuzz target is, and the targets of this layer.
//!
//! Every layer lists the targets of its own decoders in a module of this name, because most decoders are private. A target
//! takes any bytes, gives them a right checksum where the structure has one (or nothing behind the checksum would ever be
//! looked at), decodes, and uses what came out. It may refuse the bytes; it must not panic, hang, or accept what it would
//! not write the same way.

use super::codec::{get_varint, put_varint};
use super::compression::{Codec, Compression};
use super::units::{format_bytes, parse_bytes};

/// A decoder under fuzz.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name; also that of its corpus.
    pub name: &'static str,
    /// Valid inputs, from which mutations start.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Tries one input; whether it was taken for valid. Panics when the decoder is wrong.
    pub run: fn(&[u8]) -> bool,
}

/// The targets of this layer.
pub const TARGETS: &[Target] = &[
    Target { name: "sizes", seeds: size_seeds, run: sizes },
    Target { name: "varints", seeds: varint_seeds, run: varints },
    Target { name: "compression", seeds: compression_seeds, run: compression },
];

fn size_seeds() -> Vec<Vec<u8>> {
    ["4096", "64KiB", "1.5 GiB", "10MB", "18446744073709551615", ".5K", " 7 B "]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

fn sizes(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let parsed = parse_bytes(&text);
    if let Ok(size) = parsed {
        // Printed with one digit behind the point: close, not equal.
        let again = parse_bytes(&format_bytes(size));
        assert!(
            again.is_ok_and(|again| again.abs_diff(size) <= size / 10) || size > 1 << 60,
            "{text:?} {size}"
        );
    }
    parsed.is_ok()
}

fn varint_seeds() -> Vec<Vec<u8>> {
    [0, 127, 128, 1 << 32, u64::MAX]
        .map(|value| {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            out
        })
        .to_vec()
}

fn varints(bytes: &[u8]) -> bool {
    let mut position = 0;
    while position < bytes.len() {
        let start = position;
        let Some(value) = get_varint(bytes, &mut position) else { return false };
        assert!(start < position && position <= bytes.len());
        let mut out = Vec::new();
        put_varint(&mut out, value);
        assert!(get_varint(&out, &mut 0) == Some(value));
    }
    true
}

const CODECS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd { level: 1 }];

/// Codec and raw length, then the stored bytes.
fn compression_seeds() -> Vec<Vec<u8>> {
    let raw = b"to be compressed, to be compressed, to be compressed; ".repeat(20);
    let mut seeds = Vec::new();
    for compression in CODECS {
        if let Some((codec, stored)) = compression.compress(&raw) {
            let head = [codec.tag(), (raw.len() >> 8) as u8, raw.len() as u8];
            seeds.push([&head[..], &stored].concat());
        }
    }
    seeds
}

fn compression(bytes: &[u8]) -> bool {
    let [tag, high, low, stored @ ..] = bytes else { return false };
    let Some(codec) = Codec::from_tag(*tag) else { return false };
    let length = usize::from(*high) << 8 | usize::from(*low);
    // It fills all of the buffer or says no: what was in the buffer before must not pass for data.
    let (mut first, mut second) = (vec![0; length], vec![0xff; length]);
    let results = [codec.decompress(stored, &mut first), codec.decompress(stored, &mut second)];
    let valid = results.iter().all(Result::is_ok);
    assert!(!valid || first == second, "bytes that nobody decompressed");
    valid
}
