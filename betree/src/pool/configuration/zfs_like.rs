//! A tier in words, as `zpool create` takes them.
//!
//! ```text
//! tier   := (leaf | group | setting)*
//! group  := ("mirror" | "parity" | "parity1" | "parity2" | "single") leaf*
//! leaf   := path option* | "file:" any-path option* | "mem:" SIZE
//! option := ":" SIZE | ":size=" SIZE | ":direct=" BOOL | ":sparse=" BOOL
//! setting:= "access=" ACCESS-TYPE | "kind=" STORAGE-KIND | "label=" TEXT
//! ```
//!
//! A path starts with `.` or `/`; any other needs `file:` before it. A group word takes all leaves up to the next
//! group word; `single` ends a group, its leaves stand alone. `parity` is `parity1`. Settings belong to the tier,
//! wherever they stand. A SIZE is written as in JSON (`1GiB`); bare digits below 4096 belong to the path, because names
//! of SCSI and USB devices end in such numbers. A backslash takes the meaning from the character after it: `\:` in a
//! path that would else be read as an option, `\ ` where the words are one string. All that JSON can say of a tier,
//! these words can.

use super::{
    ConfigurationError, FileLeaf, LeafVdev, PreferredAccessType, StorageKind, TierConfiguration, Vdev,
};
use crate::base::units::{BLOCK_BYTES_U64, parse_bytes};
use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

impl TierConfiguration {
    /// Reads a tier from words: leaves (`./a.img:1GiB`, `/dev/sdb`, `mem:256MiB`), each alone or after `mirror`,
    /// `parity1` or `parity2`, which take all leaves that follow.
    ///
    /// ```text
    /// tier   := (leaf | group | setting)*
    /// group  := ("mirror" | "parity" | "parity1" | "parity2" | "single") leaf*
    /// leaf   := path option* | "file:" any-path option* | "mem:" SIZE
    /// option := ":" SIZE | ":size=" SIZE | ":direct=" BOOL | ":sparse=" BOOL
    /// setting:= "access=" ACCESS-TYPE | "kind=" STORAGE-KIND | "label=" TEXT
    /// ```
    ///
    /// A path starts with `.` or `/`; any other needs `file:` before it. `single` ends a group. A backslash takes the
    /// meaning from the character after it. No words are an empty tier.
    ///
    /// # Errors
    /// [`ConfigurationError::Token`] with the word that does not fit: an unknown word or option, a size that cannot
    /// be, a mirror of fewer than two leaves, parity1 of fewer than three, parity2 of fewer than four.
    pub fn parse_zfs_like<T: AsRef<str>>(
        tokens: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigurationError> {
        let mut tier = Self::default();
        // The group that takes leaves at the moment, with the position and text of its word.
        let mut open: Option<(Vdev, usize, String)> = None;
        for (index, token) in tokens.into_iter().enumerate() {
            let (position, token) = (index + 1, token.as_ref());
            let fail = |message| ConfigurationError::Token { position, token: token.to_owned(), message };
            let group = match token {
                "mirror" => Some(Vdev::Mirror(Vec::new())),
                "parity" | "parity1" => Some(Vdev::Parity1(Vec::new())),
                "parity2" => Some(Vdev::Parity2(Vec::new())),
                "single" => None,
                _ => {
                    let chars = unescape(token).map_err(fail)?;
                    if tier.read_setting(&chars).map_err(fail)? {
                        continue;
                    }
                    let leaf = read_leaf(&chars).map_err(fail)?;
                    leaf.check().map_err(fail)?;
                    match &mut open {
                        Some((Vdev::Mirror(legs) | Vdev::Parity1(legs) | Vdev::Parity2(legs), ..)) => {
                            legs.push(leaf);
                        }
                        _ => tier.top_level_vdevs.push(leaf.into()),
                    }
                    continue;
                }
            };
            tier.close(open.take())?;
            open = group.map(|vdev| (vdev, position, token.to_owned()));
        }
        tier.close(open)?;
        Ok(tier)
    }

    /// The words for this tier, joined by spaces; [`FromStr`] reads them back. A device that the program brought
    /// prints as `device:NAME` and cannot be read back; neither can a path that is not UTF-8.
    #[must_use]
    pub fn zfs_like(&self) -> String {
        self.to_string()
    }

    fn close(&mut self, open: Option<(Vdev, usize, String)>) -> Result<(), ConfigurationError> {
        if let Some((vdev, position, token)) = open {
            vdev.check_legs().map_err(|message| ConfigurationError::Token { position, token, message })?;
            self.top_level_vdevs.push(vdev);
        }
        Ok(())
    }

    /// Takes `key=value`; `false` when the word is not a setting.
    fn read_setting(&mut self, chars: &[Char]) -> Result<bool, String> {
        let Some(equals) = chars.iter().position(|c| c.is_plain('=')) else { return Ok(false) };
        let (key, value) = (text(&chars[..equals]), text(&chars[equals + 1..]));
        match key.as_str() {
            "access" => {
                self.preferred_access_type = named(&PreferredAccessType::ALL, &value)?;
            }
            "kind" => self.storage_kind = named(&StorageKind::ALL, &value)?,
            "label" => self.label = Some(value),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl FromStr for TierConfiguration {
    type Err = ConfigurationError;

    /// Reads [`TierConfiguration::parse_zfs_like`] words that are separated by white space.
    fn from_str(words: &str) -> Result<Self, ConfigurationError> {
        let mut tokens: Vec<String> = Vec::new();
        let mut inside = false;
        let mut escaped = false;
        for c in words.chars() {
            if c.is_whitespace() && !escaped {
                inside = false;
                continue;
            }
            if !inside {
                tokens.push(String::new());
                inside = true;
            }
            if let Some(token) = tokens.last_mut() {
                token.push(c);
            }
            escaped = c == '\\' && !escaped;
        }
        Self::parse_zfs_like(tokens)
    }
}

impl fmt::Display for TierConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if self.preferred_access_type != PreferredAccessType::default() {
            words.push(format!("access={}", name_of(&PreferredAccessType::ALL, self.preferred_access_type)));
        }
        if self.storage_kind != StorageKind::default() {
            words.push(format!("kind={}", name_of(&StorageKind::ALL, self.storage_kind)));
        }
        if let Some(label) = &self.label {
            words.push(format!("label={}", escape(label, false)));
        }
        let mut in_group = false;
        for vdev in &self.top_level_vdevs {
            match vdev.group_word() {
                Some(word) => words.push(word.to_owned()),
                None if in_group => words.push("single".to_owned()),
                None => {}
            }
            in_group = vdev.group_word().is_some();
            words.extend(vdev.leaves().iter().map(write_leaf));
        }
        f.write_str(&words.join(" "))
    }
}

/// A character of a word, and whether a backslash stood before it.
#[derive(Clone, Copy, PartialEq)]
struct Char {
    value: char,
    escaped: bool,
}

impl Char {
    fn is_plain(self, value: char) -> bool {
        self == Self { value, escaped: false }
    }
}

fn unescape(token: &str) -> Result<Vec<Char>, String> {
    let mut chars = token.chars();
    let mut out = Vec::with_capacity(token.len());
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => {
                let value = chars.next().ok_or("ends in a lone backslash; write two for one")?;
                Char { value, escaped: true }
            }
            value => Char { value, escaped: false },
        });
    }
    Ok(out)
}

