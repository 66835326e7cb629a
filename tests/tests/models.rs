//! `autoglmctl models add|verify|benchmark|remove`: the real programs and bundles, with a process that stands in for the hub.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use autoglm_tests::edge_box::{self, EdgeBox};
use autoglm_tests::process::program;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const VAD: &str = "silero-vad";
const GRAPH: &str = "model.onnx";

/// The stand-in for the hub.
struct Hub {
    process: Child,
    port: u16,
    requests: BufReader<std::process::ChildStdout>,
}

impl Hub {
    fn start(directory: &Path, options: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/hub.py");
        let mut process = Command::new("python3")
            .arg(script)
            .arg(directory)
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut requests = BufReader::new(process.stdout.take().unwrap());
        let mut port = String::new();
        requests.read_line(&mut port).unwrap();
        let port = port.trim().parse().unwrap();
        Self {
            process,
            port,
            requests,
        }
    }

    /// What it was asked so far; it ends.
    fn requests(mut self) -> String {
        self.process.kill().unwrap();
        let mut text = String::new();
        self.requests.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Directories for one test: repositories, and where bundles go.
struct Shelf {
    dir: tempfile::TempDir,
}

impl Shelf {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn models(&self) -> PathBuf {
        self.path("models")
    }

    /// A copy of a shipped bundle at `at`.
    fn copy(&self, name: &str, at: &str) -> PathBuf {
        let (from, to) = (
            edge_box::cache().unwrap().join("models").join(name),
            self.path(at),
        );
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        to
    }

    /// `autoglmctl models ...` on a bus that is not there.
    fn command(&self, hub: Option<&Hub>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("autoglmctl").unwrap());
        command
            .args(["--bus", "unix:path=/nonexistent", "models"])
            .args(arguments);
        command
            .arg("--dir")
            .arg(self.models())
            .env("HOME", self.path("home"))
            .env(
                "HF_ENDPOINT",
                hub.map_or("http://127.0.0.1:1".into(), |hub| {
                    format!("http://127.0.0.1:{}", hub.port)
                }),
            )
            .env("NO_COLOR", "1")
            .env_remove("HF_TOKEN")
            .env_remove("HF_HOME")
            .env_remove("http_proxy")
            .env_remove("HTTP_PROXY")
            .env_remove("ALL_PROXY")
            .env_remove("all_proxy")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, hub: Option<&Hub>, arguments: &[&str]) -> (i32, String, String) {
        outcome(self.command(hub, arguments).output().unwrap())
    }

    /// Everything below the directory of bundles.
    fn found(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut waiting = vec![self.models()];
        while let Some(next) = waiting.pop() {
            for entry in fs::read_dir(next).into_iter().flatten() {
                let path = entry.unwrap().path();
                found.push(
                    path.strip_prefix(self.models())
                        .unwrap()
                        .display()
                        .to_string(),
                );
                if path.is_dir() {
                    waiting.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

fn outcome(output: std::process::Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn manifest(dir: &Path, edit: impl FnOnce(&str) -> String) {
    let path = dir.join("model.toml");
    let before = fs::read_to_string(&path).unwrap();
    let after = edit(&before);
    assert_ne!(before, after, "the manifest was not changed");
    fs::write(path, after).unwrap();
}

#[test]
fn a_directory_is_added_whole_and_readable_for_the_daemon() {
    let shelf = Shelf::new();
    let from = shelf.copy(VAD, "from");
    fs::write(from.join("unnamed.txt"), "not in model.toml").unwrap();
    let mut command = shelf.command(None, &["--json", "add", from.to_str().unwrap()]);
    // SAFETY-free way to a narrow mask: the shell sets it.
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut narrow = Command::new("sh");
    narrow
        .args(["-c", "umask 077; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(arguments)
        .env("HOME", shelf.path("home"));
    command = narrow;
    let (code, out, error) = outcome(command.output().unwrap());
    assert_eq!(code, 0, "{error}");
    let added: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&added["added"]["name"], &added["added"]["task"]),
        (&VAD.into(), &"vad".into()),
        "{added}"
    );
    let bundle = shelf.models().join(VAD);
    for (path, mode) in [
        (shelf.models(), 0o755),
        (bundle.clone(), 0o755),
        (bundle.join(GRAPH), 0o644),
        (bundle.join("model.toml"), 0o644),
    ] {
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            mode,
            "{}",
            path.display()
        );
    }
    assert!(!bundle.join("unnamed.txt").exists());
    assert_eq!(
        fs::read(bundle.join(GRAPH)).unwrap(),
        fs::read(from.join(GRAPH)).unwrap()
    );
    assert!(
        shelf.found().iter().all(|path| path.starts_with(VAD)),
        "{:?}",
        shelf.found()
    );

    let (code, _, error) = shelf.run(None, &["add", from.to_str().unwrap()]);
    assert!(
        code == 8 && error.contains("is there already") && error.contains("--replace"),
        "{code} {error}"
    );
    manifest(&from, |text| text.replace("title = \"", "title = \"Newer "));
    let (code, out, error) = shelf.run(None, &["add", "--replace", from.to_str().unwrap()]);
    assert!(
        code == 0 && out.contains("in place of"),
        "{code} {out} {error}"
    );
    assert!(
        fs::read_to_string(bundle.join("model.toml"))
            .unwrap()
            .contains("Newer ")
    );
    assert!(
        shelf.found().iter().all(|path| path.starts_with(VAD)),
        "{:?}",
        shelf.found()
    );
}

#[test]
fn what_is_not_what_its_manifest_says_is_refused_and_leaves_nothing() {
    type Spoil = fn(&Path, &Path);
    let cases: [(&str, i32, &str, Spoil); 10] = [
        ("a byte turned over", 11, "SHA-256", |dir, _| {
            let mut bytes = fs::read(dir.join(GRAPH)).unwrap();
            bytes[1000] ^= 1;
            fs::write(dir.join(GRAPH), bytes).unwrap();
        }),
        ("a file too short", 11, "bytes, expected", |dir, _| {
            fs::File::options()
                .write(true)
                .open(dir.join(GRAPH))
                .unwrap()
                .set_len(1000)
                .unwrap();
        }),
        ("a file too long", 11, "longer than", |dir, _| {
            let mut bytes = fs::read(dir.join(GRAPH)).unwrap();
            bytes.push(0);
            fs::write(dir.join(GRAPH), bytes).unwrap();
        }),
        ("a file that is not there", 1, "probe.json", |dir, _| {
            fs::remove_file(dir.join("probe.json")).unwrap();
        }),
        (
            "a link that leads out",
            11,
            "no plain file",
            |dir, outside| {
                fs::rename(dir.join(GRAPH), outside.join("graph")).unwrap();
                symlink(outside.join("graph"), dir.join(GRAPH)).unwrap();
            },
        ),
        (
            "a name that leads out",
            11,
            "leads out of the bundle",
            |dir, _| {
                manifest(dir, |text| {
                    text.replace("[files.\"probe.json\"]", "[files.\"../probe.json\"]")
                        .replace("file = \"probe.json\"", "file = \"../probe.json\"")
                });
            },
        ),
        ("a bundle whose name leads out", 11, "name is", |dir, _| {
            manifest(dir, |text| {
                text.replace("name = \"silero-vad\"", "name = \"../silero-vad\"")
            });
        }),
        ("a hidden name", 2, "cannot be a bundle's", |dir, _| {
            manifest(dir, |text| {
                text.replace("name = \"silero-vad\"", "name = \".silero-vad\"")
            });
        }),
        ("no manifest", 11, "has no model.toml", |dir, _| {
            fs::remove_file(dir.join("model.toml")).unwrap()
        }),
        ("a voice as published", 11, "a voice of Piper", |dir, _| {
            fs::remove_file(dir.join("model.toml")).unwrap();
            fs::write(dir.join("model.onnx.json"), "{}").unwrap();
        }),
    ];
    for (what, code, part, spoil) in cases {
        let shelf = Shelf::new();
        let from = shelf.copy(VAD, "from");
        spoil(&from, shelf.dir.path());
        let (seen, out, error) = shelf.run(None, &["add", from.to_str().unwrap()]);
        assert!(
            seen == code && error.contains(part),
            "{what}: {seen} {out} {error}"
        );
        assert_eq!(shelf.found(), Vec::<String>::new(), "{what}");
        assert!(!shelf.path("silero-vad").exists(), "{what}");
    }
}

#[test]
fn a_disk_without_room_is_seen_before_anything_is_written() {
    let shelf = Shelf::new();
    let from = shelf.copy(VAD, "from");
    let bytes = fs::metadata(from.join(GRAPH)).unwrap().len();
    manifest(&from, |text| {
        text.replace(&format!("bytes = {bytes}"), "bytes = 9000000000000000000")
    });
    let (code, _, error) = shelf.run(None, &["add", from.to_str().unwrap()]);
    assert!(
        code == 8 && error.contains("9000000000") && error.contains(" has "),
        "{code} {error}"
    );
    assert_eq!(shelf.found(), Vec::<String>::new());
}

#[test]
fn a_repository_of_the_hub_is_added_from_one_commit_and_a_broken_transfer_goes_on() {
    let shelf = Shelf::new();
    shelf.copy(VAD, "hub/edge/silero");
    let hub = Hub::start(&shelf.path("hub"), &["--break", GRAPH]);
    let (code, out, error) = shelf.run(Some(&hub), &["add", "edge/silero"]);
    assert!(
        code == 0 && out.contains("silero-vad: vad"),
        "{code} {out} {error}"
    );
    assert_eq!(
        fs::read(shelf.models().join(VAD).join(GRAPH)).unwrap(),
        fs::read(shelf.path("hub/edge/silero").join(GRAPH)).unwrap()
    );
    let requests = hub.requests();
    let half = fs::metadata(shelf.path("hub/edge/silero").join(GRAPH))
        .unwrap()
        .len()
        / 2;
    assert!(
        requests.contains(&format!("/cdn/edge/silero/{GRAPH} bytes={half}-")),
        "{requests}"
    );
    assert!(
        !requests.contains("resolve/main"),
        "all files are of the commit that was listed: {requests}"
    );
}

#[test]
fn a_private_repository_wants_the_token_and_an_absent_one_is_said_so() {
    let shelf = Shelf::new();
    shelf.copy(VAD, "hub/mine/silero");
    fs::create_dir_all(shelf.path("hub/edge/plain")).unwrap();
    fs::write(
        shelf.path("hub/edge/plain/model.onnx"),
        "weights without a word about them",
    )
    .unwrap();
    let hub = Hub::start(&shelf.path("hub"), &["--private", "mine"]);
    let (code, _, error) = shelf.run(Some(&hub), &["add", "mine/silero"]);
    assert!(
        code == 4 && error.contains("401") && error.contains("HF_TOKEN"),
        "{code} {error}"
    );
    let let_in = shelf
        .command(Some(&hub), &["add", "mine/silero"])
        .env("HF_TOKEN", "secret")
        .output()
        .unwrap();
    assert_eq!(let_in.status.code(), Some(0), "{let_in:?}");
    let (code, _, error) = shelf.run(Some(&hub), &["add", "edge/none"]);
    assert!(code == 4 && error.contains("404"), "{code} {error}");
    let (code, _, error) = shelf.run(Some(&hub), &["add", "edge/plain"]);
    assert!(
        code == 11 && error.contains("edge/plain has no model.toml") && error.contains("hint:"),
        "{code} {error}"
    );
    for bad in ["edge", "edge/../x", "./edge/none", "edge/none/more"] {
        let (code, _, error) = shelf.run(Some(&hub), &["add", bad]);
        assert!(
            code == 2 && error.contains("neither a directory nor"),
            "{bad}: {code} {error}"
        );
    }
    let (code, _, error) = shelf.run(None, &["add", "edge/none"]);
    assert!(
        code == 3 && error.contains("127.0.0.1:1") && error.contains("HF_ENDPOINT"),
        "{code} {error}"
    );
}

#[test]
fn ctrl_c_and_a_kill_during_a_transfer_leave_nothing_that_stays() {
    let shelf = Shelf::new();
    shelf.copy(VAD, "hub/edge/silero");
    let hub = Hub::start(&shelf.path("hub"), &["--stall", GRAPH]);
    let begin = || {
        let child = shelf
            .command(Some(&hub), &["add", "edge/silero"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let part = shelf
            .models()
            .join(".adding-silero-vad/silero-vad")
            .join(GRAPH);
        let begun = Instant::now();
        while fs::metadata(&part).map_or(0, |facts| facts.len()) == 0 {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{} does not grow",
                part.display()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        child
    };
    let mut child = begin();
    // Somebody else is told, and does not sweep away what is being written.
    let from = shelf.copy(VAD, "from");
    let (code, _, error) = shelf.run(None, &["add", from.to_str().unwrap()]);
    assert!(
        code == 8 && error.contains("another process"),
        "{code} {error}"
    );
    kill(
        Pid::from_raw(child.id().try_into().unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(shelf.found(), Vec::<String>::new(), "after Ctrl-C");

    let mut child = begin();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        !shelf.found().iter().any(|path| path.starts_with(VAD)),
        "{:?}",
        shelf.found()
    );
    let (code, _, error) = shelf.run(None, &["add", from.to_str().unwrap()]);
    assert_eq!(code, 0, "{error}");
    assert!(
        shelf.found().iter().all(|path| path.starts_with(VAD)),
        "the rest of the killed one is gone: {:?}",
        shelf.found()
    );
}

#[test]
fn a_bundle_is_removed_when_that_is_confirmed_and_a_link_goes_without_what_it_leads_to() {
    let shelf = Shelf::new();
    let elsewhere = shelf.copy(VAD, "elsewhere/silero-vad");
    let from = shelf.copy(VAD, "from");
    assert_eq!(shelf.run(None, &["add", from.to_str().unwrap()]).0, 0);
    let (code, _, error) = shelf.run(None, &["remove", VAD]);
    assert!(code == 2 && error.contains("--yes"), "{code} {error}");
    assert!(shelf.models().join(VAD).is_dir());
    let (code, out, error) = shelf.run(None, &["remove", "--yes", VAD]);
    assert!(code == 0 && out.contains("removed"), "{code} {error}");
    assert_eq!(shelf.found(), Vec::<String>::new());
    let (code, _, error) = shelf.run(None, &["remove", "--yes", VAD]);
    assert!(
        code == 4 && error.contains("there is no bundle"),
        "{code} {error}"
    );
    let (code, _, error) = shelf.run(None, &["remove", "--yes", "../elsewhere"]);
    assert!(
        code == 2 && error.contains("cannot be a bundle's"),
        "{code} {error}"
    );

    symlink(&elsewhere, shelf.models().join(VAD)).unwrap();
    assert_eq!(shelf.run(None, &["remove", "--yes", VAD]).0, 0);
    assert_eq!(shelf.found(), Vec::<String>::new());
    assert!(elsewhere.join(GRAPH).is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_verifies_and_measures_bundles_and_those_in_use_are_not_removed() {
    let shelf = Shelf::new();
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.write_config("").unwrap();
    let models = edge_box.cache().join("models");
    edge_box
        .edit_config(|text| {
            let before = format!("model_dirs = [{models:?}]");
            text.replace(
                &before,
                &format!(
                    "model_dirs = [{models:?}, {:?}]\nvad = \"silero-other\"",
                    shelf.models()
                ),
            )
        })
        .unwrap();
    edge_box.start_daemon().unwrap();
    edge_box
        .wait_for_status("the daemon", |_| true)
        .await
        .unwrap();
    let ctl = |arguments: &[&str]| {
        let mut command = Command::new(program("autoglmctl").unwrap());
        command
            .args(["--bus", &edge_box.bus_address(), "models"])
            .args(arguments);
        outcome(
            command
                .stdin(Stdio::null())
                .env("HOME", shelf.path("home"))
                .output()
                .unwrap(),
        )
    };
    // Added where the daemon says, while it runs, and used by it without more ado.
    let from = shelf.copy(VAD, "from");
    manifest(&from, |text| {
        text.replace("name = \"silero-vad\"", "name = \"silero-other\"")
    });
    let (code, out, error) = ctl(&["add", from.to_str().unwrap()]);
    assert!(
        code == 0 && out.contains(shelf.models().to_str().unwrap()),
        "{code} {out} {error}"
    );
    edge_box
        .wait_for_status("the model that was added", |status| {
            let models = status["models"].as_array().unwrap();
            models
                .iter()
                .any(|model| model["name"] == "silero-other" && model["state"] == "ready")
        })
        .await
        .unwrap();
    let (code, _, error) = ctl(&["remove", "--yes", "silero-other"]);
    assert!(
        code == 8 && error.contains("in use") && error.contains("--force"),
        "{code} {error}"
    );

    let (code, out, error) = ctl(&["verify", "silero-other"]);
    assert!(
        code == 0 && out.contains("silero-other: sound:") && out.contains("probe passed"),
        "{code} {out} {error}"
    );
    let (code, out, error) = ctl(&["benchmark", "silero-other", "--json"]);
    assert_eq!(code, 0, "{error}");
    let measured: Value = serde_json::from_str(&out).unwrap();
    let figures = measured["benchmark"]["figures"].as_array().unwrap();
    assert!(
        figures[0]["value"].as_f64().unwrap() > 0.0 && figures[0]["unit"] == "ms",
        "{measured}"
    );
    assert!(
        measured["benchmark"]["peak_kib"].as_f64().unwrap() > 1000.0,
        "{measured}"
    );
    for (arguments, unit) in [
        (["benchmark", "all-minilm-l6-v2-int8"], "sentences/s"),
        (["benchmark", "smollm2-135m-instruct-int4"], "tokens/s"),
    ] {
        let (code, out, error) = ctl(&arguments);
        assert!(
            code == 0 && out.contains(unit) && out.contains("memory at most"),
            "{code} {out} {error}"
        );
        println!("{out}");
    }
    let (code, _, error) = ctl(&["verify", "no-such"]);
    assert!(code == 4 && error.contains("no-such"), "{code} {error}");

    // A probe that says something else: the digests are right, the model is not.
    let wrong = shelf.copy(VAD, "wrong");
    let probe = fs::read_to_string(wrong.join("probe.json")).unwrap();
    let mut json: Value = serde_json::from_str(&probe).unwrap();
    json["probabilities"][0] = 0.987.into();
    let spoiled = json.to_string();
    fs::write(wrong.join("probe.json"), &spoiled).unwrap();
    use sha2::Digest as _;
    let digest = |text: &str| {
        sha2::Sha256::digest(text)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    manifest(&wrong, |text| {
        text.replace("name = \"silero-vad\"", "name = \"silero-wrong\"")
            .replace(&digest(&probe), &digest(&spoiled))
            .replace(
                &format!("bytes = {}", probe.len()),
                &format!("bytes = {}", spoiled.len()),
            )
    });
    assert_eq!(ctl(&["add", wrong.to_str().unwrap()]).0, 0);
    let (code, out, error) = ctl(&["verify"]);
    assert!(
        code == 11
            && error.contains("silero-wrong failed at loading and the probe")
            && error.contains("0.987"),
        "{code} {out} {error}"
    );
    assert!(
        out.contains("silero-other: sound") && out.contains("silero-vad: sound"),
        "the others are tried all the same: {out}"
    );
    // A file that changed on the disk since.
    let graph = shelf.models().join("silero-other").join(GRAPH);
    let mut bytes = fs::read(&graph).unwrap();
    bytes[1000] ^= 1;
    fs::write(&graph, bytes).unwrap();
    let (code, _, error) = ctl(&["verify", "silero-other"]);
    assert!(
        code == 11 && error.contains("SHA-256") && error.contains(GRAPH),
        "{code} {error}"
    );
    assert_eq!(ctl(&["remove", "--yes", "--force", "silero-other"]).0, 0);
    assert!(!shelf.models().join("silero-other").exists());
}
