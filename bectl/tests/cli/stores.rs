//! `store`, and snapshots and clones of object stores.

use crate::home::Home;
use serde_json::json;

#[test]
fn stores_come_and_go() {
    let home = Home::with_pool();
    assert_eq!(home.words("store list").ok(), "NAME  CREATED  PREFERENCE  SNAPSHOTS\n");
    home.words("store create one --preference slow").ok();
    home.words("store create one").fails(8, "already exists");
    home.fed("obj one put a", b"123").ok();
    home.words("store rename one two").ok();
    home.words("store rename one three").fails(3, "\"one\" does not exist");
    home.words("store create one").ok();
    home.words("store rename one two").fails(8, "already exists");
    assert_eq!(home.words("obj two get a").ok(), "123");
    let list = home.words("store list --json").json("store list");
    assert_eq!((&list[0]["name"], &list[1]["name"]), (&json!("one"), &json!("two")));
    assert_eq!((&list[0]["preference"], &list[1]["preference"]), (&json!("NONE"), &json!("SLOW")));
    assert_eq!(home.words("store stats two --json").json("store stats"), json!({"objects": 1, "bytes": 3}));
    assert_eq!(home.words("store stats two -H").ok(), "objects\t1\nbytes\t3 B\n");
    // They are no datasets.
    assert_eq!(home.words("db list-datasets").ok(), "");
    home.words("kv two get a").fails(3, "does not exist");
    assert!(home.words("db status -H").ok().contains("object stores\t2\n"));

    home.words("store destroy two").fails(8, "This destroys object store \"two\" with 1 object (3 B)");
    let told = home.words("store destroy two --dry-run");
    assert_eq!(told.stderr, "would destroy object store \"two\" with 1 object (3 B)\n");
    let lost = home.words("store destroy two --dry-run --json").json("store destroy");
    assert_eq!(lost, json!({"objects": 1, "bytes": 3, "snapshots": 0}));
    home.words("store destroy two -y").ok();
    home.words("store destroy two -y").fails(3, "does not exist");
    home.words("obj two get a").fails(3, "does not exist");
    home.words("store create medium --preference medium").fails(2, "invalid value");
    home.words("store stats absent").fails(3, "absent");
}

/// A pool with a store `s` that has some objects, as they are in the snapshot `s@a`, and was written to since.
fn with_changes() -> Home {
    let home = Home::with_pool();
    for name in ["kept", "changed", "removed"] {
        home.fed(&format!("obj s put {name}"), b"old").ok();
    }
    home.words("snapshot create s@a").ok();
    home.fed("obj s write changed --offset 0", b"new").ok();
    home.fed("obj s put added", b"new").ok();
    home.words("obj s del removed").ok();
    home
}

#[test]
fn a_snapshot_of_a_store_reads_as_it_was() {
    let home = with_changes();
    assert_eq!(home.words("obj s@a list").ok(), "changed\nkept\nremoved\n");
    assert_eq!(home.words("obj s@a get changed").ok(), "old");
    assert_eq!(home.words("obj s get changed").ok(), "new");
    assert_eq!(home.words("obj s@a cat removed kept --range 1:1").ok(), "ll");
    assert_eq!(home.words("obj s@a stat removed --json").json("obj stat")["size"], 3);
    home.words("obj s@a get added").fails(3, "object \"added\" is not in store \"s@a\"");
    assert_eq!(home.words("store stats s@a -H").ok(), "objects\t3\nbytes\t9 B\n");
    home.words("obj s@b list").fails(3, "\"s@b\" does not exist");
    home.words("obj t@a list").fails(3, "\"t\" does not exist");
    for words in [
        "obj s@a put k",
        "obj s@a del kept",
        "obj s@a mv kept k",
        "obj s@a truncate kept 0",
        "obj s@a import .",
        "store create s@a",
        "store rename s s@a",
        "clone s@a s@a",
    ] {
        home.words(words).fails(8, "\"s@a\" is a snapshot");
    }
}

