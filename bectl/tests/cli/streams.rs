//! `send` and `receive`, between two pools.

use crate::home::{Home, Outcome};
use serde_json::json;
use std::process::Stdio;

/// Two pools; the first has a dataset `d` with the snapshots `d@a` and `d@b`.
fn pools() -> (Home, Home) {
    let (first, second) = (Home::with_pool(), Home::with_pool());
    for key in ["kept", "changed", "removed"] {
        first.words(&format!("kv d put {key} old")).ok();
    }
    first.words("snapshot create d@a").ok();
    first.words("kv d put changed new").ok();
    first.words("kv d del removed").ok();
    first.words("snapshot create d@b").ok();
    (first, second)
}

fn stream(home: &Home, words: &str) -> Vec<u8> {
    let sent = home.words(words);
    assert_eq!(sent.code, 0, "{}", sent.stderr);
    sent.stdout
}

/// `bectl FROM | bectl TO`.
fn piped(first: &Home, from: &str, second: &Home, to: &str) -> (Outcome, Outcome) {
    let mut sender = first.command(from.split(' ')).spawn().unwrap();
    let stream = Stdio::from(sender.stdout.take().unwrap());
    let receiver = second.command(to.split(' ')).stdin(stream).spawn().unwrap();
    let received = Outcome::wait(receiver);
    (Outcome::wait(sender), received)
}

#[test]
fn a_pipe_carries_snapshots_from_pool_to_pool() {
    let (first, second) = pools();
    let (sent, received) = piped(&first, "send d@a", &second, "receive other/d");
    assert_eq!((sent.code, received.code), (0, 0), "{} {}", sent.stderr, received.stderr);
    assert!(sent.stderr.contains("sent 3 entries"), "{}", sent.stderr);
    assert!(received.stderr.contains("received \"other/d@a\": 3 entries"), "{}", received.stderr);
    assert_eq!(second.words("kv other/d@a list -v").ok(), "changed -> old\nkept -> old\nremoved -> old\n");
    let (sent, received) = piped(&first, "send d@b -i d@a", &second, "receive other/d --json");
    assert_eq!(sent.code, 0, "{}", sent.stderr);
    let received = received.json("receive");
    assert_eq!(received["received"], json!([{"dataset": "other/d", "snapshot": "b", "created": false}]));
    assert_eq!((&received["puts"], &received["deletes"]), (&json!(1), &json!(1)));
    assert_eq!(second.words("kv other/d list -v").ok(), "changed -> new\nkept -> old\n");
    let [here, there] = [(&first, "d"), (&second, "other/d")].map(|(home, name)| {
        let list = home.words(&format!("snapshot list {name} --json")).json("snapshot list");
        let of = |index: usize| (list[index]["guid"].clone(), list[index]["created"].clone());
        [of(0), of(1)]
    });
    assert_eq!(here, there);
    second.words("check --deep").ok();
}

#[test]
fn several_datasets_arrive_as_one() {
    let (first, second) = pools();
    first.words("kv e put k v").ok();
    first.words("snapshot create d@both e@both").ok();
    let both = stream(&first, "send d@both e@both --compression zstd:3");
    second.fed("receive x", &both).fails(1, "the stream has 2");
    second.fed("receive x y", &both).ok();
    assert_eq!(second.words("db list-datasets").ok(), "x\ny\n");
    first.words("kv e put k w").ok();
    first.words("snapshot create d@later e@later").ok();
    first.words("send d@later e@later -i d@both").fails(2, "@NAME");
    second.fed("receive x y", &stream(&first, "send d@later e@later -i @both")).ok();
    assert_eq!(second.words("kv y get k").ok(), "w");
}

