//! The header that is committed is the one that the sources make, and every function in it keeps the rules of the interface.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::path::{Path, PathBuf};

/// The files that hold exported names, in the order of the header.
const FILES: [&str; 19] = [
    "boundary",
    "error",
    "logger",
    "bytes",
    "preference",
    "configuration",
    "database",
    "dataset",
    "iterator",
    "batch",
    "view",
    "snapshot",
    "stream",
    "condition",
    "store",
    "listing",
    "object",
    "object_batch",
    "store_snapshot",
];

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn committed() -> PathBuf {
    package().with_file_name("include").join("betree.h")
}

fn source(file: &str) -> PathBuf {
    package().join("src").join(file).with_extension("rs")
}

fn generated() -> String {
    let config = cbindgen::Config::from_file(package().join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in FILES {
        builder = builder.with_src(source(file));
    }
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    String::from_utf8(header).unwrap()
}

#[test]
fn the_header_is_fresh() {
    let (generated, path) = (generated(), committed());
    if std::env::var_os("BETREE_HEADER").is_some_and(|value| value == "write") {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    let differs = committed.lines().zip(generated.lines()).position(|(a, b)| a != b);
    assert!(
        committed == generated,
        "{} is not what the sources make, from line {:?} on; BETREE_HEADER=write writes it",
        path.display(),
        differs.map(|line| line + 1)
    );
}

/// Name, text before the signature and body of each exported function.
fn functions() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(package().join("src")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut parts = text.split("#[unsafe(no_mangle)]\npub extern \"C\" fn ");
        let mut before = parts.next().unwrap();
        for part in parts {
            let name = part.split('(').next().unwrap();
            let doc: Vec<&str> = before.lines().rev().take_while(|line| line.starts_with("///")).collect();
            let doc = doc.into_iter().rev().collect::<Vec<_>>().join(" ").replace("/// ", "");
            let body = part.split_once("{\n").unwrap().1.split("\n}\n").next().unwrap();
            found.push((name.to_owned(), doc, body.to_owned()));
            before = part;
        }
    }
    found
}

#[test]
fn every_function_goes_through_the_boundary_and_says_what_threads_may_do() {
    let (functions, header) = (functions(), generated());
    assert!(functions.len() > 150, "{} functions found", functions.len());
    for (name, doc, body) in functions {
        let body = body.trim_start().trim_start_matches("let _ = db;").trim_start();
        let is_caught = ["call(", "find(", "make(", "value(", "tell(", "release("]
            .iter()
            .any(|way| body.starts_with(way));
        assert!(is_caught, "{name} does something outside of the boundary: {body}");
        let frees = doc.contains("o other thread may use ");
        assert!(frees || doc.contains("Thread-safe"), "{name} does not say what threads may do");
        assert!(header.contains(&format!("{name}(")), "{name} is not in the header");
    }
}

/// A function that no C program ever called may have the wrong types in its header.
#[test]
fn the_c_test_calls_every_function() {
    let test = std::fs::read_to_string(package().join("tests/all.c")).unwrap();
    let missing: Vec<String> = functions()
        .into_iter()
        .map(|(name, ..)| name)
        .filter(|name| !test.contains(&format!("{name}(")))
        .collect();
    assert_eq!(missing, [] as [String; 0]);
}

/// The numbers that programs compare with those of the library that they run with.
#[test]
fn the_version_is_that_of_the_package() {
    let header = std::fs::read_to_string(committed()).unwrap();
    let of = |part: &str| {
        let text = header.split(&format!("#define BETREE_VERSION_{part} ")).nth(1).unwrap();
        text.lines().next().unwrap().to_owned()
    };
    assert_eq!([of("MAJOR"), of("MINOR"), of("PATCH")].join("."), env!("CARGO_PKG_VERSION"));
}

/// The names that programs written for Haura call.
#[test]
fn the_names_of_haura_are_there() {
    let header = committed();
    let header = std::fs::read_to_string(header).unwrap();
    let types = [
        "byte_slice_rc_t",
        "byte_slice_t",
        "cfg_t",
        "db_t",
        "ds_t",
        "err_t",
        "name_iter_t",
        "obj_store_t",
        "obj_t",
        "range_iter_t",
        "ss_t",
        "storage_pref_t",
    ];
    for name in types {
        assert!(header.contains(&format!("typedef struct {name} ")), "{name}");
    }
    let functions = "parse_configuration configuration_from_env configuration_set_direct configuration_set_disks \
        configuration_set_iodepth free_cfg build_db open_db create_db open_or_create_db sync_db close_db create_ds open_ds \
        close_ds iter_datasets name_iter_next free_name_iter dataset_name dataset_get dataset_insert dataset_upsert \
        dataset_delete dataset_range_delete dataset_range range_iter_next free_range_iter free_byte_slice create_snapshot \
        delete_snapshot iter_snapshots snapshot_get snapshot_range create_object_store object_create object_open \
        object_open_or_create object_delete object_close object_get_size object_read_at object_write_at init_env_logger \
        print_error free_err";
    for name in functions.split_whitespace() {
        assert!(header.contains(&format!("betree_{name}(")), "betree_{name}");
    }
}
