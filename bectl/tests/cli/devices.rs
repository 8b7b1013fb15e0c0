//! `vdev`, `db status` and `db init` on pools of several files.

use crate::home::Home;
use serde_json::{Value, json};
use std::fs;

/// A mirror of `a.img` and `b.img` with an entry.
fn mirrored() -> Home {
    let home = Home::empty();
    home.words("db init --size 16MiB mirror ./a.img ./b.img").ok();
    home.words("kv d put key value").ok();
    home
}

fn configured(home: &Home) -> String {
    fs::read_to_string(home.path("config/betree/config.json")).unwrap()
}

fn states(home: &Home) -> Vec<String> {
    let vdevs = home.words("vdev list --json").json("vdev list");
    let members = vdevs[0]["members"].as_array().unwrap();
    members.iter().map(|member| member["state"].as_str().unwrap().to_owned()).collect()
}

fn status(home: &Home) -> Value {
    home.words("db status --json").json("db status")
}

#[test]
fn a_pool_is_made_of_words() {
    let home = Home::empty();
    let words = "/a mirror /b /c parity1 /d /e /f";
    let planned = home.run(["db", "init", "--dry-run", "--json", words]).json("db init");
    assert_eq!(planned["tiers"].as_array().unwrap().len(), 6);
    home.words("db init --size 8MiB ./n.img slow parity1 ./d.img ./e.img ./f.img").ok();
    let vdevs = home.words("vdev list --json").json("vdev list");
    let kinds: Vec<(&str, &str)> = vdevs
        .as_array()
        .unwrap()
        .iter()
        .map(|vdev| (vdev["tier"].as_str().unwrap(), vdev["kind"].as_str().unwrap()))
        .collect();
    assert_eq!(kinds, [("FASTEST", "leaf"), ("SLOW", "parity1")]);
    let list = home.words("vdev list -H").ok();
    assert_eq!(list.lines().count(), 5, "{list}");
    home.words("-c c.json db init mirror ./a.img").fails(2, "at least 2 leaves");
    home.words("-c c.json db init a.img").fails(2, "expected mirror");
    home.words("-c c.json db init ./a.img slow").fails(2, "names no vdev");
    assert!(!home.path("c.json").exists());
}

#[test]
fn superblocks_are_dumped_without_a_device_that_is_lost() {
    let home = mirrored();
    let whole = home.words("db dump-superblock --json").json("db dump-superblock");
    let of = |slots: &Value, name: &str| {
        let slots = slots.as_array().unwrap().clone();
        let is_of = |slot: &Value| slot["device"].as_str().unwrap().ends_with(name);
        slots.into_iter().filter(is_of).collect::<Vec<Value>>()
    };
    fs::remove_file(home.path("b.img")).unwrap();
    let rest = home.words("db dump-superblock --json").json("db dump-superblock");
    assert_eq!(of(&rest, "a.img"), of(&whole, "a.img"));
    let lost = of(&rest, "b.img");
    assert_eq!((lost.len(), &lost[0]["area"]), (1, &json!("-")));
    assert!(lost[0]["content"].as_str().unwrap().starts_with("not read: "), "{}", lost[0]);
    assert!(!home.path("b.img").exists());
    fs::remove_file(home.path("a.img")).unwrap();
    home.words("db dump-superblock").fails(3, "a.img");
}

#[test]
fn a_device_goes_and_comes_back() {
    let home = mirrored();
    assert_eq!(status(&home)["state"], "ONLINE");
    assert_eq!(status(&home)["problems"], json!([]));
    let gone = home.words("vdev offline b.img --json").json("vdev offline");
    assert_eq!((&gone["id"], &gone["state"]), (&json!("0.1"), &json!("offline")));
    assert!(gone["since"].as_str().unwrap().starts_with("20"));
    home.words("vdev offline 0.0").fails(8, "needed");
    home.words("kv d put key other").ok();
    let degraded = status(&home);
    assert_eq!(
        (&degraded["state"], &degraded["vdevs"][0]["state"]),
        (&json!("DEGRADED"), &json!("degraded"))
    );
    let problem = &degraded["problems"][0];
    assert!(problem["what"].as_str().unwrap().contains("b.img (0.1) of mirror 0 is offline"), "{problem}");
    assert_eq!(problem["since"], gone["since"]);
    let text = home.words("db status").ok();
    assert!(text.starts_with("state          DEGRADED\nproblem "), "{text}");
    assert!(text.contains("action         `bectl vdev online 0.1`"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("0.1 ") && line.contains("offline")), "{text}");

    let told = home.words("vdev online 0.1");
    assert!(told.stderr.contains("copied to"), "{}", told.stderr);
    told.ok();
    assert_eq!(states(&home), ["online", "online"]);
    assert_eq!(status(&home)["resilver"]["state"], "finished");
    home.words("vdev offline 0.0").ok();
    assert_eq!(home.words("kv d get key").ok(), "other");
    // Whoever opens the pool next goes on with it.
    home.words("vdev online 0.0 --no-wait").ok();
    home.words("vdev online 0.0").ok();
    assert_eq!(states(&home), ["online", "online"]);
    home.words("check --deep").ok();
    assert_eq!(home.words("scrub start --json").json("scrub start")["repaired_bytes"], 0);
    home.words("vdev offline x.img").fails(3, "vdev list");
    home.words("vdev offline 0.2").fails(3, "vdev list");
    home.words("vdev clear 1.0").fails(3, "vdev list");
    home.words("vdev remove 0.0").fails(2, "");
}

