//! Vdevs as they are configured: a leaf, or leaves that guard each other.

use super::{Bytes, FieldOf};
use crate::base::units::{BLOCK_BYTES_U64, format_bytes};
use crate::vdev::BlockDevice;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::{Error as _, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

/// Most leaves of a mirror or parity group: as many as its labels can list.
const LEGS_MAX: usize = super::super::format::LEAVES_MAX;
/// Largest memory leaf, 4 TiB: beyond it a typo is likelier than such a machine.
const MEMORY_BYTES_MAX: u64 = 1 << 42;
/// Largest file that is created, 1 EiB: below what file offsets (63 bits) can say.
const FILE_BYTES_MAX: u64 = 1 << 60;

/// A vdev of a tier. In JSON: a leaf, `{"mirror": [leaf, …]}`, `{"parity1": [leaf, …]}` or `{"parity2": [leaf, …]}`.
#[derive(Debug, Clone, PartialEq)]
pub enum Vdev {
    /// A device on its own.
    Leaf(LeafVdev),
    /// Every leaf holds everything; at least two.
    Mirror(Vec<LeafVdev>),
    /// Any one leaf may fail; at least three.
    Parity1(Vec<LeafVdev>),
    /// Any two leaves may fail; at least four.
    Parity2(Vec<LeafVdev>),
}

impl Vdev {
    /// The leaves, in order.
    #[must_use]
    pub fn leaves(&self) -> &[LeafVdev] {
        match self {
            Self::Leaf(leaf) => std::slice::from_ref(leaf),
            Self::Mirror(legs) | Self::Parity1(legs) | Self::Parity2(legs) => legs,
        }
    }

    /// The word for the group in JSON and in zfs-like descriptions; `None` for a leaf.
    #[must_use]
    pub fn group_word(&self) -> Option<&'static str> {
        match self {
            Self::Leaf(_) => None,
            Self::Mirror(_) => Some("mirror"),
            Self::Parity1(_) => Some("parity1"),
            Self::Parity2(_) => Some("parity2"),
        }
    }

    /// Checks the number of leaves of a group; the error is a message.
    pub(super) fn check_legs(&self) -> Result<(), String> {
        let (name, least) = match self {
            Self::Leaf(_) => return Ok(()),
            Self::Mirror(_) => ("a mirror", 2),
            Self::Parity1(_) => ("a parity1 group", 3),
            Self::Parity2(_) => ("a parity2 group", 4),
        };
        match self.leaves().len() {
            count if count < least => Err(format!("{name} needs at least {least} leaves, not {count}")),
            count if count > LEGS_MAX => Err(format!("{name} has at most {LEGS_MAX} leaves, not {count}")),
            _ => Ok(()),
        }
    }
}

impl From<LeafVdev> for Vdev {
    fn from(leaf: LeafVdev) -> Self {
        Self::Leaf(leaf)
    }
}

/// A single device. In JSON: `"path"`, `{"path": …, "direct": …, "size": …, "sparse": …}` or `{"mem": size}`.
#[derive(Debug, Clone, PartialEq)]
pub enum LeafVdev {
    /// A file or block device.
    File(FileLeaf),
    /// Memory that vanishes with the process.
    Memory {
        /// Bytes.
        mem: u64,
    },
    /// A device that the program brings; it cannot be written as JSON.
    Device(DeviceHandle),
}

impl LeafVdev {
    /// The file or block device at `path`, opened for direct I/O.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(FileLeaf::new(path))
    }

    /// `bytes` bytes of memory.
    #[must_use]
    pub const fn memory(bytes: u64) -> Self {
        Self::Memory { mem: bytes }
    }

    /// Checks path and sizes without touching anything; the error is a message.
    pub(super) fn check(&self) -> Result<(), String> {
        let (bytes, max) = match self {
            Self::File(file) if file.path.as_os_str().is_empty() => {
                return Err("the path is empty".to_owned());
            }
            Self::File(FileLeaf { size: Some(bytes), .. }) => (*bytes, FILE_BYTES_MAX),
            Self::Memory { mem } => (*mem, MEMORY_BYTES_MAX),
            Self::File(_) | Self::Device(_) => return Ok(()),
        };
        if bytes < BLOCK_BYTES_U64 {
            Err(format!("a size of {bytes} bytes is less than one block of {BLOCK_BYTES_U64}"))
        } else if bytes > max {
            Err(format!("a size of {bytes} bytes is more than the {} that it may have", format_bytes(max)))
        } else {
            Ok(())
        }
    }
}

