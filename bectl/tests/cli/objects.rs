//! `obj`: one object at a time, and lists of them.

use crate::home::Home;
use serde_json::json;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

/// A pool with a store `s` that has some objects.
fn with_objects() -> Home {
    let home = Home::with_pool();
    for (name, bytes) in [("a", "one"), ("dir/b", "two, longer"), ("dir/c", ""), ("e", "five")] {
        home.fed(&format!("obj s put {name}"), bytes.as_bytes()).ok();
    }
    home
}

fn names(home: &Home) -> Vec<String> {
    home.words("obj s list").ok().lines().map(str::to_owned).collect()
}

#[test]
fn bytes_go_in_and_out() {
    let home = Home::with_pool();
    home.words("obj s get a").fails(3, "\"s\" does not exist");
    home.words("obj s put a absent.bin").fails(1, "absent.bin");
    home.words("store stats s").fails(3, "\"s\" does not exist");
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(home.path("in.bin"), &bytes).unwrap();
    home.words("obj s put a in.bin").ok();
    assert!(home.words("obj s get a").stdout == bytes);
    assert!(home.words("obj s get a -").stdout == bytes);
    home.words("obj s get a out.bin").ok();
    assert!(fs::read(home.path("out.bin")).unwrap() == bytes);
    home.words("obj s get a out.bin").fails(8, "out.bin exists");
    home.words("obj s get a nowhere/out.bin").fails(1, "nowhere/out.bin");
    home.words("obj s get absent").fails(3, "object \"absent\" is not in store \"s\"");
    home.words("obj s get absent new.bin").fails(3, "absent");
    assert!(!home.path("new.bin").exists());
    home.words("obj s get a --json").fails(2, "no JSON form");

    // A shorter one in its place is no longer than it is.
    home.fed("obj s put a -", b"short").ok();
    assert_eq!(home.words("obj s get a").ok(), "short");
    home.fed("obj s put b", b"").ok();
    assert_eq!(home.words("obj s cat a b a").ok(), "shortshort");
    home.words("obj s cat a absent").fails(3, "absent");
    for (range, text) in [
        ("0:2", "sh"),
        ("1:", "hort"),
        ("3:100", "rt"),
        ("5:1", ""),
        ("1000:", ""),
        ("0:0", ""),
        ("0:1KiB", "short"),
    ] {
        assert_eq!(home.words(&format!("obj s cat a --range {range}")).ok(), text, "{range}");
    }
    for range in ["1", ":", "x:1", "1:y", "-1:2"] {
        home.words(&format!("obj s cat a --range {range}")).fails(2, "");
    }
    home.run(["obj", "s", "put", ""]).fails(1, "empty");
    home.run(["obj", "s", "put", &"n".repeat(4097)]).fails(1, "4097");
    home.words("obj s put d --tier medium").fails(2, "fastest, fast");
}

#[test]
fn a_put_may_have_a_condition() {
    let home = Home::with_pool();
    let put = home.fed("obj s put a --if-absent --json", b"one").json("obj put");
    assert_eq!((&put["name"], &put["size"]), (&json!("a"), &json!(3)));
    let version = put["version"].as_str().unwrap();
    home.fed("obj s put a --if-absent", b"two").fails(8, "already exists");
    assert_eq!(home.words("obj s get a").ok(), "one");
    home.fed(&format!("obj s put a --if-version {version}"), b"three").ok();
    home.fed(&format!("obj s put a --if-version {version}"), b"four").fails(8, "");
    home.fed(&format!("obj s put b --if-version {version}"), b"four").fails(8, "");
    let failed = home.fed(&format!("obj s put a --json --if-version {version}"), b"four");
    assert!(failed.stderr.contains("\"code\":\"CONDITION_FAILED\",\"exit\":8"), "{}", failed.stderr);
    assert_eq!(home.words("obj s get a").ok(), "three");
    home.words("obj s put a --if-version xyz").fails(2, "hexadecimal");
    home.words(&format!("obj s put a --if-absent --if-version {version}")).fails(2, "cannot be used with");
    assert_eq!(names(&home), ["a"]);
}

