//! Configurations: from files, text, words and the environment, and changed by name.

use crate::boundary::{array, bytes, call, given, illegal, make, out_bytes, release, text, word};
use crate::bytes::ByteSlice;
use crate::error::Failure;
use engine::{
    AccessMode, DatabaseConfiguration, FileLeaf, LeafVdev, Result, StoragePoolConfiguration,
    TierConfiguration, Vdev,
};
use std::ffi::{OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a database is to be. Freed with `betree_free_cfg`; a database that was built of it does not need it any more.
#[derive(Debug)]
pub struct Configuration(Mutex<DatabaseConfiguration>);

impl Configuration {
    fn new(configuration: DatabaseConfiguration) -> Self {
        Self(Mutex::new(configuration))
    }

    fn lock(&self) -> MutexGuard<'_, DatabaseConfiguration> {
        // Changes are made to a copy, so that a panic leaves what was there.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it says now.
    pub fn get(&self) -> DatabaseConfiguration {
        self.lock().clone()
    }

    fn change(&self, change: impl FnOnce(&mut DatabaseConfiguration) -> Result<()>) -> Result<()> {
        let mut place = self.lock();
        let mut changed = place.clone();
        change(&mut changed)?;
        changed.validate()?;
        *place = changed;
        Ok(())
    }
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn tier_of(strings: *const *const c_char, count: usize) -> Result<TierConfiguration> {
    let mut words = Vec::with_capacity(count.min(1 << 16));
    for string in array("strings", strings, count)? {
        let word = word("string", *string)?.to_str();
        words.push(word.map_err(|error| illegal("string", error.to_string()))?);
    }
    Ok(TierConfiguration::parse_zfs_like(words)?)
}

/// The defaults, without a tier: one that can be built has at least one (betree_configuration_add_tier). Never NULL.
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_configuration_default() -> Option<Box<Configuration>> {
    make(std::ptr::null_mut(), || Ok(Configuration::new(DatabaseConfiguration::default())))
}

/// A configuration with one tier, of words as `zpool create` takes them: "./disk:1GiB", "mirror", "mem:64MiB", ….
/// Each of the `cfg_strings_len` strings ends with a zero byte. Everything else is as by default. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_parse_configuration(
    cfg_strings: *const *const c_char,
    cfg_strings_len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Configuration>> {
    make(err, || {
        let tiers = vec![tier_of(cfg_strings, cfg_strings_len)?];
        let storage = StoragePoolConfiguration { tiers, ..StoragePoolConfiguration::default() };
        let configuration = DatabaseConfiguration { storage, ..DatabaseConfiguration::default() };
        configuration.validate()?;
        Ok(Configuration::new(configuration))
    })
}

/// The JSON file that the environment variable BETREE_CONFIG names, or the defaults without one; changed by variables such
/// as BETREE__CACHE_SIZE=4GiB. NULL on error. Thread-safe, but for others who change the environment.
#[unsafe(no_mangle)]
pub extern "C" fn betree_configuration_from_env(err: *mut *mut Failure) -> Option<Box<Configuration>> {
    make(err, || Ok(Configuration::new(DatabaseConfiguration::from_env()?)))
}

/// The JSON file at a path of `len` bytes. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_configuration_from_file(
    path: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Configuration>> {
    make(err, || {
        let path = path_of(bytes("path", path, len)?);
        Ok(Configuration::new(DatabaseConfiguration::from_json_file(path)?))
    })
}

/// JSON of `len` bytes. NULL on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_configuration_from_json(
    json: *const c_void,
    len: usize,
    err: *mut *mut Failure,
) -> Option<Box<Configuration>> {
    make(err, || Ok(Configuration::new(DatabaseConfiguration::from_json_str(text("json", json, len)?)?)))
}

/// Puts the configuration into `json`, as JSON that loads as the same. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_configuration_to_json(
    cfg: Option<&Configuration>,
    json: *mut ByteSlice,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let json = out_bytes("json", json)?;
        json.set(given("cfg", cfg)?.get().to_json_string()?.into());
        Ok(())
    })
}

/// Sets the field of this name to a value, both as in the JSON document: ("cache_size", "64MiB"), ("access_mode",
/// "OpenOrCreate"), ("storage.tiers.0.label", "fast"). The value is JSON, or bare text. 0, or -1 on error, and nothing has
/// changed. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_configuration_set(
    cfg: Option<&Configuration>,
    name: *const c_void,
    name_len: usize,
    value: *const c_void,
    value_len: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let (name, value) = (text("name", name, name_len)?, text("value", value, value_len)?);
        if name.is_empty() || name.contains("__") || name.eq_ignore_ascii_case("config") {
            return Err(illegal("name", "it is none of a field"));
        }
        let variable = format!("BETREE__{}", name.replace('.', "__"));
        given("cfg", cfg)?
            .change(|configuration| Ok(configuration.apply_env([(variable, value.to_owned())])?))
    })
}

