//! Nothing unfinished, nothing commented out, and every file says what it is.

use super::lexer::{Kind, Line, tokens};
use super::{File, Finding};

/// Macros that mark a stub or a debug print.
const MACROS: &[&str] = &["todo", "unimplemented", "dbg"];

/// Words in comments that put work off.
const MARKS: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

/// Reports what was left over in `file`.
pub fn check(file: &File, lines: &[Line], findings: &mut Vec<Finding>) {
    let mut report = |line: usize, rule: &'static str, what: String| {
        findings.push(Finding { path: file.path.clone(), line, rule, what });
    };
    if !says_what_it_is(lines) {
        report(1, "doc", "the file does not start with a `//!` that says what it is".into());
    }
    let tokens = tokens(lines);
    for pair in tokens.windows(2) {
        if pair[1].text == "!" && MACROS.contains(&pair[0].text) {
            report(pair[0].line, "stub", format!("`{}!`", pair[0].text));
        }
    }
    for (index, line) in lines.iter().enumerate() {
        let Some((kind, text)) = &line.comment else { continue };
        let mut words = text.split(|c: char| !c.is_alphanumeric());
        if let Some(mark) = words.find(|word| MARKS.contains(word)) {
            report(index + 1, "stub", format!("{mark} in a comment"));
        }
        if *kind == Kind::Plain && looks_like_code(text.trim()) {
            report(index + 1, "commented-out", format!("looks like code: {}", text.trim()));
        }
    }
}

/// Whether the first thing behind attributes and blank lines is a `//!`.
fn says_what_it_is(lines: &[Line]) -> bool {
    lines
        .iter()
        .find(|line| line.comment.is_some() || !(line.code.trim().is_empty() || line.code.starts_with("#!")))
        .is_some_and(|line| matches!(&line.comment, Some((Kind::Inner, text)) if !text.trim().is_empty()))
}

/// Whether the text of a comment reads as a line of Rust rather than as prose, which may well end in `;` or quote
/// a call. A line counts when its start and its end are both those of code.
fn looks_like_code(text: &str) -> bool {
    // Rustfmt and clippy want these as they are.
    if text.starts_with("SAFETY:") || text.starts_with("ANCHOR") {
        return false;
    }
    if !text.is_empty() && text.chars().all(|c| "{}()[];,".contains(c)) {
        return true;
    }
    if text.starts_with("#[") || text.starts_with("#![") {
        return text.ends_with(']');
    }
    let Some(end) = text.chars().last() else { return false };
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or("");
    let starts_item = match first {
        "let" => text.contains(" = "),
        "use" => text.contains("::"),
        "return" | "break" | "continue" => {
            end != '{' && (text.contains('(') || text.split_whitespace().count() <= 2)
        }
        "pub" | "fn" | "impl" | "struct" | "enum" | "mod" | "const" | "static" | "return;" | "break;"
        | "continue;" => true,
        _ => false,
    };
    let starts_block = matches!(first, "if" | "for" | "while" | "match" | "loop" | "else" | "}");
    match end {
        ';' => starts_item || is_statement(text.trim_end_matches(';')),
        '{' => starts_item || starts_block || first.starts_with('}') || text.contains("=> {"),
        ',' => text.contains(" => ") && !text.contains(". "),
        _ => false,
    }
}

/// Whether `text` is one assignment, call or macro call: `a.b = c`, `a::b(c)?`, `c!(d)`.
fn is_statement(text: &str) -> bool {
    let place = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "_.:*&[]()?!<>".contains(c))
    };
    if let Some((left, _)) = text.split_once(" = ").or_else(|| text.split_once(" += ")) {
        return place(left);
    }
    let Some(open) = text.find(['(', '[']) else { return false };
    let mut depth = 0usize;
    let close = text.char_indices().skip_while(|(at, _)| *at < open).find(|(_, c)| {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    });
    // Prose goes on behind the parenthesis, a statement with the next call at most.
    let rest = close.map_or(text, |(at, _)| &text[at + 1..]);
    place(&text[..open]) && (rest.is_empty() || rest.starts_with(['.', '?']))
}

#[cfg(test)]
mod tests {
    use super::super::rules_broken;

    fn broken(code: &str) -> Vec<(&'static str, usize)> {
        rules_broken("bectl/src/main.rs", &format!("//! A file.\n{code}\n"))
    }

    #[test]
    fn stubs_are_found() {
        for name in ["todo", "unimplemented", "dbg"] {
            assert_eq!(broken(&format!("fn f() {{ {name}!(); }}")), [("stub", 2)], "{name}");
            assert_eq!(broken(&format!("fn f() {{ g(\"{name}!()\"); }}\n/// `{name}!()`\nfn h() {{}}")), []);
        }
        for mark in ["TODO", "FIXME", "XXX"] {
            assert_eq!(broken(&format!("fn f() {{}} // {mark}: later")), [("stub", 2)], "{mark}");
            assert_eq!(broken(&format!("/// {mark}(somebody)\nfn f() {{}}")), [("stub", 2)], "{mark}");
        }
        assert_eq!(broken("fn todo() {} fn f() { if !todo() {} }"), []);
    }

    #[test]
    fn commented_out_code_is_found() {
        for code in [
            "let x = 1;",
            "use std::fmt;",
            "pub fn f() {",
            "return Err(Error::Closed);",
            "continue;",
            "pool.sync()?;",
            "pool.leg(3).flush(a, (b))?;",
            "self.count += 1;",
            "self.parts[3] = None;",
            "assert_eq!(a, b);",
            "if a < b {",
            "} else {",
            "}",
            "});",
            "#[inline]",
            "Some(x) => y(x),",
            "None => {",
        ] {
            assert_eq!(broken(&format!("fn f() {{\n    // {code}\n}}")), [("commented-out", 3)], "{code}");
            assert_eq!(broken(&format!("/*\n{code}\n*/")), [("commented-out", 3)], "{code}");
            assert_eq!(broken(&format!("/// ```\n/// {code}\n/// ```\nfn f() {{}}")), [], "{code}");
        }
    }

    #[test]
    fn prose_is_not_code() {
        for prose in [
            "The superblock goes last;",
            "flush() comes first (rule 4);",
            "if the leg is stale, its copy is skipped",
            "let the caller decide: it knows the tier;",
            "for each leg, in order",
            "SAFETY: the pointer comes from `alloc`;",
            "0x1000 is the first block, see `format.rs`",
            "use the log of the fastest tier;",
            "a => b",
        ] {
            assert_eq!(broken(&format!("// {prose}")), [], "{prose}");
        }
    }

    #[test]
    fn a_file_says_what_it_is() {
        for (text, missing) in [
            ("//! A file.\n", false),
            ("#![no_main]\n//! A target.\n", false),
            ("\n//! A file.\n", false),
            ("fn f() {}\n", true),
            ("// A file.\nfn f() {}\n", true),
            ("//!\nfn f() {}\n", true),
            ("use std::fmt;\n//! Late.\n", true),
            ("", true),
        ] {
            let expected: &[_] = if missing { &[("doc", 1)] } else { &[] };
            assert_eq!(rules_broken("bectl/src/main.rs", text), expected, "{text}");
        }
    }
}
