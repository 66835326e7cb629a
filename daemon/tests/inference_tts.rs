//! Text to speech with the real ONNX Runtime, the shipped voice and the real espeak-ng. Only where espeak-ng is to go wrong, a script stands in for it.

mod bundles;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use autoglm_edge::inference::{
    Inference, InferenceConfig, InferenceHandle,
    class::Class,
    error::{InferenceError, LoadError},
    manifest::Task,
    status::ModelState,
    tts::{
        SpeakRequest, Spoken,
        espeak::EspeakError,
        sentences::{PIECE_CHARS_MAX, TEXT_CHARS_MAX},
    },
};

const SENTENCE: &str = "The lamp in the kitchen is on, and the front door is closed.";

/// The engine with the voice alone.
fn start(dir: &Path, espeak_ng: &Path) -> Inference {
    Inference::start(InferenceConfig {
        embedding: "none".into(),
        chat: "none".into(),
        vad: "none".into(),
        tts: Some(bundles::TTS.into()),
        espeak_ng: espeak_ng.into(),
        ..bundles::config_of(dir, &[bundles::TTS])
    })
}

async fn voice() -> (tempfile::TempDir, Inference) {
    let dir = tempfile::tempdir().unwrap();
    let inference = start(dir.path(), Path::new(autoglm_edge::config::ESPEAK_NG));
    let handle = inference.handle();
    let ready = handle.wait_ready(Task::Tts, bundles::PATIENCE);
    ready.await.expect("the voice loads");
    (dir, inference)
}

/// Everything of a text that always sounds the same.
async fn say(handle: &InferenceHandle, text: &str) -> Result<Vec<Spoken>, InferenceError> {
    say_as(
        handle,
        SpeakRequest {
            variation: 0.0,
            ..SpeakRequest::new(text)
        },
    )
    .await
}

async fn say_as(
    handle: &InferenceHandle,
    request: SpeakRequest,
) -> Result<Vec<Spoken>, InferenceError> {
    let mut speech = handle.tts().unwrap().speak(request)?;
    let mut all = Vec::new();
    while let Some(spoken) = speech.next().await {
        all.push(spoken?);
    }
    assert!(speech.next().await.is_none(), "the end stays the end");
    Ok(all)
}

