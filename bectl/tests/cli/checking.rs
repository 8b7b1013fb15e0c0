//! Checks, older checkpoints and salvage, on pools that are sound and pools that are not.

use crate::home::Home;
use std::fs;
use std::os::unix::fs::FileExt;

fn filled() -> Home {
    let home = Home::with_pool();
    for number in 0..20 {
        home.words(&format!("kv d put key{number:02} value{number:02}")).ok();
    }
    home.words("kv e put other thing").ok();
    home
}

/// Flips bits of every copy of `text` in the pool.
fn damage(home: &Home, text: &[u8]) -> usize {
    let bytes = home.pool_bytes();
    let file = fs::OpenOptions::new().write(true).open(home.pool()).unwrap();
    let found: Vec<usize> =
        bytes.windows(text.len()).enumerate().filter(|(_, at)| *at == text).map(|(at, _)| at).collect();
    for at in &found {
        file.write_all_at(&[bytes[*at] ^ 0x20], *at as u64).unwrap();
    }
    found.len()
}

#[test]
fn a_sound_pool_is_clean() {
    let home = filled();
    let before = home.pool_bytes();
    let checked = home.words("check");
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    assert_eq!(checked.stdout, b"");
    let report = home.words("check --deep --json").json("check");
    assert_eq!(report["outcome"], "clean");
    assert_eq!(report["compared_keys"], 21);
    assert_eq!(report["findings"], serde_json::json!([]));
    let plan = home.words("check --repair --dry-run --json").json("check");
    assert_eq!(plan["plan"], serde_json::json!([]));
    assert!(home.pool_bytes() == before);
}

#[test]
fn damage_is_named_and_not_repaired() {
    let home = filled();
    assert!(damage(&home, b"value07") > 0);
    let before = home.pool_bytes();
    let checked = home.words("check");
    assert_eq!(checked.code, 2, "{}", checked.stderr);
    let findings = String::from_utf8(checked.stdout).unwrap();
    assert!(findings.contains("K6-checksum dataset \"d\""), "{findings}");
    let repaired = home.words("check --repair");
    assert_eq!(repaired.code, 2);
    assert!(repaired.stderr.contains("bectl salvage"), "{}", repaired.stderr);
    assert!(home.pool_bytes() == before, "a refused repair writes nothing");
}

#[test]
fn what_cannot_be_checked_says_so() {
    let home = Home::empty();
    home.words("check").fails(3, "cannot run");
    let home = filled();
    fs::write(home.pool(), vec![7; 1 << 20]).unwrap();
    home.words("check").fails(3, "cannot run");
}

#[test]
fn generations_are_listed_and_read() {
    let home = filled();
    let before = home.pool_bytes();
    let all = home.words("recover --list-generations --json").json("recover");
    let all = all.as_array().unwrap();
    assert!(all.len() >= 2, "{all:?}");
    assert_eq!(all[0]["newest"], true);
    assert_eq!(all[0]["datasets"], 2);
    let newest = all[0]["generation"].as_u64().unwrap();
    assert_eq!(home.words(&format!("recover --generation {newest} --readonly")).ok(), "d\ne\n");
    let dump = home.words(&format!("recover --generation {newest} --readonly dump d")).ok();
    assert!(dump.starts_with("key00\tvalue00\n"), "{dump}");
    assert_eq!(dump.lines().count(), 20);
    home.words("recover --generation 999999 --readonly").fails(3, "999999");
    home.words(&format!("recover --generation {newest}")).fails(2, "--readonly");
    assert!(home.pool_bytes() == before);
}

#[test]
fn salvage_writes_files_that_can_be_loaded() {
    let home = filled();
    let before = home.pool_bytes();
    let report = home.words("salvage --to out --json").json("salvage");
    assert_eq!(report["entries"], 21);
    assert_eq!(report["skipped"], 0);
    let text = fs::read_to_string(home.path("out/1-d.jsonl")).unwrap();
    assert_eq!(text.lines().next(), Some("{\"key\":\"key00\",\"value\":\"value00\"}"));
    home.words("salvage --to out").fails(8, "not empty");
    assert!(home.pool_bytes() == before);
    let other = Home::with_pool();
    fs::copy(home.path("out/1-d.jsonl"), other.path("d.jsonl")).unwrap();
    other.words("kv d load --format jsonl d.jsonl").ok();
    assert_eq!(other.words("kv d dump").ok(), home.words("kv d dump").ok());
}

#[test]
fn salvage_leaves_out_what_is_damaged_and_says_so() {
    let home = filled();
    assert!(damage(&home, b"value07") > 0);
    let report = home.words("salvage --to out --json").json("salvage");
    assert!(report["skipped"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(fs::read_to_string(home.path("out/2-e.jsonl")).unwrap().lines().count(), 1);
    assert!(home.path("out/1-d.skipped.jsonl").exists());
}

#[test]
fn a_scrub_finds_what_is_wrong_and_is_remembered() {
    let home = filled();
    let none = home.words("scrub status --json").json("scrub status");
    assert_eq!(none, serde_json::json!({"scrub": null, "resilver": null}));
    assert_eq!(home.words("scrub stop").code, 3);
    let clean = home.words("scrub start --json").json("scrub start");
    assert_eq!(
        (&clean["state"], &clean["damaged"], &clean["by"]),
        (&"finished".into(), &0.into(), &"bectl".into())
    );
    assert!(clean["checksums"].as_u64().unwrap() > 0 && clean["bytes_done"].as_u64().unwrap() > 0);
    // What waits in the log is in the trees now, once.
    assert!(damage(&home, b"value07") > 0);
    let scrubbed = home.words("scrub start");
    assert_eq!(scrubbed.code, 4, "{}", scrubbed.stderr);
    let findings = String::from_utf8(scrubbed.stdout).unwrap();
    assert!(findings.starts_with("run of d, keys from "), "{findings}");
    let status = home.words("scrub status --json").json("scrub status");
    assert_eq!((&status["scrub"]["state"], &status["scrub"]["damaged"]), (&"finished".into(), &1.into()));
    assert_eq!(home.words("scrub stop").code, 0);
}
