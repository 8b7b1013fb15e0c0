//! `kv`, one entry at a time and in ranges.

use crate::home::Home;
use serde_json::json;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

#[test]
fn put_get_del() {
    let home = Home::with_pool();
    assert_eq!(home.words("kv a put k v").ok(), "");
    home.words("kv a put k w").ok();
    assert_eq!(home.words("kv a get k").ok(), "w");
    assert_eq!(home.words("kv a get k --json").json("kv get"), json!({"key": "k", "value": "w"}));
    assert_eq!(home.words("kv a put j v --json").json("kv put"), json!(null));
    assert_eq!(home.words("kv a del k").ok(), "");
    home.words("kv a get k").fails(3, "key \"k\" is not in dataset \"a\"");
    home.words("kv a del k").fails(3, "key \"k\" is not in dataset \"a\"");
    home.words("kv b get k").fails(3, "dataset \"b\" does not exist");
    home.words("kv b del k").fails(3, "dataset \"b\" does not exist");
    home.words("kv b list").fails(3, "dataset \"b\" does not exist");
    home.words("kv b count").fails(3, "dataset \"b\" does not exist");
    home.words("kv b dump").fails(3, "dataset \"b\" does not exist");
    home.words("kv b tree-dump").fails(3, "dataset \"b\" does not exist");
    assert_eq!(home.words("db list-datasets").ok(), "a\n");
    // What looks like an option or a number.
    home.words("kv a put -5 -7").ok();
    assert_eq!(home.words("kv a get -5").ok(), "-7");
    home.words("kv a put -- --json -x").ok();
    assert_eq!(home.words("kv a get -- --json").ok(), "-x");
    // Both may be empty.
    home.run(["kv", "a", "put", "", ""]).ok();
    assert_eq!(home.run(["kv", "a", "get", ""]).ok(), "");
}

#[test]
fn errors_in_json() {
    let home = Home::with_pool();
    let failed = home.words("kv b get k --json");
    let error: serde_json::Value = serde_json::from_str(&failed.stderr).unwrap();
    assert_eq!(error["output_version"]["command"], "bectl kv get");
    assert_eq!(
        error["error"],
        json!({"code": "NOT_FOUND", "exit": 3, "message": "dataset \"b\" does not exist"})
    );
    failed.fails(3, "NOT_FOUND");
}

#[test]
fn values_are_exact_bytes() {
    let home = Home::with_pool();
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(home.fed("kv a put all", &all).code, 0);
    assert_eq!(home.words("kv a get all").stdout, all);
    let hex: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(home.words("kv a get all --value-enc hex").ok(), format!("{hex}\n"));
    assert_eq!(home.words("kv a get all --json").json("kv get")["value"], json!({"hex": hex}));
    // Arguments cannot hold a zero byte; all others they can.
    let raw = OsStr::from_bytes(b"\xfe\x01\n");
    home.run([OsStr::new("kv"), OsStr::new("a"), OsStr::new("put"), raw, raw]).ok();
    assert_eq!(home.words("kv a get --key-enc hex fe010a").stdout, b"\xfe\x01\n");
    home.words("kv a put --key-enc hex 0000 --value-enc base64 AAEC").ok();
    assert_eq!(home.words("kv --key-enc hex a get 0000").stdout, [0, 1, 2]);
    assert_eq!(home.fed("kv a put --value-enc hex fed", b"00ff\n").code, 0);
    assert_eq!(home.words("kv a get fed").stdout, [0, 255]);
    home.words("kv a get --key-enc hex 0").fails(2, "hexadecimal");
    home.words("kv a put --value-enc base64 k ?").fails(2, "base64");
    home.words("kv a get --key-enc rot13 k").fails(2, "invalid value");
    let listed = home.words("kv a list").ok();
    assert_eq!(listed, "\\x00\\x00\nall\nfed\n\\xfe\\x01\\n\n");
    assert_eq!(home.words("kv a list --key-enc base64").ok(), "AAA=\nYWxs\nZmVk\n/gEK\n");
    assert_eq!(
        home.words("kv a list -v --limit 1 --json").json("kv list"),
        json!([{"key": "\0\0", "value": "\0\u{1}\u{2}"}])
    );
}

