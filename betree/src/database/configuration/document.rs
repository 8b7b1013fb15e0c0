//! Reading and writing the JSON document, with errors that say where.

use super::DatabaseConfiguration;
use crate::pool::ConfigurationError;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_path_to_error::Segment;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// Longest file that is read: a pool of four times 1024 vdevs of 255 legs has about that much to say.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

impl DatabaseConfiguration {
    /// Reads and checks the JSON document in `path`.
    ///
    /// # Errors
    /// [`ConfigurationError::File`] when the file cannot be read, [`ConfigurationError::Document`] with line, column
    /// and field when it does not fit.
    pub fn from_json_file(path: impl AsRef<Path>) -> Result<Self, ConfigurationError> {
        let path = path.as_ref();
        let text = read(path).map_err(|source| file_error(path, source))?;
        from_text(&text, Some(path))
    }

    /// Reads and checks a JSON document.
    ///
    /// # Errors
    /// [`ConfigurationError::Document`] with line, column and field when it does not fit.
    pub fn from_json_str(text: &str) -> Result<Self, ConfigurationError> {
        from_text(text, None)
    }

    /// The configuration as a JSON document for people, which loads as an equal configuration.
    ///
    /// # Errors
    /// [`ConfigurationError::Invalid`] when a setting is wrong, and for what JSON cannot say: a device that the program
    /// brought, a path that is not UTF-8.
    pub fn to_json_string(&self) -> Result<String, ConfigurationError> {
        self.validate()?;
        let mut out = Vec::new();
        let mut serializer = serde_json::Serializer::pretty(&mut out);
        serde_path_to_error::serialize(self, &mut serializer).map_err(|error| {
            ConfigurationError::Invalid { path: path_of(error.path()), message: error.inner().to_string() }
        })?;
        out.push(b'\n');
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// Writes [`DatabaseConfiguration::to_json_string`] to the file `path`.
    ///
    /// # Errors
    /// As there, before the file is touched; [`ConfigurationError::File`] when it cannot be written.
    pub fn write_config_json(&self, path: impl AsRef<Path>) -> Result<(), ConfigurationError> {
        let path = path.as_ref();
        std::fs::write(path, self.to_json_string()?).map_err(|source| file_error(path, source))
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(DOCUMENT_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too long for a configuration"));
    }
    Ok(text)
}

fn file_error(path: &Path, source: io::Error) -> ConfigurationError {
    ConfigurationError::File { file: path.to_owned(), source: Arc::new(source) }
}

fn from_text(text: &str, file: Option<&Path>) -> Result<DatabaseConfiguration, ConfigurationError> {
    let file = || file.map(Path::to_owned);
    let mut json = serde_json::Deserializer::from_str(text);
    let config = serde_path_to_error::deserialize::<_, DatabaseConfiguration>(&mut json)
        .map_err(|error| (path_of(error.path()), error.into_inner()))
        .and_then(|config| json.end().map(|()| config).map_err(|error| (String::new(), error)));
    let config: DatabaseConfiguration = config.map_err(|(path, error)| ConfigurationError::Document {
        file: file(),
        line: error.line(),
        column: error.column(),
        path,
        message: message_of(&error),
    })?;
    config.validate().map_err(|error| match error {
        ConfigurationError::Invalid { path, message } => {
            let (line, column) = position_of(text, &path);
            ConfigurationError::Document { file: file(), line, column, path, message }
        }
        other => other,
    })?;
    Ok(config)
}

/// The path as a string, empty for the whole document. A segment of which serde saw no name is left out.
pub(super) fn path_of(path: &serde_path_to_error::Path) -> String {
    let mut out = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => out.push_str(&format!("[{index}]")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                out.push_str(if out.is_empty() { "" } else { "." });
                out.push_str(key);
            }
            Segment::Unknown => {}
        }
    }
    out
}

/// The message without the position that serde_json adds at its end.
fn message_of(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    message.strip_suffix(&position).unwrap_or(&message).to_owned()
}

/// The parts of a path such as `storage.tiers[0]`.
pub(super) fn segments(path: &str) -> Vec<&str> {
    path.split(['.', '[', ']']).filter(|segment| !segment.is_empty()).collect()
}

/// Line and column of the value at `path` in a document that is known to be JSON and to have it.
fn position_of(text: &str, path: &str) -> (usize, usize) {
    let mut json = serde_json::Deserializer::from_str(text);
    match Locate(&segments(path)).deserialize(&mut json) {
        Err(error) => (error.line(), error.column()),
        Ok(()) => (1, 1),
    }
}

/// Walks to a value and stops there with an error, which carries the position.
struct Locate<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Locate<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.0.is_empty() {
            deserializer.deserialize_any(Nothing)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

/// Takes no value at all.
struct Nothing;

impl Visitor<'_> for Nothing {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}

impl<'de> Visitor<'de> for Locate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that has parts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        // A tier may be just the list of its vdevs.
        let path = if self.0[0] == "top_level_vdevs" { &self.0[1..] } else { self.0 };
        let Some((wanted, rest)) = path.split_first() else {
            return Err(A::Error::invalid_type(Unexpected::Seq, &Nothing));
        };
        let wanted = wanted.parse::<usize>().ok();
        let mut index = 0;
        loop {
            let more = if wanted == Some(index) {
                seq.next_element_seed(Locate(rest))?.is_some()
            } else {
                seq.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0[0] {
                map.next_value_seed(Locate(&self.0[1..]))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}