/// Guards what does not fit into one write: it appears whole, and nothing else does.
#[test]
fn large_objects_are_put_whole() {
    let home = Home::empty();
    home.words("db init --size 256MiB").ok();
    let bytes: Vec<u8> = (0..(16 << 20) / 8 + 1000_u64).flat_map(u64::to_be_bytes).collect();
    home.fed("obj s put large", &bytes).ok();
    assert!(home.words("obj s get large").stdout == bytes);
    let stat = home.words("obj s stat large --json").json("obj stat");
    assert_eq!(stat["size"], bytes.len());
    home.fed("obj s put large --if-absent", &bytes).fails(8, "already exists");
    home.fed("obj s put other --if-version 0000000000000001", &bytes).fails(8, "");
    assert_eq!(names(&home), ["large"]);
    // Exactly as much as one write takes, and no byte behind it.
    home.fed("obj s put exact", &bytes[..16 << 20]).ok();
    assert_eq!(home.words("obj s stat exact -H -p").ok().lines().nth(1).unwrap(), "size\t16777216");
    assert!(home.words("obj s cat exact --range 16777215:").stdout == bytes[(16 << 20) - 1..16 << 20]);
    home.fed("obj s write large --append", &bytes).ok();
    assert!(home.words("obj s get large").stdout == [&bytes[..], &bytes].concat());
}

#[test]
fn lists_are_in_order() {
    let home = with_objects();
    assert_eq!(names(&home), ["a", "dir/b", "dir/c", "e"]);
    assert_eq!(home.words("obj s ls").ok(), home.words("obj s list").ok());
    assert_eq!(home.words("obj s list --prefix dir/").ok(), "dir/b\ndir/c\n");
    assert_eq!(home.words("obj s list --from dir/c --to e").ok(), "dir/c\n");
    assert_eq!(home.words("obj s list --from b --limit 1").ok(), "dir/b\n");
    assert_eq!(home.words("obj s list --delimiter /").ok(), "a\ndir/\ne\n");
    assert_eq!(home.words("obj s list --delimiter / --prefix dir/").ok(), "dir/b\ndir/c\n");
    assert_eq!(home.words("obj s list --prefix x").ok(), "");
    // Page by page.
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = home.words(&format!("obj s list --delimiter / --limit 1{after} --json")).json("obj list");
        seen.extend(page["entries"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => after = format!(" --after {next}"),
            None => break,
        }
    }
    let shown: Vec<_> = seen.iter().map(|one| (one["name"].clone(), one["prefix"].clone())).collect();
    assert_eq!(shown, [(json!("a"), json!(null)), (json!(null), json!("dir/")), (json!("e"), json!(null))]);
    assert_eq!(seen[2]["size"], 4);
    let told = home.words("obj s list --limit 2").stderr;
    let token = told.strip_prefix("there are more: --after ").unwrap().trim_end();
    assert_eq!(home.words(&format!("obj s list --after {token}")).ok(), "dir/c\ne\n");
    assert_eq!(home.words("obj s list --limit 4").stderr, "");
    home.words("obj s list --after xyz").fails(2, "hexadecimal");
    home.words("obj s list --after ff").fails(1, "token");
    home.words("obj s list --limit 0").fails(2, "0");
    home.words("obj s list --prefix a --from b").fails(2, "cannot be used with");

    let long = home.words("obj s list -l -H -p --prefix a").ok();
    let cells: Vec<&str> = long.trim_end().split('\t').collect();
    assert_eq!((cells[0], cells[2], cells[3]), ("3", "NONE", "a"));
    assert!(cells[1].ends_with('Z'), "{long}");
    let long = home.words("obj s list --long --delimiter /").ok();
    let mut lines = long.lines();
    assert_eq!(
        lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["SIZE", "MODIFIED", "PREFERENCE", "NAME"]
    );
    assert!(lines.next().unwrap().starts_with("       3 B  20"), "{long}");
    assert!(lines.next().unwrap().trim_start().starts_with("-  -  "), "{long}");
    home.words("obj s meta set a color red").ok();
    assert_eq!(home.words("obj s list --with-custom --prefix a").ok(), "a\n    color -> red\n");
    let listed = home.words("obj s list --with-metadata --prefix a --json").json("obj list");
    assert_eq!(listed["entries"][0]["metadata"], json!([{"key": "color", "value": "red"}]));
    home.words("obj absent list").fails(3, "\"absent\" does not exist");
}