#[test]
fn object_stores_travel_like_datasets() {
    let (first, second) = pools();
    // A dataset and a store of one name.
    first.fed("obj d put kept", b"of the store").ok();
    first.fed("obj d put removed", b"old").ok();
    first.words("snapshot create d@one --store").ok();
    first.words("obj d del removed").ok();
    first.fed("obj d put new", b"new").ok();
    first.words("snapshot create d@two --store").ok();
    first.words("send d@one").fails(3, "\"d@one\" does not exist");
    let (sent, received) = piped(&first, "send --store d@one", &second, "receive photos --json");
    assert_eq!(sent.code, 0, "{}", sent.stderr);
    let received = received.json("receive");
    assert_eq!(received["received"], json!([{"store": "photos", "snapshot": "one", "created": true}]));
    let since = stream(&first, "send --store d@two -i @one");
    let told = second.fed("receive photos -n", &since);
    let would = "would receive object store \"photos@two\": what changed since \"@one\"\n";
    assert!(told.code == 0 && told.stderr.starts_with(would), "{}", told.stderr);
    second.fed("receive photos", &since[..since.len() - 1]).fails(4, "--abort");
    let waiting = second.words("receive --status --json").json("receive");
    assert_eq!(waiting[0]["into"], json!([{"store": "photos"}]));
    assert_eq!(second.words("obj photos cat removed").ok(), "old");
    second.words("store rename photos other").fails(8, "unfinished receive");
    second.words("receive --abort photos").ok();
    second.words("receive --abort photos --store").fails(3, "photos");
    second.fed("receive photos", &since).ok();
    assert_eq!(second.words("obj photos list").ok(), "kept\nnew\n");
    assert_eq!(second.words("obj photos@one cat removed").ok(), "old");
    // What is there without a dataset of its name needs no word.
    let (sent, received) = piped(&second, "send photos@two", &first, "receive back");
    assert_eq!((sent.code, received.code), (0, 0), "{} {}", sent.stderr, received.stderr);
    assert_eq!(first.words("obj back cat kept").ok(), "of the store");
    first.words("snapshot create d@all back@all").ok();
    let all = stream(&first, "send d@all back@all");
    second.fed("receive photos photos", &all).fails(8, "already exists");
    second.fed("receive d d", &all).ok();
    assert_eq!(second.words("kv d get changed").ok(), "new");
    assert_eq!(second.words("obj d cat new").ok(), "new");
    second.words("check --deep").ok();
}

#[test]
fn what_is_wrong_is_said_and_changes_nothing() {
    let (first, second) = pools();
    let (whole, since) = (stream(&first, "send d@a"), stream(&first, "send d@b -i @a"));
    let before = second.pool_bytes();
    second.fed("receive d", b"a text of some length, and no stream").fails(1, "no stream of a snapshot");
    second.fed("receive d", b"").fails(4, "ends at byte 0");
    second.fed("receive d", &since).fails(3, "\"d\" does not exist");
    second.fed("receive d e", &whole).fails(1, "the stream has 1");
    let mut newer = whole.clone();
    newer[8] = 9;
    second.fed("receive d", &newer).fails(1, "format version 9");
    assert_eq!(second.words("receive --status").ok(), "NAME  SNAPSHOT  RECEIVED  TOKEN\n");
    assert!(before.len() == second.pool_bytes().len() && second.words("db list-datasets").ok().is_empty());
    second.fed("receive d", &whole).ok();
    second.fed("receive d", &whole).fails(8, "already exists");
    second.fed("receive d", &whole[..whole.len() - 9]).fails(8, "already exists");
    for at in [20, since.len() / 2, since.len() - 1] {
        let mut damaged = since.clone();
        damaged[at] ^= 4;
        second.fed("receive d", &damaged).fails(4, "the stream is damaged at byte");
    }
    second.words("kv d put mine now").ok();
    second.fed("receive d", &since).fails(8, "has changed since its snapshot \"a\"");
    second.fed("receive d --force", &since).ok();
    second.words("kv d get mine").fails(3, "not in");
    second.fed("receive d", &since).fails(8, "that the stream brings");
    second.fed("receive d", &stream(&first, "send d@a")).fails(8, "already exists");
    second.fed("receive -F d", &stream(&first, "send d@a")).ok();
    assert_eq!(second.words("kv d count").ok(), "3\n");
    second.words("kv e put k v").ok();
    second.words("snapshot create e@a").ok();
    second.fed("receive e", &since).fails(3, "lacks the snapshot that the stream starts from");
    // More than a stream is none of its business.
    let more = [&since[..], b"more"].concat();
    let received = second.fed("receive d", &more);
    assert!(received.code == 0 && received.stderr.contains("warning: more follows"), "{}", received.stderr);
    first.words("send d@absent").fails(3, "\"d@absent\" does not exist");
    first.words("send d@a -i @b").fails(1, "not older");
    first.words("send d@b -i a").fails(2, "DATASET@NAME");
    first.words("send d@b -i @").fails(2, "DATASET@NAME");
    first.words("send d").fails(2, "DATASET@NAME");
    first.words("send d@a --json").fails(2, "no JSON");
    first.words("send d@a --resume 12").fails(2, "token");
    second.words("receive").fails(2, "DATASET");
    second.words("receive --abort absent").fails(3, "does not exist");
    second.words("receive d --abort --force").fails(2, "cannot be used with");
    second.words("check --deep").ok();
}

