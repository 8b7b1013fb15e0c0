//! From a configuration to open devices.

use super::format::{DEVICE_BLOCKS_MIN, VdevKind};
use super::{Access, FileLeaf, LeafVdev, PoolError, StoragePoolConfiguration, TierConfiguration, Vdev};
use crate::base::units::BLOCK_BYTES_U64;
use crate::vdev::{BlockDevice, FileDevice, MemoryDevice, NewFile, VdevError};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A configured leaf.
#[derive(Debug, Clone)]
pub(super) struct LeafDevice {
    /// Path, or what else the device is called.
    pub name: String,
    /// The device, locked; `None` when it does not exist or is an empty file.
    pub device: Option<Arc<dyn BlockDevice>>,
}

/// A configured top-level vdev.
#[derive(Debug, Clone)]
pub(super) struct VdevDevices {
    pub tier: u8,
    pub kind: VdevKind,
    pub leaves: Vec<LeafDevice>,
}

/// Opens and locks every device that exists; memory vdevs are made.
///
/// # Errors
/// [`PoolError::Configuration`], [`PoolError::Vdev`].
pub(super) fn open_devices(
    configuration: &StoragePoolConfiguration,
    access: Access,
) -> Result<Vec<VdevDevices>, PoolError> {
    configuration.validate()?;
    let mut members = Vec::new();
    for (tier, vdev) in vdevs(configuration) {
        // A device that fails at once may be one of those that the vdev goes on without, or that a spare took the place of.
        let may_fail =
            (configuration.degraded || !configuration.spares.is_empty()) && kind_of(vdev) != VdevKind::Leaf;
        let open = |leaf: &LeafVdev| match open_leaf(leaf, access) {
            Err(PoolError::Vdev(error)) if may_fail && matches!(&*error, VdevError::Io { .. }) => {
                log::warn!("{error}; the pool is opened without it");
                Ok(LeafDevice { name: error.device().to_owned(), device: None })
            }
            result => result,
        };
        let leaves = vdev.leaves().iter().map(open).collect::<Result<_, PoolError>>()?;
        members.push(VdevDevices { tier, kind: kind_of(vdev), leaves });
    }
    Ok(members)
}

/// Creates and locks the files that `members` lacks, each with its configured size; they stay when they are kept.
///
/// # Errors
/// [`PoolError::NoSize`], [`PoolError::TooSmall`], [`PoolError::Vdev`]; no file was made, or none is left.
pub(super) fn create_missing(
    configuration: &StoragePoolConfiguration,
    members: &mut [VdevDevices],
) -> Result<Vec<NewFile>, PoolError> {
    for ((_, vdev), member) in vdevs(configuration).zip(&*members) {
        for (leaf, device) in vdev.leaves().iter().zip(&member.leaves) {
            let LeafVdev::File(file) = leaf else { continue };
            let (name, minimum) = (|| device.name.clone(), DEVICE_BLOCKS_MIN);
            match file.size.map(|bytes| bytes / BLOCK_BYTES_U64) {
                _ if device.device.is_some() => {}
                None => return Err(PoolError::NoSize { device: name() }),
                Some(blocks) if blocks < minimum => {
                    return Err(PoolError::TooSmall { device: name(), blocks, minimum });
                }
                Some(_) => {}
            }
        }
    }
    let mut made = Vec::new();
    for ((_, vdev), member) in vdevs(configuration).zip(members) {
        for (leaf, device) in vdev.leaves().iter().zip(&mut member.leaves) {
            let LeafVdev::File(FileLeaf { path, direct, sparse, size: Some(bytes) }) = leaf else { continue };
            if device.device.is_some() {
                continue;
            }
            let file = NewFile::make(path, *bytes, *direct, *sparse)?;
            device.device = Some(file.device());
            made.push(file);
        }
    }
    Ok(made)
}

/// Opens and locks the device of `leaf`; a file that does not exist, or is empty, is created with the size that is configured,
/// else with the `bytes` bytes that are needed.
///
/// # Errors
/// [`PoolError::Configuration`], [`PoolError::TooSmall`], [`PoolError::Vdev`]; no file was made.
pub(super) fn open_or_create(leaf: &LeafVdev, bytes: u64) -> Result<Arc<dyn BlockDevice>, PoolError> {
    let alone = TierConfiguration::new(vec![leaf.clone().into()]);
    StoragePoolConfiguration { tiers: vec![alone], ..StoragePoolConfiguration::default() }.validate()?;
    let LeafDevice { name, device } = open_leaf(leaf, Access::ReadWrite)?;
    match (device, leaf) {
        (Some(device), _) => Ok(device),
        (None, LeafVdev::File(file)) => {
            let size = file.size.unwrap_or(bytes);
            if size < bytes {
                let (blocks, minimum) = (size / BLOCK_BYTES_U64, bytes / BLOCK_BYTES_U64);
                return Err(PoolError::TooSmall { device: name, blocks, minimum });
            }
            Ok(Arc::new(FileDevice::create(&file.path, size, file.direct, file.sparse)?))
        }
        (None, _) => Err(PoolError::NotFound { devices: vec![name] }),
    }
}

/// The top-level vdevs with their tiers, in order.
fn vdevs(configuration: &StoragePoolConfiguration) -> impl Iterator<Item = (u8, &Vdev)> {
    let tiers = (0..).zip(&configuration.tiers);
    tiers.flat_map(|(tier, of_tier)| of_tier.top_level_vdevs.iter().map(move |vdev| (tier, vdev)))
}

