//! The crate needs no standard library and no C library: it is linked without either, and run.

use std::process::Command;

#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn the_golden_vectors_pass_in_a_program_without_any_library() {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/freestanding/check.sh"
    );
    let output = Command::new(script).output().expect("the script runs");
    let (out, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    println!("{out}");
    assert!(output.status.success(), "{out}\n{errors}");
    assert!(out.contains("golden vectors passed"), "{out}");
}
