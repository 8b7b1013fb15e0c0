//! `obj import` and `obj export`: folders of files.

use crate::home::{Home, Outcome};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, UNIX_EPOCH};

/// Numbers that look random, the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}

/// Writes a file, with the folders that it is in.
fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A tree of files with all that may be in names and contents.
fn make_tree(root: &Path) {
    let mut numbers = Numbers(1);
    for number in 0..200_u64 {
        let mut path = root.to_owned();
        for _ in 0..numbers.below(4) {
            path.push(format!("folder {}", numbers.below(4)));
        }
        let length = [0, 1, 100, 5000, 70_000][numbers.below(5) as usize];
        path.push(format!("{number}-file"));
        write(&path, &numbers.bytes(length));
        let time = UNIX_EPOCH + Duration::new(1_000_000_000 + numbers.below(500_000_000), number as u32);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
        let mode = [0o600, 0o644, 0o755, 0o444][numbers.below(4) as usize];
        file.set_permissions(Permissions::from_mode(mode)).unwrap();
    }
    for name in [
        &b"\xff\xfe not UTF-8"[..],
        b"new\nline",
        b"-dash",
        b"back\\slash",
        b" ",
        b"...",
        "Zürich ☃".as_bytes(),
    ] {
        write(&root.join(OsStr::from_bytes(name)).join(OsStr::from_bytes(name)), name);
    }
    write(&root.join("n".repeat(255)), b"long name");
    let deep: PathBuf = (0..100).map(|depth| format!("{depth} down")).collect();
    write(&root.join(deep).join("bottom"), b"deep");
    write(&root.join("five"), &numbers.bytes(5 << 20));
    write(&root.join("chunk"), &numbers.bytes(128 << 10));
    write(&root.join("sparse"), b"");
    File::options().write(true).open(root.join("sparse")).unwrap().write_all_at(b"end", 1 << 20).unwrap();
    fs::create_dir_all(root.join("empty/folder")).unwrap();
    fs::set_permissions(root.join("empty/folder"), Permissions::from_mode(0o750)).unwrap();
    symlink("folder 1", root.join("link")).unwrap();
    symlink("../nowhere\n", root.join("dangling")).unwrap();
}

/// What is at a path: mode, time of change, contents. Of folders with something in them, only that.
type Entry = (u32, Option<(i64, i64)>, Vec<u8>);

/// All below `root`, by path.
fn tree(root: &Path) -> BTreeMap<Vec<u8>, Entry> {
    let mut all = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            let time = Some((metadata.mtime(), metadata.mtime_nsec()));
            let entry = if metadata.is_dir() {
                let is_empty = fs::read_dir(&path).unwrap().next().is_none();
                left.push(path);
                if is_empty { (metadata.mode(), time, Vec::new()) } else { (0, None, Vec::new()) }
            } else if metadata.is_symlink() {
                (metadata.mode(), time, fs::read_link(&path).unwrap().into_os_string().into_vec())
            } else {
                (metadata.mode(), time, fs::read(&path).unwrap())
            };
            all.insert(name, entry);
        }
    }
    all
}

/// Demands that both folders hold the same.
#[track_caller]
fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (tree(one), tree(other));
    let names = |tree: &BTreeMap<Vec<u8>, Entry>| -> Vec<String> {
        tree.keys().map(|name| name.escape_ascii().to_string()).collect()
    };
    assert_eq!(names(&one), names(&other));
    for (name, entry) in one {
        let (found, name) = (&other[&name], name.escape_ascii().to_string());
        assert_eq!((format!("{:o}", entry.0), entry.1), (format!("{:o}", found.0), found.1), "{name}");
        assert!(entry.2 == found.2, "{name}: other bytes");
    }
}

