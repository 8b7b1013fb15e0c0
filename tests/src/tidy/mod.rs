//! Rules that the sources must keep, checked by reading them.
//!
//! ```text
//!   folder ──load──> Tree (every file: path, text) ──check──> findings (file, line, rule, what)
//!                      │
//!                      ├ *.rs   ──lexer──> lines (code with literals blanked, comments)
//!                      │                     ├ layers     an import that runs upward
//!                      │                     ├ leftovers  stubs, debug prints, commented-out code, no leading `//!`
//!                      │                     └ layout     a `format.rs` without its layout table
//!                      ├ *.md   ──────────> links         links, includes and mentions that point nowhere
//!                      │                    hazards       hazards whose test does not exist
//!                      └ all    ──────────> words         paths of somebody's machine
//! ```
//!
//! The rules work on a [`Tree`] in memory, so that each has tests that feed it a bad snippet: a rule that finds
//! nothing in clean sources proves nothing by that alone.
//!
//! Invariants:
//! 1. A rule looks at code or at comments, never at the text of a literal: snippets in tests are not findings.
//! 2. A heuristic rule (commented-out code) may miss something; what it reports should be worth a change.
//!
//! What it does not do: parse Rust. Names that macros build are out of its sight.

mod hazards;
mod layers;
mod layout;
mod leftovers;
mod lexer;
mod links;
mod words;

use std::fmt;
use std::io;
use std::path::Path;

/// What is nothing of ours, by name. In a second working tree `.git` is a file.
const SKIPPED: &[&str] = &["target", ".git", "node_modules"];

/// One file of the tree.
#[derive(Debug, Clone)]
pub struct File {
    /// Path from the root, with `/` between its parts.
    pub path: String,
    /// The text, empty when the file is not UTF-8.
    pub text: String,
}

impl File {
    /// Whether the path ends in `.{extension}`.
    fn has_extension(&self, extension: &str) -> bool {
        self.path
            .rsplit('/')
            .next()
            .and_then(|name| name.rsplit_once('.'))
            .is_some_and(|(_, e)| e == extension)
    }
}

/// All files that the rules look at.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    files: Vec<File>,
}

impl Tree {
    /// A tree of the given `(path, text)` pairs.
    #[must_use]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let files =
            files.iter().map(|(path, text)| File { path: (*path).into(), text: (*text).into() }).collect();
        Self { files }
    }

    /// Reads every file under `root`, but for build output and the history.
    ///
    /// # Errors
    /// The first file or folder that cannot be read.
    pub fn load(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        tree.load_folder(root, "")?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    fn load_folder(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            let path = format!("{prefix}{name}");
            if kind.is_dir() {
                self.load_folder(&entry.path(), &format!("{path}/"))?;
            } else if kind.is_file() {
                let text = String::from_utf8(std::fs::read(entry.path())?).unwrap_or_default();
                self.files.push(File { path, text });
            }
        }
        Ok(())
    }

    /// All files, by path.
    #[must_use]
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The file at `path`.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether `path` is a file, or a folder with a file in it.
    fn exists(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        path.is_empty()
            || self.files.iter().any(|file| {
                file.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    }

    fn rust_files(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.has_extension("rs"))
    }
}

/// One breach of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Path of the file from the root.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// Name of the rule.
    pub rule: &'static str,
    /// What is wrong, in words.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.what)
    }
}

/// Applies every rule to `tree`.
#[must_use]
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust_files() {
        let lines = lexer::lines(&file.text);
        layers::check(file, &lines, &mut findings);
        leftovers::check(file, &lines, &mut findings);
        layout::check(file, &lines, &mut findings);
    }
    links::check(tree, &mut findings);
    hazards::check(tree, &mut findings);
    words::check(tree, &mut findings);
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    findings
}

/// The rules that `check` reports for one file, for the tests of the rules.
#[cfg(test)]
fn rules_broken(path: &str, text: &str) -> Vec<(&'static str, usize)> {
    check(&Tree::of(&[(path, text)])).into_iter().map(|finding| (finding.rule, finding.line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_file_has_no_findings() {
        let text = "//! Nothing.\n\nuse crate::base::units::BLOCK_BYTES;\n\n/// One.\npub const ONE: usize = BLOCK_BYTES;\n";
        assert_eq!(rules_broken("betree/src/dmu/space.rs", text), []);
    }

    #[test]
    fn findings_name_their_place() {
        let findings = check(&Tree::of(&[("betree/src/vdev/file.rs", "//! A.\nuse crate::tree::Node;\n")]));
        assert_eq!(findings.len(), 1);
        assert!(
            findings[0].to_string().starts_with("betree/src/vdev/file.rs:2: layers: "),
            "{}",
            findings[0]
        );
    }

    #[test]
    fn folders_exist_by_their_files() {
        let tree = Tree::of(&[("docs/format/run.md", "")]);
        for (path, exists) in
            [("docs", true), ("docs/format/", true), ("doc", false), ("docs/format/run.m", false)]
        {
            assert_eq!(tree.exists(path), exists, "{path}");
        }
    }

    #[test]
    fn load_skips_build_output_and_keeps_hidden_folders() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a/b.rs", "target/c.rs", "a/target/d.rs", ".ci/run", "b/.git"] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        std::fs::write(folder.path().join("raw"), [0xFF, 0xFE]).unwrap();
        let tree = Tree::load(folder.path()).unwrap();
        let paths: Vec<_> = tree.files().iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".ci/run", "a/b.rs", "raw"]);
        assert!(Tree::load(&folder.path().join("absent")).is_err());
    }
}
