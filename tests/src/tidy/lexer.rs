//! Splits Rust source into code and comments.
//!
//! Literals keep their quotes and lose their text, so that a rule never mistakes a string for code.

/// What a comment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `//` or `/* */`.
    Plain,
    /// `///` or `/** */`.
    Outer,
    /// `//!` or `/*! */`.
    Inner,
}

/// One line of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// The code, without comments, the text of literals blanked out.
    pub code: String,
    /// The comment on this line, without its slashes.
    pub comment: Option<(Kind, String)>,
}

/// A token of code: a word, `::`, or one other character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token<'a> {
    /// The characters.
    pub text: &'a str,
    /// Line, from 1.
    pub line: usize,
}

enum State {
    Code,
    LineComment,
    /// Depth of nesting and kind.
    BlockComment(usize, Kind),
    Text,
    /// Number of `#`.
    RawText(usize),
}

/// The lines of `text`.
pub fn lines(text: &str) -> Vec<Line> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut lines = Vec::new();
    let mut line = Line::default();
    let mut state = State::Code;
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        if c == '\n' {
            lines.push(std::mem::take(&mut line));
            match state {
                State::LineComment => state = State::Code,
                State::BlockComment(_, kind) => line.comment = Some((kind, String::new())),
                _ => {}
            }
            i += 1;
            continue;
        }
        match state {
            State::Code => match (c, at(i + 1)) {
                ('/', '/') => {
                    let (kind, skip) = match (at(i + 2), at(i + 3)) {
                        ('/', '/') => (Kind::Plain, 2),
                        ('/', _) => (Kind::Outer, 3),
                        ('!', _) => (Kind::Inner, 3),
                        _ => (Kind::Plain, 2),
                    };
                    line.comment = Some((kind, String::new()));
                    state = State::LineComment;
                    i += skip;
                }
                ('/', '*') => {
                    let (kind, skip) = match (at(i + 2), at(i + 3)) {
                        ('*', '*' | '/') => (Kind::Plain, 2),
                        ('*', _) => (Kind::Outer, 3),
                        ('!', _) => (Kind::Inner, 3),
                        _ => (Kind::Plain, 2),
                    };
                    line.comment = Some((kind, String::new()));
                    state = State::BlockComment(1, kind);
                    i += skip;
                }
                ('"', _) => {
                    line.code.push('"');
                    state = State::Text;
                    i += 1;
                }
                ('r', '"' | '#') if !ends_in_raw_blocker(&line.code) => {
                    let hashes = (i + 1..).take_while(|&j| at(j) == '#').count();
                    if at(i + 1 + hashes) == '"' {
                        line.code.push('"');
                        state = State::RawText(hashes);
                        i += 2 + hashes;
                    } else {
                        line.code.push(c);
                        i += 1;
                    }
                }
                ('\'', '\\') => {
                    line.code.push_str("''");
                    // The escaped character itself may be a quote.
                    i += 3;
                    while i < chars.len() && at(i) != '\'' && at(i) != '\n' {
                        i += 1;
                    }
                    i += usize::from(at(i) == '\'');
                }
                ('\'', next) if at(i + 2) == '\'' && next != '\'' => {
                    line.code.push_str("''");
                    i += 3;
                }
                _ => {
                    line.code.push(c);
                    i += 1;
                }
            },
            State::LineComment => {
                push_comment(&mut line, c);
                i += 1;
            }
            State::BlockComment(depth, kind) => match (c, at(i + 1)) {
                ('/', '*') => {
                    state = State::BlockComment(depth + 1, kind);
                    i += 2;
                }
                ('*', '/') => {
                    state = if depth == 1 { State::Code } else { State::BlockComment(depth - 1, kind) };
                    i += 2;
                }
                _ => {
                    push_comment(&mut line, c);
                    i += 1;
                }
            },
            State::Text => match c {
                '\\' => i += if at(i + 1) == '\n' { 1 } else { 2 },
                '"' => {
                    line.code.push('"');
                    state = State::Code;
                    i += 1;
                }
                _ => i += 1,
            },
            State::RawText(hashes) => {
                if c == '"' && (1..=hashes).all(|k| at(i + k) == '#') {
                    line.code.push('"');
                    state = State::Code;
                    i += 1 + hashes;
                } else {
                    i += 1;
                }
            }
        }
    }
    if line != Line::default() {
        lines.push(line);
    }
    lines
}

