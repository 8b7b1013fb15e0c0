//! Bytes as text and back: escapes, hexadecimal, base64.
//!
//! Keys, values and names are bytes. In the escaped form, printable UTF-8 stands for itself, a backslash is `\\`, tab,
//! line feed and carriage return are `\t`, `\n`, `\r`, and every other byte (control and formatting characters,
//! whatever is not UTF-8) is `\xNN`. The form never holds a tab or a line end, and [`unescape`] is its inverse.

use crate::failure::Failure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt::Write as _;

/// How keys or values are written on the command line and in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Encoding {
    /// As they are; escaped where they are shown to people
    #[default]
    Utf8,
    /// Two hexadecimal digits per byte
    Hex,
    /// Base64 with padding
    Base64,
}

impl Encoding {
    /// Bytes of a command-line argument.
    ///
    /// # Errors
    /// [`Failure::Usage`] for what is not in this encoding.
    pub fn decode_argument(self, what: &str, argument: &[u8]) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Utf8 => Ok(argument.to_vec()),
            _ => self.decode(argument).map_err(|reason| Failure::Usage(format!("{what}: {reason}"))),
        }
    }

    /// Bytes of a field of a text; escaped in [`Encoding::Utf8`].
    pub fn decode(self, text: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Self::Utf8 => unescape(text),
            Self::Hex => from_hex(text),
            Self::Base64 => STANDARD.decode(text).map_err(|error| format!("not base64: {error}")),
        }
    }

    /// Appends `bytes` as a field of a text that holds neither tab nor line end.
    pub fn encode(self, bytes: &[u8], out: &mut String) {
        match self {
            Self::Utf8 => escape(bytes, out),
            Self::Hex => {
                for byte in bytes {
                    push_hex(*byte, out);
                }
            }
            Self::Base64 => STANDARD.encode_string(bytes, out),
        }
    }

    /// [`Encoding::encode`] as a string of its own.
    pub fn text(self, bytes: &[u8]) -> String {
        let mut out = String::with_capacity(bytes.len());
        self.encode(bytes, &mut out);
        out
    }
}

/// The escaped form of `bytes`.
pub fn escaped(bytes: &[u8]) -> String {
    Encoding::Utf8.text(bytes)
}

fn push_hex(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

fn escape_bytes(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        out.push_str("\\x");
        push_hex(*byte, out);
    }
}

/// Whether a terminal prints the character and nothing else happens: no control character, no mark that turns the
/// direction of what follows (which can make a name look like another), no line separator.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn escape(bytes: &[u8], out: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\t' => out.push_str("\\t"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                c if is_harmless(c) => out.push(c),
                c => escape_bytes(c.encode_utf8(&mut [0; 4]).as_bytes(), out),
            }
        }
        escape_bytes(chunk.invalid(), out);
    }
}

/// The bytes of an escaped text. Bytes that the escaped form would not hold stand for themselves.
///
/// # Errors
/// A message for an escape that is not known or not complete.
pub fn unescape(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        let (byte, length) = match rest[at + 1..] {
            [b'\\', ..] => (b'\\', 1),
            [b't', ..] => (b'\t', 1),
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b'x', high, low, ..] => match (digit(high), digit(low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => return Err("\\x needs two hexadecimal digits".into()),
            },
            [b'x', ..] => return Err("\\x needs two hexadecimal digits".into()),
            [] => return Err("a backslash at the end; a backslash is written as \\\\".into()),
            [other, ..] => {
                return Err(format!(
                    "\\{} is not an escape; they are \\\\ \\t \\n \\r \\xNN",
                    other.escape_ascii()
                ));
            }
        };
        out.push(byte);
        rest = &rest[at + 1 + length..];
    }
    out.extend_from_slice(rest);
    Ok(out)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

fn from_hex(text: &[u8]) -> Result<Vec<u8>, String> {
    if !text.len().is_multiple_of(2) {
        return Err(format!("not hexadecimal: {} digits, an odd number", text.len()));
    }
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    let bytes: Option<Vec<u8>> = text.chunks_exact(2).map(pair).collect();
    bytes.ok_or_else(|| "not hexadecimal: it may hold 0-9, a-f and A-F".into())
}

/// Bytes in JSON: a string when they are UTF-8, else `{"hex": "…"}`. Hexadecimal and base64 that was asked for is
/// always an object of that name, so that it cannot be taken for a string.
pub struct JsonBytes<'a>(pub &'a [u8], pub Encoding);

