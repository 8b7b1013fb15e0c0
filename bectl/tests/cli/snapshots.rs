//! `snapshot`, `clone`, `promote`, and reading of snapshots.

use crate::home::Home;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// A pool with a dataset `d` that has some keys, as they are in the snapshot `d@a`.
fn with_snapshot() -> Home {
    let home = Home::with_pool();
    for key in ["kept", "changed", "removed"] {
        home.words(&format!("kv d put {key} old")).ok();
    }
    home.words("snapshot create d@a").ok();
    home
}

/// As [`with_snapshot`], and `d` was written to since.
fn with_changes() -> Home {
    let home = with_snapshot();
    home.words("kv d put changed new").ok();
    home.words("kv d put added new").ok();
    home.words("kv d put kept old").ok();
    home.words("kv d del removed").ok();
    home
}

/// Names of the snapshots that there are.
fn names(home: &Home) -> Vec<String> {
    let list = home.words("snapshot list -H").ok();
    list.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

#[test]
fn a_snapshot_reads_as_its_dataset_was() {
    let home = with_changes();
    assert_eq!(home.words("kv d@a get changed").ok(), "old");
    assert_eq!(home.words("kv d get changed").ok(), "new");
    home.words("kv d@a get added").fails(3, "key \"added\" is not in snapshot \"d@a\"");
    assert_eq!(home.words("kv d@a list").ok(), "changed\nkept\nremoved\n");
    assert_eq!(home.words("kv d@a list --prefix k -v").ok(), "kept -> old\n");
    assert_eq!(home.words("kv d@a list --from kept --reverse").ok(), "removed\nkept\n");
    assert_eq!(home.words("kv d@a count").ok(), "3\n");
    assert_eq!(home.words("kv d@a dump").ok(), "changed\told\nkept\told\nremoved\told\n");
    home.words("kv d@b get changed").fails(3, "\"d@b\" does not exist");
    home.words("kv e@a get changed").fails(3, "\"e\" does not exist");
    home.words("kv @ get changed").fails(3, "\"@\" does not exist");
}

#[test]
fn a_snapshot_is_never_written_to() {
    let home = with_snapshot();
    home.words("kv d@a put k v").fails(8, "\"d@a\" is a snapshot");
    home.fed("kv d@a load", b"k\tv\n").fails(8, "\"d@a\" is a snapshot");
    home.words("dataset create d@a").fails(8, "\"d@a\" is a snapshot");
    home.words("dataset rename d d@a").fails(8, "\"d@a\" is a snapshot");
    home.words("clone d@a d@a").fails(8, "\"d@a\" is a snapshot");
    for words in ["kv d@a del kept", "kv d@a range-del -y", "dataset destroy d@a -y"] {
        home.words(words).fails(3, "does not exist");
    }
    assert_eq!(home.words("db list-datasets").ok(), "d\n");
    assert_eq!(home.words("kv d@a count").ok(), "3\n");
    // A dataset may have such a name when there is no snapshot of it, and goes first.
    home.words("kv d@b put k dataset").ok();
    home.words("snapshot create d@b").ok();
    assert_eq!(home.words("kv d@b list -v").ok(), "k -> dataset\n");
    home.words("kv d@b put k again").ok();
    home.words("snapshot create d@b@c").ok();
    assert_eq!(home.words("kv d@b@c get k").ok(), "again");
}

#[test]
fn snapshots_are_listed() {
    let home = Home::with_pool();
    assert_eq!(home.words("snapshot list").ok(), "NAME  CREATED  USED  REFERENCED  WRITTEN  HOLDS  CLONES\n");
    assert_eq!(home.words("snapshot list --json").json("snapshot list"), json!([]));
    home.words("kv d put k v").ok();
    home.words("kv e put k v").ok();
    home.words("snapshot create d@one e@one").ok();
    home.words("snapshot create d@two").ok();
    home.words("snapshot hold tag d@two").ok();
    home.words("clone d@two c").ok();
    assert_eq!(names(&home), ["d@one", "d@two", "e@one"]);
    let list = home.words("snapshot list d --json").json("snapshot list");
    assert_eq!(list.as_array().unwrap().len(), 2);
    let (one, two) = (&list[0], &list[1]);
    assert_eq!((&one["dataset"], &one["name"]), (&json!("d"), &json!("one")));
    assert_eq!((&one["holds"], &one["clones"]), (&json!([]), &json!([])));
    assert_eq!((&two["holds"], &two["clones"]), (&json!(["tag"]), &json!(["c"])));
    assert!(one["referenced"].as_u64().unwrap() > 0);
    // The first one has all that there is, and shares it with the second.
    assert_eq!((&one["written"], &one["used"]), (&one["referenced"], &json!(0)));
    assert!(one["generation"].as_u64() < two["generation"].as_u64());
    let created = one["created"].as_str().unwrap();
    assert_eq!((created.len(), &created[..2], &created[10..11], &created[19..]), (20, "20", "T", "Z"));
    let both = home.words("snapshot list --json").json("snapshot list");
    assert_eq!(both[0]["generation"], both[2]["generation"], "not of one instant");
    let line = home.words("snapshot list d -Hp").ok().lines().nth(1).unwrap().to_owned();
    let cells: Vec<_> = line.split('\t').collect();
    assert_eq!((cells[0], cells[5], cells[6]), ("d@two", "tag", "c"));
    assert_eq!(cells[3], two["referenced"].to_string());
    home.words("snapshot list absent").fails(3, "\"absent\" does not exist");
}

#[test]
fn wrong_names_are_refused() {
    let home = with_snapshot();
    home.words("snapshot create d@a").fails(8, "already exists");
    home.words("snapshot create absent@a").fails(3, "\"absent\" does not exist");
    home.words("snapshot create d@b absent@b").fails(3, "\"absent\" does not exist");
    home.words("snapshot create d@b d@b").fails(1, "twice");
    home.words("snapshot create d@b d@c").fails(2, "one name");
    for wrong in ["d", "@a", "d@"] {
        home.words(&format!("snapshot create {wrong}")).fails(2, "DATASET@NAME");
    }
    assert_eq!(names(&home), ["d@a"], "half of what was asked for");
    home.words("snapshot rename d@a x@b").fails(2, "stays with its dataset");
    home.words("snapshot rename d@a d@").fails(1, "empty");
    home.words("snapshot rename d@b c").fails(3, "\"d@b\" does not exist");
    for new_name in ["b", "@c", "d@e"] {
        let old = names(&home).remove(0);
        home.words(&format!("snapshot rename {old} {new_name}")).ok();
        assert_eq!(names(&home)[0].rsplit('@').next(), new_name.rsplit('@').next());
    }
    home.words("snapshot create d@a").ok();
    home.words("snapshot rename d@a e").fails(8, "already exists");
}

#[test]
fn names_of_snapshots_are_bytes() {
    let home = Home::with_pool();
    let run = |words: &[&[u8]]| home.run(words.iter().map(|word| OsStr::from_bytes(word)));
    run(&[b"kv", b"\xff", b"put", b"k", b"v"]).ok();
    run(&[b"snapshot", b"create", b"\xff@\xfe"]).ok();
    run(&[b"snapshot", b"hold", b"\xfd", b"\xff@\xfe"]).ok();
    run(&[b"clone", b"\xff@\xfe", b"\xfc"]).ok();
    assert_eq!(run(&[b"kv", b"\xff@\xfe", b"get", b"k"]).ok(), "v");
    let line = home.words("snapshot list -H").ok();
    let cells: Vec<_> = line.trim_end().split('\t').collect();
    assert_eq!((cells[0], cells[5], cells[6]), (r"\xff@\xfe", r"\xfd", r"\xfc"));
    let list = home.words("snapshot list --json").json("snapshot list");
    assert_eq!((&list[0]["dataset"], &list[0]["name"]), (&json!({"hex": "ff"}), &json!({"hex": "fe"})));
    assert_eq!((&list[0]["holds"], &list[0]["clones"]), (&json!([{"hex": "fd"}]), &json!([{"hex": "fc"}])));
    run(&[b"snapshot", b"destroy", b"-y", b"\xff@\xfe"]).fails(8, r#"clone "\xfc""#);
    run(&[b"snapshot", b"release", b"\xfd", b"\xff@\xfe"]).ok();
    run(&[b"dataset", b"destroy", b"-y", b"\xfc"]).ok();
    run(&[b"snapshot", b"destroy", b"-y", b"\xff@\xfe"]).ok();
    assert_eq!(home.words("snapshot list -H").ok(), "");
}

#[test]
fn what_is_needed_is_not_destroyed() {
    let home = with_snapshot();
    for name in ["d@b", "d@c", "d@e"] {
        home.words(&format!("snapshot create {name}")).ok();
    }
    home.words("snapshot hold one d@b").ok();
    home.words("snapshot hold two d@b").ok();
    home.words("snapshot hold two d@b").fails(8, "already exists");
    home.words("clone d@c clone").ok();
    // All or none of those that are named.
    for yes in [" -y", "", " --dry-run"] {
        home.words(&format!("snapshot destroy d@a d@b{yes}")).fails(8, r#"hold "one", hold "two""#);
        home.words(&format!("snapshot destroy d@a d@c{yes}")).fails(8, r#"clone "clone""#);
        home.words(&format!("snapshot destroy d@a d@x{yes}")).fails(3, "\"d@x\" does not exist");
    }
    home.words("dataset destroy d -y").fails(8, "is needed by");
    assert_eq!(names(&home), ["d@a", "d@b", "d@c", "d@e"]);
    home.words("snapshot destroy d@a").fails(8, "confirm with -y");
    let told = home.words("snapshot destroy d@a d@e --dry-run");
    assert_eq!(told.stderr, "would destroy 2 snapshots: \"d@a\", \"d@e\"\n");
    let told = home.words("snapshot destroy d@a d@a --dry-run --json").json("snapshot destroy");
    assert_eq!((told.as_array().unwrap().len(), &told[0]["name"]), (1, &json!("a")));
    assert_eq!(names(&home).len(), 4);
    home.words("snapshot destroy d@a d@e d@a -y").ok();
    assert_eq!(names(&home), ["d@b", "d@c"]);
    home.words("snapshot release absent d@b").fails(3, "\"absent\" does not exist");
    home.words("snapshot release one d@b").ok();
    home.words("snapshot destroy d@b -y").fails(8, "hold \"two\"");
    home.words("snapshot release two d@b").ok();
    home.words("snapshot destroy d@b -y").ok();
    home.words("dataset destroy clone -y").ok();
    home.words("snapshot destroy d@c -y").ok();
    home.words("snapshot destroy d@c -y").fails(3, "does not exist");
    home.words("check").ok();
}

#[test]
fn differences_are_printed_in_order() {
    let home = with_changes();
    // As long as the changes are only in the log, and in a tree.
    for _ in 0..2 {
        assert_eq!(home.words("snapshot diff d@a").ok(), "+ added\nM changed\n- removed\n");
        assert_eq!(home.words("snapshot diff d@a d").ok(), "+ added\nM changed\n- removed\n");
        home.words("snapshot create d@b").fails(0, "");
        assert_eq!(home.words("snapshot diff d@a d@b").ok(), "+ added\nM changed\n- removed\n");
        assert_eq!(home.words("snapshot diff d@b d@a").ok(), "- added\nM changed\n+ removed\n");
        assert_eq!(home.words("snapshot diff d@b").ok(), "");
        home.words("snapshot destroy d@b -y").ok();
    }
    assert_eq!(home.words("snapshot diff d@a -H").ok(), "+\tadded\nM\tchanged\n-\tremoved\n");
    let hex = home.words("snapshot diff d@a --key-enc hex").ok();
    assert_eq!(hex.lines().next(), Some("+ 6164646564"));
    let changes = home.words("snapshot diff d@a --json").json("snapshot diff");
    let change = |change: &str, key: &str| json!({"change": change, "key": key});
    assert_eq!(
        changes,
        Value::Array(vec![
            change("added", "added"),
            change("changed", "changed"),
            change("removed", "removed")
        ])
    );
    home.words("kv d range-del -y").ok();
    assert_eq!(home.words("snapshot diff d@a").ok(), "- changed\n- kept\n- removed\n");
    home.words("snapshot diff d@x").fails(3, "\"d@x\" does not exist");
    home.words("snapshot diff d@a d@x").fails(3, "\"d@x\" does not exist");
    home.words("snapshot diff d").fails(2, "DATASET@NAME");
    // Of another dataset, which is a clone or not.
    home.words("clone d@a c").ok();
    home.words("kv c put cloned v").ok();
    assert_eq!(home.words("snapshot diff d@a c").ok(), "+ cloned\n");
    home.words("kv other put kept old").ok();
    assert_eq!(home.words("snapshot diff d@a other").ok(), "- changed\n- removed\n");
}

#[test]
fn a_dataset_goes_back() {
    let home = with_changes();
    home.words("snapshot rollback d@a").fails(8, "changes 3 keys");
    let told = home.words("snapshot rollback d@a --dry-run").stderr;
    assert_eq!(told, "would roll dataset \"d\" back to \"d@a\", which changes 3 keys\n");
    home.words("snapshot create d@b").ok();
    home.words("snapshot create d@c").ok();
    for yes in [" -y", "", " --dry-run"] {
        home.words(&format!("snapshot rollback d@a{yes}")).fails(8, "later snapshot");
    }
    let told = home.words("snapshot rollback d@a -f --dry-run --json").json("snapshot rollback");
    assert_eq!(told, json!({"keys": 3, "destroyed": ["b", "c"]}));
    home.words("snapshot hold tag d@c").ok();
    home.words("snapshot rollback d@a -f --dry-run").fails(8, "hold \"tag\"");
    home.words("snapshot rollback d@a -f -y").fails(8, "is needed by hold tag");
    assert_eq!(home.words("kv d get changed").ok(), "new");
    home.words("snapshot release tag d@c").ok();
    home.words("snapshot rollback d@a --force -y").ok();
    assert_eq!(home.words("kv d dump").ok(), "changed\told\nkept\told\nremoved\told\n");
    assert_eq!(names(&home), ["d@a"]);
    home.words("snapshot rollback d@b -y").fails(3, "\"d@b\" does not exist");
    home.words("snapshot rollback d@b --dry-run").fails(3, "\"d@b\" does not exist");
    home.words("check").ok();
}

#[test]
fn clones_are_datasets_and_may_own_what_they_came_of() {
    let home = with_changes();
    home.words("clone d@a c").ok();
    home.words("kv c put cloned v").ok();
    assert_eq!(home.words("kv c list").ok(), "changed\ncloned\nkept\nremoved\n");
    home.words("clone d@a c").fails(8, "already exists");
    home.words("clone d@x e").fails(3, "\"d@x\" does not exist");
    home.words("dataset destroy d -y").fails(8, "clone c");
    home.words("dataset destroy d").fails(8, "3 entries (25 B) and its snapshots (1)");
    home.words("promote d").fails(1, "is no clone");
    home.words("promote absent").fails(3, "does not exist");
    home.words("promote c").ok();
    assert_eq!(names(&home), ["c@a"]);
    assert_eq!(home.words("kv d get changed").ok(), "new");
    home.words("dataset destroy d -y").ok();
    assert_eq!(home.words("kv c@a count").ok(), "3\n");
    assert_eq!(home.words("kv c count").ok(), "4\n");
    home.words("check").ok();
}

#[test]
fn old_snapshots_are_thinned_out() {
    let home = with_snapshot();
    for name in ["b", "c", "d", "e", "f"] {
        home.words(&format!("snapshot create d@{name}")).ok();
    }
    home.words("snapshot hold tag d@b").ok();
    home.words("clone d@c clone").ok();
    home.words("snapshot prune d --keep-last 2").fails(8, "destroys 2 of 6 snapshots: \"d@a\", \"d@d\"");
    let told = home.words("snapshot prune d --keep-last 2 --dry-run --json").json("snapshot prune");
    let kept: Vec<_> = told.as_array().unwrap().iter().map(|one| one["kept"].clone()).collect();
    assert_eq!(
        kept,
        [json!(null), json!("held"), json!("cloned"), json!(null), json!("last"), json!("last")]
    );
    let told = home.words("snapshot prune d --keep-last 2 --dry-run -H").ok();
    let last = |line: &str| line.rsplit('\t').next().unwrap().to_owned();
    assert_eq!(told.lines().map(last).collect::<Vec<_>>(), ["-", "held", "cloned", "-", "last", "last"]);
    assert_eq!(names(&home).len(), 6);
    let told = home.words("snapshot prune d --keep-last 2 -y");
    assert!(told.stderr.contains("snapshot \"d@b\" stays: it is held by tag\n"), "{}", told.stderr);
    assert!(told.stderr.contains("snapshot \"d@c\" stays: it is cloned by clone\n"), "{}", told.stderr);
    assert!(told.stderr.ends_with("destroyed 2 of 6 snapshots\n"), "{}", told.stderr);
    assert_eq!(names(&home), ["d@b", "d@c", "d@e", "d@f"]);
    // Whatever the clock says, the newest one is the newest of its hour, and of each longer period.
    for period in ["hourly", "daily", "weekly", "monthly", "yearly"] {
        let told = home.words(&format!("snapshot prune d --keep-{period} 1 --dry-run --json"));
        let told = told.json("snapshot prune");
        assert_eq!(told.as_array().unwrap().last().unwrap()["kept"], json!(period));
    }
    // Nothing to destroy is nothing to confirm. All are of one year, or of the first seconds of the next.
    home.words("snapshot prune d --keep-last 4").ok();
    home.words("snapshot prune d --keep-yearly 9 -y").ok();
    assert_eq!(names(&home).last().unwrap(), "d@f");
    home.words("snapshot prune d").fails(2, "--keep-last");
    home.words("snapshot prune d --keep-last 0").fails(2, "0 is not in");
    home.words("snapshot prune absent --keep-last 1 -y").fails(3, "\"absent\" does not exist");
    home.words("check").ok();
}
