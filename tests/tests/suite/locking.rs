//! One writer or several readers, in one process or several; who comes second is told so and changes nothing.

use crate::pools::{Folder, contents, existing, small};
use betree::{Database, DatabaseConfiguration, ErrorKind, LeafVdev};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Another process that opened, or tried to.
struct Opener {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// `open`, or the kind of the error and its message.
    said: String,
}

impl Opener {
    fn start(mode: &str, files: &[&Path]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_betree-opener"))
            .arg(mode)
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        stdout.read_line(&mut said).unwrap();
        Self { child, stdin, stdout, said: said.trim_end().to_owned() }
    }

    /// Lets it close the pool.
    fn close(mut self) {
        self.stdin = None;
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.wait();
        let _ = self.stdout.fill_buf();
    }
}

/// A closed pool of 64 MiB with an entry, and its file.
fn pool(folder: &Folder) -> PathBuf {
    let db = Database::build(folder.one(64)).unwrap();
    db.create_dataset("d").unwrap().insert("k", "v").unwrap();
    db.close().unwrap();
    folder.path("pool.img")
}

fn configuration(path: &Path) -> DatabaseConfiguration {
    small([vec![existing(path)]])
}

/// Demands that every way to open is refused as busy, naming the file and, where the system tells, the holder.
fn all_are_refused(path: &Path, ways: &[&str], holder: Option<u32>) {
    let before = std::fs::read(path).unwrap();
    for way in ways {
        let result = match *way {
            "read" => Database::open_read_only(configuration(path)),
            "write" => Database::build(configuration(path)),
            "create" => Database::create(configuration(path).storage),
            _ => Database::create_with(configuration(path), true),
        };
        let error = result.map(drop).expect_err(way);
        assert_eq!(error.kind(), ErrorKind::Busy, "{way}: {error}");
        assert!(error.to_string().contains("pool.img"), "{way}: {error}");
        if let Some(holder) = holder {
            assert!(error.to_string().contains(&holder.to_string()), "{way}: {error}");
        }
    }
    assert!(std::fs::read(path).unwrap() == before, "somebody who was refused changed the pool");
}

/// Guards against two writers, and a reader of what a writer changes, in two processes.
#[test]
fn a_second_process_is_told_who_has_the_pool_and_changes_nothing() {
    let folder = Folder::new();
    let path = pool(&folder);
    let writer = Opener::start("write", &[&path]);
    assert_eq!(writer.said, "open");
    all_are_refused(&path, &["write", "read", "create", "force"], Some(writer.child.id()));
    let before = std::fs::read(&path).unwrap();
    for mode in ["write", "read", "create"] {
        let second = Opener::start(mode, &[&path]);
        assert!(
            second.said.starts_with("Busy ") && second.said.contains("pool.img"),
            "{mode}: {}",
            second.said
        );
    }
    assert!(std::fs::read(&path).unwrap() == before);
    writer.close();
    let db = Database::build(configuration(&path)).unwrap();
    assert_eq!(contents(&db.open_dataset("d").unwrap()).unwrap().len(), 1);
    // The other way round.
    let before = std::fs::read(&path).unwrap();
    for mode in ["write", "read", "create"] {
        let second = Opener::start(mode, &[&path]);
        assert!(second.said.starts_with("Busy "), "{mode}: {}", second.said);
    }
    assert!(std::fs::read(&path).unwrap() == before);
}

/// Guards the lock itself: it dies with its holder, however that dies.
#[test]
fn a_killed_process_holds_no_lock() {
    let folder = Folder::new();
    let path = pool(&folder);
    for mode in ["write", "read", "write"] {
        let mut holder = Opener::start(mode, &[&path]);
        assert_eq!(holder.said, "open");
        holder.child.kill().unwrap();
        holder.child.wait().unwrap();
        let db = Database::build(configuration(&path)).unwrap();
        assert_eq!(db.open_dataset("d").unwrap().get("k").unwrap().unwrap(), "v");
    }
}