#[test]
fn a_lost_file_is_replaced_where_it_was() {
    let home = mirrored();
    fs::remove_file(home.path("a.img")).unwrap();
    home.words("kv d get key").fails(7, "a.img");
    let degraded = status(&home);
    assert_eq!(degraded["vdevs"][0]["members"][0]["state"], "missing");
    assert!(degraded["problems"][0]["action"].as_str().unwrap().contains("vdev replace 0.0"), "{degraded}");
    home.words("vdev online 0.0").fails(7, "vdev replace");
    let before = configured(&home);
    let told = home.words("vdev replace 0.0");
    assert!(!told.stderr.contains("warning: write"), "{}", told.stderr);
    told.ok();
    assert_eq!(configured(&home), before);
    assert_eq!(states(&home), ["online", "online"]);

    // Something else is at its path.
    fs::write(home.path("b.img"), vec![b'x'; 16 << 20]).unwrap();
    home.words("vdev replace b.img").fails(8, "--force");
    home.words("vdev replace b.img --force").fails(8, "confirm with -y");
    assert!(fs::read(home.path("b.img")).unwrap().iter().all(|byte| *byte == b'x'));
    home.words("vdev replace b.img --force -y").ok();
    fs::remove_file(home.path("a.img")).unwrap();
    home.words("vdev replace a.img").ok();
    assert_eq!(home.words("kv d get key").ok(), "value");
    home.words("vdev replace a.img").fails(8, "in use by the pool");
}

#[test]
fn the_configuration_names_who_comes() {
    let home = mirrored();
    let before = configured(&home);
    let told = home.words("vdev replace a.img c.img:16MiB --json");
    assert!(told.stderr.contains("c.img in place of"), "{}", told.stderr);
    let data = told.json("vdev replace");
    assert_eq!((&data["state"], &data["configuration_changed"]), (&json!("online"), &json!(false)));
    assert!(data["configured"].as_str().unwrap().ends_with("a.img"));
    assert_eq!(configured(&home), before);
    home.words("kv d get key").fails(1, "must name the device that took its place");
    fs::write(home.path("config/betree/config.json"), before.replace("a.img", "c.img")).unwrap();
    assert_eq!(home.words("kv d get key").ok(), "value");

    let before = configured(&home);
    let data = home.words("vdev replace b.img d.img --update-config --json").json("vdev replace");
    assert_eq!(data["configuration_changed"], true);
    assert_eq!(fs::metadata(home.path("d.img")).unwrap().len(), 16 << 20);
    assert_eq!(fs::read_to_string(home.path("config/betree/config.json~")).unwrap(), before);
    assert!(configured(&home).contains("d.img") && !configured(&home).contains("b.img"));
    assert_eq!(home.words("kv d get key").ok(), "value");
    assert_eq!(states(&home), ["online", "online"]);
    home.words("vdev replace d.img tiny.img:1MiB").fails(1, "minimum");
    assert!(!home.path("tiny.img").exists());
    home.words("vdev replace d.img mem:16MiB").fails(2, "one file");
}

#[test]
fn a_device_alone_cannot_be_spared() {
    let home = Home::with_pool();
    home.words("vdev replace 0.0 new.img").fails(8, "needed");
    home.words("vdev offline 0.0").fails(8, "needed");
    assert!(!home.path("new.img").exists());
    home.words("vdev clear").ok();
    assert_eq!(home.words("vdev clear --json").json("vdev clear")[0]["kind"], "leaf");
}