#[test]
fn snapshots_of_stores_are_listed_and_compared() {
    let home = with_changes();
    home.words("snapshot create s@b").ok();
    home.words("kv d put k v").ok();
    home.words("snapshot create d@a").ok();
    let list = home.words("snapshot list --json").json("snapshot list");
    let shown: Vec<_> =
        list.as_array().unwrap().iter().map(|one| (&one["dataset"], &one["store"], &one["name"])).collect();
    let (null, d, s, a, b) = (json!(null), json!("d"), json!("s"), json!("a"), json!("b"));
    assert_eq!(shown, [(&d, &null, &a), (&null, &s, &a), (&null, &s, &b)]);
    assert!(list[1]["referenced"].as_u64().unwrap() > 0);
    assert_eq!(home.words("snapshot list s -H").ok().lines().count(), 2);
    let text = "+ added\nM changed\n- removed\n";
    for words in ["snapshot diff s@a", "snapshot diff s@a s", "snapshot diff s@a s@b"] {
        assert_eq!(home.words(words).ok(), text, "{words}");
    }
    assert_eq!(home.words("snapshot diff s@b").ok(), "");
    let json = home.words("snapshot diff s@a --json").json("snapshot diff");
    assert_eq!(json[2], json!({"change": "removed", "key": "removed"}));
    home.words("snapshot diff s@c").fails(3, "c");
    home.words("snapshot create s@b d@b").fails(8, "already exists");
    assert_eq!(home.words("snapshot list -H").ok().lines().count(), 3);
    home.words("snapshot create s@c d@c").ok();
    let list = home.words("snapshot list --json").json("snapshot list");
    assert_eq!(list[1]["generation"], list[4]["generation"]);
}

#[test]
fn snapshots_of_stores_are_held_renamed_destroyed() {
    let home = with_changes();
    home.words("snapshot hold tag s@a").ok();
    home.words("snapshot destroy s@a -y").fails(8, "hold \"tag\"");
    home.words("snapshot release tag s@a").ok();
    home.words("snapshot rename s@a @b").ok();
    home.words("snapshot rename s@b t@c").fails(2, "stays with");
    home.words("snapshot destroy s@b").fails(8, "snapshot \"s@b\"");
    home.words("store destroy s").fails(8, "and its snapshots (1)");
    let told = home.words("snapshot destroy s@b --dry-run --json").json("snapshot destroy");
    assert_eq!((&told[0]["store"], &told[0]["name"]), (&json!("s"), &json!("b")));
    home.words("snapshot create s@c").ok();
    home.words("snapshot prune s --keep-last 1 -y").ok();
    assert_eq!(home.words("snapshot list s -H").ok().lines().count(), 1);
    home.words("snapshot destroy s@c -y").ok();
    home.words("snapshot destroy s@c -y").fails(3, "does not exist");
    assert_eq!(home.words("obj s get changed").ok(), "new");
}

#[test]
fn a_store_goes_back() {
    let home = with_changes();
    home.words("snapshot rollback s@a")
        .fails(8, "rolls object store \"s\" back to \"s@a\", which changes 3 objects");
    home.words("snapshot rollback s@a --dry-run").ok();
    assert_eq!(home.words("obj s get changed").ok(), "new");
    home.words("snapshot create s@b").ok();
    home.words("snapshot rollback s@a -y").fails(8, "later snapshot");
    home.words("snapshot rollback s@a -y --force").ok();
    assert_eq!(home.words("obj s list").ok(), "changed\nkept\nremoved\n");
    assert_eq!(home.words("obj s get changed").ok(), "old");
    assert_eq!(home.words("snapshot list s -H").ok().lines().count(), 1);
}

#[test]
fn clones_of_stores_are_stores() {
    let home = with_changes();
    home.words("clone s@a c").ok();
    home.words("clone s@a c").fails(8, "already exists");
    assert_eq!(home.words("obj c list").ok(), "changed\nkept\nremoved\n");
    home.fed("obj c put kept", b"cloned").ok();
    assert_eq!(home.words("obj s get kept").ok(), "old");
    home.words("store destroy s -y").fails(8, "");
    home.words("promote c").ok();
    assert_eq!(home.words("snapshot list c -H").ok().lines().count(), 1);
    home.words("store destroy s -y").ok();
    assert_eq!(home.words("obj c get kept").ok(), "cloned");
    assert_eq!(home.words("obj c@a get kept").ok(), "old");
    home.words("promote absent").fails(3, "absent");
}

/// A dataset and a store may have one name: then snapshots are of the dataset, unless somebody says otherwise.
#[test]
fn a_dataset_goes_before_a_store() {
    let home = Home::with_pool();
    home.words("kv both put k v").ok();
    home.fed("obj both put o", b"x").ok();
    home.words("snapshot create both@a").ok();
    assert_eq!(home.words("kv both@a get k").ok(), "v");
    home.words("obj both@a get o").fails(3, "does not exist");
    home.words("snapshot create both@b --store").ok();
    assert_eq!(home.words("obj both@b get o").ok(), "x");
    home.words("kv both@b get k").fails(3, "does not exist");
    home.words("clone both@b c --store").ok();
    assert_eq!(home.words("obj c get o").ok(), "x");
    let list = home.words("snapshot list both --store --json").json("snapshot list");
    assert_eq!((&list[0]["store"], &list[0]["name"]), (&json!("both"), &json!("b")));
    home.words("snapshot create d@x --store").fails(3, "\"d\" does not exist");
}
