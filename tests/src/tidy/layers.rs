//! An import runs downward, from a layer to those below it.
//!
//! Every path that starts at the crate root is looked at, in a `use` or not, also when it gets there by `super`.

use super::lexer::{Line, Token, tokens};
use super::{File, Finding};

/// The layers, lowest first; the modules of one row may use each other.
const LAYERS: &[&[&str]] = &[
    &["base"],
    &["vdev"],
    &["pool"],
    &["dmu"],
    &["run"],
    &["tree"],
    &["log"],
    &["database"],
    &["object"],
    &["migration"],
    &["inspect", "capi", "metrics"],
];

/// Where the library's sources lie.
const SOURCES: &str = "betree/src/";

/// The row of `module`.
fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// Reports the paths in `file` that lead upward.
pub fn check(file: &File, lines: &[Line], findings: &mut Vec<Finding>) {
    let Some(path) = file.path.strip_prefix(SOURCES).and_then(|path| path.strip_suffix(".rs")) else {
        return;
    };
    let mut module: Vec<&str> = path.split('/').filter(|part| *part != "mod").collect();
    if module == ["lib"] {
        return;
    }
    let own = module[0];
    let mut report = |line: usize, what: String| {
        findings.push(Finding { path: file.path.clone(), line, rule: "layers", what });
    };
    let Some(own_rank) = rank(own) else {
        report(1, format!("module `{own}` has no place in the order of the layers"));
        return;
    };
    for (line, target) in root_paths(&tokens(lines), &mut module) {
        match rank(target) {
            Some(rank) if rank <= own_rank => {}
            Some(_) => report(line, format!("`{own}` uses `{target}`, a layer above it")),
            // What the crate root exports comes from every layer, so only the topmost may take it from there.
            None if own_rank + 1 == LAYERS.len() => {}
            None => report(
                line,
                format!("`{own}` uses `{target}` from the crate root: name the layer it is from"),
            ),
        }
    }
}

/// Line and first name of every path that starts at the crate root. `module` is the path of the file's module;
/// inline modules are pushed on it on the way.
fn root_paths<'a>(tokens: &[Token<'a>], module: &mut Vec<&'a str>) -> Vec<(usize, &'a str)> {
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text);
    let mut found = Vec::new();
    let mut depth = 0usize;
    let mut inline_depths = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        match text(i) {
            "mod" if text(i + 2) == "{" => {
                module.push(tokens[i + 1].text);
                inline_depths.push(depth);
                i += 1;
            }
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if inline_depths.last() == Some(&depth) {
                    inline_depths.pop();
                    module.pop();
                }
            }
            "crate" if text(i + 1) == "::" => first_names(tokens, i + 2, &mut found),
            "super" if i == 0 || text(i - 1) != "::" => {
                let mut climbed = 1;
                while text(i + 1) == "::" && text(i + 2) == "super" {
                    climbed += 1;
                    i += 2;
                }
                if climbed >= module.len() && text(i + 1) == "::" {
                    first_names(tokens, i + 2, &mut found);
                }
            }
            _ => {}
        }
        i += 1;
    }
    found
}

/// The name at token `at`, or the first names of each path in the group that opens there.
fn first_names<'a>(tokens: &[Token<'a>], at: usize, found: &mut Vec<(usize, &'a str)>) {
    let Some(first) = tokens.get(at) else { return };
    if first.text != "{" {
        found.push((first.line, first.text));
        return;
    }
    let mut depth = 0usize;
    let mut starts = false;
    for token in &tokens[at..] {
        match token.text {
            "{" => {
                depth += 1;
                starts = depth == 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return;
                }
            }
            "," if depth == 1 => starts = true,
            name if starts => {
                found.push((token.line, name));
                starts = false;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules_broken;

    /// The lines on which `code`, put behind a doc line into the file at `path`, leads upward.
    fn upward(path: &str, code: &str) -> Vec<usize> {
        let broken = rules_broken(path, &format!("//! A file.\n{code}\n"));
        assert!(broken.iter().all(|(rule, _)| *rule == "layers"), "{broken:?}");
        broken.into_iter().map(|(_, line)| line).collect()
    }

    #[test]
    fn downward_and_sideways_is_fine() {
        for code in [
            "use crate::base::units::Bytes;",
            "use crate::{base::ids, vdev::{device, memory}, pool::Pool};",
            "use super::{error, node::Node};",
            "fn f() -> crate::run::Run { crate::tree::g() }",
            "pub(crate) fn f() {}",
            "pub(in crate::tree) fn f() {}",
            "/// As [`crate::database::Database`] does.\nfn f() {}",
            "const TEXT: &str = \"use crate::database::Database;\";",
            "#[cfg(test)]\nmod tests { use super::super::node::Node; }",
        ] {
            assert_eq!(upward("betree/src/tree/flush.rs", code), Vec::<usize>::new(), "{code}");
        }
    }

    #[test]
    fn upward_is_found_in_every_shape() {
        for code in [
            "use crate::database::Database;",
            "pub use crate::log::Log;",
            "use crate::{base::ids, object::Store};",
            "use crate::{\n    base::{ids, units}, log::Log};",
            "fn f() { let _ = crate::migration::plan(); }",
            "use super::super::database::Database;",
            "use super::super::{base::ids, database::Database};",
            "mod inner { mod deeper { use super::super::super::super::log::Log; } }",
            "mod a { } mod b { use super::super::super::log::Log; }",
        ] {
            assert_eq!(upward("betree/src/tree/flush.rs", code).len(), 1, "{code}");
        }
        assert_eq!(upward("betree/src/vdev/mod.rs", "use super::pool::Pool;"), [2]);
        assert_eq!(
            upward("betree/src/base/units.rs", "use crate::vdev::Device;\nuse crate::pool::Pool;"),
            [2, 3]
        );
    }

    #[test]
    fn the_crate_root_is_above_all_but_the_topmost_row() {
        assert_eq!(upward("betree/src/tree/flush.rs", "use crate::Database;"), [2]);
        assert_eq!(
            upward("betree/src/capi/mod.rs", "use crate::{Database, inspect::Dump};"),
            Vec::<usize>::new()
        );
        assert_eq!(upward("betree/src/lib.rs", "pub use crate::database::Database;"), Vec::<usize>::new());
    }

    #[test]
    fn a_module_outside_the_order_is_found() {
        assert_eq!(upward("betree/src/utils/mod.rs", "use std::fmt;"), [1]);
        assert_eq!(upward("bectl/src/utils/mod.rs", "use crate::anything::at_all;"), Vec::<usize>::new());
    }
}