fn kind_of(vdev: &Vdev) -> VdevKind {
    match vdev {
        Vdev::Leaf(_) => VdevKind::Leaf,
        Vdev::Mirror(_) => VdevKind::Mirror,
        Vdev::Parity1(_) => VdevKind::Parity1,
        Vdev::Parity2(_) => VdevKind::Parity2,
    }
}

pub(super) fn open_leaf(leaf: &LeafVdev, access: Access) -> Result<LeafDevice, PoolError> {
    let device: Arc<dyn BlockDevice> = match leaf {
        LeafVdev::Memory { mem } => Arc::new(MemoryDevice::new(*mem)),
        LeafVdev::Device(handle) => Arc::clone(handle.device()),
        LeafVdev::File(file) => {
            let name = file.path.display().to_string();
            if is_nothing(&file.path) {
                return Ok(LeafDevice { name, device: None });
            }
            match FileDevice::open(&file.path, file.direct, access == Access::ReadOnly) {
                Ok(device) => Arc::new(device),
                Err(VdevError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    return Ok(LeafDevice { name, device: None });
                }
                Err(error) => return Err(error.into()),
            }
        }
    };
    Ok(LeafDevice { name: device.name().to_owned(), device: Some(device) })
}

/// Whether a path leads to nothing: no file, or a regular one without a byte.
fn is_nothing(path: &Path) -> bool {
    match fs::metadata(path) {
        Ok(found) => found.is_file() && found.len() == 0,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Generation;
    use crate::pool::{CreateOptions, FileLeaf, Pool};
    use std::path::PathBuf;

    /// Buffered, since the file system of the tests may refuse direct I/O.
    fn file(path: PathBuf, size: Option<u64>) -> Vdev {
        LeafVdev::File(FileLeaf { direct: false, size, ..FileLeaf::new(path) }).into()
    }

    fn configuration(tiers: Vec<Vec<Vdev>>) -> StoragePoolConfiguration {
        let tiers = tiers.into_iter().map(TierConfiguration::new).collect();
        StoragePoolConfiguration { tiers, ..Default::default() }
    }

    fn options() -> CreateOptions {
        CreateOptions { segment_blocks: 64, ..CreateOptions::default() }
    }

    #[test]
    fn files_are_created_found_and_locked() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mib = Some(1 << 20);
        let storage = configuration(vec![
            vec![LeafVdev::memory(1 << 20).into()],
            vec![file(path("a"), mib), file(path("b"), mib)],
        ]);
        assert!(matches!(Pool::open(&storage, Access::ReadWrite), Err(PoolError::NotFound { .. })));
        assert!(!path("a").exists(), "open creates nothing");
        let (pool, report) = Pool::open_or_create(&storage, &options()).unwrap();
        assert!(report.is_none());
        pool.commit(Generation(1), b"root").unwrap();
        let in_use = |result: Result<(Pool, _), PoolError>| match result {
            Err(PoolError::Vdev(error)) => matches!(&*error, VdevError::InUse { .. }),
            _ => false,
        };
        assert!(in_use(Pool::open(&storage, Access::ReadWrite)), "a second opener");
        assert!(in_use(Pool::open(&storage, Access::ReadOnly)), "a second opener");
        pool.close().unwrap();
        drop(pool);

        let swapped = configuration(vec![
            vec![LeafVdev::memory(1 << 20).into()],
            vec![file(path("b"), None), file(path("a"), None)],
        ]);
        let (pool, report) = Pool::open_or_create(&swapped, &options()).unwrap();
        assert_eq!(report.unwrap().candidates[0].payload, b"root");
        let ids: Vec<u32> = pool.vdevs().iter().map(|vdev| vdev.id.0).collect();
        assert_eq!(ids, [0, 2, 1]);
        drop(pool);
        let (reader, _) = Pool::open(&storage, Access::ReadOnly).unwrap();
        let (other, _) = Pool::open(&storage, Access::ReadOnly).unwrap();
        assert!(in_use(Pool::open(&storage, Access::ReadWrite)), "readers are not disturbed");
        drop((reader, other));
        let before = fs::read(path("a")).unwrap();
        assert!(matches!(Pool::create(&storage, &options()), Err(PoolError::NotEmpty { .. })));

        fs::rename(path("b"), path("c")).unwrap();
        for _ in 0..2 {
            let error = Pool::open_or_create(&storage, &options()).unwrap_err();
            assert!(
                matches!(&error, PoolError::MissingDevice { instead: Some(why), .. } if why.contains("/b ")),
                "{error}"
            );
            assert!(!path("b").exists(), "a missing member is not replaced by an empty file");
            fs::write(path("b"), b"").unwrap();
            let error = Pool::open(&storage, Access::ReadWrite).unwrap_err();
            assert!(matches!(error, PoolError::MissingDevice { .. }), "{error}");
            fs::remove_file(path("b")).unwrap();
        }
        assert_eq!(fs::read(path("a")).unwrap(), before);
    }

    #[test]
    fn a_create_that_is_refused_makes_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("data"), vec![7; 1 << 20]).unwrap();
        let storage = configuration(vec![vec![file(path("new"), Some(1 << 20)), file(path("data"), None)]]);
        let error = Pool::create(&storage, &options()).unwrap_err();
        assert!(matches!(error, PoolError::NotEmpty { .. }), "{error}");
        assert!(!path("new").exists());
        let storage = configuration(vec![vec![file(path("no-size"), None)]]);
        assert!(matches!(Pool::create(&storage, &options()), Err(PoolError::NoSize { .. })));
        let none = configuration(vec![Vec::new()]);
        assert!(matches!(Pool::create(&none, &options()), Err(PoolError::NoVdevs)));
        assert!(matches!(
            Pool::create(&configuration(vec![Vec::new(); 5]), &options()),
            Err(PoolError::Configuration(_))
        ));
    }
}