/// Guards readers: many at once, in many processes, and no writer next to them.
#[test]
fn readers_share_a_pool_and_keep_writers_out() {
    let folder = Folder::new();
    let path = pool(&folder);
    let before = std::fs::read(&path).unwrap();
    let others: Vec<Opener> = (0..3).map(|_| Opener::start("read", &[&path])).collect();
    assert!(others.iter().all(|other| other.said == "open"));
    let here: Vec<Database> =
        (0..2).map(|_| Database::open_read_only(configuration(&path)).unwrap()).collect();
    for db in &here {
        assert_eq!(db.open_dataset("d").unwrap().get("k").unwrap().unwrap(), "v");
    }
    all_are_refused(&path, &["write", "create", "force"], None);
    drop(here);
    all_are_refused(&path, &["write", "create", "force"], None);
    others.into_iter().for_each(Opener::close);
    assert!(std::fs::read(&path).unwrap() == before, "readers changed the pool");
    Database::build(configuration(&path)).unwrap();
}

/// Guards against two databases on one pool in one process, where locks of files alone may not help.
#[test]
fn a_pool_is_opened_once_in_a_process() {
    let folder = Folder::new();
    let path = pool(&folder);
    let db = Database::build(configuration(&path)).unwrap();
    all_are_refused(&path, &["write", "read", "create", "force"], Some(std::process::id()));
    db.open_dataset("d").unwrap().insert("l", "w").unwrap();
    drop(db);
    let reader = Database::open_read_only(configuration(&path)).unwrap();
    assert_eq!(contents(&reader.open_dataset("d").unwrap()).unwrap().len(), 2);
    all_are_refused(&path, &["write", "create", "force"], None);
}

/// Guards against a pool that writes everything twice to one device: by the same name, by another, by a link.
#[test]
fn a_device_is_in_a_pool_once() {
    let folder = Folder::new();
    let path = pool(&folder);
    let (symbolic, hard) = (folder.path("symbolic.img"), folder.path("hard.img"));
    std::os::unix::fs::symlink(&path, &symbolic).unwrap();
    std::fs::hard_link(&path, &hard).unwrap();
    let dotted =
        path.parent().unwrap().join(".").join("..").join(path.parent().unwrap().file_name().unwrap());
    let before = std::fs::read(&path).unwrap();
    for second in [path.clone(), dotted.join("pool.img"), symbolic, hard] {
        for read_only in [false, true] {
            let configuration = small([vec![existing(&path), existing(&second)]]);
            let result = if read_only {
                Database::open_read_only(configuration)
            } else {
                Database::open_with(configuration)
            };
            let error = result.unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Busy | ErrorKind::InvalidArgument),
                "{}, {:?}: {error}",
                second.display(),
                error.kind()
            );
            assert!(error.to_string().contains(".img"), "{error}");
        }
        assert!(std::fs::read(&path).unwrap() == before);
    }
    // A new pool on one empty file, named twice.
    let empty = folder.path("empty.img");
    std::fs::write(&empty, vec![0; 8 << 20]).unwrap();
    let link = folder.path("link.img");
    std::os::unix::fs::symlink(&empty, &link).unwrap();
    for second in [&empty, &link] {
        let configuration = small([vec![existing(&empty)], vec![existing(second)]]);
        let error = Database::create_with(configuration, true).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Busy | ErrorKind::InvalidArgument), "{error}");
        assert!(std::fs::read(&empty).unwrap() == vec![0; 8 << 20]);
    }
    // One device that a program brings, twice.
    let device: std::sync::Arc<dyn betree::vdev::BlockDevice> =
        std::sync::Arc::new(betree::vdev::MemoryDevice::new(16 << 20));
    let leaf = || betree::Vdev::from(LeafVdev::from(std::sync::Arc::clone(&device)));
    let error = Database::build(small([vec![leaf()], vec![leaf()]])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}
