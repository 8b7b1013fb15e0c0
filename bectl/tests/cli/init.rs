//! `db init`, and the other commands on the database as a whole.

use crate::home::Home;
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// The commands of the book of Haura, as they stand there.
#[test]
fn a_newcomer_needs_three_commands() {
    let home = Home::empty();
    assert_eq!(home.words("db init").ok(), "");
    assert_eq!(home.words("kv foo put bar baz").ok(), "");
    assert_eq!(home.words("kv foo get bar").ok(), "baz");
    let pool = fs::metadata(home.pool()).unwrap();
    assert_eq!(pool.len(), 16 << 30);
    assert!(pool.blocks() * 512 < 256 << 20, "the pool takes {} bytes of the disk", pool.blocks() * 512);
}

#[test]
fn an_existing_pool_is_not_overwritten() {
    let home = Home::with_pool();
    home.words("kv a put k v").ok();
    let before = home.pool_bytes();
    home.words("db init").fails(8, "--force");
    home.words("db init --force").fails(8, "confirm with -y");
    assert_eq!(home.pool_bytes(), before);
    let told = home.words("db init --force -y --size 64MiB");
    assert_eq!(told.code, 0, "{}", told.stderr);
    home.words("kv a get k").fails(3, "dataset \"a\" does not exist");
}

#[test]
fn force_is_no_licence_for_files_of_others() {
    let home = Home::with_pool();
    fs::write(home.pool(), vec![b'x'; 8 << 20]).unwrap();
    home.words("db init").fails(8, "not empty");
    home.words("db init --force").fails(8, "no pool that can be opened");
    home.words("kv a get k").fails(1, "");
    home.words("db init --force -y").ok();
}

#[test]
fn dry_run_does_nothing() {
    let home = Home::empty();
    let told = home.words("db init --dry-run");
    assert!(told.stderr.contains("would create"), "{}", told.stderr);
    assert_eq!(
        told.ok(),
        format!("TIER         SIZE  DEVICE\nFASTEST  16.0 GiB  {}\n", home.pool().display()).as_str()
    );
    home.words("db init --tier slow=a.img:1GiB --dry-run").ok();
    assert_eq!(fs::read_dir(home.path("")).unwrap().count(), 0);
}

#[test]
fn tiers_are_written_to_a_configuration() {
    let home = Home::empty();
    let made = home.words("db init --tier fastest=mem:16MiB --tier slow=a.img --size 64MiB");
    assert!(made.stderr.contains("config/betree/config.json"), "{}", made.stderr);
    made.ok();
    assert_eq!(fs::metadata(home.path("a.img")).unwrap().len(), 64 << 20);
    // From another folder too.
    fs::create_dir(home.path("elsewhere")).unwrap();
    let moved = home.command("kv a put k v".split(' ')).current_dir(home.path("elsewhere")).status().unwrap();
    assert!(moved.success());
    assert_eq!(home.words("kv a get k").ok(), "v");
    let space = home.words("db space --json").json("db space");
    assert_eq!(space.as_array().unwrap().last().unwrap()["tier"], "SLOW");
    // The one that exists is not replaced.
    home.words("db init --tier slow=b.img:64MiB").fails(8, "exists");
    home.words("db init --tier slow=b.img:64MiB -c new.json").ok();
    home.words("-c new.json kv a put k w").ok();
    assert_eq!(home.words("kv a get k").ok(), "v");
    assert!(!home.path("data").exists());
}

#[test]
fn an_init_that_fails_leaves_nothing() {
    let home = Home::empty();
    home.words("db init --tier slow=a.img -c new.json").fails(1, "no size");
    home.words("db init --tier slow=nowhere/a.img:64MiB -c new.json").fails(3, "nowhere");
    home.words("db init --tier fastest=mem:1GiB").fails(2, "memory");
    home.words("db init --tier medium=a.img").fails(2, "not a tier");
    home.words("db init --size big").fails(2, "not a size");
    home.words("-c absent.json db init").fails(1, "absent.json");
    assert_eq!(fs::read_dir(home.path("")).unwrap().count(), 0);
}

#[test]
fn init_in_json() {
    let home = Home::empty();
    let made = home.words("--json db init --size 64MiB").json("db init");
    assert_eq!(made["configuration"], json!(null));
    assert_eq!(made["tiers"][0]["tier"], "FASTEST");
    assert!(made["tiers"][0]["total"].as_u64().unwrap() <= 64 << 20);
}

#[test]
fn space_and_status() {
    let home = Home::with_pool();
    let space = home.words("db space").ok();
    assert!(space.starts_with("TIER "), "{space}");
    let exact = home.words("db space -H -p").ok();
    let cells: Vec<&str> = exact.trim_end().split('\t').collect();
    let numbers: Vec<u64> = cells[1..4].iter().map(|cell| cell.parse().unwrap()).collect();
    assert_eq!(cells[0], "FASTEST");
    assert_eq!(numbers[0], numbers[1] + numbers[2]);
    let json = home.words("db space -j --json-int").json("db space");
    assert_eq!(
        json,
        json!([{"tier": "FASTEST", "total": numbers[0], "used": numbers[1], "free": numbers[2]}])
    );

    home.words("kv a put k v").ok();
    let status = home.words("db status --json").json("db status");
    assert_eq!((&status["state"], &status["datasets"]), (&json!("ONLINE"), &json!(1)));
    assert_eq!(status["rolled_back"], false);
    assert!(status["generation"].as_u64().unwrap() > 1);
    let text = home.words("db status").ok();
    assert!(text.starts_with("state          ONLINE\n"), "{text}");
    assert!(home.words("db status -H").ok().contains("datasets\t1\n"));
}

#[test]
fn the_inside_can_be_seen() {
    let home = Home::with_pool();
    home.words("kv a put k v").ok();
    let slots = home.words("db dump-superblock --json").json("db dump-superblock");
    let generations: Vec<u64> = slots
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|slot| slot["superblock"]["generation"].as_u64())
        .collect();
    assert!(generations.len() >= 4, "{slots}");
    let newest = home.words("db status --json").json("db status")["generation"].as_u64().unwrap();
    assert_eq!(generations.iter().max(), Some(&newest));
    let text = home.words("db dump-superblock").ok();
    assert!(text.contains(&format!("superblock of generation {newest}")), "{text}");
    assert!(!text.contains("empty"), "{text}");
    assert!(home.words("db dump-superblock -v").ok().contains("empty"));

    let root = home.words("db list-root -H").ok();
    assert!(root.lines().any(|line| line.split('\t').count() == 2), "{root}");
    // The record of the dataset names it.
    assert!(
        home.words("db list-root --json")
            .json("db list-root")
            .as_array()
            .is_some_and(|list| !list.is_empty())
    );
}
