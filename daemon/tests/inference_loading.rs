//! What is missing or broken is named, the rest works, and it recovers by itself. On the real ONNX Runtime and real bundles.

mod bundles;

use std::{
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

use autoglm_edge::inference::{
    Inference, InferenceConfig,
    bundle::BundleError,
    error::{InferenceError, LoadError},
    manifest::Task,
    probe::ProbeError,
    status::ModelState,
    vad::VadState,
};

use bundles::{copied, copied_files, digest, until};

fn config_in(dir: &Path) -> InferenceConfig {
    InferenceConfig {
        model_dirs: vec![dir.into()],
        ..bundles::config()
    }
}

/// Why the voice activity bundle in `dir` is refused.
async fn refusal(dir: &Path) -> (Inference, Arc<LoadError>) {
    let inference = Inference::start(config_in(dir));
    let handle = inference.handle();
    let state = until(&handle, Task::Vad, |state| {
        matches!(state, ModelState::Disabled { .. })
    })
    .await;
    println!("{state}");
    let error = handle
        .wait_ready(Task::Vad, bundles::PATIENCE)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            InferenceError::NotReady {
                task: Task::Vad,
                ..
            }
        ),
        "{error}"
    );
    match state {
        ModelState::Disabled { error } => (inference, error),
        other => panic!("{other}"),
    }
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from:?} is in {}", path.display());
    fs::write(path, text.replace(from, to)).unwrap();
}

#[tokio::test]
async fn a_missing_model_is_said_the_others_work_and_it_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let inference = Inference::start(bundles::config_of(dir.path(), &[bundles::VAD]));
    let handle = inference.handle();
    handle
        .wait_ready(Task::Vad, bundles::PATIENCE)
        .await
        .expect("the model that is there works");
    let state = until(&handle, Task::Embedding, |state| {
        matches!(state, ModelState::Missing { .. })
    })
    .await;
    let text = state.to_string();
    assert!(
        text.contains(bundles::EMBEDDING) && text.contains("make models"),
        "{text}"
    );
    let error = handle
        .embedder()
        .embed(vec!["hello".into()])
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            InferenceError::NotReady {
                task: Task::Embedding,
                ..
            }
        ),
        "{error}"
    );

    std::os::unix::fs::symlink(
        bundles::bundle(bundles::EMBEDDING),
        dir.path().join(bundles::EMBEDDING),
    )
    .unwrap();
    handle.recheck();
    handle
        .wait_ready(Task::Embedding, bundles::PATIENCE)
        .await
        .expect("it recovers");
    assert_eq!(
        handle
            .embedder()
            .embed(vec!["hello".into()])
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_corrupted_file_is_named_and_the_model_recovers_when_it_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    copied(dir.path(), bundles::VAD);
    let graph = dir.path().join(bundles::VAD).join("model.onnx");
    let mut file = OpenOptions::new().write(true).open(&graph).unwrap();
    file.seek(SeekFrom::Start(1000)).unwrap();
    file.write_all(b"damage").unwrap();
    drop(file);
    let (inference, error) = refusal(dir.path()).await;
    let LoadError::Bundle(BundleError::Digest {
        path,
        expected,
        actual,
    }) = error.as_ref()
    else {
        panic!("{error}")
    };
    assert_eq!(path, &graph);
    assert_ne!(expected, actual);

    fs::copy(bundles::bundle(bundles::VAD).join("model.onnx"), &graph).unwrap();
    let handle = inference.handle();
    handle.recheck();
    until(&handle, Task::Vad, ModelState::is_ready).await;
}

#[tokio::test]
async fn an_interrupted_copy_is_named_with_both_sizes() {
    let dir = tempfile::tempdir().unwrap();
    copied(dir.path(), bundles::VAD);
    let graph = dir.path().join(bundles::VAD).join("model.onnx");
    OpenOptions::new()
        .write(true)
        .open(&graph)
        .unwrap()
        .set_len(5000)
        .unwrap();
    let (_inference, error) = refusal(dir.path()).await;
    let LoadError::Bundle(BundleError::Size {
        path,
        expected,
        actual: 5000,
    }) = error.as_ref()
    else {
        panic!("{error}")
    };
    assert_eq!(path, &graph);
    assert!(*expected > 5000);
}

