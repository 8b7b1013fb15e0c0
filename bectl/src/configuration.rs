//! Which configuration a command uses, and what it is without one.

use crate::failure::Failure;
use anyhow::Context as _;
use betree::pool::ConfigurationError;
use betree::{DatabaseConfiguration, FileLeaf, LeafVdev, StoragePoolConfiguration, TierConfiguration, Vdev};
use std::collections::HashSet;
use std::env;
use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Size of the pool file where no configuration says otherwise. It is sparse: the disk fills as data comes.
const DEFAULT_POOL_BYTES: u64 = 16 << 30;

/// Names of variables that override settings, in upper or lower case.
const OVERRIDE_PREFIX: &str = "BETREE__";

/// Where a configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// There is none: one pool file.
    Default {
        /// The pool file.
        pool: PathBuf,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Default { pool } => write!(f, "none: the pool file {}", pool.display()),
        }
    }
}

/// A configuration to work with.
#[derive(Debug, Clone)]
pub struct Active {
    /// With the overrides of the environment.
    pub configuration: DatabaseConfiguration,
    /// Where it comes from.
    pub source: Source,
}

/// The configuration that a command uses: that of the option, else the first that exists, else the default.
///
/// # Errors
/// A file that was named does not exist; a file or variable that does not fit.
pub fn active(option: Option<&Path>) -> anyhow::Result<Active> {
    let (mut configuration, source) = match find(option)? {
        Some(path) => {
            (DatabaseConfiguration::from_json_file(&path).map_err(betree::Error::from)?, Source::File(path))
        }
        None => {
            let pool = data_folder()?.join("pool.img");
            (of_pool_file(&pool), Source::Default { pool })
        }
    };
    apply_environment(&mut configuration)?;
    Ok(Active { configuration, source })
}

/// The configuration of a pool that is one sparse file.
fn of_pool_file(pool: &Path) -> DatabaseConfiguration {
    let leaf = FileLeaf { path: pool.to_owned(), direct: true, size: Some(DEFAULT_POOL_BYTES), sparse: true };
    let tier = TierConfiguration::new(vec![Vdev::Leaf(LeafVdev::File(leaf))]);
    let storage = StoragePoolConfiguration { tiers: vec![tier], ..StoragePoolConfiguration::default() };
    DatabaseConfiguration { storage, ..DatabaseConfiguration::default() }
}

/// The default as it would be without any file or variable.
///
/// # Errors
/// There is no home folder.
pub fn default() -> anyhow::Result<DatabaseConfiguration> {
    Ok(of_pool_file(&data_folder()?.join("pool.img")))
}

/// Applies the `BETREE__…` variables.
///
/// # Errors
/// A variable that does not fit.
pub fn apply_environment(configuration: &mut DatabaseConfiguration) -> anyhow::Result<()> {
    let mut overrides = Vec::new();
    for (name, value) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let prefix = name.get(..OVERRIDE_PREFIX.len());
        if prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(OVERRIDE_PREFIX)) {
            let value =
                value.into_string().map_err(|_| anyhow::anyhow!("the value of {name} is not UTF-8"))?;
            overrides.push((name, value));
        }
    }
    let applied: Result<(), ConfigurationError> = configuration.apply_env(overrides);
    applied.map_err(|error| betree::Error::from(error).into())
}

/// The file that the option or `BETREE_CONFIG` names, whether it exists or not.
pub fn named(option: Option<&Path>) -> Option<PathBuf> {
    option.map(Path::to_owned).or_else(|| variable("BETREE_CONFIG"))
}

