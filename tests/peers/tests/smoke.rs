//! The program as a user runs it, on betree alone and on little data: every workload, every answer checked.

use std::io;
use std::path::Path;
use std::process::{Command, Output};

fn peers(folder: &Path, arguments: &[&str]) -> io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_betree-peers")).arg("--dir").arg(folder).args(arguments).output()
}

/// Beside the program, for the folder of temporary files may not take direct I/O.
fn folder() -> io::Result<tempfile::TempDir> {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))
}

#[test]
fn all_workloads_run_and_are_reported() {
    let folder = folder().unwrap();
    let json = folder.path().join("results.json");
    let small = [
        "--engines",
        "betree",
        "--keys",
        "20_000",
        "--cache",
        "1MiB",
        "--operations",
        "2000",
        "--rounds",
        "2",
    ];
    let output = peers(folder.path(), &[&small[..], &["--json", json.to_str().unwrap()]].concat()).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));

    let results: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let measurements = results["measurements"].as_array().unwrap();
    let names = [
        "load_seq",
        "load_random",
        "get_warm",
        "get_reopen",
        "get_missing",
        "scan",
        "short_scan",
        "overwrite",
        "mixed_1",
        "mixed_2",
        "durable",
    ];
    assert_eq!(measurements.len(), 2 * names.len());
    for (measurement, name) in measurements.iter().zip(names.iter().cycle()) {
        assert_eq!(measurement["workload"], *name);
        assert!(measurement["operations_per_second"].as_f64().unwrap() > 0.0, "{measurement}");
        assert!(text.contains(&format!("\n| {name} ")), "{name} is not in the table:\n{text}");
    }
    std::fs::remove_file(json).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the databases are removed");
}

#[test]
fn nonsense_is_an_error_and_help_is_not() {
    let folder = folder().unwrap();
    let output = peers(folder.path(), &["--engines", "paper"]).unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("no engine paper"));
    assert!(peers(folder.path(), &["--help"]).unwrap().status.success());
}
