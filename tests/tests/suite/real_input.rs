//! Texts that nobody wrote for a test: the Unicode character database and a word list go in, come out in key order, lose
//! every third key and a range, and survive a reopen, as the same lines treated as text do.

use betree::{AccessMode, Database, DatabaseConfiguration, StoragePoolConfiguration, TierConfiguration};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// The text, or `None` after saying that the package is missing; with `BETREE_CHECK` set that is a failure.
fn text(path: &str, package: &str) -> Option<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) => {
            let hint = format!("{path}: {error}; apt-get install {package}");
            assert!(std::env::var_os("BETREE_CHECK").is_none(), "{hint}");
            println!("left to scripts/check: {hint}");
            None
        }
    }
}

fn configuration(folder: &Path) -> DatabaseConfiguration {
    let pool = folder.join("pool.img");
    let mut tier = TierConfiguration::parse_zfs_like([format!("{}:256MiB", pool.display())]).unwrap();
    if let betree::Vdev::Leaf(betree::LeafVdev::File(file)) = &mut tier.top_level_vdevs[0] {
        file.sparse = true;
    }
    DatabaseConfiguration {
        storage: StoragePoolConfiguration { tiers: vec![tier], ..StoragePoolConfiguration::default() },
        access_mode: AccessMode::OpenOrCreate,
        ..DatabaseConfiguration::default()
    }
}

/// All lines in key order, as the dataset has them.
fn dump(db: &Database, name: &str) -> String {
    let dataset = db.open_dataset(name).unwrap();
    let mut out = String::new();
    for entry in dataset.range::<&[u8]>(..) {
        let (_, line) = entry.unwrap();
        out.push_str(std::str::from_utf8(&line).unwrap());
        out.push('\n');
    }
    out
}

/// `text` through the standard `sort`, by bytes.
fn sorted(text: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    std::fs::write(&input, text).unwrap();
    let output = Command::new("sort")
        .args(arguments)
        .arg(&input)
        .env("LC_ALL", "C")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn goes_in_and_comes_out(text: &str, key_of: impl Fn(&str) -> &str, sort: &[&str], range: (&str, &str)) {
    let folder = tempfile::tempdir().unwrap();
    let configuration = configuration(folder.path());
    let db = Database::build(configuration.clone()).unwrap();
    let dataset = db.create_dataset("text").unwrap();
    for line in text.lines() {
        dataset.insert(key_of(line), line).unwrap();
    }
    let expected = sorted(text, sort);
    assert!(dump(&db, "text") == expected, "the dump differs from the sorted text");

    let mut kept: BTreeMap<&str, &str> = text.lines().map(|line| (key_of(line), line)).collect();
    for line in expected.lines().step_by(3) {
        dataset.delete(key_of(line)).unwrap();
        kept.remove(key_of(line));
    }
    dataset.range_delete(range.0..range.1).unwrap();
    kept.retain(|key, _| !(range.0..range.1).contains(key));
    db.sync().unwrap();
    drop(dataset);
    db.close().unwrap();

    let db = Database::build(configuration).unwrap();
    let expected: String = kept.values().flat_map(|line| [line, "\n"]).collect();
    assert!(dump(&db, "text") == expected, "after deletes and a reopen the dump differs");
    db.verify().unwrap();
}

#[test]
fn the_unicode_character_database_goes_in_and_comes_out() {
    if let Some(text) = text("/usr/share/unicode/UnicodeData.txt", "unicode-data") {
        let key = |line: &str| -> String { line.split(';').next().unwrap_or(line).to_owned() };
        assert!(text.lines().count() > 30_000);
        assert_eq!(key("0041;LATIN"), "0041");
        goes_in_and_comes_out(
            &text,
            |line| line.split(';').next().unwrap_or(line),
            &["-t;", "-k1,1"],
            ("0400", "0500"),
        );
    }
}

#[test]
fn a_word_list_goes_in_and_comes_out() {
    if let Some(text) = text("/usr/share/dict/words", "wamerican") {
        assert!(text.lines().count() > 100_000);
        goes_in_and_comes_out(&text, |line| line, &[], ("m", "n"));
    }
}