/// The file to read.
///
/// # Errors
/// A file that was named, or one that may exist, cannot be looked at.
pub fn find(option: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = named(option) {
        // One that does not exist fails with its name when it is read.
        return Ok(Some(path));
    }
    let home = variable("HOME");
    let candidates = [
        Some(PathBuf::from("betree.json")),
        user_file(),
        home.map(|home| home.join(".config/haura.json")),
        Some(PathBuf::from("/etc/betree/config.json")),
    ];
    for path in candidates.into_iter().flatten() {
        if path.try_exists().with_context(|| format!("looking for {}", path.display()))? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Where the configuration of a user is, or would be.
pub fn user_file() -> Option<PathBuf> {
    Some(base_folder("XDG_CONFIG_HOME", ".config")?.join("betree/config.json"))
}

/// Where the pool of a user is who configures nothing.
fn data_folder() -> anyhow::Result<PathBuf> {
    let base = base_folder("XDG_DATA_HOME", ".local/share");
    base.map(|base| base.join("betree")).ok_or_else(|| {
        let why = "no configuration, and neither XDG_DATA_HOME nor HOME says where the pool file is; name one with -c";
        Failure::NotFound(why.into()).into()
    })
}

/// A folder of the XDG base directory specification, which ignores relative paths in its variables.
fn base_folder(name: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = variable(name).filter(|path| path.is_absolute());
    absolute.or_else(|| variable("HOME").map(|home| home.join(below_home)))
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Adds the vdev of a `--tier TIER=VDEV` option.
///
/// # Errors
/// [`Failure::Usage`] for what is not of this form.
pub fn add_tier(tiers: &mut Vec<TierConfiguration>, option: &str) -> Result<(), Failure> {
    let wrong = |why: String| Failure::Usage(format!("--tier {option}: {why}"));
    let (name, vdevs) = option
        .split_once('=')
        .ok_or_else(|| wrong("it has the form TIER=VDEV, for example slow=./pool.img:1GiB".into()))?;
    let names = betree::base::preference::TIER_NAMES;
    let is_meant =
        |(index, tier): &(usize, &&str)| tier.eq_ignore_ascii_case(name) || index.to_string() == name;
    let Some((index, _)) = names.iter().enumerate().find(is_meant) else {
        return Err(wrong(format!("{name:?} is not a tier; they are fastest, fast, slow and slowest")));
    };
    let parsed = parse_vdevs(vdevs).map_err(|error| wrong(error.to_string()))?;
    if parsed.top_level_vdevs.is_empty() {
        return Err(wrong("it names no vdev".into()));
    }
    if tiers.len() <= index {
        tiers.resize_with(index + 1, TierConfiguration::default);
    }
    tiers[index].top_level_vdevs.extend(parsed.top_level_vdevs);
    Ok(())
}

/// `mirror:a.img,b.img`, `./a.img:1GiB`, `mem:1GiB`; or the library's words, where there is white space.
fn parse_vdevs(text: &str) -> Result<TierConfiguration, ConfigurationError> {
    if text.contains(char::is_whitespace) {
        return text.parse();
    }
    let group = ["mirror", "parity", "parity1", "parity2"]
        .into_iter()
        .find_map(|word| Some((word, text.strip_prefix(word)?.strip_prefix(':')?)));
    let leaves = group.map_or(text, |(_, leaves)| leaves).split(',').map(|leaf| {
        let has_form = ["/", ".", "mem:", "file:"].iter().any(|start| leaf.starts_with(start));
        if has_form { leaf.to_owned() } else { format!("file:{leaf}") }
    });
    TierConfiguration::parse_zfs_like(group.map(|(word, _)| word.to_owned()).into_iter().chain(leaves))
}

/// A file or device as [`TierConfiguration::parse_zfs_like`] reads it, or a path in any form.
///
/// # Errors
/// [`Failure::Usage`] for what is no leaf.
pub fn parse_leaf(text: &str) -> Result<FileLeaf, Failure> {
    let wrong = |why: String| Failure::Usage(format!("{text}: {why}"));
    let tier = parse_vdevs(text).map_err(|error| wrong(error.to_string()))?;
    match &tier.top_level_vdevs[..] {
        [Vdev::Leaf(LeafVdev::File(file))] => Ok(file.clone()),
        _ => Err(wrong("one file or block device, PATH[:SIZE], was expected".into())),
    }
}

/// Tiers in words: those of [`TierConfiguration::parse_zfs_like`] for the fastest tier, behind the name of another tier for that
/// one, and behind `spare` the spares.
///
/// # Errors
/// [`Failure::Usage`] for words that do not fit, and for a tier without a vdev.
pub fn parse_pool(words: &[String]) -> Result<StoragePoolConfiguration, Failure> {
    let names = betree::base::preference::TIER_NAMES;
    // Behind the tiers, the spares.
    let part_of = |word: &str| match word {
        "spare" => Some(names.len()),
        _ => names.iter().position(|name| name.eq_ignore_ascii_case(word)),
    };
    let mut parts: Vec<Option<String>> = vec![None; names.len() + 1];
    let mut part = 0;
    for word in words.iter().flat_map(|argument| split_words(argument)) {
        if let Some(named) = part_of(&word) {
            part = named;
            parts[part].get_or_insert_default();
            continue;
        }
        let of_part = parts[part].get_or_insert_default();
        of_part.push(' ');
        of_part.push_str(&word);
    }
    let parse = |name: &str, words: &str| {
        let wrong = |why: String| Failure::Usage(format!("{name}: {why}"));
        let tier: Result<TierConfiguration, ConfigurationError> = words.parse();
        match tier.map_err(|error| wrong(error.to_string()))? {
            tier if tier.top_level_vdevs.is_empty() => Err(wrong("it names no vdev".into())),
            tier => Ok(tier),
        }
    };
    let mut storage = StoragePoolConfiguration::default();
    if let Some(words) = parts.pop().flatten() {
        for vdev in parse("spare", &words)?.top_level_vdevs {
            match vdev {
                Vdev::Leaf(leaf) => storage.spares.push(leaf),
                _ => return Err(Failure::Usage("spare: each is a file or device alone".into())),
            }
        }
    }
    let count = parts.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    for (name, words) in names.iter().zip(parts).take(count) {
        let name = format!("tier {}", name.to_ascii_lowercase());
        storage.tiers.push(match words {
            Some(words) => parse(&name, &words)?,
            None => TierConfiguration::default(),
        });
    }
    Ok(storage)
}

/// The words of an argument, each with its backslashes.
fn split_words(argument: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut escaped = false;
    for c in argument.chars() {
        if c.is_whitespace() && !escaped {
            words.push(String::new());
            continue;
        }
        if let Some(word) = words.last_mut() {
            word.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Makes every path of a pool one from the root of the file system: the configuration may be used from any folder.
///
/// # Errors
/// There is no working folder.
pub fn make_absolute(storage: &mut StoragePoolConfiguration) -> anyhow::Result<()> {
    let mut unresolved = Ok(());
    for_each_file(storage, |file| match std::path::absolute(&file.path) {
        Ok(path) => file.path = path,
        Err(error) => unresolved = Err(error),
    });
    unresolved.context("the working folder")
}

/// Writes the configuration file at `path` anew, with what `change` makes of it. The one before is kept, with a `~` behind its
/// name. Variables of the environment have no part in this.
///
/// # Errors
/// The file cannot be read or written; it is as it was then.
pub fn rewrite(path: &Path, change: impl FnOnce(&mut DatabaseConfiguration)) -> anyhow::Result<()> {
    let writing = || format!("writing the configuration {}", path.display());
    // Where a symbolic link leads, a file stands in its place afterwards.
    let path = &std::fs::canonicalize(path).with_context(writing)?;
    let mut configuration = DatabaseConfiguration::from_json_file(path).map_err(betree::Error::from)?;
    change(&mut configuration);
    let text = configuration.to_json_string().map_err(betree::Error::from)?;
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let (new, kept) = (beside(".new"), beside("~"));
    let write = || -> std::io::Result<()> {
        std::fs::copy(path, &kept)?;
        let mut file = std::fs::File::create(&new)?;
        file.set_permissions(std::fs::metadata(path)?.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(writing)
}

/// All leaves of a pool, with their tier.
pub fn leaves(storage: &StoragePoolConfiguration) -> impl Iterator<Item = (usize, &LeafVdev)> {
    storage.tiers.iter().enumerate().flat_map(|(tier, vdevs)| {
        vdevs.top_level_vdevs.iter().flat_map(move |vdev| vdev.leaves().iter().map(move |leaf| (tier, leaf)))
    })
}

/// Devices and inodes of the files and block devices of a pool, its spares included, and of symbolic links to them.
pub fn file_ids(storage: &StoragePoolConfiguration) -> HashSet<(u64, u64)> {
    // A link to one as well: what takes its place takes the path away.
    let all = leaves(storage).map(|(_, leaf)| leaf).chain(&storage.spares);
    let files = all.flat_map(|leaf| match leaf {
        LeafVdev::File(file) => {
            [std::fs::metadata(&file.path).ok(), std::fs::symlink_metadata(&file.path).ok()]
        }
        _ => [None, None],
    });
    files.flatten().map(|file| (file.dev(), file.ino())).collect()
}

/// Whether any leaf of a pool outlives the process.
pub fn is_durable(storage: &StoragePoolConfiguration) -> bool {
    leaves(storage).any(|(_, leaf)| !matches!(leaf, LeafVdev::Memory { .. }))
}

/// Calls `each` for every file of a pool, spares included.
pub fn for_each_file(storage: &mut StoragePoolConfiguration, mut each: impl FnMut(&mut FileLeaf)) {
    for spare in &mut storage.spares {
        if let LeafVdev::File(file) = spare {
            each(file);
        }
    }
    for vdev in storage.tiers.iter_mut().flat_map(|tier| &mut tier.top_level_vdevs) {
        let leaves = match vdev {
            Vdev::Leaf(leaf) => std::slice::from_mut(leaf),
            Vdev::Mirror(legs) | Vdev::Parity1(legs) | Vdev::Parity2(legs) => legs,
        };
        for leaf in leaves {
            if let LeafVdev::File(file) = leaf {
                each(file);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers(options: &[&str]) -> Result<Vec<String>, Failure> {
        let mut tiers = Vec::new();
        options.iter().try_for_each(|option| add_tier(&mut tiers, option))?;
        Ok(tiers.iter().map(TierConfiguration::zfs_like).collect())
    }

    #[test]
    fn tiers_in_words_are_read() {
        let tiers = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            parse_pool(&words)
                .map(|pool| pool.tiers.iter().map(TierConfiguration::zfs_like).collect::<Vec<_>>())
        };
        let all = "/a mirror /b /c parity1 /d /e /f";
        assert_eq!(tiers(&[all]).unwrap(), [all]);
        assert_eq!(tiers(&all.split(' ').collect::<Vec<_>>()).unwrap(), [all]);
        assert_eq!(
            tiers(&["./n.img:1GiB", "SLOW mirror /b", "/c\\ d", "fast", "/e"]).unwrap(),
            ["./n.img:1GiB", "/e", "mirror /b /c\\ d"]
                .map(|words| words.parse::<TierConfiguration>().unwrap().zfs_like())
        );
        assert_eq!(tiers(&["slow", "/a"]).unwrap(), ["", "", "/a"]);
        for wrong in
            [&["/a", "slow"][..], &["mirror", "/a"], &["a.img"], &["/a\\"], &["mirror", "slow", "/a", "/b"]]
        {
            let error = tiers(wrong).unwrap_err();
            assert!(matches!(&error, Failure::Usage(_)), "{wrong:?}: {error}");
        }
        let words = ["mirror /a /b spare /c", "/d:8MiB"].map(str::to_owned);
        let spares = parse_pool(&words).unwrap().spares;
        assert_eq!(spares, [LeafVdev::file("/c"), LeafVdev::File(parse_leaf("/d:8MiB").unwrap())]);
        for wrong in ["/a spare", "/a spare mirror /b /c"] {
            assert!(parse_pool(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
        assert_eq!(parse_leaf("x:8MiB").unwrap().size, Some(8 << 20));
        assert_eq!(parse_leaf("/x:direct=false").unwrap().path, Path::new("/x"));
        for wrong in ["mem:1GiB", "mirror /a /b", "/a,/b", "", "/a /b"] {
            assert!(parse_leaf(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tiers_are_read() {
        let words = |words: &str| words.parse::<TierConfiguration>().unwrap().zfs_like();
        assert_eq!(
            tiers(&["fastest=mem:4GiB", "slow=mirror:a.img:1GiB,./b.img:1GiB"]).unwrap(),
            [words("mem:4GiB"), String::new(), words("mirror file:a.img:1GiB ./b.img:1GiB")]
        );
        assert_eq!(tiers(&["0=/a", "FASTEST=/b"]).unwrap(), [words("/a /b")]);
        assert_eq!(
            tiers(&["fast=parity1 /a /b /c single /d"]).unwrap()[1],
            words("parity1 /a /b /c single /d")
        );
        assert_eq!(
            tiers(&["fast=x.img,y.img:8MiB:direct=false"]).unwrap()[1],
            words("file:x.img file:y.img:8MiB:direct=false")
        );
        for wrong in [
            "slow",
            "medium=/a",
            "4=/a",
            "slow=",
            "slow=mirror:a",
            "slow=mirror:",
            "slow=mem:x",
            "slow= ",
            "slow=,",
        ] {
            let error = tiers(&[wrong]).unwrap_err();
            assert!(matches!(&error, Failure::Usage(_)), "{wrong}: {error}");
        }
    }
}