#[tokio::test]
async fn a_file_name_that_leads_out_of_the_bundle_is_refused() {
    for escape in ["../outside", "/etc/hostname", "./model.onnx", "linked"] {
        let dir = tempfile::tempdir().unwrap();
        copied(dir.path(), bundles::VAD);
        let bundle = dir.path().join(bundles::VAD);
        fs::write(dir.path().join("outside"), "x").unwrap();
        std::os::unix::fs::symlink("../outside", bundle.join("linked")).unwrap();
        let mut text = fs::read_to_string(bundle.join("model.toml")).unwrap();
        text.push_str(&format!(
            "\n[files.{escape:?}]\nsha256 = \"00\"\nbytes = 1\n"
        ));
        fs::write(bundle.join("model.toml"), text).unwrap();
        let (_inference, error) = refusal(dir.path()).await;
        assert!(
            matches!(
                error.as_ref(),
                LoadError::Bundle(BundleError::Escapes { .. })
            ),
            "{escape}: {error}"
        );
    }
}

#[tokio::test]
async fn a_model_that_fails_its_probe_is_disabled() {
    let dir = tempfile::tempdir().unwrap();
    copied(dir.path(), bundles::VAD);
    let bundle = dir.path().join(bundles::VAD);
    // A probe that another model would pass: the same file with the loudest sample's sign turned is right about sizes and
    // digests, only the model's answer differs.
    let probe = bundle.join("probe.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&probe).unwrap()).unwrap();
    let expected = value["probabilities"][0].as_f64().unwrap();
    value["probabilities"][0] = (if expected > 0.5 {
        expected - 0.4
    } else {
        expected + 0.4
    })
    .into();
    let (old, new) = (
        fs::read(&probe).unwrap(),
        serde_json::to_vec(&value).unwrap(),
    );
    fs::write(&probe, &new).unwrap();
    let manifest = bundle.join("model.toml");
    edit(&manifest, &digest(&old), &digest(&new));
    edit(
        &manifest,
        &format!("bytes = {}\n", old.len()),
        &format!("bytes = {}\n", new.len()),
    );
    let (_inference, error) = refusal(dir.path()).await;
    assert!(
        matches!(
            error.as_ref(),
            LoadError::Probe(ProbeError::Value { index: 0, .. })
        ),
        "{error}"
    );
}

/// The fixture `conv-free-dims` in place of the voice activity bundle, after `change` of its directory and `model.toml`.
async fn fixture_refusal(change: impl FnOnce(&Path, &mut String)) -> Arc<LoadError> {
    const NAME: &str = "conv-free-dims";
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(NAME);
    let place = dir.path().join(NAME);
    copied_files(&from, &place);
    let manifest = place.join("model.toml");
    let mut text = fs::read_to_string(&manifest).unwrap();
    change(&place, &mut text);
    fs::write(manifest, text).unwrap();
    let inference = Inference::start(InferenceConfig {
        vad: NAME.into(),
        ..config_in(dir.path())
    });
    let state = until(&inference.handle(), Task::Vad, |state| {
        matches!(state, ModelState::Disabled { .. })
    })
    .await;
    println!("{state}");
    match state {
        ModelState::Disabled { error } => error,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_operator_that_the_runtime_does_not_have_is_named() {
    let error = fixture_refusal(|place, manifest| {
        let graph = place.join("model.onnx");
        let old = fs::read(&graph).unwrap();
        let at = old.windows(9).position(|part| part == b"ReduceMax");
        let at = at.expect("the fixture has this operator");
        let mut new = old.clone();
        new[at..at + 9].copy_from_slice(b"ReduceMix");
        fs::write(&graph, &new).unwrap();
        *manifest = manifest.replace(&digest(&old), &digest(&new));
    })
    .await;
    let LoadError::Operator { path, operator, .. } = error.as_ref() else {
        panic!("{error}")
    };
    assert!(path.ends_with("conv-free-dims/model.onnx"));
    assert_eq!(operator, "ReduceMix");
}

#[tokio::test]
async fn a_shape_that_the_graph_does_not_have_is_named_with_its_tensor() {
    for (from, to, tensor) in [
        (
            "state = { type = \"f32\", shape = [2, 1, 128] }",
            "state = { type = \"f32\", shape = [2, 1, 64] }",
            "state",
        ),
        (
            "output = { type = \"f32\", shape = [\"b\", 1] }",
            "output = { type = \"f32\", shape = [1] }",
            "output",
        ),
    ] {
        let error = fixture_refusal(|_, manifest| {
            assert!(manifest.contains(from), "{from}");
            *manifest = manifest.replace(from, to);
        })
        .await;
        let LoadError::Shape {
            name,
            expected,
            actual,
            ..
        } = error.as_ref()
        else {
            panic!("{error}")
        };
        assert_eq!(name, tensor);
        assert_ne!(expected, actual);
    }
    let error = fixture_refusal(|_, manifest| {
        *manifest = manifest.replace("input = { type = \"f32\"", "input = { type = \"i64\"");
    })
    .await;
    assert!(
        matches!(error.as_ref(), LoadError::Signature { name, .. } if name == "input"),
        "{error}"
    );
}

#[tokio::test]
async fn a_model_that_does_not_fit_into_memory_is_refused_before_it_is_read() {
    let error = fixture_refusal(|place, manifest| {
        // 4 TiB that take no room on the disk; hashing them would take an hour.
        const BYTES: u64 = 4 << 40;
        let weights = fs::File::create(place.join("model.onnx.data")).unwrap();
        weights.set_len(BYTES).unwrap();
        manifest.push_str(&format!(
            "\n[files.\"model.onnx.data\"]\nsha256 = \"{}\"\nbytes = {BYTES}\n",
            "0".repeat(64)
        ));
    })
    .await;
    let LoadError::Memory {
        path,
        needed_mib,
        available_mib,
        limit,
    } = error.as_ref()
    else {
        panic!("{error}")
    };
    assert!(path.ends_with("model.onnx"));
    assert!(
        *needed_mib >= 8 << 20 && needed_mib > available_mib,
        "{error}"
    );
    assert!(
        limit == "MemAvailable" || limit.contains("memory.max"),
        "{limit}"
    );
}

#[tokio::test]
async fn a_tokenizer_of_another_model_is_named_with_its_highest_id() {
    let dir = tempfile::tempdir().unwrap();
    let (from, place) = (
        bundles::bundle(bundles::CHAT),
        dir.path().join(bundles::CHAT),
    );
    fs::create_dir(&place).unwrap();
    for entry in fs::read_dir(&from).unwrap() {
        let name = entry.unwrap().file_name();
        // The weights are large and stay as they are; a link within the directory's file system, or a copy.
        fs::hard_link(from.join(&name), place.join(&name))
            .or_else(|_| fs::copy(from.join(&name), place.join(&name)).map(drop))
            .unwrap();
    }
    let tokenizer = from.join("tokenizer.json");
    let old = fs::read(&tokenizer).unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&old).unwrap();
    let mut token = value["added_tokens"][0].clone();
    token["id"] = 60_000.into();
    token["content"] = "<|beyond|>".into();
    value["added_tokens"].as_array_mut().unwrap().push(token);
    value["model"]["vocab"]["<|beyond|>"] = 60_000.into();
    let new = serde_json::to_vec(&value).unwrap();
    let manifest = fs::read_to_string(from.join("model.toml")).unwrap();
    let manifest = manifest.replace(&digest(&old), &digest(&new)).replace(
        &format!("bytes = {}\n", old.len()),
        &format!("bytes = {}\n", new.len()),
    );
    for (name, content) in [
        ("tokenizer.json", new),
        ("model.toml", manifest.into_bytes()),
    ] {
        // Never through the link.
        fs::remove_file(place.join(name)).unwrap();
        fs::write(place.join(name), content).unwrap();
    }
    let inference = Inference::start(config_in(dir.path()));
    let state = until(&inference.handle(), Task::Chat, |state| {
        matches!(state, ModelState::Disabled { .. })
    })
    .await;
    println!("{state}");
    let ModelState::Disabled { error } = state else {
        panic!("{state}")
    };
    assert!(
        matches!(
            error.as_ref(),
            LoadError::Vocabulary {
                highest: 60_000,
                limit: 49_152,
                tensor: "logits",
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn what_model_toml_gets_wrong_is_named() {
    for (from, to, named) in [
        ("format = 1", "format = 2", "format 2"),
        (
            "layout = \"silero-v5\"",
            "layout = \"perpetuum\"",
            "perpetuum",
        ),
        ("chunk_samples = 512", "chunk_samples = 0", "chunk_samples"),
        ("chunk_samples = 512", "chunk_sample = 512", "chunk_sample"),
        ("task = \"vad\"", "task = \"chat\"", "graph.layout"),
        (
            "name = \"silero-vad\"",
            "name = \"golden-vad\"",
            "golden-vad",
        ),
        (
            "state_shape = [2, 1, 128]",
            "state_shape = [1048576, 1048576]",
            "state_shape",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        copied(dir.path(), bundles::VAD);
        edit(&dir.path().join(bundles::VAD).join("model.toml"), from, to);
        let (inference, error) = refusal(dir.path()).await;
        assert!(
            matches!(error.as_ref(), LoadError::Bundle(_)),
            "{to}: {error}"
        );
        let state = inference
            .handle()
            .status()
            .borrow()
            .model(Task::Vad)
            .unwrap()
            .state
            .to_string();
        assert!(state.contains(named), "{named:?} is in {state}");
    }
}

#[tokio::test]
async fn a_bundle_configured_for_another_task_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = InferenceConfig {
        vad: bundles::EMBEDDING.into(),
        ..bundles::config_of(dir.path(), &[bundles::EMBEDDING])
    };
    let inference = Inference::start(config);
    let state = until(&inference.handle(), Task::Vad, |state| {
        matches!(state, ModelState::Disabled { .. })
    })
    .await;
    let ModelState::Disabled { error } = state else {
        panic!("{state}")
    };
    assert!(
        matches!(
            error.as_ref(),
            LoadError::WrongTask {
                expected: Task::Vad,
                actual: Task::Embedding,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_name_that_is_a_path_finds_nothing() {
    let config = InferenceConfig {
        vad: format!("../models/{}", bundles::VAD),
        ..bundles::config()
    };
    let inference = Inference::start(config);
    until(&inference.handle(), Task::Vad, |state| {
        matches!(state, ModelState::Missing { .. })
    })
    .await;
}

#[tokio::test]
async fn the_voice_model_tells_silence_and_remembers_between_calls() {
    let dir = tempfile::tempdir().unwrap();
    let inference = Inference::start(bundles::config_of(dir.path(), &[bundles::VAD]));
    let handle = inference.handle();
    handle
        .wait_ready(Task::Vad, bundles::PATIENCE)
        .await
        .unwrap();
    let (silence, _) = handle
        .vad()
        .score(vec![0.0; 512 * 10], VadState::default())
        .await
        .unwrap();
    assert!(
        silence.iter().all(|probability| *probability < 0.2),
        "{silence:?}"
    );

    let probe = fs::read(bundles::bundle(bundles::VAD).join("probe.json")).unwrap();
    let probe: serde_json::Value = serde_json::from_slice(&probe).unwrap();
    let samples: Vec<f32> = serde_json::from_value(probe["samples"].clone()).unwrap();
    let (whole, _) = handle
        .vad()
        .score(samples.clone(), VadState::default())
        .await
        .unwrap();
    let mut state = VadState::default();
    let mut parts = Vec::new();
    for chunk in samples.chunks(512) {
        let (part, next) = handle.vad().score(chunk.to_vec(), state).await.unwrap();
        parts.extend(part);
        state = next;
    }
    assert_eq!(parts, whole);
    let error = handle
        .vad()
        .score(vec![0.0; 500], VadState::default())
        .await
        .unwrap_err();
    assert!(
        matches!(error, InferenceError::OutOfRange { .. }),
        "{error}"
    );
}