fn with_large_pool() -> Home {
    let home = Home::empty();
    home.words("db init --size 256MiB").ok();
    home
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let home = with_large_pool();
    make_tree(&home.path("in"));
    let done = home.words("obj s import in --json").json("obj import");
    let count = tree(&home.path("in")).values().filter(|entry| entry.0 != 0).count();
    assert_eq!((&done["objects"], &done["unchanged"]), (&json!(count), &json!(0)));
    home.words("obj s export out").ok();
    assert_same(&home.path("in"), &home.path("out"));
    assert_eq!(home.words("check --json").json("check")["outcome"], "clean");

    // Again: there is nothing to do.
    let again = home.words("obj s import in --json").json("obj import");
    assert_eq!((&again["objects"], &again["unchanged"]), (&json!(0), &json!(count)));
    let again = home.words("obj s export out --json --jobs 1").json("obj export");
    assert_eq!((&again["objects"], &again["unchanged"]), (&json!(0), &json!(count)));

    // Parts of files on both sides: those that were not written to by both are not equal any more.
    for (name, offset, bytes) in [("five", 3 << 20, "part of five"), ("chunk", (128 << 10) - 3, "longer")] {
        home.fed(&format!("obj s write {name} --offset {offset}"), bytes.as_bytes()).ok();
        let file = File::options().write(true).open(home.path("in").join(name)).unwrap();
        file.write_all_at(bytes.as_bytes(), offset).unwrap();
    }
    let done = home.words("obj s export out --json").json("obj export");
    assert_eq!((&done["objects"], &done["unchanged"]), (&json!(2), &json!(count - 2)));
    for name in ["five", "chunk"] {
        assert!(
            fs::read(home.path("in").join(name)).unwrap() == fs::read(home.path("out").join(name)).unwrap()
        );
    }
    let done = home.words("obj s import in --json").json("obj import");
    assert_eq!((&done["objects"], &done["unchanged"]), (&json!(2), &json!(count - 2)));
    home.words("obj s export out").ok();
    assert_same(&home.path("in"), &home.path("out"));

    // A part of it, elsewhere, and without what only Unix has.
    home.words("obj t import in/empty --prefix x/y/ --no-symlinks").ok();
    assert_eq!(home.words("obj t list").ok(), "x/y/folder/\n");
    home.words("obj t export part --prefix x/").ok();
    assert!(home.path("part/y/folder").is_dir());
    let done = home.words("obj s export unlinked --no-symlinks --json").json("obj export");
    assert_eq!((&done["objects"], &done["skipped"]), (&json!(count - 2), &json!(2)));
    // Objects that never were files have no mode, and the time at which they were written.
    home.fed("obj t put plain", b"x").ok();
    home.words("obj t export part").ok();
    home.words("obj t export part --json").json("obj export");
    assert_eq!(fs::read(home.path("part/plain")).unwrap(), b"x");
}