impl From<Arc<dyn BlockDevice>> for LeafVdev {
    fn from(device: Arc<dyn BlockDevice>) -> Self {
        Self::Device(DeviceHandle::new(device))
    }
}

/// A leaf that is a file or block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLeaf {
    /// Where it is; relative to the working directory.
    pub path: PathBuf,
    /// Bypass the page cache (`O_DIRECT`); the default.
    pub direct: bool,
    /// Bytes with which a file is created when the pool is initialised, whole blocks of it are used. Without it the
    /// file must exist. The JSON key `len` is the same.
    pub size: Option<u64>,
    /// Create the file without reserving its space. The host file system may then be full before the pool is.
    pub sparse: bool,
}

impl FileLeaf {
    /// The file or block device at `path`, which exists, opened for direct I/O.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), direct: true, size: None, sparse: false }
    }
}

/// A device that the program brings, for tests and for devices of its own. Two handles are equal when they are the
/// same device.
#[derive(Clone)]
pub struct DeviceHandle(Arc<dyn BlockDevice>);

impl DeviceHandle {
    /// A handle on `device`.
    #[must_use]
    pub fn new(device: Arc<dyn BlockDevice>) -> Self {
        Self(device)
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.0
    }
}

impl PartialEq for DeviceHandle {
    fn eq(&self, other: &Self) -> bool {
        // Addresses without the vtable, of which a type may have several.
        std::ptr::addr_eq(Arc::as_ptr(&self.0), Arc::as_ptr(&other.0))
    }
}

impl Eq for DeviceHandle {}

impl Hash for DeviceHandle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).cast::<()>().hash(state);
    }
}

impl fmt::Debug for DeviceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceHandle").field(&self.0.name()).finish()
    }
}

impl Serialize for Vdev {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self, self.group_word()) {
            (Self::Mirror(legs) | Self::Parity1(legs) | Self::Parity2(legs), Some(word)) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(word, legs)?;
                map.end()
            }
            (vdev, _) => vdev.leaves().first().serialize(serializer),
        }
    }
}

impl Serialize for LeafVdev {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File(file) => file.serialize(serializer),
            Self::Memory { mem } => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("mem", mem)?;
                map.end()
            }
            Self::Device(handle) => Err(S::Error::custom(format!(
                "the device {:?} was handed in by the program and cannot be written as JSON",
                handle.device().name()
            ))),
        }
    }
}

impl Serialize for FileLeaf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { path, direct, size, sparse } = self;
        if *direct && size.is_none() && !sparse {
            return path.serialize(serializer);
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("path", path)?;
        map.serialize_entry("direct", direct)?;
        if let Some(size) = size {
            map.serialize_entry("size", size)?;
        }
        if *sparse {
            map.serialize_entry("sparse", sparse)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Vdev {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VdevVisitor { groups: true })
    }
}

impl<'de> Deserialize<'de> for LeafVdev {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(VdevVisitor { groups: false })? {
            Vdev::Leaf(leaf) => Ok(leaf),
            _ => Err(D::Error::custom(NESTED)),
        }
    }
}

const NESTED: &str = "a mirror or parity group is made of leaves only, groups do not nest";

/// Reads a vdev; not derived, because an untagged enum can only say that nothing matched.
struct VdevVisitor {
    /// Whether `mirror`, `parity1` and `parity2` are allowed here.
    groups: bool,
}

impl VdevVisitor {
    const LEAF: &str =
        "\"path\", {\"path\": …, \"direct\": …, \"size\": …, \"sparse\": …} or {\"mem\": size}";
}