#[test]
fn objects_are_described() {
    let home = with_objects();
    home.fed("obj s put a --tier slow", b"one!").ok();
    let stat = home.words("obj s stat a --json").json("obj stat");
    assert_eq!((&stat["name"], &stat["size"], &stat["preference"]), (&json!("a"), &json!(4), &json!("SLOW")));
    assert_eq!(stat["version"].as_str().unwrap().len(), 16);
    let text = home.words("obj s stat a").ok();
    assert!(text.starts_with("name        a\nsize        4 B\nmodified    20"), "{text}");
    home.words("obj s stat absent").fails(3, "absent");
    let before = stat["version"].clone();
    home.words("obj s meta set a k v").ok();
    assert_eq!(home.words("obj s stat a --json").json("obj stat")["version"], before);
    home.fed("obj s write a --offset 0", b"O").ok();
    assert_ne!(home.words("obj s stat a --json").json("obj stat")["version"], before);
}

#[test]
fn objects_are_moved_and_copied() {
    let home = with_objects();
    home.words("obj s meta set a k v").ok();
    home.words("obj s mv a dir/b").fails(8, "already exists");
    home.words("obj s mv a z").ok();
    home.words("obj s mv a z").fails(3, "object \"a\"");
    assert_eq!(home.words("obj s get z").ok(), "one");
    assert_eq!(home.words("obj s meta get z k").ok(), "v");
    home.words("obj s cp z y").ok();
    home.words("obj s cp z y").fails(8, "already exists");
    home.words("obj s cp absent x").fails(3, "absent");
    home.fed("obj s write z --offset 0", b"O").ok();
    assert_eq!(home.words("obj s cat z y").ok(), "Oneone");
    assert_eq!(home.words("obj s meta list y").ok(), "k -> v\n");
    home.words("obj s cp z y --force").ok();
    home.words("obj s mv -f e y").ok();
    assert_eq!(home.words("obj s get y").ok(), "five");
    assert_eq!(names(&home), ["dir/b", "dir/c", "y", "z"]);
}

#[test]
fn objects_are_deleted_all_or_none() {
    let home = with_objects();
    home.words("obj s del a absent").fails(3, "object \"absent\"");
    assert_eq!(names(&home).len(), 4);
    let told = home.words("obj s del a dir/b --dry-run");
    assert_eq!(told.stderr, "would delete 2 objects (14 B) of store \"s\"\n");
    home.words("obj s rm a e a").ok();
    assert_eq!(names(&home), ["dir/b", "dir/c"]);
    home.fed("obj s put other", b"x").ok();
    home.words("obj s del --prefix dir/")
        .fails(8, "2 objects (11 B) of store \"s\" whose names start with \"dir/\"");
    let told = home.words("obj s del --prefix dir/ --dry-run --json").json("obj del");
    assert_eq!(told, json!({"objects": 2, "bytes": 11}));
    assert_eq!(names(&home).len(), 3);
    home.words("obj s del --prefix dir/ -y").ok();
    assert_eq!(names(&home), ["other"]);
    home.words("obj s del").fails(2, "required");
    home.words("obj s del x --prefix y").fails(2, "cannot be used with");
    home.words("obj absent del x").fails(3, "\"absent\" does not exist");
}

