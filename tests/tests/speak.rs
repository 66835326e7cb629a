//! The voice by its doors: `Speak` on the bus and `autoglmctl speak`, with the real daemon, voice and espeak-ng. A script stands in for the player, since there is no
//! loudspeaker here.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use autoglm_tests::edge_box::EdgeBox;
use autoglm_tests::process::program;
use serde_json::Value;
use zbus::Variant;

const TEXT: &str = "The lamp in the kitchen is on. The front door has been closed since seven.";

/// A box without devices, whose daemon has this in its configuration; `state` is what becomes of the voice.
async fn speaking(more: &str, state: &str) -> EdgeBox {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.write_config("").unwrap();
    if !more.is_empty() {
        let with =
            |config: &str| config.replace("[inference]\n", &format!("[inference]\n{more}\n"));
        edge_box.edit_config(with).unwrap();
    }
    edge_box.start_daemon().unwrap();
    let is_so = |status: &Value| {
        let models = status["models"].as_array().into_iter().flatten();
        let voice = models.into_iter().find(|model| model["task"] == "tts");
        voice.map_or("none", |voice| voice["state"].as_str().unwrap_or("")) == state
            && status["models"].is_array()
    };
    edge_box.wait_for_status("the voice", is_so).await.unwrap();
    edge_box
}

fn command(edge_box: &EdgeBox, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("autoglmctl").unwrap());
    command
        .args(["--bus", &edge_box.bus_address(), "speak"])
        .args(arguments)
        .env_remove("AUTOGLM_BUS")
        .stdin(Stdio::null());
    command
}

fn run(edge_box: &EdgeBox, arguments: &[&str]) -> (i32, Output, String) {
    outcome(command(edge_box, arguments).output().unwrap())
}

fn outcome(output: Output) -> (i32, Output, String) {
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    (output.status.code().unwrap(), output, error)
}