/// Whether an `r` behind `code` belongs to a longer word; the `b` and `c` of `br"` and `cr"` do not count.
fn ends_in_raw_blocker(code: &str) -> bool {
    let mut back = code.chars().rev();
    match back.next() {
        Some('b' | 'c') => back.next().is_some_and(is_word),
        Some(last) => is_word(last),
        None => false,
    }
}

fn push_comment(line: &mut Line, c: char) {
    if let Some((_, text)) = &mut line.comment {
        text.push(c);
    }
}

/// Whether `c` can be part of a word.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The tokens of the code in `lines`.
pub fn tokens(lines: &[Line]) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let mut rest = line.code.trim_start();
        while let Some(first) = rest.chars().next() {
            let len = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (text, behind) = rest.split_at(len);
            tokens.push(Token { text, line: index + 1 });
            rest = behind.trim_start();
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        lines(text).into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn literals_are_blanked() {
        for (text, expected) in [
            (r#"a("x // y", b"z");"#, r#"a("", b"");"#),
            (r##"a(r#"x " y"#, br"\", c);"##, r#"a("", b"", c);"#),
            (r#"a("\"", '"', '\'', '\u{1F600}', b'\\');"#, "a(\"\", '', '', '', b'');"),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("let var\"\" = r#type;", "let var\"\" = r#type;"),
        ] {
            assert_eq!(code(text), [expected], "{text}");
        }
    }

    #[test]
    fn literals_over_lines_keep_the_line_numbers() {
        assert_eq!(code("a(\"x\n  y\\\n z\n\"); b"), ["a(\"", "", "", "\"); b"]);
        assert_eq!(code("a(r\"x\n\\\"); b"), ["a(\"", "\"); b"]);
    }

    #[test]
    fn comments_know_their_kind() {
        let kinds: Vec<_> =
            lines("//! a\n/// b\n// c\n//// d\nx /* e /* f */ g\nh */ y\n/*! i */\n/** j */\n/**/ z")
                .into_iter()
                .map(|line| (line.code, line.comment))
                .collect();
        let comment = |kind, text: &str| Some((kind, text.to_string()));
        assert_eq!(
            kinds,
            [
                (String::new(), comment(Kind::Inner, " a")),
                (String::new(), comment(Kind::Outer, " b")),
                (String::new(), comment(Kind::Plain, " c")),
                (String::new(), comment(Kind::Plain, "// d")),
                ("x ".into(), comment(Kind::Plain, " e  f  g")),
                (" y".into(), comment(Kind::Plain, "h ")),
                (String::new(), comment(Kind::Inner, " i ")),
                (String::new(), comment(Kind::Outer, " j ")),
                (" z".into(), comment(Kind::Plain, "")),
            ]
        );
    }

    #[test]
    fn tokens_keep_paths_together() {
        let lines = lines("use a::{b, c_1};\nx!()");
        let found: Vec<_> = tokens(&lines).into_iter().map(|token| (token.text, token.line)).collect();
        assert_eq!(
            found,
            [
                ("use", 1),
                ("a", 1),
                ("::", 1),
                ("{", 1),
                ("b", 1),
                (",", 1),
                ("c_1", 1),
                ("}", 1),
                (";", 1),
                ("x", 2),
                ("!", 2),
                ("(", 2),
                (")", 2),
            ]
        );
    }

    /// Whatever the text, cut anywhere: no panic, and no more lines than the text has.
    #[test]
    fn any_cut_is_lexed() {
        let text = "a(r##\"b\"##, '\\'', /* c */ \"d\\\"\") // e\n'x' b'\\\\' 'l";
        for end in 0..=text.len() {
            assert!(lines(&text[..end]).len() <= 2, "{end}");
        }
    }
}
