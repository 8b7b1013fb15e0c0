//! `dataset`.

use crate::home::Home;
use serde_json::json;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

#[test]
fn datasets_come_and_go() {
    let home = Home::with_pool();
    assert_eq!(home.words("dataset list").ok(), "NAME  MESSAGES  STORED  IN MEMORY\n");
    assert_eq!(home.words("dataset list -H").ok(), "");
    home.words("dataset create one").ok();
    home.words("dataset create one").fails(8, "already exists");
    home.words("kv one put k v").ok();
    home.words("dataset rename one two").ok();
    home.words("dataset rename one three").fails(3, "\"one\" does not exist");
    home.words("dataset create one").ok();
    home.words("dataset rename one two").fails(8, "already exists");
    assert_eq!(home.words("db list-datasets").ok(), "one\ntwo\n");
    assert_eq!(home.words("kv two get k").ok(), "v");
    let list = home.words("dataset list --json").json("dataset list");
    assert_eq!((&list[0]["name"], &list[1]["name"]), (&json!("one"), &json!("two")));
    assert_eq!(list[1]["stats"]["messages"], 1);

    home.words("dataset destroy two").fails(8, "1 entry (2 B)");
    let told = home.words("dataset destroy two --dry-run");
    assert_eq!((told.code, told.stderr.as_str()), (0, "would destroy dataset \"two\" with 1 entry (2 B)\n"));
    assert_eq!(
        home.words("dataset destroy two --dry-run --json").json("dataset destroy"),
        json!({"entries": 1, "bytes": 2, "snapshots": 0})
    );
    assert_eq!(home.words("kv two get k").ok(), "v");
    home.words("dataset destroy two -y").ok();
    home.words("dataset destroy two -y").fails(3, "does not exist");
    home.words("dataset destroy two --dry-run").fails(3, "does not exist");
    home.words("kv two get k").fails(3, "does not exist");
}

#[test]
fn a_dataset_has_a_shape() {
    let home = Home::with_pool();
    let options = "--merge-policy leveled --fanout 16 --block-size 4KiB --large-value-size 4KiB --leaf-size 64KiB --compression zstd:3 --preference slow";
    home.words(&format!("dataset create shaped {options}")).ok();
    home.words("kv shaped put k v --storage-preference fastest").ok();
    let stats = home.words("dataset stats shaped --json").json("dataset stats");
    assert_eq!((&stats["levels"], &stats["messages"]), (&json!(1), &json!(1)));
    assert!(home.words("dataset stats shaped").ok().contains("messages          1\n"));
    home.words("dataset stats absent").fails(3, "does not exist");
    for wrong in ["--fanout 1", "--block-size 5000", "--large-value-size 100", "--leaf-size 1"] {
        home.words(&format!("dataset create wrong {wrong}")).fails(1, "");
    }
    for wrong in ["--compression gzip", "--preference 4", "--merge-policy none", "--fanout x"] {
        home.words(&format!("dataset create wrong {wrong}")).fails(2, "invalid value");
    }
    assert_eq!(home.words("db list-datasets").ok(), "shaped\n");
}

#[test]
fn names_are_bytes() {
    let home = Home::with_pool();
    let name = OsStr::from_bytes(b"\xff\x1b[31m");
    home.run([OsStr::new("dataset"), OsStr::new("create"), name]).ok();
    home.run([OsStr::new("dataset"), OsStr::new("create"), OsStr::new("Zürich")]).ok();
    assert_eq!(home.words("db list-datasets").ok(), "Zürich\n\\xff\\x1b[31m\n");
    let json = home.words("db list-datasets --json").json("db list-datasets");
    assert_eq!(json, json!(["Zürich", {"hex": "ff1b5b33316d"}]));
    home.run([OsStr::new("dataset"), OsStr::new("destroy"), OsStr::new("-y"), name]).ok();
    assert_eq!(home.words("db list-datasets").ok(), "Zürich\n");
    // Names of verbs are names too.
    for verb in ["list", "get", "help", "kv", "put"] {
        home.run(["kv", verb, "put", "k", verb]).ok();
        assert_eq!(home.run(["kv", verb, "get", "k"]).ok(), verb);
    }
    home.run(["dataset", "create", ""]).fails(1, "empty");
}
