//! What must not happen: changes by reading, a pool out of nothing, two writers, panics.

use crate::home::{Home, Outcome};
use betree::{Database, DatabaseConfiguration};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

/// Every command that reads, with what it needs to find in [`Home::with_pool`].
const READING: &[&str] = &[
    "db status",
    "db space",
    "db list-datasets",
    "db dump-superblock",
    "db list-root",
    "db init",
    "db init --dry-run",
    "db init --force",
    "dataset list",
    "dataset stats d",
    "dataset destroy d",
    "dataset destroy d --dry-run",
    "kv d get k",
    "kv d get absent",
    "kv absent get k",
    "kv d list -v",
    "kv d list --reverse",
    "kv d count",
    "kv d dump",
    "kv d tree-dump",
    "kv d range-del",
    "kv d range-del --dry-run",
    "kv d@s get k",
    "kv d@s list",
    "store list",
    "store stats o",
    "store destroy o",
    "store destroy o --dry-run",
    "obj o get n",
    "obj o get absent",
    "obj absent get n",
    "obj o cat n --range 0:1",
    "obj o list -l",
    "obj o list --delimiter / --limit 1",
    "obj o stat n",
    "obj o del n --dry-run",
    "obj o del --prefix n",
    "obj o meta list n",
    "obj o meta get n absent",
    "obj o import . --dry-run",
    "obj o export out --dry-run",
    "obj o@s list",
    "snapshot diff o@s",
    "snapshot rollback o@s",
    "snapshot list",
    "snapshot list d",
    "snapshot diff d@s",
    "snapshot diff d@s d@s",
    "snapshot destroy d@s",
    "snapshot destroy d@s --dry-run",
    "snapshot rollback d@s",
    "snapshot rollback d@s --dry-run",
    "snapshot prune d --keep-last 1",
    "snapshot prune d --keep-last 2",
    "snapshot prune d --keep-last 1 --dry-run",
    "config print-active",
    "config print-default",
    "config validate absent.json",
    "check",
    "check --deep",
    "check --repair --dry-run",
    "recover --list-generations",
    "salvage --to out",
];

#[test]
fn reading_changes_no_byte() {
    let home = Home::with_pool();
    home.words("kv d put k v").ok();
    home.words("snapshot create d@s").ok();
    home.words("snapshot create d@t").ok();
    home.words("kv d put k2 v").ok();
    home.words("obj o put n").ok();
    home.words("snapshot create o@s").ok();
    let before = home.pool_bytes();
    let changed = fs::metadata(home.pool()).unwrap().modified().unwrap();
    for words in READING {
        home.words(words);
        assert!(home.pool_bytes() == before, "{words} changed the pool");
    }
    assert_eq!(fs::metadata(home.pool()).unwrap().modified().unwrap(), changed);
    // Not even permission to write is needed.
    let mut permissions = fs::metadata(home.pool()).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(home.pool(), permissions).unwrap();
    assert_eq!(home.words("kv d get k").ok(), "v");
}