impl<'de> Visitor<'de> for VdevVisitor {
    type Value = Vdev;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.groups {
            write!(
                f,
                "a vdev: {}, {{\"mirror\": [leaf, …]}}, {{\"parity1\": […]}}, {{\"parity2\": […]}}",
                Self::LEAF
            )
        } else {
            write!(f, "a leaf: {}", Self::LEAF)
        }
    }

    fn visit_str<E: serde::de::Error>(self, path: &str) -> Result<Vdev, E> {
        Ok(LeafVdev::file(path).into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vdev, A::Error> {
        let mut whole: Option<(&str, Vdev)> = None;
        let mut path: Option<String> = None;
        let mut direct: Option<Option<bool>> = None;
        let mut size: Option<Option<Bytes>> = None;
        let mut sparse: Option<bool> = None;
        const FIELDS: &[&str] =
            &["path", "direct", "size", "len", "sparse", "mem", "mirror", "parity1", "parity2"];
        while let Some(key) = map.next_key_seed(FieldOf(FIELDS))? {
            let (word, vdev) = match key {
                "mirror" | "parity1" | "parity2" if !self.groups => return Err(A::Error::custom(NESTED)),
                "mirror" => ("mirror", Vdev::Mirror(map.next_value()?)),
                "parity1" => ("parity1", Vdev::Parity1(map.next_value()?)),
                "parity2" => ("parity2", Vdev::Parity2(map.next_value()?)),
                "mem" => ("mem", LeafVdev::memory(map.next_value::<Bytes>()?.0).into()),
                "path" => {
                    once(&mut path, "path", map.next_value()?)?;
                    continue;
                }
                "direct" => {
                    once(&mut direct, "direct", map.next_value()?)?;
                    continue;
                }
                "size" | "len" => {
                    once(&mut size, "size", map.next_value()?)?;
                    continue;
                }
                _ => {
                    once(&mut sparse, "sparse", map.next_value()?)?;
                    continue;
                }
            };
            if let Some((first, _)) = whole {
                return Err(A::Error::custom(format!("{first:?} and {word:?} in one vdev; make it two")));
            }
            whole = Some((word, vdev));
        }
        let has_options = direct.is_some() || size.is_some() || sparse.is_some();
        match (whole, path) {
            (Some((_, vdev)), None) if !has_options => Ok(vdev),
            (Some((word, _)), _) => Err(A::Error::custom(format!("{word:?} stands alone in its vdev"))),
            (None, Some(path)) => Ok(LeafVdev::File(FileLeaf {
                path: path.into(),
                direct: direct.flatten().unwrap_or(true),
                size: size.flatten().map(|Bytes(bytes)| bytes),
                sparse: sparse.unwrap_or(false),
            })
            .into()),
            (None, None) if has_options => Err(A::Error::missing_field("path")),
            (None, None) => Err(A::Error::invalid_length(0, &self)),
        }
    }
}

fn once<T, E: serde::de::Error>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(name)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::vdev::MemoryDevice;
    use proptest::prelude::*;

    fn file(path: &str, direct: bool, size: Option<u64>, sparse: bool) -> LeafVdev {
        LeafVdev::File(FileLeaf { path: path.into(), direct, size, sparse })
    }

    #[test]
    fn every_form_is_read() {
        for (json, vdev) in [
            (r#""/dev/x""#, file("/dev/x", true, None, false).into()),
            (r#"{"path":"/dev/x"}"#, file("/dev/x", true, None, false).into()),
            (r#"{"path":"/dev/x","direct":null}"#, file("/dev/x", true, None, false).into()),
            (r#"{"direct":false,"path":"x"}"#, file("x", false, None, false).into()),
            (r#"{"path":"x","size":"1GiB","sparse":true}"#, file("x", true, Some(1 << 30), true).into()),
            (r#"{"path":"x","len":8192}"#, file("x", true, Some(8192), false).into()),
            (r#"{"mem":"256MiB"}"#, LeafVdev::memory(256 << 20).into()),
            (
                r#"{"mirror":["a",{"mem":4096}]}"#,
                Vdev::Mirror(vec![LeafVdev::file("a"), LeafVdev::memory(4096)]),
            ),
            (r#"{"parity1":["a"]}"#, Vdev::Parity1(vec![LeafVdev::file("a")])),
            (r#"{"parity2":[]}"#, Vdev::Parity2(vec![])),
        ] {
            assert_eq!(serde_json::from_str::<Vdev>(json).unwrap(), vdev, "{json}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (json, expected) in [
            ("{}", "invalid length 0, expected a vdev: \"path\""),
            ("5", "invalid type: integer `5`, expected a vdev"),
            ("null", "invalid type: null, expected a vdev"),
            (r#"["a"]"#, "invalid type: sequence, expected a vdev"),
            (r#"{"pth":"a"}"#, "unknown field `pth`, expected one of `path`, `direct`"),
            (r#"{"path":"a","path":"b"}"#, "duplicate field `path`"),
            (r#"{"path":"a","size":1,"len":1}"#, "duplicate field `size`"),
            (r#"{"direct":true}"#, "missing field `path`"),
            (r#"{"mem":1,"path":"a"}"#, "\"mem\" stands alone"),
            (r#"{"mem":1,"mem":2}"#, "\"mem\" and \"mem\" in one vdev"),
            (r#"{"mirror":[],"parity1":[]}"#, "\"mirror\" and \"parity1\" in one vdev"),
            (r#"{"mirror":[{"mirror":["a","b"]},"c"]}"#, "groups do not nest"),
            (r#"{"mirror":"a"}"#, "invalid type: string \"a\""),
            (r#"{"mem":-1}"#, "invalid value: integer `-1`, expected a size"),
            (r#"{"mem":1.5}"#, "invalid type: floating point `1.5`, expected a size"),
            (r#"{"mem":"lots"}"#, "is not a size"),
            (r#"{"mem":18446744073709551616}"#, "expected a size"),
            (r#"{"mem":"99999999999999999999TiB"}"#, "size"),
            (r#"{"path":"a","direct":"yes"}"#, "expected a boolean"),
        ] {
            let error = serde_json::from_str::<Vdev>(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
            assert!(!error.contains("untagged"), "{error}");
        }
    }

    #[test]
    fn a_programs_device_is_kept_but_not_written() {
        let device: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(1 << 20));
        let leaf = LeafVdev::from(Arc::clone(&device));
        assert_eq!(leaf.clone(), LeafVdev::from(device));
        assert_ne!(leaf, LeafVdev::from(Arc::new(MemoryDevice::new(1 << 20)) as Arc<dyn BlockDevice>));
        assert_eq!(format!("{leaf:?}"), "Device(DeviceHandle(\"memory\"))");
        let error = serde_json::to_string(&Vdev::Mirror(vec![leaf])).unwrap_err().to_string();
        assert!(error.contains("cannot be written as JSON"), "{error}");
    }

    fn any_leaf() -> impl Strategy<Value = LeafVdev> {
        let path = prop_oneof![
            "(?s).{1,20}",
            "[./][a-z:/ =\\\\0-9]{0,12}",
            "(/dev/x|./a b|mem|mirror|file)(:[0-9]{1,5}|:1GiB|:direct=true|:sparse=x|\\\\|: )*",
        ];
        prop_oneof![
            4 => (path, any::<bool>(), prop::option::of(4096..=FILE_BYTES_MAX), any::<bool>())
                .prop_map(|(path, direct, size, sparse)| file(&path, direct, size, sparse)),
            1 => (4096..=MEMORY_BYTES_MAX).prop_map(LeafVdev::memory),
            1 => (1..=1u64 << 12).prop_map(|mib| LeafVdev::memory(mib << 20)),
        ]
    }

    pub(in crate::pool::configuration) fn any_vdev() -> impl Strategy<Value = Vdev> {
        let legs = |least| prop::collection::vec(any_leaf(), least..least + 3);
        prop_oneof![
            3 => any_leaf().prop_map(Vdev::Leaf),
            1 => legs(2).prop_map(Vdev::Mirror),
            1 => legs(3).prop_map(Vdev::Parity1),
            1 => legs(4).prop_map(Vdev::Parity2),
        ]
    }
}
