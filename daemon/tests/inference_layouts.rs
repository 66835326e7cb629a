//! The chat model in the layouts that people download, against the bundle's own layout, on the real ONNX Runtime.
//!
//! The bundles are the same weights; `python3 models/setup.py bundles optimum-int4` and so on builds them. They are no part of the
//! default bundles, so a machine without them skips these tests and says so.

mod bundles;

use autoglm_edge::inference::{
    Inference, InferenceConfig,
    chat::{ChatEvent, ChatMessage, ChatRequest, Role},
    manifest::Task,
};

fn has(name: &str) -> bool {
    let is_there = bundles::cache()
        .join("test-models")
        .join(name)
        .join("model.toml")
        .is_file();
    if !is_there {
        println!("skipped: no bundle {name}; `python3 models/setup.py bundles {name}` builds it");
    }
    is_there
}

/// The engine with one chat bundle. That it becomes ready means that its logits are those of the probe, within its tolerance.
async fn engine(name: &str) -> Inference {
    let inference = Inference::start(InferenceConfig {
        model_dirs: vec![
            bundles::cache().join("models"),
            bundles::cache().join("test-models"),
        ],
        chat: name.into(),
        embedding: "none".into(),
        vad: "none".into(),
        stt: None,
        ..bundles::config()
    });
    inference
        .handle()
        .wait_ready(Task::Chat, bundles::PATIENCE)
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    inference
}

fn question(text: &str) -> Vec<ChatMessage> {
    vec![ChatMessage {
        role: Role::User,
        content: text.into(),
    }]
}

/// The answer, and how many tokens of the prompt were reused.
async fn answers(inference: &Inference, texts: &[&str], tokens: usize) -> Vec<(String, usize)> {
    let chat = inference.handle().chat().clone();
    let streams: Vec<_> = texts
        .iter()
        .map(|text| {
            chat.generate(ChatRequest::new(question(text), tokens))
                .unwrap()
        })
        .collect();
    let mut told = Vec::new();
    for mut stream in streams {
        let (mut text, mut reused) = (String::new(), 0);
        while let Some(event) = stream.recv().await {
            match event {
                ChatEvent::Started { reused_tokens, .. } => reused = reused_tokens,
                ChatEvent::Delta(piece) => text.push_str(&piece),
                ChatEvent::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
        told.push((text, reused));
    }
    told
}

const QUESTIONS: [&str; 4] = [
    "What is the capital of France?",
    "What is the capital of Japan?",
    "What is 12 plus 30?",
    "Name three colours.",
];

/// Alone, side by side, and with what the first round left in the caches, the answers of a layout are the same.
async fn holds_together(name: &str) {
    if !has(name) {
        return;
    }
    let inference = engine(name).await;
    let mut alone = Vec::new();
    for text in QUESTIONS {
        alone.extend(answers(&inference, &[text], 12).await);
    }
    let together = answers(&inference, &QUESTIONS, 12).await;
    for ((alone, _), (together, reused)) in alone.iter().zip(&together) {
        assert!(!alone.is_empty());
        assert_eq!(together, alone, "{name}");
        assert!(*reused > 0, "{name}: nothing was reused");
    }
}

#[tokio::test]
async fn optimum_in_4_bits_answers_as_the_default_bundle_does() {
    if !has("optimum-int4") {
        return;
    }
    let text = "What is the capital of Japan?";
    let (ours, theirs) = (engine(bundles::CHAT).await, engine("optimum-int4").await);
    let ours = &answers(&ours, &[text], 16).await[0].0;
    let theirs = &answers(&theirs, &[text], 16).await[0].0;
    assert!(ours.contains("Tokyo"), "{ours}");
    assert!(theirs.contains("Tokyo"), "{theirs}");
    holds_together("optimum-int4").await;
}

#[tokio::test]
async fn a_cache_of_bytes_answers_as_one_of_floats_does() {
    const BYTES: &str = "smollm2-135m-instruct-int4-kv8";
    if !has(BYTES) {
        return;
    }
    let text = "What is the capital of Japan?";
    let told = &answers(&engine(BYTES).await, &[text], 16).await[0].0;
    assert!(told.contains("Tokyo"), "{told}");
    holds_together(BYTES).await;
}

#[tokio::test]
async fn optimum_in_8_bits_holds_together() {
    holds_together("optimum-int8").await;
}

#[tokio::test]
async fn optimum_in_plain_floats_of_32_bits_holds_together() {
    holds_together("optimum-fp32").await;
}

#[tokio::test]
async fn optimum_in_plain_floats_of_16_bits_holds_together() {
    holds_together("optimum-fp16").await;
}

#[tokio::test]
async fn optimum_in_floats_of_16_bits_with_fused_attention_holds_together() {
    holds_together("optimum-fp16-fused").await;
}
