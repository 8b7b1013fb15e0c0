//! Entries as lines of text: what `kv load` reads and `kv dump` writes.
//!
//! | format | line |
//! |---|---|
//! | tsv | key, tab, value, both in the escaped form of [`crate::text`], or in hexadecimal or base64 |
//! | jsonl | `{"key": …, "value": …}`, each a string, `{"hex": "…"}` or `{"base64": "…"}` |
//! | raw | fields as they are, with a delimiter of one byte between them; one is the key, the others, or the whole line, are the value |
//!
//! A line ends at a line feed or at the end of the text. Dumps are loaded as what they were dumped from.

use crate::args::{DumpFormat, Load, LoadFormat};
use crate::failure::Failure;
use crate::text::{Encoding, JsonBytes, from_json};
use serde::Serialize;
use std::io::{self, BufRead, Read as _};

/// Longest line that is read: the longest key and value, written with six bytes for one (`\u0001` in JSON), and some
/// room for what else a line may hold.
const LINE_BYTES_MAX: u64 = 6 * (betree::KEY_BYTES_MAX + betree::VALUE_BYTES_MAX) as u64 + (1 << 20);

/// Reads lines and counts them.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
    bytes: u64,
    line_bytes_max: u64,
}

impl<R: BufRead> Lines<R> {
    /// Starts before the first line.
    pub fn new(input: R) -> Self {
        Self { input, line: Vec::new(), number: 0, bytes: 0, line_bytes_max: LINE_BYTES_MAX }
    }

    /// Goes to the next line; `false` at the end.
    ///
    /// # Errors
    /// The input fails, or the line is longer than any entry can be.
    pub fn advance(&mut self) -> io::Result<bool> {
        self.line.clear();
        self.number += 1;
        let read = (&mut self.input).take(self.line_bytes_max + 1).read_until(b'\n', &mut self.line)?;
        self.bytes = read as u64;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if read as u64 > self.line_bytes_max {
            return Err(io::Error::other("longer than any entry can be"));
        }
        Ok(read > 0)
    }

    /// The line, without its end.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Its number, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes that it took, with its end.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What a line means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    Tsv { key: Encoding, value: Encoding },
    Jsonl,
    Raw { key: Encoding, value: Encoding, delimiter: Option<u8>, key_field: usize, whole_line: bool },
}

impl LineFormat {
    /// The format that the options ask for.
    ///
    /// # Errors
    /// [`Failure::Usage`] for options that another format than `raw` does not have.
    pub fn of(options: &Load, key: Encoding, value: Encoding) -> Result<Self, Failure> {
        let is_raw = options.delimiter.is_some() || options.key_field.is_some() || options.whole_line;
        match options.format {
            Some(LoadFormat::Tsv | LoadFormat::Jsonl) if is_raw => {
                let why = "--delimiter, --key-field and --whole-line belong to --format raw";
                Err(Failure::Usage(why.into()))
            }
            Some(LoadFormat::Jsonl) => Ok(Self::Jsonl),
            Some(LoadFormat::Tsv) => Ok(Self::Tsv { key, value }),
            None if !is_raw => Ok(Self::Tsv { key, value }),
            Some(LoadFormat::Raw) | None => Ok(Self::Raw {
                key,
                value,
                delimiter: options.delimiter,
                key_field: options.key_field.unwrap_or(1) as usize,
                whole_line: options.whole_line,
            }),
        }
    }

    /// Key and value of a line.
    ///
    /// # Errors
    /// A message for a line that is not of this format.
    pub fn parse(self, line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
        match self {
            Self::Tsv { key, value } => {
                let tab =
                    line.iter().position(|byte| *byte == b'\t').ok_or("no tab between key and value")?;
                let key = key.decode(&line[..tab]).map_err(|why| format!("key: {why}"))?;
                let value = value.decode(&line[tab + 1..]).map_err(|why| format!("value: {why}"))?;
                Ok((key, value))
            }
            Self::Jsonl => parse_json(line),
            Self::Raw { key, value, delimiter, key_field, whole_line } => {
                let (field, rest) = split(line, delimiter, key_field)?;
                let raw = |encoding: Encoding, bytes: &[u8]| match encoding {
                    Encoding::Utf8 => Ok(bytes.to_vec()),
                    encoding => encoding.decode(bytes),
                };
                let key = raw(key, field).map_err(|why| format!("key: {why}"))?;
                let value = raw(value, if whole_line { line } else { &rest });
                Ok((key, value.map_err(|why| format!("value: {why}"))?))
            }
        }
    }
}

/// Field number `wanted` (from 1) of a line, and the line without it.
fn split(line: &[u8], delimiter: Option<u8>, wanted: usize) -> Result<(&[u8], Vec<u8>), String> {
    let Some(delimiter) = delimiter else { return Ok((line, Vec::new())) };
    let mut start = 0;
    for _ in 1..wanted {
        let at = line[start..].iter().position(|byte| *byte == delimiter);
        start += at.ok_or_else(|| format!("it has no field {wanted}"))? + 1;
    }
    let end = line[start..].iter().position(|byte| *byte == delimiter).map_or(line.len(), |at| start + at);
    // With the field goes one delimiter: that behind it, else that before it.
    let rest = match (line.get(end + 1..), start.checked_sub(1)) {
        (Some(behind), _) => [&line[..start], behind].concat(),
        (None, Some(before)) => line[..before].to_vec(),
        (None, None) => Vec::new(),
    };
    Ok((&line[start..end], rest))
}

