//! The sources as they stand keep the rules.

use betree_tests::tidy::{Tree, check};
use std::path::Path;

/// The folder that holds the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies inside the workspace")
}

#[test]
fn sources_are_tidy() {
    let tree = Tree::load(root()).unwrap();
    let findings = check(&tree);
    assert!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    );
}

/// A walk that missed the library would find nothing wrong in it.
#[test]
fn the_walk_sees_the_library() {
    let tree = Tree::load(root()).unwrap();
    for path in ["Cargo.toml", "betree/src/lib.rs", "tests/src/tidy/mod.rs", ".ci/run", "scripts/check"] {
        assert!(tree.file(path).is_some(), "{path} is not in the tree");
    }
    assert!(!tree.files().iter().any(|file| file.path.contains("target/")));
}
