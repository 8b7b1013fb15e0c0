//! Vdevs that leave the pool.

use crate::home::Home;
use std::fs;

fn configuration(files: &[&str]) -> String {
    let leaf = |file: &&str| format!(r#"{{"path": "{file}", "size": 16777216, "direct": false}}"#);
    let vdevs: Vec<String> = files.iter().map(leaf).collect();
    let tier = format!(r#"{{"top_level_vdevs": [{}]}}"#, vdevs.join(", "));
    format!(r#"{{"storage": {{"tiers": [{tier}]}}}}"#)
}

#[test]
fn a_vdev_is_removed_and_configured_no_more() {
    let home = Home::empty();
    let file = home.path("betree.json");
    let (a, b) = (home.path("a.img"), home.path("b.img"));
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    fs::write(&file, configuration(&[a, b])).unwrap();
    home.words("db init").ok();
    home.words("dataset create data").ok();
    for number in 0..20 {
        let value = format!("{number:02}").repeat(5000);
        home.words(&format!("kv data put key{number} {value}")).ok();
    }
    home.words("snapshot create data@before").ok();
    home.words("vdev remove 7").fails(3, "vdev \"7\" does not exist");
    let removed = home.words("vdev remove 0 --json").json("vdev remove");
    assert_eq!((&removed["vdev"], &removed["state"]), (&0.into(), &"finished".into()));
    home.words("kv data get key7").fails(1, "is empty: it is no member of pool");
    fs::write(&file, configuration(&[b])).unwrap();
    for number in 0..20 {
        let value = format!("{number:02}").repeat(5000);
        assert_eq!(home.words(&format!("kv data get key{number}")).ok(), value);
    }
    home.words("check --deep").ok();
    home.words("vdev remove 1").fails(1, "it is the last one");
    // Another one comes, and this one goes.
    let c = home.path("c.img");
    home.words(&format!("vdev add --update-config {}:16MiB:direct=false", c.display())).ok();
    home.words("vdev remove 1 --update-config").ok();
    assert_eq!(home.words("kv data get key7").ok(), "07".repeat(5000));
    assert!(!fs::read_to_string(&file).unwrap().contains("b.img"));
    home.words("check --deep").ok();
}
