//! A missing ONNX Runtime is said and recovers by itself. Alone in its file, because a loaded runtime stays for the life of the
//! process, and every test file is a process of its own.

mod bundles;

use std::{fs, io::Read, sync::Arc};

use autoglm_edge::inference::{
    Inference, InferenceConfig,
    manifest::Task,
    runtime::RuntimeError,
    status::{InferenceStatus, ModelState, RuntimeState},
};

#[tokio::test]
async fn a_missing_or_half_copied_runtime_is_said_and_recovers_when_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let library = dir.path().join("libonnxruntime.so");
    let models = dir.path().join("models");
    fs::create_dir(&models).unwrap();
    let inference = Inference::start(InferenceConfig {
        runtime_path: Some(library.clone()),
        ..bundles::config_of(&models, &[bundles::EMBEDDING])
    });
    let handle = inference.handle();
    let mut status = handle.status();
    let mut error_is = async |wanted: fn(&RuntimeError) -> bool| {
        handle.recheck();
        let reached = status.wait_for(|status: &InferenceStatus| {
            matches!(&status.runtime, RuntimeState::Missing { error, .. } if wanted(error))
                && matches!(
                    status.model(Task::Embedding).unwrap().state,
                    ModelState::Missing { .. }
                )
        });
        let status = tokio::time::timeout(bundles::PATIENCE, reached)
            .await
            .expect("the error is reported")
            .unwrap();
        println!("{}", status.runtime);
        let RuntimeState::Missing { error, remedy } = &status.runtime else {
            panic!("{}", status.runtime)
        };
        assert!(remedy.contains("runtime_path"), "{remedy}");
        (
            Arc::clone(error),
            status.model(Task::Embedding).unwrap().state.to_string(),
        )
    };

    let (error, model) = error_is(|error| matches!(error, RuntimeError::Missing { .. })).await;
    assert_eq!(error.looked(), std::slice::from_ref(&library));
    assert!(
        model.contains(library.to_str().unwrap()),
        "the model says what it waits for: {model}"
    );

    fs::write(&library, "this is no library").unwrap();
    error_is(|error| {
        matches!(
            error,
            RuntimeError::Incomplete {
                actual_bytes: 18,
                ..
            }
        )
    })
    .await;

    // An interrupted copy: mapped, its missing pages would kill the process.
    let mut start = Vec::new();
    fs::File::open(bundles::runtime_path())
        .unwrap()
        .take(1 << 20)
        .read_to_end(&mut start)
        .unwrap();
    fs::write(&library, start).unwrap();
    error_is(|error| {
        matches!(
            error,
            RuntimeError::Incomplete {
                actual_bytes: 1_048_576,
                ..
            }
        )
    })
    .await;

    // A whole library, but another one.
    fs::remove_file(&library).unwrap();
    let other = [
        "/lib/x86_64-linux-gnu/libz.so.1",
        "/lib/aarch64-linux-gnu/libz.so.1",
        "/usr/lib/libz.so.1",
    ];
    let other = other
        .into_iter()
        .find(|path| fs::exists(path).unwrap_or(false));
    if let Some(other) = other {
        fs::copy(other, &library).unwrap();
        error_is(|error| matches!(error, RuntimeError::Unloadable { .. })).await;
        fs::remove_file(&library).unwrap();
    }

    fs::copy(bundles::runtime_path(), &library).unwrap();
    // Not asked to look again: it does so by itself.
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
    let runtime = handle.status().borrow().runtime.clone();
    assert!(
        matches!(&runtime, RuntimeState::Loaded { path, .. } if **path == *library),
        "{runtime}"
    );
}
