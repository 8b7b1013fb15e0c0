//! Links between the documents, and from the sources to them, point at something.
//!
//! Looked at: `[text](path#heading)` and `[label]: path` in Markdown, mdBook's `{{#include path:anchor}}`, and every
//! mention of `docs/….md` in a Rust file. Links to other sites are not followed.

use super::{File, Finding, Tree};

/// Reports the links in `tree` that point nowhere.
pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in tree.files() {
        let links = match () {
            () if file.has_extension("md") => markdown_links(&file.text),
            () if file.has_extension("rs") => mentions(&file.text),
            () => continue,
        };
        for (line, link) in links {
            if let Err(why) = resolve(tree, file, &link) {
                findings.push(Finding { path: file.path.clone(), line, rule: "links", what: why });
            }
        }
    }
}

/// Where a link leads.
#[derive(Debug, PartialEq, Eq)]
enum Link {
    /// Relative to the file, with the heading behind `#`.
    Document(String, Option<String>),
    /// Relative to the file, with mdBook's anchor or line range behind `:`.
    Include(String, Option<String>),
    /// From the root.
    Mention(String),
}

/// Says why `link` in `file` points nowhere.
fn resolve(tree: &Tree, file: &File, link: &Link) -> Result<(), String> {
    let find = |path: &str| {
        let full = join(&file.path, path).ok_or_else(|| format!("{path} leads out of the tree"))?;
        if tree.exists(&full) { Ok(full) } else { Err(format!("{path} does not exist")) }
    };
    match link {
        Link::Mention(path) if tree.exists(path) => Ok(()),
        Link::Mention(path) => Err(format!("{path} does not exist")),
        Link::Document(path, heading) => {
            let full = if path.is_empty() { file.path.clone() } else { find(path)? };
            let (Some(heading), Some(target)) = (heading, tree.file(&full)) else { return Ok(()) };
            if !target.has_extension("md") || headings(&target.text).contains(heading) {
                return Ok(());
            }
            Err(format!("{full} has no heading #{heading}"))
        }
        Link::Include(path, anchor) => {
            let full = find(path)?;
            let Some(anchor) =
                anchor.as_deref().filter(|anchor| !anchor.starts_with(|c: char| c.is_ascii_digit()))
            else {
                return Ok(());
            };
            let mark = format!("ANCHOR: {anchor}");
            let named = |target: &File| target.text.lines().any(|line| line.trim_end().ends_with(&mark));
            if tree.file(&full).is_some_and(named) {
                Ok(())
            } else {
                Err(format!("{full} has no anchor {anchor}"))
            }
        }
    }
}

/// `path` as seen from the folder of `file`; `None` when it leaves the tree.
fn join(file: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Line and target of the links in a Markdown text, outside of code.
fn markdown_links(text: &str) -> Vec<(usize, Link)> {
    let mut links = Vec::new();
    let mut fence = None;
    for (index, line) in text.lines().enumerate() {
        // An include works inside of a code block too: that is where it is used.
        for (at, open) in line.match_indices("{{#include ") {
            let target = line[at + open.len()..].split("}}").next().unwrap_or("").trim();
            let (path, anchor) = split_at_mark(target, ':');
            links.push((index + 1, Link::Include(path, anchor)));
        }
        if is_fence(line, &mut fence) {
            continue;
        }
        let line = without_code_spans(line);
        let mut targets: Vec<&str> =
            line.match_indices("](").map(|(at, open)| up_to_closing(&line[at + open.len()..])).collect();
        if let Some((label, target)) =
            line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: "))
        {
            // A footnote's text is prose, not a target.
            if !label.starts_with('^') && !label.contains(']') {
                targets.push(target.trim());
            }
        }
        for target in targets {
            let target = target.trim_start_matches('<').split(['>', ' ']).next().unwrap_or("");
            let scheme = target.split_once(':').is_some_and(|(scheme, _)| !scheme.contains(['/', '#', '.']));
            if !scheme {
                let (path, heading) = split_at_mark(target, '#');
                links.push((index + 1, Link::Document(path, heading)));
            }
        }
    }
    links
}

/// Whether `line` is a fence or lies between two; `fence` carries the open one along.
fn is_fence(line: &str, fence: &mut Option<&'static str>) -> bool {
    let line = line.trim_start();
    match fence {
        Some(open) => {
            if line.starts_with(*open) {
                *fence = None;
            }
            true
        }
        None => {
            *fence = ["```", "~~~"].into_iter().find(|mark| line.starts_with(mark));
            fence.is_some()
        }
    }
}

/// `line` without what stands between backticks.
fn without_code_spans(line: &str) -> String {
    if line.matches('`').count() % 2 == 1 {
        return line.replace('`', "");
    }
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// The part of `text` before the parenthesis that closes one opened before it.
fn up_to_closing(text: &str) -> &str {
    let mut open = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => open += 1,
            ')' if open == 0 => return &text[..at],
            ')' => open -= 1,
            _ => {}
        }
    }
    text
}