#[test]
fn an_interrupted_stream_goes_on_or_is_given_back() {
    let (first, second) = pools();
    let large = "x".repeat(300_000);
    for number in 0..4 {
        first.fed(&format!("kv d put large{number}"), large.as_bytes()).ok();
    }
    first.words("snapshot create d@large").ok();
    let whole = stream(&first, "send d@large");
    let failed = second.fed("receive d", &whole[..700_000]);
    failed.fails(4, "are kept: `bectl send --resume");
    second.words("kv d count").fails(3, "does not exist");
    let waiting = second.words("receive --status --json").json("receive");
    assert_eq!((&waiting[0]["into"], &waiting[0]["snapshot"]), (&json!([{"dataset": "d"}]), &json!("large")));
    let token = waiting[0]["token"].as_str().unwrap();
    let line = second.words("receive --status d -H").ok();
    assert_eq!(line.split('\t').next_back().unwrap().trim_end(), token);
    first.words(&format!("send d@b --resume {token}")).fails(1, "of other snapshots");
    let rest = stream(&first, &format!("send d@large --resume {token}"));
    assert!(rest.len() < whole.len());
    second.fed("receive d", &rest).ok();
    assert_eq!(second.words("kv d get large3").ok(), large);
    second.fed("receive d", &rest).fails(8, "already exists");
    second.fed("receive e", &whole[..700_000]).fails(4, "before its end");
    second.words("receive --abort e").ok();
    assert_eq!(second.words("receive --status --json").json("receive"), json!([]));
    // What changes start from says who needs it.
    second.words("snapshot create d@mine").ok();
    let since = stream(&second, "send d@mine -i @large");
    first.fed("receive d", &since[..since.len() - 1]).fails(4, "before its end");
    first.words("snapshot destroy d@large -y").fails(8, "unfinished receive");
    let pruned = first.words("snapshot prune d --keep-hourly 1 -y");
    assert!(
        pruned.code == 0 && first.words("snapshot list -H").ok().contains("d@large"),
        "{}",
        pruned.stderr
    );
    first.words("receive --abort d").ok();
    second.words("check --deep").ok();
    first.words("check --deep").ok();
}

#[test]
fn a_dry_run_tells_and_does_nothing() {
    let (first, second) = pools();
    first.words("send d@a d@a -n").fails(1, "twice");
    first.words("send d@a -i @b -n").fails(1, "not older");
    let estimate = first.words("send d@b --dry-run --json").json("send");
    assert_eq!(estimate[0]["snapshot"], "d@b");
    assert!(estimate[0]["bytes"].as_u64().unwrap() >= 4096);
    let lines = first.words("send d@b -i @a -nHp").ok();
    assert!(lines.starts_with("d@b\t"), "{lines}");
    let (whole, since) = (stream(&first, "send d@a"), stream(&first, "send d@b -i @a"));
    let before = second.pool_bytes();
    let told = second.fed("receive d -n", &since);
    assert!(
        told.stderr.contains("would receive dataset \"d@b\": what changed since \"@a\""),
        "{}",
        told.stderr
    );
    assert!(told.stderr.contains("the stream is whole: 1 entry and 1 deleted key"), "{}", told.stderr);
    let told = second.fed("receive d -n --json", &whole).json("receive");
    assert_eq!((&told["puts"], &told["received"][0]["created"]), (&json!(3), &json!(true)));
    second.fed("receive d -n", &whole[..50]).fails(4, "before its end");
    second.fed("receive d e -n", &whole).fails(2, "1 datasets");
    assert!(before == second.pool_bytes(), "a dry run wrote");
}
