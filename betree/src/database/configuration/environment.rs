//! Settings from environment variables.
//!
//! `BETREE__CACHE_SIZE=4GiB` sets `cache_size`, `BETREE__STORAGE__TIERS__0__LABEL=fast` sets `storage.tiers[0].label`:
//! the prefix `BETREE__`, then names and positions separated by two underscores, upper or lower case. `BETREE__CONFIG` is
//! left alone. These are the conventions of the figment crate, which Haura used.
//!
//! ```text
//! value  := object | array | quoted | bare
//! object := "{" [ key ("=" | ":") value ("," …)* ] "}"
//! array  := "[" [ value ("," …)* ] "]"
//! quoted := a JSON string, or any text in single quotes
//! bare   := null | true | false | a JSON number | any other text (inside objects and arrays: up to , ] })
//! ```
//!
//! JSON is a part of that. A value that is none of it as a whole is a string. An object sets the fields that it names and
//! leaves the others; anything else replaces what was there.

use super::DatabaseConfiguration;
use super::document::{path_of, segments};
use crate::pool::{ConfigurationError, StoragePoolConfiguration};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::ffi::OsString;

const PREFIX: &str = "BETREE__";
const FILE_VARIABLE: &str = "BETREE_CONFIG";
/// Names in the document that have upper case letters.
const VARIANTS: [&str; 4] = ["Zstd", "Lz4", "Lfu", "ReinforcementLearning"];
/// Deepest value of a variable; the document itself is less than ten deep.
const DEPTH_MAX: usize = 32;

impl DatabaseConfiguration {
    /// The configuration of the process's environment: the JSON document that `BETREE_CONFIG` names, or the default
    /// when it is unset or empty, with the `BETREE__…` variables applied.
    ///
    /// # Errors
    /// As [`DatabaseConfiguration::from_json_file`] and [`DatabaseConfiguration::apply_env`].
    pub fn from_env() -> Result<Self, ConfigurationError> {
        from_variables(std::env::vars_os())
    }

