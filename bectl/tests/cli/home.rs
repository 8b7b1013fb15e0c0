//! A home folder of its own for each test.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// A home folder that goes with the test.
pub struct Home {
    folder: TempDir,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Home {
    /// An empty home. Not below the system's folder of temporary files, which may be in memory, without direct I/O.
    pub fn empty() -> Self {
        Self { folder: TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap() }
    }

    /// A home with a pool of 64 MiB and an empty database.
    pub fn with_pool() -> Self {
        let home = Self::empty();
        home.run(["db", "init", "--size", "64MiB"]).ok();
        home
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    pub fn pool(&self) -> PathBuf {
        self.path("data/betree/pool.img")
    }

    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bectl"));
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .current_dir(self.folder.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        Outcome::of(self.command(arguments).output().unwrap())
    }

    /// Runs words that are separated by single spaces.
    pub fn words(&self, words: &str) -> Outcome {
        self.run(words.split(' '))
    }

    /// Runs words with `input` on standard input.
    pub fn fed(&self, words: &str, input: &[u8]) -> Outcome {
        let mut child = self.command(words.split(' ')).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || {
            // A command that fails early does not read to the end.
            let _gone = stdin.write_all(&input);
        });
        let outcome = Outcome::wait(child);
        feeder.join().unwrap();
        outcome
    }

    pub fn pool_bytes(&self) -> Vec<u8> {
        fs::read(self.pool()).unwrap()
    }
}

impl Outcome {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub fn wait(child: Child) -> Self {
        Self::of(child.wait_with_output().unwrap())
    }

    /// Demands success and returns standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}", self.stderr);
        String::from_utf8(self.stdout).unwrap()
    }

    /// Demands this exit code, no data, and a message that contains `message`.
    #[track_caller]
    pub fn fails(self, code: i32, message: &str) -> String {
        assert_eq!(self.code, code, "{}", self.stderr);
        assert_eq!(self.stdout, b"", "data of a command that failed");
        assert!(self.stderr.contains(message), "{:?} is not in {:?}", message, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self.stderr
    }

    /// Demands success and returns the data of the JSON document.
    #[track_caller]
    pub fn json(self, command: &str) -> serde_json::Value {
        let text = self.ok();
        let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(text.starts_with("{\"output_version\":{\"command\":"), "{text}");
        assert_eq!(document["output_version"]["command"], format!("bectl {command}"));
        assert_eq!(document["output_version"]["major"], 1);
        document["data"].take()
    }
}