/// `text` with a backslash before whatever [`FromStr`] would take apart, and before colons on demand.
fn escape(text: &str, colons: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\\' || c.is_whitespace() || (colons && c == ':') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn text(chars: &[Char]) -> String {
    chars.iter().map(|c| c.value).collect()
}

fn named<T: Copy>(all: &[(T, &str)], name: &str) -> Result<T, String> {
    all.iter().find(|(_, known)| *known == name).map(|(value, _)| *value).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(_, known)| *known).collect();
        format!("{name:?} is none of {}", names.join(", "))
    })
}

/// The name of `value`; `all` has every value.
fn name_of<T: PartialEq>(all: &[(T, &'static str)], value: T) -> &'static str {
    all.iter().find(|(known, _)| *known == value).map_or("", |(_, name)| name)
}

fn strip_prefix<'a>(chars: &'a [Char], prefix: &str) -> Option<&'a [Char]> {
    let plain = prefix.chars().zip(chars).all(|(value, c)| c.is_plain(value));
    (chars.len() >= prefix.len() && plain).then(|| &chars[prefix.len()..])
}

fn read_leaf(chars: &[Char]) -> Result<LeafVdev, String> {
    if let Some(size) = strip_prefix(chars, "mem:") {
        return parse_bytes(&text(size)).map(LeafVdev::memory);
    }
    let mut rest = match strip_prefix(chars, "file:") {
        Some(rest) => rest,
        None if chars.first().is_some_and(|c| c.is_plain('.') || c.is_plain('/')) => chars,
        None => {
            return Err(
                "expected mirror, parity1, parity2, single, a path that starts with . or /, file:PATH, \
                        mem:SIZE, access=…, kind=… or label=…"
                    .to_owned(),
            );
        }
    };
    let mut direct = None;
    let mut size = None;
    let mut sparse = None;
    while let Some(colon) = rest.iter().rposition(|c| c.is_plain(':')) {
        let Some(option) = read_option(&text(&rest[colon + 1..]))? else { break };
        let again = match option {
            FileOption::Size(bytes) => size.replace(bytes).is_some(),
            FileOption::Direct(value) => direct.replace(value).is_some(),
            FileOption::Sparse(value) => sparse.replace(value).is_some(),
        };
        if again {
            return Err("an option is given twice".to_owned());
        }
        rest = &rest[..colon];
    }
    Ok(LeafVdev::File(FileLeaf {
        path: text(rest).into(),
        direct: direct.unwrap_or(true),
        size,
        sparse: sparse.unwrap_or(false),
    }))
}

enum FileOption {
    Size(u64),
    Direct(bool),
    Sparse(bool),
}

/// Reads what stands after a colon; `None` when it is part of the path.
fn read_option(option: &str) -> Result<Option<FileOption>, String> {
    let boolean = |value: &str| {
        value.parse::<bool>().map_err(|_| format!("{value:?} in {option:?} is neither true nor false"))
    };
    Ok(match option.split_once('=') {
        Some(("size", value)) => Some(FileOption::Size(parse_bytes(value)?)),
        Some(("direct", value)) => Some(FileOption::Direct(boolean(value)?)),
        Some(("sparse", value)) => Some(FileOption::Sparse(boolean(value)?)),
        Some((key, _)) if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase()) => {
            return Err(format!(
                "unknown option {key:?}; there are size, direct and sparse (write \\: for a colon of the path)"
            ));
        }
        Some(_) => None,
        None => {
            let bare = option.bytes().all(|byte| byte.is_ascii_digit());
            match parse_bytes(option) {
                Ok(bytes) => Some(FileOption::Size(bytes)).filter(|_| !bare || bytes >= BLOCK_BYTES_U64),
                Err(message) if is_too_large(option) => return Err(message),
                Err(_) => None,
            }
        }
    })
}

