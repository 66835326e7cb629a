//! An implementation in another language, written from SPEC.md, passes the vectors and speaks with this one.

use std::path::{Path, PathBuf};
use std::process::Command;

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python");

#[track_caller]
fn run(tests: &str, examples: &Path) {
    let output = Command::new("python3")
        .args(["-m", "unittest", "-v", tests])
        .current_dir(PYTHON)
        .env("EXAMPLES", examples)
        .output()
        .expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stderr);
    println!("{said}{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("skipped"), "{said}");
}

#[test]
fn the_golden_vectors_hold_in_python() {
    run("test_vectors", Path::new(""));
}

/// The folder of the example programs. Cargo builds them for a whole test run only; this finds them built, or builds them.
fn examples() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let profile = test.ancestors().nth(2).expect("target/profile/deps/test");
    let target = profile.parent().expect("target");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "autoglm-protocol"])
        .args(["--examples", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(built.success());
    target.join("debug/examples")
}

#[test]
fn python_speaks_with_the_example_device_over_a_pseudo_terminal() {
    run("test_device.Device", &examples());
}

#[test]
fn python_carries_transfers_both_ways_over_lines_that_break_and_tells_the_time() {
    run("test_device.Recorder", &examples());
}