fn parse_json(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let json: serde_json::Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let fields = json.as_object().ok_or("not an object")?;
    if let Some(unknown) = fields.keys().find(|name| !["key", "value"].contains(&name.as_str())) {
        return Err(format!("it has {unknown:?}, but only \"key\" and \"value\" are known"));
    }
    let field = |name: &str| {
        let json = fields.get(name).ok_or_else(|| format!("it has no {name:?}"))?;
        from_json(json).map_err(|why| format!("{name}: {why}"))
    };
    Ok((field("key")?, field("value")?))
}

/// An entry in JSON.
#[derive(Serialize)]
pub struct JsonEntry<'a> {
    /// The key.
    pub key: JsonBytes<'a>,
    /// The value, where it is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<JsonBytes<'a>>,
}

/// Writes the line of an entry, with its end, into `out`, which is empty then.
///
/// # Errors
/// None for the formats that there are; serde_json cannot know.
pub fn write_line(
    format: DumpFormat,
    encodings: (Encoding, Encoding),
    key: &[u8],
    value: &[u8],
    out: &mut String,
) -> serde_json::Result<()> {
    match format {
        DumpFormat::Tsv => {
            encodings.0.encode(key, out);
            out.push('\t');
            encodings.1.encode(value, out);
        }
        DumpFormat::Jsonl => {
            let entry =
                JsonEntry { key: JsonBytes(key, encodings.0), value: Some(JsonBytes(value, encodings.1)) };
            out.push_str(&serde_json::to_string(&entry)?);
        }
    }
    out.push('\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TSV: LineFormat = LineFormat::Tsv { key: Encoding::Utf8, value: Encoding::Utf8 };

    fn raw(delimiter: Option<u8>, key_field: usize, whole_line: bool) -> LineFormat {
        LineFormat::Raw { key: Encoding::Utf8, value: Encoding::Utf8, delimiter, key_field, whole_line }
    }

    fn parsed(format: LineFormat, line: &str) -> (String, String) {
        let (key, value) = format.parse(line.as_bytes()).unwrap();
        (String::from_utf8(key).unwrap(), String::from_utf8(value).unwrap())
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    #[test]
    fn lines_are_counted_and_the_last_needs_no_end() {
        let mut lines = Lines::new(&b"a\n\nb"[..]);
        let mut seen = Vec::new();
        while lines.advance().unwrap() {
            seen.push((lines.number(), lines.line().to_vec(), lines.bytes()));
        }
        assert_eq!(seen, [(1, b"a".to_vec(), 2), (2, Vec::new(), 1), (3, b"b".to_vec(), 1)]);
        assert!(!Lines::new(&b""[..]).advance().unwrap());
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let mut lines = Lines::new(io::BufReader::new(io::repeat(b'x')));
        lines.line_bytes_max = 1000;
        assert!(lines.advance().is_err());
    }

    #[test]
    fn fields_of_raw_lines() {
        let semicolon = Some(b';');
        let line = "0041;LATIN CAPITAL LETTER A;Lu;0;L";
        assert_eq!(parsed(raw(semicolon, 1, false), line), pair("0041", "LATIN CAPITAL LETTER A;Lu;0;L"));
        assert_eq!(parsed(raw(semicolon, 1, true), line), pair("0041", line));
        assert_eq!(parsed(raw(semicolon, 3, false), line), pair("Lu", "0041;LATIN CAPITAL LETTER A;0;L"));
        assert_eq!(parsed(raw(semicolon, 5, false), line), pair("L", "0041;LATIN CAPITAL LETTER A;Lu;0"));
        assert_eq!(parsed(raw(semicolon, 1, false), "alone"), pair("alone", ""));
        assert_eq!(parsed(raw(semicolon, 1, false), ";x"), pair("", "x"));
        assert_eq!(parsed(raw(semicolon, 2, false), "x;"), pair("", "x"));
        assert_eq!(parsed(raw(None, 1, false), "word\\n\t"), pair("word\\n\t", ""));
        assert_eq!(parsed(raw(None, 1, true), "word"), pair("word", "word"));
        assert!(raw(semicolon, 6, false).parse(line.as_bytes()).unwrap_err().contains("no field 6"));
    }

    #[test]
    fn wrong_lines_say_why() {
        for (format, line, why) in [
            (TSV, "key", "no tab"),
            (TSV, "\\q\tvalue", "key: \\q"),
            (TSV, "key\t\\x0", "value: \\x"),
            (LineFormat::Jsonl, "{", "EOF"),
            (LineFormat::Jsonl, "[]", "not an object"),
            (LineFormat::Jsonl, r#"{"key":"a"}"#, "no \"value\""),
            (LineFormat::Jsonl, r#"{"key":"a","value":"b","x":1}"#, "\"x\""),
            (LineFormat::Jsonl, r#"{"key":"a","value":1}"#, "value: neither"),
            (LineFormat::Tsv { key: Encoding::Hex, value: Encoding::Utf8 }, "0\tx", "key: not hex"),
        ] {
            let error = format.parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_dumped_is_loaded(
            key in prop::collection::vec(any::<u8>(), 0..40),
            value in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            for encoding in [Encoding::Utf8, Encoding::Hex, Encoding::Base64] {
                for (dump, load) in [
                    (DumpFormat::Tsv, LineFormat::Tsv { key: encoding, value: encoding }),
                    (DumpFormat::Jsonl, LineFormat::Jsonl),
                ] {
                    let mut text = String::new();
                    write_line(dump, (encoding, encoding), &key, &value, &mut text).unwrap();
                    let mut lines = Lines::new(text.as_bytes());
                    prop_assert!(lines.advance().unwrap());
                    prop_assert_eq!(load.parse(lines.line()).unwrap(), (key.clone(), value.clone()));
                    prop_assert!(!lines.advance().unwrap());
                }
            }
        }
    }
}