/// Whether `option`, which cannot be read as a size, is one beyond all limits: a number, and at most a unit.
fn is_too_large(option: &str) -> bool {
    let number = option.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && parse_bytes(&format!("1{}", &option[number.len()..])).is_ok()
}

fn write_leaf(leaf: &LeafVdev) -> String {
    let file = match leaf {
        LeafVdev::File(file) => file,
        LeafVdev::Memory { mem } => return format!("mem:{}", exact_size(*mem)),
        LeafVdev::Device(handle) => return format!("device:{}", escape(handle.device().name(), false)),
    };
    let path = file.path.to_string_lossy();
    let prefix = if path.starts_with(['.', '/']) { "" } else { "file:" };
    let mut options = String::new();
    // Writing to a string cannot fail.
    if let Some(bytes) = file.size {
        let key = if bytes < BLOCK_BYTES_U64 { "size=" } else { "" };
        let _ = write!(options, ":{key}{}", exact_size(bytes));
    }
    if !file.direct {
        options.push_str(":direct=false");
    }
    if file.sparse {
        options.push_str(":sparse=true");
    }
    // Colons of the path stay as they are where they are read back as part of it.
    let plain = format!("{prefix}{}{options}", escape(&path, false));
    if unescape(&plain).and_then(|chars| read_leaf(&chars)).is_ok_and(|read| read == *leaf) {
        return plain;
    }
    format!("{prefix}{}{options}", escape(&path, true))
}

