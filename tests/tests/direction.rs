//! Who may know whom: between the crates by cargo's own word, inside the daemon by the paths in its sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The workspace's crates, and which of them each may depend on.
const CRATES: [(&str, &[&str]); 5] = [
    ("autoglm-protocol", &[]),
    ("autoglm-drivers", &["autoglm-protocol"]),
    // Attention for ONNX Runtime; knows of graphs and numbers, and of no device.
    ("autoglm-edge-attention", &[]),
    (
        "autoglm-edge",
        &[
            "autoglm-protocol",
            "autoglm-drivers",
            "autoglm-edge-attention",
        ],
    ),
    (
        "autoglm-tests",
        &["autoglm-protocol", "autoglm-drivers", "autoglm-edge"],
    ),
];

/// The daemon's modules, and which of them each may use. What is not listed is forbidden. `app` knows every module.
const MODULES: [(&str, &[&str]); 17] = [
    // Knows nobody.
    ("logging", &[]),
    // Sound in files and streams, as bytes and numbers.
    ("audio", &[]),
    ("config", &[]),
    ("store", &[]),
    // Remembers what was measured of execution providers; a bundle may name an engine elsewhere as the configuration does.
    ("inference", &["config", "store"]),
    // Puts bundles in their place; reads their `model.toml` as the engine does.
    ("install", &["inference"]),
    ("things", &[]),
    // Supervisors introduce devices to the registry, and remember their descriptions.
    ("link", &["config", "store", "things"]),
    // So do the owners of foreign devices' buses and brokers, who remember sensors' counters.
    ("foreign", &["config", "store", "things"]),
    // Looks around, pairs and forgets, for the doors.
    ("bluetooth", &["foreign"]),
    ("session", &["store"]),
    ("understanding", &["things"]),
    (
        "router",
        &["inference", "session", "store", "things", "understanding"],
    ),
    // Reads everybody's snapshot, for the doors and for systemd.
    (
        "status",
        &["foreign", "inference", "link", "store", "things"],
    ),
    // Says by systemd whether the D-Bus door is open, since nobody could ask over the bus.
    ("notify", &["control", "status", "store"]),
    (
        "control",
        &[
            // Sound comes by a descriptor, and is read as it comes.
            "audio",
            "bluetooth",
            "config",
            "inference",
            "link",
            "router",
            "session",
            "status",
            // Of it the outbox alone, see `CONTROL_OF_STORE`.
            "store",
            "things",
            "understanding",
        ],
    ),
    // A client of the D-Bus door: the bus's names, types and errors, and how words and values are read. `daemon_args` is here so
    // that the man pages come from one definition; it names the configuration's default path and the log formats.
    (
        "cli",
        &[
            "audio",
            "config",
            "control",
            "install",
            "logging",
            "things",
            "understanding",
        ],
    ),
];

/// What the command line may use of other modules: types and pure functions, never an owner of state.
const CLI_USES: [&str; 11] = [
    "config",
    // A file, or a header.
    "audio::write",
    // Files alone: no model is opened by it.
    "install",
    "logging::LogFormat",
    "control::dbus::client",
    "control::dbus::names",
    "control::dbus::tensor",
    "control::dbus::value",
    "things::description",
    "things::schema",
    "understanding::",
];

/// What the doors may use of the store: what waits for the fleet. Everything else goes through the router and the sessions.
const CONTROL_OF_STORE: &str = "store::outbox";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust files under a directory, with their text.
fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in
            fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display()))
        {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(directory).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "{} has no sources", directory.display());
    found
}

/// The code of a source, without its comments.
fn code(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The paths that begin with `crate::` in a source, groups written out: `a::b` and `a::c` for `crate::a::{b, c}`.
fn paths(text: &str) -> Vec<String> {
    let code = code(text);
    let mut found = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        // `autoglm_crate::` or `$crate::` would be others.
        if !code[..at]
            .ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$')
        {
            write_out("", &code[at + start.len()..], &mut found);
        }
    }
    found
}

/// Writes out the path (or the group of paths) that a text begins with.
fn write_out(before: &str, text: &str, found: &mut Vec<String>) {
    let end = text
        .find(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':')
        .unwrap_or(text.len());
    let path = format!("{before}{}", &text[..end]);
    let Some(group) = text[end..]
        .strip_prefix('{')
        .filter(|_| path.is_empty() || path.ends_with("::"))
    else {
        return found.push(path);
    };
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                if !group[start..at].trim().is_empty() {
                    write_out(&path, group[start..at].trim(), found);
                }
                if letter == '}' {
                    return;
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The module of the daemon that a file belongs to, below `daemon/src`.
fn module_of(file: &Path) -> String {
    file.iter()
        .next()
        .unwrap_or_default()
        .to_string_lossy()
        .trim_end_matches(".rs")
        .to_owned()
}

/// All uses of one module of the daemon by another: file, user, path.
fn uses() -> Vec<(PathBuf, String, String)> {
    let mut uses = Vec::new();
    for (file, text) in sources(&root().join("daemon/src")) {
        let module = module_of(&file);
        for path in paths(&text) {
            uses.push((file.clone(), module.clone(), path));
        }
    }
    uses
}

fn first(path: &str) -> &str {
    path.split("::").next().unwrap_or_default()
}

#[test]
fn crates_know_only_what_is_below_them() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
            "--manifest-path",
        ])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<&str, &[&str]> = CRATES.into_iter().collect();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let allowed = allowed.get(name).unwrap_or_else(|| {
            panic!("{name} is a crate that this test does not know: say whom it may use")
        });
        seen.insert(name);
        // Normal, build and development dependencies alike.
        for dependency in package["dependencies"].as_array().unwrap() {
            let dependency = dependency["name"].as_str().unwrap();
            let is_ours = CRATES.iter().any(|(ours, _)| *ours == dependency);
            assert!(
                !is_ours || allowed.contains(&dependency),
                "{name} must not depend on {dependency}"
            );
        }
    }
    assert_eq!(seen.len(), CRATES.len(), "{seen:?}");
}