fn seconds(spoken: &[Spoken]) -> f64 {
    let samples: usize = spoken.iter().map(|spoken| spoken.samples.len()).sum();
    samples as f64 / f64::from(spoken[0].sample_rate_hz)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentence_is_as_long_as_one_that_is_spoken_and_is_no_silence() {
    let (_dir, inference) = voice().await;
    let handle = inference.handle();
    let spoken = say(&handle, SENTENCE).await.unwrap();
    assert_eq!(spoken.len(), 1);
    assert_eq!(
        (spoken[0].text.as_str(), spoken[0].sample_rate_hz),
        (SENTENCE, 22_050)
    );
    // 12 words: at two to five a second.
    let length = seconds(&spoken);
    assert!((2.4..6.0).contains(&length), "{length} s");
    let samples = &spoken[0].samples;
    let peak = samples
        .iter()
        .map(|sample| sample.unsigned_abs())
        .max()
        .unwrap();
    assert_eq!(peak, 32_767, "as loud as it can be");
    let power = samples
        .iter()
        .map(|sample| f64::from(*sample).powi(2))
        .sum::<f64>();
    let rms = (power / samples.len() as f64).sqrt();
    assert!((500.0..12_000.0).contains(&rms), "{rms}");
    // A voice is no hiss: most of its power is below 4 kHz, so neighbours are alike.
    let pairs = samples
        .windows(2)
        .map(|pair| f64::from(pair[0]) * f64::from(pair[1]));
    let alike = pairs.sum::<f64>() / power;
    assert!(alike > 0.7, "{alike}");

    assert_eq!(
        say(&handle, SENTENCE).await.unwrap()[0].samples,
        *samples,
        "without variation it is the same"
    );
    let other = say(
        &handle,
        "The lamp in the kitchen is off, and the front door is open.",
    )
    .await
    .unwrap();
    assert_ne!(other[0].samples, *samples);
    let varied = say_as(&handle, SpeakRequest::new(SENTENCE)).await.unwrap();
    assert_ne!(varied[0].samples, *samples, "with it it is not");
    let fast = SpeakRequest {
        speed: 2.0,
        variation: 0.0,
        ..SpeakRequest::new(SENTENCE)
    };
    let fast = seconds(&say_as(&handle, fast).await.unwrap());
    assert!(
        (0.4..0.65).contains(&(fast / length)),
        "{fast} of {length} s"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sentences_come_one_by_one_and_who_leaves_gets_no_more_of_them() {
    let (_dir, inference) = voice().await;
    let handle = inference.handle();
    let text = "The first sentence is about the lamp. The second sentence is about the door. The third one is about nothing.";
    let all = say(&handle, text).await.unwrap();
    let texts: Vec<&str> = all.iter().map(|spoken| spoken.text.as_str()).collect();
    assert_eq!(texts.join(" "), text);
    assert_eq!(all.len(), 3);
    assert!(
        all[0].samples[..100] != [0; 100] && all[1].samples[..4_410] == [0; 4_410],
        "a pause between, and none before"
    );

    // Twenty sentences of somebody in the background, who leaves after the first; one of a voice comes between, at the second or third place.
    let long = "It is getting late and the light in the hall is still on. ".repeat(20);
    let mut background = handle
        .tts()
        .unwrap()
        .speak(SpeakRequest {
            class: Class::Background,
            ..SpeakRequest::new(long)
        })
        .unwrap();
    let first = background.next().await.unwrap().unwrap();
    let begun = Instant::now();
    let voice = SpeakRequest {
        class: Class::Voice,
        ..SpeakRequest::new(SENTENCE)
    };
    let (spoken, second) = tokio::join!(say_as(&handle, voice), background.next());
    let waited = begun.elapsed();
    assert_eq!(spoken.unwrap().len(), 1);
    second.unwrap().unwrap();
    drop(background);
    say(&handle, "Yes.").await.unwrap();
    let piece = first.timings.infer + first.timings.phonemes;
    println!(
        "a piece took {piece:?}, the voice and the next piece {waited:?}, all until now {:?}",
        begun.elapsed()
    );
    // Not a matter of speed: eighteen sentences were left.
    assert!(
        begun.elapsed() < piece * 15,
        "{:?} of {piece:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_text_holds_it_is_spoken_or_refused_by_name() {
    let (_dir, inference) = voice().await;
    let handle = inference.handle();
    for empty in ["", " \n\t ", "\u{0}\u{1}\u{7f}", "...", "?!", "\u{200b}"] {
        let error = say(&handle, empty).await.unwrap_err();
        assert!(
            matches!(error, InferenceError::Silent),
            "{empty:?}: {error}"
        );
    }
    let long = "word ".repeat(TEXT_CHARS_MAX);
    let error = say(&handle, &long).await.unwrap_err().to_string();
    assert!(
        error.contains("characters of the text is 50000") && error.contains("10000"),
        "{error}"
    );
    let word = "x".repeat(100 << 10);
    let error = say(&handle, &word).await.unwrap_err().to_string();
    assert!(
        error.contains("characters of the text is 102400"),
        "{error}"
    );
    let error = say(&handle, &"x".repeat(PIECE_CHARS_MAX + 1))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("characters of one word is 201") && error.contains("200"),
        "{error}"
    );
    for (request, part) in [
        (
            SpeakRequest {
                speed: 0.1,
                ..SpeakRequest::new("a")
            },
            "speed is 0.1, allowed are 0.25 to 4",
        ),
        (
            SpeakRequest {
                speed: f32::NAN,
                ..SpeakRequest::new("a")
            },
            "speed is NaN",
        ),
        (
            SpeakRequest {
                variation: 1.5,
                ..SpeakRequest::new("a")
            },
            "variation is 1.5",
        ),
        (
            SpeakRequest {
                speaker: 1,
                ..SpeakRequest::new("a")
            },
            "speaker is 1, allowed are 0 to 0",
        ),
    ] {
        let error = say_as(&handle, request).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    // Options, commands and markup of espeak-ng are text; other scripts are read by their letters' names or sounds.
    for text in [
        "-v de --stdout",
        "\u{1}v \u{1}+10s a",
        "[[h@l'oU]] <speak>hello</speak>",
        "a\u{0}b\nc\r\nd",
        "Привет, как дела?",
        "你好。今天天气怎么样？",
        "مرحبا بالعالم",
        "🙂 naïve œuvre ﬁ 1/2 €3.50 10:30 p.m.",
        "9".repeat(PIECE_CHARS_MAX).as_str(),
    ] {
        match say(&handle, text).await {
            Ok(spoken) => println!(
                "{:.1} s of {:?}",
                seconds(&spoken),
                text.chars().take(20).collect::<String>()
            ),
            Err(error) => panic!("{text:?}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_that_waits_longer_than_it_may_is_refused() {
    let (_dir, inference) = voice().await;
    let handle = inference.handle();
    let long = SpeakRequest::new(SENTENCE.repeat(4));
    let _busy = handle.tts().unwrap().speak(long).unwrap();
    let late = SpeakRequest {
        begin_within: Some(Duration::ZERO),
        ..SpeakRequest::new("Too late.")
    };
    let error = say_as(&handle, late).await.unwrap_err();
    assert!(
        matches!(
            error,
            InferenceError::Overloaded {
                task: Task::Tts,
                ..
            }
        ),
        "{error}"
    );
}

/// A stand-in for espeak-ng: a shell script.
fn script(dir: &Path, lines: &str) -> PathBuf {
    let path = dir.join("stand-in-for-espeak-ng");
    let fresh = dir.join("fresh");
    fs::write(&fresh, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(fresh, &path).unwrap();
    path
}

async fn settled(handle: &InferenceHandle, is_it: impl Fn(&ModelState) -> bool) -> ModelState {
    let mut status = handle.status();
    let settled = status.wait_for(|status| is_it(&status.model(Task::Tts).unwrap().state));
    let status = tokio::time::timeout(bundles::PATIENCE, settled).await;
    status
        .expect("it settles")
        .unwrap()
        .model(Task::Tts)
        .unwrap()
        .state
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_espeak_ng_the_model_is_disabled_by_the_packages_name_and_comes_when_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let models = dir.path().join("models");
    fs::create_dir(&models).unwrap();
    let program = dir.path().join("stand-in-for-espeak-ng");
    let inference = start(&models, &program);
    let handle = inference.handle();
    let state = settled(&handle, |state| {
        matches!(state, ModelState::Disabled { .. })
    })
    .await;
    let ModelState::Disabled { error } = &state else {
        unreachable!()
    };
    assert!(
        matches!(
            **error,
            LoadError::Phonemes {
                source: EspeakError::Missing { .. }
            }
        ),
        "{error:?}"
    );
    assert!(
        state
            .to_string()
            .contains("install Debian's package espeak-ng"),
        "{state}"
    );
    let error = say(&handle, SENTENCE).await.unwrap_err();
    assert!(
        matches!(
            error,
            InferenceError::NotReady {
                task: Task::Tts,
                ..
            }
        ),
        "{error}"
    );

    std::os::unix::fs::symlink(autoglm_edge::config::ESPEAK_NG, &program).unwrap();
    settled(&handle, ModelState::is_ready).await;
    say(&handle, SENTENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_espeak_ng_that_dies_hangs_or_talks_nonsense_fails_one_sentence_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let models = dir.path().join("models");
    fs::create_dir(&models).unwrap();
    let sound = format!("exec {} \"$@\"", autoglm_edge::config::ESPEAK_NG);
    let program = script(dir.path(), &sound);
    let inference = start(&models, &program);
    let handle = inference.handle();
    handle
        .wait_ready(Task::Tts, bundles::PATIENCE)
        .await
        .unwrap();
    type Is = fn(&EspeakError) -> bool;
    let cases: [(&str, &str, &str, Is); 8] = [
        ("it is killed", "kill -9 $$", "SIGKILL", |error| {
            matches!(error, EspeakError::Failed { .. })
        }),
        (
            "it fails",
            "echo 'Error: the voice \u{1b}[31m does not exist' >&2; exit 2",
            "exit status: 2): Error: the voice [31m does not exist",
            |error| matches!(error, EspeakError::Failed { .. }),
        ),
        ("it hangs", "sleep 617", "longer than 3000 ms", |error| {
            matches!(error, EspeakError::TimedOut { .. })
        }),
        (
            "it leaves a child with its output",
            "sleep 617 & echo a",
            "longer than 3000 ms",
            |error| matches!(error, EspeakError::TimedOut { .. }),
        ),
        (
            "it closes its output and hangs",
            "echo a; exec >&- 2>&-; sleep 617",
            "longer than 3000 ms",
            |error| matches!(error, EspeakError::TimedOut { .. }),
        ),
        (
            "it never stops",
            "yes a",
            "more than 65536 bytes",
            |error| matches!(error, EspeakError::TooLong { .. }),
        ),
        (
            "it prints no text",
            "printf '\\377\\376'",
            "not UTF-8",
            |error| matches!(error, EspeakError::NotText { .. }),
        ),
        (
            "it prints nonsense",
            "echo '%%% &&& 中文 ###'",
            "unknown",
            |error| matches!(error, EspeakError::Foreign { .. }),
        ),
    ];
    for (what, lines, part, is_it) in cases {
        script(dir.path(), lines);
        let begun = Instant::now();
        let error = say(&handle, SENTENCE).await.unwrap_err();
        let InferenceError::Phonemes { source } = &error else {
            panic!("{what}: {error}")
        };
        assert!(
            is_it(source) && source.to_string().contains(part),
            "{what}: {source}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{what}: killed with all that it started"
        );
    }
    // Nobody it had started is left.
    let left = std::process::Command::new("pgrep")
        .args(["-f", "^sleep 617$"])
        .output()
        .unwrap();
    assert!(
        left.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&left.stdout)
    );
    script(dir.path(), "cat > /dev/null");
    let error = say(&handle, SENTENCE).await.unwrap_err();
    assert!(
        matches!(error, InferenceError::Silent),
        "it says nothing: {error}"
    );
    // Neither text nor the daemon's environment is where others could read it.
    let seen = dir.path().join("seen");
    script(
        dir.path(),
        &format!(
            "{{ tr '\\0' '\\n' < /proc/$$/environ; echo \"$@\"; pwd; }} > {}; {sound}",
            seen.display()
        ),
    );
    say(&handle, "Something private.").await.unwrap();
    let seen = fs::read_to_string(&seen).unwrap();
    assert_eq!(seen.trim(), "-q --ipa --stdin -b 1 -v en-us\n/");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_stops_at_once_while_it_speaks_or_waits_for_phonemes() {
    let (_dir, inference) = voice().await;
    let handle = inference.handle();
    let mut speech = handle
        .tts()
        .unwrap()
        .speak(SpeakRequest::new(SENTENCE.repeat(4)))
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    inference
        .stop(Duration::from_secs(10))
        .await
        .expect("its threads end");
    let error = loop {
        match speech.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => return,
        }
    };
    assert!(matches!(error, InferenceError::Stopping), "{error}");
}
