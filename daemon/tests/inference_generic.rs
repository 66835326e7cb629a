//! Plain tensors in and out: small graphs that are no models, and a real one that has a task of its own, on the real ONNX Runtime.

mod bundles;

use std::{fs, path::Path};

use autoglm_edge::inference::{
    Inference, InferenceConfig, InferenceHandle,
    arrays::{Array, Arrays, Values},
    class::Class,
    error::{InferenceError, LoadError},
    status::ModelState,
};

const ROWS: &str = "rows";

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// The engine with these bundles of plain tensors and no other model.
fn start(dir: &Path, names: &[&str]) -> Inference {
    Inference::start(InferenceConfig {
        model_dirs: vec![dir.into()],
        generic: names.iter().map(|name| (*name).into()).collect(),
        ..bundles::config()
    })
}

async fn state_of(handle: &InferenceHandle, name: &str) -> ModelState {
    let mut status = handle.status();
    let settled = status.wait_for(|status| {
        status.models.iter().any(|model| {
            let is_settled = matches!(
                model.state,
                ModelState::Ready { .. } | ModelState::Disabled { .. }
            );
            *model.name == *name && is_settled
        })
    });
    let settled = tokio::time::timeout(bundles::PATIENCE, settled).await;
    let status = settled
        .expect("it settles")
        .expect("the engine runs")
        .clone();
    let model = status.models.into_iter().find(|model| *model.name == *name);
    model.expect("it is configured").state
}

async fn rows() -> (Inference, InferenceHandle) {
    let inference = start(&fixture(""), &[ROWS]);
    let handle = inference.handle();
    let state = state_of(&handle, ROWS).await;
    assert!(state.is_ready(), "{state}");
    (inference, handle)
}

/// `n` rows of `t` times three numbers, of which the first row begins with `first`.
fn inputs(n: usize, t: usize, first: f32) -> Arrays {
    let values = (0..n * t * 3).map(|index| first + index as f32).collect();
    let mask = (0..n * t).map(|index| index % 3 != 0).collect();
    Arrays::from([
        (
            "x".into(),
            Array {
                shape: vec![n, t, 3],
                values: Values::F32(values),
            },
        ),
        (
            "mask".into(),
            Array {
                shape: vec![n, t],
                values: Values::Bool(mask),
            },
        ),
    ])
}

/// What the graph should say, computed here.
fn expected(inputs: &Arrays) -> Arrays {
    let (Values::F32(x), Values::Bool(mask)) = (&inputs["x"].values, &inputs["mask"].values) else {
        panic!("{inputs:?}");
    };
    let shape = inputs["mask"].shape.clone();
    let sums = x
        .chunks(3)
        .zip(mask)
        .map(|(x, &is_on)| if is_on { x.iter().sum() } else { 0.0 });
    let counts = mask
        .chunks(shape[1])
        .map(|row| row.iter().filter(|it| **it).count() as i64);
    Arrays::from([
        (
            "y".into(),
            Array {
                shape: shape.clone(),
                values: Values::F32(sums.collect()),
            },
        ),
        (
            "count".into(),
            Array {
                shape: vec![shape[0]],
                values: Values::I64(counts.collect()),
            },
        ),
    ])
}