fn split_at_mark(target: &str, mark: char) -> (String, Option<String>) {
    match target.split_once(mark) {
        Some((path, behind)) => (path.into(), Some(behind.into())),
        None => (target.into(), None),
    }
}

/// The anchors of the headings of a Markdown text, as mdBook and GitHub make them.
fn headings(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    let mut fence = None;
    for line in text.lines() {
        if is_fence(line, &mut fence) || !line.starts_with('#') {
            continue;
        }
        let title = line.trim_start_matches('#');
        if !title.starts_with(' ') {
            continue;
        }
        let anchor: String = title
            .trim()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
                _ => None,
            })
            .collect();
        let same = anchors.iter().filter(|a| **a == anchor).count();
        anchors.push(if same == 0 { anchor } else { format!("{anchor}-{same}") });
    }
    anchors
}

/// Line and path of every `docs/….md` that a Rust file mentions in its comments; literals do not count.
fn mentions(text: &str) -> Vec<(usize, Link)> {
    let mut found = Vec::new();
    for (index, line) in super::lexer::lines(text).iter().enumerate() {
        let Some((_, comment)) = &line.comment else { continue };
        for (at, _) in comment.match_indices("docs/") {
            let rest = &comment[at..];
            let end = rest.find(|c: char| !(c.is_alphanumeric() || "/._-".contains(c))).unwrap_or(rest.len());
            let path = rest[..end].trim_end_matches('.');
            // `docs/` inside of a longer word or an address is another place.
            let whole = !comment[..at].ends_with(|c: char| c.is_alphanumeric() || "/.-_".contains(c));
            if whole && path.ends_with(".md") {
                found.push((index + 1, Link::Mention(path.into())));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::{Tree, check};

    /// What is wrong with the links of `text` as the document `a`, beside some others.
    fn wrong(text: &str) -> Vec<String> {
        let tree = Tree::of(&[
            ("README.md", "# Top\n"),
            ("docs/a.md", text),
            ("docs/b.md", "# One\n## Two: the `x`\n### one\n```\n# not one\n```\n"),
            ("docs/format/run.md", ""),
            ("docs/picture.svg", ""),
            (
                "betree/src/run/format.rs",
                "//! A file.\n// ANCHOR: layout\n//! | Offset | Bytes | Field | Unit | Meaning | Threat |\n//! |---|\n//! | 0 |\n// ANCHOR_END: layout\n",
            ),
        ]);
        check(&tree).into_iter().map(|finding| format!("{}: {}", finding.rule, finding.what)).collect()
    }

    #[test]
    fn good_links_pass() {
        for text in [
            "[b](b.md) [b](./b.md#one) ![p](picture.svg) [top](../README.md#top) [f](format/) [f](<format/run.md>)",
            "[b](b.md#two-the-x) [b](b.md#one-1) [b](b.md \"title\")",
            "[out](https://example.org/a.md) [mail](mailto:a@b.c)",
            "`[x](nowhere.md)` and [b](b.md)",
            "```\n[x](nowhere.md)\n```\n[b](b.md)",
            "# Here\n[here](#here)",
            "[b]\n\n[b]: b.md#one",
            "[^1]: prose about it",
            "```\n{{#include ../betree/src/run/format.rs:layout}}\n{{#include b.md:1:2}}\n```",
        ] {
            assert_eq!(wrong(text), [] as [String; 0], "{text}");
        }
    }

    #[test]
    fn links_to_nowhere_are_found() {
        for (text, expected) in [
            ("[x](nowhere.md)", "links: nowhere.md does not exist"),
            ("[x](../docs/nowhere.md#one)", "links: ../docs/nowhere.md does not exist"),
            ("[x](b.md#three)", "links: docs/b.md has no heading #three"),
            ("[x](b.md#not-one)", "links: docs/b.md has no heading #not-one"),
            ("[x](#three)", "links: docs/a.md has no heading #three"),
            ("[x](../../other/README.md)", "links: ../../other/README.md leads out of the tree"),
            ("![x](picture.png)", "links: picture.png does not exist"),
            ("[x]: nowhere.md", "links: nowhere.md does not exist"),
            ("{{#include ../betree/src/run/gone.rs}}", "links: ../betree/src/run/gone.rs does not exist"),
            (
                "{{#include ../betree/src/run/format.rs:history}}",
                "links: betree/src/run/format.rs has no anchor history",
            ),
        ] {
            assert_eq!(wrong(text), [expected], "{text}");
        }
    }

    #[test]
    fn mentions_in_sources_must_exist() {
        let found = |comment: &str| {
            let text = format!("//! A file.\n//! {comment}\nconst A: &str = \"docs/gone.md\";\n");
            let tree = Tree::of(&[("betree/src/run/block.rs", &text), ("docs/b.md", "")]);
            check(&tree).into_iter().map(|finding| (finding.rule, finding.line)).collect::<Vec<_>>()
        };
        assert_eq!(found("See docs/b.md."), []);
        assert_eq!(found("See docs/gone.md."), [("links", 2)]);
        assert_eq!(found("See https://example.org/docs/gone.md and other-docs/gone.md."), []);
    }
}
