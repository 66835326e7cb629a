//! The unit and the users, as systemd's own programs read them.

use std::path::Path;
use std::process::Command;

use crate::tool::{Said, run, shipped, tool};

const UNIT: &str = "autoglm-edged.service";

/// Exposure that may not be exceeded, in tenths, as `--threshold` takes it.
const EXPOSURE_MAX_TENTHS: u32 = 20;

/// `systemd-analyze verify`, with a program that exists here in the daemon's place.
fn verify(unit: &str) -> Said {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(UNIT);
    assert!(
        unit.contains("ExecStart=/usr/bin/autoglm-edged "),
        "the unit starts something else"
    );
    std::fs::write(
        &path,
        unit.replace("ExecStart=/usr/bin/autoglm-edged ", "ExecStart=/bin/true "),
    )
    .unwrap();
    run(Command::new(tool("systemd-analyze", "systemd"))
        .args(["verify", "--man=no"])
        .arg(path))
}

fn shipped_unit() -> String {
    std::fs::read_to_string(shipped().join(UNIT)).unwrap()
}

#[test]
fn systemd_has_nothing_to_say_against_the_unit() {
    let said = verify(&shipped_unit());
    assert_eq!(
        (said.code, said.err.as_str()),
        (Some(0), ""),
        "{}",
        said.out
    );
}

#[test]
fn a_mistyped_key_in_the_unit_would_be_noticed() {
    let said = verify(&shipped_unit().replace("\nUMask=", "\nUmask="));
    assert!(said.err.contains("Umask"), "{said:?}");
}

#[test]
fn the_unit_exposes_at_most_2_of_10() {
    let said = run(Command::new(tool("systemd-analyze", "systemd"))
        .args([
            "security",
            "--offline=true",
            "--no-pager",
            &format!("--threshold={EXPOSURE_MAX_TENTHS}"),
        ])
        .arg(shipped().join(UNIT)));
    let overall = said
        .out
        .lines()
        .find(|line| line.contains("Overall exposure"))
        .unwrap_or("no result");
    println!("{overall}");
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
}

#[test]
fn the_service_user_cannot_log_in_and_may_open_serial_ports() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    let said = run(Command::new(tool("systemd-sysusers", "systemd"))
        .arg(format!("--root={}", root.path().display()))
        .arg(shipped().join("autoglm-edge.sysusers")));
    assert_eq!(said.code, Some(0), "{said:?}");
    let line = |file: &str, name: &str| {
        let text = std::fs::read_to_string(root.path().join(file)).unwrap();
        text.lines()
            .find(|line| line.split(':').next() == Some(name))
            .map(str::to_owned)
    };
    let user = line("etc/passwd", "autoglm-edge").expect("the user was made");
    assert!(user.ends_with("/nologin"), "{user}");
    let group = line("etc/group", "dialout").expect("the group of serial ports exists");
    assert!(group.ends_with(":autoglm-edge"), "{group}");
}

#[test]
fn the_bus_starts_a_unit_that_is_shipped() {
    let activation =
        std::fs::read_to_string(shipped().join("org.openautoglm.Edge1.service")).unwrap();
    let unit = activation
        .lines()
        .find_map(|line| line.strip_prefix("SystemdService="))
        .expect("a unit is named");
    assert!(
        shipped().join(Path::new(unit)).is_file(),
        "{unit} is not shipped"
    );
}