    /// Applies environment variables: `BETREE__CACHE_SIZE=4GiB` sets `cache_size`, `BETREE__COMPRESSION__ZSTD__LEVEL=3`
    /// or `BETREE__COMPRESSION='{ Zstd = { level = 3 } }'` sets `compression`. Variables that do not start with
    /// `BETREE__`, and `BETREE__CONFIG`, are left alone. Names may be in upper or lower case. Values are JSON, or JSON
    /// with `=` for `:` and without quotes; what is neither is a string. An object sets the fields that it names.
    ///
    /// On error nothing has changed.
    ///
    /// # Errors
    /// [`ConfigurationError::Variable`] for a name that is not known or a value that does not fit.
    pub fn apply_env(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigurationError> {
        let variables = collect(variables)?;
        if variables.is_empty() {
            return self.validate();
        }
        // What no variable touches stays outside of JSON, which cannot say every device.
        let mut untouched = StoragePoolConfiguration::default();
        let mut config = self.clone();
        let touches_tiers = variables.iter().any(|variable| variable.touches(&["storage", "tiers"]));
        if !touches_tiers {
            std::mem::swap(&mut untouched.tiers, &mut config.storage.tiers);
        }
        let mut document =
            serde_path_to_error::serialize(&config, serde_json::value::Serializer).map_err(|error| {
                ConfigurationError::Invalid {
                    path: path_of(error.path()),
                    message: error.inner().to_string(),
                }
            })?;
        for variable in &variables {
            set(&mut document, &variable.path, variable.value.clone())
                .map_err(|message| variable.error(message))?;
        }
        let mut config: Self = serde_path_to_error::deserialize(document)
            .map_err(|error| blame(&variables, path_of(error.path()), error.inner().to_string()))?;
        if !touches_tiers {
            config.storage.tiers = untouched.tiers;
        }
        config.validate().map_err(|error| match error {
            ConfigurationError::Invalid { path, message } => blame(&variables, path, message),
            other => other,
        })?;
        *self = config;
        Ok(())
    }
}

fn from_variables(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<DatabaseConfiguration, ConfigurationError> {
    let mut config = DatabaseConfiguration::default();
    let mut overrides = Vec::new();
    for (name, value) in variables {
        if name == FILE_VARIABLE {
            if !value.is_empty() {
                config = DatabaseConfiguration::from_json_file(value)?;
            }
            continue;
        }
        let name = name.to_string_lossy().into_owned();
        if strip_prefix(&name).is_some() {
            let value = value.into_string().map_err(|_| ConfigurationError::Variable {
                variable: name.clone(),
                path: String::new(),
                message: "the value is not UTF-8".to_owned(),
            })?;
            overrides.push((name, value));
        }
    }
    config.apply_env(overrides)?;
    Ok(config)
}

/// What follows the prefix, in whatever case it is written.
fn strip_prefix(name: &str) -> Option<&str> {
    let prefix = name.get(..PREFIX.len())?;
    prefix.eq_ignore_ascii_case(PREFIX).then(|| &name[PREFIX.len()..])
}

/// A variable on its way into the document.
struct Variable {
    name: String,
    path: Vec<String>,
    value: Value,
}

impl Variable {
    fn error(&self, message: String) -> ConfigurationError {
        let mut path = String::new();
        for segment in &self.path {
            if segment.bytes().all(|byte| byte.is_ascii_digit()) {
                path.push_str(&format!("[{segment}]"));
            } else {
                path.push_str(if path.is_empty() { "" } else { "." });
                path.push_str(segment);
            }
        }
        ConfigurationError::Variable { variable: self.name.clone(), path, message }
    }

    /// Whether the variable may change what is at or below `path`.
    fn touches(&self, path: &[&str]) -> bool {
        let common = self.path.iter().zip(path).take_while(|(a, b)| a == *b).count();
        common == path.len() || (common == self.path.len() && mentions(&self.value, &path[common..]))
    }
}

fn mentions(value: &Value, path: &[&str]) -> bool {
    match (value, path) {
        (Value::Object(fields), [first, rest @ ..]) => {
            fields.get(*first).is_some_and(|value| mentions(value, rest))
        }
        _ => true,
    }
}

/// The variables that are meant for us, in the order of their paths: a whole is set before its parts.
fn collect(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<Variable>, ConfigurationError> {
    let mut by_path: BTreeMap<Vec<String>, Variable> = BTreeMap::new();
    for (name, value) in variables {
        let Some(rest) = strip_prefix(&name) else { continue };
        if rest.eq_ignore_ascii_case("CONFIG") {
            continue;
        }
        let path: Vec<String> = rest.split("__").map(canonical).collect();
        let value = parse_value(&value).unwrap_or(Value::String(value));
        let variable = Variable { name, path, value };
        if variable.path.iter().any(String::is_empty) {
            return Err(ConfigurationError::Variable {
                variable: variable.name,
                path: String::new(),
                message: "a name is missing beside two underscores".to_owned(),
            });
        }
        if let Some(other) = by_path.get(&variable.path) {
            return Err(variable.error(format!("{} sets the same field", other.name)));
        }
        by_path.insert(variable.path.clone(), variable);
    }
    Ok(by_path.into_values().collect())
}

/// A name as the document spells it.
fn canonical(segment: &str) -> String {
    let variant = VARIANTS.into_iter().find(|variant| variant.eq_ignore_ascii_case(segment));
    variant.map_or_else(|| segment.to_ascii_lowercase(), str::to_owned)
}

/// Puts `value` at `path` below `node`.
fn set(node: &mut Value, path: &[String], value: Value) -> Result<(), String> {
    let Some((segment, rest)) = path.split_first() else {
        merge(node, value);
        return Ok(());
    };
    if let Value::Array(items) = node {
        let index: usize = segment.parse().ok().filter(|index| *index <= items.len()).ok_or_else(|| {
            format!("{segment:?} is no position of a list that has {} entries", items.len())
        })?;
        if index == items.len() {
            items.push(Value::Null);
        }
        return set(&mut items[index], rest, value);
    }
    let is_variant = VARIANTS.contains(&segment.as_str());
    match node {
        // Another variant replaces the one that was there.
        Value::Object(fields) if is_variant && !fields.contains_key(segment) => fields.clear(),
        Value::Object(_) => {}
        Value::String(_) if is_variant => *node = Value::Object(Map::new()),
        Value::Null => *node = Value::Object(Map::new()),
        _ => return Err(format!("there is nothing named {segment:?} in {node}")),
    }
    match node {
        Value::Object(fields) => set(fields.entry(segment.as_str()).or_insert(Value::Null), rest, value),
        _ => Err(format!("there is nothing named {segment:?} in {node}")),
    }
}

/// Replaces `node`, or, where both are objects, its fields that `value` names. The depth of `value` is bounded.
fn merge(node: &mut Value, value: Value) {
    match (node, value) {
        (Value::Object(old), Value::Object(new)) => {
            if new.keys().any(|key| VARIANTS.contains(&key.as_str()) && !old.contains_key(key)) {
                old.clear();
            }
            for (key, value) in new {
                merge(old.entry(key).or_insert(Value::Null), value);
            }
        }
        (node, value) => *node = value,
    }
}

/// The error of the variable that is nearest to `path`.
fn blame(variables: &[Variable], path: String, message: String) -> ConfigurationError {
    let wrong = segments(&path);
    let nearness =
        |variable: &&Variable| variable.path.iter().zip(&wrong).take_while(|(a, b)| a == *b).count();
    match variables.iter().max_by_key(nearness) {
        Some(variable) if nearness(&variable) > 0 => {
            ConfigurationError::Variable { variable: variable.name.clone(), path, message }
        }
        _ => ConfigurationError::Invalid { path, message },
    }
}

/// Reads a value by the grammar at the top; `None` when it is a plain string.
fn parse_value(text: &str) -> Option<Value> {
    let mut parser = Parser { rest: text.trim() };
    if !parser.rest.starts_with(['{', '[', '"', '\'']) {
        return scalar(parser.rest);
    }
    let value = parser.value(0)?;
    parser.rest.trim().is_empty().then_some(value)
}

/// null, a truth value or a number.
fn scalar(text: &str) -> Option<Value> {
    serde_json::from_str(text)
        .ok()
        .filter(|value: &Value| !value.is_string() && !value.is_array() && !value.is_object())
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn value(&mut self, depth: usize) -> Option<Value> {
        self.rest = self.rest.trim_start();
        if depth == DEPTH_MAX {
            return None;
        }
        if self.take('[') {
            let mut items = Vec::new();
            while !self.take(']') {
                if !items.is_empty() && !self.take(',') {
                    return None;
                }
                items.push(self.value(depth + 1)?);
            }
            return Some(Value::Array(items));
        }
        if self.take('{') {
            let mut fields = Map::new();
            while !self.take('}') {
                if !fields.is_empty() && !self.take(',') {
                    return None;
                }
                let Value::String(key) = self.text(&['=', ':'])? else { return None };
                if !(self.take('=') || self.take(':')) {
                    return None;
                }
                let value = self.value(depth + 1)?;
                if fields.insert(key, value).is_some() {
                    return None;
                }
            }
            return Some(Value::Object(fields));
        }
        let quoted = self.rest.starts_with(['"', '\'']);
        match self.text(&[',', ']', '}'])? {
            Value::String(bare) if !quoted => Some(scalar(&bare).unwrap_or(Value::String(bare))),
            value => Some(value),
        }
    }

    /// Takes `symbol` after white space.
    fn take(&mut self, symbol: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(symbol) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A quoted string, or what stands before one of `ends`.
    fn text(&mut self, ends: &[char]) -> Option<Value> {
        self.rest = self.rest.trim_start();
        if let Some(inside) = self.rest.strip_prefix('\'') {
            let (text, rest) = inside.split_once('\'')?;
            self.rest = rest;
            return Some(Value::String(text.to_owned()));
        }
        if self.rest.starts_with('"') {
            let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<String>();
            let text = values.next()?.ok()?;
            let read = values.byte_offset();
            self.rest = self.rest.get(read..)?;
            return Some(Value::String(text));
        }
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (bare, rest) = self.rest.split_at(end);
        self.rest = rest;
        let bare = bare.trim_end();
        (!bare.is_empty()).then(|| Value::String(bare.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::compression::Compression;
    use crate::pool::{LeafVdev, TierConfiguration};
    use crate::vdev::{BlockDevice, MemoryDevice};
    use proptest::prelude::*;
    use serde_json::json;
    use std::sync::Arc;

    fn apply(pairs: &[(&str, &str)]) -> Result<DatabaseConfiguration, ConfigurationError> {
        let mut config = DatabaseConfiguration::default();
        config.apply_env(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))?;
        Ok(config)
    }

    #[test]
    fn values_are_json_or_nearly() {
        for (text, value) in [
            ("5", Some(json!(5))),
            ("null", Some(json!(null))),
            (" true ", Some(json!(true))),
            ("4GiB", None),
            ("/a/b", None),
            ("", None),
            ("\"5\"", Some(json!("5"))),
            ("'5'", Some(json!("5"))),
            ("[[0],[1],[],[]]", Some(json!([[0], [1], [], []]))),
            ("[ 0, a b , \"c,d\", 'e]' ]", Some(json!([0, "a b", "c,d", "e]"]))),
            ("{ Zstd = { level = 3 } }", Some(json!({"Zstd": {"level": 3}}))),
            ("{\"Zstd\":{\"level\":3}}", Some(json!({"Zstd": {"level": 3}}))),
            ("{ path = /dev/a:b, size = 1GiB }", Some(json!({"path": "/dev/a:b", "size": "1GiB"}))),
            ("{}", Some(json!({}))),
            ("{ a = 1, a = 2 }", None),
            ("{ a = 1", None),
            ("{ a = 1 } x", None),
            ("{ a 1 }", None),
            ("{ = 1 }", None),
            ("[1 2", None),
            ("[,]", None),
            ("\"open", None),
            ("'open", None),
        ] {
            assert_eq!(parse_value(text), value, "{text}");
        }
        assert_eq!(parse_value(&"[".repeat(100_000)), None);
        assert_eq!(parse_value(&format!("{}{}", "[".repeat(40), "]".repeat(40))), None);
    }

    #[test]
    fn variables_set_fields() {
        let config = apply(&[
            ("BETREE__CACHE_SIZE", "4GiB"),
            ("betree__storage__Queue_Depth_Factor", "7"),
            (
                "BETREE__STORAGE__TIERS",
                "[{ top_level_vdevs = [{ mem = 1GiB }] }, { top_level_vdevs = [./a] }]",
            ),
            ("BETREE__STORAGE__TIERS__0__LABEL", "fast"),
            ("BETREE__ALLOC_STRATEGY", "[[0],[1],[],[]]"),
            ("BETREE__ALLOC_STRATEGY__2", "[1, 0]"),
            ("BETREE__COMPRESSION", "{ Zstd = { level = 3 } }"),
            ("BETREE__COMPRESSION__ZSTD__LEVEL", "4"),
            ("BETREE__SYNC_INTERVAL_MS", "null"),
            ("BETREE__ACCESS_MODE", "OpenOrCreate"),
            ("BETREE__METRICS__INTERVAL_MS", "100"),
            ("BETREE__MIGRATION_POLICY__LFU__MIGRATION_THRESHOLD", "0.5"),
            ("BETREE__DEFAULT_DATASET__BLOCK_SIZE", "4KiB"),
            ("BETREE__CONFIG", "ignored"),
            ("BETREE_CONFIG", "ignored"),
            ("PATH", "ignored"),
        ])
        .unwrap();
        assert_eq!(config.cache_size, 4 << 30);
        assert_eq!(config.storage.queue_depth_factor, 7);
        let mut tiers = vec![
            TierConfiguration::new(vec![LeafVdev::memory(1 << 30).into()]),
            TierConfiguration::new(vec![LeafVdev::file("./a").into()]),
        ];
        tiers[0].label = Some("fast".to_owned());
        assert_eq!(config.storage.tiers, tiers);
        assert_eq!(config.alloc_strategy, [vec![0], vec![1], vec![1, 0], vec![]]);
        assert_eq!(config.compression, Compression::Zstd { level: 4 });
        assert_eq!(config.sync_interval_ms, None);
        assert_eq!(config.access_mode, crate::database::AccessMode::OpenOrCreate);
        assert_eq!(config.metrics.unwrap().interval_ms, 100);
        assert_eq!(config.default_dataset.block_size, 4096);
        let Some(crate::database::MigrationPolicies::Lfu(lfu)) = config.migration_policy else { panic!() };
        assert_eq!(lfu.migration_threshold, [0.5; 4]);
    }

    #[test]
    fn an_object_leaves_what_it_does_not_name() {
        let mut before =
            DatabaseConfiguration { compression: Compression::Zstd { level: 9 }, ..Default::default() };
        before.storage.tiers = vec![TierConfiguration::new(vec![LeafVdev::file("/x").into()])];
        let set = |pairs: &[(&str, &str)]| {
            let mut config = before.clone();
            config.apply_env(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))).map(|()| config)
        };
        let changed = set(&[("BETREE__STORAGE", "{ degraded = true }")]).unwrap();
        assert!(changed.storage.degraded);
        assert_eq!(changed.storage.tiers, before.storage.tiers);
        assert_eq!(
            set(&[("BETREE__COMPRESSION", "{ Lz4 = { level = 1 } }")]).unwrap().compression,
            Compression::Lz4
        );
        assert_eq!(set(&[("BETREE__COMPRESSION__LZ4__LEVEL", "1")]).unwrap().compression, Compression::Lz4);
        assert_eq!(set(&[("BETREE__COMPRESSION", "None")]).unwrap().compression, Compression::None);
        assert_eq!(set(&[]).unwrap(), before);
    }

    #[test]
    fn a_programs_devices_survive_other_variables() {
        let device: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(1 << 20));
        let mut config = DatabaseConfiguration::default();
        config.storage.tiers = vec![[LeafVdev::from(device).into()].into_iter().collect()];
        let before = config.clone();
        for (name, value) in [
            ("BETREE__CACHE_SIZE", "1MiB"),
            ("BETREE__STORAGE__DEGRADED", "true"),
            ("BETREE__STORAGE", "{ degraded = false }"),
        ] {
            config.apply_env([(name.to_owned(), value.to_owned())]).unwrap();
        }
        assert_eq!(config.cache_size, 1 << 20);
        assert_eq!(config.storage, before.storage);
        let error =
            config.apply_env([("BETREE__STORAGE__TIERS__0__LABEL".to_owned(), "a".to_owned())]).unwrap_err();
        assert_eq!(error.path(), Some("storage.tiers[0].top_level_vdevs[0]"), "{error}");
    }

    #[test]
    fn errors_name_the_variable() {
        for (pairs, variable, expected) in [
            (&[("BETREE__CACH_SIZE", "1")][..], "BETREE__CACH_SIZE", "unknown field `cach_size`"),
            (&[("BETREE__CACHE_SIZE", "lots")], "BETREE__CACHE_SIZE", "cache_size: \"lots\" is not a size"),
            (&[("BETREE__CACHE_SIZE", "-1")], "BETREE__CACHE_SIZE", "expected a size"),
            (&[("BETREE__CACHE_SIZE", "1e300")], "BETREE__CACHE_SIZE", "expected a size"),
            (&[("BETREE__CACHE_SIZE", "1ZiB")], "BETREE__CACHE_SIZE", "is not a size"),
            (&[("BETREE__CACHE_SIZE", "16777216TiB")], "BETREE__CACHE_SIZE", "exceeds 64 bits"),
            (&[("BETREE__CACHE_SIZE", "1000000TiB")], "BETREE__CACHE_SIZE", "bytes are not from 0 to"),
            (&[("BETREE__CACHE_SIZE__X", "1")], "BETREE__CACHE_SIZE__X", "there is nothing named \"x\""),
            (
                &[("BETREE__STORAGE__DEPTH", "1"), ("BETREE__STORAGE__DEGRADED", "true")],
                "BETREE__STORAGE__DEPTH",
                "unknown field `depth`",
            ),
            (&[("BETREE__STORAGE__TIERS__5__LABEL", "x")], "BETREE__STORAGE__TIERS__5__LABEL", "no position"),
            (&[("BETREE__STORAGE__TIERS__x", "x")], "BETREE__STORAGE__TIERS__x", "no position"),
            (&[("BETREE__", "1")], "BETREE__", "a name is missing"),
            (&[("BETREE__STORAGE____X", "1")], "BETREE__STORAGE____X", "a name is missing"),
            (
                &[("BETREE__LOG_TIER", "1"), ("betree__log_tier", "2")],
                "betree__log_tier",
                "sets the same field",
            ),
            (&[("BETREE__COMPRESSION__ZSTD__LEVEL", "23")], "BETREE__COMPRESSION__ZSTD__LEVEL", "zstd level"),
            (&[("BETREE__COMPRESSION", "{ Zstd = { level = 300 } }")], "BETREE__COMPRESSION", "u8"),
            (&[("BETREE__COMPRESSION", "{ Zstd = ")], "BETREE__COMPRESSION", "expected \"None\""),
            (
                &[("BETREE__CACHE_SIZE", "1"), ("BETREE__DEFAULT_STORAGE_CLASS", "4")],
                "BETREE__DEFAULT_STORAGE_CLASS",
                "is not a storage class",
            ),
            (
                &[("BETREE__ALLOC_STRATEGY", "[[0],[1],[7],[]]")],
                "BETREE__ALLOC_STRATEGY",
                "alloc_strategy[2][0]: 7",
            ),
            (&[("BETREE__STORAGE", "{ tiers = [[{mirror = [./a]}]] }")], "BETREE__STORAGE", "at least 2"),
        ] {
            match apply(pairs) {
                Err(error @ ConfigurationError::Variable { .. }) => {
                    let ConfigurationError::Variable { variable: named, .. } = &error else { continue };
                    assert_eq!(named, variable, "{error}");
                    assert!(error.to_string().contains(expected), "{pairs:?}: {error}");
                }
                other => panic!("{pairs:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_error_changes_nothing() {
        let mut config = DatabaseConfiguration::default();
        let pairs = [("BETREE__CACHE_SIZE", "1"), ("BETREE__MEMTABLE_SIZE", "1")];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        config.apply_env(pairs).unwrap_err();
        assert_eq!(config, DatabaseConfiguration::default());
    }

    #[test]
    fn the_file_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.json");
        std::fs::write(&path, r#"{"cache_size": 1, "log_tier": 2}"#).unwrap();
        let set = |pairs: Vec<(&str, OsString)>| {
            from_variables(pairs.into_iter().map(|(name, value)| (OsString::from(name), value)))
        };
        let config =
            set(vec![("BETREE__CACHE_SIZE", "2".into()), ("BETREE_CONFIG", path.clone().into())]).unwrap();
        assert_eq!((config.cache_size, config.log_tier), (2, Some(2)));
        assert_eq!(set(vec![("BETREE_CONFIG", "".into())]).unwrap(), DatabaseConfiguration::default());
        let missing = set(vec![("BETREE_CONFIG", directory.path().join("none").into())]).unwrap_err();
        assert!(matches!(missing, ConfigurationError::File { .. }));
        use std::os::unix::ffi::OsStringExt;
        let not_utf8 = || OsString::from_vec(vec![0xFF]);
        let error = set(vec![("BETREE__CACHE_SIZE", not_utf8())]).unwrap_err().to_string();
        assert!(error.contains("BETREE__CACHE_SIZE: the value is not UTF-8"), "{error}");
        set(vec![("OTHER", not_utf8())]).unwrap();
    }

    proptest! {
        #[test]
        fn nothing_panics(
            name in "BETREE__[A-Z_0-9a-zé]{0,30}|BETREE__(STORAGE|COMPRESSION|ALLOC_STRATEGY|METRICS)(__[A-Z0-9]{0,8}){0,4}",
            value in "(?s).*|[\\[\\]{}=:,'\" a-z0-9.]{0,40}",
        ) {
            let mut config = DatabaseConfiguration::default();
            let _ = config.apply_env([(name, value)]);
        }

        #[test]
        fn json_is_read_as_json(numbers in prop::collection::vec(any::<i64>(), 0..4), text in "(?s).*") {
            let value = json!({"a": numbers, "b": {text.clone(): [text, null, true, 1.5]}});
            prop_assert_eq!(parse_value(&value.to_string()), Some(value.clone()));
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(parse_value(&pretty), Some(value));
        }
    }
}