impl Serialize for JsonBytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(bytes, encoding) = self;
        let name = match (encoding, std::str::from_utf8(bytes)) {
            (Encoding::Utf8, Ok(text)) => return serializer.serialize_str(text),
            (Encoding::Utf8, Err(_)) | (Encoding::Hex, _) => "hex",
            (Encoding::Base64, _) => "base64",
        };
        let encoding = if name == "hex" { Encoding::Hex } else { Encoding::Base64 };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(name, &encoding.text(bytes))?;
        map.end()
    }
}

/// Reads what [`JsonBytes`] writes.
///
/// # Errors
/// A message for anything else.
pub fn from_json(json: &serde_json::Value) -> Result<Vec<u8>, String> {
    let encoded = |name: &str| json.as_object().filter(|map| map.len() == 1)?.get(name)?.as_str();
    if let Some(text) = json.as_str() {
        Ok(text.as_bytes().to_vec())
    } else if let Some(hex) = encoded("hex") {
        Encoding::Hex.decode(hex.as_bytes())
    } else if let Some(base64) = encoded("base64") {
        Encoding::Base64.decode(base64.as_bytes())
    } else {
        Err("neither a string nor {\"hex\": \"…\"} nor {\"base64\": \"…\"}".into())
    }
}

/// `bytes` for people, `"1.5 MiB"`, or to the byte.
pub fn size(bytes: u64, exact: bool) -> String {
    if exact {
        return bytes.to_string();
    }
    let mut unit = 0;
    let mut scaled = bytes as f64;
    // 1023.95 would print as 1024.0.
    while scaled >= 1023.95 && unit < 6 {
        scaled /= 1024.0;
        unit += 1;
    }
    let mut text = String::new();
    let written = match unit {
        0 => write!(text, "{bytes} B"),
        _ => write!(text, "{scaled:.1} {}iB", ["", "K", "M", "G", "T", "P", "E"][unit]),
    };
    debug_assert!(written.is_ok(), "writing to a string does not fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_are_for_people() {
        for (bytes, text) in [
            (&b"plain"[..], "plain"),
            ("Zürich ☃ 雪".as_bytes(), "Zürich ☃ 雪"),
            (b"a\tb\nc\rd\\e", r"a\tb\nc\rd\\e"),
            (b"\x00\x1b[31m\x7f", r"\x00\x1b[31m\x7f"),
            (b"\xff\xfea", r"\xff\xfea"),
            // A mark that turns the direction of writing, and a C1 control character.
            ("a\u{202e}b\u{85}".as_bytes(), r"a\xe2\x80\xaeb\xc2\x85"),
        ] {
            assert_eq!(escaped(bytes), text);
            assert_eq!(unescape(text.as_bytes()).unwrap(), bytes);
        }
    }

    #[test]
    fn wrong_text_is_refused() {
        for text in [r"\", r"a\q", r"\x", r"\x1", r"\xg0", r"\x+1"] {
            assert!(unescape(text.as_bytes()).is_err(), "{text}");
        }
        for text in ["1", "0g", "+1", "0x12"] {
            assert!(Encoding::Hex.decode(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Encoding::Base64.decode(b"???").is_err());
        for json in ["1", "null", r#"{"hex":"0"}"#, r#"{"hex":"00","x":1}"#, r#"{"base64":1}"#, "[]"] {
            assert!(from_json(&serde_json::from_str(json).unwrap()).is_err(), "{json}");
        }
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB"), (u64::MAX, "16.0 EiB")]
        {
            assert_eq!(size(bytes, false), text);
        }
        assert_eq!(size((1 << 20) - 1, false), "1.0 MiB");
        assert_eq!(size(1 << 20, true), "1048576");
    }

    proptest! {
        #[test]
        fn all_encodings_are_reversible(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            for encoding in [Encoding::Utf8, Encoding::Hex, Encoding::Base64] {
                let text = encoding.text(&bytes);
                prop_assert!(!text.contains(['\t', '\n', '\r', '\0']), "{}", text);
                prop_assert_eq!(&encoding.decode(text.as_bytes()).unwrap(), &bytes);
                let json = serde_json::to_value(JsonBytes(&bytes, encoding)).unwrap();
                prop_assert_eq!(&from_json(&json).unwrap(), &bytes);
            }
        }

        #[test]
        fn unescaping_takes_any_text(text in prop::collection::vec(any::<u8>(), 0..50)) {
            let _any_answer_is_fine = unescape(&text);
        }
    }
}