#[test]
fn what_is_too_large_is_refused() {
    let home = Home::with_pool();
    let key = "k".repeat((64 << 10) + 1);
    home.run(["kv", "a", "put", &key, "v"]).fails(1, "limit of 65536 bytes");
    home.run(["kv", "a", "put", &key[1..], "v"]).ok();
    assert_eq!(
        home.fed("kv a put large", &vec![b'x'; (16 << 20) + 1])
            .fails(1, "limit of 16777216 bytes")
            .lines()
            .count(),
        1
    );
    home.words("kv a get large").fails(3, "large");
}

#[test]
fn lists_are_ranges() {
    let home = Home::with_pool();
    let entries: String =
        ["a1", "a2", "b1", "b2", "c1"].iter().map(|key| format!("{key}\t{key}!\n")).collect();
    home.fed("kv d load", entries.as_bytes()).ok();
    for (options, keys) in [
        ("", "a1 a2 b1 b2 c1"),
        (" --prefix b", "b1 b2"),
        (" --prefix x", ""),
        (" --from a2 --to b2", "a2 b1"),
        (" --from b2", "b2 c1"),
        (" --to a2", "a1"),
        (" --from b --to a", ""),
        (" --limit 2", "a1 a2"),
        (" --limit 0", ""),
        (" --reverse", "c1 b2 b1 a2 a1"),
        (" --reverse --limit 2 --to c", "b2 b1"),
    ] {
        let listed = home.words(&format!("kv d list{options}")).ok();
        let expected: String = keys.split_whitespace().map(|key| format!("{key}\n")).collect();
        assert_eq!(listed, expected, "{options}");
    }
    assert_eq!(home.words("kv d list -v --limit 1").ok(), "a1 -> a1!\n");
    assert_eq!(home.words("kv d list --with-value -H --limit 1").ok(), "a1\ta1!\n");
    assert_eq!(
        home.words("kv d list --json --limit 2").json("kv list"),
        json!([{"key": "a1"}, {"key": "a2"}])
    );
    assert_eq!(home.words("kv d list --json --prefix x").json("kv list"), json!([]));
    home.words("kv d list --prefix a --from b").fails(2, "cannot be used with");
    assert_eq!(home.words("kv d count").ok(), "5\n");
    assert_eq!(home.words("kv d count --prefix a").ok(), "2\n");
    assert_eq!(home.words("kv d count --json").json("kv count"), json!({"entries": 5, "bytes": 25}));
}

#[test]
fn ranges_are_deleted() {
    let home = Home::with_pool();
    let entries: String = ('a'..='h').map(|key| format!("{key}\t1\n")).collect();
    home.fed("kv d load", entries.as_bytes()).ok();
    let left = |home: &Home| home.words("kv d list").ok().replace('\n', "");
    home.words("kv d range-del b d").fails(8, "2 entries (4 B) of dataset \"d\"");
    let told = home.words("kv d range-del b d --dry-run");
    assert_eq!((told.code, told.stderr.as_str()), (0, "would delete 2 entries (4 B) of dataset \"d\"\n"));
    assert_eq!(left(&home), "abcdefgh");
    home.words("kv d range-del b d -y").ok();
    assert_eq!(left(&home), "adefgh");
    home.words("kv d range-del g --yes").ok();
    assert_eq!(left(&home), "adef");
    home.run(["kv", "d", "range-del", "", "b", "-y"]).ok();
    assert_eq!(left(&home), "def");
    for (from, to) in [("e", "e"), ("f", "e"), ("a", "")] {
        home.run(["kv", "d", "range-del", from, to, "-y"]).fails(2, "TO is not above FROM");
    }
    home.words("kv absent range-del -y").fails(3, "does not exist");
    home.words("kv d range-del -y").ok();
    assert_eq!(left(&home), "");
}

#[test]
fn the_tree_is_dumped_as_json() {
    let home = Home::with_pool();
    home.words("kv d put k v").ok();
    let plain: serde_json::Value = serde_json::from_str(&home.words("kv d tree-dump").ok()).unwrap();
    assert_eq!(plain, home.words("kv d tree-dump --json").json("kv tree-dump"));
    assert_eq!(plain["root"]["slots"][0]["runs"][0]["entries"], 1);
}
