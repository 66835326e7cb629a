//! Providers that come and go while models run on them. In a process of its own: ONNX Runtime never lets go of a library, and knows it by its name.
#![cfg(target_arch = "x86_64")]

mod bundles;

use std::fs;

use autoglm_edge::inference::{
    Inference, InferenceConfig,
    manifest::Task,
    providers::{Policy, ProvidersConfig, Verdict},
    status::ModelState,
    vad::VadState,
};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_library_that_comes_takes_over_from_the_cpu_and_one_that_goes_gives_back_without_a_request_lost()
 {
    let dir = tempfile::tempdir().unwrap();
    let (plugins, models) = (dir.path().join("plugins"), dir.path().join("models"));
    fs::create_dir(&plugins).unwrap();
    fs::create_dir(&models).unwrap();
    // A third of the graph is enough.
    let lenient = Policy {
        wanted: vec!["cpu_ep".parse().unwrap()],
        time_max: None,
        nodes_min: 0.3,
        ..Policy::default()
    };
    let providers = ProvidersConfig {
        dir: plugins.clone(),
        program: Some(env!("CARGO_BIN_EXE_autoglm-edged").into()),
        policy: lenient,
        ..ProvidersConfig::cpu(dir.path().join("compiled"))
    };
    let inference = Inference::start(InferenceConfig {
        providers,
        ..bundles::config_of(&models, &[bundles::VAD])
    });
    let handle = inference.handle();
    handle
        .wait_ready(Task::Vad, bundles::PATIENCE)
        .await
        .unwrap();
    let on_cpu = bundles::until(&handle, Task::Vad, ModelState::is_ready).await;
    let ModelState::Ready { choice, .. } = on_cpu else {
        unreachable!("it is ready")
    };
    assert!(choice.placement.candidate.is_cpu() && choice.is_fallback());
    assert_eq!(choice.refused[0].verdict, Verdict::Absent);

    // Somebody asks all the time.
    let asking = CancellationToken::new();
    let vad = handle.vad().clone();
    let stop = asking.clone();
    let asker = tokio::spawn(async move {
        let mut asked = 0u32;
        while !stop.is_cancelled() {
            let silence = vec![0.0; 512 * 2];
            vad.score(silence, VadState::default()).await.unwrap();
            asked += 1;
        }
        asked
    });
    let runs_on = async |provider: &str| {
        let on_it = |state: &ModelState| matches!(state, ModelState::Ready { choice, .. } if choice.placement.candidate.provider == provider);
        bundles::until(&handle, Task::Vad, on_it).await;
    };
    // Whole or not at all, as a package manager brings it.
    let (name, unfinished) = (
        "libonnx_runtime_ep_cpu_plugin.so",
        dir.path().join("unfinished"),
    );
    let package = bundles::cache().join("test-providers/nxrt/nxrt_ep_cpu");
    fs::copy(package.join(name), &unfinished).expect("`make test` fetches it");
    fs::rename(&unfinished, plugins.join(name)).unwrap();
    handle.recheck();
    runs_on("cpu_ep").await;
    fs::remove_file(plugins.join(name)).unwrap();
    handle.recheck();
    runs_on("CPUExecutionProvider").await;
    asking.cancel();
    let asked = asker.await.unwrap();
    println!("{asked} requests");
    assert!(asked > 0);
}