#[test]
fn vdevs_are_added() {
    let home = mirrored();
    home.words("vdev add ./c.img --size 16MiB").fails(8, "--force adds");
    home.words("vdev add mirror ./c.img ./d.img").fails(1, "no size");
    home.words("vdev add mirror ./a.img ./d.img --size 16MiB").fails(1, "twice");
    assert!(!home.path("c.img").exists() && !home.path("d.img").exists());
    let space = |home: &Home| {
        let tiers = home.words("db space --json").json("db space");
        tiers.as_array().unwrap().iter().map(|tier| tier["total"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let before = space(&home);
    let data = home
        .words(
            "vdev add mirror ./c.img ./d.img slow mirror ./e.img ./f.img --size 16MiB --update-config --json",
        )
        .json("vdev add");
    assert_eq!(data["vdevs"].as_array().unwrap().len(), 3);
    let after = space(&home);
    assert!(after[0] > before[0] * 3 / 2 && after.len() == 2, "{before:?} {after:?}");
    assert_eq!(home.words("kv d get key").ok(), "value");
    home.words("kv d put --storage-preference slow other thing").ok();
    home.words("check").ok();

    // Without the configuration file the pool does not open any more; to say it again is no harm.
    fs::copy(home.path("config/betree/config.json"), home.path("before.json")).unwrap();
    let told = home.words("vdev add mirror ./g.img ./h.img --size 16MiB");
    assert!(told.stderr.contains("write mirror ./g.img ./h.img into"), "{}", told.stderr);
    told.ok();
    home.words("kv d get key").fails(7, "is missing");
    let told = home.words("vdev add mirror ./g.img ./h.img --size 16MiB --update-config");
    assert!(told.stderr.contains("already"), "{}", told.stderr);
    told.ok();
    assert_eq!(home.words("kv d get other").ok(), "thing");
    home.words("-c before.json kv d get key").fails(7, "is missing");

    fs::write(home.path("x.img"), vec![b'x'; 16 << 20]).unwrap();
    let words = "vdev add mirror ./x.img ./y.img --size 16MiB --update-config";
    home.words(words).fails(8, "--force overwrites");
    home.words(&format!("{words} --force")).fails(8, "confirm with -y");
    assert!(fs::read(home.path("x.img")).unwrap().iter().all(|byte| *byte == b'x'));
    home.words(&format!("{words} --force -y")).ok();
    assert_eq!(home.words("vdev list --json").json("vdev list").as_array().unwrap().len(), 5);
    home.words("check").ok();
    assert_eq!(home.words("kv d get other").ok(), "thing");
    Home::with_pool().words("vdev add ./c.img --size 16MiB").fails(2, "no configuration file");
}

#[test]
fn spares_are_shown() {
    let home = Home::empty();
    home.words("db init --size 16MiB mirror ./a.img ./b.img spare ./s.img").ok();
    home.words("kv d put key value").ok();
    assert_eq!(status(&home)["spares"][0]["in_use"], false);
    assert!(!home.path("s.img").exists());
    // What a program would do by itself.
    fs::remove_file(home.path("a.img")).unwrap();
    let told = home.words("vdev replace a.img s.img");
    assert!(!told.stderr.contains("warning: write"), "{}", told.stderr);
    told.ok();
    let shown = status(&home);
    assert_eq!((&shown["state"], &shown["spares"][0]["in_use"]), (&json!("ONLINE"), &json!(true)));
    let what = shown["problems"][0]["what"].as_str().unwrap();
    assert!(what.contains("s.img (0.0) of mirror 0 took the place of ") && what.ends_with("a.img"), "{what}");
    assert!(home.words("db status").ok().contains("s.img in use"));
    assert_eq!(home.words("kv d get key").ok(), "value");
    // It gives way to another device.
    home.words("vdev replace 0.0 c.img --update-config").ok();
    assert!(configured(&home).contains("c.img") && !configured(&home).contains("a.img"));
    let shown = status(&home);
    assert_eq!((&shown["problems"], &shown["spares"][0]["in_use"]), (&json!([]), &json!(false)));
    assert_eq!(home.words("kv d get key").ok(), "value");
    home.words("vdev add spare ./u.img").fails(2, "spares");
    assert_eq!(home.words("kv d get key").ok(), "value");
}

/// What cannot be part of a pool is refused before anything is made.
#[test]
fn too_small_files_are_not_added() {
    let home = mirrored();
    for (words, message) in [
        ("parity1 ./c:240KiB ./d:240KiB ./e:240KiB", "60 blocks"),
        ("./c:252KiB", "63 blocks"),
        ("mirror ./c:1GiB ./d", "no size"),
    ] {
        home.words(&format!("vdev add {words} --update-config --force")).fails(1, message);
        for file in ["c", "d", "e"] {
            assert!(!home.path(file).exists(), "{words}: {file} is left behind");
        }
        assert_eq!(home.words("kv d get key").ok(), "value");
    }
}