#[test]
fn what_would_be_done_is_told() {
    let home = Home::with_pool();
    write(&home.path("in/a/b"), b"123");
    let told = home.words("obj s import in --dry-run");
    assert_eq!((told.code, told.stderr.as_str()), (0, "would import 1 object (3 B)\n"));
    home.words("obj s list").fails(3, "\"s\" does not exist");
    home.words("obj s export out --dry-run").fails(3, "\"s\" does not exist");
    home.words("obj s import in").ok();
    assert_eq!(home.words("obj s import in --dry-run").stderr, "would import 0 objects (0 B), 1 unchanged\n");
    assert_eq!(home.words("obj s export out --dry-run").stderr, "would export 1 object (3 B)\n");
    assert!(!home.path("out").exists());
    fs::create_dir(home.path("out")).unwrap();
    assert_eq!(home.words("obj s export out --dry-run").stderr, "would export 1 object (3 B)\n");
    assert_eq!(fs::read_dir(home.path("out")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_imported_is_named() {
    let home = Home::with_pool();
    home.words("obj s import absent").fails(1, "opening absent");
    home.words("obj s list").fails(3, "does not exist");
    fs::create_dir(home.path("in")).unwrap();
    write(&home.path("file"), b"");
    home.words("obj s import file").fails(1, "opening file");
    home.words("obj s import in --jobs 0").fails(2, "");
    home.words("obj s import in").ok();
    assert_eq!(home.words("obj s list").ok(), "");

    write(&home.path("in/good"), b"good");
    write(&home.path("in/.bectl-partial-0"), b"left over");
    let fifo = home.path("in/pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    // Longer than names may be, and than paths may be too.
    let long = ["x".repeat(255), "y".repeat(255)].concat();
    let done = home.run(["obj", "s", "import", "in", "--prefix", &long.repeat(9)]);
    assert_eq!(done.code, 8, "{}", done.stderr);
    assert!(done.stderr.contains("\"good\": longer than the 4096 bytes"), "{}", done.stderr);
    let done = home.words("obj s import in");
    assert_eq!(done.code, 0, "{}", done.stderr);
    for told in [
        "warning: \"pipe\": left out: neither",
        "warning: \".bectl-partial-0\": left out: an interrupted export",
        "imported 1 object (4 B), 2 skipped",
    ] {
        assert!(done.stderr.contains(told), "{}", done.stderr);
    }
    assert_eq!(home.words("obj s list").ok(), "good\n");
}

/// The pool is no file to import or to overwrite.
#[test]
fn the_pool_stays_out_of_it() {
    let home = Home::with_pool();
    write(&home.path("data/betree/other"), b"other");
    let done = home.words("obj s import data/betree");
    assert!(done.stderr.contains("\"pool.img\": left out: the pool is in it"), "{}", done.stderr);
    assert_eq!(home.words("obj s list").ok(), "other\n");
    home.fed("obj s put pool.img", b"not a pool").ok();
    home.words("obj s export data/betree").fails(8, "\"pool.img\": the pool is where its file would be");
    assert_eq!(home.words("obj s get other").ok(), "other");
}

#[test]
fn nothing_outside_is_written() {
    let home = Home::with_pool();
    let outside = home.path("outside");
    write(&outside.join("secret"), b"secret");
    write(&home.path("x"), b"mine");
    let absolute = home.path("absolute");
    let evil: Vec<Vec<u8>> = [
        &b"../x"[..],
        b"..",
        b".",
        b"a/..",
        b"a/../../x",
        b"a//b",
        b"a/./b",
        b"/",
        b"//x",
        b"a/b/",
        b"nul\0byte",
        b"../outside/secret",
        b"../outside/new",
        b".bectl-partial-7",
        b"d/../../outside/secret",
    ]
    .iter()
    .map(|name| name.to_vec())
    .chain([absolute.as_os_str().as_bytes().to_vec()])
    .collect();
    let hex = |name: &[u8]| -> String { name.iter().map(|byte| format!("{byte:02x}")).collect() };
    for name in &evil {
        home.fed(&format!("obj s put {} --name-enc hex", hex(name)), b"evil").ok();
    }
    // Links of objects, and those that are there, lead nowhere.
    home.fed("obj s put link", b"../outside").ok();
    home.words("obj s meta set link mode 120777").ok();
    home.fed("obj s put link/secret", b"evil").ok();
    home.fed("obj s put there/secret", b"evil").ok();
    home.fed("obj s put there/deep/secret", b"evil").ok();
    home.fed("obj s put file", b"good").ok();
    home.fed("obj s put good/file", b"good").ok();
    fs::create_dir(home.path("out")).unwrap();
    symlink("../outside", home.path("out/there")).unwrap();
    symlink("../outside/secret", home.path("out/file")).unwrap();
    let others = || -> BTreeMap<_, _> {
        tree(&home.path("")).into_iter().filter(|(name, _)| !name.starts_with(b"out/")).collect()
    };
    let before = others();
    let stderr = home.words("obj s export out").fails(8, "could not export");
    for name in [
        "\"../x\"",
        "\"a//b\"",
        "\"nul\\x00byte\"",
        "\"link/secret\"",
        "\"there/secret\"",
        "\"there/deep/secret\"",
    ] {
        assert!(stderr.contains(&format!("warning: {name}: ")), "{name} is not in {stderr}");
    }
    assert!(stderr.contains(&format!("could not export {} of them", evil.len() + 3)), "{stderr}");
    assert!(others() == before, "something outside changed");
    // What is good is there; a link in its place is gone, what it led to is not.
    let out: Vec<_> =
        tree(&home.path("out")).into_keys().map(|name| String::from_utf8(name).unwrap()).collect();
    assert_eq!(out, ["file", "good", "good/file", "link", "there"]);
    assert!(fs::symlink_metadata(home.path("out/file")).unwrap().is_file());
    assert_eq!(fs::read(home.path("out/good/file")).unwrap(), b"good");
    // A second time, with the link of before in the way.
    home.words("obj s del link").ok();
    home.words("obj s export out")
        .fails(8, "\"link/secret\": a file or symbolic link is where its folder would be");
    assert!(
        others().iter().all(|(name, entry)| before.get(name) == Some(entry) || name.starts_with(b"data"))
    );
}

#[test]
fn an_object_cannot_be_file_and_folder() {
    let home = Home::with_pool();
    for name in ["a", "a-", "a/b", "a/c/d", "f", "g/"] {
        home.words(&format!("obj s put {name}")).ok();
    }
    write(&home.path("out/f/x"), b"");
    let stderr = home.words("obj s export out").fails(8, "could not export 3 of them");
    for told in [
        "\"a/b\": \"a\" is an object too",
        "\"a/c/d\": \"a\" is an object too",
        "\"f\": a folder is where its file would be",
    ] {
        assert!(stderr.contains(told), "{stderr}");
    }
    assert!(home.path("out/a").is_file() && home.path("out/a-").is_file() && home.path("out/g").is_dir());
}

#[test]
fn one_export_to_a_folder_at_a_time() {
    let home = Home::with_pool();
    home.words("obj s put a").ok();
    fs::create_dir(home.path("out")).unwrap();
    let folder = File::open(home.path("out")).unwrap();
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    home.words("obj s export out").fails(8, "somebody else exports to out");
    drop(folder);
    home.words("obj s export out").ok();
    // What a killed one left goes with the next.
    let stat = home.words("obj s stat a --json").json("obj stat");
    fs::remove_file(home.path("out/a")).unwrap();
    let partial = home.path(&format!("out/.bectl-partial-{:016x}", stat["id"].as_u64().unwrap()));
    fs::write(partial, "half").unwrap();
    home.words("obj s export out").ok();
    assert_eq!(tree(&home.path("out")).into_keys().collect::<Vec<_>>(), [b"a"]);
}

/// Starts an import of `in` that stands still in the middle: more than a thousand objects are durable, and it has more to
/// say than a pipe holds.
fn stuck_import(home: &Home) -> (Child, BufReader<std::process::ChildStderr>) {
    let folder = home.path("in");
    for number in 0..1500 {
        write(&folder.join(format!("a/{number}")), format!("{number}").as_bytes());
    }
    fs::create_dir(folder.join("b")).unwrap();
    for number in 0..1500 {
        symlink(format!("{number}"), folder.join(format!("b/{number}{}", "x".repeat(100)))).unwrap();
    }
    for number in 0..1000 {
        write(&folder.join(format!("c/{number}")), format!("{number}").as_bytes());
    }
    let mut command = home.command(["-v", "obj", "s", "import", "in", "--no-symlinks"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.ends_with(" objects are durable\n") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended too early");
    }
    (child, stderr)
}

/// Goes on with an import that was ended in the middle.
fn go_on(home: &Home) {
    let there = home.words("obj s list").ok().lines().count();
    assert!((1000..2500).contains(&there), "{there} objects");
    let done = home.words("obj s import in --json").json("obj import");
    assert_eq!((&done["unchanged"], &done["objects"]), (&json!(there), &json!(4000 - there)));
    home.words("obj s export out").ok();
    assert_same(&home.path("in"), &home.path("out"));
    assert_eq!(home.words("check --json").json("check")["outcome"], "clean");
}

#[test]
fn a_killed_import_goes_on() {
    let home = with_large_pool();
    let (mut child, stderr) = stuck_import(&home);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    drop(stderr);
    go_on(&home);
}

#[test]
fn an_interrupted_import_goes_on() {
    let home = with_large_pool();
    let (child, mut stderr) = stuck_import(&home);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    let outcome = Outcome::wait(child);
    assert_eq!(outcome.code, 130, "{rest}");
    let last = rest.lines().last().unwrap();
    assert!(
        last.contains("stopped after this was done: imported ") && last.ends_with("interrupted"),
        "{last}"
    );
    go_on(&home);
}

/// Guards what a killed process leaves of a large object: it is seen by nobody as an object, and removed.
#[test]
fn large_files_are_imported_once() {
    let home = with_large_pool();
    let bytes = Numbers(2).bytes((16 << 20) + 5);
    write(&home.path("in/large"), &bytes);
    // What a killed import left.
    let partial: String = b"\0bectl-partial\x000".iter().map(|byte| format!("{byte:02x}")).collect();
    home.fed(&format!("obj s put {partial} --name-enc hex"), b"half").ok();
    home.words("obj s export out").ok();
    assert!(tree(&home.path("out")).is_empty());
    home.words("obj s import in").ok();
    assert_eq!(home.words("obj s list").ok(), "large\n");
    assert!(home.words("obj s import in").stderr.contains("imported 0 objects (0 B), 1 unchanged"));
    home.words("obj s export out").ok();
    assert_same(&home.path("in"), &home.path("out"));
    // A copy is as good as the object.
    home.words("obj s mv large moved").ok();
    home.words("obj s cp moved large").ok();
    home.words("obj s del moved").ok();
    assert!(home.words("obj s import in").stderr.contains("1 unchanged"));
    // It is written to, and to the same time: the file is another one.
    home.fed("obj s write large --offset 7", &bytes[7..8]).ok();
    assert!(home.words("obj s import in").stderr.contains("imported 1 object (16.0 MiB)"));
}

/// Guards versions of sources, which archives give one time each: that sizes and times are equal says nothing of the bytes.
#[test]
fn other_bytes_of_one_size_and_time_are_found() {
    let home = Home::with_pool();
    let time = UNIX_EPOCH + Duration::from_secs(1_153_704_088);
    let set = |folder: &str, bytes: &str| {
        write(&home.path(folder).join("file"), bytes.as_bytes());
        let file = File::options().write(true).open(home.path(folder).join("file")).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    };
    set("one", "version 1");
    set("two", "version 2");
    home.words("obj s import one").ok();
    home.words("snapshot create s@one").ok();
    home.words("obj s@one export out").ok();
    assert_eq!(home.words("obj s import two --dry-run").stderr, "would import 1 object (9 B)\n");
    home.words("obj s import two").ok();
    assert_eq!(home.words("obj s get file").ok(), "version 2");
    // In place, too.
    set("two", "version 3");
    home.words("obj s import two").ok();
    assert_eq!(home.words("obj s get file").ok(), "version 3");
    assert!(home.words("obj s import two").stderr.contains("imported 0 objects (0 B), 1 unchanged"));
    assert!(home.words("obj s export out --quick").stderr.contains("1 unchanged"));
    assert_same(&home.path("one"), &home.path("out"));
    home.words("obj s export out").ok();
    assert_same(&home.path("two"), &home.path("out"));
    // A link that leads elsewhere.
    for target in ["one", "two"] {
        let _absent = fs::remove_file(home.path("one/link"));
        symlink(target, home.path("one/link")).unwrap();
        home.words("obj s import one").ok();
        assert_eq!(home.words("obj s get link").ok(), target);
    }
}

/// Guards what makes a second import fast: an inode that did not change since is not read.
#[test]
fn a_file_that_did_not_change_is_known_by_its_inode() {
    let home = Home::with_pool();
    write(&home.path("in/file"), b"123");
    home.words("obj s import in").ok();
    // It is new: its clock may not have moved on when it changes next.
    home.words("obj s meta get file inode").fails(3, "inode");
    let metadata = fs::metadata(home.path("in/file")).unwrap();
    let inode = format!("{} {}.{:09}", metadata.ino(), metadata.ctime(), metadata.ctime_nsec());
    let known = || home.run(["obj", "s", "meta", "get", "file", "inode"]).stdout;
    // The next import sees that it is the same, and keeps the inode when that is old enough.
    let mut tries = 0;
    while known() != inode.as_bytes() {
        assert!(home.words("obj s import in").stderr.contains("1 unchanged"));
        tries += 1;
        assert!(tries < 1000, "it is never old enough");
    }
    // It is believed: bytes that are not those of the file would be found by reading.
    assert!(home.words("obj s import in").stderr.contains("1 unchanged"));
    home.run(["obj", "s", "meta", "set", "file", "inode", "1 0.000000000"]).ok();
    assert!(home.words("obj s import in").stderr.contains("1 unchanged"));
    assert_eq!(known(), inode.as_bytes());
}

#[test]
fn a_snapshot_is_exported() {
    let home = Home::with_pool();
    write(&home.path("in/a"), b"first");
    home.words("obj s import in").ok();
    home.words("snapshot create s@one").ok();
    write(&home.path("in/a"), b"second");
    home.words("obj s import in").ok();
    home.words("obj s@one export one").ok();
    home.words("obj s export two").ok();
    assert_eq!(fs::read(home.path("one/a")).unwrap(), b"first");
    assert_same(&home.path("in"), &home.path("two"));
}
