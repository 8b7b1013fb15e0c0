//! Exit codes and messages for what is not there, not ours, or not whole; no byte of anything changes.

use crate::home::Home;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const READS: [&str; 4] = ["kv d get k", "kv d list", "db status", "dataset list"];
const WRITES: [&str; 4] = ["kv d put k v", "dataset create e", "kv d del k", "dataset destroy d -y"];

/// Writes a configuration with these files in one tier.
fn configure(home: &Home, name: &str, files: &[&str]) {
    let leaves: Vec<Value> =
        files.iter().map(|file| json!({"path": home.path(file), "size": "16MiB"})).collect();
    let document = json!({"storage": {"tiers": [leaves]}});
    fs::write(home.path(name), document.to_string()).unwrap();
}

/// Every file below the home, with its bytes.
fn all(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(all(&path))
        } else {
            files.push((path.clone(), fs::read(&path).unwrap()))
        }
    }
    files.sort();
    files
}

/// Demands that every command fails so, in words and in JSON, and changes nothing.
#[track_caller]
fn all_fail(home: &Home, config: &str, code: i32, name: &str, message: &str) {
    let before = all(&home.path(""));
    for words in READS.iter().chain(&WRITES) {
        home.words(&format!("-c {config} {words}")).fails(code, message);
        let failed = home.words(&format!("-c {config} {words} --json"));
        assert_eq!((failed.code, failed.stdout.len()), (code, 0), "{}", failed.stderr);
        let document: Value = serde_json::from_str(&failed.stderr).unwrap();
        assert_eq!(document["error"]["code"], name, "{words}: {document}");
        assert_eq!(document["error"]["exit"], code, "{words}: {document}");
        assert!(all(&home.path("")) == before, "{words} changed something");
    }
}

/// Guards against commands that take something else for the pool, or make one by the way.
#[test]
fn what_is_no_pool_is_told_from_a_pool() {
    let home = Home::empty();
    configure(&home, "c.json", &["it.img"]);
    all_fail(&home, "c.json", 3, "NOT_FOUND", "it.img");
    fs::write(home.path("it.img"), []).unwrap();
    all_fail(&home, "c.json", 3, "NOT_FOUND", "it.img");
    fs::write(home.path("it.img"), vec![0; 1 << 20]).unwrap();
    all_fail(&home, "c.json", 3, "NOT_FOUND", "it.img");
    fs::write(home.path("it.img"), b"a letter to somebody\n".repeat(400_000)).unwrap();
    all_fail(&home, "c.json", 1, "INVALID_ARGUMENT", "it.img holds data, but no pool");
    home.words("-c c.json db init").fails(8, "it.img");
    fs::remove_file(home.path("it.img")).unwrap();
    fs::create_dir(home.path("it.img")).unwrap();
    all_fail(&home, "c.json", 1, "INVALID_ARGUMENT", "it.img");
    home.words("-c c.json db init").fails(1, "it.img");
}

/// Guards pools of several devices: what is missing, foreign or cut is named.
#[test]
fn devices_that_do_not_belong_together_are_named() {
    let home = Home::empty();
    for pool in ["a", "b"] {
        let (config, files) = (format!("{pool}.json"), [format!("{pool}0.img"), format!("{pool}1.img")]);
        configure(&home, &config, &[&files[0], &files[1]]);
        home.words(&format!("-c {config} db init")).ok();
        home.words(&format!("-c {config} kv d put k {pool}")).ok();
    }
    // The order does not matter.
    configure(&home, "swapped.json", &["a1.img", "a0.img"]);
    assert_eq!(home.words("-c swapped.json kv d get k").ok(), "a");
    home.words("-c swapped.json kv d put l swapped").ok();
    assert_eq!(home.words("-c a.json kv d get l").ok(), "swapped");
    configure(&home, "mixed.json", &["a0.img", "b1.img"]);
    all_fail(&home, "mixed.json", 1, "INVALID_ARGUMENT", "belongs to pool");
    configure(&home, "half.json", &["a0.img"]);
    all_fail(&home, "half.json", 7, "DEGRADED", "missing");
    configure(&home, "twice.json", &["a0.img", "a0.img"]);
    all_fail(&home, "twice.json", 1, "INVALID_ARGUMENT", "twice");
    let whole = fs::read(home.path("a1.img")).unwrap();
    fs::write(home.path("a1.img"), &whole[..8 << 20]).unwrap();
    all_fail(&home, "a.json", 1, "INVALID_ARGUMENT", "a1.img");
    fs::write(home.path("a1.img"), whole).unwrap();
    assert_eq!(home.words("-c a.json kv d get k").ok(), "a");
}

/// Guards "not found" and "refused" of what is in the pool.
#[test]
fn what_is_not_there_is_3_and_what_is_refused_8() {
    let home = Home::with_pool();
    home.words("kv d put k v").ok();
    let before = home.pool_bytes();
    for words in [
        "kv d get absent",
        "kv absent get k",
        "kv absent list",
        "kv absent count",
        "kv absent dump",
        "kv absent range-del -y",
        "dataset stats absent",
        "dataset rename absent e",
        "dataset destroy absent -y",
    ] {
        home.words(words).fails(3, "absent");
    }
    for words in ["dataset create d", "dataset destroy d", "kv d range-del", "db init", "db init --force"] {
        home.words(words).fails(8, "");
        let failed = home.words(&format!("{words} --json"));
        // What would be lost may be said before.
        let document: Value = serde_json::from_str(failed.stderr.lines().last().unwrap()).unwrap();
        assert_eq!((&document["error"]["exit"], failed.code), (&json!(8), 8), "{words}");
    }
    // Opening for a command that was refused may write a checkpoint; the contents are the same.
    assert_eq!(home.words("kv d list -v").ok(), "k -> v\n");
    assert_eq!(home.pool_bytes().len(), before.len());
}

/// Guards documents that mean nothing: the field is named, nothing is made.
#[test]
fn a_wrong_configuration_names_its_field() {
    let home = Home::empty();
    let leaf = |leaf: &str| format!(r#"{{"storage":{{"tiers":[[{leaf}]]}}}}"#);
    for (document, field) in [
        (leaf(r#"{"path":"p.img","size":"99999999999TiB"}"#), "size"),
        (leaf(r#"{"path":"p.img","size":0}"#), "tiers[0]"),
        (leaf(r#"{"path":"p.img","size":-5}"#), "size"),
        (leaf(r#"{"path":"p.img","sizes":1}"#), "sizes"),
        (leaf(r#"{"mem":"16EiB"}"#), "mem"),
        (r#"{"cache_size":"99999999999TiB"}"#.into(), "cache_size"),
        (r#"{"default_storage_class":9}"#.into(), "default_storage_class"),
        ("{\"cache_size\":".into(), "wrong.json:1"),
        (String::new(), "wrong.json:1"),
    ] {
        fs::write(home.path("wrong.json"), document).unwrap();
        home.words("config validate wrong.json").fails(1, field);
        home.words("-c wrong.json db init").fails(1, field);
        home.words("-c wrong.json kv d put k v").fails(1, field);
        assert_eq!(all(&home.path("")).len(), 1, "{field}: something was made");
    }
    home.words("db init --size 99999999999TiB").fails(2, "size");
    home.words("db init --size 0").fails(1, "0 bytes");
    home.words("db init --size -5").fails(2, "");
    home.words("-c absent.json kv d get k").fails(1, "absent.json");
}
