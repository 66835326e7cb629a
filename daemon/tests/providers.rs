//! Execution providers that misbehave are caught, named, and refused or taken as the policy says. On published packages that nobody
//! here wrote (`make test` fetches them), the real ONNX Runtime and the shipped bundles; only what crashes as it is loaded is a fixture.
//!
//! Each package's libraries are used in one test alone where they come into this process, since ONNX Runtime never lets one go.
#![cfg(target_arch = "x86_64")]

mod bundles;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use autoglm_edge::{
    inference::{
        Inference, InferenceConfig, InferenceHandle,
        bundle::Bundle,
        error::LoadError,
        manifest::Task,
        providers::{
            Choice, Measured, Policy, Providers, ProvidersConfig, Verdict, desk::Memory,
            policy::NODES_MIN_PREFERRED,
        },
        runtime::Runtime,
        status::ModelState,
        vad::VadState,
    },
    store::{ExportPolicy, Store, StoreConfig, verdicts::Verdicts},
};
use tokio_util::sync::CancellationToken;

fn package(path: &str) -> PathBuf {
    let place = bundles::cache().join("test-providers").join(path);
    assert!(
        place.is_dir(),
        "no {}: run `make test`, which fetches it",
        place.display()
    );
    place
}

fn nxrt() -> PathBuf {
    package("nxrt/nxrt_ep_cpu")
}

fn ggml() -> PathBuf {
    package("ggml/onnxruntime_ggml/lib")
}

/// Wants `names`, takes whatever time.
fn wanting(names: &[&str]) -> Policy {
    Policy {
        wanted: names.iter().map(|name| name.parse().unwrap()).collect(),
        time_max: None,
        ..Policy::default()
    }
}

fn requiring(names: &[&str]) -> Policy {
    Policy {
        wanted: wanting(names).wanted,
        ..Policy::required()
    }
}

fn config(dir: &Path, plugins: PathBuf, policy: Policy) -> ProvidersConfig {
    ProvidersConfig {
        dir: plugins,
        program: Some(env!("CARGO_BIN_EXE_autoglm-edged").into()),
        policy,
        ..ProvidersConfig::cpu(dir.join("compiled"))
    }
}

/// What a desk of its own chooses for a bundle.
fn chosen(bundle: &Path, config: ProvidersConfig) -> Result<Choice, Box<LoadError>> {
    let desk = Providers::new(config, CancellationToken::new());
    choose(&desk, bundle, Memory::Use)
}

fn choose(desk: &Providers, bundle: &Path, memory: Memory) -> Result<Choice, Box<LoadError>> {
    let runtime = Runtime::load(Some(&bundles::runtime_path())).unwrap();
    let bundle = Bundle::open(bundle).unwrap();
    let choice = desk.choose(&bundle, &runtime, std::num::NonZeroUsize::MIN, memory);
    match &choice {
        Ok(choice) => println!("{choice:#?}"),
        Err(error) => println!("{error}"),
    }
    choice.map_err(Box::new)
}

/// The one verdict on who was wanted, when the CPU runs it in the end.
fn refusal(choice: &Choice) -> &Verdict {
    assert!(choice.placement.candidate.is_cpu(), "it runs on the CPU");
    assert!(choice.is_fallback(), "and says that another was wanted");
    assert_eq!(choice.refused.len(), 1, "{:?}", choice.refused);
    &choice.refused[0].verdict
}