#[tokio::test]
async fn a_graph_is_run_by_its_manifest_and_requests_that_wait_together_get_their_own_answers() {
    let (_inference, handle) = rows().await;
    let rows = handle.generic(ROWS).unwrap();
    let single = inputs(2, 5, 0.25);
    assert_eq!(
        rows.run(single.clone(), Class::default()).await.unwrap(),
        expected(&single)
    );
    assert!(handle.generic("others").is_none());

    // More than fit into one batch, of two lengths, and some that are wrong among them.
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..24usize {
        let rows = rows.clone();
        tasks.spawn(async move {
            let inputs = inputs(1 + number % 3, 4 + number % 2, number as f32);
            if number % 7 == 6 {
                let mut wrong = inputs.clone();
                wrong.remove("mask");
                let error = rows.run(wrong, Class::default()).await.unwrap_err();
                assert!(
                    matches!(&error, InferenceError::Tensor { name, .. } if name == "mask"),
                    "{error}"
                );
                return;
            }
            assert_eq!(
                rows.run(inputs.clone(), Class::default()).await.unwrap(),
                expected(&inputs),
                "{number}"
            );
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_request_is_told_the_tensor_and_the_limit_and_the_model_goes_on() {
    let (_inference, handle) = rows().await;
    let rows = handle.generic(ROWS).unwrap();
    for (wrong, part) in [
        (inputs(9, 4, 0.0), "n = 9, expected n from 1 to 8"),
        (inputs(1, 65, 0.0), "t = 65, expected t from 2 to 64"),
        (Arrays::new(), "\"mask\" is absent"),
    ] {
        let error = rows
            .run(wrong, Class::default())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    let huge = Array {
        shape: vec![1, 1 << 24, 3],
        values: Values::F32(vec![0.0; 3 << 24]),
    };
    let error = rows
        .run(Arrays::from([("x".into(), huge)]), Class::default())
        .await
        .unwrap_err();
    assert!(
        matches!(error, InferenceError::OutOfRange { .. }),
        "{error}"
    );
    let good = inputs(1, 4, 1.0);
    assert_eq!(
        rows.run(good.clone(), Class::default()).await.unwrap(),
        expected(&good)
    );
}

#[tokio::test]
async fn a_graph_whose_rows_touch_each_other_is_not_run_as_a_batch() {
    let inference = start(&fixture(""), &["rows-that-touch", ROWS]);
    let handle = inference.handle();
    let state = state_of(&handle, "rows-that-touch").await;
    let ModelState::Disabled { error } = &state else {
        panic!("{state}");
    };
    assert!(
        matches!(**error, LoadError::Probe(_)) && state.to_string().contains("\"y\""),
        "{state}"
    );
    // Its neighbour of the same task has a state of its own.
    assert!(state_of(&handle, ROWS).await.is_ready());
    let refused = handle
        .generic("rows-that-touch")
        .unwrap()
        .run(inputs(1, 4, 0.0), Class::default())
        .await;
    assert!(
        matches!(refused, Err(InferenceError::NotReady { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_manifest_that_contradicts_itself_or_its_graph_disables_the_model() {
    for (from, to, part) in [
        ("t = { min = 2, max = 64 }", "", "graph.dimensions.t"),
        (
            "t = { min = 2, max = 64 }",
            "t = { min = 65, max = 64 }",
            "min not above max",
        ),
        ("batch = \"n\"", "batch = \"t\"", "a first dimension \"t\""),
        (
            "mask = { type = \"bool\"",
            "mask = { type = \"string\"",
            "f32, f64",
        ),
        (
            "shape = [\"n\", \"t\", 3]",
            "shape = [\"n\", \"t\", 4]",
            "[n, t, 4]",
        ),
        (
            "count = { type = \"i64\"",
            "count = { type = \"i32\"",
            "\"count\"",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join(ROWS);
        fs::create_dir(&bundle).unwrap();
        for entry in fs::read_dir(fixture(ROWS)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), bundle.join(entry.file_name())).unwrap();
        }
        let text = fs::read_to_string(bundle.join("model.toml")).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(bundle.join("model.toml"), text.replace(from, to)).unwrap();
        let inference = start(dir.path(), &[ROWS]);
        let state = state_of(&inference.handle(), ROWS).await.to_string();
        assert!(
            state.starts_with("disabled") && state.contains(part),
            "{from} -> {to}: {state}"
        );
    }
}

/// The voice activity detector as plain tensors: a real graph, with a state and without a batch.
#[tokio::test]
async fn a_real_graph_gives_the_same_numbers_as_under_its_own_task() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (bundles::bundle(bundles::VAD), dir.path().join("tensors"));
    fs::create_dir(&to).unwrap();
    fs::copy(from.join("model.onnx"), to.join("model.onnx")).unwrap();
    let manifest = fs::read_to_string(from.join("model.toml")).unwrap();
    let manifest: toml::Table = toml::from_str(&manifest).unwrap();
    let probe: serde_json::Value =
        serde_json::from_slice(&fs::read(from.join("probe.json")).unwrap()).unwrap();
    let samples: Vec<f32> = serde_json::from_value(probe["samples"].clone()).unwrap();
    let (context, chunk) = (64, 512);
    let sound: Vec<f32> = [vec![0.0; context], samples[..chunk].to_vec()].concat();
    let tensor =
        |shape: &[usize], values: &[f32]| serde_json::json!({"shape": shape, "values": values});
    let own = serde_json::json!({
        "inputs": {"input": tensor(&[1, context + chunk], &sound), "state": tensor(&[2, 1, 128], &[0.0; 256])},
        "outputs": {"output": tensor(&[1, 1], &[probe["probabilities"][0].as_f64().unwrap() as f32])},
        "tolerance": 1e-3,
    });
    fs::write(to.join("probe.json"), own.to_string()).unwrap();
    let digest = |name: &str| {
        use sha2::Digest as _;
        let bytes = fs::read(to.join(name)).unwrap();
        let mut facts = toml::Table::new();
        facts.insert("bytes".into(), toml::Value::Integer(bytes.len() as i64));
        facts.insert(
            "sha256".into(),
            hex::encode(sha2::Sha256::digest(bytes)).into(),
        );
        (name.to_owned(), toml::Value::Table(facts))
    };
    let mut changed = manifest.clone();
    changed.insert("name".into(), "tensors".into());
    changed.insert("task".into(), "generic".into());
    changed.insert(
        "files".into(),
        toml::Value::Table(
            [digest("model.onnx"), digest("probe.json")]
                .into_iter()
                .collect(),
        ),
    );
    let mut graph = toml::Table::new();
    graph.insert("file".into(), "model.onnx".into());
    graph.insert("layout".into(), "tensors".into());
    let tensors = r#"
        inputs = { input = { type = "f32", shape = [1, 576] }, state = { type = "f32", shape = [2, 1, 128] } }
        outputs = { output = { type = "f32", shape = [1, 1] }, stateN = { type = "f32", shape = [2, 1, 128] } }
    "#;
    graph.extend(toml::from_str::<toml::Table>(tensors).unwrap());
    changed.insert("graph".into(), toml::Value::Table(graph));
    fs::write(to.join("model.toml"), toml::to_string(&changed).unwrap()).unwrap();

    let inference = start(dir.path(), &["tensors"]);
    let handle = inference.handle();
    let state = state_of(&handle, "tensors").await;
    assert!(state.is_ready(), "{state}");
    let array = |shape: &[usize], values: Vec<f32>| Array {
        shape: shape.to_vec(),
        values: Values::F32(values),
    };
    let mut state = array(&[2, 1, 128], vec![0.0; 256]);
    let mut before = vec![0.0; context];
    let model = handle.generic("tensors").unwrap();
    let expected: Vec<f32> = serde_json::from_value(probe["probabilities"].clone()).unwrap();
    for (chunk, expected) in samples.chunks_exact(chunk).zip(expected) {
        let input = [before.as_slice(), chunk].concat();
        before = input[input.len() - context..].to_vec();
        let inputs = Arrays::from([
            ("input".into(), array(&[1, input.len()], input)),
            ("state".into(), state),
        ]);
        let mut outputs = model.run(inputs, Class::default()).await.unwrap();
        let Values::F32(output) = &outputs["output"].values else {
            panic!()
        };
        assert!(
            (output[0] - expected).abs() < 1e-3,
            "{} against {expected}",
            output[0]
        );
        state = outputs.remove("stateN").unwrap();
    }
}
