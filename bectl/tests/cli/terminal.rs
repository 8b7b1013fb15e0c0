//! What is different on a terminal: questions, colours, a line end after a value.

use crate::home::Home;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::process::Stdio;

/// For an answer: Ctrl-C. As a byte it would need a terminal that controls the process, which needs unsafe code.
const CTRL_C: &str = "\u{3}";

/// Runs words on a terminal where somebody types `answer` when there is a question; returns the exit code and all that
/// the terminal shows.
fn on_terminal(home: &Home, words: &str, answer: &str) -> (i32, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::from(open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap());
    let mut command = home.command(words.split(' '));
    command
        .stdin(Stdio::from(slave.try_clone().unwrap()))
        .stdout(Stdio::from(slave.try_clone().unwrap()))
        .stderr(Stdio::from(slave));
    let mut child = command.spawn().unwrap();
    // Holds the other end of the terminal, without which reading ends.
    drop(command);
    let mut master = File::from(master);
    let mut shown = Vec::new();
    let mut answered = false;
    let mut buffer = [0; 4096];
    loop {
        match master.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => shown.extend_from_slice(&buffer[..read]),
            // Linux says that the last process on the other end has gone.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
        if !answered && shown.ends_with(b"to go on: ") {
            answered = true;
            if answer == CTRL_C {
                kill_process(Pid::from_child(&child), Signal::INT).unwrap();
                continue;
            }
            master.write_all(answer.as_bytes()).unwrap();
        }
    }
    (child.wait().unwrap().code().unwrap(), String::from_utf8(shown).unwrap())
}

#[test]
fn destroying_needs_the_name() {
    let home = Home::with_pool();
    home.words("kv d put k v").ok();
    for answer in ["y\n", "yes\n", "\n", "dd\n", " d\n", "\u{4}"] {
        let (code, shown) = on_terminal(&home, "dataset destroy d", answer);
        assert_eq!(code, 8, "{answer:?}: {shown}");
        assert!(shown.contains("This destroys dataset \"d\" with 1 entry (2 B)."), "{shown}");
    }
    let (code, shown) = on_terminal(&home, "kv d range-del", CTRL_C);
    assert_eq!(code, 130, "{shown}");
    assert_eq!(home.words("kv d get k").ok(), "v");
    let (code, shown) = on_terminal(&home, "kv d range-del a z", "d\n");
    assert_eq!(code, 0, "{shown}");
    assert_eq!(home.words("kv d count").ok(), "0\n");
    let (code, shown) = on_terminal(&home, "dataset destroy d", "d\n");
    assert_eq!(code, 0, "{shown}");
    let pool = home.pool();
    let (code, shown) = on_terminal(&home, "db init --force --size 64MiB", &format!("{}\n", pool.display()));
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("destroys the pool with 0 datasets"), "{shown}");
}

#[test]
fn a_value_ends_its_line() {
    let home = Home::with_pool();
    home.words("kv d put k v").ok();
    assert_eq!(on_terminal(&home, "kv d get k", ""), (0, "v\r\n".into()));
}

#[test]
fn colours_are_for_terminals() {
    let home = Home::with_pool();
    let red = "\x1b[1;31merror:";
    assert!(on_terminal(&home, "kv d get k", "").1.starts_with(red));
    assert!(!on_terminal(&home, "kv d get k --color never", "").1.contains('\x1b'));
    assert!(home.words("kv d get k").stderr.starts_with("error:"));
    assert!(home.words("kv d get k --color always").stderr.starts_with(red));
}

#[test]
fn progress_leaves_no_trace_on_standard_output() {
    let home = Home::with_pool();
    std::fs::write(home.path("in.tsv"), "a\t1\nb\t2\n").unwrap();
    let (code, shown) = on_terminal(&home, "kv d load in.tsv", "");
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("loaded 2 entries"), "{shown}");
    let (code, shown) = on_terminal(&home, "kv d load in.tsv --no-progress", "");
    assert_eq!((code, shown.as_str()), (0, "loaded 2 entries (4 B)\r\n"));
}

#[test]
fn streams_are_not_for_terminals() {
    let home = Home::with_pool();
    home.words("kv d put k v").ok();
    home.words("snapshot create d@a").ok();
    let (code, shown) = on_terminal(&home, "send d@a", "");
    assert!(code == 2 && shown.contains("not for terminals"), "{shown}");
    let (code, shown) = on_terminal(&home, "receive e", "");
    assert!(code == 2 && shown.contains("not typed"), "{shown}");
}

#[test]
fn warnings_and_progress_share_the_terminal() {
    let home = Home::with_pool();
    std::fs::create_dir(home.path("in")).unwrap();
    std::fs::write(home.path("in/file"), "123").unwrap();
    std::os::unix::fs::symlink("file", home.path("in/link")).unwrap();
    let (code, shown) = on_terminal(&home, "obj s import in --no-symlinks", "");
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("\"link\": left out: a symbolic link"), "{shown}");
    assert!(shown.ends_with("imported 1 object (3 B), 1 skipped\r\n"), "{shown}");
    let (code, shown) = on_terminal(&home, "obj s export out --no-progress", "");
    assert_eq!((code, shown.as_str()), (0, "exported 1 object (3 B)\r\n"));
    let (code, shown) = on_terminal(&home, "obj s del --prefix f", "s\n");
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("This deletes 1 object (3 B) of store \"s\""), "{shown}");
    assert_eq!(home.words("obj s list").ok(), "");
}
