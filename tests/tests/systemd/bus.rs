//! Who may be the daemon, who may call it, and whom polkit lets do what.

use std::path::Path;

use crate::installed::{Installed, can_install};
use crate::tool::{Said, shipped};

const NAME: &str = "org.openautoglm.Edge1";
const ACTIONS: [&str; 4] = [
    "org.openautoglm.edge1.observe",
    "org.openautoglm.edge1.control",
    "org.openautoglm.edge1.converse",
    "org.openautoglm.edge1.pair",
];
const REFUSED: &str = "org.freedesktop.DBus.Error.AccessDenied";

/// pkcheck(1): the answers that it gives by its exit status.
const ALLOWED: Option<i32> = Some(0);
const MUST_AUTHENTICATE: Option<i32> = Some(2);

fn request_name(machine: &Installed, user: &str) -> Said {
    let (name, do_not_queue) = (format!("string:{NAME}"), "uint32:4");
    let (bus, path) = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
    machine.call(
        user,
        bus,
        path,
        "org.freedesktop.DBus.RequestName",
        &[&name, do_not_queue],
    )
}

fn ping(machine: &Installed, user: &str) -> Said {
    machine.call(
        user,
        NAME,
        "/org/openautoglm/Edge1",
        "org.freedesktop.DBus.Peer.Ping",
        &[],
    )
}

/// The shipped files with one of them changed.
fn changed(file: &str, change: impl FnOnce(String) -> String) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(shipped()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        std::fs::copy(
            &path,
            directory
                .path()
                .join(path.file_name().expect("an entry has a name")),
        )
        .unwrap();
    }
    let path = directory.path().join(file);
    let before = std::fs::read_to_string(&path).unwrap();
    let after = change(before.clone());
    assert_ne!(before, after, "{file}: nothing was changed");
    std::fs::write(path, after).unwrap();
    directory
}

#[test]
fn only_the_service_user_may_be_the_daemon() {
    if !can_install() {
        return;
    }
    let machine = Installed::start();
    let owner = request_name(&machine, "autoglm-edge");
    assert!(
        owner.code == Some(0) && owner.out.contains("uint32 1"),
        "{owner:?}"
    );
    for user in ["alice", "mallory", "root"] {
        let said = request_name(&machine, user);
        assert!(
            said.code != Some(0) && said.err.contains(REFUSED),
            "{user}: {said:?}"
        );
    }
    let log = machine.bus_log();
    assert!(
        !log.contains("Unknown") && !log.contains("Encountered error"),
        "{log}"
    );
}

#[test]
fn a_call_from_anybody_reaches_the_activation_of_the_daemon() {
    if !can_install() {
        return;
    }
    let machine = Installed::start();
    for user in ["mallory", "alice", "root"] {
        let said = ping(&machine, user);
        // No systemd here to start the unit: the bus tries Exec=/bin/false, which is as far as a call can come.
        assert!(
            said.err.contains("org.freedesktop.DBus.Error.Spawn."),
            "{user}: {said:?}"
        );
    }
    let closed = changed("org.openautoglm.Edge1.conf", |policy| {
        policy.replace(r#"<allow send_destination="org.openautoglm.Edge1"/>"#, "")
    });
    let said = ping(&Installed::start_with(closed.path()), "mallory");
    assert!(
        said.err.contains(REFUSED),
        "a bus policy that is closed to callers would not be noticed: {said:?}"
    );
}

#[test]
fn members_of_the_group_may_do_everything_and_strangers_must_authenticate() {
    if !can_install() {
        return;
    }
    let mut machine = Installed::start();
    machine.start_polkit();
    for action in ACTIONS {
        let member = machine.pkcheck("autoglm-edge", action, "alice");
        assert_eq!(member.code, ALLOWED, "{action}: {member:?}");
        let stranger = machine.pkcheck("autoglm-edge", action, "mallory");
        assert_eq!(stranger.code, MUST_AUTHENTICATE, "{action}: {stranger:?}");
        let known = machine.pkaction(action);
        let at_the_box = known
            .lines()
            .any(|line| line.split_whitespace().eq(["implicit", "active:", "yes"]));
        assert!(at_the_box, "{known}");
    }
}

#[test]
fn the_group_decides_and_not_the_defaults() {
    if !can_install() {
        return;
    }
    let other_group = changed("50-autoglm-edge.rules", |rules| {
        rules.replace("\"autoglm-edge\"", "\"dialout\"")
    });
    let mut machine = Installed::start_with(other_group.path());
    machine.start_polkit();
    let said = machine.pkcheck("autoglm-edge", ACTIONS[0], "alice");
    assert_eq!(said.code, MUST_AUTHENTICATE, "{said:?}");
}

#[test]
fn the_service_user_could_not_ask_polkit_without_the_owner_annotation() {
    if !can_install() {
        return;
    }
    let without = changed("org.openautoglm.edge1.policy", |policy| {
        policy
            .lines()
            .filter(|line| !line.contains("<annotate"))
            .collect::<Vec<_>>()
            .join("\n")
    });
    let mut machine = Installed::start_with(Path::new(without.path()));
    machine.start_polkit();
    let said = machine.pkcheck("autoglm-edge", ACTIONS[1], "alice");
    assert!(
        said.code != ALLOWED && said.err.contains("Only trusted callers"),
        "{said:?}"
    );
}
