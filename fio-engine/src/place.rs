//! Where a job wants its database: a configuration, and whether the files that fio names are its devices.

use betree::{AccessMode, DatabaseConfiguration, Error, FileLeaf, LeafVdev, Result, TierConfiguration, Vdev};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A device is created as large as its file of fio needs times this: what is overwritten takes its space until it was merged away,
/// and fio overwrites much.
const DEVICE_FACTOR: u64 = 4;
/// And so many bytes more: for the log, for small files, for what a small pool keeps in reserve.
const DEVICE_BYTES_MORE: u64 = 1 << 30;

/// Jobs with equal places share a database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file of the configuration; without one that which the environment names, else the defaults.
    pub configuration: Option<PathBuf>,
    /// The number of the job that has the database for itself; 0: it is shared.
    pub owner: u32,
    /// Whether the files of fio are the devices of the fastest tier, rather than those of the configuration.
    pub files_are_devices: bool,
}

/// What all jobs of a place want of it, known before the first of them opens it.
#[derive(Debug, Default, Clone)]
pub struct Wishes {
    /// The files of fio, and how many bytes each is to have.
    pub files: BTreeMap<PathBuf, u64>,
    /// Whether the page cache is bypassed; `None`: as the configuration says.
    pub direct: Option<bool>,
}

impl Wishes {
    /// One more file. Of several wishes for direct I/O, one is enough.
    pub fn add(&mut self, path: PathBuf, bytes: u64, direct: Option<bool>) {
        let known = self.files.entry(path).or_default();
        *known = (*known).max(bytes);
        self.direct = match (self.direct, direct) {
            (Some(known), Some(wanted)) => Some(known || wanted),
            (known, wanted) => known.or(wanted),
        };
    }
}

/// Variables of the environment that are text; others are none of ours.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn leaf_of(path: &Path, bytes: u64) -> LeafVdev {
    let is_special = fs::metadata(path).is_ok_and(|found| !found.is_file());
    // Sparse: how much of it is needed depends on what fio does, and space that is reserved is time that it waits.
    let size = bytes.saturating_mul(DEVICE_FACTOR).saturating_add(DEVICE_BYTES_MORE);
    LeafVdev::File(FileLeaf {
        size: (!is_special).then_some(size),
        sparse: !is_special,
        ..FileLeaf::new(path)
    })
}

fn set_direct(vdev: &mut Vdev, direct: bool) {
    let leaves = match vdev {
        Vdev::Leaf(leaf) => std::slice::from_mut(leaf),
        Vdev::Mirror(legs) | Vdev::Parity1(legs) | Vdev::Parity2(legs) => legs,
    };
    for leaf in leaves {
        if let LeafVdev::File(file) = leaf {
            file.direct = direct;
        }
    }
}

impl Place {
    /// The configuration of the database, as `wishes` change it. Folders of files that become devices are made.
    ///
    /// A database is opened, and made where there is none, unless the configuration says that it is always to be made anew.
    pub fn configuration(&self, wishes: &Wishes) -> Result<DatabaseConfiguration> {
        let mut configuration = match &self.configuration {
            None => DatabaseConfiguration::from_env()?,
            Some(path) => {
                let mut configuration = DatabaseConfiguration::from_json_file(path)?;
                configuration.apply_env(variables())?;
                configuration
            }
        };
        if configuration.access_mode == AccessMode::OpenIfExists {
            configuration.access_mode = AccessMode::OpenOrCreate;
        }
        let tiers = &mut configuration.storage.tiers;
        if self.files_are_devices {
            for folder in wishes.files.keys().filter_map(|path| path.parent()) {
                fs::create_dir_all(folder).map_err(|error| Error::InvalidArgument {
                    what: "folder of a file of fio",
                    reason: format!("{}: {error}", folder.display()),
                })?;
            }
            let leaves = wishes.files.iter().map(|(path, bytes)| Vdev::Leaf(leaf_of(path, *bytes)));
            let fastest = leaves.collect();
            match tiers.first_mut() {
                Some(tier) => tier.top_level_vdevs = fastest,
                None => tiers.push(TierConfiguration::new(fastest)),
            }
        }
        if let Some(direct) = wishes.direct {
            let vdevs = tiers.iter_mut().flat_map(|tier| &mut tier.top_level_vdevs);
            vdevs.for_each(|vdev| set_direct(vdev, direct));
        }
        if configuration.storage.is_empty() {
            return Err(Error::InvalidArgument {
                what: "configuration",
                reason: String::from("it has no devices, and the files of fio are not to be any"),
            });
        }
        configuration.validate()?;
        Ok(configuration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(configuration: &DatabaseConfiguration, tier: usize, index: usize) -> &FileLeaf {
        let Vdev::Leaf(LeafVdev::File(file)) = &configuration.storage.tiers[tier].top_level_vdevs[index]
        else {
            panic!("no file")
        };
        file
    }

    #[test]
    fn files_of_fio_take_the_place_of_the_fastest_tier() {
        let folder = tempfile::tempdir().unwrap();
        let document = folder.path().join("config.json");
        fs::write(&document, r#"{"storage": {"tiers": [["/a"], ["/b"]]}, "cache_size": "9MiB"}"#).unwrap();
        let mut place = Place { configuration: Some(document), owner: 0, files_are_devices: true };
        let mut wishes = Wishes::default();
        wishes.add(folder.path().join("new/x"), 1 << 20, Some(false));
        wishes.add(folder.path().join("new/x"), 2 << 20, None);
        wishes.add(folder.path().join("new/w"), 0, Some(false));
        let configuration = place.configuration(&wishes).unwrap();
        assert_eq!(
            (configuration.cache_size, configuration.access_mode),
            (9 << 20, AccessMode::OpenOrCreate)
        );
        assert!(folder.path().join("new").is_dir());
        let (w, x, b) =
            (file_of(&configuration, 0, 0), file_of(&configuration, 0, 1), file_of(&configuration, 1, 0));
        assert_eq!((&*w.path, w.size), (&*folder.path().join("new/w"), Some(1 << 30)));
        assert_eq!((&*x.path, x.size), (&*folder.path().join("new/x"), Some((8 << 20) + (1 << 30))));
        assert_eq!((&*b.path, b.size), (Path::new("/b"), None));
        assert!(!w.direct && !x.direct && !b.direct);
        wishes.add(folder.path().join("new/x"), 0, Some(true));
        assert!(file_of(&place.configuration(&wishes).unwrap(), 1, 0).direct);
        place.files_are_devices = false;
        assert_eq!(file_of(&place.configuration(&wishes).unwrap(), 0, 0).path, Path::new("/a"));
    }

    #[test]
    fn a_place_without_devices_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let document = folder.path().join("config.json");
        fs::write(&document, "{}").unwrap();
        let place = Place { configuration: Some(document), owner: 0, files_are_devices: false };
        let error = place.configuration(&Wishes::default()).unwrap_err();
        assert!(error.to_string().contains("no devices"), "{error}");
        let missing = Place { configuration: Some(folder.path().join("none")), ..place };
        assert!(missing.configuration(&Wishes::default()).is_err());
    }
}