#[test]
fn parts_are_written() {
    let home = with_objects();
    home.fed("obj s write a --offset 1", b"NE and more").ok();
    assert_eq!(home.words("obj s get a").ok(), "oNE and more");
    fs::write(home.path("part"), "!").unwrap();
    home.words("obj s write a part --offset 14").ok();
    assert_eq!(home.words("obj s get a").ok(), "oNE and more\0\0!");
    home.fed("obj s write a --append", b"?").ok();
    home.words("obj s truncate a 3").ok();
    assert_eq!(home.words("obj s get a").ok(), "oNE");
    home.words("obj s truncate a 5").ok();
    assert_eq!(home.words("obj s get a").ok(), "oNE\0\0");
    home.words("obj s truncate a 1TiB").ok();
    assert_eq!(home.words("obj s cat a --range 1099511627774:").ok(), "\0\0");
    home.fed("obj s write new --offset 0", b"x").fails(3, "object \"new\"");
    home.fed("obj s write new --offset 2 --create", b"x").ok();
    assert_eq!(home.words("obj s get new").ok(), "\0\0x");
    home.words("obj s truncate new -1").fails(2, "");
    home.words("obj s truncate new 99999999999TiB").fails(2, "");
    home.words("obj s truncate absent 1").fails(3, "absent");
    home.fed("obj s write a", b"x").fails(2, "--offset");
    home.fed("obj s write a --offset 1 --append", b"x").fails(2, "cannot be used with");
    home.words("obj s write a absent --offset 1").fails(1, "absent");
}

#[test]
fn metadata_is_custom() {
    let home = with_objects();
    home.words("obj s meta set a color red").ok();
    home.fed("obj s meta set a shape", b"round\n").ok();
    assert_eq!(home.words("obj s meta get a shape").ok(), "round\n");
    assert_eq!(home.words("obj s meta list a").ok(), "color -> red\nshape -> round\\n\n");
    // As in Haura, and as one would list.
    assert_eq!(home.words("obj s meta a get color").ok(), "red");
    assert_eq!(home.words("obj s meta a list -H").ok(), "color\tred\nshape\tround\\n\n");
    let json = home.words("obj s meta list a --json").json("obj meta list");
    assert_eq!(json, json!([{"key": "color", "value": "red"}, {"key": "shape", "value": "round\n"}]));
    home.words("obj s meta del a color").ok();
    home.words("obj s meta del a color").fails(3, "object \"a\" has no custom metadata \"color\"");
    home.words("obj s meta get a color").fails(3, "color");
    home.words("obj s meta get absent color").fails(3, "absent");
    home.words("obj s meta set absent k v").fails(3, "absent");
    home.words("obj s meta set a 00ff ff00 --value-enc hex").ok();
    assert_eq!(home.words("obj s meta get a 00ff --value-enc hex").ok(), "ff00\n");
    home.words("obj s meta set a 0 1 --value-enc hex").fails(2, "not hex");
    home.run(["obj", "s", "meta", "set", "a", "k", &"v".repeat(65537)]).fails(1, "65537");
    // A put makes a new object.
    home.fed("obj s put a", b"x").ok();
    assert_eq!(home.words("obj s meta list a").ok(), "");
}

#[test]
fn names_are_bytes() {
    let home = Home::with_pool();
    let name = OsStr::from_bytes(b"\xff\n/x");
    let put = [OsStr::new("obj"), OsStr::new("s"), OsStr::new("put"), name];
    home.run(put).ok();
    home.words("obj s put 00 --name-enc hex").ok();
    home.words("obj s put -- -x").ok();
    home.words("obj s put list").ok();
    home.words("obj list put get").ok();
    assert_eq!(home.words("obj s list").ok(), "\\x00\n-x\nlist\n\\xff\\n/x\n");
    assert_eq!(home.words("obj s list --name-enc hex").ok(), "00\n2d78\n6c697374\nff0a2f78\n");
    let listed = home.words("obj s list --json --prefix ff --name-enc hex").json("obj list");
    assert_eq!(listed["entries"][0]["name"], json!({"hex": "ff0a2f78"}));
    assert_eq!(home.words("obj list list").ok(), "get\n");
    home.words("obj s get 0 --name-enc hex").fails(2, "not hex");
    home.words("obj s get 01 --name-enc hex").fails(3, "object 01 is not in");
}
