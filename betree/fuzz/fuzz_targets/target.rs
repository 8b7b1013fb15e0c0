//! All fuzz targets in one program: `BETREE_FUZZ_TARGET` says which. With `BETREE_FUZZ_CORPUS`, the target's own seeds are
//! put into that folder first. `scripts/fuzz` sets both.

#![no_main]

use betree_tests::fuzz::target;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static RUN: LazyLock<fn(&[u8]) -> bool> = LazyLock::new(|| {
    let name = std::env::var("BETREE_FUZZ_TARGET").expect("BETREE_FUZZ_TARGET names a target");
    let target = target(&name).expect("the target exists: scripts/fuzz lists them");
    if let Some(folder) = std::env::var_os("BETREE_FUZZ_CORPUS") {
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(std::path::Path::new(&folder).join(format!("seed-{number}")), seed)
                .expect("the corpus");
        }
    }
    target.run
});

fuzz_target!(init: { LazyLock::force(&RUN); }, |bytes: &[u8]| {
    RUN(bytes);
});
