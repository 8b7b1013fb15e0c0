//! `kv load` and `kv dump`.

use crate::home::Home;
use serde_json::json;
use std::fs;

#[test]
fn a_dump_is_loaded_as_what_it_was() {
    let home = Home::with_pool();
    // Every byte in key and value, in an order that is not that of the keys.
    let mut state = 7u64;
    let mut entries = String::new();
    let mut keys = Vec::new();
    for _ in 0..3000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = &state.to_be_bytes()[..3 + (state >> 61) as usize % 4];
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        entries.push_str(&format!("{hex}\t{hex}{hex}0a09\n"));
        keys.push(hex);
    }
    keys.sort();
    keys.dedup();
    let loaded = home.fed("kv one load --key-enc hex --value-enc hex", entries.as_bytes());
    assert_eq!(
        loaded.stderr,
        format!("loaded 3000 entries ({} KiB)\n", loaded.stderr.split(['(', ' ']).nth(4).unwrap())
    );
    loaded.ok();
    let listed = home.words("kv one list --key-enc hex").ok();
    assert_eq!(listed.lines().collect::<Vec<_>>(), keys);
    let hex = home.words("kv one dump --key-enc hex --value-enc hex").ok();
    for form in ["", " --format jsonl", " --key-enc hex --value-enc base64"] {
        let text = home.words(&format!("kv one dump{form}")).ok();
        assert_eq!(text.lines().count(), keys.len(), "{form}");
        home.words("dataset create two").ok();
        home.fed(&format!("kv two load{form}"), text.as_bytes()).ok();
        assert_eq!(home.words("kv two dump --key-enc hex --value-enc hex").ok(), hex, "{form}");
        assert_eq!(home.words(&format!("kv two dump{form}")).ok(), text);
        home.words("dataset destroy two -y").ok();
    }
}

#[test]
fn dumps_are_text() {
    let home = Home::with_pool();
    home.fed("kv d load", b"a\\tb\\\\\t1\\n2\nZ\xc3\xbcrich\t\\x00\\xff\nplain\tvalue").ok();
    assert_eq!(home.words("kv d dump").ok(), "Zürich\t\\x00\\xff\na\\tb\\\\\t1\\n2\nplain\tvalue\n");
    assert_eq!(
        home.words("kv d dump --format jsonl").ok(),
        "{\"key\":\"Zürich\",\"value\":{\"hex\":\"00ff\"}}\n{\"key\":\"a\\tb\\\\\",\"value\":\"1\\n2\"}\n{\"key\":\"plain\",\"value\":\"value\"}\n"
    );
    assert_eq!(home.words("kv d dump --prefix p").ok(), "plain\tvalue\n");
    home.words("kv d dump out.tsv --from p").ok();
    assert_eq!(fs::read_to_string(home.path("out.tsv")).unwrap(), "plain\tvalue\n");
    home.words("kv d dump out.tsv").fails(8, "out.tsv exists");
    home.words("kv d dump nowhere/out.tsv").fails(1, "nowhere/out.tsv");
    home.words("kv e load out.tsv").ok();
    assert_eq!(home.words("kv e get plain").ok(), "value");
}

#[test]
fn tables_of_others_are_loaded() {
    let home = Home::with_pool();
    let table = b"0041;LATIN CAPITAL LETTER A;Lu\n0042;LATIN CAPITAL LETTER B;Lu\n";
    fs::write(home.path("table"), table).unwrap();
    home.words("kv line load --delimiter ; --whole-line table").ok();
    assert_eq!(home.words("kv line get 0041").ok(), "0041;LATIN CAPITAL LETTER A;Lu");
    home.words("kv rest load --delimiter ; table").ok();
    assert_eq!(home.words("kv rest get 0042").ok(), "LATIN CAPITAL LETTER B;Lu");
    home.words("kv name load --delimiter ; --key-field 2 --whole-line table").ok();
    assert_eq!(
        home.run(["kv", "name", "get", "LATIN CAPITAL LETTER A"]).ok(),
        "0041;LATIN CAPITAL LETTER A;Lu"
    );
    let loaded = home.fed("kv words load --format raw --json", b"\xc3\x85ngstr\xc3\xb6m\nit's\nlast");
    assert_eq!(loaded.json("kv load"), json!({"entries": 3, "bytes": 18}));
    assert_eq!(home.words("kv words list -v").ok(), "it's -> \nlast -> \nÅngström -> \n");
    home.fed("kv words load --whole-line", b"new\n").ok();
    assert_eq!(home.words("kv words get new").ok(), "new");
}

#[test]
fn errors_name_the_line_and_keep_what_is_before() {
    let home = Home::with_pool();
    let lines: String = (0..2500).map(|number| format!("{number:04}\tx\n")).collect();
    home.fed("kv d load", format!("{lines}oops\nlate\tx\n").as_bytes()).fails(1, "line 2501: no tab");
    assert_eq!(home.words("kv d count").ok(), "2500\n");
    home.fed("kv e load", b"a\t\\q\n").fails(1, "line 1: value: \\q is not an escape");
    home.fed("kv e load --format jsonl", b"{\"key\":\"a\",\"value\":\"b\"}\n\n").fails(1, "line 2: ");
    home.fed("kv e load --delimiter ; --key-field 2", b"a;b\nc\n").fails(1, "line 2: it has no field 2");
    let long = format!("{}\tx\n", "k".repeat((64 << 10) + 1));
    home.fed("kv e load", long.as_bytes()).fails(1, "line 1: key of 65537 bytes exceeds the limit");
    assert_eq!(home.words("kv e list").ok(), "a\nb\n");
    home.words("kv f load absent.tsv").fails(1, "absent.tsv");
    home.words("kv f load --format tsv --whole-line").fails(2, "--format raw");
    home.words("kv f load --key-field 2").fails(2, "--delimiter");
    home.words("kv f load --delimiter ;; x").fails(2, "one byte");
    home.words("kv f load .").fails(1, "line 1");
    home.words("kv f list").ok();
    assert_eq!(home.fed("kv g load", b"").stderr, "loaded 0 entries (0 B)\n");
    assert_eq!(home.fed("kv g load -q", b"a\tb").stderr, "");
}

#[test]
fn large_values_are_loaded() {
    let home = Home::with_pool();
    let value = "v".repeat(3 << 20);
    let text = format!("a\t{value}\nb\tsmall\nc\t{value}\n");
    home.fed("kv d load --storage-preference 0", text.as_bytes()).ok();
    assert_eq!(home.words("kv d dump").ok(), text);
}
