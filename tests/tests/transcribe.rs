//! Speech to text through the real doors: `autoglmctl transcribe`, and `Transcribe` on the bus, with people speaking (Debian's `pocketsphinx-testdata`).

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use autoglm_tests::edge_box::EdgeBox;
use autoglm_tests::process::program;
use serde_json::Value;
use zbus::Variant;

const MODEL: &str = "whisper-tiny-en-int8";
/// "He was not an ill-disposed young man."
const YOUNG_MAN: &str =
    "/usr/share/pocketsphinx/test/data/librivox/sense_and_sensibility_01_austen_64kb-0880.wav";
/// "Go forward ten meters", without a header.
const GO_FORWARD: &str = "/usr/share/pocketsphinx/test/data/goforward.raw";

async fn hearing() -> EdgeBox {
    with_models(false).await
}

/// `speaks`: with the default voice besides.
async fn with_models(speaks: bool) -> EdgeBox {
    for file in [YOUNG_MAN, GO_FORWARD] {
        assert!(
            Path::new(file).is_file(),
            "{file}: `make test` installs pocketsphinx-testdata"
        );
    }
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.write_config("").unwrap();
    edge_box
        .edit_config(|config| config.replace("stt = \"\"", &format!("stt = \"{MODEL}\"")))
        .unwrap();
    let tasks: &[&str] = match speaks {
        true => {
            let default = |config: &str| config.replace("tts = \"\"\n", "");
            edge_box.edit_config(default).unwrap();
            &["stt", "tts"]
        }
        false => &["stt"],
    };
    edge_box.start_daemon().unwrap();
    let is_ready = |status: &Value| {
        let models: Vec<&Value> = status["models"].as_array().into_iter().flatten().collect();
        tasks.iter().all(|task| {
            models
                .iter()
                .any(|model| model["task"] == *task && model["state"] == "ready")
        })
    };
    edge_box
        .wait_for_status("the model for speech", is_ready)
        .await
        .unwrap();
    edge_box
}

fn ctl(edge_box: &EdgeBox, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("autoglmctl").unwrap());
    command
        .args(["--bus", &edge_box.bus_address()])
        .args(arguments);
    command.env_remove("AUTOGLM_BUS").stdin(Stdio::null());
    command
}