/// Samples per second, and how many seconds of them are there, up to the end of the stream.
fn sound(wav: &[u8]) -> (u32, f64) {
    let reader = hound::WavReader::new(wav).unwrap();
    let spec = reader.spec();
    assert_eq!((spec.channels, spec.bits_per_sample), (1, 16));
    let samples: Vec<i16> = reader.into_samples().map_while(Result::ok).collect();
    assert!(
        samples.iter().any(|sample| sample.unsigned_abs() > 30_000),
        "it is no silence"
    );
    (
        spec.sample_rate,
        samples.len() as f64 / f64::from(spec.sample_rate),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_becomes_a_file_or_a_stream_or_is_played() {
    let mut edge_box = speaking("", "ready").await;
    let dir = edge_box.path("said");
    fs::create_dir(&dir).unwrap();
    let place = dir.join("said.wav");
    let file = place.to_str().unwrap();

    let (code, output, error) = run(&edge_box, &[TEXT, "--output", file]);
    assert!(
        code == 0 && output.stdout.is_empty() && error.contains("s of speech"),
        "{code} {error}"
    );
    let (rate, seconds) = sound(&fs::read(&place).unwrap());
    assert!(
        rate == 22_050 && (3.0..8.0).contains(&seconds),
        "{rate} {seconds}"
    );
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    let (code, output, _) = run(
        &edge_box,
        &["--json", "--speed", "2", "--output", file, TEXT],
    );
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let spoken = &told["spoken"];
    assert_eq!(
        (code, &told["version"], &spoken["file"]),
        (0, &1.into(), &file.into()),
        "{told}"
    );
    let fast = spoken["seconds"].as_f64().unwrap();
    assert!((0.4..0.7).contains(&(fast / seconds)), "{told}");
    assert!(
        (sound(&fs::read(&place).unwrap()).1 - fast).abs() < 0.01,
        "the new one has taken its place"
    );

    // Words from a pipe, sound into one.
    let mut child = command(&edge_box, &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(TEXT.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let (rate, streamed) = sound(&output.stdout);
    assert!(
        rate == 22_050 && (streamed / seconds - 1.0).abs() < 0.3,
        "{streamed} {seconds}"
    );

    // On a terminal, made by util-linux's `script`.
    let bin = edge_box.path("bin");
    fs::create_dir(&bin).unwrap();
    let played = edge_box.path("played");
    let on_terminal = |edge_box: &EdgeBox| {
        let autoglmctl = program("autoglmctl").unwrap();
        let line = format!(
            "{} --bus {} speak It is late.",
            autoglmctl.display(),
            edge_box.bus_address()
        );
        let mut command = Command::new("/usr/bin/script");
        command
            .args(["-qec", &line, "/dev/null"])
            .env("PATH", &bin)
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (code, said) = on_terminal(&edge_box);
    assert!(
        code == 8 && said.contains("aplay (alsa-utils)") && said.contains("--output"),
        "{code} {said}"
    );
    let stand_in = bin.join("aplay");
    fs::write(
        &stand_in,
        format!(
            "#!/bin/sh\necho \"$@\" > {0}\n/bin/cat >> {0}\n",
            played.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
    let (code, said) = on_terminal(&edge_box);
    assert!(
        code == 0 && said.contains("played by aplay"),
        "{code} {said}"
    );
    let heard = fs::read(&played).unwrap();
    let arguments = b"-q -t raw -f S16_LE -c 1 -r 22050 -\n";
    assert!(
        heard.starts_with(arguments) && heard.len() > 22_050,
        "{}",
        heard.len()
    );
    fs::write(&stand_in, "#!/bin/sh\nexit 3\n").unwrap();
    let (code, said) = on_terminal(&edge_box);
    assert!(
        code == 8 && said.contains("aplay could not play it (exit status: 3)"),
        "{code} {said}"
    );

    // The daemon dies in the middle: no half of a file.
    let long = "It is getting late and the light in the hall is still on. ".repeat(40);
    let lost = dir.join("lost.wav");
    let child = command(&edge_box, &[&long, "--output", lost.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    edge_box
        .wait_for_status("the first sentence", |_| {
            fs::read_dir(&dir).unwrap().count() == 2
        })
        .await
        .unwrap();
    edge_box.daemon().unwrap().kill();
    let (code, _, error) = outcome(child.wait_with_output().unwrap());
    assert!(code == 3 && error.contains("broke off"), "{code} {error}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_spoken_or_written_is_said_and_leaves_nothing() {
    let edge_box = speaking("", "ready").await;
    let dir = edge_box.path("said");
    fs::create_dir(&dir).unwrap();
    let file = dir.join("said.wav");
    let file = file.to_str().unwrap();
    let long = "word ".repeat(3_000);
    for (arguments, code, part) in [
        (
            &["...", "-o", file][..],
            5,
            "nothing in the text that can be spoken",
        ),
        (
            &["", "-o", file],
            5,
            "nothing in the text that can be spoken",
        ),
        (
            &[&long, "-o", file],
            5,
            "characters of the text is 15000, allowed are up to 10000",
        ),
        (
            &["--speed", "9", "a", "-o", file],
            5,
            "speed is 9, allowed are 0.25 to 4",
        ),
        (
            &["--speaker", "3", "a", "-o", file],
            5,
            "speaker is 3, allowed are 0 to 0",
        ),
        (&["--json", "a"], 2, "--output FILE"),
        (&["a", "-o", "/"], 2, "is a directory"),
        (
            &["a", "-o", "/nonexistent/said.wav"],
            1,
            "/nonexistent/said.wav",
        ),
    ] {
        let (seen, output, error) = run(&edge_box, arguments);
        assert!(
            seen == code && error.contains(part) && output.stdout.is_empty(),
            "{part}: {seen} {error}"
        );
    }
    let full = Path::new("/dev/full");
    let (code, _, error) = run(&edge_box, &["a", "-o", full.to_str().unwrap()]);
    assert!(
        code == 1 && error.contains("No space left"),
        "{code} {error}"
    );
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);

    // By hand: the lines, and the sound between them.
    let models = edge_box.models().await.unwrap();
    let pipe = models.speak(TEXT, HashMap::new()).await.unwrap();
    let events = tokio::task::spawn_blocking(move || {
        let mut pipe = BufReader::new(fs::File::from(OwnedFd::from(pipe)));
        let (mut events, mut line) = (Vec::new(), String::new());
        while pipe.read_line(&mut line).unwrap() > 0 {
            let event: Value = serde_json::from_str(&line).unwrap();
            let mut sound = vec![0; event["bytes"].as_u64().unwrap_or(0) as usize];
            pipe.read_exact(&mut sound).unwrap();
            events.push(event);
            line.clear();
        }
        events
    });
    let events = events.await.unwrap();
    let names: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["format", "audio", "audio", "done"], "{events:?}");
    assert_eq!(events[0]["encoding"], "s16le");
    assert_eq!(
        events[2]["text"],
        "The front door has been closed since seven."
    );
    for (options, part) in [
        (("sped", Variant::from(1.0)), "unknown option"),
        (("speed", Variant::from("fast")), "must be a double"),
        (("speaker", Variant::from(-1)), "unsigned"),
        (("class", Variant::from("fleet")), "must be one of"),
    ] {
        let error = models
            .speak("a", HashMap::from([options]))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("InvalidArgument") && error.contains(part),
            "{error}"
        );
    }
    // Who closes the pipe is not spoken to any more: the next one does not wait for forty sentences.
    let long = "It is getting late and the light in the hall is still on. ".repeat(40);
    drop(models.speak(&long, HashMap::new()).await.unwrap());
    let (code, _, error) = run(&edge_box, &["It is late.", "-o", file]);
    assert_eq!(code, 0, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_cannot_speak_says_why_and_lives() {
    for (more, state, parts) in [
        (
            "espeak_ng = \"/nonexistent/espeak-ng\"",
            "disabled",
            [
                "/nonexistent/espeak-ng is not there",
                "Debian's package espeak-ng",
            ],
        ),
        (
            "tts = \"no-such-voice\"",
            "missing",
            ["no-such-voice/model.toml", "make models"],
        ),
        (
            "tts = \"\"",
            "none",
            ["no voice is configured", "inference.tts"],
        ),
    ] {
        let edge_box = speaking(more, state).await;
        let (code, output, error) = run(&edge_box, &["It is late."]);
        assert!(code == 8 && output.stdout.is_empty(), "{code} {error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        let log = edge_box.log();
        assert!(!log.contains("panicked"), "{log}");
        let is_said = |line: &&str| line.contains("ERROR") && line.contains("tts");
        let said = log.lines().filter(is_said).count();
        assert_eq!(said, usize::from(state != "none"), "said once: {log}");
    }
}