#[test]
fn without_a_pool_nothing_is_made() {
    let home = Home::empty();
    for words in
        READING.iter().chain(&["kv d put k v", "dataset create d", "dataset rename a b", "kv d del k"])
    {
        if words.starts_with("config") || words.starts_with("db init") {
            continue;
        }
        home.words(words).fails(3, "run `bectl db init`");
    }
    home.words("kv d load -").fails(3, "run `bectl db init`");
    assert_eq!(fs::read_dir(home.path("")).unwrap().count(), 0);
    fs::write(home.path("memory.json"), r#"{"storage":{"tiers":[[{"mem":"1GiB"}]]}}"#).unwrap();
    home.words("-c memory.json kv d put k v").fails(3, "only memory");
    fs::write(home.path("empty.json"), "{}").unwrap();
    home.words("-c empty.json kv d put k v").fails(3, "no vdev");
    home.words("-c empty.json db init").fails(2, "no vdev");
}

#[test]
fn one_writer_at_a_time() {
    let home = Home::with_pool();
    home.words("kv d put k v").ok();
    fs::write(home.path("c.json"), home.words("config print-active").ok()).unwrap();
    let configuration = DatabaseConfiguration::from_json_file(home.path("c.json")).unwrap();

    let writer = Database::open_with(configuration.clone()).unwrap();
    for words in ["kv d get k", "kv d put k w", "db status", "db init --force -y", "db dump-superblock"] {
        home.words(words).fails(6, "in use");
    }
    let pid = std::process::id().to_string();
    home.words("kv d get k").fails(6, &format!("process {pid}"));
    writer.close().unwrap();

    let reader = Database::open_read_only(configuration).unwrap();
    assert_eq!(home.words("kv d get k").ok(), "v");
    home.words("kv d put k w").fails(6, "in use");
    drop(reader);
    home.words("kv d put k w").ok();
}

#[test]
fn damage_is_reported_as_damage() {
    let home = Home::with_pool();
    home.words("kv d put k v").ok();
    let mut bytes = home.pool_bytes();
    // Everything but the label areas.
    let length = bytes.len();
    for byte in &mut bytes[1 << 20..length - (1 << 20)] {
        *byte ^= 0x55;
    }
    fs::write(home.pool(), bytes).unwrap();
    home.words("kv d get k").fails(4, "");
    home.words("kv d put k v").fails(4, "");
    home.words("db dump-superblock").ok();
}

#[test]
fn a_full_pool_says_so_and_recovers() {
    let home = Home::empty();
    home.words("db init --size 32MiB").ok();
    let mut state = 1u64;
    let mut lines = String::new();
    for number in 0..4000 {
        lines.push_str(&format!("{number:04}\t"));
        for _ in 0..640 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            lines.push_str(&format!("{state:016x}"));
        }
        lines.push('\n');
    }
    home.fed("kv d load", lines.as_bytes()).fails(5, "out of space on tier FASTEST");
    let count: usize = home.words("kv d count").ok().trim_end().parse().unwrap();
    let dump = home.words("kv d dump").ok();
    assert!(count > 1000 && lines.starts_with(&dump), "{count} entries");
    home.words("kv d range-del 0500 -y").ok();
    assert_eq!(home.words("kv d count").ok(), "500\n");
    home.words("kv d put k v").ok();
    assert_eq!(home.words("kv d get k").ok(), "v");
}

#[test]
fn a_reader_that_goes_ends_the_command_quietly() {
    let home = Home::with_pool();
    let lines: String = (0..50_000).map(|number| format!("{number:08}\tvalue\n")).collect();
    home.fed("kv d load", lines.as_bytes()).ok();
    for words in [
        "kv d list -v",
        "kv d dump",
        "kv d list --json",
        "kv d get 00000001",
        "db space",
        "config print-active",
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = home.command(words.split(' ')).stdout(Stdio::from(writer)).spawn().unwrap();
        let outcome = Outcome::wait(child);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{words}");
    }
    // As `| head -1` does.
    let mut child = home.command(["kv", "d", "list"]).spawn().unwrap();
    let mut first = String::new();
    let mut stdout = BufReader::with_capacity(16, child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    drop(stdout);
    let outcome = Outcome::wait(child);
    assert_eq!((first.as_str(), outcome.code, outcome.stderr.as_str()), ("00000000\n", 0, ""));
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let outcome = Outcome::wait(home.command(["kv", "d", "dump"]).stdout(full).spawn().unwrap());
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("writing the output"), "{}", outcome.stderr);
}

#[test]
fn an_interrupted_load_keeps_what_it_read() {
    let home = Home::with_pool();
    let mut child = home.command(["-v", "kv", "d", "load"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert_eq!(line, "loading\n");
    for number in 0..1500 {
        writeln!(stdin, "{number:04}\tvalue").unwrap();
    }
    // The command waits for more input, which does not come; Ctrl-C must wake it up.
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    line.clear();
    stderr.read_line(&mut line).unwrap();
    let status = child.wait().unwrap();
    drop(stdin);
    assert_eq!(status.code(), Some(130), "{line}");
    let loaded: usize =
        line.strip_prefix("error: stopped after ").unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(line.ends_with("interrupted\n"), "{line}");
    let kept = home.words("kv d list").ok();
    let expected: Vec<String> = (0..loaded).map(|number| format!("{number:04}")).collect();
    assert_eq!(kept.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn usage_errors() {
    let home = Home::with_pool();
    for words in [
        "nonsense",
        "kv",
        "kv d",
        "kv d lits",
        "kv d get",
        "db init --tier",
        "kv d put k v --storage-preference 4",
        "-q -v db status",
    ] {
        home.words(words).fails(2, "");
    }
    home.run(["--help"]).ok();
    assert!(home.run(["--version"]).ok().starts_with("bectl "));
    assert!(home.words("kv d put --help").ok().contains("Set the value of a key"));
}
