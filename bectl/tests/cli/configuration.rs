//! Which configuration is used, and `config`.

use crate::home::Home;
use serde_json::{Value, json};
use std::fs;

fn cache_of(home: &Home, words: &str, variables: &[(&str, &str)]) -> u64 {
    let output = home.command(words.split(' ')).envs(variables.iter().copied()).output().unwrap();
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    printed["cache_size"].as_u64().unwrap()
}

#[test]
fn the_first_of_the_places_counts() {
    let home = Home::empty();
    let active = "config print-active";
    let default = cache_of(&home, active, &[]);
    let write = |place: &str, cache: u64| {
        let path = home.path(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{{\"cache_size\": {cache}}}")).unwrap();
    };
    write(".config/haura.json", 5000);
    assert_eq!(cache_of(&home, active, &[]), 5000);
    write("config/betree/config.json", 4000);
    assert_eq!(cache_of(&home, active, &[]), 4000);
    assert_eq!(cache_of(&home, active, &[("XDG_CONFIG_HOME", "relative")]), 5000);
    write("betree.json", 3000);
    assert_eq!(cache_of(&home, active, &[]), 3000);
    write("named.json", 2000);
    assert_eq!(cache_of(&home, active, &[("BETREE_CONFIG", "named.json")]), 2000);
    assert_eq!(cache_of(&home, active, &[("BETREE_CONFIG", "")]), 3000);
    write("option.json", 1000);
    assert_eq!(
        cache_of(&home, "-c option.json config print-active", &[("BETREE_CONFIG", "named.json")]),
        1000
    );
    assert_eq!(cache_of(&home, "config print-active -d option.json", &[]), 1000);
    assert_eq!(cache_of(&home, active, &[("BETREE__CACHE_SIZE", "6KiB")]), 6 << 10);
    assert_eq!(cache_of(&home, "config print-default", &[("BETREE_CONFIG", "named.json")]), default);
    home.words("config print-active -c absent.json").fails(1, "absent.json");
    let wrong = home.command(active.split(' ')).env("BETREE__CACHE_SIZ", "1").output().unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("BETREE__CACHE_SIZ"));
}

#[test]
fn what_is_printed_can_be_loaded() {
    let home = Home::with_pool();
    home.words("kv a put k v").ok();
    for command in ["config print-active", "config print-default"] {
        let text = home.words(command).ok();
        fs::write(home.path("printed.json"), &text).unwrap();
        assert_eq!(home.words("-c printed.json config print-active").ok(), text);
        assert_eq!(home.words("-c printed.json kv a get k").ok(), "v");
        let name = command.strip_prefix("config ").unwrap();
        let data = home.words(&format!("--json {command}")).json(&format!("config {name}"));
        assert_eq!(data, serde_json::from_str::<Value>(&text).unwrap());
    }
    let vdev = &serde_json::from_str::<Value>(&home.words("config print-default").ok()).unwrap()["storage"]["tiers"]
        [0]["top_level_vdevs"][0];
    let pool = home.pool();
    assert_eq!(
        *vdev,
        json!({"path": pool.to_str().unwrap(), "direct": true, "size": 16u64 << 30, "sparse": true})
    );
}

#[test]
fn files_are_checked() {
    let home = Home::empty();
    fs::write(
        home.path("good.json"),
        r#"{"storage":{"tiers":[[{"mem":"1GiB"}]]},"metrics":{"enabled":true}}"#,
    )
    .unwrap();
    let checked = home.words("config validate good.json");
    assert!(checked.stderr.contains("metrics has no effect yet"), "{}", checked.stderr);
    assert_eq!(checked.ok(), "good.json: valid\n");
    assert_eq!(
        home.words("config validate good.json -j").json("config validate"),
        json!({"file": "good.json", "inactive_settings": ["metrics"]})
    );
    fs::write(home.path("typo.json"), "{\n  \"cache_siez\": 1\n}").unwrap();
    home.words("config validate typo.json").fails(1, "typo.json:2:");
    home.words("-c typo.json kv a get k").fails(1, "cache_siez");
    home.words("config validate absent.json").fails(1, "absent.json");
}

#[test]
fn an_access_mode_destroys_nothing() {
    let home = Home::with_pool();
    home.words("kv a put k v").ok();
    for mode in ["AlwaysCreateNew", "OpenOrCreate"] {
        let mut config: Value = serde_json::from_str(&home.words("config print-default").ok()).unwrap();
        config["access_mode"] = json!(mode);
        fs::write(home.path("mode.json"), config.to_string()).unwrap();
        let put = home.words("-c mode.json kv a put l w");
        assert_eq!(
            put.stderr.contains("AlwaysCreateNew has no effect"),
            mode == "AlwaysCreateNew",
            "{}",
            put.stderr
        );
        put.ok();
        assert_eq!(home.words("-c mode.json kv a get k").ok(), "v");
        let told = home.words("-c mode.json db status").stderr;
        assert_eq!(told.lines().count(), usize::from(mode == "AlwaysCreateNew"), "{told}");
        home.words("-c mode.json db init").fails(8, "--force");
        config["storage"]["tiers"][0]["top_level_vdevs"][0]["path"] = json!("other.img");
        fs::write(home.path("mode.json"), config.to_string()).unwrap();
        home.words("-c mode.json kv a put k v").fails(3, "bectl db init");
        assert!(!home.path("other.img").exists());
    }
    assert_eq!(home.words("kv a get l").ok(), "w");
}
