//! A file of frozen bytes starts with the table of these bytes.

use super::lexer::{Kind, Line};
use super::{File, Finding};

/// What the heading of the table must name, each in a column of its own or together with its neighbour
/// ("unit, meaning").
const COLUMNS: &[&str] = &["offset", "bytes", "field", "unit", "meaning", "threat"];

/// Reports a `format.rs` whose leading doc holds no layout table, or an empty one.
pub fn check(file: &File, lines: &[Line], findings: &mut Vec<Finding>) {
    if file.path.rsplit('/').next() != Some("format.rs") {
        return;
    }
    let doc: Vec<&str> = lines
        .iter()
        .filter_map(|line| match &line.comment {
            Some((Kind::Inner, text)) => Some(text.trim()),
            _ => None,
        })
        .collect();
    let what = match doc.iter().position(|row| is_heading(row)) {
        None => format!("no layout table with the columns {}", COLUMNS.join(", ")),
        // Behind the heading stands the rule line, behind that the first row.
        Some(heading) if !doc.get(heading + 2).is_some_and(|row| row.starts_with('|')) => {
            "the layout table has no rows".into()
        }
        Some(_) => return,
    };
    findings.push(Finding { path: file.path.clone(), line: 1, rule: "layout", what });
}

/// Whether `row` heads a table with all of [`COLUMNS`].
fn is_heading(row: &str) -> bool {
    let row = row.to_lowercase();
    let words: Vec<&str> = row.split(|c: char| !c.is_alphanumeric()).collect();
    row.starts_with('|') && COLUMNS.iter().all(|column| words.contains(column))
}

#[cfg(test)]
mod tests {
    use super::super::rules_broken;

    const HEADING: &str = "//! | Offset | Bytes | Field | Unit | Meaning | Threat guarded |\n";
    const RULE: &str = "//! |---|---|---|---|---|---|\n";
    const ROW: &str = "//! | 0 | 8 | magic | | `BETREE01` | a foreign disk |\n";

    #[test]
    fn the_table_must_be_there_with_rows() {
        for (text, missing) in [
            (format!("//! Bytes.\n//!\n{HEADING}{RULE}{ROW}"), false),
            (
                format!("//! Bytes.\n//!\n{}{RULE}{ROW}", HEADING.replace("Unit | Meaning", "Unit, meaning")),
                false,
            ),
            (format!("//! Bytes.\n//!\n{}{RULE}{ROW}", HEADING.replace("| Unit", "| Units")), true),
            (format!("//! Bytes.\n//!\n{HEADING}{RULE}"), true),
            ("//! Bytes.\n".to_string(), true),
            (format!("//! Bytes.\n//!\n{}{RULE}{ROW}", HEADING.replace("Threat", "Thread")), true),
            (format!("//! Bytes.\n{}{}{}", HEADING, RULE, ROW).replace("//! |", "// |"), true),
        ] {
            let expected: &[_] = if missing { &[("layout", 1)] } else { &[] };
            assert_eq!(rules_broken("betree/src/run/format.rs", &text), expected, "{text}");
            assert_eq!(rules_broken("betree/src/run/block.rs", &text), [], "only format.rs: {text}");
        }
    }
}
