//! Nothing that only makes sense on somebody's own machine.

use super::{Finding, Tree};

/// Beginnings of paths on a developer's machine, in two halves, so that this file does not name them itself.
const PATHS: &[[&str; 2]] =
    &[["/ho", "me/"], ["/ro", "ot/"], ["/Us", "ers/"], ["/wo", "rk/"], ["/tmp", "/h/"], ["C:\\", "Users"]];

/// Reports the lines of `tree` that name one of [`PATHS`].
pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let paths: Vec<String> = PATHS.iter().map(|halves| halves.concat()).collect();
    for file in tree.files() {
        for (index, line) in file.text.lines().enumerate() {
            for path in
                paths.iter().filter(|path| line.match_indices(path.as_str()).any(|(at, _)| starts(line, at)))
            {
                findings.push(Finding {
                    path: file.path.clone(),
                    line: index + 1,
                    rule: "words",
                    what: format!("names {path}, a path of somebody's machine"),
                });
            }
        }
    }
}

/// Whether a path starts at byte `at` of `line`, rather than going on there (`crates/home/x`).
fn starts(line: &str, at: usize) -> bool {
    !line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || ".-_".contains(c))
}

#[cfg(test)]
mod tests {
    use super::super::{Tree, check};

    #[test]
    fn paths_of_a_machine_are_found_in_any_file() {
        for file in ["docs/tuning.md", "scripts/bench", "betree/include/betree.h", "Cargo.toml"] {
            for halves in super::PATHS {
                let text = format!("fine\nsee {}x\nalso fine", halves.concat());
                let found = check(&Tree::of(&[(file, &text)]));
                assert_eq!(found.len(), 1, "{file}: {text}");
                assert_eq!((found[0].rule, found[0].line), ("words", 2));
            }
        }
    }

    #[test]
    fn other_paths_are_fine() {
        let within = super::PATHS.iter().map(|halves| format!("frame{}x", halves.concat()));
        let others = ["/var/pool.img", "https://example.org/homepage", "./home/x"].map(str::to_owned);
        for text in within.chain(others) {
            assert_eq!(check(&Tree::of(&[("docs/tuning.md", &text)])), [], "{text}");
        }
    }
}