fn ran(edge_box: &EdgeBox, arguments: &[&str]) -> (i32, String, String) {
    told(ctl(edge_box, arguments).output().unwrap())
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn piped(edge_box: &EdgeBox, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut command = ctl(edge_box, arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A daemon that has heard enough closes its end.
    let _ = child.stdin.take().unwrap().write_all(input);
    told(child.wait_with_output().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_a_pipe_and_bare_samples_are_written_down_and_what_is_no_sound_is_told_why() {
    let edge_box = hearing().await;
    let (code, out, error) = ran(&edge_box, &["transcribe", YOUNG_MAN]);
    assert_eq!(code, 0, "{out} {error}");
    assert!(out.to_lowercase().contains("young man"), "{out}");
    let (code, timed, _) = ran(&edge_box, &["transcribe", "--times", YOUNG_MAN]);
    assert!(
        code == 0 && timed.contains("0:0") && timed.contains(out.trim()),
        "{timed}"
    );

    let bytes = fs::read(YOUNG_MAN).unwrap();
    let (code, piped_out, error) = piped(&edge_box, &["transcribe", "-"], &bytes);
    assert_eq!((code, &piped_out), (0, &out), "{error}");
    let (code, json, _) = ran(&edge_box, &["transcribe", "--json", YOUNG_MAN]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let transcript = &json["transcript"];
    assert_eq!((code, &json["version"]), (0, &Value::from(1)));
    assert_eq!(
        transcript["text"].as_str().unwrap(),
        out.trim().replace('\n', " ")
    );
    let end = transcript["segments"][0]["end_ms"].as_u64().unwrap();
    let sound = transcript["sound_ms"].as_u64().unwrap();
    assert!(0 < end && end <= sound && sound == 2990, "{transcript}");

    let (code, out, error) = ran(&edge_box, &["transcribe", "--raw", GO_FORWARD]);
    assert!(
        code == 0 && out.to_lowercase().contains("forward"),
        "{out} {error}"
    );

    let quiet = [&bytes[..44], &vec![0; bytes.len() - 44]].concat();
    let (code, out, error) = piped(&edge_box, &["transcribe", "-"], &quiet);
    assert!(
        code == 0 && out.is_empty() && error.contains("nobody speaks in 0:02.99"),
        "{out} {error}"
    );

    let mut eight_bits = bytes.clone();
    (eight_bits[32], eight_bits[34]) = (1, 8);
    eight_bits[28..32].copy_from_slice(&16_000u32.to_le_bytes());
    let mut huge = bytes[..12].to_vec();
    huge.extend(b"LIST\xff\xff\xff\x7f");
    for (input, part) in [
        (&b""[..], "no bytes at all"),
        (&bytes[..44], "is cut off: 0 of"),
        (&bytes[..2000], "is cut off: 978 of"),
        (&bytes[44..], "no WAV file"),
        (&eight_bits, "8 bits, allowed are 16, 24"),
        (&huge, "more than 1048576 bytes"),
    ] {
        let (code, out, error) = piped(&edge_box, &["transcribe", "-"], input);
        assert!(
            code == 5 && out.is_empty() && error.contains(part),
            "{part}: {code} {error}"
        );
    }
    let endless = [&bytes[..40], &[0xff; 4], &vec![9; 610 * 32_000]].concat();
    let (code, _, error) = piped(&edge_box, &["transcribe", "-"], &endless);
    assert!(
        code == 5 && error.contains("longer than 600 s"),
        "{code} {error}"
    );
    let short = [&bytes[..44], &[1; 200]].concat();
    let (code, _, error) = piped(&edge_box, &["transcribe", "--raw", "-"], &short);
    assert!(
        code == 5 && error.contains("0.1 to 600 s"),
        "{code} {error}"
    );
    let (code, _, error) = ran(&edge_box, &["transcribe", "--language", "de", YOUNG_MAN]);
    assert!(
        code == 5 && error.contains("allowed are en"),
        "{code} {error}"
    );
    for (file, part) in [
        ("/nowhere.wav", "cannot open /nowhere.wav"),
        ("/tmp", "a directory"),
    ] {
        let (code, _, error) = ran(&edge_box, &["transcribe", file]);
        assert!(code == 2 && error.contains(part), "{code} {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_bus_a_descriptor_goes_in_and_lines_come_out_and_closing_them_ends_it() {
    let edge_box = hearing().await;
    let models = edge_box.models().await.unwrap();
    let file = || zbus::OwnedFd::from(OwnedFd::from(File::open(YOUNG_MAN).unwrap()));
    let answer = models.transcribe(file(), [].into()).await.unwrap();
    let lines = async |answer: zbus::OwnedFd| {
        let read = move || {
            let lines = BufReader::new(File::from(OwnedFd::from(answer))).lines();
            lines
                .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
                .collect()
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    };
    let told: Vec<Value> = lines(answer).await;
    assert_eq!(told[0]["event"], "segment", "{told:?}");
    let last = told.last().unwrap();
    assert!(
        last["event"] == "done" && last["timings_us"]["hear"].as_u64() > Some(0),
        "{last}"
    );

    let refused = async |name: &'static str, value: Variant<'static>| {
        let error = models
            .transcribe(file(), [(name, value)].into())
            .await
            .unwrap_err();
        error.to_string()
    };
    let said = refused("format", "mp3".into()).await;
    assert!(
        said.contains("InvalidArgument") && said.contains("wav, s16le"),
        "{said}"
    );
    assert!(
        refused("colour", "red".into())
            .await
            .contains("unknown option")
    );
    assert!(
        refused("language", 7u32.into())
            .await
            .contains("must be a string")
    );

    // Pipes that nobody writes into: each has a place, until whoever asked closes the answer.
    let mut held = Vec::new();
    let mut writers = Vec::new();
    for _ in 0..4 {
        let (reader, writer) = std::io::pipe().unwrap();
        writers.push(writer);
        let sound = zbus::OwnedFd::from(OwnedFd::from(reader));
        held.push(models.transcribe(sound, [].into()).await.unwrap());
    }
    let error = models
        .transcribe(file(), [].into())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("Busy") && error.contains("4 sounds"),
        "{error}"
    );
    drop(held.pop());
    let answer = loop {
        match models.transcribe(file(), [].into()).await {
            Ok(answer) => break answer,
            Err(error) => assert!(error.to_string().contains("Busy"), "{error}"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(lines(answer).await.last().unwrap()["event"], "done");
    drop((held, writers));

    // A descriptor that cannot be read at all.
    let directory = zbus::OwnedFd::from(OwnedFd::from(File::open("/").unwrap()));
    let told = lines(models.transcribe(directory, [].into()).await.unwrap()).await;
    assert!(
        told.len() == 1 && told[0]["error"] == "InvalidSound",
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_box_says_it_hears_again_word_for_word_but_for_one_in_eight() {
    let edge_box = with_models(true).await;
    let wav = edge_box.path("said.wav");
    let wav = wav.to_str().unwrap();
    let words = |text: &str| -> Vec<String> {
        let lower = text.to_lowercase();
        let words = lower.split(|letter: char| !letter.is_alphanumeric());
        let words = words.filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    let (mut said, mut missed) = (0, Vec::new());
    for text in [
        "Turn on the light in the kitchen.",
        "The front door has been closed since yesterday evening.",
        "Please set the temperature in the living room to twenty degrees, and close the window.",
    ] {
        let (code, _, error) = ran(&edge_box, &["speak", text, "--output", wav]);
        assert_eq!(code, 0, "{error}");
        let (code, heard, error) = ran(&edge_box, &["transcribe", wav]);
        assert_eq!(code, 0, "{error}");
        // Whisper writes numbers as digits.
        let heard = words(&heard.replace("20", "twenty"));
        let spoken = words(text);
        said += spoken.len();
        missed.extend(spoken.into_iter().filter(|word| !heard.contains(word)));
    }
    assert!(
        missed.len() * 8 <= said,
        "{} of {said}: {missed:?}",
        missed.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_model_for_speech_the_door_says_so_and_everything_else_serves() {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.write_config("").unwrap();
    edge_box.start_daemon().unwrap();
    edge_box
        .wait_for_status("the daemon", |_| true)
        .await
        .unwrap();
    let (code, _, error) = ran(&edge_box, &["transcribe", YOUNG_MAN]);
    assert!(
        code == 8 && error.contains("inference.stt"),
        "{code} {error}"
    );
    let mut sound = Vec::new();
    File::open(YOUNG_MAN)
        .unwrap()
        .read_to_end(&mut sound)
        .unwrap();
    let (code, _, error) = piped(&edge_box, &["transcribe", "-"], &sound);
    assert!(code == 8, "{code} {error}");
}