/// Adds a tier behind those that are there, of words as in betree_parse_configuration. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_configuration_add_tier(
    cfg: Option<&Configuration>,
    strings: *const *const c_char,
    count: usize,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let tier = tier_of(strings, count)?;
        given("cfg", cfg)?.change(|configuration| {
            configuration.storage.tiers.push(tier);
            Ok(())
        })
    })
}

/// Sets whether files and block devices are opened for direct I/O (`direct` is not 0) or through the page cache (0): all that
/// there are now, in all tiers and groups. 0, or -1 when `cfg` is NULL. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_configuration_set_direct(cfg: Option<&Configuration>, direct: i32) -> c_int {
    call(std::ptr::null_mut(), || {
        given("cfg", cfg)?.change(|configuration| {
            let tiers = configuration.storage.tiers.iter_mut();
            for leaf in tiers.flat_map(|tier| &mut tier.top_level_vdevs).flat_map(leaves_of) {
                if let LeafVdev::File(file) = leaf {
                    file.direct = direct != 0;
                }
            }
            Ok(())
        })
    })
}

fn leaves_of(vdev: &mut Vdev) -> &mut [LeafVdev] {
    match vdev {
        Vdev::Leaf(leaf) => std::slice::from_mut(leaf),
        Vdev::Mirror(leaves) | Vdev::Parity1(leaves) | Vdev::Parity2(leaves) => leaves,
    }
}

/// Puts one tier of the `num_disks` files or block devices at `paths` in place of all tiers, through the page cache. Each path
/// ends with a zero byte. 0, or -1 on error, and nothing has changed: `cfg`, `paths` or a path is NULL, or there are too many.
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_configuration_set_disks(
    cfg: Option<&Configuration>,
    paths: *const *const c_char,
    num_disks: usize,
) -> c_int {
    call(std::ptr::null_mut(), || {
        let cfg = given("cfg", cfg)?;
        let mut vdevs = Vec::new();
        for path in array("paths", paths, num_disks)? {
            let path = path_of(word("path", *path)?.to_bytes());
            let file = FileLeaf { direct: false, ..FileLeaf::new(path) };
            vdevs.push(Vdev::from(LeafVdev::File(file)));
        }
        cfg.change(|configuration| {
            configuration.storage.tiers = vec![TierConfiguration::new(vdevs)];
            Ok(())
        })
    })
}

/// Sets how many requests wait at a device (the field storage.queue_depth_factor). 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_configuration_set_iodepth(cfg: Option<&Configuration>, iodepth: u32) -> c_int {
    call(std::ptr::null_mut(), || {
        given("cfg", cfg)?.change(|configuration| {
            configuration.storage.queue_depth_factor = iodepth;
            Ok(())
        })
    })
}

/// What a database does with the devices that its configuration names.
#[expect(non_camel_case_types, reason = "the names are those of C")]
#[derive(Debug)]
#[repr(C)]
#[expect(dead_code, reason = "C programs use them; they come in as numbers")]
pub enum AccessModeKind {
    /// Opens the database on them; an error without one. The default.
    BETREE_OPEN_IF_EXISTS = 0,
    /// Makes a new database; what was on them is lost.
    BETREE_ALWAYS_CREATE_NEW = 1,
    /// Opens the database on them, makes a new one where there is none.
    BETREE_OPEN_OR_CREATE = 2,
}

/// Sets what betree_build_db does: one of betree_access_mode_t. 0, or -1 on error. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn betree_configuration_set_access_mode(
    cfg: Option<&Configuration>,
    mode: u32,
    err: *mut *mut Failure,
) -> c_int {
    call(err, || {
        let mode = match mode {
            0 => AccessMode::OpenIfExists,
            1 => AccessMode::AlwaysCreateNew,
            2 => AccessMode::OpenOrCreate,
            other => return Err(illegal("mode", format!("{other} is no access mode"))),
        };
        given("cfg", cfg)?.change(|configuration| {
            configuration.access_mode = mode;
            Ok(())
        })
    })
}

/// Frees a configuration; NULL is none. No other thread may use it then.
#[unsafe(no_mangle)]
pub extern "C" fn betree_free_cfg(cfg: Option<Box<Configuration>>) {
    release(cfg);
}