/// `bytes` with the largest unit that says it exactly.
fn exact_size(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, direct: bool, size: Option<u64>, sparse: bool) -> LeafVdev {
        LeafVdev::File(FileLeaf { path: path.into(), direct, size, sparse })
    }

    #[test]
    fn words_become_vdevs() {
        let (a, b, c) = (LeafVdev::file("./a"), LeafVdev::file("/b"), LeafVdev::file("./c"));
        let d = LeafVdev::file("./d");
        for (words, vdevs) in [
            ("", vec![]),
            ("./a /b", vec![a.clone().into(), b.clone().into()]),
            ("./a mirror /b ./c", vec![a.clone().into(), Vdev::Mirror(vec![b.clone(), c.clone()])]),
            (
                "mirror ./a /b mirror ./c ./d",
                vec![Vdev::Mirror(vec![a.clone(), b.clone()]), Vdev::Mirror(vec![c.clone(), d.clone()])],
            ),
            ("parity ./a /b ./c", vec![Vdev::Parity1(vec![a.clone(), b.clone(), c.clone()])]),
            ("parity1 ./a /b ./c", vec![Vdev::Parity1(vec![a.clone(), b.clone(), c.clone()])]),
            ("parity2 ./a /b ./c ./d", vec![Vdev::Parity2(vec![a.clone(), b.clone(), c.clone(), d.clone()])]),
            ("mirror ./a /b single ./c", vec![Vdev::Mirror(vec![a, b]), c.into()]),
            ("mem:256MiB", vec![LeafVdev::memory(256 << 20).into()]),
            ("./a:1GiB", vec![file("./a", true, Some(1 << 30), false).into()]),
            ("./a:1048576", vec![file("./a", true, Some(1 << 20), false).into()]),
            ("./a:sparse=true:1GiB:direct=false", vec![file("./a", false, Some(1 << 30), true).into()]),
            ("file:a:size=8KiB", vec![file("a", true, Some(8192), false).into()]),
            (
                "/dev/disk/by-path/pci-0000:00:1f.2-scsi-0:0:1:1",
                vec![LeafVdev::file("/dev/disk/by-path/pci-0000:00:1f.2-scsi-0:0:1:1").into()],
            ),
            (r"./a\:1GiB", vec![LeafVdev::file("./a:1GiB").into()]),
            (r"./a\ b", vec![LeafVdev::file("./a b").into()]),
        ] {
            let tier: TierConfiguration = words.parse().unwrap();
            assert_eq!(tier, TierConfiguration::new(vdevs), "{words}");
            assert_eq!(tier.zfs_like().parse::<TierConfiguration>().unwrap(), tier, "{words}");
        }
        assert_eq!(
            TierConfiguration::parse_zfs_like(["./a b"]).unwrap(),
            TierConfiguration::new(vec![LeafVdev::file("./a b").into()])
        );
    }

    #[test]
    fn settings_belong_to_the_tier() {
        let words = r"access=RandomRead kind=Ssd label=fast\ ones mirror ./a ./b";
        let tier: TierConfiguration = words.parse().unwrap();
        assert_eq!(tier.preferred_access_type, PreferredAccessType::RandomRead);
        assert_eq!(tier.storage_kind, StorageKind::Ssd);
        assert_eq!(tier.label.as_deref(), Some("fast ones"));
        assert_eq!(tier.to_string(), words);
        let mixed = r"mirror ./a kind=Ssd label=fast\ ones ./b access=RandomRead";
        assert_eq!(mixed.parse::<TierConfiguration>().unwrap(), tier);
    }

    #[test]
    fn words_print_plainly() {
        for words in [
            "./a.img:1GiB",
            "/dev/disk/by-path/pci-0000:00:1f.2-ata-1",
            r"/dev/x\:00001",
            r"./a\:4096",
            "mem:12345",
            "file:relative/path:direct=false",
        ] {
            // "00001" is small and bare, so that its colon needs no backslash.
            let plain = words.replace(r"\:00001", ":00001");
            assert_eq!(words.parse::<TierConfiguration>().unwrap().to_string(), plain);
        }
    }

    #[test]
    fn wrong_words_are_named() {
        for (words, position, expected) in [
            ("./a mirrored ./b", 2, "expected mirror"),
            ("mirror", 1, "a mirror needs at least 2 leaves, not 0"),
            ("mirror ./a", 1, "a mirror needs at least 2 leaves, not 1"),
            ("./x parity ./a ./b", 2, "a parity1 group needs at least 3 leaves, not 2"),
            ("parity2 ./a ./b ./c mirror ./d ./e", 1, "a parity2 group needs at least 4"),
            ("mem:", 1, "is not a size"),
            ("mem:12", 1, "less than one block"),
            ("mem:9999999TiB", 1, ""),
            ("./a:1KiB", 1, "less than one block"),
            ("./a:99999999999TiB", 1, "exceeds 64 bits"),
            ("./a:99999999999999999999", 1, "exceeds 64 bits"),
            ("./a:size=-1", 1, "is not a size"),
            ("./a:dirct=false", 1, "unknown option \"dirct\""),
            ("./a:direct=no", 1, "neither true nor false"),
            ("./a:1GiB:2GiB", 1, "twice"),
            ("kind=Tape", 1, "none of Hdd, Memory, Ssd"),
            ("colour=red", 1, "expected mirror"),
            (r"./a\", 1, "lone backslash"),
            ("file:", 1, "the path is empty"),
            ("./a mem:0", 2, "less than one block"),
        ] {
            match words.parse::<TierConfiguration>() {
                Err(ConfigurationError::Token { position: at, message, .. }) => {
                    assert_eq!(at, position, "{words}");
                    assert!(message.contains(expected), "{words}: {message}");
                }
                other => panic!("{words}: {other:?}"),
            }
        }
        assert!(TierConfiguration::parse_zfs_like([""]).is_err());
    }
}
