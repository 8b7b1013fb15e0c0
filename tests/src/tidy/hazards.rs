//! Every hazard and every rule names a test that catches its breach, and the test exists.
//!
//! The pages of hazards and of tests hold tables of them with a column headed "Test". In each row that column names one or more
//! tests between backticks: the function's name, with as much of its path before it as helps (`tree::flush::tests::x`,
//! `crash::power_cut`). A part of the path must be a folder, a file or an inline module on the way to the function.

use super::lexer::{lines, tokens};
use super::{Finding, Tree};
use std::collections::HashMap;

/// Where hazards and rules are listed.
const PAGES: [&str; 2] = ["docs/hazards.md", "docs/testing.md"];

/// Reports the rows of [`PAGES`] without a test, and the tests there that do not exist.
pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let tests = tests(tree);
    PAGES.into_iter().for_each(|page| check_page(tree, page, &tests, findings));
}

fn check_page(tree: &Tree, page: &str, tests: &Tests, findings: &mut Vec<Finding>) {
    let Some(file) = tree.file(page) else { return };
    let mut report = |line: usize, what: String| {
        findings.push(Finding { path: page.into(), line, rule: "hazards", what });
    };
    let mut column = None;
    let mut rows = 0;
    let mut before: &str = "";
    for (index, line) in file.text.lines().enumerate() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let is_row = line.trim_start().starts_with('|');
        let is_rule = is_row && cells.iter().all(|cell| cell.chars().all(|c| "-: ".contains(c)));
        if !is_row {
            column = None;
        } else if is_rule {
            column = before
                .trim()
                .trim_matches('|')
                .split('|')
                .position(|cell| matches!(cell.trim().to_lowercase().as_str(), "test" | "tests"));
        } else if let Some(column) = column {
            rows += 1;
            let names: Vec<&str> =
                cells.get(column).map_or("", |cell| *cell).split('`').skip(1).step_by(2).collect();
            if names.is_empty() {
                report(index + 1, "a row without a test".into());
            }
            for name in names.into_iter().filter(|name| !is_known(tests, name)) {
                report(index + 1, format!("the test `{name}` does not exist"));
            }
        }
        before = line;
    }
    if rows == 0 {
        report(1, "no table with a column \"Test\"".into());
    }
}

/// The paths to every test, by the test's name.
type Tests = HashMap<String, Vec<Vec<String>>>;

/// Whether `name`, perhaps with parts of its path before it, is one of `tests`.
fn is_known(tests: &Tests, name: &str) -> bool {
    let mut parts: Vec<&str> = name.trim_end_matches("()").split("::").collect();
    let Some(function) = parts.pop() else { return false };
    tests
        .get(function)
        .is_some_and(|paths| paths.iter().any(|path| parts.iter().all(|part| path.iter().any(|p| p == part))))
}

/// Every function that carries `#[test]`.
fn tests(tree: &Tree) -> Tests {
    let mut tests = Tests::new();
    for file in tree.rust_files() {
        let lines = lines(&file.text);
        let tokens = tokens(&lines);
        let mut path: Vec<String> =
            file.path.trim_end_matches(".rs").split('/').map(str::to_string).collect();
        let mut depth = 0usize;
        let mut inline_depths = Vec::new();
        let mut is_test = false;
        for (i, token) in tokens.iter().enumerate() {
            let next = |k: usize| tokens.get(i + k).map_or("", |token| token.text);
            match token.text {
                "[" if next(1) == "test" && next(2) == "]" => is_test = true,
                "mod" if next(2) == "{" => {
                    path.push(next(1).into());
                    inline_depths.push(depth);
                }
                "fn" if is_test => {
                    tests.entry(next(1).into()).or_default().push(path.clone());
                    is_test = false;
                }
                "{" => depth += 1,
                "}" => {
                    depth = depth.saturating_sub(1);
                    if inline_depths.last() == Some(&depth) {
                        inline_depths.pop();
                        path.pop();
                    }
                }
                _ => {}
            }
        }
    }
    tests
}

#[cfg(test)]
mod tests {
    use super::super::{Tree, check};

    const SOURCE: &str = "//! A file.\n#[cfg(test)]\nmod tests {\n    #[test]\n    #[should_panic]\n    fn cut() {}\n\n    fn helper() {}\n}\n";

    fn wrong(hazards: &str) -> Vec<(usize, String)> {
        let tree = Tree::of(&[("docs/hazards.md", hazards), ("betree/src/log/tail.rs", SOURCE)]);
        let findings = check(&tree);
        assert!(findings.iter().all(|finding| finding.rule == "hazards"), "{findings:?}");
        findings.into_iter().map(|finding| (finding.line, finding.what)).collect()
    }

    fn table(cell: &str) -> String {
        format!("# Hazards\n\n| Loss | Cause | Test |\n|---|---|---|\n| a key | a torn tail | {cell} |\n")
    }

    #[test]
    fn tests_that_exist_pass() {
        for cell in ["`cut`", "`cut()`", "`tail::tests::cut`", "`log::tail::tests::cut` and `cut`"] {
            assert_eq!(wrong(&table(cell)), [], "{cell}");
        }
        assert_eq!(check(&Tree::of(&[("docs/tuning.md", "")])), [], "no hazards.md, nothing to say");
    }

    #[test]
    fn missing_tests_are_found() {
        for (cell, name) in
            [("`cut_off`", "cut_off"), ("`helper`", "helper"), ("`cut`, `pool::cut`", "pool::cut")]
        {
            assert_eq!(wrong(&table(cell)), [(5, format!("the test `{name}` does not exist"))], "{cell}");
        }
        assert_eq!(wrong(&table("none yet")), [(5, "a row without a test".to_string())]);
        assert_eq!(wrong("# Hazards\n"), [(1, "no table with a column \"Test\"".to_string())]);
        let tree =
            Tree::of(&[("docs/testing.md", &table("`cut`")), ("betree/src/log/tail.rs", "//! A file.\n")]);
        let findings = check(&tree);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!((findings[0].path.as_str(), findings[0].line), ("docs/testing.md", 5));
    }
}