async fn ready(handle: &InferenceHandle, task: Task) -> Arc<Choice> {
    handle.wait_ready(task, bundles::PATIENCE).await.unwrap();
    let status = handle.status().borrow().clone();
    println!("{}", status.model(task).unwrap().state);
    match &status.model(task).unwrap().state {
        ModelState::Ready { choice, .. } => Arc::clone(choice),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_provider_that_takes_a_part_is_refused_or_taken_as_the_policy_says_and_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let vad = bundles::bundle(bundles::VAD);
    let choice = chosen(&vad, config(dir.path(), nxrt(), wanting(&["cpu_ep"]))).unwrap();
    let Verdict::Partial {
        placed: 3,
        total: 18,
        moved,
        nodes_min: NODES_MIN_PREFERRED,
    } = refusal(&choice)
    else {
        panic!("{:?}", choice.refused)
    };
    assert!((0.4..0.6).contains(moved), "{moved}");
    let measured = choice.refused[0].measured.as_ref().unwrap();
    assert!(
        measured.difference.scaled < 1e-4,
        "what it takes, it computes rightly: {measured:?}"
    );

    let error = chosen(&vad, config(dir.path(), nxrt(), requiring(&["cpu_ep:cpu"]))).unwrap_err();
    assert!(
        matches!(&*error, LoadError::NoProvider { tried, .. } if matches!(tried[0].verdict, Verdict::Partial { .. })),
        "{error}"
    );
    let not_allowed = Policy {
        allow: vec!["OpenVINO".parse().unwrap()],
        ..wanting(&["*:cpu"])
    };
    let choice = chosen(&vad, config(dir.path(), nxrt(), not_allowed)).unwrap();
    assert_eq!(refusal(&choice), &Verdict::NotAllowed);
    let choice = chosen(&vad, config(dir.path(), nxrt(), wanting(&["*:npu"]))).unwrap();
    assert_eq!(refusal(&choice), &Verdict::Absent);

    // A policy that takes a third of a graph has the daemon itself run on it; the verdict comes from the store.
    let lenient = Policy {
        nodes_min: 0.3,
        ..wanting(&["cpu_ep"])
    };
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    let store = StoreConfig {
        state_directory: state,
        export: ExportPolicy::default(),
    };
    let store = Store::open(store, SystemTime::now()).unwrap();
    let models = dir.path().join("models");
    fs::create_dir(&models).unwrap();
    let inference = |policy: Policy| {
        Inference::start(InferenceConfig {
            providers: ProvidersConfig {
                verdicts: Some(Verdicts::new(store.handle())),
                policies: [(bundles::VAD.to_owned(), policy)].into(),
                ..config(dir.path(), nxrt(), Policy::default())
            },
            model_dirs: vec![models.clone()],
            ..bundles::config()
        })
    };
    for name in [bundles::VAD, bundles::EMBEDDING] {
        std::os::unix::fs::symlink(bundles::bundle(name), models.join(name)).unwrap();
    }
    let first = inference(lenient.clone());
    let choice = ready(&first.handle(), Task::Vad).await;
    assert_eq!(choice.placement.candidate.provider, "cpu_ep");
    assert!(!choice.is_fallback());
    let measured = choice.measured.clone().expect("it was measured");
    let on_cpu = ready(&first.handle(), Task::Embedding).await;
    assert!(
        on_cpu.placement.candidate.is_cpu() && !on_cpu.is_fallback(),
        "a library in the process is for those who want it"
    );
    let (probabilities, _) = first
        .handle()
        .vad()
        .score(vec![0.0; 512 * 4], VadState::default())
        .await
        .unwrap();
    assert!(probabilities.iter().all(|probability| *probability < 0.2));
    drop(first);

    // The trial's program is gone: what is known must do.
    let mut second = config(dir.path(), nxrt(), lenient);
    second.program = Some("/nowhere/autoglm-edged".into());
    second.verdicts = Some(Verdicts::new(store.handle()));
    let desk = Providers::new(second, CancellationToken::new());
    let handle = tokio::task::spawn_blocking(move || choose(&desk, &vad, Memory::Use));
    let error = handle.await.unwrap().unwrap_err();
    assert!(
        matches!(*error, LoadError::Trial { .. }),
        "devices are looked for at each start: {error}"
    );
    let third = inference(Policy {
        nodes_min: 0.3,
        ..wanting(&["cpu_ep"])
    });
    let again = ready(&third.handle(), Task::Vad).await;
    let times = |measured: &Measured| (measured.cpu_us, measured.provider_us, measured.open_ms);
    assert_eq!(
        again.measured.as_ref().map(times),
        Some(times(&measured)),
        "to the microsecond: it was remembered, and not measured again"
    );
    let proved = third.handle().prove(bundles::VAD).await.unwrap();
    let renewed = proved.measured.expect("measured");
    assert_eq!(renewed.nodes_placed, measured.nodes_placed);
    assert_ne!(times(&renewed), times(&measured), "measured again");
    store.shutdown();
}

#[tokio::test]
async fn of_the_two_graphs_for_speech_the_one_that_hears_is_tried_on_real_sound() {
    let dir = tempfile::tempdir().unwrap();
    let stt = bundles::bundle(bundles::STT);
    let choice = chosen(&stt, config(dir.path(), nxrt(), wanting(&["cpu_ep"]))).unwrap();
    let Verdict::Partial { placed, total, .. } = refusal(&choice) else {
        panic!("{:?}", choice.refused)
    };
    assert!(0 < *placed && placed < total, "{placed} of {total}");
    let measured = choice.refused[0].measured.as_ref().unwrap();
    assert!(
        measured.difference.output.starts_with("cross."),
        "{measured:?}"
    );
    assert!(measured.difference.scaled < 0.02, "{measured:?}");
}

#[tokio::test]
async fn a_provider_that_computes_wrongly_is_named_with_output_and_difference() {
    let dir = tempfile::tempdir().unwrap();
    let vad = bundles::bundle(bundles::VAD);
    let name = "onnxruntime_ggml";
    let choice = chosen(&vad, config(dir.path(), ggml(), wanting(&[name]))).unwrap();
    let Verdict::Wrong {
        output, difference, ..
    } = refusal(&choice)
    else {
        panic!("{:?}", choice.refused)
    };
    assert_eq!(output, "stateN");
    assert!(*difference > 0.3, "{difference}");
    let measured = choice.refused[0].measured.as_ref().unwrap();
    assert_eq!(
        (measured.nodes_placed, measured.nodes_left),
        (1, 0),
        "it took the whole graph"
    );

    // Required, it disables the model, which says why; the others work.
    let models = dir.path().join("models");
    fs::create_dir(&models).unwrap();
    let inference = Inference::start(InferenceConfig {
        providers: ProvidersConfig {
            policies: [(bundles::VAD.to_owned(), requiring(&[name]))].into(),
            ..config(dir.path(), ggml(), Policy::default())
        },
        ..bundles::config_of(&models, &[bundles::VAD, bundles::EMBEDDING])
    });
    let handle = inference.handle();
    ready(&handle, Task::Embedding).await;
    let mut status = handle.status();
    let disabled = status.wait_for(|status| {
        matches!(
            status.model(Task::Vad).unwrap().state,
            ModelState::Disabled { .. }
        )
    });
    let disabled = tokio::time::timeout(bundles::PATIENCE, disabled)
        .await
        .unwrap()
        .unwrap()
        .clone();
    let text = disabled.model(Task::Vad).unwrap().state.to_string();
    for part in ["requires", "onnxruntime_ggml on cpu", "wrong", "stateN"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert_eq!(disabled.providers.len(), 2, "built in, and the library");
}

#[test]
fn a_provider_that_claims_nothing_is_found_out_though_nothing_fails() {
    let dir = tempfile::tempdir().unwrap();
    let embedding = bundles::bundle(bundles::EMBEDDING);
    for (plugins, name) in [(ggml(), "onnxruntime_ggml"), (nxrt(), "cpu_ep")] {
        let choice = chosen(&embedding, config(dir.path(), plugins, wanting(&[name]))).unwrap();
        assert_eq!(refusal(&choice), &Verdict::Elsewhere, "{name}");
    }
}

#[test]
fn a_provider_that_fails_while_it_runs_is_named_with_the_step_and_its_words() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/conv-free-dims");
    let choice = chosen(&bundle, config(dir.path(), nxrt(), wanting(&["cpu_ep"]))).unwrap();
    let Verdict::Failed { stage, message } = refusal(&choice) else {
        panic!("{:?}", choice.refused)
    };
    assert_eq!(stage, "the probe on cpu_ep on cpu");
    assert!(message.contains("Conv"), "{message}");
}

fn build(dir: &Path, flaw: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bad_provider.c");
    let library = dir.join(format!("lib{}_provider.so", flaw.to_lowercase()));
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", &format!("-D{flaw}"), "-o"])
        .args([&library, &source])
        .status()
        .unwrap();
    assert!(built.success());
}

#[test]
fn a_library_that_crashes_hangs_or_eats_memory_as_it_is_loaded_is_contained() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = dir.path().join("plugins");
    fs::create_dir(&plugins).unwrap();
    for flaw in ["ABORT", "GREED"] {
        build(&plugins, flaw);
    }
    for entry in fs::read_dir(nxrt()).unwrap() {
        let entry = entry.unwrap();
        std::os::unix::fs::symlink(entry.path(), plugins.join(entry.file_name())).unwrap();
    }
    let mut config = config(dir.path(), plugins, wanting(&["cpu_ep"]));
    config.trial_memory_bytes = 1 << 30;
    let desk = Providers::new(config, CancellationToken::new());
    let choice = choose(&desk, &bundles::bundle(bundles::VAD), Memory::Use).unwrap();
    assert!(
        matches!(refusal(&choice), Verdict::Partial { .. }),
        "the library beside them is still tried"
    );
    let runtime = Runtime::load(Some(&bundles::runtime_path())).unwrap();
    let found = desk.inventory(&runtime).unwrap();
    let problem = |name: &str| {
        let found = found.iter().find(|found| {
            let library = found.library.as_ref();
            library.is_some_and(|path| path.ends_with(name))
        });
        let problem = found.unwrap().problem.clone();
        println!("{name}: {problem:?}");
        problem.unwrap_or_default()
    };
    let aborted = problem("libabort_provider.so");
    for part in [
        "registering the library",
        "SIGABRT",
        "bad_provider: no such device",
    ] {
        assert!(aborted.contains(part), "{part:?} in {aborted}");
    }
    let greedy = problem("libgreed_provider.so");
    assert!(
        greedy.contains("registering the library") && greedy.contains("exit status: 9"),
        "memory ran out in the trial, and nowhere else: {greedy}"
    );
    assert_eq!(problem("libonnx_runtime_ep_cpu_plugin.so"), "");
}

#[test]
fn a_provider_that_hangs_is_killed_when_its_time_is_up() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = dir.path().join("plugins");
    fs::create_dir(&plugins).unwrap();
    build(&plugins, "HANG");
    let stop = CancellationToken::new();
    let desk = Providers::new(
        config(dir.path(), plugins, wanting(&["*:cpu"])),
        stop.clone(),
    );
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        stop.cancel();
    });
    // Its time is half a minute; stopping inference does not wait for that.
    let error = choose(&desk, &bundles::bundle(bundles::VAD), Memory::Use).unwrap_err();
    assert!(matches!(*error, LoadError::Trial { .. }), "{error}");
    stopper.join().unwrap();
}