#[test]
fn the_daemons_modules_use_only_what_is_below_them() {
    let allowed: BTreeMap<&str, &[&str]> = MODULES.into_iter().collect();
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (file, module, path) in uses() {
        let target = first(&path).to_owned();
        if module == "app" || module == target {
            continue;
        }
        match allowed.get(module.as_str()) {
            Some(targets) if targets.contains(&target.as_str()) => {
                used.insert((module, target));
            }
            Some(_) => wrong.push(format!(
                "{}: {module} must not use crate::{path}",
                file.display()
            )),
            None => wrong.push(format!(
                "{}: {module} is a module that this test does not know",
                file.display()
            )),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let granted: BTreeSet<(String, String)> = MODULES
        .iter()
        .flat_map(|(module, targets)| {
            targets
                .iter()
                .map(move |target| ((*module).to_owned(), (*target).to_owned()))
        })
        .collect();
    assert_eq!(
        granted, used,
        "what is allowed and no longer used is to be taken off the list"
    );
}

#[test]
fn doors_do_not_know_each_other() {
    let doors: BTreeSet<String> = fs::read_dir(root().join("daemon/src/control"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(doors.len() >= 2, "{doors:?}");
    for (file, module, path) in uses() {
        let door = file
            .iter()
            .nth(1)
            .map(|part| part.to_string_lossy().into_owned())
            .unwrap_or_default();
        if let (true, Some(target)) = (module == "control", path.strip_prefix("control::")) {
            let target = first(target);
            assert!(
                !doors.contains(target) || target == door,
                "{}: a door must not use crate::{path}",
                file.display()
            );
        }
    }
    for (file, text) in sources(&root().join("daemon/src/control")) {
        for door in &doors {
            let door_of_file = file.iter().next().unwrap_or_default().to_string_lossy();
            assert!(
                door_of_file == *door || !code(&text).contains(&format!("super::{door}")),
                "{} uses {door}",
                file.display()
            );
        }
    }
}

#[test]
fn the_command_line_is_a_client_and_touches_no_owner_of_state() {
    for (file, module, path) in uses() {
        if module == "cli" && first(&path) != "cli" {
            assert!(
                CLI_USES.iter().any(|allowed| path.starts_with(allowed)),
                "{}: crate::{path}",
                file.display()
            );
        }
    }
}

#[test]
fn doors_know_the_outbox_of_the_store_and_nothing_else() {
    for (file, module, path) in uses() {
        if module == "control" && first(&path) == "store" {
            assert!(
                path.starts_with(CONTROL_OF_STORE),
                "{}: crate::{path}",
                file.display()
            );
        }
    }
}

#[test]
fn nobody_imports_the_app() {
    for (file, _, path) in uses() {
        assert!(
            first(&path) != "app",
            "{} uses crate::{path}",
            file.display()
        );
    }
}

#[test]
fn only_the_store_names_the_database() {
    for (file, text) in sources(&root().join("daemon/src")) {
        assert!(
            module_of(&file) == "store" || !code(&text).contains("sled"),
            "{} names the database",
            file.display()
        );
    }
    for member in ["drivers/src", "protocol/src"] {
        for (file, text) in sources(&root().join(member)) {
            assert!(
                !code(&text).contains("sled"),
                "{member}/{} names the database",
                file.display()
            );
        }
    }
}

#[test]
fn the_protocol_needs_neither_std_nor_a_runtime_nor_a_clock() {
    let library = fs::read_to_string(root().join("protocol/src/lib.rs")).unwrap();
    for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
        assert!(library.contains(attribute), "{attribute}");
    }
    // A module's tests run where there is a standard library.
    let is_product = |file: &Path| file.file_name().is_none_or(|name| name != "tests.rs");
    for (file, text) in sources(&root().join("protocol/src"))
        .into_iter()
        .filter(|(file, _)| is_product(file))
    {
        for forbidden in ["std::", "tokio", "extern crate std", "tracing::", "rand::"] {
            let is_named = code(&text).match_indices(forbidden).any(|(at, _)| {
                // `no_std::` would be another word.
                !code(&text)[..at]
                    .ends_with(|before: char| before.is_alphanumeric() || before == '_')
            });
            assert!(!is_named, "{} names {forbidden}", file.display());
        }
    }
}

#[test]
fn this_test_sees_paths_in_groups_and_passes_over_comments() {
    let text = "use crate::{a::b, c::{d, e}};\n// crate::no\nfn f() { crate::g::h(); }\nuse crate::store::{\n    x::{self}, y,\n};";
    assert_eq!(
        paths(text),
        ["a::b", "c::d", "c::e", "g::h", "store::x::self", "store::y"]
    );
}
