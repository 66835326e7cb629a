//! A whole ONNX Runtime of another version (1.24, with the OpenVINO provider built in) is found at run time, and its provider proved,
//! used and remembered. Alone in its file: a process has one ONNX Runtime.
#![cfg(target_arch = "x86_64")]

mod bundles;

use std::{path::PathBuf, sync::Arc};

use autoglm_edge::inference::{
    Inference, InferenceConfig, InferenceHandle,
    manifest::Task,
    providers::{Choice, Kind, Policy, ProvidersConfig, Verdict, outcome::Compiled},
    status::{ModelState, RuntimeState},
    vad::VadState,
};

fn library() -> PathBuf {
    let place =
        bundles::cache().join("test-providers/openvino/onnxruntime/capi/libonnxruntime.so.1.24.1");
    assert!(
        place.is_file(),
        "no {}: run `make test`, which fetches it",
        place.display()
    );
    place
}

async fn ready(handle: &InferenceHandle, task: Task) -> Arc<Choice> {
    handle.wait_ready(task, bundles::PATIENCE).await.unwrap();
    let status = handle.status().borrow().clone();
    match &status.model(task).unwrap().state {
        ModelState::Ready { choice, .. } => Arc::clone(choice),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn openvino_in_a_runtime_of_another_version_is_accepted_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = |text: &str| vec![text.parse().unwrap()];
    let inference = Inference::start(InferenceConfig {
        runtime_path: Some(library()),
        providers: ProvidersConfig {
            program: Some(env!("CARGO_BIN_EXE_autoglm-edged").into()),
            policies: [
                (
                    bundles::VAD.to_owned(),
                    Policy {
                        wanted: wanted("OpenVINO:cpu"),
                        ..Policy::required()
                    },
                ),
                (
                    bundles::EMBEDDING.to_owned(),
                    Policy {
                        wanted: wanted("OpenVINO:npu"),
                        ..Policy::default()
                    },
                ),
            ]
            .into(),
            ..ProvidersConfig::cpu(dir.path().join("compiled"))
        },
        ..bundles::config()
    });
    let handle = inference.handle();
    let vad = ready(&handle, Task::Vad).await;
    println!("{vad:#?}");
    let runtime = handle.status().borrow().runtime.clone();
    assert!(
        matches!(&runtime, RuntimeState::Loaded { path, .. } if **path == *library()),
        "{runtime}"
    );
    let candidate = &vad.placement.candidate;
    assert_eq!(
        (candidate.provider.as_str(), candidate.kind),
        ("OpenVINOExecutionProvider", Kind::Cpu)
    );
    let measured = vad.measured.as_ref().expect("it was measured");
    assert_eq!(
        (measured.nodes_placed, measured.nodes_left),
        (1, 0),
        "the whole graph, compiled into one node"
    );
    assert!(measured.difference.scaled < 1e-4, "{measured:?}");
    match &measured.compiled {
        // 2025.4 writes a compiled graph for a processor that it cannot read again, so its own cache serves.
        Compiled::ByProvider { bytes } => assert!(*bytes > 100_000, "{bytes}"),
        Compiled::Kept { bytes, .. } => assert!(*bytes > 100_000, "{bytes}"),
        other => panic!("{other:?}"),
    }
    let (probabilities, _) = handle
        .vad()
        .score(vec![0.0; 512 * 4], VadState::default())
        .await
        .unwrap();
    assert!(probabilities.iter().all(|probability| *probability < 0.2));

    // This box has no NPU: said, and the CPU runs it.
    let embedding = ready(&handle, Task::Embedding).await;
    assert!(embedding.placement.candidate.is_cpu());
    let verdict = &embedding.refused[0].verdict;
    println!("{verdict}");
    assert!(matches!(verdict, Verdict::Failed { .. }), "{verdict}");
    assert!(handle.status().borrow().fallbacks >= 1);
}
